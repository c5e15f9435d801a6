//! 封装: seals a table's rows as splits, and makes the manifest once everything is sealed.
//! A [`SealedSplit`] is final before anyone hears of it: an Arrow IPC stream whose bytes follow from its rows
//! alone, or the rows in an engine's own form as they came. Until the last one is sealed some may be in memory only;
//! then all that the consumer has not are durable. Files of a folder are sealed where they lie.
//! A [`SealedManifest`] comes only from a provider machine that has sealed every entry; `settle` signs it.

mod content;
mod spool;
#[cfg(test)]
mod tests;
mod writer;

pub use content::{Held, HeldMemory, Lease};
pub use spool::{SplitBytes, Spool, Written};

use crate::held_back::HeldBack;
use minicbor::bytes::ByteArray;
use posthouse_platform::disk::is_full;
use posthouse_protocol::digest::{BucketDigest, RowDigest};
use posthouse_protocol::frame::{Offer, Request};
use posthouse_protocol::govern::Quality;
use posthouse_protocol::id::{NodeId, ResourceRef};
use posthouse_protocol::limits;
use posthouse_protocol::manifest::{Entry, EntryKind, Manifest, SplitCounts};
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::provider::Provider;
use posthouse_protocol::time::Timestamp;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// The values of a file's chunks, in their order.
pub type ChunkValues = Arc<[[u8; 32]]>;

/// A split that is sealed in the spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedSplit {
    pub(crate) name: String,
    pub(crate) position: u64,
    pub(crate) root: [u8; 32],
    pub(crate) size: u64,
    pub(crate) counts: SplitCounts,
    pub(crate) digest: RowDigest,
    /// What the resource's rules found in it. None: it has none.
    pub(crate) quality: Option<Quality>,
}

/// A split with what belongs beside it in the store.
pub struct Sealed {
    pub split: SealedSplit,
    /// Rows that could not move.
    pub bad: HeldBack,
    /// The split's rows by the buckets of their keys.
    pub buckets: BucketDigest,
}

impl SealedSplit {
    pub fn entry(&self) -> Entry {
        Entry {
            index: self.position,
            name: self.name.clone().into_bytes(),
            kind: EntryKind::Split(self.counts),
            size: self.size,
            mode: 0,
            mtime_ns: 0,
            root: Some(ByteArray::from(self.root)),
            revision: 0,
            same_as: None,
            attributes: None,
        }
    }
    pub fn counts(&self) -> &SplitCounts {
        &self.counts
    }
    pub fn digest(&self) -> &RowDigest {
        &self.digest
    }
    pub fn size(&self) -> u64 {
        self.size
    }
}

/// The manifest of a transfer whose every entry is sealed, with the row digest that is opened to the peer.
#[derive(Debug, Clone)]
pub struct SealedManifest {
    manifest: Manifest,
    digest: Option<RowDigest>,
}

/// What a manifest says beyond the entries themselves.
pub struct ManifestFacts<'a> {
    pub request: &'a Request,
    pub offer: &'a Offer,
    pub provider: &'a NodeId,
    pub provider_department: Option<&'a str>,
    pub consumer: &'a NodeId,
    pub filter_sha256: Option<[u8; 32]>,
    /// Tables: every split of the spool.
    pub splits: Option<&'a [SealedSplit]>,
    pub started: Timestamp,
    pub sealed: Timestamp,
}

impl SealedManifest {
    /// `machine` is ready: everything is listed, answered and sealed.
    pub fn of(machine: &Provider, facts: &ManifestFacts<'_>) -> Result<Self, Problem> {
        let Some(totals) = machine.totals() else {
            return Err(Problem::new(Code::InsideFailed).cause("a manifest was asked for before all was sealed"));
        };
        let (request, offer) = (facts.request, facts.offer);
        let left_out = machine.left_out_list();
        let (listed, left_out_sha256) = (left_out.listed(), left_out.sha256().map(ByteArray::from));
        let counts = totals.counts;
        let digest = facts.splits.map(|splits| {
            splits.iter().fold(RowDigest::default(), |mut sum, split| {
                sum.merge(&split.digest);
                sum
            })
        });
        let manifest = Manifest {
            governed: offer.governed.clone(),
            quality: facts.splits.and_then(quality),
            database_line: offer.database_line.clone(),
            transfer: request.transfer.clone(),
            job: request.job.clone(),
            mode: request.mode,
            write: request.write,
            resource: ResourceRef { node: facts.provider.clone(), resource: request.resource.clone() },
            catalog: offer.catalog.clone(),
            contract_sha256: offer.contract.as_ref().map(|contract| contract.sha256().into()),
            filter_sha256: facts.filter_sha256.map(ByteArray::from),
            grant: offer.grant.clone(),
            policy_epoch: offer.policy_epoch,
            policy_sequence: offer.policy_sequence,
            route: request.route.clone(),
            provider: facts.provider.clone(),
            provider_department: facts.provider_department.map(str::to_owned),
            provider_epoch: offer.provider_epoch,
            consumer: facts.consumer.clone(),
            consumer_epoch: request.consumer_epoch,
            watermark_from: request.watermark.clone(),
            watermark_to: offer.watermark_to.clone(),
            counts,
            chunk_size: limits::CHUNK_BYTES,
            entries: totals.entries,
            content_root: totals.content_root.into(),
            entries_sha256: totals.entries_sha256.into(),
            files_b3_sha256: totals.files_b3_sha256.map(ByteArray::from),
            digest_commitment: digest.map(|digest| digest.commitment(&offer.salt).into()),
            left_out: listed,
            left_out_sha256,
            started: facts.started,
            sealed: facts.sealed,
            succeeds: request.succeeds.clone(),
            algorithms: ALGORITHMS.map(str::to_owned).to_vec(),
        };
        Ok(Self { manifest, digest })
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }
    pub fn digest(&self) -> Option<&RowDigest> {
        self.digest.as_ref()
    }
}

/// What the resource's rules found in all splits. None: it has none.
fn quality(splits: &[SealedSplit]) -> Option<Quality> {
    let mut found = splits.iter().filter_map(|split| split.quality.as_ref()).peekable();
    found.peek()?;
    let mut all = Quality::default();
    found.for_each(|quality| all.merge(quality));
    Some(all.listed())
}

/// A file or folder problem of the node's own data, disk full told apart.
pub(crate) fn storage(path: &Path, error: &io::Error) -> Problem {
    let code = if is_full(error) { Code::DiskFull } else { Code::StorageFailed };
    Problem::new(code).with("path", path.display()).cause(error)
}

const ALGORITHMS: [&str; 3] = ["blake3", "sha-256", "ed25519"];
