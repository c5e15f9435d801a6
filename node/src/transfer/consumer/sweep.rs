//! Clears the spool and the staging folder of transfers that have ended, at each start: a kill between a
//! transfer's end and its clean-up leaves files that nobody would ever look at again.

use super::settling::discard_landing;
use crate::context::Context;
use crate::settle::{self, Subject};
use crate::store::{Side, Transfer, exchange, transfers};
use crate::transfer::blocking;
use posthouse_protocol::id::TransferId;
use posthouse_protocol::job::State;
use posthouse_protocol::problem::{Code, Problem};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) async fn working_folders(ctx: &Arc<Context>) -> Result<(), Problem> {
    end_lost_snapshots(ctx).await?;
    let context = ctx.clone();
    blocking(&ctx.world, move || {
        for folder in [context.spool(), context.staging()] {
            for (path, transfer) in children(&folder) {
                let row = context.store.read_now(|db| transfers::get(db, &transfer))?;
                if row.as_ref().is_none_or(|row| is_over(&context, row)) {
                    if let Some(row) = row.filter(|row| row.side == Side::Consumer && row.state == State::Failed)
                        && let Err(problem) = discard_kept(&context, &row)
                    {
                        // Its database may be away now, and there at another start.
                        tracing::warn!(%transfer, %problem, "What a failed transfer has staged remains");
                        continue;
                    }
                    context.store.write_now(|tx| {
                        exchange::forget_spool(tx, &transfer)?;
                        exchange::forget_landing(tx, &transfer)
                    })?;
                    // Last: it alone tells of what is recorded.
                    remove(&path);
                }
            }
        }
        Ok(())
    })
    .await
}

/// Splits of a failed transfer are kept a day for its successor; of others nothing is needed once they ended.
fn is_over(ctx: &Context, row: &Transfer) -> bool {
    let kept_ms = if row.state == State::Failed && row.side == Side::Consumer { SPLITS_KEPT_MS } else { 0 };
    let ended = row.ended.unwrap_or(row.created);
    row.state.is_final() && ctx.world.clock.now().since_ms(ended) >= kept_ms
}

/// Snapshots do not outlive the process: a table that was not sealed to its last split can never be offered again.
async fn end_lost_snapshots(ctx: &Arc<Context>) -> Result<(), Problem> {
    let filter = transfers::Filter { side: Some(Side::Provider), open: true, ..Default::default() };
    let open = ctx
        .store
        .read(move |db| {
            let mut lost = Vec::new();
            for row in transfers::list(db, &filter)? {
                let offered = exchange::offered(db, &row.id)?;
                if offered.is_some_and(|offered| offered.offer.contract.is_some() && !offered.sealed) {
                    lost.push(row);
                }
            }
            Ok(lost)
        })
        .await?;
    for row in open {
        let subject = Subject {
            transfer: row.id.clone(),
            job: row.job.clone(),
            resource: row.resource.clone(),
            consumer: row.peer.clone(),
        };
        settle::state_ending(ctx, &row, &subject, &Problem::new(Code::SnapshotLost)).await?;
    }
    Ok(())
}

/// Nothing has followed it: what is staged of it goes, where its job lands now.
fn discard_kept(ctx: &Context, row: &Transfer) -> Result<(), Problem> {
    let target = ctx.config().landing_job(&row.peer, &row.job).and_then(|job| job.into.clone());
    target.map_or(Ok(()), |target| discard_landing(ctx, row, &target, false))
}

fn children(folder: &Path) -> Vec<(PathBuf, TransferId)> {
    // It is missing where no table was ever moved.
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let name = path.file_name()?.to_str()?;
            let transfer = TransferId::parse(name.strip_suffix(".arrived").unwrap_or(name)).ok()?;
            Some((path, transfer))
        })
        .collect();
    found.sort();
    found
}

fn remove(path: &Path) {
    let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    if let Err(error) = removed {
        tracing::warn!(path = %path.display(), %error, "A working file remains");
    }
}

const SPLITS_KEPT_MS: i64 = 86_400_000;
