//! Entries that the provider lists: what is here of each, what begins anew, and what is complete.

use super::{Done, Session};
use crate::stage::Answer;
use crate::store::exchange::{self, Whole};
use crate::transfer::{blocking, steady};
use posthouse_protocol::consumer::Have;
use posthouse_protocol::limits;
use posthouse_protocol::manifest::{Entry, EntryKind};
use posthouse_protocol::problem::{Code, Problem};
use std::collections::VecDeque;

impl Session<'_> {
    pub(super) fn listed(&mut self, entry: &Entry) -> Result<(), Problem> {
        if let EntryKind::Split(counts) = &entry.kind {
            self.quarantined += counts.quarantined;
            self.check_quarantine(0)?;
        }
        let (size, rows) = match &entry.kind {
            EntryKind::Split(counts) => (entry.size, counts.sent),
            _ => (entry.size, 0),
        };
        self.run.registered.show(|live| {
            live.bytes_total += size;
            live.rows += rows;
        });
        Ok(())
    }

    pub(super) fn check_quarantine(&self, here: u64) -> Result<(), Problem> {
        match self.job.quarantine_max {
            Some(max) if self.quarantined + here > max => {
                Err(Problem::new(Code::RowsRefused).with("rows", self.quarantined + here))
            }
            _ => Ok(()),
        }
    }

    /// What is here of the entries listed lately?
    pub(super) fn look_up(&mut self) {
        let Some(stage) = self.stage.clone().filter(|_| !self.looking && !self.asked.is_empty()) else { return };
        self.looking = true;
        let batch: Vec<Entry> = self.asked.drain(..self.asked.len().min(LOOK_UP)).collect();
        let (store, predecessors) = (self.ctx.store.clone(), self.predecessors.clone());
        self.spawn(Done::Looked, move || {
            let found: Vec<(Entry, Answer)> = store.read_now(|db| {
                let look = |entry: Entry| stage.lookup(db, &entry, &predecessors).map(|answer| (entry, answer));
                batch.into_iter().map(look).collect::<Result<_, Problem>>()
            })?;
            // What has to be read for an answer is read while the store is free for others.
            let compared = found.into_iter().map(|(entry, answer)| {
                let answer = stage.compared(&entry, answer);
                (entry, answer)
            });
            Ok(compared.collect())
        });
    }

    pub(super) fn looked(&mut self, found: Vec<(Entry, Answer)>) -> Result<(), Problem> {
        self.looking = false;
        for (entry, answer) in found {
            match answer {
                Answer::LeaveOut(what) => self.machine().leave_out(&entry, what)?,
                Answer::Compare(_) => return Err(Problem::new(Code::InsideFailed).cause("an entry was not compared")),
                Answer::Have(have, whole) => {
                    // It may have been read anew while it was looked up.
                    let newer = self.open.get(&entry.index).is_some_and(|open| open.revision > entry.revision);
                    if whole == Whole::Present && !newer {
                        self.present.insert(entry.index);
                    }
                    let known = match &have {
                        Have::Nothing => 0,
                        Have::Whole(_) => entry.size,
                        // A little more or less at a file's end does not matter to who watches.
                        Have::Chunks(chunks) => chunks.len() as u64 * u64::from(limits::CHUNK_BYTES),
                    };
                    if !matches!(have, Have::Whole(_)) && !newer {
                        self.open.insert(entry.index, entry.clone());
                    }
                    self.run.registered.show(|live| live.bytes += known);
                    self.machine().have(&entry, have)?;
                }
            }
        }
        Ok(())
    }

    /// What was written of an entry is void. No write to it may be under way while it begins anew.
    pub(super) async fn again(&mut self, entry: Entry) -> Result<(), Problem> {
        let index = entry.index;
        // Nothing of its new state can have come yet: that is asked for after this.
        let (void, kept): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.writes).into_iter().partition(|chunk| chunk.meta().entry() == index);
        self.writes = kept;
        for chunk in void {
            self.give_back(&chunk.meta());
        }
        self.wait_for_writes(index).await?;
        self.forget(index, &entry.name).await?;
        self.open.insert(index, entry.clone());
        if let Some(stage) = self.stage.clone() {
            blocking(&self.ctx.world, move || stage.begin(&entry)).await?;
        }
        Ok(())
    }

    pub(super) async fn forget(&mut self, index: u64, name: &[u8]) -> Result<(), Problem> {
        self.progress.drop_entry(index);
        self.completed.remove(&index);
        self.present.remove(&index);
        self.open.remove(&index);
        if let Some(stage) = &self.stage {
            stage.drop_part(index);
        }
        let (id, name) = (self.run.row.id.clone(), name.to_vec());
        self.ctx.store.write(move |tx| exchange::forget_landing_entry(tx, &id, &name)).await
    }

    /// All of it is in its file, or stood there before.
    pub(super) fn complete(&mut self, entry: Entry) {
        let asked = self.open.remove(&entry.index).is_some();
        let whole = if self.present.remove(&entry.index) { Whole::Present } else { Whole::Part };
        if asked && entry.kind == EntryKind::File {
            self.files_sent += 1;
        }
        self.since.get_or_insert(steady(&self.ctx.world));
        self.progress.whole.push((entry, whole));
        self.run.registered.show(|live| live.files += 1);
    }
}

const LOOK_UP: usize = 1024;
