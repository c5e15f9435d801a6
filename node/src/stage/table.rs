//! Splits of a table on their way: files in the node's own folder, then rows in the destination's staging. A file
//! is read while it is in the page cache still; it is synced only where its rows are not staged soon.

use crate::seal::storage;
use crate::store::exchange::StagedSplit;
use posthouse_connectors::{BadRow, Destination, RawRows, SplitLanded};
use posthouse_platform::disk::Disk;
use posthouse_protocol::batch::BatchReader;
use posthouse_protocol::chunk::ChunkHasher;
use posthouse_protocol::digest::{BucketDigest, Digester};
use posthouse_protocol::id::TransferId;
use posthouse_protocol::manifest::{Entry, EntryKind};
use posthouse_protocol::pgcopy::{Shape, Walker};
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::schema::Contract;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

/// The node's own folder for splits on their way into a table, and the destination they go to.
pub struct TableStage {
    dir: PathBuf,
    root: PathBuf,
    disk: Arc<dyn Disk>,
    form: RowForm,
    destination: Hand,
    /// More of them, where splits may be staged beside each other.
    beside: Vec<Hand>,
    /// Rows that this process has staged, by the buckets of their keys.
    staged: Mutex<BucketDigest>,
}

type Hand = Mutex<Box<dyn Destination>>;

/// What a transfer's rows are, how they travel, and how they are digested.
pub struct RowForm {
    pub contract: Contract,
    /// Set where splits come in an engine's own form.
    pub shape: Option<Shape>,
    pub digest_key: [u8; 32],
}

impl TableStage {
    /// `root` is the node's staging folder.
    pub fn open(
        root: &Path,
        transfer: &TransferId,
        disk: Arc<dyn Disk>,
        form: RowForm,
        destination: Box<dyn Destination>,
    ) -> Result<Self, Problem> {
        let dir = root.join(transfer.as_str());
        std::fs::create_dir_all(&dir).and_then(|()| disk.sync_folder(root)).map_err(|e| storage(&dir, &e))?;
        let root = root.to_owned();
        let beside = (1..STAGED_AT_ONCE).map_while(|_| destination.beside()).map(Mutex::new).collect();
        Ok(Self { dir, root, disk, form, destination: Mutex::new(destination), beside, staged: Mutex::default() })
    }

    pub fn contract(&self) -> &Contract {
        &self.form.contract
    }
    pub fn digest_key(&self) -> [u8; 32] {
        self.form.digest_key
    }
    /// The rows of all splits by bucket, where this process has staged every one of so many.
    pub fn staged(&self, rows: u64) -> Option<BucketDigest> {
        let staged = self.staged.lock().unwrap_or_else(PoisonError::into_inner);
        (staged.total().count == rows).then(|| staged.clone())
    }
    pub fn destination(&self) -> MutexGuard<'_, Box<dyn Destination>> {
        self.destination.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// How many splits may be staged at once.
    pub fn hands(&self) -> usize {
        1 + self.beside.len()
    }
    /// The destination, or one beside it: whichever is free.
    fn hand(&self) -> MutexGuard<'_, Box<dyn Destination>> {
        let free = std::iter::once(&self.destination).chain(&self.beside).find_map(|hand| match hand.try_lock() {
            Ok(free) => Some(free),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        });
        free.unwrap_or_else(|| self.destination())
    }

    /// Stages a split whose file is whole; a repeat changes nothing and gives the same.
    pub fn stage(&self, entry: &Entry) -> Result<(StagedSplit, Vec<BadRow>), Problem> {
        let (Some(root), Ok(name)) = (entry.root, std::str::from_utf8(&entry.name)) else {
            return Err(Problem::new(Code::FrameInvalid).cause("a split has no root, or a name that is no text"));
        };
        let path = self.path(&entry.name);
        let file = File::open(&path).map_err(|e| storage(&path, &e))?;
        let (landed, buckets) = match &self.form.shape {
            None => self.stage_batches(name, *root, file, entry.size)?,
            Some(shape) => {
                let mut split = RawSplit::new(file, path, shape.clone(), self.digest_key());
                let landed = self.hand().stage_raw(name, *root, &mut split)?;
                (landed, split.finish()?)
            }
        };
        let digest = buckets.total();
        let quarantined = landed.bad.len() as u64;
        let EntryKind::Split(counts) = &entry.kind else { return Err(Problem::new(Code::FrameInvalid)) };
        if counts.sent != digest.count || landed.landed + quarantined != digest.count {
            return Err(Problem::new(Code::Mismatch).with("peer", "the provider").cause(format!(
                "split {name}: {} rows stated, {} read, {} staged, {quarantined} refused",
                counts.sent, digest.count, landed.landed
            )));
        }
        self.staged.lock().unwrap_or_else(PoisonError::into_inner).merge(&buckets);
        Ok((StagedSplit { landed: landed.landed, quarantined, digest }, landed.bad))
    }

    fn stage_batches(
        &self,
        name: &str,
        root: [u8; 32],
        file: File,
        size: u64,
    ) -> Result<(SplitLanded, BucketDigest), Problem> {
        let mut digester = Digester::new(self.digest_key());
        let mut buckets = BucketDigest::new();
        let reader = BatchReader::new(BufReader::with_capacity(READ_BYTES, file), size, self.contract())?;
        let mut batches = reader.map(|batch| {
            let batch = batch?;
            digester.buckets(&batch, &mut buckets)?;
            Ok(batch.record().clone())
        });
        let landed = self.hand().stage(name, root, &mut batches)?;
        // A split that was staged before is not read by the destination again; its digest still is.
        batches.try_for_each(|batch: Result<_, Problem>| batch.map(|_| ()))?;
        drop(batches);
        Ok((landed, buckets))
    }

    /// Names of splits may hold any character; their files are named by hash.
    pub fn path(&self, name: &[u8]) -> PathBuf {
        self.dir.join(split_file(name))
    }

    pub(super) fn part(&self, name: &[u8], resume: bool) -> Result<SplitPart, Problem> {
        let path = self.path(name);
        let open = || -> io::Result<File> {
            if !resume {
                gone(std::fs::remove_file(&path))?;
            }
            File::options().create(true).truncate(false).write(true).open(&path)
        };
        let file = open().map_err(|e| storage(&path, &e))?;
        Ok(SplitPart { file, path, disk: self.disk.clone() })
    }

    /// Takes over a split's file from a transfer that failed. False where it is gone, or is not what it was: one that
    /// was staged at once was never synced.
    pub(super) fn adopt(&self, predecessor: &TransferId, entry: &Entry, root: &[u8; 32]) -> Result<bool, Problem> {
        let (from, to) = (self.root.join(predecessor.as_str()).join(split_file(&entry.name)), self.path(&entry.name));
        let link = || -> io::Result<bool> {
            gone(std::fs::remove_file(&to))?;
            match std::fs::hard_link(&from, &to) {
                Ok(()) => Ok(true),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
                Err(e) => Err(e),
            }
        };
        let read = || Ok(link()? && hash(&File::open(&to)?)? == Some(*root));
        read().map_err(|e| storage(&to, &e))
    }

    /// Takes the transfer's files away, once it is settled or given up.
    pub fn remove(root: &Path, transfer: &TransferId) -> Result<(), Problem> {
        let dir = root.join(transfer.as_str());
        gone(std::fs::remove_dir_all(&dir)).map_err(|e| storage(&dir, &e))
    }

    pub(super) fn sync(&self) -> Result<(), Problem> {
        self.disk.sync_folder(&self.dir).map_err(|e| storage(&self.dir, &e))
    }
    pub(super) fn free_bytes(&self) -> Result<u64, Problem> {
        self.disk.free_bytes(&self.dir).map_err(|e| storage(&self.dir, &e))
    }
}

/// A split's file in an engine's own form. Its rows are digested as they pass the first time; a destination
/// is given no byte that was not looked at before.
struct RawSplit {
    file: File,
    path: PathBuf,
    buffer: Vec<u8>,
    shape: Shape,
    key: [u8; 32],
    /// None once it has seen the whole split.
    walker: Option<Walker>,
    buckets: BucketDigest,
}

impl RawSplit {
    fn new(file: File, path: PathBuf, shape: Shape, key: [u8; 32]) -> Self {
        let walker = Some(Walker::new(&shape, key));
        Self { file, path, buffer: vec![0; READ_BYTES], shape, key, walker, buckets: BucketDigest::new() }
    }
    /// What all its rows are, also those that the destination did not ask for.
    fn finish(mut self) -> Result<BucketDigest, Problem> {
        while self.walker.is_some() {
            self.next()?;
        }
        Ok(self.buckets)
    }
}

impl RawRows for RawSplit {
    fn next(&mut self) -> Result<Option<&[u8]>, Problem> {
        let read = self.file.read(&mut self.buffer).map_err(|e| storage(&self.path, &e))?;
        let bytes = self.buffer.get(..read).unwrap_or_default();
        if let Some(mut walker) = self.walker.take() {
            if read == 0 {
                walker.finish()?;
            } else {
                let buckets = &mut self.buckets;
                walker.feed(bytes, &mut |row| buckets.add(row.bucket, &row.hash))?;
                self.walker = Some(walker);
            }
        }
        Ok((read > 0).then_some(bytes))
    }
    fn rewind(&mut self) -> Result<(), Problem> {
        self.file.rewind().map_err(|e| storage(&self.path, &e))?;
        if self.walker.is_some() {
            self.walker = Some(Walker::new(&self.shape, self.key));
            self.buckets = BucketDigest::new();
        }
        Ok(())
    }
}

pub(super) struct SplitPart {
    file: File,
    path: PathBuf,
    disk: Arc<dyn Disk>,
}

impl SplitPart {
    pub(super) fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), Problem> {
        self.disk
            .before_write(&self.path, bytes.len() as u64)
            .and_then(|()| self.file.write_all_at(bytes, offset))
            .map_err(|e| storage(&self.path, &e))
    }
    pub(super) fn sync(&self) -> Result<(), Problem> {
        self.disk.sync_file(self.file.as_fd(), &self.path).map_err(|e| storage(&self.path, &e))
    }
}

/// The root of a file; none of one that is too long to be a split.
fn hash(file: &File) -> io::Result<Option<[u8; 32]>> {
    let mut hasher = ChunkHasher::default();
    let mut reader = BufReader::with_capacity(READ_BYTES, file);
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            return Ok(hasher.finish().ok().map(|hashes| hashes.root));
        }
        hasher.update(bytes);
        let read = bytes.len();
        reader.consume(read);
    }
}

/// What was not there is removed too.
fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn split_file(name: &[u8]) -> String {
    let hash = blake3::hash(name).to_hex();
    format!("{}.split", &hash.as_str()[..32])
}

const READ_BYTES: usize = 256 << 10;
/// A server puts one split into a table on one processor; the destination may be a small machine with other work.
const STAGED_AT_ONCE: usize = 2;
