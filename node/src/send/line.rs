//! Whether a session's line is what holds the transfer up. Only then does packing pay: on a line that is idle half
//! of the time it would take processor time from the database beside it and win nothing.

use posthouse_platform::clock::Clock;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What the data channels of one session share: how much of the time any of them waits for the line.
pub struct Line {
    clock: Arc<dyn Clock>,
    meter: Mutex<Meter>,
}

impl Line {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let meter = Mutex::new(Meter::new(clock.monotonic()));
        Self { clock, meter }
    }
    /// A channel has something to write and waits until the line has taken it.
    pub fn write_began(&self) {
        self.locked().began(self.clock.monotonic());
    }
    /// The line took so much content in so many bytes.
    pub fn write_ended(&self, bytes: u64, wire_bytes: u64) {
        self.locked().ended(self.clock.monotonic(), bytes, wire_bytes);
    }
    /// Whether content is to be packed from now on.
    pub fn packs(&self) -> bool {
        self.locked().packs
    }
    fn locked(&self) -> MutexGuard<'_, Meter> {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Measures in windows, and decides at the end of each for the next.
struct Meter {
    packs: bool,
    /// Channels that wait for the line now.
    waiting: u32,
    /// When that was last 0, or was last counted.
    counted: Duration,
    window: Duration,
    busy: Duration,
    bytes: u64,
    wire_bytes: u64,
}

impl Meter {
    fn new(now: Duration) -> Self {
        Self { packs: false, waiting: 0, counted: now, window: now, busy: Duration::ZERO, bytes: 0, wire_bytes: 0 }
    }
    fn began(&mut self, now: Duration) {
        self.count(now);
        self.waiting += 1;
    }
    fn ended(&mut self, now: Duration, bytes: u64, wire_bytes: u64) {
        self.count(now);
        self.waiting = self.waiting.saturating_sub(1);
        self.bytes += bytes;
        self.wire_bytes += wire_bytes;
        let window = now.saturating_sub(self.window);
        if window >= WINDOW {
            self.packs = self.is_slow() && self.need() >= window.as_secs_f64() * FULL;
            (self.window, self.busy, self.bytes, self.wire_bytes) = (now, Duration::ZERO, 0, 0);
        }
    }
    fn count(&mut self, now: Duration) {
        if self.waiting > 0 {
            self.busy += now.saturating_sub(self.counted);
        }
        self.counted = now;
    }
    /// Seconds that the line would have needed for the window's content as it is.
    fn need(&self) -> f64 {
        self.busy.as_secs_f64() * self.bytes as f64 / self.wire_bytes.max(1) as f64
    }
    /// Whether it takes less than one core can pack.
    fn is_slow(&self) -> bool {
        (self.wire_bytes as f64) < self.busy.as_secs_f64() * PACKED_PER_SECOND
    }
}

const WINDOW: Duration = Duration::from_millis(250);
/// The share of its time that a line which holds the transfer up is in use.
const FULL: f64 = 0.9;
/// Bytes that one core packs in a second, with some left for the rest of the transfer.
const PACKED_PER_SECOND: f64 = 150e6;

#[cfg(test)]
mod tests {
    use super::*;

    /// One channel that writes `bytes` of content in `wire_bytes`, waits `busy` ms and then has nothing for `idle` ms.
    fn writes(meter: &mut Meter, now: &mut u64, times: u64, (bytes, wire_bytes): (u64, u64), (busy, idle): (u64, u64)) {
        for _ in 0..times {
            meter.began(Duration::from_millis(*now));
            meter.ended(Duration::from_millis(*now + busy), bytes, wire_bytes);
            *now += busy + idle;
        }
    }

    #[test]
    fn a_full_slow_line_is_packed_for_as_long_as_it_would_be_full_without() {
        let (mut meter, mut now) = (Meter::new(Duration::ZERO), 0);
        assert!(!meter.packs, "nothing is known of the line yet");
        // 10 MB/s, never idle.
        writes(&mut meter, &mut now, 10, (1_000_000, 1_000_000), (100, 0));
        assert!(meter.packs);
        // Packed to a third it is idle half of the time; as it is it would not be.
        writes(&mut meter, &mut now, 10, (3_000_000, 1_000_000), (100, 100));
        assert!(meter.packs);
        // Now it would be idle a quarter of the time either way.
        writes(&mut meter, &mut now, 10, (3_000_000, 1_000_000), (100, 300));
        assert!(!meter.packs);
    }

    #[test]
    fn a_fast_line_is_not_packed_even_where_it_is_full() {
        let (mut meter, mut now) = (Meter::new(Duration::ZERO), 0);
        writes(&mut meter, &mut now, 100, (10_000_000, 10_000_000), (20, 0));
        assert!(!meter.packs);
    }

    #[test]
    fn channels_that_wait_at_once_count_once() {
        let mut meter = Meter::new(Duration::ZERO);
        for start in [0, 300, 600] {
            meter.began(Duration::from_millis(start));
            meter.began(Duration::from_millis(start));
            meter.ended(Duration::from_millis(start + 130), 1000, 1000);
            meter.ended(Duration::from_millis(start + 130), 1000, 1000);
        }
        assert!(!meter.packs, "it was busy for less than half of the time");
    }
}
