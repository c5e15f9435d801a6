//! What a job is and which states a transfer passes through.

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// How much is read: full 全量, incremental 增量, follow 实时, observe 旁路对账.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum Mode {
    #[n(0)]
    Full,
    #[n(1)]
    Incremental,
    #[n(2)]
    Observe,
}

/// How it is landed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum Write {
    #[n(0)]
    Append,
    #[n(1)]
    Upsert,
    #[n(2)]
    Replace,
    #[n(3)]
    Mirror,
}

/// A transfer's state, see style.md: Planned 待执行 … Settled 已签收; aside: paused, refused, failed, cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum State {
    #[n(0)]
    Planned,
    #[n(1)]
    Offered,
    #[n(2)]
    Moving,
    #[n(3)]
    Staged,
    #[n(4)]
    Committed,
    #[n(5)]
    Settled,
    #[n(6)]
    Paused,
    #[n(7)]
    Refused,
    #[n(8)]
    Failed,
    #[n(9)]
    Cancelled,
}

impl State {
    /// Settled, refused, failed and cancelled transfers change no more.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Settled | Self::Refused | Self::Failed | Self::Cancelled)
    }
    pub fn zh(self) -> &'static str {
        match self {
            Self::Planned => "待执行",
            Self::Offered => "待接收",
            Self::Moving => "传输中",
            Self::Staged => "已暂存",
            Self::Committed => "已入库",
            Self::Settled => "已签收",
            Self::Paused => "已暂停",
            Self::Refused => "已拒绝",
            Self::Failed => "失败",
            Self::Cancelled => "已取消",
        }
    }
}

macro_rules! text {
    ($type:ident { $($variant:ident = $text:literal),* }) => {
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(match self { $(Self::$variant => $text),* })
            }
        }
        impl std::str::FromStr for $type {
            type Err = ();
            fn from_str(text: &str) -> Result<Self, ()> {
                match text { $($text => Ok(Self::$variant),)* _ => Err(()) }
            }
        }
    };
}
text!(Mode { Full = "full", Incremental = "incremental", Observe = "observe" });
text!(Write { Append = "append", Upsert = "upsert", Replace = "replace", Mirror = "mirror" });
text!(State {
    Planned = "planned", Offered = "offered", Moving = "moving", Staged = "staged", Committed = "committed",
    Settled = "settled", Paused = "paused", Refused = "refused", Failed = "failed", Cancelled = "cancelled"
});
