//! PostgreSQL's `numeric` in binary: digits to the base of 10 000, the power of the first, a sign, and how many
//! decimals are shown. Read as a decimal of 38 digits or as text of any length, and written from both.

use super::Fault;
use crate::batch::{DECIMAL_DIGITS_MAX, power_of_ten};
use crate::number::{self, Number};

/// A numeric taken apart; its digits are checked.
pub(super) struct Numeric<'a> {
    /// Without zeros at either end.
    digits: &'a [[u8; 2]],
    /// Power of 10 000 of the first digit.
    weight: i32,
    sign: Sign,
    /// Decimals shown.
    scale: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    Plus,
    Minus,
    NaN,
    Infinity,
    MinusInfinity,
}

impl<'a> Numeric<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, Fault> {
        let Some(([n0, n1, w0, w1, g0, g1, s0, s1], digits)) = bytes.split_first_chunk::<8>() else {
            return Err("is shorter than its type".into());
        };
        let (digits, odd) = digits.as_chunks::<2>();
        if usize::from(u16::from_be_bytes([*n0, *n1])) != digits.len() || !odd.is_empty() {
            return Err("has another number of digits than it says".into());
        }
        let sign = match u16::from_be_bytes([*g0, *g1]) {
            0x0000 => Sign::Plus,
            0x4000 => Sign::Minus,
            0xc000 => Sign::NaN,
            0xd000 => Sign::Infinity,
            0xf000 => Sign::MinusInfinity,
            _ => return Err("has an unknown sign".into()),
        };
        let mut weight = i32::from(i16::from_be_bytes([*w0, *w1]));
        let scale = u16::from_be_bytes([*s0, *s1]);
        let mut beyond = false;
        for digit in digits {
            beyond |= u16::from_be_bytes(*digit) >= BASE;
        }
        if beyond || scale > SCALE_MAX {
            return Err("has a digit or scale beyond its bounds".into());
        }
        let mut digits = digits;
        while let [[0, 0], rest @ ..] = digits {
            (digits, weight) = (rest, weight - 1);
        }
        while let [rest @ .., [0, 0]] = digits {
            digits = rest;
        }
        let numeric = Self { digits, weight, sign, scale };
        // The server cuts what stands beyond the shown decimals: such a value would not land as it was hashed.
        if !digits.is_empty() && -numeric.exponent().0 > i32::from(scale) {
            return Err("has digits that are not shown".into());
        }
        Ok(numeric)
    }

    /// The power of ten of the last decimal digit that is not zero, and the zeros that follow it in its base digit.
    fn exponent(&self) -> (i32, u32) {
        let Some(last) = self.digits.last() else { return (0, 0) };
        let last = u16::from_be_bytes(*last);
        let zeros = if last % 10 != 0 {
            0
        } else if last % 100 != 0 {
            1
        } else {
            2 + u32::from(last % 1_000 == 0)
        };
        ((self.weight - self.digits.len() as i32 + 1) * 4 + zeros as i32, zeros)
    }

    /// As a decimal of this precision and scale, written without trailing zeros.
    pub(super) fn decimal(&self, precision: u8, scale: i8) -> Result<(i128, i8), Fault> {
        let negative = match self.sign {
            Sign::Plus => false,
            Sign::Minus => true,
            _ => return Err("is no number".into()),
        };
        if self.digits.is_empty() {
            return Ok((0, 0));
        }
        let (exponent, zeros) = self.exponent();
        let too_long = || Err("has more digits than its column".into());
        let Some(unscaled) = self.unscaled(zeros).filter(|_| -exponent <= i32::from(scale)) else { return too_long() };
        // Compared at the column's own scale, where its precision counts.
        let lift = u8::try_from(i32::from(scale) + exponent).ok().filter(|lift| *lift <= precision);
        match lift.map(|lift| power_of_ten(precision - lift)) {
            Some(bound) if unscaled < bound => {
                let signed = if negative { -(unscaled as i128) } else { unscaled as i128 };
                Ok((signed, -exponent as i8))
            }
            _ => too_long(),
        }
    }

    /// Its decimal digits as one number, without the last so many zeros; none beyond 128 bits.
    fn unscaled(&self, zeros: u32) -> Option<u128> {
        let (last, before) = self.digits.split_last()?;
        let digit = |digit: &[u8; 2]| u64::from(u16::from_be_bytes(*digit));
        let (lift, last) = (POWERS[4 - zeros as usize], digit(last) / POWERS[zeros as usize]);
        // Most numbers have room in a word.
        if before.len() < 4 {
            return Some(u128::from(before.iter().fold(0, |value, next| value * 10_000 + digit(next)) * lift + last));
        }
        let digit = |next| u128::from(digit(next));
        let (lift, last) = (u128::from(lift), u128::from(last));
        if before.len() < 9 {
            return Some(before.iter().fold(0, |value, next| value * 10_000 + digit(next)) * lift + last);
        }
        let value = before.iter().try_fold(0u128, |value, next| value.checked_mul(10_000)?.checked_add(digit(next)))?;
        value.checked_mul(lift)?.checked_add(last)
    }

    /// Appends the text of [`crate::number`].
    pub(super) fn canonical(&self, out: &mut String) -> Result<(), Fault> {
        if let Some(word) = self.word() {
            out.push_str(word);
            return Ok(());
        }
        let written = number::write(self.sign == Sign::Minus, &self.decimal_digits(), self.point(), out);
        if written { Ok(()) } else { Err("is beyond what a number holds".into()) }
    }

    /// Appends what the server writes: every shown decimal.
    pub(super) fn shown(&self, out: &mut String) -> Result<(), Fault> {
        let start = out.len();
        self.canonical(out)?;
        if self.word().is_some() {
            return Ok(());
        }
        let shown = out[start..].split_once('.').map_or(0, |(_, fraction)| fraction.len());
        let missing = usize::from(self.scale).saturating_sub(shown);
        if shown == 0 && missing > 0 {
            out.push('.');
        }
        out.extend(std::iter::repeat_n('0', missing));
        Ok(())
    }

    fn word(&self) -> Option<&'static str> {
        match self.sign {
            Sign::NaN => Some("NaN"),
            Sign::Infinity => Some("Infinity"),
            Sign::MinusInfinity => Some("-Infinity"),
            Sign::Plus | Sign::Minus => None,
        }
    }
    fn point(&self) -> i64 {
        (i64::from(self.weight) + 1) * 4
    }
    fn decimal_digits(&self) -> String {
        let mut text = String::with_capacity(4 * self.digits.len());
        for digit in self.digits {
            let digit = u16::from_be_bytes(*digit);
            text.extend(
                [digit / 1_000, digit / 100 % 10, digit / 10 % 10, digit % 10].map(|d| char::from(b'0' + d as u8)),
            );
        }
        text
    }
}

/// Appends a decimal as a field's value, without its length.
pub(super) fn write_decimal(unscaled: i128, scale: i8, out: &mut Vec<u8>) {
    // The base digits are aligned at the point: the last one is filled up with zeros, or the number is lifted.
    let shift = i32::from(scale).rem_euclid(4);
    let mut left = unscaled.unsigned_abs();
    let mut digits = [0u16; 12];
    let mut count = 0;
    let mut push = |digit: u128| {
        if let Some(place) = digits.get_mut(count) {
            *place = digit as u16;
            count += 1;
        }
    };
    if shift > 0 {
        let part = u128::from(POWERS[shift as usize]);
        push(left % part * u128::from(POWERS[4 - shift as usize]));
        left /= part;
    }
    while left > 0 {
        push(left % u128::from(BASE));
        left /= u128::from(BASE);
    }
    let lowest = -i32::from(scale).div_euclid(4) - i32::from(shift > 0);
    let digits = digits.get(..count).unwrap_or(&[]);
    write(unscaled < 0, digits.iter().rev().copied(), lowest + count as i32 - 1, scale.max(0) as u16, out);
}

/// Appends a number of any length, likewise; the text is canonical.
pub(super) fn write_number(text: &str, out: &mut Vec<u8>) -> Result<(), Fault> {
    let special = |sign: u16, out: &mut Vec<u8>| {
        [0, 0, sign, 0].iter().for_each(|part| out.extend_from_slice(&part.to_be_bytes()));
    };
    match Number::parse(text) {
        None => return Err("is no number".into()),
        Some(Number::NaN) => special(0xc000, out),
        Some(Number::Infinity) => special(0xd000, out),
        Some(Number::MinusInfinity) => special(0xf000, out),
        Some(Number::Finite(number)) => {
            let (whole, fraction) = number.parts();
            let lead = whole.len() % 4;
            let (first, rest) = whole.as_bytes().split_at(lead);
            let wholes = std::iter::once(first).filter(|first| !first.is_empty()).chain(rest.chunks(4));
            let wholes = wholes.map(|chunk| base_digit(chunk, chunk.len()));
            let fractions = fraction.as_bytes().chunks(4).map(|chunk| base_digit(chunk, 4));
            let weight = whole.len().div_ceil(4) as i32 - 1;
            let digits: Vec<u16> = wholes.chain(fractions).collect();
            write(number.negative, digits.into_iter(), weight, fraction.len() as u16, out);
        }
    }
    Ok(())
}

fn base_digit(digits: &[u8], places: usize) -> u16 {
    let value = digits.iter().fold(0, |value, digit| value * 10 + u16::from(digit - b'0'));
    value * POWERS[places - digits.len()] as u16
}

/// Digits from the first; those that are zero at either end are left out.
fn write(
    negative: bool,
    digits: impl DoubleEndedIterator<Item = u16> + ExactSizeIterator,
    weight: i32,
    scale: u16,
    out: &mut Vec<u8>,
) {
    let head = out.len();
    out.extend_from_slice(&[0; 8]);
    let mut weight = weight;
    let mut count = 0u16;
    let mut kept = 0u16;
    for digit in digits {
        if digit == 0 && count == 0 {
            weight -= 1;
            continue;
        }
        out.extend_from_slice(&digit.to_be_bytes());
        count += 1;
        if digit != 0 {
            kept = count;
        }
    }
    out.truncate(head + 8 + 2 * usize::from(kept));
    let (sign, weight) = if kept == 0 { (0, 0) } else { (if negative { 0x4000u16 } else { 0 }, weight as i16) };
    let parts = [kept.to_be_bytes(), weight.to_be_bytes(), sign.to_be_bytes(), scale.to_be_bytes()];
    if let Some(place) = out.get_mut(head..head + 8) {
        place.copy_from_slice(parts.as_flattened());
    }
}

/// Whether a decimal keeps every digit in a column of this precision and scale.
pub(super) fn fits(unscaled: i128, scale: i8, (precision, column): (u16, i16)) -> bool {
    let (normal, scale) = crate::batch::normal_decimal(unscaled, scale);
    let digits = normal.unsigned_abs().checked_ilog10().map_or(0, |log| log as i32 + 1);
    digits == 0
        || (i32::from(scale) <= i32::from(column)
            && digits - i32::from(scale) <= i32::from(precision) - i32::from(column))
}

const BASE: u16 = 10_000;
const SCALE_MAX: u16 = 0x3fff;
const POWERS: [u64; 5] = [1, 10, 100, 1_000, 10_000];
const _: () = assert!(DECIMAL_DIGITS_MAX == 38);
