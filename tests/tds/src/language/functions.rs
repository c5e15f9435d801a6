//! Functions of values alone. What looks at the session or the catalogue is made a constant when it is bound.

use super::scalar::text_of;
use crate::store::calendar;
use crate::store::convert::show;
use crate::store::{Collation, Kind, Moment, SqlError, Type, Value};

/// Its name as kept, and the type of its result; none where there is no such function.
pub fn known(name: &str, arguments: &[Type]) -> Option<(&'static str, Type)> {
    let first = arguments.first().copied().unwrap_or(Type::of(Kind::Int));
    let of = |kind: Kind| Type::of(kind);
    let text = |kind: Kind| Type::collated(kind, first.collation);
    let same_text =
        if first.kind.is_unicode() { Kind::NVarChar(first.kind.length()) } else { Kind::VarChar(first.kind.length()) };
    let long_text = if first.kind.is_unicode() { Kind::NVarChar(Some(4000)) } else { Kind::VarChar(Some(8000)) };
    let max = first.kind.length().is_none();
    Some(match name {
        "LEN" => ("LEN", of(if max { Kind::BigInt } else { Kind::Int })),
        "DATALENGTH" => ("DATALENGTH", of(if max { Kind::BigInt } else { Kind::Int })),
        "UPPER" => ("UPPER", text(same_text)),
        "LOWER" => ("LOWER", text(same_text)),
        "LTRIM" => ("LTRIM", text(same_text)),
        "RTRIM" => ("RTRIM", text(same_text)),
        "LEFT" => ("LEFT", text(same_text)),
        "RIGHT" => ("RIGHT", text(same_text)),
        "SUBSTRING" if first.kind.is_binary() => ("SUBSTRING", of(Kind::VarBinary(first.kind.length()))),
        "SUBSTRING" => ("SUBSTRING", text(same_text)),
        "REPLACE" => ("REPLACE", text(if max { same_text } else { long_text })),
        "REPLICATE" => ("REPLICATE", text(if max { same_text } else { long_text })),
        "CHARINDEX" => ("CHARINDEX", of(Kind::Int)),
        "CONCAT" => (
            "CONCAT",
            of(Kind::NVarChar(if arguments.iter().any(|ty| ty.kind.is_text() && ty.kind.length().is_none()) {
                None
            } else {
                Some(4000)
            })),
        ),
        "QUOTENAME" => ("QUOTENAME", of(Kind::NVarChar(Some(258)))),
        "UNICODE" => ("UNICODE", of(Kind::Int)),
        "NCHAR" => ("NCHAR", of(Kind::NChar(1))),
        "ABS" => ("ABS", first),
        "FLOOR" => ("FLOOR", first),
        "CEILING" => ("CEILING", first),
        "YEAR" => ("YEAR", of(Kind::Int)),
        "MONTH" => ("MONTH", of(Kind::Int)),
        "DAY" => ("DAY", of(Kind::Int)),
        "NEWID" => ("NEWID", of(Kind::Guid)),
        "HASHBYTES" => ("HASHBYTES", of(Kind::VarBinary(Some(8000)))),
        "COLLATIONPROPERTY" => ("COLLATIONPROPERTY", of(Kind::Int)),
        "TYPE_NAME" => ("TYPE_NAME", of(Kind::NVarChar(Some(128)))),
        "DATEADD" => ("DATEADD", arguments.get(2).copied().unwrap_or(first)),
        "DATEDIFF" => ("DATEDIFF", of(Kind::Int)),
        _ => return None,
    })
}

pub fn call(function: &str, arguments: &[(Value, Type)]) -> Result<Value, SqlError> {
    let argument = |at: usize| arguments.get(at).map_or(&Value::Null, |(value, _)| value);
    let ty = |at: usize| arguments.get(at).map_or(Type::of(Kind::Int), |(_, ty)| *ty);
    let text = |at: usize| match argument(at) {
        Value::Null => None,
        value => Some(text_of(value).map_or_else(|| show(value, ty(at), None), |text| text.to_string())),
    };
    let int = |at: usize| match argument(at) {
        Value::Int(int) => Some(*int),
        _ => None,
    };
    // None of these has a result where an argument is missing, CONCAT and NEWID aside.
    let missing = arguments.iter().any(|(value, _)| value.is_null());
    match function {
        "CONCAT" => return Ok(Value::text((0..arguments.len()).filter_map(text).collect::<String>())),
        "NEWID" => return new_guid(),
        _ if missing => return Ok(Value::Null),
        _ => {}
    }
    let first = text(0).unwrap_or_default();
    let units = |text: &str| text.encode_utf16().count() as i64;
    Ok(match function {
        "LEN" => Value::Int(units(first.trim_end_matches(' '))),
        "DATALENGTH" => Value::Int(match argument(0) {
            Value::Text(text) if ty(0).kind.is_unicode() => units(text) * 2,
            Value::Text(text) => ty(0).collation.encode(text).len() as i64,
            Value::Narrow(bytes) | Value::Bytes(bytes) => bytes.len() as i64,
            _ => ty(0).kind.max_length(),
        }),
        "UPPER" => Value::text(first.to_uppercase()),
        "LOWER" => Value::text(first.to_lowercase()),
        "LTRIM" => Value::text(first.trim_start_matches(' ')),
        "RTRIM" => Value::text(first.trim_end_matches(' ')),
        "LEFT" => Value::text(cut(&first, 0, int(1).unwrap_or(0))),
        "RIGHT" => {
            let wanted = int(1).unwrap_or(0).max(0);
            Value::text(cut(&first, (units(&first) - wanted).max(0), wanted))
        }
        "SUBSTRING" => {
            // Counted from one; what lies before the first is counted too.
            let start = int(1).unwrap_or(1) - 1;
            let length = int(2).unwrap_or(0);
            if length < 0 {
                return Err(SqlError::new(537, "Invalid length parameter passed to the LEFT or SUBSTRING function."));
            }
            let end = start.saturating_add(length).max(0);
            let start = start.max(0);
            match argument(0) {
                Value::Bytes(bytes) => {
                    let end = (end as usize).min(bytes.len());
                    Value::bytes(bytes.get((start as usize).min(end)..end).unwrap_or_default())
                }
                _ => Value::text(cut(&first, start, end - start)),
            }
        }
        "REPLACE" => {
            let (from, to) = (text(1).unwrap_or_default(), text(2).unwrap_or_default());
            Value::text(if from.is_empty() { first } else { first.replace(&from, &to) })
        }
        "REPLICATE" => Value::text(first.repeat(usize::try_from(int(1).unwrap_or(0)).unwrap_or(0).min(2_000_000))),
        "CHARINDEX" => {
            let within = text(1).unwrap_or_default();
            let (needle, hay) = (first.to_lowercase(), within.to_lowercase());
            Value::Int(hay.find(&needle).and_then(|at| hay.get(..at)).map_or(0, |before| units(before) + 1))
        }
        "QUOTENAME" => Value::text(format!("[{}]", first.replace(']', "]]"))),
        "UNICODE" => Value::Int(first.encode_utf16().next().map_or(0, i64::from)),
        "NCHAR" => u32::try_from(int(0).unwrap_or(-1))
            .ok()
            .and_then(char::from_u32)
            .map_or(Value::Null, |c| Value::text(c.to_string())),
        "ABS" => match argument(0) {
            Value::Int(int) => {
                Value::Int(int.checked_abs().ok_or_else(|| SqlError::new(8115, "Arithmetic overflow error."))?)
            }
            Value::Decimal(decimal) if decimal.unscaled < 0 => Value::Decimal(decimal.negate()),
            Value::Float(float) => Value::Float(float.abs()),
            other => other.clone(),
        },
        "FLOOR" | "CEILING" => match argument(0) {
            Value::Float(float) if function == "FLOOR" => Value::Float(float.floor()),
            Value::Float(float) => Value::Float(float.ceil()),
            Value::Int(int) => Value::Int(*int),
            _ => return Err(SqlError::unknown(format!("{function} of a decimal"))),
        },
        "YEAR" | "MONTH" | "DAY" => {
            let days = match argument(0) {
                Value::Date(days) => *days,
                Value::Moment(moment) | Value::Offset(moment, _) => moment.days,
                _ => return Err(SqlError::unknown(format!("{function} of a text"))),
            };
            let (year, month, day) = calendar::civil(days);
            Value::Int(match function {
                "YEAR" => year,
                "MONTH" => month,
                _ => day,
            })
        }
        "HASHBYTES" => {
            let algorithm = match first.to_ascii_uppercase().as_str() {
                "SHA2_256" => &aws_lc_rs::digest::SHA256,
                "SHA2_512" => &aws_lc_rs::digest::SHA512,
                other => return Err(SqlError::unknown(format!("HASHBYTES {other}"))),
            };
            let bytes: Vec<u8> = match argument(1) {
                Value::Text(text) if ty(1).kind.is_unicode() => {
                    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
                }
                Value::Text(text) => ty(1).collation.encode(text).into_owned(),
                Value::Bytes(bytes) | Value::Narrow(bytes) => bytes.to_vec(),
                _ => return Err(SqlError::unknown("HASHBYTES of this type")),
            };
            Value::bytes(aws_lc_rs::digest::digest(algorithm, &bytes).as_ref())
        }
        "COLLATIONPROPERTY" => {
            if !text(1).unwrap_or_default().eq_ignore_ascii_case("CodePage") {
                return Err(SqlError::unknown("COLLATIONPROPERTY other than CodePage"));
            }
            Collation::named(&first).map_or(Value::Null, |collation| Value::Int(collation.code_page()))
        }
        "TYPE_NAME" => {
            let id = int(0).unwrap_or(0);
            Kind::all()
                .into_iter()
                .find(|kind| kind.user_id() == id)
                .map_or(Value::Null, |kind| Value::text(kind.name()))
        }
        "DATEADD" => {
            let unit = first.to_ascii_lowercase();
            let seconds = match unit.as_str() {
                "second" | "ss" => 1,
                "minute" | "mi" => 60,
                "hour" | "hh" => 3600,
                "day" | "dd" => 86_400,
                other => return Err(SqlError::unknown(format!("DATEADD {other}"))),
            };
            let ticks = int(1).unwrap_or(0).saturating_mul(seconds * calendar::TICKS_A_SECOND);
            let out = || SqlError::new(517, "Adding a value to a column caused an overflow.");
            match argument(2) {
                Value::Moment(moment) => Value::Moment(calendar::shift(*moment, ticks).ok_or_else(out)?),
                Value::Date(days) => {
                    Value::Date(calendar::shift(Moment { days: *days, ticks: 0 }, ticks).ok_or_else(out)?.days)
                }
                _ => return Err(SqlError::unknown("DATEADD to this type")),
            }
        }
        "DATEDIFF" => {
            let at = |at: usize| match argument(at) {
                Value::Moment(moment) | Value::Offset(moment, _) => Some(*moment),
                Value::Date(days) => Some(Moment { days: *days, ticks: 0 }),
                _ => None,
            };
            let (Some(from), Some(to)) = (at(1), at(2)) else { return Err(SqlError::unknown("DATEDIFF of this type")) };
            let days = i64::from(to.days) - i64::from(from.days);
            Value::Int(match first.to_ascii_lowercase().as_str() {
                "day" | "dd" => days,
                "second" | "ss" => days * 86_400 + (to.ticks - from.ticks) / calendar::TICKS_A_SECOND,
                other => return Err(SqlError::unknown(format!("DATEDIFF {other}"))),
            })
        }
        other => return Err(SqlError::unknown(format!("function {other}"))),
    })
}

/// Units of UTF-16 from a place on; a pair that the cut would part is left out.
fn cut(text: &str, from: i64, length: i64) -> String {
    let mut at = 0_i64;
    text.chars()
        .filter(|c| {
            let start = at;
            at += c.len_utf16() as i64;
            start >= from && at <= from.saturating_add(length.max(0))
        })
        .collect()
}

fn new_guid() -> Result<Value, SqlError> {
    let mut guid = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut guid).map_err(|_| SqlError::new(701, "There is no randomness."))?;
    guid[6] = (guid[6] & 0x0f) | 0x40;
    guid[8] = (guid[8] & 0x3f) | 0x80;
    Ok(Value::Guid(guid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_in_units_of_utf16() {
        let text = |value: &str| (Value::text(value), Type::of(Kind::NVarChar(Some(10))));
        let int = |value: i64| (Value::Int(value), Type::of(Kind::Int));
        assert_eq!(call("SUBSTRING", &[text("a😀驿站"), int(2), int(3)]), Ok(Value::text("😀驿")));
        assert_eq!(call("LEN", &[text("a😀  ")]), Ok(Value::Int(3)));
        assert_eq!(call("DATALENGTH", &[text("驿 ")]), Ok(Value::Int(4)));
        assert_eq!(call("RIGHT", &[text("posthouse"), int(5)]), Ok(Value::text("house")));
        assert_eq!(call("LEFT", &[(Value::Null, Type::of(Kind::Int)), int(5)]), Ok(Value::Null));
    }
}
