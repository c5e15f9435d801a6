//! A statement is accepted exactly as it was signed, by whom it names, or not at all.

use crate::sample::{NOW, World, flips};
use posthouse_protocol::codec::sha256;
use posthouse_protocol::cose::{self, CoseError, Signer};
use posthouse_protocol::limits;
use posthouse_protocol::statement::{Body, Statement, StatementError};

#[test]
fn a_statement_is_read_back_as_it_was_signed() {
    let world = World::new();
    let provider = world.hand_over(world.manifest(b""));
    let again = Statement::open(provider.bytes(), &world.trust).unwrap();
    assert_eq!(again, provider);
    assert_eq!(again.sha256(), &sha256(provider.bytes()));
    assert_eq!(again.issuer(), &world.provider);
    assert_eq!(again.issued(), NOW);
    assert_eq!(again.body().subject(), again.body().transfer().unwrap().to_string());
}

#[test]
fn signing_the_same_twice_gives_the_same_bytes() {
    let world = World::new();
    assert_eq!(world.hand_over(world.manifest(b"")), world.hand_over(world.manifest(b"")));
}

#[test]
fn every_flipped_bit_of_a_statement_is_refused() {
    let world = World::new();
    let provider = world.hand_over(world.manifest(b""));
    for flipped in flips(provider.bytes()) {
        assert!(Statement::open(&flipped, &world.trust).is_err());
    }
}

#[test]
fn every_shortened_or_lengthened_statement_is_refused() {
    let world = World::new();
    let bytes = world.hand_over(world.manifest(b"")).bytes().to_vec();
    for length in 0..bytes.len() {
        assert!(Statement::open(&bytes[..length], &world.trust).is_err(), "{length} bytes");
    }
    assert!(Statement::open(&[&bytes[..], &[0]].concat(), &world.trust).is_err());
}

#[test]
fn the_same_content_in_a_longer_encoding_is_refused() {
    let world = World::new();
    let bytes = world.hand_over(world.manifest(b"")).bytes().to_vec();
    // Tag 18 in one byte more, and an unprotected header of indefinite length.
    assert_eq!(bytes[..2], [0xd2, 0x84]);
    let longer = [&[0xd8, 18], &bytes[1..]].concat();
    assert!(matches!(Statement::open(&longer, &world.trust), Err(StatementError::Envelope(CoseError::NotCanonical))));
    let at = bytes.windows(2).position(|pair| pair == [0xa0, 0x59]).unwrap();
    let open_ended = [&bytes[..at], &[0xbf, 0xff], &bytes[at + 1..]].concat();
    assert!(Statement::open(&open_ended, &world.trust).is_err());
}

#[test]
fn a_statement_by_another_than_its_party_is_neither_made_nor_accepted() {
    let world = World::new();
    let body = world.hand_over(world.manifest(b"")).body().clone();
    let refused = Statement::sign(body.clone(), &world.consumer, NOW, &world.consumer_key);
    assert_eq!(refused, Err(StatementError::Issuer { issuer: world.consumer.clone() }));

    let claims = cose::Claims::new(world.consumer.clone(), body.subject(), NOW);
    let payload = posthouse_protocol::codec::encode(&body);
    let forged =
        cose::seal("application/vnd.posthouse.statement+cbor", &claims, &payload, &world.consumer_key).unwrap();
    assert_eq!(Statement::open(&forged, &world.trust), Err(StatementError::Issuer { issuer: world.consumer.clone() }));
}

#[test]
fn a_key_signs_only_for_its_own_node_and_time() {
    let world = World::new();
    let body = world.hand_over(world.manifest(b"")).body().clone();
    let by_other = Statement::sign(body.clone(), &world.provider, NOW, &world.consumer_key).unwrap();
    assert!(matches!(
        Statement::open(by_other.bytes(), &world.trust),
        Err(StatementError::Envelope(CoseError::UnknownKey { .. }))
    ));
    let before = NOW.plus_ms(-2 * 86_400_000);
    let too_early = Statement::sign(body, &world.provider, before, &world.provider_key).unwrap();
    assert!(Statement::open(too_early.bytes(), &world.trust).is_err());
}

#[test]
fn another_content_type_is_no_statement() {
    let world = World::new();
    let provider = world.hand_over(world.manifest(b""));
    let claims = cose::Claims::new(world.provider.clone(), provider.body().subject(), NOW);
    let payload = posthouse_protocol::codec::encode(provider.body());
    let other = cose::seal("application/vnd.posthouse.policy+cbor", &claims, &payload, &world.provider_key).unwrap();
    assert!(matches!(Statement::open(&other, &world.trust), Err(StatementError::Envelope(CoseError::ContentType(_)))));
}

#[test]
fn a_statement_over_16_kib_is_not_made() {
    let world = World::new();
    let mut manifest = world.manifest(b"");
    manifest.provider_department = Some("部".repeat(limits::STATEMENT_BYTES_MAX / 3));
    let body = Body::Provider(world.hand_over(world.manifest(b"")).body().chain().unwrap().clone(), Box::new(manifest));
    let refused = Statement::sign(body, &world.provider, NOW, &world.provider_key);
    assert!(matches!(refused, Err(StatementError::TooLong { .. })));
}

#[test]
fn public_keys_survive_pem_and_no_other_pem_is_read() {
    let key = World::new().policy.public_key();
    let pem = cose::public_key_pem(&key);
    assert_eq!(cose::parse_public_key_pem(pem.as_bytes()), Some(key));
    for flipped in flips(pem.as_bytes()) {
        assert_ne!(cose::parse_public_key_pem(&flipped), Some(key));
    }
}
