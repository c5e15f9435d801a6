//! Senders on a line that exists only here: one bottleneck with a rate, a queue that drops its tail, a delay and
//! losses by chance. One seed gives one course.

use super::bbr::{Bbr, Phase};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::{Duration, Instant};

const PACKET: u64 = 1_452;
const BATCH: u64 = 10;

/// `rate` in bytes a second, `delay` one way, `queue` as time at the rate, `loss` as a share.
#[derive(Clone, Copy)]
struct Line {
    rate: f64,
    delay: Duration,
    queue: Duration,
    loss: f64,
}

const LONG: Line = Line { rate: 12.5e6, delay: Duration::from_millis(50), queue: Duration::from_millis(50), loss: 0.0 };

enum Control {
    Bbr(Box<Bbr>),
    Cubic(Cubic),
}

/// TCP's (RFC 9438), without its friendliness for small windows.
struct Cubic {
    window: f64,
    most: f64,
    threshold: f64,
    lost_at: Option<Instant>,
}

impl Cubic {
    fn new() -> Self {
        Self { window: 10.0, most: 0.0, threshold: f64::MAX, lost_at: None }
    }
    fn acked(&mut self, now: Instant, packets: f64) {
        let since = match self.lost_at {
            Some(at) if self.window >= self.threshold => now.saturating_duration_since(at).as_secs_f64(),
            _ => return self.window += packets,
        };
        let turn = (self.most * 0.3 / 0.4).cbrt();
        let target = 0.4 * (since + 0.1 - turn).powi(3) + self.most;
        self.window += (target - self.window).max(0.0).min(self.window / 2.0) * packets / self.window;
    }
    fn lost(&mut self, now: Instant, sent: Instant) {
        if self.lost_at.is_none_or(|at| sent > at) {
            (self.most, self.lost_at) = (self.window, Some(now));
            self.window = (self.window * 0.7).max(2.0);
            self.threshold = self.window;
        }
    }
}

struct Flow {
    control: Control,
    begins: Duration,
    /// How much later than asked its timers wake it.
    late: Duration,
    next: u64,
    in_flight: u64,
    sent: BTreeMap<u64, Instant>,
    paced_until: Instant,
    waiting: bool,
    /// When the batch was made that pacing holds back, and its packets: in flight for its sender, as with quinn.
    held: Option<(Instant, u64)>,
    arrived: Vec<(Instant, u64)>,
    packets: u64,
    dropped: u64,
}

impl Flow {
    fn new(control: Control, begins: Duration, start: Instant) -> Self {
        Self {
            control,
            begins,
            late: Duration::ZERO,
            next: 0,
            in_flight: 0,
            sent: BTreeMap::new(),
            paced_until: start,
            waiting: false,
            held: None,
            arrived: Vec::new(),
            packets: 0,
            dropped: 0,
        }
    }
    fn window(&self) -> u64 {
        match &self.control {
            Control::Bbr(bbr) => bbr.window(),
            Control::Cubic(cubic) => cubic.window as u64 * PACKET,
        }
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Acked { flow: usize, packet: u64 },
    Send { flow: usize },
}

struct World {
    start: Instant,
    line: Line,
    flows: Vec<Flow>,
    events: BinaryHeap<Reverse<(Instant, u64, Event)>>,
    number: u64,
    free_at: Instant,
    chance: u64,
}

impl World {
    fn new(line: Line, flows: Vec<(Control, Duration)>, seed: u64, start: Instant) -> Self {
        let flows: Vec<_> = flows.into_iter().map(|(control, begins)| Flow::new(control, begins, start)).collect();
        let chance = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let events = BinaryHeap::new();
        let mut world = Self { start, line, flows, events, number: 0, free_at: start, chance };
        for flow in 0..world.flows.len() {
            world.at(start + world.flows[flow].begins, Event::Send { flow });
        }
        world
    }
    fn at(&mut self, time: Instant, event: Event) {
        self.number += 1;
        self.events.push(Reverse((time, self.number, event)));
    }
    /// xorshift64*.
    fn chance(&mut self) -> f64 {
        self.chance ^= self.chance >> 12;
        self.chance ^= self.chance << 25;
        self.chance ^= self.chance >> 27;
        (self.chance.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1u64 << 53) as f64
    }
    fn run(&mut self, length: Duration) {
        while self.events.peek().is_some_and(|Reverse((at, ..))| *at <= self.start + length) {
            let Some(Reverse((now, _, event))) = self.events.pop() else { return };
            match event {
                Event::Acked { flow, packet } => self.acked(now, flow, packet),
                Event::Send { flow } => self.flows[flow].waiting = false,
            }
            for flow in 0..self.flows.len() {
                self.send(now, flow);
            }
        }
    }
    fn send(&mut self, now: Instant, flow: usize) {
        loop {
            let one = &mut self.flows[flow];
            if now < self.start + one.begins || one.waiting {
                return;
            }
            let (made, packets) = match one.held {
                Some(held) => held,
                None => {
                    let packets = (one.window().saturating_sub(one.in_flight) / PACKET).min(BATCH);
                    if packets == 0 {
                        return;
                    }
                    one.in_flight += packets * PACKET;
                    if let Control::Bbr(bbr) = &mut one.control {
                        bbr.sent(now, packets * PACKET);
                    }
                    *one.held.insert((now, packets))
                }
            };
            if now < one.paced_until {
                one.waiting = true;
                let wake = one.paced_until + one.late;
                return self.at(wake, Event::Send { flow });
            }
            if let Control::Bbr(bbr) = &one.control {
                let since = one.paced_until.max(now.checked_sub(crate::paced::CATCH_UP).unwrap_or(now));
                one.paced_until = since + Duration::from_secs_f64((packets * PACKET) as f64 / bbr.pacing_rate());
            }
            one.held = None;
            for _ in 0..packets {
                self.carry(now, made, flow);
            }
        }
    }
    fn carry(&mut self, now: Instant, made: Instant, flow: usize) {
        let one = &mut self.flows[flow];
        let packet = one.next;
        one.next += 1;
        one.packets += 1;
        one.sent.insert(packet, made);
        let free = self.free_at.max(now);
        if free - now > self.line.queue {
            one.dropped += 1;
            return;
        }
        self.free_at = free + Duration::from_secs_f64(PACKET as f64 / self.line.rate);
        let back = self.free_at + self.line.delay * 2;
        if self.chance() >= self.line.loss {
            self.at(back, Event::Acked { flow, packet });
        }
    }
    fn acked(&mut self, now: Instant, flow: usize, packet: u64) {
        let one = &mut self.flows[flow];
        let Some(sent) = one.sent.remove(&packet) else { return };
        one.in_flight -= PACKET;
        one.arrived.push((now, PACKET));
        let lost = one.sent.range(..packet.saturating_sub(2)).map(|(packet, sent)| (*packet, *sent));
        let lost: Vec<_> = lost.collect();
        if let Control::Bbr(bbr) = &mut one.control {
            bbr.acked(sent, PACKET);
            bbr.acks_done(now, one.in_flight, false);
        } else if let Control::Cubic(cubic) = &mut one.control {
            cubic.acked(now, 1.0);
        }
        for (packet, sent) in &lost {
            one.sent.remove(packet);
            one.in_flight -= PACKET;
            if let Control::Cubic(cubic) = &mut one.control {
                cubic.lost(now, *sent);
            }
        }
        if let (Control::Bbr(bbr), Some((_, sent))) = (&mut one.control, lost.last()) {
            bbr.lost(now, *sent, PACKET * lost.len() as u64, false);
        }
    }
    /// What a flow brought between two moments, as a share of the line.
    fn share(&self, flow: usize, from: f64, to: f64) -> f64 {
        let (from, to) = (Duration::from_secs_f64(from), Duration::from_secs_f64(to));
        let within = |at: &Instant| *at >= self.start + from && *at < self.start + to;
        let bytes: u64 = self.flows[flow].arrived.iter().filter(|(at, _)| within(at)).map(|(_, bytes)| bytes).sum();
        bytes as f64 / (to - from).as_secs_f64() / self.line.rate
    }
    fn dropped(&self, flow: usize) -> f64 {
        self.flows[flow].dropped as f64 / self.flows[flow].packets as f64
    }
    fn phase(&self, flow: usize) -> Option<Phase> {
        match &self.flows[flow].control {
            Control::Bbr(bbr) => Some(bbr.phase),
            Control::Cubic(_) => None,
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "a moment to count from")]
fn start() -> Instant {
    Instant::now()
}

fn bbr(start: Instant) -> Control {
    Control::Bbr(Box::new(Bbr::new(start, PACKET)))
}

/// Share of the line in 20 s with the start, and share dropped at the queue.
fn alone(line: Line, seed: u64, late: Duration) -> (f64, f64) {
    let start = start();
    let mut world = World::new(line, vec![(bbr(start), Duration::ZERO)], seed, start);
    world.flows[0].late = late;
    world.run(Duration::from_secs(20));
    (world.share(0, 0.0, 20.0), world.dropped(0))
}

#[test]
fn a_long_line_is_filled_whatever_it_loses_by_chance() {
    for (loss, least) in [(0.0, 0.93), (0.001, 0.93), (0.01, 0.91)] {
        for seed in 1..4 {
            let (share, dropped) = alone(Line { loss, ..LONG }, seed, Duration::ZERO);
            println!("loss {loss} seed {seed}: {share:.3} of the line, {dropped:.4} dropped");
            assert!(share > least && dropped < 0.02, "loss {loss} seed {seed}: {share:.3}, {dropped:.4} dropped");
        }
    }
}

#[test]
fn late_timers_cost_little() {
    let line = Line { loss: 0.01, ..LONG };
    let (share, dropped) = alone(line, 1, Duration::from_millis(3));
    println!("late: {share:.3} {dropped:.4}");
    assert!(share > 0.88 && dropped < 0.02, "{share:.3}, {dropped:.4} dropped");
}

#[test]
fn a_cubic_flow_keeps_its_share() {
    let start = start();
    let flows = vec![(bbr(start), Duration::ZERO), (Control::Cubic(Cubic::new()), Duration::ZERO)];
    let mut world = World::new(LONG, flows, 1, start);
    world.run(Duration::from_secs(60));
    let (own, cubic) = (world.share(0, 0.0, 60.0), world.share(1, 0.0, 60.0));
    println!("bbr {own:.3}, cubic {cubic:.3}, dropped {:.4}", world.dropped(0));
    assert!(cubic >= 0.25 && own >= 0.25, "bbr {own:.3}, cubic {cubic:.3}");
}

#[test]
fn two_senders_share() {
    let start = start();
    let flows = vec![(bbr(start), Duration::ZERO), (bbr(start), Duration::from_secs(10))];
    let mut world = World::new(LONG, flows, 1, start);
    world.run(Duration::from_secs(90));
    let (first, second) = (world.share(0, 50.0, 90.0), world.share(1, 50.0, 90.0));
    println!("first {first:.3}, second {second:.3}, dropped {:.4} {:.4}", world.dropped(0), world.dropped(1));
    assert!(first + second > 0.9 && second > 0.2, "{first:.3} and {second:.3}");
}

#[test]
fn a_line_that_becomes_wider_is_found_and_one_that_becomes_narrower_not_flooded() {
    let start = start();
    let mut world = World::new(LONG, vec![(bbr(start), Duration::ZERO)], 1, start);
    world.run(Duration::from_secs(10));
    world.line.rate *= 2.0;
    world.run(Duration::from_secs(30));
    let wide = world.share(0, 22.0, 30.0);
    world.line.rate /= 4.0;
    let before = (world.flows[0].packets, world.flows[0].dropped);
    world.run(Duration::from_secs(50));
    let narrow = world.share(0, 35.0, 50.0);
    let dropped = (world.flows[0].dropped - before.1) as f64 / (world.flows[0].packets - before.0) as f64;
    println!("wide {wide:.3}, narrow {narrow:.3}, dropped {dropped:.4}, {:?}", world.phase(0));
    assert!(wide > 0.85 && narrow > 0.85 && dropped < 0.1, "{wide:.3}, {narrow:.3}, {dropped:.4} dropped");
}

#[test]
fn a_deep_queue_is_not_filled() {
    let line = Line { queue: Duration::from_secs(2), ..LONG };
    let start = start();
    let mut world = World::new(line, vec![(bbr(start), Duration::ZERO)], 1, start);
    world.run(Duration::from_secs(20));
    let wait = world.free_at.saturating_duration_since(start + Duration::from_secs(20));
    println!("{:.3} of the line, a queue of {wait:?}", world.share(0, 0.0, 20.0));
    assert!(world.share(0, 5.0, 20.0) > 0.93 && wait < Duration::from_millis(60), "a queue of {wait:?}");
}

#[test]
fn a_slow_line_is_filled_too() {
    for (megabits, ms, queue) in [(1.0, 50, 200), (10.0, 50, 50), (100.0, 5, 50)] {
        let (delay, queue) = (Duration::from_millis(ms), Duration::from_millis(queue));
        let (share, dropped) = alone(Line { rate: megabits * 125e3, delay, queue, loss: 0.0 }, 1, Duration::ZERO);
        println!("{megabits} Mbit/s, {ms} ms: {share:.3}, {dropped:.4} dropped");
        assert!(share > 0.85 && dropped < 0.03, "{megabits} Mbit/s: {share:.3}, {dropped:.4} dropped");
    }
}

#[test]
fn small_talk_says_nothing_of_the_path() {
    let mut now = start();
    let rtt = Duration::from_millis(100);
    let mut bbr = Bbr::new(now, PACKET);
    for _ in 0..200 {
        bbr.sent(now, 300);
        bbr.acked(now, 300);
        now += rtt;
        bbr.acks_done(now, 0, true);
        now += Duration::from_secs(5);
    }
    assert_eq!(bbr.phase, Phase::Startup);
    let first = bbr.initial_window() as f64 / rtt.as_secs_f64();
    assert!(bbr.pacing_rate() >= first, "{} bytes a second", bbr.pacing_rate());
}

#[test]
fn a_mark_ends_a_look_upwards() {
    let start = start();
    let mut world = World::new(LONG, vec![(bbr(start), Duration::ZERO)], 1, start);
    let mut until = Duration::from_secs(2);
    while world.phase(0) != Some(Phase::Up) {
        until += Duration::from_millis(1);
        world.run(until);
    }
    if let Control::Bbr(bbr) = &mut world.flows[0].control {
        bbr.lost(start + until, start + until, 0, false);
    }
    assert_eq!(world.phase(0), Some(Phase::Down));
}
