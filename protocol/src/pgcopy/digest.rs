//! Hashes tuples as they lie: each value is written in the form of [`crate::digest::encoding`] straight from its
//! field, so that a row has the hash that it has as part of an Arrow batch of its contract. This is the busiest
//! loop of a transfer between two PostgreSQL databases; what can be known of a column beforehand, is.

use super::numeric::Numeric;
use super::shape::{Column, Form, Shape};
use super::{CopyError, Fault, NOT_UTF8, date, fixed, text, timestamp};
use crate::digest::RowHash;
use crate::digest::encoding::{self, INFINITY, KEY, MINUS_INFINITY, NULL, ROW, SHORT, TEXT};
use crate::digest::forms::Forms;
use crate::digest::json::Canonicalizer;
use crate::limits::VALUE_HELD_BYTES_MAX;

/// Hashes tuples of one shape under one key.
pub struct RowHasher {
    pub(super) columns: Vec<Column>,
    key_columns: Vec<usize>,
    pub(super) key: [u8; 32],
    forms: Forms,
    texts: Texts,
    /// Where in its form each column of the row begins and ends.
    places: Vec<(usize, usize)>,
    scratch: Scratch,
}

/// What values are made in, kept from one to the next.
#[derive(Default)]
pub(super) struct Scratch {
    rendered: String,
    canonicalizer: Canonicalizer,
}

/// What a place in a stream, looked at as a tuple, turned out to be.
pub(super) enum Step {
    /// A tuple of so many bytes.
    Whole(usize),
    /// The beginning of one.
    More,
    /// The beginning of one that is too large to be kept.
    Large,
}

impl RowHasher {
    pub fn new(shape: &Shape, key: [u8; 32]) -> Self {
        Self {
            columns: shape.columns.clone(),
            key_columns: shape.key.clone(),
            key,
            forms: Forms::new(key),
            texts: Texts::default(),
            places: vec![(0, 0); shape.columns.len()],
            scratch: Scratch::default(),
        }
    }

    /// The hash of the tuple that these bytes begin with, and how long it is. A row that cannot be carried is a
    /// [`CopyError::Value`], after which the next may follow.
    pub fn row(&mut self, row: u64, bytes: &[u8]) -> Result<(RowHash, usize), CopyError> {
        let stream = || CopyError::Stream { what: "a tuple is cut off", rows: row };
        let Step::Whole(length) = self.tuple(row, bytes, usize::MAX)? else { return Err(stream()) };
        let mut found = None;
        self.hash(&mut |hash| found = Some(hash))?;
        found.map(|hash| (hash, length)).ok_or_else(stream)
    }

    /// Writes the row's canonical form, to be hashed by [`Self::hash`], where the tuple is whole and no value is
    /// larger.
    pub(super) fn tuple(&mut self, row: u64, bytes: &[u8], large: usize) -> Result<Step, CopyError> {
        match self.write(row, bytes, large) {
            Ok(Step::Whole(length)) => Ok(Step::Whole(length)),
            other => {
                self.forms.drop_begun();
                self.texts.drop_row(row);
                other
            }
        }
    }

    fn write(&mut self, row: u64, bytes: &[u8], large: usize) -> Result<Step, CopyError> {
        let stream = |what| Err(CopyError::Stream { what, rows: row });
        let Some((count, mut rest)) = bytes.split_first_chunk::<2>() else { return Ok(Step::More) };
        if usize::from(u16::from_be_bytes(*count)) != self.columns.len() {
            return stream("a tuple has another number of fields");
        }
        let out = self.forms.bytes();
        out.push(ROW);
        for (index, (column, place)) in self.columns.iter().zip(&mut self.places).enumerate() {
            let Some((length, after)) = rest.split_first_chunk::<4>() else { return Ok(Step::More) };
            let start = out.len();
            match usize::try_from(i32::from_be_bytes(*length)) {
                Ok(length) => {
                    if length > large {
                        return Ok(Step::Large);
                    }
                    let field = after;
                    let Some((value, after)) = field.split_at_checked(length) else { return Ok(Step::More) };
                    if column.form == Form::Text {
                        if !is_ascii(length, field) {
                            self.texts.push(row, index, value);
                        }
                        encoding::beginning(TEXT, length, field, out);
                    } else if matches!(column.form, Form::Json | Form::Jsonb) {
                        let json = json_bytes(column.form, value).map_err(|fault| column.error(row, fault))?;
                        if !json.is_ascii() {
                            self.texts.push(row, index, json);
                        }
                        encoding::json(json, &mut self.scratch.canonicalizer, out)
                            .map_err(|error| column.error(row, not_json(error)))?;
                    } else if let Err(fault) = encode(column, value, out, &mut self.scratch) {
                        return Err(column.error(row, fault));
                    }
                    rest = after;
                }
                Err(_) => {
                    if let Some(error) = column.null_error(row, *length) {
                        return Err(error);
                    }
                    out.push(NULL);
                    rest = after;
                }
            }
            *place = (start, out.len());
        }
        self.forms.end_row();
        if !self.key_columns.is_empty() {
            let out = self.forms.bytes();
            out.push(KEY);
            for index in &self.key_columns {
                if let Some((from, to)) = self.places.get(*index) {
                    out.extend_from_within(*from..*to);
                }
            }
        }
        self.forms.keep(row as usize);
        Ok(Step::Whole(bytes.len() - rest.len()))
    }

    /// Whether it pays to hash what was written.
    pub(super) fn has_enough(&self) -> bool {
        self.forms.are_enough()
    }

    /// Gives the hashes of the rows that were written, in their order.
    pub(super) fn hash(&mut self, into: &mut impl FnMut(RowHash)) -> Result<(), CopyError> {
        if let Err((row, index)) = self.texts.check() {
            self.forms.clear();
            let column = self.columns.get(index);
            let error = column.map(|column| column.error(row, NOT_UTF8.into()));
            return Err(error.unwrap_or(CopyError::Stream { what: NOT_UTF8, rows: row }));
        }
        self.forms.hash(into);
        Ok(())
    }

    pub(super) fn key_columns(&self) -> &[usize] {
        &self.key_columns
    }
}

/// Texts that are not of ASCII alone, looked at together: one by one, that each is UTF-8 would take longer to find out
/// than its hash.
#[derive(Default)]
struct Texts {
    /// Each with a byte behind it that no character goes across.
    bytes: Vec<u8>,
    /// The row and the column of each, and where it ends.
    ends: Vec<(u64, usize, usize)>,
}

impl Texts {
    fn push(&mut self, row: u64, column: usize, text: &[u8]) {
        self.bytes.extend_from_slice(text);
        self.bytes.push(0);
        self.ends.push((row, column, self.bytes.len()));
    }
    /// Forgets those of the row that came last.
    fn drop_row(&mut self, row: u64) {
        while self.ends.pop_if(|(of, ..)| *of == row).is_some() {}
        self.bytes.truncate(self.ends.last().map_or(0, |(.., end)| *end));
    }
    /// Row and column of the first that is no UTF-8; forgets them all.
    fn check(&mut self) -> Result<(), (u64, usize)> {
        let wrong = simdutf8::basic::from_utf8(&self.bytes).is_err().then(|| {
            let valid = std::str::from_utf8(&self.bytes).map_or_else(|e| e.valid_up_to(), str::len);
            self.ends.iter().find(|(.., end)| *end > valid).map(|(row, column, _)| (*row, *column))
        });
        self.bytes.clear();
        self.ends.clear();
        wrong.flatten().map_or(Ok(()), Err)
    }
}

/// Whether the first so many bytes are ASCII; a short text is looked at in one step.
#[inline(always)]
fn is_ascii(length: usize, of: &[u8]) -> bool {
    match (of.first_chunk::<SHORT>(), HIGH_BITS.get(length)) {
        (Some(short), Some(mask)) => {
            let mut high = 0;
            for (word, mask) in short.as_chunks::<8>().0.iter().zip(mask) {
                high |= u64::from_le_bytes(*word) & mask;
            }
            high == 0
        }
        _ => of.get(..length).is_some_and(<[u8]>::is_ascii),
    }
}

/// The highest bits of the first so many bytes.
const HIGH_BITS: [[u64; SHORT / 8]; SHORT + 1] = {
    let mut masks = [[0; SHORT / 8]; SHORT + 1];
    let mut length = 1;
    while length <= SHORT {
        masks[length] = masks[length - 1];
        masks[length][(length - 1) / 8] |= 0x80 << ((length - 1) % 8 * 8);
        length += 1;
    }
    masks
};

impl Column {
    #[cold]
    pub(super) fn error(&self, row: u64, fault: Fault) -> CopyError {
        CopyError::Value { row, column: self.name.clone(), fault }
    }
    /// What is wrong with a field of this length below zero, if anything.
    pub(super) fn null_error(&self, row: u64, length: [u8; 4]) -> Option<CopyError> {
        match i32::from_be_bytes(length) {
            -1 if self.nullable => None,
            -1 => Some(self.error(row, "is NULL where the contract allows none".into())),
            _ => Some(CopyError::Stream { what: "a field has a length below zero", rows: row }),
        }
    }
}

/// Appends the canonical form of one value.
#[inline]
pub(super) fn encode(column: &Column, value: &[u8], out: &mut Vec<u8>, scratch: &mut Scratch) -> Result<(), Fault> {
    match column.form {
        Form::Bool => encoding::number(i64::from(boolean(value)?), out),
        Form::Int2 => encoding::number(i64::from(i16::from_be_bytes(fixed(value)?)), out),
        Form::Int4 => encoding::number(i64::from(i32::from_be_bytes(fixed(value)?)), out),
        Form::Int8 => encoding::number(i64::from_be_bytes(fixed(value)?), out),
        Form::Oid => encoding::number(i64::from(u32::from_be_bytes(fixed(value)?)), out),
        Form::Float4 => encoding::float(f64::from(f32::from_be_bytes(fixed(value)?)), out),
        Form::Float8 => encoding::float(f64::from_be_bytes(fixed(value)?), out),
        Form::Date => match date(i32::from_be_bytes(fixed(value)?))? {
            i32::MAX => out.push(INFINITY),
            i32::MIN => out.push(MINUS_INFINITY),
            days => encoding::number(i64::from(days), out),
        },
        Form::Timestamp => match timestamp(i64::from_be_bytes(fixed(value)?))? {
            i64::MAX => out.push(INFINITY),
            i64::MIN => out.push(MINUS_INFINITY),
            us => encoding::number(us, out),
        },
        Form::Decimal { precision, scale } => {
            let (unscaled, scale) = Numeric::parse(value)?.decimal(precision, scale)?;
            encoding::decimal(unscaled, scale, out);
        }
        Form::Text => encoding::bytes(TEXT, text(value)?.as_bytes(), out),
        Form::Bytes => encoding::bytes(TEXT, value, out),
        Form::Bpchar => encoding::bytes(TEXT, held(text(value)?)?.trim_end_matches(' ').as_bytes(), out),
        Form::Json | Form::Jsonb => {
            let text = held(json(column.form, value)?)?;
            encoding::json(text.as_bytes(), &mut scratch.canonicalizer, out).map_err(not_json)?;
        }
        Form::Number => {
            scratch.rendered.clear();
            Numeric::parse(value)?.canonical(&mut scratch.rendered)?;
            encoding::exact(&scratch.rendered, out);
        }
        Form::Rendered => {
            scratch.rendered.clear();
            super::render(&column.native, value, &mut scratch.rendered)?;
            encoding::bytes(TEXT, scratch.rendered.as_bytes(), out);
        }
    }
    Ok(())
}

pub(super) fn boolean(value: &[u8]) -> Result<bool, Fault> {
    match value {
        [0] => Ok(false),
        [1] => Ok(true),
        _ => Err("is neither true nor false".into()),
    }
}

/// The text of a json, or of a jsonb behind its version.
pub(super) fn json(form: Form, value: &[u8]) -> Result<&str, Fault> {
    text(json_bytes(form, value)?)
}

fn json_bytes(form: Form, value: &[u8]) -> Result<&[u8], Fault> {
    match (form, value) {
        (Form::Jsonb, [1, rest @ ..]) => Ok(rest),
        (Form::Jsonb, _) => Err("is jsonb of an unknown version".into()),
        _ => Ok(value),
    }
}

pub(super) fn not_json(error: crate::digest::json::JsonError) -> Fault {
    format!("holds text that is not JSON with one meaning: {error}").into()
}

/// A value that has to be whole to be hashed; a larger one is refused wherever it is met.
pub(super) fn held(text: &str) -> Result<&str, Fault> {
    if text.len() > VALUE_HELD_BYTES_MAX { Err(TOO_LARGE.into()) } else { Ok(text) }
}

pub(super) const TOO_LARGE: &str = "is larger than 64 MiB, the most for its type";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_beyond_ascii_is_seen_within_a_text_and_not_behind_it() {
        for length in 0..=40 {
            for behind in [0, 8, 40] {
                let mut bytes = vec![b'x'; length + behind];
                assert!(is_ascii(length, &bytes));
                for place in 0..bytes.len() {
                    bytes[place] = 0x80;
                    assert_eq!(is_ascii(length, &bytes), place >= length, "{length} {behind} {place}");
                    bytes[place] = b'x';
                }
            }
        }
    }
}
