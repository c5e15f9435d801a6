//! Wall clock and monotonic clock. Waiting is `tokio::time`, which the simulator drives too.

use posthouse_protocol::time::Timestamp;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub trait Clock: Send + Sync {
    /// Wall time, UTC; may jump.
    fn now(&self) -> Timestamp;
    /// Since an arbitrary start; never goes back.
    fn monotonic(&self) -> Duration;
}

pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    #[expect(clippy::new_without_default, reason = "a clock starts when it is made; a default would hide that")]
    #[expect(clippy::disallowed_methods, reason = "the machine's own clock, behind the trait")]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the machine's own clock, behind the trait")]
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}
