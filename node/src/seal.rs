//! 封装: writes a table's rows down as splits, and makes the manifest once everything is sealed.
//! A [`SealedSplit`] is a file in the provider's spool that was synced before anyone hears of it: an Arrow
//! IPC stream whose bytes follow from its rows alone, or the rows in an engine's own form as they came. Files of a folder are sealed where they lie.
//! A [`SealedManifest`] comes only from a provider machine that has sealed every entry; `settle` signs it.

use crate::extract::{Batch, Extraction, SplitSink};
use minicbor::bytes::ByteArray;
use posthouse_connectors::BadRow;
use posthouse_platform::disk::{Disk, is_full};
use posthouse_protocol::batch::BatchWriter;
use posthouse_protocol::digest::{BucketDigest, Digester, RowDigest};
use posthouse_protocol::format::Native;
use posthouse_protocol::frame::{Offer, Request};
use posthouse_protocol::id::{NodeId, ResourceRef, TransferId};
use posthouse_protocol::limits;
use posthouse_protocol::manifest::{Entry, EntryKind, Manifest, SplitCounts};
use posthouse_protocol::pgcopy::Walker;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::provider::Provider;
use posthouse_protocol::schema::Contract;
use posthouse_protocol::time::Timestamp;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One transfer's folder in the spool.
#[derive(Clone)]
pub struct Spool {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
}

/// A split that is durable in the spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedSplit {
    pub(crate) name: String,
    pub(crate) position: u64,
    pub(crate) root: [u8; 32],
    pub(crate) size: u64,
    pub(crate) counts: SplitCounts,
    pub(crate) digest: RowDigest,
}

/// A split whose bytes are all in its file, and may still be lost with the power.
pub struct Written {
    sealed: Sealed,
    file: File,
    spool: Spool,
}

/// A split with what belongs beside it in the store.
pub struct Sealed {
    pub split: SealedSplit,
    /// Rows that could not move.
    pub bad: Vec<BadRow>,
    /// The split's rows by the buckets of their keys.
    pub buckets: BucketDigest,
}

impl Written {
    pub fn size(&self) -> u64 {
        self.sealed.split.size
    }

    /// Syncs the split, then its name. The rows that could not move go to quarantine before anyone hears of it.
    pub fn seal(self) -> Result<Sealed, Problem> {
        let Self { sealed, file, spool } = self;
        let path = spool.path(sealed.split.position);
        let synced = spool.disk.sync_file(file.as_fd(), &path).and_then(|()| spool.disk.sync_folder(&spool.dir));
        synced.map_err(|e| storage(&path, &e))?;
        Ok(sealed)
    }
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

impl Spool {
    /// `root` is the node's spool folder; the transfer's own folder is made when missing.
    pub fn open(root: &Path, transfer: &TransferId, disk: Arc<dyn Disk>) -> Result<Self, Problem> {
        let dir = root.join(transfer.as_str());
        std::fs::create_dir_all(&dir).and_then(|()| disk.sync_folder(root)).map_err(|e| storage(&dir, &e))?;
        Ok(Self { dir, disk })
    }

    pub fn path(&self, position: u64) -> PathBuf {
        self.dir.join(format!("{position:08}.split"))
    }

    /// Extracts the next split into its file. None once the extraction has no more.
    pub fn write_next(
        &self,
        extraction: &mut Extraction,
        position: u64,
        digest_key: [u8; 32],
    ) -> Option<Result<Written, Problem>> {
        let name = extraction.peek()?.to_owned();
        let path = self.path(position);
        let (contract, native) = (extraction.contract(), extraction.native());
        let mut writer = match SplitWriter::create(self, path, contract, native, digest_key) {
            Ok(writer) => writer,
            Err(problem) => return Some(Err(problem)),
        };
        let counts = match extraction.read_next(&mut writer)? {
            Ok(counts) => counts,
            Err(problem) => return Some(Err(problem)),
        };
        Some(writer.finish(name, position, counts))
    }

    /// Takes the transfer's folder away once its splits are receipted or given up.
    pub fn remove(&self) -> Result<(), Problem> {
        match std::fs::remove_dir_all(&self.dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(storage(&self.dir, &e)),
            _ => Ok(()),
        }
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

/// A file or folder problem of the node's own data, disk full told apart.
pub(crate) fn storage(path: &Path, error: &io::Error) -> Problem {
    let code = if is_full(error) { Code::DiskFull } else { Code::StorageFailed };
    Problem::new(code).with("path", path.display()).cause(error)
}

struct SplitWriter {
    path: PathBuf,
    spool: Spool,
    rows: Rows,
    digest: RowDigest,
    buckets: BucketDigest,
    bad: Vec<BadRow>,
}

/// A split's rows on their way into its file, in the form they travel in.
enum Rows {
    Arrow { writer: BatchWriter<Hashed>, contract: Contract, digester: Digester },
    Raw { file: Hashed, walker: Walker },
}

impl SplitWriter {
    fn create(
        spool: &Spool,
        path: PathBuf,
        contract: &Contract,
        native: Option<&Native>,
        digest_key: [u8; 32],
    ) -> Result<Self, Problem> {
        let file = File::create(&path).map_err(|e| storage(&path, &e))?;
        let hashed = Hashed {
            file: BufWriter::with_capacity(WRITE_BYTES, file),
            hasher: blake3::Hasher::new(),
            size: 0,
            path: path.clone(),
            disk: spool.disk.clone(),
        };
        let rows = match native {
            None => Rows::Arrow {
                writer: BatchWriter::new(hashed, contract)?,
                contract: contract.clone(),
                digester: Digester::new(digest_key),
            },
            Some(native) => Rows::Raw { file: hashed, walker: Walker::new(&native.shape(contract)?, digest_key) },
        };
        let (digest, buckets) = (RowDigest::default(), BucketDigest::new());
        Ok(Self { rows, path, spool: spool.clone(), digest, buckets, bad: Vec::new() })
    }

    fn finish(self, name: String, position: u64, counts: SplitCounts) -> Result<Written, Problem> {
        let Self { path, spool, rows, digest, buckets, bad } = self;
        let hashed = match rows {
            Rows::Arrow { writer, .. } => writer.finish()?,
            Rows::Raw { file, walker } => {
                walker.finish()?;
                file
            }
        };
        if digest.count != counts.sent {
            return Err(Problem::new(Code::InsideFailed)
                .cause(format!("split {name}: {} rows digested, {} sent", digest.count, counts.sent)));
        }
        let root = *hashed.hasher.finalize().as_bytes();
        let file = hashed.file.into_inner().map_err(|e| storage(&path, e.error()))?;
        let split = SealedSplit { name, position, root, size: hashed.size, counts, digest };
        Ok(Written { sealed: Sealed { split, bad, buckets }, file, spool })
    }
}

impl SplitSink for SplitWriter {
    fn batch(&mut self, batch: &Batch) -> Result<(), Problem> {
        let Self { rows: Rows::Arrow { writer, contract, digester }, digest, buckets, .. } = self else {
            return Err(Problem::new(Code::InsideFailed).cause("rows came as batches where raw ones were announced"));
        };
        let rows = posthouse_protocol::batch::Batch::new(contract, batch.rows().clone())?;
        digester.each(&rows, |row| {
            digest.add(&row.hash);
            buckets.add(row.bucket, &row.hash);
        })?;
        Ok(writer.write(&rows)?)
    }
    fn raw(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        let Self { path, rows: Rows::Raw { file, walker }, digest, buckets, .. } = self else {
            return Err(Problem::new(Code::InsideFailed).cause("raw rows came where batches were announced"));
        };
        walker.feed(bytes, &mut |row| {
            digest.add(&row.hash);
            buckets.add(row.bucket, &row.hash);
        })?;
        file.write_all(bytes).map_err(|e| storage(path, &e))
    }
    fn bad_row(&mut self, row: BadRow) -> Result<(), Problem> {
        self.bad.push(row);
        Ok(())
    }
}

/// Bytes on their way into a split's file, hashed as they pass.
struct Hashed {
    file: BufWriter<File>,
    hasher: blake3::Hasher,
    size: u64,
    path: PathBuf,
    disk: Arc<dyn Disk>,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.disk.before_write(&self.path, bytes.len() as u64)?;
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

const ALGORITHMS: [&str; 3] = ["blake3", "sha-256", "ed25519"];
const WRITE_BYTES: usize = 256 << 10;
