//! Chunks against the plain hash of whole files, and against what a hostile peer declares.

use super::*;

#[test]
fn the_values_of_all_chunks_join_into_the_plain_hash_in_any_order() {
    const MIB: usize = 1 << 20;
    for size in [0, 1, 1024, MIB - 1, MIB, MIB + 1, 2 * MIB, 3 * MIB - 7, 4 * MIB, 5 * MIB + 100, 8 * MIB, 11 * MIB] {
        let content = pattern(size);
        let layout = Layout::new(size as u64).unwrap();
        let mut order: Vec<u32> = (0..layout.chunks()).collect();
        for turn in 0..4u64 {
            let mut known = Subtrees::new(layout);
            for chunk in &order {
                let from = layout.offset(*chunk) as usize;
                let part = &content[from..from + layout.bytes(*chunk) as usize];
                assert_eq!(known.root().is_some(), known.complete());
                assert!(known.insert(*chunk, layout.value(*chunk, part)));
                assert!(!known.insert(*chunk, [0; 32]), "a chunk is known once");
            }
            assert_eq!(known.root(), Some(*blake3::hash(&content).as_bytes()), "{size} bytes, turn {turn}");
            assert!(known.missing().is_empty());
            shuffle(&mut order, turn + 1);
        }
    }
}

#[test]
fn a_file_that_is_written_has_the_root_and_the_values_of_one_that_is_read() {
    const MIB: usize = 1 << 20;
    for size in [0, 1, MIB - 1, MIB, MIB + 1, 2 * MIB, 3 * MIB, 3 * MIB + 9, 4 * MIB, 5 * MIB, 7 * MIB - 1, 8 * MIB] {
        let content = pattern(size);
        let layout = Layout::new(size as u64).unwrap();
        for step in [1021, 300_007, MIB, 3 * MIB] {
            let mut hasher = ChunkHasher::default();
            content.chunks(step).for_each(|part| hasher.update(part));
            let found = hasher.finish().unwrap();
            let part = |chunk: u32| &content[layout.offset(chunk) as usize..][..layout.bytes(chunk) as usize];
            let values: Vec<_> = (0..layout.chunks()).map(|chunk| layout.value(chunk, part(chunk))).collect();
            assert_eq!(found, ChunkHashes { root: *blake3::hash(&content).as_bytes(), layout, values }, "{size}");
        }
    }
}

#[test]
fn neighbours_join_into_the_value_of_a_longer_chunk() {
    const MIB: usize = 1 << 20;
    let content = pattern(8 * MIB);
    let value = |from: usize, to: usize| {
        let mut hasher = blake3::Hasher::new();
        hasher.set_input_offset(from as u64).update(&content[from..to]).finalize_non_root()
    };
    for end in [4 * MIB + 1, 5 * MIB, 5 * MIB + 1, 6 * MIB + 7, 7 * MIB, 8 * MIB] {
        let small: Vec<_> = (4 * MIB..end).step_by(MIB).map(|from| value(from, end.min(from + MIB))).collect();
        assert_eq!(joined(&small), Some(value(4 * MIB, end)), "{end}");
    }
}

#[test]
fn a_long_file_in_order_takes_few_values() {
    let layout = Layout::new(64 << 30).unwrap();
    let mut known = Subtrees::new(layout);
    for chunk in 0..layout.chunks() {
        known.insert(chunk, [chunk as u8; 32]);
        assert!(known.known.len() <= 16, "{} values after chunk {chunk}", known.known.len());
    }
    assert!(known.root().is_some());
}

#[test]
fn what_is_missing_is_exactly_what_was_not_inserted() {
    let layout = Layout::new(20 << 20).unwrap();
    let mut known = Subtrees::new(layout);
    for chunk in [0, 1, 2, 3, 7, 8, 19] {
        known.insert(chunk, [1; 32]);
    }
    assert_eq!(known.missing(), [(4, 7), (9, 19)]);
    assert!(!known.insert(20, [1; 32]), "beyond the end");
}

#[test]
fn files_over_four_gib_have_longer_chunks() {
    let layout = Layout::new(limits::LARGE_FILE_BYTES).unwrap();
    assert_eq!((layout.chunk_bytes(), layout.chunks()), (limits::CHUNK_BYTES, 4096));
    let layout = Layout::new(limits::LARGE_FILE_BYTES + 1).unwrap();
    assert_eq!((layout.chunk_bytes(), layout.chunks(), layout.bytes(1024)), (limits::CHUNK_BYTES_LARGE, 1025, 1));
    assert_eq!(layout.bytes(1025), 0);
    assert!(Layout::new(u64::MAX).is_err());
}

#[test]
fn a_header_is_read_back_and_its_lengths_are_bounded() {
    let header = ChunkHeader {
        entry: u64::MAX - 1,
        revision: 3,
        chunk: 9,
        bytes: 1 << 20,
        form: Form::Delta,
        wire_bytes: 77,
        value: [7; 32].into(),
    };
    assert_eq!(ChunkHeader::decode(&header.encode()).unwrap(), header);
    let mut unknown = header.encode();
    unknown[20] = 3;
    assert_eq!(ChunkHeader::decode(&unknown), Err(ChunkError::Form(3)));
    for (bytes, wire_bytes) in [(0, 0), (1, 0), (1, 2), (u32::MAX, 1), (limits::CHUNK_BYTES_LARGE + 1, 9)] {
        assert!(ChunkHeader::decode(&ChunkHeader { bytes, wire_bytes, ..header }.encode()).is_err());
    }
}

#[test]
fn a_flipped_bit_anywhere_is_found() {
    let layout = Layout::new((2 << 20) + 5).unwrap();
    let content = pattern(1 << 20);
    let header = ChunkHeader {
        entry: 1,
        revision: 0,
        chunk: 1,
        bytes: 1 << 20,
        form: Form::Plain,
        wire_bytes: 1 << 20,
        value: layout.value(1, &content).into(),
    };
    assert!(VerifiedChunk::verify(&header, layout, content.clone().into()).is_ok());
    for bit in [0, 1, 8191, (8 << 20) - 1] {
        let mut bad = content.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(VerifiedChunk::verify(&header, layout, bad.into()).is_err());
    }
    let elsewhere = ChunkHeader { chunk: 0, ..header };
    assert!(VerifiedChunk::verify(&elsewhere, layout, content.clone().into()).is_err(), "its place counts");
    assert!(VerifiedChunk::verify(&header, layout, content[1..].to_vec().into()).is_err());
}

#[test]
fn packing_is_undone_and_never_grows() {
    let contents = [pattern(100_000), vec![0; 1 << 20], random(1 << 20)].map(Bytes::from);
    let packings = [Packing::Not, Packing::Lz4, Packing::Zstd, Packing::ZstdMore];
    for (content, packing) in contents.iter().flat_map(|content| packings.map(|packing| (content, packing))) {
        let (form, body) = pack(content.clone(), packing);
        assert!(body.len() <= content.len());
        let packs = content == &contents[1] || packing != Packing::Not && content == &contents[0];
        assert_eq!(body.len() < content.len() / 2, packs, "{packing:?}");
        assert_eq!(form == Form::Lz4, packs && packing == Packing::Lz4);
        let header = ChunkHeader {
            entry: 0,
            revision: 0,
            chunk: 0,
            bytes: content.len() as u32,
            form,
            wire_bytes: body.len() as u32,
            value: [0; 32].into(),
        };
        let mut room = vec![1; content.len()];
        unpack(&header, &body, &mut room).unwrap();
        assert!(room == content[..]);
        assert!(unpack(&ChunkHeader { form: Form::Delta, ..header }, &body, &mut room).is_err());
        let longer = ChunkHeader { bytes: header.bytes + 1, ..header };
        assert!(unpack(&longer, &body, &mut vec![1; content.len() + 1]).is_err());
        assert!(unpack(&header, &body, &mut room[1..]).is_err());
    }
}

#[test]
fn a_packed_body_never_unpacks_beyond_its_declared_length() {
    let zeros = vec![0; 64 << 20];
    let bombs =
        [(Form::Plain, zstd::bulk::compress(&zeros, 1).unwrap()), (Form::Lz4, lz4_flex::block::compress(&zeros))];
    for (form, bomb) in bombs {
        let header = ChunkHeader {
            entry: 0,
            revision: 0,
            chunk: 0,
            bytes: 1 << 20,
            form,
            wire_bytes: bomb.len() as u32,
            value: [0; 32].into(),
        };
        let mut room = vec![0; 1 << 20];
        assert!(unpack(&header, &bomb, &mut room).is_err());
        assert!(unpack(&ChunkHeader { wire_bytes: 3, ..header }, b"abc", &mut room).is_err());
    }
}

fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at / 251 + at % 251) as u8).collect()
}

fn random(size: usize) -> Vec<u8> {
    let mut out = vec![0; size];
    blake3::Hasher::new().finalize_xof().fill(&mut out);
    out
}

fn shuffle(order: &mut [u32], seed: u64) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for at in (1..order.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        order.swap(at, (state % (at as u64 + 1)) as usize);
    }
}
