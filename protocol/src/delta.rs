//! What of a file has changed. The consumer cuts the content that it has (an older version, or the same file under
//! another name) where the content itself says so, and tells the hash of each piece. The provider cuts what it reads
//! alike; of a chunk it then sends what is not among these pieces, and the places of the rest: a delta.
//! Both are hints only: what is put together from a delta is a chunk, and is verified as one.
//! Cut by FastCDC (Xia et al., 2020): a piece that is inserted or left out moves no other.
//! Where a file goes on as at the consumer nothing has to be cut to see it, see `in_step`.

mod in_step;
mod outline;

use crate::{contexts, limits};
use fastcdc::v2020::FastCDC;
pub use in_step::InStep;
pub use outline::{Copied, Copies, Outline, PARTS_MAX};
use std::ops::Range;

/// One piece in a [`crate::frame::Pieces`]: the first 8 bytes of its BLAKE3 hash, its length as u32, big-endian.
pub const PIECE_WIRE_BYTES: usize = 12;

/// How content is cut: both sides do it alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    mean: u32,
}

/// The pieces of a content that is at the consumer.
#[derive(Debug)]
pub struct PieceIndex {
    cut: Cut,
    /// As they lie there: each begins where the one before it ends.
    pieces: Vec<Piece>,
    /// Their places in that, in the order of their hashes.
    by_hash: Vec<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Piece {
    hash: u64,
    bytes: u32,
    /// Where it lies in the consumer's content.
    offset: u64,
}

/// A chunk by what differs.
#[derive(Debug)]
pub struct Differs {
    pub delta: Vec<u8>,
    /// Where the chunk would begin in the consumer's content, were all of it there as its last known bytes are. None:
    /// nothing of it is known. It may lie before that content's beginning.
    pub begins: Option<i64>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeltaError {
    #[error("content cannot be cut into pieces of {0} bytes")]
    Mean(u32),
    #[error("a list of pieces ends within one, or has one of no length")]
    Pieces,
    #[error("an outline is not that of its content")]
    Outline,
    #[error("a delta does not unpack")]
    Packed,
    #[error("a delta does not make the bytes that it declares")]
    Bytes,
}

impl Cut {
    /// For a content of so many bytes: as fine as its pieces may be many.
    pub fn for_size(bytes: u64) -> Self {
        let mut mean = MEAN_MIN;
        // Half of them: the mean is only aimed at.
        while mean < MEAN_MAX && bytes / u64::from(mean) > limits::PIECES_MAX as u64 / 2 {
            mean *= 2;
        }
        Self { mean }
    }
    /// As a peer has cut.
    pub fn new(mean: u32) -> Result<Self, DeltaError> {
        let is_known = mean.is_power_of_two() && (MEAN_MIN..=MEAN_MAX).contains(&mean);
        if is_known { Ok(Self { mean }) } else { Err(DeltaError::Mean(mean)) }
    }
    /// Mean length of a piece in bytes, about: a power of two.
    pub fn mean(self) -> u32 {
        self.mean
    }
    /// The longest piece.
    fn max(self) -> usize {
        self.mean as usize * 4
    }
    /// What is read of a content at once to be cut. What the processor has near by is cut and hashed sooner; a piece that
    /// is not whole yet is moved to the front each time, and should be little of it.
    fn read_bytes(self) -> usize {
        (8 * self.max()).min(READ_BYTES_MAX)
    }
    /// No piece ends in its first half, of which nothing is looked at therefore: with ends from a quarter on, and more of
    /// them around the mean, twice as much is looked at, the pieces are half as long again, and the cuts of a content
    /// that begins otherwise fall into step no sooner.
    fn over(self, content: &[u8]) -> FastCDC<'_> {
        let half = self.mean as usize / 2;
        FastCDC::new(content, half, half, self.max())
    }

    /// What has to be read around `chunk` of a file of `size` bytes to find the pieces that it has a part in: they lie
    /// across its borders, and before the first of them the cuts have to fall into step.
    pub fn window(self, chunk: Range<u64>, size: u64) -> Range<u64> {
        let max = self.max() as u64;
        chunk.start.saturating_sub(2 * max)..(chunk.end + max).min(size)
    }

    /// Cuts a stretch of a content and gives its pieces as they go onto the line, `most` at most. `read` fills a buffer
    /// from an offset and says how far it came, less than all of it only at the end. Where one stretch begins and the
    /// next ends a few pieces fall otherwise than in one cut of both; the pieces of all, in order, are those of all.
    pub fn pieces<E>(
        self,
        stretch: Range<u64>,
        most: usize,
        mut read: impl FnMut(u64, &mut [u8]) -> Result<usize, E>,
    ) -> Result<Vec<u8>, E> {
        let mut pieces = Vec::new();
        let mut window = vec![0; self.read_bytes() + self.max()];
        let (mut start, mut filled) = (stretch.start, 0);
        loop {
            let room = window.get_mut(filled..).unwrap_or_default();
            let left = stretch.end.saturating_sub(start + filled as u64);
            let wanted = room.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let came = read(start + filled as u64, room.get_mut(..wanted).unwrap_or_default())?.min(wanted);
            filled += came;
            let is_end = came < wanted || wanted as u64 == left;
            let content = window.get(..filled).unwrap_or_default();
            let cuts = self.over(content);
            let mut at = 0;
            while at < filled && (is_end || filled - at >= self.max()) {
                if pieces.len() / PIECE_WIRE_BYTES >= most {
                    return Ok(pieces);
                }
                let (_, end) = cuts.cut(at, filled - at);
                let piece = content.get(at..end).unwrap_or_default();
                pieces.extend_from_slice(&hash_of(piece).to_be_bytes());
                pieces.extend_from_slice(&(piece.len() as u32).to_be_bytes());
                at = end;
            }
            if is_end {
                return Ok(pieces);
            }
            window.copy_within(at..filled, 0);
            (start, filled) = (start + at as u64, filled - at);
        }
    }
}

impl PieceIndex {
    /// `pieces` as they came, in the order in which they lie in the content.
    pub fn new(cut: Cut, pieces: &[u8]) -> Result<Self, DeltaError> {
        let (each, rest) = pieces.as_chunks::<PIECE_WIRE_BYTES>();
        let mut offset = 0;
        let mut pieces = Vec::with_capacity(each.len());
        for [h0, h1, h2, h3, h4, h5, h6, h7, b0, b1, b2, b3] in each {
            let hash = u64::from_be_bytes([*h0, *h1, *h2, *h3, *h4, *h5, *h6, *h7]);
            let bytes = u32::from_be_bytes([*b0, *b1, *b2, *b3]);
            if bytes == 0 {
                return Err(DeltaError::Pieces);
            }
            pieces.push(Piece { hash, bytes, offset });
            offset += u64::from(bytes);
        }
        if !rest.is_empty() {
            return Err(DeltaError::Pieces);
        }
        // Of those that are alike the first is found.
        let mut sorted: Vec<(u64, u32, u32)> =
            pieces.iter().zip(0..).map(|(piece, at)| (piece.hash, piece.bytes, at)).collect();
        sorted.sort_unstable();
        let mut by_hash: Vec<u32> = sorted.into_iter().map(|(_, _, at)| at).collect();
        // It may have taken over the room of what it was made from.
        by_hash.shrink_to_fit();
        Ok(Self { cut, pieces, by_hash })
    }
    pub fn cut(&self) -> Cut {
        self.cut
    }

    /// Where a piece lies in the consumer's content.
    fn find(&self, piece: &[u8]) -> Option<u64> {
        let key = (hash_of(piece), piece.len() as u32);
        let known = |at: &u32| self.pieces.get(*at as usize);
        let at = self.by_hash.partition_point(|at| known(at).map(Piece::key) < Some(key));
        self.by_hash.get(at).and_then(known).filter(|known| known.key() == key).map(|known| known.offset)
    }

    /// The delta of the chunk that lies at `chunk` in `window` (what [`Cut::window`] asks for), where it is shorter
    /// than its content.
    pub fn delta(&self, window: &[u8], chunk: Range<usize>) -> Option<Differs> {
        let content = window.get(chunk.clone())?;
        let cuts = self.cut.over(window);
        let mut delta = Delta::new(content);
        let mut at = 0;
        while at < chunk.end {
            let (_, end) = cuts.cut(at, window.len() - at);
            if end > chunk.start
                && let Some(offset) = self.find(window.get(at..end)?)
            {
                let part = at.max(chunk.start)..end.min(chunk.end);
                let skipped = part.start - at;
                delta.copy(part.start - chunk.start..part.end - chunk.start, offset + skipped as u64);
            }
            at = end;
        }
        let begins = delta.copy.as_ref().map(|(part, from)| *from as i64 - part.start as i64);
        Some(Differs { delta: delta.packed()?, begins })
    }
}

impl Piece {
    fn key(&self) -> (u64, u32) {
        (self.hash, self.bytes)
    }
    fn end(&self) -> u64 {
        self.offset + u64::from(self.bytes)
    }
}

/// Writes the steps that make a chunk's content: its bytes as they are, or a copy of the consumer's.
struct Delta<'c> {
    out: Vec<u8>,
    content: &'c [u8],
    /// How much of the content the steps make so far.
    written: usize,
    /// The last step, as long as it may grow: where it begins in the content, and whence it copies.
    copy: Option<(Range<usize>, u64)>,
}

impl<'c> Delta<'c> {
    fn new(content: &'c [u8]) -> Self {
        Self { out: Vec::new(), content, written: 0, copy: None }
    }
    fn copy(&mut self, part: Range<usize>, offset: u64) {
        if let Some((copy, from)) = &mut self.copy
            && copy.end == part.start
            && *from + copy.len() as u64 == offset
        {
            copy.end = part.end;
            return;
        }
        self.end_copy();
        self.bytes_up_to(part.start);
        self.copy = Some((part, offset));
    }
    fn end_copy(&mut self) {
        let Some((copy, from)) = self.copy.take() else { return };
        self.out.push(COPY);
        self.out.extend_from_slice(&(copy.len() as u32).to_be_bytes());
        self.out.extend_from_slice(&from.to_be_bytes());
        self.written = copy.end;
    }
    fn bytes_up_to(&mut self, end: usize) {
        let bytes = self.content.get(self.written..end).unwrap_or_default();
        if !bytes.is_empty() {
            self.out.push(BYTES);
            self.out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
            self.out.extend_from_slice(bytes);
        }
        self.written = end;
    }
    fn finish(mut self) -> Vec<u8> {
        self.end_copy();
        self.bytes_up_to(self.content.len());
        self.out
    }
    /// As it goes onto the line, where that is shorter than the content.
    fn packed(self) -> Option<Vec<u8>> {
        let most = self.content.len();
        let steps = self.finish();
        if steps.len() >= most {
            return None;
        }
        contexts::compress(&steps, ZSTD_LEVEL).filter(|packed| packed.len() < most)
    }
}

/// Puts a chunk together from its delta: fills `content`, whose length the chunk declares. `read` fills a buffer from
/// the consumer's own content. Gives what was copied of that, by its place in the chunk.
pub fn put_together<E>(
    delta: &[u8],
    content: &mut [u8],
    mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
) -> Result<Vec<Copied>, PutTogether<E>> {
    let chunk_bytes = content.len();
    let mut copied = Vec::new();
    let steps = contexts::decompress(delta, content.len()).ok_or(DeltaError::Packed)?;
    let (mut steps, mut content) = (steps.as_slice(), content);
    while let Some((kind, rest)) = steps.split_first() {
        let (bytes, rest) = rest.split_first_chunk::<4>().ok_or(DeltaError::Bytes)?;
        let bytes = u32::from_be_bytes(*bytes) as usize;
        let (room, left) = content.split_at_mut_checked(bytes).ok_or(DeltaError::Bytes)?;
        steps = match *kind {
            BYTES => {
                let (bytes, rest) = rest.split_at_checked(bytes).ok_or(DeltaError::Bytes)?;
                room.copy_from_slice(bytes);
                rest
            }
            COPY => {
                let (offset, rest) = rest.split_first_chunk::<8>().ok_or(DeltaError::Bytes)?;
                let from = u64::from_be_bytes(*offset);
                read(from, room).map_err(PutTogether::Read)?;
                if bytes >= COPIED_BYTES_MIN {
                    let end = (chunk_bytes - left.len()) as u64;
                    copied.push(Copied { place: end - bytes as u64..end, from });
                }
                rest
            }
            _ => return Err(DeltaError::Bytes.into()),
        };
        content = left;
    }
    if content.is_empty() { Ok(copied) } else { Err(DeltaError::Bytes.into()) }
}

/// Why a chunk could not be put together.
#[derive(Debug, thiserror::Error)]
pub enum PutTogether<E> {
    #[error(transparent)]
    Delta(#[from] DeltaError),
    #[error("the content here cannot be read: {0}")]
    Read(E),
}

fn hash_of(piece: &[u8]) -> u64 {
    let [h0, h1, h2, h3, h4, h5, h6, h7, ..] = *blake3::hash(piece).as_bytes();
    u64::from_be_bytes([h0, h1, h2, h3, h4, h5, h6, h7])
}

const MEAN_MIN: u32 = 16 << 10;
/// Longer pieces would take too much memory around a chunk.
const MEAN_MAX: u32 = 256 << 10;
const READ_BYTES_MAX: usize = 4 << 20;
/// Shorter copies than a provider makes but at an edit are not told of: a peer may send as many as it likes.
const COPIED_BYTES_MIN: usize = 512;
const BYTES: u8 = 0;
const COPY: u8 = 1;
const ZSTD_LEVEL: i32 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    /// The same for the same seed.
    struct Dice(blake3::OutputReader);

    impl Dice {
        fn new(seed: u64) -> Self {
            Self(blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof())
        }
        fn bytes(&mut self, bytes: usize) -> Vec<u8> {
            let mut content = vec![0; bytes];
            self.0.fill(&mut content);
            content
        }
        fn below(&mut self, end: usize) -> usize {
            let mut number = [0; 8];
            self.0.fill(&mut number);
            (u64::from_be_bytes(number) % end as u64) as usize
        }
    }

    pub(super) fn random(bytes: usize, seed: u64) -> Vec<u8> {
        Dice::new(seed).bytes(bytes)
    }

    pub(super) fn reader(content: &[u8]) -> impl Fn(u64, &mut [u8]) -> Result<usize, std::convert::Infallible> {
        move |offset, out| {
            let rest = content.get(offset as usize..).unwrap_or_default();
            let bytes = rest.len().min(out.len());
            out[..bytes].copy_from_slice(&rest[..bytes]);
            Ok(bytes)
        }
    }

    fn index(old: &[u8]) -> PieceIndex {
        let cut = Cut::for_size(old.len() as u64);
        PieceIndex::new(cut, &cut.pieces(0..u64::MAX, limits::PIECES_MAX, reader(old)).unwrap()).unwrap()
    }

    #[test]
    fn the_pieces_of_stretches_cover_the_content_and_fall_into_step() {
        let content = random(9 << 20, 77);
        let cut = Cut::for_size(content.len() as u64);
        let of = |stretch| cut.pieces(stretch, limits::PIECES_MAX, reader(&content)).unwrap();
        let (whole, border) = (of(0..u64::MAX), (4 << 20) + 12_345);
        let stretches = [of(0..border), of(border..u64::MAX)].concat();
        let lengths = |pieces: &[u8]| -> Vec<u64> {
            let (each, _) = pieces.as_chunks::<PIECE_WIRE_BYTES>();
            each.iter().map(|piece| u64::from(u32::from_be_bytes(*piece.last_chunk().unwrap()))).collect()
        };
        assert_eq!(lengths(&stretches).iter().sum::<u64>(), content.len() as u64);
        assert_eq!(lengths(&of(0..border)).iter().sum::<u64>(), border);
        let known: std::collections::BTreeSet<_> = whole.as_chunks::<PIECE_WIRE_BYTES>().0.iter().collect();
        let others = stretches.as_chunks::<PIECE_WIRE_BYTES>().0.iter().filter(|piece| !known.contains(piece));
        assert!(others.count() < 8);
        assert_eq!((of(5..5), of(content.len() as u64..u64::MAX)), (vec![], vec![]));
    }

    /// Sends `new` by chunks of `chunk_bytes` to who has `old`: what crosses the line.
    fn sent(old: &[u8], new: &[u8], chunk_bytes: usize) -> usize {
        let index = index(old);
        let mut sent = 0;
        for start in (0..new.len()).step_by(chunk_bytes) {
            let chunk = start..(start + chunk_bytes).min(new.len());
            let window = index.cut().window(chunk.start as u64..chunk.end as u64, new.len() as u64);
            let window = window.start as usize..window.end as usize;
            let within = chunk.start - window.start..chunk.end - window.start;
            let Some(Differs { delta, .. }) = index.delta(&new[window], within) else {
                sent += chunk.len();
                continue;
            };
            sent += delta.len();
            let mut content = vec![0; chunk.len()];
            let read = |offset: u64, out: &mut [u8]| {
                assert_eq!(reader(old)(offset, out).unwrap(), out.len());
                Ok::<_, std::convert::Infallible>(())
            };
            put_together(&delta, &mut content, read).unwrap();
            assert!(content == new[chunk]);
        }
        sent
    }

    #[test]
    fn what_did_not_change_is_not_sent_wherever_it_lies_now() {
        let old = random(20 << 20, 1);
        assert!(sent(&old, &old, 1 << 20) < 4096);
        // Longer at the front by a little, so that every byte lies elsewhere.
        let new = [&random(1000, 2), &old[..]].concat();
        assert!(sent(&old, &new, 1 << 20) < 100 << 10);
        // Parts exchanged, one left out, one twice.
        let new = [&old[10 << 20..], &old[3 << 20..9 << 20], &old[15 << 20..16 << 20]].concat();
        assert!(sent(&old, &new, 1 << 20) < 500 << 10);
        // Nothing in common.
        let new = random(5 << 20, 3);
        assert_eq!(sent(&old, &new, 1 << 20), new.len());
    }

    #[test]
    fn random_edits_cost_little_more_than_themselves_and_come_out_right() {
        for seed in 0..8 {
            let mut dice = Dice::new(seed);
            let old = random(8 << 20, seed + 100);
            let mut new = old.clone();
            let mut changed = 0;
            for _ in 0..8 {
                let (at, bytes) = (dice.below(new.len() - 70_000), 1 + dice.below(60_000));
                let fresh = dice.bytes(bytes);
                changed += bytes;
                match dice.below(3) {
                    0 => new[at..at + bytes].copy_from_slice(&fresh),
                    1 => drop(new.splice(at..at, fresh)),
                    _ => drop(new.drain(at..at + bytes)),
                }
            }
            let chunk_bytes = if seed % 2 == 0 { 1 << 20 } else { 4 << 20 };
            let sent = sent(&old, &new, chunk_bytes);
            assert!(sent < changed + 8 * 150_000, "{sent} bytes were sent for {changed} that changed");
        }
    }

    #[test]
    fn contents_of_every_odd_length_are_put_together() {
        let old = random(300_000, 9);
        for bytes in [1, 4095, 16 << 10, (64 << 10) + 1, 300_000] {
            sent(&old, &old[..bytes], 1 << 20);
            sent(&old[..bytes], &old, 1 << 20);
        }
        sent(&[], &old, 1 << 20);
        sent(&vec![0; 1 << 20], &vec![0; (3 << 20) + 5], 1 << 20);
    }

    #[test]
    fn a_long_content_has_longer_pieces_and_no_more_of_them() {
        assert_eq!(Cut::for_size(4 << 30).mean(), 16 << 10);
        assert_eq!(Cut::for_size(16 << 30).mean(), 64 << 10);
        assert_eq!(Cut::for_size(limits::FILE_BYTES_MAX).mean(), MEAN_MAX);
        let refused = |mean| Cut::new(mean).unwrap_err();
        assert_eq!((refused(0), refused(MEAN_MAX * 2)), (DeltaError::Mean(0), DeltaError::Mean(MEAN_MAX * 2)));
        assert!(Cut::new(MEAN_MIN + 1).is_err() && Cut::new(MEAN_MAX).is_ok());
    }

    #[test]
    fn a_delta_makes_exactly_what_it_declares_or_nothing() {
        let put = |steps: &[u8], bytes: usize| {
            let delta = zstd::bulk::compress(steps, 1).unwrap();
            let mut content = vec![0; bytes];
            let read = |offset, out: &mut [u8]| {
                out.fill(7);
                if offset > 9 { Err("beyond") } else { Ok(()) }
            };
            put_together(&delta, &mut content, read).map(|_| content)
        };
        let copy = |bytes: u32, offset: u64| [&[COPY][..], &bytes.to_be_bytes(), &offset.to_be_bytes()].concat();
        let bytes = |bytes: u32, content: &[u8]| [&[BYTES][..], &bytes.to_be_bytes(), content].concat();
        let both = [copy(20, 3), bytes(2, b"ab")].concat();
        assert_eq!(put(&both, 22).unwrap(), [&[7; 20][..], b"ab"].concat());
        let is_refused = |steps: &[u8], of: usize| matches!(put(steps, of), Err(PutTogether::Delta(_)));
        assert!(is_refused(&both, 23) && is_refused(&both, 21), "too short, and too long");
        assert!(
            is_refused(&bytes(3, b"ab"), 30) && is_refused(&copy(30, 0)[..9], 30) && is_refused(&[2, 0, 0, 0, 0], 30)
        );
        assert!(is_refused(&[COPY, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0], 30));
        assert!(matches!(put(&copy(20, 10), 20), Err(PutTogether::Read("beyond"))));
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap();
        let nothing = |_, _: &mut [u8]| Ok::<_, std::convert::Infallible>(());
        assert!(matches!(put_together(&bomb, &mut [0; 100], nothing), Err(PutTogether::Delta(DeltaError::Packed))));
    }

    #[test]
    fn a_list_of_pieces_is_whole_and_has_none_of_no_length() {
        let cut = Cut::for_size(1);
        assert_eq!(PieceIndex::new(cut, &[1; 25]).unwrap_err(), DeltaError::Pieces);
        assert_eq!(PieceIndex::new(cut, &[0; 12]).unwrap_err(), DeltaError::Pieces);
        assert_eq!(PieceIndex::new(cut, &[1; 24]).unwrap().pieces.len(), 2);
    }
}
