//! When jobs run: cron in a time zone, "every 30s", when a watched folder changes, or by hand. A run that is due while the previous one is
//! under way is left out or queued (`overlap`); runs missed while the node was off are made up once (`missed`).
//! Due times are remembered in the store before the run starts, so that a restart repeats none.

mod clock;
pub(crate) mod watch;
mod window;

pub use clock::{Cron, Due, due, zone};
pub use window::{Window, WindowError};

use crate::config::{Job, Overlap};
use crate::context::Context;
use crate::jobs;
use crate::store::jobs::{self as kept, JobState};
use posthouse_protocol::problem::Problem;
use posthouse_protocol::time::Timestamp;
use std::sync::Arc;
use std::time::Duration;

/// Runs until the node drains.
pub async fn run(context: Arc<Context>) {
    let started = context.world.clock.now();
    let mut changes = context.config_changes();
    loop {
        let wait = match look(&context, started).await {
            Ok(next) => {
                let ms = next.map_or(i64::MAX, |at| at.since_ms(context.world.clock.now()));
                Duration::from_millis(u64::try_from(ms).unwrap_or(0)).clamp(LOOK_MIN, LOOK_MAX)
            }
            Err(problem) => {
                tracing::error!(%problem, "The schedule could not be kept; it is looked at again");
                LOOK_MAX
            }
        };
        tokio::select! {
            biased;
            () = context.drain.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Starts what is due; gives when to look again.
async fn look(context: &Arc<Context>, started: Timestamp) -> Result<Option<Timestamp>, Problem> {
    let config = context.config();
    let mut earliest: Option<Timestamp> = None;
    for job in config.jobs.values().filter(|job| job.starts_here()) {
        let name = job.name.clone();
        let state = context.store.read(move |db| kept::get(db, &name)).await?;
        let now = context.world.clock.now();
        let Due { run, next } = due(&job.schedule, state.last_due, started, now, job.missed_once);
        earliest = earliest.into_iter().chain(next).min();
        match run {
            Some(at) => act(context, job, state, at).await?,
            // What has never been due begins to count from the first look.
            None if state.last_due.is_none() && next.is_some() => remember(context, job, state, now).await?,
            None => {}
        }
    }
    Ok(earliest)
}

async fn act(context: &Arc<Context>, job: &Job, state: JobState, at: Timestamp) -> Result<(), Problem> {
    let idle = !state.paused && !state.removed;
    let busy = context.runs.of(&job.name).is_some();
    if busy && idle && job.overlap == Overlap::Queue {
        // Not remembered: it is still due at the next look.
        return Ok(());
    }
    remember(context, job, state, at).await?;
    if !idle {
        return Ok(());
    }
    if busy {
        tracing::info!(job = %job.name, due = %at, "Left out a run, the previous one is under way");
        return Ok(());
    }
    if let Err(problem) = jobs::start(context, job).await {
        tracing::warn!(job = %job.name, %problem, "A scheduled run did not start");
        context.note_error(&problem);
    }
    Ok(())
}

async fn remember(context: &Arc<Context>, job: &Job, state: JobState, at: Timestamp) -> Result<(), Problem> {
    let name = job.name.clone();
    context
        .store
        .write(move |tx| {
            let state = JobState { last_due: Some(at), ..kept::get(tx, &name).unwrap_or(state) };
            kept::set(tx, &name, &state)
        })
        .await
}

/// The wall clock may jump: nobody sleeps through that for longer.
const LOOK_MAX: Duration = Duration::from_secs(20);
const LOOK_MIN: Duration = Duration::from_millis(200);
