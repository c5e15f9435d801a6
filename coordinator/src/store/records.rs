//! What the store's rows say, as the rest of the coordinator reads them.

use crate::admin::Role;
use posthouse_protocol::centre::{Heartbeat, Profile};
use posthouse_protocol::cose::{self, KeyId, Keys, PublicKey};
use posthouse_protocol::id::{GrantId, NodeId, ResourceRef, TransferId};
use posthouse_protocol::limits;
use posthouse_protocol::time::Timestamp;

#[derive(Debug, Clone)]
pub(crate) struct NodeRecord {
    pub(crate) name: NodeId,
    pub(crate) joined_at: Timestamp,
    pub(crate) revoked_at: Option<Timestamp>,
    pub(crate) epoch: u64,
    pub(crate) fenced_at: Option<Timestamp>,
    pub(crate) policy_sequence: u64,
    pub(crate) certificate_expires: Timestamp,
    pub(crate) profile: Profile,
    pub(crate) report: Option<Heartbeat>,
    pub(crate) reported_at: Option<Timestamp>,
    /// Newest first.
    pub(crate) statement_keys: Vec<StatementKey>,
}

/// A present or past key of a node's statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StatementKey {
    pub(crate) key: [u8; 32],
    pub(crate) since: Timestamp,
    /// When another took its place.
    pub(crate) until: Option<Timestamp>,
}

/// The keys that one node's statements are verified with.
pub(crate) struct StatementKeys {
    pub(crate) node: NodeId,
    pub(crate) keys: Vec<StatementKey>,
}

pub(crate) fn registered(node: &NodeRecord) -> StatementKeys {
    StatementKeys { node: node.name.clone(), keys: node.keys() }
}

impl NodeRecord {
    /// All keys, newest first; those of a revoked node end with its revocation.
    pub(crate) fn keys(&self) -> Vec<StatementKey> {
        let ended = |known: &StatementKey| StatementKey { until: known.until.or(self.revoked_at), ..*known };
        self.statement_keys.iter().map(ended).collect()
    }
}

impl Keys for StatementKeys {
    fn find(&self, issuer: &NodeId, key: &KeyId, issued: Timestamp) -> Option<PublicKey> {
        if *issuer != self.node {
            return None;
        }
        // Refused only where it had been replaced when it signed: clocks may differ by a little.
        self.keys
            .iter()
            .find(|known| cose::key_id(&known.key) == *key)
            .filter(|known| known.until.is_none_or(|until| issued.since_ms(until) <= limits::CLOCK_SKEW_MS))
            .map(|known| known.key)
    }
}

/// The same keys for what the ledger holds: whether a key could sign was judged when the statement was taken.
pub(crate) struct Taken<'k>(pub(crate) &'k StatementKeys);

impl Keys for Taken<'_> {
    fn find(&self, issuer: &NodeId, key: &KeyId, _: Timestamp) -> Option<PublicKey> {
        let known = self.0.keys.iter().find(|known| cose::key_id(&known.key) == *key);
        known.filter(|_| *issuer == self.0.node).map(|known| known.key)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct TokenRecord {
    pub(crate) hash: [u8; 32],
    pub(crate) node: NodeId,
    pub(crate) created_at: Timestamp,
    pub(crate) expires_at: Timestamp,
}

/// A certificate that was issued.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Issued {
    pub(crate) sha256: [u8; 32],
    pub(crate) issued_at: Timestamp,
    pub(crate) expires_at: Timestamp,
}

/// What became of a token's use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joining {
    /// The highest epoch known of this name: the node starts above it.
    Joined {
        epoch: u64,
    },
    Unknown,
    Used,
    Expired,
    /// The name belongs to a node that is not revoked.
    AlreadyJoined,
}

#[derive(Debug, Clone)]
pub(crate) struct GrantRecord {
    pub(crate) id: GrantId,
    pub(crate) consumer: NodeId,
    pub(crate) resource: ResourceRef,
    pub(crate) until: Timestamp,
    /// Deterministic CBOR of the grant, as policies carry it.
    pub(crate) encoded: Vec<u8>,
    pub(crate) filter_text: Option<String>,
    pub(crate) created_at: Timestamp,
    pub(crate) revoked_at: Option<Timestamp>,
}

#[derive(Debug, Clone)]
pub(crate) struct PolicyMaterial {
    pub(crate) epoch: u64,
    pub(crate) sequence: u64,
    pub(crate) own: NodeRecord,
    /// Not revoked ones, in both directions, by id.
    pub(crate) grants: Vec<GrantRecord>,
    /// Withdrawn ones with relays on their way, the latest first.
    pub(crate) ended: Vec<GrantRecord>,
    /// Every node that it ever shared a grant with: receipts of long ago are verified with their keys.
    pub(crate) acquainted: Vec<NodeRecord>,
    /// The other ends of these grants.
    pub(crate) peers: Vec<NodeRecord>,
    pub(crate) denied: Vec<NodeId>,
}

#[derive(Debug, Clone)]
pub(crate) struct AccessRecord {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) hash: [u8; 32],
    pub(crate) created_at: Timestamp,
    pub(crate) last_used_at: Option<Timestamp>,
}

/// From `from` up to, not including, `until`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) from: Timestamp,
    pub(crate) until: Timestamp,
}

impl Window {
    pub(crate) const ALL: Self = Self { from: Timestamp(i64::MIN), until: Timestamp(i64::MAX) };
}

/// At most `limit` rows that come after `after` in the order of the list.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    pub(crate) after: Option<(Timestamp, TransferId)>,
    pub(crate) limit: u64,
}
