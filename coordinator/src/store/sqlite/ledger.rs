//! The ledger's leaves and hashes. A statement, its hashes and what it says of its transfer are one transaction.

use super::super::{Appended, StoredLeaf};
use super::{Failure, bytes32, signed, transfers, unsigned};
use crate::ledger::Leaf;
use posthouse_protocol::id::TransferId;
use posthouse_protocol::ledger::{self as log, HashReader};
use posthouse_protocol::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, Transaction};

pub(super) fn append(t: &Transaction<'_>, leaves: &[Leaf], at: Timestamp) -> Result<Appended, Failure> {
    let mut size = size(t)?;
    let mut out = Vec::with_capacity(leaves.len());
    for leaf in leaves {
        if let Some(index) = leaf_of(t, leaf.sha256())? {
            out.push((index, false));
            continue;
        }
        let hashes = log::append(size, log::leaf_hash(leaf.bytes()), &Stored(t)).map_err(Failure::damaged)?;
        let mut insert = t.prepare_cached("INSERT INTO hashes (position, hash) VALUES (?1, ?2)")?;
        for (position, hash) in hashes {
            insert.execute((signed(position), hash))?;
        }
        t.prepare_cached(
            "INSERT INTO leaves (leaf, sha256, bytes, issuer, kind, transfer, taken_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute((
            signed(size),
            leaf.sha256(),
            leaf.bytes(),
            leaf.issuer().as_str(),
            leaf.kind(),
            leaf.transfer().map(TransferId::as_str),
            at.0,
        ))?;
        transfers::apply(t, leaf, size, at)?;
        out.push((size, true));
        size += 1;
    }
    Ok(Appended { leaves: out, size })
}

pub(super) fn size(c: &Connection) -> Result<u64, Failure> {
    let last: Option<i64> = c.query_row("SELECT max(leaf) FROM leaves", [], |r| r.get(0))?;
    last.map_or(Ok(0), |last| Ok(unsigned(last)? + 1))
}

pub(super) fn hashes(c: &Connection, positions: &[u64]) -> Result<Vec<[u8; 32]>, Failure> {
    let mut statement = c.prepare_cached("SELECT hash FROM hashes WHERE position = ?1")?;
    let mut out = Vec::with_capacity(positions.len());
    for position in positions {
        let hash: Option<Vec<u8>> = statement.query_row([signed(*position)], |r| r.get(0)).optional()?;
        out.push(bytes32(hash.ok_or_else(|| Failure::damaged(format!("the ledger has no hash {position}")))?)?);
    }
    Ok(out)
}

fn leaf_of(c: &Connection, sha256: &[u8; 32]) -> Result<Option<u64>, Failure> {
    let mut statement = c.prepare_cached("SELECT leaf FROM leaves WHERE sha256 = ?1")?;
    statement.query_row([sha256], |r| r.get(0)).optional()?.map(unsigned).transpose()
}

pub(super) fn find(c: &Connection, sha256: &[[u8; 32]]) -> Result<Vec<Option<StoredLeaf>>, Failure> {
    let mut statement = c.prepare_cached(&format!("SELECT {LEAF} FROM leaves WHERE sha256 = ?1"))?;
    sha256.iter().map(|sha256| Ok(collect(statement.query([sha256])?)?.pop())).collect()
}

pub(super) fn leaves(c: &Connection, from: u64, limit: u64) -> Result<Vec<StoredLeaf>, Failure> {
    let mut statement =
        c.prepare_cached(&format!("SELECT {LEAF} FROM leaves WHERE leaf >= ?1 ORDER BY leaf LIMIT ?2"))?;
    collect(statement.query((signed(from), signed(limit)))?)
}

pub(super) fn leaves_of(c: &Connection, transfer: &TransferId) -> Result<Vec<StoredLeaf>, Failure> {
    let mut statement = c.prepare_cached(&format!("SELECT {LEAF} FROM leaves WHERE transfer = ?1 ORDER BY leaf"))?;
    collect(statement.query([transfer.as_str()])?)
}

pub(super) fn leaves_of_kind(
    c: &Connection,
    kind: &str,
    below: Option<u64>,
    limit: u64,
) -> Result<Vec<StoredLeaf>, Failure> {
    let mut statement = c.prepare_cached(&format!(
        "SELECT {LEAF} FROM leaves WHERE kind = ?1 AND leaf < ?2 ORDER BY leaf DESC LIMIT ?3"
    ))?;
    collect(statement.query((kind, below.map_or(i64::MAX, signed), signed(limit)))?)
}

/// Hashes as the appending transaction sees them.
struct Stored<'t>(&'t Transaction<'t>);

impl HashReader for Stored<'_> {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<[u8; 32]>, String> {
        hashes(self.0, indexes).map_err(|failure| match failure {
            Failure::Sql(error) => error.to_string(),
            Failure::Damaged(what) => what,
        })
    }
}

const LEAF: &str = "leaf, sha256, bytes, issuer, kind, transfer, taken_at";

fn collect(mut rows: rusqlite::Rows<'_>) -> Result<Vec<StoredLeaf>, Failure> {
    let mut out = Vec::new();
    while let Some(row) = rows.next()? {
        out.push(leaf_row(row)?);
    }
    Ok(out)
}

fn leaf_row(row: &Row<'_>) -> Result<StoredLeaf, Failure> {
    let transfer: Option<String> = row.get(5)?;
    Ok(StoredLeaf {
        index: unsigned(row.get(0)?)?,
        sha256: bytes32(row.get(1)?)?,
        bytes: row.get(2)?,
        issuer: row.get(3)?,
        kind: row.get(4)?,
        transfer: transfer.map(|id| TransferId::parse(&id).map_err(Failure::damaged)).transpose()?,
        taken_at: Timestamp(row.get(6)?),
    })
}
