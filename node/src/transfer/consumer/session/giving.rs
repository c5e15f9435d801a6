//! Credit on its way back to the provider: at once, or as fast as the job's bandwidth allows, so that what it takes is
//! bounded where it lands. Files that come packed over a long line get more of it: credit counts content, and what is on
//! its way is a part of that.

use super::Session;
use crate::stage::Place;
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
    /// Given beyond the first credit, and how much that should be.
    beyond: u64,
    beyond_wanted: u64,
    /// Content that had come when that was last decided, and what it took on the line.
    seen: (u64, u64),
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
    /// So much content has come in all, in so many bytes.
    fn saw(&mut self, content: u64, wire: u64) {
        let (new, new_wire) = (content.saturating_sub(self.seen.0), wire.saturating_sub(self.seen.1));
        if new >= LOOK_BYTES {
            self.seen = (content, wire);
            self.beyond_wanted = if new_wire <= new / 2 { limits::CREDIT_PACKED_BYTES } else { 0 };
        }
    }
    /// So much is free again; what is not wanted beyond the first credit stays here.
    fn free(&mut self, credit: u64) {
        let kept = credit.min(self.beyond.saturating_sub(self.beyond_wanted));
        let more = self.beyond_wanted.saturating_sub(self.beyond);
        self.beyond = self.beyond - kept + more;
        self.owed += credit - kept + more;
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
        if self.may_give_beyond() {
            let counters = self.machine().counters();
            self.giving.saw(counters.bytes, counters.wire_bytes);
        } else {
            self.giving.beyond_wanted = 0;
        }
        self.giving.free(credit);
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

    /// Splits wait here for the destination's commit, so that more of them would be more memory.
    fn may_give_beyond(&self) -> bool {
        let is_folder =
            self.accepted.as_ref().is_some_and(|accepted| matches!(accepted.stage.place(), Place::Folder(_)));
        is_folder && self.connection.rtt_ms().is_some_and(|rtt| rtt >= LONG_MS) && self.rate().is_none()
    }

    /// Bytes a second, as the configuration has it for this time.
    fn rate(&self) -> Option<u64> {
        let config = self.ctx.config();
        let job = config.landing_job(&self.run.row.peer, &self.run.row.job)?;
        job.bandwidth.as_ref()?.at(self.ctx.world.clock.now())
    }
}

/// A line on which credit is for long on its way back.
const LONG_MS: f64 = 10.0;
/// So much content shows how it is packed.
const LOOK_BYTES: u64 = 8 << 20;
const STEP_MS: i64 = 50;
/// What a pause may make up for.
const IDLE_MS: u64 = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_comes_back_at_the_rate_and_at_once_without_one() {
        let mut giving = Giving { owed: 10 << 20, ..Giving::default() };
        let at = |ms| Timestamp(5_000 + ms);
        assert_eq!(giving.due(Some(1 << 20), at(0)), 0, "the clock begins");
        assert_eq!(giving.deadline(), Some(at(STEP_MS)));
        assert_eq!(giving.due(Some(1 << 20), at(100)), (1 << 20) / 10);
        assert_eq!(giving.due(Some(1 << 20), at(10_000)), (1 << 20) / 5, "a pause is not made up for");
        let left = giving.owed;
        assert_eq!((giving.due(None, at(10_001)), giving.deadline()), (left, None));
    }
    #[test]
    fn what_comes_packed_gets_more_and_what_does_not_gives_it_back() {
        const MIB: u64 = 1 << 20;
        let mut giving = Giving::default();
        giving.saw(LOOK_BYTES, LOOK_BYTES);
        giving.free(MIB);
        assert_eq!((giving.owed, giving.beyond), (MIB, 0));
        // Packed to a quarter: once.
        giving.saw(2 * LOOK_BYTES, LOOK_BYTES / 4 * 5);
        giving.free(MIB);
        giving.free(MIB);
        assert_eq!((giving.owed, giving.beyond), (3 * MIB + limits::CREDIT_PACKED_BYTES, limits::CREDIT_PACKED_BYTES));
        // Too little of it to tell anything, and then as it is.
        giving.saw(2 * LOOK_BYTES + MIB, LOOK_BYTES / 4 * 5 + MIB);
        giving.free(MIB);
        giving.saw(3 * LOOK_BYTES, LOOK_BYTES / 4 * 9);
        for _ in 0..20 {
            giving.free(MIB);
        }
        assert_eq!((giving.owed, giving.beyond), (24 * MIB, 0), "all that was free is given, and nothing beyond");
    }
}
