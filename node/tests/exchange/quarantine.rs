//! Rows that were refused: kept with what they were, and landed once what refused them is gone.

use super::*;
use posthouse_node::jobs::{self, Ran};
use posthouse_node::store::quarantine::{self, ON_PUBLISHING};

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_row_is_kept_and_lands_once_what_refused_it_is_gone() {
    let scene = Scene::new("quic", &["residents"]);
    table(&scene.path("source/residents.db"), 10);
    table(&scene.path("target/residents.db"), 0);
    let target = rusqlite::Connection::open(scene.path("target/residents.db")).unwrap();
    target
        .execute_batch(
            "CREATE TRIGGER strict BEFORE INSERT ON residents WHEN new.id = 7
             BEGIN SELECT RAISE(ABORT, 'seven is not taken'); END",
        )
        .unwrap();
    let _provider = scene.provider(&offer_table(&scene)).await;
    let consumer = scene.consumer(&take_table(&scene, "incremental", "upsert")).await;
    let first = run(&consumer, "residents").await;
    assert_eq!((first.state, first.counts.rows_landed, first.counts.rows_quarantined), (State::Settled, 9, 1));

    let store = &consumer.context().store;
    let (id, listed) = (first.id.clone(), store.read(|db| quarantine::transfers(db, None, 10)).await.unwrap());
    assert_eq!(listed, [(first.id.clone(), 1)]);
    let kept = store.read(move |db| quarantine::of_transfer(db, &id, 0, 10)).await.unwrap();
    assert_eq!((kept.len(), kept[0].key.as_str(), kept[0].split.as_str()), (1, "7", ON_PUBLISHING));
    assert!(kept[0].reason.contains("seven is not taken"), "{kept:?}");
    assert!(kept[0].original.contains("居民𠮷7"), "{kept:?}");

    // A run as ever begins behind it; one from the transfer's own beginning finds it still refused, then lands it.
    assert_eq!(run(&consumer, "residents").await.counts.rows_quarantined, 0);
    let job = consumer.context().config().jobs.get(&"residents".parse::<JobId>().unwrap()).unwrap().clone();
    for refused in [1, 0] {
        let (mut again, attached) =
            jobs::start_from(consumer.context(), &job, first.watermark_from.clone()).await.unwrap();
        assert!(!attached);
        let Ran::Transferred(transfer::Outcome::Final(row)) = again.ended().await.unwrap() else { panic!("it ends") };
        assert_eq!((row.state, row.counts.rows_quarantined), (State::Settled, refused), "{row:?}");
        assert_eq!(rows(&scene.path("target/residents.db")).len(), 10 - refused as usize);
        target.execute_batch("DROP TRIGGER IF EXISTS strict").unwrap();
    }
    assert_eq!(run(&consumer, "residents").await.counts.rows_sent, 1, "the last mark, and no more");
}
