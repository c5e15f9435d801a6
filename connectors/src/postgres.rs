//! Tables of PostgreSQL and what descends from it. Rows move by binary COPY, in both directions: between two
//! databases of the family as the server wrote them, elsewhere taken apart into Arrow's columns and put together
//! again. Reading holds one snapshot from `begin` to drop; landing goes through a staging table, with
//! `posthouse_applied` and `posthouse_quarantine` in the same database, so that what is landed and the record of
//! it are one commit. Where the server does not convert its texts, `charset` says what they are, and rows are taken apart.

mod batches;
mod catalog;
mod control;
mod ddl;
mod destination;
mod examine;
mod fields;
mod front;
mod keys;
mod mapping;
mod merge;
mod parts;
mod place;
mod position;
mod publish;
mod pushed;
mod replace;
mod settings;
mod sieve;
mod source;
mod splits;
mod staging;
mod standing;
#[cfg(test)]
mod test_server;
#[cfg(test)]
mod tests;
mod transcode;
mod wire;

#[cfg(test)]
pub(crate) use test_server::{binaries, test_socket};

use crate::examine::{Asked, Finding, Reading};
use crate::front::{FrontSpec, FrontTable};
use crate::{Connection, Connector, Destination, Landing, SettingError, Settings, Source, TableSpec};
use posthouse_protocol::format::Format;
use posthouse_protocol::problem::{Code, Problem};
use std::time::Duration;
use wire::{Client, WireError};

pub struct Postgres;

impl Connector for Postgres {
    fn kind(&self) -> &'static str {
        "postgres"
    }
    fn describe(&self) -> (&'static str, &'static str) {
        ("tables of PostgreSQL and its relatives", "PostgreSQL 及其同源数据库的库表")
    }
    fn check(&self, settings: &Settings) -> Vec<SettingError> {
        settings::Settings::parse(settings).err().unwrap_or_default()
    }
    fn connect(&self, name: &str, settings: &Settings) -> Result<Box<dyn Connection>, Problem> {
        let settings = parse(name, settings)?;
        Ok(Box::new(PgConnection { faults: Faults { name: name.to_owned() }, settings }))
    }
    fn mapping(&self) -> Option<crate::mapping::Mapping> {
        Some(mapping::mapping())
    }
    fn formats(&self) -> &'static [Format] {
        &[Format::PgCopy]
    }
    fn script(
        &self,
        name: &str,
        settings: &Settings,
        reads: &[TableSpec],
        landings: &[Landing],
    ) -> Result<Option<String>, Problem> {
        let settings = parse(name, settings)?;
        let places = landings.iter().map(|landing| place::Place::new(landing, settings.control_schema.as_deref()));
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
        let places = landings.iter().map(|landing| place::Place::new(landing, settings.control_schema.as_deref()));
        let places = places.collect::<Result<Vec<_>, _>>()?;
        let asked = Asked { reads, places: &places, now };
        examine::examine(&Faults { name: name.to_owned() }, &settings, &asked)
    }
}

/// Each source and destination logs in by itself, so that their transactions are their own.
struct PgConnection {
    faults: Faults,
    settings: settings::Settings,
}

impl Connection for PgConnection {
    fn probe(&mut self) -> Result<(), Problem> {
        let mut client = self.client()?;
        client.query("SELECT 1", &[]).map(|_| ()).map_err(|e| self.faults.connection(e))
    }
    fn source(&mut self, table: &TableSpec) -> Result<Box<dyn Source>, Problem> {
        let snapshot_max = Duration::from_millis(self.settings.snapshot_max.0);
        Ok(Box::new(source::PgSource::new(self.faults.clone(), self.client()?, table, snapshot_max)))
    }
    fn destination(&mut self, landing: &Landing) -> Result<Box<dyn Destination>, Problem> {
        Ok(Box::new(destination::PgDestination::new(self.faults.clone(), self.settings.clone(), landing)?))
    }
    fn front(&mut self, spec: &FrontSpec) -> Result<Box<dyn FrontTable>, Problem> {
        Ok(Box::new(front::PgFront::new(self.faults.clone(), self.settings.clone(), spec)?))
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

impl PgConnection {
    fn client(&self) -> Result<Client, Problem> {
        Client::connect(&self.settings).map_err(|e| self.faults.connection(e))
    }
}

/// What went wrong, as a problem: a lost server is told apart from refused data.
#[derive(Debug, Clone)]
struct Faults {
    name: String,
}

impl Faults {
    fn connection(&self, error: WireError) -> Problem {
        Problem::new(Code::ConnectionFailed).with("connection", &self.name).cause(error)
    }
    /// While reading a source.
    fn read(&self, resource: &str, error: WireError) -> Problem {
        match error.is_lost() {
            true => self.connection(error),
            false => Problem::new(Code::SourceFailed).with("resource", resource).cause(error),
        }
    }
    /// While landing.
    fn write(&self, table: &str, error: WireError) -> Problem {
        match error.sqlstate() {
            // disk_full
            Some("53100") => Problem::new(Code::DiskFull).with("path", &self.name).cause(error),
            _ if error.is_lost() => self.connection(error),
            _ => Problem::new(Code::DestinationFailed).with("target", table).cause(error),
        }
    }
}
