//! Rows whose flags are set are kept for as long as `keep` says, and deleted then, where they are still what was left.
//! Which they are is in [`Kept`], a file for each table, and in nothing else: without it, or without `keep`, nothing is
//! ever deleted.

use super::back::{PAGE, drop_file, known};
use super::kept::Kept;
use super::path;
use super::rows::{self, FrontRows};
use crate::context::Context;
use crate::store::front;
use crate::transfer::blocking;
use posthouse_protocol::id::{ResourceId, TransferId};
use posthouse_protocol::problem::Problem;
use posthouse_protocol::time::Timestamp;
use std::path::PathBuf;
use std::sync::Arc;

/// What a transfer handed over, and whose flags were set at that time, goes to what is kept of its table, and its own file
/// goes. Whoever calls has the table's turn.
pub(super) async fn keep(
    ctx: &Arc<Context>,
    transfer: &TransferId,
    resource: &ResourceId,
    at: Timestamp,
) -> Result<(), Problem> {
    if known(ctx, resource).is_some_and(|(_, exchange)| exchange.keep_ms.is_some()) {
        let (from, to) = (path(ctx, transfer), kept_path(ctx, resource));
        blocking(&ctx.world, move || {
            let Some(rows) = FrontRows::open(&from)? else { return Ok(()) };
            let mut kept = Kept::create(&to)?;
            let mut above = 0;
            loop {
                let page = rows.page(above, PAGE)?;
                let Some(last) = page.last().map(|(number, _)| *number) else { return Ok(()) };
                above = last;
                let page: Vec<_> = page.into_iter().map(|(_, row)| row).collect();
                kept.keep(&page, at)?;
            }
        })
        .await?;
    }
    crash_point!("front-kept");
    let id = transfer.clone();
    ctx.store.write(move |tx| front::forget(tx, &id)).await?;
    drop_file(ctx, transfer).await
}

/// The tables of which rows are kept.
pub(super) async fn kept(ctx: &Arc<Context>) -> Result<Vec<ResourceId>, Problem> {
    let folder = ctx.front_rows();
    blocking(&ctx.world, move || {
        // It is missing where no such table was ever read.
        let Ok(entries) = std::fs::read_dir(&folder) else { return Ok(Vec::new()) };
        let resource = |name: &str| ResourceId::parse(name.strip_suffix(KEPT)?).ok();
        let names = entries.filter_map(Result::ok).map(|entry| entry.file_name());
        Ok(names.filter_map(|name| resource(&name.to_string_lossy())).collect())
    })
    .await
}

/// Deletes what was kept long enough since its flag was set.
pub(super) async fn purge(ctx: &Arc<Context>, resource: &ResourceId) -> Result<(), Problem> {
    let path = kept_path(ctx, resource);
    let keeps = known(ctx, resource).and_then(|(connection, exchange)| Some((exchange.keep_ms?, connection, exchange)));
    let Some((keep_ms, connection, exchange)) = keeps else {
        let _turn = ctx.front.turn(resource).await;
        blocking(&ctx.world, move || rows::remove(&path)).await?;
        tracing::info!(%resource, "The configuration has no `keep` any more: no row that was kept is deleted");
        return Ok(());
    };
    let until = Timestamp(ctx.world.clock.now().0.saturating_sub(keep_ms));
    let looked = path.clone();
    // A table that is being read is not waited for without need.
    let is_due = blocking(&ctx.world, move || match Kept::open(&looked)? {
        Some(kept) => Ok(!kept.due(until, 1)?.is_empty() || kept.is_empty()?),
        None => Ok(false),
    });
    if !is_due.await? {
        return Ok(());
    }
    let _turn = ctx.front.turn(resource).await;
    let context = ctx.clone();
    let purged = blocking(&ctx.world, move || {
        let Some(mut kept) = Kept::open(&path)? else { return Ok(0) };
        let mut page = kept.due(until, PAGE)?;
        let mut purged = 0;
        if !page.is_empty() {
            let mut connection = context.connect(&connection)?;
            let mut table = connection.front(&exchange.spec)?;
            while !page.is_empty() {
                purged += table.purge(&page)?;
                crash_point!("front-purged");
                kept.forget(&page)?;
                page = kept.due(until, PAGE)?;
            }
        }
        if kept.is_empty()? {
            drop(kept);
            rows::remove(&path)?;
        }
        Ok(purged)
    })
    .await?;
    if purged > 0 {
        tracing::info!(%resource, rows = purged, "Rows of a front-end table were purged");
    }
    Ok(())
}

fn kept_path(ctx: &Context, resource: &ResourceId) -> PathBuf {
    ctx.front_rows().join(format!("{resource}{KEPT}"))
}

const KEPT: &str = ".kept";
