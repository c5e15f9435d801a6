//! What the coordinator does by itself: writes reports down, looks for what is overdue, renews its own
//! certificate. Each round ends when the coordinator stops.

use crate::Centre;
use crate::alarm::{self, Kind};
use crate::store::records::{Page, Window};
use posthouse_protocol::problem::Problem;
use posthouse_protocol::reconciliation::Verdict;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counted since the start, for metrics.
#[derive(Default)]
pub(crate) struct Counted {
    heartbeats: AtomicU64,
    statements: AtomicU64,
}

impl Counted {
    pub(crate) fn heartbeat(&self) {
        self.heartbeats.fetch_add(1, Ordering::Relaxed);
    }
    pub(crate) fn statements(&self, count: usize) {
        self.statements.fetch_add(count as u64, Ordering::Relaxed);
    }
    pub(crate) fn heartbeats_total(&self) -> u64 {
        self.heartbeats.load(Ordering::Relaxed)
    }
    pub(crate) fn statements_total(&self) -> u64 {
        self.statements.load(Ordering::Relaxed)
    }
}

pub(super) fn spawn(centre: &Arc<Centre>) {
    let life = centre.config.certificate_life.duration();
    centre.tasks.spawn(each(centre.clone(), FLUSH, "write down reports", flush));
    centre.tasks.spawn(each(centre.clone(), LOOK, "look for what is overdue", look_for_overdue));
    centre.tasks.spawn(each(centre.clone(), life / 3, "renew the coordinator's own certificate", renew));
}

async fn each<F: Future<Output = Result<(), Problem>>>(
    centre: Arc<Centre>,
    period: Duration,
    what: &'static str,
    work: impl Fn(Arc<Centre>) -> F,
) {
    loop {
        tokio::select! {
            biased;
            () = centre.stopping.cancelled() => return,
            () = tokio::time::sleep(period) => {}
        }
        if let Err(problem) = work(centre.clone()).await {
            tracing::error!(%problem, "Failed to {what}");
        }
    }
}

async fn flush(centre: Arc<Centre>) -> Result<(), Problem> {
    centre.flush_reports().await
}

async fn look_for_overdue(centre: Arc<Centre>) -> Result<(), Problem> {
    let now = centre.world.clock.now();
    let overdue_after = centre.config.overdue_after.as_ms();
    let until = now.plus_ms(-overdue_after);
    let window = Window { from: until.plus_ms(-LOOK_BACK_MS), until };
    let mut after = None;
    loop {
        let rows = centre.store.open_transfers(window, Page { after: after.clone(), limit: PAGE }).await?;
        for row in &rows {
            let (verdict, _) = row.verdict_now(&*centre.store, now, overdue_after).await?;
            let cause = match verdict {
                Some(Verdict::Overdue) => "it was handed over and nobody has answered",
                Some(Verdict::OneSided) => "one party has spoken, the other has not",
                _ => continue,
            };
            alarm::raise_once(&*centre.store, Kind::Overdue, row.transfer.as_str(), cause, now).await;
        }
        match rows.last() {
            Some(last) if rows.len() as u64 == PAGE => after = Some((last.at, last.transfer.clone())),
            _ => return Ok(()),
        }
    }
}

async fn renew(centre: Arc<Centre>) -> Result<(), Problem> {
    centre.endpoint.set_identity(Arc::new(centre.keys.identity(&centre.world, &centre.config)?));
    Ok(())
}

const FLUSH: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_secs(60);
const PAGE: u64 = 200;
/// What is older has been an alarm for long enough.
const LOOK_BACK_MS: i64 = 90 * 86_400_000;
