//! 治理: what happens to a row between its source and its seal, decided in one place for a transfer and for a deep
//! reconciliation alike: [`crate::extract`] reads every source through a [`Governor`]. What a resource says and what a
//! grant prescribes are [`Orders`]; what is done to values is in `protocol::govern`, which no connector knows of.
//!
//! Rows that are masked, checked or ruled never pass as their engine wrote them: that form is not asked for.

mod key;

pub use key::{KeyFile, read_codes};

use crate::config::Govern;
use arrow::record_batch::RecordBatch;
use posthouse_connectors::{BadRow, Plan, Read, Sink, Source, TableSpec};
use posthouse_protocol::batch::Batch;
use posthouse_protocol::govern::dialect::Ruler;
use posthouse_protocol::govern::{ColumnMask, Dialect, GovernError, Governed, Governing, MaskKey, Quality, Steps};
use posthouse_protocol::limits;
use posthouse_protocol::manifest::SplitCounts;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::schema::Contract;
use std::collections::{BTreeMap, BTreeSet};

/// What is to be done to the rows of one resource for one consumer.
#[derive(Debug, Clone, Default)]
pub struct Orders {
    governing: Governing,
    key: Option<MaskKey>,
    /// What the grant masks beyond that.
    granted: Vec<ColumnMask>,
    /// What the taker asks values to be taken for: of what it would get anyway, and so after all else.
    wishes: Dialect,
}

impl Orders {
    /// Reads the key and the code lists that the resource names. Blocks.
    pub fn of(govern: &Govern, granted: &[ColumnMask]) -> Result<Self, Problem> {
        let mut governing = govern.governing.clone();
        governing.checks = govern.checks.load()?;
        // A grant may hash a column under the key of a resource that hashes none itself.
        let needs_key = governing.needs_key() || granted.iter().any(|masked| masked.mask.needs_key());
        let key = govern.key.as_ref().filter(|_| needs_key).map(KeyFile::read).transpose()?;
        Ok(Self { governing, key, granted: granted.to_vec(), wishes: Dialect::default() })
    }

    /// With the rules of a request. One that this version does not know is refused: rows would come otherwise than they
    /// were asked for.
    pub fn wishing(mut self, rules: Option<&[Governed]>, resource: &dyn std::fmt::Display) -> Result<Self, Problem> {
        self.wishes = Dialect::asked(rules.unwrap_or_default()).map_err(|unknown| {
            let cause = format!("the consumer asks for the rule `{}`, which this version does not know", unknown.what);
            Problem::new(Code::SourceFailed).with("resource", resource).cause(cause)
        })?;
        Ok(self)
    }

    fn look_at_rows(&self) -> bool {
        self.governing.looks_at_rows() || !self.granted.is_empty() || self.wishes.changes_values()
    }
}

/// A source whose rows come as they are handed over.
pub struct Governor {
    source: Box<dyn Source>,
    /// None: as the source gives them.
    steps: Option<Steps>,
    /// What values mean, by the source's own columns.
    ruled: Option<Ruled>,
    /// What the taker takes them for.
    wished: Option<Ruled>,
    governed: Vec<Governed>,
    /// Splits by the names that they are handed over under, where theirs would tell what is masked.
    aliases: BTreeMap<String, String>,
    /// What the source says of a failure may tell what is masked, or is not offered.
    is_hidden: bool,
}

struct Ruled {
    source: Contract,
    ruler: Ruler,
}

impl Ruled {
    /// The contract becomes what it is by the rules; none where there are no rules.
    fn plan(
        dialect: &Dialect,
        contract: &mut Contract,
        watermark: Option<&str>,
        whole: bool,
    ) -> Result<Option<Self>, Problem> {
        if !dialect.changes_values() {
            return Ok(None);
        }
        let (after, ruler) = dialect.plan(contract, watermark, whole)?;
        Ok(Some(Self { source: std::mem::replace(contract, after), ruler }))
    }
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
        asked.zero_dates_null = governing.dialect.zero_dates_null || orders.wishes.zero_dates_null;
        if orders.wishes.zero_dates_null
            && !governing.dialect.zero_dates_null
            && (asked.filter.is_some() || !governing.checks.is_empty())
        {
            let cause = "`zero_dates` can be asked for only where no filter and no check sees the dates before it";
            return Err(Problem::new(Code::SourceFailed).with("resource", &table.resource).cause(cause));
        }
        let is_masked = !governing.masks.is_empty() || !orders.granted.is_empty();
        let is_hidden = is_masked || governing.columns.is_some();
        let mut plan = source.begin(&asked).map_err(|problem| without_values(problem, is_hidden))?;
        let mut aliases = BTreeMap::new();
        if governing.is_empty() && !orders.look_at_rows() {
            let (steps, ruled, wished, governed) = (None, None, None, Vec::new());
            return Ok((Self { source, steps, ruled, wished, governed, aliases, is_hidden }, plan));
        }
        if is_masked {
            // Bounds of splits are values of the key.
            let count = plan.splits.len();
            for (at, name) in (1..).zip(&mut plan.splits) {
                let alias = format!("part {at} of {count}");
                let own = std::mem::replace(name, alias.clone());
                aliases.insert(alias, own);
            }
        }
        let watermark = table.watermark.as_deref();
        let ruled = Ruled::plan(&governing.dialect, &mut plan.contract, watermark, asked.columns.is_none())?;
        let steps =
            governing.steps(&plan.contract, &orders.granted, watermark, orders.key.as_ref()).map_err(refused)?;
        plan.contract = steps.contract().clone();
        let outward = watermark.map(|watermark| governing.outward(watermark));
        let wished = Ruled::plan(&orders.wishes, &mut plan.contract, outward, true)?;
        let governed = [steps.governed().to_vec(), orders.wishes.governed()].concat();
        let bytes = posthouse_protocol::codec::encode(&governed).len();
        if bytes > limits::GOVERNED_BYTES_MAX {
            return Err(refused(GovernError::TooMuch { bytes }));
        }
        Ok((Self { source, steps: Some(steps), ruled, wished, governed, aliases, is_hidden }, plan))
    }

    /// As [`Source::read`], of rows as they are handed over. Those that a rule holds back are bad rows like others.
    pub fn read(&mut self, split: &str, sink: &mut dyn Sink) -> Result<SplitCounts, Problem> {
        let is_hidden = self.is_hidden;
        let Some(steps) = &mut self.steps else {
            return self.source.read(split, sink).map_err(|problem| without_values(problem, is_hidden));
        };
        let split = self.aliases.get(split).map_or(split, String::as_str);
        // What an earlier reading of a split has left behind is none of this one's.
        let _ = steps.take_quality();
        let (ruled, wished) = (self.ruled.as_mut(), self.wished.as_mut());
        let is_ruled = ruled.is_some() || wished.is_some();
        let mut passing = Passing { sink, steps, ruled, wished, rows: 0, zeros: Vec::new(), refused: 0, changed: 0 };
        let read = self.source.read(split, &mut passing);
        let mut counts = read.map_err(|problem| without_values(problem, is_hidden))?;
        let (refused, changed) = (passing.refused, passing.changed);
        counts.sent = counts.sent.checked_sub(refused).ok_or_else(|| {
            Problem::new(Code::InsideFailed).cause(format!("split {split}: {refused} rows held back of {counts:?}"))
        })?;
        counts.quarantined += refused;
        if is_ruled {
            // The source's own count has rows that were held back after it.
            counts.changed = Some(changed);
        }
        Ok(counts)
    }

    /// What the resource's rules found in the split that was read last. None: it has none.
    pub fn take_quality(&mut self) -> Option<Quality> {
        self.steps.as_mut().and_then(Steps::take_quality)
    }

    /// What is done to the rows, to be said; None: nothing.
    pub fn governed(&self) -> Option<Vec<Governed>> {
        (!self.governed.is_empty()).then(|| self.governed.clone())
    }
}

/// A failure as others may hear of it: a database names values in its messages.
fn without_values(problem: Problem, is_hidden: bool) -> Problem {
    if !is_hidden || problem.code != Code::SourceFailed {
        return problem;
    }
    tracing::warn!(%problem, "The source failed");
    problem.cause("what its database said stands in the provider's log")
}

/// Between a source and whoever seals its rows.
struct Passing<'a> {
    sink: &'a mut dyn Sink,
    steps: &'a mut Steps,
    ruled: Option<&'a mut Ruled>,
    wished: Option<&'a mut Ruled>,
    /// That came before, in this split.
    rows: u64,
    /// How many dates of zeros a row of the next batch had.
    zeros: Vec<(usize, u64)>,
    refused: u64,
    /// Values that rules changed, of rows that went on.
    changed: u64,
}

impl Passing<'_> {
    /// Rows as the resource's rules have them, or the taker's, with the number that each had in its batch where some are
    /// left out. `changes` is of each row how many of its values are changed so far.
    fn rule(
        &mut self,
        by_resource: bool,
        batch: RecordBatch,
        before: u64,
        changes: &mut Vec<u64>,
    ) -> Result<(RecordBatch, Option<Vec<u64>>), Problem> {
        let ruled = if by_resource { &mut self.ruled } else { &mut self.wished };
        let Some(ruled) = ruled else { return Ok((batch, None)) };
        let batch = Batch::new(&ruled.source, batch)?;
        let done = ruled.ruler.apply(&batch)?;
        leave_out(changes, &done.bad.iter().map(|(row, _)| *row).collect());
        changes.iter_mut().zip(&done.changes).for_each(|(sum, more)| *sum += more);
        if done.bad.is_empty() {
            return Ok((done.record, None));
        }
        let mut stays = vec![true; batch.rows()];
        for (row, reason) in done.bad {
            if let Some(stays) = stays.get_mut(row) {
                *stays = false;
            }
            self.refused += 1;
            let key = match batch.key().is_empty() {
                true => format!("row {}", before + row as u64 + 1),
                false => batch.key_text(row),
            };
            self.sink.bad_row(BadRow { key, reason, original: batch.json(row) })?;
        }
        let numbers = (0..).zip(stays).filter(|(_, stays)| *stays).map(|(number, _)| number).collect();
        Ok((done.record, Some(numbers)))
    }
}

impl Sink for Passing<'_> {
    fn batch(&mut self, batch: RecordBatch) -> Result<(), Problem> {
        let before = self.rows;
        self.rows += batch.num_rows() as u64;
        let mut changes = vec![0; batch.num_rows()];
        for (row, zeros) in self.zeros.drain(..) {
            if let Some(changes) = changes.get_mut(row) {
                *changes += zeros;
            }
        }
        let (batch, numbers) = self.rule(true, batch, before, &mut changes)?;
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let number = |row: usize| match &numbers {
            Some(numbers) => numbers.get(row).copied().unwrap_or_default(),
            None => row as u64,
        };
        let passed = self.steps.pass(batch)?;
        leave_out(&mut changes, &passed.refused.iter().map(|refused| refused.row).collect());
        for refused in passed.refused {
            self.refused += 1;
            let key = match refused.key.is_empty() {
                true => format!("row {}", before + number(refused.row) + 1),
                false => refused.key,
            };
            self.sink.bad_row(BadRow { key, reason: refused.reason, original: refused.original })?;
        }
        let Some(rows) = passed.rows else { return Ok(()) };
        let (rows, _) = self.rule(false, rows, before, &mut changes)?;
        self.changed += changes.iter().sum::<u64>();
        if rows.num_rows() == 0 { Ok(()) } else { self.sink.batch(rows) }
    }
    fn zeros(&mut self, row: usize, zeros: u64) {
        self.zeros.push((row, zeros));
    }
    fn raw(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        if self.steps.look_at_rows() || self.ruled.is_some() || self.wished.is_some() {
            return Err(Problem::new(Code::InsideFailed).cause("rows that are looked at came in raw form"));
        }
        self.sink.raw(bytes)
    }
    fn bad_row(&mut self, row: BadRow) -> Result<(), Problem> {
        self.sink.bad_row(row)
    }
}

/// What is counted of rows, without those that do not go on.
fn leave_out(counted: &mut Vec<u64>, rows: &BTreeSet<usize>) {
    if !rows.is_empty() {
        let mut row = 0..;
        counted.retain(|_| row.next().is_none_or(|row| !rows.contains(&row)));
    }
}

#[cfg(test)]
mod tests;
