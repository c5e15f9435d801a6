//! How fast a connection sends: chosen by the path it measures.
//!
//! A round trip under 2 ms is the same site, where CUBIC does well and costs little. Any longer line is BBR's
//! ([`bbr`]), which a loss by chance does not slow down. The rate it wants is published to the socket
//! ([`crate::paced`]), since quinn paces by its window only. Decision 0016.

mod bbr;
mod delivery;
#[cfg(test)]
mod tests;

use crate::paced::Rate;
use bbr::Bbr;
use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig};
use quinn_proto::RttEstimator;
use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Makes the controllers of one connection, which publish to its rate.
pub(crate) struct Congestion(pub(crate) Arc<Rate>);

impl ControllerFactory for Congestion {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        let control = ByPath { rate: self.0.clone(), control: Control::Bbr(Box::new(Bbr::new(now, mtu.into()))), mtu };
        Box::new(control)
    }
}

struct ByPath {
    rate: Arc<Rate>,
    control: Control,
    mtu: u16,
}

enum Control {
    Bbr(Box<Bbr>),
    Cubic(Box<dyn Controller>),
}

impl ByPath {
    fn publish(&self) {
        self.rate.set(match &self.control {
            // Before it has seen the path it claims no part of the lane, which others may be using.
            Control::Bbr(bbr) if bbr.min_rtt().is_none() => return,
            Control::Bbr(bbr) => Some(bbr.pacing_rate()),
            Control::Cubic(_) => None,
        });
    }
}

impl Controller for ByPath {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        if bytes <= ACKNOWLEDGEMENT {
            return;
        }
        self.rate.used(now);
        match &mut self.control {
            Control::Bbr(bbr) => bbr.sent(now, bytes),
            Control::Cubic(cubic) => cubic.on_sent(now, bytes, last_packet_number),
        }
    }
    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        match &mut self.control {
            Control::Bbr(bbr) => bbr.acked(sent, bytes),
            Control::Cubic(cubic) => cubic.on_ack(now, sent, bytes, app_limited, rtt),
        }
    }
    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest: Option<u64>) {
        match &mut self.control {
            Control::Bbr(bbr) => {
                bbr.acks_done(now, in_flight, app_limited);
                if bbr.min_rtt().is_some_and(|rtt| rtt < SAME_SITE) {
                    self.control = Control::Cubic(Arc::new(CubicConfig::default()).build(now, self.mtu));
                }
                self.publish();
            }
            Control::Cubic(cubic) => cubic.on_end_acks(now, in_flight, app_limited, largest),
        }
    }
    fn on_congestion_event(&mut self, now: Instant, sent: Instant, persistent: bool, lost: u64) {
        match &mut self.control {
            Control::Bbr(bbr) => {
                bbr.lost(now, sent, lost, persistent);
                self.publish();
            }
            Control::Cubic(cubic) => cubic.on_congestion_event(now, sent, persistent, lost),
        }
    }
    fn on_mtu_update(&mut self, mtu: u16) {
        self.mtu = mtu;
        match &mut self.control {
            Control::Bbr(bbr) => bbr.set_mtu(mtu.into()),
            Control::Cubic(cubic) => cubic.on_mtu_update(mtu),
        }
    }
    fn window(&self) -> u64 {
        match &self.control {
            Control::Bbr(bbr) => bbr.window(),
            Control::Cubic(cubic) => cubic.window(),
        }
    }
    fn metrics(&self) -> ControllerMetrics {
        match &self.control {
            Control::Bbr(bbr) => {
                let mut metrics = ControllerMetrics::default();
                metrics.congestion_window = bbr.window();
                metrics.pacing_rate = Some((bbr.pacing_rate() * 8.0) as u64);
                metrics
            }
            Control::Cubic(cubic) => cubic.metrics(),
        }
    }
    fn clone_box(&self) -> Box<dyn Controller> {
        let control = match &self.control {
            Control::Bbr(bbr) => Control::Bbr(bbr.clone()),
            Control::Cubic(cubic) => Control::Cubic(cubic.clone_box()),
        };
        Box::new(Self { rate: self.rate.clone(), control, mtu: self.mtu })
    }
    fn initial_window(&self) -> u64 {
        match &self.control {
            Control::Bbr(bbr) => bbr.initial_window(),
            Control::Cubic(cubic) => cubic.initial_window(),
        }
    }
    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// quinn tells of these too, which are not in flight.
const ACKNOWLEDGEMENT: u64 = 100;
/// A shorter round trip than this stays on the site.
const SAME_SITE: Duration = Duration::from_millis(2);
