//! Chunks of a changed file, as they are read for a consumer that has told its pieces.

use super::*;
use posthouse_connectors::folder::FolderOptions;
use posthouse_protocol::delta;
use posthouse_protocol::limits;
use std::convert::Infallible;

const MIB: usize = 1 << 20;
const INSERTED: usize = 70_000;

/// A file into which something was inserted in its third chunk.
struct Scene {
    _folder: tempfile::TempDir,
    supply: Supply,
    wanted: Wanted,
    old: Vec<u8>,
    new: Vec<u8>,
}

fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut content = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof().fill(&mut content);
    content
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let old = noise(1, 8 * MIB);
        let edit = 2 * MIB + 400_000;
        let new = [&old[..edit], &noise(2, INSERTED)[..], &old[edit..]].concat();
        std::fs::write(folder.path().join("large"), &new).unwrap();
        let source = FolderSource::open(folder.path(), &FolderOptions::default()).unwrap();
        let stat = source.open_file(b"large").unwrap().stat();
        let entry = Entry {
            index: 0,
            name: b"large".to_vec(),
            kind: EntryKind::File,
            size: new.len() as u64,
            mode: 0o644,
            mtime_ns: stat.mtime_ns,
            root: None,
            revision: 0,
            same_as: None,
            attributes: None,
        };
        let cut = Cut::for_size(old.len() as u64);
        let read = |offset: u64, out: &mut [u8]| {
            let rest = &old[offset as usize..];
            let bytes = rest.len().min(out.len());
            out[..bytes].copy_from_slice(&rest[..bytes]);
            Ok::<_, Infallible>(bytes)
        };
        let pieces = cut.pieces(0..u64::MAX, limits::PIECES_MAX, read).unwrap();
        let known = Some(known_pieces(cut, pieces));
        let wanted = Wanted { entry, stat: Some(stat), known, chunks: Vec::new() };
        Self { _folder: folder, supply: Supply::new(SupplySource::Folder(Arc::new(source))), wanted, old, new }
    }

    /// Reads a chunk and puts it together at the consumer; how long its delta is.
    fn read(&mut self, chunk: u32) -> usize {
        let layout = Layout::new(self.new.len() as u64).unwrap();
        self.wanted.chunks = vec![SendChunk { entry: 0, revision: 0, chunk, layout, again: false }];
        let read = self.supply.read(&self.wanted, Packing::Not);
        let [Read::Packed(Packed { header, body })] = read.as_slice() else { panic!("{read:?}") };
        assert_eq!(header.form, Form::Delta, "chunk {chunk}");
        let mut content = vec![0; header.bytes as usize];
        let copied = |offset: u64, out: &mut [u8]| {
            out.copy_from_slice(&self.old[offset as usize..][..out.len()]);
            Ok::<_, Infallible>(())
        };
        delta::put_together(body, &mut content, copied).unwrap();
        let start = chunk as usize * MIB;
        assert!(content == self.new[start..start + content.len()], "chunk {chunk}");
        assert_eq!(layout.value(chunk, &content), *header.value);
        body.len()
    }

    fn reading(&self) -> Arc<Reading> {
        self.supply.locked().get(&0).cloned().unwrap()
    }
}

#[test]
fn what_lies_behind_an_edit_is_followed_as_far_on_as_it_has_moved() {
    let mut scene = Scene::new();
    let moved = -(INSERTED as i64);
    for (chunk, shift) in [(0, 0), (1, 0), (2, moved), (3, moved), (5, moved), (8, moved)] {
        let sent = scene.read(chunk);
        assert_eq!(scene.reading().shift.load(Ordering::Relaxed), shift, "after chunk {chunk}");
        assert!(if chunk == 2 { sent < INSERTED + 3 * (64 << 10) } else { sent < 100 }, "{sent} of chunk {chunk}");
    }
}

#[test]
fn a_wrong_guess_changes_nothing_of_what_is_sent() {
    let mut scene = Scene::new();
    let moved = -(INSERTED as i64);
    scene.read(0);
    for guess in [0, 1, -1_000_000, 1_000_000, i64::MIN, i64::MAX] {
        scene.reading().shift.store(guess, Ordering::Relaxed);
        assert!(scene.read(4) < 100, "from {guess}");
        assert_eq!(scene.reading().shift.load(Ordering::Relaxed), moved, "from {guess}");
    }
}
