//! 治理: what happens to a row between its source and its seal, decided in one place for a transfer and for a deep
//! reconciliation alike: [`crate::extract`] reads every source through a [`Governor`]. What a resource says and what a
//! grant prescribes are [`Orders`]; what is done to values is in `protocol::govern`, which no connector knows of.
//!
//! Rows that are masked or checked never pass as their engine wrote them: that form is not asked for.

mod key;

pub use key::{KeyFile, read_codes};

use crate::config::Govern;
use posthouse_connectors::{BadRow, Plan, Read, Sink, Source, TableSpec};
use posthouse_protocol::govern::{ColumnMask, GovernError, Governed, Governing, MaskKey, Quality, Steps};
use posthouse_protocol::manifest::SplitCounts;
use posthouse_protocol::problem::{Code, Problem};

/// What is to be done to the rows of one resource for one consumer.
#[derive(Debug, Clone, Default)]
pub struct Orders {
    governing: Governing,
    key: Option<MaskKey>,
    /// What the grant masks beyond that.
    granted: Vec<ColumnMask>,
}

impl Orders {
    /// Reads the key and the code lists that the resource names. Blocks.
    pub fn of(govern: &Govern, granted: &[ColumnMask]) -> Result<Self, Problem> {
        let mut governing = govern.governing.clone();
        governing.checks = govern.checks.load()?;
        // A grant may hash a column under the key of a resource that hashes none itself.
        let needs_key = governing.needs_key() || granted.iter().any(|masked| masked.mask.needs_key());
        let key = govern.key.as_ref().filter(|_| needs_key).map(KeyFile::read).transpose()?;
        Ok(Self { governing, key, granted: granted.to_vec() })
    }

    fn look_at_rows(&self) -> bool {
        self.governing.looks_at_rows() || !self.granted.is_empty()
    }
}

/// A source whose rows come as they are handed over.
pub struct Governor {
    source: Box<dyn Source>,
    /// None: as the source gives them.
    steps: Option<Steps>,
}

impl Governor {
    /// Begins to read. The columns and the filter of `read` are the grant's, under the names that are offered.
    pub fn begin(
        mut source: Box<dyn Source>,
        table: &TableSpec,
        read: &Read,
        orders: &Orders,
    ) -> Result<(Self, Plan), Problem> {
        let refused =
            |error: GovernError| Problem::new(Code::SourceFailed).with("resource", &table.resource).cause(error);
        let governing = &orders.governing;
        let mut asked = read.clone();
        asked.columns = governing.source_columns(read.columns.as_deref()).map_err(refused)?;
        asked.filter = read.filter.as_ref().map(|filter| governing.source_filter(filter));
        if orders.look_at_rows() {
            asked.formats.clear();
        }
        let mut plan = source.begin(&asked)?;
        if governing.is_empty() && orders.granted.is_empty() {
            return Ok((Self { source, steps: None }, plan));
        }
        let watermark = table.watermark.as_deref();
        let steps =
            governing.steps(&plan.contract, &orders.granted, watermark, orders.key.as_ref()).map_err(refused)?;
        plan.contract = steps.contract().clone();
        Ok((Self { source, steps: Some(steps) }, plan))
    }

    /// As [`Source::read`], of rows as they are handed over. Those that a rule holds back are bad rows like others.
    pub fn read(&mut self, split: &str, sink: &mut dyn Sink) -> Result<SplitCounts, Problem> {
        let Some(steps) = &mut self.steps else { return self.source.read(split, sink) };
        // What an earlier reading of a split has left behind is none of this one's.
        let _ = steps.take_quality();
        let mut passing = Passing { sink, steps, rows: 0, refused: 0 };
        let mut counts = self.source.read(split, &mut passing)?;
        let refused = passing.refused;
        counts.sent = counts.sent.checked_sub(refused).ok_or_else(|| {
            Problem::new(Code::InsideFailed).cause(format!("split {split}: {refused} rows held back of {counts:?}"))
        })?;
        counts.quarantined += refused;
        Ok(counts)
    }

    /// What the resource's rules found in the split that was read last. None: it has none.
    pub fn take_quality(&mut self) -> Option<Quality> {
        self.steps.as_mut().and_then(Steps::take_quality)
    }

    /// What is done to the rows, to be said; None: nothing.
    pub fn governed(&self) -> Option<Vec<Governed>> {
        let governed = self.steps.as_ref().map(|steps| steps.governed().to_vec());
        governed.filter(|governed| !governed.is_empty())
    }
}

/// Between a source and whoever seals its rows.
struct Passing<'a> {
    sink: &'a mut dyn Sink,
    steps: &'a mut Steps,
    /// That came before, in this split.
    rows: u64,
    refused: u64,
}

impl Sink for Passing<'_> {
    fn batch(&mut self, batch: arrow::record_batch::RecordBatch) -> Result<(), Problem> {
        let before = self.rows;
        self.rows += batch.num_rows() as u64;
        let passed = self.steps.pass(batch)?;
        for refused in passed.refused {
            self.refused += 1;
            let key = match refused.key.is_empty() {
                true => format!("row {}", before + refused.row as u64 + 1),
                false => refused.key,
            };
            self.sink.bad_row(BadRow { key, reason: refused.reason, original: refused.original })?;
        }
        match passed.rows {
            Some(rows) => self.sink.batch(rows),
            None => Ok(()),
        }
    }
    fn raw(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        if self.steps.look_at_rows() {
            return Err(Problem::new(Code::InsideFailed).cause("rows that are masked or checked came in raw form"));
        }
        self.sink.raw(bytes)
    }
    fn bad_row(&mut self, row: BadRow) -> Result<(), Problem> {
        self.sink.bad_row(row)
    }
}

#[cfg(test)]
mod tests;
