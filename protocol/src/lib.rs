//! The rules of the road: what Posthouse's parties say to each other and what must hold.
//!
//! Everything here computes and never waits: no files, no sockets, no clock, no tokio.
//! Time comes in as an argument, bytes go out as values, so that the same machines run
//! under the daemon, in a unit test, in the simulator and under the fuzzer.
//!
//! A tour, in the order of a transfer:
//! - [`id`], [`time`], [`limits`], [`problem`]: names, instants, bounds and error codes.
//! - [`catalog`], [`schema`], [`number`], [`batch`], [`watermark`], [`digest`]: what data is; [`operation`]: what a
//!   row of a front-end table does.
//! - [`format`], [`pgcopy`]: rows in an engine's own form, PostgreSQL's binary COPY, with the same digest.
//! - [`govern`]: what rows go through before they are sealed: masks, rules, names.
//! - [`policy`], [`filter`]: who may have it; [`policy::Permit`] is the proof.
//! - [`job`], [`frame`], [`chunk`], [`delta`], [`manifest`], [`provider`], [`consumer`]: the exchange.
//! - [`cose`], [`statement`], [`receipt`], [`trust`], [`ledger`], [`reconciliation`]: the evidence.
//! - [`centre`]: what nodes and the coordinator say to each other.
//!
//! Deliberately absent: IO, async, SQL, HTTP, and any way to sign a landing that was not committed
//! (the node's rooms own those types).

pub mod batch;
pub mod catalog;
pub mod centre;
pub mod chunk;
pub mod codec;
pub mod consumer;
mod contexts;
pub mod cose;
pub mod delta;
pub mod digest;
pub mod filter;
pub mod format;
pub mod frame;
pub mod govern;
pub mod id;
pub mod job;
pub mod ledger;
pub mod limits;
pub mod manifest;
pub mod number;
pub mod operation;
mod outgoing;
pub mod pgcopy;
pub mod policy;
pub mod problem;
pub mod provider;
pub mod receipt;
pub mod reconciliation;
pub mod schema;
pub mod statement;
pub mod time;
pub mod trust;
pub mod watermark;
