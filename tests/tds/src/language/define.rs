//! CREATE, ALTER and DROP: within the transaction, as everything is.

use super::bind::{no_object, resolve};
use super::change::scope_of;
use super::engine::{Outcome, Work};
use super::parse;
use super::tree::{ColumnDefinition, Constraint, Name, Statement};
use crate::store::catalog::{Body, TEMPORARY};
use crate::store::error::Step;
use crate::store::table::{Check, Column, ForeignKey, Index, Table, same_name};
use crate::store::{Kind, Row, SqlError, Stop, Value};

impl Work<'_> {
    pub fn define(&mut self, statement: &Statement) -> Step<Outcome> {
        match statement {
            Statement::CreateTable { name, columns, constraints } => self.create_table(name, columns, constraints)?,
            Statement::AlterAdd { table, columns, constraints } => self.alter_add(table, columns, constraints)?,
            Statement::AlterDrop { table, columns, constraints } => self.alter_drop(table, columns, constraints)?,
            Statement::AllowSnapshot { database, on } => {
                if !database.is_empty() && !same_name(database, &self.database.name) {
                    return Err(SqlError::new(5011, format!("User does not have permission to alter database '{database}', the database does not exist, or the database is not in a state that allows access checks.")).into());
                }
                self.database.allow_snapshot = *on;
            }
            Statement::DropTable { names, if_exists } => {
                for name in names {
                    self.drop_table(name, *if_exists)?;
                }
            }
            Statement::CreateIndex { name, table, columns, included, unique, clustered } => {
                let target = self.target(table)?;
                let names: Vec<String> = columns.iter().map(|(column, _)| column.clone()).collect();
                let mut index = Index::new(name.clone(), places(&target.columns, &names)?, *unique);
                index.descending = columns.iter().map(|(_, falls)| *falls).collect();
                index.included = places(&target.columns, included)?;
                index.clustered = *clustered;
                self.database.add_index(self.own, target.at, index, &target.name)?;
            }
            Statement::DropIndex { name, table } => {
                let target = self.target(table)?;
                if !self.database.drop_index(self.own, target.at, name)? {
                    return Err(SqlError::new(3701, format!("Cannot drop the index '{}.{name}', because it does not exist or you do not have permission.", target.name)).into());
                }
            }
            Statement::CreateSchema(name) => {
                if self.database.schemas.iter().any(|schema| same_name(schema, name)) {
                    return Err(SqlError::new(
                        2714,
                        format!("There is already an object named '{name}' in the database."),
                    )
                    .into());
                }
                self.database.add_schema(self.own, name);
            }
            Statement::CreateView { name, text } => {
                let query = parse::query(text)?;
                self.binder().query(&query, None)?;
                let (schema, last) = self.new_name(name)?;
                self.database.add_object(self.own, None, &schema, &last, Body::View(text.clone()))?;
            }
            Statement::CreateTrigger { name, table, insert, update, delete, text } => {
                let on = self.target(table)?.id;
                let (schema, last) = self.new_name(name)?;
                let (insert, update, delete) = (*insert, *update, *delete);
                let body = Body::Trigger { on, insert, update, delete, text: text.clone() };
                self.database.add_object(self.own, None, &schema, &last, body)?;
            }
            Statement::DropObject { name, view } => {
                let found = self.binder().find_object(name).cloned();
                let fits = |body: &Body| match body {
                    Body::View(_) => *view,
                    Body::Trigger { .. } => !*view,
                    Body::Table(_) => false,
                };
                match found.filter(|object| fits(&object.body)) {
                    Some(object) => self.database.end_object(self.own, object.id)?,
                    None => return Err(missing(name)),
                }
            }
            other => return Err(SqlError::unknown(format!("here: {other:?}")).into()),
        }
        Ok(Outcome::default())
    }

    fn new_name(&self, name: &Name) -> Step<(String, String)> {
        let Some((schema, last)) = resolve(name, &self.session.database_name, self.session.spid) else {
            return Err(no_object(name).into());
        };
        let known = schema == TEMPORARY || self.database.schemas.iter().any(|have| same_name(have, &schema));
        if !known {
            return Err(SqlError::new(2760, format!("The specified schema name \"{schema}\" either does not exist or you do not have permission to use it.")).into());
        }
        Ok((schema, last))
    }

    fn create_table(&mut self, name: &Name, columns: &[ColumnDefinition], constraints: &[Constraint]) -> Step<()> {
        let (schema, last) = self.new_name(name)?;
        let mut table = Table::default();
        for definition in columns {
            let column = self.column(definition, &table.columns)?;
            if table.column(&column.name).is_some() {
                return Err(SqlError::new(2705, format!("Column names in each table must be unique. Column name '{}' in table '{last}' is specified more than once.", column.name)).into());
            }
            table.columns.push(column);
        }
        let at = self.database.add_table(table);
        let id = self.database.add_object(self.own, None, &schema, &last, Body::Table(at))?;
        // Keys first: a table may refer to itself.
        let is_key = |constraint: &&Constraint| matches!(constraint, Constraint::Key { .. });
        for constraint in constraints.iter().filter(is_key) {
            self.constrain(at, id, &last, constraint)?;
        }
        for constraint in constraints.iter().filter(|constraint| !is_key(constraint)) {
            self.constrain(at, id, &last, constraint)?;
        }
        Ok(())
    }

    fn column(&mut self, definition: &ColumnDefinition, before: &[Column]) -> Step<Column> {
        let name = definition.name.clone();
        let default = definition.default.clone().map(|(given, text)| {
            let given = given.unwrap_or_else(|| format!("DF_{name}"));
            (given, text)
        });
        if let Some((text, stored)) = &definition.computed {
            let typed = self.binder().expression(&parse::expression(text)?, &scope_of(before))?;
            return Ok(Column {
                name,
                ty: typed.ty,
                nullable: typed.nullable,
                identity: None,
                default: None,
                computed: Some((text.clone(), *stored)),
            });
        }
        let Some(declared) = definition.ty else {
            return Err(
                SqlError::new(173, format!("The definition for column '{name}' must include a data type.")).into()
            );
        };
        let identity = definition.identity;
        if identity.is_some() && !declared.ty.kind.is_number() {
            return Err(SqlError::new(2749, format!("Identity column '{name}' must be of data type int, bigint, smallint, tinyint, or decimal or numeric with a scale of 0, unencrypted, and constrained to be nonnullable.")).into());
        }
        let nullable = definition.nullable.unwrap_or(identity.is_none() && declared.ty.kind != Kind::RowVersion);
        Ok(Column { name, ty: declared.ty, nullable, identity, default, computed: None })
    }

    fn constrain(&mut self, at: usize, id: i64, name: &str, constraint: &Constraint) -> Step<()> {
        match constraint {
            Constraint::Key { name: given, columns, primary, clustered } => {
                let table = self.database.table_mut(at)?;
                let names: Vec<String> = columns.iter().map(|(column, _)| column.clone()).collect();
                let keys = places(&table.columns, &names)?;
                for key in &keys {
                    let Some(column) = table.columns.get_mut(*key) else { continue };
                    let long = column.ty.kind.is_text() || column.ty.kind.is_binary();
                    if long && column.ty.kind.length().is_none() {
                        return Err(SqlError::new(1919, format!("Column '{}' in table '{name}' is of a type that is invalid for use as a key column in an index.", column.name)).into());
                    }
                    if *primary {
                        column.nullable = false;
                    }
                }
                let width: i64 = keys
                    .iter()
                    .filter_map(|key| table.columns.get(*key))
                    .map(|column| column.ty.kind.max_length())
                    .sum();
                if width > 900 && *primary {
                    return Err(SqlError::new(
                        1944,
                        format!("Index was not created. The index key is {width} bytes long, and the maximum is 900."),
                    )
                    .into());
                }
                if *primary && table.indexes.iter().any(|index| index.primary) {
                    return Err(SqlError::new(
                        1779,
                        format!("Table '{name}' already has a primary key defined on it."),
                    )
                    .into());
                }
                let number = table.indexes.len() + 1;
                let prefix = if *primary { "PK" } else { "UQ" };
                let given = given.clone().unwrap_or_else(|| format!("{prefix}__{name}__{id:08X}{number}"));
                let mut index = Index::new(given, keys, true);
                index.descending = columns.iter().map(|(_, falls)| *falls).collect();
                (index.primary, index.constraint) = (*primary, true);
                index.clustered = clustered.unwrap_or(*primary);
                self.database.add_index(self.own, at, index, name)?;
            }
            Constraint::Check { name: given, text } => {
                let table = self.database.table_mut(at)?;
                let given = given.clone().unwrap_or_else(|| format!("CK__{name}__{}", table.checks.len() + 1));
                table.checks.push(Check { name: given, text: text.clone() });
            }
            Constraint::Foreign { name: given, columns, parent, parent_columns, cascade } => {
                let target = self.target(parent)?;
                let primary = self.database.table(target.at)?.indexes.iter().find(|index| index.primary);
                let parent_keys = match (parent_columns.is_empty(), primary) {
                    (true, Some(primary)) => primary.columns.clone(),
                    _ => places(&target.columns, parent_columns)?,
                };
                let unique = |index: &Index| index.unique && index.columns == parent_keys;
                if !self.database.table(target.at)?.indexes.iter().any(unique) {
                    return Err(SqlError::new(1776, format!("There are no primary or candidate keys in the referenced table '{}' that match the referencing column list in the foreign key.", target.name)).into());
                }
                let table = self.database.table_mut(at)?;
                let keys = places(&table.columns, columns)?;
                let given = given.clone().unwrap_or_else(|| format!("FK__{name}__{}", table.foreign.len() + 1));
                table.foreign.push(ForeignKey {
                    name: given,
                    columns: keys,
                    parent: target.id,
                    parent_columns: parent_keys,
                    cascade: *cascade,
                });
            }
        }
        Ok(())
    }

    fn drop_table(&mut self, name: &Name, if_exists: bool) -> Step<()> {
        let found = self.binder().find_object(name).cloned();
        let object = match found {
            Some(object) => object,
            None if if_exists => return Ok(()),
            None => return Err(missing(name)),
        };
        let Body::Table(at) = object.body else { return Err(missing(name)) };
        let view = self.database.names(self.own);
        let mut triggers = Vec::new();
        for other in self.database.seen_objects(view) {
            match &other.body {
                Body::Table(child) if other.id != object.id => {
                    let foreign = &self.database.table(*child)?.foreign;
                    let refers = foreign.iter().any(|key| key.parent == object.id);
                    let why = || {
                        let name = &object.name;
                        format!("Could not drop object '{name}' because it is referenced by a FOREIGN KEY constraint.")
                    };
                    refers.then(|| SqlError::new(3726, why())).map_or(Ok(()), Err)?;
                }
                Body::Trigger { on, .. } if *on == object.id => triggers.push(other.id),
                _ => {}
            }
        }
        self.database.lock(self.own, at, true)?;
        for trigger in triggers {
            self.database.end_object(self.own, trigger)?;
        }
        self.database.end_object(self.own, object.id)
    }

    /// A table with further columns is a new one under the same name and number.
    fn alter_add(&mut self, name: &Name, columns: &[ColumnDefinition], constraints: &[Constraint]) -> Step<()> {
        let target = self.target(name)?;
        if columns.is_empty() {
            return constraints
                .iter()
                .try_for_each(|constraint| self.constrain(target.at, target.id, &target.name, constraint));
        }
        let mut all = target.columns.clone();
        let mut further = Vec::new();
        for definition in columns {
            let column = self.column(definition, &all)?;
            let value = match &column.default {
                Some((_, text)) if !column.nullable => {
                    let (value, from) = self.binder().value(&parse::expression(text)?)?;
                    crate::store::convert::convert(&value, from, column.ty, crate::store::convert::Mode::Assign, None)?
                }
                _ => Value::Null,
            };
            if value.is_null() && !column.nullable && column.ty.kind != Kind::RowVersion {
                return Err(SqlError::new(4901, format!("ALTER TABLE only allows columns to be added that can contain nulls, or have a DEFAULT definition specified; column '{}' cannot be added.", column.name)).into());
            }
            all.push(column.clone());
            further.push((column, value));
        }
        let at = self.rebuild(&target.name, target.at, target.id, all, |row, database, own| {
            let mut values = row.to_vec();
            for (column, value) in &further {
                values.push(if column.ty.kind == Kind::RowVersion {
                    Value::bytes(database.next_rowversion(own).to_be_bytes())
                } else {
                    value.clone()
                });
            }
            values
        })?;
        constraints.iter().try_for_each(|constraint| self.constrain(at, target.id, &target.name, constraint))
    }

    fn alter_drop(&mut self, name: &Name, columns: &[String], constraints: &[String]) -> Step<()> {
        let target = self.target(name)?;
        for constraint in constraints {
            if self.database.drop_index(self.own, target.at, constraint)? {
                continue;
            }
            let table = self.database.table_mut(target.at)?;
            let before = (table.checks.len(), table.foreign.len());
            table.checks.retain(|check| !same_name(&check.name, constraint));
            table.foreign.retain(|key| !same_name(&key.name, constraint));
            if (table.checks.len(), table.foreign.len()) == before {
                return Err(SqlError::new(3728, format!("'{constraint}' is not a constraint.")).into());
            }
        }
        for column in columns {
            let target = self.target(name)?;
            let at = places(&target.columns, std::slice::from_ref(column))?.first().copied().unwrap_or(usize::MAX);
            let used = self.database.table(target.at)?.indexes.iter().any(|index| index.columns.contains(&at));
            if used {
                return Err(SqlError::new(
                    4922,
                    format!("ALTER TABLE DROP COLUMN {column} failed because one or more objects access this column."),
                )
                .into());
            }
            let mut rest = target.columns.clone();
            rest.remove(at);
            self.rebuild(&target.name, target.at, target.id, rest, |row, _, _| {
                row.iter().enumerate().filter(|(place, _)| *place != at).map(|(_, value)| value.clone()).collect()
            })?;
        }
        Ok(())
    }

    fn rebuild(
        &mut self,
        name: &str,
        from: usize,
        id: i64,
        columns: Vec<Column>,
        values: impl Fn(&Row, &mut crate::store::database::Database, u64) -> Vec<Value>,
    ) -> Step<usize> {
        self.database.lock(self.own, from, true)?;
        let view = self.database.names(self.own);
        let old = self.database.table(from)?.clone();
        let mut fresh = Table {
            checks: old.checks.clone(),
            foreign: old.foreign.clone(),
            identity: old.identity,
            columns,
            ..Table::default()
        };
        for index in &old.indexes {
            let names: Vec<String> =
                index.columns.iter().filter_map(|at| old.columns.get(*at)).map(|column| column.name.clone()).collect();
            let mut moved = Index::new(index.name.clone(), places(&fresh.columns, &names)?, index.unique);
            moved.descending.clone_from(&index.descending);
            (moved.primary, moved.constraint, moved.clustered) = (index.primary, index.constraint, index.clustered);
            fresh.indexes.push(moved);
        }
        let at = self.database.add_table(fresh);
        let object = self.database.object_by_id(view, id).cloned();
        let Some(object) = object else {
            return Err(SqlError::new(208, format!("Invalid object name '{name}'.")).into());
        };
        self.database.end_object(self.own, id)?;
        self.database.add_object(self.own, Some(id), &object.schema, &object.name, Body::Table(at))?;
        for (_, row) in old.seen(view) {
            let made = values(row, &mut *self.database, self.own);
            self.database.insert(self.own, at, name, Row::from(made))?;
        }
        Ok(at)
    }
}

fn places(columns: &[Column], names: &[String]) -> Result<Vec<usize>, SqlError> {
    names
        .iter()
        .map(|name| {
            columns.iter().position(|column| same_name(&column.name, name)).ok_or_else(|| {
                SqlError::new(1911, format!("Column name '{name}' does not exist in the target table or view."))
            })
        })
        .collect()
}

fn missing(name: &Name) -> Stop {
    Stop::Error(SqlError::new(
        3701,
        format!(
            "Cannot drop the object '{}', because it does not exist or you do not have permission.",
            name.join(".")
        ),
    ))
}
