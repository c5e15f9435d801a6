//! A listener whose system is slow to return from a sending, as a loaded one is.

use super::*;
use crate::network::{BoxLine, Network, SystemNetwork, TcpListen};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

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
