//! Files that are here in part already: an older version, or under another name. Only what differs crosses the line.

use super::*;

/// Edits of every kind, none of them aligned to anything.
fn edited(mut content: Vec<u8>) -> Vec<u8> {
    content[3_000_001..3_050_001].copy_from_slice(&noise(7, 50_000));
    content.splice(9_000_017..9_000_017, noise(8, 777));
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
