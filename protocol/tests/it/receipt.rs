//! A receipt verifies whole or not at all, and so does every file of its export.

use crate::sample::{NOW, World, flips};
use posthouse_protocol::id::ReceiptId;
use posthouse_protocol::manifest::Counts;
use posthouse_protocol::problem::Code;
use posthouse_protocol::receipt::{Receipt, ReceiptError, Standing, TrustStore, verify_export};
use std::collections::BTreeMap;

const FILES_B3: &[u8] = b"0000000000000000000000000000000000000000000000000000000000000000  a.pdf\n";

#[test]
fn a_whole_receipt_is_proven() {
    let world = World::new();
    let receipt = world.receipt(FILES_B3);
    let verified = Receipt::decode(&receipt.encode()).unwrap().verify(&world.trust).unwrap();
    assert_eq!(verified.standing, Standing::Proven);
    assert_eq!(verified.inclusion.as_ref().map(|proof| (proof.index, proof.size)), Some((5, 6)));
    assert_eq!(verified.id(), receipt.id());
    assert_eq!(receipt.id(), verified.consumer.map(|consumer| ReceiptId::from_statement(consumer.sha256())));
}

#[test]
fn a_receipt_without_its_proof_is_pending_and_without_an_answer_unanswered() {
    let world = World::new();
    let whole = world.receipt(FILES_B3);
    let pending = Receipt { inclusion: None, checkpoint: None, ..whole.clone() };
    assert_eq!(pending.verify(&world.trust).unwrap().standing, Standing::Pending);
    let unanswered = Receipt { consumer: None, ..pending };
    assert_eq!(unanswered.verify(&world.trust).unwrap().standing, Standing::Unanswered);

    // A withheld answer: the provider's own statement is in the ledger.
    let provider = world.hand_over(world.manifest(FILES_B3));
    let (inclusion, checkpoint) = world.prove(&provider, 2);
    let shown = Receipt::new(&provider, None).with_proof(inclusion, checkpoint).verify(&world.trust).unwrap();
    assert_eq!((shown.standing, shown.inclusion.is_some()), (Standing::Unanswered, true));
    // The proof of one statement is no proof of another.
    let mixed = Receipt { consumer: None, ..whole };
    assert!(matches!(mixed.verify(&world.trust), Err(ReceiptError::Proof(_))));
}

#[test]
fn half_a_proof_is_refused() {
    let world = World::new();
    let whole = world.receipt(FILES_B3);
    for half in [Receipt { inclusion: None, ..whole.clone() }, Receipt { checkpoint: None, ..whole }] {
        assert_eq!(half.verify(&world.trust), Err(ReceiptError::HalfProof));
    }
}

#[test]
fn statements_of_two_transfers_make_no_receipt() {
    let world = World::new();
    let one = world.hand_over(world.manifest(FILES_B3));
    let mut other = world.manifest(FILES_B3);
    other.sealed = other.sealed.plus_ms(1);
    let other = world.hand_over(other);
    let landed = world.land(world.landing(&other));
    let mixed = Receipt::new(&one, Some(&landed)).verify(&world.trust);
    assert!(matches!(mixed, Err(ReceiptError::Difference { what, .. }) if what == "provider statement"));
}

#[test]
fn a_landing_with_another_count_makes_no_receipt() {
    let world = World::new();
    let provider = world.hand_over(world.manifest(FILES_B3));
    let mut landing = world.landing(&provider);
    landing.counts = Counts { files: 1, ..landing.counts };
    let refused = Receipt::new(&provider, Some(&world.land(landing))).verify(&world.trust);
    assert!(matches!(refused, Err(ReceiptError::Difference { what, .. }) if what == "files"));
}

#[test]
fn a_checkpoint_of_another_size_does_not_fit() {
    let world = World::new();
    let whole = world.receipt(FILES_B3);
    let (_, other) = world.prove(&world.hand_over(world.manifest(FILES_B3)), 8);
    let refused = Receipt { checkpoint: Some(other), ..whole }.verify(&world.trust);
    assert_eq!(refused, Err(ReceiptError::Checkpoint));
}

#[test]
fn every_flipped_bit_of_a_receipt_is_refused() {
    let world = World::new();
    for flipped in flips(&world.receipt(FILES_B3).encode()) {
        let accepted = Receipt::decode(&flipped).and_then(|receipt| receipt.verify(&world.trust));
        assert!(accepted.is_err());
    }
}

#[test]
fn every_flipped_bit_of_any_exported_file_is_refused() {
    let world = World::new();
    let files: BTreeMap<_, _> =
        world.receipt(FILES_B3).export(&world.trust, Some(FILES_B3)).unwrap().into_iter().collect();
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "checkpoint.txt",
            "consumer.cose",
            "files.b3",
            "inclusion.cose",
            "proof.txt",
            "provider.cose",
            "receipt.cose",
            "trust/housing.xian.example.c5b940ed3f65c391.pem",
            "trust/ledger.pem",
            "trust/ledger.vkey",
            "trust/nodes.cose",
            "trust/police.xian.example.b62e867fa2f33afe.pem",
            "trust/policy.pem",
        ]
    );
    assert_eq!(verify_export(&files, &world.trust).unwrap().standing, Standing::Proven);
    for (name, bytes) in &files {
        for flipped in flips(bytes) {
            let mut changed = files.clone();
            changed.insert(name.clone(), flipped);
            assert!(verify_export(&changed, &world.trust).is_err(), "a bit of {name}");
        }
    }
}

#[test]
fn a_flipped_bit_in_the_folder_of_trust_is_refused_when_it_is_all_there_is_to_trust() {
    let world = World::new();
    let trust: BTreeMap<_, _> = world.trust.files().into_iter().collect();
    assert_eq!(TrustStore::from_files(&trust).unwrap(), world.trust);
    for (name, bytes) in &trust {
        for flipped in flips(bytes) {
            let mut changed = trust.clone();
            changed.insert(name.clone(), flipped);
            assert!(TrustStore::from_files(&changed).is_err(), "a bit of {name}");
        }
    }
}

#[test]
fn an_export_with_a_part_missing_or_too_many_is_refused_by_its_name() {
    let world = World::new();
    let files: BTreeMap<_, _> =
        world.receipt(FILES_B3).export(&world.trust, Some(FILES_B3)).unwrap().into_iter().collect();
    let mut fewer = files.clone();
    fewer.remove("proof.txt");
    let problem = verify_export(&fewer, &world.trust).unwrap_err();
    assert_eq!(problem.code, Code::EvidenceInvalid);
    assert_eq!(problem.facts, [("file".to_owned(), "proof.txt".to_owned())]);
    let mut more = files.clone();
    more.insert("note.txt".to_owned(), b"hello".to_vec());
    let problem = verify_export(&more, &world.trust).unwrap_err();
    assert_eq!(problem.facts, [("file".to_owned(), "note.txt".to_owned())]);
    // The list of files may stay behind, and so may the trust, which belongs elsewhere anyway.
    let without: BTreeMap<_, _> =
        files.into_iter().filter(|(name, _)| name != "files.b3" && !name.starts_with("trust/")).collect();
    assert!(verify_export(&without, &world.trust).is_ok());
}

#[test]
fn another_list_of_files_is_not_exported() {
    let world = World::new();
    let refused = world.receipt(FILES_B3).export(&world.trust, Some(b"other\n")).unwrap_err();
    assert_eq!(refused.code, Code::EvidenceInvalid);
}

#[test]
fn a_receipt_does_not_verify_under_another_authority() {
    let world = World::new();
    let files: BTreeMap<_, _> = world.receipt(FILES_B3).export(&world.trust, None).unwrap().into_iter().collect();
    let mut nodes = world.trust.nodes().clone();
    nodes.issued = NOW.plus_ms(1_000);
    let forged = nodes.sign(&world.coordinator, &world.consumer_key).unwrap();
    assert!(TrustStore::open(&forged, world.trust.policy_key()).is_err());
    use posthouse_protocol::cose::Signer;
    let other = TrustStore::open(&forged, &world.consumer_key.public_key()).unwrap();
    assert!(verify_export(&files, &other).is_err(), "the export's own trust is another's");
}
