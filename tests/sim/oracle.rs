//! What must hold, whatever went wrong: nothing that is receipted is missing, nothing landed that was not sent,
//! nothing twice, contents exact, every transfer explained at the centre.

use crate::sources::{Sources, permits};
use posthouse_connectors::memory::{MemoryDatabase, Row};
use posthouse_coordinator::admin::DayBalance;
use posthouse_node::store::Transfer;
use posthouse_protocol::job::State;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

pub(crate) struct Oracle {
    people: MemoryDatabase,
    folder: PathBuf,
}

impl Oracle {
    /// The consumer's database in memory, and the folder with the rest of what lands.
    pub(crate) fn new(people: MemoryDatabase, folder: PathBuf) -> Self {
        Self { people, folder }
    }

    /// At any moment: a replaced table is one of the states its source had, or empty; other rows are rows of the source.
    pub(crate) fn look(&self, sources: &Sources) {
        let rows = sorted(self.people.rows("people"));
        let known = rows.is_empty() || sources.people_states.iter().any(|state| sorted(state.clone()) == rows);
        assert!(known, "the table `people` is no state that its source had: {} rows", rows.len());
        let landed = permits(&self.folder.join("permits.db"));
        let foreign: Vec<_> = landed.difference(&sources.permits_rows).collect();
        assert!(foreign.is_empty(), "rows landed in `permits` that were not sent: {foreign:?}");
    }

    /// At the end, when everything is settled and nothing moves.
    pub(crate) fn judge(&self, sources: &Sources, given: &[Transfer], taken: &[Transfer], balance: &DayBalance) {
        self.look(sources);
        let last = sources.people_states.last().cloned().unwrap_or_default();
        assert!(sorted(self.people.rows("people")) == sorted(last), "`people` is not what its source holds");
        assert_eq!(permits(&self.folder.join("permits.db")), permits(&sources.permits), "`permits`");
        assert_eq!(files(&self.folder.join("scans")), files(&sources.scans), "`scans`");

        let settled = taken.iter().filter(|row| row.state == State::Settled).count();
        let counts = &balance.counts;
        assert_eq!(counts.matched as usize, settled, "{balance:#?}");
        let unexplained = counts.mismatched + counts.one_sided + counts.pending + counts.overdue + counts.ungranted;
        assert_eq!(unexplained, 0, "{balance:#?}");

        let states: BTreeMap<_, _> = given.iter().map(|row| (row.id.clone(), row.state)).collect();
        for row in taken {
            assert!(row.state.is_final(), "{} {}", row.id, row.state);
            if row.state == State::Settled {
                assert!(row.receipt.is_some(), "{} is settled without a receipt", row.id);
                assert_eq!(states.get(&row.id), Some(&State::Settled), "{} is settled on one side", row.id);
            } else {
                assert_ne!(states.get(&row.id), Some(&State::Settled), "{} is settled on one side", row.id);
            }
        }
    }
}

fn sorted(mut rows: Vec<Row>) -> Vec<String> {
    let mut rows: Vec<String> = rows.drain(..).map(|row| format!("{row:?}")).collect();
    rows.sort();
    rows
}

/// Everything below a folder: files with content and time, folders by name. What is still being written would show.
fn files(folder: &Path) -> BTreeMap<PathBuf, Option<(blake3::Hash, std::time::SystemTime)>> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).unwrap().map(Result::unwrap) {
            let path = entry.path();
            let name = path.strip_prefix(folder).unwrap().to_owned();
            if entry.file_type().unwrap().is_dir() {
                found.insert(name, None);
                open.push(path);
            } else {
                let modified = entry.metadata().unwrap().modified().unwrap();
                found.insert(name, Some((blake3::hash(&fs::read(&path).unwrap()), modified)));
            }
        }
    }
    found
}
