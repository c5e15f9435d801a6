//! The policy in force at a node, and the check that every transfer passes.
//! Fails closed: no policy, a stale one, a denied node, no grant, an expired one, one with an unknown
//! restriction, another zone: each is refused with its own code. Freshness counts on the monotonic clock
//! from the last signed word that this very policy is still the newest.

use super::{Freshness, Grant, Peer, Policy, PolicyError};
use crate::cose::PublicKey;
use crate::filter::Filter;
use crate::govern::ColumnMask;
use crate::id::{GrantId, NodeId, ResourceRef};
use crate::problem::{Code, Problem};
use crate::time::Timestamp;
use std::time::Duration;

/// What a node believes of who may do what. `monotonic` is always the same clock, which may stand still
/// while the machine sleeps but never goes back.
#[derive(Debug, Clone)]
pub struct ActivePolicy {
    node: NodeId,
    key: PublicKey,
    believed: Option<Believed>,
}

#[derive(Debug, Clone)]
struct Believed {
    policy: Policy,
    grants: Vec<Grant>,
    unusable: Vec<Unusable>,
    /// Withdrawn, with relays on their way.
    ended: Vec<Grant>,
    /// Age that it had at `since`, and the newest signed time.
    age: Duration,
    since: Duration,
    signed: Timestamp,
}

/// A grant with a part that this version does not know: who would need it, as far as that can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Unusable {
    subject: Option<(NodeId, ResourceRef)>,
}

/// How long ago the centre last said that this policy holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Staleness {
    Fresh,
    /// Over half of the limit has passed.
    Alarming,
    /// Nothing is permitted any more.
    Stale,
}

/// What a word of freshness means for the policy in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refreshed {
    /// It is still the newest.
    Current,
    /// There is a newer one to ask for.
    Outdated,
}

/// Proof that a grant covers one transfer; made only by [`ActivePolicy::permit`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permit {
    grant: Grant,
    policy_epoch: u64,
    policy_sequence: u64,
}

impl Permit {
    pub fn grant(&self) -> &GrantId {
        &self.grant.id
    }
    pub fn consumer(&self) -> &NodeId {
        &self.grant.consumer
    }
    pub fn resource(&self) -> &ResourceRef {
        &self.grant.resource
    }
    /// None = all columns.
    pub fn columns(&self) -> Option<&[String]> {
        self.grant.columns.as_deref()
    }
    pub fn filter(&self) -> Option<&Filter> {
        self.grant.filter.as_ref()
    }
    pub fn filter_sha256(&self) -> Option<[u8; 32]> {
        self.grant.filter_sha256()
    }
    /// Whether it restricts columns or rows, which files have none of.
    pub fn is_about_rows(&self) -> bool {
        self.columns().is_some() || self.filter().is_some() || !self.masks().is_empty()
    }
    /// What it masks beyond what the resource itself does.
    pub fn masks(&self) -> &[ColumnMask] {
        self.grant.masks.as_deref().unwrap_or_default()
    }
    pub fn until(&self) -> Timestamp {
        self.grant.until
    }
    /// Relays in order from the consumer to the provider; none where the two reach each other.
    pub fn route(&self) -> &[NodeId] {
        self.grant.route()
    }
    pub fn policy_epoch(&self) -> u64 {
        self.policy_epoch
    }
    pub fn policy_sequence(&self) -> u64 {
        self.policy_sequence
    }
}

/// Proof that a line which another node brings belongs here; made only by [`ActivePolicy::pass`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passing {
    grant: Grant,
    /// Where it goes on to; None: it has arrived.
    next: Option<NodeId>,
    /// Whether it comes from the consumer's side.
    from_consumer: bool,
}

impl Passing {
    pub fn grant(&self) -> &GrantId {
        &self.grant.id
    }
    pub fn next(&self) -> Option<&NodeId> {
        self.next.as_ref()
    }
    pub fn from_consumer(&self) -> bool {
        self.from_consumer
    }
    /// Relays in order from the consumer to the provider.
    pub fn route(&self) -> &[NodeId] {
        self.grant.route()
    }
}

impl ActivePolicy {
    /// Believes nothing yet, so permits nothing.
    pub fn new(node: NodeId, policy_key: PublicKey) -> Self {
        Self { node, key: policy_key, believed: None }
    }

    /// Takes back what was stored before a restart. The monotonic clock began anew, so the age that the policy
    /// had is taken from the wall clock, `now` against the signed time, or from `age_stored` where that is more.
    pub fn restore(
        &mut self,
        policy: &[u8],
        freshness: Option<&[u8]>,
        now: Timestamp,
        age_stored: Duration,
        monotonic: Duration,
    ) -> Result<(), PolicyError> {
        let policy = Policy::open(policy, &self.node, &self.key)?;
        let freshness = freshness.map(|bytes| Freshness::open(bytes, &self.node, &self.key)).transpose()?;
        let signed = freshness
            .filter(|freshness| (freshness.epoch, freshness.sequence) == policy.version())
            .map_or(policy.issued, |freshness| freshness.time.max(policy.issued));
        let age = Duration::from_millis(u64::try_from(now.since_ms(signed)).unwrap_or(0)).max(age_stored);
        self.believe(policy, age, monotonic, signed)
    }

    /// Takes a policy that just came from the centre. The same or a newer one is fresh from now on;
    /// a lower (epoch, sequence) is refused. Tells whether it is another than before.
    pub fn accept(&mut self, bytes: &[u8], monotonic: Duration) -> Result<bool, PolicyError> {
        let policy = Policy::open(bytes, &self.node, &self.key)?;
        let changed = self.version() != Some(policy.version());
        let signed = policy.issued.max(self.believed.as_ref().map_or(policy.issued, |believed| believed.signed));
        self.believe(policy, Duration::ZERO, monotonic, signed)?;
        Ok(changed)
    }

    /// Takes a word of freshness from a heartbeat's answer. Only one about the policy in force makes it fresh.
    pub fn refresh(&mut self, bytes: &[u8], monotonic: Duration) -> Result<Refreshed, PolicyError> {
        let freshness = Freshness::open(bytes, &self.node, &self.key)?;
        let given = (freshness.epoch, freshness.sequence);
        let Some(believed) = &mut self.believed else { return Ok(Refreshed::Outdated) };
        let known = believed.policy.version();
        if given > known {
            return Ok(Refreshed::Outdated);
        }
        // An old word that is played again must not make an old policy look fresh.
        if given < known || freshness.time < believed.signed {
            return Err(older(given, known));
        }
        believed.age = Duration::ZERO;
        believed.since = monotonic;
        believed.signed = freshness.time;
        Ok(Refreshed::Current)
    }

    fn believe(
        &mut self,
        policy: Policy,
        age: Duration,
        monotonic: Duration,
        signed: Timestamp,
    ) -> Result<(), PolicyError> {
        if let Some(known) = self.version().filter(|known| policy.version() < *known) {
            return Err(older(policy.version(), known));
        }
        let (mut grants, mut unusable) = (Vec::new(), Vec::new());
        for bytes in &policy.grants {
            match Grant::decode(bytes) {
                Some(grant) => grants.push(grant),
                None => unusable.push(Unusable::read(bytes)),
            }
        }
        let ended = policy.ended.iter().flatten().filter_map(|bytes| Grant::decode(bytes)).collect();
        self.believed = Some(Believed { policy, grants, unusable, ended, age, since: monotonic, signed });
        Ok(())
    }

    /// (epoch, sequence) of the policy in force.
    pub fn version(&self) -> Option<(u64, u64)> {
        self.believed.as_ref().map(|believed| believed.policy.version())
    }
    pub fn policy(&self) -> Option<&Policy> {
        self.believed.as_ref().map(|believed| &believed.policy)
    }
    pub fn grants(&self) -> &[Grant] {
        self.believed.as_ref().map_or(&[], |believed| &believed.grants)
    }
    /// Grants that cannot be used before this node is upgraded.
    pub fn unusable_grants(&self) -> usize {
        self.believed.as_ref().map_or(0, |believed| believed.unusable.len())
    }
    pub fn peer(&self, node: &NodeId) -> Option<&Peer> {
        self.policy().and_then(|policy| policy.peers.iter().find(|peer| peer.node == *node))
    }
    /// Whether a node was revoked, everywhere.
    pub fn is_denied(&self, node: &NodeId) -> bool {
        self.policy().is_some_and(|policy| policy.denied.contains(node))
    }
    /// Time since the centre last said that this policy holds; to be stored now and then for `restore`.
    pub fn age(&self, monotonic: Duration) -> Option<Duration> {
        let believed = self.believed.as_ref()?;
        Some(believed.age.saturating_add(monotonic.saturating_sub(believed.since)))
    }
    pub fn staleness(&self, monotonic: Duration) -> Staleness {
        let (Some(believed), Some(age)) = (&self.believed, self.age(monotonic)) else { return Staleness::Stale };
        let limit = Duration::from_secs(believed.policy.staleness_seconds.clamp(STALENESS_MIN, STALENESS_MAX));
        if age > limit {
            Staleness::Stale
        } else if age > limit / 2 {
            Staleness::Alarming
        } else {
            Staleness::Fresh
        }
    }

    /// Whether `consumer` may take `resource` now, reached in `zone`. The providing node asks before it
    /// offers anything; a taker may ask for its own transfers, as its policy holds the same grants.
    pub fn permit(
        &self,
        consumer: &NodeId,
        resource: &ResourceRef,
        zone: Option<&str>,
        now: Timestamp,
        monotonic: Duration,
    ) -> Result<Permit, Problem> {
        let believed = self.in_force(monotonic)?;
        self.check_parties(consumer, resource)?;
        let about = |grant: &&Grant| grant.consumer == *consumer && grant.resource == *resource;
        let mut refusal = None;
        for grant in believed.grants.iter().filter(about) {
            match covers(grant, zone, now) {
                Ok(()) => {
                    let (policy_epoch, policy_sequence) = believed.policy.version();
                    return Ok(Permit { grant: grant.clone(), policy_epoch, policy_sequence });
                }
                Err(problem) => refusal = Some(problem),
            }
        }
        let subject = (consumer.clone(), resource.clone());
        // Where a grant cannot be read at all it may be this one: it is named as the reason, and denies.
        let unusable = believed.unusable.iter().any(|grant| grant.subject.as_ref().is_none_or(|s| *s == subject));
        Err(match refusal {
            Some(problem) => problem,
            None if unusable => Problem::new(Code::PolicyTooNew).with("consumer", consumer).with("resource", resource),
            None => no_grant(consumer, resource),
        })
    }

    /// Whether a permit still holds: asked again during a transfer, at each change of policy and from time to time.
    pub fn still_permits(&self, permit: &Permit, now: Timestamp, monotonic: Duration) -> Result<(), Problem> {
        let believed = self.in_force(monotonic)?;
        self.check_parties(permit.consumer(), permit.resource())?;
        let withdrawn =
            || Problem::new(Code::GrantWithdrawn).with("resource", permit.resource()).with("grant", permit.grant());
        let grant = believed.grants.iter().find(|grant| grant.id == *permit.grant()).ok_or_else(withdrawn)?;
        // The same id with other restrictions is another grant; only its life may be made longer or shorter.
        let same = Grant { from: permit.grant.from, until: permit.grant.until, ..grant.clone() } == permit.grant;
        if same {
            covers(grant, grant.zone.as_deref(), now)
        } else {
            Err(withdrawn().cause("its restrictions were changed"))
        }
    }

    /// Relays between `consumer` and the resource's node, in this order: as the live grant prescribes, else the last one
    /// that was known. What is under way is ended on the way on which it began.
    pub fn route(&self, consumer: &NodeId, resource: &ResourceRef, now: Timestamp) -> &[NodeId] {
        let Some(believed) = &self.believed else { return &[] };
        let about = |grant: &&Grant| grant.consumer == *consumer && grant.resource == *resource;
        let mut known = believed.grants.iter().filter(about).chain(believed.ended.iter().filter(about));
        let live = known.clone().find(|grant| covers(grant, grant.zone.as_deref(), now).is_ok());
        live.or_else(|| known.next()).map_or(&[], Grant::route)
    }

    /// Whether `from` may bring a line here for what `consumer` and the resource's node exchange of it: where a grant
    /// prescribes relays, and has `from` next to this node on that way. What is given by it, and whether at all any
    /// more, is the providing node's to judge: the refusal, and what settles the transfers before, take the same way.
    pub fn pass(
        &self,
        consumer: &NodeId,
        resource: &ResourceRef,
        from: &NodeId,
        monotonic: Duration,
    ) -> Result<Passing, Problem> {
        let believed = self.in_force(monotonic)?;
        self.check_denied(consumer, resource)?;
        let about = |grant: &&Grant| grant.consumer == *consumer && grant.resource == *resource;
        let known = believed.grants.iter().chain(&believed.ended).filter(about);
        for grant in known.filter(|grant| !grant.route().is_empty()) {
            let (from_consumer, next) = match grant.beside(&self.node) {
                Some((Some(before), after)) if before == from => (true, after.cloned()),
                Some((before, Some(after))) if after == from => (false, before.cloned()),
                _ => continue,
            };
            return Ok(Passing { grant: grant.clone(), next, from_consumer });
        }
        Err(no_grant(consumer, resource).cause(format!("no grant has it come from {from} to {} as a relay", self.node)))
    }

    /// Whether that still holds.
    pub fn still_passes(&self, passing: &Passing, monotonic: Duration) -> Result<(), Problem> {
        let believed = self.in_force(monotonic)?;
        let Grant { id, consumer, resource, .. } = &passing.grant;
        self.check_denied(consumer, resource)?;
        let is_it = |grant: &Grant| grant.id == *id && grant.via == passing.grant.via;
        match believed.grants.iter().chain(&believed.ended).any(is_it) {
            true => Ok(()),
            false => Err(Problem::new(Code::GrantWithdrawn).with("resource", resource).with("grant", id)),
        }
    }

    fn in_force(&self, monotonic: Duration) -> Result<&Believed, Problem> {
        match &self.believed {
            Some(believed) if self.staleness(monotonic) != Staleness::Stale => Ok(believed),
            Some(_) => Err(Problem::new(Code::PolicyStale).with("node", &self.node)),
            None => Err(Problem::new(Code::PolicyStale).with("node", &self.node).cause("it has no policy yet")),
        }
    }

    fn check_denied(&self, consumer: &NodeId, resource: &ResourceRef) -> Result<(), Problem> {
        match [consumer, &resource.node, &self.node].into_iter().find(|node| self.is_denied(node)) {
            Some(node) => Err(Problem::new(Code::NodeRevoked).with("node", node)),
            None => Ok(()),
        }
    }

    fn check_parties(&self, consumer: &NodeId, resource: &ResourceRef) -> Result<(), Problem> {
        self.check_denied(consumer, resource)?;
        // A policy speaks of its own node's exchanges only.
        if *consumer != self.node && resource.node != self.node {
            return Err(no_grant(consumer, resource));
        }
        Ok(())
    }
}

fn covers(grant: &Grant, zone: Option<&str>, now: Timestamp) -> Result<(), Problem> {
    if now >= grant.until {
        return Err(Problem::new(Code::GrantExpired).with("grant", &grant.id).with("until", grant.until));
    }
    if now < grant.from {
        return Err(no_grant(&grant.consumer, &grant.resource).cause(format!("the grant begins at {}", grant.from)));
    }
    match &grant.zone {
        Some(required) if zone != Some(required.as_str()) => {
            Err(no_grant(&grant.consumer, &grant.resource)
                .cause(format!("the grant holds in the zone {required} only")))
        }
        _ => Ok(()),
    }
}

fn no_grant(consumer: &NodeId, resource: &ResourceRef) -> Problem {
    Problem::new(Code::NoGrant).with("consumer", consumer).with("resource", resource)
}

fn older(given: (u64, u64), known: (u64, u64)) -> PolicyError {
    let text = |(epoch, sequence): (u64, u64)| format!("epoch {epoch}, sequence {sequence}");
    PolicyError::Older { given: text(given), known: text(known) }
}

impl Unusable {
    /// Reads consumer and resource, keys 1 and 2, whatever else there is.
    fn read(bytes: &[u8]) -> Self {
        #[derive(minicbor::Decode)]
        #[cbor(map)]
        struct Subject {
            #[n(1)]
            consumer: NodeId,
            #[n(2)]
            resource: ResourceRef,
        }
        let subject = crate::codec::decode::<Subject>(bytes, crate::limits::GRANT_BYTES_MAX).ok();
        Self { subject: subject.map(|subject| (subject.consumer, subject.resource)) }
    }
}

/// Bounds of the staleness limit: 1 h to 30 days.
const STALENESS_MIN: u64 = 3_600;
const STALENESS_MAX: u64 = 30 * 86_400;
