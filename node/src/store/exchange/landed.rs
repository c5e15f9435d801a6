//! What a job has landed before, how far it has come, and which runs of a peer's job were answered.

use super::landing::whole_of;
use super::{Whole, cached, damaged, decode, fixed, json, landing_offer, run, signed};
use crate::store::failed;
use posthouse_connectors::folder::{FileStat, Kind};
use posthouse_protocol::codec;
use posthouse_protocol::govern::Governed;
use posthouse_protocol::id::{JobId, NodeId, TransferId};
use posthouse_protocol::problem::Problem;
use posthouse_protocol::time::Timestamp;
use posthouse_protocol::watermark::Watermark;
use rusqlite::{Connection, OptionalExtension, Row, params};

/// A file that a job landed.
#[derive(Debug, Clone, PartialEq)]
pub struct LandedFile {
    pub name: Vec<u8>,
    pub kind: Kind,
    pub root: Option<[u8; 32]>,
    pub size: u64,
    pub mtime_ns: i64,
    pub stat: FileStat,
}

/// An entry of a transfer that was landed.
#[derive(Debug, Clone, PartialEq)]
pub struct LandedEntry {
    pub position: u64,
    pub whole: Whole,
    /// As it was remembered last.
    pub file: LandedFile,
}

/// Whole entries of a transfer as they were landed, in the order of the offer, at most `limit` with positions from
/// `from` on.
pub fn landed_entries(
    at: &Connection,
    job: &JobId,
    transfer: &TransferId,
    from: u64,
    limit: u32,
) -> Result<Vec<LandedEntry>, Problem> {
    // A cross join is done from left to right.
    let sql = "SELECT d.name, d.kind, d.root, d.size, d.mtime_ns, d.stat, e.position, e.whole
        FROM landing_entry e CROSS JOIN landed d ON d.job = ?1 AND d.name = e.name
        WHERE e.transfer = ?2 AND e.whole > 0 AND e.position >= ?3 ORDER BY e.position LIMIT ?4";
    let entry = |row: &Row<'_>| {
        let (position, whole) = (row.get::<_, i64>(6)?.unsigned_abs(), whole_of(row.get(7)?));
        Ok(landed_row(row)?.map(|file| LandedEntry { position, whole, file }))
    };
    let mut statement = cached(at, sql)?;
    let values = params![job.as_str(), transfer.as_str(), signed(from)?, limit];
    let rows = statement.query_map(values, entry).map_err(failed)?;
    rows.map(|row| row.map_err(failed)?).collect()
}

pub fn landed(at: &Connection, job: &JobId, name: &[u8]) -> Result<Option<LandedFile>, Problem> {
    let sql = "SELECT name, kind, root, size, mtime_ns, stat FROM landed WHERE job = ?1 AND name = ?2";
    let row = cached(at, sql)?.query_row(params![job.as_str(), name], landed_row).optional().map_err(failed)?;
    row.transpose()
}

pub fn put_landed(at: &Connection, job: &JobId, transfer: &TransferId, file: &LandedFile) -> Result<(), Problem> {
    let sql = "INSERT OR REPLACE INTO landed (job, name, kind, root, size, mtime_ns, stat, transfer)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    let (root, stat) = (file.root.map(Vec::from), json(&file.stat)?);
    let (size, kind) = (signed(file.size)?, json(&file.kind)?);
    run(at, sql, params![job.as_str(), file.name, kind, root, size, file.mtime_ns, stat, transfer.as_str()])
}

/// Files of one length that a job landed, by name.
pub fn landed_of_size(at: &Connection, job: &JobId, size: u64, most: u32) -> Result<Vec<LandedFile>, Problem> {
    let sql = "SELECT name, kind, root, size, mtime_ns, stat FROM landed WHERE job = ?1 AND size = ?2
        ORDER BY name LIMIT ?3";
    let mut statement = cached(at, sql)?;
    let rows = statement.query_map(params![job.as_str(), signed(size)?, most], landed_row).map_err(failed)?;
    let found: Result<Vec<LandedFile>, Problem> = rows.map(|row| row.map_err(failed)?).collect();
    Ok(found?.into_iter().filter(|file| file.kind == Kind::File).collect())
}

/// How much a job has landed.
pub fn count_landed(at: &Connection, job: &JobId) -> Result<u64, Problem> {
    let sql = "SELECT count(*) FROM landed WHERE job = ?1";
    let count: i64 = cached(at, sql)?.query_row([job.as_str()], |row| row.get(0)).map_err(failed)?;
    Ok(count.unsigned_abs())
}

/// What a job has landed, by name, at most `limit` behind this one; and whether a transfer has it whole.
pub fn landed_page(
    at: &Connection,
    job: &JobId,
    transfer: &TransferId,
    after: &[u8],
    limit: u32,
) -> Result<Vec<(LandedFile, bool)>, Problem> {
    let sql = "SELECT name, kind, root, size, mtime_ns, stat, EXISTS (SELECT 1 FROM landing_entry
        WHERE landing_entry.transfer = ?2 AND landing_entry.name = landed.name AND whole > 0)
        FROM landed WHERE job = ?1 AND name > ?3 ORDER BY name LIMIT ?4";
    let mut statement = cached(at, sql)?;
    let values = params![job.as_str(), transfer.as_str(), after, limit];
    let found = statement.query_map(values, |row| Ok((landed_row(row)?, row.get::<_, bool>(6)?)));
    let rows = found.map_err(failed)?;
    rows.map(|row| row.map_err(failed).and_then(|(file, is_whole)| Ok((file?, is_whole)))).collect()
}

pub fn forget_landed(at: &Connection, job: &JobId, name: &[u8]) -> Result<(), Problem> {
    run(at, "DELETE FROM landed WHERE job = ?1 AND name = ?2", params![job.as_str(), name])
}

pub fn reached(at: &Connection, job: &JobId) -> Result<Option<Watermark>, Problem> {
    let sql = "SELECT watermark FROM reached WHERE job = ?1";
    let blob: Option<Vec<u8>> =
        cached(at, sql)?.query_row([job.as_str()], |row| row.get(0)).optional().map_err(failed)?;
    blob.map(|blob| decode(&blob)).transpose()
}

pub fn set_reached(at: &Connection, job: &JobId, transfer: &TransferId, watermark: &Watermark) -> Result<(), Problem> {
    let sql = "INSERT OR REPLACE INTO reached (job, watermark, transfer) VALUES (?1, ?2, ?3)";
    run(at, sql, params![job.as_str(), codec::encode(watermark), transfer.as_str()])
}

/// What was done to the rows of the transfer that has brought an incremental job where it is. None: it is nowhere yet.
pub fn reached_governed(at: &Connection, job: &JobId) -> Result<Option<Vec<Governed>>, Problem> {
    let sql = "SELECT transfer FROM reached WHERE job = ?1";
    let found: Option<String> =
        cached(at, sql)?.query_row([job.as_str()], |row| row.get(0)).optional().map_err(failed)?;
    let Some(id) = found else { return Ok(None) };
    let offer = landing_offer(at, &TransferId::parse(&id).map_err(damaged)?)?;
    Ok(offer.map(|offer| offer.governed.unwrap_or_default()))
}

/// An incremental job begins anew: what it has reached is not what stands.
pub fn forget_reached(at: &Connection, job: &JobId) -> Result<(), Problem> {
    run(at, "DELETE FROM reached WHERE job = ?1", params![job.as_str()])
}

/// The transfer that answered this run of a peer's job.
pub fn invited(at: &Connection, peer: &NodeId, run: &[u8; 16]) -> Result<Option<TransferId>, Problem> {
    let sql = "SELECT transfer FROM invited WHERE peer = ?1 AND run = ?2";
    let id: Option<String> =
        cached(at, sql)?.query_row(params![peer.as_str(), run], |row| row.get(0)).optional().map_err(failed)?;
    id.map(|id| TransferId::parse(&id).map_err(damaged)).transpose()
}

/// Keeps it for a week, which is longer than anybody repeats an invitation.
pub fn put_invited(
    at: &Connection,
    peer: &NodeId,
    run_id: &[u8; 16],
    transfer: &TransferId,
    now: Timestamp,
) -> Result<(), Problem> {
    run(at, "DELETE FROM invited WHERE at < ?1", params![now.plus_ms(-INVITED_KEPT_MS).0])?;
    let sql = "INSERT INTO invited (peer, run, transfer, at) VALUES (?1, ?2, ?3, ?4)";
    run(at, sql, params![peer.as_str(), run_id, transfer.as_str(), now.0])
}

fn landed_row(row: &Row<'_>) -> rusqlite::Result<Result<LandedFile, Problem>> {
    let root: Option<Vec<u8>> = row.get(2)?;
    let stat: String = row.get(5)?;
    let (name, mtime_ns) = (row.get(0)?, row.get(4)?);
    let kind: String = row.get(1)?;
    let size = row.get::<_, i64>(3)?.unsigned_abs();
    let parsed = || -> Result<LandedFile, Problem> {
        let root = root.map(|root| fixed(&root)).transpose()?;
        let kind = serde_json::from_str(&kind).map_err(damaged)?;
        Ok(LandedFile { name, kind, root, size, mtime_ns, stat: serde_json::from_str(&stat).map_err(damaged)? })
    };
    Ok(parsed())
}

const INVITED_KEPT_MS: i64 = 7 * 86_400_000;
