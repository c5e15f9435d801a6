//! What a long line does with packets, without a device: which of them it loses, when each of the others is at the far
//! end, and which of those the card there hands over together.
//!
//! A card gathers what comes close together and gives it up at once. The last of a group is handed over when it is due,
//! the others at most [`TOGETHER`] after that, and none before.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy)]
pub struct Line {
    pub bits_per_second: f64,
    /// One way.
    pub delay: Duration,
    /// As time at the rate.
    pub queue: Duration,
    /// Share of the packets that get through the queue.
    pub loss: f64,
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is at the far end then.
    Arrives(Instant),
    /// The queue before the line is full.
    Dropped,
    /// By chance, after it has taken its time on the line.
    Lost,
}

/// One way of a line.
pub struct Way {
    line: Line,
    chance: Chance,
    /// When what is in the queue will be on the line.
    free_at: Instant,
}

impl Way {
    /// `seed` decides which packets are lost.
    pub fn new(line: Line, seed: u64, start: Instant) -> Self {
        Self { line, chance: Chance::new(seed), free_at: start }
    }

    /// Of the next packet, one as it is on the line, which comes to the queue now.
    pub fn fate(&mut self, now: Instant, bytes: usize) -> Fate {
        let begins = self.free_at.max(now);
        if begins - now > self.line.queue {
            return Fate::Dropped;
        }
        self.free_at = begins + Duration::from_secs_f64(bytes as f64 * 8.0 / self.line.bits_per_second);
        match self.chance.next() >= self.line.loss {
            true => Fate::Arrives(self.free_at + self.line.delay),
            false => Fate::Lost,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Packet {
    due: Instant,
    bytes: usize,
}

/// Packets that came to the line at once and will arrive, their bytes one after another.
#[derive(Default)]
pub struct Flight {
    bytes: Vec<u8>,
    packets: Vec<Packet>,
}

impl Flight {
    /// `due` is not before that of the packets before.
    pub fn add(&mut self, due: Instant, packet: &[u8]) {
        self.bytes.extend_from_slice(packet);
        self.packets.push(Packet { due, bytes: packet.len() });
    }

    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }
}

/// Packets on the line, the first to arrive first.
#[derive(Default)]
pub struct Underway {
    packets: VecDeque<Packet>,
    flights: VecDeque<Vec<u8>>,
    /// Bytes of the first flight that are past.
    past: usize,
}

/// The first packets of those underway that are handed over together, at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    pub packets: usize,
    /// When the first of them is due.
    pub first: Instant,
    /// And the last.
    pub last: Instant,
    /// Nothing is underway behind it: until its first is due something can come that belongs to it.
    pub open: bool,
}

impl Underway {
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// None where nothing is underway.
    pub fn together(&self) -> Option<Group> {
        let first = self.packets.front()?.due;
        let mut group = Group { packets: 0, first, last: first, open: false };
        let mut bytes = 0;
        for packet in self.packets.iter().take(TOGETHER_PACKETS) {
            bytes += packet.bytes;
            let fits = packet.due.saturating_duration_since(first) <= TOGETHER && bytes <= TOGETHER_BYTES;
            if group.packets > 0 && !fits {
                break;
            }
            group.packets += 1;
            group.last = packet.due;
        }
        group.open = group.packets == self.packets.len();
        Some(group)
    }

    /// Appends the first packet to what `buffer` has, and tells when it is due.
    pub fn next_into(&mut self, buffer: &mut Vec<u8>) -> Option<Instant> {
        let Packet { due, bytes } = self.packets.pop_front()?;
        let flight = self.flights.front()?;
        let end = self.past + bytes;
        buffer.extend_from_slice(flight.get(self.past..end)?);
        self.past = end;
        if end == flight.len() {
            self.flights.pop_front();
            self.past = 0;
        }
        Some(due)
    }
}

impl Extend<Flight> for Underway {
    fn extend<I: IntoIterator<Item = Flight>>(&mut self, flights: I) {
        for Flight { bytes, packets } in flights {
            if !bytes.is_empty() {
                self.packets.extend(packets);
                self.flights.push_back(bytes);
            }
        }
    }
}

/// xorshift64*: the same seed loses the same packets.
struct Chance(u64);

impl Chance {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }
    /// From 0 up to 1.
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Of line time. Under bulk traffic a common gigabit card interrupts 4,000 times a second (Intel's driver e1000e, as it
/// comes), and what came since is taken up together. A packet that comes alone waits for none, as there.
pub const TOGETHER: Duration = Duration::from_micros(250);
/// What the kernel takes from a card in one round (NAPI's weight), and as many as it gathers of UDP.
pub const TOGETHER_PACKETS: usize = 64;
/// As long as an IPv4 packet can be, which is what a card's packets are gathered to.
pub const TOGETHER_BYTES: usize = 65_535;

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: Line =
        Line { bits_per_second: 8e6, delay: Duration::from_millis(10), queue: Duration::from_millis(3), loss: 0.0 };

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Underway as one flight, by microseconds from a start and length; each filled with its number.
    fn underway(start: Instant, packets: impl IntoIterator<Item = (u64, usize)>) -> Underway {
        let mut flight = Flight::default();
        for (number, (micros, bytes)) in packets.into_iter().enumerate() {
            flight.add(start + Duration::from_micros(micros), &vec![number as u8; bytes]);
        }
        let mut underway = Underway::default();
        underway.extend([flight]);
        underway
    }

    #[test]
    fn each_packet_of_a_large_one_has_its_own_moment_and_the_queue_drops_its_tail() {
        let start = Instant::now();
        let mut way = Way::new(SLOW, 1, start);
        // A thousand bytes take a millisecond.
        let fates: Vec<_> = (0..6).map(|_| way.fate(start, 1000)).collect();
        let arrives = |millis| Fate::Arrives(start + ms(millis));
        assert_eq!(fates, [arrives(11), arrives(12), arrives(13), arrives(14), Fate::Dropped, Fate::Dropped]);
        // What was dropped takes nothing of the line, and a short one would not get in either.
        assert_eq!(way.fate(start, 40), Fate::Dropped);
        assert_eq!(way.fate(start + ms(2), 1000), arrives(15));
        // A line that was idle begins when the next one comes.
        assert_eq!(way.fate(start + ms(50), 500), Fate::Arrives(start + ms(60) + Duration::from_micros(500)));
    }

    #[test]
    fn a_seed_loses_the_same_packets_and_these_take_their_time_on_the_line() {
        let start = Instant::now();
        let fates = |loss, seed| -> Vec<Fate> {
            let mut way = Way::new(Line { queue: Duration::from_secs(60), loss, ..SLOW }, seed, start);
            (0..10_000).map(|_| way.fate(start, 1000)).collect()
        };
        let (all, some) = (fates(0.0, 7), fates(0.1, 7));
        assert!(all.iter().zip(&some).all(|(all, some)| *some == Fate::Lost || some == all));
        let lost = some.iter().filter(|fate| **fate == Fate::Lost).count();
        assert!((850..1150).contains(&lost), "{lost} of 10,000");
        assert_eq!(some, fates(0.1, 7));
        assert_ne!(some, fates(0.1, 8));
    }

    #[test]
    fn what_the_queue_drops_changes_nothing_of_what_chance_loses() {
        let start = Instant::now();
        let lost = |queue| -> Vec<bool> {
            let mut way = Way::new(Line { queue, loss: 0.3, ..SLOW }, 3, start);
            let fates = (0..400).map(|n| way.fate(start + Duration::from_micros(n * 500), 1000));
            fates.filter(|fate| *fate != Fate::Dropped).map(|fate| fate == Fate::Lost).collect()
        };
        let (long, short) = (lost(Duration::from_secs(60)), lost(ms(3)));
        assert_eq!(long.len(), 400);
        assert!((100..300).contains(&short.len()), "{} got through", short.len());
        assert_eq!(long[..short.len()], short);
    }

    #[test]
    fn packets_of_a_full_line_go_together_for_as_long_as_a_card_gathers() {
        let start = Instant::now();
        let at = |micros| start + Duration::from_micros(micros);
        let mut underway = underway(start, (0..30).map(|n| (n * 24, 1500)));
        let mut expected = [(11, 0, 240, false), (11, 264, 504, false), (8, 528, 696, true)].into_iter();
        let mut number = 0;
        while let Some(group) = underway.together() {
            let (packets, first, last, open) = expected.next().expect("three groups");
            assert_eq!(group, Group { packets, first: at(first), last: at(last), open });
            for _ in 0..packets {
                let mut buffer = vec![0xff; 10];
                assert_eq!(underway.next_into(&mut buffer), Some(at(u64::from(number) * 24)));
                assert_eq!(buffer, [vec![0xff; 10], vec![number; 1500]].concat());
                number += 1;
            }
        }
        assert_eq!((number, expected.next()), (30, None));
        assert!(underway.is_empty() && underway.flights.is_empty());
    }

    #[test]
    fn one_alone_waits_for_nothing() {
        let start = Instant::now();
        let underway = underway(start, [(0, 52), (251, 52)]);
        assert_eq!(underway.together(), Some(Group { packets: 1, first: start, last: start, open: false }));
    }

    #[test]
    fn a_group_is_bounded_in_packets_and_in_bytes() {
        let start = Instant::now();
        let group = |packets: usize, bytes| {
            let group = underway(start, (0..packets).map(|_| (0, bytes))).together().expect("a group");
            (group.packets, group.open)
        };
        assert_eq!(group(100, 52), (64, false));
        assert_eq!(group(64, 52), (64, true));
        // 43 of these are 64,500 bytes.
        assert_eq!(group(60, 1500), (43, false));
        assert_eq!(Underway::default().together(), None);
    }

    #[test]
    fn flights_follow_each_other_packet_by_packet() {
        let start = Instant::now();
        let mut underway = Underway::default();
        let packets: [&[&[u8]]; 3] = [&[b"one", b"two, longer"], &[], &[b"3"]];
        underway.extend(packets.map(|packets| {
            let mut flight = Flight::default();
            packets.iter().for_each(|packet| flight.add(start, packet));
            flight
        }));
        let mut buffer = Vec::new();
        for expected in ["one", "onetwo, longer", "onetwo, longer3"] {
            assert_eq!(underway.next_into(&mut buffer), Some(start));
            assert_eq!(buffer, expected.as_bytes());
        }
        assert_eq!(underway.next_into(&mut buffer), None);
    }
}
