//! Sockets and names: everything that leaves the machine goes through [`Network`].
//! The real one is tokio and quinn's own socket; the simulated one is in `simulated`, and one that drops in `filtered`.
//! What is said over the sockets is in `quic` and `tls_tcp`.

mod allowed;
mod filtered;

pub use allowed::Allowed;
pub use filtered::FilteredNetwork;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// A TCP stream, or what stands for one. `poll_shutdown` half-closes.
pub trait Line: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Line for T {}
pub type BoxLine = Box<dyn Line>;

#[async_trait::async_trait]
pub trait TcpListen: Send + Sync {
    async fn accept(&self) -> io::Result<(BoxLine, SocketAddr)>;
    fn local_address(&self) -> io::Result<SocketAddr>;
}

#[async_trait::async_trait]
pub trait Network: Send + Sync {
    /// Timers, tasks and time for quinn.
    fn quic_runtime(&self) -> Arc<dyn quinn::Runtime>;
    /// Seeds quinn's own randomness (connection ids, padding); `None` takes the operating system's.
    fn quic_seed(&self) -> Option<[u8; 32]>;
    async fn bind_udp(&self, address: SocketAddr) -> io::Result<Arc<dyn quinn::AsyncUdpSocket>>;
    async fn bind_tcp(&self, address: SocketAddr) -> io::Result<Box<dyn TcpListen>>;
    async fn dial_tcp(&self, address: SocketAddr) -> io::Result<BoxLine>;
    /// `host:port` or `[v6]:port` to addresses, in the order to try.
    async fn resolve(&self, address: &str) -> io::Result<Vec<SocketAddr>>;
    /// What the system lets sockets have; none where there is no system.
    fn allowed(&self) -> Option<Allowed> {
        None
    }
}

pub struct SystemNetwork;

#[async_trait::async_trait]
impl Network for SystemNetwork {
    fn quic_runtime(&self) -> Arc<dyn quinn::Runtime> {
        Arc::new(quinn::TokioRuntime)
    }
    fn quic_seed(&self) -> Option<[u8; 32]> {
        None
    }
    async fn bind_udp(&self, address: SocketAddr) -> io::Result<Arc<dyn quinn::AsyncUdpSocket>> {
        let socket = bound(address, rustix::net::SocketType::DGRAM, rustix::net::ipproto::UDP)?;
        let socket = std::net::UdpSocket::from(socket);
        enlarge(&socket);
        quinn::Runtime::wrap_udp_socket(&quinn::TokioRuntime, socket)
    }
    async fn bind_tcp(&self, address: SocketAddr) -> io::Result<Box<dyn TcpListen>> {
        let socket = bound(address, rustix::net::SocketType::STREAM, rustix::net::ipproto::TCP)?;
        rustix::net::listen(&socket, TCP_BACKLOG)?;
        Ok(Box::new(SystemListener(tokio::net::TcpListener::from_std(socket.into())?)))
    }
    async fn dial_tcp(&self, address: SocketAddr) -> io::Result<BoxLine> {
        let stream = tokio::net::TcpStream::connect(address).await?;
        tune(&stream);
        Ok(Box::new(stream))
    }
    async fn resolve(&self, address: &str) -> io::Result<Vec<SocketAddr>> {
        let found: Vec<_> = tokio::net::lookup_host(address).await?.take(RESOLVED_MAX).collect();
        if found.is_empty() {
            Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"))
        } else {
            Ok(found)
        }
    }
    fn allowed(&self) -> Option<Allowed> {
        Some(Allowed::look())
    }
}

struct SystemListener(tokio::net::TcpListener);

#[async_trait::async_trait]
impl TcpListen for SystemListener {
    async fn accept(&self) -> io::Result<(BoxLine, SocketAddr)> {
        let (stream, from) = self.0.accept().await?;
        tune(&stream);
        Ok((Box::new(stream), from))
    }
    fn local_address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// Both families on one `[::]` socket; a restart finds its TCP port free at once.
fn bound(
    address: SocketAddr,
    kind: rustix::net::SocketType,
    protocol: rustix::net::Protocol,
) -> io::Result<std::os::fd::OwnedFd> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, Some(protocol))?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    if kind == SocketType::STREAM {
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &address)?;
    Ok(socket)
}

/// A larger buffer rides out a busy moment; the kernel's own ceiling applies silently, and [`Allowed`] tells of it.
fn enlarge(socket: &impl AsFd) {
    let _ = rustix::net::sockopt::set_socket_recv_buffer_size(socket, UDP_BUFFER_BYTES);
    let _ = rustix::net::sockopt::set_socket_send_buffer_size(socket, UDP_BUFFER_BYTES);
}

/// Small frames leave at once; a peer that vanished is noticed as over QUIC.
fn tune(stream: &tokio::net::TcpStream) {
    use rustix::net::sockopt;
    // Each of these is an improvement, none a condition: a kernel without one still carries the stream.
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE);
    let _ = sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL);
    let _ = sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES);
    let idle_ms = u32::try_from(posthouse_protocol::limits::IDLE_MS).unwrap_or(u32::MAX);
    let _ = sockopt::set_tcp_user_timeout(stream, idle_ms);
    // What a long line loses by the way is no congestion. The system may have it, and may allow it
    // (net.ipv4.tcp_allowed_congestion_control).
    let _ = sockopt::set_tcp_congestion(stream, BBR);
}

/// Runs `future` unless `limit` passes first, which reads as a time-out of the line.
pub async fn within<T>(limit: Duration, future: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let future: Pin<&mut _> = std::pin::pin!(future);
    match tokio::time::timeout(limit, future).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")),
    }
}

const UDP_BUFFER_BYTES: usize = 4 << 20;
/// As Linux names it.
const BBR: &str = "bbr";
const TCP_BACKLOG: i32 = 1024;
/// More addresses of one name than this are not tried.
const RESOLVED_MAX: usize = 8;
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_port_carries_both_udp_and_tcp() {
        let tcp = SystemNetwork.bind_tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = tcp.local_address().unwrap();
        let udp = SystemNetwork.bind_udp(address).await.unwrap();
        assert_eq!(udp.local_addr().unwrap(), address);
    }

    #[tokio::test]
    async fn a_literal_address_resolves_to_itself() {
        let found = SystemNetwork.resolve("127.0.0.1:7843").await.unwrap();
        assert_eq!(found, ["127.0.0.1:7843".parse().unwrap()]);
        assert!(SystemNetwork.resolve("127.0.0.1").await.is_err());
    }
}
