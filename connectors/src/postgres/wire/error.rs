//! What can go wrong between here and a server, told apart by what it asks of the caller: a lost connection is
//! opened again, a refused row goes to quarantine, anything else needs a person.

use crate::charset::{Charset, Edition};
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::ErrorFields;
use posthouse_protocol::problem::Problem;
use std::fmt;
use std::io;

#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// The line: nobody listens, it was cut, nothing came in time.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// No encrypted line, or none to the server that was meant.
    #[error("{0}")]
    Tls(String),
    /// This side cannot or must not prove who it is in the way that the server asks for.
    #[error("{0}")]
    Auth(String),
    /// The password is not there to be read.
    #[error("{0}")]
    Secret(Problem),
    /// The server's own words.
    #[error("{0}")]
    Server(Box<ServerError>),
    /// What came is not what the protocol lets a server say here.
    #[error("{0}")]
    Protocol(String),
}

impl WireError {
    /// The connection is gone or could not be had; another may work later.
    pub(crate) fn is_lost(&self) -> bool {
        match self {
            Self::Io(_) => true,
            Self::Server(error) => error.is_lost(),
            Self::Tls(_) | Self::Auth(_) | Self::Secret(_) | Self::Protocol(_) => false,
        }
    }

    /// The data was refused: a value that has no form in its column, a constraint, a trigger that raised.
    pub(crate) fn is_refusal(&self) -> bool {
        self.sqlstate().is_some_and(|state| {
            // 22P04 is about the stream that carries the rows, not about one of them.
            (REFUSAL_CLASSES.iter().any(|class| state.starts_with(class)) && state != "22P04")
                || REFUSALS.contains(&state)
        })
    }

    /// The same of rows that come by COPY in binary: what some types say of a form that they cannot read has no code of
    /// its own. One that the server itself wrote is among them, a `tsquery` of nothing.
    pub(crate) fn is_refusal_of_copied(&self) -> bool {
        self.is_refusal() || (self.sqlstate() == Some(INTERNAL_ERROR) && !self.is_lost())
    }

    pub(crate) fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Server(error) => Some(&error.sqlstate),
            _ => None,
        }
    }
}

/// A message that cannot be put together: a text with a zero byte in it.
pub(super) fn unsayable(error: io::Error) -> WireError {
    WireError::Protocol(format!("this cannot be said to a server: {error}"))
}

/// An ErrorResponse.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ServerError {
    /// `ERROR`, `FATAL` or `PANIC`, whatever the server's language.
    pub(crate) severity: String,
    pub(crate) sqlstate: String,
    pub(crate) message: String,
    pub(crate) detail: Option<String>,
    pub(crate) hint: Option<String>,
    pub(crate) schema: Option<String>,
    pub(crate) table: Option<String>,
    pub(crate) column: Option<String>,
    pub(crate) constraint: Option<String>,
    /// Where in the work it happened, such as `COPY t, line 7, column c`.
    pub(crate) where_: Option<String>,
}

impl ServerError {
    pub(super) fn parse(mut fields: ErrorFields<'_>) -> Result<Self, WireError> {
        let mut error = Self::default();
        let damaged = |e: io::Error| WireError::Protocol(format!("an error of the server is damaged: {e}"));
        while let Some(field) = fields.next().map_err(damaged)? {
            // Before it knows the client's encoding, or where it does not convert, a server speaks in its own.
            let bytes = field.value_bytes();
            let other = || Charset::Gb18030(Edition::Of2022).decode(bytes).ok();
            let value = Charset::Utf8.decode(bytes).ok().or_else(other);
            let value = value.unwrap_or_else(|| String::from_utf8_lossy(bytes)).into_owned();
            match field.type_() {
                b'S' if error.severity.is_empty() => error.severity = value,
                b'V' => error.severity = value,
                b'C' => error.sqlstate = value,
                b'M' => error.message = value,
                b'D' => error.detail = Some(value),
                b'H' => error.hint = Some(value),
                b's' => error.schema = Some(value),
                b't' => error.table = Some(value),
                b'c' => error.column = Some(value),
                b'n' => error.constraint = Some(value),
                b'W' => error.where_ = Some(value),
                _ => {}
            }
        }
        Ok(error)
    }

    /// After these there is no connection, and a later one may be had.
    fn is_lost(&self) -> bool {
        let refused_at_the_door = DOOR_CLASSES.iter().any(|class| self.sqlstate.starts_with(class));
        LOST_CLASSES.iter().any(|class| self.sqlstate.starts_with(class)) || self.is_fatal() && !refused_at_the_door
    }

    /// It closes the connection behind it.
    pub(super) fn is_fatal(&self) -> bool {
        matches!(self.severity.as_str(), "FATAL" | "PANIC")
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.sqlstate)?;
        for more in [&self.detail, &self.hint, &self.where_].into_iter().flatten() {
            write!(f, "; {more}")?;
        }
        Ok(())
    }
}

const INTERNAL_ERROR: &str = "XX000";
/// Data exception, integrity constraint violation.
const REFUSAL_CLASSES: &[&str] = &["22", "23"];
/// A trigger's or function's `RAISE`, a view's check option, an index row or tuple that is too large.
const REFUSALS: &[&str] = &["P0001", "44000", "54000"];
/// Connection exceptions; shutdown, crash, start-up, dropped database, idle session.
const LOST_CLASSES: &[&str] = &["08", "57P", "25P03", "53300"];
/// Unknown name or wrong password, no such database, no such setting: the same tomorrow.
const DOOR_CLASSES: &[&str] = &["28", "3D", "22", "42", "0A"];

#[cfg(test)]
mod tests {
    use super::*;

    fn server(severity: &str, sqlstate: &str) -> WireError {
        let error = ServerError { severity: severity.to_owned(), sqlstate: sqlstate.to_owned(), ..Default::default() };
        WireError::Server(Box::new(error))
    }

    #[test]
    fn a_lost_connection_is_told_apart_from_a_refused_row_and_from_neither() {
        for (severity, state, lost, refusal) in [
            ("FATAL", "57P01", true, false),
            ("FATAL", "57P03", true, false),
            ("FATAL", "53300", true, false),
            ("FATAL", "XX000", true, false),
            ("ERROR", "08006", true, false),
            ("FATAL", "28P01", false, false),
            ("FATAL", "3D000", false, false),
            ("ERROR", "22P02", false, true),
            ("ERROR", "23505", false, true),
            ("ERROR", "P0001", false, true),
            ("ERROR", "22P04", false, false),
            ("ERROR", "42P01", false, false),
            ("ERROR", "57014", false, false),
        ] {
            let error = server(severity, state);
            assert_eq!((error.is_lost(), error.is_refusal()), (lost, refusal), "{severity} {state}");
            assert_eq!(error.is_refusal_of_copied(), refusal, "{severity} {state}");
        }
        assert!(WireError::from(io::Error::from(io::ErrorKind::BrokenPipe)).is_lost());
        assert!(!WireError::Protocol("x".to_owned()).is_lost());
        let unreadable = server("ERROR", "XX000");
        assert!(unreadable.is_refusal_of_copied() && !unreadable.is_refusal());
    }
}
