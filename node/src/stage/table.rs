//! Splits of a table on their way: files in the node's own folder, then rows in the destination's staging.

use crate::seal::storage;
use crate::store::exchange::StagedSplit;
use posthouse_connectors::{BadRow, Destination};
use posthouse_platform::disk::Disk;
use posthouse_protocol::batch::BatchReader;
use posthouse_protocol::digest::{Digester, RowDigest};
use posthouse_protocol::id::TransferId;
use posthouse_protocol::manifest::{Entry, EntryKind};
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::schema::Contract;
use std::fs::File;
use std::io::{self, BufReader};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The node's own folder for splits on their way into a table, and the destination they go to.
pub struct TableStage {
    dir: PathBuf,
    root: PathBuf,
    disk: Arc<dyn Disk>,
    contract: Contract,
    digest_key: [u8; 32],
    destination: Mutex<Box<dyn Destination>>,
}

impl TableStage {
    /// `root` is the node's staging folder.
    pub fn open(
        root: &Path,
        transfer: &TransferId,
        disk: Arc<dyn Disk>,
        contract: Contract,
        digest_key: [u8; 32],
        destination: Box<dyn Destination>,
    ) -> Result<Self, Problem> {
        let dir = root.join(transfer.as_str());
        std::fs::create_dir_all(&dir).and_then(|()| disk.sync_folder(root)).map_err(|e| storage(&dir, &e))?;
        let root = root.to_owned();
        Ok(Self { dir, root, disk, contract, digest_key, destination: Mutex::new(destination) })
    }

    pub fn contract(&self) -> &Contract {
        &self.contract
    }
    pub fn digest_key(&self) -> [u8; 32] {
        self.digest_key
    }
    pub fn destination(&self) -> MutexGuard<'_, Box<dyn Destination>> {
        self.destination.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stages a split whose file is whole and durable; a repeat changes nothing and gives the same.
    pub fn stage(&self, entry: &Entry) -> Result<(StagedSplit, Vec<BadRow>), Problem> {
        let (Some(root), Ok(name)) = (entry.root, std::str::from_utf8(&entry.name)) else {
            return Err(Problem::new(Code::FrameInvalid).cause("a split has no root, or a name that is no text"));
        };
        let path = self.path(&entry.name);
        let file = File::open(&path).map_err(|e| storage(&path, &e))?;
        let mut digester = Digester::new(self.digest_key);
        let mut digest = RowDigest::default();
        let reader = BatchReader::new(BufReader::with_capacity(READ_BYTES, file), entry.size, &self.contract)?;
        let mut batches = reader.map(|batch| {
            let batch = batch?;
            digester.rows(&batch, &mut digest)?;
            Ok(batch.record().clone())
        });
        let landed = self.destination().stage(name, *root, &mut batches)?;
        // A split that was staged before is not read by the destination again; its digest still is.
        batches.try_for_each(|batch: Result<_, Problem>| batch.map(|_| ()))?;
        drop(batches);
        let quarantined = landed.bad.len() as u64;
        let EntryKind::Split(counts) = &entry.kind else { return Err(Problem::new(Code::FrameInvalid)) };
        if counts.sent != digest.count || landed.landed + quarantined != digest.count {
            return Err(Problem::new(Code::Mismatch).with("peer", "the provider").cause(format!(
                "split {name}: {} rows stated, {} read, {} staged, {quarantined} refused",
                counts.sent, digest.count, landed.landed
            )));
        }
        Ok((StagedSplit { landed: landed.landed, quarantined, digest }, landed.bad))
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

    /// Takes over a split's file from a transfer that failed. False where it is gone.
    pub(super) fn adopt(&self, predecessor: &TransferId, name: &[u8]) -> Result<bool, Problem> {
        let (from, to) = (self.root.join(predecessor.as_str()).join(split_file(name)), self.path(name));
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
