//! A table: its columns, its constraints, and every version of its rows.
//! A version has begun and may have ended, by a transaction that still runs or at a point in the order of commits;
//! what a reader sees follows from these two alone, so that no reader ever copies or waits.

use super::{Collation, Key, Row, SqlError, Stop, Type, Value, error::Step};
use std::collections::{BTreeMap, BTreeSet};

pub type Transaction = u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamp {
    Never,
    /// In the order of commits.
    Committed(u64),
    By(Transaction),
}

/// What a statement sees: all that was committed up to a point, and its own transaction's work.
#[derive(Clone, Copy, Debug)]
pub struct View {
    pub at: u64,
    pub own: Transaction,
}

impl View {
    fn reached(self, stamp: Stamp) -> bool {
        match stamp {
            Stamp::Never => false,
            Stamp::Committed(at) => at <= self.at,
            Stamp::By(transaction) => transaction == self.own,
        }
    }

    pub fn sees(self, begin: Stamp, end: Stamp) -> bool {
        self.reached(begin) && !self.reached(end)
    }
}

#[derive(Clone, Debug)]
pub struct Version {
    pub row: Row,
    pub begin: Stamp,
    pub end: Stamp,
}

#[derive(Clone, Debug)]
pub struct Column {
    pub name: String,
    pub ty: Type,
    pub nullable: bool,
    /// Seed and step.
    pub identity: Option<(i64, i64)>,
    /// Name of the constraint and text of the expression.
    pub default: Option<(String, String)>,
    /// Text of the expression, and whether it is stored.
    pub computed: Option<(String, bool)>,
}

#[derive(Clone, Debug)]
pub struct Index {
    pub name: String,
    pub columns: Vec<usize>,
    pub descending: Vec<bool>,
    pub included: Vec<usize>,
    pub unique: bool,
    pub primary: bool,
    /// Made by a constraint, and not by CREATE INDEX.
    pub constraint: bool,
    pub clustered: bool,
    entries: BTreeMap<Vec<Key>, Vec<usize>>,
}

impl Index {
    pub fn new(name: String, columns: Vec<usize>, unique: bool) -> Self {
        let descending = vec![false; columns.len()];
        Index {
            name,
            columns,
            descending,
            included: Vec::new(),
            unique,
            primary: false,
            constraint: false,
            clustered: false,
            entries: BTreeMap::new(),
        }
    }

    pub fn slots(&self, key: &[Key]) -> &[usize] {
        self.entries.get(key).map_or(&[], Vec::as_slice)
    }
}

#[derive(Clone, Debug)]
pub struct ForeignKey {
    pub name: String,
    pub columns: Vec<usize>,
    /// Object of the table that is referred to, and its columns.
    pub parent: i64,
    pub parent_columns: Vec<usize>,
    /// Rows go with the row that they refer to.
    pub cascade: bool,
}

#[derive(Clone, Debug)]
pub struct Check {
    pub name: String,
    pub text: String,
}

#[derive(Clone, Debug, Default)]
pub struct Table {
    pub columns: Vec<Column>,
    pub indexes: Vec<Index>,
    pub checks: Vec<Check>,
    pub foreign: Vec<ForeignKey>,
    pub versions: Vec<Version>,
    /// The identity that was given last.
    pub identity: Option<i64>,
    pub writers: BTreeSet<Transaction>,
    pub shared: BTreeSet<Transaction>,
    pub exclusive: Option<Transaction>,
}

impl Table {
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| same_name(&column.name, name))
    }

    /// Rows that a view sees, with their slots.
    pub fn seen(&self, view: View) -> impl Iterator<Item = (usize, &Row)> {
        self.versions
            .iter()
            .enumerate()
            .filter(move |(_, version)| view.sees(version.begin, version.end))
            .map(|(slot, version)| (slot, &version.row))
    }

    /// Another transaction that keeps this one from writing.
    pub fn may_write(&self, own: Transaction) -> Step<()> {
        if let Some(other) = self.exclusive.filter(|other| *other != own) {
            return Err(Stop::Wait(other));
        }
        match self.shared.iter().find(|other| **other != own) {
            Some(other) => Err(Stop::Wait(*other)),
            None => Ok(()),
        }
    }

    pub fn may_hold(&self, own: Transaction, alone: bool) -> Step<()> {
        let others = self.exclusive.iter().chain(&self.writers);
        let readers = self.shared.iter().filter(|_| alone);
        match others.chain(readers).find(|other| **other != own) {
            Some(other) => Err(Stop::Wait(*other)),
            None => Ok(()),
        }
    }

    /// Adds a version; `name` is the table's, for the words of a violation.
    pub fn insert(&mut self, name: &str, row: Row, own: Transaction) -> Step<usize> {
        for (column, value) in self.columns.iter().zip(row.iter()) {
            if value.is_null() && !column.nullable {
                return Err(Stop::Error(SqlError::new(
                    515,
                    format!(
                        "Cannot insert the value NULL into column '{}', table '{name}'; column does not allow nulls. INSERT fails.",
                        column.name
                    ),
                )));
            }
        }
        let slot = self.versions.len();
        let mut keys = Vec::with_capacity(self.indexes.len());
        for index in &self.indexes {
            let key = key_of(&self.columns, &index.columns, &row);
            if index.unique {
                self.free(index, &key, name, &row, own)?;
            }
            keys.push(key);
        }
        for (index, key) in self.indexes.iter_mut().zip(keys) {
            index.entries.entry(key).or_default().push(slot);
        }
        self.versions.push(Version { row, begin: Stamp::By(own), end: Stamp::Never });
        Ok(slot)
    }

    fn free(&self, index: &Index, key: &[Key], name: &str, row: &[Value], own: Transaction) -> Step<()> {
        for version in index.slots(key).iter().filter_map(|slot| self.versions.get(*slot)) {
            match (version.begin, version.end) {
                (Stamp::Never, _) | (_, Stamp::Committed(_)) => {}
                (Stamp::By(other), _) if other != own => return Err(Stop::Wait(other)),
                (_, Stamp::By(other)) if other != own => return Err(Stop::Wait(other)),
                (_, Stamp::By(_)) => {}
                (_, Stamp::Never) => return Err(Stop::Error(self.duplicate(index, name, row))),
            }
        }
        Ok(())
    }

    fn duplicate(&self, index: &Index, name: &str, row: &[Value]) -> SqlError {
        let shown: Vec<String> = index
            .columns
            .iter()
            .filter_map(|at| Some((row.get(*at)?, self.columns.get(*at)?)))
            .map(|(value, column)| match value {
                Value::Null => "<NULL>".to_owned(),
                value => super::convert::show(value, column.ty, None),
            })
            .collect();
        let shown = shown.join(", ");
        if index.constraint {
            let kind = if index.primary { "PRIMARY KEY" } else { "UNIQUE KEY" };
            SqlError::new(
                2627,
                format!(
                    "Violation of {kind} constraint '{}'. Cannot insert duplicate key in object '{name}'. The duplicate key value is ({shown}).",
                    index.name
                ),
            )
        } else {
            SqlError::new(
                2601,
                format!(
                    "Cannot insert duplicate key row in object '{name}' with unique index '{}'. The duplicate key value is ({shown}).",
                    index.name
                ),
            )
        }
    }

    /// Ends a version; a transaction of a snapshot may not end what was ended after it.
    pub fn end(&mut self, slot: usize, own: Transaction) -> Step<bool> {
        let Some(version) = self.versions.get_mut(slot) else { return Ok(false) };
        match version.end {
            Stamp::Never => {
                version.end = Stamp::By(own);
                Ok(true)
            }
            Stamp::By(other) if other != own => Err(Stop::Wait(other)),
            Stamp::By(_) => Ok(false),
            Stamp::Committed(_) => Err(Stop::Error(SqlError::new(
                3960,
                "Snapshot isolation transaction aborted due to update conflict. You cannot use snapshot isolation to access this table; retry the transaction.",
            ))),
        }
    }

    /// Puts an index over what is there.
    pub fn build(&mut self, mut index: Index, name: &str, view: View) -> Result<(), SqlError> {
        for (slot, version) in self.versions.iter().enumerate() {
            let key = key_of(&self.columns, &index.columns, &version.row);
            let live = view.sees(version.begin, version.end);
            if live
                && index.unique
                && index
                    .slots(&key)
                    .iter()
                    .filter_map(|slot| self.versions.get(*slot))
                    .any(|other| view.sees(other.begin, other.end))
            {
                let mut error = self.duplicate(&index, name, &version.row);
                error.number = 1505;
                return Err(error);
            }
            index.entries.entry(key).or_default().push(slot);
        }
        self.indexes.push(index);
        Ok(())
    }

    /// Leaves no row at all.
    pub fn clear(&mut self) {
        self.versions = Vec::new();
        for index in &mut self.indexes {
            index.entries.clear();
        }
    }

    /// Leaves only what is committed and stands; to be called when no transaction runs.
    pub fn compact(&mut self) {
        let standing = |version: &Version| matches!((version.begin, version.end), (Stamp::Committed(_), Stamp::Never));
        let dead = self.versions.iter().filter(|version| !standing(version)).count();
        if dead < 1_000 || dead * 2 < self.versions.len() {
            return;
        }
        self.versions.retain(standing);
        for index in &mut self.indexes {
            index.entries.clear();
            for (slot, version) in self.versions.iter().enumerate() {
                let key = key_of(&self.columns, &index.columns, &version.row);
                index.entries.entry(key).or_default().push(slot);
            }
        }
    }
}

pub fn key_of(columns: &[Column], at: &[usize], row: &[Value]) -> Vec<Key> {
    at.iter()
        .map(|at| match (row.get(*at), columns.get(*at)) {
            (Some(value), Some(column)) => value.key(column.ty.collation),
            _ => Key::Null,
        })
        .collect()
}

/// Names are compared as the usual collation compares.
pub fn same_name(a: &str, b: &str) -> bool {
    a == b || Collation::usual().fold(a) == Collation::usual().fold(b)
}
