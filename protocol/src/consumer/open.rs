//! One entry between its listing and its end: what is known of its chunks, and what is still missing.

use crate::chunk::{ChunkError, Layout, Subtrees};
use crate::frame::Want;
use crate::limits;
use crate::manifest::{Entry, EntryKind};

/// What a consumer has of an entry already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Have {
    Nothing,
    /// All of it, with this root; it is compared with the provider's once that is known.
    Whole([u8; 32]),
    /// Chunks that are durable, with their values.
    Chunks(Vec<(u32, [u8; 32])>),
}

pub(super) struct Open {
    pub(super) entry: Entry,
    pub(super) known: Subtrees,
    pub(super) answered: bool,
    /// The consumer says that it has all of it, with this root.
    pub(super) whole: Option<[u8; 32]>,
    pub(super) state: OpenState,
    pub(super) tries: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OpenState {
    Moving,
    Complete,
    /// Out of the list: waits only for its turn to be forgotten.
    Dropped,
}

/// Whether an entry has all it needs.
pub(super) enum Standing {
    Waits,
    Complete,
    /// What is there does not add up to the root: all of it is asked anew.
    Differs,
}

impl Open {
    pub(super) fn new(entry: Entry) -> Result<Self, ChunkError> {
        let known = Subtrees::new(Layout::new(if has_chunks(&entry) { entry.size } else { 0 })?);
        Ok(Self { entry, known, answered: false, whole: None, state: OpenState::Moving, tries: 0 })
    }

    pub(super) fn answer(&mut self, have: Have) {
        self.answered = true;
        match have {
            Have::Nothing => {}
            Have::Whole(root) if self.entry.root.is_none_or(|theirs| *theirs == root) => self.whole = Some(root),
            Have::Whole(_) => {}
            Have::Chunks(chunks) => {
                for (chunk, value) in chunks {
                    self.known.insert(chunk, value);
                }
            }
        }
    }

    /// Drops everything known of its content.
    pub(super) fn forget(&mut self) -> Result<(), ChunkError> {
        self.known = Subtrees::new(Layout::new(self.entry.size)?);
        self.whole = None;
        Ok(())
    }

    /// What it lacks now; the last range is widened where there would be too many.
    pub(super) fn want(&self) -> Want {
        let mut chunks = if self.whole.is_some() { Vec::new() } else { self.known.missing() };
        if chunks.len() > limits::WANT_RANGES_MAX {
            chunks.truncate(limits::WANT_RANGES_MAX);
            if let Some(last) = chunks.last_mut() {
                last.1 = self.known.layout().chunks();
            }
        }
        Want { entry: self.entry.index, revision: self.entry.revision, chunks }
    }

    pub(super) fn standing(&self) -> Standing {
        match self.state {
            OpenState::Complete | OpenState::Dropped => return Standing::Waits,
            OpenState::Moving if !self.answered => return Standing::Waits,
            OpenState::Moving if !has_chunks(&self.entry) => return Standing::Complete,
            OpenState::Moving => {}
        }
        let Some(root) = self.entry.root.map(|root| *root) else { return Standing::Waits };
        match (self.whole, self.known.root()) {
            (Some(whole), _) if whole == root => Standing::Complete,
            (Some(_), _) => Standing::Differs,
            (None, None) => Standing::Waits,
            (None, Some(known)) if known == root => Standing::Complete,
            (None, Some(_)) => Standing::Differs,
        }
    }
}

pub(super) fn has_chunks(entry: &Entry) -> bool {
    matches!(entry.kind, EntryKind::File | EntryKind::Split(_))
}
