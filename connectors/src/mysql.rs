//! Tables of MySQL, MariaDB and relatives that speak their protocol. Reading holds one snapshot from `begin` to drop, and
//! rows come in the binary protocol, split by ranges of the primary key. Landing goes through a staging table, which is
//! loaded from memory by LOAD DATA, with `posthouse_applied` and `posthouse_quarantine` beside it; rows are published by
//! one RENAME TABLE or in one transaction. Deliberately absent: SQL text from a peer, and trust in what a server does to
//! a value without an error.

mod alike;
mod catalog;
mod client;
mod control;
mod ddl;
mod decode;
mod destination;
mod doubles;
mod encode;
mod examine;
mod fail;
mod fields;
mod front;
mod grants;
mod mapping;
mod place;
mod publish;
mod refusals;
mod rows;
mod settings;
mod sieve;
mod source;
mod splits;
mod staging;
mod swap;
mod sweep;
#[cfg(test)]
mod test_server;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use test_server::test_url;

use crate::examine::{Asked, Finding, Reading};
use crate::front::{FrontSpec, FrontTable};
use crate::{Connection, Connector, Destination, Landing, SettingError, Settings, Source, TableSpec};
use client::Client;
use fail::Fail;
use posthouse_protocol::problem::{Code, Problem};
use std::time::Duration;

pub struct Mysql;

impl Connector for Mysql {
    fn kind(&self) -> &'static str {
        "mysql"
    }
    fn describe(&self) -> (&'static str, &'static str) {
        ("tables of MySQL, MariaDB and relatives", "MySQL、MariaDB 及同协议数据库的库表")
    }
    fn check(&self, settings: &Settings) -> Vec<SettingError> {
        settings::Settings::parse(settings).err().unwrap_or_default()
    }
    fn mapping(&self) -> Option<crate::mapping::Mapping> {
        Some(mapping::mapping())
    }
    fn connect(&self, name: &str, settings: &Settings) -> Result<Box<dyn Connection>, Problem> {
        let settings = parse(name, settings)?;
        Ok(Box::new(MyConnection { faults: Faults { name: name.to_owned() }, settings }))
    }
    fn script(
        &self,
        name: &str,
        settings: &Settings,
        reads: &[TableSpec],
        landings: &[Landing],
    ) -> Result<Option<String>, Problem> {
        let settings = parse(name, settings)?;
        let control = settings.control_schema.as_deref();
        let places = landings.iter().map(|landing| place::Place::new(landing, &settings.database, control));
        let places = places.collect::<Result<Vec<_>, _>>()?;
        ddl::script(&examine::grantee(&settings), &settings.database, reads, &places).map(Some)
    }
    fn front_grants(&self, name: &str, settings: &Settings, front: &FrontSpec) -> Result<Vec<String>, Problem> {
        let settings = parse(name, settings)?;
        front::grants(&examine::grantee(&settings), &settings.database, front)
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
        let control = settings.control_schema.as_deref();
        let places = landings.iter().map(|landing| place::Place::new(landing, &settings.database, control));
        let places = places.collect::<Result<Vec<_>, _>>()?;
        let asked = Asked { reads, places: &places, now };
        examine::examine(&Faults { name: name.to_owned() }, &settings, &asked)
    }
}

/// Each source and destination logs in by itself, so that their transactions are their own.
struct MyConnection {
    faults: Faults,
    settings: settings::Settings,
}

impl Connection for MyConnection {
    fn probe(&mut self) -> Result<(), Problem> {
        let client = Client::connect(&self.settings);
        let asked = client.and_then(|mut client| client.run("SELECT 1"));
        asked.map(|_| ()).map_err(|fail| self.faults.connection(fail))
    }
    fn source(&mut self, table: &TableSpec) -> Result<Box<dyn Source>, Problem> {
        let client = Client::connect(&self.settings).map_err(|fail| self.faults.connection(fail))?;
        let snapshot_max = Duration::from_millis(self.settings.snapshot_max.0);
        let faults = self.faults.clone();
        let source = source::MySource::new(faults, client, &self.settings.database, table, snapshot_max);
        Ok(Box::new(source.coded(self.settings.charset)))
    }
    fn destination(&mut self, landing: &Landing) -> Result<Box<dyn Destination>, Problem> {
        Ok(Box::new(destination::MyDestination::new(self.faults.clone(), self.settings.clone(), landing)?))
    }
    fn front(&mut self, spec: &FrontSpec) -> Result<Box<dyn FrontTable>, Problem> {
        Ok(Box::new(front::MyFront::new(self.faults.clone(), self.settings.clone(), spec)?))
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
    fn connection(&self, fail: Fail) -> Problem {
        let problem = Problem::new(Code::ConnectionFailed).with("connection", &self.name);
        match fail {
            Fail::Problem(problem) => problem,
            Fail::Lost(why) => problem.cause(why),
            Fail::Server(error) => problem.cause(fail::text(&error)),
        }
    }
    /// While reading a source.
    fn read(&self, resource: &str, fail: Fail) -> Problem {
        match fail {
            Fail::Server(error) => {
                Problem::new(Code::SourceFailed).with("resource", resource).cause(fail::text(&error))
            }
            fail => self.connection(fail),
        }
    }
    /// While landing.
    fn write(&self, table: &str, fail: Fail) -> Problem {
        match fail {
            Fail::Server(error) if fail::FULL.contains(&error.code) => {
                Problem::new(Code::DiskFull).with("path", &self.name).cause(fail::text(&error))
            }
            Fail::Server(error) => {
                Problem::new(Code::DestinationFailed).with("target", table).cause(fail::text(&error))
            }
            fail => self.connection(fail),
        }
    }
}
