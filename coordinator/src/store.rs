//! What the centre keeps, behind one trait: [`sqlite`] implements it, PostgreSQL can.
//! Each method is one transaction, durable when it returns. Leaves are only ever added; what is known of a
//! transfer is projected from its statements in the transaction that appends them.

pub(crate) mod records;
pub(crate) mod sqlite;
#[cfg(test)]
mod suite;

use crate::alarm::Alarm;
use crate::ledger::Leaf;
use crate::reconcile::TransferRow;
use posthouse_protocol::centre::{Heartbeat, Profile, Progress};
use posthouse_protocol::id::{GrantId, NodeId, ReceiptId, TransferId};
use posthouse_protocol::problem::Problem;
use posthouse_protocol::reconciliation::Verdict;
use posthouse_protocol::time::Timestamp;
use records::{AccessRecord, GrantRecord, Issued, Joining, NodeRecord, Page, PolicyMaterial, TokenRecord, Window};

/// See the file's head. Hashes of secrets are SHA-256; the secrets themselves are never stored.
#[async_trait::async_trait]
pub(crate) trait Store: Send + Sync {
    async fn meta(&self, name: &str) -> Result<Option<String>, Problem>;
    async fn set_meta(&self, name: &str, value: &str) -> Result<(), Problem>;
    /// Reads and writes: what readiness asks.
    async fn probe(&self) -> Result<(), Problem>;

    // membership
    async fn nodes(&self) -> Result<Vec<NodeRecord>, Problem>;
    async fn node(&self, node: &NodeId) -> Result<Option<NodeRecord>, Problem>;
    async fn add_token(&self, token: TokenRecord) -> Result<(), Problem>;
    /// Whether a token may be used; changes nothing.
    async fn look_at_token(&self, join: &JoinRecord) -> Result<Joining, Problem>;
    /// Uses the token and registers the node, or says why not, in one transaction.
    async fn join(&self, join: JoinRecord, issued: Issued) -> Result<Joining, Problem>;
    async fn renewed(&self, node: &NodeId, issued: Issued) -> Result<(), Problem>;
    async fn certificate_revoked(&self, sha256: [u8; 32]) -> Result<bool, Problem>;
    /// Marks the node and all its certificates; false = unknown or revoked before.
    async fn revoke(&self, node: &NodeId, at: Timestamp) -> Result<bool, Problem>;
    /// The highest epoch known after `epoch` was seen; a lower one is recorded as fenced.
    async fn raise_epoch(&self, node: &NodeId, epoch: u64, at: Timestamp) -> Result<u64, Problem>;
    /// Reports of many nodes at once, with what they say of transfers.
    async fn save_reports(&self, reports: Vec<Report>) -> Result<(), Problem>;
    /// A node's profile changed: its peers' policies name it.
    async fn set_profile(&self, node: &NodeId, profile: Profile) -> Result<(), Problem>;

    // policy
    /// One live grant for a pair and a zone: the same again moves its end.
    async fn add_grant(&self, grant: GrantRecord) -> Result<Granted, Problem>;
    async fn grants(&self) -> Result<Vec<GrantRecord>, Problem>;
    /// The grant as revoked; None = unknown or revoked before.
    async fn revoke_grant(&self, id: &GrantId, at: Timestamp) -> Result<Option<GrantRecord>, Problem>;
    /// Everything that one node's policy consists of, from one instant.
    async fn policy_material(&self, node: &NodeId) -> Result<Option<PolicyMaterial>, Problem>;
    /// Nodes that have a grant with this one, in either direction.
    async fn neighbours(&self, node: &NodeId) -> Result<Vec<NodeId>, Problem>;
    /// The policies of these nodes (None = of all) changed.
    async fn bump_policies(&self, nodes: Option<Vec<NodeId>>) -> Result<(), Problem>;

    // access
    /// False = the name is taken.
    async fn add_access(&self, access: AccessRecord) -> Result<bool, Problem>;
    async fn access(&self) -> Result<Vec<AccessRecord>, Problem>;
    async fn revoke_access(&self, name: &str) -> Result<bool, Problem>;
    async fn touch_access(&self, name: &str, at: Timestamp) -> Result<(), Problem>;

    // ledger
    /// Takes each statement exactly once, in this order: a repeat gets the index it has.
    async fn append(&self, leaves: Vec<Leaf>, at: Timestamp) -> Result<Appended, Problem>;
    async fn ledger_size(&self) -> Result<u64, Problem>;
    /// Stored hashes at these positions, in this order.
    async fn hashes(&self, positions: Vec<u64>) -> Result<Vec<[u8; 32]>, Problem>;
    /// Leaves by the SHA-256 of their statements, in this order.
    async fn find_leaves(&self, sha256: Vec<[u8; 32]>) -> Result<Vec<Option<StoredLeaf>>, Problem>;
    async fn leaves(&self, from: u64, limit: u64) -> Result<Vec<StoredLeaf>, Problem>;
    /// All statements that speak of a transfer, oldest first.
    async fn leaves_of(&self, transfer: &TransferId) -> Result<Vec<StoredLeaf>, Problem>;
    /// The newest leaves of a kind, newest first.
    async fn leaves_of_kind(&self, kind: &str, below: Option<u64>, limit: u64) -> Result<Vec<StoredLeaf>, Problem>;

    // transfers
    async fn transfer(&self, id: &TransferId) -> Result<Option<TransferRow>, Problem>;
    async fn transfer_of_receipt(&self, id: &ReceiptId) -> Result<Option<TransferRow>, Problem>;
    /// Newest first.
    async fn transfers(&self, window: Window, page: Page) -> Result<Vec<TransferRow>, Problem>;
    async fn count_transfers(&self, window: Window) -> Result<u64, Problem>;
    /// How many have which verdict, of those whose verdict is settled.
    async fn tally(&self, window: Window) -> Result<Vec<(Verdict, u64)>, Problem>;
    /// Those of one settled verdict, newest first.
    async fn transfers_of(&self, verdict: Verdict, window: Window, page: Page) -> Result<Vec<TransferRow>, Problem>;
    /// Those whose verdict still depends on time, newest first.
    async fn open_transfers(&self, window: Window, page: Page) -> Result<Vec<TransferRow>, Problem>;
    /// Those that somebody stated for other parties, newest first.
    async fn strayed(&self, window: Window, page: Page) -> Result<Vec<TransferRow>, Problem>;
    /// Those with a receipt, by the time the centre had both statements, newest first.
    async fn receipts(&self, window: Window, page: Page) -> Result<Vec<TransferRow>, Problem>;

    // alarms
    /// `once`: one that is open already is left as it is.
    async fn raise(&self, kind: &str, subject: &str, cause: &str, at: Timestamp, once: bool) -> Result<(), Problem>;
    async fn clear(&self, kind: &str, subject: &str, at: Timestamp) -> Result<(), Problem>;
    async fn alarms(&self, open_only: bool) -> Result<Vec<Alarm>, Problem>;

    /// No writes afterwards; what was written is durable already.
    async fn close(&self);
}

/// What a node asks when it joins.
#[derive(Debug, Clone)]
pub(crate) struct JoinRecord {
    pub(crate) node: NodeId,
    pub(crate) secret_sha256: [u8; 32],
    /// SHA-256 over the request's key and CSR: the same request may be answered twice.
    pub(crate) request_sha256: [u8; 32],
    pub(crate) statement_key: [u8; 32],
    pub(crate) profile: Profile,
    pub(crate) now: Timestamp,
}

/// What became of a grant that was to be added.
#[derive(Debug, Clone)]
pub(crate) enum Granted {
    Added,
    /// It stood already, and now ends when the new one would; before, it ended at `until`.
    Moved {
        grant: GrantRecord,
        until: Timestamp,
    },
    /// This one is in the way: nothing was changed.
    Taken(GrantRecord),
}

/// One heartbeat as it is kept.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    pub(crate) node: NodeId,
    pub(crate) at: Timestamp,
    /// Without its transfers.
    pub(crate) heartbeat: Heartbeat,
    pub(crate) transfers: Vec<Progress>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Appended {
    /// For each statement given, its index and whether it is new.
    pub(crate) leaves: Vec<(u64, bool)>,
    /// Size of the log after this.
    pub(crate) size: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredLeaf {
    pub(crate) index: u64,
    pub(crate) sha256: [u8; 32],
    pub(crate) bytes: Vec<u8>,
    pub(crate) issuer: String,
    pub(crate) kind: String,
    pub(crate) transfer: Option<TransferId>,
    pub(crate) taken_at: Timestamp,
}
