//! The folder that was opened last: of a group of entries that are worked on one after the other many lie in one.

use crate::folder::beneath::{At, Root};
use crate::folder::names::split;
use rustix::fd::OwnedFd;
use rustix::fs::AtFlags;
use rustix::io::Errno;

/// For one group, and no longer: whoever renames a folder meanwhile has what is made in it there.
#[derive(Default)]
pub struct Near {
    open: Option<(Vec<u8>, OwnedFd)>,
    /// One that was not there when something in it was looked for.
    missing: Option<Vec<u8>>,
}

impl Near {
    pub(super) fn folder<E>(&mut self, name: &[u8], open: impl FnOnce() -> Result<OwnedFd, E>) -> Result<&OwnedFd, E> {
        let found = match self.open.take().filter(|(known, _)| known.as_slice() == name) {
            Some(found) => found,
            None => (name.to_vec(), open()?),
        };
        Ok(&self.open.insert(found).1)
    }

    /// What stands at a name, as [`Root::at`] says it.
    pub(super) fn at(&mut self, root: &Root, name: &[u8]) -> Result<At, Errno> {
        let (folder_name, leaf) = split(name);
        if self.missing.as_deref() == Some(folder_name) {
            return Ok(At::Nothing);
        }
        let folder = match self.folder(folder_name, || root.folder(folder_name)) {
            Ok(folder) => folder,
            Err(Errno::NOENT) => {
                self.missing = Some(folder_name.to_vec());
                return Ok(At::Nothing);
            }
            Err(e) => return At::absent(e),
        };
        rustix::fs::statat(folder, leaf, AtFlags::SYMLINK_NOFOLLOW).map_or_else(At::absent, |stat| Ok(At::Here(stat)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Mode, OFlags};
    use std::cell::Cell;

    #[test]
    fn a_folder_is_opened_once_for_those_that_follow_each_other_in_it() {
        let opened = Cell::new(0);
        let open = || {
            opened.set(opened.get() + 1);
            rustix::fs::open("/", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
        };
        let mut near = Near::default();
        for (name, times) in [("a", 1), ("a", 1), ("a/b", 2), ("a/b", 2), ("a", 3)] {
            near.folder(name.as_bytes(), open).unwrap();
            assert_eq!(opened.get(), times, "{name}");
        }
        // One that cannot be opened leaves nothing behind.
        assert_eq!(near.folder(b"b", || Err(Errno::NOENT)).unwrap_err(), Errno::NOENT);
        near.folder(b"a", open).unwrap();
        assert_eq!(opened.get(), 4);
    }

    #[test]
    fn what_stands_at_names_is_found_and_a_folder_that_is_not_there_is_looked_for_once() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("a")).unwrap();
        std::fs::write(at("a/file"), "abc").unwrap();
        std::os::unix::fs::symlink("a", at("link")).unwrap();
        let root = Root::open(folder.path()).unwrap();
        let mut near = Near::default();
        let found = |near: &mut Near, name: &str| match near.at(&root, name.as_bytes()).unwrap() {
            At::Nothing => "nothing",
            At::Blocked => "blocked",
            At::Here(stat) if stat.st_size == 3 => "the file",
            At::Here(_) => "another",
        };
        let names = ["a/file", "a/none", "a", "link", "b/file", "a/file/x", "link/file", "a/file"];
        let expected = ["the file", "nothing", "another", "another", "nothing", "blocked", "blocked", "the file"];
        for (name, expected) in names.into_iter().zip(expected) {
            assert_eq!(found(&mut near, name), expected, "{name}");
        }
        std::fs::create_dir(at("b")).unwrap();
        std::fs::write(at("b/file"), "abc").unwrap();
        assert_eq!(found(&mut near, "b/file"), "nothing", "of this group it was not there");
        assert_eq!(found(&mut Near::default(), "b/file"), "the file");
    }
}
