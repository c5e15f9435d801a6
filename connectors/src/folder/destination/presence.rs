//! What already stands where an entry would land, which is asked before its content is.

use super::{FolderDestination, Near};
use crate::folder::attributes;
use crate::folder::beneath::{At, Root};
use crate::folder::fault::{left_out, taken, writing};
use crate::folder::names::SELF;
use crate::folder::stat::{FileStat, file_type};
use posthouse_protocol::job::Write;
use posthouse_protocol::manifest::{Entry, EntryKind, LeftOut};
use posthouse_protocol::problem::Problem;
use rustix::fs::FileType;
use rustix::io::Errno;

/// What already stands where an entry would land.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Present {
    Absent,
    /// Same kind, size and mtime; for links the same text. Whether the bytes are the same is for the
    /// caller to know (its record of what it landed there, or `hash`).
    Same(FileStat),
    /// Something else, which would be replaced.
    Differs(FileStat),
    /// It cannot be landed.
    Blocked(LeftOut),
}

impl FolderDestination {
    /// Asked before content is: whether it is needed, and whether it can be landed at all.
    pub fn present(&self, entry: &Entry) -> Result<Present, Problem> {
        self.present_near(entry, &mut Near::default())
    }

    /// The same, for one of a group.
    pub fn present_near(&self, entry: &Entry, near: &mut Near) -> Result<Present, Problem> {
        if let Err(problem) = super::check_entry(entry) {
            return Ok(Present::Blocked(left_out(&entry.name, &problem)));
        }
        if self.is_taken_for_another(&entry.name)? {
            let why = "this file system takes it for another name, from which it differs by upper and lower case only";
            return Ok(Present::Blocked(left_out(&entry.name, &taken(&entry.name, why))));
        }
        if self.is_shut(&entry.name) {
            let why = "the folder that it is in was left out";
            return Ok(Present::Blocked(left_out(&entry.name, &attributes::refused(&entry.name, why))));
        }
        match self.cannot_hold(entry)? {
            Some(problem) if entry.name == SELF => return Err(problem),
            Some(problem) => {
                if entry.kind == EntryKind::Directory {
                    self.shut(&entry.name);
                }
                return Ok(Present::Blocked(left_out(&entry.name, &problem)));
            }
            None => {}
        }
        let in_root = self.compare_near(&self.root, entry, near)?;
        match (&self.standing, in_root) {
            (Some(standing), Present::Absent) => Ok(match self.compare(standing, entry)? {
                // The new folder is empty here: whatever stands in the old one is in nobody's way.
                Present::Blocked(_) => Present::Absent,
                other => other,
            }),
            (_, in_root) => Ok(in_root),
        }
    }

    pub(super) fn compare(&self, root: &Root, entry: &Entry) -> Result<Present, Problem> {
        self.compare_near(root, entry, &mut Near::default())
    }

    /// `near` is of this root.
    fn compare_near(&self, root: &Root, entry: &Entry, near: &mut Near) -> Result<Present, Problem> {
        let name = entry.name.as_slice();
        let blocked = |why: &str| Ok(Present::Blocked(left_out(name, &taken(name, why))));
        let append = self.write == Write::Append;
        let at = if name == SELF { rustix::fs::fstat(root.handle()).map(At::Here) } else { near.at(root, name) };
        let stat = match at.map_err(|e| writing(&root.path_of(name), e))? {
            At::Nothing => return Ok(Present::Absent),
            At::Blocked if append => return blocked("a file or link stands where its folder should be"),
            At::Blocked => return Ok(Present::Absent),
            At::Here(stat) => stat,
        };
        let now = FileStat::of(&stat);
        let same = match (&entry.kind, file_type(&stat)) {
            (EntryKind::Directory, FileType::Directory) => return Ok(Present::Same(now)),
            (EntryKind::File, FileType::RegularFile) => now.size == entry.size && now.mtime_ns == entry.mtime_ns,
            (EntryKind::Link(text), FileType::Symlink) => {
                read_link(root, name).map_err(|e| writing(&root.path_of(name), e))? == *text
            }
            (_, FileType::Directory) => {
                return if !append && self.is_empty(root, name)? {
                    Ok(Present::Differs(now))
                } else {
                    blocked("a folder of that name is there")
                };
            }
            _ => false,
        };
        match (same, append) {
            (true, _) => Ok(Present::Same(now)),
            (false, true) => blocked("it exists already, and `append` replaces nothing"),
            (false, false) => Ok(Present::Differs(now)),
        }
    }

    fn is_empty(&self, root: &Root, name: &[u8]) -> Result<bool, Problem> {
        let failed = |e: Errno| writing(&root.path_of(name), e);
        let folder = root.folder(name).map_err(failed)?;
        for entry in rustix::fs::Dir::new(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

pub(super) fn read_link(root: &Root, name: &[u8]) -> Result<Vec<u8>, Errno> {
    let (folder, leaf) = root.parent(name)?;
    Ok(rustix::fs::readlinkat(folder, leaf, Vec::new())?.into_bytes())
}
