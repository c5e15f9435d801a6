//! Arithmetic, patterns, and what aggregates make of many values.

use super::tree::Operator;
use crate::store::convert::{Mode, convert};
use crate::store::{Collation, Decimal, Kind, SqlError, Type, Value};
use std::sync::Arc;

type Evaluated = Result<Value, SqlError>;

pub fn text_of(value: &Value) -> Option<Arc<str>> {
    match value {
        Value::Text(text) => Some(Arc::clone(text)),
        Value::Narrow(bytes) => Some(Arc::from(String::from_utf8_lossy(bytes).as_ref())),
        _ => None,
    }
}

pub fn negate(value: Value) -> Evaluated {
    Ok(match value {
        Value::Int(int) => Value::Int(int.checked_neg().ok_or_else(|| overflow(Kind::BigInt))?),
        Value::Decimal(decimal) => Value::Decimal(decimal.negate()),
        Value::Float(float) => Value::Float(-float),
        _ => Value::Null,
    })
}

/// Both sides have been brought to the kind of the result, decimals aside, which keep their scales.
pub fn arithmetic(operator: Operator, left: &Value, right: &Value, ty: Type) -> Evaluated {
    let whole = |value: Option<i64>| -> Evaluated {
        let value = value.ok_or_else(|| overflow(ty.kind))?;
        convert(&Value::Int(value), Type::of(Kind::BigInt), ty, Mode::Cast, None)
    };
    Ok(match (left, right) {
        (Value::Null, _) | (_, Value::Null) => Value::Null,
        (Value::Int(a), Value::Int(b)) => match operator {
            Operator::Add => whole(a.checked_add(*b))?,
            Operator::Subtract => whole(a.checked_sub(*b))?,
            Operator::Multiply => whole(a.checked_mul(*b))?,
            Operator::Divide | Operator::Modulo if *b == 0 => return Err(by_zero()),
            Operator::Divide => whole(a.checked_div(*b))?,
            Operator::Modulo => whole(a.checked_rem(*b).or(Some(0)))?,
            Operator::BitAnd => Value::Int(a & b),
            Operator::BitOr => Value::Int(a | b),
            Operator::BitXor => Value::Int(a ^ b),
        },
        (Value::Decimal(a), Value::Decimal(b)) => {
            let made = match operator {
                Operator::Add => a.add(*b),
                Operator::Subtract => a.add(b.negate()),
                Operator::Multiply => a.multiply(*b),
                Operator::Divide | Operator::Modulo if b.unscaled == 0 => return Err(by_zero()),
                Operator::Divide => a.divide(*b),
                Operator::Modulo => {
                    let scale = a.scale.max(b.scale);
                    match (a.rescale(scale), b.rescale(scale)) {
                        (Some(a), Some(b)) => a.unscaled.checked_rem(b.unscaled).map(|rest| Decimal::new(rest, scale)),
                        _ => None,
                    }
                }
                _ => return Err(SqlError::unknown("an operation on bits of decimals")),
            };
            let made = made.ok_or_else(|| overflow(ty.kind))?;
            convert(
                &Value::Decimal(made),
                Type::of(Kind::Decimal { precision: 38, scale: made.scale }),
                ty,
                Mode::Cast,
                None,
            )?
        }
        (Value::Float(a), Value::Float(b)) => {
            let made = match operator {
                Operator::Add => a + b,
                Operator::Subtract => a - b,
                Operator::Multiply => a * b,
                Operator::Divide if *b == 0.0 => return Err(by_zero()),
                Operator::Divide => a / b,
                _ => return Err(SqlError::unknown("an operation on bits of floats")),
            };
            if !made.is_finite() {
                return Err(overflow(ty.kind));
            }
            Value::Float(made)
        }
        (Value::Text(a), Value::Text(b)) if operator == Operator::Add => Value::text(format!("{a}{b}")),
        (Value::Bytes(a), Value::Bytes(b)) if operator == Operator::Add => {
            Value::bytes([a.as_ref(), b.as_ref()].concat())
        }
        _ => return Err(SqlError::unknown("an operation on values of these types")),
    })
}

/// The type of a result; sides that are no decimals are brought to it first.
pub fn arithmetic_type(operator: Operator, left: Type, right: Type) -> Result<Type, SqlError> {
    let common = left.common(right);
    let exact = |kind: Kind| matches!(kind, Kind::Decimal { .. } | Kind::Numeric { .. });
    if exact(common.kind) || common.kind.is_money() {
        let (Some(a), Some(b)) = (left.kind.as_decimal(), right.kind.as_decimal()) else { return Ok(common) };
        let (p1, s1, p2, s2) =
            (i32::from(a.precision()), i32::from(a.scale()), i32::from(b.precision()), i32::from(b.scale()));
        let (precision, scale) = match operator {
            Operator::Multiply => (p1 + p2 + 1, s1 + s2),
            Operator::Divide => {
                let scale = 6.max(s1 + p2 + 1);
                (p1 - s1 + s2 + scale, scale)
            }
            _ => (s1.max(s2) + (p1 - s1).max(p2 - s2) + 1, s1.max(s2)),
        };
        // Beyond 38 digits those behind the point give way, down to six.
        let scale = if precision > 38 { (scale - (precision - 38)).max(scale.min(6)) } else { scale };
        let kind = Kind::Decimal { precision: precision.min(38) as u8, scale: scale as u8 };
        return Ok(Type { kind, ..common });
    }
    match common.kind {
        kind if kind.is_integer() || matches!(kind, Kind::Real | Kind::Float) => Ok(common),
        kind if kind.is_text() && operator == Operator::Add => {
            let length = match (left.kind.length(), right.kind.length()) {
                (Some(a), Some(b)) => Some(a.saturating_add(b).min(if kind.is_unicode() { 4000 } else { 8000 })),
                _ => None,
            };
            let kind = if kind.is_unicode() { Kind::NVarChar(length) } else { Kind::VarChar(length) };
            Ok(Type { kind, ..common })
        }
        kind if kind.is_binary() && operator == Operator::Add => {
            let length = match (left.kind.length(), right.kind.length()) {
                (Some(a), Some(b)) => Some(a.saturating_add(b).min(8000)),
                _ => None,
            };
            Ok(Type { kind: Kind::VarBinary(length), ..common })
        }
        _ => Err(SqlError::new(
            402,
            format!("The data types {} and {} are incompatible in the operator.", left.kind.name(), right.kind.name()),
        )),
    }
}

pub fn aggregate(function: &str, values: Vec<Value>, from: Type, ty: Type) -> Evaluated {
    let count = i64::try_from(values.len()).unwrap_or(i64::MAX);
    match function {
        "COUNT" | "COUNT_BIG" => Ok(Value::Int(count)),
        "MIN" => Ok(values.into_iter().min_by_key(|value| value.key(from.collation)).unwrap_or(Value::Null)),
        "MAX" => Ok(values.into_iter().max_by_key(|value| value.key(from.collation)).unwrap_or(Value::Null)),
        "SUM" | "AVG" => {
            if values.is_empty() {
                return Ok(Value::Null);
            }
            let mut sum = convert(&Value::Int(0), Type::of(Kind::BigInt), ty, Mode::Cast, None)?;
            for value in values {
                let value = convert(&value, from, ty, Mode::Cast, None)?;
                sum = arithmetic(Operator::Add, &sum, &value, ty)?;
            }
            if function == "SUM" {
                return Ok(sum);
            }
            let count = convert(&Value::Int(count), Type::of(Kind::BigInt), ty, Mode::Cast, None)?;
            arithmetic(Operator::Divide, &sum, &count, ty)
        }
        other => Err(SqlError::unknown(format!("aggregate {other}"))),
    }
}

pub fn aggregate_type(function: &str, from: Type) -> Result<Type, SqlError> {
    Ok(match function {
        "COUNT" => Type::of(Kind::Int),
        "COUNT_BIG" => Type::of(Kind::BigInt),
        "MIN" | "MAX" => from,
        _ => Type::of(match from.kind {
            Kind::TinyInt | Kind::SmallInt | Kind::Int => Kind::Int,
            Kind::BigInt => Kind::BigInt,
            Kind::Money | Kind::SmallMoney => Kind::Money,
            Kind::Real | Kind::Float => Kind::Float,
            Kind::Decimal { scale, .. } | Kind::Numeric { scale, .. } => {
                let scale = if function == "AVG" { scale.max(6) } else { scale };
                Kind::Decimal { precision: 38, scale }
            }
            other => {
                return Err(SqlError::new(
                    8117,
                    format!("Operand data type {} is invalid for {function} operator.", other.name()),
                ));
            }
        }),
    })
}

/// `%`, `_` and `[…]`, over folded texts.
pub fn like(text: &str, pattern: &str, escape: Option<char>, collation: &Collation) -> bool {
    let text: Vec<char> = collation.fold(text).chars().collect();
    let pattern: Vec<char> = collation.fold(pattern).chars().collect();
    like_from(&text, &pattern, escape)
}

fn like_from(text: &[char], pattern: &[char], escape: Option<char>) -> bool {
    let Some((first, rest)) = pattern.split_first() else { return text.is_empty() };
    if Some(*first) == escape {
        let (Some((wanted, pattern)), Some((have, text))) = (rest.split_first(), text.split_first()) else {
            return false;
        };
        return wanted == have && like_from(text, pattern, escape);
    }
    match first {
        '%' => (0..=text.len()).any(|skip| like_from(text.get(skip..).unwrap_or_default(), rest, escape)),
        '_' => text.split_first().is_some_and(|(_, text)| like_from(text, rest, escape)),
        '[' => {
            let Some(end) = rest.iter().position(|c| *c == ']') else { return false };
            let (set, after) = (rest.get(..end).unwrap_or_default(), rest.get(end + 1..).unwrap_or_default());
            let (negated, set) = match set.split_first() {
                Some(('^', set)) => (true, set),
                _ => (false, set),
            };
            text.split_first().is_some_and(|(c, text)| in_set(*c, set) != negated && like_from(text, after, escape))
        }
        wanted => text.split_first().is_some_and(|(have, text)| have == wanted && like_from(text, rest, escape)),
    }
}

fn in_set(c: char, set: &[char]) -> bool {
    match set {
        [low, '-', high, rest @ ..] => (*low..=*high).contains(&c) || in_set(c, rest),
        [one, rest @ ..] => *one == c || in_set(c, rest),
        [] => false,
    }
}

fn overflow(kind: Kind) -> SqlError {
    SqlError::new(8115, format!("Arithmetic overflow error converting expression to data type {}.", kind.name()))
}

fn by_zero() -> SqlError {
    SqlError::new(8134, "Divide by zero error encountered.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_there() {
        let usual = Collation::usual();
        for (text, pattern, matches) in [
            ("posthouse", "post%", true),
            ("posthouse", "POST_OUSE", true),
            ("posthouse", "post", false),
            ("a1", "[a-c][0-9]", true),
            ("d1", "[^a-c]_", true),
            ("50%", "50!%", true),
            ("505", "50!%", false),
        ] {
            assert_eq!(like(text, pattern, Some('!'), usual), matches, "{text} {pattern}");
        }
    }

    #[test]
    fn sums_overflow_in_the_type_of_their_result() {
        let int = Type::of(Kind::Int);
        let two = vec![Value::Int(i64::from(i32::MAX)), Value::Int(1)];
        assert_eq!(aggregate("SUM", two, int, int).map_err(|error| error.number), Err(8115));
        assert_eq!(aggregate("SUM", vec![], int, int), Ok(Value::Null));
        assert_eq!(aggregate("AVG", vec![Value::Int(1), Value::Int(2)], int, int), Ok(Value::Int(1)));
        assert_eq!(
            arithmetic(Operator::Modulo, &Value::Int(7), &Value::Int(0), int).map_err(|error| error.number),
            Err(8134)
        );
    }

    #[test]
    fn products_of_decimals_have_the_digits_of_both() {
        let decimal = |precision, scale| Type::of(Kind::Decimal { precision, scale });
        let of = |operator, a, b| arithmetic_type(operator, a, b).expect("a type").declared();
        assert_eq!(of(Operator::Add, decimal(10, 2), decimal(5, 4)), "decimal(13,4)");
        assert_eq!(of(Operator::Multiply, decimal(10, 2), decimal(5, 4)), "decimal(16,6)");
        assert_eq!(of(Operator::Divide, decimal(10, 2), decimal(5, 0)), "decimal(16,8)");
    }
}
