//! What a table's columns mean, independent of any engine: the contract (declared items).
//! The row digest, drift checks and created tables all follow the contract type, never the engine's.

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// A column's contract type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContractType {
    #[n(0)]
    Boolean,
    /// 64-bit signed
    #[n(1)]
    Integer,
    /// exact decimal with up to 38 digits, scale as given
    #[n(2)]
    Decimal {
        #[n(0)]
        precision: u8,
        #[n(1)]
        scale: i8,
    },
    #[n(3)]
    Float,
    #[n(4)]
    Text,
    /// right-trimmed on digest
    #[n(5)]
    Char,
    #[n(6)]
    Bytes,
    /// days since 1970-01-01
    #[n(7)]
    Date,
    /// µs UTC since the epoch
    #[n(8)]
    Timestamp,
    #[n(9)]
    Json,
    /// exact decimal of any length, NaN and ±Infinity, as the text of [`crate::number`]
    #[n(10)]
    Number,
}

/// One item (信息项) of a contract, in column order.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
pub struct Item {
    #[n(0)]
    pub name: String,
    #[n(1)]
    pub r#type: ContractType,
    #[n(2)]
    pub nullable: bool,
    /// 注释, created and kept at the destination where the engine can
    #[n(3)]
    pub comment: Option<String>,
}

/// The effective columns of one resource for one consumer, in order, with its key.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
pub struct Contract {
    #[n(0)]
    pub items: Vec<Item>,
    /// names of the key columns; empty where the table has none
    #[n(1)]
    pub key: Vec<String>,
}

impl Contract {
    /// SHA-256 of the deterministic encoding; stands in every manifest.
    pub fn sha256(&self) -> [u8; 32] {
        crate::codec::sha256(&crate::codec::encode(self))
    }
    pub fn position(&self, name: &str) -> Option<usize> {
        self.items.iter().position(|item| item.name == name)
    }
    /// The columns of the key, as positions.
    pub fn key_positions(&self) -> Vec<usize> {
        self.key.iter().filter_map(|name| self.position(name)).collect()
    }
}
