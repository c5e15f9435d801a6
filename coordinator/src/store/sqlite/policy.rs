//! Grants, and what one node's policy consists of.

use super::super::Granted;
use super::super::records::{GrantRecord, NodeRecord, PolicyMaterial};
use super::{Failure, membership};
use crate::policy::{Beside, concerned, ending_at, relays};
use posthouse_protocol::id::{GrantId, NodeId, ResourceId, ResourceRef};
use posthouse_protocol::time::Timestamp;
use rusqlite::{Connection, Row, Transaction};

pub(super) fn add_grant(t: &Transaction<'_>, grant: &GrantRecord) -> Result<Granted, Failure> {
    let parties = concerned(grant);
    let mut same = None;
    for known in live(t, grant)? {
        match Beside::of(&known, grant) {
            Beside::InTheWay => return Ok(Granted::Taken(known)),
            Beside::Same => same = Some(known),
            Beside::Apart => {}
        }
    }
    if let Some(known) = same {
        let moved = ending_at(&known, grant.until).ok_or_else(|| Failure::damaged("a grant cannot be read"))?;
        if moved.until != known.until {
            let row = (moved.id.as_str(), moved.until.0, &moved.encoded);
            t.execute("UPDATE grants SET until = ?2, encoded = ?3 WHERE id = ?1", row)?;
            bump(t, Some(&parties))?;
        }
        return Ok(Granted::Moved { grant: moved, until: known.until });
    }
    t.execute(
        "INSERT INTO grants (id, consumer, provider, resource, until, encoded, filter_text, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        (
            grant.id.as_str(),
            grant.consumer.as_str(),
            grant.resource.node.as_str(),
            grant.resource.resource.as_str(),
            grant.until.0,
            &grant.encoded,
            &grant.filter_text,
            grant.created_at.0,
        ),
    )?;
    for relay in relays(grant) {
        t.execute("INSERT INTO relays (grant_id, relay) VALUES (?1, ?2)", (grant.id.as_str(), relay.as_str()))?;
    }
    bump(t, Some(&parties))?;
    Ok(Granted::Added)
}

/// Grants for the same consumer and resource that hold when this one is made.
fn live(t: &Transaction<'_>, grant: &GrantRecord) -> Result<Vec<GrantRecord>, Failure> {
    let mut statement = t.prepare_cached(&format!(
        "SELECT {GRANT} FROM grants WHERE consumer = ?1 AND provider = ?2 AND resource = ?3
             AND revoked_at IS NULL AND until > ?4 ORDER BY created_at DESC, id"
    ))?;
    let (provider, resource) = (grant.resource.node.as_str(), grant.resource.resource.as_str());
    collect(statement.query((grant.consumer.as_str(), provider, resource, grant.created_at.0))?)
}

pub(super) fn grants(c: &Connection) -> Result<Vec<GrantRecord>, Failure> {
    let mut statement = c.prepare_cached(&format!("SELECT {GRANT} FROM grants ORDER BY created_at, id"))?;
    collect(statement.query([])?)
}

pub(super) fn grant(c: &Connection, id: &GrantId) -> Result<Option<GrantRecord>, Failure> {
    let mut statement = c.prepare_cached(&format!("SELECT {GRANT} FROM grants WHERE id = ?1"))?;
    Ok(collect(statement.query([id.as_str()])?)?.pop())
}

pub(super) fn revoke_grant(t: &Transaction<'_>, id: &GrantId, at: Timestamp) -> Result<Option<GrantRecord>, Failure> {
    let changed =
        t.execute("UPDATE grants SET revoked_at = ?2 WHERE id = ?1 AND revoked_at IS NULL", (id.as_str(), at.0))?;
    if changed == 0 {
        return Ok(None);
    }
    let grant = grant(t, id)?;
    if let Some(grant) = &grant {
        bump(t, Some(&concerned(grant)))?;
    }
    Ok(grant)
}

pub(super) fn material(c: &Connection, node: &NodeId) -> Result<Option<PolicyMaterial>, Failure> {
    let Some(own) = membership::node(c, node)? else { return Ok(None) };
    let mut statement = c.prepare_cached(&format!(
        "SELECT {GRANT} FROM grants
         WHERE (consumer = ?1 OR provider = ?1 OR id IN (SELECT grant_id FROM relays WHERE relay = ?1))
             AND revoked_at IS NULL
         ORDER BY created_at DESC, id"
    ))?;
    let grants = collect(statement.query([node.as_str()])?)?;
    let mut statement = c.prepare_cached(&format!(
        "SELECT {GRANT} FROM grants
         WHERE id IN (SELECT grant_id FROM relays)
             AND (consumer = ?1 OR provider = ?1 OR id IN (SELECT grant_id FROM relays WHERE relay = ?1))
             AND revoked_at IS NOT NULL
         ORDER BY revoked_at DESC, id LIMIT ?2"
    ))?;
    let ended = collect(statement.query((node.as_str(), ENDED_LISTED_MAX))?)?;
    let mut statement = c.prepare_cached(ACQUAINTED)?;
    let mut acquainted = Vec::new();
    for name in names(statement.query((node.as_str(), MEMBERS_LISTED_MAX))?)? {
        acquainted.extend(membership::node(c, &name)?);
    }
    let present = |peer: &&NodeRecord| peer.revoked_at.is_none();
    let peers = acquainted.iter().filter(present).cloned().collect();
    let mut statement = c.prepare_cached("SELECT name FROM nodes WHERE revoked_at IS NOT NULL ORDER BY name")?;
    let denied = names(statement.query([])?)?;
    let epoch: Option<String> = membership::meta(c, "policy_epoch")?;
    Ok(Some(PolicyMaterial {
        epoch: epoch.as_deref().unwrap_or("1").parse().map_err(Failure::damaged)?,
        sequence: own.policy_sequence,
        own,
        grants,
        ended,
        acquainted,
        peers,
        denied,
    }))
}

pub(super) fn neighbours(c: &Connection, node: &NodeId) -> Result<Vec<NodeId>, Failure> {
    let mut statement = c.prepare_cached(ACQUAINTED)?;
    names(statement.query((node.as_str(), MEMBERS_LISTED_MAX))?)
}

pub(super) fn bump(t: &Transaction<'_>, nodes: Option<&[NodeId]>) -> Result<(), Failure> {
    match nodes {
        None => {
            t.execute("UPDATE nodes SET policy_sequence = policy_sequence + 1", [])?;
        }
        Some(nodes) => {
            let mut statement =
                t.prepare_cached("UPDATE nodes SET policy_sequence = policy_sequence + 1 WHERE name = ?1")?;
            for node in nodes {
                statement.execute([node.as_str()])?;
            }
        }
    }
    Ok(())
}

fn names(mut rows: rusqlite::Rows<'_>) -> Result<Vec<NodeId>, Failure> {
    let mut out = Vec::new();
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        out.push(NodeId::parse(&name).map_err(Failure::damaged)?);
    }
    Ok(out)
}

const GRANT: &str = "id, consumer, provider, resource, until, encoded, filter_text, created_at, revoked_at";

fn collect(mut rows: rusqlite::Rows<'_>) -> Result<Vec<GrantRecord>, Failure> {
    let mut out = Vec::new();
    while let Some(row) = rows.next()? {
        out.push(grant_of(row)?);
    }
    Ok(out)
}

fn grant_of(row: &Row<'_>) -> Result<GrantRecord, Failure> {
    let text = |at: usize| row.get::<_, String>(at);
    Ok(GrantRecord {
        id: GrantId::parse(&text(0)?).map_err(Failure::damaged)?,
        consumer: NodeId::parse(&text(1)?).map_err(Failure::damaged)?,
        resource: ResourceRef {
            node: NodeId::parse(&text(2)?).map_err(Failure::damaged)?,
            resource: ResourceId::parse(&text(3)?).map_err(Failure::damaged)?,
        },
        until: Timestamp(row.get(4)?),
        encoded: row.get(5)?,
        filter_text: row.get(6)?,
        created_at: Timestamp(row.get(7)?),
        revoked_at: row.get::<_, Option<i64>>(8)?.map(Timestamp),
    })
}

/// Whom a node's policy names: all it ever shared a grant with, as a party or a relay, so that old receipts verify and a refusal after a
/// withdrawn grant can be signed and checked; and, while the members are few, every member, so that a request
/// without any grant meets the provider's own signed refusal instead of a closed door.
const ACQUAINTED: &str = "SELECT provider FROM grants WHERE consumer = ?1
    UNION SELECT consumer FROM grants WHERE provider = ?1
    UNION SELECT relay FROM relays JOIN grants ON grant_id = id WHERE ?1 IN (consumer, provider)
    UNION SELECT consumer FROM grants JOIN relays ON grant_id = id WHERE relay = ?1
    UNION SELECT provider FROM grants JOIN relays ON grant_id = id WHERE relay = ?1
    UNION SELECT other.relay FROM relays own JOIN relays other USING (grant_id) WHERE own.relay = ?1 AND other.relay <> ?1
    UNION SELECT name FROM nodes WHERE name <> ?1 AND revoked_at IS NULL AND (SELECT count(*) FROM nodes) <= ?2
    ORDER BY 1";
const MEMBERS_LISTED_MAX: i64 = 256;
const ENDED_LISTED_MAX: i64 = 1_000;
