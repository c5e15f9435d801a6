//! What pieces files have that were landed: an outline for each content, in a file of its own that is named by the
//! content's root. The next change of such a file then reads and cuts only what its last one brought. All of it is a
//! hint: nothing is synced, a file that is torn, or says of itself what is not so, is not used, and a piece that is told
//! wrongly costs one chunk that comes again as a whole. Whether a file still is what was landed says the store.

use posthouse_platform::disk::Disk;
use posthouse_protocol::delta::{Cut, Outline, PARTS_MAX, PIECE_WIRE_BYTES};
use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// BLAKE3 of a content.
pub type Root = [u8; 32];

/// The outlines that a node keeps. All calls block.
pub struct Remembered {
    folder: PathBuf,
    disk: Arc<dyn Disk>,
    /// Set once the folder was looked at.
    kept: Mutex<Option<Kept>>,
    /// What was read of older files to cut them.
    read: AtomicU64,
}

#[derive(Default)]
struct Kept {
    /// How long each file is, and its turn to go.
    by_root: BTreeMap<Root, (u64, u64)>,
    turns: u64,
}

impl Remembered {
    /// They are kept in a folder of their own, which is made when something is put there.
    pub fn new(folder: PathBuf, disk: Arc<dyn Disk>) -> Self {
        Self { folder, disk, kept: Mutex::default(), read: AtomicU64::new(0) }
    }

    /// The outline of a content of so many bytes.
    pub fn get(&self, root: &Root, size: u64) -> Option<Outline> {
        let kept = self.locked();
        if !kept.as_ref()?.by_root.contains_key(root) {
            return None;
        }
        drop(kept);
        let found = read(&self.path(root)).ok().and_then(|bytes| decode(&bytes, root, size));
        if found.is_none() {
            tracing::debug!(root = hex::encode(root), "What was remembered of a file cannot be used");
            self.forget(root);
        }
        found
    }

    /// Remembers it, if so much of it is known that it is of use; what was put there the longest ago makes room. That it
    /// cannot be kept is no matter.
    pub fn put(&self, root: &Root, outline: &Outline) {
        if outline.known_bytes() < outline.size() / USEFUL {
            return;
        }
        let bytes = encode(root, outline);
        let mut locked = self.locked();
        let Some(kept) = locked.as_mut() else { return };
        for oldest in kept.in_the_way(root, bytes.len() as u64) {
            kept.by_root.remove(&oldest);
            self.remove(&oldest);
        }
        match self.write(root, &bytes) {
            Ok(true) => kept.add(*root, bytes.len() as u64),
            Ok(false) => {}
            Err(error) => tracing::debug!(%error, "The pieces of a file are not remembered"),
        }
    }

    /// The content is where it was no more.
    pub fn forget(&self, root: &Root) {
        if self.locked().as_mut().is_some_and(|kept| kept.by_root.remove(root).is_some()) {
            self.remove(root);
        }
    }

    /// So much of an older file was read to cut it.
    pub(crate) fn has_read(&self, bytes: usize) {
        self.read.fetch_add(bytes as u64, Ordering::Relaxed);
    }
    /// How much was read of older files to cut them, since this process began.
    pub fn read_bytes(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// False where the disk has little room left: that is for those who need it.
    fn write(&self, root: &Root, bytes: &[u8]) -> io::Result<bool> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        if self.disk.free_bytes(&self.folder)? < FREE_BYTES_MIN {
            return Ok(false);
        }
        let (path, new) = (self.path(root), self.folder.join(format!("{}{NEW}", hex::encode(root))));
        self.disk.before_write(&path, bytes.len() as u64)?;
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&new);
        let written = file.and_then(|mut file| file.write_all(bytes)).and_then(|()| std::fs::rename(&new, &path));
        if written.is_err() {
            let _ = std::fs::remove_file(&new);
        }
        written.map(|()| true)
    }

    fn remove(&self, root: &Root) {
        // One that remains is found at the next start, and is of no harm.
        let _ = std::fs::remove_file(self.path(root));
    }

    fn path(&self, root: &Root) -> PathBuf {
        self.folder.join(format!("{}{SUFFIX}", hex::encode(root)))
    }

    /// With what is in the folder: something, once it was locked.
    fn locked(&self) -> MutexGuard<'_, Option<Kept>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get_or_insert_with(|| Kept::of(&self.folder));
        kept
    }
}

impl Kept {
    /// What an earlier process has left. What it was about to put there is removed.
    fn of(folder: &Path) -> Self {
        let mut found: Vec<(SystemTime, Root, u64)> = Vec::new();
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let (name, path) = (entry.file_name(), entry.path());
            let Some(name) = name.to_str() else { continue };
            if name.ends_with(NEW) {
                let _ = std::fs::remove_file(&path);
            }
            let (Some(root), Ok(data)) = (root_of(name), entry.metadata()) else { continue };
            found.push((data.modified().unwrap_or(SystemTime::UNIX_EPOCH), root, data.len()));
        }
        found.sort_unstable();
        let mut kept = Self::default();
        for (_, root, bytes) in found {
            kept.add(root, bytes);
        }
        kept
    }

    fn add(&mut self, root: Root, bytes: u64) {
        self.turns += 1;
        self.by_root.insert(root, (bytes, self.turns));
    }

    /// Those that have to go for one of so many bytes, the oldest first.
    fn in_the_way(&self, root: &Root, bytes: u64) -> Vec<Root> {
        let mut others: Vec<(u64, Root, u64)> =
            self.by_root.iter().map(|(other, (bytes, turn))| (*turn, *other, *bytes)).collect();
        others.retain(|(_, other, _)| other != root);
        let mut files = others.len();
        let mut held: u64 = others.iter().map(|(_, _, bytes)| *bytes).sum();
        let mut doomed = Vec::new();
        others.sort_unstable();
        for (_, other, has) in others {
            if files < FILES_MAX && held.saturating_add(bytes) <= BYTES_MAX {
                break;
            }
            files -= 1;
            held -= has;
            doomed.push(other);
        }
        doomed
    }
}

fn root_of(name: &str) -> Option<Root> {
    let root = name.strip_suffix(SUFFIX)?;
    let mut bytes = [0; 32];
    hex::decode_to_slice(root, &mut bytes).ok()?;
    // In small letters only: each content has one name.
    (hex::encode(bytes) == root).then_some(bytes)
}

/// No more than one may have, whatever stands there.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > FILE_BYTES_MAX { Err(io::ErrorKind::InvalidData.into()) } else { Ok(bytes) }
}

fn encode(root: &Root, outline: &Outline) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES + outline.parts().len() + SUM_BYTES);
    bytes.extend_from_slice(MARK);
    bytes.extend_from_slice(root);
    bytes.extend_from_slice(&outline.size().to_be_bytes());
    bytes.extend_from_slice(&outline.cut().mean().to_be_bytes());
    bytes.extend_from_slice(outline.parts());
    let sum = blake3::hash(&bytes);
    bytes.extend_from_slice(sum.as_bytes());
    bytes
}

fn decode(bytes: &[u8], root: &Root, size: u64) -> Option<Outline> {
    let (content, sum) = bytes.split_last_chunk::<SUM_BYTES>()?;
    if blake3::hash(content).as_bytes() != sum {
        return None;
    }
    let (own, rest) = content.strip_prefix(MARK)?.split_first_chunk::<32>()?;
    let (of, rest) = rest.split_first_chunk::<8>()?;
    let (mean, parts) = rest.split_first_chunk::<4>()?;
    if own != root || u64::from_be_bytes(*of) != size {
        return None;
    }
    let cut = Cut::new(u32::from_be_bytes(*mean)).ok()?;
    Outline::new(cut, size, parts.to_vec()).ok()
}

/// What it is, and in which form.
const MARK: &[u8] = b"posthouse pieces 1\n";
const SUFFIX: &str = ".pieces";
const NEW: &str = ".new";
const SUM_BYTES: usize = 32;
const HEAD_BYTES: usize = MARK.len() + 32 + 8 + 4;
const FILE_BYTES_MAX: usize = HEAD_BYTES + PARTS_MAX * PIECE_WIRE_BYTES + SUM_BYTES;
/// With less than one part in so many known it is quicker to cut all of it, which two threads do.
const USEFUL: u64 = 2;
const FILES_MAX: usize = 4096;
/// Those of twenty files of 4 GiB; of such as have longer pieces no file takes more.
const BYTES_MAX: u64 = 64 << 20;
/// The last of a disk is left to those who need it.
const FREE_BYTES_MIN: u64 = 64 << 20;

const _: () = assert!(FILE_BYTES_MAX as u64 <= BYTES_MAX);

#[cfg(test)]
mod tests {
    use super::*;
    use posthouse_platform::disk::{FaultyDisk, RealDisk};

    fn part(value: u64, bytes: u32) -> Vec<u8> {
        [&value.to_be_bytes()[..], &bytes.to_be_bytes()].concat()
    }

    /// Two pieces with something between them.
    fn outline() -> Outline {
        let parts = [part(7, 20_000), part(100, 0), part(8, 30_000)].concat();
        Outline::new(Cut::for_size(1), 50_100, parts).unwrap()
    }

    fn remembered(folder: &Path) -> Remembered {
        Remembered::new(folder.join("pieces"), Arc::new(RealDisk))
    }

    fn files(folder: &Path) -> usize {
        std::fs::read_dir(folder.join("pieces")).map_or(0, Iterator::count)
    }

    #[test]
    fn an_outline_survives_its_process_and_is_that_of_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let first = remembered(folder.path());
        assert_eq!(first.get(&[1; 32], 50_100), None);
        first.put(&[1; 32], &outline());
        assert_eq!(first.get(&[1; 32], 50_100), Some(outline()));
        std::fs::write(folder.path().join("pieces/left.new"), b"torn").unwrap();
        std::fs::write(folder.path().join("pieces/what else"), b"stays").unwrap();
        let later = remembered(folder.path());
        assert_eq!(later.get(&[1; 32], 50_100), Some(outline()));
        assert_eq!(later.get(&[2; 32], 50_100), None, "another content");
        assert_eq!(files(folder.path()), 2, "what was not finished is gone, and what is not its own stays");
        later.forget(&[1; 32]);
        assert_eq!((later.get(&[1; 32], 50_100), files(folder.path())), (None, 1));
        assert_eq!(remembered(folder.path()).get(&[1; 32], 50_100), None);
    }

    #[test]
    fn what_is_torn_or_says_what_is_not_so_is_refused_and_goes() {
        let root = [1; 32];
        let whole = encode(&root, &outline());
        assert_eq!(decode(&whole, &root, 50_100), Some(outline()));
        for at in 0..whole.len() {
            let mut torn = whole.clone();
            torn[at] ^= 4;
            assert_eq!(decode(&torn, &root, 50_100), None, "byte {at}");
            assert_eq!(decode(&whole[..at], &root, 50_100), None, "{at} bytes");
        }
        assert_eq!(decode(&whole, &[2; 32], 50_100), None);
        assert_eq!(decode(&whole, &root, 50_099), None);
        // The sum is right, and the rest is not.
        let summed = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = whole[..whole.len() - SUM_BYTES].to_vec();
            change(&mut bytes);
            let sum = blake3::hash(&bytes);
            [&bytes[..], sum.as_bytes()].concat()
        };
        assert_eq!(decode(&summed(&|_| {}), &root, 50_100), Some(outline()));
        let mean = HEAD_BYTES - 4;
        for wrong in [
            summed(&|bytes| bytes[17] = b'2'),
            summed(&|bytes| bytes[mean] = 1),
            summed(&|bytes| bytes.truncate(HEAD_BYTES + 12)),
            summed(&|bytes| bytes.extend_from_slice(&[0; 12])),
            summed(&|bytes| bytes.clear()),
        ] {
            assert_eq!(decode(&wrong, &root, 50_100), None);
        }
        let folder = tempfile::tempdir().unwrap();
        let remembered = remembered(folder.path());
        remembered.put(&root, &outline());
        std::fs::write(remembered.path(&root), &whole[..40]).unwrap();
        assert_eq!((remembered.get(&root, 50_100), files(folder.path())), (None, 0));
        remembered.put(&root, &outline());
        // A file of any length may stand there.
        File::options().write(true).open(remembered.path(&root)).unwrap().set_len(1 << 40).unwrap();
        assert_eq!((remembered.get(&root, 50_100), files(folder.path())), (None, 0));
    }

    #[test]
    fn what_was_put_there_the_longest_ago_makes_room() {
        let root = |number: u64| {
            let mut root = [0; 32];
            root[..8].copy_from_slice(&number.to_be_bytes());
            root
        };
        let mut kept = Kept::default();
        for number in 0..FILES_MAX as u64 {
            kept.add(root(number), 10);
        }
        assert_eq!(kept.in_the_way(&root(0), 10), Vec::<Root>::new(), "it takes its own place");
        kept.add(root(0), 10);
        assert_eq!(kept.in_the_way(&root(FILES_MAX as u64), 10), [root(1)], "the first was put there anew");
        let mut kept = Kept::default();
        for number in 0..3 {
            kept.add(root(number), BYTES_MAX / 4);
        }
        assert_eq!(kept.in_the_way(&root(9), BYTES_MAX / 4), Vec::<Root>::new());
        assert_eq!(kept.in_the_way(&root(9), BYTES_MAX / 2), [root(0)]);
        assert_eq!(kept.in_the_way(&root(9), BYTES_MAX), [root(0), root(1), root(2)]);
    }

    #[test]
    fn what_is_of_little_use_or_has_no_room_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let remembered = remembered(folder.path());
        let little = Outline::new(Cut::for_size(1), 50_000, [part(7, 24_999), part(25_001, 0)].concat()).unwrap();
        remembered.put(&[1; 32], &little);
        assert_eq!((remembered.get(&[1; 32], 50_000), files(folder.path())), (None, 0));
        let full = FaultyDisk::new();
        full.set(folder.path().join("full"), posthouse_platform::disk::Fault::Full);
        let remembered = Remembered::new(folder.path().join("full"), Arc::new(full));
        remembered.put(&[1; 32], &outline());
        assert_eq!(remembered.get(&[1; 32], 50_100), None);
        assert_eq!(std::fs::read_dir(folder.path().join("full")).unwrap().count(), 0);
    }
}
