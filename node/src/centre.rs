//! Staying in touch with the coordinator: one connection that this node dials and keeps, questions over it,
//! notices from it. Heartbeats bring freshness; policies are fetched on notice and on doubt; the certificate
//! is renewed once a third of its life has passed, over the same connection, and open transfers go on.
//! Statements travel in `report`; joining is in `join`.

mod keep;

pub use keep::{doubt, keep, watch_staleness};

use crate::config::Config;
use crate::join::{self, Pinned};
use posthouse_platform::World;
use posthouse_platform::endpoint::{Connection, Dial, DialTrust, Endpoint};
use posthouse_platform::frames;
use posthouse_platform::identity::Identity;
use posthouse_protocol::centre::{CentreAnswer, CentreRequest};
use posthouse_protocol::frame::{Frame, Hello, Purpose};
use posthouse_protocol::id::NodeId;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::time::Timestamp;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

pub struct Centre {
    world: World,
    endpoint: Arc<dyn Endpoint>,
    pinned: Pinned,
    epoch: u64,
    folder: PathBuf,
    identity: Mutex<Arc<Identity>>,
    connection: watch::Sender<Option<Arc<dyn Connection>>>,
    /// When the coordinator last answered a heartbeat, on the monotonic clock; and what is wrong, if anything is.
    state: Mutex<State>,
    /// Wakes the keeper to fetch the policy.
    policy_changed: tokio::sync::Notify,
}

#[derive(Default)]
struct State {
    heard: Option<Timestamp>,
    problem: Option<Problem>,
    doubted: Option<Duration>,
}

/// What a [`Centre`] works with.
pub struct Parts {
    pub world: World,
    pub endpoint: Arc<dyn Endpoint>,
    pub pinned: Pinned,
    pub identity: Arc<Identity>,
    /// Where a renewed identity is kept.
    pub folder: PathBuf,
    pub epoch: u64,
}

impl Centre {
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts { world, endpoint, pinned, identity, folder, epoch } = parts;
        Arc::new(Self {
            world,
            endpoint,
            pinned,
            epoch,
            folder,
            identity: Mutex::new(identity),
            connection: watch::Sender::new(None),
            state: Mutex::default(),
            policy_changed: tokio::sync::Notify::new(),
        })
    }

    pub fn name(&self) -> &NodeId {
        &self.pinned.coordinator
    }
    pub fn pinned(&self) -> &Pinned {
        &self.pinned
    }
    pub fn identity(&self) -> Arc<Identity> {
        locked(&self.identity).clone()
    }
    pub fn connected(&self) -> bool {
        self.connection.borrow().as_ref().is_some_and(|connection| !connection.is_closed())
    }
    /// When it last answered, and what is wrong with the connection to it.
    pub fn last(&self) -> (Option<Timestamp>, Option<Problem>) {
        let state = locked(&self.state);
        (state.heard, state.problem.clone())
    }
    /// Changes with every connection made or lost.
    pub fn connection_changes(&self) -> watch::Receiver<Option<Arc<dyn Connection>>> {
        self.connection.subscribe()
    }

    /// Asks one question over the present connection.
    pub async fn ask(&self, request: CentreRequest) -> Result<CentreAnswer, Problem> {
        let connection = self.connection.borrow().clone();
        let Some(connection) = connection.filter(|connection| !connection.is_closed()) else {
            return Err(Problem::new(Code::PeerUnreachable).with("peer", self.name()).cause("not connected now"));
        };
        self.ask_over(&*connection, request).await
    }

    async fn ask_over(&self, connection: &dyn Connection, request: CentreRequest) -> Result<CentreAnswer, Problem> {
        let hello = Hello::new(Purpose::Ask, self.epoch);
        match frames::ask(connection, self.name(), hello, &Frame::Centre(request), ANSWER_WAIT).await? {
            Frame::CentreAnswer(answer) => join::refused(answer, self.name(), self.identity().node()),
            other => {
                let text: String = format!("{other:?}").chars().take(80).collect();
                Err(Problem::new(Code::FrameInvalid).with("peer", self.name()).cause(format!("it answered {text}")))
            }
        }
    }

    async fn dial(&self, config: &Config) -> Result<Arc<dyn Connection>, Problem> {
        let dial = Dial {
            peer: self.name(),
            address: &config.coordinator,
            choice: config.node.transport,
            trust: DialTrust::Certified,
        };
        self.endpoint.dial(dial).await
    }

    /// From now on this identity is presented; open connections go on.
    async fn adopt(&self, identity: Identity) -> Result<(), Problem> {
        let (kept, folder) = (identity.clone(), self.folder.clone());
        self.world
            .blocking
            .run(move || kept.save(&folder))
            .await
            .map_err(|e| Problem::new(Code::InsideFailed).cause(e))??;
        let identity = Arc::new(identity);
        *locked(&self.identity) = identity.clone();
        self.endpoint.set_identity(identity);
        Ok(())
    }

    fn heard(&self) {
        let mut state = locked(&self.state);
        state.heard = Some(self.world.clock.now());
        state.problem = None;
    }
    fn may_doubt(&self) -> bool {
        let now = self.world.clock.monotonic();
        let mut state = locked(&self.state);
        let may = state.doubted.is_none_or(|last| now.saturating_sub(last) >= DOUBT_EVERY);
        if may {
            state.doubted = Some(now);
        }
        may
    }
    fn failed(&self, problem: &Problem) {
        locked(&self.state).problem = Some(problem.clone());
    }
}

#[async_trait::async_trait]
impl crate::peers::AskDial for Centre {
    async fn ask_dial(&self, peer: &NodeId) -> Result<(), Problem> {
        match self.ask(CentreRequest::AskDial(peer.clone())).await? {
            CentreAnswer::Done => Ok(()),
            other => Err(join::unexpected(self.name(), &other)),
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const DOUBT_EVERY: Duration = Duration::from_secs(1);
const ANSWER_WAIT: Duration = Duration::from_secs(20);
