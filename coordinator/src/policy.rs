//! 授权策略: grants, and each node's signed policy made from them.
//! Each change raises the sequence of exactly the nodes it concerns, in the transaction that makes it; they
//! are told at once where they are connected, and learn it from their next heartbeat where they are not.
//! A consumer has one live grant for a resource: to give it again is to move its end, and what runs goes on.
//! The providing node enforces; the centre afterwards checks what was handed over against the grant it names.

use crate::Centre;
use crate::admin::GrantRow;
use crate::alarm;
use crate::store::Granted;
use crate::store::records::{GrantRecord, NodeRecord, PolicyMaterial};
use posthouse_protocol::catalog::Sharing;
use posthouse_protocol::centre::{CentreRequest, Profile};
use posthouse_protocol::filter::Filter;
use posthouse_protocol::govern::ColumnMask;
use posthouse_protocol::id::{GrantId, NodeId, ResourceRef, TransferId};
use posthouse_protocol::limits;
use posthouse_protocol::manifest::Manifest;
use posthouse_protocol::policy::{Freshness, Grant, Peer, Policy};
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::reconciliation::Verdict;
use posthouse_protocol::time::Timestamp;
use posthouse_protocol::trust::{Nodes, TrustedKey, TrustedNode};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What `grant add` is told.
#[derive(Debug, Clone)]
pub(crate) struct NewGrant {
    pub(crate) consumer: NodeId,
    pub(crate) resource: ResourceRef,
    pub(crate) until: Timestamp,
    pub(crate) columns: Option<Vec<String>>,
    pub(crate) filter: Option<String>,
    pub(crate) zone: Option<String>,
    /// Relays in order from the consumer to the provider.
    pub(crate) via: Option<Vec<NodeId>>,
    /// Each as it is typed.
    pub(crate) masks: Option<Vec<String>>,
}

impl Centre {
    pub(crate) async fn add_grant(self: &Arc<Self>, new: NewGrant, who: &str) -> Result<GrantRow, Problem> {
        let now = self.world.clock.now();
        let filter =
            new.filter.as_deref().map(Filter::parse).transpose().map_err(|e| usage(format!("--where: {e}")))?;
        if new.until <= now {
            return Err(usage(format!("{} has passed already", new.until)));
        }
        if new.columns.as_ref().is_some_and(|c| {
            c.is_empty() || c.len() > limits::COLUMNS_MAX || c.iter().any(|name| name.trim().is_empty())
        }) {
            return Err(usage("--columns names no column, an empty one, or too many"));
        }
        let masks = masks(new.masks.as_deref(), new.columns.as_deref())?;
        if new.consumer == new.resource.node {
            return Err(usage("a node needs no grant for what is its own"));
        }
        let via = new.via.filter(|via| !via.is_empty());
        if via.as_ref().is_some_and(|via| via.len() > limits::RELAYS_MAX) {
            return Err(usage(format!("--via names more than {} relays", limits::RELAYS_MAX)));
        }
        for (at, relay) in via.iter().flatten().enumerate() {
            let before = via.iter().flatten().take(at);
            if [&new.consumer, &new.resource.node].into_iter().chain(before).any(|stop| stop == relay) {
                return Err(usage(format!("--via: {relay} stands on the way already")));
            }
            self.member(relay).await?;
        }
        self.member(&new.consumer).await?;
        let provider = self.member(&new.resource.node).await?;
        let offered = provider.profile.resources.iter().find(|(id, _)| *id == new.resource.resource);
        if let Some((_, Some(catalog))) = offered
            && catalog.sharing == Sharing::None
        {
            return Err(Problem::new(Code::SharingNone)
                .with("resource", &new.resource)
                .cause(catalog.basis.clone().unwrap_or_default()));
        }
        let grant = Grant {
            id: GrantId::from_random(self.world.random.bytes()),
            consumer: new.consumer,
            resource: new.resource,
            from: now,
            until: new.until,
            columns: new.columns,
            filter,
            zone: new.zone,
            via,
            masks,
        };
        let record = GrantRecord {
            id: grant.id.clone(),
            consumer: grant.consumer.clone(),
            resource: grant.resource.clone(),
            until: grant.until,
            encoded: grant.encode().into(),
            filter_text: new.filter,
            created_at: now,
            revoked_at: None,
        };
        let (what, row) = match self.store.add_grant(record.clone()).await? {
            Granted::Added => ("grant.add", grant_row(&record)?),
            Granted::Moved { grant, until } => {
                ("grant.renew", GrantRow { until_before: Some(until), ..grant_row(&grant)? })
            }
            Granted::Taken(known) => {
                return Err(Problem::new(Code::GrantTaken)
                    .with("consumer", known.consumer)
                    .with("resource", known.resource)
                    .with("grant", known.id)
                    .with("until", known.until));
            }
        };
        if row.until_before == Some(row.until) {
            return Ok(row);
        }
        let details = serde_json::to_string(&row).unwrap_or_default();
        self.ledger.act(what, who, &details).await?;
        self.push(&concerned(&record));
        Ok(row)
    }

    pub(crate) async fn revoke_grant(self: &Arc<Self>, id: &GrantId, who: &str) -> Result<(), Problem> {
        let Some(grant) = self.store.revoke_grant(id, self.world.clock.now()).await? else {
            return Err(Problem::new(Code::UnknownName).with("kind", "grant").with("name", id));
        };
        self.push(&concerned(&grant));
        self.ledger.act("grant.revoke", who, id.as_str()).await
    }

    pub(crate) async fn grant_rows(&self) -> Result<Vec<GrantRow>, Problem> {
        self.store.grants().await?.iter().map(grant_row).collect()
    }

    /// The node's policy, signed.
    pub(crate) async fn policy_of(&self, node: &NodeId) -> Result<Vec<u8>, Problem> {
        let material = self.material(node).await?;
        let since = self.world.clock.now().plus_ms(-ENDED_KEPT_MS);
        let ended = material.ended.iter().filter(|grant| grant.revoked_at.is_some_and(|at| at > since));
        let ended: Vec<_> = ended.map(|grant| grant.encoded.clone().into()).collect();
        let policy = Policy {
            ledger: self.config.ledger_origin(),
            epoch: material.epoch,
            sequence: material.sequence,
            issued: self.world.clock.now(),
            node: node.clone(),
            grants: material.grants.iter().map(|grant| grant.encoded.clone().into()).collect(),
            peers: material
                .peers
                .iter()
                .map(|peer| Peer {
                    node: peer.name.clone(),
                    addresses: peer.profile.advertise.clone(),
                    statement_keys: peer.statement_keys.iter().map(|known| known.key.into()).collect(),
                    epoch: peer.epoch,
                    department: peer.profile.department.clone(),
                    department_code: peer.profile.department_code.clone(),
                    ferry_key: peer.profile.ferry_key,
                })
                .collect(),
            denied: material.denied,
            staleness_seconds: self.config.policy_staleness.0 / 1000,
            heartbeat_seconds: (self.config.heartbeat.0 / 1000).max(1),
            nodes: self.trusted(&material.own, &material.acquainted)?.into(),
            ended: Some(ended).filter(|ended| !ended.is_empty()),
        };
        policy.sign(&self.config.name, &*self.keys.policy).map_err(inside)
    }

    /// `nodes.cose` of a node and all it ever had to do with: whom to believe about their exchanges.
    fn trusted(&self, own: &NodeRecord, others: &[NodeRecord]) -> Result<Vec<u8>, Problem> {
        let trusted = |node: &NodeRecord| TrustedNode {
            node: node.name.clone(),
            department: node.profile.department.clone(),
            department_code: node.profile.department_code.clone(),
            keys: node
                .keys()
                .iter()
                .map(|known| TrustedKey { key: known.key.into(), from: known.since, until: known.until })
                .collect(),
        };
        let nodes = Nodes {
            ledger_vkey: self.keys.ledger_vkey.clone(),
            issued: self.world.clock.now(),
            nodes: [own].into_iter().chain(others).map(trusted).collect(),
        };
        nodes.sign(&self.config.name, &*self.keys.policy).map_err(inside)
    }

    /// Which policy is the node's latest, signed with the time: staleness counts from it.
    pub(crate) async fn freshness_of(&self, node: &NodeId) -> Result<Vec<u8>, Problem> {
        let material = self.material(node).await?;
        let freshness = Freshness {
            node: node.clone(),
            epoch: material.epoch,
            sequence: material.sequence,
            time: self.world.clock.now(),
        };
        freshness.sign(&self.config.name, &*self.keys.policy).map_err(inside)
    }

    async fn material(&self, node: &NodeId) -> Result<PolicyMaterial, Problem> {
        match self.store.policy_material(node).await? {
            Some(material) if material.own.revoked_at.is_none() => Ok(material),
            _ => Err(Problem::new(Code::NodeRevoked).with("node", node)),
        }
    }

    /// What a node says of itself has changed: its peers' policies name it.
    pub(crate) async fn profile_changed(self: &Arc<Self>, node: &NodeId, profile: Profile) -> Result<(), Problem> {
        self.store.set_profile(node, profile).await?;
        let neighbours = self.store.neighbours(node).await?;
        self.store.bump_policies(Some(neighbours.clone())).await?;
        self.push(&neighbours);
        Ok(())
    }

    /// Tells those of these nodes that are connected that their policy has changed.
    pub(crate) fn push(self: &Arc<Self>, nodes: &[NodeId]) {
        for node in nodes {
            let (centre, node) = (self.clone(), node.clone());
            self.tasks.spawn(async move {
                if let Err(problem) = centre.notify(&node, CentreRequest::PolicyChanged).await {
                    tracing::info!(%node, %problem, "Failed to tell a node that its policy has changed");
                }
            });
        }
    }

    /// As [`Centre::push`], to everybody.
    pub(crate) fn push_all(self: &Arc<Self>) {
        let nodes: Vec<NodeId> = self.connected();
        self.push(&nodes);
    }

    /// Raises what the ledger's projection found wrong with a handover.
    pub(crate) async fn watch_verdicts(&self, transfers: BTreeSet<TransferId>) -> Result<(), Problem> {
        for id in transfers {
            let Some(row) = self.store.transfer(&id).await? else { continue };
            if row.verdict.is_some() || row.ended_by_both {
                alarm::clear(&*self.store, alarm::Kind::Overdue, id.as_str(), self.world.clock.now()).await;
            }
            if let (Some(Verdict::Ungranted), Some(cause)) = (row.verdict, &row.ungranted) {
                alarm::raise(&*self.store, alarm::Kind::Ungranted, id.as_str(), cause, self.world.clock.now()).await;
            }
            let disagree = row.verdict == Some(Verdict::Mismatched) || !row.contradicting_leaves.is_empty();
            let disagree = disagree.then(|| "the statements of the two parties do not agree".to_owned());
            let stray = row.strays.last();
            let stray = stray.map(|s| format!("it is stated as one between {} and {} too", s.provider, s.consumer));
            if let Some(cause) = disagree.or(stray) {
                alarm::raise(&*self.store, alarm::Kind::Contradiction, id.as_str(), &cause, self.world.clock.now())
                    .await;
            }
        }
        Ok(())
    }
}

/// How a live grant stands to a new one for the same consumer and resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beside {
    /// Nothing differs but its life.
    Same,
    /// They hold in different zones.
    Apart,
    /// Where both hold, nobody could say which of them does.
    InTheWay,
}

impl Beside {
    pub(crate) fn of(known: &GrantRecord, new: &GrantRecord) -> Self {
        let (Some(known), Some(new)) = (Grant::decode(&known.encoded), Grant::decode(&new.encoded)) else {
            return Self::InTheWay;
        };
        if (Grant { id: new.id.clone(), from: new.from, until: new.until, ..known.clone() }) == new {
            Self::Same
        } else if known.zone.is_some() && new.zone.is_some() && known.zone != new.zone {
            Self::Apart
        } else {
            Self::InTheWay
        }
    }
}

/// The nodes whose policies hold a grant: its parties, and the relays on its way.
pub(crate) fn concerned(record: &GrantRecord) -> Vec<NodeId> {
    let mut nodes = vec![record.consumer.clone(), record.resource.node.clone()];
    nodes.extend(relays(record));
    nodes
}

pub(crate) fn relays(record: &GrantRecord) -> Vec<NodeId> {
    Grant::decode(&record.encoded).map(|grant| grant.route().to_vec()).unwrap_or_default()
}

/// A grant as it is, but ending at another time. A transfer that runs under it goes on.
pub(crate) fn ending_at(record: &GrantRecord, until: Timestamp) -> Option<GrantRecord> {
    let grant = Grant { until, ..Grant::decode(&record.encoded)? };
    Some(GrantRecord { until, encoded: grant.encode().into(), ..record.clone() })
}

/// Whether the grant that a manifest names covers it; the reason where it does not.
pub(crate) fn coverage(grant: Option<&GrantRecord>, manifest: &Manifest) -> Result<(), String> {
    let no = |why: &str| Err(why.to_owned());
    let Some(record) = grant else {
        return no("it names a grant that was never given");
    };
    let Some(grant) = Grant::decode(&record.encoded) else {
        return no("its grant cannot be read");
    };
    if grant.consumer != manifest.consumer || grant.resource != manifest.resource {
        return no("its grant is for another consumer or resource");
    }
    if manifest.started < grant.from.plus_ms(-limits::CLOCK_SKEW_MS) || manifest.started > grant.until {
        return no("its grant was not valid when it started");
    }
    if record.revoked_at.is_some_and(|revoked| manifest.started > revoked.plus_ms(limits::CLOCK_SKEW_MS)) {
        return no("its grant had been withdrawn when it started");
    }
    if grant.route() != manifest.route {
        return no("it did not go the way that its grant prescribes");
    }
    if grant.filter_sha256() != manifest.filter_sha256.map(|sha256| *sha256) {
        return no("it was not filtered as its grant demands");
    }
    let governed = manifest.governed.as_deref().unwrap_or_default();
    if let Some(mask) = grant.masks.iter().flatten().find(|mask| !mask.is_done(governed)) {
        return Err(format!("it was not masked as its grant demands: {}", mask.column));
    }
    Ok(())
}

/// The masks of a grant: columns that it covers, each once.
fn masks(given: Option<&[String]>, columns: Option<&[String]>) -> Result<Option<Vec<ColumnMask>>, Problem> {
    let mut masks: Vec<ColumnMask> = Vec::new();
    for text in given.unwrap_or_default() {
        let mask: ColumnMask = text.parse().map_err(|e| usage(format!("--mask: {e}")))?;
        if columns.is_some_and(|columns| !columns.contains(&mask.column)) {
            return Err(usage(format!("--mask: `{}` is not among the columns of the grant", mask.column)));
        }
        if masks.iter().any(|before| before.column == mask.column) {
            return Err(usage(format!("--mask: `{}` is masked twice", mask.column)));
        }
        masks.push(mask);
    }
    if masks.len() > limits::COLUMNS_MAX {
        return Err(usage("--mask is given too often"));
    }
    // In one order, so that the same grant given again is the same.
    masks.sort_by(|a, b| a.column.cmp(&b.column));
    Ok(Some(masks).filter(|masks| !masks.is_empty()))
}

fn grant_row(record: &GrantRecord) -> Result<GrantRow, Problem> {
    let grant = Grant::decode(&record.encoded)
        .ok_or_else(|| Problem::new(Code::StoreDamaged).with("path", record.id.as_str()).cause("it is no grant"))?;
    Ok(GrantRow {
        id: grant.id,
        consumer: grant.consumer,
        resource: grant.resource,
        from: grant.from,
        until: grant.until,
        columns: grant.columns,
        filter: record.filter_text.clone(),
        zone: grant.zone,
        via: grant.via,
        masks: grant.masks.map(|masks| masks.iter().map(ColumnMask::to_string).collect()),
        revoked_at: record.revoked_at,
        until_before: None,
    })
}

/// What was begun by a withdrawn grant is ended through its relays for so long.
const ENDED_KEPT_MS: i64 = 7 * 86_400_000;

fn usage(what: impl std::fmt::Display) -> Problem {
    Problem::new(Code::UsageInvalid).with("what", what)
}

fn inside(error: impl std::fmt::Display) -> Problem {
    Problem::new(Code::InsideFailed).cause(error)
}
