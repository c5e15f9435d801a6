//! A folder that is read: lists what is in scope, in a fixed order, and opens files so that a change
//! while they are read is noticed. What cannot be handed over is found too, with its reason.

use super::attributes::{self, Fault};
use super::beneath::{At, Root};
use super::fault::{left_out, named, readable, reading};
use super::links::leaves;
use super::names::{SELF, check_name, is_ours, split};
use super::patterns::Patterns;
use super::stat::{FileStat, file_type, travelling_mode};
use super::walk::{Met, Then, walk};
use super::{FolderOptions, Links};
use posthouse_protocol::limits::{ATTRIBUTES_BYTES_MAX, SAME_FILES_MAX};
use posthouse_protocol::manifest::{Attribute, Entry, EntryKind, LeftOut};
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::time::Timestamp;
use rustix::fd::OwnedFd;
use rustix::fs::{Advice, FileType, OFlags, Stat};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::Path;

pub struct FolderSource {
    root: Root,
    patterns: Patterns,
    links: Links,
    quiet_ms: i64,
    /// How many bytes of attributes an entry may have, where they are told.
    pub(super) attributes_max: Option<usize>,
}

/// One thing in scope: handed over, or left out with its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "nearly all of what is found are entries")]
pub enum Found {
    /// Indexes count from 0 in list order; links carry the root of their text, files none yet.
    Entry {
        entry: Entry,
        stat: FileStat,
    },
    LeftOut(LeftOut),
}

impl FolderSource {
    /// A folder that is missing or unreadable is a problem, never an empty folder.
    pub fn open(root: &Path, options: &FolderOptions) -> Result<Self, Problem> {
        let failed = |cause: String| {
            Problem::new(Code::SourceFailed).with("resource", root.display()).with("path", root.display()).cause(cause)
        };
        let patterns = Patterns::new(&options.include, &options.exclude).map_err(|e| failed(e.to_string()))?;
        let root =
            Root::open(root).map_err(|e| failed(format!("the folder {} cannot be opened: {e}", root.display())))?;
        let attributes_max = options.xattrs.then_some(ATTRIBUTES_BYTES_MAX);
        Ok(Self { root, patterns, links: options.links, quiet_ms: options.quiet_ms, attributes_max })
    }

    /// Finds everything in scope: the folder itself as `.`, then names by their bytes, folders before
    /// what is in them. `now` is the wall clock, for `quiet`: it is looked at as the listing goes on, which may take as long
    /// as what is found is taken. Our own temporary files are no content.
    pub fn list(
        &self,
        now: &dyn Fn() -> Timestamp,
        found: &mut dyn FnMut(Found) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        let top = rustix::fs::fstat(self.root.handle()).map_err(|e| self.lost(e))?;
        let mut lister =
            Lister { source: self, now, index: 0, waiting: Vec::new(), linked: BTreeMap::new(), refused: None, found };
        lister.entry(SELF, EntryKind::Directory, &top, None)?;
        walk(&self.root, SELF, |name, met| lister.meet(name, met))
    }

    /// Opens a listed file for reading.
    pub fn open_file(&self, name: &[u8]) -> Result<OpenFile, Problem> {
        check_name(name).map_err(|e| named(Code::NameRefused, name, e))?;
        let (file, stat) = match self.root.file_and_stat(name, OFlags::RDONLY) {
            Ok(opened) => opened,
            Err(Errno::NXIO | Errno::LOOP) => return Err(named(Code::SpecialFile, name, "it is no longer a file")),
            // Gone is only what the folder itself says is not there.
            Err(Errno::NOENT | Errno::NOTDIR) if matches!(self.root.at(name), Ok(At::Nothing | At::Blocked)) => {
                return Err(named(Code::FileChanged, name, "it was removed while the folder was read"));
            }
            Err(e) => return Err(reading(name, e)),
        };
        if FileStat::of(&stat).size > AHEAD_BYTES {
            // Only a hint; a file system that does not take it reads as well.
            let _ = rustix::fs::fadvise(&file, 0, None, Advice::Sequential);
        }
        Ok(OpenFile::new(name, file, &stat))
    }

    /// What is told of the attributes of something in scope.
    fn attributes(&self, name: &[u8], kind: &EntryKind) -> Result<Option<Vec<Attribute>>, Fault> {
        let Some(most) = self.attributes_max else { return Ok(None) };
        let handle = match kind {
            EntryKind::Directory if name == SELF => return attributes::read(self.root.handle(), most).map(Some),
            EntryKind::Directory => self.root.folder(name),
            // To look at it opens nothing that waits for it, or has to be brought back first.
            EntryKind::File => self.root.file(name, OFlags::PATH),
            // The system keeps none of users for others.
            EntryKind::Link(_) | EntryKind::Split(_) => return Ok(None),
        };
        attributes::read(handle.map_err(Fault::of_opening)?, most).map(Some)
    }

    fn lost(&self, errno: Errno) -> Problem {
        let path = self.root.path_of(SELF);
        Problem::new(Code::SourceFailed).with("resource", path.display()).with("path", path.display()).cause(errno)
    }
}

/// A file being read. It stays the file that was opened, whatever takes its name meanwhile.
pub struct OpenFile {
    name: Vec<u8>,
    file: std::fs::File,
    stat: FileStat,
}

impl OpenFile {
    pub(crate) fn new(name: &[u8], file: OwnedFd, stat: &Stat) -> Self {
        Self { name: name.to_vec(), file: file.into(), stat: FileStat::of(stat) }
    }
    /// As it was when it was opened.
    pub fn stat(&self) -> FileStat {
        self.stat
    }
    /// Whether it was written to since: what was read is then torn and is read again.
    pub fn changed(&self) -> Result<bool, Problem> {
        let stat = rustix::fs::fstat(&self.file).map_err(|e| reading(&self.name, e))?;
        // A writer may put the old mtime back, but not the old ctime. A file that was only renamed or
        // linked once more has a new ctime too, which costs one more reading and no error.
        Ok(FileStat::of(&stat) != self.stat)
    }
    /// Its extended attributes that travel, as they are now.
    pub fn attributes(&self) -> Result<Vec<Attribute>, Problem> {
        attributes::read(&self.file, ATTRIBUTES_BYTES_MAX).map_err(|fault| fault.problem(&self.name))
    }
    /// Fills `out` unless the file ends before.
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<usize, Problem> {
        read_full(&self.file, offset, out).map_err(|e| named(Code::FileUnreadable, &self.name, e))
    }
}

pub(crate) fn read_full(file: &std::fs::File, offset: u64, out: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = out.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

struct Lister<'a> {
    source: &'a FolderSource,
    now: &'a dyn Fn() -> Timestamp,
    index: u64,
    /// Folders on the way to something in scope that have not been found yet (with `include`).
    waiting: Vec<(Vec<u8>, Stat)>,
    /// Files that have further names: which entry they are, and how they looked then.
    linked: BTreeMap<(u64, u64), (u64, FileStat)>,
    /// The last folder that was left out.
    refused: Option<Vec<u8>>,
    found: &'a mut dyn FnMut(Found) -> Result<(), Problem>,
}

impl Lister<'_> {
    fn meet(&mut self, name: &[u8], met: Met) -> Result<Then, Problem> {
        let is_refused = self.refused.as_ref().is_some_and(|folder| beneath(folder, name));
        if is_refused || is_ours(split(name).1) || self.source.patterns.excludes(name) {
            return Ok(Then::Skip);
        }
        let included = self.source.patterns.includes(name);
        let stat = match met {
            Met::Here(stat) => stat,
            Met::Unreadable(e) if name == SELF => return Err(self.source.lost(e)),
            // It may be a folder with something in scope in it: always told.
            Met::Unreadable(e) => {
                self.left_out(name, &reading(name, e))?;
                return Ok(Then::Skip);
            }
        };
        let kind = file_type(&stat);
        if let Err(fault) = check_name(name) {
            self.left_out(name, &named(Code::NameRefused, name, fault))?;
            return Ok(Then::Skip);
        }
        if kind == FileType::Directory {
            if included {
                let is_listed = self.folders_on_the_way(name)? && self.folder(name, &stat)?;
                return Ok(if is_listed { Then::Enter } else { Then::Skip });
            } else {
                self.waiting.retain(|(folder, _)| beneath(folder, name));
                self.waiting.push((name.to_vec(), stat));
            }
            return Ok(Then::Enter);
        }
        if included {
            match kind {
                FileType::RegularFile => self.file(name, &stat)?,
                FileType::Symlink => self.link(name, &stat)?,
                _ => self.left_out(name, &named(Code::SpecialFile, name, special(kind)))?,
            }
        }
        Ok(Then::Skip)
    }

    fn file(&mut self, name: &[u8], stat: &Stat) -> Result<(), Problem> {
        let age_ms = self.age_ms(&FileStat::of(stat));
        if self.source.quiet_ms > 0 && age_ms < self.source.quiet_ms {
            let cause = format!("it changed {} ms ago, `quiet` is {} ms", age_ms.max(0), self.source.quiet_ms);
            return self.left_out(name, &named(Code::FileChanged, name, cause));
        }
        if self.folders_on_the_way(name)? {
            self.entry(name, EntryKind::File, stat, None)?;
        }
        Ok(())
    }

    /// Whether it is listed. What is in a folder that is left out is not: it would be open to others than here.
    fn folder(&mut self, name: &[u8], stat: &Stat) -> Result<bool, Problem> {
        let is_listed = self.entry(name, EntryKind::Directory, stat, None)?;
        if !is_listed {
            self.refused = Some(name.to_vec());
        }
        Ok(is_listed)
    }

    fn link(&mut self, name: &[u8], stat: &Stat) -> Result<(), Problem> {
        let root = &self.source.root;
        let text = root.parent(name).and_then(|(folder, leaf)| rustix::fs::readlinkat(folder, leaf, Vec::new()));
        let text = match text {
            Ok(text) => text.into_bytes(),
            Err(Errno::NOENT) => return Ok(()),
            Err(e) => return self.left_out(name, &reading(name, e)),
        };
        if self.source.links == Links::Inside
            && let Some(why) = leaves(root, name, &text)
        {
            let cause = format!("{why}: {}", readable(&text));
            return self.left_out(name, &named(Code::LinkRefused, name, cause));
        }
        if self.folders_on_the_way(name)? {
            let hash = *blake3::hash(&text).as_bytes();
            self.entry(name, EntryKind::Link(text), stat, Some(hash))?;
        }
        Ok(())
    }

    /// Folders that are in scope only because of what is in them; whether all of them are listed.
    fn folders_on_the_way(&mut self, name: &[u8]) -> Result<bool, Problem> {
        for (folder, stat) in std::mem::take(&mut self.waiting) {
            if beneath(&folder, name) && !self.folder(&folder, &stat)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether it is listed, and not left out or gone.
    fn entry(&mut self, name: &[u8], kind: EntryKind, stat: &Stat, root: Option<[u8; 32]>) -> Result<bool, Problem> {
        let attributes = match self.source.attributes(name, &kind) {
            Ok(attributes) => attributes,
            // Removed since it was met: that is absence, not an error.
            Err(Fault::Gone) => return Ok(false),
            Err(fault) if name == SELF => return Err(fault.problem(name)),
            Err(fault) => return self.left_out(name, &fault.problem(name)).map(|()| false),
        };
        let same_as = if kind == EntryKind::File { self.same_as(stat) } else { None };
        let stat = FileStat::of(stat);
        let size = match &kind {
            EntryKind::File | EntryKind::Split(_) => stat.size,
            EntryKind::Link(text) => text.len() as u64,
            EntryKind::Directory => 0,
        };
        let mode = travelling_mode(&kind, stat.mode);
        let entry = Entry {
            index: self.index,
            name: name.to_vec(),
            kind,
            size,
            mode,
            mtime_ns: stat.mtime_ns,
            root: root.map(Into::into),
            revision: 0,
            same_as,
            attributes,
        };
        self.index += 1;
        (self.found)(Found::Entry { entry, stat }).map(|()| true)
    }

    /// Which entry the next one is another name of: an earlier one, or itself where others may follow.
    fn same_as(&mut self, stat: &Stat) -> Option<u64> {
        let file = (stat.st_dev, stat.st_ino);
        let now = FileStat::of(stat);
        if let Some((first, as_it_was)) = self.linked.get(&file) {
            return (*as_it_was == now).then_some(*first);
        }
        if stat.st_nlink < 2 || self.linked.len() >= SAME_FILES_MAX {
            return None;
        }
        self.linked.insert(file, (self.index, now));
        Some(self.index)
    }

    fn left_out(&mut self, name: &[u8], problem: &Problem) -> Result<(), Problem> {
        (self.found)(Found::LeftOut(left_out(name, problem)))
    }

    fn age_ms(&self, stat: &FileStat) -> i64 {
        (self.now)().0.saturating_sub(stat.mtime_ns.max(stat.ctime_ns) / 1_000_000)
    }
}

fn beneath(folder: &[u8], name: &[u8]) -> bool {
    name.strip_prefix(folder).is_some_and(|rest| rest.first() == Some(&b'/'))
}

/// What the kernel reads ahead anyway, or a file that is read by one call.
const AHEAD_BYTES: u64 = 128 << 10;

fn special(kind: FileType) -> &'static str {
    match kind {
        FileType::Fifo => "it is a pipe",
        FileType::Socket => "it is a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "it is a device",
        _ => "it is of an unknown kind",
    }
}
