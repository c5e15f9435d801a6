//! 信息项的数据类型: the eleven types by which a catalogue says what its items are, C N Y D T L M G B I F, and how values of
//! a column become what its item is declared as: exactly, or not at all. A column of a kind that cannot fill such an
//! item is told before a row is read ([`ItemType::of`]); a single value that has no place in it makes a bad row
//! ([`Cast::value`]). Nothing is rounded, cut or filled up.

use crate::batch::{DECIMAL_DIGITS_MAX, Value, normal_decimal, power_of_ten};
use crate::number::{self, Number};
use crate::schema::ContractType;
use std::fmt::{self, Write as _};
use std::str::FromStr;

/// What a catalogue declares an item as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ItemType {
    /// 字符型 C: a text of at most so many characters, where it says how many.
    Character(Option<u32>),
    /// 数值型 N: so many digits, and of those behind the point; without them a number of any length.
    Numeric(Option<(u8, u8)>),
    /// 货币型 Y: 19 digits, 4 of them behind the point.
    Currency,
    /// 日期型 D
    Date,
    /// 日期时间型 T
    DateTime,
    /// 逻辑型 L
    Logical,
    /// 备注型 M: a text of any length.
    Memo,
    /// 通用型 G: bytes.
    General,
    /// 双精度型 B
    Double,
    /// 整型 I: 64 bits.
    Integer,
    /// 浮点型 F: kept in 64 bits too.
    Float,
}

impl ItemType {
    /// One of each letter, as a document shows them.
    pub const ALL: [Self; 11] = [
        Self::Character(Some(50)),
        Self::Numeric(Some((18, 2))),
        Self::Currency,
        Self::Date,
        Self::DateTime,
        Self::Logical,
        Self::Memo,
        Self::General,
        Self::Double,
        Self::Integer,
        Self::Float,
    ];

    /// What catalogues call it.
    pub fn zh(self) -> &'static str {
        match self {
            Self::Character(_) => "字符型",
            Self::Numeric(_) => "数值型",
            Self::Currency => "货币型",
            Self::Date => "日期型",
            Self::DateTime => "日期时间型",
            Self::Logical => "逻辑型",
            Self::Memo => "备注型",
            Self::General => "通用型",
            Self::Double => "双精度型",
            Self::Integer => "整型",
            Self::Float => "浮点型",
        }
    }

    /// The contract type of such an item where its column is `found`; none where a column of that kind cannot fill it
    /// without a change of values.
    pub fn of(self, found: ContractType) -> Option<ContractType> {
        let is_exact = matches!(found, ContractType::Integer | ContractType::Decimal { .. } | ContractType::Number);
        match self {
            Self::Character(_) | Self::Memo => match found {
                ContractType::Text | ContractType::Char => Some(found),
                ContractType::Json => Some(ContractType::Text),
                _ => is_exact.then_some(ContractType::Text),
            },
            Self::Numeric(Some((precision, scale))) => {
                is_exact.then_some(ContractType::Decimal { precision, scale: scale as i8 })
            }
            Self::Numeric(None) => is_exact.then_some(ContractType::Number),
            Self::Currency => is_exact.then_some(ContractType::Decimal { precision: 19, scale: 4 }),
            Self::Integer => is_exact.then_some(ContractType::Integer),
            Self::Logical => (is_exact || found == ContractType::Boolean).then_some(ContractType::Boolean),
            Self::Double | Self::Float => {
                matches!(found, ContractType::Float | ContractType::Integer).then_some(ContractType::Float)
            }
            Self::Date => matches!(found, ContractType::Date | ContractType::Timestamp).then_some(ContractType::Date),
            Self::DateTime => {
                matches!(found, ContractType::Date | ContractType::Timestamp).then_some(ContractType::Timestamp)
            }
            Self::General => (found == ContractType::Bytes).then_some(ContractType::Bytes),
        }
    }
}

impl fmt::Display for ItemType {
    /// As a configuration has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Character(None) => f.write_str("C"),
            Self::Character(Some(most)) => write!(f, "C({most})"),
            Self::Numeric(None) => f.write_str("N"),
            Self::Numeric(Some((precision, scale))) => write!(f, "N({precision},{scale})"),
            Self::Currency => f.write_str("Y"),
            Self::Date => f.write_str("D"),
            Self::DateTime => f.write_str("T"),
            Self::Logical => f.write_str("L"),
            Self::Memo => f.write_str("M"),
            Self::General => f.write_str("G"),
            Self::Double => f.write_str("B"),
            Self::Integer => f.write_str("I"),
            Self::Float => f.write_str("F"),
        }
    }
}

/// Why a text declares no item.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is none of C, C(50), N, N(18), N(18,2), Y, D, T, L, M, G, B, I and F")]
pub struct ItemTypeError(String);

impl FromStr for ItemType {
    type Err = ItemTypeError;

    fn from_str(text: &str) -> Result<Self, ItemTypeError> {
        let wrong = || ItemTypeError(text.chars().take(SHOWN_CHARS).collect());
        let (letter, inside) = match text.split_once('(') {
            None => (text, None),
            Some((letter, rest)) => (letter, Some(rest.strip_suffix(')').ok_or_else(wrong)?)),
        };
        Ok(match (letter, inside) {
            ("C", None) => Self::Character(None),
            ("C", Some(most)) => {
                let most = count(most).filter(|most| (1..=CHARACTERS_MAX).contains(most));
                Self::Character(Some(most.ok_or_else(wrong)?))
            }
            ("N", None) => Self::Numeric(None),
            ("N", Some(digits)) => {
                let (precision, scale) = digits.split_once(',').unwrap_or((digits, "0"));
                let digits = |text: &str| count(text).and_then(|digits| u8::try_from(digits).ok());
                let precision = digits(precision).filter(|digits| (1..=DECIMAL_DIGITS_MAX).contains(digits));
                let precision = precision.ok_or_else(wrong)?;
                let scale = digits(scale).filter(|scale| *scale <= precision).ok_or_else(wrong)?;
                Self::Numeric(Some((precision, scale)))
            }
            ("Y", None) => Self::Currency,
            ("D", None) => Self::Date,
            ("T", None) => Self::DateTime,
            ("L", None) => Self::Logical,
            ("M", None) => Self::Memo,
            ("G", None) => Self::General,
            ("B", None) => Self::Double,
            ("I", None) => Self::Integer,
            ("F", None) => Self::Float,
            _ => return Err(wrong()),
        })
    }
}

fn count(text: &str) -> Option<u32> {
    let digits = text.trim();
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// How the values of one column become those of its item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cast {
    item: ItemType,
    /// What [`ItemType::of`] made of the column.
    r#type: ContractType,
}

/// A value that has no place in its item; reads well after the column's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it has no place in {0}, as its item is declared")]
pub(super) struct Misfit(ItemType);

impl Cast {
    pub(super) fn new(item: ItemType, r#type: ContractType) -> Self {
        Self { item, r#type }
    }

    /// A value of the column as its item has it. `text` holds what is made of it.
    pub(super) fn value<'v>(&self, value: Value<'v>, text: &'v mut String) -> Result<Value<'v>, Misfit> {
        let misfit = Misfit(self.item);
        Ok(match (self.r#type, value) {
            (_, Value::Null) => Value::Null,
            (ContractType::Boolean, Value::Boolean(_))
            | (ContractType::Integer, Value::Integer(_))
            | (ContractType::Number, Value::Number(_))
            | (ContractType::Float, Value::Float(_))
            | (ContractType::Bytes, Value::Bytes(_))
            | (ContractType::Date, Value::Date(_))
            | (ContractType::Timestamp, Value::Timestamp(_)) => value,
            (ContractType::Text | ContractType::Char, Value::Text(found)) => {
                // Blanks that fill a char up are no part of it.
                let is_char = self.r#type == ContractType::Char;
                let counted = if is_char { found.trim_end_matches(' ') } else { found };
                if self.is_too_long(counted) {
                    return Err(misfit);
                }
                value
            }
            (ContractType::Text, number) => {
                digits(number, text).ok_or(misfit)?;
                if self.is_too_long(text) {
                    return Err(misfit);
                }
                Value::Text(text)
            }
            (ContractType::Number, number) => {
                digits(number, text).ok_or(misfit)?;
                Value::Number(text)
            }
            (ContractType::Decimal { precision, scale }, number) => {
                Value::Decimal(decimal(number, precision, scale).ok_or(misfit)?, scale)
            }
            (ContractType::Integer, number) => Value::Integer(whole(number).ok_or(misfit)?),
            (ContractType::Boolean, number) => match whole(number) {
                Some(0) => Value::Boolean(false),
                Some(1) => Value::Boolean(true),
                _ => return Err(misfit),
            },
            (ContractType::Float, number) => {
                // Up to here each whole number is a double.
                let whole = whole(number).filter(|whole| whole.unsigned_abs() <= 1 << 53).ok_or(misfit)?;
                Value::Float(whole as f64)
            }
            (ContractType::Date, Value::Timestamp(us)) => Value::Date(day(us).ok_or(misfit)?),
            (ContractType::Timestamp, Value::Date(days)) => Value::Timestamp(midnight(days).ok_or(misfit)?),
            _ => return Err(misfit),
        })
    }

    fn is_too_long(&self, text: &str) -> bool {
        let ItemType::Character(Some(most)) = self.item else { return false };
        // A character has at least one byte.
        text.len() > most as usize && text.chars().count() > most as usize
    }
}

/// A number's digits in the one form that they have; none of a value that is no number.
fn digits(value: Value<'_>, out: &mut String) -> Option<()> {
    out.clear();
    match value {
        Value::Integer(_) => write!(out, "{value}").ok(),
        Value::Decimal(..) => {
            write!(out, "{}", value.normal()).ok()?;
            number::canonical(out).is_some().then_some(())
        }
        Value::Number(text) => {
            out.push_str(text);
            Some(())
        }
        _ => None,
    }
}

/// Unscaled and scale, without zeros at the end; none of a value that is no number, or has more than 38 digits.
fn parts(value: Value<'_>) -> Option<(i128, i8)> {
    match value {
        Value::Integer(value) => Some(normal_decimal(i128::from(value), 0)),
        Value::Decimal(unscaled, scale) => Some(normal_decimal(unscaled, scale)),
        Value::Number(text) => match Number::parse(text)? {
            Number::Finite(number) => number.decimal(),
            _ => None,
        },
        _ => None,
    }
}

/// Unscaled, with this scale; none where digits would be lost, or are too many.
fn decimal(value: Value<'_>, precision: u8, scale: i8) -> Option<i128> {
    let (unscaled, from) = parts(value)?;
    let by = u8::try_from(i16::from(scale) - i16::from(from)).ok().filter(|by| *by <= DECIMAL_DIGITS_MAX)?;
    let unscaled = unscaled.checked_mul(i128::try_from(power_of_ten(by)).ok()?)?;
    (unscaled.unsigned_abs() < power_of_ten(precision)).then_some(unscaled)
}

fn whole(value: Value<'_>) -> Option<i64> {
    i64::try_from(decimal(value, DECIMAL_DIGITS_MAX, 0)?).ok()
}

/// Of a time that is a day's first instant; what is infinite stays so.
fn day(us: i64) -> Option<i32> {
    match us {
        i64::MAX => Some(i32::MAX),
        i64::MIN => Some(i32::MIN),
        _ if us.rem_euclid(DAY_US) == 0 => i32::try_from(us.div_euclid(DAY_US)).ok(),
        _ => None,
    }
}

fn midnight(days: i32) -> Option<i64> {
    match days {
        i32::MAX => Some(i64::MAX),
        i32::MIN => Some(i64::MIN),
        _ => i64::from(days).checked_mul(DAY_US),
    }
}

const DAY_US: i64 = 86_400_000_000;
/// A catalogue that means more writes M.
const CHARACTERS_MAX: u32 = 1 << 20;
const SHOWN_CHARS: usize = 40;

#[cfg(test)]
mod tests;
