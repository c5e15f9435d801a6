//! A server that speaks TDS 7.4 over tables in memory, for tests of the SQL Server connector.
//!
//! It knows as much of the protocol and of T-SQL as Posthouse and a few foreign clients use, and does that much
//! truly: transactions with snapshots, keys, locks, identities, collations, conversions and their errors. Whatever it
//! does not know is an error with its text, and noted (`Server::unknown`); nothing is ever answered with an empty
//! result in its place. Foreign clients drive it in `tests/it/tds.rs`, so that it is no mirror of one driver.
//!
//! Rooms: `wire` is the line, `language` the statements, `store` the tables, `session` the life of a connection,
//! `faults` what goes wrong when a test says so.
//!
//! Deliberately absent: durability, security, linguistic order, and every number about speed.

mod certificate;
mod faults;
mod language;
mod line;
mod server;
mod session;
mod store;
mod wire;

pub use faults::Fault;
pub use server::{Options, Server, Table};
pub use store::SqlError;
pub use wire::greeting::Encryption;

#[cfg(test)]
mod tests;
