//! What nodes and the coordinator say to each other, as frames `Centre` and `CentreAnswer` on `Ask` channels.
//! A node asks over the connection it dialled; the coordinator asks (notices) over the same connection.
//! Joining and renewing with an expired certificate use ALPN `posthouse-join/1`, where only
//! `Join` and `Return` are answered.

use crate::id::{NodeId, TransferId};
use crate::job::{Mode, State};
use crate::time::Timestamp;
use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[expect(clippy::large_enum_variant, reason = "one is asked at a time")]
pub enum CentreRequest {
    // a node asks the coordinator
    #[n(0)]
    Join(#[n(0)] Join),
    /// Comes back with an expired certificate: proof by the registered statement key.
    #[n(1)]
    Return(#[n(0)] Return),
    #[n(2)]
    Renew(#[n(0)] Renew),
    #[n(3)]
    Heartbeat(#[n(0)] Box<Heartbeat>),
    #[n(4)]
    Policy,
    /// Statements, oldest first; repeated ones are answered like new ones.
    #[n(5)]
    Submit(#[n(0)] Vec<ByteVec>),
    /// SHA-256 of statements whose proofs are asked for again.
    #[n(6)]
    Proofs(#[n(0)] Vec<ByteArray<32>>),
    /// Ask this peer to dial me.
    #[n(7)]
    AskDial(#[n(0)] NodeId),
    // the coordinator asks a node
    #[n(8)]
    PolicyChanged,
    #[n(9)]
    Dial(#[n(0)] Dial),
    /// Run a deep reconciliation of a job; answered when done.
    #[n(10)]
    Reconcile(#[n(0)] crate::id::JobId),
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum CentreAnswer {
    #[n(0)]
    Joined(#[n(0)] Box<Joined>),
    #[n(1)]
    Renewed(#[n(0)] Renewed),
    #[n(2)]
    Heartbeat(#[n(0)] HeartbeatAnswer),
    /// COSE_Sign1 by the policy key over a `policy::Policy`.
    #[n(3)]
    Policy(#[n(0)] ByteVec),
    #[n(4)]
    Proofs(#[n(0)] Vec<Proof>),
    #[n(5)]
    Done,
    /// A PH code and its cause.
    #[n(6)]
    Refused(#[n(0)] u16, #[n(1)] String),
    /// Findings of a deep reconciliation as JSON (an array of `reconciliation::Finding`).
    #[n(7)]
    Findings(#[n(0)] String),
    /// `Return` before its proof: sign these 32 bytes.
    #[n(8)]
    Challenge(#[n(0)] ByteArray<32>),
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Join {
    #[n(0)]
    pub node: NodeId,
    /// The secret of the join token.
    #[n(1)]
    pub secret: ByteVec,
    /// PKCS#10 in DER; its key stays on the node.
    #[n(2)]
    pub csr: ByteVec,
    /// Ed25519 public key of the node's statements.
    #[n(3)]
    pub statement_key: ByteArray<32>,
    #[n(4)]
    pub profile: Profile,
    #[n(5)]
    pub now: Timestamp,
}

/// What the node says of itself, from its configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct Profile {
    #[n(0)]
    pub department: Option<String>,
    #[n(1)]
    pub department_code: Option<String>,
    #[n(2)]
    pub division: Option<String>,
    /// (zone, address) pairs where others can dial this node; empty = dials out only.
    #[n(3)]
    pub advertise: Vec<(Option<String>, String)>,
    #[n(4)]
    pub version: String,
    /// Resources it offers, with their catalog reference.
    #[n(5)]
    pub resources: Vec<(crate::id::ResourceId, Option<crate::catalog::CatalogRef>)>,
    /// What is carried to it in files is sealed to this key (X25519).
    #[n(6)]
    pub ferry_key: Option<ByteArray<32>>,
}

/// First without proof (answered by `Challenge`), then with it, on the same channel.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Return {
    #[n(0)]
    pub node: NodeId,
    #[n(1)]
    pub csr: ByteVec,
    /// Ed25519 signature by the registered statement key over `"posthouse return" ‖ challenge ‖ SHA-256(csr)`.
    #[n(2)]
    pub proof: Option<ByteVec>,
    #[n(3)]
    pub now: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Renew {
    #[n(0)]
    pub csr: ByteVec,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Joined {
    /// Certificate chain in DER, leaf first, CA last.
    #[n(0)]
    pub chain: Vec<ByteVec>,
    #[n(1)]
    pub policy_key: ByteArray<32>,
    /// Signed-note verifier key of the ledger.
    #[n(2)]
    pub ledger_vkey: String,
    #[n(3)]
    pub policy: ByteVec,
    #[n(4)]
    pub now: Timestamp,
    /// The highest epoch known of this name: the node starts above it, or it would be fenced as a copy.
    #[n(5)]
    pub epoch: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Renewed {
    #[n(0)]
    pub chain: Vec<ByteVec>,
    #[n(1)]
    pub now: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Heartbeat {
    #[n(0)]
    pub epoch: u64,
    #[n(1)]
    pub now: Timestamp,
    #[n(2)]
    pub profile: Profile,
    #[n(3)]
    pub policy_epoch: u64,
    #[n(4)]
    pub policy_sequence: u64,
    #[n(5)]
    pub disk_free_bytes: u64,
    /// Statements waiting to be sent to the centre.
    #[n(6)]
    pub outbox: u64,
    /// Age in seconds of the oldest of them, 0 when there is none.
    #[n(7)]
    pub lag_seconds: u64,
    #[n(8)]
    pub certificate_expires: Timestamp,
    /// Transfers under way or ended since the last heartbeat.
    #[n(9)]
    pub transfers: Vec<Progress>,
    #[n(10)]
    pub jobs: u64,
    /// Last error, code and cause.
    #[n(11)]
    pub last_error: Option<(u16, String)>,
}

/// One transfer as its node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Progress {
    #[n(0)]
    pub transfer: TransferId,
    #[n(1)]
    pub job: crate::id::JobId,
    #[n(2)]
    pub resource: crate::id::ResourceRef,
    #[n(3)]
    pub consumer: NodeId,
    #[n(4)]
    pub mode: Mode,
    #[n(5)]
    pub state: State,
    #[n(6)]
    pub rows: u64,
    #[n(7)]
    pub files: u64,
    #[n(8)]
    pub bytes: u64,
    #[n(9)]
    pub bytes_total: u64,
    #[n(10)]
    pub started: Timestamp,
    #[n(11)]
    pub code: Option<u16>,
    #[n(12)]
    pub cause: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct HeartbeatAnswer {
    /// COSE_Sign1 by the policy key over a `policy::Freshness`.
    #[n(0)]
    pub freshness: ByteVec,
    /// The epoch is not the highest known for this node: it is a restored copy and must stop.
    #[n(1)]
    pub fenced: bool,
    #[n(2)]
    pub now: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Dial {
    #[n(0)]
    pub peer: NodeId,
    #[n(1)]
    pub addresses: Vec<String>,
}

/// Evidence that a statement is in the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Proof {
    /// SHA-256 of the statement.
    #[n(0)]
    pub statement: ByteArray<32>,
    #[n(1)]
    pub index: u64,
    /// RFC 9942 COSE receipt, see `ledger`.
    #[n(2)]
    pub inclusion: ByteVec,
    /// C2SP signed checkpoint that the inclusion proof leads to.
    #[n(3)]
    pub checkpoint: String,
    /// A statement that can't be taken: PH code and cause; the other fields are then empty.
    #[n(4)]
    pub refused: Option<(u16, String)>,
}
