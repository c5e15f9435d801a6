//! A chunk on the wire, and the proof that it was checked.
//! On a data channel: the 56-byte [`ChunkHeader`], then `wire_bytes` of body.

use minicbor::bytes::ByteArray;

/// Fixed layout, big-endian: entry u64, revision u32, chunk u32, bytes u32, wire_bytes u32, value [32] = 56.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkHeader {
    pub entry: u64,
    pub revision: u32,
    pub chunk: u32,
    /// Length of the content.
    pub bytes: u32,
    /// Length of the body: equal to `bytes` where it is raw; smaller where it is one zstd frame.
    pub wire_bytes: u32,
    /// BLAKE3 subtree value of the content at its place in the file (the root hash where the file is this one chunk).
    pub value: ByteArray<32>,
}
