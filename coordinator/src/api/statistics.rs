//! `/api/v1/statistics`: counts, bytes and shares of a day or a month.

use super::failure::{self, Failure};
use super::paging::Paging;
use crate::Centre;
use crate::admin::Statistics;
use axum::Json;
use axum::extract::State;
use std::sync::Arc;

/// Figures of a day or a month: today's when none is named
#[utoipa::path(
    get,
    path = "/api/v1/statistics",
    params(("day" = Option<String>, Query, description = "A day such as 2026-11-22 or a month such as 2026-11")),
    responses(
        (status = 200, body = Statistics),
        (status = 400, body = failure::Body),
        (status = 401, body = failure::Body),
        (status = 403, body = failure::Body)
    ),
    security(("bearer" = ["viewer"]))
)]
pub(crate) async fn statistics(State(centre): State<Arc<Centre>>, paging: Paging) -> Result<Json<Statistics>, Failure> {
    Ok(Json(centre.statistics(paging.day.as_deref()).await?))
}
