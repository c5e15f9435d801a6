//! Judges the line of a session while something is to come over it. Some firewalls drop UDP without a word, also in
//! the midst of a transfer, and some let only a trickle pass. A line over which not one packet comes, though the peer was
//! asked for a sign of life, is given up for the other transport, and so is one that carries a small part of what it
//! has carried, though the provider says that it has more. What counts is what the transport receives,
//! acknowledgements too: neither a peer that is busy nor a long queue is silence.

use posthouse_protocol::time::Timestamp;

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Wait,
    /// Ask the peer for a sign of life; its transport acknowledges that whatever the peer does.
    Ask,
    /// Look for another line.
    GiveUp(Fault),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Silent,
    Slow,
}

/// The line as it looks now.
pub(super) struct Seen {
    /// Bytes that its transport has received since it began.
    pub received: u64,
    pub rtt_ms: f64,
    /// The provider has more to send than the line takes, or all that is still to come is on the line.
    pub is_held: bool,
    /// This side lets the provider send, and takes what comes.
    pub may_come: bool,
}

pub(super) struct Judging {
    /// Bytes that the transport had received when it was last looked at, and when it last received some.
    received: u64,
    heard: Timestamp,
    asked: Option<Timestamp>,
    rate: Rate,
    /// Another line is being looked for.
    is_looking: bool,
    /// None is looked for before.
    patient_until: Timestamp,
}

/// What the line carries, second by second.
struct Rate {
    /// When the second began, and what had been received by then: others have used the line before. None: the line was
    /// not looked at yet.
    second: Option<(Timestamp, u64)>,
    /// Bytes a second, of the best one.
    best: u64,
    slow_since: Option<Timestamp>,
}

impl Judging {
    /// `given_up` is how many lines the transfer has given up: each change costs a moment, so that they get rarer.
    pub(super) fn new(given_up: u32, now: Timestamp) -> Self {
        let patience = i64::from(given_up).saturating_mul(PATIENCE_MS);
        let rate = Rate { second: None, best: 0, slow_since: None };
        let patient_until = now.plus_ms(patience);
        Self { received: 0, heard: now, asked: None, rate, is_looking: false, patient_until }
    }

    /// Looks at the line, every [`LOOK_MS`] or so.
    pub(super) fn look(&mut self, seen: &Seen, now: Timestamp) -> Step {
        if seen.received != self.received {
            (self.received, self.heard, self.asked) = (seen.received, now, None);
        }
        self.rate.look(seen, now);
        if now < self.patient_until {
            return Step::Wait;
        }
        if self.is_looking {
            return self.ask_again(now);
        }
        if self.rate.slow_since.is_some_and(|since| now.since_ms(since) >= SLOW_MS) {
            self.is_looking = true;
            return Step::GiveUp(Fault::Slow);
        }
        // A packet may be lost, and the next is sent after some round trips.
        let answer_ms = ANSWER_MS.max((seen.rtt_ms * ROUND_TRIPS) as i64);
        match self.asked {
            None if now.since_ms(self.heard) >= SILENT_MS => {
                self.asked = Some(now);
                Step::Ask
            }
            Some(asked) if now.since_ms(asked) >= answer_ms => {
                self.is_looking = true;
                Step::GiveUp(Fault::Silent)
            }
            _ => Step::Wait,
        }
    }

    /// While another line is looked for, a silent one may come back: what its transport sends by itself comes twice as late
    /// each time.
    fn ask_again(&mut self, now: Timestamp) -> Step {
        match self.asked {
            Some(asked) if now.since_ms(asked) >= SECOND_MS => {
                self.asked = Some(now);
                Step::Ask
            }
            _ => Step::Wait,
        }
    }

    /// There is no other line, or this one is alive after all.
    pub(super) fn goes_on(&mut self, now: Timestamp) {
        (self.is_looking, self.asked, self.rate.slow_since) = (false, None, None);
        self.patient_until = now.plus_ms(AGAIN_MS);
    }
}

impl Rate {
    fn look(&mut self, seen: &Seen, now: Timestamp) {
        let Some((began, received)) = self.second else {
            self.second = Some((now, seen.received));
            return;
        };
        let passed = now.since_ms(began);
        if passed < SECOND_MS {
            return;
        }
        let bytes = seen.received.saturating_sub(received);
        let per_second = bytes.saturating_mul(1_000) / u64::try_from(passed).unwrap_or(u64::MAX);
        self.best = self.best.max(per_second);
        let is_slow = seen.may_come && seen.is_held && per_second.saturating_mul(SLOW_PART) < self.best;
        self.slow_since = if is_slow { self.slow_since.or(Some(began)) } else { None };
        self.second = Some((now, seen.received));
    }
}

pub(super) const LOOK_MS: i64 = 250;
const SILENT_MS: i64 = 700;
const ANSWER_MS: i64 = 800;
const ROUND_TRIPS: f64 = 5.0;
const SECOND_MS: i64 = 1_000;
/// A line that carries less than this part of its best is slow.
const SLOW_PART: u64 = 20;
const SLOW_MS: i64 = 6_000;
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
                let step = self.judging.look(&seen(self.received, 20.0), Timestamp(self.now));
                if step != Step::Wait {
                    return Some((step, self.now));
                }
            }
            None
        }
    }

    fn seen(received: u64, rtt_ms: f64) -> Seen {
        Seen { received, rtt_ms, is_held: false, may_come: true }
    }

    const NEVER: i64 = i64::MAX;

    #[test]
    fn a_line_over_which_nothing_comes_is_given_up_within_two_seconds() {
        let mut line = Played::new(0);
        assert_eq!(line.receives(500, 5_000), None);
        assert_eq!(line.receives(NEVER, 60_000), Some((Step::Ask, 5_750)));
        assert_eq!(line.receives(NEVER, 60_000), Some((Step::GiveUp(Fault::Silent), 6_750)));
        for second in 1..10 {
            let asked = line.receives(NEVER, 60_000);
            assert_eq!(asked, Some((Step::Ask, 6_000 + second * SECOND_MS)), "another is being looked for");
        }
        line.judging.goes_on(Timestamp(line.now));
        let (first, again) = (line.receives(NEVER, 60_000).unwrap(), line.receives(NEVER, 60_000).unwrap());
        assert_eq!((first.0, again.0), (Step::Ask, Step::GiveUp(Fault::Silent)));
        assert!(again.1 > 15_000 + AGAIN_MS, "{again:?}");
    }

    #[test]
    fn a_line_over_which_a_packet_comes_now_and_then_is_kept() {
        let mut line = Played::new(0);
        for _ in 0..100 {
            match line.receives(1_500, 60_000) {
                Some((Step::GiveUp(_), at)) => panic!("given up at {at}"),
                other => assert!(other.is_some_and(|(step, _)| step == Step::Ask)),
            }
        }
    }

    #[test]
    fn a_long_line_has_time_to_answer_and_one_that_was_changed_to_longer() {
        let mut judging = Judging::new(0, Timestamp(0));
        assert_eq!(judging.look(&seen(0, 600.0), Timestamp(1_000)), Step::Ask);
        assert_eq!(judging.look(&seen(0, 600.0), Timestamp(3_900)), Step::Wait);
        assert_eq!(judging.look(&seen(0, 600.0), Timestamp(4_000)), Step::GiveUp(Fault::Silent));
        assert_eq!(Played::new(2).receives(NEVER, 20_000 - LOOK_MS), None);
    }

    /// Seconds of so many bytes each; when the line is given up.
    fn carries(judging: &mut Judging, from: &mut Seen, now: &mut i64, seconds: &[u64], held: bool) -> Option<i64> {
        for bytes in seconds {
            for _ in 0..4 {
                *now += LOOK_MS;
                from.received += bytes / 4;
                from.is_held = held;
                match judging.look(from, Timestamp(*now)) {
                    Step::GiveUp(fault) => {
                        assert_eq!(fault, Fault::Slow);
                        return Some(*now);
                    }
                    step => assert_eq!(step, Step::Wait),
                }
            }
        }
        None
    }

    #[test]
    fn what_a_line_carried_before_is_no_measure() {
        let (mut judging, mut line, mut now) = (Judging::new(0, Timestamp(0)), seen(50 << 30, 20.0), 0);
        assert_eq!(carries(&mut judging, &mut line, &mut now, &[20 << 20; 60], true), None);
        assert!(judging.rate.best <= 20 << 20, "{}", judging.rate.best);
    }

    #[test]
    fn a_line_that_is_held_to_a_trickle_is_given_up_and_a_provider_that_has_nothing_is_not() {
        const FULL: u64 = 20 << 20;
        let began = || (Judging::new(0, Timestamp(0)), seen(0, 20.0), 0);
        let trickle = [FULL / 100; 60];
        // Slow from the beginning, as far as anybody knows.
        let (mut judging, mut line, mut now) = began();
        assert_eq!(carries(&mut judging, &mut line, &mut now, &trickle, true), None);
        // Held back after it was fast.
        let (mut judging, mut line, mut now) = began();
        assert_eq!(carries(&mut judging, &mut line, &mut now, &[FULL; 3], true), None);
        assert_eq!(carries(&mut judging, &mut line, &mut now, &trickle, true), Some(3_000 + LOOK_MS + SLOW_MS));
        judging.goes_on(Timestamp(now));
        let again = carries(&mut judging, &mut line, &mut now, &trickle, true).unwrap();
        assert!(again >= 3_000 + SLOW_MS + AGAIN_MS, "{again}");
        // The provider has nothing to send.
        let (mut judging, mut line, mut now) = began();
        carries(&mut judging, &mut line, &mut now, &[FULL; 3], true);
        assert_eq!(carries(&mut judging, &mut line, &mut now, &[100, 100, 100, FULL / 100, 100], false), None);
        assert_eq!(carries(&mut judging, &mut line, &mut now, &trickle, false), None);
        // This side takes no more; and a moment of full speed.
        let (mut judging, mut line, mut now) = began();
        carries(&mut judging, &mut line, &mut now, &[FULL; 3], true);
        line.may_come = false;
        assert_eq!(carries(&mut judging, &mut line, &mut now, &trickle, true), None);
        line.may_come = true;
        assert_eq!(carries(&mut judging, &mut line, &mut now, &trickle[..5], true), None);
        assert_eq!(carries(&mut judging, &mut line, &mut now, &[FULL / 2], true), None);
        assert_eq!(carries(&mut judging, &mut line, &mut now, &trickle[..5], true), None);
    }
}
