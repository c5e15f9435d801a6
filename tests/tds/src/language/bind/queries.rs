//! Queries: what they read from, their groups, their items and their order.

use super::{Binder, Scope, ScopeColumn, condition};
use crate::language::catalogue;
use crate::language::expression::{Bound, Origin, Said, Typed};
use crate::language::run::{Body, Group, OutColumn, Plan, Reading, SelectPlan};
use crate::language::tree::{Expression, Hints, Item, Join, Name, Query, QueryBody, Select, Source};
use crate::store::catalog::{Body as ObjectBody, Object, TEMPORARY};
use crate::store::database::Isolation;
use crate::store::error::Step;
use crate::store::table::same_name;
use crate::store::{Kind, Row, SqlError, Stop, Type, Value};
use std::cell::Cell;
use std::sync::Arc;

/// Name of the hidden column with the place of a row.
pub const SLOT: &str = "\u{1}slot";

type Columns = Vec<ScopeColumn>;

impl Binder<'_> {
    pub fn query(&mut self, query: &Query, parent: Option<&Scope>) -> Step<Plan> {
        self.deeper()?;
        let (body, columns, order) = match &query.body {
            QueryBody::Select(select) => {
                let (plan, columns) = self.select(select, &query.order, parent)?;
                (Body::Select(Box::new(plan)), columns, Vec::new())
            }
            other => {
                let (body, columns) = self.body(other, parent)?;
                let mut order = Vec::new();
                for (by, falls) in &query.order {
                    order.push((place(by, &columns)?, *falls));
                }
                (body, columns, order)
            }
        };
        let alone = Scope { parent, ..Scope::default() };
        let mut number = |expression: &Option<Expression>| -> Step<Option<Bound>> {
            match expression {
                Some(expression) => Ok(Some(self.expression(expression, &alone)?.bound)),
                None => Ok(None),
            }
        };
        let (offset, fetch) = (number(&query.offset)?, number(&query.fetch)?);
        self.depth -= 1;
        Ok(Plan { body, columns, order, offset, fetch })
    }

    fn body(&mut self, body: &QueryBody, parent: Option<&Scope>) -> Step<(Body, Vec<OutColumn>)> {
        match body {
            QueryBody::Select(select) => {
                let (plan, columns) = self.select(select, &[], parent)?;
                Ok((Body::Select(Box::new(plan)), columns))
            }
            QueryBody::Nested(query) => {
                let plan = self.query(query, parent)?;
                let columns = plan.columns.clone();
                Ok((Body::Nested(Box::new(plan)), columns))
            }
            QueryBody::Set { operation, left, right } => {
                let (left, left_columns) = self.body(left, parent)?;
                let (right, right_columns) = self.body(right, parent)?;
                if left_columns.len() != right_columns.len() {
                    return Err(SqlError::new(205, "All queries combined using a UNION, INTERSECT or EXCEPT operator must have an equal number of expressions in their target lists.").into());
                }
                let columns: Vec<OutColumn> = left_columns
                    .iter()
                    .zip(&right_columns)
                    .map(|(left, right)| OutColumn {
                        name: left.name.clone(),
                        ty: left.ty.common(right.ty),
                        nullable: left.nullable || right.nullable,
                        origin: None,
                        said: left.said.max(right.said),
                    })
                    .collect();
                let left = Box::new(brought_to(left, left_columns, &columns));
                let right = Box::new(brought_to(right, right_columns, &columns));
                Ok((Body::Set { operation: *operation, left, right }, columns))
            }
        }
    }

    fn select(
        &mut self,
        select: &Select,
        order: &[(Expression, bool)],
        parent: Option<&Scope>,
    ) -> Step<(SelectPlan, Vec<OutColumn>)> {
        let (from, columns) = match &select.from {
            Some(source) => self.source(source, parent)?,
            None => (Reading::Nothing, Vec::new()),
        };
        let mut scope = Scope { columns, parent, ..Scope::default() };
        let filter = match &select.filter {
            Some(filter) => Some(self.expression(filter, &scope)?.bound),
            None => None,
        };
        let mut keys = Vec::new();
        for key in &select.group {
            keys.push(self.expression(key, &scope)?);
        }
        let aggregated = select.items.iter().any(|item| match item {
            Item::Expression(expression, _) | Item::Assign(_, expression) => has_aggregate(expression),
            Item::Star(_) => false,
        });
        let grouped = !keys.is_empty() || aggregated || select.having.is_some();
        scope.keys = keys;
        scope.grouped = Cell::new(grouped);
        scope.windows_allowed = Cell::new(true);
        let having = match &select.having {
            Some(having) => Some(self.expression(having, &scope)?.bound),
            None => None,
        };
        let items = self.items(&select.items, &scope)?;
        let mut ordering = Vec::new();
        for (by, falls) in order {
            let typed = self.order_item(by, &items, &scope)?;
            ordering.push((typed.bound, *falls, typed.ty.collation));
        }
        let top = match &select.top {
            Some(top) => Some(self.expression(top, &Scope { parent, ..Scope::default() })?.bound),
            None => None,
        };
        let group = grouped.then(|| Group {
            keys: scope.keys.iter().map(|key| (key.bound.clone(), key.ty.collation)).collect(),
            aggregates: scope.aggregates.take(),
        });
        let columns: Vec<OutColumn> = items
            .iter()
            .map(|(name, typed)| OutColumn {
                name: name.clone(),
                ty: typed.ty,
                nullable: typed.nullable,
                origin: typed.origin,
                said: typed.said,
            })
            .collect();
        let plan = SelectPlan {
            from,
            filter,
            group,
            having,
            windows: scope.windows.take(),
            collations: items.iter().map(|(_, typed)| typed.ty.collation).collect(),
            items: items.into_iter().map(|(_, typed)| typed.bound).collect(),
            order: ordering,
            distinct: select.distinct,
            top,
        };
        Ok((plan, columns))
    }

    fn items(&mut self, items: &[Item], scope: &Scope) -> Step<Vec<(String, Typed)>> {
        let mut bound = Vec::new();
        for item in items {
            match item {
                Item::Expression(expression, alias) => {
                    let typed = self.expression(expression, scope)?;
                    let name = match (alias, expression) {
                        (Some(alias), _) => alias.clone(),
                        (None, Expression::Column(name)) => name.last().cloned().unwrap_or_default(),
                        _ => String::new(),
                    };
                    bound.push((name, typed));
                }
                Item::Assign(_, expression) => bound.push((String::new(), self.expression(expression, scope)?)),
                Item::Star(of) => {
                    let before = bound.len();
                    for column in scope.columns.iter().filter(|column| !column.hidden) {
                        if of.as_ref().is_none_or(|of| same_name(of, &column.table)) {
                            let name = vec![column.table.clone(), column.name.clone()];
                            bound.push((column.name.clone(), self.expression(&Expression::Column(name), scope)?));
                        }
                    }
                    if bound.len() == before {
                        return Err(SqlError::new(263, "Must specify table to select from.").into());
                    }
                }
            }
        }
        Ok(bound)
    }

    /// An item by its name or number, or an expression over the rows.
    fn order_item(&mut self, by: &Expression, items: &[(String, Typed)], scope: &Scope) -> Step<Typed> {
        match by {
            Expression::Integer(number) => {
                let item = usize::try_from(*number - 1).ok().and_then(|at| items.get(at));
                item.map(|(_, typed)| typed.clone()).ok_or_else(|| {
                    Stop::Error(SqlError::new(108, format!("The ORDER BY position number {number} is out of range of the number of items in the select list.")))
                })
            }
            Expression::Column(name) => {
                if let [name] = name.as_slice()
                    && let Some((_, typed)) = items.iter().find(|(alias, _)| same_name(alias, name))
                {
                    return Ok(typed.clone());
                }
                self.expression(by, scope)
            }
            _ => self.expression(by, scope),
        }
    }

    // Sources.

    pub fn source(&mut self, source: &Source, parent: Option<&Scope>) -> Step<(Reading, Columns)> {
        match source {
            Source::Table { name, alias, hints } => self.table(name, alias.as_deref(), *hints),
            Source::Derived { query, alias, columns } => {
                let plan = self.query(query, parent)?;
                let mut scope = Vec::with_capacity(plan.columns.len());
                for (at, column) in plan.columns.iter().enumerate() {
                    let name = columns.get(at).unwrap_or(&column.name).clone();
                    if name.is_empty() {
                        return Err(SqlError::new(
                            8155,
                            format!("No column name was specified for column {} of '{alias}'.", at + 1),
                        )
                        .into());
                    }
                    scope.push(ScopeColumn {
                        table: alias.clone(),
                        name,
                        ty: column.ty,
                        nullable: column.nullable,
                        said: if column.said == Said::Explicitly { Said::Column } else { column.said },
                        origin: None,
                        hidden: false,
                    });
                }
                Ok((Reading::Query(Box::new(plan)), scope))
            }
            Source::Values { rows, alias, columns } => self.values(rows, alias, columns),
            Source::Function { name, arguments, alias } => {
                let mut values = Vec::new();
                for argument in arguments {
                    values.push(self.value(argument)?.0);
                }
                let (columns, rows) = catalogue::function(self, name, &values)?;
                Ok(self.fixed(columns, rows, alias))
            }
            Source::Join { kind, left, right, on } => {
                let (left, mut columns) = self.source(left, parent)?;
                let (right, right_columns) = self.source(right, parent)?;
                let widths = (columns.len(), right_columns.len());
                columns.extend(right_columns);
                let on = match on {
                    Some(on) => {
                        let scope = Scope { columns: columns.clone(), parent, ..Scope::default() };
                        Some(condition(self.expression(on, &scope)?.bound).bound)
                    }
                    None => None,
                };
                for (at, column) in columns.iter_mut().enumerate() {
                    let blank_left = matches!(kind, Join::Right | Join::Full) && at < widths.0;
                    let blank_right = matches!(kind, Join::Left | Join::Full) && at >= widths.0;
                    column.nullable |= blank_left || blank_right;
                }
                Ok((Reading::Join { kind: *kind, left: Box::new(left), right: Box::new(right), widths, on }, columns))
            }
        }
    }

    fn fixed(&self, columns: Vec<(String, Type)>, rows: Vec<Row>, alias: &str) -> (Reading, Columns) {
        let columns = columns
            .into_iter()
            .map(|(name, ty)| ScopeColumn {
                table: alias.to_owned(),
                name,
                ty,
                nullable: true,
                said: Said::Column,
                origin: None,
                hidden: false,
            })
            .collect();
        (Reading::Rows(Arc::new(rows)), columns)
    }

    fn values(&mut self, rows: &[Vec<Expression>], alias: &str, names: &[String]) -> Step<(Reading, Columns)> {
        let mut made: Vec<Vec<(Value, Type)>> = Vec::new();
        for row in rows {
            let mut values = Vec::new();
            for expression in row {
                values.push(self.value(expression)?);
            }
            if values.len() != names.len() {
                return Err(SqlError::new(
                    10709,
                    "The number of columns for each row in a table value constructor must be the same.",
                )
                .into());
            }
            made.push(values);
        }
        let mut columns = Vec::new();
        for (at, name) in names.iter().enumerate() {
            let types = made.iter().filter_map(|row| row.get(at)).filter(|(value, _)| !value.is_null());
            let ty = types.map(|(_, ty)| *ty).reduce(Type::common).unwrap_or(Type::of(Kind::Int));
            columns.push((name.clone(), ty));
        }
        let mut rows = Vec::new();
        for row in made {
            let mut values = Vec::new();
            for ((value, from), (_, to)) in row.iter().zip(&columns) {
                let mode = crate::store::convert::Mode::Cast;
                values.push(crate::store::convert::convert(value, *from, *to, mode, None)?);
            }
            rows.push(Row::from(values));
        }
        Ok(self.fixed(columns, rows, alias))
    }

    fn table(&mut self, name: &Name, alias: Option<&str>, hints: Hints) -> Step<(Reading, Columns)> {
        let short = alias.or(name.last().map(String::as_str)).unwrap_or_default().to_owned();
        if let [one] = name.as_slice()
            && let Some(named) = self.named.get(&one.to_lowercase()).cloned()
        {
            let (_, columns) = self.fixed(named.columns, Vec::new(), &short);
            return Ok((Reading::Rows(named.rows), columns));
        }
        if let Some((columns, rows)) = catalogue::view(self.database, self.own, name)? {
            return Ok(self.fixed(columns, rows, &short));
        }
        let Some(object) = self.find_object(name).cloned() else { return Err(no_object(name).into()) };
        match &object.body {
            ObjectBody::View(text) => {
                let query = crate::language::parse::query(text)?;
                let (reading, columns) =
                    self.source(&Source::Derived { query: Box::new(query), alias: short, columns: Vec::new() }, None)?;
                Ok((reading, columns))
            }
            ObjectBody::Table(at) => {
                let slots = self.slots_of.as_ref().is_some_and(|wanted| same_name(wanted, &short));
                if slots {
                    self.slots_of = None;
                }
                self.rows_of(*at, &short, hints, slots)
            }
            ObjectBody::Trigger { .. } => Err(no_object(name).into()),
        }
    }

    fn rows_of(&mut self, at: usize, alias: &str, hints: Hints, slots: bool) -> Step<(Reading, Columns)> {
        let strict = matches!(self.database.isolation(self.own), Isolation::RepeatableRead | Isolation::Serializable);
        if hints.hold || strict {
            self.database.lock(self.own, at, hints.alone)?;
            // The lock may have been waited for: what was committed meanwhile is seen.
            if self.database.isolation(self.own) != Isolation::Snapshot {
                self.view = self.database.view(self.own)?;
            }
        }
        let view = self.view;
        let table = self.database.table(at)?;
        let mut columns: Columns = table
            .columns
            .iter()
            .map(|column| ScopeColumn {
                table: alias.to_owned(),
                name: column.name.clone(),
                ty: column.ty,
                nullable: column.nullable,
                said: Said::Column,
                origin: Some(Origin {
                    identity: column.identity.is_some(),
                    computed: column.computed.is_some(),
                    rowversion: column.ty.kind == Kind::RowVersion,
                }),
                hidden: false,
            })
            .collect();
        if !slots {
            let rows = table.seen(view).map(|(_, row)| Arc::clone(row)).collect();
            return Ok((Reading::Rows(Arc::new(rows)), columns));
        }
        columns.push(ScopeColumn {
            table: alias.to_owned(),
            name: SLOT.to_owned(),
            ty: Type::of(Kind::BigInt),
            nullable: false,
            said: Said::Column,
            origin: None,
            hidden: true,
        });
        let rows = table
            .seen(view)
            .map(|(slot, row)| row.iter().cloned().chain(std::iter::once(Value::Int(slot as i64))).collect())
            .collect();
        Ok((Reading::Rows(Arc::new(rows)), columns))
    }

    /// An object by its name, which may leave out the schema and may say the database.
    pub fn find_object(&self, name: &[String]) -> Option<&Object> {
        let view = self.database.names(self.own);
        let (schema, last) = self.session.resolve(name)?;
        self.database.object(view, &schema, &last)
    }
}

/// The table that a change names, as its FROM knows it: by alias, or by the name itself.
pub fn find_target(source: &Source, wanted: &Name) -> Option<Name> {
    match source {
        Source::Table { name, alias, .. } => {
            let alias_is =
                alias.as_ref().is_some_and(|alias| matches!(wanted.as_slice(), [one] if same_name(one, alias)));
            let last = |name: &Name| name.last().cloned().unwrap_or_default();
            let name_is = alias.is_none() && same_name(&last(name), &last(wanted));
            (alias_is || name_is).then(|| name.clone())
        }
        Source::Join { left, right, .. } => find_target(left, wanted).or_else(|| find_target(right, wanted)),
        _ => None,
    }
}

pub fn no_object(name: &[String]) -> SqlError {
    SqlError::new(208, format!("Invalid object name '{}'.", name.join(".")))
}

/// Schema and name of an object; a temporary table belongs to its session.
pub fn resolve(name: &[String], database: &str, spid: u16) -> Option<(String, String)> {
    let last = name.last()?;
    if last.starts_with('#') {
        let of = if last.starts_with("##") { String::new() } else { format!("\u{1}{spid}") };
        return Some((TEMPORARY.to_owned(), format!("{last}{of}")));
    }
    let schema = match name.len().checked_sub(2).and_then(|at| name.get(at)) {
        Some(schema) if !schema.is_empty() => schema.clone(),
        _ => "dbo".to_owned(),
    };
    match name.len().checked_sub(3).and_then(|at| name.get(at)) {
        Some(other) if !same_name(other, database) => None,
        _ => Some((schema, last.clone())),
    }
}

/// The column of a set of queries that an order names.
fn place(by: &Expression, columns: &[OutColumn]) -> Step<usize> {
    let found = match by {
        Expression::Integer(number) => usize::try_from(*number - 1).ok().filter(|at| *at < columns.len()),
        Expression::Column(name) => {
            name.last().and_then(|name| columns.iter().position(|column| same_name(&column.name, name)))
        }
        _ => None,
    };
    found.ok_or_else(|| Stop::Error(SqlError::new(104, "ORDER BY items must appear in the select list if the statement contains a UNION, INTERSECT or EXCEPT operator.")))
}

/// One side of a set, its columns in the types of the whole.
fn brought_to(body: Body, from: Vec<OutColumn>, to: &[OutColumn]) -> Plan {
    let same = from.iter().zip(to).all(|(from, to)| from.ty.kind == to.ty.kind);
    let plan = Plan { body, columns: from.clone(), order: Vec::new(), offset: None, fetch: None };
    if same {
        return plan;
    }
    let items = from
        .iter()
        .zip(to)
        .enumerate()
        .map(|(at, (from, to))| Typed::new(Bound::Column { up: 0, at }, from.ty).cast(to.ty).bound)
        .collect();
    let select = SelectPlan {
        from: Reading::Query(Box::new(plan)),
        filter: None,
        group: None,
        having: None,
        windows: Vec::new(),
        items,
        collations: to.iter().map(|column| column.ty.collation).collect(),
        order: Vec::new(),
        distinct: false,
        top: None,
    };
    Plan { body: Body::Select(Box::new(select)), columns: to.to_vec(), order: Vec::new(), offset: None, fetch: None }
}

/// Whether an expression has an aggregate of this query, and not of one within.
fn has_aggregate(expression: &Expression) -> bool {
    let any = |list: &[Expression]| list.iter().any(has_aggregate);
    match expression {
        Expression::Call { name, arguments, over, .. } => {
            (over.is_none() && matches!(name.as_str(), "COUNT" | "COUNT_BIG" | "SUM" | "MIN" | "MAX" | "AVG"))
                || any(arguments)
        }
        Expression::Negate(a) | Expression::BitNot(a) | Expression::Not(a) | Expression::IsNull(a, _) => {
            has_aggregate(a)
        }
        Expression::Collate(a, _) | Expression::InQuery(a, _, _) => has_aggregate(a),
        Expression::Cast { value, .. } => has_aggregate(value),
        Expression::Arithmetic(_, a, b) | Expression::Compare(_, a, b) => has_aggregate(a) || has_aggregate(b),
        Expression::And(a, b) | Expression::Or(a, b) => has_aggregate(a) || has_aggregate(b),
        Expression::In(a, list, _) => has_aggregate(a) || any(list),
        Expression::Between(a, b, c, _) => has_aggregate(a) || has_aggregate(b) || has_aggregate(c),
        Expression::Like { text, pattern, .. } => has_aggregate(text) || has_aggregate(pattern),
        Expression::Case { operand, whens, otherwise } => {
            operand.as_deref().is_some_and(has_aggregate)
                || whens.iter().any(|(when, then)| has_aggregate(when) || has_aggregate(then))
                || otherwise.as_deref().is_some_and(has_aggregate)
        }
        _ => false,
    }
}

impl Scope<'_> {
    pub fn over(columns: Columns) -> Self {
        Scope { columns, ..Scope::default() }
    }
}
