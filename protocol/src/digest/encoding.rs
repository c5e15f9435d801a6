//! How one value is written before it is hashed, by its contract type. A row is `R` and its values in
//! column order; a key is `K` and the values of its columns in key order. Each value is one tag byte and:
//!
//! | tag | for | then |
//! |---|---|---|
//! | 0 | NULL | nothing |
//! | 1 | boolean (0, 1), integer, date (days since 1970-01-01), timestamp (µs UTC) | 8 bytes, signed, little-endian |
//! | 2 | decimal, without trailing zeros; zero has scale 0 | 16 bytes, signed, little-endian; 1 byte scale, signed |
//! | 3 | float; −0 is 0, NaN is 7ff8000000000000 | 8 bytes IEEE 754, little-endian |
//! | 4 | text; char without trailing blanks (U+0020); bytes | length in 4 bytes little-endian, the bytes |
//! | 5 | json in the canonical form of [`super::json`] | length in 4 bytes little-endian, the bytes |
//! | 6, 7 | date or timestamp +infinity, −infinity: the largest and the smallest number of its Arrow type; a number's Infinity, −Infinity | nothing |
//! | 8 | number of more than 38 digits or a scale beyond 8 bits, without leading and trailing zeros (any other: tag 2) | 1 byte sign (1 where below zero); scale in 4 bytes, signed, little-endian; count of digits in 4 bytes little-endian; the digits in ASCII, the first first |
//! | 9 | a number's NaN | nothing |

use super::json::{Canonicalizer, JsonError};
use crate::batch::{Batch, BatchError, Column, normal_decimal, normal_float};
use crate::number::Number;
use arrow::array::Array;

/// First byte of what is hashed for a row, and for a key.
pub const ROW: u8 = b'R';
pub const KEY: u8 = b'K';

/// Appends one value.
pub(super) fn encode(
    batch: &Batch,
    index: usize,
    row: usize,
    canonicalizer: &mut Canonicalizer,
    out: &mut Vec<u8>,
) -> Result<(), BatchError> {
    let Some(column) = batch.columns().get(index) else { return Ok(()) };
    macro_rules! value {
        ($array:expr) => {{
            if $array.is_null(row) {
                out.push(NULL);
                return Ok(());
            }
            $array.value(row)
        }};
    }
    match column {
        Column::Boolean(array) => number(i64::from(value!(array)), out),
        Column::Integer(array) => number(value!(array), out),
        Column::Date(array) => match value!(array) {
            i32::MAX => out.push(INFINITY),
            i32::MIN => out.push(MINUS_INFINITY),
            days => number(i64::from(days), out),
        },
        Column::Timestamp(array) => match value!(array) {
            i64::MAX => out.push(INFINITY),
            i64::MIN => out.push(MINUS_INFINITY),
            us => number(us, out),
        },
        Column::Decimal(array, scale) => {
            let (unscaled, scale) = normal_decimal(value!(array), *scale);
            decimal(unscaled, scale, out);
        }
        Column::Number(array) => exact(value!(array), out),
        Column::Float(array) => float(value!(array), out),
        Column::Text(array) => bytes(TEXT, value!(array).as_bytes(), out),
        Column::Char(array) => bytes(TEXT, value!(array).trim_end_matches(' ').as_bytes(), out),
        Column::Bytes(array) => bytes(TEXT, value!(array), out),
        Column::Json(array) => json(value!(array).as_bytes(), canonicalizer, out).map_err(|e| BatchError::Column {
            column: batch.record().schema().fields().get(index).map_or_else(String::new, |f| f.name().clone()),
            what: format!("holds text that is not JSON: {e}"),
        })?,
    }
    Ok(())
}

#[inline(always)]
pub(crate) fn number(value: i64, out: &mut Vec<u8>) {
    let mut form = [NUMBER; 9];
    form[1..].copy_from_slice(&value.to_le_bytes());
    out.extend_from_slice(&form);
}

/// A decimal without trailing zeros.
pub(crate) fn decimal(unscaled: i128, scale: i8, out: &mut Vec<u8>) {
    let mut form = [DECIMAL; 18];
    form[1..17].copy_from_slice(&unscaled.to_le_bytes());
    form[17..].copy_from_slice(&scale.to_le_bytes());
    out.extend_from_slice(&form);
}

/// A number in its one form; nothing for text that is none, which a checked batch does not hold.
pub(crate) fn exact(text: &str, out: &mut Vec<u8>) {
    match Number::parse(text) {
        Some(Number::Finite(value)) => match value.decimal() {
            Some((unscaled, scale)) => decimal(unscaled, scale, out),
            None => {
                let (first, second, scale) = value.significant();
                out.extend_from_slice(&[LONG, u8::from(value.negative)]);
                out.extend_from_slice(&scale.to_le_bytes());
                out.extend_from_slice(&((first.len() + second.len()) as u32).to_le_bytes());
                out.extend_from_slice(first.as_bytes());
                out.extend_from_slice(second.as_bytes());
            }
        },
        Some(Number::Infinity) => out.push(INFINITY),
        Some(Number::MinusInfinity) => out.push(MINUS_INFINITY),
        Some(Number::NaN) => out.push(NOT_A_NUMBER),
        None => {}
    }
}

pub(crate) fn float(value: f64, out: &mut Vec<u8>) {
    let mut form = [FLOAT; 9];
    form[1..].copy_from_slice(&normal_float(value).to_le_bytes());
    out.extend_from_slice(&form);
}

pub(crate) fn bytes(tag: u8, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&head(tag, value.len()));
    out.extend_from_slice(value);
}

/// As [`bytes`], of the first so many of `of`; a short value is copied in one step, which it shares with what follows.
#[inline]
pub(crate) fn beginning(tag: u8, length: usize, of: &[u8], out: &mut Vec<u8>) {
    match of.first_chunk::<SHORT>() {
        Some(short) if length <= SHORT => {
            out.extend_from_slice(&head(tag, length));
            let end = out.len() + length;
            out.extend_from_slice(short);
            out.truncate(end);
        }
        _ => bytes(tag, of.get(..length).unwrap_or(of), out),
    }
}

/// What stands before the bytes of a value: Arrow's own offsets bound it to 31 bits.
pub(crate) fn head(tag: u8, length: usize) -> [u8; 5] {
    let [a, b, c, d] = (length as u32).to_le_bytes();
    [tag, a, b, c, d]
}

/// The bytes are UTF-8, or are found out elsewhere.
pub(crate) fn json(text: &[u8], canonicalizer: &mut Canonicalizer, out: &mut Vec<u8>) -> Result<(), JsonError> {
    let start = out.len();
    out.extend_from_slice(&head(JSON, 0));
    canonicalizer.write_bytes(text, out)?;
    let length = out.len() - start - 5;
    if let Some(place) = out.get_mut(start..start + 5) {
        place.copy_from_slice(&head(JSON, length));
    }
    Ok(())
}

/// Values of so many bytes are taken in one step.
pub(crate) const SHORT: usize = 32;
pub(crate) const NULL: u8 = 0;
const NUMBER: u8 = 1;
const DECIMAL: u8 = 2;
const FLOAT: u8 = 3;
pub(crate) const TEXT: u8 = 4;
const JSON: u8 = 5;
pub(crate) const INFINITY: u8 = 6;
pub(crate) const MINUS_INFINITY: u8 = 7;
const LONG: u8 = 8;
const NOT_A_NUMBER: u8 = 9;
