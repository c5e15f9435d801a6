//! Local durable state of a node: one SQLite file (WAL, synchronous=FULL) with one writer.
//! A write returns when it is on the disk. Whatever a write refers to outside (files, other databases)
//! is synced before it is recorded here. A damaged store is refused with PH4003, never repaired by guess.
//! What transfers consist of (entries, chunks, landed files) is in `exchange`.

pub mod exchange;
pub mod front;
pub mod jobs;
pub mod makings;
pub mod meta;
pub mod quarantine;
pub mod spent;
pub mod statements;
pub mod transfers;

pub use transfers::{Side, Transfer};

use posthouse_platform::World;
use posthouse_protocol::problem::{Code, Problem};
use rusqlite::{Connection, Transaction, TransactionBehavior};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Cheap to clone; the last clone closes the file.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
    world: World,
}

struct Inner {
    path: PathBuf,
    writer: Mutex<Connection>,
    reader: Mutex<Connection>,
    /// Held as long as the store is open: a second process on the same folder is refused.
    _lock: std::fs::File,
}

impl Store {
    /// Opens or makes the store in `folder`; brings an older one up to date.
    pub async fn open(world: &World, folder: &Path) -> Result<Self, Problem> {
        let folder = folder.to_owned();
        let inner = run(world, move || Inner::open(&folder)).await??;
        Ok(Self { inner: Arc::new(inner), world: world.clone() })
    }

    /// Runs `work` in one transaction, which is durable when this returns; an error leaves nothing behind.
    pub async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let store = self.clone();
        run(&self.world, move || store.write_now(work)).await?
    }

    /// Reads what is committed.
    pub async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let store = self.clone();
        run(&self.world, move || store.read_now(work)).await?
    }

    /// [`Store::write`] for code that is on a blocking thread already.
    pub fn write_now<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T, Problem>) -> Result<T, Problem> {
        let mut writer = held(&self.inner.writer);
        let place = |e: rusqlite::Error| self.inner.problem(&e);
        let transaction = Transaction::new(&mut writer, TransactionBehavior::Immediate).map_err(place)?;
        let value = work(&transaction)?;
        transaction.commit().map_err(place)?;
        Ok(value)
    }

    /// [`Store::read`] for code that is on a blocking thread already.
    pub fn read_now<T>(&self, work: impl FnOnce(&Connection) -> Result<T, Problem>) -> Result<T, Problem> {
        let mut reader = held(&self.inner.reader);
        // One snapshot for everything that `work` looks at.
        let transaction = reader.transaction().map_err(|e| self.inner.problem(&e))?;
        work(&transaction)
    }

    pub fn path(&self) -> &Path {
        &self.inner.path
    }
}

/// A count as SQLite keeps it. Beyond 2^63 none occurs; the largest value stands for it.
pub fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A count as it was kept.
pub fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// What went wrong in SQLite as a problem; for `map_err` inside a read or a write.
pub fn failed(error: rusqlite::Error) -> Problem {
    problem(Path::new(STORE_FILE), &error)
}

impl Inner {
    fn open(folder: &Path) -> Result<Self, Problem> {
        let unusable = |e: std::io::Error| Problem::new(Code::StorageFailed).with("path", folder.display()).cause(e);
        // What was exchanged, and with whom, is nobody else's on this machine.
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(unusable)?;
        let lock = std::fs::File::options()
            .create(true)
            .write(true)
            .truncate(false)
            .open(folder.join(LOCK_FILE))
            .map_err(unusable)?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| Problem::new(Code::AlreadyRunning).with("socket", folder.display()))?;
        let path = folder.join(STORE_FILE);
        let open = || -> rusqlite::Result<(Connection, Connection)> {
            let writer = Connection::open(&path)?;
            settle(&writer)?;
            let fault: String = writer.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
            if fault != "ok" {
                return Err(damaged(&fault));
            }
            let reader = Connection::open(&path)?;
            settle(&reader)?;
            reader.pragma_update(None, "query_only", true)?;
            Ok((writer, reader))
        };
        let (mut writer, reader) = open().map_err(|e| problem(&path, &e))?;
        migrate(&mut writer)
            .map_err(|cause| Problem::new(Code::StoreDamaged).with("path", path.display()).cause(cause))?;
        Ok(Self { path, writer: Mutex::new(writer), reader: Mutex::new(reader), _lock: lock })
    }

    fn problem(&self, error: &rusqlite::Error) -> Problem {
        problem(&self.path, error)
    }
}

fn settle(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // Every commit is on the disk when it returns: statements signed over it cannot be withdrawn.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "cache_size", CACHE_KIB)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

fn migrate(writer: &mut Connection) -> Result<(), String> {
    let list: Result<Vec<_>, _> =
        MIGRATIONS.iter().map(|(name, sql)| refinery::Migration::unapplied(name, sql)).collect();
    let list = list.map_err(|e| e.to_string())?;
    refinery::Runner::new(&list).run(writer).map(|_| ()).map_err(|e| e.to_string())
}

fn problem(path: &Path, error: &rusqlite::Error) -> Problem {
    use rusqlite::ErrorCode;
    let code = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Code::StoreDamaged,
        Some(ErrorCode::DiskFull) => Code::DiskFull,
        Some(_) => Code::StorageFailed,
        // What was read is not what was ever written here.
        None => Code::StoreDamaged,
    };
    Problem::new(code).with("path", path.display()).cause(error)
}

fn damaged(what: &str) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT), Some(what.to_owned()))
}

/// A panic while the lock was held rolled its transaction back; the connection is as good as before.
fn held(mutex: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn run<T: Send + 'static>(world: &World, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    world.blocking.run(work).await.map_err(|e| Problem::new(Code::InsideFailed).cause(e))
}

/// In order; an applied one is never edited.
const MIGRATIONS: &[(&str, &str)] = &[
    ("V1__node", include_str!("store/migrations/V1__node.sql")),
    ("V2__exchange", include_str!("store/migrations/V2__exchange.sql")),
    ("V3__invited", include_str!("store/migrations/V3__invited.sql")),
    ("V4__position", include_str!("store/migrations/V4__position.sql")),
    ("V5__alike", include_str!("store/migrations/V5__alike.sql")),
    ("V6__quality", include_str!("store/migrations/V6__quality.sql")),
    ("V7__front", include_str!("store/migrations/V7__front.sql")),
    ("V8__spent", include_str!("store/migrations/V8__spent.sql")),
    ("V9__hashed_chunks", include_str!("store/migrations/V9__hashed_chunks.sql")),
];
/// The store within the data folder.
pub const STORE_FILE: &str = "node.sqlite";
const LOCK_FILE: &str = "node.lock";
/// Negative: KiB of page cache for each of the two connections.
const CACHE_KIB: i64 = -4096;
