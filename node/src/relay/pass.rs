//! One line that another node brings: it goes on to the next relay, or has arrived.

use super::ask;
use crate::context::Context;
use crate::settle;
use crate::transfer::own_hello;
use posthouse_platform::endpoint::{Connection, Reader, Relayed, Writer};
use posthouse_platform::frames::{FrameReader, FrameWriter};
use posthouse_protocol::frame::{Frame, Purpose, Relay};
use posthouse_protocol::id::NodeId;
use posthouse_protocol::policy::Passing;
use posthouse_protocol::problem::{Code, Problem};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::MissedTickBehavior;

/// Serves the channel on which `from` brings a line.
pub(crate) async fn serve(
    ctx: Arc<Context>,
    from: NodeId,
    connection: Arc<dyn Connection>,
    asked: Relay,
    reader: FrameReader,
    mut writer: FrameWriter,
) {
    if connection.relayed().is_some() {
        // Who has come through relays is nobody's neighbour here.
        let problem = Problem::new(Code::FrameInvalid).with("peer", &from).cause("a line within a line");
        return refuse(writer, &from, &problem).await;
    }
    let passing = match permitted(&ctx, &asked, &from).await {
        Ok(passing) => passing,
        Err(problem) => return refuse(writer, &from, &problem).await,
    };
    let hello = Frame::Hello(own_hello(&ctx, Purpose::Relay(asked.clone())));
    let Some(next) = passing.next() else {
        if let Err(problem) = writer.send(&hello).await {
            return tracing::debug!(%from, %problem, "A line was lost before it stood");
        }
        let line = Box::new(tokio::io::join(reader.into_inner(), writer.into_inner()));
        return ctx.pool.arrived(line, Relayed { route: passing.route().to_vec(), asked });
    };
    let Some(entered) = ctx.relays.enter(&ctx, &from, &asked, &passing) else {
        let cause = "it has as many lines here as one node may have";
        return refuse(writer, &from, &Problem::new(Code::Busy).with("peer", &ctx.name).cause(cause)).await;
    };
    let line = tokio::select! {
        biased;
        () = ctx.drain.cancelled() => return entered.leave(&ctx, 0, 0),
        line = ask(&ctx, next, &asked, stretches_after(&ctx.name, &passing)) => line,
    };
    let line = match line {
        Ok(line) => line,
        Err(problem) => {
            entered.leave(&ctx, 0, 0);
            return refuse(writer, &from, &problem).await;
        }
    };
    let passed = Passed::default();
    if let Err(problem) = writer.send(&hello).await {
        tracing::debug!(%from, %problem, "A line was lost before it stood");
    } else {
        tracing::debug!(%from, %next, grant = %passing.grant(), "A line stands");
        let ends = (reader.into_inner(), writer.into_inner());
        let reason = tokio::select! {
            biased;
            () = ctx.drain.cancelled() => "this node stops".to_owned(),
            problem = withdrawn(&ctx, &passing) => problem.to_string(),
            () = pass_on(&ctx, (&from, ends), (next, tokio::io::split(line)), &passed) => "its ends closed it".to_owned(),
        };
        tracing::debug!(%from, %next, reason, "A line ended");
    }
    let (forth, back) = (passed.forth.into_inner(), passed.back.into_inner());
    let (to_provider, to_consumer) = if passing.from_consumer() { (forth, back) } else { (back, forth) };
    entered.leave(&ctx, to_consumer, to_provider);
}

/// Stretches of the way that lie before this relay.
fn stretches_after(this: &NodeId, passing: &Passing) -> usize {
    let relays = passing.route();
    let at = relays.iter().position(|relay| relay == this).unwrap_or_default();
    if passing.from_consumer() { relays.len() - at } else { at + 1 }
}

/// Bytes of the two directions of a line, as seen from who brought it.
#[derive(Default)]
struct Passed {
    forth: AtomicU64,
    back: AtomicU64,
}

/// Until both directions have ended.
async fn pass_on<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    ctx: &Context,
    (from, (reader, writer)): (&NodeId, (Reader, Writer)),
    (next, (next_reader, next_writer)): (&NodeId, (R, W)),
    passed: &Passed,
) {
    let forth = copy(ctx, reader, next_writer, next, &passed.forth);
    let back = copy(ctx, next_reader, writer, from, &passed.back);
    // An error of one direction ends both: the ends are to see it, not a line of which one half is dead.
    if let Err(error) = tokio::try_join!(forth, back) {
        tracing::debug!(%error, "A line broke");
    }
}

/// Passes on to a node what comes for it, and its end.
async fn copy(
    ctx: &Context,
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    node: &NodeId,
    passed: &AtomicU64,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        ctx.pacing.take(node, None, read as u64).await;
        to.write_all(buffer.get(..read).unwrap_or_default()).await?;
        to.flush().await?;
        passed.fetch_add(read as u64, Ordering::Relaxed);
    }
}

/// As its policy says. Before a refusal the centre is asked once more: a grant made a moment ago counts.
async fn permitted(ctx: &Arc<Context>, asked: &Relay, from: &NodeId) -> Result<Passing, Problem> {
    match ctx.authority.pass(&asked.consumer, &asked.resource, from) {
        Ok(passing) => Ok(passing),
        Err(_) => {
            crate::centre::doubt(ctx).await;
            ctx.authority.pass(&asked.consumer, &asked.resource, from)
        }
    }
}

/// Returns once the line may not be passed on any more.
async fn withdrawn(ctx: &Context, passing: &Passing) -> Problem {
    let mut bell = ctx.authority.subscribe();
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        if let Err(problem) = ctx.authority.still_passes(passing) {
            return problem;
        }
        tokio::select! {
            biased;
            Ok(()) = bell.changed() => {}
            _ = look.tick() => {}
        }
    }
}

async fn refuse(mut writer: FrameWriter, from: &NodeId, problem: &Problem) {
    tracing::info!(%from, %problem, "A line was not passed on");
    // Whoever asked may have gone.
    let _ = writer.send(&Frame::Refused(settle::refused(problem, None))).await;
    let _ = writer.finish().await;
}

const BUFFER_BYTES: usize = 64 << 10;
/// A policy turns stale by the clock.
const LOOK: Duration = Duration::from_secs(1);
