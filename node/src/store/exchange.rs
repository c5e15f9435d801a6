//! What the rooms of a transfer keep in the node's store: progress of landings, what was landed before,
//! hashes of files, splits in the spool, standing digests. Every call is part of its caller's transaction.
//! Transfers' own rows, statements and the outbox are elsewhere in the store.

mod given;
mod landed;
mod landing;

pub use given::{
    Offered, chunks_hashed, forget_hashed, forget_spool, has_hashed, hashed, landed_position, offered,
    put_chunks_hashed, put_hashed, put_offered, put_spooled, set_handover, set_spool_sealed, spool_buckets, spooled,
};
pub use landed::{
    LandedEntry, LandedFile, count_landed, forget_landed, forget_reached, invited, landed, landed_entries,
    landed_of_size, landed_page, put_invited, put_landed, reached, reached_governed, set_reached,
};
pub use landing::{
    ChunkValues, FIRST_SESSION, LandingEntry, StagedSplit, Whole, adoptable_split, entries_recorded, forget_landing,
    forget_landing_entry, has_checked_rows, has_entries, landing_entries, landing_entry, landing_entry_at,
    landing_offer, landing_staged, names_in_landing, next_session, put_landing_chunks, put_landing_entry,
    put_landing_whole, put_split_staged, set_landing_offer, set_landing_staged, unlisted,
};

use crate::store::transfers::side_text;
use crate::store::{Side, failed};
use minicbor::Decode;
use posthouse_protocol::codec;
use posthouse_protocol::id::{JobId, NodeId, ResourceId, TransferId};
use posthouse_protocol::problem::{Code, Problem};
use rusqlite::{Connection, OptionalExtension, Row, params};

/// A table's digest at its last receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub contract_sha256: [u8; 32],
    pub buckets: Vec<u8>,
    pub transfer: TransferId,
}

pub fn standing(at: &Connection, side: Side, peer: &NodeId, job: &JobId) -> Result<Option<Standing>, Problem> {
    let sql = "SELECT contract_sha256, buckets, transfer FROM standing WHERE side = ?1 AND peer = ?2 AND job = ?3";
    let row = |row: &Row<'_>| Ok((row.get::<_, Vec<u8>>(0)?, row.get(1)?, row.get::<_, String>(2)?));
    let values = params![side_text(side), peer.as_str(), job.as_str()];
    let found = cached(at, sql)?.query_row(values, row).optional().map_err(failed)?;
    let Some((contract, buckets, transfer)) = found else { return Ok(None) };
    let transfer = TransferId::parse(&transfer).map_err(damaged)?;
    Ok(Some(Standing { contract_sha256: fixed(&contract)?, buckets, transfer }))
}

pub fn forget_standing(at: &Connection, side: Side, peer: &NodeId, job: &JobId) -> Result<(), Problem> {
    let sql = "DELETE FROM standing WHERE side = ?1 AND peer = ?2 AND job = ?3";
    run(at, sql, params![side_text(side), peer.as_str(), job.as_str()])
}

pub fn put_standing(
    at: &Connection,
    side: Side,
    peer: &NodeId,
    job: &JobId,
    resource: &ResourceId,
    standing: &Standing,
) -> Result<(), Problem> {
    let sql = "INSERT OR REPLACE INTO standing (side, peer, job, resource, contract_sha256, buckets, transfer)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let key = (side_text(side), peer.as_str(), job.as_str(), resource.as_str());
    let (contract, buckets, transfer) = (standing.contract_sha256, &standing.buckets, standing.transfer.as_str());
    run(at, sql, params![key.0, key.1, key.2, key.3, contract, buckets, transfer])
}

/// The transfer that went on for one that failed.
pub fn successor(at: &Connection, transfer: &TransferId) -> Result<Option<TransferId>, Problem> {
    let sql = "SELECT id FROM transfers WHERE succeeds = ?1 ORDER BY created DESC LIMIT 1";
    let id: Option<String> =
        cached(at, sql)?.query_row([transfer.as_str()], |row| row.get(0)).optional().map_err(failed)?;
    id.map(|id| TransferId::parse(&id).map_err(damaged)).transpose()
}

fn cached<'c>(at: &'c Connection, sql: &str) -> Result<rusqlite::CachedStatement<'c>, Problem> {
    at.prepare_cached(sql).map_err(failed)
}

fn run(at: &Connection, sql: &str, values: impl rusqlite::Params) -> Result<(), Problem> {
    cached(at, sql)?.execute(values).map(|_| ()).map_err(failed)
}

fn one_blob<T: for<'b> Decode<'b, ()>>(
    at: &Connection,
    sql: &str,
    transfer: &TransferId,
) -> Result<Option<T>, Problem> {
    let blob: Option<Option<Vec<u8>>> =
        cached(at, sql)?.query_row([transfer.as_str()], |row| row.get(0)).optional().map_err(failed)?;
    blob.flatten().map(|blob| decode(&blob)).transpose()
}

fn decode<T: for<'b> Decode<'b, ()>>(blob: &[u8]) -> Result<T, Problem> {
    codec::decode(blob, blob.len()).map_err(damaged)
}

fn damaged(error: impl std::fmt::Display) -> Problem {
    Problem::new(Code::StoreDamaged).cause(error)
}

fn json<T: serde::Serialize>(value: &T) -> Result<String, Problem> {
    serde_json::to_string(value).map_err(damaged)
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Problem> {
    <[u8; N]>::try_from(bytes).map_err(|_| damaged(format!("{} bytes where {N} belong", bytes.len())))
}

/// SQLite has signed integers only; every number here is bounded far below.
fn signed(number: u64) -> Result<i64, Problem> {
    i64::try_from(number).map_err(damaged)
}
