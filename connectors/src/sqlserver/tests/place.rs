//! A database of its own for one case: a TDS test server, or a database on a real server.

use super::super::client::{number, text};
use super::*;
use posthouse_test_tds::{Encryption, Options, Server};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// A server on this machine, whose line nobody can read. What it tells beside its results is false, so that whatever is
/// counted here is counted by a query.
pub(super) fn plain() -> Options {
    Options {
        false_counts: true,
        password: String::new(),
        database: "posthouse".to_owned(),
        encryption: Encryption::NotSupported,
        ..Options::default()
    }
}
pub(super) fn encrypted() -> Options {
    Options { encryption: Encryption::Required, ..plain() }
}
/// Where the account may read and write rows, and make nothing.
pub(super) fn rows_only() -> Options {
    Options { rows_only: true, ..plain() }
}
pub(super) fn with_password(password: &str) -> Options {
    Options { password: password.to_owned(), ..plain() }
}

pub(super) struct SqlBench<const REAL: bool> {
    server: Option<Server>,
    settings: crate::Settings,
    is_lost: AtomicBool,
    /// On a real server, to be dropped at the end: its name, and how to log in beside it.
    database: Option<(String, crate::Settings)>,
}

impl SqlBench<false> {
    pub(super) fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }
    /// How often somebody has logged in.
    pub(super) fn logins(&self) -> usize {
        self.server().heard().iter().filter(|text| text.contains("SET XACT_ABORT ON; SET LOCK_TIMEOUT")).count()
    }
    /// Whether a fault that was armed has not happened.
    pub(super) fn has_fault(&self) -> bool {
        !self.server().faults_left().is_empty()
    }
    pub(super) fn set(&mut self, key: &str, value: &str) {
        self.settings.insert(key.to_owned(), value.into());
    }
}

impl<const REAL: bool> SqlBench<REAL> {
    pub(super) fn with(options: Options) -> Self {
        let server = Server::start(options).unwrap();
        let url = format!("sqlserver://posthouse@{}/posthouse", server.addr());
        let settings = crate::Settings::from([("url".to_owned(), url.into())]);
        Self { server: Some(server), settings, is_lost: AtomicBool::new(false), database: None }
    }
    fn on(url: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("posthouse_test_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let (server, _) = url.rsplit_once('/').expect("sqlserver://USER@HOST/DATABASE");
        let of = |url: String| {
            let mut settings = crate::Settings::from([("url".to_owned(), url.into())]);
            for (key, variable) in [
                ("password_file", "POSTHOUSE_TEST_MSSQL_PASSWORD_FILE"),
                ("ca_file", "POSTHOUSE_TEST_MSSQL_CA_FILE"),
                ("tls", "POSTHOUSE_TEST_MSSQL_TLS"),
            ] {
                if let Ok(value) = std::env::var(variable) {
                    settings.insert(key.to_owned(), value.into());
                }
            }
            settings
        };
        let beside = of(url.to_owned());
        let mut client = Client::connect(&parse("db", &beside).unwrap()).unwrap();
        client.batch(&format!("CREATE DATABASE [{name}]")).unwrap();
        client.batch(&format!("ALTER DATABASE [{name}] SET ALLOW_SNAPSHOT_ISOLATION ON")).unwrap();
        let settings = of(format!("{server}/{name}"));
        Self { server: None, settings, is_lost: AtomicBool::new(false), database: Some((name, beside)) }
    }
    pub(super) fn settings(&self) -> crate::Settings {
        let mut settings = self.settings.clone();
        if self.is_lost.load(Ordering::Relaxed) {
            settings.insert("url".to_owned(), "sqlserver://posthouse@127.0.0.1:1/posthouse".into());
        }
        settings
    }
    pub(super) fn connection(&self) -> Box<dyn Connection> {
        SqlServer.connect("db", &self.settings()).unwrap()
    }
    pub(super) fn client(&self) -> Client {
        Client::connect(&parse("db", &self.settings).unwrap()).unwrap()
    }
    /// Statements of a test's own.
    pub(super) fn run(&self, sql: &str) {
        self.client().batch(sql).unwrap();
    }
    /// The first values of all rows, on lines.
    pub(super) fn text(&self, sql: &str) -> String {
        rows_of(&mut self.client(), sql)
    }
    pub(super) fn count(&self, sql: &str) -> u64 {
        self.client().count(sql, &[]).unwrap()
    }
    pub(super) fn target_rows(&self) -> u64 {
        self.count(&format!("SELECT COUNT_BIG(*) FROM {TARGET} AS t"))
    }
    /// Of the rows that were refused: key, the server's number, reason.
    pub(super) fn reasons(&self) -> Vec<(String, Option<i64>, String)> {
        let sql = "SELECT q.[key], q.error, q.reason FROM [dbo].[posthouse_quarantine] AS q ORDER BY q.number";
        let rows = self.client().query(sql, &[]).unwrap();
        let part = |row: &tiberius::Row, at: usize| text(row, at).unwrap_or_default().to_owned();
        rows.iter().map(|row| (part(row, 0), number(row, 1), part(row, 2))).collect()
    }
}

fn rows_of(client: &mut Client, sql: &str) -> String {
    let rows = client.query(sql, &[]).unwrap();
    let value = |row: &tiberius::Row| match (text(row, 0), number(row, 0)) {
        (Some(text), _) => text.to_owned(),
        (None, Some(number)) => number.to_string(),
        (None, None) => match row.get_column_data(0) {
            Ok(tiberius::ColumnData::Numeric(Some(value))) => value.to_string(),
            _ => "NULL".to_owned(),
        },
    };
    rows.iter().map(value).collect::<Vec<_>>().join("\n")
}

impl<const REAL: bool> Drop for SqlBench<REAL> {
    fn drop(&mut self) {
        if let Some((name, beside)) = &self.database
            && let Ok(mut client) = Client::connect(&parse("db", beside).unwrap())
        {
            let _ = client.batch(&format!("ALTER DATABASE [{name}] SET SINGLE_USER WITH ROLLBACK IMMEDIATE"));
            let _ = client.batch(&format!("DROP DATABASE [{name}]"));
        }
        if let Some(server) = &self.server
            && !std::thread::panicking()
        {
            assert_eq!(server.unknown(), Vec::<String>::new(), "the test server did not know all of it");
        }
    }
}

impl<const REAL: bool> Bench for SqlBench<REAL> {
    const KEYED: bool = true;
    const HOLDS_INFINITIES: bool = false;
    const HAS_OWN_COLUMNS: bool = true;
    fn new() -> Self {
        match REAL {
            false => Self::with(plain()),
            true => Self::on(&real::url().unwrap()),
        }
    }
    fn destination(&self, landing: &Landing) -> Result<Box<dyn Destination>, Problem> {
        self.connection().destination(landing)
    }
    fn source(&self, spec: &TableSpec) -> Option<Box<dyn Source>> {
        Some(self.connection().source(spec).unwrap())
    }
    fn make_strict(&self, table: &str, contract: &Contract, column: &str) -> bool {
        let mut landing = landing(1, Write::Append, contract);
        landing.table = table.to_owned();
        landing.contract.items.iter_mut().filter(|item| item.name == column).for_each(|item| item.nullable = false);
        let place = super::super::place::Place::new(&landing, &parse("db", &self.settings).unwrap()).unwrap();
        self.run(&ddl::create_target(&place).unwrap());
        true
    }
    const HAS_FRONT_TABLES: bool = true;
    fn front(&self, spec: &FrontSpec) -> Option<Box<dyn FrontTable>> {
        Some(self.connection().front(spec).unwrap())
    }
    fn make_front(&self, table: &str) {
        self.run(&format!(
            "CREATE TABLE [dbo].[{table}] ([id] bigint NOT NULL PRIMARY KEY, [name] nvarchar(max) NULL, \
             [clzt] nvarchar(10) NULL, [rv] rowversion NOT NULL)"
        ));
    }
    fn lose(&self) {
        self.is_lost.store(true, Ordering::Relaxed);
    }
}
