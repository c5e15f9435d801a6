//! Rows as LOAD DATA and INSERT take them, and why a value is not taken: a server that would change it says so only by a
//! warning, or not at all. Bytes travel as hexadecimal digits and come back by UNHEX, since a file of LOAD DATA has one
//! character set for all of its columns.

use super::catalog::Column;
use super::doubles;
use super::fields::Keep;
use super::place::{quote, quoted};
use crate::types;
use posthouse_protocol::batch::{Batch, Value};
use posthouse_protocol::number::Number;
use posthouse_protocol::schema::{Contract, ContractType, Item};
use std::io::{self, Write as _};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, ReadBuf};

/// How the values of one contract go into the columns of one table.
#[derive(Debug)]
pub(super) struct Encoder {
    fields: Vec<Field>,
    /// Bytes of one value that a server takes.
    value_max: usize,
}

#[derive(Debug)]
struct Field {
    name: String,
    r#type: ContractType,
    keep: Keep,
    is_key: bool,
    /// Whether its column makes a number of NULL.
    numbers: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A field of a line that is loaded.
    Line,
    /// A literal of a statement.
    Literal,
}

impl Encoder {
    pub(super) fn new(contract: &Contract, columns: &[Column], packet_max: usize) -> Self {
        let field = |(item, column): (&Item, &Column)| Field {
            name: item.name.clone(),
            r#type: item.r#type,
            keep: Keep::of(item, column),
            is_key: contract.key.contains(&item.name),
            numbers: column.auto_increment,
        };
        let fields = contract.items.iter().zip(columns).map(field).collect();
        Self { fields, value_max: packet_max.saturating_sub(PACKET_MARGIN) }
    }

    /// What stands behind the table's name in LOAD DATA; `more` is set beside the columns.
    pub(super) fn load_clause(&self, more: Option<&str>) -> String {
        let (mut names, mut set) = (Vec::new(), Vec::new());
        for (index, field) in self.fields.iter().enumerate() {
            let by = match (&field.keep, field.r#type) {
                (Keep::Bits(_), _) => format!("CAST(@p{index} AS UNSIGNED)"),
                (_, ContractType::Bytes) => format!("UNHEX(@p{index})"),
                _ => {
                    names.push(quote(&field.name));
                    continue;
                }
            };
            names.push(format!("@p{index}"));
            set.push(format!("{} = {by}", quote(&field.name)));
        }
        set.extend(more.map(str::to_owned));
        let set = if set.is_empty() { String::new() } else { format!(" SET {}", set.join(", ")) };
        format!(
            "CHARACTER SET utf8mb4 FIELDS TERMINATED BY '\\t' ENCLOSED BY '' ESCAPED BY '\\\\' \
             LINES TERMINATED BY '\\n' ({}){set}",
            names.join(", ")
        )
    }

    /// Appends a row as a line; where a value is not taken, nothing, and why.
    fn line(&self, batch: &Batch, row: usize, out: &mut Vec<u8>) -> Result<(), String> {
        self.row(batch, row, out, Form::Line)?;
        out.push(b'\n');
        Ok(())
    }

    /// Appends a row as it stands in VALUES, without brackets.
    pub(super) fn literals(&self, batch: &Batch, row: usize, out: &mut Vec<u8>) -> Result<(), String> {
        self.row(batch, row, out, Form::Literal)
    }

    /// The key's columns, in the order of [`Encoder::key_literals`].
    pub(super) fn key_names(&self) -> String {
        quoted(self.fields.iter().filter(|field| field.is_key).map(|field| field.name.as_str()))
    }

    /// Appends a row's key alone, as it stands in VALUES.
    pub(super) fn key_literals(&self, batch: &Batch, row: usize, out: &mut Vec<u8>) -> Result<(), String> {
        let key = self.fields.iter().zip(batch.columns()).filter(|(field, _)| field.is_key);
        for (index, (field, column)) in key.enumerate() {
            if index > 0 {
                out.push(b',');
            }
            field.put(column.value(row), Form::Literal, self.value_max, out)?;
        }
        Ok(())
    }

    fn row(&self, batch: &Batch, row: usize, out: &mut Vec<u8>, form: Form) -> Result<(), String> {
        let start = out.len();
        for (index, (field, column)) in self.fields.iter().zip(batch.columns()).enumerate() {
            if index > 0 {
                out.push(if form == Form::Line { b'\t' } else { b',' });
            }
            if let Err(why) = field.put(column.value(row), form, self.value_max, out) {
                out.truncate(start);
                return Err(format!("`{}`: {why}", field.name));
            }
        }
        Ok(())
    }
}

impl Field {
    fn put(&self, value: Value<'_>, form: Form, value_max: usize, out: &mut Vec<u8>) -> Result<(), String> {
        match value {
            Value::Null if self.is_key => return Err("a part of its key is NULL".to_owned()),
            Value::Null if self.numbers => {
                return Err("the column numbers its rows itself, and would make a number of NULL".to_owned());
            }
            Value::Null => out.extend_from_slice(if form == Form::Line { b"\\N" } else { b"NULL" }),
            Value::Boolean(value) => out.push(if value { b'1' } else { b'0' }),
            Value::Integer(value) => self.integer(value, form, out)?,
            Value::Decimal(..) => self.decimal(value, out)?,
            Value::Float(value) => {
                if !value.is_finite() {
                    return Err("MySQL has neither infinities nor NaN".to_owned());
                }
                if self.keep == Keep::Single && f64::from(value as f32) != value {
                    return Err("the column keeps 24 bits of a fraction, and this number has more".to_owned());
                }
                put(out, format_args!("{value:?}"));
            }
            Value::Text(text) => self.text(text, form, value_max, out)?,
            Value::Number(digits) => {
                self.number(digits)?;
                self.characters(digits, form, value_max, out)?;
            }
            Value::Bytes(bytes) => self.bytes(bytes, form, value_max, out)?,
            Value::Date(days) => {
                let mut text = String::new();
                if !types::write_date(days, &mut text) || text.ends_with("infinity") {
                    return Err("MySQL has no date so far away".to_owned());
                }
                self.characters(&text, form, value_max, out)?;
            }
            Value::Timestamp(us) => {
                let mut text = String::new();
                if !types::write_timestamp(us, &mut text) || text.ends_with("infinity") {
                    return Err("MySQL has no time so far away".to_owned());
                }
                if let Keep::Fraction(digits) = self.keep
                    && us % 10i64.pow(6 - digits.min(6)) != 0
                {
                    return Err(format!("the column keeps {digits} digits of a second's fraction, and this has more"));
                }
                self.characters(&text, form, value_max, out)?;
            }
        }
        Ok(())
    }

    fn integer(&self, value: i64, form: Form, out: &mut Vec<u8>) -> Result<(), String> {
        match self.keep {
            Keep::Bits(bits) if value < 0 || (bits < 63 && value >> bits != 0) => {
                return Err(format!("the column keeps {bits} bits"));
            }
            Keep::Year if value != 0 && !(1901..=2155).contains(&value) => {
                return Err("a year here is 0, or lies between 1901 and 2155".to_owned());
            }
            // As a text, 0 would be the year 2000.
            Keep::Year if form == Form::Line => put(out, format_args!("{value:04}")),
            _ => put(out, format_args!("{value}")),
        }
        Ok(())
    }

    fn decimal(&self, value: Value<'_>, out: &mut Vec<u8>) -> Result<(), String> {
        if let (Keep::Bits(bits), Value::Decimal(unscaled, scale)) = (&self.keep, value)
            && (unscaled < 0 || scale != 0 || unscaled >> (*bits).min(64) != 0)
        {
            return Err(format!("the column keeps {bits} bits"));
        }
        put(out, format_args!("{value}"));
        Ok(())
    }

    fn number(&self, digits: &str) -> Result<(), String> {
        let Keep::Digits(before, behind) = self.keep else { return Ok(()) };
        let Some(Number::Finite(number)) = Number::parse(digits) else {
            return Err("the column takes neither infinities nor NaN".to_owned());
        };
        let (whole, part) = number.parts();
        if whole.trim_start_matches('0').len() as u64 > before || part.len() as u64 > behind {
            return Err(format!("the column keeps {before} digits before and {behind} behind the point"));
        }
        Ok(())
    }

    fn text(&self, text: &str, form: Form, value_max: usize, out: &mut Vec<u8>) -> Result<(), String> {
        match (&self.keep, self.r#type) {
            (_, ContractType::Json) => {
                // Its canonical form is for digests; people read it as it was written.
                posthouse_protocol::digest::json::canonical(text, &mut Vec::new())
                    .map_err(|_| "it is not JSON with one meaning".to_owned())?;
                if self.keep == Keep::Doubles && !doubles::keep(text) {
                    return Err("the column keeps numbers as doubles, and one of these has more digits".to_owned());
                }
                return self.characters(text, form, value_max, out);
            }
            // Blanks at the end of these are nothing.
            (_, ContractType::Char) => return self.characters(text.trim_end_matches(' '), form, value_max, out),
            (Keep::Unpadded, _) if text.ends_with(' ') => {
                return Err("it ends with a blank, which the column cuts off".to_owned());
            }
            (Keep::Labels(labels), _) if !labels.iter().any(|label| label == text) => {
                return Err("it is none of the column's labels as they are written there".to_owned());
            }
            (Keep::Set(labels), _) if !is_of_set(text, labels) => {
                return Err("it is no set of the column's labels, in their order".to_owned());
            }
            (Keep::Time(digits), _) if !is_time(text, *digits) => {
                return Err(format!("it is no time with {digits} digits of a second's fraction, as `12:05:00`"));
            }
            _ => {}
        }
        self.characters(text, form, value_max, out)
    }

    fn characters(&self, text: &str, form: Form, value_max: usize, out: &mut Vec<u8>) -> Result<(), String> {
        fits(text.len(), value_max)?;
        if form == Form::Literal {
            out.push(b'\'');
        }
        let mut rest = text.as_bytes();
        while let Some(at) = rest.iter().position(|byte| is_special(*byte)) {
            let (before, after) = rest.split_at(at);
            out.extend_from_slice(before);
            let Some((byte, after)) = after.split_first() else { break };
            out.push(b'\\');
            out.push(match byte {
                0 => b'0',
                b'\n' => b'n',
                b'\t' => b't',
                0x1a => b'Z',
                other => *other,
            });
            rest = after;
        }
        out.extend_from_slice(rest);
        if form == Form::Literal {
            out.push(b'\'');
        }
        Ok(())
    }

    fn bytes(&self, bytes: &[u8], form: Form, value_max: usize, out: &mut Vec<u8>) -> Result<(), String> {
        fits(bytes.len(), value_max)?;
        if let Keep::Filled(length) = self.keep
            && bytes.len() as u64 != length
        {
            return Err(format!("the column fills bytes up to {length}, and these are {}", bytes.len()));
        }
        if form == Form::Literal {
            out.extend_from_slice(b"X'");
        }
        let start = out.len();
        out.resize(start + bytes.len() * 2, 0);
        if let Some(digits) = out.get_mut(start..) {
            hex::encode_to_slice(bytes, digits).map_err(|e| e.to_string())?;
        }
        if form == Form::Literal {
            out.push(b'\'');
        }
        Ok(())
    }
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Memory takes all that is written.
    let _ = out.write_fmt(text);
}

fn fits(length: usize, value_max: usize) -> Result<(), String> {
    if length <= value_max {
        return Ok(());
    }
    Err(format!("it has {length} bytes, and the server takes {value_max} at once (max_allowed_packet)"))
}

/// What a line or a literal cannot hold as it is.
fn is_special(byte: u8) -> bool {
    matches!(byte, 0 | b'\n' | b'\t' | 0x1a | b'\\' | b'\'')
}

fn is_of_set(text: &str, labels: &[String]) -> bool {
    let mut left = labels.iter();
    text.is_empty() || text.split(',').all(|part| left.any(|label| label == part))
}

/// Whether a text is a time as the server writes one with so many digits.
fn is_time(text: &str, digits: u32) -> bool {
    // Nothing at all has no sign there.
    let is_nothing = !text.bytes().any(|byte| (b'1'..=b'9').contains(&byte));
    let text = match text.strip_prefix('-') {
        Some(_) if is_nothing => return false,
        Some(text) => text,
        None => text,
    };
    let (clock, part) = match text.split_once('.') {
        Some((clock, part)) => (clock, Some(part)),
        None => (text, None),
    };
    let numbers = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let fraction = match part {
        None => digits == 0,
        Some(part) => part.len() == digits as usize && numbers(part),
    };
    let clock: Vec<&str> = clock.split(':').collect();
    let [hours, minutes, seconds] = clock.as_slice() else { return false };
    let two = |text: &str| text.len() == 2 && numbers(text) && text < "60";
    let hours = (hours.len() == 2 || (hours.len() == 3 && !hours.starts_with('0'))) && numbers(hours);
    fraction && hours && two(minutes) && two(seconds)
}

/// Rows that are loaded together.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) encoder: Arc<Encoder>,
    pub(super) batches: Vec<Batch>,
    /// Rows that no line was made of: their batch, their place there, and why.
    refused: Mutex<Vec<(usize, usize, String)>>,
}

impl Window {
    pub(super) fn new(encoder: Arc<Encoder>, batches: Vec<Batch>) -> Arc<Self> {
        Arc::new(Self { encoder, batches, refused: Mutex::new(Vec::new()) })
    }
    pub(super) fn rows(&self) -> usize {
        self.batches.iter().map(Batch::rows).sum()
    }
    pub(super) fn take_refused(&self) -> Vec<(usize, usize, String)> {
        std::mem::take(&mut *self.refused.lock().unwrap_or_else(PoisonError::into_inner))
    }
    /// Its lines as a file, which are made while they are sent.
    pub(super) fn lines(self: &Arc<Self>) -> Lines {
        Lines { window: self.clone(), batch: 0, row: 0, ready: Vec::new(), taken: 0 }
    }
}

#[derive(Debug)]
pub(super) struct Lines {
    window: Arc<Window>,
    batch: usize,
    row: usize,
    ready: Vec<u8>,
    taken: usize,
}

impl Lines {
    fn make(&mut self) {
        self.ready.clear();
        self.taken = 0;
        while self.ready.len() < LINES_BYTES {
            let Some(batch) = self.window.batches.get(self.batch) else { return };
            if self.row == batch.rows() {
                (self.batch, self.row) = (self.batch + 1, 0);
                continue;
            }
            if let Err(why) = self.window.encoder.line(batch, self.row, &mut self.ready) {
                let mut refused = self.window.refused.lock().unwrap_or_else(PoisonError::into_inner);
                refused.push((self.batch, self.row, why));
            }
            self.row += 1;
        }
    }
}

impl AsyncRead for Lines {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.taken == self.ready.len() {
            self.make();
        }
        let left = self.ready.get(self.taken..).unwrap_or_default();
        let part = left.get(..into.remaining().min(left.len())).unwrap_or_default();
        into.put_slice(part);
        let taken = part.len();
        self.taken += taken;
        Poll::Ready(Ok(()))
    }
}

/// What a statement takes beside a value.
const PACKET_MARGIN: usize = 64 << 10;
/// Lines are made so many bytes ahead.
const LINES_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn put(keep: Keep, r#type: ContractType, value: Value<'_>, form: Form) -> Result<String, String> {
        let field = Field { name: "x".to_owned(), r#type, keep, is_key: false, numbers: false };
        let mut out = Vec::new();
        field.put(value, form, 100, &mut out).map(|()| String::from_utf8(out).unwrap())
    }

    #[test]
    fn what_a_line_or_a_literal_cannot_hold_is_escaped() {
        let hard = Value::Text("a\tb\nc\\d\0'\u{1a}😀");
        let line = put(Keep::Plain, ContractType::Text, hard, Form::Line).unwrap();
        assert_eq!(line, "a\\tb\\nc\\\\d\\0\\'\\Z😀");
        assert_eq!(put(Keep::Plain, ContractType::Text, hard, Form::Literal).unwrap(), format!("'{line}'"));
        assert_eq!(put(Keep::Plain, ContractType::Text, Value::Text("\\N"), Form::Line).unwrap(), "\\\\N");
        assert_eq!(put(Keep::Plain, ContractType::Text, Value::Null, Form::Line).unwrap(), "\\N");
        assert_eq!(put(Keep::Plain, ContractType::Text, Value::Text(""), Form::Line).unwrap(), "");
        assert_eq!(put(Keep::Plain, ContractType::Bytes, Value::Bytes(&[0, 255]), Form::Literal).unwrap(), "X'00ff'");
        let json = Value::Text("{\"b\": 1.50, \"a\": 2}");
        assert_eq!(put(Keep::Plain, ContractType::Json, json, Form::Line).unwrap(), "{\"b\": 1.50, \"a\": 2}");
    }

    #[test]
    fn what_a_column_would_change_is_refused() {
        let refused = |keep, r#type, value| put(keep, r#type, value, Form::Line).is_err();
        let labels = || vec!["a".to_owned(), "b".to_owned(), "c".to_owned()];
        assert!(refused(Keep::Labels(labels()), ContractType::Text, Value::Text("A")));
        assert!(!refused(Keep::Labels(labels()), ContractType::Text, Value::Text("a")));
        assert!(refused(Keep::Set(labels()), ContractType::Text, Value::Text("b,a")));
        assert!(!refused(Keep::Set(labels()), ContractType::Text, Value::Text("a,c")));
        assert!(refused(Keep::Unpadded, ContractType::Text, Value::Text("a ")));
        assert!(refused(Keep::Plain, ContractType::Float, Value::Float(f64::INFINITY)));
        assert!(refused(Keep::Single, ContractType::Float, Value::Float(0.1)));
        assert!(!refused(Keep::Single, ContractType::Float, Value::Float(0.5)));
        assert!(refused(Keep::Fraction(0), ContractType::Timestamp, Value::Timestamp(1)));
        assert!(refused(Keep::Fraction(6), ContractType::Timestamp, Value::Timestamp(i64::MAX)));
        assert!(refused(Keep::Year, ContractType::Integer, Value::Integer(70)));
        assert!(refused(Keep::Bits(3), ContractType::Integer, Value::Integer(8)));
        assert!(refused(Keep::Filled(2), ContractType::Bytes, Value::Bytes(&[1])));
        assert!(refused(Keep::Digits(2, 1), ContractType::Number, Value::Number("1.25")));
        assert!(!refused(Keep::Digits(2, 1), ContractType::Number, Value::Number("-12.5")));
        assert!(refused(Keep::Plain, ContractType::Text, Value::Text(&"x".repeat(101))));
        assert!(is_time("-838:59:59.000", 3) && is_time("00:00:00", 0));
        assert!(!is_time("1:00:00", 0) && !is_time("00:60:00", 0) && !is_time("00:00:00.1", 0));
        assert!(!is_time("012:00:00", 0));
        assert!(is_time("-00:00:01", 0) && !is_time("-00:00:00", 0) && !is_time("-00:00:00.000", 3));
        assert!(refused(Keep::Doubles, ContractType::Json, Value::Text("[0.1234567890123456789]")));
        assert!(!refused(Keep::Plain, ContractType::Json, Value::Text("[0.1234567890123456789]")));
        let (name, r#type) = ("x".to_owned(), ContractType::Integer);
        let numbered = Field { name, r#type, keep: Keep::Plain, is_key: false, numbers: true };
        assert!(numbered.put(Value::Null, Form::Line, 100, &mut Vec::new()).is_err());
        assert!(numbered.put(Value::Integer(0), Form::Line, 100, &mut Vec::new()).is_ok());
    }
}
