//! The folder that was opened last: of a group of entries that are worked on one after the other many lie in one.

use rustix::fd::OwnedFd;

/// For one group, and no longer: whoever renames a folder meanwhile has what is made in it there.
#[derive(Default)]
pub struct Near {
    open: Option<(Vec<u8>, OwnedFd)>,
}

impl Near {
    pub(super) fn folder<E>(&mut self, name: &[u8], open: impl FnOnce() -> Result<OwnedFd, E>) -> Result<&OwnedFd, E> {
        let found = match self.open.take().filter(|(known, _)| known.as_slice() == name) {
            Some(found) => found,
            None => (name.to_vec(), open()?),
        };
        Ok(&self.open.insert(found).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Mode, OFlags};
    use rustix::io::Errno;
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
}
