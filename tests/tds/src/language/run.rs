//! Queries that are bound, and their rows. A plan holds the rows that it reads: once bound it needs no database.

use super::expression::{Bound, Frame, Looks, Origin};
use super::scalar;
use super::tree::{Join, SetOperation};
use crate::store::{Collation, Key, Row, SqlError, Type, Value};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

#[derive(Clone, Debug)]
pub struct OutColumn {
    pub name: String,
    pub ty: Type,
    pub nullable: bool,
    pub origin: Option<Origin>,
    pub said: super::expression::Said,
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub body: Body,
    pub columns: Vec<OutColumn>,
    /// Of a set of queries: places of its columns.
    pub order: Vec<(usize, bool)>,
    pub offset: Option<Bound>,
    pub fetch: Option<Bound>,
}

#[derive(Clone, Debug)]
pub enum Body {
    Select(Box<SelectPlan>),
    Set { operation: SetOperation, left: Box<Plan>, right: Box<Plan> },
    Nested(Box<Plan>),
}

#[derive(Clone, Debug)]
pub struct SelectPlan {
    pub from: Reading,
    pub filter: Option<Bound>,
    pub group: Option<Group>,
    pub having: Option<Bound>,
    pub windows: Vec<Window>,
    pub items: Vec<Bound>,
    pub collations: Vec<&'static Collation>,
    pub order: Vec<(Bound, bool, &'static Collation)>,
    pub distinct: bool,
    pub top: Option<Bound>,
}

#[derive(Clone, Debug)]
pub enum Reading {
    /// One row of no columns.
    Nothing,
    Rows(Arc<Vec<Row>>),
    Query(Box<Plan>),
    Join {
        kind: Join,
        left: Box<Reading>,
        right: Box<Reading>,
        widths: (usize, usize),
        on: Option<Bound>,
    },
}

#[derive(Clone, Debug)]
pub struct Group {
    pub keys: Vec<(Bound, &'static Collation)>,
    pub aggregates: Vec<Aggregate>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    pub function: &'static str,
    pub argument: Option<Bound>,
    pub distinct: bool,
    pub ty: Type,
    pub from: Type,
}

#[derive(Clone, Debug)]
pub struct Window {
    /// Of NTILE; none numbers the rows.
    pub buckets: Option<i64>,
    pub partition: Vec<(Bound, &'static Collation)>,
    pub order: Vec<(Bound, bool, &'static Collation)>,
}

/// A query within an expression.
#[derive(Clone, Debug)]
pub struct Subquery {
    pub plan: Plan,
    /// It looks at nothing further out: its rows are always the same.
    pub alone: bool,
    kept: RefCell<Option<Arc<Vec<Row>>>>,
    hashed: RefCell<Option<Rc<Hashed>>>,
    members: RefCell<Option<Arc<BTreeSet<Key>>>>,
}

/// Rows of an EXISTS by what they must equal.
#[derive(Debug)]
struct Hashed {
    outer: Vec<(Bound, &'static Collation, bool)>,
    residual: Vec<Bound>,
    rows: BTreeMap<Vec<Key>, Vec<Row>>,
}

impl PartialEq for Subquery {
    fn eq(&self, _: &Self) -> bool {
        false
    }
}

type Rows = Result<Vec<Row>, SqlError>;

impl Subquery {
    pub fn new(plan: Plan, alone: bool) -> Self {
        let (kept, hashed, members) = (RefCell::new(None), RefCell::new(None), RefCell::new(None));
        Subquery { plan, alone, kept, hashed, members }
    }

    pub fn rows(&self, frame: &Frame) -> Result<Arc<Vec<Row>>, SqlError> {
        if let Some(kept) = self.kept.borrow().as_ref() {
            return Ok(Arc::clone(kept));
        }
        let rows = Arc::new(self.plan.rows(Some(frame))?);
        if self.alone {
            *self.kept.borrow_mut() = Some(Arc::clone(&rows));
        }
        Ok(rows)
    }
}

/// The keys of the first column, for IN.
pub fn members(query: &Subquery, frame: &Frame, collation: &Collation) -> Result<Arc<BTreeSet<Key>>, SqlError> {
    if let Some(kept) = query.members.borrow().as_ref() {
        return Ok(Arc::clone(kept));
    }
    let rows = query.rows(frame)?;
    let keys = rows.iter().map(|row| row.first().map_or(Key::Null, |value| value.key(collation))).collect();
    let members: Arc<BTreeSet<Key>> = Arc::new(keys);
    if query.alone {
        *query.members.borrow_mut() = Some(Arc::clone(&members));
    }
    Ok(members)
}

/// Whether an EXISTS has a row.
pub fn probe(query: &Subquery, frame: &Frame) -> Result<bool, SqlError> {
    let Body::Select(select) = &query.plan.body else { return Ok(!query.rows(frame)?.is_empty()) };
    let plain = select.group.is_none() && select.top.is_none() && select.from.is_fixed();
    if query.alone || !plain {
        return Ok(!query.rows(frame)?.is_empty());
    }
    let held = query.hashed.borrow().as_ref().map(Rc::clone);
    let hashed = match held {
        Some(hashed) => hashed,
        None => {
            let hashed = Rc::new(hash(select, frame)?);
            *query.hashed.borrow_mut() = Some(Rc::clone(&hashed));
            hashed
        }
    };
    // The sides that look outward are over the frame as one query further in sees it.
    let inner = Frame { row: &[], outer: Some(frame) };
    let mut key = Vec::with_capacity(hashed.outer.len());
    for (bound, collation, nulls) in &hashed.outer {
        let value = bound.value(&inner)?;
        if value.is_null() && !nulls {
            return Ok(false);
        }
        key.push(value.key(collation));
    }
    let Some(rows) = hashed.rows.get(&key) else { return Ok(false) };
    'rows: for row in rows {
        let inner = Frame { row, outer: Some(frame) };
        for condition in &hashed.residual {
            if !condition.holds(&inner)? {
                continue 'rows;
            }
        }
        return Ok(true);
    }
    Ok(false)
}

fn hash(select: &SelectPlan, frame: &Frame) -> Result<Hashed, SqlError> {
    let mut conditions = Vec::new();
    if let Some(filter) = select.filter.clone() {
        filter.conjuncts(&mut conditions);
    }
    let (mut own, mut inner, mut outer, mut residual) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for condition in conditions {
        let looks = condition.looks_at();
        if !looks.query && !looks.outer {
            own.push(condition);
            continue;
        }
        let sides = condition.equality().and_then(|(left, right, collation, nulls)| {
            let (a, b) = (left.looks_at(), right.looks_at());
            let within = |looks: &Looks| !looks.outer && !looks.query;
            let without = |looks: &Looks| looks.own.is_empty() && !looks.query;
            if within(&a) && without(&b) {
                Some((left.clone(), right.clone(), collation, nulls))
            } else if within(&b) && without(&a) {
                Some((right.clone(), left.clone(), collation, nulls))
            } else {
                None
            }
        });
        match sides {
            Some((of_inner, of_outer, collation, nulls)) => {
                inner.push((of_inner, collation, nulls));
                outer.push((of_outer, collation, nulls));
            }
            None => residual.push(condition),
        }
    }
    let mut rows: BTreeMap<Vec<Key>, Vec<Row>> = BTreeMap::new();
    'rows: for row in select.from.rows(Some(frame))? {
        let here = Frame { row: &row, outer: Some(frame) };
        for condition in &own {
            if !condition.holds(&here)? {
                continue 'rows;
            }
        }
        let mut key = Vec::with_capacity(inner.len());
        for (bound, collation, nulls) in &inner {
            let value = bound.value(&here)?;
            if value.is_null() && !nulls {
                continue 'rows;
            }
            key.push(value.key(collation));
        }
        rows.entry(key).or_default().push(row);
    }
    Ok(Hashed { outer, residual, rows })
}

impl Plan {
    pub fn rows(&self, outer: Option<&Frame>) -> Rows {
        let mut rows = match &self.body {
            Body::Select(select) => select.rows(outer)?,
            Body::Nested(plan) => plan.rows(outer)?,
            Body::Set { operation, left, right } => {
                set(*operation, left.rows(outer)?, right.rows(outer)?, &self.columns)
            }
        };
        if !self.order.is_empty() {
            let collation = |at: usize| self.columns.get(at).map_or(Collation::usual(), |column| column.ty.collation);
            let keys: Vec<Vec<Key>> = rows
                .iter()
                .map(|row| {
                    self.order.iter().map(|(at, _)| row.get(*at).map_or(Key::Null, |v| v.key(collation(*at)))).collect()
                })
                .collect();
            let falls: Vec<bool> = self.order.iter().map(|(_, falls)| *falls).collect();
            rows = sorted(rows, keys, &falls);
        }
        let number = |bound: &Option<Bound>| -> Result<Option<usize>, SqlError> {
            let Some(bound) = bound else { return Ok(None) };
            count(bound, outer).map(Some)
        };
        let skip = number(&self.offset)?.unwrap_or(0);
        let take = number(&self.fetch)?.unwrap_or(usize::MAX);
        if skip > 0 || take < rows.len() {
            rows = rows.into_iter().skip(skip).take(take).collect();
        }
        Ok(rows)
    }
}

fn count(bound: &Bound, outer: Option<&Frame>) -> Result<usize, SqlError> {
    match bound.value(&Frame { row: &[], outer })? {
        Value::Int(number) => usize::try_from(number).map_err(|_| {
            SqlError::new(
                1060,
                "The number of rows provided for a TOP or FETCH clauses row count parameter must be an integer.",
            )
        }),
        _ => Err(SqlError::new(
            1060,
            "The number of rows provided for a TOP or FETCH clauses row count parameter must be an integer.",
        )),
    }
}

fn keys_of(row: &Row, columns: &[OutColumn]) -> Vec<Key> {
    row.iter().zip(columns).map(|(value, column)| value.key(column.ty.collation)).collect()
}

fn set(operation: SetOperation, left: Vec<Row>, right: Vec<Row>, columns: &[OutColumn]) -> Vec<Row> {
    if operation == SetOperation::UnionAll {
        return left.into_iter().chain(right).collect();
    }
    let other: BTreeSet<Vec<Key>> = right.iter().map(|row| keys_of(row, columns)).collect();
    let mut seen = BTreeSet::new();
    let all: Vec<Row> = if operation == SetOperation::Union { left.into_iter().chain(right).collect() } else { left };
    all.into_iter()
        .filter(|row| {
            let key = keys_of(row, columns);
            let wanted = match operation {
                SetOperation::Intersect => other.contains(&key),
                SetOperation::Except => !other.contains(&key),
                SetOperation::Union | SetOperation::UnionAll => true,
            };
            wanted && seen.insert(key)
        })
        .collect()
}

/// Rows by their keys, each rising or falling; equals stay in their order.
fn sorted(rows: Vec<Row>, keys: Vec<Vec<Key>>, falls: &[bool]) -> Vec<Row> {
    let mut both: Vec<(Vec<Key>, Row)> = keys.into_iter().zip(rows).collect();
    both.sort_by(|(a, _), (b, _)| by_keys(a, b, falls));
    both.into_iter().map(|(_, row)| row).collect()
}

fn by_keys(a: &[Key], b: &[Key], falls: &[bool]) -> std::cmp::Ordering {
    for ((a, b), falls) in a.iter().zip(b).zip(falls) {
        let order = if *falls { b.cmp(a) } else { a.cmp(b) };
        if order.is_ne() {
            return order;
        }
    }
    std::cmp::Ordering::Equal
}

impl SelectPlan {
    /// The rows that the items are over: joined, filtered, grouped, numbered.
    pub fn sources(&self, outer: Option<&Frame>) -> Rows {
        let mut rows = self.from.rows(outer)?;
        if let Some(filter) = &self.filter {
            rows = kept(rows, filter, outer)?;
        }
        if let Some(group) = &self.group {
            rows = group.rows(&rows, outer)?;
        }
        if let Some(having) = &self.having {
            rows = kept(rows, having, outer)?;
        }
        if !self.windows.is_empty() {
            rows = numbered(rows, &self.windows, outer)?;
        }
        Ok(rows)
    }

    pub fn rows(&self, outer: Option<&Frame>) -> Rows {
        let sources = self.sources(outer)?;
        let mut rows = Vec::with_capacity(sources.len());
        let mut keys = Vec::new();
        let mut seen = BTreeSet::new();
        let top = self.top.as_ref().map(|top| count(top, outer)).transpose()?.unwrap_or(usize::MAX);
        for source in &sources {
            // Without an order the first rows are as good as any.
            if self.order.is_empty() && rows.len() >= top {
                break;
            }
            let frame = Frame { row: source, outer };
            let row: Vec<Value> = self.items.iter().map(|item| item.value(&frame)).collect::<Result<_, _>>()?;
            if self.distinct {
                let key: Vec<Key> =
                    row.iter().zip(&self.collations).map(|(value, collation)| value.key(collation)).collect();
                if !seen.insert(key) {
                    continue;
                }
            }
            if !self.order.is_empty() {
                let key: Vec<Key> = self
                    .order
                    .iter()
                    .map(|(by, _, collation)| Ok(by.value(&frame)?.key(collation)))
                    .collect::<Result<_, SqlError>>()?;
                keys.push(key);
            }
            rows.push(Row::from(row));
        }
        if !self.order.is_empty() {
            let falls: Vec<bool> = self.order.iter().map(|(_, falls, _)| *falls).collect();
            rows = sorted(rows, keys, &falls);
        }
        rows.truncate(top);
        Ok(rows)
    }
}

fn kept(rows: Vec<Row>, filter: &Bound, outer: Option<&Frame>) -> Rows {
    let mut kept = Vec::new();
    for row in rows {
        if filter.holds(&Frame { row: &row, outer })? {
            kept.push(row);
        }
    }
    Ok(kept)
}

impl Group {
    fn rows(&self, rows: &[Row], outer: Option<&Frame>) -> Rows {
        let mut groups: BTreeMap<Vec<Key>, (Vec<Value>, Vec<&Row>)> = BTreeMap::new();
        if self.keys.is_empty() {
            groups.insert(Vec::new(), (Vec::new(), rows.iter().collect()));
        } else {
            for row in rows {
                let frame = Frame { row, outer };
                let values: Vec<Value> =
                    self.keys.iter().map(|(key, _)| key.value(&frame)).collect::<Result<_, _>>()?;
                let key: Vec<Key> =
                    values.iter().zip(&self.keys).map(|(value, (_, collation))| value.key(collation)).collect();
                groups.entry(key).or_insert_with(|| (values, Vec::new())).1.push(row);
            }
        }
        let mut made = Vec::with_capacity(groups.len());
        for (mut values, members) in groups.into_values() {
            for aggregate in &self.aggregates {
                values.push(aggregate.over(&members, outer)?);
            }
            made.push(Row::from(values));
        }
        Ok(made)
    }
}

impl Aggregate {
    fn over(&self, rows: &[&Row], outer: Option<&Frame>) -> Result<Value, SqlError> {
        let Some(argument) = &self.argument else {
            return Ok(Value::Int(i64::try_from(rows.len()).unwrap_or(i64::MAX)));
        };
        let mut values = Vec::with_capacity(rows.len());
        let mut seen = BTreeSet::new();
        for row in rows {
            let value = argument.value(&Frame { row, outer })?;
            if !value.is_null() && (!self.distinct || seen.insert(value.key(self.from.collation))) {
                values.push(value);
            }
        }
        scalar::aggregate(self.function, values, self.from, self.ty)
    }
}

fn numbered(rows: Vec<Row>, windows: &[Window], outer: Option<&Frame>) -> Rows {
    let mut numbers: Vec<Vec<Value>> = vec![Vec::with_capacity(windows.len()); rows.len()];
    for window in windows {
        let mut order: Vec<(Vec<Key>, Vec<Key>, usize)> = Vec::with_capacity(rows.len());
        for (at, row) in rows.iter().enumerate() {
            let frame = Frame { row, outer };
            let partition: Vec<Key> = window
                .partition
                .iter()
                .map(|(by, collation)| Ok(by.value(&frame)?.key(collation)))
                .collect::<Result<_, SqlError>>()?;
            let by: Vec<Key> = window
                .order
                .iter()
                .map(|(by, _, collation)| Ok(by.value(&frame)?.key(collation)))
                .collect::<Result<_, SqlError>>()?;
            order.push((partition, by, at));
        }
        let falls: Vec<bool> = window.order.iter().map(|(_, falls, _)| *falls).collect();
        order.sort_by(|(pa, a, _), (pb, b, _)| pa.cmp(pb).then_with(|| by_keys(a, b, &falls)));
        let mut start = 0;
        while let Some((partition, _, _)) = order.get(start) {
            let length = order.iter().skip(start).take_while(|(other, _, _)| other == partition).count();
            for (place, (_, _, at)) in order.iter().skip(start).take(length).enumerate() {
                let number = match window.buckets {
                    Some(buckets) => bucket(place as i64, length as i64, buckets),
                    None => place as i64 + 1,
                };
                if let Some(numbers) = numbers.get_mut(*at) {
                    numbers.push(Value::Int(number));
                }
            }
            start += length;
        }
    }
    Ok(rows.iter().zip(numbers).map(|(row, numbers)| row.iter().cloned().chain(numbers).collect()).collect())
}

/// Of NTILE: the first buckets are one larger where it does not divide.
fn bucket(place: i64, length: i64, buckets: i64) -> i64 {
    let (size, larger) = (length / buckets, length % buckets);
    let edge = larger * (size + 1);
    if place < edge { place / (size + 1) + 1 } else { larger + (place - edge) / size.max(1) + 1 }
}

impl Reading {
    /// Rows of tables alone, which look at nothing further out.
    fn is_fixed(&self) -> bool {
        match self {
            Reading::Rows(_) => true,
            Reading::Join { left, right, .. } => left.is_fixed() && right.is_fixed(),
            Reading::Nothing | Reading::Query(_) => false,
        }
    }

    pub fn rows(&self, outer: Option<&Frame>) -> Rows {
        match self {
            Reading::Nothing => Ok(vec![Row::from(Vec::new())]),
            Reading::Rows(rows) => Ok(rows.as_ref().clone()),
            Reading::Query(plan) => plan.rows(outer),
            Reading::Join { kind, left, right, widths, on } => {
                join(*kind, left.rows(outer)?, right.rows(outer)?, *widths, on.as_ref(), outer)
            }
        }
    }
}

/// By equality of what both sides say, where the condition has any; row by row where it has none.
fn join(
    kind: Join,
    left: Vec<Row>,
    right: Vec<Row>,
    widths: (usize, usize),
    on: Option<&Bound>,
    outer: Option<&Frame>,
) -> Rows {
    let mut conditions = Vec::new();
    if let Some(on) = on.cloned() {
        on.conjuncts(&mut conditions);
    }
    let (mut sides, mut residual) = (Vec::new(), Vec::new());
    let of_left = |looks: &Looks| !looks.query && looks.own.iter().all(|at| *at < widths.0);
    let of_right = |looks: &Looks| !looks.query && looks.own.iter().all(|at| *at >= widths.0);
    for condition in conditions {
        let found = condition.equality().and_then(|(a, b, collation, nulls)| {
            let (la, lb) = (a.looks_at(), b.looks_at());
            if of_left(&la) && of_right(&lb) {
                Some((a.clone(), b.clone(), collation, nulls))
            } else if of_left(&lb) && of_right(&la) {
                Some((b.clone(), a.clone(), collation, nulls))
            } else {
                None
            }
        });
        match found {
            Some(found) => sides.push(found),
            None => residual.push(condition),
        }
    }
    let blank_left: Vec<Value> = vec![Value::Null; widths.0];
    let blank_right: Vec<Value> = vec![Value::Null; widths.1];
    let joined = |left: &[Value], right: &[Value]| -> Row { left.iter().chain(right).cloned().collect() };
    let key_of = |row: &Row, of_left: bool| -> Result<Option<Vec<Key>>, SqlError> {
        // A side's columns stand at their places of the joined row.
        let padded: Row = if of_left { Arc::clone(row) } else { joined(&blank_left, row) };
        let frame = Frame { row: &padded, outer };
        let mut key = Vec::with_capacity(sides.len());
        for (left, right, collation, nulls) in &sides {
            let value = if of_left { left.value(&frame)? } else { right.value(&frame)? };
            if value.is_null() && !nulls {
                return Ok(None);
            }
            key.push(value.key(collation));
        }
        Ok(Some(key))
    };
    let mut hashed: BTreeMap<Vec<Key>, Vec<usize>> = BTreeMap::new();
    for (at, row) in right.iter().enumerate() {
        if let Some(key) = key_of(row, false)? {
            hashed.entry(key).or_default().push(at);
        }
    }
    let mut matched = vec![false; right.len()];
    let mut rows = Vec::new();
    for row in &left {
        let mut found = false;
        let candidates = key_of(row, true)?.and_then(|key| hashed.get(&key));
        'candidates: for at in candidates.into_iter().flatten().copied() {
            let Some(other) = right.get(at) else { continue };
            let both = joined(row, other);
            for condition in &residual {
                if !condition.holds(&Frame { row: &both, outer })? {
                    continue 'candidates;
                }
            }
            found = true;
            if let Some(matched) = matched.get_mut(at) {
                *matched = true;
            }
            rows.push(both);
        }
        if !found && matches!(kind, Join::Left | Join::Full) {
            rows.push(joined(row, &blank_right));
        }
    }
    if matches!(kind, Join::Right | Join::Full) {
        for (other, _) in right.iter().zip(&matched).filter(|(_, matched)| !**matched) {
            rows.push(joined(&blank_left, other));
        }
    }
    Ok(rows)
}
