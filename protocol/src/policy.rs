//! A node's signed policy: the grants in both directions, its peers and the deny-list; and the
//! [`Permit`], the only proof that a grant covers one transfer. Deny by default; unknown keys deny.

use crate::filter::Filter;
use crate::id::{GrantId, NodeId, ResourceRef};
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
}

/// Scope, columns, filter, expiry.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
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
