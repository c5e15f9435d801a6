//! What a folder holds so that every part of it tells which version it is of: one large file, or many small ones.
//! Whoever looks at such a folder finds it to be of one version or another; the test ends where it is of none.

use super::lossy::Random;
use super::{long, wait_for};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::ErrorKind;
use std::ops::RangeInclusive;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

pub(crate) trait Matter: Send + Sync {
    /// Makes of a folder of the version before one of this version; version 0 comes into an empty folder.
    fn write(&self, root: &Path, version: u64);

    /// Finds which of these versions stand there, as far as something tells one from the other, and ends the test where
    /// something is of none of them. None where the folder was exchanged while it was looked at.
    fn look(&self, root: &Path, versions: &RangeInclusive<u64>, how: Look) -> Option<BTreeSet<u64>>;
}

#[derive(Clone, Copy)]
pub(crate) enum Look {
    Whole,
    /// Some of it, other parts with each seed.
    Sample(u64),
}

/// The oldest version that may stand at the target, and the newest: of these each part is.
pub(crate) type Bounds = Arc<Mutex<RangeInclusive<u64>>>;

/// One file: so many blocks of 1 MiB, and a short one that grows with each version, so that every version has a length
/// of its own. Some versions write everything anew, others some ranges.
pub(crate) struct Large {
    pub(crate) blocks: u64,
}

impl Large {
    fn rewrites(&self, version: u64, block: u64) -> bool {
        let all = version == 0 || matches!(version % 4, 1 | 2) || block == self.blocks;
        all || (block / 4 + version).is_multiple_of(6)
    }

    /// The version that wrote this block last.
    fn generation(&self, version: u64, block: u64) -> u64 {
        (0..=version).rev().find(|version| self.rewrites(*version, block)).unwrap_or(0)
    }

    fn block_bytes(&self, version: u64, block: u64) -> u64 {
        if block == self.blocks { 1_000 + 7 * version } else { BLOCK_BYTES }
    }

    fn bytes(&self, version: u64) -> u64 {
        self.blocks * BLOCK_BYTES + self.block_bytes(version, self.blocks)
    }

    /// Block, place in it and length of what is looked at.
    fn parts(&self, version: u64, how: Look) -> Vec<(u64, u64, u64)> {
        match how {
            Look::Whole => (0..=self.blocks).map(|block| (block, 0, self.block_bytes(version, block))).collect(),
            Look::Sample(seed) => {
                let mut random = Random(seed);
                let mut below = |bound: u64| random.below(bound as usize) as u64;
                let mut part = || {
                    let block = below(self.blocks + 1);
                    let all = self.block_bytes(version, block);
                    let bytes = all.min(4_096);
                    (block, below(all - bytes + 1), bytes)
                };
                (0..SAMPLES).map(|_| part()).collect()
            }
        }
    }
}

impl Matter for Large {
    fn write(&self, root: &Path, version: u64) {
        let file = File::options().write(true).create(true).truncate(false).open(root.join(LARGE)).expect("a file");
        file.set_len(self.bytes(version)).expect("a length");
        for block in (0..=self.blocks).filter(|block| self.rewrites(version, *block)) {
            let content = content(version, block, 0, self.block_bytes(version, block));
            file.write_all_at(&content, block * BLOCK_BYTES).expect("it is written");
        }
    }

    fn look(&self, root: &Path, versions: &RangeInclusive<u64>, how: Look) -> Option<BTreeSet<u64>> {
        // All that is looked at is read of the one file that is opened here, whatever takes its name meanwhile.
        let file = File::open(root.join(LARGE)).expect("a version of it stands there at every moment");
        let bytes = file.metadata().expect("its length").len();
        let version = versions.clone().find(|version| self.bytes(*version) == bytes);
        let version = version.unwrap_or_else(|| panic!("{bytes} bytes is the length of none of {versions:?}"));
        for (block, from, bytes) in self.parts(version, how) {
            let mut found = vec![0; bytes as usize];
            file.read_exact_at(&mut found, block * BLOCK_BYTES + from).expect("it is as long as it says");
            let is_right = found == content(self.generation(version, block), block, from, bytes);
            assert!(is_right, "it has the length of version {version} ({versions:?}), and not its block {block}");
        }
        Some(BTreeSet::from([version]))
    }
}

/// So many small files at first, in 40 folders. Each version changes a third of them, adds a fiftieth and removes one.
pub(crate) struct Many {
    pub(crate) count: u64,
    /// The folder as a whole is of one version, not only each file.
    pub(crate) as_one: bool,
}

impl Many {
    fn added(&self) -> u64 {
        self.count / 50
    }

    /// All that there ever were up to this version.
    fn total(&self, version: u64) -> u64 {
        self.count + version * self.added()
    }

    /// The version that wrote this file last; none where it is not there.
    fn generation(&self, version: u64, number: u64) -> Option<u64> {
        let is_first = number < self.count;
        let born = if is_first { 0 } else { 1 + (number - self.count) / self.added() };
        let goes = if is_first && !number.is_multiple_of(50) { number % 50 } else { u64::MAX };
        let is_written = |version: &u64| *version == born || number % 3 == *version % 3;
        if version < goes { (born..=version).rev().find(is_written) } else { None }
    }

    fn content(&self, version: u64, number: u64) -> Option<Vec<u8>> {
        let generation = self.generation(version, number)?;
        let hash = blake3::hash(&[generation.to_be_bytes(), number.to_be_bytes()].concat());
        let noise = u16::from_be_bytes([hash.as_bytes()[0], hash.as_bytes()[1]]);
        Some(content(generation, number, 0, (1 << 10) + u64::from(noise) % (49 << 10)))
    }
}

impl Matter for Many {
    fn write(&self, root: &Path, version: u64) {
        for number in 0..self.total(version) {
            let before = version.checked_sub(1).and_then(|before| self.generation(before, number));
            if self.generation(version, number) == before {
                continue;
            }
            let path = root.join(small(number));
            match self.content(version, number) {
                Some(content) => {
                    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
                    std::fs::write(path, content).expect("a file");
                }
                None => std::fs::remove_file(path).expect("it was there"),
            }
        }
    }

    fn look(&self, root: &Path, versions: &RangeInclusive<u64>, how: Look) -> Option<BTreeSet<u64>> {
        // Beneath one handle: the folder that is opened here, whatever takes its name meanwhile.
        let folder = File::open(root).expect("the folder stands there at every moment");
        let inode = folder.metadata().expect("the folder").ino();
        let beneath = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
        let (share, seed) = match how {
            Look::Whole => (1, 0),
            Look::Sample(seed) => (if long() { 8 } else { 1 }, seed),
        };
        let (mut seen, mut of_all) = (BTreeSet::new(), versions.clone().collect::<BTreeSet<u64>>());
        for number in (0..self.total(*versions.end())).filter(|number| (number + seed).is_multiple_of(share)) {
            let found = match std::fs::read(beneath.join(small(number))) {
                Ok(content) => Some(content),
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                Err(error) => panic!("{}: {error}", small(number)),
            };
            let of: BTreeSet<u64> =
                versions.clone().filter(|version| self.content(*version, number) == found).collect();
            of_all = &of_all & &of;
            let is_mix = if self.as_one { of_all.is_empty() } else { of.is_empty() };
            // A folder that another has taken the place of is emptied, and nobody finds it by its name any more.
            if is_mix && self.as_one && std::fs::metadata(root).expect("the folder").ino() != inode {
                return None;
            }
            let bytes = found.as_ref().map(Vec::len);
            assert!(!is_mix, "{} ({bytes:?} bytes) is not of {versions:?} as the rest is", small(number));
            if of.len() == 1 && !self.as_one {
                seen.extend(of);
            }
        }
        if self.as_one && of_all.len() == 1 {
            seen = of_all;
        }
        Some(seen)
    }
}

fn small(number: u64) -> String {
    format!("{:02}/{number}.bin", number % 40)
}

/// A part of what a version writes under a number: first both of them, then what nothing packs. It is always the same.
fn content(version: u64, number: u64, from: u64, bytes: u64) -> Vec<u8> {
    let mark = [version.to_be_bytes(), number.to_be_bytes()].concat();
    let mut content = vec![0; bytes as usize];
    let mut reader = blake3::Hasher::new().update(&mark).finalize_xof();
    reader.set_position(from);
    reader.fill(&mut content);
    for (byte, mark) in content.iter_mut().zip(mark.iter().skip(from as usize)) {
        *byte = *mark;
    }
    content
}

/// BLAKE3 of every file beneath a folder by its name, but for those that are on their way there.
pub(crate) fn prints(root: &Path) -> BTreeMap<String, String> {
    let mut prints = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let entry = entry.expect("an entry");
            let path = entry.path();
            if entry.file_type().expect("its kind").is_dir() {
                open.push(path);
            } else if !entry.file_name().as_bytes().starts_with(b".posthouse-") {
                let mut hasher = blake3::Hasher::new();
                hasher.update_reader(File::open(&path).expect("a file")).expect("it is read");
                let name = path.strip_prefix(root).expect("it is inside").to_string_lossy().into_owned();
                prints.insert(name, hasher.finalize().to_hex().to_string());
            }
        }
    }
    prints
}

/// Looks at a folder again and again, from a thread of its own.
pub(crate) struct Watcher {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<BTreeSet<u64>>>,
}

impl Watcher {
    /// Begins, and has looked once.
    pub(crate) fn start(matter: Arc<dyn Matter>, root: PathBuf, bounds: Bounds) -> Self {
        let (stop, looks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, looked) = (Arc::clone(&stop), Arc::clone(&looks));
        let thread = std::thread::spawn(move || {
            let mut seen = BTreeSet::new();
            loop {
                // Once it is to stop, it looks one time more.
                let is_last = stopped.load(Ordering::Relaxed);
                let look = Look::Sample(looked.load(Ordering::Relaxed));
                // The bounds stay while it looks.
                let bounds = bounds.lock().expect("the test goes on");
                seen.extend(matter.look(&root, &bounds, look).into_iter().flatten());
                drop(bounds);
                looked.fetch_add(1, Ordering::Relaxed);
                if is_last {
                    return seen;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        wait_for("somebody looks", Duration::from_secs(60), || {
            looks.load(Ordering::Relaxed) > 0 || thread.is_finished()
        });
        Self { stop, thread: Some(thread) }
    }

    /// Ends, and gives the versions that were seen.
    pub(crate) fn finish(mut self) -> BTreeSet<u64> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.take().expect("it runs").join() {
            Ok(seen) => seen,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

const LARGE: &str = "large.bin";
const BLOCK_BYTES: u64 = 1 << 20;
/// How many parts of the large file are looked at each time.
const SAMPLES: usize = 24;
