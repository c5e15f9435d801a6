//! A value as it is stored, and what it is compared by.

use super::{Collation, Decimal};
use std::sync::Arc;

/// A row: shared, for versions and results hold the same.
pub type Row = Arc<[Value]>;

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bit(bool),
    /// Every width of integer.
    Int(i64),
    /// Money too, with four digits behind the point.
    Decimal(Decimal),
    /// A `real` has been rounded to its width.
    Float(f64),
    Text(Arc<str>),
    /// Bytes of a text outside Unicode that are none in its code page: kept as they came.
    Narrow(Arc<[u8]>),
    Bytes(Arc<[u8]>),
    /// Days since 0001-01-01.
    Date(i32),
    /// Ticks of 100 ns since midnight.
    Time(i64),
    Moment(Moment),
    /// The moment in UTC, and minutes east of it.
    Offset(Moment, i16),
    /// In the order that its text shows.
    Guid([u8; 16]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    pub days: i32,
    pub ticks: i64,
}

/// What values of one type are compared by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Null,
    Int(i128),
    Float(u64),
    Text(String),
    Bytes(Vec<u8>),
}

impl Value {
    pub fn text(text: impl AsRef<str>) -> Value {
        Value::Text(Arc::from(text.as_ref()))
    }

    pub fn bytes(bytes: impl AsRef<[u8]>) -> Value {
        Value::Bytes(Arc::from(bytes.as_ref()))
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// Keys of two values compare as the values do when both have the same type, scale of decimals included.
    pub fn key(&self, collation: &Collation) -> Key {
        match self {
            Value::Null => Key::Null,
            Value::Bit(bit) => Key::Int(i128::from(*bit)),
            Value::Int(int) => Key::Int(i128::from(*int)),
            Value::Decimal(decimal) => Key::Int(decimal.unscaled),
            Value::Float(float) => Key::Float(ordered(*float)),
            Value::Text(text) => Key::Text(collation.fold(text)),
            Value::Narrow(bytes) => Key::Text(collation.fold(&collation.encoding.decode_without_bom_handling(bytes).0)),
            Value::Bytes(bytes) => {
                let used = bytes.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
                Key::Bytes(bytes.get(..used).unwrap_or_default().to_vec())
            }
            Value::Date(days) => Key::Int(i128::from(*days)),
            Value::Time(ticks) => Key::Int(i128::from(*ticks)),
            Value::Moment(moment) | Value::Offset(moment, _) => {
                Key::Int((i128::from(moment.days) << 64) | i128::from(moment.ticks))
            }
            Value::Guid(g) => {
                // SQL Server looks at the last six bytes first.
                let order = [10, 11, 12, 13, 14, 15, 8, 9, 6, 7, 4, 5, 0, 1, 2, 3];
                let mut bytes: Vec<u8> = order.iter().filter_map(|at| g.get(*at).copied()).collect();
                // Trailing zeros would be lost on nothing: a guid has all its bytes.
                bytes.push(1);
                Key::Bytes(bytes)
            }
        }
    }
}

fn ordered(float: f64) -> u64 {
    let bits = if float == 0.0 { 0 } else { float.to_bits() };
    if bits >> 63 == 0 { bits | (1 << 63) } else { !bits }
}

/// `XXXXXXXX-XXXX-XXXX-XXXX-XXXXXXXXXXXX`, in capitals as SQL Server shows it.
pub fn guid_text(guid: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (at, byte) in guid.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02X}"));
    }
    text
}

pub fn parse_guid(text: &str) -> Option<[u8; 16]> {
    let text = text.trim().trim_start_matches('{').trim_end_matches('}');
    let digits: Vec<u8> = text.bytes().filter(|b| *b != b'-').collect();
    if text.len() != 36 || digits.len() != 32 {
        return None;
    }
    let bytes = unhex(std::str::from_utf8(&digits).ok()?)?;
    <[u8; 16]>::try_from(bytes.as_slice()).ok()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> =
        text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect::<Option<_>>()?;
    // An odd count of digits has a nought before the first.
    let padded: Vec<u8> = if digits.len() % 2 == 1 { std::iter::once(0).chain(digits).collect() } else { digits };
    Some(padded.chunks(2).map(|pair| pair.iter().fold(0_u8, |byte, digit| (byte << 4) | *digit)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_order_numbers_and_moments() {
        let usual = Collation::usual();
        let floats = [-f64::INFINITY, -1.5, -0.0, 0.5, 1e300];
        for pair in floats.windows(2) {
            let (a, b) = (Value::Float(pair[0]).key(usual), Value::Float(pair[1]).key(usual));
            assert!(a < b, "{pair:?}");
        }
        assert_eq!(Value::Float(-0.0).key(usual), Value::Float(0.0).key(usual));
        let earlier = Value::Moment(Moment { days: 1, ticks: 863_999_999_999 }).key(usual);
        assert!(earlier < Value::Moment(Moment { days: 2, ticks: 0 }).key(usual));
        assert!(Value::Null.key(usual) < Value::Int(i64::MIN).key(usual));
    }

    #[test]
    fn guids_are_read_as_they_are_written() {
        let text = "6F9619FF-8B86-D011-B42D-00C04FC964FF";
        assert_eq!(guid_text(&parse_guid(text).expect("a guid")), text);
        assert!(parse_guid("6F9619FF").is_none() && unhex("0x").is_none());
        assert_eq!(unhex("abc"), Some(vec![0x0a, 0xbc]));
    }
}
