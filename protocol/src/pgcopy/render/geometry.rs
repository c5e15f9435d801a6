//! Floats in as few digits as read back to the same number, and the shapes that are made of them.

use super::{check, end};
use crate::pgcopy::Fault;
use bytes::Buf as _;
use std::fmt::Write as _;

pub(super) fn float8(value: f64, out: &mut String) {
    if !special(value, out) {
        let (mantissa, exponent) = (value.to_bits() & ((1 << 52) - 1), (value.to_bits() >> 52) & 0x7ff);
        let parts = if exponent == 0 { (mantissa, -1_074) } else { (mantissa | 1 << 52, exponent as i32 - 1_075) };
        let text = shortest(
            format!("{value:e}"),
            parts,
            |digits| format!("{value:.digits$e}"),
            |text| text.parse() == Ok(value),
        );
        number(&text, 15, out);
    }
}

pub(super) fn float4(value: f32, out: &mut String) {
    if !special(f64::from(value), out) {
        let (mantissa, exponent) = (value.to_bits() & ((1 << 23) - 1), (value.to_bits() >> 23) & 0xff);
        let parts = if exponent == 0 { (mantissa, -149) } else { (mantissa | 1 << 23, exponent as i32 - 150) };
        let parts = (u64::from(parts.0), parts.1);
        let text = shortest(
            format!("{value:e}"),
            parts,
            |digits| format!("{value:.digits$e}"),
            |text| text.parse() == Ok(value),
        );
        number(&text, 6, out);
    }
}

fn special(value: f64, out: &mut String) -> bool {
    let word = match value {
        _ if value.is_nan() => "NaN",
        f64::INFINITY => "Infinity",
        f64::NEG_INFINITY => "-Infinity",
        _ => return false,
    };
    out.push_str(word);
    true
}

/// The server never writes a number that lies exactly between two floats, though it would read back as the even
/// one: it then takes more digits. `mantissa · 2^exponent` is the float without its sign.
fn shortest(
    text: String,
    (mantissa, exponent): (u64, i32),
    longer: impl Fn(usize) -> String,
    reads_back: impl Fn(&str) -> bool,
) -> String {
    let between = |text: &str| {
        let Some((digits, power)) = scientific(text) else { return false };
        let digits: u128 = digits.parse().unwrap_or(0);
        let mantissa = u128::from(mantissa);
        // Below a power of two the next float is only half as far away.
        let below = if mantissa.is_power_of_two() {
            (4 * mantissa - 1, exponent - 2)
        } else {
            ((2 * mantissa).saturating_sub(1), exponent - 1)
        };
        [(2 * mantissa + 1, exponent - 1), below]
            .iter()
            .any(|(middle, exponent)| equal(digits, power, *middle, *exponent))
    };
    if mantissa.is_multiple_of(2) && between(&text) {
        return (1..=16).map(longer).find(|text| reads_back(text) && !between(text)).unwrap_or(text);
    }
    // Of two that are as short and as near, the server writes the one whose last digit is even.
    let Some((digits, power)) = scientific(&text) else { return text };
    let digits: u128 = digits.parse().unwrap_or(0);
    let even = [(2 * digits).saturating_sub(1), 2 * digits + 1]
        .into_iter()
        .find(|middle| digits % 2 == 1 && equal(*middle, power, u128::from(mantissa), exponent + 1))
        .map(|middle| if middle > 2 * digits { digits + 1 } else { digits - 1 });
    let sign = if text.starts_with('-') { "-" } else { "" };
    let written = even.map(|even| {
        let even = even.to_string();
        let (first, rest) = even.split_at(1);
        format!("{sign}{first}.{rest}e{}", power + rest.len() as i32)
    });
    written.filter(|even| reads_back(even) && !between(even)).unwrap_or(text)
}

/// Whether `digits · 10^power = middle · 2^exponent`.
fn equal(digits: u128, power: i32, middle: u128, exponent: i32) -> bool {
    // Fives on one side, twos on the other; where they do not fit into 128 bits, the sides are not equal.
    let fives = |value: u128, count: i32| {
        u32::try_from(count).ok().and_then(|count| 5u128.checked_pow(count)?.checked_mul(value))
    };
    let (left, right) =
        if power >= 0 { (fives(digits, power), Some(middle)) } else { (Some(digits), fives(middle, -power)) };
    let twos = power - exponent;
    let lift =
        |value: u128, by: i32| u32::try_from(by).ok().filter(|by| *by < value.leading_zeros()).map(|by| value << by);
    match (left, right) {
        (Some(left), Some(right)) if twos >= 0 => lift(left, twos) == Some(right),
        (Some(left), Some(right)) => lift(right, -twos) == Some(left),
        _ => false,
    }
}

/// `-d.ddde-x` as its digits without sign, point and trailing zeros, and the power of ten of the last.
fn scientific(text: &str) -> Option<(String, i32)> {
    let (mantissa, exponent) = text.trim_start_matches('-').split_once('e')?;
    let digits = mantissa.replace('.', "");
    let kept = digits.trim_end_matches('0');
    Some((kept.to_owned(), exponent.parse::<i32>().ok()? - kept.len() as i32 + 1))
}

/// Writes what stands as `d.ddde-x` with or without an exponent: without from 10⁻⁴ to below the power of `plain_end`.
fn number(text: &str, plain_end: i32, out: &mut String) {
    let Some((digits, power)) = scientific(text) else { return };
    if text.starts_with('-') {
        out.push('-');
    }
    let exponent = power + digits.len() as i32 - 1;
    let zeros = |count: i32, out: &mut String| out.extend(std::iter::repeat_n('0', count.max(0) as usize));
    match digits.split_at_checked((exponent + 1).max(0) as usize) {
        _ if digits.is_empty() => out.push('0'),
        _ if exponent < -4 || exponent >= plain_end => {
            let (first, rest) = digits.split_at(1);
            out.extend([first, if rest.is_empty() { "" } else { "." }, rest]);
            let _ = write!(out, "e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs());
        }
        Some(("", _)) => {
            out.push_str("0.");
            zeros(-exponent - 1, out);
            out.push_str(&digits);
        }
        Some((whole, fraction)) => out.extend([whole, if fraction.is_empty() { "" } else { "." }, fraction]),
        None => {
            out.push_str(&digits);
            zeros(power, out);
        }
    }
}

/// Numbers with commas between them.
fn numbers<const N: usize>(value: &mut &[u8], out: &mut String) -> Result<(), Fault> {
    for index in 0..N {
        if index > 0 {
            out.push(',');
        }
        float8(value.try_get_f64()?, out);
    }
    check(out)
}

fn pair(value: &mut &[u8], out: &mut String) -> Result<(), Fault> {
    out.push('(');
    numbers::<2>(value, out)?;
    out.push(')');
    Ok(())
}

fn pairs(count: usize, value: &mut &[u8], out: &mut String) -> Result<(), Fault> {
    for index in 0..count {
        if index > 0 {
            out.push(',');
        }
        pair(value, out)?;
    }
    Ok(())
}

pub(super) fn point(mut value: &[u8], out: &mut String) -> Result<(), Fault> {
    pair(&mut value, out)?;
    end(value)
}

pub(super) fn line(mut value: &[u8], out: &mut String) -> Result<(), Fault> {
    out.push('{');
    numbers::<3>(&mut value, out)?;
    out.push('}');
    end(value)
}

pub(super) fn lseg(mut value: &[u8], out: &mut String) -> Result<(), Fault> {
    out.push('[');
    pairs(2, &mut value, out)?;
    out.push(']');
    end(value)
}

/// A box: its upper right and its lower left corner.
pub(super) fn corners(mut value: &[u8], out: &mut String) -> Result<(), Fault> {
    pairs(2, &mut value, out)?;
    end(value)
}

pub(super) fn path(mut value: &[u8], out: &mut String) -> Result<(), Fault> {
    let (before, after) = if value.try_get_u8()? == 0 { ('[', ']') } else { ('(', ')') };
    points((before, after), value, out)
}

pub(super) fn polygon(value: &[u8], out: &mut String) -> Result<(), Fault> {
    points(('(', ')'), value, out)
}

fn points((before, after): (char, char), mut value: &[u8], out: &mut String) -> Result<(), Fault> {
    let count = usize::try_from(value.try_get_i32()?).ok().filter(|count| count.checked_mul(16) == Some(value.len()));
    let Some(count) = count else { return Err("has another number of points than it says".into()) };
    out.push(before);
    pairs(count, &mut value, out)?;
    out.push(after);
    end(value)
}

pub(super) fn circle(mut value: &[u8], out: &mut String) -> Result<(), Fault> {
    out.push('<');
    pair(&mut value, out)?;
    out.push(',');
    numbers::<1>(&mut value, out)?;
    out.push('>');
    end(value)
}
