//! From an error of the file system to a problem that a person can act on.

use posthouse_platform::disk;
use posthouse_protocol::manifest::LeftOut;
use posthouse_protocol::problem::{Code, Problem};
use rustix::io::Errno;
use std::fmt::Display;
use std::io;
use std::path::Path;

/// What stands in both parties' lists for something that could not be handed over or landed.
pub fn left_out(name: &[u8], problem: &Problem) -> LeftOut {
    LeftOut { name: name.to_vec(), code: problem.code.number(), reason: problem.cause.clone() }
}

/// A name as people read it; bytes that are no text are escaped.
pub(crate) fn readable(name: &[u8]) -> String {
    match std::str::from_utf8(name) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => name.escape_ascii().to_string(),
    }
}

pub(crate) fn named(code: Code, name: &[u8], cause: impl Display) -> Problem {
    Problem::new(code).with("name", readable(name)).cause(cause)
}

/// Writing failed: a full disk passes by itself, anything else needs a person.
pub(crate) fn writing(path: &Path, error: impl Into<io::Error>) -> Problem {
    let error = error.into();
    let code = if disk::is_full(&error) { Code::DiskFull } else { Code::StorageFailed };
    Problem::new(code).with("path", path.display()).cause(error)
}

/// Reading what the provider offers failed.
pub(crate) fn reading(name: &[u8], errno: Errno) -> Problem {
    named(Code::FileUnreadable, name, errno)
}

pub(crate) fn taken(name: &[u8], by: impl Display) -> Problem {
    named(Code::NameTaken, name, by)
}
