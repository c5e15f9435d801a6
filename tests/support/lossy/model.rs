//! What is on a disk, and what of it a power cut leaves. As hard as a disk may be on a program, and no harder:
//! - Of bytes that were written and not synced, each sector of 512 is there or is not, and so is the file's new length.
//! - Names come and go in order: those since the last sync of a folder survive up to some point. A sync of a file
//!   makes no name durable, its own neither.
//! - After a sync that failed, what it was to make durable is lost, whatever a later sync says.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub(crate) const ROOT: u64 = 1;

pub(crate) struct Model {
    nodes: BTreeMap<u64, Node>,
    /// The names that a power cut leaves, by folder.
    durable: BTreeMap<u64, Names>,
    /// What has happened to names since: each step is there as a whole, or is not.
    since: Vec<Vec<Change>>,
    next: u64,
    pub(crate) sync_fails: bool,
    /// Names that differ by upper and lower case only are one.
    pub(crate) folds: bool,
}

type Names = BTreeMap<OsString, u64>;

pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) modified: SystemTime,
    pub(crate) links: u32,
    pub(crate) open: u32,
}

pub(crate) enum Kind {
    Folder(Names),
    File(Content),
    Link(PathBuf),
    Socket,
}

/// A file's bytes as they are read, and as they are on the platter.
#[derive(Default)]
pub(crate) struct Content {
    pub(crate) now: Vec<u8>,
    synced: Vec<u8>,
    /// Pages that differ, and that the next sync writes.
    unsynced: BTreeSet<usize>,
}

enum Change {
    Put(u64, OsString, u64),
    Take(u64, OsString),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    NotThere,
    There,
    NoFolder,
    IsFolder,
    NotEmpty,
    SyncFailed,
}

type Done<T> = Result<T, Refused>;

impl Model {
    pub(crate) fn new(owner: (u32, u32)) -> Self {
        let root = Node::new(Kind::Folder(Names::new()), 0o755, owner);
        let (nodes, durable) = (BTreeMap::from([(ROOT, root)]), BTreeMap::from([(ROOT, Names::new())]));
        Self { nodes, durable, since: Vec::new(), next: ROOT + 1, sync_fails: false, folds: false }
    }

    pub(crate) fn node(&self, number: u64) -> Done<&Node> {
        self.nodes.get(&number).ok_or(Refused::NotThere)
    }
    pub(crate) fn node_mut(&mut self, number: u64) -> Done<&mut Node> {
        self.nodes.get_mut(&number).ok_or(Refused::NotThere)
    }
    pub(crate) fn names(&self, folder: u64) -> Done<&Names> {
        match &self.node(folder)?.kind {
            Kind::Folder(names) => Ok(names),
            _ => Err(Refused::NoFolder),
        }
    }
    pub(crate) fn find(&self, folder: u64, name: &OsStr) -> Done<u64> {
        self.names(folder)?.get(&self.stored(folder, name)).copied().ok_or(Refused::NotThere)
    }
    /// The name as it is written in the folder, where it is there.
    fn stored(&self, folder: u64, name: &OsStr) -> OsString {
        let same = |stored: &&OsString| {
            let lower = |name: &OsStr| name.to_string_lossy().to_lowercase();
            self.folds && lower(stored) == lower(name)
        };
        let names = self.names(folder).ok();
        names.and_then(|names| names.keys().find(same)).map_or_else(|| name.to_owned(), OsString::clone)
    }
    pub(crate) fn content(&mut self, number: u64) -> Done<&mut Content> {
        match &mut self.node_mut(number)?.kind {
            Kind::File(content) => Ok(content),
            _ => Err(Refused::IsFolder),
        }
    }

    pub(crate) fn make(&mut self, folder: u64, name: &OsStr, node: Node) -> Done<u64> {
        if self.names(folder)?.contains_key(&self.stored(folder, name)) {
            return Err(Refused::There);
        }
        let number = self.next;
        self.next += 1;
        if let Kind::Folder(_) = node.kind {
            self.durable.insert(number, Names::new());
        }
        self.nodes.insert(number, node);
        self.step(vec![Change::Put(folder, name.to_owned(), number)]);
        Ok(number)
    }

    pub(crate) fn link(&mut self, number: u64, folder: u64, name: &OsStr) -> Done<()> {
        if self.names(folder)?.contains_key(&self.stored(folder, name)) {
            return Err(Refused::There);
        }
        self.node(number)?;
        self.step(vec![Change::Put(folder, name.to_owned(), number)]);
        Ok(())
    }

    pub(crate) fn remove(&mut self, folder: u64, name: &OsStr, is_folder: bool) -> Done<()> {
        let number = self.find(folder, name)?;
        match (&self.node(number)?.kind, is_folder) {
            (Kind::Folder(names), true) if !names.is_empty() => return Err(Refused::NotEmpty),
            (Kind::Folder(_), false) => return Err(Refused::IsFolder),
            (Kind::File(_) | Kind::Link(_) | Kind::Socket, true) => return Err(Refused::NoFolder),
            _ => {}
        }
        self.step(vec![Change::Take(folder, self.stored(folder, name))]);
        Ok(())
    }

    pub(crate) fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr), how: Rename) -> Done<()> {
        let number = self.find(from.0, from.1)?;
        let there = self.find(to.0, to.1).ok();
        match (how, there) {
            (Rename::NoReplace, Some(_)) => return Err(Refused::There),
            (Rename::Exchange, None) => return Err(Refused::NotThere),
            _ if there == Some(number) => return Ok(()),
            _ => {}
        }
        if let (Rename::Replace, Some(there)) = (how, there)
            && let Kind::Folder(names) = &self.node(there)?.kind
            && !names.is_empty()
        {
            return Err(Refused::NotEmpty);
        }
        let first = match (how, there) {
            (Rename::Exchange, Some(there)) => Change::Put(from.0, self.stored(from.0, from.1), there),
            _ => Change::Take(from.0, self.stored(from.0, from.1)),
        };
        self.step(vec![first, Change::Put(to.0, self.stored(to.0, to.1), number)]);
        Ok(())
    }

    pub(crate) fn sync(&mut self, number: u64) -> Done<()> {
        let fails = self.sync_fails;
        let content = self.content(number)?;
        let unsynced = std::mem::take(&mut content.unsynced);
        if fails {
            return Err(Refused::SyncFailed);
        }
        content.synced.resize(content.now.len(), 0);
        for page in unsynced {
            let (from, to) = (page * PAGE, (page * PAGE + PAGE).min(content.now.len()));
            if from < to {
                content.synced[from..to].copy_from_slice(&content.now[from..to]);
            }
        }
        Ok(())
    }

    pub(crate) fn sync_folder(&mut self) -> Done<()> {
        if self.sync_fails {
            return Err(Refused::SyncFailed);
        }
        for change in std::mem::take(&mut self.since).into_iter().flatten() {
            change.apply(&mut self.durable);
        }
        self.forget_lost();
        Ok(())
    }

    /// The power goes: what is left is what may be left.
    pub(crate) fn cut(&mut self, random: &mut Random) {
        let kept = random.below(self.since.len() + 1);
        for change in std::mem::take(&mut self.since).into_iter().take(kept).flatten() {
            change.apply(&mut self.durable);
        }
        for (number, node) in &mut self.nodes {
            node.open = 0;
            match &mut node.kind {
                Kind::Folder(names) => *names = self.durable.get(number).cloned().unwrap_or_default(),
                Kind::File(content) => content.cut(random),
                Kind::Link(_) | Kind::Socket => {}
            }
        }
        self.forget_lost();
        let mut links = BTreeMap::<u64, u32>::new();
        self.durable.values().flat_map(Names::values).for_each(|number| *links.entry(*number).or_default() += 1);
        for (number, node) in &mut self.nodes {
            node.links = links.get(number).copied().unwrap_or_default();
        }
    }

    fn step(&mut self, changes: Vec<Change>) {
        for change in &changes {
            let before = match change {
                Change::Put(folder, name, _) | Change::Take(folder, name) => self.find(*folder, name).ok(),
            };
            if let Some(node) = before.and_then(|before| self.nodes.get_mut(&before)) {
                node.links = node.links.saturating_sub(1);
            }
            if let Change::Put(_, _, number) = change
                && let Some(node) = self.nodes.get_mut(number)
            {
                node.links += 1;
            }
            if let Some(Node { kind: Kind::Folder(names), modified, .. }) = self.nodes.get_mut(&change.folder()) {
                *modified = SystemTime::now();
                change.apply_to(names);
            }
        }
        self.since.push(changes);
    }

    /// Files that have no name any more and no power cut can bring back.
    fn forget_lost(&mut self) {
        let mut reached = BTreeSet::from([ROOT]);
        let mut left = vec![ROOT];
        while let Some(folder) = left.pop() {
            let now = self.names(folder).ok().into_iter().chain(self.durable.get(&folder)).flat_map(Names::values);
            let found: Vec<u64> = now.copied().filter(|number| !reached.contains(number)).collect();
            reached.extend(&found);
            left.extend(found.into_iter().filter(|number| self.durable.contains_key(number)));
        }
        self.nodes.retain(|number, node| reached.contains(number) || node.open > 0);
        self.durable.retain(|number, _| reached.contains(number));
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rename {
    Replace,
    NoReplace,
    Exchange,
}

impl Change {
    fn folder(&self) -> u64 {
        match self {
            Self::Put(folder, ..) | Self::Take(folder, _) => *folder,
        }
    }
    fn apply_to(&self, names: &mut Names) {
        match self {
            Self::Put(_, name, number) => names.insert(name.clone(), *number),
            Self::Take(_, name) => names.remove(name),
        };
    }
    fn apply(&self, all: &mut BTreeMap<u64, Names>) {
        if let Some(names) = all.get_mut(&self.folder()) {
            self.apply_to(names);
        }
    }
}

impl Node {
    pub(crate) fn new(kind: Kind, mode: u32, owner: (u32, u32)) -> Self {
        Self { kind, mode, owner, modified: SystemTime::now(), links: 0, open: 0 }
    }
    pub(crate) fn size(&self) -> u64 {
        match &self.kind {
            Kind::Folder(_) => 4096,
            Kind::File(content) => content.now.len() as u64,
            Kind::Link(target) => Path::as_os_str(target).len() as u64,
            Kind::Socket => 0,
        }
    }
}

impl Content {
    pub(crate) fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if self.now.len() < end {
            self.now.resize(end, 0);
        }
        self.now[offset..end].copy_from_slice(bytes);
        self.unsynced.extend(offset / PAGE..end.div_ceil(PAGE));
    }
    pub(crate) fn set_size(&mut self, size: usize) {
        let pages = size.min(self.now.len()) / PAGE..size.max(self.now.len()).div_ceil(PAGE);
        self.now.resize(size, 0);
        self.unsynced.extend(pages);
    }

    fn cut(&mut self, random: &mut Random) {
        let unsynced = std::mem::take(&mut self.unsynced);
        if !unsynced.is_empty() && random.below(2) == 1 {
            self.synced.resize(self.now.len(), 0);
        }
        for page in unsynced {
            for from in (page * PAGE..(page + 1) * PAGE).step_by(SECTOR) {
                let to = (from + SECTOR).min(self.now.len()).min(self.synced.len());
                if from < to && random.below(2) == 1 {
                    self.synced[from..to].copy_from_slice(&self.now[from..to]);
                }
            }
        }
        self.now.clone_from(&self.synced);
    }
}

/// SplitMix64: the same seed cuts the same way.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound.max(1) as u64) as usize
    }
}

const PAGE: usize = 4096;
const SECTOR: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    fn file(model: &mut Model, name: &str) -> u64 {
        let node = Node::new(Kind::File(Content::default()), 0o644, (0, 0));
        model.make(ROOT, OsStr::new(name), node).unwrap()
    }
    fn read(model: &mut Model, name: &str) -> Option<Vec<u8>> {
        let number = model.find(ROOT, OsStr::new(name)).ok()?;
        Some(model.content(number).unwrap().now.clone())
    }

    #[test]
    fn what_was_synced_with_its_folder_stays() {
        for seed in 0..50 {
            let mut model = Model::new((0, 0));
            let number = file(&mut model, "a");
            model.content(number).unwrap().write(0, &[7; 10_000]);
            model.sync(number).unwrap();
            model.sync_folder().unwrap();
            model.content(number).unwrap().write(5_000, &[8; 3_000]);
            model.cut(&mut Random(seed));
            let left = read(&mut model, "a").unwrap();
            assert!(left.len() == 10_000 && left[..4_608].iter().all(|byte| *byte == 7), "seed {seed}");
            assert!(left[5_000..8_000].iter().all(|byte| *byte == 7 || *byte == 8));
        }
    }

    #[test]
    fn what_was_not_synced_may_be_lost_torn_or_there() {
        let (mut lost, mut empty, mut whole, mut torn) = (0, 0, 0, 0);
        for seed in 0..300 {
            let mut model = Model::new((0, 0));
            let number = file(&mut model, "a");
            model.content(number).unwrap().write(0, &[7; 1_024]);
            model.cut(&mut Random(seed));
            match read(&mut model, "a") {
                None => lost += 1,
                Some(bytes) if bytes.is_empty() => empty += 1,
                Some(bytes) if bytes == [7; 1_024] => whole += 1,
                Some(_) => torn += 1,
            }
        }
        assert!(lost > 50 && empty > 20 && whole > 5 && torn > 20, "{lost} {empty} {whole} {torn}");
    }

    #[test]
    fn a_rename_is_there_or_is_not() {
        let mut seen = BTreeSet::new();
        for seed in 0..50 {
            let mut model = Model::new((0, 0));
            for (name, byte) in [("old", 1), ("new", 2)] {
                let number = file(&mut model, name);
                model.content(number).unwrap().write(0, &[byte]);
                model.sync(number).unwrap();
            }
            model.sync_folder().unwrap();
            model.rename((ROOT, OsStr::new("new")), (ROOT, OsStr::new("old")), Rename::Replace).unwrap();
            model.cut(&mut Random(seed));
            seen.insert((read(&mut model, "old"), read(&mut model, "new")));
        }
        let (before, after) = ((Some(vec![1]), Some(vec![2])), (Some(vec![2]), None));
        assert_eq!(seen, BTreeSet::from([before, after]));
    }

    #[test]
    fn names_are_one_by_upper_and_lower_case_only_where_it_is_asked() {
        let mut model = Model::new((0, 0));
        let (upper, lower) = (file(&mut model, "A"), file(&mut model, "a"));
        assert_ne!(upper, lower);
        let mut model = Model { folds: true, ..Model::new((0, 0)) };
        let number = file(&mut model, "Ä");
        assert_eq!(model.find(ROOT, OsStr::new("ä")), Ok(number));
        assert_eq!(model.link(number, ROOT, OsStr::new("ä")), Err(Refused::There));
        let other = file(&mut model, "b");
        model.rename((ROOT, OsStr::new("B")), (ROOT, OsStr::new("ä")), Rename::Replace).unwrap();
        let names: Vec<_> = model.names(ROOT).unwrap().clone().into_iter().collect();
        assert_eq!(names, [(OsString::from("Ä"), other)]);
        model.remove(ROOT, OsStr::new("ä"), false).unwrap();
        assert!(model.names(ROOT).unwrap().is_empty());
    }

    #[test]
    fn a_failed_sync_loses_what_it_was_for() {
        let mut model = Model::new((0, 0));
        let number = file(&mut model, "a");
        model.sync_folder().unwrap();
        model.content(number).unwrap().write(0, &[7; 512]);
        model.sync_fails = true;
        assert_eq!(model.sync(number), Err(Refused::SyncFailed));
        model.sync_fails = false;
        model.sync(number).unwrap();
        assert_eq!(read(&mut model, "a").unwrap(), [7; 512]);
        model.cut(&mut Random(1));
        assert_ne!(read(&mut model, "a").unwrap(), [7; 512]);
    }
}
