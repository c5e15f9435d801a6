//! Writes the rows of Arrow batches as tuples for columns of a PostgreSQL table. Which contract type can be written
//! into which column is [`encodable`]; other columns land by the server's own reading of text. What the server would
//! round, cut or refuse is found here, row by row, before it ends a whole COPY.

use super::native::{NativeType, Plain};
use super::{EPOCH_DAYS, EPOCH_US, Fault, ShapeError, numeric};
use crate::batch::{Batch, Value};
use crate::digest::json::Canonicalizer;
use crate::schema::{Contract, ContractType};

/// Whether values of a contract type can be written as this native type.
pub fn encodable(r#type: ContractType, native: &NativeType) -> bool {
    use NativeType as N;
    match (r#type, native) {
        (ContractType::Integer | ContractType::Decimal { .. } | ContractType::Number, N::Numeric(_)) => true,
        (ContractType::Text | ContractType::Char, N::Varchar(_) | N::Bpchar(_)) => true,
        (r#type, N::Plain(plain) | N::Timed(plain, _)) => match plain {
            Plain::Bool => r#type == ContractType::Boolean,
            Plain::Int2 | Plain::Int4 | Plain::Int8 | Plain::Oid => r#type == ContractType::Integer,
            Plain::Float4 | Plain::Float8 => r#type == ContractType::Float,
            Plain::Text => matches!(r#type, ContractType::Text | ContractType::Char),
            Plain::Name | Plain::Char | Plain::Enum | Plain::Xml | Plain::Uuid => r#type == ContractType::Text,
            Plain::Bytea => r#type == ContractType::Bytes,
            Plain::Date => r#type == ContractType::Date,
            Plain::Timestamp | Plain::Timestamptz => r#type == ContractType::Timestamp,
            Plain::Json | Plain::Jsonb => r#type == ContractType::Json,
            _ => false,
        },
        _ => false,
    }
}

/// Writes rows of one contract for the columns of one table.
pub struct Encoder {
    natives: Vec<NativeType>,
    names: Vec<String>,
    count: [u8; 2],
    /// Of each column, whether blanks at the end of its texts would be taken for padding.
    unpadded: Vec<bool>,
    json: Json,
}

/// A json in its canonical form, where it can be judged.
#[derive(Default)]
struct Json {
    canonicalizer: Canonicalizer,
    form: Vec<u8>,
}

/// A row that the table would not take as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the column `{column}` {fault}")]
pub struct RowFault {
    pub column: String,
    pub fault: Fault,
}

impl Encoder {
    pub fn new(contract: &Contract, natives: &[NativeType]) -> Result<Self, ShapeError> {
        crate::batch::check_contract(contract)?;
        if natives.len() != contract.items.len() {
            return Err(ShapeError::Count { found: natives.len(), expected: contract.items.len() });
        }
        let pairs = || contract.items.iter().zip(natives);
        if let Some((item, native)) = pairs().find(|(item, native)| !encodable(item.r#type, native)) {
            return Err(ShapeError::Type { column: item.name.clone(), native: native.clone() });
        }
        Ok(Self {
            natives: natives.to_vec(),
            names: contract.items.iter().map(|item| item.name.clone()).collect(),
            count: (natives.len() as u16).to_be_bytes(),
            unpadded: pairs()
                .map(|(item, native)| item.r#type == ContractType::Text && matches!(native, NativeType::Bpchar(_)))
                .collect(),
            json: Json::default(),
        })
    }

    /// Appends one row of a batch of the contract, or nothing of it.
    pub fn row(&mut self, batch: &Batch, row: usize, out: &mut Vec<u8>) -> Result<(), RowFault> {
        let start = out.len();
        out.extend_from_slice(&self.count);
        for (index, native) in self.natives.iter().enumerate() {
            let field = out.len();
            out.extend_from_slice(&(-1i32).to_be_bytes());
            let value = batch.value(index, row);
            if value.is_null() {
                continue;
            }
            let written = match value {
                Value::Text(text) if text.ends_with(' ') && self.unpadded.get(index) == Some(&true) => {
                    Err("ends with a blank, which the table's column takes for padding".into())
                }
                value => write(value, native, &mut self.json, out),
            };
            if let Err(fault) = written {
                out.truncate(start);
                return Err(RowFault { column: self.names.get(index).cloned().unwrap_or_default(), fault });
            }
            // Arrow's own offsets bound a value to 31 bits.
            let length = (out.len() - field - 4) as i32;
            if let Some(place) = out.get_mut(field..field + 4) {
                place.copy_from_slice(&length.to_be_bytes());
            }
        }
        if out.len() - start > crate::limits::TUPLE_BYTES_MAX {
            out.truncate(start);
            return Err(RowFault {
                column: String::new(),
                fault: "of its row make it larger than PostgreSQL takes".into(),
            });
        }
        Ok(())
    }

    /// Appends the rows of a batch; those that the table would not take are handed out by their number instead.
    pub fn batch(&mut self, batch: &Batch, out: &mut Vec<u8>, bad: &mut impl FnMut(usize, RowFault)) {
        for row in 0..batch.rows() {
            if let Err(fault) = self.row(batch, row, out) {
                bad(row, fault);
            }
        }
    }
}

fn write(value: Value<'_>, native: &NativeType, json: &mut Json, out: &mut Vec<u8>) -> Result<(), Fault> {
    use NativeType as N;
    let mut put = |bytes: &[u8]| {
        out.extend_from_slice(bytes);
        Ok(())
    };
    match (value, native) {
        (Value::Boolean(value), _) => put(&[u8::from(value)]),
        (Value::Integer(value), N::Plain(Plain::Int2)) => put(&within::<i16>(value)?.to_be_bytes()),
        (Value::Integer(value), N::Plain(Plain::Int4)) => put(&within::<i32>(value)?.to_be_bytes()),
        (Value::Integer(value), N::Plain(Plain::Oid)) => put(&within::<u32>(value)?.to_be_bytes()),
        (Value::Integer(value), N::Numeric(size)) => decimal(i128::from(value), 0, *size, out),
        (Value::Integer(value), _) => put(&value.to_be_bytes()),
        (Value::Decimal(unscaled, scale), N::Numeric(size)) => decimal(unscaled, scale, *size, out),
        (Value::Number(text), N::Numeric(size)) => number(text, *size, out),
        (Value::Float(value), N::Plain(Plain::Float4)) => {
            let narrow = value as f32;
            if f64::from(narrow) != value && !value.is_nan() {
                return Err("holds a number that float4 would round".into());
            }
            put(&narrow.to_be_bytes())
        }
        (Value::Float(value), _) => put(&value.to_be_bytes()),
        (Value::Date(days), _) => put(&date(days)?.to_be_bytes()),
        (Value::Timestamp(us), N::Timed(_, digits)) if is_finer(us, *digits) => {
            Err("holds a time with more digits of a second than the table's column".into())
        }
        (Value::Timestamp(us), _) => put(&timestamp(us)?.to_be_bytes()),
        (Value::Bytes(bytes), _) => put(bytes),
        (Value::Text(value), N::Plain(Plain::Uuid)) => put(&uuid(value)?),
        (Value::Text(value), N::Plain(Plain::Char)) => put(&[one_byte(value)?]),
        (Value::Text(value), N::Plain(Plain::Json | Plain::Jsonb)) => {
            json.form.clear();
            json.canonicalizer.write(value, &mut json.form).map_err(super::digest::not_json)?;
            if *native == N::Plain(Plain::Jsonb) {
                check_jsonb(value, &json.form)?;
                out.push(JSONB_VERSION);
            }
            out.extend_from_slice(value.as_bytes());
            Ok(())
        }
        (Value::Text(value), native) => {
            if value.contains('\0') {
                return Err("holds a character 0, which PostgreSQL's text cannot".into());
            }
            match native {
                N::Varchar(Some(size)) if longer(value, *size) => {
                    Err(format!("is longer than {size} characters").into())
                }
                N::Bpchar(Some(size)) => put(padded(value, *size)?.as_bytes()),
                N::Plain(Plain::Name | Plain::Enum) if value.len() > NAME_BYTES_MAX => {
                    Err("is longer than a name may be".into())
                }
                _ => put(value.as_bytes()),
            }
        }
        _ => Err("has a value of another type".into()),
    }
}

fn within<T: TryFrom<i64>>(value: i64) -> Result<T, Fault> {
    T::try_from(value).map_err(|_| format!("holds {value}, which is beyond the bounds of the table's column").into())
}

fn decimal(unscaled: i128, scale: i8, size: Option<(u16, i16)>, out: &mut Vec<u8>) -> Result<(), Fault> {
    if size.is_some_and(|size| !numeric::fits(unscaled, scale, size)) {
        return Err("has more digits than the table's column".into());
    }
    numeric::write_decimal(unscaled, scale, out);
    Ok(())
}

fn number(text: &str, size: Option<(u16, i16)>, out: &mut Vec<u8>) -> Result<(), Fault> {
    use crate::number::Number;
    let fits = match (size, Number::parse(text)) {
        (None, _) | (Some(_), Some(Number::NaN)) => true,
        (Some((precision, scale)), Some(Number::Finite(number))) => {
            let (first, second, last) = number.significant();
            let digits = (first.len() + second.len()) as i32;
            let (precision, scale) = (i32::from(precision), i32::from(scale));
            digits == 0 || (last <= scale && digits - last <= precision - scale)
        }
        (Some(_), _) => false,
    };
    if !fits {
        return Err("has more digits than the table's column".into());
    }
    numeric::write_number(text, out)
}

/// Days from 2000-01-01, within what the server takes.
fn date(days: i32) -> Result<i32, Fault> {
    match days {
        i32::MAX | i32::MIN => Ok(days),
        _ => days
            .checked_sub(EPOCH_DAYS)
            .filter(|days| (DATE_MIN..DATE_END).contains(days))
            .ok_or_else(|| "holds a date beyond PostgreSQL's calendar".into()),
    }
}

fn timestamp(us: i64) -> Result<i64, Fault> {
    match us {
        i64::MAX | i64::MIN => Ok(us),
        _ => us
            .checked_sub(EPOCH_US)
            .filter(|us| (TIMESTAMP_MIN..TIMESTAMP_END).contains(us))
            .ok_or_else(|| "holds a time beyond PostgreSQL's calendar".into()),
    }
}

/// Whether a finite time has more digits of a second than these.
fn is_finer(us: i64, digits: u8) -> bool {
    let step = 10i64.pow(6u32.saturating_sub(digits.into()));
    !matches!(us, i64::MAX | i64::MIN) && us % step != 0
}

/// The sixteen bytes of `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`, in the one form that reads back the same.
fn uuid(text: &str) -> Result<[u8; 16], Fault> {
    let wrong = || Fault::from("is no uuid in its canonical form");
    let mut bytes = [0; 16];
    let parts: Vec<&str> = text.split('-').collect();
    let lengths = parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12]);
    if !lengths || text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(wrong());
    }
    hex::decode_to_slice(parts.concat(), &mut bytes).map_err(|_| wrong())?;
    Ok(bytes)
}

/// As [`super::render()`] writes a `"char"`.
fn one_byte(text: &str) -> Result<u8, Fault> {
    match text.as_bytes() {
        [] => Ok(0),
        [byte @ 1..=0x7f] => Ok(*byte),
        [b'\\', a @ b'2'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7'] => {
            Ok((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
        }
        _ => Err("is more than the one byte of its column".into()),
    }
}

/// What jsonb cannot hold, though it is JSON.
fn check_jsonb(text: &str, canonical: &[u8]) -> Result<(), Fault> {
    if text.len() > JSONB_BYTES_MAX {
        return Err("is larger than jsonb can be".into());
    }
    // In the canonical form a character 0 has one spelling, and a number is digits and a power of ten.
    let mut rest = canonical;
    while let Some((byte, after)) = rest.split_first() {
        rest = match byte {
            b'"' => {
                let mut string = after;
                loop {
                    match string {
                        [b'\\', b'u', b'0', b'0', b'0', b'0', ..] => {
                            return Err("holds a character 0, which jsonb cannot".into());
                        }
                        [b'\\', _, after @ ..] => string = after,
                        [b'"', after @ ..] => break after,
                        [_, after @ ..] => string = after,
                        [] => break string,
                    }
                }
            }
            b'0'..=b'9' => {
                let end = |bytes: &[u8]| {
                    bytes.iter().position(|byte| !matches!(byte, b'0'..=b'9' | b'-')).unwrap_or(bytes.len())
                };
                let digits = end(rest);
                let (exponent, after) = match rest.split_at(digits) {
                    (_, [b'e', after @ ..]) => after.split_at(end(after)),
                    (_, after) => (&b"0"[..], after),
                };
                let exponent = std::str::from_utf8(exponent).ok().and_then(|text| text.parse::<i64>().ok());
                let within = exponent.is_some_and(|exponent| {
                    digits as i64 + exponent <= crate::number::WHOLE_DIGITS_MAX as i64
                        && -exponent <= crate::number::FRACTION_DIGITS_MAX as i64
                });
                if !within {
                    return Err("holds a number beyond what jsonb keeps".into());
                }
                after
            }
            _ => after,
        };
    }
    Ok(())
}

fn longer(text: &str, size: u32) -> bool {
    text.len() > size as usize && text.chars().count() > size as usize
}

/// Blanks at the end mean nothing in a char: as many are left out as the column has no place for.
fn padded(text: &str, size: u32) -> Result<&str, Fault> {
    if !longer(text, size) {
        return Ok(text);
    }
    let trimmed = text.trim_end_matches(' ');
    if longer(trimmed, size) { Err(format!("is longer than {size} characters").into()) } else { Ok(trimmed) }
}

const JSONB_VERSION: u8 = 1;
/// A string or container of jsonb has less than 2^28 bytes.
const JSONB_BYTES_MAX: usize = (1 << 28) - 1;
const NAME_BYTES_MAX: usize = 63;
/// From 4714-11-24 BC, days and µs from 2000-01-01.
const DATE_MIN: i32 = -2_451_545;
const DATE_END: i32 = 2_145_031_949;
const TIMESTAMP_MIN: i64 = -211_813_488_000_000_000;
const TIMESTAMP_END: i64 = 9_223_371_331_200_000_000;
