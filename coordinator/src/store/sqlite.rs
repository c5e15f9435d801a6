//! The store in one SQLite file: WAL, synchronous=FULL, one writer, a few readers.
//! All SQL runs where blocking work belongs; a method's transaction is durable before it returns.

mod ledger;
mod membership;
mod policy;
mod transfers;

use super::records::{
    AccessRecord, GrantRecord, Issued, Joining, NodeRecord, Page, PolicyMaterial, TokenRecord, Window,
};
use super::{Appended, Granted, JoinRecord, Report, Store, StoredLeaf};
use crate::alarm::Alarm;
use crate::ledger::Leaf;
use crate::reconcile::TransferRow;
use posthouse_platform::blocking::Blocking;
use posthouse_protocol::centre::Profile;
use posthouse_protocol::id::{GrantId, NodeId, ReceiptId, TransferId};
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::reconciliation::Verdict;
use posthouse_protocol::time::Timestamp;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

pub(crate) struct Sqlite {
    path: PathBuf,
    blocking: Arc<dyn Blocking>,
    /// None once closed.
    writer: Arc<Mutex<Option<Connection>>>,
    readers: Arc<Mutex<Vec<Connection>>>,
}

mod embedded {
    refinery::embed_migrations!("src/store/migrations");
}

impl Sqlite {
    /// Opens the file, makes it where it is missing, and brings its tables up to date.
    pub(crate) async fn open(path: &Path, blocking: Arc<dyn Blocking>) -> Result<Self, Problem> {
        let file = path.to_owned();
        let writer = run(&blocking, move || {
            let mut connection = connect(&file).map_err(|e| failed(&file, &e))?;
            connection.pragma_update(None, "journal_mode", "WAL").map_err(|e| failed(&file, &e))?;
            embedded::migrations::runner()
                .run(&mut connection)
                .map_err(|e| Problem::new(Code::StoreDamaged).with("path", file.display()).cause(e))?;
            Ok(connection)
        })
        .await?;
        Ok(Self {
            path: path.to_owned(),
            blocking,
            writer: Arc::new(Mutex::new(Some(writer))),
            readers: Arc::new(Mutex::new(Vec::new())),
        })
    }

    /// One transaction that may write; rolled back when `work` fails.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Problem> {
        let (writer, path) = (self.writer.clone(), self.path.clone());
        run(&self.blocking, move || {
            let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(connection) = writer.as_mut() else {
                return Err(Problem::new(Code::StorageFailed).with("path", path.display()).cause("it is closed"));
            };
            let once = || -> Result<T, Failure> {
                let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let value = work(&transaction)?;
                transaction.commit()?;
                Ok(value)
            };
            once().map_err(|failure| failure.problem(&path))
        })
        .await
    }

    /// One snapshot.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Problem> {
        let (readers, path) = (self.readers.clone(), self.path.clone());
        run(&self.blocking, move || {
            let kept = readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut connection = match kept {
                Some(connection) => connection,
                None => connect(&path).map_err(|e| failed(&path, &e))?,
            };
            let once = || -> Result<T, Failure> {
                let transaction = connection.transaction()?;
                work(&transaction)
            };
            let value = once().map_err(|failure| failure.problem(&path));
            let mut readers = readers.lock().unwrap_or_else(PoisonError::into_inner);
            if readers.len() < READERS_KEPT {
                readers.push(connection);
            }
            value
        })
        .await
    }
}

#[async_trait::async_trait]
impl Store for Sqlite {
    async fn meta(&self, name: &str) -> Result<Option<String>, Problem> {
        let name = name.to_owned();
        self.read(move |c| membership::meta(c, &name)).await
    }
    async fn set_meta(&self, name: &str, value: &str) -> Result<(), Problem> {
        let (name, value) = (name.to_owned(), value.to_owned());
        self.write(move |t| membership::set_meta(t, &name, &value)).await
    }
    async fn probe(&self) -> Result<(), Problem> {
        self.write(|t| membership::set_meta(t, "probe", "")).await
    }

    async fn nodes(&self) -> Result<Vec<NodeRecord>, Problem> {
        self.read(membership::nodes).await
    }
    async fn node(&self, node: &NodeId) -> Result<Option<NodeRecord>, Problem> {
        let node = node.clone();
        self.read(move |c| membership::node(c, &node)).await
    }
    async fn add_token(&self, token: TokenRecord) -> Result<(), Problem> {
        self.write(move |t| membership::add_token(t, &token)).await
    }
    async fn look_at_token(&self, join: &JoinRecord) -> Result<Joining, Problem> {
        let join = join.clone();
        self.read(move |c| membership::look_at_token(c, &join)).await
    }
    async fn join(&self, join: JoinRecord, issued: Issued) -> Result<Joining, Problem> {
        self.write(move |t| membership::join(t, &join, &issued)).await
    }
    async fn renewed(&self, node: &NodeId, issued: Issued) -> Result<(), Problem> {
        let node = node.clone();
        self.write(move |t| membership::renewed(t, &node, &issued)).await
    }
    async fn certificate_revoked(&self, sha256: [u8; 32]) -> Result<bool, Problem> {
        self.read(move |c| membership::certificate_revoked(c, &sha256)).await
    }
    async fn revoke(&self, node: &NodeId, at: Timestamp) -> Result<bool, Problem> {
        let node = node.clone();
        self.write(move |t| membership::revoke(t, &node, at)).await
    }
    async fn raise_epoch(&self, node: &NodeId, epoch: u64, at: Timestamp) -> Result<u64, Problem> {
        let node = node.clone();
        self.write(move |t| membership::raise_epoch(t, &node, epoch, at)).await
    }
    async fn save_reports(&self, reports: Vec<Report>) -> Result<(), Problem> {
        self.write(move |t| {
            for report in &reports {
                membership::save_report(t, report)?;
                for progress in &report.transfers {
                    transfers::report(t, &report.node, progress, report.at)?;
                }
            }
            Ok(())
        })
        .await
    }
    async fn set_profile(&self, node: &NodeId, profile: Profile) -> Result<(), Problem> {
        let node = node.clone();
        self.write(move |t| membership::set_profile(t, &node, &profile)).await
    }

    async fn add_grant(&self, grant: GrantRecord) -> Result<Granted, Problem> {
        self.write(move |t| policy::add_grant(t, &grant)).await
    }
    async fn grants(&self) -> Result<Vec<GrantRecord>, Problem> {
        self.read(policy::grants).await
    }
    async fn revoke_grant(&self, id: &GrantId, at: Timestamp) -> Result<Option<GrantRecord>, Problem> {
        let id = id.clone();
        self.write(move |t| policy::revoke_grant(t, &id, at)).await
    }
    async fn policy_material(&self, node: &NodeId) -> Result<Option<PolicyMaterial>, Problem> {
        let node = node.clone();
        self.read(move |c| policy::material(c, &node)).await
    }
    async fn neighbours(&self, node: &NodeId) -> Result<Vec<NodeId>, Problem> {
        let node = node.clone();
        self.read(move |c| policy::neighbours(c, &node)).await
    }
    async fn bump_policies(&self, nodes: Option<Vec<NodeId>>) -> Result<(), Problem> {
        self.write(move |t| policy::bump(t, nodes.as_deref())).await
    }

    async fn add_access(&self, access: AccessRecord) -> Result<bool, Problem> {
        self.write(move |t| membership::add_access(t, &access)).await
    }
    async fn access(&self) -> Result<Vec<AccessRecord>, Problem> {
        self.read(membership::access).await
    }
    async fn revoke_access(&self, name: &str) -> Result<bool, Problem> {
        let name = name.to_owned();
        self.write(move |t| Ok(t.execute("DELETE FROM access WHERE name = ?1", [name])? > 0)).await
    }
    async fn touch_access(&self, name: &str, at: Timestamp) -> Result<(), Problem> {
        let name = name.to_owned();
        self.write(move |t| {
            t.execute("UPDATE access SET last_used_at = ?2 WHERE name = ?1", (name, at.0))?;
            Ok(())
        })
        .await
    }

    async fn append(&self, leaves: Vec<Leaf>, at: Timestamp) -> Result<Appended, Problem> {
        self.write(move |t| ledger::append(t, &leaves, at)).await
    }
    async fn ledger_size(&self) -> Result<u64, Problem> {
        self.read(ledger::size).await
    }
    async fn hashes(&self, positions: Vec<u64>) -> Result<Vec<[u8; 32]>, Problem> {
        self.read(move |c| ledger::hashes(c, &positions)).await
    }
    async fn find_leaves(&self, sha256: Vec<[u8; 32]>) -> Result<Vec<Option<StoredLeaf>>, Problem> {
        self.read(move |c| ledger::find(c, &sha256)).await
    }
    async fn leaves(&self, from: u64, limit: u64) -> Result<Vec<StoredLeaf>, Problem> {
        self.read(move |c| ledger::leaves(c, from, limit)).await
    }
    async fn leaves_of(&self, transfer: &TransferId) -> Result<Vec<StoredLeaf>, Problem> {
        let transfer = transfer.clone();
        self.read(move |c| ledger::leaves_of(c, &transfer)).await
    }
    async fn leaves_of_kind(&self, kind: &str, below: Option<u64>, limit: u64) -> Result<Vec<StoredLeaf>, Problem> {
        let kind = kind.to_owned();
        self.read(move |c| ledger::leaves_of_kind(c, &kind, below, limit)).await
    }

    async fn transfer(&self, id: &TransferId) -> Result<Option<TransferRow>, Problem> {
        let id = id.clone();
        self.read(move |c| transfers::one(c, &id)).await
    }
    async fn transfer_of_receipt(&self, id: &ReceiptId) -> Result<Option<TransferRow>, Problem> {
        let id = id.clone();
        self.read(move |c| transfers::of_receipt(c, &id)).await
    }
    async fn transfers(&self, window: Window, page: Page) -> Result<Vec<TransferRow>, Problem> {
        self.read(move |c| transfers::list(c, window, &page)).await
    }
    async fn count_transfers(&self, window: Window) -> Result<u64, Problem> {
        self.read(move |c| transfers::count(c, window)).await
    }
    async fn tally(&self, window: Window) -> Result<Vec<(Verdict, u64)>, Problem> {
        self.read(move |c| transfers::tally(c, window)).await
    }
    async fn transfers_of(&self, verdict: Verdict, window: Window, page: Page) -> Result<Vec<TransferRow>, Problem> {
        self.read(move |c| transfers::of_verdict(c, verdict, window, &page)).await
    }
    async fn open_transfers(&self, window: Window, page: Page) -> Result<Vec<TransferRow>, Problem> {
        self.read(move |c| transfers::open(c, window, &page)).await
    }
    async fn strayed(&self, window: Window, page: Page) -> Result<Vec<TransferRow>, Problem> {
        self.read(move |c| transfers::strayed(c, window, &page)).await
    }
    async fn receipts(&self, window: Window, page: Page) -> Result<Vec<TransferRow>, Problem> {
        self.read(move |c| transfers::receipts(c, window, &page)).await
    }

    async fn raise(&self, kind: &str, subject: &str, cause: &str, at: Timestamp, once: bool) -> Result<(), Problem> {
        let (kind, subject, cause) = (kind.to_owned(), subject.to_owned(), cause.to_owned());
        self.write(move |t| transfers::raise(t, &kind, &subject, &cause, at, once)).await
    }
    async fn clear(&self, kind: &str, subject: &str, at: Timestamp) -> Result<(), Problem> {
        let (kind, subject) = (kind.to_owned(), subject.to_owned());
        self.write(move |t| transfers::clear(t, &kind, &subject, at)).await
    }
    async fn alarms(&self, open_only: bool) -> Result<Vec<Alarm>, Problem> {
        self.read(move |c| transfers::alarms(c, open_only)).await
    }

    async fn close(&self) {
        let (writer, readers) = (self.writer.clone(), self.readers.clone());
        // Closing folds the write-ahead log into the file; if that fails it is read at the next start.
        let _ = run(&self.blocking, move || {
            readers.lock().unwrap_or_else(PoisonError::into_inner).clear();
            drop(writer.lock().unwrap_or_else(PoisonError::into_inner).take());
            Ok(())
        })
        .await;
    }
}

/// Why a transaction was rolled back.
pub(super) enum Failure {
    Sql(rusqlite::Error),
    /// A row that this program can't have written.
    Damaged(String),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl Failure {
    pub(super) fn damaged(what: impl std::fmt::Display) -> Self {
        Self::Damaged(what.to_string())
    }
    fn problem(self, path: &Path) -> Problem {
        match self {
            Self::Sql(error) => failed(path, &error),
            Self::Damaged(what) => Problem::new(Code::StoreDamaged).with("path", path.display()).cause(what),
        }
    }
}

fn failed(path: &Path, error: &rusqlite::Error) -> Problem {
    let code = match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => Code::DiskFull,
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => Code::StoreDamaged,
        _ => Code::StorageFailed,
    };
    Problem::new(code).with("path", path.display()).cause(error)
}

fn connect(path: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

async fn run<T: Send + 'static>(
    blocking: &Arc<dyn Blocking>,
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    match blocking.run(work).await {
        Ok(result) => result,
        Err(panicked) => Err(Problem::new(Code::InsideFailed).cause(panicked)),
    }
}

/// What SQLite keeps signed is unsigned everywhere else; values above i64::MAX are never stored.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
pub(super) fn unsigned(value: i64) -> Result<u64, Failure> {
    u64::try_from(value).map_err(|_| Failure::damaged(format!("{value} is below zero")))
}
pub(super) fn bytes32(value: Vec<u8>) -> Result<[u8; 32], Failure> {
    value.try_into().map_err(|v: Vec<u8>| Failure::damaged(format!("a hash of {} bytes", v.len())))
}

const READERS_KEPT: usize = 4;
