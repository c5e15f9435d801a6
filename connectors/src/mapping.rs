//! What types mean from engine to engine. A contract's types stand in the middle: each connector says in one place what
//! its columns are when they are read ([`Native`]) and what a table that it makes has for a contract type ([`Made`]),
//! by the very functions that it reads and makes tables with. From the two follows what becomes of any column at any
//! destination ([`verdict`]), and docs/TYPES.md, which a test holds to this.
//!
//! A type either moves or is refused by name before anything moves. Of one that moves, single values may have no place
//! at the destination, or none in the contract: these are the [`Edge`]s, and a row with one is quarantined with its
//! bytes. Deliberately absent: tables that stand already, whose columns each connector looks at by itself.

#[cfg(test)]
mod document;
mod edge;
#[cfg(test)]
pub(crate) mod tests;

pub use edge::{Becomes, Edge};

use crate::registry::CONNECTORS;
use posthouse_protocol::schema::ContractType;

/// What the types of one engine mean.
#[derive(Debug, Clone)]
pub struct Mapping {
    /// In the order in which people are shown them.
    pub native: Vec<Native>,
    /// What a table that is made there has.
    pub made: fn(ContractType) -> Made,
}

/// A type of an engine's columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Native {
    /// As a table declares it, with letters or an example for what it takes.
    pub declared: String,
    /// What its values are in a contract; none of a type that is refused by name.
    pub r#type: Option<ContractType>,
    /// What it can hold that not every engine has, or no contract; and what is said of all of its values.
    pub holds: &'static [Edge],
}

/// A column of a table that is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// None where the engine has no such column: it is refused by name.
    pub declared: Option<String>,
    /// Values of the contract type that the column has no place for.
    pub lacks: &'static [Edge],
}

/// What becomes of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// By name, before anything moves.
    Refused,
    /// Into a column that is declared so. What is said of its values, and which of them make quarantined rows; where
    /// that is nothing, every value moves.
    Moves { declared: String, but: Vec<Edge> },
}

/// What becomes of a column of this type where the destination makes the table.
pub fn verdict(native: &Native, to: &Mapping) -> Verdict {
    let made = native.r#type.map(to.made);
    let Some(Made { declared: Some(declared), lacks }) = made else { return Verdict::Refused };
    let counts = |edge: &&Edge| edge.becomes() != Becomes::ByDestination || lacks.contains(edge);
    Verdict::Moves { declared, but: native.holds.iter().filter(counts).copied().collect() }
}

/// Every kind of table that can be landed in, by its name in a configuration.
pub fn engines() -> Vec<(&'static str, Mapping)> {
    let databases = CONNECTORS.iter().filter_map(|connector| Some((connector.kind(), connector.mapping()?)));
    databases.chain([(PARQUET, crate::parquet::mapping())]).collect()
}

/// Files are no connection's: `into = { folder, format = "parquet" }`.
const PARQUET: &str = "parquet";
