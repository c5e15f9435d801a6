//! What is durable of a landing: its offer, its entries, and the chunks of those that are not whole.

use super::{cached, decode, fixed, one_blob, run, signed};
use crate::store::failed;
use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};
use posthouse_protocol::codec;
use posthouse_protocol::digest::RowDigest;
use posthouse_protocol::frame::Offer;
use posthouse_protocol::govern::Quality;
use posthouse_protocol::id::TransferId;
use posthouse_protocol::manifest::Entry;
use posthouse_protocol::problem::{Code, Problem};
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

/// Chunks of one entry by their number, each with its value.
pub type ChunkValues = Vec<(u32, [u8; 32])>;

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

/// How many entries are recorded, in part or wholly, by whichever session.
pub fn entries_recorded(at: &Connection, transfer: &TransferId) -> Result<u64, Problem> {
    let sql = "SELECT count(*) FROM landing_entry WHERE transfer = ?1";
    let count: i64 = cached(at, sql)?.query_row([transfer.as_str()], |row| row.get(0)).map_err(failed)?;
    Ok(count.unsigned_abs())
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

/// Begins another session of a landing: entries of its listing are marked with this number, which rises from
/// [`FIRST_SESSION`] on.
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

fn whole_number(whole: Whole) -> i64 {
    match whole {
        Whole::No => 0,
        Whole::Part => 1,
        Whole::Present => 2,
        Whole::Linked => 3,
    }
}

pub(super) fn whole_of(number: i64) -> Whole {
    match number {
        0 => Whole::No,
        1 => Whole::Part,
        2 => Whole::Present,
        _ => Whole::Linked,
    }
}

fn entry_row(row: &Row<'_>) -> rusqlite::Result<Result<LandingEntry, Problem>> {
    let (id, entry): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
    let whole = whole_of(row.get(2)?);
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

/// Before it nothing of a landing was recorded.
pub const FIRST_SESSION: i64 = 1;
const ENTRY: &str = "id, entry, whole, rows_landed, rows_quarantined, digest_sum, digest_count, quality";
