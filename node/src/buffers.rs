//! Memory of chunks, used again: a fresh buffer of a chunk's size comes from the system page by page, each of them
//! zeroed first, which costs as much as hashing what is then put there.

use bytes::{Buf, Bytes, BytesMut};
use posthouse_protocol::limits;
use std::sync::{Mutex, PoisonError};

/// Buffers of one session or spool; what is short may share one. All are free again when it and their content are.
pub struct Buffers {
    /// A handle to each buffer that was handed out; its content may still be in use.
    lent: Mutex<Vec<BytesMut>>,
    /// How many are kept.
    most: usize,
}

impl Default for Buffers {
    /// As many as a session has chunks in flight.
    fn default() -> Self {
        Self::for_bytes(limits::CREDIT_BYTES)
    }
}

impl Buffers {
    /// For so much content at once.
    pub fn for_bytes(bytes: u64) -> Self {
        let most = usize::try_from(bytes / u64::from(limits::CHUNK_BYTES)).unwrap_or(usize::MAX);
        Self { lent: Mutex::default(), most }
    }

    /// An empty buffer with room for so many bytes; a large one begins where a disk's block may.
    pub fn take(&self, bytes: usize) -> BytesMut {
        if bytes < LEAST_BYTES {
            return BytesMut::with_capacity(bytes);
        }
        let room = bytes + ALIGN_BYTES;
        let mut lent = self.lent.lock().unwrap_or_else(PoisonError::into_inner);
        let free = lent.iter_mut().position(|buffer| buffer.try_reclaim(room));
        let mut buffer = match free {
            Some(place) => lent.swap_remove(place),
            None => BytesMut::with_capacity(room.max(limits::CHUNK_BYTES as usize + ALIGN_BYTES)),
        };
        let gap = buffer.as_ptr().align_offset(ALIGN_BYTES).min(ALIGN_BYTES);
        buffer.resize(gap, 0);
        buffer.advance(gap);
        buffer
    }

    /// What was put into a buffer; its memory comes back when that is dropped.
    pub fn filled(&self, mut buffer: BytesMut) -> Bytes {
        let content = buffer.split().freeze();
        if content.len() >= LEAST_BYTES {
            let mut lent = self.lent.lock().unwrap_or_else(PoisonError::into_inner);
            if lent.len() < self.most {
                lent.push(buffer);
            }
        }
        content
    }
}

/// Smaller ones come from memory that the process holds anyway.
const LEAST_BYTES: usize = 64 << 10;
/// Of a disk, and of a page of memory.
const ALIGN_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_when_its_content_is_dropped_and_not_before() {
        let buffers = Buffers::default();
        let fill = |byte: u8, bytes: usize| {
            let mut buffer = buffers.take(bytes);
            assert!(buffer.is_empty() && buffer.capacity() >= bytes);
            assert!(bytes < LEAST_BYTES || buffer.as_ptr().align_offset(ALIGN_BYTES) == 0);
            buffer.resize(bytes, byte);
            buffers.filled(buffer)
        };
        let first = fill(1, 100 << 10);
        let place = first.as_ptr();
        let second = fill(2, 1 << 20);
        assert_ne!(second.as_ptr(), place);
        assert!(first.iter().all(|byte| *byte == 1), "it was in use");
        drop(first);
        let third = fill(3, 1 << 20);
        assert_eq!(third.as_ptr(), place);
        let larger = fill(4, 4 << 20);
        assert!([(&second, 2), (&third, 3), (&larger, 4)].iter().all(|(b, of)| b.iter().all(|byte| byte == of)));
        assert_eq!(buffers.lent.lock().unwrap().len(), 3);
        drop(fill(5, 100));
        assert_eq!(buffers.lent.lock().unwrap().len(), 3, "small ones are not kept");
    }

    #[test]
    fn no_more_are_kept_than_are_in_flight() {
        let buffers = Buffers::default();
        let filled: Vec<Bytes> = (0..2 * buffers.most)
            .map(|_| {
                let mut buffer = buffers.take(limits::CHUNK_BYTES as usize);
                buffer.resize(limits::CHUNK_BYTES as usize, 0);
                buffers.filled(buffer)
            })
            .collect();
        assert_eq!((filled.len(), buffers.lent.lock().unwrap().len()), (64, 32));
    }
}
