//! The giving side of one transfer, for as long as one control channel lasts.
//! Every request passes the policy first, and the policy is looked at again whenever it changes and from time
//! to time: a grant withdrawn stops an open transfer. What was stated before is given again byte for byte.
//! Reading is `send`, extracting is `spooling`, signing is `settle`; what is said when is the machine's.

mod answer;
mod feed;

use super::attachments::Attachments;
use super::spooling::Spooling;
use super::{Answering, Registered, Stop, blocking, steady, until};
use crate::context::Context;
use crate::reconcile;
use crate::seal::{ManifestFacts, SealedManifest};
use crate::send::{self, Packed, Read, Sent, Supply};
use crate::settle::{self, Subject};
use crate::store::exchange::{self, Offered, Standing};
use crate::store::{Side, Transfer, statements, transfers};
use answer::Answer;
use feed::{Fed, Feed};
use posthouse_connectors::folder::{FileStat, left_out};
use posthouse_platform::endpoint::{Transport, Writer};
use posthouse_platform::frames::{FrameReader, FrameWriter};
use posthouse_protocol::frame::{Frame, Handover, Refused, Request};
use posthouse_protocol::id::{NodeId, TransferId};
use posthouse_protocol::job::{Mode, State};
use posthouse_protocol::manifest::{Entry, LeftOut};
use posthouse_protocol::policy::Permit;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::provider::{Provider, ProviderEvent, SendChunk};
use posthouse_protocol::statement::Statement;
use posthouse_protocol::time::Timestamp;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Who asks, and over what.
#[derive(Clone)]
pub(super) struct Caller {
    pub peer: NodeId,
    pub transfer: TransferId,
    pub transport: Transport,
    pub epoch: u64,
}

/// Serves one control channel to its end.
pub(super) async fn serve(ctx: Arc<Context>, caller: Caller, reader: FrameReader, writer: FrameWriter) {
    let (peer, transfer) = (caller.peer.clone(), caller.transfer.clone());
    let (frames_in, frames) = mpsc::channel(FRAMES);
    let (out, frames_out) = mpsc::channel(FRAMES);
    let reading = tokio::spawn(read_frames(reader, frames_in));
    let writing = tokio::spawn(write_frames(writer, frames_out));
    let machine = Provider::new(peer.clone(), steady(&ctx.world));
    let mut session = Session::new(ctx, caller, machine, frames, out);
    match session.run().await {
        Ok(()) => tracing::debug!(%peer, %transfer, "A session ended"),
        Err(problem) => tracing::info!(%peer, %transfer, %problem, "A session was lost"),
    }
    // A line that takes nothing more must not keep the session's place from the next one.
    let _ = tokio::time::timeout(CLOSING, session.drain()).await;
    drop(session);
    reading.abort();
    // What was said last still leaves.
    let _ = tokio::time::timeout(CLOSING, writing).await;
}

pub(super) async fn read_frames(mut reader: FrameReader, out: mpsc::Sender<Result<Frame, Problem>>) {
    loop {
        let next = match reader.next().await {
            Ok(Some(frame)) => Ok(frame),
            Ok(None) => return,
            Err(problem) => Err(problem),
        };
        let last = next.is_err();
        if out.send(next).await.is_err() || last {
            return;
        }
    }
}

pub(super) async fn write_frames(mut writer: FrameWriter, mut frames: mpsc::Receiver<Frame>) {
    while let Some(frame) = frames.recv().await {
        if writer.send(&frame).await.is_err() {
            // The reader notices that the line is gone.
            return;
        }
    }
    let _ = writer.finish().await;
}

struct Session {
    ctx: Arc<Context>,
    caller: Caller,
    machine: Provider,
    frames: mpsc::Receiver<Result<Frame, Problem>>,
    out: mpsc::Sender<Frame>,
    /// The line takes no more frames at the moment.
    blocked: bool,
    given: Option<Given>,
    /// Statements are being exchanged after an ending; then the session is over at this time.
    ending: Option<Timestamp>,
    /// Why it should end; it was handed over, so it does once the consumer has stated that it did not land.
    wished: Option<(Transfer, Problem)>,
}

/// What is known once a request was permitted and answered by an offer.
struct Given {
    row: Transfer,
    subject: Subject,
    permit: Permit,
    offered: Offered,
    registered: Registered,
    feed: Feed,
    supply: Arc<Supply>,
    spooling: Option<Arc<Spooling>>,
    attachments: Option<Attachments>,
    /// Files whose root is not known when they are listed, until they are sealed; and a few that were.
    open: BTreeMap<u64, Sending>,
    reading: usize,
    reads: mpsc::UnboundedReceiver<ReadDone>,
    read_done: mpsc::UnboundedSender<ReadDone>,
    unsent_bytes: u64,
    queue: mpsc::UnboundedSender<Vec<Packed>>,
    lanes: Lanes,
    sent: mpsc::UnboundedReceiver<Result<Sent, Problem>>,
    data: mpsc::Receiver<Writer>,
    hashes: Vec<(Vec<u8>, FileStat, [u8; 32])>,
    /// Entries as they stand in the list that is signed.
    finals: BTreeMap<u64, Entry>,
    /// Entries that are sealed and sent, kept a while: a chunk that came broken is asked again.
    recent: VecDeque<u64>,
    files_sent: u64,
    began: Duration,
    /// The consumer has accepted, and neither side has ended it.
    moving: bool,
}

/// What every data channel of the session is given.
struct Lanes {
    queue: Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<Vec<Packed>>>>,
    sent: mpsc::UnboundedSender<Result<Sent, Problem>>,
    open: u8,
}

struct Sending {
    entry: Entry,
    stat: Option<FileStat>,
    /// Chunks of the first answer that were not read yet; None before it came.
    left: Option<u32>,
    sealing: bool,
    /// It changed, and is being looked at again.
    looking: bool,
}

enum ReadDone {
    /// What came of the chunks that were to be read.
    Chunks {
        asked: Vec<SendChunk>,
        read: Vec<Read>,
    },
    Sealed {
        index: u64,
        revision: u32,
        root: Result<([u8; 32], Option<FileStat>), Problem>,
    },
    /// How a file that changed looks now.
    Looked {
        index: u64,
        now: Result<(Entry, FileStat), Problem>,
    },
}

/// What woke the session.
enum Woken {
    Frame(Option<Result<Frame, Problem>>),
    Stop(Stop),
    Drain,
    Policy,
    Data(Writer),
    Read(ReadDone),
    Sent(Result<Sent, Problem>),
    Fed(Result<Vec<Fed>, Problem>),
    Line,
    Time,
}

impl Session {
    fn new(
        ctx: Arc<Context>,
        caller: Caller,
        machine: Provider,
        frames: mpsc::Receiver<Result<Frame, Problem>>,
        out: mpsc::Sender<Frame>,
    ) -> Self {
        Self { ctx, caller, machine, frames, out, blocked: false, given: None, ending: None, wished: None }
    }

    async fn run(&mut self) -> Result<(), Problem> {
        let mut policy = self.ctx.authority.subscribe();
        let mut look = tokio::time::interval(POLICY_LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            if let Err(problem) = self.work().await {
                self.fail(problem).await?;
            }
            self.transmit();
            if self.machine.is_done() && !self.blocked {
                return Ok(());
            }
            let woken = self.wait(&mut policy, &mut look).await;
            if let Err(problem) = self.handle(woken).await? {
                self.fail(problem).await?;
            }
        }
    }

    /// Sends what is left to say when the session is over.
    async fn drain(&mut self) {
        while let Some(frame) = self.machine.poll_transmit(steady(&self.ctx.world)) {
            if self.out.send(frame).await.is_err() {
                return;
            }
        }
    }

    fn transmit(&mut self) {
        self.blocked = false;
        loop {
            let Ok(permit) = self.out.try_reserve() else {
                self.blocked = !self.out.is_closed();
                return;
            };
            match self.machine.poll_transmit(steady(&self.ctx.world)) {
                Some(frame) => permit.send(frame),
                None => return,
            }
        }
    }

    async fn wait(
        &mut self,
        policy: &mut tokio::sync::watch::Receiver<u64>,
        look: &mut tokio::time::Interval,
    ) -> Woken {
        let deadline = match (self.machine.poll_timeout(), self.ending) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let world = &self.ctx.world;
        let Some(given) = &mut self.given else {
            return tokio::select! {
                biased;
                () = self.ctx.drain.cancelled() => Woken::Drain,
                frame = self.frames.recv() => Woken::Frame(frame),
                _ = self.out.reserve(), if self.blocked => Woken::Line,
                () = until(world, deadline) => Woken::Time,
            };
        };
        let room = given.moving && self.machine.room() > 0;
        tokio::select! {
            biased;
            () = self.ctx.drain.cancelled() => Woken::Drain,
            _ = given.registered.stop.changed() => Woken::Stop(*given.registered.stop.borrow_and_update()),
            Ok(()) = policy.changed() => Woken::Policy,
            _ = look.tick() => Woken::Policy,
            frame = self.frames.recv() => Woken::Frame(frame),
            Some(writer) = given.data.recv() => Woken::Data(writer),
            Some(sent) = given.sent.recv() => Woken::Sent(sent),
            Some(read) = given.reads.recv() => Woken::Read(read),
            fed = given.feed.next(), if room && !given.feed.ended() => Woken::Fed(fed),
            _ = self.out.reserve(), if self.blocked => Woken::Line,
            () = until(world, deadline) => Woken::Time,
        }
    }

    /// The outer problem ends the session; the inner one, the transfer.
    async fn handle(&mut self, woken: Woken) -> Result<Result<(), Problem>, Problem> {
        let now = steady(&self.ctx.world);
        match woken {
            Woken::Frame(Some(Ok(frame))) => match self.machine.handle_frame(frame, now) {
                // A peer that breaks the rules is cut off; what it did before stands.
                Err(problem) if problem.code == Code::FrameInvalid => return Err(problem),
                other => return Ok(other),
            },
            Woken::Frame(Some(Err(problem))) => return Err(problem),
            Woken::Frame(None) => return Err(self.lost("the channel ended")),
            Woken::Drain => return Err(self.lost("this node stops")),
            Woken::Stop(Stop::Cancelled) => return Ok(Err(Problem::new(Code::Cancelled))),
            Woken::Stop(Stop::Superseded) => return Err(self.lost("a newer session took its place")),
            Woken::Stop(Stop::Paused) => return Err(self.lost("it was paused here")),
            Woken::Stop(Stop::No) | Woken::Line => {}
            Woken::Policy => return Ok(self.look_at_policy()),
            Woken::Data(writer) => self.data_channel(writer),
            Woken::Sent(sent) => {
                let sent = sent?;
                if let Some(given) = &mut self.given {
                    given.unsent_bytes = given.unsent_bytes.saturating_sub(sent.bytes);
                    given.row.bytes_sent += sent.wire_bytes;
                    given.row.chunks += sent.chunks;
                    let (bytes, row) = (sent.bytes, given.row.clone());
                    given.registered.show(|live| {
                        live.bytes += bytes;
                        live.row = row;
                    });
                }
            }
            Woken::Read(read) => return self.read_done(read),
            Woken::Fed(fed) => match fed {
                Ok(fed) => return Ok(self.list(fed)),
                Err(problem) => return Ok(Err(problem)),
            },
            Woken::Time => {
                if self.ending.is_some_and(|at| at <= now) {
                    return Err(self.lost("it did not answer"));
                }
                self.machine.handle_timeout(now);
            }
        }
        Ok(Ok(()))
    }

    /// Takes up what the machine says and wants until it has nothing more.
    async fn work(&mut self) -> Result<(), Problem> {
        while let Some(event) = self.machine.poll_event() {
            self.event(event).await?;
        }
        if let Some(given) = &mut self.given
            && given.hashes.len() >= HASHES_KEPT
        {
            given.keep_hashes(&self.ctx).await?;
        }
        self.read_more()
    }

    async fn event(&mut self, event: ProviderEvent) -> Result<(), Problem> {
        match event {
            ProviderEvent::Requested(request) => self.requested(*request).await,
            ProviderEvent::Accepted(_) => {
                if let Some(given) = &mut self.given {
                    given.moving = true;
                }
                self.row_state(State::Moving).await
            }
            ProviderEvent::Wanted { entry, revision, chunks } => {
                let Some(given) = &mut self.given else { return Ok(()) };
                if let Some(sending) = given.open.get_mut(&entry)
                    && sending.entry.revision == revision
                {
                    sending.left = Some(chunks);
                    given.files_sent += u64::from(chunks > 0);
                    given.seal_if_read(&self.ctx, entry);
                }
                Ok(())
            }
            ProviderEvent::LeftOut(entry, _) => {
                if let Some(given) = &mut self.given {
                    given.drop_entry(entry);
                }
                Ok(())
            }
            ProviderEvent::Ready => self.hand_over().await,
            ProviderEvent::Landed(statement) => self.landed(statement).await,
            ProviderEvent::Refused(ending) | ProviderEvent::Failed(ending) => self.ended_by_peer(ending).await,
            ProviderEvent::Noted(statement) => {
                let Some(subject) = self.subject() else { return Ok(()) };
                if !self.stored(&subject.transfer).await?.0.is_some_and(|row| self.is_callers(&row, &subject)) {
                    return Ok(());
                }
                settle::take_ending(&self.ctx, &subject, &statement).await?;
                if let Some((row, problem)) = self.wished.take() {
                    self.end(&row, &subject, &problem).await?;
                }
                Ok(())
            }
            ProviderEvent::Lost => Err(self.lost("it has been silent for too long")),
        }
    }

    fn subject(&self) -> Option<Subject> {
        let request = self.machine.request()?;
        Some(Subject::of(request, &self.ctx.name, &self.caller.peer))
    }

    // ---- the request and its answer

    async fn requested(&mut self, request: Request) -> Result<(), Problem> {
        let subject = Subject::of(&request, &self.ctx.name, &self.caller.peer);
        if request.transfer != self.caller.transfer {
            return Err(self.invalid("the request is for another transfer than its channel"));
        }
        let Some(alone) = Answering::enter(&self.ctx, &request.transfer) else {
            // The line was cut while this was being answered. What comes of it is there for a later try.
            let busy = Problem::new(Code::Busy)
                .with("peer", &self.ctx.name)
                .cause("an earlier request for this transfer is still being answered");
            self.machine.refuse(settle::refused(&busy, None));
            self.end_soon();
            return Ok(());
        };
        let (row, offered) = self.stored(&request.transfer).await?;
        if let Some(row) = &row
            && !self.is_callers(row, &subject)
        {
            // Whoever it belongs to learns nothing from this, and the stored transfer is not touched.
            self.machine.refuse(settle::refused(&self.not_offered(&subject), None));
            self.end_soon();
            return Ok(());
        }
        if request.committed && offered.as_ref().is_some_and(|offered| offered.handover.is_some()) {
            // What it landed stands, whatever was stated here meanwhile: it gives its statement, and nothing else
            // is exchanged. The grant may have ended without harm.
            return Ok(());
        }
        if let Some(row) = &row
            && row.state.is_final()
            && row.state != State::Settled
        {
            let problem = row.problem.clone().unwrap_or_else(|| Problem::new(Code::Cancelled));
            let statement = settle::state_ending(&self.ctx, row, &subject, &problem).await?;
            self.say_ended(&problem, statement.as_ref());
            return Ok(());
        }
        if request.committed {
            // It has a handover of this node that this copy of its store does not know.
            return Err(self.mismatch("it has committed to a handover that is not stored here"));
        }
        if row.as_ref().is_some_and(|row| row.state == State::Settled) {
            // Its own statement stands here already: it is not asked to make another.
            return Err(self.mismatch("this transfer is settled, and is asked for as if it were not"));
        }
        let mut row = row.unwrap_or_else(|| self.new_row(&request, &subject));
        row.transport = Some(self.caller.transport);
        let answer = Answer {
            ctx: self.ctx.clone(),
            caller: self.caller.clone(),
            request,
            subject: subject.clone(),
            row: row.clone(),
            known: offered,
            alone,
        };
        match self.answered(answer).await? {
            None => Ok(()),
            Some(Ok(given)) => {
                let offer = given.offered.offer.clone();
                self.given = Some(*given);
                self.machine.offer(offer)
            }
            Some(Err(problem)) if problem.code == Code::PeerUnreachable => Err(problem),
            Some(Err(problem)) => {
                // As it stands in the store, where answering came so far.
                let row = self.stored(&row.id).await?.0.unwrap_or(row);
                let statement = self.end(&row, &subject, &problem).await?;
                self.say_ended(&problem, statement.as_ref());
                Ok(())
            }
        }
    }

    /// Waits for the answer and keeps the line alive meanwhile. None: the consumer has ended it.
    async fn answered(&mut self, answer: Answer) -> Result<Option<Result<Box<Given>, Problem>>, Problem> {
        let mut answered = answer.begin();
        loop {
            self.transmit();
            let world = self.ctx.world.clone();
            let deadline = self.machine.poll_timeout();
            tokio::select! {
                biased;
                () = self.ctx.drain.cancelled() => return Err(self.lost("this node stops")),
                given = &mut answered => {
                    return match given {
                        Ok(given) => Ok(Some(given)),
                        Err(_) => Err(Problem::new(Code::InsideFailed).cause("a request was dropped unanswered")),
                    };
                }
                frame = self.frames.recv() => match frame {
                    Some(frame) => self.machine.handle_frame(frame?, steady(&world))?,
                    None => return Err(self.lost("the channel ended")),
                },
                _ = self.out.reserve(), if self.blocked => {}
                () = until(&world, deadline) => self.machine.handle_timeout(steady(&world)),
            }
            match self.machine.poll_event() {
                None => {}
                Some(ProviderEvent::Refused(ending) | ProviderEvent::Failed(ending)) => {
                    self.ended_by_peer(ending).await?;
                    return Ok(None);
                }
                Some(ProviderEvent::Lost) => return Err(self.lost("it has been silent for too long")),
                Some(_) => return Err(self.invalid("it goes on before it was answered")),
            }
        }
    }

    /// The consumer has ended it. What was handed over stands until it has stated so.
    async fn ended_by_peer(&mut self, ending: Refused) -> Result<(), Problem> {
        let Some(row) = self.row_to_end().await? else {
            self.machine.noted(Vec::new());
            return Ok(());
        };
        if let Some(given) = &mut self.given {
            given.moving = false;
        }
        let subject = self.subject_of(&row);
        settle::take_ending(&self.ctx, &subject, &ending.statement).await?;
        let problem = settle::problem_of(&ending, &subject);
        self.wished = None;
        let statement = self.end(&row, &subject, &problem).await?;
        self.machine.noted(statement.map(|statement| statement.bytes().to_vec()).unwrap_or_default());
        Ok(())
    }

    /// The row of the transfer that was asked for; None where it is another party's or nothing was asked.
    async fn row_to_end(&self) -> Result<Option<Transfer>, Problem> {
        if let Some(given) = &self.given {
            return Ok(Some(given.row.clone()));
        }
        let (Some(request), Some(subject)) = (self.machine.request().cloned(), self.subject()) else {
            return Ok(None);
        };
        Ok(match self.stored(&request.transfer).await?.0 {
            Some(row) => self.is_callers(&row, &subject).then_some(row),
            None => Some(self.new_row(&request, &subject)),
        })
    }

    fn is_callers(&self, row: &Transfer, subject: &Subject) -> bool {
        row.peer == self.caller.peer
            && row.side == Side::Provider
            && row.resource == subject.resource
            && row.job == subject.job
    }

    fn subject_of(&self, row: &Transfer) -> Subject {
        Subject {
            transfer: row.id.clone(),
            job: row.job.clone(),
            resource: row.resource.clone(),
            consumer: row.peer.clone(),
        }
    }

    async fn stored(&self, transfer: &TransferId) -> Result<(Option<Transfer>, Option<Offered>), Problem> {
        let id = transfer.clone();
        self.ctx.store.read(move |db| Ok((transfers::get(db, &id)?, exchange::offered(db, &id)?))).await
    }

    fn new_row(&self, request: &Request, subject: &Subject) -> Transfer {
        let now = self.ctx.world.clock.now();
        let peer = self.caller.peer.clone();
        let (job, resource) = (request.job.clone(), subject.resource.clone());
        let id = request.transfer.clone();
        let mut row = Transfer::planned(id, Side::Provider, job, peer, resource, request.mode, request.write, now);
        row.peer_epoch = self.caller.epoch;
        row.succeeds.clone_from(&request.succeeds);
        row.watermark_from.clone_from(&request.watermark);
        row
    }

    // ---- entries and chunks

    fn list(&mut self, fed: Vec<Fed>) -> Result<(), Problem> {
        let Some(given) = self.given.as_mut().filter(|given| given.moving) else { return Ok(()) };
        for one in fed {
            match one {
                Fed::Entry(entry, stat) => {
                    if send::has_content(&entry) {
                        let sending =
                            Sending { entry: entry.clone(), stat, left: None, sealing: false, looking: false };
                        given.open.insert(entry.index, sending);
                    }
                    let size = entry.size;
                    if entry.root.is_some() || !send::has_content(&entry) {
                        given.finals.insert(entry.index, entry.clone());
                    }
                    self.machine.entry(entry)?;
                    given.registered.show(|live| {
                        live.bytes_total += size;
                        live.files += 1;
                    });
                }
                Fed::LeftOut(what) => self.machine.left_out(None, what)?,
                Fed::End => self.machine.entries_end()?,
            }
        }
        Ok(())
    }

    /// Hands out as many chunks to read as there is room for on the line.
    fn read_more(&mut self) -> Result<(), Problem> {
        let Some(given) = &mut self.given else { return Ok(()) };
        if given.lanes.open == 0 {
            return Ok(());
        }
        while given.reading < READS_MAX && given.unsent_bytes < UNSENT_BYTES_MAX {
            let mut batch: Vec<(Entry, Option<FileStat>, Vec<SendChunk>)> = Vec::new();
            let mut bytes = 0;
            let mut count = 0;
            while bytes < READ_BYTES && count < READ_CHUNKS {
                let Some(send) = self.machine.poll_send() else { break };
                let Some(sending) = given.open.get(&send.entry) else {
                    // It was sent long ago; a new session lists it anew.
                    return Err(lost(&self.caller.peer, "a chunk was asked again too late"));
                };
                if sending.entry.revision != send.revision || sending.looking {
                    self.machine.unsent(&send);
                    continue;
                }
                bytes += u64::from(send.layout.bytes(send.chunk));
                count += 1;
                match batch.last_mut() {
                    Some((entry, _, chunks)) if entry.index == send.entry => chunks.push(send),
                    _ => batch.push((sending.entry.clone(), sending.stat, vec![send])),
                }
            }
            if batch.is_empty() {
                return Ok(());
            }
            given.reading += 1;
            given.unsent_bytes += bytes;
            let (supply, done) = (given.supply.clone(), given.read_done.clone());
            given.spawn(&self.ctx, move || {
                let read = batch.iter().flat_map(|(entry, stat, chunks)| supply.read(entry, *stat, chunks)).collect();
                // A session that is over does not wait for it.
                let asked = batch.into_iter().flat_map(|(_, _, chunks)| chunks).collect();
                let _ = done.send(ReadDone::Chunks { asked, read });
            });
        }
        Ok(())
    }

    fn read_done(&mut self, read: ReadDone) -> Result<Result<(), Problem>, Problem> {
        let Some(given) = self.given.as_mut().filter(|given| given.moving) else { return Ok(Ok(())) };
        match read {
            ReadDone::Chunks { asked, read } => {
                given.reading -= 1;
                let mut packed = Vec::with_capacity(read.len());
                for one in read {
                    match one {
                        Read::Packed(one) => packed.push(one),
                        Read::Changed { entry, revision } => given.look_again(&self.ctx, entry, revision),
                        Read::Failed { entry, revision, problem } => {
                            if given.supply.folder().is_none() {
                                return Ok(Err(problem));
                            }
                            given.leave_out(&mut self.machine, entry, revision, &problem)?;
                        }
                    }
                }
                for Packed { header, .. } in &packed {
                    let index = header.entry;
                    if let Some(sending) = given.open.get_mut(&index)
                        && sending.entry.revision == header.revision
                    {
                        sending.left = sending.left.map(|left| left.saturating_sub(1));
                        given.seal_if_read(&self.ctx, index);
                    }
                }
                for send in &asked {
                    let came = |one: &Packed| {
                        (one.header.entry, one.header.revision, one.header.chunk)
                            == (send.entry, send.revision, send.chunk)
                    };
                    if !packed.iter().any(came) {
                        let bytes = u64::from(send.layout.bytes(send.chunk));
                        given.unsent_bytes = given.unsent_bytes.saturating_sub(bytes);
                        self.machine.unsent(send);
                    }
                }
                if !packed.is_empty() {
                    // The lanes share the queue; when they are gone the session ends by their word.
                    let _ = given.queue.send(packed);
                }
                Ok(Ok(()))
            }
            ReadDone::Sealed { index, revision, root } => {
                let Some(sending) = given.open.get(&index).filter(|s| s.entry.revision == revision) else {
                    return Ok(Ok(()));
                };
                match root {
                    Ok((root, stat)) => {
                        let mut entry = sending.entry.clone();
                        entry.root = Some(root.into());
                        let stat_as_read = stat;
                        if let Some(stat) = stat.filter(|stat| is_quiet(stat, self.ctx.world.clock.now())) {
                            given.hashes.push((entry.name.clone(), stat, root));
                        }
                        given.finals.insert(index, entry.clone());
                        if let Some(sending) = given.open.get_mut(&index) {
                            sending.entry.root = entry.root;
                            sending.stat = stat_as_read;
                        }
                        given.done_with(index);
                        Ok(self.machine.sealed(entry))
                    }
                    Err(problem) if problem.code == Code::FileChanged => {
                        given.look_again(&self.ctx, index, revision);
                        Ok(Ok(()))
                    }
                    Err(problem) if given.supply.folder().is_some() => {
                        given.leave_out(&mut self.machine, index, revision, &problem).map(Ok)
                    }
                    Err(problem) => Ok(Err(problem)),
                }
            }
            ReadDone::Looked { index, now } => {
                let Some(sending) = given.open.get(&index) else { return Ok(Ok(())) };
                let revision = sending.entry.revision;
                if sending.entry.root.is_some() || given.finals.contains_key(&index) {
                    // It was listed as known and is another now: a new session lists it as it is.
                    return Err(self.lost("a file changed after it was listed"));
                }
                match now {
                    Ok(_) if revision + 1 >= REVISIONS_MAX => {
                        let name = String::from_utf8_lossy(&sending.entry.name).into_owned();
                        let problem = Problem::new(Code::FileChanged).with("name", name);
                        given.leave_out(&mut self.machine, index, revision, &problem).map(Ok)
                    }
                    Ok((entry, stat)) => {
                        given.supply.close(index);
                        let sending = Sending {
                            entry: entry.clone(),
                            stat: Some(stat),
                            left: None,
                            sealing: false,
                            looking: false,
                        };
                        given.open.insert(index, sending);
                        Ok(self.machine.again(entry))
                    }
                    Err(problem) => given.leave_out(&mut self.machine, index, revision, &problem).map(Ok),
                }
            }
        }
    }

    fn data_channel(&mut self, writer: Writer) {
        let Some(given) = &mut self.given else { return };
        if given.lanes.open >= given.offered.offer.data_channels {
            return;
        }
        given.lanes.open += 1;
        let (queue, sent) = (given.lanes.queue.clone(), given.lanes.sent.clone());
        tokio::spawn(send::run_channel(self.ctx.clone(), writer, queue, sent, self.caller.peer.to_string()));
    }

    // ---- the policy

    fn look_at_policy(&self) -> Result<(), Problem> {
        match &self.given {
            // What is handed over is not taken back; what is still open stops.
            Some(given) if given.offered.handover.is_none() && self.ending.is_none() => {
                self.ctx.authority.still_permits(&given.permit)
            }
            _ => Ok(()),
        }
    }

    // ---- the end

    /// All is listed, answered, sealed and read: signs the manifest, or gives the signed one again.
    async fn hand_over(&mut self) -> Result<(), Problem> {
        let Some(given) = &mut self.given else { return Ok(()) };
        let listed: Vec<Entry> = given.finals.values().cloned().collect();
        let splits = given.spooling.as_ref().map(|spooling| spooling.splits(0));
        let department = self.ctx.department();
        let facts = ManifestFacts {
            request: &given.offered.request,
            offer: &given.offered.offer,
            provider: &self.ctx.name,
            provider_department: department.as_deref(),
            consumer: &self.caller.peer,
            filter_sha256: given.permit.filter_sha256(),
            splits: splits.as_deref(),
            started: given.offered.started,
            sealed: self.ctx.world.clock.now(),
        };
        let sealed = SealedManifest::of(&self.machine, &facts)?;
        if let Some(handover) = given.offered.handover.clone() {
            let statement = settle::open_own(&self.ctx, &handover.statement)?;
            let signed = statement.manifest().map(|manifest| (manifest.entries_sha256, manifest.content_root));
            let now = sealed.manifest();
            if signed != Some((now.entries_sha256, now.content_root)) {
                // Part of what was signed is no longer there to be sent again.
                return Err(Problem::new(Code::FileChanged).with("name", &given.subject.resource));
            }
            return self.machine.handover(handover);
        }
        if given.registered.is_superseded() {
            return Err(lost(&self.caller.peer, "a newer session took its place"));
        }
        // The whole store of hashes first: they cost the most.
        given.keep_hashes(&self.ctx).await?;
        let folder = given.spooling.is_none();
        let left_out = self.machine.left_out_list().clone();
        if let Some(mut attachments) = given.attachments.take() {
            blocking(&self.ctx.world, move || {
                attachments.add(&listed)?;
                attachments.finish(&left_out, folder)
            })
            .await?;
        }
        self.ctx.authority.still_permits(&given.permit)?;
        let statement = settle::state_handover(&self.ctx, &sealed).await?;
        let digest = sealed.digest().map(|digest| (digest.sum.into(), digest.count));
        let handover = Handover { statement: statement.bytes().to_vec().into(), digest };
        given.offered.handover = Some(handover.clone());
        given.row.counts = sealed.manifest().counts;
        given.row.files_sent = given.files_sent;
        self.machine.handover(handover)
    }

    /// The consumer's statement is kept for ever, and the transfer is settled here.
    async fn landed(&mut self, bytes: Vec<u8>) -> Result<(), Problem> {
        let ctx = self.ctx.clone();
        let Some(subject) = self.subject() else { return Ok(()) };
        let id = subject.transfer.clone();
        let (row, offered) =
            ctx.store.read(move |db| Ok((transfers::get(db, &id)?, exchange::offered(db, &id)?))).await?;
        let is_table = offered.as_ref().is_some_and(|offered| offered.offer.contract.is_some());
        let handover = offered.as_ref().and_then(|offered| offered.handover.clone());
        let (Some(mut row), Some(handover)) = (row, handover) else {
            return Err(self.invalid("a landing of something that was not handed over"));
        };
        let handed = settle::open_own(&ctx, &handover.statement)?;
        let landed = settle::open(&ctx, &self.caller.peer, &bytes)?;
        settle::check_landing(&landed, &subject, &handed)?;
        if let Some(given) = &self.given {
            row = Transfer { state: row.state, receipt: row.receipt, ..given.row.clone() };
            row.active_ms += active_ms(&ctx, given.began);
        }
        let sha256 = *landed.sha256();
        let standing = self.standing(&handed).await?;
        let now = ctx.world.clock.now();
        ctx.store
            .write(move |tx| {
                statements::take(tx, &landed, now)?;
                let receipt = statements::settle(tx, &row.id, &handed, &landed, now)?;
                match transfers::get(tx, &row.id)?.map(|stored| stored.state) {
                    None | Some(State::Settled) => return Ok(()),
                    // Both statements are the truth about it, also where this side had given it up before.
                    Some(state) if state.is_final() => return transfers::set_receipt(tx, &row.id, &receipt),
                    Some(_) => {}
                }
                row.receipt = Some(receipt);
                row.state = State::Settled;
                row.ended = Some(now);
                row.problem = None;
                if let Some(standing) = &standing {
                    let (peer, job, resource) = (&row.peer, &row.job, &row.resource.resource);
                    exchange::put_standing(tx, Side::Provider, peer, job, resource, standing)?;
                }
                transfers::update(tx, &row).map(|_| ())
            })
            .await?;
        ctx.outbox.notify_one();
        self.machine.settled(sha256)?;
        if let Some(given) = &mut self.given {
            given.row.state = State::Settled;
            given.registered.show(|live| live.row.state = State::Settled);
        }
        if is_table {
            Spooling::remove(&self.ctx, &subject.transfer).await?;
        }
        Ok(())
    }

    /// The table's digest as it was handed over, to tell later whose copy left the receipt. What an incremental
    /// run handed over is only a part: there the source is read again, beside whatever comes next.
    async fn standing(&self, handed: &Statement) -> Result<Option<Standing>, Problem> {
        let (Some(given), Some(manifest)) = (&self.given, handed.manifest()) else { return Ok(None) };
        let Some(contract) = &given.offered.offer.contract else { return Ok(None) };
        let (transfer, contract_sha256) = (manifest.transfer.clone(), contract.sha256());
        if manifest.mode == Mode::Full {
            let id = transfer.clone();
            let buckets = self.ctx.store.read(move |db| exchange::spool_buckets(db, &id)).await?;
            return Ok(buckets.map(|buckets| Standing { contract_sha256, buckets, transfer }));
        }
        let (ctx, permit, row) = (self.ctx.clone(), given.permit.clone(), given.row.clone());
        let watermark = manifest.watermark_to.clone();
        tokio::spawn(async move {
            let kept = async {
                let (contract, buckets) = reconcile::provider_standing(&ctx, &permit, watermark).await?;
                let standing = Standing { contract_sha256: contract.sha256(), buckets: buckets.to_bytes(), transfer };
                ctx.store
                    .write(move |tx| {
                        let (peer, job, resource) = (&row.peer, &row.job, &row.resource.resource);
                        exchange::put_standing(tx, Side::Provider, peer, job, resource, &standing)
                    })
                    .await
            };
            if let Err(problem) = kept.await {
                // The receipt does not depend on it: a later reconciliation only cannot say whose copy changed.
                tracing::warn!(%problem, "The standing digest could not be kept");
            }
        });
        Ok(None)
    }

    /// The transfer cannot go on: states it, and tells the consumer.
    async fn fail(&mut self, problem: Problem) -> Result<(), Problem> {
        let temporary = matches!(problem.code, Code::PeerUnreachable | Code::FrameInvalid);
        if temporary || self.ending.is_some() || self.machine.is_done() {
            return Err(problem);
        }
        if self.given.as_ref().is_some_and(|given| given.registered.is_superseded()) {
            // The newer session decides what becomes of it.
            return Err(problem);
        }
        let Some(row) = self.row_to_end().await? else { return Err(problem) };
        let subject = self.subject_of(&row);
        let statement = self.end(&row, &subject, &problem).await?;
        self.say_ended(&problem, statement.as_ref());
        Ok(())
    }

    /// States that it ended, and clears what it needed. Where it was handed over it stays as it is until the
    /// consumer says that it has not landed: that is its to say, and it is asked.
    async fn end(
        &mut self,
        row: &Transfer,
        subject: &Subject,
        problem: &Problem,
    ) -> Result<Option<Statement>, Problem> {
        let statement = settle::state_ending(&self.ctx, row, subject, problem).await?;
        let (stored, offered) = self.stored(&row.id).await?;
        let ended = stored.is_some_and(|stored| stored.state.is_final());
        if ended {
            tracing::warn!(transfer = %row.id, %problem, "A transfer ends without a receipt");
            if offered.is_some_and(|offered| offered.offer.contract.is_some()) {
                Spooling::remove(&self.ctx, &row.id).await?;
            }
        } else {
            tracing::info!(transfer = %row.id, %problem, "A transfer that was handed over is the consumer's to end");
            self.wished = Some((row.clone(), problem.clone()));
        }
        Ok(statement)
    }

    /// Tells the consumer, and waits a little for its own statement.
    fn say_ended(&mut self, problem: &Problem, statement: Option<&Statement>) {
        if let Some(given) = &mut self.given {
            given.moving = false;
        }
        let ending = settle::refused(problem, statement);
        match settle::ended_state(problem) {
            State::Refused => self.machine.refuse(ending),
            _ => self.machine.fail(ending),
        }
        self.end_soon();
    }

    fn end_soon(&mut self) {
        self.ending = Some(steady(&self.ctx.world).plus_ms(ENDING_MS));
    }

    async fn row_state(&mut self, state: State) -> Result<(), Problem> {
        let Some(given) = &mut self.given else { return Ok(()) };
        given.row.state = state;
        let row = given.row.clone();
        given.registered.show(|live| live.row = row.clone());
        if self.ctx.store.write(move |tx| transfers::update(tx, &row)).await? {
            return Ok(());
        }
        Err(self.lost("it has ended meanwhile"))
    }

    fn not_offered(&self, subject: &Subject) -> Problem {
        not_offered(&self.ctx, subject)
    }
    fn invalid(&self, cause: &str) -> Problem {
        Problem::new(Code::FrameInvalid).with("peer", &self.caller.peer).cause(cause)
    }
    fn mismatch(&self, cause: &str) -> Problem {
        Problem::new(Code::Mismatch).with("peer", &self.caller.peer).cause(cause)
    }
    fn lost(&self, cause: &str) -> Problem {
        lost(&self.caller.peer, cause)
    }
}

fn not_offered(ctx: &Context, subject: &Subject) -> Problem {
    Problem::new(Code::NotOffered).with("provider", &ctx.name).with("resource", &subject.resource.resource)
}

fn lost(peer: &NodeId, cause: &str) -> Problem {
    Problem::new(Code::PeerUnreachable).with("peer", peer).cause(cause)
}

impl Given {
    fn spawn(&self, ctx: &Arc<Context>, work: impl FnOnce() + Send + 'static) {
        let world = ctx.world.clone();
        tokio::spawn(async move {
            // A panic leaves the session waiting for its answer until the peer's patience ends; it is logged.
            if let Err(panicked) = world.blocking.run(work).await {
                tracing::error!(%panicked, "Reading failed");
            }
        });
    }

    /// Everything wanted of it was read: what is left is hashed too, and its root follows.
    fn seal_if_read(&mut self, ctx: &Arc<Context>, index: u64) {
        let Some(sending) = self.open.get_mut(&index) else { return };
        if sending.left != Some(0) || sending.sealing || sending.looking {
            return;
        }
        if sending.entry.root.is_some() {
            self.done_with(index);
            return;
        }
        sending.sealing = true;
        let (entry, stat) = (sending.entry.clone(), sending.stat);
        let (supply, done) = (self.supply.clone(), self.read_done.clone());
        self.spawn(ctx, move || {
            let root = supply.seal(&entry, stat);
            let _ = done.send(ReadDone::Sealed { index: entry.index, revision: entry.revision, root });
        });
    }

    /// A file changed while it was read: how does it look now?
    fn look_again(&mut self, ctx: &Arc<Context>, index: u64, revision: u32) {
        let Some(sending) = self.open.get_mut(&index).filter(|s| s.entry.revision == revision) else { return };
        // One look is enough, however many of its chunks were torn.
        if std::mem::replace(&mut sending.looking, true) {
            return;
        }
        let (entry, supply, done) = (sending.entry.clone(), self.supply.clone(), self.read_done.clone());
        self.spawn(ctx, move || {
            let now = match supply.folder() {
                Some(folder) => folder.open_file(&entry.name).map(|file| {
                    let stat = file.stat();
                    let entry = Entry {
                        size: stat.size,
                        mode: stat.mode & 0o1777,
                        mtime_ns: stat.mtime_ns,
                        root: None,
                        revision: entry.revision + 1,
                        ..entry.clone()
                    };
                    (entry, stat)
                }),
                None => Err(Problem::new(Code::InsideFailed).cause("a split changed in the spool")),
            };
            let _ = done.send(ReadDone::Looked { index: entry.index, now });
        });
    }

    /// It cannot be handed over. An entry that is done with at the machine ends the session instead.
    fn leave_out(
        &mut self,
        machine: &mut Provider,
        index: u64,
        revision: u32,
        problem: &Problem,
    ) -> Result<(), Problem> {
        let Some(sending) = self.open.get(&index).filter(|s| s.entry.revision == revision) else { return Ok(()) };
        let what: LeftOut = left_out(&sending.entry.name, problem);
        self.drop_entry(index);
        machine.left_out(Some(index), what)
    }

    fn drop_entry(&mut self, index: u64) {
        self.supply.close(index);
        self.open.remove(&index);
        self.finals.remove(&index);
    }

    /// Everything of it was read.
    fn done_with(&mut self, index: u64) {
        self.supply.close(index);
        self.recent.push_back(index);
        if self.recent.len() > RECENT_MAX
            && let Some(old) = self.recent.pop_front()
        {
            self.open.remove(&old);
        }
    }

    async fn keep_hashes(&mut self, ctx: &Arc<Context>) -> Result<(), Problem> {
        let hashes = std::mem::take(&mut self.hashes);
        if hashes.is_empty() {
            return Ok(());
        }
        let resource = self.subject.resource.resource.clone();
        ctx.store
            .write(move |tx| {
                hashes.iter().try_for_each(|(name, stat, root)| exchange::put_hashed(tx, &resource, name, stat, root))
            })
            .await
    }
}

/// A transfer asked for again is the same but for the consumer's epoch and how far it has come.
fn same_request(known: &Request, now: &Request) -> bool {
    let now = Request { consumer_epoch: known.consumer_epoch, committed: known.committed, ..now.clone() };
    *known == now
}

/// Whether a file has rested long enough for its times to tell of any later change.
fn is_quiet(stat: &FileStat, now: Timestamp) -> bool {
    now.0.saturating_sub(stat.mtime_ns.max(stat.ctime_ns) / 1_000_000) > QUIET_MS
}

fn active_ms(ctx: &Context, began: Duration) -> u64 {
    u64::try_from(ctx.world.clock.monotonic().saturating_sub(began).as_millis()).unwrap_or(u64::MAX)
}

const FRAMES: usize = 64;
const CLOSING: Duration = Duration::from_secs(5);
const POLICY_LOOK: Duration = Duration::from_secs(1);
const ENDING_MS: i64 = 10_000;
/// Blocking reads at once, and what one of them takes.
const READS_MAX: usize = 4;
const READ_BYTES: u64 = 1 << 20;
const READ_CHUNKS: usize = 64;
/// Content that was read and is not on the line yet.
const UNSENT_BYTES_MAX: u64 = 8 << 20;
/// A file is read this often before it is left out.
const REVISIONS_MAX: u32 = 3;
const QUIET_MS: i64 = 2_000;
/// Roots of files are stored in groups.
const HASHES_KEPT: usize = 1024;
const RECENT_MAX: usize = 1024;
