//! Splits of a table on their way: in memory or in files of the node's own folder, then rows in the destination's
//! staging. A split is in memory where the destination itself can hand its rows over to a later transfer; else a file
//! stays for that. It is synced only where its rows are not staged soon.

use super::split::{RawSplit, SplitContent, SplitPart};
use crate::held_back::HeldBack;
use crate::seal::storage;
use crate::store::exchange::StagedSplit;
use arrow::record_batch::RecordBatch;
use posthouse_connectors::{BadRow, Destination, SplitLanded};
use posthouse_platform::disk::Disk;
use posthouse_protocol::batch::{Batch, BatchReader};
use posthouse_protocol::chunk::ChunkHasher;
use posthouse_protocol::digest::{BucketDigest, Digester};
use posthouse_protocol::govern::{Checker, Passed, Quality};
use posthouse_protocol::id::TransferId;
use posthouse_protocol::limits;
use posthouse_protocol::manifest::{Entry, EntryKind, Operations};
use posthouse_protocol::operation;
use posthouse_protocol::pgcopy::Shape;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::schema::Contract;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
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
    /// The destination can hand over to a later transfer what is staged there.
    hands_over: bool,
    /// Splits that it has taken over from a transfer that failed, by name, with their roots.
    taken_over: BTreeMap<String, [u8; 32]>,
    /// Those of them that are splits of this transfer too.
    inherited: Mutex<BTreeMap<Vec<u8>, StagedSplit>>,
    database_line: Option<&'static str>,
}

type Hand = Mutex<Box<dyn Destination>>;

/// What a transfer's rows are, how they travel, and how they are digested.
pub struct RowForm {
    pub contract: Contract,
    /// Set where splits come in an engine's own form.
    pub shape: Option<Shape>,
    pub digest_key: [u8; 32],
    /// The job's rules, where it has any.
    pub checker: Option<Checker>,
    /// Whether the last column says what each row does.
    pub has_operations: bool,
}

impl TableStage {
    /// `root` is the node's staging folder; the destination is prepared. `follows`: it has taken over what a transfer
    /// that failed has staged.
    pub fn open(
        root: &Path,
        transfer: &TransferId,
        disk: Arc<dyn Disk>,
        form: RowForm,
        mut destination: Box<dyn Destination>,
        follows: bool,
    ) -> Result<Self, Problem> {
        let hands_over = destination.hands_over()?;
        let database_line = destination.line();
        let taken_over = match follows && hands_over {
            true => destination.applied()?.into_iter().map(|applied| (applied.split, applied.root)).collect(),
            false => BTreeMap::new(),
        };
        let dir = root.join(transfer.as_str());
        std::fs::create_dir_all(&dir).and_then(|()| disk.sync_folder(root)).map_err(|e| storage(&dir, &e))?;
        let root = root.to_owned();
        let beside = (1..STAGED_AT_ONCE).map_while(|_| destination.beside()).map(Mutex::new).collect();
        Ok(Self {
            dir,
            root,
            disk,
            form,
            destination: Mutex::new(destination),
            beside,
            staged: Mutex::default(),
            hands_over,
            taken_over,
            inherited: Mutex::default(),
            database_line,
        })
    }

    pub fn contract(&self) -> &Contract {
        &self.form.contract
    }
    pub fn has_operations(&self) -> bool {
        self.form.has_operations
    }
    pub fn digest_key(&self) -> [u8; 32] {
        self.form.digest_key
    }
    /// How the line to its database is secured, where a statement has to say so.
    pub fn database_line(&self) -> Option<&'static str> {
        self.database_line
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

    /// Whether the destination staged this split for a transfer that this one follows; then it counts as `staged`.
    pub(super) fn inherit(&self, entry: &Entry, root: &[u8; 32], staged: StagedSplit) -> bool {
        let name = std::str::from_utf8(&entry.name).ok();
        let is_there = name.and_then(|name| self.taken_over.get(name)) == Some(root);
        if is_there {
            self.inherited.lock().unwrap_or_else(PoisonError::into_inner).insert(entry.name.clone(), staged);
        }
        is_there
    }
    /// What was staged of it for a transfer that this one follows.
    pub fn inherited(&self, entry: &Entry) -> Option<StagedSplit> {
        self.inherited.lock().unwrap_or_else(PoisonError::into_inner).get(&entry.name).cloned()
    }
    /// Splits that were taken over and that this transfer does not have in the same form.
    pub fn not_inherited(
        &self,
        has: impl Fn(&str, &[u8; 32]) -> Result<bool, Problem>,
    ) -> Result<Vec<(String, [u8; 32])>, Problem> {
        let mut others = Vec::new();
        for (split, root) in &self.taken_over {
            if !has(split, root)? {
                others.push((split.clone(), *root));
            }
        }
        Ok(others)
    }

    /// Stages a split that is whole; a repeat changes nothing and gives the same.
    pub(super) fn stage(&self, entry: &Entry, bytes: SplitContent) -> Result<(StagedSplit, HeldBack), Problem> {
        let (Some(root), Ok(name)) = (entry.root, std::str::from_utf8(&entry.name)) else {
            return Err(Problem::new(Code::FrameInvalid).cause("a split has no root, or a name that is no text"));
        };
        let path = self.path(&entry.name);
        // What the job's rules hold back comes first.
        let mut bad = self.held_back(&entry.name);
        let mut operations = self.has_operations().then(Operations::default);
        let (landed, buckets, quality) = match &self.form.shape {
            None => self.stage_batches(name, *root, bytes, entry.size, &mut bad, &mut operations)?,
            Some(shape) => {
                let mut split = RawSplit::new(bytes, path, shape.clone(), self.digest_key());
                let landed = self.hand().stage_raw(name, *root, &mut split)?;
                (landed, split.finish()?, None)
            }
        };
        let digest = buckets.total();
        landed.bad.into_iter().try_for_each(|row| bad.push(row))?;
        let quarantined = bad.count();
        let EntryKind::Split(counts) = &entry.kind else { return Err(Problem::new(Code::FrameInvalid)) };
        if counts.sent != digest.count || landed.landed + quarantined != digest.count {
            return Err(Problem::new(Code::Mismatch).with("peer", "the provider").cause(format!(
                "split {name}: {} rows stated, {} read, {} staged, {quarantined} refused",
                counts.sent, digest.count, landed.landed
            )));
        }
        if counts.operations != operations {
            let said = |operations: Option<Operations>| operations.map_or("none".to_owned(), |sum| sum.to_string());
            return Err(Problem::new(Code::Mismatch).with("peer", "the provider").cause(format!(
                "split {name}: its rows were stated to do {}, and they do {}",
                said(counts.operations),
                said(operations)
            )));
        }
        self.staged.lock().unwrap_or_else(PoisonError::into_inner).merge(&buckets);
        Ok((StagedSplit { landed: landed.landed, quarantined, digest, quality }, bad))
    }

    fn stage_batches(
        &self,
        name: &str,
        root: [u8; 32],
        bytes: SplitContent,
        size: u64,
        held: &mut HeldBack,
        operations: &mut Option<Operations>,
    ) -> Result<(SplitLanded, BucketDigest, Option<Quality>), Problem> {
        let (mut checker, mut rows) = (self.form.checker.clone(), 0);
        let mut digester = Digester::new(self.digest_key());
        let mut buckets = BucketDigest::new();
        let reader = BatchReader::new(BufReader::with_capacity(READ_BYTES, bytes.reader()), size, self.contract())?;
        // What came is digested whole; what the job's rules hold back of it does not reach the destination.
        let mut batches = reader.filter_map(|batch| {
            let left = batch.map_err(Problem::from).and_then(|batch| {
                digester.buckets(&batch, &mut buckets)?;
                if let Some(operations) = operations.as_mut() {
                    operation::count(&batch, operations)?;
                }
                let before = rows;
                rows += batch.rows() as u64;
                match &mut checker {
                    Some(checker) => stays(checker, &batch, before, held),
                    None => Ok(Some(batch.record().clone())),
                }
            });
            left.transpose()
        });
        let landed = self.hand().stage(name, root, &mut batches)?;
        // A split that was staged before is not read by the destination again; its digest still is.
        batches.try_for_each(|batch: Result<_, Problem>| batch.map(|_| ()))?;
        drop(batches);
        Ok((landed, buckets, checker.map(|mut checker| checker.take(&str::to_owned))))
    }

    /// For rows of a split that do not reach the destination.
    pub fn held_back(&self, name: &[u8]) -> HeldBack {
        HeldBack::new(self.path(name).with_extension("bad"), self.disk.clone())
    }

    /// Names of splits may hold any character; their files are named by hash.
    pub fn path(&self, name: &[u8]) -> PathBuf {
        self.dir.join(split_file(name))
    }

    /// Where a split's chunks go. `resume`: what an earlier run of the transfer has of it goes on.
    pub(super) fn part(&self, entry: &Entry, resume: bool) -> Result<SplitPart, Problem> {
        let path = self.path(&entry.name);
        if !resume {
            gone(std::fs::remove_file(&path)).map_err(|e| storage(&path, &e))?;
        }
        match self.hands_over && entry.size <= HELD_BYTES_MAX && !(resume && path.exists()) {
            true => Ok(SplitPart::in_memory(path, self.disk.clone())),
            false => SplitPart::in_file(path, self.disk.clone()),
        }
    }

    /// Makes a split durable that was not written to by this process; its rows may be staged, then it has no file.
    pub(super) fn sync_file(&self, entry: &Entry) -> Result<(), Problem> {
        let path = self.path(&entry.name);
        if path.exists() { SplitPart::in_file(path, self.disk.clone())?.sync() } else { Ok(()) }
    }

    /// Its rows are staged, and for good where the destination hands them over itself.
    pub(super) fn drop_file(&self, entry: &Entry) -> Result<(), Problem> {
        if !self.hands_over {
            return Ok(());
        }
        let path = self.path(&entry.name);
        gone(std::fs::remove_file(&path)).map_err(|e| storage(&path, &e))
    }

    /// Takes over a split's file from a transfer that failed. False where it is gone.
    pub(super) fn adopt(&self, predecessor: &TransferId, entry: &Entry) -> Result<bool, Problem> {
        let (from, to) = (self.root.join(predecessor.as_str()).join(split_file(&entry.name)), self.path(&entry.name));
        let link = || -> io::Result<bool> {
            gone(std::fs::remove_file(&to))?;
            match std::fs::hard_link(&from, &to) {
                Ok(()) => Ok(true),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
                Err(e) => Err(e),
            }
        };
        link().map_err(|e| storage(&to, &e))
    }

    /// Whether a split's file has this root.
    pub(super) fn is_whole(&self, entry: &Entry, root: &[u8; 32]) -> Result<bool, Problem> {
        let path = self.path(&entry.name);
        let found = File::open(&path).and_then(|file| hash(&file)).map_err(|e| storage(&path, &e))?;
        Ok(found == Some(*root))
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

/// The rows of a batch that pass the rules, `before` of which have come in the split; those that do not are added to `held`.
fn stays(
    checker: &mut Checker,
    batch: &Batch,
    before: u64,
    held: &mut HeldBack,
) -> Result<Option<RecordBatch>, Problem> {
    let Passed { rows, refused } = checker.hold_back(batch)?;
    for refused in refused {
        let key = match refused.key.is_empty() {
            true => format!("row {}", before + refused.row as u64 + 1),
            false => refused.key,
        };
        held.push(BadRow { key, reason: refused.reason, original: refused.original })?;
    }
    Ok(rows)
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
/// Longer splits would not become whole within a transfer's credit.
const HELD_BYTES_MAX: u64 = limits::CREDIT_BYTES / 8 * 3;
/// A server puts one split into a table on one processor; the destination may be a small machine with other work.
const STAGED_AT_ONCE: usize = 2;
