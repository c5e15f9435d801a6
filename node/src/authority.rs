//! The policy in force at this node, shared: what it permits, whose keys it names, and a bell that rings
//! whenever the answer may have changed (a new policy, staleness, this node barred). Fails closed.
//! What a policy means is in `protocol::policy`; fetching it is in `centre`.

use crate::store::meta::StoredPolicy;
use posthouse_platform::World;
use posthouse_protocol::cose::{KeyId, Keys, PublicKey, key_id};
use posthouse_protocol::id::{NodeId, ResourceRef};
use posthouse_protocol::policy::{ActivePolicy, Passing, Peer, Permit, Policy, PolicyError, Refreshed, Staleness};
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::receipt::TrustStore;
use posthouse_protocol::time::Timestamp;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

pub struct Authority {
    world: World,
    state: Mutex<State>,
    bell: watch::Sender<u64>,
}

struct State {
    active: ActivePolicy,
    /// This node is a restored copy, or revoked: it gives and takes nothing until that is lifted.
    barred: Option<Code>,
    staleness: Staleness,
    node: NodeId,
    own_key: PublicKey,
    policy_key: PublicKey,
    /// The names and keys that came with the policy; a peer stays among them when its last grant has ended.
    trust: Option<TrustStore>,
}

impl Authority {
    /// From what was stored; a stored policy that does not verify counts as none.
    pub fn new(
        world: &World,
        node: &NodeId,
        own_key: PublicKey,
        policy_key: PublicKey,
        stored: Option<&StoredPolicy>,
    ) -> Self {
        let mut active = ActivePolicy::new(node.clone(), policy_key);
        if let Some(stored) = stored {
            let (now, monotonic) = (world.clock.now(), world.clock.monotonic());
            let age = Duration::from_millis(u64::try_from(now.since_ms(stored.fresh_at)).unwrap_or(0));
            if let Err(error) = active.restore(&stored.bytes, stored.freshness.as_deref(), now, age, monotonic) {
                tracing::error!(%error, "The stored policy is not accepted");
            }
        }
        let staleness = active.staleness(world.clock.monotonic());
        let mut state = State { active, barred: None, staleness, node: node.clone(), own_key, policy_key, trust: None };
        state.read_trust();
        Self { world: world.clone(), state: Mutex::new(state), bell: watch::Sender::new(0) }
    }

    /// Rings when what is permitted may have changed.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.bell.subscribe()
    }

    /// Proof that `consumer` may take `resource` now.
    pub fn permit(&self, consumer: &NodeId, resource: &ResourceRef, zone: Option<&str>) -> Result<Permit, Problem> {
        let state = self.state();
        state.not_barred()?;
        state.active.permit(consumer, resource, zone, self.world.clock.now(), self.world.clock.monotonic())
    }

    /// Asked again during a transfer, whenever the bell rings and from time to time (grants end by the clock).
    pub fn still_permits(&self, permit: &Permit) -> Result<(), Problem> {
        let state = self.state();
        state.not_barred()?;
        state.active.still_permits(permit, self.world.clock.now(), self.world.clock.monotonic())
    }

    /// Proof that `from` may bring a line here for an exchange of others, or of this node.
    pub fn pass(&self, consumer: &NodeId, resource: &ResourceRef, from: &NodeId) -> Result<Passing, Problem> {
        let state = self.state();
        state.not_barred()?;
        state.active.pass(consumer, resource, from, self.world.clock.monotonic())
    }

    pub fn still_passes(&self, passing: &Passing) -> Result<(), Problem> {
        let state = self.state();
        state.not_barred()?;
        state.active.still_passes(passing, self.world.clock.monotonic())
    }

    /// Relays between a consumer and the node of a resource, in this order.
    pub fn route(&self, consumer: &NodeId, resource: &ResourceRef) -> Vec<NodeId> {
        self.state().active.route(consumer, resource, self.world.clock.now()).to_vec()
    }

    /// A peer that this node has to do with, while the policy is in force.
    pub fn peer(&self, node: &NodeId) -> Result<Peer, Problem> {
        let state = self.state();
        state.not_barred()?;
        if state.active.staleness(self.world.clock.monotonic()) == Staleness::Stale {
            return Err(Problem::new(Code::PolicyStale).with("node", &state.node));
        }
        if state.active.is_denied(node) {
            return Err(Problem::new(Code::NodeRevoked).with("node", node));
        }
        state.active.peer(node).cloned().ok_or_else(|| {
            Problem::new(Code::NoGrant)
                .with("consumer", node)
                .with("resource", "anything here")
                .cause(format!("the policy names no exchange between {} and {node}", state.node))
        })
    }

    /// The policy as it stands, for reading; whether it may be acted on is asked by the calls above.
    pub fn policy(&self) -> Option<Policy> {
        self.state().active.policy().cloned()
    }
    pub fn version(&self) -> (u64, u64) {
        self.state().active.version().unwrap_or_default()
    }
    pub fn heartbeat(&self) -> Duration {
        let seconds = self.state().active.policy().map_or(0, |policy| policy.heartbeat_seconds);
        if seconds == 0 { HEARTBEAT_DEFAULT } else { Duration::from_secs(seconds.min(HEARTBEAT_MAX_SECONDS)) }
    }
    pub fn denied(&self) -> Vec<NodeId> {
        self.state().active.policy().map(|policy| policy.denied.clone()).unwrap_or_default()
    }
    pub fn barred(&self) -> Option<Code> {
        self.state().barred
    }
    pub fn staleness(&self) -> Staleness {
        self.state().active.staleness(self.world.clock.monotonic())
    }
    /// Grants that need a newer version of this program.
    pub fn unusable_grants(&self) -> usize {
        self.state().active.unusable_grants()
    }

    /// Takes a signed policy from the centre; tells whether it is another than before.
    pub fn accept(&self, bytes: &[u8]) -> Result<bool, PolicyError> {
        let changed = {
            let mut state = self.state();
            let changed = state.active.accept(bytes, self.world.clock.monotonic())?;
            state.read_trust();
            state.staleness = state.active.staleness(self.world.clock.monotonic());
            changed
        };
        self.ring();
        Ok(changed)
    }

    /// Takes a heartbeat's word of freshness.
    pub fn refresh(&self, bytes: &[u8]) -> Result<Refreshed, PolicyError> {
        let refreshed = self.state().active.refresh(bytes, self.world.clock.monotonic())?;
        self.look();
        Ok(refreshed)
    }

    /// Bars this node, or lifts that.
    pub fn bar(&self, code: Option<Code>) {
        let changed = {
            let mut state = self.state();
            let changed = state.barred != code;
            state.barred = code;
            changed
        };
        if changed {
            self.ring();
        }
    }

    /// Looks at the clock, and rings when the policy has turned stale (or fresh again).
    pub fn look(&self) -> Staleness {
        let (now, before) = {
            let mut state = self.state();
            let now = state.active.staleness(self.world.clock.monotonic());
            (now, std::mem::replace(&mut state.staleness, now))
        };
        if now != before {
            match now {
                Staleness::Fresh => tracing::info!("The policy is fresh"),
                Staleness::Alarming => {
                    tracing::warn!("No word from the coordinator for over half of the staleness limit")
                }
                Staleness::Stale => {
                    tracing::error!("The policy is stale: nothing is exchanged until the coordinator is heard")
                }
            }
            self.ring();
        }
        now
    }

    fn ring(&self) {
        self.bell.send_modify(|count| *count += 1);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The statement keys of this node and of its peers, present and past, as the policy names them.
impl Keys for Authority {
    fn find(&self, issuer: &NodeId, key: &KeyId, issued: Timestamp) -> Option<PublicKey> {
        let state = self.state();
        if *issuer == state.node {
            return (*key == key_id(&state.own_key)).then_some(state.own_key);
        }
        if let Some(found) = state.trust.as_ref().and_then(|trust| trust.find(issuer, key, issued)) {
            return Some(found);
        }
        let peer = state.active.peer(issuer)?;
        peer.statement_keys.iter().map(|known| **known).find(|known| key_id(known) == *key)
    }
}

impl State {
    fn read_trust(&mut self) {
        let nodes = self.active.policy().map(|policy| &policy.nodes);
        self.trust = nodes.filter(|nodes| !nodes.is_empty()).and_then(|nodes| {
            TrustStore::open(nodes, &self.policy_key)
                .inspect_err(
                    |error| tracing::error!(%error, "The names and keys that came with the policy are not accepted"),
                )
                .ok()
        });
    }

    fn not_barred(&self) -> Result<(), Problem> {
        match self.barred {
            Some(code) => Err(Problem::new(code).with("node", &self.node)),
            None => Ok(()),
        }
    }
}

const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(30);
const HEARTBEAT_MAX_SECONDS: u64 = 3600;
