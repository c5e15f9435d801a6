//! Files of which an older version may stand here. It is cut into pieces, one after the other, and the provider hears
//! of these before it hears what is wanted of the file; how many it has to keep at once is bounded.

use super::{Done, Session};
use crate::stage::{Older, OlderName};
use posthouse_protocol::chunk::{ChunkHeader, Form};
use posthouse_protocol::consumer::Have;
use posthouse_protocol::delta::{Cut, PIECE_WIRE_BYTES};
use posthouse_protocol::limits;
use posthouse_protocol::manifest::Entry;
use posthouse_protocol::problem::Problem;
use std::collections::{BTreeMap, VecDeque};

#[derive(Default)]
pub(super) struct Olders {
    /// Entries that are looked up and not answered, with the name under which something stands.
    waiting: VecDeque<Waiting>,
    is_cutting: bool,
    /// What was told of entries that are not complete: how it was cut, and into how many pieces.
    told: BTreeMap<u64, (Cut, usize)>,
}

struct Waiting {
    entry: Entry,
    have: Have,
    name: OlderName,
}

/// What came of cutting one.
pub(super) struct CutOlder {
    entry: Entry,
    have: Have,
    older: Option<Older>,
}

impl Olders {
    pub(super) fn push(&mut self, entry: Entry, have: Have, name: OlderName) {
        self.waiting.push_back(Waiting { entry, have, name });
    }
    pub(super) fn forget(&mut self, index: u64) {
        self.told.remove(&index);
    }
    /// Pieces that the provider may still be told of; each of these files is open here.
    fn room(&self) -> usize {
        if self.told.len() >= FILES_MAX {
            return 0;
        }
        limits::PIECES_MAX.saturating_sub(self.told.values().map(|(_, pieces)| pieces).sum())
    }
}

impl Session<'_> {
    pub(super) fn cut_some(&mut self) {
        let Some(stage) = self.stage() else { return };
        let room = self.olders.room();
        // Three quarters of them are what the longest file has.
        if self.olders.is_cutting || room < limits::PIECES_MAX / 4 * 3 {
            return;
        }
        let Some(Waiting { entry, have, name }) = self.olders.waiting.pop_front() else { return };
        self.olders.is_cutting = true;
        let cuts = self.run.cuts.clone();
        self.spawn(Done::CutOlder, move || {
            let known = if let Have::Chunks(chunks) = &have { chunks.len() as u64 } else { 0 };
            // A little more or less at a file's end does not matter.
            let missing = entry.size.saturating_sub(known * u64::from(limits::CHUNK_BYTES));
            let older = stage.cut_older(&entry, &name, missing, room, &cuts);
            Ok(CutOlder { entry, have, older })
        });
    }

    pub(super) fn cut_older(&mut self, cut: CutOlder) -> Result<(), Problem> {
        self.olders.is_cutting = false;
        let CutOlder { entry, have, older } = cut;
        // It may have been read anew or left out meanwhile.
        let is_awaited = self.listing.awaited(entry.index).is_some_and(|now| now.revision == entry.revision);
        match older {
            Some(older) if is_awaited => {
                self.olders.told.insert(entry.index, (older.cut, older.pieces.len() / PIECE_WIRE_BYTES));
                self.machine().pieces(&entry, older.cut, &older.pieces);
            }
            Some(_) => self.drop_older(entry.index),
            None => {}
        }
        self.machine().have(&entry, have)
    }

    /// A chunk could not be put together, or was something else then: what stands here has changed since it was cut.
    pub(super) fn older_changed(&mut self, header: &ChunkHeader) {
        let told = self.olders.told.get(&header.entry).filter(|_| header.form == Form::Delta);
        let (Some((cut, _)), Some(entry)) = (told, self.listing.awaited(header.entry)) else { return };
        tracing::info!(transfer = %self.base.id, entry = header.entry, "An older file changed while it was used");
        self.machine().no_pieces(entry, *cut);
        self.drop_older(header.entry);
    }

    /// It is complete.
    pub(super) fn older_served(&mut self, entry: &Entry) {
        self.olders.forget(entry.index);
        if let Some(stage) = self.stage() {
            stage.older_served(entry.index);
        }
        self.run.cuts.served(&entry.name);
    }

    /// It is left out or begins anew, or what was told is not so.
    pub(super) fn drop_older(&mut self, index: u64) {
        self.olders.forget(index);
        if let Some(stage) = self.stage() {
            stage.drop_older(index);
        }
    }
}

const FILES_MAX: usize = 256;
