//! State machine of the side that takes: what is put in by `handle_*` and the verbs, what comes out by `poll_*`.
//! After each input drain every output. It believes nothing: entries in order and within bounds, each chunk
//! against its value, each entry against its root, all of them against the manifest; what is bad is asked again.
//! `now` is any steadily rising clock. Disk, line and signatures are the caller's; so are durability and its order.

mod answers;
mod chunks;
mod open;
mod told;

pub use chunks::{Expected, Verdict};
pub use open::Have;

use crate::chunk::Subtrees;
use crate::frame::{EntriesEnd, Frame, Handover, Offer, Refused, Request};
use crate::id::NodeId;
use crate::limits;
use crate::manifest::{Entry, EntryList, EntryTotals, LeftOut, LeftOuts};
use crate::outgoing::{Beat, Outgoing, Pulse};
use crate::problem::{Code, Problem};
use crate::time::Timestamp;
use open::{Open, OpenState, Standing};
use std::collections::{BTreeMap, VecDeque};

/// What the caller has to do or to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConsumerEvent {
    /// Answer by `accept` or `refuse`.
    Offered(Box<Offer>),
    /// Answer each by `have` or `leave_out`, in any order.
    Entry(Entry),
    /// Drop what was written of it. Where it changed at the provider it is to be answered anew, as an `Entry` is; where it did
    /// not add up it is asked anew by itself, and an answer counts for nothing.
    Again(Entry),
    /// All of it was verified; the entry is final, with its root.
    Complete(Entry),
    /// Not handed over, by either side's word; a listed entry of this number is to be dropped.
    LeftOut(Option<u64>, LeftOut),
    /// Every entry is complete and the provider has spoken. Verify the signature, then `check`, commit, `landed`.
    HandedOver(Handover),
    /// The provider has stored this side's statement.
    Settled,
    /// The provider ends it: keep its statement, answer by `noted`.
    Refused(Refused),
    Failed(Refused),
    /// The provider's answer to this side's `refuse` or `fail`: its own statement, perhaps empty.
    Noted(Vec<u8>),
    /// The provider has been silent for too long; resume over a new connection.
    Lost,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Verified and new.
    pub chunks: u64,
    /// Came although they were known.
    pub resent_chunks: u64,
    pub bad_chunks: u64,
    /// Could not be put together with what is here.
    pub bad_deltas: u64,
    /// Bodies on the wire, good or not.
    pub wire_bytes: u64,
    /// Content of verified new chunks.
    pub bytes: u64,
}

pub struct Consumer {
    provider: NodeId,
    stage: Stage,
    /// As it was sent.
    request: Request,
    offer: Option<Offer>,
    open: BTreeMap<u64, Open>,
    listed: u64,
    /// Entries below it are done with and forgotten.
    finished: u64,
    /// What the attributes of the open ones take.
    attribute_bytes: usize,
    list: Option<EntryList>,
    /// What a folder listed last: names ascend, so that none can come twice.
    last: Vec<u8>,
    left_out: LeftOuts,
    end: Option<EntriesEnd>,
    handover: Option<Handover>,
    totals: Option<EntryTotals>,
    landed_sha256: Option<[u8; 32]>,
    /// Granted to the provider and not yet used by it; used and to be granted again.
    credit_open: u64,
    credit_back: u64,
    out: Outgoing,
    events: VecDeque<ConsumerEvent>,
    pulse: Pulse,
    counters: Counters,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Requested,
    Offered,
    Moving,
    HandedOver,
    Checked,
    Landed,
    Settled,
    /// Refused or failed by one of the sides; the statements are exchanged.
    Ending,
    Ended,
}

impl Consumer {
    /// Takes, or goes on taking: a resumed transfer sends the same request again.
    pub fn new(request: Request, provider: NodeId, now: Timestamp) -> Self {
        let mut out = Outgoing::default();
        out.push(Frame::Request(request.clone()));
        Self {
            provider,
            stage: Stage::Requested,
            request,
            offer: None,
            open: BTreeMap::new(),
            listed: 0,
            finished: 0,
            attribute_bytes: 0,
            list: Some(EntryList::default()),
            last: Vec::new(),
            left_out: LeftOuts::default(),
            end: None,
            handover: None,
            totals: None,
            landed_sha256: None,
            credit_open: 0,
            credit_back: 0,
            out,
            events: VecDeque::new(),
            pulse: Pulse::new(now),
            counters: Counters::default(),
        }
    }
    /// Has committed before the line was lost: only the statements are exchanged.
    pub fn committed(mut request: Request, provider: NodeId, statement: Vec<u8>, now: Timestamp) -> Self {
        request.committed = true;
        let mut consumer = Self::new(request, provider, now);
        consumer.send_landed(statement);
        consumer
    }
    /// The request has gone ahead of everything else: it is not said again.
    pub fn after_request(mut self) -> Self {
        self.out.pop();
        self
    }
    pub fn handle_frame(&mut self, frame: Frame, now: Timestamp) -> Result<(), Problem> {
        self.pulse.heard(now);
        match frame {
            Frame::Ping(token) => {
                self.out.push(Frame::Pong(token));
                return Ok(());
            }
            Frame::Pong(_) => return Ok(()),
            Frame::Refused(ending) => return self.ended(ending, ConsumerEvent::Refused),
            Frame::Failed(ending) => return self.ended(ending, ConsumerEvent::Failed),
            Frame::Noted(statement) => return self.noted_by_peer(statement.into()),
            // What was on its way when this side ended it.
            _ if self.stage >= Stage::Ending => return Ok(()),
            _ => {}
        }
        match frame {
            Frame::Offer(offer) => self.offered(offer),
            Frame::Entries(entries) => self.each(entries, Self::entry),
            Frame::EntriesEnd(end) => self.entries_end(end),
            Frame::Sealed(entries) => self.each(entries, Self::sealed),
            Frame::Again(entry) => self.again(entry),
            Frame::LeftOut(omissions) => self.each(omissions, Self::left_out_by_peer),
            Frame::Handover(handover) => self.handed_over(handover),
            Frame::Settled(sha256) => self.settled(*sha256),
            other => Err(self.invalid(format_args!("a consumer is never sent {}", other.name()))),
        }
    }

    pub fn poll_transmit(&mut self, _now: Timestamp) -> Option<Frame> {
        // Less than this is never missed: the provider still has nearly all of what it was granted. It does not wait
        // behind long lists.
        if self.stage == Stage::Moving && self.credit_back >= CREDIT_STEP_BYTES {
            self.credit_open += self.credit_back;
            return Some(Frame::Credit(std::mem::take(&mut self.credit_back)));
        }
        self.out.pop()
    }
    pub fn poll_event(&mut self) -> Option<ConsumerEvent> {
        self.events.pop_front()
    }
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        if self.is_done() { None } else { self.pulse.timeout() }
    }
    pub fn handle_timeout(&mut self, now: Timestamp) {
        match self.pulse.beat(now) {
            Beat::Ask => self.out.push(Frame::Ping(now.0.unsigned_abs())),
            Beat::Lost => self.events.push_back(ConsumerEvent::Lost),
            Beat::Quiet => {}
        }
    }

    /// Asks the provider for a sign of life, before its silence has become long.
    pub fn ask(&mut self, now: Timestamp) {
        if !self.is_done() {
            self.out.push(Frame::Ping(now.0.unsigned_abs()));
        }
    }
    /// Whether something is still to come before the handover.
    pub fn is_moving(&self) -> bool {
        self.stage == Stage::Moving && (self.end.is_none() || !self.open.is_empty())
    }
    /// Whether an entry is to be answered by `have` or `leave_out`.
    pub fn awaits_answer(&self, index: u64) -> bool {
        self.open.get(&index).is_some_and(|open| !open.answered && open.state == OpenState::Moving)
    }
    /// Whether the provider may send, as far as this side's credit goes.
    pub fn has_credit_open(&self) -> bool {
        self.credit_open > u64::from(limits::CHUNK_BYTES_LARGE) + limits::CHUNK_CREDIT_OVERHEAD
    }
    /// Whether all that is still to come is on the line: the provider has handed over.
    pub fn is_all_sent(&self) -> bool {
        self.handover.is_some()
    }

    pub fn counters(&self) -> Counters {
        self.counters
    }
    /// Whether everything is said: once the frames are sent, the channel may be closed.
    pub fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Settled | Stage::Ended)
    }
    pub fn offer(&self) -> Option<&Offer> {
        self.offer.as_ref()
    }
    /// What the provider has listed so far, and in all once it has said so: entries and bytes.
    pub fn listed(&self) -> (u64, Option<&EntriesEnd>) {
        (self.listed, self.end.as_ref())
    }
    /// From `HandedOver` on: this side's own totals, made of what it verified.
    pub fn totals(&self) -> Option<&EntryTotals> {
        self.totals.as_ref()
    }
    /// What both sides agree to have left out.
    pub fn left_out(&self) -> &LeftOuts {
        &self.left_out
    }

    // ---- how an entry ends

    /// Looks whether an entry has all it needs now.
    fn settle_entry(&mut self, index: u64) -> Result<(), Problem> {
        let Some(open) = self.open.get_mut(&index) else { return Ok(()) };
        match open.standing() {
            Standing::Waits => return Ok(()),
            Standing::Complete => {
                if open.state == OpenState::Moving {
                    self.events.push_back(ConsumerEvent::Complete(open.entry.clone()));
                }
                open.state = OpenState::Complete;
                // Its subtrees are not needed any more, even while an earlier entry keeps it waiting.
                open.known = Subtrees::new(open.known.layout());
            }
            Standing::Differs => {
                open.tries += 1;
                let tries = open.tries;
                let forgot = open.forget();
                self.events.push_back(ConsumerEvent::Again(open.entry.clone()));
                self.out.want(open.want());
                let why = format!("entry {index} does not add up to its root after {tries} tries");
                if forgot.is_err() || tries >= limits::CHUNK_TRIES_MAX {
                    return Err(self.mismatch(why));
                }
                return Ok(());
            }
        }
        self.advance()
    }

    /// Forgets the entries from the first on that are done with, and adds them up.
    fn advance(&mut self) -> Result<(), Problem> {
        while let Some(first) = self.open.first_entry() {
            if *first.key() != self.finished {
                break;
            }
            let state = first.get().state;
            if state == OpenState::Moving {
                break;
            }
            let open = first.remove();
            self.attribute_bytes -= open.entry.attribute_bytes();
            if let (OpenState::Complete, Some(list)) = (state, &mut self.list) {
                list.push(&open.entry);
            }
            self.finished += 1;
        }
        self.finish_if_all()
    }

    fn end_reached(&self) -> bool {
        self.end.as_ref().is_some_and(|end| self.listed >= end.entries)
    }

    fn finish_if_all(&mut self) -> Result<(), Problem> {
        let done = self.end_reached() && self.finished == self.listed && self.stage == Stage::Moving;
        let (true, Some(end), Some(handover)) = (done, &self.end, &self.handover) else { return Ok(()) };
        if end.entries != self.listed {
            return Err(self.invalid("the end of the entries is not where they end"));
        }
        let folder = self.offer.as_ref().is_none_or(|offer| offer.contract.is_none());
        self.events.push_back(ConsumerEvent::HandedOver(handover.clone()));
        self.totals = self.list.take().map(|list| list.finish(folder));
        self.stage = Stage::HandedOver;
        Ok(())
    }

    // ---- problems

    fn each<T>(&mut self, items: Vec<T>, take: impl Fn(&mut Self, T) -> Result<(), Problem>) -> Result<(), Problem> {
        if items.len() > limits::ENTRIES_PER_FRAME_MAX {
            return Err(self.invalid("a list longer than a frame may hold"));
        }
        items.into_iter().try_for_each(|item| take(self, item))
    }
    fn out_of_turn(&self, what: &str) -> Problem {
        self.invalid(format_args!("{what} came out of turn"))
    }
    fn invalid(&self, cause: impl std::fmt::Display) -> Problem {
        Problem::new(Code::FrameInvalid).with("peer", &self.provider).cause(cause)
    }
    fn mismatch(&self, cause: impl std::fmt::Display) -> Problem {
        Problem::new(Code::Mismatch).with("peer", &self.provider).cause(cause)
    }
}

/// Credit goes back in steps of at least this much.
const CREDIT_STEP_BYTES: u64 = 1 << 20;
