//! Goes through a folder in a fixed order: names by their bytes within each folder, a folder before
//! what is in it. Holds the names of the folders on the way and few handles, however deep it goes.

use super::beneath::Root;
use super::names::{SELF, join};
use super::stat::file_type;
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Dir, FileType, Stat};
use rustix::io::Errno;

/// What the walk met at a name.
pub(crate) enum Met {
    /// `Directory`s are met before what is in them.
    Here(Stat),
    /// What is there, or what is in there, cannot be read. Nothing beneath it is met.
    Unreadable(Errno),
}

/// What to do after a name was met. Anything but a folder has nothing to enter.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    Enter,
    Skip,
}

/// Meets everything beneath `top` (not `top` itself).
pub(crate) fn walk<E>(root: &Root, top: &[u8], mut meet: impl FnMut(&[u8], Met) -> Result<Then, E>) -> Result<(), E> {
    let mut stack: Vec<Level> = Vec::new();
    match Level::read(root, top) {
        Ok(level) => stack.push(level),
        Err(e) => {
            meet(top, Met::Unreadable(e))?;
        }
    }
    while let Some(level) = stack.last_mut() {
        let Some(leaf) = level.next() else {
            stack.pop();
            continue;
        };
        let name = join(&level.name, leaf.as_slice());
        let stat = level.stat(root, &leaf);
        match stat {
            // Removed since the folder was read: that is absence, not an error.
            Err(Errno::NOENT) => {}
            Err(e) => {
                meet(&name, Met::Unreadable(e))?;
            }
            Ok(stat) => {
                let is_folder = file_type(&stat) == FileType::Directory;
                // A folder is read before it is met: one that cannot be read is not listed as if it were empty.
                let inner = if is_folder { Some(Level::read(root, &name)) } else { None };
                match inner {
                    Some(Err(Errno::NOENT)) => {}
                    Some(Err(e)) => {
                        meet(&name, Met::Unreadable(e))?;
                    }
                    Some(Ok(inner)) => {
                        if meet(&name, Met::Here(stat))? == Then::Enter {
                            let held = stack.len();
                            if let Some(far) = held.checked_sub(HANDLES_MAX).and_then(|at| stack.get_mut(at)) {
                                far.handle = None;
                            }
                            stack.push(inner);
                        }
                    }
                    None => {
                        meet(&name, Met::Here(stat))?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// One folder being gone through: its names in one buffer, sorted.
struct Level {
    name: Vec<u8>,
    handle: Option<OwnedFd>,
    bytes: Vec<u8>,
    order: Vec<(usize, u16)>,
    next: usize,
}

impl Level {
    fn read(root: &Root, name: &[u8]) -> Result<Self, Errno> {
        let handle = root.folder(name)?;
        let mut bytes = Vec::new();
        let mut order = Vec::new();
        for entry in Dir::read_from(&handle)? {
            let entry = entry?;
            let leaf = entry.file_name().to_bytes();
            if leaf == b"." || leaf == b".." {
                continue;
            }
            order.push((bytes.len(), u16::try_from(leaf.len()).map_err(|_| Errno::NAMETOOLONG)?));
            bytes.extend_from_slice(leaf);
        }
        order.sort_unstable_by(|a, b| leaf_of(&bytes, *a).cmp(leaf_of(&bytes, *b)));
        // A file system may give a name twice while others are renamed.
        order.dedup_by(|a, b| leaf_of(&bytes, *a) == leaf_of(&bytes, *b));
        Ok(Self { name: name.to_vec(), handle: Some(handle), bytes, order, next: 0 })
    }
    fn next(&mut self) -> Option<Vec<u8>> {
        let at = *self.order.get(self.next)?;
        self.next += 1;
        Some(leaf_of(&self.bytes, at).to_vec())
    }
    fn stat(&mut self, root: &Root, leaf: &[u8]) -> Result<Stat, Errno> {
        let handle = match self.handle.take() {
            Some(handle) => handle,
            None => root.folder(&self.name)?,
        };
        let stat = rustix::fs::statat(&handle, leaf, AtFlags::SYMLINK_NOFOLLOW);
        self.handle = Some(handle);
        stat
    }
}

fn leaf_of(bytes: &[u8], (start, len): (usize, u16)) -> &[u8] {
    bytes.get(start..start + usize::from(len)).unwrap_or(SELF)
}

/// Folders on the way that are kept open; those further up are opened again on the way back.
const HANDLES_MAX: usize = 64;
