//! Takes a binary COPY stream in slices of any size and finds its tuples: header, tuples, trailer, and nothing
//! after it. [`Walker`] hashes each row in passing. A tuple that lies whole in a slice is not copied; one that is cut
//! by a slice's end is kept until it is whole, or, where it is large, hashed as it passes, so that memory does not
//! depend on how large values are.

use super::digest::{RowHasher, Step};
use super::large::LargeRow;
use super::shape::Shape;
use super::{CopyError, HEADER, TRAILER};
use crate::digest::RowHash;
use crate::limits::{TUPLE_BYTES_MAX, TUPLE_HELD_BYTES_MAX};

/// Hashes the rows of one stream.
pub struct Walker {
    hasher: RowHasher,
    large: Option<Box<LargeRow>>,
    stream: Stream,
}

impl Walker {
    pub fn new(shape: &Shape, digest_key: [u8; 32]) -> Self {
        let hasher = RowHasher::new(shape, digest_key);
        Self { hasher, large: None, stream: Stream::new(shape.columns.len(), TUPLE_HELD_BYTES_MAX) }
    }
    /// Takes the stream's next bytes and gives the hash of each row that ends in them. After an error it is of no use.
    pub fn feed(&mut self, bytes: &[u8], into: &mut impl FnMut(RowHash)) -> Result<(), CopyError> {
        self.stream.feed(bytes, &mut Hashing { hasher: &mut self.hasher, large: &mut self.large, into })?;
        self.hasher.hash(into)
    }
    /// Rows so far.
    pub fn rows(&self) -> u64 {
        self.stream.rows
    }
    /// Rows of the whole stream, where it ended as one does.
    pub fn finish(self) -> Result<u64, CopyError> {
        self.stream.finish()
    }
}

/// How many whole tuples these bytes begin with, `rows_max` at most, and how many bytes they are: where a stream can
/// be split. The bytes begin with a tuple; a trailer is none.
pub fn complete_prefix(bytes: &[u8], columns: usize, rows_max: u64) -> Result<(usize, u64), CopyError> {
    let (mut rest, mut rows) = (bytes, 0);
    while rows < rows_max {
        let Some((count, mut fields)) = rest.split_first_chunk::<2>().filter(|(count, _)| **count != TRAILER) else {
            break;
        };
        if usize::from(u16::from_be_bytes(*count)) != columns {
            return Err(CopyError::Stream { what: COUNT, rows });
        }
        let whole = 'tuple: {
            for _ in 0..columns {
                let Some((length, after)) = fields.split_first_chunk::<4>() else { break 'tuple false };
                fields = match i32::from_be_bytes(*length) {
                    -1 => after,
                    length => {
                        let too_long = || CopyError::Stream { what: LENGTH, rows };
                        let length = usize::try_from(length).ok().filter(|length| *length <= TUPLE_BYTES_MAX);
                        let Some(after) = after.get(length.ok_or_else(too_long)?..) else { break 'tuple false };
                        after
                    }
                };
            }
            true
        };
        if !whole {
            break;
        }
        (rest, rows) = (fields, rows + 1);
    }
    Ok((bytes.len() - rest.len(), rows))
}

/// What is done with a stream's tuples.
pub(super) trait Tuples {
    type Error: From<CopyError>;
    /// Takes the tuple that these bytes begin with, if it is whole.
    fn tuple(&mut self, row: u64, bytes: &[u8]) -> Result<Step, Self::Error>;
    /// Takes a tuple in parts, after [`Step::Large`] or where it is too large to be kept.
    fn part(&mut self, row: u64, part: Part<'_>) -> Result<(), Self::Error>;
}

/// A part of a tuple.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part<'a> {
    Begin,
    /// A field begins, with its length as it stands there; below zero it has no end.
    Field([u8; 4]),
    Bytes(&'a [u8]),
    FieldEnd,
    End,
}

/// The frame around tuples: where a stream is between header and end.
pub(super) struct Stream {
    place: Place,
    scan: Scan,
    kept: Vec<u8>,
    kept_max: usize,
    pub(super) rows: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// So many bytes of the header have come.
    Header(usize),
    Between,
    /// In a tuple that is kept until it is whole.
    Keeping,
    /// In a tuple that is handed on in parts.
    Passing,
    Ended,
}

impl Stream {
    /// Tuples above `kept_max` bytes are handed on in parts.
    pub(super) fn new(columns: usize, kept_max: usize) -> Self {
        Self { place: Place::Header(0), scan: Scan::new(columns), kept: Vec::new(), kept_max, rows: 0 }
    }

    pub(super) fn feed<T: Tuples>(&mut self, mut bytes: &[u8], tuples: &mut T) -> Result<(), T::Error> {
        loop {
            match self.place {
                Place::Header(seen) => {
                    let expected = HEADER.get(seen..).unwrap_or(&[]);
                    let come = bytes.len().min(expected.len());
                    if bytes.get(..come) != expected.get(..come) {
                        return self.wrong("its header is not the one of this format");
                    }
                    bytes = bytes.get(come..).unwrap_or(&[]);
                    if come < expected.len() {
                        self.place = Place::Header(seen + come);
                        return Ok(());
                    }
                    self.place = Place::Between;
                }
                Place::Between if bytes.is_empty() => return Ok(()),
                Place::Between if bytes.starts_with(&TRAILER) => {
                    bytes = bytes.get(TRAILER.len()..).unwrap_or(&[]);
                    self.place = Place::Ended;
                }
                Place::Between => match tuples.tuple(self.rows, bytes)? {
                    Step::Whole(length) => {
                        bytes = bytes.get(length..).unwrap_or(&[]);
                        self.rows += 1;
                    }
                    Step::More => self.place = Place::Keeping,
                    Step::Large => self.place = Place::Passing,
                },
                Place::Keeping => self.keep(&mut bytes, tuples)?,
                Place::Passing => self.pass(&mut bytes, tuples)?,
                Place::Ended if bytes.is_empty() => return Ok(()),
                Place::Ended => return self.wrong("bytes follow its end"),
            }
            if bytes.is_empty() {
                return Ok(());
            }
        }
    }

    pub(super) fn finish(self) -> Result<u64, CopyError> {
        if self.place == Place::Ended { Ok(self.rows) } else { self.wrong("it is cut off") }
    }

    fn keep<T: Tuples>(&mut self, bytes: &mut &[u8], tuples: &mut T) -> Result<(), T::Error> {
        let come = *bytes;
        loop {
            let part = match self.scan.step(bytes) {
                Ok(found) => found,
                Err(what) => return self.wrong(what),
            };
            let taken = come.len() - bytes.len();
            match part {
                Some(Found::Part(Part::End)) => {
                    self.kept.extend_from_slice(come.get(..taken).unwrap_or(&[]));
                    if !matches!(tuples.tuple(self.rows, &self.kept)?, Step::Whole(length) if length == self.kept.len())
                    {
                        return self.wrong("a tuple has not the length of its fields");
                    }
                    self.kept.clear();
                    self.kept.shrink_to(TUPLE_HELD_BYTES_MAX);
                    self.rows += 1;
                    self.place = Place::Between;
                    return Ok(());
                }
                Some(Found::Part(Part::Field(length)))
                    if self.kept.len() + taken + i32::from_be_bytes(length).max(0) as usize > self.kept_max =>
                {
                    // What was kept is handed on first, then the tuple goes on in parts.
                    let mut kept = std::mem::take(&mut self.kept);
                    kept.extend_from_slice(come.get(..taken).unwrap_or(&[]));
                    self.scan = Scan::new(self.scan.columns);
                    self.place = Place::Passing;
                    return self.pass(&mut kept.as_slice(), tuples);
                }
                Some(Found::Trailer) => {
                    self.kept.clear();
                    self.place = Place::Ended;
                    return Ok(());
                }
                Some(Found::Part(_)) => {}
                None => {
                    self.kept.extend_from_slice(come);
                    return Ok(());
                }
            }
        }
    }

    fn pass<T: Tuples>(&mut self, bytes: &mut &[u8], tuples: &mut T) -> Result<(), T::Error> {
        loop {
            match self.scan.step(bytes) {
                Ok(Some(Found::Part(part))) => {
                    tuples.part(self.rows, part)?;
                    if matches!(part, Part::End) {
                        self.rows += 1;
                        self.place = Place::Between;
                        return Ok(());
                    }
                }
                Ok(None) => return Ok(()),
                Ok(Some(Found::Trailer)) => return self.wrong(COUNT),
                Err(what) => return self.wrong(what),
            }
        }
    }

    fn wrong<T, E: From<CopyError>>(&self, what: &'static str) -> Result<T, E> {
        Err(CopyError::Stream { what, rows: self.rows }.into())
    }
}

/// Takes a tuple apart byte by byte, wherever the bytes end.
struct Scan {
    columns: usize,
    fields_left: usize,
    tuple_bytes: usize,
    need: Need,
    begun: [u8; 4],
    begun_bytes: usize,
}

#[derive(Debug, Clone, Copy)]
enum Need {
    Count,
    Length,
    /// So many bytes of a value.
    Value(usize),
}

enum Found<'a> {
    Part(Part<'a>),
    Trailer,
}

impl Scan {
    fn new(columns: usize) -> Self {
        Self { columns, fields_left: 0, tuple_bytes: 0, need: Need::Count, begun: [0; 4], begun_bytes: 0 }
    }

    /// What comes next in these bytes, if they reach so far.
    fn step<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Found<'a>>, &'static str> {
        let part = match self.need {
            Need::Count => {
                let Some([a, b, ..]) = self.collect(2, bytes) else { return Ok(None) };
                if [a, b] == TRAILER {
                    return Ok(Some(Found::Trailer));
                }
                if usize::from(u16::from_be_bytes([a, b])) != self.columns {
                    return Err(COUNT);
                }
                (self.fields_left, self.tuple_bytes, self.need) = (self.columns, 0, Need::Length);
                Part::Begin
            }
            Need::Length if self.fields_left == 0 => {
                self.need = Need::Count;
                Part::End
            }
            Need::Length => {
                let Some(length) = self.collect(4, bytes) else { return Ok(None) };
                self.fields_left -= 1;
                if let Ok(length) = usize::try_from(i32::from_be_bytes(length)) {
                    self.tuple_bytes += length;
                    if self.tuple_bytes > TUPLE_BYTES_MAX {
                        return Err("a tuple is larger than any that PostgreSQL makes");
                    }
                    self.need = Need::Value(length);
                }
                Part::Field(length)
            }
            Need::Value(0) => {
                self.need = Need::Length;
                Part::FieldEnd
            }
            Need::Value(_) if bytes.is_empty() => return Ok(None),
            Need::Value(left) => {
                let (value, rest) = bytes.split_at(bytes.len().min(left));
                (*bytes, self.need) = (rest, Need::Value(left - value.len()));
                Part::Bytes(value)
            }
        };
        Ok(Some(Found::Part(part)))
    }

    fn collect(&mut self, count: usize, bytes: &mut &[u8]) -> Option<[u8; 4]> {
        while self.begun_bytes < count {
            let (next, rest) = bytes.split_first()?;
            if let Some(place) = self.begun.get_mut(self.begun_bytes) {
                *place = *next;
            }
            *bytes = rest;
            self.begun_bytes += 1;
        }
        self.begun_bytes = 0;
        Some(self.begun)
    }
}

struct Hashing<'a, F> {
    hasher: &'a mut RowHasher,
    large: &'a mut Option<Box<LargeRow>>,
    into: &'a mut F,
}

impl<F: FnMut(RowHash)> Tuples for Hashing<'_, F> {
    type Error = CopyError;
    #[inline]
    fn tuple(&mut self, row: u64, bytes: &[u8]) -> Result<Step, CopyError> {
        let step = self.hasher.tuple(row, bytes, TUPLE_HELD_BYTES_MAX)?;
        if self.hasher.has_enough() {
            self.hasher.hash(self.into)?;
        }
        Ok(step)
    }
    fn part(&mut self, row: u64, part: Part<'_>) -> Result<(), CopyError> {
        let large = self.large.get_or_insert_with(|| Box::new(LargeRow::new(self.hasher)));
        if let Some(hash) = large.part(self.hasher, row, part)? {
            *self.large = None;
            self.hasher.hash(self.into)?;
            (self.into)(hash);
        }
        Ok(())
    }
}

pub(super) const COUNT: &str = "a tuple has another number of fields";
const LENGTH: &str = "a field has a length that none can have";
