//! What everything in one node shares. No globals: several nodes live in one process in tests and simulation.

use crate::authority::Authority;
use crate::centre::Centre;
use crate::config::{Config, ConnectionConfig, Job, Target};
use crate::ferry::Ferry;
use crate::front::Front;
use crate::jobs::Runs;
use crate::metrics::Metrics;
use crate::pacing::Pacing;
use crate::peers::Pool;
use crate::relay::Book;
use crate::remembered::Remembered;
use crate::seal::HeldMemory;
use crate::send::Recall;
use crate::spent::Meters;
use crate::store::Store;
use crate::store::statements::Hand;
use crate::transfer::Transfers;
use posthouse_connectors::{Connection, registry};
use posthouse_platform::World;
use posthouse_protocol::format::Format;
use posthouse_protocol::id::{NodeId, ResourceRef, TransferId};
use posthouse_protocol::policy::Permit;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::statement::Signer;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

pub struct Context {
    pub(crate) config: watch::Sender<Arc<Config>>,
    pub world: World,
    pub name: NodeId,
    /// Raised at this start, before anything else.
    pub epoch: u64,
    pub store: Store,
    pub signer: Arc<dyn Signer>,
    pub authority: Arc<Authority>,
    pub pool: Arc<Pool>,
    pub centre: Arc<Centre>,
    pub metrics: Arc<Metrics>,
    /// Taken before anything is sent on a data channel.
    pub pacing: Pacing,
    /// Where sealed splits wait for the line.
    pub held: HeldMemory,
    /// What pieces files have that were landed here.
    pub remembered: Arc<Remembered>,
    /// What was read of large files before.
    pub recall: Arc<Recall>,
    pub runs: Runs,
    pub(crate) last_error: Mutex<Option<Problem>>,
    pub transfers: Transfers,
    /// What is passed on between other nodes.
    pub relays: Book,
    /// What is carried to this node, and the key that it is sealed to.
    pub ferry: Ferry,
    /// Whose turn it is at a front-end table, and what wakes those who write its flags back.
    pub front: Front,
    /// Wakes `report` after statements were queued.
    pub outbox: Arc<Notify>,
    /// Cancelled when the node stops: no new transfers, running ones stop at a durable point.
    pub drain: CancellationToken,
}

impl Context {
    /// Proof that `consumer` may take `resource` now. Before a refusal the centre is asked once more: a grant
    /// made a moment ago counts, whichever side hears of it first.
    pub async fn permit(self: &Arc<Self>, consumer: &NodeId, resource: &ResourceRef) -> Result<Permit, Problem> {
        match self.authority.permit(consumer, resource, None) {
            Ok(permit) => Ok(permit),
            Err(_) => {
                crate::centre::doubt(self).await;
                self.authority.permit(consumer, resource, None)
            }
        }
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<Config> {
        self.config.borrow().clone()
    }
    pub fn config_changes(&self) -> watch::Receiver<Arc<Config>> {
        self.config.subscribe()
    }
    pub fn department(&self) -> Option<String> {
        self.config().node.department.clone()
    }
    /// Sealed splits, at the provider.
    pub fn spool(&self) -> PathBuf {
        self.config().node.data_dir.join("spool")
    }
    /// Splits that are arriving, at the consumer.
    pub fn staging(&self) -> PathBuf {
        self.config().node.data_dir.join("staging")
    }
    /// What was read of front-end tables, at the provider.
    pub fn front_rows(&self) -> PathBuf {
        self.config().node.data_dir.join("front")
    }
    /// Entry lists and the like, kept for ever beside their statements.
    pub fn attachments(&self) -> PathBuf {
        self.config().node.data_dir.join("attachments")
    }

    /// The latest problem of any transfer, job or line; told to the centre with the next heartbeat.
    pub fn last_error(&self) -> Option<Problem> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    pub fn note_error(&self, problem: &Problem) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(problem.clone());
    }

    /// Where the time of a transfer is counted.
    pub(crate) fn meters(&self, transfer: &TransferId) -> Arc<Meters> {
        self.transfers.meters(&self.world.clock, transfer)
    }

    /// Room left in the data folder; 0 where it cannot be told.
    pub async fn disk_free(&self) -> u64 {
        let (folder, disk) = (self.config().node.data_dir.clone(), self.world.disk.clone());
        let free = self.world.blocking.run(move || disk.free_bytes(&folder)).await;
        free.ok().and_then(Result::ok).unwrap_or(0)
    }

    /// This node's hand for signing now.
    pub fn hand(&self) -> Hand<'_> {
        Hand { name: &self.name, signer: &*self.signer, epoch: self.epoch, now: self.world.clock.now() }
    }

    /// Whether a connection may be used at this time of the day.
    pub fn in_window(&self, connection: &str) -> Result<(), Problem> {
        let config = self.config();
        let window = config.connections.get(connection).and_then(|found| found.window.as_ref());
        match window.and_then(|window| window.opens(self.world.clock.now())) {
            None => Ok(()),
            Some(opens) => Err(Problem::new(Code::OutsideWindow).with("node", &self.name).with("until", opens)),
        }
    }

    /// Opens a connection of the configuration by name, in its exchange window. Blocks.
    pub fn connect(&self, name: &str) -> Result<Box<dyn Connection>, Problem> {
        self.in_window(name)?;
        let config = self.config();
        let failed = || Problem::new(Code::ConnectionFailed).with("connection", name);
        let ConnectionConfig { kind, settings, window: _ } =
            config.connections.get(name).ok_or_else(|| failed().cause("it is not in the configuration"))?;
        let connector = registry::find(kind).ok_or_else(|| failed().cause(format!("no connector of kind {kind}")))?;
        connector.connect(name, settings)
    }

    /// Forms of rows beside Arrow in which a job takes them. Rows that it checks are looked at one by one.
    pub fn formats(&self, job: &Job) -> &'static [Format] {
        let Some(Target::Table { connection, .. }) = job.into.as_ref().filter(|_| job.check.is_empty()) else {
            return &[];
        };
        let kind = self.config().connections.get(connection).map(|connection| connection.kind.clone());
        kind.and_then(|kind| registry::find(&kind)).map_or(&[], |connector| connector.formats())
    }

    /// Where a target lands, as people name it.
    pub fn target_text(target: &Target) -> String {
        match target {
            Target::Table { connection, table, .. } => format!("{connection}.{table}"),
            Target::Folder { path, .. } | Target::Parquet { path } => path.display().to_string(),
        }
    }
}
