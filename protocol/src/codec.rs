//! Deterministic CBOR: encode, decode, and decode strictly.
//! Before anything is decoded one pass over the heads proves that the bytes are one whole item, nested
//! no deeper than allowed, with every declared length within the bytes that are there: whatever is
//! allocated afterwards is paid for by bytes received. Indefinite lengths are never accepted.

use crate::limits;

/// Why bytes were not accepted as the thing they should be.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    #[error("it has {bytes} bytes, at most {max} are allowed")]
    TooLong { bytes: usize, max: usize },
    #[error("it is not well-formed: {0}")]
    Malformed(#[from] minicbor::decode::Error),
    #[error("it ends before its end")]
    Truncated,
    #[error("it is nested deeper than {0} levels")]
    TooDeep(usize),
    #[error("it declares {0} elements, more than the bytes that follow can hold")]
    TooMany(u64),
    #[error("it is not in the one canonical encoding")]
    NotCanonical,
    #[error("{0} bytes follow its end")]
    Trailing(usize),
}

/// The deterministic encoding of a value.
pub fn encode<T: minicbor::Encode<()>>(value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    match minicbor::encode(value, &mut out) {
        Ok(()) => out,
        Err(e) => match e.as_write() {
            Some(never) => match *never {},
            None => Vec::new(),
        },
    }
}

/// Reads a value; unknown keys are ignored, trailing bytes are not. Nesting as in frames.
pub fn decode<'b, T: minicbor::Decode<'b, ()>>(bytes: &'b [u8], max: usize) -> Result<T, CodecError> {
    decode_nested(bytes, max, limits::NESTING_MAX)
}

/// Reads a value that must be exactly what [`encode`] writes: an unknown key, another order or a
/// longer form of a number is refused. For policy, grants and everything that is signed.
pub fn decode_strict<'b, T: minicbor::Decode<'b, ()> + minicbor::Encode<()>>(
    bytes: &'b [u8],
    max: usize,
) -> Result<T, CodecError> {
    let value: T = decode_nested(bytes, max, limits::NESTING_SIGNED_MAX)?;
    if encode(&value) == bytes { Ok(value) } else { Err(CodecError::NotCanonical) }
}

/// SHA-256 of some bytes.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref());
    out
}

/// SHA-256 of bytes that come piece by piece.
pub struct Sha256(aws_lc_rs::digest::Context);

impl Sha256 {
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
    pub fn finish(self) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(self.0.finish().as_ref());
        out
    }
}
impl Default for Sha256 {
    fn default() -> Self {
        Self(aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256))
    }
}

fn decode_nested<'b, T: minicbor::Decode<'b, ()>>(
    bytes: &'b [u8],
    max: usize,
    nesting: usize,
) -> Result<T, CodecError> {
    if bytes.len() > max {
        return Err(CodecError::TooLong { bytes: bytes.len(), max });
    }
    let end = check_shape(bytes, nesting)?;
    if end != bytes.len() {
        return Err(CodecError::Trailing(bytes.len() - end));
    }
    let mut decoder = minicbor::Decoder::new(bytes);
    let value = decoder.decode()?;
    // A decoder that stops early would leave bytes that nobody has looked at.
    match bytes.len() - decoder.position() {
        0 => Ok(value),
        more => Err(CodecError::Trailing(more)),
    }
}

/// One pass over the heads of the first item; gives the position of its end.
fn check_shape(bytes: &[u8], nesting: usize) -> Result<usize, CodecError> {
    let mut at = 0;
    // Elements still to come, one number for each open array, map or tag.
    let mut open: Vec<u64> = vec![1];
    while let Some(left) = open.last_mut() {
        if *left == 0 {
            open.pop();
            continue;
        }
        *left -= 1;
        let head = read_head(bytes, at)?;
        at = head.end;
        let there = (bytes.len() - at) as u64;
        let children = match head.major {
            BYTES | TEXT => {
                if head.argument > there {
                    return Err(CodecError::Truncated);
                }
                // It is at most what is there, and so fits.
                at += head.argument as usize;
                continue;
            }
            ARRAY => head.argument,
            MAP => head.argument.checked_mul(2).ok_or(CodecError::TooMany(head.argument))?,
            TAG => 1,
            _ => continue,
        };
        if children > there {
            return Err(CodecError::TooMany(head.argument));
        }
        if open.len() > nesting {
            return Err(CodecError::TooDeep(nesting));
        }
        open.push(children);
    }
    Ok(at)
}

struct Head {
    major: u8,
    argument: u64,
    end: usize,
}

fn read_head(bytes: &[u8], at: usize) -> Result<Head, CodecError> {
    let first = *bytes.get(at).ok_or(CodecError::Truncated)?;
    let width = match first & 31 {
        small @ 0..=23 => return Ok(Head { major: first >> 5, argument: u64::from(small), end: at + 1 }),
        24 => 1,
        25 => 2,
        26 => 4,
        27 => 8,
        _ => return Err(CodecError::NotCanonical),
    };
    let argument = bytes.get(at + 1..at + 1 + width).ok_or(CodecError::Truncated)?;
    let argument = argument.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
    Ok(Head { major: first >> 5, argument, end: at + 1 + width })
}

const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_read_back_and_nothing_after_it() {
        let bytes = encode(&vec![(1u64, "a".to_owned()), (u64::MAX, "人".to_owned())]);
        let back: Vec<(u64, String)> = decode_strict(&bytes, 1024).unwrap();
        assert_eq!(back[1].1, "人");
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(matches!(decode::<Vec<(u64, String)>>(&longer, 1024), Err(CodecError::Trailing(1))));
        for end in 0..bytes.len() {
            assert!(decode::<Vec<(u64, String)>>(&bytes[..end], 1024).is_err());
        }
    }

    #[test]
    fn a_longer_form_of_a_number_is_not_canonical() {
        assert_eq!(decode::<u64>(&[0x18, 5], 8).unwrap(), 5);
        assert!(matches!(decode_strict::<u64>(&[0x18, 5], 8), Err(CodecError::NotCanonical)));
    }

    #[test]
    fn a_declared_length_beyond_the_bytes_is_refused_before_decoding() {
        for bytes in [
            &[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff][..],
            &[0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0x5b, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0x9a, 0x00, 0x10, 0x00, 0x00, 0x01],
            &[0x9f, 0x01, 0xff],
        ] {
            assert!(decode::<Vec<u64>>(bytes, 1024).is_err(), "{bytes:x?}");
        }
    }

    #[test]
    fn nesting_is_bounded_exactly() {
        let nested = |levels: usize| {
            let mut bytes = vec![0x81; levels];
            bytes.push(0);
            bytes
        };
        assert!(check_shape(&nested(limits::NESTING_MAX), limits::NESTING_MAX).is_ok());
        assert!(check_shape(&nested(limits::NESTING_MAX + 1), limits::NESTING_MAX).is_err());
        assert!(check_shape(&nested(1 << 20), limits::NESTING_MAX).is_err());
        assert!(check_shape(&vec![0xc1; 1 << 20], limits::NESTING_MAX).is_err());
    }

    #[test]
    fn streamed_sha256_is_that_of_the_whole() {
        let mut hash = Sha256::default();
        hash.update(b"post");
        hash.update(b"house");
        assert_eq!(hash.finish(), sha256(b"posthouse"));
    }
}
