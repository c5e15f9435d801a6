//! Who belongs: the private CA, join tokens, joins, renewals, returns, revocation, epochs.
//! A name belongs to one machine at a time. A token lets one node in once: it is kept as a hash, a second
//! use is refused and raises an alarm. A node's epoch rises at each of its starts; a lower one is a restored
//! copy and is fenced. Keys are made where they are used and never travel.

use crate::Centre;
use crate::admin::{AccessMade, AccessRow, NodeRow, NodeState, Role, TokenMade};
use crate::alarm::{self, Kind};
use crate::store::JoinRecord;
use crate::store::records::{AccessRecord, Issued, Joining, NodeRecord, TokenRecord};
use base64::Engine;
use posthouse_platform::identity::{self, JoinToken};
use posthouse_protocol::centre::{Heartbeat, Join, Joined, Renew, Renewed, Return};
use posthouse_protocol::codec;
use posthouse_protocol::cose::{Ed25519, Verifier};
use posthouse_protocol::id::NodeId;
use posthouse_protocol::limits;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::time::Timestamp;
use std::sync::Arc;

impl Centre {
    /// A join token for one node, once.
    pub(crate) async fn make_token(&self, node: &NodeId, ttl_ms: u64, who: &str) -> Result<TokenMade, Problem> {
        if ttl_ms == 0 || ttl_ms > TOKEN_TTL_MS_MAX {
            return Err(Problem::new(Code::UsageInvalid).with("what", "--ttl is from 1 ms to 30 days"));
        }
        if *node == self.config.name {
            return Err(Problem::new(Code::UsageInvalid).with("what", "that is the coordinator's own name"));
        }
        if self.store.node(node).await?.is_some_and(|known| known.revoked_at.is_none()) {
            return Err(Problem::new(Code::AlreadyJoined).with("node", node));
        }
        let now = self.world.clock.now();
        let token = JoinToken {
            coordinator: self.config.name.clone(),
            ca_sha256: self.keys.authority.certificate_sha256().into(),
            node: node.clone(),
            secret: self.world.random.bytes::<32>().into(),
        };
        let expires_at = now.plus_ms(i64::try_from(ttl_ms).unwrap_or(i64::MAX));
        let record = TokenRecord { hash: token.secret_sha256(), node: node.clone(), created_at: now, expires_at };
        self.store.add_token(record).await?;
        self.ledger.act("token.add", who, node.as_str()).await?;
        Ok(TokenMade { token: token.encode(), node: node.clone(), expires_at })
    }

    pub(crate) async fn join(self: &Arc<Self>, join: Join) -> Result<Joined, Problem> {
        let now = self.world.clock.now();
        check_clock(join.now, now)?;
        let key = codec::sha256(&join.secret);
        let record = JoinRecord {
            node: join.node.clone(),
            secret_sha256: key,
            request_sha256: codec::sha256(&[&join.statement_key[..], &join.csr[..]].concat()),
            statement_key: *join.statement_key,
            profile: join.profile,
            now,
        };
        // Looked at first, so that only somebody with a token makes the CA work.
        let looked = self.store.look_at_token(&record).await?;
        self.judge_token(looked, &join.node).await?;
        let issued = self.issue(&join.csr, &join.node, now)?;
        let joining = self.store.join(record, facts(&issued, now)).await?;
        let epoch = self.judge_token(joining, &join.node).await?;
        self.deny_revoked().await?;
        self.ledger.act("node.join", join.node.as_str(), &hex::encode(*join.statement_key)).await?;
        let neighbours = self.store.neighbours(&join.node).await?;
        self.store.bump_policies(Some(neighbours.clone())).await?;
        self.push(&neighbours);
        tracing::info!(node = %join.node, "A node has joined");
        Ok(Joined {
            chain: issued.chain.into_iter().map(Into::into).collect(),
            policy_key: self.keys.policy.public_key().into(),
            ledger_vkey: self.keys.ledger_vkey.clone(),
            policy: self.policy_of(&join.node).await?.into(),
            now,
            epoch,
        })
    }

    async fn judge_token(&self, joining: Joining, node: &NodeId) -> Result<u64, Problem> {
        match joining {
            Joining::Joined { epoch } => Ok(epoch),
            Joining::Unknown => Err(Problem::new(Code::TokenInvalid)),
            Joining::Expired => Err(Problem::new(Code::TokenExpired)),
            Joining::AlreadyJoined => Err(Problem::new(Code::AlreadyJoined).with("node", node)),
            Joining::Used => {
                let now = self.world.clock.now();
                let cause = "a join token was used a second time";
                alarm::raise(&*self.store, Kind::TokenReused, node.as_str(), cause, now).await;
                Err(Problem::new(Code::TokenUsed))
            }
        }
    }

    /// A node whose certificate has expired comes back by its statement key: first the bounds are checked,
    /// then (`proof`) that it holds the key.
    pub(crate) async fn return_node(&self, back: &Return, challenge: &[u8; 32]) -> Result<Option<Renewed>, Problem> {
        let now = self.world.clock.now();
        check_clock(back.now, now)?;
        let node = self.member(&back.node).await?;
        if now.since_ms(node.certificate_expires) > RETURN_MS_MAX {
            return Err(Problem::new(Code::CertificateExpired)
                .with("peer", &back.node)
                .cause("more than 90 days ago; revoke it and let it join again"));
        }
        let Some(proof) = &back.proof else { return Ok(None) };
        let message = [RETURN_CONTEXT, &challenge[..], &codec::sha256(&back.csr)[..]].concat();
        let proven = node
            .statement_keys
            .iter()
            .any(|known| known.until.is_none() && Ed25519.verify(&known.key, &message, proof));
        if !proven {
            return Err(Problem::new(Code::CertificateInvalid)
                .with("peer", &back.node)
                .cause("it does not hold the key that this node registered"));
        }
        self.renewed(&back.node, &back.csr, now).await.map(Some)
    }

    pub(crate) async fn renew(&self, node: &NodeId, renew: &Renew) -> Result<Renewed, Problem> {
        self.member(node).await?;
        self.renewed(node, &renew.csr, self.world.clock.now()).await
    }

    async fn renewed(&self, node: &NodeId, csr: &[u8], now: Timestamp) -> Result<Renewed, Problem> {
        let issued = self.issue(csr, node, now)?;
        self.store.renewed(node, facts(&issued, now)).await?;
        Ok(Renewed { chain: issued.chain.into_iter().map(Into::into).collect(), now })
    }

    fn issue(&self, csr: &[u8], node: &NodeId, now: Timestamp) -> Result<identity::Issued, Problem> {
        let serial = self.world.random.bytes();
        self.keys.authority.issue(csr, node, now, self.config.certificate_life.as_ms(), &serial)
    }

    /// A registered node that is not revoked.
    pub(crate) async fn member(&self, node: &NodeId) -> Result<NodeRecord, Problem> {
        match self.store.node(node).await? {
            Some(record) if record.revoked_at.is_none() => Ok(record),
            Some(_) => Err(Problem::new(Code::NodeRevoked).with("node", node)),
            None => Err(Problem::new(Code::UnknownName).with("kind", "node").with("name", node)),
        }
    }

    pub(crate) async fn revoke_node(self: &Arc<Self>, node: &NodeId, who: &str) -> Result<(), Problem> {
        // Revoking once more finishes what a stop in the middle left undone: the words below.
        if !self.store.revoke(node, self.world.clock.now()).await? && self.store.node(node).await?.is_none() {
            return Err(Problem::new(Code::UnknownName).with("kind", "node").with("name", node));
        }
        self.deny_revoked().await?;
        self.disconnect(node, Code::NodeRevoked);
        self.push_all();
        self.ledger.act("node.revoke", who, node.as_str()).await
    }

    /// Hands the deny-list to the listeners.
    pub(crate) async fn deny_revoked(&self) -> Result<(), Problem> {
        let nodes = self.store.nodes().await?;
        self.endpoint.set_denied(nodes.into_iter().filter(|n| n.revoked_at.is_some()).map(|n| n.name).collect());
        Ok(())
    }

    /// Whether this epoch is the highest known of the node; a higher one becomes it. A lower one is fenced.
    pub(crate) async fn check_epoch(self: &Arc<Self>, node: &NodeId, epoch: u64) -> Result<(), Problem> {
        let known = self.known_epoch(node);
        if known == Some(epoch) {
            return Ok(());
        }
        let now = self.world.clock.now();
        let highest = self.store.raise_epoch(node, epoch, now).await?;
        self.remember_epoch(node, highest);
        if epoch < highest {
            let cause = format!("it started with epoch {epoch}, another copy with {highest}");
            alarm::raise(&*self.store, Kind::Fenced, node.as_str(), &cause, now).await;
            return Err(Problem::new(Code::Fenced).cause(cause));
        }
        if known.is_none_or(|known| known < epoch) {
            let neighbours = self.store.neighbours(node).await?;
            self.store.bump_policies(Some(neighbours.clone())).await?;
            self.push(&neighbours);
        }
        Ok(())
    }

    /// All nodes as of now: the registry, with what each last reported.
    pub(crate) async fn node_rows(&self) -> Result<Vec<NodeRow>, Problem> {
        let now = self.world.clock.now();
        let mut rows = Vec::new();
        for record in self.store.nodes().await? {
            let live = self.live(&record.name);
            let (report, reported_at) = match live.report {
                Some((heartbeat, at)) => (Some(heartbeat), Some(at)),
                None => (record.report.clone(), record.reported_at),
            };
            rows.push(node_row(
                record,
                report.as_ref(),
                reported_at,
                live.connected,
                now,
                self.config.heartbeat.as_ms(),
            ));
        }
        Ok(rows)
    }

    /// A bearer token of the HTTP API; it is shown once.
    pub(crate) async fn add_access(&self, name: &str, role: Role, who: &str) -> Result<AccessMade, Problem> {
        let named = !name.is_empty() && name.len() <= 64 && !name.chars().any(char::is_control);
        if !named {
            return Err(Problem::new(Code::UsageInvalid).with("what", "NAME has 1 to 64 characters"));
        }
        let token = access_token(&self.world.random.bytes());
        let record = AccessRecord {
            name: name.to_owned(),
            role,
            hash: codec::sha256(token.as_bytes()),
            created_at: self.world.clock.now(),
            last_used_at: None,
        };
        if !self.store.add_access(record).await? {
            let what = format!("there is an access `{name}` already; revoke it first");
            return Err(Problem::new(Code::UsageInvalid).with("what", what));
        }
        self.ledger.act("access.add", who, &format!("{name} {role}")).await?;
        Ok(AccessMade { name: name.to_owned(), role, token })
    }

    pub(crate) async fn access_rows(&self) -> Result<Vec<AccessRow>, Problem> {
        let rows = self.store.access().await?;
        Ok(rows
            .into_iter()
            .map(|a| AccessRow { name: a.name, role: a.role, created_at: a.created_at, last_used_at: a.last_used_at })
            .collect())
    }

    pub(crate) async fn revoke_access(&self, name: &str, who: &str) -> Result<(), Problem> {
        if !self.store.revoke_access(name).await? {
            return Err(Problem::new(Code::UnknownName).with("kind", "access").with("name", name));
        }
        self.ledger.act("access.revoke", who, name).await
    }
}

/// `ph_` and 32 random bytes in base64url: told apart from other secrets by people and scanners.
pub(crate) fn access_token(random: &[u8; 32]) -> String {
    format!("ph_{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(random))
}

fn node_row(
    record: NodeRecord,
    report: Option<&Heartbeat>,
    reported_at: Option<Timestamp>,
    connected: bool,
    now: Timestamp,
    heartbeat_ms: i64,
) -> NodeRow {
    // One and a half heartbeats: a report that is a little late is no failure, two missed ones are.
    let recent = reported_at.is_some_and(|at| now.since_ms(at) <= heartbeat_ms + heartbeat_ms / 2);
    let state = match (record.revoked_at, recent) {
        (Some(_), _) => NodeState::Revoked,
        (None, true) => NodeState::Up,
        (None, false) => NodeState::Stale,
    };
    let profile = report.map_or(&record.profile, |report| &report.profile);
    NodeRow {
        state,
        department: profile.department.clone(),
        department_code: profile.department_code.clone(),
        division: profile.division.clone(),
        addresses: profile.advertise.clone(),
        version: Some(profile.version.clone()).filter(|v| !v.is_empty()),
        joined_at: record.joined_at,
        last_report_at: reported_at,
        certificate_expires_at: Some(record.certificate_expires),
        disk_free_bytes: report.map(|r| r.disk_free_bytes),
        lag_seconds: report.map(|r| r.lag_seconds),
        outbox: report.map(|r| r.outbox),
        jobs: report.map(|r| r.jobs),
        epoch: record.epoch,
        fenced_at: record.fenced_at,
        connected,
        last_error: report.and_then(|r| r.last_error.as_ref()).map(|(code, cause)| format!("PH{code:04} {cause}")),
        as_of: now,
        name: record.name,
    }
}

fn facts(issued: &identity::Issued, now: Timestamp) -> Issued {
    Issued { sha256: issued.certificate_sha256, issued_at: now, expires_at: issued.not_after }
}

/// Clock error is named as clock error, before anything it would make look like something else.
fn check_clock(theirs: Timestamp, ours: Timestamp) -> Result<(), Problem> {
    let difference = ours.since_ms(theirs);
    if difference.saturating_abs() <= limits::CLOCK_SKEW_MS {
        return Ok(());
    }
    Err(Problem::new(Code::ClockWrong)
        .with("seconds", difference.saturating_abs() / 1000)
        .cause(format!("here it is {ours}, there {theirs}")))
}

const TOKEN_TTL_MS_MAX: u64 = 30 * 86_400_000;
/// How long after its certificate's end a node may come back.
const RETURN_MS_MAX: i64 = 90 * 86_400_000;
/// Signed before the challenge, so that the signature serves nothing else.
const RETURN_CONTEXT: &[u8] = b"posthouse return";
