//! Hashes many short inputs side by side. A row has a few hundred bytes, too few for BLAKE3's own parallelism, which
//! begins at its chunks of 1 KiB: hashed one by one, rows take a fifth of all the processor time of a transfer. Here
//! eight of them share each vector instruction, neighbours in the order of their lengths, so that they end together.
//! Longer inputs go the usual way. Same hashes, tested against the `blake3` crate. The names are those of the BLAKE3
//! paper (2020), section 2.

use pulp::{Simd, WithSimd, cast};

/// An input: so many bytes from the beginning of a block on. Zeros fill up the block in which it ends; one of no bytes
/// has a block too.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Input {
    pub first_block: usize,
    pub length: usize,
}

/// BLAKE3 of each input under the key, in their order.
pub(super) fn keyed_hashes(key: &[u8; 32], blocks: &[Block], inputs: &[Input], into: &mut Vec<[u8; 32]>) {
    into.clear();
    into.resize(inputs.len(), [0; 32]);
    pulp::Arch::new().dispatch(Work { key, blocks, inputs, into });
}

struct Work<'a> {
    key: &'a [u8; 32],
    blocks: &'a [Block],
    inputs: &'a [Input],
    into: &'a mut [[u8; 32]],
}

impl WithSimd for Work<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { key, blocks, inputs, into } = self;
        let have_lanes = (MIN_LANES..=MAX_LANES).contains(&S::U32_LANES) && cfg!(target_endian = "little");
        for (inputs, into) in inputs.chunks(SORTED).zip(into.chunks_mut(SORTED)) {
            let (order, short) = in_order(inputs);
            let (short, long) = order[..inputs.len()].split_at(if have_lanes { short } else { 0 });
            for group in short.chunks(S::U32_LANES) {
                // Where inputs are fewer than lanes, the last one is hashed in all that are left.
                let (mut places, mut lanes) = ([0; MAX_LANES], [Input::default(); MAX_LANES]);
                for lane in 0..S::U32_LANES {
                    places[lane] = usize::from(group[lane.min(group.len() - 1)]);
                    lanes[lane] = inputs[places[lane]];
                }
                hash_together(simd, key, blocks, &lanes, &places, into);
            }
            for place in long.iter().map(|place| usize::from(*place)) {
                let bytes = blocks[inputs[place].first_block..].as_flattened();
                into[place] = *blake3::keyed_hash(key, &bytes[..inputs[place].length]).as_bytes();
            }
        }
    }
}

/// The inputs' places in the order of their numbers of blocks, and how many of them are one chunk.
#[inline(always)]
fn in_order(inputs: &[Input]) -> ([u8; SORTED], usize) {
    let mut ends = [0; CHUNK_BLOCKS + 2];
    inputs.iter().for_each(|input| ends[input.blocks().min(CHUNK_BLOCKS + 1)] += 1);
    let mut before = 0;
    for end in &mut ends {
        (*end, before) = (before, before + *end);
    }
    let mut order = [0; SORTED];
    for (place, input) in inputs.iter().enumerate() {
        let end = &mut ends[input.blocks().min(CHUNK_BLOCKS + 1)];
        order[*end] = place as u8;
        *end += 1;
    }
    (order, ends[CHUNK_BLOCKS])
}

impl Input {
    #[inline(always)]
    fn blocks(&self) -> usize {
        self.length.div_ceil(BLOCK).max(1)
    }
}

/// Hashes inputs of one chunk each, the last of which has most blocks, one in each lane.
#[inline(always)]
fn hash_together<S: Simd>(
    simd: S,
    key: &[u8; 32],
    blocks: &[Block],
    lanes: &[Input; MAX_LANES],
    places: &[usize; MAX_LANES],
    into: &mut [[u8; 32]],
) {
    let mut values = [simd.splat_u32s(0); 8];
    for (value, word) in values.iter_mut().zip(key.as_chunks::<4>().0) {
        *value = simd.splat_u32s(u32::from_le_bytes(*word));
    }
    let mut counts = [0; MAX_LANES];
    for lane in 0..S::U32_LANES {
        counts[lane] = lanes[lane].blocks();
    }
    let (fewest, most) = (counts[0], counts[S::U32_LANES - 1]);
    for number in 0..most {
        // A lane that has ended goes on with its last block, which changes nothing any more.
        let mut lane_blocks = [&[0; BLOCK]; MAX_LANES];
        for lane in 0..S::U32_LANES {
            lane_blocks[lane] = &blocks[lanes[lane].first_block + number.min(counts[lane] - 1)];
        }
        let mut words = [simd.splat_u32s(0); 16];
        for quarter in 0..4 {
            let mut rows = [[0; 4]; MAX_LANES];
            for lane in 0..S::U32_LANES {
                rows[lane] = cast(lane_blocks[lane].as_chunks::<16>().0[quarter]);
            }
            words[4 * quarter..][..4].copy_from_slice(&columns(simd, &rows));
        }
        let first = KEYED_HASH | if number == 0 { CHUNK_START } else { 0 };
        let some_end = number + 1 >= fewest;
        let (mut lengths, mut flags) = (simd.splat_u32s(BLOCK as u32), simd.splat_u32s(first));
        if some_end {
            let mut tails = [[0; 4]; MAX_LANES];
            for lane in 0..S::U32_LANES {
                let left = lanes[lane].length.saturating_sub(number * BLOCK);
                let last = if number + 1 == counts[lane] { CHUNK_END | ROOT } else { 0 };
                tails[lane] = [left.min(BLOCK) as u32, first | last, 0, 0];
            }
            [lengths, flags, ..] = columns(simd, &tails);
        }
        compress(simd, &mut values, &words, lengths, flags);
        if some_end {
            let [a, b, c, d, e, f, g, h] = values;
            let (first, second) = (rows(simd, [a, b, c, d]), rows(simd, [e, f, g, h]));
            for lane in (0..S::U32_LANES).filter(|lane| number + 1 == counts[*lane]) {
                into[places[lane]] = cast([first[lane], second[lane]]);
            }
        }
    }
}

/// Four words of each lane, as four vectors. The lanes stand in these in an order of the processor's own, which
/// [`rows`] takes back.
#[inline(always)]
fn columns<S: Simd>(simd: S, rows: &[[u32; 4]; MAX_LANES]) -> [S::u32s; 4] {
    let vectors = S::as_simd_u32s(rows.as_flattened()).0;
    simd.deinterleave_shfl_f32s([vectors[0], vectors[1], vectors[2], vectors[3]])
}

/// The reverse of [`columns`].
#[inline(always)]
fn rows<S: Simd>(simd: S, columns: [S::u32s; 4]) -> [[u32; 4]; MAX_LANES] {
    let mut rows = [[0; 4]; MAX_LANES];
    S::as_mut_simd_u32s(rows.as_flattened_mut()).0[..4].copy_from_slice(&simd.interleave_shfl_f32s(columns));
    rows
}

/// The compression function, for every lane at once, of an input that is one chunk: the counter is zero.
#[inline(always)]
fn compress<S: Simd>(simd: S, values: &mut [S::u32s; 8], block: &[S::u32s; 16], length: S::u32s, flags: S::u32s) {
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
        length,
        flags,
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
fn round<S: Simd>(simd: S, state: &mut [S::u32s; 16], block: &[S::u32s; 16], order: &[usize; 16]) {
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
/// What BLAKE3 takes at a time.
pub(super) type Block = [u8; BLOCK];
pub(super) const BLOCK: usize = 64;
/// Longer inputs are trees of chunks.
const CHUNK_BLOCKS: usize = 16;
/// So many inputs are put in order at once.
const SORTED: usize = 64;
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

    #[test]
    fn every_number_of_inputs_finds_its_places() {
        let bytes: Vec<u8> = (0..1500u32).map(|index| (index * 37 % 253) as u8).collect();
        for count in 0..=2 * SORTED + 1 {
            let inputs: Vec<&[u8]> = (0..count).map(|index| &bytes[..index * 71 % 1200]).collect();
            check(&[count as u8; 32], &inputs);
        }
    }

    proptest! {
        #[test]
        fn so_has_every_mixture(
            key: [u8; 32],
            inputs in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..1500), 0..100),
        ) {
            check(&key, &inputs.iter().map(Vec::as_slice).collect::<Vec<_>>());
        }
    }

    fn check(key: &[u8; 32], inputs: &[&[u8]]) {
        let (mut blocks, mut places) = (Vec::new(), Vec::new());
        for input in inputs {
            places.push(Input { first_block: blocks.len(), length: input.len() });
            let (whole, rest) = input.as_chunks::<BLOCK>();
            blocks.extend_from_slice(whole);
            if !rest.is_empty() || whole.is_empty() {
                let mut block = [0; BLOCK];
                block[..rest.len()].copy_from_slice(rest);
                blocks.push(block);
            }
        }
        let mut hashes = vec![[1; 32]; 5];
        keyed_hashes(key, &blocks, &places, &mut hashes);
        let expected: Vec<_> = inputs.iter().map(|input| *blake3::keyed_hash(key, input).as_bytes()).collect();
        assert_eq!(hashes, expected);
        // However many lanes a processor has.
        let mut with = |lanes: &dyn Fn(Work<'_>)| {
            hashes.fill([1; 32]);
            lanes(Work { key, blocks: &blocks, inputs: &places, into: &mut hashes });
            assert_eq!(hashes, expected);
        };
        with(&|work| work.with_simd(pulp::Scalar::new()));
        with(&|work| work.with_simd(pulp::Scalar128b));
        with(&|work| work.with_simd(pulp::Scalar256b));
        with(&|work| work.with_simd(pulp::Scalar512b));
    }
}
