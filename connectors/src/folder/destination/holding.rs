//! Whether an entry's extended attributes can be had here, which is asked before its content is; and how what stands there
//! already gets them.

use super::{FolderDestination, chmod_handle, unlink};
use crate::folder::attributes::{self, own_name};
use crate::folder::fault::writing;
use crate::folder::names::{SELF, part_leaf};
use posthouse_protocol::manifest::{Attribute, Entry, EntryKind};
use posthouse_protocol::problem::Problem;
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::sync::{Arc, PoisonError};

impl FolderDestination {
    /// Why the attributes of an entry cannot be had here, as far as that shows before it is landed.
    pub(super) fn cannot_hold(&self, entry: &Entry) -> Result<Option<Problem>, Problem> {
        let Some(wanted) = entry.attributes.as_deref().filter(|wanted| !wanted.is_empty()) else { return Ok(None) };
        if !*self.holds.get_or_init(|| attributes::are_possible(self.root.handle())) {
            return Ok(Some(attributes::refused(&entry.name, "the file system here has no extended attributes")));
        }
        if entry.attribute_bytes() <= ANYWHERE_BYTES || self.stands_with(entry, wanted) {
            return Ok(None);
        }
        let path = self.root.path_of(SELF);
        match self.try_on(wanted) {
            Ok(Ok(_)) => Ok(None),
            Ok(Err(e)) if attributes::is_too_much(e, &path, &*self.written.disk) => {
                Ok(Some(attributes::refused(&entry.name, attributes::no_room(e))))
            }
            // Not to be tried here, but perhaps to be landed further down; or another line's session tries it just now.
            Ok(Err(Errno::ACCESS | Errno::PERM)) | Err(Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::EXIST) => {
                Ok(None)
            }
            Ok(Err(e)) | Err(e) => Err(writing(&path, e)),
        }
    }

    /// How much a file may have differs: a file of ours is given them, and removed.
    fn try_on(&self, wanted: &[Attribute]) -> Result<Result<bool, Errno>, Errno> {
        let root = self.root.handle();
        // No entry has this name.
        let leaf = part_leaf(&self.short, b"//");
        unlink(root, &leaf, AtFlags::empty())?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(root, leaf.as_slice(), flags, Mode::RUSR | Mode::WUSR)?;
        let tried = attributes::make(&file, wanted);
        unlink(root, &leaf, AtFlags::empty())?;
        Ok(tried)
    }

    /// Whether what stands at its name has them already.
    fn stands_with(&self, entry: &Entry, wanted: &[Attribute]) -> bool {
        let (root, name) = (self.root_of(&entry.name), entry.name.as_slice());
        let standing = match entry.kind {
            EntryKind::Directory => root.folder(name),
            _ => root.file(name, OFlags::PATH),
        };
        standing.is_ok_and(|standing| attributes::are(&standing, wanted).unwrap_or(false))
    }

    /// Whether a file has the attributes of its entry, where that says anything of them.
    pub(super) fn has_attributes(&self, file: &OwnedFd, entry: &Entry) -> Result<bool, Errno> {
        match entry.attributes.as_deref().map(|wanted| attributes::are(file, wanted)) {
            None => Ok(true),
            // Its own rights do not let it be asked.
            Some(Err(Errno::ACCESS)) => Ok(false),
            Some(found) => found,
        }
    }

    /// Gives them to a file that stands there. They are durable with the next `sync`.
    pub(super) fn give_attributes(&self, file: &OwnedFd, entry: &Entry) -> Result<(), Problem> {
        let path = self.root.path_of(&entry.name);
        let failed = |e: Errno| writing(&path, e);
        let wanted = entry.attributes.as_deref().unwrap_or_default();
        let mode = rustix::fs::fstat(file).map_err(failed)?.st_mode & 0o7777;
        // Reading and setting them wants the right to read and to write the file, its owner's too.
        let is_closed = mode & OWNERS != OWNERS;
        if is_closed {
            chmod_handle(file, mode | OWNERS).map_err(failed)?;
        }
        let made = attributes::make(file, wanted);
        let open = reading_handle(file);
        if is_closed {
            chmod_handle(file, mode).map_err(failed)?;
        }
        made.map_err(|e| attributes::setting(&entry.name, &path, e, &*self.written.disk))?;
        self.written.note(&Arc::new(open.map_err(failed)?), &path, true)
    }

    /// The attributes that a file has already are durable with the next `sync`.
    pub(super) fn note_attributes(&self, file: &OwnedFd, entry: &Entry) -> Result<(), Problem> {
        let path = self.root.path_of(&entry.name);
        match reading_handle(file) {
            Ok(open) => self.written.note(&Arc::new(open), &path, true),
            // Its own rights forbid it: they are widened for that moment.
            Err(Errno::ACCESS) => self.give_attributes(file, entry),
            Err(e) => Err(writing(&path, e)),
        }
    }

    /// What is in this folder cannot be landed either.
    pub(super) fn shut(&self, folder: &[u8]) {
        self.shut.lock().unwrap_or_else(PoisonError::into_inner).insert(folder.to_vec());
    }
    pub(super) fn is_shut(&self, name: &[u8]) -> bool {
        let shut = self.shut.lock().unwrap_or_else(PoisonError::into_inner);
        let ends = name.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at);
        !shut.is_empty() && ends.filter_map(|end| name.get(..end)).any(|folder| shut.contains(folder))
    }

    /// Gives them to a folder; says whether there was anything to do.
    pub(super) fn give_folder_attributes(
        &self,
        name: &[u8],
        folder: BorrowedFd<'_>,
        wanted: &[Attribute],
    ) -> Result<bool, Problem> {
        let path = self.root.path_of(name);
        let while_open = || {
            let mode = rustix::fs::fstat(folder)?.st_mode & 0o7777;
            rustix::fs::fchmod(folder, Mode::from_raw_mode(mode | OWNERS))?;
            let made = attributes::make(folder, wanted);
            rustix::fs::fchmod(folder, Mode::from_raw_mode(mode))?;
            made
        };
        let made = match attributes::make(folder, wanted) {
            Err(Errno::ACCESS) => while_open(),
            made => made,
        };
        match made {
            // It belongs to somebody else, and keeps its attributes as it keeps its times and rights.
            Err(Errno::PERM) => Ok(false),
            made => made.map_err(|e| attributes::setting(name, &path, e, &*self.written.disk)),
        }
    }
}

fn reading_handle(file: &OwnedFd) -> Result<File, Errno> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::open(own_name(file), flags, Mode::empty()).map(File::from)
}

/// What every file system that has attributes has room for beside a file.
const ANYWHERE_BYTES: usize = 512;
const OWNERS: u32 = 0o600;
