//! `/api/v1/nodes`: who belongs, and what each last reported.

use super::failure::{self, Failure};
use super::paging::{Items, Paging, usage};
use crate::Centre;
use crate::admin::NodeRow;
use axum::Json;
use axum::extract::{Path, State};
use posthouse_protocol::id::NodeId;
use posthouse_protocol::problem::{Code, Problem};
use std::sync::Arc;

/// All nodes by name
#[utoipa::path(
    get,
    operation_id = "list_nodes",
    path = "/api/v1/nodes",
    params(
        ("limit" = Option<u64>, Query, description = "Items of one page, 1 to 500; 50 when absent"),
        ("cursor" = Option<String>, Query, description = "`next` of the page before"),
    ),
    responses(
        (status = 200, body = Items<NodeRow>),
        (status = 400, body = failure::Body),
        (status = 401, body = failure::Body),
        (status = 403, body = failure::Body)
    ),
    security(("bearer" = ["viewer"]))
)]
pub(crate) async fn list(State(centre): State<Arc<Centre>>, paging: Paging) -> Result<Json<Items<NodeRow>>, Failure> {
    let limit = usize::try_from(paging.limit()?).unwrap_or(usize::MAX);
    let after = match &paging.cursor {
        Some(cursor) => Some(NodeId::parse(cursor).map_err(|_| usage("`cursor` is not one that was given here"))?),
        None => None,
    };
    let rows = centre.node_rows().await?;
    let mut items: Vec<NodeRow> =
        rows.into_iter().filter(|row| after.as_ref().is_none_or(|after| row.name > *after)).take(limit + 1).collect();
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more).map(|row| row.name.to_string());
    Ok(Json(Items { items, next, as_of: centre.world.clock.now() }))
}

/// One node
#[utoipa::path(
    get,
    operation_id = "node",
    path = "/api/v1/nodes/{name}",
    params(("name" = String, Path, description = "Name of the node")),
    responses(
        (status = 200, body = NodeRow),
        (status = 401, body = failure::Body),
        (status = 403, body = failure::Body),
        (status = 404, body = failure::Body)
    ),
    security(("bearer" = ["viewer"]))
)]
pub(crate) async fn one(State(centre): State<Arc<Centre>>, Path(name): Path<String>) -> Result<Json<NodeRow>, Failure> {
    let found = centre.node_rows().await?.into_iter().find(|row| row.name.as_str() == name);
    Ok(Json(found.ok_or_else(|| Problem::new(Code::UnknownName).with("kind", "node").with("name", &name))?))
}
