//! A small client of PostgreSQL's protocol that blocks. Statements with parameters go by the extended protocol, values
//! and results as text; rows in bulk go by COPY, as the server's bytes and without a step per row. It knows nothing of
//! tables. The driver crates hand over a row at a time, which costs more than the copying itself.

mod auth;
mod coded;
mod copy;
mod error;
mod gauss;
mod link;
mod stream;
#[cfg(test)]
mod tests;
mod tls;

pub(crate) use coded::json_text;
pub(crate) use copy::{Copied, CopyIn, CopyOut};
pub(crate) use error::{ServerError, WireError};

use super::settings::{Address, Dialect, Settings};
use crate::charset::Charset;
use auth::Login;
use bytes::{BufMut, BytesMut};
use error::unsayable;
use fallible_iterator::FallibleIterator;
use link::Link;
use postgres_protocol::IsNull;
use postgres_protocol::message::backend::{self, DataRowBody, Message};
use postgres_protocol::message::frontend;
use std::borrow::Cow;
use std::error::Error;
use std::io::{self, Read};
use std::str::FromStr;
use stream::Dial;
use tls::Tls;

/// One session on a server, set up so that the same value has the same text everywhere.
pub(crate) struct Client {
    link: Link,
    cancel: Cancel,
    version: u32,
    status: TransactionStatus,
    /// A COPY that was asked for while the one before it ran: its answer comes next.
    ahead: Option<String>,
    /// In which both sides speak: UTF-8, unless the server leaves bytes as they are.
    charset: Charset,
    /// Whether the server takes each text of that charset; one of another encoding looks at them and refuses some.
    takes_all: bool,
}

/// Stops what its connection is doing, from another thread.
#[derive(Debug, Clone)]
pub(crate) struct Cancel {
    dial: Dial,
    process: i32,
    key: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TransactionStatus {
    Idle,
    Open,
    /// An error came; only a rollback goes on from here.
    Failed,
}

/// A row of a result as text; `None` is NULL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row(Vec<Option<String>>);

impl Client {
    /// Opens a session on the first server that has one to give.
    pub(crate) fn connect(settings: &Settings) -> Result<Self, WireError> {
        let mut failed = None;
        for address in &settings.servers {
            match Self::connect_to(settings, address) {
                Err(error) if error.is_lost() => failed = Some(error),
                done => return done,
            }
        }
        Err(failed.unwrap_or_else(|| WireError::Protocol("no server is named".to_owned())))
    }

    fn connect_to(settings: &Settings, address: &Address) -> Result<Self, WireError> {
        let tls = Tls::of(settings.tls(address), settings.ca_file.as_deref())?;
        let dial = Dial { address: address.clone(), tls };
        let mut speak_gauss = false;
        loop {
            let mut link = Link::new(dial.open()?);
            match auth::login(&mut link, settings, dial.privacy(), speak_gauss)? {
                Login::SpeakGauss => speak_gauss = true,
                Login::In { process, key } => {
                    let cancel = Cancel { dial, process, key };
                    let mut client = Self {
                        link,
                        cancel,
                        version: 0,
                        status: TransactionStatus::Idle,
                        ahead: None,
                        charset: Charset::Utf8,
                        takes_all: true,
                    };
                    client.set_up(settings)?;
                    client.link.stream().set_timeout(None)?;
                    return Ok(client);
                }
            }
        }
    }

    /// Every value that the server renders has one text, and every name means what it says.
    fn set_up(&mut self, settings: &Settings) -> Result<(), WireError> {
        let rows = self.query("SELECT pg_catalog.current_setting('server_version_num')", &[])?;
        self.version = rows.first().map_or(Ok(0), |row| row.number(0))?;
        let server = self.link.parameters.get("server_encoding").map_or("", String::as_str);
        let (charset, told) = coded::agree(settings.charset, server)?;
        let takes_all = charset.is_utf8() || server == "SQL_ASCII";
        let mut sql = format!("SET client_encoding = '{told}'; {SESSION}");
        // Before 12 the shortest exact text of a float has to be asked for otherwise.
        sql.push_str(if self.version < 120_000 {
            "SET extra_float_digits = 3;"
        } else {
            "SET extra_float_digits = 1;"
        });
        if self.version >= 90_600 {
            sql.push_str("SET idle_in_transaction_session_timeout = 0;");
        }
        if let Some(limit) = settings.statement_timeout {
            sql.push_str(&format!("SET statement_timeout = {};", limit.0));
        }
        if settings.dialect == Dialect::Kingbase {
            sql.push_str(EMPTY_IS_TEXT);
        }
        self.batch(&sql)?;
        (self.charset, self.takes_all) = (charset, takes_all);
        Ok(())
    }

    /// Runs one statement with parameters `$1`, `$2`, … and returns its rows.
    pub(crate) fn query(&mut self, sql: &str, params: &[Option<&str>]) -> Result<Vec<Row>, WireError> {
        let (mut rows, charset) = (Vec::new(), self.charset);
        let mut bytes = 0;
        self.extended(sql, params)?;
        self.responses(|data| {
            bytes += data.buffer().len();
            if bytes > RESULT_MAX {
                return Err(WireError::Protocol(format!("a result of over {RESULT_MAX} bytes")));
            }
            rows.push(Row::parse(&data, charset)?);
            Ok(())
        })?;
        Ok(rows)
    }

    /// Runs one statement with parameters; how many rows it touched.
    pub(crate) fn execute(&mut self, sql: &str, params: &[Option<&str>]) -> Result<u64, WireError> {
        self.extended(sql, params)?;
        self.responses(|_| Ok(()))
    }

    /// Runs statements one behind the other, in one transaction unless they say otherwise.
    pub(crate) fn batch(&mut self, sql: &str) -> Result<(), WireError> {
        self.ask(sql)?;
        self.responses(|_| Ok(())).map(|_| ())
    }

    /// `COPY … TO STDOUT`. `next` is the one that will be asked for after it: the server goes on with it by itself, so
    /// that it need not wait until all of the first has been read here. Anything else that is asked instead waits until
    /// the answer to `next` has passed.
    pub(crate) fn copy_out(&mut self, sql: &str, next: Option<&str>) -> Result<CopyOut<'_>, WireError> {
        CopyOut::start(self, sql, next)
    }

    /// `COPY … FROM STDIN`.
    pub(crate) fn copy_in(&mut self, sql: &str) -> Result<CopyIn<'_>, WireError> {
        CopyIn::start(self, sql)
    }

    /// Of all texts that come and go.
    pub(crate) fn charset(&self) -> Charset {
        self.charset
    }
    /// A text as this database takes it whatever it holds: characters that it might refuse as escapes of JSON.
    pub(crate) fn sayable<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match self.takes_all {
            true => self.charset.escaped(text),
            false => Charset::escaped_to_ascii(text),
        }
    }
    /// As `server_version_num`: 150018 is 15.18.
    pub(crate) fn version(&self) -> u32 {
        self.version
    }
    /// What the server tells of itself, such as `server_encoding`.
    #[cfg(test)]
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.link.parameters.get(name).map(String::as_str)
    }
    /// Takes the server for an older one.
    #[cfg(test)]
    pub(crate) fn pretend_version(&mut self, version: u32) {
        self.version = version;
    }
    #[cfg(test)]
    pub(crate) fn backend_pid(&self) -> i32 {
        self.cancel.process
    }
    pub(crate) fn cancel_handle(&self) -> Cancel {
        self.cancel.clone()
    }
    #[cfg(test)]
    pub(crate) fn transaction_status(&self) -> TransactionStatus {
        self.status
    }
    /// Nothing more can be asked over this connection.
    pub(crate) fn is_broken(&self) -> bool {
        self.link.is_broken()
    }

    fn ask(&mut self, sql: &str) -> Result<(), WireError> {
        self.forget_ahead()?;
        self.query_of(sql)
    }

    fn ask_ahead(&mut self, sql: &str) -> Result<(), WireError> {
        self.query_of(sql)?;
        self.ahead = Some(sql.to_owned());
        Ok(())
    }

    fn query_of(&mut self, sql: &str) -> Result<(), WireError> {
        self.link.out.clear();
        let sql = self.charset.encode(sql).map_err(coded::lacking)?;
        coded::query(&sql, &mut self.link.out).map_err(unsayable)?;
        self.send()
    }

    /// Lets the answer pass to what was asked ahead and is not wanted. It is not cancelled: that would end the
    /// transaction, and the snapshot with it.
    fn forget_ahead(&mut self) -> Result<(), WireError> {
        while self.ahead.is_some() {
            let head = self.link.head()?;
            match head.tag {
                backend::READY_FOR_QUERY_TAG => {
                    if let Message::ReadyForQuery(ready) = self.link.message_of(head)? {
                        self.note(ready.status());
                        self.ahead = None;
                    }
                }
                _ => self.link.skip(head.length)?,
            }
        }
        Ok(())
    }

    fn extended(&mut self, sql: &str, params: &[Option<&str>]) -> Result<(), WireError> {
        self.forget_ahead()?;
        let charset = self.charset;
        let sql = charset.encode(sql).map_err(coded::lacking)?;
        let out = &mut self.link.out;
        out.clear();
        coded::parse(&sql, out).map_err(unsayable)?;
        let value = |param: &Option<&str>, to: &mut BytesMut| -> Result<IsNull, Box<dyn Error + Sync + Send>> {
            let Some(text) = param else { return Ok(IsNull::Yes) };
            to.put_slice(&charset.encode(text)?);
            Ok(IsNull::No)
        };
        // One format for all of them: text.
        frontend::bind("", "", [0], params, value, [0], out).map_err(|error| match error {
            frontend::BindError::Conversion(error) => unsayable(io::Error::other(error)),
            frontend::BindError::Serialization(error) => unsayable(error),
        })?;
        frontend::execute("", 0, out).map_err(unsayable)?;
        frontend::sync(out);
        self.send()
    }

    /// Sends what was put together; where nobody takes it, the server may have said why.
    fn send(&mut self) -> Result<(), WireError> {
        self.link.send().map_err(|error| self.last_word(error))
    }

    fn last_word(&mut self, error: WireError) -> WireError {
        self.link.last_word().map_or(error, |word| WireError::Server(Box::new(word)))
    }

    /// Hands over rows until the server is ready again; how many rows the last statement touched.
    fn responses(&mut self, mut row: impl FnMut(DataRowBody) -> Result<(), WireError>) -> Result<u64, WireError> {
        let mut touched = 0;
        let mut outcome = Ok(());
        loop {
            match self.link.message()? {
                Message::DataRow(data) if outcome.is_ok() => outcome = row(data),
                Message::CommandComplete(done) => touched = done.tag().map_or(0, rows_of),
                Message::ErrorResponse(error) => {
                    let error = ServerError::parse(error.fields())?;
                    return Err(self.refused(error));
                }
                Message::ReadyForQuery(ready) => {
                    self.note(ready.status());
                    return outcome.map(|()| touched);
                }
                Message::DataRow(_)
                | Message::ParseComplete
                | Message::BindComplete
                | Message::RowDescription(_)
                | Message::EmptyQueryResponse => {}
                _ => return Err(self.link.garbled("something else in an answer")),
            }
        }
    }

    /// Reads the end of a COPY.
    fn finish(&mut self) -> Result<u64, WireError> {
        self.responses(|_| Err(WireError::Protocol("rows where none were asked for".to_owned())))
    }

    /// What the server refused, once it is ready for something else.
    fn refused(&mut self, error: ServerError) -> WireError {
        if error.is_fatal() {
            self.link.break_off();
        }
        while !self.link.is_broken() {
            match self.link.message() {
                Ok(Message::ReadyForQuery(ready)) => {
                    self.note(ready.status());
                    break;
                }
                // Nothing of what follows an error is an answer.
                Ok(_) => {}
                Err(_) => self.link.break_off(),
            }
        }
        WireError::Server(Box::new(error))
    }

    fn note(&mut self, status: u8) {
        self.status = match status {
            b'T' => TransactionStatus::Open,
            b'E' => TransactionStatus::Failed,
            _ => TransactionStatus::Idle,
        };
    }
}

impl Drop for Client {
    /// Says goodbye, so that the server does not log a client that vanished. What was asked ahead and is not wanted any
    /// more ends as soon as it has something to send.
    fn drop(&mut self) {
        self.link.out.clear();
        frontend::terminate(&mut self.link.out);
        let _ = self.link.send();
    }
}

impl Cancel {
    /// Returns once the server has passed it on; whether there was still something to stop, nobody can tell.
    pub(crate) fn send(&self) -> Result<(), WireError> {
        let mut stream = self.dial.open()?;
        let mut request = BytesMut::new();
        frontend::cancel_request(self.process, self.key, &mut request);
        stream.write_both(&request, &[])?;
        // It closes the line as its answer; how politely does not matter.
        let _ = stream.read(&mut [0]);
        Ok(())
    }
}

impl Row {
    fn parse(data: &DataRowBody, charset: Charset) -> Result<Self, WireError> {
        let damaged = |e: &dyn std::fmt::Display| WireError::Protocol(format!("a row of a result is damaged: {e}"));
        let mut values = Vec::new();
        let mut ranges = data.ranges();
        while let Some(range) = ranges.next().map_err(|e| damaged(&e))? {
            let bytes = range.map(|range| data.buffer().get(range).unwrap_or_default());
            let text = bytes.map(|bytes| charset.decode(bytes).map(Cow::into_owned));
            values.push(text.transpose().map_err(|e| damaged(&e))?);
        }
        Ok(Self(values))
    }

    /// NULL and a column that is not there are the same.
    pub(crate) fn optional(&self, column: usize) -> Option<&str> {
        self.0.get(column)?.as_deref()
    }
    pub(crate) fn text(&self, column: usize) -> Result<&str, WireError> {
        self.optional(column).ok_or_else(|| unexpected(column, "it is NULL"))
    }
    pub(crate) fn number<T: FromStr>(&self, column: usize) -> Result<T, WireError> {
        let text = self.text(column)?;
        text.parse().map_err(|_| unexpected(column, &format!("`{text}` is not the number it should be")))
    }
    pub(crate) fn flag(&self, column: usize) -> Result<bool, WireError> {
        match self.text(column)? {
            "t" => Ok(true),
            "f" => Ok(false),
            other => Err(unexpected(column, &format!("`{other}` is no boolean"))),
        }
    }
}

fn unexpected(column: usize, what: &str) -> WireError {
    WireError::Protocol(format!("column {} of a result: {what}", column + 1))
}

/// `INSERT 0 5`, `COPY 5`; a statement that touches no rows ends in a word.
fn rows_of(tag: &str) -> u64 {
    tag.rsplit(' ').next().and_then(|last| last.parse().ok()).unwrap_or(0)
}

/// Names are written with their schema; notices have nobody to read them.
const SESSION: &str = "SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'; \
    SET TimeZone = 'UTC'; SET bytea_output = 'hex'; SET lc_monetary = 'C'; SET standard_conforming_strings = on; \
    SET search_path = pg_catalog; SET client_min_messages = error;";
/// KingbaseES: an empty text is none, and not NULL, whatever the database is set to; so it comes and goes as it is
/// stored. A server that runs in PostgreSQL's mode lacks the setting.
const EMPTY_IS_TEXT: &str = "SELECT pg_catalog.set_config(name, 'off', false) FROM pg_catalog.pg_settings \
    WHERE name = 'ora_input_emptystr_isnull';";
/// All rows of one query: catalogues and small lists, never a table.
const RESULT_MAX: usize = 256 << 20;
