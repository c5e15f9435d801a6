//! Rows in quarantine (问题数据): which transfers have left some, what they are and why, and another try.

use super::answer::{json, unknown};
use super::{QuarantineRow, Quarantined, Started, jobs};
use crate::context::Context;
use crate::store::{Side, quarantine, transfers};
use posthouse_platform::admin_socket::Items;
use posthouse_protocol::id::{JobId, TransferId};
use posthouse_protocol::problem::{Code, Problem};
use serde_json::Value;
use std::sync::Arc;

pub(super) async fn list(context: &Context, job: Option<JobId>, items: &mut Items) -> Result<Value, Problem> {
    let found = context
        .store
        .read(move |db| {
            let mut found = Vec::new();
            for (id, rows) in quarantine::transfers(db, job.as_ref(), LISTED_MAX)? {
                if let Some(row) = transfers::get(db, &id)? {
                    found.push(Quarantined { rows, ..Quarantined::of(&row) });
                }
            }
            Ok(found)
        })
        .await?;
    for one in found {
        items.send(&one).await?;
    }
    Ok(Value::Object(serde_json::Map::new()))
}

pub(super) async fn show(context: &Context, transfer: &TransferId, items: &mut Items) -> Result<Value, Problem> {
    let mut after = 0;
    loop {
        let id = transfer.clone();
        let page = context
            .store
            .read(move |db| {
                transfers::get(db, &id)?.ok_or_else(|| unknown(&id))?;
                quarantine::of_transfer(db, &id, after, PAGE)
            })
            .await?;
        let Some(last) = page.last() else { return Ok(Value::Object(serde_json::Map::new())) };
        after = last.id;
        for row in page {
            items.send(&QuarantineRow::from(row)).await?;
        }
    }
}

/// Runs the job again from where the transfer had begun, so that its rows are read again, those in quarantine too:
/// whichever fit now land, whichever stand already change nothing.
pub(super) async fn resubmit(context: &Arc<Context>, transfer: &TransferId) -> Result<Value, Problem> {
    let id = transfer.clone();
    let row = context.store.read(move |db| transfers::get(db, &id)).await?.ok_or_else(|| unknown(transfer))?;
    let refused = |what: String| Err(Problem::new(Code::UsageInvalid).with("what", what));
    if row.side == Side::Provider {
        return refused(format!("{} takes this resource; its rows are taken again there", row.peer));
    }
    if !row.state.is_final() {
        return refused(format!("the transfer {transfer} has not ended yet"));
    }
    let job = jobs::find(context, &row.job)?;
    let (run, attached) = crate::jobs::start_from(context, &job, row.watermark_from).await?;
    if attached {
        return refused(format!("the job {} is running; try again when it has ended", row.job));
    }
    json(&Started { job: row.job, transfer: run.transfer, attached })
}

const LISTED_MAX: u32 = 10_000;
const PAGE: u32 = 500;
