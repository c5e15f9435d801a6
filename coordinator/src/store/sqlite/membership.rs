//! Nodes, their keys and certificates, join tokens, access tokens and a few named values.

use super::super::records::{AccessRecord, Issued, Joining, NodeRecord, StatementKey, TokenRecord};
use super::super::{JoinRecord, Report};
use super::{Failure, bytes32, signed, unsigned};
use crate::admin::Role;
use posthouse_protocol::centre::Profile;
use posthouse_protocol::codec;
use posthouse_protocol::id::NodeId;
use posthouse_protocol::limits;
use posthouse_protocol::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, Transaction};

pub(super) fn meta(c: &Connection, name: &str) -> Result<Option<String>, Failure> {
    Ok(c.query_row("SELECT value FROM meta WHERE name = ?1", [name], |r| r.get(0)).optional()?)
}

pub(super) fn set_meta(t: &Transaction<'_>, name: &str, value: &str) -> Result<(), Failure> {
    t.execute(
        "INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        [name, value],
    )?;
    Ok(())
}

pub(super) fn nodes(c: &Connection) -> Result<Vec<NodeRecord>, Failure> {
    let mut keys = std::collections::BTreeMap::<String, Vec<StatementKey>>::new();
    let mut statement =
        c.prepare_cached("SELECT key, since, until, node FROM statement_keys ORDER BY since DESC, key")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        keys.entry(row.get(3)?).or_default().push(key_of(row)?);
    }
    let mut statement = c.prepare_cached(&format!("SELECT {NODE} FROM nodes ORDER BY name"))?;
    let mut rows = statement.query([])?;
    let mut out = Vec::new();
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        let keys = keys.remove(&name).unwrap_or_default();
        out.push(node_of(row, keys)?);
    }
    Ok(out)
}

pub(super) fn node(c: &Connection, node: &NodeId) -> Result<Option<NodeRecord>, Failure> {
    let keys = statement_keys(c, node)?;
    let mut statement = c.prepare_cached(&format!("SELECT {NODE} FROM nodes WHERE name = ?1"))?;
    let mut rows = statement.query([node.as_str()])?;
    match rows.next()? {
        Some(row) => Ok(Some(node_of(row, keys)?)),
        None => Ok(None),
    }
}

pub(super) fn statement_keys(c: &Connection, node: &NodeId) -> Result<Vec<StatementKey>, Failure> {
    let mut statement =
        c.prepare_cached("SELECT key, since, until FROM statement_keys WHERE node = ?1 ORDER BY since DESC, key")?;
    let mut rows = statement.query([node.as_str()])?;
    let mut keys = Vec::new();
    while let Some(row) = rows.next()? {
        keys.push(key_of(row)?);
    }
    Ok(keys)
}

pub(super) fn add_token(t: &Transaction<'_>, token: &TokenRecord) -> Result<(), Failure> {
    // Old tokens are kept a day past their end, so that a late use is told apart from a false one.
    t.execute("DELETE FROM tokens WHERE expires_at < ?1", [token.created_at.0 - 86_400_000])?;
    t.execute(
        "INSERT INTO tokens (hash, node, created_at, expires_at) VALUES (?1, ?2, ?3, ?4)",
        (token.hash, token.node.as_str(), token.created_at.0, token.expires_at.0),
    )?;
    Ok(())
}

pub(super) fn look_at_token(c: &Connection, join: &JoinRecord) -> Result<Joining, Failure> {
    let token = c
        .query_row("SELECT node, expires_at, used_by FROM tokens WHERE hash = ?1", [join.secret_sha256], |r| {
            Ok((r.get::<_, String>(0)?, r.get::<_, i64>(1)?, r.get::<_, Option<Vec<u8>>>(2)?))
        })
        .optional()?;
    let Some((name, expires_at, used_by)) = token else { return Ok(Joining::Unknown) };
    if name != join.node.as_str() {
        return Ok(Joining::Unknown);
    }
    let present = node(c, &join.node)?;
    let epoch = present.as_ref().map_or(0, |node| node.epoch);
    match used_by {
        // The same request again: its answer was lost.
        Some(by) if by == join.request_sha256 && present.as_ref().is_some_and(|n| n.revoked_at.is_none()) => {
            Ok(Joining::Joined { epoch })
        }
        Some(_) => Ok(Joining::Used),
        None if expires_at < join.now.0 => Ok(Joining::Expired),
        None if present.is_some_and(|node| node.revoked_at.is_none()) => Ok(Joining::AlreadyJoined),
        None => Ok(Joining::Joined { epoch }),
    }
}

pub(super) fn join(t: &Transaction<'_>, join: &JoinRecord, issued: &Issued) -> Result<Joining, Failure> {
    let joining = look_at_token(t, join)?;
    if !matches!(joining, Joining::Joined { .. }) {
        return Ok(joining);
    }
    let name = join.node.as_str();
    let now = join.now.0;
    t.execute(
        "UPDATE tokens SET used_at = ifnull(used_at, ?2), used_by = ?3 WHERE hash = ?1",
        (join.secret_sha256, now, join.request_sha256),
    )?;
    t.execute(
        "INSERT INTO nodes (name, joined_at, epoch, policy_sequence, certificate_expires, profile)
         VALUES (?1, ?2, 0, 1, ?3, ?4)
         ON CONFLICT (name) DO UPDATE SET joined_at = excluded.joined_at, revoked_at = NULL, fenced_at = NULL,
             policy_sequence = policy_sequence + 1, certificate_expires = excluded.certificate_expires,
             profile = excluded.profile, report = NULL, reported_at = NULL",
        (name, now, issued.expires_at.0, codec::encode(&join.profile)),
    )?;
    t.execute(
        "UPDATE statement_keys SET until = ?2 WHERE node = ?1 AND until IS NULL AND key <> ?3",
        (name, now, join.statement_key),
    )?;
    t.execute(
        "INSERT INTO statement_keys (node, key, since) VALUES (?1, ?2, ?3)
         ON CONFLICT (node, key) DO UPDATE SET until = NULL",
        (name, join.statement_key, now),
    )?;
    // What an earlier machine of this name holds is worth nothing from now on.
    t.execute("UPDATE certificates SET revoked_at = ?2 WHERE node = ?1 AND revoked_at IS NULL", (name, now))?;
    insert_certificate(t, name, issued)?;
    Ok(joining)
}

pub(super) fn renewed(t: &Transaction<'_>, node: &NodeId, issued: &Issued) -> Result<(), Failure> {
    t.execute("DELETE FROM certificates WHERE expires_at < ?1 AND revoked_at IS NULL", [issued.issued_at.0])?;
    insert_certificate(t, node.as_str(), issued)?;
    t.execute("UPDATE nodes SET certificate_expires = ?2 WHERE name = ?1", (node.as_str(), issued.expires_at.0))?;
    Ok(())
}

pub(super) fn certificate_revoked(c: &Connection, sha256: &[u8; 32]) -> Result<bool, Failure> {
    let revoked: Option<Option<i64>> =
        c.query_row("SELECT revoked_at FROM certificates WHERE sha256 = ?1", [sha256], |r| r.get(0)).optional()?;
    Ok(matches!(revoked, Some(Some(_))))
}

pub(super) fn revoke(t: &Transaction<'_>, node: &NodeId, at: Timestamp) -> Result<bool, Failure> {
    let changed =
        t.execute("UPDATE nodes SET revoked_at = ?2 WHERE name = ?1 AND revoked_at IS NULL", (node.as_str(), at.0))?;
    if changed > 0 {
        t.execute(
            "UPDATE certificates SET revoked_at = ?2 WHERE node = ?1 AND revoked_at IS NULL",
            (node.as_str(), at.0),
        )?;
        // It stays so when the name joins again with a new key.
        t.execute("UPDATE statement_keys SET until = ?2 WHERE node = ?1 AND until IS NULL", (node.as_str(), at.0))?;
        super::policy::bump(t, None)?;
    }
    Ok(changed > 0)
}

pub(super) fn raise_epoch(t: &Transaction<'_>, node: &NodeId, epoch: u64, at: Timestamp) -> Result<u64, Failure> {
    let known: Option<i64> =
        t.query_row("SELECT epoch FROM nodes WHERE name = ?1", [node.as_str()], |r| r.get(0)).optional()?;
    let known = unsigned(known.ok_or_else(|| Failure::damaged(format!("no node {node}")))?)?;
    if epoch > known {
        t.execute("UPDATE nodes SET epoch = ?2 WHERE name = ?1", (node.as_str(), signed(epoch)))?;
    } else if epoch < known {
        t.execute("UPDATE nodes SET fenced_at = ?2 WHERE name = ?1", (node.as_str(), at.0))?;
    }
    Ok(known.max(epoch))
}

pub(super) fn save_report(t: &Transaction<'_>, report: &Report) -> Result<(), Failure> {
    t.prepare_cached("UPDATE nodes SET report = ?2, reported_at = ?3 WHERE name = ?1")?.execute((
        report.node.as_str(),
        codec::encode(&report.heartbeat),
        report.at.0,
    ))?;
    Ok(())
}

pub(super) fn set_profile(t: &Transaction<'_>, node: &NodeId, profile: &Profile) -> Result<(), Failure> {
    t.execute("UPDATE nodes SET profile = ?2 WHERE name = ?1", (node.as_str(), codec::encode(profile)))?;
    Ok(())
}

pub(super) fn add_access(t: &Transaction<'_>, access: &AccessRecord) -> Result<bool, Failure> {
    let added = t.execute(
        "INSERT INTO access (name, role, hash, created_at) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (name) DO NOTHING",
        (&access.name, access.role.as_str(), access.hash, access.created_at.0),
    )?;
    Ok(added > 0)
}

pub(super) fn access(c: &Connection) -> Result<Vec<AccessRecord>, Failure> {
    let mut statement =
        c.prepare_cached("SELECT name, role, hash, created_at, last_used_at FROM access ORDER BY name")?;
    let mut rows = statement.query([])?;
    let mut out = Vec::new();
    while let Some(row) = rows.next()? {
        let role: String = row.get(1)?;
        out.push(AccessRecord {
            name: row.get(0)?,
            role: role.parse::<Role>().map_err(|()| Failure::damaged(format!("no role `{role}`")))?,
            hash: bytes32(row.get(2)?)?,
            created_at: Timestamp(row.get(3)?),
            last_used_at: row.get::<_, Option<i64>>(4)?.map(Timestamp),
        });
    }
    Ok(out)
}

fn insert_certificate(t: &Transaction<'_>, node: &str, issued: &Issued) -> Result<(), Failure> {
    t.execute(
        "INSERT INTO certificates (sha256, node, issued_at, expires_at) VALUES (?1, ?2, ?3, ?4)",
        (issued.sha256, node, issued.issued_at.0, issued.expires_at.0),
    )?;
    Ok(())
}

/// The columns that [`node_of`] reads, in its order.
const NODE: &str = "name, joined_at, revoked_at, epoch, fenced_at, policy_sequence, certificate_expires, profile, \
                    report, reported_at";

fn key_of(row: &Row<'_>) -> Result<StatementKey, Failure> {
    Ok(StatementKey {
        key: bytes32(row.get(0)?)?,
        since: Timestamp(row.get(1)?),
        until: row.get::<_, Option<i64>>(2)?.map(Timestamp),
    })
}

fn node_of(row: &Row<'_>, statement_keys: Vec<StatementKey>) -> Result<NodeRecord, Failure> {
    let name: String = row.get(0)?;
    let profile: Vec<u8> = row.get(7)?;
    let report: Option<Vec<u8>> = row.get(8)?;
    Ok(NodeRecord {
        name: NodeId::parse(&name).map_err(Failure::damaged)?,
        joined_at: Timestamp(row.get(1)?),
        revoked_at: row.get::<_, Option<i64>>(2)?.map(Timestamp),
        epoch: unsigned(row.get(3)?)?,
        fenced_at: row.get::<_, Option<i64>>(4)?.map(Timestamp),
        policy_sequence: unsigned(row.get(5)?)?,
        certificate_expires: Timestamp(row.get(6)?),
        profile: codec::decode(&profile, limits::FRAME_BYTES_MAX).map_err(Failure::damaged)?,
        report: report
            .map(|bytes| codec::decode(&bytes, limits::FRAME_BYTES_MAX).map_err(Failure::damaged))
            .transpose()?,
        reported_at: row.get::<_, Option<i64>>(9)?.map(Timestamp),
        statement_keys,
    })
}
