//! What is left of parts whose making was cut short: they are taken back wherever they stand. An outbox stands in the
//! configuration; a disk was where its operator said, and may be away when the node starts, so that it is looked at again
//! before whatever is made next. Only what has the name of that very making is touched.

use super::end;
use super::part::{self, Maker};
use crate::context::Context;
use crate::store::makings::{self, Making};
use crate::store::{Side, transfers};
use crate::transfer::blocking;
use posthouse_platform::endpoint::Transport;
use posthouse_protocol::id::TransferId;
use posthouse_protocol::job::State;
use posthouse_protocol::problem::{Code, Problem};
use std::sync::Arc;

/// Ends what was being written into parts when the node stopped, and takes back what of it stands somewhere: nobody goes
/// on with it. To be done before transfers are swept that lost their snapshot.
pub async fn sweep(ctx: &Arc<Context>) {
    let swept = async {
        let filter = transfers::Filter { side: Some(Side::Provider), open: true, ..Default::default() };
        let (open, known) = ctx.store.read(move |db| Ok((transfers::list(db, &filter)?, makings::list(db)?))).await?;
        for row in open.iter().filter(|row| row.transport == Some(Transport::Ferry)) {
            let is_whole = row.state == State::Staged;
            if !is_whole {
                end(ctx, row, &cut_short()).await?;
            }
            let outbox = ctx.config().ferries.get(&row.peer).map(|ferry| ferry.outbox.clone());
            let Some(outbox) = outbox.filter(|_| !known.iter().any(|making| making.transfer == row.id)) else {
                continue;
            };
            // It was made by a version that did not write down where.
            let (id, disk) = (row.id.clone(), ctx.world.disk.clone());
            blocking(&ctx.world, move || {
                if is_whole {
                    part::put_out(&outbox, &id, None, &*disk).map(|_| ())
                } else {
                    part::take_back(&outbox, &id, None);
                    Ok(())
                }
            })
            .await?;
        }
        clear(ctx).await
    };
    if let Err(problem) = swept.await {
        tracing::warn!(%problem, "A transfer that was to be carried stays open");
    }
}

pub(super) fn cut_short() -> Problem {
    Problem::new(Code::Cancelled).cause("the node stopped before all of its parts were made")
}

/// To be called before the first part is made.
pub(super) async fn begin(ctx: &Context, maker: &Maker) -> Result<(), Problem> {
    let Maker { transfer, outlet, edition, now, .. } = maker;
    let making = Making::new(transfer.clone(), &outlet.folder, *edition, ctx.epoch, *now);
    ctx.store.write(move |tx| makings::begin(tx, making)).await
}

/// It is complete, or given up; `is_clear`: nothing is left there that should not be.
pub(super) async fn over(ctx: &Context, transfer: &TransferId, is_clear: bool) -> Result<(), Problem> {
    let transfer = transfer.clone();
    let keep = move |tx: &rusqlite::Transaction<'_>| {
        if is_clear { makings::forget(tx, &transfer) } else { makings::leave(tx, &transfer) }
    };
    ctx.store.write(keep).await
}

/// Takes back what is left of makings that nobody is at any more; where nothing but its last part's name was missing, that
/// part gets it.
pub(super) async fn clear(ctx: &Arc<Context>) -> Result<(), Problem> {
    let (epoch, now) = (ctx.epoch, ctx.world.clock.now());
    let left = ctx
        .store
        .read(move |db| {
            let left = makings::list(db)?.into_iter().filter(|making| making.epoch != epoch);
            let with_state = |making: Making| {
                let row = transfers::get(db, &making.transfer)?;
                Ok((row.map(|row| row.state), making))
            };
            left.map(with_state).collect::<Result<Vec<_>, Problem>>()
        })
        .await?;
    for (state, making) in left {
        let (disk, at) = (ctx.world.disk.clone(), making.clone());
        let done = blocking(&ctx.world, move || {
            let (folder, edition) = (at.folder(), Some(at.edition()));
            match state {
                Some(State::Settled) => Ok(true),
                Some(State::Staged) => part::put_out(&folder, &at.transfer, edition, &*disk).map(|named| named > 0),
                // It is not ended yet.
                Some(state) if !state.is_final() => Ok(false),
                _ => Ok(part::take_back(&folder, &at.transfer, edition) > 0),
            }
        });
        let is_done = done.await.unwrap_or_else(|problem| {
            tracing::warn!(transfer = %making.transfer, %problem, "What is left of parts stays where it is");
            false
        });
        // An empty folder may be where the disk is put on, and the disk is away.
        if is_done || now.since_ms(making.began) > LOOKED_FOR_MS {
            over(ctx, &making.transfer, true).await?;
        }
    }
    Ok(())
}

const LOOKED_FOR_MS: i64 = 30 * 86_400_000;
