//! Columns of a batch that is being made: plain buffers, cut back where a row turns out not to fit.

use crate::digest::json::Canonicalizer;
use crate::pgcopy::digest::{boolean, held, json, not_json};
use crate::pgcopy::numeric::Numeric;
use crate::pgcopy::shape::{Column, Form};
use crate::pgcopy::{Fault, date, fixed, render, text, timestamp};
use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, NullBufferBuilder,
    StringArray, TimestampMicrosecondArray,
};
use arrow::buffer::{BooleanBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use std::sync::Arc;

pub(super) struct Building {
    nulls: NullBufferBuilder,
    values: Values,
}

/// What values are made in, kept from one to the next.
#[derive(Default)]
pub(super) struct Scratch {
    text: String,
    json: Vec<u8>,
    canonicalizer: Canonicalizer,
}

enum Values {
    Boolean(Vec<bool>),
    Integer(Vec<i64>),
    Decimal(Vec<i128>),
    Float(Vec<f64>),
    Date(Vec<i32>),
    /// The ends of the values, after a first 0, and their bytes.
    Bytes(Vec<i32>, Vec<u8>),
}

impl Building {
    pub(super) fn new(form: Form) -> Self {
        let values = match form {
            Form::Bool => Values::Boolean(Vec::new()),
            Form::Int2 | Form::Int4 | Form::Int8 | Form::Oid | Form::Timestamp => Values::Integer(Vec::new()),
            Form::Decimal { .. } => Values::Decimal(Vec::new()),
            Form::Float4 | Form::Float8 => Values::Float(Vec::new()),
            Form::Date => Values::Date(Vec::new()),
            _ => Values::Bytes(vec![0], Vec::new()),
        };
        Self { nulls: NullBufferBuilder::new(0), values }
    }

    /// Appends a NULL and says how many bytes it takes.
    pub(super) fn null(&mut self) -> usize {
        self.nulls.append_null();
        match &mut self.values {
            Values::Boolean(values) => put(values, false),
            Values::Integer(values) => put(values, 0),
            Values::Decimal(values) => put(values, 0),
            Values::Float(values) => put(values, 0.0),
            Values::Date(values) => put(values, 0),
            Values::Bytes(ends, values) => put_bytes(ends, values, &[]),
        }
    }

    /// Appends a value, or nothing where it does not fit, and says how many bytes it takes.
    pub(super) fn push(&mut self, column: &Column, value: &[u8], scratch: &mut Scratch) -> Result<usize, Fault> {
        let bytes = match (&mut self.values, column.form) {
            (Values::Boolean(values), _) => put(values, boolean(value)?),
            (Values::Integer(values), Form::Int2) => put(values, i16::from_be_bytes(fixed(value)?).into()),
            (Values::Integer(values), Form::Int4) => put(values, i32::from_be_bytes(fixed(value)?).into()),
            (Values::Integer(values), Form::Oid) => put(values, u32::from_be_bytes(fixed(value)?).into()),
            (Values::Integer(values), Form::Timestamp) => put(values, timestamp(i64::from_be_bytes(fixed(value)?))?),
            (Values::Integer(values), _) => put(values, i64::from_be_bytes(fixed(value)?)),
            (Values::Float(values), Form::Float4) => put(values, f32::from_be_bytes(fixed(value)?).into()),
            (Values::Float(values), _) => put(values, f64::from_be_bytes(fixed(value)?)),
            (Values::Date(values), _) => put(values, date(i32::from_be_bytes(fixed(value)?))?),
            (Values::Decimal(values), Form::Decimal { precision, scale }) => {
                let (unscaled, normal) = Numeric::parse(value)?.decimal(precision, scale)?;
                // The value was checked against the precision at this scale.
                let lift = u8::try_from(i32::from(scale) - i32::from(normal)).unwrap_or(0);
                put(values, unscaled * crate::batch::power_of_ten(if unscaled == 0 { 0 } else { lift }) as i128)
            }
            (Values::Decimal(_), _) => return Err("is no decimal".into()),
            (Values::Bytes(ends, values), form) => match form {
                Form::Bytes => put_bytes(ends, values, value),
                Form::Bpchar => put_bytes(ends, values, held(text(value)?)?.as_bytes()),
                Form::Json | Form::Jsonb => {
                    let text = held(json(form, value)?)?;
                    scratch.json.clear();
                    scratch.canonicalizer.write(text, &mut scratch.json).map_err(not_json)?;
                    put_bytes(ends, values, text.as_bytes())
                }
                Form::Number => {
                    scratch.text.clear();
                    Numeric::parse(value)?.canonical(&mut scratch.text)?;
                    put_bytes(ends, values, scratch.text.as_bytes())
                }
                Form::Rendered => {
                    scratch.text.clear();
                    render(&column.native, value, &mut scratch.text)?;
                    put_bytes(ends, values, scratch.text.as_bytes())
                }
                _ => put_bytes(ends, values, text(value)?.as_bytes()),
            },
        };
        self.nulls.append_non_null();
        Ok(bytes)
    }

    /// Keeps the first rows.
    pub(super) fn truncate(&mut self, rows: usize) {
        self.nulls.truncate(rows);
        match &mut self.values {
            Values::Boolean(values) => values.truncate(rows),
            Values::Integer(values) => values.truncate(rows),
            Values::Decimal(values) => values.truncate(rows),
            Values::Float(values) => values.truncate(rows),
            Values::Date(values) => values.truncate(rows),
            Values::Bytes(ends, values) => {
                ends.truncate(rows + 1);
                values.truncate(ends.last().map_or(0, |end| *end as usize));
            }
        }
    }

    /// The rows so far; nothing is left.
    pub(super) fn finish(&mut self, r#type: &DataType) -> Result<ArrayRef, ArrowError> {
        let nulls = self.nulls.finish();
        Ok(match &mut self.values {
            Values::Boolean(values) => Arc::new(BooleanArray::new(BooleanBuffer::from(std::mem::take(values)), nulls)),
            Values::Integer(values) => {
                let values = ScalarBuffer::from(std::mem::take(values));
                match r#type {
                    DataType::Timestamp(..) => {
                        Arc::new(TimestampMicrosecondArray::try_new(values, nulls)?.with_data_type(r#type.clone()))
                    }
                    _ => Arc::new(Int64Array::try_new(values, nulls)?),
                }
            }
            Values::Decimal(values) => {
                let values = ScalarBuffer::from(std::mem::take(values));
                Arc::new(Decimal128Array::try_new(values, nulls)?.with_data_type(r#type.clone()))
            }
            Values::Float(values) => {
                Arc::new(Float64Array::try_new(ScalarBuffer::from(std::mem::take(values)), nulls)?)
            }
            Values::Date(values) => Arc::new(Date32Array::try_new(ScalarBuffer::from(std::mem::take(values)), nulls)?),
            Values::Bytes(ends, values) => {
                let ends = ScalarBuffer::from(std::mem::replace(ends, vec![0]));
                let (ends, values) = (OffsetBuffer::new(ends), std::mem::take(values).into());
                match r#type {
                    DataType::Binary => Arc::new(BinaryArray::try_new(ends, values, nulls)?),
                    _ => Arc::new(StringArray::try_new(ends, values, nulls)?),
                }
            }
        })
    }
}

fn put<T>(values: &mut Vec<T>, value: T) -> usize {
    values.push(value);
    size_of::<T>()
}

fn put_bytes(ends: &mut Vec<i32>, values: &mut Vec<u8>, value: &[u8]) -> usize {
    // A batch ends at 8 MiB and a row has 1 GiB at most, so that the sum is within 31 bits.
    values.extend_from_slice(value);
    ends.push(values.len() as i32);
    4 + value.len()
}
