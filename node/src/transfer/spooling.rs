//! Extracts a table into the spool, once per transfer, beside the sessions that send it: as fast as the line takes
//! it for a while, then as fast as the database gives it.
//! The snapshot lives as long as this process and no longer than `snapshot_max`; connections may come and go
//! meanwhile. A restart before the last split is sealed loses it, and the transfer ends with PH2004.

use super::blocking;
use crate::config::{Origin, Resource};
use crate::context::Context;
use crate::extract::{Extraction, Proposed};
use crate::front;
use crate::govern::Orders;
use crate::seal::{Lease, Sealed, SealedSplit, Spool, Written};
use crate::store::{Side, exchange, quarantine, spent};
use posthouse_connectors::Read;
use posthouse_protocol::digest::BucketDigest;
use posthouse_protocol::format::Native;
use posthouse_protocol::govern::{ColumnMask, Governed};
use posthouse_protocol::id::TransferId;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::schema::Contract;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What is sealed so far, and whether more follows.
pub(crate) struct Spooling {
    spool: Spool,
    splits: Mutex<Vec<SealedSplit>>,
    state: watch::Sender<SpoolState>,
    stop: CancellationToken,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SpoolState {
    pub sealed: usize,
    /// Every split of the plan is sealed, or none will follow because of a problem.
    pub end: Option<Result<(), Problem>>,
}

/// A snapshot that was taken and is not read yet.
pub(crate) struct Begun {
    extraction: Extraction,
}

impl Begun {
    /// Takes the snapshot.
    /// `front`: where what is read of a front-end table is noted.
    pub(crate) async fn take(
        ctx: &Arc<Context>,
        resource: &Resource,
        read: Read,
        granted: &[ColumnMask],
        wishes: Option<&[Governed]>,
        front: Option<PathBuf>,
    ) -> Result<Self, Problem> {
        let (context, resource) = (ctx.clone(), resource.clone());
        let (granted, wishes) = (granted.to_vec(), wishes.map(<[Governed]>::to_vec));
        let extraction = blocking(&ctx.world, move || {
            let Origin::Table { connection, spec } = &resource.origin else {
                return Err(Problem::new(Code::InsideFailed).cause("a snapshot of a folder was asked for"));
            };
            let now = context.world.clock.now();
            let orders = Orders::of(&resource.govern, &granted)?.wishing(wishes.as_deref(), &spec.resource)?;
            let connection = context.connect(connection)?;
            match (&resource.exchange, &front) {
                (Some(exchange), Some(path)) => {
                    let front = (exchange, path.as_path(), context.config().node.spool_max.0);
                    Extraction::begin_front(connection, front, spec, &read, &orders, now)
                }
                _ => Extraction::begin(connection, spec, &read, &orders, now),
            }
        })
        .await?;
        Ok(Self { extraction })
    }
    pub(crate) fn contract(&self) -> &Contract {
        self.extraction.contract()
    }
    pub(crate) fn native(&self) -> Option<&Native> {
        self.extraction.native()
    }
    pub(crate) fn governed(&self) -> Option<Vec<Governed>> {
        self.extraction.governed()
    }
    pub(crate) fn database_line(&self) -> Option<&'static str> {
        self.extraction.database_line()
    }
    pub(crate) fn proposed(&self) -> Proposed {
        self.extraction.proposed()
    }
    pub(crate) fn position(&self) -> Option<&str> {
        self.extraction.position()
    }
}

impl Spooling {
    /// Starts sealing what was begun. The transfer's row and offer are stored already.
    pub(crate) fn start(
        ctx: &Arc<Context>,
        transfer: &TransferId,
        begun: Begun,
        digest_key: [u8; 32],
    ) -> Result<Arc<Self>, Problem> {
        let spool = Spool::open(&ctx.spool(), transfer, ctx.world.disk.clone())?;
        let spooling = Arc::new(Self::new(spool, Vec::new(), SpoolState::default()));
        ctx.transfers.locked().spooling.insert(transfer.clone(), spooling.clone());
        let extraction = begun.extraction.metered(ctx.meters(transfer));
        let (task, ctx, transfer) = (spooling.clone(), ctx.clone(), transfer.clone());
        tokio::spawn(async move {
            let end = task.seal_all(&ctx, &transfer, extraction, digest_key).await;
            if let Err(problem) = &end {
                tracing::warn!(%transfer, %problem, "A snapshot was given up");
                // What it holds in memory is not for others to wait for.
                let spool = task.spool.clone();
                if let Err(problem) = blocking(&ctx.world, move || spool.write_down()).await {
                    tracing::warn!(%transfer, %problem, "Its splits stay in memory");
                }
            }
            task.state.send_modify(|state| state.end = Some(end));
        });
        Ok(spooling)
    }

    /// What runs for a transfer here, or stands sealed in its spool.
    pub(crate) async fn find(ctx: &Arc<Context>, transfer: &TransferId) -> Result<Option<Arc<Self>>, Problem> {
        if let Some(running) = ctx.transfers.locked().spooling.get(transfer) {
            return Ok(Some(running.clone()));
        }
        let id = transfer.clone();
        let stored = ctx
            .store
            .read(move |db| Ok((exchange::offered(db, &id)?.is_some_and(|o| o.sealed), exchange::spooled(db, &id)?)))
            .await?;
        let (true, splits) = stored else { return Ok(None) };
        let spool = Spool::open(&ctx.spool(), transfer, ctx.world.disk.clone())?;
        let state = SpoolState { sealed: splits.len(), end: Some(Ok(())) };
        let spooling = Arc::new(Self::new(spool, splits, state));
        ctx.transfers.locked().spooling.insert(transfer.clone(), spooling.clone());
        Ok(Some(spooling))
    }

    /// Takes everything of a transfer that ended out of the spool.
    pub(crate) async fn remove(ctx: &Arc<Context>, transfer: &TransferId) -> Result<(), Problem> {
        if let Some(running) = ctx.transfers.locked().spooling.remove(transfer) {
            running.stop.cancel();
        }
        let spool = Spool::open(&ctx.spool(), transfer, ctx.world.disk.clone())?;
        blocking(&ctx.world, move || spool.remove()).await?;
        let id = transfer.clone();
        ctx.store.write(move |tx| exchange::forget_spool(tx, &id)).await
    }

    fn new(spool: Spool, splits: Vec<SealedSplit>, state: SpoolState) -> Self {
        Self { spool, splits: Mutex::new(splits), state: watch::Sender::new(state), stop: CancellationToken::new() }
    }

    pub(crate) fn spool(&self) -> &Spool {
        &self.spool
    }
    pub(crate) fn watch(&self) -> watch::Receiver<SpoolState> {
        self.state.subscribe()
    }
    /// Sealed splits from `from` on.
    pub(crate) fn splits(&self, from: usize) -> Vec<SealedSplit> {
        let splits = self.splits.lock().unwrap_or_else(PoisonError::into_inner);
        splits.get(from..).map(<[_]>::to_vec).unwrap_or_default()
    }

    async fn seal_all(
        &self,
        ctx: &Arc<Context>,
        transfer: &TransferId,
        mut extraction: Extraction,
        digest_key: [u8; 32],
    ) -> Result<(), Problem> {
        let mut pace = Pace::new(ctx.world.clock.monotonic());
        // What was noted of a front-end table is on the same disk, for as long.
        let noted = front::path(ctx, transfer);
        let mut bytes = blocking(&ctx.world, move || front::bytes_of(&noted)).await?;
        let mut all = BucketDigest::new();
        let mut written = None;
        for position in 0.. {
            let mut lease = ctx.held.try_lease();
            if lease.is_none() && extraction.peek().is_some() {
                // What was written last may be what the line waits for.
                if let Some(buckets) = self.seal(ctx, transfer, written.take()).await? {
                    all.merge(&buckets);
                }
                let most = extraction.snapshot_max().unwrap_or(SNAPSHOT_MAX);
                lease = self.lease(ctx, most, &mut pace).await;
            }
            if let Err(problem) = self.may_go_on(ctx, &extraction, pace.began, bytes) {
                // A later transfer takes over what is sealed.
                self.seal(ctx, transfer, written).await?;
                return Err(problem);
            }
            let spool = self.spool.clone();
            let next = blocking(&ctx.world, move || {
                let next = spool.write_next(&mut extraction, position, digest_key, lease);
                Ok((extraction, next))
            });
            // While a split is read, the one before it is sealed and recorded.
            let (next, sealed) = tokio::join!(next, self.seal(ctx, transfer, written.take()));
            if let Some(buckets) = sealed? {
                all.merge(&buckets);
            }
            let (back, next) = next?;
            extraction = back;
            let next = match next.transpose() {
                Ok(None) => break,
                Ok(Some(next)) => next,
                // A snapshot ends with the connection that took it.
                Err(problem) if problem.code == Code::ConnectionFailed => {
                    return Err(Problem::new(Code::SnapshotLost).cause(problem.cause));
                }
                Err(problem) => return Err(problem),
            };
            bytes += next.disk_bytes();
            written = Some(next);
        }
        drop(extraction);
        let spool = self.spool.clone();
        blocking(&ctx.world, move || spool.write_down()).await?;
        let id = transfer.clone();
        ctx.store
            .write(move |tx| {
                quarantine::keep_once(tx, &id)?;
                exchange::set_spool_sealed(tx, &id, &all.to_bytes())
            })
            .await
    }

    /// Memory for the next split. While the snapshot is young it is waited for: what the line takes at once need not
    /// be written down. A line that stays behind is waited for no longer than reading has taken, and a minute.
    async fn lease(&self, ctx: &Context, snapshot_max: Duration, pace: &mut Pace) -> Option<Lease> {
        let before = ctx.world.clock.monotonic();
        let left = pace.wait_left(before, snapshot_max);
        let lease = tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            () = ctx.drain.cancelled() => None,
            lease = ctx.held.lease(), if !left.is_zero() => lease,
            () = tokio::time::sleep(left) => None,
        };
        pace.waited += ctx.world.clock.monotonic().saturating_sub(before);
        lease
    }

    /// The consumer has these splits for good.
    pub(crate) fn release(&self, ctx: &Arc<Context>, splits: Vec<u64>) {
        let (spool, world) = (self.spool.clone(), ctx.world.clone());
        tokio::spawn(async move {
            if let Err(problem) = blocking(&world, move || spool.release(&splits)).await {
                // It goes with the transfer's folder.
                tracing::debug!(%problem, "A split that is landed stays in the spool");
            }
        });
    }

    /// Why nothing more may be read, if so.
    fn may_go_on(&self, ctx: &Context, extraction: &Extraction, began: Duration, bytes: u64) -> Result<(), Problem> {
        if self.stop.is_cancelled() || ctx.drain.is_cancelled() {
            return Err(Problem::new(Code::Cancelled));
        }
        let lost = |cause: String| Err(Problem::new(Code::SnapshotLost).cause(cause));
        let most = extraction.snapshot_max().unwrap_or(SNAPSHOT_MAX);
        let taken = ctx.world.clock.monotonic().saturating_sub(began);
        if taken > most && extraction.peek().is_some() {
            let (taken, most) = (taken.as_secs() / 60, most.as_secs() / 60);
            return lost(format!("it was held for {taken} min, at most {most} are allowed"));
        }
        let spool_max = ctx.config().node.spool_max.0;
        if bytes > spool_max {
            return lost(format!("its splits take {bytes} bytes, `spool_max` is {spool_max}"));
        }
        Ok(())
    }

    /// Seals what was written, and lets it be known; gives its rows by bucket.
    async fn seal(
        &self,
        ctx: &Arc<Context>,
        transfer: &TransferId,
        written: Option<Written>,
    ) -> Result<Option<BucketDigest>, Problem> {
        let Some(written) = written else { return Ok(None) };
        let Sealed { split, bad, buckets } = blocking(&ctx.world, move || written.seal()).await?;
        let (id, row, at) = (transfer.clone(), split.clone(), ctx.world.clock.now());
        let (epoch, spent) = (ctx.epoch, ctx.meters(transfer).spent());
        ctx.store
            .write(move |tx| {
                exchange::put_spooled(tx, &id, &row)?;
                spent::put(tx, &id, epoch, &spent)?;
                quarantine::put_held_back(tx, &id, Side::Provider, &row.name, bad, at)
            })
            .await?;
        self.splits.lock().unwrap_or_else(PoisonError::into_inner).push(split);
        self.state.send_modify(|state| state.sealed += 1);
        Ok(Some(buckets))
    }
}

/// How a snapshot's time is spent.
struct Pace {
    began: Duration,
    /// For the line, instead of reading.
    waited: Duration,
}

impl Pace {
    fn new(now: Duration) -> Self {
        Self { began: now, waited: Duration::ZERO }
    }
    /// How long the line may be waited for yet, with a snapshot that may be held for `most`.
    fn wait_left(&self, now: Duration, most: Duration) -> Duration {
        let held = now.saturating_sub(self.began);
        let reading = held.saturating_sub(self.waited);
        (WAIT + reading).saturating_sub(self.waited).min((most / 2).saturating_sub(held))
    }
}

/// How long the line may be waited for, beside as long as reading takes.
const WAIT: Duration = Duration::from_secs(60);
/// How long a snapshot may be held open in its database, unless its connection says otherwise.
const SNAPSHOT_MAX: Duration = Duration::from_secs(30 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_waited_for_as_long_as_reading_takes_and_a_minute_but_not_for_half_of_what_the_snapshot_may_last() {
        let seconds = Duration::from_secs;
        let most = seconds(1_800);
        let mut pace = Pace::new(seconds(10));
        assert_eq!(pace.wait_left(seconds(10), most), seconds(60));
        assert_eq!(pace.wait_left(seconds(40), most), seconds(90));
        pace.waited = seconds(30);
        assert_eq!(pace.wait_left(seconds(40), most), seconds(30), "all of the time was spent waiting");
        pace.waited = seconds(60);
        assert_eq!(pace.wait_left(seconds(70), most), Duration::ZERO);
        assert_eq!(pace.wait_left(seconds(80), most), seconds(10), "what was read since counts");
        assert_eq!(Pace::new(Duration::ZERO).wait_left(seconds(30), seconds(70)), seconds(5));
        assert_eq!(Pace::new(Duration::ZERO).wait_left(seconds(40), seconds(70)), Duration::ZERO);
    }
}
