//! 数据交接单: what exactly one transfer hands over, and the entries it consists of.
//! The manifest is the payload of the provider's statement. The entry list is an attachment bound
//! by SHA-256 and kept by both parties; each entry's root is the plain BLAKE3 hash of its bytes.
//! How names are checked is in [`name`], which attributes may travel in [`attribute`], how lists are added up in [`list`].

pub mod attribute;
pub mod list;
pub mod name;

pub use attribute::{AttributeError, check_attributes};
pub use list::{EntryList, EntryTotals, LeftOuts, files_b3_line};
pub use name::{EntryName, NameError, follows};

use crate::catalog::CatalogRef;
use crate::govern::{Governed, Quality};
use crate::id::{GrantId, JobId, NodeId, ResourceRef, TransferId};
use crate::job::{Mode, Write};
use crate::operation::Operation;
use crate::time::Timestamp;
use crate::watermark::Watermark;
use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};

/// What an entry is: part of a folder, or a split of a table.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum EntryKind {
    #[n(0)]
    File,
    #[n(1)]
    Directory,
    /// Landed as text, never followed.
    #[n(2)]
    Link(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// Rows of one split as an Arrow IPC stream; its name is its bounds, the same bounds give the same name.
    #[n(3)]
    Split(#[n(0)] SplitCounts),
}

/// Rows of one split at the provider: read = sent + filtered + quarantined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct SplitCounts {
    #[n(0)]
    pub read: u64,
    #[n(1)]
    pub sent: u64,
    #[n(2)]
    pub filtered: u64,
    #[n(3)]
    pub quarantined: u64,
    /// Values that the resource's rules changed; None where it has none.
    #[n(4)]
    pub changed: Option<u64>,
    /// Of a front-end table: what the rows that were sent do. None: it is none.
    #[n(5)]
    pub operations: Option<Operations>,
}

/// Rows of a front-end table by what they do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode, serde::Serialize, serde::Deserialize)]
#[cbor(map)]
pub struct Operations {
    #[n(0)]
    pub inserts: u64,
    #[n(1)]
    pub updates: u64,
    #[n(2)]
    pub deletes: u64,
}

/// One file, directory, link or split. Indexes count from 0 within one offer and may differ after a
/// provider's restart; names do not.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Entry {
    #[n(0)]
    pub index: u64,
    /// Relative path with `/` between components, as the raw bytes of the provider's file system; or a split's name.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub name: Vec<u8>,
    #[n(2)]
    pub kind: EntryKind,
    #[n(3)]
    pub size: u64,
    /// Permission bits (07777); 0 for splits.
    #[n(4)]
    pub mode: u32,
    /// Nanoseconds since 1970-01-01 UTC; 0 for splits.
    #[n(5)]
    pub mtime_ns: i64,
    /// BLAKE3 of the content, once known; links: of the link text; directories: none. An entry that is listed
    /// with its root is sealed already; `Sealed` follows only for the others.
    #[n(6)]
    pub root: Option<ByteArray<32>>,
    /// How often this entry has been read again because it changed while it was read.
    #[n(7)]
    pub revision: u32,
    /// The number of an entry that is this file under another name, a hard link: of an earlier one, or its own where
    /// others follow. A hint of one run, which no list holds: what its content is says the root.
    #[n(8)]
    pub same_as: Option<u64>,
    /// Extended attributes of a file or directory, in the order of their names. None: nothing is said of them, and what
    /// has any at the consumer keeps them; an empty list: it has none.
    #[n(9)]
    pub attributes: Option<Vec<Attribute>>,
}

/// One extended attribute, of the namespace `user.`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Attribute {
    /// With its namespace.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub name: Vec<u8>,
    #[cbor(n(1), with = "minicbor::bytes")]
    pub value: Vec<u8>,
}

/// Something in scope that was not handed over, with its reason (refused by name).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct LeftOut {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub name: Vec<u8>,
    /// PH code number
    #[n(1)]
    pub code: u16,
    #[n(2)]
    pub reason: String,
}

/// One side's counts. Tables: rows; folders: files, directories and links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode, serde::Serialize, serde::Deserialize)]
#[cbor(map)]
pub struct Counts {
    #[n(0)]
    pub rows_read: u64,
    #[n(1)]
    pub rows_sent: u64,
    #[n(2)]
    pub rows_filtered: u64,
    /// at the side that states it
    #[n(3)]
    pub rows_quarantined: u64,
    /// rows durably landed (consumer only); includes overlap rows that were already there
    #[n(4)]
    pub rows_landed: u64,
    #[n(5)]
    pub files: u64,
    #[n(6)]
    pub directories: u64,
    #[n(7)]
    pub links: u64,
    #[n(8)]
    pub refused: u64,
    /// content bytes in scope
    #[n(9)]
    pub bytes: u64,
    #[n(10)]
    pub rows_deleted: u64,
    /// Values that the resource's rules changed; None where it has none.
    #[n(11)]
    pub values_changed: Option<u64>,
    /// Of a front-end table: what the rows that were handed over do. None: it is none.
    #[n(12)]
    pub operations: Option<Operations>,
}

impl Operations {
    pub fn add(&mut self, operation: Operation) {
        let slot = match operation {
            Operation::Insert => &mut self.inserts,
            Operation::Update => &mut self.updates,
            Operation::Delete => &mut self.deletes,
        };
        *slot = slot.saturating_add(1);
    }
    pub fn merge(&mut self, other: &Self) {
        self.inserts = self.inserts.saturating_add(other.inserts);
        self.updates = self.updates.saturating_add(other.updates);
        self.deletes = self.deletes.saturating_add(other.deletes);
    }
    pub fn total(&self) -> u64 {
        self.inserts.saturating_add(self.updates).saturating_add(self.deletes)
    }
}

impl std::fmt::Display for Operations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "I {} U {} D {}", self.inserts, self.updates, self.deletes)
    }
}

/// Statement payload of the provider, deterministic CBOR.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Manifest {
    #[n(0)]
    pub transfer: TransferId,
    #[n(1)]
    pub job: JobId,
    #[n(2)]
    pub mode: Mode,
    #[n(3)]
    pub write: Write,
    #[n(4)]
    pub resource: ResourceRef,
    #[n(5)]
    pub catalog: Option<CatalogRef>,
    /// Contract (tables): effective columns and key.
    #[n(6)]
    pub contract_sha256: Option<ByteArray<32>>,
    /// Deterministic CBOR of the grant's filter, as SHA-256.
    #[n(7)]
    pub filter_sha256: Option<ByteArray<32>>,
    #[n(8)]
    pub grant: GrantId,
    #[n(9)]
    pub policy_epoch: u64,
    #[n(10)]
    pub policy_sequence: u64,
    #[n(11)]
    pub route: Vec<NodeId>,
    #[n(12)]
    pub provider: NodeId,
    #[n(13)]
    pub provider_department: Option<String>,
    #[n(14)]
    pub provider_epoch: u64,
    #[n(15)]
    pub consumer: NodeId,
    #[n(16)]
    pub consumer_epoch: u64,
    #[n(17)]
    pub watermark_from: Option<Watermark>,
    #[n(18)]
    pub watermark_to: Option<Watermark>,
    #[n(19)]
    pub counts: Counts,
    #[n(20)]
    pub chunk_size: u32,
    #[n(21)]
    pub entries: u64,
    /// BLAKE3 of the concatenated roots of all entries in order.
    #[n(22)]
    pub content_root: ByteArray<32>,
    /// SHA-256 of the entry list attachment: the concatenated deterministic CBOR of all entries in order,
    /// numbered from 0, with revision 0 and without `same_as` (`EntryList::encode`), so that a resumed run makes the same list.
    #[n(23)]
    pub entries_sha256: ByteArray<32>,
    /// SHA-256 of `files.b3` (folders): a line per regular file as `b3sum` prints it, in order.
    #[n(24)]
    pub files_b3_sha256: Option<ByteArray<32>>,
    /// Salted commitment to the row digest (tables): SHA-256(salt ‖ sum ‖ count); the salt stays with the pair.
    #[n(25)]
    pub digest_commitment: Option<ByteArray<32>>,
    /// The first few things left out; `left_out_sha256` binds the whole list.
    #[n(26)]
    pub left_out: Vec<LeftOut>,
    #[n(27)]
    pub left_out_sha256: Option<ByteArray<32>>,
    #[n(28)]
    pub started: Timestamp,
    #[n(29)]
    pub sealed: Timestamp,
    /// The failed transfer whose splits this one adopts.
    #[n(30)]
    pub succeeds: Option<TransferId>,
    /// Names of the algorithms used, e.g. `["blake3", "sha-256", "ed25519"]`.
    #[n(31)]
    pub algorithms: Vec<String>,
    /// What was done to the rows' values, column by column: masks, rules. None: nothing.
    #[n(32)]
    pub governed: Option<Vec<Governed>>,
    /// What the provider's rules found in the rows that it read. None: it has none.
    #[n(33)]
    pub quality: Option<Quality>,
    /// How the line to the database was secured that the rows were read over, in words, where it was less than encrypted
    /// to a server that was verified. None: it was, or there is none.
    #[n(36)]
    pub database_line: Option<String>,
}
