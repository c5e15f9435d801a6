//! File systems that take two names for one which differ by upper and lower case only: those of Windows and macOS, over a
//! share too, and folders of Linux that are set so. The second of two such names would be landed over the first, and so
//! it is refused by name.

use super::FolderDestination;
use crate::folder::fault::writing;
use crate::folder::names::{SELF, part_leaf};
use posthouse_protocol::problem::Problem;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, OnceLock, PoisonError};
use unicode_normalization::UnicodeNormalization;

#[derive(Default)]
pub(super) struct Folding {
    /// Whether the folder's file system does it.
    folds: OnceLock<bool>,
    /// Of each name that was met and of each folder on the way to it: as such a file system sees it, and as it is.
    met: Mutex<BTreeMap<Mark, Mark>>,
}

/// The first bytes of a hash: names of millions of files have to fit into memory.
type Mark = [u8; 16];

/// How such a file system sees a set of names.
#[derive(Default)]
pub(crate) struct Folded(BTreeSet<Mark>);

impl Folded {
    pub(crate) fn add(&mut self, name: &[u8]) {
        self.0.insert(mark(&folded(name)));
    }
    pub(crate) fn has(&self, name: &[u8]) -> bool {
        self.0.contains(&mark(&folded(name)))
    }
}

impl FolderDestination {
    /// Whether the file system takes the name, or a folder on the way to it, for another one that was met before.
    pub(super) fn is_taken_for_another(&self, name: &[u8]) -> Result<bool, Problem> {
        if name == SELF || !self.folds()? {
            return Ok(false);
        }
        let mut met = self.folding.met.lock().unwrap_or_else(PoisonError::into_inner);
        let ends = name.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at).chain([name.len()]);
        let mut parts = ends.filter_map(|end| name.get(..end));
        Ok(parts.any(|part| {
            let own = mark(part);
            *met.entry(mark(&folded(part))).or_insert(own) != own
        }))
    }

    /// Whether the file system does not see names as they are.
    pub(super) fn folds(&self) -> Result<bool, Problem> {
        if let Some(folds) = self.folding.folds.get() {
            return Ok(*folds);
        }
        let tried = if self.never_folds() { Ok(false) } else { self.tries_to_fold() };
        let folds = match tried {
            Ok(folds) => folds,
            // Not to be tried here, but perhaps to be landed in further down: a name that is refused is named.
            Err(Errno::ACCESS | Errno::PERM | Errno::ROFS) => true,
            Err(e) => return Err(writing(&self.root.path_of(SELF), e)),
        };
        Ok(*self.folding.folds.get_or_init(|| folds))
    }

    /// Without writing to a folder: file systems of Linux do not, but for folders that are set so.
    fn never_folds(&self) -> bool {
        let root = self.root.handle();
        let is_exact = rustix::fs::fstatfs(root).is_ok_and(|found| EXACT.contains(&(found.f_type as u32)));
        // A file system that knows no such flags says an error to this.
        is_exact && !rustix::fs::ioctl_getflags(root).is_ok_and(|flags| flags.bits() & CASEFOLD != 0)
    }

    fn tries_to_fold(&self) -> Result<bool, Errno> {
        let root = self.root.handle();
        // No entry has this name.
        let leaf = part_leaf(&self.short, b"/");
        super::unlink(root, &leaf, AtFlags::empty())?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        drop(rustix::fs::openat(root, leaf.as_slice(), flags, Mode::RUSR | Mode::WUSR)?);
        let other = rustix::fs::statat(root, leaf.to_ascii_uppercase().as_slice(), AtFlags::SYMLINK_NOFOLLOW);
        super::unlink(root, &leaf, AtFlags::empty())?;
        Ok(other.is_ok())
    }
}

/// A little more than any one file system takes for the same, accents in one sign or two among it: what is refused too
/// much is named, what is refused too little is lost. Of a part that is no UTF-8 the letters of ASCII.
fn folded(name: &[u8]) -> Vec<u8> {
    let part = |part: &[u8]| match std::str::from_utf8(part) {
        // Lower case first: the capital of some letters has another lower case than they are.
        Ok(text) => text.nfd().collect::<String>().to_lowercase().to_uppercase().to_lowercase().into_bytes(),
        Err(_) => part.to_ascii_lowercase(),
    };
    name.split(|b| *b == b'/').map(part).collect::<Vec<_>>().join(&b'/')
}

fn mark(name: &[u8]) -> Mark {
    let mut mark = Mark::default();
    blake3::Hasher::new().update(name).finalize_xof().fill(&mut mark);
    mark
}

/// ext2 to ext4, XFS, Btrfs, F2FS and tmpfs, by the numbers that statfs gives for them (linux/magic.h).
const EXACT: [u32; 5] = [0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0x0102_1994];
/// FS_CASEFOLD_FL (linux/fs.h).
const CASEFOLD: u32 = 0x4000_0000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_any_such_file_system_takes_for_one_are_one() {
        let alike = [
            ("README", "readme"),
            ("Straße", "STRASSE"),
            ("ẞ", "ß"),
            ("ΣΊΣΥΦΟΣ", "σίσυφος"),
            ("Ä/b", "ä/B"),
            ("É", "e\u{301}"),
        ];
        for (one, other) in alike {
            assert_eq!(folded(one.as_bytes()), folded(other.as_bytes()), "{one}");
        }
        assert_eq!(folded(b"A\xff/\xc3\x84"), folded(b"a\xff/\xc3\xa4"));
        for (one, other) in [("a", "b"), ("a/b", "ab"), ("人", "口"), ("a", "ä")] {
            assert_ne!(folded(one.as_bytes()), folded(other.as_bytes()), "{one}");
        }
    }
}
