//! Extracts a table into the spool, once per transfer, beside the sessions that send it.
//! The snapshot lives as long as this process and no longer than `snapshot_max`; connections may come and go
//! meanwhile. A restart before the last split is sealed loses it, and the transfer ends with PH2004.

use super::blocking;
use crate::context::Context;
use crate::extract::{Extraction, Proposed};
use crate::seal::{Sealed, SealedSplit, Spool, Written};
use crate::store::{Side, exchange, quarantine};
use posthouse_connectors::{Read, TableSpec};
use posthouse_protocol::digest::BucketDigest;
use posthouse_protocol::format::Native;
use posthouse_protocol::id::TransferId;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::schema::Contract;
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
    pub(crate) async fn take(
        ctx: &Arc<Context>,
        connection: &str,
        table: &TableSpec,
        read: Read,
    ) -> Result<Self, Problem> {
        let (context, connection, table) = (ctx.clone(), connection.to_owned(), table.clone());
        let extraction = blocking(&ctx.world, move || {
            let now = context.world.clock.now();
            Extraction::begin(context.connect(&connection)?, &table, &read, now)
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
        let (task, ctx, transfer) = (spooling.clone(), ctx.clone(), transfer.clone());
        tokio::spawn(async move {
            let end = task.seal_all(&ctx, &transfer, begun.extraction, digest_key).await;
            if let Err(problem) = &end {
                tracing::warn!(%transfer, %problem, "A snapshot was given up");
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
        let began = ctx.world.clock.monotonic();
        let mut bytes = 0;
        let mut all = BucketDigest::new();
        let mut written = None;
        for position in 0.. {
            if let Err(problem) = self.may_go_on(ctx, &extraction, began, bytes) {
                // A later transfer takes over what is sealed.
                self.seal(ctx, transfer, written).await?;
                return Err(problem);
            }
            let spool = self.spool.clone();
            let next = blocking(&ctx.world, move || {
                let next = spool.write_next(&mut extraction, position, digest_key);
                Ok((extraction, next))
            });
            // While a split is read, the one before it is synced and recorded.
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
            bytes += next.size();
            written = Some(next);
        }
        let id = transfer.clone();
        ctx.store.write(move |tx| exchange::set_spool_sealed(tx, &id, &all.to_bytes())).await
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
        ctx.store
            .write(move |tx| {
                exchange::put_spooled(tx, &id, &row)?;
                quarantine::put(tx, &id, Side::Provider, &row.name, &bad, at)
            })
            .await?;
        self.splits.lock().unwrap_or_else(PoisonError::into_inner).push(split);
        self.state.send_modify(|state| state.sealed += 1);
        Ok(Some(buckets))
    }
}

/// How long a snapshot may be held open in its database, unless its connection says otherwise.
const SNAPSHOT_MAX: Duration = Duration::from_secs(30 * 60);
