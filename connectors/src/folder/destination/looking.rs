//! The last look at what was landed, before anything is stated of it: whether it stands at its name as it was landed,
//! and can be opened. Scanners move what they find away, or let nobody open it; other programs take, exchange or cut
//! what has just come. Deliberately absent: the time of change, which a label or a second name moves too, and
//! whatever becomes of it after the look.

use super::presence::read_link;
use super::{FolderDestination, Near, check_entry};
use crate::folder::fault::{named, reading, writing};
use crate::folder::hash::hash_file;
use crate::folder::mirror::Kind;
use crate::folder::names::{SELF, check_name, split};
use crate::folder::replace::Replacing;
use crate::folder::stat::{FileStat, file_type};
use posthouse_protocol::manifest::{Entry, EntryKind};
use posthouse_protocol::problem::{Code, Problem};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::fmt::Display;

/// What was seen at the name of something that was landed, where it is not another thing altogether.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    AsLanded,
    /// Of the same kind and length, and of another time or number. Somebody may have put it there; some mounts give the
    /// same file another number later, or round its time. [`FolderDestination::look_into`] says whether it is the same.
    Unsure,
}

impl FolderDestination {
    /// Looks at what was landed at a name. `landed`: how it was then. `open`: a file is opened to be read, too, as far
    /// as its own rights let its owner. Of a folder within this one its kind is all that is asked.
    /// `NotAsLanded` where it is gone, another thing, shorter, longer, or kept from being opened.
    pub fn look(
        &self,
        name: &[u8],
        kind: Kind,
        landed: &FileStat,
        open: bool,
        near: &mut Near,
    ) -> Result<Seen, Problem> {
        check_name(name).map_err(|e| named(Code::NameRefused, name, e))?;
        if name == SELF {
            return Ok(Seen::AsLanded);
        }
        let (folder_name, leaf) = split(name);
        let folder = match near.folder(folder_name, || self.root.folder(folder_name)) {
            Ok(folder) => folder,
            Err(Errno::ACCESS) if self.is_closed_by_its_rights(folder_name) => return Ok(Seen::AsLanded),
            Err(e) => return Err(in_the_way(name, e)),
        };
        let is_open_to_owner = landed.mode & OWNER_READS != 0;
        let opened = (open && is_open_to_owner && kind == Kind::File)
            .then(|| rustix::fs::openat(folder, leaf, TO_READ, Mode::empty()));
        let stat = match &opened {
            Some(Ok(file)) => rustix::fs::fstat(file),
            _ => rustix::fs::statat(folder, leaf, AtFlags::SYMLINK_NOFOLLOW),
        };
        let stat = match stat {
            Ok(stat) => stat,
            // One that may be listed and not entered can be opened, and what is in it not be looked at.
            Err(Errno::ACCESS) if self.is_closed_by_its_rights(folder_name) => return Ok(Seen::AsLanded),
            Err(e) => return Err(in_the_way(name, e)),
        };
        match (kind, file_type(&stat)) {
            (Kind::Directory, FileType::Directory) => return Ok(Seen::AsLanded),
            (Kind::File, FileType::RegularFile) | (Kind::Link, FileType::Symlink) => {}
            _ => return Err(not_as_landed(name, "something of another kind stands there")),
        }
        let now = FileStat::of(&stat);
        if now.size != landed.size {
            return Err(not_as_landed(name, format!("it has {} bytes, and was landed with {}", now.size, landed.size)));
        }
        if kind == Kind::File && is_open_to_owner && now.mode & OWNER_READS == 0 {
            return Err(not_as_landed(name, "the right to read it was taken away"));
        }
        match opened {
            // Where files are given to another user than the one who writes, that is no more than their rights.
            Some(Err(Errno::ACCESS)) if !self.owns_what_it_makes() && !is_own(&stat) => {}
            Some(Err(e)) => return Err(in_the_way(name, e)),
            Some(Ok(_)) | None => {}
        }
        let is_it = (now.mtime_ns, now.inode, now.device) == (landed.mtime_ns, landed.inode, landed.device);
        Ok(if is_it { Seen::AsLanded } else { Seen::Unsure })
    }

    /// For one of which a look is unsure: refuses it by its name where its content is not what was landed.
    pub fn look_into(&self, entry: &Entry) -> Result<(), Problem> {
        check_entry(entry)?;
        let name = entry.name.as_slice();
        let is_same = match &entry.kind {
            EntryKind::Directory => true,
            EntryKind::Link(text) => read_link(&self.root, name).map_err(|e| in_the_way(name, e))? == *text,
            EntryKind::File | EntryKind::Split(_) => {
                let root = hash_file(&self.root, name, false).map_err(|e| match Errno::from_io_error(&e) {
                    Some(errno) => in_the_way(name, errno),
                    None => named(Code::FileUnreadable, name, e),
                })?;
                entry.root.is_some_and(|landed| *landed == root)
            }
        };
        if is_same { Ok(()) } else { Err(not_as_landed(name, "its content is another one")) }
    }

    /// Whether what was landed in is what its path leads to: everything else is asked beneath a held handle.
    pub fn look_at_itself(&self) -> Result<(), Problem> {
        let place = self.replacing.as_ref().map_or_else(|| self.root.path_of(SELF), Replacing::path);
        let failed = |e: Errno| writing(&place, e);
        let held = rustix::fs::fstat(self.root.handle()).map_err(failed)?;
        match rustix::fs::stat(&place) {
            Ok(there) if (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino) => Ok(()),
            Ok(_) => Err(not_as_landed(SELF, "another folder stands in its place")),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Err(not_as_landed(SELF, GONE)),
            Err(e) => Err(failed(e)),
        }
    }

    /// Whether a folder that has its own rights now, or one that it is in, is closed by them to who made it.
    fn is_closed_by_its_rights(&self, name: &[u8]) -> bool {
        let folders = self.locked();
        let mut at = name;
        loop {
            if folders.wanted.get(at).is_some_and(|wanted| wanted.mode & OWNER_ENTERS != OWNER_ENTERS) {
                return true;
            }
            if at == SELF {
                return false;
            }
            at = split(at).0;
        }
    }

    fn owns_what_it_makes(&self) -> bool {
        self.owner.get() == Some(&rustix::process::geteuid().as_raw())
    }
}

/// A process that only looks, since an earlier one gave everything its name, has asked nobody whose files become.
fn is_own(stat: &Stat) -> bool {
    stat.st_uid == rustix::process::geteuid().as_raw()
}

fn not_as_landed(name: &[u8], cause: impl Display) -> Problem {
    named(Code::NotAsLanded, name, cause)
}

/// Why a name cannot be looked at.
fn in_the_way(name: &[u8], errno: Errno) -> Problem {
    match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO => not_as_landed(name, GONE),
        // Scanners that are asked before a file is opened answer the first, shares of other systems one of the others,
        // and a lease that somebody holds to write the last.
        Errno::PERM | Errno::ACCESS | Errno::BUSY | Errno::TXTBSY | Errno::AGAIN => {
            not_as_landed(name, format!("it is kept from being opened: {errno}"))
        }
        errno => reading(name, errno),
    }
}

const GONE: &str = "it does not stand there any more";
/// Nothing is waited for, whatever stands there.
const TO_READ: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);
const OWNER_READS: u32 = 0o400;
const OWNER_ENTERS: u32 = 0o500;
