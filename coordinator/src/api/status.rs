//! `/api/v1/status`: the whole at a glance; `/healthz`, `/readyz`: for machines that watch the process.

use super::failure::{self, Failure};
use crate::Centre;
use crate::admin::Status;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use std::sync::Arc;

/// Nodes, ledger and today's balance at a glance
#[utoipa::path(
    get,
    path = "/api/v1/status",
    responses((status = 200, body = Status), (status = 401, body = failure::Body), (status = 403, body = failure::Body)),
    security(("bearer" = ["viewer"]))
)]
pub(crate) async fn status(State(centre): State<Arc<Centre>>) -> Result<Json<Status>, Failure> {
    Ok(Json(centre.status().await?))
}

/// The process runs
#[utoipa::path(get, path = "/healthz", responses((status = 200, body = String)))]
pub(crate) async fn healthy() -> &'static str {
    "ok\n"
}

/// The store can be written and nodes are listened for
#[utoipa::path(get, path = "/readyz", responses((status = 200, body = String), (status = 503, body = String)))]
pub(crate) async fn ready(State(centre): State<Arc<Centre>>) -> (StatusCode, &'static str) {
    let reason = if centre.stopping.is_cancelled() {
        "stopping\n"
    } else if centre.store.probe().await.is_err() {
        "the store does not answer\n"
    } else {
        return (StatusCode::OK, "ready\n");
    };
    (StatusCode::SERVICE_UNAVAILABLE, reason)
}
