//! Tables that live in this process under a name, shared by everyone who connects to that name: what a
//! database server is to a node, for simulation and tests. They outlive a node that is stopped and started
//! within the process, and promise what every connector promises; only durability beyond the process is absent.

mod destination;
mod source;
mod table;
#[cfg(test)]
mod tests;

pub use table::{OwnedValue, Row};

use crate::{
    BadRow, Connection, Connector, Destination, Landing, Published, SettingError, Settings, Source, TableSpec,
};
use posthouse_protocol::batch::Value;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::schema::Contract;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use table::Table;

pub struct Memory;

impl Connector for Memory {
    fn kind(&self) -> &'static str {
        "memory"
    }
    fn describe(&self) -> (&'static str, &'static str) {
        ("tables in this process, for simulation and tests", "本进程内的库表，供仿真与测试使用")
    }
    fn check(&self, settings: &Settings) -> Vec<SettingError> {
        crate::registry::check_texts(settings, &[("name", true)])
    }
    fn connect(&self, name: &str, settings: &Settings) -> Result<Box<dyn Connection>, Problem> {
        match settings.get("name").and_then(|name| name.as_str()) {
            Some(database) => Ok(Box::new(MemoryDatabase::named(database))),
            None => Err(Problem::new(Code::ConnectionFailed).with("connection", name).cause("it has no `name`")),
        }
    }
}

/// A database by its name; clones are the same database.
#[derive(Clone)]
pub struct MemoryDatabase {
    name: String,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    tables: BTreeMap<String, Table>,
    staging: BTreeMap<String, table::Staging>,
    published: BTreeMap<String, Published>,
    quarantine: Vec<BadRow>,
    /// Of each transfer, what its publishing refused.
    refused: BTreeMap<String, Vec<BadRow>>,
    split_rows: Option<u64>,
    lost: bool,
}

impl MemoryDatabase {
    /// The database of this name; it is made when first asked for.
    pub fn named(name: &str) -> Self {
        let mut databases = DATABASES.lock().unwrap_or_else(PoisonError::into_inner);
        let inner = databases.entry(name.to_owned()).or_default();
        Self { name: name.to_owned(), inner: inner.clone() }
    }
    /// Forgets the database of this name; those who hold it keep theirs.
    pub fn forget(name: &str) {
        DATABASES.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
    /// Makes a table, empty; one of the same name gives way.
    pub fn create(&self, table: &str, contract: Contract) {
        self.lock().tables.insert(table.to_owned(), Table::new(contract));
    }
    /// Inserts a row, or changes the one with its key. False where the table is missing or does not take it.
    pub fn put(&self, table: &str, row: Row) -> bool {
        self.lock().tables.get_mut(table).is_some_and(|table| table.put(row).is_ok())
    }
    /// Deletes rows for which `gone` says so; how many.
    pub fn delete(&self, table: &str, gone: impl Fn(&Row) -> bool) -> usize {
        self.lock().tables.get_mut(table).map_or(0, |table| table.delete(gone))
    }
    /// All rows of a table in the order they came; none where there is no such table.
    pub fn rows(&self, table: &str) -> Vec<Row> {
        self.lock().tables.get(table).map_or_else(Vec::new, |table| table.rows().map(|row| (**row).clone()).collect())
    }
    pub fn quarantine(&self) -> Vec<BadRow> {
        self.lock().quarantine.clone()
    }
    /// Rows of a split, for worlds too small for the usual number.
    pub fn set_split_rows(&self, rows: u64) {
        self.lock().split_rows = Some(rows.max(1));
    }
    /// While lost, every call fails as if the server were away.
    pub fn set_lost(&self, lost: bool) {
        self.lock().lost = lost;
    }
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn here(&self) -> Result<MutexGuard<'_, Inner>, Problem> {
        let inner = self.lock();
        if inner.lost {
            return Err(Problem::new(Code::ConnectionFailed).with("connection", &self.name).cause("it is away"));
        }
        Ok(inner)
    }
}

impl Connection for MemoryDatabase {
    fn probe(&mut self) -> Result<(), Problem> {
        self.here().map(drop)
    }
    fn source(&mut self, table: &TableSpec) -> Result<Box<dyn Source>, Problem> {
        Ok(Box::new(source::MemorySource::new(self.clone(), table)?))
    }
    fn destination(&mut self, landing: &Landing) -> Result<Box<dyn Destination>, Problem> {
        Ok(Box::new(destination::MemoryDestination::new(self.clone(), landing)?))
    }
}

impl From<Value<'_>> for OwnedValue {
    fn from(value: Value<'_>) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Boolean(value) => Self::Boolean(value),
            Value::Integer(value) => Self::Integer(value),
            Value::Decimal(unscaled, scale) => Self::Decimal(unscaled, scale),
            Value::Float(value) => Self::Float(value),
            Value::Text(value) => Self::Text(value.to_owned()),
            Value::Bytes(value) => Self::Bytes(value.to_vec()),
            Value::Date(value) => Self::Date(value),
            Value::Timestamp(value) => Self::Timestamp(value),
            Value::Number(value) => Self::Number(value.to_owned()),
        }
    }
}

static DATABASES: Mutex<BTreeMap<String, Arc<Mutex<Inner>>>> = Mutex::new(BTreeMap::new());
