//! 摆渡: exchange without a line. What a node gives is written into parts, which somebody carries: a gatekeeper (网闸) from
//! outbox to inbox, or a person on a disk (线下报送). The parts may come in any order and more than once.
//!
//! It is another transport, not another exchange: at the provider [`record`] takes in the consumer's place what the
//! giving side sends; at the consumer [`play`] gives it in the provider's place to a run like any other. So grants are
//! enforced, contents verified, statements signed and receipts made by the same code as over a line. The consumer's
//! statement comes back as a part of its own ([`answer`]).
//! - [`part`]: a file that is sealed to its receiver and signed by its maker. [`shelf`]: a folder of them.
//!
//! Deliberately absent: whatever needs an answer before it goes on. What is carried is pushed, and whole.

mod answer;
mod part;
mod play;
mod record;
mod shelf;

pub use part::Outlet;

use crate::config::{Job, Kind};
use crate::context::Context;
use crate::jobs;
use crate::settle::{self, Subject};
use crate::store::{Side, Transfer, exchange, jobs as kept, meta, statements, transfers};
use crate::transfer::blocking;
use crate::transfer::spooling::Spooling;
use part::{Eyes, Found, Holds, Maker, Parts};
use posthouse_platform::endpoint::{Connection, Transport};
use posthouse_platform::identity::ferry_key::FerryKey;
use posthouse_platform::local;
use posthouse_protocol::frame::Request;
use posthouse_protocol::id::{JobId, NodeId, ResourceRef, TransferId};
use posthouse_protocol::job::{Mode, State, Write};
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::time::Timestamp;
use shelf::{Looked, Set, Shelf};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What a node has of ferries.
pub struct Ferry {
    key: Arc<FerryKey>,
    /// Parts that runs take from, by their transfer.
    bundles: Mutex<BTreeMap<TransferId, Arc<Bundle>>>,
}

/// All parts of a transfer that was carried here.
pub(crate) struct Bundle {
    from: NodeId,
    transfer: TransferId,
    job: JobId,
    parts: Vec<Found>,
    /// Where what this node states of it is put.
    returns: Outlet,
    /// Why it can never be landed, once that is known.
    broken: Mutex<Option<Problem>>,
}

impl Bundle {
    /// For what is said of a transfer whose parts are not needed any more.
    fn without_parts(row: &Transfer, returns: Outlet) -> Self {
        Self {
            from: row.peer.clone(),
            transfer: row.id.clone(),
            job: row.job.clone(),
            parts: Vec::new(),
            returns,
            broken: Mutex::default(),
        }
    }
}

impl Ferry {
    pub fn new(key: FerryKey) -> Self {
        Self { key: Arc::new(key), bundles: Mutex::default() }
    }

    pub fn key(&self) -> &FerryKey {
        &self.key
    }

    /// Its parts are not needed any more, or are no longer what they were.
    fn forget(&self, transfer: &TransferId) {
        locked(&self.bundles).remove(transfer);
    }

    /// Whether a run can take from its parts.
    pub(crate) fn has(&self, transfer: &TransferId) -> bool {
        locked(&self.bundles).contains_key(transfer)
    }

    /// Who makes parts of a transfer for a peer, in a new making.
    fn maker(
        &self,
        ctx: &Context,
        to: &NodeId,
        transfer: &TransferId,
        job: &JobId,
        outlet: Outlet,
    ) -> Result<Maker, Problem> {
        let to_key =
            ctx.authority.peer(to)?.ferry_key.ok_or_else(|| Problem::new(Code::NoFerryKey).with("peer", to))?;
        Ok(Maker {
            name: ctx.name.clone(),
            signer: ctx.signer.clone(),
            disk: ctx.world.disk.clone(),
            now: ctx.world.clock.now(),
            to: to.clone(),
            to_key: *to_key,
            transfer: transfer.clone(),
            job: job.clone(),
            edition: ctx.world.random.bytes(),
            outlet,
        })
    }
}

/// Parts that were made of a transfer.
#[derive(Debug, Clone)]
pub struct Exported {
    pub row: Transfer,
    pub parts: u32,
    pub bytes: u64,
}

/// Runs a pushing job once, into parts.
pub async fn export(ctx: &Arc<Context>, job: &Job, outlet: Outlet) -> Result<Exported, Problem> {
    let Kind::Push { resource, to } = &job.kind else {
        let what = format!("the job {} does not push: what is carried is pushed by its provider", job.name);
        return Err(Problem::new(Code::UsageInvalid).with("what", what));
    };
    if job.mode != Mode::Full {
        let what = format!("the job {} is {}: what is carried is whole, mode = \"full\"", job.name, job.mode);
        return Err(Problem::new(Code::UsageInvalid).with("what", what));
    }
    let resource = ResourceRef { node: ctx.name.clone(), resource: resource.clone() };
    let permit = ctx.permit(to, &resource).await?;
    if !permit.route().is_empty() {
        let cause = "its grant goes through relays, which are a line";
        return Err(Problem::new(Code::NoGrant).with("consumer", to).with("resource", resource).cause(cause));
    }
    let is_table = ctx.config().resources.get(&resource.resource).is_some_and(crate::config::Resource::is_table);
    let request = Request {
        transfer: TransferId::from_random(ctx.world.random.bytes()),
        job: job.name.clone(),
        resource: resource.resource.clone(),
        mode: Mode::Full,
        write: carried_write(is_table),
        watermark: None,
        route: Vec::new(),
        consumer_epoch: known_epoch(ctx, to).await?.max(ctx.authority.peer(to)?.epoch),
        succeeds: None,
        committed: false,
        formats: None,
    };
    write_parts(ctx, to, request, outlet).await
}

/// How a job lands what is carried to it: nobody can ask it, so that it is what a job does without saying.
fn carried_write(is_table: bool) -> Write {
    if is_table { Write::Replace } else { Write::Upsert }
}

async fn write_parts(ctx: &Arc<Context>, to: &NodeId, request: Request, outlet: Outlet) -> Result<Exported, Problem> {
    let transfer = request.transfer.clone();
    let maker = ctx.ferry.maker(ctx, to, &transfer, &request.job, outlet)?;
    let parts = Arc::new(Mutex::new(Parts::new(maker, Holds::Contents)));
    let recorded = record::record(ctx, to, request, parts.clone()).await;
    let id = transfer.clone();
    let row = ctx.store.read(move |db| transfers::get(db, &id)).await?;
    if let Err(problem) = recorded {
        let problem = if ctx.drain.is_cancelled() { cut_short() } else { problem };
        let taken_back = parts.clone();
        blocking(&ctx.world, move || {
            locked(&taken_back).discard();
            Ok(())
        })
        .await?;
        if let Some(row) = row {
            end(ctx, &row, &problem).await?;
        }
        return Err(problem);
    }
    let mut row = row.ok_or_else(|| Problem::new(Code::InsideFailed).cause("what was recorded is not stored"))?;
    // All of it is durable, and only the last part is without its name. Before it has that, nobody can land anything of
    // it; from here on somebody may, and the consumer's statement is what is still to come.
    row.state = State::Staged;
    row.bytes_sent = locked(&parts).bytes();
    let mut staged = row.clone();
    let own = ctx.clone();
    let row = ctx
        .store
        .write(move |tx| {
            if let Some(handover) = exchange::offered(tx, &staged.id)?.and_then(|offered| offered.handover) {
                let signed = settle::open_own(&own, &handover.statement)?;
                staged.counts = signed.manifest().map_or(staged.counts, |manifest| manifest.counts);
                staged.files_sent = staged.counts.files;
            }
            transfers::update(tx, &staged)?;
            Ok(staged)
        })
        .await?;
    let last = parts.clone();
    blocking(&ctx.world, move || locked(&last).put_out()).await?;
    release(ctx, &transfer).await?;
    let (made, bytes) = locked(&parts).made();
    tracing::info!(%transfer, %to, parts = made, bytes, "Wrote parts to be carried");
    Ok(Exported { row, parts: made, bytes })
}

/// The splits of a table that is carried are not read again.
async fn release(ctx: &Arc<Context>, transfer: &TransferId) -> Result<(), Problem> {
    if let Some(spooling) = Spooling::find(ctx, transfer).await? {
        let splits = spooling.splits(0).len() as u64;
        spooling.release(ctx, (0..splits).collect());
    }
    Ok(())
}

/// States that a transfer ended without a receipt.
async fn end(ctx: &Arc<Context>, row: &Transfer, problem: &Problem) -> Result<(), Problem> {
    let subject = Subject {
        transfer: row.id.clone(),
        job: row.job.clone(),
        resource: row.resource.clone(),
        consumer: row.consumer(&ctx.name).clone(),
    };
    settle::state_ending(ctx, row, &subject, problem).await.map(|_| ())
}

fn cut_short() -> Problem {
    Problem::new(Code::Cancelled).cause("the node stopped before all of its parts were made")
}

/// Ends what was being written into parts when the node stopped, and takes back what of it stands in an outbox: nobody
/// goes on with it. To be done before transfers are swept that lost their snapshot.
pub async fn sweep(ctx: &Arc<Context>) {
    let swept = async {
        let filter = transfers::Filter { side: Some(Side::Provider), open: true, ..Default::default() };
        let open = ctx.store.read(move |db| transfers::list(db, &filter)).await?;
        for row in open.iter().filter(|row| row.transport == Some(Transport::Ferry)) {
            let outbox = ctx.config().ferries.get(&row.peer).map(|ferry| ferry.outbox.clone());
            let (id, disk, is_whole) = (row.id.clone(), ctx.world.disk.clone(), row.state == State::Staged);
            if !is_whole {
                end(ctx, row, &cut_short()).await?;
            }
            blocking(&ctx.world, move || match outbox {
                Some(outbox) if is_whole => part::put_out(&outbox, &id, &*disk),
                Some(outbox) => {
                    part::take_back(&outbox, &id);
                    Ok(())
                }
                None => Ok(()),
            })
            .await?;
        }
        Ok::<_, Problem>(())
    };
    if let Err(problem) = swept.await {
        tracing::warn!(%problem, "A transfer that was to be carried stays open");
    }
}

/// The line of a consumer's run that takes from parts; None where the transfer came over no ferry.
pub(crate) fn line(ctx: &Arc<Context>, row: &Transfer) -> Option<Result<Arc<dyn Connection>, Problem>> {
    let known = locked(&ctx.ferry.bundles).get(&row.id).cloned();
    let bundle = match known {
        Some(bundle) => bundle,
        None if row.transport != Some(Transport::Ferry) => return None,
        None => match ctx.config().ferries.get(&row.peer) {
            // What is landed needs no parts, only a place for what is said of it.
            Some(ferry) if row.state == State::Committed => Arc::new(Bundle::without_parts(row, ferry.outlet())),
            _ => return Some(Err(Problem::new(Code::PartsMissing).with("transfer", &row.id))),
        },
    };
    let (taking, giving) = local::pair(&ctx.name, &row.peer, Transport::Ferry);
    tokio::spawn(play::play(ctx.clone(), bundle, giving));
    Some(Ok(taking))
}

/// What came of a set of parts.
#[derive(Debug, Clone)]
pub enum Taken {
    /// A transfer that lands here, or has.
    Transfer(Box<Transfer>),
    /// The statement of a transfer that this node had given.
    Answer(Box<Transfer>),
    /// It is not taken up now.
    Waits(TransferId, Problem),
}

/// Takes up whatever is complete in a folder that was carried here; statements are put into `returns`. Beside what was
/// taken up what is wrong with other files there.
pub async fn import(
    ctx: &Arc<Context>,
    folder: PathBuf,
    returns: Outlet,
) -> Result<(Vec<Taken>, Vec<Problem>), Problem> {
    let (_, looked) = look(ctx, Shelf::default(), folder).await;
    let Looked { sets, wrong, .. } = looked?;
    let mut taken = Vec::new();
    for set in sets {
        let (transfer, parts) = (set.transfer.clone(), set.parts.clone());
        taken.push(match take_up(ctx, set, returns.clone()).await {
            Ok(one) => one,
            Err(problem) => {
                aside_if_damaged(ctx, &problem, parts).await;
                Taken::Waits(transfer, problem)
            }
        });
    }
    Ok((taken, wrong))
}

/// A transfer that was imported has ended: its disk may go.
pub fn imported(ctx: &Context, transfer: &TransferId) {
    ctx.ferry.forget(transfer);
}

/// Watches the inboxes of the configuration.
pub async fn run(ctx: Arc<Context>) {
    let mut shelves: BTreeMap<NodeId, Shelf> = BTreeMap::new();
    // Sets that are not to be taken up before this time (monotonic).
    let mut later: BTreeMap<(NodeId, TransferId), Duration> = BTreeMap::new();
    // Said once.
    let mut unread: BTreeSet<NodeId> = BTreeSet::new();
    loop {
        let now = ctx.world.clock.monotonic();
        later.retain(|_, until| *until > now);
        let config = ctx.config();
        shelves.retain(|peer, _| config.ferries.contains_key(peer));
        for (peer, ferry) in &config.ferries {
            let shelf = shelves.remove(peer).unwrap_or_default();
            let (shelf, looked) = look(&ctx, shelf, ferry.inbox.clone()).await;
            shelves.insert(peer.clone(), shelf);
            match looked {
                Ok(looked) => empty(&ctx, peer, looked, &ferry.outlet(), &mut later).await,
                Err(problem) => {
                    if unread.insert(peer.clone()) {
                        tracing::warn!(%problem, %peer, "An inbox cannot be read");
                    }
                    ctx.note_error(&problem);
                    continue;
                }
            }
            unread.remove(peer);
        }
        tokio::select! {
            biased;
            () = ctx.drain.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

async fn look(ctx: &Arc<Context>, mut shelf: Shelf, folder: PathBuf) -> (Shelf, Result<Looked, Problem>) {
    let context = ctx.clone();
    let looked = blocking(&ctx.world, move || {
        let authority = &context.authority;
        let eyes = Eyes { me: &context.name, key: context.ferry.key(), keys: authority.as_ref() };
        let looked = shelf.look(&folder, eyes, authority.version());
        Ok((shelf, looked))
    });
    looked.await.unwrap_or_else(|problem| (Shelf::default(), Err(problem)))
}

/// Takes up what stands in a peer's inbox, and clears away what nothing is needed of any more.
async fn empty(
    ctx: &Arc<Context>,
    peer: &NodeId,
    looked: Looked,
    returns: &Outlet,
    later: &mut BTreeMap<(NodeId, TransferId), Duration>,
) {
    let Looked { sets, mut parts, wrong } = looked;
    for problem in wrong {
        tracing::warn!(%problem, "A file in an inbox is no part for this node");
        ctx.note_error(&problem);
    }
    let until = ctx.world.clock.monotonic() + AFTER_PROBLEM;
    for set in sets {
        let whose = (set.from.clone(), set.transfer.clone());
        let all = parts.remove(&whose).unwrap_or_default();
        if later.contains_key(&whose) {
            continue;
        }
        if set.from != *peer {
            tracing::warn!(from = %set.from, %peer, "Parts of another node than its own stand in an inbox");
            later.insert(whose, until);
            continue;
        }
        let taken = take_up(ctx, set.clone(), returns.clone()).await;
        let is_over = match &taken {
            Ok(Taken::Answer(_)) => true,
            Ok(Taken::Transfer(row)) => row.state.is_final(),
            Ok(Taken::Waits(..)) | Err(_) => false,
        };
        let cleared = if is_over { clear(ctx, &set.transfer, all).await } else { Ok(()) };
        if let Err(problem) = taken.map(|_| ()).and(cleared) {
            tracing::warn!(transfer = %set.transfer, %problem, "What was carried here is not taken up, or not cleared");
            ctx.note_error(&problem);
            aside_if_damaged(ctx, &problem, set.parts).await;
            later.insert(whose, until);
        }
    }
    // What came again when all was over: perhaps because the answer was lost on its way.
    for (whose, parts) in parts {
        if whose.0 != *peer || later.contains_key(&whose) {
            continue;
        }
        if let Err(problem) = again(ctx, &whose.1, parts, returns).await {
            tracing::warn!(transfer = %whose.1, %problem, "Parts that came again stay where they are");
            later.insert(whose, until);
        }
    }
}

/// Answers once more where a transfer of these parts has ended, and clears them away.
async fn again(ctx: &Arc<Context>, transfer: &TransferId, parts: Vec<Found>, returns: &Outlet) -> Result<(), Problem> {
    let id = transfer.clone();
    let known = ctx.store.read(move |db| transfers::get(db, &id)).await?;
    let Some(from) = parts.first().map(|part| part.from.clone()) else { return Ok(()) };
    let Some(row) = known.filter(|row| row.peer == from && row.side == Side::Consumer && row.state.is_final()) else {
        return Ok(());
    };
    answer::repeat(ctx, &Bundle::without_parts(&row, returns.clone()), &row).await?;
    clear(ctx, transfer, parts).await
}

async fn clear(ctx: &Arc<Context>, transfer: &TransferId, parts: Vec<Found>) -> Result<(), Problem> {
    ctx.ferry.forget(transfer);
    blocking(&ctx.world, move || {
        for part in &parts {
            std::fs::remove_file(&part.path).map_err(|e| part::unreadable(&part.path, &e))?;
        }
        Ok(())
    })
    .await
}

async fn aside_if_damaged(ctx: &Arc<Context>, problem: &Problem, parts: Vec<Found>) {
    if problem.code == Code::PartInvalid {
        let key = ctx.ferry.key.clone();
        if let Err(problem) = blocking(&ctx.world, move || part::put_damaged_aside(&parts, &key)).await {
            tracing::warn!(%problem, "A damaged part stays where it is");
        }
    }
}

async fn take_up(ctx: &Arc<Context>, set: Set, returns: Outlet) -> Result<Taken, Problem> {
    if set.is_answer() {
        return Ok(Taken::Answer(Box::new(answer::take(ctx, &set).await?)));
    }
    let id = set.transfer.clone();
    let known = ctx.store.read(move |db| transfers::get(db, &id)).await?;
    let invalid = || Problem::new(Code::PartInvalid).with("path", &set.transfer).cause("it has no parts");
    let job = set.parts.first().map(|part| part.label.job.clone()).ok_or_else(invalid)?;
    let (from, transfer) = (set.from.clone(), set.transfer.clone());
    let bundle = Bundle { from, transfer, job, parts: set.parts, returns, broken: Mutex::default() };
    let row = match known {
        Some(row) if row.peer != bundle.from || row.side != Side::Consumer => {
            return Err(Problem::new(Code::Mismatch).with("peer", &bundle.from).cause("it brings another's transfer"));
        }
        Some(row) => row,
        None => match plan(ctx, &bundle).await? {
            Planned::Row(row) => *row,
            Planned::Waits(problem) => return Ok(Taken::Waits(bundle.transfer, problem)),
        },
    };
    if row.state.is_final() {
        // It was carried once more, or its answer was not: the answer is given again.
        answer::repeat(ctx, &bundle, &row).await?;
        return Ok(Taken::Transfer(Box::new(row)));
    }
    if let Some(problem) = held(ctx, &row).await? {
        return Ok(Taken::Waits(bundle.transfer, problem));
    }
    if !ctx.ferry.has(&bundle.transfer) {
        locked(&ctx.ferry.bundles).insert(bundle.transfer.clone(), Arc::new(bundle));
        // One that waits for its parts goes on at once.
        ctx.transfers.wake(&row.id);
        jobs::take_up(ctx, &row);
    }
    Ok(Taken::Transfer(Box::new(row)))
}

/// Whether its operator holds the job of a transfer; what has landed is settled all the same.
async fn held(ctx: &Arc<Context>, row: &Transfer) -> Result<Option<Problem>, Problem> {
    let job = row.job.clone();
    let held = ctx.store.read(move |db| kept::get(db, &job)).await?;
    let is_held = (held.paused || held.removed) && row.state != State::Committed;
    Ok(is_held.then(|| busy(ctx, format!("its job {} is held by its operator", row.job))))
}

fn busy(ctx: &Context, cause: String) -> Problem {
    Problem::new(Code::Busy).with("peer", &ctx.name).cause(cause)
}

enum Planned {
    Row(Box<Transfer>),
    Waits(Problem),
}

/// The transfer as this node will run it. It waits while its job is held, or under way with another. What is older than
/// what has landed since is not landed over it: it ends here, and its provider hears of it.
async fn plan(ctx: &Arc<Context>, bundle: &Bundle) -> Result<Planned, Problem> {
    let (parts, key) = (bundle.parts.clone(), ctx.ferry.key.clone());
    let head = blocking(&ctx.world, move || play::head(&parts, &key)).await?;
    let (from, request) = (&bundle.from, head.request);
    let statement = settle::open(ctx, from, &head.handover.statement)?;
    let is_meant = |manifest: &posthouse_protocol::manifest::Manifest| {
        manifest.transfer == bundle.transfer && manifest.consumer == ctx.name && manifest.job == request.job
    };
    if request.transfer != bundle.transfer || !statement.manifest().is_some_and(is_meant) {
        return Err(Problem::new(Code::Mismatch).with("peer", from).cause("its list is of another transfer"));
    }
    let named = || format!("{from}/{}", request.job);
    let refused = || Problem::new(Code::NotAccepted).with("consumer", &ctx.name).with("job", named());
    let job = ctx.config().accepting(from, &request.job).cloned().ok_or_else(refused)?;
    if job.name != request.job {
        return Err(refused().cause(format!(
            "the job {} accepts it; what is carried is accepted under the name that its pusher gave it",
            job.name
        )));
    }
    if job.write != request.write || request.mode != Mode::Full {
        return Err(refused().cause(format!(
            "what is carried is landed with write = \"{}\", this job says \"{}\"",
            request.write, job.write
        )));
    }
    let resource = ResourceRef { node: from.clone(), resource: request.resource.clone() };
    ctx.permit(&ctx.name, &resource).await?;
    let sealed = statement.manifest().map(|manifest| manifest.sealed);
    let newer = landed_since(ctx, from, &job.name, sealed).await?;
    let (id, peer, now, name) = (bundle.transfer.clone(), from.clone(), ctx.world.clock.now(), job.name.clone());
    let planned = ctx
        .store
        .write(move |tx| {
            let held = kept::get(tx, &job.name)?;
            if held.paused || held.removed {
                return Ok(None);
            }
            if newer.is_none() && transfers::open_of_job(tx, Side::Consumer, &job.name)?.is_some() {
                return Ok(None);
            }
            let mut row =
                Transfer::planned(id, Side::Consumer, job.name.clone(), peer, resource, Mode::Full, job.write, now);
            row.pushed = true;
            row.transport = Some(Transport::Ferry);
            transfers::plan(tx, &row)?;
            Ok(Some((row, newer)))
        })
        .await?;
    let Some((row, newer)) = planned else {
        let cause = format!("its job {name} is held by its operator, or under way with another transfer");
        return Ok(Planned::Waits(busy(ctx, cause)));
    };
    let Some(newer) = newer else { return Ok(Planned::Row(Box::new(row))) };
    let problem = Problem::new(Code::Outdated).with("job", &row.job).with("transfer", &newer);
    end(ctx, &row, &problem).await?;
    let id = row.id.clone();
    let ended = ctx.store.read(move |db| transfers::get(db, &id)).await?;
    Ok(Planned::Row(Box::new(ended.unwrap_or(row))))
}

/// The transfer of a job that has landed and was sealed after this time, if there is one.
async fn landed_since(
    ctx: &Arc<Context>,
    from: &NodeId,
    job: &JobId,
    sealed: Option<Timestamp>,
) -> Result<Option<TransferId>, Problem> {
    let filter = transfers::Filter { side: Some(Side::Consumer), job: Some(job.clone()), ..Default::default() };
    let handed = ctx
        .store
        .read(move |db| {
            let landed = transfers::list(db, &filter)?.into_iter().filter(|row| row.state == State::Settled);
            let mut handed = Vec::new();
            for row in landed.take(LANDED_LOOKED_AT) {
                handed.extend(statements::bytes(db, &row.id, "provider")?.map(|bytes| (row.id, bytes)));
            }
            Ok(handed)
        })
        .await?;
    let is_newer = |bytes: &[u8]| {
        let statement = settle::open(ctx, from, bytes).ok()?;
        Some(statement.manifest()?.sealed > sealed?)
    };
    Ok(handed.into_iter().find(|(_, bytes)| is_newer(bytes) == Some(true)).map(|(id, _)| id))
}

/// The highest epoch that is known of a peer.
async fn known_epoch(ctx: &Context, peer: &NodeId) -> Result<u64, Problem> {
    let peer = peer.clone();
    ctx.store.read(move |db| meta::peer_epoch(db, &peer)).await
}

fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

const LOOK_EVERY: Duration = Duration::from_secs(2);
/// What was wrong with a set may pass: a disk that is full, a job that is not configured yet.
const AFTER_PROBLEM: Duration = Duration::from_secs(30);
/// Of a job's transfers, the newest: among them those that what was carried may have overtaken on its way.
const LANDED_LOOKED_AT: usize = 100;
