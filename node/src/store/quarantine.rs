//! 问题数据: rows that were refused, with the reason and what they were. They are kept until an operator
//! has dealt with them; a statement has counted each.

use super::failed;
use super::transfers::{Side, side_text};
use crate::held_back::HeldBack;
use posthouse_connectors::BadRow;
use posthouse_protocol::id::{JobId, TransferId};
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::time::Timestamp;
use rusqlite::{Connection, params};

/// The split of what was refused on publishing.
pub const ON_PUBLISHING: &str = "";

/// Keeps the refused rows of one split; a repeat of the same split replaces what it said before.
pub fn put(
    tx: &Connection,
    transfer: &TransferId,
    side: Side,
    split: &str,
    rows: &[BadRow],
    at: Timestamp,
) -> Result<(), Problem> {
    let mut insert = instead(tx, transfer, side, split, at)?;
    rows.iter().try_for_each(&mut insert)
}

/// The same of rows that need not be in memory.
pub fn put_held_back(
    tx: &Connection,
    transfer: &TransferId,
    side: Side,
    split: &str,
    rows: HeldBack,
    at: Timestamp,
) -> Result<(), Problem> {
    let mut insert = instead(tx, transfer, side, split, at)?;
    rows.each(&mut insert)
}

/// Takes rows in the place of those that are there of a split.
fn instead(
    tx: &Connection,
    transfer: &TransferId,
    side: Side,
    split: &str,
    at: Timestamp,
) -> Result<impl FnMut(&BadRow) -> Result<(), Problem>, Problem> {
    let own = params![transfer.as_str(), side_text(side), split];
    tx.execute("DELETE FROM quarantine WHERE transfer = ?1 AND side = ?2 AND split = ?3", own).map_err(failed)?;
    let mut insert = tx
        .prepare_cached(
            "INSERT INTO quarantine (transfer, side, split, key, reason, original, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )
        .map_err(failed)?;
    Ok(move |row: &BadRow| {
        let values = params![transfer.as_str(), side_text(side), split, row.key, row.reason, row.original, at.0];
        insert.execute(values).map(|_| ()).map_err(failed)
    })
}

/// Every run over a front-end table tells again of the rows that do not move: what an earlier one kept of the same row, for
/// the same reason, goes, and this one's stays. Of any other transfer nothing changes. When all of its rows are sealed.
pub fn keep_once(tx: &Connection, transfer: &TransferId) -> Result<(), Problem> {
    let own = params![transfer.as_str(), side_text(Side::Provider)];
    let sql = "SELECT EXISTS (SELECT 1 FROM front WHERE transfer = ?1)
        AND EXISTS (SELECT 1 FROM quarantine WHERE transfer = ?1 AND side = ?2)";
    if !tx.query_row(sql, own, |row| row.get::<_, bool>(0)).map_err(failed)? {
        return Ok(());
    }
    let sql = "DELETE FROM quarantine WHERE transfer <> ?1 AND side = ?2
        AND EXISTS (SELECT 1 FROM transfers o JOIN transfers t ON t.provider = o.provider AND t.resource = o.resource
            WHERE o.id = quarantine.transfer AND t.id = ?1 AND o.side = ?2 AND t.side = ?2)
        AND (reason, original) IN (SELECT reason, original FROM quarantine WHERE transfer = ?1 AND side = ?2)";
    tx.execute(sql, own).map(|_| ()).map_err(failed)
}

/// A quarantined row in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantinedRow {
    pub id: i64,
    pub split: String,
    pub key: String,
    pub reason: String,
    pub original: String,
    pub at: Timestamp,
}

/// In the order in which they were refused, those behind `after` first.
pub fn of_transfer(
    db: &Connection,
    transfer: &TransferId,
    after: i64,
    limit: u32,
) -> Result<Vec<QuarantinedRow>, Problem> {
    let mut statement = db
        .prepare_cached(
            "SELECT id, split, key, reason, original, at FROM quarantine WHERE transfer = ?1 AND id > ?2 ORDER BY id LIMIT ?3",
        )
        .map_err(failed)?;
    let rows = statement
        .query_map(params![transfer.as_str(), after, limit], |row| {
            Ok(QuarantinedRow {
                id: row.get(0)?,
                split: row.get(1)?,
                key: row.get(2)?,
                reason: row.get(3)?,
                original: row.get(4)?,
                at: Timestamp(row.get(5)?),
            })
        })
        .map_err(failed)?;
    rows.map(|row| row.map_err(failed)).collect()
}

/// Transfers with rows in quarantine here, newest first, with how many.
pub fn transfers(db: &Connection, job: Option<&JobId>, limit: u32) -> Result<Vec<(TransferId, u64)>, Problem> {
    let mut statement = db
        .prepare_cached(
            "SELECT q.transfer, count(*) FROM quarantine q JOIN transfers t ON t.id = q.transfer
             WHERE ?1 IS NULL OR t.job = ?1 GROUP BY q.transfer ORDER BY max(q.id) DESC LIMIT ?2",
        )
        .map_err(failed)?;
    let rows = statement
        .query_map(params![job.map(JobId::as_str), limit], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))
        .map_err(failed)?;
    let read = |row: rusqlite::Result<(String, i64)>| {
        let (id, count) = row.map_err(failed)?;
        let id = TransferId::parse(&id).map_err(|e| Problem::new(Code::StoreDamaged).cause(e))?;
        Ok((id, count.unsigned_abs()))
    };
    rows.map(read).collect()
}
