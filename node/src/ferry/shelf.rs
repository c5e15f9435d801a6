//! A folder that parts are brought to: what stands there, and which of it is complete. A file is looked at again only
//! once it has changed.

use super::part::{self, ASIDE, Eyes, Found, Holds};
use posthouse_protocol::id::{NodeId, TransferId};
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// All parts of one making, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Set {
    pub from: NodeId,
    pub transfer: TransferId,
    pub parts: Vec<Found>,
    /// When it was made, by its maker's clock.
    pub made: Timestamp,
}

impl Set {
    pub(super) fn is_answer(&self) -> bool {
        self.parts.iter().all(|part| part.label.holds == Holds::Answer)
    }
}

/// What stands in a folder.
#[derive(Default)]
pub(super) struct Looked {
    /// What is complete, in the order in which it was made.
    pub sets: Vec<Set>,
    /// Every part, by whom it is from and whose transfer it is of.
    pub parts: BTreeMap<(NodeId, TransferId), Vec<Found>>,
    /// What is wrong with files that were not looked at before.
    pub wrong: Vec<Problem>,
}

#[derive(Default)]
pub(super) struct Shelf {
    seen: BTreeMap<PathBuf, Seen>,
    /// Of the policy that names whose parts are known.
    version: (u64, u64),
}

struct Seen {
    /// Length, file and change: a copy that keeps the time of what it replaces is another file all the same.
    state: (u64, u64, i64, i64),
    found: Option<Found>,
}

impl Shelf {
    /// What stands there now; `version` is the policy's. Blocks.
    pub(super) fn look(&mut self, folder: &Path, eyes: Eyes<'_>, version: (u64, u64)) -> Result<Looked, Problem> {
        if self.version != version {
            // Whose key was not known may be known now.
            self.seen.retain(|_, seen| seen.found.is_some());
            self.version = version;
        }
        let failed = |e: std::io::Error| Problem::new(Code::StorageFailed).with("path", folder.display()).cause(e);
        let mut here = BTreeSet::new();
        let mut wrong = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let Ok(meta) = entry.metadata() else { continue };
            if !meta.is_file() || name.as_bytes().starts_with(b".") || name.as_bytes().ends_with(ASIDE.as_bytes()) {
                continue;
            }
            let path = entry.path();
            let state = (meta.size(), meta.ino(), meta.ctime(), meta.ctime_nsec());
            here.insert(path.clone());
            if self.seen.get(&path).is_some_and(|seen| seen.state == state) {
                continue;
            }
            let found = match part::look(&path, eyes) {
                Ok(found) => found,
                // It was carried on while it was looked at.
                Err(problem) if problem.code == Code::StorageFailed && !path.exists() => continue,
                Err(problem) => {
                    wrong.push(problem);
                    None
                }
            };
            self.seen.insert(path, Seen { state, found });
        }
        self.seen.retain(|path, _| here.contains(path));
        let mut parts: BTreeMap<_, Vec<Found>> = BTreeMap::new();
        for part in self.seen.values().filter_map(|seen| seen.found.clone()) {
            parts.entry((part.from.clone(), part.label.transfer.clone())).or_default().push(part);
        }
        let mut sets: Vec<Set> = parts.values().flat_map(|parts| complete(parts)).collect();
        sets.sort_by(|a, b| (a.made, &a.transfer).cmp(&(b.made, &b.transfer)));
        Ok(Looked { sets, parts, wrong })
    }
}

/// What is complete of the parts of one transfer. Repeats of a part count once, and of several makings the first.
fn complete(parts: &[Found]) -> Vec<Set> {
    let mut makings: BTreeMap<(bool, [u8; 8]), BTreeMap<u32, &Found>> = BTreeMap::new();
    for part in parts {
        let is_answer = part.label.holds == Holds::Answer;
        let making = makings.entry((is_answer, *part.label.edition)).or_default();
        making.entry(part.label.number).or_insert(part);
    }
    let mut sets: BTreeMap<bool, Set> = BTreeMap::new();
    for ((is_answer, _), parts) in makings {
        let of = parts.values().find_map(|part| part.label.of);
        let is_complete = of.is_some_and(|of| parts.len() == of as usize && parts.keys().last() == Some(&of));
        let Some(first) = parts.values().next().filter(|_| is_complete) else { continue };
        let (from, transfer, made) = (first.from.clone(), first.label.transfer.clone(), first.made);
        let parts = parts.into_values().cloned().collect();
        sets.entry(is_answer).or_insert(Set { from, transfer, parts, made });
    }
    sets.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ferry::part::Label;

    fn part(number: u32, of: Option<u32>, edition: u8, holds: Holds) -> Found {
        let label = Label {
            transfer: TransferId::from_random([1; 16]),
            to: "housing.test.example".parse().unwrap(),
            job: "scans".parse().unwrap(),
            holds,
            edition: [edition; 8].into(),
            number,
            of,
            secret: [0; 32].into(),
            sealed_bytes: 0,
        };
        let path = PathBuf::from(format!("{edition}-{number}"));
        Found { path, from: "police.test.example".parse().unwrap(), label, made: Timestamp(0) }
    }

    #[test]
    fn a_set_is_complete_once_every_number_up_to_the_last_is_there_of_one_making() {
        let contents = |number, of, edition| part(number, of, edition, Holds::Contents);
        let mut all = vec![contents(3, Some(3), 1), contents(1, None, 1), contents(1, None, 1), contents(2, None, 2)];
        assert_eq!(complete(&all), vec![]);
        all.push(contents(2, None, 1));
        let sets = complete(&all);
        let numbers: Vec<u32> = sets[0].parts.iter().map(|part| part.label.number).collect();
        assert_eq!((sets.len(), numbers), (1, vec![1, 2, 3]));
        // Another making that is complete as well is the same transfer once more.
        all.push(contents(1, Some(1), 3));
        assert_eq!(complete(&all).len(), 1);
        all.push(part(1, Some(1), 4, Holds::Answer));
        let sets = complete(&all);
        assert_eq!(sets.iter().filter(|set| set.is_answer()).count(), 1);
        assert_eq!(sets.len(), 2);
    }
}
