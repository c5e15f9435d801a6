//! A value in binary as the text that the server itself gives for `value::text`, under DateStyle ISO, IntervalStyle
//! postgres, TimeZone UTC, extra_float_digits 1, bytea_output hex and lc_monetary C. Text made here and text made by
//! the server are the same to the byte, so that a digest over it can be checked with plain SQL.
//! Nesting is bounded by the type's own depth, text by a limit that holds at each level.

mod geometry;
mod nested;
mod net;
mod search;
mod time;

use super::native::{NativeType, Plain};
use super::numeric::Numeric;
use super::{Fault, fixed, text};
use crate::limits::VALUE_HELD_BYTES_MAX;
use bytes::Buf as _;
use std::fmt::Write as _;

/// Appends the text of one value.
pub fn render(native: &NativeType, value: &[u8], out: &mut String) -> Result<(), Fault> {
    // Three types have a cast to text that is not what they write as part of another value.
    match native {
        NativeType::Plain(Plain::Bool) => out.push_str(if super::digest::boolean(value)? { "true" } else { "false" }),
        NativeType::Plain(Plain::Inet) => net::inet(value, net::Mask::Always, out)?,
        NativeType::Bpchar(_) => out.push_str(text(value)?.trim_end_matches(' ')),
        _ => return element(native, value, out),
    }
    check(out)
}

/// Appends a value as it stands within another.
fn element(native: &NativeType, value: &[u8], out: &mut String) -> Result<(), Fault> {
    match native {
        NativeType::Plain(native) | NativeType::Timed(native, _) => plain(*native, value, out)?,
        NativeType::Numeric(_) => Numeric::parse(value)?.shown(out)?,
        NativeType::Varchar(_) | NativeType::Bpchar(_) => out.push_str(text(value)?),
        NativeType::Bit(_) | NativeType::Varbit(_) => bits(value, out)?,
        NativeType::Array(inner) => nested::array(inner, value, out)?,
        NativeType::Range(bound) => nested::range(bound, value, out)?,
        NativeType::Multirange(bound) => nested::multirange(bound, value, out)?,
        NativeType::Composite(fields) => nested::composite(fields, value, out)?,
    }
    check(out)
}

fn plain(native: Plain, value: &[u8], out: &mut String) -> Result<(), Fault> {
    macro_rules! number {
        ($kind:ty) => {{
            let _ = write!(out, "{}", <$kind>::from_be_bytes(fixed(value)?));
        }};
    }
    match native {
        Plain::Bool => out.push(if super::digest::boolean(value)? { 't' } else { 'f' }),
        Plain::Int2 => number!(i16),
        Plain::Int4 => number!(i32),
        Plain::Int8 => number!(i64),
        Plain::Oid => number!(u32),
        Plain::Xid8 => number!(u64),
        Plain::Float4 => geometry::float4(f32::from_be_bytes(fixed(value)?), out),
        Plain::Float8 => geometry::float8(f64::from_be_bytes(fixed(value)?), out),
        Plain::Money => money(i64::from_be_bytes(fixed(value)?), out),
        Plain::Text | Plain::Name | Plain::Xml | Plain::Enum | Plain::Json => out.push_str(text(value)?),
        Plain::Char => match fixed::<1>(value)? {
            [0] => {}
            [byte] if byte.is_ascii() => out.push(char::from(byte)),
            [byte] => {
                let _ = write!(out, "\\{byte:03o}");
            }
        },
        Plain::Bytea => {
            out.push_str("\\x");
            value
                .iter()
                .for_each(|byte| out.extend([byte >> 4, byte & 15].map(|digit| char::from(HEX[usize::from(digit)]))));
        }
        Plain::Jsonb | Plain::Jsonpath => match value {
            [1, rest @ ..] => out.push_str(text(rest)?),
            _ => return Err("is of an unknown version".into()),
        },
        Plain::Uuid => {
            for (index, byte) in fixed::<16>(value)?.iter().enumerate() {
                if matches!(index, 4 | 6 | 8 | 10) {
                    out.push('-');
                }
                out.extend([byte >> 4, byte & 15].map(|digit| char::from(HEX[usize::from(digit)])));
            }
        }
        Plain::PgLsn => {
            let lsn = u64::from_be_bytes(fixed(value)?);
            let _ = write!(out, "{:X}/{:X}", lsn >> 32, lsn & 0xffff_ffff);
        }
        Plain::Date => time::date(i32::from_be_bytes(fixed(value)?), out)?,
        Plain::Time => time::time(i64::from_be_bytes(fixed(value)?), out)?,
        Plain::Timetz => time::timetz(value, out)?,
        Plain::Timestamp => time::timestamp(i64::from_be_bytes(fixed(value)?), "", out)?,
        Plain::Timestamptz => time::timestamp(i64::from_be_bytes(fixed(value)?), "+00", out)?,
        Plain::Interval => time::interval(value, out)?,
        Plain::Inet => net::inet(value, net::Mask::WhereNeeded, out)?,
        Plain::Cidr => net::inet(value, net::Mask::Cidr, out)?,
        Plain::Macaddr => net::mac(&fixed::<6>(value)?, out),
        Plain::Macaddr8 => net::mac(&fixed::<8>(value)?, out),
        Plain::Point => geometry::point(value, out)?,
        Plain::Line => geometry::line(value, out)?,
        Plain::Lseg => geometry::lseg(value, out)?,
        Plain::Box => geometry::corners(value, out)?,
        Plain::Path => geometry::path(value, out)?,
        Plain::Polygon => geometry::polygon(value, out)?,
        Plain::Circle => geometry::circle(value, out)?,
        Plain::Tsvector => search::vector(value, out)?,
        Plain::Tsquery => search::query(value, out)?,
    }
    Ok(())
}

fn bits(mut value: &[u8], out: &mut String) -> Result<(), Fault> {
    let count = usize::try_from(value.try_get_i32()?).ok().filter(|count| count.div_ceil(8) == value.len());
    let Some(count) = count.filter(|count| *count <= VALUE_HELD_BYTES_MAX) else {
        return Err("has another number of bits than it says".into());
    };
    let bit = |at: usize| value.get(at / 8).is_some_and(|byte| byte >> (7 - at % 8) & 1 == 1);
    out.extend((0..count).map(|at| if bit(at) { '1' } else { '0' }));
    Ok(())
}

/// Cents, as dollars with thousands apart.
fn money(cents: i64, out: &mut String) {
    let (whole, part) = (cents.unsigned_abs() / 100, cents.unsigned_abs() % 100);
    out.push_str(if cents < 0 { "-$" } else { "$" });
    let digits = whole.to_string();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    let _ = write!(out, ".{part:02}");
}

/// Asked after each part, so that no text grows beyond twice the limit.
fn check(out: &str) -> Result<(), Fault> {
    if out.len() > VALUE_HELD_BYTES_MAX { Err("is too long as text".into()) } else { Ok(()) }
}

/// The next so many bytes.
fn take<'a>(rest: &mut &'a [u8], count: usize) -> Result<&'a [u8], Fault> {
    rest.split_off(..count).ok_or_else(|| "is shorter than it says".into())
}

/// Nothing may follow.
fn end(rest: &[u8]) -> Result<(), Fault> {
    if rest.is_empty() { Ok(()) } else { Err("is longer than it says".into()) }
}

const HEX: [u8; 16] = *b"0123456789abcdef";
