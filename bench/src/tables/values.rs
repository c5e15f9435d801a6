//! What takes a table's rows, value by value: one table, filled from the same numbers into engines of several kinds.
//! How an engine writes a value stands with that engine; what several of them write alike stands here.

use std::fmt::Write;

pub trait Values {
    fn begin(&mut self, columns: i16);
    fn end(&mut self) -> std::io::Result<()>;
    fn null(&mut self);
    fn int2(&mut self, value: i16);
    fn int4(&mut self, value: i32);
    fn int8(&mut self, value: i64);
    fn boolean(&mut self, value: bool);
    /// Days since 1970-01-01.
    fn date(&mut self, days: i32);
    /// Microseconds since 1970-01-01, of a timestamp and of a timestamptz.
    fn timestamp(&mut self, micros: i64);
    fn text(&mut self, value: &str);
    fn bytea(&mut self, value: &[u8]);
    fn jsonb(&mut self, value: &str);
    /// A numeric with two digits after the point.
    fn hundredths(&mut self, value: i64);
}

impl dyn Values + '_ {
    /// `value` as `put` writes it, or null.
    pub fn option<T>(&mut self, value: Option<T>, put: impl FnOnce(&mut Self, T)) {
        match value {
            Some(value) => put(self, value),
            None => self.null(),
        }
    }
}

/// `YYYY-MM-DD` of days since 1970-01-01, by the algorithm of Howard Hinnant's `civil_from_days`.
pub fn date_text(days: i32) -> String {
    let days = i64::from(days) + DAYS_FROM_MARCH_0000;
    let (era, day) = (days.div_euclid(DAYS_OF_ERA), days.rem_euclid(DAYS_OF_ERA));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // Years begin in March, so that the leap day is their last.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!("{:04}-{month:02}-{day:02}", year + era * 400 + later)
}

/// `YYYY-MM-DD HH:MM:SS.ffffff` in UTC, of microseconds since 1970-01-01.
pub fn timestamp_text(micros: i64) -> String {
    let (days, micros) = (micros.div_euclid(MICROS_OF_DAY), micros.rem_euclid(MICROS_OF_DAY));
    let (second, fraction) = (micros / 1_000_000, micros % 1_000_000);
    let mut text = date_text(days as i32);
    // Formatting into a String cannot fail.
    let _ = write!(text, " {:02}:{:02}:{:02}.{fraction:06}", second / 3_600, second / 60 % 60, second % 60);
    text
}

/// As a decimal of two digits after the point.
pub fn hundredths_text(value: i64) -> String {
    let (sign, amount) = (if value < 0 { "-" } else { "" }, value.unsigned_abs());
    format!("{sign}{}.{:02}", amount / 100, amount % 100)
}

const DAYS_FROM_MARCH_0000: i64 = 719_468;
/// Of 400 years.
const DAYS_OF_ERA: i64 = 146_097;
const MICROS_OF_DAY: i64 = 86_400_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_times_and_amounts_are_written_as_people_read_them() {
        let days = [(0, "1970-01-01"), (-1, "1969-12-31"), (59, "1970-03-01"), (10_957, "2000-01-01")];
        let leap = [(11_016, "2000-02-29"), (11_017, "2000-03-01"), (19_782, "2024-02-29"), (-25_508, "1900-03-01")];
        for (days, text) in days.into_iter().chain(leap) {
            assert_eq!(date_text(days), text);
        }
        assert_eq!(timestamp_text(1_672_502_400_000_123), "2022-12-31 16:00:00.000123");
        assert_eq!(timestamp_text(-1), "1969-12-31 23:59:59.999999");
        let amounts = [(5, "0.05"), (-5, "-0.05"), (100, "1.00"), (-123_456, "-1234.56"), (0, "0.00")];
        for (value, text) in amounts {
            assert_eq!(hundredths_text(value), text);
        }
    }
}
