//! BBRv3 (draft-ietf-ccwg-bbr): a model of the path instead of a reaction to every loss.
//!
//! The model is the highest rate at which bytes arrived of late, and the shortest round trip. What is sent is paced
//! at that rate; a little faster now and then, to see whether there is more; then slower, until the queue is gone
//! that this made. A loss that chance explains changes nothing. A round that loses more bounds what may be in
//! flight.
//!
//! Rates are bytes a second, sizes bytes. Where this departs from the draft stands beside each constant.

use super::delivery::{Delivery, Sample};
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Twice as much each round, until the rate grows no more.
    Startup,
    /// Until the queue is gone that the start made.
    Drain,
    /// A little slower than the path, until the queue is gone that the latest look upwards made.
    Down,
    Cruise,
    /// A round at the path's rate, so that the look upwards begins with a full pipe.
    Refill,
    Up,
    /// Half as much in flight for a moment, to see the round trip without a queue.
    ProbeRtt,
}

#[derive(Clone)]
pub(super) struct Bbr {
    pub(super) phase: Phase,
    /// The phase is a round old when as much as this was delivered.
    phase_round: u64,
    delivery: Delivery,
    mtu: u64,
    window: u64,

    /// Highest rates of the cycle before and of this one.
    bandwidth: [f64; 2],
    min_rtt: Option<Duration>,
    /// When the path last showed it.
    min_rtt_at: Instant,
    /// What may be in flight, as far as losses taught it.
    ceiling: Option<u64>,
    /// Bounds of rate and flight until the next look upwards: somebody else wants a share.
    short: Option<(f64, u64)>,

    /// A round is over when what was sent since its beginning arrives.
    round_end: u64,
    round: Round,
    /// The start is over.
    filled: bool,
    /// The highest rate that was a growth, and rounds since.
    plateau: f64,
    flat_rounds: u32,
    /// The start's pacing never falls.
    start_rate: f64,

    /// When the latest look upwards ended, how long to wait for the next, and the rounds since.
    cycle_at: Instant,
    cycle_wait: Duration,
    cycle_rounds: u64,
    /// Of the look upwards: rounds so far, and the rate when the latest of them began.
    up_rounds: u32,
    up_rate: f64,
    /// Of the look at the round trip: when it may end, once little is in flight, and the shortest seen meanwhile.
    probe_until: Option<Instant>,
    probe_rtt: Option<Duration>,
}

/// Counts of the round under way.
#[derive(Clone, Default)]
struct Round {
    acked: u64,
    lost: u64,
    lost_packets: u64,
    marked: bool,
    /// The highest rate, and the most that arrived between a sending and its acknowledgement.
    rate: f64,
    arrived: u64,
}

impl Bbr {
    pub(super) fn new(now: Instant, mtu: u64) -> Self {
        Self {
            phase: Phase::Startup,
            phase_round: 0,
            delivery: Delivery::new(),
            mtu,
            window: INITIAL_PACKETS * mtu,
            bandwidth: [0.0; 2],
            min_rtt: None,
            min_rtt_at: now,
            ceiling: None,
            short: None,
            round_end: 0,
            round: Round::default(),
            filled: false,
            plateau: 0.0,
            flat_rounds: 0,
            start_rate: 0.0,
            cycle_at: now,
            cycle_wait: CYCLE_MIN,
            cycle_rounds: 0,
            up_rounds: 0,
            up_rate: 0.0,
            probe_until: None,
            probe_rtt: None,
        }
    }

    pub(super) fn initial_window(&self) -> u64 {
        INITIAL_PACKETS * self.mtu
    }

    pub(super) fn min_rtt(&self) -> Option<Duration> {
        self.min_rtt
    }

    pub(super) fn set_mtu(&mut self, mtu: u64) {
        self.mtu = mtu;
    }

    pub(super) fn sent(&mut self, now: Instant, bytes: u64) {
        if self.delivery.in_flight() == 0 && now.saturating_duration_since(self.min_rtt_at) > MIN_RTT_LIFE {
            // After a pause no queue on the path is ours: there is nothing to make way for.
            self.min_rtt_at = now;
        }
        self.delivery.sent(now, bytes);
    }

    pub(super) fn acked(&mut self, sent: Instant, bytes: u64) {
        self.delivery.acked(sent, bytes);
    }

    /// A batch of acknowledgements is complete.
    pub(super) fn acks_done(&mut self, now: Instant, in_flight: u64, app_limited: bool) {
        let Some(sample) = self.delivery.end(now, in_flight) else { return };
        // The writer is often a moment late while the pipe is full: then the path is what limits all the same.
        if app_limited && self.bdp(1.0).is_none_or(|bdp| in_flight < bdp.max(1)) {
            self.delivery.limited_by_application();
        }
        self.learn(now, &sample);
        if sample.delivered_before >= self.round_end {
            self.round_end = self.delivery.delivered();
            self.end_round(&sample);
        }
        self.advance(now, in_flight, sample.acked);
        self.window = self.grown(&sample);
    }

    /// `sent` is when the last of the lost packets was sent; no bytes: the path marked packets instead of dropping
    /// them. `persistent`: nothing arrived for long.
    pub(super) fn lost(&mut self, now: Instant, sent: Instant, bytes: u64, persistent: bool) {
        let in_flight =
            self.delivery.in_flight_at(sent).unwrap_or(self.delivery.in_flight().max(self.bdp(1.0).unwrap_or(0)));
        self.delivery.lost(bytes);
        self.round.lost += bytes;
        self.round.lost_packets += bytes.div_ceil(self.mtu);
        self.round.marked |= bytes == 0;
        if persistent {
            self.window = self.least();
        }
        match self.phase {
            Phase::Startup if self.loses(START_LOSS, in_flight) => {
                self.ceiling = Some(self.bdp(1.0).unwrap_or(0).max(self.round.arrived).max(self.least()));
                self.filled = true;
                self.enter(Phase::Drain);
            }
            Phase::Refill | Phase::Up if self.loses(LOSS, in_flight) => {
                self.ceiling = Some(in_flight.max(self.bdp(BETA).unwrap_or(0)).max(self.least()));
                self.down(now);
            }
            _ => {}
        }
    }

    /// What may be in flight.
    pub(super) fn window(&self) -> u64 {
        let ceiling = match self.phase {
            Phase::Cruise | Phase::ProbeRtt => self.room(),
            _ => self.ceiling,
        };
        let short = self.short.map(|(_, bytes)| bytes);
        let probe = if self.phase == Phase::ProbeRtt { self.bdp(PROBE_RTT_SHARE) } else { None };
        let bound = [ceiling, short, probe].into_iter().flatten().min();
        self.window.min(bound.unwrap_or(u64::MAX)).max(self.least())
    }

    /// How fast to send.
    pub(super) fn pacing_rate(&self) -> f64 {
        let gain = match self.phase {
            Phase::Startup => START_GAIN,
            Phase::Drain => DRAIN_GAIN,
            Phase::Down => DOWN_GAIN,
            Phase::Up => UP_GAIN,
            Phase::Cruise | Phase::Refill | Phase::ProbeRtt => 1.0,
        };
        let bandwidth = self.bandwidth();
        let rate = if bandwidth > 0.0 {
            gain * bandwidth * MARGIN
        } else {
            let rtt = self.min_rtt.unwrap_or(FIRST_RTT).max(FIRST_RTT);
            gain * self.initial_window() as f64 / rtt.as_secs_f64()
        };
        if self.filled { rate } else { rate.max(self.start_rate) }
    }

    /// What the path carries; 0 while nothing is known.
    pub(super) fn bandwidth(&self) -> f64 {
        let long = self.bandwidth[0].max(self.bandwidth[1]);
        self.short.map_or(long, |(short, _)| long.min(short))
    }

    /// This many times bandwidth × delay; none while either is unknown.
    fn bdp(&self, gain: f64) -> Option<u64> {
        let bytes = self.bandwidth() * self.min_rtt?.as_secs_f64() * gain;
        (bytes > 0.0).then_some(bytes as u64)
    }

    /// Below the ceiling, so that a newcomer finds some.
    fn room(&self) -> Option<u64> {
        self.ceiling.map(|bytes| (bytes as f64 * HEADROOM) as u64)
    }

    fn least(&self) -> u64 {
        WINDOW_MIN_PACKETS * self.mtu
    }

    /// More of this many bytes was lost in this round than chance explains, or the path says that it is full.
    fn loses(&self, share: f64, bytes: u64) -> bool {
        let lost = self.round.lost_packets >= LOST_PACKETS_MIN && self.round.lost as f64 > share * bytes as f64;
        lost || self.round.marked
    }

    fn learn(&mut self, now: Instant, sample: &Sample) {
        if let Some(rate) = sample.rate {
            if !sample.app_limited || rate > self.bandwidth[0].max(self.bandwidth[1]) {
                self.bandwidth[1] = self.bandwidth[1].max(rate);
            }
            self.round.rate = self.round.rate.max(rate);
        }
        self.round.arrived = self.round.arrived.max(sample.delivered);
        self.round.acked += sample.acked;
        let min = self.min_rtt.unwrap_or(Duration::MAX);
        if sample.rtt <= min.saturating_add(min / MIN_RTT_NEAR) {
            self.min_rtt_at = now;
        }
        if self.min_rtt.is_none() {
            self.start_rate = START_GAIN * self.initial_window() as f64 / sample.rtt.max(FIRST_RTT).as_secs_f64();
        }
        self.min_rtt = Some(min.min(sample.rtt));
        self.probe_rtt = self.probe_rtt.map(|rtt| rtt.min(sample.rtt));
        if !self.filled {
            self.start_rate = self.pacing_rate();
        }
    }

    fn end_round(&mut self, sample: &Sample) {
        self.cycle_rounds += 1;
        self.up_rounds = (self.up_rounds + 1).min(UP_ROUNDS_MAX);
        if !self.filled && !sample.app_limited {
            let bandwidth = self.bandwidth();
            if bandwidth >= self.plateau * START_GROWTH {
                (self.plateau, self.flat_rounds) = (bandwidth, 0);
            } else {
                self.flat_rounds += 1;
                self.filled = self.flat_rounds >= FLAT_ROUNDS;
            }
        }
        let bounded = matches!(self.phase, Phase::Down | Phase::Cruise | Phase::ProbeRtt);
        if bounded && self.loses(LOSS, self.round.acked + self.round.lost) {
            let (rate, bytes) = (self.bandwidth() * BETA, self.window() as f64 * BETA);
            self.short = Some((rate.max(self.round.rate), self.round.arrived.max(bytes as u64)));
        }
        self.round = Round::default();
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.phase_round = self.delivery.delivered() + self.delivery.in_flight();
    }

    /// Ends a look upwards and begins the next cycle.
    fn down(&mut self, now: Instant) {
        (self.cycle_at, self.cycle_rounds) = (now, 0);
        // Flows that share a path shall not look upwards at the same moments.
        let spread = u32::try_from(self.delivery.delivered() / self.mtu % u64::from(CYCLE_STEPS)).unwrap_or(0);
        self.cycle_wait = CYCLE_MIN + CYCLE_SPREAD * spread / CYCLE_STEPS;
        if self.bandwidth[1] > 0.0 {
            self.bandwidth = [self.bandwidth[1], 0.0];
        }
        self.enter(Phase::Down);
    }

    fn advance(&mut self, now: Instant, in_flight: u64, acked: u64) {
        let round_old = self.delivery.delivered() >= self.phase_round;
        // What quinn has made and the socket still holds back counts as in flight there.
        let held = SLACK_PACKETS * self.mtu;
        let holds = |bytes: Option<u64>| bytes.is_none_or(|bytes| in_flight <= bytes + held);
        if self.filled && self.phase != Phase::ProbeRtt && now.saturating_duration_since(self.min_rtt_at) > MIN_RTT_LIFE
        {
            (self.probe_until, self.probe_rtt) = (None, Some(Duration::MAX));
            return self.enter(Phase::ProbeRtt);
        }
        match self.phase {
            Phase::Startup if self.filled => self.enter(Phase::Drain),
            Phase::Drain if holds(self.bdp(1.0)) => self.down(now),
            Phase::Down | Phase::Cruise if self.time_to_look(now) => {
                self.short = None;
                self.enter(Phase::Refill);
            }
            Phase::Down if holds(self.bdp(1.0)) && holds(self.room()) => self.enter(Phase::Cruise),
            Phase::Refill if round_old => {
                (self.up_rounds, self.up_rate) = (0, self.bandwidth());
                self.enter(Phase::Up);
            }
            Phase::Up => {
                let bounded = self.raise_ceiling(in_flight, acked);
                if round_old && (self.up_rounds <= 1 || self.bandwidth() >= self.up_rate * UP_GROWTH) {
                    // There is more: on, for another round.
                    self.up_rate = self.bandwidth();
                    self.phase_round = self.delivery.delivered() + in_flight;
                } else if round_old && (!holds(self.bdp(UP_GAIN)) || !bounded && self.up_rounds >= UP_ROUNDS_FLAT) {
                    self.down(now);
                }
            }
            Phase::ProbeRtt => match self.probe_until {
                None if in_flight <= self.window() + held => {
                    self.probe_until = Some(now + PROBE_RTT);
                    self.phase_round = self.delivery.delivered() + in_flight;
                }
                Some(until) if now >= until && round_old => {
                    (self.min_rtt, self.min_rtt_at) = (self.probe_rtt.take().or(self.min_rtt), now);
                    self.short = None;
                    self.down(now);
                }
                _ => {}
            },
            _ => {}
        }
    }

    fn time_to_look(&self, now: Instant) -> bool {
        // In as many rounds Reno, with this much in flight, would have grown back after a loss.
        let rounds = self.bdp(1.0).map_or(u64::MAX, |bdp| bdp / self.mtu).clamp(RENO_ROUNDS_MIN, RENO_ROUNDS_MAX);
        now.saturating_duration_since(self.cycle_at) >= self.cycle_wait || self.cycle_rounds >= rounds
    }

    /// While a look upwards fills the ceiling it rises, by 1, 2, 4, … packets a round.
    /// Whether it is the ceiling that holds the look back.
    fn raise_ceiling(&mut self, in_flight: u64, acked: u64) -> bool {
        let Some(ceiling) = &mut self.ceiling else { return false };
        if in_flight + acked + SLACK_PACKETS * self.mtu < *ceiling {
            return false;
        }
        let step = (self.mtu << self.up_rounds) as f64 * acked as f64 / (*ceiling).max(1) as f64;
        *ceiling += (step as u64).min(acked);
        true
    }

    fn grown(&self, sample: &Sample) -> u64 {
        let gain = if self.phase == Phase::Up { UP_WINDOW_GAIN } else { WINDOW_GAIN };
        // What leaves in one go must fit beside what is acknowledged in one go.
        let most = self.bdp(gain).map(|bdp| bdp + sample.acked + SLACK_PACKETS * self.mtu);
        let window = match most {
            Some(most) if self.filled => (self.window + sample.acked).min(most),
            Some(most) if self.window >= most => self.window,
            _ => self.window + sample.acked,
        };
        window.max(self.least())
    }
}

/// The draft leaves it to the sender; three times TCP's saves a round and a half on long lines.
const INITIAL_PACKETS: u64 = 32;
const WINDOW_MIN_PACKETS: u64 = 4;
/// Two batches of quinn's.
const SLACK_PACKETS: u64 = 20;
/// Before the first acknowledgement, and never counted shorter for the very first rate.
const FIRST_RTT: Duration = Duration::from_millis(1);

const START_GAIN: f64 = 2.77;
const DRAIN_GAIN: f64 = 0.5;
const DOWN_GAIN: f64 = 0.9;
const UP_GAIN: f64 = 1.25;
const WINDOW_GAIN: f64 = 2.0;
const UP_WINDOW_GAIN: f64 = 2.25;
/// Slightly under what the path carries, so that a queue gets shorter rather than longer.
const MARGIN: f64 = 0.99;
const HEADROOM: f64 = 0.85;
const BETA: f64 = 0.7;

/// The start is over when the rate grew by less than this in each of three rounds.
const START_GROWTH: f64 = 1.25;
const FLAT_ROUNDS: u32 = 3;
/// Loss in a round that says the path is full. The draft takes 2 % also at the start, and bounds rate and flight
/// after any loss at all: over a line that loses 1 % by itself that ends the start early and takes a few per cent
/// each round until the next look upwards.
const LOSS: f64 = 0.02;
const START_LOSS: f64 = 0.05;
/// Fewer packets than this are lost by chance.
const LOST_PACKETS_MIN: u64 = 6;

/// A look upwards every 2 to 3 s, sooner where little is in flight.
const CYCLE_MIN: Duration = Duration::from_secs(2);
const CYCLE_SPREAD: Duration = Duration::from_secs(1);
const CYCLE_STEPS: u32 = 64;
const RENO_ROUNDS_MIN: u64 = 8;
const RENO_ROUNDS_MAX: u64 = 63;
/// A round of a look upwards in which the rate grew by this is followed by another. The draft goes on until three
/// rounds were flat, which on a short queue is two rounds of losses.
const UP_GROWTH: f64 = 1.05;
const UP_ROUNDS_FLAT: u32 = 3;
const UP_ROUNDS_MAX: u32 = 20;

/// A look at the round trip where none this short was seen for so long.
const MIN_RTT_LIFE: Duration = Duration::from_secs(5);
/// Nearly the shortest, by a twenty-fifth, is as good as the shortest: timers, busy cores and packets that are taken up
/// together add what is no queue.
const MIN_RTT_NEAR: u32 = 25;
const PROBE_RTT: Duration = Duration::from_millis(200);
const PROBE_RTT_SHARE: f64 = 0.5;
