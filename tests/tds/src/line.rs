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
    stalled: bool,
}

impl Faulty {
    pub fn new(stream: TcpStream, faults: Arc<Faults>) -> Self {
        Faulty { stream, faults, cut: false, stalled: false }
    }

    /// How many of these bytes may pass now; none that ever will when it is stalled.
    fn ask(&mut self, line: Line) -> Poll<Result<usize>> {
        if self.stalled {
            // Nothing wakes it: the connection ends when its task does.
            return Poll::Pending;
        }
        match line {
            Line::Pass(bytes) if !self.cut => Poll::Ready(Ok(usize::try_from(bytes).unwrap_or(usize::MAX))),
            Line::Stall => {
                self.stalled = true;
                Poll::Pending
            }
            _ => {
                self.cut = true;
                Poll::Ready(Err(Error::new(ErrorKind::ConnectionReset, "the line was cut, as a test asked for")))
            }
        }
    }
}

impl AsyncRead for Faulty {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let wanted = self.faults.receive(buffer.remaining() as u64);
        let allowed = ready!(self.ask(wanted))?;
        let mut bytes = vec![0; allowed.min(16_384)];
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
        let wanted = self.faults.send(bytes.len() as u64);
        let allowed = ready!(self.ask(wanted))?;
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
