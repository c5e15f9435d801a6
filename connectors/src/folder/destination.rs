//! A folder that is landed in. Content is written beside its target under a temporary name and appears
//! by rename: a name shows the old file or the complete new one, never a mix. Links are made, never
//! followed. After `finish` everything published is durable, folders have their times and rights.

mod clearing;
mod folders;
mod folding;
mod holding;
mod looking;
mod near;
mod presence;
mod second;

use super::attributes;
use super::beneath::{At, Root};
use super::fault::{named, taken, writing};
use super::hash::hash_file;
use super::names::{self, SELF, check_name, part_leaf, split};
use super::part::{Part, Written, modified};
use super::replace::{Prepared, Replacing};
use super::source::OpenFile;
use super::stat::{FileStat, file_type, travelling_mode};
use super::versions::{Kept, Versions};
use folders::Folders;
pub(super) use folding::Folded;
use folding::Folding;
pub use looking::Seen;
pub use near::Near;
use posthouse_platform::disk::Disk;
use posthouse_protocol::id::TransferId;
use posthouse_protocol::job::Write;
use posthouse_protocol::limits::LINK_BYTES_MAX;
use posthouse_protocol::manifest::{Entry, EntryKind, check_attributes};
use posthouse_protocol::problem::{Code, Problem};
pub use presence::Present;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

pub struct FolderDestination {
    root: Root,
    /// `replace`: the folder as it stands while the new one is built.
    standing: Option<Root>,
    replacing: Option<Replacing>,
    /// Where older versions go, if they are kept.
    kept: Option<Kept>,
    write: Write,
    short: String,
    written: Arc<Written>,
    folders: Mutex<Folders>,
    folding: Folding,
    /// Whether files here can have extended attributes. Learned at the first entry that has some.
    holds: OnceLock<bool>,
    /// Folders whose attributes cannot be had here: what is in them would be open to others than at the provider.
    shut: Mutex<BTreeSet<Vec<u8>>>,
    /// Who owns what this process makes here.
    owner: OnceLock<u32>,
}

impl FolderDestination {
    /// Makes the folder where it is missing. `replace` that cannot be done is refused here.
    pub fn open(root: &Path, write: Write, transfer: &TransferId, disk: Arc<dyn Disk>) -> Result<Self, Problem> {
        let short = names::short(transfer);
        let mut folders = Folders::default();
        let (root, standing, replacing) = if write == Write::Replace {
            let Prepared { replacing, new, standing } = Replacing::prepare(root, &short)?;
            if standing.is_none() {
                folders.made.insert(SELF.to_vec());
            }
            (new, standing, Some(replacing))
        } else {
            if make_root(root, disk.as_ref(), 0o777)? {
                folders.made.insert(SELF.to_vec());
            }
            (Root::open(root).map_err(|e| writing(root, e))?, None, None)
        };
        let handle = rustix::io::dup(root.handle()).map_err(|e| writing(&root.path_of(SELF), e))?;
        let written = Arc::new(Written::new(disk, handle, root.path_of(SELF)));
        Ok(Self {
            root,
            standing,
            replacing,
            kept: None,
            write,
            short,
            written,
            folders: Mutex::new(folders),
            folding: Folding::default(),
            holds: OnceLock::new(),
            shut: Mutex::default(),
            owner: OnceLock::new(),
        })
    }

    /// The same, which keeps what it takes the place of. Refused where that cannot be.
    pub fn keeping(mut self, versions: &Versions) -> Result<Self, Problem> {
        let place = self.replacing.as_ref().map_or_else(|| self.root.path_of(SELF), Replacing::path);
        let disk = Arc::clone(&self.written.disk);
        self.kept = Some(Kept::open(versions, &self.root, &place, &self.short, disk)?);
        Ok(self)
    }

    /// The temporary file for an entry's content, beside its target. With `resume`, the one that an
    /// earlier process of this transfer left, if there is one.
    pub fn part(&self, name: &[u8], resume: bool) -> Result<Part, Problem> {
        self.part_near(name, resume, &mut Near::default())
    }

    /// The same, for one of a group.
    pub fn part_near(&self, name: &[u8], resume: bool, near: &mut Near) -> Result<Part, Problem> {
        check_name(name).map_err(|e| named(Code::NameRefused, name, e))?;
        let (folder_name, _) = split(name);
        let folder = near.folder(folder_name, || self.make_folder(folder_name))?;
        let leaf = part_leaf(&self.short, name);
        let path = self.root.path_of(&names::join(folder_name, &leaf));
        let failed = |e: Errno| writing(&path, e);
        self.written.disk.before_write(&path, 0).map_err(|e| writing(&path, e))?;
        let make = || {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(folder, leaf.as_slice(), flags, Mode::RUSR | Mode::WUSR)
        };
        let new = |file: OwnedFd| Part::new(file.into(), path.clone(), true, Arc::clone(&self.written));
        // Most often there is none yet.
        match self.in_folder(folder_name, folder, &make) {
            Err(Errno::EXIST) => {}
            made => return made.map(new).map_err(failed),
        }
        if resume {
            let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            match rustix::fs::openat(folder, leaf.as_slice(), flags, Mode::empty()) {
                Ok(file) if self.is_own_file(&rustix::fs::fstat(&file).map_err(failed)?) => {
                    return Ok(Part::new(file.into(), path, false, Arc::clone(&self.written)));
                }
                Ok(_) | Err(Errno::NOENT | Errno::LOOP | Errno::NXIO | Errno::ISDIR | Errno::ACCESS) => {}
                Err(e) => return Err(failed(e)),
            }
        }
        self.in_folder(folder_name, folder, &|| {
            remove(folder, &leaf, AtFlags::empty())?;
            make()
        })
        .map(new)
        .map_err(failed)
    }

    /// Gives the temporary file of an entry, which is sealed, the rights and times that it is to have after all.
    pub fn amend_part(&self, entry: &Entry) -> Result<(), Problem> {
        check_entry(entry)?;
        let leaf = part_leaf(&self.short, &entry.name);
        let (folder_name, _) = split(&entry.name);
        let name = names::join(folder_name, &leaf);
        let path = self.root.path_of(&name);
        let failed = |e: Errno| writing(&path, e);
        let folder = self.root.folder(folder_name).map_err(failed)?;
        // Its own rights may not let it be opened to be read or written.
        let (file, stat) = self.root.file_and_stat(&name, OFlags::PATH).map_err(failed)?;
        if !self.is_own_file(&stat) {
            return Err(taken(&entry.name, "its temporary file was exchanged"));
        }
        chmod_handle(&file, travelling_mode(&entry.kind, entry.mode)).map_err(failed)?;
        let times = modified(entry.mtime_ns);
        rustix::fs::utimensat(&folder, leaf.as_slice(), &times, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)
    }

    /// Whether what stands at a name may be replaced.
    pub fn replaces(&self) -> bool {
        self.write != Write::Append
    }

    /// Makes durable what was written through parts since the last call. After an error the parts
    /// written since then are of unknown content and are written again, by a destination that is opened anew:
    /// this one fails every later call.
    pub fn sync(&self) -> Result<(), Problem> {
        self.written.sync()
    }

    /// Makes an entry visible: a sealed part is renamed, a link or folder is made. A repeat changes nothing.
    pub fn publish(&self, entry: &Entry) -> Result<FileStat, Problem> {
        self.publish_near(entry, &mut Near::default())
    }

    /// The same, for one of a group.
    pub fn publish_near(&self, entry: &Entry, near: &mut Near) -> Result<FileStat, Problem> {
        check_entry(entry)?;
        match &entry.kind {
            EntryKind::Directory => self.publish_folder(entry),
            EntryKind::Link(text) => self.publish_link(entry, text),
            EntryKind::File | EntryKind::Split(_) => self.publish_file(entry, false, near),
        }
    }

    /// An entry whose content is there already (`Present::Same`): gives it its mode and attributes; `replace` takes
    /// the file over from the old folder without copying it. `known`: it is as it was when it was last landed durably.
    pub fn adopt(&self, entry: &Entry, known: bool) -> Result<FileStat, Problem> {
        check_entry(entry)?;
        if !matches!(entry.kind, EntryKind::File) {
            return self.publish(entry);
        }
        if let Some(standing) = &self.standing
            && matches!(self.compare(&self.root, entry)?, Present::Absent)
        {
            self.link_over(standing, entry)?;
        }
        let path = self.root.path_of(&entry.name);
        let failed = |e: Errno| writing(&path, e);
        let file = open_handle(&self.root, &entry.name).map_err(failed)?;
        let stat = rustix::fs::fstat(&file).map_err(failed)?;
        let mode = travelling_mode(&entry.kind, entry.mode);
        let (has_mode, has_attributes) =
            (stat.st_mode & 0o7777 == mode, self.has_attributes(&file, entry).map_err(failed)?);
        // The name in the folder that is to go is one of them.
        let own_names = if self.standing.is_some() { 2 } else { 1 };
        if !(has_mode && has_attributes) && stat.st_nlink > own_names {
            // Rights and attributes of its other names are not this entry's to change: it becomes a file of its own.
            return self.publish_copy(entry, entry, None);
        }
        if !has_attributes {
            self.give_attributes(&file, entry)?;
        } else if !known && entry.attributes.as_ref().is_some_and(|wanted| !wanted.is_empty()) {
            // A process that ended before it made them durable may have given it those.
            self.note_attributes(&file, entry)?;
        }
        if !has_mode {
            chmod_handle(&file, mode).map_err(failed)?;
        }
        rustix::fs::fstat(&file).map(|stat| FileStat::of(&stat)).map_err(failed)
    }

    /// BLAKE3 of what is landed at a name (or, with `replace`, still stands there). `reread` reads from
    /// the disk, past what memory still holds of it.
    pub fn hash(&self, name: &[u8], reread: bool) -> Result<[u8; 32], Problem> {
        check_name(name).map_err(|e| named(Code::NameRefused, name, e))?;
        let path = self.root.path_of(name);
        hash_file(self.root_of(name), name, reread)
            .map_err(|e| named(Code::FileUnreadable, name, e).with("path", path.display()))
    }

    /// Opens what stands at a name for reading (with `replace`, in the folder that is to go); None where that cannot be.
    pub fn open_file(&self, name: &[u8]) -> Option<OpenFile> {
        let root = self.root_of(name);
        let (file, stat) = check_name(name).ok().and_then(|()| root.file_and_stat(name, OFlags::RDONLY).ok())?;
        Some(OpenFile::new(name, file, &stat))
    }

    pub fn free_bytes(&self) -> Result<u64, Problem> {
        let path = self.root.path_of(SELF);
        self.written.disk.free_bytes(&path).map_err(|e| writing(&path, e))
    }

    /// Where a name is looked for: `replace` may have nothing of that name in its new folder yet.
    fn root_of(&self, name: &[u8]) -> &Root {
        match (&self.standing, self.root.at(name)) {
            (Some(standing), Ok(At::Nothing | At::Blocked)) => standing,
            _ => &self.root,
        }
    }

    /// `over_own`: it takes the place of what stands there, with the same content, whatever is written otherwise.
    fn publish_file(&self, entry: &Entry, over_own: bool, near: &mut Near) -> Result<FileStat, Problem> {
        let name = entry.name.as_slice();
        let leaf = part_leaf(&self.short, name);
        let (folder_name, target) = split(name);
        let path = self.root.path_of(name);
        let open = || self.root.folder(folder_name).map_err(|e| writing(&path, e));
        let folder = near.folder(folder_name, open)?;
        let stat = |leaf: &[u8]| rustix::fs::statat(folder, leaf, AtFlags::SYMLINK_NOFOLLOW);
        match stat(&leaf) {
            Ok(part) if self.is_own_file(&part) => {}
            Ok(_) => return Err(taken(name, "its temporary file was exchanged")),
            // Published by an earlier process of this transfer: the part is gone, the file is there.
            Err(Errno::NOENT) => {
                return match self.compare(&self.root, entry)? {
                    Present::Same(stat) => {
                        // That process may have ended before it made the name durable.
                        self.locked().touched.insert(folder_name.to_vec());
                        if let Some(kept) = &self.kept {
                            kept.touch(name);
                        }
                        Ok(stat)
                    }
                    _ => Err(writing(&path, Errno::NOENT).with("name", "its temporary file")),
                };
            }
            Err(e) => return Err(writing(&path, e)),
        }
        self.keep(folder, target, name)?;
        let put = || if over_own { over(folder, &leaf, target) } else { self.put(folder, &leaf, target) };
        self.in_folder(folder_name, folder, &put).map_err(|e| self.landing(entry, e))?;
        let mut folders = self.locked();
        if !folders.touched.contains(folder_name) {
            folders.touched.insert(folder_name.to_vec());
        }
        drop(folders);
        stat(target).map(|stat| FileStat::of(&stat)).map_err(|e| writing(&path, e))
    }

    fn publish_link(&self, entry: &Entry, text: &[u8]) -> Result<FileStat, Problem> {
        let name = entry.name.as_slice();
        let (folder_name, target) = split(name);
        let path = self.root.path_of(name);
        let failed = |e: Errno| writing(&path, e);
        let folder = self.make_folder(folder_name)?;
        let times = modified(entry.mtime_ns);
        match self.compare(&self.root, entry)? {
            Present::Same(now) if now.mtime_ns == entry.mtime_ns => return Ok(now),
            Present::Same(_) => {
                rustix::fs::utimensat(&folder, target, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
            }
            Present::Blocked(why) => return Err(taken(name, why.reason)),
            Present::Absent | Present::Differs(_) => {
                let leaf = part_leaf(&self.short, name);
                self.keep(&folder, target, name)?;
                self.written.disk.before_write(&path, text.len() as u64).map_err(|e| writing(&path, e))?;
                self.in_folder(folder_name, &folder, &|| {
                    remove(&folder, &leaf, AtFlags::empty())?;
                    rustix::fs::symlinkat(text, &folder, leaf.as_slice())?;
                    rustix::fs::utimensat(&folder, leaf.as_slice(), &times, AtFlags::SYMLINK_NOFOLLOW)?;
                    self.put(&folder, &leaf, target)
                })
                .map_err(|e| self.landing(entry, e))?;
            }
        }
        self.locked().touched.insert(folder_name.to_vec());
        let stat = rustix::fs::statat(&folder, target, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        Ok(FileStat::of(&stat))
    }

    /// What stands at a name is kept before something takes its place.
    fn keep(&self, folder: &OwnedFd, leaf: &[u8], name: &[u8]) -> Result<(), Problem> {
        match &self.kept {
            // What `replace` builds takes the place of nothing before the whole folder does.
            Some(kept) if self.replacing.is_none() => kept.keep(folder, leaf, name),
            _ => Ok(()),
        }
    }

    /// Renames a temporary name to its target; `append` never over something.
    fn put(&self, folder: &OwnedFd, leaf: &[u8], target: &[u8]) -> Result<(), Errno> {
        if self.write != Write::Append {
            return over(folder, leaf, target);
        }
        match rustix::fs::renameat_with(folder, leaf, folder, target, RenameFlags::NOREPLACE) {
            // Kernels before 3.15 and some file systems: a second name that must be new does the same.
            Err(Errno::NOSYS | Errno::INVAL) => {
                rustix::fs::linkat(folder, leaf, folder, target, AtFlags::empty())?;
                rustix::fs::unlinkat(folder, leaf, AtFlags::empty())
            }
            done => done,
        }
    }

    fn landing(&self, entry: &Entry, errno: Errno) -> Problem {
        match errno {
            Errno::EXIST | Errno::NOTEMPTY | Errno::ISDIR | Errno::NOTDIR | Errno::LOOP => taken(&entry.name, errno),
            _ => writing(&self.root.path_of(&entry.name), errno),
        }
    }

    /// Gives the file of the old folder a second name in the new one.
    fn link_over(&self, standing: &Root, entry: &Entry) -> Result<(), Problem> {
        let name = entry.name.as_slice();
        let path = self.root.path_of(name);
        let (from, leaf) = standing.parent(name).map_err(|e| writing(&path, e))?;
        let folder = self.make_folder(split(name).0)?;
        rustix::fs::linkat(&from, leaf, &folder, leaf, AtFlags::empty()).map_err(|e| writing(&path, e))?;
        self.locked().touched.insert(split(name).0.to_vec());
        Ok(())
    }

    /// A regular file of ours under one name only: nobody can have smuggled it in to have it overwritten,
    /// or kept the right to change it.
    fn is_own_file(&self, stat: &Stat) -> bool {
        let owner = *self.owner.get_or_init(|| self.probe_owner().unwrap_or(rustix::process::geteuid().as_raw()));
        file_type(stat) == FileType::RegularFile && stat.st_nlink == 1 && stat.st_uid == owner
    }

    /// Mounts from other machines may give every file to another user than the one who writes.
    fn probe_owner(&self) -> Result<u32, Errno> {
        let leaf = part_leaf(&self.short, b"");
        unlink(self.root.handle(), &leaf, AtFlags::empty())?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let probe = rustix::fs::openat(self.root.handle(), leaf.as_slice(), flags, Mode::RUSR | Mode::WUSR)?;
        let owner = rustix::fs::fstat(&probe)?.st_uid;
        unlink(self.root.handle(), &leaf, AtFlags::empty())?;
        Ok(owner)
    }

    fn locked(&self) -> MutexGuard<'_, Folders> {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a peer lists is checked at every use: a name, a link's text, attributes, and that it is part of a folder.
fn check_entry(entry: &Entry) -> Result<(), Problem> {
    let refused = |why: String| named(Code::NameRefused, &entry.name, why);
    check_name(&entry.name).map_err(|e| refused(e.to_string()))?;
    check_attributes(entry).map_err(|e| attributes::refused(&entry.name, e))?;
    match &entry.kind {
        EntryKind::Split(_) => Err(refused("it is part of a table".to_owned())),
        EntryKind::Link(text) if text.is_empty() || text.len() > LINK_BYTES_MAX || text.contains(&0) => {
            Err(refused("its text is no path".to_owned()))
        }
        EntryKind::File | EntryKind::Link(_) if entry.name == SELF => {
            Err(refused("it is the folder itself".to_owned()))
        }
        EntryKind::File if i64::try_from(entry.size).is_err() => Err(refused("its size is beyond any file".to_owned())),
        _ => Ok(()),
    }
}

/// Makes the folder and what is missing above it, with these rights as far as the process gives any; says whether it
/// was missing.
pub(crate) fn make_root(root: &Path, disk: &dyn Disk, mode: u32) -> Result<bool, Problem> {
    use std::os::unix::fs::DirBuilderExt;

    let mut missing = Vec::new();
    let mut at = Some(root);
    while let Some(path) = at.filter(|path| !path.as_os_str().is_empty() && !path.exists()) {
        missing.push(path);
        at = path.parent();
    }
    std::fs::DirBuilder::new().recursive(true).mode(mode).create(root).map_err(|e| writing(root, e))?;
    for path in &missing {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        disk.sync_folder(parent).map_err(|e| writing(parent, e))?;
    }
    Ok(!missing.is_empty())
}

fn remove(folder: &OwnedFd, leaf: &[u8], flags: AtFlags) -> Result<(), Errno> {
    unlink(folder.as_fd(), leaf, flags)
}

/// Renames a temporary name to its target, over what stands there.
fn over(folder: &OwnedFd, leaf: &[u8], target: &[u8]) -> Result<(), Errno> {
    match rustix::fs::renameat(folder, leaf, folder, target) {
        // An empty folder stands there (one with something in it was refused before).
        Err(Errno::ISDIR) => {
            rustix::fs::unlinkat(folder, target, AtFlags::REMOVEDIR)?;
            rustix::fs::renameat(folder, leaf, folder, target)
        }
        done => done,
    }
}

fn unlink(folder: BorrowedFd<'_>, leaf: &[u8], flags: AtFlags) -> Result<(), Errno> {
    match rustix::fs::unlinkat(folder, leaf, flags) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(e),
    }
}

/// A handle that needs no right to read the file.
fn open_handle(root: &Root, name: &[u8]) -> Result<OwnedFd, Errno> {
    root.file(name, OFlags::PATH)
}

fn chmod_handle(file: &OwnedFd, mode: u32) -> Result<(), Errno> {
    // A handle without reading rights takes no fchmod; the kernel's own name for it does.
    rustix::fs::chmod(attributes::own_name(file), Mode::from_raw_mode(mode))
}
