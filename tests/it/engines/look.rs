//! What a database itself shows of a table: each value by an expression of its own SQL, brought to one text for what it
//! means, each row as a line, the lines sorted. None where there is no such table.

use super::{Place, file};
use crate::support::mariadb::MariaDb;
use crate::support::postgres::Postgres;
use posthouse_test_tds::Server;
use rusqlite::types::ValueRef;
use serde_json::Value;
use std::path::Path;

/// What a column's values mean, in whatever form a database keeps them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Means {
    Boolean,
    /// A number of which each digit counts.
    Exact,
    Float,
    Text,
    /// Blanks at the end are nothing.
    Char,
    Bytes,
    Date,
    Time,
    Json,
}

/// A column that is looked at.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    pub(super) name: String,
    pub(super) means: Means,
    /// The expression that shows it, with `{}` for its name, where the usual one does not.
    pub(super) by: Option<&'static str>,
}

impl Shown {
    pub(super) fn new(name: &str, means: Means) -> Self {
        Self { name: name.to_owned(), means, by: None }
    }
}

/// The rows of a table in any order.
pub(super) fn rows(place: &Place, table: &str, columns: &[Shown]) -> Option<Vec<String>> {
    let named = place.named(table);
    let of: Vec<String> = columns.iter().map(|column| expression(place, column)).collect();
    let shown = match place {
        Place::Postgres(server) => in_postgres(server, &named, &of)?,
        Place::MariaDb(server) => in_mariadb(server, table, &named, &of)?,
        Place::Sqlite(folder) => in_sqlite(&file(folder), table, &named, &of, columns)?,
        Place::SqlServer(server) => in_sqlserver(server, table, &named, &of, columns)?,
    };
    let line = |values: Vec<String>| -> String {
        assert_eq!(values.len(), columns.len(), "{values:?}");
        let values = columns.iter().zip(values).map(|(column, value)| canonical(column.means, &value));
        values.collect::<Vec<_>>().join("|")
    };
    let mut lines: Vec<String> = shown.into_iter().map(line).collect();
    lines.sort_unstable();
    Some(lines)
}

fn in_postgres(server: &Postgres, named: &str, of: &[String]) -> Option<Vec<Vec<String>>> {
    let ask = |sql: &str| {
        let out = server.psql(&format!("{SESSION_OF_POSTGRES}{sql};\n"));
        String::from_utf8(out).expect("psql writes UTF-8")
    };
    let is_there = ask(&format!("SELECT to_regclass('{}') IS NOT NULL", named.replace('\'', "''")));
    let values = || ask(&format!("SELECT concat_ws('|', {}) FROM {named}", of.join(", ")));
    (is_there.trim() == "t").then(|| values().lines().map(split).collect())
}

fn in_mariadb(server: &MariaDb, table: &str, named: &str, of: &[String]) -> Option<Vec<Vec<String>>> {
    let ask = |sql: &str| {
        let out = server.sql(&format!("{SESSION_OF_MARIADB}{sql};\n"));
        String::from_utf8(out).expect("mariadb writes UTF-8")
    };
    let is_there = ask(&format!(
        "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'work' AND HEX(TABLE_NAME) = '{}'",
        hex::encode_upper(table)
    ));
    let values = || ask(&format!("SELECT CONCAT_WS('|', {}) FROM {named}", of.join(", ")));
    (is_there.trim() == "1").then(|| values().lines().map(split).collect())
}

fn in_sqlite(file: &Path, table: &str, named: &str, of: &[String], columns: &[Shown]) -> Option<Vec<Vec<String>>> {
    let database = rusqlite::Connection::open(file).expect("the database opens");
    let there = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?1";
    let there: i64 = database.query_row(there, [table], |row| row.get(0)).expect("a count");
    if there == 0 {
        return None;
    }
    let mut statement = database.prepare(&format!("SELECT {} FROM {named}", of.join(", "))).expect("a query");
    let mut found = statement.query([]).expect("rows");
    let mut rows = Vec::new();
    while let Some(row) = found.next().expect("each row") {
        let value = |(index, column): (usize, &Shown)| stored(row.get_ref(index).expect("a value"), column.means);
        rows.push(columns.iter().enumerate().map(value).collect());
    }
    Some(rows)
}

/// A value of SQLite's, which is whatever was put there.
fn stored(value: ValueRef<'_>, means: Means) -> String {
    match (value, means) {
        (ValueRef::Null, _) => ABSENT.to_owned(),
        (ValueRef::Integer(value), _) => value.to_string(),
        (ValueRef::Real(value), _) => value.to_string(),
        (ValueRef::Blob(bytes), _) | (ValueRef::Text(bytes), Means::Text | Means::Char | Means::Json) => {
            hex::encode(bytes)
        }
        (ValueRef::Text(bytes), _) => String::from_utf8_lossy(bytes).into_owned(),
    }
}

fn in_sqlserver(
    server: &Server,
    table: &str,
    named: &str,
    of: &[String],
    columns: &[Shown],
) -> Option<Vec<Vec<String>>> {
    if !server.tables().contains_key(&format!("dbo.{table}")) {
        return None;
    }
    let sql = format!("SELECT {} FROM {named} AS t", of.join(", "));
    let mut tables = server.batch(&sql).unwrap_or_else(|error| panic!("{error}: {sql}"));
    let found = tables.pop().expect("a result");
    let value = |(value, column): (Option<String>, &Shown)| match (value, column.means) {
        (None, _) => ABSENT.to_owned(),
        (Some(text), Means::Text | Means::Char | Means::Json) => hex::encode(text),
        (Some(bytes), Means::Bytes) => bytes.trim_start_matches("0x").to_owned(),
        (Some(text), _) => text,
    };
    Some(found.rows.into_iter().map(|row| row.into_iter().zip(columns).map(value).collect()).collect())
}

/// Values of one line; none of them has a bar in it, for texts are written in hexadecimal digits.
fn split(line: &str) -> Vec<String> {
    line.split('|').map(str::to_owned).collect()
}

/// What shows a column's value as a text, or as itself where no text stands between.
fn expression(place: &Place, column: &Shown) -> String {
    let name = place.quote(&column.name);
    let usual = match place {
        Place::Postgres(_) => match column.means {
            Means::Boolean => "({})::int::text",
            Means::Float => "({})::float8::text",
            Means::Exact | Means::Date | Means::Time => "({})::text",
            Means::Text | Means::Char | Means::Json => "encode(convert_to(({})::text, 'UTF8'), 'hex')",
            Means::Bytes => "encode({}, 'hex')",
        },
        Place::MariaDb(_) => match column.means {
            Means::Boolean => "CAST({} + 0 AS CHAR)",
            Means::Float => "CAST({} AS DOUBLE)",
            Means::Exact | Means::Date | Means::Time => "CAST({} AS CHAR)",
            Means::Text | Means::Char | Means::Json => "HEX(CAST({} AS CHAR CHARACTER SET utf8mb4))",
            Means::Bytes => "HEX({})",
        },
        Place::Sqlite(_) => "{}",
        Place::SqlServer(_) => "t.{}",
    };
    let shown = column.by.unwrap_or(usual).replace("{}", &name);
    match place {
        Place::Postgres(_) => format!("coalesce({shown}, '{ABSENT}')"),
        Place::MariaDb(_) => format!("IFNULL({shown}, '{ABSENT}')"),
        Place::Sqlite(_) | Place::SqlServer(_) => shown,
    }
}

/// One text for all texts that mean the same.
fn canonical(means: Means, shown: &str) -> String {
    if shown == ABSENT {
        return ABSENT.to_owned();
    }
    match means {
        Means::Boolean | Means::Exact => exact(shown),
        Means::Float => match shown.parse::<f64>() {
            Ok(0.0) => "0".to_owned(),
            Ok(number) if number.is_nan() => "NaN".to_owned(),
            Ok(number) => format!("{:016x}", number.to_bits()),
            Err(_) => shown.to_owned(),
        },
        Means::Text | Means::Bytes => shown.to_ascii_lowercase(),
        Means::Char => hex::decode(shown).map_or_else(|_| shown.to_owned(), |bytes| hex::encode(unpadded(&bytes))),
        Means::Date => shown.to_owned(),
        Means::Time => match shown.split_once('.') {
            Some((clock, part)) => match part.trim_end_matches('0') {
                "" => clock.to_owned(),
                part => format!("{clock}.{part}"),
            },
            None => shown.to_owned(),
        },
        Means::Json => {
            let parsed = hex::decode(shown).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
            parsed.map_or_else(|| shown.to_ascii_lowercase(), |value| hex::encode(json(&value)))
        }
    }
}

/// Without zeros that say nothing.
fn exact(shown: &str) -> String {
    let (sign, digits) = match shown.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", shown),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    if !whole.bytes().chain(part.bytes()).all(|byte| byte.is_ascii_digit()) {
        return shown.to_owned();
    }
    match (whole.trim_start_matches('0'), part.trim_end_matches('0')) {
        ("", "") => "0".to_owned(),
        ("", part) => format!("{sign}0.{part}"),
        (whole, "") => format!("{sign}{whole}"),
        (whole, part) => format!("{sign}{whole}.{part}"),
    }
}

/// Members in order, numbers without zeros that say nothing.
fn json(value: &Value) -> String {
    match value {
        Value::Number(number) => exact(&number.to_string()),
        Value::Array(items) => format!("[{}]", items.iter().map(json).collect::<Vec<_>>().join(",")),
        Value::Object(members) => {
            let mut members: Vec<(&String, &Value)> = members.iter().collect();
            members.sort_by(|one, other| one.0.cmp(other.0));
            let member = |(name, value): (&String, &Value)| format!("{}:{}", Value::from(name.as_str()), json(value));
            format!("{{{}}}", members.into_iter().map(member).collect::<Vec<_>>().join(","))
        }
        other => other.to_string(),
    }
}

fn unpadded(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1);
    &bytes[..end]
}

/// Stands for NULL.
const ABSENT: &str = "-";
/// Whatever the server's own settings are.
pub(super) const SESSION_OF_POSTGRES: &str = "SET client_encoding = 'UTF8'; SET TimeZone = 'UTC';
SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'; SET extra_float_digits = 1; SET bytea_output = 'hex';
SET client_min_messages = 'error';
";
pub(super) const SESSION_OF_MARIADB: &str = "SET NAMES utf8mb4; SET time_zone = '+00:00'; SET sql_mode = '';
";
