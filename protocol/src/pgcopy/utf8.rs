//! Whether bytes that come in pieces are UTF-8, without keeping them.

/// The bytes so far end within a character at most.
#[derive(Debug, Default)]
pub(super) struct Utf8 {
    begun: [u8; 4],
    length: usize,
}

impl Utf8 {
    /// Takes the next piece; false where it is no UTF-8.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> bool {
        while self.length > 0 {
            let Some((next, rest)) = bytes.split_first() else { return true };
            let Some(place) = self.begun.get_mut(self.length) else { return false };
            (*place, bytes) = (*next, rest);
            self.length += 1;
            match std::str::from_utf8(self.begun.get(..self.length).unwrap_or(&[])) {
                Ok(_) => self.length = 0,
                Err(error) if error.error_len().is_some() => return false,
                Err(_) => {}
            }
        }
        let Err(error) = std::str::from_utf8(bytes) else { return true };
        let tail = bytes.get(error.valid_up_to()..).unwrap_or(&[]);
        match (error.error_len(), self.begun.get_mut(..tail.len())) {
            (None, Some(begun)) => {
                begun.copy_from_slice(tail);
                self.length = tail.len();
                true
            }
            _ => false,
        }
    }
    /// Whether the last character is whole; a new text begins.
    pub(super) fn end(&mut self) -> bool {
        std::mem::take(&mut self.length) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_utf8_where_the_whole_is() {
        let texts: [&[u8]; 7] = [
            "aé王𠮷\u{10ffff}".as_bytes(),
            b"\xc0\x80",
            b"\xed\xa0\x80",
            b"\xf4\x90\x80\x80",
            b"a\xe7\x8e",
            b"\x80",
            b"\xff",
        ];
        for bytes in texts {
            for first in 0..=bytes.len() {
                for second in first..=bytes.len() {
                    let mut utf8 = Utf8::default();
                    let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                    let valid = pieces.iter().all(|piece| utf8.push(piece)) && utf8.end();
                    assert_eq!(valid, std::str::from_utf8(bytes).is_ok(), "{bytes:?} at {first}, {second}");
                }
            }
        }
    }
}
