//! Rows as PostgreSQL's binary COPY writes them: one standard stream of a header, tuples and a trailer, which
//! anyone's `psql` reads. It carries rows between two databases of PostgreSQL's family without taking them apart;
//! both nodes walk the tuples as they lie and compute the digest that the same rows have as Arrow batches.
//!
//! - [`native`]: the types of columns as they are written in an offer; [`Shape`] pairs them with a contract.
//! - [`walk`]: finds tuples in a stream in any slicing, and hashes each row in passing.
//! - [`sift`]: the same row by row, and without those that cannot be carried.
//! - [`decode`] and [`encode`]: between tuples and Arrow batches.
//! - [`rewrite`]: tuples for a table in which some of the columns are text.
//! - [`mod@render`]: a value of any of these types as the text that the server itself would write.
//!
//! Whatever the bytes are, nothing here panics, and nothing is allocated for a length that was only declared.
//! Deliberately absent: IO, and the text form of COPY.

pub mod decode;
mod digest;
pub mod encode;
mod large;
pub mod native;
mod numeric;
pub mod render;
pub mod rewrite;
mod shape;
pub mod sift;
mod utf8;
pub mod walk;

pub use decode::{BadRow, Decoder};
pub use digest::RowHasher;
pub use encode::{Encoder, RowFault, encodable};
pub use native::NativeType;
pub use render::render;
pub use rewrite::Rewriter;
pub use shape::{Shape, ShapeError};
pub use sift::{Sifted, Sifter};
pub use walk::{Walker, complete_prefix};

use crate::problem::{Code, Problem};
use std::borrow::Cow;

/// The name of this form of a split in requests and offers.
pub const FORMAT: &str = "pg-copy/1";
/// What a stream begins with: the signature, no flags, no extension.
pub const HEADER: [u8; 19] = *b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What it ends with.
pub const TRAILER: [u8; 2] = [0xff; 2];

/// Why a stream was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CopyError {
    #[error("the stream is no binary COPY of these columns: {what}, after {rows} rows")]
    Stream { what: &'static str, rows: u64 },
    #[error("the column `{column}` of row {row} {fault}")]
    Value { row: u64, column: String, fault: Fault },
}

impl From<CopyError> for Problem {
    fn from(error: CopyError) -> Self {
        Problem::new(Code::Mismatch).with("peer", "the provider").cause(error)
    }
}

/// Why one value cannot be carried; reads well after the column's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Fault(Cow<'static, str>);

impl From<&'static str> for Fault {
    fn from(what: &'static str) -> Self {
        Self(Cow::Borrowed(what))
    }
}

impl From<String> for Fault {
    fn from(what: String) -> Self {
        Self(Cow::Owned(what))
    }
}

impl From<bytes::TryGetError> for Fault {
    fn from(_: bytes::TryGetError) -> Self {
        "is shorter than its type".into()
    }
}

/// PostgreSQL counts days and microseconds from 2000-01-01.
const EPOCH_DAYS: i32 = 10_957;
const EPOCH_US: i64 = 946_684_800_000_000;

/// Days since 1970-01-01; the largest and the smallest number are the infinities on both sides.
fn date(days: i32) -> Result<i32, Fault> {
    match days {
        i32::MAX | i32::MIN => Ok(days),
        days => {
            days.checked_add(EPOCH_DAYS).filter(|days| *days != i32::MAX).ok_or_else(|| "is a date too far away".into())
        }
    }
}

/// µs since 1970-01-01, likewise.
fn timestamp(us: i64) -> Result<i64, Fault> {
    match us {
        i64::MAX | i64::MIN => Ok(us),
        us => us.checked_add(EPOCH_US).filter(|us| *us != i64::MAX).ok_or_else(|| "is a time too far away".into()),
    }
}

fn text(bytes: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(bytes).map_err(|_| NOT_UTF8.into())
}
const NOT_UTF8: &str = "has bytes that are no characters of UTF-8";

/// A value of exactly so many bytes.
fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Fault> {
    bytes.try_into().map_err(|_| "has another length than its type".into())
}
