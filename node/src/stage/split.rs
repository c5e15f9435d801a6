//! A split while it comes: its chunks in memory, or in its file where it is long, was begun before, or cannot be
//! staged as soon as it is whole.

use crate::seal::storage;
use bytes::Bytes;
use posthouse_connectors::RawRows;
use posthouse_platform::disk::Disk;
use posthouse_protocol::chunk::VerifiedChunk;
use posthouse_protocol::digest::BucketDigest;
use posthouse_protocol::pgcopy::{Shape, Walker};
use posthouse_protocol::problem::Problem;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// One split that is being written. All calls block.
pub(super) struct SplitPart {
    path: PathBuf,
    disk: Arc<dyn Disk>,
    chunks: Mutex<Chunks>,
}

enum Chunks {
    /// By where they lie in the split.
    Memory(BTreeMap<u64, Bytes>),
    File(File),
}

/// Whatever a split's bytes are in.
pub(super) enum SplitContent {
    Memory(Vec<Bytes>),
    File(File),
}

impl SplitPart {
    pub(super) fn in_memory(path: PathBuf, disk: Arc<dyn Disk>) -> Self {
        Self { path, disk, chunks: Mutex::new(Chunks::Memory(BTreeMap::new())) }
    }

    pub(super) fn in_file(path: PathBuf, disk: Arc<dyn Disk>) -> Result<Self, Problem> {
        let file = open(&path)?;
        Ok(Self { path, disk, chunks: Mutex::new(Chunks::File(file)) })
    }

    pub(super) fn write(&self, chunk: &VerifiedChunk) -> Result<(), Problem> {
        match &mut *self.chunks.lock().unwrap_or_else(PoisonError::into_inner) {
            Chunks::Memory(held) => {
                held.insert(chunk.offset(), chunk.content().clone());
                Ok(())
            }
            Chunks::File(file) => self.write_at(file, chunk.offset(), chunk.content()),
        }
    }

    /// Writes down what is in memory, and syncs it.
    pub(super) fn sync(&self) -> Result<(), Problem> {
        let mut chunks = self.chunks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Chunks::Memory(held) = &*chunks {
            let file = open(&self.path)?;
            held.iter().try_for_each(|(offset, content)| self.write_at(&file, *offset, content))?;
            *chunks = Chunks::File(file);
        }
        match &*chunks {
            Chunks::File(file) => self.disk.sync_file(file.as_fd(), &self.path).map_err(|e| storage(&self.path, &e)),
            Chunks::Memory(_) => Ok(()),
        }
    }

    /// Its bytes, once all of them have come.
    pub(super) fn bytes(&self) -> Result<SplitContent, Problem> {
        match &*self.chunks.lock().unwrap_or_else(PoisonError::into_inner) {
            Chunks::Memory(held) => Ok(SplitContent::Memory(held.values().cloned().collect())),
            Chunks::File(_) => SplitContent::of_file(&self.path),
        }
    }

    fn write_at(&self, file: &File, offset: u64, bytes: &[u8]) -> Result<(), Problem> {
        self.disk
            .before_write(&self.path, bytes.len() as u64)
            .and_then(|()| file.write_all_at(bytes, offset))
            .map_err(|e| storage(&self.path, &e))
    }
}

impl SplitContent {
    pub(super) fn of_file(path: &Path) -> Result<Self, Problem> {
        File::open(path).map(Self::File).map_err(|e| storage(path, &e))
    }

    /// As a reader from the first byte on.
    pub(super) fn reader(self) -> SplitReader {
        match self {
            Self::Memory(pieces) => SplitReader::Memory(Pieces { pieces, piece: 0, at: 0 }),
            Self::File(file) => SplitReader::File(file),
        }
    }
}

/// Reads a split's bytes, as often as it is rewound.
pub(super) enum SplitReader {
    Memory(Pieces),
    File(File),
}

pub(super) struct Pieces {
    pieces: Vec<Bytes>,
    piece: usize,
    at: usize,
}

impl Pieces {
    /// The next bytes that lie together, at most so many; none at the end.
    fn next(&mut self, most: usize) -> &[u8] {
        while self.pieces.get(self.piece).is_some_and(|bytes| self.at >= bytes.len()) {
            (self.piece, self.at) = (self.piece + 1, 0);
        }
        let rest = self.pieces.get(self.piece).and_then(|bytes| bytes.get(self.at..)).unwrap_or_default();
        let next = rest.get(..most).unwrap_or(rest);
        self.at += next.len();
        next
    }
}

impl SplitReader {
    fn rewind(&mut self) -> io::Result<()> {
        match self {
            Self::Memory(pieces) => {
                (pieces.piece, pieces.at) = (0, 0);
                Ok(())
            }
            Self::File(file) => file.rewind(),
        }
    }

    /// The next bytes, where they are or in `buffer`; none at the end.
    fn next<'a>(&'a mut self, buffer: &'a mut Vec<u8>) -> io::Result<&'a [u8]> {
        match self {
            Self::Memory(pieces) => Ok(pieces.next(READ_BYTES)),
            Self::File(file) => {
                buffer.resize(READ_BYTES, 0);
                let read = file.read(buffer)?;
                Ok(buffer.get(..read).unwrap_or_default())
            }
        }
    }
}

impl Read for SplitReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Memory(pieces) => pieces.next(into.len()).read(into),
            Self::File(file) => file.read(into),
        }
    }
}

/// A split in an engine's own form. Its rows are digested as they pass the first time; a destination is given no
/// byte that was not looked at before.
pub(super) struct RawSplit {
    reader: SplitReader,
    path: PathBuf,
    buffer: Vec<u8>,
    shape: Shape,
    key: [u8; 32],
    /// None once it has seen the whole split.
    walker: Option<Walker>,
    buckets: BucketDigest,
}

impl RawSplit {
    pub(super) fn new(bytes: SplitContent, path: PathBuf, shape: Shape, key: [u8; 32]) -> Self {
        let walker = Some(Walker::new(&shape, key));
        Self { reader: bytes.reader(), path, buffer: Vec::new(), shape, key, walker, buckets: BucketDigest::new() }
    }
    /// What all its rows are, also those that the destination did not ask for.
    pub(super) fn finish(mut self) -> Result<BucketDigest, Problem> {
        while self.walker.is_some() {
            self.next()?;
        }
        Ok(self.buckets)
    }
}

impl RawRows for RawSplit {
    fn next(&mut self) -> Result<Option<&[u8]>, Problem> {
        let Self { reader, path, buffer, walker, buckets, .. } = self;
        let bytes = reader.next(buffer).map_err(|e| storage(path, &e))?;
        if let Some(mut walking) = walker.take() {
            if bytes.is_empty() {
                walking.finish()?;
            } else {
                walking.feed(bytes, &mut |row| buckets.add(row.bucket, &row.hash))?;
                *walker = Some(walking);
            }
        }
        Ok((!bytes.is_empty()).then_some(bytes))
    }
    fn rewind(&mut self) -> Result<(), Problem> {
        self.reader.rewind().map_err(|e| storage(&self.path, &e))?;
        if self.walker.is_some() {
            self.walker = Some(Walker::new(&self.shape, self.key));
            self.buckets = BucketDigest::new();
        }
        Ok(())
    }
}

fn open(path: &Path) -> Result<File, Problem> {
    File::options().create(true).truncate(false).write(true).open(path).map_err(|e| storage(path, &e))
}

const READ_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use posthouse_platform::disk::RealDisk;
    use posthouse_protocol::chunk::{ChunkHeader, Form, Layout};

    fn content() -> Vec<u8> {
        (0..2_500_000u32).map(|byte| (byte % 251) as u8).collect()
    }

    /// The chunks of some content, the last one first.
    fn chunks(content: &[u8]) -> Vec<VerifiedChunk> {
        let layout = Layout::new(content.len() as u64).unwrap();
        let chunk = |chunk: u32| {
            let (from, bytes) = (layout.offset(chunk) as usize, layout.bytes(chunk));
            let body = Bytes::copy_from_slice(&content[from..from + bytes as usize]);
            let value = layout.value(chunk, &body).into();
            let header =
                ChunkHeader { entry: 0, revision: 0, chunk, bytes, form: Form::Plain, wire_bytes: bytes, value };
            VerifiedChunk::verify(&header, layout, body).unwrap()
        };
        (0..layout.chunks()).rev().map(chunk).collect()
    }

    fn read(part: &SplitPart) -> Vec<u8> {
        let mut read = Vec::new();
        part.bytes().unwrap().reader().read_to_end(&mut read).unwrap();
        let (mut reader, mut buffer, mut pieces) = (part.bytes().unwrap().reader(), Vec::new(), Vec::new());
        for _ in 0..2 {
            pieces.clear();
            reader.rewind().unwrap();
            while let piece @ [_, ..] = reader.next(&mut buffer).unwrap() {
                assert!(piece.len() <= READ_BYTES);
                pieces.extend_from_slice(piece);
            }
        }
        assert!(pieces == read, "piece by piece it is the same");
        read
    }

    #[test]
    fn a_split_in_memory_is_the_same_in_its_file_once_it_is_synced() {
        let (folder, content) = (tempfile::tempdir().unwrap(), content());
        let path = folder.path().join("split");
        let part = SplitPart::in_memory(path.clone(), Arc::new(RealDisk));
        let (last, rest) = chunks(&content).split_first().map(|(last, rest)| (last.clone(), rest.to_vec())).unwrap();
        part.write(&last).unwrap();
        for chunk in &rest {
            part.write(chunk).unwrap();
            part.write(chunk).unwrap();
        }
        assert!(!path.exists() && read(&part) == content);
        part.sync().unwrap();
        assert!(std::fs::read(&path).unwrap() == content && read(&part) == content);
    }

    #[test]
    fn what_comes_after_a_sync_goes_into_the_file_and_another_process_goes_on_there() {
        let (folder, content) = (tempfile::tempdir().unwrap(), content());
        let path = folder.path().join("split");
        let chunks = chunks(&content);
        let part = SplitPart::in_memory(path.clone(), Arc::new(RealDisk));
        part.write(&chunks[0]).unwrap();
        part.sync().unwrap();
        part.write(&chunks[1]).unwrap();
        let later = SplitPart::in_file(path.clone(), Arc::new(RealDisk)).unwrap();
        later.write(&chunks[2]).unwrap();
        later.sync().unwrap();
        assert!(std::fs::read(&path).unwrap() == content && read(&later) == content);
    }
}
