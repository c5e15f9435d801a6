//! Front-end tables under load, by real processes: an application keeps leaving changes while the job runs and nodes are
//! killed. Afterwards the consumer's table is what the changes come to, each of them was marked once, and none is gone
//! without a receipt. 20 s and a run after the other ordinarily; 10 min, every 5 s, in the long run.

use crate::support::postgres::Postgres;
use crate::support::{CONSUMER, PROVIDER, Role, Scene, Site, long, posthouse, wait_for};
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Where the application leaves its changes.
#[derive(Clone)]
enum Database {
    Sqlite(std::path::PathBuf),
    Postgres(Arc<Postgres>),
}

impl Database {
    fn change(&self, sql: &str) {
        match self {
            Self::Sqlite(path) => {
                let db = Connection::open(path).expect("the source opens");
                db.busy_timeout(Duration::from_secs(60)).expect("a time-out");
                db.execute_batch(sql).expect("it changes");
            }
            Self::Postgres(server) => drop(server.psql(sql)),
        }
    }
    /// Lines of one text each.
    fn lines(&self, sql: &str) -> Vec<String> {
        match self {
            Self::Sqlite(path) => lines(path, sql),
            Self::Postgres(server) => {
                let out = String::from_utf8(server.psql(sql)).expect("text");
                out.lines().map(str::to_owned).collect()
            }
        }
    }
}

fn lines(path: &Path, sql: &str) -> Vec<String> {
    let db = Connection::open(path).expect("it opens");
    db.busy_timeout(Duration::from_secs(60)).expect("a time-out");
    let mut statement = db.prepare(sql).expect("a statement");
    let rows = statement.query_map([], |row| row.get(0)).expect("rows");
    rows.collect::<Result<_, _>>().expect("texts")
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
        source.lines("SELECT count(*) || '' FROM bg WHERE clzt = '0'") == ["0"]
    });

    let expected: Vec<String> = written.standing.iter().map(|(id, name)| format!("{id} {name}")).collect();
    assert!(expected.len() > 10, "{expected:?}");
    assert_eq!(lines(&target, "SELECT id || ' ' || name FROM bg ORDER BY id"), expected);
    let count = written.changes.to_string();
    assert_eq!(source.lines("SELECT count(*) || '' FROM bg"), [count.as_str()], "nothing was purged");
    assert_eq!(source.lines("SELECT count(*) || '' FROM marked"), [count.as_str()], "each was marked");
    assert_eq!(source.lines("SELECT count(DISTINCT n) || '' FROM marked"), [count.as_str()], "each was marked once");
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
            values.push(format!("('{id}', '{name}', '{word}', {batch})"));
            written.changes += 1;
        }
        source.change(&format!("INSERT INTO bg (id, name, czbs, pch) VALUES {}", values.join(", ")));
        std::thread::sleep(Duration::from_millis(50));
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
