//! Entries of the side that gives, from listing to done: answered by the consumer, sealed by the caller, sent.
//! Only what lies between the first entry that is not done and the last one listed is kept in full.

use super::{Ask, Provider, ProviderEvent, Stage, inside};
use crate::chunk::Layout;
use crate::delta::{Cut, PIECE_WIRE_BYTES};
use crate::frame::{EntriesEnd, Frame, Omission, Pieces, Want};
use crate::limits;
use crate::manifest::{Entry, EntryKind, LeftOut};
use crate::problem::Problem;

/// An entry that is not done.
pub(super) struct Given {
    entry: Entry,
    answered: bool,
    sealed: bool,
    dropped: bool,
    /// Chunks of the first answer that were not handed out yet.
    pub(super) unsent: u64,
    /// How many pieces of content at the consumer were told for it.
    pieces: usize,
}

/// What is kept of an entry that is done, for a chunk that is asked again: 16 bytes.
pub(super) struct Done {
    size: u64,
    revision: u32,
    dropped: bool,
}

impl Provider {
    /// How many entries may be listed now; 0 before the offer is accepted, and while the line or the
    /// consumer is behind.
    pub fn room(&self) -> usize {
        if self.stage != Stage::Moving {
            return 0;
        }
        if self.out.len() >= FRAMES_WAITING_MAX {
            return 0;
        }
        if self.attribute_bytes >= limits::ATTRIBUTES_AHEAD_BYTES_MAX {
            return 0;
        }
        limits::ENTRIES_AHEAD_MAX.saturating_sub(self.open.len())
    }

    /// Lists the next entry; its index is the number of those listed before. With a root it is sealed already.
    pub fn entry(&mut self, entry: Entry) -> Result<(), Problem> {
        self.require(Stage::Moving, "entry")?;
        if self.ended || entry.index != self.listed() || self.listed() >= limits::ENTRIES_MAX {
            return Err(inside(format_args!("entry {} is listed out of turn", entry.index)));
        }
        let layout = layout_of(&entry)?;
        self.bytes_listed = self.bytes_listed.saturating_add(layout.size());
        let sealed = entry.root.is_some() || !has_chunks(&entry);
        let given = Given { entry: entry.clone(), answered: false, sealed, dropped: false, unsent: 0, pieces: 0 };
        self.attribute_bytes += entry.attribute_bytes();
        self.open.insert(entry.index, given);
        self.out.entry(entry);
        self.advance();
        Ok(())
    }

    /// No more entries come.
    pub fn entries_end(&mut self) -> Result<(), Problem> {
        self.require(Stage::Moving, "entries_end")?;
        if self.ended {
            return Err(inside("the entries end twice"));
        }
        self.ended = true;
        self.out.push(Frame::EntriesEnd(EntriesEnd { entries: self.listed(), bytes: self.bytes_listed }));
        self.advance();
        Ok(())
    }

    /// The entry was read to its end: same name, size, attributes and revision as listed, now with its root.
    pub fn sealed(&mut self, entry: Entry) -> Result<(), Problem> {
        self.require(Stage::Moving, "sealed")?;
        let Some(given) = self.open.get_mut(&entry.index) else {
            return Err(inside(format_args!("entry {} is sealed, but not open", entry.index)));
        };
        if given.dropped {
            return Ok(());
        }
        let same = given.entry.name == entry.name
            && given.entry.kind == entry.kind
            && given.entry.size == entry.size
            && given.entry.attributes == entry.attributes
            && given.entry.revision == entry.revision;
        if given.sealed || !same || entry.root.is_none() {
            return Err(inside(format_args!("entry {} is sealed as another", entry.index)));
        }
        given.entry = entry.clone();
        given.sealed = true;
        self.free_pieces(entry.index);
        self.out.sealed(entry);
        self.advance();
        Ok(())
    }

    /// The entry changed while it was read: everything of it is void, under a higher revision and with its size now.
    /// Possible until it is sealed, and after that while chunks of it that were wanted are unsent.
    pub fn again(&mut self, entry: Entry) -> Result<(), Problem> {
        self.require(Stage::Moving, "again")?;
        layout_of(&entry)?;
        let Some(given) = self.open.get_mut(&entry.index) else {
            return Err(inside(format_args!("entry {} is read again, but not open", entry.index)));
        };
        if given.dropped {
            return Ok(());
        }
        if given.may_be_complete() {
            return Err(inside(format_args!("entry {} is read again, but may be complete", entry.index)));
        }
        if entry.revision <= given.entry.revision || entry.name != given.entry.name || !has_chunks(&entry) {
            return Err(inside(format_args!("entry {} is read again as another", entry.index)));
        }
        self.bytes_listed = self.bytes_listed.saturating_sub(given.entry.size).saturating_add(entry.size);
        self.pieces -= given.pieces;
        self.attribute_bytes -= given.entry.attribute_bytes();
        self.attribute_bytes += entry.attribute_bytes();
        *given = Given {
            sealed: entry.root.is_some(),
            answered: false,
            dropped: false,
            unsent: 0,
            pieces: 0,
            entry: entry.clone(),
        };
        self.queue.retain(|ask| ask.entry != entry.index);
        self.out.push(Frame::Again(entry));
        self.advance();
        Ok(())
    }

    /// In scope, but not handed over; an entry that was listed is out of the list, as long as `again` is possible.
    pub fn left_out(&mut self, entry: Option<u64>, what: LeftOut) -> Result<(), Problem> {
        self.require(Stage::Moving, "left_out")?;
        if let Some(index) = entry {
            match self.open.get_mut(&index) {
                Some(given) if given.dropped => return Ok(()),
                Some(given) if given.entry.name == what.name && !given.may_be_complete() => given.drop(),
                _ => return Err(inside(format_args!("entry {index} is left out, but not open"))),
            }
        }
        if let Some(index) = entry {
            self.free_pieces(index);
        }
        if !self.left_out.push(what.clone()) {
            return Err(inside("more is left out than can be listed"));
        }
        self.out.omission(Omission { entry, what });
        self.advance();
        Ok(())
    }

    pub(super) fn listed(&self) -> u64 {
        self.finished() + self.open.len() as u64
    }

    /// How many entries from the first on are final: answered, sealed and sent, or left out. Neither side leaves one of
    /// them out any more, and none is read again.
    pub fn finished(&self) -> u64 {
        self.forgotten + self.done.len() as u64
    }

    fn done_at(&self, index: u64) -> Option<&Done> {
        self.done.get(usize::try_from(index.checked_sub(self.forgotten)?).ok()?)
    }

    /// Whether the consumer has said what it lacks of an entry, or that it leaves it out.
    pub(super) fn is_answered(&self, index: u64) -> bool {
        index < self.listed() && self.open.get(&index).is_none_or(|given| given.answered || given.dropped)
    }

    /// Where the chunks of this state of an entry lie, as long as it is the present one.
    pub(super) fn layout_of(&self, index: u64, revision: u32) -> Option<Layout> {
        let (size, present) = match self.open.get(&index) {
            Some(given) if !given.dropped && has_chunks(&given.entry) => (given.entry.size, given.entry.revision),
            Some(_) => return None,
            None => {
                let done = self.done_at(index).filter(|done| !done.dropped)?;
                (done.size, done.revision)
            }
        };
        if present == revision { Layout::new(size).ok() } else { None }
    }

    /// The consumer says what it lacks: the first time for a state of an entry, or something of it again.
    pub(super) fn answer(&mut self, want: Want) -> Result<(), Problem> {
        if want.entry >= self.listed() {
            return Err(self.invalid("chunks are wanted of an entry that was not listed"));
        }
        let size = match self.open.get(&want.entry) {
            Some(given) if given.dropped || given.entry.revision > want.revision => return Ok(()),
            Some(given) if given.entry.revision < want.revision => {
                return Err(self.invalid("chunks are wanted of a state that was not listed"));
            }
            Some(given) => {
                if has_chunks(&given.entry) {
                    given.entry.size
                } else {
                    0
                }
            }
            None => match self.layout_of(want.entry, want.revision) {
                Some(layout) => layout.size(),
                None => return Ok(()),
            },
        };
        let chunks = Layout::new(size).map_err(|e| self.invalid(e))?.chunks();
        let mut from = 0;
        for range in &want.chunks {
            if range.0 < from || range.1 <= range.0 || range.1 > chunks {
                return Err(self.invalid("chunks are wanted that do not exist, or not in order"));
            }
            from = range.1;
        }
        let count: u64 = want.chunks.iter().map(|(from, to)| u64::from(to - from)).sum();
        let first = match self.open.get_mut(&want.entry) {
            Some(given) if !given.answered => {
                given.answered = true;
                given.unsent = count;
                true
            }
            _ => false,
        };
        let Want { entry, revision, chunks } = want;
        self.queue.extend(chunks.into_iter().map(|(from, to)| Ask { entry, revision, from, to, again: !first }));
        if first {
            self.free_pieces(entry);
            // It is at most the number of chunks, a u32.
            self.events.push_back(ProviderEvent::Wanted { entry, revision, chunks: count as u32 });
            self.advance();
        }
        Ok(())
    }

    /// The consumer says what it has that may be in an entry, before it says what it lacks of it; or that it has not.
    pub(super) fn told_pieces(&mut self, told: Pieces) -> Result<(), Problem> {
        if !(Stage::Moving..=Stage::HandedOver).contains(&self.stage) || told.entry >= self.listed() {
            return Err(self.invalid("pieces are told out of turn"));
        }
        let count = told.pieces.len() / PIECE_WIRE_BYTES;
        let is_whole = told.pieces.len() == count * PIECE_WIRE_BYTES;
        if Cut::new(told.mean).is_err() || !is_whole || self.pieces + count > limits::PIECES_MAX {
            return Err(self.invalid("pieces of no known kind, or too many"));
        }
        let Some(given) = self.open.get_mut(&told.entry) else { return Ok(()) };
        if given.dropped || given.entry.revision != told.revision || !has_chunks(&given.entry) {
            return Ok(());
        }
        if count == 0 {
            self.pieces -= std::mem::take(&mut given.pieces);
        } else if given.answered {
            return Err(self.invalid("pieces are told of an entry that was answered"));
        }
        given.pieces += count;
        self.pieces += count;
        self.events.push_back(ProviderEvent::Pieces(told));
        Ok(())
    }

    /// The consumer leaves an entry out instead of answering it.
    pub(super) fn drop_by_peer(&mut self, index: u64, what: LeftOut) -> Result<(), Problem> {
        // Of what is forgotten a consumer has nothing open but what it was not yet told is left out.
        let was_dropped = self.done_at(index).map_or(index < self.forgotten, |done| done.dropped);
        match self.open.get_mut(&index) {
            Some(given) if given.dropped => return Ok(()),
            // Left out by both at once: this side's word stands.
            None if was_dropped => return Ok(()),
            Some(given) if !given.answered && given.entry.name == what.name => given.drop(),
            _ => return Err(self.invalid("an entry is left out after it was answered")),
        }
        self.free_pieces(index);
        if !self.left_out.push(what.clone()) {
            return Err(self.invalid("more is left out than can be listed"));
        }
        self.events.push_back(ProviderEvent::LeftOut(index, what));
        self.advance();
        Ok(())
    }

    /// Adds up the entries from the first on that are done, and says when all of them are.
    pub(super) fn advance(&mut self) {
        while let Some(first) = self.open.first_entry() {
            if !first.get().is_done() {
                return;
            }
            let given = first.remove();
            self.attribute_bytes -= given.entry.attribute_bytes();
            let dropped = given.dropped || !has_chunks(&given.entry);
            self.done.push_back(Done { size: given.entry.size, revision: given.entry.revision, dropped });
            if self.done.len() as u64 > limits::ENTRIES_OPEN_MAX {
                self.done.pop_front();
                self.forgotten += 1;
            }
            if let (false, Some(list)) = (given.dropped, &mut self.list) {
                list.push(&given.entry);
            }
        }
        if self.ended && self.stage == Stage::Moving {
            let folder = self.offer.as_ref().is_none_or(|offer| offer.contract.is_none());
            self.totals = self.list.take().map(|list| {
                let mut totals = list.finish(folder);
                totals.counts.refused = self.left_out.len() as u64;
                totals
            });
            self.stage = Stage::Ready;
            self.events.push_back(ProviderEvent::Ready);
        }
    }

    /// What is done by itself makes room for other pieces, though an entry before it keeps it waiting: so the consumer
    /// counts them.
    pub(super) fn free_pieces(&mut self, index: u64) {
        if let Some(given) = self.open.get_mut(&index).filter(|given| given.is_done()) {
            self.pieces -= std::mem::take(&mut given.pieces);
        }
    }
}

impl Given {
    fn is_done(&self) -> bool {
        self.dropped || (self.answered && self.may_be_complete())
    }
    /// The consumer may have all of it, and cannot give it back: sealed, and nothing wanted is unsent.
    fn may_be_complete(&self) -> bool {
        self.sealed && self.unsent == 0
    }
    fn drop(&mut self) {
        self.dropped = true;
        self.unsent = 0;
    }
}

fn has_chunks(entry: &Entry) -> bool {
    matches!(entry.kind, EntryKind::File | EntryKind::Split(_))
}

fn layout_of(entry: &Entry) -> Result<Layout, Problem> {
    Layout::new(if has_chunks(entry) { entry.size } else { 0 }).map_err(inside)
}

/// Frames that wait for the line before no more entries are listed.
const FRAMES_WAITING_MAX: usize = 16;
