//! `/api/v1/transfers`: what moved, by whom, with the verdict as of now.

use super::failure::{self, Failure};
use super::paging::{Items, Paging};
use crate::Centre;
use crate::reconcile::{Day, TransferRow};
use crate::store::records::Window;
use axum::Json;
use axum::extract::{Path, State};
use posthouse_protocol::id::TransferId;
use posthouse_protocol::problem::{Code, Problem};
use std::sync::Arc;

/// Transfers, the latest first
#[utoipa::path(
    get,
    operation_id = "list_transfers",
    path = "/api/v1/transfers",
    params(Paging),
    responses(
        (status = 200, body = Items<TransferRow>),
        (status = 400, body = failure::Body),
        (status = 401, body = failure::Body),
        (status = 403, body = failure::Body)
    ),
    security(("bearer" = ["viewer"]))
)]
pub(crate) async fn list(
    State(centre): State<Arc<Centre>>,
    paging: Paging,
) -> Result<Json<Items<TransferRow>>, Failure> {
    let mut rows = centre.store.transfers(window(&centre, &paging)?, paging.page()?).await?;
    let next = paging.cut(&mut rows, |row| row.at)?;
    let mut items = Vec::with_capacity(rows.len());
    for row in rows {
        items.push(judged(&centre, row).await?);
    }
    Ok(Json(Items { items, next, as_of: centre.world.clock.now() }))
}

/// One transfer
#[utoipa::path(
    get,
    operation_id = "transfer",
    path = "/api/v1/transfers/{id}",
    params(("id" = String, Path, description = "Id of the transfer")),
    responses(
        (status = 200, body = TransferRow),
        (status = 401, body = failure::Body),
        (status = 403, body = failure::Body),
        (status = 404, body = failure::Body)
    ),
    security(("bearer" = ["viewer"]))
)]
pub(crate) async fn one(
    State(centre): State<Arc<Centre>>,
    Path(id): Path<String>,
) -> Result<Json<TransferRow>, Failure> {
    let absent = || Problem::new(Code::UnknownName).with("kind", "transfer").with("name", &id);
    let parsed = TransferId::parse(&id).map_err(|_| absent())?;
    let row = centre.store.transfer(&parsed).await?.ok_or_else(absent)?;
    Ok(Json(judged(&centre, row).await?))
}

/// The row with its verdict as of now.
async fn judged(centre: &Centre, mut row: TransferRow) -> Result<TransferRow, Problem> {
    let now = centre.world.clock.now();
    (row.verdict, row.findings) = row.verdict_now(&*centre.store, now, centre.config.overdue_after.as_ms()).await?;
    Ok(row)
}

pub(super) fn window(centre: &Centre, paging: &Paging) -> Result<Window, Problem> {
    match paging.day.as_deref() {
        None => Ok(Window::ALL),
        Some("today") => Ok(Day::today(centre.world.clock.now(), &centre.zone)?.window),
        Some(day) => Ok(Day::parse(day, &centre.zone)?.window),
    }
}
