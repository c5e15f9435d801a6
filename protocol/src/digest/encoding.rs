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
//! | 6, 7 | date or timestamp +infinity, −infinity: the largest and the smallest number of its Arrow type | nothing |

use crate::batch::{Batch, BatchError, Column, normal_decimal, normal_float};
use arrow::array::Array;

/// First byte of what is hashed for a row, and for a key.
pub const ROW: u8 = b'R';
pub const KEY: u8 = b'K';

/// Appends one value.
pub(super) fn encode(batch: &Batch, index: usize, row: usize, out: &mut Vec<u8>) -> Result<(), BatchError> {
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
            out.push(DECIMAL);
            out.extend_from_slice(&unscaled.to_le_bytes());
            out.extend_from_slice(&scale.to_le_bytes());
        }
        Column::Float(array) => {
            let number = normal_float(value!(array));
            out.push(FLOAT);
            out.extend_from_slice(&number.to_le_bytes());
        }
        Column::Text(array) => bytes(TEXT, value!(array).as_bytes(), out),
        Column::Char(array) => bytes(TEXT, value!(array).trim_end_matches(' ').as_bytes(), out),
        Column::Bytes(array) => bytes(TEXT, value!(array), out),
        Column::Json(array) => {
            let text = value!(array);
            let start = out.len();
            bytes(JSON, &[], out);
            super::json::canonical(text, out).map_err(|e| BatchError::Column {
                column: batch.record().schema().fields().get(index).map_or_else(String::new, |f| f.name().clone()),
                what: format!("holds text that is not JSON: {e}"),
            })?;
            let length = (out.len() - start - 5) as u32;
            if let Some(place) = out.get_mut(start + 1..start + 5) {
                place.copy_from_slice(&length.to_le_bytes());
            }
        }
    }
    Ok(())
}

fn number(value: i64, out: &mut Vec<u8>) {
    out.push(NUMBER);
    out.extend_from_slice(&value.to_le_bytes());
}

fn bytes(tag: u8, value: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    // Arrow's own offsets bound a value to 31 bits.
    out.extend_from_slice(&(value.len() as u32).to_le_bytes());
    out.extend_from_slice(value);
}

const NULL: u8 = 0;
const NUMBER: u8 = 1;
const DECIMAL: u8 = 2;
const FLOAT: u8 = 3;
const TEXT: u8 = 4;
const JSON: u8 = 5;
const INFINITY: u8 = 6;
const MINUS_INFINITY: u8 = 7;
