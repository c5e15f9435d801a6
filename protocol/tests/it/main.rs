//! The protocol from outside: evidence, policy and filters as other crates use them, with random inputs.

#![expect(clippy::unwrap_used, reason = "a test's helpers end it where they fail")]

mod filter;
mod ledger;
mod policy;
mod receipt;
mod reconciliation;
mod sample;
mod statement;
