//! Both transports by the same promises: who may connect, and how channels begin and end.

mod hostile;
mod identities;
mod slow;

use super::*;
use crate::clock::Clock;
use crate::identity::{Authority, TlsKey};
use crate::network::FilteredNetwork;
use posthouse_protocol::problem::Code;
use posthouse_protocol::time::Timestamp;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const BOTH: [TransportChoice; 2] = [TransportChoice::Quic, TransportChoice::Tcp];

#[tokio::test]
async fn each_side_knows_the_other_by_its_certified_name() {
    let scene = Scene::new();
    for choice in BOTH {
        let (server, client) = scene.pair(choice).await;
        let (dialled, accepted) = connect(&server, &client, choice).await;
        assert_eq!(*dialled.remote(), scene.remote("b.example"));
        assert_eq!(*accepted.remote(), scene.remote("a.example"));
        assert_eq!(dialled.transport(), accepted.transport());
        assert!(dialled.dialled() && !accepted.dialled());
        assert!(dialled.remote_address().starts_with("127.0.0.1:"), "{}", dialled.remote_address());
    }
}

#[tokio::test]
async fn either_side_opens_channels_and_both_directions_end_apart() {
    let scene = Scene::new();
    for choice in BOTH {
        let (server, client) = scene.pair(choice).await;
        let (dialled, accepted) = connect(&server, &client, choice).await;
        for (opener, other) in [(&dialled, &accepted), (&accepted, &dialled)] {
            let (mut a, mut b) = joined(opener, other).await;
            a.writer.write_all(b"question").await.unwrap();
            a.writer.shutdown().await.unwrap();
            assert_eq!(all(&mut b.reader).await.unwrap(), b"question");
            // The other direction is still open.
            b.writer.write_all(b"answer").await.unwrap();
            b.writer.shutdown().await.unwrap();
            assert_eq!(all(&mut a.reader).await.unwrap(), b"answer");
        }
    }
}

#[tokio::test]
async fn a_writer_dropped_before_its_end_reads_as_an_error() {
    let scene = Scene::new();
    for choice in BOTH {
        let (server, client) = scene.pair(choice).await;
        let (dialled, accepted) = connect(&server, &client, choice).await;
        for (opener, other) in [(&dialled, &accepted), (&accepted, &dialled)] {
            let (mut a, b) = joined(opener, other).await;
            drop(a.writer);
            let mut reader = b.reader;
            assert!(all(&mut reader).await.is_err(), "{choice:?}");
            // The other direction is untouched by it.
            let mut writer = b.writer;
            writer.write_all(b"still here").await.unwrap();
            writer.shutdown().await.unwrap();
            assert_eq!(all(&mut a.reader).await.unwrap(), b"still here");
        }
    }
}

#[tokio::test]
async fn what_was_written_before_the_end_arrives_though_nobody_reads_the_answer() {
    let scene = Scene::new();
    for choice in BOTH {
        let (server, client) = scene.pair(choice).await;
        let (dialled, accepted) = connect(&server, &client, choice).await;
        for _ in 0..20 {
            let (mut a, mut b) = joined(&dialled, &accepted).await;
            b.writer.write_all(&[1; 50_000]).await.unwrap();
            b.writer.flush().await.unwrap();
            a.writer.write_all(&[2; 50_000]).await.unwrap();
            a.writer.shutdown().await.unwrap();
            drop(a);
            assert_eq!(all(&mut b.reader).await.unwrap().len(), 50_000, "{choice:?}");
        }
    }
}

#[tokio::test]
async fn closing_ends_every_channel_at_once_on_both_sides() {
    let scene = Scene::new();
    for choice in BOTH {
        let (server, client) = scene.pair(choice).await;
        let (dialled, accepted) = connect(&server, &client, choice).await;
        let (mut a, mut b) = joined(&dialled, &accepted).await;
        accepted.close(Code::GrantWithdrawn.number(), "withdrawn");
        assert!(within(all(&mut a.reader)).await.is_err());
        assert!(within(all(&mut b.reader)).await.is_err());
        within(dialled.closed()).await;
        assert!(dialled.is_closed() && accepted.is_closed());
        assert!(within(dialled.accept()).await.is_none());
        // The reason that the closing side gave is what the other side hears from then on.
        let problem = within(dialled.open()).await.err().unwrap();
        assert_eq!((problem.code, problem.cause.as_str()), (Code::GrantWithdrawn, "withdrawn"));
    }
}

#[tokio::test]
async fn dropping_a_connection_closes_it_and_a_channel_keeps_it() {
    let scene = Scene::new();
    for choice in BOTH {
        let (server, client) = scene.pair(choice).await;
        let (dialled, accepted) = connect(&server, &client, choice).await;
        let (mut a, mut b) = joined(&dialled, &accepted).await;
        drop(dialled);
        tokio::time::sleep(Duration::from_millis(50)).await;
        a.writer.write_all(b"kept").await.unwrap();
        a.writer.shutdown().await.unwrap();
        assert_eq!(all(&mut b.reader).await.unwrap(), b"kept");
        drop((a, b));
        within(accepted.closed()).await;
    }
}

#[tokio::test]
async fn where_udp_is_swallowed_tcp_wins_within_a_second_and_is_remembered() {
    let scene = Scene::new();
    let server = scene.serve("b.example", TransportChoice::Auto).await;
    let mut world = scene.world();
    let network = Arc::new(FilteredNetwork::default());
    network.shut(true);
    world.network = network.clone();
    let listen = Listen { address: None, choice: TransportChoice::Auto, join: false };
    let client = bind(world, Some(scene.issue("a.example", DAY)), listen).await.unwrap();
    let began = tokio::time::Instant::now();
    let (dialled, _) = connect(&server, &client, TransportChoice::Auto).await;
    assert_eq!(dialled.transport(), Transport::Tcp);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(network.dropped() > 0, "QUIC was tried");
    drop(dialled);
    let (dialled, _) = connect(&server, &client, TransportChoice::Auto).await;
    assert_eq!(dialled.transport(), Transport::Tcp);
}

#[tokio::test]
async fn within_a_site_auto_takes_what_passes_and_tcp_where_both_do() {
    let scene = Scene::new();
    let client = scene.endpoint(Some("a.example"), None, TransportChoice::Auto).await;
    for (serves, taken) in [
        (TransportChoice::Auto, Transport::Tcp),
        (TransportChoice::Quic, Transport::Quic),
        (TransportChoice::Tcp, Transport::Tcp),
    ] {
        let server = scene.serve("b.example", serves).await;
        let dialled = dial(&client, &server, "b.example", TransportChoice::Auto, DialTrust::Certified).await.unwrap();
        assert_eq!(dialled.transport(), taken);
        // The other side may meet a connection over QUIC first, which is closed at once.
        let accepted = loop {
            let accepted = within(server.accept()).await.unwrap();
            if accepted.transport() == taken {
                break accepted;
            }
            within(accepted.closed()).await;
        };
        let (mut channel, mut other) = joined(&dialled, &accepted).await;
        channel.writer.write_all(b"through").await.unwrap();
        channel.writer.shutdown().await.unwrap();
        let mut came = Vec::new();
        other.reader.read_to_end(&mut came).await.unwrap();
        assert!(came.ends_with(b"through"));
    }
}

#[tokio::test]
async fn who_still_speaks_to_a_killed_process_is_told_so_by_the_next_one() {
    let scene = Scene::new();
    let identity = scene.issue("b.example", DAY);
    let listen =
        |address: &str| Listen { address: Some(address.to_owned()), choice: TransportChoice::Quic, join: false };
    // A process of its own, which says nothing when it ends.
    let process = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let first = bind(scene.world(), Some(identity.clone()), listen("127.0.0.1:0"));
    let server = process.spawn(first).await.unwrap().unwrap();
    let address = server.local_address().unwrap().to_string();
    let client = scene.endpoint(Some("a.example"), None, TransportChoice::Quic).await;
    let (dialled, accepted) = connect(&server, &client, TransportChoice::Quic).await;
    let (mut channel, other) = joined(&dialled, &accepted).await;
    tokio::task::spawn_blocking(move || process.shutdown_timeout(Duration::from_secs(5))).await.unwrap();
    drop((server, accepted, other));
    let _next = within(async {
        loop {
            match bind(scene.world(), Some(identity.clone()), listen(&address)).await {
                Ok(next) => return next,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    })
    .await;
    assert!(!dialled.is_closed());
    // It can be written to until the answer comes.
    let _ = channel.writer.write_all(&[1; 5_000]).await;
    let _ = channel.writer.flush().await;
    let told = tokio::time::timeout(shared::IDLE / 3, dialled.closed()).await;
    assert!(told.is_ok(), "the line would have idled out much later");
}

#[tokio::test]
async fn nobody_listening_is_unreachable() {
    let scene = Scene::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let client = scene.endpoint(Some("a.example"), None, TransportChoice::Auto).await;
    let peer = node("b.example");
    let dial = Dial { peer: &peer, address: &free, choice: TransportChoice::Tcp, trust: DialTrust::Certified };
    assert_eq!(client.dial(dial).await.err().unwrap().code, Code::PeerUnreachable);
    let dial = Dial { peer: &peer, address: "no port", choice: TransportChoice::Auto, trust: DialTrust::Certified };
    assert_eq!(client.dial(dial).await.err().unwrap().code, Code::PeerUnreachable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_megabytes_pass_both_ways_at_once() {
    let scene = Scene::new();
    for choice in BOTH {
        let (server, client) = scene.pair(choice).await;
        let (dialled, accepted) = connect(&server, &client, choice).await;
        let (a, b) = joined(&dialled, &accepted).await;
        let began = tokio::time::Instant::now();
        let (x, y, z, w) = tokio::join!(
            tokio::spawn(pour(a.writer, 1)),
            tokio::spawn(pour(b.writer, 2)),
            tokio::spawn(drain(a.reader, 2)),
            tokio::spawn(drain(b.reader, 1))
        );
        x.unwrap();
        y.unwrap();
        assert_eq!((z.unwrap(), w.unwrap()), (POURED, POURED));
        println!("{choice:?}: {} MB both ways in {:?}", POURED >> 20, began.elapsed());
    }
}

const POURED: usize = 200 << 20;
const DAY: i64 = 86_400_000;

async fn pour(mut writer: Writer, seed: u8) {
    let block: Vec<u8> = (0..1 << 20).map(|i: usize| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect();
    for _ in 0..POURED >> 20 {
        writer.write_all(&block).await.unwrap();
    }
    writer.shutdown().await.unwrap();
}

async fn drain(mut reader: Reader, seed: u8) -> usize {
    let block: Vec<u8> = (0..1 << 20).map(|i: usize| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect();
    let mut got = vec![0; 1 << 20];
    let mut total = 0;
    for _ in 0..POURED >> 20 {
        reader.read_exact(&mut got).await.unwrap();
        assert!(got == block);
        total += got.len();
    }
    assert_eq!(reader.read(&mut got).await.unwrap(), 0);
    total
}

fn node(name: &str) -> NodeId {
    NodeId::parse(name).unwrap()
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it ends in time")
}

async fn all(reader: &mut (impl tokio::io::AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    reader.read_to_end(&mut out).await.map(|_| out)
}

type Pair = (Arc<dyn Connection>, Arc<dyn Connection>);
type Both = Arc<dyn Endpoint>;

async fn dial(
    from: &Both,
    to: &Both,
    name: &str,
    choice: TransportChoice,
    trust: DialTrust,
) -> Result<Arc<dyn Connection>, Problem> {
    let address = to.local_address().unwrap().to_string();
    within(from.dial(Dial { peer: &node(name), address: &address, choice, trust })).await
}

async fn connect(server: &Both, client: &Both, choice: TransportChoice) -> Pair {
    let (dialled, accepted) =
        tokio::join!(dial(client, server, "b.example", choice, DialTrust::Certified), within(server.accept()));
    (dialled.unwrap(), accepted.unwrap())
}

async fn still_answers(scene: &Scene, server: &Both, choice: TransportChoice) {
    let client = scene.endpoint(Some("still.example"), None, choice).await;
    let name = if server.local_address().is_some() { scene.name_of(server) } else { panic!("it listens") };
    let (dialled, accepted) =
        tokio::join!(dial(&client, server, &name, choice, DialTrust::Certified), within(server.accept()));
    joined(&dialled.unwrap(), &accepted.unwrap()).await;
}

/// A channel and its other end, after a first byte.
async fn joined(opener: &Arc<dyn Connection>, other: &Arc<dyn Connection>) -> (Channel, Channel) {
    let open = async {
        let mut channel = opener.open().await.unwrap();
        channel.writer.write_all(&[42]).await.unwrap();
        channel.writer.flush().await.unwrap();
        channel
    };
    let (a, b) = tokio::join!(within(open), within(other.accept()));
    let mut b = b.unwrap();
    assert_eq!(within(b.reader.read_u8()).await.unwrap(), 42);
    (a, b)
}

struct TestClock {
    now: AtomicI64,
    real: crate::clock::SystemClock,
}

impl TestClock {
    fn at(now: Timestamp) -> Self {
        Self { now: AtomicI64::new(now.0), real: crate::clock::SystemClock::new() }
    }
    fn advance(&self, ms: i64) {
        self.now.fetch_add(ms, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.now.load(Ordering::Relaxed))
    }
    fn monotonic(&self) -> Duration {
        self.real.monotonic()
    }
}

struct Scene {
    authority: Arc<Authority>,
    clock: Arc<TestClock>,
    serial: Arc<AtomicU64>,
    issued: std::sync::Mutex<Vec<(String, [u8; 32])>>,
    names: std::sync::Mutex<Vec<(SocketAddr, String)>>,
}

impl Scene {
    fn new() -> Self {
        let now = crate::clock::SystemClock::new().now();
        let authority = Authority::new(&node("centre.example"), TlsKey::generate().unwrap(), now).unwrap();
        Self {
            authority: Arc::new(authority),
            clock: Arc::new(TestClock::at(now)),
            serial: Arc::default(),
            issued: std::sync::Mutex::default(),
            names: std::sync::Mutex::default(),
        }
    }
    fn sharing(other: &Self) -> Self {
        Self { authority: other.authority.clone(), ..Self::new() }
    }
    fn world(&self) -> World {
        World { clock: self.clock.clone(), ..World::real() }
    }
    fn issue(&self, name: &str, life_ms: i64) -> Arc<Identity> {
        self.issue_at(name, self.clock.now(), life_ms)
    }
    fn issue_at(&self, name: &str, now: Timestamp, life_ms: i64) -> Arc<Identity> {
        let key = TlsKey::generate().unwrap();
        let mut serial = [0; 16];
        serial[8..].copy_from_slice(&self.serial.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        let request = key.request(&node(name)).unwrap();
        let issued = self.authority.issue(&request, &node(name), now, life_ms, &serial).unwrap();
        let identity = Identity::new(issued.chain, key, self.authority.certificate().to_vec()).unwrap();
        self.issued.lock().unwrap().push((name.to_owned(), identity.certificate_sha256()));
        Arc::new(identity)
    }
    fn issue_pinned(&self, name: &str, pinned: &Authority) -> Result<Identity, Problem> {
        let identity = self.issue(name, DAY);
        let chain = identity.chain().iter().map(|c| c.to_vec()).collect();
        Identity::new(chain, identity.key().clone(), pinned.certificate().to_vec())
    }
    fn remote(&self, name: &str) -> Remote {
        let issued = self.issued.lock().unwrap();
        let (_, certificate_sha256) = issued.iter().rev().find(|(n, _)| n == name).unwrap();
        Remote::Certified { node: node(name), certificate_sha256: *certificate_sha256 }
    }
    async fn endpoint_with(
        &self,
        identity: Option<Arc<Identity>>,
        address: Option<&str>,
        choice: TransportChoice,
    ) -> Both {
        let name = identity.as_ref().map(|identity| identity.node().to_string());
        let listen = Listen { address: address.map(str::to_owned), choice, join: false };
        let endpoint = bind(self.world(), identity, listen).await.unwrap();
        if let (Some(address), Some(name)) = (endpoint.local_address(), name) {
            self.names.lock().unwrap().push((address, name));
        }
        endpoint
    }
    async fn endpoint(&self, name: Option<&str>, address: Option<&str>, choice: TransportChoice) -> Both {
        self.endpoint_with(name.map(|name| self.issue(name, DAY)), address, choice).await
    }
    async fn serve(&self, name: &str, choice: TransportChoice) -> Both {
        self.endpoint(Some(name), Some("127.0.0.1:0"), choice).await
    }
    async fn coordinator(&self, choice: TransportChoice) -> Both {
        let listen = Listen { address: Some("127.0.0.1:0".to_owned()), choice, join: true };
        let endpoint = bind(self.world(), Some(self.issue("centre.example", DAY)), listen).await.unwrap();
        self.names.lock().unwrap().push((endpoint.local_address().unwrap(), "centre.example".to_owned()));
        endpoint
    }
    async fn pair(&self, choice: TransportChoice) -> Pair2 {
        (self.serve("b.example", choice).await, self.endpoint(Some("a.example"), None, choice).await)
    }
    fn name_of(&self, server: &Both) -> String {
        let names = self.names.lock().unwrap();
        names.iter().rev().find(|(address, _)| Some(*address) == server.local_address()).unwrap().1.clone()
    }
    fn roots(&self) -> rustls::RootCertStore {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.authority.certificate().clone()).unwrap();
        roots
    }
    async fn raw_tls(
        &self,
        identity: &Arc<Identity>,
        address: SocketAddr,
    ) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
        let shared = shared::Shared::new(self.world(), Some(identity.clone()), false);
        let (tls, _) = shared.dial_tls(&node("b.example"), &DialTrust::Certified).unwrap();
        let line = tokio::net::TcpStream::connect(address).await.unwrap();
        let name = rustls_pki_types::ServerName::try_from("b.example").unwrap();
        tokio_rustls::TlsConnector::from(tls).connect(name, line).await.unwrap()
    }
}

type Pair2 = (Both, Both);
