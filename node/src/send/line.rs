//! How hard a session's content is packed: only where the line is what holds the transfer up, the harder the slower it
//! is. On a line that is idle half of the time packing would take processor time from the database beside it and win
//! nothing. Content that does not become shorter is left alone for a while, and then tried again.

use crate::spent::{Meters, Waiting, What};
use posthouse_platform::clock::Clock;
use posthouse_protocol::chunk::Packing;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What the data channels of one session share: how much of the time any of them waits for the line.
pub struct Line {
    clock: Arc<dyn Clock>,
    meter: Mutex<Meter>,
    trials: Mutex<Trials>,
    takes_lz4: bool,
    /// Of the transfer.
    meters: Arc<Meters>,
}

impl Line {
    pub fn new(clock: Arc<dyn Clock>, takes_lz4: bool, meters: Arc<Meters>) -> Self {
        let meter = Mutex::new(Meter::new(clock.monotonic()));
        Self { clock, meter, trials: Mutex::default(), takes_lz4, meters }
    }
    /// The line is what is waited for, until that is dropped.
    pub fn waits(&self) -> Waiting {
        self.meters.wait(What::Line)
    }
    /// A channel has something to write and waits until the line has taken it; to be told when that ends.
    pub fn write_began(&self) -> Duration {
        let now = self.clock.monotonic();
        self.locked().began(now);
        now
    }
    /// The line took so much content in so many bytes.
    pub fn write_ended(&self, began: Duration, bytes: u64, wire_bytes: u64) {
        self.locked().ended(began, self.clock.monotonic(), bytes, wire_bytes);
    }
    /// How the next so many bytes of content are packed.
    pub fn packing(&self, bytes: u64) -> Packing {
        match self.locked().packing {
            Packing::Lz4 if !self.takes_lz4 => Packing::Not,
            Packing::Not => Packing::Not,
            packing => self.trials().next(bytes, packing),
        }
    }
    /// A chunk was packed, or was found not to become shorter by it.
    pub fn tried(&self, in_vain: bool) {
        self.trials().tried(in_vain);
    }
    fn trials(&self) -> MutexGuard<'_, Trials> {
        self.trials.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn locked(&self) -> MutexGuard<'_, Meter> {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Measures in windows, and decides at the end of each for the next.
struct Meter {
    packing: Packing,
    /// Channels that wait for the line now.
    waiting: u32,
    /// When that was last 0, or was last counted.
    counted: Duration,
    window: Duration,
    busy: Duration,
    /// Content of the window, what it took on the line, and what of that went only after a wait.
    bytes: u64,
    wire_bytes: u64,
    drained: u64,
    /// What the line took a second when it was last busy, and when that was: where what is packed fits into its
    /// buffers, no write waits, which tells nothing of it.
    line: Option<(f64, Duration)>,
    pays: Pays,
}

/// Whether packing moves more: a write also waits where the consumer or this machine is what is slow, and there packing
/// takes time and wins nothing.
#[derive(Default)]
struct Pays {
    /// Content a second when the line was busy and nothing was packed.
    plain: Option<f64>,
    trial: Option<Trial>,
    /// Nothing is packed before; and for how long that was.
    not_before: Duration,
    pause: Duration,
}

/// What is packed is looked at.
struct Trial {
    since: Duration,
    /// How much content that was.
    content: u64,
    /// What was read before it began, and goes as it is, has gone.
    has_settled: bool,
}

impl Meter {
    fn new(now: Duration) -> Self {
        Self {
            packing: Packing::Not,
            waiting: 0,
            counted: now,
            window: now,
            busy: Duration::ZERO,
            bytes: 0,
            wire_bytes: 0,
            drained: 0,
            line: None,
            pays: Pays::default(),
        }
    }
    fn began(&mut self, now: Duration) {
        self.count(now);
        self.waiting += 1;
    }
    fn ended(&mut self, began: Duration, now: Duration, bytes: u64, wire_bytes: u64) {
        self.count(now);
        self.waiting = self.waiting.saturating_sub(1);
        self.bytes += bytes;
        self.wire_bytes += wire_bytes;
        if now.saturating_sub(began) >= WAITED {
            self.drained += wire_bytes;
        }
        let window = now.saturating_sub(self.window);
        if window >= WINDOW {
            if self.busy >= window / 2 && self.drained > 0 {
                self.line = Some((self.drained as f64 / self.busy.as_secs_f64(), now));
            } else if let Some((rate, _)) = &mut self.line {
                // A long line begins slowly.
                *rate = rate.max(self.wire_bytes as f64 / window.as_secs_f64());
            }
            // It may have become faster since.
            self.line = self.line.filter(|(_, at)| now.saturating_sub(*at) < KNOWN_FOR);
            let is_busy = self.busy >= window / 2;
            self.pays.saw(self.packing, self.window..now, self.bytes, is_busy);
            self.packing = self.line.map_or(Packing::Not, |(rate, _)| {
                // Seconds that it would have needed for the window's content as it is.
                let need = self.bytes as f64 / rate;
                if need >= window.as_secs_f64() * FULL && now >= self.pays.not_before {
                    self.worth(rate)
                } else {
                    Packing::Not
                }
            });
            (self.window, self.busy) = (now, Duration::ZERO);
            (self.bytes, self.wire_bytes, self.drained) = (0, 0, 0);
        }
    }
    fn count(&mut self, now: Duration) {
        if self.waiting > 0 {
            self.busy += now.saturating_sub(self.counted);
        }
        self.counted = now;
    }
    /// The hardest way of packing that keeps up with what it takes. What packs already goes on to a somewhat faster
    /// line, so that one at a border does not change with each window.
    fn worth(&self, line: f64) -> Packing {
        let is_slower =
            |(packing, most): &(Packing, f64)| line < if *packing <= self.packing { most * STAYS } else { *most };
        WORTH.iter().find(|way| is_slower(way)).map_or(Packing::Not, |(packing, _)| *packing)
    }
}

impl Pays {
    /// A window is over, in which so much content went.
    fn saw(&mut self, packing: Packing, window: std::ops::Range<Duration>, bytes: u64, is_busy: bool) {
        let a_second = |bytes: u64, since: Duration| bytes as f64 / window.end.saturating_sub(since).as_secs_f64();
        if packing == Packing::Not {
            self.trial = None;
            if is_busy {
                self.plain = Some(a_second(bytes, window.start));
            }
            return;
        }
        // Once it has shown that it pays it is left alone.
        let Some(plain) = self.plain else { return };
        let trial =
            self.trial.get_or_insert(Trial { since: window.start, content: 0, has_settled: bytes >= TRIAL_BYTES });
        trial.content += bytes;
        if !trial.has_settled {
            if trial.content >= SETTLE_BYTES {
                *trial = Trial { since: window.end, content: 0, has_settled: true };
            }
            return;
        }
        let tried = window.end.saturating_sub(trial.since);
        if tried < TRIAL_MAX && trial.content < TRIAL_BYTES {
            return;
        }
        if a_second(trial.content, trial.since) < plain * PAYS {
            self.pause = (self.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
            self.not_before = window.end + self.pause;
        } else {
            self.pause = Duration::ZERO;
        }
        self.plain = None;
    }
}

/// When content that could not be packed is tried again.
#[derive(Default)]
struct Trials {
    /// Bytes that are left alone before the next trial.
    left: u64,
    /// How many they were the last time.
    pause: u64,
}

impl Trials {
    fn next(&mut self, bytes: u64, packing: Packing) -> Packing {
        if self.left == 0 {
            return packing;
        }
        self.left = self.left.saturating_sub(bytes);
        Packing::Not
    }
    fn tried(&mut self, in_vain: bool) {
        if !in_vain {
            *self = Self::default();
        } else if self.left == 0 {
            self.pause = (self.pause * 2).clamp(PAUSE_BYTES_MIN, PAUSE_BYTES_MAX);
            self.left = self.pause;
        }
    }
}

const WINDOW: Duration = Duration::from_millis(250);
/// The share of its time that a line which holds the transfer up is in use.
const FULL: f64 = 0.9;
/// Lines of up to so many bytes a second are worth it: about half of what one core packs.
const WORTH: [(Packing, f64); 3] = [(Packing::ZstdMore, 10e6), (Packing::Zstd, 150e6), (Packing::Lz4, 300e6)];
const STAYS: f64 = 1.3;
/// A write that took this long waited for the line.
const WAITED: Duration = Duration::from_millis(1);
const KNOWN_FOR: Duration = Duration::from_secs(60);
/// What may have been read before a trial began: as much as waits at either end and is on its way. However long that
/// takes: on a line of 20 Mbit/s it is seconds, and nothing can be told before.
const SETTLE_BYTES: u64 = 32 << 20;
/// So long is packed content looked at then: on a quick line only until so much went, for there each moment of a trial in
/// vain is content that would have gone. Where a single window brings as much, what went before is a small part of it.
const TRIAL_MAX: Duration = Duration::from_millis(1_000);
const TRIAL_BYTES: u64 = 48 << 20;
/// So many times more of it has to go than before.
const PAYS: f64 = 1.3;
const PAUSE_MIN: Duration = Duration::from_secs(10);
const PAUSE_MAX: Duration = Duration::from_secs(60);
const PAUSE_BYTES_MIN: u64 = 4 << 20;
const PAUSE_BYTES_MAX: u64 = 32 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    /// One channel that writes `bytes` of content in `wire_bytes`, waits `busy` ms and then has nothing for `idle` ms.
    fn writes(meter: &mut Meter, now: &mut u64, times: u64, (bytes, wire_bytes): (u64, u64), (busy, idle): (u64, u64)) {
        for _ in 0..times {
            let began = Duration::from_millis(*now);
            meter.began(began);
            meter.ended(began, began + Duration::from_millis(busy), bytes, wire_bytes);
            *now += busy + idle;
        }
    }

    #[test]
    fn a_full_slow_line_is_packed_for_as_long_as_it_would_be_full_without() {
        let (mut meter, mut now) = (Meter::new(Duration::ZERO), 0);
        assert_eq!(meter.packing, Packing::Not, "nothing is known of the line yet");
        // 20 MB/s, never idle.
        writes(&mut meter, &mut now, 10, (2_000_000, 2_000_000), (100, 0));
        assert_eq!(meter.packing, Packing::Zstd);
        // Packed to a third it is idle half of the time; as it is it would not be.
        writes(&mut meter, &mut now, 10, (6_000_000, 2_000_000), (100, 100));
        assert_eq!(meter.packing, Packing::Zstd);
        // Now it would be idle a quarter of the time either way.
        writes(&mut meter, &mut now, 10, (6_000_000, 2_000_000), (100, 300));
        assert_eq!(meter.packing, Packing::Not);
    }

    #[test]
    fn the_slower_a_line_the_harder_is_packed_and_at_a_border_it_stays_as_it_is() {
        let packing = |megabytes_per_second: &[u64]| {
            let (mut meter, mut now) = (Meter::new(Duration::ZERO), 0);
            for rate in megabytes_per_second {
                for _ in 0..10 {
                    // Half of the content is enough to fill it once that is packed.
                    let content = if meter.packing == Packing::Not { *rate } else { rate * 2 };
                    writes(&mut meter, &mut now, 1, (content * 100_000, rate * 100_000), (100, 0));
                }
            }
            meter.packing
        };
        assert_eq!(
            [5, 50, 200, 400].map(|rate| packing(&[rate])),
            [Packing::ZstdMore, Packing::Zstd, Packing::Lz4, Packing::Not]
        );
        assert_eq!((packing(&[5, 12]), packing(&[5, 14])), (Packing::ZstdMore, Packing::Zstd));
        assert_eq!((packing(&[50, 170]), packing(&[170])), (Packing::Zstd, Packing::Lz4));
        assert_eq!((packing(&[200, 350]), packing(&[350])), (Packing::Lz4, Packing::Not));
        assert_eq!(packing(&[5, 500, 12]), Packing::Zstd, "it begins anew");
    }

    #[test]
    fn what_cannot_be_packed_is_left_alone_for_longer_and_longer_and_tried_again() {
        const MIB: u64 = 1 << 20;
        let mut trials = Trials::default();
        // Trials among so many mebibytes.
        let mut tried = |mebibytes: u64, in_vain: bool| {
            let is_tried = |_: &u64| {
                let packs = trials.next(MIB, Packing::Zstd) != Packing::Not;
                if packs {
                    trials.tried(in_vain);
                }
                packs
            };
            (0..mebibytes).filter(is_tried).collect::<Vec<u64>>()
        };
        assert_eq!(tried(100, true), [0, 5, 14, 31, 64, 97]);
        assert_eq!(tried(40, false).len(), 10, "from the first that can be, all are");
        assert_eq!(tried(10, true), [0, 5]);
        // Several that were under way at once are one trial.
        for _ in 0..4 {
            trials.tried(true);
        }
        assert_eq!(trials.pause, 8 * MIB);
    }

    #[test]
    fn a_buffer_that_takes_what_is_packed_at_once_does_not_make_a_slow_line_quick() {
        let (mut meter, mut now) = (Meter::new(Duration::ZERO), 0);
        writes(&mut meter, &mut now, 10, (6_000_000, 6_000_000), (100, 0));
        assert_eq!(meter.packing, Packing::Zstd);
        // 200 MB/s of content, in 50 MB/s that no write waits for.
        writes(&mut meter, &mut now, 590, (20_000_000, 5_000_000), (0, 100));
        assert_eq!(meter.packing, Packing::Zstd);
        assert!(meter.line.is_some_and(|(rate, _)| rate < 80e6), "{:?}", meter.line);
        // After a while it is looked at anew.
        writes(&mut meter, &mut now, 20, (20_000_000, 5_000_000), (0, 100));
        assert_eq!(meter.packing, Packing::Not);
        // What a buffer takes before it is full is not the line's speed either.
        for _ in 0..4 {
            writes(&mut meter, &mut now, 20, (1_000_000, 1_000_000), (0, 0));
            writes(&mut meter, &mut now, 3, (6_000_000, 6_000_000), (100, 0));
        }
        assert!(meter.line.is_some_and(|(rate, _)| rate < 80e6), "{:?}", meter.line);
    }

    #[test]
    fn a_line_that_began_slowly_is_as_quick_as_what_it_takes() {
        let (mut meter, mut now) = (Meter::new(Duration::ZERO), 0);
        writes(&mut meter, &mut now, 5, (500_000, 500_000), (100, 0));
        assert_eq!(meter.packing, Packing::ZstdMore);
        writes(&mut meter, &mut now, 5, (10_000_000, 2_500_000), (0, 100));
        assert_eq!(meter.packing, Packing::Zstd);
    }

    #[test]
    fn packing_by_which_no_more_goes_is_given_up_for_longer_and_longer() {
        // A consumer takes 40 MB of content a second, however it comes.
        let (mut meter, mut now) = (Meter::new(Duration::ZERO), 0);
        let mut packed_ms = Vec::new();
        for _ in 0..900 {
            let wire = if meter.packing == Packing::Not { 4_000_000 } else { 2_000_000 };
            if meter.packing != Packing::Not {
                packed_ms.push(now);
            }
            writes(&mut meter, &mut now, 1, (4_000_000, wire), (100, 0));
        }
        assert!((20..110).contains(&packed_ms.len()), "{packed_ms:?}");
        let gaps: Vec<u64> = packed_ms.windows(2).map(|two| two[1] - two[0]).filter(|gap| *gap > 1_000).collect();
        assert!(gaps.len() >= 3 && gaps.is_sorted() && gaps[0] >= 10_000, "{gaps:?}");
        // A line that takes 40 MB a second in bytes is packed all along.
        let (mut meter, mut now) = (Meter::new(Duration::ZERO), 0);
        let mut plain = 0;
        for _ in 0..600 {
            let bytes = if meter.packing == Packing::Not { 4_000_000 } else { 8_000_000 };
            plain += u64::from(meter.packing == Packing::Not);
            writes(&mut meter, &mut now, 1, (bytes, 4_000_000), (100, 0));
        }
        assert!(plain < 10, "{plain}");
    }

    #[test]
    fn what_was_read_before_a_trial_is_no_part_of_it_however_long_it_takes() {
        // 20 Mbit/s, and what packs to a quarter; 16 MB wait to go as they are whenever packing begins.
        let (mut meter, mut now) = (Meter::new(Duration::ZERO), 0);
        let (mut waits, mut begun, mut plain) = (16_000_000, false, 0);
        for _ in 0..3_000 {
            let is_plain = meter.packing == Packing::Not;
            begun |= !is_plain;
            plain += u32::from(begun && is_plain);
            waits = if is_plain { 16_000_000 } else { (waits - 250_000_i64).max(0) };
            let content = if waits > 0 { 250_000 } else { 1_000_000 };
            writes(&mut meter, &mut now, 1, (content, 250_000), (100, 0));
        }
        assert!(begun && plain < 10, "{plain}");
    }

    #[test]
    fn the_quicker_the_line_the_shorter_a_trial() {
        // Milliseconds for which is packed in the first 8 s, where as much content goes packed or not.
        let packed_ms = |bytes: u64| {
            let (mut meter, mut now, mut packed) = (Meter::new(Duration::ZERO), 0, 0);
            while now < 8_000 {
                let wire = if meter.packing == Packing::Not { bytes } else { bytes / 2 };
                packed += if meter.packing == Packing::Not { 0 } else { 50 };
                writes(&mut meter, &mut now, 1, (bytes, wire), (50, 0));
            }
            packed
        };
        // 280, 60 and 20 MB/s.
        let packed = [14_000_000, 3_000_000, 1_000_000].map(packed_ms);
        assert!((200..=300).contains(&packed[0]), "{packed:?}");
        assert!(packed[0] < packed[1] && packed[1] <= packed[2] && packed[2] <= 3_000, "{packed:?}");
    }

    #[test]
    fn a_fast_line_is_not_packed_even_where_it_is_full() {
        let (mut meter, mut now) = (Meter::new(Duration::ZERO), 0);
        writes(&mut meter, &mut now, 100, (10_000_000, 10_000_000), (20, 0));
        assert_eq!(meter.packing, Packing::Not);
    }

    #[test]
    fn channels_that_wait_at_once_count_once() {
        let mut meter = Meter::new(Duration::ZERO);
        for start in [0, 300, 600] {
            let began = Duration::from_millis(start);
            let ended = began + Duration::from_millis(130);
            meter.began(began);
            meter.began(began);
            meter.ended(began, ended, 1000, 1000);
            meter.ended(began, ended, 1000, 1000);
        }
        assert_eq!(meter.packing, Packing::Not, "it was busy for less than half of the time");
    }
}
