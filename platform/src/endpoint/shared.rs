//! What both transports of an endpoint share: the identity of the moment, the deny-list, the TLS
//! configurations (TLS 1.3, no resumption, so that every connection is judged anew), the welcome,
//! who is connected and how many times, and the words for what went wrong.

use super::{ALPN, ALPN_JOIN, Connection, DialTrust, Remote};
use crate::World;
use crate::identity::verify::{Denied, Judge, Trust, facts, provider};
use crate::identity::{Identity, inside};
use posthouse_protocol::codec::sha256;
use posthouse_protocol::id::NodeId;
use posthouse_protocol::limits;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::time::Timestamp;
use rustls::sign::SingleCertAndKey;
use rustls_pki_types::CertificateDer;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;
use tokio::sync::mpsc;

/// Where connections go that others dialled.
pub(crate) type Incoming = mpsc::Sender<Arc<dyn Connection>>;

pub(crate) struct Shared {
    pub(crate) world: World,
    identity: RwLock<Option<Arc<Identity>>>,
    pub(crate) denied: Denied,
    /// Whether `posthouse-join/1` is answered.
    pub(crate) join: bool,
    open: Mutex<Open>,
    refused: AtomicU64,
    /// When a refusal was last logged as a warning, on the monotonic clock.
    warned_ms: AtomicU64,
}

/// Connections that are open, by who is at the other end; weak, for their owners end them by dropping.
#[derive(Default)]
struct Open {
    certified: BTreeMap<NodeId, Vec<Weak<dyn Connection>>>,
    joining: Vec<Weak<dyn Connection>>,
}

impl Shared {
    pub(crate) fn new(world: World, identity: Option<Arc<Identity>>, join: bool) -> Arc<Self> {
        Arc::new(Self {
            world,
            identity: RwLock::new(identity),
            denied: Denied::default(),
            join,
            open: Mutex::default(),
            refused: AtomicU64::new(0),
            warned_ms: AtomicU64::new(0),
        })
    }

    pub(crate) fn identity(&self) -> Option<Arc<Identity>> {
        self.identity.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_identity(&self, identity: Arc<Identity>) {
        *self.identity.write().unwrap_or_else(PoisonError::into_inner) = Some(identity);
    }

    /// TLS of one handshake that is accepted, with its judge.
    pub(crate) fn accept_tls(&self) -> Result<(Arc<rustls::ServerConfig>, Arc<Judge>), Problem> {
        let identity = self.identity().ok_or_else(|| inside("accept", &"this endpoint has no identity"))?;
        let trust = Trust::Authority(identity.authority().clone());
        let judge = Judge::new(trust, None, self.join, self.denied.clone(), self.world.clock.clone());
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| inside("configure TLS", &e))?
            .with_client_cert_verifier(judge.clone())
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified()?)));
        config.alpn_protocols = vec![ALPN.to_vec()];
        if self.join {
            config.alpn_protocols.push(ALPN_JOIN.to_vec());
        }
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        Ok((Arc::new(config), judge))
    }

    /// TLS of one handshake that is dialled, with its judge.
    pub(crate) fn dial_tls(
        &self,
        peer: &NodeId,
        trust: &DialTrust,
    ) -> Result<(Arc<rustls::ClientConfig>, Arc<Judge>), Problem> {
        let (trust, identity) = match trust {
            DialTrust::Join { ca_sha256 } => (Trust::AuthoritySha256(*ca_sha256), None),
            DialTrust::Certified => {
                let identity = self.identity().ok_or_else(|| {
                    Problem::new(Code::CertificateInvalid).with("peer", "this node").cause("it has not joined yet")
                })?;
                (Trust::Authority(identity.authority().clone()), Some(identity))
            }
        };
        let judge = Judge::new(trust, Some(peer.clone()), false, self.denied.clone(), self.world.clock.clone());
        let builder = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| inside("configure TLS", &e))?
            .dangerous()
            .with_custom_certificate_verifier(judge.clone());
        let mut config = match &identity {
            Some(identity) => {
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified()?)))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![if identity.is_some() { ALPN.to_vec() } else { ALPN_JOIN.to_vec() }];
        config.resumption = rustls::client::Resumption::disabled();
        Ok((Arc::new(config), judge))
    }

    /// Who completed a handshake that was accepted. `posthouse/1` needs a certificate.
    pub(crate) fn remote(&self, alpn: Option<&[u8]>, chain: Option<&[CertificateDer<'_>]>) -> Result<Remote, Problem> {
        match (alpn, chain.and_then(<[_]>::first)) {
            (Some(ALPN_JOIN), _) if self.join => Ok(Remote::Unknown),
            (Some(ALPN), Some(leaf)) => match facts(leaf) {
                Ok(facts) => Ok(Remote::Certified { node: facts.node, certificate_sha256: sha256(leaf) }),
                Err(cause) => Err(Problem::new(Code::CertificateInvalid).with("peer", "the peer").cause(cause)),
            },
            (Some(ALPN), None) => Err(Problem::new(Code::CertificateInvalid)
                .with("peer", "the peer")
                .cause("it presented no certificate")),
            _ => Err(Problem::new(Code::CertificateInvalid)
                .with("peer", "the peer")
                .cause("it asked for another protocol")),
        }
    }

    /// Takes an accepted connection into account. One name holds a bounded number: its oldest gives way,
    /// for a peer that was cut off may come back before this side has noticed.
    pub(crate) fn admit(&self, connection: &Arc<dyn Connection>) -> Result<(), Problem> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let held = open.of(connection.remote());
        held.retain(alive);
        match connection.remote() {
            Remote::Unknown => {
                // Whoever is not known yet is bounded by address as well, or one could keep all others out.
                let from = host(&connection.remote_address());
                let same = held.iter().filter_map(Weak::upgrade).filter(|c| host(&c.remote_address()) == from).count();
                if held.len() >= JOINING_MAX || same >= JOINING_PER_ADDRESS_MAX {
                    return Err(Problem::new(Code::Busy)
                        .with("peer", "the coordinator")
                        .cause("too many nodes are joining"));
                }
            }
            Remote::Certified { node, .. } => {
                let is_like = like(connection);
                let count = held.iter().filter(|known| is_like(known)).count();
                // Through relays each transfer has a connection of its own: none gives way to another.
                if connection.relayed().is_some() && count >= RELAYED_MAX {
                    let cause = format!("it has {RELAYED_MAX} connections through relays");
                    return Err(Problem::new(Code::Busy).with("peer", node).cause(cause));
                }
                if connection.relayed().is_none()
                    && count >= limits::CONNECTIONS_PER_PEER_MAX
                    && let Some(at) = held.iter().position(is_like)
                    && let Some(oldest) = held.remove(at).upgrade()
                {
                    oldest.close(Code::Busy.number(), "a newer connection of the same node took its place");
                }
            }
        }
        held.push(Arc::downgrade(connection));
        Ok(())
    }

    /// Notes a connection that was dialled, so that revoking its peer ends it.
    pub(crate) fn note(&self, connection: &Arc<dyn Connection>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // Dialled ones count towards the same list, but the dialler decides how many it needs.
        let held = open.of(connection.remote());
        held.retain(alive);
        if held.iter().filter(|known| like(connection)(known)).count() < NOTED_MAX {
            held.push(Arc::downgrade(connection));
        }
    }

    /// Refuses these names from now on and ends what is open with them.
    pub(crate) fn deny(&self, names: Vec<NodeId>) {
        self.denied.set(names.iter().cloned());
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for name in names {
            for connection in open.certified.remove(&name).unwrap_or_default() {
                if let Some(connection) = connection.upgrade() {
                    connection.close(Code::NodeRevoked.number(), "this node has been revoked");
                }
            }
        }
    }

    pub(crate) fn close_all(&self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let Open { certified, joining } = std::mem::take(&mut *open);
        for connection in certified.into_values().flatten().chain(joining) {
            if let Some(connection) = connection.upgrade() {
                connection.close(0, "closing");
            }
        }
    }

    /// Logs why a handshake that was accepted came to nothing, and counts it.
    pub(crate) fn refused(&self, from: &dyn std::fmt::Display, judge: Option<&Judge>, error: &dyn std::fmt::Display) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        match judge.and_then(Judge::refusal) {
            // Anyone can present a bad certificate as often as it pleases: one warning a second says enough.
            Some(problem) if self.warns() => tracing::warn!(%from, %problem, "Refused a peer"),
            Some(problem) => tracing::debug!(%from, %problem, "Refused a peer"),
            // Scanners and health checks end here as well; they wake nobody.
            None => tracing::debug!(%from, %error, "Handshake came to nothing"),
        }
    }

    fn warns(&self) -> bool {
        let now = u64::try_from(self.world.clock.monotonic().as_millis()).unwrap_or(u64::MAX);
        let last = self.warned_ms.load(Ordering::Relaxed);
        let due = last == 0 || now.saturating_sub(last) >= WARN_EVERY_MS;
        due && self.warned_ms.compare_exchange(last, now.max(1), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    pub(crate) fn refused_count(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// The first bytes from the accepting side, which tell the dialler that its certificate was accepted.
    pub(crate) fn welcome(&self, token: &[u8; TOKEN_BYTES]) -> [u8; WELCOME_BYTES] {
        let mut out = [0; WELCOME_BYTES];
        out[0] = WELCOME_VERSION;
        out[1..9].copy_from_slice(&self.world.clock.now().0.to_be_bytes());
        out[9..].copy_from_slice(token);
        out
    }

    /// Reads a welcome: the token for channels over TCP. A clock far off is named, not refused: what
    /// depends on it is refused by its certificate or its policy.
    pub(crate) fn welcomed(&self, peer: &NodeId, bytes: &[u8; WELCOME_BYTES]) -> Result<[u8; TOKEN_BYTES], Problem> {
        let [version, t0, t1, t2, t3, t4, t5, t6, t7, token @ ..] = bytes;
        if *version != WELCOME_VERSION {
            return Err(unreachable(peer, "").cause("it answered with another version of the transport"));
        }
        let theirs = Timestamp(i64::from_be_bytes([*t0, *t1, *t2, *t3, *t4, *t5, *t6, *t7]));
        let skew = theirs.since_ms(self.world.clock.now());
        if skew.saturating_abs() > limits::CLOCK_SKEW_MS {
            let problem =
                Problem::new(Code::ClockWrong).with("seconds", skew.saturating_abs() / 1000).with("peer", peer);
            tracing::warn!(%peer, %problem, "Clocks differ");
        }
        Ok(*token)
    }

    /// What a TLS alert of the peer means for a dialler.
    pub(crate) fn rejected(&self, peer: &NodeId, address: &str, alert: u8) -> Problem {
        let now = self.world.clock.now();
        let own = self.identity();
        let own_name = own.as_ref().map_or("this node", |own| own.node().as_str());
        let invalid = |cause: String| Problem::new(Code::CertificateInvalid).with("peer", own_name).cause(cause);
        match alert {
            ALERT_EXPIRED => {
                match &own {
                    Some(own) if own.expired(now) => Problem::new(Code::CertificateExpired)
                        .with("peer", own.node())
                        .with("expired", own.not_after())
                        .cause(format!("{peer} refused it")),
                    Some(own) => {
                        let least = own.not_after().since_ms(now).min(now.since_ms(own.not_before())).max(0) / 1000;
                        Problem::new(Code::ClockWrong).with("seconds", format!("≥{least}")).with("peer", peer).with("local_time", now).cause(
                        format!("by the clock of {peer} this node's certificate does not hold, by the clock here it does"),
                    )
                    }
                    None => invalid(format!("{peer} holds it for expired")),
                }
            }
            ALERT_REVOKED => Problem::new(Code::NodeRevoked).with("node", own_name).with("by", peer),
            ALERT_UNKNOWN_CA => Problem::new(Code::CertificateOfOther)
                .with("peer", own_name)
                .cause(format!("{peer} does not know the CA that certified this node")),
            ALERT_NO_PROTOCOL => {
                unreachable(peer, address).cause("what answers there does not take this kind of connection")
            }
            other => invalid(format!("{peer} refused it (TLS alert {other})")),
        }
    }
}

impl Open {
    fn of(&mut self, remote: &Remote) -> &mut Vec<Weak<dyn Connection>> {
        match remote {
            Remote::Certified { node, .. } => self.certified.entry(node.clone()).or_default(),
            Remote::Unknown => &mut self.joining,
        }
    }
}

/// Whether another comes directly, or through relays, as this one does.
fn like(connection: &Arc<dyn Connection>) -> impl Fn(&Weak<dyn Connection>) -> bool {
    let is_relayed = connection.relayed().is_some();
    move |other| other.upgrade().is_some_and(|other| other.relayed().is_some() == is_relayed)
}

fn alive(connection: &Weak<dyn Connection>) -> bool {
    connection.upgrade().is_some_and(|connection| !connection.is_closed())
}

/// The peer could not be reached; the cause is added by the caller.
pub(crate) fn unreachable(peer: &NodeId, address: &str) -> Problem {
    let problem = Problem::new(Code::PeerUnreachable).with("peer", peer);
    if address.is_empty() { problem } else { problem.with("address", address) }
}

/// What a peer meant by closing with `code`: PH codes travel as close codes.
pub(crate) fn closed_with(peer: &str, code: u64, reason: &str) -> Problem {
    let reason: String = reason.chars().take(REASON_CHARS_MAX).collect();
    let problem = match u16::try_from(code).ok().and_then(Code::from_number) {
        // Who is revoked is the one that was told so.
        Some(Code::NodeRevoked) => Problem::new(Code::NodeRevoked).with("node", "this node").with("by", peer),
        Some(code) => Problem::new(code).with("peer", peer),
        None => Problem::new(Code::PeerUnreachable).with("peer", peer),
    };
    problem.cause(if reason.is_empty() { "it closed the connection".to_owned() } else { reason })
}

/// How the other end is called in a problem.
pub(crate) fn called(connection: &dyn Connection) -> String {
    match connection.remote() {
        Remote::Certified { node, .. } => node.to_string(),
        Remote::Unknown => connection.remote_address(),
    }
}

/// The address without its port.
fn host(address: &str) -> String {
    address.rsplit_once(':').map_or(address, |(host, _)| host).to_owned()
}

/// Connections of one peer through relays.
const RELAYED_MAX: usize = 64;
pub(crate) const TOKEN_BYTES: usize = 16;
pub(crate) const WELCOME_BYTES: usize = 1 + 8 + TOKEN_BYTES;
const WELCOME_VERSION: u8 = 1;
/// Handshakes under way at once, on each transport; above half of it QUIC asks for proof of address first.
pub(crate) const HANDSHAKES_MAX: usize = 256;
pub(crate) const HANDSHAKE: Duration = Duration::from_millis(limits::HANDSHAKE_MS);
pub(crate) const IDLE: Duration = Duration::from_millis(limits::IDLE_MS);
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Channels open at once on one connection, of either side.
pub(crate) const CHANNELS_MAX: usize = 64;
/// How long opening a channel waits for room or for the other side.
pub(crate) const OPEN: Duration = Duration::from_secs(10);
/// Nodes that are joining at once.
const JOINING_MAX: usize = 32;
const JOINING_PER_ADDRESS_MAX: usize = 16;
const WARN_EVERY_MS: u64 = 1000;
const NOTED_MAX: usize = 64;
const REASON_CHARS_MAX: usize = 200;
const ALERT_REVOKED: u8 = 44;
const ALERT_EXPIRED: u8 = 45;
const ALERT_UNKNOWN_CA: u8 = 48;
const ALERT_NO_PROTOCOL: u8 = 120;
