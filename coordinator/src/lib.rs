//! The centre 协调中心: who belongs, who may have what, and what was said about every transfer.
//!
//! It is never on the data path: nodes ask it (join, heartbeat, policy, submit), it answers, and it keeps
//! an append-only ledger of the statements of all parties.
//! - [`config`]: `coordinator.toml`. [`admin`]: what the command line asks over the Unix socket.
//!
//! Deliberately absent: any way to change or remove a statement once it is taken.

pub mod admin;
pub mod config;

use posthouse_protocol::id::NodeId;
use std::path::PathBuf;

/// What `posthouse coordinator init` is told.
#[derive(Debug, Clone)]
pub struct Init {
    pub data_dir: PathBuf,
    pub name: NodeId,
    pub listen: Option<String>,
    pub http: Option<String>,
}

/// What it made.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Initialised {
    /// `DATA_DIR/coordinator.toml`
    pub config: PathBuf,
    /// `DATA_DIR/admin.token`, readable by its owner alone.
    pub admin_token: PathBuf,
    pub ca_sha256: String,
    pub ledger_vkey: String,
}
