//! Dates written as text in a named form, such as `yyyyMMdd`, `yyyy-MM-dd HH:mm:ss` or `yyyy年M月d日`. A form is read
//! exactly: each part has its digits, everything between them stands as it is written in the form, and a day that is
//! in no calendar is no date. A time is taken as it stands, without a zone, like a column of times without one.

use crate::batch::days_of;
use crate::schema::ContractType;
use std::fmt;
use std::str::FromStr;

/// How a date is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    text: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// So many digits, from the least to the most.
    Digits(Unit, usize, usize),
    Literal(char),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Unit {
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
    /// Of a second, in as many digits as it has.
    Fraction,
}

/// What a text says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dated {
    /// Days since 1970-01-01.
    Date(i32),
    /// µs since 1970-01-01 00:00:00.
    Time(i64),
    /// Every digit is 0.
    Zero,
}

/// Why a text says no date; reads well after the column's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    #[error("it is no date of the form {0}")]
    Form(String),
    #[error("it is written as {0}, and there is no such day or time")]
    NoSuchDay(String),
    #[error("it is a date of zeros")]
    Zero,
}

/// Why a text names no form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    #[error("`{0}` is no part of a date: there are yyyy, MM or M, dd or d, HH or H, mm, ss, S to SSSSSS")]
    Unknown(String),
    #[error("a part stands in it twice")]
    Twice,
    #[error("a date has yyyy, MM and dd; a time has HH and mm, and only with mm there is ss")]
    Incomplete,
    #[error("M, d and H have one digit or two: something other than a digit stands behind them")]
    Open,
    #[error("a form has at most {} characters", FORM_CHARS_MAX)]
    TooLong,
}

impl Form {
    /// Date, or a time where it has hours.
    pub fn contract_type(&self) -> ContractType {
        if self.has(Unit::Hour) { ContractType::Timestamp } else { ContractType::Date }
    }

    /// Whether whole numbers can be written so: nothing but digits, of one length.
    pub fn is_number(&self) -> bool {
        self.parts.iter().all(|part| matches!(part, Part::Digits(_, least, most) if least == most))
    }

    /// Reads a text of this form.
    pub fn read(&self, text: &str) -> Result<Dated, Unread> {
        let other = || Unread::Form(self.text.clone());
        let mut rest = text;
        let mut found = [0i64; UNITS];
        for part in &self.parts {
            match *part {
                Part::Literal(literal) => rest = rest.strip_prefix(literal).ok_or_else(other)?,
                Part::Digits(unit, least, most) => {
                    let digits = rest.bytes().take(most).take_while(u8::is_ascii_digit).count();
                    if digits < least {
                        return Err(other());
                    }
                    let (number, after) = rest.split_at(digits);
                    let number: i64 = number.parse().map_err(|_| other())?;
                    let number = match unit {
                        Unit::Fraction => number * 10i64.pow(FRACTION_DIGITS.saturating_sub(digits as u32)),
                        _ => number,
                    };
                    if let Some(place) = found.get_mut(unit as usize) {
                        *place = number;
                    }
                    rest = after;
                }
            }
        }
        if !rest.is_empty() {
            return Err(other());
        }
        if found == [0; UNITS] {
            return Ok(Dated::Zero);
        }
        self.date(found).ok_or_else(|| Unread::NoSuchDay(text.to_owned()))
    }

    /// Reads a whole number, whose zeros in front are not written.
    pub fn read_number(&self, number: &str) -> Result<Dated, Unread> {
        let width: usize =
            self.parts.iter().map(|part| if let Part::Digits(_, _, most) = part { *most } else { 0 }).sum();
        if number.len() >= width {
            return self.read(number);
        }
        self.read(&format!("{number:0>width$}"))
    }

    fn date(&self, found: [i64; UNITS]) -> Option<Dated> {
        let [year, month, day, hour, minute, second, fraction] = found;
        // No calendar that people write has a year 0.
        if year == 0 {
            return None;
        }
        let date = jiff::civil::Date::new(year.try_into().ok()?, month.try_into().ok()?, day.try_into().ok()?).ok()?;
        let days = days_of(date);
        if !self.has(Unit::Hour) {
            return Some(Dated::Date(days));
        }
        if hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let seconds = i64::from(days) * 86_400 + hour * 3_600 + minute * 60 + second;
        Some(Dated::Time(seconds * 1_000_000 + fraction))
    }

    fn has(&self, unit: Unit) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Digits(found, _, _) if *found == unit))
    }
}

impl FromStr for Form {
    type Err = FormError;
    fn from_str(text: &str) -> Result<Self, FormError> {
        let characters: Vec<char> = text.chars().collect();
        if characters.len() > FORM_CHARS_MAX {
            return Err(FormError::TooLong);
        }
        let mut parts = Vec::new();
        for run in characters.chunk_by(|a, b| a == b && a.is_ascii_alphabetic()) {
            let Some(letter) = run.first().copied() else { continue };
            let part = match (letter, run.len()) {
                ('y', 4) => Part::Digits(Unit::Year, 4, 4),
                ('M', 2) => Part::Digits(Unit::Month, 2, 2),
                ('M', 1) => Part::Digits(Unit::Month, 1, 2),
                ('d', 2) => Part::Digits(Unit::Day, 2, 2),
                ('d', 1) => Part::Digits(Unit::Day, 1, 2),
                ('H', 2) => Part::Digits(Unit::Hour, 2, 2),
                ('H', 1) => Part::Digits(Unit::Hour, 1, 2),
                ('m', 2) => Part::Digits(Unit::Minute, 2, 2),
                ('s', 2) => Part::Digits(Unit::Second, 2, 2),
                ('S', digits @ 1..=6) => Part::Digits(Unit::Fraction, digits, digits),
                ('T', 1) => Part::Literal('T'),
                (letter, _) if !letter.is_ascii_alphanumeric() => Part::Literal(letter),
                _ => return Err(FormError::Unknown(run.iter().collect())),
            };
            parts.push(part);
        }
        let form = Self { text: text.to_owned(), parts };
        form.check()?;
        Ok(form)
    }
}

impl Form {
    fn check(&self) -> Result<(), FormError> {
        let mut units: Vec<Unit> = self.parts.iter().filter_map(Part::unit).collect();
        let count = units.len();
        units.sort_unstable();
        units.dedup();
        if units.len() != count {
            return Err(FormError::Twice);
        }
        // Each unit needs the ones before it, but a time need not have seconds.
        let all = [Unit::Year, Unit::Month, Unit::Day, Unit::Hour, Unit::Minute, Unit::Second, Unit::Fraction];
        if units != all.get(..units.len()).unwrap_or_default() || !matches!(units.len(), 3 | 5 | 6 | 7) {
            return Err(FormError::Incomplete);
        }
        let open = self
            .parts
            .windows(2)
            .any(|pair| matches!(pair, [Part::Digits(_, least, most), Part::Digits(..)] if least < most));
        if open { Err(FormError::Open) } else { Ok(()) }
    }
}

impl Part {
    fn unit(&self) -> Option<Unit> {
        match self {
            Self::Digits(unit, ..) => Some(*unit),
            Self::Literal(_) => None,
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

const UNITS: usize = 7;
const FRACTION_DIGITS: u32 = 6;
const FORM_CHARS_MAX: usize = 64;
