//! What is written becomes durable in groups, and only then is its credit given back. A split whose file is
//! whole goes on into the destination's staging.

use super::{Done, Session};
use crate::stage::{Place, Progress, Stage};
use crate::store::exchange::{self, Whole};
use crate::store::{Side, Store, quarantine, transfers};
use crate::transfer::steady;
use posthouse_protocol::chunk::ChunkMeta;
use posthouse_protocol::id::TransferId;
use posthouse_protocol::limits;
use posthouse_protocol::manifest::{Entry, EntryKind};
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::time::Timestamp;
use std::collections::VecDeque;

#[derive(Default)]
pub(super) struct Durable {
    progress: Progress,
    /// When the oldest of it was written.
    since: Option<Timestamp>,
    flushing: bool,
    /// Splits that are whole and durable as files.
    to_stage: VecDeque<Entry>,
    /// How many of them are on their way into the destination's staging.
    staging: usize,
}

impl Durable {
    /// When what is there has to be flushed.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        self.since.filter(|_| !self.flushing).map(|since| since.plus_ms(PROGRESS_MS))
    }
    pub(super) fn is_busy(&self) -> bool {
        self.flushing || self.staging > 0 || !self.progress.is_empty() || !self.to_stage.is_empty()
    }

    pub(super) fn wrote(&mut self, entry: &Entry, meta: &ChunkMeta, now: Timestamp) {
        self.progress.add(entry, meta);
        self.since.get_or_insert(now);
    }

    pub(super) fn complete(&mut self, entry: Entry, whole: Whole, now: Timestamp) {
        self.since.get_or_insert(now);
        self.progress.whole.push((entry, whole));
    }

    /// The entry is read anew or left out.
    pub(super) fn forget(&mut self, index: u64) {
        self.progress.drop_entry(index);
    }

    pub(super) fn split_staged(&mut self) {
        self.staging -= 1;
    }

    /// `idle`: nothing more comes, so there is nothing to wait for.
    fn is_due(&mut self, now: Timestamp, idle: bool) -> bool {
        if self.flushing {
            return false;
        }
        if self.progress.is_empty() {
            self.since = None;
            return false;
        }
        let old = self.since.is_none_or(|since| since.plus_ms(PROGRESS_MS) <= now);
        old || idle || self.progress.bytes >= FLUSH_BYTES || self.progress.whole.len() >= FLUSH_ENTRIES
    }
}

impl Session<'_> {
    pub(super) fn flush_if_due(&mut self) {
        let idle = self.handed.is_some() && !self.writing.is_writing();
        if self.durable.is_due(steady(&self.ctx.world), idle) {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let Some(accepted) = &self.accepted else { return };
        let (stage, session) = (accepted.stage.clone(), accepted.session);
        self.durable.flushing = true;
        self.durable.since = None;
        let progress = std::mem::take(&mut self.durable.progress);
        let (store, id, row) = (self.ctx.store.clone(), self.run.row.id.clone(), self.row());
        self.show();
        self.spawn(Done::Flushed, move || {
            stage.sync(&progress)?;
            crate::crash_point!("synced");
            store.write_now(|tx| {
                progress.record(tx, &id, session)?;
                transfers::update(tx, &row).map(|_| ())
            })?;
            crate::crash_point!("recorded");
            Ok(progress)
        });
    }

    pub(super) fn flushed(&mut self, progress: Result<Progress, Problem>) -> Result<(), Problem> {
        self.durable.flushing = false;
        let progress = progress?;
        self.machine().durable(progress.credit);
        let splits = progress.whole.into_iter().filter(|(entry, _)| matches!(entry.kind, EntryKind::Split(_)));
        self.durable.to_stage.extend(splits.map(|(entry, _)| entry));
        Ok(())
    }

    /// Splits whose files are whole go into the destination's staging, as many at once as it takes.
    pub(super) fn stage_some(&mut self) {
        let Some(stage) = self.stage() else { return };
        let Place::Table(table) = stage.place() else { return };
        while self.durable.staging < table.hands() {
            let Some(entry) = self.durable.to_stage.pop_front() else { return };
            self.durable.staging += 1;
            let (store, id, now) = (self.ctx.store.clone(), self.run.row.id.clone(), self.ctx.world.clock.now());
            let stage = stage.clone();
            self.spawn(Done::StagedSplit, move || stage_split(&store, &stage, &id, &entry, now));
        }
    }

    /// Makes durable whatever has arrived: the session is being left.
    pub(super) async fn make_durable(&mut self) {
        self.write_some();
        while self.writing.is_writing() || self.durable.flushing || !self.durable.progress.is_empty() {
            if !self.writing.is_writing() && !self.durable.flushing {
                self.flush();
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
                _ => Ok(()),
            };
            if let Err(problem) = result {
                tracing::warn!(transfer = %self.run.row.id, %problem, "A chunk could not be written");
            }
            self.write_some();
        }
        if let Some(accepted) = &self.accepted {
            accepted.arrived.clear();
        }
    }
}

/// Puts a split into the destination's staging, and records it, once.
fn stage_split(store: &Store, stage: &Stage, id: &TransferId, entry: &Entry, now: Timestamp) -> Result<(), Problem> {
    let Place::Table(table) = stage.place() else { return Err(Problem::new(Code::InsideFailed)) };
    let known = store.read_now(|db| exchange::landing_entry(db, id, &entry.name))?;
    if known.is_some_and(|(known, _)| known.staged.is_some()) {
        return Ok(());
    }
    let (staged, bad) = table.stage(entry)?;
    crate::crash_point!("split staged");
    store.write_now(|tx| {
        exchange::set_split_staged(tx, id, &entry.name, &staged)?;
        let split = String::from_utf8_lossy(&entry.name);
        quarantine::put(tx, id, Side::Consumer, &split, &bad, now)
    })
}

const FLUSH_BYTES: u64 = limits::PROGRESS_BYTES / 2;
const FLUSH_ENTRIES: usize = 512;
const PROGRESS_MS: i64 = limits::PROGRESS_MS as i64;

#[cfg(test)]
mod tests {
    use super::*;

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
        durable.flushing = true;
        assert!(!durable.is_due(now, true), "one at a time");
        assert!(durable.is_busy() && durable.deadline().is_none());
    }
}
