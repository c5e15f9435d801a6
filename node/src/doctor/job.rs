//! What this node knows of a job: on which side of it it stands, where the job reads or lands here, and where the time
//! of a transfer of it went. Read from the configuration and the store as they lie there.

use crate::config::{Config, Kind, Origin, Target};
use crate::script::{needs, open};
use crate::spent::Spent;
use crate::store::transfers::{self, Filter, Transfer};
use crate::store::{STORE_FILE, Side, spent};
use posthouse_connectors::{Landing, TableSpec};
use posthouse_protocol::id::{JobId, NodeId, ResourceRef, TransferId};
use posthouse_protocol::job::State;
use posthouse_protocol::problem::{Code, Problem};
use serde::Serialize;

#[derive(Debug, Clone)]
pub struct Subject {
    pub job: JobId,
    /// Which side of it this node is.
    pub side: Side,
    pub peer: NodeId,
    pub consumer: NodeId,
    /// None: a job that accepts what was never pushed yet.
    pub resource: Option<ResourceRef>,
    /// The connection and the table that are read here.
    pub source: Option<(String, TableSpec)>,
    /// The connection, and what lands there; none of a folder, and of a job that was never offered anything.
    pub destination: Option<(String, Landing)>,
    /// The one under way, or the latest that lasted long enough to tell anything.
    pub transfer: Option<Moved>,
}

/// A transfer, and where its time went.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Moved {
    pub transfer: TransferId,
    pub state: State,
    pub bytes_sent: u64,
    /// Time under way, in milliseconds.
    pub total_ms: u64,
    pub spent: Option<Spent>,
}

impl Subject {
    /// By the job's name here, or by the consumer's name of a job that takes from this node. Blocks.
    pub fn find(config: &Config, job: &JobId) -> Result<Self, Problem> {
        let own = &config.node.name;
        let rows = rows(config, job)?;
        let row = rows.iter().find(|row| !row.state.is_final()).or_else(|| telling(&rows)).or(rows.first());
        let (side, peer, resource) = match (config.jobs.get(job), row) {
            (Some(configured), _) => match &configured.kind {
                Kind::Take { resource } => (Side::Consumer, resource.node.clone(), Some(resource.clone())),
                Kind::Push { resource, to } => {
                    let resource = ResourceRef { node: own.clone(), resource: resource.clone() };
                    (Side::Provider, to.clone(), Some(resource))
                }
                Kind::Accept { from, .. } => (Side::Consumer, from.clone(), row.map(|row| row.resource.clone())),
            },
            (None, Some(row)) => (row.side, row.peer.clone(), Some(row.resource.clone())),
            (None, None) => {
                return Err(Problem::new(Code::UnknownName).with("kind", "job").with("name", job));
            }
        };
        let consumer = if side == Side::Consumer { own.clone() } else { peer.clone() };
        let source = resource.as_ref().filter(|_| side == Side::Provider).and_then(|resource| {
            match &config.resources.get(&resource.resource)?.origin {
                Origin::Table { connection, spec } => Some((connection.clone(), spec.clone())),
                Origin::Folder { .. } => None,
            }
        });
        let lands = config.jobs.get(job).filter(|_| side == Side::Consumer).and_then(|job| job.into.as_ref());
        let destination = match lands {
            Some(Target::Table { connection, .. }) => {
                let landing = needs(config, connection)?.landings.into_iter().find(|landing| landing.job == *job);
                landing.map(|landing| (connection.clone(), landing))
            }
            _ => None,
        };
        let transfer = row.map(|row| moved(config, row)).transpose()?;
        Ok(Self { job: job.clone(), side, peer, consumer, resource, source, destination, transfer })
    }
}

/// The latest that lasted long enough for its waiting to mean something.
fn telling(rows: &[Transfer]) -> Option<&Transfer> {
    rows.iter().find(|row| total_ms(row) >= TELLING_MS)
}

/// The newest of a job's transfers, the newest first; those that a pusher's job led to bear the taker's name of it.
fn rows(config: &Config, job: &JobId) -> Result<Vec<Transfer>, Problem> {
    let path = config.node.data_dir.join(STORE_FILE);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let store = open(&path)?;
    let pushed = config.jobs.get(job).and_then(|job| match &job.kind {
        Kind::Push { resource, to } => Some((resource, to)),
        _ => None,
    });
    let filter = match pushed {
        Some(_) => Filter { side: Some(Side::Provider), limit: Some(PUSHED_LOOKED_AT), ..Filter::default() },
        None => {
            // Somebody may take from here by a job of the same name.
            let side = config.jobs.contains_key(job).then_some(Side::Consumer);
            Filter { job: Some(job.clone()), side, limit: Some(LOOKED_AT), ..Filter::default() }
        }
    };
    let mut rows = transfers::list(&store, &filter)?;
    if let Some((resource, to)) = pushed {
        rows.retain(|row| row.resource.resource == *resource && row.peer == *to);
    }
    Ok(rows)
}

fn moved(config: &Config, row: &Transfer) -> Result<Moved, Problem> {
    let store = open(&config.node.data_dir.join(STORE_FILE))?;
    // A store that an earlier version has left has no such table until the node starts.
    let spent = spent::get(&store, &row.id, row.side, None).unwrap_or_default();
    let (transfer, state) = (row.id.clone(), row.state);
    Ok(Moved { transfer, state, bytes_sent: row.bytes_sent, total_ms: total_ms(row), spent })
}

fn total_ms(row: &Transfer) -> u64 {
    match (row.active_ms, row.started, row.ended) {
        (0, Some(started), Some(ended)) => u64::try_from(ended.since_ms(started)).unwrap_or(0),
        (active, ..) => active,
    }
}

const LOOKED_AT: u32 = 20;
const PUSHED_LOOKED_AT: u32 = 200;
const TELLING_MS: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use posthouse_platform::World;
    use posthouse_protocol::job::{Mode, Write};
    use posthouse_protocol::time::Timestamp;

    const CONFIG: &str = r#"[node]
name = "housing.test.example"
data_dir = "."
[coordinator]
address = "centre.test.example:7840"
[connection.db]
kind = "sqlite"
path = "housing.sqlite"
[[job]]
name = "residents"
resource = "police.test.example/residents"
into = { connection = "db", table = "residents" }
"#;

    #[tokio::test]
    async fn a_job_of_the_same_name_by_which_somebody_takes_from_here_is_another_one() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::read(&folder.path().join("node.toml"), CONFIG).unwrap();
        let store = Store::open(&World::real(), folder.path()).await.unwrap();
        let job: JobId = "residents".parse().unwrap();
        let plan = |number: u8, side, peer: &str, resource: &str| {
            let id = TransferId::from_random([number; 16]);
            let (peer, resource) = (peer.parse().unwrap(), resource.parse().unwrap());
            let at = Timestamp(i64::from(number));
            let row = Transfer::planned(id, side, job.clone(), peer, resource, Mode::Full, Write::Replace, at);
            store.write_now(|tx| transfers::plan(tx, &row)).unwrap();
            row.id
        };
        let own = plan(1, Side::Consumer, "police.test.example", "police.test.example/residents");
        plan(2, Side::Provider, "tax.test.example", "housing.test.example/registry");
        let found = Subject::find(&config, &job).unwrap();
        assert_eq!((found.side, found.peer.as_str()), (Side::Consumer, "police.test.example"));
        assert_eq!(found.transfer.map(|moved| moved.transfer), Some(own));
    }
}
