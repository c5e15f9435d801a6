//! A file on its way: written beside its target under a temporary name, in any order, and made visible
//! only by the destination's `publish`. It can be dropped and opened again at any time.

use super::attributes;
use super::fault::writing;
use super::source::read_full;
use super::stat::travelling_mode;
use posthouse_platform::disk::Disk;
use posthouse_protocol::chunk::is_zero;
use posthouse_protocol::manifest::Entry;
use posthouse_protocol::problem::Problem;
use rustix::fd::OwnedFd;
use rustix::fs::{FallocateFlags, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub struct Part {
    file: Arc<File>,
    /// The same file, past the kernel's memory: of a large one.
    direct: Option<Direct>,
    /// Held by who writes into the kernel's memory: the kernel lets one at a time write to a file, and lets the others
    /// use up their processors while they wait.
    turn: Mutex<()>,
    path: PathBuf,
    fresh: bool,
    written: Arc<Written>,
}

/// Writing into the kernel's memory first costs several times the processor's time of writing past it, and pushes out
/// what others have there.
struct Direct {
    file: File,
    /// The file system takes the flag and not the writes.
    is_refused: AtomicBool,
    ahead: Mutex<Ahead>,
}

/// Room is taken on the disk before content comes to it, a stretch at a time: looked for with each write, and made
/// durable with each sync, it costs a sixth of the disk's speed. A file with a hole takes no more of it.
struct Ahead {
    /// How long the file will be.
    size: u64,
    /// Room is taken up to here.
    until: u64,
    /// A hole was met, or there may be some of an earlier process; or the disk has no such thing, or not as much.
    ended: bool,
}

impl Part {
    pub(crate) fn new(file: File, path: PathBuf, fresh: bool, written: Arc<Written>) -> Self {
        Self { file: Arc::new(file), direct: None, turn: Mutex::default(), path, fresh, written }
    }

    /// Says how long the file will be: a large one is written past the kernel's memory, where its content lies so in
    /// this process's that it can be.
    pub fn sized(mut self, bytes: u64) -> Result<Self, Problem> {
        self.direct = if bytes < DIRECT_BYTES_MIN { None } else { Direct::open(&self.file, bytes, self.fresh) };
        if self.direct.is_some() && self.fresh {
            // A write past memory that makes a file longer waits for all others.
            rustix::fs::ftruncate(&self.file, bytes).map_err(|e| writing(&self.path, e))?;
        }
        Ok(self)
    }

    /// Whether it starts empty: what was recorded of an earlier one is then void.
    pub fn fresh(&self) -> bool {
        self.fresh
    }

    /// Regions of zeros become holes, so that a sparse file stays one.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), Problem> {
        self.put(offset, bytes)?;
        self.written.note(&self.file, &self.path, false)
    }

    /// Writes all of a file at once and seals it with that: one that is short is handled once, and not again when its
    /// group becomes durable.
    pub fn write_whole(self, entry: &Entry, content: &[u8]) -> Result<(), Problem> {
        self.put(0, content)?;
        let is_long_enough = self.fresh && content.len() as u64 == entry.size;
        let is_whole = self.give(entry, is_long_enough)?;
        let Self { file, path, written, .. } = self;
        written.note_new(file, path, is_whole)
    }

    fn put(&self, offset: u64, bytes: &[u8]) -> Result<(), Problem> {
        let failed = |e: std::io::Error| writing(&self.path, e);
        self.written.disk.before_write(&self.path, bytes.len() as u64).map_err(failed)?;
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let zeros = zeros_at_start(rest);
            if zeros >= HOLE_BYTES_MIN {
                self.hole(offset + at as u64, zeros).map_err(failed)?;
                at += zeros;
            } else {
                let data = data_at_start(rest, zeros);
                self.data(offset + at as u64, rest.get(..data).unwrap_or(rest)).map_err(failed)?;
                at += data;
            }
        }
        Ok(())
    }

    fn data(&self, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
        let directly = match &self.direct {
            Some(direct) => {
                let free = || self.written.disk.free_bytes(&self.path).unwrap_or(0);
                direct.take_room(offset, bytes.len() as u64, &free);
                direct.write(offset, bytes)?
            }
            None => 0,
        };
        let rest = bytes.get(directly..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(());
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.file.write_all_at(rest, offset + directly as u64)
    }

    /// To check again what an earlier process wrote. Fills `out` unless the file ends before.
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<usize, Problem> {
        read_full(&self.file, offset, out).map_err(|e| writing(&self.path, e))
    }

    /// Gives the file its length, attributes, mode and mtime. It then waits for `sync` and `publish`.
    pub fn seal(self, entry: &Entry) -> Result<(), Problem> {
        let is_whole = self.give(entry, false)?;
        self.written.note(&self.file, &self.path, is_whole)
    }

    /// Says whether more than its bytes is to be made durable.
    fn give(&self, entry: &Entry, has_its_length: bool) -> Result<bool, Problem> {
        let failed = |e: Errno| writing(&self.path, e);
        // To set a length that it has already costs a small file as much as to write it.
        if !has_its_length && rustix::fs::fstat(&self.file).map_err(failed)?.st_size as u64 != entry.size {
            rustix::fs::ftruncate(&self.file, entry.size).map_err(failed)?;
        }
        // Before its rights, which may forbid it. One that an earlier process left may have some, though nothing is said
        // of any now.
        let has_new = match entry.attributes.as_deref() {
            None if self.fresh => false,
            None => attributes::make(&*self.file, &[]).unwrap_or(false),
            Some(wanted) => attributes::make(&*self.file, wanted)
                .map_err(|e| attributes::setting(&entry.name, &self.path, e, &*self.written.disk))?,
        };
        rustix::fs::fchmod(&self.file, Mode::from_raw_mode(travelling_mode(&entry.kind, entry.mode)))
            .map_err(failed)?;
        rustix::fs::futimens(&self.file, &modified(entry.mtime_ns)).map_err(failed)?;
        // What is there may be of an earlier process, which did not come to sync it.
        Ok(has_new || (!self.fresh && entry.attributes.is_some()))
    }

    fn hole(&self, offset: u64, bytes: usize) -> std::io::Result<()> {
        let end = offset.saturating_add(bytes as u64);
        if self.file.metadata()?.len() < end {
            // What lies beyond the end reads as zeros once the file is longer; whatever stood before the old end
            // within this region is punched out below. One byte of its own region makes it longer: setting the
            // length could cut off what another chunk's writer has put behind it meanwhile.
            self.file.write_all_at(&[0], end.saturating_sub(1))?;
        }
        if self.fresh && !self.direct.as_ref().is_some_and(|direct| direct.has_room(offset)) {
            return Ok(());
        }
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.file, punch, offset, bytes as u64) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => self.file.write_all_at(&vec![0; bytes], offset),
            Err(e) => Err(e.into()),
        }
    }
}

impl Direct {
    /// None where the file system or the kernel has no such thing.
    fn open(file: &File, size: u64, fresh: bool) -> Option<Self> {
        // It takes the flag, and has nothing else to write to than the kernel's memory; there several at once only wait.
        let is_memory = rustix::fs::fstatfs(file).is_ok_and(|found| found.f_type as u32 == TMPFS);
        if is_memory { None } else { Self::of(file, size, fresh) }
    }

    fn of(file: &File, size: u64, fresh: bool) -> Option<Self> {
        let own = format!("/proc/self/fd/{}", file.as_raw_fd());
        let flags = OFlags::WRONLY | OFlags::DIRECT | OFlags::CLOEXEC;
        let file = rustix::fs::open(own, flags, Mode::empty()).ok()?;
        let ahead = Mutex::new(Ahead { size, until: 0, ended: !fresh });
        Some(Self { file: file.into(), is_refused: AtomicBool::new(false), ahead })
    }

    fn ahead(&self) -> MutexGuard<'_, Ahead> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For content that is to be written, and some that is likely to follow it.
    fn take_room(&self, offset: u64, bytes: u64, free: &dyn Fn() -> u64) {
        let mut ahead = self.ahead();
        if ahead.ended || offset + bytes <= ahead.until {
            return;
        }
        let from = offset.max(ahead.until);
        let until = (from + AHEAD_BYTES).min(ahead.size);
        let length = until.saturating_sub(from);
        if length == 0 || free() < FREE_BYTES_MIN {
            ahead.ended = true;
            return;
        }
        // Whether there is room enough says the write.
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), from, length) {
            Ok(()) => ahead.until = until,
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => ahead.ended = true,
            // Some of it may be taken.
            Err(_) => (ahead.until, ahead.ended) = (until, true),
        }
    }

    /// Whether room is taken at a hole's place, or behind it. None is from now on.
    fn has_room(&self, offset: u64) -> bool {
        let mut ahead = self.ahead();
        ahead.ended = true;
        offset < ahead.until
    }

    /// Writes as much from the beginning as can be written so; how much that was.
    fn write(&self, offset: u64, bytes: &[u8]) -> std::io::Result<usize> {
        let block = BLOCK_BYTES as u64;
        let lies_well = bytes.as_ptr().align_offset(BLOCK_BYTES) == 0 && offset.is_multiple_of(block);
        if !lies_well || self.is_refused.load(Ordering::Relaxed) {
            return Ok(0);
        }
        let whole = bytes.len() - bytes.len() % BLOCK_BYTES;
        match self.file.write_all_at(bytes.get(..whole).unwrap_or_default(), offset) {
            Ok(()) => Ok(whole),
            Err(e) if e.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                self.is_refused.store(true, Ordering::Relaxed);
                Ok(0)
            }
            Err(e) => Err(e),
        }
    }
}

/// A file that was written to, and whether more of it than its bytes is to be durable.
struct Unsynced {
    /// None of one of many, which are synced with their file system.
    file: Option<Arc<File>>,
    path: PathBuf,
    whole: bool,
    /// On another file system, which is mounted within the folder: it is synced by itself.
    elsewhere: bool,
}

impl Unsynced {
    fn is(&self, file: &Arc<File>) -> bool {
        self.file.as_ref().is_some_and(|own| Arc::ptr_eq(own, file))
    }
}

/// Which files have bytes that are not durable yet. Shared by a destination and its parts.
pub(crate) struct Written {
    pub(crate) disk: Arc<dyn Disk>,
    /// Of the whole folder; held since before the first write.
    folder: OwnedFd,
    /// The file system of that; None where it is not known.
    device: Option<u64>,
    path: PathBuf,
    files: Mutex<Vec<Unsynced>>,
    /// Held while files are synced: who finds the list empty knows that they are durable. Keeps the first
    /// error: what was written before is of unknown content, and the system tells of it once only.
    syncing: Mutex<Option<Problem>>,
    /// The file system can be synced as a whole: the disk says so, or it was before.
    syncs_at_once: AtomicBool,
}

impl Written {
    pub(crate) fn new(disk: Arc<dyn Disk>, folder: OwnedFd, path: PathBuf) -> Self {
        let (files, syncing) = (Mutex::new(Vec::new()), Mutex::new(None));
        // Asked at once: as long as it is not known, files hold handles, and who writes waits for the first sync when
        // there are as many as may be.
        let syncs_at_once = AtomicBool::new(disk.syncs_file_system(folder.as_fd()));
        let device = device_of(&folder);
        Self { disk, folder, device, path, files, syncing, syncs_at_once }
    }

    fn locked(&self) -> MutexGuard<'_, Vec<Unsynced>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file is to be made durable; `whole` with its attributes too.
    pub(crate) fn note(&self, file: &Arc<File>, path: &Path, whole: bool) -> Result<(), Problem> {
        let mut files = self.locked();
        // It is most often the last one.
        if let Some(known) = files.iter_mut().rev().find(|known| known.is(file)) {
            known.whole |= whole;
            return Ok(());
        }
        let elsewhere = self.is_elsewhere(device_of(file));
        self.push(files, Unsynced { file: Some(Arc::clone(file)), path: path.to_owned(), whole, elsewhere })
    }

    /// The same of one that was not noted before: many small ones are not looked for among each other.
    fn note_new(&self, file: Arc<File>, path: PathBuf, whole: bool) -> Result<(), Problem> {
        let elsewhere = self.is_elsewhere(device_of(&file));
        let files = self.locked();
        // A handle that is not needed is one less of those that a process may have.
        let is_one_of_many = files.len() >= MANY && self.syncs_at_once() && !elsewhere;
        let file = if is_one_of_many { None } else { Some(file) };
        self.push(files, Unsynced { file, path, whole, elsewhere })
    }

    fn push(&self, mut files: MutexGuard<'_, Vec<Unsynced>>, new: Unsynced) -> Result<(), Problem> {
        // Each waiting file that is not one of many holds a handle: beyond some hundred they are made durable at once.
        let holds_one = new.file.is_some();
        files.push(new);
        let holding = || files.iter().filter(|file| file.file.is_some()).count();
        let full = holds_one && files.len() >= FILES_MAX && holding() >= FILES_MAX;
        drop(files);
        if full { self.sync() } else { Ok(()) }
    }

    /// After an error it fails until the destination is opened anew.
    pub(crate) fn sync(&self) -> Result<(), Problem> {
        let mut failed = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(problem) = &*failed {
            return Err(problem.clone());
        }
        self.sync_files().inspect_err(|problem| *failed = Some(problem.clone()))
    }

    fn sync_files(&self) -> Result<(), Problem> {
        let mut files = std::mem::take(&mut *self.locked());
        if files.len() >= MANY && self.sync_all()? {
            self.syncs_at_once.store(true, Ordering::Relaxed);
            files.retain(|file| file.elsewhere);
        }
        for Unsynced { file, path, whole, .. } in &files {
            // What could be done before can be done again.
            let file = file.as_ref().ok_or_else(|| writing(path, Errno::NOTSUP))?.as_fd();
            let synced = if *whole { self.disk.sync_file_whole(file, path) } else { self.disk.sync_file(file, path) };
            synced.map_err(|e| writing(path, e))?;
        }
        Ok(())
    }

    fn syncs_at_once(&self) -> bool {
        self.syncs_at_once.load(Ordering::Relaxed)
    }

    /// Whether something is on another file system than the folder, and so is not made durable by `sync_all`.
    pub(crate) fn is_elsewhere(&self, device: Option<u64>) -> bool {
        device.is_none() || device != self.device
    }

    /// Everything on the folder's own file system at once, where the system can: false where it cannot.
    pub(crate) fn sync_all(&self) -> Result<bool, Problem> {
        match self.disk.sync_file_system(self.folder.as_fd(), &self.path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == std::io::ErrorKind::Unsupported => Ok(false),
            Err(e) => Err(writing(&self.path, e)),
        }
    }
}

fn device_of(file: &impl AsFd) -> Option<u64> {
    rustix::fs::fstat(file).ok().map(|stat| stat.st_dev)
}

/// This mtime, and the access time as it is.
pub(crate) fn modified(mtime_ns: i64) -> Timestamps {
    let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT as _ };
    let mtime =
        Timespec { tv_sec: mtime_ns.div_euclid(1_000_000_000), tv_nsec: mtime_ns.rem_euclid(1_000_000_000) as _ };
    Timestamps { last_access: omit, last_modification: mtime }
}

fn zeros_at_start(bytes: &[u8]) -> usize {
    bytes.chunks(BLOCK_BYTES).take_while(|block| is_zero(block)).map(<[u8]>::len).sum()
}

/// Up to the next hole worth making; `from` zeros at the start are data.
fn data_at_start(bytes: &[u8], from: usize) -> usize {
    let mut end = from;
    while let Some(rest) = bytes.get(end..).filter(|rest| !rest.is_empty()) {
        let zeros = zeros_at_start(rest);
        if zeros >= HOLE_BYTES_MIN {
            break;
        }
        end += zeros;
        end += rest.get(zeros..).map_or(0, |data| data.len().min(BLOCK_BYTES));
    }
    end
}

const BLOCK_BYTES: usize = 4096;
/// A file system in memory, see statfs(2).
const TMPFS: u32 = 0x0102_1994;
const DIRECT_BYTES_MIN: u64 = 64 << 20;
const AHEAD_BYTES: u64 = 64 << 20;
/// The last of a disk is left to those who need it now.
const FREE_BYTES_MIN: u64 = 4 * AHEAD_BYTES;
const HOLE_BYTES_MIN: usize = 64 << 10;
/// While so many are synced as many more may come: with both a process stays well within the 1,024 handles that it has
/// where nobody gave it more.
const FILES_MAX: usize = 256;
/// From so many files or folders on, one sync of the file system is quicker than one each.
pub(crate) const MANY: usize = 16;

#[cfg(test)]
mod tests;
