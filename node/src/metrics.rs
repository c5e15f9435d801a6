//! Counters and gauges of one node in the Prometheus text format. A node has no inbound web page: they are
//! written to `metrics.prom` in the data folder (for node_exporter's textfile collector) and answered over
//! the admin socket.

use crate::context::Context;
use crate::store::{Side, Transfer, statements, transfers};
use posthouse_platform::identity::write_public;
use posthouse_protocol::policy::Staleness;
use posthouse_protocol::time::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub struct Metrics {
    registry: Mutex<Registry>,
    /// Transfers that ended up to here are counted.
    counted_to: Mutex<Option<Timestamp>>,
    /// Transfers that ended here, by job and final state.
    pub transfers: Family<Ended, Counter>,
    /// Content bytes that crossed the line.
    pub bytes_received: Family<OfJob, Counter>,
    pub bytes_sent: Family<OfJob, Counter>,
    pub rows_landed: Family<OfJob, Counter>,
    pub files_landed: Family<OfJob, Counter>,
    pub rows_quarantined: Family<OfJob, Counter>,
    pub chunks_resent: Family<OfJob, Counter>,
    pub channels: Counter,
    pub transfers_open: Gauge,
    pub outbox: Gauge,
    pub outbox_age_seconds: Gauge,
    pub certificate_expires: Gauge,
    pub disk_free_bytes: Gauge,
    pub coordinator_connected: Gauge,
    pub policy_stale: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfJob {
    pub job: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Ended {
    pub job: String,
    pub state: String,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("posthouse");
        macro_rules! register {
            ($($name:ident: $type:ty = $metric:literal, $help:literal;)*) => {{
                $(let $name = <$type>::default(); registry.register($metric, $help, $name.clone());)*
                Self { registry: Mutex::new(registry), counted_to: Mutex::default(), $($name),* }
            }};
        }
        register! {
            transfers: Family<Ended, Counter> = "transfers", "Transfers that ended, by job and final state";
            bytes_received: Family<OfJob, Counter> = "received_bytes", "Content bytes received";
            bytes_sent: Family<OfJob, Counter> = "sent_bytes", "Content bytes sent";
            rows_landed: Family<OfJob, Counter> = "landed_rows", "Rows landed";
            files_landed: Family<OfJob, Counter> = "landed_files", "Files landed";
            rows_quarantined: Family<OfJob, Counter> = "quarantined_rows", "Rows put into quarantine";
            chunks_resent: Family<OfJob, Counter> = "resent_chunks", "Chunks that crossed the line more than once";
            channels: Counter = "channels", "Channels that peers opened";
            transfers_open: Gauge = "transfers_open", "Transfers that have not ended";
            outbox: Gauge = "outbox_statements", "Statements that the coordinator has not acknowledged";
            outbox_age_seconds: Gauge = "outbox_age_seconds", "Age of the oldest of them";
            certificate_expires: Gauge = "certificate_expires_timestamp_seconds", "When the certificate expires";
            disk_free_bytes: Gauge = "disk_free_bytes", "Room left in the data folder";
            coordinator_connected: Gauge = "coordinator_connected", "1 while connected to the coordinator";
            policy_stale: Gauge = "policy_stale", "1 while the policy is too old to act on";
        }
    }
}

impl Metrics {
    /// Counts transfers that have ended, each once.
    fn count(&self, ended: &[Transfer]) {
        let mut counted_to = self.counted_to.lock().unwrap_or_else(PoisonError::into_inner);
        for row in ended.iter().filter(|row| row.ended > *counted_to) {
            let of = OfJob { job: row.job.to_string() };
            let counts = &row.counts;
            self.transfers.get_or_create(&Ended { job: of.job.clone(), state: row.state.to_string() }).inc();
            self.chunks_resent.get_or_create(&of).inc_by(row.resent_chunks);
            match row.side {
                Side::Provider => {
                    self.bytes_sent.get_or_create(&of).inc_by(row.bytes_sent);
                }
                Side::Consumer => {
                    self.bytes_received.get_or_create(&of).inc_by(row.bytes_sent);
                    self.rows_landed.get_or_create(&of).inc_by(counts.rows_landed);
                    self.files_landed.get_or_create(&of).inc_by(row.files_sent);
                    self.rows_quarantined.get_or_create(&of).inc_by(counts.rows_quarantined);
                }
            }
        }
        *counted_to = ended.iter().map(|row| row.ended).fold(*counted_to, std::cmp::max);
    }

    /// The text exposition format.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        // Writing into a string fails only when a metric's own encoder does, of which there are none here.
        let _ = prometheus_client::encoding::text::encode(&mut out, &registry);
        out
    }
}

/// Counts what ended since the last time, and sets the gauges to what holds now.
pub async fn measure(context: &Arc<Context>) {
    let metrics = &context.metrics;
    let since =
        *metrics.counted_to.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(context.world.clock.now());
    if let Ok(ended) = context.store.read(move |db| transfers::ended_since(db, since, u32::MAX)).await {
        metrics.count(&ended);
    }
    let waiting = context.store.read(statements::waiting).await.unwrap_or((0, None));
    let now = context.world.clock.now();
    let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    metrics.outbox.set(gauge(waiting.0));
    metrics.outbox_age_seconds.set(waiting.1.map_or(0, |since| now.since_ms(since).max(0) / 1000));
    metrics.transfers_open.set(gauge(context.transfers.list().len() as u64));
    metrics.certificate_expires.set(context.centre.identity().not_after().0 / 1000);
    metrics.disk_free_bytes.set(gauge(context.disk_free().await));
    metrics.coordinator_connected.set(i64::from(context.centre.connected()));
    metrics.policy_stale.set(i64::from(context.authority.staleness() == Staleness::Stale));
}

/// Writes the file every so often until the node drains.
pub async fn run(context: Arc<Context>) {
    let path = context.config().node.data_dir.join(METRICS_FILE);
    loop {
        measure(&context).await;
        let (text, path) = (context.metrics.text(), path.clone());
        let written = context.world.blocking.run(move || write_public(&path, text.as_bytes())).await;
        if let Ok(Err(problem)) = written {
            tracing::debug!(%problem, "The metrics file was not written");
        }
        tokio::select! {
            biased;
            () = context.drain.cancelled() => return,
            () = tokio::time::sleep(WRITE_EVERY) => {}
        }
    }
}

const WRITE_EVERY: Duration = Duration::from_secs(15);
/// The file within the data folder.
pub const METRICS_FILE: &str = "metrics.prom";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_transfer_is_counted_once() {
        use posthouse_protocol::job::{Mode, State, Write};
        let metrics = Metrics::default();
        *metrics.counted_to.lock().unwrap() = Some(Timestamp(1000));
        let ended = |number: u8, at: i64| {
            let id = posthouse_protocol::id::TransferId::from_random([number; 16]);
            let (job, peer, resource) =
                ("scans".parse().unwrap(), "b.example".parse().unwrap(), "b.example/r".parse().unwrap());
            let mut row =
                Transfer::planned(id, Side::Consumer, job, peer, resource, Mode::Full, Write::Upsert, Timestamp(1));
            (row.state, row.ended, row.bytes_sent) = (State::Settled, Some(Timestamp(at)), 10);
            row
        };
        metrics.count(&[ended(1, 900), ended(2, 1100), ended(3, 1200)]);
        metrics.count(&[ended(2, 1100), ended(3, 1200), ended(4, 1300)]);
        let text = metrics.text();
        assert!(text.contains("posthouse_received_bytes_total{job=\"scans\"} 30"), "{text}");
        assert!(text.contains("state=\"settled\"} 3"), "{text}");
    }

    #[test]
    fn counters_carry_the_house_prefix_and_end_in_total() {
        let metrics = Metrics::default();
        metrics.transfers.get_or_create(&Ended { job: "scans".into(), state: "settled".into() }).inc();
        metrics.outbox.set(3);
        let text = metrics.text();
        assert!(text.contains("posthouse_transfers_total{job=\"scans\",state=\"settled\"} 1"), "{text}");
        assert!(text.contains("posthouse_outbox_statements 3"), "{text}");
    }
}
