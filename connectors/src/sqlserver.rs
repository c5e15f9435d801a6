//! Tables of SQL Server, by tiberius. Reading: one transaction from `begin` to drop, at SNAPSHOT isolation where the
//! database allows it and under a shared lock on the table where it does not; every text leaves the server as its
//! bytes, so that what is no character is a bad row with them and nothing is replaced on the way. Landing: rows are
//! loaded in bulk into a staging table whose columns are like the target's, with `posthouse_applied` and
//! `posthouse_quarantine` in the same database, so that what is landed and the record of it are one commit; what a
//! column cannot keep exactly is a bad row before it is sent. Counts are the server's, within that transaction.
//! Deliberately absent: change tracking and CDC, MERGE, and everything that servers before 2012 lack.

mod calendar;
mod catalog;
mod client;
mod codepage;
mod control;
mod ddl;
mod destination;
mod examine;
mod front;
mod kind;
mod mapping;
mod name;
mod place;
mod publish;
mod pushed;
mod reading;
mod settings;
mod sieve;
mod source;
mod splits;
mod staging;
#[cfg(test)]
mod tests;
mod writing;

use crate::examine::{Asked, Finding, Reading};
use crate::front::{FrontSpec, FrontTable};
use crate::{Connection, Connector, Destination, Landing, SettingError, Settings, Source, TableSpec};
use client::{Client, SqlError};
use posthouse_protocol::problem::{Code, Problem};

pub struct SqlServer;

impl Connector for SqlServer {
    fn kind(&self) -> &'static str {
        "sqlserver"
    }
    fn describe(&self) -> (&'static str, &'static str) {
        ("tables of SQL Server", "SQL Server 的库表")
    }
    fn check(&self, settings: &Settings) -> Vec<SettingError> {
        settings::Settings::parse(settings).err().unwrap_or_default()
    }
    fn mapping(&self) -> Option<crate::mapping::Mapping> {
        Some(mapping::mapping())
    }
    fn connect(&self, name: &str, settings: &Settings) -> Result<Box<dyn Connection>, Problem> {
        let settings = parse(name, settings)?;
        settings.tell_what_is_open(name);
        Ok(Box::new(SqlServerConnection { faults: Faults { name: name.to_owned() }, settings }))
    }
    fn script(
        &self,
        name: &str,
        settings: &Settings,
        reads: &[TableSpec],
        landings: &[Landing],
    ) -> Result<Option<String>, Problem> {
        let settings = parse(name, settings)?;
        let places = landings.iter().map(|landing| place::Place::new(landing, &settings));
        let places = places.collect::<Result<Vec<_>, _>>()?;
        ddl::script(&settings.user, reads, &places).map(Some)
    }
    fn front_grants(&self, name: &str, settings: &Settings, front: &FrontSpec) -> Result<Vec<String>, Problem> {
        front::grants(&parse(name, settings)?.user, front)
    }
    fn examine(
        &self,
        name: &str,
        settings: &Settings,
        reads: &[Reading],
        landings: &[Landing],
        now: &dyn Fn() -> i64,
    ) -> Result<Vec<Finding>, Problem> {
        let settings = parse(name, settings)?;
        let places = landings.iter().map(|landing| place::Place::new(landing, &settings));
        let places = places.collect::<Result<Vec<_>, _>>()?;
        let asked = Asked { reads, places: &places, now };
        examine::examine(&Faults { name: name.to_owned() }, &settings, &asked)
    }
}

/// Each source and destination logs in by itself, so that their transactions are their own.
struct SqlServerConnection {
    faults: Faults,
    settings: settings::Settings,
}

impl Connection for SqlServerConnection {
    fn probe(&mut self) -> Result<(), Problem> {
        let mut client = Client::connect(&self.settings).map_err(|e| self.faults.connection(e))?;
        client.query("SELECT 1", &[]).map(drop).map_err(|e| self.faults.connection(e))
    }
    fn source(&mut self, table: &TableSpec) -> Result<Box<dyn Source>, Problem> {
        Ok(Box::new(source::SqlSource::new(self.faults.clone(), self.settings.clone(), table)?))
    }
    fn destination(&mut self, landing: &Landing) -> Result<Box<dyn Destination>, Problem> {
        Ok(Box::new(destination::SqlDestination::new(self.faults.clone(), self.settings.clone(), landing)?))
    }
    fn front(&mut self, spec: &FrontSpec) -> Result<Box<dyn FrontTable>, Problem> {
        Ok(Box::new(front::SqlFront::new(self.faults.clone(), self.settings.clone(), spec)?))
    }
    fn line(&self) -> Option<&'static str> {
        self.settings.line()
    }
}

fn parse(name: &str, settings: &Settings) -> Result<settings::Settings, Problem> {
    settings::Settings::parse(settings).map_err(|errors| {
        let what = errors.iter().map(|error| format!("`{}`: {}", error.key, error.what)).collect::<Vec<_>>();
        Problem::new(Code::ConnectionFailed).with("connection", name).cause(what.join("; "))
    })
}

/// What went wrong, as a problem: a lost server is told apart from refused data.
#[derive(Debug, Clone)]
struct Faults {
    name: String,
}

impl Faults {
    fn connection(&self, error: SqlError) -> Problem {
        Problem::new(Code::ConnectionFailed).with("connection", &self.name).cause(error)
    }
    /// While reading a source.
    fn read(&self, resource: &str, error: SqlError) -> Problem {
        match error.is_lost() {
            true => self.connection(error),
            false => Problem::new(Code::SourceFailed).with("resource", resource).cause(error),
        }
    }
    /// While landing.
    fn write(&self, table: &str, error: SqlError) -> Problem {
        match error.code() {
            // The data file or the log is full.
            Some(1_105 | 9_002) => Problem::new(Code::DiskFull).with("path", &self.name).cause(error),
            _ if error.is_lost() => self.connection(error),
            _ => Problem::new(Code::DestinationFailed).with("target", table).cause(error),
        }
    }
}
