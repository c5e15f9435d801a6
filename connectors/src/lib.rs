//! One file per kind of database or file store, behind three traits: what can be read is a source,
//! what can be landed in is a destination, and a [`Connector`] opens them.
//!
//! All calls block and run on blocking threads (inline in simulation). A value is never replaced or
//! dropped silently: a row that cannot move goes to quarantine with its reason and original bytes.
//! Deliberately absent: the network, transfers' states, statements.

pub mod charset;
#[cfg(test)]
mod contract;
pub mod examine;
pub mod folder;
pub mod front;
pub mod mapping;
pub mod memory;
pub mod mysql;
pub mod parquet;
pub mod postgres;
mod publishing;
mod pushdown;
pub mod registry;
mod settings;
pub mod sqlite;
pub mod sqlserver;
pub mod types;
mod waiting;

use arrow::record_batch::RecordBatch;
use front::{FrontSpec, FrontTable};
use posthouse_protocol::filter::Filter;
use posthouse_protocol::format::{Format, Native};
use posthouse_protocol::id::{JobId, TransferId};
use posthouse_protocol::job::Write;
use posthouse_protocol::manifest::SplitCounts;
use posthouse_protocol::operation;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::schema::{Contract, Item};
use posthouse_protocol::watermark::Watermark;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A kind of database or file store; one constant of it stands in `registry::CONNECTORS`.
pub trait Connector: Sync {
    /// As in `kind = "sqlite"`.
    fn kind(&self) -> &'static str;
    /// One line each, for help and the console.
    fn describe(&self) -> (&'static str, &'static str);
    /// Checks the connection's own keys (kind and name excluded); all mistakes at once, as (key, what is wrong, nearest key).
    fn check(&self, settings: &Settings) -> Vec<SettingError>;
    fn connect(&self, name: &str, settings: &Settings) -> Result<Box<dyn Connection>, Problem>;
    /// Forms of rows beside Arrow that its destinations take.
    fn formats(&self) -> &'static [Format] {
        &[]
    }
    /// What the types of its tables mean, and what tables that are made have. None of a kind without types of its own.
    fn mapping(&self) -> Option<mapping::Mapping> {
        None
    }
    /// What an administrator of the database runs, so that the connection's account can read and land these with no
    /// right to create anything. None where this kind has no accounts.
    fn script(
        &self,
        _name: &str,
        _settings: &Settings,
        _reads: &[TableSpec],
        _landings: &[Landing],
    ) -> Result<Option<String>, Problem> {
        Ok(None)
    }
    /// The statements that give the connection's account what a front-end table takes beyond being read. None of a kind
    /// that has no accounts.
    fn front_grants(&self, _: &str, _: &Settings, _: &FrontSpec) -> Result<Vec<String>, Problem> {
        Ok(Vec::new())
    }
    /// Looks whether these can be read and landed, and says what stands in the way, or will: rights, settings, charsets,
    /// the clock. `now` is this machine's, in milliseconds. Changes nothing; an error says that the place cannot be
    /// reached at all.
    fn examine(
        &self,
        name: &str,
        settings: &Settings,
        reads: &[examine::Reading],
        landings: &[Landing],
        now: &dyn Fn() -> i64,
    ) -> Result<Vec<examine::Finding>, Problem> {
        let _ = (reads, landings, now);
        self.connect(name, settings)?.probe().map(|()| Vec::new())
    }
}

/// The keys of a `[connection.X]` table as strings, numbers and booleans, without `kind`.
pub type Settings = std::collections::BTreeMap<String, serde_json::Value>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingError {
    pub key: String,
    pub what: String,
    pub nearest: Option<String>,
}

/// An opened connection. Tables: `source`, `destination`.
pub trait Connection: Send {
    /// Proves that it works (doctor, check --online).
    fn probe(&mut self) -> Result<(), Problem>;
    fn source(&mut self, table: &TableSpec) -> Result<Box<dyn Source>, Problem>;
    fn destination(&mut self, landing: &Landing) -> Result<Box<dyn Destination>, Problem>;
    /// A front-end table: see [`front`].
    fn front(&mut self, spec: &FrontSpec) -> Result<Box<dyn FrontTable>, Problem> {
        Err(front::unfit(&spec.resource, "front-end tables stand in databases of other kinds"))
    }
    /// How the line to the server is secured, in the words of a statement, where it is less than encrypted to a server
    /// that is verified. None: it is, or there is no line.
    fn line(&self) -> Option<&'static str> {
        None
    }
}

/// What a resource says of its table.
#[derive(Debug, Clone)]
pub struct TableSpec {
    /// `table` or `query`, exactly one; of a front-end table both where [`front::FrontPlan::names_table`] says so.
    pub table: Option<String>,
    pub query: Option<String>,
    pub key: Vec<String>,
    pub watermark: Option<String>,
    /// How late a row may arrive with an older watermark.
    pub late_ms: i64,
    /// For problem texts: NODE/RESOURCE.
    pub resource: String,
}

/// What one transfer reads: the grant's columns and filter are part of it.
#[derive(Debug, Clone, Default)]
pub struct Read {
    pub columns: Option<Vec<String>>,
    /// Rows for which it is not true are left out: by the source itself, or already by its database, where that is sure
    /// to leave out no other. What the database leaves out is not read, and stands in no count.
    pub filter: Option<Filter>,
    /// Incremental: rows above this, widened backwards by `late_ms`.
    pub from: Option<Watermark>,
    /// Incremental: the [`Plan::position`] of the last read that was landed and reached `from`, where it is known.
    pub since: Option<String>,
    /// Observe and deep reconciliation: rows up to this.
    pub to: Option<Watermark>,
    /// The plan's watermark is none of a row above this: it was dated ahead. The row is read all the same, and
    /// again by each read until its day has come.
    pub mark_max: Option<Watermark>,
    /// Forms beside Arrow in which rows may be handed out.
    pub formats: Vec<Format>,
    /// A date or time of zeros (`0000-00-00`) outside of the key is read as NULL, and its column may be NULL then; the
    /// split's counts say how many there were. Otherwise such a row is a bad one.
    pub zero_dates_null: bool,
}

/// What [`Source::begin`] found.
#[derive(Debug, Clone)]
pub struct Plan {
    pub contract: Contract,
    /// Upper bound of what this read covers; becomes the next `from`.
    pub watermark: Option<Watermark>,
    /// Where the snapshot stands, for sources that can tell which rows came into sight after it; in their own words.
    /// Such a source reads those rows too, whatever their mark, and all rows where it is given none that holds.
    pub position: Option<String>,
    /// Names are the bounds: the same bounds give the same name in a later transfer.
    pub splits: Vec<String>,
    pub rows_estimate: Option<u64>,
    /// What the rows take at the source.
    pub bytes_estimate: Option<u64>,
    /// Set where rows come in an engine's own form, one of [`Read::formats`], and not as batches.
    pub native: Option<Native>,
    /// Why they do not, where such a form was asked for and the source has it.
    pub apart: Option<String>,
    /// How long the snapshot may be held, where its connection says so.
    pub snapshot_max: Option<Duration>,
}

/// A row that could not move, with why and what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRow {
    /// Key as text, or a position, so that a person can find it.
    pub key: String,
    pub reason: String,
    /// The original values: JSON object, undecodable text as {"hex": "…"}.
    pub original: String,
}

/// Takes what a source reads. Batches have the contract's schema (`protocol::batch::arrow_schema`).
pub trait Sink {
    fn batch(&mut self, batch: RecordBatch) -> Result<(), Problem>;
    /// The next bytes of a split in the plan's native form, cut anywhere; its first and its last are the form's own.
    fn raw(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        let _ = bytes;
        Err(Problem::new(Code::InsideFailed).cause("rows came in a form that was not asked for"))
    }
    fn bad_row(&mut self, row: BadRow) -> Result<(), Problem>;
    /// The row with this number, from 0, in the batch that comes next had so many dates of zeros that were read as NULL.
    fn zeros(&mut self, row: usize, zeros: u64) {
        let _ = (row, zeros);
    }
}

/// A table that is read. One snapshot from `begin` to drop: every split sees the same rows.
pub trait Source: Send {
    fn begin(&mut self, read: &Read) -> Result<Plan, Problem>;
    /// Reads one split of the plan to its end; a repeat gives the same rows. In the counts, `sent` is what
    /// went into the sink as batches, or as raw bytes.
    fn read(&mut self, split: &str, sink: &mut dyn Sink) -> Result<SplitCounts, Problem>;
}

/// Where a table lands.
#[derive(Debug, Clone)]
pub struct Landing {
    pub transfer: TransferId,
    pub job: JobId,
    pub table: String,
    pub write: Write,
    pub contract: Contract,
    /// The form in which the rows come, where it is not Arrow's: one of the connector's [`Connector::formats`].
    pub native: Option<Native>,
    /// Set for incremental jobs.
    pub watermark_column: Option<String>,
    /// Of a front-end table: rows come with one more column behind the contract's, of this name, which says what each of
    /// them does (`protocol::operation`). They are staged with it, and publishing deletes the rows whose key came with a
    /// `D` in the transaction that brings the others. Upserts only.
    pub operation: Option<String>,
    pub node_epoch: u64,
    /// Folder for what does not belong into the database (parquet files, quarantine files).
    pub work_dir: PathBuf,
}

impl Landing {
    /// The columns in which rows come and are staged.
    pub fn staged(&self) -> Contract {
        let mut staged = self.contract.clone();
        staged.items.extend(self.operation.clone().map(|name| Item { name, ..operation::item() }));
        staged
    }
    /// Refuses operations where rows are written in another way than by their key.
    fn check_operations(&self) -> Result<(), Problem> {
        if self.operation.is_none() || (self.write == Write::Upsert && !self.contract.key.is_empty()) {
            return Ok(());
        }
        let cause = "changes of a front-end table land by `write = \"upsert\"` and a key";
        Err(Problem::new(Code::DestinationFailed).with("target", &self.table).cause(cause))
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SplitLanded {
    pub landed: u64,
    pub bad: Vec<BadRow>,
}

/// A split's bytes, which were checked to be what its form says.
pub trait RawRows {
    /// The next of them; none at the end.
    fn next(&mut self) -> Result<Option<&[u8]>, Problem>;
    /// Back to the first byte: a destination that has to look at single rows reads them again.
    fn rewind(&mut self) -> Result<(), Problem>;
}

/// A split found in `posthouse_applied` when a transfer resumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    pub split: String,
    /// BLAKE3 root of the split's bytes.
    pub root: [u8; 32],
    pub landed: u64,
    pub quarantined: u64,
}

/// What the one publishing transaction did. Stored with the transfer: a repeat gives the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Published {
    /// Rows of this transfer now in the target (overlap rows that were already there included).
    pub rows: u64,
    pub inserted: u64,
    pub updated: u64,
    pub deleted: u64,
    /// Rows refused on publishing (constraints of the target), with their reasons kept in the quarantine table.
    pub quarantined: u64,
    /// Rows of the target that a mirror would have deleted, and left: rows stayed behind whose keys nobody knows here.
    #[serde(default)]
    pub kept: u64,
}

/// What publishing is told of a transfer beside what is staged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Publishing {
    /// More rows than these that the table refuses, and nothing is published.
    pub refused_max: Option<u64>,
    /// Rows of the resource that never came to the destination: the provider held them back, or the job's rules did. Nobody
    /// knows their keys there. Where there are any, a mirror deletes nothing: what it would take for gone may be what one
    /// of them was to change.
    pub held_back: u64,
}

/// A table that is landed in, exactly once per transfer id.
pub trait Destination: Send {
    /// Creates or checks target, staging and `posthouse_applied`. Drift is refused with both schemas shown.
    fn prepare(&mut self) -> Result<(), Problem>;
    /// What earlier runs of this transfer have staged.
    fn applied(&mut self) -> Result<Vec<Applied>, Problem>;
    /// Whether this transfer was published already.
    fn published(&mut self) -> Result<Option<Published>, Problem>;
    /// Stages one split and its applied row in one transaction; a split staged before is not staged again.
    fn stage(
        &mut self,
        split: &str,
        root: [u8; 32],
        batches: &mut dyn Iterator<Item = Result<RecordBatch, Problem>>,
    ) -> Result<SplitLanded, Problem>;
    /// The same for a split in the landing's native form.
    fn stage_raw(&mut self, split: &str, root: [u8; 32], rows: &mut dyn RawRows) -> Result<SplitLanded, Problem> {
        let _ = (root, rows);
        Err(Problem::new(Code::InsideFailed).cause(format!("split {split} came in a form that is not taken here")))
    }
    /// Whether rows that are staged now can be told apart by their splits for as long as they are, so that a later
    /// transfer may take them over. After `prepare`.
    fn hands_over(&mut self) -> Result<bool, Problem> {
        Ok(false)
    }
    /// Takes over what a transfer that failed has staged and never published, as if this one had: before `prepare`. What
    /// cannot be taken over is dropped. The same contract in the same form, for the same target. Whether it took any.
    fn take_over(&mut self, failed: &TransferId) -> Result<bool, Problem> {
        let _ = failed;
        Ok(false)
    }
    /// Splits that were taken over and are not of this transfer, by name and root: their rows are not published.
    fn give_up(&mut self, splits: &[(String, [u8; 32])]) -> Result<(), Problem> {
        let _ = splits;
        Ok(())
    }
    /// One more of the same transfer, which stages other splits at the same time. None where one comes after the other.
    fn beside(&self) -> Option<Box<dyn Destination>> {
        None
    }
    /// Makes all staged rows visible in one transaction, and leaves the transfer's id there. Where the table refuses
    /// more than `refused_max` of them, nothing is published, and the problem is `RowsRefused`. A mirror never deletes the
    /// row of a key that came, whether its new row could be staged or not: it is out of date, and not gone.
    fn publish_with(&mut self, how: &Publishing) -> Result<Published, Problem>;
    /// The same, however many rows are refused, where none was held back elsewhere.
    fn publish(&mut self) -> Result<Published, Problem> {
        self.publish_with(&Publishing::default())
    }
    /// The rows that publishing refused.
    fn refused(&mut self) -> Result<Vec<BadRow>, Problem>;
    /// Drops what an abandoned transfer staged.
    fn discard(&mut self) -> Result<(), Problem>;
    /// Reads the standing table as the contract has it (deep reconciliation); rows in any order.
    fn read_standing(&mut self, to: Option<&Watermark>, sink: &mut dyn Sink) -> Result<u64, Problem>;
    /// `--dry-run`: what `prepare` and `publish` would create or change, as lines.
    fn dry_run(&mut self) -> Result<Vec<String>, Problem>;
    /// As its connection's.
    fn line(&self) -> Option<&'static str> {
        None
    }
}

/// More rows were refused than may be. With a limit of the job's the first of them says what kind of row that is;
/// without one something else is wrong.
fn too_many_refused(table: &str, rows: usize, first: Option<&BadRow>, refused_max: Option<u64>) -> Problem {
    let problem = Problem::new(Code::RowsRefused).with("rows", rows).with("table", table);
    match first.filter(|_| refused_max.is_some()) {
        Some(BadRow { key, reason, .. }) => problem.cause(format!("{key}: {reason}")),
        None => problem.cause("the target refuses so many rows that something else is wrong"),
    }
}

/// Resolves a relative path in settings against the configuration file's folder.
pub fn resolve(base: &Path, path: &str) -> PathBuf {
    base.join(path)
}
