//! What the command line asks a running coordinator over `DATA_DIR/admin.sock`, and the answers' items.
//! Whoever can open the socket is an administrator: the file's mode is the lock. Each act that changes
//! something is a statement in the ledger.

use crate::Centre;
use crate::policy::NewGrant;
pub use crate::reconcile::statistics::{Figures, Statistics};
use crate::reconcile::{Day, balance};
use posthouse_platform::admin_socket::{Handler, Items};
use posthouse_protocol::centre::{CentreAnswer, CentreRequest};
use posthouse_protocol::id::{GrantId, JobId, NodeId, ResourceRef};
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::reconciliation::{Finding, Tally};
use posthouse_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// One question. Answered by items (see each), then `done` or a problem.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Done: [`Status`].
    Status,
    /// Done: [`TokenMade`].
    Token {
        node: NodeId,
        ttl_ms: u64,
    },
    /// Items: [`NodeRow`].
    NodeList,
    NodeRevoke {
        node: NodeId,
    },
    /// Done: [`AccessMade`].
    AccessAdd {
        name: String,
        role: Role,
    },
    /// Items: [`AccessRow`].
    AccessList,
    AccessRevoke {
        name: String,
    },
    /// Done: [`GrantRow`].
    GrantAdd {
        consumer: NodeId,
        resource: ResourceRef,
        until: Timestamp,
        #[serde(default)]
        columns: Option<Vec<String>>,
        /// Text of the row-filter language.
        #[serde(default)]
        filter: Option<String>,
        #[serde(default)]
        zone: Option<String>,
        /// Relays in order from the consumer to the provider.
        #[serde(default)]
        via: Option<Vec<NodeId>>,
        /// Each as it is typed: `phone=keep:3:4`.
        #[serde(default)]
        masks: Option<Vec<String>>,
    },
    /// Items: [`GrantRow`].
    GrantList,
    GrantRevoke {
        grant: GrantId,
    },
    /// The balance of a day (`2026-11-22`, in the coordinator's time zone; None = today). Done: [`DayBalance`].
    Reconcile {
        day: Option<String>,
    },
    /// Done: [`Deep`].
    ReconcileDeep {
        node: NodeId,
        job: JobId,
    },
    /// A day (`2026-11-22`) or a month (`2026-11`); None = today. Done: [`Statistics`].
    Statistics {
        period: Option<String>,
    },
    /// Done: `{"checkpoint":"…","size":n}`.
    LedgerCheckpoint,
    /// Items: [`crate::Alarm`], open ones.
    AlarmList,
}

/// What a bearer token may do; each role may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Viewer,
    Operator,
    Auditor,
    Admin,
}

impl Role {
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Operator, Self::Auditor, Self::Admin];
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Auditor => "auditor",
            Self::Admin => "admin",
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for Role {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or(())
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TokenMade {
    pub token: String,
    #[schema(value_type = String)]
    pub node: NodeId,
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AccessMade {
    pub name: String,
    pub role: Role,
    pub token: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AccessRow {
    pub name: String,
    pub role: Role,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_used_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    Up,
    Stale,
    Revoked,
}

impl NodeState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Stale => "stale",
            Self::Revoked => "revoked",
        }
    }
}

/// One node as its last report and the registry have it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NodeRow {
    #[schema(value_type = String)]
    pub name: NodeId,
    pub state: NodeState,
    pub department: Option<String>,
    pub department_code: Option<String>,
    pub division: Option<String>,
    pub addresses: Vec<(Option<String>, String)>,
    pub version: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    pub joined_at: Timestamp,
    /// When it last reported: every value of this row that the node reports was true then.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_report_at: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub certificate_expires_at: Option<Timestamp>,
    pub disk_free_bytes: Option<u64>,
    pub lag_seconds: Option<u64>,
    pub outbox: Option<u64>,
    pub jobs: Option<u64>,
    pub epoch: u64,
    /// When a restored copy of it was last turned away.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub fenced_at: Option<Timestamp>,
    pub connected: bool,
    pub last_error: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    pub as_of: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct GrantRow {
    #[schema(value_type = String)]
    pub id: GrantId,
    #[schema(value_type = String)]
    pub consumer: NodeId,
    #[schema(value_type = String)]
    pub resource: ResourceRef,
    #[schema(value_type = String, format = DateTime)]
    pub from: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub until: Timestamp,
    pub columns: Option<Vec<String>>,
    pub filter: Option<String>,
    pub zone: Option<String>,
    /// Relays in order from the consumer to the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub via: Option<Vec<NodeId>>,
    /// Columns that are masked beyond what the resource itself does, each as `phone=keep:3:4`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masks: Option<Vec<String>>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub revoked_at: Option<Timestamp>,
    /// Answered to a grant that stood already: when it ended before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub until_before: Option<Timestamp>,
}

/// The three-party balance of one day.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DayBalance {
    pub day: String,
    #[schema(value_type = Object)]
    pub counts: Tally,
    #[schema(value_type = Vec<Object>)]
    pub findings: Vec<Finding>,
    #[schema(value_type = String, format = DateTime)]
    pub as_of: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Status {
    #[schema(value_type = String)]
    pub name: NodeId,
    pub version: String,
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// The day that `transfers_today` and `today` are about, in the coordinator's time zone.
    pub day: String,
    pub nodes_up: u64,
    pub nodes_stale: u64,
    pub nodes_revoked: u64,
    pub ledger_size: u64,
    pub transfers_today: u64,
    #[schema(value_type = Object)]
    pub today: Tally,
    pub alarms: u64,
    #[schema(value_type = String, format = DateTime)]
    pub as_of: Timestamp,
}

/// A deep reconciliation as the job's node answered it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deep {
    pub node: NodeId,
    pub job: JobId,
    pub matched: bool,
    pub findings: Vec<Finding>,
    pub as_of: Timestamp,
}

/// What one question was answered: its items, then the end.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub items: Vec<Value>,
    pub done: Value,
}

/// Answers over the admin socket.
pub(crate) struct Socket(pub(crate) Arc<Centre>);

#[async_trait::async_trait]
impl Handler for Socket {
    async fn answer(&self, request: Value, items: &mut Items) -> Result<Value, Problem> {
        let request = serde_json::from_value(request)
            .map_err(|e| Problem::new(Code::UsageInvalid).with("what", "the question is not understood").cause(e))?;
        let answer = answer(&self.0, request).await?;
        for item in &answer.items {
            items.send(item).await?;
        }
        Ok(answer.done)
    }
}

pub(crate) async fn answer(centre: &Arc<Centre>, request: Request) -> Result<Answer, Problem> {
    match request {
        Request::Status => done(&centre.status().await?),
        Request::Token { node, ttl_ms } => done(&centre.make_token(&node, ttl_ms, WHO).await?),
        Request::NodeList => items(&centre.node_rows().await?),
        Request::NodeRevoke { node } => {
            centre.revoke_node(&node, WHO).await?;
            done(&node)
        }
        Request::AccessAdd { name, role } => done(&centre.add_access(&name, role, WHO).await?),
        Request::AccessList => items(&centre.access_rows().await?),
        Request::AccessRevoke { name } => {
            centre.revoke_access(&name, WHO).await?;
            done(&name)
        }
        Request::GrantAdd { consumer, resource, until, columns, filter, zone, via, masks } => {
            let new = NewGrant { consumer, resource, until, columns, filter, zone, via, masks };
            done(&centre.add_grant(new, WHO).await?)
        }
        Request::GrantList => items(&centre.grant_rows().await?),
        Request::GrantRevoke { grant } => {
            centre.revoke_grant(&grant, WHO).await?;
            done(&grant)
        }
        Request::Reconcile { day } => done(&centre.balance_of(day.as_deref(), true).await?),
        Request::ReconcileDeep { node, job } => done(&centre.reconcile_deep(&node, &job).await?),
        Request::Statistics { period } => done(&centre.statistics(period.as_deref()).await?),
        Request::AlarmList => items(&centre.store.alarms(true).await?),
        Request::LedgerCheckpoint => {
            let (size, checkpoint) = centre.ledger.checkpoint().await?;
            done(&serde_json::json!({ "size": size, "checkpoint": checkpoint }))
        }
    }
}

impl Centre {
    pub(crate) async fn status(&self) -> Result<Status, Problem> {
        let now = self.world.clock.now();
        let nodes = self.node_rows().await?;
        let count = |state| nodes.iter().filter(|node| node.state == state).count() as u64;
        let today = Day::today(now, &self.zone)?;
        let balance = balance(&*self.store, &today, now, self.config.overdue_after.as_ms()).await?;
        Ok(Status {
            name: self.config.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at,
            day: balance.day,
            nodes_up: count(NodeState::Up),
            nodes_stale: count(NodeState::Stale),
            nodes_revoked: count(NodeState::Revoked),
            ledger_size: self.store.ledger_size().await?,
            transfers_today: self.store.count_transfers(today.window).await?,
            today: balance.counts,
            alarms: self.store.alarms(true).await?.len() as u64,
            as_of: now,
        })
    }

    /// The balance of a day (None = today). `stated`: the result goes into the ledger, where it differs from
    /// what was stated of this day before.
    pub(crate) async fn balance_of(&self, day: Option<&str>, stated: bool) -> Result<DayBalance, Problem> {
        let now = self.world.clock.now();
        let day = match day {
            Some(day) => Day::parse(day, &self.zone)?,
            None => Day::today(now, &self.zone)?,
        };
        let balance = balance(&*self.store, &day, now, self.config.overdue_after.as_ms()).await?;
        if stated {
            let said = serde_json::to_string(&balance.counts).unwrap_or_default();
            let kept = format!("balance {}", balance.day);
            if self.store.meta(&kept).await?.as_deref() != Some(said.as_str()) {
                self.ledger.act("reconcile.day", WHO, &format!("{} {said}", balance.day)).await?;
                self.store.set_meta(&kept, &said).await?;
            }
        }
        Ok(balance)
    }

    /// Asks a job's node to compare the standing tables; takes as long as that takes.
    async fn reconcile_deep(&self, node: &NodeId, job: &JobId) -> Result<Deep, Problem> {
        self.member(node).await?;
        let findings: Vec<Finding> = match self.ask(node, CentreRequest::Reconcile(job.clone()), DEEP).await? {
            CentreAnswer::Findings(json) => {
                serde_json::from_str(&json).map_err(|e| Problem::new(Code::FrameInvalid).with("peer", node).cause(e))?
            }
            _ => return Err(Problem::new(Code::FrameInvalid).with("peer", node).cause("it gave no findings")),
        };
        Ok(Deep {
            node: node.clone(),
            job: job.clone(),
            matched: findings.is_empty(),
            findings,
            as_of: self.world.clock.now(),
        })
    }
}

fn done(value: &impl Serialize) -> Result<Answer, Problem> {
    Ok(Answer { items: Vec::new(), done: json(value)? })
}

fn items<T: Serialize>(values: &[T]) -> Result<Answer, Problem> {
    let items = values.iter().map(json).collect::<Result<Vec<_>, _>>()?;
    Ok(Answer { done: items.len().into(), items })
}

fn json(value: &impl Serialize) -> Result<Value, Problem> {
    serde_json::to_value(value).map_err(|e| Problem::new(Code::InsideFailed).cause(e))
}

/// In whose name acts over the socket are stated: whoever may open it.
const WHO: &str = "admin socket";
const DEEP: Duration = Duration::from_secs(3_600);
