//! Types and values on the line, both ways. What comes in is held to its own length: a value that says less or more
//! than its type allows is an error of the protocol, and so is a type that is not known.

use super::reading::{Broken, Read, Reader, broken, to_utf16, utf16};
use crate::store::calendar::{self, DAY_1900, LAST_DAY, TICKS_A_DAY};
use crate::store::types::{decimal_bytes, time_bytes};
use crate::store::{Collation, Decimal, Kind, Moment, SqlError, Type, Value};
use std::sync::Arc;

/// Of one value; a test that sends more has lost its way.
const VALUE_MAX: usize = 512 << 20;
const PLP_NULL: u64 = u64::MAX;
const PLP_UNKNOWN: u64 = u64::MAX - 1;

/// A type as the line says it. One of fixed length has no null.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WireType {
    pub ty: Type,
    pub code: u8,
    /// Bytes that a value may have.
    pub size: usize,
}

pub fn read_type(reader: &mut Reader) -> Read<WireType> {
    let code = reader.u8()?;
    let plain = |kind: Kind, size: usize| WireType { ty: Type::of(kind), code, size };
    Ok(match code {
        0x1f => plain(Kind::Int, 0),
        0x30 => plain(Kind::TinyInt, 1),
        0x32 => plain(Kind::Bit, 1),
        0x34 => plain(Kind::SmallInt, 2),
        0x38 => plain(Kind::Int, 4),
        0x3a => plain(Kind::SmallDateTime, 4),
        0x3b => plain(Kind::Real, 4),
        0x3c => plain(Kind::Money, 8),
        0x3d => plain(Kind::DateTime, 8),
        0x3e => plain(Kind::Float, 8),
        0x7a => plain(Kind::SmallMoney, 4),
        0x7f => plain(Kind::BigInt, 8),
        0x24 => match reader.u8()? {
            16 => plain(Kind::Guid, 16),
            other => return broken(format!("a uniqueidentifier of {other} bytes")),
        },
        0x26 => match reader.u8()? {
            1 => plain(Kind::TinyInt, 1),
            2 => plain(Kind::SmallInt, 2),
            4 => plain(Kind::Int, 4),
            8 => plain(Kind::BigInt, 8),
            other => return broken(format!("an integer of {other} bytes")),
        },
        0x68 => match reader.u8()? {
            1 => plain(Kind::Bit, 1),
            other => return broken(format!("a bit of {other} bytes")),
        },
        0x6a | 0x6c => {
            let (size, precision, scale) = (reader.u8()?, reader.u8()?, reader.u8()?);
            if !(1..=38).contains(&precision) || scale > precision || size < decimal_bytes(precision) || size > 17 {
                return broken(format!("a decimal({precision},{scale}) of {size} bytes"));
            }
            let kind =
                if code == 0x6a { Kind::Decimal { precision, scale } } else { Kind::Numeric { precision, scale } };
            plain(kind, usize::from(size))
        }
        0x6d => match reader.u8()? {
            4 => plain(Kind::Real, 4),
            8 => plain(Kind::Float, 8),
            other => return broken(format!("a float of {other} bytes")),
        },
        0x6e => match reader.u8()? {
            4 => plain(Kind::SmallMoney, 4),
            8 => plain(Kind::Money, 8),
            other => return broken(format!("money of {other} bytes")),
        },
        0x6f => match reader.u8()? {
            4 => plain(Kind::SmallDateTime, 4),
            8 => plain(Kind::DateTime, 8),
            other => return broken(format!("a datetime of {other} bytes")),
        },
        0x28 => plain(Kind::Date, 3),
        0x29 => {
            let scale = scale(reader)?;
            plain(Kind::Time(scale), usize::from(time_bytes(scale)))
        }
        0x2a => {
            let scale = scale(reader)?;
            plain(Kind::DateTime2(scale), usize::from(time_bytes(scale)) + 3)
        }
        0x2b => {
            let scale = scale(reader)?;
            plain(Kind::DateTimeOffset(scale), usize::from(time_bytes(scale)) + 5)
        }
        0xa5 | 0xad => {
            let size = reader.u16()?;
            let kind = match (code, size) {
                (0xa5, 0xffff) => Kind::VarBinary(None),
                (_, 0 | 8001..) => return broken(format!("bytes of a length of {size}")),
                (0xa5, size) => Kind::VarBinary(Some(size)),
                (_, size) => Kind::Binary(size),
            };
            plain(kind, usize::from(size))
        }
        0xa7 | 0xaf => {
            let size = reader.u16()?;
            let collation = collation(reader)?;
            let kind = match (code, size) {
                (0xa7, 0xffff) => Kind::VarChar(None),
                (_, 8001..) => return broken(format!("a text of a length of {size}")),
                (0xa7, size) => Kind::VarChar(Some(size.max(1))),
                (_, size) => Kind::Char(size.max(1)),
            };
            WireType { ty: Type::collated(kind, collation), code, size: usize::from(size) }
        }
        0xe7 | 0xef => {
            let size = reader.u16()?;
            let collation = collation(reader)?;
            let kind = match (code, size) {
                (0xe7, 0xffff) => Kind::NVarChar(None),
                (_, 8001..) => return broken(format!("a text of a length of {size}")),
                (_, size) if size % 2 == 1 => return broken(format!("a text of UTF-16 of a length of {size}")),
                (0xe7, size) => Kind::NVarChar(Some((size / 2).max(1))),
                (_, size) => Kind::NChar((size / 2).max(1)),
            };
            WireType { ty: Type::collated(kind, collation), code, size: usize::from(size) }
        }
        0x22 => plain(Kind::Image, reader.u32()? as usize),
        0x23 | 0x63 => {
            let size = reader.u32()? as usize;
            let collation = collation(reader)?;
            let kind = if code == 0x23 { Kind::Text } else { Kind::NText };
            WireType { ty: Type::collated(kind, collation), code, size }
        }
        0xf1 => match reader.u8()? {
            0 => plain(Kind::Xml, 0xffff),
            _ => return broken("xml with a schema"),
        },
        other => return broken(format!("type 0x{other:02x} is not known")),
    })
}

fn scale(reader: &mut Reader) -> Read<u8> {
    match reader.u8()? {
        scale @ 0..=7 => Ok(scale),
        other => broken(format!("a scale of {other}")),
    }
}

fn collation(reader: &mut Reader) -> Read<&'static Collation> {
    let bytes = reader.take(5)?;
    // Clients send back what they were told, or nothing at all, which stands for the usual one.
    if bytes == [0; 5] {
        return Ok(Collation::usual());
    }
    Collation::by_wire(bytes).ok_or_else(|| Broken(format!("collation {bytes:02x?} is not known")))
}

/// A value by its own length.
pub fn read_value(reader: &mut Reader, wire: &WireType) -> Read<Value> {
    let kind = wire.ty.kind;
    let bytes = match wire.code {
        0x1f => return Ok(Value::Null),
        0x30..=0x3f | 0x7a | 0x7f => reader.take(wire.size)?,
        0x22 | 0x23 | 0x63 => {
            let pointer = usize::from(reader.u8()?);
            if pointer == 0 {
                return Ok(Value::Null);
            }
            reader.take(pointer)?;
            reader.take(8)?;
            let length = reader.u32()? as usize;
            bounded(length)?;
            reader.take(length)?
        }
        0xa5 | 0xa7 | 0xe7 | 0xf1 if wire.size == 0xffff => {
            let Some(bytes) = read_plp(reader)? else { return Ok(Value::Null) };
            return of_bytes(&bytes, wire);
        }
        0xa5 | 0xad | 0xa7 | 0xaf | 0xe7 | 0xef => {
            let length = reader.u16()?;
            if length == 0xffff {
                return Ok(Value::Null);
            }
            if usize::from(length) > wire.size {
                return broken(format!("a value of {length} bytes in a {}", kind.declared()));
            }
            reader.take(usize::from(length))?
        }
        _ => {
            let length = usize::from(reader.u8()?);
            if length == 0 {
                return Ok(Value::Null);
            }
            let decimal = matches!(kind, Kind::Decimal { .. } | Kind::Numeric { .. });
            let right =
                if decimal { matches!(length, 5 | 9 | 13 | 17) && length <= wire.size } else { length == wire.size };
            if !right {
                return broken(format!("a value of {length} bytes in a {}", kind.declared()));
            }
            reader.take(length)?
        }
    };
    of_bytes(bytes, wire)
}

/// A value of `max` length, in parts.
fn read_plp(reader: &mut Reader) -> Read<Option<Vec<u8>>> {
    let total = reader.u64()?;
    if total == PLP_NULL {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    loop {
        let part = reader.u32()? as usize;
        if part == 0 {
            break;
        }
        bounded(bytes.len() + part)?;
        bytes.extend_from_slice(reader.take(part)?);
    }
    if total != PLP_UNKNOWN && total != bytes.len() as u64 {
        return broken(format!("a value of {total} bytes came with {}", bytes.len()));
    }
    Ok(Some(bytes))
}

fn bounded(length: usize) -> Read<()> {
    if length > VALUE_MAX { broken(format!("a value of {length} bytes")) } else { Ok(()) }
}

fn of_bytes(bytes: &[u8], wire: &WireType) -> Read<Value> {
    let kind = wire.ty.kind;
    Ok(match kind {
        Kind::Bit => match bytes {
            [0] => Value::Bit(false),
            [1] => Value::Bit(true),
            _ => return broken("a bit that is neither 0 nor 1"),
        },
        Kind::TinyInt => Value::Int(unsigned(bytes) as i64),
        Kind::SmallInt => Value::Int(i64::from((unsigned(bytes) as u16).cast_signed())),
        Kind::Int => Value::Int(i64::from((unsigned(bytes) as u32).cast_signed())),
        Kind::BigInt => Value::Int((unsigned(bytes) as u64).cast_signed()),
        Kind::Real => Value::Float(f64::from(f32::from_bits(unsigned(bytes) as u32))),
        Kind::Float => Value::Float(f64::from_bits(unsigned(bytes) as u64)),
        Kind::SmallMoney => Value::Decimal(Decimal::new(i128::from((unsigned(bytes) as u32).cast_signed()), 4)),
        Kind::Money => {
            // The high half comes first.
            let (high, low) = bytes.split_at(4);
            let units = ((unsigned(high) as u64) << 32 | unsigned(low) as u64).cast_signed();
            Value::Decimal(Decimal::new(i128::from(units), 4))
        }
        Kind::Decimal { precision, scale } | Kind::Numeric { precision, scale } => {
            let Some((sign, digits)) = bytes.split_first() else { return broken("a decimal without a sign") };
            let unscaled = i128::try_from(unsigned(digits)).map_err(|_| Broken("a decimal beyond 38 digits".into()))?;
            let decimal = match sign {
                0 => Decimal::new(-unscaled, scale),
                1 => Decimal::new(unscaled, scale),
                other => return broken(format!("a decimal with a sign of {other}")),
            };
            if !decimal.fits(precision) {
                return broken(format!("{decimal} in a decimal({precision},{scale})"));
            }
            Value::Decimal(decimal)
        }
        Kind::Guid => {
            let wire = <[u8; 16]>::try_from(bytes).map_err(|_| Broken("a uniqueidentifier".into()))?;
            Value::Guid(guid_from_wire(&wire))
        }
        Kind::Date => Value::Date(day(bytes)?),
        Kind::Time(scale) => Value::Time(ticks(bytes, scale)?),
        Kind::DateTime2(scale) => {
            let (time, date) = bytes.split_at(bytes.len() - 3);
            Value::Moment(Moment { days: day(date)?, ticks: ticks(time, scale)? })
        }
        Kind::DateTimeOffset(scale) => {
            let (time, rest) = bytes.split_at(bytes.len() - 5);
            let (date, zone) = rest.split_at(3);
            let minutes = (unsigned(zone) as u16).cast_signed();
            if !(-840..=840).contains(&minutes) {
                return broken(format!("a zone of {minutes} minutes"));
            }
            Value::Offset(Moment { days: day(date)?, ticks: ticks(time, scale)? }, minutes)
        }
        Kind::DateTime => {
            let (date, time) = bytes.split_at(4);
            let days = i64::from((unsigned(date) as u32).cast_signed()) + i64::from(DAY_1900);
            let thirds = unsigned(time) as i64;
            if !(i64::from(calendar::DAY_1753)..=i64::from(LAST_DAY)).contains(&days) || thirds >= 86_400 * 300 {
                return broken("a datetime out of its range");
            }
            Value::Moment(Moment { days: days as i32, ticks: calendar::from_thirds(thirds) })
        }
        Kind::SmallDateTime => {
            let (date, minutes) = bytes.split_at(2);
            let (days, minutes) = (unsigned(date) as i32, unsigned(minutes) as i64);
            if minutes >= 1440 {
                return broken("a smalldatetime out of its range");
            }
            Value::Moment(Moment { days: DAY_1900 + days, ticks: minutes * 60 * calendar::TICKS_A_SECOND })
        }
        Kind::NChar(_) | Kind::NVarChar(_) | Kind::NText | Kind::Xml => Value::text(utf16(bytes)?),
        Kind::Char(_) | Kind::VarChar(_) | Kind::Text => match wire.ty.collation.decode(bytes) {
            Some(text) => Value::text(text),
            None => Value::Narrow(Arc::from(bytes)),
        },
        Kind::Binary(_) | Kind::VarBinary(_) | Kind::Image | Kind::RowVersion => Value::bytes(bytes),
        Kind::Foreign(name) => return broken(format!("a value of {name}")),
    })
}

fn unsigned(bytes: &[u8]) -> u128 {
    bytes.iter().rev().fold(0_u128, |number, byte| (number << 8) | u128::from(*byte))
}

fn day(bytes: &[u8]) -> Read<i32> {
    match i32::try_from(unsigned(bytes)) {
        Ok(days) if (0..=LAST_DAY).contains(&days) => Ok(days),
        _ => broken("a day beyond the year 9999"),
    }
}

fn ticks(bytes: &[u8], scale: u8) -> Read<i64> {
    let unit = 10_i64.pow(u32::from(7 - scale));
    let ticks = i64::try_from(unsigned(bytes)).ok().and_then(|units| units.checked_mul(unit));
    match ticks {
        Some(ticks) if ticks < TICKS_A_DAY => Ok(ticks),
        _ => broken("a time beyond the end of the day"),
    }
}

/// The first three fields stand in the other order of bytes.
pub fn guid_from_wire(wire: &[u8; 16]) -> [u8; 16] {
    let [a, b, c, d, e, f, g, h, rest @ ..] = *wire;
    let [i, j, k, l, m, n, o, p] = rest;
    [d, c, b, a, f, e, h, g, i, j, k, l, m, n, o, p]
}

pub fn guid_to_wire(guid: &[u8; 16]) -> [u8; 16] {
    guid_from_wire(guid)
}

// What goes out.

/// Type information of a result column. Where there is no null the types of fixed length are used, as there.
pub fn write_type(out: &mut Vec<u8>, ty: Type, nullable: bool) -> Result<(), SqlError> {
    let short = |size: u16, out: &mut Vec<u8>| out.extend_from_slice(&size.to_le_bytes());
    let fixed = match ty.kind {
        Kind::Bit => Some((0x32, 0x68, 1)),
        Kind::TinyInt => Some((0x30, 0x26, 1)),
        Kind::SmallInt => Some((0x34, 0x26, 2)),
        Kind::Int => Some((0x38, 0x26, 4)),
        Kind::BigInt => Some((0x7f, 0x26, 8)),
        Kind::Real => Some((0x3b, 0x6d, 4)),
        Kind::Float => Some((0x3e, 0x6d, 8)),
        Kind::Money => Some((0x3c, 0x6e, 8)),
        Kind::SmallMoney => Some((0x7a, 0x6e, 4)),
        Kind::DateTime => Some((0x3d, 0x6f, 8)),
        Kind::SmallDateTime => Some((0x3a, 0x6f, 4)),
        _ => None,
    };
    if let Some((code, variable, size)) = fixed {
        if nullable {
            out.extend_from_slice(&[variable, size]);
        } else {
            out.push(code);
        }
        return Ok(());
    }
    match ty.kind {
        Kind::Decimal { precision, scale } => {
            out.extend_from_slice(&[0x6a, decimal_bytes(precision), precision, scale])
        }
        Kind::Numeric { precision, scale } => {
            out.extend_from_slice(&[0x6c, decimal_bytes(precision), precision, scale])
        }
        Kind::Guid => out.extend_from_slice(&[0x24, 16]),
        Kind::Date => out.push(0x28),
        Kind::Time(scale) => out.extend_from_slice(&[0x29, scale]),
        Kind::DateTime2(scale) => out.extend_from_slice(&[0x2a, scale]),
        Kind::DateTimeOffset(scale) => out.extend_from_slice(&[0x2b, scale]),
        Kind::Binary(size) => {
            out.push(0xad);
            short(size, out);
        }
        Kind::RowVersion => {
            out.push(0xad);
            short(8, out);
        }
        Kind::VarBinary(size) => {
            out.push(0xa5);
            short(size.unwrap_or(0xffff), out);
        }
        Kind::Char(size) => {
            out.push(0xaf);
            short(size, out);
            out.extend_from_slice(&ty.collation.wire());
        }
        Kind::VarChar(size) => {
            out.push(0xa7);
            short(size.unwrap_or(0xffff), out);
            out.extend_from_slice(&ty.collation.wire());
        }
        Kind::NChar(units) => {
            out.push(0xef);
            short(units * 2, out);
            out.extend_from_slice(&ty.collation.wire());
        }
        Kind::NVarChar(units) => {
            out.push(0xe7);
            short(units.map_or(0xffff, |units| units * 2), out);
            out.extend_from_slice(&ty.collation.wire());
        }
        Kind::Xml => {
            out.extend_from_slice(&[0xf1, 0]);
        }
        Kind::Text | Kind::NText => {
            out.push(if ty.kind == Kind::Text { 0x23 } else { 0x63 });
            out.extend_from_slice(&(i32::MAX as u32).to_le_bytes());
            out.extend_from_slice(&ty.collation.wire());
        }
        Kind::Image => {
            out.push(0x22);
            out.extend_from_slice(&(i32::MAX as u32).to_le_bytes());
        }
        other => return Err(SqlError::unknown(format!("a result of type {}", other.declared()))),
    }
    Ok(())
}

/// A value as a row has it.
pub fn write_value(out: &mut Vec<u8>, value: &Value, ty: Type, nullable: bool) -> Result<(), SqlError> {
    let kind = ty.kind;
    if value.is_null() {
        match kind {
            Kind::Char(_) | Kind::NChar(_) | Kind::Binary(_) | Kind::RowVersion => out.extend_from_slice(&[0xff, 0xff]),
            Kind::VarChar(Some(_)) | Kind::NVarChar(Some(_)) | Kind::VarBinary(Some(_)) => {
                out.extend_from_slice(&[0xff, 0xff]);
            }
            Kind::VarChar(None) | Kind::NVarChar(None) | Kind::VarBinary(None) | Kind::Xml => {
                out.extend_from_slice(&PLP_NULL.to_le_bytes());
            }
            // Text, image and what has its length in one byte.
            _ => out.push(0),
        }
        return Ok(());
    }
    let length = |out: &mut Vec<u8>, size: u8| {
        if nullable {
            out.push(size);
        }
    };
    match (kind, value) {
        (Kind::Bit, Value::Bit(bit)) => {
            length(out, 1);
            out.push(u8::from(*bit));
        }
        (Kind::TinyInt, Value::Int(int)) => {
            length(out, 1);
            out.push(*int as u8);
        }
        (Kind::SmallInt, Value::Int(int)) => {
            length(out, 2);
            out.extend_from_slice(&(*int as i16).to_le_bytes());
        }
        (Kind::Int, Value::Int(int)) => {
            length(out, 4);
            out.extend_from_slice(&(*int as i32).to_le_bytes());
        }
        (Kind::BigInt, Value::Int(int)) => {
            length(out, 8);
            out.extend_from_slice(&int.to_le_bytes());
        }
        (Kind::Real, Value::Float(float)) => {
            length(out, 4);
            out.extend_from_slice(&(*float as f32).to_le_bytes());
        }
        (Kind::Float, Value::Float(float)) => {
            length(out, 8);
            out.extend_from_slice(&float.to_le_bytes());
        }
        (Kind::Money, Value::Decimal(decimal)) => {
            length(out, 8);
            let units = (decimal.unscaled as i64).cast_unsigned();
            out.extend_from_slice(&((units >> 32) as u32).to_le_bytes());
            out.extend_from_slice(&(units as u32).to_le_bytes());
        }
        (Kind::SmallMoney, Value::Decimal(decimal)) => {
            length(out, 4);
            out.extend_from_slice(&(decimal.unscaled as i32).to_le_bytes());
        }
        (Kind::Decimal { precision, .. } | Kind::Numeric { precision, .. }, Value::Decimal(decimal)) => {
            let size = decimal_bytes(precision);
            out.push(size);
            out.push(u8::from(decimal.unscaled >= 0));
            let digits = decimal.unscaled.unsigned_abs().to_le_bytes();
            out.extend(digits.iter().take(usize::from(size) - 1));
        }
        (Kind::Guid, Value::Guid(guid)) => {
            out.push(16);
            out.extend_from_slice(&guid_to_wire(guid));
        }
        (Kind::Date, Value::Date(days)) => {
            out.push(3);
            write_day(out, *days);
        }
        (Kind::Time(scale), Value::Time(ticks)) => {
            out.push(time_bytes(scale));
            write_ticks(out, *ticks, scale);
        }
        (Kind::DateTime2(scale), Value::Moment(moment)) => {
            out.push(time_bytes(scale) + 3);
            write_ticks(out, moment.ticks, scale);
            write_day(out, moment.days);
        }
        (Kind::DateTimeOffset(scale), Value::Offset(moment, minutes)) => {
            out.push(time_bytes(scale) + 5);
            write_ticks(out, moment.ticks, scale);
            write_day(out, moment.days);
            out.extend_from_slice(&minutes.to_le_bytes());
        }
        (Kind::DateTime, Value::Moment(moment)) => {
            length(out, 8);
            out.extend_from_slice(&(moment.days - DAY_1900).to_le_bytes());
            out.extend_from_slice(&(calendar::thirds(moment.ticks) as u32).to_le_bytes());
        }
        (Kind::SmallDateTime, Value::Moment(moment)) => {
            length(out, 4);
            out.extend_from_slice(&((moment.days - DAY_1900) as u16).to_le_bytes());
            let minutes = moment.ticks / (60 * calendar::TICKS_A_SECOND);
            out.extend_from_slice(&(minutes as u16).to_le_bytes());
        }
        (kind, Value::Text(text)) if kind.is_unicode() => write_bytes(out, kind, &to_utf16(text))?,
        (kind, Value::Text(text)) if kind.is_text() => write_bytes(out, kind, &ty.collation.encode(text))?,
        (kind, Value::Narrow(bytes)) if kind.is_text() && !kind.is_unicode() => write_bytes(out, kind, bytes)?,
        (kind, Value::Bytes(bytes)) if kind.is_binary() => write_bytes(out, kind, bytes)?,
        (kind, value) => return Err(SqlError::unknown(format!("a {} that holds {value:?}", kind.declared()))),
    }
    Ok(())
}

fn write_bytes(out: &mut Vec<u8>, kind: Kind, bytes: &[u8]) -> Result<(), SqlError> {
    match kind {
        Kind::VarChar(None) | Kind::NVarChar(None) | Kind::VarBinary(None) | Kind::Xml => {
            out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            // In parts, so that readers meet more than one.
            for part in bytes.chunks(32_000) {
                out.extend_from_slice(&(part.len() as u32).to_le_bytes());
                out.extend_from_slice(part);
            }
            out.extend_from_slice(&0_u32.to_le_bytes());
        }
        Kind::Text | Kind::NText | Kind::Image => {
            out.push(16);
            out.extend_from_slice(&[0x2a; 16]);
            out.extend_from_slice(&[0; 8]);
            out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            out.extend_from_slice(bytes);
        }
        kind => {
            let length = u16::try_from(bytes.len()).ok().filter(|length| *length <= 8000);
            let length =
                length.ok_or_else(|| SqlError::unknown(format!("{} bytes in a {}", bytes.len(), kind.declared())))?;
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(bytes);
        }
    }
    Ok(())
}

fn write_day(out: &mut Vec<u8>, days: i32) {
    out.extend(days.to_le_bytes().iter().take(3));
}

fn write_ticks(out: &mut Vec<u8>, ticks: i64, scale: u8) {
    let units = ticks / 10_i64.pow(u32::from(7 - scale.min(7)));
    out.extend(units.to_le_bytes().iter().take(usize::from(time_bytes(scale))));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::convert::{Mode, convert, show};

    /// Text into a type, onto the line and back.
    fn there_and_back(text: &str, kind: Kind) -> String {
        let ty = Type::of(kind);
        let value = convert(&Value::text(text), Type::of(Kind::NVarChar(None)), ty, Mode::Cast, None).expect("a value");
        for nullable in [true, false] {
            let mut bytes = Vec::new();
            write_type(&mut bytes, ty, nullable).expect("a type");
            write_value(&mut bytes, &value, ty, nullable).expect("a value");
            let mut reader = Reader::new(&bytes);
            let wire = read_type(&mut reader).expect("a type");
            assert_eq!(read_value(&mut reader, &wire), Ok(value.clone()), "{text} {}", kind.declared());
            assert!(reader.is_empty(), "{text}");
        }
        let mut null = Vec::new();
        write_type(&mut null, ty, true).expect("a type");
        write_value(&mut null, &Value::Null, ty, true).expect("a null");
        let mut reader = Reader::new(&null);
        let wire = read_type(&mut reader).expect("a type");
        assert_eq!(read_value(&mut reader, &wire), Ok(Value::Null), "{}", kind.declared());
        assert!(reader.is_empty());
        show(&value, ty, Some(2))
    }

    #[test]
    fn values_of_every_type_come_back_as_they_went() {
        let decimal = |precision, scale| Kind::Decimal { precision, scale };
        for (text, kind) in [
            ("1", Kind::Bit),
            ("255", Kind::TinyInt),
            ("-32768", Kind::SmallInt),
            ("-2147483648", Kind::Int),
            ("-9223372036854775808", Kind::BigInt),
            ("-99999999999999999999999999999999999999", decimal(38, 0)),
            ("0.0000000123", decimal(38, 10)),
            ("-12.34", decimal(9, 2)),
            ("-922337203685477.5807", Kind::Money),
            ("214748.3647", Kind::SmallMoney),
            ("1.5", Kind::Real),
            ("0.1", Kind::Float),
            ("9999-12-31", Kind::Date),
            ("23:59:59.9999999", Kind::Time(7)),
            ("23:59:59", Kind::Time(0)),
            ("1753-01-01 00:00:00.003", Kind::DateTime),
            ("2079-06-06 23:59:00", Kind::SmallDateTime),
            ("0001-01-01 00:00:00.1234567", Kind::DateTime2(7)),
            ("2024-02-29 12:00:00.123 -05:30", Kind::DateTimeOffset(3)),
            ("6F9619FF-8B86-D011-B42D-00C04FC964FF", Kind::Guid),
            ("驿站", Kind::VarChar(Some(10))),
            ("驿站  ", Kind::Char(6)),
            ("驿😀", Kind::NVarChar(Some(10))),
            ("", Kind::NVarChar(None)),
            ("长文", Kind::NText),
        ] {
            assert_eq!(there_and_back(text, kind), text, "{}", kind.declared());
        }
        let long = "驿".repeat(100_000);
        assert_eq!(there_and_back(&long, Kind::NVarChar(None)), long);
        assert_eq!(there_and_back(&long, Kind::VarChar(None)), long);
    }

    #[test]
    fn a_value_that_belies_its_length_is_broken() {
        let value = |bytes: &[u8]| {
            let mut reader = Reader::new(bytes);
            let wire = read_type(&mut reader)?;
            read_value(&mut reader, &wire)
        };
        assert_eq!(value(&[0x26, 4, 4, 1, 0, 0, 0]), Ok(Value::Int(1)));
        // A decimal keeps what its own length says, and no more.
        assert_eq!(value(&[0x6a, 17, 38, 2, 5, 1, 7, 0, 0, 0]), Ok(Value::Decimal(Decimal::new(7, 2))));
        for wrong in [
            &[0x26_u8, 4, 2, 1, 0][..],
            &[0x6a, 17, 38, 2, 6, 1, 7, 0, 0, 0, 0],
            &[0x6a, 5, 9, 2, 5, 3, 7, 0, 0, 0],
            &[0x6a, 5, 3, 0, 5, 1, 0xe8, 3, 0, 0],
            &[0x29, 7, 4, 0, 0, 0, 0],
            &[0x68, 1, 1, 2],
            &[0xe7, 4, 0, 0, 0, 0, 0, 0, 6, 0, 0x41, 0, 0x41, 0, 0x41, 0],
            &[0xe7, 0xff, 0xff, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0x41, 0, 0, 0, 0, 0],
            &[0x62, 0, 0, 0, 0],
        ] {
            assert!(value(wrong).is_err(), "{wrong:02x?}");
        }
    }
}
