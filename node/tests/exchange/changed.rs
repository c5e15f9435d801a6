//! Files that are here in part already: an older version, or under another name. Only what differs crosses the line.

use super::*;
use std::path::Path;

/// Edits of every kind, none of them aligned to anything.
fn edited(content: Vec<u8>) -> Vec<u8> {
    edited_by(7, content)
}

fn edited_by(seed: u64, mut content: Vec<u8>) -> Vec<u8> {
    content[3_000_001..3_050_001].copy_from_slice(&noise(seed, 50_000));
    content.splice(9_000_017..9_000_017, noise(seed + 1, 777));
    content.drain(14_000_003..14_020_000);
    content
}

/// Pieces on either side of an edit, what of the index goes the other way is not counted.
const EDITS_BYTES_MAX: u64 = 50_777 + 3 * 2 * (64 << 10);

#[tokio::test(flavor = "multi_thread")]
async fn of_a_file_that_changed_only_the_changes_are_sent() {
    for (transport, write) in [("quic", "upsert"), ("tcp", "replace")] {
        let scene = Scene::new(transport, &["scans"]);
        let old = noise(1, 20 << 20);
        std::fs::write(scene.path("source/large"), &old).unwrap();
        let _provider = scene.provider(&offer_folder(&scene)).await;
        let consumer = scene.consumer(&take_folder(&scene, &format!("write = \"{write}\"\n"))).await;
        let first = run(&consumer, "scans").await;
        assert!(first.bytes_sent >= 20 << 20, "{first:?}");
        std::fs::write(scene.path("source/large"), edited(old)).unwrap();
        let row = run(&consumer, "scans").await;
        assert_eq!(row.state, State::Settled, "{row:?}");
        assert_eq!(tree(&scene.path("target")), tree(&scene.path("source")));
        assert!(row.bytes_sent < EDITS_BYTES_MAX, "{row:?}");
        assert_eq!((row.chunks, row.files_sent, row.resent_chunks), (20, 1, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_under_a_new_name_is_taken_from_where_it_stands() {
    let scene = Scene::new("quic", &["scans"]);
    let source = scene.path("source");
    std::fs::write(source.join("renamed"), noise(1, 10 << 20)).unwrap();
    std::fs::write(source.join("copied"), noise(2, (10 << 20) + 1)).unwrap();
    let _provider = scene.provider(&offer_folder(&scene)).await;
    let consumer = scene.consumer(&take_folder(&scene, "")).await;
    assert_eq!(run(&consumer, "scans").await.state, State::Settled);
    std::fs::rename(source.join("renamed"), source.join("新名")).unwrap();
    std::fs::write(source.join("copy"), noise(2, (10 << 20) + 1)).unwrap();
    let row = run(&consumer, "scans").await;
    assert_eq!(row.state, State::Settled, "{row:?}");
    assert_eq!(row.files_sent, 2);
    assert!(row.bytes_sent < 100 << 10, "{row:?}");
    let mut source = tree(&source);
    // Nothing says that it goes.
    source.push(tree(&scene.path("target")).into_iter().find(|(name, _)| name == "renamed").unwrap());
    source.sort();
    assert_eq!(tree(&scene.path("target")), source);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_file_that_changes_while_it_is_used_lands_nothing_wrong() {
    let mut scene = Scene::new("quic", &["scans"]);
    scene.provider_more = "bandwidth = \"6 MiB\"";
    let mut content = noise(1, 30 << 20);
    std::fs::write(scene.path("source/large"), &content).unwrap();
    let provider = scene.provider(&offer_folder(&scene)).await;
    let consumer = scene.consumer(&take_folder(&scene, "")).await;
    assert_eq!(run(&consumer, "scans").await.state, State::Settled);
    // Every other half of a mebibyte is new, so that it takes a while.
    for (number, part) in (100..).zip(content.chunks_mut(1 << 20)) {
        let half = part.len() / 2;
        part[..half].copy_from_slice(&noise(number, half));
    }
    std::fs::write(scene.path("source/large"), &content).unwrap();
    let id = plan(&consumer, "scans").await;
    let running = tokio::spawn(transfer::run_consumer(consumer.context().clone(), id.clone()));
    until_live(&consumer, &id, "moving", |live| live.row.chunks > 0).await;
    tamper(&scene.path("target/large"));
    let transfer::Outcome::Final(row) = running.await.unwrap().unwrap() else { panic!("it was stopped") };
    assert_eq!((row.state, &row.id), (State::Settled, &id), "{row:?}");
    assert_eq!(tree(&scene.path("target")), tree(&scene.path("source")));
    assert!(row.bytes_sent > 20 << 20, "some of it had to come as a whole: {row:?}");
    provider.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_is_resumed_after_a_kill_and_still_costs_only_its_changes() {
    for point in ["synced", "recorded", "committed"] {
        let scene = Scene::new("quic", &["scans"]);
        let old = noise(1, 20 << 20);
        std::fs::write(scene.path("source/large"), &old).unwrap();
        let provider = scene.provider(&offer_folder(&scene)).await;
        let consumer = scene.consumer(&take_folder(&scene, "")).await;
        assert_eq!(run(&consumer, "scans").await.state, State::Settled);
        consumer.stop().await;
        std::fs::write(scene.path("source/large"), edited(old)).unwrap();
        let (consumer, row) = killed_at(point, &scene, "scans", &take_folder(&scene, "")).await;
        assert_eq!(tree(&scene.path("target")), tree(&scene.path("source")), "{point}");
        assert!(row.bytes_sent < 2 * EDITS_BYTES_MAX, "{point}: {row:?}");
        consumer.stop().await;
        provider.stop().await;
    }
}

/// What the cuts have to read around an edit is a few times the longest piece.
const READ_BYTES_MAX: u64 = 4 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn of_a_file_that_changes_again_only_what_its_last_change_brought_is_read_to_be_cut() {
    let scene = Scene::new("quic", &["scans"]);
    let mut content = noise(1, 20 << 20);
    std::fs::write(scene.path("source/large"), &content).unwrap();
    let _provider = scene.provider(&offer_folder(&scene)).await;
    let mut consumer = scene.consumer(&take_folder(&scene, "")).await;
    assert_eq!(run(&consumer, "scans").await.state, State::Settled);
    let mut read = Vec::new();
    for change in 1..=4 {
        if change == 3 {
            // It survives the process.
            consumer.stop().await;
            consumer = scene.consumer(&take_folder(&scene, "")).await;
        }
        content = edited_by(10 * change, content);
        std::fs::write(scene.path("source/large"), &content).unwrap();
        let before = consumer.context().remembered.read_bytes();
        let row = run(&consumer, "scans").await;
        assert_eq!(row.state, State::Settled, "{row:?}");
        assert!(std::fs::read(scene.path("target/large")).unwrap() == content, "change {change}");
        assert!(row.bytes_sent < EDITS_BYTES_MAX, "change {change}: {row:?}");
        read.push(consumer.context().remembered.read_bytes() - before);
    }
    let [first, later @ ..] = &read[..] else { panic!("it changed") };
    assert!(*first >= 20 << 20, "nobody knew its pieces: {read:?}");
    assert!(later.iter().all(|read| (1..READ_BYTES_MAX).contains(read)), "{read:?}");
    assert_eq!(std::fs::read_dir(remembered(&scene)).unwrap().count(), 1, "of what is replaced nothing is kept");
}

/// A file that has landed twice since it landed first, so that its pieces are remembered, and what is in it.
async fn changed_twice() -> (Scene, Node, Node, Vec<u8>) {
    let scene = Scene::new("quic", &["scans"]);
    let mut content = noise(1, 20 << 20);
    std::fs::write(scene.path("source/large"), &content).unwrap();
    let provider = scene.provider(&offer_folder(&scene)).await;
    let consumer = scene.consumer(&take_folder(&scene, "")).await;
    for change in 0..2 {
        content = edited_by(10 * change, content);
        std::fs::write(scene.path("source/large"), &content).unwrap();
        assert_eq!(run(&consumer, "scans").await.state, State::Settled);
    }
    (scene, provider, consumer, content)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_remembered_of_a_landed_file_is_not_believed_of_another() {
    let (scene, _provider, consumer, content) = changed_twice().await;
    // Of the same length and with the same time.
    tamper(&scene.path("target/large"));
    std::fs::write(scene.path("source/large"), edited_by(20, content)).unwrap();
    let before = consumer.context().remembered.read_bytes();
    let row = run(&consumer, "scans").await;
    assert_eq!(row.state, State::Settled, "{row:?}");
    assert_eq!(tree(&scene.path("target")), tree(&scene.path("source")));
    let read = consumer.context().remembered.read_bytes() - before;
    assert!(read > 19 << 20, "it was cut anew, of which {read} bytes were read");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_remembered_wrongly_of_a_file_lands_nothing_wrong() {
    let (scene, _provider, consumer, content) = changed_twice().await;
    exchange_pieces(&remembered(&scene));
    std::fs::write(scene.path("source/large"), edited_by(20, content)).unwrap();
    let before = consumer.context().remembered.read_bytes();
    let row = run(&consumer, "scans").await;
    assert_eq!(row.state, State::Settled, "{row:?}");
    assert_eq!(tree(&scene.path("target")), tree(&scene.path("source")));
    let read = consumer.context().remembered.read_bytes() - before;
    assert!(read < READ_BYTES_MAX, "it was believed: {read} bytes were read");
    assert!(row.bytes_sent > 1 << 20, "a chunk that is not what it should be comes as a whole: {row:?}");
}

fn remembered(scene: &Scene) -> std::path::PathBuf {
    scene.path(CONSUMER).join("data/pieces")
}

/// Of the last pieces of the one file that is remembered each is told in the place of its neighbour, under a right sum.
fn exchange_pieces(folder: &Path) {
    let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [path] = files.as_slice() else { panic!("one file is remembered: {files:?}") };
    let mut bytes = std::fs::read(path).unwrap();
    let end = bytes.len() - 32;
    for two in bytes[end - 100 * 24..end].chunks_exact_mut(24) {
        two.rotate_left(12);
    }
    let sum = blake3::hash(&bytes[..end]);
    bytes[end..].copy_from_slice(sum.as_bytes());
    std::fs::write(path, bytes).unwrap();
}
