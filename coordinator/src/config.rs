//! `coordinator.toml`: every option, its default, and what is accepted.
//! An unknown key, a wrong type or a value out of bounds is an error with its place; all are told at once.

use posthouse_protocol::id::NodeId;
use std::path::PathBuf;
use std::time::Duration;

/// What a coordinator runs by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub name: NodeId,
    pub data_dir: PathBuf,
    /// Where nodes reach it, UDP and TCP.
    pub listen: String,
    /// Where people reach it; None = no HTTP.
    pub http: Option<String>,
    /// PEM files of a certificate for HTTPS; None = one of the coordinator's own CA.
    pub http_certificate: Option<HttpCertificate>,
    pub store: StoreUrl,
    /// IANA name; the day of the balance.
    pub timezone: String,
    pub heartbeat: Duration,
    pub certificate_life: Duration,
    pub policy_staleness: Duration,
    pub overdue_after: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpCertificate {
    pub certificate_file: PathBuf,
    pub key_file: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// `coordinator.db` in the data folder.
    Sqlite,
}

impl Config {
    /// All defaults; what `init` writes down.
    pub fn new(name: NodeId, data_dir: PathBuf) -> Self {
        Self {
            name,
            data_dir,
            listen: "[::]:7840".to_owned(),
            http: Some("127.0.0.1:7880".to_owned()),
            http_certificate: None,
            store: StoreUrl::Sqlite,
            timezone: "Asia/Shanghai".to_owned(),
            heartbeat: Duration::from_secs(30),
            certificate_life: Duration::from_secs(7 * 86_400),
            policy_staleness: Duration::from_secs(72 * 3_600),
            overdue_after: Duration::from_secs(24 * 3_600),
        }
    }
}
