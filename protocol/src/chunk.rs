//! A chunk on the wire, and the proof that it was checked.
//! On a data channel: the 56-byte [`ChunkHeader`], then `wire_bytes` of body, over and over.
//! A [`ChunkMeta`] exists only for content that was hashed at its place and found to be what its header says.

use crate::{contexts, limits};
use blake3::hazmat::{HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root};
use bytes::Bytes;
use minicbor::bytes::ByteArray;
use std::collections::BTreeMap;

pub const CHUNK_HEADER_BYTES: usize = 56;

/// Fixed layout, big-endian: entry u64, revision u32, chunk u32, bytes u32, form u8, wire_bytes u24, value [32] = 56.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkHeader {
    pub entry: u64,
    pub revision: u32,
    pub chunk: u32,
    /// Length of the content.
    pub bytes: u32,
    pub form: Form,
    /// Length of the body.
    pub wire_bytes: u32,
    /// BLAKE3 subtree value of the content at its place in the file (the root hash where the file is this one chunk).
    pub value: ByteArray<32>,
}

/// How a body gives its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As it is, or as one zstd frame where it is shorter than its content.
    Plain,
    /// By what differs from content that is at the consumer, see [`crate::delta`].
    Delta,
    /// As one LZ4 block.
    Lz4,
}

/// How hard content is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Packing {
    Not,
    Lz4,
    Zstd,
    /// At a third of the speed.
    ZstdMore,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    #[error("a chunk has the unknown form {0}")]
    Form(u8),
    #[error("a chunk declares {bytes} bytes in {wire_bytes}")]
    Lengths { bytes: u32, wire_bytes: u32 },
    #[error("a file of {0} bytes is over the limit")]
    FileTooLong(u64),
    #[error("chunk {chunk} does not exist in a file of {size} bytes, or has another length")]
    NoSuchChunk { chunk: u32, size: u64 },
    #[error("chunk {chunk} of entry {entry} does not unpack to {bytes} bytes")]
    Packed { entry: u64, chunk: u32, bytes: u32 },
    #[error("chunk {chunk} of entry {entry} cannot be put together: {cause}")]
    Delta { entry: u64, chunk: u32, cause: String },
    #[error("the content of chunk {chunk} of entry {entry} is not what its header says")]
    Value { entry: u64, chunk: u32 },
}

impl ChunkHeader {
    pub fn encode(&self) -> [u8; CHUNK_HEADER_BYTES] {
        let mut out = [0; CHUNK_HEADER_BYTES];
        out[..8].copy_from_slice(&self.entry.to_be_bytes());
        let body = u32::from(self.form.number()) << FORM_SHIFT | self.wire_bytes;
        for (at, field) in [self.revision, self.chunk, self.bytes, body].into_iter().enumerate() {
            out[8 + 4 * at..12 + 4 * at].copy_from_slice(&field.to_be_bytes());
        }
        out[24..].copy_from_slice(&*self.value);
        out
    }

    /// Whether its body is the content as it is.
    pub fn is_raw(&self) -> bool {
        self.form == Form::Plain && self.wire_bytes == self.bytes
    }

    /// Lengths are within their bounds afterwards: a body of `wire_bytes` may be allocated.
    pub fn decode(from: &[u8; CHUNK_HEADER_BYTES]) -> Result<Self, ChunkError> {
        let field = |at: usize| u32::from_be_bytes([from[at], from[at + 1], from[at + 2], from[at + 3]]);
        let mut value = [0; 32];
        value.copy_from_slice(&from[24..]);
        let header = Self {
            entry: u64::from(field(0)) << 32 | u64::from(field(4)),
            revision: field(8),
            chunk: field(12),
            bytes: field(16),
            form: Form::of(from[20])?,
            wire_bytes: field(20) & ((1 << FORM_SHIFT) - 1),
            value: value.into(),
        };
        let ok = header.bytes > 0 && header.bytes <= limits::CHUNK_BYTES_LARGE;
        if ok && header.wire_bytes > 0 && header.wire_bytes <= header.bytes {
            Ok(header)
        } else {
            Err(ChunkError::Lengths { bytes: header.bytes, wire_bytes: header.wire_bytes })
        }
    }
}

impl Form {
    fn number(self) -> u8 {
        match self {
            Self::Plain => 0,
            Self::Delta => 1,
            Self::Lz4 => 2,
        }
    }
    fn of(number: u8) -> Result<Self, ChunkError> {
        [Self::Plain, Self::Delta, Self::Lz4]
            .into_iter()
            .find(|form| form.number() == number)
            .ok_or(ChunkError::Form(number))
    }
}

/// How a file of a certain size is cut: which chunks it has and where they lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    size: u64,
}

impl Layout {
    pub fn new(size: u64) -> Result<Self, ChunkError> {
        if size > limits::FILE_BYTES_MAX { Err(ChunkError::FileTooLong(size)) } else { Ok(Self { size }) }
    }
    pub fn size(self) -> u64 {
        self.size
    }
    /// Length of every chunk but the last.
    pub fn chunk_bytes(self) -> u32 {
        if self.size > limits::LARGE_FILE_BYTES { limits::CHUNK_BYTES_LARGE } else { limits::CHUNK_BYTES }
    }
    /// Number of chunks; an empty file has none.
    pub fn chunks(self) -> u32 {
        // FILE_BYTES_MAX keeps it within 28 bits.
        self.size.div_ceil(u64::from(self.chunk_bytes())) as u32
    }
    pub fn offset(self, chunk: u32) -> u64 {
        u64::from(chunk) * u64::from(self.chunk_bytes())
    }
    /// Length of one chunk; 0 for a chunk that does not exist.
    pub fn bytes(self, chunk: u32) -> u32 {
        let left = self.size.saturating_sub(self.offset(chunk));
        // It is at most chunk_bytes, a u32.
        left.min(u64::from(self.chunk_bytes())) as u32
    }
    /// BLAKE3 value of `content` as this chunk: a subtree's value at its place, or the root hash where it is all.
    pub fn value(self, chunk: u32, content: &[u8]) -> [u8; 32] {
        if self.chunks() <= 1 {
            return *blake3::hash(content).as_bytes();
        }
        let mut hasher = blake3::Hasher::new();
        hasher.set_input_offset(self.offset(chunk));
        // One chunk is an aligned power of two, so a longer content would not be a subtree.
        let content = &content[..content.len().min(self.chunk_bytes() as usize)];
        hasher.update(content).finalize_non_root()
    }
}

/// Content that was hashed at its place and found to be what its header says.
#[derive(Debug, Clone)]
pub struct VerifiedChunk {
    meta: ChunkMeta,
    content: Bytes,
}

impl VerifiedChunk {
    pub fn verify(header: &ChunkHeader, layout: Layout, content: Bytes) -> Result<Self, ChunkError> {
        let bytes = layout.bytes(header.chunk);
        if bytes == 0 || bytes != header.bytes || content.len() != bytes as usize {
            return Err(ChunkError::NoSuchChunk { chunk: header.chunk, size: layout.size });
        }
        if layout.value(header.chunk, &content) != *header.value {
            return Err(ChunkError::Value { entry: header.entry, chunk: header.chunk });
        }
        Ok(Self { meta: ChunkMeta { header: *header, layout }, content })
    }
    pub fn meta(&self) -> ChunkMeta {
        self.meta
    }
    pub fn content(&self) -> &Bytes {
        &self.content
    }
    pub fn into_content(self) -> Bytes {
        self.content
    }
    /// Where it lies in its file.
    pub fn offset(&self) -> u64 {
        self.meta.layout.offset(self.meta.chunk())
    }
}

/// What is known of a verified chunk; made only by [`VerifiedChunk::verify`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkMeta {
    header: ChunkHeader,
    layout: Layout,
}

impl ChunkMeta {
    pub fn entry(&self) -> u64 {
        self.header.entry
    }
    pub fn revision(&self) -> u32 {
        self.header.revision
    }
    pub fn chunk(&self) -> u32 {
        self.header.chunk
    }
    pub fn bytes(&self) -> u32 {
        self.header.bytes
    }
    pub fn wire_bytes(&self) -> u32 {
        self.header.wire_bytes
    }
    pub fn value(&self) -> [u8; 32] {
        *self.header.value
    }
    pub fn layout(&self) -> Layout {
        self.layout
    }
    pub fn credit(&self) -> u64 {
        credit(self.header.bytes)
    }
}

/// What a chunk takes of the credit that the consumer has given.
pub fn credit(bytes: u32) -> u64 {
    u64::from(bytes) + limits::CHUNK_CREDIT_OVERHEAD
}

/// Content as it goes onto the line: packed where that saves at least a sixteenth, else as it is. Zeros always are.
pub fn pack(content: Bytes, packing: Packing) -> (Form, Bytes) {
    let (form, packed) = match packing {
        // A hole of a sparse file costs next to nothing on any line.
        Packing::Not if is_zero(&content) => (Form::Plain, contexts::compress(&content, 1).unwrap_or_default()),
        Packing::Not => return (Form::Plain, content),
        Packing::Lz4 => (Form::Lz4, lz4_flex::block::compress(&content)),
        Packing::Zstd => (Form::Plain, contexts::compress(&content, 1).unwrap_or_default()),
        Packing::ZstdMore => (Form::Plain, contexts::compress(&content, 3).unwrap_or_default()),
    };
    let saves = !packed.is_empty() && packed.len() + content.len() / 16 < content.len();
    if saves { (form, packed.into()) } else { (Form::Plain, content) }
}

/// Whether it is nothing but zeros.
pub fn is_zero(content: &[u8]) -> bool {
    // Most content fails at its first bytes; the rest is looked at by blocks, several bytes at once.
    content.first() == Some(&0) && content.chunks(64).all(|block| block.iter().fold(0, |all, byte| all | byte) == 0)
}

/// Puts the content of a body that came behind `header` into its place. Deltas are put together elsewhere.
pub fn unpack(header: &ChunkHeader, body: &[u8], content: &mut [u8]) -> Result<(), ChunkError> {
    let bad = ChunkError::Packed { entry: header.entry, chunk: header.chunk, bytes: header.bytes };
    if body.len() != header.wire_bytes as usize || content.len() != header.bytes as usize {
        return Err(bad);
    }
    let unpacked = match header.form {
        Form::Plain if header.is_raw() => {
            content.copy_from_slice(body);
            Some(body.len())
        }
        Form::Plain => contexts::decompress_into(body, content),
        Form::Lz4 => lz4_flex::block::decompress_into(body, content).ok(),
        Form::Delta => None,
    };
    if unpacked == Some(content.len()) { Ok(()) } else { Err(bad) }
}

/// The values of a file's chunks as they become known, joined into subtrees as soon as both halves are there:
/// a file that arrives in order takes a few dozen values, however long it is.
#[derive(Debug, Clone)]
pub struct Subtrees {
    layout: Layout,
    /// First chunk → (log2 of the number of chunks of a full subtree, its value). They do not overlap.
    known: BTreeMap<u32, (u32, [u8; 32])>,
    chunks_known: u32,
}

impl Subtrees {
    pub fn new(layout: Layout) -> Self {
        Self { layout, known: BTreeMap::new(), chunks_known: 0 }
    }
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Whether the chunk exists and was not known before.
    pub fn insert(&mut self, chunk: u32, value: [u8; 32]) -> bool {
        let chunks = self.layout.chunks();
        if chunk >= chunks || self.contains(chunk) {
            return false;
        }
        self.chunks_known += 1;
        let (mut start, mut level, mut value) = (chunk, 0u32, value);
        loop {
            let span = 1u32 << level;
            let parent = start & !(2 * span - 1);
            let sibling = if parent == start { start + span } else { parent };
            let full = u64::from(parent) + 2 * u64::from(span) <= u64::from(chunks);
            // The top of the tree is joined as a root, which only `root` does.
            let top = parent == 0 && 2 * span >= chunks;
            match self.known.get(&sibling) {
                Some((sibling_level, sibling_value)) if *sibling_level == level && full && !top => {
                    let sibling_value = *sibling_value;
                    let (left, right) = if parent == start { (value, sibling_value) } else { (sibling_value, value) };
                    value = merge_subtrees_non_root(&left, &right, Mode::Hash);
                    self.known.remove(&sibling);
                    start = parent;
                    level += 1;
                }
                _ => break,
            }
        }
        self.known.insert(start, (level, value));
        true
    }
    pub fn contains(&self, chunk: u32) -> bool {
        let before = self.known.range(..=chunk).next_back();
        before.is_some_and(|(start, (level, _))| chunk - start < 1 << level)
    }
    pub fn chunks_known(&self) -> u32 {
        self.chunks_known
    }
    pub fn complete(&self) -> bool {
        self.chunks_known == self.layout.chunks()
    }
    /// Half-open ranges of chunks that are not known, ascending.
    pub fn missing(&self) -> Vec<(u32, u32)> {
        let mut missing = Vec::new();
        let mut next = 0;
        for (start, (level, _)) in &self.known {
            if *start > next {
                missing.push((next, *start));
            }
            next = start + (1 << level);
        }
        if next < self.layout.chunks() {
            missing.push((next, self.layout.chunks()));
        }
        missing
    }
    /// The plain BLAKE3 hash of the file, once every chunk is known.
    pub fn root(&self) -> Option<[u8; 32]> {
        match self.layout.chunks() {
            _ if !self.complete() => None,
            0 => Some(*blake3::hash(b"").as_bytes()),
            1 => self.known.get(&0).map(|(_, value)| *value),
            _ => {
                let (left, right) = self.halves(0, self.layout.size)?;
                Some(*merge_subtrees_root(&left, &right, Mode::Hash).as_bytes())
            }
        }
    }

    /// The values of the two halves of the subtree that begins at `offset` and has `length` bytes.
    fn halves(&self, offset: u64, length: u64) -> Option<([u8; 32], [u8; 32])> {
        let left = left_subtree_len(length);
        Some((self.subtree(offset, left)?, self.subtree(offset + left, length - left)?))
    }
    fn subtree(&self, offset: u64, length: u64) -> Option<[u8; 32]> {
        let chunk_bytes = u64::from(self.layout.chunk_bytes());
        let (chunk, chunks) = ((offset / chunk_bytes) as u32, length.div_ceil(chunk_bytes) as u32);
        match self.known.get(&chunk) {
            Some((level, value)) if 1 << level == chunks => Some(*value),
            _ if chunks <= 1 => None,
            _ => {
                let (left, right) = self.halves(offset, length)?;
                Some(merge_subtrees_non_root(&left, &right, Mode::Hash))
            }
        }
    }
}

/// Hashes a file that is being written: its root, and the values of its chunks, in one pass. How long the file
/// becomes, and so how it is cut, is known at its end only.
#[derive(Default)]
pub struct ChunkHasher {
    hasher: blake3::Hasher,
    /// Bytes of the chunk that is under way.
    begun: usize,
    /// Values of the chunks of [`limits::CHUNK_BYTES`] before it.
    values: Vec<[u8; 32]>,
}

/// What a whole file's hashes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkHashes {
    pub root: [u8; 32],
    pub layout: Layout,
    /// As [`Layout::value`] has them, chunk by chunk.
    pub values: Vec<[u8; 32]>,
}

impl ChunkHasher {
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.begun == SMALL_CHUNK {
                self.values.push(self.hasher.finalize_non_root());
                // A used one keeps its offset, also when it is reset.
                self.hasher = blake3::Hasher::new();
                self.hasher.set_input_offset(self.values.len() as u64 * SMALL_CHUNK as u64);
                self.begun = 0;
            }
            let (part, rest) = bytes.split_at(bytes.len().min(SMALL_CHUNK - self.begun));
            self.hasher.update(part);
            self.begun += part.len();
            bytes = rest;
        }
    }

    pub fn finish(self) -> Result<ChunkHashes, ChunkError> {
        let Self { hasher, begun, mut values } = self;
        let layout = Layout::new(values.len() as u64 * SMALL_CHUNK as u64 + begun as u64)?;
        if values.is_empty() {
            let root = *hasher.finalize().as_bytes();
            return Ok(ChunkHashes { root, layout, values: if begun == 0 { values } else { vec![root] } });
        }
        values.push(hasher.finalize_non_root());
        let together = layout.chunk_bytes() as usize / SMALL_CHUNK;
        if together > 1 {
            values = values.chunks(together).filter_map(joined).collect();
        }
        let half = values.len().next_power_of_two() / 2;
        let (left, right) = values.split_at(half);
        match (joined(left), joined(right)) {
            (Some(left), Some(right)) => {
                let root = *merge_subtrees_root(&left, &right, Mode::Hash).as_bytes();
                Ok(ChunkHashes { root, layout, values })
            }
            // There are two values at least, and so one on either side.
            _ => Err(ChunkError::NoSuchChunk { chunk: 0, size: layout.size }),
        }
    }
}

/// The value of the subtree over neighbours of which all but the last are full; none of nothing.
fn joined(values: &[[u8; 32]]) -> Option<[u8; 32]> {
    match values {
        [] => None,
        [value] => Some(*value),
        _ => {
            let (left, right) = values.split_at(values.len().next_power_of_two() / 2);
            Some(merge_subtrees_non_root(&joined(left)?, &joined(right)?, Mode::Hash))
        }
    }
}

const SMALL_CHUNK: usize = limits::CHUNK_BYTES as usize;
/// In the field that has the form and the length of a body.
const FORM_SHIFT: u32 = 24;

const _: () = assert!(limits::CHUNK_BYTES_LARGE < 1 << FORM_SHIFT);

#[cfg(test)]
mod tests;
