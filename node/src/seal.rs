//! 封装: writes a table's rows down as splits, and makes the manifest once everything is sealed.
//! A [`SealedSplit`] is a file in the provider's spool that was synced before anyone hears of it: an Arrow
//! IPC stream whose bytes follow from its rows alone, or the rows in an engine's own form as they came. Files of a folder are sealed where they lie.
//! A [`SealedManifest`] comes only from a provider machine that has sealed every entry; `settle` signs it.

use crate::extract::{Batch, Extraction, SplitSink};
use minicbor::bytes::ByteArray;
use posthouse_connectors::BadRow;
use posthouse_platform::disk::{Disk, is_full};
use posthouse_protocol::batch::BatchWriter;
use posthouse_protocol::chunk::{ChunkHasher, ChunkHashes};
use posthouse_protocol::digest::{BucketDigest, Digester, RowDigest, RowHash};
use posthouse_protocol::format::Native;
use posthouse_protocol::frame::{Offer, Request};
use posthouse_protocol::id::{NodeId, ResourceRef, TransferId};
use posthouse_protocol::limits;
use posthouse_protocol::manifest::{Entry, EntryKind, Manifest, SplitCounts};
use posthouse_protocol::pgcopy::{self, CopyError, Sifted, Sifter, Walker};
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::provider::Provider;
use posthouse_protocol::schema::Contract;
use posthouse_protocol::time::Timestamp;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// One transfer's folder in the spool.
#[derive(Clone)]
pub struct Spool {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    /// Of the splits that this process sealed, the values of their chunks: they are sent without being hashed again.
    values: Arc<Mutex<BTreeMap<u64, ChunkValues>>>,
}

/// The values of a file's chunks, in their order.
pub type ChunkValues = Arc<[[u8; 32]]>;

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
        Ok(Self { dir, disk, values: Arc::default() })
    }

    pub fn path(&self, position: u64) -> PathBuf {
        self.dir.join(format!("{position:08}.split"))
    }

    /// The values of a split's chunks, where they are known.
    pub fn values(&self, position: u64) -> Option<ChunkValues> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner).get(&position).cloned()
    }

    /// Extracts the next split into its file. None once the extraction has no more.
    pub fn write_next(
        &self,
        extraction: &mut Extraction,
        position: u64,
        digest_key: [u8; 32],
    ) -> Option<Result<Written, Problem>> {
        let name = extraction.peek()?.to_owned();
        let mut writer = match self.writer(extraction, position, digest_key, false) {
            Ok(writer) => writer,
            Err(problem) => return Some(Err(problem)),
        };
        let mut read = extraction.read_next(&mut writer)?;
        if read.is_ok() && writer.has_bad_rows() {
            writer = match self.writer(extraction, position, digest_key, true) {
                Ok(writer) => writer,
                Err(problem) => return Some(Err(problem)),
            };
            read = extraction.read_again(&mut writer)?;
        }
        Some(read.and_then(|counts| writer.finish(name, position, counts)))
    }

    fn writer(
        &self,
        extraction: &Extraction,
        position: u64,
        digest_key: [u8; 32],
        sifted: bool,
    ) -> Result<SplitWriter, Problem> {
        let (contract, native) = (extraction.contract(), extraction.native());
        SplitWriter::create(self, self.path(position), contract, native, digest_key, sifted)
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
    Arrow {
        writer: BatchWriter<Hashed>,
        contract: Contract,
        digester: Digester,
    },
    Raw {
        file: Hashed,
        walker: Walker,
    },
    /// As they came but for some that cannot be carried, which nobody knew before: see [`SplitWriter::has_bad_rows`].
    Sifted {
        file: Hashed,
        sifter: Sifter,
    },
    /// Such a row came; the others are not looked at before they come again.
    Spoiled,
}

impl SplitWriter {
    fn create(
        spool: &Spool,
        path: PathBuf,
        contract: &Contract,
        native: Option<&Native>,
        digest_key: [u8; 32],
        sifted: bool,
    ) -> Result<Self, Problem> {
        let file = File::create(&path).map_err(|e| storage(&path, &e))?;
        let mut hashed = Hashed {
            file: BufWriter::with_capacity(WRITE_BYTES, file),
            hasher: ChunkHasher::default(),
            path: path.clone(),
            disk: spool.disk.clone(),
        };
        let rows = match native {
            None => Rows::Arrow {
                writer: BatchWriter::new(hashed, contract)?,
                contract: contract.clone(),
                digester: Digester::new(digest_key),
            },
            Some(native) if sifted => {
                hashed.write_all(&pgcopy::HEADER).map_err(|e| storage(&path, &e))?;
                Rows::Sifted { file: hashed, sifter: Sifter::new(&native.shape(contract)?, digest_key) }
            }
            Some(native) => Rows::Raw { file: hashed, walker: Walker::new(&native.shape(contract)?, digest_key) },
        };
        let (digest, buckets) = (RowDigest::default(), BucketDigest::new());
        Ok(Self { rows, path, spool: spool.clone(), digest, buckets, bad: Vec::new() })
    }

    /// Whether a raw row came that cannot be carried, so that the split has to be read once more and sifted. Rows are
    /// hashed many at a time and leave as they lie: where one of them lies is known only when it is too late.
    fn has_bad_rows(&self) -> bool {
        matches!(self.rows, Rows::Spoiled)
    }

    fn finish(self, name: String, position: u64, mut counts: SplitCounts) -> Result<Written, Problem> {
        let Self { path, spool, rows, digest, buckets, bad } = self;
        let hashed = match rows {
            Rows::Arrow { writer, .. } => writer.finish()?,
            Rows::Raw { file, walker } => {
                walker.finish()?;
                file
            }
            Rows::Sifted { mut file, sifter } => {
                sifter.finish()?;
                file.write_all(&pgcopy::TRAILER).map_err(|e| storage(&path, &e))?;
                // To the source they are rows like all others.
                counts.sent -= counts.sent.min(bad.len() as u64);
                counts.quarantined += bad.len() as u64;
                file
            }
            Rows::Spoiled => {
                return Err(Problem::new(Code::InsideFailed).cause("a split was to be sealed that is not whole"));
            }
        };
        if digest.count != counts.sent {
            return Err(Problem::new(Code::InsideFailed)
                .cause(format!("split {name}: {} rows digested, {} sent", digest.count, counts.sent)));
        }
        let ChunkHashes { root, layout, values } =
            hashed.hasher.finish().map_err(|e| storage(&path, &io::Error::other(e)))?;
        let file = hashed.file.into_inner().map_err(|e| storage(&path, e.error()))?;
        spool.values.lock().unwrap_or_else(PoisonError::into_inner).insert(position, values.into());
        let split = SealedSplit { name, position, root, size: layout.size(), counts, digest };
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
        let Self { path, rows, digest, buckets, bad, .. } = self;
        let mut count = |row: RowHash| {
            digest.add(&row.hash);
            buckets.add(row.bucket, &row.hash);
        };
        match rows {
            Rows::Raw { file, walker } => match walker.feed(bytes, &mut count) {
                Ok(()) => file.write_all(bytes).map_err(|e| storage(path, &e)),
                Err(CopyError::Value { .. }) => {
                    *rows = Rows::Spoiled;
                    Ok(())
                }
                Err(error) => Err(error.into()),
            },
            Rows::Sifted { file, sifter } => sifter.feed(bytes, &mut |sifted| match sifted {
                Sifted::Row(tuple, hash) => {
                    count(hash);
                    file.write_all(tuple).map_err(|e| storage(path, &e))
                }
                Sifted::Bad(row) => {
                    bad.push(BadRow { key: format!("row {}", row.row), reason: row.reason, original: row.original });
                    Ok(())
                }
            }),
            Rows::Spoiled => Ok(()),
            Rows::Arrow { .. } => {
                Err(Problem::new(Code::InsideFailed).cause("raw rows came where batches were announced"))
            }
        }
    }
    fn bad_row(&mut self, row: BadRow) -> Result<(), Problem> {
        self.bad.push(row);
        Ok(())
    }
}

/// Bytes on their way into a split's file, hashed as they pass.
struct Hashed {
    file: BufWriter<File>,
    hasher: ChunkHasher,
    path: PathBuf,
    disk: Arc<dyn Disk>,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.disk.before_write(&self.path, bytes.len() as u64)?;
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

const ALGORITHMS: [&str; 3] = ["blake3", "sha-256", "ed25519"];
const WRITE_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use posthouse_connectors::{Connection, Destination, Landing, Plan, Read, Sink, Source, TableSpec};
    use posthouse_platform::disk::RealDisk;
    use posthouse_protocol::format::Format;
    use posthouse_protocol::schema::{ContractType, Item};

    /// Hands out one split of one column of json, as PostgreSQL writes it.
    struct Raw(Vec<&'static str>);

    impl Raw {
        fn stream(values: &[&str]) -> Vec<u8> {
            let mut bytes = pgcopy::HEADER.to_vec();
            for value in values {
                bytes.extend_from_slice(&[0, 1]);
                bytes.extend_from_slice(&(value.len() as u32).to_be_bytes());
                bytes.extend_from_slice(value.as_bytes());
            }
            bytes.extend_from_slice(&pgcopy::TRAILER);
            bytes
        }
    }

    impl Connection for Raw {
        fn probe(&mut self) -> Result<(), Problem> {
            Ok(())
        }
        fn source(&mut self, _: &TableSpec) -> Result<Box<dyn Source>, Problem> {
            Ok(Box::new(Self(self.0.clone())))
        }
        fn destination(&mut self, _: &Landing) -> Result<Box<dyn Destination>, Problem> {
            Err(Problem::new(Code::InsideFailed))
        }
    }

    impl Source for Raw {
        fn begin(&mut self, _: &Read) -> Result<Plan, Problem> {
            let item = Item { name: "said".to_owned(), r#type: ContractType::Json, nullable: true, comment: None };
            Ok(Plan {
                contract: Contract { items: vec![item], key: vec![] },
                watermark: None,
                position: None,
                splits: vec!["all".to_owned()],
                rows_estimate: None,
                bytes_estimate: None,
                native: Some(Native::new(Format::PgCopy, vec!["json".to_owned()])),
                apart: None,
                snapshot_max: None,
            })
        }
        fn read(&mut self, _: &str, sink: &mut dyn Sink) -> Result<SplitCounts, Problem> {
            for piece in Self::stream(&self.0).chunks(5) {
                sink.raw(piece)?;
            }
            let rows = self.0.len() as u64;
            Ok(SplitCounts { read: rows, sent: rows, ..SplitCounts::default() })
        }
    }

    fn seal(values: &[&'static str]) -> (Sealed, Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        let id = TransferId::from_random([7; 16]);
        let spool = Spool::open(folder.path(), &id, Arc::new(RealDisk)).unwrap();
        let table = TableSpec {
            table: Some("t".to_owned()),
            query: None,
            key: vec![],
            watermark: None,
            late_ms: 0,
            resource: "node.example/t".to_owned(),
        };
        let raw = Box::new(Raw(values.to_vec()));
        let mut extraction = Extraction::begin(raw, &table, &Read::default(), Timestamp(0)).unwrap();
        let sealed = spool.write_next(&mut extraction, 0, [7; 32]).unwrap().and_then(Written::seal).unwrap();
        assert!(spool.write_next(&mut extraction, 1, [7; 32]).is_none());
        (sealed, std::fs::read(spool.path(0)).unwrap())
    }

    #[test]
    fn a_raw_row_that_cannot_be_carried_leaves_its_split_and_the_others_stay() {
        let (sealed, bytes) = seal(&["1", "{\"a\":1,\"a\":2}", "[2]", "\"\\ud800\"", "3"]);
        let expected = SplitCounts { read: 5, sent: 3, quarantined: 2, ..SplitCounts::default() };
        assert_eq!(sealed.split.counts, expected);
        let bad: Vec<_> = sealed.bad.iter().map(|row| (row.key.as_str(), row.original.as_str())).collect();
        assert_eq!(bad, [("row 1", r#"{"said":"{\"a\":1,\"a\":2}"}"#), ("row 3", r#"{"said":"\"\\ud800\""}"#)]);
        assert!(sealed.bad[0].reason.starts_with("the column `said` holds text that is not JSON"), "{:?}", sealed.bad);
        // What is left is what a table without them would have been, to the byte.
        let (without, same) = seal(&["1", "[2]", "3"]);
        assert_eq!(bytes, same);
        assert_eq!((sealed.split.root, sealed.split.digest), (without.split.root, without.split.digest));
        assert_eq!(sealed.buckets.total(), without.buckets.total());
    }
}
