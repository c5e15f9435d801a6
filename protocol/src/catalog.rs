//! What a department says it holds: the catalog reference that travels in manifests and reports.

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// 共享属性.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum Sharing {
    /// 无条件共享
    #[n(0)]
    Unconditional,
    /// 有条件共享
    #[n(1)]
    Conditional,
    /// 不予共享: can be neither offered nor granted
    #[n(2)]
    None,
}

/// 目录: reference to the catalog entry that a resource is attached to.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cbor(map)]
pub struct CatalogRef {
    #[n(0)]
    pub code: String,
    #[n(1)]
    pub title: String,
    #[n(2)]
    pub sharing: Sharing,
    /// 分级 1–4
    #[n(3)]
    pub level: u8,
    #[n(4)]
    pub update: String,
    /// 依据: the legal basis, required where sharing is none
    #[n(5)]
    #[serde(default)]
    pub basis: Option<String>,
    #[n(6)]
    #[serde(default)]
    pub version: Option<String>,
}
