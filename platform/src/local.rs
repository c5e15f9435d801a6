//! A connection whose two ends are in this process: for what stands here in the place of a peer that no line leads to.
//! Its channels keep the promises of every other [`Channel`]; nothing leaves the process.

use crate::endpoint::{Channel, Connection, Reader, Remote, Transport, WriteBytes, Writer};
use posthouse_protocol::id::NodeId;
use posthouse_protocol::problem::{Code, Problem};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// The end that `dialler` holds, then the one that `other` holds: each sees the other's name at its far end.
pub fn pair(dialler: &NodeId, other: &NodeId, transport: Transport) -> (Arc<dyn Connection>, Arc<dyn Connection>) {
    let closed = CancellationToken::new();
    let (to_other, at_other) = mpsc::channel(CHANNELS_MAX);
    let (to_dialler, at_dialler) = mpsc::channel(CHANNELS_MAX);
    let end = |far: &NodeId, dialled, to, from| {
        Arc::new_cyclic(|me| Local {
            me: me.clone(),
            // Nobody showed a certificate: whoever holds the far end is this process.
            remote: Remote::Certified { node: far.clone(), certificate_sha256: [0; 32] },
            transport,
            dialled,
            to,
            from: Mutex::new(from),
            closed: closed.clone(),
        })
    };
    (end(other, true, to_other, at_dialler), end(dialler, false, to_dialler, at_other))
}

struct Local {
    me: Weak<Self>,
    remote: Remote,
    transport: Transport,
    dialled: bool,
    to: mpsc::Sender<Ends>,
    from: Mutex<mpsc::Receiver<Ends>>,
    closed: CancellationToken,
}

/// The two directions of a channel, as one of its sides holds them.
struct Ends {
    reader: Out,
    writer: In,
}

#[async_trait::async_trait]
impl Connection for Local {
    fn remote(&self) -> &Remote {
        &self.remote
    }
    fn transport(&self) -> Transport {
        self.transport
    }
    fn dialled(&self) -> bool {
        self.dialled
    }
    fn join(&self) -> bool {
        false
    }
    async fn open(&self) -> Result<Channel, Problem> {
        let ((there_in, here_out), (here_in, there_out)) = (self.pipe(), self.pipe());
        let theirs = Ends { reader: there_out, writer: there_in };
        let sent = tokio::select! { biased;
            () = self.closed.cancelled() => Err(self.lost()),
            sent = self.to.send(theirs) => sent.map_err(|_| self.lost()),
        };
        sent.map(|()| self.channel(Ends { reader: here_out, writer: here_in }))
    }
    async fn accept(&self) -> Option<Channel> {
        let mut from = self.from.lock().await;
        tokio::select! { biased;
            () = self.closed.cancelled() => None,
            ends = from.recv() => ends.map(|ends| self.channel(ends)),
        }
    }
    fn close(&self, _: u16, _: &str) {
        self.closed.cancel();
    }
    fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }
    async fn closed(&self) {
        self.closed.cancelled().await;
    }
    fn remote_address(&self) -> String {
        "this process".to_owned()
    }
    fn rtt_ms(&self) -> Option<f64> {
        None
    }
    fn bytes_received(&self) -> Option<u64> {
        None
    }
}

impl Local {
    fn pipe(&self) -> (In, Out) {
        let (near, far) = duplex(BUFFER_BYTES);
        let ended = Arc::new(AtomicBool::new(false));
        let wait = || Box::pin(self.closed.clone().cancelled_owned());
        (
            In { stream: near, ended: ended.clone(), closed: wait(), _keep: None },
            Out { stream: far, ended, closed: wait(), _keep: None },
        )
    }
    fn channel(&self, ends: Ends) -> Channel {
        let (mut reader, mut writer) = (ends.reader, ends.writer);
        reader._keep = self.me.upgrade();
        writer._keep = self.me.upgrade();
        Channel { reader: Box::new(reader) as Reader, writer: Box::new(writer) as Writer }
    }
    fn lost(&self) -> Problem {
        let Remote::Certified { node, .. } = &self.remote else { return Problem::new(Code::PeerUnreachable) };
        Problem::new(Code::PeerUnreachable).with("peer", node).cause("it was closed")
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

type Closed = Pin<Box<WaitForCancellationFutureOwned>>;

/// What is written into goes to the [`Out`] that was made with it.
struct In {
    stream: DuplexStream,
    ended: Arc<AtomicBool>,
    closed: Closed,
    _keep: Option<Arc<Local>>,
}

struct Out {
    stream: DuplexStream,
    ended: Arc<AtomicBool>,
    closed: Closed,
    _keep: Option<Arc<Local>>,
}

impl In {
    fn open(&mut self, cx: &mut Context<'_>) -> io::Result<Pin<&mut DuplexStream>> {
        if self.closed.as_mut().poll(cx).is_ready() { Err(gone()) } else { Ok(Pin::new(&mut self.stream)) }
    }
}

impl AsyncWrite for In {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.open(cx)?.poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.open(cx)?.poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Before the reader can see the end.
        self.ended.store(true, Ordering::Release);
        self.open(cx)?.poll_shutdown(cx)
    }
}

impl WriteBytes for In {}

impl AsyncRead for Out {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let room = buf.remaining() > 0;
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Ready(Ok(())) if room && buf.filled().len() == before && !self.ended.load(Ordering::Acquire) => {
                Poll::Ready(Err(gone()))
            }
            Poll::Pending if self.closed.as_mut().poll(cx).is_ready() => Poll::Ready(Err(gone())),
            polled => polled,
        }
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "the channel was reset")
}

const BUFFER_BYTES: usize = 256 << 10;
const CHANNELS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn ends() -> (Arc<dyn Connection>, Arc<dyn Connection>) {
        pair(&"a.example".parse().unwrap(), &"b.example".parse().unwrap(), Transport::Ferry)
    }

    async fn channels() -> (Arc<dyn Connection>, Arc<dyn Connection>, Channel, Channel) {
        let (here, there) = ends();
        let ours = here.open().await.unwrap();
        let theirs = there.accept().await.unwrap();
        (here, there, ours, theirs)
    }

    async fn all(reader: &mut Reader) -> io::Result<Vec<u8>> {
        let mut read = Vec::new();
        tokio::time::timeout(Duration::from_secs(5), reader.read_to_end(&mut read)).await.unwrap().map(|_| read)
    }

    #[tokio::test]
    async fn each_end_sees_the_other_and_both_directions_end_apart() {
        let (here, there, mut ours, mut theirs) = channels().await;
        assert!(matches!(here.remote(), Remote::Certified { node, .. } if node.as_str() == "b.example"));
        assert!(matches!(there.remote(), Remote::Certified { node, .. } if node.as_str() == "a.example"));
        ours.writer.write_all(b"question").await.unwrap();
        ours.writer.shutdown().await.unwrap();
        assert_eq!(all(&mut theirs.reader).await.unwrap(), b"question");
        theirs.writer.write_all(b"answer").await.unwrap();
        theirs.writer.shutdown().await.unwrap();
        assert_eq!(all(&mut ours.reader).await.unwrap(), b"answer");
    }

    #[tokio::test]
    async fn a_writer_dropped_before_its_end_reads_as_an_error() {
        let (_here, _there, mut ours, mut theirs) = channels().await;
        ours.writer.write_all(b"half").await.unwrap();
        drop(ours.writer);
        assert!(all(&mut theirs.reader).await.is_err());
        theirs.writer.shutdown().await.unwrap();
        assert_eq!(all(&mut ours.reader).await.unwrap(), b"");
    }

    #[tokio::test]
    async fn closing_or_dropping_an_end_ends_every_channel_and_a_channel_keeps_it() {
        let (here, there, mut ours, mut theirs) = channels().await;
        drop(here);
        ours.writer.write_all(b"kept").await.unwrap();
        ours.writer.shutdown().await.unwrap();
        assert_eq!(all(&mut theirs.reader).await.unwrap(), b"kept");
        drop(ours);
        tokio::time::timeout(Duration::from_secs(5), there.closed()).await.unwrap();
        assert!(theirs.writer.write_all(b"x").await.is_err() && there.open().await.is_err());
        assert!(there.accept().await.is_none());
    }
}
