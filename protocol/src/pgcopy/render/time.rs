//! Dates, times and intervals as the server writes them in ISO style.

use crate::pgcopy::Fault;
use bytes::Buf as _;
use std::fmt::Write as _;

/// Days since 2000-01-01.
pub(super) fn date(days: i32, out: &mut String) -> Result<(), Fault> {
    match days {
        i32::MAX => out.push_str("infinity"),
        i32::MIN => out.push_str("-infinity"),
        _ => {
            let before = day(i64::from(days), out);
            out.push_str(before);
        }
    }
    Ok(())
}

/// µs since 2000-01-01; the zone stands before the era.
pub(super) fn timestamp(us: i64, zone: &str, out: &mut String) -> Result<(), Fault> {
    match us {
        i64::MAX => out.push_str("infinity"),
        i64::MIN => out.push_str("-infinity"),
        _ => {
            let era = day(us.div_euclid(DAY_US), out);
            out.push(' ');
            clock(us.rem_euclid(DAY_US) as u64, out);
            out.extend([zone, era]);
        }
    }
    Ok(())
}

/// µs since midnight, the end of the day included.
pub(super) fn time(us: i64, out: &mut String) -> Result<(), Fault> {
    if !(0..=DAY_US).contains(&us) {
        return Err("is no time of a day".into());
    }
    clock(us as u64, out);
    Ok(())
}

/// A time and its zone in seconds west of UTC.
pub(super) fn timetz(mut value: &[u8], out: &mut String) -> Result<(), Fault> {
    let (us, west) = (value.try_get_i64()?, value.try_get_i32()?);
    super::end(value)?;
    time(us, out)?;
    let seconds = west.unsigned_abs();
    if seconds >= ZONE_SECONDS_END {
        return Err("has a zone that does not exist".into());
    }
    let _ = write!(out, "{}{:02}", if west <= 0 { '+' } else { '-' }, seconds / 3_600);
    let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
    if minutes != 0 || seconds != 0 {
        let _ = write!(out, ":{minutes:02}");
    }
    if seconds != 0 {
        let _ = write!(out, ":{seconds:02}");
    }
    Ok(())
}

/// µs, days and months, each with its own sign.
pub(super) fn interval(mut value: &[u8], out: &mut String) -> Result<(), Fault> {
    let (us, days, months) = (value.try_get_i64()?, value.try_get_i32()?, value.try_get_i32()?);
    super::end(value)?;
    // Servers from version 17 on have intervals without end, at the largest and the smallest of all three.
    match (us, days, months) {
        (i64::MAX, i32::MAX, i32::MAX) => {
            out.push_str("infinity");
            return Ok(());
        }
        (i64::MIN, i32::MIN, i32::MIN) => {
            out.push_str("-infinity");
            return Ok(());
        }
        _ => {}
    }
    let (mut first, mut negative) = (true, false);
    for (count, unit) in [(months / 12, "year"), (months % 12, "mon"), (days, "day")] {
        if count != 0 {
            let _ = write!(
                out,
                "{}{}{count} {unit}{}",
                if first { "" } else { " " },
                if negative && count > 0 { "+" } else { "" },
                if count == 1 { "" } else { "s" }
            );
            (first, negative) = (false, count < 0);
        }
    }
    if first || us != 0 {
        let sign = match us {
            ..0 => "-",
            _ if negative => "+",
            _ => "",
        };
        out.extend([if first { "" } else { " " }, sign]);
        clock(us.unsigned_abs(), out);
    }
    Ok(())
}

/// `HH:MM:SS[.ffffff]`, hours without end, the fraction without trailing zeros.
fn clock(us: u64, out: &mut String) {
    let (seconds, fraction) = (us / 1_000_000, us % 1_000_000);
    let _ = write!(out, "{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60);
    if fraction != 0 {
        let digits = format!("{fraction:06}");
        out.extend([".", digits.trim_end_matches('0')]);
    }
}

/// `YYYY-MM-DD` of a day counted from 2000-01-01; gives what stands behind a date before our era.
fn day(days: i64, out: &mut String) -> &'static str {
    // Years begin in March here, so that the leap day is a year's last: day 0 is 0000-03-01.
    let shifted = days + 730_425;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let (year, era) = if year > 0 { (year, "") } else { (1 - year, " BC") };
    let _ = write!(out, "{year:04}-{month:02}-{day:02}");
    era
}

const DAY_US: i64 = 86_400_000_000;
/// Zones are less than 16 hours away.
const ZONE_SECONDS_END: u32 = 16 * 3_600;
