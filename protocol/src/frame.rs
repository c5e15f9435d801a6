//! What nodes say to each other on a control channel, as deterministic CBOR behind a length.
//! On the line: u32 big-endian length (at most `FRAME_BYTES_MAX`), then the CBOR of one [`Frame`].
//! Unknown keys inside a frame are ignored, so that versions N and N−1 talk; an unknown frame closes the channel.
//! Reading and writing them on a line, and the version spoken, are in [`line`].
//!
//! A take: consumer `Request` → provider `Offer` | `Refused` → consumer `Accept` → provider `Entries`…
//! `EntriesEnd`, consumer `Pieces`…/`Want`…/`Credit`…/`Kept`…, chunks on the data channels, provider `Sealed`… →
//! provider `Handover` (its signed statement) → consumer `Landed` (its own) → provider `Settled`.
//! A push is an `Invite`: the consumer then takes as usual.

pub mod line;
#[cfg(test)]
pub(crate) mod samples;

pub use line::{FrameDecoder, FrameError};

use crate::format::Native;
use crate::govern::Governed;
use crate::id::{GrantId, JobId, NodeId, ResourceId, ResourceRef, TransferId};
use crate::job::{Mode, Write};
use crate::manifest::{Entry, LeftOut};
use crate::problem::{Code, Problem};
use crate::schema::Contract;
use crate::watermark::Watermark;
use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Frame {
    /// First on every channel: what the channel is for.
    #[n(0)]
    Hello(#[n(0)] Hello),
    #[n(1)]
    Request(#[n(0)] Request),
    #[n(2)]
    Offer(#[n(0)] Offer),
    #[n(3)]
    Accept(#[n(0)] Accept),
    #[n(4)]
    Entries(#[n(0)] Vec<Entry>),
    #[n(5)]
    EntriesEnd(#[n(0)] EntriesEnd),
    #[n(6)]
    Want(#[n(0)] Vec<Want>),
    #[n(7)]
    Credit(#[n(0)] u64),
    /// The entry's content has been read to its end; carries its final size, mtime and root.
    #[n(8)]
    Sealed(#[n(0)] Vec<Entry>),
    /// The entry changed while it was read and is read again under a higher revision: drop its chunks, want anew.
    #[n(9)]
    Again(#[n(0)] Entry),
    /// Either side: in scope, but not handed over. An entry that was listed is out of the list with it.
    #[n(10)]
    LeftOut(#[n(0)] Vec<Omission>),
    #[n(11)]
    Handover(#[n(0)] Handover),
    /// The consumer's signed statement, after its durable commit.
    #[n(12)]
    Landed(#[n(0)] ByteVec),
    /// The provider has stored the consumer's statement: SHA-256 of it.
    #[n(13)]
    Settled(#[n(0)] ByteArray<32>),
    #[n(14)]
    Refused(#[n(0)] Refused),
    #[n(15)]
    Failed(#[n(0)] Refused),
    /// Answer to `Refused` or `Failed`: the other side's own refusal or failure statement (it may be empty).
    #[n(16)]
    Noted(#[n(0)] ByteVec),
    #[n(17)]
    Invite(#[n(0)] Invite),
    #[n(18)]
    Invited(#[n(0)] Invited),
    #[n(19)]
    Ping(#[n(0)] u64),
    #[n(20)]
    Pong(#[n(0)] u64),
    /// Deep reconciliation: asks the provider to digest its standing table for this job.
    #[n(21)]
    Digest(#[n(0)] DigestRequest),
    #[n(22)]
    DigestAnswer(#[n(0)] DigestAnswer),
    #[n(23)]
    Keys(#[n(0)] KeysRequest),
    #[n(24)]
    KeysAnswer(#[n(0)] KeysAnswer),
    /// To and from the coordinator.
    #[n(25)]
    Centre(#[n(0)] crate::centre::CentreRequest),
    #[n(26)]
    CentreAnswer(#[n(0)] crate::centre::CentreAnswer),
    /// A dry run: asks the provider what it would offer.
    #[n(27)]
    Plan(#[n(0)] PlanRequest),
    #[n(28)]
    PlanAnswer(#[n(0)] PlanAnswer),
    /// Splits that are in the consumer's destination, by their numbers: nothing of them is asked for again.
    #[n(29)]
    Kept(#[n(0)] Vec<u64>),
    /// What is at the consumer and may be in an entry: of its chunks only the rest is to be sent. Before its `Want`.
    #[n(30)]
    Pieces(#[n(0)] Pieces),
}

/// What a channel is for.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Purpose {
    /// Frames of one transfer.
    #[n(0)]
    Control(#[n(0)] TransferId),
    /// Chunks of one transfer, provider to consumer; no frames follow.
    #[n(1)]
    Data(#[n(0)] TransferId, #[n(1)] u8),
    /// One question, one answer (or for `Invite`, its outcome).
    #[n(2)]
    Ask,
    /// A line to be passed on: `Hello` answers once it stands to its end, `Refused` where it may not or cannot; then
    /// come the bytes of the two ends, TLS 1.3 over TCP as between neighbours.
    #[n(3)]
    Relay(#[n(0)] Relay),
}

/// What a line through relays is for. The grant says which way it goes; who is at its ends shows by their certificates.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(map)]
pub struct Relay {
    #[n(0)]
    pub consumer: NodeId,
    #[n(1)]
    pub resource: ResourceRef,
    #[n(2)]
    pub job: JobId,
    /// None: a question or an invitation.
    #[n(3)]
    pub transfer: Option<TransferId>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Hello {
    #[n(0)]
    pub version_min: u16,
    #[n(1)]
    pub version_max: u16,
    #[n(2)]
    pub features: Vec<String>,
    #[n(3)]
    pub software: String,
    #[n(4)]
    pub purpose: Purpose,
    /// The sender's node epoch: a lower one than known is a restored copy, and is fenced.
    #[n(5)]
    pub epoch: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Request {
    #[n(0)]
    pub transfer: TransferId,
    #[n(1)]
    pub job: JobId,
    #[n(2)]
    pub resource: ResourceId,
    #[n(3)]
    pub mode: Mode,
    #[n(4)]
    pub write: Write,
    #[n(5)]
    pub watermark: Option<Watermark>,
    #[n(6)]
    pub route: Vec<NodeId>,
    #[n(7)]
    pub consumer_epoch: u64,
    #[n(8)]
    pub succeeds: Option<TransferId>,
    /// Set when the consumer has already committed and only the statements are to be exchanged.
    #[n(9)]
    pub committed: bool,
    /// Forms of rows that this side takes beside Arrow, by name; see [`crate::format::Format`].
    #[n(10)]
    pub formats: Option<Vec<String>>,
    /// What values are to be taken for; see [`crate::govern::Dialect`]. An offer names those that are in force.
    #[n(11)]
    pub rules: Option<Vec<Governed>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Offer {
    #[n(0)]
    pub transfer: TransferId,
    #[n(1)]
    pub grant: GrantId,
    #[n(2)]
    pub policy_epoch: u64,
    #[n(3)]
    pub policy_sequence: u64,
    #[n(4)]
    pub provider_epoch: u64,
    /// None for folders.
    #[n(5)]
    pub contract: Option<Contract>,
    #[n(6)]
    pub catalog: Option<crate::catalog::CatalogRef>,
    #[n(7)]
    pub watermark_to: Option<Watermark>,
    /// Salt of this transfer's commitments, 32 random bytes; both parties keep it.
    #[n(8)]
    pub salt: ByteArray<32>,
    #[n(9)]
    pub data_channels: u8,
    /// Key for the row digest, derived by the provider from resource, contract and digest epoch.
    #[n(10)]
    pub digest_key: ByteArray<32>,
    /// Of an incremental transfer: the contract's column whose values are its watermarks. Rows around the last
    /// mark come again, and the consumer tells by it which ones.
    #[n(11)]
    pub watermark_column: Option<String>,
    /// Of a table: its rows travel in this form, one of the request's, instead of Arrow.
    #[n(12)]
    pub native: Option<Native>,
    /// Of a table: what was done to its columns before they are handed over. None: nothing.
    #[n(13)]
    pub governed: Option<Vec<Governed>>,
    /// Of a front-end table: the contract's last column, which says what each row does and is no column of what is
    /// landed in; see [`crate::operation`]. Only to a consumer that names `OPERATIONS` among its features.
    #[n(14)]
    pub operation: Option<String>,
    /// Of a table: how the line to its database is secured, as the manifest will say it.
    #[n(16)]
    pub database_line: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Accept {
    #[n(0)]
    pub data_channels: u8,
    #[n(1)]
    pub credit: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct EntriesEnd {
    #[n(0)]
    pub entries: u64,
    #[n(1)]
    pub bytes: u64,
}

/// Chunks of one entry that the consumer lacks: half-open ranges of chunk numbers, ascending; empty = it has all.
/// Each entry is answered once; a later `Want` asks for more of it, or for some of it again.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Want {
    #[n(0)]
    pub entry: u64,
    #[n(1)]
    pub revision: u32,
    #[n(2)]
    pub chunks: Vec<(u32, u32)>,
}

/// Pieces of a content that the consumer has, in order; those of several frames follow each other. Without any, what
/// was told of that content before is void.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Pieces {
    #[n(0)]
    pub entry: u64,
    #[n(1)]
    pub revision: u32,
    /// How the content was cut: the mean length of a piece.
    #[n(2)]
    pub mean: u32,
    /// Of each piece the first 8 bytes of its BLAKE3 hash and its length, see [`crate::delta`].
    #[n(3)]
    pub pieces: ByteVec,
}

/// What is left out, with its number if it was listed as an entry.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Omission {
    #[n(0)]
    pub entry: Option<u64>,
    #[n(1)]
    pub what: LeftOut,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Handover {
    /// COSE_Sign1 with the manifest as payload.
    #[n(0)]
    pub statement: ByteVec,
    /// Row digest sum (32 bytes little-endian) and count, opened to the peer (tables).
    #[n(1)]
    pub digest: Option<(ByteArray<32>, u64)>,
    /// For whoever asks what held the transfer up; no part of what is signed, and nothing is decided by it.
    #[n(2)]
    pub spent: Option<Spent>,
}

/// Milliseconds that the provider waited for something, which may overlap; those of this run of its node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Spent {
    /// For its source to give what was read.
    #[n(0)]
    pub source_ms: u64,
    /// For the line to take what was to be sent.
    #[n(1)]
    pub line_ms: u64,
}

/// Also the body of `Failed`. The statement is the sender's refusal or failure statement.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Refused {
    #[n(0)]
    pub code: u16,
    #[n(1)]
    pub cause: String,
    #[n(2)]
    pub statement: ByteVec,
    /// Whether trying the same again later may help (busy, paused) without anybody changing anything.
    #[n(3)]
    pub temporary: bool,
    /// What the code's title is about in this case, by name, as `Problem::told` gives it.
    #[n(4)]
    pub facts: Option<Vec<(String, String)>>,
}

impl Refused {
    /// What became of `problem` at the side that was told; what that one knows itself of it counts first.
    pub fn problem(&self, known: &[(&str, &dyn std::fmt::Display)]) -> Problem {
        let code = Code::from_number(self.code).unwrap_or(Code::InsideFailed);
        let problem = known.iter().fold(Problem::new(code), |problem, (name, value)| problem.with(name, value));
        problem.heard(&self.cause, self.facts.as_deref().unwrap_or_default())
    }
}

/// A provider pushes: asks the consumer to take `resource` by its job that accepts `PROVIDER/job`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Invite {
    #[n(0)]
    pub job: JobId,
    #[n(1)]
    pub resource: ResourceId,
    #[n(2)]
    pub mode: Mode,
    /// One run of the provider's job, at random: a repeat of it is answered by the same transfer.
    #[n(3)]
    pub run: Option<ByteArray<16>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Invited {
    /// The transfer the consumer runs for it (a running one is joined).
    #[n(0)]
    pub transfer: Option<TransferId>,
    #[n(1)]
    pub refused: Option<Refused>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct DigestRequest {
    #[n(0)]
    pub job: JobId,
    #[n(1)]
    pub resource: ResourceId,
    /// Upper bound of what the consumer has landed (incremental jobs).
    #[n(2)]
    pub watermark: Option<Watermark>,
    /// As in the job's requests.
    #[n(3)]
    pub rules: Option<Vec<Governed>>,
}

/// A standing table's digest: per bucket a 256-bit little-endian sum and a count.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct DigestAnswer {
    #[n(0)]
    pub key: ByteArray<32>,
    #[n(1)]
    pub contract: Option<Contract>,
    /// `BUCKETS` × (32-byte sum ‖ 8-byte little-endian count).
    #[n(2)]
    pub buckets: ByteVec,
    #[n(3)]
    pub rows: u64,
    #[n(4)]
    pub refused: Option<Refused>,
    /// A bit for each bucket, lowest first, set where it is no longer what this side's last receipt for the
    /// job says; none where there is no such receipt.
    #[n(5)]
    pub left: Option<ByteVec>,
    /// The contract's column that the request's watermark bounds.
    #[n(6)]
    pub watermark_column: Option<String>,
    /// What is done to the rows now, as an offer says it; empty: nothing. None: that side does not say.
    #[n(7)]
    pub governed: Option<Vec<Governed>>,
}

/// Asks for the keys and row hashes in some buckets.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct KeysRequest {
    #[n(0)]
    pub job: JobId,
    #[n(1)]
    pub resource: ResourceId,
    #[n(2)]
    pub buckets: Vec<u16>,
    #[n(3)]
    pub watermark: Option<Watermark>,
    /// As in the job's requests.
    #[n(4)]
    pub rules: Option<Vec<Governed>>,
}

/// A row by its key (as text, parts joined by `,`), with its bucket and its hash.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RowKey {
    #[n(0)]
    pub key: String,
    #[n(1)]
    pub bucket: u16,
    #[n(2)]
    pub hash: ByteArray<32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct KeysAnswer {
    #[n(0)]
    pub keys: Vec<RowKey>,
    /// More differed than fit in one frame.
    #[n(1)]
    pub truncated: bool,
    #[n(2)]
    pub refused: Option<Refused>,
}

/// As in a `Request` that would follow; nothing is stored and nothing moves.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PlanRequest {
    #[n(0)]
    pub job: JobId,
    #[n(1)]
    pub resource: ResourceId,
    #[n(2)]
    pub mode: Mode,
    #[n(3)]
    pub watermark: Option<Watermark>,
    #[n(4)]
    pub formats: Option<Vec<String>>,
    #[n(5)]
    pub rules: Option<Vec<Governed>>,
}

/// What is offered for it at this moment.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PlanAnswer {
    /// None: a folder.
    #[n(0)]
    pub contract: Option<Contract>,
    #[n(1)]
    pub native: Option<Native>,
    /// Splits of a table, files of a folder.
    #[n(2)]
    pub entries: u64,
    /// Estimates, where the source has any.
    #[n(3)]
    pub rows: Option<u64>,
    #[n(4)]
    pub bytes: Option<u64>,
    #[n(5)]
    pub watermark_to: Option<Watermark>,
    #[n(6)]
    pub watermark_column: Option<String>,
    /// Why the rows do not travel in a native form that was asked for.
    #[n(7)]
    pub apart: Option<String>,
    #[n(8)]
    pub refused: Option<Refused>,
}
