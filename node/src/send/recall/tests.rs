//! Sessions over one large file, one after the other; how much each of them reads is the kernel's own count of this
//! thread.

use crate::send::recall::{RECALL_BYTES_MAX, RECALL_FILES_MAX, RECALL_KEPT_BYTES, bytes};
use crate::send::{Read, ReadBefore, Recall, Recalled, Supply, SupplySource, Wanted};
use crate::store::{Store, exchange};
use posthouse_connectors::folder::{FileStat, FolderOptions, FolderSource};
use posthouse_platform::World;
use posthouse_platform::clock::Clock;
use posthouse_protocol::chunk::{Layout, Packing};
use posthouse_protocol::id::ResourceId;
use posthouse_protocol::limits;
use posthouse_protocol::manifest::{Entry, EntryKind};
use posthouse_protocol::provider::SendChunk;
use posthouse_protocol::time::Timestamp;
use std::io::{Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const MIB: u64 = 1 << 20;
/// What this thread reads beside the file: the store, its own count.
const TRIFLES: u64 = MIB / 2;

struct Scene {
    folder: tempfile::TempDir,
    store: Store,
    recall: Arc<Recall>,
    source: Arc<FolderSource>,
    /// How long after now it is.
    later_ms: i64,
    listed: FileStat,
}

/// The machine's clock, as it will be.
struct Later(Arc<dyn Clock>, i64);

impl Clock for Later {
    fn now(&self) -> Timestamp {
        self.0.now().plus_ms(self.1)
    }
    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }
}

impl Scene {
    /// A file of so many MiB, of which most is holes; each chunk is another.
    async fn new(mib: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let mut file = std::fs::File::create(data.join("large")).unwrap();
        file.set_len(mib * MIB).unwrap();
        for at in 0..mib {
            file.seek(SeekFrom::Start(at * MIB)).unwrap();
            file.write_all(&at.to_be_bytes()).unwrap();
        }
        drop(file);
        let store = Store::open(&World::real(), &folder.path().join("store")).await.unwrap();
        let source = Arc::new(FolderSource::open(&data, &FolderOptions::default()).unwrap());
        let listed = source.open_file(b"large").unwrap().stat();
        Self { folder, store, recall: Arc::default(), source, later_ms: 60_000, listed }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("data/large")
    }
    fn layout(&self) -> Layout {
        Layout::new(self.listed.size).unwrap()
    }
    fn entry(&self) -> Entry {
        Entry {
            index: 0,
            name: b"large".to_vec(),
            kind: EntryKind::File,
            size: self.listed.size,
            mode: 0o644,
            mtime_ns: self.listed.mtime_ns,
            root: None,
            revision: 0,
            same_as: None,
            attributes: None,
        }
    }
    fn before(&self) -> ReadBefore {
        let clock = Arc::new(Later(World::real().clock, self.later_ms));
        ReadBefore { recall: self.recall.clone(), resource: resource(), store: self.store.clone(), clock }
    }
    fn recalled(&self) -> Recalled {
        self.before().of(&self.entry(), &self.listed, self.layout()).unwrap()
    }

    /// A session of which the consumer wants these chunks, and which then ends.
    fn session(&self, wanted: Range<u32>) -> Supply {
        let supply = Supply::new(SupplySource::Folder(self.source.clone())).recalling(self.before());
        let layout = self.layout();
        for chunk in wanted {
            let chunks = vec![SendChunk { entry: 0, revision: 0, chunk, layout, again: false }];
            let wanted = Wanted { entry: self.entry(), stat: Some(self.listed), known: None, chunks };
            let read = supply.read(&wanted, Packing::Not);
            assert!(matches!(read.as_slice(), [Read::Packed(_)]), "{read:?}");
        }
        supply
    }

    /// The same, to the file's root; how much of it was read, in MiB.
    fn sealed(&self, wanted: Range<u32>) -> u64 {
        let before = bytes_read();
        let root = self.session(wanted).seal(&self.entry(), Some(self.listed)).unwrap().0;
        let read = bytes_read() - before;
        let mut whole = blake3::Hasher::new();
        whole.update_reader(std::fs::File::open(self.path()).unwrap()).unwrap();
        assert!(root == *whole.finalize().as_bytes(), "the root is another");
        assert!(read % MIB < TRIFLES, "{read}");
        read / MIB
    }

    /// Something is written, and the file is listed anew.
    fn write(&mut self, at: u64) {
        let mut file = std::fs::File::options().write(true).open(self.path()).unwrap();
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(b"something else").unwrap();
        drop(file);
        let now = self.source.open_file(b"large").unwrap().stat();
        assert_ne!(now, self.listed);
        self.listed = now;
    }

    /// A new process on the same store.
    fn restart(&mut self) {
        self.recall = Arc::default();
    }

    fn stored(&self, stat: &FileStat, chunk_bytes: u32) -> Vec<(u32, [u8; 32])> {
        let mut found = Vec::new();
        let each = &mut |chunk, value| found.push((chunk, value));
        self.store.read_now(|db| exchange::chunks_hashed(db, &resource(), b"large", stat, chunk_bytes, each)).unwrap();
        found
    }
    fn rows(&self) -> i64 {
        self.store
            .read_now(|db| {
                db.query_row("SELECT count(*) FROM hashed_chunks", [], |row| row.get(0)).map_err(crate::store::failed)
            })
            .unwrap()
    }
}

fn resource() -> ResourceId {
    ResourceId::parse("papers").unwrap()
}

/// By this thread, as the kernel counts it.
fn bytes_read() -> u64 {
    let io = std::fs::read_to_string("/proc/thread-self/io").unwrap();
    io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().trim().parse().unwrap()
}

#[tokio::test]
async fn what_a_session_has_read_the_next_one_does_not_read_to_seal_it() {
    let scene = Scene::new(80).await;
    drop(scene.session(0..70));
    // The consumer lacks what was in flight.
    assert_eq!(scene.sealed(60..80), 20);
    // And nothing at all, where only the root was not told.
    assert_eq!(scene.sealed(0..0), 0);
}

#[tokio::test]
async fn after_a_kill_at_most_what_was_not_written_down_is_read_again() {
    let mut scene = Scene::new(300).await;
    drop(scene.session(0..290));
    scene.restart();
    let kept = RECALL_KEPT_BYTES / MIB;
    assert_eq!(scene.sealed(290..300), 300 - kept);
    // The root says it all.
    let (entry, stat) = (scene.entry(), scene.listed);
    assert_eq!(scene.rows(), 1);
    scene.store.write_now(|tx| exchange::put_hashed(tx, &resource(), &entry.name, &stat, &[1; 32])).unwrap();
    assert_eq!(scene.rows(), 0);
}

#[tokio::test]
async fn a_file_that_was_written_to_begins_anew() {
    let mut scene = Scene::new(300).await;
    drop(scene.session(0..300));
    let before = scene.listed;
    assert_eq!(scene.stored(&before, limits::CHUNK_BYTES).len(), 256);
    assert!(scene.stored(&before, limits::CHUNK_BYTES_LARGE).is_empty());
    scene.write(5 * MIB);
    assert!(scene.stored(&scene.listed, limits::CHUNK_BYTES).is_empty());
    assert_eq!(scene.sealed(0..0), 300);
    // And what it was gives way.
    assert_eq!(scene.rows(), 1);
    assert!(scene.stored(&before, limits::CHUNK_BYTES).is_empty());
}

#[tokio::test]
async fn what_was_read_of_a_file_that_may_still_be_written_to_is_not_remembered() {
    let mut scene = Scene::new(70).await;
    // A write in the same moment would leave its times as they are.
    scene.later_ms = -60_000;
    drop(scene.session(0..70));
    scene.later_ms = 60_000;
    assert_eq!(scene.sealed(0..0), 70);
}

#[tokio::test]
async fn a_value_that_is_not_what_is_read_now_takes_the_others_with_it() {
    let scene = Scene::new(300).await;
    drop(scene.session(0..300));
    let (entry, stat) = (scene.entry(), scene.listed);
    scene.store.write_now(|tx| exchange::put_hashed(tx, &resource(), b"other", &stat, &[1; 32])).unwrap();
    scene.store.write_now(|tx| exchange::put_hashed(tx, &resource(), &entry.name, &stat, &[1; 32])).unwrap();
    // As if another content had been there, of the same times.
    scene.recalled().file.locked().known[7] = Some([9; 32]);
    scene.recalled().file.locked().known[8] = Some([9; 32]);
    assert_eq!(scene.sealed(7..8), 300);
    let root = |name: &'static [u8]| scene.store.read_now(|db| exchange::hashed(db, &resource(), name, &stat)).unwrap();
    assert_eq!((root(b"large"), root(b"other")), (None, Some([1; 32])));
}

#[tokio::test]
async fn a_root_that_is_not_that_of_what_was_read_is_forgotten() {
    let scene = Scene::new(3).await;
    let mut whole = blake3::Hasher::new();
    whole.update_reader(std::fs::File::open(scene.path()).unwrap()).unwrap();
    let (right, stat) = (*whole.finalize().as_bytes(), scene.listed);
    for (root, chunks, is_kept) in [(right, 0..3, true), ([1; 32], 0..2, true), ([1; 32], 0..3, false)] {
        scene.store.write_now(|tx| exchange::put_hashed(tx, &resource(), b"large", &stat, &root)).unwrap();
        let layout = scene.layout();
        let chunks = chunks.map(|chunk| SendChunk { entry: 0, revision: 0, chunk, layout, again: false }).collect();
        let entry = Entry { root: Some(root.into()), ..scene.entry() };
        let supply = Supply::new(SupplySource::Folder(scene.source.clone())).recalling(scene.before());
        supply.read(&Wanted { entry, stat: Some(stat), known: None, chunks }, Packing::Not);
        let stored = scene.store.read_now(|db| exchange::hashed(db, &resource(), b"large", &stat)).unwrap();
        assert_eq!(stored, is_kept.then_some(root));
    }
}

#[tokio::test]
async fn a_row_that_is_not_as_it_was_written_counts_for_nothing() {
    let mut scene = Scene::new(300).await;
    drop(scene.session(0..290));
    assert_eq!(scene.stored(&scene.listed, limits::CHUNK_BYTES).len(), 256);
    scene
        .store
        .write_now(|tx| {
            let read = tx.query_row("SELECT chunks FROM hashed_chunks", [], |row| row.get::<_, Vec<u8>>(0));
            let mut chunks = read.map_err(crate::store::failed)?;
            chunks[7 * 36 + 4] ^= 1;
            tx.execute("UPDATE hashed_chunks SET chunks = ?1", [chunks]).map_err(crate::store::failed)
        })
        .unwrap();
    scene.restart();
    assert_eq!(scene.sealed(290..300), 300);
}

#[tokio::test]
async fn what_is_remembered_is_bounded() {
    let scene = Scene::new(70).await;
    let (before, layout) = (scene.before(), scene.layout());
    let of = |name: String, size: u64| {
        let (entry, stat) = (Entry { name: name.into(), size, ..scene.entry() }, FileStat { size, ..scene.listed });
        before.of(&entry, &stat, Layout::new(size).unwrap())
    };
    let names = || -> Vec<String> {
        let name = |file: &Arc<super::FileValues>| String::from_utf8_lossy(&file.name).into_owned();
        scene.recall.locked().iter().map(name).collect()
    };
    assert!(of("short".into(), limits::RECALLED_BYTES_MIN - 1).is_none());
    assert!(names().is_empty());
    for at in 0..=RECALL_FILES_MAX {
        assert!(of(format!("{at}"), layout.size()).is_some());
    }
    assert_eq!(names().len(), RECALL_FILES_MAX);
    assert_eq!(names().first().map(String::as_str), Some("1"));
    // Whoever is asked for again is not the oldest.
    assert!(of("1".into(), layout.size()).is_some());
    assert_eq!(names().first().map(String::as_str), Some("2"));
    // The longest takes all the room, and one that is longer none.
    let value = bytes(Layout::new(1).unwrap()) as u64;
    let longest = RECALL_BYTES_MAX as u64 / value * u64::from(limits::CHUNK_BYTES_LARGE);
    assert!(of("longest".into(), longest).is_some());
    assert!(of("longer".into(), longest + 1).is_none());
    assert_eq!(names(), ["longest"]);
    assert!(of("small".into(), layout.size()).is_some());
    assert_eq!(names(), ["small"]);
}

#[tokio::test]
async fn what_is_written_down_is_bounded_and_the_oldest_goes_first() {
    let scene = Scene::new(1).await;
    scene
        .store
        .write_now(|tx| {
            for at in 0..5_000_u32 {
                let name = at.to_be_bytes();
                exchange::put_chunks_hashed(tx, &resource(), &name, &scene.listed, 1, &[(at, [7; 32])])?;
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(scene.rows(), 4_096);
    let found = |at: u32| {
        let mut found = Vec::new();
        let each = &mut |chunk, value| found.push((chunk, value));
        let name = at.to_be_bytes();
        scene.store.read_now(|db| exchange::chunks_hashed(db, &resource(), &name, &scene.listed, 1, each)).unwrap();
        found
    };
    assert_eq!((found(903), found(904)), (vec![], vec![(904, [7; 32])]));
    assert_eq!(found(4_999), vec![(4_999, [7; 32])]);
}
