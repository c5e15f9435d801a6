//! The protocol from outside: evidence, policy and filters as other crates use them, with random inputs.

mod filter;
mod ledger;
mod policy;
mod receipt;
mod reconciliation;
mod sample;
mod statement;
