//! A front-end table as a source: its unread rows, of each key the last one, with what it does. They are read twice
//! within one snapshot: once to note what there is and to find the last of each key, and once to hand those over.

use super::SharedRows;
use super::key::{self, Told};
use super::rows::{Fate, FrontRows, Noted};
use crate::config::Exchange;
use arrow::array::{ArrayRef, BooleanArray, Int64Array, StringArray};
use arrow::compute::filter_record_batch;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use posthouse_connectors::front::{FrontPlan, FrontRow, Part, VERSION, unfit, version_of};
use posthouse_connectors::{BadRow, Connection, Plan, Read, Sink, Source};
use posthouse_protocol::batch::{Batch, BatchError, Value, arrow_schema};
use posthouse_protocol::manifest::SplitCounts;
use posthouse_protocol::operation::{self, Operation};
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::schema::{Contract, ContractType, Item};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) struct FrontSource {
    source: Box<dyn Source>,
    plan: FrontPlan,
    exchange: Exchange,
    rows: SharedRows,
    /// What is noted may take so much on the disk.
    bytes_max: u64,
    shape: Option<Shape>,
}

/// Which columns are what, by their positions in what is read.
struct Shape {
    /// What is read.
    inner: Contract,
    /// What is handed on: the columns that are offered, what a row does, and its number.
    outer: Contract,
    handed: Vec<usize>,
    row: Vec<usize>,
    version: usize,
    key: Vec<usize>,
    order: Vec<usize>,
    operation: Option<usize>,
}

impl FrontSource {
    /// Looks at the table. What is read of it is noted in a new file, of so many bytes at most.
    pub(crate) fn open(
        connection: &mut dyn Connection,
        exchange: &Exchange,
        path: &Path,
        bytes_max: u64,
    ) -> Result<Self, Problem> {
        let plan = connection.front(&exchange.spec)?.plan()?;
        let refuse = |cause: String| unfit(&exchange.spec.resource, cause);
        let named = exchange.own_columns().chain(exchange.spec.key.iter().map(String::as_str));
        if let Some(name) = named.chain(exchange.watermark.as_deref()).find(|name| !has(&plan.columns, name)) {
            return Err(refuse(format!("there is no column `{name}`")));
        }
        if let Some(name) = [operation::COLUMN, NUMBER, VERSION].into_iter().find(|name| has(&plan.columns, name)) {
            return Err(refuse(format!("a column of it is named `{name}`, which is kept for other uses")));
        }
        let source = connection.source(&plan.source(&exchange.spec))?;
        let rows = Arc::new(Mutex::new(FrontRows::create(path)?));
        Ok(Self { source, plan, exchange: exchange.clone(), rows, bytes_max, shape: None })
    }

    pub(crate) fn rows(&self) -> SharedRows {
        self.rows.clone()
    }

    fn refuse(&self, cause: String) -> Problem {
        unfit(&self.exchange.spec.resource, cause)
    }

    /// The columns that are offered, in order: those that are asked for, or all but the exchange's own.
    fn handed(&self, asked: Option<&[String]>) -> Result<Vec<String>, Problem> {
        let handed: Vec<String> = match asked {
            Some(asked) => asked.to_vec(),
            None => {
                let own: Vec<&str> = self.exchange.own_columns().collect();
                self.plan.columns.iter().filter(|name| !own.contains(&name.as_str())).cloned().collect()
            }
        };
        match self.exchange.spec.key.iter().find(|name| !has(&handed, name)) {
            None => Ok(handed),
            Some(name) => {
                Err(self.refuse(format!("the key column `{name}` is not handed over, and changes apply by it")))
            }
        }
    }

    /// What orders rows of one key: batch, watermark, and the table's own number where it has one.
    fn order(&self) -> Vec<String> {
        let number = match self.plan.row.as_slice() {
            [only] if !has(&self.exchange.spec.key, only) => Some(only.clone()),
            _ => None,
        };
        let named = [self.exchange.batch.clone(), self.exchange.watermark.clone()];
        named.into_iter().flatten().chain(number).collect()
    }

    fn shape(&self, inner: Contract, handed: &[String]) -> Result<Shape, Problem> {
        let at = |name: &str| {
            let found = inner.position(name);
            found.ok_or_else(|| Problem::new(Code::InsideFailed).cause(format!("the column `{name}` did not come")))
        };
        let all = |names: &[String]| names.iter().map(|name| at(name)).collect::<Result<Vec<usize>, _>>();
        let spec = &self.exchange.spec;
        let (row, key, handed_at) = (all(&self.plan.row)?, all(&spec.key)?, all(handed)?);
        let item = |at: &usize| inner.items.get(*at);
        let is_whole = |item: &Item| match item.r#type {
            ContractType::Integer | ContractType::Text | ContractType::Char => true,
            ContractType::Decimal { scale, .. } => scale == 0,
            _ => false,
        };
        if let Some(item) = row.iter().filter_map(item).find(|item| !is_whole(item)) {
            let cause = format!("`{}` tells its rows apart, and is neither a whole number nor a text", item.name);
            return Err(self.refuse(cause));
        }
        let mut order = all(&self.order())?;
        // A key of texts orders nothing by itself.
        let is_number = |item: &Item| matches!(item.r#type, ContractType::Integer | ContractType::Decimal { .. });
        let named = usize::from(self.exchange.batch.is_some()) + usize::from(self.exchange.watermark.is_some());
        let mut place = 0;
        order.retain(|at| {
            place += 1;
            place <= named || item(at).is_some_and(is_number)
        });
        if let Some(item) = order.iter().filter_map(item).find(|item| !has_order(item.r#type)) {
            return Err(self.refuse(format!("`{}` is to order its rows, and its values have no order", item.name)));
        }
        let operation = self.exchange.operation.as_ref().map(|operation| at(&operation.column)).transpose()?;
        let mut items: Vec<Item> = handed_at.iter().filter_map(item).cloned().collect();
        items.iter_mut().filter(|item| has(&spec.key, &item.name)).for_each(|item| item.nullable = false);
        items.extend([operation::item(), number()]);
        let outer = Contract { items, key: spec.key.clone() };
        posthouse_protocol::batch::check_contract(&outer).map_err(|e| self.refuse(e.to_string()))?;
        let version = at(&self.plan.version)?;
        Ok(Shape { inner, outer, handed: handed_at, row, version, key, order, operation })
    }
}

impl Source for FrontSource {
    fn begin(&mut self, read: &Read) -> Result<Plan, Problem> {
        let handed = self.handed(read.columns.as_deref())?;
        let mut columns = handed.clone();
        let operation = self.exchange.operation.as_ref().map(|operation| operation.column.clone());
        let beside = [self.plan.row.clone(), vec![self.plan.version.clone()], self.order()].concat();
        for name in beside.into_iter().chain(operation) {
            if !has(&columns, &name) {
                columns.push(name);
            }
        }
        let asked = Read {
            columns: Some(columns),
            filter: read.filter.clone(),
            zero_dates_null: read.zero_dates_null,
            ..Read::default()
        };
        let plan = self.source.begin(&asked)?;
        let shape = self.shape(plan.contract, &handed)?;
        locked(&self.rows).clear()?;
        for split in &plan.splits {
            let mut noting = Noting {
                shape: &shape,
                exchange: &self.exchange,
                rows: &self.rows,
                bytes_max: self.bytes_max,
                unreadable: Vec::new(),
            };
            self.source.read(split, &mut noting)?;
            noting.hold()?;
        }
        let leaving = {
            let mut rows = locked(&self.rows);
            rows.decide()?;
            rows.leaving()?
        };
        let contract = shape.outer.clone();
        self.shape = Some(shape);
        Ok(Plan {
            contract,
            watermark: None,
            position: None,
            splits: plan.splits,
            rows_estimate: Some(leaving),
            bytes_estimate: None,
            native: None,
            apart: None,
            snapshot_max: plan.snapshot_max,
        })
    }

    fn read(&mut self, split: &str, sink: &mut dyn Sink) -> Result<SplitCounts, Problem> {
        let Some(shape) = &self.shape else {
            return Err(Problem::new(Code::InsideFailed).cause("a front-end table was read before it was begun"));
        };
        let mut picking = Picking { shape, rows: &self.rows, sink, zeros: Vec::new(), overtaken: 0, refused: 0 };
        let mut counts = self.source.read(split, &mut picking)?;
        let (overtaken, refused) = (picking.overtaken, picking.refused);
        counts.sent = counts.sent.checked_sub(overtaken + refused).ok_or_else(|| {
            let cause = format!("split {split}: {overtaken} and {refused} rows held back of {counts:?}");
            Problem::new(Code::InsideFailed).cause(cause)
        })?;
        counts.filtered += overtaken;
        counts.quarantined += refused;
        Ok(counts)
    }
}

/// Notes what there is.
struct Noting<'a> {
    shape: &'a Shape,
    exchange: &'a Exchange,
    rows: &'a SharedRows,
    bytes_max: u64,
    /// Keys of rows that the source could not read, which are not noted yet.
    unreadable: Vec<Vec<u8>>,
}

impl Noting<'_> {
    /// Rows of these keys wait.
    fn hold(&mut self) -> Result<(), Problem> {
        match self.unreadable.is_empty() {
            true => Ok(()),
            false => locked(self.rows).hold(&std::mem::take(&mut self.unreadable)),
        }
    }
}

impl Sink for Noting<'_> {
    fn batch(&mut self, batch: RecordBatch) -> Result<(), Problem> {
        let shape = self.shape;
        let batch = Batch::new(&shape.inner, batch)?;
        let noted = (0..batch.rows()).map(|row| {
            let version = match batch.value(shape.version, row) {
                Value::Null => {
                    let cause = "the database has no version of a row of it";
                    return Err(unfit(&self.exchange.spec.resource, cause));
                }
                value => version_of(&value.to_string()),
            };
            let operation = match (&self.exchange.operation, shape.operation) {
                (Some(words), Some(at)) => match batch.value(at, row) {
                    Value::Null => None,
                    value => words.read(&value.to_string()),
                },
                _ => Some(Operation::Update),
            };
            let mut order = Vec::new();
            shape.order.iter().for_each(|at| sortable(batch.value(*at, row), &mut order));
            let row_key = row_of(shape, &batch, row)?;
            let key = key::of_row(&shape.inner, &shape.key, &batch, row);
            Ok(Noted { row: FrontRow { row: row_key, version }, key, order, operation })
        });
        let noted = noted.collect::<Result<Vec<_>, Problem>>()?;
        let mut rows = locked(self.rows);
        rows.note(&noted)?;
        let (bytes, most) = (rows.bytes()?, self.bytes_max);
        if bytes > most {
            let cause = format!("what is noted of its unread rows takes {bytes} bytes, `spool_max` is {most}");
            return Err(unfit(&self.exchange.spec.resource, cause));
        }
        Ok(())
    }
    fn bad_row(&mut self, row: BadRow) -> Result<(), Problem> {
        // It comes again when rows are handed over: here it counts that those of its key must not go before it.
        match key::of_bad_row(&self.shape.inner, &self.shape.key, &row.original) {
            Told::Key(key) => self.unreadable.push(key),
            Told::NoOther => {}
            Told::Unknown => {
                let cause = format!("a row of it cannot be read, and its key cannot be told: {}", row.reason);
                return Err(unfit(&self.exchange.spec.resource, cause));
            }
        }
        if self.unreadable.len() < KEYS_MAX { Ok(()) } else { self.hold() }
    }
}

/// Hands on the last row of each key.
struct Picking<'a> {
    shape: &'a Shape,
    rows: &'a SharedRows,
    sink: &'a mut dyn Sink,
    /// How many dates of zeros a row of the next batch had.
    zeros: Vec<(usize, u64)>,
    overtaken: u64,
    refused: u64,
}

impl Sink for Picking<'_> {
    fn batch(&mut self, record: RecordBatch) -> Result<(), Problem> {
        let shape = self.shape;
        let batch = Batch::new(&shape.inner, record)?;
        let zeros = std::mem::take(&mut self.zeros);
        let mut stays = vec![false; batch.rows()];
        let (mut letters, mut numbers, mut bad): (Vec<&str>, Vec<i64>, Vec<BadRow>) = Default::default();
        {
            // Given up before anything is handed on: who takes it notes that in the same file.
            let rows = locked(self.rows);
            for (row, stays) in stays.iter_mut().enumerate() {
                let why = match rows.fate(&row_of(shape, &batch, row)?)? {
                    Some(Fate::Leaves(number, operation)) => {
                        *stays = true;
                        letters.push(operation.letter());
                        numbers.push(number);
                        continue;
                    }
                    Some(Fate::Overtaken) => {
                        self.overtaken += 1;
                        continue;
                    }
                    Some(Fate::Tied) => "nothing says which of the unread rows with its key is the last",
                    Some(Fate::Unknown) => "what it does is none of insert, update and delete",
                    Some(Fate::Keyless) => "a part of its key is NULL",
                    Some(Fate::Behind) => "another unread row with its key cannot be read",
                    None => {
                        let cause = "a row came that was not there when the snapshot was looked at";
                        return Err(Problem::new(Code::InsideFailed).cause(cause));
                    }
                };
                let parts = shape.key.iter().map(|at| batch.value(*at, row).to_string());
                let key = parts.collect::<Vec<_>>().join(",");
                bad.push(BadRow { key, reason: why.to_owned(), original: batch.json(row) });
            }
        }
        self.refused += bad.len() as u64;
        bad.into_iter().try_for_each(|row| self.sink.bad_row(row))?;
        if numbers.is_empty() {
            return Ok(());
        }
        for (row, zeros) in zeros.into_iter().filter(|(row, _)| stays.get(*row) == Some(&true)) {
            // Its number among those that are handed on.
            let before = stays.iter().take(row).filter(|stays| **stays).count();
            self.sink.zeros(before, zeros);
        }
        let told = |error: ArrowError| Problem::from(BatchError::from(error));
        let kept = filter_record_batch(batch.record(), &BooleanArray::from(stays)).map_err(told)?;
        let mut columns: Vec<ArrayRef> = shape.handed.iter().map(|at| kept.column(*at).clone()).collect();
        columns.push(Arc::new(StringArray::from(letters)));
        columns.push(Arc::new(Int64Array::from(numbers)));
        self.sink.batch(RecordBatch::try_new(arrow_schema(&shape.outer), columns).map_err(told)?)
    }
    fn bad_row(&mut self, row: BadRow) -> Result<(), Problem> {
        self.sink.bad_row(row)
    }
    fn zeros(&mut self, row: usize, zeros: u64) {
        self.zeros.push((row, zeros));
    }
}

/// What tells a row apart.
fn row_of(shape: &Shape, batch: &Batch, row: usize) -> Result<Vec<Part>, Problem> {
    let part = |at: &usize| match batch.value(*at, row) {
        Value::Integer(value) => Ok(Part::Integer(value)),
        value @ Value::Decimal(..) => Ok(Part::Digits(value.to_string())),
        Value::Text(text) => Ok(Part::Text(text.to_owned())),
        other => Err(Problem::new(Code::InsideFailed).cause(format!("{other:?} tells a row apart"))),
    };
    shape.row.iter().map(part).collect()
}

/// Appends a value so that bytes have the order of values, and of what follows them; NULL is before all.
fn sortable(value: Value<'_>, out: &mut Vec<u8>) {
    out.push(u8::from(!value.is_null()));
    match value {
        Value::Integer(value) | Value::Timestamp(value) => out.extend_from_slice(&(value ^ i64::MIN).to_be_bytes()),
        Value::Date(value) => out.extend_from_slice(&(value ^ i32::MIN).to_be_bytes()),
        // Of one column all have one scale.
        Value::Decimal(value, _) => out.extend_from_slice(&(value ^ i128::MIN).to_be_bytes()),
        Value::Text(text) => texts(text.as_bytes(), out),
        Value::Bytes(bytes) => texts(bytes, out),
        Value::Null | Value::Boolean(_) | Value::Float(_) | Value::Number(_) => {}
    }
}

/// Bytes that end where they end.
fn texts(bytes: &[u8], out: &mut Vec<u8>) {
    for byte in bytes {
        out.push(*byte);
        if *byte == 0 {
            out.push(0xff);
        }
    }
    out.extend_from_slice(&[0, 0]);
}

fn has_order(r#type: ContractType) -> bool {
    use ContractType::*;
    matches!(r#type, Integer | Decimal { .. } | Text | Char | Bytes | Date | Timestamp)
}

fn has(names: &[String], name: &str) -> bool {
    names.iter().any(|known| known == name)
}

/// The number of a row in what was noted; it never leaves the node.
fn number() -> Item {
    Item { name: NUMBER.to_owned(), r#type: ContractType::Integer, nullable: false, comment: None }
}

pub(super) fn locked(rows: &SharedRows) -> MutexGuard<'_, FrontRows> {
    rows.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) const NUMBER: &str = "posthouse_row";
/// Keys that are noted at once.
const KEYS_MAX: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_the_order_of_values() {
        let bytes = |values: &[Value<'_>]| {
            let mut out = Vec::new();
            values.iter().for_each(|value| sortable(*value, &mut out));
            out
        };
        let rising: [&[Value<'_>]; 12] = [
            &[Value::Null, Value::Integer(9)],
            &[Value::Integer(i64::MIN), Value::Integer(9)],
            &[Value::Integer(-1), Value::Integer(9)],
            &[Value::Integer(0), Value::Integer(8)],
            &[Value::Integer(0), Value::Integer(9)],
            &[Value::Integer(i64::MAX), Value::Null],
            &[Value::Text(""), Value::Integer(9)],
            &[Value::Text("\0"), Value::Integer(0)],
            &[Value::Text("20261128"), Value::Integer(9)],
            &[Value::Text("20261128\0"), Value::Integer(0)],
            &[Value::Text("202611281"), Value::Integer(0)],
            &[Value::Text("20261129"), Value::Integer(0)],
        ];
        for kinds in [&rising[..6], &rising[6..]] {
            assert!(kinds.is_sorted_by(|a, b| bytes(a) < bytes(b)));
        }
        assert!(bytes(&[Value::Decimal(-1, 2)]) < bytes(&[Value::Decimal(1, 2)]));
        assert!(bytes(&[Value::Date(-1)]) < bytes(&[Value::Date(0)]));
    }
}
