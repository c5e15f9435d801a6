//! Questions about jobs: list, run, pause, resume, remove, and watching what they run.

use super::answer::{json, unknown};
use super::{JobRow, Progress, Started, Summary, evidence, proven};
use crate::config::{Job, Kind, Schedule};
use crate::context::Context;
use crate::jobs::{self, Ran, Run};
use crate::schedule;
use crate::store::{Side, Transfer, jobs as kept, transfers};
use crate::transfer::{Live, Outcome};
use posthouse_platform::admin_socket::Items;
use posthouse_protocol::id::{JobId, TransferId};
use posthouse_protocol::problem::{Code, Problem};
use serde_json::{Value, json as value};
use std::sync::Arc;
use std::time::Duration;

pub(super) async fn list(context: &Arc<Context>, items: &mut Items) -> Result<Value, Problem> {
    let config = context.config();
    for job in config.jobs.values() {
        let name = job.name.clone();
        let (state, last) = context
            .store
            .read(move |db| {
                let filter = transfers::Filter { job: Some(name.clone()), limit: Some(1), ..Default::default() };
                Ok((kept::get(db, &name)?, transfers::list(db, &filter)?.pop()))
            })
            .await?;
        let now = context.world.clock.now();
        let next = schedule::due(&job.schedule, state.last_due, now, now, job.missed_once);
        let row = JobRow {
            name: job.name.clone(),
            kind: kind(job).to_owned(),
            peer: job.peer().clone(),
            resource: resource(job),
            into: job.into.as_ref().map(Context::target_text),
            mode: job.mode,
            write: job.write,
            schedule: schedule_text(&job.schedule),
            paused: state.paused,
            removed: state.removed,
            running: context.runs.of(&job.name).is_some(),
            next_at: if state.paused || state.removed { None } else { next.run.or(next.next) },
            last_transfer: last.as_ref().map(|row| row.id.clone()),
            last_state: last.as_ref().map(|row| row.state),
            last_at: last.as_ref().map(|row| row.ended.or(row.started).unwrap_or(row.created)),
        };
        items.send(&row).await?;
    }
    Ok(value!({}))
}

/// A job that its operator does not hold.
pub(super) async fn startable(context: &Arc<Context>, name: &JobId) -> Result<Job, Problem> {
    let job = find(context, name)?;
    let id = name.clone();
    let state = context.store.read(move |db| kept::get(db, &id)).await?;
    if state.removed {
        return Err(Problem::new(Code::UnknownName)
            .with("kind", "job")
            .with("name", name)
            .cause("it was removed; `job resume` brings it back"));
    }
    if state.paused {
        let what = format!("the job {name} is paused; `posthouse job resume` lets it run");
        return Err(Problem::new(Code::UsageInvalid).with("what", what));
    }
    Ok(job)
}

pub(super) async fn run(context: &Arc<Context>, name: &JobId, wait: bool, items: &mut Items) -> Result<Value, Problem> {
    let job = startable(context, name).await?;
    let (run, attached) = jobs::start(context, &job).await?;
    if !wait {
        return json(&Started { job: name.clone(), transfer: run.transfer, attached });
    }
    follow_run(context, &job, run, items).await
}

/// Progress until the run ends, then its summary.
async fn follow_run(context: &Arc<Context>, job: &Job, mut run: Run, items: &mut Items) -> Result<Value, Problem> {
    loop {
        let again = tokio::select! {
            biased;
            outcome = run.ended() => Some(outcome),
            () = tokio::time::sleep(PROGRESS_EVERY) => None,
        };
        match again {
            Some(Ok(Ran::Transferred(Outcome::Final(row)))) => return json(&summary(context, *row).await?),
            Some(Ok(Ran::Transferred(Outcome::Interrupted))) => return Err(jobs::stopping()),
            Some(Ok(Ran::Exported(exported))) => return json(&summary(context, exported.row).await?),
            Some(Ok(Ran::Observed(deep))) => return json(&evidence::observed(context, *deep)),
            Some(Err(problem)) => return Err(problem),
            None => {
                if let Some(live) = live_of(context, job) {
                    items.send(&Progress::of(&live, context.world.clock.now())).await?;
                }
            }
        }
    }
}

/// The transfer of a job that runs here now.
fn live_of(context: &Context, job: &Job) -> Option<Live> {
    context.transfers.list().into_iter().find(|live| match &job.kind {
        Kind::Push { resource, to } => {
            live.row.side == Side::Provider && live.row.peer == *to && live.row.resource.resource == *resource
        }
        _ => live.row.side == Side::Consumer && live.row.job == job.name,
    })
}

pub(super) async fn summary(context: &Arc<Context>, row: Transfer) -> Result<Summary, Problem> {
    let now = context.world.clock.now();
    context.store.read(move |db| Ok(Summary::of(&row, proven(db, &row)?, now))).await
}

pub(super) async fn watch(context: &Arc<Context>, transfer: &TransferId, items: &mut Items) -> Result<Value, Problem> {
    loop {
        let id = transfer.clone();
        let row = context.store.read(move |db| transfers::get(db, &id)).await?.ok_or_else(|| unknown(transfer))?;
        if row.state.is_final() {
            return json(&summary(context, row).await?);
        }
        let live = context.transfers.list().into_iter().find(|live| live.row.id == *transfer);
        let now = context.world.clock.now();
        let progress = live.map_or_else(
            || {
                Progress::of(
                    &Live {
                        bytes: row.counts.bytes,
                        bytes_total: 0,
                        files: row.counts.files,
                        rows: 0,
                        row: row.clone(),
                    },
                    now,
                )
            },
            |live| Progress::of(&live, now),
        );
        items.send(&progress).await?;
        tokio::select! {
            biased;
            () = context.drain.cancelled() => return Err(jobs::stopping()),
            () = tokio::time::sleep(PROGRESS_EVERY) => {}
        }
    }
}

pub(super) async fn retry(context: &Arc<Context>, transfer: &TransferId) -> Result<Value, Problem> {
    let id = transfer.clone();
    let row = context.store.read(move |db| transfers::get(db, &id)).await?.ok_or_else(|| unknown(transfer))?;
    if !row.state.is_final() {
        // Not ended: it goes on by itself, at once where it waits for something.
        context.transfers.resume(transfer);
        let attached = context.runs.of(&row.job).is_some();
        if row.side == Side::Consumer {
            jobs::take_up(context, &row);
        }
        return json(&Started { job: row.job, transfer: Some(row.id), attached });
    }
    let job = match row.side {
        Side::Consumer => find(context, &row.job)?,
        Side::Provider => {
            let what = format!("{} takes this resource; it is retried there", row.peer);
            return Err(Problem::new(Code::UsageInvalid).with("what", what));
        }
    };
    let (run, attached) = jobs::start(context, &job).await?;
    json(&Started { job: job.name, transfer: run.transfer, attached })
}

pub(super) async fn pause(context: &Arc<Context>, name: &JobId) -> Result<Value, Problem> {
    let job = find(context, name)?;
    set(context, name, |state| state.paused = true).await?;
    if let Some(live) = live_of(context, &job) {
        context.transfers.pause(&live.row.id);
    }
    Ok(value!({ "job": name, "paused": true }))
}

pub(super) async fn resume(context: &Arc<Context>, name: &JobId) -> Result<Value, Problem> {
    let job = find(context, name)?;
    set(context, name, |state| (state.paused, state.removed) = (false, false)).await?;
    if let Some(live) = live_of(context, &job) {
        context.transfers.resume(&live.row.id);
    }
    let wanted = name.clone();
    let open = context.store.read(move |db| transfers::open_of_job(db, Side::Consumer, &wanted)).await?;
    if let Some(row) = open {
        jobs::take_up(context, &row);
    }
    Ok(value!({ "job": name, "paused": false }))
}

pub(super) async fn remove(context: &Arc<Context>, name: &JobId) -> Result<Value, Problem> {
    let job = find(context, name)?;
    set(context, name, |state| state.removed = true).await?;
    if let Some(live) = live_of(context, &job) {
        context.transfers.cancel(&live.row.id);
    }
    Ok(value!({ "job": name, "removed": true }))
}

async fn set(
    context: &Arc<Context>,
    name: &JobId,
    change: impl FnOnce(&mut kept::JobState) + Send + 'static,
) -> Result<(), Problem> {
    let name = name.clone();
    context
        .store
        .write(move |tx| {
            let mut state = kept::get(tx, &name)?;
            change(&mut state);
            kept::set(tx, &name, &state)
        })
        .await
}

pub(super) fn find(context: &Context, name: &JobId) -> Result<Job, Problem> {
    let config = context.config();
    config.jobs.get(name).cloned().ok_or_else(|| {
        let near = posthouse_platform::settings::nearest(name.as_str(), config.jobs.keys().map(JobId::as_str));
        let problem = Problem::new(Code::UnknownName).with("kind", "job").with("name", name);
        match near {
            Some(near) => problem.cause(format!("did you mean `{near}`?")),
            None => problem,
        }
    })
}

pub(super) fn kind(job: &Job) -> &'static str {
    match job.kind {
        Kind::Take { .. } => "take",
        Kind::Push { .. } => "push",
        Kind::Accept { .. } => "accept",
    }
}

pub(super) fn resource(job: &Job) -> String {
    match &job.kind {
        Kind::Take { resource } => resource.to_string(),
        Kind::Push { resource, .. } => resource.to_string(),
        Kind::Accept { from, job } => format!("{from}/{job}"),
    }
}

fn schedule_text(schedule: &Schedule) -> String {
    match schedule {
        Schedule::Manual => "manual".to_owned(),
        Schedule::Every(interval) => format!("every {interval}"),
        Schedule::Watch => "watch".to_owned(),
        Schedule::Cron(cron) => cron.to_string(),
    }
}

const PROGRESS_EVERY: Duration = Duration::from_millis(250);
