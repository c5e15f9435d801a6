//! Content that stands in the folder and may be in a file that is to come: an older version of it, or the same file
//! under the name that it had before. It is cut into pieces, of which the provider is told; what differs is then put
//! together with it. Nothing here is trusted: if that file is written to meanwhile, the chunk is not what it should
//! be, and comes as a whole. What pieces a file has is remembered from one change to the next, where the store knows
//! that it still is what was landed.

use super::{Place, Stage};
use crate::remembered::Root;
use crate::store::exchange::{self, LandedFile, Whole};
use posthouse_connectors::folder::{FileStat, Kind, OpenFile};
use posthouse_protocol::chunk::{ChunkError, ChunkHeader, Layout};
use posthouse_protocol::delta::{self, Copies, Cut, Outline, PIECE_WIRE_BYTES};
use posthouse_protocol::limits;
use posthouse_protocol::manifest::{Entry, EntryKind};
use posthouse_protocol::problem::{Code, Problem};
use rusqlite::Connection;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// The pieces of such content.
#[derive(Clone)]
pub struct Older {
    pub cut: Cut,
    /// As they are told.
    pub pieces: Arc<[u8]>,
}

/// A file in which such content may stand.
pub struct OlderName {
    name: Vec<u8>,
    /// How it looked when this job landed it, and its root.
    landed: Option<(FileStat, Root)>,
}

/// A file that is used for an entry.
pub(super) struct Used {
    file: OpenFile,
    older: Older,
    /// Its root, if it was landed and the entry takes its place.
    replaced: Option<Root>,
    layout: Layout,
    copies: SharedCopies,
}

/// What of it the entry has.
pub(super) struct Served {
    older: Older,
    replaced: Option<Root>,
    copies: Copies,
}

/// What was cut for one transfer: a line that breaks begins no cut anew. One is cut at a time.
#[derive(Default)]
pub struct Cuts {
    kept: Mutex<VecDeque<(FileStat, Older)>>,
    /// What entries that are not whole have of such files, by their names.
    copies: Mutex<BTreeMap<Vec<u8>, (Between, SharedCopies)>>,
}

type SharedCopies = Arc<Mutex<Copies>>;

/// Of which file what is copied, and into a file of which length and time.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Between {
    older: FileStat,
    size: u64,
    mtime_ns: i64,
}

impl Cuts {
    /// What was cut of the file as it is now, or else what `cut` makes of it.
    fn of(&self, stat: FileStat, cut: impl FnOnce() -> Result<Older, Problem>) -> Result<Older, Problem> {
        // Held while it is cut: another line's session that wants the same waits for it.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, older)) = kept.iter().find(|(of, _)| *of == stat) {
            return Ok(older.clone());
        }
        let older = cut()?;
        kept.push_back((stat, older.clone()));
        while kept.iter().map(|(_, older)| older.pieces.len()).sum::<usize>() > limits::PIECES_MAX * PIECE_WIRE_BYTES {
            kept.pop_front();
        }
        Ok(older)
    }

    /// What was copied of that file into the entry over an earlier line, and is over this one.
    fn copies(&self, older: FileStat, entry: &Entry) -> SharedCopies {
        let between = Between { older, size: entry.size, mtime_ns: entry.mtime_ns };
        let mut kept = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, copies)) = kept.get(&entry.name).filter(|(of, _)| *of == between) {
            return copies.clone();
        }
        let copies = SharedCopies::default();
        kept.insert(entry.name.clone(), (between, Arc::clone(&copies)));
        copies
    }

    /// The entry of that name is whole.
    pub fn served(&self, name: &[u8]) {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

impl Stage {
    /// Whether it may pay to look for content here that is in the entry.
    pub fn may_have_older(&self, entry: &Entry) -> bool {
        let is_long = entry.kind == EntryKind::File && entry.size >= limits::DELTA_BYTES_MIN;
        is_long && matches!(self.place, Place::Folder(_))
    }

    /// Where such content may stand: under the entry's own name, or under that of a file that was landed before and has
    /// likely the same content.
    pub fn older_names(&self, at: &Connection, entry: &Entry) -> Result<Vec<OlderName>, Problem> {
        let own = exchange::landed(at, &self.job, &entry.name)?;
        let own = OlderName { name: entry.name.clone(), landed: own.as_ref().and_then(as_landed) };
        let alike = likeliest(entry, exchange::landed_of_size(at, &self.job, entry.size, ALIKE_MAX)?);
        let alike = alike.map(|file| OlderName { landed: as_landed(&file), name: file.name });
        Ok(std::iter::once(own).chain(alike).collect())
    }

    /// The first of them that stands.
    pub fn standing(&self, names: Vec<OlderName>) -> Option<OlderName> {
        names.into_iter().find(|older| self.older_file(&older.name).is_some())
    }

    /// Cuts what stands under that name into `most` pieces at most, where `missing` bytes are worth it. None where
    /// nothing comes of it: that it cannot be read is no matter, all of it comes from the provider then.
    pub fn cut_older(&self, entry: &Entry, name: &OlderName, missing: u64, most: usize, cuts: &Cuts) -> Option<Older> {
        let file = self.older_file(&name.name)?;
        let stat = file.stat();
        if missing < stat.size / WORTH {
            return None;
        }
        let layout = Layout::new(entry.size).ok()?;
        let root = name.landed.filter(|(landed, _)| *landed == stat).map(|(_, root)| root);
        let replaced = root.filter(|_| name.name == entry.name);
        let older = cuts.of(stat, || self.pieces_of(&file, root, Cut::for_size(stat.size.min(entry.size)), most));
        match older {
            Ok(older) if older.pieces.len() / PIECE_WIRE_BYTES <= most => {
                let copies = cuts.copies(stat, entry);
                let used = Used { file, older: older.clone(), replaced, layout, copies };
                self.locked_older().insert(entry.index, Arc::new(used));
                Some(older)
            }
            Ok(_) => None,
            Err(problem) => {
                tracing::debug!(%problem, "An older file is not looked at");
                None
            }
        }
    }

    /// As they are remembered of a content of this root, and only what is not known of them is read; or cut anew.
    fn pieces_of(&self, file: &OpenFile, root: Option<Root>, cut: Cut, most: usize) -> Result<Older, Problem> {
        let size = file.stat().size;
        let read = |offset: u64, out: &mut [u8]| -> Result<usize, Problem> {
            let read = file.read_at(offset, out)?;
            if let Some(remembered) = &self.remembered {
                remembered.has_read(read);
            }
            Ok(read)
        };
        let known = self.remembered.as_deref().zip(root);
        let outline = known.and_then(|(remembered, root)| remembered.get(&root, size));
        // One that was cut when it was longer, or shorter, may be told as it is, if it is no more than may be told.
        if let Some(outline) = outline.filter(|outline| outline.parts().len() / PIECE_WIRE_BYTES <= most) {
            return Ok(Older { cut: outline.cut(), pieces: outline.pieces(most, read)?.into() });
        }
        let pieces = in_stretches(size, most, |stretch| cut.pieces(stretch, most, read))?;
        if let Some((remembered, root)) = known
            && !file.changed()?
            && let Ok(outline) = Outline::of_pieces(cut, size, &pieces)
        {
            remembered.put(&root, &outline);
        }
        Ok(Older { cut, pieces: pieces.into() })
    }

    fn older_file(&self, name: &[u8]) -> Option<OpenFile> {
        let Place::Folder(folder) = &self.place else { return None };
        folder.open_file(name).filter(|file| file.stat().size >= limits::DELTA_BYTES_MIN)
    }

    /// Puts a chunk together from its delta and what is here.
    pub fn put_together(&self, header: &ChunkHeader, delta: &[u8], content: &mut [u8]) -> Result<(), ChunkError> {
        let failed = |cause: String| ChunkError::Delta { entry: header.entry, chunk: header.chunk, cause };
        let used = self.locked_older().get(&header.entry).cloned();
        let used = used.ok_or_else(|| failed("nothing was told for it".to_owned()))?;
        let read = |offset: u64, out: &mut [u8]| match used.file.read_at(offset, out) {
            Ok(read) if read == out.len() => Ok(()),
            Ok(_) => Err(Problem::new(Code::FileChanged).cause("it has become shorter")),
            Err(problem) => Err(problem),
        };
        let copied = delta::put_together(delta, content, read).map_err(|e| failed(e.to_string()))?;
        // If it is not what it should be, all that is known of this file is forgotten.
        used.locked_copies().add(used.layout.offset(header.chunk), &copied);
        Ok(())
    }

    /// Forgets what stands here of an entry: it begins anew or is left out, or what stands here changes.
    pub fn drop_older(&self, index: u64) {
        let dropped = self.locked_older().remove(&index);
        if let Some(used) = dropped {
            *used.locked_copies() = Copies::default();
        }
        self.locked_served().remove(&index);
    }

    /// The entry is whole: what stands here of it is needed no more. Which pieces it has is remembered with its sync.
    pub fn older_served(&self, index: u64) {
        let used = self.locked_older().remove(&index);
        let Some(used) = used else { return };
        let copies = std::mem::take(&mut *used.locked_copies());
        let (older, replaced) = (used.older.clone(), used.replaced);
        self.locked_served().insert(index, Served { older, replaced, copies });
    }

    /// Keeps what follows of the entry's pieces from what it was put together of. What it takes the place of is soon
    /// gone.
    pub(super) fn remember(&self, entry: &Entry, whole: Whole) {
        let Some(Served { older, replaced, copies }) = self.locked_served().remove(&entry.index) else { return };
        let (Some(remembered), Some(root), Whole::Part) = (&self.remembered, entry.root, whole) else { return };
        let root: Root = root.into();
        if let Some(replaced) = replaced.filter(|replaced| *replaced != root) {
            remembered.forget(&replaced);
        }
        remembered.put(&root, &copies.outline(entry.size, older.cut, &older.pieces));
    }
}

impl Used {
    fn locked_copies(&self) -> MutexGuard<'_, Copies> {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is known of a file's content.
fn as_landed(file: &LandedFile) -> Option<(FileStat, Root)> {
    file.root.filter(|_| file.kind == Kind::File).map(|root| (file.stat, root))
}

/// Cuts a content of so many bytes on two threads: nothing can be sent before all of it is cut, and more would take
/// the processor from the database beside it.
fn in_stretches(
    size: u64,
    most: usize,
    cut: impl Fn(Range<u64>) -> Result<Vec<u8>, Problem> + Sync,
) -> Result<Vec<u8>, Problem> {
    let middle = size / 2;
    let (first, second) = thread::scope(|scope| {
        let later = thread::Builder::new().spawn_scoped(scope, || cut(middle..u64::MAX));
        let first = cut(0..middle);
        let second = match later {
            Ok(later) => later.join().unwrap_or_else(|_| Err(Problem::new(Code::InsideFailed).cause("a cut panicked"))),
            // The system gives no more threads.
            Err(_) => cut(middle..u64::MAX),
        };
        (first, second)
    });
    let mut pieces = first?;
    // Where the first half has more than may be told, its end is not known, and so not where the other begins.
    if pieces.len() < most * PIECE_WIRE_BYTES {
        pieces.extend(second?);
        pieces.truncate(most * PIECE_WIRE_BYTES);
    }
    Ok(pieces)
}

/// A renamed file keeps its time. Where times say nothing, a length that no other file has does.
fn likeliest(entry: &Entry, found: Vec<LandedFile>) -> Option<LandedFile> {
    let root = entry.root.map(|root| *root);
    let is_only = found.len() == 1;
    let rank = |file: &LandedFile| match (root, file.root) {
        (Some(root), Some(landed)) => (root == landed).then_some(0),
        _ if file.mtime_ns == entry.mtime_ns => Some(1),
        _ => is_only.then_some(2),
    };
    let ranked = found.into_iter().filter_map(|file| Some((rank(&file)?, file)));
    ranked.min_by(|(a, one), (b, other)| (a, &one.name).cmp(&(b, &other.name))).map(|(_, file)| file)
}

/// Files of one length that are looked at.
const ALIKE_MAX: u32 = 64;
/// What is missing of a file is sent as it is where it is less than this part of what would have to be cut.
const WORTH: u64 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_copied_before_a_line_broke_is_known_as_long_as_it_is_the_same_file() {
        let stat = |inode: u64| FileStat { size: 9, mode: 0, mtime_ns: 1, ctime_ns: 1, inode, device: 0 };
        let entry = |name: &str, size: u64| Entry {
            index: 0,
            name: name.into(),
            kind: EntryKind::File,
            size,
            mode: 0,
            mtime_ns: 5,
            root: None,
            revision: 0,
            same_as: None,
            attributes: None,
        };
        let cuts = Cuts::default();
        let first = cuts.copies(stat(1), &entry("a", 7));
        let is_it = |other: &SharedCopies| Arc::ptr_eq(&first, other);
        assert!(is_it(&cuts.copies(stat(1), &entry("a", 7))) && !is_it(&cuts.copies(stat(1), &entry("b", 7))));
        assert!(!is_it(&cuts.copies(stat(2), &entry("a", 7))), "another file stands there");
        assert!(!is_it(&cuts.copies(stat(1), &entry("a", 7))), "and what was copied of the first was forgotten");
        let second = cuts.copies(stat(1), &entry("a", 8));
        cuts.served(b"a");
        assert!(!Arc::ptr_eq(&second, &cuts.copies(stat(1), &entry("a", 8))));
    }

    #[test]
    fn a_file_is_known_again_by_its_hash_then_by_its_time_then_by_its_length() {
        let landed = |name: &str, root: Option<u8>, mtime_ns: i64| LandedFile {
            name: name.into(),
            kind: Kind::File,
            root: root.map(|byte| [byte; 32]),
            size: 9,
            mtime_ns,
            stat: FileStat { size: 9, mode: 0, mtime_ns, ctime_ns: 0, inode: 0, device: 0 },
        };
        let entry = |root: Option<u8>| Entry {
            index: 0,
            name: b"new".to_vec(),
            kind: EntryKind::File,
            size: 9,
            mode: 0,
            mtime_ns: 5,
            root: root.map(|byte| [byte; 32].into()),
            revision: 0,
            same_as: None,
            attributes: None,
        };
        let is = |root, found: &[LandedFile], name: &str| {
            let likeliest = likeliest(&entry(root), found.to_vec()).map(|file| file.name).unwrap_or_default();
            assert_eq!(String::from_utf8_lossy(&likeliest), name);
        };
        let three = [landed("a", Some(1), 4), landed("b", Some(2), 5), landed("c", None, 6)];
        is(Some(1), &three, "a");
        is(Some(2), &three, "b");
        is(None, &three, "b");
        is(Some(3), &three, "");
        is(None, &[three[0].clone(), three[2].clone()], "");
        is(None, &three[2..], "c");
        is(Some(3), &three[..1], "");
        is(None, &[], "");
    }
}
