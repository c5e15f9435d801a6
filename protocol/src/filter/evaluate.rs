//! What a row makes of a filter: true, false, or unknown where a value is null (three-valued logic, as in SQL).
//! Numbers are compared exactly, text by its bytes; values of different kinds are never compared but refused.

use super::{Comparison, Filter, Literal};
use crate::number::{self, Number};
use std::cmp::Ordering;

/// One value of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    Null,
    Boolean(bool),
    Integer(i64),
    /// Unscaled value and scale: 12.50 is (1250, 2).
    Decimal(i128, i8),
    Float(f64),
    Text(&'a str),
    /// days since 1970-01-01
    Date(i32),
    /// µs UTC
    Timestamp(i64),
    /// In the one form that [`crate::number`] describes.
    Number(&'a str),
    /// A value of a kind that filters cannot compare, as bytes and json; only whether it is null is known.
    Opaque,
}

/// Why a filter cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvaluateError {
    #[error("the column `{0}` does not exist")]
    UnknownColumn(String),
    #[error("the column `{column}` cannot be compared with a value of type {literal}")]
    Incomparable { column: String, literal: &'static str },
}

impl Filter {
    /// `value` gives the row's value in a column, None where there is no such column.
    /// A row passes where the result is `Some(true)`.
    pub fn evaluate<'v>(&self, value: &dyn Fn(&str) -> Option<Value<'v>>) -> Result<Option<bool>, EvaluateError> {
        let read = |column: &str| value(column).ok_or_else(|| EvaluateError::UnknownColumn(column.to_owned()));
        Ok(match self {
            Self::Compare(column, comparison, literal) => {
                compare(column, read(column)?, literal)?.map(|order| holds(*comparison, order))
            }
            Self::In(column, literals) => {
                let found = read(column)?;
                any(literals
                    .iter()
                    .map(|literal| Ok(compare(column, found, literal)?.map(|order| holds(Comparison::Equal, order)))))?
            }
            Self::Between(column, low, high) => {
                let found = read(column)?;
                let above = compare(column, found, low)?.map(|order| holds(Comparison::GreaterOrEqual, order));
                let below = compare(column, found, high)?.map(|order| holds(Comparison::LessOrEqual, order));
                and(above, below)
            }
            Self::IsNull(column) => Some(read(column)? == Value::Null),
            // Every part is looked at, so that a part that cannot be applied is always found.
            Self::And(all) => {
                let mut result = Some(true);
                for filter in all {
                    result = and(result, filter.evaluate(value)?);
                }
                result
            }
            Self::Or(all) => any(all.iter().map(|filter| filter.evaluate(value)))?,
            Self::Not(inner) => inner.evaluate(value)?.map(|known| !known),
        })
    }
}

fn and(a: Option<bool>, b: Option<bool>) -> Option<bool> {
    match (a, b) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    }
}

fn any(parts: impl Iterator<Item = Result<Option<bool>, EvaluateError>>) -> Result<Option<bool>, EvaluateError> {
    let mut result = Some(false);
    for part in parts {
        result = match (result, part?) {
            (Some(true), _) | (_, Some(true)) => Some(true),
            (Some(false), Some(false)) => Some(false),
            _ => None,
        };
    }
    Ok(result)
}

/// How two values stand; a number that is none (NaN) stands in no order to any other.
type Order = Option<Ordering>;

fn holds(comparison: Comparison, order: Order) -> bool {
    match comparison {
        Comparison::Equal => order == Some(Ordering::Equal),
        Comparison::NotEqual => order != Some(Ordering::Equal),
        Comparison::Less => order == Some(Ordering::Less),
        Comparison::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        Comparison::Greater => order == Some(Ordering::Greater),
        Comparison::GreaterOrEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
    }
}

/// None where the value is null.
fn compare(column: &str, value: Value<'_>, literal: &Literal) -> Result<Option<Order>, EvaluateError> {
    let order = match (value, literal) {
        (Value::Null, _) => return Ok(None),
        (Value::Boolean(a), Literal::Boolean(b)) => Some(a.cmp(b)),
        (Value::Text(a), Literal::Text(b)) => Some(a.cmp(b.as_str())),
        (Value::Date(a), Literal::Date(b)) => Some(a.cmp(b)),
        (Value::Timestamp(a), Literal::Timestamp(b)) => Some(a.cmp(b)),
        (Value::Integer(a), Literal::Integer(b)) => Some(a.cmp(b)),
        (Value::Integer(_) | Value::Decimal(..), Literal::Integer(_) | Literal::Decimal(_)) => {
            match (exact_value(value), exact_literal(literal)) {
                (Some(a), Some(b)) => Some(compare_exact(a, b)),
                _ => return Err(incomparable(column, literal)),
            }
        }
        (Value::Number(a), Literal::Integer(b)) => compare_numbers(a, &b.to_string()),
        (Value::Number(a), Literal::Decimal(b)) => compare_numbers(a, b),
        // A float is what it is in binary; the literal is taken as the nearest one, as databases do.
        (Value::Float(a), Literal::Integer(b)) => a.partial_cmp(&(*b as f64)),
        (Value::Float(a), Literal::Decimal(b)) => match b.parse::<f64>() {
            Ok(b) => a.partial_cmp(&b),
            Err(_) => return Err(incomparable(column, literal)),
        },
        _ => return Err(incomparable(column, literal)),
    };
    Ok(Some(order))
}

fn compare_numbers(a: &str, b: &str) -> Order {
    let b = number::canonical(b)?;
    Number::parse(a)?.compare(&Number::parse(&b)?)
}

fn incomparable(column: &str, literal: &Literal) -> EvaluateError {
    EvaluateError::Incomparable { column: column.to_owned(), literal: literal.kind() }
}

fn exact_value(value: Value<'_>) -> Option<(i128, i8)> {
    match value {
        Value::Integer(n) => Some((i128::from(n), 0)),
        Value::Decimal(n, scale) => Some((n, scale)),
        _ => None,
    }
}

fn exact_literal(literal: &Literal) -> Option<(i128, i8)> {
    match literal {
        Literal::Integer(n) => Some((i128::from(*n), 0)),
        Literal::Decimal(text) => {
            let (whole, part) = text.split_once('.')?;
            Some((format!("{whole}{part}").parse().ok()?, i8::try_from(part.len()).ok()?))
        }
        _ => None,
    }
}

/// Compares n·10^−scale exactly: digit by digit where a common scale would not fit.
fn compare_exact((a, a_scale): (i128, i8), (b, b_scale): (i128, i8)) -> Ordering {
    if a.signum() != b.signum() {
        return a.signum().cmp(&b.signum());
    }
    let shift = i32::from(b_scale) - i32::from(a_scale);
    let lift =
        |n: i128, by: i32| u32::try_from(by).ok().and_then(|by| 10i128.checked_pow(by)).and_then(|p| n.checked_mul(p));
    if shift >= 0 {
        // a has fewer decimals; where it cannot be lifted to b's scale, its magnitude is larger than any i128.
        match lift(a, shift) {
            Some(a) => a.cmp(&b),
            None if a == 0 => Ordering::Equal,
            None => {
                if a > 0 {
                    Ordering::Greater
                } else {
                    Ordering::Less
                }
            }
        }
    } else {
        compare_exact((b, b_scale), (a, a_scale)).reverse()
    }
}
