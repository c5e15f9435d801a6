//! 中转: lines between nodes that do not reach each other. A relay joins a channel of the one to a channel of the next
//! and passes on what comes, which is TLS from end to end: it sees who, of what and how much, never the content. Which
//! way a line goes says the grant, and each node on it holds that to its own policy. What passed for a transfer the relay
//! states. Who reaches a node through relays does so by [`reach`]; who is reached checks by [`comes_as_granted`] that all
//! of an exchange comes the way of its grant and is what its relays were told.

mod book;
mod pass;

pub use book::Book;
pub(crate) use pass::serve;

use crate::config::Job;
use crate::context::Context;
use crate::transfer::{greet, own_hello};
use posthouse_platform::endpoint::{Connection, Lines, Relayed};
use posthouse_platform::frames;
use posthouse_platform::network::BoxLine;
use posthouse_protocol::frame::{Frame, Purpose, Relay};
use posthouse_protocol::id::{NodeId, ResourceRef};
use posthouse_protocol::limits;
use posthouse_protocol::problem::{Code, Problem};
use std::sync::Arc;
use std::time::Duration;

/// A connection to the other party: one of the pool's, or one of its own through the relays of the grant.
pub(crate) async fn reach(ctx: &Arc<Context>, asked: &Relay) -> Result<Arc<dyn Connection>, Problem> {
    let is_consumer = asked.consumer == ctx.name;
    let peer = if is_consumer { &asked.resource.node } else { &asked.consumer };
    let route = ctx.authority.route(&asked.consumer, &asked.resource);
    let next = if is_consumer { route.first() } else { route.last() };
    let Some(next) = next.cloned() else { return ctx.pool.connection(peer).await };
    let relayed = Relayed { route, asked: asked.clone() };
    ctx.pool.through(peer, Arc::new(ThroughRelays { ctx: ctx.clone(), next, relayed })).await
}

/// A question of this node's as a consumer.
pub(crate) fn question(ctx: &Context, resource: &ResourceRef, job: &Job) -> Relay {
    Relay { consumer: ctx.name.clone(), resource: resource.clone(), job: job.name.clone(), transfer: None }
}

/// Whether the grant goes the way that a job's configuration expects, where it expects any.
pub(crate) fn goes_as_configured(
    ctx: &Context,
    job: &Job,
    consumer: &NodeId,
    resource: &ResourceRef,
) -> Result<(), Problem> {
    let (Some(via), Ok(permit)) = (&job.via, ctx.authority.permit(consumer, resource, None)) else { return Ok(()) };
    if via == permit.route() {
        return Ok(());
    }
    let named = |route: &[NodeId]| match route {
        [] => "no relay".to_owned(),
        route => route.iter().map(NodeId::as_str).collect::<Vec<_>>().join(", "),
    };
    Err(Problem::new(Code::NoGrant).with("consumer", consumer).with("resource", resource).cause(format!(
        "the job's `via` names {}, its grant {}: {}",
        named(via),
        permit.grant(),
        named(permit.route())
    )))
}

/// Whether what is asked over a connection comes the way that its grant prescribes, and is what its relays were told.
pub(crate) fn comes_as_granted(ctx: &Context, relayed: Option<&Relayed>, asked: &Relay) -> Result<(), Problem> {
    let route = ctx.authority.route(&asked.consumer, &asked.resource);
    let is_so = match relayed {
        None => route.is_empty(),
        Some(relayed) => relayed.route == route && relayed.asked == *asked,
    };
    if is_so {
        return Ok(());
    }
    // Of two policies one may be older: the other side asks again.
    let other = if asked.consumer == ctx.name { &asked.resource.node } else { &asked.consumer };
    let cause = "it does not come the way that its grant prescribes";
    Err(Problem::new(Code::PeerUnreachable).with("peer", other).cause(cause))
}

/// Lines by way of the nearest relay.
struct ThroughRelays {
    ctx: Arc<Context>,
    next: NodeId,
    relayed: Relayed,
}

#[async_trait::async_trait]
impl Lines for ThroughRelays {
    fn relayed(&self) -> &Relayed {
        &self.relayed
    }
    fn patience(&self) -> Duration {
        stands_within(self.relayed.route.len() + 1)
    }
    async fn open(&self) -> Result<BoxLine, Problem> {
        ask(&self.ctx, &self.next, &self.relayed.asked, self.relayed.route.len() + 1).await
    }
}

/// Asks a relay, or the node behind the last one, to take a line; gives it once it stands to its end, so many stretches
/// away.
async fn ask(ctx: &Arc<Context>, next: &NodeId, asked: &Relay, stretches: usize) -> Result<BoxLine, Problem> {
    let unreachable = |cause: String| Problem::new(Code::PeerUnreachable).with("peer", next).cause(cause);
    let stands = async {
        let connection = ctx.pool.connection(next).await?;
        let (mut reader, mut writer) = frames::split(connection.open().await?, next);
        writer.send(&Frame::Hello(own_hello(ctx, Purpose::Relay(asked.clone())))).await?;
        match reader.expect().await? {
            Frame::Hello(hello) => greet(ctx, next, &hello).await?,
            // It is nobody's signed word, and whatever it was may pass: the line is tried again.
            Frame::Refused(refused) => {
                let said = refused.problem(&[]);
                return Err(unreachable(format!("as a relay it says: {}: {said}", said.code)));
            }
            other => return Err(unreachable(format!("it answers a line by {}", other.name()))),
        }
        Ok(Box::new(tokio::io::join(reader.into_inner(), writer.into_inner())) as BoxLine)
    };
    match tokio::time::timeout(stands_within(stretches), stands).await {
        Ok(line) => line,
        Err(_) => Err(unreachable("it did not pass a line on in time".to_owned())),
    }
}

/// The longer the way, the more nodes may have to be asked to dial; whoever is nearer to its end gives up sooner.
fn stands_within(stretches: usize) -> Duration {
    Duration::from_millis(limits::RELAY_HOP_MS.saturating_mul(stretches as u64))
}
