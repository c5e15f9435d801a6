//! Writes rows as the lines that LOAD DATA reads with its own defaults: values between tabs, `\` before what would
//! end one, `\N` for null; bytes as hexadecimal digits, which the statement turns back.

use super::values::{Values, date_text, hundredths_text, timestamp_text};
use std::io::Write;

pub struct Lines<W> {
    out: W,
    line: Vec<u8>,
    is_first: bool,
}

impl<W: Write> Lines<W> {
    pub fn new(out: W) -> Self {
        Self { out, line: Vec::new(), is_first: true }
    }

    pub fn finish(mut self) -> std::io::Result<()> {
        self.out.flush()
    }

    fn put(&mut self, value: &[u8]) {
        if !self.is_first {
            self.line.push(b'\t');
        }
        self.is_first = false;
        self.line.extend_from_slice(value);
    }
}

impl<W: Write> Values for Lines<W> {
    fn begin(&mut self, _columns: i16) {
        self.line.clear();
        self.is_first = true;
    }

    fn end(&mut self) -> std::io::Result<()> {
        self.line.push(b'\n');
        self.out.write_all(&self.line)
    }

    fn null(&mut self) {
        self.put(b"\\N");
    }

    fn int2(&mut self, value: i16) {
        self.put(value.to_string().as_bytes());
    }

    fn int4(&mut self, value: i32) {
        self.put(value.to_string().as_bytes());
    }

    fn int8(&mut self, value: i64) {
        self.put(value.to_string().as_bytes());
    }

    fn boolean(&mut self, value: bool) {
        self.put(if value { b"1" } else { b"0" });
    }

    fn date(&mut self, days: i32) {
        self.put(date_text(days).as_bytes());
    }

    fn timestamp(&mut self, micros: i64) {
        self.put(timestamp_text(micros).as_bytes());
    }

    fn text(&mut self, value: &str) {
        self.put(b"");
        for byte in value.bytes() {
            match byte {
                b'\\' => self.line.extend_from_slice(b"\\\\"),
                b'\t' => self.line.extend_from_slice(b"\\t"),
                b'\n' => self.line.extend_from_slice(b"\\n"),
                0 => self.line.extend_from_slice(b"\\0"),
                byte => self.line.push(byte),
            }
        }
    }

    fn bytea(&mut self, value: &[u8]) {
        self.put(b"");
        for byte in value {
            self.line.extend_from_slice(format!("{byte:02x}").as_bytes());
        }
    }

    fn jsonb(&mut self, value: &str) {
        self.text(value);
    }

    fn hundredths(&mut self, value: i64) {
        self.put(hundredths_text(value).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_end_a_value_is_escaped_and_null_is_no_text() {
        let mut stream = Vec::new();
        let mut lines = Lines::new(&mut stream);
        for _ in 0..2 {
            lines.begin(4);
            lines.text("a\tb\\N\nc");
            lines.null();
            lines.bytea(&[0, 0xab]);
            lines.text("");
            lines.end().expect("a vector takes all");
        }
        lines.finish().expect("a vector takes all");
        let line = "a\\tb\\\\N\\nc\t\\N\t00ab\t\n";
        assert_eq!(String::from_utf8(stream).expect("text"), line.repeat(2));
    }
}
