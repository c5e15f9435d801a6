//! Runs transfers through the rooms, on either side, and knows which are under way.
//! A transfer outlives its connections: whatever ends one, the next continues from what is durable.
//! Exactly one session of a transfer runs at a time on each side; a newer one takes its predecessor's place.
//! What the two sides say is decided by the machines in `protocol`; what is durable, by the rooms.

pub(crate) mod attachments;
mod consumer;
mod invite;
pub(crate) mod planning;
mod provider;
pub(crate) mod spooling;
pub(crate) mod wire;

pub(crate) use consumer::{OfferedRows, open_destination};
pub use consumer::{Outcome, recover, run_consumer, sweep};
pub(crate) use invite::ask;
pub use invite::push;

use crate::context::Context;
use crate::relay;
use crate::spent::{Meters, Spent};
use crate::store::{Transfer, meta};
pub(crate) use attachments::left_out;
use posthouse_platform::World;
use posthouse_platform::clock::Clock;
use posthouse_platform::endpoint::{Channel, Connection, Relayed, Remote, Writer};
use posthouse_platform::frames;
use posthouse_protocol::frame::line::{GOVERNED, LZ4, OPERATIONS};
use posthouse_protocol::frame::{Frame, Hello, Purpose};
use posthouse_protocol::id::{NodeId, TransferId};
use posthouse_protocol::job::State;
use posthouse_protocol::limits;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::time::Timestamp;
use spooling::Spooling;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// A transfer as it stands this moment.
#[derive(Debug, Clone)]
pub struct Live {
    /// Its row, with the counters of this session added.
    pub row: Transfer,
    /// Content so far (landed or sent, what was there before included), and in scope as far as it is listed.
    pub bytes: u64,
    pub bytes_total: u64,
    pub files: u64,
    pub rows: u64,
}

/// Why a session is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stop {
    #[default]
    No,
    Cancelled,
    /// By the operator, until `resume`.
    Paused,
    /// A newer session of the same transfer has begun.
    Superseded,
}

/// The transfers that run in this process.
#[derive(Default)]
pub struct Transfers {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    running: BTreeMap<TransferId, Running>,
    spooling: BTreeMap<TransferId, Arc<Spooling>>,
    /// What transfers wait for, from session to session.
    meters: BTreeMap<TransferId, Arc<Meters>>,
    /// Requests that are being answered: one of a transfer at a time.
    answering: BTreeSet<TransferId>,
    sessions: u64,
}

struct Running {
    session: u64,
    live: watch::Sender<Live>,
    stop: watch::Sender<Stop>,
    /// Providers: where data channels that the consumer opens go, if they come the way of its control channel.
    data: Option<DataDoor>,
}

/// Where a session takes data channels.
pub(crate) struct DataDoor {
    pub writers: mpsc::Sender<Writer>,
    pub relayed: Option<Relayed>,
}

/// A session's place in the registry; leaving it takes the session out.
pub(crate) struct Registered {
    ctx: Arc<Context>,
    transfer: TransferId,
    session: u64,
    pub(crate) stop: watch::Receiver<Stop>,
    live: watch::Sender<Live>,
    /// The session before, where it has not left in time.
    older: Option<watch::Sender<Stop>>,
}

/// The right to answer a transfer's request, from before the store is read until its session is registered.
pub(crate) struct Answering {
    ctx: Arc<Context>,
    transfer: TransferId,
}

impl Answering {
    /// None while another request for the same transfer is being answered.
    pub(crate) fn enter(ctx: &Arc<Context>, transfer: &TransferId) -> Option<Self> {
        let entered = ctx.transfers.locked().answering.insert(transfer.clone());
        entered.then(|| Self { ctx: ctx.clone(), transfer: transfer.clone() })
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.ctx.transfers.locked().answering.remove(&self.transfer);
    }
}

impl Transfers {
    pub fn list(&self) -> Vec<Live> {
        self.locked().running.values().map(|running| running.live.borrow().clone()).collect()
    }

    /// How many others than this one move between this node and a peer.
    pub(crate) fn others_moving(&self, peer: &NodeId, transfer: &TransferId) -> usize {
        let moves = |(id, running): &(&TransferId, &Running)| {
            let live = running.live.borrow();
            *id != transfer && live.row.peer == *peer && live.row.state == State::Moving
        };
        self.locked().running.iter().filter(moves).count()
    }

    /// Follows one transfer; the channel closes when its session ends.
    pub fn watch(&self, transfer: &TransferId) -> Option<watch::Receiver<Live>> {
        self.locked().running.get(transfer).map(|running| running.live.subscribe())
    }

    /// Where the time of a transfer goes is counted here, by all its sessions in this process.
    pub(crate) fn meters(&self, clock: &Arc<dyn Clock>, transfer: &TransferId) -> Arc<Meters> {
        let mut inner = self.locked();
        if inner.meters.len() >= METERS_MAX {
            // What nobody counts any more is in the store as far as it goes.
            inner.meters.retain(|_, meters| Arc::strong_count(meters) > 1);
        }
        inner.meters.entry(transfer.clone()).or_insert_with(|| Arc::new(Meters::new(clock.clone()))).clone()
    }

    /// What was counted so far of a transfer that this process has had to do with.
    pub(crate) fn spent(&self, transfer: &TransferId) -> Option<Spent> {
        self.locked().meters.get(transfer).map(|meters| meters.spent())
    }

    /// Ends it for good. False where it does not run here.
    pub fn cancel(&self, transfer: &TransferId) -> bool {
        self.stop(transfer, Stop::Cancelled)
    }

    /// Holds it at a durable point until [`Self::resume`].
    pub fn pause(&self, transfer: &TransferId) -> bool {
        self.stop(transfer, Stop::Paused)
    }

    /// Lets it try again now what it waits for; one that is held or ends stays as it is.
    pub(crate) fn wake(&self, transfer: &TransferId) {
        if let Some(running) = self.locked().running.get(transfer) {
            running.stop.send_if_modified(|stop| *stop == Stop::No);
        }
    }

    pub fn resume(&self, transfer: &TransferId) -> bool {
        self.stop(transfer, Stop::No)
    }

    fn stop(&self, transfer: &TransferId, stop: Stop) -> bool {
        let inner = self.locked();
        inner.running.get(transfer).is_some_and(|running| running.stop.send_replace(stop) != Stop::Superseded)
    }

    fn locked(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registered {
    /// Takes the transfer's place, from an older session where there is one.
    pub(crate) async fn enter(ctx: &Arc<Context>, row: Transfer, data: Option<DataDoor>) -> Self {
        let transfer = row.id.clone();
        let live = watch::Sender::new(Live { row, bytes: 0, bytes_total: 0, files: 0, rows: 0 });
        let (stop, stopped) = watch::channel(Stop::No);
        let (session, older) = {
            let mut inner = ctx.transfers.locked();
            inner.sessions += 1;
            let session = inner.sessions;
            let running = Running { session, live: live.clone(), stop, data };
            let older = inner.running.insert(transfer.clone(), running);
            (session, older)
        };
        let mut late = None;
        if let Some(older) = older {
            older.stop.send_replace(Stop::Superseded);
            // Its session holds receivers until it has left: two at once would work on the same files.
            if tokio::time::timeout(SUPERSEDED_WAIT, older.stop.closed()).await.is_err() {
                late = Some(older.stop);
            }
        }
        Self { ctx: ctx.clone(), transfer, session, stop: stopped, live, older: late }
    }

    /// Waits for the session before, however long it takes to leave.
    pub(crate) async fn alone(&mut self) {
        if let Some(older) = self.older.take() {
            older.closed().await;
        }
    }
    pub(crate) fn session(&self) -> u64 {
        self.session
    }
    /// A newer session has taken its place: it may work on nothing any more.
    pub(crate) fn is_superseded(&self) -> bool {
        *self.stop.borrow() == Stop::Superseded
    }

    /// What others see of it from now on.
    pub(crate) fn show(&self, change: impl FnOnce(&mut Live)) {
        self.live.send_modify(change);
    }
    pub(crate) fn shown(&self) -> Live {
        self.live.borrow().clone()
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut inner = self.ctx.transfers.locked();
        if inner.running.get(&self.transfer).is_some_and(|running| running.session == self.session) {
            inner.running.remove(&self.transfer);
            if self.live.borrow().row.state.is_final() {
                inner.meters.remove(&self.transfer);
            }
        }
    }
}

/// Serves a channel that another node opened: reads what it is for and sees it through.
pub async fn serve_channel(ctx: Arc<Context>, connection: Arc<dyn Connection>, channel: Channel) {
    let Remote::Certified { node: peer, .. } = connection.remote().clone() else { return };
    let transport = connection.transport();
    let (mut reader, mut writer) = frames::split(channel, &peer);
    let first = tokio::time::timeout(Duration::from_millis(limits::HANDSHAKE_MS), reader.next()).await;
    let hello = match first {
        Ok(Ok(Some(Frame::Hello(hello)))) => hello,
        Ok(Ok(_)) | Err(_) => return tracing::debug!(%peer, "A channel began without hello"),
        Ok(Err(problem)) => return tracing::warn!(%peer, %problem, "A channel was refused"),
    };
    if let Err(problem) = greet(&ctx, &peer, &hello).await {
        return tracing::warn!(%peer, %problem, "A channel was refused");
    }
    match hello.purpose.clone() {
        Purpose::Data(transfer, _) => {
            let data = ctx.transfers.locked().running.get(&transfer).and_then(|running| {
                let door = running.data.as_ref().filter(|door| door.relayed.as_ref() == connection.relayed())?;
                (running.live.borrow().row.peer == peer).then(|| door.writers.clone())
            });
            match data {
                // The session is gone or has channels enough: the channel closes.
                Some(data) => drop(data.try_send(writer.into_inner())),
                None => tracing::debug!(%peer, %transfer, "A data channel came for a transfer that does not run"),
            }
        }
        Purpose::Relay(asked) => relay::serve(ctx, peer, connection, asked, reader, writer).await,
        purpose => {
            if let Err(problem) = writer.send(&Frame::Hello(own_hello(&ctx, purpose.clone()))).await {
                return tracing::debug!(%peer, %problem, "A channel was lost");
            }
            match purpose {
                Purpose::Control(transfer) => {
                    let relayed = connection.relayed().cloned();
                    let (epoch, takes_lz4) = (hello.epoch, hello.knows(LZ4));
                    let (knows_operations, knows_governed) = (hello.knows(OPERATIONS), hello.knows(GOVERNED));
                    let caller = provider::Caller {
                        peer,
                        transfer,
                        transport,
                        relayed,
                        epoch,
                        takes_lz4,
                        knows_operations,
                        knows_governed,
                    };
                    provider::serve(ctx, caller, reader, writer).await;
                }
                _ => invite::serve_ask(ctx, peer, connection, reader, writer).await,
            }
        }
    }
}

/// Whether the other side may speak at all: its version, and its epoch against a restored copy.
pub(crate) async fn greet(ctx: &Context, peer: &NodeId, hello: &Hello) -> Result<(), Problem> {
    hello.negotiate(peer)?;
    let (node, epoch) = (peer.clone(), hello.epoch);
    if ctx.store.write(move |tx| meta::see_peer_epoch(tx, &node, epoch)).await? {
        Ok(())
    } else {
        Err(Problem::new(Code::Fenced).cause(format!("{peer} speaks with epoch {epoch}, a later one is known")))
    }
}

pub(crate) fn own_hello(ctx: &Context, purpose: Purpose) -> Hello {
    Hello::new(purpose, ctx.epoch)
}

/// The clock of the machines: steady, and about now.
pub(crate) fn steady(world: &World) -> Timestamp {
    Timestamp(i64::try_from(world.clock.monotonic().as_millis()).unwrap_or(i64::MAX))
}

pub(crate) async fn blocking<T: Send + 'static>(
    world: &World,
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    world.blocking.run(work).await.map_err(|e| Problem::new(Code::InsideFailed).cause(e))?
}

/// Sleeps until a machine's next deadline, if it has one.
pub(crate) async fn until(world: &World, deadline: Option<Timestamp>) {
    match deadline {
        Some(at) => {
            let left = u64::try_from(at.since_ms(steady(world))).unwrap_or(0);
            tokio::time::sleep(Duration::from_millis(left)).await;
        }
        None => std::future::pending().await,
    }
}

const SUPERSEDED_WAIT: Duration = Duration::from_secs(30);
/// Transfers whose waiting is counted at once.
const METERS_MAX: usize = 1024;
