//! Files come in chunks and stand in temporary files, sealed, before they are given their names.

use super::*;
use crate::store::{Store, exchange};
use posthouse_platform::World;
use posthouse_platform::disk::RealDisk;
use posthouse_protocol::chunk::{ChunkHeader, Form, Layout};
use posthouse_protocol::consumer::Have;
use posthouse_protocol::job::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

struct Scene {
    _folder: tempfile::TempDir,
    to: PathBuf,
    stage: Stage,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (to, transfer) = (folder.path().join("to"), TransferId::from_random([1; 16]));
        let destination = FolderDestination::open(&to, Write::Upsert, &transfer, Arc::new(RealDisk)).unwrap();
        let stage = Stage::new(transfer, JobId::parse("scans").unwrap(), Place::Folder(destination));
        Self { _folder: folder, to, stage }
    }

    /// The entry is whole: its group becomes durable, and it has its name.
    fn land(&self, entry: &Entry) {
        let mut progress = Progress::default();
        progress.whole.push((entry.clone(), Whole::Part));
        self.stage.sync(&progress).unwrap();
        let Place::Folder(folder) = self.stage.place() else { panic!("it is a folder") };
        folder.publish(entry).unwrap();
        assert!(self.stage.locked().is_empty(), "nothing of it is open any more");
        assert_eq!(std::fs::metadata(self.path(entry)).unwrap().len(), entry.size);
    }

    fn path(&self, entry: &Entry) -> PathBuf {
        self.to.join(String::from_utf8(entry.name.clone()).unwrap())
    }
}

fn entry(index: u64, size: usize) -> Entry {
    Entry {
        index,
        name: format!("d/f{index}").into_bytes(),
        kind: EntryKind::File,
        size: size as u64,
        mode: 0o600,
        mtime_ns: 1_000_000_000,
        root: None,
        revision: 0,
        same_as: None,
        attributes: None,
    }
}

fn chunk(entry: &Entry, chunk: u32, content: &[u8]) -> (Entry, VerifiedChunk) {
    let layout = Layout::new(entry.size).unwrap();
    let (offset, bytes) = (layout.offset(chunk) as usize, layout.bytes(chunk));
    let content = content[offset..offset + bytes as usize].to_vec();
    let header = ChunkHeader {
        entry: entry.index,
        revision: entry.revision,
        chunk,
        bytes,
        form: Form::Plain,
        wire_bytes: bytes,
        value: layout.value(chunk, &content).into(),
    };
    (entry.clone(), VerifiedChunk::verify(&header, layout, content.into()).unwrap())
}

#[test]
fn a_file_of_one_chunk_is_sealed_as_it_is_written_and_one_of_several_when_it_is_whole() {
    let scene = Scene::new();
    let content: Vec<u8> = (0..(1 << 20) + 5).map(|at: u32| at as u8).collect();
    let (short, long) = (entry(0, 3), entry(1, content.len()));
    // In one group, in any order.
    scene.stage.write(&[chunk(&long, 1, &content), chunk(&short, 0, b"abc"), chunk(&long, 0, &content)]).unwrap();
    let is_sealed = |index| matches!(scene.stage.locked().get(&index).unwrap().as_ref(), OpenPart::Sealed { .. });
    assert!(is_sealed(0) && !is_sealed(1));
    assert!(!scene.path(&short).exists(), "nothing has its name yet");
    let mut progress = Progress::default();
    progress.whole.push((short.clone(), Whole::Part));
    scene.stage.sync(&progress).unwrap();
    assert!(!scene.path(&short).exists() && !scene.path(&long).exists());
    scene.land(&long);
    scene.land(&short);
    assert!(std::fs::read(scene.path(&long)).unwrap() == content);
    assert_eq!(std::fs::read(scene.path(&short)).unwrap(), b"abc");
}

#[test]
fn rights_and_times_that_come_with_the_root_are_those_of_the_file() {
    let scene = Scene::new();
    let listed = entry(0, 3);
    scene.stage.write(&[chunk(&listed, 0, b"abc")]).unwrap();
    let told = Entry { mode: 0o640, mtime_ns: 7_000_000_001, ..listed };
    scene.land(&told);
    let stat = std::fs::metadata(scene.path(&told)).unwrap();
    assert_eq!((stat.mode() & 0o7777, stat.mtime(), stat.mtime_nsec()), (0o640, 7, 1));
}

#[test]
fn a_file_that_is_read_again_is_what_it_is_then() {
    let scene = Scene::new();
    let before = Entry { mode: 0o400, ..entry(0, 6) };
    scene.stage.write(&[chunk(&before, 0, b"before")]).unwrap();
    let now = Entry { revision: 1, size: 3, ..before };
    scene.stage.drop_part(0);
    scene.stage.begin(&now).unwrap();
    scene.stage.write(&[chunk(&now, 0, b"now")]).unwrap();
    scene.land(&now);
    assert_eq!(std::fs::read(scene.path(&now)).unwrap(), b"now");
    assert_eq!(std::fs::metadata(scene.path(&now)).unwrap().mode() & 0o7777, 0o400);
}

#[tokio::test]
async fn what_an_earlier_session_made_durable_is_looked_for_where_there_was_one() {
    let (scene, folder) = (Scene::new(), tempfile::tempdir().unwrap());
    let store = Store::open(&World::real(), folder.path()).await.unwrap();
    let root = *blake3::hash(b"abc").as_bytes();
    let file = Entry { root: Some(root.into()), ..entry(0, 3) };
    scene.stage.write(&[chunk(&file, 0, b"abc")]).unwrap();
    let mut progress = Progress::default();
    progress.whole.push((file.clone(), Whole::Part));
    scene.stage.sync(&progress).unwrap();
    let id = TransferId::from_random([1; 16]);
    let answers = store
        .write_now(|tx| {
            progress.record(tx, &id, exchange::FIRST_SESSION)?;
            let lookup = |resumes| scene.stage.lookup(tx, &file, &[], resumes, &mut Near::default());
            Ok([lookup(true)?, lookup(false)?])
        })
        .unwrap();
    let [Answer::Have(resumed, Whole::Part), Answer::Have(anew, Whole::Part)] = answers else {
        panic!("both are told what is here")
    };
    assert_eq!((resumed, anew), (Have::Whole(root), Have::Nothing));
    // Of a later session something may be recorded.
    let offer = "INSERT INTO landing (transfer) VALUES (?1)";
    let sessions = store.write_now(|tx| {
        tx.execute(offer, [id.as_str()]).unwrap();
        Ok([exchange::next_session(tx, &id)?, exchange::next_session(tx, &id)?])
    });
    assert_eq!(sessions.unwrap(), [exchange::FIRST_SESSION, exchange::FIRST_SESSION + 1]);
}
