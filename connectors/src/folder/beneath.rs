//! Opens things beneath a held directory handle and nowhere else: no link on the way is followed, not
//! even one put there while we look. openat2 does it in one call (Linux 5.6); where the kernel or a
//! container refuses that call, each component is opened on its own with O_NOFOLLOW.

use super::names::{SELF, split};
use super::stat::file_type;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) struct Root {
    handle: OwnedFd,
    path: PathBuf,
    /// openat2 is there. Learned at the first refusal.
    one_call: AtomicBool,
}

/// What stands at a name.
pub(crate) enum At {
    Nothing,
    /// A file or link stands where a folder on the way should be.
    Blocked,
    Here(Stat),
}

impl At {
    /// What an error of looking there says.
    pub(crate) fn absent(errno: Errno) -> Result<Self, Errno> {
        match errno {
            Errno::NOENT => Ok(Self::Nothing),
            Errno::NOTDIR | Errno::LOOP => Ok(Self::Blocked),
            other => Err(other),
        }
    }
}

impl Root {
    /// `path` is the operator's own: links in it are followed.
    pub(crate) fn open(path: &Path) -> Result<Self, Errno> {
        let handle = rustix::fs::open(path, FOLDER, Mode::empty())?;
        Ok(Self { handle, path: path.to_owned(), one_call: AtomicBool::new(true) })
    }

    #[cfg(test)]
    pub(crate) fn open_without_openat2(path: &Path) -> Result<Self, Errno> {
        let root = Self::open(path)?;
        root.one_call.store(false, Ordering::Relaxed);
        Ok(root)
    }

    /// For messages and for the disk's faults; never for opening.
    pub(crate) fn path_of(&self, name: &[u8]) -> PathBuf {
        if name == SELF { self.path.clone() } else { self.path.join(OsStr::from_bytes(name)) }
    }
    pub(crate) fn handle(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }

    pub(crate) fn folder(&self, name: &[u8]) -> Result<OwnedFd, Errno> {
        self.open_at(name, FOLDER, Mode::empty())
    }
    /// The folder that holds `name`, and its last component.
    pub(crate) fn parent<'n>(&self, name: &'n [u8]) -> Result<(OwnedFd, &'n [u8]), Errno> {
        let (folder, leaf) = split(name);
        Ok((self.folder(folder)?, leaf))
    }
    /// Opens a regular file. A pipe or device in its place is told by ENXIO and never waited for.
    pub(crate) fn file(&self, name: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        self.file_and_stat(name, flags).map(|(file, _)| file)
    }
    /// The same, with how it looks: asked once.
    pub(crate) fn file_and_stat(&self, name: &[u8], flags: OFlags) -> Result<(OwnedFd, Stat), Errno> {
        let flags = if flags.contains(OFlags::PATH) { flags } else { flags | OFlags::NONBLOCK | OFlags::NOCTTY };
        let file = self.open_at(name, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&file)?;
        if file_type(&stat) == FileType::RegularFile { Ok((file, stat)) } else { Err(Errno::NXIO) }
    }
    pub(crate) fn at(&self, name: &[u8]) -> Result<At, Errno> {
        let stat =
            self.parent(name).and_then(|(folder, leaf)| rustix::fs::statat(folder, leaf, AtFlags::SYMLINK_NOFOLLOW));
        stat.map_or_else(At::absent, |stat| Ok(At::Here(stat)))
    }

    fn open_at(&self, name: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if !self.one_call.load(Ordering::Relaxed) {
            return self.walk_to(name, flags, mode);
        }
        // EAGAIN: something was renamed while the kernel looked.
        let mut tries = 0;
        loop {
            match rustix::fs::openat2(&self.handle, name, flags, mode, RESOLVE) {
                Err(Errno::AGAIN | Errno::INTR) if tries < TRIES_MAX => tries += 1,
                // Old kernels say ENOSYS, some containers' filters EPERM.
                Err(Errno::NOSYS | Errno::PERM) => {
                    self.one_call.store(false, Ordering::Relaxed);
                    return self.walk_to(name, flags, mode);
                }
                answer => return answer,
            }
        }
    }

    fn walk_to(&self, name: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let (folder, leaf) = split(name);
        if folder == SELF {
            return rustix::fs::openat(&self.handle, leaf, flags, mode);
        }
        let mut at: Option<OwnedFd> = None;
        for part in folder.split(|b| *b == b'/') {
            let from = at.as_ref().map_or(self.handle.as_fd(), AsFd::as_fd);
            at = Some(rustix::fs::openat(from, part, FOLDER | OFlags::NOFOLLOW, Mode::empty())?);
        }
        rustix::fs::openat(at.as_ref().map_or(self.handle.as_fd(), AsFd::as_fd), leaf, flags, mode)
    }
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
const RESOLVE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);
const TRIES_MAX: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn no_link_on_the_way_or_at_the_end_is_followed_with_and_without_openat2() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("in");
        std::fs::create_dir_all(inside.join("real")).unwrap();
        std::fs::write(folder.path().join("secret"), "s").unwrap();
        std::fs::write(inside.join("real/file"), "f").unwrap();
        symlink(folder.path(), inside.join("out")).unwrap();
        symlink("real/file", inside.join("link")).unwrap();
        symlink("real", inside.join("folder-link")).unwrap();
        for root in [Root::open(&inside).unwrap(), Root::open_without_openat2(&inside).unwrap()] {
            assert!(root.file(b"real/file", OFlags::RDONLY).is_ok());
            assert!(root.folder(b"real").is_ok() && root.folder(SELF).is_ok());
            for name in [&b"out/secret"[..], b"link", b"folder-link/file"] {
                assert!(root.file(name, OFlags::RDONLY).is_err(), "{}", name.escape_ascii());
            }
            assert!(root.folder(b"out").is_err());
            assert!(matches!(root.at(b"out/secret"), Ok(At::Blocked)));
            assert!(matches!(root.at(b"link"), Ok(At::Here(_))));
            assert!(matches!(root.at(b"none/x"), Ok(At::Nothing)));
            assert!(matches!(root.at(b"real/file/x"), Ok(At::Blocked)));
        }
    }

    #[test]
    fn openat2_itself_refuses_what_the_names_check_would() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("in")).unwrap();
        std::fs::write(folder.path().join("secret"), "s").unwrap();
        let root = Root::open(&folder.path().join("in")).unwrap();
        let absolute = folder.path().join("secret");
        assert!(root.file(b"../secret", OFlags::RDONLY).is_err());
        assert!(root.file(absolute.as_os_str().as_bytes(), OFlags::RDONLY).is_err());
    }

    #[test]
    fn a_pipe_in_place_of_a_file_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, folder.path().join("pipe"), Mode::RUSR | Mode::WUSR).unwrap();
        let root = Root::open(folder.path()).unwrap();
        assert_eq!(root.file(b"pipe", OFlags::RDONLY).unwrap_err(), Errno::NXIO);
    }
}
