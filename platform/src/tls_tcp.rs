//! TLS 1.3 over TCP, or over lines that relays carry, where UDP does not pass: one TLS connection for control, and one more for each
//! channel, bound to it by a random token, so that no multiplexer is needed. Only the dialler opens TCP:
//! where the accepting side wants a channel, it asks for it over the control connection.
//!
//! First bytes of the dialler on each TLS connection: `1` for control; `2`, token (16), number (4) for a
//! channel, where number 0 is of its own accord and any other answers that question. The accepting side
//! answers `1` with its welcome. Control then carries [`Word`]s both ways.

mod channel;
mod control;
mod way;

use self::channel::{Tls, buffered, channel};
use self::control::{Word, run};
use self::way::{Caller, Connected, To, Way};
use crate::endpoint::shared::{
    CHANNELS_MAX, HANDSHAKE, HANDSHAKES_MAX, Incoming, OPEN, Shared, TOKEN_BYTES, WELCOME_BYTES, called, closed_with,
    unreachable,
};
use crate::endpoint::{Channel, Connection, Dial, DialTrust, Lines, Relayed, Remote, Transport};
use crate::network::{BoxLine, TcpListen};
use posthouse_protocol::id::NodeId;
use posthouse_protocol::problem::{Code, Problem};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// The TCP half of an endpoint.
pub(crate) struct Tcp {
    shared: Arc<Shared>,
    local: Option<SocketAddr>,
    acceptor: Arc<Acceptor>,
}

impl Tcp {
    /// Dials, and accepts into `incoming` what relays bring, and what comes to `listener` where there is one, until
    /// `stop`.
    pub(crate) fn start(
        shared: Arc<Shared>,
        listener: Option<Box<dyn TcpListen>>,
        incoming: Incoming,
        stop: CancellationToken,
    ) -> Self {
        let local = listener.as_ref().and_then(|listener| listener.local_address().ok());
        let acceptor =
            Arc::new(Acceptor { shared: shared.clone(), incoming, known: Mutex::default(), busy: Mutex::default() });
        if let Some(listener) = listener {
            tokio::spawn(accept_all(acceptor.clone(), listener, stop));
        }
        Self { shared, local, acceptor }
    }

    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        self.local
    }

    pub(crate) async fn dial(&self, dial: &Dial<'_>, address: SocketAddr) -> Result<Arc<dyn Connection>, Problem> {
        let way = Way::Tcp(address);
        self.greet(To { peer: dial.peer.clone(), name: dial.address.to_owned(), way, trust: dial.trust.clone() }).await
    }

    pub(crate) async fn dial_through(
        &self,
        peer: &NodeId,
        lines: Arc<dyn Lines>,
    ) -> Result<Arc<dyn Connection>, Problem> {
        let way = Way::Relayed(lines);
        self.greet(To { peer: peer.clone(), name: String::new(), way, trust: DialTrust::Certified }).await
    }

    /// A line that a relay has brought.
    pub(crate) fn arrived(&self, line: BoxLine, relayed: Relayed) {
        let (acceptor, from) = (self.acceptor.clone(), Caller::from(relayed));
        tokio::spawn(acceptor.greet_in_time(line, from));
    }

    async fn greet(&self, to: To) -> Result<Arc<dyn Connection>, Problem> {
        let join = matches!(to.trust, DialTrust::Join { .. });
        let greeted = async {
            let Connected { mut stream, judge, certificate_sha256, took } = to.connect(&self.shared).await?;
            let failed = |e: io::Error| to.explain(&self.shared, &judge, e);
            stream.write_all(&[CONTROL]).await.map_err(failed)?;
            stream.flush().await.map_err(failed)?;
            let mut welcome = [0; WELCOME_BYTES];
            stream.read_exact(&mut welcome).await.map_err(failed)?;
            let token = self.shared.welcomed(&to.peer, &welcome)?;
            Ok::<_, Problem>((stream, certificate_sha256, token, took))
        };
        let late = || unreachable(&to.peer, &to.name).cause(format!("no answer from {} in time", to.way));
        let (stream, certificate_sha256, token, took) =
            tokio::time::timeout(to.patience(), greeted).await.map_err(|_| late())??;
        let remote = Remote::Certified { node: to.peer.clone(), certificate_sha256 };
        let from = to.caller();
        let (connection, words) = TcpConnection::new(self.shared.clone(), remote, Some(to), join, from, token);
        connection.start(stream, words);
        connection.note_round_trip(took);
        Ok(connection)
    }
}

/// What the tasks of a listener share.
struct Acceptor {
    shared: Arc<Shared>,
    incoming: Incoming,
    known: Mutex<BTreeMap<[u8; TOKEN_BYTES], Weak<TcpConnection>>>,
    /// Handshakes under way from each address.
    busy: Mutex<BTreeMap<IpAddr, usize>>,
}

/// Accepts until stopped. A peer has [`HANDSHAKE`] to say who it is and what it wants; whatever it sends
/// ends its own connection only.
async fn accept_all(acceptor: Arc<Acceptor>, listener: Box<dyn TcpListen>, stop: CancellationToken) {
    let room = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let accepted = async {
            let permit = room.clone().acquire_owned().await.ok()?;
            Some((permit, listener.accept().await))
        };
        let (permit, accepted) = tokio::select! { biased;
            () = stop.cancelled() => return,
            accepted = accepted => match accepted { Some(accepted) => accepted, None => return },
        };
        match accepted {
            Ok((line, from)) => {
                let Some(turn) = Turn::take(&acceptor, from) else {
                    acceptor.shared.refused(&from, None, &"too many handshakes from this address");
                    continue;
                };
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    acceptor.greet_in_time(line, from.into()).await;
                    drop((turn, permit));
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: others are still served, and it passes.
                tracing::warn!(%error, "Failed to accept TCP");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Acceptor {
    async fn greet_in_time(self: Arc<Self>, line: BoxLine, from: Caller) {
        if tokio::time::timeout(HANDSHAKE, self.greet(line, &from)).await.is_err() {
            self.shared.refused(&from, None, &"the handshake took too long");
        }
    }

    async fn greet(self: &Arc<Self>, line: BoxLine, from: &Caller) {
        let (tls, judge) = match self.shared.accept_tls() {
            Ok(tls) => tls,
            Err(problem) => return self.shared.refused(from, None, &problem),
        };
        let refused = |error: io::Error| self.shared.refused(from, Some(&judge), &error);
        let mut stream = match TlsAcceptor::from(tls).accept(buffered(line)).await {
            Ok(stream) => Tls::Server(stream),
            Err(error) => return refused(error),
        };
        let session = stream.get_ref().1;
        let remote = match self.shared.remote(session.alpn_protocol(), session.peer_certificates()) {
            Ok(remote) => remote,
            Err(problem) => return self.shared.refused(from, None, &problem),
        };
        match stream.read_u8().await {
            Ok(CONTROL) => self.control(stream, remote, from).await,
            Ok(CHANNEL) => {
                let mut token = [0; TOKEN_BYTES];
                let number = match stream.read_exact(&mut token).await {
                    Ok(_) => stream.read_u32().await,
                    Err(error) => Err(error),
                };
                match number {
                    Ok(number) => self.bind(stream, &remote, &token, number, from),
                    Err(error) => refused(error),
                }
            }
            Ok(other) => self.shared.refused(from, None, &format!("it began with {other}")),
            Err(error) => refused(error),
        }
    }

    async fn control(self: &Arc<Self>, mut stream: Tls, remote: Remote, from: &Caller) {
        let token: [u8; TOKEN_BYTES] = self.shared.world.random.bytes();
        let refused = |error: &dyn std::fmt::Display| self.shared.refused(from, None, error);
        let join = remote == Remote::Unknown;
        let (connection, words) = TcpConnection::new(self.shared.clone(), remote, None, join, from.clone(), token);
        {
            // Before the peer hears its token: its first channel may be here before the next line runs.
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.retain(|_, connection| connection.upgrade().is_some_and(|c| !c.is_closed()));
            known.insert(token, Arc::downgrade(&connection));
        }
        let sent = async {
            stream.write_all(&self.shared.welcome(&token)).await?;
            stream.flush().await
        };
        if let Err(error) = sent.await {
            return refused(&error);
        }
        connection.start(stream, words);
        let shown: Arc<dyn Connection> = connection.clone();
        if let Err(problem) = self.shared.admit(&shown) {
            connection.close(problem.code.number(), &problem.said());
            return refused(&problem);
        }
        if join {
            let (weak, life) = (Arc::downgrade(&connection), JOIN_LIFE);
            tokio::spawn(async move {
                tokio::time::sleep(life).await;
                if let Some(connection) = weak.upgrade() {
                    connection.close(Code::Busy.number(), "joining took too long");
                }
            });
        }
        if self.incoming.try_send(shown).is_err() {
            connection.close(Code::Busy.number(), "nobody takes connections here");
            refused(&"nobody takes connections here");
        }
    }

    /// Gives a channel to the connection whose token it carries, if it comes from the same peer.
    fn bind(&self, stream: Tls, remote: &Remote, token: &[u8; TOKEN_BYTES], number: u32, from: &Caller) {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(token).and_then(Weak::upgrade);
        let is_its =
            |c: &Arc<TcpConnection>| !c.is_closed() && same_peer(&c.remote, remote) && c.from.relayed == from.relayed;
        let Some(connection) = known.filter(is_its) else {
            return self.shared.refused(from, None, &"its channel belongs to no connection of its own");
        };
        if number != 0 {
            let asked = connection.asked.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
            match asked {
                // Whoever asked may have given up meanwhile; then the stream ends here.
                Some(asked) => drop(asked.send(stream)),
                None => self.shared.refused(from, None, &"it answers a question that was not asked"),
            }
        } else if let Err(problem) = connection.arrived(stream) {
            self.shared.refused(from, None, &problem);
        }
    }
}

/// A renewed certificate is still the same peer.
fn same_peer(a: &Remote, b: &Remote) -> bool {
    match (a, b) {
        (Remote::Certified { node: a, .. }, Remote::Certified { node: b, .. }) => a == b,
        (Remote::Unknown, Remote::Unknown) => true,
        _ => false,
    }
}

/// A place among the handshakes of one address (an IPv6 network of 64 bits counts as one).
struct Turn {
    acceptor: Arc<Acceptor>,
    address: IpAddr,
}

impl Turn {
    fn take(acceptor: &Arc<Acceptor>, from: SocketAddr) -> Option<Self> {
        let address = match from.ip().to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
            v4 => v4,
        };
        let mut busy = acceptor.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let count = busy.entry(address).or_default();
        if *count >= HANDSHAKES_PER_ADDRESS_MAX {
            return None;
        }
        *count += 1;
        Some(Self { acceptor: acceptor.clone(), address })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut busy = self.acceptor.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = busy.get_mut(&self.address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                busy.remove(&self.address);
            }
        }
    }
}

/// A stream that the other side opened, with its place among the open channels.
type Arrived = (Tls, OwnedSemaphorePermit);

pub(crate) struct TcpConnection {
    me: Weak<Self>,
    shared: Arc<Shared>,
    remote: Remote,
    /// Where to dial for a channel; None on the accepting side.
    to: Option<To>,
    join: bool,
    from: Caller,
    token: [u8; TOKEN_BYTES],
    closed: CancellationToken,
    words: mpsc::Sender<Word>,
    arrived: mpsc::Sender<Arrived>,
    arrivals: tokio::sync::Mutex<mpsc::Receiver<Arrived>>,
    asked: Mutex<BTreeMap<u32, oneshot::Sender<Tls>>>,
    next: AtomicU32,
    room: Arc<Semaphore>,
    rtt_us: AtomicU64,
    closing: AtomicBool,
    /// Why the peer closed it.
    told: Mutex<Option<(u16, String)>>,
}

impl TcpConnection {
    /// Channels can be bound to it from now on; what is to be said over control waits until [`start`](Self::start).
    fn new(
        shared: Arc<Shared>,
        remote: Remote,
        to: Option<To>,
        join: bool,
        from: Caller,
        token: [u8; TOKEN_BYTES],
    ) -> (Arc<Self>, mpsc::Receiver<Word>) {
        let (words, words_out) = mpsc::channel(WORDS_MAX);
        let (arrived, arrivals) = mpsc::channel(CHANNELS_MAX);
        let connection = Arc::new_cyclic(|me| Self {
            me: me.clone(),
            shared,
            remote,
            to,
            join,
            from,
            token,
            closed: CancellationToken::new(),
            words,
            arrived,
            arrivals: tokio::sync::Mutex::new(arrivals),
            asked: Mutex::default(),
            next: AtomicU32::new(1),
            room: Arc::new(Semaphore::new(CHANNELS_MAX)),
            rtt_us: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            told: Mutex::default(),
        });
        (connection, words_out)
    }

    /// Control begins to speak and to listen.
    fn start(&self, stream: Tls, words: mpsc::Receiver<Word>) {
        tokio::spawn(run(self.me.clone(), self.closed.clone(), stream, words));
    }

    fn note_round_trip(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.rtt_us.store(us.max(1), Ordering::Relaxed);
    }

    /// Makes a channel of a stream. Its place is free again when both its halves are gone; until then it
    /// keeps the connection.
    fn channel(&self, stream: Tls, permit: OwnedSemaphorePermit) -> Channel {
        channel(stream, &self.closed, (permit, self.me.upgrade()))
    }

    /// A stream that the other side opened.
    fn arrived(&self, stream: Tls) -> Result<(), Problem> {
        let permit = self.room.clone().try_acquire_owned().map_err(|_| self.lost(&"too many channels are open"))?;
        self.arrived.try_send((stream, permit)).map_err(|_| self.lost(&"too many channels wait to be accepted"))
    }

    /// The dialler's part of a channel.
    async fn dial_channel(&self, to: &To, number: u32) -> Result<Tls, Problem> {
        let opened = async {
            let Connected { mut stream, judge, .. } = to.connect(&self.shared).await?;
            let mut first = Vec::with_capacity(1 + TOKEN_BYTES + 4);
            first.push(CHANNEL);
            first.extend_from_slice(&self.token);
            first.extend_from_slice(&number.to_be_bytes());
            let failed = |e: io::Error| to.explain(&self.shared, &judge, e);
            stream.write_all(&first).await.map_err(failed)?;
            stream.flush().await.map_err(failed)?;
            Ok(stream)
        };
        match tokio::time::timeout(to.patience(), opened).await {
            Ok(result) => result,
            Err(_) => Err(self.lost(&"no channel could be opened in time")),
        }
    }

    /// Why nothing passes any more: in the peer's own words, if it left some.
    fn lost(&self, error: &dyn std::fmt::Display) -> Problem {
        match &*self.told.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((code, reason)) => closed_with(&called(self), u64::from(*code), reason),
            None => Problem::new(Code::PeerUnreachable).with("peer", called(self)).cause(error),
        }
    }

    async fn ask(&self) -> Result<Tls, Problem> {
        let number = self.next.fetch_add(1, Ordering::Relaxed).max(1);
        let (give, take) = oneshot::channel();
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).insert(number, give);
        // However this ends, also by being dropped, the question is not left behind.
        let _question = Question { connection: self, number };
        let answered = async {
            self.words.send(Word::Open(number)).await.map_err(|_| self.lost(&"it was closed"))?;
            take.await.map_err(|_| self.lost(&"it was closed"))
        };
        let result = tokio::time::timeout(OPEN, answered).await;
        result.unwrap_or_else(|_| Err(self.lost(&"it did not open a channel in time")))
    }
}

struct Question<'a> {
    connection: &'a TcpConnection,
    number: u32,
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        self.connection.asked.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

#[async_trait::async_trait]
impl Connection for TcpConnection {
    fn remote(&self) -> &Remote {
        &self.remote
    }
    fn transport(&self) -> Transport {
        Transport::Tcp
    }
    fn dialled(&self) -> bool {
        self.to.is_some()
    }
    fn join(&self) -> bool {
        self.join
    }
    async fn open(&self) -> Result<Channel, Problem> {
        let permit = match tokio::time::timeout(OPEN, self.room.clone().acquire_owned()).await {
            Ok(Ok(permit)) => permit,
            _ => return Err(self.lost(&"too many channels are open")),
        };
        let opened = async {
            match &self.to {
                Some(to) => self.dial_channel(to, 0).await,
                None => self.ask().await,
            }
        };
        tokio::select! { biased;
            () = self.closed.cancelled() => Err(self.lost(&"it was closed")),
            stream = opened => Ok(self.channel(stream?, permit)),
        }
    }
    async fn accept(&self) -> Option<Channel> {
        let mut arrivals = self.arrivals.lock().await;
        tokio::select! { biased;
            () = self.closed.cancelled() => None,
            arrived = arrivals.recv() => arrived.map(|(stream, permit)| self.channel(stream, permit)),
        }
    }
    fn close(&self, code: u16, reason: &str) {
        if !self.closing.swap(true, Ordering::Relaxed) {
            let reason: String = reason.chars().take(60).collect();
            // The word is sent if there is room for it; the connection ends either way.
            let _ = self.words.try_send(Word::Close(code, reason));
            self.closed.cancel();
        }
    }
    fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }
    async fn closed(&self) {
        self.closed.cancelled().await;
    }
    fn remote_address(&self) -> String {
        self.from.shown.clone()
    }
    fn relayed(&self) -> Option<&Relayed> {
        self.from.relayed.as_ref()
    }
    fn rtt_ms(&self) -> Option<f64> {
        match self.rtt_us.load(Ordering::Relaxed) {
            0 => None,
            us => Some(us as f64 / 1000.0),
        }
    }
    fn bytes_received(&self) -> Option<u64> {
        None
    }
}

impl Drop for TcpConnection {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

const CONTROL: u8 = 1;
const CHANNEL: u8 = 2;
const WORDS_MAX: usize = 64;
const HANDSHAKES_PER_ADDRESS_MAX: usize = 64;
const JOIN_LIFE: Duration = Duration::from_secs(60);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
