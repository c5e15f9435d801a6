//! Expressions bound to columns and types, and their evaluation over a row.

use super::functions;
use super::run::{Subquery, members, probe};
use super::scalar;
use super::tree::{Comparison, Operator};
use crate::store::convert::{Mode, convert};
use crate::store::{Collation, Key, SqlError, Type, Value};

#[derive(Clone, Debug, PartialEq)]
pub enum Bound {
    Constant(Value),
    /// `up` queries outward, the column at a place of the row there.
    Column {
        up: usize,
        at: usize,
    },
    Negate(Box<Bound>),
    BitNot(Box<Bound>),
    Arithmetic {
        operator: Operator,
        left: Box<Bound>,
        right: Box<Bound>,
        ty: Type,
    },
    Compare {
        comparison: Comparison,
        left: Box<Bound>,
        right: Box<Bound>,
        collation: &'static Collation,
    },
    And(Box<Bound>, Box<Bound>),
    Or(Box<Bound>, Box<Bound>),
    Not(Box<Bound>),
    IsNull(Box<Bound>, bool),
    In {
        value: Box<Bound>,
        list: Vec<Bound>,
        collation: &'static Collation,
    },
    InQuery {
        value: Box<Bound>,
        query: Box<Subquery>,
        collation: &'static Collation,
    },
    Like {
        text: Box<Bound>,
        pattern: Box<Bound>,
        escape: Option<char>,
        collation: &'static Collation,
    },
    Exists(Box<Subquery>),
    Scalar(Box<Subquery>),
    Case {
        whens: Vec<(Bound, Bound)>,
        otherwise: Box<Bound>,
    },
    Convert {
        value: Box<Bound>,
        from: Type,
        to: Type,
        style: Option<i64>,
        attempt: bool,
    },
    Call {
        function: &'static str,
        arguments: Vec<(Bound, Type)>,
    },
}

/// How far a collation was asked for: of two that differ the further wins, and equals are in conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Said {
    /// By a literal or a parameter: by nobody.
    Not,
    /// By a column.
    Column,
    /// By COLLATE.
    Explicitly,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Typed {
    pub bound: Bound,
    pub ty: Type,
    pub nullable: bool,
    pub said: Said,
    pub origin: Option<Origin>,
}

/// What a result column tells of the table's column that it shows as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    pub identity: bool,
    pub computed: bool,
    pub rowversion: bool,
}

impl Typed {
    pub fn new(bound: Bound, ty: Type) -> Self {
        Typed { bound, ty, nullable: true, said: Said::Not, origin: None }
    }

    pub fn constant(value: Value, ty: Type) -> Self {
        let nullable = value.is_null();
        Typed { nullable, ..Typed::new(Bound::Constant(value), ty) }
    }

    pub fn is_null(&self) -> bool {
        matches!(self.bound, Bound::Constant(Value::Null))
    }

    /// As another type: the value itself where nothing is to be done.
    pub fn cast(self, to: Type) -> Typed {
        if self.ty == to || self.is_null() {
            return Typed { ty: to, ..self };
        }
        let bound = Bound::Convert { value: Box::new(self.bound), from: self.ty, to, style: None, attempt: false };
        Typed { bound, ty: to, nullable: self.nullable, said: self.said, origin: None }
    }
}

/// The row that an expression is over, and those of the queries around.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    pub row: &'a [Value],
    pub outer: Option<&'a Frame<'a>>,
}

impl Frame<'_> {
    fn column(&self, up: usize, at: usize) -> Value {
        let mut frame = self;
        for _ in 0..up {
            match frame.outer {
                Some(outer) => frame = outer,
                None => return Value::Null,
            }
        }
        frame.row.get(at).cloned().unwrap_or(Value::Null)
    }
}

type Evaluated = Result<Value, SqlError>;

impl Bound {
    pub fn value(&self, frame: &Frame) -> Evaluated {
        Ok(match self {
            Bound::Constant(value) => value.clone(),
            Bound::Column { up, at } => frame.column(*up, *at),
            Bound::Negate(value) => scalar::negate(value.value(frame)?)?,
            Bound::BitNot(value) => match value.value(frame)? {
                Value::Int(int) => Value::Int(!int),
                Value::Bit(bit) => Value::Bit(!bit),
                _ => Value::Null,
            },
            Bound::Arithmetic { operator, left, right, ty } => {
                scalar::arithmetic(*operator, &left.value(frame)?, &right.value(frame)?, *ty)?
            }
            Bound::Compare { comparison, left, right, collation } => {
                let (left, right) = (left.value(frame)?, right.value(frame)?);
                bit(compare(*comparison, &left, &right, collation))
            }
            Bound::And(left, right) => match truth(&left.value(frame)?) {
                Some(false) => Value::Bit(false),
                left => match (left, truth(&right.value(frame)?)) {
                    (_, Some(false)) => Value::Bit(false),
                    (Some(true), Some(true)) => Value::Bit(true),
                    _ => Value::Null,
                },
            },
            Bound::Or(left, right) => match truth(&left.value(frame)?) {
                Some(true) => Value::Bit(true),
                left => match (left, truth(&right.value(frame)?)) {
                    (_, Some(true)) => Value::Bit(true),
                    (Some(false), Some(false)) => Value::Bit(false),
                    _ => Value::Null,
                },
            },
            Bound::Not(inner) => bit(truth(&inner.value(frame)?).map(|truth| !truth)),
            Bound::IsNull(inner, negated) => Value::Bit(inner.value(frame)?.is_null() != *negated),
            Bound::In { value, list, collation } => {
                let value = value.value(frame)?;
                let mut found = Some(false);
                for item in list {
                    match compare(Comparison::Equal, &value, &item.value(frame)?, collation) {
                        Some(true) => return Ok(Value::Bit(true)),
                        None => found = None,
                        Some(false) => {}
                    }
                }
                bit(found)
            }
            Bound::InQuery { value, query, collation } => {
                let value = value.value(frame)?;
                let members = members(query, frame, collation)?;
                if members.is_empty() {
                    Value::Bit(false)
                } else if value.is_null() {
                    Value::Null
                } else if members.contains(&value.key(collation)) {
                    Value::Bit(true)
                } else if members.contains(&Key::Null) {
                    Value::Null
                } else {
                    Value::Bit(false)
                }
            }
            Bound::Like { text, pattern, escape, collation } => {
                match (scalar::text_of(&text.value(frame)?), scalar::text_of(&pattern.value(frame)?)) {
                    (Some(text), Some(pattern)) => Value::Bit(scalar::like(&text, &pattern, *escape, collation)),
                    _ => Value::Null,
                }
            }
            Bound::Exists(query) => Value::Bit(probe(query, frame)?),
            Bound::Scalar(query) => {
                let rows = query.rows(frame)?;
                if rows.len() > 1 {
                    return Err(SqlError::new(
                        512,
                        "Subquery returned more than 1 value. This is not permitted when the subquery follows =, !=, <, <= , >, >= or when the subquery is used as an expression.",
                    ));
                }
                rows.first().and_then(|row| row.first()).cloned().unwrap_or(Value::Null)
            }
            Bound::Case { whens, otherwise } => {
                for (when, then) in whens {
                    if truth(&when.value(frame)?) == Some(true) {
                        return then.value(frame);
                    }
                }
                otherwise.value(frame)?
            }
            Bound::Convert { value, from, to, style, attempt } => {
                let value = value.value(frame)?;
                match convert(&value, *from, *to, Mode::Cast, *style) {
                    Err(_) if *attempt => Value::Null,
                    converted => converted?,
                }
            }
            Bound::Call { function, arguments } => {
                let values: Vec<(Value, Type)> = arguments
                    .iter()
                    .map(|(argument, ty)| Ok((argument.value(frame)?, *ty)))
                    .collect::<Result<_, SqlError>>()?;
                functions::call(function, &values)?
            }
        })
    }

    pub fn holds(&self, frame: &Frame) -> Result<bool, SqlError> {
        Ok(truth(&self.value(frame)?) == Some(true))
    }

    /// Whether it looks at the row itself, and whether at one further out.
    pub fn looks_at(&self) -> Looks {
        let mut looks = Looks::default();
        self.look(0, &mut looks);
        looks
    }

    fn look(&self, depth: usize, looks: &mut Looks) {
        match self {
            Bound::Column { up, at } => match up.checked_sub(depth) {
                Some(0) => looks.own.push(*at),
                Some(_) => looks.outer = true,
                None => {}
            },
            // What is within a query of its own may look anywhere: it is left where it stands.
            Bound::Exists(_) | Bound::Scalar(_) | Bound::InQuery { .. } => looks.query = true,
            other => other.parts().iter().for_each(|part| part.look(depth, looks)),
        }
    }

    fn parts(&self) -> Vec<&Bound> {
        match self {
            Bound::Negate(a) | Bound::BitNot(a) | Bound::Not(a) | Bound::IsNull(a, _) => vec![a.as_ref()],
            Bound::Arithmetic { left, right, .. } | Bound::Compare { left, right, .. } => {
                vec![left.as_ref(), right.as_ref()]
            }
            Bound::And(left, right) | Bound::Or(left, right) => vec![left.as_ref(), right.as_ref()],
            Bound::In { value, list, .. } => std::iter::once(value.as_ref()).chain(list.iter()).collect(),
            Bound::Like { text, pattern, .. } => vec![text.as_ref(), pattern.as_ref()],
            Bound::Case { whens, otherwise } => {
                whens.iter().flat_map(|(when, then)| [when, then]).chain(std::iter::once(otherwise.as_ref())).collect()
            }
            Bound::Convert { value, .. } => vec![value.as_ref()],
            Bound::Call { arguments, .. } => arguments.iter().map(|(argument, _)| argument).collect(),
            _ => Vec::new(),
        }
    }

    /// The parts of a condition that all must hold.
    pub fn conjuncts(self, into: &mut Vec<Bound>) {
        match self {
            Bound::And(left, right) => {
                left.conjuncts(into);
                right.conjuncts(into);
            }
            other => into.push(other),
        }
    }

    /// `a = b`, or `(a = b OR (a IS NULL AND b IS NULL))`: its sides, its collation, and whether nulls are equal.
    pub fn equality(&self) -> Option<(&Bound, &Bound, &'static Collation, bool)> {
        match self {
            Bound::Compare { comparison: Comparison::Equal, left, right, collation } => {
                Some((left.as_ref(), right.as_ref(), *collation, false))
            }
            Bound::Or(equal, nulls) => {
                let (left, right, collation, false) = equal.equality()? else { return None };
                let Bound::And(a, b) = nulls.as_ref() else { return None };
                let (Bound::IsNull(a, false), Bound::IsNull(b, false)) = (a.as_ref(), b.as_ref()) else { return None };
                let same = bare(a) == bare(left) && bare(b) == bare(right);
                let crossed = bare(a) == bare(right) && bare(b) == bare(left);
                (same || crossed).then_some((left, right, collation, true))
            }
            _ => None,
        }
    }
}

/// Without the conversion to a common type around it.
fn bare(bound: &Bound) -> &Bound {
    match bound {
        Bound::Convert { value, style: None, attempt: false, .. } => value,
        other => other,
    }
}

#[derive(Clone, Debug, Default)]
pub struct Looks {
    pub own: Vec<usize>,
    pub outer: bool,
    pub query: bool,
}

pub fn truth(value: &Value) -> Option<bool> {
    match value {
        Value::Bit(bit) => Some(*bit),
        _ => None,
    }
}

fn bit(truth: Option<bool>) -> Value {
    truth.map_or(Value::Null, Value::Bit)
}

pub fn compare(comparison: Comparison, left: &Value, right: &Value, collation: &Collation) -> Option<bool> {
    if left.is_null() || right.is_null() {
        return None;
    }
    let order = match (left, right) {
        (Value::Int(left), Value::Int(right)) => left.cmp(right),
        _ => left.key(collation).cmp(&right.key(collation)),
    };
    Some(match comparison {
        Comparison::Equal => order.is_eq(),
        Comparison::NotEqual => order.is_ne(),
        Comparison::Less => order.is_lt(),
        Comparison::LessOrEqual => order.is_le(),
        Comparison::Greater => order.is_gt(),
        Comparison::GreaterOrEqual => order.is_ge(),
    })
}
