//! 陈述: one party's signed word, as COSE_Sign1 (alg −8 Ed25519; protected: alg, content type, kid,
//! CWT claims iss, sub, iat; unprotected empty), at most 16 KiB, idempotent by its SHA-256.

use crate::id::{JobId, NodeId, ResourceRef, TransferId};
use crate::manifest::{Counts, LeftOut, Manifest};
use crate::time::Timestamp;
use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};

/// Where a statement stands among those its party made for one (pair, resource, job, node epoch).
/// Drawn in the store transaction that signs.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Chain {
    #[n(0)]
    pub epoch: u64,
    #[n(1)]
    pub sequence: u64,
    /// SHA-256 of the party's previous statement in this chain.
    #[n(2)]
    pub previous: Option<ByteArray<32>>,
}

/// What is said: the payload of the COSE_Sign1.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Body {
    #[n(0)]
    Provider(#[n(0)] Chain, #[n(1)] Box<Manifest>),
    #[n(1)]
    Consumer(#[n(0)] Chain, #[n(1)] Landing),
    #[n(2)]
    Refusal(#[n(0)] Chain, #[n(1)] Ending),
    #[n(3)]
    Failure(#[n(0)] Chain, #[n(1)] Ending),
    #[n(4)]
    Reconciliation(#[n(0)] Chain, #[n(1)] Reconciled),
    /// An administrative act at the centre: what, who, details as text.
    #[n(5)]
    Act(#[n(0)] String, #[n(1)] String, #[n(2)] String),
}

/// The consumer's word: what was durably landed, from its own counts.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Landing {
    #[n(0)]
    pub transfer: TransferId,
    #[n(1)]
    pub job: JobId,
    #[n(2)]
    pub resource: ResourceRef,
    #[n(3)]
    pub provider: NodeId,
    #[n(4)]
    pub consumer: NodeId,
    #[n(5)]
    pub manifest_sha256: ByteArray<32>,
    #[n(6)]
    pub provider_statement_sha256: ByteArray<32>,
    #[n(7)]
    pub outcome: Outcome,
    #[n(8)]
    pub counts: Counts,
    /// Re-computed from what was landed, never echoed.
    #[n(9)]
    pub content_root: ByteArray<32>,
    #[n(10)]
    pub digest_commitment: Option<ByteArray<32>>,
    #[n(11)]
    pub left_out: Vec<LeftOut>,
    #[n(12)]
    pub left_out_sha256: Option<ByteArray<32>>,
    #[n(13)]
    pub proof: Proof,
    #[n(14)]
    pub committed: Timestamp,
    #[n(15)]
    pub consumer_department: Option<String>,
    #[n(16)]
    pub transport: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum Outcome {
    #[n(0)]
    Landed,
    #[n(1)]
    Partly,
}

/// Proof level: `written` (synced), or `reread` (read back past the page cache).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum Proof {
    #[n(0)]
    Written,
    #[n(1)]
    Reread,
}

/// A transfer that ended without a receipt.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Ending {
    #[n(0)]
    pub transfer: TransferId,
    #[n(1)]
    pub job: JobId,
    #[n(2)]
    pub resource: ResourceRef,
    #[n(3)]
    pub provider: NodeId,
    #[n(4)]
    pub consumer: NodeId,
    #[n(5)]
    pub code: u16,
    #[n(6)]
    pub cause: String,
    #[n(7)]
    pub ended: Timestamp,
}

/// Verdict of a deep reconciliation or an observe job, by the party that compared.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Reconciled {
    #[n(0)]
    pub job: JobId,
    #[n(1)]
    pub resource: ResourceRef,
    #[n(2)]
    pub provider: NodeId,
    #[n(3)]
    pub consumer: NodeId,
    #[n(4)]
    pub matched: bool,
    #[n(5)]
    pub provider_rows: u64,
    #[n(6)]
    pub consumer_rows: u64,
    #[n(7)]
    pub differing: u64,
    #[n(8)]
    pub compared: Timestamp,
}

/// Signs for one party. Ed25519 now; other algorithms name themselves in the statement.
pub trait Signer: Send + Sync {
    /// COSE algorithm number, −8 for Ed25519.
    fn algorithm(&self) -> i64;
    fn public_key(&self) -> [u8; 32];
    fn sign(&self, message: &[u8]) -> Vec<u8>;
}
