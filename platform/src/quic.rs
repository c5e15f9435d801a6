//! QUIC (quinn): one connection, a channel is a bidirectional stream.
//! After the handshake the accepting side sends its welcome on a unidirectional stream; only then is a
//! dial done, for TLS 1.3 tells a client that its certificate was refused only after its own last word.
//! Every bound that quinn leaves open is set here.

use crate::congestion::Congestion;
use crate::endpoint::shared::{
    CHANNELS_MAX, HANDSHAKE, HANDSHAKES_MAX, IDLE, Incoming, KEEP_ALIVE, OPEN, Shared, TOKEN_BYTES, WELCOME_BYTES,
    called, closed_with, unreachable,
};
use crate::endpoint::{Channel, Connection, Dial, DialTrust, Remote, Transport, WriteBytes};
use crate::identity::inside;
use crate::identity::verify::Judge;
use crate::paced::{PacedSocket, Rate};
use crate::random::Random;
use aws_lc_rs::hmac;
use bytes::Bytes;
use posthouse_protocol::limits;
use posthouse_protocol::problem::{Code, Problem};
use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use quinn::{ConnectionError, VarInt};
use rustls_pki_types::CertificateDer;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::AsyncWrite;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The QUIC half of an endpoint.
pub(crate) struct Quic {
    endpoint: quinn::Endpoint,
    shared: Arc<Shared>,
    socket: Arc<PacedSocket>,
    ipv6: bool,
}

impl Quic {
    /// Takes over a bound socket; accepts into `incoming` if that is given, until `stop`.
    pub(crate) fn start(
        shared: Arc<Shared>,
        socket: Arc<dyn quinn::AsyncUdpSocket>,
        incoming: Option<Incoming>,
        stop: CancellationToken,
    ) -> Result<Self, Problem> {
        let ipv6 = socket.local_addr().is_ok_and(|address| address.is_ipv6());
        let socket = PacedSocket::new(socket);
        let config = endpoint_config(&shared);
        let base = match incoming {
            Some(_) => Some(server(&shared)?),
            None => None,
        };
        let endpoint = quinn::Endpoint::new_with_abstract_socket(
            config,
            base.clone(),
            socket.clone(),
            shared.world.network.quic_runtime(),
        )
        .map_err(|e| inside("start QUIC", &e))?;
        if let (Some(incoming), Some(base)) = (incoming, base) {
            tokio::spawn(accept_all(endpoint.clone(), shared.clone(), socket.clone(), base, incoming, stop));
        }
        Ok(Self { endpoint, shared, socket, ipv6 })
    }

    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        self.endpoint.local_addr().ok()
    }

    pub(crate) fn speaks_to(&self, address: SocketAddr) -> bool {
        self.ipv6 || address.is_ipv4()
    }

    pub(crate) async fn dial(&self, dial: &Dial<'_>, address: SocketAddr) -> Result<Arc<dyn Connection>, Problem> {
        let (tls, judge) = self.shared.dial_tls(dial.peer, &dial.trust)?;
        let crypto = QuicClientConfig::try_from(tls).map_err(|e| inside("configure QUIC", &e))?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(transport(self.shared.join, self.socket.rate(address)));
        let failed = |error: ConnectionError| self.explain(dial, &judge, error);
        let connecting = self
            .endpoint
            .connect_with(config, address, dial.peer.as_str())
            .map_err(|e| unreachable(dial.peer, dial.address).cause(e))?;
        let late = || unreachable(dial.peer, dial.address).cause(format!("no answer from UDP {address} in time"));
        let greeted = async {
            let connection = connecting.await.map_err(failed)?;
            let mut stream = connection.accept_uni().await.map_err(failed)?;
            let mut welcome = [0; WELCOME_BYTES];
            match stream.read_exact(&mut welcome).await {
                Ok(()) => Ok((connection, welcome)),
                Err(quinn::ReadExactError::ReadError(quinn::ReadError::ConnectionLost(error))) => Err(failed(error)),
                Err(error) => Err(unreachable(dial.peer, dial.address).cause(error)),
            }
        };
        let (connection, welcome) = tokio::time::timeout(HANDSHAKE, greeted).await.map_err(|_| late())??;
        self.shared.welcomed(dial.peer, &welcome)?;
        let leaf = peer_chain(&connection).and_then(|chain| chain.into_iter().next());
        let certificate_sha256 = leaf.map(|leaf| posthouse_protocol::codec::sha256(&leaf)).unwrap_or_default();
        let remote = Remote::Certified { node: dial.peer.clone(), certificate_sha256 };
        let join = matches!(dial.trust, DialTrust::Join { .. });
        let connection = QuicConnection::new(connection, remote, true, join);
        if !self.shared.join {
            connection.look_after();
        }
        Ok(connection)
    }

    pub(crate) async fn close(&self) {
        self.endpoint.close(VarInt::from_u32(0), b"closing");
        // The last packets tell peers at once what they would otherwise learn by idling out.
        let _ = tokio::time::timeout(CLOSE, self.endpoint.wait_idle()).await;
    }

    fn explain(&self, dial: &Dial<'_>, judge: &Judge, error: ConnectionError) -> Problem {
        if let Some(problem) = judge.refusal() {
            return problem;
        }
        match &error {
            ConnectionError::ConnectionClosed(close) => match u64::from(close.error_code) {
                code @ 0x100..0x200 => self.shared.rejected(dial.peer, dial.address, (code & 0xff) as u8),
                _ => unreachable(dial.peer, dial.address).cause(&error),
            },
            ConnectionError::ApplicationClosed(close) => closed(dial.peer.as_str(), close),
            _ => unreachable(dial.peer, dial.address).cause(&error),
        }
    }
}

/// Accepts until the endpoint closes. Whatever one peer sends ends that peer's connection only.
async fn accept_all(
    endpoint: quinn::Endpoint,
    shared: Arc<Shared>,
    socket: Arc<PacedSocket>,
    base: quinn::ServerConfig,
    incoming: Incoming,
    stop: CancellationToken,
) {
    let pending = Arc::new(AtomicUsize::new(0));
    loop {
        let attempt = tokio::select! { biased;
            () = stop.cancelled() => return endpoint.set_server_config(None),
            attempt = endpoint.accept() => match attempt { Some(attempt) => attempt, None => return },
        };
        let under_way = pending.load(Ordering::Relaxed);
        if under_way >= HANDSHAKES_MAX {
            attempt.refuse();
            continue;
        }
        if under_way > HANDSHAKES_MAX / 2 && !attempt.remote_address_validated() {
            // An address that can't answer costs nothing further.
            let _ = attempt.retry();
            continue;
        }
        pending.fetch_add(1, Ordering::Relaxed);
        let (shared, incoming, pending, mut config) = (shared.clone(), incoming.clone(), pending.clone(), base.clone());
        let from = attempt.remote_address();
        config.transport_config(transport(shared.join, socket.rate(from)));
        tokio::spawn(async move {
            let accepted = async {
                let (tls, judge) = shared.accept_tls().map_err(|e| (None, e.to_string()))?;
                let crypto = QuicServerConfig::try_from(tls).map_err(|e| (None, e.to_string()))?;
                config.crypto = Arc::new(crypto);
                let failed = |e: ConnectionError| (Some(judge.clone()), e.to_string());
                let connection = attempt.accept_with(Arc::new(config)).map_err(failed)?.await.map_err(failed)?;
                Ok(connection)
            };
            let result = match tokio::time::timeout(HANDSHAKE, accepted).await {
                Ok(result) => result,
                Err(_) => Err((None, "the handshake took too long".to_owned())),
            };
            pending.fetch_sub(1, Ordering::Relaxed);
            match result {
                Ok(connection) => welcome(connection, &shared, &incoming).await,
                Err((judge, error)) => shared.refused(&from, judge.as_deref(), &error),
            }
        });
    }
}

/// Greets a peer whose handshake completed and hands the connection over.
async fn welcome(connection: quinn::Connection, shared: &Arc<Shared>, incoming: &Incoming) {
    let from = connection.remote_address();
    let alpn = connection
        .handshake_data()
        .and_then(|data| data.downcast::<HandshakeData>().ok())
        .and_then(|data| data.protocol);
    let refuse = |problem: Problem| {
        shared.refused(&from, None, &problem);
        connection.close(VarInt::from(problem.code.number()), problem.said().as_bytes());
    };
    let remote = match shared.remote(alpn.as_deref(), peer_chain(&connection).as_deref()) {
        Ok(remote) => remote,
        Err(problem) => return refuse(problem),
    };
    let join = remote == Remote::Unknown;
    let accepted: Arc<QuicConnection> = QuicConnection::new(connection.clone(), remote, false, join);
    let shown: Arc<dyn Connection> = accepted.clone();
    if let Err(problem) = shared.admit(&shown) {
        return refuse(problem);
    }
    let greeting = async {
        let mut stream = connection.open_uni().await.map_err(io::Error::from)?;
        stream.write_all(&shared.welcome(&[0; TOKEN_BYTES])).await.map_err(io::Error::from)?;
        stream.finish().map_err(io::Error::from)
    };
    match tokio::time::timeout(HANDSHAKE, greeting).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return shared.refused(&from, None, &error),
        Err(_) => return shared.refused(&from, None, &"the welcome could not be sent"),
    }
    if !shared.join {
        accepted.look_after();
    }
    if join {
        tokio::spawn(end_after(Arc::downgrade(&accepted), JOIN_LIFE));
    }
    if incoming.try_send(shown).is_err() {
        refuse(Problem::new(Code::Busy).cause("nobody takes connections here"));
    }
}

struct QuicConnection {
    inner: quinn::Connection,
    remote: Remote,
    dialled: bool,
    join: bool,
    /// How long any writer has waited for the line.
    waited: Arc<Mutex<Busy>>,
    /// When the peer last said that its writers wait.
    held: Mutex<Option<Instant>>,
}

impl QuicConnection {
    fn new(inner: quinn::Connection, remote: Remote, dialled: bool, join: bool) -> Arc<Self> {
        let waited = Arc::new(Mutex::new(Busy::new(Instant::now())));
        Arc::new(Self { inner, remote, dialled, join, waited, held: Mutex::default() })
    }
    fn look_after(self: &Arc<Self>) {
        tokio::spawn(tell_held(Arc::downgrade(self)));
    }
    /// Whether the peer has said that its writers wait for the line.
    fn hears_held(&self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        let mut held = false;
        while let Poll::Ready(Ok(word)) = pin!(self.inner.read_datagram()).poll(&mut context) {
            held |= word == HELD;
        }
        held
    }
    fn channel(&self, send: quinn::SendStream, receive: quinn::RecvStream) -> Channel {
        let writer = QuicWriter { stream: send, done: false, waits: false, waited: self.waited.clone() };
        Channel { reader: Box::new(receive), writer: Box::new(writer) }
    }
    /// Why nothing passes any more: in the peer's own words, if it left some.
    fn lost(&self, error: &dyn std::fmt::Display) -> Problem {
        match self.inner.close_reason() {
            Some(ConnectionError::ApplicationClosed(close)) => closed(&called(self), &close),
            _ => Problem::new(Code::PeerUnreachable).with("peer", called(self)).cause(error),
        }
    }
}

#[async_trait::async_trait]
impl Connection for QuicConnection {
    fn remote(&self) -> &Remote {
        &self.remote
    }
    fn transport(&self) -> Transport {
        Transport::Quic
    }
    fn dialled(&self) -> bool {
        self.dialled
    }
    fn join(&self) -> bool {
        self.join
    }
    async fn open(&self) -> Result<Channel, Problem> {
        match tokio::time::timeout(OPEN, self.inner.open_bi()).await {
            Ok(Ok((send, receive))) => Ok(self.channel(send, receive)),
            Ok(Err(error)) => Err(self.lost(&error)),
            Err(_) => Err(self.lost(&"too many channels are open")),
        }
    }
    async fn accept(&self) -> Option<Channel> {
        let (send, receive) = self.inner.accept_bi().await.ok()?;
        Some(self.channel(send, receive))
    }
    fn close(&self, code: u16, reason: &str) {
        self.inner.close(VarInt::from(code), reason.as_bytes());
    }
    fn is_closed(&self) -> bool {
        self.inner.close_reason().is_some()
    }
    async fn closed(&self) {
        self.inner.closed().await;
    }
    fn remote_address(&self) -> String {
        crate::endpoint::shown(self.inner.remote_address())
    }
    fn rtt_ms(&self) -> Option<f64> {
        Some(self.inner.rtt().as_secs_f64() * 1000.0)
    }
    fn bytes_received(&self) -> Option<u64> {
        Some(self.inner.stats().udp_rx.bytes)
    }
    fn is_held(&self) -> bool {
        locked(&self.held).is_some_and(|at| at.elapsed() <= HELD_FOR)
    }
}

fn closed(peer: &str, close: &quinn::ApplicationClose) -> Problem {
    closed_with(peer, close.error_code.into_inner(), &String::from_utf8_lossy(&close.reason))
}

/// quinn finishes a stream that is dropped; here only `shutdown` does, so that a task that
/// fails halfway never looks like one that ended.
struct QuicWriter {
    stream: quinn::SendStream,
    done: bool,
    /// It waits for the line, which `waited` counts.
    waits: bool,
    waited: Arc<Mutex<Busy>>,
}

impl QuicWriter {
    fn note<T>(&mut self, polled: Poll<T>) -> Poll<T> {
        if polled.is_pending() != self.waits {
            self.waits = polled.is_pending();
            locked(&self.waited).change(self.waits, Instant::now());
        }
        polled
    }
}

impl AsyncWrite for QuicWriter {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = AsyncWrite::poll_write(Pin::new(&mut self.stream), cx, buf);
        self.note(polled)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.stream), cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.done = true;
        AsyncWrite::poll_shutdown(Pin::new(&mut self.stream), cx)
    }
}

impl WriteBytes for QuicWriter {
    fn poll_take(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &mut Bytes) -> Poll<io::Result<()>> {
        // Dropped before it is done it has written nothing: quinn says so of this call.
        let written = pin!(self.stream.write_chunks(std::slice::from_mut(bytes))).poll(cx);
        self.note(written.map(|written| written.map(|_| ()).map_err(io::Error::from)))
    }
}

impl Drop for QuicWriter {
    fn drop(&mut self) {
        let _ = self.note(Poll::Ready(()));
        if !self.done {
            // Already closed or stopped by the peer: then nothing is left to reset.
            let _ = self.stream.reset(VarInt::from_u32(0));
        }
    }
}

/// How long anything was under way, however much of it at once.
struct Busy {
    under_way: usize,
    counted: Instant,
    total: Duration,
}

impl Busy {
    fn new(now: Instant) -> Self {
        Self { under_way: 0, counted: now, total: Duration::ZERO }
    }
    /// One more is under way, or one less.
    fn change(&mut self, begins: bool, now: Instant) {
        self.count(now);
        self.under_way = if begins { self.under_way + 1 } else { self.under_way.saturating_sub(1) };
    }
    fn count(&mut self, now: Instant) -> Duration {
        if self.under_way > 0 {
            self.total += now.saturating_duration_since(self.counted);
        }
        self.counted = now;
        self.total
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Once a second each side hears whether the other's writers wait for the line.
async fn tell_held(connection: Weak<QuicConnection>) {
    let mut waited = Duration::ZERO;
    loop {
        tokio::time::sleep(HELD_EVERY).await;
        let Some(connection) = connection.upgrade() else { return };
        if connection.is_closed() {
            return;
        }
        if connection.hears_held() {
            *locked(&connection.held) = Some(Instant::now());
        }
        // A stream's data would queue behind what waits already. A word that is lost is said again.
        let now_waited = locked(&connection.waited).count(Instant::now());
        if now_waited.saturating_sub(waited) >= HELD_LEAST {
            let _ = connection.inner.send_datagram(Bytes::from_static(HELD));
        }
        waited = now_waited;
    }
}

async fn end_after(connection: Weak<QuicConnection>, life: Duration) {
    tokio::time::sleep(life).await;
    if let Some(connection) = connection.upgrade() {
        connection.close(Code::Busy.number(), "joining took too long");
    }
}

fn peer_chain(connection: &quinn::Connection) -> Option<Vec<CertificateDer<'static>>> {
    connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok().map(|chain| *chain)
}

/// What all accepted connections have in common; TLS and rate are each one's own.
fn server(shared: &Shared) -> Result<quinn::ServerConfig, Problem> {
    let (tls, _) = shared.accept_tls()?;
    let crypto = QuicServerConfig::try_from(tls).map_err(|e| inside("configure QUIC", &e))?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config
        .migration(false)
        .max_incoming(HANDSHAKES_MAX)
        .incoming_buffer_size(INCOMING_BYTES)
        .incoming_buffer_size_total(INCOMING_BYTES * 64);
    Ok(config)
}

/// Reset tokens follow from the identity's key: whoever still speaks to a process that was killed is told so by
/// the next one at once, instead of waiting until its line has idled out.
fn endpoint_config(shared: &Shared) -> quinn::EndpointConfig {
    let mut config = match shared.identity() {
        Some(identity) => {
            let key = hmac::Key::new(hmac::HMAC_SHA256, &identity.key().to_pkcs8());
            let secret = hmac::sign(&key, b"posthouse QUIC stateless reset");
            quinn::EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, secret.as_ref())))
        }
        None => quinn::EndpointConfig::default(),
    };
    let random = shared.world.random.clone();
    config.cid_generator(move || Box::new(Ids(random.clone())));
    if let Err(error) = config.max_udp_payload_size(PACKET_MAX) {
        tracing::debug!(%error, "packets stay small");
    }
    config.rng_seed(shared.world.network.quic_seed());
    config
}

/// Connection ids without a pattern: quinn's own would take those of an earlier process for forged ones and
/// not answer them.
struct Ids(Arc<dyn Random>);

impl quinn::ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> quinn::ConnectionId {
        let mut id = [0; CONNECTION_ID_BYTES];
        self.0.fill(&mut id);
        quinn::ConnectionId::new(&id)
    }
    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }
    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

fn transport(coordinator: bool, rate: Arc<Rate>) -> Arc<quinn::TransportConfig> {
    let (stream, connection, send) = match coordinator {
        // Thousands of nodes ask small things: none of them needs a wide window.
        true => (1 << 20, 2 << 20, 4 << 20),
        false => (WINDOW_BYTES, WINDOW_BYTES, SEND_BYTES),
    };
    let bytes = |n: u64| VarInt::try_from(n).unwrap_or(VarInt::MAX);
    let mut config = quinn::TransportConfig::default();
    config
        .max_concurrent_bidi_streams(bytes(CHANNELS_MAX as u64))
        .max_concurrent_uni_streams(VarInt::from_u32(2))
        .stream_receive_window(bytes(stream))
        .receive_window(bytes(connection))
        .send_window(send)
        .initial_rtt(FIRST_RTT)
        .max_idle_timeout(quinn::IdleTimeout::try_from(IDLE).ok())
        .keep_alive_interval(Some(KEEP_ALIVE))
        .datagram_receive_buffer_size((!coordinator).then_some(DATAGRAMS_BYTES))
        .enable_segmentation_offload(true)
        .congestion_controller_factory(Arc::new(Congestion(rate)));
    let mut mtu = quinn::MtuDiscoveryConfig::default();
    mtu.upper_bound(PACKET_MAX);
    config.mtu_discovery_config(Some(mtu));
    Arc::new(config)
}

/// The largest packet that is looked for on a path, as UDP payload. Jumbo frames and loopback carry it, and then
/// what a packet costs is paid for four times as many bytes; over Ethernet's 1,500 the search ends there. quinn
/// hands the kernel ten packets at once, and the kernel takes 65,507 bytes.
const PACKET_MAX: u16 = 6_500;

/// Before anything is known of a path, what is lost of a handshake is sent again after three times this: before TCP, which
/// is dialled after a head start, has answered over a long line. It would be taken, though QUIC carries more there.
const FIRST_RTT: Duration = Duration::from_millis(100);

/// The connection's receive window; a stream may use all of it. What is lost comes again a round trip later, what is lost
/// twice after two, and what came behind it waits here meanwhile: where one packet in a hundred is lost, that is so half of
/// the time. So it is wider than what the other side may have on its way, and never what holds it back.
const WINDOW_BYTES: u64 = limits::CREDIT_BYTES;
/// Written but not yet acknowledged, or behind what is not.
const SEND_BYTES: u64 = 24 << 20;
const _: () = assert!(SEND_BYTES < limits::CREDIT_BYTES, "a transfer would run out of credit before its writers wait");
/// What a side says whose writers have waited for the line for nearly all of a second.
const HELD: &[u8] = b"held";
const HELD_LEAST: Duration = Duration::from_millis(900);
const HELD_EVERY: Duration = Duration::from_secs(1);
/// How long it holds.
const HELD_FOR: Duration = Duration::from_secs(3);
const DATAGRAMS_BYTES: usize = 4 << 10;
/// What one peer may send before its handshake is looked at.
const INCOMING_BYTES: u64 = 64 << 10;
const JOIN_LIFE: Duration = Duration::from_secs(60);
const CLOSE: Duration = Duration::from_secs(2);
const CONNECTION_ID_BYTES: usize = 8;
