//! Arrays, ranges and composites: values within a value, each quoted by the rules of what holds it.

use super::{check, element, end, take};
use crate::pgcopy::Fault;
use crate::pgcopy::native::{NativeType, Plain};
use bytes::Buf as _;
use std::fmt::Write as _;

pub(super) fn array(inner: &NativeType, mut value: &[u8], out: &mut String) -> Result<(), Fault> {
    let (dimensions, nulls) = (value.try_get_i32()?, value.try_get_i32()?);
    value.try_get_u32()?;
    if !(0..=DIMENSIONS_MAX).contains(&dimensions) || !(0..=1).contains(&nulls) {
        return Err("is an array of an unknown form".into());
    }
    let mut sizes = Vec::new();
    let mut bounds = String::new();
    let mut count = 1usize;
    let mut plain_bounds = true;
    for _ in 0..dimensions {
        let (size, lower) = (value.try_get_i32()?, value.try_get_i32()?);
        let upper = lower.checked_add(size - i32::from(size > 0));
        let (Ok(size), Some(upper)) = (usize::try_from(size), upper) else {
            return Err("is an array of an impossible size".into());
        };
        // Each element takes four bytes at least, so that no more are looked for than there can be.
        count =
            count.checked_mul(size).filter(|count| *count <= value.len()).ok_or("is an array of an impossible size")?;
        plain_bounds &= lower == 1;
        let _ = write!(bounds, "[{lower}:{upper}]");
        sizes.push(size);
    }
    if sizes.is_empty() || count == 0 {
        out.push_str("{}");
        return end(value);
    }
    if !plain_bounds {
        out.extend([bounds.as_str(), "="]);
    }
    let delimiter = if *inner == NativeType::Plain(Plain::Box) { ';' } else { ',' };
    let mut text = String::new();
    for index in 0..count {
        // A dimension opens where the index is a multiple of all elements below it.
        let mut below = 1;
        let mut edges = 0;
        for size in sizes.iter().rev() {
            below *= size;
            if !index.is_multiple_of(below) {
                break;
            }
            edges += 1;
        }
        if index > 0 {
            out.extend(std::iter::repeat_n('}', edges));
            out.push(delimiter);
        }
        out.extend(std::iter::repeat_n('{', edges));
        match usize::try_from(value.try_get_i32()?) {
            Err(_) => out.push_str("NULL"),
            Ok(length) => {
                text.clear();
                element(inner, take(&mut value, length)?, &mut text)?;
                let special = |c: char| matches!(c, '"' | '\\' | '{' | '}') || c == delimiter || is_space(c);
                let quote = text.is_empty() || text.eq_ignore_ascii_case("NULL") || text.contains(special);
                quoted(&text, quote, Escape::Backslash, out);
            }
        }
        check(out)?;
    }
    out.extend(std::iter::repeat_n('}', sizes.len()));
    end(value)
}

pub(super) fn range(bound: &NativeType, mut value: &[u8], out: &mut String) -> Result<(), Fault> {
    let flags = value.try_get_u8()?;
    let has = |flag: u8| flags & flag != 0;
    if flags & !(EMPTY | LOWER_INCLUDED | UPPER_INCLUDED | LOWER_INFINITE | UPPER_INFINITE) != 0 {
        return Err("is a range of an unknown form".into());
    }
    if has(EMPTY) {
        out.push_str("empty");
        return end(value);
    }
    out.push(if has(LOWER_INCLUDED) { '[' } else { '(' });
    for (infinite, after) in [(LOWER_INFINITE, ","), (UPPER_INFINITE, if has(UPPER_INCLUDED) { "]" } else { ")" })] {
        if !has(infinite) {
            let Ok(length) = usize::try_from(value.try_get_i32()?) else {
                return Err("is a range without its bound".into());
            };
            let mut text = String::new();
            element(bound, take(&mut value, length)?, &mut text)?;
            let special = |c: char| matches!(c, '"' | '\\' | '(' | ')' | '[' | ']' | ',') || is_space(c);
            let quote = text.is_empty() || text.contains(special);
            quoted(&text, quote, Escape::Double, out);
        }
        out.push_str(after);
    }
    check(out)?;
    end(value)
}

pub(super) fn multirange(bound: &NativeType, mut value: &[u8], out: &mut String) -> Result<(), Fault> {
    let count = value.try_get_u32()?;
    out.push('{');
    for index in 0..count {
        if index > 0 {
            out.push(',');
        }
        let length = value.try_get_u32()? as usize;
        range(bound, take(&mut value, length)?, out)?;
    }
    out.push('}');
    end(value)
}

pub(super) fn composite(fields: &[NativeType], mut value: &[u8], out: &mut String) -> Result<(), Fault> {
    if usize::try_from(value.try_get_i32()?) != Ok(fields.len()) {
        return Err("is a composite of another number of fields".into());
    }
    let mut text = String::new();
    for (index, field) in fields.iter().enumerate() {
        out.push(if index == 0 { '(' } else { ',' });
        value.try_get_u32()?;
        if let Ok(length) = usize::try_from(value.try_get_i32()?) {
            text.clear();
            element(field, take(&mut value, length)?, &mut text)?;
            let special = |c: char| matches!(c, '"' | '\\' | '(' | ')' | ',') || is_space(c);
            let quote = text.is_empty() || text.contains(special);
            quoted(&text, quote, Escape::Double, out);
        }
        check(out)?;
    }
    out.push(')');
    end(value)
}

/// How a `"` or a `\` is written within quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escape {
    Backslash,
    Double,
}

fn quoted(text: &str, quote: bool, escape: Escape, out: &mut String) {
    if !quote {
        return out.push_str(text);
    }
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push(if escape == Escape::Double { c } else { '\\' });
        }
        out.push(c);
    }
    out.push('"');
}

/// What the server takes for a blank between values.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}')
}

const DIMENSIONS_MAX: i32 = 6;
const EMPTY: u8 = 0x01;
const LOWER_INCLUDED: u8 = 0x02;
const UPPER_INCLUDED: u8 = 0x04;
const LOWER_INFINITE: u8 = 0x08;
const UPPER_INFINITE: u8 = 0x10;
