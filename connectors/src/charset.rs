//! What a database's bytes are as text, and text as its bytes: exactly, or not at all. Nothing is replaced: bytes that
//! are no characters make a bad row with these bytes, a character that the charset lacks is refused by name.
//!
//! GB 18030 is whole: each of its codes is one Unicode character and each character one code, private use and the
//! planes beyond the first among them, in the three editions that databases hold ([`Charset::Gb18030`] says how they
//! differ). GBK is its part of one and two bytes as Windows and databases have it, with 0x80 for the euro sign.
//! The table behind both is in `table`. Deliberately absent: charsets that the database itself converts.

mod table;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use table::Table;

/// As in `charset = "gbk"`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Charset {
    #[default]
    Utf8,
    /// One or two bytes. Beside what GB 18030 has in two bytes: 0x80 is the euro sign. 0xFF is nothing.
    Gbk,
    Gb18030(Edition),
}

/// Of GB 18030. Which characters there are is the same in all; nineteen codes of two bytes, and as many of four, have
/// changed places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Edition {
    /// As databases of that time convert: 0xA8BC is a private-use character.
    Of2000,
    /// 0xA8BC is ḿ; vertical punctuation and eight ideographs are private-use characters.
    Of2005,
    /// These eighteen are what they look like. Six more codes stay private-use characters, as the standard has them.
    Of2022,
}

/// Bytes that are no characters of their charset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Undecodable {
    charset: Charset,
    /// From the start of the value.
    pub at: usize,
}

/// A character that the charset has no code for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unencodable {
    charset: Charset,
    pub character: char,
}

impl Charset {
    /// From a configuration; the error reads well after the key's name.
    pub fn parse(text: &str) -> Result<Self, String> {
        Ok(match text.to_ascii_lowercase().as_str() {
            "utf-8" | "utf8" => Self::Utf8,
            "gbk" => Self::Gbk,
            "gb18030" | "gb18030-2022" => Self::Gb18030(Edition::Of2022),
            "gb18030-2005" => Self::Gb18030(Edition::Of2005),
            "gb18030-2000" => Self::Gb18030(Edition::Of2000),
            "gb2312" | "euc-cn" | "cp936" | "ms936" => {
                return Err(format!("`{text}` is a part or another name of \"gbk\": write that"));
            }
            _ => return Err(format!("it is one of {}", NAMES.join(", "))),
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Utf8 => "utf-8",
            Self::Gbk => "gbk",
            Self::Gb18030(Edition::Of2022) => "gb18030",
            Self::Gb18030(Edition::Of2005) => "gb18030-2005",
            Self::Gb18030(Edition::Of2000) => "gb18030-2000",
        }
    }

    pub fn is_utf8(self) -> bool {
        self == Self::Utf8
    }

    /// What is said of bytes that are none of its characters.
    pub fn fault(self) -> &'static str {
        match self {
            Self::Utf8 => "it has bytes that are no characters of UTF-8",
            Self::Gbk => "it has bytes that are no characters of GBK",
            Self::Gb18030(_) => "it has bytes that are no characters of GB 18030",
        }
    }

    /// Bytes as text; what is ASCII or UTF-8 already is not copied.
    pub fn decode(self, bytes: &[u8]) -> Result<Cow<'_, str>, Undecodable> {
        // ASCII is the same in all of them.
        if self.is_utf8() || bytes.is_ascii() {
            let text = std::str::from_utf8(bytes);
            return text.map(Cow::Borrowed).map_err(|e| Undecodable { charset: self, at: e.valid_up_to() });
        }
        let table = self.table();
        let mut text = String::with_capacity(bytes.len() + bytes.len() / 2);
        let mut rest = bytes;
        while !rest.is_empty() {
            let plain = rest.iter().position(|byte| !byte.is_ascii()).unwrap_or(rest.len());
            let (ascii, coded) = rest.split_at(plain);
            text.push_str(std::str::from_utf8(ascii).unwrap_or_default());
            rest = coded;
            while rest.first().is_some_and(|byte| !byte.is_ascii()) {
                let decoded = self.character(table, rest);
                let Some((character, after)) = decoded else {
                    return Err(Undecodable { charset: self, at: bytes.len() - rest.len() });
                };
                text.push(character);
                rest = after;
            }
        }
        Ok(Cow::Owned(text))
    }

    /// Text as bytes; what stays as it is is not copied.
    pub fn encode(self, text: &str) -> Result<Cow<'_, [u8]>, Unencodable> {
        if self.is_utf8() || text.is_ascii() {
            return Ok(Cow::Borrowed(text.as_bytes()));
        }
        let mut bytes = Vec::with_capacity(text.len());
        self.encode_into(text, &mut bytes)?;
        Ok(Cow::Owned(bytes))
    }

    /// Appends text as bytes, or nothing of it.
    pub fn encode_into(self, text: &str, out: &mut Vec<u8>) -> Result<(), Unencodable> {
        if self.is_utf8() || text.is_ascii() {
            out.extend_from_slice(text.as_bytes());
            return Ok(());
        }
        let (table, start) = (self.table(), out.len());
        for character in text.chars() {
            if !self.push(table, character, out) {
                out.truncate(start);
                return Err(Unencodable { charset: self, character });
            }
        }
        Ok(())
    }

    /// The same text with a `\u` escape for each character that the charset lacks: of JSON, the same JSON. For what is
    /// said of a row that is kept because of such a character.
    pub fn escaped(self, text: &str) -> Cow<'_, str> {
        if self.encode(text).is_ok() {
            return Cow::Borrowed(text);
        }
        let (table, mut spare, mut escaped) = (self.table(), Vec::new(), String::with_capacity(text.len() * 2));
        for character in text.chars() {
            spare.clear();
            if self.push(table, character, &mut spare) {
                escaped.push(character);
                continue;
            }
            for unit in character.encode_utf16(&mut [0; 2]) {
                escaped.push_str(&format!("\\u{unit:04x}"));
            }
        }
        Cow::Owned(escaped)
    }

    fn table(self) -> &'static Table {
        match self {
            Self::Utf8 | Self::Gbk => Table::of(Edition::Of2022),
            Self::Gb18030(edition) => Table::of(edition),
        }
    }

    /// The character that these bytes begin with, and what follows it. The first is no ASCII.
    fn character<'b>(self, table: &Table, bytes: &'b [u8]) -> Option<(char, &'b [u8])> {
        match (self, bytes) {
            (Self::Gbk, [0x80, rest @ ..]) => Some((EURO, rest)),
            (Self::Gb18030(_), [a, b @ b'0'..=b'9', c, d, rest @ ..]) => Some((table.four([*a, *b, *c, *d])?, rest)),
            (_, [a, b, rest @ ..]) => Some((table.two([*a, *b])?, rest)),
            _ => None,
        }
    }

    /// Appends a character; false where there is none.
    fn push(self, table: &Table, character: char, out: &mut Vec<u8>) -> bool {
        match (self, character) {
            (_, '\0'..='\x7f') => out.push(character as u8),
            (Self::Gbk, EURO) => out.push(0x80),
            _ => match table.code(character) {
                table::Code::Two(code) => out.extend_from_slice(&code),
                table::Code::Four(code) if self != Self::Gbk => out.extend_from_slice(&code),
                table::Code::Four(_) | table::Code::None => return false,
            },
        }
        true
    }
}

impl fmt::Display for Undecodable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, the first at byte {}", self.charset.fault(), self.at)
    }
}

impl fmt::Display for Unencodable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it has the character U+{:04X}, which {} lacks", u32::from(self.character), self.charset.name())
    }
}

impl std::error::Error for Undecodable {}
impl std::error::Error for Unencodable {}

const NAMES: [&str; 5] = ["utf-8", "gbk", "gb18030", "gb18030-2005", "gb18030-2000"];
const EURO: char = '€';
