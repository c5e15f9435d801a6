//! 摆渡: exchange without a line. What a node gives is written into parts, which somebody carries: a gatekeeper (网闸) from
//! outbox to inbox, or a person on a disk (线下报送). The parts may come in any order and more than once.
//!
//! It is another transport, not another exchange: at the provider [`record`] takes in the consumer's place what the
//! giving side sends; at the consumer [`play`] gives it in the provider's place to a run like any other. So grants are
//! enforced, contents verified, statements signed and receipts made by the same code as over a line. The consumer's
//! statement comes back as a part of its own ([`answer`]).
//! - [`export`](mod@export): a job run into parts. [`leftovers`]: what is taken back of those that were cut short.
//!   [`inbox`]: what was brought, taken up and cleared away.
//! - [`part`]: a file that is sealed to its receiver and signed by its maker. [`shelf`]: a folder of them.
//!
//! Deliberately absent: whatever needs an answer before it goes on. What is carried is pushed, and whole.

mod answer;
mod export;
mod inbox;
mod leftovers;
mod part;
mod play;
mod record;
mod shelf;

pub use export::{Exported, export};
pub use inbox::{Taken, import, imported, run};
pub use leftovers::sweep;
pub(crate) use part::ASIDE;
pub use part::{Holds, Label, Outlet, Trailer};

use crate::context::Context;
use crate::settle::{self, Subject};
use crate::store::{Transfer, meta};
use part::{Found, Maker};
use posthouse_platform::endpoint::{Connection, Transport};
use posthouse_platform::identity::ferry_key::FerryKey;
use posthouse_platform::local;
use posthouse_protocol::id::{JobId, NodeId, TransferId};
use posthouse_protocol::job::State;
use posthouse_protocol::problem::{Code, Problem};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a node has of ferries.
pub struct Ferry {
    key: Arc<FerryKey>,
    /// Parts that runs take from, by their transfer.
    bundles: Mutex<BTreeMap<TransferId, Arc<Bundle>>>,
}

/// All parts of a transfer that was carried here.
pub(crate) struct Bundle {
    from: NodeId,
    transfer: TransferId,
    job: JobId,
    parts: Vec<Found>,
    /// Where what this node states of it is put.
    returns: Outlet,
    /// Why it can never be landed, once that is known.
    broken: Mutex<Option<Problem>>,
}

impl Bundle {
    /// For what is said of a transfer whose parts are not needed any more.
    fn without_parts(row: &Transfer, returns: Outlet) -> Self {
        Self {
            from: row.peer.clone(),
            transfer: row.id.clone(),
            job: row.job.clone(),
            parts: Vec::new(),
            returns,
            broken: Mutex::default(),
        }
    }
}

impl Ferry {
    pub fn new(key: FerryKey) -> Self {
        Self { key: Arc::new(key), bundles: Mutex::default() }
    }

    pub fn key(&self) -> &FerryKey {
        &self.key
    }

    /// Its parts are not needed any more, or are no longer what they were.
    fn forget(&self, transfer: &TransferId) {
        locked(&self.bundles).remove(transfer);
    }

    /// Whether a run can take from its parts.
    pub(crate) fn has(&self, transfer: &TransferId) -> bool {
        locked(&self.bundles).contains_key(transfer)
    }

    /// Who makes parts of a transfer for a peer, in a new making.
    fn maker(
        &self,
        ctx: &Context,
        to: &NodeId,
        transfer: &TransferId,
        job: &JobId,
        outlet: Outlet,
    ) -> Result<Maker, Problem> {
        let to_key =
            ctx.authority.peer(to)?.ferry_key.ok_or_else(|| Problem::new(Code::NoFerryKey).with("peer", to))?;
        Ok(Maker {
            name: ctx.name.clone(),
            signer: ctx.signer.clone(),
            disk: ctx.world.disk.clone(),
            now: ctx.world.clock.now(),
            to: to.clone(),
            to_key: *to_key,
            transfer: transfer.clone(),
            job: job.clone(),
            edition: ctx.world.random.bytes(),
            outlet,
        })
    }
}

/// States that a transfer ended without a receipt.
async fn end(ctx: &Arc<Context>, row: &Transfer, problem: &Problem) -> Result<(), Problem> {
    let subject = Subject {
        transfer: row.id.clone(),
        job: row.job.clone(),
        resource: row.resource.clone(),
        consumer: row.consumer(&ctx.name).clone(),
    };
    settle::state_ending(ctx, row, &subject, problem).await.map(|_| ())
}

/// The line of a consumer's run that takes from parts; None where the transfer came over no ferry.
pub(crate) fn line(ctx: &Arc<Context>, row: &Transfer) -> Option<Result<Arc<dyn Connection>, Problem>> {
    let known = locked(&ctx.ferry.bundles).get(&row.id).cloned();
    let bundle = match known {
        Some(bundle) => bundle,
        None if row.transport != Some(Transport::Ferry) => return None,
        None => match ctx.config().ferries.get(&row.peer) {
            // What is landed needs no parts, only a place for what is said of it.
            Some(ferry) if row.state == State::Committed => Arc::new(Bundle::without_parts(row, ferry.outlet())),
            _ => return Some(Err(Problem::new(Code::PartsMissing).with("transfer", &row.id))),
        },
    };
    let (taking, giving) = local::pair(&ctx.name, &row.peer, Transport::Ferry);
    tokio::spawn(play::play(ctx.clone(), bundle, giving));
    Some(Ok(taking))
}

/// The highest epoch that is known of a peer.
async fn known_epoch(ctx: &Context, peer: &NodeId) -> Result<u64, Problem> {
    let peer = peer.clone();
    ctx.store.read(move |db| meta::peer_epoch(db, &peer)).await
}

fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
