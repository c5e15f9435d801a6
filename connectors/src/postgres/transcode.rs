//! Tuples of a database whose server does not convert its texts: on the way in each text becomes UTF-8, on the way out
//! what the database takes for text. A tuple that cannot is handed out with the reason. Texts within other values, such
//! as arrays of text, are read as the server writes the whole value, and landed as that text.

use super::catalog::{Column, Relation};
use crate::charset::Charset;
use posthouse_protocol::batch::{Value, json_row};
use posthouse_protocol::limits::TUPLE_BYTES_MAX;
use posthouse_protocol::pgcopy::native::Plain;
use posthouse_protocol::pgcopy::{BadRow, CopyError, HEADER, NativeType, TRAILER, complete_prefix, render};
use posthouse_protocol::problem::Problem;

/// Between UTF-8 and one database's charset.
pub(super) struct Transcoder {
    charset: Charset,
    columns: Vec<(String, NativeType)>,
    /// Where text lies in the fields of each column.
    places: Vec<Place>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Nowhere,
    Whole,
    /// Behind a byte that says a version.
    BehindVersion,
    /// Within other values.
    Within,
    /// Whole, as the server writes a value that has texts within.
    Rendered,
}

/// A text that stays behind; of which column.
pub(super) struct Stuck {
    pub(super) column: String,
    pub(super) why: String,
}

impl Transcoder {
    /// None where the database's texts are UTF-8.
    pub(super) fn new<'c>(charset: Charset, columns: impl Iterator<Item = (&'c str, &'c NativeType)>) -> Option<Self> {
        if charset.is_utf8() {
            return None;
        }
        let columns: Vec<_> = columns.map(|(name, native)| (name.to_owned(), native.clone())).collect();
        let places = columns.iter().map(|(_, native)| Place::of(native)).collect();
        Some(Self { charset, columns, places })
    }

    /// Columns that are read as the server writes them.
    pub(super) fn rendered(mut self, is_rendered: impl Fn(&str) -> bool) -> Self {
        for ((name, _), place) in self.columns.iter().zip(&mut self.places) {
            if is_rendered(name) {
                *place = Place::Rendered;
            }
        }
        self
    }

    /// Appends one tuple as UTF-8.
    fn decode(&self, tuple: &[u8], out: &mut Vec<u8>) -> Result<(), Stuck> {
        self.rewrite(tuple, out, &|text, out| match self.charset.decode(text) {
            Ok(text) => {
                out.extend_from_slice(text.as_bytes());
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        })
    }

    /// Appends one tuple, whose texts are UTF-8, as the database takes it; or nothing of it.
    pub(super) fn encode(&self, tuple: &[u8], out: &mut Vec<u8>) -> Result<(), Stuck> {
        self.rewrite(tuple, out, &|text, out| match std::str::from_utf8(text) {
            Ok(text) => self.charset.encode_into(text, out).map_err(|error| error.to_string()),
            Err(_) => Err(Charset::Utf8.fault().to_owned()),
        })
    }

    fn rewrite(&self, tuple: &[u8], out: &mut Vec<u8>, convert: Convert<'_>) -> Result<(), Stuck> {
        let start = out.len();
        let Some((count, mut rest)) = tuple.split_first_chunk::<2>() else { return Ok(()) };
        out.extend_from_slice(count);
        for ((name, _), place) in self.columns.iter().zip(&self.places) {
            let Some((length, after)) = rest.split_first_chunk::<4>() else { break };
            rest = after;
            let at = out.len();
            out.extend_from_slice(length);
            // Tuples were measured before: a field that is there is whole.
            let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else { continue };
            let (value, after) = rest.split_at(length.min(rest.len()));
            rest = after;
            let done = match place {
                Place::Nowhere => {
                    out.extend_from_slice(value);
                    continue;
                }
                Place::Whole => convert(value, out),
                Place::Rendered if self.looks_escaped(value) => Err(LOOKS_ESCAPED.to_owned()),
                Place::Rendered => convert(value, out),
                Place::BehindVersion => {
                    let (version, text) = value.split_at(value.len().min(1));
                    out.extend_from_slice(version);
                    convert(text, out)
                }
                Place::Within => Err("its texts lie within other values, which are not taken apart here".to_owned()),
            };
            let length = i32::try_from(out.len() - at - 4);
            let done = done.and_then(|()| length.map_err(|_| "it is too long in the other charset".to_owned()));
            let length = match done {
                Ok(length) => length,
                Err(why) => {
                    out.truncate(start);
                    return Err(Stuck { column: name.clone(), why });
                }
            };
            if let Some(place) = out.get_mut(at..at + 4) {
                place.copy_from_slice(&length.to_be_bytes());
            }
        }
        Ok(())
    }

    /// A tuple as a JSON object: what is no text of the charset as `{"hex": "…"}`.
    fn original(&self, tuple: &[u8]) -> String {
        let mut rest = tuple.get(2..).unwrap_or_default();
        let mut fields: Vec<Told<'_>> = Vec::with_capacity(self.columns.len());
        for ((name, native), place) in self.columns.iter().zip(&self.places) {
            let Some((length, after)) = rest.split_first_chunk::<4>() else { break };
            let value = usize::try_from(i32::from_be_bytes(*length)).ok().and_then(|length| after.get(..length));
            rest = after.get(value.map_or(0, <[u8]>::len)..).unwrap_or_default();
            fields.push((name.as_str(), value, value.and_then(|value| self.shown(native, *place, value))));
        }
        json_row(fields.iter().map(|(name, value, text)| match (value, text) {
            (None, _) => (*name, Value::Null),
            (_, Some(text)) => (*name, Value::Text(text)),
            (Some(value), None) => (*name, Value::Bytes(value)),
        }))
    }

    /// Whether a character's second byte looks like a backslash, which a server of single bytes doubles within others.
    fn looks_escaped(&self, value: &[u8]) -> bool {
        let Ok(text) = self.charset.decode(value) else { return false };
        let mut code = Vec::new();
        text.chars().filter(|character| !character.is_ascii()).any(|character| {
            code.clear();
            let coded = self.charset.encode_into(character.encode_utf8(&mut [0; 4]), &mut code);
            coded.is_ok() && code.last() == Some(&b'\\')
        })
    }

    fn shown(&self, native: &NativeType, place: Place, value: &[u8]) -> Option<String> {
        if value.len() > ORIGINAL_BYTES_MAX {
            return Some(format!("… {} bytes", value.len()));
        }
        let text = match place {
            Place::Nowhere => {
                let mut text = String::new();
                return render(native, value, &mut text).ok().map(|()| text);
            }
            Place::Rendered if self.looks_escaped(value) => return None,
            Place::Whole | Place::Rendered => value,
            Place::BehindVersion => value.get(1..)?,
            Place::Within => return None,
        };
        self.charset.decode(text).ok().map(std::borrow::Cow::into_owned)
    }
}

impl Place {
    fn of(native: &NativeType) -> Self {
        match native {
            NativeType::Varchar(_) | NativeType::Bpchar(_) => Self::Whole,
            NativeType::Plain(plain) => match plain {
                Plain::Text | Plain::Name | Plain::Xml | Plain::Enum | Plain::Json => Self::Whole,
                Plain::Jsonb | Plain::Jsonpath => Self::BehindVersion,
                Plain::Tsvector | Plain::Tsquery => Self::Within,
                _ => Self::Nowhere,
            },
            NativeType::Array(inner) | NativeType::Range(inner) | NativeType::Multirange(inner) => {
                if Self::of(inner) == Self::Nowhere { Self::Nowhere } else { Self::Within }
            }
            NativeType::Composite(fields) => {
                if fields.iter().all(|field| Self::of(field) == Self::Nowhere) {
                    Self::Nowhere
                } else {
                    Self::Within
                }
            }
            NativeType::Numeric(_) | NativeType::Bit(_) | NativeType::Varbit(_) | NativeType::Timed(..) => {
                Self::Nowhere
            }
        }
    }
}

/// Whether values of this type hold texts that are no fields of their own.
pub(super) fn holds_texts_within(native: &NativeType) -> bool {
    Place::of(native) == Place::Within
}

/// Columns whose texts lie within other values are read as the server writes the whole value.
pub(super) fn read_as_texts(charset: Charset, relation: &mut Relation) {
    if charset.is_utf8() {
        return;
    }
    let within = |column: &&mut Column| column.native.as_ref().is_some_and(holds_texts_within);
    for column in relation.columns.iter_mut().filter(within) {
        column.native = Some(NativeType::Plain(Plain::Text));
        column.read_as = Some(TEXT.to_owned());
    }
}

/// Whether it is one of these.
pub(super) fn is_read_as_text(column: &Column) -> bool {
    column.read_as.as_deref() == Some(TEXT)
}

/// What comes of a stream.
pub(super) enum Incoming<'a> {
    /// The next bytes of the stream in UTF-8; without the tuples that stayed behind.
    Bytes(&'a [u8]),
    Bad(BadRow),
}

/// Takes a binary COPY stream and gives it in UTF-8.
#[derive(Default)]
pub(super) struct Stream {
    held: Vec<u8>,
    has_begun: bool,
    tuples: u64,
    pub(super) bad: u64,
}

impl Stream {
    /// Takes the next bytes, cut anywhere.
    pub(super) fn feed(
        &mut self,
        transcoder: &Transcoder,
        bytes: &[u8],
        take: &mut dyn FnMut(Incoming<'_>) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        self.held.extend_from_slice(bytes);
        let mut done = 0;
        if !self.has_begun {
            let Some(header) = self.held.get(..HEADER.len()) else { return Ok(()) };
            take(Incoming::Bytes(header))?;
            (self.has_begun, done) = (true, HEADER.len());
        }
        let mut out = Vec::with_capacity(bytes.len() * 2);
        loop {
            let rest = self.held.get(done..).unwrap_or_default();
            let (length, rows) = complete_prefix(rest, transcoder.columns.len(), 1)?;
            if rows == 0 {
                break;
            }
            let tuple = rest.get(..length).unwrap_or_default();
            if let Err(stuck) = transcoder.decode(tuple, &mut out) {
                // What came before it goes before it.
                take(Incoming::Bytes(&out))?;
                out.clear();
                let (reason, original) = (format!("`{}`: {}", stuck.column, stuck.why), transcoder.original(tuple));
                take(Incoming::Bad(BadRow { row: self.tuples, reason, original }))?;
                self.bad += 1;
            }
            self.tuples += 1;
            done += length;
        }
        if !out.is_empty() {
            take(Incoming::Bytes(&out))?;
        }
        self.held.drain(..done);
        if self.held.starts_with(&TRAILER) {
            let end = std::mem::take(&mut self.held);
            return take(Incoming::Bytes(&end));
        }
        if self.held.len() > TUPLE_BYTES_MAX * 2 {
            let what = "a tuple is larger than any that PostgreSQL makes";
            return Err(CopyError::Stream { what, rows: self.tuples }.into());
        }
        Ok(())
    }
}

const TEXT: &str = "pg_catalog.text";
const LOOKS_ESCAPED: &str = "a character within it has a backslash for its second byte, which the server takes for one";
/// A longer value of a bad row is only named.
const ORIGINAL_BYTES_MAX: usize = 1 << 20;
/// Puts a text's bytes, converted, at the end of what is being written, or tells why it cannot.
type Convert<'a> = &'a dyn Fn(&[u8], &mut Vec<u8>) -> Result<(), String>;
/// A column's name, its bytes and its text, where they are one.
type Told<'a> = (&'a str, Option<&'a [u8]>, Option<String>);
