//! Values of chunks that were read before: where a line was cut, or this node began anew, before a file's root was
//! known, what the consumer has of it is not read once more only to be hashed. They are kept by the file's state: one
//! that was written to since begins anew. They only stand in for a reading: what leaves is hashed as it leaves, and the
//! consumer finds values and root itself, in what it landed. Roots of files that were read whole are the store's alone.

#[cfg(test)]
mod tests;

use crate::store::{Store, exchange};
use posthouse_connectors::folder::FileStat;
use posthouse_platform::clock::Clock;
use posthouse_protocol::chunk::Layout;
use posthouse_protocol::id::ResourceId;
use posthouse_protocol::limits;
use posthouse_protocol::manifest::Entry;
use posthouse_protocol::time::Timestamp;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What this process knows, of all resources: of the large files that were asked for last, the oldest first.
#[derive(Default)]
pub struct Recall {
    files: Mutex<VecDeque<Arc<FileValues>>>,
}

/// What a session has for the files of its resource: the process's memory, and behind it the store.
pub struct ReadBefore {
    pub recall: Arc<Recall>,
    pub resource: ResourceId,
    pub store: Store,
    pub clock: Arc<dyn Clock>,
}

/// What is known of a file that is being read. All who read the file as it is now share it.
pub(super) struct Recalled {
    file: Arc<FileValues>,
    store: Store,
    clock: Arc<dyn Clock>,
}

struct FileValues {
    resource: ResourceId,
    name: Vec<u8>,
    /// As it was when all of this was found.
    stat: FileStat,
    chunk_bytes: u32,
    /// What it takes of memory.
    bytes: usize,
    values: Mutex<Values>,
}

struct Values {
    /// Chunk by chunk.
    known: Vec<Option<[u8; 32]>>,
    /// Those that are not in the store yet.
    fresh: exchange::ChunkValues,
}

impl ReadBefore {
    /// None of a file that is short, or longer than is remembered; nor of one whose root is known, unless it was read
    /// just before: nothing of it has to be hashed. Blocks.
    pub(super) fn of(&self, entry: &Entry, stat: &FileStat, layout: Layout) -> Option<Recalled> {
        let is_large = stat.size >= limits::RECALLED_BYTES_MIN && stat.size == layout.size();
        if !is_large || bytes(layout) > RECALL_BYTES_MAX {
            return None;
        }
        let file = match self.recall.find(&self.resource, &entry.name, stat) {
            Some(file) => file,
            None if entry.root.is_some() => return None,
            None => self.recall.enter(self.stored(&entry.name, stat, layout)),
        };
        Some(Recalled { file, store: self.store.clone(), clock: self.clock.clone() })
    }

    /// All of a file was read, and its root is another than the one that was known. Blocks.
    pub(super) fn forget(&self, name: &[u8]) {
        let resource = &self.resource;
        tracing::warn!(%resource, "A file has other content than before, and the same times and length");
        if let Err(problem) = self.store.write_now(|tx| exchange::forget_hashed(tx, resource, name)) {
            tracing::debug!(%resource, %problem, "What was read before is not forgotten");
        }
    }

    /// What an earlier process has left.
    fn stored(&self, name: &[u8], stat: &FileStat, layout: Layout) -> FileValues {
        let (resource, chunk_bytes) = (self.resource.clone(), layout.chunk_bytes());
        let mut known = vec![None; layout.chunks() as usize];
        let read = self.store.read_now(|db| {
            exchange::chunks_hashed(db, &resource, name, stat, chunk_bytes, &mut |chunk, value| {
                if let Some(known) = known.get_mut(chunk as usize) {
                    *known = Some(value);
                }
            })
        });
        if let Err(problem) = read {
            tracing::debug!(%resource, %problem, "What was read before is read again");
        }
        let values = Mutex::new(Values { known, fresh: Vec::new() });
        FileValues { resource, name: name.to_vec(), stat: *stat, chunk_bytes, bytes: bytes(layout), values }
    }
}

impl Recall {
    fn find(&self, resource: &ResourceId, name: &[u8], stat: &FileStat) -> Option<Arc<FileValues>> {
        let mut files = self.locked();
        let at = files.iter().position(|file| file.is(resource, name) && file.stat == *stat)?;
        let file = files.remove(at)?;
        files.push_back(file.clone());
        Some(file)
    }

    fn enter(&self, file: FileValues) -> Arc<FileValues> {
        let mut files = self.locked();
        // Of several threads that begin at once one comes first, and the others share what it has.
        let entered = files.iter().find(|found| found.is(&file.resource, &file.name) && found.stat == file.stat);
        if let Some(entered) = entered {
            return entered.clone();
        }
        // What it was before is of no use any more.
        files.retain(|found| !found.is(&file.resource, &file.name));
        let file = Arc::new(file);
        files.push_back(file.clone());
        while files.len() > RECALL_FILES_MAX || files.iter().map(|file| file.bytes).sum::<usize>() > RECALL_BYTES_MAX {
            files.pop_front();
        }
        file
    }

    fn locked(&self) -> MutexGuard<'_, VecDeque<Arc<FileValues>>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recalled {
    /// Whether what is read from now on may be remembered.
    pub(super) fn is_quiet(&self) -> bool {
        is_quiet(&self.file.stat, self.clock.now())
    }

    pub(super) fn get(&self, chunk: u32) -> Option<[u8; 32]> {
        self.file.locked().known.get(chunk as usize).copied().flatten()
    }

    /// A chunk was read and hashed, and the file was the same after it; `was_quiet` before it. Writes down what has
    /// come together. Where something else was known, all that was known of the file is forgotten. Blocks.
    pub(super) fn put(&self, chunk: u32, value: [u8; 32], was_quiet: bool) {
        let mut values = self.file.locked();
        let Some(known) = values.known.get(chunk as usize).copied() else { return };
        match known {
            Some(known) if known == value => return,
            Some(_) => {
                values.known.fill(None);
                values.fresh.clear();
                drop(values);
                self.forget(chunk);
                return;
            }
            None if !was_quiet => return,
            None => {}
        }
        if let Some(known) = values.known.get_mut(chunk as usize) {
            *known = Some(value);
        }
        values.fresh.push((chunk, value));
        if values.fresh.len() as u64 * u64::from(self.file.chunk_bytes) < RECALL_KEPT_BYTES {
            return;
        }
        let fresh = std::mem::take(&mut values.fresh);
        drop(values);
        self.keep(&fresh);
    }

    fn keep(&self, chunks: &[(u32, [u8; 32])]) {
        let FileValues { resource, name, stat, chunk_bytes, .. } = &*self.file;
        let keep = |tx: &rusqlite::Transaction<'_>| {
            exchange::put_chunks_hashed(tx, resource, name, stat, *chunk_bytes, chunks)
        };
        if let Err(problem) = self.store.write_now(keep) {
            // After a restart these are read once more, and that is all.
            tracing::debug!(%resource, %problem, "What was read is not remembered");
        }
    }

    fn forget(&self, chunk: u32) {
        let FileValues { resource, name, .. } = &*self.file;
        tracing::warn!(%resource, chunk, "A file has other content than before, and the same times and length");
        let forget = |tx: &rusqlite::Transaction<'_>| exchange::forget_hashed(tx, resource, name);
        if let Err(problem) = self.store.write_now(forget) {
            tracing::debug!(%resource, %problem, "What was read before is not forgotten");
        }
    }
}

impl FileValues {
    fn is(&self, resource: &ResourceId, name: &[u8]) -> bool {
        self.resource == *resource && self.name == name
    }
    fn locked(&self) -> MutexGuard<'_, Values> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a file has rested long enough for its times to tell of any later change.
pub fn is_quiet(stat: &FileStat, now: Timestamp) -> bool {
    now.0.saturating_sub(stat.mtime_ns.max(stat.ctime_ns) / 1_000_000) > QUIET_MS
}

fn bytes(layout: Layout) -> usize {
    layout.chunks() as usize * size_of::<Option<[u8; 32]>>()
}

const QUIET_MS: i64 = 2_000;
/// Files that are remembered in memory, and what that may take: 1 TB of files over 4 GiB. A longer one is read again.
const RECALL_FILES_MAX: usize = 64;
const RECALL_BYTES_MAX: usize = 8 << 20;
/// So much content of a file is read again at most where this process is killed.
const RECALL_KEPT_BYTES: u64 = 256 << 20;
