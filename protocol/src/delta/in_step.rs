//! A file that goes on as the consumer's content does, so many bytes further on or back: most of one that was edited.
//! Where its pieces end is known then without looking for it, and which hash each of them should have. Looking for the
//! ends, in each chunk and around it, is a good part of what comparing costs. Where an edit has moved what follows, the
//! chunk is cut after all, and that says by how much.

use super::{Delta, PieceIndex, hash_of};
use std::ops::Range;

/// Which pieces would make a chunk, and where they would lie in its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InStep {
    window: Range<u64>,
    pieces: Range<usize>,
}

impl InStep {
    /// What of the file has to be read for it.
    pub fn window(&self) -> Range<u64> {
        self.window.clone()
    }
}

impl PieceIndex {
    /// For `chunk` of a file of `size` bytes, if the consumer had that `shift` bytes further on. None where it has not so
    /// much, or where its pieces reach beyond the file or further than [`super::Cut::window`] does.
    pub fn in_step(&self, chunk: Range<u64>, size: u64, shift: i64) -> Option<InStep> {
        let (start, end) = (chunk.start.checked_add_signed(shift)?, chunk.end.checked_add_signed(shift)?);
        let first = self.pieces.partition_point(|piece| piece.end() <= start);
        let behind = self.pieces.partition_point(|piece| piece.offset < end);
        let pieces = self.pieces.get(first..behind)?;
        let (one, last) = (pieces.first()?, pieces.last()?);
        let back = shift.checked_neg()?;
        let window = one.offset.checked_add_signed(back)?..last.end().checked_add_signed(back)?;
        // The peer says how long its pieces are.
        let most = self.cut.window(chunk.clone(), size);
        let fits = window.start >= most.start && window.end <= most.end && window.end >= chunk.end;
        fits.then_some(InStep { window, pieces: first..behind })
    }

    /// The delta of the chunk that lies at `chunk` in `window`, which is what `step` asks for. None where it is not so: it
    /// is not in step at its end, more of it differs than an edit or two, or a delta would be no shorter than it.
    pub fn delta_in_step(&self, step: &InStep, window: &[u8], chunk: Range<usize>) -> Option<Vec<u8>> {
        let content = window.get(chunk.clone())?;
        let mut delta = Delta::new(content);
        let (mut at, mut other, mut is_in_step) = (0, 0, false);
        for piece in self.pieces.get(step.pieces.clone())? {
            let end = at + piece.bytes as usize;
            let part = at.max(chunk.start)..end.min(chunk.end);
            is_in_step = hash_of(window.get(at..end)?) == piece.hash;
            if is_in_step {
                let skipped = part.start - at;
                delta.copy(part.start - chunk.start..part.end - chunk.start, piece.offset + skipped as u64);
            } else {
                other += part.len();
                if other > content.len() / OTHER {
                    return None;
                }
            }
            at = end;
        }
        if is_in_step { delta.packed() } else { None }
    }
}

/// Up to this part of a chunk may be other than it was, and is sent as it is; what is there now may stand elsewhere at
/// the consumer, which is found by cutting.
const OTHER: usize = 4;

#[cfg(test)]
mod tests {
    use super::super::tests::random;
    use super::super::{Cut, PIECE_WIRE_BYTES, put_together};
    use super::*;
    use crate::limits;
    use std::convert::Infallible;

    const MIB: usize = 1 << 20;

    fn index(old: &[u8]) -> PieceIndex {
        let cut = Cut::for_size(old.len() as u64);
        let read = |offset: u64, out: &mut [u8]| {
            let rest = old.get(offset as usize..).unwrap_or_default();
            let bytes = rest.len().min(out.len());
            out[..bytes].copy_from_slice(&rest[..bytes]);
            Ok::<_, Infallible>(bytes)
        };
        PieceIndex::new(cut, &cut.pieces(0..u64::MAX, limits::PIECES_MAX, read).unwrap()).unwrap()
    }

    /// One chunk of `new`, put together at who has `old`, by the delta that following it gives.
    fn followed(index: &PieceIndex, old: &[u8], new: &[u8], chunk: Range<usize>, shift: i64) -> Option<usize> {
        let step = index.in_step(chunk.start as u64..chunk.end as u64, new.len() as u64, shift)?;
        let window = step.window().start as usize..step.window().end as usize;
        let within = chunk.start - window.start..chunk.end - window.start;
        let delta = index.delta_in_step(&step, &new[window], within)?;
        let mut content = vec![0; chunk.len()];
        let read = |offset: u64, out: &mut [u8]| {
            out.copy_from_slice(&old[offset as usize..][..out.len()]);
            Ok::<_, Infallible>(())
        };
        put_together(&delta, &mut content, read).unwrap();
        assert!(content == new[chunk]);
        Some(delta.len())
    }

    #[test]
    fn what_goes_on_as_before_is_followed_wherever_it_lies() {
        let old = random(8 * MIB, 1);
        let index = index(&old);
        for shift in [0, 1, 4096, -7, -100_000_i64] {
            // So much of the beginning is gone; or something stands before it.
            let new = match usize::try_from(shift) {
                Ok(shift) => old[shift..].to_vec(),
                Err(_) => [random(shift.unsigned_abs() as usize, 2), old.clone()].concat(),
            };
            for chunk in [2 * MIB..3 * MIB, 3 * MIB..4 * MIB, 4 * MIB..4 * MIB + 100] {
                assert!(followed(&index, &old, &new, chunk, shift).unwrap() < 100);
            }
            for other in [shift + 1, shift - 4096, 3 * MIB as i64] {
                assert_eq!(followed(&index, &old, &new, 2 * MIB..3 * MIB, other), None);
            }
        }
    }

    #[test]
    fn what_was_overwritten_within_a_chunk_is_sent_and_what_lies_behind_it_is_followed() {
        let old = random(8 * MIB, 3);
        let index = index(&old);
        let edited = |at: usize, bytes: usize| {
            let mut new = old.clone();
            new[at..at + bytes].copy_from_slice(&random(bytes, 4));
            followed(&index, &old, &new, 2 * MIB..3 * MIB, 0)
        };
        let sent = edited(2 * MIB + 300_000, 4096).unwrap();
        assert!((4096..200_000).contains(&sent), "{sent}");
        assert_eq!(edited(2 * MIB + 300_000, 400_000), None, "that is no small edit");
        assert_eq!(edited(3 * MIB - 4096, 4096), None, "whether the next chunk goes on so is not known");
        let moved = [&old[..2 * MIB + 500_000], b"x", &old[2 * MIB + 500_000..]].concat();
        assert_eq!(followed(&index, &old, &moved, 2 * MIB..3 * MIB, 0), None, "it goes on otherwise");
        assert!(followed(&index, &old, &moved, 3 * MIB..4 * MIB, -1).is_some());
    }

    #[test]
    fn a_chunk_that_is_cut_says_how_it_goes_on() {
        let old = random(8 * MIB, 5);
        let index = index(&old);
        let new = [&old[..2 * MIB + 500_000], &random(70_000, 6), &old[2 * MIB + 500_000..]].concat();
        let begins = |chunk: Range<usize>| {
            let window = index.cut().window(chunk.start as u64..chunk.end as u64, new.len() as u64);
            let window = window.start as usize..window.end as usize;
            let within = chunk.start - window.start..chunk.end - window.start;
            index.delta(&new[window], within).and_then(|differs| differs.begins)
        };
        assert_eq!(begins(MIB..2 * MIB), Some(MIB as i64));
        assert_eq!(begins(2 * MIB..3 * MIB), Some(2 * MIB as i64 - 70_000));
        assert!(followed(&index, &old, &new, 3 * MIB..4 * MIB, -70_000).is_some());
    }

    #[test]
    fn the_ends_of_both_contents_are_followed_and_nothing_beyond_them_is() {
        let old = random(3 * MIB + 12_345, 7);
        let index = index(&old);
        let size = old.len();
        assert!(followed(&index, &old, &old, 3 * MIB..size, 0).is_some());
        assert!(followed(&index, &old, &old, 0..MIB, 0).is_some());
        let size = size as u64;
        assert_eq!(index.in_step(0..100, size, -1), None, "before the beginning");
        assert_eq!(index.in_step(size - 10..size, size, 1), None, "beyond the end");
        assert_eq!(index.in_step(size..size + 10, size + 10, 0), None, "there is nothing");
        assert_eq!(index.in_step(0..100, 100, 0), None, "the piece is longer than the file");
        assert_eq!(index.in_step(0..100, size, i64::MIN), None);
        assert_eq!(index.in_step(u64::MAX - 10..u64::MAX, u64::MAX, i64::MAX), None);
    }

    #[test]
    fn for_pieces_that_nobody_cuts_no_more_is_read_around_a_chunk() {
        let piece = |bytes: u32| [[0; PIECE_WIRE_BYTES - 4].as_slice(), &bytes.to_be_bytes()].concat();
        let cut = Cut::for_size(1);
        let index = |bytes: u32| PieceIndex::new(cut, &[piece(bytes), piece(bytes)].concat()).unwrap();
        let mib = MIB as u32;
        let longest = cut.mean() * 4;
        assert!(index(mib).in_step(1 << 20..2 << 20, 1 << 40, 0).is_some());
        assert_eq!(index(u32::MAX).in_step(1 << 20..2 << 20, 1 << 40, 0), None);
        assert!(index(2 * mib + longest).in_step(0..2 << 20, 1 << 40, 0).is_some());
        assert_eq!(index(2 * mib + longest + 1).in_step(0..2 << 20, 1 << 40, 0), None);
    }
}
