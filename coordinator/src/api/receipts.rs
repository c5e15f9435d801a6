//! `/api/v1/receipts`: transfers of which the centre has both statements, and for auditors the evidence itself.

use super::failure::{self, Failure};
use super::paging::{Items, Paging};
use super::transfers::window;
use crate::Centre;
use crate::reconcile::{TransferRow, reopen};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use posthouse_protocol::id::{JobId, NodeId, ReceiptId, ResourceRef, TransferId};
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::receipt::Receipt as Evidence;
use posthouse_protocol::reconciliation::Verdict;
use posthouse_protocol::time::Timestamp;
use serde::Serialize;
use std::sync::Arc;

/// 回执: both parties' statements are in the ledger.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Receipt {
    #[schema(value_type = String)]
    receipt: ReceiptId,
    #[schema(value_type = String)]
    transfer: TransferId,
    #[schema(value_type = String)]
    job: JobId,
    #[schema(value_type = String)]
    resource: ResourceRef,
    #[schema(value_type = String)]
    provider: NodeId,
    #[schema(value_type = String)]
    consumer: NodeId,
    /// `landed` or `partly`
    outcome: Option<String>,
    rows: u64,
    files: u64,
    bytes: u64,
    quarantined: u64,
    refused: u64,
    #[schema(value_type = Option<String>)]
    verdict: Option<Verdict>,
    /// Leaves of the ledger.
    provider_leaf: Option<u64>,
    consumer_leaf: Option<u64>,
    /// When the consumer committed.
    #[schema(value_type = Option<String>, format = DateTime)]
    committed_at: Option<Timestamp>,
    /// When the centre had both statements.
    #[schema(value_type = Option<String>, format = DateTime)]
    receipt_at: Option<Timestamp>,
    #[schema(value_type = String, format = DateTime)]
    as_of: Timestamp,
}

/// Receipts, the latest first
#[utoipa::path(
    get,
    operation_id = "list_receipts",
    path = "/api/v1/receipts",
    params(Paging),
    responses(
        (status = 200, body = Items<Receipt>),
        (status = 400, body = failure::Body),
        (status = 401, body = failure::Body),
        (status = 403, body = failure::Body)
    ),
    security(("bearer" = ["viewer"]))
)]
pub(crate) async fn list(State(centre): State<Arc<Centre>>, paging: Paging) -> Result<Json<Items<Receipt>>, Failure> {
    let mut rows = centre.store.receipts(window(&centre, &paging)?, paging.page()?).await?;
    let next = paging.cut(&mut rows, |row| row.receipt_at.unwrap_or(row.at))?;
    let items = rows.into_iter().filter_map(receipt).collect();
    Ok(Json(Items { items, next, as_of: centre.world.clock.now() }))
}

/// One receipt, by its id or its transfer's
#[utoipa::path(
    get,
    operation_id = "receipt",
    path = "/api/v1/receipts/{id}",
    params(("id" = String, Path, description = "Id of the receipt or of its transfer")),
    responses(
        (status = 200, body = Receipt),
        (status = 401, body = failure::Body),
        (status = 403, body = failure::Body),
        (status = 404, body = failure::Body)
    ),
    security(("bearer" = ["viewer"]))
)]
pub(crate) async fn one(State(centre): State<Arc<Centre>>, Path(id): Path<String>) -> Result<Json<Receipt>, Failure> {
    let row = find(&centre, &id).await?;
    Ok(Json(receipt(row).ok_or_else(|| Problem::new(Code::NoReceipt).with("transfer", &id))?))
}

/// The receipt itself, whole in itself, as `receipt verify` reads it
#[utoipa::path(
    get,
    operation_id = "receipt_cose",
    path = "/api/v1/receipts/{id}/receipt.cose",
    params(("id" = String, Path, description = "Id of the receipt or of its transfer")),
    responses(
        (status = 200, content_type = "application/cbor", body = Vec<u8>),
        (status = 401, body = failure::Body),
        (status = 403, body = failure::Body),
        (status = 404, body = failure::Body)
    ),
    security(("bearer" = ["auditor"]))
)]
pub(crate) async fn evidence(State(centre): State<Arc<Centre>>, Path(id): Path<String>) -> Result<Response, Failure> {
    let row = find(&centre, &id).await?;
    let none = || Problem::new(Code::NoReceipt).with("transfer", &row.transfer);
    let (provider, consumer) = row.provider_leaf.zip(row.consumer_leaf).ok_or_else(none)?;
    let leaf = async |index: u64| -> Result<_, Problem> {
        centre.store.leaves(index, 1).await?.pop().filter(|leaf| leaf.index == index).ok_or_else(none)
    };
    let (provider, consumer) = (leaf(provider).await?, leaf(consumer).await?);
    let proof = centre.ledger.proof(&consumer).await?;
    let provider = reopen(&*centre.store, &provider).await?;
    let consumer = reopen(&*centre.store, &consumer).await?;
    let whole = Evidence::new(&provider, Some(&consumer)).with_proof(proof.inclusion.into(), proof.checkpoint);
    Ok(([(header::CONTENT_TYPE, "application/cbor")], whole.encode()).into_response())
}

async fn find(centre: &Centre, id: &str) -> Result<TransferRow, Problem> {
    let row = match (ReceiptId::parse(id), TransferId::parse(id)) {
        (Ok(receipt), _) => centre.store.transfer_of_receipt(&receipt).await?,
        (_, Ok(transfer)) => centre.store.transfer(&transfer).await?,
        _ => None,
    };
    row.ok_or_else(|| Problem::new(Code::UnknownName).with("kind", "receipt").with("name", id))
}

fn receipt(row: TransferRow) -> Option<Receipt> {
    row.receipt_at?;
    Some(Receipt {
        receipt: row.receipt?,
        transfer: row.transfer,
        job: row.job,
        resource: row.resource,
        provider: row.provider,
        consumer: row.consumer,
        outcome: row.outcome,
        rows: row.rows,
        files: row.files,
        bytes: row.bytes,
        quarantined: row.quarantined,
        refused: row.refused,
        verdict: row.verdict,
        provider_leaf: row.provider_leaf,
        consumer_leaf: row.consumer_leaf,
        committed_at: row.ended_at,
        receipt_at: row.receipt_at,
        as_of: row.as_of,
    })
}
