//! Both transports by the same promises: who may connect, and how channels begin and end.

use super::*;
use crate::clock::Clock;
use crate::identity::{Authority, TlsKey};
use crate::network::{BoxLine, FilteredNetwork, Network, SystemNetwork, TcpListen};
use posthouse_protocol::problem::Code;
use posthouse_protocol::time::Timestamp;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

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
async fn a_peer_of_another_ca_is_told_so_on_both_sides() {
    let scene = Scene::new();
    let other = Scene::new();
    for choice in BOTH {
        let server = scene.serve("b.example", choice).await;
        let stranger = other.endpoint(Some("a.example"), None, choice).await;
        // The dialler pins another CA: it refuses what it is shown.
        let problem = fails(&stranger, &server, "b.example", choice).await;
        assert_eq!(problem.code, Code::CertificateOfOther, "{problem}");
        // The dialler trusts the CA but is certified by another: the accepting side refuses it.
        let forged = other.issue_pinned("a.example", &scene.authority);
        assert!(forged.is_err(), "an identity whose chain does not lead to its CA must not exist");
        let problem = fails_raw(&scene, &other, &server, choice).await;
        assert_eq!(problem.code, Code::CertificateOfOther, "{problem}");
        still_answers(&scene, &server, choice).await;
    }
}

#[tokio::test]
async fn an_expired_certificate_is_named_whichever_side_has_it() {
    let scene = Scene::new();
    for choice in BOTH {
        let server = scene.serve("b.example", choice).await;
        let short = scene.issue("a.example", 1_000);
        scene.clock.advance(3_600_000);
        let client = scene.endpoint_with(Some(short), None, choice).await;
        let problem = fails(&client, &server, "b.example", choice).await;
        assert_eq!(problem.code, Code::CertificateExpired, "{problem}");
        assert!(problem.facts.contains(&("peer".to_owned(), "a.example".to_owned())), "{problem:?}");

        let short = scene.issue("b.example", 1_000);
        let server = scene.endpoint_with(Some(short), Some("127.0.0.1:0"), choice).await;
        scene.clock.advance(3_600_000);
        let client = scene.endpoint(Some("a.example"), None, choice).await;
        let problem = fails(&client, &server, "b.example", choice).await;
        assert_eq!(problem.code, Code::CertificateExpired, "{problem}");
        assert!(problem.facts.contains(&("peer".to_owned(), "b.example".to_owned())), "{problem:?}");
    }
}

#[tokio::test]
async fn a_clock_that_is_behind_is_named_as_a_clock_error() {
    let scene = Scene::new();
    for choice in BOTH {
        let server = scene.serve("b.example", choice).await;
        let mut behind = Scene::sharing(&scene);
        behind.clock = Arc::new(TestClock::at(scene.clock.now().plus_ms(-86_400_000)));
        // This side's clock is behind: the other's certificate is not valid yet.
        let client = behind.endpoint_with(Some(scene.issue("a.example", DAY)), None, choice).await;
        let problem = fails(&client, &server, "b.example", choice).await;
        assert_eq!(problem.code, Code::ClockWrong, "{problem}");
        // The other side's clock is behind: it refuses, and this side's certificate holds by its own clock.
        let slow = behind
            .endpoint_with(
                Some(scene.issue_at("b.example", scene.clock.now().plus_ms(-2 * 86_400_000), 4 * DAY)),
                Some("127.0.0.1:0"),
                choice,
            )
            .await;
        let client = scene.endpoint(Some("a.example"), None, choice).await;
        let problem = fails(&client, &slow, "b.example", choice).await;
        assert_eq!(problem.code, Code::ClockWrong, "{problem}");
    }
}

#[tokio::test]
async fn a_peer_of_another_name_is_refused() {
    let scene = Scene::new();
    for choice in BOTH {
        let server = scene.serve("b.example", choice).await;
        let client = scene.endpoint(Some("a.example"), None, choice).await;
        let problem = fails(&client, &server, "c.example", choice).await;
        assert_eq!(problem.code, Code::CertificateInvalid, "{problem}");
        assert!(problem.cause.contains("b.example"), "{problem}");
    }
}

#[tokio::test]
async fn a_denied_name_is_refused_and_what_it_had_open_is_closed() {
    let scene = Scene::new();
    for choice in BOTH {
        let (server, client) = scene.pair(choice).await;
        let (dialled, accepted) = connect(&server, &client, choice).await;
        server.set_denied(vec![node("a.example")]);
        within(dialled.closed()).await;
        within(accepted.closed()).await;
        assert_eq!(within(dialled.open()).await.err().unwrap().code, Code::NodeRevoked);
        let problem = fails(&client, &server, "b.example", choice).await;
        assert_eq!(problem.code, Code::NodeRevoked, "{problem}");
        assert!(server.refused() > 0);
        server.set_denied(Vec::new());
        connect(&server, &client, choice).await;
        // A dialler does not even call a name that it denies.
        client.set_denied(vec![node("b.example")]);
        assert_eq!(fails(&client, &server, "b.example", choice).await.code, Code::NodeRevoked);
    }
}

#[tokio::test]
async fn a_renewed_certificate_serves_new_connections_while_an_old_one_goes_on() {
    let scene = Scene::new();
    for choice in BOTH {
        let (server, client) = scene.pair(choice).await;
        let (dialled, accepted) = connect(&server, &client, choice).await;
        let (mut a, mut b) = joined(&dialled, &accepted).await;
        let renewed = (scene.issue("b.example", DAY), scene.issue("a.example", DAY));
        let fingerprint = renewed.0.certificate_sha256();
        server.set_identity(renewed.0);
        client.set_identity(renewed.1);
        // A channel that is open, one that is opened now, and a new connection.
        a.writer.write_all(b"across").await.unwrap();
        a.writer.shutdown().await.unwrap();
        assert_eq!(all(&mut b.reader).await.unwrap(), b"across");
        joined(&accepted, &dialled).await;
        let (again, _) = connect(&server, &client, choice).await;
        match again.remote() {
            Remote::Certified { certificate_sha256, .. } => assert_eq!(*certificate_sha256, fingerprint),
            Remote::Unknown => panic!("the peer is certified"),
        }
        assert!(!dialled.is_closed());
    }
}

#[tokio::test]
async fn joining_needs_no_certificate_and_checks_the_ca_of_the_token() {
    let scene = Scene::new();
    for choice in BOTH {
        let coordinator = scene.coordinator(choice).await;
        let newcomer = scene.endpoint_with(None, None, choice).await;
        let join = |ca_sha256| DialTrust::Join { ca_sha256 };
        let good = join(scene.authority.certificate_sha256());
        let (dialled, accepted) = tokio::join!(
            dial(&newcomer, &coordinator, "centre.example", choice, good.clone()),
            within(coordinator.accept())
        );
        let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
        assert_eq!((accepted.remote(), accepted.join(), dialled.join()), (&Remote::Unknown, true, true));
        let (mut a, mut b) = joined(&dialled, &accepted).await;
        a.writer.write_all(b"csr").await.unwrap();
        a.writer.shutdown().await.unwrap();
        assert_eq!(all(&mut b.reader).await.unwrap(), b"csr");

        let problem = dial(&newcomer, &coordinator, "centre.example", choice, join([7; 32])).await.err().unwrap();
        assert_eq!(problem.code, Code::WrongAuthority, "{problem}");
        let problem = dial(&newcomer, &coordinator, "other.example", choice, good.clone()).await.err().unwrap();
        assert_eq!(problem.code, Code::WrongAuthority, "{problem}");
        // A node answers no joins, and without a certificate there is nothing else to ask for.
        let ordinary = scene.serve("b.example", choice).await;
        assert!(dial(&newcomer, &ordinary, "b.example", choice, good).await.is_err());
        let problem =
            dial(&newcomer, &coordinator, "centre.example", choice, DialTrust::Certified).await.err().unwrap();
        assert_eq!(problem.code, Code::CertificateInvalid, "{problem}");
    }
}

#[tokio::test]
async fn a_coordinator_asks_a_certificate_of_everything_but_joining() {
    let scene = Scene::new();
    for choice in BOTH {
        let coordinator = scene.coordinator(choice).await;
        let address = coordinator.local_address().unwrap();
        // A client that speaks posthouse/1 without a certificate: only raw TLS can be that impolite.
        let mut tls = rustls::ClientConfig::builder_with_provider(crate::identity::verify::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(scene.roots())
            .with_no_client_auth();
        tls.alpn_protocols = vec![ALPN.to_vec()];
        if choice == TransportChoice::Tcp {
            let line = tokio::net::TcpStream::connect(address).await.unwrap();
            let name = rustls_pki_types::ServerName::try_from("centre.example").unwrap();
            let mut stream = tokio_rustls::TlsConnector::from(Arc::new(tls)).connect(name, line).await.unwrap();
            let _ = stream.write_all(&[1]).await;
            assert!(within(all(&mut stream)).await.map_or(true, |bytes| bytes.is_empty()));
        } else {
            let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
            let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
            let config = quinn::ClientConfig::new(Arc::new(crypto));
            let connection = endpoint.connect_with(config, address, "centre.example").unwrap().await;
            if let Ok(connection) = connection {
                assert!(within(connection.accept_uni()).await.is_err());
            }
        }
        still_answers(&scene, &coordinator, choice).await;
    }
}

#[tokio::test]
async fn a_channel_that_comes_as_soon_as_the_welcome_is_out_finds_its_connection() {
    let scene = Scene::new();
    let world = World { network: Arc::new(SlowToReturn), ..scene.world() };
    let listen = Listen { address: Some("127.0.0.1:0".to_owned()), choice: TransportChoice::Tcp, join: false };
    let server = bind(world, Some(scene.issue("b.example", DAY)), listen).await.unwrap();
    scene.names.lock().unwrap().push((server.local_address().unwrap(), "b.example".to_owned()));
    let client = scene.endpoint(Some("a.example"), None, TransportChoice::Tcp).await;
    let dialled = within(dial(&client, &server, "b.example", TransportChoice::Tcp, DialTrust::Certified)).await;
    let dialled = dialled.unwrap();
    let mut channel = within(dialled.open()).await.unwrap();
    channel.writer.write_all(b"at once").await.unwrap();
    channel.writer.shutdown().await.unwrap();
    let accepted = within(server.accept()).await.unwrap();
    let mut other = within(accepted.accept()).await.unwrap();
    assert_eq!(within(all(&mut other.reader)).await.unwrap(), b"at once");
    assert_eq!(server.refused(), 0);
}

/// A system that is slow to return to a listener's program after it has sent on the first line: what it sent is there
/// long before.
struct SlowToReturn;

#[async_trait::async_trait]
impl Network for SlowToReturn {
    fn quic_runtime(&self) -> Arc<dyn quinn::Runtime> {
        SystemNetwork.quic_runtime()
    }
    fn quic_seed(&self) -> Option<[u8; 32]> {
        None
    }
    async fn bind_udp(&self, address: SocketAddr) -> io::Result<Arc<dyn quinn::AsyncUdpSocket>> {
        SystemNetwork.bind_udp(address).await
    }
    async fn bind_tcp(&self, address: SocketAddr) -> io::Result<Box<dyn TcpListen>> {
        Ok(Box::new(SlowListener(SystemNetwork.bind_tcp(address).await?, AtomicU64::new(0))))
    }
    async fn dial_tcp(&self, address: SocketAddr) -> io::Result<BoxLine> {
        SystemNetwork.dial_tcp(address).await
    }
    async fn resolve(&self, address: &str) -> io::Result<Vec<SocketAddr>> {
        SystemNetwork.resolve(address).await
    }
}

struct SlowListener(Box<dyn TcpListen>, AtomicU64);

#[async_trait::async_trait]
impl TcpListen for SlowListener {
    async fn accept(&self) -> io::Result<(BoxLine, SocketAddr)> {
        let (line, from) = self.0.accept().await?;
        if self.1.fetch_add(1, Ordering::Relaxed) > 0 {
            return Ok((line, from));
        }
        Ok((Box::new(SlowLine { line, flushing: None }), from))
    }
    fn local_address(&self) -> io::Result<SocketAddr> {
        self.0.local_address()
    }
}

struct SlowLine {
    line: BoxLine,
    flushing: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl AsyncRead for SlowLine {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.line).poll_read(cx, buf)
    }
}

impl AsyncWrite for SlowLine {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.line).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wait = || Box::pin(tokio::time::sleep(Duration::from_millis(200)));
        ready!(self.flushing.get_or_insert_with(wait).as_mut().poll(cx));
        self.flushing = None;
        Pin::new(&mut self.line).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.line).poll_shutdown(cx)
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

#[tokio::test]
async fn garbage_on_either_port_ends_itself_only() {
    let scene = Scene::new();
    let server = scene.serve("b.example", TransportChoice::Auto).await;
    let address = server.local_address().unwrap();
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let garbage = |n: usize| (0..n).map(|i| (i * 151 + n * 31) as u8).collect::<Vec<_>>();
    for n in 1..200 {
        udp.send_to(&garbage(n * 7), address).unwrap();
    }
    for n in [1, 5, 100, 20_000] {
        let mut line = tokio::net::TcpStream::connect(address).await.unwrap();
        let _ = line.write_all(&garbage(n)).await;
        let _ = line.shutdown().await;
        let _ = within(all(&mut line)).await;
    }
    // A TLS client hello cut in half, and an HTTP request.
    for bytes in [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let mut line = tokio::net::TcpStream::connect(address).await.unwrap();
        let _ = line.write_all(bytes).await;
        let _ = line.shutdown().await;
        let _ = within(all(&mut line)).await;
    }
    assert!(server.refused() >= 6, "{}", server.refused());
    for choice in BOTH {
        still_answers(&scene, &server, choice).await;
    }
}

#[tokio::test]
async fn a_channel_with_a_wrong_token_or_of_another_node_is_refused() {
    let scene = Scene::new();
    let (server, client) = scene.pair(TransportChoice::Tcp).await;
    let (dialled, accepted) = connect(&server, &client, TransportChoice::Tcp).await;
    let before = server.refused();
    for identity in [scene.issue("a.example", DAY), scene.issue("c.example", DAY)] {
        let mut stream = scene.raw_tls(&identity, server.local_address().unwrap()).await;
        let mut first = vec![2];
        first.extend_from_slice(&[9; 16]);
        first.extend_from_slice(&0u32.to_be_bytes());
        stream.write_all(&first).await.unwrap();
        assert!(within(all(&mut stream)).await.map_or(true, |bytes| bytes.is_empty()));
    }
    assert!(server.refused() >= before + 2);
    joined(&dialled, &accepted).await;
}

#[tokio::test]
async fn a_peer_that_never_finishes_its_handshake_is_dropped() {
    let scene = Scene::new();
    let server = scene.serve("b.example", TransportChoice::Auto).await;
    let mut silent = tokio::net::TcpStream::connect(server.local_address().unwrap()).await.unwrap();
    silent.write_all(&[0x16]).await.unwrap();
    let limit = Duration::from_millis(posthouse_protocol::limits::HANDSHAKE_MS) + Duration::from_secs(3);
    tokio::time::timeout(limit, all(&mut silent)).await.expect("it is closed in time").ok();
    still_answers(&scene, &server, TransportChoice::Tcp).await;
}

#[tokio::test]
async fn a_flood_of_silent_connections_leaves_room_for_others_addresses_and_is_bounded() {
    let scene = Scene::new();
    let server = scene.serve("b.example", TransportChoice::Auto).await;
    let address = server.local_address().unwrap();
    let mut flood = Vec::new();
    for _ in 0..300 {
        flood.push(tokio::net::TcpStream::connect(address).await.unwrap());
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    // All above the bound of one address are closed at once.
    while server.refused() < 200 {
        assert!(tokio::time::Instant::now() < deadline, "{} refused", server.refused());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The same port over UDP, and after the flood TCP as well.
    still_answers(&scene, &server, TransportChoice::Quic).await;
    drop(flood);
    tokio::time::sleep(Duration::from_millis(100)).await;
    still_answers(&scene, &server, TransportChoice::Tcp).await;
}

#[tokio::test]
async fn one_name_holds_four_connections_and_the_oldest_gives_way() {
    let scene = Scene::new();
    for choice in BOTH {
        let (server, client) = scene.pair(choice).await;
        let mut held = Vec::new();
        for _ in 0..5 {
            held.push(connect(&server, &client, choice).await);
        }
        within(held[0].0.closed()).await;
        for (dialled, _) in &held[1..] {
            assert!(!dialled.is_closed());
        }
    }
}

#[tokio::test]
async fn channels_beyond_the_bound_wait_for_room() {
    let scene = Scene::new();
    for choice in BOTH {
        let (server, client) = scene.pair(choice).await;
        let (dialled, accepted) = connect(&server, &client, choice).await;
        let mut open = Vec::new();
        for _ in 0..shared::CHANNELS_MAX {
            open.push(joined(&dialled, &accepted).await);
        }
        let more = tokio::time::timeout(Duration::from_millis(300), dialled.open()).await;
        assert!(more.is_err(), "{choice:?}");
        open.truncate(shared::CHANNELS_MAX / 2);
        joined(&dialled, &accepted).await;
    }
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

async fn fails(client: &Both, server: &Both, name: &str, choice: TransportChoice) -> Problem {
    dial(client, server, name, choice, DialTrust::Certified).await.err().expect("the dial fails")
}

/// A dialler certified by `other`'s CA that believes `scene`'s server.
async fn fails_raw(scene: &Scene, other: &Scene, server: &Both, choice: TransportChoice) -> Problem {
    let shared = shared::Shared::new(scene.world(), Some(other.issue("a.example", DAY)), false);
    let trust = DialTrust::Join { ca_sha256: scene.authority.certificate_sha256() };
    let (tls, judge) = shared.dial_tls(&node("b.example"), &trust).unwrap();
    let mut tls = (*tls).clone();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let certified = other.issue("a.example", DAY).certified().unwrap();
    tls.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(certified));
    let address = server.local_address().unwrap();
    let before = server.refused();
    let alert = if choice == TransportChoice::Tcp {
        let line = tokio::net::TcpStream::connect(address).await.unwrap();
        let name = rustls_pki_types::ServerName::try_from("b.example").unwrap();
        let mut stream = tokio_rustls::TlsConnector::from(Arc::new(tls)).connect(name, line).await.unwrap();
        let error = within(all(&mut stream)).await.unwrap_err();
        match error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::AlertReceived(alert)) => u8::from(*alert),
            other => panic!("{other:?}"),
        }
    } else {
        let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let connecting = endpoint.connect_with(quinn::ClientConfig::new(Arc::new(crypto)), address, "b.example");
        let error = match connecting.unwrap().await {
            Ok(connection) => within(connection.closed()).await,
            Err(error) => error,
        };
        match error {
            quinn::ConnectionError::ConnectionClosed(close) => u64::from(close.error_code) as u8,
            other => panic!("{other:?}"),
        }
    };
    assert!(judge.refusal().is_none());
    within(async {
        while server.refused() == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    shared.rejected(&node("b.example"), "", alert)
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
