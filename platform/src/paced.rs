//! A UDP socket that sends to each peer no faster than its connections want.
//!
//! quinn's connections ask their poller whether they may send, send, and ask the poller again where the answer was
//! "would block": all of it at once and on one thread. So a peer's [`Lane`] holds back what comes before its time, and
//! the poller sleeps until then, or shorter when the rate rises meanwhile. What is small passes, and handshakes do; so
//! does what the endpoint itself sends, which asks no poller.

use crate::gather::Gather;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

#[derive(Debug)]
pub(crate) struct PacedSocket {
    socket: Arc<dyn AsyncUdpSocket>,
    lanes: Mutex<Lanes>,
    epoch: Instant,
    gather: Gather,
}

#[derive(Debug, Default)]
struct Lanes {
    by_peer: BTreeMap<SocketAddr, Arc<Lane>>,
    /// When there are as many, those without connections are taken out.
    sweep_at: usize,
}

/// How fast one connection wants to send.
#[derive(Debug)]
pub(crate) struct Rate {
    /// Bytes a second; 0 until something is known of the path.
    wanted: AtomicU64,
    /// When it last sent, in milliseconds since the socket's epoch.
    used: AtomicU64,
    epoch: Instant,
}

/// Holds nothing back.
const UNPACED: u64 = u64::MAX;

impl Rate {
    pub(crate) fn set(&self, bytes_per_second: Option<f64>) {
        let rate = bytes_per_second.map_or(UNPACED, |rate| (rate as u64).clamp(RATE_MIN, UNPACED - 1));
        self.wanted.store(rate, Ordering::Relaxed);
    }
    pub(crate) fn used(&self, now: std::time::Instant) {
        let since = now.saturating_duration_since(self.epoch.into_std());
        self.used.store(u64::try_from(since.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// The way to one peer, which all connections to it share.
#[derive(Debug)]
struct Lane {
    rates: Mutex<Vec<Weak<Rate>>>,
    owed: Mutex<Owed>,
}

/// Bytes that were sent before their time, less than none where time was left over.
#[derive(Debug)]
struct Owed {
    bytes: f64,
    at: Instant,
}

impl Lane {
    fn forget_ended(&self) -> MutexGuard<'_, Vec<Weak<Rate>>> {
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        rates.retain(|rate| rate.strong_count() > 0);
        rates
    }

    /// Until when nothing may be sent at this rate.
    fn held_until(&self, now: Instant, rate: u64) -> Option<Instant> {
        let mut owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
        let rate = rate as f64;
        owed.bytes -= rate * now.saturating_duration_since(owed.at).as_secs_f64();
        owed.bytes = owed.bytes.max(-rate * CATCH_UP.as_secs_f64());
        owed.at = now;
        (owed.bytes > 0.0).then(|| now + Duration::from_secs_f64(owed.bytes / rate))
    }

    fn sent(&self, bytes: usize) {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner).bytes += bytes as f64;
    }

    /// The sum of what its connections want that send at present; none where one of them is not held back.
    fn rate(&self, now_ms: u64) -> Option<u64> {
        let rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        let live = rates.iter().filter_map(Weak::upgrade);
        let at_work = live.filter(|rate| rate.used.load(Ordering::Relaxed).saturating_add(AT_WORK_MS) >= now_ms);
        let sum = at_work.map(|rate| rate.wanted.load(Ordering::Relaxed)).fold(0, u64::saturating_add);
        (sum > 0 && sum < UNPACED).then_some(sum)
    }
}

impl PacedSocket {
    pub(crate) fn new(socket: Arc<dyn AsyncUdpSocket>) -> Arc<Self> {
        Arc::new(Self { socket, lanes: Mutex::default(), epoch: Instant::now(), gather: Gather::new() })
    }

    /// The rate of a new connection to that peer.
    pub(crate) fn rate(&self, peer: SocketAddr) -> Arc<Rate> {
        let rate = Arc::new(Rate { wanted: AtomicU64::new(0), used: AtomicU64::new(0), epoch: self.epoch });
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if lanes.by_peer.len() >= lanes.sweep_at {
            lanes.by_peer.retain(|_, lane| !lane.forget_ended().is_empty());
            lanes.sweep_at = lanes.by_peer.len() * 2 + LANES_MIN;
        }
        let owed = || Mutex::new(Owed { bytes: 0.0, at: self.epoch });
        let new = || Arc::new(Lane { rates: Mutex::default(), owed: owed() });
        lanes.by_peer.entry(canonical(peer)).or_insert_with(new).forget_ended().push(Arc::downgrade(&rate));
        rate
    }

    /// For what has to wait in one.
    fn lane(&self, transmit: &Transmit<'_>) -> Option<Arc<Lane>> {
        let is_handshake = transmit.contents.first().is_some_and(|first| first & LONG_HEADER != 0);
        if transmit.contents.len() <= SMALL || is_handshake {
            return None;
        }
        let lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.by_peer.get(&canonical(transmit.destination)).cloned()
    }
}

fn milliseconds(now: Instant, epoch: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(epoch).as_millis()).unwrap_or(u64::MAX)
}

/// A socket of both families writes an IPv4 address in two ways.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

thread_local! {
    /// A poller of this thread has just said that something may be sent.
    static ASKED: Cell<bool> = const { Cell::new(false) };
    /// The lane that holds back what was to be sent then; the poller takes it.
    static HELD_BACK: Cell<Option<Arc<Lane>>> = const { Cell::new(None) };
}

impl AsyncUdpSocket for PacedSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        let socket = self.socket.clone().create_io_poller();
        Box::pin(PacedPoller { socket, epoch: self.epoch, lane: None, sleep: Box::pin(sleep_until(self.epoch)) })
    }
    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        // Taken in any case: one asking is for one sending.
        let asked = ASKED.take();
        let Some(lane) = self.lane(transmit).filter(|_| asked) else { return self.socket.try_send(transmit) };
        let now = Instant::now();
        let Some(rate) = lane.rate(milliseconds(now, self.epoch)) else { return self.socket.try_send(transmit) };
        if lane.held_until(now, rate).is_some() {
            HELD_BACK.set(Some(lane));
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.socket.try_send(transmit)?;
        lane.sent(transmit.contents.len());
        Ok(())
    }
    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.gather.poll(cx, meta, |cx, meta| self.socket.poll_recv(cx, buffers, meta))
    }
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }
    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }
    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

#[derive(Debug)]
struct PacedPoller {
    socket: Pin<Box<dyn UdpPoller>>,
    epoch: Instant,
    /// What its connection waits for.
    lane: Option<Arc<Lane>>,
    sleep: Pin<Box<Sleep>>,
}

impl UdpPoller for PacedPoller {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(lane) = HELD_BACK.take() {
            self.lane = Some(lane);
        }
        // Each time anew: the rate may have risen.
        let held_until = |lane: &Lane, epoch| {
            let now = Instant::now();
            lane.held_until(now, lane.rate(milliseconds(now, epoch))?)
        };
        while let Some(until) = self.lane.as_ref().and_then(|lane| held_until(lane, self.epoch)) {
            self.sleep.as_mut().reset(until);
            ready!(self.sleep.as_mut().poll(cx));
        }
        self.lane = None;
        let writable = ready!(self.socket.as_mut().poll_writable(cx));
        ASKED.set(true);
        Poll::Ready(writable)
    }
}

/// What a lane may make up for when it was woken late: timers tick in milliseconds, and cores are busy.
pub(crate) const CATCH_UP: Duration = Duration::from_millis(8);
/// The first bit of a QUIC packet that belongs to a handshake.
const LONG_HEADER: u8 = 0x80;
/// Acknowledgements are smaller, and what they acknowledge is paced already.
const SMALL: usize = 256;
const LANES_MIN: usize = 64;
/// No connection is held back further than this; bytes a second.
const RATE_MIN: u64 = 10_000;
/// A connection that has not sent for so long claims no part of its lane.
const AT_WORK_MS: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Network, SystemNetwork};

    fn transmit(destination: SocketAddr, contents: &[u8]) -> Transmit<'_> {
        Transmit { destination, ecn: None, contents, segment_size: None, src_ip: None }
    }

    async fn socket() -> (Arc<PacedSocket>, SocketAddr) {
        let socket = SystemNetwork.bind_udp("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = socket.local_addr().unwrap();
        (PacedSocket::new(socket), address)
    }

    /// As a connection does: asks, and sends once.
    async fn attempt(socket: &Arc<PacedSocket>, to: SocketAddr, contents: &[u8]) -> io::Result<()> {
        let mut poller = socket.clone().create_io_poller();
        std::future::poll_fn(|cx| poller.as_mut().poll_writable(cx)).await?;
        let sent = socket.try_send(&transmit(to, contents));
        HELD_BACK.take();
        sent
    }

    /// As a connection does that has more to send.
    async fn send(socket: &Arc<PacedSocket>, to: SocketAddr, packets: u32) -> Duration {
        let (since, mut poller) = (Instant::now(), socket.clone().create_io_poller());
        for _ in 0..packets {
            loop {
                std::future::poll_fn(|cx| poller.as_mut().poll_writable(cx)).await.unwrap();
                match socket.try_send(&transmit(to, &[0; 1_000])) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    sent => break sent.unwrap(),
                }
            }
        }
        since.elapsed()
    }

    fn is_held(sent: &io::Result<()>) -> bool {
        sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_is_sent_to_at_the_rate_of_its_connections_that_send() {
        let (socket, address) = socket().await;
        let rates = [socket.rate(address), socket.rate(address), socket.rate(address)];
        tokio::time::sleep(Duration::from_secs(2)).await;
        for rate in &rates {
            rate.set(Some(500_000.0));
        }
        // The third is idle. 200 kB at 1 MB/s, less what may be made up for.
        rates[0].used(Instant::now().into_std());
        rates[1].used(Instant::now().into_std());
        let took = send(&socket, address, 200).await;
        assert!((Duration::from_millis(185)..Duration::from_millis(215)).contains(&took), "{took:?}");
        rates[0].set(None);
        assert!(
            send(&socket, address, 200).await < Duration::from_millis(5),
            "one that is not held back frees the lane"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_that_rises_lets_go_what_waits() {
        let (socket, address) = socket().await;
        let rate = socket.rate(address);
        rate.set(Some(0.0));
        rate.used(Instant::now().into_std());
        assert!(attempt(&socket, address, &[0; 65_000]).await.is_ok());
        let mut poller = socket.clone().create_io_poller();
        std::future::poll_fn(|cx| poller.as_mut().poll_writable(cx)).await.unwrap();
        assert!(is_held(&socket.try_send(&transmit(address, &[0; 1_000]))));
        let raise = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            rate.set(Some(1e9));
        };
        let since = Instant::now();
        // An acknowledgement polls the connection, and with it the poller.
        let mut again = tokio::time::interval(Duration::from_millis(50));
        let waits = std::future::poll_fn(|cx| {
            while again.poll_tick(cx).is_ready() {}
            poller.as_mut().poll_writable(cx)
        });
        let (_, writable) = tokio::join!(raise, waits);
        writable.unwrap();
        assert!(since.elapsed() <= Duration::from_millis(200), "{:?}", since.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_small_or_opens_a_connection_or_goes_elsewhere_does_not_wait() {
        let (socket, address) = socket().await;
        let other: SocketAddr = "127.0.0.1:9".parse().unwrap();
        let rate = socket.rate(address);
        assert!(attempt(&socket, address, &[0; 1_000]).await.is_ok(), "nothing is known of the path");
        rate.set(Some(0.0));
        rate.used(Instant::now().into_std());
        assert!(attempt(&socket, address, &[0; 1_000]).await.is_ok());
        assert!(is_held(&attempt(&socket, address, &[0; 1_000]).await));
        assert!(attempt(&socket, address, &[0; SMALL]).await.is_ok());
        assert!(attempt(&socket, address, &[LONG_HEADER; 1_000]).await.is_ok());
        assert!(attempt(&socket, other, &[0; 1_000]).await.is_ok());
        assert!(socket.try_send(&transmit(address, &[0; 1_000])).is_ok(), "the endpoint asks no poller");
        drop(rate);
        assert!(attempt(&socket, address, &[0; 1_000]).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn both_ways_to_write_an_address_are_one_lane() {
        let (socket, _) = socket().await;
        let rate = socket.rate("[::ffff:127.0.0.1]:9".parse().unwrap());
        rate.set(Some(0.0));
        rate.used(Instant::now().into_std());
        let plain: SocketAddr = "127.0.0.1:9".parse().unwrap();
        assert!(attempt(&socket, plain, &[0; 1_000]).await.is_ok());
        assert!(is_held(&attempt(&socket, plain, &[0; 1_000]).await));
    }
}
