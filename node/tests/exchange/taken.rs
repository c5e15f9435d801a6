//! Somebody at the consumer takes a file away, or puts another in its place, between its landing and the statement.

use super::*;
use posthouse_platform::disk::{Disk, RealDisk};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU32;

/// What somebody does to a landed file.
type Deed = fn(&Path);

/// The real disk, at which somebody does something to a file as soon as the folder with its name is made durable.
struct Watched {
    folder: PathBuf,
    name: &'static str,
    does: Deed,
    times: AtomicU32,
}

impl Watched {
    fn new(folder: PathBuf, name: &'static str, does: Deed, times: u32) -> Self {
        Self { folder, name, does, times: AtomicU32::new(times) }
    }
}

impl Disk for Watched {
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        RealDisk.free_bytes(path)
    }
    fn before_write(&self, path: &Path, bytes: u64) -> io::Result<()> {
        RealDisk.before_write(path, bytes)
    }
    fn sync_file(&self, file: std::os::fd::BorrowedFd<'_>, path: &Path) -> io::Result<()> {
        RealDisk.sync_file(file, path)
    }
    fn sync_file_whole(&self, file: std::os::fd::BorrowedFd<'_>, path: &Path) -> io::Result<()> {
        RealDisk.sync_file_whole(file, path)
    }
    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_folder(path)?;
        let file = self.folder.join(self.name);
        let left = self.times.load(Ordering::Relaxed);
        if path == self.folder && file.exists() && left > 0 {
            self.times.store(left - 1, Ordering::Relaxed);
            (self.does)(&file);
        }
        Ok(())
    }
    fn sync_file_system(&self, folder: std::os::fd::BorrowedFd<'_>, path: &Path) -> io::Result<()> {
        RealDisk.sync_file_system(folder, path)
    }
    fn syncs_file_system(&self, folder: std::os::fd::BorrowedFd<'_>) -> bool {
        RealDisk.syncs_file_system(folder)
    }
}

fn remove(path: &Path) {
    std::fs::remove_file(path).unwrap();
}

/// Another file of the same length and time.
fn exchange(path: &Path) {
    let moved = path.with_extension("moved");
    std::fs::rename(path, &moved).unwrap();
    std::fs::copy(&moved, path).unwrap();
    let stood = std::fs::metadata(&moved).unwrap();
    std::fs::File::options().write(true).open(path).unwrap().set_modified(stood.modified().unwrap()).unwrap();
    tamper(path);
    std::fs::remove_file(&moved).unwrap();
}

/// A provider and a consumer at whose disk that happens so many times.
async fn with(scene: &Scene, does: Deed, times: u32, more: &str) -> (Node, Node) {
    std::fs::write(scene.path("source/file"), noise(1, 100_000)).unwrap();
    std::fs::write(scene.path("source/other"), noise(2, 100_000)).unwrap();
    let provider = scene.provider(&offer_folder(scene)).await;
    let disk = Arc::new(Watched::new(scene.path("target"), "file", does, times));
    let world = World { disk, ..World::real() };
    (provider, scene.consumer_in(world, &take_folder(scene, more)).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_taken_or_exchanged_once_it_has_landed_is_named_and_brought_anew() {
    let deeds: [(_, Deed); 2] = [("removed", remove), ("exchanged", exchange)];
    for (what, does) in deeds {
        for more in ["", "proof = \"reread\"\n", "write = \"mirror\"\n"] {
            let scene = Scene::new("quic", &["scans"]);
            let (_provider, consumer) = with(&scene, does, 1, more).await;
            let id = plan(&consumer, "scans").await;
            let row = finish(&consumer, id.clone()).await.unwrap();
            assert_eq!((row.state, row.succeeds.as_ref()), (State::Settled, Some(&id)), "{what} {more}: {row:?}");
            let failed = until(&consumer, &id, "failed", |row| row.state == State::Failed).await;
            let problem = failed.problem.unwrap();
            assert_eq!(problem.code, Code::NotAsLanded, "{what} {more}: {problem}");
            assert!(problem.facts.contains(&("name".to_owned(), "file".to_owned())), "{problem:?}");
            let held = evidence(&consumer, &id).await;
            assert!(
                held.iter().any(|statement| matches!(statement.body(), Body::Failure(..))),
                "{what} {more}: {held:?}"
            );
            assert!(held.iter().all(|statement| statement.landing().is_none()), "{what} {more}: {held:?}");
            assert_eq!(tree(&scene.path("target")), tree(&scene.path("source")), "{what} {more}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_taken_each_time_is_tried_a_few_times_and_never_receipted() {
    let scene = Scene::new("quic", &["scans"]);
    let (_provider, consumer) = with(&scene, remove, u32::MAX, "").await;
    let row = run(&consumer, "scans").await;
    assert_eq!(row.state, State::Failed, "{row:?}");
    assert_eq!(row.problem.as_ref().unwrap().code, Code::NotAsLanded);
    let (mut next, mut tried) = (Some(row.id), 0);
    while let Some(id) = next {
        tried += 1;
        assert!(evidence(&consumer, &id).await.iter().all(|statement| statement.landing().is_none()), "{id}");
        let failed = until(&consumer, &id, "failed", |row| row.state == State::Failed).await;
        assert_eq!(failed.problem.unwrap().code, Code::NotAsLanded);
        next = failed.succeeds;
    }
    assert_eq!(tried, 5);
}
