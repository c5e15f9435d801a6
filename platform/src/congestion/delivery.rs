//! How fast bytes arrive, from when they were sent and when they were acknowledged
//! (after draft-cheng-iccrg-delivery-rate-estimation).
//!
//! quinn tells of a packet by the moment of its sending, and packets of one batch share it: what was known at a
//! sending is kept once per moment. Rates are bytes a second.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What was known when something was sent.
#[derive(Clone)]
struct Sent {
    at: Instant,
    /// When that was sent which the latest acknowledgement had covered by then.
    first_at: Instant,
    delivered: u64,
    delivered_at: Instant,
    /// With what was sent at this moment.
    in_flight: u64,
    app_limited: bool,
}

/// What one batch of acknowledgements says.
pub(super) struct Sample {
    /// None where the interval says nothing.
    pub(super) rate: Option<f64>,
    pub(super) rtt: Duration,
    /// Newly acknowledged, in bytes.
    pub(super) acked: u64,
    /// Acknowledged in all when the newest packet of the batch was sent.
    pub(super) delivered_before: u64,
    /// Arrived between that sending and now.
    pub(super) delivered: u64,
    /// There was too little to send for the rate to say what the path carries.
    pub(super) app_limited: bool,
}

#[derive(Clone)]
pub(super) struct Delivery {
    sent: VecDeque<Sent>,
    delivered: u64,
    delivered_at: Option<Instant>,
    first_at: Option<Instant>,
    in_flight: u64,
    /// Everything up to this count was sent while there was too little to send.
    app_limited_until: u64,
    /// Of the batch under way: bytes, and the latest sending among them.
    acked: u64,
    newest: Option<Instant>,
}

impl Delivery {
    pub(super) fn new() -> Self {
        Self {
            sent: VecDeque::new(),
            delivered: 0,
            delivered_at: None,
            first_at: None,
            in_flight: 0,
            app_limited_until: 0,
            acked: 0,
            newest: None,
        }
    }

    /// All bytes that arrived so far.
    pub(super) fn delivered(&self) -> u64 {
        self.delivered
    }

    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight
    }

    pub(super) fn sent(&mut self, now: Instant, bytes: u64) {
        if self.in_flight == 0 {
            (self.first_at, self.delivered_at) = (Some(now), Some(now));
        }
        self.in_flight += bytes;
        if let Some(last) = self.sent.back_mut()
            && last.at >= now
        {
            last.in_flight = self.in_flight;
            return;
        }
        if self.sent.len() == KEPT_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back(Sent {
            at: now,
            first_at: self.first_at.unwrap_or(now),
            delivered: self.delivered,
            delivered_at: self.delivered_at.unwrap_or(now),
            in_flight: self.in_flight,
            app_limited: self.delivered < self.app_limited_until,
        });
    }

    pub(super) fn acked(&mut self, sent: Instant, bytes: u64) {
        self.delivered += bytes;
        self.acked += bytes;
        self.in_flight = self.in_flight.saturating_sub(bytes);
        self.newest = self.newest.max(Some(sent));
    }

    pub(super) fn lost(&mut self, bytes: u64) {
        self.in_flight = self.in_flight.saturating_sub(bytes);
    }

    /// From here on what arrives says nothing of the path, until all that is in flight now has arrived.
    pub(super) fn limited_by_application(&mut self) {
        self.app_limited_until = self.delivered + self.in_flight.max(1);
    }

    /// Ends a batch. `in_flight` is the connection's own count, which also knows of packets that were given up.
    pub(super) fn end(&mut self, now: Instant, in_flight: u64) -> Option<Sample> {
        self.in_flight = in_flight;
        let (acked, newest) = (std::mem::take(&mut self.acked), self.newest.take()?);
        self.delivered_at = Some(now);
        let packet = self.find(newest)?;
        // Acknowledgements that were held back somewhere arrive faster than the bytes did: the longer span counts.
        let sending = packet.at.saturating_duration_since(packet.first_at);
        let interval = sending.max(now.saturating_duration_since(packet.delivered_at));
        let rtt = now.saturating_duration_since(packet.at);
        let delivered = self.delivered - packet.delivered;
        let sample = Sample {
            rate: (!interval.is_zero()).then(|| delivered as f64 / interval.as_secs_f64()),
            rtt,
            acked,
            delivered_before: packet.delivered,
            delivered,
            app_limited: packet.app_limited,
        };
        self.first_at = Some(packet.at);
        // Losses are found up to some round trips later, and ask for what was in flight.
        let keep = newest.checked_sub(rtt * KEPT_ROUNDS).unwrap_or(newest);
        while self.sent.front().is_some_and(|old| old.at < keep) {
            self.sent.pop_front();
        }
        if self.sent.capacity() > 4 * self.sent.len() + KEPT_LEAST {
            self.sent.shrink_to(2 * self.sent.len());
        }
        Some(sample)
    }

    /// In flight right after that sending; none if it is too long ago.
    pub(super) fn in_flight_at(&self, sent: Instant) -> Option<u64> {
        self.find(sent).map(|packet| packet.in_flight)
    }

    /// Of that moment, or of the one before: not every packet is told of when it is sent.
    fn find(&self, at: Instant) -> Option<&Sent> {
        self.sent.get(self.sent.partition_point(|packet| packet.at <= at).checked_sub(1)?)
    }
}

/// Moments of sending that are kept: at ten packets a moment a second of 200 MB/s, in some 1.1 MiB.
const KEPT_MAX: usize = 16_384;
const KEPT_LEAST: usize = 256;
const KEPT_ROUNDS: u32 = 3;
