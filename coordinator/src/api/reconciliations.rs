//! `/api/v1/reconciliations`: the balance of a day and what does not balance.

use super::failure::{self, Failure};
use super::paging::Paging;
use crate::Centre;
use crate::admin::DayBalance;
use axum::Json;
use axum::extract::State;
use std::sync::Arc;

/// The three-party balance of a day: today's when none is named
#[utoipa::path(
    get,
    operation_id = "reconciliation",
    path = "/api/v1/reconciliations",
    params(("day" = Option<String>, Query, description = "A day in the coordinator's time zone, such as 2026-11-22")),
    responses(
        (status = 200, body = DayBalance),
        (status = 400, body = failure::Body),
        (status = 401, body = failure::Body),
        (status = 403, body = failure::Body)
    ),
    security(("bearer" = ["viewer"]))
)]
pub(crate) async fn day(State(centre): State<Arc<Centre>>, paging: Paging) -> Result<Json<DayBalance>, Failure> {
    Ok(Json(centre.balance_of(paging.day.as_deref(), false).await?))
}
