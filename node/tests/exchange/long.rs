//! A list that is long: what is final of it is written while the rest still moves, and both sides have the same.

use super::*;
use posthouse_node::store::exchange::offered;
use std::path::{Path, PathBuf};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_final_of_a_list_is_written_before_the_rest_has_moved() {
    let mut scene = Scene::new("tcp", &["scans"]);
    scene.provider_more = "bandwidth = \"2 MiB\"";
    let source = scene.path("source");
    for number in 0..3_000 {
        std::fs::write(source.join(format!("f{number:05}")), format!("{number}")).unwrap();
    }
    // Listed and sent last.
    std::fs::write(source.join("large"), noise(1, 6 << 20)).unwrap();
    let provider = scene.provider(&offer_folder(&scene)).await;
    let consumer = scene.consumer(&take_folder(&scene, "")).await;
    let id = plan(&consumer, "scans").await;
    let running = tokio::spawn(transfer::run_consumer(consumer.context().clone(), id.clone()));
    let given = provider.context().attachments().join(id.as_str());
    let mut is_written = false;
    while !is_written && !running.is_finished() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        is_written = parts(&given).iter().any(|part| std::fs::metadata(part).is_ok_and(|meta| meta.len() > 0));
    }
    let of = id.clone();
    let stored = provider.context().store.read(move |db| offered(db, &of)).await.unwrap().unwrap();
    assert!(is_written && stored.handover.is_none(), "the whole list was held in memory until it was signed");
    running.await.unwrap().unwrap();
    let row = until(&consumer, &id, "settled", |row| row.state == State::Settled).await;
    assert_eq!(row.counts.files, 3_001);
    assert_eq!(tree(&scene.path("target")), tree(&source));
    // The provider's was written piece by piece, the consumer's from its store.
    let taken = consumer.context().attachments().join(id.as_str());
    for name in ["entries.cbor", "files.b3"] {
        let (given, taken) = (std::fs::read(given.join(name)).unwrap(), std::fs::read(taken.join(name)).unwrap());
        assert!(!given.is_empty() && given == taken, "{name}");
    }
    provider.stop().await;
    consumer.stop().await;
}

/// The entry lists that are being written in a folder, as far as there is one.
fn parts(folder: &Path) -> Vec<PathBuf> {
    let Ok(found) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = found.map(|entry| entry.unwrap().path());
    let is_part = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.starts_with("entries.cbor.") && name.ends_with(".part")
    };
    paths.filter(is_part).collect()
}
