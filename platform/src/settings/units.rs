//! Sizes and durations as they stand in a configuration, with the unit inside the value:
//! `"4 MiB"`, `"20 GiB"`, `"10s"`, `"7d"`, `"1h 30m"`. A bare number is refused.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// A duration in whole milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interval(pub u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is a number with a unit")]
pub struct NoUnit;

impl Size {
    pub const fn mib(mib: u64) -> Self {
        Self(mib << 20)
    }
    pub const fn gib(gib: u64) -> Self {
        Self(gib << 30)
    }
}

impl Interval {
    pub const fn seconds(seconds: u64) -> Self {
        Self(seconds * 1000)
    }
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
    pub fn as_ms(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }
}

impl FromStr for Size {
    type Err = NoUnit;
    fn from_str(text: &str) -> Result<Self, NoUnit> {
        let (number, unit) = split(text.trim())?;
        let (_, factor) = SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or(NoUnit)?;
        times(number, *factor).map(Self)
    }
}

impl FromStr for Interval {
    type Err = NoUnit;
    fn from_str(text: &str) -> Result<Self, NoUnit> {
        let mut rest = text.trim();
        let mut total = 0u64;
        while !rest.is_empty() {
            let end = rest.find(|c: char| c.is_ascii_alphabetic()).ok_or(NoUnit)?;
            let after = rest[end..].find(|c: char| !c.is_ascii_alphabetic()).map_or(rest.len(), |at| end + at);
            let (number, unit) = split(&rest[..after])?;
            let (_, factor) = INTERVALS.iter().find(|(name, _)| *name == unit).ok_or(NoUnit)?;
            total = total.checked_add(times(number, *factor)?).ok_or(NoUnit)?;
            rest = rest[after..].trim_start();
        }
        if text.trim().is_empty() { Err(NoUnit) } else { Ok(Self(total)) }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = SIZES.iter().rev().filter(|(name, _)| name.len() != 2 || *name == "B");
        let found = unit.into_iter().find(|(name, factor)| {
            (name.ends_with("iB") || *name == "B") && self.0 >= *factor && self.0.is_multiple_of(*factor)
        });
        match found {
            Some((name, factor)) => write!(f, "{} {name}", self.0 / factor),
            None => write!(f, "{} B", self.0),
        }
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = INTERVALS
            .iter()
            .rev()
            .find(|(name, factor)| *name != "w" && self.0 >= *factor && self.0.is_multiple_of(*factor));
        match found {
            Some((name, factor)) => write!(f, "{}{name}", self.0 / factor),
            None => write!(f, "{}ms", self.0),
        }
    }
}

fn split(text: &str) -> Result<(&str, &str), NoUnit> {
    let end = text.find(|c: char| c.is_ascii_alphabetic()).ok_or(NoUnit)?;
    Ok((text[..end].trim_end(), &text[end..]))
}

/// `1.5` × factor, exactly where possible, rounded down.
fn times(number: &str, factor: u64) -> Result<u64, NoUnit> {
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| !text.is_empty() && text.len() <= 19 && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || (number.contains('.') && (!digits(part) || part.len() > 6)) {
        return Err(NoUnit);
    }
    let whole: u64 = whole.parse().map_err(|_| NoUnit)?;
    let whole = whole.checked_mul(factor).ok_or(NoUnit)?;
    if part.is_empty() {
        return Ok(whole);
    }
    let scale = 10u128.pow(u32::try_from(part.len()).map_err(|_| NoUnit)?);
    let part: u128 = part.parse().map_err(|_| NoUnit)?;
    let part = u64::try_from(part * u128::from(factor) / scale).map_err(|_| NoUnit)?;
    whole.checked_add(part).ok_or(NoUnit)
}

/// Ascending.
const SIZES: &[(&str, u64)] = &[
    ("B", 1),
    ("KB", 1_000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
    ("TB", 1_000_000_000_000),
    ("TiB", 1 << 40),
];

const INTERVALS: &[(&str, u64)] =
    &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000), ("w", 604_800_000)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_carry_their_unit() {
        assert_eq!("4 MiB".parse(), Ok(Size(4 << 20)));
        assert_eq!("1.5GiB".parse(), Ok(Size(3 << 29)));
        assert_eq!("10 kb".parse(), Ok(Size(10_000)));
        assert_eq!("10s".parse(), Ok(Interval(10_000)));
        assert_eq!("1h 30m".parse(), Ok(Interval(5_400_000)));
        assert_eq!("7d".parse(), Ok(Interval(604_800_000)));
        for bad in ["", "10", "MiB", "-1 MiB", "1e3 B", "4 XB", "99999999999999999999 B", "20000000 TiB"] {
            assert_eq!(bad.parse::<Size>(), Err(NoUnit), "{bad:?}");
        }
        for bad in ["", "10", "s", "-1s", "5 fortnights", "1h 30"] {
            assert_eq!(bad.parse::<Interval>(), Err(NoUnit), "{bad:?}");
        }
    }

    #[test]
    fn what_is_shown_reads_back_as_the_same() {
        for size in [Size(1), Size(1000), Size(1 << 10), Size::mib(96), Size::gib(20), Size(3 << 29)] {
            assert_eq!(size.to_string().parse(), Ok(size));
        }
        for interval in [Interval(1), Interval::seconds(90), Interval::seconds(86_400 * 7), Interval(0)] {
            assert_eq!(interval.to_string().parse(), Ok(interval));
        }
    }
}
