//! One endpoint over both transports: UDP and TCP on the same port number, and a dialler that races
//! them. QUIC has a head start; where UDP does not pass, TCP wins soon after it. Within a site TCP is taken
//! where it passes: it carries the same for a fraction of the processor's time, and what QUIC does better,
//! long lines that lose packets, is not there. For a while an address is then dialled over TCP at once.

use super::shared::{Shared, unreachable};
use super::{Connection, Dial, Endpoint, Lines, Listen, Relayed, TransportChoice};
use crate::World;
use crate::identity::Identity;
use crate::network::{BoxLine, TcpListen, within};
use crate::quic::Quic;
use crate::tls_tcp::Tcp;
use posthouse_protocol::id::NodeId;
use posthouse_protocol::problem::{Code, Problem};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub(super) async fn bind(
    world: World,
    identity: Option<Arc<Identity>>,
    listen: Listen,
) -> Result<Arc<dyn Endpoint>, Problem> {
    if identity.is_none() && listen.address.is_some() {
        return Err(crate::identity::inside("listen", &"an endpoint without an identity only dials"));
    }
    let shared = Shared::new(world.clone(), identity, listen.join);
    let (sender, incoming) = mpsc::channel(INCOMING_MAX);
    let (udp, tcp) = match &listen.address {
        Some(address) => {
            let wanted = address_of(&world, address).await.map_err(|e| refused(address, &e))?;
            sockets(&world, wanted, listen.choice).await.map_err(|e| refused(address, &e))?
        }
        None if listen.choice == TransportChoice::Tcp => (None, None),
        None => {
            let any = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);
            let socket = match world.network.bind_udp(any).await {
                Ok(socket) => socket,
                Err(_) => {
                    let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
                    world.network.bind_udp(any).await.map_err(|e| refused("0.0.0.0:0", &e))?
                }
            };
            (Some(socket), None)
        }
    };
    let closed = CancellationToken::new();
    let listens = listen.address.is_some();
    let quic = match udp {
        Some(socket) => Some(Quic::start(shared.clone(), socket, listens.then(|| sender.clone()), closed.clone())?),
        None => None,
    };
    let tcp = Tcp::start(shared.clone(), tcp, sender, closed.clone());
    let local = tcp.local_address().or_else(|| quic.as_ref().filter(|_| listens).and_then(Quic::local_address));
    Ok(Arc::new(Both {
        shared,
        quic,
        tcp,
        choice: listen.choice,
        local,
        incoming: tokio::sync::Mutex::new(incoming),
        closed,
        tcp_first: Mutex::default(),
    }))
}

struct Both {
    shared: Arc<Shared>,
    quic: Option<Quic>,
    tcp: Tcp,
    choice: TransportChoice,
    local: Option<SocketAddr>,
    incoming: tokio::sync::Mutex<mpsc::Receiver<Arc<dyn Connection>>>,
    closed: CancellationToken,
    /// Addresses where TCP won against QUIC, until when (monotonic) QUIC is not tried first.
    tcp_first: Mutex<BTreeMap<String, Duration>>,
}

#[async_trait::async_trait]
impl Endpoint for Both {
    async fn accept(&self) -> Option<Arc<dyn Connection>> {
        let mut incoming = self.incoming.lock().await;
        tokio::select! { biased;
            () = self.closed.cancelled() => None,
            connection = incoming.recv() => match connection {
                Some(connection) => Some(connection),
                // Nothing will come before the end.
                None => { self.closed.cancelled().await; None }
            },
        }
    }

    async fn dial(&self, dial: Dial<'_>) -> Result<Arc<dyn Connection>, Problem> {
        if self.closed.is_cancelled() {
            return Err(unreachable(dial.peer, dial.address).cause("this endpoint is closed"));
        }
        if self.shared.denied.contains(dial.peer) {
            return Err(Problem::new(Code::NodeRevoked).with("node", dial.peer));
        }
        let resolved = within(RESOLVE, self.shared.world.network.resolve(dial.address)).await;
        let addresses = resolved.map_err(|e| unreachable(dial.peer, dial.address).cause(e))?;
        let choice = match (dial.choice, self.choice) {
            (TransportChoice::Auto, own) => own,
            (asked, _) => asked,
        };
        let connection = match choice {
            TransportChoice::Quic => self.quic(&dial, &addresses).await?,
            TransportChoice::Tcp => self.tcp(&dial, &addresses).await?,
            TransportChoice::Auto => self.race(&dial, &addresses).await?,
        };
        self.shared.note(&connection);
        Ok(connection)
    }

    async fn dial_through(&self, peer: &NodeId, lines: Arc<dyn Lines>) -> Result<Arc<dyn Connection>, Problem> {
        if self.closed.is_cancelled() {
            return Err(unreachable(peer, "").cause("this endpoint is closed"));
        }
        if self.shared.denied.contains(peer) {
            return Err(Problem::new(Code::NodeRevoked).with("node", peer));
        }
        let connection = self.tcp.dial_through(peer, lines).await?;
        self.shared.note(&connection);
        Ok(connection)
    }
    fn arrived(&self, line: BoxLine, relayed: Relayed) {
        if !self.closed.is_cancelled() {
            self.tcp.arrived(line, relayed);
        }
    }

    fn set_identity(&self, identity: Arc<Identity>) {
        self.shared.set_identity(identity);
    }
    fn set_denied(&self, denied: Vec<NodeId>) {
        self.shared.deny(denied);
    }
    fn local_address(&self) -> Option<SocketAddr> {
        self.local
    }
    fn refused(&self) -> u64 {
        self.shared.refused_count()
    }
    async fn close(&self) {
        self.closed.cancel();
        self.shared.close_all();
        if let Some(quic) = &self.quic {
            quic.close().await;
        }
    }
}

impl Drop for Both {
    fn drop(&mut self) {
        // Listeners end; connections that others hold go on until they are dropped.
        self.closed.cancel();
    }
}

impl Both {
    async fn quic(&self, dial: &Dial<'_>, addresses: &[SocketAddr]) -> Result<Arc<dyn Connection>, Problem> {
        let Some(quic) = &self.quic else {
            return Err(unreachable(dial.peer, dial.address).cause("this node speaks TCP only"));
        };
        let mut last = unreachable(dial.peer, dial.address).cause("it has no address of a family that is in use here");
        for address in addresses.iter().filter(|address| quic.speaks_to(**address)) {
            match quic.dial(dial, *address).await {
                Ok(connection) => return Ok(connection),
                Err(problem) if settles(&problem) => return Err(problem),
                Err(problem) => last = problem,
            }
        }
        Err(last)
    }

    async fn tcp(&self, dial: &Dial<'_>, addresses: &[SocketAddr]) -> Result<Arc<dyn Connection>, Problem> {
        let mut last = unreachable(dial.peer, dial.address);
        for address in addresses {
            match self.tcp.dial(dial, *address).await {
                Ok(connection) => return Ok(connection),
                Err(problem) if settles(&problem) => return Err(problem),
                Err(problem) => last = problem,
            }
        }
        Err(last)
    }

    /// TCP in place of a connection over QUIC that stays within the site. How near the peer is, is told by the systems
    /// of both sides, which set up a TCP connection by themselves: a handshake takes longer where a processor is busy.
    async fn nearer(
        &self,
        dial: &Dial<'_>,
        addresses: &[SocketAddr],
        quic: Arc<dyn Connection>,
    ) -> Arc<dyn Connection> {
        if quic.rtt_ms().is_none_or(|rtt_ms| rtt_ms >= MAYBE_NEAR_MS) {
            return quic;
        }
        match tokio::time::timeout(HEAD_START, self.tcp(dial, addresses)).await {
            Ok(Ok(tcp)) if tcp.rtt_ms().is_some_and(|rtt_ms| rtt_ms < NEAR_MS) => {
                quic.close(0, "TCP is taken within a site");
                self.remember(dial.address);
                tcp
            }
            Ok(Ok(tcp)) => {
                tcp.close(0, "QUIC is taken over a long line");
                quic
            }
            _ => quic,
        }
    }

    async fn race(&self, dial: &Dial<'_>, addresses: &[SocketAddr]) -> Result<Arc<dyn Connection>, Problem> {
        if self.is_tcp_first(dial.address) {
            return match self.tcp(dial, addresses).await {
                Err(problem) if !settles(&problem) => self.quic(dial, addresses).await.map_err(|_| problem),
                result => result,
            };
        }
        let mut quic = Box::pin(self.quic(dial, addresses));
        match tokio::time::timeout(HEAD_START, &mut quic).await {
            Ok(Ok(connection)) => return Ok(self.nearer(dial, addresses, connection).await),
            Ok(Err(problem)) if settles(&problem) => return Err(problem),
            Ok(Err(over_quic)) => {
                let connection = self.tcp(dial, addresses).await.map_err(|p| more_telling(over_quic, p))?;
                self.remember(dial.address);
                return Ok(connection);
            }
            Err(_) => {}
        }
        let mut tcp = Box::pin(self.tcp(dial, addresses));
        tokio::select! { biased;
            result = &mut quic => match result {
                Ok(connection) => Ok(connection),
                Err(problem) if settles(&problem) => Err(problem),
                Err(problem) => {
                    let connection = tcp.await.map_err(|p| more_telling(problem, p))?;
                    self.remember(dial.address);
                    Ok(connection)
                }
            },
            result = &mut tcp => match result {
                Ok(connection) => {
                    self.remember(dial.address);
                    Ok(connection)
                }
                Err(problem) if settles(&problem) => Err(problem),
                Err(problem) => quic.await.map_err(|p| more_telling(p, problem)),
            },
        }
    }

    fn is_tcp_first(&self, address: &str) -> bool {
        let now = self.shared.world.clock.monotonic();
        let mut first = self.tcp_first.lock().unwrap_or_else(PoisonError::into_inner);
        first.retain(|_, until| *until > now);
        first.contains_key(address)
    }

    fn remember(&self, address: &str) {
        let until = self.shared.world.clock.monotonic() + TCP_FIRST;
        self.tcp_first.lock().unwrap_or_else(PoisonError::into_inner).insert(address.to_owned(), until);
    }
}

/// Whether another transport or address would only hear the same: the peer answered, and the answer is no.
fn settles(problem: &Problem) -> bool {
    !matches!(problem.code, Code::PeerUnreachable)
}

/// Both failed: over TCP the system names what it saw, over UDP there is mostly silence.
fn more_telling(over_quic: Problem, over_tcp: Problem) -> Problem {
    if settles(&over_quic) { over_quic } else { over_tcp }
}

fn refused(address: &str, error: &io::Error) -> Problem {
    Problem::new(Code::ListenFailed).with("address", address).cause(error)
}

async fn address_of(world: &World, text: &str) -> io::Result<SocketAddr> {
    match text.parse() {
        Ok(address) => Ok(address),
        Err(_) => {
            let found = within(RESOLVE, world.network.resolve(text)).await?;
            found.into_iter().next().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"))
        }
    }
}

type Sockets = (Option<Arc<dyn quinn::AsyncUdpSocket>>, Option<Box<dyn TcpListen>>);

/// `[::]` becomes `0.0.0.0` where IPv6 is off.
async fn sockets(world: &World, wanted: SocketAddr, choice: TransportChoice) -> io::Result<Sockets> {
    match same_port(world, wanted, choice).await {
        Err(error) if wanted.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && no_ipv6(&error) => {
            same_port(world, SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), wanted.port()), choice).await
        }
        result => result,
    }
}

fn no_ipv6(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::AddrNotAvailable)
        || error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error())
}

/// UDP and TCP under one number. Where the system chooses it, TCP's choice may be taken for UDP: then another.
async fn same_port(world: &World, wanted: SocketAddr, choice: TransportChoice) -> io::Result<Sockets> {
    if choice == TransportChoice::Quic {
        return Ok((Some(world.network.bind_udp(wanted).await?), None));
    }
    let mut tries = 0;
    loop {
        let tcp = world.network.bind_tcp(wanted).await?;
        if choice == TransportChoice::Tcp {
            return Ok((None, Some(tcp)));
        }
        tries += 1;
        match world.network.bind_udp(tcp.local_address()?).await {
            Ok(udp) => return Ok((Some(udp), Some(tcp))),
            Err(_) if wanted.port() == 0 && tries < PORT_TRIES => {}
            Err(error) => return Err(error),
        }
    }
}

/// Connections accepted but not yet taken.
const INCOMING_MAX: usize = 64;
const HEAD_START: Duration = Duration::from_millis(300);
/// How long TCP alone is tried where it won.
const TCP_FIRST: Duration = Duration::from_secs(120);
/// A round trip that stays within a site takes less.
const NEAR_MS: f64 = 2.0;
/// As QUIC sees it at first, with the peer's work on the handshake in it.
const MAYBE_NEAR_MS: f64 = 20.0;
const RESOLVE: Duration = Duration::from_secs(5);
const PORT_TRIES: u32 = 16;
