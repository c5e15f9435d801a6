//! A folder that is watched: what changes in it is given by itself.

use super::*;
use posthouse_node::store::transfers;
use std::path::Path;

async fn until_there(what: &str, is_there: impl Fn() -> bool) {
    for _ in 0..1200 {
        if is_there() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what} did not come within a minute");
}

async fn until_pushed(node: &Node, times: usize) {
    for _ in 0..1200 {
        if pushed(node).await >= times {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("there were not {times} runs within a minute");
}

async fn pushed(node: &Node) -> usize {
    let all = transfers::Filter::default();
    let listed = node.context().store.read(move |db| transfers::list(db, &all)).await.unwrap();
    listed.iter().filter(|row| row.state == State::Settled).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_in_a_watched_folder_is_pushed_once_and_a_folder_that_is_exchanged_too() {
    let scene = Scene::new("tcp", &["scans"]);
    let consumer = scene.consumer(&accept_folder(&scene)).await;
    let provider = scene.provider(&push_folder(&scene, "watch")).await;
    let (source, target) = (scene.path("source"), scene.path("target"));
    // What was there before the node came.
    until_pushed(&provider, 1).await;
    std::fs::create_dir(source.join("new")).unwrap();
    for number in 0..3 {
        std::fs::write(source.join(format!("new/{number}")), noise(number, 100_000)).unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    until_there("the files", || tree(&target) == tree(&source)).await;
    until_pushed(&provider, 2).await;
    // Being read by a run is no change.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let runs = pushed(&provider).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(pushed(&provider).await, runs);
    std::fs::write(source.join("new/1"), "another").unwrap();
    until_there("the change", || std::fs::read(target.join("new/1")).is_ok_and(|now| now == b"another")).await;
    exchange_folder(&source);
    until_there("what is in the other folder", || target.join("moved in").exists()).await;
    std::fs::write(source.join("later"), "watched again").unwrap();
    until_there("what changes in it", || target.join("later").exists()).await;
    let runs = pushed(&provider).await;
    std::fs::write(source.join("last"), "told by its own watch").unwrap();
    until_there("what changes in it after that", || target.join("last").exists()).await;
    until_pushed(&provider, runs + 1).await;
    provider.stop().await;
    consumer.stop().await;
}

/// Puts another folder in its place.
fn exchange_folder(folder: &Path) {
    let other = folder.with_extension("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("moved in"), "with the folder").unwrap();
    std::fs::rename(folder, folder.with_extension("old")).unwrap();
    std::fs::rename(&other, folder).unwrap();
}
