//! One session with a server: statements, rows as they come, rows in bulk. A call waits on the calling thread, each
//! phase under a limit of its own and never under the driver's; whoever leaves an answer or a load half-way leaves a
//! session that is not used again. What a server says is told apart here: lost, refused, or wrong.

use super::settings::Settings;
use crate::settings::{Address, TlsMode};
use crate::waiting::Waiter;
use encoding_rs::Encoding;
use futures_util::TryStreamExt;
use posthouse_platform::identity::read_public;
use posthouse_protocol::problem::Problem;
use rustix::net::sockopt;
use std::future::Future;
use std::io;
use std::net::ToSocketAddrs;
use std::time::Duration;
use tiberius::error::Error;
use tiberius::{
    AuthMethod, ColumnData, Config, EncryptionLevel, MetaDataColumn, QueryItem, Row, ToSql, TokenRow, TypeInfo,
    VarLenType,
};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncWriteCompatExt};

type Wire = tiberius::Client<Compat<TcpStream>>;

pub(super) struct Client {
    wire: Wire,
    waiter: Waiter,
    /// What the operator says that a statement may take.
    statement: Option<Duration>,
    /// What the next one may take.
    limit: Option<Duration>,
    broken: bool,
}

/// Why a statement did not do what it was to do.
#[derive(Debug, thiserror::Error)]
pub(super) enum SqlError {
    #[error("{0}")]
    Io(io::Error),
    #[error("{}", said(.0))]
    Server(tiberius::error::TokenError),
    #[error("{0}")]
    Driver(Error),
    #[error("no answer within {} s", .0.as_secs_f32())]
    Timeout(Duration),
    #[error("{0}")]
    Secret(Problem),
    #[error("{0}")]
    Odd(String),
}

impl Client {
    pub(super) fn connect(settings: &Settings) -> Result<Self, SqlError> {
        let waiter = Waiter::new()?;
        let config = config(settings)?;
        let socket = dial(&settings.address)?;
        let wire = waiter.wait(async {
            socket.set_nonblocking(true)?;
            let socket = TcpStream::from_std(socket)?;
            tiberius::Client::connect(config, socket.compat_write()).await.map_err(SqlError::from)
        })?;
        let statement = settings.statement_timeout.map(|timeout| Duration::from_millis(timeout.0));
        let mut client = Self { wire, waiter, statement, limit: None, broken: false };
        client.be_quick();
        client.batch(SESSION)?;
        Ok(client)
    }

    /// What follows is about names and single rows.
    pub(super) fn be_quick(&mut self) {
        self.limit = Some(self.statement.unwrap_or(QUICK));
    }
    /// What follows is about whole tables: it takes the time that the operator allows, or any.
    pub(super) fn take_time(&mut self) {
        self.limit = self.statement;
    }
    /// A session that cannot be used any more.
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Statements without parameters whose rows, if there are any, are of no interest.
    pub(super) fn batch(&mut self, sql: &str) -> Result<(), SqlError> {
        self.query(sql, &[]).map(drop)
    }
    pub(super) fn execute(&mut self, sql: &str, params: &[ColumnData<'_>]) -> Result<(), SqlError> {
        self.query(sql, params).map(drop)
    }

    /// All rows of the first result: of statements that give few.
    pub(super) fn query(&mut self, sql: &str, params: &[ColumnData<'_>]) -> Result<Vec<Row>, SqlError> {
        let bound = bound(params);
        let Self { wire, waiter, limit, .. } = self;
        let rows = within(waiter, *limit, async {
            match bound.is_empty() {
                true => wire.simple_query(sql).await?.into_first_result().await,
                false => wire.query(sql, &bound).await?.into_first_result().await,
            }
        });
        self.judge(rows)
    }

    /// The number that a statement of one row and column gives; none where it is NULL.
    pub(super) fn number(&mut self, sql: &str, params: &[ColumnData<'_>]) -> Result<Option<i64>, SqlError> {
        Ok(self.query(sql, params)?.first().and_then(|row| number(row, 0)))
    }
    pub(super) fn count(&mut self, sql: &str, params: &[ColumnData<'_>]) -> Result<u64, SqlError> {
        let count = self.number(sql, params)?.unwrap_or_default();
        u64::try_from(count).map_err(|_| SqlError::Odd(format!("the server counts {count}")))
    }

    /// Hands out rows as they come; only some of them are held at a time.
    pub(super) fn stream<E: From<SqlError>>(
        &mut self,
        sql: &str,
        params: &[ColumnData<'_>],
        each: &mut dyn FnMut(&Row) -> Result<(), E>,
    ) -> Result<(), E> {
        // Until the answer has been read to its end there is something on the line.
        self.broken = true;
        let bound = bound(params);
        let Self { wire, waiter, limit, .. } = self;
        let mut stream = match bound.is_empty() {
            true => within(waiter, *limit, wire.simple_query(sql))?,
            false => within(waiter, *limit, wire.query(sql, &bound))?,
        };
        let mut rows = Vec::with_capacity(ROWS_HELD);
        loop {
            let more = within(waiter, *limit, async {
                let mut held = 0;
                while rows.len() < ROWS_HELD && held < BYTES_HELD {
                    match stream.try_next().await? {
                        Some(QueryItem::Row(row)) => {
                            held += weight(&row);
                            rows.push(row);
                        }
                        Some(QueryItem::Metadata(_)) => {}
                        None => return Ok(false),
                    }
                }
                Ok::<bool, Error>(true)
            })?;
            for row in rows.drain(..) {
                each(&row)?;
            }
            if !more {
                break;
            }
        }
        drop(stream);
        self.broken = false;
        Ok(())
    }

    /// What the driver takes for the encoding of a table's columns of bytes of text; none of others.
    pub(super) fn encodings(
        &mut self,
        table: &str,
        columns: &[&str],
    ) -> Result<Vec<Option<&'static Encoding>>, SqlError> {
        let Self { wire, waiter, limit, .. } = self;
        let found = within(waiter, *limit, wire.column_metadata(table, columns));
        let encoding = |column: &MetaDataColumn<'static>| match column.base().ty() {
            TypeInfo::VarLenSized(text) if matches!(text.r#type(), VarLenType::BigChar | VarLenType::BigVarChar) => {
                text.collation().and_then(|collation| collation.encoding().ok())
            }
            _ => None,
        };
        Ok(self.judge(found)?.iter().map(encoding).collect())
    }

    /// Loads rows into columns of a table; those that the driver cannot say in a column's type are told with the reason
    /// and the others are loaded. A session whose load failed is not used again.
    pub(super) fn load<'r>(
        &'r mut self,
        table: &'r str,
        columns: &'r [&'r str],
        rows: Vec<TokenRow<'r>>,
    ) -> Result<Vec<(usize, String)>, SqlError> {
        self.broken = true;
        let Self { wire, waiter, limit, broken, .. } = self;
        let refused = within(waiter, *limit, async {
            let mut load = wire.bulk_insert_columns(table, columns).await?;
            let mut refused = Vec::new();
            for (index, row) in rows.into_iter().enumerate() {
                match load.send(row).await {
                    Ok(()) => {}
                    // None of the row was sent.
                    Err(Error::BulkInput(why) | Error::Encoding(why)) => refused.push((index, why.into_owned())),
                    Err(error) => return Err(error),
                }
            }
            load.finalize().await?;
            Ok(refused)
        })?;
        *broken = false;
        Ok(refused)
    }

    /// Whether the transaction stands as it was before a statement that was refused.
    pub(super) fn stands(&mut self) -> Result<bool, SqlError> {
        let rows = self.query("SELECT CAST(XACT_STATE() AS int), @@TRANCOUNT", &[])?;
        Ok(rows.first().is_some_and(|row| number(row, 0) == Some(1) && number(row, 1) == Some(1)))
    }
    pub(super) fn roll_back(&mut self) -> Result<(), SqlError> {
        self.be_quick();
        self.batch("IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION")
    }

    fn judge<T>(&mut self, outcome: Result<T, SqlError>) -> Result<T, SqlError> {
        if let Err(error) = &outcome {
            self.broken |= !matches!(error, SqlError::Server(said) if said.class() < FATAL);
        }
        outcome
    }
}

impl SqlError {
    /// The server's number for it.
    pub(super) fn code(&self) -> Option<u32> {
        match self {
            Self::Server(said) => Some(said.code()),
            _ => None,
        }
    }
    /// The server is gone, or asks to be asked again: a deadlock, a lock that did not come, memory that was short.
    pub(super) fn is_lost(&self) -> bool {
        match self {
            Self::Io(_) | Self::Timeout(_) => true,
            Self::Driver(error) => matches!(error, Error::Io { .. } | Error::Protocol(_)),
            Self::Server(said) => said.class() >= FATAL || AGAIN.contains(&said.code()),
            Self::Secret(_) | Self::Odd(_) => false,
        }
    }
    /// The data was refused: a value that has no form in its column, a constraint, a trigger that raised.
    pub(super) fn is_refusal(&self) -> bool {
        !self.is_lost() && self.code().is_some_and(|code| REFUSALS.contains(&code) || code >= RAISED)
    }
}

impl From<Error> for SqlError {
    fn from(error: Error) -> Self {
        match error {
            Error::Server(said) => Self::Server(said),
            other => Self::Driver(other),
        }
    }
}

impl From<io::Error> for SqlError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn said(error: &tiberius::error::TokenError) -> String {
    format!("{} ({})", error.message(), error.code())
}

fn within<T>(
    waiter: &Waiter,
    limit: Option<Duration>,
    work: impl Future<Output = tiberius::Result<T>>,
) -> Result<T, SqlError> {
    match limit {
        None => Ok(waiter.wait(work)?),
        Some(limit) => match waiter.wait_at_most(limit, work) {
            Some(done) => Ok(done?),
            None => Err(SqlError::Timeout(limit)),
        },
    }
}

fn bound<'p>(params: &'p [ColumnData<'p>]) -> Vec<&'p dyn ToSql> {
    params.iter().map(|param| param as &dyn ToSql).collect()
}

/// Tries the addresses of a name in turn.
fn dial(address: &Address) -> io::Result<std::net::TcpStream> {
    let Address::Tcp { host, port } = address else {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "the server is reached by TCP only"));
    };
    let because = |error: io::Error| io::Error::new(error.kind(), format!("{address}: {error}"));
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for found in (host.as_str(), *port).to_socket_addrs().map_err(because)? {
        match std::net::TcpStream::connect_timeout(&found, CONNECT) {
            Ok(socket) => {
                socket.set_nodelay(true)?;
                // A statement may run for hours in silence: only the peer's kernel can tell that its machine is there.
                sockopt::set_socket_keepalive(&socket, true)?;
                sockopt::set_tcp_keepidle(&socket, Duration::from_secs(60))?;
                sockopt::set_tcp_keepintvl(&socket, Duration::from_secs(15))?;
                sockopt::set_tcp_keepcnt(&socket, 6)?;
                sockopt::set_tcp_user_timeout(&socket, 150_000)?;
                return Ok(socket);
            }
            Err(error) => failed = error,
        }
    }
    Err(because(failed))
}

/// How the driver logs in. Its own limits are set here in so many words: of a command there is none, since each phase
/// has one of ours; those that come with the driver would end an export after half a minute of silence.
fn config(settings: &Settings) -> Result<Config, SqlError> {
    let mut config = Config::new();
    if let Address::Tcp { host, port } = &settings.address {
        config.host(host);
        config.port(*port);
    }
    config.database(&settings.database);
    config.application_name("posthouse");
    config.authentication(AuthMethod::sql_server(&settings.user, settings.password()?));
    config.handshake_timeout(Some(HANDSHAKE));
    config.command_timeout(None);
    match settings.tls() {
        TlsMode::Off => config.encryption(EncryptionLevel::NotSupported),
        TlsMode::Require => {
            config.encryption(EncryptionLevel::Required);
            config.trust_cert();
        }
        TlsMode::VerifyFull => {
            config.encryption(EncryptionLevel::Required);
            if let Some(path) = &settings.ca_file {
                config.trust_cert_ca_bundle(read_public(path, CA_BYTES_MAX).map_err(SqlError::Secret)?);
            }
        }
    }
    Ok(config)
}

/// What a row takes in memory, about.
fn weight(row: &Row) -> usize {
    let value = |data: &ColumnData<'static>| match data {
        ColumnData::Binary(Some(bytes)) => bytes.len(),
        ColumnData::String(Some(text)) => text.len(),
        _ => 16,
    };
    row.cells().map(|(_, data)| value(data)).sum()
}

/// A whole number of any width; none of NULL and of anything else.
pub(super) fn number(row: &Row, index: usize) -> Option<i64> {
    match row.get_column_data(index).ok()? {
        ColumnData::U8(value) => value.map(i64::from),
        ColumnData::I16(value) => value.map(i64::from),
        ColumnData::I32(value) => value.map(i64::from),
        ColumnData::I64(value) => *value,
        ColumnData::Bit(value) => value.map(i64::from),
        _ => None,
    }
}
pub(super) fn text(row: &Row, index: usize) -> Option<&str> {
    match row.get_column_data(index).ok()? {
        ColumnData::String(text) => text.as_deref(),
        _ => None,
    }
}
pub(super) fn bytes(row: &Row, index: usize) -> Option<&[u8]> {
    match row.get_column_data(index).ok()? {
        ColumnData::Binary(bytes) => bytes.as_deref(),
        _ => None,
    }
}
/// A parameter.
pub(super) fn param(text: &str) -> ColumnData<'_> {
    ColumnData::String(Some(text.into()))
}
pub(super) fn id(number: i64) -> ColumnData<'static> {
    ColumnData::I64(Some(number))
}

/// Whatever the account's and the database's own settings say.
const SESSION: &str = "SET XACT_ABORT ON; SET LOCK_TIMEOUT 60000; SET ANSI_NULLS ON; SET ANSI_PADDING ON; \
     SET ANSI_WARNINGS ON; SET ARITHABORT ON; SET CONCAT_NULL_YIELDS_NULL ON; SET QUOTED_IDENTIFIER ON; \
     SET NUMERIC_ROUNDABORT OFF; SET IMPLICIT_TRANSACTIONS OFF; SET NOCOUNT OFF";
const CONNECT: Duration = Duration::from_secs(10);
const HANDSHAKE: Duration = Duration::from_secs(15);
/// Longer than a lock is waited for.
const QUICK: Duration = Duration::from_secs(300);
const ROWS_HELD: usize = 256;
const BYTES_HELD: usize = 4 << 20;
const CA_BYTES_MAX: usize = 4 << 20;
/// From this class on the server closes the session behind an error.
const FATAL: u8 = 20;
/// A deadlock, a lock that did not come, a snapshot that was overtaken, short memory, a session that was ended.
const AGAIN: [u32; 10] = [1_205, 1_222, 3_960, 3_961, 701, 8_645, 8_651, 596, 6_005, 17_142];
/// What triggers and procedures raise.
const RAISED: u32 = 50_000;
/// NULL, constraints, duplicates, overflow, truncation, conversion, an index entry or a row that is too long, a trigger
/// that ended the transaction.
const REFUSALS: [u32; 18] =
    [515, 547, 2_601, 2_627, 220, 8_115, 8_152, 2_628, 241, 242, 245, 8_114, 295, 1_946, 511, 3_609, 3_616, 3_621];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_driver_has_no_limit_of_its_own() {
        let keys = [("url".to_owned(), "sqlserver://u@127.0.0.1/d".into())];
        let settings = Settings::parse(&keys.into_iter().collect()).unwrap();
        let config = config(&settings).unwrap();
        assert_eq!(config.get_command_timeout(), None, "30 s would end an export");
        assert_eq!(config.get_handshake_timeout(), Some(HANDSHAKE));
    }

    #[test]
    fn a_line_that_is_lost_is_told_apart_from_a_row_that_is_refused() {
        let cut = SqlError::from(Error::Io { kind: io::ErrorKind::UnexpectedEof, message: String::new() });
        assert!(cut.is_lost() && !cut.is_refusal());
        assert!(SqlError::Timeout(QUICK).is_lost());
        let odd = SqlError::Odd(String::new());
        assert!(!odd.is_lost() && !odd.is_refusal());
    }
}
