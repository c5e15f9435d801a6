//! Entries that the provider lists: what is here of each, what begins anew or is left out, and what is complete.

use super::{Done, Session};
use crate::config::RowLimit;
use crate::stage::Answer;
use crate::store::exchange::{self, Whole};
use crate::transfer::{blocking, steady};
use posthouse_protocol::consumer::Have;
use posthouse_protocol::limits;
use posthouse_protocol::manifest::{Entry, EntryKind};
use posthouse_protocol::problem::{Code, Problem};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
pub(super) struct Listing {
    /// Listed entries that are not looked up yet.
    asked: Vec<Entry>,
    looking: bool,
    /// Entries that chunks are awaited of.
    open: BTreeMap<u64, Entry>,
    /// Entries that stand at their place already.
    present: BTreeSet<u64>,
    /// Rows that the provider has put aside.
    quarantined: u64,
    files_sent: u64,
}

/// What is here of an entry.
pub(super) struct Found {
    entry: Entry,
    answer: Answer,
    may_have_older: bool,
    /// Under this name stands what may be in it.
    older: Option<Vec<u8>>,
}

impl Listing {
    /// The entry, as it is now, if chunks of it are awaited.
    pub(super) fn awaited(&self, index: u64) -> Option<&Entry> {
        self.open.get(&index)
    }
    pub(super) fn files_sent(&self) -> u64 {
        self.files_sent
    }
}

impl Session<'_> {
    pub(super) fn listed(&mut self, entry: Entry) -> Result<(), Problem> {
        let mut rows = 0;
        if let EntryKind::Split(counts) = &entry.kind {
            rows = counts.sent;
            self.listing.quarantined += counts.quarantined;
            self.check_quarantine(0, None)?;
        }
        self.run.registered.show(|live| {
            live.bytes_total += entry.size;
            live.rows += rows;
        });
        self.listing.asked.push(entry);
        Ok(())
    }

    /// Whether the job still goes on, with so many rows put aside here. A share of the rows that were `read` is known
    /// once all were.
    pub(super) fn check_quarantine(&self, here: u64, read: Option<u64>) -> Result<(), Problem> {
        let rows = self.listing.quarantined + here;
        let max = match (self.job.quarantine_max, read) {
            (Some(RowLimit::Rows(max)), _) => max,
            (Some(limit), Some(read)) => limit.of(read),
            _ => return Ok(()),
        };
        if rows > max { Err(Problem::new(Code::RowsRefused).with("rows", rows)) } else { Ok(()) }
    }

    /// What is here of the entries listed lately?
    pub(super) fn look_up(&mut self) {
        let Some(stage) = self.stage() else { return };
        let Listing { asked, looking, .. } = &mut self.listing;
        if *looking || asked.is_empty() {
            return;
        }
        *looking = true;
        let batch: Vec<Entry> = asked.drain(..asked.len().min(LOOK_UP)).collect();
        let (store, predecessors, delta) = (self.ctx.store.clone(), self.predecessors.clone(), self.knows.delta);
        self.spawn(Done::Looked, move || {
            let found: Vec<Found> = store.read_now(|db| {
                let look = |entry: Entry| {
                    let answer = stage.lookup(db, &entry, &predecessors)?;
                    let is_lacking = matches!(answer, Answer::Have(Have::Nothing | Have::Chunks(_), _));
                    let may_have_older = delta && is_lacking && stage.may_have_older(&entry);
                    let older = if may_have_older { stage.alike(db, &entry)? } else { None };
                    Ok(Found { entry, answer, may_have_older, older })
                };
                batch.into_iter().map(look).collect::<Result<_, Problem>>()
            })?;
            // What has to be read for an answer is read while the store is free for others.
            let compared = found.into_iter().map(|Found { entry, answer, may_have_older, older }| {
                let answer = stage.compared(&entry, answer);
                let older = if may_have_older { stage.older_name(&entry, older) } else { None };
                Found { entry, answer, may_have_older, older }
            });
            Ok(compared.collect())
        });
    }

    pub(super) fn looked(&mut self, found: Vec<Found>) -> Result<(), Problem> {
        self.listing.looking = false;
        for Found { entry, answer, older, .. } in found {
            match answer {
                Answer::LeaveOut(what) => self.machine().leave_out(&entry, what)?,
                Answer::Compare(_) | Answer::Adopted(_) => {
                    return Err(Problem::new(Code::InsideFailed).cause("an entry was not compared"));
                }
                Answer::Have(have, whole) => {
                    let Listing { open, present, .. } = &mut self.listing;
                    // It may have been read anew while it was looked up.
                    let newer = open.get(&entry.index).is_some_and(|open| open.revision > entry.revision);
                    if whole == Whole::Present && !newer {
                        present.insert(entry.index);
                    }
                    let known = match &have {
                        Have::Nothing => 0,
                        Have::Whole(_) => entry.size,
                        // A little more or less at a file's end does not matter to who watches.
                        Have::Chunks(chunks) => chunks.len() as u64 * u64::from(limits::CHUNK_BYTES),
                    };
                    if !matches!(have, Have::Whole(_)) && !newer {
                        open.insert(entry.index, entry.clone());
                    }
                    self.run.registered.show(|live| live.bytes += known);
                    match older {
                        Some(name) if !newer => self.olders.push(entry, have, name),
                        _ => self.machine().have(&entry, have)?,
                    }
                }
            }
        }
        Ok(())
    }

    /// What was written of an entry is void. No write to it may be under way while it begins anew.
    pub(super) async fn again(&mut self, entry: Entry) -> Result<(), Problem> {
        let index = entry.index;
        // Nothing of its new state can have come yet: that is asked for after this.
        self.void_waiting(index);
        self.wait_for_writes(index).await?;
        self.forget(index, &entry.name).await?;
        self.listing.open.insert(index, entry.clone());
        if let Some(stage) = self.stage() {
            blocking(&self.ctx.world, move || stage.begin(&entry)).await?;
        }
        Ok(())
    }

    /// The provider cannot hand it over after all.
    pub(super) async fn left_out(&mut self, index: u64, name: Vec<u8>) -> Result<(), Problem> {
        self.wait_for_writes(index).await?;
        self.forget(index, &name).await?;
        if let Some(stage) = self.stage() {
            blocking(&self.ctx.world, move || stage.discard_part(&name)).await?;
        }
        Ok(())
    }

    async fn forget(&mut self, index: u64, name: &[u8]) -> Result<(), Problem> {
        self.durable.forget(index);
        self.writing.forget(index);
        self.drop_older(index);
        self.listing.present.remove(&index);
        self.listing.open.remove(&index);
        if let Some(accepted) = &self.accepted {
            accepted.stage.drop_part(index);
        }
        let (id, name) = (self.run.row.id.clone(), name.to_vec());
        self.ctx.store.write(move |tx| exchange::forget_landing_entry(tx, &id, &name)).await
    }

    /// All of it is in its file, or stood there before.
    pub(super) fn complete(&mut self, entry: Entry) {
        let asked = self.listing.open.remove(&entry.index).is_some();
        self.drop_older(entry.index);
        let whole = if self.listing.present.remove(&entry.index) { Whole::Present } else { Whole::Part };
        if asked && entry.kind == EntryKind::File {
            self.listing.files_sent += 1;
        }
        self.durable.complete(entry, whole, steady(&self.ctx.world));
        self.run.registered.show(|live| live.files += 1);
    }
}

const LOOK_UP: usize = 1024;
