//! `/metrics`: figures for Prometheus, gathered when asked.

use super::failure::{self, Failure};
use crate::Centre;
use crate::admin::NodeState;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use posthouse_protocol::problem::{Code, Problem};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;
use std::sync::Arc;

/// Figures of the coordinator in OpenMetrics text
#[utoipa::path(
    get,
    path = "/metrics",
    responses((status = 200, body = String), (status = 401, body = failure::Body), (status = 403, body = failure::Body)),
    security(("bearer" = ["viewer"]))
)]
pub(crate) async fn metrics(State(centre): State<Arc<Centre>>) -> Result<Response, Failure> {
    let status = centre.status().await?;
    let mut registry = <Registry>::with_prefix("posthouse");
    let nodes = Family::<[(&str, &str); 1], Gauge>::default();
    for (state, count) in [
        (NodeState::Up, status.nodes_up),
        (NodeState::Stale, status.nodes_stale),
        (NodeState::Revoked, status.nodes_revoked),
    ] {
        nodes.get_or_create(&[("state", state.as_str())]).set(whole(count));
    }
    registry.register("nodes", "Nodes by state", nodes);
    let today = Family::<[(&str, &str); 1], Gauge>::default();
    for (verdict, count) in [
        ("matched", status.today.matched),
        ("mismatched", status.today.mismatched),
        ("one_sided", status.today.one_sided),
        ("pending", status.today.pending),
        ("overdue", status.today.overdue),
        ("ungranted", status.today.ungranted),
    ] {
        today.get_or_create(&[("verdict", verdict)]).set(whole(count));
    }
    registry.register("transfers_today", "Transfers of today by verdict", today);
    registry.register("ledger_leaves", "Statements in the ledger", ConstGauge::new(whole(status.ledger_size)));
    registry.register("alarms_open", "Open alarms", ConstGauge::new(whole(status.alarms)));
    registry.register(
        "node_lag_seconds_max",
        "Age of the oldest statement that waits at any node",
        ConstGauge::new(whole(centre.node_rows().await?.iter().filter_map(|node| node.lag_seconds).max().unwrap_or(0))),
    );
    registry.register(
        "heartbeats",
        "Heartbeats answered since the start",
        ConstCounter::new(centre.counted.heartbeats_total()),
    );
    registry.register(
        "statements",
        "Statements answered with a proof since the start",
        ConstCounter::new(centre.counted.statements_total()),
    );
    registry.register(
        "handshakes_refused",
        "Handshakes of nodes that were refused or came to nothing since the start",
        ConstCounter::new(centre.endpoint.refused()),
    );
    let mut text = String::new();
    encode(&mut text, &registry).map_err(|e| Problem::new(Code::InsideFailed).cause(e))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
