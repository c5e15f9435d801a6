//! Rows as the server gives them, as rows of the contract. What a value of the engine is not, exactly, makes its row a
//! bad row with the value as it stands there: half of a character, a time finer than µs, a text that is no JSON.

use super::calendar;
use super::codepage::read_utf16;
use super::kind::Kind;
use super::name::quote;
use crate::types::{self, Window};
use crate::{BadRow, Sink};
use posthouse_protocol::batch::{BatchBuilder, Value, json_row, power_of_ten};
use posthouse_protocol::filter::Filter;
use posthouse_protocol::manifest::SplitCounts;
use posthouse_protocol::number::Number;
use posthouse_protocol::problem::Problem;
use posthouse_protocol::schema::{Contract, ContractType};
use std::fmt::Write as _;
use tiberius::{ColumnData, Row};

/// A column that is read, and as what.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) r#type: ContractType,
}

/// Turns rows into batches and bad rows.
pub(super) struct RowReader {
    /// The contract's first, then what only filter and watermark need.
    columns: Vec<Wanted>,
    names: Vec<String>,
    contract: Contract,
    key: Vec<usize>,
    watermark: Option<usize>,
    window: Window,
    filter: Option<Filter>,
    builder: BatchBuilder,
    counts: SplitCounts,
    /// Of the row at hand.
    cells: Vec<Cell>,
    texts: Vec<String>,
    canonical: Vec<u8>,
    /// The memory of the last row's values.
    spare: Vec<Value<'static>>,
}

/// A value of the row at hand. Text stands beside it, bytes in the server's row.
#[derive(Debug, Clone, Copy)]
enum Cell {
    Null,
    Boolean(bool),
    Integer(i64),
    Decimal(i128, i8),
    Float(f64),
    Text,
    Number,
    Bytes,
    Date(i32),
    Timestamp(i64),
}

/// What is shown of a value that is not what its column means, and why it is not.
type Bad = (Cell, &'static str);

impl RowReader {
    pub(super) fn new(
        columns: Vec<Wanted>,
        contract: &Contract,
        watermark: Option<usize>,
        window: Window,
        filter: Option<Filter>,
    ) -> Self {
        let names: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
        let width = columns.len();
        Self {
            columns,
            names,
            contract: contract.clone(),
            key: contract.key_positions(),
            watermark,
            window,
            filter,
            builder: BatchBuilder::new(contract),
            counts: SplitCounts::default(),
            cells: vec![Cell::Null; width],
            texts: vec![String::new(); width],
            canonical: Vec::new(),
            spare: Vec::with_capacity(width),
        }
    }

    /// All rows of a table that has the contract's columns.
    pub(super) fn of_all(columns: Vec<Wanted>, contract: &Contract) -> Self {
        Self::new(columns, contract, None, Window::default(), None)
    }

    /// What is asked for, of the table `t`.
    pub(super) fn select(&self) -> String {
        let column = |column: &Wanted| column.kind.select(&format!("t.{}", quote(&column.name)));
        self.columns.iter().map(column).collect::<Vec<_>>().join(", ")
    }

    pub(super) fn row(&mut self, row: &Row, sink: &mut dyn Sink) -> Result<(), Problem> {
        let bad = self.take(row);
        let Self {
            columns, names, contract, key, watermark, window, filter, builder, counts, cells, texts, spare, ..
        } = self;
        let mut values: Vec<Value<'_>> = types::recycle(std::mem::take(spare));
        values.extend(cells.iter().zip(texts.iter()).enumerate().map(|(at, (cell, text))| value(*cell, text, row, at)));
        let is_outside = match (*watermark, bad) {
            // Where the mark itself is bad, nothing tells that the row is outside.
            (Some(mark), Some((index, _))) if mark == index => false,
            (Some(mark), _) => values.get(mark).is_some_and(|value| !window.holds(value)),
            (None, _) => false,
        };
        if !is_outside {
            counts.read += 1;
            if let Some((index, why)) = bad {
                counts.quarantined += 1;
                let name = columns.get(index).map_or("", |column| column.name.as_str());
                let key = key_text(key, &values).unwrap_or_else(|| format!("row {}", counts.read));
                let original = json_row(names.iter().map(String::as_str).zip(values.iter().copied()));
                sink.bad_row(BadRow { key, reason: format!("`{name}`: {why}"), original })?;
            } else if let Some(filter) = filter
                && !types::passes(filter, names, &values)?
            {
                counts.filtered += 1;
            } else {
                builder.push(values.get(..contract.items.len()).unwrap_or(&[]))?;
                counts.sent += 1;
                if builder.is_full() {
                    sink.batch(builder.finish()?)?;
                }
            }
        }
        *spare = types::recycle(values);
        Ok(())
    }

    /// The rest, and what became of all rows.
    pub(super) fn finish(&mut self, sink: &mut dyn Sink) -> Result<SplitCounts, Problem> {
        if self.builder.rows() > 0 {
            sink.batch(self.builder.finish()?)?;
        }
        Ok(std::mem::take(&mut self.counts))
    }

    /// Key and original of one row, for people.
    pub(super) fn describe(&mut self, row: &Row) -> (Option<String>, String) {
        // A value that cannot be read is shown as it is.
        let _ = self.take(row);
        let cells = self.cells.iter().zip(&self.texts).enumerate();
        let values: Vec<Value<'_>> = cells.map(|(at, (cell, text))| value(*cell, text, row, at)).collect();
        let original = json_row(self.names.iter().map(String::as_str).zip(values.iter().copied()));
        (key_text(&self.key, &values), original)
    }

    /// Reads all values of a row; the first that is bad, by its place.
    fn take(&mut self, row: &Row) -> Option<(usize, &'static str)> {
        let mut bad = None;
        for (index, wanted) in self.columns.iter().enumerate() {
            let (Some(cell), Some(text)) = (self.cells.get_mut(index), self.texts.get_mut(index)) else { continue };
            text.clear();
            let read = match row.get_column_data(index) {
                Ok(data) => read(data, wanted, text, &mut self.canonical),
                Err(_) => Err((Cell::Null, "the server left it out")),
            };
            *cell = read.unwrap_or_else(|(shown, why)| {
                bad.get_or_insert((index, why));
                shown
            });
            let forbids_null = self.contract.items.get(index).is_some_and(|item| !item.nullable);
            if forbids_null && matches!(cell, Cell::Null) {
                bad.get_or_insert((index, "it is NULL where none may be"));
            }
        }
        bad
    }
}

/// As `Batch::key_text` writes a key; none where there is none.
fn key_text(key: &[usize], values: &[Value<'_>]) -> Option<String> {
    let part = |position: &usize| values.get(*position).map_or_else(String::new, |value| value.normal().to_string());
    match key {
        [] => None,
        [only] => Some(part(only)),
        parts => {
            let escaped = parts.iter().map(|at| part(at).replace('\\', "\\\\").replace(',', "\\,"));
            Some(escaped.collect::<Vec<_>>().join(","))
        }
    }
}

fn value<'a>(cell: Cell, text: &'a str, row: &'a Row, at: usize) -> Value<'a> {
    match cell {
        Cell::Null => Value::Null,
        Cell::Boolean(value) => Value::Boolean(value),
        Cell::Integer(value) => Value::Integer(value),
        Cell::Decimal(unscaled, scale) => Value::Decimal(unscaled, scale),
        Cell::Float(value) => Value::Float(value),
        Cell::Text => Value::Text(text),
        Cell::Number => Value::Number(text),
        Cell::Bytes => Value::Bytes(super::client::bytes(row, at).unwrap_or_default()),
        Cell::Date(days) => Value::Date(days),
        Cell::Timestamp(us) => Value::Timestamp(us),
    }
}

/// One value as its contract type. `text` takes what is text of it.
fn read(data: &ColumnData<'static>, wanted: &Wanted, text: &mut String, canonical: &mut Vec<u8>) -> Result<Cell, Bad> {
    let found = plain(data, wanted.kind, text)?;
    match (found, wanted.r#type) {
        (Cell::Null, _)
        | (Cell::Boolean(_), ContractType::Boolean)
        | (Cell::Integer(_), ContractType::Integer)
        | (Cell::Float(_), ContractType::Float)
        | (Cell::Text, ContractType::Text | ContractType::Char)
        | (Cell::Bytes, ContractType::Bytes)
        | (Cell::Date(_), ContractType::Date)
        | (Cell::Timestamp(_), ContractType::Timestamp) => Ok(found),
        (Cell::Decimal(unscaled, from), ContractType::Decimal { precision, scale }) => {
            match rescale(unscaled, from, precision, scale) {
                Some(unscaled) => Ok(Cell::Decimal(unscaled, scale)),
                None => Err((found, "it has more digits than are declared")),
            }
        }
        (Cell::Decimal(unscaled, from), ContractType::Integer) => {
            let whole = rescale(unscaled, from, 38, 0).and_then(|whole| i64::try_from(whole).ok());
            whole.map(Cell::Integer).ok_or((found, "it is not a whole number of 64 bits"))
        }
        (Cell::Text, ContractType::Json) => {
            canonical.clear();
            // What has no canonical form has no digest either.
            match posthouse_protocol::digest::json::canonical(text, canonical) {
                Ok(_) => Ok(Cell::Text),
                Err(_) => Err((Cell::Text, "it is not JSON with one meaning")),
            }
        }
        (Cell::Text, ContractType::Number) => match Number::parse(text) {
            Some(_) => Ok(Cell::Number),
            None => Err((Cell::Text, "it is not a number in its one form, as `-12.5`")),
        },
        (found, _) => Err((found, "it is of another type than its column")),
    }
}

/// One value as its column's own type has it.
fn plain(data: &ColumnData<'static>, kind: Kind, text: &mut String) -> Result<Cell, Bad> {
    let finer = |text: &mut String, value| {
        calendar::write_datetime2(value, text);
        (Cell::Text, "it is finer than a microsecond")
    };
    Ok(match data {
        ColumnData::Bit(Some(value)) => Cell::Boolean(*value),
        ColumnData::U8(Some(value)) => Cell::Integer(i64::from(*value)),
        ColumnData::I16(Some(value)) => Cell::Integer(i64::from(*value)),
        ColumnData::I32(Some(value)) => Cell::Integer(i64::from(*value)),
        ColumnData::I64(Some(value)) => Cell::Integer(*value),
        ColumnData::Numeric(Some(value)) => Cell::Decimal(value.value(), value.scale() as i8),
        ColumnData::F32(Some(value)) => Cell::Float(f64::from(*value)),
        ColumnData::F64(Some(value)) => Cell::Float(*value),
        ColumnData::Guid(Some(value)) => {
            let _ = write!(text, "{value}");
            Cell::Text
        }
        ColumnData::Date(Some(value)) => Cell::Date(calendar::days(*value)),
        ColumnData::Time(Some(value)) => {
            calendar::write_time(*value, text);
            Cell::Text
        }
        ColumnData::DateTime2(Some(value)) => match calendar::us_of_datetime2(*value) {
            Some(us) => Cell::Timestamp(us),
            None => return Err(finer(text, *value)),
        },
        ColumnData::DateTimeOffset(Some(value)) => match calendar::us_of_offset(*value) {
            Some(us) => Cell::Timestamp(us),
            None => return Err(finer(text, value.datetime2())),
        },
        ColumnData::DateTime(Some(value)) => match calendar::us_of_datetime(*value) {
            Some(us) => Cell::Timestamp(us),
            None => return Err((Cell::Null, "it is no time")),
        },
        ColumnData::SmallDateTime(Some(value)) => Cell::Timestamp(calendar::us_of_small(*value)),
        ColumnData::Binary(Some(bytes)) => return characters(bytes, kind, text),
        ColumnData::String(Some(found)) => {
            text.push_str(found);
            Cell::Text
        }
        ColumnData::Xml(Some(_)) => return Err((Cell::Null, "it came in a form that was not asked for")),
        _ => Cell::Null,
    })
}

/// Bytes, or the text that they are.
fn characters(bytes: &[u8], kind: Kind, text: &mut String) -> Result<Cell, Bad> {
    let is_whole = match kind {
        Kind::NChar(_) | Kind::NVarChar(_) | Kind::NText | Kind::Xml => read_utf16(bytes, text),
        kind => match kind.page() {
            None => return Ok(Cell::Bytes),
            Some(page) => match page.decode(bytes) {
                Some(decoded) => {
                    text.push_str(&decoded);
                    true
                }
                None => false,
            },
        },
    };
    match is_whole {
        true => Ok(Cell::Text),
        false => Err((Cell::Bytes, "it has bytes that are no characters of its column")),
    }
}

/// The same number with another scale, where it has no other digits and fits.
pub(super) fn rescale(unscaled: i128, from: i8, precision: u8, to: i8) -> Option<i128> {
    let shift = i16::from(to) - i16::from(from);
    let power = i128::try_from(power_of_ten(u8::try_from(shift.unsigned_abs()).ok().filter(|by| *by <= 38)?)).ok()?;
    let value = match shift >= 0 {
        true => unscaled.checked_mul(power)?,
        false if unscaled % power == 0 => unscaled / power,
        false => return None,
    };
    (value.unsigned_abs() < power_of_ten(precision)).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{Rows, item};
    use posthouse_protocol::batch::Batch;
    use tiberius::numeric::Numeric;
    use tiberius::{ColumnType, Uuid};

    fn wanted(name: &str, kind: Kind) -> Wanted {
        Wanted { name: name.to_owned(), kind, r#type: kind.contract_type(None) }
    }

    /// One row of columns with these kinds.
    fn read_row(cells: Vec<(Kind, ColumnData<'static>)>) -> (Contract, Rows) {
        let columns: Vec<Wanted> =
            cells.iter().enumerate().map(|(at, (kind, _))| wanted(&format!("c{at}"), *kind)).collect();
        let items = columns.iter().map(|column| item(&column.name, column.r#type)).collect();
        let contract = Contract { items, key: vec![] };
        let mut row = Row::builder();
        for (_, data) in cells {
            row = row.column("c", ColumnType::Null, data);
        }
        let (mut reader, mut rows) = (RowReader::of_all(columns, &contract), Rows::default());
        reader.row(&row.build(), &mut rows).unwrap();
        reader.finish(&mut rows).unwrap();
        (contract, rows)
    }

    fn utf16(text: &str) -> ColumnData<'static> {
        ColumnData::Binary(Some(text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>().into()))
    }

    #[test]
    fn values_are_what_their_columns_mean() {
        let (contract, rows) = read_row(vec![
            (Kind::Money, ColumnData::Numeric(Some(Numeric::new_with_scale(9_223_372_036_854_775_807, 4)))),
            (Kind::NVarChar(None), utf16("驿站 𠮷")),
            (Kind::Guid, ColumnData::Guid(Some(Uuid::from_u128(0xABCD)))),
            (Kind::Bit, ColumnData::Bit(None)),
            (Kind::RowVersion, ColumnData::I64(Some(2_001))),
        ]);
        assert_eq!(rows.bad, vec![]);
        let batch = Batch::new(&contract, rows.batches[0].clone()).unwrap();
        assert_eq!(
            batch.json(0),
            "{\"c0\":922337203685477.5807,\"c1\":\"驿站 𠮷\",\"c2\":\"00000000-0000-0000-0000-00000000abcd\",\"c3\":null,\
             \"c4\":2001}"
        );
    }

    #[test]
    fn what_is_no_character_is_a_bad_row_with_its_bytes() {
        let half = ColumnData::Binary(Some(vec![0x42, 0xd8].into()));
        let (_, rows) = read_row(vec![(Kind::BigInt, ColumnData::I64(Some(7))), (Kind::NVarChar(Some(9)), half)]);
        assert_eq!(rows.count(), 0);
        assert!(
            rows.bad[0].reason.starts_with("`c1`: ") && rows.bad[0].original == "{\"c0\":7,\"c1\":{\"hex\":\"42d8\"}}"
        );
        let gbk = super::super::codepage::Page::of(936).unwrap();
        let cut = ColumnData::Binary(Some(vec![b'a', 0xd6].into()));
        let (_, rows) = read_row(vec![(Kind::VarChar(Some(2), gbk), cut)]);
        assert!(rows.bad[0].original.contains("61d6"), "{:?}", rows.bad);
    }

    #[test]
    fn a_hundred_nanoseconds_make_a_bad_row_that_shows_them() {
        use tiberius::time::{Date, DateTime2, Time};
        let fine = DateTime2::new(Date::new(730_119), Time::new(1, 7));
        let (_, rows) = read_row(vec![(Kind::DateTime2(7), ColumnData::DateTime2(Some(fine)))]);
        assert!(rows.bad[0].original.contains("00:00:00.0000001"), "{:?}", rows.bad);
        let even = DateTime2::new(Date::new(730_119), Time::new(10, 7));
        let (_, rows) = read_row(vec![(Kind::DateTime2(7), ColumnData::DateTime2(Some(even)))]);
        assert_eq!((rows.count(), rows.bad.len()), (1, 0));
    }

    #[test]
    fn a_scale_changes_and_no_digit_does() {
        assert_eq!(rescale(1_250, 2, 10, 4), Some(125_000));
        assert_eq!(rescale(1_250, 2, 10, 1), Some(125));
        assert_eq!(rescale(1_255, 2, 10, 1), None);
        assert_eq!(rescale(-12_000, 0, 3, -3), Some(-12));
        assert_eq!(rescale(10i128.pow(37), 0, 38, 1), None, "39 digits");
        assert_eq!(rescale(i128::MAX, 0, 38, 38), None);
    }
}
