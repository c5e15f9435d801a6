//! One value of the server's as its contract type has it, or why it is none. Most are borrowed from the row as it came;
//! a few have to be spelt out first, see [`spell`].

use super::catalog::Column;
use crate::charset::Charset;
use crate::types;
use mysql_async::{Row, Value as Stored};
use posthouse_protocol::batch::{Value, json_row, power_of_ten};
use posthouse_protocol::limits::VALUE_BYTES_MAX;
use posthouse_protocol::number;
use posthouse_protocol::schema::ContractType;
use std::borrow::Cow;
use std::fmt::Write as _;

/// How a column's values are to be taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct How {
    pub(super) r#type: ContractType,
    is_bits: bool,
    /// Digits of a second's fraction.
    fraction: u32,
    /// In which its texts are, where the server does not know it and gives their bytes.
    coded: Option<Charset>,
}

impl How {
    pub(super) fn new(r#type: ContractType, column: Option<&Column>) -> Self {
        let is_bits = column.is_some_and(|column| column.r#type == "bit");
        Self { r#type, is_bits, fraction: column.map_or(0, |column| column.fraction), coded: None }
    }
    pub(super) fn coded(self, charset: Charset) -> Self {
        Self { coded: Some(charset), ..self }
    }
}

/// The text of a value that is no text where it comes from, and is to be one; false where it can be read as it is.
pub(super) fn spell(stored: &Stored, how: How, out: &mut String) -> bool {
    out.clear();
    match (stored, how.r#type) {
        (Stored::Bytes(bytes), ContractType::Text | ContractType::Char | ContractType::Json) => {
            let Some(Ok(text)) = how.coded.map(|charset| charset.decode(bytes)) else { return false };
            out.push_str(&text);
            true
        }
        (Stored::Time(..), ContractType::Text) => {
            write_time(stored, how.fraction, out);
            true
        }
        (Stored::Bytes(digits), ContractType::Number) => {
            let found = std::str::from_utf8(digits).ok().and_then(number::canonical);
            if let Some(found) = found {
                out.push_str(&found);
            }
            true
        }
        (Stored::Int(_) | Stored::UInt(_), ContractType::Number) => {
            let _ = match stored {
                Stored::Int(value) => write!(out, "{value}"),
                Stored::UInt(value) => write!(out, "{value}"),
                _ => Ok(()),
            };
            true
        }
        _ => false,
    }
}

/// A value as its contract type has it. `spelt` is what [`spell`] made of it.
pub(super) fn read<'r>(
    stored: &'r Stored,
    how: How,
    spelt: Option<&'r str>,
    scratch: &mut Vec<u8>,
) -> Result<Value<'r>, &'static str> {
    let value = match (stored, how.r#type) {
        (Stored::NULL, _) => return Ok(Value::Null),
        (Stored::Int(value), ContractType::Integer) => Some(Value::Integer(*value)),
        (Stored::UInt(value), ContractType::Integer) => i64::try_from(*value).ok().map(Value::Integer),
        (Stored::Bytes(bytes), ContractType::Integer) if how.is_bits => {
            bits(bytes).and_then(|value| i64::try_from(value).ok()).map(Value::Integer)
        }
        (Stored::Bytes(bytes), ContractType::Boolean) if how.is_bits => bits(bytes).and_then(boolean),
        (Stored::Int(value), ContractType::Boolean) => u64::try_from(*value).ok().and_then(boolean),
        (Stored::UInt(value), ContractType::Boolean) => boolean(*value),
        (Stored::Bytes(bytes), ContractType::Decimal { precision, scale }) if how.is_bits => {
            bits(bytes).and_then(|value| whole(i128::from(value), precision, scale))
        }
        (Stored::Bytes(bytes), ContractType::Decimal { precision, scale }) => {
            let text = std::str::from_utf8(bytes).ok();
            let found = text.and_then(|text| types::parse_decimal(text, precision, scale));
            found.map(|unscaled| Value::Decimal(unscaled, scale))
        }
        (Stored::Int(value), ContractType::Decimal { precision, scale }) => whole(i128::from(*value), precision, scale),
        (Stored::UInt(value), ContractType::Decimal { precision, scale }) => {
            whole(i128::from(*value), precision, scale)
        }
        (Stored::Double(value), ContractType::Float) => Some(Value::Float(*value)),
        (Stored::Float(value), ContractType::Float) => Some(Value::Float(f64::from(*value))),
        (Stored::Bytes(bytes), _) if bytes.len() > VALUE_BYTES_MAX => return Err("it is longer than a value may be"),
        (Stored::Bytes(bytes), ContractType::Bytes) => Some(Value::Bytes(bytes)),
        (Stored::Bytes(bytes), ContractType::Text | ContractType::Char) => Some(Value::Text(text(bytes, how, spelt)?)),
        (Stored::Bytes(bytes), ContractType::Json) => {
            let text = text(bytes, how, spelt)?;
            scratch.clear();
            // What has no canonical form has no digest either.
            posthouse_protocol::digest::json::canonical(text, scratch).ok().map(|()| Value::Text(text))
        }
        (Stored::Time(..), ContractType::Text) => spelt.map(Value::Text),
        (_, ContractType::Number) => spelt.filter(|text| !text.is_empty()).map(Value::Number),
        (Stored::Date(year, month, day, ..), ContractType::Date | ContractType::Timestamp)
            if *month == 0 || *day == 0 =>
        {
            return Err(match (year, month, day) {
                (0, 0, 0) => "it is the zero date",
                _ => "a part of its date is zero",
            });
        }
        (Stored::Date(year, month, day, hour, minute, second, us), r#type) => {
            let days = types::days(i64::from(*year), i64::from(*month), i64::from(*day));
            match r#type {
                ContractType::Date => days.map(Value::Date),
                ContractType::Timestamp => days.map(|days| {
                    let seconds = i64::from(days) * 86_400
                        + i64::from(*hour) * 3_600
                        + i64::from(*minute) * 60
                        + i64::from(*second);
                    Value::Timestamp(seconds * 1_000_000 + i64::from(*us))
                }),
                _ => None,
            }
        }
        _ => None,
    };
    value.ok_or(match how.r#type {
        ContractType::Boolean => "it is neither 0 nor 1",
        ContractType::Integer => "it is not a whole number of 64 bits",
        ContractType::Decimal { .. } => "it is not a decimal within the declared digits",
        ContractType::Float => "it is not a number",
        ContractType::Text | ContractType::Char => "it is not text",
        ContractType::Bytes => "it is not bytes",
        ContractType::Date => "it is not a date",
        ContractType::Timestamp => "it is not a time",
        ContractType::Json => "it is not JSON with one meaning",
        ContractType::Number => "it is not a number in digits",
    })
}

/// A row as it is stored, as a JSON object: text that is no UTF-8 as `{"hex": "…"}`, a date with its zeros.
/// `instead` has the bytes of columns that did not come as they are stored.
pub(super) fn original(names: &[String], hows: &[How], row: &Row, instead: &[(usize, usize)]) -> String {
    let at = |index: usize| {
        let bytes = instead.iter().find(|(column, _)| *column == index).and_then(|(_, place)| row.as_ref(*place));
        bytes.filter(|value| **value != Stored::NULL).or_else(|| row.as_ref(index))
    };
    let decoded = |index: usize| match (at(index), hows.get(index).and_then(|how| how.coded)) {
        (Some(Stored::Bytes(bytes)), charset) => charset.unwrap_or_default().decode(bytes).ok().map(Cow::into_owned),
        (Some(stored), _) => Some(written(stored)),
        (None, _) => None,
    };
    let texts: Vec<Option<String>> = (0..names.len()).map(decoded).collect();
    let text = |index: usize| texts.get(index).and_then(Option::as_deref);
    let value = |index: usize| match at(index) {
        None | Some(Stored::NULL) => Value::Null,
        Some(Stored::Int(value)) => Value::Integer(*value),
        Some(Stored::UInt(value)) => Value::Decimal(i128::from(*value), 0),
        Some(Stored::Float(value)) => Value::Float(f64::from(*value)),
        Some(Stored::Double(value)) => Value::Float(*value),
        Some(Stored::Bytes(bytes)) => text(index).map_or(Value::Bytes(bytes), Value::Text),
        Some(Stored::Date(..) | Stored::Time(..)) => Value::Text(text(index).unwrap_or_default()),
    };
    json_row(names.iter().enumerate().map(|(index, name)| (name.as_str(), value(index))))
}

/// A date or a time as the server writes it.
fn written(stored: &Stored) -> String {
    let mut out = String::new();
    match stored {
        Stored::Date(year, month, day, hour, minute, second, us) => {
            let _ = write!(out, "{year:04}-{month:02}-{day:02}");
            if (*hour, *minute, *second, *us) != (0, 0, 0, 0) {
                let _ = write!(out, " {hour:02}:{minute:02}:{second:02}");
            }
            if *us != 0 {
                let _ = write!(out, ".{us:06}");
            }
        }
        Stored::Time(..) => write_time(stored, 6, &mut out),
        _ => {}
    }
    out
}

fn write_time(stored: &Stored, fraction: u32, out: &mut String) {
    let Stored::Time(negative, days, hours, minutes, seconds, us) = stored else { return };
    let hours = u64::from(*days) * 24 + u64::from(*hours);
    let _ = write!(out, "{}{hours:02}:{minutes:02}:{seconds:02}", if *negative { "-" } else { "" });
    let fraction = fraction.min(6);
    if fraction > 0 {
        let digits = us / 10u32.pow(6 - fraction);
        let _ = write!(out, ".{digits:0width$}", width = fraction as usize);
    }
}

fn text<'r>(bytes: &'r [u8], how: How, spelt: Option<&'r str>) -> Result<&'r str, &'static str> {
    match how.coded {
        Some(charset) => spelt.ok_or_else(|| charset.fault()),
        None => std::str::from_utf8(bytes).map_err(|_| Charset::Utf8.fault()),
    }
}

/// The number that bits are, the first the highest.
fn bits(bytes: &[u8]) -> Option<u64> {
    (bytes.len() <= 8).then(|| bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

fn boolean(value: u64) -> Option<Value<'static>> {
    (value <= 1).then_some(Value::Boolean(value == 1))
}

/// A whole number as a decimal of the declared digits.
fn whole(value: i128, precision: u8, scale: i8) -> Option<Value<'static>> {
    let unscaled = match u8::try_from(scale) {
        Ok(places) => value.checked_mul(i128::try_from(power_of_ten(places)).ok()?)?,
        Err(_) => {
            let power = i128::try_from(power_of_ten(scale.unsigned_abs())).ok()?;
            (value % power == 0).then_some(value / power)?
        }
    };
    (unscaled.unsigned_abs() < power_of_ten(precision)).then_some(Value::Decimal(unscaled, scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn how(r#type: ContractType) -> How {
        How { r#type, is_bits: false, fraction: 3, coded: None }
    }

    fn of(stored: &Stored, r#type: ContractType) -> Result<Value<'_>, &'static str> {
        read(stored, how(r#type), None, &mut Vec::new())
    }

    #[test]
    fn dates_with_zeros_are_told_apart_and_times_are_exact() {
        let zero = Stored::Date(0, 0, 0, 0, 0, 0, 0);
        assert_eq!(of(&zero, ContractType::Timestamp), Err("it is the zero date"));
        assert_eq!(of(&Stored::Date(2026, 0, 1, 0, 0, 0, 0), ContractType::Date), Err("a part of its date is zero"));
        assert_eq!(of(&Stored::Date(1970, 1, 2, 0, 0, 0, 0), ContractType::Date), Ok(Value::Date(1)));
        let last = Stored::Date(1969, 12, 31, 23, 59, 59, 999_999);
        assert_eq!(of(&last, ContractType::Timestamp), Ok(Value::Timestamp(-1)));
        assert_eq!(written(&zero), "0000-00-00");
        assert_eq!(written(&last), "1969-12-31 23:59:59.999999");
        let mut out = String::new();
        assert!(spell(&Stored::Time(true, 34, 22, 59, 59, 120_000), how(ContractType::Text), &mut out));
        assert_eq!(out, "-838:59:59.120");
    }

    #[test]
    fn texts_are_in_the_charset_that_programs_wrote() {
        let coded = how(ContractType::Text).coded(Charset::Gbk);
        let (name, wrong) = (Stored::Bytes(b"\xcd\xf5".to_vec()), Stored::Bytes(b"\xcd\xf5\xff".to_vec()));
        let mut spelt = String::new();
        assert!(spell(&name, coded, &mut spelt));
        assert_eq!(read(&name, coded, Some(&spelt), &mut Vec::new()), Ok(Value::Text("王")));
        assert!(!spell(&wrong, coded, &mut spelt));
        assert_eq!(read(&wrong, coded, None, &mut Vec::new()), Err("it has bytes that are no characters of GBK"));
    }

    #[test]
    fn numbers_are_taken_whole_or_not_at_all() {
        let wide = ContractType::Decimal { precision: 20, scale: 0 };
        assert_eq!(of(&Stored::UInt(u64::MAX), wide), Ok(Value::Decimal(u64::MAX.into(), 0)));
        assert!(of(&Stored::UInt(u64::MAX), ContractType::Integer).is_err());
        assert!(of(&Stored::Int(2), ContractType::Boolean).is_err());
        let bits = How { is_bits: true, ..how(ContractType::Integer) };
        let stored = Stored::Bytes(vec![1, 0]);
        assert_eq!(read(&stored, bits, None, &mut Vec::new()), Ok(Value::Integer(256)));
        assert_eq!(whole(-7, 2, 2), None);
        assert_eq!(whole(-7, 3, 2), Some(Value::Decimal(-700, 2)));
        assert_eq!(whole(-7, 3, 1), Some(Value::Decimal(-70, 1)));
        assert_eq!(whole(120, 2, -1), Some(Value::Decimal(12, -1)));
    }
}
