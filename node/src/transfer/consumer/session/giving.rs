//! Credit on its way back to the provider: at once, or as fast as the job's bandwidth allows, so that what it takes is
//! bounded where it lands.

use super::Session;
use crate::transfer::steady;
use posthouse_protocol::chunk::credit;
use posthouse_protocol::limits;
use posthouse_protocol::time::Timestamp;

#[derive(Default)]
pub(super) struct Giving {
    /// Free, and not given back yet.
    owed: u64,
    /// Up to when the rate was used.
    since: Option<Timestamp>,
}

impl Giving {
    /// How much is given back now, at so many bytes a second.
    fn due(&mut self, rate: Option<u64>, now: Timestamp) -> u64 {
        let since = self.since.replace(now).unwrap_or(now);
        let passed_ms = u64::try_from(now.since_ms(since)).unwrap_or(0).min(IDLE_MS);
        let most = rate.map_or(u64::MAX, |rate| rate.saturating_mul(passed_ms) / 1_000);
        let due = self.owed.min(most);
        self.owed -= due;
        due
    }
    /// When more is to be given back.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        if self.owed == 0 { None } else { self.since.map(|since| since.plus_ms(STEP_MS)) }
    }
}

impl Session<'_> {
    /// What the provider may have in flight from the beginning: of a job with a bandwidth not much more than passes in
    /// a second, but some of the largest chunks.
    pub(super) fn first_credit(&self) -> u64 {
        let least = 2 * credit(limits::CHUNK_BYTES_LARGE);
        self.rate().map_or(limits::CREDIT_BYTES, |rate| rate.clamp(least, limits::CREDIT_BYTES))
    }

    pub(super) fn give_back(&mut self, credit: u64) {
        self.giving.owed += credit;
        self.give_what_is_due();
    }

    pub(super) fn give_what_is_due(&mut self) {
        let now = steady(&self.ctx.world);
        // Each call would round down.
        if self.giving.since.is_some_and(|since| now.since_ms(since) < STEP_MS) && self.rate().is_some() {
            return;
        }
        let due = self.giving.due(self.rate(), now);
        if due > 0 {
            self.machine().durable(due);
        }
    }

    /// Bytes a second, as the configuration has it for this time.
    fn rate(&self) -> Option<u64> {
        let config = self.ctx.config();
        let job = config.landing_job(&self.run.row.peer, &self.run.row.job)?;
        job.bandwidth.as_ref()?.at(self.ctx.world.clock.now())
    }
}

const STEP_MS: i64 = 50;
/// What a pause may make up for.
const IDLE_MS: u64 = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_comes_back_at_the_rate_and_at_once_without_one() {
        let mut giving = Giving { owed: 10 << 20, since: None };
        let at = |ms| Timestamp(5_000 + ms);
        assert_eq!(giving.due(Some(1 << 20), at(0)), 0, "the clock begins");
        assert_eq!(giving.deadline(), Some(at(STEP_MS)));
        assert_eq!(giving.due(Some(1 << 20), at(100)), (1 << 20) / 10);
        assert_eq!(giving.due(Some(1 << 20), at(10_000)), (1 << 20) / 5, "a pause is not made up for");
        let left = giving.owed;
        assert_eq!((giving.due(None, at(10_001)), giving.deadline()), (left, None));
    }
}
