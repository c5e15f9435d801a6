//! Entries as they stand in the list that is signed, from when their root is known until the list is written that far:
//! of a million files never more than what lies between the first that is not finished and the last one listed.

use posthouse_protocol::manifest::Entry;
use std::collections::BTreeMap;

#[derive(Default)]
pub(super) struct Finals(BTreeMap<u64, Entry>);

impl Finals {
    pub(super) fn put(&mut self, entry: Entry) {
        self.0.insert(entry.index, entry);
    }

    /// It is left out.
    pub(super) fn leave_out(&mut self, index: u64) {
        self.0.remove(&index);
    }

    /// Takes those with numbers below this one, in their order; none where there are certainly fewer than `least`.
    pub(super) fn take(&mut self, below: u64, least: u64) -> Vec<Entry> {
        // They are not counted each time: what was left out between the first and the last counts with them.
        let first = self.0.first_key_value().map_or(below, |(index, _)| *index);
        if below.saturating_sub(first) < least.max(1) {
            return Vec::new();
        }
        let rest = self.0.split_off(&below);
        std::mem::replace(&mut self.0, rest).into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use posthouse_protocol::manifest::EntryKind;

    #[test]
    fn entries_are_given_once_in_their_order_and_what_may_still_change_stays() {
        let mut finals = Finals::default();
        // As roots become known: in any order.
        for index in [4, 1, 0, 6, 3, 2, 5] {
            finals.put(entry(index));
        }
        finals.leave_out(1);
        assert!(finals.take(3, 4).is_empty(), "they are too few");
        assert_eq!(numbers(&finals.take(4, 4)), [0_u64, 2, 3]);
        assert!(finals.take(4, 1).is_empty());
        finals.leave_out(5);
        finals.put(entry(7));
        assert_eq!(numbers(&finals.take(8, 1)), [4_u64, 6, 7]);
        assert!(finals.0.is_empty());
        assert!(finals.take(u64::MAX, 1).is_empty());
    }

    fn numbers(entries: &[Entry]) -> Vec<u64> {
        entries.iter().map(|entry| entry.index).collect()
    }

    fn entry(index: u64) -> Entry {
        Entry {
            index,
            name: index.to_string().into_bytes(),
            kind: EntryKind::Directory,
            size: 0,
            mode: 0o755,
            mtime_ns: 0,
            root: None,
            revision: 0,
            same_as: None,
            attributes: None,
        }
    }
}
