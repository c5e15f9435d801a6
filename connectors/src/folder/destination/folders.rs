//! Folders on the way: made when something is to land in them, and given their rights and times at the end.
//! What is written here becomes durable with `finish`.

use super::{FolderDestination, remove};
use crate::folder::fault::{taken, writing};
use crate::folder::names::{SELF, depth, split};
use crate::folder::part::{MANY, modified};
use crate::folder::stat::{FileStat, travelling_mode};
use posthouse_protocol::job::Write;
use posthouse_protocol::manifest::Entry;
use posthouse_protocol::problem::Problem;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
pub(super) struct Folders {
    /// Made by this transfer, as far as this process knows.
    pub(super) made: BTreeSet<Vec<u8>>,
    /// What they get at the end.
    pub(super) wanted: BTreeMap<Vec<u8>, Wanted>,
    /// Names were made or removed in them.
    pub(super) touched: BTreeSet<Vec<u8>>,
}

/// What a folder is to be like.
#[derive(Clone)]
pub(super) struct Wanted {
    pub(super) mode: u32,
    /// Where they are known, or said.
    mtime_ns: Option<i64>,
}

impl Wanted {
    fn of_mode(mode: u32) -> Self {
        Self { mode, mtime_ns: None }
    }
    fn of(entry: &Entry, mode: u32) -> Self {
        Self { mode, mtime_ns: Some(entry.mtime_ns) }
    }
}

impl FolderDestination {
    /// Folders get their times and rights, deepest first; every folder with new names is synced; `replace`
    /// puts the new folder in place. What was published is durable when this returns.
    pub fn finish(&self) -> Result<(), Problem> {
        self.sync()?;
        if let Some(kept) = &self.kept {
            kept.sync()?;
        }
        // What folders are to become is kept: a mirror deletes after this, and finishes again.
        let (wanted, touched) = {
            let mut folders = self.locked();
            (folders.wanted.clone(), std::mem::take(&mut folders.touched))
        };
        let finished = self.finish_all(&wanted, &touched);
        if finished.is_err() {
            // Tried again, they have to be synced again.
            self.locked().touched.extend(touched);
        }
        finished
    }

    fn finish_all(&self, wanted: &BTreeMap<Vec<u8>, Wanted>, touched: &BTreeSet<Vec<u8>>) -> Result<(), Problem> {
        let mut all: Vec<&[u8]> = wanted.keys().chain(touched).map(Vec::as_slice).collect();
        all.sort_by(|a, b| depth(b).cmp(&depth(a)).then_with(|| a.cmp(b)));
        all.dedup();
        let at_once = all.len() >= MANY;
        let mut changed = Vec::new();
        for name in all {
            if (name != SELF || self.replacing.is_none())
                && self.finish_folder(name, wanted.get(name), touched.contains(name), at_once)?
            {
                changed.push(name);
            }
        }
        if at_once && !changed.is_empty() && !self.written.sync_all()? {
            for name in changed {
                self.sync_folder(name)?;
            }
        }
        let Some(replacing) = &self.replacing else { return Ok(()) };
        let Wanted { mode, mtime_ns } = wanted.get(SELF).cloned().unwrap_or_else(|| Wanted::of_mode(NEW_FOLDER_MODE));
        let mode = if replacing.keep_rights(&self.root)? { None } else { Some(mode) };
        self.finish_root(mode, mtime_ns)?;
        let disk = &self.written.disk;
        replacing.exchange(&self.root, self.kept.as_ref(), &|path| disk.sync_folder(path).map_err(|e| writing(path, e)))
    }

    pub(super) fn publish_folder(&self, entry: &Entry) -> Result<FileStat, Problem> {
        let name = entry.name.as_slice();
        let folder = self.make_folder(name)?;
        let stat = rustix::fs::fstat(&folder).map_err(|e| writing(&self.root.path_of(name), e))?;
        let mode = travelling_mode(&entry.kind, entry.mode);
        // A folder in the rights we make folders with was made by an earlier process of ours.
        let is_ours = name != SELF && stat.st_mode & 0o7777 == MAKING_MODE;
        let made = is_ours || self.locked().made.contains(name);
        if !made && self.write == Write::Append {
            return Ok(FileStat::of(&stat));
        }
        // At once, and not kept until the end: they may be long.
        let attributes = entry.attributes.as_deref();
        let has_new = match attributes {
            Some(attributes) => self.give_folder_attributes(name, folder.as_fd(), attributes)?,
            None => false,
        };
        let mut folders = self.locked();
        // A process that ended before it made them durable may have given it those that it has.
        if has_new || attributes.is_some_and(|attributes| !attributes.is_empty()) {
            folders.touched.insert(name.to_vec());
        }
        // The top folder is the operator's: where it stood before, its rights stay.
        let mode = if name == SELF && !made { stat.st_mode & 0o7777 } else { mode };
        folders.wanted.insert(name.to_vec(), Wanted::of(entry, mode));
        Ok(FileStat::of(&stat))
    }

    /// Opens a folder, making what is missing of it. A file or link on the way gives way to a folder
    /// (`append`: it does not); it is never followed.
    pub(super) fn make_folder(&self, name: &[u8]) -> Result<OwnedFd, Problem> {
        match self.root.folder(name) {
            Ok(folder) => return Ok(folder),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(e) => return Err(writing(&self.root.path_of(name), e)),
        }
        let ends = name.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at).chain([name.len()]);
        for end in ends {
            let folder = name.get(..end).unwrap_or(name);
            match self.root.folder(folder) {
                Ok(_) => continue,
                Err(Errno::NOENT) => {}
                Err(Errno::NOTDIR | Errno::LOOP) if self.write != Write::Append => {
                    let failed = |e: Errno| writing(&self.root.path_of(folder), e);
                    let (parent, leaf) = self.root.parent(folder).map_err(failed)?;
                    self.keep(&parent, leaf, folder)?;
                    match remove(&parent, leaf, AtFlags::empty()) {
                        // Another writer was quicker: a folder is there already.
                        Ok(()) | Err(Errno::ISDIR) => {}
                        Err(e) => return Err(failed(e)),
                    }
                }
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    return Err(taken(folder, "a file or link stands where a folder should be"));
                }
                Err(e) => return Err(writing(&self.root.path_of(folder), e)),
            }
            let path = self.root.path_of(folder);
            let (parent, leaf) = self.root.parent(folder).map_err(|e| writing(&path, e))?;
            let parent_name = split(folder).0;
            self.written.disk.before_write(&path, 0).map_err(|e| writing(&path, e))?;
            let made = self.in_folder(parent_name, &parent, &|| {
                rustix::fs::mkdirat(&parent, leaf, Mode::from_raw_mode(MAKING_MODE))
            });
            match made {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(writing(&path, e)),
            }
            let mut folders = self.locked();
            folders.made.insert(folder.to_vec());
            // Until its own entry says otherwise.
            folders.wanted.entry(folder.to_vec()).or_insert_with(|| Wanted::of_mode(NEW_FOLDER_MODE));
            folders.touched.insert(parent_name.to_vec());
        }
        self.root.folder(name).map_err(|e| writing(&self.root.path_of(name), e))
    }

    /// Does something in a folder; where its rights forbid it to its own owner, they are widened until `finish`.
    pub(super) fn in_folder<T>(
        &self,
        name: &[u8],
        folder: &OwnedFd,
        work: &dyn Fn() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        match work() {
            Err(Errno::ACCESS) => {
                let mode = rustix::fs::fstat(folder)?.st_mode & 0o7777;
                rustix::fs::fchmod(folder, Mode::from_raw_mode(mode | MAKING_MODE))?;
                self.locked().wanted.entry(name.to_vec()).or_insert_with(|| Wanted::of_mode(mode));
                work()
            }
            done => done,
        }
    }

    pub(super) fn sync_folder(&self, name: &[u8]) -> Result<(), Problem> {
        let path = self.root.path_of(name);
        match self.written.disk.sync_folder(&path) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(writing(&path, e)),
        }
    }

    /// Says whether there was anything to do; with `sync_later` the caller makes it durable.
    pub(super) fn finish_folder(
        &self,
        name: &[u8],
        wanted: Option<&Wanted>,
        touched: bool,
        sync_later: bool,
    ) -> Result<bool, Problem> {
        let path = self.root.path_of(name);
        let failed = |e: Errno| writing(&path, e);
        let folder = match self.root.folder(name) {
            Ok(folder) => folder,
            // Removed since (by mirror, or by somebody): nothing of ours is in it.
            Err(Errno::NOENT) => return Ok(false),
            Err(e) => return Err(failed(e)),
        };
        let now = FileStat::of(&rustix::fs::fstat(&folder).map_err(failed)?);
        // The caller syncs the file system of the whole folder, and not what is mounted within it.
        let sync_later = sync_later && !self.written.is_elsewhere(Some(now.device));
        let sync = || if sync_later { Ok(()) } else { self.sync_folder(name) };
        let (mode, mtime_ns) = wanted.map_or((now.mode, None), |wanted| (wanted.mode, wanted.mtime_ns));
        if mtime_ns.is_some_and(|mtime_ns| mtime_ns != now.mtime_ns) {
            unless_others(rustix::fs::futimens(&folder, &modified(mtime_ns.unwrap_or(now.mtime_ns))))
                .map_err(failed)?;
        } else if mode == now.mode && !touched {
            return Ok(false);
        }
        // It is synced while it can still be opened.
        sync()?;
        if mode != now.mode {
            unless_others(rustix::fs::fchmod(&folder, Mode::from_raw_mode(mode))).map_err(failed)?;
            if mode & 0o500 == 0o500 {
                sync()?;
            }
        }
        Ok(true)
    }

    pub(super) fn finish_root(&self, mode: Option<u32>, mtime_ns: Option<i64>) -> Result<(), Problem> {
        let path = self.root.path_of(SELF);
        let failed = |e: Errno| writing(&path, e);
        if let Some(mode) = mode {
            rustix::fs::fchmod(self.root.handle(), Mode::from_raw_mode(mode)).map_err(failed)?;
        }
        if let Some(mtime_ns) = mtime_ns {
            rustix::fs::futimens(self.root.handle(), &modified(mtime_ns)).map_err(failed)?;
        }
        rustix::fs::fsync(self.root.handle()).map_err(failed)
    }
}

/// A folder that belongs to somebody else keeps its times and rights; landing in it is not refused for that.
fn unless_others(done: Result<(), Errno>) -> Result<(), Errno> {
    if done == Err(Errno::PERM) { Ok(()) } else { done }
}

/// Folders are made like this and get their own rights at the end.
const MAKING_MODE: u32 = 0o700;
/// For folders that no entry describes.
const NEW_FOLDER_MODE: u32 = 0o755;
