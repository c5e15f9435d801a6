//! Deletes what a job landed earlier and its source no longer has; never what others put there, never
//! what the source could not read this time, and never more than a tenth by itself.

use super::beneath::{At, Root};
use super::destination::Folded;
use super::fault::writing;
use super::names::{SELF, check_name, depth, split};
use super::stat::{FileStat, file_type};
use posthouse_protocol::manifest::{EntryKind, LeftOut};
use posthouse_protocol::problem::{Code, Problem};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;
use std::collections::BTreeSet;

/// What this job landed in an earlier transfer, as it stood then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LandedBefore {
    pub name: Vec<u8>,
    pub kind: Kind,
    pub size: u64,
    pub mtime_ns: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    File,
    Directory,
    Link,
}

impl Kind {
    /// None for splits, which are no part of a folder.
    pub fn of(kind: &EntryKind) -> Option<Self> {
        match kind {
            EntryKind::File => Some(Self::File),
            EntryKind::Directory => Some(Self::Directory),
            EntryKind::Link(_) => Some(Self::Link),
            EntryKind::Split(_) => None,
        }
    }
}

/// What a mirror would delete: out of scope, not left out (nor beneath something left out), and still as it was landed.
/// What was landed is told one by one, and only what goes is kept, as long as it is no more than may go.
pub struct Mirroring<'a> {
    root: &'a Root,
    /// How the file system sees the names in scope, where it does not see them as they are.
    folded: Option<Folded>,
    unknown: BTreeSet<&'a [u8]>,
    /// All that this job has landed.
    landed: u64,
    gone: Vec<LandedBefore>,
    count: u64,
}

impl<'a> Mirroring<'a> {
    pub(crate) fn new(root: &'a Root, folds: bool, left_out: &'a [LeftOut], landed: u64) -> Self {
        let unknown = left_out.iter().map(|what| what.name.as_slice()).collect();
        Self { root, folded: folds.then(Folded::default), unknown, landed, gone: Vec::new(), count: 0 }
    }

    /// Whether every name in scope is to be told before what was landed: where the file system takes names for one that
    /// differ by upper and lower case.
    pub fn asks_for_scope(&self) -> bool {
        self.folded.is_some()
    }

    pub fn in_scope(&mut self, name: &[u8]) {
        if let Some(folded) = &mut self.folded {
            folded.add(name);
        }
    }

    /// Something was landed whose name is not in scope.
    pub fn out_of_scope(&mut self, before: LandedBefore) -> Result<(), Problem> {
        let name = before.name.as_slice();
        // A file that is in scope under another spelling is the one that stands there.
        let stays = self.folded.as_ref().is_some_and(|folded| folded.has(name));
        if name == SELF || check_name(name).is_err() || stays || is_unknown(&self.unknown, name) {
            return Ok(());
        }
        if !stands(self.root, &before)? {
            return Ok(());
        }
        self.count += 1;
        if self.is_safe() {
            self.gone.push(before);
        } else {
            // It is refused as a whole: only how much it is is still to be told.
            self.gone = Vec::new();
        }
        Ok(())
    }

    /// `MirrorUnsafe` when that is over a tenth of all that was landed.
    pub fn plan(mut self) -> Result<Vec<LandedBefore>, Problem> {
        if !self.is_safe() {
            return Err(Problem::new(Code::MirrorUnsafe).with("count", self.count).with("total", self.landed));
        }
        self.gone.sort_by(|a, b| depth(&b.name).cmp(&depth(&a.name)).then_with(|| a.name.cmp(&b.name)));
        Ok(self.gone)
    }

    fn is_safe(&self) -> bool {
        self.count.saturating_mul(SHARE) <= self.landed
    }
}

/// What is done with something before it goes: its folder, its name there and its whole name.
pub(crate) type Keep<'a> = &'a dyn Fn(&OwnedFd, &[u8], &[u8]) -> Result<(), Problem>;

/// Deletes a plan; folders only where nothing else is in them. Calls `touched` with each folder changed.
pub(crate) fn delete(
    root: &Root,
    plan: &[LandedBefore],
    keep: Keep<'_>,
    touched: &mut dyn FnMut(&[u8]),
) -> Result<u64, Problem> {
    let mut deleted = 0;
    for before in plan {
        // Between plan and now someone may have put something of their own there.
        if !stands(root, before)? {
            continue;
        }
        let flags = if before.kind == Kind::Directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        let at = root.parent(&before.name);
        if let Ok((folder, leaf)) = &at {
            keep(folder, leaf, &before.name)?;
        }
        let done = at.and_then(|(folder, leaf)| rustix::fs::unlinkat(folder, leaf, flags));
        match done {
            Ok(()) => {
                deleted += 1;
                touched(split(&before.name).0);
            }
            Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(e) => return Err(writing(&root.path_of(&before.name), e)),
        }
    }
    Ok(deleted)
}

/// Whether the name or a folder it is in was left out: then its absence from the scope says nothing.
fn is_unknown(unknown: &BTreeSet<&[u8]>, name: &[u8]) -> bool {
    let mut at = name;
    while at != SELF {
        if unknown.contains(at) {
            return true;
        }
        at = split(at).0;
    }
    unknown.contains(SELF)
}

fn stands(root: &Root, before: &LandedBefore) -> Result<bool, Problem> {
    let stat = match root.at(&before.name) {
        Ok(At::Here(stat)) => stat,
        Ok(At::Nothing | At::Blocked) => return Ok(false),
        Err(e) => return Err(writing(&root.path_of(&before.name), e)),
    };
    let now = FileStat::of(&stat);
    Ok(match (before.kind, file_type(&stat)) {
        (Kind::File, FileType::RegularFile) | (Kind::Link, FileType::Symlink) => {
            now.size == before.size && now.mtime_ns == before.mtime_ns
        }
        (Kind::Directory, FileType::Directory) => true,
        _ => false,
    })
}

/// One in this many may go.
const SHARE: u64 = 10;
