//! What a provider keeps of what it gives: hashes of files and of their chunks, what was offered, splits in the spool.

use super::{cached, damaged, decode, fixed, json, run, signed};
use crate::seal::SealedSplit;
use crate::store::failed;
use posthouse_connectors::folder::FileStat;
use posthouse_protocol::codec;
use posthouse_protocol::digest::RowDigest;
use posthouse_protocol::frame::{Handover, Offer, Request};
use posthouse_protocol::id::{JobId, NodeId, ResourceId, ResourceRef, TransferId};
use posthouse_protocol::limits;
use posthouse_protocol::problem::Problem;
use posthouse_protocol::time::Timestamp;
use posthouse_protocol::watermark::Watermark;
use rusqlite::{Connection, OptionalExtension, Row, params};

/// What a provider was asked and how it answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Offered {
    pub consumer: NodeId,
    pub request: Request,
    pub offer: Offer,
    pub handover: Option<Handover>,
    pub started: Timestamp,
    /// Tables: every split is in the spool.
    pub sealed: bool,
    /// Tables: where the source's snapshot stood, for the transfer that follows this one.
    pub position: Option<String>,
}

pub fn hashed(
    at: &Connection,
    resource: &ResourceId,
    name: &[u8],
    stat: &FileStat,
) -> Result<Option<[u8; 32]>, Problem> {
    let sql = "SELECT root FROM hashed WHERE resource = ?1 AND name = ?2 AND stat = ?3";
    let values = params![resource.as_str(), name, json(stat)?];
    let root: Option<Vec<u8>> = cached(at, sql)?.query_row(values, |row| row.get(0)).optional().map_err(failed)?;
    root.map(|root| fixed(&root)).transpose()
}

/// Whether any root of a resource's files is known.
pub fn has_hashed(at: &Connection, resource: &ResourceId) -> Result<bool, Problem> {
    let sql = "SELECT EXISTS (SELECT 1 FROM hashed WHERE resource = ?1)";
    cached(at, sql)?.query_row([resource.as_str()], |row| row.get(0)).map_err(failed)
}

pub fn put_hashed(
    at: &Connection,
    resource: &ResourceId,
    name: &[u8],
    stat: &FileStat,
    root: &[u8; 32],
) -> Result<(), Problem> {
    if stat.size >= limits::RECALLED_BYTES_MIN {
        // The root says all that its chunks' values were kept for.
        forget_chunks_hashed(at, resource, name)?;
    }
    let sql = "INSERT OR REPLACE INTO hashed (resource, name, stat, root) VALUES (?1, ?2, ?3, ?4)";
    run(at, sql, params![resource.as_str(), name, json(stat)?, root])
}

/// What is kept of a file is not so: it is read anew.
pub fn forget_hashed(at: &Connection, resource: &ResourceId, name: &[u8]) -> Result<(), Problem> {
    forget_chunks_hashed(at, resource, name)?;
    run(at, "DELETE FROM hashed WHERE resource = ?1 AND name = ?2", params![resource.as_str(), name])
}

/// Tells the values of chunks of so many bytes that were found in a file as it is now, before its root was known. What
/// is not as it was written counts for nothing: it is read again.
pub fn chunks_hashed(
    at: &Connection,
    resource: &ResourceId,
    name: &[u8],
    stat: &FileStat,
    chunk_bytes: u32,
    each: &mut dyn FnMut(u32, [u8; 32]),
) -> Result<(), Problem> {
    let sql = "SELECT chunks, sum FROM hashed_chunks
        WHERE resource = ?1 AND name = ?2 AND stat = ?3 AND chunk_bytes = ?4 ORDER BY id";
    let stat = json(stat)?;
    let mut statement = cached(at, sql)?;
    let mut rows = statement.query(params![resource.as_str(), name, stat, chunk_bytes]).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        let chunks: Vec<u8> = row.get(0).map_err(failed)?;
        let sum: Vec<u8> = row.get(1).map_err(failed)?;
        if sum != chunks_sum(resource, name, &stat, chunk_bytes, &chunks) {
            continue;
        }
        for record in chunks.as_chunks::<CHUNK_RECORD>().0 {
            let [a, b, c, d, value @ ..] = *record;
            each(u32::from_be_bytes([a, b, c, d]), value);
        }
    }
    Ok(())
}

/// Adds to them. What was found in the file as it was before is forgotten, and of all files what is the oldest.
pub fn put_chunks_hashed(
    at: &Connection,
    resource: &ResourceId,
    name: &[u8],
    stat: &FileStat,
    chunk_bytes: u32,
    chunks: &[(u32, [u8; 32])],
) -> Result<(), Problem> {
    let stat = json(stat)?;
    let former = "DELETE FROM hashed_chunks
        WHERE resource = ?1 AND name = ?2 AND (stat <> ?3 OR chunk_bytes <> ?4)";
    run(at, former, params![resource.as_str(), name, stat, chunk_bytes])?;
    let mut records = Vec::with_capacity(chunks.len() * CHUNK_RECORD);
    for (chunk, value) in chunks {
        records.extend_from_slice(&chunk.to_be_bytes());
        records.extend_from_slice(value);
    }
    let sum = chunks_sum(resource, name, &stat, chunk_bytes, &records);
    let sql = "INSERT INTO hashed_chunks (resource, name, stat, chunk_bytes, chunks, sum)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    run(at, sql, params![resource.as_str(), name, stat, chunk_bytes, records, sum])?;
    let oldest = at.last_insert_rowid().saturating_sub(CHUNK_ROWS_MAX);
    run(at, "DELETE FROM hashed_chunks WHERE id <= ?1", params![oldest])
}

fn forget_chunks_hashed(at: &Connection, resource: &ResourceId, name: &[u8]) -> Result<(), Problem> {
    run(at, "DELETE FROM hashed_chunks WHERE resource = ?1 AND name = ?2", params![resource.as_str(), name])
}

/// Over all of a row, so that values that a disk has lost or mixed up never stand in for a reading.
fn chunks_sum(resource: &ResourceId, name: &[u8], stat: &str, chunk_bytes: u32, records: &[u8]) -> [u8; 32] {
    let mut sum = blake3::Hasher::new();
    let chunk_bytes = chunk_bytes.to_be_bytes();
    for part in [resource.as_str().as_bytes(), name, stat.as_bytes(), chunk_bytes.as_slice(), records] {
        sum.update(&(part.len() as u64).to_be_bytes()).update(part);
    }
    *sum.finalize().as_bytes()
}

pub fn offered(at: &Connection, transfer: &TransferId) -> Result<Option<Offered>, Problem> {
    let sql = "SELECT consumer, request, offer, handover, started, sealed, position FROM offered WHERE transfer = ?1";
    cached(at, sql)?.query_row([transfer.as_str()], offered_row).optional().map_err(failed)?.transpose()
}

pub fn put_offered(at: &Connection, transfer: &TransferId, offered: &Offered) -> Result<(), Problem> {
    let sql = "INSERT OR REPLACE INTO offered (transfer, consumer, request, offer, handover, started, sealed, position)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    let (request, offer) = (codec::encode(&offered.request), codec::encode(&offered.offer));
    let handover = offered.handover.as_ref().map(codec::encode);
    let (consumer, started, sealed) = (offered.consumer.as_str(), offered.started.0, offered.sealed);
    let position = &offered.position;
    run(at, sql, params![transfer.as_str(), consumer, request, offer, handover, started, sealed, position])
}

/// Where the snapshot stood whose rows the consumer has landed and whose mark it has reached: of several with that
/// mark the newest one's, since a quiet table's rows came with each. What was handed over and never receipted moves
/// nothing. None where no such transfer is known here, or where its source had no position.
pub fn landed_position(
    at: &Connection,
    consumer: &NodeId,
    job: &JobId,
    resource: &ResourceRef,
    reached: &Watermark,
) -> Result<Option<String>, Problem> {
    // A run that found no mark leaves its consumer at the one it began from.
    let sql = "SELECT o.position FROM transfers t JOIN offered o ON o.transfer = t.id
        WHERE t.job = ?1 AND t.side = 'provider' AND t.peer = ?2 AND t.provider = ?3 AND t.resource = ?4
        AND t.receipt IS NOT NULL AND coalesce(t.watermark_to, t.watermark_from) = ?5
        ORDER BY t.created DESC, t.id DESC LIMIT 1";
    let (node, resource) = (resource.node.as_str(), resource.resource.as_str());
    let values = params![job.as_str(), consumer.as_str(), node, resource, json(reached)?];
    cached(at, sql)?.query_row(values, |row| row.get(0)).optional().map_err(failed).map(Option::flatten)
}

pub fn set_handover(at: &Connection, transfer: &TransferId, handover: &Handover) -> Result<(), Problem> {
    run(at, "UPDATE offered SET handover = ?2 WHERE transfer = ?1", params![transfer.as_str(), codec::encode(handover)])
}

/// Every split is in the spool; `buckets` is the digest of all of them.
pub fn set_spool_sealed(at: &Connection, transfer: &TransferId, buckets: &[u8]) -> Result<(), Problem> {
    let sql = "UPDATE offered SET sealed = 1, buckets = ?2 WHERE transfer = ?1";
    run(at, sql, params![transfer.as_str(), buckets])
}

pub fn spool_buckets(at: &Connection, transfer: &TransferId) -> Result<Option<Vec<u8>>, Problem> {
    let sql = "SELECT buckets FROM offered WHERE transfer = ?1";
    let found = cached(at, sql)?.query_row([transfer.as_str()], |row| row.get(0)).optional().map_err(failed)?;
    Ok(found.flatten())
}

pub fn spooled(at: &Connection, transfer: &TransferId) -> Result<Vec<SealedSplit>, Problem> {
    let sql = "SELECT position, name, root, size, counts, digest_sum, digest_count, quality FROM spooled
        WHERE transfer = ?1 ORDER BY position";
    let mut statement = cached(at, sql)?;
    let mut rows = statement.query([transfer.as_str()]).map_err(failed)?;
    let mut splits = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        let column = |at: usize| row.get::<_, Vec<u8>>(at).map_err(failed);
        let number = |at: usize| row.get::<_, i64>(at).map_err(failed).map(|n| n.unsigned_abs());
        splits.push(SealedSplit {
            position: number(0)?,
            name: row.get(1).map_err(failed)?,
            root: fixed(&column(2)?)?,
            size: number(3)?,
            counts: decode(&column(4)?)?,
            digest: RowDigest { sum: fixed(&column(5)?)?, count: number(6)? },
            quality: row.get::<_, Option<Vec<u8>>>(7).map_err(failed)?.map(|blob| decode(&blob)).transpose()?,
        });
    }
    Ok(splits)
}

pub fn put_spooled(at: &Connection, transfer: &TransferId, split: &SealedSplit) -> Result<(), Problem> {
    let sql = "INSERT INTO spooled (transfer, position, name, root, size, counts, digest_sum, digest_count, quality)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    let (position, size, count) = (signed(split.position)?, signed(split.size)?, signed(split.digest.count)?);
    let (id, counts, quality) =
        (transfer.as_str(), codec::encode(&split.counts), split.quality.as_ref().map(codec::encode));
    run(at, sql, params![id, position, split.name, split.root, size, counts, split.digest.sum, count, quality])
}

pub fn forget_spool(at: &Connection, transfer: &TransferId) -> Result<(), Problem> {
    run(at, "DELETE FROM spooled WHERE transfer = ?1", params![transfer.as_str()])
}

fn offered_row(row: &Row<'_>) -> rusqlite::Result<Result<Offered, Problem>> {
    let consumer: String = row.get(0)?;
    let (request, offer): (Vec<u8>, Vec<u8>) = (row.get(1)?, row.get(2)?);
    let handover: Option<Vec<u8>> = row.get(3)?;
    let (started, sealed, position) = (Timestamp(row.get(4)?), row.get(5)?, row.get(6)?);
    let parsed = || -> Result<Offered, Problem> {
        let consumer = NodeId::parse(&consumer).map_err(damaged)?;
        let handover = handover.map(|blob| decode(&blob)).transpose()?;
        let (request, offer) = (decode(&request)?, decode(&offer)?);
        Ok(Offered { consumer, request, offer, handover, started, sealed, position })
    };
    Ok(parsed())
}

/// A chunk's number and its value.
const CHUNK_RECORD: usize = 36;
/// Of 256 MiB of content each: a terabyte that was read and whose files have no root yet, in 40 MiB at most.
const CHUNK_ROWS_MAX: i64 = 4_096;
