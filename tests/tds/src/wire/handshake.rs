//! TLS within PRELOGIN packets: until the handshake is over what TLS sends is wrapped, after it not.

use super::packet::{END, HEADER, PRELOGIN, header};
use std::io::{Error, ErrorKind, Result};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub struct Wrapped<L> {
    line: L,
    wrapping: bool,
    header: [u8; HEADER],
    header_have: usize,
    body_left: usize,
    outgoing: Vec<u8>,
    /// Of what goes out, made into packets and not yet sent.
    packets: Vec<u8>,
}

impl<L> Wrapped<L> {
    pub fn new(line: L) -> Self {
        Wrapped {
            line,
            wrapping: true,
            header: [0; HEADER],
            header_have: 0,
            body_left: 0,
            outgoing: Vec::new(),
            packets: Vec::new(),
        }
    }

    pub fn done(&mut self) {
        self.wrapping = false;
    }

    pub fn into_line(self) -> L {
        self.line
    }
}

impl<L: AsyncRead + Unpin> AsyncRead for Wrapped<L> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        if !this.wrapping {
            return Pin::new(&mut this.line).poll_read(context, buffer);
        }
        while this.body_left == 0 {
            let mut rest = ReadBuf::new(this.header.get_mut(this.header_have..).unwrap_or_default());
            ready!(Pin::new(&mut this.line).poll_read(context, &mut rest))?;
            let came = rest.filled().len();
            if came == 0 {
                return Poll::Ready(Ok(()));
            }
            this.header_have += came;
            if this.header_have < HEADER {
                continue;
            }
            this.header_have = 0;
            let [kind, _, high, low, ..] = this.header;
            if kind != PRELOGIN {
                return Poll::Ready(Err(Error::new(ErrorKind::InvalidData, "no greeting packet within the handshake")));
            }
            this.body_left = usize::from(u16::from_be_bytes([high, low])).saturating_sub(HEADER);
        }
        let mut part = vec![0; this.body_left.min(buffer.remaining())];
        let mut part = ReadBuf::new(&mut part);
        ready!(Pin::new(&mut this.line).poll_read(context, &mut part))?;
        this.body_left -= part.filled().len();
        buffer.put_slice(part.filled());
        Poll::Ready(Ok(()))
    }
}

impl<L: AsyncWrite + Unpin> AsyncWrite for Wrapped<L> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let this = self.get_mut();
        if !this.wrapping {
            return Pin::new(&mut this.line).poll_write(context, bytes);
        }
        this.outgoing.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        if !this.outgoing.is_empty() {
            let outgoing = std::mem::take(&mut this.outgoing);
            let parts = outgoing.chunks(4096 - HEADER);
            let last = parts.len().saturating_sub(1);
            for (at, part) in parts.enumerate() {
                let status = if at == last { END } else { 0 };
                this.packets.extend_from_slice(&header(PRELOGIN, status, part.len(), 0, at as u8));
                this.packets.extend_from_slice(part);
            }
        }
        while !this.packets.is_empty() {
            let went = ready!(Pin::new(&mut this.line).poll_write(context, &this.packets))?;
            if went == 0 {
                return Poll::Ready(Err(Error::new(ErrorKind::WriteZero, "the line takes nothing")));
            }
            this.packets.drain(..went);
        }
        Pin::new(&mut this.line).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.get_mut().line).poll_shutdown(context)
    }
}
