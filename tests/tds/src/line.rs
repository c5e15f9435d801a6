//! The line itself, with the faults that a test puts into it.

use crate::faults::{Faults, Line};
use std::io::{Error, ErrorKind, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

pub struct Faulty {
    stream: TcpStream,
    faults: Arc<Faults>,
    cut: bool,
    /// What comes is thrown away; only its end is noticed.
    deaf: bool,
    /// Nothing is sent any more.
    mute: bool,
}

impl Faulty {
    pub fn new(stream: TcpStream, faults: Arc<Faults>) -> Self {
        Faulty { stream, faults, cut: false, deaf: false, mute: false }
    }

    /// How many bytes may pass now; none where the line stalls from here on.
    fn ask(&mut self, line: Line) -> Result<Option<usize>> {
        match line {
            Line::Pass(bytes) if !self.cut => Ok(Some(usize::try_from(bytes).unwrap_or(usize::MAX))),
            Line::Stall => Ok(None),
            _ => {
                self.cut = true;
                Err(Error::new(ErrorKind::ConnectionReset, "the line was cut, as a test asked for"))
            }
        }
    }

    /// Until the other side is gone, so that what its session holds is let go of then.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        let mut bytes = [0; 4096];
        loop {
            let mut part = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut part))?;
            if part.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncRead for Faulty {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        if self.deaf {
            return self.poll_end(context);
        }
        let wanted = self.faults.receive(buffer.remaining() as u64);
        let Some(allowed) = self.ask(wanted)? else {
            self.deaf = true;
            return self.poll_end(context);
        };
        let mut bytes = vec![0; allowed.min(16_384).min(buffer.remaining())];
        let mut part = ReadBuf::new(&mut bytes);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut part))?;
        let came = part.filled();
        self.faults.received(came.len() as u64);
        buffer.put_slice(came);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Faulty {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        if self.mute {
            // Nothing wakes it: the connection ends when the other side does.
            return Poll::Pending;
        }
        let wanted = self.faults.send(bytes.len() as u64);
        let Some(allowed) = self.ask(wanted)? else {
            self.mute = true;
            return Poll::Pending;
        };
        let part = bytes.get(..allowed.min(bytes.len())).unwrap_or_default();
        let went = ready!(Pin::new(&mut self.stream).poll_write(context, part))?;
        self.faults.sent(went as u64);
        Poll::Ready(Ok(went))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
