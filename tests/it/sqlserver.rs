//! The ring: a table of every type that moves goes from SQL Server to PostgreSQL and on to another SQL Server, followed
//! by its rowversion, while nodes and servers are killed. What came around is what set out, as python-tds and FreeTDS
//! read it, which share nothing with our driver. SQL Server is the TDS test server here.
//! 20,000 rows ordinarily and 200,000 in the long run, with 8 kills: reading all of it by two other clients after each takes
//! the most of that.

#![expect(clippy::print_stdout, reason = "a scene of many kills tells what became of each")]

mod every;

use crate::receipts::{exported, verify, wait_for_proof};
use crate::support::postgres::Postgres;
use crate::support::{CONSUMER, PROVIDER, Scene, Site, long, posthouse, run, text};
use crate::tds::tsql;
use every::{COLUMNS, ENDS, LONG, make, quoted, shown};
use posthouse_test_tds::{Encryption, Options, Server};
use serde_json::Value;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

fn rows() -> u64 {
    if long() { 200_000 } else { 20_000 }
}

#[derive(Clone, Copy, Debug)]
enum Victim {
    Provider,
    Consumer,
    First,
    Middle,
    Last,
}
use Victim::{Consumer, First, Last, Middle, Provider};

#[test]
fn rows_of_every_type_come_around_as_they_set_out_whoever_is_killed() {
    let mut ring = Ring::start();
    let (out, back) = (ring.take(OUT), ring.take(BACK));
    assert_eq!((&out["rows"], &back["rows"]), (&ring.count().into(), &ring.count().into()), "{out} {back}");
    let undisturbed = [&out, &back].map(|end| end["seconds"].as_f64().expect("a time"));
    ring.assert_equal();
    let end = ring.take(OUT);
    assert_eq!(end["rows"], 0, "nothing is above the last mark: {end}");

    let legs = [(OUT, [Provider, Consumer, First, Middle]), (BACK, [Provider, Consumer, Middle, Last])];
    for (leg, ((job, victims), seconds)) in legs.iter().zip(undisturbed).enumerate() {
        for (number, victim) in victims.iter().enumerate() {
            ring.change(leg * 4 + number);
            if *job == BACK {
                ring.take(OUT);
            }
            ring.killed(job, *victim, seconds);
            if *job == OUT {
                ring.take(BACK);
            }
            ring.assert_equal();
        }
    }
    ring.assert_lines_are_told(&back);
    for server in [&ring.first, &ring.last] {
        assert_eq!(server.unknown(), Vec::<String>::new());
    }
}

/// The site ends first.
struct Ring {
    site: Site,
    first: Server,
    middle: Postgres,
    last: Server,
    folder: tempfile::TempDir,
}

impl Ring {
    fn start() -> Self {
        let server = |encryption| {
            let options = Options { password: PASSWORD.to_owned(), encryption, ..Options::default() };
            Server::start(options).expect("a server")
        };
        let (first, last) = (server(Encryption::Required), server(Encryption::NotSupported));
        let middle = Postgres::start(&[]);
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(ca_of(folder.path()), first.ca_pem()).expect("a file");
        let secret = folder.path().join("password");
        std::fs::write(&secret, PASSWORD).expect("a file");
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).expect("a mode");
        make(&first);
        let columns: Vec<String> = COLUMNS.iter().map(|(name, _, landed)| format!("[{name}] {landed} NULL")).collect();
        let table = format!("CREATE TABLE [dbo].[every] ([id] int NOT NULL PRIMARY KEY, {})", columns.join(", "));
        last.batch(&table).expect("a table");
        let connection = |server: &Server, more: &str| {
            let url = format!("sqlserver://{}@{}/{}", server.options().user, server.addr(), server.options().database);
            let secret = text(&secret);
            format!("[connection.mssql]\nkind = \"sqlserver\"\nurl = \"{url}\"\npassword_file = \"{secret}\"\n{more}\n")
        };
        let pg = format!(
            "[connection.pg]\nkind = \"postgres\"\nurl = \"postgres://postgres@/postgres?host={}\"\n\n",
            middle.socket().display()
        );
        let ca = format!("ca_file = \"{}\"\n", text(&ca_of(folder.path())));
        let resource = |id: &str, connection: &str, table: &str, more: &str| {
            format!(
                "[[resource]]\nid = \"{id}\"\nconnection = \"{connection}\"\ntable = \"{table}\"\nkey = [\"id\"]\n{more}\n"
            )
        };
        let job = |name: &str, connection: &str, table: &str, mode: &str| {
            format!(
                "[[job]]\nname = \"{name}\"\nresource = \"{PROVIDER}/{name}\"\nschedule = \"manual\"\nmode = \"{mode}\"\n\
                 into = {{ connection = \"{connection}\", table = \"{table}\" }}\nwrite = \"upsert\"\n\n"
            )
        };
        let scene = Scene {
            provider: [
                connection(&first, &ca),
                pg.clone(),
                resource(OUT, "mssql", "dbo.every", "watermark = \"mark\"\n"),
                resource(BACK, "pg", "public.every", ""),
            ]
            .concat(),
            consumer: [
                connection(&last, ""),
                pg,
                job(OUT, "pg", "public.every", "incremental"),
                job(BACK, "mssql", "dbo.every", "full"),
            ]
            .concat(),
            grants: vec![OUT, BACK],
            ..Scene::default()
        };
        Self { site: Site::start(&scene), first, middle, last, folder }
    }

    fn take(&self, job: &str) -> Value {
        let end = self.site.take(job);
        assert_eq!(end["state"], "settled", "{job}: {end}");
        assert_eq!(end["quarantined"].as_u64().unwrap_or_default(), 0, "{job}: {end}");
        end
    }

    fn count(&self) -> u64 {
        let tables = self.first.batch("SELECT COUNT_BIG(*) FROM [dbo].[every]").expect("a count");
        let count = tables.first().and_then(|table| table.rows.first()?.first()?.as_deref()?.parse().ok());
        count.expect("a number")
    }

    /// Half of the rows have another mark afterwards, and some are new.
    fn change(&self, round: usize) {
        let new = 10_000_000 + round * 1_000;
        let names: Vec<String> =
            COLUMNS.iter().filter(|(name, ..)| *name != "mark").map(|(name, ..)| quoted(name)).collect();
        let names = names.join(", ");
        let sql = format!(
            "UPDATE [dbo].[every] SET [n] = {round}, [nv] = CONCAT(N'第 {round} 次 ', [id]) WHERE [id] % 2 = {}; \
             INSERT INTO [dbo].[every] ([id], {names}) SELECT [id] + {new}, {names} FROM [dbo].[every] WHERE [id] < {ENDS}",
            round % 2
        );
        self.first.batch(&sql).expect("the first changes");
    }

    /// Starts a job, kills at a moment that differs from victim to victim, starts what was killed again, and waits until
    /// a transfer has settled. Where one failed, it is asked for again, as an operator would.
    fn killed(&mut self, job: &str, victim: Victim, seconds: f64) {
        let config = self.site.config(CONSUMER);
        let before: BTreeSet<String> = self.transfers(job).iter().flatten().map(id).collect();
        posthouse(&["job", "run", "--config", &config, job]).ok();
        let noise = blake3::hash(format!("{victim:?} {job}").as_bytes());
        let share = f64::from(noise.as_bytes()[0]) / 256.0;
        std::thread::sleep(Duration::from_secs_f64(seconds * share));
        let newest = self.transfers(job).and_then(|list| list.into_iter().next()).unwrap_or_default();
        self.kill(victim);
        let (since, mut asked) = (Instant::now(), Instant::now());
        let patience = Duration::from_secs(if long() { 1_800 } else { 240 });
        loop {
            let list = self.transfers(job);
            let new: Vec<&Value> = list.iter().flatten().filter(|transfer| !before.contains(&id(transfer))).collect();
            if new.iter().any(|transfer| transfer["state"] == "settled") {
                println!("{victim:?} {job}: killed at {share:.2} while {}, {} transfers", newest["state"], new.len());
                return;
            }
            let all_failed = list.is_some() && new.iter().all(|transfer| transfer["state"] == "failed");
            if all_failed && asked.elapsed() > Duration::from_secs(2) {
                posthouse(&["job", "run", "--config", &config, job]);
                asked = Instant::now();
            }
            assert!(
                since.elapsed() < patience,
                "{victim:?} {job}: not settled: {new:#?}\n{}\n{}",
                self.site.consumer.log_tail(),
                self.site.provider.log_tail()
            );
            std::thread::sleep(Duration::from_millis(150));
        }
    }

    fn kill(&mut self, victim: Victim) {
        let pause = || std::thread::sleep(Duration::from_millis(200));
        match victim {
            Provider | Consumer => {
                let daemon = if matches!(victim, Provider) { &mut self.site.provider } else { &mut self.site.consumer };
                daemon.kill();
                pause();
                daemon.restart();
            }
            First | Last => {
                let server = if matches!(victim, First) { &mut self.first } else { &mut self.last };
                server.kill();
                pause();
                server.restart().expect("the same port is free");
            }
            Middle => {
                self.middle.kill();
                pause();
                self.middle.restart();
            }
        }
    }

    /// Transfers of a job, the newest first; None while the node is away.
    fn transfers(&self, job: &str) -> Option<Vec<Value>> {
        let config = self.site.config(CONSUMER);
        let ran = posthouse(&["transfer", "list", "--config", &config, "--job", job, "--limit", "10000", "--json"]);
        let lines = ran.stdout.lines().map(|line| serde_json::from_str(line).expect("an object a line"));
        (ran.code == 0).then(|| lines.collect())
    }

    /// Both servers have the same rows, as two strangers read them.
    fn assert_equal(&self) {
        let count = self.count();
        let python = std::env::var("POSTHOUSE_PYTHON").unwrap_or_else(|_| "python3".to_owned());
        let options = self.first.options();
        let mut command = Command::new(python);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verify/ring.py"));
        command.args([&self.first, &self.last].map(|server| server.addr().port().to_string()));
        command.args([&options.user, &options.database, &options.password]).arg(ca_of(self.folder.path()));
        let compared = run(&mut command).ok().json();
        assert_eq!(compared["rows"], count, "{compared}");
        assert_eq!(compared["values"], count * (COLUMNS.len() as u64 + 1), "{compared}");

        let (first, last) = (said(&self.first, "require", 1), said(&self.last, "off", 2));
        // The row of long values is python-tds' alone: what FreeTDS shows of one ends early.
        assert_eq!((first.len() as u64, last.len() as u64), (count - 1, count - 1));
        let differing = first.iter().zip(&last).find(|(first, last)| first != last);
        assert_eq!(differing, None);
    }

    /// The statements say how the lines to the databases were secured: over TLS, by a Unix socket, in the clear here.
    fn assert_lines_are_told(&self, back: &Value) {
        let transfer = back["transfer"].as_str().expect("an id");
        wait_for_proof(&self.site, transfer);
        let (export, trust) = exported(&self.site, transfer);
        let verified = verify(&export, &trust).ok().json();
        assert_eq!(verified["provider_database_line"], Value::Null, "{verified}");
        assert_eq!(verified["consumer_database_line"], "not encrypted, on this machine", "{verified}");
    }
}

fn id(transfer: &Value) -> String {
    transfer["transfer"].as_str().expect("an id").to_owned()
}

fn ca_of(folder: &Path) -> std::path::PathBuf {
    folder.join("ca.pem")
}

/// The rows of a server's table as FreeTDS prints them, the values as the server itself writes them. `side` is the place
/// of its type in [`COLUMNS`].
fn said(server: &Server, encryption: &str, side: usize) -> Vec<String> {
    let columns: Vec<String> =
        COLUMNS.iter().filter_map(|(name, first, last)| shown(name, first, last, side)).collect();
    let sql =
        format!("SELECT [id], {} FROM [dbo].[every] WHERE [id] <> {LONG} ORDER BY [id]\nGO\n", columns.join(", "));
    let said = tsql(server, encryption, &sql);
    let is_row = |line: &&str| line.split_once('\t').is_some_and(|(id, _)| id.parse::<u64>().is_ok());
    said.lines().filter(is_row).map(str::to_owned).collect()
}

const OUT: &str = "out";
const BACK: &str = "back";
const PASSWORD: &str = "pass word-1";
