//! A node's signed policy: the grants in both directions, its peers and the deny-list; and the
//! [`Permit`], the only proof that a grant covers one transfer. Deny by default; unknown keys deny.
//! [`ActivePolicy`] holds what the node last believed and how fresh that is; an older policy never replaces a newer.
//! Storing it, asking for it and acting on a denial are elsewhere.

mod active;

pub use active::{ActivePolicy, Passing, Permit, Refreshed, Staleness};

use crate::codec;
use crate::cose::{self, CoseError, PublicKey, Signer};
use crate::filter::Filter;
use crate::govern::ColumnMask;
use crate::id::{GrantId, NodeId, ResourceRef};
use crate::limits;
use crate::time::Timestamp;
use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};

/// Payload of the signed policy. Decoded strictly: an unknown key anywhere in a grant makes that grant
/// unusable, so grants are carried as their own encoded bytes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Policy {
    /// `<coordinator name>/log1`
    #[n(0)]
    pub ledger: String,
    #[n(1)]
    pub epoch: u64,
    #[n(2)]
    pub sequence: u64,
    #[n(3)]
    pub issued: Timestamp,
    /// Whose policy this is.
    #[n(4)]
    pub node: NodeId,
    /// Each the deterministic CBOR of a [`Grant`].
    #[n(5)]
    pub grants: Vec<ByteVec>,
    #[n(6)]
    pub peers: Vec<Peer>,
    /// Revoked nodes, everywhere.
    #[n(7)]
    pub denied: Vec<NodeId>,
    #[n(8)]
    pub staleness_seconds: u64,
    #[n(9)]
    pub heartbeat_seconds: u64,
    /// `nodes.cose` of this node and its peers (see `trust`): what exported receipts are verified with.
    #[n(10)]
    pub nodes: ByteVec,
    /// Grants with relays that were withdrawn not long ago: nothing is given by them any more, but what was begun by
    /// them is ended and settled on the same way.
    #[n(11)]
    pub ended: Option<Vec<ByteVec>>,
}

/// Why a policy or a word of freshness was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    #[error(transparent)]
    Envelope(#[from] CoseError),
    #[error("it has a part that this version does not know, or is malformed: {0}")]
    Unknown(String),
    #[error("it is for {0}")]
    OtherNode(NodeId),
    #[error("it is older ({given}) than the one in force ({known})")]
    Older { given: String, known: String },
}

impl Policy {
    /// Signs it with the policy key.
    pub fn sign(&self, coordinator: &NodeId, signer: &dyn Signer) -> Result<Vec<u8>, PolicyError> {
        let claims = cose::Claims::new(coordinator.clone(), self.node.as_str(), self.issued);
        Ok(cose::seal(POLICY_TYPE, &claims, &codec::encode(self), signer)?)
    }

    /// Opens a policy for `node`, signed by this key. An unknown key in the policy itself refuses it whole;
    /// one inside a grant makes that grant unusable.
    pub fn open(bytes: &[u8], node: &NodeId, key: &PublicKey) -> Result<Self, PolicyError> {
        let opened = cose::open(bytes, limits::POLICY_BYTES_MAX, POLICY_TYPE, key)?;
        let policy: Self = codec::decode_strict(&opened.payload, limits::POLICY_BYTES_MAX)
            .map_err(|e| PolicyError::Unknown(e.to_string()))?;
        if policy.node != *node || opened.claims.subject != node.as_str() {
            return Err(PolicyError::OtherNode(policy.node));
        }
        Ok(policy)
    }

    /// (epoch, sequence): a lower one is never accepted.
    pub fn version(&self) -> (u64, u64) {
        (self.epoch, self.sequence)
    }
}

/// Scope, columns, filter, expiry.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Grant {
    #[n(0)]
    pub id: GrantId,
    #[n(1)]
    pub consumer: NodeId,
    #[n(2)]
    pub resource: ResourceRef,
    #[n(3)]
    pub from: Timestamp,
    #[n(4)]
    pub until: Timestamp,
    /// None = all columns.
    #[n(5)]
    pub columns: Option<Vec<String>>,
    #[n(6)]
    pub filter: Option<Filter>,
    /// Network zone that the consumer must be reached in.
    #[n(7)]
    pub zone: Option<String>,
    /// Relays that it goes through, in order from the consumer to the provider; None = the two reach each other.
    #[n(8)]
    pub via: Option<Vec<NodeId>>,
    /// Columns that are masked beyond what their resource itself does. A node of a version that does not know this
    /// denies the grant.
    #[n(9)]
    pub masks: Option<Vec<ColumnMask>>,
}

impl Grant {
    /// Relays in order from the consumer to the provider.
    pub fn route(&self) -> &[NodeId] {
        self.via.as_deref().unwrap_or_default()
    }
    /// Who stands before and after a node on the way from the consumer to the provider.
    pub(crate) fn beside(&self, node: &NodeId) -> Option<(Option<&NodeId>, Option<&NodeId>)> {
        let way: Vec<&NodeId> =
            std::iter::once(&self.consumer).chain(self.route()).chain(std::iter::once(&self.resource.node)).collect();
        let at = way.iter().position(|stop| *stop == node)?;
        let before = at.checked_sub(1).and_then(|before| way.get(before));
        Some((before.copied(), way.get(at + 1).copied()))
    }

    /// As it is carried in a policy.
    pub fn encode(&self) -> ByteVec {
        codec::encode(self).into()
    }
    /// None where it holds anything that this version does not know.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let grant: Self = codec::decode_strict(bytes, limits::GRANT_BYTES_MAX).ok()?;
        grant.masks.iter().flatten().all(|masked| masked.mask.is_valid()).then_some(grant)
    }
    /// SHA-256 of the filter's deterministic CBOR, as it stands in manifests.
    pub fn filter_sha256(&self) -> Option<[u8; 32]> {
        self.filter.as_ref().map(|filter| codec::sha256(&codec::encode(filter)))
    }
}

/// Another node that this node has to do with.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Peer {
    #[n(0)]
    pub node: NodeId,
    /// (zone, address)
    #[n(1)]
    pub addresses: Vec<(Option<String>, String)>,
    /// Present and past public statement keys (Ed25519), newest first.
    #[n(2)]
    pub statement_keys: Vec<ByteArray<32>>,
    #[n(3)]
    pub epoch: u64,
    #[n(4)]
    pub department: Option<String>,
    #[n(5)]
    pub department_code: Option<String>,
    /// What is carried to it in files is sealed to this key (X25519).
    #[n(6)]
    pub ferry_key: Option<ByteArray<32>>,
}

/// Signed in each heartbeat answer: staleness counts from it, on the receiver's monotonic clock.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Freshness {
    #[n(0)]
    pub node: NodeId,
    #[n(1)]
    pub epoch: u64,
    #[n(2)]
    pub sequence: u64,
    #[n(3)]
    pub time: Timestamp,
}

impl Freshness {
    pub fn sign(&self, coordinator: &NodeId, signer: &dyn Signer) -> Result<Vec<u8>, PolicyError> {
        let claims = cose::Claims::new(coordinator.clone(), self.node.as_str(), self.time);
        Ok(cose::seal(FRESHNESS_TYPE, &claims, &codec::encode(self), signer)?)
    }
    pub fn open(bytes: &[u8], node: &NodeId, key: &PublicKey) -> Result<Self, PolicyError> {
        let opened = cose::open(bytes, limits::STATEMENT_BYTES_MAX, FRESHNESS_TYPE, key)?;
        let freshness: Self = codec::decode_strict(&opened.payload, limits::STATEMENT_BYTES_MAX)
            .map_err(|e| PolicyError::Unknown(e.to_string()))?;
        if freshness.node != *node || opened.claims.subject != node.as_str() {
            return Err(PolicyError::OtherNode(freshness.node));
        }
        Ok(freshness)
    }
}

/// Content type of a signed policy.
pub const POLICY_TYPE: &str = "application/vnd.posthouse.policy+cbor";
/// Content type of a signed word of freshness.
pub const FRESHNESS_TYPE: &str = "application/vnd.posthouse.freshness+cbor";
