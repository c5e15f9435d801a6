//! Front-end tables: changes that an application leaves are applied by key, each once; its flags are set under a receipt,
//! and only of rows that are as they were read; rows are purged only after that.

use super::*;
use posthouse_node::store::quarantine;
use rusqlite::Connection;
use std::path::Path;

const TABLE: &str =
    "CREATE TABLE log (n INTEGER PRIMARY KEY, id TEXT NOT NULL, name TEXT, czbs TEXT NOT NULL, pch INTEGER,
    clzt TEXT NOT NULL DEFAULT '0');";

fn offer_log(scene: &Scene, more: &str) -> String {
    format!(
        "[connection.db]\nkind = \"sqlite\"\npath = \"{}\"\n\
         [[resource]]\nid = \"log\"\nconnection = \"db\"\ntable = \"log\"\nkey = [\"id\"]\n\
         [resource.exchange]\noperation = {{ column = \"czbs\", insert = \"I\", update = \"U\", delete = \"D\" }}\n\
         batch = \"pch\"\nprocessed = {{ column = \"clzt\", from = \"0\", to = \"1\" }}\n{more}",
        scene.path("source/log.db").display()
    )
}

fn take_log(scene: &Scene, mode: &str, write: &str) -> String {
    format!(
        "[connection.db]\nkind = \"sqlite\"\npath = \"{}\"\n\
         [[job]]\nname = \"log\"\nresource = \"{PROVIDER}/log\"\ninto = {{ connection = \"db\", table = \"people\" }}\n\
         mode = \"{mode}\"\nwrite = \"{write}\"\nschedule = \"manual\"\n",
        scene.path("target/people.db").display()
    )
}

fn change(path: &Path, sql: &str) {
    Connection::open(path).unwrap().execute_batch(sql).unwrap();
}

/// The rows of a query, their values joined by blanks.
fn rows(path: &Path, sql: &str) -> Vec<String> {
    let db = Connection::open(path).unwrap();
    let mut statement = db.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

/// Flags are written back behind the receipt.
async fn until_rows(path: &Path, sql: &str, expected: &[&str]) {
    for _ in 0..600 {
        if rows(path, sql) == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(rows(path, sql), expected, "{sql}");
}

/// No file says any more what was read.
async fn until_forgotten(scene: &Scene) {
    let front = scene.path(PROVIDER).join("data/front");
    for _ in 0..100 {
        if std::fs::read_dir(&front).unwrap().next().is_none() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(std::fs::read_dir(&front).unwrap().next().is_none(), "what was read is forgotten");
}

const UNREAD: &str = "SELECT n || '' FROM log WHERE clzt = '0' ORDER BY n";
const PEOPLE: &str = "SELECT id || ' ' || coalesce(name, '-') FROM people ORDER BY id";

#[tokio::test(flavor = "multi_thread")]
async fn the_last_change_of_each_key_is_applied_and_flags_are_set_under_the_receipt() {
    let scene = Scene::new("tcp", &["log"]);
    let (source, target) = (scene.path("source/log.db"), scene.path("target/people.db"));
    change(&source, TABLE);
    change(
        &source,
        "INSERT INTO log (id, name, czbs, pch) VALUES ('a', '王', 'I', 1), ('b', '李', 'I', 1), ('a', '王二', 'U', 2),
           ('b', NULL, 'D', 2), ('c', '赵', 'I', 2), ('d', '钱', 'X', 2), ('e', '孙', 'I', 2);
         -- A later batch number goes before a later row.
         INSERT INTO log (id, name, czbs, pch) VALUES ('c', '旧', 'U', 1);",
    );
    let provider = scene.provider(&offer_log(&scene, "")).await;
    let consumer = scene.consumer(&take_log(&scene, "incremental", "upsert")).await;
    let row = run(&consumer, "log").await;
    assert_eq!(row.state, State::Settled, "{row:?}");
    assert_eq!(rows(&target, PEOPLE), ["a 王二", "c 赵", "e 孙"]);
    let counts = row.counts;
    let operations = counts.operations.unwrap();
    assert_eq!((operations.inserts, operations.updates, operations.deletes), (2, 1, 1));
    assert_eq!((counts.rows_read, counts.rows_sent, counts.rows_filtered, counts.rows_landed), (8, 4, 3, 4));
    assert_eq!(row.quarantined(), 1);
    for node in [&provider, &consumer] {
        for statement in evidence_of_both(node, &row.id).await {
            let stated = statement.manifest().map(|m| m.counts).or(statement.landing().map(|l| l.counts)).unwrap();
            assert_eq!(stated.operations, Some(operations));
        }
    }
    // The row whose word is none of the three keeps its flag.
    until_rows(&source, UNREAD, &["6"]).await;
    let columns = "SELECT name FROM pragma_table_info('people') ORDER BY cid";
    assert_eq!(rows(&target, columns), ["n", "id", "name"], "the exchange's own columns stay behind");

    // Nothing new but the odd row, which is put right now; and what was written back is not read again.
    change(&source, "UPDATE log SET czbs = 'I' WHERE n = 6; INSERT INTO log (id, czbs, pch) VALUES ('e', 'D', 3)");
    let row = run(&consumer, "log").await;
    assert_eq!((row.state, row.counts.rows_read, row.counts.rows_sent), (State::Settled, 2, 2));
    assert_eq!(rows(&target, PEOPLE), ["a 王二", "c 赵", "d 钱"]);
    until_rows(&source, UNREAD, &[]).await;
    until_forgotten(&scene).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_no_order_tells_apart_do_not_move() {
    let scene = Scene::new("tcp", &["log"]);
    let (source, target) = (scene.path("source/log.db"), scene.path("target/people.db"));
    // Its key is of two texts: it tells rows apart, and orders none.
    change(
        &source,
        "CREATE TABLE log (id TEXT NOT NULL, t TEXT NOT NULL, name TEXT, czbs TEXT, pch INTEGER, clzt TEXT DEFAULT '0',
           PRIMARY KEY (id, t));
         INSERT INTO log (id, t, name, czbs, pch) VALUES ('a', 'x', '王', 'I', 1), ('a', 'y', '李', 'U', 1),
           ('b', 'x', '赵', 'I', 1), ('b', 'y', '钱', 'U', 2);",
    );
    let provider = scene.provider(&offer_log(&scene, "")).await;
    let consumer = scene.consumer(&take_log(&scene, "incremental", "upsert")).await;
    let row = run(&consumer, "log").await;
    assert_eq!((row.state, row.quarantined()), (State::Settled, 2), "{row:?}");
    assert_eq!(rows(&target, PEOPLE), ["b 钱"]);
    until_rows(&source, "SELECT id || t FROM log WHERE clzt = '0' ORDER BY 1", &["ax", "ay"]).await;
    drop(provider);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_row_goes_before_an_older_one_of_its_key_that_cannot_be_read() {
    let scene = Scene::new("tcp", &["log"]);
    let (source, target) = (scene.path("source/log.db"), scene.path("target/people.db"));
    change(&source, TABLE);
    // Bytes in a column of texts cannot be read.
    change(
        &source,
        "INSERT INTO log (id, name, czbs, pch) VALUES ('a', '王', 'I', 1), ('a', x'ff', 'U', 2), ('a', '王三', 'U', 3),
           ('b', '李', 'I', 3)",
    );
    let provider = scene.provider(&offer_log(&scene, "")).await;
    let consumer = scene.consumer(&take_log(&scene, "incremental", "upsert")).await;
    let mut last = None;
    for landed in [1, 0] {
        let row = run(&consumer, "log").await;
        assert_eq!((row.state, row.quarantined(), row.counts.rows_landed), (State::Settled, 3, landed), "{row:?}");
        assert_eq!(rows(&target, PEOPLE), ["b 李"]);
        until_rows(&source, UNREAD, &["1", "2", "3"]).await;
        last = Some(row.id);
    }
    // They were told of twice, and are kept once.
    let last = last.unwrap();
    let store = &provider.context().store;
    assert_eq!(store.read(|db| quarantine::transfers(db, None, 10)).await.unwrap(), [(last.clone(), 3)]);
    let kept = store.read(move |db| quarantine::of_transfer(db, &last, 0, 10)).await.unwrap();
    let behind = kept.iter().filter(|row| row.reason.contains("another unread row")).count();
    assert!(behind == 2 && kept.iter().any(|row| row.original.contains("\"hex\":\"ff\"")), "{kept:?}");

    // One that is another row now is told beside what it was.
    change(&source, "UPDATE log SET name = x'fe' WHERE n = 2");
    assert_eq!(run(&consumer, "log").await.quarantined(), 3);
    let listed = store.read(|db| quarantine::transfers(db, None, 10)).await.unwrap();
    assert_eq!(listed.iter().map(|(_, rows)| *rows).collect::<Vec<_>>(), [3, 1]);

    change(&source, "UPDATE log SET name = '王二' WHERE n = 2");
    let row = run(&consumer, "log").await;
    assert_eq!((row.state, row.quarantined()), (State::Settled, 0), "{row:?}");
    assert_eq!(rows(&target, PEOPLE), ["a 王三", "b 李"]);
    until_rows(&source, UNREAD, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_purged_once_they_were_kept_and_no_others() {
    let scene = Scene::new("tcp", &["log"]);
    let source = scene.path("source/log.db");
    change(&source, TABLE);
    // One bears the flag by somebody else's hand: no receipt says that it was taken.
    change(
        &source,
        "INSERT INTO log (id, name, czbs, pch) VALUES ('a', '王', 'I', 1), ('b', '李', 'I', 1);
         INSERT INTO log (id, name, czbs, pch, clzt) VALUES ('z', '?', 'I', 1, '1')",
    );
    let provider = scene.provider(&offer_log(&scene, "keep = \"1s\"\n")).await;
    let consumer = scene.consumer(&take_log(&scene, "incremental", "upsert")).await;
    assert_eq!(run(&consumer, "log").await.state, State::Settled);
    until_rows(&source, UNREAD, &[]).await;
    // What is changed after it was written back is not what was receipted.
    change(&source, "UPDATE log SET name = '李四' WHERE id = 'b'");
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    // The next receipt makes the provider look after its tables.
    assert_eq!(run(&consumer, "log").await.state, State::Settled);
    until_rows(&source, "SELECT id FROM log ORDER BY id", &["b", "z"]).await;
    // The second run found nothing, the first one's rows are purged: neither leaves a file.
    until_forgotten(&scene).await;
    drop(provider);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_is_forgotten_where_nothing_is_purged_any_more() {
    let scene = Scene::new("tcp", &["log"]);
    let source = scene.path("source/log.db");
    change(&source, TABLE);
    change(&source, "INSERT INTO log (id, name, czbs, pch) VALUES ('a', '王', 'I', 1)");
    let provider = scene.provider(&offer_log(&scene, "keep = \"1h\"\n")).await;
    let consumer = scene.consumer(&take_log(&scene, "incremental", "upsert")).await;
    let front = scene.path(PROVIDER).join("data/front");
    let files = || {
        let names = std::fs::read_dir(&front).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    for id in ["b", "c"] {
        assert_eq!(run(&consumer, "log").await.state, State::Settled);
        until_rows(&source, UNREAD, &[]).await;
        change(&source, &format!("INSERT INTO log (id, czbs, pch) VALUES ('{id}', 'I', 2)"));
    }
    for _ in 0..100 {
        if files() == ["log.kept"] {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(files(), ["log.kept"], "one file for all of its runs");
    provider.stop().await;
    let provider = scene.provider(&offer_log(&scene, "")).await;
    until_forgotten(&scene).await;
    assert_eq!(rows(&source, "SELECT id FROM log ORDER BY id"), ["a", "b", "c"]);
    drop(provider);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_changes_before_its_flag_is_written_back_is_taken_again() {
    let scene = Scene::new("tcp", &["log"]);
    let (source, target) = (scene.path("source/log.db"), scene.path("target/people.db"));
    change(&source, TABLE);
    change(&source, "INSERT INTO log (id, name, czbs, pch) VALUES ('a', '王', 'I', 1), ('b', '李', 'I', 1)");
    let provider = scene.provider(&offer_log(&scene, "")).await;
    let consumer = scene.consumer(&take_log(&scene, "incremental", "upsert")).await;
    // What is written and not committed is read as it was before; and as long as somebody writes, no flag can be set. The
    // receipt does not wait for it.
    let writer = Connection::open(&source).unwrap();
    writer.execute_batch("BEGIN IMMEDIATE; UPDATE log SET name = '王二' WHERE id = 'a'").unwrap();
    assert_eq!(run(&consumer, "log").await.state, State::Settled);
    writer.execute_batch("COMMIT").unwrap();
    until_rows(&source, UNREAD, &["1"]).await;
    assert_eq!(rows(&target, PEOPLE), ["a 王", "b 李"]);
    let row = run(&consumer, "log").await;
    assert_eq!((row.state, row.counts.rows_sent), (State::Settled, 1));
    assert_eq!(rows(&target, PEOPLE), ["a 王二", "b 李"]);
    drop(provider);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_noted_of_unread_rows_is_bounded_as_the_spool_is() {
    let mut scene = Scene::new("tcp", &["log"]);
    scene.provider_more = "spool_max = \"64 KiB\"";
    let source = scene.path("source/log.db");
    change(&source, TABLE);
    change(
        &source,
        "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 5000)
         INSERT INTO log (id, name, czbs, pch) SELECT 'k' || n, '王', 'I', 1 FROM numbers",
    );
    let provider = scene.provider(&offer_log(&scene, "")).await;
    let consumer = scene.consumer(&take_log(&scene, "incremental", "upsert")).await;
    let row = run(&consumer, "log").await;
    let problem = row.problem.unwrap();
    assert_eq!((row.state, problem.code), (State::Failed, Code::FrontTableUnfit), "{problem}");
    assert!(problem.to_string().contains("`spool_max`"), "{problem}");
    assert_eq!(rows(&source, "SELECT DISTINCT clzt FROM log"), ["0"]);
    until_forgotten(&scene).await;
    drop(provider);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_a_front_end_table_is_refused_by_name() {
    for (table, mode, write, why) in [
        (TABLE, "full", "upsert", "mode = \"incremental\""),
        (TABLE, "incremental", "append", "write = \"upsert\""),
        ("CREATE TABLE log (id TEXT, czbs TEXT, pch INTEGER, clzt TEXT);", "incremental", "upsert", "no primary key"),
        (
            "CREATE TABLE log (n INTEGER PRIMARY KEY, id TEXT, czbs TEXT, pch INTEGER);",
            "incremental",
            "upsert",
            "`clzt`",
        ),
    ] {
        let scene = Scene::new("tcp", &["log"]);
        change(&scene.path("source/log.db"), table);
        let provider = scene.provider(&offer_log(&scene, "")).await;
        let consumer = scene.consumer(&take_log(&scene, mode, write)).await;
        let row = run(&consumer, "log").await;
        let problem = row.problem.unwrap();
        assert_eq!((row.state, problem.code), (State::Failed, Code::FrontTableUnfit), "{problem}");
        assert!(problem.to_string().contains(why), "{problem}");
        provider.stop().await;
        consumer.stop().await;
    }
}
