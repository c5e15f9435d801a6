//! One connection's worth of taking: from the request to the settled receipt, or to whatever cut it short.
//! The machine says what is asked and what is complete; here chunks are written, made durable in groups,
//! and only then is their credit given back. When the line goes, everything that arrived is made durable first.

pub(super) mod arrived;
mod durable;
mod ending;
mod finish;
mod listing;
mod offered;
mod writing;

use super::predecessors;
use super::run::{Line, Run};
use super::settling::settled;
use crate::config::Job;
use crate::context::Context;
use crate::receive::Received;
use crate::settle;
use crate::stage::{Answer, Progress, Stage};
use crate::store::Transfer;
use crate::transfer::wire::{read_frames, write_frames};
use crate::transfer::{blocking, steady, until};
use arrived::Arrived;
use durable::PROGRESS_MS;
use posthouse_platform::endpoint::Connection;
use posthouse_protocol::chunk::{ChunkMeta, VerifiedChunk};
use posthouse_protocol::consumer::{Consumer, ConsumerEvent, Verdict};
use posthouse_protocol::frame::{Frame, Handover, Offer, Refused, Request};
use posthouse_protocol::id::TransferId;
use posthouse_protocol::job::State;
use posthouse_protocol::limits;
use posthouse_protocol::manifest::Entry;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::statement::Statement;
use posthouse_protocol::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// How a session came out, where it was not for a problem that ends the transfer.
pub(super) enum Ended {
    /// The row in its final state.
    Final(Box<Transfer>),
    /// Asked to stop, or the next step needs no waiting.
    Stopped,
    NoRoom(Problem),
    Lost(Problem),
}

/// Asks for the transfer over a line and takes what comes.
pub(super) async fn take(run: &mut Run, job: &Job, line: Line, request: Request) -> Result<Ended, Problem> {
    let Line { connection, reader, writer } = line;
    let (frames_in, frames) = mpsc::channel(FRAMES);
    let (out, frames_out) = mpsc::channel(FRAMES);
    let reading = tokio::spawn(read_frames(reader, frames_in));
    let writing = tokio::spawn(write_frames(writer, frames_out));
    let machine = Consumer::new(request, run.row.peer.clone(), steady(&run.ctx.world));
    let (received_in, received) = mpsc::channel(RECEIVED);
    let (jobs_in, jobs) = mpsc::unbounded_channel();
    let predecessors = predecessors(&run.ctx, &run.row).await?;
    let base = run.row.clone();
    let mut session = Session {
        ctx: run.ctx.clone(),
        base,
        run,
        job,
        connection,
        machine: Arc::new(Mutex::new(machine)),
        frames,
        out,
        blocked: false,
        received_in,
        received,
        jobs_in,
        jobs,
        stage: None,
        offer: None,
        predecessors,
        session: 0,
        asked: Vec::new(),
        looking: false,
        open: BTreeMap::new(),
        present: BTreeSet::new(),
        writes: VecDeque::new(),
        write_jobs: 0,
        writing: BTreeMap::new(),
        completed: BTreeMap::new(),
        progress: Progress::default(),
        since: None,
        flushing: false,
        to_stage: VecDeque::new(),
        staging: false,
        handed: None,
        finishing: false,
        finished: false,
        kept: None,
        files_sent: 0,
        resent_bytes: 0,
        quarantined: 0,
        arrived: None,
        end: None,
        ending: None,
    };
    let ended = session.run().await;
    let ended = session.leave(ended).await;
    drop(session);
    reading.abort();
    let _ = tokio::time::timeout(CLOSING, writing).await;
    ended
}

struct Session<'r> {
    ctx: Arc<Context>,
    run: &'r mut Run,
    /// The row as it was when the session began: the session's counters are added to it.
    base: Transfer,
    job: &'r Job,
    connection: Arc<dyn Connection>,
    machine: Arc<Mutex<Consumer>>,
    frames: mpsc::Receiver<Result<Frame, Problem>>,
    out: mpsc::Sender<Frame>,
    blocked: bool,
    received_in: mpsc::Sender<Received>,
    received: mpsc::Receiver<Received>,
    jobs_in: mpsc::UnboundedSender<Done>,
    jobs: mpsc::UnboundedReceiver<Done>,
    stage: Option<Arc<Stage>>,
    offer: Option<Offer>,
    predecessors: Vec<TransferId>,
    /// Marks the rows of entries that this session's listing has.
    session: i64,
    /// Listed entries that are not looked up yet.
    asked: Vec<Entry>,
    looking: bool,
    /// Entries that chunks are awaited of.
    open: BTreeMap<u64, Entry>,
    /// Entries that stand at their place already.
    present: BTreeSet<u64>,
    writes: VecDeque<VerifiedChunk>,
    write_jobs: usize,
    /// Chunks of an entry that are being written.
    writing: BTreeMap<u64, usize>,
    /// Entries that are complete but for these writes.
    completed: BTreeMap<u64, Entry>,
    progress: Progress,
    /// When the oldest undurable chunk was written.
    since: Option<Timestamp>,
    flushing: bool,
    to_stage: VecDeque<Entry>,
    staging: bool,
    handed: Option<Handover>,
    finishing: bool,
    finished: bool,
    /// How the provider ended it while it was being committed here.
    kept: Option<Refused>,
    files_sent: u64,
    /// Content that came although an earlier process had it; counted in whole chunks, small ones together.
    resent_bytes: u64,
    quarantined: u64,
    arrived: Option<Arrived>,
    /// Set when the transfer has ended and only the line is to be closed in peace.
    end: Option<Transfer>,
    ending: Option<Timestamp>,
}

/// Work done elsewhere.
#[expect(clippy::large_enum_variant, reason = "the large one comes once, at the end")]
enum Done {
    Looked(Result<Vec<(Entry, Answer)>, Problem>),
    Wrote { metas: Vec<ChunkMeta>, again: u64, result: Result<(), Problem> },
    Flushed(Result<Progress, Problem>),
    StagedSplit(Result<(), Problem>),
    Finished(Result<Statement, Problem>),
}

#[expect(clippy::large_enum_variant, reason = "there is one at a time, and it is taken apart at once")]
enum Woken {
    Frame(Option<Result<Frame, Problem>>),
    Received(Received),
    Done(Done),
    Stop,
    Line,
    Time,
}

impl Session<'_> {
    async fn run(&mut self) -> Result<Ended, Problem> {
        loop {
            let worked = self.work().await;
            if let Some(ended) = no_room(worked)? {
                return Ok(ended);
            }
            self.transmit();
            if self.end.is_some() && self.machine().is_done() && !self.blocked {
                return Ok(Ended::Stopped);
            }
            let woken = self.wait().await;
            let handled = self.handle(woken).await;
            if let Some(ended) = no_room(handled)? {
                return Ok(ended);
            }
        }
    }

    fn machine(&self) -> MutexGuard<'_, Consumer> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn transmit(&mut self) {
        self.blocked = false;
        loop {
            let Ok(permit) = self.out.try_reserve() else {
                self.blocked = !self.out.is_closed();
                return;
            };
            let frame = self.machine().poll_transmit(steady(&self.ctx.world));
            match frame {
                Some(frame) => permit.send(frame),
                None => return,
            }
        }
    }

    async fn wait(&mut self) -> Woken {
        let flush = self.since.filter(|_| !self.flushing).map(|since| since.plus_ms(PROGRESS_MS));
        let timeout = self.machine().poll_timeout();
        let deadline = [flush, timeout, self.ending].into_iter().flatten().min();
        let room = self.writes.len() < WRITES_WAITING;
        tokio::select! {
            biased;
            () = self.ctx.drain.cancelled() => Woken::Stop,
            _ = self.run.registered.stop.changed() => Woken::Stop,
            Some(done) = self.jobs.recv() => Woken::Done(done),
            frame = self.frames.recv() => Woken::Frame(frame),
            Some(received) = self.received.recv(), if room => Woken::Received(received),
            _ = self.out.reserve(), if self.blocked => Woken::Line,
            () = until(&self.ctx.world, deadline) => Woken::Time,
        }
    }

    async fn handle(&mut self, woken: Woken) -> Result<Option<Ended>, Problem> {
        let now = steady(&self.ctx.world);
        match woken {
            Woken::Frame(Some(Ok(frame))) => {
                let handled = self.machine().handle_frame(frame, now);
                match handled {
                    Ok(_) => {}
                    Err(problem) if problem.code == Code::FrameInvalid => return Ok(Some(Ended::Lost(problem))),
                    Err(problem) => return Err(problem),
                }
            }
            Woken::Frame(Some(Err(problem))) => return Ok(Some(Ended::Lost(problem))),
            Woken::Frame(None) => return Ok(Some(Ended::Lost(self.lost("the channel ended")))),
            Woken::Received(Received::Chunk(chunk)) => {
                let verdict = self.machine().handle_chunk(chunk.meta())?;
                if verdict == Verdict::Write {
                    *self.writing.entry(chunk.meta().entry()).or_default() += 1;
                    self.writes.push_back(chunk);
                }
            }
            Woken::Received(Received::Bad(header)) => self.machine().handle_bad_chunk(&header)?,
            Woken::Received(Received::Dropped) | Woken::Line => {}
            Woken::Received(Received::Lost(problem)) => {
                // Data channels may close once everything is here.
                if self.handed.is_none() && self.end.is_none() {
                    return Ok(Some(Ended::Lost(problem)));
                }
            }
            Woken::Done(done) => return self.done(done).await,
            Woken::Stop => return Ok(Some(self.stopped())),
            Woken::Time => {
                if self.ending.is_some_and(|at| at <= now) {
                    return Ok(Some(Ended::Stopped));
                }
                self.machine().handle_timeout(now);
            }
        }
        Ok(None)
    }

    fn stopped(&mut self) -> Ended {
        // The loop above sees why.
        self.run.registered.stop.mark_changed();
        Ended::Stopped
    }

    /// Takes up what the machine says, and starts whatever can be started.
    async fn work(&mut self) -> Result<Option<Ended>, Problem> {
        loop {
            let event = self.machine().poll_event();
            let Some(event) = event else { break };
            if let Some(ended) = self.event(event).await? {
                return Ok(Some(ended));
            }
        }
        self.look_up();
        self.write_some();
        self.flush_if_due();
        self.stage_some();
        self.finish_if_whole()?;
        Ok(None)
    }

    async fn event(&mut self, event: ConsumerEvent) -> Result<Option<Ended>, Problem> {
        match event {
            ConsumerEvent::Offered(offer) => return self.offered(*offer).await,
            ConsumerEvent::Entry(entry) => {
                self.listed(&entry)?;
                self.asked.push(entry);
            }
            ConsumerEvent::Again(entry) => self.again(entry).await?,
            ConsumerEvent::Complete(entry) => {
                let index = entry.index;
                if self.writing.contains_key(&index) {
                    self.completed.insert(index, entry);
                } else {
                    self.complete(entry);
                }
            }
            ConsumerEvent::LeftOut(Some(index), what) => {
                self.wait_for_writes(index).await?;
                self.forget(index, &what.name).await?;
                if let Some(stage) = self.stage.clone() {
                    blocking(&self.ctx.world, move || stage.discard_part(&what.name)).await?;
                }
            }
            ConsumerEvent::LeftOut(None, _) => {}
            ConsumerEvent::HandedOver(handover) => self.handed = Some(handover),
            ConsumerEvent::Settled => {
                let row = settled(&self.ctx, &self.row()).await?;
                self.end = Some(row);
            }
            ConsumerEvent::Refused(ending) | ConsumerEvent::Failed(ending) => {
                let subject = self.run.subject();
                settle::take_ending(&self.ctx, &subject, &ending.statement).await?;
                if self.finishing && !self.finished {
                    // What is being committed may stand by now: how the commit comes out decides.
                    self.kept = Some(ending);
                    return Ok(None);
                }
                return self.ended_by_peer(&ending).await;
            }
            ConsumerEvent::Noted(statement) => {
                settle::take_ending(&self.ctx, &self.run.subject(), &statement).await?;
            }
            ConsumerEvent::Lost => return Ok(Some(Ended::Lost(self.lost("it has been silent for too long")))),
        }
        Ok(None)
    }

    fn spawn<T: Send + 'static>(
        &self,
        done: fn(Result<T, Problem>) -> Done,
        work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
    ) {
        let (world, jobs) = (self.ctx.world.clone(), self.jobs_in.clone());
        tokio::spawn(async move {
            let result = blocking(&world, work).await;
            // A session that is over does not wait for it.
            let _ = jobs.send(done(result));
        });
    }

    async fn done(&mut self, done: Done) -> Result<Option<Ended>, Problem> {
        self.finished |= matches!(done, Done::Finished(_));
        let result = match done {
            Done::Looked(found) => found.and_then(|found| self.looked(found)),
            done @ Done::Wrote { .. } => self.wrote(done),
            Done::Flushed(progress) => {
                self.flushing = false;
                progress.map(|progress| self.flushed(progress))
            }
            Done::StagedSplit(staged) => {
                self.staging = false;
                staged
            }
            Done::Finished(Ok(statement)) => {
                self.base.state = State::Committed;
                self.run.row.state = State::Committed;
                self.show();
                if let Some(ending) = self.kept.take() {
                    // It stands: the provider's word is kept beside it, and this side's is given until it is taken.
                    return Ok(Some(Ended::Lost(settle::problem_of(&ending, &self.run.subject()))));
                }
                self.machine().landed(statement.bytes().to_vec())
            }
            Done::Finished(Err(problem)) => {
                if let Some(ending) = self.kept.take()
                    && self.run.may_end(None).await?
                {
                    return self.ended_by_peer(&ending).await;
                }
                Err(problem)
            }
        };
        result.map(|()| None)
    }

    /// The transfer's row as this session has brought it.
    fn row(&self) -> Transfer {
        let counters = self.machine().counters();
        let mut row = self.base.clone();
        row.transport = self.run.row.transport;
        row.started = self.run.row.started;
        row.bytes_sent += counters.wire_bytes;
        row.chunks += counters.chunks;
        row.resent_chunks += counters.resent_chunks + self.resent_bytes.div_ceil(u64::from(limits::CHUNK_BYTES));
        row.files_sent += self.files_sent;
        row.active_ms += self.run.elapsed();
        row
    }

    fn show(&self) {
        let row = self.row();
        self.run.registered.show(|live| live.row = row);
    }

    fn lost(&self, cause: &str) -> Problem {
        Problem::new(Code::PeerUnreachable).with("peer", &self.run.row.peer).cause(cause)
    }
}

/// A full disk pauses a transfer, wherever it was noticed.
fn no_room(done: Result<Option<Ended>, Problem>) -> Result<Option<Ended>, Problem> {
    match done {
        Err(problem) if problem.code == Code::DiskFull => Ok(Some(Ended::NoRoom(problem))),
        done => done,
    }
}

pub(super) const FRAMES: usize = 64;
const CLOSING: Duration = Duration::from_secs(5);
const RECEIVED: usize = 16;
const WRITES_WAITING: usize = 256;
pub(super) const GOODBYE_MS: i64 = 5_000;
