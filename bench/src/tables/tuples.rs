//! Writes a binary COPY stream: what the cases' tables are filled with.
//! Only the types that they have; values in the form in which the server gives them back, so that the length
//! of the stream is the length of a COPY out of the table.

use super::values::Values;
use std::io::Write;

pub struct Tuples<W> {
    out: W,
    tuple: Vec<u8>,
    bytes: u64,
}

impl<W: Write> Tuples<W> {
    pub fn new(mut out: W) -> std::io::Result<Self> {
        out.write_all(SIGNATURE)?;
        // No flags, no extension.
        out.write_all(&[0; 8])?;
        Ok(Self { out, tuple: Vec::new(), bytes: SIGNATURE.len() as u64 + 8 })
    }

    /// Closes the stream; gives its length.
    pub fn finish(mut self) -> std::io::Result<u64> {
        self.out.write_all(&(-1_i16).to_be_bytes())?;
        self.out.flush()?;
        Ok(self.bytes + 2)
    }

    fn field(&mut self, value: &[u8]) {
        self.length(value.len());
        self.tuple.extend(value);
    }

    fn length(&mut self, length: usize) {
        self.tuple.extend((length as i32).to_be_bytes());
    }
}

impl<W: Write> Values for Tuples<W> {
    fn begin(&mut self, columns: i16) {
        self.tuple.clear();
        self.tuple.extend(columns.to_be_bytes());
    }

    fn end(&mut self) -> std::io::Result<()> {
        self.bytes += self.tuple.len() as u64;
        self.out.write_all(&self.tuple)
    }

    fn null(&mut self) {
        self.tuple.extend((-1_i32).to_be_bytes());
    }

    fn int2(&mut self, value: i16) {
        self.field(&value.to_be_bytes());
    }

    fn int4(&mut self, value: i32) {
        self.field(&value.to_be_bytes());
    }

    fn int8(&mut self, value: i64) {
        self.field(&value.to_be_bytes());
    }

    fn boolean(&mut self, value: bool) {
        self.field(&[u8::from(value)]);
    }

    fn date(&mut self, days: i32) {
        self.int4(days - DAYS_TO_2000);
    }

    fn timestamp(&mut self, micros: i64) {
        self.int8(micros - i64::from(DAYS_TO_2000) * 86_400_000_000);
    }

    fn text(&mut self, value: &str) {
        self.field(value.as_bytes());
    }

    fn bytea(&mut self, value: &[u8]) {
        self.field(value);
    }

    fn jsonb(&mut self, value: &str) {
        self.length(value.len() + 1);
        self.tuple.push(1);
        self.tuple.extend(value.as_bytes());
    }

    fn hundredths(&mut self, value: i64) {
        let amount = value.unsigned_abs();
        let mut whole = amount / 100;
        // In base 10,000 the fraction is one digit, its lower half zero.
        let fraction = (amount % 100) * 100;
        let mut digits = [0_u64; 7];
        let mut first = digits.len() - 1;
        digits[first] = fraction;
        while whole > 0 {
            first -= 1;
            digits[first] = whole % 10_000;
            whole /= 10_000;
        }
        let weight = digits.len() as i16 - 2 - first as i16;
        let mut digits = &digits[first..];
        while let [shorter @ .., 0] = digits {
            digits = shorter;
        }
        let weight = if digits.is_empty() { 0 } else { weight };
        self.length(8 + 2 * digits.len());
        let sign: u16 = if value < 0 { 0x4000 } else { 0 };
        for word in [digits.len() as u16, weight as u16, sign, 2] {
            self.tuple.extend(word.to_be_bytes());
        }
        for digit in digits {
            self.tuple.extend((*digit as u16).to_be_bytes());
        }
    }
}

const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";
const DAYS_TO_2000: i32 = 10_957;

#[cfg(test)]
mod tests {
    use super::*;

    fn numeric(value: i64) -> Vec<i16> {
        let mut tuples = Tuples::new(Vec::new()).expect("a vector takes all");
        tuples.hundredths(value);
        let (length, words) = tuples.tuple.split_at(4);
        assert_eq!(i32::from_be_bytes(length.try_into().expect("four")), words.len() as i32);
        words.chunks(2).map(|pair| i16::from_be_bytes([pair[0], pair[1]])).collect()
    }

    #[test]
    fn a_numeric_has_the_digits_weight_and_sign_of_the_server() {
        // As PostgreSQL 15 sends them.
        assert_eq!(numeric(0), [0, 0, 0, 2]);
        assert_eq!(numeric(5), [1, -1, 0, 2, 500]);
        assert_eq!(numeric(-5), [1, -1, 0x4000, 2, 500]);
        assert_eq!(numeric(100), [1, 0, 0, 2, 1]);
        assert_eq!(numeric(1_000_000), [1, 1, 0, 2, 1]);
        assert_eq!(numeric(-123_456_789), [3, 1, 0x4000, 2, 123, 4567, 8900]);
        assert_eq!(numeric(i64::MIN)[..3], [6, 4, 0x4000]);
    }

    #[test]
    fn a_stream_has_a_signature_tuples_and_a_trailer() {
        let mut stream = Vec::new();
        let mut tuples = Tuples::new(&mut stream).expect("a vector takes all");
        tuples.begin(2);
        tuples.date(DAYS_TO_2000 + 1);
        tuples.null();
        tuples.end().expect("a vector takes all");
        let bytes = tuples.finish().expect("a vector takes all");
        assert_eq!(bytes, stream.len() as u64);
        assert_eq!(stream[19..], [0, 2, 0, 0, 0, 4, 0, 0, 0, 1, 255, 255, 255, 255, 255, 255]);
    }
}
