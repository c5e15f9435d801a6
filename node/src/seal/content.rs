//! A split's bytes while they come: hashed as they pass, into memory if there is a lease of it, else into a file.
//! A split that outgrows its lease goes on in its file.

use super::{Spool, storage};
use crate::buffers::Buffers;
use bytes::{Bytes, BytesMut};
use posthouse_platform::disk::Disk;
use posthouse_protocol::chunk::{ChunkError, ChunkHasher, ChunkHashes};
use posthouse_protocol::limits;
use posthouse_protocol::problem::Problem;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The memory of a node in which sealed splits of all its transfers may wait for the line.
#[derive(Clone)]
pub struct HeldMemory {
    free: Arc<Semaphore>,
    /// Whether there is room for one split at all.
    is_enough: bool,
    buffers: Arc<Buffers>,
}

/// A part of it, for one split; free again when it is dropped.
pub struct Lease {
    permit: OwnedSemaphorePermit,
    buffers: Arc<Buffers>,
}

/// A split in memory, in pieces of a chunk's length.
#[derive(Clone)]
pub struct Held {
    pieces: Arc<[Bytes]>,
    _lease: Arc<Lease>,
}

/// A split whose bytes are all there.
pub(super) enum Content {
    Held(Held),
    File(File),
}

pub(super) struct Filling {
    to: To,
    hasher: ChunkHasher,
    path: PathBuf,
    disk: Arc<dyn Disk>,
}

enum To {
    Memory(Memory),
    File(BufWriter<File>),
}

struct Memory {
    pieces: Vec<Bytes>,
    last: BytesMut,
    lease: Lease,
}

impl HeldMemory {
    /// `memory` is what the node may use in all; half of it is for this.
    pub fn new(memory: u64) -> Self {
        let units = u32::try_from(memory / 2 / UNIT_BYTES).unwrap_or(u32::MAX);
        let (free, buffers) = (Arc::new(Semaphore::new(units as usize)), Arc::new(Buffers::for_bytes(memory / 2)));
        Self { free, is_enough: units >= LEASE_UNITS, buffers }
    }

    /// Room for one split, if there is some now.
    pub fn try_lease(&self) -> Option<Lease> {
        self.free.clone().try_acquire_many_owned(LEASE_UNITS).ok().map(|permit| self.leased(permit))
    }

    /// Room for one split, once there is some. None where there never is.
    pub async fn lease(&self) -> Option<Lease> {
        if !self.is_enough {
            return None;
        }
        self.free.clone().acquire_many_owned(LEASE_UNITS).await.ok().map(|permit| self.leased(permit))
    }

    fn leased(&self, permit: OwnedSemaphorePermit) -> Lease {
        Lease { permit, buffers: self.buffers.clone() }
    }
}

impl Lease {
    /// Gives back what is beyond so many bytes.
    fn shrink(&mut self, bytes: u64) {
        let kept = usize::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(usize::MAX);
        drop(self.permit.split(self.permit.num_permits().saturating_sub(kept)));
    }
}

impl Held {
    pub fn pieces(&self) -> &[Bytes] {
        &self.pieces
    }
    /// One chunk of it.
    pub fn chunk(&self, chunk: u32) -> Option<Bytes> {
        self.pieces.get(chunk as usize).cloned()
    }
}

impl Filling {
    pub(super) fn new(spool: &Spool, position: u64, lease: Option<Lease>) -> Result<Self, Problem> {
        let path = spool.path(position);
        let to = match lease {
            Some(lease) => To::Memory(Memory { pieces: Vec::new(), last: BytesMut::new(), lease }),
            None => To::File(file(&path).map_err(|e| storage(&path, &e))?),
        };
        Ok(Self { to, hasher: ChunkHasher::default(), path, disk: spool.disk().clone() })
    }

    pub(super) fn finish(self) -> Result<(ChunkHashes, Content), Problem> {
        let hashes = self.hasher.finish().map_err(|e: ChunkError| storage(&self.path, &io::Error::other(e)))?;
        let content = match self.to {
            To::Memory(memory) => Content::Held(memory.finish()),
            To::File(file) => Content::File(file.into_inner().map_err(|e| storage(&self.path, e.error()))?),
        };
        Ok((hashes, content))
    }

    /// The memory is used up: what is there is written, and the rest follows it.
    fn go_on_in_a_file(&mut self) -> io::Result<()> {
        let To::Memory(memory) = &mut self.to else { return Ok(()) };
        let mut file = file(&self.path)?;
        for piece in memory.pieces.iter().map(|piece| &piece[..]).chain([&memory.last[..]]) {
            self.disk.before_write(&self.path, piece.len() as u64)?;
            file.write_all(piece)?;
        }
        self.to = To::File(file);
        Ok(())
    }
}

impl Write for Filling {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let To::Memory(memory) = &self.to
            && memory.bytes() + bytes.len() > LEASE_BYTES
        {
            self.go_on_in_a_file()?;
        }
        let written = match &mut self.to {
            To::Memory(memory) => {
                memory.push(bytes);
                bytes.len()
            }
            To::File(file) => {
                self.disk.before_write(&self.path, bytes.len() as u64)?;
                file.write(bytes)?
            }
        };
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        match &mut self.to {
            To::Memory(_) => Ok(()),
            To::File(file) => file.flush(),
        }
    }
}

impl Memory {
    fn bytes(&self) -> usize {
        self.pieces.len() * PIECE_BYTES + self.last.len()
    }
    fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.last.capacity() == 0 {
                self.last = self.lease.buffers.take(PIECE_BYTES);
            }
            let (part, rest) = bytes.split_at(bytes.len().min(PIECE_BYTES - self.last.len()));
            self.last.extend_from_slice(part);
            if self.last.len() == PIECE_BYTES {
                self.pieces.push(self.lease.buffers.filled(std::mem::take(&mut self.last)));
            }
            bytes = rest;
        }
    }
    fn finish(mut self) -> Held {
        let mut bytes = self.pieces.len() * PIECE_BYTES;
        match self.last.len() {
            0 => {}
            // A buffer of its own, no longer than it is.
            short @ 1..SHORT_BYTES => {
                bytes += short;
                self.pieces.push(Bytes::copy_from_slice(&self.last));
            }
            _ => {
                bytes += PIECE_BYTES;
                self.pieces.push(self.lease.buffers.filled(self.last));
            }
        }
        self.lease.shrink(bytes as u64);
        Held { pieces: self.pieces.into(), _lease: Arc::new(self.lease) }
    }
}

fn file(path: &PathBuf) -> io::Result<BufWriter<File>> {
    Ok(BufWriter::with_capacity(WRITE_BYTES, File::create(path)?))
}

/// Splits over this are never held; they are larger than those of a usual table.
const LEASE_BYTES: usize = 12 << 20;
const LEASE_UNITS: u32 = (LEASE_BYTES as u64 / UNIT_BYTES) as u32;
const UNIT_BYTES: u64 = 4 << 10;
/// A chunk of a split that is not a large file.
const PIECE_BYTES: usize = limits::CHUNK_BYTES as usize;
const SHORT_BYTES: usize = PIECE_BYTES / 2;
const WRITE_BYTES: usize = 256 << 10;
