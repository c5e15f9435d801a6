//! The pieces of a content that was put together from another one's. What a delta copies are whole pieces, or parts of
//! some that lie across the border of two chunks, so that most of the new content's pieces follow from the older one's
//! without looking at either: its outline. What lies between them is cut when the pieces are wanted, from the piece
//! before it on until a piece ends where one of those that are known begins. Where a piece ends follows from its own
//! bytes and the one behind them; so these are the pieces that cutting all of it would give, but where an edit begins
//! with that one byte.

use super::{Cut, DeltaError, PIECE_WIRE_BYTES, hash_of};
use crate::limits;
use std::collections::BTreeMap;
use std::ops::Range;

/// A part of a content that was copied from another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    pub place: Range<u64>,
    /// Where it begins in the other one.
    pub from: u64,
}

impl Copied {
    /// Where in the other content lies what comes behind it.
    fn goes_on_at(&self) -> Option<u64> {
        self.from.checked_add(self.place.end.saturating_sub(self.place.start))
    }
}

/// What was copied into the chunks of one content. They may come in any order.
#[derive(Debug, Default)]
pub struct Copies {
    /// By where it lies: how long it is, and whence it came.
    runs: BTreeMap<u64, (u64, u64)>,
}

impl Copies {
    /// What was copied into the chunk that begins at `offset`, by its place in that. Beyond a quarter of a
    /// million nothing is kept: it is as if it had been sent.
    pub fn add(&mut self, offset: u64, copied: &[Copied]) {
        for Copied { place, from } in copied {
            if self.runs.len() >= RUNS_MAX {
                return;
            }
            let bytes = place.end.saturating_sub(place.start);
            self.runs.insert(offset.saturating_add(place.start), (bytes, *from));
        }
    }

    /// The outline of the content of `size` bytes that came of it. `pieces` are those of the other one, cut by `cut`.
    pub fn outline(&self, size: u64, cut: Cut, pieces: &[u8]) -> Outline {
        let (each, _) = pieces.as_chunks::<PIECE_WIRE_BYTES>();
        let mut ends = Vec::with_capacity(each.len());
        let mut end: u64 = 0;
        for piece in each {
            end = end.saturating_add(u64::from(bytes_of(piece)));
            ends.push(end);
        }
        let mut made = Making { parts: Vec::with_capacity(pieces.len()), end: 0, pieces: 0 };
        for Copied { place, from } in self.joined() {
            let until = from.saturating_add(place.end - place.start);
            let first = if from == 0 { 0 } else { 1 + ends.partition_point(|end| *end < from) };
            for (number, (piece, end)) in each.iter().zip(&ends).enumerate().skip(first) {
                if *end > until || made.pieces >= limits::PIECES_MAX {
                    break;
                }
                let bytes = u64::from(bytes_of(piece));
                let at = place.start.saturating_add((*end - bytes).saturating_sub(from));
                // The last piece ends because the content does, and so does a short one: within another content nobody
                // would cut there.
                let ends_by_itself = number + 1 < each.len() && bytes >= u64::from(cut.mean() / 2);
                let fits = at >= made.end && at.checked_add(bytes).is_some_and(|end| end <= size);
                if fits && (ends_by_itself || at + bytes == size) {
                    made.piece(at, piece, bytes);
                }
            }
        }
        made.up_to(size);
        Outline { cut, size, parts: made.parts }
    }

    /// Those that lie side by side in both contents are one.
    fn joined(&self) -> Vec<Copied> {
        let mut joined: Vec<Copied> = Vec::new();
        for (start, (bytes, from)) in &self.runs {
            match joined.last_mut() {
                Some(last) if last.place.end == *start && last.goes_on_at() == Some(*from) => {
                    last.place.end = start.saturating_add(*bytes);
                }
                _ => joined.push(Copied { place: *start..start.saturating_add(*bytes), from: *from }),
            }
        }
        joined
    }
}

struct Making {
    parts: Vec<u8>,
    /// Up to here the parts are told.
    end: u64,
    pieces: usize,
}

impl Making {
    fn piece(&mut self, at: u64, piece: &[u8; PIECE_WIRE_BYTES], bytes: u64) {
        self.up_to(at);
        self.parts.extend_from_slice(piece);
        self.end = at + bytes;
        self.pieces += 1;
    }
    fn up_to(&mut self, at: u64) {
        if at > self.end {
            self.parts.extend_from_slice(&(at - self.end).to_be_bytes());
            self.parts.extend_from_slice(&[0; 4]);
            self.end = at;
        }
    }
}

/// The pieces of a content as far as they are known, and how much lies between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    cut: Cut,
    size: u64,
    /// Pieces as they are told. Where the length of one is nought, what stands for its hash is the length of what is not
    /// cut yet.
    parts: Vec<u8>,
}

impl Outline {
    /// Of a content that was cut, from its beginning on if not to its end.
    pub fn of_pieces(cut: Cut, size: u64, pieces: &[u8]) -> Result<Self, DeltaError> {
        let mut parts = pieces.to_vec();
        let known = known_bytes(pieces);
        if known < size {
            parts.extend_from_slice(&(size - known).to_be_bytes());
            parts.extend_from_slice(&[0; 4]);
        }
        Self::new(cut, size, parts)
    }

    /// From its parts, see [`Self::parts`]: they may be anybody's.
    pub fn new(cut: Cut, size: u64, parts: Vec<u8>) -> Result<Self, DeltaError> {
        let (each, rest) = parts.as_chunks::<PIECE_WIRE_BYTES>();
        if !rest.is_empty() || each.len() > PARTS_MAX {
            return Err(DeltaError::Outline);
        }
        let mut end: u64 = 0;
        for part in each {
            let bytes = match bytes_of(part) {
                0 => between(part),
                bytes if bytes as usize > cut.max() => 0,
                bytes => u64::from(bytes),
            };
            end = end.checked_add(bytes).filter(|_| bytes > 0).ok_or(DeltaError::Outline)?;
        }
        if end != size {
            return Err(DeltaError::Outline);
        }
        Ok(Self { cut, size, parts })
    }

    pub fn cut(&self) -> Cut {
        self.cut
    }
    /// The length of the content.
    pub fn size(&self) -> u64 {
        self.size
    }
    /// As it is kept: 12 bytes each.
    pub fn parts(&self) -> &[u8] {
        &self.parts
    }
    /// How much of the content is in pieces that are known.
    pub fn known_bytes(&self) -> u64 {
        known_bytes(&self.parts)
    }

    /// All pieces of the content as they go onto the line, `most` at most: what lies between those that are known is read
    /// and cut. `read` fills a buffer from an offset and says how far it came; where that is nothing the pieces end.
    pub fn pieces<E>(
        &self,
        most: usize,
        mut read: impl FnMut(u64, &mut [u8]) -> Result<usize, E>,
    ) -> Result<Vec<u8>, E> {
        let (each, _) = self.parts.as_chunks::<PIECE_WIRE_BYTES>();
        let mut pieces = Vec::with_capacity(self.parts.len());
        let mut stretch = Stretch::new(self.cut, self.size);
        // Where the parts end so far, and where the pieces do: behind it where one lies across a known one's beginning.
        let (mut end, mut at): (u64, u64) = (0, 0);
        for part in each {
            let bytes = u64::from(bytes_of(part));
            let start = end;
            end += if bytes == 0 { between(part) } else { bytes };
            if bytes > 0 && at == start {
                pieces.extend_from_slice(part);
                at = end;
            }
            while at < end {
                let piece = stretch.piece(at, end, &mut read)?;
                if piece.is_empty() {
                    return Ok(pieces);
                }
                at += piece.len() as u64;
                pieces.extend_from_slice(&hash_of(piece).to_be_bytes());
                pieces.extend_from_slice(&(piece.len() as u32).to_be_bytes());
                if pieces.len() / PIECE_WIRE_BYTES >= most {
                    break;
                }
            }
            if pieces.len() / PIECE_WIRE_BYTES >= most {
                break;
            }
        }
        Ok(pieces)
    }
}

/// What was read of a content to be cut.
struct Stretch {
    cut: Cut,
    size: u64,
    start: u64,
    buffer: Vec<u8>,
    filled: usize,
}

impl Stretch {
    fn new(cut: Cut, size: u64) -> Self {
        Self { cut, size, start: 0, buffer: Vec::new(), filled: 0 }
    }

    /// The piece that begins at `at`; it is likely that all up to `end` is to be cut. Empty where the content is shorter
    /// than it was.
    fn piece<E>(
        &mut self,
        at: u64,
        end: u64,
        read: &mut impl FnMut(u64, &mut [u8]) -> Result<usize, E>,
    ) -> Result<&[u8], E> {
        let left = self.size.saturating_sub(at);
        let needed = left.min(self.cut.max() as u64);
        let has = at >= self.start && at + needed <= self.start + self.filled as u64;
        if !has {
            if self.buffer.is_empty() {
                self.buffer.resize(self.cut.read_bytes() + self.cut.max(), 0);
            }
            let likely = end.saturating_sub(at).saturating_add(self.cut.max() as u64).min(left);
            let wanted = self.buffer.len().min(usize::try_from(likely).unwrap_or(usize::MAX));
            let room = self.buffer.get_mut(..wanted).unwrap_or_default();
            self.filled = read(at, room)?.min(wanted);
            self.start = at;
        }
        let from = usize::try_from(at.saturating_sub(self.start)).unwrap_or(usize::MAX);
        let content = self.buffer.get(from..self.filled).unwrap_or_default();
        if content.is_empty() {
            return Ok(content);
        }
        let (_, end) = self.cut.over(content).cut(0, content.len());
        Ok(content.get(..end).unwrap_or_default())
    }
}

fn bytes_of(piece: &[u8; PIECE_WIRE_BYTES]) -> u32 {
    let [.., b0, b1, b2, b3] = *piece;
    u32::from_be_bytes([b0, b1, b2, b3])
}

fn between(part: &[u8; PIECE_WIRE_BYTES]) -> u64 {
    let [h0, h1, h2, h3, h4, h5, h6, h7, ..] = *part;
    u64::from_be_bytes([h0, h1, h2, h3, h4, h5, h6, h7])
}

fn known_bytes(parts: &[u8]) -> u64 {
    let (each, _) = parts.as_chunks::<PIECE_WIRE_BYTES>();
    each.iter().map(|part| u64::from(bytes_of(part))).sum()
}

/// A chunk that goes on as before is one run; with its edits it is a few.
const RUNS_MAX: usize = 1 << 18;
/// Between any two pieces something may lie.
pub const PARTS_MAX: usize = 2 * limits::PIECES_MAX + 1;

#[cfg(test)]
mod tests {
    use super::super::tests::{random, reader};
    use super::super::{Differs, PieceIndex, put_together};
    use super::*;
    use std::convert::Infallible;

    const MIB: usize = 1 << 20;

    fn all_of(cut: Cut, content: &[u8]) -> Vec<u8> {
        cut.pieces(0..u64::MAX, limits::PIECES_MAX, reader(content)).unwrap()
    }

    /// What is known of `new` at who has `old` with these pieces, once it was put together chunk by chunk, the last first.
    fn outline(cut: Cut, old: &[u8], pieces: &[u8], new: &[u8]) -> Outline {
        let index = PieceIndex::new(cut, pieces).unwrap();
        let mut copies = Copies::default();
        let starts: Vec<usize> = (0..new.len()).step_by(MIB).collect();
        for start in starts.into_iter().rev() {
            let chunk = start..(start + MIB).min(new.len());
            let window = cut.window(chunk.start as u64..chunk.end as u64, new.len() as u64);
            let window = window.start as usize..window.end as usize;
            let within = chunk.start - window.start..chunk.end - window.start;
            let Some(Differs { delta, .. }) = index.delta(&new[window], within) else { continue };
            let mut content = vec![0; chunk.len()];
            let read = |offset: u64, out: &mut [u8]| {
                out.copy_from_slice(&old[offset as usize..][..out.len()]);
                Ok::<_, Infallible>(())
            };
            copies.add(chunk.start as u64, &put_together(&delta, &mut content, read).unwrap());
            assert!(content == new[chunk]);
        }
        copies.outline(new.len() as u64, cut, pieces)
    }

    /// The pieces that follow for `new`, and how much of it was read for that.
    fn follow(cut: Cut, old: &[u8], pieces: &[u8], new: &[u8]) -> (Vec<u8>, usize) {
        let outline = outline(cut, old, pieces, new);
        assert_eq!(Outline::new(cut, outline.size(), outline.parts().to_vec()).unwrap(), outline);
        let mut bytes = 0;
        let read = |offset: u64, out: &mut [u8]| {
            bytes += out.len();
            reader(new)(offset, out)
        };
        let pieces = outline.pieces(limits::PIECES_MAX, read).unwrap();
        (pieces, bytes)
    }

    #[test]
    fn what_follows_from_copies_is_what_cutting_all_of_it_gives() {
        let cut = Cut::for_size(1);
        let mut old = random(10 * MIB + 321, 1);
        let mut pieces = all_of(cut, &old);
        // One change after the other: nothing is ever cut as a whole again.
        for round in 0..6_u64 {
            let mut new = old.clone();
            let fresh = random(30_000 + round as usize * 7919, 100 + round);
            match round % 3 {
                0 => new[3 * MIB - 5000..][..fresh.len()].copy_from_slice(&fresh),
                1 => drop(new.splice(5 * MIB + 17..5 * MIB + 17, fresh)),
                _ => drop(new.drain(7 * MIB + 11..7 * MIB + 20_011)),
            }
            // It grows at its end too, by less than a piece.
            new.extend_from_slice(&random(100, 200 + round));
            let (followed, read) = follow(cut, &old, &pieces, &new);
            assert!(followed == all_of(cut, &new), "round {round}");
            assert!(read < 2 * MIB, "{read} bytes were read in round {round}");
            (old, pieces) = (new, followed);
        }
    }

    #[test]
    fn parts_exchanged_and_contents_with_nothing_in_common_are_cut_as_they_lie() {
        let cut = Cut::for_size(1);
        let old = random(6 * MIB, 7);
        let pieces = all_of(cut, &old);
        for new in [
            [&old[4 * MIB..], &old[MIB..3 * MIB], &old[4 * MIB..5 * MIB]].concat(),
            old[..2 * MIB + 5].to_vec(),
            random(MIB + 3, 8),
            random(10, 9),
            old.clone(),
        ] {
            let (followed, read) = follow(cut, &old, &pieces, &new);
            assert!(followed == all_of(cut, &new), "{} bytes", new.len());
            assert!(new != old || read == 0, "nothing of what is the same is read");
        }
    }

    #[test]
    fn what_of_the_older_content_is_not_known_is_cut() {
        let cut = Cut::for_size(1);
        let old = random(4 * MIB, 11);
        let some = all_of(cut, &old)[..20 * PIECE_WIRE_BYTES].to_vec();
        let (followed, read) = follow(cut, &old, &some, &old);
        assert!(followed == all_of(cut, &old) && read > 3 * MIB);
        let outline = Outline::of_pieces(cut, old.len() as u64, &some).unwrap();
        assert!(outline.known_bytes() > 0 && outline.known_bytes() < MIB as u64);
        assert!(outline.pieces(limits::PIECES_MAX, reader(&old)).unwrap() == followed);
        let few = outline.pieces(25, reader(&old)).unwrap();
        assert!(few == followed[..25 * PIECE_WIRE_BYTES], "no more than may be told");
    }

    #[test]
    fn a_content_that_is_shorter_than_it_was_gives_fewer_pieces() {
        let cut = Cut::for_size(1);
        let old = random(MIB, 12);
        let outline = Outline::of_pieces(cut, old.len() as u64, &[]).unwrap();
        assert_eq!(outline.known_bytes(), 0);
        let pieces = outline.pieces(limits::PIECES_MAX, reader(&old[..MIB / 2])).unwrap();
        assert!(pieces == all_of(cut, &old[..MIB / 2]));
    }

    #[test]
    fn copies_that_nobody_makes_are_of_no_harm() {
        let cut = Cut::for_size(1);
        let old = random(MIB, 13);
        let pieces = all_of(cut, &old);
        let mut copies = Copies::default();
        let far = Copied { place: 0..u64::MAX, from: u64::MAX - 1 };
        let twice = Copied { place: 5..300_000, from: 0 };
        copies.add(0, &[far.clone(), twice.clone(), Copied { place: 100_000..400_000, from: 0 }]);
        copies.add(u64::MAX - 3, &[far, twice]);
        let outline = copies.outline(MIB as u64, cut, &pieces);
        assert_eq!(Outline::new(cut, MIB as u64, outline.parts().to_vec()).unwrap(), outline);
        let mut many = Copies::default();
        let run = |at: u64| Copied { place: at * 3..at * 3 + 1, from: at };
        many.add(0, &(0..RUNS_MAX as u64 + 10).map(run).collect::<Vec<_>>());
        assert_eq!(many.runs.len(), RUNS_MAX);
    }

    #[test]
    fn an_outline_covers_its_content_exactly() {
        let cut = Cut::for_size(1);
        let part = |value: u64, bytes: u32| [&value.to_be_bytes()[..], &bytes.to_be_bytes()].concat();
        let of = |parts: &[Vec<u8>], size: u64| Outline::new(cut, size, parts.concat());
        let longest = cut.mean() * 4;
        assert_eq!(of(&[part(7, longest), part(50, 0)], u64::from(longest) + 50).unwrap().known_bytes(), 65_536);
        for (parts, size) in [
            (vec![part(7, longest + 1)], u64::from(longest) + 1),
            (vec![part(0, 0)], 0),
            (vec![part(50, 0)], 49),
            (vec![part(50, 0)], 51),
            (vec![part(u64::MAX, 0), part(2, 0)], 1),
            (vec![part(1, 1), vec![0; 11]], 1),
        ] {
            assert_eq!(of(&parts, size), Err(DeltaError::Outline));
        }
        let many = part(1, 1).repeat(PARTS_MAX + 1);
        assert_eq!(Outline::new(cut, PARTS_MAX as u64 + 1, many), Err(DeltaError::Outline));
        assert_eq!(Outline::of_pieces(cut, 5, &part(1, 6)), Err(DeltaError::Outline), "more than there is");
    }
}
