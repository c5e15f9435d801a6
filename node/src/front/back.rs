//! What is done for a front-end table after a receipt: flags are written back, and where rows are purged some time, which
//! these were is kept. Each step may be repeated after any interruption; one that fails is tried again from time to time,
//! and by the next run, which does not read before.

use super::purge::{self, keep};
use super::rows::{self, FrontRows};
use super::{SUFFIX, path};
use crate::config::{Exchange, Origin};
use crate::context::Context;
use crate::store::front::{self, FrontRun, FrontState};
use crate::store::transfers;
use crate::transfer::blocking;
use posthouse_connectors::front::{FrontRow, FrontTable, unfit};
use posthouse_protocol::id::{ResourceId, TransferId};
use posthouse_protocol::problem::{Code, Problem};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Keeps the flags and the rows of all front-end tables, as long as the node runs.
pub(crate) async fn run(ctx: Arc<Context>) {
    loop {
        if let Err(problem) = look(&ctx).await {
            tracing::warn!(%problem, "Front-end tables were not looked at");
        }
        tokio::select! {
            biased;
            () = ctx.drain.cancelled() => return,
            () = ctx.front.bell.notified() => {}
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}

async fn look(ctx: &Arc<Context>) -> Result<(), Problem> {
    for run in ctx.store.read(|db| front::list(db, None)).await? {
        if ctx.drain.is_cancelled() {
            return Ok(());
        }
        let done = match run.state {
            FrontState::Read => clear(ctx, &run).await,
            FrontState::Receipted => {
                let _turn = ctx.front.turn(&run.resource).await;
                write_back(ctx, &run.transfer, &run.resource).await
            }
            FrontState::Written => {
                let _turn = ctx.front.turn(&run.resource).await;
                keep(ctx, &run.transfer, &run.resource, run.at).await
            }
        };
        note(ctx, &run.resource, done);
    }
    for resource in purge::kept(ctx).await? {
        if ctx.drain.is_cancelled() {
            return Ok(());
        }
        let done = purge::purge(ctx, &resource).await;
        note(ctx, &resource, done);
    }
    Ok(())
}

fn note(ctx: &Context, resource: &ResourceId, done: Result<(), Problem>) {
    match done {
        Ok(()) => {}
        Err(problem) if problem.code == Code::OutsideWindow => {}
        Err(problem) => {
            tracing::warn!(%resource, %problem, "A front-end table waits");
            ctx.note_error(&problem);
        }
    }
}

/// Sets the flags of what a transfer handed over, under its receipt. Whoever calls has the table's turn.
pub(super) async fn write_back(
    ctx: &Arc<Context>,
    transfer: &TransferId,
    resource: &ResourceId,
) -> Result<(), Problem> {
    let id = transfer.clone();
    let runs = ctx.store.read(|db| front::list(db, None)).await?;
    if !runs.iter().any(|run| run.transfer == id && run.state == FrontState::Receipted) {
        // It was done while the turn was waited for.
        return Ok(());
    }
    crash_point!("front-settled");
    let (connection, exchange) = found(ctx, resource)?;
    let keeps = exchange.keep_ms.is_some();
    let mark = |table: &mut dyn FrontTable, rows: &mut [FrontRow]| table.mark(rows);
    let marked = each(ctx, transfer, connection, exchange, mark).await?;
    crash_point!("front-marked");
    let (id, now) = (transfer.clone(), ctx.world.clock.now());
    let Done { named, changed } = marked.unwrap_or_else(|| {
        tracing::warn!(%transfer, "What was read of a front-end table is gone: its rows keep their flags and come again");
        Done::default()
    });
    // A run that found nothing leaves nothing to be purged: most runs of a job that looks often do.
    let stays = keeps && named > 0;
    ctx.store
        .write(move |tx| match stays {
            true => front::written(tx, &id, changed, now),
            false => front::forget(tx, &id),
        })
        .await?;
    tracing::info!(%transfer, %resource, rows = changed, "Flags of a front-end table were written back");
    match stays {
        true => keep(ctx, transfer, resource, now).await,
        false => drop_file(ctx, transfer).await,
    }
}

/// Takes away what was read by a transfer that has ended without a receipt.
async fn clear(ctx: &Arc<Context>, run: &FrontRun) -> Result<(), Problem> {
    let id = run.transfer.clone();
    let row = ctx.store.read(move |db| transfers::get(db, &id)).await?;
    if row.is_some_and(|row| !row.state.is_final() || row.receipt.is_some()) {
        return Ok(());
    }
    let id = run.transfer.clone();
    // Its receipt may have come since it was looked at: then the file is needed.
    match ctx.store.write(move |tx| front::forget_unreceipted(tx, &id)).await? {
        true => drop_file(ctx, &run.transfer).await,
        false => Ok(()),
    }
}

/// What became of the rows that a transfer handed over.
#[derive(Default)]
struct Done {
    /// Those that its file names.
    named: u64,
    /// Those that were as they had been.
    changed: u64,
}

/// Does `step` to all rows that a transfer handed over, page by page. None where nobody knows them any more.
async fn each(
    ctx: &Arc<Context>,
    transfer: &TransferId,
    connection: String,
    exchange: Exchange,
    step: impl Fn(&mut dyn FrontTable, &mut [FrontRow]) -> Result<u64, Problem> + Send + 'static,
) -> Result<Option<Done>, Problem> {
    let (context, path) = (ctx.clone(), path(ctx, transfer));
    blocking(&ctx.world, move || {
        let Some(mut rows) = FrontRows::open(&path)? else { return Ok(None) };
        let mut connection = context.connect(&connection)?;
        let mut table = connection.front(&exchange.spec)?;
        let (mut above, mut done) = (0, Done::default());
        loop {
            let page = rows.page(above, PAGE)?;
            let Some(last) = page.last().map(|(number, _)| *number) else { return Ok(Some(done)) };
            above = last;
            done.named += page.len() as u64;
            let (numbers, mut now): (Vec<i64>, Vec<FrontRow>) = page.into_iter().unzip();
            let before: Vec<String> = now.iter().map(|row| row.version.clone()).collect();
            done.changed += step(table.as_mut(), &mut now)?;
            let versions = numbers.iter().zip(&now).zip(&before);
            let changed: Vec<(i64, &str)> = versions
                .filter(|((_, row), before)| row.version != **before)
                .map(|((number, row), _)| (*number, row.version.as_str()))
                .collect();
            if !changed.is_empty() {
                rows.set_versions(&changed)?;
            }
        }
    })
    .await
}

/// The table of a resource as the configuration has it now.
pub(super) fn known(ctx: &Context, resource: &ResourceId) -> Option<(String, Exchange)> {
    let config = ctx.config();
    config.resources.get(resource).and_then(|found| match &found.origin {
        Origin::Table { connection, .. } => Some((connection.clone(), found.exchange.clone()?)),
        Origin::Folder { .. } => None,
    })
}

fn found(ctx: &Context, resource: &ResourceId) -> Result<(String, Exchange), Problem> {
    known(ctx, resource).ok_or_else(|| {
        let cause =
            "rows of it are receipted and their flags are to be written back, and the configuration has it no more";
        unfit(&format!("{}/{resource}", ctx.name), cause)
    })
}

pub(super) async fn drop_file(ctx: &Arc<Context>, transfer: &TransferId) -> Result<(), Problem> {
    let path = path(ctx, transfer);
    blocking(&ctx.world, move || rows::remove(&path)).await
}

/// Takes away files that no transfer is known for, after a kill between its end and its clean-up. To be done before any
/// request is answered: what begins then is none of it.
pub(crate) async fn sweep(ctx: &Arc<Context>) {
    if let Err(problem) = sweep_files(ctx).await {
        tracing::warn!(%problem, "Files of front-end tables remain");
    }
}

async fn sweep_files(ctx: &Arc<Context>) -> Result<(), Problem> {
    let runs = ctx.store.read(|db| front::list(db, None)).await?;
    let known: BTreeSet<String> = runs.iter().map(|run| format!("{}{SUFFIX}", run.transfer)).collect();
    let folder = ctx.front_rows();
    blocking(&ctx.world, move || {
        // It is missing where no such table was ever read.
        let Ok(entries) = std::fs::read_dir(&folder) else { return Ok(()) };
        for entry in entries.filter_map(Result::ok) {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.ends_with(SUFFIX) && !known.contains(name.as_ref()) {
                rows::remove(&entry.path())?;
            }
        }
        Ok(())
    })
    .await
}

/// Rows of one transaction in the database.
pub(super) const PAGE: usize = 500;
/// What could not be done is tried again.
const AGAIN: Duration = Duration::from_secs(30);
