//! Exact decimals of up to 38 digits.

use std::cmp::Ordering;
use std::fmt;

/// `unscaled` × 10^−`scale`; at most 38 digits, so that an `i128` holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decimal {
    pub unscaled: i128,
    pub scale: u8,
}

pub const DIGITS: u32 = 38;

impl Decimal {
    pub fn new(unscaled: i128, scale: u8) -> Self {
        Decimal { unscaled, scale }
    }

    /// With `scale` digits behind the point, rounded half away from zero; none when it needs more than 38 digits.
    pub fn rescale(self, scale: u8) -> Option<Decimal> {
        let unscaled = match scale.cmp(&self.scale) {
            Ordering::Equal => self.unscaled,
            Ordering::Greater => self.unscaled.checked_mul(power(u32::from(scale - self.scale))?)?,
            Ordering::Less => {
                let Some(by) = power(u32::from(self.scale - scale)) else { return Some(Decimal::new(0, scale)) };
                let (whole, rest) = (self.unscaled / by, self.unscaled % by);
                if rest.abs() >= by - rest.abs() { whole + self.unscaled.signum() } else { whole }
            }
        };
        (unscaled.abs() < power(DIGITS)?).then_some(Decimal::new(unscaled, scale))
    }

    /// Without what stands behind the point.
    pub fn truncate(self) -> i128 {
        power(u32::from(self.scale)).map_or(0, |by| self.unscaled / by)
    }

    pub fn fits(self, precision: u8) -> bool {
        power(u32::from(precision)).is_some_and(|bound| self.unscaled.abs() < bound)
    }

    pub fn add(self, other: Decimal) -> Option<Decimal> {
        let scale = self.scale.max(other.scale);
        let sum = self.rescale(scale)?.unscaled.checked_add(other.rescale(scale)?.unscaled)?;
        bounded(sum, scale)
    }

    pub fn multiply(self, other: Decimal) -> Option<Decimal> {
        bounded(self.unscaled.checked_mul(other.unscaled)?, self.scale.checked_add(other.scale)?)
    }

    /// With six further digits behind the point, as far as 38 digits allow.
    pub fn divide(self, by: Decimal) -> Option<Decimal> {
        let scale = self.scale.clamp(6, 20);
        let shift = u32::from(scale) + u32::from(by.scale);
        let have = u32::from(self.scale);
        let numerator = match shift.checked_sub(have) {
            Some(up) => self.unscaled.checked_mul(power(up)?)?,
            None => self.unscaled / power(have - shift)?,
        };
        bounded(numerator.checked_div(by.unscaled)?, scale)
    }

    pub fn negate(self) -> Decimal {
        Decimal::new(-self.unscaled, self.scale)
    }

    pub fn to_f64(self) -> f64 {
        self.to_string().parse().unwrap_or(f64::NAN)
    }

    /// Of plain digits with a point, a sign and perhaps an exponent.
    pub fn parse(text: &str) -> Option<Decimal> {
        let text = text.trim();
        let (mantissa, exponent) = match text.find(['e', 'E']) {
            Some(at) => (text.get(..at)?, text.get(at + 1..)?.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (negative, digits) = match mantissa.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let mut unscaled: i128 = 0;
        for c in whole.chars().chain(fraction.chars()) {
            unscaled = unscaled.checked_mul(10)?.checked_add(i128::from(c.to_digit(10)?))?;
        }
        let mut scale = i32::try_from(fraction.len()).ok()? - exponent;
        if scale < 0 {
            unscaled = unscaled.checked_mul(power(u32::try_from(-scale).ok()?)?)?;
            scale = 0;
        }
        while scale > 38 {
            unscaled /= 10;
            scale -= 1;
        }
        bounded(if negative { -unscaled } else { unscaled }, u8::try_from(scale).ok()?)
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scale = usize::from(self.scale);
        let digits = format!("{:0>width$}", self.unscaled.unsigned_abs(), width = scale + 1);
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        let sign = if self.unscaled < 0 { "-" } else { "" };
        if scale == 0 { write!(f, "{sign}{whole}") } else { write!(f, "{sign}{whole}.{fraction}") }
    }
}

pub fn power(exponent: u32) -> Option<i128> {
    10_i128.checked_pow(exponent)
}

fn bounded(unscaled: i128, scale: u8) -> Option<Decimal> {
    (unscaled.abs() < power(DIGITS)? && scale <= 38).then_some(Decimal::new(unscaled, scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_read_and_written_as_they_are() {
        for text in ["0", "-1", "922337203685477.5807", "-0.0001", "99999999999999999999999999999999999999"] {
            assert_eq!(Decimal::parse(text).expect("a number").to_string(), text);
        }
        assert_eq!(Decimal::parse("1.5e3").expect("a number").to_string(), "1500");
        for wrong in ["", "-", "1x", "999999999999999999999999999999999999999"] {
            assert!(Decimal::parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn a_smaller_scale_rounds_half_away_from_zero() {
        let round = |text: &str| Decimal::parse(text).and_then(|d| d.rescale(1)).expect("fits").to_string();
        assert_eq!((round("1.25"), round("-1.25"), round("1.24")), ("1.3".into(), "-1.3".into(), "1.2".into()));
        assert!(Decimal::new(power(37).expect("small"), 0).rescale(2).is_none());
    }
}
