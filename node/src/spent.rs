//! Where the time of a transfer goes: how long it waits for its source, for the line and for its destination. Counted
//! where the waiting is done, kept by the store with what else is written of a transfer, and told to the consumer with
//! the handover; a verdict of it is `doctor`'s. Nothing else is decided by these figures.

use posthouse_platform::clock::Clock;
use posthouse_protocol::frame;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Milliseconds of a transfer that went by waiting, which may overlap; None where this side does not know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    pub source_ms: Option<u64>,
    pub line_ms: Option<u64>,
    pub destination_ms: Option<u64>,
}

impl Spent {
    /// For the handover.
    pub fn frame(self) -> frame::Spent {
        frame::Spent { source_ms: self.source_ms.unwrap_or_default(), line_ms: self.line_ms.unwrap_or_default() }
    }

    /// With what was counted of the same transfer before.
    #[must_use]
    pub fn and(self, before: Option<Self>) -> Self {
        let Some(before) = before else { return self };
        let sum = |one: Option<u64>, other: Option<u64>| match (one, other) {
            (Some(one), Some(other)) => Some(one.saturating_add(other)),
            (one, other) => one.or(other),
        };
        Self {
            source_ms: sum(self.source_ms, before.source_ms),
            line_ms: sum(self.line_ms, before.line_ms),
            destination_ms: sum(self.destination_ms, before.destination_ms),
        }
    }
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Source,
    Line,
    Destination,
}

/// Counts for one transfer in this process, whichever of its sessions and threads wait.
pub struct Meters {
    clock: Arc<dyn Clock>,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    source: Count,
    line: Count,
    destination: Count,
    /// The provider's word.
    told: Option<frame::Spent>,
}

/// Time in which at least one waits.
#[derive(Default)]
struct Count {
    waiting: u32,
    since: Duration,
    sum: Duration,
    /// Something was ever waited for.
    is_known: bool,
}

/// Somebody waits until this is dropped.
#[must_use = "the waiting ends with it"]
pub struct Waiting {
    meters: Arc<Meters>,
    what: What,
}

impl Meters {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, counts: Mutex::default() }
    }

    pub fn wait(self: &Arc<Self>, what: What) -> Waiting {
        let now = self.clock.monotonic();
        self.locked().of(what).began(now);
        Waiting { meters: self.clone(), what }
    }

    /// What the provider says of its source and of the line.
    pub fn told(&self, spent: Option<frame::Spent>) {
        if spent.is_some() {
            self.locked().told = spent;
        }
    }

    /// So far, with what is being waited for now.
    pub fn spent(&self) -> Spent {
        let now = self.clock.monotonic();
        let counts = self.locked();
        Spent {
            source_ms: counts.source.ms(now).or(counts.told.map(|told| told.source_ms)),
            // What either side waited for, one after the other.
            line_ms: [counts.line.ms(now), counts.told.map(|told| told.line_ms)]
                .into_iter()
                .flatten()
                .reduce(u64::saturating_add),
            destination_ms: counts.destination.ms(now),
        }
    }

    fn locked(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let now = self.meters.clock.monotonic();
        self.meters.locked().of(self.what).ended(now);
    }
}

impl Counts {
    fn of(&mut self, what: What) -> &mut Count {
        match what {
            What::Source => &mut self.source,
            What::Line => &mut self.line,
            What::Destination => &mut self.destination,
        }
    }
}

impl Count {
    fn began(&mut self, now: Duration) {
        if self.waiting == 0 {
            self.since = now;
        }
        self.waiting += 1;
        self.is_known = true;
    }
    fn ended(&mut self, now: Duration) {
        self.waiting = self.waiting.saturating_sub(1);
        if self.waiting == 0 {
            self.sum += now.saturating_sub(self.since);
        }
    }
    fn ms(&self, now: Duration) -> Option<u64> {
        let open = if self.waiting > 0 { now.saturating_sub(self.since) } else { Duration::ZERO };
        let ms = u64::try_from((self.sum + open).as_millis()).unwrap_or(u64::MAX);
        self.is_known.then_some(ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use posthouse_protocol::time::Timestamp;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[derive(Default)]
    struct Hand(AtomicU64);

    impl Clock for Hand {
        fn now(&self) -> Timestamp {
            Timestamp(0)
        }
        fn monotonic(&self) -> Duration {
            Duration::from_millis(self.0.load(Ordering::Relaxed))
        }
    }

    #[test]
    fn waits_that_overlap_count_once_and_one_that_lasts_counts_up_to_now() {
        let clock = Arc::new(Hand::default());
        let meters = Arc::new(Meters::new(clock.clone()));
        let at = |ms| clock.0.store(ms, Ordering::Relaxed);
        assert_eq!(meters.spent(), Spent::default(), "nothing was waited for yet");
        let first = meters.wait(What::Line);
        at(10);
        let second = meters.wait(What::Line);
        at(30);
        drop(first);
        at(40);
        assert_eq!(meters.spent().line_ms, Some(40));
        drop(second);
        at(100);
        assert_eq!(meters.spent(), Spent { line_ms: Some(40), ..Spent::default() });
        drop(meters.wait(What::Line));
        let _lasts = meters.wait(What::Destination);
        at(107);
        assert_eq!(meters.spent().destination_ms, Some(7));
    }

    #[test]
    fn what_is_told_stands_in_for_what_is_not_counted_here() {
        let clock = Arc::new(Hand::default());
        let meters = Arc::new(Meters::new(clock.clone()));
        meters.told(Some(frame::Spent { source_ms: 5, line_ms: 6 }));
        meters.told(None);
        let told = Spent { source_ms: Some(5), line_ms: Some(6), destination_ms: None };
        assert_eq!(meters.spent(), told);
        let tail = meters.wait(What::Line);
        clock.0.store(7, Ordering::Relaxed);
        drop(tail);
        assert_eq!(meters.spent().line_ms, Some(13), "what came in after it was told is waited for here");
        let before = Spent { source_ms: None, line_ms: Some(4), destination_ms: Some(9) };
        assert_eq!(told.and(Some(before)), Spent { source_ms: Some(5), line_ms: Some(10), destination_ms: Some(9) });
        assert_eq!(told.and(None), told);
    }
}
