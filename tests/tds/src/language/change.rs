//! INSERT, UPDATE, DELETE, TRUNCATE, and the rows of a bulk load: with defaults, identities, computed columns,
//! constraints and triggers.

use super::bind::{Named, SLOT, Scope, ScopeColumn, find_target, no_object};
use super::engine::{Outcome, Pending, Work};
use super::expression::{Bound, Frame, Said, truth};
use super::parse;
use super::tree::{Declared, Expression, Hints, InsertSource, Name, Source, Statement};
use crate::store::catalog::Body;
use crate::store::convert::{Mode, convert};
use crate::store::error::Step;
use crate::store::table::{Column, Stamp, Table, key_of};
use crate::store::{Collation, Key, Kind, Row, SqlError, Stop, Type, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The table of a change.
#[derive(Clone, Debug)]
pub struct Target {
    pub id: i64,
    pub at: usize,
    /// `schema.name`, for errors.
    pub name: String,
    pub columns: Vec<Column>,
}

impl Work<'_> {
    pub fn target(&mut self, name: &[String]) -> Step<Target> {
        let found = self.binder().find_object(name).cloned();
        let Some(object) = found else { return Err(no_object(name).into()) };
        let Body::Table(at) = object.body else {
            return Err(SqlError::unknown(format!("a change of {}, which is no table", name.join("."))).into());
        };
        let columns = self.database.table(at)?.columns.clone();
        Ok(Target { id: object.id, at, name: object.full_name(), columns })
    }

    pub fn insert(&mut self, name: &Name, hints: Hints, columns: &[String], source: &InsertSource) -> Step<Outcome> {
        let target = self.target(name)?;
        if hints.hold {
            self.database.lock(self.own, target.at, hints.alone)?;
        }
        let places = self.places(&target, columns)?;
        let mut given: Vec<Vec<Option<(Value, Type)>>> = Vec::new();
        match source {
            InsertSource::Defaults => given.push(vec![None; places.len()]),
            InsertSource::Values(rows) => {
                for row in rows {
                    let mut values = Vec::with_capacity(row.len());
                    for expression in row {
                        values.push(match expression {
                            Some(expression) => Some(self.binder().value(expression)?),
                            None => None,
                        });
                    }
                    given.push(values);
                }
            }
            InsertSource::Query(query) => {
                let plan = self.binder().query(query, None)?;
                let types: Vec<Type> = plan.columns.iter().map(|column| column.ty).collect();
                for row in plan.rows(None)? {
                    given.push(row.iter().cloned().zip(types.iter().copied()).map(Some).collect());
                }
            }
        }
        let mut rows = Vec::with_capacity(given.len());
        for values in given {
            if values.len() != places.len() {
                let (number, which) = if values.len() < places.len() { (109, "more") } else { (110, "fewer") };
                return Err(SqlError::new(
                    number,
                    format!(
                        "There are {which} columns in the INSERT statement than values specified in the VALUES clause."
                    ),
                )
                .into());
            }
            let mut row: Vec<Option<Value>> = vec![None; target.columns.len()];
            for (place, value) in places.iter().zip(values) {
                let Some((value, from)) = value else { continue };
                let Some(column) = target.columns.get(*place) else { continue };
                let value = convert(&value, from, column.ty, Mode::Assign, None)?;
                if let Some(slot) = row.get_mut(*place) {
                    *slot = Some(value);
                }
            }
            rows.push(row);
        }
        let count = self.add(&target, rows, false)?;
        Ok(Outcome::count(count))
    }

    /// Places of the columns that an INSERT names, or of all that take values.
    fn places(&mut self, target: &Target, columns: &[String]) -> Step<Vec<usize>> {
        let identity_on = self.identity_insert_is_on(target);
        let takes = |column: &Column| column.computed.is_none() && column.ty.kind != Kind::RowVersion;
        if columns.is_empty() {
            let places = target.columns.iter().enumerate();
            return Ok(places
                .filter(|(_, column)| takes(column) && (column.identity.is_none() || identity_on))
                .map(|(at, _)| at)
                .collect());
        }
        let mut places = Vec::new();
        for name in columns {
            let at = target.columns.iter().position(|column| crate::store::table::same_name(&column.name, name));
            let Some((at, column)) = at.and_then(|at| Some((at, target.columns.get(at)?))) else {
                return Err(SqlError::new(207, format!("Invalid column name '{name}'.")).into());
            };
            if places.contains(&at) {
                return Err(SqlError::new(264, format!("The column name '{name}' is specified more than once in the SET clause or column list of an INSERT.")).into());
            }
            if column.ty.kind == Kind::RowVersion {
                return Err(SqlError::new(273, "Cannot insert an explicit value into a timestamp column.").into());
            }
            if column.computed.is_some() {
                return Err(SqlError::new(271, format!("The column \"{name}\" cannot be modified because it is either a computed column or is the result of a UNION operator.")).into());
            }
            if column.identity.is_some() && !identity_on {
                return Err(SqlError::new(544, format!("Cannot insert explicit value for identity column in table '{}' when IDENTITY_INSERT is set to OFF.", target.name)).into());
            }
            places.push(at);
        }
        let forgotten =
            target.columns.iter().enumerate().any(|(at, column)| column.identity.is_some() && !places.contains(&at));
        if identity_on && forgotten {
            return Err(SqlError::new(545, format!("Explicit value must be specified for identity column in table '{}' either when IDENTITY_INSERT is set to ON or when a replication user is inserting into a NOT FOR REPLICATION identity column.", target.name)).into());
        }
        Ok(places)
    }

    fn identity_insert_is_on(&self, target: &Target) -> bool {
        let Some(on) = &self.session.identity_insert else { return false };
        let folded: Vec<String> = target.name.splitn(2, '.').map(|part| Collation::usual().fold(part)).collect();
        *on == folded
    }

    /// Rows of which some values are given: the rest follows from the table. `bulk` loads give no defaults for nulls
    /// and check no constraints but keys and NOT NULL.
    pub fn add(&mut self, target: &Target, given: Vec<Vec<Option<Value>>>, bulk: bool) -> Step<u64> {
        let mut defaults: BTreeMap<usize, Value> = BTreeMap::new();
        for (at, column) in target.columns.iter().enumerate() {
            if let Some((_, text)) = &column.default {
                let (value, from) = self.binder().value(&parse::expression(text)?)?;
                defaults.insert(at, convert(&value, from, column.ty, Mode::Assign, None)?);
            }
        }
        let computed = self.computed(&target.columns)?;
        let mut added = Vec::with_capacity(given.len());
        for values in given {
            let mut row = Vec::with_capacity(values.len());
            for (at, (value, column)) in values.into_iter().zip(&target.columns).enumerate() {
                row.push(match (value, column.identity) {
                    (Some(value), Some(_)) => {
                        if let Value::Int(id) = value {
                            let table = self.database.table_mut(target.at)?;
                            table.identity = Some(table.identity.map_or(id, |last| last.max(id)));
                            self.session.identity = Some(id);
                        }
                        value
                    }
                    (Some(value), None) => value,
                    (None, Some((seed, step))) => {
                        let table = self.database.table_mut(target.at)?;
                        let id = table.identity.map_or(seed, |last| last + step);
                        table.identity = Some(id);
                        self.session.identity = Some(id);
                        convert(&Value::Int(id), Type::of(Kind::BigInt), column.ty, Mode::Assign, None)?
                    }
                    (None, None) if column.ty.kind == Kind::RowVersion => {
                        Value::bytes(self.database.next_rowversion(self.own).to_be_bytes())
                    }
                    (None, None) => defaults.get(&at).cloned().unwrap_or(Value::Null),
                });
            }
            compute(&mut row, &computed)?;
            added.push(Row::from(row));
        }
        if !bulk {
            self.check(target, &added, "INSERT")?;
        }
        for row in &added {
            self.database.insert(self.own, target.at, &target.name, Arc::clone(row))?;
        }
        if !bulk {
            self.refers(target, "INSERT")?;
            self.fire(target, "INSERT", &added, &[])?;
        }
        Ok(added.len() as u64)
    }

    /// Computed columns, bound over the row.
    fn computed(&mut self, columns: &[Column]) -> Step<Vec<(usize, Bound, Type, Type)>> {
        let scope = scope_of(columns);
        let mut computed = Vec::new();
        for (at, column) in columns.iter().enumerate() {
            if let Some((text, _)) = &column.computed {
                let typed = self.binder().expression(&parse::expression(text)?, &scope)?;
                computed.push((at, typed.bound, typed.ty, column.ty));
            }
        }
        Ok(computed)
    }

    fn check(&mut self, target: &Target, rows: &[Row], verb: &str) -> Step<()> {
        let checks = self.database.table(target.at)?.checks.clone();
        let scope = scope_of(&target.columns);
        for check in checks {
            let bound = self.binder().expression(&parse::expression(&check.text)?, &scope)?.bound;
            for row in rows {
                let frame = Frame { row, outer: None };
                if truth(&bound.value(&frame)?) == Some(false) {
                    return Err(SqlError::new(547, format!("The {verb} statement conflicted with the CHECK constraint \"{}\". The conflict occurred in table \"{}\".", check.name, target.name)).into());
                }
            }
        }
        Ok(())
    }

    /// That every row of a table has the rows it refers to.
    fn refers(&mut self, target: &Target, verb: &str) -> Step<()> {
        let view = self.database.names(self.own);
        let table = self.database.table(target.at)?;
        for key in &table.foreign {
            let Some(parent) = self.table_by_id(key.parent) else { continue };
            let there: BTreeSet<Vec<Key>> =
                parent.seen(view).map(|(_, row)| key_of(&parent.columns, &key.parent_columns, row)).collect();
            for (_, row) in table.seen(view) {
                let own = key_of(&table.columns, &key.columns, row);
                if !own.contains(&Key::Null) && !there.contains(&own) {
                    return Err(SqlError::new(547, format!("The {verb} statement conflicted with the FOREIGN KEY constraint \"{}\". The conflict occurred in table \"{}\".", key.name, target.name)).into());
                }
            }
        }
        Ok(())
    }

    fn table_by_id(&self, id: i64) -> Option<&Table> {
        let view = self.database.names(self.own);
        match self.database.object_by_id(view, id)?.body {
            Body::Table(at) => self.database.table(at).ok(),
            _ => None,
        }
    }

    /// Rows that refer to what is gone: refused, or gone as well where the key says so.
    fn referred(&mut self, target: &Target, gone: &[Row], verb: &str) -> Step<()> {
        let view = self.database.names(self.own);
        let mut cascades: Vec<(Target, Vec<usize>)> = Vec::new();
        let objects: Vec<_> = self.database.seen_objects(view).cloned().collect();
        for object in objects {
            let Body::Table(at) = object.body else { continue };
            let child = self.database.table(at)?;
            for key in child.foreign.iter().filter(|key| key.parent == target.id) {
                let parent = self.database.table(target.at)?;
                let still: BTreeSet<Vec<Key>> =
                    parent.seen(view).map(|(_, row)| key_of(&parent.columns, &key.parent_columns, row)).collect();
                let gone: BTreeSet<Vec<Key>> = gone
                    .iter()
                    .map(|row| key_of(&parent.columns, &key.parent_columns, row))
                    .filter(|key| !still.contains(key))
                    .collect();
                let slots: Vec<usize> = child
                    .seen(view)
                    .filter(|(_, row)| gone.contains(&key_of(&child.columns, &key.columns, row)))
                    .map(|(slot, _)| slot)
                    .collect();
                if slots.is_empty() {
                    continue;
                }
                if !key.cascade || verb != "DELETE" {
                    return Err(SqlError::new(547, format!("The {verb} statement conflicted with the REFERENCE constraint \"{}\". The conflict occurred in table \"{}\".", key.name, object.full_name())).into());
                }
                let columns = child.columns.clone();
                cascades.push((Target { id: object.id, at, name: object.full_name(), columns }, slots));
            }
        }
        for (child, slots) in cascades {
            self.remove(&child, &slots)?;
        }
        Ok(())
    }

    /// The rows that a change is about, each once: its slot, and the joined row that its values are over.
    fn about(
        &mut self,
        name: &Name,
        top: Option<&Expression>,
        from: Option<&Source>,
        filter: Option<&Expression>,
    ) -> Step<About> {
        let (table, alias, source) = match from {
            Some(source) => {
                let Some(table) = find_target(source, name) else { return Err(no_object(name).into()) };
                let alias = name.last().cloned().unwrap_or_default();
                (table, alias, source.clone())
            }
            None => {
                let alias = name.last().cloned().unwrap_or_default();
                let source = Source::Table { name: name.clone(), alias: None, hints: Hints::default() };
                (name.clone(), alias, source)
            }
        };
        let target = self.target(&table)?;
        let mut binder = self.binder();
        binder.slots_of = Some(alias);
        let (reading, columns) = binder.source(&source, None)?;
        let scope = Scope::over(columns);
        let filter = match filter {
            Some(filter) => Some(binder.expression(filter, &scope)?.bound),
            None => None,
        };
        let most = match top {
            Some(top) => match binder.value(top)?.0 {
                Value::Int(most) => usize::try_from(most).unwrap_or(0),
                _ => return Err(SqlError::unknown("TOP of no whole number").into()),
            },
            None => usize::MAX,
        };
        let Some(place) = scope.columns.iter().position(|column| column.hidden && column.name == SLOT) else {
            return Err(no_object(name).into());
        };
        let mut seen = BTreeSet::new();
        let mut rows = Vec::new();
        for row in reading.rows(None)? {
            if rows.len() >= most {
                break;
            }
            let frame = Frame { row: &row, outer: None };
            let wanted = match &filter {
                Some(filter) => filter.holds(&frame)?,
                None => true,
            };
            let Some(Value::Int(slot)) = row.get(place) else { continue };
            let slot = usize::try_from(*slot).unwrap_or(usize::MAX);
            if wanted && seen.insert(slot) {
                rows.push((slot, row));
            }
        }
        Ok((target, scope, rows))
    }

    pub fn update(
        &mut self,
        name: &Name,
        top: Option<&Expression>,
        set: &[(String, Expression)],
        from: Option<&Source>,
        filter: Option<&Expression>,
    ) -> Step<Outcome> {
        let (target, scope, rows) = self.about(name, top, from, filter)?;
        let mut changes = Vec::new();
        for (column, expression) in set {
            let at = target.columns.iter().position(|have| crate::store::table::same_name(&have.name, column));
            let Some((at, have)) = at.and_then(|at| Some((at, target.columns.get(at)?))) else {
                return Err(SqlError::new(207, format!("Invalid column name '{column}'.")).into());
            };
            if have.ty.kind == Kind::RowVersion {
                return Err(SqlError::new(272, "Cannot update a timestamp column.").into());
            }
            if have.computed.is_some() {
                return Err(SqlError::new(271, format!("The column \"{column}\" cannot be modified because it is either a computed column or is the result of a UNION operator.")).into());
            }
            if have.identity.is_some() {
                return Err(SqlError::new(8102, format!("Cannot update identity column '{column}'.")).into());
            }
            let typed = self.binder().expression(expression, &scope)?;
            changes.push((at, typed, have.ty));
        }
        let computed = self.computed(&target.columns)?;
        let (mut before, mut after, mut slots) = (Vec::new(), Vec::new(), Vec::new());
        for (slot, joined) in &rows {
            let frame = Frame { row: joined, outer: None };
            let version = self.database.table(target.at)?.versions.get(*slot);
            let Some(old) = version.map(|version| Arc::clone(&version.row)) else { continue };
            let mut row = old.to_vec();
            for (at, typed, to) in &changes {
                let value = convert(&typed.bound.value(&frame)?, typed.ty, *to, Mode::Assign, None)?;
                if let Some(place) = row.get_mut(*at) {
                    *place = value;
                }
            }
            for (value, column) in row.iter_mut().zip(&target.columns) {
                if column.ty.kind == Kind::RowVersion {
                    *value = Value::bytes(self.database.next_rowversion(self.own).to_be_bytes());
                }
            }
            compute(&mut row, &computed)?;
            before.push(old);
            after.push(Row::from(row));
            slots.push(*slot);
        }
        self.check(&target, &after, "UPDATE")?;
        // All go before any comes: keys may move from row to row.
        for slot in &slots {
            self.database.end_row(self.own, target.at, *slot)?;
        }
        for row in &after {
            self.database.insert(self.own, target.at, &target.name, Arc::clone(row))?;
        }
        self.refers(&target, "UPDATE")?;
        self.referred(&target, &before, "UPDATE")?;
        self.fire(&target, "UPDATE", &after, &before)?;
        Ok(Outcome::count(after.len() as u64))
    }

    pub fn delete(
        &mut self,
        name: &Name,
        top: Option<&Expression>,
        from: Option<&Source>,
        filter: Option<&Expression>,
    ) -> Step<Outcome> {
        let (target, _, rows) = self.about(name, top, from, filter)?;
        let slots: Vec<usize> = rows.iter().map(|(slot, _)| *slot).collect();
        let count = self.remove(&target, &slots)?;
        Ok(Outcome::count(count))
    }

    fn remove(&mut self, target: &Target, slots: &[usize]) -> Step<u64> {
        let mut gone = Vec::with_capacity(slots.len());
        for slot in slots {
            let row = self.database.table(target.at)?.versions.get(*slot).map(|version| Arc::clone(&version.row));
            if self.database.end_row(self.own, target.at, *slot)? {
                gone.extend(row);
            }
        }
        self.referred(target, &gone, "DELETE")?;
        self.fire(target, "DELETE", &[], &gone)?;
        Ok(gone.len() as u64)
    }

    pub fn truncate(&mut self, name: &Name) -> Step<Outcome> {
        let target = self.target(name)?;
        let view = self.database.names(self.own);
        let objects: Vec<_> = self.database.seen_objects(view).map(|object| object.body.clone()).collect();
        for body in objects {
            if let Body::Table(at) = body
                && self.database.table(at)?.foreign.iter().any(|key| key.parent == target.id)
            {
                return Err(SqlError::new(
                    4712,
                    format!(
                        "Cannot truncate table '{}' because it is being referenced by a FOREIGN KEY constraint.",
                        target.name
                    ),
                )
                .into());
            }
        }
        self.database.lock(self.own, target.at, true)?;
        let view = self.database.names(self.own);
        let slots: Vec<usize> = self.database.table(target.at)?.seen(view).map(|(slot, _)| slot).collect();
        for slot in slots {
            self.database.end_row(self.own, target.at, slot)?;
        }
        self.database.table_mut(target.at)?.identity = None;
        Ok(Outcome::default())
    }

    /// UPDLOCK: the rows that a condition holds for are this transaction's until it ends. Rows that another one made or
    /// changed, and has not committed, are waited for.
    pub fn hold_rows(&mut self, name: &Name, alias: Option<&str>, filter: Option<&Expression>) -> Step<()> {
        let target = self.target(name)?;
        let short = alias.or(name.last().map(String::as_str)).unwrap_or_default();
        let mut scope = scope_of(&target.columns);
        for column in &mut scope.columns {
            short.clone_into(&mut column.table);
        }
        let filter = match filter {
            Some(filter) => Some(self.binder().expression(filter, &scope)?.bound),
            None => None,
        };
        let mut slots = Vec::new();
        for (slot, version) in self.database.table(target.at)?.versions.iter().enumerate() {
            if version.begin == Stamp::Never || matches!(version.end, Stamp::Committed(_)) {
                continue;
            }
            let frame = Frame { row: &version.row, outer: None };
            let wanted = match &filter {
                Some(filter) => filter.holds(&frame)?,
                None => true,
            };
            if !wanted {
                continue;
            }
            for stamp in [version.begin, version.end] {
                if let Stamp::By(other) = stamp
                    && other != self.own
                {
                    return Err(Stop::Wait(other));
                }
            }
            slots.push(slot);
        }
        for slot in slots {
            self.database.hold_row(self.own, target.at, slot)?;
        }
        Ok(())
    }

    /// Triggers of a table, in the order of their making.
    fn fire(&mut self, target: &Target, verb: &str, inserted: &[Row], deleted: &[Row]) -> Step<()> {
        let view = self.database.names(self.own);
        let bodies: Vec<String> = self
            .database
            .seen_objects(view)
            .filter_map(|object| match &object.body {
                Body::Trigger { on, insert, update, delete, text } if *on == target.id => {
                    let fires = match verb {
                        "INSERT" => *insert,
                        "UPDATE" => *update,
                        _ => *delete,
                    };
                    fires.then(|| text.clone())
                }
                _ => None,
            })
            .collect();
        if bodies.is_empty() {
            return Ok(());
        }
        if self.session.trigger_depth >= 8 {
            return Err(SqlError::new(
                217,
                "Maximum stored procedure, function, trigger, or view nesting level exceeded.",
            )
            .into());
        }
        let columns: Vec<(String, Type)> =
            target.columns.iter().map(|column| (column.name.clone(), column.ty)).collect();
        let rows = |rows: &[Row]| Named { columns: columns.clone(), rows: Arc::new(rows.to_vec()) };
        let named = BTreeMap::from([("inserted".to_owned(), rows(inserted)), ("deleted".to_owned(), rows(deleted))]);
        let before = std::mem::replace(&mut self.named, named);
        self.session.trigger_depth += 1;
        let identity = self.session.identity;
        let fired = bodies.iter().try_for_each(|text| self.body(text));
        self.session.identity = identity;
        self.session.trigger_depth -= 1;
        self.named = before;
        fired
    }

    fn body(&mut self, text: &str) -> Step<()> {
        for statement in parse::batch(text)? {
            self.of_trigger(&statement)?;
        }
        Ok(())
    }

    fn of_trigger(&mut self, statement: &Statement) -> Step<()> {
        // What the change did before it is seen by its trigger.
        self.view = self.database.view(self.own)?;
        match statement {
            Statement::Block(statements) => statements.iter().try_for_each(|statement| self.of_trigger(statement)),
            Statement::SetOption { name, .. } if name == "NOCOUNT" => Ok(()),
            Statement::If { condition, then, otherwise } => {
                let bound = self.binder().expression(condition, &Scope::default())?.bound;
                let holds = bound.holds(&Frame { row: &[], outer: None })?;
                match (holds, otherwise) {
                    (true, _) => self.of_trigger(then),
                    (false, Some(otherwise)) => self.of_trigger(otherwise),
                    (false, None) => Ok(()),
                }
            }
            Statement::Insert { .. } | Statement::Update { .. } | Statement::Delete { .. } => {
                self.run(statement).map(|_| ())
            }
            Statement::Return => Ok(()),
            other => Err(SqlError::unknown(format!("in a trigger: {other:?}")).into()),
        }
    }

    /// INSERT BULK: the rows come as a message of their own.
    pub fn announce_bulk(&mut self, table: &Name, columns: &[(String, Declared)], options: &[String]) -> Step<Outcome> {
        let target = self.target(table)?;
        for (name, _) in columns {
            let found = target.columns.iter().find(|column| crate::store::table::same_name(&column.name, name));
            let Some(column) = found else {
                return Err(SqlError::new(207, format!("Invalid column name '{name}'.")).into());
            };
            if column.computed.is_some() || column.ty.kind == Kind::RowVersion {
                return Err(SqlError::new(271, format!("The column \"{name}\" cannot be modified because it is either a computed column or is the result of a UNION operator.")).into());
            }
        }
        self.session.pending =
            Some(Pending { table: table.clone(), columns: columns.to_vec(), options: options.to_vec() });
        Ok(Outcome::default())
    }

    /// The rows of a bulk load, each with the values of the announced columns in their order, in the types of the line.
    pub fn bulk(&mut self, pending: &Pending, types: &[Type], rows: &[Vec<Value>]) -> Step<Outcome> {
        let target = self.target(&pending.table)?;
        let option = |name: &str| pending.options.iter().any(|option| option == name);
        if option("TABLOCK") && self.database.table(target.at)?.indexes.iter().any(|index| index.clustered) {
            self.database.lock(self.own, target.at, true)?;
        }
        let mut places = Vec::new();
        for (name, _) in &pending.columns {
            let at = target.columns.iter().position(|column| crate::store::table::same_name(&column.name, name));
            places.push(at.ok_or_else(|| SqlError::new(207, format!("Invalid column name '{name}'.")))?);
        }
        let keep_nulls = option("KEEP_NULLS");
        let mut given = Vec::with_capacity(rows.len());
        for values in rows {
            let mut row: Vec<Option<Value>> = vec![None; target.columns.len()];
            for ((place, value), from) in places.iter().zip(values).zip(types) {
                let Some(column) = target.columns.get(*place) else { continue };
                let value = convert(value, *from, column.ty, Mode::Assign, None).map_err(|mut error| {
                    if error.number == 2628 {
                        error.text = format!(
                            "String or binary data would be truncated in table '{}', column '{}'. {}",
                            target.name, column.name, error.text
                        );
                    }
                    Stop::Error(error)
                })?;
                let default = value.is_null() && !keep_nulls && column.default.is_some();
                if let Some(slot) = row.get_mut(*place) {
                    *slot = if default { None } else { Some(value) };
                }
            }
            given.push(row);
        }
        let checked = option("CHECK_CONSTRAINTS") || option("FIRE_TRIGGERS");
        let count = self.add(&target, given, !checked)?;
        Ok(Outcome::count(count))
    }
}

/// Columns of a table as a scope of their own.
pub fn scope_of(columns: &[Column]) -> Scope<'static> {
    Scope::over(
        columns
            .iter()
            .map(|column| ScopeColumn {
                table: String::new(),
                name: column.name.clone(),
                ty: column.ty,
                nullable: column.nullable,
                said: Said::Column,
                origin: None,
                hidden: false,
            })
            .collect(),
    )
}

fn compute(row: &mut [Value], computed: &[(usize, Bound, Type, Type)]) -> Result<(), SqlError> {
    for (at, bound, from, to) in computed {
        let value = bound.value(&Frame { row, outer: None })?;
        let value = convert(&value, *from, *to, Mode::Cast, None)?;
        if let Some(place) = row.get_mut(*at) {
            *place = value;
        }
    }
    Ok(())
}

/// A table, the names that its rows are called by, and the rows that are meant, with their places.
type About = (Target, Scope<'static>, Vec<(usize, Row)>);
