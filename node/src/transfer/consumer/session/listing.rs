//! Entries that the provider lists: what is here of each, what begins anew or is left out, and what is complete.

use super::{Done, Session};
use crate::config::RowLimit;
use crate::stage::{Answer, OlderName};
use crate::store::exchange::{self, Whole};
use crate::transfer::{blocking, steady};
use posthouse_connectors::folder::Near;
use posthouse_protocol::consumer::Have;
use posthouse_protocol::job::Write;
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
    /// Files of which further names may be listed, with their size and root once all of them is here.
    shared: BTreeMap<u64, Option<(u64, [u8; 32])>>,
    /// The numbers of further names that wait for such a file, by its own.
    further: BTreeMap<u64, Vec<u64>>,
    waiting: BTreeMap<u64, Waiting>,
    /// Entries whose content is another one's.
    linked: BTreeSet<u64>,
    /// Rows that the provider has put aside.
    quarantined: u64,
    files_sent: u64,
}

/// A further name of a file that is not here yet, and what it is answered by where that does not come.
struct Waiting {
    entry: Entry,
    have: Have,
    whole: Whole,
    older: Option<OlderName>,
}

/// What is here of an entry.
pub(super) struct Found {
    entry: Entry,
    answer: Answer,
    /// Under this name stands what may be in it.
    older: Option<OlderName>,
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
        if entry.same_as == Some(entry.index) && self.listing.shared.len() < limits::SAME_FILES_MAX {
            self.listing.shared.insert(entry.index, None);
        }
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
        let Some(accepted) = &self.accepted else { return };
        let (stage, resumes) = (accepted.stage.clone(), accepted.resumes());
        let Listing { asked, looking, .. } = &mut self.listing;
        if *looking || asked.is_empty() {
            return;
        }
        *looking = true;
        let batch: Vec<Entry> = asked.drain(..asked.len().min(LOOK_UP)).collect();
        let (store, predecessors, delta) = (self.ctx.store.clone(), self.predecessors.clone(), self.knows.delta);
        self.spawn(Done::Looked, move || {
            let found: Vec<(Entry, Answer, Vec<OlderName>)> = store.read_now(|db| {
                let mut near = Near::default();
                let look = |entry: Entry| {
                    let answer = stage.lookup(db, &entry, &predecessors, resumes, &mut near)?;
                    let is_lacking = matches!(answer, Answer::Have(Have::Nothing | Have::Chunks(_), _));
                    let may_have_older = delta && is_lacking && stage.may_have_older(&entry);
                    let names = if may_have_older { stage.older_names(db, &entry)? } else { Vec::new() };
                    Ok((entry, answer, names))
                };
                batch.into_iter().map(look).collect::<Result<_, Problem>>()
            })?;
            // What has to be read for an answer is read while the store is free for others.
            let compared = found.into_iter().map(|(entry, answer, names)| {
                let answer = stage.compared(&entry, answer);
                let older = stage.standing(names);
                Found { entry, answer, older }
            });
            Ok(compared.collect())
        });
    }

    pub(super) fn looked(&mut self, found: Vec<Found>) -> Result<(), Problem> {
        self.listing.looking = false;
        for Found { entry, answer, older } in found {
            if !self.machine().awaits_answer(entry.index) {
                // It was read anew meanwhile and answered as it is now, or left out.
                continue;
            }
            match answer {
                Answer::LeaveOut(what) => {
                    self.machine().leave_out(&entry, what)?;
                    self.no_longer_shared(entry.index)?;
                }
                Answer::Compare(_) | Answer::Adopted(_) => {
                    return Err(Problem::new(Code::InsideFailed).cause("an entry was not compared"));
                }
                Answer::Have(have, whole) => self.here(Waiting { entry, have, whole, older })?,
            }
        }
        Ok(())
    }

    /// So much of an entry is here. Of a further name of a file nothing else is needed than that file.
    fn here(&mut self, found: Waiting) -> Result<(), Problem> {
        let is_first = found.entry.same_as == Some(found.entry.index);
        let replaces = self.run.row.write != Write::Append || matches!(found.have, Have::Nothing);
        let newer = self.is_newer(&found.entry);
        let first = found.entry.same_as.filter(|_| !is_first && replaces && !newer);
        match first.and_then(|first| Some((first, *self.listing.shared.get(&first)?))) {
            Some((_, Some(content))) => self.link(found, content),
            Some((first, None)) => {
                self.listing.further.entry(first).or_default().push(found.entry.index);
                self.listing.waiting.insert(found.entry.index, found);
                Ok(())
            }
            None => self.answer(found),
        }
    }

    /// It may have been read anew while it was looked up.
    fn is_newer(&self, entry: &Entry) -> bool {
        self.listing.open.get(&entry.index).is_some_and(|open| open.revision > entry.revision)
    }

    fn link(&mut self, found: Waiting, (size, root): (u64, [u8; 32])) -> Result<(), Problem> {
        let entry = &found.entry;
        if entry.size != size || entry.root.is_some_and(|own| *own != root) {
            // It is another file by now.
            return self.answer(found);
        }
        self.listing.linked.insert(entry.index);
        self.run.registered.show(|live| live.bytes += entry.size);
        self.machine().have(entry, Have::Whole(root))
    }

    fn answer(&mut self, Waiting { entry, have, whole, older }: Waiting) -> Result<(), Problem> {
        let newer = self.is_newer(&entry);
        let Listing { open, present, .. } = &mut self.listing;
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
            Some(name) if !newer => {
                self.olders.push(entry, have, name);
                Ok(())
            }
            _ => self.machine().have(&entry, have),
        }
    }

    /// The file does not come: its further names are files of their own.
    fn no_longer_shared(&mut self, index: u64) -> Result<(), Problem> {
        self.listing.shared.remove(&index);
        self.waiting_for(index).into_iter().try_for_each(|found| self.answer(found))
    }

    fn waiting_for(&mut self, index: u64) -> Vec<Waiting> {
        let further = self.listing.further.remove(&index).unwrap_or_default();
        further.into_iter().filter_map(|further| self.listing.waiting.remove(&further)).collect()
    }

    /// What was written of an entry is void. No write to it may be under way while it begins anew. It may have become what
    /// cannot be landed here, such as one with more attributes than a file may have: then it is left out by name.
    pub(super) async fn again(&mut self, entry: Entry) -> Result<(), Problem> {
        let index = entry.index;
        // Nothing of its new state can have come yet: that is asked for after this.
        self.void_waiting(index);
        self.wait_for_writes(index).await?;
        let is_asked = self.machine().awaits_answer(index);
        self.forget(index, &entry.name).await?;
        if let Some(stage) = self.stage() {
            let anew = entry.clone();
            let begun = blocking(&self.ctx.world, move || match stage.blocked(&anew)? {
                Some(what) if is_asked => Ok(Some(what)),
                _ => stage.begin(&anew).map(|()| None),
            });
            if let Some(what) = begun.await? {
                // What there is of it goes when both sides have it out of the list.
                return self.machine().leave_out(&entry, what);
            }
        }
        self.listing.open.insert(index, entry.clone());
        if is_asked { self.machine().have(&entry, Have::Nothing) } else { Ok(()) }
    }

    /// The provider cannot hand it over after all.
    pub(super) async fn left_out(&mut self, index: u64, name: Vec<u8>) -> Result<(), Problem> {
        self.wait_for_writes(index).await?;
        self.forget(index, &name).await?;
        if let Some(stage) = self.stage() {
            blocking(&self.ctx.world, move || stage.discard_part(&name)).await?;
        }
        self.no_longer_shared(index)
    }

    async fn forget(&mut self, index: u64, name: &[u8]) -> Result<(), Problem> {
        self.durable.forget(index);
        self.writing.forget(index);
        self.drop_older(index);
        self.listing.present.remove(&index);
        self.listing.linked.remove(&index);
        self.listing.waiting.remove(&index);
        self.listing.open.remove(&index);
        if let Some(accepted) = &self.accepted {
            accepted.stage.drop_part(index);
        }
        let (id, name) = (self.run.row.id.clone(), name.to_vec());
        self.ctx.store.write(move |tx| exchange::forget_landing_entry(tx, &id, &name)).await
    }

    /// All of it is in its file, or stood there before.
    pub(super) fn complete(&mut self, entry: Entry) -> Result<(), Problem> {
        let asked = self.listing.open.remove(&entry.index).is_some();
        self.older_served(&entry);
        let is_present = self.listing.present.remove(&entry.index);
        let whole = match (self.listing.linked.remove(&entry.index), is_present) {
            (true, _) => Whole::Linked,
            (_, true) => Whole::Present,
            _ => Whole::Part,
        };
        let (index, content) = (entry.index, entry.root.map(|root| (entry.size, *root)));
        if asked && entry.kind == EntryKind::File {
            self.listing.files_sent += 1;
        }
        self.durable.complete(entry, whole, steady(&self.ctx.world));
        self.run.registered.show(|live| live.files += 1);
        let Some((shared, content)) = self.listing.shared.get_mut(&index).zip(content) else { return Ok(()) };
        *shared = Some(content);
        self.waiting_for(index).into_iter().try_for_each(|found| self.link(found, content))
    }
}

const LOOK_UP: usize = 1024;
