//! Accept and dial: authenticated connections between two certified names, over QUIC or TLS/TCP, or over TLS on lines
//! that relays carry.
//! Above this file nobody knows which of the two carries a connection.

mod both;
pub(crate) mod shared;
#[cfg(test)]
mod tests;

use crate::World;
use crate::identity::Identity;
use crate::network::BoxLine;
use bytes::{Buf, Bytes};
use posthouse_protocol::frame::Relay;
use posthouse_protocol::id::NodeId;
use posthouse_protocol::problem::Problem;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// ALPN of exchange and coordinator traffic: both sides certified.
pub const ALPN: &[u8] = b"posthouse/1";
/// ALPN of joining and returning: only the coordinator is certified.
pub const ALPN_JOIN: &[u8] = b"posthouse-join/1";

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    Quic,
    Tcp,
    /// No line at all: parts in folders, or on a disk that is carried.
    Ferry,
}

impl Transport {
    /// As it stands in statements and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
            Self::Ferry => "ferry",
        }
    }
}

/// What to try when dialling: `auto` races QUIC and TCP with a head start for QUIC, and takes TCP within a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransportChoice {
    #[default]
    Auto,
    Quic,
    Tcp,
}

impl From<Transport> for TransportChoice {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Quic => Self::Quic,
            Transport::Tcp => Self::Tcp,
            Transport::Ferry => Self::Auto,
        }
    }
}

/// Who is at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remote {
    /// Certified under the pinned CA, by the one DNS SAN of its certificate.
    Certified { node: NodeId, certificate_sha256: [u8; 32] },
    /// Over `posthouse-join/1`, as a joining node is.
    Unknown,
}

pub type Reader = Box<dyn AsyncRead + Send + Unpin>;
pub type Writer = Box<dyn WriteBytes>;

/// A channel's writer. Bytes that are shared need not be copied on their way.
pub trait WriteBytes: AsyncWrite + Send + Unpin {
    /// Takes some of `bytes`, which must not be empty: what it took is cut off from them.
    fn poll_take(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &mut Bytes) -> Poll<io::Result<()>> {
        let taken = ready!(self.poll_write(cx, bytes))?;
        bytes.advance(taken);
        Poll::Ready(if taken > 0 { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) })
    }
}

/// Writes all of the bytes.
pub async fn write_bytes(writer: &mut Writer, mut bytes: Bytes) -> io::Result<()> {
    while !bytes.is_empty() {
        poll_fn(|cx| Pin::new(&mut **writer).poll_take(cx, &mut bytes)).await?;
    }
    Ok(())
}

/// A pair of byte streams within a connection, whose directions end apart.
/// - `shutdown` of the writer is the end that the other side reads; what was written before it arrives.
/// - A writer dropped before `shutdown` resets its direction: the other side reads an error, never an end.
/// - Bytes are sure to leave only after `flush` or `shutdown`.
/// - Whoever opens a channel writes first: the other side may learn of it only by its first byte.
/// - A channel keeps its connection; closing the connection ends all its channels at once.
pub struct Channel {
    pub reader: Reader,
    pub writer: Writer,
}

/// One authenticated connection; either side opens channels.
#[async_trait::async_trait]
pub trait Connection: Send + Sync {
    fn remote(&self) -> &Remote;
    fn transport(&self) -> Transport;
    /// Whether this side dialled.
    fn dialled(&self) -> bool;
    fn join(&self) -> bool;
    async fn open(&self) -> Result<Channel, Problem>;
    /// None once the connection is closed.
    async fn accept(&self) -> Option<Channel>;
    fn close(&self, code: u16, reason: &str);
    fn is_closed(&self) -> bool;
    async fn closed(&self);
    fn remote_address(&self) -> String;
    /// How relays carry it; None where the two ends reach each other.
    fn relayed(&self) -> Option<&Relayed> {
        None
    }
    /// Round-trip estimate in milliseconds, where known.
    fn rtt_ms(&self) -> Option<f64>;
    /// Bytes that have come over it, down to the last acknowledgement. None where the system keeps that to itself, as
    /// it does of TCP.
    fn bytes_received(&self) -> Option<u64>;
    /// Whether the peer has said a moment ago that the line takes less than it has to send.
    fn is_held(&self) -> bool {
        false
    }
}

/// A way through relays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relayed {
    /// In order from the consumer to the provider.
    pub route: Vec<NodeId>,
    /// What they were told that the line is for.
    pub asked: Relay,
}

impl std::fmt::Display for Relayed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "relays {}", self.route.iter().map(NodeId::as_str).collect::<Vec<_>>().join(", "))
    }
}

/// Lines to a peer that relays carry, as many as are asked for.
#[async_trait::async_trait]
pub trait Lines: Send + Sync {
    fn relayed(&self) -> &Relayed;
    /// How long one may take to stand.
    fn patience(&self) -> Duration;
    async fn open(&self) -> Result<BoxLine, Problem>;
}

pub struct Listen {
    /// e.g. `[::]:7843`; None = dials out only.
    pub address: Option<String>,
    pub choice: TransportChoice,
    /// Offer `posthouse-join/1` (coordinators).
    pub join: bool,
}

/// Whom to dial. `peer` must be the exact DNS SAN of the certificate presented.
pub struct Dial<'a> {
    pub peer: &'a NodeId,
    /// host:port
    pub address: &'a str,
    pub choice: TransportChoice,
    pub trust: DialTrust,
}

#[derive(Debug, Clone)]
pub enum DialTrust {
    /// The pinned CA of this endpoint's identity; this side presents its certificate.
    Certified,
    /// Joining: the CA certificate's SHA-256 from the token; no client certificate.
    Join { ca_sha256: [u8; 32] },
}

/// Opens the listeners that `listen` asks for and a dialler. Without an identity the endpoint only dials, and
/// only with [`DialTrust::Join`].
pub async fn bind(world: World, identity: Option<Arc<Identity>>, listen: Listen) -> Result<Arc<dyn Endpoint>, Problem> {
    both::bind(world, identity, listen).await
}

/// Both listeners and the dialler of one process.
#[async_trait::async_trait]
pub trait Endpoint: Send + Sync {
    /// The next connection whose handshake completed; failures are logged with the true reason and counted.
    async fn accept(&self) -> Option<Arc<dyn Connection>>;
    async fn dial(&self, dial: Dial<'_>) -> Result<Arc<dyn Connection>, Problem>;
    /// Reaches a peer through relays: TLS from end to end, a line for each channel.
    async fn dial_through(&self, peer: &NodeId, lines: Arc<dyn Lines>) -> Result<Arc<dyn Connection>, Problem>;
    /// Takes a line that a relay has brought; who is at its other end shows by its certificate.
    fn arrived(&self, line: BoxLine, relayed: Relayed);
    /// After a renewal: new handshakes use it, open connections go on.
    fn set_identity(&self, identity: Arc<Identity>);
    /// Names whose handshakes are refused; what is open with them is closed.
    fn set_denied(&self, denied: Vec<NodeId>);
    /// Where it listens; None when it only dials.
    fn local_address(&self) -> Option<std::net::SocketAddr>;
    /// Handshakes that were refused or came to nothing since the start.
    fn refused(&self) -> u64;
    async fn close(&self);
}

/// An address as people write it: IPv4 in its own form also where the socket carries both.
pub(crate) fn shown(address: std::net::SocketAddr) -> String {
    std::net::SocketAddr::new(address.ip().to_canonical(), address.port()).to_string()
}
