//! The tests of the whole program, in one binary: real processes, real sockets, real disks.
//! Each module is one capability; `support` holds the scene of two nodes and a coordinator.
//! Larger counts run with `POSTHOUSE_LONG=1` (`tests/run --long`).
#![expect(clippy::panic, reason = "a test's helpers end it where they fail")]
#![expect(clippy::disallowed_methods, reason = "these tests watch real processes on the real clock")]

#[path = "../support/mod.rs"]
mod support;

mod api;
mod centre;
mod cli;
mod config;
mod crash;
mod demo;
mod encodings;
mod engines;
mod exchange;
mod ferry;
mod folders;
mod fronts;
mod governing;
mod install;
mod large;
mod parsers;
mod postgres;
mod power;
mod readme;
mod receipts;
mod relay;
mod schemas;
mod service;
mod sqlserver;
mod tds;
mod tidy;
