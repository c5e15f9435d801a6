//! Deterministic CBOR: encode, decode, and decode strictly.

/// Why bytes were not accepted as the thing they should be.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    #[error("it has {bytes} bytes, at most {max} are allowed")]
    TooLong { bytes: usize, max: usize },
    #[error("it is not well-formed: {0}")]
    Malformed(#[from] minicbor::decode::Error),
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

/// Reads a value; unknown keys are ignored, trailing bytes are not.
pub fn decode<'b, T: minicbor::Decode<'b, ()>>(bytes: &'b [u8], max: usize) -> Result<T, CodecError> {
    if bytes.len() > max {
        return Err(CodecError::TooLong { bytes: bytes.len(), max });
    }
    let mut decoder = minicbor::Decoder::new(bytes);
    let value = decoder.decode()?;
    match bytes.len() - decoder.position() {
        0 => Ok(value),
        more => Err(CodecError::Trailing(more)),
    }
}

/// Reads a value that must be exactly what [`encode`] writes: an unknown key, another order or a
/// longer form of a number is refused. For policy, grants and everything that is signed.
pub fn decode_strict<'b, T: minicbor::Decode<'b, ()> + minicbor::Encode<()>>(
    bytes: &'b [u8],
    max: usize,
) -> Result<T, CodecError> {
    let value: T = decode(bytes, max)?;
    if encode(&value) == bytes { Ok(value) } else { Err(CodecError::NotCanonical) }
}

/// SHA-256 of some bytes.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref());
    out
}
