//! Single values: the node's epoch, the highest epoch of each peer, the policy as signed.

use super::{failed, signed, unsigned};
use posthouse_protocol::id::NodeId;
use posthouse_protocol::problem::Problem;
use posthouse_protocol::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

/// Raises the node's epoch and gives the new one. Called first at every start, so that a restored copy
/// of the disk can be told from the node that went on.
pub fn raise_epoch(tx: &Transaction<'_>) -> Result<u64, Problem> {
    let epoch = number(tx, EPOCH)?.unwrap_or(0) + 1;
    set(tx, EPOCH, &epoch.to_be_bytes())?;
    Ok(epoch)
}

/// Makes the next start's epoch higher than `known`: another machine may have had this name.
pub fn epoch_at_least(tx: &Transaction<'_>, known: u64) -> Result<(), Problem> {
    if epoch(tx)? < known {
        set(tx, EPOCH, &known.to_be_bytes())?;
    }
    Ok(())
}

pub fn epoch(db: &Connection) -> Result<u64, Problem> {
    Ok(number(db, EPOCH)?.unwrap_or(0))
}

pub fn get(db: &Connection, key: &str) -> Result<Option<Vec<u8>>, Problem> {
    db.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)).optional().map_err(failed)
}

pub fn set(tx: &Transaction<'_>, key: &str, value: &[u8]) -> Result<(), Problem> {
    tx.execute(
        "INSERT INTO meta VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value",
        params![key, value],
    )
    .map_err(failed)?;
    Ok(())
}

fn number(db: &Connection, key: &str) -> Result<Option<u64>, Problem> {
    Ok(get(db, key)?.and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes))
}

/// The highest epoch that a peer was seen with; 0 where it never was.
pub fn peer_epoch(at: &Connection, peer: &NodeId) -> Result<u64, Problem> {
    let known = at
        .query_row("SELECT epoch FROM peer_epochs WHERE peer = ?1", [peer.as_str()], |row| row.get(0).map(unsigned))
        .optional();
    Ok(known.map_err(failed)?.unwrap_or_default())
}

/// Notes a peer's epoch. False where a higher one is known: this peer is a restored copy.
pub fn see_peer_epoch(tx: &Transaction<'_>, peer: &NodeId, epoch: u64) -> Result<bool, Problem> {
    let known: Option<u64> = tx
        .query_row("SELECT epoch FROM peer_epochs WHERE peer = ?1", [peer.as_str()], |row| row.get(0).map(unsigned))
        .optional()
        .map_err(failed)?;
    if known.is_some_and(|known| known > epoch) {
        return Ok(false);
    }
    if known != Some(epoch) {
        tx.execute(
            "INSERT INTO peer_epochs VALUES (?1, ?2) ON CONFLICT DO UPDATE SET epoch = excluded.epoch",
            params![peer.as_str(), signed(epoch)],
        )
        .map_err(failed)?;
    }
    Ok(true)
}

/// The policy as it was signed, and the last word that it is still the latest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPolicy {
    pub bytes: Vec<u8>,
    pub epoch: u64,
    pub sequence: u64,
    pub freshness: Option<Vec<u8>>,
    /// Wall time of the latest word from the centre.
    pub fresh_at: Timestamp,
}

pub fn policy(db: &Connection) -> Result<Option<StoredPolicy>, Problem> {
    db.query_row("SELECT bytes, epoch, sequence, freshness, fresh_at FROM policy", [], |row| {
        Ok(StoredPolicy {
            bytes: row.get(0)?,
            epoch: unsigned(row.get(1)?),
            sequence: unsigned(row.get(2)?),
            freshness: row.get(3)?,
            fresh_at: Timestamp(row.get(4)?),
        })
    })
    .optional()
    .map_err(failed)
}

/// Keeps a policy unless a later one is kept; false says that it was older.
pub fn keep_policy(tx: &Transaction<'_>, policy: &StoredPolicy) -> Result<bool, Problem> {
    let changed = tx
        .execute(
            "INSERT INTO policy VALUES (1, ?1, ?2, ?3, ?4, ?5) ON CONFLICT DO UPDATE SET bytes = excluded.bytes,
             epoch = excluded.epoch, sequence = excluded.sequence, fresh_at = max(fresh_at, excluded.fresh_at)
             WHERE (excluded.epoch, excluded.sequence) >= (epoch, sequence)",
            params![policy.bytes, signed(policy.epoch), signed(policy.sequence), policy.freshness, policy.fresh_at.0],
        )
        .map_err(failed)?;
    Ok(changed > 0)
}

/// Another coordinator's policies do not compare with this one's.
pub fn forget_policy(tx: &Transaction<'_>) -> Result<(), Problem> {
    tx.execute("DELETE FROM policy", []).map_err(failed)?;
    Ok(())
}

/// Keeps the centre's latest word that the policy is current.
pub fn keep_freshness(tx: &Transaction<'_>, bytes: &[u8], at: Timestamp) -> Result<(), Problem> {
    tx.execute("UPDATE policy SET freshness = ?1, fresh_at = max(fresh_at, ?2)", params![bytes, at.0])
        .map_err(failed)?;
    Ok(())
}

const EPOCH: &str = "epoch";
