//! The world under turmoil: one seed decides every packet's fate, every random byte and every moment.
//!
//! Each simulated machine has a [`Machine`], which outlives its crashes and is the test's handle on its
//! clock and its disk; [`Machine::world`] is what its software is started with. UDP is carried by
//! turmoil's datagrams under quinn's own state machines, TCP by turmoil's streams, blocking work runs
//! where it is asked for, and key pairs come from the machine's seed.
//!
//! [`Trace`] hashes what happened and when (virtual time, machine, kind, addresses, sizes), never
//! ciphertext, whose keys come from the operating system: the same seed gives the same trace.
//! Machines have IPv4 addresses and their turmoil names. A crash drops futures, so it is no power cut:
//! that is for tests that kill real processes.

use crate::World;
use crate::blocking::Inline;
use crate::clock::Clock;
use crate::disk::FaultyDisk;
use crate::network::{BoxLine, Network, TcpListen};
use crate::random::Random;
use posthouse_protocol::codec::sha256;
use posthouse_protocol::time::Timestamp;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, UNIX_EPOCH};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;

pub use turmoil;

/// A turmoil builder with this seed, and queues that hold what quinn sends in one go.
pub fn builder(seed: u64) -> turmoil::Builder {
    let mut builder = turmoil::Builder::new();
    builder
        .rng_seed(seed)
        .epoch(UNIX_EPOCH + Duration::from_millis(EPOCH_MS.unsigned_abs()))
        .tick_duration(Duration::from_millis(1))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(20))
        .udp_capacity(QUEUE)
        .tcp_capacity(QUEUE)
        .simulation_duration(Duration::from_secs(3600));
    builder
}

/// One simulated machine: what stays when its software crashes.
#[derive(Clone)]
pub struct Machine {
    name: Arc<str>,
    seed: u64,
    clock: Arc<SimulatedClock>,
    disk: Arc<FaultyDisk>,
    random: Arc<SimulatedRandom>,
    trace: Trace,
}

impl Machine {
    pub fn new(seed: u64, name: &str, trace: &Trace) -> Self {
        Self {
            name: name.into(),
            seed,
            clock: Arc::default(),
            disk: Arc::default(),
            random: Arc::new(SimulatedRandom::new(seed, name)),
            trace: trace.clone(),
        }
    }
    pub fn name(&self) -> &str {
        &self.name
    }
    /// What the machine's software runs in; called on that machine, at each start.
    pub fn world(&self) -> World {
        let network = SimulatedNetwork { name: self.name.clone(), seed: self.seed, trace: self.trace.clone() };
        World {
            clock: self.clock.clone(),
            random: self.random.clone(),
            disk: self.disk.clone(),
            blocking: Arc::new(Inline),
            network: Arc::new(network),
        }
    }
    /// Its wall clock is off by this much from now on; its monotonic clock never is.
    pub fn set_clock_offset(&self, ms: i64) {
        self.clock.offset_ms.store(ms, Ordering::Relaxed);
    }
    pub fn disk(&self) -> &FaultyDisk {
        &self.disk
    }
}

/// What happened, as one hash.
#[derive(Clone, Default)]
pub struct Trace(Arc<Mutex<(Vec<u8>, u64)>>);

impl Trace {
    pub fn new() -> Self {
        Self::default()
    }
    /// Adds an event at the present virtual time.
    pub fn event(&self, machine: &str, what: &str) {
        let at = elapsed().as_nanos();
        tracing::trace!(target: "trace", at, machine, what);
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = std::mem::take(&mut state.0);
        bytes.extend_from_slice(format!("{at} {machine} {what}").as_bytes());
        state.0 = sha256(&bytes).to_vec();
        state.1 += 1;
    }
    /// The hash of all events so far, and their number.
    pub fn hash(&self) -> (String, u64) {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (hex::encode(&state.0), state.1)
    }
}

#[derive(Default)]
struct SimulatedClock {
    offset_ms: AtomicI64,
}

impl Clock for SimulatedClock {
    fn now(&self) -> Timestamp {
        let since = i64::try_from(elapsed().as_millis()).unwrap_or(i64::MAX);
        Timestamp(EPOCH_MS).plus_ms(since).plus_ms(self.offset_ms.load(Ordering::Relaxed))
    }
    fn monotonic(&self) -> Duration {
        elapsed()
    }
}

/// Since the start of the simulation; zero outside it, where only what is being dropped still asks.
fn elapsed() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

/// SHA-256 in counter mode.
struct SimulatedRandom {
    key: [u8; 32],
    counter: AtomicU64,
}

impl SimulatedRandom {
    fn new(seed: u64, name: &str) -> Self {
        Self { key: derived(seed, name, "random"), counter: AtomicU64::new(0) }
    }
}

impl Random for SimulatedRandom {
    fn fill(&self, out: &mut [u8]) {
        for part in out.chunks_mut(32) {
            let counter = self.counter.fetch_add(1, Ordering::Relaxed);
            let block = sha256(&[self.key.as_slice(), &counter.to_be_bytes()].concat());
            for (to, from) in part.iter_mut().zip(block) {
                *to = from;
            }
        }
    }
    fn key_seed(&self) -> Option<[u8; 32]> {
        let mut seed = [0; 32];
        self.fill(&mut seed);
        Some(seed)
    }
}

fn derived(seed: u64, name: &str, purpose: &str) -> [u8; 32] {
    sha256(format!("{seed} {name} {purpose}").as_bytes())
}

struct SimulatedNetwork {
    name: Arc<str>,
    seed: u64,
    trace: Trace,
}

impl SimulatedNetwork {
    fn event(&self, what: &str) {
        self.trace.event(&self.name, what);
    }
}

#[async_trait::async_trait]
impl Network for SimulatedNetwork {
    fn quic_runtime(&self) -> Arc<dyn quinn::Runtime> {
        // tokio's time is virtual here, and with it all of quinn's.
        Arc::new(quinn::TokioRuntime)
    }
    fn quic_seed(&self) -> Option<[u8; 32]> {
        Some(derived(self.seed, &self.name, "quic"))
    }
    async fn bind_udp(&self, address: SocketAddr) -> io::Result<Arc<dyn quinn::AsyncUdpSocket>> {
        only_ipv4(address)?;
        let socket = Arc::new(turmoil::net::UdpSocket::bind(address).await?);
        let (sender, received) = mpsc::channel(QUEUE);
        tokio::spawn(pump(socket.clone(), sender));
        let udp = Udp { socket, received: Mutex::new(received), name: self.name.clone(), trace: self.trace.clone() };
        Ok(Arc::new(udp))
    }
    async fn bind_tcp(&self, address: SocketAddr) -> io::Result<Box<dyn TcpListen>> {
        only_ipv4(address)?;
        let listener = turmoil::net::TcpListener::bind(address).await?;
        Ok(Box::new(Listener { listener, name: self.name.clone(), trace: self.trace.clone() }))
    }
    async fn dial_tcp(&self, address: SocketAddr) -> io::Result<BoxLine> {
        self.event(&format!("tcp dial {address}"));
        let stream = turmoil::net::TcpStream::connect(address).await?;
        Ok(Box::new(Traced { stream, name: self.name.clone(), trace: self.trace.clone() }))
    }
    async fn resolve(&self, address: &str) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = address.parse() {
            return Ok(vec![address]);
        }
        let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "it is not HOST:PORT");
        let (host, port) = address.rsplit_once(':').ok_or_else(invalid)?;
        let port = port.parse().map_err(|_| invalid())?;
        Ok(vec![SocketAddr::new(turmoil::lookup(host), port)])
    }
}

fn only_ipv4(address: SocketAddr) -> io::Result<()> {
    if address.is_ipv4() {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::Unsupported, "simulated machines have no IPv6"))
    }
}

type Datagram = (Vec<u8>, SocketAddr);

/// turmoil's sockets are received from by a future, quinn polls: a task carries datagrams across.
async fn pump(socket: Arc<turmoil::net::UdpSocket>, sender: mpsc::Sender<Datagram>) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        tokio::select! { biased;
            () = sender.closed() => return,
            received = socket.recv_from(&mut buffer) => {
                let Ok((n, from)) = received else { return };
                let Some(bytes) = buffer.get(..n) else { return };
                // A full queue loses datagrams, as a full socket buffer does.
                let _ = sender.try_send((bytes.to_vec(), from));
            }
        }
    }
}

struct Udp {
    socket: Arc<turmoil::net::UdpSocket>,
    received: Mutex<mpsc::Receiver<Datagram>>,
    name: Arc<str>,
    trace: Trace,
}

impl std::fmt::Debug for Udp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Udp").field("machine", &self.name).finish_non_exhaustive()
    }
}

impl quinn::AsyncUdpSocket for Udp {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn quinn::UdpPoller>> {
        Box::pin(AlwaysWritable)
    }
    fn try_send(&self, transmit: &quinn::udp::Transmit) -> io::Result<()> {
        let what = format!("udp send {} {}", transmit.destination, transmit.contents.len());
        self.trace.event(&self.name, &what);
        // A datagram to nowhere is lost; no socket says more.
        let _ = self.socket.try_send_to(transmit.contents, transmit.destination);
        Ok(())
    }
    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [quinn::udp::RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(buf), Some(meta)) = (bufs.first_mut(), meta.first_mut()) else { return Poll::Ready(Ok(0)) };
        match received.poll_recv(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            Poll::Ready(Some((bytes, from))) => {
                let len = bytes.len().min(buf.len());
                if let (Some(to), Some(bytes)) = (buf.get_mut(..len), bytes.get(..len)) {
                    to.copy_from_slice(bytes);
                }
                self.trace.event(&self.name, &format!("udp receive {from} {len}"));
                *meta = quinn::udp::RecvMeta { addr: from, len, stride: len, ecn: None, dst_ip: None };
                Poll::Ready(Ok(1))
            }
        }
    }
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
    fn may_fragment(&self) -> bool {
        false
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl quinn::UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

struct Listener {
    listener: turmoil::net::TcpListener,
    name: Arc<str>,
    trace: Trace,
}

#[async_trait::async_trait]
impl TcpListen for Listener {
    async fn accept(&self) -> io::Result<(BoxLine, SocketAddr)> {
        let (stream, from) = self.listener.accept().await?;
        self.trace.event(&self.name, &format!("tcp accept {from}"));
        Ok((Box::new(Traced { stream, name: self.name.clone(), trace: self.trace.clone() }), from))
    }
    fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

struct Traced {
    stream: turmoil::net::TcpStream,
    name: Arc<str>,
    trace: Trace,
}

impl AsyncRead for Traced {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Poll::Ready(Ok(())) = &result {
            self.trace.event(&self.name, &format!("tcp read {}", buf.filled().len() - before));
        }
        result
    }
}

impl AsyncWrite for Traced {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        if let Poll::Ready(Ok(n)) = &result {
            self.trace.event(&self.name, &format!("tcp write {n}"));
        }
        result
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Wall time at the start of every simulation: 2027-01-01T00:00:00Z.
pub const EPOCH_MS: i64 = 1_798_761_600_000;
const QUEUE: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::{Connection, Dial, DialTrust, Endpoint, Listen, Transport, TransportChoice, bind};
    use crate::identity::{Authority, Identity, TlsKey};
    use posthouse_protocol::id::NodeId;
    use posthouse_protocol::problem::{Code, Problem};
    use std::net::IpAddr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const BYTES: usize = 300_000;

    #[test]
    fn the_same_seed_gives_the_same_trace_and_another_seed_another() {
        for choice in [TransportChoice::Quic, TransportChoice::Tcp, TransportChoice::Auto] {
            // TCP in turmoil has no second sending, so only datagrams are lost.
            let loss = if choice == TransportChoice::Quic { 0.02 } else { 0.0 };
            let first = exchange(7, choice, loss, 0).unwrap();
            assert_eq!(first, exchange(7, choice, loss, 0).unwrap(), "{choice:?}");
            assert_ne!(first.0, exchange(8, choice, loss, 0).unwrap().0, "{choice:?}");
            assert!(first.1 > 100, "{first:?}");
        }
    }

    #[test]
    fn a_clock_set_wrong_is_named_and_time_is_virtual() {
        let began = crate::clock::SystemClock::new();
        let problem = exchange(1, TransportChoice::Quic, 0.0, -30 * 86_400_000).unwrap_err();
        assert_eq!(problem.code, Code::ClockWrong, "{problem}");
        assert!(began.monotonic() < Duration::from_secs(60));
    }

    #[test]
    fn a_partition_ends_a_connection_by_idling_and_a_new_one_passes_afterwards() {
        let mut sim = builder(3).build();
        let scene = Scene::new(3);
        scene.serve(&mut sim);
        let client = scene.machine("a");
        let identity = scene.identity("a", &client);
        sim.client("a", async move {
            let endpoint = bind(client.world(), Some(identity), listen(None)).await?;
            let connection = dial(&endpoint, TransportChoice::Quic).await?;
            turmoil::partition("a", "b");
            connection.closed().await;
            assert!(elapsed() > Duration::from_secs(25), "{:?}", elapsed());
            assert_eq!(dial(&endpoint, TransportChoice::Auto).await.err().map(|p| p.code), Some(Code::PeerUnreachable));
            turmoil::repair("a", "b");
            send(&*dial(&endpoint, TransportChoice::Auto).await?).await?;
            Ok(())
        });
        sim.run().unwrap();
    }

    #[test]
    fn random_bytes_repeat_with_the_seed_and_differ_between_machines() {
        let trace = Trace::new();
        let bytes = |seed, name: &str| Machine::new(seed, name, &trace).world().random.bytes::<40>();
        assert_eq!(bytes(1, "a"), bytes(1, "a"));
        assert_ne!(bytes(1, "a"), bytes(1, "b"));
        assert_ne!(bytes(1, "a"), bytes(2, "a"));
    }

    fn exchange(seed: u64, choice: TransportChoice, loss: f64, offset_ms: i64) -> Result<(String, u64), Problem> {
        let mut sim = builder(seed).fail_rate(loss).repair_rate(1.0).build();
        let scene = Scene::new(seed);
        scene.serve(&mut sim);
        let client = scene.machine("a");
        let identity = scene.identity("a", &client);
        client.set_clock_offset(offset_ms);
        let outcome = Arc::new(Mutex::new(None));
        let told = outcome.clone();
        sim.client("a", async move {
            let result = async {
                let endpoint = bind(client.world(), Some(identity), listen(None)).await?;
                let connection = dial(&endpoint, choice).await?;
                assert_eq!(connection.transport() == Transport::Tcp, choice == TransportChoice::Tcp);
                send(&*connection).await
            };
            *told.lock().unwrap() = Some(result.await);
            Ok(())
        });
        sim.run().unwrap();
        let outcome = outcome.lock().unwrap().take().unwrap();
        outcome.map(|()| scene.trace.hash())
    }

    /// Sends bytes and checks that they come back doubled in number.
    async fn send(connection: &dyn Connection) -> Result<(), Problem> {
        let mut channel = connection.open().await?;
        let write = async {
            channel.writer.write_all(&[5; BYTES]).await.unwrap();
            channel.writer.shutdown().await.unwrap();
        };
        let mut back = Vec::new();
        let ((), read) = tokio::join!(write, channel.reader.read_to_end(&mut back));
        read.unwrap();
        assert_eq!(back.len(), 2 * BYTES);
        Ok(())
    }

    async fn dial(endpoint: &Arc<dyn Endpoint>, choice: TransportChoice) -> Result<Arc<dyn Connection>, Problem> {
        let peer = NodeId::parse("b").unwrap();
        endpoint.dial(Dial { peer: &peer, address: "b:7843", choice, trust: DialTrust::Certified }).await
    }

    fn listen(address: Option<&str>) -> Listen {
        Listen { address: address.map(str::to_owned), choice: TransportChoice::Auto, join: false }
    }

    struct Scene {
        seed: u64,
        authority: Authority,
        trace: Trace,
    }

    impl Scene {
        fn new(seed: u64) -> Self {
            let name = NodeId::parse("centre").unwrap();
            let key = TlsKey::from_seed(&derived(seed, "centre", "ca")).unwrap();
            Self { seed, authority: Authority::new(&name, key, Timestamp(EPOCH_MS)).unwrap(), trace: Trace::new() }
        }
        fn machine(&self, name: &str) -> Machine {
            Machine::new(self.seed, name, &self.trace)
        }
        fn identity(&self, name: &str, machine: &Machine) -> Arc<Identity> {
            let key = TlsKey::made_with(&*machine.random).unwrap();
            let node = NodeId::parse(name).unwrap();
            let request = key.request(&node).unwrap();
            let now = Timestamp(EPOCH_MS);
            let issued =
                self.authority.issue(&request, &node, now, 7 * 86_400_000, &machine.world().random.bytes()).unwrap();
            Arc::new(Identity::new(issued.chain, key, self.authority.certificate().to_vec()).unwrap())
        }
        /// A server that answers each channel with twice what it got.
        fn serve(&self, sim: &mut turmoil::Sim<'_>) {
            let machine = self.machine("b");
            let identity = self.identity("b", &machine);
            sim.host("b", move || {
                let (machine, identity) = (machine.clone(), identity.clone());
                async move {
                    let endpoint = bind(machine.world(), Some(identity), listen(Some("[::]:7843"))).await?;
                    while let Some(connection) = endpoint.accept().await {
                        tokio::spawn(async move {
                            while let Some(mut channel) = connection.accept().await {
                                let mut bytes = Vec::new();
                                if channel.reader.read_to_end(&mut bytes).await.is_ok() {
                                    let twice = [bytes.as_slice(), &bytes].concat();
                                    let _ = channel.writer.write_all(&twice).await;
                                    let _ = channel.writer.shutdown().await;
                                }
                            }
                        });
                    }
                    Ok(())
                }
            });
        }
    }

    #[test]
    fn an_address_without_a_port_is_refused() {
        let mut sim = builder(1).build();
        sim.client("a", async {
            let network = SimulatedNetwork { name: "a".into(), seed: 1, trace: Trace::new() };
            assert!(network.resolve("b").await.is_err());
            let found = network.resolve("a:1").await?;
            assert_eq!(found, [SocketAddr::new(turmoil::lookup("a"), 1)]);
            assert!(matches!(turmoil::lookup("a"), IpAddr::V4(_)));
            Ok(())
        });
        sim.run().unwrap();
    }
}
