//! Where a provider's entries come from: a folder that is being listed, a spool that is being filled, or the
//! list that was signed before. Gives them in steps, as many as the machine has room for.

use crate::context::Context;
use crate::store::exchange;
use crate::transfer::attachments;
use crate::transfer::blocking;
use crate::transfer::spooling::Spooling;
use posthouse_connectors::folder::{FileStat, FolderSource, Found};
use posthouse_protocol::id::{ResourceId, TransferId};
use posthouse_protocol::manifest::{Entry, EntryKind, LeftOut};
use posthouse_protocol::problem::Problem;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

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
        let (found_in, mut found) = mpsc::unbounded_channel::<Result<Vec<Found>, Problem>>();
        let (fed_in, fed) = mpsc::channel(2);
        let (lister, now) = (found_in.clone(), ctx.world.clock.now());
        let listing = ctx.world.clone();
        tokio::spawn(async move {
            let listed = blocking(&listing, move || {
                let mut batch = Vec::with_capacity(BATCH);
                folder.list(now, &mut |one| {
                    batch.push(one);
                    if batch.len() >= BATCH {
                        // Nobody listens any more when the session has ended.
                        let _ = lister.send(Ok(std::mem::take(&mut batch)));
                    }
                    Ok(())
                })?;
                let _ = lister.send(Ok(batch));
                Ok(())
            })
            .await;
            if let Err(problem) = listed {
                let _ = found_in.send(Err(problem));
            }
        });
        let (ctx, resource) = (ctx.clone(), resource.clone());
        tokio::spawn(async move {
            while let Some(batch) = found.recv().await {
                let fed = match batch {
                    Ok(batch) => with_roots(&ctx, &resource, batch).await,
                    Err(problem) => Err(problem),
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

    /// What was signed for this transfer before.
    pub(super) async fn signed(ctx: &Arc<Context>, transfer: &TransferId) -> Result<Self, Problem> {
        let (root, id) = (ctx.attachments(), transfer.clone());
        let all = blocking(&ctx.world, move || {
            let left_out = attachments::left_out(&root, &id)?.into_iter().map(Fed::LeftOut);
            let mut all: Vec<Fed> = Vec::new();
            for (index, entry) in attachments::entries(&root, &id)?.enumerate() {
                all.push(Fed::Entry(Entry { index: index as u64, ..entry? }, None));
            }
            all.extend(left_out);
            all.push(Fed::End);
            Ok(all)
        })
        .await?;
        let (fed_in, fed) = mpsc::channel(2);
        tokio::spawn(async move {
            let mut all = VecDeque::from(all);
            while !all.is_empty() {
                let batch = all.drain(..BATCH.min(all.len())).collect();
                if fed_in.send(Ok(batch)).await.is_err() {
                    return;
                }
            }
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

async fn with_roots(ctx: &Arc<Context>, resource: &ResourceId, batch: Vec<Found>) -> Result<Vec<Fed>, Problem> {
    let resource = resource.clone();
    ctx.store
        .read(move |db| {
            let known = |one: Found| match one {
                Found::LeftOut(what) => Ok(Fed::LeftOut(what)),
                Found::Entry { mut entry, stat } => {
                    entry.root = match &entry.kind {
                        EntryKind::File if entry.size == 0 => Some(*blake3::hash(b"").as_bytes()),
                        EntryKind::File => exchange::hashed(db, &resource, &entry.name, &stat)?,
                        EntryKind::Link(text) => Some(*blake3::hash(text).as_bytes()),
                        EntryKind::Directory | EntryKind::Split(_) => None,
                    }
                    .map(Into::into);
                    Ok(Fed::Entry(entry, Some(stat)))
                }
            };
            batch.into_iter().map(known).collect()
        })
        .await
}

const BATCH: usize = 256;
