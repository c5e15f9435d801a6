//! Makes batches of one contract from values, row by row. The same rows always give the same
//! batches: a batch ends after `BATCH_ROWS` rows or where it would exceed `BATCH_BYTES`.
//! A row is checked as a whole before any of it is taken.

use super::{BatchError, Value, arrow_schema, power_of_ten};
use crate::limits::{BATCH_BYTES, BATCH_ROWS};
use crate::number::Number;
use crate::schema::{Contract, ContractType};
use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float64Builder, Int64Builder,
    StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use std::sync::Arc;

/// Collects rows of one contract.
pub struct BatchBuilder {
    schema: SchemaRef,
    columns: Vec<Building>,
    rows: usize,
    bytes: usize,
}

struct Building {
    name: String,
    nullable: bool,
    r#type: ContractType,
    values: Values,
}

enum Values {
    Boolean(BooleanBuilder),
    Integer(Int64Builder),
    Decimal(Decimal128Builder),
    Float(Float64Builder),
    Text(StringBuilder),
    Bytes(BinaryBuilder),
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
}

impl BatchBuilder {
    pub fn new(contract: &Contract) -> Self {
        let columns = contract.items.iter().map(|item| Building {
            name: item.name.clone(),
            nullable: item.nullable,
            r#type: item.r#type,
            values: Values::new(item.r#type),
        });
        Self { schema: arrow_schema(contract), columns: columns.collect(), rows: 0, bytes: 0 }
    }
    pub fn rows(&self) -> usize {
        self.rows
    }
    /// Whether the batch should end here.
    pub fn is_full(&self) -> bool {
        self.rows >= BATCH_ROWS || self.bytes >= BATCH_BYTES
    }
    /// Takes one row, or none of it where a value does not fit its column.
    pub fn push(&mut self, row: &[Value<'_>]) -> Result<(), BatchError> {
        if row.len() != self.columns.len() {
            return Err(BatchError::Contract(format!("a row has {} values", row.len())));
        }
        for (column, value) in self.columns.iter().zip(row) {
            column.check(value)?;
        }
        for (column, value) in self.columns.iter_mut().zip(row) {
            self.bytes += column.values.append(value);
        }
        self.rows += 1;
        Ok(())
    }
    /// The rows so far; the builder is empty afterwards.
    pub fn finish(&mut self) -> Result<RecordBatch, BatchError> {
        let arrays = self.columns.iter_mut().map(|column| column.values.finish()).collect();
        (self.rows, self.bytes) = (0, 0);
        Ok(RecordBatch::try_new(self.schema.clone(), arrays)?)
    }
}

impl Building {
    fn check(&self, value: &Value<'_>) -> Result<(), BatchError> {
        let fits = match (value, self.r#type) {
            (Value::Null, _) => self.nullable,
            (Value::Decimal(unscaled, scale), ContractType::Decimal { precision, scale: declared }) => {
                *scale == declared && unscaled.unsigned_abs() < power_of_ten(precision)
            }
            (Value::Boolean(_), ContractType::Boolean)
            | (Value::Integer(_), ContractType::Integer)
            | (Value::Float(_), ContractType::Float)
            | (Value::Text(_), ContractType::Text | ContractType::Char | ContractType::Json)
            | (Value::Bytes(_), ContractType::Bytes)
            | (Value::Date(_), ContractType::Date)
            | (Value::Timestamp(_), ContractType::Timestamp) => true,
            (Value::Number(text), ContractType::Number) => Number::parse(text).is_some(),
            _ => false,
        };
        if fits {
            return Ok(());
        }
        let what = format!("is {:?} and cannot hold {value}", self.r#type);
        Err(BatchError::Column { column: self.name.clone(), what })
    }
}

impl Values {
    fn new(r#type: ContractType) -> Self {
        match r#type {
            ContractType::Boolean => Self::Boolean(BooleanBuilder::new()),
            ContractType::Integer => Self::Integer(Int64Builder::new()),
            ContractType::Decimal { .. } => {
                Self::Decimal(Decimal128Builder::new().with_data_type(super::arrow_type(r#type)))
            }
            ContractType::Float => Self::Float(Float64Builder::new()),
            ContractType::Text | ContractType::Char | ContractType::Json | ContractType::Number => {
                Self::Text(StringBuilder::new())
            }
            ContractType::Bytes => Self::Bytes(BinaryBuilder::new()),
            ContractType::Date => Self::Date(Date32Builder::new()),
            ContractType::Timestamp => {
                Self::Timestamp(TimestampMicrosecondBuilder::new().with_data_type(super::arrow_type(r#type)))
            }
        }
    }
    /// Appends a checked value and says how many bytes it takes.
    fn append(&mut self, value: &Value<'_>) -> usize {
        macro_rules! put {
            ($builder:expr, $variant:ident, $bytes:expr) => {
                match value {
                    Value::$variant(value) => {
                        $builder.append_value(*value);
                        $bytes
                    }
                    _ => {
                        $builder.append_null();
                        $bytes
                    }
                }
            };
        }
        match self {
            Self::Boolean(builder) => put!(builder, Boolean, 1),
            Self::Integer(builder) => put!(builder, Integer, 8),
            Self::Float(builder) => put!(builder, Float, 8),
            Self::Date(builder) => put!(builder, Date, 4),
            Self::Timestamp(builder) => put!(builder, Timestamp, 8),
            Self::Decimal(builder) => match value {
                Value::Decimal(unscaled, _) => {
                    builder.append_value(*unscaled);
                    16
                }
                _ => {
                    builder.append_null();
                    16
                }
            },
            Self::Text(builder) => match value {
                Value::Text(text) | Value::Number(text) => {
                    builder.append_value(text);
                    4 + text.len()
                }
                _ => {
                    builder.append_null();
                    4
                }
            },
            Self::Bytes(builder) => match value {
                Value::Bytes(bytes) => {
                    builder.append_value(bytes);
                    4 + bytes.len()
                }
                _ => {
                    builder.append_null();
                    4
                }
            },
        }
    }
    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Boolean(builder) => Arc::new(builder.finish()),
            Self::Integer(builder) => Arc::new(builder.finish()),
            Self::Decimal(builder) => Arc::new(builder.finish()),
            Self::Float(builder) => Arc::new(builder.finish()),
            Self::Text(builder) => Arc::new(builder.finish()),
            Self::Bytes(builder) => Arc::new(builder.finish()),
            Self::Date(builder) => Arc::new(builder.finish()),
            Self::Timestamp(builder) => Arc::new(builder.finish()),
        }
    }
}
