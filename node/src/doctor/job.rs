//! What this node knows of a job: on which side of it it stands, where the job reads or lands here, and where the time
//! of a transfer of it went. Read from the configuration and the store as they lie there.

use crate::config::{Config, Job, Kind, Origin, Target};
use crate::script::{needs, open};
use crate::spent::Spent;
use crate::store::transfers::{self, Filter, Transfer};
use crate::store::{STORE_FILE, Side, spent};
use posthouse_connectors::{Landing, TableSpec};
use posthouse_protocol::id::{JobId, NodeId, ResourceRef, TransferId};
use posthouse_protocol::job::State;
use posthouse_protocol::problem::{Code, Problem};
use serde::Serialize;
use std::collections::BTreeSet;

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
    /// At a provider, others that take from here by a job of this name.
    pub others: Vec<NodeId>,
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
    /// By the job's name here, or by the consumer's name of a job that takes from this node: of several such consumers
    /// the one that is named, or else the one that took something last. Blocks.
    pub fn find(config: &Config, job: &JobId, consumer: Option<&NodeId>) -> Result<Self, Problem> {
        let own = &config.node.name;
        let taker = consumer.filter(|consumer| *consumer != own);
        let is_meant = |job: &&Job| match (&job.kind, taker) {
            (_, None) => true,
            (Kind::Push { to, .. }, Some(taker)) => to == taker,
            (_, Some(_)) => false,
        };
        let configured = config.jobs.get(job).filter(is_meant);
        let (rows, others) = rows(config, job, configured, taker)?;
        let row = rows.iter().find(|row| !row.state.is_final()).or_else(|| telling(&rows)).or(rows.first());
        let (side, peer, resource) = match (configured, row) {
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
        let lands = configured.filter(|_| side == Side::Consumer).and_then(|job| job.into.as_ref());
        let destination = match lands {
            Some(Target::Table { connection, .. }) => {
                let landing = needs(config, connection)?.landings.into_iter().find(|landing| landing.job == *job);
                landing.map(|landing| (connection.clone(), landing))
            }
            _ => None,
        };
        let transfer = row.map(|row| moved(config, row)).transpose()?;
        Ok(Self { job: job.clone(), side, peer, consumer, resource, source, destination, others, transfer })
    }
}

/// The latest that lasted long enough for its waiting to mean something.
fn telling(rows: &[Transfer]) -> Option<&Transfer> {
    rows.iter().find(|row| total_ms(row) >= TELLING_MS)
}

/// The newest of a job's transfers, the newest first, and which other consumers have one of its name. Those that a
/// pusher's job led to bear the taker's name of it.
fn rows(
    config: &Config,
    job: &JobId,
    configured: Option<&Job>,
    taker: Option<&NodeId>,
) -> Result<(Vec<Transfer>, Vec<NodeId>), Problem> {
    let path = config.node.data_dir.join(STORE_FILE);
    if !path.exists() {
        return Ok((Vec::new(), Vec::new()));
    }
    let store = open(&path)?;
    let pushed = configured.and_then(|job| match &job.kind {
        Kind::Push { resource, to } => Some((resource, to)),
        _ => None,
    });
    let filter = match pushed {
        Some(_) => Filter { side: Some(Side::Provider), limit: Some(LOOKED_AT), ..Filter::default() },
        None => {
            // Somebody may take from here by a job of the same name.
            let side = match (configured, taker) {
                (Some(_), _) => Some(Side::Consumer),
                (None, Some(_)) => Some(Side::Provider),
                (None, None) => None,
            };
            Filter { job: Some(job.clone()), side, limit: Some(LOOKED_AT), ..Filter::default() }
        }
    };
    let mut rows = transfers::list(&store, &filter)?;
    let mut others = Vec::new();
    if let Some((resource, to)) = pushed {
        rows.retain(|row| row.resource.resource == *resource && row.peer == *to);
    } else if configured.is_none() {
        let given: BTreeSet<NodeId> =
            rows.iter().filter(|row| row.side == Side::Provider).map(|row| row.peer.clone()).collect();
        let one = taker.cloned().or_else(|| rows.first().map(|row| row.peer.clone()));
        rows.retain(|row| Some(&row.peer) == one.as_ref());
        others.extend(given.into_iter().filter(|peer| Some(peer) != one.as_ref()));
    }
    Ok((rows, others))
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

/// Others' transfers are among them.
const LOOKED_AT: u32 = 200;
const TELLING_MS: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::in_folder;
    use crate::store::Store;
    use posthouse_platform::World;
    use posthouse_protocol::job::{Mode, Write};
    use posthouse_protocol::time::Timestamp;

    const CONFIG: &str = r#"[connection.db]
kind = "sqlite"
path = "housing.sqlite"
[[job]]
name = "residents"
resource = "police.test.example/residents"
into = { connection = "db", table = "residents" }
"#;

    fn plan(store: &Store, number: u8, side: Side, job: &JobId, peer: &str, resource: &str) -> TransferId {
        let id = TransferId::from_random([number; 16]);
        let (peer, resource) = (peer.parse().unwrap(), resource.parse().unwrap());
        let at = Timestamp(i64::from(number));
        let row = Transfer::planned(id, side, job.clone(), peer, resource, Mode::Full, Write::Replace, at);
        store.write_now(|tx| transfers::plan(tx, &row)).unwrap();
        row.id
    }

    #[tokio::test]
    async fn a_job_of_the_same_name_by_which_somebody_takes_from_here_is_another_one() {
        let folder = tempfile::tempdir().unwrap();
        let config = in_folder(folder.path(), CONFIG);
        let store = Store::open(&World::real(), folder.path()).await.unwrap();
        let job: JobId = "residents".parse().unwrap();
        let own = plan(&store, 1, Side::Consumer, &job, "police.test.example", "police.test.example/residents");
        let given = plan(&store, 2, Side::Provider, &job, "tax.test.example", "housing.test.example/registry");
        let found = Subject::find(&config, &job, None).unwrap();
        assert_eq!((found.side, found.peer.as_str()), (Side::Consumer, "police.test.example"));
        assert_eq!(found.transfer.map(|moved| moved.transfer), Some(own));
        let tax = "tax.test.example".parse().unwrap();
        let found = Subject::find(&config, &job, Some(&tax)).unwrap();
        assert_eq!((found.side, found.consumer), (Side::Provider, tax));
        assert_eq!(found.transfer.map(|moved| moved.transfer), Some(given));
    }

    #[tokio::test]
    async fn of_two_consumers_with_jobs_of_one_name_the_one_that_is_named_is_meant() {
        let folder = tempfile::tempdir().unwrap();
        let config = in_folder(folder.path(), CONFIG);
        let store = Store::open(&World::real(), folder.path()).await.unwrap();
        let job: JobId = "registry".parse().unwrap();
        let [tax, audit]: [NodeId; 2] = ["tax.test.example", "audit.test.example"].map(|name| name.parse().unwrap());
        let older = plan(&store, 1, Side::Provider, &job, tax.as_str(), "housing.test.example/registry");
        let newer = plan(&store, 2, Side::Provider, &job, audit.as_str(), "housing.test.example/registry");
        let found = |consumer| {
            let found = Subject::find(&config, &job, consumer).unwrap();
            (found.transfer.map(|moved| moved.transfer), found.others)
        };
        assert_eq!(found(None), (Some(newer.clone()), vec![tax.clone()]));
        assert_eq!(found(Some(&tax)), (Some(older), vec![audit.clone()]));
        assert_eq!(found(Some(&audit)), (Some(newer), vec![tax.clone()]));
        let nobody = "nobody.test.example".parse().unwrap();
        assert_eq!(Subject::find(&config, &job, Some(&nobody)).unwrap_err().code, Code::UnknownName);
    }
}
