//! Days and times between the engine's types and ours: exactly, or not at all. The engine counts days from 0001-01-01
//! or from 1900-01-01, and seconds in tenths of its scale or in three-hundredths; we count days and µs from 1970.

use std::fmt::Write as _;
use tiberius::time::{Date, DateTime, DateTime2, DateTimeOffset, SmallDateTime, Time};

/// Days since 1970-01-01 of a day of the engine's.
pub(super) fn days(date: Date) -> i32 {
    // Three bytes of days: no overflow is possible.
    i32::try_from(date.days()).unwrap_or(i32::MAX).saturating_sub(DAYS_OF_1970)
}

/// A day between 0001-01-01 and 9999-12-31; none outside.
pub(super) fn date(days: i32) -> Option<Date> {
    let counted = days.checked_add(DAYS_OF_1970)?;
    (0..=DAYS_MAX).contains(&counted).then(|| Date::new(counted.unsigned_abs()))
}

/// µs since 1970; none where a time is finer than that.
pub(super) fn us_of_datetime2(value: DateTime2) -> Option<i64> {
    let time = value.time();
    let scale = time.scale();
    let increments = i64::try_from(time.increments()).ok()?;
    let us = match scale {
        0..=6 => increments.checked_mul(10i64.pow(6 - u32::from(scale)))?,
        7 if increments % 10 == 0 => increments / 10,
        _ => return None,
    };
    i64::from(days(value.date())).checked_mul(DAY_US)?.checked_add(us)
}

/// The instant. The zone in which it was written is no part of it.
pub(super) fn us_of_offset(value: DateTimeOffset) -> Option<i64> {
    us_of_datetime2(value.datetime2())
}

/// A three-hundredth of a second is what everyone shows it as: .000, .003 or .007.
pub(super) fn us_of_datetime(value: DateTime) -> Option<i64> {
    let ms = (i64::from(value.seconds_fragments()) * 10 + 1) / 3;
    (i64::from(value.days()) + DAYS_1900).checked_mul(DAY_US)?.checked_add(ms * 1_000)
}

pub(super) fn us_of_small(value: SmallDateTime) -> i64 {
    (i64::from(value.days()) + DAYS_1900) * DAY_US + i64::from(value.seconds_fragments()) * 60_000_000
}

/// A time in a column that keeps this many digits of a second; none where it has more, or lies outside of its years.
pub(super) fn datetime2(us: i64, scale: u8) -> Option<DateTime2> {
    let (day, within) = (us.div_euclid(DAY_US), us.rem_euclid(DAY_US));
    let date = date(i32::try_from(day).ok()?)?;
    let increments = match scale {
        0..=6 => {
            let step = 10i64.pow(6 - u32::from(scale));
            (within % step == 0).then_some(within / step)?
        }
        7 => within * 10,
        _ => return None,
    };
    Some(DateTime2::new(date, Time::new(increments.unsigned_abs(), scale)))
}

pub(super) fn offset(us: i64, scale: u8) -> Option<DateTimeOffset> {
    datetime2(us, scale).map(|value| DateTimeOffset::new(value, 0))
}

/// A time that the column has a three-hundredth of a second for, from 1753 on.
pub(super) fn datetime(us: i64) -> Option<DateTime> {
    let (day, within) = (us.div_euclid(DAY_US), us.rem_euclid(DAY_US));
    let days = day - DAYS_1900;
    date(i32::try_from(day).ok()?)?;
    if within % 1_000 != 0 || days < DAYS_1753 {
        return None;
    }
    let fragments = (within / 1_000 * 3 + 5) / 10;
    let value = DateTime::new(i32::try_from(days).ok()?, u32::try_from(fragments).ok()?);
    (fragments < FRAGMENTS_DAY && us_of_datetime(value) == Some(us)).then_some(value)
}

/// A whole minute between 1900-01-01 and 2079-06-06.
pub(super) fn small(us: i64) -> Option<SmallDateTime> {
    let (day, within) = (us.div_euclid(DAY_US), us.rem_euclid(DAY_US));
    let days = u16::try_from(day - DAYS_1900).ok()?;
    (within % 60_000_000 == 0).then(|| u16::try_from(within / 60_000_000).ok())?.map(|m| SmallDateTime::new(days, m))
}

/// `HH:MM:SS[.fraction]` with every digit that is not a zero at the end.
pub(super) fn write_time(time: Time, out: &mut String) {
    let scale = u32::from(time.scale().min(7));
    let second = time.increments() / 10u64.pow(scale);
    let _ = write!(out, "{:02}:{:02}:{:02}", second / 3_600, second / 60 % 60, second % 60);
    let fraction = time.increments() % 10u64.pow(scale);
    if fraction != 0 {
        let digits = format!("{fraction:0width$}", width = scale as usize);
        let _ = write!(out, ".{}", digits.trim_end_matches('0'));
    }
}

/// A time that is finer than µs, for people.
pub(super) fn write_datetime2(value: DateTime2, out: &mut String) {
    if !crate::types::write_date(days(value.date()), out) {
        out.clear();
    }
    out.push(' ');
    write_time(value.time(), out);
}

const DAY_US: i64 = 86_400_000_000;
/// From 0001-01-01 to 1970-01-01, and to 9999-12-31.
const DAYS_OF_1970: i32 = 719_162;
const DAYS_MAX: i32 = 3_652_058;
/// 1900-01-01 from 1970-01-01, and 1753-01-01 from 1900-01-01.
const DAYS_1900: i64 = -25_567;
const DAYS_1753: i64 = -53_690;
const FRAGMENTS_DAY: i64 = 25_920_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{parse_date, parse_timestamp};

    fn us(text: &str) -> i64 {
        parse_timestamp(text).unwrap()
    }

    #[test]
    fn days_are_counted_from_the_first_to_the_last() {
        for text in ["0001-01-01", "1752-12-31", "1899-12-31", "1970-01-01", "2000-02-29", "9999-12-31"] {
            let day = parse_date(text).unwrap();
            assert_eq!(date(day).map(days), Some(day), "{text}");
        }
        assert_eq!(date(parse_date("0001-01-01").unwrap()), Some(Date::new(0)));
        for far in [i32::MIN, parse_date("0001-01-01").unwrap() - 1, parse_date("9999-12-31").unwrap() + 1, i32::MAX] {
            assert_eq!(date(far), None, "{far}");
        }
    }

    #[test]
    fn a_time_keeps_every_digit_or_has_no_place() {
        for (text, scale, kept) in [
            ("0001-01-01 00:00:00", 0, true),
            ("9999-12-31 23:59:59.999999", 6, true),
            ("1969-12-31 23:59:59.999999", 7, true),
            ("2026-11-22 05:09:25.123", 3, true),
            ("2026-11-22 05:09:25.1234", 3, false),
            ("2026-11-22 05:09:25.000001", 0, false),
        ] {
            let found = datetime2(us(text), scale);
            assert_eq!(found.is_some(), kept, "{text}");
            assert!(found.is_none_or(|value| us_of_datetime2(value) == Some(us(text))), "{text}");
        }
        assert_eq!(datetime2(i64::MAX, 6), None);
        assert_eq!(datetime2(us("0001-01-01 00:00:00") - 1, 6), None);
    }

    #[test]
    fn a_hundred_nanoseconds_are_not_rounded_away() {
        let fine = |increments| DateTime2::new(date(0).unwrap(), Time::new(increments, 7));
        assert_eq!(us_of_datetime2(fine(1_230)), Some(123));
        assert_eq!(us_of_datetime2(fine(1_231)), None);
        let mut text = String::new();
        write_datetime2(fine(1_231), &mut text);
        assert_eq!(text, "1970-01-01 00:00:00.0001231");
    }

    #[test]
    fn three_hundredths_are_what_everyone_shows() {
        for (text, kept) in [
            ("1753-01-01 00:00:00", true),
            ("1752-12-31 23:59:59", false),
            ("2026-11-22 05:09:25.003", true),
            ("2026-11-22 05:09:25.007", true),
            ("2026-11-22 05:09:25.005", false),
            ("2026-11-22 05:09:25.0031", false),
            ("9999-12-31 23:59:59.997", true),
            ("9999-12-31 23:59:59.999", false),
        ] {
            let found = datetime(us(text));
            assert_eq!(found.is_some(), kept, "{text}");
            assert!(found.is_none_or(|value| us_of_datetime(value) == Some(us(text))), "{text}");
        }
        for (text, kept) in
            [("2079-06-06 23:59:00", true), ("2079-06-07 00:00:00", false), ("2026-11-22 05:09:01", false)]
        {
            let found = small(us(text));
            assert_eq!(found.is_some(), kept, "{text}");
            assert!(found.is_none_or(|value| us_of_small(value) == us(text)), "{text}");
        }
    }

    #[test]
    fn a_time_of_day_is_written_without_zeros_that_say_nothing() {
        for (increments, scale, text) in
            [(0, 7, "00:00:00"), (863_999_999_999, 7, "23:59:59.9999999"), (450, 1, "00:00:45"), (5, 2, "00:00:00.05")]
        {
            let mut out = String::new();
            write_time(Time::new(increments, scale), &mut out);
            assert_eq!(out, text);
        }
    }
}
