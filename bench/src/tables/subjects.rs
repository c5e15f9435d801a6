//! Who carries a table from one database to the other: Posthouse and its peers, each as its own documentation
//! tells to run it. A subject that is not installed is named as missing, with what is not there.
//! How each of them goes between two engines stands in `across`.

use super::server::{SOURCE, Server, TARGET};
use super::table::{Route, Table};
use crate::measure::{Run, measured, measured_between, peak_rss};
use crate::site::Site;
use crate::turns::peers;
use anyhow::{Context, bail, ensure};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    Posthouse,
    CopyBinary,
    CopyText,
    PgDump,
    PgCopyDb,
    Sling,
    Adbc,
    Dlt,
    LoadDataPipe,
    CsvPipe,
    PgLoader,
    PosthouseAdbc,
}

pub const SUBJECTS: &[Subject] = &[
    Subject::Posthouse,
    Subject::CopyBinary,
    Subject::CopyText,
    Subject::PgDump,
    Subject::PgCopyDb,
    Subject::Sling,
    Subject::Adbc,
    Subject::Dlt,
    Subject::LoadDataPipe,
    Subject::CsvPipe,
    Subject::PgLoader,
    Subject::PosthouseAdbc,
];

impl Subject {
    pub fn name(self) -> &'static str {
        match self {
            Self::Posthouse => "posthouse",
            Self::CopyBinary => "copy-binary",
            Self::CopyText => "copy-text",
            Self::PgDump => "pg_dump",
            Self::PgCopyDb => "pgcopydb",
            Self::Sling => "sling",
            Self::Adbc => "adbc",
            Self::Dlt => "dlt",
            Self::LoadDataPipe => "load-data-pipe",
            Self::CsvPipe => "csv-pipe",
            Self::PgLoader => "pgloader",
            Self::PosthouseAdbc => "posthouse-adbc",
        }
    }

    /// Whether there is a way for it.
    pub fn takes(self, route: Route) -> bool {
        match self {
            Self::CopyBinary | Self::CopyText | Self::PgDump | Self::PgCopyDb => route == Route::Postgres,
            // No table is read from Parquet files yet.
            Self::Posthouse => route != Route::ThroughParquet,
            // It would download another program for Parquet.
            Self::Sling => route != Route::ThroughParquet,
            Self::Adbc => matches!(route, Route::Postgres | Route::FromSqlite | Route::ThroughParquet),
            Self::Dlt => matches!(route, Route::Postgres | Route::FromMariadb | Route::FromSqlite),
            Self::LoadDataPipe => matches!(route, Route::ToMariadb | Route::FromMariadb),
            Self::CsvPipe => route == Route::FromSqlite,
            Self::PgLoader => matches!(route, Route::FromMariadb | Route::FromSqlite),
            Self::PosthouseAdbc => route == Route::ThroughParquet,
        }
    }

    /// What a reader of the figures has to know; the version is put before it.
    pub fn note(self) -> &'static str {
        match self {
            Self::Posthouse => {
                "two nodes over the transport that they choose, row digests at both ends, applied once, receipted; the peak is the larger node's"
            }
            Self::CopyBinary => {
                "psql \\copy binary | psql \\copy, into a new heap table, then the key if there is one; verifies nothing"
            }
            Self::CopyText => {
                "psql \\copy text | psql \\copy, into a new heap table, then the key if there is one; verifies nothing"
            }
            Self::PgDump => "pg_dump -Fc | pg_restore, gzip as it comes; verifies nothing",
            Self::PgCopyDb => {
                "clone, 2 table jobs, split at 200 MB where there is a key; analyses too; verifies by another command"
            }
            Self::Sling => "full-refresh from a view with bytea as hex text, as it fails on bytea; verifies nothing",
            Self::Adbc => "Arrow stream into adbc_ingest; numeric lands as text, jsonb as json; verifies nothing",
            Self::Dlt => {
                "sql_table with the pyarrow backend, Parquet files, ADBC; jsonb lands as json; verifies nothing"
            }
            Self::LoadDataPipe => "psql and mariadb in one pipe; verifies nothing",
            Self::CsvPipe => "sqlite3 -csv | psql \\copy csv, then the key; verifies nothing",
            Self::PgLoader => "LOAD DATABASE with 2 workers, batches of 20,000 rows, the key too; verifies nothing",
            Self::PosthouseAdbc => {
                "posthouse into Parquet, receipted; then pyarrow and adbc_ingest, since no table is read from Parquet \
                 yet; the peak is the larger node's"
            }
        }
    }

    /// The schema of the target in which the table is found afterwards.
    pub fn lands_in(self) -> &'static str {
        if self == Self::Dlt { DATASET } else { "public" }
    }

    /// Its version, or why it cannot run here.
    pub fn version(self, server: &Server, program: Option<&Path>) -> Result<String, String> {
        let first_line = |command: &mut Command| -> Result<String, String> {
            let name = command.get_program().to_string_lossy().into_owned();
            let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{name}: {error}"))?;
            let said = String::from_utf8_lossy(if output.status.success() { &output.stdout } else { &output.stderr });
            let line = said.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned();
            if output.status.success() { Ok(line) } else { Err(format!("{name}: {line}")) }
        };
        match self {
            Self::Posthouse => posthouse_knows_postgres(server, program),
            Self::CopyBinary | Self::CopyText => first_line(server.client("psql", SOURCE).arg("--version")),
            Self::PgDump => first_line(server.client("pg_dump", SOURCE).arg("--version")),
            Self::PgCopyDb => first_line(Command::new("pgcopydb").arg("--version")),
            Self::Sling => sling().and_then(|sling| {
                let home = server.scratch().map_err(|error| error.to_string())?;
                let mut command = Command::new(sling);
                let line = first_line(quiet(&mut command, home.path()).arg("--version"))?;
                Ok(line.replace("Version:", self.name()))
            }),
            Self::Adbc | Self::Dlt => first_line(Command::new(python()).arg(LAND).args(["version", self.name()])),
            Self::LoadDataPipe => first_line(Command::new("mariadb").args(["--no-defaults", "--version"])),
            Self::CsvPipe => first_line(Command::new("sqlite3").arg("--version"))
                .map(|line| format!("sqlite3 {}", line.split(' ').next().unwrap_or_default())),
            Self::PgLoader => first_line(Command::new("pgloader").arg("--version")),
            Self::PosthouseAdbc => {
                let adbc = Self::Adbc.version(server, None)?;
                Ok(format!("{}, {adbc}", Self::Posthouse.version(server, program)?))
            }
        }
    }

    /// Whether the program has to be built for it.
    pub fn is_own(self) -> bool {
        matches!(self, Self::Posthouse | Self::PosthouseAdbc)
    }

    /// One run into an empty target; what comes before and after is not of the time.
    pub fn carry(self, server: &Server, table: &Table, program: Option<&Path>) -> anyhow::Result<Run> {
        let scratch = server.scratch()?;
        let folder = scratch.path();
        let stages = match self {
            Self::Posthouse => return posthouse(server, table, program.context("posthouse was not built")?),
            Self::CopyBinary => copy(server, table, "binary")?,
            Self::CopyText => copy(server, table, "text")?,
            Self::PgDump => pg_dump(server, table),
            Self::PgCopyDb => pgcopydb(server, table, folder)?,
            Self::Sling => vec![sling_run(server, table, folder)?],
            Self::Adbc | Self::Dlt => {
                let mut land = Command::new(python());
                land.arg(LAND).args([self.name(), table.name, DATASET]);
                land.env("SOURCE_URI", server.uri(SOURCE)).env("TARGET_URI", server.uri(TARGET));
                quiet(&mut land, folder);
                vec![land]
            }
            Self::LoadDataPipe | Self::CsvPipe | Self::PgLoader | Self::PosthouseAdbc => {
                bail!("{} goes between two engines", self.name())
            }
        };
        let log = folder.join("log");
        measured(Some(server.pid()), &[], || pipe(stages, &log))
    }
}

/// The table must be there: psql does not make it.
fn copy(server: &Server, table: &Table, format: &str) -> anyhow::Result<Vec<Command>> {
    server.ask(TARGET, &table.create())?;
    let end = |database: &str, way: &str| {
        let mut psql = server.psql(database);
        psql.args(["-c", &format!("\\copy {} {way} (FORMAT {format})", table.name)]);
        psql
    };
    let mut last = end(TARGET, "FROM STDIN");
    if let Some(add) = table.add_key() {
        last.args(["-c", &add]);
    }
    Ok(vec![end(SOURCE, "TO STDOUT"), last])
}

fn pg_dump(server: &Server, table: &Table) -> Vec<Command> {
    let mut dump = server.client("pg_dump", SOURCE);
    dump.args(["-Fc", "-t", table.name]);
    let mut restore = server.client("pg_restore", TARGET);
    restore.args(["--exit-on-error", "-d", TARGET]);
    vec![dump, restore]
}

fn pgcopydb(server: &Server, table: &Table, folder: &Path) -> anyhow::Result<Vec<Command>> {
    let filter = folder.join("filter.ini");
    std::fs::write(&filter, format!("[include-only-table]\npublic.{}\n", table.name))?;
    let mut clone = Command::new("pgcopydb");
    server.connect(&mut clone, SOURCE);
    clone
        .args(["clone", "--table-jobs", "2", "--index-jobs", "1", "--split-tables-larger-than", "200MB"])
        .args(["--no-acl", "--no-owner", "--no-comments", "--filters"])
        .arg(filter)
        .arg("--dir")
        .arg(folder.join("work"));
    clone.env("PGCOPYDB_SOURCE_PGURI", server.uri(SOURCE)).env("PGCOPYDB_TARGET_PGURI", server.uri(TARGET));
    Ok(vec![clone])
}

fn sling_run(server: &Server, table: &Table, folder: &Path) -> anyhow::Result<Command> {
    let (name, view) = (table.name, table.view());
    let mut run = Command::new(sling().map_err(anyhow::Error::msg)?);
    run.args(["run", "--src-conn", "BENCH_SOURCE", "--src-stream", &format!("public.{view}")]);
    run.args(["--tgt-conn", "BENCH_TARGET", "--tgt-object", &format!("public.{name}"), "--mode", "full-refresh"]);
    run.env("BENCH_SOURCE", server.uri(SOURCE)).env("BENCH_TARGET", server.uri(TARGET));
    quiet(&mut run, folder);
    Ok(run)
}

fn posthouse(server: &Server, table: &Table, program: &Path) -> anyhow::Result<Run> {
    let password = server.password_file();
    let connection = |database: &str| {
        let (url, password) = (server.url(database), password.display());
        format!("[connection.db]\nkind = \"postgres\"\nurl = \"{url}\"\npassword_file = \"{password}\"\n\n")
    };
    let name = table.name;
    // The source's key is the resource's.
    let provider =
        format!("{}[[resource]]\nid = \"table\"\nconnection = \"db\"\ntable = \"public.{name}\"\n", connection(SOURCE));
    let consumer = format!(
        "{}[[job]]\nname = \"table\"\nresource = \"provider.bench.example/table\"\ninto = {{ connection = \"db\", table = \"public.{name}\" }}\nmode = \"full\"\nwrite = \"replace\"\nschedule = \"manual\"\n",
        connection(TARGET)
    );
    exchange(&[server.pid()], program, &provider, &consumer, |_| Ok(()))
}

/// One run of the job `table` between two nodes with this configuration, and what follows it within the time.
pub fn exchange(
    servers: &[u32],
    program: &Path,
    provider: &str,
    consumer: &str,
    then: impl FnOnce(&Site) -> anyhow::Result<()>,
) -> anyhow::Result<Run> {
    let site = Site::start(program, provider, consumer, &["table"])?;
    let pids = site.pids();
    let [_, provider, consumer] = pids[..] else { bail!("a site is three processes") };
    let mut run = measured_between(servers, &pids, || {
        let end = site.take("table")?;
        ensure!(end["state"] == "settled", "{end}");
        then(&site)
    })?;
    run.provider_peak_rss_bytes = peak_rss(provider);
    run.consumer_peak_rss_bytes = peak_rss(consumer);
    run.peak_rss_bytes = run.provider_peak_rss_bytes.max(run.consumer_peak_rss_bytes).unwrap_or(run.peak_rss_bytes);
    Ok(run)
}

/// Whether the program has the connector that the case needs; its version.
fn posthouse_knows_postgres(server: &Server, program: Option<&Path>) -> Result<String, String> {
    let program = program.ok_or("posthouse was not built")?;
    let try_it = || -> anyhow::Result<Result<String, String>> {
        let scratch = server.scratch()?;
        let config = scratch.path().join("node.toml");
        let (data, url) = (scratch.path().join("node"), server.url(SOURCE));
        std::fs::write(
            &config,
            format!(
                "[node]\nname = \"probe.bench.example\"\ndata_dir = \"{}\"\n\n[coordinator]\naddress = \"127.0.0.1:1\"\n\n[connection.db]\nkind = \"postgres\"\nurl = \"{url}\"\n",
                data.display()
            ),
        )?;
        let checked = Command::new(program).args(["--lang", "en", "check"]).arg(&config).output()?;
        if !checked.status.success() {
            let said = String::from_utf8_lossy(&checked.stderr).replace(&config.display().to_string(), "node.toml");
            let words: Vec<&str> = said.split_whitespace().collect();
            return Ok(Err(format!("this program does not take `kind = \"postgres\"`: {}", words.join(" "))));
        }
        let version = Command::new(program).arg("--version").output()?;
        Ok(Ok(String::from_utf8_lossy(&version.stdout).trim().to_owned()))
    };
    try_it().unwrap_or_else(|error| Err(format!("{error:#}")))
}

/// Runs commands as one pipeline; the last one's output and the words of all go to `log`, of which the errors
/// and the end are told on failure.
pub fn pipe(stages: Vec<Command>, log: &Path) -> anyhow::Result<()> {
    let words = File::create(log)?;
    let last = stages.len().saturating_sub(1);
    let mut input = Stdio::null();
    let mut children = Vec::new();
    for (at, mut stage) in stages.into_iter().enumerate() {
        let output = if at == last { words.try_clone()?.into() } else { Stdio::piped() };
        let name = stage.get_program().to_string_lossy().into_owned();
        let spawned = stage.stdin(input).stdout(output).stderr(words.try_clone()?).spawn();
        let mut child = spawned.with_context(|| format!("{name} does not start"))?;
        input = child.stdout.take().map_or_else(Stdio::null, Stdio::from);
        children.push((name, child));
    }
    let mut failed = None;
    for (name, mut child) in children {
        let status = child.wait()?;
        if !status.success() {
            failed.get_or_insert(format!("{name}: {status}"));
        }
    }
    if let Some(failed) = failed {
        let said = std::fs::read(log).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
        // Some say what was wrong and then repeat the whole statement: their last lines alone tell nothing.
        let (earlier, last) = lines.split_at(lines.len().saturating_sub(LINES_TOLD));
        let errors = earlier.iter().filter(|line| line.to_lowercase().contains("error")).take(LINES_TOLD);
        let told: Vec<&str> = errors.chain(last).copied().collect();
        bail!("{failed}: {}", told.join(" / "));
    }
    Ok(())
}

/// Leaves nothing outside `home` and reports to nobody.
pub fn quiet<'a>(command: &'a mut Command, home: &Path) -> &'a mut Command {
    command
        .current_dir(home)
        .env("HOME", home)
        .env("SLING_HOME_DIR", home.join("sling"))
        .env("SLING_DISABLE_TELEMETRY", "true")
        .env("DLT_DATA_DIR", home.join("dlt"))
        .env("RUNTIME__DLTHUB_TELEMETRY", "false")
}

pub fn python() -> PathBuf {
    peers().join("bin/python")
}

/// The binary inside its package, without the wrapper that would start Python first.
pub fn sling() -> Result<PathBuf, String> {
    let link = peers().join("bin/sling-binary");
    if link.is_file() { Ok(link) } else { Err(format!("{} is not there", link.display())) }
}

pub const LAND: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/land.py");
pub const DATASET: &str = "landed";
const LINES_TOLD: usize = 3;
