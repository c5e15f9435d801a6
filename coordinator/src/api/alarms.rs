//! `/api/v1/alarms`: what somebody should look at, open ones first seen last.

use super::failure::{self, Failure};
use crate::{Alarm, Centre};
use axum::Json;
use axum::extract::State;
use posthouse_protocol::time::Timestamp;
use serde::Serialize;
use std::sync::Arc;

#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Alarms {
    items: Vec<Alarm>,
    #[schema(value_type = String, format = DateTime)]
    as_of: Timestamp,
}

/// Open alarms, the latest first
#[utoipa::path(
    get,
    operation_id = "list_alarms",
    path = "/api/v1/alarms",
    responses((status = 200, body = Alarms), (status = 401, body = failure::Body), (status = 403, body = failure::Body)),
    security(("bearer" = ["viewer"]))
)]
pub(crate) async fn list(State(centre): State<Arc<Centre>>) -> Result<Json<Alarms>, Failure> {
    Ok(Json(Alarms { items: centre.store.alarms(true).await?, as_of: centre.world.clock.now() }))
}
