//! 陈述: one party's signed word, as COSE_Sign1 (alg −8 Ed25519; protected: alg, content type, kid,
//! CWT claims iss, sub, iat; unprotected empty), at most 16 KiB, idempotent by its SHA-256.
//! A [`Statement`] exists only signed or verified, and its issuer is always a party that its body names.
//! The envelope is `cose`; what two statements make together is `receipt` and `reconciliation`.

use crate::codec;
use crate::cose::{self, CoseError, KeyId, Keys};
use crate::govern::Quality;
use crate::id::{GrantId, JobId, NodeId, ResourceRef, TransferId};
use crate::limits;
use crate::manifest::{Counts, LeftOut, Manifest};
use crate::time::Timestamp;
use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};

pub use crate::cose::{Ed25519Signer, Signer};

/// What one party said: the exact bytes, and what they mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    bytes: Vec<u8>,
    sha256: [u8; 32],
    issuer: NodeId,
    issued: Timestamp,
    key_id: KeyId,
    body: Body,
}

/// Why a statement was not made or not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    #[error(transparent)]
    Envelope(#[from] CoseError),
    #[error("its body is not a statement: {0}")]
    Body(String),
    #[error("{issuer} is not a party of what it states")]
    Issuer { issuer: NodeId },
    #[error("its subject does not belong to its body")]
    Subject,
    #[error("it would have {bytes} bytes, at most {max} are allowed")]
    TooLong { bytes: usize, max: usize },
}

impl Statement {
    /// Signs a body; the only way to a new statement.
    pub fn sign(body: Body, issuer: &NodeId, now: Timestamp, signer: &dyn Signer) -> Result<Self, StatementError> {
        if !body.may_be_said_by(issuer) {
            return Err(StatementError::Issuer { issuer: issuer.clone() });
        }
        let claims = cose::Claims::new(issuer.clone(), body.subject(), now);
        let bytes = cose::seal(CONTENT_TYPE, &claims, &codec::encode(&body), signer)?;
        if bytes.len() > limits::STATEMENT_BYTES_MAX {
            return Err(StatementError::TooLong { bytes: bytes.len(), max: limits::STATEMENT_BYTES_MAX });
        }
        Ok(Self {
            sha256: codec::sha256(&bytes),
            bytes,
            issuer: claims.issuer,
            issued: claims.issued,
            key_id: cose::key_id(&signer.public_key()),
            body,
        })
    }

    /// Accepts another party's bytes: canonical, signed by a key of its issuer, said by a party of it.
    pub fn open(bytes: &[u8], keys: &dyn Keys) -> Result<Self, StatementError> {
        let opened = cose::open(bytes, limits::STATEMENT_BYTES_MAX, CONTENT_TYPE, keys)?;
        let body: Body = codec::decode_strict(&opened.payload, limits::STATEMENT_BYTES_MAX)
            .map_err(|e| StatementError::Body(e.to_string()))?;
        if !body.may_be_said_by(&opened.claims.issuer) {
            return Err(StatementError::Issuer { issuer: opened.claims.issuer });
        }
        if body.subject() != opened.claims.subject {
            return Err(StatementError::Subject);
        }
        Ok(Self {
            sha256: codec::sha256(bytes),
            bytes: bytes.to_vec(),
            issuer: opened.claims.issuer,
            issued: opened.claims.issued,
            key_id: opened.key_id,
            body,
        })
    }

    /// Who says a statement is from whom, before it is verified.
    pub fn peek_issuer(bytes: &[u8]) -> Result<NodeId, StatementError> {
        Ok(cose::peek(bytes, limits::STATEMENT_BYTES_MAX)?.0.issuer)
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
    /// Its identity: the same statement twice is one statement.
    pub fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }
    pub fn issuer(&self) -> &NodeId {
        &self.issuer
    }
    /// Whole seconds.
    pub fn issued(&self) -> Timestamp {
        self.issued
    }
    pub fn key_id(&self) -> &KeyId {
        &self.key_id
    }
    pub fn body(&self) -> &Body {
        &self.body
    }
    /// The provider's manifest, where this is a provider's statement.
    pub fn manifest(&self) -> Option<&Manifest> {
        match &self.body {
            Body::Provider(_, manifest) => Some(manifest),
            _ => None,
        }
    }
    /// The consumer's landing, where this is a consumer's statement.
    pub fn landing(&self) -> Option<&Landing> {
        match &self.body {
            Body::Consumer(_, landing) => Some(landing),
            _ => None,
        }
    }
    /// How the transfer ended without a receipt, where this says so.
    pub fn ending(&self) -> Option<&Ending> {
        match &self.body {
            Body::Refusal(_, ending) | Body::Failure(_, ending) => Some(ending),
            _ => None,
        }
    }
}

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
#[expect(clippy::large_enum_variant, reason = "the largest kind, a landing, is half of all statements")]
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
    /// What a relay passed on.
    #[n(6)]
    Passage(#[n(0)] Chain, #[n(1)] Passage),
}

impl Body {
    /// What the statement is about: its transfer, or the job that was reconciled.
    pub fn subject(&self) -> String {
        match self {
            Self::Provider(_, manifest) => manifest.transfer.to_string(),
            Self::Consumer(_, landing) => landing.transfer.to_string(),
            Self::Refusal(_, ending) | Self::Failure(_, ending) => ending.transfer.to_string(),
            Self::Passage(_, passage) => passage.transfer.to_string(),
            Self::Reconciliation(_, reconciled) => format!("{}/{}", reconciled.consumer, reconciled.job),
            Self::Act(what, _, _) => what.clone(),
        }
    }
    pub fn transfer(&self) -> Option<&TransferId> {
        match self {
            Self::Provider(_, manifest) => Some(&manifest.transfer),
            Self::Consumer(_, landing) => Some(&landing.transfer),
            Self::Refusal(_, ending) | Self::Failure(_, ending) => Some(&ending.transfer),
            Self::Passage(_, passage) => Some(&passage.transfer),
            Self::Reconciliation(..) | Self::Act(..) => None,
        }
    }
    /// (provider, consumer)
    pub fn parties(&self) -> Option<(&NodeId, &NodeId)> {
        match self {
            Self::Provider(_, manifest) => Some((&manifest.provider, &manifest.consumer)),
            Self::Consumer(_, landing) => Some((&landing.provider, &landing.consumer)),
            Self::Refusal(_, ending) | Self::Failure(_, ending) => Some((&ending.provider, &ending.consumer)),
            Self::Passage(_, passage) => Some((&passage.resource.node, &passage.consumer)),
            Self::Reconciliation(_, reconciled) => Some((&reconciled.provider, &reconciled.consumer)),
            Self::Act(..) => None,
        }
    }
    pub fn resource(&self) -> Option<&ResourceRef> {
        match self {
            Self::Provider(_, manifest) => Some(&manifest.resource),
            Self::Consumer(_, landing) => Some(&landing.resource),
            Self::Refusal(_, ending) | Self::Failure(_, ending) => Some(&ending.resource),
            Self::Passage(_, passage) => Some(&passage.resource),
            Self::Reconciliation(_, reconciled) => Some(&reconciled.resource),
            Self::Act(..) => None,
        }
    }
    pub fn job(&self) -> Option<&JobId> {
        match self {
            Self::Provider(_, manifest) => Some(&manifest.job),
            Self::Consumer(_, landing) => Some(&landing.job),
            Self::Refusal(_, ending) | Self::Failure(_, ending) => Some(&ending.job),
            Self::Passage(_, passage) => Some(&passage.job),
            Self::Reconciliation(_, reconciled) => Some(&reconciled.job),
            Self::Act(..) => None,
        }
    }
    pub fn chain(&self) -> Option<&Chain> {
        match self {
            Self::Provider(chain, _)
            | Self::Consumer(chain, _)
            | Self::Refusal(chain, _)
            | Self::Failure(chain, _)
            | Self::Reconciliation(chain, _)
            | Self::Passage(chain, _) => Some(chain),
            Self::Act(..) => None,
        }
    }
    /// As it stands in listings.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Provider(..) => "provider",
            Self::Consumer(..) => "consumer",
            Self::Refusal(..) => "refusal",
            Self::Failure(..) => "failure",
            Self::Reconciliation(..) => "reconciliation",
            Self::Act(..) => "act",
            Self::Passage(..) => "passage",
        }
    }
    /// Whether its party says it once of a transfer. A relay speaks of each stretch of time in which lines of it stood.
    pub fn is_said_once(&self) -> bool {
        !matches!(self, Self::Passage(..))
    }
    /// A provider speaks as the provider, a consumer as the consumer, a relay as itself; the rest either party may say.
    /// Acts are the coordinator's, whose key alone the trust holds for them.
    fn may_be_said_by(&self, issuer: &NodeId) -> bool {
        // A resource is offered by the node whose name it carries.
        if self.parties().zip(self.resource()).is_some_and(|((provider, _), resource)| resource.node != *provider) {
            return false;
        }
        match (self, self.parties()) {
            (Self::Provider(..), Some((provider, _))) => issuer == provider,
            (Self::Consumer(..), Some((_, consumer))) => issuer == consumer,
            (Self::Passage(_, passage), _) => *issuer == passage.relay,
            (_, Some((provider, consumer))) => issuer == provider || issuer == consumer,
            (_, None) => true,
        }
    }
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
    /// What the consumer's rules found in the rows that came. None: it has none.
    #[n(17)]
    pub quality: Option<Quality>,
    /// The same as the manifest's, of the line that the rows were landed over.
    #[n(20)]
    pub database_line: Option<String>,
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

/// A relay's word: what passed through it between the two parties of a transfer, which it cannot read.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Passage {
    #[n(0)]
    pub transfer: TransferId,
    #[n(1)]
    pub job: JobId,
    #[n(2)]
    pub resource: ResourceRef,
    #[n(3)]
    pub consumer: NodeId,
    #[n(4)]
    pub relay: NodeId,
    #[n(5)]
    pub grant: GrantId,
    /// Bytes as the parties encrypted them.
    #[n(6)]
    pub to_consumer: u64,
    #[n(7)]
    pub to_provider: u64,
    /// When the first line of this stretch stood, and when the last had ended.
    #[n(8)]
    pub began: Timestamp,
    #[n(9)]
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

/// Content type of every statement.
pub const CONTENT_TYPE: &str = "application/vnd.posthouse.statement+cbor";
