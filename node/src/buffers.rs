//! Memory of chunks, used again: a fresh buffer of a chunk's size comes from the system page by page, each of them
//! zeroed first, which costs as much as hashing what is then put there.

use bytes::{Buf, Bytes, BytesMut};
use posthouse_protocol::limits;
use std::sync::{Mutex, PoisonError};

/// Buffers of one session or spool; what is short may share one. All are free again when it and their content are.
pub struct Buffers {
    /// Content that was handed out and may still be in use, and how much its buffer takes.
    lent: Mutex<Vec<(usize, Bytes)>>,
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
        let mut buffer = self.free(bytes);
        buffer.clear();
        buffer
    }

    /// The same, full of zeros or of what it held before: who takes it writes all of it. To zero it each time took 3 % of
    /// the processor's time of a changed file.
    pub fn take_full(&self, bytes: usize) -> BytesMut {
        if bytes < LEAST_BYTES {
            return BytesMut::zeroed(bytes);
        }
        let mut buffer = self.free(bytes);
        buffer.resize(bytes, 0);
        buffer
    }

    fn free(&self, bytes: usize) -> BytesMut {
        let mut lent = self.lent.lock().unwrap_or_else(PoisonError::into_inner);
        let free = lent.iter().position(|(room, content)| *room >= bytes && content.is_unique());
        let kept = free.map(|place| lent.swap_remove(place).1);
        drop(lent);
        if let Some(Ok(buffer)) = kept.map(Bytes::try_into_mut) {
            return buffer;
        }
        // Those of a chunk and of what lies around it are in turn each other's.
        let room = (bytes + ALIGN_BYTES).next_multiple_of(ROOM_BYTES);
        let mut buffer = BytesMut::with_capacity(room.max(limits::CHUNK_BYTES as usize + ALIGN_BYTES));
        let gap = buffer.as_ptr().align_offset(ALIGN_BYTES).min(ALIGN_BYTES);
        buffer.resize(gap, 0);
        buffer.advance(gap);
        buffer
    }

    /// What was put into a buffer; its memory comes back when that is dropped.
    pub fn filled(&self, buffer: BytesMut) -> Bytes {
        let room = buffer.capacity();
        let content = buffer.freeze();
        if content.len() >= LEAST_BYTES {
            let mut lent = self.lent.lock().unwrap_or_else(PoisonError::into_inner);
            if lent.len() < self.most {
                lent.push((room, content.clone()));
            }
        }
        content
    }
}

/// Smaller ones come from memory that the process holds anyway.
const LEAST_BYTES: usize = 64 << 10;
/// Of a disk, and of a page of memory.
const ALIGN_BYTES: usize = 4096;
/// What is not used of it takes no memory.
const ROOM_BYTES: usize = 256 << 10;

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
    fn a_full_buffer_has_what_it_held_before_and_zeros_beyond_and_begins_where_it_did() {
        let buffers = Buffers::default();
        let mut buffer = buffers.take_full(100 << 10);
        assert!(buffer.iter().all(|byte| *byte == 0));
        buffer.fill(7);
        let place = buffer.as_ptr();
        let content = buffers.filled(buffer);
        let part = content.slice(5..10);
        drop(content);
        assert_ne!(buffers.take_full(100 << 10).as_ptr(), place, "a part of it is in use");
        drop(part);
        let buffer = buffers.take_full((100 << 10) + 5);
        assert_eq!((buffer.as_ptr(), buffer.len()), (place, (100 << 10) + 5));
        assert!(buffer[..100 << 10].iter().all(|byte| *byte == 7) && buffer[100 << 10..] == [0; 5]);
        assert_eq!(buffer.as_ptr().align_offset(ALIGN_BYTES), 0);
        drop(buffers.filled(buffer));
        let shorter = buffers.take_full(70 << 10);
        assert_eq!((shorter.as_ptr(), shorter.len()), (place, 70 << 10));
        assert!(buffers.take_full(100).iter().all(|byte| *byte == 0));
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
