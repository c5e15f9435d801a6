//! The giving side of one transfer, for as long as one control channel lasts.
//! Every request passes the policy first, and the policy is looked at again whenever it changes and from time
//! to time: a grant withdrawn stops an open transfer. What was stated before is given again byte for byte.
//! Reading is `send`, extracting is `spooling`, signing is `settle`; what is said when is the machine's.

mod answer;
mod ending;
mod feed;
mod handover;
mod outgoing;
mod request;

use super::wire::{read_frames, write_frames};
use super::{Stop, steady, until};
use crate::context::Context;
use crate::send::Sent;
use crate::settle::{self, Subject};
use crate::store::{Transfer, transfers};
use answer::Given;
use feed::Fed;
use outgoing::ReadDone;
use posthouse_platform::endpoint::{Transport, Writer};
use posthouse_platform::frames::{FrameReader, FrameWriter};
use posthouse_protocol::frame::Frame;
use posthouse_protocol::id::{NodeId, TransferId};
use posthouse_protocol::job::State;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::provider::{Provider, ProviderEvent};
use posthouse_protocol::time::Timestamp;
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

    fn look_at_policy(&self) -> Result<(), Problem> {
        match &self.given {
            // What is handed over is not taken back; what is still open stops.
            Some(given) if given.offered.handover.is_none() && self.ending.is_none() => {
                self.ctx.authority.still_permits(&given.permit)
            }
            _ => Ok(()),
        }
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

const FRAMES: usize = 64;
const CLOSING: Duration = Duration::from_secs(5);
const POLICY_LOOK: Duration = Duration::from_secs(1);
/// Roots of files are stored in groups.
const HASHES_KEPT: usize = 1024;
