//! After a transfer was committed or has ended: both statements make the receipt, the provider is told of an
//! ending, and what is needed no more is taken away.

use super::destination::{OfferedRows, open_destination, versions_of};
use super::run::{Line, Run, connect};
use super::session::{Ended, arrived};
use crate::config::Target;
use crate::context::Context;
use crate::settle;
use crate::stage::TableStage;
use crate::store::{Transfer, exchange, spent, statements, transfers};
use crate::transfer::wire::Wire;
use crate::transfer::{blocking, steady, until};
use posthouse_connectors::folder::FolderDestination;
use posthouse_protocol::consumer::{Consumer, ConsumerEvent};
use posthouse_protocol::frame::{Frame, Refused, Request};
use posthouse_protocol::job::State;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::statement::Statement;
use std::sync::Arc;
use std::time::Duration;

/// Exchanges the statements of a committed transfer, and nothing else.
pub(super) async fn settle(run: &mut Run, line: Line, statement: Statement) -> Result<Ended, Problem> {
    let Line { connection, reader, writer, request, knows: _ } = line;
    let world = run.ctx.world.clone();
    let (mut wire, pumps) = Wire::start(reader, writer);
    let peer = run.row.peer.clone();
    let mut machine =
        Consumer::committed(request, peer.clone(), statement.bytes().to_vec(), steady(&world)).after_request();
    let lost = |cause: &str| Problem::new(Code::PeerUnreachable).with("peer", &peer).cause(cause);
    let ended = loop {
        while let Some(frame) = machine.poll_transmit(steady(&world)) {
            // The reader notices when the line is gone.
            let _ = wire.out.send(frame).await;
        }
        match machine.poll_event() {
            Some(ConsumerEvent::Settled) => {
                let row = settled(&run.ctx, &run.row).await?;
                run.row = row.clone();
                run.registered.show(|live| live.row = row.clone());
                clean_up(&run.ctx, &row);
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
            frame = wire.frames.recv() => match frame {
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
    drop(wire);
    pumps.close().await;
    drop(connection);
    Ok(ended)
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
    let (epoch, spent) = (ctx.epoch, ctx.meters(&row.id).spent());
    ctx.store
        .write(move |tx| {
            spent::put(tx, &row.id, epoch, &spent)?;
            row.receipt = Some(statements::settle(tx, &row.id, &provider, &consumer, now)?);
            row.state = State::Settled;
            row.ended = Some(now);
            row.problem = None;
            transfers::update(tx, &row)?;
            transfers::get(tx, &row.id)?.ok_or_else(|| Problem::new(Code::InsideFailed))
        })
        .await
}

/// Tells the provider of an ending that it has not heard of, for as long as this process lives and an hour.
pub(super) async fn tell(ctx: Arc<Context>, row: Transfer, request: Request, ending: Refused) {
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
    let Line { connection, mut reader, mut writer, .. } = connect(ctx, row, request.clone()).await?;
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

/// Takes away what a settled transfer needs no more. It has its receipt, for which nobody has to wait until the records
/// of many files are gone. What cannot be removed now is removed at the next start, of which the files here tell: they
/// go last.
pub(super) fn clean_up(ctx: &Arc<Context>, row: &Transfer) {
    let (context, row) = (ctx.clone(), row.clone());
    tokio::spawn(async move {
        let world = context.world.clone();
        let done = blocking(&world, move || {
            context.store.write_now(|tx| {
                row.succeeds.iter().try_for_each(|succeeded| exchange::forget_landing(tx, succeeded))?;
                exchange::forget_landing(tx, &row.id)
            })?;
            TableStage::remove(&context.staging(), &row.id)?;
            if let Some(succeeded) = &row.succeeds {
                TableStage::remove(&context.staging(), succeeded)?;
            }
            arrived::remove(&context.staging(), &row.id);
            Ok(())
        });
        if let Err(problem) = done.await {
            tracing::warn!(%problem, "A transfer's working files remain");
        }
    });
}

/// Drops what a transfer that ended without a receipt left here. Splits stay for its successor, where one follows.
pub(super) async fn discard(run: &Run) {
    let (ctx, row) = (run.ctx.clone(), run.row.clone());
    let world = ctx.world.clone();
    let follows = row.state == State::Failed && row.problem.as_ref().is_some_and(|p| p.code == Code::SnapshotLost);
    let Ok(Some(target)) = run.job().map(|job| job.into) else { return };
    if let Err(problem) = blocking(&world, move || discard_landing(&ctx, &row, &target, follows)).await {
        tracing::warn!(%problem, "A transfer's working files remain");
    }
}

/// Nothing follows a transfer that failed: what was kept for that is dropped.
pub(super) async fn drop_kept(ctx: &Arc<Context>, row: &Transfer) {
    let target = ctx.config().landing_job(&row.peer, &row.job).and_then(|job| job.into.clone());
    let Some(target) = target.filter(|_| row.problem.as_ref().is_some_and(|p| p.code == Code::SnapshotLost)) else {
        return;
    };
    let (context, row) = (ctx.clone(), row.clone());
    if let Err(problem) = blocking(&ctx.world, move || discard_landing(&context, &row, &target, false)).await {
        tracing::warn!(%problem, "What a failed transfer has staged remains");
    }
}

/// The same for the target that the job has now. With `follows` a successor takes over what is staged. Blocks.
pub(super) fn discard_landing(ctx: &Context, row: &Transfer, target: &Target, follows: bool) -> Result<(), Problem> {
    let id = &row.id;
    let (offer, names) =
        ctx.store.read_now(|db| Ok((exchange::landing_offer(db, id)?, exchange::names_in_landing(db, id)?)))?;
    arrived::remove(&ctx.staging(), id);
    let Some(offer) = offer else { return Ok(()) };
    match (target, &offer.contract) {
        (Target::Folder { path, versions }, None) => {
            let folder = FolderDestination::open(path, row.write, id, ctx.world.disk.clone())?;
            let folder = match versions {
                Some(kept) if folder.has_exchanged() => folder.keeping(&versions_of(row, kept))?,
                _ => folder,
            };
            folder.discard(&mut names.iter().map(Vec::as_slice))?;
            ctx.store.write_now(|tx| exchange::forget_landing(tx, id))
        }
        (target, Some(contract)) => {
            let mut destination = open_destination(ctx, row, target, &OfferedRows::of(&offer, contract))?;
            if follows && destination.hands_over()? { Ok(()) } else { destination.discard() }
        }
        _ => Ok(()),
    }
}

const TELL_MIN: Duration = Duration::from_secs(1);
const TELL_MAX: Duration = Duration::from_secs(1800);
