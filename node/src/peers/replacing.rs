//! Puts another line in the place of one over QUIC that is of no use. Where UDP alone passes no more, that is one over
//! TCP, which is then favoured for a while. Where TCP is not answered either, all of the way is cut: both are dialled again
//! and again, until one stands or the old line is heard of. A packet that sets up a connection and is lost is sent again by
//! the system after a second, then two, then four, and QUIC's own probes come twice as late each time: a line that is back
//! would stay unused for as long.

use super::Pool;
use posthouse_platform::endpoint::{Connection, Dial, DialTrust, Endpoint, Transport, TransportChoice};
use posthouse_protocol::id::NodeId;
use posthouse_protocol::limits;
use posthouse_protocol::problem::{Code, Problem};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Why a line is to be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Worn {
    /// So many bytes have come over it and no more do, though the peer was asked for a sign of life.
    Silent { received: u64 },
    /// It carries a small part of what it has carried.
    Slow,
}

/// What came of looking for a line in place of a silent one.
enum Found {
    /// `is_cut`: over TCP there was no answer for so long that UDP alone is not at fault.
    Line { line: Arc<dyn Connection>, is_cut: bool },
    /// The old one has ended meanwhile.
    Ended,
    /// Something has come over the old one.
    Alive,
}

impl Pool {
    /// The old line is then closed, for whoever else used it. Whether it is gone: where something has come over a silent
    /// one meanwhile it stays. A silent one is replaced whenever its peer is reached again, or ends by its own limit.
    pub async fn replace(&self, peer: &NodeId, old: &Arc<dyn Connection>, worn: Worn) -> Result<bool, Problem> {
        if self.choice != TransportChoice::Auto {
            let cause = "`transport` allows no other";
            return Err(Problem::new(Code::PeerUnreachable).with("peer", peer).cause(cause));
        }
        let addresses: Vec<String> =
            self.authority.peer(peer)?.addresses.into_iter().map(|(_, address)| address).collect();
        let gate = self.locked(&self.dialling).entry(peer.clone()).or_default().clone();
        let _alone = gate.lock().await;
        if old.is_closed() {
            // Somebody else has replaced it.
            return Ok(true);
        }
        let found = match worn {
            Worn::Slow => Found::Line { line: self.over_tcp(peer, &addresses).await?, is_cut: false },
            Worn::Silent { received } => self.whenever_reached(peer, &addresses, old, received).await?,
        };
        let (line, is_cut) = match found {
            Found::Line { line, is_cut } => (line, is_cut),
            Found::Ended => return Ok(true),
            Found::Alive => return Ok(false),
        };
        let transport = line.transport();
        tracing::info!(%peer, ?worn, is_cut, ?transport, "A line over QUIC carries too little; another takes its place");
        if transport == Transport::Tcp && !is_cut {
            self.favour(peer, transport);
        }
        old.close(Code::PeerUnreachable.number(), "it carries too little");
        if !self.add(peer, line.clone()) {
            line.close(Code::Busy.number(), "this pair holds its connections already");
        }
        Ok(true)
    }

    async fn over_tcp(&self, peer: &NodeId, addresses: &[String]) -> Result<Arc<dyn Connection>, Problem> {
        let mut last = nowhere(peer);
        for address in addresses {
            match dial(&*self.endpoint, peer, address, TransportChoice::Tcp).await {
                Ok(line) => return Ok(line),
                Err(problem) => last = problem,
            }
        }
        Err(last)
    }

    async fn whenever_reached(
        &self,
        peer: &NodeId,
        addresses: &[String],
        old: &Arc<dyn Connection>,
        received: u64,
    ) -> Result<Found, Problem> {
        if addresses.is_empty() {
            return Err(nowhere(peer));
        }
        // As long as a few round trips of this line, of which a handshake takes three or so.
        let round_trips = Duration::from_secs_f64(old.rtt_ms().unwrap_or(0.0).clamp(0.0, 60_000.0) / 1_000.0 * 8.0);
        let life = round_trips.clamp(LIFE_MIN, Duration::from_millis(limits::HANDSHAKE_MS));
        let mut dials: JoinSet<Result<Arc<dyn Connection>, Problem>> = JoinSet::new();
        let mut beats = tokio::time::interval(OFTEN);
        beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut alone = TCP_ALONE;
        loop {
            tokio::select! { biased;
                Some(dialled) = dials.join_next() => match dialled {
                    Ok(Ok(line)) if !old.is_closed() && old.bytes_received() != Some(received) => {
                        line.close(0, "the other line is alive");
                        return Ok(Found::Alive);
                    }
                    Ok(Ok(line)) => return Ok(Found::Line { line, is_cut: alone == 0 }),
                    Ok(Err(problem)) if problem.code != Code::PeerUnreachable => return Err(problem),
                    Ok(Err(problem)) => tracing::debug!(%peer, %problem, "No line in place of a silent one"),
                    Err(panicked) => return Err(Problem::new(Code::InsideFailed).cause(panicked)),
                },
                _ = beats.tick() => {
                    if old.is_closed() {
                        return Ok(Found::Ended);
                    }
                    if old.bytes_received() != Some(received) {
                        return Ok(Found::Alive);
                    }
                    let (both, room) = (alone == 0, DIALS_MAX.saturating_sub(dials.len()));
                    for address in addresses.iter().take(room) {
                        let (endpoint, peer, address) = (self.endpoint.clone(), peer.clone(), address.clone());
                        dials.spawn(async move { either(&*endpoint, &peer, &address, both, life).await });
                    }
                    alone = alone.saturating_sub(1);
                }
            }
        }
    }
}

/// Over TCP, or over whichever transport is there first, QUIC with a head start.
async fn either(
    endpoint: &dyn Endpoint,
    peer: &NodeId,
    address: &str,
    both: bool,
    life: Duration,
) -> Result<Arc<dyn Connection>, Problem> {
    let late =
        |_| Problem::new(Code::PeerUnreachable).with("peer", peer).cause(format!("no answer from {address} in time"));
    let over = async |choice| match tokio::time::timeout(life, dial(endpoint, peer, address, choice)).await {
        Ok(dialled) => dialled,
        Err(elapsed) => Err(late(elapsed)),
    };
    if !both {
        return over(TransportChoice::Tcp).await;
    }
    let tcp = async {
        tokio::time::sleep(HEAD_START).await;
        over(TransportChoice::Tcp).await
    };
    let (quic, tcp) = (over(TransportChoice::Quic), tcp);
    tokio::pin!(quic, tcp);
    tokio::select! { biased;
        dialled = &mut quic => match dialled {
            Err(problem) if problem.code == Code::PeerUnreachable => tcp.await,
            dialled => dialled,
        },
        dialled = &mut tcp => match dialled {
            Err(problem) if problem.code == Code::PeerUnreachable => quic.await,
            dialled => dialled,
        },
    }
}

async fn dial(
    endpoint: &dyn Endpoint,
    peer: &NodeId,
    address: &str,
    choice: TransportChoice,
) -> Result<Arc<dyn Connection>, Problem> {
    endpoint.dial(Dial { peer, address, choice, trust: DialTrust::Certified }).await
}

fn nowhere(peer: &NodeId) -> Problem {
    Problem::new(Code::PeerUnreachable).with("peer", peer).cause("it has no address to dial")
}

const OFTEN: Duration = Duration::from_millis(500);
/// So many times TCP alone is dialled, 3 s. Beyond that UDP is not what is at fault.
const TCP_ALONE: u32 = 6;
/// As at the beginning of a line.
const HEAD_START: Duration = Duration::from_millis(300);
/// How long a dial waits at least; it is begun again long before.
const LIFE_MIN: Duration = Duration::from_secs(2);
/// Dials under way at once: each may hold a thread that looks its address up.
const DIALS_MAX: usize = 12;
