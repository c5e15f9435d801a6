//! What is written becomes durable in groups, and only then is its credit given back. A split whose file is
//! whole goes on into the destination's staging.

use super::{Done, Session};
use crate::stage::{Place, Progress, Stage};
use crate::store::{Side, Store, exchange, transfers};
use crate::transfer::steady;
use posthouse_protocol::id::TransferId;
use posthouse_protocol::limits;
use posthouse_protocol::manifest::{Entry, EntryKind};
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::time::Timestamp;

impl Session<'_> {
    pub(super) fn flush_if_due(&mut self) {
        if self.flushing {
            return;
        }
        if self.progress.is_empty() {
            self.since = None;
            return;
        }
        let old = self.since.is_none_or(|since| since.plus_ms(PROGRESS_MS) <= steady(&self.ctx.world));
        let idle = self.handed.is_some() && self.write_jobs == 0;
        if !(old || idle || self.progress.bytes >= FLUSH_BYTES || self.progress.whole.len() >= FLUSH_ENTRIES) {
            return;
        }
        self.flush();
    }

    pub(super) fn flush(&mut self) {
        let Some(stage) = self.stage.clone() else { return };
        self.flushing = true;
        self.since = None;
        let progress = std::mem::take(&mut self.progress);
        let (store, id, session, row) = (self.ctx.store.clone(), self.run.row.id.clone(), self.session, self.row());
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

    pub(super) fn flushed(&mut self, progress: Progress) {
        self.machine().durable(progress.credit);
        let splits = progress.whole.into_iter().filter(|(entry, _)| matches!(entry.kind, EntryKind::Split(_)));
        self.to_stage.extend(splits.map(|(entry, _)| entry));
    }

    /// A split whose file is whole goes into the destination's staging, one at a time.
    pub(super) fn stage_some(&mut self) {
        let Some(stage) = self.stage.clone().filter(|_| !self.staging) else { return };
        let Some(entry) = self.to_stage.pop_front() else { return };
        self.staging = true;
        let (store, id, now) = (self.ctx.store.clone(), self.run.row.id.clone(), self.ctx.world.clock.now());
        self.spawn(Done::StagedSplit, move || stage_split(&store, &stage, &id, &entry, now));
    }

    pub(super) async fn make_durable(&mut self) {
        self.write_some();
        while self.write_jobs > 0 || self.flushing || !self.progress.is_empty() {
            if self.write_jobs == 0 && !self.flushing {
                self.flush();
            }
            let Some(done) = self.jobs.recv().await else { return };
            let result = match done {
                done @ Done::Wrote { .. } => self.wrote(done),
                Done::Flushed(Ok(progress)) => {
                    self.flushing = false;
                    self.flushed(progress);
                    Ok(())
                }
                Done::Flushed(Err(problem)) => {
                    self.flushing = false;
                    tracing::warn!(transfer = %self.run.row.id, %problem, "Progress could not be made durable");
                    return;
                }
                _ => Ok(()),
            };
            if let Err(problem) = result {
                tracing::warn!(transfer = %self.run.row.id, %problem, "A chunk could not be written");
            }
            self.write_some();
        }
        if let Some(arrived) = &self.arrived {
            arrived.clear();
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
        exchange::put_bad_rows(tx, id, Side::Consumer, &split, &bad, now)
    })
}

const FLUSH_BYTES: u64 = limits::PROGRESS_BYTES / 2;
const FLUSH_ENTRIES: usize = 512;
pub(super) const PROGRESS_MS: i64 = limits::PROGRESS_MS as i64;
