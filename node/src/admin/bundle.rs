//! Offline bundles (线下报送): a job run into parts on a disk, and what is on a disk taken up.

use super::answer::json;
use super::jobs::{startable, summary};
use super::{Exported, NotTaken};
use crate::config::{PART_SIZE_MIN, PART_SUFFIX_DEFAULT};
use crate::context::Context;
use crate::ferry::{self, Outlet, Taken};
use crate::jobs::{self, Ran};
use crate::store::{Transfer, transfers};
use posthouse_platform::admin_socket::Items;
use posthouse_protocol::id::{JobId, TransferId};
use posthouse_protocol::problem::{Code, Problem};
use serde_json::{Value, json as value};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub(super) async fn export(
    context: &Arc<Context>,
    job: &JobId,
    out: PathBuf,
    part_size: u64,
) -> Result<Value, Problem> {
    let job = startable(context, job).await?;
    if part_size < PART_SIZE_MIN.0 {
        let what = format!("a part has at least {PART_SIZE_MIN}");
        return Err(Problem::new(Code::UsageInvalid).with("what", what));
    }
    match jobs::start_export(context, &job, outlet(out, part_size)).await?.ended().await? {
        Ran::Exported(exported) => {
            let ferry::Exported { row, parts, bytes } = *exported;
            json(&Exported { transfer: row.id, job: row.job, peer: row.peer, parts, bytes })
        }
        _ => Err(jobs::stopping()),
    }
}

pub(super) async fn import(
    context: &Arc<Context>,
    folder: PathBuf,
    returns: PathBuf,
    items: &mut Items,
) -> Result<Value, Problem> {
    let mut told = BTreeSet::new();
    loop {
        let (taken, wrong) = ferry::import(context, folder.clone(), outlet(returns.clone(), u64::MAX)).await?;
        let (mut waits, before) = (Vec::new(), told.len());
        for one in taken {
            let row = match one {
                Taken::Answer(row) => *row,
                Taken::Transfer(row) => ended(context, row.id).await?,
                Taken::Waits(transfer, problem) => {
                    waits.push(NotTaken { transfer: Some(transfer), problem });
                    continue;
                }
            };
            if row.state.is_final() {
                if told.insert(row.id.clone()) {
                    items.send(&summary(context, row).await?).await?;
                }
            } else {
                let problem = Problem::new(Code::PartsMissing).with("transfer", &row.id);
                waits.push(NotTaken { transfer: Some(row.id), problem });
            }
        }
        // Of several runs of a job one lands after the other.
        if told.len() > before && !waits.is_empty() {
            continue;
        }
        for not_taken in wrong.into_iter().map(|problem| NotTaken { transfer: None, problem }).chain(waits) {
            items.send(&not_taken).await?;
        }
        return Ok(value!({ "transfers": told.len() }));
    }
}

/// Waits for a transfer to end, or to need parts that are not there any more.
async fn ended(context: &Arc<Context>, transfer: TransferId) -> Result<Transfer, Problem> {
    loop {
        let id = transfer.clone();
        let row = context.store.read(move |db| transfers::get(db, &id)).await?;
        match row {
            Some(row) if row.state.is_final() => {
                ferry::imported(context, &transfer);
                return Ok(row);
            }
            Some(row) if !context.ferry.has(&transfer) => return Ok(row),
            Some(_) => {}
            None => return Err(super::answer::unknown(&transfer)),
        }
        tokio::select! {
            biased;
            () = context.drain.cancelled() => return Err(jobs::stopping()),
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

fn outlet(folder: PathBuf, part_bytes: u64) -> Outlet {
    Outlet { folder, part_bytes, suffix: PART_SUFFIX_DEFAULT.to_owned() }
}

const LOOK_EVERY: Duration = Duration::from_millis(100);
