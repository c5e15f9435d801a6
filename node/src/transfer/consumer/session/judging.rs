//! Judges the line of a session while something is to come over it. Some firewalls drop UDP without a word, also in
//! the midst of a transfer: a line over which not one packet comes, though the peer was asked for a sign of life, is
//! given up for the other transport. What counts is what the transport receives, acknowledgements too: neither a peer
//! that is busy nor a long queue is silence.

use posthouse_protocol::time::Timestamp;

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Wait,
    /// Ask the peer for a sign of life; its transport acknowledges that whatever the peer does.
    Ask,
    /// Look for another line.
    GiveUp,
}

pub(super) struct Judging {
    /// Bytes that the transport had received when it was last looked at, and when it last received some.
    received: u64,
    heard: Timestamp,
    asked: Option<Timestamp>,
    /// Another line is being looked for.
    is_looking: bool,
    /// None is looked for before.
    patient_until: Timestamp,
}

impl Judging {
    /// `given_up` is how many lines the transfer has given up: each change costs a moment, so that they get rarer.
    pub(super) fn new(given_up: u32, now: Timestamp) -> Self {
        let patience = i64::from(given_up).saturating_mul(PATIENCE_MS);
        Self { received: 0, heard: now, asked: None, is_looking: false, patient_until: now.plus_ms(patience) }
    }

    /// Looks at the line, every [`LOOK_MS`] or so: how much its transport has received since it began, and its round
    /// trip.
    pub(super) fn look(&mut self, received: u64, rtt_ms: f64, now: Timestamp) -> Step {
        if received != self.received {
            (self.received, self.heard, self.asked) = (received, now, None);
        }
        if self.is_looking || now < self.patient_until {
            return Step::Wait;
        }
        // A packet may be lost, and the next is sent after some round trips.
        let answer_ms = ANSWER_MS.max((rtt_ms * ROUND_TRIPS) as i64);
        match self.asked {
            None if now.since_ms(self.heard) >= SILENT_MS => {
                self.asked = Some(now);
                Step::Ask
            }
            Some(asked) if now.since_ms(asked) >= answer_ms => {
                self.is_looking = true;
                Step::GiveUp
            }
            _ => Step::Wait,
        }
    }

    /// What the transport had received when the line was given up.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// There is no other line, or this one is alive after all.
    pub(super) fn goes_on(&mut self, now: Timestamp) {
        (self.is_looking, self.asked) = (false, None);
        self.patient_until = now.plus_ms(AGAIN_MS);
    }
}

pub(super) const LOOK_MS: i64 = 250;
const SILENT_MS: i64 = 700;
const ANSWER_MS: i64 = 800;
const ROUND_TRIPS: f64 = 5.0;
const PATIENCE_MS: i64 = 10_000;
const AGAIN_MS: i64 = 15_000;

#[cfg(test)]
mod tests {
    use super::*;

    struct Played {
        judging: Judging,
        now: i64,
        received: u64,
    }

    impl Played {
        fn new(given_up: u32) -> Self {
            Self { judging: Judging::new(given_up, Timestamp(0)), now: 0, received: 0 }
        }
        /// So many milliseconds in which something is received every so often; the first step to be taken, and when.
        fn receives(&mut self, every_ms: i64, ms: i64) -> Option<(Step, i64)> {
            let end = self.now + ms;
            while self.now < end {
                self.now += LOOK_MS;
                if self.now % every_ms < LOOK_MS {
                    self.received += 50;
                }
                let step = self.judging.look(self.received, 20.0, Timestamp(self.now));
                if step != Step::Wait {
                    return Some((step, self.now));
                }
            }
            None
        }
    }

    const NEVER: i64 = i64::MAX;

    #[test]
    fn a_line_over_which_nothing_comes_is_given_up_within_two_seconds() {
        let mut line = Played::new(0);
        assert_eq!(line.receives(500, 5_000), None);
        assert_eq!(line.receives(NEVER, 60_000), Some((Step::Ask, 5_750)));
        assert_eq!(line.receives(NEVER, 60_000), Some((Step::GiveUp, 6_750)));
        assert_eq!(line.receives(NEVER, 60_000), None, "another is being looked for");
        line.judging.goes_on(Timestamp(line.now));
        let (first, again) = (line.receives(NEVER, 60_000).unwrap(), line.receives(NEVER, 60_000).unwrap());
        assert_eq!((first.0, again.0), (Step::Ask, Step::GiveUp));
        assert!(again.1 > 66_750 + AGAIN_MS, "{again:?}");
    }

    #[test]
    fn a_line_over_which_a_packet_comes_now_and_then_is_kept() {
        let mut line = Played::new(0);
        for _ in 0..100 {
            match line.receives(1_500, 60_000) {
                Some((Step::GiveUp, at)) => panic!("given up at {at}"),
                other => assert!(other.is_some_and(|(step, _)| step == Step::Ask)),
            }
        }
    }

    #[test]
    fn a_long_line_has_time_to_answer_and_one_that_was_changed_to_longer() {
        let mut judging = Judging::new(0, Timestamp(0));
        assert_eq!(judging.look(0, 600.0, Timestamp(1_000)), Step::Ask);
        assert_eq!(judging.look(0, 600.0, Timestamp(3_900)), Step::Wait);
        assert_eq!(judging.look(0, 600.0, Timestamp(4_000)), Step::GiveUp);
        assert_eq!(Played::new(2).receives(NEVER, 20_000 - LOOK_MS), None);
    }
}
