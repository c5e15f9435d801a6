//! One TLS stream as a channel whose halves end apart, as those of a QUIC stream do: `shutdown` sends
//! TLS's close_notify, which alone reads as the end; a writer dropped before that closes the TCP
//! direction bare, which reads as an error. When the connection ends, both halves fail at once.

use crate::endpoint::{Channel, WriteBytes};
use crate::network::BoxLine;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, BufReader, ReadBuf};
use tokio_rustls::TlsStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// rustls reads 4 KiB at a time: straight from the system, that would be a call for each.
pub(super) type Tls = TlsStream<BufReader<BoxLine>>;

pub(super) fn buffered(line: BoxLine) -> BufReader<BoxLine> {
    BufReader::with_capacity(READ_BYTES, line)
}

/// `keep` lives until both halves are gone.
pub(super) fn channel(stream: Tls, closed: &CancellationToken, keep: impl Send + 'static) -> Channel {
    let halves = Arc::new(Halves {
        stream: Mutex::new(Some(stream)),
        ended: Mutex::default(),
        closed: closed.clone(),
        keep: Mutex::new(Some(Box::new(keep))),
    });
    let wait = || Box::pin(closed.clone().cancelled_owned());
    Channel {
        reader: Box::new(Reader { halves: halves.clone(), closed: wait() }),
        writer: Box::new(Writer { halves, closed: wait(), done: false }),
    }
}

struct Halves {
    stream: Mutex<Option<Tls>>,
    ended: Mutex<Ended>,
    closed: CancellationToken,
    keep: Mutex<Option<Box<dyn Send>>>,
}

#[derive(Default)]
struct Ended {
    /// The other side's end was read.
    read: bool,
    /// This side's end was written.
    written: bool,
}

impl Halves {
    fn stream(&self) -> MutexGuard<'_, Option<Tls>> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn ended(&self) -> MutexGuard<'_, Ended> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn with<T>(&self, work: impl FnOnce(Pin<&mut Tls>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match self.stream().as_mut() {
            Some(stream) => work(Pin::new(stream)),
            None => Poll::Ready(Err(gone())),
        }
    }
}

impl Drop for Halves {
    fn drop(&mut self) {
        let Ended { read, written } = *self.ended();
        let Some(mut stream) = self.stream().take() else { return };
        let keep = self.keep.lock().unwrap_or_else(PoisonError::into_inner).take();
        if !written || read || self.closed.is_cancelled() {
            return;
        }
        // Closing a socket with unread bytes makes the kernel send a reset that may overtake what was
        // written last. So the rest is read and thrown away, within bounds, before it is closed.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let closed = self.closed.clone();
        runtime.spawn(async move {
            let mut rest = vec![0; 16 << 10];
            let drain = async {
                let mut left = LINGER_BYTES;
                while let Ok(n @ 1..) = stream.read(&mut rest).await {
                    left = left.saturating_sub(n);
                    if left == 0 {
                        return;
                    }
                }
            };
            tokio::select! { biased;
                () = closed.cancelled() => {}
                () = drain => {}
                () = tokio::time::sleep(LINGER) => {}
            }
            drop(keep);
        });
    }
}

struct Reader {
    halves: Arc<Halves>,
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl AsyncRead for Reader {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let room = buf.remaining() > 0;
        match self.halves.with(|stream| stream.poll_read(cx, buf)) {
            Poll::Ready(Ok(())) => {
                if room && buf.filled().len() == before {
                    self.halves.ended().read = true;
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => {
                self.halves.ended().read = true;
                Poll::Ready(Err(reset(error)))
            }
            Poll::Pending => match self.closed.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(Err(gone())),
                Poll::Pending => Poll::Pending,
            },
        }
    }
}

struct Writer {
    halves: Arc<Halves>,
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
    done: bool,
}

impl Writer {
    fn polled<T>(
        &mut self,
        cx: &mut Context<'_>,
        work: impl FnOnce(Pin<&mut Tls>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.closed.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(gone()));
        }
        self.halves.with(|stream| work(stream, cx))
    }
}

impl AsyncWrite for Writer {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.polled(cx, |stream, cx| stream.poll_write(cx, buf))
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.polled(cx, |stream, cx| stream.poll_flush(cx))
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = self.polled(cx, |stream, cx| stream.poll_shutdown(cx));
        if let Poll::Ready(Ok(())) = result {
            self.done = true;
            self.halves.ended().written = true;
        }
        result
    }
}

impl WriteBytes for Writer {}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        if let Some(stream) = self.halves.stream().as_mut() {
            // The end of TCP without the end of TLS. A half-close completes at once; were it to fail,
            // the socket is closed when the reader goes.
            let line = stream.get_mut().0;
            let _ = Pin::new(line).poll_shutdown(&mut Context::from_waker(Waker::noop()));
        }
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "the connection was closed")
}

/// A TLS stream that ends without its end was cut.
fn reset(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => io::Error::new(io::ErrorKind::ConnectionReset, "the channel was reset"),
        _ => error,
    }
}

const READ_BYTES: usize = 64 << 10;
const LINGER: Duration = Duration::from_secs(5);
const LINGER_BYTES: usize = 4 << 20;
