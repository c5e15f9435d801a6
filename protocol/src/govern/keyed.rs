//! What stands for a value that must not be known: SM3, HMAC with SM3, BLAKE3 under a key, as 64 hexadecimal digits.
//! The same value gives the same digits under the same key, so that rows can still be joined and told apart. Without
//! a key whoever can guess a value can find it out; an identity number is soon guessed.
//! `openssl dgst -sm3 -hmac KEY` computes the second. Where the key comes from is the node's.

use minicbor::{Decode, Encode};
use sm3::{Digest, Sm3};
use std::fmt;

/// How a value is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Algorithm {
    /// HMAC (RFC 2104) with SM3 (GB/T 32905).
    #[n(0)]
    HmacSm3,
    /// SM3 without a key.
    #[n(1)]
    Sm3,
    /// BLAKE3 under a key that is derived from the one given.
    #[n(2)]
    Blake3,
}

impl Algorithm {
    pub const ALL: [Self; 3] = [Self::HmacSm3, Self::Sm3, Self::Blake3];

    /// As it stands in a configuration, in a grant and in a statement.
    pub fn name(self) -> &'static str {
        match self {
            Self::HmacSm3 => "hmac-sm3",
            Self::Sm3 => "sm3",
            Self::Blake3 => "blake3",
        }
    }
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }
    pub fn needs_key(self) -> bool {
        self != Self::Sm3
    }
}

/// A secret of a provider that its hashes are made with. At least [`KEY_BYTES_MIN`] bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct MaskKey(Vec<u8>);

impl MaskKey {
    /// None for one that is too short to be a secret, or too long to be meant.
    pub fn new(bytes: Vec<u8>) -> Option<Self> {
        (KEY_BYTES_MIN..=KEY_BYTES_MAX).contains(&bytes.len()).then_some(Self(bytes))
    }
    /// Tells one key from another without telling either: eight bytes of a hash under it.
    pub fn tag(&self) -> String {
        hex::encode(hmac_sm3(&self.0).value(TAG).get(..8).unwrap_or_default())
    }
}

impl fmt::Debug for MaskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MaskKey(…)")
    }
}

/// Hashes values, one after the other.
#[derive(Clone)]
pub enum Hasher {
    Hmac(Box<Hmac>),
    Sm3,
    Blake3(Box<[u8; 32]>),
}

impl Hasher {
    /// None where the algorithm needs a key and there is none.
    pub fn new(algorithm: Algorithm, key: Option<&MaskKey>) -> Option<Self> {
        Some(match algorithm {
            Algorithm::Sm3 => Self::Sm3,
            Algorithm::HmacSm3 => Self::Hmac(Box::new(hmac_sm3(&key?.0))),
            Algorithm::Blake3 => Self::Blake3(Box::new(blake3::derive_key(BLAKE3_CONTEXT, &key?.0))),
        })
    }

    /// 64 hexadecimal digits in lower case.
    pub fn hex(&self, value: &[u8]) -> String {
        match self {
            Self::Hmac(hmac) => hex::encode(hmac.value(value)),
            Self::Sm3 => hex::encode(Sm3::digest(value)),
            Self::Blake3(key) => hex::encode(blake3::keyed_hash(key, value).as_bytes()),
        }
    }
}

/// Both halves of an HMAC with the key taken in already.
#[derive(Clone)]
pub struct Hmac {
    inner: Sm3,
    outer: Sm3,
}

impl Hmac {
    fn value(&self, value: &[u8]) -> [u8; 32] {
        let mut inner = self.inner.clone();
        inner.update(value);
        let mut outer = self.outer.clone();
        outer.update(inner.finalize());
        outer.finalize().into()
    }
}

fn hmac_sm3(key: &[u8]) -> Hmac {
    let mut block = [0; BLOCK_BYTES];
    // A key that is longer than a block is hashed first.
    let short: [u8; 32];
    let key = if key.len() > BLOCK_BYTES {
        short = Sm3::digest(key).into();
        short.as_slice()
    } else {
        key
    };
    block.iter_mut().zip(key).for_each(|(into, byte)| *into = *byte);
    let half = |pad: u8| {
        let mut hash = Sm3::new();
        hash.update(block.map(|byte| byte ^ pad));
        hash
    };
    Hmac { inner: half(0x36), outer: half(0x5c) }
}

/// A shorter key could be tried out.
pub const KEY_BYTES_MIN: usize = 16;
pub const KEY_BYTES_MAX: usize = 4096;
const BLOCK_BYTES: usize = 64;
const BLAKE3_CONTEXT: &str = "posthouse masking v1";
const TAG: &[u8] = b"posthouse mask key";

#[cfg(test)]
mod tests {
    use super::*;

    fn key(bytes: &[u8]) -> MaskKey {
        MaskKey::new(bytes.to_vec()).unwrap()
    }

    #[test]
    fn sm3_is_that_of_the_standard() {
        // GB/T 32905-2016, annex A.1.
        let hasher = Hasher::new(Algorithm::Sm3, None).unwrap();
        assert_eq!(hasher.hex(b"abc"), "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0");
    }

    #[test]
    fn hmac_sm3_is_what_openssl_computes() {
        // printf %s VALUE | openssl dgst -sm3 -hmac KEY
        let (short, long) = (key(b"0123456789abcdef"), key(&[b'k'; 100]));
        for (key, value, expected) in [
            (&short, "11010519491231002X", "82a850949bc4a2d1c04325d5aad941b2a131908feb5f09f3bbb0e18289f5662e"),
            (&short, "", "f37fd4af149e86954731a373fc3b6ae893052cc8b74621c3f4811369b8bab173"),
            (&long, "张三", "77b909d0d793559393d421d943ae66b54d033725576033878a6c879be29c6a69"),
        ] {
            assert_eq!(Hasher::new(Algorithm::HmacSm3, Some(key)).unwrap().hex(value.as_bytes()), expected);
        }
    }

    #[test]
    fn another_key_gives_other_digits_and_another_tag() {
        let (one, two) = (key(b"0123456789abcdef"), key(b"0123456789abcdeg"));
        for algorithm in [Algorithm::HmacSm3, Algorithm::Blake3] {
            let hex = |key| Hasher::new(algorithm, Some(key)).unwrap().hex(b"a");
            assert_eq!(hex(&one), hex(&one));
            assert_ne!(hex(&one), hex(&two));
            assert_eq!(hex(&one).len(), 64);
            assert!(Hasher::new(algorithm, None).is_none());
        }
        assert_ne!(one.tag(), two.tag());
        assert_eq!(one.tag().len(), 16);
        assert!(MaskKey::new(b"short".to_vec()).is_none());
        assert_eq!(format!("{one:?}"), "MaskKey(…)");
    }
}
