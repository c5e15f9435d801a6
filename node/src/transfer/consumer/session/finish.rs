//! Everything handed over has come: it is compared with what the provider signed, recorded and committed.

use super::{Accepted, Done, Ended, Session};
use crate::config::Job;
use crate::context::Context;
use crate::settle;
use crate::stage::{HandedOver, Place, SplitTotals, Stage, Staged};
use crate::store::{Transfer, exchange, transfers};
use crate::transfer::attachments::Attachments;
use crate::transfer::blocking;
use crate::transfer::consumer::committing::commit;
use posthouse_protocol::digest::RowDigest;
use posthouse_protocol::id::TransferId;
use posthouse_protocol::job::State;
use posthouse_protocol::manifest::{Entry, LeftOuts};
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::statement::Statement;
use std::sync::Arc;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Commit {
    NotYet,
    UnderWay,
    /// It stands, or has failed.
    Over,
}

impl Session<'_> {
    /// Once everything handed over is durable and staged: compare, commit, state.
    pub(super) fn finish_if_whole(&mut self) -> Result<(), Problem> {
        if self.commit != Commit::NotYet || self.durable.is_busy() || self.writing.is_busy() {
            return Ok(());
        }
        let (Some(handover), Some(accepted)) = (&self.handed, &self.accepted) else { return Ok(()) };
        let Accepted { offer, stage, session, .. } = accepted;
        let (stage, session, salt) = (stage.clone(), *session, offer.salt.into());
        let statement = settle::open(&self.ctx, &self.run.row.peer, &handover.statement)?;
        let id = self.run.row.id.clone();
        let splits = match stage.place() {
            Place::Table(_) => Some(self.ctx.store.read_now(|db| split_totals(db, &id))?),
            Place::Folder(_) => None,
        };
        if let Some(splits) = &splits {
            let read = statement.manifest().map(|manifest| manifest.counts.rows_read);
            self.check_quarantine(splits.quarantined, read)?;
        }
        let digest = handover.digest.map(|(sum, count)| RowDigest { sum: sum.into(), count });
        let handed = HandedOver { statement: &statement, digest, salt };
        let staged = Staged::of(&mut self.machine(), &handed, splits)?;
        let left_out = self.machine().left_out().clone();
        self.base.state = State::Staged;
        let finishing = Finishing { ctx: self.ctx.clone(), row: self.row(), job: self.job.clone(), stage, session };
        self.show();
        self.commit = Commit::UnderWay;
        let jobs = self.jobs_in.clone();
        tokio::spawn(async move {
            let finished = finishing.record_and_commit(staged, left_out).await;
            let _ = jobs.send(Done::Finished(finished));
        });
        Ok(())
    }

    /// The commit has come out, one way or the other.
    pub(super) async fn committed(&mut self, finished: Result<Statement, Problem>) -> Result<Option<Ended>, Problem> {
        self.commit = Commit::Over;
        let kept = self.kept.take();
        match finished {
            Ok(statement) => {
                self.base.state = State::Committed;
                self.run.row.state = State::Committed;
                self.show();
                if let Some(ending) = kept {
                    // It stands: the provider's word is kept beside it, and this side's is given until it is taken.
                    return Ok(Some(Ended::Lost(settle::problem_of(&ending, &self.run.subject()))));
                }
                self.machine().landed(statement.bytes().to_vec())?;
                Ok(None)
            }
            Err(problem) => {
                if let Some(ending) = kept
                    && self.run.may_end(None).await?
                {
                    return self.ended_by_peer(&ending).await;
                }
                Err(problem)
            }
        }
    }
}

fn split_totals(db: &rusqlite::Connection, id: &TransferId) -> Result<SplitTotals, Problem> {
    let mut totals = SplitTotals::default();
    let mut from = 0;
    loop {
        let page = exchange::landing_entries(db, id, from, PAGE)?;
        let Some(last) = page.last() else { return Ok(totals) };
        from = last.entry.index + 1;
        for found in &page {
            let staged = found.staged.as_ref().ok_or_else(|| {
                let name = String::from_utf8_lossy(&found.entry.name).into_owned();
                Problem::new(Code::InsideFailed).cause(format!("split {name} is not staged"))
            })?;
            totals.add(staged);
        }
    }
}

/// A transfer whose every entry is durable and agrees with what the provider signed.
struct Finishing {
    ctx: Arc<Context>,
    row: Transfer,
    job: Job,
    stage: Arc<Stage>,
    session: i64,
}

impl Finishing {
    async fn record_and_commit(self, staged: Staged, left_out: LeftOuts) -> Result<Statement, Problem> {
        let (ctx, id) = (self.ctx.clone(), self.row.id.clone());
        self.drop_unlisted(staged.manifest().entries).await?;
        self.give_up_taken_over().await?;
        self.write_attachments(left_out).await?;
        let (row, recorded) = (self.row.clone(), staged.clone());
        ctx.store
            .write(move |tx| {
                if !transfers::update(tx, &row)? {
                    return Err(Problem::new(Code::InsideFailed).cause("the transfer has ended meanwhile"));
                }
                recorded.record(tx, &id)
            })
            .await?;
        crate::crash_point!("staged");
        commit(&ctx, &self.row, &self.job, &self.stage, staged).await
    }

    /// What an earlier session had of entries that the provider no longer lists. All that are `listed` are recorded, and
    /// where no session was before this one nothing else is. A number that is right proves it only then: what a provider
    /// lists twice and leaves out once would make room in it for what is listed no more.
    async fn drop_unlisted(&self, listed: u64) -> Result<(), Problem> {
        let (id, session) = (self.row.id.clone(), self.session);
        let unlisted = move |db: &rusqlite::Connection| match exchange::entries_recorded(db, &id)? {
            recorded if recorded == listed && session == exchange::FIRST_SESSION => Ok(Vec::new()),
            _ => exchange::unlisted(db, &id, session),
        };
        let names = self.ctx.store.read(unlisted).await?;
        if names.is_empty() {
            return Ok(());
        }
        let (stage, doomed) = (self.stage.clone(), names.clone());
        blocking(&self.ctx.world, move || match stage.place() {
            Place::Folder(folder) => folder.discard_parts(&mut doomed.iter().map(Vec::as_slice)),
            Place::Table(_) => Ok(()),
        })
        .await?;
        let id = self.row.id.clone();
        self.ctx
            .store
            .write(move |tx| names.iter().try_for_each(|name| exchange::forget_landing_entry(tx, &id, name)))
            .await
    }

    /// Splits that were taken over from a transfer that failed and are none of this one's are not published.
    async fn give_up_taken_over(&self) -> Result<(), Problem> {
        let (stage, store, id) = (self.stage.clone(), self.ctx.store.clone(), self.row.id.clone());
        blocking(&self.ctx.world, move || {
            let Place::Table(table) = stage.place() else { return Ok(()) };
            let others = table.not_inherited(|split, root| {
                let found = store.read_now(|db| exchange::landing_entry(db, &id, split.as_bytes()))?;
                Ok(found.is_some_and(|(found, _)| found.entry.root.is_some_and(|found| *found == *root)))
            })?;
            if others.is_empty() { Ok(()) } else { table.destination().give_up(&others) }
        })
        .await
    }

    async fn write_attachments(&self, left_out: LeftOuts) -> Result<(), Problem> {
        let (world, folder) = (&self.ctx.world, matches!(self.stage.place(), Place::Folder(_)));
        let (root, id, disk) = (self.ctx.attachments(), self.row.id.clone(), world.disk.clone());
        let mut attachments = blocking(world, move || Attachments::begin(&root, &id, 0, disk)).await?;
        let mut page = self.page(0).await?;
        while let Some(last) = page.last() {
            let from = last.index + 1;
            let add = blocking(world, move || attachments.add(&page).map(|()| attachments));
            // One page is written while the next is read.
            let (added, next) = tokio::join!(biased; add, self.page(from));
            (attachments, page) = (added?, next?);
        }
        blocking(world, move || attachments.finish(&left_out, folder)).await
    }

    async fn page(&self, from: u64) -> Result<Vec<Entry>, Problem> {
        let id = self.row.id.clone();
        let entries = move |db: &rusqlite::Connection| -> Result<Vec<Entry>, Problem> {
            let page = exchange::landing_entries(db, &id, from, PAGE)?;
            Ok(page.into_iter().map(|found| found.entry).collect())
        };
        self.ctx.store.read(entries).await
    }
}

const PAGE: u32 = 1024;
