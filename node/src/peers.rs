//! Connections to other nodes: at most four per pair, dialled at the addresses of the policy, or opened by
//! the peer, or by the peer because the centre asked it to. Whoever dialled, channels are opened both ways.
//! On simultaneous dials the connection that the smaller name dialled is kept. A line over which nothing comes, or
//! next to nothing, is replaced ([`replacing`]).
//! What is said on a connection is elsewhere; every new one is handed to the daemon, which serves it.

mod replacing;

use crate::authority::Authority;
use posthouse_platform::World;
use posthouse_platform::endpoint::{
    Connection, Dial, DialTrust, Endpoint, Lines, Relayed, Remote, Transport, TransportChoice,
};
use posthouse_platform::network::BoxLine;
use posthouse_protocol::id::NodeId;
use posthouse_protocol::limits;
use posthouse_protocol::problem::{Code, Problem};
pub use replacing::Worn;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Asks a peer, by way of the centre, to dial this node.
#[async_trait::async_trait]
pub trait AskDial: Send + Sync {
    async fn ask_dial(&self, peer: &NodeId) -> Result<(), Problem>;
}

pub struct Pool {
    name: NodeId,
    world: World,
    endpoint: Arc<dyn Endpoint>,
    authority: Arc<Authority>,
    choice: TransportChoice,
    centre: Arc<dyn AskDial>,
    open: Mutex<BTreeMap<NodeId, Vec<Arc<dyn Connection>>>>,
    /// Transports over which a peer was reached when the other fell silent, until when (monotonic).
    favoured: Mutex<BTreeMap<NodeId, (Transport, Duration)>>,
    /// One dial per peer at a time; the others wait for its outcome.
    dialling: Mutex<BTreeMap<NodeId, Arc<tokio::sync::Mutex<()>>>>,
    /// Rises with every connection added.
    arrivals: watch::Sender<u64>,
    serve: mpsc::UnboundedSender<(NodeId, Arc<dyn Connection>)>,
}

/// Each connection of a pool once, to be served.
pub type Served = mpsc::UnboundedReceiver<(NodeId, Arc<dyn Connection>)>;

/// What a pool works with.
pub struct Parts {
    pub name: NodeId,
    pub world: World,
    pub endpoint: Arc<dyn Endpoint>,
    pub authority: Arc<Authority>,
    pub choice: TransportChoice,
    pub centre: Arc<dyn AskDial>,
}

impl Pool {
    pub fn new(parts: Parts) -> (Arc<Self>, Served) {
        let Parts { name, world, endpoint, authority, choice, centre } = parts;
        let (serve, served) = mpsc::unbounded_channel();
        let pool = Self {
            name,
            world,
            endpoint,
            authority,
            choice,
            centre,
            open: Mutex::default(),
            favoured: Mutex::default(),
            dialling: Mutex::default(),
            arrivals: watch::Sender::new(0),
            serve,
        };
        (Arc::new(pool), served)
    }

    /// A connection to `peer`: an open one, or one dialled now, or one that the peer dials because it was asked.
    pub async fn connection(&self, peer: &NodeId) -> Result<Arc<dyn Connection>, Problem> {
        let addresses: Vec<String> =
            self.authority.peer(peer)?.addresses.into_iter().map(|(_, address)| address).collect();
        if let Some(open) = self.existing(peer) {
            return Ok(open);
        }
        let gate = self.locked(&self.dialling).entry(peer.clone()).or_default().clone();
        let _alone = gate.lock().await;
        if let Some(open) = self.existing(peer) {
            return Ok(open);
        }
        let mut causes = Vec::new();
        for address in &addresses {
            match self.dial(peer, address).await {
                Ok(connection) => return Ok(connection),
                // A refusal by identity or policy is the true reason; another address would not change it.
                Err(problem) if problem.code.text().exit == posthouse_protocol::problem::Exit::NotPermitted => {
                    return Err(problem);
                }
                Err(problem) => causes.push(format!("{address}: {}", reason(&problem))),
            }
            if let Some(open) = self.existing(peer) {
                return Ok(open);
            }
        }
        if addresses.is_empty() {
            causes.push("it has no address to dial".to_owned());
        }
        let mut arrivals = self.arrivals.subscribe();
        match self.centre.ask_dial(peer).await {
            Ok(()) => {
                let arrived = async {
                    loop {
                        if let Some(open) = self.existing(peer) {
                            return Some(open);
                        }
                        if arrivals.changed().await.is_err() {
                            return None;
                        }
                    }
                };
                match tokio::time::timeout(ASKED_WAIT, arrived).await {
                    Ok(Some(open)) => return Ok(open),
                    _ => causes.push("asked through the centre, it did not dial".to_owned()),
                }
            }
            Err(problem) => causes.push(format!("the centre cannot ask it to dial: {}", reason(&problem))),
        }
        Err(Problem::new(Code::PeerUnreachable).with("peer", peer).cause(causes.join("; ")))
    }

    /// A connection of its own to a peer, by lines that relays carry.
    pub async fn through(&self, peer: &NodeId, lines: Arc<dyn Lines>) -> Result<Arc<dyn Connection>, Problem> {
        self.authority.peer(peer)?;
        self.endpoint.dial_through(peer, lines).await
    }

    /// Takes a line that a relay has brought; the connection that it belongs to arrives as one that a peer dialled.
    pub fn arrived(&self, line: BoxLine, relayed: Relayed) {
        self.endpoint.arrived(line, relayed);
    }

    /// Reaches a peer over this transport for a while, where it can.
    pub fn favour(&self, peer: &NodeId, transport: Transport) {
        let until = self.world.clock.monotonic() + FAVOURED;
        self.locked(&self.favoured).insert(peer.clone(), (transport, until));
    }

    fn favoured(&self, peer: &NodeId) -> Option<Transport> {
        let now = self.world.clock.monotonic();
        let mut favoured = self.locked(&self.favoured);
        favoured.retain(|_, (_, until)| *until > now);
        favoured.get(peer).map(|(transport, _)| *transport)
    }

    /// Dials a peer at the addresses that the centre names, because the peer asked for it.
    pub async fn dial_back(&self, peer: &NodeId, addresses: &[String]) -> Result<(), Problem> {
        self.authority.peer(peer)?;
        if self.existing(peer).is_some() {
            return Ok(());
        }
        let mut last = Problem::new(Code::PeerUnreachable).with("peer", peer).cause("it has no address to dial");
        for address in addresses {
            match self.dial(peer, address).await {
                Ok(_) => return Ok(()),
                Err(problem) => last = problem,
            }
        }
        Err(last)
    }

    /// Takes a connection that a peer dialled. Peers without any grant either way are turned away.
    pub fn accepted(&self, connection: Arc<dyn Connection>) {
        let Remote::Certified { node, .. } = connection.remote() else {
            connection.close(Code::Unauthenticated.number(), "no certificate");
            return;
        };
        let node = node.clone();
        if let Err(problem) = self.authority.peer(&node) {
            tracing::info!(peer = %node, %problem, "Turned a connection away");
            connection.close(problem.code.number(), &problem.to_string());
            return;
        }
        if !self.add(&node, connection.clone()) {
            connection.close(Code::Busy.number(), "this pair holds its connections already");
        }
    }

    /// An open connection to `peer` that no relay carries, if there is one: over the transport that is favoured, and that of the smaller
    /// name's dial, before others.
    pub fn existing(&self, peer: &NodeId) -> Option<Arc<dyn Connection>> {
        let (favoured, ours_first) = (self.favoured(peer), self.name < *peer);
        let rank = |connection: &&Arc<dyn Connection>| {
            (favoured == Some(connection.transport()), connection.dialled() == ours_first)
        };
        let mut open = self.locked(&self.open);
        let list = open.get_mut(peer)?;
        list.retain(|connection| !connection.is_closed());
        list.iter().filter(|connection| connection.relayed().is_none()).max_by_key(rank).cloned()
    }

    /// Closes what is open to peers that the policy no longer knows, or to all where this node is barred.
    pub fn enforce(&self) {
        let (denied, barred) = (self.authority.denied(), self.authority.barred());
        let mut open = self.locked(&self.open);
        for (peer, list) in open.iter_mut() {
            let code = match barred {
                Some(code) => code,
                None if denied.contains(peer) => Code::NodeRevoked,
                None => continue,
            };
            for connection in list.drain(..) {
                connection.close(code.number(), &Problem::new(code).with("node", peer).to_string());
            }
        }
        drop(open);
        self.endpoint.set_denied(denied);
    }

    /// Peers with an open connection.
    pub fn connected(&self) -> Vec<NodeId> {
        let mut open = self.locked(&self.open);
        open.values_mut().for_each(|list| list.retain(|connection| !connection.is_closed()));
        open.iter().filter(|(_, list)| !list.is_empty()).map(|(peer, _)| peer.clone()).collect()
    }

    pub fn close_all(&self) {
        for (_, list) in std::mem::take(&mut *self.locked(&self.open)) {
            for connection in list {
                connection.close(0, "the node stops");
            }
        }
    }

    async fn dial(&self, peer: &NodeId, address: &str) -> Result<Arc<dyn Connection>, Problem> {
        let started = self.world.clock.monotonic();
        let dial = |choice| self.endpoint.dial(Dial { peer, address, choice, trust: DialTrust::Certified });
        let favoured = self.favoured(peer).filter(|_| self.choice == TransportChoice::Auto);
        let connection = match favoured {
            None => dial(self.choice).await?,
            Some(transport) => match dial(transport.into()).await {
                // What made it the better one may have passed.
                Err(problem) if problem.code == Code::PeerUnreachable => dial(self.choice).await?,
                dialled => dialled?,
            },
        };
        let took_ms =
            u64::try_from(self.world.clock.monotonic().saturating_sub(started).as_millis()).unwrap_or(u64::MAX);
        // The peer dialled meanwhile and has the smaller name: its connection is the one both keep.
        if *peer < self.name
            && let Some(theirs) = self.existing(peer)
            // Within a site a dial over QUIC gives way to one over TCP by itself.
            && theirs.transport() == connection.transport()
        {
            connection.close(0, "the other dial is kept");
            return Ok(theirs);
        }
        tracing::info!(%peer, address, transport = ?connection.transport(), took_ms, "Connected to peer");
        self.add(peer, connection.clone());
        Ok(connection)
    }

    fn add(&self, peer: &NodeId, connection: Arc<dyn Connection>) -> bool {
        let mut open = self.locked(&self.open);
        let list = open.entry(peer.clone()).or_default();
        list.retain(|connection| !connection.is_closed());
        // Through relays each transfer has one of its own, and the endpoint bounds them.
        let is_direct = |connection: &Arc<dyn Connection>| connection.relayed().is_none();
        let direct = list.iter().filter(|known| is_direct(known)).count();
        if is_direct(&connection) && direct >= limits::CONNECTIONS_PER_PEER_MAX {
            return false;
        }
        list.push(connection.clone());
        drop(open);
        // Fails only when the daemon has gone; then nobody serves it, and it closes with the endpoint.
        let _ = self.serve.send((peer.clone(), connection));
        self.arrivals.send_modify(|count| *count += 1);
        true
    }

    fn locked<'m, T>(&self, mutex: &'m Mutex<T>) -> MutexGuard<'m, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn reason(problem: &Problem) -> String {
    if problem.cause.is_empty() { problem.to_string() } else { problem.cause.clone() }
}

/// Lines are raced again after so long.
const FAVOURED: Duration = Duration::from_secs(600);
/// How long a peer that was asked to dial may take.
const ASKED_WAIT: Duration = Duration::from_secs(10);
