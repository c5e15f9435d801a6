//! Rows of transactions that commit late, from PostgreSQL: what a run reads depends on what was landed before.

#[path = "../../../tests/support/postgres.rs"]
mod support;

use super::*;
use posthouse_node::store::exchange;
use posthouse_protocol::watermark::Watermark;
use support::Postgres;

#[tokio::test(flavor = "multi_thread")]
async fn a_late_row_is_read_from_where_the_last_landed_transfer_stood_and_not_a_failed_one() {
    let server = Postgres::start(&[("max_prepared_transactions", "5")]);
    server.psql(
        "CREATE TABLE residents (id bigint PRIMARY KEY, name text NOT NULL, changed bigint NOT NULL);
         INSERT INTO residents SELECT i, '居民' || i, i FROM generate_series(1, 1000) i;",
    );
    let scene = Scene::new("quic", &["residents"]);
    let source = format!(
        "[connection.db]\nkind = \"postgres\"\nurl = \"postgres://postgres@/postgres?host={}\"\n\
         [[resource]]\nid = \"residents\"\nconnection = \"db\"\ntable = \"residents\"\nkey = [\"id\"]\nwatermark = \"changed\"\n",
        server.socket().display()
    );
    let job = take_table(&scene, "incremental", "upsert");
    let provider = scene.provider(&source).await;
    let consumer = scene.consumer(&job).await;
    let first = run(&consumer, "residents").await;
    assert_eq!((first.state, first.counts.rows_sent), (State::Settled, 1000), "{first:?}");
    server.psql("BEGIN; INSERT INTO residents VALUES (2000, '迟', 5); PREPARE TRANSACTION 'late'");
    server.psql("INSERT INTO residents VALUES (2001, '新', 2001)");
    let second = run(&consumer, "residents").await;
    assert_eq!((second.state, second.counts.rows_sent), (State::Settled, 2), "{second:?}");
    server.psql("COMMIT PREPARED 'late'");
    consumer.stop().await;

    // This one has read the late row, was handed over, and never landed.
    let failed = kill_at("staged", &scene, "residents", &job).await;
    let target = rusqlite::Connection::open(scene.path("target/residents.db")).unwrap();
    target.execute_batch("ALTER TABLE residents RENAME COLUMN name TO called").unwrap();
    let consumer = scene.consumer(&job).await;
    let row = until(&consumer, &failed, "failed", |row| row.state.is_final()).await;
    assert_eq!((row.state, row.counts.rows_landed), (State::Failed, 0), "{row:?}");
    target.execute_batch("ALTER TABLE residents RENAME COLUMN called TO name").unwrap();
    let (of_second, of_failed) = (position(&provider, &second.id).await, position(&provider, &failed).await);
    assert_ne!(of_second, of_failed);
    assert_eq!(landed(&provider, 2001).await, of_second);
    assert_eq!(landed(&provider, 7).await, None, "a mark that nothing has reached");

    let third = run(&consumer, "residents").await;
    assert_eq!(
        (third.state, third.counts.rows_sent),
        (State::Settled, 2),
        "the late row, and the last mark: {third:?}"
    );
    assert_eq!(
        (third.watermark_to.as_ref(), rows(&scene.path("target/residents.db")).len()),
        (second.watermark_to.as_ref(), 1002)
    );
    // Of several that reached the same mark, the newest.
    assert_eq!(landed(&provider, 2001).await, position(&provider, &third.id).await);
    let fourth = run(&consumer, "residents").await;
    assert_eq!((fourth.state, fourth.counts.rows_sent), (State::Settled, 1), "{fourth:?}");
    let deep = reconcile::deep(consumer.context(), &"residents".parse().unwrap()).await.unwrap();
    assert_eq!((deep.findings.len(), deep.differing), (0, 0), "{deep:?}");

    // A store that knows of none: everything is read, and nothing lands twice.
    provider
        .context()
        .store
        .write(|tx| {
            tx.execute("UPDATE offered SET position = NULL", []).map(|_| ()).map_err(posthouse_node::store::failed)
        })
        .await
        .unwrap();
    let fifth = run(&consumer, "residents").await;
    assert_eq!((fifth.state, fifth.counts.rows_sent), (State::Settled, 1002), "{fifth:?}");
    assert_eq!(rows(&scene.path("target/residents.db")).len(), 1002);
    assert_eq!(run(&consumer, "residents").await.counts.rows_sent, 1);
}

async fn position(provider: &Node, id: &TransferId) -> Option<String> {
    let id = id.clone();
    let offered = provider.context().store.read(move |db| exchange::offered(db, &id)).await.unwrap();
    let position = offered.unwrap().position;
    assert!(position.is_some());
    position
}

/// What the next request of the job with this mark is answered from.
async fn landed(provider: &Node, mark: i64) -> Option<String> {
    let (consumer, job) = (name(CONSUMER), "residents".parse().unwrap());
    let resource = format!("{PROVIDER}/residents").parse().unwrap();
    let mark = Watermark::Integer(mark);
    provider
        .context()
        .store
        .read(move |db| exchange::landed_position(db, &consumer, &job, &resource, &mark))
        .await
        .unwrap()
}
