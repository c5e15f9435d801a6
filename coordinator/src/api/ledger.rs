//! `/api/v1/ledger`: the log's head for everybody with a token; tiles, entries and proofs (C2SP `tlog-tiles`)
//! for auditors, who can then check the whole log with other people's tools.

use super::failure::{self, Failure};
use super::paging::usage;
use crate::Centre;
use crate::ledger::TILE_WIDTH;
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use posthouse_protocol::id::TransferId;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Head {
    /// `<coordinator name>/log1`
    origin: String,
    size: u64,
    /// C2SP signed checkpoint.
    checkpoint: String,
    /// Signed-note verifier key of the ledger.
    vkey: String,
    #[schema(value_type = String, format = DateTime)]
    as_of: Timestamp,
}

/// The ledger's signed head and its key
#[utoipa::path(
    get,
    operation_id = "ledger",
    path = "/api/v1/ledger",
    responses((status = 200, body = Head), (status = 401, body = failure::Body), (status = 403, body = failure::Body)),
    security(("bearer" = ["viewer"]))
)]
pub(crate) async fn head(State(centre): State<Arc<Centre>>) -> Result<Json<Head>, Failure> {
    let as_of = centre.world.clock.now();
    let (size, checkpoint) = centre.ledger.checkpoint().await?;
    Ok(Json(Head {
        origin: centre.config.ledger_origin(),
        size,
        checkpoint,
        vkey: centre.keys.ledger_vkey.clone(),
        as_of,
    }))
}

/// The signed checkpoint as text
#[utoipa::path(
    get,
    operation_id = "ledger_checkpoint",
    path = "/api/v1/ledger/checkpoint",
    responses((status = 200, body = String), (status = 401, body = failure::Body), (status = 403, body = failure::Body)),
    security(("bearer" = ["viewer"]))
)]
pub(crate) async fn checkpoint(State(centre): State<Arc<Centre>>) -> Result<Response, Failure> {
    let (_, checkpoint) = centre.ledger.checkpoint().await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], checkpoint).into_response())
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Sizes {
    /// Size of the earlier tree.
    from: u64,
    /// Size of the later tree; the present one when absent.
    to: Option<u64>,
}

#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Consistency {
    from: u64,
    to: u64,
    /// RFC 6962 hashes in base64.
    proof: Vec<String>,
}

/// Proof that one tree is the beginning of another
#[utoipa::path(
    get,
    operation_id = "ledger_consistency",
    path = "/api/v1/ledger/consistency",
    params(Sizes),
    responses(
        (status = 200, body = Consistency),
        (status = 400, body = failure::Body),
        (status = 401, body = failure::Body),
        (status = 403, body = failure::Body)
    ),
    security(("bearer" = ["viewer"]))
)]
pub(crate) async fn consistency(
    State(centre): State<Arc<Centre>>,
    sizes: Result<Query<Sizes>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Consistency>, Failure> {
    let Query(sizes) = sizes.map_err(|e| usage(e.body_text()))?;
    let size = centre.store.ledger_size().await?;
    let to = sizes.to.unwrap_or(size);
    if sizes.from > to || to > size {
        return Err(usage(format!("`from` and `to` ascend up to the log's size, {size}")).into());
    }
    let proof = centre.ledger.consistency(sizes.from, to).await?;
    Ok(Json(Consistency { from: sizes.from, to, proof: proof.iter().map(|hash| STANDARD.encode(hash)).collect() }))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct From {
    /// Index of the first leaf; 0 when absent.
    from: Option<u64>,
    /// Leaves of one page, 1 to 256; 50 when absent.
    limit: Option<u64>,
}

/// One leaf of the log.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Entry {
    index: u64,
    sha256: String,
    issuer: String,
    /// `provider`, `consumer`, `refusal`, `failure`, `reconciliation` or `act`
    kind: String,
    #[schema(value_type = Option<String>)]
    transfer: Option<TransferId>,
    #[schema(value_type = String, format = DateTime)]
    taken_at: Timestamp,
    /// COSE_Sign1 in base64.
    statement: String,
}

#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Entries {
    items: Vec<Entry>,
    /// `from` of the next page; null at the end of the log.
    next: Option<u64>,
    #[schema(value_type = String, format = DateTime)]
    as_of: Timestamp,
}

/// Statements in the order of the log
#[utoipa::path(
    get,
    operation_id = "ledger_entries",
    path = "/api/v1/ledger/entries",
    params(From),
    responses(
        (status = 200, body = Entries),
        (status = 400, body = failure::Body),
        (status = 401, body = failure::Body),
        (status = 403, body = failure::Body)
    ),
    security(("bearer" = ["auditor"]))
)]
pub(crate) async fn entries(
    State(centre): State<Arc<Centre>>,
    from: Result<Query<From>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Entries>, Failure> {
    let Query(from) = from.map_err(|e| usage(e.body_text()))?;
    let limit = from.limit.unwrap_or(50);
    if !(1..=TILE_WIDTH).contains(&limit) {
        return Err(usage("`limit` is from 1 to 256").into());
    }
    let as_of = centre.world.clock.now();
    let leaves = centre.store.leaves(from.from.unwrap_or(0), limit).await?;
    let size = centre.store.ledger_size().await?;
    let next = leaves.last().map(|leaf| leaf.index + 1).filter(|next| *next < size);
    let items = leaves
        .into_iter()
        .map(|leaf| Entry {
            index: leaf.index,
            sha256: hex::encode(leaf.sha256),
            issuer: leaf.issuer,
            kind: leaf.kind,
            transfer: leaf.transfer,
            taken_at: leaf.taken_at,
            statement: STANDARD.encode(&leaf.bytes),
        })
        .collect();
    Ok(Json(Entries { items, next, as_of }))
}

/// Hashes and entries of the log as C2SP tiles: `L/N[.p/W]` and `entries/N[.p/W]`
#[utoipa::path(
    get,
    operation_id = "ledger_tile",
    path = "/api/v1/ledger/tile/{path}",
    params(("path" = String, Path, description = "`0/x001/234`, `0/000.p/5`, `entries/000` …")),
    responses(
        (status = 200, content_type = "application/octet-stream", body = Vec<u8>),
        (status = 401, body = failure::Body),
        (status = 403, body = failure::Body),
        (status = 404, body = failure::Body)
    ),
    security(("bearer" = ["auditor"]))
)]
pub(crate) async fn tile(State(centre): State<Arc<Centre>>, Path(path): Path<String>) -> Result<Response, Failure> {
    let absent = || Problem::new(Code::UnknownName).with("kind", "tile").with("name", &path);
    let tile = Tile::parse(&path).ok_or_else(absent)?;
    let size = centre.store.ledger_size().await?;
    if tile.end().is_none_or(|end| end > size) {
        return Err(absent().into());
    }
    let bytes = match tile.level {
        Some(level) => centre.ledger.tile(level, tile.index, tile.width).await?.concat(),
        None => {
            let leaves = centre.store.leaves(tile.index * TILE_WIDTH, tile.width).await?;
            let mut bytes = Vec::new();
            for leaf in leaves {
                let length = u16::try_from(leaf.bytes.len()).map_err(|e| Problem::new(Code::InsideFailed).cause(e))?;
                bytes.extend_from_slice(&length.to_be_bytes());
                bytes.extend_from_slice(&leaf.bytes);
            }
            bytes
        }
    };
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response())
}

/// A tile as its path names it.
#[derive(Debug, PartialEq, Eq)]
struct Tile {
    /// None = entries.
    level: Option<u8>,
    index: u64,
    width: u64,
}

impl Tile {
    fn parse(path: &str) -> Option<Self> {
        let (level, rest) = path.split_once('/')?;
        let level = match level {
            "entries" => None,
            digits => Some(number(digits).filter(|level| *level <= 7).and_then(|level| u8::try_from(level).ok())?),
        };
        let (index, width) = match rest.split_once(".p/") {
            Some((index, width)) => (index, number(width).filter(|width| (1..TILE_WIDTH).contains(width))?),
            None => (rest, TILE_WIDTH),
        };
        let mut value = 0u64;
        let mut parts = index.split('/').peekable();
        while let Some(part) = parts.next() {
            // All groups but the last are marked with `x`.
            let digits = if parts.peek().is_some() { part.strip_prefix('x')? } else { part };
            if digits.len() != 3 || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            value = value.checked_mul(1000)?.checked_add(digits.parse().ok()?)?;
        }
        let tile = Self { level, index: value, width };
        // Leading groups of zeroes would be a second name of the same tile.
        (index == name(value)).then_some(tile)
    }

    /// Leaves that must be there for all of it to be.
    fn end(&self) -> Option<u64> {
        let nodes = self.index.checked_mul(TILE_WIDTH)?.checked_add(self.width)?;
        nodes.checked_mul(1u64.checked_shl(8 * u32::from(self.level.unwrap_or(0)))?)
    }
}

/// `1234067` → `x001/x234/067`
fn name(index: u64) -> String {
    let mut groups = vec![format!("{:03}", index % 1000)];
    let mut rest = index / 1000;
    while rest > 0 {
        groups.push(format!("x{:03}", rest % 1000));
        rest /= 1000;
    }
    groups.reverse();
    groups.join("/")
}

/// Decimal without sign or leading zeroes.
fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|value: &u64| value.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tile_has_one_name() {
        assert_eq!(Tile::parse("0/000.p/2"), Some(Tile { level: Some(0), index: 0, width: 2 }));
        assert_eq!(Tile::parse("1/x001/x234/067"), Some(Tile { level: Some(1), index: 1_234_067, width: 256 }));
        assert_eq!(Tile::parse("entries/007"), Some(Tile { level: None, index: 7, width: 256 }));
        for bad in ["", "0", "0/0", "0/00a", "00/000", "8/000", "0/x000/001", "0/001/002", "0/000.p/0", "0/000.p/256"] {
            assert_eq!(Tile::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_tile_of_a_level_needs_all_leaves_below_it() {
        assert_eq!(Tile::parse("1/000.p/2").unwrap().end(), Some(512));
        assert_eq!(Tile::parse("0/001").unwrap().end(), Some(512));
    }
}
