//! What comes over the line at an odd moment: a cut while a snapshot is taken, an invitation that is repeated,
//! the other side's ending during a commit.

use super::*;
use posthouse_node::store::exchange;
use posthouse_node::store::transfers::{self, Filter};
use posthouse_platform::disk::{Disk, RealDisk};
use posthouse_platform::frames;
use posthouse_protocol::frame::{Frame, Hello, Invite, Invited, Purpose};
use posthouse_protocol::job::Mode;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_takes_long_outlives_its_line_and_is_taken_once() {
    let scene = Scene::new("quic", &["residents"]);
    let source = scene.path("source/residents.db");
    table(&source, 1_000);
    let provider = scene.provider(&offer_table(&scene)).await;
    let consumer = scene.consumer(&take_table(&scene, "full", "replace")).await;
    // Nobody can read the table while somebody writes it.
    let writer = rusqlite::Connection::open(&source).unwrap();
    writer.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let id = plan(&consumer, "residents").await;
    let running = tokio::spawn(transfer::run_consumer(consumer.context().clone(), id.clone()));
    let line = || consumer.context().pool.existing(&name(PROVIDER));
    until(&consumer, &id, "connected", |_| line().is_some()).await;
    // Time for the request to arrive; nothing tells that it did.
    tokio::time::sleep(Duration::from_millis(500)).await;
    line().unwrap().close(0, "cut");
    // Asked again, it is still at the first answer.
    let busy = |live: &transfer::Live| live.row.problem.as_ref().is_some_and(|problem| problem.code == Code::Busy);
    until_live(&consumer, &id, "told that it is being answered", busy).await;
    consumer.stop().await;
    running.await.unwrap().unwrap();
    writer.execute_batch("ROLLBACK").unwrap();
    // With nobody on the line.
    let offered = offered(&provider, &id).await;
    let consumer = scene.consumer(&take_table(&scene, "full", "replace")).await;
    let row = until(&consumer, &id, "settled", |row| row.state.is_final()).await;
    assert_eq!(row.state, State::Settled, "{row:?}");
    assert_eq!(self::offered(&provider, &id).await.offer, offered.offer);
    let held = evidence(&consumer, &id).await;
    assert_eq!(held.iter().find_map(|s| s.manifest()).unwrap().started, offered.started);
    assert_eq!(rows(&scene.path("target/residents.db")), rows(&source));
}

/// What a provider has stored of its offer, once it has.
async fn offered(provider: &Node, id: &TransferId) -> exchange::Offered {
    for _ in 0..200 {
        let id = id.clone();
        let found = provider.context().store.read(move |db| exchange::offered(db, &id)).await.unwrap();
        if let Some(found) = found {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{id} was never offered");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_that_is_repeated_is_answered_by_the_same_transfer() {
    let scene = Scene::new("quic", &["scans"]);
    std::fs::write(scene.path("source/file"), noise(1, 10_000)).unwrap();
    let (provider, consumer) =
        (scene.provider(&push_folder(&scene, "manual")).await, scene.consumer(&accept_folder(&scene)).await);
    let first = invite(&provider, [1; 16]).await;
    assert_eq!(invite(&provider, [1; 16]).await, first, "while it runs");
    let row = until(&consumer, &first, "settled", |row| row.state.is_final()).await;
    assert_eq!(row.state, State::Settled, "{row:?}");
    assert_eq!(invite(&provider, [1; 16]).await, first, "when it is over");
    let another = invite(&provider, [2; 16]).await;
    until(&consumer, &another, "settled", |row| row.state == State::Settled).await;
    let all = consumer.context().store.read(|db| transfers::list(db, &Filter::default())).await.unwrap();
    assert_eq!(all.into_iter().map(|row| row.id).collect::<Vec<_>>(), [another, first]);
}

/// Sends the invitation of one run of the pushing job, as often as its answer is lost.
async fn invite(provider: &Node, run: [u8; 16]) -> TransferId {
    let ctx = provider.context();
    let taker = name(CONSUMER);
    let connection = ctx.pool.connection(&taker).await.unwrap();
    let (job, resource) = ("daily".parse().unwrap(), "scans".parse().unwrap());
    let invite = Frame::Invite(Invite { job, resource, mode: Mode::Full, run: Some(run.into()) });
    let hello = Hello::new(Purpose::Ask, ctx.epoch);
    let answer = frames::ask(connection.as_ref(), &taker, hello, &invite, Duration::from_secs(20)).await.unwrap();
    let Frame::Invited(Invited { transfer: Some(transfer), .. }) = answer else { panic!("{answer:?}") };
    transfer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_ends_it_during_the_commit_changes_nothing_of_what_lands() {
    let scene = Scene::new("quic", &["scans"]);
    std::fs::write(scene.path("source/file"), noise(1, 10_000)).unwrap();
    let provider = scene.provider(&offer_folder(&scene)).await;
    let disk = Arc::new(StuckDisk {
        folder: scene.path("target"),
        stuck: AtomicBool::new(true),
        reached: AtomicBool::new(false),
    });
    let world = World { disk: disk.clone(), ..World::real() };
    let consumer = scene.consumer_in(world, &take_folder(&scene, "")).await;
    let id = plan(&consumer, "scans").await;
    let running = tokio::spawn(transfer::run_consumer(consumer.context().clone(), id.clone()));
    until(&consumer, &id, "committing", |_| disk.reached.load(Ordering::SeqCst)).await;
    assert!(provider.context().transfers.cancel(&id));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let row = until(&consumer, &id, "kept", |_| true).await;
    assert_eq!(row.state, State::Staged, "it may stand by now: {row:?}");
    disk.stuck.store(false, Ordering::SeqCst);
    let transfer::Outcome::Final(row) = running.await.unwrap().unwrap() else { panic!("it was stopped") };
    assert_eq!((row.state, row.id), (State::Settled, id.clone()));
    assert_eq!(tree(&scene.path("target")), tree(&scene.path("source")));
    until(&provider, &id, "settled", |row| row.state == State::Settled).await;
    assert_eq!((evidence(&consumer, &id).await.len(), evidence(&provider, &id).await.len()), (2, 2));
}

/// A disk that takes its time to make the names of a folder durable, which only a commit asks of it.
struct StuckDisk {
    folder: PathBuf,
    stuck: AtomicBool,
    reached: AtomicBool,
}

impl Disk for StuckDisk {
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        RealDisk.free_bytes(path)
    }
    fn before_write(&self, path: &Path, bytes: u64) -> io::Result<()> {
        RealDisk.before_write(path, bytes)
    }
    fn sync_file(&self, file: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
        RealDisk.sync_file(file, path)
    }
    fn sync_file_whole(&self, file: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
        RealDisk.sync_file_whole(file, path)
    }
    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        while path.starts_with(&self.folder) && self.stuck.load(Ordering::SeqCst) {
            self.reached.store(true, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(10));
        }
        RealDisk.sync_folder(path)
    }
    fn sync_file_system(&self, folder: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
        RealDisk.sync_file_system(folder, path)
    }
    fn syncs_file_system(&self, folder: BorrowedFd<'_>) -> bool {
        RealDisk.syncs_file_system(folder)
    }
}
