//! What a transfer waited for is known at both sides, and how the line between them is.

use super::*;
use posthouse_node::admin::{LineSeen, Request, Shown};
use posthouse_node::store::{Side, spent};
use posthouse_platform::admin_socket;
use serde::de::DeserializeOwned;

async fn ask<T: DeserializeOwned>(node: &Node, request: &Request) -> T {
    let socket = node.context().config().admin_socket();
    admin_socket::call(&socket, "node", request).await.unwrap().done().await.unwrap()
}

async fn is_known(scene: &Scene, job: &str, offered: &str, taken: &str) {
    let provider = scene.provider(offered).await;
    let consumer = scene.consumer(taken).await;
    let row = run(&consumer, job).await;
    assert_eq!(row.state, State::Settled, "{row:?}");
    for (node, side) in [(&consumer, Side::Consumer), (&provider, Side::Provider)] {
        let id = row.id.clone();
        let kept = node.context().store.read(move |db| spent::get(db, &id, side, None)).await.unwrap().unwrap();
        let shown: Shown = ask(node, &Request::TransferShow { transfer: row.id.clone() }).await;
        for spent in [kept, shown.spent.unwrap()] {
            assert!(spent.source_ms.is_some() && spent.line_ms.is_some(), "{job} {side:?}: {spent:?}");
            assert_eq!(spent.destination_ms.is_some(), side == Side::Consumer, "{job}: {spent:?}");
        }
    }
    for (node, peer) in [(&consumer, PROVIDER), (&provider, CONSUMER)] {
        let resource = format!("{PROVIDER}/{job}").parse().unwrap();
        let request = Request::LineProbe { job: job.parse().unwrap(), consumer: name(CONSUMER), resource };
        let line: LineSeen = ask(node, &request).await;
        assert_eq!((line.peer, line.transport.as_str()), (name(peer), "tcp"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_know_what_a_table_waited_for_and_how_the_line_is() {
    let scene = Scene::new("tcp", &["residents"]);
    table(&scene.path("source/residents.db"), 1_000);
    is_known(&scene, "residents", &offer_table(&scene), &take_table(&scene, "full", "replace")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_know_what_a_folder_waited_for_and_how_the_line_is() {
    let scene = Scene::new("tcp", &["scans"]);
    std::fs::write(scene.path("source").join("scan.pdf"), noise(1, 100_000)).unwrap();
    is_known(&scene, "scans", &offer_folder(&scene), &take_folder(&scene, "")).await;
}
