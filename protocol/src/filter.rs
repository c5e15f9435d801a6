//! Posthouse's own small row-filter language, as it stands in a grant: column, `= <> < <= > >=`,
//! IN, BETWEEN, IS NULL, AND, OR, NOT, typed literals. Never SQL text from a peer.

use minicbor::{Decode, Encode};

/// A typed literal.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub enum Literal {
    #[n(0)]
    Boolean(#[n(0)] bool),
    #[n(1)]
    Integer(#[n(0)] i64),
    /// Exact, as written: `-12.50`.
    #[n(2)]
    Decimal(#[n(0)] String),
    #[n(3)]
    Text(#[n(0)] String),
    /// days since 1970-01-01
    #[n(4)]
    Date(#[n(0)] i32),
    /// µs UTC
    #[n(5)]
    Timestamp(#[n(0)] i64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Comparison {
    #[n(0)]
    Equal,
    #[n(1)]
    NotEqual,
    #[n(2)]
    Less,
    #[n(3)]
    LessOrEqual,
    #[n(4)]
    Greater,
    #[n(5)]
    GreaterOrEqual,
}

/// A parsed filter; depth and size are bounded by `limits`.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub enum Filter {
    #[n(0)]
    Compare(#[n(0)] String, #[n(1)] Comparison, #[n(2)] Literal),
    #[n(1)]
    In(#[n(0)] String, #[n(1)] Vec<Literal>),
    #[n(2)]
    Between(#[n(0)] String, #[n(1)] Literal, #[n(2)] Literal),
    #[n(3)]
    IsNull(#[n(0)] String),
    #[n(4)]
    And(#[n(0)] Vec<Filter>),
    #[n(5)]
    Or(#[n(0)] Vec<Filter>),
    #[n(6)]
    Not(#[n(0)] Box<Filter>),
}
