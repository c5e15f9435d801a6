//! How the line to a peer is at this moment: a channel of its own is opened a few times, and the greeting waited for.
//! Deliberately absent: how much the line takes, which shows by what transfers put on it.

use super::LineSeen;
use crate::context::Context;
use crate::relay;
use crate::transfer::own_hello;
use posthouse_platform::endpoint::Connection;
use posthouse_platform::frames;
use posthouse_protocol::frame::{Frame, Purpose, Relay};
use posthouse_protocol::id::NodeId;
use posthouse_protocol::limits;
use posthouse_protocol::problem::{Code, Problem};
use std::sync::Arc;
use std::time::Duration;

/// `asked` is what the line is for: a job that this node gives or takes.
pub(super) async fn probe(context: &Arc<Context>, asked: &Relay) -> Result<LineSeen, Problem> {
    let peer = if asked.consumer == context.name { &asked.resource.node } else { &asked.consumer };
    if context.config().ferries.contains_key(peer) {
        let what = format!("what is exchanged with {peer} is carried: there is no line");
        return Err(Problem::new(Code::UsageInvalid).with("what", what));
    }
    let connection = relay::reach(context, asked).await?;
    let mut shortest: Option<Duration> = None;
    for _ in 0..TRIES {
        let took = greeting(context, connection.as_ref(), peer).await?;
        shortest = Some(shortest.map_or(took, |shortest| shortest.min(took)));
    }
    Ok(LineSeen {
        peer: peer.clone(),
        transport: connection.transport(),
        address: connection.remote_address(),
        answer_ms: shortest.unwrap_or_default().as_secs_f64() * 1000.0,
        rtt_ms: connection.rtt_ms(),
    })
}

/// A channel for a question that is not asked: its greeting is answered at once.
async fn greeting(context: &Context, connection: &dyn Connection, peer: &NodeId) -> Result<Duration, Problem> {
    let began = context.world.clock.monotonic();
    let (mut reader, mut writer) = frames::split(connection.open().await?, peer);
    writer.send(&Frame::Hello(own_hello(context, Purpose::Ask))).await?;
    let patience = Duration::from_millis(limits::HANDSHAKE_MS);
    let answer = tokio::time::timeout(patience, reader.expect()).await;
    let took = context.world.clock.monotonic().saturating_sub(began);
    let unheard = |cause: &str| Problem::new(Code::PeerUnreachable).with("peer", peer).cause(cause);
    match answer {
        Ok(Ok(Frame::Hello(_))) => {}
        Ok(Ok(_)) => return Err(unheard("it does not greet")),
        Ok(Err(problem)) => return Err(problem),
        Err(_) => return Err(unheard("it did not answer in time")),
    }
    // How the channel closes changes nothing.
    let _ = writer.finish().await;
    Ok(took)
}

/// The first one may wait for the connection to wake.
const TRIES: u32 = 3;
