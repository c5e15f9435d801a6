//! Memory of chunks, used again: a fresh buffer of a chunk's size comes from the system page by page, each of them
//! zeroed first, which costs as much as hashing what is then put there. Short content lies in slabs, many in one, for the
//! same reason: what the system's allocator frees of it goes back to the system as soon as that is some pages.

use bytes::{Buf, Bytes, BytesMut};
use posthouse_protocol::limits;
use std::sync::{Mutex, PoisonError};

/// Buffers of one session or spool; what is short shares one. All are free again when it and their content are.
pub struct Buffers {
    /// Content that was handed out and may still be in use, and how much its buffer takes.
    lent: Mutex<Vec<(usize, Bytes)>>,
    /// How many are kept.
    most: usize,
    short: Mutex<Slabs>,
}

/// Where short content lies, one behind the other. All of a slab is free again when all that lies in it is dropped.
#[derive(Default)]
struct Slabs {
    /// What is free of the one that is filled now.
    open: BytesMut,
    /// The first byte of each, which nobody else has: it is alone when nothing is left in the others.
    begun: Vec<Bytes>,
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
        Self { lent: Mutex::default(), most, short: Mutex::default() }
    }

    /// An empty buffer with room for so many bytes; a large one begins where a disk's block may.
    pub fn take(&self, bytes: usize) -> BytesMut {
        if bytes < LEAST_BYTES {
            return self.short(bytes);
        }
        let mut buffer = self.free(bytes);
        buffer.clear();
        buffer
    }

    /// The same, full of zeros or of what it held before: who takes it writes all of it. To zero it each time took 3 % of
    /// the processor's time of a changed file.
    pub fn take_full(&self, bytes: usize) -> BytesMut {
        let mut buffer = if bytes < LEAST_BYTES { self.short(bytes) } else { self.free(bytes) };
        buffer.resize(bytes, 0);
        buffer
    }

    fn short(&self, bytes: usize) -> BytesMut {
        // As much memory as the large ones may take.
        let most = self.most.saturating_mul(limits::CHUNK_BYTES as usize / SLAB_BYTES);
        self.short.lock().unwrap_or_else(PoisonError::into_inner).take(bytes, most)
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

impl Slabs {
    /// Room for so many bytes, which nothing else has; less than a slab holds. `most` slabs are kept.
    fn take(&mut self, bytes: usize, most: usize) -> BytesMut {
        if self.open.capacity() < bytes {
            self.open = self.begin(most);
        }
        let rest = self.open.split_off(bytes);
        std::mem::replace(&mut self.open, rest)
    }

    fn begin(&mut self, most: usize) -> BytesMut {
        // What is left of the one before is of no use, and keeps it from being free.
        self.open = BytesMut::new();
        let free = self.begun.iter().position(Bytes::is_unique);
        let kept = free.map(|place| self.begun.swap_remove(place));
        let mut slab = match kept.map(Bytes::try_into_mut) {
            Some(Ok(slab)) => slab,
            _ => BytesMut::with_capacity(SLAB_BYTES),
        };
        slab.resize(1, 0);
        let first = slab.split_to(1).freeze();
        if self.begun.len() < most {
            self.begun.push(first);
        }
        slab
    }
}

/// Smaller ones share a slab.
const LEAST_BYTES: usize = 64 << 10;
/// Of a disk, and of a page of memory.
const ALIGN_BYTES: usize = 4096;
/// What is not used of it takes no memory.
const ROOM_BYTES: usize = 256 << 10;
/// Some ten short files.
const SLAB_BYTES: usize = 256 << 10;
const _: () = assert!(LEAST_BYTES < SLAB_BYTES && SLAB_BYTES <= limits::CHUNK_BYTES as usize);

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
    fn short_content_shares_a_slab_which_is_used_again_once_all_of_it_is_dropped() {
        let buffers = Buffers::default();
        let fill = |byte: u8, bytes: usize| {
            let mut buffer = buffers.take(bytes);
            assert_eq!((buffer.len(), buffer.capacity()), (0, bytes));
            buffer.resize(bytes, byte);
            buffers.filled(buffer)
        };
        let slabs = || buffers.short.lock().unwrap().begun.len();
        // Seven and a part of one: the eighth does not fit behind it.
        let mut filled: Vec<Bytes> = (0..7).map(|byte| fill(byte, 36 << 10)).collect();
        assert_eq!(slabs(), 1);
        let place = filled[0].as_ptr();
        assert!(filled.windows(2).all(|two| two[1].as_ptr() as usize == two[0].as_ptr() as usize + (36 << 10)));
        filled.push(fill(7, 36 << 10));
        assert_eq!(slabs(), 2);
        let left = filled.remove(3);
        filled.clear();
        // What lay in the second is gone, and there is room for six in it; of the first a part of one is left.
        let part = left.slice(5..10);
        drop(left);
        let again: Vec<Bytes> = (8..15).map(|byte| fill(byte, 36 << 10)).collect();
        assert_eq!(slabs(), 3, "a part of the first is in use, and the second is full");
        assert_eq!(part[..], [3; 5], "what is in use stays as it is");
        drop(part);
        let third: Vec<Bytes> = (15..22).map(|byte| fill(byte, 36 << 10)).collect();
        assert_eq!(slabs(), 3);
        assert!(third.iter().any(|content| content.as_ptr() == place), "the first is begun again");
        for (content, byte) in again.iter().chain(&third).zip(8..) {
            assert!(content.len() == 36 << 10 && content.iter().all(|one| *one == byte), "{byte}");
        }
        assert_eq!(buffers.take(0).len(), 0);
    }

    #[test]
    fn no_more_slabs_are_kept_than_may_be() {
        let mut slabs = Slabs::default();
        let taken: Vec<BytesMut> = (0..20).map(|_| slabs.take(60 << 10, 3)).collect();
        // Four in each.
        assert_eq!((taken.len(), slabs.begun.len()), (20, 3));
        drop(taken);
        let again: Vec<BytesMut> = (0..20).map(|_| slabs.take(60 << 10, 3)).collect();
        assert!(again.iter().all(|one| one.capacity() == 60 << 10) && slabs.begun.len() == 3);
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
