//! The end of a taking: staged, committed, stated, settled, cleaned up; each step from what is durable.

use super::arrived;
use super::{Ended, FRAMES, GOODBYE_MS, Line, Run};
use crate::commit::Commit;
use crate::config::{Job, Target};
use crate::context::Context;
use crate::settle;
use crate::stage::{Place, Stage, Staged, TableStage};
use crate::store::exchange;
use crate::store::{Side, Store, Transfer, statements, transfers};
use crate::transfer::attachments::{self, Attachments};
use crate::transfer::wire::{read_frames, write_frames};
use crate::transfer::{blocking, steady, until};
use posthouse_connectors::folder::FolderDestination;
use posthouse_connectors::{Destination, Landing, parquet};
use posthouse_protocol::consumer::{Consumer, ConsumerEvent};
use posthouse_protocol::frame::{Frame, Offer, Refused, Request};
use posthouse_protocol::id::TransferId;
use posthouse_protocol::job::{Mode, State, Write};
use posthouse_protocol::manifest::{Entry, LeftOuts};
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::schema::Contract;
use posthouse_protocol::statement::Statement;
use posthouse_protocol::time::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Opens where a transfer lands: its folder, or its table with the node's own folder for splits.
pub(super) async fn open_stage(
    ctx: &Arc<Context>,
    row: &Transfer,
    job: &Job,
    offer: &Offer,
) -> Result<Arc<Stage>, Problem> {
    let (ctx, row, job, offer) = (ctx.clone(), row.clone(), job.clone(), offer.clone());
    let world = ctx.world.clone();
    blocking(&world, move || {
        let target = job.into.as_ref().ok_or_else(|| Problem::new(Code::InsideFailed))?;
        let place = match (target, &offer.contract) {
            (Target::Folder { path }, None) => {
                Place::Folder(FolderDestination::open(path, row.write, &row.id, ctx.world.disk.clone())?)
            }
            (Target::Table { .. } | Target::Parquet { .. }, Some(contract)) => {
                let mark = offer.watermark_column.clone();
                let mut destination = open_destination(&ctx, &row, target, contract, mark.clone())?;
                let ready = can_tell_overlap(&row, target, contract, mark.as_deref());
                if let Err(problem) = ready.and_then(|()| destination.prepare())
                    && (may_pass(&problem) || destination.published()?.is_none())
                {
                    // What was published stands, whatever became of the table since.
                    return Err(problem);
                }
                let key = offer.digest_key.into();
                let disk = ctx.world.disk.clone();
                Place::Table(TableStage::open(&ctx.staging(), &row.id, disk, contract.clone(), key, destination)?)
            }
            (_, contract) => {
                let (is, lands) = if contract.is_some() { ("a table", "files") } else { ("a folder", "a table") };
                return Err(Problem::new(Code::DestinationFailed)
                    .with("target", Context::target_text(target))
                    .cause(format!("the resource is {is}, and this job lands {lands}")));
            }
        };
        Ok(Arc::new(Stage::new(row.id.clone(), row.job.clone(), place)))
    })
    .await
}

/// An incremental run reads rows around the last mark again. Where nothing would tell which ones stand already,
/// they would be doubled.
fn can_tell_overlap(row: &Transfer, target: &Target, contract: &Contract, mark: Option<&str>) -> Result<(), Problem> {
    let by_key = !contract.key.is_empty() && !matches!(target, Target::Parquet { .. });
    let by_mark = mark.is_some_and(|mark| contract.position(mark).is_some());
    if row.mode != Mode::Incremental || row.write != Write::Append || by_key || by_mark {
        return Ok(());
    }
    let cause = "an incremental append tells rows that come again by a key or by the watermark column, and this job is given neither";
    Err(Problem::new(Code::KeyMissing)
        .with("table", Context::target_text(target))
        .with("write", row.write)
        .cause(cause))
}

/// The table that a job lands in, for one transfer; `mark` is the watermark column of an incremental one. Blocks.
pub(crate) fn open_destination(
    ctx: &Context,
    row: &Transfer,
    target: &Target,
    contract: &Contract,
    mark: Option<String>,
) -> Result<Box<dyn Destination>, Problem> {
    let mark = mark.filter(|mark| contract.position(mark).is_some());
    let landing = |table: String| Landing {
        transfer: row.id.clone(),
        job: row.job.clone(),
        table,
        write: row.write,
        contract: contract.clone(),
        watermark_column: mark.clone(),
        node_epoch: ctx.epoch,
        work_dir: ctx.staging().join(row.id.as_str()),
    };
    match target {
        Target::Table { connection, table } => ctx.connect(connection)?.destination(&landing(table.clone())),
        Target::Parquet { path } => parquet::destination(path, &landing(row.resource.resource.to_string())),
        Target::Folder { .. } => Err(Problem::new(Code::InsideFailed).cause("a folder is no table")),
    }
}

/// Puts a split into the destination's staging, and records it, once.
pub(super) fn stage_split(
    store: &Store,
    stage: &Stage,
    id: &TransferId,
    entry: &Entry,
    now: Timestamp,
) -> Result<(), Problem> {
    let Place::Table(table) = stage.place() else { return Err(Problem::new(Code::InsideFailed)) };
    let known = store.read_now(|db| exchange::landing_entry(db, id, &entry.name))?;
    if known.is_some_and(|(known, _)| known.staged.is_some()) {
        return Ok(());
    }
    let (staged, bad) = table.stage(entry)?;
    crate::crash_point!("split staged");
    store.write_now(|tx| {
        exchange::set_split_staged(tx, id, &entry.name, &staged)?;
        let split = String::from_utf8_lossy(&entry.name);
        exchange::put_bad_rows(tx, id, Side::Consumer, &split, &bad, now)
    })
}

/// A transfer whose every entry is durable and agrees with what the provider signed.
pub(super) struct Finishing {
    pub ctx: Arc<Context>,
    pub row: Transfer,
    pub job: Job,
    pub stage: Arc<Stage>,
    pub session: i64,
}

impl Finishing {
    pub(super) async fn record_and_commit(self, staged: Staged, left_out: LeftOuts) -> Result<Statement, Problem> {
        let (ctx, id) = (self.ctx.clone(), self.row.id.clone());
        self.drop_unlisted().await?;
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

    /// What an earlier session had of entries that the provider no longer lists.
    async fn drop_unlisted(&self) -> Result<(), Problem> {
        let (id, session) = (self.row.id.clone(), self.session);
        let names = self.ctx.store.read(move |db| exchange::unlisted(db, &id, session)).await?;
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

    async fn write_attachments(&self, left_out: LeftOuts) -> Result<(), Problem> {
        let (ctx, id, folder) = (self.ctx.clone(), self.row.id.clone(), matches!(self.stage.place(), Place::Folder(_)));
        blocking(&self.ctx.world, move || {
            let mut attachments = Attachments::begin(&ctx.attachments(), &id, 0, ctx.world.disk.clone())?;
            let mut from = 0;
            loop {
                let page = ctx.store.read_now(|db| exchange::landing_entries(db, &id, from, PAGE))?;
                let Some(last) = page.last() else { break };
                from = last.entry.index + 1;
                let entries: Vec<Entry> = page.into_iter().map(|found| found.entry).collect();
                attachments.add(&entries)?;
            }
            attachments.finish(&left_out, folder)
        })
        .await
    }
}

/// Commits what is staged and states it.
async fn commit(
    ctx: &Arc<Context>,
    row: &Transfer,
    job: &Job,
    stage: &Arc<Stage>,
    staged: Staged,
) -> Result<Statement, Problem> {
    let provider = settle::open(ctx, &row.peer, staged.statement())?;
    let all_left_out = {
        let (root, id) = (ctx.attachments(), row.id.clone());
        blocking(&ctx.world, move || attachments::left_out(&root, &id)).await?
    };
    let work = Commit {
        world: &ctx.world,
        store: &ctx.store,
        transfer: &row.id,
        job: &row.job,
        write: row.write,
        proof: job.proof,
        left_out: &all_left_out,
    };
    let committed = staged.commit(stage, &work).await?;
    crate::crash_point!("committed");
    let standing = crate::reconcile::consumer_standing(ctx, row, stage).await?;
    let statement = settle::state_landing(ctx, row, committed, provider, standing).await?;
    crate::crash_point!("stated");
    Ok(statement)
}

/// Commits what an earlier session or process left staged; None where nothing is.
pub(in crate::transfer::consumer) async fn commit_staged(run: &mut Run, job: &Job) -> Result<Option<Ended>, Problem> {
    let id = run.row.id.clone();
    let found = run.ctx.store.read(move |db| Ok((Staged::load(db, &id)?, exchange::landing_offer(db, &id)?))).await?;
    let (Some(staged), Some(offer)) = found else { return Ok(None) };
    run.row.state = State::Staged;
    let committed = async {
        let stage = open_stage(&run.ctx, &run.row, job, &offer).await?;
        commit(&run.ctx, &run.row, job, &stage, staged).await
    };
    match committed.await {
        Ok(_) => {
            if let Some(row) = super::super::load(&run.ctx, &run.row.id).await? {
                run.row = row;
            }
            Ok(Some(Ended::Stopped))
        }
        Err(problem) if problem.code == Code::DiskFull => Ok(Some(Ended::NoRoom(problem))),
        Err(problem) => Err(problem),
    }
}

/// Whether a transfer that is staged may be given up, for this problem of its commit if there is one. Rows that were published without a
/// statement would come a second time with the next run, so a table has to say itself that they were not.
/// Files are landed by name: what stands of them is found by the next run.
pub(in crate::transfer::consumer) async fn may_drop_staged(
    run: &Run,
    offer: Option<Offer>,
    problem: Option<&Problem>,
) -> bool {
    let Some((contract, mark)) = offer.and_then(|offer| Some((offer.contract?, offer.watermark_column))) else {
        return true;
    };
    if problem.is_some_and(may_pass) {
        return false;
    }
    let Some(target) = run.job().ok().and_then(|job| job.into) else { return false };
    let (ctx, row) = (run.ctx.clone(), run.row.clone());
    let world = ctx.world.clone();
    let published = blocking(&world, move || open_destination(&ctx, &row, &target, &contract, mark)?.published());
    matches!(published.await, Ok(None))
}

/// Whether the same commit may well succeed later.
fn may_pass(problem: &Problem) -> bool {
    matches!(problem.code, Code::ConnectionFailed | Code::StorageFailed | Code::DiskFull | Code::Busy)
}

/// Exchanges the statements of a committed transfer, and nothing else.
pub(in crate::transfer::consumer) async fn settle(
    run: &mut Run,
    line: Line,
    request: Request,
    statement: Statement,
) -> Result<Ended, Problem> {
    let Line { connection, reader, writer } = line;
    let world = run.ctx.world.clone();
    let (frames_in, mut frames) = mpsc::channel(FRAMES);
    let (out, frames_out) = mpsc::channel(FRAMES);
    let reading = tokio::spawn(read_frames(reader, frames_in));
    let writing = tokio::spawn(write_frames(writer, frames_out));
    let peer = run.row.peer.clone();
    let mut machine = Consumer::committed(request, peer.clone(), statement.bytes().to_vec(), steady(&world));
    let lost = |cause: &str| Problem::new(Code::PeerUnreachable).with("peer", &peer).cause(cause);
    let ended = loop {
        while let Some(frame) = machine.poll_transmit(steady(&world)) {
            // The reader notices when the line is gone.
            let _ = out.send(frame).await;
        }
        match machine.poll_event() {
            Some(ConsumerEvent::Settled) => {
                let row = settled(&run.ctx, &run.row).await?;
                run.row = row.clone();
                run.registered.show(|live| live.row = row.clone());
                clean_up(&run.ctx, &row).await;
                break Ended::Final(Box::new(row));
            }
            Some(ConsumerEvent::Refused(ending) | ConsumerEvent::Failed(ending)) => {
                // What is landed is landed: the provider's word is kept beside it.
                let subject = run.subject();
                settle::take_ending(&run.ctx, &subject, &ending.statement).await?;
                machine.noted(Vec::new());
                break Ended::Lost(settle::problem_of(&ending, &subject));
            }
            Some(ConsumerEvent::Lost) => break Ended::Lost(lost("it has been silent for too long")),
            Some(_) => continue,
            None => {}
        }
        let deadline = machine.poll_timeout();
        tokio::select! {
            biased;
            () = run.ctx.drain.cancelled() => break Ended::Stopped,
            _ = run.registered.stop.changed() => {
                run.registered.stop.mark_changed();
                break Ended::Stopped;
            }
            frame = frames.recv() => match frame {
                Some(Ok(frame)) => {
                    if let Err(problem) = machine.handle_frame(frame, steady(&world)) {
                        break Ended::Lost(problem);
                    }
                }
                Some(Err(problem)) => break Ended::Lost(problem),
                None => break Ended::Lost(lost("the channel ended")),
            },
            () = until(&world, deadline) => machine.handle_timeout(steady(&world)),
        }
    };
    drop(out);
    reading.abort();
    let _ = tokio::time::timeout(Duration::from_millis(GOODBYE_MS.unsigned_abs()), writing).await;
    drop(connection);
    Ok(ended)
}

/// Tells the provider of an ending that it has not heard of, for as long as this process lives and an hour.
pub(in crate::transfer::consumer) async fn tell(ctx: Arc<Context>, row: Transfer, request: Request, ending: Refused) {
    let mut wait = TELL_MIN;
    while wait <= TELL_MAX {
        match tell_once(&ctx, &row, &request, &ending).await {
            Ok(()) => return,
            Err(problem) => tracing::debug!(transfer = %row.id, %problem, "The provider does not know of the end yet"),
        }
        let woken = tokio::select! {
            biased;
            () = ctx.drain.cancelled() => false,
            () = tokio::time::sleep(wait) => true,
        };
        if !woken {
            return;
        }
        wait *= 2;
    }
}

async fn tell_once(ctx: &Arc<Context>, row: &Transfer, request: &Request, ending: &Refused) -> Result<(), Problem> {
    let Line { connection, mut reader, mut writer } = super::super::connect(ctx, &row.peer, &row.id).await?;
    writer.send(&Frame::Request(request.clone())).await?;
    writer.send(&Frame::Failed(ending.clone())).await?;
    let answer = async {
        loop {
            match reader.expect().await? {
                Frame::Noted(statement)
                | Frame::Failed(Refused { statement, .. })
                | Frame::Refused(Refused { statement, .. }) => {
                    return Ok::<_, Problem>(statement);
                }
                _ => {}
            }
        }
    };
    let lost = || Problem::new(Code::PeerUnreachable).with("peer", &row.peer).cause("it does not answer");
    let statement = tokio::time::timeout(TELL_MIN * 10, answer).await.map_err(|_| lost())??;
    let subject = settle::Subject {
        transfer: row.id.clone(),
        job: row.job.clone(),
        resource: row.resource.clone(),
        consumer: ctx.name.clone(),
    };
    settle::take_ending(ctx, &subject, &statement).await?;
    drop(connection);
    Ok(())
}

/// Both statements are here and there: the receipt stands.
pub(super) async fn settled(ctx: &Arc<Context>, row: &Transfer) -> Result<Transfer, Problem> {
    let (id, name, signer) = (row.id.clone(), ctx.name.clone(), ctx.signer.clone());
    let (mut row, now) = (row.clone(), ctx.world.clock.now());
    let read = ctx
        .store
        .read(move |db| {
            let own = statements::own(db, &id, "consumer", &statements::OwnKey::new(&name, signer.as_ref()))?;
            Ok((own, statements::bytes(db, &id, "provider")?))
        })
        .await?;
    let (Some(consumer), Some(provider)) = read else {
        return Err(Problem::new(Code::InsideFailed).cause("a transfer was settled without both statements"));
    };
    let provider = settle::open(ctx, &row.peer, &provider)?;
    if let Some(landing) = consumer.landing() {
        row.counts = landing.counts;
    }
    ctx.store
        .write(move |tx| {
            row.receipt = Some(statements::settle(tx, &row.id, &provider, &consumer, now)?);
            row.state = State::Settled;
            row.ended = Some(now);
            row.problem = None;
            transfers::update(tx, &row)?;
            transfers::get(tx, &row.id)?.ok_or_else(|| Problem::new(Code::InsideFailed))
        })
        .await
}

/// Takes away what a settled transfer needs no more. What cannot be removed now is removed by age.
pub(super) async fn clean_up(ctx: &Arc<Context>, row: &Transfer) {
    let (context, row) = (ctx.clone(), row.clone());
    let done = blocking(&ctx.world, move || {
        TableStage::remove(&context.staging(), &row.id)?;
        arrived::remove(&context.staging(), &row.id);
        if let Some(succeeded) = &row.succeeds {
            TableStage::remove(&context.staging(), succeeded)?;
        }
        context.store.write_now(|tx| {
            row.succeeds.iter().try_for_each(|succeeded| exchange::forget_landing(tx, succeeded))?;
            exchange::forget_landing(tx, &row.id)
        })
    });
    if let Err(problem) = done.await {
        tracing::warn!(%problem, "A transfer's working files remain");
    }
}

/// Drops what a transfer that ended without a receipt left here. Splits stay for its successor.
pub(in crate::transfer::consumer) async fn discard(run: &Run) {
    let (ctx, row) = (run.ctx.clone(), run.row.clone());
    let job = run.job();
    let id = row.id.clone();
    let stored =
        ctx.store.read(move |db| Ok((exchange::landing_offer(db, &id)?, exchange::names_in_landing(db, &id)?)));
    let (offer, names) = match stored.await {
        Ok(stored) => stored,
        Err(problem) => return tracing::warn!(transfer = %row.id, %problem, "A transfer's working files remain"),
    };
    let (Some(offer), Ok(job)) = (offer, job) else { return };
    let world = ctx.world.clone();
    let done = blocking(&world, move || {
        arrived::remove(&ctx.staging(), &row.id);
        match (&job.into, &offer.contract) {
            (Some(Target::Folder { path }), None) => {
                let folder = FolderDestination::open(path, row.write, &row.id, ctx.world.disk.clone())?;
                folder.discard(&mut names.iter().map(Vec::as_slice))?;
                ctx.store.write_now(|tx| exchange::forget_landing(tx, &row.id))
            }
            (Some(target), Some(contract)) => {
                open_destination(&ctx, &row, target, contract, offer.watermark_column.clone())?.discard()
            }
            _ => Ok(()),
        }
    });
    if let Err(problem) = done.await {
        tracing::warn!(%problem, "A transfer's working files remain");
    }
}

const PAGE: u32 = 1024;
const TELL_MIN: Duration = Duration::from_secs(1);
const TELL_MAX: Duration = Duration::from_secs(1800);
