//! What the command line asks a running coordinator over `DATA_DIR/admin.sock`, and the answers' items.
//! Whoever can open the socket is an administrator: the file's mode is the lock. Each act that changes
//! something is a statement in the ledger.

use posthouse_protocol::id::{GrantId, JobId, NodeId, ResourceRef};
use posthouse_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};

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
    /// Done: `{"matched":…,"findings":[…]}` as the node answered.
    ReconcileDeep {
        node: NodeId,
        job: JobId,
    },
    /// A day (`2026-11-22`) or a month (`2026-11`); None = today. Done: the month's or day's figures.
    Statistics {
        period: Option<String>,
    },
    /// Done: `{"checkpoint":"…","size":n}`.
    LedgerCheckpoint,
}

/// What a bearer token may do; each role may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Viewer,
    Operator,
    Auditor,
    Admin,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenMade {
    pub token: String,
    pub node: NodeId,
    pub expires_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AccessMade {
    pub name: String,
    pub role: Role,
    pub token: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AccessRow {
    pub name: String,
    pub role: Role,
    pub created_at: Timestamp,
    pub last_used_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    Up,
    Stale,
    Revoked,
}

/// One node as its last report and the registry have it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeRow {
    pub name: NodeId,
    pub state: NodeState,
    pub department: Option<String>,
    pub department_code: Option<String>,
    pub division: Option<String>,
    pub addresses: Vec<(Option<String>, String)>,
    pub version: Option<String>,
    pub joined_at: Timestamp,
    /// When it last reported: every value of this row that the node reports was true then.
    pub last_report_at: Option<Timestamp>,
    pub certificate_expires_at: Option<Timestamp>,
    pub disk_free_bytes: Option<u64>,
    pub lag_seconds: Option<u64>,
    pub outbox: Option<u64>,
    pub epoch: u64,
    pub fenced: bool,
    pub connected: bool,
    pub last_error: Option<String>,
    pub as_of: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GrantRow {
    pub id: GrantId,
    pub consumer: NodeId,
    pub resource: ResourceRef,
    pub from: Timestamp,
    pub until: Timestamp,
    pub columns: Option<Vec<String>>,
    pub filter: Option<String>,
    pub zone: Option<String>,
    pub revoked_at: Option<Timestamp>,
}

/// The three-party balance of one day.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DayBalance {
    pub day: String,
    pub counts: Counts,
    pub findings: Vec<serde_json::Value>,
    pub as_of: Timestamp,
}

/// Transfers by verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    pub matched: u64,
    pub mismatched: u64,
    pub one_sided: u64,
    pub pending: u64,
    pub overdue: u64,
    pub ungranted: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub name: NodeId,
    pub version: String,
    pub started_at: Timestamp,
    pub nodes_up: u64,
    pub nodes_stale: u64,
    pub nodes_revoked: u64,
    pub ledger_size: u64,
    pub transfers_today: u64,
    pub today: Counts,
    pub alarms: u64,
    pub as_of: Timestamp,
}
