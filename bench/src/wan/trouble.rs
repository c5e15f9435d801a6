//! What befalls a line in the midst of a transfer, and when content flowed again: UDP stops passing, or passes as a
//! trickle, or nothing passes for a time. Of each way, one gate looks at every packet before it comes to the queue.
//!
//! What a gate knows of a packet is its protocol and its length. That content flows is told by how much has passed, so
//! that what opens a connection is not taken for it; the figures are later than the first byte by what that much takes,
//! at most half a second where TCP begins anew. Not played: what comes back as an error, such as ICMP.

use crate::measure::Recovery;
use anyhow::{Context, ensure};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// From then on no UDP passes, either way, and nobody is told.
    UdpDropped,
    /// From then on UDP passes at a hundredth of the line's rate, each way; the rest is dropped.
    UdpThrottled,
    /// Nothing passes for [`CUT`].
    Cut,
}

impl Kind {
    /// What it is, and what is told of it.
    pub fn words(self) -> &'static str {
        match self {
            Self::UdpDropped => "from half of the file on no UDP passes; content flows again when it does over TCP",
            Self::UdpThrottled => {
                "from half of the file on UDP passes at 1 % of the line; content flows again when it does over TCP"
            }
            Self::Cut => "at half of the file nothing passes for 10 s; content flows again after the line's return",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trouble {
    pub kind: Kind,
    /// It begins when so many bytes have come to the line on the way of the data, headers included.
    pub after: u64,
}

/// What both gates of a line share.
#[derive(Debug, Default)]
pub struct Passage {
    trouble: Option<Trouble>,
    /// Bytes that came to the line on the way of the data, by protocol.
    udp: AtomicU64,
    tcp: AtomicU64,
    began: OnceLock<Began>,
    /// When content flowed again: over TCP where UDP was in trouble.
    flowed_again: OnceLock<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Began {
    at: Instant,
    /// Of the bytes that had come till then, those over UDP.
    udp: u64,
}

/// Of one way.
pub struct Gate {
    passage: Arc<Passage>,
    carries_data: bool,
    bits_per_second: f64,
    /// When what was let through of UDP would be past at the rate that is left to it.
    trickle_free_at: Option<Instant>,
    /// Bytes that passed since the trouble, of what can carry the content again.
    since: u64,
}

impl Passage {
    pub fn new(trouble: Option<Trouble>) -> Arc<Self> {
        Arc::new(Self { trouble, ..Self::default() })
    }

    pub fn is_troubled(&self) -> bool {
        self.trouble.is_some()
    }

    /// What became of a transfer of `bytes`, of which the nodes say that `sent` crossed the line; none where the line
    /// was in no trouble. A trouble that did not meet the transfer is an error.
    pub fn recovery(&self, bytes: u64, sent: Option<u64>) -> anyhow::Result<Option<Recovery>> {
        let Some(trouble) = self.trouble else { return Ok(None) };
        let began = self.began.get().context("the transfer was over before the line's trouble")?;
        let met = trouble.kind == Kind::Cut || began.udp > trouble.after / 2;
        ensure!(met, "the content was not on UDP when UDP stopped passing");
        let again = self.flowed_again.get().context("the transfer ended, but no content flowed again")?;
        let over = if trouble.kind == Kind::Cut { began.at + CUT } else { began.at };
        let sent = sent.context("the job does not say how much was sent")?;
        Ok(Some(Recovery {
            seconds: again.duration_since(over).as_secs_f64(),
            sent_twice_share: sent.saturating_sub(bytes) as f64 / bytes.max(1) as f64,
            line_udp_bytes: self.udp.load(Ordering::Relaxed),
            line_tcp_bytes: self.tcp.load(Ordering::Relaxed),
        }))
    }
}

impl Gate {
    pub fn new(passage: Arc<Passage>, carries_data: bool, bits_per_second: f64) -> Self {
        Self { passage, carries_data, bits_per_second, trickle_free_at: None, since: 0 }
    }

    /// Whether a packet that came at `now` may go on to the line's queue.
    pub fn admits(&mut self, packet: &[u8], now: Instant) -> bool {
        let (protocol, bytes) = (protocol(packet), packet.len() as u64);
        if self.carries_data {
            match protocol {
                Some(UDP) => self.passage.udp.fetch_add(bytes, Ordering::Relaxed),
                Some(TCP) => self.passage.tcp.fetch_add(bytes, Ordering::Relaxed),
                _ => 0,
            };
        }
        let Some(trouble) = self.passage.trouble else { return true };
        let Some(began) = self.passage.began.get().copied() else {
            if self.carries_data {
                self.begin(trouble, now);
            }
            // The one with which it begins is the last that passes.
            return true;
        };
        let admitted = match trouble.kind {
            Kind::Cut => now >= began.at + CUT,
            Kind::UdpDropped => protocol != Some(UDP),
            Kind::UdpThrottled => protocol != Some(UDP) || self.trickles(bytes, now),
        };
        let is_content = trouble.kind == Kind::Cut || protocol == Some(TCP);
        if admitted && is_content && self.carries_data {
            self.since += bytes;
            if self.since >= CONTENT {
                let _ = self.passage.flowed_again.set(now);
            }
        }
        admitted
    }

    fn begin(&self, trouble: Trouble, now: Instant) {
        let [udp, tcp] = [&self.passage.udp, &self.passage.tcp].map(|count| count.load(Ordering::Relaxed));
        if udp + tcp >= trouble.after {
            let _ = self.passage.began.set(Began { at: now, udp });
        }
    }

    /// As one polices who has no queue: what is within the rate passes as it comes, with a little at once, the rest is
    /// dropped.
    fn trickles(&mut self, bytes: u64, now: Instant) -> bool {
        let begins = self.trickle_free_at.map_or(now, |free_at| free_at.max(now));
        if begins.duration_since(now) > AT_ONCE {
            return false;
        }
        let takes = bytes as f64 * 8.0 / (self.bits_per_second * TRICKLE);
        self.trickle_free_at = Some(begins + Duration::from_secs_f64(takes));
        true
    }
}

/// Of a packet of IPv4.
fn protocol(packet: &[u8]) -> Option<u8> {
    match packet.first()? >> 4 {
        4 => packet.get(9).copied(),
        _ => None,
    }
}

/// How long a line is cut.
const CUT: Duration = Duration::from_secs(10);
/// Share of the line's rate that is left to UDP.
const TRICKLE: f64 = 0.01;
/// What passes of it at once, as time at its rate.
const AT_ONCE: Duration = Duration::from_millis(50);
/// More than the handshakes of all channels, a node's word to the centre, and what a sender asks a silent peer with.
const CONTENT: u64 = 64 << 10;
const TCP: u8 = 6;
const UDP: u8 = 17;

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(protocol: u8) -> Vec<u8> {
        let mut packet = vec![0; 1_250];
        (packet[0], packet[9]) = (0x45, protocol);
        packet
    }

    /// A line of 100 Mbit/s whose trouble begins with the 8th packet of the data: the way of the data, and back.
    fn gates(kind: Kind) -> (Arc<Passage>, Gate, Gate, Instant) {
        let passage = Passage::new(Some(Trouble { kind, after: 10_000 }));
        let [there, back] = [true, false].map(|carries_data| Gate::new(passage.clone(), carries_data, 100e6));
        (passage, there, back, Instant::now())
    }

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn from_the_middle_on_udp_is_dropped_both_ways_and_what_flows_over_tcp_is_timed() {
        let (passage, mut there, mut back, start) = gates(Kind::UdpDropped);
        for number in 0..8 {
            assert!(back.admits(&packet(UDP), at(start, number)), "acknowledgements do not begin it");
            assert!(there.admits(&packet(UDP), at(start, number)), "{number}");
        }
        assert!(!there.admits(&packet(UDP), at(start, 8)) && !back.admits(&packet(UDP), at(start, 8)));
        assert!(back.admits(&packet(TCP), at(start, 9)));
        passage.recovery(8_000, Some(8_000)).expect_err("nothing flows yet");
        // It began at 7 ms; 53 packets are the first that make 64 KiB.
        for number in 0..60 {
            assert!(there.admits(&packet(TCP), at(start, 1_000 + number)));
        }
        let recovery = passage.recovery(8_000, Some(8_080)).expect("a recovery").expect("a trouble");
        assert!((recovery.seconds - 1.045).abs() < 1e-9, "{recovery:?}");
        assert!((recovery.sent_twice_share - 0.01).abs() < 1e-9, "{recovery:?}");
        assert_eq!((recovery.line_udp_bytes, recovery.line_tcp_bytes), (9 * 1_250, 60 * 1_250));
    }

    #[test]
    fn a_hundredth_of_the_rate_is_left_to_udp() {
        let (_, mut there, _, start) = gates(Kind::UdpThrottled);
        (0..8).for_each(|_| assert!(there.admits(&packet(UDP), start)));
        // 100 Mbit/s for 10 s, of which 1 Mbit/s passes: 100 packets a second, and what may pass at once.
        let passed =
            (0..100_000).filter(|at| there.admits(&packet(UDP), start + Duration::from_micros(at * 100))).count();
        assert!((1_000..=1_010).contains(&passed), "{passed}");
        assert!(there.admits(&packet(TCP), at(start, 10_000)));
    }

    #[test]
    fn a_cut_line_passes_nothing_until_it_is_back_and_the_time_runs_from_then() {
        let (passage, mut there, mut back, start) = gates(Kind::Cut);
        (0..8).for_each(|_| assert!(there.admits(&packet(TCP), start)));
        for ms in [0, 5_000, 9_999] {
            assert!(!there.admits(&packet(TCP), at(start, ms)) && !back.admits(&packet(UDP), at(start, ms)));
        }
        for _ in 0..53 {
            assert!(there.admits(&packet(UDP), at(start, 10_700)));
        }
        assert!(Kind::Cut.words().contains(&format!("for {} s", CUT.as_secs())));
        let recovery = passage.recovery(10_000, Some(10_000)).expect("a recovery").expect("a trouble");
        assert!((recovery.seconds - 0.7).abs() < 1e-9 && recovery.sent_twice_share == 0.0, "{recovery:?}");
    }

    #[test]
    fn a_trouble_that_did_not_meet_the_transfer_is_told() {
        let (passage, mut there, _, start) = gates(Kind::UdpDropped);
        passage.recovery(1, Some(1)).expect_err("it was over before");
        (0..70).for_each(|_| assert!(there.admits(&packet(TCP), start)));
        passage.recovery(1, Some(1)).expect_err("it was on TCP all along");
        let quiet = Passage::new(None);
        let mut gate = Gate::new(quiet.clone(), true, 100e6);
        (0..70).for_each(|_| assert!(gate.admits(&packet(UDP), start)));
        assert!(quiet.recovery(1, None).expect("no trouble").is_none());
    }
}
