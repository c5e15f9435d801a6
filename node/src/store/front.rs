//! How far the flags of front-end tables are: one row for each transfer whose rows are remembered in a file. It is
//! receipted in the transaction that stores the consumer's statement, so that no flag is written back without one and
//! none is forgotten with one.

use super::{failed, signed};
use posthouse_protocol::id::{JobId, NodeId, ResourceId, ResourceRef, TransferId};
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::time::Timestamp;
use rusqlite::{Connection, Transaction, params};

/// What one transfer has read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrontRun {
    pub transfer: TransferId,
    pub resource: ResourceId,
    pub state: FrontState,
    /// Since when.
    pub at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrontState {
    /// Handed over or not: there is no receipt.
    Read,
    /// Flags are to be written back.
    Receipted,
    /// They are; which rows these were is to be kept until they are purged.
    Written,
}

/// Beside the transfer's offer.
pub fn put(tx: &Transaction<'_>, transfer: &TransferId, resource: &ResourceId, now: Timestamp) -> Result<(), Problem> {
    let sql = "INSERT INTO front (transfer, resource, state, at) VALUES (?1, ?2, 0, ?3)";
    tx.execute(sql, params![transfer.as_str(), resource.as_str(), now.0]).map(|_| ()).map_err(failed)
}

/// Whether it is one of a front-end table; from now on its flags are to be written back.
pub fn receipted(tx: &Transaction<'_>, transfer: &TransferId, now: Timestamp) -> Result<bool, Problem> {
    let sql = "UPDATE front SET state = 1, at = ?2 WHERE transfer = ?1 AND state = 0";
    tx.execute(sql, params![transfer.as_str(), now.0]).map(|changed| changed > 0).map_err(failed)
}

pub fn written(tx: &Transaction<'_>, transfer: &TransferId, marked: u64, now: Timestamp) -> Result<(), Problem> {
    let sql = "UPDATE front SET state = 2, marked = ?2, at = ?3 WHERE transfer = ?1";
    tx.execute(sql, params![transfer.as_str(), signed(marked), now.0]).map(|_| ()).map_err(failed)
}

pub fn forget(tx: &Transaction<'_>, transfer: &TransferId) -> Result<(), Problem> {
    tx.execute("DELETE FROM front WHERE transfer = ?1", [transfer.as_str()]).map(|_| ()).map_err(failed)
}

/// The same of one without a receipt; whether it was one.
pub fn forget_unreceipted(tx: &Transaction<'_>, transfer: &TransferId) -> Result<bool, Problem> {
    let sql = "DELETE FROM front WHERE transfer = ?1 AND state = 0";
    tx.execute(sql, [transfer.as_str()]).map(|changed| changed > 0).map_err(failed)
}

/// Of one resource, or of all, the oldest first.
pub fn list(db: &Connection, resource: Option<&ResourceId>) -> Result<Vec<FrontRun>, Problem> {
    let sql = "SELECT transfer, resource, state, at FROM front WHERE ?1 IS NULL OR resource = ?1 ORDER BY at, transfer";
    let mut statement = db.prepare_cached(sql).map_err(failed)?;
    let mut rows = statement.query([resource.map(ResourceId::as_str)]).map_err(failed)?;
    let mut runs = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        let (transfer, resource): (String, String) = (row.get(0).map_err(failed)?, row.get(1).map_err(failed)?);
        let state = match row.get::<_, i64>(2).map_err(failed)? {
            0 => FrontState::Read,
            1 => FrontState::Receipted,
            _ => FrontState::Written,
        };
        runs.push(FrontRun {
            transfer: TransferId::parse(&transfer).map_err(damaged)?,
            resource: ResourceId::parse(&resource).map_err(damaged)?,
            state,
            at: Timestamp(row.get(3).map_err(failed)?),
        });
    }
    Ok(runs)
}

/// Consumers beside this one that have a receipt for rows of a resource.
pub fn other_consumers(db: &Connection, resource: &ResourceRef, consumer: &NodeId) -> Result<Vec<NodeId>, Problem> {
    let sql = "SELECT DISTINCT peer FROM transfers WHERE side = 'provider' AND provider = ?1 AND resource = ?2
        AND peer <> ?3 AND receipt IS NOT NULL ORDER BY peer";
    let mut statement = db.prepare_cached(sql).map_err(failed)?;
    let values = params![resource.node.as_str(), resource.resource.as_str(), consumer.as_str()];
    let names = statement.query_map(values, |row| row.get::<_, String>(0)).map_err(failed)?;
    names.map(|name| NodeId::parse(&name.map_err(failed)?).map_err(damaged)).collect()
}

/// The job of another kind that has read rows of a resource and has not ended, if any.
pub fn other_open(
    db: &Connection,
    resource: &ResourceId,
    consumer: &NodeId,
    job: &JobId,
) -> Result<Option<(NodeId, JobId)>, Problem> {
    let sql = "SELECT t.peer, t.job FROM front f JOIN transfers t ON t.id = f.transfer
        WHERE f.resource = ?1 AND f.state = 0 AND (t.peer <> ?2 OR t.job <> ?3)
        AND t.state NOT IN ('settled', 'refused', 'failed', 'cancelled') ORDER BY t.created LIMIT 1";
    let mut statement = db.prepare_cached(sql).map_err(failed)?;
    let mut rows = statement.query(params![resource.as_str(), consumer.as_str(), job.as_str()]).map_err(failed)?;
    let Some(row) = rows.next().map_err(failed)? else { return Ok(None) };
    let (peer, job): (String, String) = (row.get(0).map_err(failed)?, row.get(1).map_err(failed)?);
    Ok(Some((NodeId::parse(&peer).map_err(damaged)?, JobId::parse(&job).map_err(damaged)?)))
}

fn damaged(error: impl std::fmt::Display) -> Problem {
    Problem::new(Code::StoreDamaged).cause(error)
}
