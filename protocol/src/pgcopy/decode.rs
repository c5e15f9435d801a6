//! Takes a binary COPY stream in slices of any size apart into Arrow batches of its contract: each value goes from
//! its field straight into its column. Batches end where [`crate::batch::BatchBuilder`] ends them, so that the same
//! rows are the same batches on either way. A row that cannot be carried is handed out with its reason and its
//! original, and leaves no trace in the batch.

mod columns;

use super::digest::Step;
use super::shape::Shape;
use super::walk::{Part, Stream, Tuples};
use super::{CopyError, Fault, render};
use crate::batch::{Value, arrow_schema, json_row};
use crate::limits::{BATCH_BYTES, BATCH_ROWS, TUPLE_BYTES_MAX};
use crate::problem::{Code, Problem};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use columns::{Building, Scratch};

/// Makes batches of one stream.
pub struct Decoder {
    stream: Stream,
    rows: Rows,
}

/// What comes out of a stream.
#[derive(Debug, Clone)]
pub enum Decoded {
    Batch(RecordBatch),
    Bad(BadRow),
}

/// A row that cannot be carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRow {
    /// Its place in the stream, from 0.
    pub row: u64,
    /// Names the column.
    pub reason: String,
    /// Its fields as a JSON object of texts; what cannot be shown as text as `{"hex": "…"}`.
    pub original: String,
}

impl Decoder {
    pub fn new(shape: &Shape) -> Self {
        let columns = shape.columns.iter().map(|column| Building::new(column.form)).collect();
        let schema = arrow_schema(shape.contract());
        let rows = Rows { shape: shape.clone(), schema, columns, rows: 0, bytes: 0, scratch: Scratch::default() };
        Self { stream: Stream::new(shape.columns.len(), TUPLE_BYTES_MAX), rows }
    }
    /// Takes the stream's next bytes and hands out each batch that is full, and each bad row.
    pub fn feed(&mut self, bytes: &[u8], into: &mut impl FnMut(Decoded) -> Result<(), Problem>) -> Result<(), Problem> {
        self.stream.feed(bytes, &mut Decoding { rows: &mut self.rows, into })
    }
    /// Hands out the last batch; gives the number of tuples of the whole stream, where it ended as one does.
    pub fn finish(mut self, into: &mut impl FnMut(Decoded) -> Result<(), Problem>) -> Result<u64, Problem> {
        let tuples = self.stream.finish()?;
        if self.rows.rows > 0 {
            into(Decoded::Batch(self.rows.batch()?))?;
        }
        Ok(tuples)
    }
}

/// The batch that is being made.
struct Rows {
    shape: Shape,
    schema: SchemaRef,
    columns: Vec<Building>,
    rows: usize,
    bytes: usize,
    scratch: Scratch,
}

impl Rows {
    /// Takes the tuple that the bytes begin with; where it cannot be carried, gives the column and the fault.
    fn push(&mut self, row: u64, bytes: &[u8]) -> Result<(Step, Option<(usize, Fault)>), CopyError> {
        let stream = |what| Err(CopyError::Stream { what, rows: row });
        let Some((count, mut rest)) = bytes.split_first_chunk::<2>() else { return Ok((Step::More, None)) };
        if usize::from(u16::from_be_bytes(*count)) != self.shape.columns.len() {
            return stream(super::walk::COUNT);
        }
        let mut fault: Option<(usize, Fault)> = None;
        let mut added = 0;
        for (index, (column, building)) in self.shape.columns.iter().zip(&mut self.columns).enumerate() {
            let Some((length, after)) = rest.split_first_chunk::<4>() else { return Ok((self.undo(Step::More), None)) };
            let done = match i32::from_be_bytes(*length) {
                -1 => {
                    rest = after;
                    if column.nullable {
                        Ok(building.null())
                    } else {
                        Err("is NULL where the contract allows none".into())
                    }
                }
                length => {
                    let Ok(length) = usize::try_from(length) else { return stream("a field has a length below zero") };
                    let Some((value, after)) = after.split_at_checked(length) else {
                        return Ok((self.undo(Step::More), None));
                    };
                    rest = after;
                    // After a fault the rest is only measured.
                    if fault.is_some() { Ok(0) } else { building.push(column, value, &mut self.scratch) }
                }
            };
            match done {
                Ok(bytes) => added += bytes,
                Err(found) => fault = fault.or(Some((index, found))),
            }
            if added > TUPLE_BYTES_MAX && fault.is_none() {
                fault = Some((index, "makes its row larger than a row may be".into()));
            }
        }
        let step = Step::Whole(bytes.len() - rest.len());
        if fault.is_some() {
            return Ok((self.undo(step), fault));
        }
        self.rows += 1;
        self.bytes += added;
        Ok((step, None))
    }

    /// Takes back what was begun of a row.
    fn undo(&mut self, step: Step) -> Step {
        let rows = self.rows;
        self.columns.iter_mut().for_each(|column| column.truncate(rows));
        step
    }

    fn is_full(&self) -> bool {
        self.rows >= BATCH_ROWS || self.bytes >= BATCH_BYTES
    }

    fn batch(&mut self) -> Result<RecordBatch, Problem> {
        let inside = |error| Problem::new(Code::Mismatch).with("peer", "the provider").cause(error);
        let types = self.schema.fields().iter().map(|field| field.data_type());
        let arrays = self.columns.iter_mut().zip(types).map(|(column, r#type)| column.finish(r#type));
        let arrays = arrays.collect::<Result<Vec<_>, _>>().map_err(inside)?;
        (self.rows, self.bytes) = (0, 0);
        RecordBatch::try_new(self.schema.clone(), arrays).map_err(inside)
    }
}

/// The fields of a tuple as a JSON object of texts.
pub(super) fn original(shape: &Shape, tuple: &[u8]) -> String {
    let mut rest = tuple.get(2..).unwrap_or(&[]);
    let mut fields = Vec::with_capacity(shape.columns.len());
    for column in &shape.columns {
        let Some((length, after)) = rest.split_first_chunk::<4>() else { break };
        let value = usize::try_from(i32::from_be_bytes(*length)).ok().and_then(|length| after.get(..length));
        rest = after.get(value.map_or(0, <[u8]>::len)..).unwrap_or(&[]);
        fields.push((column.name.as_str(), value, value.and_then(|value| shown(column, value))));
    }
    json_row(fields.iter().map(|(name, value, text)| match (value, text) {
        (None, _) => (*name, Value::Null),
        (_, Some(text)) => (*name, Value::Text(text)),
        (Some(value), None) => (*name, Value::Bytes(value)),
    }))
}

/// A field as text, as far as a person looks at it.
fn shown(column: &super::shape::Column, value: &[u8]) -> Option<String> {
    if value.len() > ORIGINAL_BYTES_MAX {
        return Some(format!("… {} bytes", value.len()));
    }
    let mut text = String::new();
    render(&column.native, value, &mut text).ok().map(|()| text)
}

struct Decoding<'a, F> {
    rows: &'a mut Rows,
    into: &'a mut F,
}

impl<F: FnMut(Decoded) -> Result<(), Problem>> Tuples for Decoding<'_, F> {
    type Error = Problem;
    fn tuple(&mut self, row: u64, bytes: &[u8]) -> Result<Step, Problem> {
        let (step, fault) = self.rows.push(row, bytes)?;
        if let (Step::Whole(length), Some((index, fault))) = (&step, fault) {
            let name = self.rows.shape.columns.get(index).map_or("", |column| column.name.as_str());
            let reason = format!("the column `{name}` {fault}");
            let original = original(&self.rows.shape, bytes.get(..*length).unwrap_or(&[]));
            (self.into)(Decoded::Bad(BadRow { row, reason, original }))?;
        }
        if self.rows.is_full() {
            (self.into)(Decoded::Batch(self.rows.batch()?))?;
        }
        Ok(step)
    }
    fn part(&mut self, row: u64, _: Part<'_>) -> Result<(), Problem> {
        Err(CopyError::Stream { what: "a tuple is larger than any that PostgreSQL makes", rows: row }.into())
    }
}

/// A longer value of a bad row is only named.
const ORIGINAL_BYTES_MAX: usize = 1 << 20;
