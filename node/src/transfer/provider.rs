//! The giving side of one transfer, for as long as one control channel lasts.
//! Every request passes the policy first, and the policy is looked at again whenever it changes and from time
//! to time: a grant withdrawn stops an open transfer. What was stated before is given again byte for byte.
//! Reading is `send`, extracting is `spooling`, signing is `settle`; what is said when is the machine's.

mod answer;
mod ending;
mod feed;
mod handover;
mod held;
mod outgoing;
mod request;

use super::wire::Wire;
use super::{Stop, steady, until};
use crate::context::Context;
use crate::settle::Subject;
use crate::store::{Transfer, spent, transfers};
use answer::Given;
use feed::Fed;
use outgoing::Came;
use posthouse_platform::endpoint::{Relayed, Transport, Writer};
use posthouse_platform::frames::{FrameReader, FrameWriter};
use posthouse_protocol::frame::Frame;
use posthouse_protocol::id::{NodeId, TransferId};
use posthouse_protocol::job::State;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::provider::{Provider, ProviderEvent};
use posthouse_protocol::time::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior};

/// Who asks, and over what.
#[derive(Clone)]
pub(super) struct Caller {
    pub peer: NodeId,
    pub transfer: TransferId,
    pub transport: Transport,
    /// How relays carry it.
    pub relayed: Option<Relayed>,
    pub epoch: u64,
    pub takes_lz4: bool,
    /// Rows may say what they do.
    pub knows_operations: bool,
    /// It understands rows that are masked, checked or ruled.
    pub knows_governed: bool,
}

/// Serves one control channel to its end.
pub(super) async fn serve(ctx: Arc<Context>, caller: Caller, reader: FrameReader, writer: FrameWriter) {
    let (peer, transfer) = (caller.peer.clone(), caller.transfer.clone());
    let (wire, pumps) = Wire::start(reader, writer);
    let machine = Provider::new(peer.clone(), steady(&ctx.world));
    let mut session =
        Session { ctx, caller, machine, wire, given: None, held: None, ending: None, wished: None, kept_ms: 0 };
    match session.run().await {
        Ok(()) => tracing::debug!(%peer, %transfer, "A session ended"),
        Err(problem) => {
            tracing::info!(%peer, %transfer, %problem, "A session was lost");
            if let Err(problem) = session.keep_spent(1).await {
                tracing::debug!(%peer, %transfer, %problem, "What was waited for is not kept");
            }
            if let Err(problem) = session.keep_hashes().await {
                tracing::debug!(%peer, %transfer, %problem, "Roots that were found are not kept");
            }
        }
    }
    // A line that takes nothing more must not keep the session's place from the next one, which may wait for it.
    if !session.is_superseded() {
        let _ = tokio::time::timeout(CLOSING, session.drain()).await;
    }
    drop(session);
    pumps.close().await;
}

struct Session {
    ctx: Arc<Context>,
    caller: Caller,
    machine: Provider,
    wire: Wire,
    given: Option<Given>,
    /// Its operator holds what is written into parts: the state that it had before.
    held: Option<State>,
    /// Statements are being exchanged after an ending; then the session is over at this time.
    ending: Option<Timestamp>,
    /// Why it should end; it was handed over, so it does once the consumer has stated that it did not land.
    wished: Option<(Transfer, Problem)>,
    /// How much waiting the store knew of last.
    kept_ms: u64,
}

/// What woke the session.
#[expect(clippy::large_enum_variant, reason = "it is taken apart as soon as it comes")]
enum Woken {
    Frame(Option<Result<Frame, Problem>>),
    Stop(Stop),
    Drain,
    Policy,
    Data(Writer),
    Came(Came),
    Fed(Result<Vec<Fed>, Problem>),
    Line,
    Time,
}

impl Session {
    async fn run(&mut self) -> Result<(), Problem> {
        let mut policy = self.ctx.authority.subscribe();
        let mut look = tokio::time::interval(POLICY_LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if let Err(problem) = self.work().await {
                self.fail(problem).await?;
            }
            self.transmit();
            if self.machine.is_done() && !self.wire.blocked {
                return Ok(());
            }
            let woken = self.wait(&mut policy, &mut look).await;
            if let Err(problem) = self.handle(woken).await? {
                self.fail(problem).await?;
            }
        }
    }

    fn is_superseded(&self) -> bool {
        self.given.as_ref().is_some_and(|given| given.registered.is_superseded())
    }

    /// Sends what is left to say when the session is over.
    async fn drain(&mut self) {
        while let Some(frame) = self.machine.poll_transmit(steady(&self.ctx.world)) {
            if self.wire.out.send(frame).await.is_err() {
                return;
            }
        }
    }

    fn transmit(&mut self) {
        self.wire.transmit(|| self.machine.poll_transmit(steady(&self.ctx.world)));
    }

    async fn wait(&mut self, policy: &mut watch::Receiver<u64>, look: &mut Interval) -> Woken {
        let deadline = [self.machine.poll_timeout(), self.ending].into_iter().flatten().min();
        let world = &self.ctx.world;
        let Some(given) = &mut self.given else {
            return tokio::select! {
                biased;
                () = self.ctx.drain.cancelled() => Woken::Drain,
                frame = self.wire.frames.recv() => Woken::Frame(frame),
                _ = self.wire.out.reserve(), if self.wire.blocked => Woken::Line,
                () = until(world, deadline) => Woken::Time,
            };
        };
        let room = given.moving && self.held.is_none() && self.machine.room() > 0;
        tokio::select! {
            biased;
            () = self.ctx.drain.cancelled() => Woken::Drain,
            _ = given.registered.stop.changed() => Woken::Stop(*given.registered.stop.borrow_and_update()),
            Ok(()) = policy.changed() => Woken::Policy,
            _ = look.tick() => Woken::Policy,
            frame = self.wire.frames.recv() => Woken::Frame(frame),
            Some(writer) = given.data.recv() => Woken::Data(writer),
            came = given.outgoing.next() => Woken::Came(came),
            fed = given.feed.next(), if room && !given.feed.ended() => Woken::Fed(fed),
            _ = self.wire.out.reserve(), if self.wire.blocked => Woken::Line,
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
            Woken::Stop(Stop::Paused) if self.caller.transport == Transport::Ferry => return Ok(self.hold().await),
            Woken::Stop(Stop::Paused) => return Err(self.lost("it was paused here")),
            Woken::Stop(Stop::No) => return Ok(self.go_on().await),
            Woken::Line => {}
            Woken::Policy => {
                self.keep_spent(SPENT_KEPT_MS).await?;
                return Ok(self.look_at_policy());
            }
            Woken::Data(writer) => {
                if let Some(given) = &mut self.given {
                    given.outgoing.open_lane(writer, given.offered.offer.data_channels);
                }
            }
            Woken::Came(Came::Sent(sent)) => {
                let sent = sent?;
                if let Some(given) = &mut self.given {
                    given.sent(sent);
                }
            }
            Woken::Came(Came::Read(read)) => {
                if let Some(given) = self.given.as_mut().filter(|given| given.moving) {
                    return given.outgoing.read_done(&mut self.machine, read);
                }
            }
            Woken::Fed(fed) => return Ok(fed.and_then(|fed| self.list(fed))),
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
        // Behind all events: what the consumer left out is no longer among them.
        self.write_finals().await?;
        let Some(given) = &mut self.given else { return Ok(()) };
        given.outgoing.keep_hashes(HASHES_KEPT).await?;
        if self.held.is_some() {
            return Ok(());
        }
        given.outgoing.read_more(&mut self.machine)
    }

    async fn event(&mut self, event: ProviderEvent) -> Result<(), Problem> {
        match event {
            ProviderEvent::Requested(request) => self.requested(*request).await,
            ProviderEvent::Accepted(_) => {
                if let Some(given) = &mut self.given {
                    given.moving = true;
                }
                self.moves().await
            }
            ProviderEvent::Pieces(pieces) => {
                if let Some(given) = &mut self.given {
                    given.outgoing.told_pieces(pieces);
                }
                Ok(())
            }
            ProviderEvent::Wanted { entry, revision, chunks } => {
                if let Some(given) = &mut self.given {
                    given.outgoing.wanted(entry, revision, chunks);
                }
                Ok(())
            }
            ProviderEvent::LeftOut(entry, _) => {
                if let Some(given) = &mut self.given {
                    given.outgoing.drop_entry(entry);
                }
                Ok(())
            }
            ProviderEvent::Kept(splits) => {
                if let Some(spooling) = self.given.as_ref().and_then(|given| given.spooling.as_ref()) {
                    spooling.release(&self.ctx, splits);
                }
                Ok(())
            }
            ProviderEvent::Ready => {
                // All of it is sent: nothing is left to be held.
                self.go_on().await?;
                self.hand_over().await
            }
            ProviderEvent::Landed(statement) => self.landed(statement).await,
            ProviderEvent::Refused(ending) | ProviderEvent::Failed(ending) => self.ended_by_peer(ending).await,
            ProviderEvent::Noted(statement) => self.noted(&statement).await,
            ProviderEvent::Lost => Err(self.lost("it has been silent for too long")),
        }
    }

    fn subject(&self) -> Option<Subject> {
        let request = self.machine.request()?;
        Some(Subject::of(request, &self.ctx.name, &self.caller.peer))
    }

    /// Passes on what the feed found.
    fn list(&mut self, fed: Vec<Fed>) -> Result<(), Problem> {
        let Some(given) = self.given.as_mut().filter(|given| given.moving) else { return Ok(()) };
        for one in fed {
            match one {
                Fed::Entry(entry, stat) => {
                    let size = entry.size;
                    given.outgoing.listed(&entry, stat);
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

    fn look_at_policy(&self) -> Result<(), Problem> {
        match &self.given {
            // What is handed over is not taken back; what is still open stops.
            Some(given) if given.offered.handover.is_none() && self.ending.is_none() => {
                self.ctx.authority.still_permits(&given.permit)
            }
            _ => Ok(()),
        }
    }

    /// Keeps what was waited for, where there is so much more of it: what comes after a restart goes on from there.
    async fn keep_spent(&mut self, least_ms: u64) -> Result<(), Problem> {
        let Some(given) = self.given.as_ref().filter(|given| given.moving) else { return Ok(()) };
        let spent = self.ctx.meters(&given.subject.transfer).spent();
        let waited = [spent.source_ms, spent.line_ms].into_iter().flatten().fold(0, u64::saturating_add);
        if waited.saturating_sub(self.kept_ms) < least_ms {
            return Ok(());
        }
        self.kept_ms = waited;
        let (id, epoch) = (given.subject.transfer.clone(), self.ctx.epoch);
        self.ctx.store.write(move |tx| spent::put(tx, &id, epoch, &spent)).await
    }

    /// Keeps the roots that were found: the session that goes on for this one reads those files no more.
    async fn keep_hashes(&mut self) -> Result<(), Problem> {
        let Some(given) = &mut self.given else { return Ok(()) };
        given.outgoing.keep_hashes(1).await?;
        given.outgoing.hashes_kept().await
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

const CLOSING: Duration = Duration::from_secs(5);
const POLICY_LOOK: Duration = Duration::from_secs(1);
/// So much more waiting is worth a write.
const SPENT_KEPT_MS: u64 = 5_000;
/// Roots of files are stored in groups.
const HASHES_KEPT: usize = 1024;
