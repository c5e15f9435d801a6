//! Exact decimals of any length, as text in one form: no exponent, no leading `+` or zeros, no trailing zeros
//! after the point, `-0` is `0`; or `NaN`, `Infinity`, `-Infinity`. They hold what PostgreSQL's `numeric`
//! without a precision holds; its limits are [`WHOLE_DIGITS_MAX`] and [`FRACTION_DIGITS_MAX`].
//! Equal numbers are equal text, so that a number is compared and hashed without arithmetic.

use crate::batch::DECIMAL_DIGITS_MAX;
use std::borrow::Cow;
use std::cmp::Ordering;

/// A number's text in its one form, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number<'a> {
    Finite(Finite<'a>),
    Infinity,
    MinusInfinity,
    NaN,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finite<'a> {
    pub negative: bool,
    /// At least one digit.
    whole: &'a str,
    fraction: &'a str,
}

impl<'a> Number<'a> {
    /// Takes canonical text only.
    pub fn parse(text: &'a str) -> Option<Self> {
        match text {
            "NaN" => return Some(Self::NaN),
            "Infinity" => return Some(Self::Infinity),
            "-Infinity" => return Some(Self::MinusInfinity),
            _ => {}
        }
        let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
        let (whole, fraction) = match digits.split_once('.') {
            Some((_, "")) => return None,
            Some(parts) => parts,
            None => (digits, ""),
        };
        let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        let canonical = !whole.is_empty()
            && whole.len() <= WHOLE_DIGITS_MAX
            && fraction.len() <= FRACTION_DIGITS_MAX
            && all_digits(whole)
            && all_digits(fraction)
            && (whole == "0" || !whole.starts_with('0'))
            && !fraction.ends_with('0')
            && text != "-0";
        canonical.then_some(Self::Finite(Finite { negative, whole, fraction }))
    }

    /// By size; NaN stands in no order to any other.
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        let place = |number: &Self| match number {
            Self::NaN => None,
            Self::MinusInfinity => Some(-1),
            Self::Finite(_) => Some(0),
            Self::Infinity => Some(1),
        };
        match (self, other) {
            (Self::Finite(a), Self::Finite(b)) => Some(a.compare(b)),
            _ => Some(place(self)?.cmp(&place(other)?)),
        }
    }
}

impl Finite<'_> {
    fn compare(&self, other: &Self) -> Ordering {
        let sign = |number: &Self| match (number.negative, number.whole, number.fraction) {
            (_, "0", "") => 0,
            (true, ..) => -1,
            (false, ..) => 1,
        };
        // Digits of one length compare as text, and so do fractions of any.
        let size = self.whole.len().cmp(&other.whole.len());
        let size = size.then_with(|| self.whole.cmp(other.whole)).then_with(|| self.fraction.cmp(other.fraction));
        sign(self).cmp(&sign(other)).then(if self.negative { size.reverse() } else { size })
    }

    /// Its digits before and after the point.
    pub fn parts(&self) -> (&str, &str) {
        (self.whole, self.fraction)
    }

    /// Its digits without leading and trailing zeros, in two parts, and the scale that the last of them has.
    pub fn significant(&self) -> (&str, &str, i32) {
        if self.fraction.is_empty() {
            let digits = self.whole.trim_end_matches('0');
            return (digits, "", -((self.whole.len() - digits.len()) as i32));
        }
        let scale = self.fraction.len() as i32;
        match self.whole {
            "0" => (self.fraction.trim_start_matches('0'), "", scale),
            whole => (whole, self.fraction, scale),
        }
    }

    /// As a decimal without trailing zeros, where it has no more than 38 digits.
    pub fn decimal(&self) -> Option<(i128, i8)> {
        let (first, second, scale) = self.significant();
        if first.is_empty() {
            return Some((0, 0));
        }
        if first.len() + second.len() > usize::from(DECIMAL_DIGITS_MAX) {
            return None;
        }
        let digits = first.bytes().chain(second.bytes());
        let unscaled = digits.fold(0i128, |value, digit| value * 10 + i128::from(digit - b'0'));
        Some((if self.negative { -unscaled } else { unscaled }, i8::try_from(scale).ok()?))
    }
}

/// The one form of a number that is written in any: with a sign, leading zeros, an exponent, or in words.
pub fn canonical(text: &str) -> Option<Cow<'_, str>> {
    if Number::parse(text).is_some() {
        return Some(Cow::Borrowed(text));
    }
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, text.get(1..)?),
        b'+' => (false, text.get(1..)?),
        _ => (false, text),
    };
    if digits.eq_ignore_ascii_case("nan") {
        return Some(Cow::Borrowed("NaN"));
    }
    if digits.eq_ignore_ascii_case("infinity") || digits.eq_ignore_ascii_case("inf") {
        return Some(Cow::Borrowed(if negative { "-Infinity" } else { "Infinity" }));
    }
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        Some((mantissa, exponent)) if exponent.len() <= EXPONENT_BYTES_MAX => (mantissa, exponent.parse().ok()?),
        Some(_) => return None,
        None => (digits, 0i64),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.len() + fraction.len() == 0 || whole.len() > WHOLE_DIGITS_MAX || fraction.len() > WHOLE_DIGITS_MAX {
        return None;
    }
    let digits = [whole, fraction].concat();
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let mut out = String::new();
    write(negative, &digits, whole.len() as i64 + exponent, &mut out).then_some(Cow::Owned(out))
}

/// Appends the number of these digits whose point stands after so many of them (before the first where negative);
/// false where it is beyond the limits.
pub(crate) fn write(negative: bool, digits: &str, point: i64, out: &mut String) -> bool {
    let significant = digits.trim_start_matches('0');
    let point = point - (digits.len() - significant.len()) as i64;
    let significant = significant.trim_end_matches('0');
    if significant.is_empty() {
        out.push('0');
        return true;
    }
    let count = significant.len() as i64;
    if point > WHOLE_DIGITS_MAX as i64 || count - point > FRACTION_DIGITS_MAX as i64 {
        return false;
    }
    if negative {
        out.push('-');
    }
    let zeros = |count: i64, out: &mut String| out.extend(std::iter::repeat_n('0', count.max(0) as usize));
    match usize::try_from(point).ok().and_then(|point| significant.split_at_checked(point)) {
        Some(("", fraction)) => out.extend(["0.", fraction]),
        Some((whole, "")) => out.push_str(whole),
        Some((whole, fraction)) => out.extend([whole, ".", fraction]),
        None if point < 0 => {
            out.push_str("0.");
            zeros(-point, out);
            out.push_str(significant);
        }
        None => {
            out.push_str(significant);
            zeros(point - count, out);
        }
    }
    true
}

/// Digits before and after the point that a number has at most: PostgreSQL's own limits.
pub const WHOLE_DIGITS_MAX: usize = 131_072;
pub const FRACTION_DIGITS_MAX: usize = 16_383;
const EXPONENT_BYTES_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_a_number_has_one_form() {
        for (text, form) in [
            ("12.50", "12.5"),
            ("+0012", "12"),
            ("-0.000", "0"),
            (".5", "0.5"),
            ("5.", "5"),
            ("1.5e3", "1500"),
            ("1.5E-3", "0.0015"),
            ("-0e7", "0"),
            ("120e-1", "12"),
            ("nan", "NaN"),
            ("-inf", "-Infinity"),
            ("1e131071", &format!("1{}", "0".repeat(131_071))),
        ] {
            assert_eq!(canonical(text).as_deref(), Some(form), "{text}");
            assert_eq!(canonical(form), Some(Cow::Borrowed(form)));
        }
        for text in ["", "-", ".", "e1", "1e", "1e131072", "1e-16384", "1 ", "0x1", "--1", "1.2.3", "１", "1e99999999"]
        {
            assert_eq!(canonical(text), None, "{text}");
        }
    }

    #[test]
    fn only_canonical_text_is_a_number() {
        for text in ["0", "-1", "10", "0.5", "-0.05", "12.5", "NaN", "Infinity", "-Infinity"] {
            assert!(Number::parse(text).is_some(), "{text}");
        }
        for text in ["", "-", "-0", "+1", "01", "1.0", "1.", ".5", "1e5", "nan", "-NaN", " 1"] {
            assert!(Number::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn numbers_compare_by_size_however_long_they_are() {
        let long = "9".repeat(100);
        let ascending =
            ["-Infinity", "-10", "-9.5", "-9.25", "-0.5", "0", "0.05", "0.5", "9", "9.1", "10", &long, "Infinity"];
        for (i, a) in ascending.iter().enumerate() {
            for (j, b) in ascending.iter().enumerate() {
                let (a, b) = (Number::parse(a).unwrap(), Number::parse(b).unwrap());
                assert_eq!(a.compare(&b), Some(i.cmp(&j)), "{a:?} {b:?}");
            }
        }
        assert_eq!(Number::NaN.compare(&Number::NaN), None);
    }

    #[test]
    fn what_fits_a_decimal_becomes_one() {
        let decimal = |text: &str| match Number::parse(text) {
            Some(Number::Finite(number)) => number.decimal(),
            _ => None,
        };
        assert_eq!(decimal("0"), Some((0, 0)));
        assert_eq!(decimal("-12.5"), Some((-125, 1)));
        assert_eq!(decimal("1200"), Some((12, -2)));
        assert_eq!(decimal("0.0012"), Some((12, 4)));
        assert_eq!(decimal(&"9".repeat(38)), Some((10i128.pow(38) - 1, 0)));
        assert_eq!(decimal(&"9".repeat(39)), None);
        assert_eq!(decimal(&format!("1{}", "0".repeat(128))), Some((1, -128)));
        assert_eq!(decimal(&format!("1{}", "0".repeat(129))), None);
    }
}
