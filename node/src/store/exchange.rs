//! What the rooms of a transfer keep in the node's store: progress of landings, what was landed before,
//! hashes of files, splits in the spool, standing digests. Every call is part of its caller's transaction.
//! Transfers' own rows, statements and the outbox are elsewhere in the store.

use crate::seal::SealedSplit;
use crate::store::transfers::side_text;
use crate::store::{Side, failed};
use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};
use posthouse_connectors::folder::{FileStat, Kind};
use posthouse_protocol::codec;
use posthouse_protocol::digest::RowDigest;
use posthouse_protocol::frame::{Handover, Offer, Request};
use posthouse_protocol::govern::{Governed, Quality};
use posthouse_protocol::id::{JobId, NodeId, ResourceId, ResourceRef, TransferId};
use posthouse_protocol::manifest::Entry;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::time::Timestamp;
use posthouse_protocol::watermark::Watermark;
use rusqlite::{Connection, OptionalExtension, Row, params};

/// An entry of a landing that is durable, wholly or in part.
#[derive(Debug, Clone, PartialEq)]
pub struct LandingEntry {
    pub id: i64,
    pub entry: Entry,
    pub whole: Whole,
    /// Set for a split once it is staged in the destination.
    pub staged: Option<StagedSplit>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whole {
    /// Some of its chunks.
    No,
    /// In its temporary file.
    Part,
    /// At its place since before this transfer.
    Present,
    /// In the file of another entry, whose second name it is.
    Linked,
}

/// What staging one split came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StagedSplit {
    pub landed: u64,
    pub quarantined: u64,
    pub digest: RowDigest,
    /// What the job's rules found in it. None: it has none.
    pub quality: Option<Quality>,
}

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

/// Chunks of one entry by their number, each with its value.
pub type ChunkValues = Vec<(u32, [u8; 32])>;

/// A table's digest at its last receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub contract_sha256: [u8; 32],
    pub buckets: Vec<u8>,
    pub transfer: TransferId,
}

// Consumer.

pub fn landing_offer(at: &Connection, transfer: &TransferId) -> Result<Option<Offer>, Problem> {
    one_blob(at, "SELECT offer FROM landing WHERE transfer = ?1", transfer)
}

pub fn set_landing_offer(at: &Connection, transfer: &TransferId, offer: &Offer) -> Result<(), Problem> {
    let sql = "INSERT INTO landing (transfer, offer) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET offer = excluded.offer";
    run(at, sql, params![transfer.as_str(), codec::encode(offer)])
}

pub fn landing_staged<T: for<'b> Decode<'b, ()>>(at: &Connection, transfer: &TransferId) -> Result<Option<T>, Problem> {
    one_blob(at, "SELECT staged FROM landing WHERE transfer = ?1", transfer)
}

pub fn set_landing_staged<T: Encode<()>>(at: &Connection, transfer: &TransferId, staged: &T) -> Result<(), Problem> {
    run(at, "UPDATE landing SET staged = ?2 WHERE transfer = ?1", params![transfer.as_str(), codec::encode(staged)])
}

/// The row of one entry, and the values of its durable chunks where it is not whole.
pub fn landing_entry(
    at: &Connection,
    transfer: &TransferId,
    name: &[u8],
) -> Result<Option<(LandingEntry, ChunkValues)>, Problem> {
    let sql = format!("SELECT {ENTRY} FROM landing_entry WHERE transfer = ?1 AND name = ?2");
    let row = cached(at, &sql)?.query_row(params![transfer.as_str(), name], entry_row).optional().map_err(failed)?;
    let Some(found) = row.transpose()? else { return Ok(None) };
    let mut chunks = Vec::new();
    if found.whole == Whole::No {
        let mut statement = cached(at, "SELECT first, hashes FROM landing_chunks WHERE entry = ?1 ORDER BY first")?;
        let mut rows = statement.query([found.id]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let first: u32 = row.get(0).map_err(failed)?;
            let hashes: Vec<u8> = row.get(1).map_err(failed)?;
            let values = hashes.as_chunks::<32>().0;
            chunks.extend(values.iter().enumerate().map(|(at, value)| (first.saturating_add(at as u32), *value)));
        }
    }
    Ok(Some((found, chunks)))
}

/// Writes an entry's row: what stands for the same name is replaced, with its chunks.
/// `session` marks it as part of the listing that is being taken, in which a name has one place.
pub fn put_landing_entry(
    at: &Connection,
    transfer: &TransferId,
    entry: &Entry,
    whole: Whole,
    session: i64,
) -> Result<i64, Problem> {
    let sql =
        "INSERT INTO landing_entry (transfer, name, position, entry, whole, session) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
        ON CONFLICT (transfer, name) DO UPDATE SET position = excluded.position, entry = excluded.entry,
        whole = excluded.whole, session = excluded.session
        WHERE session <> excluded.session OR position = excluded.position RETURNING id";
    let whole = whole_number(whole);
    let values = params![transfer.as_str(), entry.name, signed(entry.index)?, codec::encode(entry), whole, session];
    let id: Option<i64> = cached(at, sql)?.query_row(values, |row| row.get(0)).optional().map_err(failed)?;
    let id = id.ok_or_else(|| listed_twice(&entry.name))?;
    if whole != 0 {
        run(at, "DELETE FROM landing_chunks WHERE entry = ?1", params![id])?;
    }
    Ok(id)
}

/// The same of an entry that is whole. Most often nothing stands for its name, so that it has no chunks to be replaced.
pub fn put_landing_whole(
    at: &Connection,
    transfer: &TransferId,
    entry: &Entry,
    whole: Whole,
    session: i64,
) -> Result<(), Problem> {
    let sql = "INSERT INTO landing_entry (transfer, name, position, entry, whole, session)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING";
    let (position, number) = (signed(entry.index)?, whole_number(whole));
    let values = params![transfer.as_str(), entry.name, position, codec::encode(entry), number, session];
    if cached(at, sql)?.execute(values).map_err(failed)? > 0 {
        return Ok(());
    }
    put_landing_entry(at, transfer, entry, whole, session).map(|_| ())
}

fn listed_twice(name: &[u8]) -> Problem {
    Problem::new(Code::ListedTwice).with("name", String::from_utf8_lossy(name))
}

/// Adds durable chunks, which follow one another from `first` on.
pub fn put_landing_chunks(at: &Connection, id: i64, first: u32, values: &[[u8; 32]]) -> Result<(), Problem> {
    let sql = "INSERT OR REPLACE INTO landing_chunks (entry, first, hashes) VALUES (?1, ?2, ?3)";
    run(at, sql, params![id, first, values.as_flattened()])
}

/// Forgets what is durable of one entry: it changed at the provider, or its temporary file is gone.
pub fn forget_landing_entry(at: &Connection, transfer: &TransferId, name: &[u8]) -> Result<(), Problem> {
    let sql = "DELETE FROM landing_entry WHERE transfer = ?1 AND name = ?2";
    run(at, sql, params![transfer.as_str(), name])
}

/// A split is staged, and with that whole. A session that is over by now does not take it out of a later listing.
pub fn put_split_staged(
    at: &Connection,
    transfer: &TransferId,
    entry: &Entry,
    staged: &StagedSplit,
    session: i64,
) -> Result<(), Problem> {
    let sql = "INSERT INTO landing_entry (transfer, name, position, entry, whole, session,
        rows_landed, rows_quarantined, digest_sum, digest_count, quality)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
        ON CONFLICT (transfer, name) DO UPDATE SET whole = excluded.whole, session = max(session, excluded.session),
        position = CASE WHEN session <= excluded.session THEN excluded.position ELSE position END,
        entry = CASE WHEN session <= excluded.session THEN excluded.entry ELSE entry END,
        rows_landed = excluded.rows_landed, rows_quarantined = excluded.rows_quarantined,
        digest_sum = excluded.digest_sum, digest_count = excluded.digest_count, quality = excluded.quality
        WHERE session <> excluded.session OR position = excluded.position RETURNING id";
    let (landed, quarantined) = (signed(staged.landed)?, signed(staged.quarantined)?);
    let count = signed(staged.digest.count)?;
    let values = params![
        transfer.as_str(),
        entry.name,
        signed(entry.index)?,
        codec::encode(entry),
        whole_number(Whole::Part),
        session,
        landed,
        quarantined,
        staged.digest.sum,
        count,
        staged.quality.as_ref().map(codec::encode)
    ];
    let id: Option<i64> = cached(at, sql)?.query_row(values, |row| row.get(0)).optional().map_err(failed)?;
    let id = id.ok_or_else(|| listed_twice(&entry.name))?;
    run(at, "DELETE FROM landing_chunks WHERE entry = ?1", params![id])
}

/// Whether anything of what a transfer is offered was recorded here: then its offer was taken up, and not only kept.
pub fn has_entries(at: &Connection, transfer: &TransferId) -> Result<bool, Problem> {
    let sql = "SELECT EXISTS (SELECT 1 FROM landing_entry WHERE transfer = ?1)";
    cached(at, sql)?.query_row([transfer.as_str()], |row| row.get(0)).map_err(failed)
}

/// Whether rules have looked at rows that a transfer staged: such rows are those that passed the rules of then.
pub fn has_checked_rows(at: &Connection, transfer: &TransferId) -> Result<bool, Problem> {
    let sql = "SELECT EXISTS (SELECT 1 FROM landing_entry WHERE transfer = ?1 AND quality IS NOT NULL)";
    cached(at, sql)?.query_row([transfer.as_str()], |row| row.get(0)).map_err(failed)
}

/// Whole entries in the order of the offer, at most `limit` with positions from `from` on.
pub fn landing_entries(
    at: &Connection,
    transfer: &TransferId,
    from: u64,
    limit: u32,
) -> Result<Vec<LandingEntry>, Problem> {
    let sql = format!(
        "SELECT {ENTRY} FROM landing_entry WHERE transfer = ?1 AND whole > 0 AND position >= ?2 ORDER BY position LIMIT ?3"
    );
    let mut statement = cached(at, &sql)?;
    let rows = statement.query_map(params![transfer.as_str(), signed(from)?, limit], entry_row).map_err(failed)?;
    rows.map(|row| row.map_err(failed)?).collect()
}

/// The whole entry of a number, in the listing that is taken.
pub fn landing_entry_at(
    at: &Connection,
    transfer: &TransferId,
    position: u64,
) -> Result<Option<LandingEntry>, Problem> {
    let found = landing_entries(at, transfer, position, 1)?.into_iter().next();
    Ok(found.filter(|found| found.entry.index == position))
}

/// Begins another session of a landing: entries of its listing are marked with this number.
pub fn next_session(at: &Connection, transfer: &TransferId) -> Result<i64, Problem> {
    let sql = "UPDATE landing SET session = session + 1 WHERE transfer = ?1 RETURNING session";
    cached(at, sql)?.query_row([transfer.as_str()], |row| row.get(0)).map_err(failed)
}

/// Entries that earlier sessions had and this one's listing has not.
pub fn unlisted(at: &Connection, transfer: &TransferId, session: i64) -> Result<Vec<Vec<u8>>, Problem> {
    let sql = "SELECT name FROM landing_entry WHERE transfer = ?1 AND (session <> ?2 OR whole = 0) ORDER BY name";
    let mut statement = cached(at, sql)?;
    let rows = statement.query_map(params![transfer.as_str(), session], |row| row.get(0)).map_err(failed)?;
    rows.collect::<Result<_, _>>().map_err(failed)
}

pub fn names_in_landing(at: &Connection, transfer: &TransferId) -> Result<Vec<Vec<u8>>, Problem> {
    let mut statement = cached(at, "SELECT name FROM landing_entry WHERE transfer = ?1 ORDER BY name")?;
    let rows = statement.query_map([transfer.as_str()], |row| row.get(0)).map_err(failed)?;
    rows.collect::<Result<_, _>>().map_err(failed)
}

/// A split of the same job that another transfer holds whole, by its name and root.
pub fn adoptable_split(
    at: &Connection,
    predecessor: &TransferId,
    name: &[u8],
    root: &[u8; 32],
) -> Result<Option<LandingEntry>, Problem> {
    let found = landing_entry(at, predecessor, name)?.map(|(found, _)| found);
    Ok(found.filter(|found| found.whole == Whole::Part && found.entry.root == Some(ByteArray::from(*root))))
}

/// Drops the progress of a transfer that needs it no more.
pub fn forget_landing(at: &Connection, transfer: &TransferId) -> Result<(), Problem> {
    run(at, "DELETE FROM landing_entry WHERE transfer = ?1", params![transfer.as_str()])
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

/// All that a job landed, by name.
pub fn all_landed(at: &Connection, job: &JobId) -> Result<Vec<LandedFile>, Problem> {
    let sql = "SELECT name, kind, root, size, mtime_ns, stat FROM landed WHERE job = ?1 ORDER BY name";
    let mut statement = cached(at, sql)?;
    let rows = statement.query_map([job.as_str()], landed_row).map_err(failed)?;
    rows.map(|row| row.map_err(failed)?).collect()
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

// Provider.

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

pub fn put_hashed(
    at: &Connection,
    resource: &ResourceId,
    name: &[u8],
    stat: &FileStat,
    root: &[u8; 32],
) -> Result<(), Problem> {
    let sql = "INSERT OR REPLACE INTO hashed (resource, name, stat, root) VALUES (?1, ?2, ?3, ?4)";
    run(at, sql, params![resource.as_str(), name, json(stat)?, root])
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

// Both.

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

fn whole_number(whole: Whole) -> i64 {
    match whole {
        Whole::No => 0,
        Whole::Part => 1,
        Whole::Present => 2,
        Whole::Linked => 3,
    }
}

fn entry_row(row: &Row<'_>) -> rusqlite::Result<Result<LandingEntry, Problem>> {
    let (id, entry): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
    let whole = match row.get::<_, i64>(2)? {
        0 => Whole::No,
        1 => Whole::Part,
        2 => Whole::Present,
        _ => Whole::Linked,
    };
    let columns: (Option<i64>, Option<i64>, Option<Vec<u8>>, Option<i64>) =
        (row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?);
    let quality: Option<Vec<u8>> = row.get(7)?;
    let staged = match columns {
        (Some(landed), Some(quarantined), Some(sum), Some(count)) => {
            let quality = quality.map(|blob| decode(&blob)).transpose();
            match fixed(&sum).and_then(|sum| Ok((sum, quality?))) {
                Ok((sum, quality)) => Some(StagedSplit {
                    landed: landed.unsigned_abs(),
                    quarantined: quarantined.unsigned_abs(),
                    digest: RowDigest { sum, count: count.unsigned_abs() },
                    quality,
                }),
                Err(problem) => return Ok(Err(problem)),
            }
        }
        _ => None,
    };
    Ok(decode(&entry).map(|entry| LandingEntry { id, entry, whole, staged }))
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

const ENTRY: &str = "id, entry, whole, rows_landed, rows_quarantined, digest_sum, digest_count, quality";
const INVITED_KEPT_MS: i64 = 7 * 86_400_000;
