//! 问题数据: rows that were refused, with the reason and what they were. They are kept until an operator
//! has dealt with them; a statement has counted each.

use super::failed;
use super::transfers::{Side, side_text};
use posthouse_connectors::BadRow;
use posthouse_protocol::id::TransferId;
use posthouse_protocol::problem::Problem;
use posthouse_protocol::time::Timestamp;
use rusqlite::{Connection, Transaction, params};

/// Keeps the refused rows of one split; a repeat of the same split replaces what it said before.
pub fn put(
    tx: &Transaction<'_>,
    transfer: &TransferId,
    side: Side,
    split: &str,
    rows: &[BadRow],
    at: Timestamp,
) -> Result<(), Problem> {
    tx.execute(
        "DELETE FROM quarantine WHERE transfer = ?1 AND side = ?2 AND split = ?3",
        params![transfer.as_str(), side_text(side), split],
    )
    .map_err(failed)?;
    let mut insert = tx
        .prepare_cached(
            "INSERT INTO quarantine (transfer, side, split, key, reason, original, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )
        .map_err(failed)?;
    for row in rows {
        insert
            .execute(params![transfer.as_str(), side_text(side), split, row.key, row.reason, row.original, at.0])
            .map_err(failed)?;
    }
    Ok(())
}

/// A quarantined row in a listing.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct QuarantinedRow {
    pub key: String,
    pub reason: String,
    pub original: String,
    pub at: Timestamp,
}

pub fn of_transfer(db: &Connection, transfer: &TransferId, limit: u32) -> Result<Vec<QuarantinedRow>, Problem> {
    let mut statement = db
        .prepare_cached("SELECT key, reason, original, at FROM quarantine WHERE transfer = ?1 ORDER BY id LIMIT ?2")
        .map_err(failed)?;
    let rows = statement
        .query_map(params![transfer.as_str(), limit], |row| {
            Ok(QuarantinedRow {
                key: row.get(0)?,
                reason: row.get(1)?,
                original: row.get(2)?,
                at: Timestamp(row.get(3)?),
            })
        })
        .map_err(failed)?;
    rows.map(|row| row.map_err(failed)).collect()
}
