//! Rows of one contract, in order: how a contract looks as an Arrow schema, and a [`Batch`] whose
//! columns have been checked against it, so that nothing after this file meets a column of another
//! type, a NULL where none may be, or a decimal with too many digits.
//! [`stream`] writes and reads a split's bytes, [`builder`] makes batches from values.

pub mod builder;
pub mod stream;

pub use builder::BatchBuilder;
pub use stream::{BatchReader, BatchWriter};

use crate::number::Number;
use crate::problem::{Code, Problem};
use crate::schema::{Contract, ContractType};
use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use std::fmt::Write as _;
use std::sync::Arc;

/// The Arrow type that carries a contract type.
pub fn arrow_type(r#type: ContractType) -> DataType {
    match r#type {
        ContractType::Boolean => DataType::Boolean,
        ContractType::Integer => DataType::Int64,
        ContractType::Decimal { precision, scale } => DataType::Decimal128(precision, scale),
        ContractType::Float => DataType::Float64,
        ContractType::Text | ContractType::Char | ContractType::Json | ContractType::Number => DataType::Utf8,
        ContractType::Bytes => DataType::Binary,
        ContractType::Date => DataType::Date32,
        ContractType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
    }
}

/// The schema of every batch of a contract: its items in order, without metadata.
pub fn arrow_schema(contract: &Contract) -> SchemaRef {
    let field = |item: &crate::schema::Item| Field::new(&item.name, arrow_type(item.r#type), item.nullable);
    Arc::new(Schema::new(contract.items.iter().map(field).collect::<Vec<_>>()))
}

/// Whether rows of this contract can be carried at all: decimals within 38 digits, names unique, the key among the items.
pub fn check_contract(contract: &Contract) -> Result<(), BatchError> {
    let wrong = |what: String| Err(BatchError::Contract(what));
    if contract.items.is_empty() || contract.items.len() > crate::limits::COLUMNS_MAX {
        return wrong(format!("it has {} columns", contract.items.len()));
    }
    let mut names = std::collections::BTreeSet::new();
    for item in &contract.items {
        if !names.insert(item.name.as_str()) {
            return wrong(format!("the column `{}` stands in it twice", item.name));
        }
        if let ContractType::Decimal { precision, scale } = item.r#type
            && !(1..=DECIMAL_DIGITS_MAX).contains(&precision)
                | !(-(DECIMAL_DIGITS_MAX as i8)..=precision.min(DECIMAL_DIGITS_MAX) as i8).contains(&scale)
        {
            return wrong(format!("`{}` is a decimal of {precision} digits with scale {scale}", item.name));
        }
    }
    match contract.key.iter().find(|key| !names.contains(key.as_str())) {
        Some(key) => wrong(format!("the key column `{key}` is not among its columns")),
        None => Ok(()),
    }
}

/// Why rows were not accepted as a batch of their contract.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    #[error("the contract cannot be carried: {0}")]
    Contract(String),
    #[error("the column `{column}` {what}")]
    Column { column: String, what: String },
    #[error("the stream is not what a split is: {0}")]
    Stream(String),
    #[error("the stream cannot be read or written: {0}")]
    Io(#[from] std::io::Error),
    #[error("Arrow refused it: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
}

impl From<BatchError> for Problem {
    fn from(error: BatchError) -> Self {
        let code = match &error {
            BatchError::Contract(_) => Code::SchemaDrift,
            BatchError::Io(e) if e.kind() == std::io::ErrorKind::StorageFull => Code::DiskFull,
            BatchError::Io(_) => Code::StorageFailed,
            BatchError::Column { .. } | BatchError::Stream(_) | BatchError::Arrow(_) => Code::Mismatch,
        };
        let fact = match code {
            Code::SchemaDrift => ("table", "of the contract"),
            Code::Mismatch => ("peer", "the provider"),
            _ => ("path", "the split's file"),
        };
        Problem::new(code).with(fact.0, fact.1).cause(error)
    }
}

/// Rows that were checked against their contract.
#[derive(Debug, Clone)]
pub struct Batch {
    record: RecordBatch,
    columns: Vec<Column>,
    key: Vec<usize>,
}

/// A column by its contract type.
#[derive(Debug, Clone)]
pub enum Column {
    Boolean(BooleanArray),
    Integer(Int64Array),
    /// With its scale.
    Decimal(Decimal128Array, i8),
    Float(Float64Array),
    Text(StringArray),
    Char(StringArray),
    Bytes(BinaryArray),
    Date(Date32Array),
    Timestamp(TimestampMicrosecondArray),
    Json(StringArray),
    Number(StringArray),
}

/// One value of a row, borrowed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    Null,
    Boolean(bool),
    Integer(i64),
    /// Unscaled, with its scale.
    Decimal(i128, i8),
    Float(f64),
    Text(&'a str),
    Bytes(&'a [u8]),
    Date(i32),
    Timestamp(i64),
    /// In the one form that [`crate::number`] describes.
    Number(&'a str),
}

impl Batch {
    pub fn new(contract: &Contract, record: RecordBatch) -> Result<Self, BatchError> {
        if record.num_columns() != contract.items.len() {
            let what = format!("{} columns where the contract has {}", record.num_columns(), contract.items.len());
            return Err(BatchError::Contract(what));
        }
        let mut columns = Vec::with_capacity(contract.items.len());
        for (item, array) in contract.items.iter().zip(record.columns()) {
            let wrong = |what: String| BatchError::Column { column: item.name.clone(), what };
            let column = Column::new(item.r#type, array)
                .ok_or_else(|| wrong(format!("has the type {} in the batch", array.data_type())))?;
            if !item.nullable && array.null_count() > 0 {
                return Err(wrong("has a NULL where the contract allows none".to_owned()));
            }
            if let (Column::Decimal(values, _), ContractType::Decimal { precision, .. }) = (&column, item.r#type) {
                let bound = power_of_ten(precision);
                let too_long = |value: Option<i128>| value.is_some_and(|value| value.unsigned_abs() >= bound);
                if values.iter().any(too_long) {
                    return Err(wrong(format!("has a value of more than {precision} digits")));
                }
            }
            if let Column::Number(values) = &column
                && !values.iter().flatten().all(|text| Number::parse(text).is_some())
            {
                return Err(wrong("has text that is no number in its one form".to_owned()));
            }
            columns.push(column);
        }
        Ok(Self { record, columns, key: contract.key_positions() })
    }
    pub fn rows(&self) -> usize {
        self.record.num_rows()
    }
    pub fn record(&self) -> &RecordBatch {
        &self.record
    }
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }
    /// Positions of the key's columns; empty where there is none.
    pub fn key(&self) -> &[usize] {
        &self.key
    }
    /// NULL for a place outside of the batch.
    pub fn value(&self, column: usize, row: usize) -> Value<'_> {
        match self.columns.get(column) {
            Some(column) if row < self.rows() => column.value(row),
            _ => Value::Null,
        }
    }
    /// The row's key for people and for comparing two tables of one contract: equal keys give equal text and no
    /// others do. Parts of a composite key are joined by `,`; a `,` or `\` within a part stands behind a `\`.
    pub fn key_text(&self, row: usize) -> String {
        let mut out = String::new();
        for (index, column) in self.key.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            let trimmed = matches!(self.columns.get(*column), Some(Column::Char(_)));
            let part = self.value(*column, row).normal().to_string();
            let part = if trimmed { part.trim_end_matches(' ') } else { part.as_str() };
            match self.key.len() {
                1 => out.push_str(part),
                _ => part.chars().for_each(|c| {
                    if matches!(c, ',' | '\\') {
                        out.push('\\');
                    }
                    out.push(c);
                }),
            }
        }
        out
    }
    /// The row as a JSON object in column order, for quarantine and for people.
    pub fn json(&self, row: usize) -> String {
        let schema = self.record.schema();
        let names = schema.fields().iter().map(|field| field.name().as_str());
        json_row(names.zip((0..self.columns.len()).map(|column| self.value(column, row))))
    }
}

/// A row as a JSON object: numbers exact, bytes as `{"hex": "…"}`, dates and times as text.
pub fn json_row<'a>(values: impl Iterator<Item = (&'a str, Value<'a>)>) -> String {
    let mut out = String::from("{");
    for (index, (name, value)) in values.enumerate() {
        if index > 0 {
            out.push(',');
        }
        json_text(name, &mut out);
        out.push(':');
        match value {
            Value::Null => out.push_str("null"),
            Value::Boolean(_) | Value::Integer(_) | Value::Decimal(..) => {
                let _ = write!(out, "{value}");
            }
            Value::Float(number) if number.is_finite() => {
                let _ = write!(out, "{number:?}");
            }
            Value::Number(text) if matches!(Number::parse(text), Some(Number::Finite(_))) => out.push_str(text),
            Value::Bytes(bytes) => {
                out.push_str("{\"hex\":\"");
                out.push_str(&hex::encode(bytes));
                out.push_str("\"}");
            }
            Value::Text(text) | Value::Number(text) => json_text(text, &mut out),
            Value::Float(_) | Value::Date(_) | Value::Timestamp(_) => json_text(&value.to_string(), &mut out),
        }
    }
    out.push('}');
    out
}

fn json_text(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::String(text.to_owned()).to_string());
}

impl Column {
    pub(crate) fn new(r#type: ContractType, array: &ArrayRef) -> Option<Self> {
        fn of<T: Array + Clone + 'static>(array: &ArrayRef) -> Option<T> {
            array.as_any().downcast_ref::<T>().cloned()
        }
        if *array.data_type() != arrow_type(r#type) {
            return None;
        }
        Some(match r#type {
            ContractType::Boolean => Self::Boolean(of(array)?),
            ContractType::Integer => Self::Integer(of(array)?),
            ContractType::Decimal { scale, .. } => Self::Decimal(of(array)?, scale),
            ContractType::Float => Self::Float(of(array)?),
            ContractType::Text => Self::Text(of(array)?),
            ContractType::Char => Self::Char(of(array)?),
            ContractType::Bytes => Self::Bytes(of(array)?),
            ContractType::Date => Self::Date(of(array)?),
            ContractType::Timestamp => Self::Timestamp(of(array)?),
            ContractType::Json => Self::Json(of(array)?),
            ContractType::Number => Self::Number(of(array)?),
        })
    }
    /// The value at a row below the column's length.
    pub fn value(&self, row: usize) -> Value<'_> {
        macro_rules! at {
            ($array:expr, $value:expr) => {
                if $array.is_null(row) { Value::Null } else { $value($array.value(row)) }
            };
        }
        match self {
            Self::Boolean(array) => at!(array, Value::Boolean),
            Self::Integer(array) => at!(array, Value::Integer),
            Self::Decimal(array, scale) => at!(array, |unscaled| Value::Decimal(unscaled, *scale)),
            Self::Float(array) => at!(array, Value::Float),
            Self::Text(array) | Self::Char(array) | Self::Json(array) => at!(array, Value::Text),
            Self::Bytes(array) => at!(array, Value::Bytes),
            Self::Date(array) => at!(array, Value::Date),
            Self::Timestamp(array) => at!(array, Value::Timestamp),
            Self::Number(array) => at!(array, Value::Number),
        }
    }
}

impl Value<'_> {
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }
    /// Decimals without trailing zeros, floats with one zero and one NaN: equal values become identical.
    pub fn normal(self) -> Self {
        match self {
            Self::Decimal(unscaled, scale) => {
                let (unscaled, scale) = normal_decimal(unscaled, scale);
                Self::Decimal(unscaled, scale)
            }
            Self::Float(number) => Self::Float(normal_float(number)),
            other => other,
        }
    }
}

impl std::fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Null => f.write_str("NULL"),
            Self::Boolean(value) => write!(f, "{value}"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Decimal(unscaled, scale) => write_decimal(f, *unscaled, *scale),
            Self::Float(value) => write!(f, "{value:?}"),
            Self::Text(value) | Self::Number(value) => f.write_str(value),
            Self::Bytes(value) => f.write_str(&hex::encode(value)),
            Self::Date(days) => match date_of(*days) {
                Some(date) => write!(f, "{date}"),
                None => write!(f, "{days} d"),
            },
            Self::Timestamp(us) => match jiff::Timestamp::from_microsecond(*us) {
                Ok(time) => write!(f, "{time}"),
                Err(_) => write!(f, "{us} µs"),
            },
        }
    }
}

/// The civil date of a number of days since 1970-01-01; none outside of the years −9999 to 9999.
pub fn date_of(days: i32) -> Option<jiff::civil::Date> {
    let epoch = jiff::civil::date(1970, 1, 1);
    epoch.checked_add(jiff::Span::new().try_days(i64::from(days)).ok()?).ok()
}

/// Days since 1970-01-01.
pub fn days_of(date: jiff::civil::Date) -> i32 {
    let epoch = jiff::civil::date(1970, 1, 1);
    epoch.until(date).map_or(0, |span| span.get_days())
}

/// The same number without trailing zeros; zero has scale 0.
pub fn normal_decimal(mut unscaled: i128, mut scale: i8) -> (i128, i8) {
    if unscaled == 0 {
        return (0, 0);
    }
    while unscaled % 10 == 0 && scale > i8::MIN {
        unscaled /= 10;
        scale -= 1;
    }
    (unscaled, scale)
}

/// −0 becomes 0 and every NaN the same one.
pub fn normal_float(number: f64) -> f64 {
    if number.is_nan() {
        f64::from_bits(0x7ff8_0000_0000_0000)
    } else if number == 0.0 {
        0.0
    } else {
        number
    }
}

fn write_decimal(f: &mut std::fmt::Formatter<'_>, unscaled: i128, scale: i8) -> std::fmt::Result {
    let sign = if unscaled < 0 { "-" } else { "" };
    let digits = unscaled.unsigned_abs().to_string();
    let places = usize::from(scale.unsigned_abs());
    if scale <= 0 {
        let zeros = if unscaled == 0 { 0 } else { places };
        return write!(f, "{sign}{digits}{:0<zeros$}", "");
    }
    match digits.len().checked_sub(places) {
        Some(whole) if whole > 0 => write!(f, "{sign}{}.{}", &digits[..whole], &digits[whole..]),
        _ => write!(f, "{sign}0.{digits:0>places$}"),
    }
}

/// 10 to the power of at most 38.
pub fn power_of_ten(exponent: u8) -> u128 {
    POWERS_OF_TEN[usize::from(exponent.min(DECIMAL_DIGITS_MAX))]
}

const POWERS_OF_TEN: [u128; DECIMAL_DIGITS_MAX as usize + 1] = {
    let mut powers = [1; DECIMAL_DIGITS_MAX as usize + 1];
    let mut exponent = 1;
    while exponent < powers.len() {
        powers[exponent] = powers[exponent - 1] * 10;
        exponent += 1;
    }
    powers
};

/// Digits that a 128-bit decimal carries exactly.
pub const DECIMAL_DIGITS_MAX: u8 = 38;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_written_exactly() {
        for (unscaled, scale, text) in
            [(1250, 2, "12.50"), (-5, 3, "-0.005"), (0, 2, "0.00"), (12, -3, "12000"), (0, -3, "0"), (-7, 0, "-7")]
        {
            assert_eq!(Value::Decimal(unscaled, scale).to_string(), text);
        }
        assert_eq!(normal_decimal(1_200, 2), (12, 0));
        assert_eq!(normal_decimal(1_200, 0), (12, -2));
    }

    #[test]
    fn days_and_dates_agree_over_the_whole_calendar() {
        for days in [-4_371_222, -719_162, -1, 0, 1, 11_016, 19_000, 2_932_896] {
            assert_eq!(date_of(days).map(days_of), Some(days), "{days}");
        }
        assert_eq!(date_of(i32::MAX), None);
    }

    #[test]
    fn parts_of_a_key_cannot_be_mistaken_for_each_other() {
        let contract = Contract {
            items: ["a", "b"].map(|name| item(name, ContractType::Text)).to_vec(),
            key: vec!["a".to_owned(), "b".to_owned()],
        };
        let mut builder = BatchBuilder::new(&contract);
        builder.push(&[Value::Text("x,y"), Value::Text("z")]).unwrap();
        builder.push(&[Value::Text("x"), Value::Text("y,z")]).unwrap();
        let batch = Batch::new(&contract, builder.finish().unwrap()).unwrap();
        assert_eq!([batch.key_text(0), batch.key_text(1)], ["x\\,y,z", "x,y\\,z"]);
        assert_eq!(batch.json(0), r#"{"a":"x,y","b":"z"}"#);
    }

    #[test]
    fn a_null_in_a_column_without_nulls_is_no_batch() {
        let nullable = Contract { items: vec![item("a", ContractType::Integer)], key: vec![] };
        let mut strict = nullable.clone();
        strict.items[0].nullable = false;
        let mut builder = BatchBuilder::new(&nullable);
        builder.push(&[Value::Null]).unwrap();
        let record = builder.finish().unwrap();
        assert!(Batch::new(&nullable, record.clone()).is_ok());
        assert!(matches!(Batch::new(&strict, record), Err(BatchError::Column { .. })));
    }

    fn item(name: &str, r#type: ContractType) -> crate::schema::Item {
        crate::schema::Item { name: name.to_owned(), r#type, nullable: true, comment: None }
    }
}
