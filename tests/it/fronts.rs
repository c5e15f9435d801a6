//! Front-end tables under load, by real processes: an application keeps leaving changes while the job runs and nodes are
//! killed. Afterwards the consumer's table is what the changes come to, each of them was marked once, and none is gone
//! without a receipt. On each engine; 20 s and a run after the other ordinarily; 10 min, every 5 s, in the long run.

use crate::support::mariadb::MariaDb;
use crate::support::postgres::Postgres;
use crate::support::{CONSUMER, PROVIDER, Role, Scene, Site, long, posthouse, text, wait_for};
use posthouse_test_tds::{Encryption, Options, Server};
use rusqlite::Connection;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Where the application leaves its changes.
#[derive(Clone)]
enum Database {
    Sqlite(std::path::PathBuf),
    Postgres(Arc<Postgres>),
    MariaDb(Arc<MariaDb>),
    /// SQL Server is the TDS test server here.
    Tds(Arc<Server>),
}

impl Database {
    fn change(&self, sql: &str) {
        match self {
            Self::Sqlite(path) => opened(path).execute_batch(sql).expect("it changes"),
            Self::Postgres(server) => drop(server.psql(sql)),
            Self::MariaDb(server) => drop(server.sql(sql)),
            Self::Tds(server) => drop(server.batch(sql).expect("it changes")),
        }
    }

    /// A whole number of each row.
    fn numbers(&self, sql: &str) -> Vec<u64> {
        let of_lines = |out: Vec<u8>| -> Vec<u64> {
            let out = String::from_utf8(out).expect("text");
            out.lines().map(|line| line.trim().parse().expect("a number")).collect()
        };
        match self {
            Self::Sqlite(path) => {
                let db = opened(path);
                let mut statement = db.prepare(sql).expect("a statement");
                let rows = statement.query_map([], |row| row.get::<_, i64>(0)).expect("rows");
                rows.map(|number| number.expect("a number").unsigned_abs()).collect()
            }
            Self::Postgres(server) => of_lines(server.psql(sql)),
            Self::MariaDb(server) => of_lines(server.sql(sql)),
            Self::Tds(server) => {
                let tables = server.batch(sql).expect("an answer");
                let rows = tables.into_iter().flat_map(|table| table.rows);
                rows.map(|row| row[0].as_deref().expect("a value").parse().expect("a number")).collect()
            }
        }
    }

    /// How long the application waits between two batches. The test server looks at all rows to find one.
    fn pause(&self) -> Duration {
        match (self, long()) {
            (Self::Tds(_), false) => Duration::from_millis(200),
            (Self::Tds(_), true) => Duration::from_secs(2),
            _ => Duration::from_millis(50),
        }
    }

    /// A text as its SQL has it.
    fn quoted(&self, text: &str) -> String {
        match self {
            Self::Tds(_) => format!("N'{text}'"),
            _ => format!("'{text}'"),
        }
    }
}

fn opened(path: &Path) -> Connection {
    let db = Connection::open(path).expect("it opens");
    db.busy_timeout(Duration::from_secs(60)).expect("a time-out");
    db
}

#[test]
fn a_front_end_table_in_sqlite_is_applied_once_under_kills() {
    let data = tempfile::tempdir().expect("a temporary folder");
    let path = data.path().join("front.db");
    let source = Database::Sqlite(path.clone());
    source.change(
        "PRAGMA journal_mode = WAL;
         CREATE TABLE bg (n INTEGER PRIMARY KEY, id TEXT NOT NULL, name TEXT, czbs TEXT NOT NULL, pch INTEGER,
           clzt TEXT NOT NULL DEFAULT '0');
         CREATE TABLE marked (n INTEGER NOT NULL);
         CREATE TRIGGER bg_marked AFTER UPDATE OF clzt ON bg BEGIN INSERT INTO marked VALUES (new.n); END;",
    );
    let connection = format!("kind = \"sqlite\"\npath = \"{}\"", path.display());
    under_kills(&source, &connection, "bg");
}

#[test]
fn a_front_end_table_in_postgres_is_applied_once_under_kills() {
    let server = Arc::new(Postgres::start(&[]));
    let source = Database::Postgres(server.clone());
    source.change(
        "CREATE TABLE bg (n bigserial PRIMARY KEY, id text NOT NULL, name text, czbs char(2) NOT NULL, pch integer,
           clzt char(1) NOT NULL DEFAULT '0');
         CREATE TABLE marked (n bigint NOT NULL);
         CREATE FUNCTION mark() RETURNS trigger LANGUAGE plpgsql AS
           'BEGIN INSERT INTO marked VALUES (new.n); RETURN NULL; END';
         CREATE TRIGGER bg_marked AFTER UPDATE OF clzt ON bg FOR EACH ROW EXECUTE PROCEDURE mark();",
    );
    let url = format!("postgres://postgres@/postgres?host={}", server.socket().display());
    let connection = format!("kind = \"postgres\"\nurl = \"{url}\"");
    under_kills(&source, &connection, "public.bg");
}

#[test]
fn a_front_end_table_in_mariadb_is_applied_once_under_kills() {
    let server = Arc::new(MariaDb::start(&[]));
    let source = Database::MariaDb(server.clone());
    source.change(
        "CREATE TABLE bg (n bigint AUTO_INCREMENT PRIMARY KEY, id varchar(20) NOT NULL, name varchar(50),
           czbs char(2) NOT NULL, pch int, clzt char(1) NOT NULL DEFAULT '0');
         CREATE TABLE marked (n bigint NOT NULL);
         CREATE TRIGGER bg_marked AFTER UPDATE ON bg FOR EACH ROW INSERT INTO marked VALUES (new.n);",
    );
    let connection = format!("kind = \"mysql\"\nurl = \"{}\"", server.url("work"));
    under_kills(&source, &connection, "work.bg");
}

#[test]
fn a_front_end_table_in_sql_server_is_applied_once_under_kills() {
    let options = Options { password: PASSWORD.to_owned(), encryption: Encryption::Required, ..Options::default() };
    let server = Arc::new(Server::start(options).expect("a server"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (ca, secret) = (folder.path().join("ca.pem"), folder.path().join("password"));
    std::fs::write(&ca, server.ca_pem()).expect("a file");
    std::fs::write(&secret, PASSWORD).expect("a file");
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).expect("a mode");
    let source = Database::Tds(server.clone());
    source.change(
        "CREATE TABLE [dbo].[bg] ([n] bigint IDENTITY(1,1) NOT NULL PRIMARY KEY, [id] nvarchar(20) NOT NULL, \
           [name] nvarchar(50) NULL, [czbs] char(2) NOT NULL, [pch] int NULL, [clzt] nvarchar(1) NOT NULL DEFAULT N'0', \
           [rv] rowversion NOT NULL); \
         CREATE TABLE [dbo].[marked] ([n] bigint NOT NULL)",
    );
    // A batch of its own.
    source.change(
        "CREATE TRIGGER [dbo].[bg_marked] ON [dbo].[bg] AFTER UPDATE AS BEGIN SET NOCOUNT ON; \
         INSERT INTO [dbo].[marked] ([n]) SELECT i.[n] FROM inserted AS i; END",
    );
    let options = server.options();
    let url = format!("sqlserver://{}@{}/{}", options.user, server.addr(), options.database);
    let connection = format!(
        "kind = \"sqlserver\"\nurl = \"{url}\"\npassword_file = \"{}\"\nca_file = \"{}\"",
        text(&secret),
        text(&ca)
    );
    under_kills(&source, &connection, "dbo.bg");
    assert_eq!(server.unknown(), Vec::<String>::new());
}

fn under_kills(source: &Database, connection: &str, table: &str) {
    let mut site = Site::start(&scene(connection, table));
    let target = site.dir().join("target.db");
    let stop = Arc::new(AtomicBool::new(false));
    let application = {
        let (source, stop) = (source.clone(), stop.clone());
        std::thread::spawn(move || write(&source, &stop))
    };
    let (end, every) = match long() {
        true => (Duration::from_secs(600), Duration::from_secs(5)),
        false => (Duration::from_secs(20), Duration::ZERO),
    };
    let began = Instant::now();
    let mut round = 0u64;
    while began.elapsed() < end {
        let next = Instant::now() + every;
        round += 1;
        if round.is_multiple_of(3) {
            let role = if round.is_multiple_of(2) { Role::Provider } else { Role::Consumer };
            killed_run(&mut site, role, round);
        } else {
            // One that follows a kill may find the table waiting for the run before.
            site.job(CONSUMER, "bg");
        }
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    stop.store(true, Ordering::Relaxed);
    let written = application.join().expect("the application ends");
    wait_for("all is taken", Duration::from_secs(120), || {
        site.job(CONSUMER, "bg");
        source.numbers("SELECT COUNT(*) FROM bg WHERE clzt = '0'") == [0]
    });

    let expected: Vec<String> = written.standing.iter().map(|(id, name)| format!("{id} {name}")).collect();
    assert!(expected.len() > 10, "{expected:?}");
    assert_eq!(landed(&target), expected);
    assert_eq!(source.numbers("SELECT COUNT(*) FROM bg"), [written.changes], "nothing was purged");
    let marked = source.numbers("SELECT n FROM marked");
    assert_eq!(marked.len() as u64, written.changes, "each was marked");
    assert_eq!(marked.into_iter().collect::<BTreeSet<_>>().len() as u64, written.changes, "each was marked once");
}

fn landed(target: &Path) -> Vec<String> {
    let db = opened(target);
    let mut statement = db.prepare("SELECT id || ' ' || name FROM bg ORDER BY id").expect("a statement");
    let rows = statement.query_map([], |row| row.get(0)).expect("rows");
    rows.collect::<Result<_, _>>().expect("texts")
}

/// A run whose provider or consumer is killed at a moment that differs from round to round.
fn killed_run(site: &mut Site, role: Role, round: u64) {
    let config = site.config(CONSUMER);
    // It may say that one is under way: then that one is struck.
    let _ = posthouse(&["job", "run", "--config", &config, "bg"]);
    std::thread::sleep(Duration::from_millis(round * 37 % 400));
    site.daemon(role).kill();
    std::thread::sleep(Duration::from_millis(100));
    site.daemon(role).restart();
    site.wait_until_up(if role == Role::Provider { PROVIDER } else { CONSUMER });
}

/// What the application has written, and what it comes to.
struct Written {
    changes: u64,
    standing: BTreeMap<String, String>,
}

/// Leaves changes of a few hundred keys, a batch of them at a time, until it is told to stop.
fn write(source: &Database, stop: &AtomicBool) -> Written {
    let mut written = Written { changes: 0, standing: BTreeMap::new() };
    let mut batch = 0u64;
    while !stop.load(Ordering::Relaxed) {
        batch += 1;
        let mut values = Vec::new();
        for step in 0..20u64 {
            let hash = blake3::hash(&(batch * 100 + step).to_le_bytes());
            let dice = u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("eight bytes"));
            let (id, name) = (format!("k{:03}", dice % 300), format!("名{batch}-{step}"));
            let word = match (dice / 300 % 4, written.standing.contains_key(&id)) {
                (0, true) => "D",
                (_, true) => "U",
                (_, false) => "I",
            };
            match word {
                "D" => drop(written.standing.remove(&id)),
                _ => drop(written.standing.insert(id.clone(), name.clone())),
            }
            values.push(format!("({}, {}, '{word}', {batch})", source.quoted(&id), source.quoted(&name)));
            written.changes += 1;
        }
        source.change(&format!("INSERT INTO bg (id, name, czbs, pch) VALUES {}", values.join(", ")));
        std::thread::sleep(source.pause());
    }
    written
}

fn scene(connection: &str, table: &str) -> Scene {
    Scene {
        provider: format!(
            "[connection.front]\n{connection}\n\
             [[resource]]\nid = \"bg\"\nconnection = \"front\"\ntable = \"{table}\"\nkey = [\"id\"]\n\
             [resource.exchange]\noperation = {{ column = \"czbs\", insert = \"I\", update = \"U\", delete = \"D\" }}\n\
             batch = \"pch\"\nprocessed = {{ column = \"clzt\", from = \"0\", to = \"1\" }}\nkeep = \"30d\"\n"
        ),
        consumer: format!(
            "[connection.here]\nkind = \"sqlite\"\npath = \"{{dir}}/target.db\"\n\
             [[job]]\nname = \"bg\"\nresource = \"{PROVIDER}/bg\"\ninto = {{ connection = \"here\", table = \"bg\" }}\n\
             mode = \"incremental\"\nwrite = \"upsert\"\nschedule = \"manual\"\n"
        ),
        grants: vec!["bg"],
        ..Scene::default()
    }
}

const PASSWORD: &str = "pass word-1";
