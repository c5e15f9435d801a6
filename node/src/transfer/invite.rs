//! Pushing: the giving side invites, the taking side takes as usual and says when it is done.
//! Also the other questions that one node asks another: digests and keys for a deep reconciliation.

use super::consumer::Outcome;
use super::{own_hello, planning};
use crate::config::{Ferry, Job, Kind};
use crate::context::Context;
use crate::ferry;
use crate::reconcile;
use crate::relay;
use crate::settle;
use crate::store::{Side, Transfer, exchange, jobs, transfers};
use posthouse_platform::endpoint::Connection;
use posthouse_platform::frames::{self, FrameReader, FrameWriter};
use posthouse_protocol::frame::{Frame, Invite, Invited, Purpose, Refused, Relay};
use posthouse_protocol::id::{NodeId, ResourceRef, TransferId};
use posthouse_protocol::job::Mode;
use posthouse_protocol::problem::{Code, Problem};
use std::sync::Arc;
use std::time::Duration;

/// Runs a pushing job once: invites the taker and follows the transfer to its end, as this side sees it.
pub async fn push(ctx: Arc<Context>, job: &Job) -> Result<Outcome, Problem> {
    let Kind::Push { resource, to } = &job.kind else {
        return Err(Problem::new(Code::InsideFailed).cause("a job that does not push was to push"));
    };
    if let Some(carried) = ctx.config().ferries.get(to).cloned() {
        return carry(&ctx, job, carried).await;
    }
    // The same in every try: an answer that is lost or late must not make a second transfer.
    let run = ctx.world.random.bytes::<16>();
    let invite = Invite { job: job.name.clone(), resource: resource.clone(), mode: job.mode, run: Some(run.into()) };
    let mut wait = BACK_OFF_MIN;
    let transfer = loop {
        match invite_once(&ctx, job, to, &invite).await {
            Ok(transfer) => break transfer,
            Err(problem) if problem.code == Code::PeerUnreachable => {
                tracing::info!(job = %job.name, %problem, "The taker was not reached; trying again");
                if wait > INVITE_GIVE_UP {
                    return Err(problem);
                }
            }
            Err(problem) => return Err(problem),
        }
        let woken = tokio::select! {
            biased;
            () = ctx.drain.cancelled() => false,
            () = tokio::time::sleep(wait) => true,
        };
        if !woken {
            return Ok(Outcome::Interrupted);
        }
        wait *= 2;
    };
    follow(&ctx, &transfer).await
}

/// Writes into parts what is pushed to a node that no line leads to, once its source may be read and its operator does
/// not hold it.
async fn carry(ctx: &Arc<Context>, job: &Job, ferry: Ferry) -> Result<Outcome, Problem> {
    loop {
        let name = job.name.clone();
        let kept = ctx.store.read(move |db| jobs::get(db, &name)).await?;
        if kept.removed {
            return Err(Problem::new(Code::Cancelled).cause("the job was removed while it waited"));
        }
        if !kept.paused {
            match ferry::export(ctx, job, ferry.outlet()).await {
                Ok(exported) => return Ok(Outcome::Final(Box::new(exported.row))),
                Err(_) if ctx.drain.is_cancelled() => return Ok(Outcome::Interrupted),
                Err(problem) if problem.code == Code::OutsideWindow => {
                    tracing::info!(job = %job.name, %problem, "It waits");
                }
                Err(problem) => return Err(problem),
            }
        }
        tokio::select! {
            biased;
            () = ctx.drain.cancelled() => return Ok(Outcome::Interrupted),
            () = tokio::time::sleep(WINDOW_LOOK) => {}
        }
    }
}

async fn invite_once(ctx: &Arc<Context>, job: &Job, to: &NodeId, invite: &Invite) -> Result<TransferId, Problem> {
    let resource = ResourceRef { node: ctx.name.clone(), resource: invite.resource.clone() };
    relay::goes_as_configured(ctx, job, to, &resource)?;
    let asked = Relay { consumer: to.clone(), resource, job: invite.job.clone(), transfer: None };
    let connection = relay::reach(ctx, &asked).await?;
    let hello = own_hello(ctx, Purpose::Ask);
    match frames::ask(connection.as_ref(), to, hello, &Frame::Invite(invite.clone()), INVITE_WITHIN).await? {
        Frame::Invited(Invited { transfer: Some(transfer), .. }) => Ok(transfer),
        Frame::Invited(Invited { refused: Some(refused), .. }) => {
            let job = format!("{}/{}", ctx.name, invite.job);
            Err(refused.problem(&[("consumer", to), ("job", &job), ("peer", to)]))
        }
        other => Err(Problem::new(Code::FrameInvalid)
            .with("peer", to)
            .cause(format!("it answered an invitation by {}", other.name()))),
    }
}

/// Waits for the end of a transfer that the other side runs.
async fn follow(ctx: &Arc<Context>, transfer: &TransferId) -> Result<Outcome, Problem> {
    let mut transfer = transfer.clone();
    let began = ctx.world.clock.monotonic();
    loop {
        let id = transfer.clone();
        let (row, next) =
            ctx.store.read(move |db| Ok((transfers::get(db, &id)?, exchange::successor(db, &id)?))).await?;
        match row {
            Some(_) if next.is_some() => {
                // The taker went on under a new id.
                if let Some(next) = next {
                    transfer = next;
                    continue;
                }
            }
            Some(row) if row.state.is_final() => return Ok(Outcome::Final(Box::new(row))),
            Some(_) => {}
            None if ctx.world.clock.monotonic().saturating_sub(began) > FIRST_REQUEST_WITHIN => {
                return Err(Problem::new(Code::Busy).with("peer", "the taker").cause("it accepted and did not begin"));
            }
            None => {}
        }
        tokio::select! {
            biased;
            () = ctx.drain.cancelled() => return Ok(Outcome::Interrupted),
            () = tokio::time::sleep(FOLLOW_EVERY) => {}
        }
    }
}

/// Answers one question of another node.
pub(super) async fn serve_ask(
    ctx: Arc<Context>,
    peer: NodeId,
    connection: Arc<dyn Connection>,
    mut reader: FrameReader,
    mut writer: FrameWriter,
) {
    let question = reader.next().await;
    if let Ok(Some(frame)) = &question
        && let Some(asked) = asked_by(&ctx, &peer, frame)
        && let Err(problem) = relay::comes_as_granted(&ctx, connection.relayed(), &asked)
    {
        return tracing::warn!(%peer, %problem, "A question was refused");
    }
    let answer = match question {
        Ok(Some(Frame::Invite(invite))) => Frame::Invited(invited(&ctx, &peer, invite).await),
        Ok(Some(Frame::Digest(request))) => Frame::DigestAnswer(reconcile::answer_digest(&ctx, &peer, request).await),
        Ok(Some(Frame::Plan(request))) => Frame::PlanAnswer(planning::answer_plan(&ctx, &peer, request).await),
        Ok(Some(Frame::Keys(request))) => Frame::KeysAnswer(reconcile::answer_keys(&ctx, &peer, request).await),
        Ok(Some(other)) => return tracing::warn!(%peer, frame = other.name(), "A question was not understood"),
        Ok(None) => return,
        Err(problem) => return tracing::warn!(%peer, %problem, "A question was refused"),
    };
    if let Err(problem) = writer.send(&answer).await {
        tracing::debug!(%peer, %problem, "An answer was lost");
        return;
    }
    let _ = writer.finish().await;
}

/// What a question is about.
fn asked_by(ctx: &Context, peer: &NodeId, question: &Frame) -> Option<Relay> {
    let (consumer, node, resource, job) = match question {
        Frame::Invite(invite) => (&ctx.name, peer, &invite.resource, &invite.job),
        Frame::Digest(request) => (peer, &ctx.name, &request.resource, &request.job),
        Frame::Keys(request) => (peer, &ctx.name, &request.resource, &request.job),
        Frame::Plan(request) => (peer, &ctx.name, &request.resource, &request.job),
        _ => return None,
    };
    let resource = ResourceRef { node: node.clone(), resource: resource.clone() };
    Some(Relay { consumer: consumer.clone(), resource, job: job.clone(), transfer: None })
}

/// Asks the provider of a job one question.
pub(crate) async fn ask(
    ctx: &Arc<Context>,
    resource: &ResourceRef,
    job: &Job,
    question: &Frame,
    within: Duration,
) -> Result<Frame, Problem> {
    let peer = &resource.node;
    relay::goes_as_configured(ctx, job, &ctx.name, resource)?;
    let connection = relay::reach(ctx, &relay::question(ctx, resource, job)).await?;
    frames::ask(connection.as_ref(), peer, own_hello(ctx, Purpose::Ask), question, within).await
}

async fn invited(ctx: &Arc<Context>, peer: &NodeId, invite: Invite) -> Invited {
    match accept(ctx, peer, &invite).await {
        Ok(transfer) => Invited { transfer: Some(transfer), refused: None },
        Err(problem) => {
            tracing::warn!(%peer, job = %invite.job, %problem, "An invitation was refused");
            let refused = Refused { temporary: problem.code == Code::Busy, ..settle::refused(&problem, None) };
            Invited { transfer: None, refused: Some(refused) }
        }
    }
}

/// The transfer that answers an invitation: the one under way, or a new one that begins now.
async fn accept(ctx: &Arc<Context>, peer: &NodeId, invite: &Invite) -> Result<TransferId, Problem> {
    let job = ctx.config().accepting(peer, &invite.job).cloned().ok_or_else(|| {
        Problem::new(Code::NotAccepted).with("consumer", &ctx.name).with("job", format!("{peer}/{}", invite.job))
    })?;
    let run: Option<[u8; 16]> = invite.run.map(Into::into);
    if let Some(run) = run {
        let from = peer.clone();
        let known = ctx
            .store
            .read(move |db| match exchange::invited(db, &from, &run)? {
                Some(id) => transfers::get(db, &id),
                None => Ok(None),
            })
            .await?;
        if let Some(row) = known {
            return Ok(row.id);
        }
    }
    let resource = ResourceRef { node: peer.clone(), resource: invite.resource.clone() };
    // The provider decides; asking here first saves a transfer that could only be refused.
    ctx.permit(&ctx.name, &resource).await?;
    if invite.mode == Mode::Observe {
        return Err(Problem::new(Code::NotAccepted)
            .with("consumer", &ctx.name)
            .with("job", format!("{peer}/{}", invite.job)));
    }
    let id = TransferId::from_random(ctx.world.random.bytes::<16>());
    let (mode, peer, now) = (invite.mode, peer.clone(), ctx.world.clock.now());
    let row = ctx
        .store
        .write(move |tx| {
            let kept = jobs::get(tx, &job.name)?;
            if kept.paused || kept.removed {
                let cause = format!("its job {} is held by its operator", job.name);
                return Err(Problem::new(Code::Busy).cause(cause));
            }
            // Asked again while the first one was being looked at.
            let known = run.map(|run| exchange::invited(tx, &peer, &run)).transpose()?.flatten();
            if let Some(row) = known.map(|id| transfers::get(tx, &id)).transpose()?.flatten() {
                return Ok(row);
            }
            let answers = |id: &TransferId| match &run {
                Some(run) => exchange::put_invited(tx, &peer, run, id, now),
                None => Ok(()),
            };
            if let Some(open) = transfers::open_of_job(tx, Side::Consumer, &job.name)? {
                answers(&open.id)?;
                return Ok(open);
            }
            answers(&id)?;
            let mut row =
                Transfer::planned(id, Side::Consumer, job.name.clone(), peer.clone(), resource, mode, job.write, now);
            row.pushed = true;
            if mode == Mode::Incremental {
                row.watermark_from = exchange::reached(tx, &job.name)?;
            }
            transfers::plan(tx, &row)?;
            Ok(row)
        })
        .await?;
    // One run of a job at a time, whoever began it; this one is then waited for when the node stops.
    if !row.state.is_final() {
        crate::jobs::take_up(ctx, &row);
    }
    Ok(row.id)
}

const INVITE_WITHIN: Duration = Duration::from_secs(30);
const BACK_OFF_MIN: Duration = Duration::from_secs(1);
const INVITE_GIVE_UP: Duration = Duration::from_secs(40);
const FIRST_REQUEST_WITHIN: Duration = Duration::from_secs(120);
const WINDOW_LOOK: Duration = Duration::from_secs(30);
const FOLLOW_EVERY: Duration = Duration::from_millis(100);
