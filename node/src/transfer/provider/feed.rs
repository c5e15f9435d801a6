//! Where a provider's entries come from: a folder that is being listed, a spool that is being filled, or the
//! list that was signed before. Gives them in steps, as many as the machine has room for.

use crate::context::Context;
use crate::store::exchange;
use crate::transfer::attachments;
use crate::transfer::blocking;
use crate::transfer::spooling::Spooling;
use posthouse_connectors::folder::{FileStat, FolderSource, Found};
use posthouse_platform::World;
use posthouse_protocol::id::{ResourceId, TransferId};
use posthouse_protocol::manifest::{Entry, EntryKind, LeftOut};
use posthouse_protocol::problem::{Code, Problem};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Semaphore, mpsc, watch};

#[expect(clippy::large_enum_variant, reason = "nearly all that is fed are entries")]
pub(super) enum Fed {
    /// With how the file looked when it was listed.
    Entry(Entry, Option<FileStat>),
    LeftOut(LeftOut),
    End,
}

pub(super) struct Feed {
    from: From,
    ended: bool,
}

enum From {
    /// A listing, or a stored list, read elsewhere.
    List(mpsc::Receiver<Result<Vec<Fed>, Problem>>),
    Spool {
        spooling: Arc<Spooling>,
        state: watch::Receiver<super::super::spooling::SpoolState>,
        next: usize,
    },
}

impl Feed {
    pub(super) fn spool(spooling: Arc<Spooling>) -> Self {
        let state = spooling.watch();
        Self { from: From::Spool { spooling, state, next: 0 }, ended: false }
    }

    /// Lists a folder; roots that are known from earlier and still hold are given with the entries.
    pub(super) fn folder(ctx: &Arc<Context>, resource: &ResourceId, folder: Arc<FolderSource>) -> Self {
        let mut found = listing(&ctx.world, folder);
        let (fed_in, fed) = mpsc::channel(2);
        let (ctx, resource) = (ctx.clone(), resource.clone());
        tokio::spawn(async move {
            let asked = resource.clone();
            // Where none is known before, none is looked for: those of this run are of files that are listed by then.
            let has_roots = ctx.store.read(move |db| exchange::has_hashed(db, &asked)).await;
            while let Some(batch) = found.recv().await {
                let fed = match (batch, &has_roots) {
                    (Ok(batch), Ok(true)) => with_roots(&ctx, &resource, batch).await,
                    (Ok(batch), Ok(false)) => batch.into_iter().map(|one| with_root(one, &|_, _| Ok(None))).collect(),
                    (Err(problem), _) => Err(problem),
                    (_, Err(problem)) => Err(problem.clone()),
                };
                let failed = fed.is_err();
                if fed_in.send(fed).await.is_err() || failed {
                    return;
                }
            }
            let _ = fed_in.send(Ok(vec![Fed::End])).await;
        });
        Self { from: From::List(fed), ended: false }
    }

    /// What was signed for this transfer before, among the attachments beneath `root`. A list that is not there is a
    /// problem at once; one that is damaged further on when it is read that far.
    pub(super) async fn signed(world: &World, root: PathBuf, transfer: TransferId) -> Result<Self, Problem> {
        let opening = blocking(world, move || {
            Ok((attachments::entries(&root, &transfer)?, attachments::left_out(&root, &transfer)?))
        });
        let (entries, left_out) = opening.await?;
        let fed = in_batches::<Fed>(world, move |pass_on| {
            for (index, entry) in entries.enumerate() {
                pass_on(Fed::Entry(Entry { index: index as u64, ..entry? }, None))?;
            }
            left_out.into_iter().map(Fed::LeftOut).try_for_each(&mut *pass_on)?;
            pass_on(Fed::End)
        });
        Ok(Self { from: From::List(fed), ended: false })
    }

    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// The next few. Nothing is lost when the wait for it is given up.
    pub(super) async fn next(&mut self) -> Result<Vec<Fed>, Problem> {
        let fed = match &mut self.from {
            From::List(fed) => fed.recv().await.unwrap_or_else(|| Ok(vec![Fed::End]))?,
            From::Spool { spooling, state, next } => loop {
                let now = state.borrow_and_update().clone();
                let splits = spooling.splits(*next);
                if !splits.is_empty() {
                    *next += splits.len();
                    break splits.iter().map(|split| Fed::Entry(split.entry(), None)).collect();
                }
                match now.end {
                    // Whatever was sealed before the end was seen is given first.
                    Some(end) if now.sealed <= *next => {
                        end?;
                        break vec![Fed::End];
                    }
                    _ => {}
                }
                if state.changed().await.is_err() {
                    break Vec::new();
                }
            },
        };
        self.ended |= fed.iter().any(|one| matches!(one, Fed::End));
        Ok(fed)
    }
}

/// What is found in a folder.
fn listing(world: &World, folder: Arc<FolderSource>) -> mpsc::Receiver<Result<Vec<Found>, Problem>> {
    let clock = world.clock.clone();
    in_batches::<Found>(world, move |pass_on| folder.list(&|| clock.now(), pass_on))
}

/// Runs what finds one thing after the other, and gives what it finds in batches. It does not get further ahead of whoever
/// takes them than a few: a listing of millions is never in memory. When nobody takes them any more it ends.
fn in_batches<T: Send + 'static>(
    world: &World,
    find: impl FnOnce(&mut dyn FnMut(T) -> Result<(), Problem>) -> Result<(), Problem> + Send + 'static,
) -> mpsc::Receiver<Result<Vec<T>, Problem>> {
    let place = WAITING.try_acquire().ok().filter(|_| world.blocking.may_wait());
    // Where work cannot wait, as in a simulation, or where as many wait as may, there is room for all of it.
    let ahead = if place.is_some() { BATCHES_AHEAD } else { Semaphore::MAX_PERMITS };
    let (found_in, found) = mpsc::channel(ahead);
    let (batches, world) = (found_in.clone(), world.clone());
    tokio::spawn(async move {
        let finding = blocking(&world, move || {
            let _place = place;
            let mut batch = Vec::with_capacity(BATCH);
            find(&mut |one| {
                batch.push(one);
                if batch.len() < BATCH { Ok(()) } else { give(&batches, std::mem::take(&mut batch)) }
            })?;
            if batch.is_empty() { Ok(()) } else { give(&batches, batch) }
        });
        if let Err(problem) = finding.await {
            // Nobody hears of it when the session has ended.
            let _ = found_in.send(Err(problem)).await;
        }
    });
    found
}

/// Waits until there is room. Fails when the session has ended.
fn give<T>(to: &mpsc::Sender<Result<Vec<T>, Problem>>, batch: Vec<T>) -> Result<(), Problem> {
    let is_taken = match to.try_send(Ok(batch)) {
        Ok(()) => true,
        Err(TrySendError::Full(batch)) => to.blocking_send(batch).is_ok(),
        Err(TrySendError::Closed(_)) => false,
    };
    if is_taken { Ok(()) } else { Err(Problem::new(Code::InsideFailed).cause("nobody takes what is found any more")) }
}

async fn with_roots(ctx: &Arc<Context>, resource: &ResourceId, batch: Vec<Found>) -> Result<Vec<Fed>, Problem> {
    let resource = resource.clone();
    ctx.store
        .read(move |db| {
            let hashed = |name: &[u8], stat: &FileStat| exchange::hashed(db, &resource, name, stat);
            batch.into_iter().map(|one| with_root(one, &hashed)).collect()
        })
        .await
}

/// What was hashed of a file with content.
type Hashed<'a> = &'a dyn Fn(&[u8], &FileStat) -> Result<Option<[u8; 32]>, Problem>;

fn with_root(one: Found, hashed: Hashed<'_>) -> Result<Fed, Problem> {
    match one {
        Found::LeftOut(what) => Ok(Fed::LeftOut(what)),
        Found::Entry { mut entry, stat } => {
            entry.root = match &entry.kind {
                EntryKind::File if entry.size == 0 => Some(*blake3::hash(b"").as_bytes()),
                EntryKind::File => hashed(&entry.name, &stat)?,
                EntryKind::Link(text) => Some(*blake3::hash(text).as_bytes()),
                EntryKind::Directory | EntryKind::Split(_) => None,
            }
            .map(Into::into);
            Ok(Fed::Entry(entry, Some(stat)))
        }
    }
}

const BATCH: usize = 256;
/// Of a listing, beside the one that it fills.
const BATCHES_AHEAD: usize = 2;
/// Each that waits keeps a thread, and sessions need threads to go on.
static WAITING: Semaphore = Semaphore::const_new(64);

#[cfg(test)]
mod tests;
