//! One connection's worth of taking: from the request to the settled receipt, or to whatever cut it short.
//! The machine says what is asked and what is complete; here chunks are written, made durable in groups,
//! and only then is their credit given back. When the line goes, everything that arrived is made durable first.

mod arrived;
mod finish;

pub(crate) use finish::open_destination;
pub(super) use finish::{commit_staged, discard, may_drop_staged, settle, tell};

use super::{Line, Run, predecessors};
use crate::config::Job;
use crate::context::Context;
use crate::receive::{Received, Receiving};
use crate::settle;
use crate::stage::{Answer, HandedOver, Place, Progress, SplitTotals, Stage, Staged};
use crate::store::exchange::{self, Whole};
use crate::store::{Transfer, transfers};
use crate::transfer::wire::{read_frames, write_frames};
use crate::transfer::{Stop, blocking, own_hello, steady, until};
use arrived::Arrived;
use posthouse_platform::endpoint::Connection;
use posthouse_platform::frames;
use posthouse_protocol::chunk::{ChunkMeta, VerifiedChunk};
use posthouse_protocol::consumer::{Consumer, ConsumerEvent, Have, Verdict};
use posthouse_protocol::digest::RowDigest;
use posthouse_protocol::frame::{Frame, Handover, Offer, Purpose, Refused, Request};
use posthouse_protocol::id::TransferId;
use posthouse_protocol::job::State;
use posthouse_protocol::limits;
use posthouse_protocol::manifest::{Entry, EntryKind};
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
                let row = finish::settled(&self.ctx, &self.row()).await?;
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

    async fn ended_by_peer(&mut self, ending: &Refused) -> Result<Option<Ended>, Problem> {
        let subject = self.run.subject();
        let problem = settle::problem_of(ending, &subject);
        if ending.temporary && ending.statement.is_empty() {
            return Ok(Some(Ended::Lost(problem)));
        }
        let row = self.row();
        let statement = settle::state_ending(&self.ctx, &row, &subject, &problem).await?;
        let noted = statement.map(|statement| statement.bytes().to_vec()).unwrap_or_default();
        self.machine().noted(noted);
        match super::load(&self.ctx, &row.id).await?.filter(|row| row.state.is_final()) {
            Some(row) => self.end = Some(row),
            // What is committed stands: its statement is given until it is taken.
            None => return Ok(Some(Ended::Lost(problem))),
        }
        Ok(None)
    }

    // ---- the offer

    async fn offered(&mut self, offer: Offer) -> Result<Option<Ended>, Problem> {
        let opened = finish::open_stage(&self.ctx, &self.run.row, self.job, &offer).await;
        let stage = opened?;
        let (id, stored) = (self.run.row.id.clone(), offer.clone());
        self.base.state = State::Moving;
        self.base.problem = None;
        self.base.watermark_to.clone_from(&offer.watermark_to);
        let row = self.row();
        self.session = self
            .ctx
            .store
            .write(move |tx| {
                exchange::set_landing_offer(tx, &id, &stored)?;
                transfers::update(tx, &row)?;
                exchange::next_session(tx, &id)
            })
            .await?;
        let arrived = (self.ctx.staging(), self.run.row.id.clone());
        self.arrived = Some(blocking(&self.ctx.world, move || Arrived::open(&arrived.0, &arrived.1)).await?);
        // This listing counts anew; what is here of it already is added as it is looked up.
        self.run.registered.show(|live| (live.bytes, live.bytes_total, live.files, live.rows) = (0, 0, 0, 0));
        let channels = offer.data_channels.min(limits::DATA_CHANNELS);
        self.machine().accept(channels, limits::CREDIT_BYTES)?;
        self.stage = Some(stage);
        self.offer = Some(offer);
        self.transmit();
        for number in 0..channels {
            if let Err(problem) = self.open_data(number).await {
                return Ok(Some(Ended::Lost(problem)));
            }
        }
        self.show();
        Ok(None)
    }

    async fn open_data(&self, number: u8) -> Result<(), Problem> {
        let peer = self.run.row.peer.clone();
        let (reader, mut writer) = frames::split(self.connection.open().await?, &peer);
        let purpose = Purpose::Data(self.run.row.id.clone(), number);
        writer.send(&Frame::Hello(own_hello(&self.ctx, purpose))).await?;
        let receiving = Receiving {
            machine: self.machine.clone(),
            blocking: self.ctx.world.blocking.clone(),
            provider: peer,
            out: self.received_in.clone(),
        };
        tokio::spawn(async move {
            receiving.run(reader.into_inner()).await;
            // Dropping it earlier would reset the channel.
            drop(writer);
        });
        Ok(())
    }

    // ---- entries

    fn listed(&mut self, entry: &Entry) -> Result<(), Problem> {
        if let EntryKind::Split(counts) = &entry.kind {
            self.quarantined += counts.quarantined;
            self.check_quarantine(0)?;
        }
        let (size, rows) = match &entry.kind {
            EntryKind::Split(counts) => (entry.size, counts.sent),
            _ => (entry.size, 0),
        };
        self.run.registered.show(|live| {
            live.bytes_total += size;
            live.rows += rows;
        });
        Ok(())
    }

    fn check_quarantine(&self, here: u64) -> Result<(), Problem> {
        match self.job.quarantine_max {
            Some(max) if self.quarantined + here > max => {
                Err(Problem::new(Code::RowsRefused).with("rows", self.quarantined + here))
            }
            _ => Ok(()),
        }
    }

    /// What is here of the entries listed lately?
    fn look_up(&mut self) {
        let Some(stage) = self.stage.clone().filter(|_| !self.looking && !self.asked.is_empty()) else { return };
        self.looking = true;
        let batch: Vec<Entry> = self.asked.drain(..self.asked.len().min(LOOK_UP)).collect();
        let (store, predecessors) = (self.ctx.store.clone(), self.predecessors.clone());
        self.spawn(Done::Looked, move || {
            let found: Vec<(Entry, Answer)> = store.read_now(|db| {
                let look = |entry: Entry| stage.lookup(db, &entry, &predecessors).map(|answer| (entry, answer));
                batch.into_iter().map(look).collect::<Result<_, Problem>>()
            })?;
            // What has to be read for an answer is read while the store is free for others.
            let compared = found.into_iter().map(|(entry, answer)| {
                let answer = stage.compared(&entry, answer);
                (entry, answer)
            });
            Ok(compared.collect())
        });
    }

    fn looked(&mut self, found: Vec<(Entry, Answer)>) -> Result<(), Problem> {
        self.looking = false;
        for (entry, answer) in found {
            match answer {
                Answer::LeaveOut(what) => self.machine().leave_out(&entry, what)?,
                Answer::Compare(_) => return Err(Problem::new(Code::InsideFailed).cause("an entry was not compared")),
                Answer::Have(have, whole) => {
                    // It may have been read anew while it was looked up.
                    let newer = self.open.get(&entry.index).is_some_and(|open| open.revision > entry.revision);
                    if whole == Whole::Present && !newer {
                        self.present.insert(entry.index);
                    }
                    let known = match &have {
                        Have::Nothing => 0,
                        Have::Whole(_) => entry.size,
                        // A little more or less at a file's end does not matter to who watches.
                        Have::Chunks(chunks) => chunks.len() as u64 * u64::from(limits::CHUNK_BYTES),
                    };
                    if !matches!(have, Have::Whole(_)) && !newer {
                        self.open.insert(entry.index, entry.clone());
                    }
                    self.run.registered.show(|live| live.bytes += known);
                    self.machine().have(&entry, have)?;
                }
            }
        }
        Ok(())
    }

    /// What was written of an entry is void. No write to it may be under way while it begins anew.
    async fn again(&mut self, entry: Entry) -> Result<(), Problem> {
        let index = entry.index;
        // Nothing of its new state can have come yet: that is asked for after this.
        let (void, kept): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.writes).into_iter().partition(|chunk| chunk.meta().entry() == index);
        self.writes = kept;
        for chunk in void {
            self.give_back(&chunk.meta());
        }
        self.wait_for_writes(index).await?;
        self.forget(index, &entry.name).await?;
        self.open.insert(index, entry.clone());
        if let Some(stage) = self.stage.clone() {
            blocking(&self.ctx.world, move || stage.begin(&entry)).await?;
        }
        Ok(())
    }

    async fn wait_for_writes(&mut self, index: u64) -> Result<(), Problem> {
        let mut later = Vec::new();
        let mut result = Ok(());
        while self.write_jobs > 0 {
            match self.jobs.recv().await {
                Some(done @ Done::Wrote { .. }) => {
                    let wrote = self.wrote(done);
                    result = result.and(wrote);
                }
                Some(other) => later.push(other),
                None => break,
            }
        }
        self.writing.remove(&index);
        for done in later {
            // They are taken up in their turn.
            let _ = self.jobs_in.send(done);
        }
        result
    }

    async fn forget(&mut self, index: u64, name: &[u8]) -> Result<(), Problem> {
        self.progress.drop_entry(index);
        self.completed.remove(&index);
        self.present.remove(&index);
        self.open.remove(&index);
        if let Some(stage) = &self.stage {
            stage.drop_part(index);
        }
        let (id, name) = (self.run.row.id.clone(), name.to_vec());
        self.ctx.store.write(move |tx| exchange::forget_landing_entry(tx, &id, &name)).await
    }

    /// All of it is in its file, or stood there before.
    fn complete(&mut self, entry: Entry) {
        let asked = self.open.remove(&entry.index).is_some();
        let whole = if self.present.remove(&entry.index) { Whole::Present } else { Whole::Part };
        if asked && entry.kind == EntryKind::File {
            self.files_sent += 1;
        }
        self.since.get_or_insert(steady(&self.ctx.world));
        self.progress.whole.push((entry, whole));
        self.run.registered.show(|live| live.files += 1);
    }

    // ---- writing and making durable

    fn write_some(&mut self) {
        let Some(stage) = self.stage.clone() else { return };
        while self.write_jobs < WRITE_JOBS && !self.writes.is_empty() {
            let mut batch = Vec::new();
            let mut bytes = 0;
            while bytes < WRITE_BYTES && batch.len() < WRITE_CHUNKS {
                let Some(chunk) = self.writes.pop_front() else { break };
                let Some(entry) = self.open.get(&chunk.meta().entry()).cloned() else {
                    // Its entry was left out meanwhile.
                    self.give_back(&chunk.meta());
                    continue;
                };
                bytes += u64::from(chunk.meta().bytes());
                batch.push((entry, chunk));
            }
            if batch.is_empty() {
                return;
            }
            self.write_jobs += 1;
            let (stage, done) = (stage.clone(), self.jobs_in.clone());
            let arrived = self.arrived.clone();
            let blocking = self.ctx.world.blocking.clone();
            tokio::spawn(async move {
                let metas: Vec<ChunkMeta> = batch.iter().map(|(_, chunk)| chunk.meta()).collect();
                let written = blocking.run(move || {
                    let again = arrived.map_or(0, |arrived| arrived.note(&batch));
                    let result = batch.iter().try_for_each(|(entry, chunk)| stage.write(entry, chunk));
                    (again, result)
                });
                let (again, result) = match written.await {
                    Ok(written) => written,
                    Err(panicked) => (0, Err(Problem::new(Code::InsideFailed).cause(panicked))),
                };
                let _ = done.send(Done::Wrote { metas, again, result });
            });
        }
    }

    /// A chunk that is not written after all: its credit is free again.
    fn give_back(&mut self, meta: &ChunkMeta) {
        if let Some(left) = self.writing.get_mut(&meta.entry()) {
            *left -= 1;
            if *left == 0 {
                self.writing.remove(&meta.entry());
            }
        }
        self.machine().durable(meta.credit());
    }

    fn wrote(&mut self, done: Done) -> Result<(), Problem> {
        let Done::Wrote { metas, again, result } = done else { return Ok(()) };
        self.write_jobs -= 1;
        self.resent_bytes += again;
        for meta in metas {
            let index = meta.entry();
            let left = self.writing.get_mut(&index).map(|left| {
                *left -= 1;
                *left
            });
            if left == Some(0) {
                self.writing.remove(&index);
            }
            if result.is_err() {
                continue;
            }
            if let Some(entry) = self.open.get(&index).filter(|entry| entry.revision == meta.revision()) {
                self.progress.add(entry, &meta);
                self.since.get_or_insert(steady(&self.ctx.world));
                self.run.registered.show(|live| live.bytes += u64::from(meta.bytes()));
            } else {
                self.machine().durable(meta.credit());
            }
            if !self.writing.contains_key(&index)
                && let Some(entry) = self.completed.remove(&index)
            {
                self.complete(entry);
            }
        }
        result
    }

    fn flush_if_due(&mut self) {
        if self.flushing {
            return;
        }
        if self.progress.is_empty() {
            self.since = None;
            return;
        }
        let old = self.since.is_none_or(|since| since.plus_ms(PROGRESS_MS) <= steady(&self.ctx.world));
        let idle = self.handed.is_some() && self.write_jobs == 0;
        if !(old || idle || self.progress.bytes >= FLUSH_BYTES || self.progress.whole.len() >= FLUSH_ENTRIES) {
            return;
        }
        self.flush();
    }

    fn flush(&mut self) {
        let Some(stage) = self.stage.clone() else { return };
        self.flushing = true;
        self.since = None;
        let progress = std::mem::take(&mut self.progress);
        let (store, id, session, row) = (self.ctx.store.clone(), self.run.row.id.clone(), self.session, self.row());
        self.show();
        self.spawn(Done::Flushed, move || {
            stage.sync(&progress)?;
            crate::crash_point!("synced");
            store.write_now(|tx| {
                progress.record(tx, &id, session)?;
                transfers::update(tx, &row).map(|_| ())
            })?;
            crate::crash_point!("recorded");
            Ok(progress)
        });
    }

    fn flushed(&mut self, progress: Progress) {
        self.machine().durable(progress.credit);
        let splits = progress.whole.into_iter().filter(|(entry, _)| matches!(entry.kind, EntryKind::Split(_)));
        self.to_stage.extend(splits.map(|(entry, _)| entry));
    }

    /// A split whose file is whole goes into the destination's staging, one at a time.
    fn stage_some(&mut self) {
        let Some(stage) = self.stage.clone().filter(|_| !self.staging) else { return };
        let Some(entry) = self.to_stage.pop_front() else { return };
        self.staging = true;
        let (store, id, now) = (self.ctx.store.clone(), self.run.row.id.clone(), self.ctx.world.clock.now());
        self.spawn(Done::StagedSplit, move || finish::stage_split(&store, &stage, &id, &entry, now));
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

    // ---- the end

    /// Once everything handed over is durable and staged: compare, commit, state.
    fn finish_if_whole(&mut self) -> Result<(), Problem> {
        let busy = self.flushing
            || self.staging
            || self.write_jobs > 0
            || !self.progress.is_empty()
            || !self.to_stage.is_empty()
            || !self.completed.is_empty()
            || !self.writes.is_empty();
        if busy || self.finishing {
            return Ok(());
        }
        let (Some(handover), Some(stage), Some(offer)) = (self.handed.clone(), self.stage.clone(), &self.offer) else {
            return Ok(());
        };
        let statement = settle::open(&self.ctx, &self.run.row.peer, &handover.statement)?;
        let id = self.run.row.id.clone();
        let splits = match stage.place() {
            Place::Table(_) => Some(self.ctx.store.read_now(|db| split_totals(db, &id))?),
            Place::Folder(_) => None,
        };
        if let Some(splits) = &splits {
            self.check_quarantine(splits.quarantined)?;
        }
        let digest = handover.digest.map(|(sum, count)| RowDigest { sum: sum.into(), count });
        let handed = HandedOver { statement: &statement, digest, salt: offer.salt.into() };
        let staged = Staged::of(&mut self.machine(), &handed, splits)?;
        let left_out = self.machine().left_out().clone();
        self.base.state = State::Staged;
        let finishing = finish::Finishing {
            ctx: self.ctx.clone(),
            row: self.row(),
            job: self.job.clone(),
            stage,
            session: self.session,
        };
        self.show();
        self.finishing = true;
        let jobs = self.jobs_in.clone();
        tokio::spawn(async move {
            let finished = finishing.record_and_commit(staged, left_out).await;
            let _ = jobs.send(Done::Finished(finished));
        });
        Ok(())
    }

    /// Makes everything that arrived durable, states what has to be stated, and says how the session ended.
    async fn leave(&mut self, ended: Result<Ended, Problem>) -> Result<Ended, Problem> {
        if let Some(row) = self.end.take() {
            return Ok(self.left(row).await);
        }
        if self.finishing && !self.finished {
            // The commit goes on by itself; the next attempt finds it done, or does it again.
            while let Some(done) = self.jobs.recv().await {
                if let Done::Finished(_) = done {
                    break;
                }
            }
        } else if !self.finishing {
            self.make_durable().await;
        }
        let stored = if self.finishing { super::load(&self.ctx, &self.base.id).await? } else { None };
        self.run.row = stored.unwrap_or_else(|| self.row());
        // The time until now is in the row.
        self.run.began = self.ctx.world.clock.monotonic();
        if let Some(ending) = self.kept.take()
            && self.run.may_end(None).await?
        {
            self.ended_by_peer(&ending).await?;
            if let Some(row) = self.end.take() {
                self.say_goodbye().await;
                return Ok(self.left(row).await);
            }
        }
        match ended {
            Err(problem) => {
                if !self.run.may_end(Some(&problem)).await? {
                    return Ok(Ended::Lost(problem));
                }
                let subject = self.run.subject();
                let statement = settle::state_ending(&self.ctx, &self.run.row, &subject, &problem).await?;
                let ending = settle::refused(&problem, statement.as_ref());
                match settle::ended_state(&problem) {
                    State::Refused => self.machine().refuse(ending),
                    _ => self.machine().fail(ending),
                }
                self.run.told = self.say_goodbye().await;
                Err(problem)
            }
            Ok(Ended::Stopped) if *self.run.registered.stop.borrow() == Stop::Cancelled => {
                if !self.run.may_end(None).await? {
                    return Ok(Ended::Stopped);
                }
                let problem = Problem::new(Code::Cancelled);
                let subject = self.run.subject();
                let statement = settle::state_ending(&self.ctx, &self.run.row, &subject, &problem).await?;
                self.machine().fail(settle::refused(&problem, statement.as_ref()));
                self.run.told = self.say_goodbye().await;
                Ok(Ended::Stopped)
            }
            other => other,
        }
    }

    /// The transfer has ended: takes away what it needs no more.
    async fn left(&mut self, row: Transfer) -> Ended {
        self.run.row = row.clone();
        self.run.registered.show(|live| live.row = row.clone());
        if row.state == State::Settled {
            finish::clean_up(&self.ctx, &row).await;
        } else {
            discard(self.run).await;
        }
        Ended::Final(Box::new(row))
    }

    /// Tells the provider how it ended and takes its answer, for a short while; whether it answered.
    async fn say_goodbye(&mut self) -> bool {
        self.ending = Some(steady(&self.ctx.world).plus_ms(GOODBYE_MS));
        loop {
            self.transmit();
            loop {
                let event = self.machine().poll_event();
                match event {
                    Some(ConsumerEvent::Noted(statement)) => {
                        let subject = self.run.subject();
                        if let Err(problem) = settle::take_ending(&self.ctx, &subject, &statement).await {
                            tracing::warn!(%problem, "The provider's answer was not kept");
                        }
                    }
                    Some(_) => {}
                    None => break,
                }
            }
            if self.machine().is_done() && !self.blocked {
                return true;
            }
            let ending = self.ending;
            let now = tokio::select! {
                biased;
                frame = self.frames.recv() => match frame {
                    Some(Ok(frame)) => Some(frame),
                    _ => return false,
                },
                _ = self.out.reserve(), if self.blocked => None,
                () = until(&self.ctx.world, ending) => return false,
            };
            if let Some(frame) = now
                && self.machine().handle_frame(frame, steady(&self.ctx.world)).is_err()
            {
                return false;
            }
        }
    }

    async fn make_durable(&mut self) {
        self.write_some();
        while self.write_jobs > 0 || self.flushing || !self.progress.is_empty() {
            if self.write_jobs == 0 && !self.flushing {
                self.flush();
            }
            let Some(done) = self.jobs.recv().await else { return };
            let result = match done {
                done @ Done::Wrote { .. } => self.wrote(done),
                Done::Flushed(Ok(progress)) => {
                    self.flushing = false;
                    self.flushed(progress);
                    Ok(())
                }
                Done::Flushed(Err(problem)) => {
                    self.flushing = false;
                    tracing::warn!(transfer = %self.run.row.id, %problem, "Progress could not be made durable");
                    return;
                }
                _ => Ok(()),
            };
            if let Err(problem) = result {
                tracing::warn!(transfer = %self.run.row.id, %problem, "A chunk could not be written");
            }
            self.write_some();
        }
        if let Some(arrived) = &self.arrived {
            arrived.clear();
        }
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

fn split_totals(db: &rusqlite::Connection, id: &TransferId) -> Result<SplitTotals, Problem> {
    let mut totals = SplitTotals::default();
    let mut from = 0;
    loop {
        let page = exchange::landing_entries(db, id, from, PAGE)?;
        let Some(last) = page.last() else { return Ok(totals) };
        from = last.entry.index + 1;
        for found in &page {
            let staged = found.staged.as_ref().ok_or_else(|| {
                let name = String::from_utf8_lossy(&found.entry.name).into_owned();
                Problem::new(Code::InsideFailed).cause(format!("split {name} is not staged"))
            })?;
            totals.add(staged);
        }
    }
}

const FRAMES: usize = 64;
const CLOSING: Duration = Duration::from_secs(5);
const RECEIVED: usize = 16;
const LOOK_UP: usize = 1024;
const WRITE_JOBS: usize = 3;
const WRITE_BYTES: u64 = 2 << 20;
const WRITE_CHUNKS: usize = 64;
const WRITES_WAITING: usize = 256;
const FLUSH_BYTES: u64 = limits::PROGRESS_BYTES / 2;
const FLUSH_ENTRIES: usize = 512;
const PROGRESS_MS: i64 = limits::PROGRESS_MS as i64;
const GOODBYE_MS: i64 = 5_000;
const PAGE: u32 = 1024;
