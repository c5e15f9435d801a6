//! The protocol from outside: evidence, policy and filters as other crates use them, with random inputs.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's helpers end it where they fail")]

mod filter;
mod ledger;
mod pgcopy;
mod policy;
mod postgres;
mod receipt;
mod reconciliation;
mod sample;
mod statement;
