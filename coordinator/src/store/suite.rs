//! What every store promises; each implementation runs all of it.

use super::records::{AccessRecord, Issued, Joining, Page, TokenRecord, Window};
use super::sqlite::Sqlite;
use super::{JoinRecord, Store};
use crate::admin::Role;
use crate::ledger::Leaf;
use posthouse_platform::blocking::Inline;
use posthouse_protocol::centre::Profile;
use posthouse_protocol::cose::{Ed25519Signer, Signer};
use posthouse_protocol::id::{NodeId, TransferId};
use posthouse_protocol::ledger::{leaf_hash, stored_index};
use posthouse_protocol::problem::Code;
use posthouse_protocol::statement::{Body, Chain, Ending, Statement};
use posthouse_protocol::time::Timestamp;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

const NOW: Timestamp = Timestamp(1_800_000_000_000);

async fn open(folder: &Path) -> Arc<dyn Store> {
    Arc::new(Sqlite::open(&folder.join("store.db"), Arc::new(Inline)).await.unwrap())
}

fn node() -> NodeId {
    NodeId::parse("a.example").unwrap()
}

fn signer() -> Ed25519Signer {
    Ed25519Signer::from_seed(&[5; 32]).unwrap()
}

fn leaf(number: u8) -> Leaf {
    let ending = Ending {
        transfer: TransferId::from_random([number; 16]),
        job: "j".parse().unwrap(),
        resource: "a.example/r".parse().unwrap(),
        provider: node(),
        consumer: "b.example".parse().unwrap(),
        code: Code::Cancelled.number(),
        cause: String::new(),
        ended: NOW,
    };
    let chain = Chain { epoch: 1, sequence: 1, previous: None };
    Leaf::of(Statement::sign(Body::Failure(chain, ending), &node(), NOW, &signer()).unwrap())
}

fn join(secret: [u8; 32], request: [u8; 32], now: Timestamp) -> JoinRecord {
    JoinRecord {
        node: node(),
        secret_sha256: secret,
        request_sha256: request,
        statement_key: signer().public_key(),
        profile: Profile::default(),
        now,
    }
}

fn issued(number: u8) -> Issued {
    Issued { sha256: [number; 32], issued_at: NOW, expires_at: NOW.plus_ms(1_000) }
}

async fn registered(store: &dyn Store) {
    let token = TokenRecord { hash: [1; 32], node: node(), created_at: NOW, expires_at: NOW.plus_ms(1_000) };
    store.add_token(token).await.unwrap();
    let joined = store.join(join([1; 32], [2; 32], NOW), issued(1)).await.unwrap();
    assert_eq!(joined, Joining::Joined { epoch: 0 });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever is repeated, in whatever batches and over restarts, each statement has one leaf for ever.
    #[test]
    fn a_statement_has_one_leaf_for_ever(batches in prop::collection::vec(
        (prop::collection::vec(0u8..12, 0..6), any::<bool>()), 1..8,
    )) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let mut store = open(folder.path()).await;
            registered(&*store).await;
            let mut model: BTreeMap<u8, u64> = BTreeMap::new();
            for (batch, restart) in batches {
                let leaves = batch.iter().map(|number| leaf(*number)).collect();
                let appended = store.append(leaves, NOW).await.unwrap();
                for (number, (index, new)) in batch.iter().zip(appended.leaves) {
                    let size = model.len() as u64;
                    let known = model.get(number).copied();
                    prop_assert_eq!((index, new), (known.unwrap_or(size), known.is_none()));
                    model.insert(*number, index);
                }
                prop_assert_eq!(appended.size, model.len() as u64);
                if restart {
                    store.close().await;
                    store = open(folder.path()).await;
                }
            }
            for (number, index) in &model {
                let kept = store.leaves(*index, 1).await.unwrap().pop().unwrap();
                prop_assert_eq!(kept.sha256, *leaf(*number).sha256());
                let hash = store.hashes(vec![stored_index(0, *index)]).await.unwrap();
                prop_assert_eq!(hash, vec![leaf_hash(&kept.bytes)]);
            }
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn a_token_is_used_by_one_request_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    registered(&*store).await;
    assert_eq!(store.join(join([1; 32], [2; 32], NOW), issued(2)).await.unwrap(), Joining::Joined { epoch: 0 });
    assert_eq!(store.join(join([1; 32], [3; 32], NOW), issued(3)).await.unwrap(), Joining::Used);
    assert_eq!(store.join(join([9; 32], [2; 32], NOW), issued(3)).await.unwrap(), Joining::Unknown);
    // The certificate of the answer that was lost is worth nothing, the second is.
    assert!(store.certificate_revoked([1; 32]).await.unwrap());
    assert!(!store.certificate_revoked([2; 32]).await.unwrap());
}

#[tokio::test]
async fn a_key_that_was_replaced_is_kept_with_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    registered(&*store).await;
    assert_eq!(store.raise_epoch(&node(), 7, NOW).await.unwrap(), 7);
    assert!(store.revoke(&node(), NOW).await.unwrap());
    assert!(!store.revoke(&node(), NOW).await.unwrap());
    let later = NOW.plus_ms(500);
    let token = TokenRecord { hash: [4; 32], node: node(), created_at: later, expires_at: later.plus_ms(1) };
    store.add_token(token).await.unwrap();
    let second = JoinRecord { statement_key: [8; 32], ..join([4; 32], [5; 32], later) };
    assert_eq!(store.join(second, issued(4)).await.unwrap(), Joining::Joined { epoch: 7 });
    let keys = store.node(&node()).await.unwrap().unwrap().statement_keys;
    let ends: Vec<_> = keys.iter().map(|known| (known.key, known.until)).collect();
    // With the revocation, not only once the name has joined again.
    assert_eq!(ends, [([8; 32], None), (signer().public_key(), Some(NOW))]);
}

#[tokio::test]
async fn an_alarm_counts_until_it_is_cleared() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    for (once, times) in [(false, 1), (false, 2), (true, 2)] {
        store.raise("k", "s", "c", NOW, once).await.unwrap();
        assert_eq!(store.alarms(true).await.unwrap()[0].times, times);
    }
    store.clear("k", "s", NOW).await.unwrap();
    assert!(store.alarms(true).await.unwrap().is_empty());
    store.raise("k", "s", "c", NOW.plus_ms(9), true).await.unwrap();
    let again = store.alarms(true).await.unwrap();
    assert_eq!((again[0].times, again[0].first_at), (1, NOW.plus_ms(9)));
}

#[tokio::test]
async fn an_access_name_is_taken_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let access = |hash| AccessRecord {
        name: "n".to_owned(),
        role: Role::Auditor,
        hash: [hash; 32],
        created_at: NOW,
        last_used_at: None,
    };
    assert!(store.add_access(access(1)).await.unwrap());
    assert!(!store.add_access(access(2)).await.unwrap());
    store.touch_access("n", NOW).await.unwrap();
    let listed = store.access().await.unwrap();
    assert_eq!((listed[0].hash, listed[0].role, listed[0].last_used_at), ([1; 32], Role::Auditor, Some(NOW)));
    assert!(store.revoke_access("n").await.unwrap());
    assert!(!store.revoke_access("n").await.unwrap());
}

#[tokio::test]
async fn a_closed_store_takes_nothing_more() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    store.close().await;
    assert_eq!(store.set_meta("a", "b").await.unwrap_err().code, Code::StorageFailed);
}

#[tokio::test]
async fn a_file_that_is_no_store_is_damaged_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    std::fs::write(&path, vec![7; 8_192]).unwrap();
    let opened = Sqlite::open(&path, Arc::new(Inline)).await;
    assert_eq!(opened.err().unwrap().code, Code::StoreDamaged);
    assert_eq!(std::fs::read(&path).unwrap(), vec![7; 8_192]);
}

#[tokio::test]
async fn transfers_are_listed_newest_first_within_their_window() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    registered(&*store).await;
    store.append((0..5).map(leaf).collect(), NOW).await.unwrap();
    let all = store.transfers(Window::ALL, Page { after: None, limit: 3 }).await.unwrap();
    assert_eq!(all.len(), 3);
    let last = all.last().map(|row| (row.at, row.transfer.clone()));
    let rest = store.transfers(Window::ALL, Page { after: last, limit: 3 }).await.unwrap();
    assert_eq!(rest.len(), 2);
    let none = Window { from: NOW.plus_ms(1), until: Timestamp(i64::MAX) };
    assert!(store.transfers(none, Page { after: None, limit: 9 }).await.unwrap().is_empty());
    assert_eq!(store.count_transfers(Window::ALL).await.unwrap(), 5);
}
