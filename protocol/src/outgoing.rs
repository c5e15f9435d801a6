//! What a machine has to say, in order, with lists joined into as few frames as their bounds allow;
//! and the pulse that tells a silent peer from one that is gone.

use crate::frame::{Frame, Omission, Want};
use crate::limits;
use crate::manifest::Entry;
use crate::time::Timestamp;
use std::collections::VecDeque;

/// Frames to send. The last one grows while it is a list of the same kind with room.
#[derive(Default)]
pub(crate) struct Outgoing {
    frames: VecDeque<(Frame, usize)>,
}

impl Outgoing {
    pub(crate) fn push(&mut self, frame: Frame) {
        self.frames.push_back((frame, usize::MAX));
    }
    pub(crate) fn entry(&mut self, entry: Entry) {
        let bytes = entry.frame_bytes();
        match self.room(bytes) {
            Some(Frame::Entries(list)) => list.push(entry),
            _ => self.frames.push_back((Frame::Entries(vec![entry]), bytes)),
        }
    }
    pub(crate) fn sealed(&mut self, entry: Entry) {
        let bytes = entry.frame_bytes();
        match self.room(bytes) {
            Some(Frame::Sealed(list)) => list.push(entry),
            _ => self.frames.push_back((Frame::Sealed(vec![entry]), bytes)),
        }
    }
    pub(crate) fn omission(&mut self, omission: Omission) {
        let omission = Omission { entry: omission.entry, what: omission.what.bounded() };
        let bytes = omission.what.name.len() + omission.what.reason.len() + OVERHEAD_BYTES;
        match self.room(bytes) {
            Some(Frame::LeftOut(list)) => list.push(omission),
            _ => self.frames.push_back((Frame::LeftOut(vec![omission]), bytes)),
        }
    }
    pub(crate) fn want(&mut self, want: Want) {
        let bytes = want.chunks.len() * RANGE_BYTES + OVERHEAD_BYTES;
        match self.room(bytes) {
            Some(Frame::Want(list)) => list.push(want),
            _ => self.frames.push_back((Frame::Want(vec![want]), bytes)),
        }
    }
    pub(crate) fn kept(&mut self, index: u64) {
        match self.room(INDEX_BYTES) {
            Some(Frame::Kept(list)) => list.push(index),
            _ => self.frames.push_back((Frame::Kept(vec![index]), INDEX_BYTES)),
        }
    }
    pub(crate) fn pop(&mut self) -> Option<Frame> {
        self.frames.pop_front().map(|(frame, _)| frame)
    }
    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }
    pub(crate) fn clear(&mut self) {
        self.frames.clear();
    }

    /// The last frame, if `bytes` more fit into it; they are then counted. The caller looks at its kind,
    /// so a frame of another kind counts them too, which only closes it a little earlier.
    fn room(&mut self, bytes: usize) -> Option<&mut Frame> {
        let (frame, fill) = self.frames.back_mut()?;
        let items = match frame {
            Frame::Entries(list) | Frame::Sealed(list) => list.len(),
            Frame::Want(list) => list.len(),
            Frame::LeftOut(list) => list.len(),
            Frame::Kept(list) => list.len(),
            _ => return None,
        };
        if items >= limits::ENTRIES_PER_FRAME_MAX || fill.saturating_add(bytes) > limits::FRAME_FILL_BYTES {
            return None;
        }
        *fill += bytes;
        Some(frame)
    }
}

/// Hears and is heard: asks after a third of the idle limit, gives up after all of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pulse {
    heard: Timestamp,
    asked: Timestamp,
    lost: bool,
}

pub(crate) enum Beat {
    Quiet,
    Ask,
    Lost,
}

impl Pulse {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self { heard: now, asked: now, lost: false }
    }
    pub(crate) fn heard(&mut self, now: Timestamp) {
        self.heard = self.heard.max(now);
    }
    pub(crate) fn timeout(&self) -> Option<Timestamp> {
        (!self.lost).then(|| self.heard.plus_ms(IDLE_MS).min(self.asked.plus_ms(ASK_MS)))
    }
    pub(crate) fn beat(&mut self, now: Timestamp) -> Beat {
        if self.lost {
            return Beat::Quiet;
        }
        if now >= self.heard.plus_ms(IDLE_MS) {
            self.lost = true;
            return Beat::Lost;
        }
        if now >= self.asked.plus_ms(ASK_MS) {
            self.asked = now;
            return Beat::Ask;
        }
        Beat::Quiet
    }
}

const IDLE_MS: i64 = limits::IDLE_MS as i64;
const ASK_MS: i64 = IDLE_MS / 3;
/// Keys and numbers of one list element, generously.
const OVERHEAD_BYTES: usize = 192;
/// A pair of u32 in CBOR.
const RANGE_BYTES: usize = 11;
const INDEX_BYTES: usize = 9;
