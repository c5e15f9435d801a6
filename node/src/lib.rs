//! The daemon of one front-end machine: joins connectors, disk and the line; one file per room.
//!
//! A tour, from the outside in:
//! - [`config`]: the configuration, read whole or refused with every mistake at its place.
//! - [`daemon`]: start, accept, resume, drain. [`context`]: what everything below shares.
//! - [`join`], [`centre`]: becoming a node, and staying in touch with the coordinator.
//! - [`authority`]: the signed policy as it stands now, and whether it is fresh enough to act on.
//! - [`peers`]: connections to other nodes. [`relay`]: lines between others, and to others through them.
//!   [`ferry`]: exchange without a line. [`schedule`]: when jobs run. [`jobs`]: one run at a time of each.
//! - [`store`]: local durable state. [`report`]: statements to the centre, proofs back.
//! - [`front`]: front-end tables, whose flags are written back once their rows are receipted.
//! - [`govern`]: what rows go through between their source and their seal.
//! - [`spent`]: where the time of a transfer goes.
//! - [`doctor`]: what stands in the way, and what holds a job up.
//! - [`pacing`]: how much is sent a second. [`admin`]: what the command line asks a running node. [`metrics`].
//!
//! Invariants: nothing is signed before it is durable; a node whose policy is stale gives and takes nothing;
//! no global state, so that several nodes run in one process (tests, simulation).
//! Deliberately absent: an inbound web page, and any decision about grants (they come signed from the centre).

pub mod admin;
pub mod authority;
pub mod centre;
pub mod config;
pub mod context;
pub mod daemon;
pub mod doctor;
pub mod jobs;
pub mod join;
pub mod metrics;
pub mod pacing;
pub mod peers;
pub mod relay;
pub mod report;
pub mod schedule;
pub mod script;
pub mod spent;
pub mod store;

// The rooms of the way of the data, and what runs a transfer through them.
#[macro_use]
pub mod crash;
pub mod buffers;
pub mod commit;
pub mod extract;
pub mod ferry;
pub mod front;
pub mod govern;
pub mod held_back;
pub mod receive;
pub mod reconcile;
pub mod remembered;
pub mod seal;
pub mod send;
pub mod settle;
pub mod stage;
pub mod transfer;
