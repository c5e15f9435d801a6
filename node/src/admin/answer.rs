//! The desk: takes a question from the socket and gives its answer.

use super::{
    LeftOutRow, Listed, QuarantineRow, Request, RowsStated, Shown, StatementRow, Status, Summary, bundle, dry_run,
    evidence, jobs, line, proven, quarantine, statistics, summaries,
};
use crate::config::Bandwidth;
use crate::context::Context;
use crate::pacing::Set;
use crate::store::quarantine::of_transfer;
use crate::store::{Side, spent, statements, transfers};
use posthouse_platform::admin_socket::{Handler, Items};
use posthouse_protocol::frame::Relay;
use posthouse_protocol::id::TransferId;
use posthouse_protocol::policy::Staleness;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::statement::Statement;
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;

/// Answers for one node.
pub struct Desk {
    pub context: Arc<Context>,
}

#[async_trait::async_trait]
impl Handler for Desk {
    async fn answer(&self, request: Value, items: &mut Items) -> Result<Value, Problem> {
        let request: Request = serde_json::from_value(request).map_err(|e| {
            Problem::new(Code::UsageInvalid).with("what", format!("the node does not know this question: {e}"))
        })?;
        let context = &self.context;
        match request {
            Request::Status => json(&status(context).await?),
            Request::JobList => jobs::list(context, items).await,
            Request::JobRun { job, dry_run: true, .. } => dry_run::dry_run(context, &job, items).await,
            Request::JobRun { job, wait, .. } => jobs::run(context, &job, wait, items).await,
            Request::JobPause { job } => jobs::pause(context, &job).await,
            Request::JobResume { job } => jobs::resume(context, &job).await,
            Request::JobRemove { job } => jobs::remove(context, &job).await,
            Request::TransferList { job, limit } => {
                let limit = limit.unwrap_or(LISTED_DEFAULT).min(LISTED_MAX);
                // One more than are listed says whether there are more.
                let filter = transfers::Filter { job, limit: Some(limit + 1), ..Default::default() };
                let found = summaries(context, filter).await?;
                let truncated = found.len() > limit as usize;
                for summary in found.iter().take(limit as usize) {
                    items.send(summary).await?;
                }
                json(&Listed { truncated, limit })
            }
            Request::TransferShow { transfer } => json(&show(context, &transfer).await?),
            Request::TransferWatch { transfer } => jobs::watch(context, &transfer, items).await,
            Request::TransferCancel { transfer } => cancel(context, &transfer).await,
            Request::TransferRetry { transfer } => jobs::retry(context, &transfer).await,
            Request::QuarantineList { job } => quarantine::list(context, job, items).await,
            Request::QuarantineShow { transfer } => quarantine::show(context, &transfer, items).await,
            Request::QuarantineResubmit { transfer } => quarantine::resubmit(context, &transfer).await,
            Request::ReceiptList => evidence::list(context, items).await,
            Request::ReceiptShow { id } => json(&evidence::show(context, &id).await?),
            Request::ReceiptExport { id } => evidence::export(context, &id, items).await,
            Request::Reconcile { deep: Some(job), .. } => json(&evidence::deep(context, &job).await?),
            Request::Reconcile { day, deep: None } => json(&evidence::balance(context, day.as_deref()).await?),
            Request::Statistics { period } => json(&statistics::of(context, period.as_deref()).await?),
            Request::Metrics => {
                crate::metrics::measure(context).await;
                Ok(Value::String(context.metrics.text()))
            }
            Request::LineProbe { job, consumer, resource } => {
                json(&line::probe(context, &Relay { consumer, resource, job, transfer: None }).await?)
            }
            Request::BundleExport { job, out, part_size } => bundle::export(context, &job, out, part_size).await,
            Request::BundleImport { folder, returns } => bundle::import(context, folder, returns, items).await,
            Request::SetBandwidth { bandwidth } => set_bandwidth(context, &bandwidth),
            Request::Drain => {
                tracing::info!("Asked to drain");
                context.drain.cancel();
                Ok(Value::Object(serde_json::Map::new()))
            }
        }
    }
}

fn set_bandwidth(context: &Context, text: &str) -> Result<Value, Problem> {
    let set = match text.trim() {
        "config" => None,
        "none" => Some(Set(None)),
        rate => {
            let parsed = rate.parse::<Bandwidth>();
            Some(Set(Some(
                parsed.map_err(|e| Problem::new(Code::UsageInvalid).with("what", format!("bandwidth: {e}")))?,
            )))
        }
    };
    let now = context.world.clock.now();
    context.pacing.set(set, &context.config(), now);
    tracing::info!(bandwidth = text, "The node's bandwidth was set");
    Ok(serde_json::json!({ "bandwidth": text.trim(), "bytes_per_second": context.pacing.rate() }))
}

async fn status(context: &Arc<Context>) -> Result<Status, Problem> {
    let open = context
        .store
        .read(|db| {
            let open = transfers::list(db, &transfers::Filter { open: true, ..Default::default() })?.len() as u64;
            Ok((open, statements::waiting(db)?))
        })
        .await?;
    let (heard, problem) = context.centre.last();
    Ok(Status {
        node: context.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        epoch: context.epoch,
        coordinator: context.centre.name().clone(),
        coordinator_connected: context.centre.connected(),
        coordinator_heard_at: heard,
        coordinator_problem: problem.map(|problem| problem.to_string()),
        policy: context.authority.version(),
        policy_stale: context.authority.staleness() == Staleness::Stale,
        barred: context.authority.barred().map(|code| code.to_string()),
        certificate_expires_at: context.centre.identity().not_after(),
        peers_connected: context.pool.connected(),
        transfers_open: open.0,
        outbox: open.1.0,
        outbox_since: open.1.1,
        disk_free_bytes: context.disk_free().await,
        last_error: context.last_error().map(|problem| problem.to_string()),
        as_of: context.world.clock.now(),
    })
}

async fn show(context: &Arc<Context>, transfer: &TransferId) -> Result<Shown, Problem> {
    let (id, now) = (transfer.clone(), context.world.clock.now());
    let live = context.transfers.list().into_iter().find(|live| live.row.id == *transfer);
    let (root, of) = (context.attachments(), transfer.clone());
    let omitted = context
        .world
        .blocking
        .run(move || crate::transfer::left_out(&root, &of))
        .await
        .map_err(|error| Problem::new(Code::InsideFailed).cause(error))??
        .into_iter()
        .map(|what| LeftOutRow {
            name: String::from_utf8_lossy(&what.name).into_owned(),
            code: format!("PH{:04}", what.code),
            reason: what.reason,
        })
        .collect::<Vec<_>>();
    let authority = context.authority.clone();
    let (counted, epoch) = (context.transfers.spent(transfer), context.epoch);
    context
        .store
        .read(move |db| {
            let row = transfers::get(db, &id)?.ok_or_else(|| unknown(&id))?;
            let kept = statements::of_transfer(db, &id)?;
            let opened: Vec<Statement> =
                kept.iter().filter_map(|kept| Statement::open(&kept.bytes, authority.as_ref()).ok()).collect();
            let bad = of_transfer(db, &id, 0, QUARANTINE_SHOWN)?;
            let spent = match counted {
                Some(now) => Some(now.and(spent::get(db, &id, row.side, Some(epoch))?)),
                None => spent::get(db, &id, row.side, None)?,
            };
            let shown = live.filter(|_| !row.state.is_final()).map_or_else(|| row.clone(), |live| live.row);
            Ok(Shown {
                summary: Summary::of(&shown, proven(db, &row)?, now),
                counts: row.counts,
                watermark_from: row.watermark_from.as_ref().map(ToString::to_string),
                watermark_to: row.watermark_to.as_ref().map(ToString::to_string),
                statements: kept
                    .into_iter()
                    .map(|kept| StatementRow {
                        sha256: hex::encode(kept.sha256),
                        kind: kept.kind,
                        own: kept.own,
                        at: kept.at,
                        proven: kept.proven,
                    })
                    .collect(),
                quarantine: bad.into_iter().map(QuarantineRow::from).collect(),
                left_out: omitted,
                rows_stated: RowsStated::of(&opened),
                spent,
            })
        })
        .await
}

async fn cancel(context: &Arc<Context>, transfer: &TransferId) -> Result<Value, Problem> {
    let id = transfer.clone();
    let row = context.store.read(move |db| transfers::get(db, &id)).await?.ok_or_else(|| unknown(transfer))?;
    if row.state.is_final() {
        let what = format!("the transfer {transfer} has ended already ({})", row.state);
        return Err(Problem::new(Code::UsageInvalid).with("what", what));
    }
    if row.side == Side::Consumer && row.state == posthouse_protocol::job::State::Committed {
        let what = format!("the transfer {transfer} has landed: it ends with its receipt, once {} answers", row.peer);
        return Err(Problem::new(Code::UsageInvalid).with("what", what));
    }
    if !context.transfers.cancel(transfer) {
        // It does not run here now. A consumer's is taken up just to be ended properly, statement included.
        if row.side == Side::Provider {
            let what = format!("the transfer {transfer} is not under way; its consumer decides whether it goes on");
            return Err(Problem::new(Code::UsageInvalid).with("what", what));
        }
        crate::jobs::take_up(context, &row);
        let mut tries = 0;
        while !context.transfers.cancel(transfer) {
            tries += 1;
            if tries > CANCEL_TRIES {
                return Err(Problem::new(Code::Busy).with("peer", &context.name));
            }
            tokio::time::sleep(CANCEL_WAIT).await;
        }
    }
    Ok(serde_json::json!({ "transfer": transfer }))
}

pub(super) fn unknown(transfer: &TransferId) -> Problem {
    Problem::new(Code::UnknownName).with("kind", "transfer").with("name", transfer)
}

pub(super) fn json(value: &impl Serialize) -> Result<Value, Problem> {
    serde_json::to_value(value).map_err(|e| Problem::new(Code::InsideFailed).cause(e))
}

const LISTED_DEFAULT: u32 = 200;
const LISTED_MAX: u32 = 100_000;
const QUARANTINE_SHOWN: u32 = 20;
const CANCEL_TRIES: u32 = 50;
const CANCEL_WAIT: std::time::Duration = std::time::Duration::from_millis(20);
