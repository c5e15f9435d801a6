//! Tables in SQLite files. Reading: one read transaction from `begin` to drop, declared types decide what a
//! column is, and a value that is not what its column declares goes to quarantine with its original bytes. Texts are
//! UTF-8, unless `charset` says what the program that wrote them took for text.
//! Landing: staging table, `posthouse_applied` and `posthouse_quarantine` live in the target's own file, so
//! that a split and its applied row, and the published rows and the transfer's id, are one commit each.
//! Commits are durable (`synchronous = FULL`); the file's journal mode is left as its owner set it.

mod columns;
mod destination;
mod examine;
mod front;
mod mapping;
mod publish;
mod source;
mod splits;
mod staging;
#[cfg(test)]
mod tests;
mod values;

use crate::charset::Charset;
use crate::examine::{Finding, Reading};
use crate::front::{FrontSpec, FrontTable};
use crate::{Connection, Connector, Destination, Landing, SettingError, Settings, Source, TableSpec};
use posthouse_protocol::problem::{Code, Problem};
use rusqlite::{ErrorCode, OpenFlags};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub struct Sqlite;

impl Connector for Sqlite {
    fn kind(&self) -> &'static str {
        "sqlite"
    }
    fn describe(&self) -> (&'static str, &'static str) {
        ("tables in a SQLite file", "SQLite 文件中的库表")
    }
    fn check(&self, settings: &Settings) -> Vec<SettingError> {
        let mut errors = crate::registry::check_texts(settings, &[("path", true), ("charset", false)]);
        if let Some(Err(what)) = settings.get("charset").and_then(|text| text.as_str()).map(Charset::parse)
            && !errors.iter().any(|error| error.key == "charset")
        {
            errors.push(SettingError { key: "charset".to_owned(), what, nearest: None });
        }
        errors
    }
    fn mapping(&self) -> Option<crate::mapping::Mapping> {
        Some(mapping::mapping())
    }
    fn connect(&self, name: &str, settings: &Settings) -> Result<Box<dyn Connection>, Problem> {
        let failed = |cause: &str| Problem::new(Code::ConnectionFailed).with("connection", name).cause(cause);
        let charset = match settings.get("charset").and_then(|charset| charset.as_str()) {
            Some(charset) => Charset::parse(charset).map_err(|e| failed(&format!("`charset`: {e}")))?,
            None => Charset::default(),
        };
        match settings.get("path").and_then(|path| path.as_str()) {
            Some(path) if !path.is_empty() => {
                Ok(Box::new(SqliteConnection { name: name.to_owned(), path: PathBuf::from(path), charset }))
            }
            _ => Err(failed("it has no `path`")),
        }
    }
    fn examine(
        &self,
        name: &str,
        settings: &Settings,
        reads: &[Reading],
        landings: &[Landing],
        _now: &dyn Fn() -> i64,
    ) -> Result<Vec<Finding>, Problem> {
        let text = |key: &str| settings.get(key).and_then(|value| value.as_str());
        let faults = Faults { name: name.to_owned(), path: PathBuf::from(text("path").unwrap_or_default()) };
        let charset = text("charset").and_then(|charset| Charset::parse(charset).ok()).unwrap_or_default();
        examine::examine(&faults, charset, reads, !landings.is_empty())
    }
}

/// A file; each source and destination opens it for itself, so that their transactions are their own.
struct SqliteConnection {
    name: String,
    path: PathBuf,
    charset: Charset,
}

impl Connection for SqliteConnection {
    fn probe(&mut self) -> Result<(), Problem> {
        let faults = Faults { name: self.name.clone(), path: self.path.clone() };
        let connection = open(&faults, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).map_err(|e| faults.read(e))
    }
    fn source(&mut self, table: &TableSpec) -> Result<Box<dyn Source>, Problem> {
        let faults = Faults { name: self.name.clone(), path: self.path.clone() };
        Ok(Box::new(source::SqliteSource::new(faults, table, self.charset)?))
    }
    fn destination(&mut self, landing: &Landing) -> Result<Box<dyn Destination>, Problem> {
        let faults = Faults { name: self.name.clone(), path: self.path.clone() };
        Ok(Box::new(destination::SqliteDestination::new(faults, landing, self.charset)?))
    }
    fn front(&mut self, spec: &FrontSpec) -> Result<Box<dyn FrontTable>, Problem> {
        let faults = Faults { name: self.name.clone(), path: self.path.clone() };
        Ok(Box::new(front::SqliteFront::new(faults, spec, self.charset)?))
    }
}

fn open(faults: &Faults, flags: OpenFlags) -> Result<rusqlite::Connection, Problem> {
    // No URI names: a path from the configuration is a path.
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = rusqlite::Connection::open_with_flags(&faults.path, flags).map_err(|e| faults.connection(&e))?;
    connection.busy_timeout(BUSY).map_err(|e| faults.connection(&e))?;
    Ok(connection)
}

/// What went wrong, as a problem: a lost or locked file is told apart from refused data.
#[derive(Debug, Clone)]
struct Faults {
    name: String,
    path: PathBuf,
}

impl Faults {
    /// While reading a source.
    fn read(&self, error: rusqlite::Error) -> Problem {
        if is_lost(&error) {
            return self.connection(&error);
        }
        Problem::new(Code::SourceFailed).with("resource", &self.name).cause(error)
    }
    /// While landing.
    fn write(&self, table: &str, error: &rusqlite::Error) -> Problem {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => {
                Problem::new(Code::DiskFull).with("path", Path::display(&self.path)).cause(error)
            }
            _ if is_lost(error) => self.connection(error),
            _ => Problem::new(Code::DestinationFailed).with("target", table).cause(error),
        }
    }
    fn connection(&self, error: &rusqlite::Error) -> Problem {
        Problem::new(Code::ConnectionFailed)
            .with("connection", &self.name)
            .with("path", Path::display(&self.path))
            .cause(error)
    }
}

fn is_lost(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::ReadOnly
                | ErrorCode::PermissionDenied
                | ErrorCode::FileLockingProtocolFailed
                | ErrorCode::OutOfMemory
        )
    )
}

/// A name as SQL text.
fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The number that a statement of one row and column counts.
fn count(connection: &rusqlite::Connection, sql: &str) -> rusqlite::Result<u64> {
    let count: i64 = connection.query_row(sql, [], |row| row.get(0))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Names as a list of SQL.
fn quoted<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(quote).collect::<Vec<_>>().join(", ")
}

/// Another program may hold the file's lock for its own transaction.
const BUSY: Duration = Duration::from_secs(30);
