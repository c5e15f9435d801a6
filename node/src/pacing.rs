//! 限速: what this node sends a second, in all, to each peer, and for each job that it pushes. The rates are those of
//! the configuration at this time of the day, or what the operator has set since; both count at once, also for what is
//! under way. What a job takes is bounded where it lands, by the credit that it gives.

use crate::config::{Bandwidth, Config};
use crate::context::Context;
use posthouse_platform::pace::Pace;
use posthouse_protocol::id::{JobId, NodeId};
use posthouse_protocol::time::Timestamp;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::MissedTickBehavior;

pub struct Pacing {
    node: Arc<Pace>,
    peers: Mutex<BTreeMap<NodeId, Arc<Pace>>>,
    jobs: Mutex<BTreeMap<JobId, Arc<Pace>>>,
    /// In place of the configuration's for the whole node, until the next start.
    set: Mutex<Option<Set>>,
}

/// What the operator has set: a rate, or none at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set(pub Option<Bandwidth>);

impl Pacing {
    pub fn new(config: &Config, now: Timestamp) -> Self {
        let node = Arc::new(Pace::new(None));
        let pacing = Self { node, peers: Mutex::default(), jobs: Mutex::default(), set: Mutex::default() };
        pacing.apply(config, now);
        pacing
    }

    /// From now on as the configuration says for this time.
    pub fn apply(&self, config: &Config, now: Timestamp) {
        let set = locked(&self.set).clone();
        let node = set.map_or_else(|| config.node.bandwidth.clone(), |Set(bandwidth)| bandwidth);
        self.node.set(node.and_then(|bandwidth| bandwidth.at(now)));
        update(&self.peers, &config.peers, now);
        let pushed = config.jobs.iter().filter(|(_, job)| job.pushes());
        let pushed: BTreeMap<_, _> =
            pushed.filter_map(|(name, job)| Some((name.clone(), job.bandwidth.clone()?))).collect();
        update(&self.jobs, &pushed, now);
    }

    /// Sets the node's own rate; none takes the configuration's again.
    pub fn set(&self, set: Option<Set>, config: &Config, now: Timestamp) {
        *locked(&self.set) = set;
        self.apply(config, now);
    }

    /// Bytes a second of the whole node now.
    pub fn rate(&self) -> Option<u64> {
        self.node.rate()
    }

    /// Returns when these bytes may be sent.
    pub async fn take(&self, peer: &NodeId, job: Option<&JobId>, bytes: u64) {
        let peer = locked(&self.peers).get(peer).cloned();
        let job = job.and_then(|job| locked(&self.jobs).get(job).cloned());
        for pace in [Some(self.node.clone()), peer, job].into_iter().flatten() {
            pace.take(bytes).await;
        }
    }
}

/// Those that are no longer limited go, the others keep what they have let pass.
fn update<K: Ord + Clone>(paces: &Mutex<BTreeMap<K, Arc<Pace>>>, limits: &BTreeMap<K, Bandwidth>, now: Timestamp) {
    let mut paces = locked(paces);
    // Whoever waits on one that goes is let go.
    paces.retain(|name, pace| {
        let is_limited = limits.contains_key(name);
        if !is_limited {
            pace.set(None);
        }
        is_limited
    });
    for (name, bandwidth) in limits {
        let pace = paces.entry(name.clone()).or_insert_with(|| Arc::new(Pace::new(None)));
        pace.set(bandwidth.at(now));
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Follows the time of the day until the node stops.
pub(crate) async fn run(ctx: Arc<Context>) {
    let mut tick = tokio::time::interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = ctx.drain.cancelled() => return,
            _ = tick.tick() => ctx.pacing.apply(&ctx.config(), ctx.world.clock.now()),
        }
    }
}

const LOOK: Duration = Duration::from_secs(1);
