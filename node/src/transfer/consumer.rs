//! The taking side of one transfer, from its plan to its end, over as many connections as it needs.
//! Where it stands is read from the store each time: what is durable is never asked for again, what was
//! staged is committed without the line, what was committed needs only its statements exchanged.
//! A full disk pauses it; it goes on by itself when there is room.

mod committing;
mod destination;
mod governed;
mod run;
mod session;
mod settling;
mod sweep;

pub(crate) use destination::{OfferedRows, open_destination};

use crate::context::Context;
use crate::store::{Side, Transfer, transfers};
use posthouse_platform::endpoint::Transport;
use posthouse_protocol::id::TransferId;
use posthouse_protocol::job::State;
use posthouse_protocol::problem::{Code, Problem};
use run::Run;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How a run of a transfer came out.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Its row in its final state.
    Final(Box<Transfer>),
    /// This node stops: the transfer goes on at the next start.
    Interrupted,
}

/// Ends what did not outlive the process before, and clears what is left of ended transfers. To be done before
/// any request is answered: what begins then is none of it.
pub async fn sweep(ctx: &Arc<Context>) {
    if let Err(problem) = sweep::working_folders(ctx).await {
        tracing::warn!(%problem, "Working files of ended transfers remain");
    }
}

/// Consumer transfers that have not ended, oldest first: to be run again after a start.
pub async fn recover(ctx: &Arc<Context>) -> Result<Vec<TransferId>, Problem> {
    let filter = transfers::Filter { side: Some(Side::Consumer), open: true, ..Default::default() };
    let mut open = ctx.store.read(move |db| transfers::list(db, &filter)).await?;
    open.reverse();
    let mut ids: Vec<TransferId> = open.into_iter().map(|row| row.id).collect();
    ids.extend(orphans(ctx).await?);
    Ok(ids)
}

/// Successors of transfers that failed right before this node was stopped, planned now.
async fn orphans(ctx: &Arc<Context>) -> Result<Vec<TransferId>, Problem> {
    let since = ctx.world.clock.now().plus_ms(-SUCCEED_WITHIN_MS);
    let filter = transfers::Filter { side: Some(Side::Consumer), from: Some(since), ..Default::default() };
    let failed = ctx
        .store
        .read(move |db| {
            let mut latest = BTreeMap::new();
            // Newest first: only a job's latest transfer may have a successor that is missing.
            for row in transfers::list(db, &filter)? {
                latest.entry(row.job.clone()).or_insert(row);
            }
            Ok(latest)
        })
        .await?;
    let mut planned = Vec::new();
    for row in failed.into_values() {
        if row.state == State::Failed && row.problem.as_ref().is_some_and(passes) {
            planned.extend(succeed(ctx, &row).await?);
        }
    }
    Ok(planned)
}

/// Runs a planned transfer to its end, or goes on with it. A transfer that failed because of something that
/// passes is followed by its successor, whose outcome is then given.
pub async fn run_consumer(ctx: Arc<Context>, transfer: TransferId) -> Result<Outcome, Problem> {
    let mut id = transfer;
    for turn in 1..=SUCCESSORS_MAX {
        let Some(row) = load(&ctx, &id).await? else {
            return Err(Problem::new(Code::UnknownName).with("kind", "transfer").with("name", &id));
        };
        let row = if row.state.is_final() {
            row
        } else {
            match Run::new(&ctx, row).await.run().await? {
                Some(row) => row,
                None => return Ok(Outcome::Interrupted),
            }
        };
        let retry = row.state == State::Failed && row.problem.as_ref().is_some_and(passes);
        // Somebody takes each one that comes: that is said now, and the job's next run tries again.
        let is_taken = row.problem.as_ref().is_some_and(|problem| problem.code == Code::NotAsLanded);
        if !retry || is_taken && turn == SUCCESSORS_MAX {
            return Ok(Outcome::Final(Box::new(row)));
        }
        match succeed(&ctx, &row).await? {
            Some(next) => id = next,
            None => {
                settling::drop_kept(&ctx, &row).await;
                return Ok(Outcome::Final(Box::new(row)));
            }
        }
    }
    match load(&ctx, &id).await? {
        Some(row) => Ok(Outcome::Final(Box::new(row))),
        None => Err(Problem::new(Code::UnknownName).with("kind", "transfer").with("name", &id)),
    }
}

/// Whether the same again may well succeed, without anybody changing anything.
fn passes(problem: &Problem) -> bool {
    matches!(problem.code, Code::SnapshotLost | Code::Mismatch | Code::FileChanged | Code::NotAsLanded | Code::Busy)
}

/// Plans the successor of a failed transfer, once. Nobody can be asked again for what was carried here.
async fn succeed(ctx: &Arc<Context>, failed: &Transfer) -> Result<Option<TransferId>, Problem> {
    if failed.transport == Some(Transport::Ferry) {
        return Ok(None);
    }
    let id = TransferId::from_random(ctx.world.random.bytes::<16>());
    let now = ctx.world.clock.now();
    let failed = failed.clone();
    ctx.store
        .write(move |tx| {
            // Another run of the job may be under way already.
            if transfers::open_of_job(tx, Side::Consumer, &failed.job)?.is_some() {
                return Ok(None);
            }
            let Transfer { job, peer, resource, mode, write, .. } = failed.clone();
            let mut row = Transfer::planned(id, Side::Consumer, job, peer, resource, mode, write, now);
            row.pushed = failed.pushed;
            row.watermark_from.clone_from(&failed.watermark_from);
            row.succeeds = Some(failed.id.clone());
            transfers::plan(tx, &row)?;
            Ok(Some(row.id))
        })
        .await
}

async fn load(ctx: &Context, id: &TransferId) -> Result<Option<Transfer>, Problem> {
    let id = id.clone();
    ctx.store.read(move |db| transfers::get(db, &id)).await
}

/// Splits of earlier failed runs that this one succeeds, newest first.
async fn predecessors(ctx: &Context, row: &Transfer) -> Result<Vec<TransferId>, Problem> {
    let first = row.succeeds.clone();
    ctx.store
        .read(move |db| {
            let (mut next, mut found) = (first, Vec::new());
            while let Some(id) = next.filter(|_| found.len() < SUCCESSORS_MAX) {
                next = transfers::get(db, &id)?.and_then(|row| row.succeeds);
                found.push(id);
            }
            Ok(found)
        })
        .await
}

const SUCCEED_WITHIN_MS: i64 = 3_600_000;
const SUCCESSORS_MAX: usize = 5;
