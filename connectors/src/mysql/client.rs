//! One session with a server: how it is opened, what it is set to, and the few ways in which statements are run on it.
//! A session that failed once answers nothing any more. Rows of a read come a handful at a time, in the binary protocol,
//! so that numbers and times are never spelt out and a result is never in memory as a whole.

use super::fail::Fail;
use super::settings::Settings;
use crate::settings::{Address, TlsMode};
use crate::waiting::Waiter;
use mysql_async::prelude::Queryable;
use mysql_async::{BinaryProtocol, Conn, Opts, OptsBuilder, QueryResult, Row, SslOpts, Value};
use posthouse_protocol::problem::{Code, Problem};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::path::Path;
use std::time::Duration;
use tokio_util::io::ReaderStream;

pub(super) struct Client {
    conn: Option<Conn>,
    waiter: Option<Waiter>,
    broken: bool,
    pub(super) server: Server,
}

/// What a server says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) mariadb: bool,
    pub(super) version: (u16, u16, u16),
    /// Bytes of one statement, or of one row that comes in.
    pub(super) packet_max: usize,
}

impl Server {
    /// One of which nothing is known: what both families take since long.
    pub(super) const UNKNOWN: Self = Self { mariadb: false, version: (8, 0, 16), packet_max: 4 << 20 };

    fn of(version: &str, packet_max: usize) -> Self {
        let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
        let mut next = || numbers.next().unwrap_or(0);
        let version_of = (next(), next(), next());
        Self { mariadb: version.to_ascii_lowercase().contains("mariadb"), version: version_of, packet_max }
    }
    fn since(&self, mariadb: (u16, u16, u16), mysql: (u16, u16, u16)) -> bool {
        self.version >= if self.mariadb { mariadb } else { mysql }
    }
    /// Whether a CHECK holds, and does not only stand there.
    pub(super) fn has_checks(&self) -> bool {
        self.since((10, 2, 1), (8, 0, 16))
    }
    pub(super) fn has_windows(&self) -> bool {
        self.since((10, 2, 0), (8, 0, 2))
    }
    /// Digits behind the point that a decimal may have.
    pub(super) fn scale_max(&self) -> i8 {
        if self.mariadb && self.version >= (10, 2, 1) { 38 } else { 30 }
    }
    /// How created texts are compared: byte for byte, and a blank at the end counts where the server can.
    pub(super) fn collation(&self) -> &'static str {
        match self.mariadb {
            true if self.version >= (10, 2, 0) => "utf8mb4_nopad_bin",
            false if self.version >= (8, 0, 17) => "utf8mb4_0900_bin",
            _ => "utf8mb4_bin",
        }
    }
}

impl Client {
    pub(super) fn connect(settings: &Settings) -> Result<Self, Fail> {
        let mut last = Fail::Lost("there is no server".to_owned());
        for address in &settings.servers {
            match Self::connect_to(settings, address) {
                Err(Fail::Lost(why)) => last = Fail::Lost(format!("{address}: {why}")),
                other => return other,
            }
        }
        Err(last)
    }

    fn connect_to(settings: &Settings, address: &Address) -> Result<Self, Fail> {
        let waiter = Waiter::new().map_err(|e| Fail::Lost(e.to_string()))?;
        let options = options(settings, address)?;
        // A server may let us in and then say nothing more.
        let opened = waiter.wait_at_most(CONNECT_WAIT, async {
            let mut conn = Conn::new(options).await?;
            let server = settle(&mut conn, settings).await?;
            Ok::<_, Fail>((conn, server))
        });
        let late = || Fail::Lost(format!("it did not let us in within {} s", CONNECT_WAIT.as_secs()));
        let (conn, server) = opened.ok_or_else(late)??;
        Ok(Self { conn: Some(conn), waiter: Some(waiter), broken: false, server })
    }

    fn with<T>(&mut self, work: impl AsyncFnOnce(&mut Conn) -> mysql_async::Result<T>) -> Result<T, Fail> {
        let (Some(conn), Some(waiter), false) = (&mut self.conn, &self.waiter, self.broken) else { return Err(gone()) };
        let done = waiter.wait(work(conn)).map_err(Fail::from);
        self.broken = matches!(done, Err(Fail::Lost(_)));
        done
    }

    /// Runs a statement that takes no values, as text: some cannot be prepared. How many rows it changed.
    pub(super) fn run(&mut self, sql: &str) -> Result<u64, Fail> {
        self.with(async |conn| {
            let result = conn.query_iter(sql).await?;
            let affected = result.affected_rows();
            result.drop_result().await?;
            Ok(affected)
        })
    }

    /// The same, and how often the server had something to say of it.
    pub(super) fn run_warned(&mut self, sql: &str) -> Result<(u64, u16), Fail> {
        self.with(async |conn| {
            let result = conn.query_iter(sql).await?;
            let told = (result.affected_rows(), result.warnings());
            result.drop_result().await?;
            Ok(told)
        })
    }

    /// Rows of a statement that cannot be prepared, with their columns' names; all values are text.
    pub(super) fn ask(&mut self, sql: &str) -> Result<Vec<Row>, Fail> {
        self.with(async |conn| {
            let mut result = conn.query_iter(sql).await?;
            let mut rows = Vec::new();
            while let Some(row) = result.next().await? {
                rows.push(row);
            }
            result.drop_result().await?;
            Ok(rows)
        })
    }

    /// Runs a statement with its values. How many rows it changed.
    pub(super) fn exec(&mut self, sql: &str, values: Vec<Value>) -> Result<u64, Fail> {
        self.with(async |conn| {
            let result = conn.exec_iter(sql, values).await?;
            let affected = result.affected_rows();
            result.drop_result().await?;
            Ok(affected)
        })
    }

    /// The rows of a small result.
    pub(super) fn rows(&mut self, sql: &str, values: Vec<Value>) -> Result<Vec<Vec<Value>>, Fail> {
        self.with(async |conn| {
            let mut result = conn.exec_iter(sql, values).await?;
            let mut rows = Vec::new();
            while let Some(row) = result.next().await? {
                rows.push(row.unwrap());
            }
            result.drop_result().await?;
            Ok(rows)
        })
    }

    /// The columns of a statement's result, which is not read.
    pub(super) fn columns(&mut self, sql: &str) -> Result<Vec<mysql_async::Column>, Fail> {
        self.with(async |conn| {
            let statement = conn.prep(sql).await?;
            let columns = statement.columns().to_vec();
            conn.close(statement).await?;
            Ok(columns)
        })
    }

    /// The number that a statement of one row and column gives; NULL is none.
    pub(super) fn count(&mut self, sql: &str, values: Vec<Value>) -> Result<u64, Fail> {
        let rows = self.rows(sql, values)?;
        Ok(rows.first().and_then(|row| row.first()).map_or(0, number))
    }

    /// What LOAD DATA LOCAL gets as its file; how many rows came in, and how often the server had something to say.
    pub(super) fn load<R>(&mut self, sql: &str, file: R) -> Result<(u64, u16), Fail>
    where
        R: tokio::io::AsyncRead + Send + Sync + 'static,
    {
        self.with(async |conn| {
            conn.set_infile_handler(async move {
                Ok(Box::pin(ReaderStream::with_capacity(file, LOAD_BYTES)) as mysql_async::InfileData)
            });
            let result = conn.query_iter(sql).await?;
            let told = (result.affected_rows(), result.warnings());
            result.drop_result().await?;
            Ok(told)
        })
    }

    /// What the server had to say of the last statement, and how often.
    pub(super) fn warnings(&mut self) -> Result<Vec<String>, Fail> {
        let rows = self.ask("SHOW WARNINGS LIMIT 10")?;
        Ok(rows.into_iter().filter_map(|row| row.as_ref(2).map(text)).collect())
    }

    /// Begins to read; the rows come with [`Rows::fill`].
    pub(super) fn stream(&mut self, sql: &str, values: Vec<Value>) -> Result<Rows<'_>, Fail> {
        let Self { conn, waiter, broken, .. } = self;
        let (Some(conn), Some(waiter), false) = (conn, waiter, *broken) else { return Err(gone()) };
        match waiter.wait(conn.exec_iter(sql, values)) {
            Ok(result) => Ok(Rows { waiter, broken, result, is_over: false }),
            Err(error) => {
                let fail = Fail::from(error);
                *broken = matches!(fail, Fail::Lost(_));
                Err(fail)
            }
        }
    }

    #[cfg(test)]
    pub(super) fn id(&self) -> u32 {
        self.conn.as_ref().map_or(0, Conn::id)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let (Some(conn), Some(waiter)) = (self.conn.take(), self.waiter.take()) {
            // A server notes lines that end without a word.
            waiter.part(GOODBYE_WAIT, conn.disconnect());
        }
    }
}

/// Whatever the server or the account is set to, a session of ours is set to this.
async fn settle(conn: &mut Conn, settings: &Settings) -> Result<Server, Fail> {
    for statement in SESSION {
        conn.query_drop(*statement).await?;
    }
    let asked: Vec<Row> = conn.query("SELECT VERSION(), @@max_allowed_packet").await?;
    let told = |index: usize| asked.first().and_then(|row| row.as_ref(index));
    let packet_max = usize::try_from(told(1).map_or(0, number)).unwrap_or(usize::MAX);
    let server = Server::of(&told(0).map(text).unwrap_or_default(), packet_max);
    for statement in WHERE_KNOWN {
        match conn.query_drop(*statement).await.map_err(Fail::from) {
            Ok(()) | Err(Fail::Server(_)) => {}
            Err(fail) => return Err(fail),
        }
    }
    if let Some(at_most) = settings.statement_timeout {
        let ms = at_most.0;
        conn.query_drop(match server.mariadb {
            true => format!("SET SESSION max_statement_time = {}.{:03}", ms / 1_000, ms % 1_000),
            false => format!("SET SESSION max_execution_time = {ms}"),
        })
        .await?;
    }
    Ok(server)
}

/// Rows on their way.
pub(super) struct Rows<'c> {
    waiter: &'c Waiter,
    broken: &'c mut bool,
    result: QueryResult<'c, 'static, BinaryProtocol>,
    /// Whether there are no more.
    is_over: bool,
}

impl Rows<'_> {
    /// Puts the next rows into `rows`, in place of what is there; false where these are the last.
    pub(super) fn fill(&mut self, rows: &mut Vec<Row>) -> Result<bool, Fail> {
        rows.clear();
        let result = &mut self.result;
        let filled: mysql_async::Result<bool> = self.waiter.wait(async {
            let mut bytes = 0;
            while rows.len() < FILL_ROWS && bytes < FILL_BYTES {
                let Some(row) = result.next().await? else { return Ok(false) };
                bytes += weight(&row);
                rows.push(row);
            }
            Ok(true)
        });
        self.is_over = !matches!(filled, Ok(true));
        filled.map_err(|error| {
            let fail = Fail::from(error);
            *self.broken = matches!(fail, Fail::Lost(_));
            fail
        })
    }
}

impl Drop for Rows<'_> {
    /// The next statement would wait for all that nobody wants any more: what does not come soon ends the session.
    fn drop(&mut self) {
        if self.is_over || *self.broken {
            return;
        }
        let result = &mut self.result;
        let rest = self.waiter.wait_at_most(DRAIN_WAIT, async { while let Ok(Some(_)) = result.next().await {} });
        *self.broken = rest.is_none();
    }
}

fn weight(row: &Row) -> usize {
    let of = |index: usize| match row.as_ref(index) {
        Some(Value::Bytes(bytes)) => bytes.len(),
        _ => 0,
    };
    (0..row.len()).map(of).sum()
}

fn gone() -> Fail {
    Fail::Lost("the session was lost before".to_owned())
}

/// A value as text; nothing where it is NULL.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Int(number) => number.to_string(),
        Value::UInt(number) => number.to_string(),
        _ => String::new(),
    }
}

/// The same, or none.
pub(super) fn optional(value: &Value) -> Option<String> {
    (*value != Value::NULL).then(|| text(value))
}

/// A value as a number that counts something; sums come as decimals.
pub(super) fn number(value: &Value) -> u64 {
    match value {
        Value::Int(number) => u64::try_from(*number).unwrap_or(0),
        Value::UInt(number) => *number,
        Value::Bytes(bytes) => std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()).unwrap_or(0),
        _ => 0,
    }
}

fn options(settings: &Settings, address: &Address) -> Result<Opts, Fail> {
    let builder = OptsBuilder::default()
        .user(Some(settings.user.clone()))
        .pass(settings.password()?)
        .db_name(Some(settings.database.clone()))
        // Where the operator says an address, it is that address.
        .prefer_socket(false)
        .tcp_nodelay(true)
        .tcp_keepalive(Some(KEEPALIVE))
        // What a row may take that comes in; what the server takes is asked of it.
        .max_allowed_packet(Some(ROW_BYTES_MAX))
        .wait_timeout(Some(SESSION_SECONDS));
    let builder = match address {
        Address::Tcp { host, port } => builder.ip_or_hostname(host.clone()).tcp_port(*port),
        Address::Unix(path) => builder.socket(Some(path.display().to_string())),
    };
    let mode = settings.tls(address);
    if mode != TlsMode::Off {
        // The driver takes the process's own. Where one is set already, it is this one.
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    }
    let secured = match mode {
        TlsMode::Off => None,
        TlsMode::Require => Some(SslOpts::default().with_danger_accept_invalid_certs(true)),
        TlsMode::VerifyFull => {
            let trusted = match &settings.ca_file {
                Some(file) => of_file(file)?,
                None => of_machine()?,
            };
            let trusted = trusted.into_iter().map(|certificate| certificate.to_vec().into()).collect();
            Some(SslOpts::default().with_disable_built_in_roots(true).with_root_certs(trusted))
        }
    };
    Ok(builder.ssl_opts(secured).into())
}

fn of_file(file: &Path) -> Result<Vec<CertificateDer<'static>>, Fail> {
    let bad = |what: String| Fail::Lost(format!("{}: {what}", file.display()));
    let found = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| bad(e.to_string()))?;
    if found.is_empty() { Err(bad("it holds no certificate".to_owned())) } else { Ok(found) }
}

/// The machine's CAs. One that cannot be read is none, and does not stand in the way of the others.
fn of_machine() -> Result<Vec<CertificateDer<'static>>, Fail> {
    let found = rustls_native_certs::load_native_certs().certs;
    let mut roots = rustls::RootCertStore::empty();
    let found: Vec<_> = found.into_iter().filter(|certificate| roots.add(certificate.clone()).is_ok()).collect();
    if found.is_empty() {
        let why =
            "this machine has no CA certificates: install `ca-certificates`, or name the server's CA with `ca_file`";
        return Err(Problem::new(Code::ConfigMissing).with("file", "ca_file").cause(why).into());
    }
    Ok(found)
}

/// Bad values are errors, and an id of 0 is no question for the next one; a text ends where it ends, and a backslash
/// escapes. Times are in UTC; a transaction sees one state.
const SESSION: &[&str] = &[
    "SET NAMES utf8mb4",
    "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO,\
     NO_AUTO_VALUE_ON_ZERO,NO_ENGINE_SUBSTITUTION'",
    "SET SESSION time_zone = '+00:00'",
    "SET SESSION autocommit = 1",
    "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
];

/// Not every relative knows all of these, and one that does not needs none.
const WHERE_KNOWN: &[&str] = &[
    "SET SESSION foreign_key_checks = 1",
    // Switched off, MariaDB forgets the rows of a savepoint together with those before it.
    "SET SESSION unique_checks = 1",
    "SET SESSION sql_notes = 1",
    "SET SESSION sql_warnings = 0",
    "SET SESSION sql_auto_is_null = 0",
    "SET SESSION sql_safe_updates = 0",
    "SET SESSION sql_big_selects = 1",
    "SET SESSION sql_select_limit = DEFAULT",
    "SET SESSION completion_type = 0",
    "SET SESSION wait_timeout = 86400",
    "SET SESSION net_write_timeout = 3600",
    // Nobody waits longer for who has a table locked; the server's own limit is a day, or a year.
    "SET SESSION lock_wait_timeout = 3600",
    // Rows that others have changed since are merged with, not refused.
    "SET SESSION innodb_snapshot_isolation = 0",
    "SET SESSION net_read_timeout = 3600",
];

const CONNECT_WAIT: Duration = Duration::from_secs(if cfg!(test) { 15 } else { 30 });
const GOODBYE_WAIT: Duration = Duration::from_secs(1);
/// For rows that are on their way when nobody wants them any more.
const DRAIN_WAIT: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 5 });
const KEEPALIVE: Duration = Duration::from_secs(60);
const SESSION_SECONDS: usize = 86_400;
/// What the protocol itself allows.
const ROW_BYTES_MAX: usize = 1 << 30;
/// Rows that are taken from the line at a time, or bytes of them.
const FILL_ROWS: usize = 512;
const FILL_BYTES: usize = 4 << 20;
/// Of a file that is loaded, in one packet.
const LOAD_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_known_by_its_version() {
        let of = |version| Server::of(version, 1 << 20);
        let maria = of("10.11.19-MariaDB-0+deb12u1");
        assert_eq!((maria.mariadb, maria.version), (true, (10, 11, 19)));
        assert_eq!((maria.collation(), maria.scale_max(), maria.has_checks()), ("utf8mb4_nopad_bin", 38, true));
        let old = of("5.7.44-log");
        assert_eq!((old.collation(), old.scale_max(), old.has_checks()), ("utf8mb4_bin", 30, false));
        assert_eq!(of("8.0.36").collation(), "utf8mb4_0900_bin");
        assert_eq!(of("8.0.11-TiDB-v7.5.0").collation(), "utf8mb4_bin");
        assert!(!of("5.7.44-log").has_windows() && of("8.0.36").has_windows());
    }
}
