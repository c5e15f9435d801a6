//! Runs a pushing job into parts. They are complete for others only once all is recorded and stored; what is cut short
//! before that is ended and taken back.

use super::part::{Holds, Outlet, Parts};
use super::{end, known_epoch, leftovers, locked, record};
use crate::config::{Job, Kind};
use crate::context::Context;
use crate::settle;
use crate::store::{Transfer, exchange, transfers};
use crate::transfer::blocking;
use crate::transfer::spooling::Spooling;
use posthouse_protocol::frame::Request;
use posthouse_protocol::id::{NodeId, ResourceRef, TransferId};
use posthouse_protocol::job::{Mode, State, Write};
use posthouse_protocol::problem::{Code, Problem};
use std::sync::{Arc, Mutex};

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
        rules: None,
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
    leftovers::clear(ctx).await?;
    leftovers::begin(ctx, &maker).await?;
    let parts = Arc::new(Mutex::new(Parts::new(maker, Holds::Contents)));
    let recorded = record::record(ctx, to, request, parts.clone()).await;
    let id = transfer.clone();
    let row = ctx.store.read(move |db| transfers::get(db, &id)).await?;
    if let Err(problem) = recorded {
        let problem = if ctx.drain.is_cancelled() { leftovers::cut_short() } else { problem };
        let taken_back = parts.clone();
        let is_clear = blocking(&ctx.world, move || Ok(locked(&taken_back).discard())).await?;
        leftovers::over(ctx, &transfer, is_clear).await?;
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
    let named = blocking(&ctx.world, move || locked(&last).put_out()).await;
    if named.is_err() {
        // It is recorded by now: the part gets its name with the next export or start.
        locked(&parts).leave();
    }
    leftovers::over(ctx, &transfer, named.is_ok()).await?;
    named?;
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
