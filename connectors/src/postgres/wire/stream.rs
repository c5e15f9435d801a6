//! A line to one server: TCP, TCP under TLS, or a Unix socket. Dialling one and telling whether a secret may be
//! sent over it; what is said there is elsewhere.

use super::error::WireError;
use super::tls::{self, Tls};
use crate::postgres::settings::Address;
use bytes::BytesMut;
use postgres_protocol::message::frontend;
use rustix::net::sockopt;
use rustls::{ClientConnection, StreamOwned};
use std::io::{self, BufReader, IoSlice, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How to reach a server, again where need be: a cancel request takes the same way.
#[derive(Debug, Clone)]
pub(super) struct Dial {
    pub(super) address: Address,
    /// Absent: in the clear.
    pub(super) tls: Option<Tls>,
}

pub(super) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, Socket>>),
}

/// Who may listen or stand in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Privacy {
    /// Nobody but this machine, or the server whose certificate was verified.
    Private,
    /// Nobody who only listens; who answers is unknown.
    Encrypted,
    Open,
}

impl Dial {
    pub(super) fn open(&self) -> Result<Stream, WireError> {
        let tcp = match &self.address {
            Address::Unix(path) => {
                let socket = UnixStream::connect(path).map_err(|e| self.because(e))?;
                socket.set_read_timeout(Some(LOGIN)).and_then(|()| socket.set_write_timeout(Some(LOGIN)))?;
                return Ok(Stream::Unix(socket));
            }
            Address::Tcp { host, port } => connect(host, *port).map_err(|e| self.because(e))?,
        };
        let Some(tls) = &self.tls else { return Ok(Stream::Tcp(tcp)) };
        let Address::Tcp { host, .. } = &self.address else { return Ok(Stream::Tcp(tcp)) };
        request_tls(&tcp, host)?;
        let connection = tls.connection(host)?;
        let mut stream = StreamOwned::new(connection, Socket(BufReader::with_capacity(TLS_BUFFER, tcp)));
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).map_err(|e| tls::refused(host, e))?;
        }
        Ok(Stream::Tls(Box::new(stream)))
    }

    pub(super) fn privacy(&self) -> Privacy {
        match &self.tls {
            _ if self.address.is_local() => Privacy::Private,
            Some(tls) if tls.verifies() => Privacy::Private,
            Some(_) => Privacy::Encrypted,
            None => Privacy::Open,
        }
    }

    /// An error of connecting that says where to.
    fn because(&self, error: io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("{}: {error}", self.address))
    }
}

/// Tries the addresses of a name in turn.
fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT) {
            Ok(socket) => {
                prepare(&socket)?;
                return Ok(socket);
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// Send and receive buffers are left to the kernel, which sizes them to the line as it goes.
fn prepare(socket: &TcpStream) -> io::Result<()> {
    // Messages are written whole; waiting for more would only delay the answer.
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(LOGIN))?;
    socket.set_write_timeout(Some(LOGIN))?;
    // A statement may run for hours in silence: only the peer's kernel can tell that its machine is still there.
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, Duration::from_secs(60))?;
    sockopt::set_tcp_keepintvl(socket, Duration::from_secs(15))?;
    sockopt::set_tcp_keepcnt(socket, 6)?;
    // As long as the probes above: bytes that nobody acknowledges are a lost line too.
    Ok(sockopt::set_tcp_user_timeout(socket, 150_000)?)
}

fn request_tls(mut tcp: &TcpStream, host: &str) -> Result<(), WireError> {
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    tcp.write_all(&request)?;
    // One byte and no more: what stands behind it would have come in the clear.
    let mut answer = [0];
    tcp.read_exact(&mut answer)?;
    match answer {
        [b'S'] => Ok(()),
        [b'N'] => Err(WireError::Tls(format!(
            "{host} offers no encryption: turn on `ssl` in the server, or say `tls = \"off\"` here if its line is safe"
        ))),
        _ => Err(WireError::Protocol(format!("{host} does not speak PostgreSQL's protocol"))),
    }
}

impl Stream {
    /// The time that one read or write may take; none once the login is done, since a statement may be silent.
    pub(super) fn set_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Unix(socket) => socket.set_read_timeout(limit).and_then(|()| socket.set_write_timeout(limit)),
            Self::Tcp(socket) => socket.set_read_timeout(limit).and_then(|()| socket.set_write_timeout(limit)),
            Self::Tls(tls) => {
                let socket = tls.sock.0.get_ref();
                socket.set_read_timeout(limit).and_then(|()| socket.set_write_timeout(limit))
            }
        }
    }

    /// Reads what is there and waits for nothing; `None` where nothing is.
    pub(super) fn read_ready(&mut self, into: &mut [u8]) -> io::Result<Option<usize>> {
        self.set_nonblocking(true)?;
        let read = match self.read(into) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
            Ok(bytes) => Ok(Some(bytes)),
        };
        self.set_nonblocking(false)?;
        read
    }

    fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        match self {
            Self::Unix(socket) => socket.set_nonblocking(on),
            Self::Tcp(socket) => socket.set_nonblocking(on),
            Self::Tls(tls) => tls.sock.0.get_ref().set_nonblocking(on),
        }
    }

    /// The server's certificate, where it showed one.
    pub(super) fn certificate(&self) -> Option<&[u8]> {
        match self {
            Self::Tls(tls) => tls.conn.peer_certificates()?.first().map(AsRef::as_ref),
            Self::Unix(_) | Self::Tcp(_) => None,
        }
    }

    /// Writes two pieces one behind the other without joining them first.
    pub(super) fn write_both(&mut self, head: &[u8], body: &[u8]) -> io::Result<()> {
        let mut pieces = [IoSlice::new(head), IoSlice::new(body)];
        let mut rest = &mut pieces[..];
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            match self.write_vectored(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut rest, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.flush()
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(socket) => socket.read(into),
            Self::Tcp(socket) => socket.read(into),
            Self::Tls(tls) => tls.read(into),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(socket) => socket.write(bytes),
            Self::Tcp(socket) => socket.write(bytes),
            Self::Tls(tls) => tls.write(bytes),
        }
    }
    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Unix(socket) => socket.write_vectored(pieces),
            Self::Tcp(socket) => socket.write_vectored(pieces),
            Self::Tls(tls) => tls.write_vectored(pieces),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Unix(_) | Self::Tcp(_) => Ok(()),
            Self::Tls(tls) => tls.flush(),
        }
    }
}

/// What TLS reads from in large pieces: by itself it asks the kernel for a record or two at a time.
pub(super) struct Socket(BufReader<TcpStream>);

impl Read for Socket {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.get_mut().write(bytes)
    }
    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.get_mut().write_vectored(pieces)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const CONNECT: Duration = Duration::from_secs(10);
/// For each step of the handshake and the login.
pub(super) const LOGIN: Duration = Duration::from_secs(30);
const TLS_BUFFER: usize = 128 << 10;
