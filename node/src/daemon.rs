//! Starts a node and stops it. At the start the epoch is raised before anything else, then unfinished
//! transfers go on where they are durable. On stopping no new transfer begins, running ones stop at a durable
//! point within ten seconds, and go on at the next start. No globals: many nodes fit into one process.

use crate::admin::Desk;
use crate::authority::Authority;
use crate::centre::{self, Centre};
use crate::config::Config;
use crate::context::Context;
use crate::doctor;
use crate::ferry::{self, Ferry};
use crate::front::{self, Front};
use crate::jobs::{self, Runs};
use crate::join::{self, Pinned};
use crate::metrics::{self, Metrics};
use crate::pacing::{self, Pacing};
use crate::peers::{self, Pool};
use crate::relay::Book;
use crate::remembered::Remembered;
use crate::report;
use crate::schedule;
use crate::seal::HeldMemory;
use crate::store::{Store, meta};
use crate::transfer::{self, Transfers};
use posthouse_platform::World;
use posthouse_platform::admin_socket::{self, Serving};
use posthouse_platform::endpoint::{self, Connection, Endpoint, Listen};
use posthouse_platform::identity::Identity;
use posthouse_protocol::id::NodeId;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::statement::Signer;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A running node. Dropping it without [`Node::stop`] is like a kill: nothing is lost, the next start resumes.
pub struct Node {
    context: Arc<Context>,
    endpoint: Arc<dyn Endpoint>,
    /// What must end before the node has stopped.
    tasks: TaskTracker,
    admin: Option<Serving>,
}

/// How a node is started.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Answer the command line over the admin socket; a simulation has no sockets of that kind.
    pub admin_socket: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { admin_socket: true }
    }
}

impl Node {
    /// Starts a node that has joined. Returns once it listens and serves.
    pub async fn start(world: World, config: Config) -> Result<Self, Problem> {
        Self::start_with(world, config, Options::default()).await
    }

    pub async fn start_with(world: World, config: Config, options: Options) -> Result<Self, Problem> {
        let store = Store::open(&world, &config.node.data_dir).await?;
        let (epoch, pinned, stored) =
            store.write(|tx| Ok((meta::raise_epoch(tx)?, Pinned::load(tx)?, meta::policy(tx)?))).await?;
        let pinned = pinned.ok_or_else(|| Problem::new(Code::NotJoined).with("node", &config.node.name))?;
        let folder = join::identity_folder(&config);
        let from = folder.clone();
        let own_world = world.clone();
        let load = move || {
            Ok::<_, Problem>((Identity::load(&from)?, join::signer(&from)?, join::ferry_key(&own_world, &from)?))
        };
        let (identity, signer, ferry_key) =
            world.blocking.run(load).await.map_err(|e| Problem::new(Code::InsideFailed).cause(e))??;
        if *identity.node() != config.node.name {
            let cause = format!("the certificate in {} is for {}", folder.display(), identity.node());
            return Err(Problem::new(Code::NotJoined).with("node", &config.node.name).cause(cause));
        }
        let identity = Arc::new(identity);
        let name = config.node.name.clone();
        let listen = Listen { address: config.node.listen.clone(), choice: config.node.transport, join: false };
        let endpoint = endpoint::bind(world.clone(), Some(identity.clone()), listen).await?;
        let authority =
            Arc::new(Authority::new(&world, &name, signer.public_key(), pinned.policy_key, stored.as_ref()));
        let centre = Centre::new(centre::Parts {
            world: world.clone(),
            endpoint: endpoint.clone(),
            pinned,
            identity,
            folder,
            epoch,
        });
        let (pool, arrivals) = Pool::new(peers::Parts {
            name: name.clone(),
            world: world.clone(),
            endpoint: endpoint.clone(),
            authority: authority.clone(),
            choice: config.node.transport,
            centre: centre.clone(),
        });
        let pacing = Pacing::new(&config, world.clock.now());
        let held = HeldMemory::new(config.node.memory.0);
        let remembered = Remembered::new(config.node.data_dir.join("pieces"), world.disk.clone());
        let context = Arc::new(Context {
            pacing,
            held,
            remembered: Arc::new(remembered),
            recall: Arc::default(),
            config: watch::Sender::new(Arc::new(config)),
            world,
            name,
            epoch,
            store,
            signer: Arc::new(signer),
            authority,
            pool,
            centre,
            metrics: Arc::new(Metrics::default()),
            runs: Runs::default(),
            transfers: Transfers::default(),
            relays: Book::default(),
            ferry: Ferry::new(ferry_key),
            front: Front::default(),
            last_error: Mutex::default(),
            outbox: Arc::new(Notify::new()),
            drain: CancellationToken::new(),
        });
        tracing::info!(node = %context.name, epoch, address = ?endpoint.local_address(), "Started");
        if let Some(allowed) = context.world.network.allowed() {
            doctor::tell(context.config().node.transport, &allowed);
        }
        ferry::sweep(&context).await;
        transfer::sweep(&context).await;
        front::sweep(&context).await;
        let admin = if options.admin_socket {
            let desk = Arc::new(Desk { context: context.clone() });
            Some(admin_socket::serve(&context.config().admin_socket(), desk).await?)
        } else {
            None
        };
        let node = Self { context, endpoint, tasks: TaskTracker::new(), admin };
        node.run(arrivals);
        jobs::recover(&node.context).await?;
        Ok(node)
    }

    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.endpoint.local_address()
    }

    /// Returns when the node was asked to drain, by whomever.
    pub async fn draining(&self) {
        self.context.drain.cancelled().await;
    }

    /// Takes another configuration: jobs, resources and connections from now on, transfers under way go on as
    /// they began. What is bound to the start (name, folder, addresses) is refused and needs a restart.
    pub fn reload(&self, config: Config) -> Result<(), Problem> {
        let old = self.context.config();
        let bound = |config: &Config| {
            let node = &config.node;
            (node.name.clone(), node.data_dir.clone(), node.listen.clone(), node.transport)
        };
        if bound(&old) != bound(&config) {
            let what = "name, data_dir, listen and transport change with a restart only";
            return Err(Problem::new(Code::UsageInvalid).with("what", what));
        }
        self.context.pacing.apply(&config, self.context.world.clock.now());
        self.context.config.send_replace(Arc::new(config));
        tracing::info!("Took the new configuration");
        Ok(())
    }

    /// Drains and stops: at most ten seconds, whatever is under way.
    pub async fn stop(self) {
        tracing::info!("Stopping");
        self.context.drain.cancel();
        self.tasks.close();
        let runs = &self.context.runs.tasks;
        runs.close();
        let ended = async {
            self.tasks.wait().await;
            runs.wait().await;
        };
        if tokio::time::timeout(DRAIN_MAX, ended).await.is_err() {
            tracing::warn!("Some work did not stop in time; it resumes from its last durable point");
        }
        drop(self.admin);
        self.context.pool.close_all();
        self.endpoint.close().await;
        tracing::info!("Stopped");
    }

    fn run(&self, arrivals: peers::Served) {
        let context = &self.context;
        self.tasks.spawn(accept(context.clone(), self.endpoint.clone()));
        self.tasks.spawn(serve(context.clone(), arrivals));
        self.tasks.spawn(centre::keep(context.clone()));
        self.tasks.spawn(centre::watch_staleness(context.clone()));
        self.tasks.spawn(enforce(context.clone()));
        self.tasks.spawn(report::run(context.clone()));
        self.tasks.spawn(schedule::run(context.clone()));
        self.tasks.spawn(schedule::watch::run(context.clone()));
        self.tasks.spawn(metrics::run(context.clone()));
        self.tasks.spawn(pacing::run(context.clone()));
        self.tasks.spawn(ferry::run(context.clone()));
        self.tasks.spawn(front::run(context.clone()));
    }
}

/// Connections that others dial.
async fn accept(context: Arc<Context>, endpoint: Arc<dyn Endpoint>) {
    loop {
        let connection = tokio::select! {
            biased;
            () = context.drain.cancelled() => return,
            connection = endpoint.accept() => connection,
        };
        match connection {
            Some(connection) => context.pool.accepted(connection),
            None => return,
        }
    }
}

/// Each connection, whoever dialled it, is served until it closes.
async fn serve(context: Arc<Context>, mut arrivals: peers::Served) {
    // Ended with their connections, which close after the drain: nothing waits for these.
    let tasks = TaskTracker::new();
    loop {
        let (peer, connection) = tokio::select! {
            biased;
            () = context.drain.cancelled() => return,
            arrived = arrivals.recv() => match arrived {
                Some(arrived) => arrived,
                None => return,
            },
        };
        tasks.spawn(serve_connection(context.clone(), peer, connection));
    }
}

async fn serve_connection(context: Arc<Context>, peer: NodeId, connection: Arc<dyn Connection>) {
    loop {
        // Also while draining: transfers that run need their channels to come to a durable stop.
        match connection.accept().await {
            Some(channel) => {
                context.metrics.channels.inc();
                let (context, connection) = (context.clone(), connection.clone());
                let tasks = context.runs.tasks.clone();
                tasks.spawn(transfer::serve_channel(context, connection, channel));
            }
            None => {
                tracing::debug!(%peer, "A connection ended");
                return;
            }
        }
    }
}

/// Closes connections that the policy no longer allows, as soon as it says so.
async fn enforce(context: Arc<Context>) {
    let mut bell = context.authority.subscribe();
    loop {
        context.pool.enforce();
        tokio::select! {
            biased;
            () = context.drain.cancelled() => return,
            rung = bell.changed() => if rung.is_err() { return },
        }
    }
}

/// Nothing that runs may hold up a stop for longer; with closing the lines it stays under ten seconds.
const DRAIN_MAX: Duration = Duration::from_secs(9);
