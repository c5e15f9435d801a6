//! What is written becomes durable in groups. A file's content has given its credit back by then, so that the line
//! does not wait for the disk; how much may be written and not durable is bounded by itself. A split keeps its credit:
//! once its file is whole it goes on into the destination's staging, and is durable with that; only where the
//! destination does not keep up is its file synced before.

use super::{Done, Session};
use crate::spent::What;
use crate::stage::{Place, Progress, Stage};
use crate::store::exchange::{self, Whole};
use crate::store::{Side, Store, quarantine, spent, transfers};
use crate::transfer::steady;
use posthouse_protocol::chunk::ChunkMeta;
use posthouse_protocol::id::TransferId;
use posthouse_protocol::limits;
use posthouse_protocol::manifest::{Entry, EntryKind};
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::time::Timestamp;
use std::collections::{BTreeMap, VecDeque};

#[derive(Default)]
pub(super) struct Durable {
    progress: Progress,
    /// When the oldest of it was written.
    since: Option<Timestamp>,
    /// What is being synced of that which has given its credit back.
    flushing: Option<u64>,
    /// Splits that are whole in their files, synced and recorded.
    to_stage: VecDeque<Entry>,
    /// Those that are neither: being staged makes them durable.
    fresh: VecDeque<FreshSplit>,
    /// On their way into the destination's staging, with the credit that comes back with that.
    staging: BTreeMap<u64, FreshSplit>,
    /// When the transfer's row was written last.
    row_at: Option<Timestamp>,
}

#[derive(Clone)]
struct FreshSplit {
    entry: Entry,
    credit: u64,
    since: Timestamp,
}

impl Durable {
    /// When what is there has to be flushed.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        let stall = self.fresh.front().map(FreshSplit::stalls_at);
        let due = self.since.map(|since| since.plus_ms(self.patience_ms()));
        if self.is_flushing() { None } else { [stall, due].into_iter().flatten().min() }
    }
    pub(super) fn is_busy(&self) -> bool {
        let Self { progress, to_stage, fresh, staging, flushing, since: _, row_at: _ } = self;
        flushing.is_some() || !staging.is_empty() || !progress.is_empty() || !to_stage.is_empty() || !fresh.is_empty()
    }

    fn is_flushing(&self) -> bool {
        self.flushing.is_some()
    }
    /// Whether, beside what is being written, more may be before what is there is durable.
    pub(super) fn has_room(&self, being_written: u64) -> bool {
        self.progress.freed() + self.flushing.unwrap_or_default() + being_written < limits::WRITTEN_BYTES_MAX
    }

    /// Gives the credit that is free with that.
    pub(super) fn wrote(&mut self, entry: &Entry, meta: &ChunkMeta, now: Timestamp) -> u64 {
        self.since.get_or_insert(now);
        self.progress.add(entry, meta)
    }

    pub(super) fn complete(&mut self, entry: Entry, whole: Whole, now: Timestamp) {
        if whole == Whole::Part
            && matches!(entry.kind, EntryKind::Split(_))
            && let Some(credit) = self.progress.take(entry.index)
        {
            self.fresh.push_back(FreshSplit { entry, credit, since: now });
            // Chunks of others came about now.
            self.since = (!self.progress.is_empty()).then_some(now);
            return;
        }
        self.since.get_or_insert(now);
        self.progress.whole.push((entry, whole));
    }

    /// The entry is read anew or left out.
    pub(super) fn forget(&mut self, index: u64) {
        self.progress.drop_entry(index);
    }

    /// A split's rows are in the destination: the credit that is free with that.
    fn staged(&mut self, index: u64) -> u64 {
        self.staging.remove(&index).map_or(0, |split| split.credit)
    }

    /// The next split to be staged.
    fn next_to_stage(&mut self, now: Timestamp) -> Option<Entry> {
        let synced = self.to_stage.pop_front().map(|entry| FreshSplit { entry, credit: 0, since: now });
        let split = synced.or_else(|| self.fresh.pop_front())?;
        let entry = split.entry.clone();
        self.staging.insert(entry.index, split);
        Some(entry)
    }

    /// Splits that the destination does not take for now are to be synced after all; with `all` every split that is not,
    /// also those on their way there.
    fn give_up_waiting(&mut self, now: Timestamp, all: bool) {
        let Self { progress, fresh, staging, .. } = self;
        let mut sync = |split: &FreshSplit| {
            progress.whole.push((split.entry.clone(), Whole::Part));
            progress.credit += split.credit;
        };
        while let Some(split) = fresh.pop_front_if(|split| all || split.stalls_at() <= now) {
            sync(&split);
        }
        for split in staging.values_mut().filter(|split| all && split.credit > 0) {
            sync(split);
            split.credit = 0;
        }
    }

    /// Whether anything is written and neither synced nor staged.
    fn has_fresh(&self) -> bool {
        !self.progress.is_empty() || !self.fresh.is_empty() || self.staging.values().any(|split| split.credit > 0)
    }

    /// `idle`: nothing more comes, so there is nothing to wait for.
    fn is_due(&mut self, now: Timestamp, idle: bool) -> bool {
        if self.is_flushing() {
            return false;
        }
        if self.fresh.front().is_some_and(|split| split.stalls_at() <= now) {
            return true;
        }
        if self.progress.is_empty() {
            self.since = None;
            return false;
        }
        let old = self.since.is_none_or(|since| since.plus_ms(self.patience_ms()) <= now);
        let bytes_max = if self.progress.has_splits() { FLUSH_SPLIT_BYTES } else { FLUSH_BYTES };
        old || idle || self.progress.bytes >= bytes_max || self.progress.whole.len() >= FLUSH_ENTRIES
    }

    /// Splits become durable by being staged, as soon as they are whole.
    fn patience_ms(&self) -> i64 {
        if self.progress.has_splits() { STALL_MS } else { PROGRESS_MS }
    }
}

impl FreshSplit {
    fn stalls_at(&self) -> Timestamp {
        self.since.plus_ms(STALL_MS)
    }
}

impl Session<'_> {
    pub(super) fn flush_if_due(&mut self) {
        let idle = self.handed.is_some() && !self.writing.is_writing();
        if self.durable.is_due(steady(&self.ctx.world), idle) {
            self.flush(false);
        }
    }

    /// `leaving`: also what waits to be staged, or is on its way.
    fn flush(&mut self, leaving: bool) {
        let Some(accepted) = &self.accepted else { return };
        let (stage, session) = (accepted.stage.clone(), accepted.session);
        self.durable.since = None;
        self.durable.give_up_waiting(steady(&self.ctx.world), leaving);
        let progress = std::mem::take(&mut self.durable.progress);
        self.durable.flushing = Some(progress.freed());
        let (store, id, row) = (self.ctx.store.clone(), self.run.row.id.clone(), self.row());
        let (meters, epoch) = (self.meters.clone(), self.ctx.epoch);
        self.show();
        self.spawn(Done::Flushed, move || {
            let waits = meters.wait(What::Destination);
            stage.sync(&progress)?;
            drop(waits);
            crate::crash_point!("synced");
            store.write_now(|tx| {
                progress.record(tx, &id, session)?;
                spent::put(tx, &id, epoch, &meters.spent())?;
                transfers::update(tx, &row).map(|_| ())
            })?;
            crate::crash_point!("recorded");
            Ok(progress)
        });
    }

    pub(super) fn flushed(&mut self, progress: Result<Progress, Problem>) -> Result<(), Problem> {
        self.durable.flushing = None;
        let progress = progress?;
        self.give_back(progress.credit);
        let splits = progress.whole.into_iter().filter(|(entry, _)| matches!(entry.kind, EntryKind::Split(_)));
        self.durable.to_stage.extend(splits.map(|(entry, _)| entry));
        Ok(())
    }

    /// Splits whose files are whole go into the destination's staging, as many at once as it takes.
    pub(super) fn stage_some(&mut self) {
        let Some(accepted) = &self.accepted else { return };
        let (stage, session) = (accepted.stage.clone(), accepted.session);
        let Place::Table(table) = stage.place() else { return };
        while self.durable.staging.len() < table.hands() {
            let Some(entry) = self.durable.next_to_stage(steady(&self.ctx.world)) else { return };
            let (stage, id) = (stage.clone(), self.run.row.id.clone());
            let (store, now) = (self.ctx.store.clone(), self.ctx.world.clock.now());
            let meters = self.meters.clone();
            self.spawn(Done::StagedSplit, move || {
                let _waits = meters.wait(What::Destination);
                stage_split(&store, &stage, &id, &entry, session, now).map(|()| entry.index)
            });
        }
    }

    pub(super) async fn staged_split(&mut self, staged: Result<u64, Problem>) -> Result<(), Problem> {
        let index = staged?;
        let credit = self.durable.staged(index);
        self.give_back(credit);
        if self.knows.kept {
            self.machine().kept(index);
        }
        self.show();
        let now = steady(&self.ctx.world);
        if self.durable.row_at.is_some_and(|at| at.plus_ms(ROW_MS) > now) {
            return Ok(());
        }
        self.durable.row_at = Some(now);
        let (row, epoch, spent) = (self.row(), self.ctx.epoch, self.meters.spent());
        let keep = move |tx: &rusqlite::Transaction<'_>| {
            spent::put(tx, &row.id, epoch, &spent)?;
            transfers::update(tx, &row).map(|_| ())
        };
        self.ctx.store.write(keep).await
    }

    /// Makes durable whatever has arrived: the session is being left.
    pub(super) async fn make_durable(&mut self) {
        self.write_some();
        while self.writing.is_writing() || self.durable.is_flushing() || self.durable.has_fresh() {
            if !self.writing.is_writing() && !self.durable.is_flushing() {
                self.flush(true);
            }
            let Some(done) = self.jobs.recv().await else { return };
            let result = match done {
                Done::Wrote(wrote) => self.wrote(wrote),
                Done::Flushed(progress) => {
                    if let Err(problem) = self.flushed(progress) {
                        tracing::warn!(transfer = %self.run.row.id, %problem, "Progress could not be made durable");
                        return;
                    }
                    Ok(())
                }
                Done::StagedSplit(staged) => staged.map(|index| {
                    self.durable.staged(index);
                }),
                _ => Ok(()),
            };
            if let Err(problem) = result {
                tracing::warn!(transfer = %self.run.row.id, %problem, "What has come could not be landed");
            }
            self.write_some();
        }
        if let Some(accepted) = &self.accepted {
            accepted.arrived.clear();
        }
    }
}

/// Puts a split into the destination's staging, and records it, once.
fn stage_split(
    store: &Store,
    stage: &Stage,
    id: &TransferId,
    entry: &Entry,
    session: i64,
    now: Timestamp,
) -> Result<(), Problem> {
    let Place::Table(table) = stage.place() else { return Err(Problem::new(Code::InsideFailed)) };
    let known = store.read_now(|db| exchange::landing_entry(db, id, &entry.name))?;
    let (staged, bad) = match known.and_then(|(known, _)| known.staged) {
        // An earlier session did so; this one's listing has it too.
        Some(staged) => (staged, None),
        None => {
            let (staged, bad) = stage.stage_split(table, entry)?;
            (staged, Some(bad))
        }
    };
    crate::crash_point!("split staged");
    store.write_now(|tx| {
        exchange::put_split_staged(tx, id, entry, &staged, session)?;
        let split = String::from_utf8_lossy(&entry.name);
        match bad {
            Some(bad) => quarantine::put_held_back(tx, id, Side::Consumer, &split, bad, now),
            None => Ok(()),
        }
    })?;
    crate::crash_point!("split recorded");
    stage.split_recorded(table, entry);
    Ok(())
}

const FLUSH_BYTES: u64 = limits::PROGRESS_BYTES / 2;
/// Nearly all the credit: splits that are as long as this do not become whole without some of it back.
const FLUSH_SPLIT_BYTES: u64 = limits::CREDIT_BYTES / 8 * 5;
/// Of very small files the time is the bound that is met first: what a sync takes does not grow with their number.
const FLUSH_ENTRIES: usize = 2048;
/// A destination that takes a split this late does not keep up: what waits for it is synced, and the line goes on.
const STALL_MS: i64 = 2_000;
/// How far a transfer has come is written down this often; what is landed follows from its splits.
const ROW_MS: i64 = 1_000;
const PROGRESS_MS: i64 = limits::PROGRESS_MS as i64;

#[cfg(test)]
mod tests {
    use super::*;
    use posthouse_protocol::chunk::{ChunkHeader, Form, Layout, VerifiedChunk};
    use posthouse_protocol::manifest::SplitCounts;

    #[test]
    fn a_group_is_flushed_by_age_by_size_or_when_nothing_more_comes() {
        let now = Timestamp(1_000);
        let mut durable = Durable { since: Some(now), ..Default::default() };
        assert!(!durable.is_due(now, true), "there is nothing to flush");
        assert_eq!(durable.deadline(), None);
        durable.progress.credit = 1;
        durable.since = Some(now);
        assert_eq!(durable.deadline(), Some(now.plus_ms(PROGRESS_MS)));
        assert!(!durable.is_due(now, false) && durable.is_due(now, true));
        assert!(
            !durable.is_due(now.plus_ms(PROGRESS_MS - 1), false) && durable.is_due(now.plus_ms(PROGRESS_MS), false)
        );
        durable.progress.bytes = FLUSH_BYTES;
        assert!(durable.is_due(now, false));
        durable.flushing = Some(0);
        assert!(!durable.is_due(now, true), "one at a time");
        assert!(durable.is_busy() && durable.deadline().is_none());
    }

    fn entry(index: u64, kind: EntryKind) -> Entry {
        let name = format!("split {index}").into_bytes();
        Entry {
            index,
            name,
            kind,
            size: 10,
            mode: 0,
            mtime_ns: 0,
            root: None,
            revision: 0,
            same_as: None,
            attributes: None,
        }
    }
    fn written(durable: &mut Durable, entry: &Entry, now: Timestamp) -> u64 {
        let layout = Layout::new(10).unwrap();
        let content = [entry.index as u8; 10];
        let header = ChunkHeader {
            entry: entry.index,
            revision: 0,
            chunk: 0,
            bytes: 10,
            form: Form::Plain,
            wire_bytes: 10,
            value: layout.value(0, &content).into(),
        };
        let meta = VerifiedChunk::verify(&header, layout, content.to_vec().into()).unwrap().meta();
        let free = durable.wrote(entry, &meta, now);
        assert_eq!(free, if entry.kind == EntryKind::File { meta.credit() } else { 0 });
        meta.credit()
    }
    fn whole(durable: &Durable) -> Vec<u64> {
        durable.progress.whole.iter().map(|(entry, _)| entry.index).collect()
    }

    #[test]
    fn a_split_is_staged_at_once_and_its_credit_comes_back_with_that() {
        let (now, split) = (Timestamp(1_000), EntryKind::Split(SplitCounts::default()));
        let mut durable = Durable::default();
        let first = entry(0, split.clone());
        let credit = written(&mut durable, &first, now);
        assert_eq!(durable.deadline(), Some(now.plus_ms(STALL_MS)));
        durable.complete(first.clone(), Whole::Part, now);
        assert!(!durable.is_due(now.plus_ms(STALL_MS - 1), true), "nothing is to be synced");
        assert_eq!(durable.next_to_stage(now), Some(first));
        assert!(durable.is_busy() && durable.has_fresh());
        assert_eq!((durable.staged(0), durable.is_busy(), durable.progress.credit), (credit, false, 0));
        // One that was there before is recorded with this listing.
        durable.complete(entry(1, split), Whole::Part, now);
        assert!(durable.is_due(now, true) && durable.next_to_stage(now).is_none());
        // Of a folder each group is synced.
        let mut durable = Durable::default();
        let file = entry(0, EntryKind::File);
        written(&mut durable, &file, now);
        durable.complete(file, Whole::Part, now);
        assert!(durable.fresh.is_empty() && durable.is_due(now.plus_ms(PROGRESS_MS), false));
    }

    #[test]
    fn splits_that_the_destination_does_not_take_are_synced_and_their_credit_comes_back() {
        let (now, split) = (Timestamp(1_000), EntryKind::Split(SplitCounts::default()));
        let mut durable = Durable::default();
        let mut credit = 0;
        for index in 0..3 {
            let at = now.plus_ms(index as i64);
            credit = written(&mut durable, &entry(index, split.clone()), at);
            durable.complete(entry(index, split.clone()), Whole::Part, at);
        }
        assert_eq!(durable.next_to_stage(now).map(|entry| entry.index), Some(0));
        let stalled = now.plus_ms(STALL_MS + 1);
        assert_eq!(durable.deadline(), Some(stalled));
        assert!(!durable.is_due(now.plus_ms(STALL_MS), false) && durable.is_due(stalled, false));
        durable.give_up_waiting(stalled, false);
        assert_eq!((whole(&durable), durable.progress.credit, durable.fresh.len()), (vec![1], credit, 1));
        // The session is left: also what is on its way.
        durable.give_up_waiting(stalled, true);
        assert_eq!((whole(&durable), durable.progress.credit), (vec![1, 2, 0], 3 * credit));
        durable.progress = Progress::default();
        assert!(!durable.has_fresh() && durable.is_busy());
        assert_eq!(durable.staged(0), 0, "it came back before");
    }

    #[test]
    fn content_of_files_waits_for_its_sync_within_bounds() {
        let (now, file) = (Timestamp(1_000), EntryKind::File);
        let mut durable = Durable::default();
        let cost = written(&mut durable, &entry(0, file.clone()), now);
        assert_eq!((durable.progress.freed(), durable.progress.credit), (cost, 0));
        durable.flushing = Some(limits::WRITTEN_BYTES_MAX - 2 * cost);
        assert!(durable.has_room(0) && !durable.has_room(cost));
        written(&mut durable, &entry(1, file), now);
        assert!(!durable.has_room(0));
        durable.flushing = None;
        assert!(durable.has_room(0));
        durable.forget(0);
        assert_eq!(durable.progress.freed(), cost, "it is not there any more");
        // Of splits the credit is the bound.
        let mut durable = Durable { flushing: Some(limits::WRITTEN_BYTES_MAX - 1), ..Default::default() };
        written(&mut durable, &entry(0, EntryKind::Split(SplitCounts::default())), now);
        assert!(durable.has_room(0));
    }

    #[test]
    fn long_splits_are_synced_in_time_for_their_credit() {
        let now = Timestamp(1_000);
        let mut durable = Durable::default();
        written(&mut durable, &entry(0, EntryKind::Split(SplitCounts::default())), now);
        durable.progress.bytes = FLUSH_SPLIT_BYTES - 1;
        assert!(!durable.is_due(now, false));
        durable.progress.bytes = FLUSH_SPLIT_BYTES;
        assert!(durable.is_due(now, false));
        const { assert!(FLUSH_SPLIT_BYTES < limits::CREDIT_BYTES) };
    }
}
