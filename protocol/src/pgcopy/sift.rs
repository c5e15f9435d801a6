//! Goes through a stream of which some rows cannot be carried: hands on the others as they lie, each with its hash, and
//! those with their reason and their original. It keeps a whole row, so that [`super::Walker`] comes first and this
//! only where that has met such a row.

use super::CopyError;
use super::decode::{BadRow, original};
use super::digest::{RowHasher, Step};
use super::shape::Shape;
use super::walk::{Part, Stream, Tuples, complete_prefix};
use crate::digest::RowHash;
use crate::limits::TUPLE_BYTES_MAX;
use crate::problem::Problem;

/// Sifts one stream.
pub struct Sifter {
    rows: Rows,
    stream: Stream,
}

struct Rows {
    shape: Shape,
    hasher: RowHasher,
}

/// What comes out of a stream.
#[derive(Debug)]
pub enum Sifted<'a> {
    /// Its bytes, to be put between a header and a trailer.
    Row(&'a [u8], RowHash),
    Bad(BadRow),
}

impl Sifter {
    pub fn new(shape: &Shape, digest_key: [u8; 32]) -> Self {
        let rows = Rows { shape: shape.clone(), hasher: RowHasher::new(shape, digest_key) };
        Self { rows, stream: Stream::new(shape.columns.len(), TUPLE_BYTES_MAX) }
    }
    /// Takes the stream's next bytes and hands out each row that ends in them.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        into: &mut impl FnMut(Sifted<'_>) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        self.stream.feed(bytes, &mut Sifting { rows: &mut self.rows, into })
    }
    /// Rows of the whole stream, bad ones among them, where it ended as one does.
    pub fn finish(self) -> Result<u64, CopyError> {
        self.stream.finish()
    }
}

struct Sifting<'a, F> {
    rows: &'a mut Rows,
    into: &'a mut F,
}

impl<F: FnMut(Sifted<'_>) -> Result<(), Problem>> Tuples for Sifting<'_, F> {
    type Error = Problem;
    fn tuple(&mut self, row: u64, bytes: &[u8]) -> Result<Step, Problem> {
        let Rows { shape, hasher } = &mut self.rows;
        let (length, _) = complete_prefix(bytes, shape.columns.len(), 1)?;
        let Some(tuple) = bytes.get(..length).filter(|tuple| !tuple.is_empty()) else { return Ok(Step::More) };
        match hasher.row(row, tuple) {
            Ok((hash, _)) => (self.into)(Sifted::Row(tuple, hash))?,
            Err(CopyError::Value { row, column, fault }) => {
                let (reason, original) = (format!("the column `{column}` {fault}"), original(shape, tuple));
                (self.into)(Sifted::Bad(BadRow { row, reason, original }))?;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(Step::Whole(length))
    }
    fn part(&mut self, row: u64, _: Part<'_>) -> Result<(), Problem> {
        Err(CopyError::Stream { what: "a tuple is larger than any that PostgreSQL makes", rows: row }.into())
    }
}
