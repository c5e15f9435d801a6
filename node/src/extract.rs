//! 抽取: reads one snapshot of a table, split by split.
//! A [`Batch`] and a [`Proposed`] watermark come only from here: rows that a source gave inside its
//! snapshot, and how far that snapshot reaches. Nothing is durable yet; `seal` writes the splits down.
//! Folders have no such room: their files are read where they lie, by `send`.

use crate::config::Exchange;
use crate::front::{self, FrontSource, Tap};
use crate::govern::{Governor, Orders};
use crate::spent::{Meters, Waiting, What};
use arrow::record_batch::RecordBatch;
use posthouse_connectors::{BadRow, Connection, Plan, Read, Sink, Source, TableSpec};
use posthouse_protocol::format::Native;
use posthouse_protocol::govern::{Governed, Quality};
use posthouse_protocol::limits;
use posthouse_protocol::manifest::{Operations, SplitCounts};
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::schema::Contract;
use posthouse_protocol::time::Timestamp;
use posthouse_protocol::watermark::Watermark;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A snapshot under way. All calls block; one split at a time, so that the caller decides when to go on.
pub struct Extraction {
    source: Governor,
    // The source may live on its connection; it is dropped first.
    connection: Box<dyn Connection>,
    plan: Plan,
    next: usize,
    /// Of a front-end table: notes which rows leave.
    tap: Option<Tap>,
    /// Where the waiting for the source is counted.
    meters: Option<Arc<Meters>>,
}

/// Rows as the source gave them, and as they are handed over.
pub struct Batch(RecordBatch);

impl Batch {
    pub fn rows(&self) -> &RecordBatch {
        &self.0
    }
}

/// The upper bound of what a snapshot covers. It counts only once the consumer has landed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposed(Option<Watermark>);

impl Proposed {
    pub fn watermark(&self) -> Option<&Watermark> {
        self.0.as_ref()
    }
}

/// Takes what one split holds.
pub trait SplitSink {
    fn batch(&mut self, batch: &Batch) -> Result<(), Problem>;
    /// The next bytes of a split that comes in the extraction's native form.
    fn raw(&mut self, bytes: &[u8]) -> Result<(), Problem>;
    fn bad_row(&mut self, row: BadRow) -> Result<(), Problem>;
    /// What the resource's rules found in the split, at its end. None: it has none.
    fn quality(&mut self, _: Option<Quality>) {}
}

impl Extraction {
    /// Takes the snapshot and plans its splits. Columns and filter of `read` are those of the grant.
    pub fn begin(
        mut connection: Box<dyn Connection>,
        table: &TableSpec,
        read: &Read,
        orders: &Orders,
        now: Timestamp,
    ) -> Result<Self, Problem> {
        let source = connection.source(table)?;
        Self::begin_with(connection, source, table, read, orders, now)
    }

    /// The same of a front-end table: its unread rows. What is read of them is noted in the file at `path`, which may take
    /// so many bytes.
    pub(crate) fn begin_front(
        mut connection: Box<dyn Connection>,
        (exchange, path, bytes_max): (&Exchange, &Path, u64),
        table: &TableSpec,
        read: &Read,
        orders: &Orders,
        now: Timestamp,
    ) -> Result<Self, Problem> {
        let source = FrontSource::open(connection.as_mut(), exchange, path, bytes_max)?;
        let rows = source.rows();
        let mut begun = Self::begin_with(connection, Box::new(source), table, read, orders, now)?;
        begun.tap = Some(Tap::new(rows, &mut begun.plan.contract)?);
        Ok(begun)
    }

    fn begin_with(
        connection: Box<dyn Connection>,
        source: Box<dyn Source>,
        table: &TableSpec,
        read: &Read,
        orders: &Orders,
        now: Timestamp,
    ) -> Result<Self, Problem> {
        // A row dated years ahead would put every later row behind the mark.
        let latest = now.0.saturating_add(LOCAL_AHEAD_MS).saturating_mul(1_000);
        let read = Read { mark_max: Some(Watermark::Timestamp(latest)), ..read.clone() };
        let (source, plan) = Governor::begin(source, table, &read, orders)?;
        let refuse = |cause: String| Problem::new(Code::SourceFailed).with("resource", &table.resource).cause(cause);
        if plan.contract.items.len() > limits::COLUMNS_MAX {
            return Err(refuse(format!("it has more than {} columns", limits::COLUMNS_MAX)));
        }
        if plan.splits.len() as u64 > limits::ENTRIES_MAX {
            return Err(refuse(format!("it falls into more than {} splits", limits::ENTRIES_MAX)));
        }
        let names: BTreeSet<&String> = plan.splits.iter().collect();
        if names.len() != plan.splits.len() {
            return Err(refuse("two of its splits have the same bounds".to_owned()));
        }
        if let Some(long) = plan.splits.iter().find(|name| name.is_empty() || name.len() > limits::PATH_BYTES_MAX) {
            return Err(refuse(format!("a split's name has {} bytes", long.len())));
        }
        Ok(Self { source, connection, plan, next: 0, tap: None, meters: None })
    }

    /// Counts there how long the source is waited for.
    #[must_use]
    pub fn metered(self, meters: Arc<Meters>) -> Self {
        Self { meters: Some(meters), ..self }
    }

    pub fn contract(&self) -> &Contract {
        &self.plan.contract
    }

    /// How the line to the database is secured, where a statement has to say so.
    pub fn database_line(&self) -> Option<&'static str> {
        self.connection.line()
    }

    /// What is done to the rows before anyone sees them; None: nothing.
    pub fn governed(&self) -> Option<Vec<Governed>> {
        self.source.governed()
    }

    /// Set where splits come in an engine's own form and not as batches.
    pub fn native(&self) -> Option<&Native> {
        self.plan.native.as_ref()
    }

    /// How long the snapshot may be held, where its connection says so.
    pub fn snapshot_max(&self) -> Option<Duration> {
        self.plan.snapshot_max
    }

    pub fn proposed(&self) -> Proposed {
        Proposed(self.plan.watermark.clone())
    }

    /// Where the snapshot stands, in its source's own words.
    pub fn position(&self) -> Option<&str> {
        self.plan.position.as_deref()
    }

    pub fn splits(&self) -> &[String] {
        &self.plan.splits
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The bounds of the split that [`Self::read_next`] reads next.
    pub fn peek(&self) -> Option<&str> {
        self.plan.splits.get(self.next).map(String::as_str)
    }

    /// Reads the next split to its end into `sink`. None once all are read.
    pub fn read_next(&mut self, sink: &mut dyn SplitSink) -> Option<Result<SplitCounts, Problem>> {
        let name = self.plan.splits.get(self.next)?.clone();
        self.next += 1;
        Some(self.read(&name, sink))
    }

    /// Reads the split once more that was read last: the same rows.
    pub fn read_again(&mut self, sink: &mut dyn SplitSink) -> Option<Result<SplitCounts, Problem>> {
        let name = self.plan.splits.get(self.next.checked_sub(1)?)?.clone();
        Some(self.read(&name, sink))
    }

    fn read(&mut self, name: &str, sink: &mut dyn SplitSink) -> Result<SplitCounts, Problem> {
        let native = self.plan.native.is_some();
        let meters = self.meters.clone();
        let waits = meters.as_ref().map(|meters| meters.wait(What::Source));
        let (tap, operations) = (self.tap.as_ref(), self.tap.as_ref().map(|_| Operations::default()));
        let mut through = Through { sink, tap, operations, sent: 0, quarantined: 0, meters, waits };
        let mut counts = self.source.read(name, &mut through)?;
        through.waits = None;
        counts.operations = through.operations;
        through.sink.quality(self.source.take_quality());
        // A connector that miscounts would make both parties sign wrong numbers.
        let balanced = counts.read == counts.sent + counts.filtered + counts.quarantined
            // Raw rows are counted where they are digested.
            && (native || counts.sent == through.sent)
            && counts.quarantined == through.quarantined;
        if balanced {
            Ok(counts)
        } else {
            Err(Problem::new(Code::InsideFailed).cause(format!(
                "split {name}: {counts:?} do not balance with {} rows and {} bad rows seen",
                through.sent, through.quarantined
            )))
        }
    }
}

/// Counts on the way, and turns the source's rows into the room's type.
struct Through<'a> {
    sink: &'a mut dyn SplitSink,
    tap: Option<&'a Tap>,
    operations: Option<Operations>,
    sent: u64,
    quarantined: u64,
    meters: Option<Arc<Meters>>,
    /// There while the source is what is waited for.
    waits: Option<Waiting>,
}

impl Through<'_> {
    /// What is done with the rows is not the source's time.
    fn aside<T>(&mut self, work: impl FnOnce(&mut dyn SplitSink) -> T) -> T {
        self.waits = None;
        let done = work(&mut *self.sink);
        self.waits = self.meters.as_ref().map(|meters| meters.wait(What::Source));
        done
    }
}

impl Sink for Through<'_> {
    fn batch(&mut self, batch: RecordBatch) -> Result<(), Problem> {
        self.sent += batch.num_rows() as u64;
        let batch = match (self.tap, &mut self.operations) {
            (Some(tap), Some(operations)) => tap.take(&batch, operations)?,
            _ => batch,
        };
        self.aside(|sink| sink.batch(&Batch(batch)))
    }
    fn raw(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        self.aside(|sink| sink.raw(bytes))
    }
    fn bad_row(&mut self, row: BadRow) -> Result<(), Problem> {
        self.quarantined += 1;
        self.sink.bad_row(match self.tap {
            Some(_) => front::held_back(row),
            None => row,
        })
    }
}

/// Marks are often written in local time, which runs at most 14 hours ahead of UTC.
const LOCAL_AHEAD_MS: i64 = 14 * 3_600_000;
