//! One canonical form of a JSON text: members in the order of RFC 8785 (by UTF-16 units), strings with its
//! escapes, no blanks, and numbers as exact decimals `[-]digits[e exponent]` without leading or trailing zeros,
//! so that `1.50`, `15e-1` and `1.5` are one number and none is rounded. A text with a member twice, a lone
//! surrogate or too much nesting has no canonical form.

/// Why a text has no canonical form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub struct JsonError {
    pub what: &'static str,
    pub at: usize,
}

/// Appends the canonical form of one JSON text.
pub fn canonical(text: &str, out: &mut Vec<u8>) -> Result<(), JsonError> {
    let mut parser = Parser { text, at: 0 };
    parser.blanks();
    parser.value(out, 0)?;
    parser.blanks();
    if parser.at == text.len() { Ok(()) } else { parser.wrong("more follows the value") }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn value(&mut self, out: &mut Vec<u8>, depth: usize) -> Result<(), JsonError> {
        if depth > DEPTH_MAX {
            return self.wrong("it is nested too deeply");
        }
        match self.peek() {
            Some(b'{') => self.object(out, depth),
            Some(b'[') => self.array(out, depth),
            Some(b'"') => {
                let text = self.string()?;
                write_string(&text, out);
                Ok(())
            }
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
        let mut members: Vec<(String, Vec<u8>)> = Vec::new();
        if !self.take(b'}') {
            loop {
                self.blanks();
                if self.peek() != Some(b'"') {
                    return self.wrong("a member's name is missing");
                }
                let name = self.string()?;
                self.blanks();
                if !self.take(b':') {
                    return self.wrong("a colon is missing");
                }
                self.blanks();
                let mut value = Vec::new();
                self.value(&mut value, depth + 1)?;
                members.push((name, value));
                self.blanks();
                if self.take(b'}') {
                    break;
                }
                if !self.take(b',') {
                    return self.wrong("a comma is missing");
                }
            }
        }
        members.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
        if members.windows(2).any(|pair| matches!(pair, [(a, _), (b, _)] if a == b)) {
            return self.wrong("a member stands twice in the object that ends");
        }
        out.push(b'{');
        for (index, (name, value)) in members.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write_string(name, out);
            out.push(b':');
            out.extend_from_slice(value);
        }
        out.push(b'}');
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

    fn string(&mut self) -> Result<String, JsonError> {
        self.at += 1;
        let mut out = String::new();
        loop {
            let rest = self.text.get(self.at..).unwrap_or("");
            let plain = rest.find(|c: char| c == '"' || c == '\\' || c < ' ').unwrap_or(rest.len());
            out.push_str(rest.get(..plain).unwrap_or(""));
            self.at += plain;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => {
                    self.at += 1;
                    let escape = self.peek();
                    self.at += 1;
                    out.push(match escape {
                        Some(c @ (b'"' | b'\\' | b'/')) => char::from(c),
                        Some(b'b') => '\u{8}',
                        Some(b'f') => '\u{c}',
                        Some(b'n') => '\n',
                        Some(b'r') => '\r',
                        Some(b't') => '\t',
                        Some(b'u') => self.unicode()?,
                        _ => return self.wrong("an escape is not known"),
                    });
                }
                Some(_) => return self.wrong("a control character stands in a string"),
                None => return self.wrong("a string does not end"),
            }
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
        let digits = self.text.get(self.at..self.at + 4).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        match digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()) {
            Some(code) => {
                self.at += 4;
                Ok(code)
            }
            None => self.wrong("an escape has not four hexadecimal digits"),
        }
    }

    fn number(&mut self, out: &mut Vec<u8>) -> Result<(), JsonError> {
        let negative = self.take(b'-');
        let whole = self.digits();
        if whole.is_empty() || (whole.len() > 1 && whole.starts_with('0')) {
            return self.wrong("a number is not well-formed");
        }
        let fraction = if self.take(b'.') { Some(self.digits()) } else { None };
        if fraction == Some("") {
            return self.wrong("a number is not well-formed");
        }
        let mut exponent = 0i64;
        if self.take(b'e') || self.take(b'E') {
            let minus = self.take(b'-');
            if !minus {
                self.take(b'+');
            }
            let digits = self.digits();
            if digits.is_empty() || digits.trim_start_matches('0').len() > EXPONENT_DIGITS_MAX {
                return self.wrong("a number's exponent is not within bounds");
            }
            let size: i64 = digits.parse().unwrap_or(0);
            exponent = if minus { -size } else { size };
        }
        let fraction = fraction.unwrap_or("");
        let digits = [whole, fraction].concat();
        let significant = digits.trim_end_matches('0');
        exponent += (digits.len() - significant.len()) as i64 - fraction.len() as i64;
        let significant = significant.trim_start_matches('0');
        if significant.is_empty() {
            out.push(b'0');
            return Ok(());
        }
        if negative {
            out.push(b'-');
        }
        out.extend_from_slice(significant.as_bytes());
        if exponent != 0 {
            out.extend_from_slice(format!("e{exponent}").as_bytes());
        }
        Ok(())
    }

    fn digits(&mut self) -> &'a str {
        let rest = self.text.get(self.at..).unwrap_or("");
        let length = rest.bytes().take_while(u8::is_ascii_digit).count();
        self.at += length;
        rest.get(..length).unwrap_or("")
    }
    fn word(&mut self, word: &str, out: &mut Vec<u8>) -> Result<(), JsonError> {
        if !self.text.get(self.at..).is_some_and(|rest| rest.starts_with(word)) {
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
        self.text.as_bytes().get(self.at).copied()
    }
    fn wrong<T>(&self, what: &'static str) -> Result<T, JsonError> {
        Err(JsonError { what, at: self.at })
    }
}

fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x09 => out.extend_from_slice(b"\\t"),
            0x0a => out.extend_from_slice(b"\\n"),
            0x0c => out.extend_from_slice(b"\\f"),
            0x0d => out.extend_from_slice(b"\\r"),
            0..0x20 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

const DEPTH_MAX: usize = 128;
const EXPONENT_DIGITS_MAX: usize = 9;

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
            // U+FB33 sorts after U+1F600 by UTF-16 units, before it by code points.
            ("{\"\u{fb33}\":1,\"😀\":2,\"\":3}", "{\"\":3,\"😀\":2,\"\u{fb33}\":1}"),
        ] {
            let mut out = Vec::new();
            canonical(text, &mut out).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), form, "{text}");
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
