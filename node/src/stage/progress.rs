//! What is to become durable together, and its record.

use crate::store::exchange::{self, ChunkValues, Whole};
use posthouse_protocol::chunk::ChunkMeta;
use posthouse_protocol::id::TransferId;
use posthouse_protocol::manifest::{Entry, EntryKind};
use posthouse_protocol::problem::Problem;
use rusqlite::Connection;
use std::collections::{BTreeMap, BTreeSet};

/// What is to become durable together.
#[derive(Debug, Default)]
pub struct Progress {
    /// Entries that were written to.
    pub chunks: BTreeMap<u64, NewChunks>,
    /// Entries that are now whole.
    pub whole: Vec<(Entry, Whole)>,
    /// What was written, as it counts for credit.
    pub bytes: u64,
    /// Credit that returns to the provider once this is durable: that of splits.
    pub credit: u64,
    /// How many of the entries that were written to are splits: asked too often to be counted each time.
    splits: usize,
}

/// The new chunks of one entry.
#[derive(Debug)]
pub struct NewChunks {
    pub entry: Entry,
    values: ChunkValues,
    /// As they count for credit.
    bytes: u64,
}

impl Progress {
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.whole.is_empty() && self.credit == 0
    }
    /// Gives the credit that is free at once: a file's content waits for nothing but its sync, a split also for the
    /// destination.
    #[must_use]
    pub fn add(&mut self, entry: &Entry, meta: &ChunkMeta) -> u64 {
        let (bytes, is_split) = (meta.credit(), matches!(entry.kind, EntryKind::Split(_)));
        let splits = &mut self.splits;
        let chunks = self.chunks.entry(entry.index).or_insert_with(|| {
            *splits += usize::from(is_split);
            NewChunks { entry: entry.clone(), values: Vec::new(), bytes: 0 }
        });
        chunks.bytes += bytes;
        chunks.values.push((meta.chunk(), meta.value()));
        self.bytes += bytes;
        if !is_split {
            return bytes;
        }
        self.credit += bytes;
        0
    }
    /// What was written and has given its credit back.
    pub fn freed(&self) -> u64 {
        self.bytes.saturating_sub(self.credit)
    }
    pub fn has_splits(&self) -> bool {
        self.splits > 0
    }
    fn remove(&mut self, index: u64) -> Option<NewChunks> {
        let removed = self.chunks.remove(&index)?;
        self.splits -= usize::from(matches!(removed.entry.kind, EntryKind::Split(_)));
        Some(removed)
    }
    /// Takes a split out that becomes durable in another way, with the credit of its new chunks.
    pub fn take(&mut self, index: u64) -> Option<u64> {
        let taken = self.remove(index)?;
        self.bytes -= taken.bytes;
        self.credit -= taken.bytes;
        Some(taken.bytes)
    }
    /// The entry is read anew: what was written of it counts no more.
    pub fn drop_entry(&mut self, index: u64) {
        // The credit of a split comes back with the next sync all the same.
        self.bytes -= self.remove(index).map_or(0, |chunks| chunks.bytes);
        self.whole.retain(|(entry, _)| entry.index != index);
    }

    /// Writes it into the store, after [`super::Stage::sync`] said that it is on disk.
    pub fn record(&self, at: &Connection, transfer: &TransferId, session: i64) -> Result<(), Problem> {
        let finished: BTreeSet<u64> = self.whole.iter().map(|(entry, _)| entry.index).collect();
        for (index, NewChunks { entry, values, .. }) in &self.chunks {
            if finished.contains(index) {
                continue;
            }
            // It may have become whole and have been staged while this was synced.
            if exchange::landing_entry(at, transfer, &entry.name)?.is_some_and(|(found, _)| found.staged.is_some()) {
                continue;
            }
            let id = exchange::put_landing_entry(at, transfer, entry, Whole::No, session)?;
            let mut values = values.clone();
            values.sort_unstable();
            for run in values.chunk_by(|(a, _), (b, _)| a + 1 == *b) {
                let flat: Vec<[u8; 32]> = run.iter().map(|(_, value)| *value).collect();
                if let Some((first, _)) = run.first() {
                    exchange::put_landing_chunks(at, id, *first, &flat)?;
                }
            }
        }
        for (entry, whole) in &self.whole {
            exchange::put_landing_whole(at, transfer, entry, *whole, session)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use crate::store::exchange::StagedSplit;
    use posthouse_platform::World;
    use posthouse_protocol::chunk::{ChunkHeader, Form, Layout, VerifiedChunk};
    use posthouse_protocol::manifest::SplitCounts;
    use posthouse_protocol::problem::Code;

    #[tokio::test]
    async fn chunks_of_a_split_that_was_staged_meanwhile_do_not_make_it_a_part_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&World::real(), folder.path()).await.unwrap();
        let (id, layout) = (TransferId::from_random([1; 16]), Layout::new(10).unwrap());
        let kind = EntryKind::Split(SplitCounts::default());
        let entry = Entry {
            index: 0,
            name: b"split".into(),
            kind,
            size: 10,
            mode: 0,
            mtime_ns: 0,
            root: None,
            revision: 0,
            same_as: None,
            attributes: None,
        };
        let value = layout.value(0, &[7; 10]).into();
        let header =
            ChunkHeader { entry: 0, revision: 0, chunk: 0, bytes: 10, form: Form::Plain, wire_bytes: 10, value };
        let chunk = VerifiedChunk::verify(&header, layout, vec![7; 10].into()).unwrap();
        let mut progress = Progress::default();
        assert_eq!(progress.add(&entry, &chunk.meta()), 0);
        let (staged, found) = store
            .write_now(|tx| {
                progress.record(tx, &id, 1)?;
                let part = exchange::landing_entry(tx, &id, &entry.name)?;
                assert!(part.is_some_and(|(found, chunks)| found.whole == Whole::No && chunks.len() == 1));
                let staged = StagedSplit { landed: 3, ..StagedSplit::default() };
                exchange::put_split_staged(tx, &id, &entry, &staged, 1)?;
                progress.record(tx, &id, 1)?;
                Ok((staged, exchange::landing_entry(tx, &id, &entry.name)?))
            })
            .unwrap();
        let (found, chunks) = found.unwrap();
        assert_eq!((found.whole, found.staged, chunks), (Whole::Part, Some(staged), vec![]));
    }

    #[tokio::test]
    async fn a_file_that_became_whole_has_no_chunks_left_and_a_name_has_one_place() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&World::real(), folder.path()).await.unwrap();
        let id = TransferId::from_random([1; 16]);
        let entry = |index| Entry {
            index,
            name: b"scan.pdf".to_vec(),
            kind: EntryKind::File,
            size: 2 << 20,
            mode: 0o644,
            mtime_ns: 0,
            root: None,
            revision: 0,
            same_as: None,
            attributes: None,
        };
        let whole = |index| Progress { whole: vec![(entry(index), Whole::Part)], ..Progress::default() };
        let (found, chunks) = store
            .write_now(|tx| {
                let row = exchange::put_landing_entry(tx, &id, &entry(0), Whole::No, 1)?;
                exchange::put_landing_chunks(tx, row, 0, &[[7; 32]])?;
                whole(0).record(tx, &id, 1)?;
                whole(0).record(tx, &id, 1)?;
                assert_eq!(whole(3).record(tx, &id, 1).unwrap_err().code, Code::ListedTwice);
                // Of an earlier session it may have had another place.
                whole(3).record(tx, &id, 2)?;
                let left: i64 = tx.query_row("SELECT count(*) FROM landing_chunks", [], |row| row.get(0)).unwrap();
                assert_eq!(left, 0);
                exchange::landing_entry(tx, &id, b"scan.pdf")
            })
            .unwrap()
            .unwrap();
        assert_eq!((found.whole, found.entry.index, chunks), (Whole::Part, 3, vec![]));
    }

    #[test]
    fn splits_are_counted_as_they_come_and_go() {
        let layout = Layout::new(10).unwrap();
        let meta = |index: u64| {
            let value = layout.value(0, &[7; 10]).into();
            let header = ChunkHeader {
                entry: index,
                revision: 0,
                chunk: 0,
                bytes: 10,
                form: Form::Plain,
                wire_bytes: 10,
                value,
            };
            VerifiedChunk::verify(&header, layout, vec![7; 10].into()).unwrap().meta()
        };
        let entry = |index: u64, kind: EntryKind| Entry {
            index,
            name: vec![b'a'; 3],
            kind,
            size: 10,
            mode: 0,
            mtime_ns: 0,
            root: None,
            revision: 0,
            same_as: None,
            attributes: None,
        };
        let split = EntryKind::Split(SplitCounts::default());
        let mut progress = Progress::default();
        let _ = progress.add(&entry(0, EntryKind::File), &meta(0));
        assert!(!progress.has_splits());
        for index in [1, 1, 2] {
            let _ = progress.add(&entry(index, split.clone()), &meta(index));
        }
        assert!(progress.has_splits());
        progress.take(1);
        assert!(progress.has_splits());
        progress.drop_entry(2);
        assert!(!progress.has_splits());
        progress.drop_entry(0);
        assert!(progress.chunks.is_empty() && progress.bytes == 0);
    }
}
