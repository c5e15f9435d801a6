//! Days, times of day and their texts. A day is counted from 0001-01-01, a time of day in ticks of 100 ns.

use super::value::Moment;

pub const TICKS_A_SECOND: i64 = 10_000_000;
pub const TICKS_A_DAY: i64 = 86_400 * TICKS_A_SECOND;
/// 1900-01-01, from which `datetime` and `smalldatetime` count.
pub const DAY_1900: i32 = 693_595;
/// 9999-12-31.
pub const LAST_DAY: i32 = 3_652_058;
/// 1753-01-01, the first day of `datetime`.
pub const DAY_1753: i32 = 639_905;

pub fn days(year: i64, month: i64, day: i64) -> Option<i32> {
    if !(1..=9999).contains(&year) || !(1..=12).contains(&month) || day < 1 || day > days_in(year, month) {
        return None;
    }
    let before = year - 1;
    let mut days = before * 365 + before / 4 - before / 100 + before / 400;
    for earlier in 1..month {
        days += days_in(year, earlier);
    }
    i32::try_from(days + day - 1).ok()
}

pub fn civil(days: i32) -> (i64, i64, i64) {
    let days = i64::from(days);
    let mut year = days / 366 + 1;
    while start(year + 1) <= days {
        year += 1;
    }
    let mut rest = days - start(year);
    let mut month = 1;
    while rest >= days_in(year, month) {
        rest -= days_in(year, month);
        month += 1;
    }
    (year, month, rest + 1)
}

fn start(year: i64) -> i64 {
    let before = year - 1;
    before * 365 + before / 4 - before / 100 + before / 400
}

pub fn days_in(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if (year % 4 == 0 && year % 100 != 0) || year % 400 == 0 => 29,
        2 => 28,
        _ => 31,
    }
}

pub fn date_text(days: i32) -> String {
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02}")
}

pub fn time_text(ticks: i64, scale: u8) -> String {
    let seconds = ticks / TICKS_A_SECOND;
    let clock = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if scale == 0 {
        return clock;
    }
    let fraction = format!("{:07}", ticks % TICKS_A_SECOND);
    format!("{clock}.{}", fraction.get(..usize::from(scale.min(7))).unwrap_or(&fraction))
}

pub fn offset_text(minutes: i16) -> String {
    let sign = if minutes < 0 { '-' } else { '+' };
    let minutes = minutes.unsigned_abs();
    format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60)
}

/// A moment moved by ticks, over the ends of days; none outside the years 1 to 9999.
pub fn shift(moment: Moment, ticks: i64) -> Option<Moment> {
    let total = i128::from(moment.days) * i128::from(TICKS_A_DAY) + i128::from(moment.ticks) + i128::from(ticks);
    let days = i32::try_from(total.div_euclid(i128::from(TICKS_A_DAY))).ok()?;
    let ticks = i64::try_from(total.rem_euclid(i128::from(TICKS_A_DAY))).ok()?;
    (0..=LAST_DAY).contains(&days).then_some(Moment { days, ticks })
}

/// Rounded to `scale` digits of a second, half up, over the end of the day where need be.
pub fn round(moment: Moment, scale: u8) -> Option<Moment> {
    let unit = 10_i64.pow(u32::from(7 - scale.min(7)));
    let rest = moment.ticks % unit;
    let by = if rest * 2 >= unit && rest > 0 { unit - rest } else { -rest };
    shift(moment, by)
}

/// In three hundredths of a second, as `datetime` holds it.
pub fn round_to_datetime(moment: Moment) -> Option<Moment> {
    let thirds = thirds(moment.ticks);
    if thirds >= 86_400 * 300 {
        return shift(Moment { days: moment.days, ticks: 0 }, TICKS_A_DAY);
    }
    Some(Moment { days: moment.days, ticks: from_thirds(thirds) })
}

pub fn thirds(ticks: i64) -> i64 {
    (ticks * 3 + 50_000) / 100_000
}

pub fn from_thirds(thirds: i64) -> i64 {
    (thirds * 100_000 + 1) / 3
}

/// What a text says of a day, a time and a zone: each only where it says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Read {
    pub days: Option<i32>,
    pub ticks: Option<i64>,
    pub offset: Option<i16>,
}

/// `2024-02-29`, `20240229`, `12:00:01.5`, both with a blank or a T between, with a zone or a Z behind.
pub fn read(text: &str) -> Option<Read> {
    let text = text.trim();
    if text.is_empty() {
        return Some(Read { days: Some(DAY_1900), ticks: Some(0), offset: None });
    }
    let mut read = Read::default();
    let (date, time) = match text.split_once(['T', ' ']) {
        Some((date, time)) => (Some(date), Some(time.trim())),
        None if text.contains(':') => (None, Some(text)),
        None => (Some(text), None),
    };
    if let Some(date) = date {
        read.days = Some(read_date(date)?);
    }
    if let Some(time) = time {
        let (clock, offset) = split_zone(time)?;
        read.ticks = Some(read_time(clock.trim())?);
        read.offset = offset;
    }
    Some(read)
}

fn read_date(text: &str) -> Option<i32> {
    let parts: Vec<&str> = if text.len() == 8 && text.bytes().all(|b| b.is_ascii_digit()) {
        vec![text.get(..4)?, text.get(4..6)?, text.get(6..)?]
    } else {
        text.split(['-', '/']).collect()
    };
    let [year, month, day] = parts.as_slice() else { return None };
    if year.len() != 4 {
        return None;
    }
    days(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?)
}

fn split_zone(time: &str) -> Option<(&str, Option<i16>)> {
    if let Some(clock) = time.strip_suffix(['Z', 'z']) {
        return Some((clock, Some(0)));
    }
    let Some(at) = time.find(['+', '-']) else { return Some((time, None)) };
    let (clock, zone) = time.split_at(at);
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    let minutes = hours.parse::<i16>().ok()?.checked_mul(60)?.checked_add(minutes.parse().ok()?)?;
    if minutes > 840 {
        return None;
    }
    Some((clock, Some(if zone.starts_with('-') { -minutes } else { minutes })))
}

fn read_time(text: &str) -> Option<i64> {
    let mut parts = text.split(':');
    let hours: i64 = parts.next()?.parse().ok()?;
    let minutes: i64 = parts.next()?.parse().ok()?;
    let (seconds, fraction) = match parts.next() {
        Some(seconds) => {
            let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
            (whole.parse::<i64>().ok()?, fraction)
        }
        None => (0, ""),
    };
    if parts.next().is_some() || !(0..24).contains(&hours) || !(0..60).contains(&minutes) || !(0..60).contains(&seconds)
    {
        return None;
    }
    if fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanoseconds: i64 = format!("{fraction:0<9}").parse().ok()?;
    Some((hours * 3600 + minutes * 60 + seconds) * TICKS_A_SECOND + (nanoseconds + 50) / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_from_the_year_one() {
        assert_eq!(days(1, 1, 1), Some(0));
        assert_eq!(days(1900, 1, 1), Some(DAY_1900));
        assert_eq!(days(1753, 1, 1), Some(DAY_1753));
        assert_eq!(days(9999, 12, 31), Some(LAST_DAY));
        assert_eq!(days(2023, 2, 29), None);
        for day in [0, 58, 59, 365, DAY_1900, 738_000, LAST_DAY] {
            let (year, month, date) = civil(day);
            assert_eq!(days(year, month, date), Some(day), "{day}");
        }
    }

    #[test]
    fn texts_of_moments_are_read_to_the_last_tick() {
        let read_back = read("2024-02-29T23:59:59.1234567+08:00").expect("a moment");
        assert_eq!(read_back.days, days(2024, 2, 29));
        assert_eq!(time_text(read_back.ticks.expect("a time"), 7), "23:59:59.1234567");
        assert_eq!(read_back.offset, Some(480));
        assert!(read("2024-13-01").is_none() && read("24:00:00").is_none() && read("yesterday").is_none());
    }

    #[test]
    fn a_datetime_keeps_three_hundredths_of_a_second() {
        let at =
            |text: &str| round_to_datetime(Moment { days: 0, ticks: read(text).and_then(|r| r.ticks).expect("t") });
        assert_eq!(time_text(at("00:00:00.002").expect("in range").ticks, 3), "00:00:00.003");
        assert_eq!(time_text(at("00:00:00.9999").expect("in range").ticks, 3), "00:00:01.000");
        assert_eq!(at("23:59:59.999").expect("in range").days, 1);
    }
}
