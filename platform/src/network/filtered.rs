//! The system's network behind a firewall that drops what is sent over UDP, all of it or what is beyond a rate, and says
//! nothing; or over a line that is cut: for tests.

use super::{BoxLine, Network, SystemNetwork, TcpListen};
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio::time::Instant;

#[derive(Default)]
pub struct FilteredNetwork {
    filter: Arc<Filter>,
}

#[derive(Debug, Default)]
struct Filter {
    is_shut: AtomicBool,
    is_cut: AtomicBool,
    unanswered: AtomicU64,
    throttle: Mutex<Option<Throttle>>,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct Throttle {
    bytes_per_second: f64,
    /// What may pass at once.
    room: f64,
    since: Instant,
}

impl Throttle {
    fn passes(&mut self, bytes: usize) -> bool {
        let now = Instant::now();
        let more = now.duration_since(self.since).as_secs_f64() * self.bytes_per_second;
        (self.room, self.since) = ((self.room + more).min(AT_ONCE_BYTES), now);
        let passes = self.room >= bytes as f64;
        if passes {
            self.room -= bytes as f64;
        }
        passes
    }
}

impl Filter {
    fn passes(&self, bytes: usize) -> bool {
        if self.is_shut.load(Ordering::SeqCst) || self.is_cut.load(Ordering::SeqCst) {
            return false;
        }
        let mut throttle = self.throttle.lock().unwrap_or_else(PoisonError::into_inner);
        throttle.as_mut().is_none_or(|throttle| throttle.passes(bytes))
    }
}

impl FilteredNetwork {
    /// Whether UDP is dropped from now on.
    pub fn shut(&self, is_shut: bool) {
        self.filter.is_shut.store(is_shut, Ordering::SeqCst);
    }
    /// Whether nothing is sent over UDP from now on, and nobody who dials over TCP meanwhile is ever answered.
    pub fn cut(&self, is_cut: bool) {
        self.filter.is_cut.store(is_cut, Ordering::SeqCst);
    }
    /// From now on so many bytes a second pass over UDP, and the rest is dropped.
    pub fn throttle(&self, bytes_per_second: u64) {
        let throttle = Throttle { bytes_per_second: bytes_per_second as f64, room: 0.0, since: Instant::now() };
        *self.filter.throttle.lock().unwrap_or_else(PoisonError::into_inner) = Some(throttle);
    }
    /// How many dials over TCP met a line that is cut.
    pub fn unanswered(&self) -> u64 {
        self.filter.unanswered.load(Ordering::SeqCst)
    }
    /// How many sends were dropped.
    pub fn dropped(&self) -> u64 {
        self.filter.dropped.load(Ordering::SeqCst)
    }
}

#[async_trait::async_trait]
impl Network for FilteredNetwork {
    fn quic_runtime(&self) -> Arc<dyn quinn::Runtime> {
        SystemNetwork.quic_runtime()
    }
    fn quic_seed(&self) -> Option<[u8; 32]> {
        None
    }
    async fn bind_udp(&self, address: SocketAddr) -> io::Result<Arc<dyn quinn::AsyncUdpSocket>> {
        Ok(Arc::new(FilteredSocket { socket: SystemNetwork.bind_udp(address).await?, filter: self.filter.clone() }))
    }
    async fn bind_tcp(&self, address: SocketAddr) -> io::Result<Box<dyn TcpListen>> {
        SystemNetwork.bind_tcp(address).await
    }
    async fn dial_tcp(&self, address: SocketAddr) -> io::Result<BoxLine> {
        if self.filter.is_cut.load(Ordering::SeqCst) {
            self.filter.unanswered.fetch_add(1, Ordering::SeqCst);
            // As the first packet of a connection that is lost; the system would send it again, later and later.
            return std::future::pending().await;
        }
        SystemNetwork.dial_tcp(address).await
    }
    async fn resolve(&self, address: &str) -> io::Result<Vec<SocketAddr>> {
        SystemNetwork.resolve(address).await
    }
}

#[derive(Debug)]
struct FilteredSocket {
    socket: Arc<dyn quinn::AsyncUdpSocket>,
    filter: Arc<Filter>,
}

impl quinn::AsyncUdpSocket for FilteredSocket {
    fn create_io_poller(self: Arc<Self>) -> std::pin::Pin<Box<dyn quinn::UdpPoller>> {
        self.socket.clone().create_io_poller()
    }
    fn try_send(&self, transmit: &quinn::udp::Transmit<'_>) -> io::Result<()> {
        if !self.filter.passes(transmit.contents.len()) {
            self.filter.dropped.fetch_add(1, Ordering::SeqCst);
            return Ok(());
        }
        self.socket.try_send(transmit)
    }
    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
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

/// More than one send of a batch of packets.
const AT_ONCE_BYTES: f64 = 128.0 * 1024.0;
