//! Takes up what was carried here, from the inboxes of the configuration or a folder that is named: sets become transfers
//! of their jobs, statements settle what this node had given, and what is over is cleared away.

use super::part::{self, Eyes, Found, Outlet};
use super::shelf::{Looked, Set, Shelf};
use super::{Bundle, answer, end, locked, play};
use crate::context::Context;
use crate::jobs;
use crate::settle;
use crate::store::{Side, Transfer, jobs as kept, statements, transfers};
use crate::transfer::blocking;
use posthouse_platform::endpoint::Transport;
use posthouse_protocol::id::{JobId, NodeId, ResourceRef, TransferId};
use posthouse_protocol::job::{Mode, State};
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

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

const LOOK_EVERY: Duration = Duration::from_secs(2);
/// What was wrong with a set may pass: a disk that is full, a job that is not configured yet.
const AFTER_PROBLEM: Duration = Duration::from_secs(30);
/// Of a job's transfers, the newest: among them those that what was carried may have overtaken on its way.
const LANDED_LOOKED_AT: usize = 100;
