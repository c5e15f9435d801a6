//! From staged to stated: commits what is staged and states it, in the session that staged it or in a later
//! process; and says when what is staged may be given up instead.

use super::destination::{OfferedRows, open_destination, open_stage};
use super::load;
use super::run::Run;
use super::session::Ended;
use crate::commit::Commit;
use crate::config::Job;
use crate::context::Context;
use crate::reconcile;
use crate::settle;
use crate::spent::What;
use crate::stage::{Stage, Staged};
use crate::store::{Transfer, exchange};
use crate::transfer::{attachments, blocking};
use posthouse_protocol::frame::Offer;
use posthouse_protocol::job::State;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::statement::Statement;
use std::sync::Arc;

/// Commits what is staged and states it.
pub(super) async fn commit(
    ctx: &Arc<Context>,
    row: &Transfer,
    job: &Job,
    stage: &Arc<Stage>,
    staged: Staged,
) -> Result<Statement, Problem> {
    let provider = settle::open(ctx, &row.peer, staged.statement())?;
    let all_left_out = {
        let (root, id) = (ctx.attachments(), row.id.clone());
        blocking(&ctx.world, move || attachments::left_out(&root, &id)).await?
    };
    let work = Commit {
        world: &ctx.world,
        store: &ctx.store,
        transfer: &row.id,
        job: &row.job,
        write: row.write,
        proof: job.proof,
        quarantine_max: job.quarantine_max,
        left_out: &all_left_out,
    };
    let waits = ctx.meters(&row.id).wait(What::Destination);
    let committed = staged.commit(stage, &work).await?;
    drop(waits);
    crate::crash_point!("committed");
    let standing = reconcile::consumer_standing(ctx, row, stage, committed.counts()).await?;
    let statement = settle::state_landing(ctx, row, committed, provider, standing).await?;
    crate::crash_point!("stated");
    Ok(statement)
}

/// Commits what an earlier session or process left staged; None where nothing is.
pub(super) async fn commit_staged(run: &mut Run, job: &Job) -> Result<Option<Ended>, Problem> {
    let id = run.row.id.clone();
    let found = run.ctx.store.read(move |db| Ok((Staged::load(db, &id)?, exchange::landing_offer(db, &id)?))).await?;
    let (Some(staged), Some(offer)) = found else { return Ok(None) };
    run.row.state = State::Staged;
    let committed = async {
        let stage = open_stage(&run.ctx, &run.row, job, &offer).await?;
        commit(&run.ctx, &run.row, job, &stage, staged).await
    };
    match committed.await {
        Ok(_) => {
            if let Some(row) = load(&run.ctx, &run.row.id).await? {
                run.row = row;
            }
            Ok(Some(Ended::Stopped))
        }
        Err(problem) if problem.code == Code::DiskFull => Ok(Some(Ended::NoRoom(problem))),
        Err(problem) => Err(problem),
    }
}

/// Whether a transfer that is staged may be given up, for this problem of its commit if there is one. Rows that were published without a
/// statement would come a second time with the next run, so a table has to say itself that they were not.
/// Files are landed by name: what stands of them is found by the next run.
pub(super) async fn may_drop_staged(run: &Run, offer: Option<Offer>, problem: Option<&Problem>) -> bool {
    let Some(rows) = offer.and_then(|offer| Some(OfferedRows::of(&offer, offer.contract.as_ref()?))) else {
        return true;
    };
    if problem.is_some_and(may_pass) {
        return false;
    }
    let Some(target) = run.job().ok().and_then(|job| job.into) else { return false };
    let (ctx, row) = (run.ctx.clone(), run.row.clone());
    let world = ctx.world.clone();
    let published = blocking(&world, move || open_destination(&ctx, &row, &target, &rows)?.published());
    matches!(published.await, Ok(None))
}

/// Whether the same commit may well succeed later.
pub(super) fn may_pass(problem: &Problem) -> bool {
    let codes = [Code::ConnectionFailed, Code::StorageFailed, Code::DiskFull, Code::Busy, Code::OutsideWindow];
    codes.contains(&problem.code)
}
