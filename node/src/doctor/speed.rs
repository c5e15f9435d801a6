//! How fast a source is read and a destination takes rows, by a bounded sample. Reading changes nothing and ends with
//! the bound, whatever the source still has. Writing takes rows that stand in the target already, stages them once more
//! as a transfer of its own that is never published, and discards that; what is left of one that was killed goes with
//! the next.
//! Deliberately absent: publishing, which only a transfer does, and whose time its own figures show.

use crate::config::Config;
use crate::script::{find, open};
use crate::store::{STORE_FILE, meta};
use arrow::record_batch::RecordBatch;
use posthouse_connectors::{BadRow, Landing, Read, Sink, TableSpec};
use posthouse_platform::World;
use posthouse_platform::clock::Clock;
use posthouse_protocol::id::{JobId, TransferId};
use posthouse_protocol::problem::{Code, Problem};
use serde::Serialize;
use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What was read or written of a place, in which time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Sample {
    pub rows: u64,
    /// As the rows lie in memory.
    pub bytes: u64,
    pub ms: u64,
    /// How long the first row took; none where none came.
    pub first_ms: Option<u64>,
    /// There was no more.
    pub whole: bool,
}

impl Sample {
    pub fn bytes_per_second(&self) -> f64 {
        self.bytes as f64 * 1000.0 / self.ms.max(1) as f64
    }
}

/// A sample as it is being taken: a place that gives nothing is left with what there is.
struct Taking {
    clock: Arc<dyn Clock>,
    began: Duration,
    sample: Mutex<Sample>,
}

impl Taking {
    fn begin(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { began: clock.monotonic(), clock, sample: Mutex::default() })
    }
    fn locked(&self) -> MutexGuard<'_, Sample> {
        self.sample.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn ms(&self) -> u64 {
        u64::try_from(self.clock.monotonic().saturating_sub(self.began).as_millis()).unwrap_or(u64::MAX)
    }
    /// So much more came; whether that is enough.
    fn came(&self, rows: u64, bytes: u64) -> bool {
        let ms = self.ms();
        let mut sample = self.locked();
        sample.rows += rows;
        sample.bytes += bytes;
        sample.ms = ms;
        if rows > 0 {
            sample.first_ms.get_or_insert(ms);
        }
        is_enough(&sample)
    }
}

fn is_enough(sample: &Sample) -> bool {
    sample.ms >= READ_MS || sample.bytes >= READ_BYTES
}

/// Reads from the table that a connection has, for a few seconds at most.
pub async fn read(config: &Config, world: &World, connection: &str, spec: &TableSpec) -> Result<Sample, Problem> {
    check_window(config, world, connection)?;
    let taking = Taking::begin(world.clock.clone());
    let (config, connection, spec, sink) = (config.clone(), connection.to_owned(), spec.clone(), taking.clone());
    let work = world.blocking.run(move || read_some(&config, &connection, &spec, sink));
    match tokio::time::timeout(Duration::from_millis(READ_MS + LATE_MS), work).await {
        Ok(done) => done.map_err(|error| Problem::new(Code::InsideFailed).cause(error))??,
        // Its thread ends with the process.
        Err(_) => taking.locked().ms = taking.ms(),
    }
    Ok(*taking.locked())
}

fn read_some(config: &Config, connection: &str, spec: &TableSpec, taking: Arc<Taking>) -> Result<(), Problem> {
    let (connector, found) = find(config, connection)?;
    let mut opened = connector.connect(connection, &found.settings)?;
    let mut source = opened.source(spec)?;
    let plan = source.begin(&Read::default())?;
    let mut sink = Until { taking: taking.clone() };
    for split in &plan.splits {
        match source.read(split, &mut sink) {
            Ok(_) => {}
            // It was told that it is enough.
            Err(_) if is_enough(&taking.locked()) => return Ok(()),
            Err(problem) => return Err(problem),
        }
    }
    let ms = taking.ms();
    let mut sample = taking.locked();
    (sample.ms, sample.whole) = (ms, true);
    Ok(())
}

struct Until {
    taking: Arc<Taking>,
}

impl Until {
    fn judge(&self, rows: u64, bytes: usize) -> Result<(), Problem> {
        if self.taking.came(rows, bytes as u64) { Err(Problem::new(Code::Cancelled)) } else { Ok(()) }
    }
}

impl Sink for Until {
    fn batch(&mut self, batch: RecordBatch) -> Result<(), Problem> {
        self.judge(batch.num_rows() as u64, batch.get_array_memory_size())
    }
    fn bad_row(&mut self, row: BadRow) -> Result<(), Problem> {
        self.judge(1, row.original.len())
    }
}

/// Stages rows of the standing target once more, and discards them: before it is through where `stopped` comes first.
pub async fn write(
    config: &Config,
    world: &World,
    connection: &str,
    landing: &Landing,
    stopped: impl Future<Output = ()>,
) -> Result<Sample, Problem> {
    check_window(config, world, connection)?;
    let transfer = measuring(config, &landing.job);
    let (config, connection, clock) = (config.clone(), connection.to_owned(), world.clock.clone());
    // Rows of the target itself, which say nothing of what they do.
    let landing = Landing { transfer, native: None, operation: None, ..landing.clone() };
    let stop = Arc::new(AtomicBool::new(false));
    let asked = stop.clone();
    let work = world.blocking.run(move || write_some(&config, &connection, landing, clock.as_ref(), &asked));
    let mut work = Box::pin(work);
    let done = tokio::select! {
        biased;
        done = &mut work => done,
        () = stopped => {
            stop.store(true, Ordering::Relaxed);
            work.await
        }
    };
    done.map_err(|error| Problem::new(Code::InsideFailed).cause(error))?
}

/// The same for each measuring of a job, so that what one that was killed has left is known by the next.
fn measuring(config: &Config, job: &JobId) -> TransferId {
    let hash = blake3::hash(format!("doctor {} {job}", config.node.name).as_bytes());
    TransferId::from_random(hash.as_bytes().first_chunk::<16>().copied().unwrap_or_default())
}

fn write_some(
    config: &Config,
    connection: &str,
    landing: Landing,
    clock: &dyn Clock,
    stop: &AtomicBool,
) -> Result<Sample, Problem> {
    let (connector, found) = find(config, connection)?;
    // Two at once would discard each other's rows.
    let _alone = alone(config)?;
    let epoch = meta::epoch(&open(&config.node.data_dir.join(STORE_FILE))?)?;
    let landing = Landing { node_epoch: epoch, ..landing };
    let mut opened = connector.connect(connection, &found.settings)?;
    opened.destination(&landing)?.discard()?;
    let mut held = Held::default();
    match opened.destination(&landing)?.read_standing(None, &mut held) {
        Err(problem) if held.bytes < WRITE_BYTES => return Err(problem),
        _ => {}
    }
    if held.rows == 0 {
        let cause = "there are no rows in it that could be staged once more: let the job run first";
        return Err(Problem::new(Code::DestinationFailed).with("target", &landing.table).cause(cause));
    }
    let mut destination = opened.destination(&landing)?;
    let began = clock.monotonic();
    let mut batches = held.batches.into_iter().map(|batch| match stop.load(Ordering::Relaxed) {
        true => Err(Problem::new(Code::Cancelled)),
        false => Ok(batch),
    });
    let staged = destination.prepare().and_then(|()| destination.stage("doctor", [0; 32], &mut batches)).map(|_| ());
    let ms = u64::try_from(clock.monotonic().saturating_sub(began).as_millis()).unwrap_or(u64::MAX);
    // Whatever became of it, nothing of it stays.
    let discarded = destination.discard();
    staged.and(discarded)?;
    Ok(Sample { rows: held.rows, bytes: held.bytes, ms, first_ms: None, whole: true })
}

/// Holds the data folder against others that measure, for as long as this is open.
fn alone(config: &Config) -> Result<File, Problem> {
    let folder = &config.node.data_dir;
    let unusable = |e: std::io::Error| Problem::new(Code::StorageFailed).with("path", folder.display()).cause(e);
    let held = File::open(folder).map_err(unusable)?;
    let busy = |_| {
        let cause = "a destination is being measured already";
        Problem::new(Code::Busy).with("peer", &config.node.name).cause(cause)
    };
    rustix::fs::flock(&held, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(busy)?;
    Ok(held)
}

#[derive(Default)]
struct Held {
    batches: Vec<RecordBatch>,
    rows: u64,
    bytes: u64,
}

impl Sink for Held {
    fn batch(&mut self, batch: RecordBatch) -> Result<(), Problem> {
        self.rows += batch.num_rows() as u64;
        self.bytes += batch.get_array_memory_size() as u64;
        self.batches.push(batch);
        if self.bytes >= WRITE_BYTES { Err(Problem::new(Code::Cancelled)) } else { Ok(()) }
    }
    /// What cannot be read says nothing of how fast rows are written.
    fn bad_row(&mut self, _: BadRow) -> Result<(), Problem> {
        Ok(())
    }
}

/// A database is measured when it may be used.
fn check_window(config: &Config, world: &World, connection: &str) -> Result<(), Problem> {
    let window = config.connections.get(connection).and_then(|found| found.window.as_ref());
    match window.and_then(|window| window.opens(world.clock.now())) {
        None => Ok(()),
        Some(opens) => Err(Problem::new(Code::OutsideWindow).with("node", &config.node.name).with("until", opens)),
    }
}

const READ_MS: u64 = 5_000;
const READ_BYTES: u64 = 64 << 20;
/// A source that gives nothing for this long after that is left.
const LATE_MS: u64 = 1_000;
const WRITE_BYTES: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::in_folder;
    use crate::store::Store;
    use posthouse_protocol::job::Write;
    use std::path::Path;

    const CONFIG: &str = r#"[connection.db]
kind = "sqlite"
path = "housing.sqlite"
[[resource]]
id = "registry"
connection = "db"
table = "registry"
"#;

    fn database(folder: &Path) -> rusqlite::Connection {
        let database = rusqlite::Connection::open(folder.join("housing.sqlite")).unwrap();
        let rows = "CREATE TABLE registry (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO registry VALUES (1, '王'), (2, '李')";
        database.execute_batch(rows).unwrap();
        database
    }

    fn registry() -> TableSpec {
        TableSpec {
            table: Some("registry".to_owned()),
            query: None,
            key: Vec::new(),
            watermark: None,
            late_ms: 0,
            resource: "housing.test.example/registry".to_owned(),
        }
    }

    #[tokio::test]
    async fn a_sample_of_a_short_table_is_all_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let config = in_folder(folder.path(), CONFIG);
        database(folder.path());
        let spec = registry();
        let sample = read(&config, &World::real(), "db", &spec).await.unwrap();
        assert_eq!((sample.rows, sample.whole), (2, true), "{sample:?}");
        assert!(sample.bytes > 0 && sample.first_ms.is_some(), "{sample:?}");
        let missing = TableSpec { table: Some("nothing".to_owned()), ..spec };
        assert!(read(&config, &World::real(), "db", &missing).await.is_err());
        assert_eq!(read(&config, &World::real(), "none", &missing).await.unwrap_err().code, Code::UnknownName);
    }

    #[tokio::test]
    async fn what_is_staged_is_discarded_also_by_the_next_where_one_was_killed() {
        let folder = tempfile::tempdir().unwrap();
        let config = in_folder(folder.path(), CONFIG);
        let database = database(folder.path());
        let world = World::real();
        let _store = Store::open(&world, folder.path()).await.unwrap();
        let (connector, found) = find(&config, "db").unwrap();
        let mut opened = connector.connect("db", &found.settings).unwrap();
        let contract = opened.source(&registry()).unwrap().begin(&Read::default()).unwrap().contract;
        let job: JobId = "registry".parse().unwrap();
        let landing = Landing {
            transfer: measuring(&config, &job),
            job,
            table: "registry".to_owned(),
            write: Write::Append,
            contract,
            native: None,
            watermark_column: None,
            operation: None,
            node_epoch: 0,
            work_dir: folder.path().to_owned(),
        };
        let left = || {
            let sql = "SELECT count(*) FROM sqlite_master WHERE name LIKE 'posthouse_staging%'";
            database.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap()
        };
        let mut held = Held::default();
        opened.destination(&landing).unwrap().read_standing(None, &mut held).unwrap();
        let mut killed = opened.destination(&landing).unwrap();
        killed.prepare().unwrap();
        killed.stage("doctor", [0; 32], &mut held.batches.into_iter().map(Ok::<_, Problem>)).unwrap();
        drop(killed);
        assert_eq!(left(), 1);
        let sample = write(&config, &world, "db", &landing, std::future::pending()).await.unwrap();
        assert_eq!((sample.rows, left()), (2, 0));
        // However far it came by then.
        let _ = write(&config, &world, "db", &landing, std::future::ready(())).await;
        assert_eq!(left(), 0);
        let _held = alone(&config).unwrap();
        let second = write(&config, &world, "db", &landing, std::future::pending()).await.unwrap_err();
        assert_eq!(second.code, Code::Busy);
    }
}
