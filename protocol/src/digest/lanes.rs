//! Hashes many short inputs side by side. A row has a few hundred bytes, too few for BLAKE3's own parallelism, which
//! begins at its chunks of 1 KiB: hashed one by one, rows take a fifth of all the processor time of a transfer. Here
//! eight of them share each vector instruction; a lane whose input has ended takes the next. Longer inputs go the
//! usual way. Same hashes, tested against the `blake3` crate. The names are those of the BLAKE3 paper (2020), section 2.

use pulp::{Simd, WithSimd};

/// BLAKE3 of each input under the key, in their order.
pub(super) fn keyed_hashes<'a>(
    key: &[u8; 32],
    inputs: impl ExactSizeIterator<Item = &'a [u8]>,
    into: &mut Vec<[u8; 32]>,
) {
    into.clear();
    into.resize(inputs.len(), [0; 32]);
    pulp::Arch::new().dispatch(Work { key, inputs, into });
}

struct Work<'a, I> {
    key: &'a [u8; 32],
    inputs: I,
    into: &'a mut [[u8; 32]],
}

impl<'a, I: Iterator<Item = &'a [u8]>> WithSimd for Work<'_, I> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { key, inputs, into } = self;
        let mut inputs = inputs.zip(into);
        if !(MIN_LANES..=MAX_LANES).contains(&S::U32_LANES) {
            inputs.for_each(|(input, place)| *place = *blake3::keyed_hash(key, input).as_bytes());
            return;
        }
        let key_words = key.as_chunks::<4>().0;
        let mut lanes: [Lane<'_>; MAX_LANES] = Default::default();
        let lanes = &mut lanes[..S::U32_LANES];
        // Word by word, and of each word one lane after the other.
        let (mut values, mut block, mut tail) = ([0; 8 * MAX_LANES], [0; 16 * MAX_LANES], [0; 2 * MAX_LANES]);
        loop {
            for (number, lane) in lanes.iter_mut().enumerate().filter(|(_, lane)| lane.place.is_none()) {
                for (input, place) in inputs.by_ref() {
                    // What is longer than a chunk is a tree of its own.
                    if input.len() > CHUNK {
                        *place = *blake3::keyed_hash(key, input).as_bytes();
                        continue;
                    }
                    *lane = Lane { rest: input, is_first: true, place: Some(place) };
                    put(&mut values[number..], S::U32_LANES, key_words);
                    break;
                }
            }
            if lanes.iter().all(|lane| lane.place.is_none()) {
                return;
            }
            for (number, lane) in lanes.iter_mut().enumerate() {
                let (mut bytes, length, flags) = lane.next_block();
                put(&mut block[number..], S::U32_LANES, bytes.as_chunks_mut::<4>().0);
                (tail[number], tail[number + S::U32_LANES]) = (length, flags);
            }
            compress(simd, &mut values, &block, &tail);
            for (number, lane) in lanes.iter_mut().enumerate() {
                if tail[number + S::U32_LANES] & ROOT != 0
                    && let Some(place) = lane.place.take()
                {
                    let words = values[number..].iter().step_by(S::U32_LANES);
                    let place = place.as_chunks_mut::<4>().0;
                    place.iter_mut().zip(words).for_each(|(bytes, word)| *bytes = word.to_le_bytes());
                }
            }
        }
    }
}

/// Puts words at every so manieth place.
#[inline(always)]
fn put(places: &mut [u32], every: usize, words: &[[u8; 4]]) {
    places.iter_mut().step_by(every).zip(words).for_each(|(place, word)| *place = u32::from_le_bytes(*word));
}

/// One input on its way; where there is no place for its hash, there is no input.
#[derive(Default)]
struct Lane<'a> {
    rest: &'a [u8],
    is_first: bool,
    place: Option<&'a mut [u8; 32]>,
}

impl Lane<'_> {
    /// Takes the next block; gives it with its length and flags.
    #[inline(always)]
    fn next_block(&mut self) -> ([u8; BLOCK], u32, u32) {
        let (block, rest) = self.rest.split_at(self.rest.len().min(BLOCK));
        let bytes = block.as_array::<BLOCK>().copied().unwrap_or_else(|| {
            let mut bytes = [0; BLOCK];
            bytes[..block.len()].copy_from_slice(block);
            bytes
        });
        let first = if self.is_first { CHUNK_START } else { 0 };
        let last = if rest.is_empty() { CHUNK_END | ROOT } else { 0 };
        (self.rest, self.is_first) = (rest, false);
        (bytes, block.len() as u32, KEYED_HASH | first | last)
    }
}

/// The compression function, for every lane at once, of an input that is one chunk: the counter is zero.
/// `tail` holds the lengths and the flags.
#[inline(always)]
fn compress<S: Simd>(simd: S, values: &mut [u32], block: &[u32], tail: &[u32]) {
    let (values, block, tail) = (S::as_mut_simd_u32s(values).0, S::as_simd_u32s(block).0, S::as_simd_u32s(tail).0);
    let iv = |word: usize| simd.splat_u32s(IV[word]);
    let zero = simd.splat_u32s(0);
    let mut state = [
        values[0],
        values[1],
        values[2],
        values[3],
        values[4],
        values[5],
        values[6],
        values[7],
        iv(0),
        iv(1),
        iv(2),
        iv(3),
        zero,
        zero,
        tail[0],
        tail[1],
    ];
    // The rounds are written out, each with its order of words: an order that is known is no work.
    round(simd, &mut state, block, &SCHEDULE[0]);
    round(simd, &mut state, block, &SCHEDULE[1]);
    round(simd, &mut state, block, &SCHEDULE[2]);
    round(simd, &mut state, block, &SCHEDULE[3]);
    round(simd, &mut state, block, &SCHEDULE[4]);
    round(simd, &mut state, block, &SCHEDULE[5]);
    round(simd, &mut state, block, &SCHEDULE[6]);
    for word in 0..8 {
        values[word] = simd.xor_u32s(state[word], state[word + 8]);
    }
}

#[inline(always)]
fn round<S: Simd>(simd: S, state: &mut [S::u32s; 16], block: &[S::u32s], order: &[usize; 16]) {
    let word = |place: usize| block[order[place]];
    mix(simd, state, [0, 4, 8, 12], word(0), word(1));
    mix(simd, state, [1, 5, 9, 13], word(2), word(3));
    mix(simd, state, [2, 6, 10, 14], word(4), word(5));
    mix(simd, state, [3, 7, 11, 15], word(6), word(7));
    mix(simd, state, [0, 5, 10, 15], word(8), word(9));
    mix(simd, state, [1, 6, 11, 12], word(10), word(11));
    mix(simd, state, [2, 7, 8, 13], word(12), word(13));
    mix(simd, state, [3, 4, 9, 14], word(14), word(15));
}

#[inline(always)]
fn mix<S: Simd>(simd: S, state: &mut [S::u32s; 16], [a, b, c, d]: [usize; 4], x: S::u32s, y: S::u32s) {
    let add = |a, b| simd.add_u32s(a, b);
    let turned = |a, b, by| rotate(simd, simd.xor_u32s(a, b), by);
    state[a] = add(add(state[a], state[b]), x);
    state[d] = turned(state[d], state[a], 16);
    state[c] = add(state[c], state[d]);
    state[b] = turned(state[b], state[c], 12);
    state[a] = add(add(state[a], state[b]), y);
    state[d] = turned(state[d], state[a], 8);
    state[c] = add(state[c], state[d]);
    state[b] = turned(state[b], state[c], 7);
}

/// Turns each word to the right.
#[inline(always)]
fn rotate<S: Simd>(simd: S, words: S::u32s, by: u32) -> S::u32s {
    let down = simd.wrapping_dyn_shr_u32s(words, simd.splat_u32s(by));
    let up = simd.wrapping_dyn_shl_u32s(words, simd.splat_u32s(u32::BITS - by));
    simd.or_u32s(down, up)
}

/// In which order each round takes the block's words: the permutation of the one before.
const SCHEDULE: [[usize; 16]; 7] = {
    let permutation = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8];
    let mut schedule = [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]; 7];
    let mut round = 1;
    while round < 7 {
        let mut place = 0;
        while place < 16 {
            schedule[round][place] = schedule[round - 1][permutation[place]];
            place += 1;
        }
        round += 1;
    }
    schedule
};
const IV: [u32; 4] = [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a];
const CHUNK_START: u32 = 1;
const CHUNK_END: u32 = 2;
const ROOT: u32 = 8;
const KEYED_HASH: u32 = 16;
const BLOCK: usize = 64;
const CHUNK: usize = 1024;
/// With fewer, one after the other is faster.
const MIN_LANES: usize = 4;
const MAX_LANES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_length_has_the_hash_that_blake3_gives_it() {
        let bytes: Vec<u8> = (0..3000u32).map(|index| (index * 31 % 251) as u8).collect();
        let inputs: Vec<&[u8]> = (0..=1100).chain([2047, 2048, 2049, 3000]).map(|length| &bytes[..length]).collect();
        check(&[7; 32], &inputs);
        check(&[0; 32], &[]);
        check(&[0; 32], &[b""]);
    }

    proptest! {
        #[test]
        fn so_has_every_mixture(
            key: [u8; 32],
            inputs in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..1500), 0..40),
        ) {
            check(&key, &inputs.iter().map(Vec::as_slice).collect::<Vec<_>>());
        }
    }

    fn check(key: &[u8; 32], inputs: &[&[u8]]) {
        let mut hashes = vec![[1; 32]; 5];
        keyed_hashes(key, inputs.iter().copied(), &mut hashes);
        let expected: Vec<_> = inputs.iter().map(|input| *blake3::keyed_hash(key, input).as_bytes()).collect();
        assert_eq!(hashes, expected);
    }
}
