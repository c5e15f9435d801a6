//! Adds up the entries of a transfer, one by one in order, to what the manifest says of them.
//! Both parties run the same code over their own entries: the provider over what it sealed, the
//! consumer over what it verified. Nothing here grows with the number of entries but the list of what was left out.

use super::{Counts, Entry, EntryKind, LeftOut};
use crate::codec::{self, Sha256};
use crate::limits;
use std::collections::BTreeMap;

/// Entries so far. Push them in the order of their numbers, final: with root, time and mode.
#[derive(Default)]
pub struct EntryList {
    entries: u64,
    counts: Counts,
    list: Sha256,
    roots: blake3::Hasher,
    files_b3: Sha256,
}

/// What the manifest says of all entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryTotals {
    pub entries: u64,
    /// Files, directories, links and bytes; for tables the rows that the splits count. What was refused is not in it.
    pub counts: Counts,
    pub content_root: [u8; 32],
    pub entries_sha256: [u8; 32],
    /// None for tables.
    pub files_b3_sha256: Option<[u8; 32]>,
}

impl EntryList {
    pub fn push(&mut self, entry: &Entry) {
        self.list.update(&Self::encode(self.entries, entry));
        self.entries += 1;
        if let Some(root) = &entry.root {
            self.roots.update(&**root);
        }
        let counts = &mut self.counts;
        match &entry.kind {
            EntryKind::File => {
                counts.files += 1;
                counts.bytes = counts.bytes.saturating_add(entry.size);
                if let Some(line) = entry.root.as_ref().and_then(|root| files_b3_line(&entry.name, root)) {
                    self.files_b3.update(&line);
                }
            }
            EntryKind::Directory => counts.directories += 1,
            EntryKind::Link(_) => counts.links += 1,
            EntryKind::Split(rows) => {
                counts.bytes = counts.bytes.saturating_add(entry.size);
                counts.rows_read = counts.rows_read.saturating_add(rows.read);
                counts.rows_sent = counts.rows_sent.saturating_add(rows.sent);
                counts.rows_filtered = counts.rows_filtered.saturating_add(rows.filtered);
                counts.rows_quarantined = counts.rows_quarantined.saturating_add(rows.quarantined);
                if let Some(changed) = rows.changed {
                    counts.values_changed = Some(counts.values_changed.unwrap_or(0).saturating_add(changed));
                }
                if let Some(operations) = &rows.operations {
                    counts.operations.get_or_insert_default().merge(operations);
                }
            }
        }
    }
    /// An entry as the attachment holds it: numbered among those that are handed over, and without what only
    /// one run of the transfer knows (its number there, how often it was read, whose second name it is).
    pub fn encode(number: u64, entry: &Entry) -> Vec<u8> {
        codec::encode(&Entry { index: number, revision: 0, same_as: None, ..entry.clone() })
    }
    pub fn entries(&self) -> u64 {
        self.entries
    }
    pub fn counts(&self) -> &Counts {
        &self.counts
    }
    /// `folder`: whether the resource is one; an empty folder has an empty `files.b3`, a table none.
    pub fn finish(self, folder: bool) -> EntryTotals {
        EntryTotals {
            entries: self.entries,
            counts: self.counts,
            content_root: *self.roots.finalize().as_bytes(),
            entries_sha256: self.list.finish(),
            files_b3_sha256: folder.then(|| self.files_b3.finish()),
        }
    }
}

/// One line of `files.b3`, as `b3sum` prints it. None for names that `b3sum --check` cannot read back:
/// those that are not UTF-8 or hold U+FFFD (it refuses them), those with a carriage return (its versions
/// differ), and `-` (its word for standard input). The entry list binds these like all others.
pub fn files_b3_line(name: &[u8], root: &[u8; 32]) -> Option<Vec<u8>> {
    let name = std::str::from_utf8(name).ok()?;
    if name == "-" || name.contains(['\u{fffd}', '\r']) {
        return None;
    }
    let escape = name.contains(['\\', '\n']);
    let mut line = Vec::with_capacity(name.len() + 4 + 2 * root.len());
    if escape {
        line.push(b'\\');
    }
    line.extend(root.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]));
    line.extend_from_slice(b"  ");
    if escape {
        line.extend_from_slice(name.replace('\\', "\\\\").replace('\n', "\\n").as_bytes());
    } else {
        line.extend_from_slice(name.as_bytes());
    }
    line.push(b'\n');
    Some(line)
}

/// Of a number below 16.
fn digit(number: u8) -> u8 {
    if number < 10 { b'0' + number } else { b'a' + number - 10 }
}

/// What was left out, in the order of names; a name stands in it once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOuts {
    by_name: BTreeMap<Vec<u8>, (u16, String)>,
    bytes: usize,
}

impl LeftOuts {
    /// False when there is no room for more: the transfer must end, for its list could not be kept.
    #[must_use]
    pub fn push(&mut self, what: LeftOut) -> bool {
        let LeftOut { name, code, reason } = what.bounded();
        if self.by_name.contains_key(&name) {
            return true;
        }
        let bytes = name.len() + reason.len() + OVERHEAD_BYTES;
        if self.by_name.len() >= limits::LEFT_OUT_MAX || self.bytes + bytes > limits::LEFT_OUT_BYTES_MAX {
            return false;
        }
        self.bytes += bytes;
        self.by_name.insert(name, (code, reason));
        true
    }
    pub fn remove(&mut self, name: &[u8]) {
        if let Some((_, reason)) = self.by_name.remove(name) {
            self.bytes -= name.len() + reason.len() + OVERHEAD_BYTES;
        }
    }
    pub fn len(&self) -> usize {
        self.by_name.len()
    }
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
    pub fn contains(&self, name: &[u8]) -> bool {
        self.by_name.contains_key(name)
    }
    pub fn iter(&self) -> impl Iterator<Item = LeftOut> + '_ {
        let all = self.by_name.iter();
        all.map(|(name, (code, reason))| LeftOut { name: name.clone(), code: *code, reason: reason.clone() })
    }
    /// The first few, as many as a statement has room for.
    pub fn listed(&self) -> Vec<LeftOut> {
        let mut room = limits::LEFT_OUT_LISTED_BYTES_MAX;
        let all = self.iter().take(limits::LEFT_OUT_LISTED_MAX);
        all.map_while(|what| {
            room = room.checked_sub(what.name.len() + what.reason.len() + OVERHEAD_BYTES)?;
            Some(what)
        })
        .collect()
    }
    /// The attachment: the concatenated deterministic CBOR of all, in the order of names.
    pub fn encode(&self) -> Vec<u8> {
        self.iter().flat_map(|what| codec::encode(&what)).collect()
    }
    /// SHA-256 of the attachment; None when nothing was left out.
    pub fn sha256(&self) -> Option<[u8; 32]> {
        if self.is_empty() {
            return None;
        }
        let mut hash = Sha256::default();
        for what in self.iter() {
            hash.update(&codec::encode(&what));
        }
        Some(hash.finish())
    }
}

impl LeftOut {
    /// With its reason no longer than is kept of it.
    pub fn bounded(mut self) -> Self {
        truncate(&mut self.reason, limits::REASON_BYTES_MAX);
        self
    }
}

fn truncate(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        let end = (0..=bytes_max).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
}

/// Keys and numbers of one element.
const OVERHEAD_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Attribute, SplitCounts};

    #[test]
    fn lines_are_those_of_b3sum() {
        let root = blake3::hash(b"posthouse");
        let line = |name: &str| files_b3_line(name.as_bytes(), root.as_bytes()).map(|l| String::from_utf8(l).unwrap());
        let hex = root.to_hex();
        assert_eq!(line("a b/人口.txt").unwrap(), format!("{hex}  a b/人口.txt\n"));
        assert_eq!(line("a\\b\nc").unwrap(), format!("\\{hex}  a\\\\b\\nc\n"));
        for unreadable in ["-", "a\rb", "a\u{fffd}"] {
            assert_eq!(line(unreadable), None, "{unreadable:?}");
        }
        assert_eq!(files_b3_line(b"\xff", root.as_bytes()), None);
    }

    #[test]
    fn every_field_of_every_entry_changes_the_hash_of_the_list() {
        let entry = Entry {
            index: 0,
            name: b"a".to_vec(),
            kind: EntryKind::File,
            size: 1,
            mode: 0o644,
            mtime_ns: 5,
            root: Some([1; 32].into()),
            revision: 0,
            same_as: None,
            attributes: None,
        };
        let hash = |entry: &Entry| {
            let mut list = EntryList::default();
            list.push(entry);
            list.finish(true).entries_sha256
        };
        let attributed = |name: &str, value: &str| {
            let attribute = Attribute { name: name.into(), value: value.into() };
            Entry { attributes: Some(vec![attribute]), ..entry.clone() }
        };
        let others = [
            Entry { name: b"b".to_vec(), ..entry.clone() },
            Entry { kind: EntryKind::Split(SplitCounts::default()), ..entry.clone() },
            Entry { size: 2, ..entry.clone() },
            Entry { mode: 0o600, ..entry.clone() },
            Entry { mtime_ns: 6, ..entry.clone() },
            Entry { root: None, ..entry.clone() },
            Entry { attributes: Some(Vec::new()), ..entry.clone() },
            attributed("user.a", "1"),
            attributed("user.a", "2"),
            attributed("user.b", "1"),
        ];
        for other in others {
            assert_ne!(hash(&other), hash(&entry), "{other:?}");
        }
        assert_eq!(
            hash(&Entry { index: 9, revision: 4, same_as: Some(2), ..entry.clone() }),
            hash(&entry),
            "what only one run knows"
        );
    }

    #[test]
    fn what_was_left_out_is_one_list_whatever_the_order() {
        let what = |name: &str| LeftOut { name: name.into(), code: 2009, reason: "it leaves the folder".into() };
        let (mut a, mut b) = (LeftOuts::default(), LeftOuts::default());
        for name in ["x", "a", "m"] {
            assert!(a.push(what(name)));
        }
        for name in ["m", "x", "m", "a"] {
            assert!(b.push(what(name)));
        }
        assert_eq!(a, b);
        assert_eq!(a.sha256(), Some(codec::sha256(&a.encode())));
        assert_eq!(LeftOuts::default().sha256(), None);
    }

    #[test]
    fn what_a_statement_lists_itself_is_bounded() {
        let mut list = LeftOuts::default();
        for at in 0..100 {
            assert!(list.push(LeftOut { name: vec![at; 900], code: 2008, reason: "人".repeat(5000) }));
        }
        assert!(codec::encode(&list.listed()).len() <= limits::LEFT_OUT_LISTED_BYTES_MAX);
        assert!(list.iter().all(|what| what.reason.len() <= limits::REASON_BYTES_MAX));
        assert!(!list.push(LeftOut { name: vec![9; limits::LEFT_OUT_BYTES_MAX], code: 1, reason: String::new() }));
    }
}
