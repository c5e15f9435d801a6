//! Errors with the numbers that SQL Server gives them, and the wait for a lock, which is no error yet.

use std::fmt;

/// What an ERROR token carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlError {
    pub number: u32,
    /// 11 to 16 may be corrected by who asked; 20 and above end the connection.
    pub class: u8,
    pub state: u8,
    pub text: String,
    /// The statement, option or token is one that this server does not know: a test asserts that there was none.
    pub unknown: bool,
}

impl SqlError {
    pub fn new(number: u32, text: impl Into<String>) -> Self {
        let class = match number {
            102 | 105 | 111 | 156 | 319 => 15,
            1205 | 1222 => 13,
            515 | 544 | 547 | 2601 | 2627 | 2628 | 3960 | 8101 | 8106 | 8114 | 8115 | 8152 => 16,
            2801 | 3701 => 11,
            2812 | 208 | 207 | 209 => 16,
            18456 => 14,
            4060 => 11,
            _ => 16,
        };
        SqlError { number, class, state: 1, text: text.into(), unknown: false }
    }

    /// What is not in this server's subset: never an empty result.
    pub fn unknown(what: impl Into<String>) -> Self {
        let mut error = SqlError::new(40_000, format!("this test server does not know: {}", what.into()));
        error.unknown = true;
        error
    }

    pub fn syntax(near: &str, line: u32) -> Self {
        let mut error = SqlError::new(102, format!("Incorrect syntax near '{near}' (line {line})."));
        error.unknown = true;
        error
    }

    pub fn with_state(mut self, state: u8) -> Self {
        self.state = state;
        self
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.number, self.text)
    }
}

/// Why a statement did not go through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    Error(SqlError),
    /// This transaction holds what is needed: undo the statement, wait, and try again.
    Wait(u64),
}

impl From<SqlError> for Stop {
    fn from(error: SqlError) -> Self {
        Stop::Error(error)
    }
}

pub type Step<T> = Result<T, Stop>;
