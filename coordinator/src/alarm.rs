//! 告警: what somebody should look at. First form: a recorded list, each kind and subject once, with
//! how often and when. Raising one never fails the work at hand.

use crate::store::Store;
use posthouse_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Alarm {
    pub kind: String,
    /// Whom or what it is about: a node, a token's node, a transfer.
    pub subject: String,
    pub cause: String,
    #[schema(value_type = String, format = DateTime)]
    pub first_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub last_at: Timestamp,
    pub times: u64,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub cleared_at: Option<Timestamp>,
}

/// What may be raised; the kind's text stands in listings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// 令牌被再次使用
    TokenReused,
    /// 节点副本被隔离
    Fenced,
    /// 已吊销的节点来连接
    RevokedNode,
    /// 逾期未回
    Overdue,
    /// 同一批次说法不一
    Contradiction,
    /// 未经授权的交换
    Ungranted,
}

impl Kind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::TokenReused => "token_reused",
            Self::Fenced => "fenced",
            Self::RevokedNode => "revoked_node",
            Self::Overdue => "overdue",
            Self::Contradiction => "contradiction",
            Self::Ungranted => "ungranted",
        }
    }
}

pub(crate) async fn raise(store: &dyn Store, kind: Kind, subject: &str, cause: &str, at: Timestamp) {
    tracing::warn!(kind = kind.as_str(), subject, cause, "Raised an alarm");
    if let Err(problem) = store.raise(kind.as_str(), subject, cause, at, false).await {
        tracing::error!(%problem, "Failed to record an alarm");
    }
}

/// As [`raise`], for what is found again at every look: it counts once.
pub(crate) async fn raise_once(store: &dyn Store, kind: Kind, subject: &str, cause: &str, at: Timestamp) {
    if let Err(problem) = store.raise(kind.as_str(), subject, cause, at, true).await {
        tracing::error!(%problem, "Failed to record an alarm");
    }
}

pub(crate) async fn clear(store: &dyn Store, kind: Kind, subject: &str, at: Timestamp) {
    if let Err(problem) = store.clear(kind.as_str(), subject, at).await {
        tracing::error!(%problem, "Failed to clear an alarm");
    }
}
