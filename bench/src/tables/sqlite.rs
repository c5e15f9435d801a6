//! The register as a file of SQLite: the types that people declare there, and in every row values of these types alone.

use super::content::base;
use super::table::Table;
use super::values::{Values, date_text, timestamp_text};
use rusqlite::types::Value;
use rusqlite::{Connection, Statement, params_from_iter};
use std::path::Path;

/// Makes the file, with the table's view.
pub fn fill(path: &Path, table: &Table, rows: u64) -> anyhow::Result<()> {
    let mut database = Connection::open(path)?;
    database.execute_batch(&create(table))?;
    let transaction = database.transaction()?;
    {
        let marks = vec!["?"; table.columns.len()].join(", ");
        let statement = transaction.prepare(&format!("INSERT INTO {} VALUES ({marks})", table.name))?;
        table.write_as(rows, &mut Bound { statement, values: Vec::new() })?;
    }
    transaction.commit()?;
    database.execute_batch(&format!("CREATE VIEW {} AS {}; ANALYZE", table.view(), select(table)))?;
    Ok(())
}

/// The table's values as COPY of PostgreSQL reads them in CSV.
pub fn select(table: &Table) -> String {
    let value = |(name, kind): &(&str, &str)| match base(kind) {
        // hex() makes an empty text of null.
        "bytea" => format!("CASE WHEN {name} IS NOT NULL THEN '\\x' || hex({name}) END AS {name}"),
        _ => (*name).to_owned(),
    };
    let values: Vec<String> = table.columns.iter().map(value).collect();
    format!("SELECT {} FROM {}", values.join(", "), table.name)
}

fn create(table: &Table) -> String {
    let column = |(name, kind): &(&str, &str)| {
        let own = match base(kind) {
            "bigint" => kind.replacen("bigint", "INTEGER", 1),
            "numeric" => kind.replacen("numeric", "DECIMAL", 1),
            "timestamptz" => kind.replacen("timestamptz", "TIMESTAMP", 1),
            "jsonb" => kind.replacen("jsonb", "JSON", 1),
            "bytea" => kind.replacen("bytea", "BLOB", 1),
            _ => (*kind).to_owned(),
        };
        format!("{name} {own}")
    };
    let mut lines: Vec<String> = table.columns.iter().map(column).collect();
    if !table.key.is_empty() {
        lines.push(format!("PRIMARY KEY ({})", table.key.join(", ")));
    }
    format!("CREATE TABLE {} ({})", table.name, lines.join(", "))
}

/// Binds each row's values and inserts them.
struct Bound<'c> {
    statement: Statement<'c>,
    values: Vec<Value>,
}

impl Values for Bound<'_> {
    fn begin(&mut self, _columns: i16) {
        self.values.clear();
    }

    fn end(&mut self) -> std::io::Result<()> {
        self.statement.execute(params_from_iter(&self.values)).map(|_| ()).map_err(std::io::Error::other)
    }

    fn null(&mut self) {
        self.values.push(Value::Null);
    }

    fn int2(&mut self, value: i16) {
        self.int8(value.into());
    }

    fn int4(&mut self, value: i32) {
        self.int8(value.into());
    }

    fn int8(&mut self, value: i64) {
        self.values.push(Value::Integer(value));
    }

    fn boolean(&mut self, value: bool) {
        self.int8(value.into());
    }

    fn date(&mut self, days: i32) {
        self.values.push(Value::Text(date_text(days)));
    }

    fn timestamp(&mut self, micros: i64) {
        self.values.push(Value::Text(timestamp_text(micros)));
    }

    fn text(&mut self, value: &str) {
        self.values.push(Value::Text(value.to_owned()));
    }

    fn bytea(&mut self, value: &[u8]) {
        self.values.push(Value::Blob(value.to_vec()));
    }

    fn jsonb(&mut self, value: &str) {
        self.text(value);
    }

    fn hundredths(&mut self, value: i64) {
        // A column of decimals keeps numbers: the double that is nearest to this one, which reads back as it.
        self.values.push(Value::Real(value as f64 / 100.0));
    }
}
