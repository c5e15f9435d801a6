//! From names to places: expressions and queries are bound to what the database holds at this moment.
//! Rows are taken when their table is bound, under the view of the statement, and tables are held where a hint or
//! the isolation level says so; so a plan can run without the database.

mod calls;
mod queries;

use super::engine::Session;
use super::expression::{Bound, Origin, Said, Typed};
use super::run::{Aggregate, Subquery, Window};
use super::scalar;
use super::tree::{Comparison, Expression, Name, Operator};
use crate::store::database::Database;
use crate::store::error::Step;
use crate::store::table::{Transaction, View, same_name};
use crate::store::{Collation, Decimal, Kind, Row, SqlError, Stop, Type, Value};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;

pub use queries::{SLOT, find_target, no_object, resolve};

/// Rows that a trigger sees under a name of its own.
#[derive(Clone, Debug)]
pub struct Named {
    pub columns: Vec<(String, Type)>,
    pub rows: Arc<Vec<Row>>,
}

pub struct Binder<'a> {
    pub database: &'a mut Database,
    pub session: &'a Session,
    pub own: Transaction,
    pub view: View,
    pub named: &'a BTreeMap<String, Named>,
    /// The table of a change, by the name it has in its FROM: its rows come with their slots.
    pub slots_of: Option<String>,
    depth: u32,
    /// Some expression of the query looks outward.
    outward: bool,
}

#[derive(Clone, Debug)]
pub struct ScopeColumn {
    pub table: String,
    pub name: String,
    pub ty: Type,
    pub nullable: bool,
    pub said: Said,
    pub origin: Option<Origin>,
    pub hidden: bool,
}

/// The columns that names may mean, and those of the queries around.
#[derive(Default)]
pub struct Scope<'s> {
    pub columns: Vec<ScopeColumn>,
    pub parent: Option<&'s Scope<'s>>,
    /// Rows are grouped: what is bound from here on is over the groups.
    pub grouped: Cell<bool>,
    pub keys: Vec<Typed>,
    pub aggregates: RefCell<Vec<Aggregate>>,
    pub windows: RefCell<Vec<Window>>,
    pub windows_allowed: Cell<bool>,
}

impl<'a> Binder<'a> {
    pub fn new(
        database: &'a mut Database,
        session: &'a Session,
        own: Transaction,
        view: View,
        named: &'a BTreeMap<String, Named>,
    ) -> Self {
        Binder { database, session, own, view, named, slots_of: None, depth: 0, outward: false }
    }

    /// An expression that looks at no table.
    pub fn value(&mut self, expression: &Expression) -> Step<(Value, Type)> {
        let typed = self.expression(expression, &Scope::default())?;
        let value = typed.bound.value(&super::expression::Frame { row: &[], outer: None })?;
        Ok((value, typed.ty))
    }

    pub fn expression(&mut self, expression: &Expression, scope: &Scope) -> Step<Typed> {
        if scope.grouped.get()
            && let Some(found) = self.group_key(expression, scope)?
        {
            return Ok(found);
        }
        Ok(match expression {
            Expression::Null => Typed::constant(Value::Null, Type::of(Kind::Int)),
            Expression::Integer(number) => integer(*number),
            Expression::Number(digits) => number(digits)?,
            Expression::Text(text, unicode) => {
                let units = text.encode_utf16().count();
                let length = if *unicode { units } else { Collation::usual().encode(text).len() };
                let most = if *unicode { 4000 } else { 8000 };
                let length = if length > most { None } else { u16::try_from(length.max(1)).ok() };
                let kind = if *unicode { Kind::NVarChar(length) } else { Kind::VarChar(length) };
                let from = Type::of(Kind::NVarChar(None));
                let value = crate::store::convert::convert(
                    &Value::text(text),
                    from,
                    Type::of(kind),
                    crate::store::convert::Mode::Cast,
                    None,
                )?;
                Typed::constant(value, Type::of(kind))
            }
            Expression::Binary(bytes) => {
                let length = u16::try_from(bytes.len().max(1)).ok().filter(|length| *length <= 8000);
                Typed::constant(Value::bytes(bytes), Type::of(Kind::VarBinary(length)))
            }
            Expression::Column(name) => self.column(name, scope)?,
            Expression::Variable(name) => self.variable(name)?,
            Expression::Negate(inner) => {
                let inner = self.expression(inner, scope)?;
                Typed { bound: Bound::Negate(Box::new(inner.bound)), nullable: true, origin: None, ..inner }
            }
            Expression::BitNot(inner) => {
                let inner = self.expression(inner, scope)?;
                Typed { bound: Bound::BitNot(Box::new(inner.bound)), nullable: true, origin: None, ..inner }
            }
            Expression::Arithmetic(operator, left, right) => {
                let (left, right) = (self.expression(left, scope)?, self.expression(right, scope)?);
                arithmetic(*operator, left, right)?
            }
            Expression::Compare(comparison, left, right) => {
                let (left, right) = (self.expression(left, scope)?, self.expression(right, scope)?);
                condition(compare(*comparison, left, right)?)
            }
            Expression::And(left, right) => {
                let (left, right) = (self.expression(left, scope)?, self.expression(right, scope)?);
                condition(Bound::And(Box::new(left.bound), Box::new(right.bound)))
            }
            Expression::Or(left, right) => {
                let (left, right) = (self.expression(left, scope)?, self.expression(right, scope)?);
                condition(Bound::Or(Box::new(left.bound), Box::new(right.bound)))
            }
            Expression::Not(inner) => condition(Bound::Not(Box::new(self.expression(inner, scope)?.bound))),
            Expression::IsNull(inner, negated) => {
                condition(Bound::IsNull(Box::new(self.expression(inner, scope)?.bound), *negated))
            }
            Expression::Between(value, low, high, negated) => {
                let value = self.expression(value, scope)?;
                let (low, high) = (self.expression(low, scope)?, self.expression(high, scope)?);
                let within = Bound::And(
                    Box::new(compare(Comparison::GreaterOrEqual, value.clone(), low)?),
                    Box::new(compare(Comparison::LessOrEqual, value, high)?),
                );
                condition(negate_if(within, *negated))
            }
            Expression::In(value, list, negated) => self.is_in(value, list, *negated, scope)?,
            Expression::InQuery(value, query, negated) => {
                let value = self.expression(value, scope)?;
                let (query, column) = self.subquery(query, scope)?;
                let (left, right) =
                    meet(value, Typed { said: column.said, ..Typed::new(Bound::Constant(Value::Null), column.ty) })?;
                if right.ty.kind != column.ty.kind && !(right.ty.kind.is_text() && column.ty.kind.is_text()) {
                    return Err(SqlError::unknown("IN (SELECT …) of another type").into());
                }
                let collation = right.ty.collation;
                let bound = Bound::InQuery { value: Box::new(left.bound), query: Box::new(query), collation };
                condition(negate_if(bound, *negated))
            }
            Expression::Like { text, pattern, escape, negated } => {
                let (text, pattern) = (self.expression(text, scope)?, self.expression(pattern, scope)?);
                let collation = agreed(&text, &pattern)?;
                let bound = Bound::Like {
                    text: Box::new(text.bound),
                    pattern: Box::new(pattern.bound),
                    escape: *escape,
                    collation,
                };
                condition(negate_if(bound, *negated))
            }
            Expression::Exists(query) => {
                let (query, _) = self.subquery(query, scope)?;
                condition(Bound::Exists(Box::new(query)))
            }
            Expression::Scalar(query) => {
                let (query, column) = self.subquery(query, scope)?;
                if query.plan.columns.len() != 1 {
                    return Err(SqlError::new(116, "Only one expression can be specified in the select list when the subquery is not introduced with EXISTS.").into());
                }
                Typed { said: column.said, ..Typed::new(Bound::Scalar(Box::new(query)), column.ty) }
            }
            Expression::Case { operand, whens, otherwise } => {
                self.case(operand.as_deref(), whens, otherwise.as_deref(), scope)?
            }
            Expression::Cast { value, to, style, attempt } => {
                let value = self.expression(value, scope)?;
                // The collation of a text stays with it.
                let ty = match (to.collated, value.ty.kind.is_text()) {
                    (false, true) => Type::collated(to.ty.kind, value.ty.collation),
                    _ => to.ty,
                };
                let said = if to.collated { Said::Explicitly } else { value.said };
                let nullable = value.nullable || *attempt;
                let bound = Bound::Convert {
                    value: Box::new(value.bound),
                    from: value.ty,
                    to: ty,
                    style: *style,
                    attempt: *attempt,
                };
                Typed { nullable, said, ..Typed::new(bound, ty) }
            }
            Expression::Collate(inner, name) => {
                let inner = self.expression(inner, scope)?;
                if !inner.ty.kind.is_text() {
                    return Err(SqlError::new(
                        447,
                        format!("Expression type {} is invalid for COLLATE clause.", inner.ty.kind.name()),
                    )
                    .into());
                }
                let collation = super::parse::collation_named(name)?;
                let ty = Type::collated(inner.ty.kind, collation);
                Typed { ty, said: Said::Explicitly, origin: None, ..inner }
            }
            Expression::Call { name, arguments, star, distinct, over } => {
                self.call(name, arguments, (*star, *distinct), over.as_ref(), scope)?
            }
        })
    }

    /// A column by its name, of this query or of one around it.
    fn column(&mut self, name: &Name, scope: &Scope) -> Step<Typed> {
        let Some(column) = name.last() else { return Err(SqlError::new(207, "Invalid column name ''.").into()) };
        let qualifier = name.len().checked_sub(2).and_then(|at| name.get(at));
        let (mut at_scope, mut up) = (Some(scope), 0);
        while let Some(scope) = at_scope {
            let mut found = scope.columns.iter().enumerate().filter(|(_, have)| {
                !have.hidden
                    && same_name(&have.name, column)
                    && qualifier.is_none_or(|qualifier| same_name(&have.table, qualifier))
            });
            if let Some((at, have)) = found.next() {
                if found.next().is_some() {
                    return Err(SqlError::new(209, format!("Ambiguous column name '{column}'.")).into());
                }
                self.outward |= up > 0;
                let typed = Typed {
                    bound: Bound::Column { up, at },
                    ty: have.ty,
                    nullable: have.nullable,
                    said: have.said,
                    origin: have.origin,
                };
                if !scope.grouped.get() {
                    return Ok(typed);
                }
                let own = Bound::Column { up: 0, at };
                return match scope.keys.iter().position(|key| key.bound == own) {
                    Some(at) => Ok(Typed { bound: Bound::Column { up, at }, ..typed }),
                    None => Err(SqlError::new(8120, format!("Column '{column}' is invalid in the select list because it is not contained in either an aggregate function or the GROUP BY clause.")).into()),
                };
            }
            at_scope = scope.parent;
            up += 1;
        }
        match qualifier {
            Some(qualifier) if name.len() > 1 => Err(SqlError::new(
                4104,
                format!("The multi-part identifier \"{qualifier}.{column}\" could not be bound."),
            )
            .into()),
            _ => Err(SqlError::new(207, format!("Invalid column name '{column}'.")).into()),
        }
    }

    /// An expression that is a key of the groups as a whole.
    fn group_key(&mut self, expression: &Expression, scope: &Scope) -> Step<Option<Typed>> {
        if matches!(expression, Expression::Column(_)) || scope.keys.is_empty() {
            return Ok(None);
        }
        scope.grouped.set(false);
        let outward = self.outward;
        let bound = self.expression(expression, scope);
        self.outward = outward;
        scope.grouped.set(true);
        let Ok(bound) = bound else { return Ok(None) };
        if matches!(bound.bound, Bound::Constant(_)) {
            return Ok(None);
        }
        let found = scope.keys.iter().position(|key| key.bound == bound.bound);
        Ok(found.map(|at| Typed { bound: Bound::Column { up: 0, at }, origin: None, ..bound }))
    }

    fn variable(&mut self, name: &str) -> Step<Typed> {
        if name.starts_with("@@") {
            return self.global(name);
        }
        let folded = name.to_lowercase();
        match self.session.variables.get(&folded) {
            Some((ty, value)) => Ok(Typed { nullable: true, ..Typed::constant(value.clone(), *ty) }),
            None => Err(SqlError::new(137, format!("Must declare the scalar variable \"{name}\".")).into()),
        }
    }

    fn is_in(&mut self, value: &Expression, list: &[Expression], negated: bool, scope: &Scope) -> Step<Typed> {
        let value = self.expression(value, scope)?;
        let mut items = Vec::with_capacity(list.len());
        let mut common = value.clone();
        for item in list {
            let item = self.expression(item, scope)?;
            let collation = agreed(&common, &item)?;
            if !item.is_null() {
                common.ty = common.ty.common(item.ty);
                common.ty.collation = collation;
                common.said = common.said.max(item.said);
            }
            items.push(item);
        }
        let collation = common.ty.collation;
        let to = common.ty;
        let same = |typed: Typed| {
            if to.kind.is_text() && typed.ty.kind.is_text() { typed.bound } else { typed.cast(to).bound }
        };
        let value = Box::new(same(value));
        let list = items.into_iter().map(same).collect();
        Ok(condition(negate_if(Bound::In { value, list, collation }, negated)))
    }

    fn case(
        &mut self,
        operand: Option<&Expression>,
        whens: &[(Expression, Expression)],
        otherwise: Option<&Expression>,
        scope: &Scope,
    ) -> Step<Typed> {
        let operand = operand.map(|operand| self.expression(operand, scope)).transpose()?;
        let (mut conditions, mut results) = (Vec::new(), Vec::new());
        for (when, then) in whens {
            let when = self.expression(when, scope)?;
            conditions.push(match &operand {
                Some(operand) => compare(Comparison::Equal, operand.clone(), when)?,
                None => when.bound,
            });
            results.push(self.expression(then, scope)?);
        }
        results.push(match otherwise {
            Some(otherwise) => self.expression(otherwise, scope)?,
            None => Typed::constant(Value::Null, Type::of(Kind::Int)),
        });
        let (ty, said) = together(&results)?;
        let nullable = results.iter().any(|result| result.nullable);
        let mut results: Vec<Bound> = results.into_iter().map(|result| result.cast(ty).bound).collect();
        let otherwise = Box::new(results.pop().unwrap_or(Bound::Constant(Value::Null)));
        let whens = conditions.into_iter().zip(results).collect();
        Ok(Typed { nullable, said, ..Typed::new(Bound::Case { whens, otherwise }, ty) })
    }

    fn subquery(&mut self, query: &super::tree::Query, scope: &Scope) -> Step<(Subquery, super::run::OutColumn)> {
        let outward = std::mem::replace(&mut self.outward, false);
        let plan = self.query(query, Some(scope))?;
        let alone = !self.outward;
        // What looks outward here may look past the query around as well: then that one is not alone either.
        self.outward |= outward;
        let column = plan
            .columns
            .first()
            .cloned()
            .ok_or_else(|| Stop::Error(SqlError::new(116, "A subquery has no columns.")))?;
        Ok((Subquery::new(plan, alone), column))
    }

    fn deeper(&mut self) -> Step<()> {
        self.depth += 1;
        if self.depth > 32 {
            return Err(SqlError::new(217, "Maximum view or subquery nesting level exceeded (limit 32).").into());
        }
        Ok(())
    }
}

pub fn condition(bound: Bound) -> Typed {
    Typed::new(bound, Type::of(Kind::Bit))
}

fn negate_if(bound: Bound, negated: bool) -> Bound {
    if negated { Bound::Not(Box::new(bound)) } else { bound }
}

fn integer(number: i64) -> Typed {
    if i32::try_from(number).is_ok() {
        return Typed::constant(Value::Int(number), Type::of(Kind::Int));
    }
    let precision = number.unsigned_abs().to_string().len() as u8;
    Typed::constant(
        Value::Decimal(Decimal::new(i128::from(number), 0)),
        Type::of(Kind::Numeric { precision, scale: 0 }),
    )
}

fn number(digits: &str) -> Step<Typed> {
    let wrong = || {
        Stop::Error(SqlError::new(
            1007,
            format!("The number '{digits}' is out of the range for numeric representation."),
        ))
    };
    if digits.contains(['e', 'E']) {
        let float: f64 = digits.parse().map_err(|_| wrong())?;
        return Ok(Typed::constant(Value::Float(float), Type::of(Kind::Float)));
    }
    let decimal = Decimal::parse(digits).ok_or_else(wrong)?;
    let precision = decimal.unscaled.unsigned_abs().to_string().len().max(usize::from(decimal.scale)).max(1) as u8;
    Ok(Typed::constant(Value::Decimal(decimal), Type::of(Kind::Numeric { precision, scale: decimal.scale })))
}

/// The collation that two sides are compared by; a conflict where both were asked for and differ.
fn agreed(left: &Typed, right: &Typed) -> Step<&'static Collation> {
    let text = |typed: &Typed| typed.ty.kind.is_text();
    if !text(left) || !text(right) {
        return Ok(if text(left) { left.ty.collation } else { right.ty.collation });
    }
    if left.said != right.said {
        return Ok(if left.said > right.said { left.ty.collation } else { right.ty.collation });
    }
    if left.ty.collation != right.ty.collation && left.said != Said::Not {
        return Err(SqlError::new(
            468,
            format!(
                "Cannot resolve the collation conflict between \"{}\" and \"{}\" in the operation.",
                left.ty.collation.name, right.ty.collation.name
            ),
        )
        .into());
    }
    Ok(left.ty.collation)
}

/// Both sides in the type that they are compared in.
pub fn meet(left: Typed, right: Typed) -> Step<(Typed, Typed)> {
    let collation = agreed(&left, &right)?;
    let both_texts = left.ty.kind.is_text() && right.ty.kind.is_text();
    let integers = left.ty.kind.is_integer() && right.ty.kind.is_integer();
    let bits = (left.ty.kind == Kind::Bit) != (right.ty.kind == Kind::Bit);
    let both_bytes = left.ty.kind.is_binary() && right.ty.kind.is_binary();
    if both_texts || both_bytes || (integers && !bits) {
        let collated = |typed: Typed| Typed { ty: Type { collation, ..typed.ty }, ..typed };
        return Ok((collated(left), collated(right)));
    }
    let mut to = if left.is_null() {
        right.ty
    } else if right.is_null() {
        left.ty
    } else {
        left.ty.common(right.ty)
    };
    to.collation = collation;
    Ok((left.cast(to), right.cast(to)))
}

pub fn compare(comparison: Comparison, left: Typed, right: Typed) -> Step<Bound> {
    for side in [&left, &right] {
        if matches!(side.ty.kind, Kind::Text | Kind::NText | Kind::Image | Kind::Xml) {
            return Err(SqlError::new(
                402,
                format!(
                    "The data types {} and {} are incompatible in the comparison.",
                    left.ty.kind.name(),
                    right.ty.kind.name()
                ),
            )
            .into());
        }
    }
    let (left, right) = meet(left, right)?;
    let collation = if left.ty.kind.is_text() { left.ty.collation } else { right.ty.collation };
    Ok(Bound::Compare { comparison, left: Box::new(left.bound), right: Box::new(right.bound), collation })
}

fn arithmetic(operator: Operator, left: Typed, right: Typed) -> Step<Typed> {
    let mut ty = scalar::arithmetic_type(operator, left.ty, right.ty)?;
    ty.collation = agreed(&left, &right)?;
    let said = left.said.max(right.said);
    let nullable = left.nullable || right.nullable;
    let exact = matches!(ty.kind, Kind::Decimal { .. });
    let side = |typed: Typed| -> Bound {
        if exact {
            let own = typed.ty.kind.as_decimal().unwrap_or(ty.kind);
            return typed.cast(Type { kind: own, ..ty }).bound;
        }
        if ty.kind.is_text() && typed.ty.kind.is_text() { typed.bound } else { typed.cast(ty).bound }
    };
    let (left, right) = (Box::new(side(left)), Box::new(side(right)));
    Ok(Typed { nullable, said, ..Typed::new(Bound::Arithmetic { operator, left, right, ty }, ty) })
}

/// One type for several results.
fn together(results: &[Typed]) -> Step<(Type, Said)> {
    let mut common: Option<Typed> = None;
    for result in results.iter().filter(|result| !result.is_null()) {
        common = Some(match common {
            None => result.clone(),
            Some(mut so_far) => {
                let collation = agreed(&so_far, result)?;
                so_far.ty = so_far.ty.common(result.ty);
                so_far.ty.collation = collation;
                so_far.said = so_far.said.max(result.said);
                so_far
            }
        });
    }
    Ok(common.map_or((Type::of(Kind::Int), Said::Not), |typed| (typed.ty, typed.said)))
}
