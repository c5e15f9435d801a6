//! Why work on a server ended early: a statement that was refused while the line is whole, a line that is lost, or a
//! problem that is known by its code already. Which refusals are of single rows is known here too.

use mysql_async::{Error, ServerError};
use posthouse_protocol::problem::Problem;

#[derive(Debug)]
pub(super) enum Fail {
    /// The server refused a statement.
    Server(ServerError),
    /// The line is gone, or nobody let us in, or what came over it cannot be followed.
    Lost(String),
    Problem(Problem),
}

impl From<Error> for Fail {
    fn from(error: Error) -> Self {
        match error {
            Error::Server(error) if LOST.contains(&error.code) => Self::Lost(text(&error)),
            Error::Server(error) => Self::Server(error),
            other => Self::Lost(other.to_string()),
        }
    }
}

impl From<Problem> for Fail {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl Fail {
    /// The number by which the server names what it refuses.
    pub(super) fn code(&self) -> Option<u16> {
        match self {
            Self::Server(error) => Some(error.code),
            _ => None,
        }
    }
}

/// What a server says, for people.
pub(super) fn text(error: &ServerError) -> String {
    format!("{} ({}, {})", error.message, error.code, error.state)
}

/// Whether a statement was refused for what a row holds.
pub(super) fn is_of_row(error: &ServerError) -> bool {
    ROW.contains(&error.code)
        || error.state.starts_with("22")
        || error.state.starts_with("23")
        || error.state == "45000"
}

pub(super) const DUPLICATE: u16 = 1062;
/// A row refers to one that is not there (yet).
pub(super) const NO_PARENT: u16 = 1452;
/// The whole transaction was taken back, and may be tried again.
pub(super) const DEADLOCK: u16 = 1213;
/// Somebody else holds a row, or the table, for longer than is waited for.
pub(super) const LOCK_WAIT: u16 = 1205;
/// Another table's foreign key refers to the table that was to go.
pub(super) const REFERRED: &[u16] = &[1217, 1451, 3730];
/// The account has not the right: on a database, a table, a column, a command, a privilege.
pub(super) const NO_RIGHT: &[u16] = &[1044, 1142, 1143, 1227, 1370];
/// LOAD DATA LOCAL is switched off, or not known: by MySQL 5.7, MySQL 8, MariaDB, and as a syntax of others.
pub(super) const NO_LOCAL: &[u16] = &[1148, 1235, 3948, 4166];
/// A disk, a table or a tablespace is full.
pub(super) const FULL: &[u16] = &[1021, 1114, 1041];

/// Beside the classes 22 and 23: no default, a value that a type does not take, checks of MySQL and MariaDB, JSON, a
/// trigger's own word, a longer value than a function gives.
const ROW: &[u16] = &[1048, 1264, 1265, 1292, 1364, 1366, 1406, 1411, 1416, 1525, 1644, 3140, 3819, 4025, 1301, 1690];

/// Nobody let in, no such database, the server goes down, the session was ended, the line broke.
const LOST: &[u16] = &[
    1040, 1042, 1043, 1045, 1049, 1053, 1079, 1129, 1130, 1152, 1153, 1158, 1159, 1160, 1161, 1184, 1203, 1226, 1698,
    1927, 2002, 2003, 2006, 2013, 3118, 3159, 4031, 4151,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn server(code: u16, state: &str) -> ServerError {
        ServerError { code, message: "no".to_owned(), state: state.to_owned() }
    }

    #[test]
    fn a_refused_row_a_refused_statement_and_a_lost_line_are_told_apart() {
        for (code, state) in [(1062, "23000"), (1406, "22001"), (4025, "23000"), (1644, "45000"), (1364, "HY000")] {
            assert!(is_of_row(&server(code, state)), "{code}");
        }
        for (code, state) in [(1146, "42S02"), (1142, "42000"), (DEADLOCK, "40001"), (1205, "HY000")] {
            assert!(!is_of_row(&server(code, state)), "{code}");
        }
        assert!(matches!(Fail::from(Error::Server(server(1045, "28000"))), Fail::Lost(_)));
        assert_eq!(Fail::from(Error::Server(server(1146, "42S02"))).code(), Some(1146));
    }
}
