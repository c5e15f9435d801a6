//! Bytes of a message, taken from the front: every length is checked against what is there.

use crate::store::SqlError;

/// The bytes are not what the protocol says: the connection ends over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken(pub String);

impl From<Broken> for SqlError {
    fn from(broken: Broken) -> Self {
        let mut error = SqlError::new(4002, format!("The incoming tabular data stream is incorrect: {}.", broken.0));
        error.unknown = true;
        error.class = 20;
        error
    }
}

pub type Read<T> = Result<T, Broken>;

pub fn broken<T>(what: impl Into<String>) -> Read<T> {
    Err(Broken(what.into()))
}

#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes }
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn left(&self) -> usize {
        self.bytes.len()
    }

    pub fn peek(&self) -> Option<u8> {
        self.bytes.first().copied()
    }

    pub fn take(&mut self, length: usize) -> Read<&'a [u8]> {
        match self.bytes.split_at_checked(length) {
            Some((taken, rest)) => {
                self.bytes = rest;
                Ok(taken)
            }
            None => broken(format!("{length} bytes were announced and {} are there", self.bytes.len())),
        }
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let taken = self.take(N)?;
        <[u8; N]>::try_from(taken).map_err(|_| Broken("a length".to_owned()))
    }

    pub fn u8(&mut self) -> Read<u8> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub fn u16(&mut self) -> Read<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub fn u32(&mut self) -> Read<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Read<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub fn u16_be(&mut self) -> Read<u16> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    /// So many units of UTF-16.
    pub fn utf16(&mut self, units: usize) -> Read<String> {
        utf16(self.take(units * 2)?)
    }

    /// With its count of units in one byte before it.
    pub fn short_text(&mut self) -> Read<String> {
        let units = usize::from(self.u8()?);
        self.utf16(units)
    }

    /// With its count of units in two bytes before it.
    pub fn text(&mut self) -> Read<String> {
        let units = usize::from(self.u16()?);
        self.utf16(units)
    }
}

pub fn utf16(bytes: &[u8]) -> Read<String> {
    if !bytes.len().is_multiple_of(2) {
        return broken("a text of UTF-16 has an odd length");
    }
    let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    String::from_utf16(&units).map_err(|_| Broken("a text is no UTF-16".to_owned()))
}

pub fn to_utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}
