//! One value between SQLite and its contract type. Reading accepts exactly what the declared type means;
//! writing gives the form that reads back as the same value from the column it goes to, or refuses.

use super::columns::{Affinity, EXACT_DIGITS};
use crate::charset::Charset;
use crate::types;
use posthouse_protocol::batch::{Value, json_row, power_of_ten};
use posthouse_protocol::number::Number;
use posthouse_protocol::schema::ContractType;
use rusqlite::types::{ToSqlOutput, ValueRef};
use std::borrow::Cow;

/// A stored value as its contract type, or why it is not one.
pub(super) fn read<'r>(
    stored: ValueRef<'r>,
    r#type: ContractType,
    scratch: &mut Vec<u8>,
) -> Result<Value<'r>, &'static str> {
    let value = match (stored, r#type) {
        (ValueRef::Null, _) => return Ok(Value::Null),
        (ValueRef::Integer(value @ (0 | 1)), ContractType::Boolean) => Some(Value::Boolean(value == 1)),
        (ValueRef::Integer(value), ContractType::Integer) => Some(Value::Integer(value)),
        (ValueRef::Integer(value), ContractType::Decimal { precision, scale }) => {
            types::decimal_of_integer(value, precision, scale).map(|value| Value::Decimal(value, scale))
        }
        (ValueRef::Real(value), ContractType::Decimal { precision, scale }) => {
            types::decimal_of_float(value, precision, scale).map(|value| Value::Decimal(value, scale))
        }
        (ValueRef::Text(bytes), ContractType::Decimal { precision, scale }) => {
            types::parse_decimal(text(bytes)?, precision, scale).map(|value| Value::Decimal(value, scale))
        }
        (ValueRef::Real(value), ContractType::Float) => Some(Value::Float(value)),
        (ValueRef::Integer(value), ContractType::Float) if value.unsigned_abs() <= 1 << 53 => {
            Some(Value::Float(value as f64))
        }
        (ValueRef::Text(bytes), ContractType::Text | ContractType::Char) => Some(Value::Text(text(bytes)?)),
        (ValueRef::Text(bytes), ContractType::Json) => {
            let text = text(bytes)?;
            scratch.clear();
            // What has no canonical form has no digest either.
            posthouse_protocol::digest::json::canonical(text, scratch).ok().map(|()| Value::Text(text))
        }
        (ValueRef::Blob(bytes), ContractType::Bytes) => Some(Value::Bytes(bytes)),
        (ValueRef::Text(bytes), ContractType::Date) => types::parse_date(text(bytes)?).map(Value::Date),
        (ValueRef::Text(bytes), ContractType::Timestamp) => types::parse_timestamp(text(bytes)?).map(Value::Timestamp),
        (ValueRef::Text(bytes), ContractType::Number) => {
            let text = text(bytes)?;
            Number::parse(text).map(|_| Value::Number(text))
        }
        _ => None,
    };
    value.ok_or(match r#type {
        ContractType::Boolean => "it is neither 0 nor 1",
        ContractType::Integer => "it is not a whole number",
        ContractType::Decimal { .. } => "it is not a decimal within the declared digits",
        ContractType::Float => "it is not a number",
        ContractType::Text | ContractType::Char => "it is not text",
        ContractType::Bytes => "it is not bytes",
        ContractType::Date => "it is not a date of the form YYYY-MM-DD",
        ContractType::Timestamp => "it is not a time of the form YYYY-MM-DD HH:MM:SS",
        ContractType::Json => "it is not JSON with one meaning",
        ContractType::Number => "it is not a number in its one form, as `-12.5`",
    })
}

fn text(bytes: &[u8]) -> Result<&str, &'static str> {
    std::str::from_utf8(bytes).map_err(|_| "it has bytes that are no characters of UTF-8")
}

/// The expression that reads a column: JSON numbers that SQLite keeps as numbers become their text.
pub(super) fn select(name: &str, r#type: ContractType) -> String {
    let quoted = super::quote(name);
    match r#type {
        ContractType::Json => format!(
            "CASE typeof({quoted}) WHEN 'integer' THEN CAST({quoted} AS TEXT) \
             WHEN 'real' THEN printf('%!.17g', {quoted}) ELSE {quoted} END"
        ),
        _ => quoted,
    }
}

/// A row as it is stored, as a JSON object: text that has no characters of its charset as `{"hex": "…"}`.
pub(super) fn original(names: &[String], row: &rusqlite::Row<'_>, charset: Charset) -> String {
    let decoded = |index: usize| match row.get_ref(index) {
        Ok(ValueRef::Text(bytes)) => charset.decode(bytes).ok(),
        _ => None,
    };
    let texts: Vec<Option<Cow<'_, str>>> = (0..names.len()).map(decoded).collect();
    let value = |index: usize| match row.get_ref(index) {
        Err(_) | Ok(ValueRef::Null) => Value::Null,
        Ok(ValueRef::Integer(value)) => Value::Integer(value),
        Ok(ValueRef::Real(value)) => Value::Float(value),
        Ok(ValueRef::Text(bytes)) => match texts.get(index) {
            Some(Some(text)) => Value::Text(text),
            _ => Value::Bytes(bytes),
        },
        Ok(ValueRef::Blob(bytes)) => Value::Bytes(bytes),
    };
    json_row(names.iter().enumerate().map(|(index, name)| (name.as_str(), value(index))))
}

/// Holds what is made of a value.
#[derive(Default)]
pub(super) struct Scratch {
    text: String,
    bytes: Vec<u8>,
}

/// A value in the form its column keeps, or why the column cannot keep it.
pub(super) fn write<'v>(
    value: Value<'v>,
    affinity: Affinity,
    charset: Charset,
    scratch: &'v mut Scratch,
) -> Result<ToSqlOutput<'v>, Cow<'static, str>> {
    let Scratch { text: scratch, bytes } = scratch;
    scratch.clear();
    Ok(ToSqlOutput::Borrowed(match value {
        Value::Null => ValueRef::Null,
        Value::Boolean(value) => ValueRef::Integer(i64::from(value)),
        Value::Integer(value) => ValueRef::Integer(value),
        Value::Float(value) if value.is_nan() => return Err("SQLite has no NaN".into()),
        Value::Float(value) => ValueRef::Real(value),
        Value::Text(value) | Value::Number(value) if affinity.makes_numbers() && looks_numeric(value) => {
            return Err("the table's column would make a number of this text".into());
        }
        Value::Text(value) => match charset.encode(value).map_err(|e| e.to_string())? {
            Cow::Borrowed(same) => ValueRef::Text(same),
            Cow::Owned(encoded) => {
                *bytes = encoded;
                ValueRef::Text(bytes)
            }
        },
        Value::Number(value) => ValueRef::Text(value.as_bytes()),
        Value::Bytes(value) => ValueRef::Blob(value),
        Value::Date(days) => {
            if !types::write_date(days, scratch) {
                return Err("SQLite has no date so far away".into());
            }
            ValueRef::Text(scratch.as_bytes())
        }
        Value::Timestamp(us) => {
            if !types::write_timestamp(us, scratch) {
                return Err("SQLite has no time so far away".into());
            }
            ValueRef::Text(scratch.as_bytes())
        }
        Value::Decimal(unscaled, scale) if affinity == Affinity::Text => {
            use std::fmt::Write as _;
            let _ = write!(scratch, "{}", Value::Decimal(unscaled, scale));
            ValueRef::Text(scratch.as_bytes())
        }
        Value::Decimal(unscaled, scale) => number(unscaled, scale)?,
    }))
}

/// A decimal for a column of numbers: whole where it is whole, else the double that reads back as this decimal.
fn number(unscaled: i128, scale: i8) -> Result<ValueRef<'static>, &'static str> {
    let (unscaled, scale) = posthouse_protocol::batch::normal_decimal(unscaled, scale);
    if scale <= 0 {
        let power = i128::try_from(power_of_ten(scale.unsigned_abs())).unwrap_or(i128::MAX);
        let whole = unscaled.checked_mul(power).and_then(|whole| i64::try_from(whole).ok());
        return whole
            .map(ValueRef::Integer)
            .ok_or("the table's column keeps numbers, and this one has too many digits");
    }
    if unscaled.unsigned_abs() >= power_of_ten(EXACT_DIGITS) || scale > EXACT_DIGITS as i8 {
        return Err("the table's column keeps numbers, and this one has too many digits");
    }
    Ok(ValueRef::Real(unscaled as f64 / 10f64.powi(i32::from(scale))))
}

/// Whether SQLite takes a text for a number, where its column has it look.
fn looks_numeric(text: &str) -> bool {
    let text = text.trim_matches([' ', '\t', '\n', '\u{b}', '\u{c}', '\r']);
    text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) && text.parse::<f64>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::columns;

    #[test]
    fn a_text_that_sqlite_makes_a_number_of_is_refused_and_no_other() {
        let database = rusqlite::Connection::open_in_memory().unwrap();
        // A type that people give to texts, and that means numbers to SQLite.
        database.execute_batch("CREATE TABLE t (a STRING)").unwrap();
        assert_eq!(columns::affinity("STRING"), Affinity::Numeric);
        for text in [
            "007",
            "7",
            "-7",
            "+7",
            " 7 ",
            "7\n",
            "1e3",
            "1E-3",
            ".5",
            "5.",
            "1.50",
            "99999999999999999999",
            "610102",
            "",
            " ",
            "0x10",
            "1e",
            "e5",
            "1,5",
            "1 5",
            "7a",
            "Infinity",
            "nan",
            "2026-01-01",
            "12:00",
            "１２",
            "--1",
            ".",
            "1_000",
            "7\u{a0}",
        ] {
            database.execute("DELETE FROM t", []).unwrap();
            database.execute("INSERT INTO t VALUES (?1)", [text]).unwrap();
            let kept: String = database.query_row("SELECT typeof(a) FROM t", [], |row| row.get(0)).unwrap();
            let mut scratch = Scratch::default();
            let taken = write(Value::Text(text), Affinity::Numeric, Charset::Utf8, &mut scratch).is_ok();
            assert_eq!(taken, kept == "text", "{text:?} is kept as {kept}");
            let mut scratch = Scratch::default();
            assert!(write(Value::Text(text), Affinity::Text, Charset::Utf8, &mut scratch).is_ok());
        }
    }
}
