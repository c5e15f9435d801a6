//! Runs of jobs: one at a time per job, however it was started (schedule, operator). A second start while one
//! is under way attaches to it. How a transfer then goes is in `transfer`.

use crate::config::{Job, Kind};
use crate::context::Context;
use crate::ferry::{self, Exported, Outlet};
use crate::reconcile::{self, Deep};
use crate::store::{Side, Transfer, exchange, jobs, transfers};
use crate::transfer::{self, Outcome};
use posthouse_protocol::id::{JobId, TransferId};
use posthouse_protocol::job::{Mode, State};
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::watermark::Watermark;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

/// The runs of one node.
#[derive(Default)]
pub struct Runs {
    running: Mutex<BTreeMap<JobId, Run>>,
    pub(crate) tasks: TaskTracker,
}

/// One run of a job, for whoever waits for it.
#[derive(Clone)]
pub struct Run {
    pub job: JobId,
    /// Known at once for a take, later (or never) for a push.
    pub transfer: Option<TransferId>,
    outcome: watch::Receiver<Option<Result<Ran, Problem>>>,
}

/// How a run came out.
#[derive(Debug, Clone)]
pub enum Ran {
    Transferred(Outcome),
    /// An observe job moves nothing: what the comparison found.
    Observed(Box<Deep>),
    /// It was written into parts, to be carried.
    Exported(Box<Exported>),
}

impl Run {
    /// How it came out, once it has.
    pub fn outcome(&self) -> Option<Result<Ran, Problem>> {
        self.outcome.borrow().clone()
    }
    /// Waits for the end.
    pub async fn ended(&mut self) -> Result<Ran, Problem> {
        let ended = self.outcome.wait_for(Option::is_some).await.map(|outcome| outcome.clone());
        match ended {
            Ok(Some(outcome)) => outcome,
            // The task was dropped with the node.
            _ => Ok(Ran::Transferred(Outcome::Interrupted)),
        }
    }
}

/// Starts a run of `job`, or gives the one that is under way (true).
pub async fn start(context: &Arc<Context>, job: &Job) -> Result<(Run, bool), Problem> {
    start_with(context, job, From::Reached).await
}

/// The same, but an incremental run begins at this mark, or reads everything. Not for jobs that push.
pub async fn start_from(context: &Arc<Context>, job: &Job, mark: Option<Watermark>) -> Result<(Run, bool), Problem> {
    if let Kind::Push { to, .. } = &job.kind {
        let what = format!("{to} lands what the job {} pushes; it says there where to begin", job.name);
        return Err(Problem::new(Code::UsageInvalid).with("what", what));
    }
    start_with(context, job, From::Mark(mark)).await
}

/// Runs a pushing job into parts, where none of its runs is under way.
pub async fn start_export(context: &Arc<Context>, job: &Job, outlet: Outlet) -> Result<Run, Problem> {
    if context.drain.is_cancelled() {
        return Err(stopping());
    }
    match spawn(context, &job.name, Begin::Export(Box::new(job.clone()), outlet)) {
        (run, false) => Ok(run),
        (_, true) => {
            let cause = format!("a run of the job {} is under way", job.name);
            Err(Problem::new(Code::Busy).with("peer", &context.name).cause(cause))
        }
    }
}

/// Where an incremental run begins.
enum From {
    /// Where the last one had got to.
    Reached,
    Mark(Option<Watermark>),
}

async fn start_with(context: &Arc<Context>, job: &Job, from: From) -> Result<(Run, bool), Problem> {
    if context.drain.is_cancelled() {
        return Err(stopping());
    }
    match &job.kind {
        Kind::Take { resource } => {
            if let Some(run) = context.runs.of(&job.name) {
                return Ok((run, true));
            }
            // Whether it is granted is the provider's to say; asked here, a grant made just now is known in time.
            let _ = context.permit(&context.name, resource).await;
            if job.mode == Mode::Observe {
                return Ok(spawn(context, &job.name, Begin::Observe));
            }
            let transfer = plan(context, job, from).await?;
            Ok(spawn(context, &job.name, Begin::Take(transfer)))
        }
        Kind::Push { .. } => Ok(spawn(context, &job.name, Begin::Push(Box::new(job.clone())))),
        Kind::Accept { from, .. } => Err(Problem::new(Code::UsageInvalid)
            .with("what", format!("the job {} is started by {from}, which pushes it", job.name))),
    }
}

/// Goes on with the transfers that had not ended when the node stopped; those of paused jobs wait.
pub async fn recover(context: &Arc<Context>) -> Result<(), Problem> {
    for id in transfer::recover(context).await? {
        let wanted = id.clone();
        let found = context
            .store
            .read(move |db| {
                let Some(row) = transfers::get(db, &wanted)? else { return Ok(None) };
                let state = jobs::get(db, &row.job)?;
                Ok(Some((row, state)))
            })
            .await?;
        match found {
            // What has landed gets its receipt, though its job is removed.
            Some((row, state)) if !state.paused && (!state.removed || row.state == State::Committed) => {
                tracing::info!(transfer = %row.id, job = %row.job, state = %row.state, "Resuming transfer");
                take_up(context, &row);
            }
            _ => tracing::info!(transfer = %id, "A transfer of a paused job waits"),
        }
    }
    Ok(())
}

/// Runs a consumer's open transfer that nobody runs now.
pub fn take_up(context: &Arc<Context>, row: &Transfer) {
    spawn(context, &row.job, Begin::Take(row.id.clone()));
}

/// A transfer that was planned while the run before it was ending had nobody to run it: it is run now.
async fn take_next(context: &Arc<Context>, job: &JobId) {
    let wanted = job.clone();
    let found = context
        .store
        .read(move |db| {
            let state = jobs::get(db, &wanted)?;
            let open = transfers::open_of_job(db, Side::Consumer, &wanted)?;
            Ok(open.filter(|_| !state.paused && !state.removed))
        })
        .await;
    if let Ok(Some(row)) = found
        && !context.drain.is_cancelled()
    {
        take_up(context, &row);
    }
}

/// The open transfer of the job, or a new one.
async fn plan(context: &Arc<Context>, job: &Job, from: From) -> Result<TransferId, Problem> {
    let Kind::Take { resource } = job.kind.clone() else {
        return Err(Problem::new(Code::UsageInvalid).with("what", "only a take is planned here"));
    };
    let new = TransferId::from_random(context.world.random.bytes());
    let mut row = Transfer::planned(
        new,
        Side::Consumer,
        job.name.clone(),
        resource.node.clone(),
        resource,
        job.mode,
        job.write,
        context.world.clock.now(),
    );
    context
        .store
        .write(move |tx| {
            if let Some(open) = transfers::open_of_job(tx, Side::Consumer, &row.job)? {
                return Ok(open.id);
            }
            if row.mode == Mode::Incremental {
                row.watermark_from = match from {
                    From::Reached => exchange::reached(tx, &row.job)?,
                    From::Mark(mark) => mark,
                };
            }
            transfers::plan(tx, &row)?;
            Ok(row.id)
        })
        .await
}

/// Gives the run that is under way where there is one (true).
fn spawn(context: &Arc<Context>, job: &JobId, begin: Begin) -> (Run, bool) {
    let mut running = context.runs.locked();
    if let Some(run) = running.get(job) {
        return (run.clone(), true);
    }
    let (send, outcome) = watch::channel(None);
    let transfer = match &begin {
        Begin::Take(id) => Some(id.clone()),
        Begin::Push(_) | Begin::Export(..) | Begin::Observe => None,
    };
    let run = Run { job: job.clone(), transfer, outcome };
    running.insert(job.clone(), run.clone());
    drop(running);
    let (context, job) = (context.clone(), job.clone());
    context.clone().runs.tasks.spawn(async move {
        let outcome = match begin {
            Begin::Take(id) => transfer::run_consumer(context.clone(), id).await.map(Ran::Transferred),
            Begin::Push(job) => transfer::push(context.clone(), &job).await.map(Ran::Transferred),
            Begin::Export(job, outlet) => {
                ferry::export(&context, &job, outlet).await.map(|exported| Ran::Exported(Box::new(exported)))
            }
            Begin::Observe => {
                let deep = reconcile::deep(&context, &job).await.map(|deep| Ran::Observed(Box::new(deep)));
                context.outbox.notify_one();
                deep
            }
        };
        match &outcome {
            Ok(Ran::Transferred(Outcome::Final(row))) => {
                if let Some(problem) = &row.problem {
                    context.note_error(problem);
                }
            }
            Ok(Ran::Observed(deep)) => {
                tracing::info!(%job, differing = deep.differing, provider_rows = deep.provider_rows, "Observed");
            }
            Ok(Ran::Transferred(Outcome::Interrupted) | Ran::Exported(_)) => {}
            Err(problem) => {
                tracing::warn!(%job, %problem, "A run failed");
                context.note_error(problem);
            }
        }
        let ended = matches!(outcome, Ok(Ran::Transferred(Outcome::Final(_))));
        context.runs.locked().remove(&job);
        send.send_replace(Some(outcome));
        if ended {
            take_next(&context, &job).await;
        }
    });
    (run, false)
}

enum Begin {
    Take(TransferId),
    Push(Box<Job>),
    Export(Box<Job>, Outlet),
    Observe,
}

impl Runs {
    /// The run of a job that is under way.
    pub fn of(&self, job: &JobId) -> Option<Run> {
        self.locked().get(job).cloned()
    }
    pub fn list(&self) -> Vec<Run> {
        self.locked().values().cloned().collect()
    }
    fn locked(&self) -> MutexGuard<'_, BTreeMap<JobId, Run>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn stopping() -> Problem {
    Problem::new(Code::NotRunning)
        .with("role", "node")
        .with("socket", "this address")
        .cause("the node is stopping; what was begun goes on at the next start")
}
