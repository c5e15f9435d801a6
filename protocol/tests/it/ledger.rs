//! Proofs of random trees: made ones are accepted, and no other leaf, place, size or path.

use crate::sample::{Log, World, flips};
use posthouse_protocol::cose::Signer;
use posthouse_protocol::ledger::{self, Checkpoint, Hash, Inclusion, LedgerKey};
use proptest::prelude::*;

/// RFC 6962 section 2.1, word by word.
fn root_by_definition(leaves: &[Vec<u8>]) -> Hash {
    use posthouse_protocol::codec::sha256;
    match leaves {
        [] => sha256(b""),
        [leaf] => sha256(&[&[0], &leaf[..]].concat()),
        _ => {
            let k = leaves.len().next_power_of_two() / 2;
            let (left, right) = leaves.split_at(k);
            sha256(&[&[1], &root_by_definition(left)[..], &root_by_definition(right)[..]].concat())
        }
    }
}

fn log_of(leaves: &[Vec<u8>]) -> Log {
    let mut log = Log::default();
    leaves.iter().for_each(|leaf| log.append(leaf));
    log
}

fn leaves(max: usize) -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 0..12), 1..max)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_root_is_the_one_that_the_rfc_defines(leaves in leaves(70)) {
        let log = log_of(&leaves);
        for size in 0..=leaves.len() {
            prop_assert_eq!(ledger::root(size as u64, &log).unwrap(), root_by_definition(&leaves[..size]));
        }
    }

    #[test]
    fn inclusion_is_proven_for_every_leaf_and_for_no_other(leaves in leaves(40), other in any::<Hash>()) {
        let log = log_of(&leaves);
        let size = leaves.len() as u64;
        let root = ledger::root(size, &log).unwrap();
        for (index, leaf) in leaves.iter().enumerate() {
            let (index, leaf) = (index as u64, ledger::leaf_hash(leaf));
            let path = ledger::prove_inclusion(size, index, &log).unwrap();
            prop_assert!(ledger::verify_inclusion(size, &root, index, &leaf, &path).is_ok());
            prop_assert!(ledger::verify_inclusion(size, &root, index, &other, &path).is_err());
            prop_assert!(ledger::verify_inclusion(size, &other, index, &leaf, &path).is_err());
            prop_assert!(ledger::verify_inclusion(size, &root, index, &leaf, &[&path[..], &[other]].concat()).is_err());
            if let Some((_, shorter)) = path.split_last() {
                prop_assert!(ledger::verify_inclusion(size, &root, index, &leaf, shorter).is_err());
            }
        }
    }

    #[test]
    fn the_last_leafs_proof_fits_no_other_place_and_no_other_size(leaves in leaves(200), bits in any::<[u8; 8]>()) {
        // All different: the proof of one of two equal neighbours is that of the other.
        let numbered = leaves.iter().enumerate().map(|(n, leaf)| [&n.to_be_bytes()[..], leaf.as_slice()].concat());
        let leaves: Vec<Vec<u8>> = numbered.collect();
        let log = log_of(&leaves);
        let size = leaves.len() as u64;
        let root = ledger::root(size, &log).unwrap();
        let leaf = ledger::leaf_hash(leaves.last().unwrap());
        let path = ledger::prove_inclusion(size, size - 1, &log).unwrap();
        let near = (0..size + 70).flat_map(|n| [(n, size - 1), (size, n)]);
        let far = bits.iter().map(|bit| (size ^ (1 << (bit % 64)), size - 1));
        for (other_size, other_index) in near.chain(far).filter(|pair| *pair != (size, size - 1)) {
            prop_assert!(ledger::verify_inclusion(other_size, &root, other_index, &leaf, &path).is_err());
        }
    }

    #[test]
    fn consistency_is_proven_between_all_sizes_and_a_changed_past_is_seen(leaves in leaves(40), at in any::<prop::sample::Index>()) {
        let log = log_of(&leaves);
        let size = leaves.len() as u64;
        let root = ledger::root(size, &log).unwrap();
        let mut changed = leaves.clone();
        let at = at.index(leaves.len());
        changed[at].push(1);
        let changed = log_of(&changed);
        for old in 0..=size {
            let proof = ledger::prove_consistency(size, old, &log).unwrap();
            let old_root = ledger::root(old, &log).unwrap();
            prop_assert!(ledger::verify_consistency(size, &root, old, &old_root, &proof).is_ok());
            let other = ledger::root(old, &changed).unwrap();
            prop_assert_eq!(ledger::verify_consistency(size, &root, old, &other, &proof).is_err(), old > at as u64);
        }
    }

    #[test]
    fn no_numbers_make_verification_panic(size in any::<u64>(), index in any::<u64>(), path in prop::collection::vec(any::<Hash>(), 0..70)) {
        let hash = [3; 32];
        prop_assert!(ledger::verify_inclusion(size, &hash, index, &hash, &path).is_err());
        let _ = ledger::verify_consistency(size, &hash, index, &hash, &path);
    }
}

#[test]
fn a_checkpoint_is_read_back_and_no_flipped_bit_of_it() {
    let world = World::new();
    let (_, text) = world.prove(&world.hand_over(world.manifest(b"")), 3);
    let key = world.trust.ledger();
    let checkpoint = Checkpoint::open(&text, key).unwrap();
    assert_eq!((checkpoint.size, checkpoint.origin.as_str()), (4, "centre.xian.example/log1"));
    for flipped in flips(text.as_bytes()) {
        let Ok(flipped) = String::from_utf8(flipped) else { continue };
        assert!(Checkpoint::open(&flipped, key).is_err(), "{flipped}");
    }
}

#[test]
fn a_checkpoint_with_a_second_signature_that_nobody_checks_is_refused() {
    let world = World::new();
    let (_, text) = world.prove(&world.hand_over(world.manifest(b"")), 3);
    let line = text.lines().last().unwrap();
    assert!(Checkpoint::open(&format!("{text}{line}\n"), world.trust.ledger()).is_err());
    let stranger = line.replace("centre.xian.example", "stranger.example");
    assert!(Checkpoint::open(&format!("{text}{stranger}\n"), world.trust.ledger()).is_err());
}

#[test]
fn every_flipped_bit_of_an_inclusion_is_refused() {
    let world = World::new();
    let statement = world.hand_over(world.manifest(b""));
    let subject = statement.body().subject();
    for before in [0, 1, 2, 5, 11] {
        let (bytes, _) = world.prove(&statement, before);
        let open = |bytes: &[u8]| Inclusion::open(bytes, statement.bytes(), &subject, world.trust.ledger());
        assert_eq!(open(&bytes).unwrap().index, before);
        for flipped in flips(&bytes) {
            assert!(open(&flipped).is_err());
        }
    }
}

#[test]
fn the_ledgers_key_survives_its_text_and_nothing_else_is_read() {
    let key = LedgerKey::new("centre.xian.example/log1", World::new().ledger.public_key()).unwrap();
    let text = key.vkey();
    assert_eq!(LedgerKey::parse(&text).unwrap(), key);
    for flipped in flips(text.as_bytes()) {
        let Ok(flipped) = String::from_utf8(flipped) else { continue };
        assert!(LedgerKey::parse(&flipped).is_err(), "{flipped}");
    }
    for origin in ["centre.xian.example", "centre.xian.example/log", "centre.xian.example/log01", "a b/log1"] {
        assert!(LedgerKey::new(origin, *key.key()).is_err(), "{origin}");
    }
}

#[test]
fn a_tlog_proof_has_the_form_that_c2sp_asks_for() {
    let world = World::new();
    let statement = world.hand_over(world.manifest(b""));
    let (bytes, checkpoint) = world.prove(&statement, 2);
    let subject = statement.body().subject();
    let inclusion = Inclusion::open(&bytes, statement.bytes(), &subject, world.trust.ledger()).unwrap();
    let text = inclusion.tlog_proof(&checkpoint);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..2], ["c2sp.org/tlog-proof@v1", "index 2"]);
    assert_eq!((lines[2].len(), lines[3]), (44, ""), "one hash, then an empty line");
    assert!(text.ends_with(&checkpoint));
}
