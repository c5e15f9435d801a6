//! Remembers which chunks have arrived, so that a chunk that has to come a second time after a kill is counted.
//! The file is written but never synced: it survives the process, not the machine, and decides nothing.

use crate::seal::storage;
use posthouse_protocol::chunk::VerifiedChunk;
use posthouse_protocol::id::TransferId;
use posthouse_protocol::manifest::Entry;
use posthouse_protocol::problem::Problem;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Clone)]
pub(super) struct Arrived {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    file: File,
    /// Arrived in an earlier process and not made durable there, as far as that is asked again now.
    before: BTreeSet<[u8; RECORD]>,
}

impl Arrived {
    pub(super) fn open(staging: &Path, transfer: &TransferId) -> Result<Self, Problem> {
        let path = path(staging, transfer);
        let open = || {
            std::fs::create_dir_all(staging)?;
            let mut bytes = Vec::new();
            let mut file = File::options().create(true).append(true).read(true).open(&path)?;
            (&mut file).take(BYTES_MAX).read_to_end(&mut bytes)?;
            Ok((file, bytes))
        };
        let (file, bytes): (File, Vec<u8>) = open().map_err(|e| storage(&path, &e))?;
        let before = bytes.as_chunks::<RECORD>().0.iter().copied().collect();
        Ok(Self { inner: Arc::new(Mutex::new(Inner { file, before })) })
    }

    /// Notes chunks that are about to be written; gives how many bytes of them came before.
    pub(super) fn note(&self, chunks: &[(Entry, VerifiedChunk)]) -> u64 {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let records: Vec<[u8; RECORD]> =
            chunks.iter().map(|(entry, chunk)| record(entry, chunk.meta().chunk())).collect();
        let again = records.iter().zip(chunks).filter(|(record, _)| inner.before.remove(*record));
        let again = again.map(|(_, (_, chunk))| u64::from(chunk.meta().bytes())).sum();
        if let Err(error) = inner.file.write_all(records.as_flattened()) {
            // Only a count in a listing depends on it.
            tracing::debug!(%error, "Arrived chunks are not noted");
        }
        again
    }

    /// All that arrived is durable: none of it is asked again.
    pub(super) fn clear(&self) {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = inner.file.set_len(0) {
            tracing::debug!(%error, "Arrived chunks are not forgotten");
        }
    }
}

pub(in crate::transfer::consumer) fn remove(staging: &Path, transfer: &TransferId) {
    // It is missing where nothing arrived.
    let _ = std::fs::remove_file(path(staging, transfer));
}

fn path(staging: &Path, transfer: &TransferId) -> PathBuf {
    staging.join(format!("{transfer}.arrived"))
}

fn record(entry: &Entry, chunk: u32) -> [u8; RECORD] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&entry.size.to_le_bytes()).update(&entry.mtime_ns.to_le_bytes()).update(&entry.name);
    let mut record = [0; RECORD];
    record[..12].copy_from_slice(&hasher.finalize().as_bytes()[..12]);
    record[12..].copy_from_slice(&chunk.to_le_bytes());
    record
}

const RECORD: usize = 16;
/// Four million chunks.
const BYTES_MAX: u64 = 64 << 20;
