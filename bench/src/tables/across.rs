//! One case on its way: where its rows are, how each subject carries them from one engine to another, and whether all
//! of them have arrived. What is compared are the rows that were generated, as PostgreSQL has them: a source in another
//! engine that was filled otherwise would fail every subject. Between two databases of PostgreSQL the ways stand in
//! `subjects`.

use super::maria::{self, Maria};
use super::server::{SOURCE, Server, TARGET};
use super::subjects::{DATASET, LAND, Subject, exchange, pipe, python, quiet, sling};
use super::table::{Route, Table};
use super::{content, sqlite};
use crate::measure::{Run, measured_between};
use anyhow::{Context, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

pub struct Way<'a> {
    server: &'a Server,
    maria: Option<&'a Maria>,
    table: &'a Table,
    program: Option<&'a Path>,
    /// Of a source that is a file.
    folder: tempfile::TempDir,
    expected: String,
}

impl<'a> Way<'a> {
    /// Fills the source; gives its size as binary COPY too.
    pub fn new(
        server: &'a Server,
        maria: Option<&'a Maria>,
        table: &'a Table,
        rows: u64,
        program: Option<&'a Path>,
    ) -> anyhow::Result<(Self, u64)> {
        let bytes = server.fill(table, rows)?;
        let content = match table.route {
            Route::Postgres => table.content("public"),
            _ => content::of_postgres(table, "public"),
        };
        let expected = server.ask(SOURCE, &content)?;
        let way = Self { server, maria, table, program, folder: server.scratch()?, expected };
        match table.route {
            Route::Postgres | Route::ThroughParquet => {}
            // What an earlier case left there would only take memory.
            Route::ToMariadb => way.maria()?.renew(SOURCE)?,
            Route::FromMariadb => {
                server.renew(SOURCE)?;
                way.maria()?.fill(table, rows)?;
                let found = way.maria()?.ask(SOURCE, &content::of_mariadb(table))?;
                ensure!(
                    found == way.expected,
                    "MariaDB holds {found}, and PostgreSQL {} of the same rows",
                    way.expected
                );
            }
            Route::FromSqlite => {
                server.renew(SOURCE)?;
                sqlite::fill(&way.file(), table, rows)?;
            }
        }
        Ok((way, bytes))
    }

    /// One run that nobody is charged for: it leaves a server what a server in service has, its log's files among it.
    pub fn warm_up(&self) -> anyhow::Result<()> {
        let subject = match self.table.route {
            Route::Postgres | Route::ThroughParquet => Subject::CopyBinary,
            Route::ToMariadb | Route::FromMariadb => Subject::LoadDataPipe,
            Route::FromSqlite => Subject::CsvPipe,
        };
        // Its own client may be missing: then the first of those that take part goes without it.
        if subject.version(self.server, None).is_err() {
            return Ok(());
        }
        self.renew()?;
        match subject {
            Subject::CopyBinary => subject.carry(self.server, self.table, None).map(|_| ()),
            subject => self.carry(subject).map(|_| ()),
        }
    }

    /// A target with nothing in it.
    pub fn renew(&self) -> anyhow::Result<()> {
        match self.table.route {
            Route::ToMariadb => self.maria()?.renew(TARGET),
            _ => self.server.renew(TARGET),
        }
    }

    /// One run into an empty target; what comes before and after is not of the time.
    pub fn carry(&self, subject: Subject) -> anyhow::Result<Run> {
        if self.table.route == Route::Postgres {
            return subject.carry(self.server, self.table, self.program);
        }
        let scratch = self.server.scratch()?;
        let folder = scratch.path();
        let stages = match subject {
            Subject::Posthouse | Subject::PosthouseAdbc => return self.posthouse(subject, folder),
            Subject::LoadDataPipe | Subject::CsvPipe => self.by_hand()?,
            Subject::PgLoader => vec![self.pgloader(folder)?],
            Subject::Sling => vec![self.sling(folder)?],
            Subject::Adbc | Subject::Dlt => vec![self.land(subject, folder)?],
            other => bail!("{} does not take part in {}", other.name(), self.table.case()),
        };
        let log = folder.join("log");
        measured_between(&self.servers(), &[], || pipe(stages, &log))
    }

    /// Whether the target has what the source has.
    pub fn check(&self, subject: Subject) -> anyhow::Result<()> {
        let (landed, expected) = (self.landed(subject.lands_in())?, &self.expected);
        ensure!(landed == *expected, "the target has {landed}, the source {expected} (rows, sums of digests)");
        Ok(())
    }

    fn landed(&self, schema: &str) -> anyhow::Result<String> {
        match self.table.route {
            Route::Postgres => self.server.ask(TARGET, &self.table.content(schema)),
            Route::ToMariadb => self.maria()?.ask(TARGET, &content::of_mariadb(self.table)),
            _ => self.server.ask(TARGET, &content::of_postgres(self.table, schema)),
        }
    }

    /// Those whose CPU belongs to both ends, by their first process.
    fn servers(&self) -> Vec<u32> {
        let takes_part = matches!(self.table.route, Route::ToMariadb | Route::FromMariadb);
        let maria = self.maria.filter(|_| takes_part).map(Maria::pid);
        [self.server.pid()].into_iter().chain(maria).collect()
    }

    fn maria(&self) -> anyhow::Result<&'a Maria> {
        self.maria.context("there is no MariaDB")
    }

    /// The SQLite file.
    fn file(&self) -> PathBuf {
        self.folder.path().join("source.db")
    }

    /// A table of PostgreSQL's natural types. Where the source says of a number that it has one digit, and not that it
    /// is a boolean, it is a number here too.
    fn create(&self) -> String {
        let create = self.table.create();
        if self.table.route == Route::FromMariadb { create.replace(" boolean", " smallint") } else { create }
    }

    /// The target's table, empty, with its key: what a department has when a first transfer comes.
    fn prepare(&self) -> anyhow::Result<()> {
        match self.table.route {
            Route::ToMariadb => self.maria()?.prepare(self.table),
            _ => {
                let statements: Vec<String> = [self.create()].into_iter().chain(self.table.add_key()).collect();
                self.server.ask(TARGET, &statements.join("; ")).map(|_| ())
            }
        }
    }

    /// The quickest ways that the engines' own clients have.
    fn by_hand(&self) -> anyhow::Result<Vec<Command>> {
        let name = self.table.name;
        let mut first = match self.table.route {
            Route::ToMariadb => {
                self.prepare()?;
                let mut first = self.server.psql(SOURCE);
                first.args(["-c", &format!("\\copy ({}) TO STDOUT", self.select())]);
                let mut last = self.maria()?.client(TARGET);
                last.args(["-e", &maria::load(self.table)]);
                return Ok(vec![first, last]);
            }
            Route::FromMariadb => self.maria()?.client(SOURCE),
            Route::FromSqlite => Command::new("sqlite3"),
            _ => bail!("there is no pipe for {}", self.table.case()),
        };
        let format = match self.table.route {
            Route::FromMariadb => {
                first.args(["--quick", "-e", &maria::select(self.table)]);
                // As the client writes it; no text of the register is that word.
                "NULL 'NULL'"
            }
            _ => {
                first.args(["-readonly", "-batch", "-csv"]).arg(self.file()).arg(sqlite::select(self.table));
                "FORMAT csv"
            }
        };
        self.server.ask(TARGET, &self.create())?;
        let mut last = self.server.psql(TARGET);
        last.args(["-c", &format!("\\copy {name} FROM STDIN ({format})")]);
        if let Some(add) = self.table.add_key() {
            last.args(["-c", &add]);
        }
        Ok(vec![first, last])
    }

    /// PostgreSQL's values as LOAD DATA takes them. The session is in UTC.
    fn select(&self) -> String {
        let value = |(name, kind): &(&str, &str)| match content::base(kind) {
            "boolean" => format!("{name}::integer"),
            "timestamptz" => format!("{name}::timestamp"),
            "bytea" => format!("encode({name}, 'hex')"),
            _ => (*name).to_owned(),
        };
        let values: Vec<String> = self.table.columns.iter().map(value).collect();
        format!("SELECT {} FROM {}", values.join(", "), self.table.name)
    }

    fn pgloader(&self, folder: &Path) -> anyhow::Result<Command> {
        let name = self.table.name;
        let (source, only) = match self.table.route {
            Route::FromMariadb => (
                self.maria()?.uri("mysql", SOURCE),
                format!(" INCLUDING ONLY TABLE NAMES MATCHING '{name}'\n ALTER SCHEMA '{SOURCE}' RENAME TO 'public'"),
            ),
            _ => (format!("sqlite://{}", self.file().display()), format!(" INCLUDING ONLY TABLE NAMES LIKE '{name}'")),
        };
        let target = self.server.uri(TARGET);
        let script = folder.join("table.load");
        // Fewer rows at a time than by default, which would be twice the memory for wide rows.
        std::fs::write(
            &script,
            format!(
                "LOAD DATABASE FROM {source}\n INTO {target}\n WITH create tables, create indexes, no foreign keys, batch rows = 20000, prefetch rows = 50000, workers = 2, concurrency = 1\n{only};\n"
            ),
        )?;
        let mut run = Command::new("pgloader");
        run.arg("--root-dir").arg(folder.join("pgloader")).arg("--on-error-stop").arg(script);
        quiet(&mut run, folder);
        Ok(run)
    }

    fn sling(&self, folder: &Path) -> anyhow::Result<Command> {
        let (name, view) = (self.table.name, self.table.view());
        let (source, stream) = match self.table.route {
            Route::FromMariadb => (self.maria()?.uri("mariadb", SOURCE), format!("{SOURCE}.{view}")),
            Route::FromSqlite => (format!("sqlite://{}", self.file().display()), format!("main.{view}")),
            _ => (self.server.uri(SOURCE), format!("public.{view}")),
        };
        let (target, object) = match self.table.route {
            Route::ToMariadb => (self.maria()?.uri("mariadb", TARGET), format!("{TARGET}.{name}")),
            _ => (self.server.uri(TARGET), format!("public.{name}")),
        };
        let mut run = Command::new(sling().map_err(anyhow::Error::msg)?);
        run.args(["run", "--src-conn", "BENCH_SOURCE", "--src-stream", &stream]);
        run.args(["--tgt-conn", "BENCH_TARGET", "--tgt-object", &object, "--mode", "full-refresh"]);
        run.env("BENCH_SOURCE", source).env("BENCH_TARGET", target);
        quiet(&mut run, folder);
        Ok(run)
    }

    /// A library of PyPI.
    fn land(&self, subject: Subject, folder: &Path) -> anyhow::Result<Command> {
        let way = match (subject, self.table.route) {
            (Subject::Adbc, Route::ThroughParquet) => "adbc-through-parquet",
            (subject, _) => subject.name(),
        };
        // The last word: where Parquet files may lie, or the schema that dlt is to make.
        let last = if way == subject.name() { DATASET.to_owned() } else { folder.join("lake").display().to_string() };
        let mut land = Command::new(python());
        land.arg(LAND).args([way, self.table.name, &last]);
        let source = match self.table.route {
            Route::FromMariadb => self.maria()?.uri("mysql+pymysql", SOURCE) + "?charset=utf8mb4",
            Route::FromSqlite => format!("sqlite:///{}", self.file().display()),
            _ => self.server.uri(SOURCE),
        };
        land.env("SOURCE_URI", source).env("TARGET_URI", self.server.uri(TARGET));
        quiet(&mut land, folder);
        Ok(land)
    }

    fn posthouse(&self, subject: Subject, folder: &Path) -> anyhow::Result<Run> {
        let program = self.program.context("posthouse was not built")?;
        let name = self.table.name;
        let postgres = |database: &str| {
            let (url, password) = (self.server.url(database), self.server.password_file());
            (connection("postgres", &url, &password), format!("public.{name}"))
        };
        let mariadb = |database: &str| -> anyhow::Result<(String, String)> {
            let maria = self.maria()?;
            Ok((connection("mysql", &maria.url(database), &maria.password_file()), name.to_owned()))
        };
        let (from, table) = match self.table.route {
            Route::FromMariadb => mariadb(SOURCE)?,
            Route::FromSqlite => {
                let file = self.file();
                (format!("[connection.db]\nkind = \"sqlite\"\npath = \"{}\"\n\n", file.display()), name.to_owned())
            }
            _ => postgres(SOURCE),
        };
        // The source's key is the resource's.
        let provider = format!("{from}[[resource]]\nid = \"table\"\nconnection = \"db\"\ntable = \"{table}\"\n");
        let (to, into) = match (subject, self.table.route) {
            (Subject::PosthouseAdbc, _) => (String::new(), "folder = \"{dir}/lake\", format = \"parquet\"".to_owned()),
            (_, route) => {
                self.prepare()?;
                let (to, table) = if route == Route::ToMariadb { mariadb(TARGET)? } else { postgres(TARGET) };
                (to, format!("connection = \"db\", table = \"{table}\""))
            }
        };
        let consumer = format!(
            "{to}[[job]]\nname = \"table\"\nresource = \"provider.bench.example/table\"\ninto = {{ {into} }}\nmode = \"full\"\nwrite = \"replace\"\nschedule = \"manual\"\n"
        );
        exchange(&self.servers(), program, &provider, &consumer, |site| {
            if subject != Subject::PosthouseAdbc {
                return Ok(());
            }
            let mut land = Command::new(python());
            land.arg(LAND).args(["adbc-from-parquet", name, &site.path("lake")]);
            land.env("TARGET_URI", self.server.uri(TARGET));
            quiet(&mut land, folder);
            pipe(vec![land], &folder.join("log"))
        })
    }
}

/// What a reader of the figures has to know of a subject between two engines; nothing where its way is the usual one.
pub fn note(subject: Subject, route: Route) -> Option<&'static str> {
    if route == Route::Postgres {
        return None;
    }
    Some(match (subject, route) {
        (Subject::Posthouse, _) => {
            "two nodes over the transport that they choose, row digests at both ends, applied once into a standing table with its key, \
             receipted; the peak is the larger node's"
        }
        (Subject::LoadDataPipe, Route::ToMariadb) => {
            "psql \\copy text | LOAD DATA LOCAL, into a new table with its key, by bulk insert (unique_checks and \
             foreign_key_checks off); verifies nothing"
        }
        (Subject::LoadDataPipe, _) => {
            "mariadb --quick --batch | psql \\copy text, into a new heap table, then the key; verifies nothing"
        }
        (Subject::Sling, Route::ToMariadb) => {
            "full-refresh from a view with bytea as hex text, without a key; booleans land as words; verifies nothing"
        }
        (Subject::Sling, _) => {
            "full-refresh from a view with bytes as hex text, as it fails on bytes; without a key; times out of SQLite \
             and JSON out of MariaDB land as text; verifies nothing"
        }
        (Subject::PgLoader, Route::FromMariadb) => {
            "LOAD DATABASE with 2 workers, batches of 20,000 rows, the key too; JSON lands as text; verifies nothing"
        }
        (Subject::Adbc, Route::FromSqlite) => {
            "Arrow stream into adbc_ingest, without a key; decimals land as doubles, dates, times and JSON as text; \
             verifies nothing"
        }
        (Subject::Adbc, _) => {
            "Arrow stream into one Parquet file (zstd), from that into adbc_ingest, without a key; numeric lands as \
             text, jsonb as json; verifies nothing"
        }
        (Subject::Dlt, _) => "sql_table with the pyarrow backend, Parquet files, ADBC, without a key; verifies nothing",
        _ => return None,
    })
}

/// A server's connection in a node's configuration.
fn connection(kind: &str, url: &str, password_file: &Path) -> String {
    let password_file = password_file.display();
    format!("[connection.db]\nkind = \"{kind}\"\nurl = \"{url}\"\npassword_file = \"{password_file}\"\n\n")
}

#[cfg(test)]
mod tests;
