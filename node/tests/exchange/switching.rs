//! A line over which UDP passes no more in the midst of a transfer: TCP takes its place.

use super::*;
use posthouse_platform::endpoint::Transport;
use posthouse_platform::network::{BoxLine, Network, SystemNetwork, TcpListen};
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

#[tokio::test(flavor = "multi_thread")]
async fn where_udp_is_dropped_in_the_midst_tcp_goes_on() {
    let (scene, gate) = (scene(), Arc::new(Gate::default()));
    let provider = scene.provider_in(gated(&gate), &offer_folder(&scene)).await;
    let consumer = scene.consumer(&take_folder(&scene, "")).await;
    over_quic(&consumer).await;
    let id = plan(&consumer, "scans").await;
    let running = tokio::spawn(transfer::run_consumer(consumer.context().clone(), id.clone()));
    until_live(&consumer, &id, "a third of it", |live| live.row.bytes_sent > BYTES / 3).await;
    gate.shut(true);
    let began = Instant::now();
    // Long before the line would be known to be dead by its idle limit.
    until_live(&consumer, &id, "on TCP", |live| live.row.transport == Some(Transport::Tcp)).await;
    println!("on TCP {:?} after UDP was dropped", began.elapsed());
    let transfer::Outcome::Final(row) = running.await.unwrap().unwrap() else { panic!("it was stopped") };
    assert_eq!((row.state, row.transport), (State::Settled, Some(Transport::Tcp)), "{row:?}");
    assert_eq!(tree(&scene.path("target")), tree(&scene.path("source")));
    // What was on its way when the line was given up comes once more; nothing else does.
    assert!(row.bytes_sent < BYTES + limits::CREDIT_BYTES + (4 << 20), "{row:?}");
    let stated = evidence_of_both(&provider, &id).await;
    assert_eq!(stated.iter().find_map(|statement| statement.landing()).unwrap().transport, "tcp");
    // What comes next goes that way at once.
    std::fs::write(scene.path("source/more"), noise(2, 10_000)).unwrap();
    assert_eq!(run(&consumer, "scans").await.transport, Some(Transport::Tcp));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_cut_for_a_moment_is_kept() {
    let (scene, gate) = (scene(), Arc::new(Gate::default()));
    let _provider = scene.provider_in(gated(&gate), &offer_folder(&scene)).await;
    let consumer = scene.consumer(&take_folder(&scene, "")).await;
    over_quic(&consumer).await;
    let id = plan(&consumer, "scans").await;
    let running = tokio::spawn(transfer::run_consumer(consumer.context().clone(), id.clone()));
    until_live(&consumer, &id, "moving", |live| live.row.bytes_sent > 4 << 20).await;
    gate.shut(true);
    tokio::time::sleep(Duration::from_millis(500)).await;
    gate.shut(false);
    let transfer::Outcome::Final(row) = running.await.unwrap().unwrap() else { panic!("it was stopped") };
    assert_eq!((row.state, row.transport), (State::Settled, Some(Transport::Quic)), "{row:?}");
}

fn scene() -> Scene {
    let mut scene = Scene::new("auto", &["scans"]);
    scene.provider_more = "bandwidth = \"20 MiB\"";
    std::fs::write(scene.path("source/large"), noise(1, BYTES as usize)).unwrap();
    scene
}

/// The nodes' line is over QUIC, whatever they would choose within one machine.
async fn over_quic(consumer: &Node) {
    let (pool, peer) = (&consumer.context().pool, name(PROVIDER));
    pool.favour(&peer, Transport::Quic);
    assert_eq!(pool.connection(&peer).await.unwrap().transport(), Transport::Quic);
}

fn gated(gate: &Arc<Gate>) -> World {
    World { network: gate.clone(), ..World::real() }
}

/// The system's network, and a firewall that drops what is sent over UDP while it is shut.
#[derive(Default)]
struct Gate {
    is_shut: Arc<AtomicBool>,
}

impl Gate {
    fn shut(&self, is_shut: bool) {
        self.is_shut.store(is_shut, Ordering::SeqCst);
    }
}

#[async_trait::async_trait]
impl Network for Gate {
    fn quic_runtime(&self) -> Arc<dyn quinn::Runtime> {
        SystemNetwork.quic_runtime()
    }
    fn quic_seed(&self) -> Option<[u8; 32]> {
        None
    }
    async fn bind_udp(&self, address: SocketAddr) -> io::Result<Arc<dyn quinn::AsyncUdpSocket>> {
        Ok(Arc::new(Gated { socket: SystemNetwork.bind_udp(address).await?, is_shut: self.is_shut.clone() }))
    }
    async fn bind_tcp(&self, address: SocketAddr) -> io::Result<Box<dyn TcpListen>> {
        SystemNetwork.bind_tcp(address).await
    }
    async fn dial_tcp(&self, address: SocketAddr) -> io::Result<BoxLine> {
        SystemNetwork.dial_tcp(address).await
    }
    async fn resolve(&self, address: &str) -> io::Result<Vec<SocketAddr>> {
        SystemNetwork.resolve(address).await
    }
}

#[derive(Debug)]
struct Gated {
    socket: Arc<dyn quinn::AsyncUdpSocket>,
    is_shut: Arc<AtomicBool>,
}

impl quinn::AsyncUdpSocket for Gated {
    fn create_io_poller(self: Arc<Self>) -> std::pin::Pin<Box<dyn quinn::UdpPoller>> {
        self.socket.clone().create_io_poller()
    }
    fn try_send(&self, transmit: &quinn::udp::Transmit<'_>) -> io::Result<()> {
        if self.is_shut.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.socket.try_send(transmit)
    }
    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [io::IoSliceMut<'_>],
        meta: &mut [quinn::udp::RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_recv(cx, bufs, meta)
    }
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }
    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

const BYTES: u64 = 120 << 20;
