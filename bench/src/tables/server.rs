//! A PostgreSQL of the bench's own, thrown away afterwards: source and target are two databases of it.
//! It commits as PostgreSQL does (fsync on); only autovacuum is off, since it would fall into some runs and not
//! into others. It listens on loopback alone, behind a password that is drawn at each start.

use super::table::Table;
use crate::site::ports;
use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use std::io::BufWriter;
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub const SOURCE: &str = "source";
pub const TARGET: &str = "target";

/// What the server's settings are, for the report.
pub const SETTINGS: &[&str] =
    &["fsync=on", "shared_buffers=1GB", "max_wal_size=8GB", "wal_level=logical", "autovacuum=off", "timezone=UTC"];

pub struct Server {
    binaries: PathBuf,
    child: Child,
    port: u16,
    password: String,
    pub version: String,
    // Last: the folder goes after the server has ended.
    folder: tempfile::TempDir,
}

impl Server {
    /// Starts one with its data in a new folder below `data`, or in the system's folder for temporary files.
    pub fn start(data: Option<&Path>) -> anyhow::Result<Self> {
        let binaries = binaries()?;
        let mut builder = tempfile::Builder::new();
        builder.prefix("posthouse-bench-postgres-");
        let folder = match data {
            Some(data) => builder.tempdir_in(data),
            None => builder.tempdir(),
        }
        .context("a folder for the server's data")?;
        let user = unprivileged()?;
        let password = draw()?;
        let password_file = folder.path().join("password");
        std::io::Write::write_all(
            &mut std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&password_file)?,
            password.as_bytes(),
        )?;
        if let Some((uid, gid)) = user {
            chown(folder.path(), Some(uid), Some(gid))?;
            chown(&password_file, Some(uid), Some(gid))?;
        }
        let as_user = |program: &str| {
            let mut command = Command::new(binaries.join(program));
            command.current_dir(folder.path()).stdin(Stdio::null());
            if let Some((uid, gid)) = user {
                // Groups other than this one are dropped with the user.
                command.uid(uid).gid(gid);
            }
            command
        };
        let cluster = folder.path().join("data");
        let made = as_user("initdb")
            .args(["--username", USER, "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--pwfile"])
            .arg(&password_file)
            .arg("--pgdata")
            .arg(&cluster)
            .output()
            .context("initdb does not start")?;
        ensure!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));

        let [port] = ports()?;
        let log = std::fs::File::create(folder.path().join("log"))?;
        let mut postgres = as_user("postgres");
        postgres.arg("-D").arg(&cluster).args(["-p", &port.to_string(), "-h", "127.0.0.1", "-k"]).arg(folder.path());
        for setting in SETTINGS {
            postgres.args(["-c", setting]);
        }
        // The log may hold what the data is; it goes with the folder.
        let child = postgres.stdout(log.try_clone()?).stderr(log).spawn().context("postgres does not start")?;
        let mut server = Self { binaries, child, port, password, version: String::new(), folder };
        server.until_ready()?;
        server.version = server.ask("postgres", "SHOW server_version")?;
        Ok(server)
    }

    /// The first process of the server; all others descend from it.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A new folder for what a run leaves behind.
    pub fn scratch(&self) -> anyhow::Result<tempfile::TempDir> {
        Ok(tempfile::Builder::new().prefix("run-").tempdir_in(self.folder.path())?)
    }

    pub fn password_file(&self) -> PathBuf {
        self.folder.path().join("password")
    }

    /// With the password: for an environment, never for a command line.
    pub fn uri(&self, database: &str) -> String {
        let (password, port) = (&self.password, self.port);
        format!("postgresql://{USER}:{password}@127.0.0.1:{port}/{database}?sslmode=disable")
    }

    /// The same without the password.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/{database}", self.port)
    }

    /// One of the server's own clients, connected to a database by its environment.
    pub fn client(&self, program: &str, database: &str) -> Command {
        let mut command = Command::new(self.binaries.join(program));
        self.connect(&mut command, database);
        command
    }

    pub fn connect(&self, command: &mut Command, database: &str) {
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .env("PATH", format!("{}:{path}", self.binaries.display()))
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", USER)
            .env("PGPASSWORD", &self.password)
            .env("PGDATABASE", database)
            .env("PGOPTIONS", "-c client_min_messages=warning");
    }

    /// `psql` that stops at the first error and prints values alone.
    pub fn psql(&self, database: &str) -> Command {
        let mut command = self.client("psql", database);
        command.args(["-qXAt", "-v", "ON_ERROR_STOP=1"]);
        command
    }

    /// Runs one statement; gives what it prints.
    pub fn ask(&self, database: &str, sql: &str) -> anyhow::Result<String> {
        let output = self.psql(database).args(["-c", sql]).stdin(Stdio::null()).output()?;
        ensure!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// The source with a table in it, frozen, with its key if it has one and its view, analysed and in the server's
    /// memory as far as it goes in; gives its size as binary COPY.
    pub fn fill(&self, table: &Table, rows: u64) -> anyhow::Result<u64> {
        self.renew(SOURCE)?;
        let name = table.name;
        let copy = format!("\\copy {name} FROM STDIN (FORMAT binary, FREEZE)");
        // FREEZE wants a table of the same transaction; readers then find nothing to mark in it.
        let mut psql = self
            .psql(SOURCE)
            .args(["-c", "BEGIN", "-c", &table.create(), "-c", &copy, "-c", "COMMIT"])
            .stdin(Stdio::piped())
            .spawn()?;
        let stdin = psql.stdin.take().context("psql has an input")?;
        let mut out = BufWriter::with_capacity(1 << 20, stdin);
        let written = table.write(rows, &mut out);
        drop(out);
        ensure!(psql.wait()?.success(), "the source cannot be filled");
        let bytes = written?;
        if let Some(add) = table.add_key() {
            self.ask(SOURCE, &add)?;
        }
        self.ask(SOURCE, &table.create_view())?;
        self.ask(SOURCE, &format!("VACUUM (ANALYZE) {name}"))?;
        // As in a server in service; otherwise the first run pays for pages that the kernel has yet to give.
        self.ask(SOURCE, &format!("CREATE EXTENSION pg_prewarm; SELECT pg_prewarm('{name}')"))?;
        let found = self.ask(SOURCE, &format!("SELECT count(*) FROM {name}"))?;
        ensure!(found == rows.to_string(), "{found} rows were made, not {rows}");
        Ok(bytes)
    }

    /// A database with nothing in it, and nothing of the last run left to be written.
    pub fn renew(&self, database: &str) -> anyhow::Result<()> {
        self.ask("postgres", &format!("DROP DATABASE IF EXISTS {database} WITH (FORCE)"))?;
        self.ask("postgres", &format!("CREATE DATABASE {database}"))?;
        self.ask("postgres", "CHECKPOINT")?;
        Ok(())
    }

    fn until_ready(&mut self) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            let error = match self.ask("postgres", "SELECT 1") {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            if self.child.try_wait()?.is_some() || start.elapsed() > Duration::from_secs(30) {
                let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                bail!("the server does not start: {error:#}\n{log}");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // At once: nothing of it is needed any more.
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::QUIT);
        }
        let _ = self.child.wait();
    }
}

/// The newest server that Debian's packages laid down.
fn binaries() -> anyhow::Result<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(Result::ok);
    versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path().join("bin"))))
        .filter(|(_, folder)| folder.join("postgres").is_file() && folder.join("initdb").is_file())
        .max()
        .map(|(_, folder)| folder)
        .context("there is no PostgreSQL server in /usr/lib/postgresql; bench/install-peers installs one")
}

/// PostgreSQL refuses to run as root: the user and group that it runs as then.
pub fn unprivileged() -> anyhow::Result<Option<(u32, u32)>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let users = std::fs::read_to_string("/etc/passwd")?;
    ["postgres", "nobody"]
        .iter()
        .find_map(|name| {
            let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
            let mut ids = line.split(':').skip(2).map(str::parse);
            Some(Some((ids.next()?.ok()?, ids.next()?.ok()?)))
        })
        .context("there is neither a user postgres nor a user nobody")
}

pub fn draw() -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

const USER: &str = "postgres";
