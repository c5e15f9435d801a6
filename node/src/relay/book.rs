//! What passes through this node for each transfer, and the statement of it. A stretch lasts from a transfer's first
//! line to its last; when none has stood for a moment, it is stated. What a node that is killed has passed on since its
//! stretch began stays unsaid.

use crate::context::Context;
use crate::settle;
use posthouse_protocol::frame::Relay;
use posthouse_protocol::id::{GrantId, NodeId};
use posthouse_protocol::policy::Passing;
use posthouse_protocol::statement::Passage;
use posthouse_protocol::time::Timestamp;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The lines through this node now.
#[derive(Default)]
pub struct Book {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// By what they are for, and the grant.
    stretches: BTreeMap<(Relay, GrantId), Stretch>,
    /// Lines that each node has brought.
    brought: BTreeMap<NodeId, usize>,
}

struct Stretch {
    lines: usize,
    to_consumer: u64,
    to_provider: u64,
    began: Timestamp,
    /// When the last line so far ended, on the steady clock too.
    ended: Timestamp,
    since: Duration,
}

/// One line that is passed on.
pub(super) struct Entered {
    from: NodeId,
    key: (Relay, GrantId),
}

impl Book {
    /// None: `from` has as many lines here as one node may have.
    pub(super) fn enter(&self, ctx: &Context, from: &NodeId, asked: &Relay, passing: &Passing) -> Option<Entered> {
        let (now, since) = (ctx.world.clock.now(), ctx.world.clock.monotonic());
        let mut inner = self.locked();
        let brought = inner.brought.entry(from.clone()).or_default();
        if *brought >= LINES_PER_NODE_MAX {
            return None;
        }
        *brought += 1;
        let key = (asked.clone(), passing.grant().clone());
        let new = || Stretch { lines: 0, to_consumer: 0, to_provider: 0, began: now, ended: now, since };
        inner.stretches.entry(key.clone()).or_insert_with(new).lines += 1;
        Some(Entered { from: from.clone(), key })
    }

    /// Takes a stretch out in which no line has stood for a while, or none stands any more.
    fn take_ended(&self, key: &(Relay, GrantId), at_most: Duration) -> Option<Stretch> {
        let mut inner = self.locked();
        let stretch = inner.stretches.get(key)?;
        if stretch.lines > 0 || stretch.since > at_most { None } else { inner.stretches.remove(key) }
    }

    fn locked(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entered {
    /// The line has ended, after so many bytes.
    pub(super) fn leave(self, ctx: &Arc<Context>, to_consumer: u64, to_provider: u64) {
        let Self { from, key } = self;
        let since = ctx.world.clock.monotonic();
        let is_last = {
            let mut inner = ctx.relays.locked();
            if let Some(brought) = inner.brought.get_mut(&from) {
                *brought -= 1;
                if *brought == 0 {
                    inner.brought.remove(&from);
                }
            }
            let Some(stretch) = inner.stretches.get_mut(&key) else { return };
            stretch.lines -= 1;
            stretch.to_consumer += to_consumer;
            stretch.to_provider += to_provider;
            stretch.ended = ctx.world.clock.now();
            stretch.since = since;
            stretch.lines == 0
        };
        if is_last {
            let (tasks, ctx) = (ctx.runs.tasks.clone(), ctx.clone());
            tasks.spawn(async move {
                tokio::select! {
                    biased;
                    () = ctx.drain.cancelled() => {}
                    () = tokio::time::sleep(PAUSE) => {}
                }
                // Another line may have come and gone since: its end will be stated.
                if let Some(stretch) = ctx.relays.take_ended(&key, since) {
                    state(&ctx, key, stretch).await;
                }
            });
        }
    }
}

/// Of a line for no transfer nothing is stated, nor of one that never stood.
async fn state(ctx: &Arc<Context>, (asked, grant): (Relay, GrantId), stretch: Stretch) {
    let Stretch { to_consumer, to_provider, began, ended, .. } = stretch;
    let Relay { consumer, resource, job, transfer: Some(transfer) } = asked else { return };
    if to_consumer + to_provider == 0 {
        return;
    }
    let relay = ctx.name.clone();
    let passage = Passage { transfer, job, resource, consumer, relay, grant, to_consumer, to_provider, began, ended };
    if let Err(problem) = settle::state_passage(ctx, passage).await {
        tracing::warn!(%problem, "What was passed on could not be stated");
    }
}

/// A transfer that comes back within it goes on in the same stretch.
const PAUSE: Duration = Duration::from_secs(2);
/// Half of what one connection carries, so that one node never keeps all others out.
const LINES_PER_NODE_MAX: usize = 32;
