//! The way back: what the consumer stated comes to the provider in a part, and is taken as if it came over a line.

use super::part::{Found, Stream, invalid, unreadable};
use super::shelf::Set;
use super::{Bundle, known_epoch};
use crate::context::Context;
use crate::settle;
use crate::store::{Transfer, exchange, statements, transfers};
use crate::transfer::{self, blocking, own_hello};
use posthouse_platform::endpoint::Transport;
use posthouse_platform::frames;
use posthouse_platform::local;
use posthouse_protocol::frame::line::{FEED_BYTES_MAX, FrameDecoder};
use posthouse_protocol::frame::{Frame, Hello, Purpose, Request};
use posthouse_protocol::job::State;
use posthouse_protocol::problem::{Code, Problem};
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

/// Takes a consumer's statement; gives its transfer as it stands then.
pub(super) async fn take(ctx: &Arc<Context>, set: &Set) -> Result<Transfer, Problem> {
    let unknown = || Problem::new(Code::UnknownName).with("kind", "transfer").with("name", &set.transfer);
    let part = set.parts.first().cloned().ok_or_else(unknown)?;
    let (context, at) = (ctx.clone(), part.clone());
    let said = blocking(&ctx.world, move || frame(&context, &at)).await?;
    let id = set.transfer.clone();
    let offered = ctx.store.read(move |db| exchange::offered(db, &id)).await?.ok_or_else(unknown)?;
    if offered.consumer != set.from {
        return Err(Problem::new(Code::Mismatch).with("peer", &set.from).cause("it answers another's transfer"));
    }
    let id = set.transfer.clone();
    let row = ctx.store.read(move |db| transfers::get(db, &id)).await?.ok_or_else(unknown)?;
    if row.state.is_final() && !matches!(said, Frame::Landed(_)) {
        // It was said before.
        return Ok(row);
    }
    let told = tokio::time::timeout(TOLD_WITHIN, tell(ctx, set, offered.request, said)).await;
    told.unwrap_or_else(|_| Err(Problem::new(Code::Busy).with("peer", &ctx.name)))?;
    let id = set.transfer.clone();
    ctx.store.read(move |db| transfers::get(db, &id)).await?.ok_or_else(unknown)
}

/// Says in the consumer's place what it said, and waits until it is stored.
async fn tell(ctx: &Arc<Context>, set: &Set, request: Request, said: Frame) -> Result<(), Problem> {
    let committed = matches!(said, Frame::Landed(_));
    let (here, giving) = local::pair(&set.from, &ctx.name, Transport::Ferry);
    let (channel, opened) = tokio::join!(here.open(), giving.accept());
    let (channel, opened) = (channel?, opened.ok_or_else(|| lost(ctx, "it does not listen"))?);
    let serving = tokio::spawn(transfer::serve_channel(ctx.clone(), giving, opened));
    let (mut reader, mut writer) = frames::split(channel, &ctx.name);
    let epoch = known_epoch(ctx, &set.from).await?;
    let hello = own_hello(ctx, Purpose::Control(request.transfer.clone()));
    writer.send(&Frame::Hello(Hello { epoch, ..hello })).await?;
    writer.send(&Frame::Request(Request { committed, ..request })).await?;
    writer.send(&said).await?;
    let answered = loop {
        match reader.expect().await? {
            Frame::Settled(_) | Frame::Noted(_) => break Ok(()),
            Frame::Refused(refused) | Frame::Failed(refused) => {
                let _ = writer.send(&Frame::Noted(Vec::new().into())).await;
                break Err(refused.problem(&[("peer", &set.from)]));
            }
            Frame::Ping(token) => writer.send(&Frame::Pong(token)).await?,
            // What it would give if it were asked.
            _ => {}
        }
    };
    let _ = writer.finish().await;
    drop(reader);
    here.close(0, "said");
    let _ = serving.await;
    answered
}

/// The one frame of an answer. Blocks.
fn frame(ctx: &Context, part: &Found) -> Result<Frame, Problem> {
    let mut stream = Stream::open(part, ctx.ferry.key())?;
    let (mut decoder, mut buffer) = (FrameDecoder::new(), vec![0; FEED_BYTES_MAX]);
    loop {
        match decoder.take().map_err(|e| invalid(&part.path, e))? {
            Some(frame @ (Frame::Landed(_) | Frame::Refused(_) | Frame::Failed(_))) => return Ok(frame),
            Some(other) => return Err(invalid(&part.path, format!("an answer is not {}", other.name()))),
            None => {}
        }
        match stream.read(&mut buffer).map_err(|e| unreadable(&part.path, &e))? {
            0 => return Err(invalid(&part.path, "it ends within a frame")),
            read => decoder.feed(&buffer[..read]).map_err(|e| invalid(&part.path, e))?,
        }
    }
}

/// Says once more what this node had stated of a transfer that has ended.
pub(super) async fn repeat(ctx: &Arc<Context>, bundle: &Bundle, row: &Transfer) -> Result<(), Problem> {
    let (id, name, signer) = (row.id.clone(), ctx.name.clone(), ctx.signer.clone());
    let kind = match row.state {
        State::Settled => "consumer",
        State::Refused => "refusal",
        _ => "failure",
    };
    let stated = ctx
        .store
        .read(move |db| statements::own(db, &id, kind, &statements::OwnKey::new(&name, signer.as_ref())))
        .await?;
    let Some(statement) = stated else { return Ok(()) };
    let frame = match row.state {
        State::Settled => Frame::Landed(statement.bytes().to_vec().into()),
        state => {
            let problem = row.problem.clone().unwrap_or_else(|| Problem::new(Code::Cancelled));
            let ending = settle::refused(&problem, Some(&statement));
            if state == State::Refused { Frame::Refused(ending) } else { Frame::Failed(ending) }
        }
    };
    bundle.answer(ctx, frame).await
}

fn lost(ctx: &Context, cause: &str) -> Problem {
    Problem::new(Code::PeerUnreachable).with("peer", &ctx.name).cause(cause)
}

const TOLD_WITHIN: Duration = Duration::from_secs(60);
