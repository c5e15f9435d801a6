//! How far a source has been read: a typed value of the watermark column.

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// The upper bound of the rows read so far. Ordered only against values of its own kind.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Watermark {
    #[n(0)]
    Integer(#[n(0)] i64),
    /// µs UTC
    #[n(1)]
    Timestamp(#[n(0)] i64),
    /// compared byte by byte
    #[n(2)]
    Text(#[n(0)] String),
}

impl std::fmt::Display for Watermark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Integer(n) => write!(f, "{n}"),
            Self::Timestamp(us) => match jiff::Timestamp::from_microsecond(*us) {
                Ok(t) => write!(f, "{t}"),
                Err(_) => write!(f, "{us} µs"),
            },
            Self::Text(text) => f.write_str(text),
        }
    }
}
