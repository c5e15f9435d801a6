//! One canonical form of a JSON text: members in the order of RFC 8785 (by UTF-16 units), strings with its
//! escapes, no blanks, and numbers as exact decimals `[-]digits[e exponent]` without leading or trailing zeros,
//! so that `1.50`, `15e-1` and `1.5` are one number and none is rounded. A text with a member twice, a lone
//! surrogate or too much nesting has no canonical form.

use std::io::Write;

/// Why a text has no canonical form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub struct JsonError {
    pub what: &'static str,
    pub at: usize,
}

/// Appends the canonical form of one JSON text.
pub fn canonical(text: &str, out: &mut Vec<u8>) -> Result<(), JsonError> {
    Canonicalizer::default().write(text, out)
}

/// Writes canonical forms, one after the other, and keeps its memory from one to the next.
#[derive(Debug, Default)]
pub struct Canonicalizer {
    members: Vec<Member>,
    unsorted: Vec<u8>,
}

/// A member of an object as it was written: its name from the quote on, and its end, in what is written.
#[derive(Debug, Clone, Copy)]
struct Member {
    start: usize,
    name_end: usize,
    end: usize,
    /// Whether its name is of ASCII alone and has no escapes.
    is_plain: bool,
}

impl Canonicalizer {
    /// Appends the canonical form of one JSON text.
    pub fn write(&mut self, text: &str, out: &mut Vec<u8>) -> Result<(), JsonError> {
        self.write_bytes(text.as_bytes(), out)
    }

    /// Likewise, of bytes that are UTF-8 or are found out elsewhere: they make a form too, which means nothing.
    pub(crate) fn write_bytes(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), JsonError> {
        self.members.clear();
        let mut parser = Parser { bytes, at: 0, kept: self };
        parser.blanks();
        parser.value(out, 0)?;
        parser.blanks();
        if parser.at == bytes.len() { Ok(()) } else { parser.wrong("more follows the value") }
    }
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    kept: &'a mut Canonicalizer,
}

impl<'a> Parser<'a> {
    fn value(&mut self, out: &mut Vec<u8>, depth: usize) -> Result<(), JsonError> {
        if depth > DEPTH_MAX {
            return self.wrong("it is nested too deeply");
        }
        match self.peek() {
            Some(b'{') => self.object(out, depth),
            Some(b'[') => self.array(out, depth),
            Some(b'"') => self.string(out).map(|_| ()),
            Some(b'-' | b'0'..=b'9') => self.number(out),
            Some(b't') => self.word("true", out),
            Some(b'f') => self.word("false", out),
            Some(b'n') => self.word("null", out),
            _ => self.wrong("a value is missing"),
        }
    }

    fn object(&mut self, out: &mut Vec<u8>, depth: usize) -> Result<(), JsonError> {
        self.at += 1;
        self.blanks();
        out.push(b'{');
        let first = self.kept.members.len();
        let mut ascending = true;
        if !self.take(b'}') {
            loop {
                self.blanks();
                if self.peek() != Some(b'"') {
                    return self.wrong("a member's name is missing");
                }
                let start = out.len();
                let is_plain = self.string(out)?;
                let name_end = out.len();
                self.blanks();
                if !self.take(b':') {
                    return self.wrong("a colon is missing");
                }
                self.blanks();
                out.push(b':');
                if self.peek() == Some(b'"') {
                    self.string(out)?;
                } else {
                    self.value(out, depth + 1)?;
                }
                let member = Member { start, name_end, end: out.len(), is_plain };
                if self.kept.members.len() > first
                    && let Some(before) = self.kept.members.last()
                {
                    ascending &= order(before, &member, out).is_lt();
                }
                self.kept.members.push(member);
                self.blanks();
                if self.take(b'}') {
                    break;
                }
                if !self.take(b',') {
                    return self.wrong("a comma is missing");
                }
                out.push(b',');
            }
        }
        if !ascending {
            self.sort(first, out)?;
        }
        self.kept.members.truncate(first);
        out.push(b'}');
        Ok(())
    }

    /// Writes the members from the `first` on again, in order.
    fn sort(&mut self, first: usize, out: &mut Vec<u8>) -> Result<(), JsonError> {
        let Canonicalizer { members, unsorted } = &mut *self.kept;
        let members = members.get_mut(first..).unwrap_or_default();
        let start = members.first().map_or(out.len(), |member| member.start);
        members.sort_by(|a, b| order(a, b, out));
        if members.windows(2).any(|pair| matches!(pair, [a, b] if order(a, b, out).is_eq())) {
            return self.wrong("a member stands twice in the object that ends");
        }
        unsorted.clear();
        unsorted.extend_from_slice(out.get(start..).unwrap_or_default());
        out.truncate(start);
        for (index, member) in members.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            out.extend_from_slice(unsorted.get(member.start - start..member.end - start).unwrap_or_default());
        }
        Ok(())
    }

    fn array(&mut self, out: &mut Vec<u8>, depth: usize) -> Result<(), JsonError> {
        self.at += 1;
        out.push(b'[');
        self.blanks();
        if !self.take(b']') {
            loop {
                self.blanks();
                self.value(out, depth + 1)?;
                self.blanks();
                if self.take(b']') {
                    break;
                }
                if !self.take(b',') {
                    return self.wrong("a comma is missing");
                }
                out.push(b',');
            }
        }
        out.push(b']');
        Ok(())
    }

    /// Whether it is of ASCII alone and has no escapes.
    fn string(&mut self, out: &mut Vec<u8>) -> Result<bool, JsonError> {
        // Most strings are copied as they stand, with their quotes.
        let mut from = self.at;
        self.at += 1;
        let mut is_plain = true;
        loop {
            is_plain &= self.pass_plain();
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    self.copy(from, out);
                    return Ok(is_plain);
                }
                Some(b'\\') => {
                    self.copy(from, out);
                    is_plain = false;
                    self.at += 1;
                    let escape = self.peek();
                    self.at += 1;
                    let c = match escape {
                        Some(c @ (b'"' | b'\\' | b'/')) => char::from(c),
                        Some(b'b') => '\u{8}',
                        Some(b'f') => '\u{c}',
                        Some(b'n') => '\n',
                        Some(b'r') => '\r',
                        Some(b't') => '\t',
                        Some(b'u') => self.unicode()?,
                        _ => return self.wrong("an escape is not known"),
                    };
                    write_char(c, out);
                    from = self.at;
                }
                Some(_) => return self.wrong("a control character stands in a string"),
                None => return self.wrong("a string does not end"),
            }
        }
    }

    /// Goes on to the next byte that does not stand for itself in a string; whether all before it are ASCII.
    #[inline]
    fn pass_plain(&mut self) -> bool {
        let mut joined = 0;
        let mut rest = self.bytes.get(self.at..).unwrap_or_default();
        // Eight at a time: names and values are short, and where each of them ends cannot be foreseen.
        while let Some((eight, after)) = rest.split_first_chunk::<8>() {
            let word = u64::from_le_bytes(*eight);
            let special = first_special(word);
            if special != 0 {
                let before = special.trailing_zeros() / 8;
                self.at += before as usize;
                return (joined | word & !(u64::MAX << (8 * before))) & HIGH_BITS == 0;
            }
            joined |= word;
            self.at += 8;
            rest = after;
        }
        let is_special = |byte: &u8| {
            joined |= u64::from(*byte);
            matches!(byte, b'"' | b'\\' | 0..0x20)
        };
        self.at += rest.iter().position(is_special).unwrap_or(rest.len());
        joined & HIGH_BITS == 0
    }

    /// Writes what stands between there and here; what is short, in one step.
    #[inline]
    fn copy(&self, from: usize, out: &mut Vec<u8>) {
        let length = self.at - from;
        let rest = self.bytes.get(from..).unwrap_or_default();
        match rest.first_chunk::<SHORT>() {
            Some(short) if length <= SHORT => {
                let end = out.len() + length;
                out.extend_from_slice(short);
                out.truncate(end);
            }
            _ => out.extend_from_slice(rest.get(..length).unwrap_or_default()),
        }
    }

    fn unicode(&mut self) -> Result<char, JsonError> {
        let first = self.hex()?;
        let code = match first {
            0xd800..=0xdbff => {
                if !(self.take(b'\\') && self.take(b'u')) {
                    return self.wrong("half of a character stands alone");
                }
                match self.hex()? {
                    second @ 0xdc00..=0xdfff => 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00),
                    _ => return self.wrong("half of a character stands alone"),
                }
            }
            _ => first,
        };
        match char::from_u32(code) {
            Some(c) => Ok(c),
            None => self.wrong("half of a character stands alone"),
        }
    }

    fn hex(&mut self) -> Result<u32, JsonError> {
        let digits = self.bytes.get(self.at..self.at + 4).unwrap_or_default();
        let digit = |digit: &u8| char::from(*digit).to_digit(16);
        match digits.iter().map(digit).try_fold(0, |code, digit| Some(code * 16 + digit?)) {
            Some(code) if digits.len() == 4 => {
                self.at += 4;
                Ok(code)
            }
            _ => self.wrong("an escape has not four hexadecimal digits"),
        }
    }

    fn number(&mut self, out: &mut Vec<u8>) -> Result<(), JsonError> {
        // A digit that stands alone is the most common number, and its own form.
        if let Some([digit @ b'0'..=b'9', after, ..]) = self.bytes.get(self.at..)
            && !matches!(after, b'0'..=b'9' | b'.' | b'e' | b'E')
        {
            self.at += 1;
            out.push(*digit);
            return Ok(());
        }
        let negative = self.take(b'-');
        let whole = self.digits();
        if whole.is_empty() || (whole.len() > 1 && whole.starts_with(b"0")) {
            return self.wrong("a number is not well-formed");
        }
        let mut fraction: &[u8] = &[];
        if self.take(b'.') {
            fraction = self.digits();
            if fraction.is_empty() {
                return self.wrong("a number is not well-formed");
            }
        }
        let mut exponent = if matches!(self.peek(), Some(b'e' | b'E')) { self.exponent()? } else { 0 };
        exponent -= fraction.len() as i64;
        // Zeros that end the digits become a power of ten, zeros that begin them mean nothing.
        let mut whole = whole;
        let zeros = |digits: &[u8]| digits.iter().rev().take_while(|digit| **digit == b'0').count();
        let trailing = zeros(fraction);
        exponent += trailing as i64;
        fraction = fraction.get(..fraction.len() - trailing).unwrap_or_default();
        if fraction.is_empty() {
            let trailing = zeros(whole);
            exponent += trailing as i64;
            whole = whole.get(..whole.len() - trailing).unwrap_or_default();
        } else if whole == b"0" {
            whole = &[];
            let leading = fraction.iter().take_while(|digit| **digit == b'0').count();
            fraction = fraction.get(leading..).unwrap_or_default();
        }
        if whole.is_empty() && fraction.is_empty() {
            out.push(b'0');
            return Ok(());
        }
        if negative {
            out.push(b'-');
        }
        out.extend_from_slice(whole);
        out.extend_from_slice(fraction);
        if exponent != 0 {
            // Memory never refuses.
            let _ = write!(out, "e{exponent}");
        }
        Ok(())
    }

    fn exponent(&mut self) -> Result<i64, JsonError> {
        self.at += 1;
        let minus = self.take(b'-');
        if !minus {
            self.take(b'+');
        }
        let digits = self.digits();
        let leading = digits.iter().take_while(|digit| **digit == b'0').count();
        if digits.is_empty() || digits.len() - leading > EXPONENT_DIGITS_MAX {
            return self.wrong("a number's exponent is not within bounds");
        }
        let size = digits.iter().fold(0, |size, digit| size * 10 + i64::from(digit - b'0'));
        Ok(if minus { -size } else { size })
    }

    fn digits(&mut self) -> &'a [u8] {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += length;
        rest.get(..length).unwrap_or_default()
    }
    fn word(&mut self, word: &str, out: &mut Vec<u8>) -> Result<(), JsonError> {
        if !self.bytes.get(self.at..).is_some_and(|rest| rest.starts_with(word.as_bytes())) {
            return self.wrong("a value is missing");
        }
        self.at += word.len();
        out.extend_from_slice(word.as_bytes());
        Ok(())
    }
    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }
    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }
    #[cold]
    fn wrong<T>(&self, what: &'static str) -> Result<T, JsonError> {
        Err(JsonError { what, at: self.at })
    }
}

/// The lowest bit that is set is the highest of the first byte that is a quote, a backslash or a control character. Of
/// the bytes behind that, nothing is said.
#[inline]
fn first_special(word: u64) -> u64 {
    let below = |word: u64, bound: u8| word.wrapping_sub(EACH_BYTE * u64::from(bound)) & !word & HIGH_BITS;
    let equal = |byte: u8| below(word ^ (EACH_BYTE * u64::from(byte)), 1);
    below(word, 0x20) | equal(b'"') | equal(b'\\')
}

/// The order of two members' names by their UTF-16 units.
#[inline]
fn order(a: &Member, b: &Member, out: &[u8]) -> std::cmp::Ordering {
    let name = |member: &Member| out.get(member.start + 1..member.name_end - 1).unwrap_or_default();
    // With escapes or beyond ASCII the written bytes have another order than what they mean.
    if !(a.is_plain && b.is_plain) {
        return units(name(a)).cmp(&units(name(b)));
    }
    name(a).first().cmp(&name(b).first()).then_with(|| name(a).cmp(name(b)))
}

/// The UTF-16 units of what is written in its canonical form.
fn units(written: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(written);
    let mut units = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let c = match (c, if c == '\\' { chars.next() } else { None }) {
            ('\\', Some('b')) => '\u{8}',
            ('\\', Some('t')) => '\t',
            ('\\', Some('n')) => '\n',
            ('\\', Some('f')) => '\u{c}',
            ('\\', Some('r')) => '\r',
            ('\\', Some('u')) => {
                let code = chars.by_ref().take(4).fold(0, |code, digit| code * 16 + digit.to_digit(16).unwrap_or(0));
                char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            ('\\', Some(escaped)) => escaped,
            (c, _) => c,
        };
        units.extend_from_slice(c.encode_utf16(&mut [0; 2]));
    }
    units
}

fn write_char(c: char, out: &mut Vec<u8>) {
    match c {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        '\u{8}' => out.extend_from_slice(b"\\b"),
        '\t' => out.extend_from_slice(b"\\t"),
        '\n' => out.extend_from_slice(b"\\n"),
        '\u{c}' => out.extend_from_slice(b"\\f"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\0'..' ' => out.extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes()),
        _ => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

const DEPTH_MAX: usize = 128;
const EXPONENT_DIGITS_MAX: usize = 9;
const SHORT: usize = 16;
const EACH_BYTE: u64 = u64::MAX / 255;
const HIGH_BITS: u64 = EACH_BYTE << 7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_have_one_form() {
        for (text, form) in [
            (r#" { "b" : 1.50 , "a" : [ true , null ] } "#, r#"{"a":[true,null],"b":15e-1}"#),
            ("100", "1e2"),
            ("1E2", "1e2"),
            ("-0.0", "0"),
            ("0.10e-3", "1e-4"),
            ("12345678901234567890.123", "12345678901234567890123e-3"),
            (r#""\u00e9\ud842\udfb7\/\u001f\n""#, "\"é𠮷/\\u001f\\n\""),
            (r#"{"\n":1,"\t":2,"a\"b":3,"a!b":4}"#, r#"{"\t":2,"\n":1,"a!b":4,"a\"b":3}"#),
            (r#"{"b":{"d":1,"c":2},"a":{"z":[{"y":1,"x":2}]}}"#, r#"{"a":{"z":[{"x":2,"y":1}]},"b":{"c":2,"d":1}}"#),
            ("[0.00, 0.0120e2, 10.10, 1e0]", "[0,12e-1,101e-1,1]"),
            // U+FB33 sorts after U+1F600 by UTF-16 units, before it by code points.
            ("{\"\u{fb33}\":1,\"😀\":2,\"\":3}", "{\"\":3,\"😀\":2,\"\u{fb33}\":1}"),
        ] {
            let mut out = Vec::new();
            canonical(text, &mut out).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), form, "{text}");
        }
    }

    #[test]
    fn strings_of_every_length_are_taken_as_they_stand() {
        for length in 0..40 {
            let plain = "x".repeat(length);
            for (written, form, is_plain) in [
                (plain.clone(), plain.clone(), true),
                (format!("{plain}\u{7f}"), format!("{plain}\u{7f}"), true),
                (format!("{plain}é"), format!("{plain}é"), false),
                (format!("é{plain}"), format!("é{plain}"), false),
                (format!("{plain}\\/{plain}"), format!("{plain}/{plain}"), false),
                (format!("{plain}\\\"{plain}"), format!("{plain}\\\"{plain}"), false),
            ] {
                for behind in ["", " ", ",\"é\":2}           "] {
                    let text = format!("\"{written}\"{behind}");
                    let mut kept = Canonicalizer::default();
                    let mut parser = Parser { bytes: text.as_bytes(), at: 0, kept: &mut kept };
                    let mut out = b"before".to_vec();
                    assert_eq!(parser.string(&mut out), Ok(is_plain), "{text}");
                    assert_eq!(parser.at, text.len() - behind.len(), "{text}");
                    assert_eq!(String::from_utf8(out).unwrap(), format!("before\"{form}\""), "{text}");
                }
            }
            for wrong in ["\u{1f}", "\0", "\n"] {
                assert!(canonical(&format!("\"{plain}{wrong}{plain}\""), &mut Vec::new()).is_err());
            }
            assert!(canonical(&format!("\"{plain}"), &mut Vec::new()).is_err());
        }
    }

    #[test]
    fn the_first_special_byte_is_found_in_any_company() {
        for byte in 0..=u8::MAX {
            for place in 0..8 {
                for other in [b'!', b'#', b' ', b'[', b']', 0x7f, 0x80, 0xa2, 0xdc, 0xff, b'"', 0] {
                    let mut bytes = [b'a'; 8];
                    bytes[place] = byte;
                    bytes[7] = if place < 7 { other } else { byte };
                    let is_special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
                    let found = first_special(u64::from_le_bytes(bytes));
                    let found = (found != 0).then(|| found.trailing_zeros() as usize / 8);
                    assert_eq!(found, bytes.iter().position(is_special), "{bytes:?}");
                }
            }
        }
    }

    #[test]
    fn texts_without_one_meaning_are_refused() {
        let deep = "[".repeat(200) + &"]".repeat(200);
        for text in [
            "",
            "{",
            "[1,]",
            "{\"a\":1,\"a\":2}",
            "{\"a\":1,\"\\u0061\":2}",
            "01",
            "1.",
            "+1",
            ".5",
            "nul",
            "\"\\ud800\"",
            "\"\\udc00\"",
            "\"a",
            "\"\u{1}\"",
            "1 2",
            "1e99999999999",
            "NaN",
            "\"\\x\"",
            deep.as_str(),
        ] {
            assert!(canonical(text, &mut Vec::new()).is_err(), "{text}");
        }
    }
}
