//! What the caller decides: to accept or refuse, what it has, what it cannot take, that it committed, that it failed.

use super::open::{Have, OpenState};
use super::{Consumer, ConsumerEvent, Stage};
use crate::codec;
use crate::delta::{Cut, PIECE_WIRE_BYTES};
use crate::frame::{Accept, Frame, Omission, Pieces, Refused};
use crate::limits;
use crate::manifest::{Entry, LeftOut, Manifest};
use crate::problem::{Code, Problem};

impl Consumer {
    /// Takes the offer; `credit` bounds the bytes in flight, usually `limits::CREDIT_BYTES`.
    pub fn accept(&mut self, data_channels: u8, credit: u64) -> Result<(), Problem> {
        self.require(Stage::Offered, "accept")?;
        self.stage = Stage::Moving;
        self.credit_open = credit;
        self.out.push(Frame::Accept(Accept { data_channels, credit }));
        Ok(())
    }

    /// Answers an entry. `entry` is the one of the event: what is had of a state that is over counts for nothing.
    pub fn have(&mut self, entry: &Entry, have: Have) -> Result<(), Problem> {
        let Some(open) = self.open.get_mut(&entry.index) else { return Ok(()) };
        if open.answered || open.state != OpenState::Moving {
            return Ok(());
        }
        open.answer(if entry.revision == open.entry.revision { have } else { Have::Nothing });
        self.out.want(open.want());
        self.settle_entry(entry.index)
    }

    /// Tells the pieces of content here that may be in an entry, before it is answered: of its chunks only what differs
    /// then comes, to be put together with that content. Only to a peer that names `DELTA` among its features.
    pub fn pieces(&mut self, entry: &Entry, cut: Cut, pieces: &[u8]) {
        let is_awaited = self.open.get(&entry.index).is_some_and(|open| {
            !open.answered && open.state == OpenState::Moving && open.entry.revision == entry.revision
        });
        if is_awaited {
            for part in pieces.chunks(PIECES_PER_FRAME * PIECE_WIRE_BYTES) {
                self.push_pieces(entry, cut, part);
            }
        }
    }

    /// The content that was told of by `pieces` has changed, or is gone.
    pub fn no_pieces(&mut self, entry: &Entry, cut: Cut) {
        if self.stage == Stage::Moving {
            self.push_pieces(entry, cut, &[]);
        }
    }

    fn push_pieces(&mut self, entry: &Entry, cut: Cut, pieces: &[u8]) {
        let (entry, revision, mean) = (entry.index, entry.revision, cut.mean());
        self.out.push(Frame::Pieces(Pieces { entry, revision, mean, pieces: pieces.to_vec().into() }));
    }

    /// Answers an entry that cannot be landed here: both sides then leave it out, by name.
    pub fn leave_out(&mut self, entry: &Entry, what: LeftOut) -> Result<(), Problem> {
        match self.open.get_mut(&entry.index) {
            Some(open) if !open.answered && open.state == OpenState::Moving => open.answered = true,
            _ => return Err(inside("an entry is left out after it was answered")),
        }
        self.leave_out_open(entry.index, what)
    }

    /// Gives back the credit of chunks that are durable (the sum of `ChunkMeta::credit`).
    pub fn durable(&mut self, credit: u64) {
        self.credit_back += credit;
    }

    /// The split is in the destination, for good: the provider need not keep it for this side.
    pub fn kept(&mut self, index: u64) {
        if matches!(self.stage, Stage::Moving | Stage::HandedOver) && index < self.listed {
            self.out.kept(index);
        }
    }

    /// Compares the manifest of the handover, whose signature was verified, with what this side verified itself.
    pub fn check(&mut self, manifest: &Manifest) -> Result<(), Problem> {
        self.require(Stage::HandedOver, "check")?;
        let Some(ours) = &self.totals else { return Err(inside("there are no totals")) };
        let mut differs = Vec::new();
        let mut compare = |what: &'static str, same: bool| {
            if !same {
                differs.push(what);
            }
        };
        let request = &self.request;
        compare("transfer", manifest.transfer == request.transfer);
        compare("job", manifest.job == request.job);
        compare("mode", manifest.mode == request.mode);
        compare("write", manifest.write == request.write);
        compare("resource", manifest.resource.resource == request.resource);
        compare("watermark_from", manifest.watermark_from == request.watermark);
        compare("succeeds", manifest.succeeds == request.succeeds);
        if let Some(offer) = &self.offer {
            compare("transfer", manifest.transfer == offer.transfer);
            compare("grant", manifest.grant == offer.grant);
            compare("watermark_to", manifest.watermark_to == offer.watermark_to);
            let contract = offer.contract.as_ref().map(|contract| contract.sha256());
            compare("governed", manifest.governed == offer.governed);
            compare("contract", manifest.contract_sha256.map(|sha256| *sha256) == contract);
        }
        compare("provider", manifest.provider == self.provider && manifest.resource.node == self.provider);
        compare("entries", manifest.entries == ours.entries);
        compare("content_root", *manifest.content_root == ours.content_root);
        compare("entries_sha256", *manifest.entries_sha256 == ours.entries_sha256);
        compare("files_b3_sha256", manifest.files_b3_sha256.map(|sha256| *sha256) == ours.files_b3_sha256);
        compare("left_out", manifest.left_out_sha256.map(|sha256| *sha256) == self.left_out.sha256());
        compare("left_out", manifest.left_out == self.left_out.listed());
        let mut counts = ours.counts;
        counts.refused = self.left_out.len() as u64;
        compare("counts", manifest.counts == counts);
        // Whatever was handed over was looked at by all rules; what could not be read, or was filtered, was not.
        let looked_at = counts.rows_sent..=counts.rows_read.saturating_sub(counts.rows_filtered);
        compare("quality", manifest.quality.as_ref().is_none_or(|quality| quality.is_of(looked_at)));
        if differs.is_empty() {
            self.stage = Stage::Checked;
            return Ok(());
        }
        Err(self.mismatch(format_args!("the manifest differs in {}", differs.join(", "))))
    }

    /// Sends this side's statement, signed after the durable commit of what was checked.
    pub fn landed(&mut self, statement: Vec<u8>) -> Result<(), Problem> {
        self.require(Stage::Checked, "landed")?;
        self.send_landed(statement);
        Ok(())
    }

    /// Does not take it: the offer, or what came of it. The provider answers with its own statement.
    pub fn refuse(&mut self, refusal: Refused) {
        self.end(Frame::Refused(refusal));
    }
    /// Cannot go on.
    pub fn fail(&mut self, failure: Refused) {
        self.end(Frame::Failed(failure));
    }
    /// This side's own statement on the provider's refusal or failure; it may be empty.
    pub fn noted(&mut self, statement: Vec<u8>) {
        if self.stage == Stage::Ending {
            self.out.push(Frame::Noted(statement.into()));
            self.stage = Stage::Ended;
        }
    }

    pub(super) fn send_landed(&mut self, statement: Vec<u8>) {
        self.landed_sha256 = Some(codec::sha256(&statement));
        self.stage = Stage::Landed;
        self.out.push(Frame::Landed(statement.into()));
    }

    pub(super) fn leave_out_open(&mut self, index: u64, what: LeftOut) -> Result<(), Problem> {
        let Some(open) = self.open.get_mut(&index) else { return Ok(()) };
        open.state = OpenState::Dropped;
        self.out.omission(Omission { entry: Some(index), what: what.clone() });
        if !self.left_out.push(what.clone()) {
            return Err(self.invalid("more is left out than can be listed"));
        }
        self.events.push_back(ConsumerEvent::LeftOut(Some(index), what));
        self.settle_entry(index)?;
        self.advance()
    }

    pub(super) fn ended(&mut self, ending: Refused, event: fn(Refused) -> ConsumerEvent) -> Result<(), Problem> {
        if ending.statement.len() > limits::STATEMENT_BYTES_MAX {
            return Err(self.invalid("a statement that is too long"));
        }
        if matches!(self.stage, Stage::Settled | Stage::Ended) {
            return Ok(());
        }
        self.stage = Stage::Ending;
        self.out.clear();
        self.events.push_back(event(ending));
        Ok(())
    }

    pub(super) fn noted_by_peer(&mut self, statement: Vec<u8>) -> Result<(), Problem> {
        if statement.len() > limits::STATEMENT_BYTES_MAX {
            return Err(self.invalid("a statement that is too long"));
        }
        if self.stage == Stage::Ending {
            self.stage = Stage::Ended;
            self.events.push_back(ConsumerEvent::Noted(statement));
        }
        Ok(())
    }

    fn end(&mut self, frame: Frame) {
        if matches!(self.stage, Stage::Settled | Stage::Ended | Stage::Ending) {
            return;
        }
        self.stage = Stage::Ending;
        self.out.clear();
        self.out.push(frame);
    }

    fn require(&self, stage: Stage, verb: &str) -> Result<(), Problem> {
        if self.stage == stage {
            return Ok(());
        }
        Err(inside(format_args!("`{verb}` in the consumer's stage {:?}", self.stage)))
    }
}

fn inside(cause: impl std::fmt::Display) -> Problem {
    Problem::new(Code::InsideFailed).cause(cause)
}

/// What one frame tells of them: little enough that others need not wait long behind it.
const PIECES_PER_FRAME: usize = (32 << 10) / PIECE_WIRE_BYTES;
