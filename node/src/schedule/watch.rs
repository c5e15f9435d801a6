//! Jobs with `schedule = "watch"`: a change in the folder that they push starts a run once the folder has come to rest.
//! What the system tells is only a hint: it may tell nothing (network file systems), stop telling (limits, a folder
//! that was exchanged) or tell too much. Runs at the times of the schedule, which look at everything, are the truth.

use super::act;
use crate::config::{Job, Kind, Origin, Resource, Schedule};
use crate::context::Context;
use crate::store::jobs as kept;
use crate::transfer::blocking;
use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use posthouse_protocol::id::{JobId, ResourceId};
use posthouse_protocol::problem::{Code, Problem};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// Runs until the node drains.
pub(crate) async fn run(context: Arc<Context>) {
    let touched = Arc::new(Touched::default());
    let mut watched: BTreeMap<JobId, Watched> = BTreeMap::new();
    let mut pending: BTreeMap<JobId, Pending> = BTreeMap::new();
    let mut changes = context.config_changes();
    let mut looked: Option<Duration> = None;
    loop {
        let config = context.config();
        let jobs: BTreeMap<&JobId, (&Job, Place)> = config
            .jobs
            .values()
            .filter(|job| matches!(job.schedule, Schedule::Watch))
            .filter_map(|job| Some((&job.name, (job, Place::of(job, &config.resources)?))))
            .collect();
        let now = context.world.clock.monotonic();
        let (changed, lost) = touched.take();
        for name in lost {
            watched.remove(&name);
            looked = None;
        }
        if looked.is_none_or(|at| now.saturating_sub(at) >= LOOK) {
            looked = Some(now);
            watched.retain(|name, _| jobs.contains_key(name));
            for (name, (_, place)) in &jobs {
                if let Some(new) = watch(&context, name, place, watched.get(*name), &touched).await {
                    watched.insert((*name).clone(), new);
                }
            }
        }
        for name in changed {
            pending.entry(name).and_modify(|pending| pending.last = now).or_insert(Pending { first: now, last: now });
        }
        pending.retain(|name, _| jobs.contains_key(name));
        let mut wait = LOOK;
        for (name, (job, place)) in &jobs {
            let Some(of_job) = pending.get(*name) else { continue };
            let left = of_job.due(place.rest).saturating_sub(now);
            if left > Duration::ZERO || context.runs.of(name).is_some() {
                wait = wait.min(left.max(BUSY_LOOK));
                continue;
            }
            // What is too young now has its own run later.
            match of_job.rests_at(place.rest) > now {
                true => pending.insert((*name).clone(), Pending { first: now, last: of_job.last }),
                false => pending.remove(*name),
            };
            if let Err(problem) = start(&context, job).await {
                tracing::warn!(job = %name, %problem, "A run after a change did not start");
            }
        }
        tokio::select! {
            biased;
            () = context.drain.cancelled() => return,
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
                looked = None;
            }
            // Whoever writes tells of it again and again.
            () = touched.told.notified() => tokio::time::sleep(TOLD_TOGETHER).await,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn start(context: &Arc<Context>, job: &Job) -> Result<(), Problem> {
    let name = job.name.clone();
    let state = context.store.read(move |db| kept::get(db, &name)).await?;
    act(context, job, state, context.world.clock.now()).await
}

/// A folder that a job pushes, and how long it has to rest before a run.
struct Place {
    path: PathBuf,
    rest: Duration,
}

impl Place {
    fn of(job: &Job, resources: &BTreeMap<ResourceId, Resource>) -> Option<Self> {
        let Kind::Push { resource, .. } = &job.kind else { return None };
        let Origin::Folder { path, options } = &resources.get(resource)?.origin else { return None };
        // What is younger than `quiet` would be left out.
        let quiet = Duration::from_millis(u64::try_from(options.quiet_ms).unwrap_or(0));
        Some(Self { path: path.clone(), rest: (quiet + QUIET_MARGIN).max(REST) })
    }
}

/// When a job's folder began to change, and when it last did.
struct Pending {
    first: Duration,
    last: Duration,
}

impl Pending {
    /// A folder that never rests is given all the same, again and again.
    fn due(&self, rest: Duration) -> Duration {
        self.rests_at(rest).min(self.first + rest.max(RESTLESS))
    }
    fn rests_at(&self, rest: Duration) -> Duration {
        self.last + rest
    }
}

struct Watched {
    /// The folder itself: another may have taken its place.
    place: (u64, u64),
    path: PathBuf,
    /// None where the system does not watch it; that was told.
    watcher: Option<RecommendedWatcher>,
}

/// Watches a job's folder, unless that is done already. None where nothing changes.
async fn watch(
    context: &Arc<Context>,
    job: &JobId,
    place: &Place,
    before: Option<&Watched>,
    touched: &Arc<Touched>,
) -> Option<Watched> {
    let known = before.filter(|before| before.watcher.is_some()).map(|before| (before.place, before.path.clone()));
    let is_told = before.is_some_and(|before| before.watcher.is_none());
    let (path, name, tell) = (place.path.clone(), job.clone(), touched.clone());
    let made = blocking(&context.world, move || {
        let failed = |cause: String| Problem::new(Code::SourceFailed).with("resource", path.display()).cause(cause);
        let stat = std::fs::metadata(&path).map_err(|e| failed(e.to_string()))?;
        let place = (stat.dev(), stat.ino());
        if known.is_some_and(|known| known == (place, path.clone())) {
            return Ok(None);
        }
        let watcher = watcher(&path, name, tell);
        Ok(Some((place, path, watcher.map_err(|e| e.to_string()))))
    })
    .await;
    match made {
        Ok(None) => None,
        Ok(Some((at, path, watcher))) => {
            if let Err(cause) = &watcher
                && !is_told
            {
                tracing::warn!(%job, path = %path.display(), cause, "A folder cannot be watched; it is looked through at intervals");
            }
            if watcher.is_ok() {
                // What changed while nobody watched.
                touched.add(job.clone());
            }
            Some(Watched { place: at, path, watcher: watcher.ok() })
        }
        // A run tells of it; it may come back.
        Err(problem) => {
            tracing::debug!(%job, %problem, "There is no folder to watch");
            None
        }
    }
}

fn watcher(path: &Path, job: JobId, touched: Arc<Touched>) -> notify::Result<RecommendedWatcher> {
    let config = notify::Config::default().with_follow_symlinks(false);
    let root = path.to_owned();
    let told = move |event: notify::Result<Event>| match event {
        Ok(event) if is_end(&event, &root) => touched.lose(job.clone()),
        Ok(event) if is_change(&event) => touched.add(job.clone()),
        Ok(_) => {}
        // Something was missed.
        Err(_) => touched.add(job.clone()),
    };
    let mut watcher = RecommendedWatcher::new(told, config)?;
    watcher.watch(path, RecursiveMode::Recursive)?;
    Ok(watcher)
}

/// Reading is none, and a run reads everything.
fn is_change(event: &Event) -> bool {
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => event.need_rescan(),
        _ => true,
    }
}

/// The folder itself went: nothing more is told of what takes its place.
fn is_end(event: &Event, root: &Path) -> bool {
    let goes = matches!(event.kind, EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)));
    goes && event.paths.iter().any(|path| path == root)
}

/// Jobs whose folders have changed, and those whose folder is watched no more; told by the system's threads.
#[derive(Default)]
struct Touched {
    jobs: Mutex<(BTreeSet<JobId>, BTreeSet<JobId>)>,
    told: Notify,
}

impl Touched {
    fn add(&self, job: JobId) {
        if self.locked().0.insert(job) {
            self.told.notify_one();
        }
    }
    fn lose(&self, job: JobId) {
        if self.locked().1.insert(job) {
            self.told.notify_one();
        }
    }
    fn take(&self) -> (BTreeSet<JobId>, BTreeSet<JobId>) {
        std::mem::take(&mut self.locked())
    }
    fn locked(&self) -> MutexGuard<'_, (BTreeSet<JobId>, BTreeSet<JobId>)> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether each folder is still the one that is watched.
const LOOK: Duration = Duration::from_secs(20);
const REST: Duration = Duration::from_secs(1);
const QUIET_MARGIN: Duration = Duration::from_millis(500);
/// A folder in which something changes all the time is given this often.
const RESTLESS: Duration = Duration::from_secs(30);
const BUSY_LOOK: Duration = Duration::from_millis(200);
const TOLD_TOGETHER: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_waits_for_rest_and_not_for_ever() {
        let seconds = Duration::from_secs;
        let due = |first, last, rest| Pending { first: seconds(first), last: seconds(last) }.due(seconds(rest));
        assert_eq!(due(10, 10, 1), seconds(11));
        assert_eq!(due(10, 25, 1), seconds(26));
        assert_eq!(due(10, 45, 1), seconds(40));
        assert_eq!(due(10, 45, 60), seconds(70));
        // It did not rest: what is younger has another run.
        assert!(Pending { first: seconds(10), last: seconds(39) }.rests_at(seconds(5)) > seconds(40));
    }

    #[test]
    fn reading_is_no_change() {
        let event = |kind| is_change(&Event::new(kind));
        assert!(!event(EventKind::Access(AccessKind::Open(AccessMode::Any))));
        assert!(!event(EventKind::Access(AccessKind::Close(AccessMode::Read))));
        assert!(event(EventKind::Access(AccessKind::Close(AccessMode::Write))));
        assert!(event(EventKind::Remove(notify::event::RemoveKind::File)));
    }
}
