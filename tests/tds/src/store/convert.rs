//! Values from one type into another: with CAST, and on the way into a column, which truncates nothing.

use super::calendar::{self, DAY_1753, DAY_1900, LAST_DAY};
use super::value::{guid_text, hex, parse_guid};
use super::{Decimal, Kind, Moment, SqlError, Type, Value};
use std::sync::Arc;

/// CAST cuts a text that is too long without a word; a column refuses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Cast,
    Assign,
}

pub fn convert(value: &Value, from: Type, to: Type, mode: Mode, style: Option<i64>) -> Result<Value, SqlError> {
    if value.is_null() {
        return Ok(Value::Null);
    }
    match to.kind {
        Kind::Bit => to_bit(value, from, to),
        Kind::TinyInt | Kind::SmallInt | Kind::Int | Kind::BigInt => to_int(value, from, to),
        Kind::Decimal { precision, scale } | Kind::Numeric { precision, scale } => {
            to_decimal(value, from, to, precision, scale)
        }
        Kind::Money | Kind::SmallMoney => to_money(value, from, to),
        Kind::Real | Kind::Float => to_float(value, from, to),
        Kind::Char(_)
        | Kind::VarChar(_)
        | Kind::NChar(_)
        | Kind::NVarChar(_)
        | Kind::Text
        | Kind::NText
        | Kind::Xml => to_text(value, from, to, mode, style),
        Kind::Binary(_) | Kind::VarBinary(_) | Kind::Image | Kind::RowVersion => to_bytes(value, from, to, mode, style),
        Kind::Date
        | Kind::Time(_)
        | Kind::DateTime
        | Kind::SmallDateTime
        | Kind::DateTime2(_)
        | Kind::DateTimeOffset(_) => to_moment(value, from, to),
        Kind::Guid => to_guid(value, from, to),
        Kind::Foreign(_) => match value {
            Value::Text(_) | Value::Bytes(_) | Value::Int(_) => Ok(value.clone()),
            _ => Err(not_allowed(from, to)),
        },
    }
}

fn to_bit(value: &Value, from: Type, to: Type) -> Result<Value, SqlError> {
    Ok(Value::Bit(match value {
        Value::Bit(bit) => *bit,
        Value::Int(int) => *int != 0,
        Value::Decimal(decimal) => decimal.unscaled != 0,
        Value::Float(float) => *float != 0.0,
        Value::Text(text) => match text.trim().to_ascii_lowercase().as_str() {
            "true" => true,
            "false" => false,
            number => number.parse::<i64>().map_err(|_| failed(text, from, to))? != 0,
        },
        _ => return Err(not_allowed(from, to)),
    }))
}

fn to_int(value: &Value, from: Type, to: Type) -> Result<Value, SqlError> {
    let wide: i128 = match value {
        Value::Bit(bit) => i128::from(*bit),
        Value::Int(int) => i128::from(*int),
        Value::Decimal(decimal) if from.kind.is_money() => {
            decimal.rescale(0).map_or_else(|| decimal.truncate(), |d| d.unscaled)
        }
        Value::Decimal(decimal) => decimal.truncate(),
        Value::Float(float) => {
            if !float.is_finite() || float.abs() >= 1e19 {
                return Err(overflow(to));
            }
            float.trunc() as i128
        }
        Value::Text(text) => {
            let trimmed = text.trim();
            let digits = trimmed.strip_prefix('+').unwrap_or(trimmed);
            if digits.is_empty() { 0 } else { digits.parse::<i128>().map_err(|_| failed(text, from, to))? }
        }
        Value::Bytes(bytes) => {
            let used = bytes.len().saturating_sub(8);
            let int = bytes.iter().skip(used).fold(0_u64, |int, byte| (int << 8) | u64::from(*byte));
            let int = match to.kind {
                Kind::BigInt => i128::from(int.cast_signed()),
                Kind::Int => i128::from((int as u32).cast_signed()),
                Kind::SmallInt => i128::from((int as u16).cast_signed()),
                _ => i128::from(int as u8),
            };
            return Ok(Value::Int(int as i64));
        }
        _ => return Err(not_allowed(from, to)),
    };
    let range = match to.kind {
        Kind::TinyInt => 0..=255,
        Kind::SmallInt => i128::from(i16::MIN)..=i128::from(i16::MAX),
        Kind::Int => i128::from(i32::MIN)..=i128::from(i32::MAX),
        _ => i128::from(i64::MIN)..=i128::from(i64::MAX),
    };
    if !range.contains(&wide) {
        return Err(overflow(to));
    }
    Ok(Value::Int(i64::try_from(wide).unwrap_or_default()))
}

/// The exact number that a value is, where it is one.
fn exact(value: &Value, from: Type, to: Type) -> Result<Decimal, SqlError> {
    Ok(match value {
        Value::Bit(bit) => Decimal::new(i128::from(*bit), 0),
        Value::Int(int) => Decimal::new(i128::from(*int), 0),
        Value::Decimal(decimal) => *decimal,
        Value::Float(float) => {
            if !float.is_finite() || float.abs() >= 1e38 {
                return Err(overflow(to));
            }
            // Seventeen digits tell a float apart from its neighbours.
            Decimal::parse(&format!("{float:.16e}")).ok_or_else(|| overflow(to))?
        }
        Value::Text(text) => Decimal::parse(text).ok_or_else(|| {
            SqlError::new(8114, format!("Error converting data type {} to {}.", from.kind.name(), to.kind.name()))
        })?,
        _ => return Err(not_allowed(from, to)),
    })
}

fn to_decimal(value: &Value, from: Type, to: Type, precision: u8, scale: u8) -> Result<Value, SqlError> {
    let number = exact(value, from, to)?;
    let fits = number.rescale(scale).filter(|number| number.fits(precision));
    fits.map(Value::Decimal).ok_or_else(|| {
        SqlError::new(
            8115,
            format!("Arithmetic overflow error converting {} to data type {}.", from.kind.name(), to.kind.name()),
        )
    })
}

fn to_money(value: &Value, from: Type, to: Type) -> Result<Value, SqlError> {
    let number = exact(value, from, to)?.rescale(4).ok_or_else(|| overflow(to))?;
    let range = if to.kind == Kind::SmallMoney {
        i128::from(i32::MIN)..=i128::from(i32::MAX)
    } else {
        i128::from(i64::MIN)..=i128::from(i64::MAX)
    };
    if range.contains(&number.unscaled) { Ok(Value::Decimal(number)) } else { Err(overflow(to)) }
}

fn to_float(value: &Value, from: Type, to: Type) -> Result<Value, SqlError> {
    let float = match value {
        Value::Bit(bit) => f64::from(u8::from(*bit)),
        Value::Int(int) => *int as f64,
        Value::Decimal(decimal) => decimal.to_f64(),
        Value::Float(float) => *float,
        Value::Text(text) => text.trim().parse().map_err(|_| {
            SqlError::new(8114, format!("Error converting data type {} to {}.", from.kind.name(), to.kind.name()))
        })?,
        _ => return Err(not_allowed(from, to)),
    };
    let float = if to.kind == Kind::Real { f64::from(float as f32) } else { float };
    if float.is_finite() {
        Ok(Value::Float(float))
    } else {
        Err(SqlError::new(232, format!("Arithmetic overflow error for type {}, value = {float}.", to.kind.name())))
    }
}

fn to_text(value: &Value, from: Type, to: Type, mode: Mode, style: Option<i64>) -> Result<Value, SqlError> {
    if let Value::Narrow(bytes) = value {
        // As long as the code page stays the bytes do.
        if !to.kind.is_unicode() && from.collation.encoding == to.collation.encoding {
            return Ok(value.clone());
        }
        let text = from.collation.encoding.decode_without_bom_handling(bytes).0;
        return fit_text(&text, from, to, mode);
    }
    if let (Value::Bytes(bytes), false) = (value, from.kind.is_text()) {
        return match style {
            Some(1) => fit_text(&format!("0x{}", hex(bytes)), from, to, mode),
            Some(2) => fit_text(&hex(bytes), from, to, mode),
            _ if to.kind.is_unicode() => {
                let units: Vec<u16> =
                    bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
                fit_text(&String::from_utf16_lossy(&units), from, to, mode)
            }
            _ => match to.collation.decode(bytes) {
                Some(text) => fit_text(&text, from, to, mode),
                None => Ok(Value::Narrow(Arc::clone(bytes))),
            },
        };
    }
    fit_text(&show(value, from, style), from, to, mode)
}

/// A text within its type's length: padded, cut, or refused.
fn fit_text(text: &str, from: Type, to: Type, mode: Mode) -> Result<Value, SqlError> {
    let (most, pad, unicode) = match to.kind {
        Kind::Char(n) => (Some(usize::from(n)), true, false),
        Kind::NChar(n) => (Some(usize::from(n)), true, true),
        Kind::VarChar(n) => (n.map(usize::from), false, false),
        Kind::NVarChar(n) => (n.map(usize::from), false, true),
        Kind::Text => (None, false, false),
        _ => (None, false, true),
    };
    // A character that the code page lacks is a question mark from here on.
    let held = if unicode || text.is_ascii() {
        std::borrow::Cow::Borrowed(text)
    } else {
        let encoded = to.collation.encode(text);
        std::borrow::Cow::Owned(to.collation.encoding.decode_without_bom_handling(&encoded).0.into_owned())
    };
    let size = |c: char| if unicode { c.len_utf16() } else { to.collation.encode(c.encode_utf8(&mut [0; 4])).len() };
    let length = if held.is_ascii() { held.len() } else { held.chars().map(size).sum() };
    let Some(most) = most else { return Ok(Value::text(held)) };
    if length <= most {
        if !pad {
            return Ok(Value::text(held));
        }
        let mut padded = held.into_owned();
        padded.extend(std::iter::repeat_n(' ', most - length));
        return Ok(Value::Text(Arc::from(padded)));
    }
    let mut room = most;
    let mut cut = String::with_capacity(most);
    let mut rest = held.chars();
    for c in rest.by_ref() {
        let Some(left) = room.checked_sub(size(c)) else {
            if mode == Mode::Assign {
                return Err(truncated(text));
            }
            break;
        };
        room = left;
        cut.push(c);
        if room == 0 {
            break;
        }
    }
    if mode == Mode::Assign && rest.any(|c| c != ' ') {
        return Err(truncated(text));
    }
    if mode == Mode::Cast && from.kind.is_number() {
        return Err(SqlError::new(
            8115,
            format!("Arithmetic overflow error converting expression to data type {}.", to.kind.name()),
        ));
    }
    if pad {
        cut.extend(std::iter::repeat_n(' ', room));
    }
    Ok(Value::Text(Arc::from(cut)))
}

fn to_bytes(value: &Value, from: Type, to: Type, mode: Mode, style: Option<i64>) -> Result<Value, SqlError> {
    let bytes: Vec<u8> = match value {
        Value::Bytes(bytes) => bytes.to_vec(),
        Value::Narrow(bytes) => bytes.to_vec(),
        Value::Text(text) => match style {
            Some(1 | 2) => {
                let digits = text.strip_prefix("0x").unwrap_or(text);
                super::value::unhex(digits).ok_or_else(|| failed(text, from, to))?
            }
            _ if mode == Mode::Assign => return Err(not_allowed(from, to)),
            _ if from.kind.is_unicode() => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            _ => from.collation.encode(text).into_owned(),
        },
        Value::Int(int) => {
            let bytes = int.to_be_bytes();
            let used = match from.kind {
                Kind::TinyInt => 7,
                Kind::SmallInt => 6,
                Kind::Int => 4,
                _ => 0,
            };
            let bytes = bytes.get(used..).unwrap_or_default().to_vec();
            // An integer keeps its low bytes: it stands at the right.
            match to.kind {
                Kind::Binary(n) if usize::from(n) > bytes.len() => {
                    let mut wide = vec![0; usize::from(n) - bytes.len()];
                    wide.extend(bytes);
                    wide
                }
                _ => match to.kind.length() {
                    Some(n) if usize::from(n) < bytes.len() => {
                        bytes.get(bytes.len() - usize::from(n)..).unwrap_or_default().to_vec()
                    }
                    _ => bytes,
                },
            }
        }
        Value::Bit(bit) => vec![u8::from(*bit)],
        Value::Guid(guid) => crate::wire::types::guid_to_wire(guid).to_vec(),
        _ => return Err(not_allowed(from, to)),
    };
    let mut bytes = bytes;
    if let Some(most) = to.kind.length().map(usize::from) {
        if bytes.len() > most {
            if mode == Mode::Assign && bytes.iter().skip(most).any(|byte| *byte != 0) {
                return Err(SqlError::new(
                    2628,
                    format!(
                        "String or binary data would be truncated. Truncated value: '{}'.",
                        hex(bytes.get(..most).unwrap_or_default())
                    ),
                ));
            }
            bytes.truncate(most);
        }
        if matches!(to.kind, Kind::Binary(_) | Kind::RowVersion) {
            bytes.resize(most, 0);
        }
    }
    Ok(Value::Bytes(Arc::from(bytes)))
}

fn to_guid(value: &Value, from: Type, to: Type) -> Result<Value, SqlError> {
    match value {
        Value::Guid(_) => Ok(value.clone()),
        Value::Text(text) => parse_guid(text).map(Value::Guid).ok_or_else(|| {
            SqlError::new(8169, "Conversion failed when converting from a character string to uniqueidentifier.")
        }),
        Value::Bytes(bytes) => <[u8; 16]>::try_from(bytes.as_ref())
            .map(|wire| Value::Guid(crate::wire::types::guid_from_wire(&wire)))
            .map_err(|_| not_allowed(from, to)),
        _ => Err(not_allowed(from, to)),
    }
}

fn to_moment(value: &Value, from: Type, to: Type) -> Result<Value, SqlError> {
    let (local, offset) = match value {
        Value::Date(days) => (Moment { days: *days, ticks: 0 }, 0),
        Value::Time(ticks) => (Moment { days: DAY_1900, ticks: *ticks }, 0),
        Value::Moment(moment) => (*moment, 0),
        Value::Offset(utc, minutes) => {
            let local = calendar::shift(*utc, i64::from(*minutes) * 60 * calendar::TICKS_A_SECOND);
            (local.ok_or_else(|| out_of_range(from, to))?, *minutes)
        }
        Value::Text(text) => {
            let read = calendar::read(text).ok_or_else(|| {
                SqlError::new(241, "Conversion failed when converting date and/or time from character string.")
            })?;
            let local = Moment { days: read.days.unwrap_or(DAY_1900), ticks: read.ticks.unwrap_or(0) };
            (local, read.offset.unwrap_or(0))
        }
        Value::Int(days) if to.kind == Kind::DateTime => {
            let days = i32::try_from(*days + i64::from(DAY_1900)).map_err(|_| out_of_range(from, to))?;
            (Moment { days, ticks: 0 }, 0)
        }
        _ => return Err(not_allowed(from, to)),
    };
    let out = || out_of_range(from, to);
    Ok(match to.kind {
        Kind::Date => Value::Date(local.days),
        Kind::Time(scale) => {
            let rounded = calendar::round(Moment { days: 1, ticks: local.ticks }, scale).ok_or_else(out)?;
            Value::Time(rounded.ticks)
        }
        Kind::DateTime => {
            let rounded = calendar::round_to_datetime(local).ok_or_else(out)?;
            if !(DAY_1753..=LAST_DAY).contains(&rounded.days) {
                return Err(out());
            }
            Value::Moment(rounded)
        }
        Kind::SmallDateTime => {
            let minute = 60 * calendar::TICKS_A_SECOND;
            let rest = local.ticks % minute;
            let by = if rest * 2 >= minute { minute - rest } else { -rest };
            let rounded = calendar::shift(local, by).ok_or_else(out)?;
            if !(DAY_1900..=DAY_1900 + 65_535).contains(&rounded.days) {
                return Err(out());
            }
            Value::Moment(rounded)
        }
        Kind::DateTime2(scale) => Value::Moment(calendar::round(local, scale).ok_or_else(out)?),
        Kind::DateTimeOffset(scale) => {
            let rounded = calendar::round(local, scale).ok_or_else(out)?;
            let utc = calendar::shift(rounded, -i64::from(offset) * 60 * calendar::TICKS_A_SECOND).ok_or_else(out)?;
            Value::Offset(utc, offset)
        }
        _ => return Err(not_allowed(from, to)),
    })
}

/// As CONVERT without a style shows it, and as the assertions of tests read it.
pub fn show(value: &Value, from: Type, style: Option<i64>) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bit(bit) => u8::from(*bit).to_string(),
        Value::Int(int) => int.to_string(),
        Value::Decimal(decimal) if from.kind.is_money() && style.is_none_or(|style| style != 2) => {
            decimal.rescale(2).unwrap_or(*decimal).to_string()
        }
        Value::Decimal(decimal) => decimal.to_string(),
        Value::Float(float) if style == Some(3) => format!("{float:e}"),
        Value::Float(float) => float.to_string(),
        Value::Text(text) => text.to_string(),
        Value::Narrow(bytes) => format!("0x{}", hex(bytes)),
        Value::Bytes(bytes) => format!("0x{}", hex(bytes)),
        Value::Date(days) => calendar::date_text(*days),
        Value::Time(ticks) => calendar::time_text(*ticks, from.kind.scale()),
        Value::Moment(moment) => {
            let between = if matches!(style, Some(126 | 127)) { 'T' } else { ' ' };
            let (ticks, scale) = match from.kind {
                Kind::DateTime => ((moment.ticks + 5_000) / 10_000 * 10_000, 3),
                Kind::SmallDateTime => (moment.ticks, 0),
                kind => (moment.ticks, kind.scale()),
            };
            format!("{}{between}{}", calendar::date_text(moment.days), calendar::time_text(ticks, scale))
        }
        Value::Offset(utc, minutes) => {
            let local = calendar::shift(*utc, i64::from(*minutes) * 60 * calendar::TICKS_A_SECOND).unwrap_or(*utc);
            let zone = calendar::offset_text(*minutes);
            let clock = calendar::time_text(local.ticks, from.kind.scale());
            format!("{} {clock} {zone}", calendar::date_text(local.days))
        }
        Value::Guid(guid) => guid_text(guid),
    }
}

fn overflow(to: Type) -> SqlError {
    SqlError::new(8115, format!("Arithmetic overflow error converting expression to data type {}.", to.kind.name()))
}

fn out_of_range(from: Type, to: Type) -> SqlError {
    SqlError::new(
        242,
        format!(
            "The conversion of a {} data type to a {} data type resulted in an out-of-range value.",
            from.kind.name(),
            to.kind.name()
        ),
    )
}

fn failed(text: &str, from: Type, to: Type) -> SqlError {
    SqlError::new(
        245,
        format!(
            "Conversion failed when converting the {} value '{text}' to data type {}.",
            from.kind.name(),
            to.kind.name()
        ),
    )
}

fn not_allowed(from: Type, to: Type) -> SqlError {
    SqlError::new(
        529,
        format!("Explicit conversion from data type {} to {} is not allowed.", from.kind.name(), to.kind.name()),
    )
}

fn truncated(text: &str) -> SqlError {
    let shown: String = text.chars().take(40).collect();
    SqlError::new(2628, format!("String or binary data would be truncated. Truncated value: '{shown}'."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cast(value: &Value, from: Kind, to: Kind) -> Result<Value, u32> {
        convert(value, Type::of(from), Type::of(to), Mode::Cast, None).map_err(|error| error.number)
    }

    fn assign(text: &str, to: Kind) -> Result<Value, u32> {
        let from = Type::of(Kind::NVarChar(None));
        convert(&Value::text(text), from, Type::of(to), Mode::Assign, None).map_err(|error| error.number)
    }

    #[test]
    fn a_column_refuses_what_a_cast_cuts() {
        let long = Value::text("驿站甲");
        assert_eq!(cast(&long, Kind::NVarChar(None), Kind::VarChar(Some(4))), Ok(Value::text("驿站")));
        assert_eq!(cast(&long, Kind::NVarChar(None), Kind::VarChar(Some(5))), Ok(Value::text("驿站")));
        assert_eq!(assign("驿站甲", Kind::VarChar(Some(4))), Err(2628));
        assert_eq!(assign("驿站  ", Kind::VarChar(Some(4))), Ok(Value::text("驿站")));
        assert_eq!(assign("驿", Kind::Char(4)), Ok(Value::text("驿  ")));
        assert_eq!(assign("驿", Kind::NChar(4)), Ok(Value::text("驿   ")));
        assert_eq!(assign("😀", Kind::NVarChar(Some(1))), Err(2628));
        assert_eq!(assign("a😀", Kind::VarChar(Some(9))), Ok(Value::text("a?")));
    }

    #[test]
    fn numbers_overflow_and_round_as_there() {
        let decimal = |precision, scale| Kind::Decimal { precision, scale };
        let half = Value::Decimal(Decimal::new(25, 1));
        assert_eq!(cast(&half, decimal(2, 1), Kind::Int), Ok(Value::Int(2)));
        assert_eq!(cast(&half, decimal(2, 1), decimal(2, 0)), Ok(Value::Decimal(Decimal::new(3, 0))));
        assert_eq!(cast(&Value::Int(300), Kind::Int, Kind::TinyInt), Err(8115));
        assert_eq!(cast(&Value::Int(100), Kind::Int, decimal(2, 0)), Err(8115));
        assert_eq!(cast(&Value::text("x"), Kind::NVarChar(None), Kind::Int), Err(245));
        assert_eq!(cast(&Value::text("x"), Kind::NVarChar(None), decimal(2, 0)), Err(8114));
        assert_eq!(
            cast(&Value::Float(0.1), Kind::Float, decimal(20, 18)).map(|v| show(&v, Type::of(decimal(20, 18)), None)),
            Ok("0.100000000000000010".to_owned())
        );
    }

    #[test]
    fn moments_are_shown_in_the_digits_of_their_type() {
        let text = Value::text("2024-02-29 23:59:59.1234567");
        let shown = |to: Kind| {
            let value = cast(&text, Kind::NVarChar(None), to).expect("a moment");
            show(&value, Type::of(to), None)
        };
        assert_eq!(shown(Kind::DateTime2(7)), "2024-02-29 23:59:59.1234567");
        assert_eq!(shown(Kind::DateTime2(6)), "2024-02-29 23:59:59.123457");
        assert_eq!(shown(Kind::DateTime), "2024-02-29 23:59:59.123");
        assert_eq!(shown(Kind::SmallDateTime), "2024-03-01 00:00:00");
        assert_eq!(shown(Kind::DateTimeOffset(3)), "2024-02-29 23:59:59.123 +00:00");
        assert_eq!(cast(&Value::text("1752-12-31"), Kind::NVarChar(None), Kind::DateTime), Err(242));
        assert_eq!(cast(&Value::text("nonsense"), Kind::NVarChar(None), Kind::Date), Err(241));
    }

    #[test]
    fn bytes_that_are_no_text_of_their_code_page_stay_as_they_are() {
        let bytes = Value::bytes([0x41, 0xff]);
        let narrow = cast(&bytes, Kind::VarBinary(None), Kind::VarChar(Some(10))).expect("kept");
        assert_eq!(narrow, Value::Narrow(Arc::from([0x41, 0xff])));
    }
}
