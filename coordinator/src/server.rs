//! Connections of nodes: who may speak, what they ask, and the work that goes on in between.
//! A certified node may ask anything on as many channels as it likes, a joining one only `Join` and `Return`.
//! Every wait has an end; a peer that says something strange loses its channel, not the listener.

mod asked;
mod rounds;

pub(crate) use rounds::Counted;

use crate::Centre;
use crate::alarm::{self, Kind};
use posthouse_platform::endpoint::{Channel, Connection, Remote};
use posthouse_platform::frames::{self, FrameWriter};
use posthouse_protocol::centre::{CentreAnswer, CentreRequest};
use posthouse_protocol::codec;
use posthouse_protocol::frame::line::{VERSION_MAX, VERSION_MIN};
use posthouse_protocol::frame::{Frame, Hello, Purpose};
use posthouse_protocol::id::NodeId;
use posthouse_protocol::problem::{Code, Problem};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Starts accepting, and the coordinator's rounds.
pub(crate) fn spawn(centre: &Arc<Centre>) {
    centre.tasks.spawn(accept(centre.clone()));
    rounds::spawn(centre);
}

async fn accept(centre: Arc<Centre>) {
    let joining = Arc::new(Semaphore::new(JOINING_MAX));
    loop {
        let connection = tokio::select! {
            biased;
            () = centre.stopping.cancelled() => return,
            connection = centre.endpoint.accept() => connection,
        };
        let Some(connection) = connection else { return };
        let remote = connection.remote().clone();
        match remote {
            Remote::Certified { node, certificate_sha256 } => {
                centre.tasks.spawn(serve_node(centre.clone(), node, certificate_sha256, connection));
            }
            Remote::Unknown => match joining.clone().try_acquire_owned() {
                Ok(room) => {
                    let centre = centre.clone();
                    centre.tasks.clone().spawn(async move {
                        serve_joining(&centre, &connection).await;
                        drop(room);
                    });
                }
                Err(_) => connection.close(Code::RateLimited.number(), Code::RateLimited.text().en),
            },
        }
    }
}

async fn serve_node(centre: Arc<Centre>, node: NodeId, certificate: [u8; 32], connection: Arc<dyn Connection>) {
    if let Err(problem) = admit(&centre, &node, certificate).await {
        tracing::warn!(%node, from = connection.remote_address(), %problem, "Refused a node");
        connection.close(problem.code.number(), &problem.code.to_string());
        return;
    }
    centre.arrived(&node, connection.clone());
    tracing::debug!(%node, from = connection.remote_address(), "A node has connected");
    let room = Arc::new(Semaphore::new(CHANNELS_MAX));
    loop {
        let channel = tokio::select! {
            biased;
            () = centre.stopping.cancelled() => break,
            channel = connection.accept() => channel,
        };
        let Some(channel) = channel else { break };
        centre.spoke(&node, &connection);
        let Ok(permit) = room.clone().acquire_owned().await else { break };
        let (centre, node) = (centre.clone(), node.clone());
        let connection = connection.clone();
        centre.tasks.clone().spawn(async move {
            if let Err(problem) = talk(&centre, Some(&node), channel).await {
                tracing::debug!(%node, %problem, "A talk ended early");
                if problem.code == Code::FrameInvalid {
                    connection.close(problem.code.number(), &problem.code.to_string());
                }
            }
            drop(permit);
        });
    }
    centre.left(&node, &connection);
}

/// Whether a certified node may speak here at all.
async fn admit(centre: &Centre, node: &NodeId, certificate: [u8; 32]) -> Result<(), Problem> {
    let refused = match centre.member(node).await {
        Ok(_) if centre.store.certificate_revoked(certificate).await? => Problem::new(Code::NodeRevoked)
            .with("node", node)
            .cause("its certificate was given to an earlier machine of this name"),
        Ok(_) => return Ok(()),
        Err(problem) => problem,
    };
    if refused.code == Code::NodeRevoked {
        let now = centre.world.clock.now();
        alarm::raise(&*centre.store, Kind::RevokedNode, node.as_str(), "a revoked node has tried to connect", now)
            .await;
    }
    Err(refused)
}

async fn serve_joining(centre: &Arc<Centre>, connection: &Arc<dyn Connection>) {
    let serve = async {
        for _ in 0..JOIN_CHANNELS_MAX {
            let Some(channel) = connection.accept().await else { return };
            if let Err(problem) = talk(centre, None, channel).await {
                tracing::debug!(from = connection.remote_address(), %problem, "A joining node's talk ended early");
                return;
            }
        }
    };
    let ended = tokio::select! {
        biased;
        () = centre.stopping.cancelled() => Ok(()),
        ended = tokio::time::timeout(JOIN_LIFE, serve) => ended,
    };
    if ended.is_err() {
        tracing::debug!(from = connection.remote_address(), "A joining node took too long");
    }
    connection.close(0, "done");
}

/// Questions and answers on one channel, until the node ends it.
async fn talk(centre: &Arc<Centre>, node: Option<&NodeId>, channel: Channel) -> Result<(), Problem> {
    let peer = node.map_or("a joining node", NodeId::as_str);
    let (mut reader, mut writer) = frames::split(channel, peer);
    let hello = match within(peer, reader.next()).await? {
        Some(Frame::Hello(hello)) => hello,
        None => return Ok(()),
        Some(_) => return Err(invalid(peer, "its first frame was no hello")),
    };
    writer.send(&Frame::Hello(Hello::new(Purpose::Ask, 0))).await?;
    let opening = judge_hello(centre, node, &hello, peer).await;
    let mut challenge = None;
    loop {
        let next = tokio::select! {
            biased;
            () = centre.stopping.cancelled() => return writer.finish().await,
            next = within(peer, reader.next()) => next?,
        };
        let request = match next {
            Some(Frame::Centre(request)) => request,
            Some(_) => return Err(invalid(peer, "it sent a frame that is no question to the coordinator")),
            None => return writer.finish().await,
        };
        let answer = match &opening {
            Ok(()) => answer(centre, node, request, &mut challenge).await,
            Err(problem) => Err(problem.clone()),
        };
        let answer = answer.unwrap_or_else(|problem| {
            tracing::info!(peer, %problem, "Refused a question");
            refusal(&problem)
        });
        send(&mut writer, answer).await?;
    }
}

async fn judge_hello(centre: &Arc<Centre>, node: Option<&NodeId>, hello: &Hello, peer: &str) -> Result<(), Problem> {
    if hello.purpose != Purpose::Ask {
        return Err(invalid(peer, "the coordinator takes questions only, no transfers"));
    }
    if hello.version_min > VERSION_MAX || hello.version_max < VERSION_MIN {
        return Err(Problem::new(Code::VersionUnsupported)
            .with("peer", peer)
            .with("theirs", format!("{}–{}", hello.version_min, hello.version_max))
            .with("ours", format!("{VERSION_MIN}–{VERSION_MAX}")));
    }
    match node {
        Some(node) => centre.check_epoch(node, hello.epoch).await,
        None => Ok(()),
    }
}

async fn answer(
    centre: &Arc<Centre>,
    node: Option<&NodeId>,
    request: CentreRequest,
    challenge: &mut Option<(NodeId, [u8; 32], [u8; 32])>,
) -> Result<CentreAnswer, Problem> {
    match (node, request) {
        (None, CentreRequest::Join(join)) => Ok(CentreAnswer::Joined(Box::new(centre.join(join).await?))),
        (None, CentreRequest::Return(back)) if back.proof.is_none() => {
            // The same answer whoever asks: only the proof shows who may come back.
            let made: [u8; 32] = centre.world.random.bytes();
            *challenge = Some((back.node.clone(), codec::sha256(&back.csr), made));
            centre.return_node(&back, &made).await?;
            Ok(CentreAnswer::Challenge(made.into()))
        }
        (None, CentreRequest::Return(back)) => match challenge.take() {
            Some((node, csr, made)) if node == back.node && csr == codec::sha256(&back.csr) => {
                match centre.return_node(&back, &made).await? {
                    Some(renewed) => Ok(CentreAnswer::Renewed(renewed)),
                    None => Err(Problem::new(Code::InsideFailed)),
                }
            }
            _ => Err(invalid(back.node.as_str(), "it answers a challenge that was not given")),
        },
        (None, _) => Err(Problem::new(Code::CertificateInvalid)
            .with("peer", "this node")
            .cause("before joining only a join or a return is answered")),
        (Some(node), request) => asked::answer(centre, node, request).await,
    }
}

impl Centre {
    /// Asks a connected node one question.
    pub(crate) async fn ask(
        &self,
        node: &NodeId,
        request: CentreRequest,
        limit: Duration,
    ) -> Result<CentreAnswer, Problem> {
        let connection = self
            .connection_of(node)
            .ok_or_else(|| Problem::new(Code::PeerUnreachable).with("peer", node).cause("it is not connected here"))?;
        let hello = Hello::new(Purpose::Ask, 0);
        match frames::ask(&*connection, node, hello, &Frame::Centre(request), limit).await? {
            Frame::CentreAnswer(CentreAnswer::Refused(code, cause)) => {
                Err(Problem::new(Code::from_number(code).unwrap_or(Code::InsideFailed)).with("peer", node).cause(cause))
            }
            Frame::CentreAnswer(answer) => Ok(answer),
            _ => Err(invalid(node.as_str(), "it answered with a frame that is no answer")),
        }
    }

    /// Tells a connected node something; one that is not connected learns it when it comes.
    pub(crate) async fn notify(&self, node: &NodeId, notice: CentreRequest) -> Result<(), Problem> {
        if self.connection_of(node).is_none() {
            return Ok(());
        }
        match self.ask(node, notice, NOTICE).await? {
            CentreAnswer::Done => Ok(()),
            _ => Err(invalid(node.as_str(), "it answered a notice strangely")),
        }
    }
}

/// A refusal keeps its code; what is known of the case travels as its text.
fn refusal(problem: &Problem) -> CentreAnswer {
    CentreAnswer::Refused(problem.code.number(), problem.said().chars().take(REFUSAL_CHARS_MAX).collect())
}

async fn send(writer: &mut FrameWriter, answer: CentreAnswer) -> Result<(), Problem> {
    match tokio::time::timeout(WRITE, writer.send(&Frame::CentreAnswer(answer))).await {
        Ok(sent) => sent,
        Err(_) => {
            Err(Problem::new(Code::PeerUnreachable).with("peer", "the node").cause("it does not read its answer"))
        }
    }
}

async fn within<T>(peer: &str, read: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    match tokio::time::timeout(READ, read).await {
        Ok(read) => read,
        Err(_) => Err(Problem::new(Code::PeerUnreachable).with("peer", peer).cause("it has said nothing for too long")),
    }
}

fn invalid(peer: &str, cause: &str) -> Problem {
    Problem::new(Code::FrameInvalid).with("peer", peer).cause(cause)
}

/// Channels of one node that are talked on at a time.
const CHANNELS_MAX: usize = 32;
/// Joining nodes at a time, how long each may take, and how many channels it may open.
const JOINING_MAX: usize = 64;
const JOIN_LIFE: Duration = Duration::from_secs(30);
const JOIN_CHANNELS_MAX: usize = 4;
const READ: Duration = Duration::from_secs(60);
const WRITE: Duration = Duration::from_secs(30);
const NOTICE: Duration = Duration::from_secs(10);
const REFUSAL_CHARS_MAX: usize = 2_000;
