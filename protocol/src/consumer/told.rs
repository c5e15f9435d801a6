//! What the provider says, frame by frame: taken where it may be, and an error where it may not.

use super::open::{Open, OpenState, has_chunks};
use super::{Consumer, ConsumerEvent, Stage};
use crate::format::Format;
use crate::frame::{EntriesEnd, Handover, Offer, Omission};
use crate::limits;
use crate::manifest::{Entry, EntryKind, EntryName, LeftOut, check_attributes, follows};
use crate::problem::{Code, Problem};

impl Consumer {
    pub(super) fn offered(&mut self, offer: Offer) -> Result<(), Problem> {
        if self.stage != Stage::Requested {
            return Err(self.invalid("a second offer"));
        }
        if self.request.transfer != offer.transfer {
            return Err(self.invalid("the offer is for another transfer"));
        }
        if offer.data_channels == 0 || offer.data_channels > limits::DATA_CHANNELS_MAX {
            return Err(self.invalid("the offer has no channels, or too many"));
        }
        if let Some(native) = &offer.native {
            let items = offer.contract.as_ref().map_or(0, |contract| contract.items.len());
            if native.columns.len() != items
                || native.columns.iter().any(|column| column.len() > limits::NATIVE_BYTES_MAX)
            {
                return Err(self.invalid("the offer's columns in the engine's own form are not those of its contract"));
            }
            native.format(&Format::known(self.request.formats.as_deref().unwrap_or_default()))?;
        }
        self.stage = Stage::Offered;
        self.offer = Some(offer.clone());
        self.events.push_back(ConsumerEvent::Offered(Box::new(offer)));
        Ok(())
    }

    pub(super) fn entry(&mut self, entry: Entry) -> Result<(), Problem> {
        if self.stage != Stage::Moving || entry.index > self.listed {
            return Err(self.out_of_turn("an entry"));
        }
        if entry.index < self.listed {
            return Err(self.invalid("an entry is listed twice"));
        }
        let is_full = self.listed >= limits::ENTRIES_MAX || self.listed - self.finished >= limits::ENTRIES_OPEN_MAX;
        if is_full || self.end_reached() {
            return Err(self.invalid("more entries are listed than may be"));
        }
        self.check_entry(&entry)?;
        if !matches!(entry.kind, EntryKind::Split(_)) {
            if entry.index > 0 && !follows(&entry.name, &self.last) {
                let name = String::from_utf8_lossy(&entry.name);
                return Err(Problem::new(Code::ListedTwice).with("name", name).with("peer", &self.provider));
            }
            self.last.clone_from(&entry.name);
        }
        let index = entry.index;
        let mut open = Open::new(entry).map_err(|e| self.invalid(e))?;
        // A root that comes with the listing of an empty entry or a link is checked where it is cheapest.
        if open.known.layout().chunks() == 0 {
            let content: &[u8] = if let EntryKind::Link(text) = &open.entry.kind { text } else { b"" };
            let expected = Some(*blake3::hash(content).as_bytes());
            let directory = open.entry.kind == EntryKind::Directory;
            let given = open.entry.root.map(|root| *root);
            if given != (if directory { None } else { expected }) && (given.is_some() || !has_chunks(&open.entry)) {
                return Err(self.invalid("an entry's root is not that of its content"));
            }
        }
        self.attribute_bytes = self.attributes_within(0, &open.entry)?;
        self.listed += 1;
        let is_table = matches!(open.entry.kind, EntryKind::Split(_));
        // The folder itself is a directory named `.`; no other kind may have that name.
        let is_top = open.entry.kind == EntryKind::Directory && open.entry.name == b".";
        let bad_name = if is_table || is_top { None } else { EntryName::parse(&open.entry.name).err() };
        match bad_name {
            None => {
                self.events.push_back(ConsumerEvent::Entry(open.entry.clone()));
                self.open.insert(index, open);
            }
            Some(why) => {
                let name = open.entry.name.clone();
                open.answered = true;
                self.open.insert(index, open);
                let what = LeftOut { name, code: Code::NameRefused as u16, reason: why.to_string() };
                self.leave_out_open(index, what)?;
            }
        }
        Ok(())
    }

    fn check_entry(&self, entry: &Entry) -> Result<(), Problem> {
        let table = self.offer.as_ref().is_some_and(|offer| offer.contract.is_some());
        let bad = match &entry.kind {
            EntryKind::Split(_) if !table => Some("a split in a folder"),
            EntryKind::File | EntryKind::Directory | EntryKind::Link(_) if table => Some("a file in a table"),
            EntryKind::Directory if entry.size != 0 => Some("a directory has a size"),
            EntryKind::Link(text) if text.is_empty() || text.len() > limits::LINK_BYTES_MAX => Some("a link's length"),
            EntryKind::Link(text) if text.len() as u64 != entry.size => Some("a link's size is not that of its text"),
            _ if entry.same_as.is_some_and(|first| first > entry.index || entry.kind != EntryKind::File) => {
                Some("it is another name of what is no file before it")
            }
            _ if entry.mode & !0o7777 != 0 => Some("a mode with unknown bits"),
            _ if entry.name.is_empty() || entry.name.len() > limits::FRAME_FILL_BYTES => Some("a name's length"),
            _ => None,
        };
        if let Some(what) = bad {
            return Err(self.invalid(format_args!("entry {}: {what}", entry.index)));
        }
        check_attributes(entry).map_err(|what| self.invalid(format_args!("entry {}: {what}", entry.index)))
    }

    /// What the attributes of open entries take with those of this one, in place of an entry that had so many.
    fn attributes_within(&self, before: usize, entry: &Entry) -> Result<usize, Problem> {
        let bytes = self.attribute_bytes.saturating_sub(before) + entry.attribute_bytes();
        if bytes > limits::ATTRIBUTES_OPEN_BYTES_MAX {
            return Err(self.invalid("more attributes are listed ahead than may be"));
        }
        Ok(bytes)
    }

    pub(super) fn sealed(&mut self, entry: Entry) -> Result<(), Problem> {
        if self.stage != Stage::Moving || entry.index >= self.listed {
            return Err(self.out_of_turn("a sealed entry"));
        }
        // One that this side left out may be forgotten before the provider knows.
        let Some(open) = self.open.get_mut(&entry.index) else { return Ok(()) };
        let same = (&entry.name, &entry.kind, entry.same_as, &entry.attributes)
            == (&open.entry.name, &open.entry.kind, open.entry.same_as, &open.entry.attributes)
            && entry.root.is_some();
        if open.state == OpenState::Dropped || entry.revision < open.entry.revision || (open.entry == entry) {
            return Ok(());
        }
        if entry.revision > open.entry.revision {
            return Err(self.out_of_turn("a sealed entry of a later revision"));
        }
        if !same || open.entry.root.is_some() || entry.size != open.entry.size || entry.mode & !0o7777 != 0 {
            return Err(self.invalid(format_args!("entry {} is sealed as another", entry.index)));
        }
        let index = entry.index;
        open.entry = entry;
        self.settle_entry(index)?;
        Ok(())
    }

    pub(super) fn again(&mut self, entry: Entry) -> Result<(), Problem> {
        if self.stage != Stage::Moving || entry.index >= self.listed {
            return Err(self.out_of_turn("Again"));
        }
        let index = entry.index;
        let state = self.open.get(&index).map(|open| (open.state, open.entry.revision));
        match state {
            // Left out by this side before the provider knew.
            None | Some((OpenState::Dropped, _)) => return Ok(()),
            Some((OpenState::Complete, _)) => {
                return Err(self.invalid(format_args!("entry {index} is complete and cannot be read again")));
            }
            Some((_, revision)) if entry.revision <= revision => {
                return Err(self.invalid("an entry is read again under no higher revision"));
            }
            Some(_) => {}
        }
        self.check_entry(&entry)?;
        let invalid = self.invalid(format_args!("entry {index} is read again as another"));
        let before = self.open.get(&index).map_or(0, |open| open.entry.attribute_bytes());
        let attribute_bytes = self.attributes_within(before, &entry)?;
        let Some(open) = self.open.get_mut(&index) else { return Err(invalid) };
        let same = open.entry.name == entry.name && has_chunks(&entry) && has_chunks(&open.entry);
        if !same || std::mem::discriminant(&open.entry.kind) != std::mem::discriminant(&entry.kind) {
            return Err(invalid);
        }
        open.entry = entry;
        self.attribute_bytes = attribute_bytes;
        if open.forget().is_err() {
            return Err(invalid);
        }
        if open.state == OpenState::Moving {
            // Answered or not, it is answered for the new state.
            open.answered = false;
            self.events.push_back(ConsumerEvent::Again(open.entry.clone()));
        }
        self.settle_entry(index)?;
        Ok(())
    }

    pub(super) fn entries_end(&mut self, end: EntriesEnd) -> Result<(), Problem> {
        if self.stage != Stage::Moving || end.entries != self.listed || self.end.is_some() {
            return Err(self.invalid("the end of the entries is not where they end"));
        }
        self.end = Some(end);
        self.finish_if_all()?;
        Ok(())
    }

    pub(super) fn left_out_by_peer(&mut self, omission: Omission) -> Result<(), Problem> {
        if self.stage != Stage::Moving || omission.entry.is_some_and(|index| index >= self.listed) {
            return Err(self.out_of_turn("LeftOut"));
        }
        let mut drops = None;
        if let Some(index) = omission.entry {
            match self.open.get_mut(&index) {
                // Rows would be missing from the table, and nobody could say which.
                Some(open) if matches!(open.entry.kind, EntryKind::Split(_)) => {
                    return Err(self.mismatch(format_args!("it leaves out split {index}, which it listed")));
                }
                Some(open) if open.state == OpenState::Complete || open.entry.name != omission.what.name => {
                    return Err(self.invalid(format_args!("entry {index} cannot be left out any more")));
                }
                // Both sides left it out at the same time: the provider's reason stands in both lists.
                Some(open) if open.state == OpenState::Dropped => self.left_out.remove(&omission.what.name),
                Some(open) => {
                    open.state = OpenState::Dropped;
                    drops = Some(index);
                }
                None if self.left_out.contains(&omission.what.name) => self.left_out.remove(&omission.what.name),
                None => return Err(self.invalid(format_args!("entry {index} cannot be left out any more"))),
            }
        } else if self.left_out.contains(&omission.what.name) {
            return Ok(());
        }
        if !self.left_out.push(omission.what.clone()) {
            return Err(self.invalid("more is left out than can be listed"));
        }
        self.events.push_back(ConsumerEvent::LeftOut(drops, omission.what));
        self.advance()?;
        Ok(())
    }

    pub(super) fn handed_over(&mut self, handover: Handover) -> Result<(), Problem> {
        if handover.statement.is_empty() || handover.statement.len() > limits::STATEMENT_BYTES_MAX {
            return Err(self.invalid("the handover's statement has no proper length"));
        }
        if self.request.committed {
            // This side has committed to it before; only the statements are exchanged.
            return Ok(());
        }
        if self.stage != Stage::Moving || self.end.is_none() || self.handover.is_some() {
            return Err(self.out_of_turn("Handover"));
        }
        self.handover = Some(handover);
        self.finish_if_all()?;
        Ok(())
    }

    pub(super) fn settled(&mut self, sha256: [u8; 32]) -> Result<(), Problem> {
        if self.landed_sha256 != Some(sha256) {
            return Err(self.invalid("the provider settles a statement that is not this side's"));
        }
        self.stage = Stage::Settled;
        self.events.push_back(ConsumerEvent::Settled);
        Ok(())
    }
}
