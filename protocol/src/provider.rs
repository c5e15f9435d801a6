//! State machine of the side that gives: entries as they are found, chunks as they are wanted and within
//! credit, the manifest last. After each input drain every output; `now` is any steadily rising clock.
//! It asks for `Ready` only when every entry was answered, sealed and sent, so that the manifest made then is final.
//! Reading, hashing, grants and signatures are the caller's.

mod entries;

use crate::chunk::{Layout, credit};
use crate::frame::{Accept, Frame, Handover, Offer, Omission, Pieces, Refused, Request, Want};
use crate::id::NodeId;
use crate::limits;
use crate::manifest::{EntryList, EntryTotals, LeftOut, LeftOuts};
use crate::outgoing::{Beat, Outgoing, Pulse};
use crate::problem::{Code, Problem};
use crate::time::Timestamp;
use entries::{Done, Given};
use std::collections::{BTreeMap, VecDeque};

/// What the caller has to do or to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProviderEvent {
    /// Answer by `offer` or `refuse`. If it says `committed`, wait for `Landed` instead.
    Requested(Box<Request>),
    /// List the entries now, as `room` allows.
    Accepted(Accept),
    /// Content at the consumer that may be in an entry, before `Wanted` of it; without pieces, not any more.
    Pieces(Pieces),
    /// The first answer for this state of an entry: how many of its chunks are wanted. One that is not sealed is
    /// to be read to its end all the same.
    Wanted {
        entry: u64,
        revision: u32,
        chunks: u32,
    },
    /// The consumer cannot land it: it is out of the list and need not be read.
    LeftOut(u64, LeftOut),
    /// These splits are in the consumer's destination: nothing of them is asked for again.
    Kept(Vec<u64>),
    /// Every entry is answered, sealed and sent: make the manifest of `totals` and `left_out`, sign, `handover`.
    Ready,
    /// The consumer's statement: verify and store it, then `settled`.
    Landed(Vec<u8>),
    /// The consumer ends it: keep its statement, answer by `noted`.
    Refused(Refused),
    Failed(Refused),
    /// The consumer's answer to this side's `refuse` or `fail`: its own statement, perhaps empty.
    Noted(Vec<u8>),
    /// The consumer has been silent for too long.
    Lost,
}

/// A chunk to be read, packed and sent on a data channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendChunk {
    pub entry: u64,
    pub revision: u32,
    pub chunk: u32,
    pub layout: Layout,
    /// It was sent before on this line.
    pub again: bool,
}

/// Whether a chunk that is at hand is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    Now(SendChunk),
    /// Its entry is not listed or not answered yet, or there is no credit for it.
    NotYet,
    /// The consumer has it, or its file was read again.
    Never,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    pub chunks: u64,
    pub resent_chunks: u64,
    pub bytes: u64,
}

pub struct Provider {
    consumer: NodeId,
    stage: Stage,
    request: Option<Request>,
    offer: Option<Offer>,
    open: BTreeMap<u64, Given>,
    /// Entries below the first open one: the last of them, as many as a consumer may have open.
    done: VecDeque<Done>,
    /// How many there were before those.
    forgotten: u64,
    ended: bool,
    bytes_listed: u64,
    list: Option<EntryList>,
    left_out: LeftOuts,
    totals: Option<EntryTotals>,
    queue: VecDeque<Ask>,
    /// Pieces that were told of entries that are not done.
    pieces: usize,
    /// What the attributes of entries take that are not done.
    attribute_bytes: usize,
    credit: u64,
    out: Outgoing,
    events: VecDeque<ProviderEvent>,
    pulse: Pulse,
    counters: Counters,
}

/// Chunks to send, half-open.
struct Ask {
    entry: u64,
    revision: u32,
    from: u32,
    to: u32,
    again: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Idle,
    Requested,
    Offered,
    Moving,
    Ready,
    HandedOver,
    Landed,
    Settled,
    /// Refused or failed by one of the sides; the statements are exchanged.
    Ending,
    Ended,
}

impl Provider {
    pub fn new(consumer: NodeId, now: Timestamp) -> Self {
        Self {
            consumer,
            stage: Stage::Idle,
            request: None,
            offer: None,
            open: BTreeMap::new(),
            done: VecDeque::new(),
            forgotten: 0,
            ended: false,
            bytes_listed: 0,
            list: Some(EntryList::default()),
            left_out: LeftOuts::default(),
            totals: None,
            queue: VecDeque::new(),
            pieces: 0,
            attribute_bytes: 0,
            credit: 0,
            out: Outgoing::default(),
            events: VecDeque::new(),
            pulse: Pulse::new(now),
            counters: Counters::default(),
        }
    }

    pub fn handle_frame(&mut self, frame: Frame, now: Timestamp) -> Result<(), Problem> {
        self.pulse.heard(now);
        match frame {
            Frame::Ping(token) => {
                self.out.push(Frame::Pong(token));
                return Ok(());
            }
            Frame::Pong(_) => return Ok(()),
            Frame::Refused(ending) => return self.end_by_peer(ending, ProviderEvent::Refused),
            Frame::Failed(ending) => return self.end_by_peer(ending, ProviderEvent::Failed),
            Frame::Noted(statement) => return self.noted_by_peer(statement.into()),
            // What was on its way when this side ended it.
            _ if self.stage >= Stage::Ending => return Ok(()),
            _ => {}
        }
        match frame {
            Frame::Request(request) => self.requested(request),
            Frame::Accept(accept) => self.accepted(accept),
            Frame::Want(wants) if wants.len() > limits::ENTRIES_PER_FRAME_MAX => {
                Err(self.invalid("a list longer than a frame may hold"))
            }
            Frame::Want(wants) => wants.into_iter().try_for_each(|want| self.wanted(want)),
            Frame::Pieces(pieces) => self.told_pieces(pieces),
            Frame::Credit(credit) => self.credited(credit),
            Frame::Kept(splits) => self.kept(splits),
            Frame::LeftOut(omissions) => omissions.into_iter().try_for_each(|what| self.left_out_by_peer(what)),
            Frame::Landed(statement) => self.landed(statement.into()),
            other => Err(self.invalid(format_args!("a provider is never sent {}", other.name()))),
        }
    }

    // ---- what the caller decides

    pub fn offer(&mut self, offer: Offer) -> Result<(), Problem> {
        self.require(Stage::Requested, "offer")?;
        self.offer = Some(offer.clone());
        self.out.push(Frame::Offer(offer));
        self.stage = Stage::Offered;
        Ok(())
    }
    /// The manifest, signed: after `Ready`, or stored from an earlier line of the same transfer.
    pub fn handover(&mut self, handover: Handover) -> Result<(), Problem> {
        self.require(Stage::Ready, "handover")?;
        self.out.push(Frame::Handover(handover));
        self.stage = Stage::HandedOver;
        Ok(())
    }
    /// The consumer's statement is stored: its SHA-256.
    pub fn settled(&mut self, sha256: [u8; 32]) -> Result<(), Problem> {
        self.require(Stage::Landed, "settled")?;
        self.out.push(Frame::Settled(sha256.into()));
        self.stage = Stage::Settled;
        Ok(())
    }
    /// Does not give it. The consumer answers with its own statement.
    pub fn refuse(&mut self, refusal: Refused) {
        self.end(Frame::Refused(refusal));
    }
    /// Cannot go on.
    pub fn fail(&mut self, failure: Refused) {
        self.end(Frame::Failed(failure));
    }
    /// This side's own statement on the consumer's refusal or failure; it may be empty.
    pub fn noted(&mut self, statement: Vec<u8>) {
        if self.stage == Stage::Ending {
            self.out.push(Frame::Noted(statement.into()));
            self.stage = Stage::Ended;
        }
    }

    // ---- what comes out

    pub fn poll_transmit(&mut self, _now: Timestamp) -> Option<Frame> {
        self.out.pop()
    }
    pub fn poll_event(&mut self) -> Option<ProviderEvent> {
        self.events.pop_front()
    }
    /// The next chunk to send, if one is wanted and there is credit; for whichever data channel is free.
    /// Handing out the last one makes the machine `Ready`: poll events after it.
    pub fn poll_send(&mut self) -> Option<SendChunk> {
        if self.stage < Stage::Moving || self.stage > Stage::HandedOver {
            return None;
        }
        loop {
            let ask = self.queue.front_mut()?;
            let (entry, revision, chunk, again) = (ask.entry, ask.revision, ask.from, ask.again);
            if ask.from >= ask.to {
                self.queue.pop_front();
                continue;
            }
            let Some(layout) = self.layout_of(entry, revision) else {
                // It was read again or left out meanwhile.
                self.queue.pop_front();
                continue;
            };
            self.credit = self.credit.checked_sub(credit(layout.bytes(chunk)))?;
            if let Some(ask) = self.queue.front_mut() {
                ask.from += 1;
                if ask.from >= ask.to {
                    self.queue.pop_front();
                }
            }
            let send = SendChunk { entry, revision, chunk, layout, again };
            self.handed_out(&send);
            return Some(send);
        }
    }
    /// As `poll_send`, where chunks come in an order of their own: whether this one is to be sent now.
    pub fn poll_this(&mut self, entry: u64, revision: u32, chunk: u32) -> Turn {
        let is_moving = (Stage::Moving..=Stage::HandedOver).contains(&self.stage);
        if !is_moving || !self.is_answered(entry) {
            return Turn::NotYet;
        }
        let wanted = |ask: &Ask| ask.entry == entry && ask.revision == revision && (ask.from..ask.to).contains(&chunk);
        let Some(at) = self.queue.iter().position(wanted) else { return Turn::Never };
        let Some(layout) = self.layout_of(entry, revision) else { return Turn::Never };
        let Some(left) = self.credit.checked_sub(credit(layout.bytes(chunk))) else { return Turn::NotYet };
        self.credit = left;
        let Some(ask) = self.queue.remove(at) else { return Turn::Never };
        let again = ask.again;
        // What is left of it, on either side, stays where it was.
        for (from, to) in [(chunk + 1, ask.to), (ask.from, chunk)] {
            if from < to {
                self.queue.insert(at, Ask { entry, revision, from, to, again });
            }
        }
        let send = SendChunk { entry, revision, chunk, layout, again };
        self.handed_out(&send);
        Turn::Now(send)
    }
    /// Whether something is wanted that was not handed out.
    pub fn has_wanted(&self) -> bool {
        !self.queue.is_empty()
    }
    fn handed_out(&mut self, send: &SendChunk) {
        self.counters.chunks += 1;
        self.counters.resent_chunks += u64::from(send.again);
        self.counters.bytes += u64::from(send.layout.bytes(send.chunk));
        if let Some(given) = self.open.get_mut(&send.entry).filter(|_| !send.again) {
            given.unsent = given.unsent.saturating_sub(1);
            if given.unsent == 0 {
                self.free_pieces(send.entry);
                self.advance();
            }
        }
    }
    /// A chunk that was handed out could not be read (its file changed or is gone): its credit is free again.
    /// To be followed by `again` or `left_out`.
    pub fn unsent(&mut self, send: &SendChunk) {
        self.credit = self.credit.saturating_add(credit(send.layout.bytes(send.chunk)));
    }
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        if self.is_done() { None } else { self.pulse.timeout() }
    }
    pub fn handle_timeout(&mut self, now: Timestamp) {
        match self.pulse.beat(now) {
            Beat::Ask => self.out.push(Frame::Ping(now.0.unsigned_abs())),
            Beat::Lost => self.events.push_back(ProviderEvent::Lost),
            Beat::Quiet => {}
        }
    }
    pub fn counters(&self) -> Counters {
        self.counters
    }
    pub fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Settled | Stage::Ended)
    }
    pub fn request(&self) -> Option<&Request> {
        self.request.as_ref()
    }
    /// From `Ready` on.
    pub fn totals(&self) -> Option<&EntryTotals> {
        self.totals.as_ref()
    }
    pub fn left_out_list(&self) -> &LeftOuts {
        &self.left_out
    }

    // ---- what the consumer says

    fn requested(&mut self, request: Request) -> Result<(), Problem> {
        if self.stage != Stage::Idle {
            return Err(self.invalid("a second request"));
        }
        self.stage = Stage::Requested;
        self.request = Some(request.clone());
        self.events.push_back(ProviderEvent::Requested(Box::new(request)));
        Ok(())
    }
    fn accepted(&mut self, accept: Accept) -> Result<(), Problem> {
        let offered = self.offer.as_ref().map_or(0, |offer| offer.data_channels);
        if self.stage != Stage::Offered || accept.data_channels == 0 || accept.data_channels > offered {
            return Err(self.invalid("an acceptance of something that was not offered"));
        }
        self.stage = Stage::Moving;
        self.credited(accept.credit)?;
        self.events.push_back(ProviderEvent::Accepted(accept));
        Ok(())
    }
    fn credited(&mut self, credit: u64) -> Result<(), Problem> {
        self.credit = self.credit.saturating_add(credit);
        if self.stage < Stage::Moving { Err(self.invalid("credit before acceptance")) } else { Ok(()) }
    }
    fn wanted(&mut self, want: Want) -> Result<(), Problem> {
        if !(Stage::Moving..=Stage::HandedOver).contains(&self.stage) {
            return Err(self.invalid("chunks are wanted out of turn"));
        }
        if want.chunks.len() > limits::WANT_RANGES_MAX
            || self.queue.len() + want.chunks.len() > limits::WANTED_RANGES_MAX
        {
            return Err(self.invalid("more is wanted than can be remembered"));
        }
        self.answer(want)
    }
    fn kept(&mut self, splits: Vec<u64>) -> Result<(), Problem> {
        let table = self.offer.as_ref().is_some_and(|offer| offer.contract.is_some());
        let listed = splits.iter().all(|index| *index < self.listed());
        if !table || !listed || splits.len() > limits::ENTRIES_PER_FRAME_MAX {
            return Err(self.invalid("something is kept that is no split of this transfer"));
        }
        self.events.push_back(ProviderEvent::Kept(splits));
        Ok(())
    }
    fn left_out_by_peer(&mut self, omission: Omission) -> Result<(), Problem> {
        let Some(index) = omission.entry.filter(|index| *index < self.listed()) else {
            return Err(self.invalid("something is left out that was not listed"));
        };
        self.drop_by_peer(index, omission.what)
    }
    fn landed(&mut self, statement: Vec<u8>) -> Result<(), Problem> {
        let committed = self.request.as_ref().is_some_and(|request| request.committed);
        let turn = self.stage == Stage::HandedOver || (committed && self.stage == Stage::Requested);
        if !turn || statement.is_empty() || statement.len() > limits::STATEMENT_BYTES_MAX {
            return Err(self.invalid("a landing out of turn, or of no proper length"));
        }
        self.stage = Stage::Landed;
        self.events.push_back(ProviderEvent::Landed(statement));
        Ok(())
    }
    fn end_by_peer(&mut self, ending: Refused, event: fn(Refused) -> ProviderEvent) -> Result<(), Problem> {
        if ending.statement.len() > limits::STATEMENT_BYTES_MAX {
            return Err(self.invalid("a statement that is too long"));
        }
        if !self.is_done() {
            self.stage = Stage::Ending;
            self.stop();
            self.events.push_back(event(ending));
        }
        Ok(())
    }
    fn noted_by_peer(&mut self, statement: Vec<u8>) -> Result<(), Problem> {
        if statement.len() > limits::STATEMENT_BYTES_MAX {
            return Err(self.invalid("a statement that is too long"));
        }
        if self.stage == Stage::Ending {
            self.stage = Stage::Ended;
            self.events.push_back(ProviderEvent::Noted(statement));
        }
        Ok(())
    }

    fn end(&mut self, frame: Frame) {
        if !matches!(self.stage, Stage::Settled | Stage::Ended | Stage::Ending) {
            self.stage = Stage::Ending;
            self.stop();
            self.out.push(frame);
        }
    }
    fn stop(&mut self) {
        self.out.clear();
        self.queue.clear();
        self.open.clear();
        self.attribute_bytes = 0;
    }
    fn require(&self, stage: Stage, verb: &str) -> Result<(), Problem> {
        if self.stage == stage {
            return Ok(());
        }
        Err(inside(format_args!("`{verb}` in the provider's stage {:?}", self.stage)))
    }
    fn invalid(&self, cause: impl std::fmt::Display) -> Problem {
        Problem::new(Code::FrameInvalid).with("peer", &self.consumer).cause(cause)
    }
}

fn inside(cause: impl std::fmt::Display) -> Problem {
    Problem::new(Code::InsideFailed).cause(cause)
}
