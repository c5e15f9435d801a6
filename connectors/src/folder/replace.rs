//! `replace`: the whole folder changes at one instant. The new one is built as a hidden sibling on the
//! same file system and exchanged by renameat2. A note beside it tells, after a crash, whether the
//! sibling is the new folder not yet in place or the old one not yet removed.

use super::beneath::Root;
use super::fault::writing;
use super::names::{sibling_leaf, swap_leaf};
use super::versions::Kept;
use posthouse_protocol::problem::{Code, Problem};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) struct Replacing {
    parent: OwnedFd,
    parent_path: PathBuf,
    leaf: OsString,
    sibling: String,
    note: String,
    /// The exchange is done, by this process or by one before it.
    done: AtomicBool,
}

pub(crate) struct Prepared {
    pub(crate) replacing: Replacing,
    /// Where to write.
    pub(crate) new: Root,
    /// The folder as it stands, if there is one.
    pub(crate) standing: Option<Root>,
}

impl Replacing {
    pub(crate) fn prepare(root: &Path, short: &str) -> Result<Prepared, Problem> {
        let unsupported =
            |cause: String| Problem::new(Code::ReplaceUnsupported).with("path", root.display()).cause(cause);
        // A link in its place would be exchanged itself: the folder it names is meant.
        let path = match root.canonicalize() {
            Ok(path) => path,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                std::path::absolute(root).map_err(|e| writing(root, e))?
            }
            Err(e) => return Err(writing(root, e)),
        };
        let (Some(parent_path), Some(leaf)) = (path.parent(), path.file_name()) else {
            return Err(unsupported("it has no parent folder".to_owned()));
        };
        std::fs::create_dir_all(parent_path).map_err(|e| writing(parent_path, e))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = rustix::fs::open(parent_path, flags, Mode::empty()).map_err(|e| unsupported(e.to_string()))?;
        let this = Self {
            parent,
            parent_path: parent_path.to_owned(),
            leaf: leaf.to_owned(),
            sibling: sibling_leaf(short),
            note: swap_leaf(short),
            done: AtomicBool::new(false),
        };
        this.check_mount().map_err(&unsupported)?;
        let standing = match this.stat(leaf) {
            Ok(Some(_)) => Some(Root::open(&path).map_err(|e| writing(&path, e))?),
            Ok(None) => None,
            Err(e) => return Err(writing(&path, e)),
        };
        if this.noted_done().map_err(|e| writing(&path, e))? {
            this.done.store(true, Ordering::Relaxed);
            let new = Root::open(&path).map_err(|e| writing(&path, e))?;
            return Ok(Prepared { replacing: this, new, standing: None });
        }
        this.make_sibling().map_err(|e| unsupported(format!("the parent folder does not allow it: {e}")))?;
        let sibling_path = this.parent_path.join(&this.sibling);
        let new = Root::open(&sibling_path).map_err(|e| writing(&sibling_path, e))?;
        Ok(Prepared { replacing: this, new, standing })
    }

    /// Puts the new folder in place. What is in it has been synced; `sync_parent` makes names beside it durable. The old
    /// one goes, or is kept.
    pub(crate) fn exchange(
        &self,
        new: &Root,
        kept: Option<&Kept>,
        sync_parent: &dyn Fn(&Path) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        let path = self.path();
        if !self.done.load(Ordering::Relaxed) {
            let standing = self.stat(&self.leaf).map_err(|e| writing(&path, e))?;
            self.write_note(new).map_err(|e| writing(&path, e))?;
            sync_parent(&self.parent_path)?;
            let flags = if standing.is_some() { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
            rustix::fs::renameat_with(&self.parent, self.sibling.as_str(), &self.parent, &self.leaf, flags)
                .map_err(|e| Problem::new(Code::ReplaceUnsupported).with("path", path.display()).cause(e))?;
            self.done.store(true, Ordering::Relaxed);
            sync_parent(&self.parent_path)?;
        }
        // The old folder; where there was none, there is nothing by this name.
        match kept {
            Some(kept) => kept.keep_folder(&self.parent, &self.sibling)?,
            None => remove_tree(&self.parent_path.join(&self.sibling)).map_err(|e| writing(&self.parent_path, e))?,
        }
        self.remove(&self.note, AtFlags::empty()).map_err(|e| writing(&self.parent_path, e))?;
        sync_parent(&self.parent_path)
    }

    pub(crate) fn is_done(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }

    /// Where the folder stands, or will stand.
    pub(crate) fn path(&self) -> PathBuf {
        self.parent_path.join(&self.leaf)
    }

    /// Drops what an abandoned transfer built. What it built stands in place already where the exchange is done: then
    /// the old folder is left, and kept like any other.
    pub(crate) fn discard(&self, kept: Option<&Kept>) -> Result<(), Problem> {
        match kept.filter(|_| self.is_done()) {
            Some(kept) => kept.keep_folder(&self.parent, &self.sibling)?,
            None => remove_tree(&self.parent_path.join(&self.sibling)).map_err(|e| writing(&self.parent_path, e))?,
        }
        self.remove(&self.note, AtFlags::empty()).map_err(|e| writing(&self.parent_path, e))
    }

    /// The folder that comes gets rights and owner of the one that goes: they are the operator's. False where
    /// there was none.
    pub(crate) fn keep_rights(&self, new: &Root) -> Result<bool, Problem> {
        if self.done.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let path = self.parent_path.join(&self.leaf);
        let Some(stat) = self.stat(&self.leaf).map_err(|e| writing(&path, e))? else { return Ok(false) };
        let owner = (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
        // Only root may give a folder away; anyone else owns both already or cannot.
        let _ = rustix::fs::fchown(new.handle(), Some(owner.0), Some(owner.1));
        rustix::fs::fchmod(new.handle(), Mode::from_raw_mode(stat.st_mode)).map_err(|e| writing(&path, e))?;
        Ok(true)
    }

    fn check_mount(&self) -> Result<(), String> {
        let parent = rustix::fs::fstat(&self.parent).map_err(|e| e.to_string())?;
        match self.stat(&self.leaf).map_err(|e| e.to_string())? {
            Some(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::Directory => {
                Err("it is no folder".to_owned())
            }
            Some(stat) if stat.st_dev != parent.st_dev => Err("a file system is mounted on it".to_owned()),
            _ => Ok(()),
        }
    }

    /// Makes the sibling, and proves on empty folders that they can be exchanged.
    fn make_sibling(&self) -> Result<(), Errno> {
        self.remove(&self.note, AtFlags::REMOVEDIR)?;
        match rustix::fs::mkdirat(&self.parent, self.sibling.as_str(), Mode::RWXU) {
            Err(Errno::EXIST) => return Ok(()),
            made => made?,
        }
        rustix::fs::mkdirat(&self.parent, self.note.as_str(), Mode::RWXU)?;
        let exchanged = rustix::fs::renameat_with(
            &self.parent,
            self.sibling.as_str(),
            &self.parent,
            self.note.as_str(),
            RenameFlags::EXCHANGE,
        );
        self.remove(&self.note, AtFlags::REMOVEDIR)?;
        if exchanged.is_err() {
            self.remove(&self.sibling, AtFlags::REMOVEDIR)?;
        }
        exchanged
    }

    fn write_note(&self, new: &Root) -> Result<(), Errno> {
        let stat = rustix::fs::fstat(new.handle())?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let note = rustix::fs::openat(&self.parent, self.note.as_str(), flags, Mode::RUSR | Mode::WUSR)?;
        rustix::io::write(note.as_fd(), identity(&stat).as_bytes())?;
        rustix::fs::fsync(&note)
    }

    /// Whether the note names the folder that now stands in place.
    fn noted_done(&self) -> Result<bool, std::io::Error> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let note = match rustix::fs::openat(&self.parent, self.note.as_str(), flags, Mode::empty()) {
            Ok(note) => note,
            Err(Errno::NOENT) => return Ok(false),
            Err(e) => return Err(e.into()),
        };
        if FileType::from_raw_mode(rustix::fs::fstat(&note)?.st_mode) != FileType::RegularFile {
            return Ok(false);
        }
        let mut text = String::new();
        std::fs::File::from(note).take(NOTE_BYTES_MAX).read_to_string(&mut text)?;
        Ok(self.stat(&self.leaf)?.is_some_and(|stat| identity(&stat) == text))
    }

    fn stat(&self, leaf: &OsStr) -> Result<Option<Stat>, Errno> {
        match rustix::fs::statat(&self.parent, leaf, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e),
        }
    }
    fn remove(&self, leaf: &str, flags: AtFlags) -> Result<(), Errno> {
        match rustix::fs::unlinkat(&self.parent, leaf, flags) {
            Ok(()) | Err(Errno::NOENT | Errno::NOTDIR | Errno::ISDIR) => Ok(()),
            Err(e) => Err(e),
        }
    }
}

fn identity(stat: &Stat) -> String {
    format!("{}:{}\n", stat.st_dev, stat.st_ino)
}

/// Removes a folder of ours and all in it; nothing there is fine.
pub(crate) fn remove_tree(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
            open_up(path)?;
            std::fs::remove_dir_all(path)
        }
        done => done,
    }
}

/// Folders that their owner may not write to cannot be emptied: gives the right first.
fn open_up(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mut open = vec![path.to_owned()];
    while let Some(folder) = open.pop() {
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700))?;
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            }
        }
    }
    Ok(())
}

const NOTE_BYTES_MAX: u64 = 64;
