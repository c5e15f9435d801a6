//! Whole transfers between two nodes in one process, over real lines, disks and signatures.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's helpers end it where they fail")]

#[path = "exchange/changed.rs"]
mod changed;
#[path = "exchange/fronts.rs"]
mod fronts;
#[path = "exchange/governed.rs"]
mod governed;
#[path = "exchange/held_up.rs"]
mod held_up;
#[path = "exchange/late.rs"]
mod late;
#[path = "exchange/lines.rs"]
mod lines;
#[path = "exchange/listing.rs"]
mod listing;
#[path = "exchange/long.rs"]
mod long;
#[path = "exchange/names.rs"]
mod names;
#[path = "exchange/planning.rs"]
mod planning;
#[path = "exchange/quarantine.rs"]
mod quarantine;
mod support;
#[path = "exchange/switching.rs"]
mod switching;
#[path = "exchange/taken.rs"]
mod taken;
#[path = "exchange/watching.rs"]
mod watching;
#[path = "exchange/window.rs"]
mod window;

use posthouse_node::daemon::Node;
use posthouse_node::store::exchange::successor;
use posthouse_node::transfer;
use posthouse_node::{config::Config, reconcile};
use posthouse_platform::World;
use posthouse_platform::disk::{Fault, FaultyDisk};
use posthouse_protocol::id::{JobId, TransferId};
use posthouse_protocol::job::State;
use posthouse_protocol::limits;
use posthouse_protocol::problem::Code;
use posthouse_protocol::reconciliation::Party;
use posthouse_protocol::statement::{Body, Outcome};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::*;
use tokio::time::Instant;

fn offer_folder(scene: &Scene) -> String {
    format!("[[resource]]\nid = \"scans\"\nfolder = \"{}\"\nlinks = \"keep\"\n", scene.path("source").display())
}

fn take_folder(scene: &Scene, more: &str) -> String {
    format!(
        "[[job]]\nname = \"scans\"\nresource = \"{PROVIDER}/scans\"\ninto = {{ folder = \"{}\" }}\nschedule = \"manual\"\n{more}",
        scene.path("target").display()
    )
}

/// A provider that pushes its folder by the job `daily`.
fn push_folder(scene: &Scene, schedule: &str) -> String {
    let offered = offer_folder(scene);
    format!("{offered}[[job]]\nname = \"daily\"\npush = \"scans\"\nto = \"{CONSUMER}\"\nschedule = \"{schedule}\"\n")
}

fn accept_folder(scene: &Scene) -> String {
    format!(
        "[[job]]\nname = \"inbox\"\naccept = \"{PROVIDER}/daily\"\ninto = {{ folder = \"{}\" }}\n",
        scene.path("target").display()
    )
}

fn fill(scene: &Scene) {
    let source = scene.path("source");
    for folder in ["a", "a/b", "空目录"] {
        std::fs::create_dir(source.join(folder)).unwrap();
    }
    std::fs::write(source.join("empty"), b"").unwrap();
    std::fs::write(source.join("a/small.txt"), "人口".repeat(100)).unwrap();
    std::fs::write(source.join("a/b/large"), noise(1, 9_500_000)).unwrap();
    std::fs::write(source.join("text.csv"), "姓名,编号\n".repeat(300_000)).unwrap();
    std::os::unix::fs::symlink("../../etc/passwd", source.join("a/link")).unwrap();
    std::fs::set_permissions(source.join("a/small.txt"), std::fs::Permissions::from_mode(0o600)).unwrap();
    for number in 0..300 {
        std::fs::write(source.join(format!("a/b/{number}.bin")), noise(number, 3_000)).unwrap();
    }
}

async fn a_folder_arrives_with_one_receipt(transport: &'static str) {
    let scene = Scene::new(transport, &["scans"]);
    fill(&scene);
    let provider = scene.provider(&offer_folder(&scene)).await;
    let consumer = scene.consumer(&take_folder(&scene, "")).await;
    let row = run(&consumer, "scans").await;
    assert_eq!(row.state, State::Settled, "{row:?}");
    assert_eq!(tree(&scene.path("target")), tree(&scene.path("source")));
    assert_eq!(row.counts.files, 304);
    assert_eq!(row.counts.links, 1);
    assert!(row.receipt.is_some());
    let (ours, theirs) = (evidence(&consumer, &row.id).await, evidence(&provider, &row.id).await);
    assert_eq!((ours.len(), theirs.len()), (2, 2), "both hold both statements");
    let landing = ours.iter().find_map(|s| s.landing()).unwrap();
    let manifest = ours.iter().find_map(|s| s.manifest()).unwrap();
    assert_eq!(landing.outcome, Outcome::Landed);
    assert_eq!(landing.content_root, manifest.content_root);
    assert!(ours.iter().all(|s| theirs.iter().any(|t| t.bytes() == s.bytes())));

    // Nothing has changed: nothing is sent, and there is a receipt all the same.
    let again = run(&consumer, "scans").await;
    assert_eq!(again.state, State::Settled, "{again:?}");
    assert_eq!((again.bytes_sent, again.chunks, again.files_sent), (0, 0, 0));
    assert_eq!(again.counts.files, 304);

    // A repeated id gives the stored outcome.
    let repeated = finish(&consumer, row.id.clone()).await.unwrap();
    assert_eq!(repeated, row);
    assert_eq!(evidence(&consumer, &row.id).await, ours);
    provider.stop().await;
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_arrives_with_one_receipt_over_quic() {
    a_folder_arrives_with_one_receipt("quic").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_arrives_with_one_receipt_over_tcp() {
    a_folder_arrives_with_one_receipt("tcp").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_withdrawn_stops_an_open_transfer_within_five_seconds() {
    let mut scene = Scene::new("quic", &["scans"]);
    scene.provider_more = "bandwidth = \"2 MiB\"";
    std::fs::write(scene.path("source/large"), noise(1, 40 << 20)).unwrap();
    let provider = scene.provider(&offer_folder(&scene)).await;
    let consumer = scene.consumer(&take_folder(&scene, "")).await;
    let id = plan(&consumer, "scans").await;
    let ctx = consumer.context().clone();
    let running = tokio::spawn(transfer::run_consumer(ctx, id.clone()));
    until_live(&consumer, &id, "moving", |live| live.row.chunks > 0).await;
    let began = Instant::now();
    scene.withdraw(&provider);
    let taken = until(&consumer, &id, "refused", |row| row.state == State::Refused).await;
    let given = until(&provider, &id, "refused", |row| row.state == State::Refused).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    for row in [taken, given] {
        assert_eq!(row.problem.unwrap().code, Code::GrantWithdrawn);
    }
    running.await.unwrap().unwrap();
    assert!(!scene.path("target/large").exists());
    let left = tree(&scene.path("target"));
    assert!(left.is_empty(), "its temporary file is gone too: {left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_pauses_and_goes_on_when_there_is_room() {
    let scene = Scene::new("quic", &["scans"]);
    std::fs::write(scene.path("source/large"), noise(1, 12 << 20)).unwrap();
    let _provider = scene.provider(&offer_folder(&scene)).await;
    let disk = Arc::new(FaultyDisk::new());
    disk.set(scene.path("target"), Fault::Room(3 << 20));
    let world = World { disk: disk.clone(), ..World::real() };
    let consumer = scene.consumer_in(world, &take_folder(&scene, "")).await;
    let id = plan(&consumer, "scans").await;
    let running = tokio::spawn(transfer::run_consumer(consumer.context().clone(), id.clone()));
    let paused = until(&consumer, &id, "paused", |row| row.state == State::Paused).await;
    assert_eq!(paused.problem.unwrap().code, Code::DiskFull);
    disk.clear(&scene.path("target"));
    let row = until(&consumer, &id, "settled", |row| row.state == State::Settled).await;
    assert!(row.resent_chunks <= 48, "{row:?}");
    running.await.unwrap().unwrap();
    assert_eq!(tree(&scene.path("target")), tree(&scene.path("source")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_keeps_changing_is_left_out_by_name_and_the_rest_lands() {
    let scene = Scene::new("quic", &["scans"]);
    let restless = scene.path("source/restless");
    std::fs::write(scene.path("source/calm"), noise(1, 100_000)).unwrap();
    std::fs::write(&restless, noise(2, 5 << 20)).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, path) = (stop.clone(), restless.clone());
    let writer = std::thread::spawn(move || {
        use std::io::Write;
        while !stopped.load(Ordering::Relaxed) {
            std::fs::File::options().append(true).open(&path).unwrap().write_all(b"more").unwrap();
        }
    });
    let provider = scene.provider(&offer_folder(&scene)).await;
    let consumer = scene.consumer(&take_folder(&scene, "")).await;
    let row = run(&consumer, "scans").await;
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    assert_eq!(row.state, State::Settled, "{row:?}");
    assert_eq!((row.counts.files, row.counts.refused), (1, 1));
    let held = evidence(&consumer, &row.id).await;
    let landing = held.iter().find_map(|s| s.landing()).unwrap();
    let manifest = held.iter().find_map(|s| s.manifest()).unwrap();
    assert_eq!(landing.outcome, Outcome::Partly);
    assert_eq!(landing.left_out, manifest.left_out);
    assert_eq!((landing.left_out[0].name.as_slice(), landing.left_out[0].code), (b"restless".as_slice(), 2010));
    assert!(scene.path("target/calm").exists() && !scene.path("target/restless").exists());
    drop(provider);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_stops_midway_is_resumed_without_sending_finished_chunks_again() {
    for transport in ["quic", "tcp"] {
        let mut scene = Scene::new(transport, &["scans"]);
        scene.provider_more = "bandwidth = \"6 MiB\"";
        std::fs::write(scene.path("source/large"), noise(1, 20 << 20)).unwrap();
        let provider = scene.provider(&offer_folder(&scene)).await;
        let consumer = scene.consumer(&take_folder(&scene, "")).await;
        let id = plan(&consumer, "scans").await;
        let running = tokio::spawn(transfer::run_consumer(consumer.context().clone(), id.clone()));
        until_live(&consumer, &id, "moving", |live| live.row.chunks >= 6).await;
        provider.stop().await;
        let provider = scene.provider(&offer_folder(&scene)).await;
        let row = until(&consumer, &id, "settled", |row| row.state == State::Settled).await;
        running.await.unwrap().unwrap();
        assert_eq!(tree(&scene.path("target")), tree(&scene.path("source")));
        assert!(row.resent_chunks <= 2, "{row:?}");
        assert!(row.chunks <= 22, "{row:?}");
        drop(provider);
    }
}

// ---- tables

fn table(path: &std::path::Path, rows: i64) {
    let mut db = rusqlite::Connection::open(path).unwrap();
    db.execute_batch("CREATE TABLE residents (id INTEGER PRIMARY KEY, name TEXT NOT NULL, changed INTEGER NOT NULL)")
        .unwrap();
    let tx = db.transaction().unwrap();
    for id in 0..rows {
        let name = format!("居民𠮷{id}");
        tx.execute("INSERT INTO residents VALUES (?1, ?2, ?1)", rusqlite::params![id, name]).unwrap();
    }
    tx.commit().unwrap();
}

fn rows(path: &std::path::Path) -> Vec<(i64, String, i64)> {
    let db = rusqlite::Connection::open(path).unwrap();
    let mut statement = db.prepare("SELECT id, name, changed FROM residents ORDER BY id").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

fn offer_table(scene: &Scene) -> String {
    format!(
        "[connection.db]\nkind = \"sqlite\"\npath = \"{}\"\n\
         [[resource]]\nid = \"residents\"\nconnection = \"db\"\ntable = \"residents\"\nkey = [\"id\"]\nwatermark = \"changed\"\n",
        scene.path("source/residents.db").display()
    )
}

fn take_table(scene: &Scene, mode: &str, write: &str) -> String {
    format!(
        "[connection.db]\nkind = \"sqlite\"\npath = \"{}\"\n\
         [[job]]\nname = \"residents\"\nresource = \"{PROVIDER}/residents\"\n\
         into = {{ connection = \"db\", table = \"residents\" }}\nmode = \"{mode}\"\nwrite = \"{write}\"\nschedule = \"manual\"\n",
        scene.path("target/residents.db").display()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_lands_whole_over_both_lines_and_a_bad_row_is_quarantined() {
    for transport in ["quic", "tcp"] {
        let scene = Scene::new(transport, &["residents"]);
        let source = scene.path("source/residents.db");
        table(&source, 150_000);
        let db = rusqlite::Connection::open(&source).unwrap();
        db.execute("UPDATE residents SET name = CAST(x'ff00ff' AS TEXT) WHERE id = 77", []).unwrap();
        drop(db);
        let provider = scene.provider(&offer_table(&scene)).await;
        let consumer = scene.consumer(&take_table(&scene, "full", "replace")).await;
        let row = run(&consumer, "residents").await;
        assert_eq!(row.state, State::Settled, "{row:?}");
        let held = evidence(&consumer, &row.id).await;
        let landing = held.iter().find_map(|s| s.landing()).unwrap();
        let manifest = held.iter().find_map(|s| s.manifest()).unwrap();
        assert_eq!(
            (manifest.counts.rows_read, manifest.counts.rows_sent, manifest.counts.rows_quarantined),
            (150_000, 149_999, 1)
        );
        assert_eq!(landing.counts.rows_landed, 149_999);
        assert_eq!(landing.digest_commitment, manifest.digest_commitment);
        let landed = rows(&scene.path("target/residents.db"));
        assert_eq!(landed.len(), 149_999);
        assert!(landed.iter().all(|(id, name, _)| *name == format!("居民𠮷{id}")));
        provider.stop().await;
        consumer.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn increments_follow_the_watermark_and_deep_reconciliation_names_a_changed_cell_and_its_party() {
    let scene = Scene::new("quic", &["residents"]);
    let source = scene.path("source/residents.db");
    table(&source, 5_000);
    let provider = scene.provider(&offer_table(&scene)).await;
    let consumer = scene.consumer(&take_table(&scene, "incremental", "upsert")).await;
    assert_eq!(run(&consumer, "residents").await.state, State::Settled);
    let db = rusqlite::Connection::open(&source).unwrap();
    db.execute("UPDATE residents SET name = '改名', changed = 9000 WHERE id = 3", []).unwrap();
    db.execute("INSERT INTO residents VALUES (6000, '新', 9001)", []).unwrap();
    let second = run(&consumer, "residents").await;
    assert_eq!(second.state, State::Settled, "{second:?}");
    assert!(second.counts.rows_sent < 5_000, "{second:?}");
    let target = scene.path("target/residents.db");
    assert_eq!(rows(&target), rows(&source));

    let job = "residents".parse().unwrap();
    let equal = reconcile::deep(consumer.context(), &job).await.unwrap();
    assert_eq!((equal.findings.len(), equal.differing, equal.consumer_rows), (0, 0, 5_001));
    let copy = rusqlite::Connection::open(&target).unwrap();
    copy.execute("UPDATE residents SET name = '篡改' WHERE id = 42", []).unwrap();
    let deep = reconcile::deep(consumer.context(), &job).await.unwrap();
    assert_eq!(deep.findings.len(), 1, "{deep:?}");
    assert_eq!(
        (deep.findings[0].keys.as_slice(), deep.findings[0].party),
        (["42".to_owned()].as_slice(), Party::Consumer)
    );
    drop(provider);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_dated_years_ahead_hides_no_row_that_comes_after_it() {
    let scene = Scene::new("quic", &["residents"]);
    let (source, target) = (scene.path("source/residents.db"), scene.path("target/residents.db"));
    let db = rusqlite::Connection::open(&source).unwrap();
    db.execute_batch(
        "CREATE TABLE residents (id INTEGER PRIMARY KEY, name TEXT NOT NULL, changed TIMESTAMP NOT NULL);
         INSERT INTO residents VALUES (1, 'before', datetime('now')), (2, 'ahead', '2999-01-01 00:00:00')",
    )
    .unwrap();
    let provider = scene.provider(&offer_table(&scene)).await;
    let consumer = scene.consumer(&take_table(&scene, "incremental", "upsert")).await;
    assert_eq!(run(&consumer, "residents").await.state, State::Settled);
    for (id, name) in [(3, "after"), (4, "later")] {
        db.execute("INSERT INTO residents VALUES (?1, ?2, datetime('now'))", rusqlite::params![id, name]).unwrap();
        assert_eq!(run(&consumer, "residents").await.state, State::Settled);
    }
    db.execute("UPDATE residents SET name = 'ahead still' WHERE id = 2", []).unwrap();
    assert_eq!(run(&consumer, "residents").await.state, State::Settled);
    let names = |path: &std::path::Path| -> Vec<String> {
        let db = rusqlite::Connection::open(path).unwrap();
        let mut statement = db.prepare("SELECT name FROM residents ORDER BY id").unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    };
    assert_eq!(names(&target), ["before", "ahead still", "after", "later"]);
    let deep = reconcile::deep(consumer.context(), &"residents".parse().unwrap()).await.unwrap();
    assert_eq!((deep.findings.len(), deep.differing), (0, 0), "{deep:?}");
    drop(provider);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_lost_ends_in_one_signed_failure_and_its_successor_adopts_the_splits() {
    let scene = Scene::new("quic", &["residents"]);
    let source = scene.path("source/residents.db");
    table(&source, 1_000_000);
    let provider = scene.provider(&offer_table(&scene)).await;
    let consumer = scene.consumer(&take_table(&scene, "full", "replace")).await;
    let id = plan(&consumer, "residents").await;
    let running = tokio::spawn(transfer::run_consumer(consumer.context().clone(), id.clone()));
    until_live(&consumer, &id, "moving", |live| live.row.chunks >= 1).await;
    // Stopped while it still seals: the snapshot goes with the process.
    provider.stop().await;
    let provider = scene.provider(&offer_table(&scene)).await;
    let transfer::Outcome::Final(row) = running.await.unwrap().unwrap() else { panic!("it was stopped") };
    assert_eq!(row.state, State::Settled, "{row:?}");
    assert_eq!(row.succeeds.as_ref(), Some(&id));
    for node in [&provider, &consumer] {
        let held = evidence_of_both(node, &id).await;
        assert!(held.iter().all(|s| matches!(s.body(), Body::Failure(_, ending) if ending.code == 2004)));
    }
    assert_eq!(rows(&scene.path("target/residents.db")), rows(&source));
}

// ---- pushing

#[tokio::test(flavor = "multi_thread")]
async fn a_pushed_folder_lands_where_the_taker_chose_and_an_unaccepted_push_is_refused() {
    let scene = Scene::new("quic", &["scans"]);
    fill(&scene);
    let push = format!(
        "{}[[job]]\nname = \"stray\"\npush = \"scans\"\nto = \"{CONSUMER}\"\nschedule = \"manual\"\n",
        push_folder(&scene, "manual")
    );
    let provider = scene.provider(&push).await;
    let consumer = scene.consumer(&accept_folder(&scene)).await;
    let config = provider.context().config();
    let outcome =
        transfer::push(provider.context().clone(), &config.jobs[&"daily".parse::<JobId>().unwrap()]).await.unwrap();
    let transfer::Outcome::Final(row) = outcome else { panic!("it was stopped") };
    assert_eq!(row.state, State::Settled, "{row:?}");
    assert_eq!(tree(&scene.path("target")), tree(&scene.path("source")));
    let refused =
        transfer::push(provider.context().clone(), &config.jobs[&"stray".parse::<JobId>().unwrap()]).await.unwrap_err();
    assert_eq!(refused.code, Code::NotAccepted);
    drop(consumer);
}

// ---- kills

/// Not a test of its own: a consumer in a process that the tests below end at a named point.
#[test]
#[ignore = "started by other tests as a process of its own"]
fn consumer_process() {
    let Ok(file) = std::env::var("POSTHOUSE_TEST_NODE") else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let config = Config::load(std::path::Path::new(&file)).unwrap();
        let node = started(World::real(), config).await;
        let id = plan(&node, &std::env::var("POSTHOUSE_TEST_JOB").unwrap()).await;
        println!("transfer {id}");
        finish(&node, id).await.unwrap();
    });
}

/// Runs a job in a process that aborts at `point`.
async fn kill_at(point: &str, scene: &Scene, job: &str, rest: &str) -> TransferId {
    let file = scene.consumer_file(rest).await;
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "consumer_process", "--ignored", "--nocapture"]);
    command.env("POSTHOUSE_TEST_NODE", file).env("POSTHOUSE_TEST_JOB", job).env("POSTHOUSE_CRASH", point);
    let child = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let (out, err) = (String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert!(!child.status.success() && err.contains("crash point"), "{point}: {out}\n{err}");
    let id = out.lines().find_map(|line| line.split("transfer ").nth(1)).unwrap().trim();
    TransferId::parse(id).unwrap()
}

/// Runs a job in a process that aborts at `point`, then goes on with it here; gives the row when it has settled.
async fn killed_at(point: &str, scene: &Scene, job: &str, rest: &str) -> (Node, posthouse_node::store::Transfer) {
    let id = kill_at(point, scene, job, rest).await;
    let consumer = scene.consumer(rest).await;
    let row = until(&consumer, &id, "settled", |row| row.state.is_final()).await;
    assert_eq!(row.state, State::Settled, "{point}: {row:?}");
    (consumer, row)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_killed_at_any_durable_step_lands_once_with_one_receipt() {
    for point in ["synced", "recorded", "recorded:2", "staged", "committed", "stated"] {
        let scene = Scene::new("quic", &["scans"]);
        fill(&scene);
        let provider = scene.provider(&offer_folder(&scene)).await;
        let (consumer, row) = killed_at(point, &scene, "scans", &take_folder(&scene, "")).await;
        assert_eq!(tree(&scene.path("target")), tree(&scene.path("source")), "{point}");
        assert_eq!(evidence(&consumer, &row.id).await.len(), 2, "{point}");
        assert_eq!(evidence(&provider, &row.id).await.len(), 2, "{point}");
        assert!(row.resent_chunks <= 48, "{point}: {row:?}");
        consumer.stop().await;
        provider.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_killed_at_any_durable_step_lands_once_with_one_receipt() {
    for point in
        ["split staged", "split recorded", "split staged:2", "split recorded:2", "staged", "committed", "stated"]
    {
        let scene = Scene::new("quic", &["residents"]);
        let source = scene.path("source/residents.db");
        table(&source, 140_000);
        let provider = scene.provider(&offer_table(&scene)).await;
        let (consumer, row) = killed_at(point, &scene, "residents", &take_table(&scene, "full", "append")).await;
        assert_eq!(rows(&scene.path("target/residents.db")), rows(&source), "{point}");
        assert_eq!(row.counts.rows_landed, 140_000, "{point}");
        assert_eq!(evidence(&provider, &row.id).await.len(), 2, "{point}");
        consumer.stop().await;
        provider.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_landed_is_neither_paused_nor_cancelled_while_its_provider_is_away() {
    let scene = Scene::new("quic", &["scans"]);
    std::fs::write(scene.path("source/file"), noise(1, 100_000)).unwrap();
    let provider = scene.provider(&offer_folder(&scene)).await;
    let id = kill_at("stated", &scene, "scans", &take_folder(&scene, "")).await;
    provider.stop().await;
    let consumer = scene.consumer(&take_folder(&scene, "")).await;
    until_live(&consumer, &id, "tried again", |live| live.row.problem.is_some()).await;
    let transfers = &consumer.context().transfers;
    assert!(transfers.pause(&id));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(until(&consumer, &id, "open", |_| true).await.state, State::Committed);
    assert!(transfers.cancel(&id));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(until(&consumer, &id, "open", |_| true).await.state, State::Committed);
    let provider = scene.provider(&offer_folder(&scene)).await;
    let row = until(&consumer, &id, "settled", |row| row.state.is_final()).await;
    assert_eq!(row.state, State::Settled, "{row:?}");
    assert_eq!((evidence(&consumer, &id).await.len(), evidence(&provider, &id).await.len()), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_were_published_are_stated_though_their_table_takes_no_more() {
    let scene = Scene::new("quic", &["residents"]);
    table(&scene.path("source/residents.db"), 1_000);
    let provider = scene.provider(&offer_table(&scene)).await;
    let job = take_table(&scene, "full", "append");
    let id = kill_at("committed", &scene, "residents", &job).await;
    let target = rusqlite::Connection::open(scene.path("target/residents.db")).unwrap();
    target.execute_batch("ALTER TABLE residents RENAME COLUMN name TO called").unwrap();
    let consumer = scene.consumer(&job).await;
    let row = until(&consumer, &id, "settled", |row| row.state.is_final()).await;
    assert_eq!(row.state, State::Settled, "{row:?}");
    assert_eq!(row.counts.rows_landed, 1_000);
    let standing: i64 = target.query_row("SELECT count(*) FROM residents", [], |row| row.get(0)).unwrap();
    assert_eq!(standing, 1_000);
    drop(provider);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_staged_table_that_takes_no_rows_ends_in_one_signed_failure() {
    let scene = Scene::new("quic", &["residents"]);
    table(&scene.path("source/residents.db"), 1_000);
    let provider = scene.provider(&offer_table(&scene)).await;
    let job = take_table(&scene, "full", "append");
    let id = kill_at("staged", &scene, "residents", &job).await;
    let target = rusqlite::Connection::open(scene.path("target/residents.db")).unwrap();
    target.execute_batch("ALTER TABLE residents RENAME COLUMN name TO called").unwrap();
    let consumer = scene.consumer(&job).await;
    let row = until(&consumer, &id, "failed", |row| row.state.is_final()).await;
    assert_eq!(row.state, State::Failed, "{row:?}");
    let held = evidence_of_both(&consumer, &id).await;
    assert!(held.iter().any(|s| matches!(s.body(), Body::Failure(..))) && held.iter().all(|s| s.landing().is_none()));
    let standing: i64 = target.query_row("SELECT count(*) FROM residents", [], |row| row.get(0)).unwrap();
    assert_eq!(standing, 0);
    drop(provider);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_was_restored_since_rows_were_staged_leads_to_no_receipt_for_them() {
    let scene = Scene::new("quic", &["residents"]);
    let source = scene.path("source/residents.db");
    table(&source, 1_000);
    let _provider = scene.provider(&offer_table(&scene)).await;
    let job = take_table(&scene, "full", "append");
    let id = kill_at("staged", &scene, "residents", &job).await;
    let target = rusqlite::Connection::open(scene.path("target/residents.db")).unwrap();
    assert!(target.execute("DELETE FROM posthouse_applied WHERE published IS NULL", []).unwrap() > 0);
    let consumer = scene.consumer(&job).await;
    let row = until(&consumer, &id, "failed", |row| row.state.is_final()).await;
    let problem = row.problem.unwrap();
    assert_eq!((row.state, problem.code), (State::Failed, Code::Mismatch));
    assert!(problem.cause.contains("1000 rows were staged there, and it has 0"), "{problem}");
    assert!(evidence_of_both(&consumer, &id).await.iter().all(|statement| statement.landing().is_none()));
    // Its successor begins anew, by itself.
    let next = loop {
        let failed = id.clone();
        match consumer.context().store.read(move |db| successor(db, &failed)).await.unwrap() {
            Some(next) => break next,
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    let row = until(&consumer, &next, "settled", |row| row.state.is_final()).await;
    assert_eq!(row.state, State::Settled, "{row:?}");
    assert_eq!(rows(&scene.path("target/residents.db")), rows(&source));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_fails_ends_the_transfer_and_leaves_nothing_hanging() {
    let scene = Scene::new("quic", &["scans"]);
    std::fs::write(scene.path("source/large"), noise(1, 20 << 20)).unwrap();
    let _provider = scene.provider(&offer_folder(&scene)).await;
    let disk = Arc::new(FaultyDisk::new());
    disk.set(scene.path("target"), Fault::SyncFails);
    let world = World { disk: disk.clone(), ..World::real() };
    let consumer = scene.consumer_in(world, &take_folder(&scene, "")).await;
    let row = tokio::time::timeout(Duration::from_secs(60), run(&consumer, "scans")).await.unwrap();
    assert_eq!((row.state, row.problem.unwrap().code), (State::Failed, Code::StorageFailed));
    disk.clear(&scene.path("target"));
    assert_eq!(run(&consumer, "scans").await.state, State::Settled);
    assert!(std::fs::read(scene.path("target/large")).unwrap() == noise(1, 20 << 20));
}

/// Other contents under the same size and time.
fn tamper(path: &std::path::Path) {
    let stood = std::fs::metadata(path).unwrap();
    std::fs::write(path, vec![7; usize::try_from(stood.len()).unwrap()]).unwrap();
    std::fs::File::options().write(true).open(path).unwrap().set_modified(stood.modified().unwrap()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_landed_file_that_is_changed_before_the_commit_is_not_receipted_as_it_was() {
    let mut scene = Scene::new("quic", &["scans"]);
    scene.provider_more = "bandwidth = \"4 MiB\"";
    std::fs::write(scene.path("source/file"), noise(1, 100_000)).unwrap();
    let _provider = scene.provider(&offer_folder(&scene)).await;
    let consumer = scene.consumer(&take_folder(&scene, "")).await;
    assert_eq!(run(&consumer, "scans").await.state, State::Settled);
    std::fs::write(scene.path("source/large"), noise(2, 12 << 20)).unwrap();
    let id = plan(&consumer, "scans").await;
    let running = tokio::spawn(transfer::run_consumer(consumer.context().clone(), id.clone()));
    until_live(&consumer, &id, "moving", |live| live.row.chunks > 0).await;
    tamper(&scene.path("target/file"));
    let transfer::Outcome::Final(row) = running.await.unwrap().unwrap() else { panic!("it was stopped") };
    // Its successor brings it anew.
    assert_eq!((row.state, row.succeeds.as_ref()), (State::Settled, Some(&id)), "{row:?}");
    let failed = until(&consumer, &id, "failed", |row| row.state == State::Failed).await;
    assert_eq!(failed.problem.unwrap().code, Code::FileChanged);
    assert_eq!(tree(&scene.path("target")), tree(&scene.path("source")));
}

#[tokio::test(flavor = "multi_thread")]
async fn append_goes_on_beside_files_that_stand_there_already() {
    let scene = Scene::new("quic", &["scans"]);
    for name in ["rights", "taken", "calm"] {
        std::fs::write(scene.path("source").join(name), noise(1, 50_000)).unwrap();
    }
    let _provider = scene.provider(&offer_folder(&scene)).await;
    let consumer = scene.consumer(&take_folder(&scene, "write = \"append\"\n")).await;
    assert_eq!(run(&consumer, "scans").await.state, State::Settled);
    std::fs::set_permissions(scene.path("target/rights"), std::fs::Permissions::from_mode(0o600)).unwrap();
    tamper(&scene.path("target/taken"));
    std::fs::write(scene.path("source/new"), noise(2, 50_000)).unwrap();
    let row = run(&consumer, "scans").await;
    assert_eq!(row.state, State::Settled, "{row:?}");
    assert_eq!((row.counts.files, row.counts.refused, row.files_sent), (3, 1, 1));
    let held = evidence(&consumer, &row.id).await;
    let landing = held.iter().find_map(|s| s.landing()).unwrap();
    assert_eq!(landing.left_out[0].name, b"taken");
    assert_eq!(landing.left_out[0].code, Code::NameTaken.number());
    assert_eq!(std::fs::read(scene.path("target/new")).unwrap(), noise(2, 50_000));
}
