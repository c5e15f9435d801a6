//! Numbers within a JSON text, as the server's own `json` keeps them (MySQL): whole ones of 64 bits as they are, all others
//! as doubles, which it writes with the fewest digits that lead back to them. The `json` of MariaDB is a text and keeps all.

use posthouse_protocol::number::canonical;

/// Whether every number of a text is the same one afterwards. The text is known to be JSON.
pub(super) fn keep(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = behind_string(bytes, at + 1),
            b'-' | b'0'..=b'9' => {
                let digits = bytes.get(at..).unwrap_or_default().iter().take_while(|byte| is_of_number(**byte)).count();
                if !keeps(text.get(at..at + digits).unwrap_or_default()) {
                    return false;
                }
                at += digits;
            }
            _ => at += 1,
        }
    }
    true
}

/// The first byte behind the quote that ends a string.
fn behind_string(bytes: &[u8], mut at: usize) -> usize {
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    at
}

fn is_of_number(byte: u8) -> bool {
    byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E')
}

fn keeps(number: &str) -> bool {
    if number.parse::<i64>().is_ok() || number.parse::<u64>().is_ok() {
        return true;
    }
    let Some(double) = number.parse::<f64>().ok().filter(|double| double.is_finite()) else { return false };
    let written = double.to_string();
    canonical(number).is_some_and(|exact| canonical(&written).as_ref() == Some(&exact))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_double_holds_is_kept_and_no_other_number() {
        for kept in [
            "7",
            "-9223372036854775808",
            "18446744073709551615",
            r#"{"a": [1.50, -0.1, 1e300, 5e-324, 0, -0, 1E+2], "0.1234567890123456789": "\"99999999999999999999"}"#,
            "null",
            "\"1e999\"",
            "[]",
        ] {
            assert!(keep(kept), "{kept}");
        }
        for lost in [
            "18446744073709551616.5",
            "[1, 0.1234567890123456789]",
            "12345678901234567891234",
            "-9223372036854775809",
            r#"{"a": {"b": 1e999}}"#,
            "1e-400",
            "9007199254740993.0",
        ] {
            assert!(!keep(lost), "{lost}");
        }
    }
}
