//! 旧版本: what landing takes the place of is kept where the job says so: each file that is written over or deleted, and
//! with `replace` the whole folder. Every transfer has a folder of its own there, named by its time, in which each file
//! stands under the name that it had. None of it is landed or offered: it is for people to look into and copy from.

use super::attributes;
use super::beneath::Root;
use super::destination::make_root;
use super::fault::writing;
use super::names::{SELF, is_short, join, part_leaf, split};
use super::part::modified;
use super::replace::remove_tree;
use super::stat::{FileStat, file_type};
use posthouse_platform::disk::Disk;
use posthouse_protocol::limits::COMPONENT_BYTES_MAX;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::time::Timestamp;
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where a job keeps what its transfers take the place of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versions {
    /// On the file system of the folder that is landed in, and not in it. One job's own.
    pub folder: PathBuf,
    /// When the transfer was begun: so its own folder there is named.
    pub begun: Timestamp,
    /// How long what a transfer has kept is of use, in milliseconds; none = for ever.
    pub keep_ms: Option<i64>,
}

/// [`Versions`], opened.
pub(crate) struct Kept {
    root: Root,
    /// The transfer's own folder there; it is made when there is something to keep.
    own: String,
    keep_ms: Option<i64>,
    short: String,
    disk: Arc<dyn Disk>,
    /// Folders there with new names in them.
    touched: Mutex<BTreeSet<Vec<u8>>>,
}

impl Kept {
    /// `landing` is the folder that is landed in, `place` where it stands or will stand.
    pub(crate) fn open(
        versions: &Versions,
        landing: &Root,
        place: &Path,
        short: &str,
        disk: Arc<dyn Disk>,
    ) -> Result<Self, Problem> {
        let path = &versions.folder;
        let refused = |cause: &str| {
            let cause = format!("older versions are kept {cause}");
            Problem::new(Code::DestinationFailed).with("target", path.display()).cause(cause)
        };
        if resolved(path).starts_with(resolved(place)) {
            return Err(refused("elsewhere than in the folder that is landed in"));
        }
        // Whom the folders that files came from were open to is not known there: it is open to its owner alone.
        make_root(path, disk.as_ref(), 0o700)?;
        let failed = |e: Errno| writing(path, e);
        let root = Root::open(path).map_err(failed)?;
        let device = |of: &Root| rustix::fs::fstat(of.handle()).map(|stat| stat.st_dev);
        // Two mounts of one file system are two to the kernel. It says so before it looks for the name.
        let none = part_leaf(short, b"///");
        let between = rustix::fs::renameat(landing.handle(), none.as_slice(), root.handle(), none.as_slice());
        if device(&root).map_err(failed)? != device(landing).map_err(failed)? || between == Err(Errno::XDEV) {
            return Err(refused("on the file system and mount of the folder that is landed in"));
        }
        let own = format!("{}-{short}", stamp(versions.begun));
        let touched = Mutex::default();
        Ok(Self { root, own, keep_ms: versions.keep_ms, short: short.to_owned(), disk, touched })
    }

    /// Gives what stands at `leaf` of a folder a second name here. Where nothing stands there, or a folder, there is
    /// nothing to keep; a repeat changes nothing.
    pub(crate) fn keep(&self, from: &OwnedFd, leaf: &[u8], name: &[u8]) -> Result<(), Problem> {
        let kept = self.name_of(name);
        let path = self.root.path_of(&kept);
        let failed = |e: std::io::Error| writing(&path, e);
        let mut tries = 0;
        loop {
            let stat = match rustix::fs::statat(from, leaf, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if file_type(&stat) == FileType::Directory => return Ok(()),
                Ok(stat) => stat,
                Err(Errno::NOENT) => return Ok(()),
                Err(e) => return Err(failed(e.into())),
            };
            self.disk.before_write(&path, 0).map_err(failed)?;
            let (folder_name, own_leaf) = split(&kept);
            let folder = self.make_folder(folder_name)?;
            match self.put(from, leaf, &stat, &folder, own_leaf) {
                Ok(()) => return Ok(()),
                // Another writer of this transfer was quicker, or somebody has taken it away.
                Err(e) if tries < TRIES_MAX && matches!(e.kind(), ErrorKind::AlreadyExists | ErrorKind::NotFound) => {
                    tries += 1;
                }
                Err(e) => return Err(failed(e)),
            }
        }
    }

    /// Keeps a folder as a whole, which stands beside the one that is landed in. There may be none.
    pub(crate) fn keep_folder(&self, parent: &OwnedFd, leaf: &str) -> Result<(), Problem> {
        let path = self.root.path_of(self.own.as_bytes());
        let failed = |e: Errno| writing(&path, e);
        let mut number = 0;
        while is_there(parent, leaf).map_err(failed)? {
            let own = numbered(self.own.as_bytes(), number);
            match move_folder(parent, leaf, &self.root, &own) {
                Ok(()) => break,
                // The end of this transfer was done before, and not yet recorded.
                Err(Errno::EXIST | Errno::NOTEMPTY) => number += 1,
                Err(e) => return Err(failed(e)),
            }
        }
        // Another process may have moved it and gone no further.
        self.locked().insert(SELF.to_vec());
        self.sync()
    }

    /// What an earlier process of this transfer has kept of a name may not be durable yet.
    pub(crate) fn touch(&self, name: &[u8]) {
        let kept = self.name_of(name);
        let mut folder = split(&kept).0;
        let mut touched = self.locked();
        while folder != SELF {
            touched.insert(folder.to_vec());
            folder = split(folder).0;
        }
        touched.insert(SELF.to_vec());
    }

    /// Makes durable what was kept since the last call.
    pub(crate) fn sync(&self) -> Result<(), Problem> {
        let mut touched = self.locked();
        for folder in touched.iter() {
            let path = self.root.path_of(folder);
            match self.disk.sync_folder(&path) {
                Ok(()) => {}
                // Nothing was kept in it, or somebody has taken it away.
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(writing(&path, e)),
            }
        }
        touched.clear();
        Ok(())
    }

    /// Removes what other transfers have kept whose time is over; says how many they were. What cannot be removed keeps
    /// nothing else.
    pub(crate) fn drop_old(&self, now: Timestamp) -> Result<u64, Problem> {
        let Some(keep_ms) = self.keep_ms else { return Ok(0) };
        let path = self.root.path_of(SELF);
        let failed = |e: std::io::Error| writing(&path, e);
        let (mut dropped, mut done) = (0, Ok(()));
        for entry in std::fs::read_dir(&path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let is_own = name.to_str().is_some_and(|name| is_own(name) && !name.starts_with(&self.own));
            if !is_own || !is_older(&entry, now.plus_ms(-keep_ms)).map_err(failed)? {
                continue;
            }
            match remove_tree(&entry.path()) {
                Ok(()) => dropped += 1,
                Err(e) => done = done.and(Err(writing(&entry.path(), e))),
            }
        }
        done.map(|()| dropped)
    }

    fn name_of(&self, name: &[u8]) -> Vec<u8> {
        join(self.own.as_bytes(), name)
    }

    fn make_folder(&self, name: &[u8]) -> Result<OwnedFd, Problem> {
        let ends = name.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at).chain([name.len()]);
        for end in ends {
            let folder = name.get(..end).unwrap_or(name);
            let failed = |e: Errno| writing(&self.root.path_of(folder), e);
            let (parent, leaf) = self.root.parent(folder).map_err(failed)?;
            match rustix::fs::mkdirat(&parent, leaf, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(failed(e)),
            }
            self.locked().insert(split(folder).0.to_vec());
        }
        self.locked().insert(name.to_vec());
        self.root.folder(name).map_err(|e| writing(&self.root.path_of(name), e))
    }

    fn put(&self, from: &OwnedFd, leaf: &[u8], stat: &Stat, to: &OwnedFd, own: &[u8]) -> std::io::Result<()> {
        // Another version of this name is here already where somebody wrote to it while this transfer was interrupted.
        let (mut number, mut is_alike_there) = (0, false);
        let leaf_here = loop {
            let leaf_here = numbered(own, number);
            match rustix::fs::statat(to, leaf_here.as_slice(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(there) if (there.st_dev, there.st_ino) == (stat.st_dev, stat.st_ino) => return Ok(()),
                Ok(there) => is_alike_there |= is_alike(&there, stat),
                Err(Errno::NOENT) => break leaf_here,
                Err(e) => return Err(e.into()),
            }
            number += 1;
        };
        match rustix::fs::linkat(from, leaf, to, leaf_here.as_slice(), AtFlags::empty()) {
            Ok(()) => Ok(()),
            Err(e) if NO_LINKS.contains(&e) => match file_type(stat) {
                FileType::RegularFile | FileType::Symlink if is_alike_there => Ok(()),
                FileType::RegularFile | FileType::Symlink => self.copy(from, leaf, to, &leaf_here, stat),
                // A pipe, a socket or a device has no content that could be kept.
                _ => Ok(()),
            },
            Err(e) => Err(e.into()),
        }
    }

    /// A copy under a temporary name first: what stands under a name here is whole.
    fn copy(&self, from: &OwnedFd, leaf: &[u8], to: &OwnedFd, leaf_here: &[u8], stat: &Stat) -> std::io::Result<()> {
        let part = part_leaf(&self.short, leaf_here);
        match rustix::fs::unlinkat(to, part.as_slice(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(e.into()),
        }
        let times = modified(FileStat::of(stat).mtime_ns);
        if file_type(stat) == FileType::Symlink {
            let text = rustix::fs::readlinkat(from, leaf, Vec::new())?;
            rustix::fs::symlinkat(text, to, part.as_slice())?;
            rustix::fs::utimensat(to, part.as_slice(), &times, AtFlags::SYMLINK_NOFOLLOW)?;
        } else {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let mut source = File::from(rustix::fs::openat(from, leaf, flags, Mode::empty())?);
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut target = File::from(rustix::fs::openat(to, part.as_slice(), flags, Mode::RUSR | Mode::WUSR)?);
            std::io::copy(&mut source, &mut target)?;
            if let Ok(own) = attributes::read(&source, usize::MAX)
                && let Err(e) = attributes::make(&target, &own)
                && e != Errno::OPNOTSUPP
            {
                return Err(e.into());
            }
            rustix::fs::fchmod(&target, Mode::from_raw_mode(stat.st_mode & 0o777))?;
            rustix::fs::futimens(&target, &times)?;
            target.sync_all()?;
        }
        Ok(rustix::fs::renameat(to, part.as_slice(), to, leaf_here)?)
    }

    fn locked(&self) -> MutexGuard<'_, BTreeSet<Vec<u8>>> {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a path leads, as far as something is there.
fn resolved(path: &Path) -> PathBuf {
    let (mut at, mut rest) = (path, Vec::new());
    loop {
        if let Ok(found) = at.canonicalize() {
            return rest.iter().rev().fold(found, |found, part| found.join(part));
        }
        let (Some(parent), Some(leaf)) = (at.parent(), at.file_name()) else { return path.to_owned() };
        rest.push(leaf);
        at = parent;
    }
}

/// Whether the file system has seen no change of it since: what was kept is counted from then.
fn is_older(entry: &std::fs::DirEntry, since: Timestamp) -> std::io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let of = entry.metadata()?;
    Ok(of.ctime().saturating_mul(1000).saturating_add(of.ctime_nsec() / 1_000_000) < since.0)
}

fn is_there(folder: &OwnedFd, leaf: &str) -> Result<bool, Errno> {
    match rustix::fs::statat(folder, leaf, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

/// A folder that its owner may not write to cannot be moved to another: it gets that right meanwhile.
fn move_folder(from: &OwnedFd, leaf: &str, to: &Root, own: &[u8]) -> Result<(), Errno> {
    match rustix::fs::renameat(from, leaf, to.handle(), own) {
        Err(Errno::ACCESS) => {}
        done => return done,
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::openat(from, leaf, flags, Mode::empty())?;
    let mode = Mode::from_raw_mode(rustix::fs::fstat(&folder)?.st_mode);
    rustix::fs::fchmod(&folder, mode | Mode::WUSR)?;
    let moved = rustix::fs::renameat(from, leaf, to.handle(), own);
    rustix::fs::fchmod(&folder, mode)?;
    moved
}

fn is_alike(one: &Stat, other: &Stat) -> bool {
    let of = |stat: &Stat| (FileStat::of(stat).size, FileStat::of(stat).mtime_ns);
    file_type(one) == file_type(other) && of(one) == of(other)
}

/// No longer than a name may be.
fn numbered(leaf: &[u8], number: u32) -> Vec<u8> {
    if number == 0 {
        return leaf.to_vec();
    }
    let number = format!(".~{number}~");
    let room = COMPONENT_BYTES_MAX - number.len();
    [leaf.get(..room).unwrap_or(leaf), number.as_bytes()].concat()
}

/// `20261127T224001Z`: in the order of time, and a name on every file system.
fn stamp(time: Timestamp) -> String {
    time.to_jiff().strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// Whether a name is one that [`Kept::open`] gives.
fn is_own(name: &str) -> bool {
    let Some((time, short)) = name.split_once('-') else { return false };
    let (short, _) = short.split_once(".~").unwrap_or((short, ""));
    let is_time = time.len() == 16
        && time.bytes().enumerate().all(|(at, byte)| match at {
            8 => byte == b'T',
            15 => byte == b'Z',
            _ => byte.is_ascii_digit(),
        });
    is_time && is_short(short)
}

/// What is said where a file can have no second name: by file systems without such, between mounts, and of files of
/// others, which the kernel lets nobody else link.
pub(crate) const NO_LINKS: [Errno; 7] =
    [Errno::PERM, Errno::ACCESS, Errno::OPNOTSUPP, Errno::NOSYS, Errno::MLINK, Errno::XDEV, Errno::INVAL];
const TRIES_MAX: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use posthouse_platform::disk::RealDisk;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    fn kept(at: &Path, keep_ms: Option<i64>) -> Kept {
        let landing = at.join("landing");
        std::fs::create_dir_all(&landing).unwrap();
        let versions = Versions { folder: at.join("older"), begun: Timestamp(1_000_000_000_000), keep_ms };
        Kept::open(&versions, &Root::open(&landing).unwrap(), &landing, "abcdefghijklmnop", Arc::new(RealDisk)).unwrap()
    }

    #[test]
    fn a_copy_stands_in_where_no_second_name_can_be() {
        let at = tempfile::tempdir().unwrap();
        let kept = kept(at.path(), None);
        let landing = at.path().join("landing");
        std::fs::write(landing.join("a"), "first").unwrap();
        std::fs::set_permissions(landing.join("a"), std::fs::Permissions::from_mode(0o640)).unwrap();
        symlink("nowhere", landing.join("l")).unwrap();
        let from = rustix::fs::open(&landing, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let to = kept.make_folder(kept.own.as_bytes()).unwrap();
        for leaf in [&b"a"[..], b"l"] {
            let stat = rustix::fs::statat(&from, leaf, AtFlags::SYMLINK_NOFOLLOW).unwrap();
            // Twice: a copy that was cut short lies there.
            let part = at.path().join("older").join(&kept.own);
            let part_name = part_leaf(&kept.short, leaf);
            std::fs::write(part.join(std::str::from_utf8(&part_name).unwrap()), "half").unwrap();
            kept.copy(&from, leaf, &to, leaf, &stat).unwrap();
            let there = rustix::fs::statat(&to, leaf, AtFlags::SYMLINK_NOFOLLOW).unwrap();
            assert!(is_alike(&there, &stat) && there.st_ino != stat.st_ino && there.st_mode == stat.st_mode);
        }
        let own = at.path().join("older/20010909T014640Z-abcdefghijklmnop");
        assert_eq!(std::fs::read(own.join("a")).unwrap(), b"first");
        assert_eq!(std::fs::read_link(own.join("l")).unwrap(), Path::new("nowhere"));
        assert_eq!(std::fs::read_dir(&own).unwrap().count(), 2);
    }

    #[test]
    fn two_versions_of_one_name_in_one_transfer_are_both_kept() {
        let at = tempfile::tempdir().unwrap();
        let kept = kept(at.path(), None);
        let landing = at.path().join("landing");
        let from = rustix::fs::open(&landing, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        for content in ["first", "second one"] {
            // Another file, as landing and editors put it there; one that is written to is the kept one too.
            std::fs::write(landing.join("new"), content).unwrap();
            std::fs::rename(landing.join("new"), landing.join("a")).unwrap();
            kept.keep(&from, b"a", b"sub/a").unwrap();
            kept.keep(&from, b"a", b"sub/a").unwrap();
        }
        kept.sync().unwrap();
        let own = at.path().join("older/20010909T014640Z-abcdefghijklmnop");
        assert_eq!(std::fs::read(own.join("sub/a")).unwrap(), b"first");
        assert_eq!(std::fs::read(own.join("sub/a.~1~")).unwrap(), b"second one");
        assert_eq!(std::fs::metadata(&own).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn what_other_transfers_have_kept_goes_when_its_time_is_over() {
        let at = tempfile::tempdir().unwrap();
        let kept = kept(at.path(), Some(60_000));
        let older = at.path().join("older");
        let names = [
            "20010909T014639Z-aaaaaaaaaaaaaaaa",
            "20260101T000000Z-cccccccccccccccc.~1~",
            "20010909T014640Z-abcdefghijklmnop",
            "20010909T014640Z-abcdefghijklmnop.~1~",
            "20010101T000000Z-short",
            "20010101X000000Z-aaaaaaaaaaaaaaaa",
            "notes",
        ];
        for name in names {
            std::fs::create_dir(older.join(name)).unwrap();
            std::fs::write(older.join(name).join("file"), "x").unwrap();
        }
        // Rights that its owner took off.
        std::fs::set_permissions(older.join(names[0]), std::fs::Permissions::from_mode(0o500)).unwrap();
        let made = std::fs::metadata(older.join(names[0])).unwrap().ctime() * 1000;
        let gone = || names.into_iter().filter(|name| !older.join(name).exists()).collect::<Vec<_>>();
        assert_eq!(kept.drop_old(Timestamp(made + 59_000)).unwrap(), 0);
        assert_eq!(gone(), Vec::<&str>::new());
        assert_eq!(kept.drop_old(Timestamp(made + 70_000)).unwrap(), 2);
        assert_eq!(gone(), names[..2]);
    }

    #[test]
    fn a_folder_that_its_owner_may_not_write_to_is_kept() {
        let at = tempfile::tempdir().unwrap();
        let kept = kept(at.path(), None);
        let parent = rustix::fs::open(at.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let own = at.path().join("older/20010909T014640Z-abcdefghijklmnop");
        for number in ["", ".~1~"] {
            std::fs::create_dir(at.path().join("old")).unwrap();
            std::fs::write(at.path().join("old/file"), number).unwrap();
            std::fs::set_permissions(at.path().join("old"), std::fs::Permissions::from_mode(0o555)).unwrap();
            kept.keep_folder(&parent, "old").unwrap();
            let moved = own.with_file_name(format!("20010909T014640Z-abcdefghijklmnop{number}"));
            assert_eq!(std::fs::read_to_string(moved.join("file")).unwrap(), number);
            assert_eq!(std::fs::metadata(&moved).unwrap().mode() & 0o777, 0o555);
        }
        // There is none.
        kept.keep_folder(&parent, "old").unwrap();
    }

    #[test]
    fn a_name_that_is_as_long_as_it_may_be_is_numbered_too() {
        let long = [b'a'; COMPONENT_BYTES_MAX];
        assert_eq!(numbered(&long, 0), long);
        assert_eq!(numbered(&long, 12).len(), COMPONENT_BYTES_MAX);
        assert!(numbered(&long, 12).ends_with(b".~12~"));
    }

    #[test]
    fn a_place_that_cannot_hold_them_is_refused() {
        let at = tempfile::tempdir().unwrap();
        let landing = at.path().join("landing");
        std::fs::create_dir_all(&landing).unwrap();
        let root = Root::open(&landing).unwrap();
        let open = |folder: PathBuf| {
            let versions = Versions { folder, begun: Timestamp(0), keep_ms: None };
            Kept::open(&versions, &root, &landing, "abcdefghijklmnop", Arc::new(RealDisk)).err()
        };
        symlink(&landing, at.path().join("link")).unwrap();
        for within in [landing.clone(), landing.join("older"), at.path().join("link/a/b")] {
            assert_eq!(open(within).unwrap().code, Code::DestinationFailed);
        }
        // Nothing was made there.
        assert_eq!(std::fs::read_dir(&landing).unwrap().count(), 0);
        // Another file system.
        let elsewhere = open(PathBuf::from("/dev/shm/posthouse-older"));
        let is_another =
            std::fs::metadata("/dev/shm").is_ok_and(|of| of.dev() != std::fs::metadata(&landing).unwrap().dev());
        assert_eq!(elsewhere.is_some(), is_another);
        let _ = std::fs::remove_dir("/dev/shm/posthouse-older");
        assert!(open(at.path().join("landing-older")).is_none());
    }
}
