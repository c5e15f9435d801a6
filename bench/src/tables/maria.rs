//! A MariaDB of the bench's own, thrown away afterwards, beside the PostgreSQL: the other end where a table goes from
//! one engine to the other. It commits as a server in service does that others may replicate from: its log and its
//! binary log are synced. It listens on loopback alone, behind a password that is drawn at each start.

use super::content::base;
use super::lines::Lines;
use super::server::{SOURCE, TARGET, draw, unprivileged};
use super::table::Table;
use crate::site::ports;
use anyhow::{Context, bail, ensure};
use std::io::BufWriter;
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What the server's settings are, for the report.
pub const SETTINGS: &[&str] = &[
    "innodb_buffer_pool_size=1G",
    "innodb_log_file_size=1G",
    "innodb_flush_log_at_trx_commit=1",
    "log_bin=binlog",
    "binlog_format=ROW",
    "sync_binlog=1",
    "local_infile=1",
    "character_set_server=utf8mb4",
];

pub struct Maria {
    child: Child,
    port: u16,
    password: String,
    pub version: String,
    // Last: the folder goes after the server has ended.
    folder: tempfile::TempDir,
}

impl Maria {
    /// Starts one with its data in a new folder below `data`, or in the system's folder for temporary files.
    pub fn start(data: Option<&Path>) -> anyhow::Result<Self> {
        let (server, install) = (program("mariadbd")?, program("mariadb-install-db")?);
        let mut builder = tempfile::Builder::new();
        builder.prefix("posthouse-bench-mariadb-");
        let folder = match data {
            Some(data) => builder.tempdir_in(data),
            None => builder.tempdir(),
        }
        .context("a folder for the server's data")?;
        let user = unprivileged()?;
        if let Some((uid, gid)) = user {
            chown(folder.path(), Some(uid), Some(gid))?;
        }
        let password = draw()?;
        let owner = format!(
            "CREATE USER '{USER}'@'%' IDENTIFIED BY '{password}';\nGRANT ALL PRIVILEGES ON *.* TO '{USER}'@'%';\nDROP USER IF EXISTS 'root'@'localhost';\n"
        );
        for (name, content) in [("password", &password), ("owner.sql", &owner)] {
            let path = folder.path().join(name);
            let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            std::io::Write::write_all(&mut file, content.as_bytes())?;
            if let Some((uid, gid)) = user {
                chown(&path, Some(uid), Some(gid))?;
            }
        }
        let as_user = |program: &Path| {
            let mut command = Command::new(program);
            command.current_dir(folder.path()).stdin(Stdio::null());
            if let Some((uid, gid)) = user {
                // Groups other than this one are dropped with the user.
                command.uid(uid).gid(gid);
            }
            command
        };
        let under = |name: &str| folder.path().join(name).display().to_string();
        let cluster = format!("--datadir={}", under("data"));
        // A server that starts, the one that makes the data too, clears its folder for temporary tables.
        let made = as_user(&install)
            .env("TMPDIR", folder.path())
            .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"])
            .args(["--skip-name-resolve", &cluster])
            .output()
            .context("mariadb-install-db does not start")?;
        let said = [made.stdout, made.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
        ensure!(made.status.success(), "mariadb-install-db: {}", said.join("\n"));

        let [port] = ports()?;
        let log = std::fs::File::create(folder.path().join("log"))?;
        let mut mariadbd = as_user(&server);
        mariadbd.args(["--no-defaults", &cluster, "--bind-address=127.0.0.1", "--skip-name-resolve"]);
        mariadbd.args([
            format!("--port={port}"),
            format!("--socket={}", under("s")),
            format!("--tmpdir={}", under("")),
        ]);
        mariadbd.args([format!("--pid-file={}", under("pid")), format!("--init-file={}", under("owner.sql"))]);
        mariadbd.args(SETTINGS.iter().map(|setting| format!("--{setting}")));
        // The log may hold what the data is; it goes with the folder.
        let child = mariadbd.stdout(log.try_clone()?).stderr(log).spawn().context("mariadbd does not start")?;
        let mut maria = Self { child, port, password, version: String::new(), folder };
        maria.until_ready()?;
        maria.version = maria.ask("mysql", "SELECT VERSION()")?;
        Ok(maria)
    }

    /// The server's one process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn password_file(&self) -> PathBuf {
        self.folder.path().join("password")
    }

    /// With the password, for an environment or a file, never for a command line; `scheme` is what the client calls it.
    pub fn uri(&self, scheme: &str, database: &str) -> String {
        format!("{scheme}://{USER}:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    /// The same without the password, as Posthouse has it.
    pub fn url(&self, database: &str) -> String {
        format!("mysql://{USER}@127.0.0.1:{}/{database}", self.port)
    }

    /// The server's own client, connected to a database; it prints values alone, between tabs.
    pub fn client(&self, database: &str) -> Command {
        let mut command = Command::new("mariadb");
        // The password comes by the environment: a command line can be read by all.
        command.env("MYSQL_PWD", &self.password);
        command.args([
            "--no-defaults",
            "--host=127.0.0.1",
            &format!("--port={}", self.port),
            &format!("--user={USER}"),
        ]);
        command.args(["--default-character-set=utf8mb4", "--local-infile=1", "--batch", "--skip-column-names"]);
        command.args(["--database", database]);
        command
    }

    /// Runs statements; gives what they print.
    pub fn ask(&self, database: &str, sql: &str) -> anyhow::Result<String> {
        let output = self.client(database).args(["-e", sql]).stdin(Stdio::null()).output()?;
        ensure!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// The source with a table in it, with its view, analysed.
    pub fn fill(&self, table: &Table, rows: u64) -> anyhow::Result<()> {
        self.renew(SOURCE)?;
        self.ask(SOURCE, &create(table))?;
        let mut mariadb = self.client(SOURCE).args(["-e", &load(table)]).stdin(Stdio::piped()).spawn()?;
        let stdin = mariadb.stdin.take().context("mariadb has an input")?;
        let mut lines = Lines::new(BufWriter::with_capacity(1 << 20, stdin));
        let written = table.write_as(rows, &mut lines).and_then(|()| lines.finish());
        ensure!(mariadb.wait()?.success(), "the source cannot be filled");
        written?;
        self.ask(SOURCE, &create_view(table))?;
        self.ask(SOURCE, &format!("ANALYZE TABLE {}", table.name))?;
        let found = self.ask(SOURCE, &format!("SELECT COUNT(*) FROM {}", table.name))?;
        ensure!(found == rows.to_string(), "{found} rows were made, not {rows}");
        self.settle()
    }

    /// A database with nothing in it, and nothing of the last run left to be written.
    pub fn renew(&self, database: &str) -> anyhow::Result<()> {
        self.ask("mysql", &format!("DROP DATABASE IF EXISTS {database}; CREATE DATABASE {database}; RESET MASTER"))?;
        self.settle()
    }

    /// Empty but for the table, which some subjects do not make.
    pub fn prepare(&self, table: &Table) -> anyhow::Result<()> {
        self.ask(TARGET, &create(table)).map(|_| ())
    }

    /// Has all pages written that are still to be: the next run does not pay for them.
    fn settle(&self) -> anyhow::Result<()> {
        let status = "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'Innodb_buffer_pool_pages_dirty'";
        self.ask("mysql", "SET GLOBAL innodb_max_dirty_pages_pct = 0")?;
        let start = Instant::now();
        while self.ask("mysql", status)?.parse::<u64>()? > 0 && start.elapsed() < SETTLE {
            std::thread::sleep(Duration::from_millis(100));
        }
        self.ask("mysql", "SET GLOBAL innodb_max_dirty_pages_pct = DEFAULT").map(|_| ())
    }

    fn until_ready(&mut self) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            let error = match self.ask("mysql", "SELECT 1") {
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

impl Drop for Maria {
    fn drop(&mut self) {
        // At once: nothing of it is needed any more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The table in the types that a database made for MariaDB has.
pub fn create(table: &Table) -> String {
    let column = |(name, kind): &(&str, &str)| {
        let own = match base(kind) {
            "timestamp" | "timestamptz" => kind.replacen(base(kind), "datetime(6)", 1),
            "numeric" => kind.replacen("numeric", "decimal", 1),
            "jsonb" => kind.replacen("jsonb", "json", 1),
            "bytea" => kind.replacen("bytea", "varbinary(32)", 1),
            _ => (*kind).to_owned(),
        };
        format!("{name} {own}")
    };
    let mut lines: Vec<String> = table.columns.iter().map(column).collect();
    if !table.key.is_empty() {
        lines.push(format!("PRIMARY KEY ({})", table.key.join(", ")));
    }
    format!("CREATE TABLE {} ({}) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4", table.name, lines.join(", "))
}

/// The quickest way in by hand: lines from the client's input, into an empty table by InnoDB's bulk insert, which it
/// does only without these two checks. Neither has anything to do here.
pub fn load(table: &Table) -> String {
    let is_bytes = |kind: &str| base(kind) == "bytea";
    let place = |(name, kind): &(&str, &str)| if is_bytes(kind) { format!("@{name}") } else { (*name).to_owned() };
    let places: Vec<String> = table.columns.iter().map(place).collect();
    let bytes = table.columns.iter().filter(|(_, kind)| is_bytes(kind));
    let bytes: Vec<String> = bytes.map(|(name, _)| format!("{name} = UNHEX(@{name})")).collect();
    let set = if bytes.is_empty() { String::new() } else { format!(" SET {}", bytes.join(", ")) };
    format!(
        "SET unique_checks = 0, foreign_key_checks = 0; LOAD DATA LOCAL INFILE '/dev/stdin' INTO TABLE {} CHARACTER SET utf8mb4 ({}){set}",
        table.name,
        places.join(", ")
    )
}

/// The table's values as COPY of PostgreSQL reads them from the client's lines.
pub fn select(table: &Table) -> String {
    let value = |(name, kind): &(&str, &str)| match base(kind) {
        "bytea" => format!("CONCAT('\\\\x', HEX({name})) AS {name}"),
        _ => (*name).to_owned(),
    };
    let values: Vec<String> = table.columns.iter().map(value).collect();
    format!("SELECT {} FROM {}", values.join(", "), table.name)
}

/// The view that has bytes as hex text.
fn create_view(table: &Table) -> String {
    format!("CREATE VIEW {} AS {}", table.view(), select(table))
}

fn program(name: &str) -> anyhow::Result<PathBuf> {
    let folders = ["/usr/sbin", "/usr/bin", "/usr/libexec", "/usr/local/bin"];
    let found = folders.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.is_file());
    found.with_context(|| format!("there is no {name}; bench/install-peers installs MariaDB"))
}

const USER: &str = "bench";
const SETTLE: Duration = Duration::from_secs(60);
