//! Tables between databases of different makers, by the real program and real servers: PostgreSQL, MariaDB, SQLite, the
//! TDS test server, Parquet files. What has landed is compared by what each database itself shows (`psql`, `mariadb`,
//! SQLite's library, the test server's own tables), which knows nothing of the exchange's digests: see [`look`].

mod digests;
mod kills;
mod look;
mod ring;
mod rows;
mod shapes;
mod texts;
mod zeros;

use crate::crash::patience;
use crate::support::mariadb::MariaDb;
use crate::support::postgres::Postgres;
use crate::support::{CONSUMER, PROVIDER, Role, Site, posthouse, text};
use posthouse_test_tds::{Encryption, Options, Server};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Engine {
    Postgres,
    MariaDb,
    Sqlite,
    SqlServer,
}

/// A database of one's own.
enum Place {
    Postgres(Postgres),
    MariaDb(MariaDb),
    /// A file in a folder of its own.
    Sqlite(tempfile::TempDir),
    SqlServer(Server),
}

impl Place {
    fn new(engine: Engine) -> Self {
        match engine {
            // Settings that show in every text, unless a session says otherwise.
            Engine::Postgres => Self::Postgres(Postgres::start(&[
                ("TimeZone", "Asia/Shanghai"),
                ("DateStyle", "SQL, DMY"),
                ("IntervalStyle", "iso_8601"),
                ("bytea_output", "escape"),
                ("extra_float_digits", "0"),
            ])),
            Engine::MariaDb => Self::MariaDb(MariaDb::start(&["--default-time-zone=+08:00", "--sql-mode=ANSI_QUOTES"])),
            Engine::Sqlite => {
                let folder = tempfile::tempdir().expect("a temporary folder");
                // It is there before anybody looks.
                let made = rusqlite::Connection::open(file(&folder)).and_then(|db| db.execute_batch("VACUUM"));
                made.expect("a database");
                Self::Sqlite(folder)
            }
            Engine::SqlServer => Self::SqlServer(Server::start(plain()).expect("a server")),
        }
    }

    /// The lines of `[connection.NAME]`.
    fn connection(&self, name: &str) -> String {
        match self {
            Self::Postgres(server) => postgres(name, server, "postgres"),
            Self::MariaDb(server) => mariadb(name, server),
            Self::Sqlite(folder) => connection(name, "sqlite", "path", text(&file(folder))),
            Self::SqlServer(server) => connection(name, "sqlserver", "url", &sqlserver_url(server)),
        }
    }

    /// A connection within this process, as a node makes one.
    fn connect(&self) -> Box<dyn posthouse_connectors::Connection> {
        let (kind, key, value) = match self {
            Self::Postgres(server) => ("postgres", "url", postgres_url(server, "postgres")),
            Self::MariaDb(server) => ("mysql", "url", server.url("work")),
            Self::Sqlite(folder) => ("sqlite", "path", text(&file(folder)).to_owned()),
            Self::SqlServer(server) => ("sqlserver", "url", sqlserver_url(server)),
        };
        let settings = posthouse_connectors::Settings::from([(key.to_owned(), Value::from(value))]);
        let connector = posthouse_connectors::registry::find(kind).expect("a connector");
        connector.connect("db", &settings).unwrap_or_else(|problem| panic!("{kind}: {problem}"))
    }

    /// A table as a configuration names it.
    fn table(&self, name: &str) -> String {
        match self {
            Self::Sqlite(_) => name.to_owned(),
            _ => self.named(name),
        }
    }

    /// A table as SQL names it.
    fn named(&self, name: &str) -> String {
        match self {
            Self::Postgres(_) => format!("public.{}", self.quote(name)),
            Self::SqlServer(_) => format!("[dbo].{}", self.quote(name)),
            _ => self.quote(name),
        }
    }

    fn quote(&self, name: &str) -> String {
        match self {
            Self::Postgres(_) | Self::Sqlite(_) => format!("\"{}\"", name.replace('"', "\"\"")),
            Self::MariaDb(_) => format!("`{}`", name.replace('`', "``")),
            Self::SqlServer(_) => format!("[{}]", name.replace(']', "]]")),
        }
    }

    /// Runs statements, each of which has to succeed.
    fn run(&self, script: &str) {
        if script.is_empty() {
            return;
        }
        match self {
            Self::Postgres(server) => {
                server.psql(&format!("{}{script}", look::SESSION_OF_POSTGRES));
            }
            Self::MariaDb(server) => {
                server.sql(&format!("{}{script}", look::SESSION_OF_MARIADB));
            }
            Self::Sqlite(folder) => {
                let done = rusqlite::Connection::open(file(folder)).and_then(|db| db.execute_batch(script));
                done.unwrap_or_else(|error| panic!("{error}: {script}"));
            }
            Self::SqlServer(server) => {
                server.batch(script).unwrap_or_else(|error| panic!("{error}: {script}"));
            }
        }
    }
}

fn file(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("tables.db")
}

/// A server on this machine, whose line nobody can read.
fn plain() -> Options {
    Options {
        password: String::new(),
        database: "posthouse".to_owned(),
        encryption: Encryption::NotSupported,
        ..Options::default()
    }
}

fn postgres_url(server: &Postgres, database: &str) -> String {
    format!("postgres://postgres@/{database}?host={}", text(server.socket()))
}

fn sqlserver_url(server: &Server) -> String {
    format!("sqlserver://posthouse@{}/posthouse", server.addr())
}

fn postgres(name: &str, server: &Postgres, database: &str) -> String {
    connection(name, "postgres", "url", &postgres_url(server, database))
}

fn mariadb(name: &str, server: &MariaDb) -> String {
    connection(name, "mysql", "url", &server.url("work"))
}

fn connection(name: &str, kind: &str, key: &str, value: &str) -> String {
    format!("[connection.{name}]\nkind = \"{kind}\"\n{key} = {}\n\n", string(value))
}

/// The lines of a resource, which is known by the name of its job.
fn resource(id: &str, connection: &str, table: &str, key: &[&str]) -> String {
    let key: Vec<String> = key.iter().map(|name| string(name)).collect();
    format!(
        "[[resource]]\nid = \"{id}\"\nconnection = \"{connection}\"\ntable = {}\nkey = [{}]\n\n",
        string(table),
        key.join(", ")
    )
}

/// The lines of a job that takes all of a resource of its name.
fn job(name: &str, connection: &str, table: &str, write: &str) -> String {
    let into = format!("{{ connection = \"{connection}\", table = {} }}", string(table));
    job_into(name, &into, write)
}

fn job_into(name: &str, into: &str, write: &str) -> String {
    format!(
        "[[job]]\nname = \"{name}\"\nresource = \"{PROVIDER}/{name}\"\ninto = {into}\nmode = \"full\"\n\
         write = \"{write}\"\nschedule = \"manual\"\n\n"
    )
}

/// A TOML string is written like one of JSON.
fn string(text: &str) -> String {
    Value::from(text).to_string()
}

/// Starts a job, kills one role after a while, starts it again, and waits until a transfer has settled and none is under
/// way. Where all of them have failed it is asked for again, as an operator would. Gives what is listed of the newest that
/// settled.
fn settled_over_a_kill(site: &mut Site, role: Role, job: &str, after: Duration) -> Value {
    let config = site.config(CONSUMER);
    let known: BTreeSet<String> = transfers(&config, job).expect("the node is there").iter().map(id).collect();
    posthouse(&["job", "run", "--config", &config, job]).ok();
    std::thread::sleep(after);
    site.daemon(role).kill();
    std::thread::sleep(Duration::from_millis(200));
    site.daemon(role).restart();
    let (since, mut asked) = (Instant::now(), Instant::now());
    loop {
        std::thread::sleep(Duration::from_millis(150));
        let listed = transfers(&config, job);
        let new: Vec<&Value> = listed.iter().flatten().filter(|transfer| !known.contains(&id(transfer))).collect();
        let is_in = |transfer: &Value, states: &[&str]| states.iter().any(|state| transfer["state"] == *state);
        let have_ended = new.iter().all(|transfer| is_in(transfer, &["settled", "failed"]));
        if let Some(settled) = new.iter().find(|transfer| is_in(transfer, &["settled"])).filter(|_| have_ended) {
            return (*settled).clone();
        }
        // A failed transfer may have its successor already.
        let have_failed = listed.is_some() && new.iter().all(|transfer| is_in(transfer, &["failed"]));
        if have_failed && asked.elapsed() > Duration::from_secs(2) {
            posthouse(&["job", "run", "--config", &config, job]);
            asked = Instant::now();
        }
        assert!(
            since.elapsed() < patience(),
            "{role:?} was killed after {after:?}: not settled: {new:#?}\n{}\n{}",
            site.consumer.log_tail(),
            site.provider.log_tail()
        );
    }
}

/// Transfers of a job, the newest first; none while the node is away.
fn transfers(config: &str, job: &str) -> Option<Vec<Value>> {
    let ran = posthouse(&["transfer", "list", "--config", config, "--job", job, "--limit", "10000", "--json"]);
    let lines = ran.stdout.lines().map(|line| serde_json::from_str(line).expect("an object a line"));
    (ran.code == 0).then(|| lines.collect())
}

fn id(transfer: &Value) -> String {
    transfer["transfer"].as_str().unwrap_or_default().to_owned()
}

/// A moment within a load that differs from round to round, and is the same in each run.
fn moment(of: &str, round: u64) -> Duration {
    let noise = blake3::hash(format!("{of} {round}").as_bytes());
    Duration::from_millis(30 + u64::from(noise.as_bytes()[0]) * 8)
}

/// Rows that are the same whatever their order, or the first that is not.
fn assert_same_rows(what: &str, one: &[String], other: &[String]) {
    let differ = one.iter().zip(other).find(|(one, other)| one != other);
    assert!(differ.is_none(), "{what}: {differ:#?}");
    assert_eq!(one.len(), other.len(), "{what}");
}

/// Lines of the one of which the other has not as many; both are sorted.
fn lacking<'a>(one: &'a [String], other: &[String]) -> Vec<&'a String> {
    let mut left = other.iter().peekable();
    let mut lacking = Vec::new();
    for line in one {
        while left.next_if(|other| *other < line).is_some() {}
        if left.next_if(|other| *other == line).is_none() {
            lacking.push(line);
        }
    }
    lacking
}
