//! The centre 协调中心: who belongs, who may have what, and what was said about every transfer.
//!
//! It is never on the data path: nodes ask it (join, heartbeat, policy, submit), it answers, and it keeps
//! an append-only ledger of the statements of all parties.
//! - [`config`]: `coordinator.toml`. [`admin`]: what the command line asks over the Unix socket.
//! - `keys`: what `init` makes. `membership`: tokens, joins, renewals, revocation, epochs.
//! - `policy`: grants, and each node's signed policy. `ledger`: statements taken exactly once.
//! - `reconcile`: the three-party balance and statistics. `alarm`: what somebody should look at.
//! - `server`: connections of nodes. [`api`]: the HTTP side. `store`: what is durable.
//!
//! Deliberately absent: any way to change or remove a statement once it is taken.

pub mod admin;
mod alarm;
pub mod api;
pub mod config;
mod keys;
mod ledger;
mod membership;
mod policy;
mod reconcile;
mod server;
mod store;

pub use alarm::Alarm;
pub use keys::{Init, Initialised, init};
pub use reconcile::TransferRow;

use config::Config;
use keys::Keys;
use ledger::Ledger;
use posthouse_platform::World;
use posthouse_platform::admin_socket::{self, Serving};
use posthouse_platform::endpoint::{self, Connection, Endpoint, Listen, TransportChoice};
use posthouse_protocol::centre::Heartbeat;
use posthouse_protocol::id::NodeId;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::time::Timestamp;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use store::Store;
use store::sqlite::Sqlite;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A running coordinator. Many can run in one process; dropping the handle does not stop it, [`Coordinator::stop`] does.
pub struct Coordinator {
    centre: Arc<Centre>,
    http: Option<SocketAddr>,
    // Dropping it closes the admin socket.
    admin: Option<Serving>,
}

impl Coordinator {
    /// Opens the store, listens for nodes, and, where configured, for people.
    pub async fn start(world: World, config: Config) -> Result<Self, Problem> {
        let mut coordinator = Self::start_for_nodes(world, config).await?;
        let centre = coordinator.centre.clone();
        if let Some(address) = &centre.config.http {
            coordinator.http = Some(api::serve(&centre, address).await?);
        }
        let admin = admin_socket::serve(&centre.config.admin_socket(), Arc::new(admin::Socket(centre.clone()))).await?;
        coordinator.admin = Some(admin);
        let (listen, http) = (coordinator.listen_address(), coordinator.http);
        tracing::info!(name = %centre.config.name, ?listen, ?http, "Coordinator is ready");
        Ok(coordinator)
    }

    /// As [`Coordinator::start`], without HTTP and admin socket, which no simulated network carries;
    /// [`Coordinator::ask`] is the way in.
    pub async fn start_for_nodes(world: World, config: Config) -> Result<Self, Problem> {
        let centre = Centre::open(world, config).await?;
        server::spawn(&centre);
        Ok(Self { centre, http: None, admin: None })
    }

    /// Where nodes reach it.
    pub fn listen_address(&self) -> Option<SocketAddr> {
        self.centre.endpoint.local_address()
    }

    /// Where people reach it.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http
    }

    /// What the admin socket would answer: items, then the end.
    pub async fn ask(&self, request: admin::Request) -> Result<admin::Answer, Problem> {
        admin::answer(&self.centre, request).await
    }

    /// Takes no more questions, finishes those under way (up to 8 s), writes down what was reported.
    pub async fn stop(mut self) {
        drop(self.admin.take());
        let centre = &self.centre;
        centre.stopping.cancel();
        centre.tasks.close();
        if tokio::time::timeout(DRAIN, centre.tasks.wait()).await.is_err() {
            tracing::warn!("Some questions were still open after 8 s");
        }
        centre.endpoint.close().await;
        if let Err(problem) = centre.flush_reports().await {
            tracing::warn!(%problem, "Failed to write down the last reports");
        }
        centre.store.close().await;
    }
}

/// What all parts share.
pub(crate) struct Centre {
    pub(crate) world: World,
    pub(crate) config: Config,
    pub(crate) zone: jiff::tz::TimeZone,
    pub(crate) keys: Keys,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) ledger: Ledger,
    pub(crate) endpoint: Arc<dyn Endpoint>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stopping: CancellationToken,
    pub(crate) started_at: Timestamp,
    pub(crate) counted: server::Counted,
    live: Mutex<BTreeMap<NodeId, Live>>,
    pending: Mutex<Vec<store::Report>>,
}

/// A node as this process knows it.
#[derive(Clone, Default)]
struct Live {
    /// The one it spoke on last stands last.
    connections: Vec<Arc<dyn Connection>>,
    report: Option<(Heartbeat, Timestamp)>,
    epoch: Option<u64>,
}

/// As `node_rows` asks for it.
pub(crate) struct Seen {
    pub(crate) connected: bool,
    pub(crate) report: Option<(Heartbeat, Timestamp)>,
}

impl Centre {
    async fn open(world: World, config: Config) -> Result<Arc<Self>, Problem> {
        let zone = config.zone()?;
        let (folder, origin) = (config.data_dir.clone(), config.ledger_origin());
        let loaded = world.blocking.run(move || Keys::load(&folder, &origin)).await;
        let keys = loaded.map_err(|e| Problem::new(Code::InsideFailed).cause(e))??;
        let store: Arc<dyn Store> = Arc::new(Sqlite::open(&config.database(), world.blocking.clone()).await?);
        let named = store.meta(keys::NAME).await?;
        if named.as_deref() != Some(config.name.as_str()) {
            let cause = format!("it was made for `{}`; a coordinator's name can't change", named.unwrap_or_default());
            return Err(Problem::new(Code::ConfigInvalid).with("file", keys::CONFIG_FILE).cause(cause));
        }
        let identity = Arc::new(keys.identity(&world, &config)?);
        let listen = Listen { address: Some(config.listen.clone()), choice: TransportChoice::Auto, join: true };
        let endpoint = endpoint::bind(world.clone(), Some(identity), listen).await?;
        let (ledger, writer) = Ledger::new(
            world.clone(),
            store.clone(),
            config.name.clone(),
            config.ledger_origin(),
            keys.ledger.clone(),
            keys.policy.clone(),
        );
        tokio::spawn(writer.run());
        let started_at = world.clock.now();
        let centre = Arc::new(Self {
            world,
            config,
            zone,
            keys,
            store,
            ledger,
            endpoint,
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            started_at,
            counted: server::Counted::default(),
            live: Mutex::default(),
            pending: Mutex::default(),
        });
        centre.deny_revoked().await?;
        Ok(centre)
    }

    fn live_map(&self) -> MutexGuard<'_, BTreeMap<NodeId, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn live(&self, node: &NodeId) -> Seen {
        let live = self.live_map();
        let known = live.get(node);
        Seen {
            connected: known.is_some_and(|live| live.connections.iter().any(|c| !c.is_closed())),
            report: known.and_then(|live| live.report.clone()),
        }
    }

    pub(crate) fn connection_of(&self, node: &NodeId) -> Option<Arc<dyn Connection>> {
        self.live_map().get(node)?.connections.iter().rev().find(|connection| !connection.is_closed()).cloned()
    }

    pub(crate) fn connected(&self) -> Vec<NodeId> {
        let open = |live: &Live| live.connections.iter().any(|connection| !connection.is_closed());
        self.live_map().iter().filter(|(_, live)| open(live)).map(|(node, _)| node.clone()).collect()
    }

    pub(crate) fn arrived(&self, node: &NodeId, connection: Arc<dyn Connection>) {
        let mut map = self.live_map();
        let live = map.entry(node.clone()).or_default();
        live.connections.retain(|known| !known.is_closed() && !Arc::ptr_eq(known, &connection));
        // A node that dials over both transports at once keeps one of the two: the one it speaks on.
        live.connections.insert(0, connection);
    }

    /// The node spoke on this connection: it is the one to ask it on.
    pub(crate) fn spoke(&self, node: &NodeId, connection: &Arc<dyn Connection>) {
        if let Some(live) = self.live_map().get_mut(node) {
            live.connections.retain(|known| !Arc::ptr_eq(known, connection));
            live.connections.push(connection.clone());
        }
    }

    /// Forgets a connection that ended.
    pub(crate) fn left(&self, node: &NodeId, connection: &Arc<dyn Connection>) {
        if let Some(live) = self.live_map().get_mut(node) {
            live.connections.retain(|known| !Arc::ptr_eq(known, connection));
        }
    }

    pub(crate) fn disconnect(&self, node: &NodeId, code: Code) {
        let gone = self.live_map().remove(node);
        for connection in gone.into_iter().flat_map(|live| live.connections) {
            connection.close(code.number(), code.text().en);
        }
    }

    pub(crate) fn known_epoch(&self, node: &NodeId) -> Option<u64> {
        self.live_map().get(node)?.epoch
    }

    pub(crate) fn remember_epoch(&self, node: &NodeId, epoch: u64) {
        self.live_map().entry(node.clone()).or_default().epoch = Some(epoch);
    }

    /// Keeps a heartbeat; it is written down with others within a second. Gives the profile it replaces.
    pub(crate) fn reported(&self, node: &NodeId, mut heartbeat: Heartbeat, at: Timestamp) -> Option<Heartbeat> {
        let transfers = std::mem::take(&mut heartbeat.transfers);
        let previous = self.live_map().entry(node.clone()).or_default().report.replace((heartbeat.clone(), at));
        let report = store::Report { node: node.clone(), at, heartbeat, transfers };
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).push(report);
        previous.map(|(heartbeat, _)| heartbeat)
    }

    pub(crate) async fn flush_reports(&self) -> Result<(), Problem> {
        let reports = std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner));
        if reports.is_empty() { Ok(()) } else { self.store.save_reports(reports).await }
    }
}

#[cfg(test)]
mod tests;

const DRAIN: Duration = Duration::from_secs(8);
