//! Which way lines to a peer go: to its port, or by relays; and how one of them comes to stand.

use super::channel::{Tls, buffered};
use crate::endpoint::shared::{HANDSHAKE, Shared, unreachable};
use crate::endpoint::{DialTrust, Lines, Relayed};
use crate::identity::verify::Judge;
use crate::network::within;
use posthouse_protocol::id::NodeId;
use posthouse_protocol::problem::Problem;
use rustls_pki_types::ServerName;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::TlsConnector;

/// Where a dialler's channels go.
pub(super) struct To {
    pub(super) peer: NodeId,
    /// As the policy has its address; empty where there is none.
    pub(super) name: String,
    pub(super) way: Way,
    pub(super) trust: DialTrust,
}

pub(super) enum Way {
    Tcp(SocketAddr),
    Relayed(Arc<dyn Lines>),
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "TCP {address}"),
            Self::Relayed(lines) => std::fmt::Display::fmt(lines.relayed(), f),
        }
    }
}

/// The other end of a line, as this side knows it before it has shown who it is.
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) shown: String,
    pub(super) relayed: Option<Relayed>,
}

impl From<SocketAddr> for Caller {
    fn from(address: SocketAddr) -> Self {
        Self { shown: crate::endpoint::shown(address), relayed: None }
    }
}

impl From<Relayed> for Caller {
    fn from(relayed: Relayed) -> Self {
        Self { shown: relayed.to_string(), relayed: Some(relayed) }
    }
}

impl std::fmt::Display for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown)
    }
}

/// A TLS connection that was dialled.
pub(super) struct Connected {
    pub(super) stream: Tls,
    pub(super) judge: Arc<Judge>,
    /// Of the certificate at its other end.
    pub(super) certificate_sha256: [u8; 32],
    /// How long the system's part of it took, which is a round trip.
    pub(super) took: Duration,
}

impl To {
    pub(super) async fn connect(&self, shared: &Shared) -> Result<Connected, Problem> {
        let (tls, judge) = shared.dial_tls(&self.peer, &self.trust)?;
        let began = shared.world.clock.monotonic();
        let line = match &self.way {
            Way::Tcp(address) => within(HANDSHAKE, shared.world.network.dial_tcp(*address))
                .await
                .map_err(|e| unreachable(&self.peer, &self.name).cause(format!("{}: {e}", self.way)))?,
            Way::Relayed(lines) => lines.open().await?,
        };
        let took = shared.world.clock.monotonic().saturating_sub(began);
        let name = ServerName::try_from(self.peer.as_str().to_owned())
            .map_err(|e| unreachable(&self.peer, &self.name).cause(e))?;
        let stream = TlsConnector::from(tls).connect(name, buffered(line)).await;
        let stream = stream.map_err(|e| self.explain(shared, &judge, e))?;
        let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let certificate_sha256 = leaf.map(|leaf| posthouse_protocol::codec::sha256(leaf)).unwrap_or_default();
        Ok(Connected { stream: Tls::Client(stream), judge, certificate_sha256, took })
    }

    pub(super) fn explain(&self, shared: &Shared, judge: &Judge, error: io::Error) -> Problem {
        if let Some(problem) = judge.refusal() {
            return problem;
        }
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::AlertReceived(alert)) => shared.rejected(&self.peer, &self.name, u8::from(*alert)),
            _ => unreachable(&self.peer, &self.name).cause(format!("{}: {error}", self.way)),
        }
    }

    /// How long a line may take to stand.
    pub(super) fn patience(&self) -> Duration {
        match &self.way {
            Way::Tcp(_) => HANDSHAKE,
            Way::Relayed(lines) => lines.patience(),
        }
    }

    pub(super) fn caller(&self) -> Caller {
        match &self.way {
            Way::Tcp(address) => (*address).into(),
            Way::Relayed(lines) => lines.relayed().clone().into(),
        }
    }
}
