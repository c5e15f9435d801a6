//! What the connectors of databases share: reading dates, times and decimals from what an engine stores,
//! exactly or not at all; writing them back; what a filter and a watermark make of a row; and how two
//! schemas are shown side by side when they differ. Nothing here guesses: a value that is not what its
//! column declares is none.

use posthouse_protocol::batch::{Value, power_of_ten};
use posthouse_protocol::filter::{Filter, Value as Compared};
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::schema::{Contract, ContractType, Item};
use posthouse_protocol::watermark::Watermark;
use std::fmt::Write as _;

/// `YYYY-MM-DD`, or `infinity` and `-infinity`, as days since 1970-01-01.
pub fn parse_date(text: &str) -> Option<i32> {
    match text {
        "infinity" => return Some(i32::MAX),
        "-infinity" => return Some(i32::MIN),
        _ => {}
    }
    let bytes: &[u8; 10] = text.as_bytes().try_into().ok()?;
    let [_, _, _, _, b'-', _, _, b'-', _, _] = bytes else { return None };
    days(number(&bytes[..4])?, number(&bytes[5..7])?, number(&bytes[8..])?)
}

/// `YYYY-MM-DD`, a blank or `T`, `HH:MM[:SS[.fraction]]`, then nothing (UTC), `Z` or `±HH:MM`; or `infinity`.
/// As µs of UTC; a finer fraction is none.
pub fn parse_timestamp(text: &str) -> Option<i64> {
    match text {
        "infinity" => return Some(i64::MAX),
        "-infinity" => return Some(i64::MIN),
        _ => {}
    }
    let days = i64::from(parse_date(text.get(..10)?)?);
    let bytes = text.as_bytes().get(10..)?;
    let [b' ' | b'T', h1, h2, b':', m1, m2, rest @ ..] = bytes else { return None };
    let (hour, minute) = (number(&[*h1, *h2])?, number(&[*m1, *m2])?);
    let (mut second, mut fraction, mut rest) = (0, 0, rest);
    if let [b':', s1, s2, after @ ..] = rest {
        (second, rest) = (number(&[*s1, *s2])?, after);
        if let [b'.', after @ ..] = rest {
            let length = after.iter().take_while(|b| b.is_ascii_digit()).count();
            let (digits, after) = after.split_at(length);
            let (kept, beyond) = digits.split_at(length.min(6));
            if length == 0 || beyond.iter().any(|b| *b != b'0') {
                return None;
            }
            fraction = number(kept)? * 10i64.pow(6 - kept.len() as u32);
            rest = after;
        }
    }
    let offset = match rest {
        [] | b"Z" => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (number(&[*h1, *h2])?, number(&[*m1, *m2])?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 60 + minutes) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    Some((days * 86_400 + hour * 3_600 + (minute - offset) * 60 + second) * 1_000_000 + fraction)
}

/// A decimal written in digits, exact within its declared precision and scale; unscaled.
pub fn parse_decimal(text: &str, precision: u8, scale: i8) -> Option<i128> {
    let (negative, digits) = match text.as_bytes() {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let point = digits.iter().position(|b| *b == b'.').unwrap_or(digits.len());
    let (whole, part) = (digits.get(..point)?, digits.get(point + 1..).unwrap_or(&[]));
    if whole.is_empty() && part.is_empty() {
        return None;
    }
    let mut unscaled: i128 = 0;
    let mut places = 0i32;
    for (index, digit) in whole.iter().chain(part).enumerate() {
        if !digit.is_ascii_digit() {
            return None;
        }
        // Beyond the declared scale only zeros lose nothing.
        if index >= whole.len() && places == i32::from(scale.max(0)) {
            if *digit != b'0' {
                return None;
            }
            continue;
        }
        unscaled = unscaled.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
        places += i32::from(index >= whole.len());
    }
    let signed = if negative { -unscaled } else { unscaled };
    rescale(signed, places, precision, scale)
}

/// An integer as a decimal of the declared precision and scale.
pub fn decimal_of_integer(value: i64, precision: u8, scale: i8) -> Option<i128> {
    rescale(i128::from(value), 0, precision, scale)
}

/// A double as the decimal it was written as: the one within the scale whose nearest double it is, if there is one.
pub fn decimal_of_float(value: f64, precision: u8, scale: i8) -> Option<i128> {
    if !value.is_finite() || !(0..=15).contains(&scale) {
        return None;
    }
    let power = 10f64.powi(i32::from(scale));
    let scaled = (value * power).round();
    // Below 10^15 a double tells neighbouring decimals apart, and the division of two exact numbers is
    // rounded correctly: equality means that the decimal's nearest double is this value.
    if scaled.abs() >= 1e15 || scaled / power != value {
        return None;
    }
    rescale(scaled as i128, i32::from(scale), precision, scale)
}

fn rescale(unscaled: i128, places: i32, precision: u8, scale: i8) -> Option<i128> {
    let shift = i32::from(scale) - places;
    let power = |by: i32| u8::try_from(by).ok().filter(|by| *by <= 38).map(|by| power_of_ten(by) as i128);
    let value = if shift >= 0 {
        unscaled.checked_mul(power(shift)?)?
    } else {
        let power = power(-shift)?;
        if unscaled % power != 0 {
            return None;
        }
        unscaled / power
    };
    (value.unsigned_abs() < power_of_ten(precision)).then_some(value)
}

/// Whether values of this type are dates or times.
pub fn is_dated(r#type: ContractType) -> bool {
    matches!(r#type, ContractType::Date | ContractType::Timestamp)
}

/// A date of zeros, with or without a time of zeros: what some engines and programs write where there is no date.
pub fn is_zero_date(text: &[u8]) -> bool {
    let Some(rest) = text.strip_prefix(b"0000-00-00") else { return false };
    let Some(time) = rest.strip_prefix(b" ").or_else(|| rest.strip_prefix(b"T")) else { return rest.is_empty() };
    let Some(rest) = time.strip_prefix(b"00:00:00") else { return false };
    match rest {
        [] => true,
        [b'.', digits @ ..] => !digits.is_empty() && digits.iter().all(|digit| *digit == b'0'),
        _ => false,
    }
}

/// Appends `YYYY-MM-DD`; false where the day has no such form.
pub fn write_date(days: i32, out: &mut String) -> bool {
    match days {
        i32::MAX => out.push_str("infinity"),
        i32::MIN => out.push_str("-infinity"),
        _ => {
            let Some((year, month, day)) = civil(i64::from(days)) else { return false };
            let _ = write!(out, "{year:04}-{month:02}-{day:02}");
        }
    }
    true
}

/// Appends `YYYY-MM-DD HH:MM:SS[.ffffff]` in UTC; false where the time has no such form.
pub fn write_timestamp(us: i64, out: &mut String) -> bool {
    match us {
        i64::MAX => out.push_str("infinity"),
        i64::MIN => out.push_str("-infinity"),
        _ => {
            let (seconds, fraction) = (us.div_euclid(1_000_000), us.rem_euclid(1_000_000));
            let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
            let Some((year, month, day)) = civil(days) else { return false };
            let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
            let _ = write!(out, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}");
            if fraction != 0 {
                let _ = write!(out, ".{fraction:06}");
            }
        }
    }
    true
}

/// A row's values by column name, as filters compare them.
pub fn passes(filter: &Filter, names: &[String], row: &[Value<'_>]) -> Result<bool, Problem> {
    let value = |name: &str| {
        let position = names.iter().position(|known| known == name)?;
        Some(row.get(position).copied().map_or(Compared::Null, compared))
    };
    match filter.evaluate(&value) {
        Ok(result) => Ok(result == Some(true)),
        Err(error) => Err(Problem::new(Code::FilterUnsupported).with("resource", "the resource").cause(error)),
    }
}

/// A value as filters compare it.
pub fn compared(value: Value<'_>) -> Compared<'_> {
    match value {
        Value::Null => Compared::Null,
        Value::Boolean(value) => Compared::Boolean(value),
        Value::Integer(value) => Compared::Integer(value),
        Value::Decimal(unscaled, scale) => Compared::Decimal(unscaled, scale),
        Value::Float(value) => Compared::Float(value),
        Value::Text(value) => Compared::Text(value),
        Value::Bytes(_) => Compared::Opaque,
        Value::Date(value) => Compared::Date(value),
        Value::Timestamp(value) => Compared::Timestamp(value),
        Value::Number(value) => Compared::Number(value),
    }
}

/// Which rows one run reads: above the mark of the last run, less what may come late, up to this run's mark.
#[derive(Debug, Clone, Default)]
pub struct Window {
    /// With whether rows at the bound itself belong to it.
    above: Option<(Watermark, bool)>,
    to: Option<Watermark>,
}

impl Window {
    /// Above `from`, widened backwards. More rows with the last mark may have followed it (of the same second, day
    /// or batch), so those at the bound are read again, unless each row has a mark of its own.
    pub fn above(from: Option<&Watermark>, to: Option<&Watermark>, late_ms: i64, unique: bool) -> Self {
        let above = from.map(|from| match from {
            Watermark::Timestamp(us) => {
                (Watermark::Timestamp(us.saturating_sub(late_ms.max(0).saturating_mul(1_000))), !unique)
            }
            other => (other.clone(), !unique),
        });
        Self { above, to: to.cloned() }
    }
    /// Everything up to a mark.
    pub fn up_to(to: Option<&Watermark>) -> Self {
        Self { above: None, to: to.cloned() }
    }
    pub fn is_everything(&self) -> bool {
        self.above.is_none() && self.to.is_none()
    }
    /// The lower bound, for an engine that can seek it.
    pub fn lower(&self) -> Option<&Watermark> {
        self.above.as_ref().map(|(mark, _)| mark)
    }
    /// Whether rows at the lower bound itself belong to it.
    pub fn takes_lower(&self) -> bool {
        self.above.as_ref().is_some_and(|(_, inclusive)| *inclusive)
    }
    /// Whether a row lies in it, by the value of its watermark column. A row without a mark always does:
    /// nothing tells when it changes, so it is read again each time.
    pub fn holds(&self, value: &Value<'_>) -> bool {
        let Some(mark) = watermark_of(value) else { return true };
        let above = self.above.as_ref().is_none_or(|(bound, inclusive)| match order(&mark, bound) {
            std::cmp::Ordering::Greater => true,
            std::cmp::Ordering::Equal => *inclusive,
            std::cmp::Ordering::Less => false,
        });
        above && self.to.as_ref().is_none_or(|to| order(&mark, to).is_le())
    }
    /// For a split's name: the same window gives the same text.
    pub fn name(&self) -> String {
        let text = |mark: Option<&Watermark>| mark.map_or_else(String::new, ToString::to_string);
        format!("{}..{}", text(self.lower()), text(self.to.as_ref()))
    }
}

/// The mark that a value of the watermark column is; dates count as their first instant.
pub fn watermark_of(value: &Value<'_>) -> Option<Watermark> {
    match value {
        Value::Integer(value) => Some(Watermark::Integer(*value)),
        Value::Timestamp(us) => Some(Watermark::Timestamp(*us)),
        Value::Date(days) => Some(Watermark::Timestamp(i64::from(*days) * 86_400_000_000)),
        Value::Text(text) => Some(Watermark::Text((*text).to_owned())),
        _ => None,
    }
}

/// The larger of two marks.
pub fn later(a: Option<Watermark>, b: Watermark) -> Watermark {
    match a {
        Some(a) if order(&a, &b).is_ge() => a,
        _ => b,
    }
}

/// Whether a mark is no later than `max`. Only times are dated ahead.
pub fn is_within(mark: &Watermark, max: Option<&Watermark>) -> bool {
    !matches!((mark, max), (Watermark::Timestamp(mark), Some(Watermark::Timestamp(max))) if mark > max)
}

/// Marks of different kinds come from a changed column: the newer kind then counts as larger.
fn order(a: &Watermark, b: &Watermark) -> std::cmp::Ordering {
    match (a, b) {
        (Watermark::Integer(a), Watermark::Integer(b)) | (Watermark::Timestamp(a), Watermark::Timestamp(b)) => a.cmp(b),
        (Watermark::Text(a), Watermark::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
        _ => std::cmp::Ordering::Greater,
    }
}

/// Whether a column's type can be a watermark.
pub fn can_be_watermark(r#type: ContractType) -> bool {
    matches!(r#type, ContractType::Integer | ContractType::Timestamp | ContractType::Date | ContractType::Text)
}

/// A contract type as people read it.
pub fn type_name(r#type: ContractType) -> String {
    match r#type {
        ContractType::Boolean => "boolean".to_owned(),
        ContractType::Integer => "integer".to_owned(),
        ContractType::Decimal { precision, scale } => format!("decimal({precision},{scale})"),
        ContractType::Float => "float".to_owned(),
        ContractType::Text => "text".to_owned(),
        ContractType::Char => "char".to_owned(),
        ContractType::Bytes => "bytes".to_owned(),
        ContractType::Date => "date".to_owned(),
        ContractType::Timestamp => "timestamp".to_owned(),
        ContractType::Json => "json".to_owned(),
        ContractType::Number => "number".to_owned(),
    }
}

/// The columns of a contract on one line.
pub fn schema_text(contract: &Contract) -> String {
    let item = |item: &Item| {
        let null = if item.nullable { "" } else { " not null" };
        format!("{} {}{null}", item.name, type_name(item.r#type))
    };
    let mut text = contract.items.iter().map(item).collect::<Vec<_>>().join(", ");
    if !contract.key.is_empty() {
        let _ = write!(text, "; key ({})", contract.key.join(", "));
    }
    text
}

/// Refuses to land: the resource's columns and the table's, both shown.
pub fn drift(table: &str, resource: &str, found: &str, why: &str) -> Problem {
    Problem::new(Code::SchemaDrift)
        .with("table", table)
        .with("resource's columns", resource)
        .with("table's columns", found)
        .cause(why)
}

/// Gives a row's vector back for the next row, emptied, with its memory.
pub fn recycle<'b>(mut row: Vec<Value<'_>>) -> Vec<Value<'b>> {
    row.clear();
    row.into_iter().map(|_| Value::Null).collect()
}

fn number(digits: &[u8]) -> Option<i64> {
    let mut value = 0i64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value * 10 + i64::from(digit - b'0');
    }
    Some(value)
}

/// Days since 1970-01-01 of a date of the proleptic Gregorian calendar; none for a day that does not exist.
pub(crate) fn days(year: i64, month: i64, day: i64) -> Option<i32> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(leap),
        _ => return None,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    // Years begin in March here, so that the leap day is a year's last.
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let of_era = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    i32::try_from(era * 146_097 + of_era - 719_468).ok()
}

/// Year, month and day; none outside of the years 0 to 9999.
fn civil(days: i64) -> Option<(i64, i64, i64)> {
    let shifted = days.checked_add(719_468)?;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (0..=9_999).contains(&year).then_some((year, month, day))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_ten_thousand_years_reads_back() {
        let (first, last) = (parse_date("0000-01-01").unwrap(), parse_date("9999-12-31").unwrap());
        assert_eq!((first, last, parse_date("1970-01-01")), (-719_528, 2_932_896, Some(0)));
        let mut text = String::new();
        for days in first..=last {
            text.clear();
            assert!(write_date(days, &mut text));
            assert_eq!(parse_date(&text), Some(days), "{text}");
        }
        assert!(!write_date(last + 1, &mut text) && !write_date(first - 1, &mut text));
    }

    #[test]
    fn a_date_of_zeros_is_told_from_other_texts() {
        for zero in ["0000-00-00", "0000-00-00 00:00:00", "0000-00-00T00:00:00.000000"] {
            assert!(is_zero_date(zero.as_bytes()), "{zero}");
            assert_eq!((parse_date(zero), parse_timestamp(zero)), (None, None));
        }
        for other in ["", "0000-00-01", "0000-00-00 ", "0000-00-00 00:00:01", "0000-00-00 00:00:00.", "00000000"] {
            assert!(!is_zero_date(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn days_that_do_not_exist_and_other_forms_are_no_dates() {
        for text in [
            "2023-02-29",
            "1900-02-29",
            "2024-13-01",
            "2024-00-10",
            "2024-4-1",
            "20240401",
            "2024/04/01",
            "２０24-04-01",
            "",
        ] {
            assert_eq!(parse_date(text), None, "{text}");
        }
        assert!(parse_date("2024-02-29").is_some() && parse_date("2000-02-29").is_some());
    }

    #[test]
    fn times_are_read_to_the_microsecond_and_with_their_zone() {
        for (text, us) in [
            ("1970-01-01 00:00:00", 0),
            ("1970-01-01T00:00", 0),
            ("1970-01-01 08:00:00+08:00", 0),
            ("1969-12-31T23:59:59.999999Z", -1),
            ("2026-11-22 05:09:25.1230000", 1_795_324_165_123_000),
        ] {
            assert_eq!(parse_timestamp(text), Some(us), "{text}");
            let mut written = String::new();
            assert!(write_timestamp(us, &mut written));
            assert_eq!(parse_timestamp(&written), Some(us), "{written}");
        }
        for text in [
            "1970-01-01",
            "1970-01-01 24:00:00",
            "1970-01-01 00:00:60",
            "1970-01-01 00:00:00.1234567",
            "1970-01-01 00:00:00 +08:00",
            "1700000000",
        ] {
            assert_eq!(parse_timestamp(text), None, "{text}");
        }
    }

    #[test]
    fn decimals_are_exact_or_none() {
        for (text, value) in [
            ("12.5", Some(1250)),
            ("-0.01", Some(-1)),
            ("12.500", Some(1250)),
            ("1e3", None),
            ("12.505", None),
            ("99999999.99", Some(9_999_999_999)),
            ("100000000", None),
            ("", None),
            (".", None),
            ("-", None),
            (".5", Some(50)),
        ] {
            assert_eq!(parse_decimal(text, 10, 2), value, "{text}");
        }
        assert_eq!(parse_decimal("1200", 4, -2), Some(12));
        assert_eq!(parse_decimal("1250", 4, -2), None);
        let (low, nines) = ("-99999999999999999999999999999999999999", power_of_ten(38) as i128 - 1);
        assert_eq!(parse_decimal(low, 38, 0), Some(-nines));
    }

    #[test]
    fn a_double_is_the_decimal_it_was_written_as_or_none() {
        for (value, unscaled) in
            [(0.1, Some(10)), (12.34, Some(1234)), (-0.0, Some(0)), (0.1 + 0.2, None), (1e14, None), (f64::NAN, None)]
        {
            assert_eq!(decimal_of_float(value, 10, 2), unscaled, "{value}");
        }
        for unscaled in (0..100_000_000).step_by(997) {
            assert_eq!(decimal_of_float(unscaled as f64 / 100.0, 10, 2), Some(unscaled));
        }
    }

    #[test]
    fn a_window_reads_what_may_come_late_and_the_last_mark_again() {
        let mark = Watermark::Timestamp(10_000_000);
        let window = Window::above(Some(&mark), None, 2_000, false);
        let holds = |us: i64| window.holds(&Value::Timestamp(us));
        assert_eq!([holds(7_999_999), holds(8_000_000), holds(10_000_000)], [false, true, true]);
        assert!(window.holds(&Value::Null));
        let day = Watermark::Timestamp(86_400_000_000);
        assert!(Window::above(Some(&day), None, 0, false).holds(&Value::Date(1)));
        assert!(!Window::above(Some(&day), Some(&day), 0, false).holds(&Value::Date(2)));
        let batch = Watermark::Integer(7);
        assert!(Window::above(Some(&batch), None, 0, false).holds(&Value::Integer(7)));
        assert!(!Window::above(Some(&batch), None, 0, true).holds(&Value::Integer(7)));
    }
}
