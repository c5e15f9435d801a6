//! A node's configuration: every key typed, every mistake reported at once with its place.
//! A [`Config`] has passed all checks that need no connection: names exist and are unique, keys fit
//! together, and nothing is set that this version does not do. Reading TOML as such is in
//! `platform::settings`; the files in `config/` show every key.

mod bandwidth;
mod dialect;
mod exchange;
mod govern;
mod job;
mod read;
mod resource;

pub use bandwidth::{Bandwidth, BandwidthError};
pub use exchange::{Exchange, Operations};
pub use govern::{Checks, Govern};
pub use job::{Job, KeptVersions, Kind, Names, Overlap, RowLimit, Schedule, Target};
pub use resource::{Origin, Resource};

use crate::ferry::Outlet;
use crate::schedule::Window;
use posthouse_connectors::Settings;
use posthouse_platform::endpoint::TransportChoice;
use posthouse_platform::settings::{Mistakes, Size, load};
use posthouse_protocol::id::{JobId, NodeId, ResourceId};
use posthouse_protocol::problem::{Lang, Problem};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone)]
pub struct Config {
    pub node: Node,
    /// Where to dial the coordinator: host:port. Its name comes from the join token.
    pub coordinator: String,
    pub connections: BTreeMap<String, ConnectionConfig>,
    pub resources: BTreeMap<ResourceId, Resource>,
    pub jobs: BTreeMap<JobId, Job>,
    /// What is sent to each of these nodes per second at most.
    pub peers: BTreeMap<NodeId, Bandwidth>,
    /// With these nodes is exchanged by what is carried, not over a line.
    pub ferries: BTreeMap<NodeId, Ferry>,
}

/// `[peer."NAME".ferry]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ferry {
    /// Parts for the peer are put here.
    pub outbox: PathBuf,
    /// Parts from the peer are brought here.
    pub inbox: PathBuf,
    pub part_size: Size,
    pub suffix: String,
}

impl Ferry {
    pub fn outlet(&self) -> Outlet {
        Outlet { folder: self.outbox.clone(), part_bytes: self.part_size.0, suffix: self.suffix.clone() }
    }
}

/// `[node]`.
#[derive(Debug, Clone)]
pub struct Node {
    pub name: NodeId,
    pub department: Option<String>,
    /// 统一社会信用代码, its check digit verified.
    pub department_code: Option<String>,
    /// 行政区划代码.
    pub division: Option<String>,
    pub data_dir: PathBuf,
    /// None: dials out only.
    pub listen: Option<String>,
    pub transport: TransportChoice,
    /// (zone, address) pairs under which others reach this node.
    pub advertise: Vec<(Option<String>, String)>,
    pub memory: Size,
    pub spool_max: Size,
    pub staging_max: Size,
    /// What this node sends per second at most, all transfers together.
    pub bandwidth: Option<Bandwidth>,
}

/// `[connection.X]`: its connector has checked the settings.
#[derive(Debug, Clone)]
pub struct ConnectionConfig {
    pub kind: String,
    /// Outside it no transfer begins to read or to land there. Absent: at any time.
    pub window: Option<Window>,
    pub settings: Settings,
}

impl Config {
    /// Reads a file; relative paths in it are taken from its folder.
    pub fn load(file: &Path) -> Result<Self, Problem> {
        Self::read(file, &load(file)?).map_err(|mistakes| mistakes.problem(Lang::En))
    }

    /// As [`Config::load`], from text that was read already.
    pub fn read(file: &Path, text: &str) -> Result<Self, Mistakes> {
        let base = std::path::absolute(file).ok().and_then(|path| path.parent().map(Path::to_owned));
        posthouse_platform::settings::read(file, text, |root| read::config(root, &base.unwrap_or_default()))
    }

    /// The job of this name, or the one that accepts what `peer` pushes under it.
    pub fn landing_job(&self, peer: &NodeId, name: &JobId) -> Option<&Job> {
        self.jobs.get(name).or_else(|| self.accepting(peer, name))
    }

    /// The job that accepts `pusher`'s job of this name.
    pub fn accepting(&self, pusher: &NodeId, name: &JobId) -> Option<&Job> {
        self.jobs
            .values()
            .find(|job| matches!(&job.kind, Kind::Accept { from, job: theirs } if from == pusher && theirs == name))
    }

    pub fn admin_socket(&self) -> PathBuf {
        self.node.data_dir.join(ADMIN_SOCKET)
    }
}

/// The admin socket within the data folder.
pub const ADMIN_SOCKET: &str = "admin.sock";
pub const MEMORY_DEFAULT: Size = Size::mib(96);
pub const SPOOL_MAX_DEFAULT: Size = Size::gib(20);
pub const STAGING_MAX_DEFAULT: Size = Size::gib(20);
pub const MEMORY_MIN: Size = Size::mib(48);
pub const PART_SIZE_DEFAULT: Size = Size::mib(512);
/// A part then has some chunks of the largest kind.
pub const PART_SIZE_MIN: Size = Size::mib(16);
pub const PART_SUFFIX_DEFAULT: &str = ".part";
/// A chunk then takes four seconds, well within every time-out.
pub const BANDWIDTH_MIN: Size = Size(256 << 10);
pub const TIMEZONE_DEFAULT: &str = "Asia/Shanghai";

/// For tests of other rooms: a node in this folder that has these tables.
#[cfg(test)]
pub(crate) fn in_folder(folder: &Path, rest: &str) -> Config {
    const HEAD: &str = "[node]\nname = \"housing.test.example\"\ndata_dir = \".\"\n[coordinator]\naddress = \"centre.test.example:7840\"\n";
    Config::read(&folder.join("node.toml"), &format!("{HEAD}{rest}")).unwrap()
}

#[cfg(test)]
mod tests;
