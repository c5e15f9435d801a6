//! One connection's worth of taking: from the request to the settled receipt, or to whatever cut it short.
//! The machine says what is asked and what is complete; here chunks are written and made durable in groups, and their
//! credit is given back. When the line goes, everything that arrived is made durable first.

pub(super) mod arrived;
mod channels;
mod durable;
mod ending;
mod finish;
mod giving;
mod judging;
mod listing;
mod offered;
mod older;
mod writing;

use super::predecessors;
use super::run::{Knows, Line, Run};
use super::settling::settled;
use crate::config::Job;
use crate::context::Context;
use crate::peers::Worn;
use crate::receive::Received;
use crate::settle;
use crate::spent::{Meters, Waiting, What};
use crate::stage::{Progress, Stage};
use crate::store::Transfer;
use crate::transfer::wire::Wire;
use crate::transfer::{blocking, steady, until};
use durable::Durable;
use finish::Commit;
use giving::Giving;
use judging::{Fault, Judging, LOOK_MS, Seen, Step};
use listing::{Found, Listing};
use offered::Accepted;
use older::{CutOlder, Olders};
use posthouse_platform::endpoint::Connection;
use posthouse_protocol::consumer::{Consumer, ConsumerEvent, Verdict};
use posthouse_protocol::frame::{Frame, Handover, Refused};
use posthouse_protocol::id::TransferId;
use posthouse_protocol::limits;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::statement::Statement;
use posthouse_protocol::time::Timestamp;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use writing::{Writing, Wrote};

/// How a session came out, where it was not for a problem that ends the transfer.
pub(super) enum Ended {
    /// The row in its final state.
    Final(Box<Transfer>),
    /// Asked to stop, or the next step needs no waiting.
    Stopped,
    NoRoom(Problem),
    /// Where it lands may not be used at this time of the day.
    Closed(Problem),
    Lost(Problem),
    /// The line was given up for another, which is there.
    Replaced,
}

/// Asks for the transfer over a line and takes what comes.
pub(super) async fn take(run: &mut Run, job: &Job, line: Line) -> Result<Ended, Problem> {
    let Line { connection, reader, writer, request, knows } = line;
    let (wire, pumps) = Wire::start(reader, writer);
    let now = steady(&run.ctx.world);
    let machine = Consumer::new(request, run.row.peer.clone(), now).after_request();
    let judging = Judging::new(run.given_up, now);
    let (received_in, received) = mpsc::channel(RECEIVED);
    let (jobs_in, jobs) = mpsc::unbounded_channel();
    let predecessors = predecessors(&run.ctx, &run.row).await?;
    let base = run.row.clone();
    let mut session = Session {
        ctx: run.ctx.clone(),
        meters: run.ctx.meters(&run.row.id),
        tail: None,
        base,
        run,
        job,
        connection,
        knows,
        machine: Arc::new(Mutex::new(machine)),
        wire,
        received_in,
        received,
        jobs_in,
        jobs,
        predecessors,
        judging,
        looked: now,
        accepted: None,
        opening: JoinSet::new(),
        listing: Listing::default(),
        olders: Olders::default(),
        writing: Writing::default(),
        durable: Durable::default(),
        giving: Giving::default(),
        handed: None,
        commit: Commit::NotYet,
        kept: None,
        end: None,
        ending: None,
    };
    let ended = session.run().await;
    let ended = session.leave(ended).await;
    drop(session);
    pumps.close().await;
    ended
}

struct Session<'r> {
    ctx: Arc<Context>,
    /// What the transfer waits for.
    meters: Arc<Meters>,
    /// The provider has put everything on the line, and not all of it is here.
    tail: Option<Waiting>,
    run: &'r mut Run,
    /// The row as it was when the session began: the session's counters are added to it.
    base: Transfer,
    job: &'r Job,
    connection: Arc<dyn Connection>,
    knows: Knows,
    machine: Arc<Mutex<Consumer>>,
    wire: Wire,
    received_in: mpsc::Sender<Received>,
    received: mpsc::Receiver<Received>,
    jobs_in: mpsc::UnboundedSender<Done>,
    jobs: mpsc::UnboundedReceiver<Done>,
    predecessors: Vec<TransferId>,
    judging: Judging,
    /// When the line was last looked at.
    looked: Timestamp,
    accepted: Option<Accepted>,
    /// Data channels that are not open yet; with the session goes what is left of them.
    opening: JoinSet<Result<(), Problem>>,
    listing: Listing,
    olders: Olders,
    writing: Writing,
    durable: Durable,
    giving: Giving,
    handed: Option<Handover>,
    commit: Commit,
    /// How the provider ended it while it was being committed here.
    kept: Option<Refused>,
    /// Set when the transfer has ended and only the line is to be closed in peace.
    end: Option<Transfer>,
    ending: Option<Timestamp>,
}

/// Work done elsewhere.
#[expect(clippy::large_enum_variant, reason = "the large one comes once, at the end")]
enum Done {
    Looked(Result<Vec<Found>, Problem>),
    CutOlder(Result<CutOlder, Problem>),
    Wrote(Wrote),
    Flushed(Result<Progress, Problem>),
    StagedSplit(Result<u64, Problem>),
    /// Whether there is another line now.
    Replaced(Result<bool, Problem>),
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
            if self.end.is_some() && self.machine().is_done() && !self.wire.blocked {
                return Ok(Ended::Stopped);
            }
            let woken = self.wait().await;
            let handled = self.handle(woken).await;
            if let Some(ended) = no_room(handled)? {
                return Ok(ended);
            }
        }
    }

    fn transmit(&mut self) {
        self.wire.transmit(|| locked(&self.machine).poll_transmit(steady(&self.ctx.world)));
    }

    async fn wait(&mut self) -> Woken {
        let timeout = self.machine().poll_timeout();
        let look = self.received().map(|_| self.looked.plus_ms(LOOK_MS));
        let deadlines = [self.durable.deadline(), self.giving.deadline(), timeout, self.ending, look];
        let deadline = deadlines.into_iter().flatten().min();
        let room = self.writing.has_room();
        tokio::select! {
            biased;
            () = self.ctx.drain.cancelled() => Woken::Stop,
            _ = self.run.registered.stop.changed() => Woken::Stop,
            Some(done) = self.jobs.recv() => Woken::Done(done),
            frame = self.wire.frames.recv() => Woken::Frame(frame),
            Some(received) = self.received.recv(), if room => Woken::Received(received),
            _ = self.wire.out.reserve(), if self.wire.blocked => Woken::Line,
            () = until(&self.ctx.world, deadline) => Woken::Time,
        }
    }

    async fn handle(&mut self, woken: Woken) -> Result<Option<Ended>, Problem> {
        let now = steady(&self.ctx.world);
        match woken {
            Woken::Frame(Some(Ok(frame))) => {
                if matches!(frame, Frame::Handover(_)) {
                    // It overtakes what is on its way on other channels, of which the provider says nothing.
                    self.tail = Some(self.meters.wait(What::Line));
                }
                let handled = self.machine().handle_frame(frame, now);
                match handled {
                    Ok(_) => {}
                    Err(problem) if problem.code == Code::FrameInvalid => return Ok(Some(Ended::Lost(problem))),
                    Err(problem) => return Err(problem),
                }
            }
            Woken::Frame(Some(Err(problem))) => return Ok(Some(Ended::Lost(problem))),
            Woken::Frame(None) => return Ok(Some(Ended::Lost(self.lost("the channel ended")))),
            Woken::Received(received) => return self.take_received(received),
            Woken::Line => {}
            Woken::Done(done) => return self.done(done).await,
            Woken::Stop => {
                // The loop above sees why.
                self.run.registered.stop.mark_changed();
                return Ok(Some(Ended::Stopped));
            }
            Woken::Time => {
                if self.ending.is_some_and(|at| at <= now) {
                    return Ok(Some(Ended::Stopped));
                }
                self.machine().handle_timeout(now);
                self.look_at_line(now);
            }
        }
        Ok(None)
    }

    /// Takes a chunk, and others that wait behind it: small ones come quicker than the session's other work is done.
    fn take_received(&mut self, first: Received) -> Result<Option<Ended>, Problem> {
        for received in with_waiting(first, &mut self.received, RECEIVED) {
            match received {
                Received::Chunk(chunk) => {
                    let verdict = self.machine().handle_chunk(chunk.meta())?;
                    if verdict == Verdict::Write {
                        self.writing.push(chunk);
                    }
                }
                Received::Bad(header) => {
                    self.older_changed(&header);
                    self.machine().handle_bad_chunk(&header)?;
                }
                Received::Dropped => {}
                Received::Lost(problem) => {
                    // Data channels may close once everything is here.
                    if self.handed.is_none() && self.end.is_none() {
                        return Ok(Some(Ended::Lost(problem)));
                    }
                }
            }
        }
        Ok(None)
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
        self.cut_some();
        self.write_some();
        self.flush_if_due();
        self.give_what_is_due();
        self.stage_some();
        self.finish_if_whole()?;
        Ok(None)
    }

    async fn event(&mut self, event: ConsumerEvent) -> Result<Option<Ended>, Problem> {
        match event {
            ConsumerEvent::Offered(offer) => return self.offered(*offer).await,
            ConsumerEvent::Entry(entry) => self.listed(entry)?,
            ConsumerEvent::Again(entry) => self.again(entry).await?,
            ConsumerEvent::Complete(entry) => {
                if let Some(entry) = self.writing.complete_later(entry) {
                    self.complete(entry)?;
                }
            }
            ConsumerEvent::LeftOut(Some(index), what) => self.left_out(index, what.name).await?,
            ConsumerEvent::LeftOut(None, _) => {}
            ConsumerEvent::HandedOver(handover) => {
                self.tail = None;
                self.meters.told(handover.spent);
                self.handed = Some(handover);
            }
            ConsumerEvent::Settled => {
                let row = settled(&self.ctx, &self.row()).await?;
                self.end = Some(row);
            }
            ConsumerEvent::Refused(ending) | ConsumerEvent::Failed(ending) => {
                settle::take_ending(&self.ctx, &self.run.subject(), &ending.statement).await?;
                if self.commit == Commit::UnderWay {
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

    async fn done(&mut self, done: Done) -> Result<Option<Ended>, Problem> {
        match done {
            Done::Looked(found) => self.looked(found?)?,
            Done::CutOlder(cut) => self.cut_older(cut?)?,
            Done::Wrote(wrote) => self.wrote(wrote)?,
            Done::Flushed(progress) => self.flushed(progress)?,
            Done::StagedSplit(staged) => self.staged_split(staged).await?,
            Done::Replaced(Ok(true)) => return Ok(Some(Ended::Replaced)),
            Done::Replaced(outcome) => {
                if let Err(problem) = outcome {
                    tracing::debug!(transfer = %self.base.id, %problem, "There is no other line");
                }
                self.judging.goes_on(steady(&self.ctx.world));
            }
            Done::Finished(finished) => return self.committed(finished).await,
        }
        Ok(None)
    }

    /// What the transport has received, where that matters: before the offer and from the handover on, a line may be
    /// silent for long.
    fn received(&self) -> Option<u64> {
        let is_judged = self.accepted.is_some() && self.ending.is_none() && self.machine().is_moving();
        if is_judged { self.connection.bytes_received() } else { None }
    }

    fn look_at_line(&mut self, now: Timestamp) {
        let Some(received) = self.received().filter(|_| now >= self.looked.plus_ms(LOOK_MS)) else { return };
        self.looked = now;
        let rtt_ms = self.connection.rtt_ms().unwrap_or_default();
        let takes = self.writing.has_room() && self.durable.has_room(self.writing.bytes());
        let (is_all_sent, may_come) = {
            let machine = self.machine();
            (machine.is_all_sent(), takes && machine.has_credit_open())
        };
        match self
            .judging
            .look(&Seen { received, rtt_ms, is_held: is_all_sent || self.connection.is_held(), may_come }, now)
        {
            Step::Wait => {}
            Step::Ask => self.machine().ask(now),
            Step::GiveUp(fault) => {
                let (pool, peer, jobs) = (self.ctx.pool.clone(), self.run.row.peer.clone(), self.jobs_in.clone());
                let given_up = self.connection.clone();
                let worn = match fault {
                    Fault::Silent => Worn::Silent { received },
                    Fault::Slow => Worn::Slow,
                };
                tokio::spawn(async move {
                    let replaced = pool.replace(&peer, &given_up, worn).await;
                    // A session that is over needs none.
                    let _ = jobs.send(Done::Replaced(replaced));
                });
            }
        }
    }

    /// Does blocking work elsewhere; what came of it wakes the session.
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

    fn machine(&self) -> MutexGuard<'_, Consumer> {
        locked(&self.machine)
    }

    fn stage(&self) -> Option<Arc<Stage>> {
        self.accepted.as_ref().map(|accepted| accepted.stage.clone())
    }

    /// The transfer's row as this session has brought it.
    fn row(&self) -> Transfer {
        let counters = self.machine().counters();
        let mut row = self.base.clone();
        row.transport = self.run.row.transport;
        row.started = self.run.row.started;
        row.bytes_sent += counters.wire_bytes;
        row.chunks += counters.chunks;
        row.resent_chunks += counters.resent_chunks + self.writing.resent_bytes().div_ceil(limits::CHUNK_BYTES.into());
        row.files_sent += self.listing.files_sent();
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

fn locked(machine: &Mutex<Consumer>) -> MutexGuard<'_, Consumer> {
    machine.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first, and what waits in its channel behind it: `most` in all, and the rest stays there.
fn with_waiting<T>(first: T, channel: &mut mpsc::Receiver<T>, most: usize) -> Vec<T> {
    let mut some = vec![first];
    while some.len() < most
        && let Ok(one) = channel.try_recv()
    {
        some.push(one);
    }
    some
}

/// A full disk pauses a transfer, wherever it was noticed.
fn no_room(done: Result<Option<Ended>, Problem>) -> Result<Option<Ended>, Problem> {
    match done {
        Err(problem) if problem.code == Code::DiskFull => Ok(Some(Ended::NoRoom(problem))),
        done => done,
    }
}

/// What they hold is bounded by the credit.
const RECEIVED: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_taken_in_its_order_and_none_is_lost() {
        let (send, mut receive) = mpsc::channel(8);
        for one in 1..=5 {
            send.try_send(one).unwrap();
        }
        assert_eq!(with_waiting(0, &mut receive, 4), [0, 1, 2, 3]);
        assert_eq!(with_waiting(9, &mut receive, 1), [9]);
        assert_eq!(with_waiting(9, &mut receive, 4), [9, 4, 5]);
        drop(send);
        assert_eq!(with_waiting(9, &mut receive, 4), [9]);
    }
}
