//! Databases that may be used at certain hours only, at either end.

use super::*;
use posthouse_node::store::transfers;

/// A window of one hour that is closed now, and one that is open.
fn windows() -> [String; 2] {
    let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
    let hour = |hours: i64| (&now + jiff::Span::new().hours(hours)).strftime("%H:%M").to_string();
    [format!("window = \"{}-{} UTC\"\n", hour(2), hour(3)), format!("window = \"{}-{} UTC\"\n", hour(-1), hour(1))]
}

fn within(config: &str, window: &str) -> String {
    config.replacen("[connection.db]\n", &format!("[connection.db]\n{window}"), 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_waits_for_the_window_of_its_provider() {
    let [closed, open] = windows();
    let scene = Scene::new("quic", &["residents"]);
    table(&scene.path("source/residents.db"), 10);
    let provider = scene.provider(&within(&offer_table(&scene), &closed)).await;
    let consumer = scene.consumer(&take_table(&scene, "full", "replace")).await;
    let id = plan(&consumer, "residents").await;
    let running = tokio::spawn(transfer::run_consumer(consumer.context().clone(), id.clone()));
    let waiting = until(&consumer, &id, "turned away", |row| row.problem.is_some()).await;
    let problem = waiting.problem.unwrap();
    assert_eq!(problem.code, Code::OutsideWindow, "{problem:?}");
    assert!(problem.facts.contains(&("node".to_owned(), PROVIDER.to_owned())), "{problem:?}");
    assert!(!knows(&provider, &id).await, "nothing was begun");
    provider.stop().await;
    let _provider = scene.provider(&within(&offer_table(&scene), &open)).await;
    until(&consumer, &id, "settled", |row| row.state == State::Settled).await;
    running.await.unwrap().unwrap();
    assert_eq!(rows(&scene.path("target/residents.db")).len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_waits_for_the_window_of_where_it_lands() {
    let [closed, open] = windows();
    let scene = Scene::new("quic", &["residents"]);
    table(&scene.path("source/residents.db"), 10);
    let provider = scene.provider(&offer_table(&scene)).await;
    let consumer = scene.consumer(&within(&take_table(&scene, "full", "replace"), &closed)).await;
    let id = plan(&consumer, "residents").await;
    let running = tokio::spawn(transfer::run_consumer(consumer.context().clone(), id.clone()));
    let waiting = until(&consumer, &id, "held back", |row| row.state == State::Paused).await;
    assert_eq!(waiting.problem.unwrap().code, Code::OutsideWindow);
    assert!(!knows(&provider, &id).await, "nothing was begun");
    consumer.stop().await;
    running.await.unwrap().unwrap();
    let consumer = scene.consumer(&within(&take_table(&scene, "full", "replace"), &open)).await;
    until(&consumer, &id, "settled", |row| row.state == State::Settled).await;
    assert_eq!(rows(&scene.path("target/residents.db")).len(), 10);
}

async fn knows(node: &Node, id: &TransferId) -> bool {
    let id = id.clone();
    node.context().store.read(move |db| transfers::get(db, &id)).await.unwrap().is_some()
}
