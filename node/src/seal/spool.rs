//! Where sealed splits wait for the line: in memory as long as there is room, else in files of the transfer's
//! folder, which are synced one by one. Until the last split is sealed a restart loses the snapshot anyway, so
//! that nothing is gained by writing down what the line takes at once; what it has not taken by then is written.

use super::content::{Content, Held, Lease};
use super::writer::SplitWriter;
use super::{Sealed, storage};
use crate::extract::Extraction;
use crate::seal::ChunkValues;
use posthouse_platform::disk::Disk;
use posthouse_protocol::id::TransferId;
use posthouse_protocol::problem::{Code, Problem};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One transfer's folder in the spool, and what of it is in memory. All calls block.
#[derive(Clone)]
pub struct Spool {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
    here: Arc<Mutex<BTreeMap<u64, Here>>>,
}

/// What this process knows of a split that it sealed.
struct Here {
    /// Its chunks are sent without being hashed again.
    values: ChunkValues,
    /// None: it is in its file.
    held: Option<Held>,
}

/// A split's bytes, to be sent.
pub enum SplitBytes {
    Held(Held),
    File(File, PathBuf),
}

/// A split whose bytes are all there, and not yet durable where they are in a file.
pub struct Written {
    sealed: Sealed,
    values: ChunkValues,
    content: Content,
    spool: Spool,
}

impl Written {
    pub(super) fn new(sealed: Sealed, values: ChunkValues, content: Content, spool: Spool) -> Self {
        Self { sealed, values, content, spool }
    }

    /// Bytes that it takes on the disk.
    pub fn disk_bytes(&self) -> u64 {
        match self.content {
            Content::Held(_) => 0,
            Content::File(_) => self.sealed.split.size,
        }
    }

    /// Syncs the split, then its name, where it is in a file. The rows that could not move go to quarantine before
    /// anyone hears of it.
    pub fn seal(self) -> Result<Sealed, Problem> {
        let Self { sealed, values, content, spool } = self;
        let position = sealed.split.position;
        let held = match content {
            Content::Held(held) => Some(held),
            Content::File(file) => {
                spool.sync(&file, position)?;
                None
            }
        };
        spool.locked().insert(position, Here { values, held });
        Ok(sealed)
    }
}

impl Spool {
    /// `root` is the node's spool folder; the transfer's own folder is made when missing.
    pub fn open(root: &Path, transfer: &TransferId, disk: Arc<dyn Disk>) -> Result<Self, Problem> {
        let dir = root.join(transfer.as_str());
        std::fs::create_dir_all(&dir).and_then(|()| disk.sync_folder(root)).map_err(|e| storage(&dir, &e))?;
        Ok(Self { dir, disk, here: Arc::default() })
    }

    pub fn path(&self, position: u64) -> PathBuf {
        self.dir.join(format!("{position:08}.split"))
    }
    pub(super) fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// A split's bytes, and the values of its chunks where they are known. Fails with PH2004 where the consumer was
    /// known to have it for good.
    pub fn read(&self, position: u64) -> Result<(SplitBytes, Option<ChunkValues>), Problem> {
        let (held, values) = match self.locked().get(&position) {
            Some(Here { values, held }) => (held.clone(), Some(values.clone())),
            None => (None, None),
        };
        let bytes = match held {
            Some(held) => SplitBytes::Held(held),
            None => {
                let path = self.path(position);
                let file = File::open(&path).map_err(|e| match e.kind() {
                    io::ErrorKind::NotFound => Problem::new(Code::SnapshotLost)
                        .cause("a split is asked for that the consumer has said to keep; the spool holds it no more"),
                    _ => storage(&path, &e),
                })?;
                SplitBytes::File(file, path)
            }
        };
        Ok((bytes, values))
    }

    /// Extracts the next split, into memory if there is a lease for it. None once the extraction has no more.
    pub fn write_next(
        &self,
        extraction: &mut Extraction,
        position: u64,
        digest_key: [u8; 32],
        lease: Option<Lease>,
    ) -> Option<Result<Written, Problem>> {
        let name = extraction.peek()?.to_owned();
        let new = |extraction: &Extraction, lease, sifted| {
            SplitWriter::new(self, position, extraction.contract(), extraction.native(), digest_key, lease, sifted)
        };
        let mut writer = match new(extraction, lease, false) {
            Ok(writer) => writer,
            Err(problem) => return Some(Err(problem)),
        };
        let mut read = extraction.read_next(&mut writer)?;
        if read.is_ok() && writer.has_bad_rows() {
            writer = match new(extraction, None, true) {
                Ok(writer) => writer,
                Err(problem) => return Some(Err(problem)),
            };
            read = extraction.read_again(&mut writer)?;
        }
        Some(read.and_then(|counts| writer.finish(name, counts)))
    }

    /// Writes down what is in memory only: from here on the spool outlives the process.
    pub fn write_down(&self) -> Result<(), Problem> {
        let held: Vec<(u64, Held)> =
            self.locked().iter().filter_map(|(at, here)| Some((*at, here.held.clone()?))).collect();
        for (position, held) in held {
            let path = self.path(position);
            let write = || {
                let mut file = File::create(&path)?;
                for piece in held.pieces() {
                    self.disk.before_write(&path, piece.len() as u64)?;
                    file.write_all(piece)?;
                }
                Ok(file)
            };
            self.sync(&write().map_err(|e| storage(&path, &e))?, position)?;
            let released = self.locked().get_mut(&position).and_then(|here| here.held.take()).is_none();
            if released {
                gone(&path)?;
            }
        }
        Ok(())
    }

    /// The consumer has these splits for good.
    pub fn release(&self, positions: &[u64]) -> Result<(), Problem> {
        for position in positions {
            let held = self.locked().get_mut(position).and_then(|here| here.held.take());
            if held.is_none() {
                gone(&self.path(*position))?;
            }
        }
        Ok(())
    }

    /// Takes the transfer's folder away once its splits are receipted or given up.
    pub fn remove(&self) -> Result<(), Problem> {
        match std::fs::remove_dir_all(&self.dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(storage(&self.dir, &e)),
            _ => Ok(()),
        }
    }

    fn sync(&self, file: &File, position: u64) -> Result<(), Problem> {
        let path = self.path(position);
        let synced = self.disk.sync_file(file.as_fd(), &path).and_then(|()| self.disk.sync_folder(&self.dir));
        synced.map_err(|e| storage(&path, &e))
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<u64, Here>> {
        self.here.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was not there is removed too.
fn gone(path: &Path) -> Result<(), Problem> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(storage(path, &e)),
        _ => Ok(()),
    }
}
