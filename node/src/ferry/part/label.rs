//! What a part says of itself, and how its last bytes lead there. Whoever may write to the folder may have put anything
//! there: what is read is bounded first, and a label is exactly what its maker would write.

use super::MAGIC;
use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};
use posthouse_platform::identity::ferry_key::{FerryPublicKey, SEAL_BYTES, SECRET_BYTES};
use posthouse_protocol::codec::{self, CodecError};
use posthouse_protocol::id::{JobId, NodeId, TransferId};

/// What a part holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Holds {
    /// Chunks.
    #[n(0)]
    Contents,
    /// The request, the offer, the handover, every entry and what was left out.
    #[n(1)]
    List,
    /// The consumer's statement, on its way back.
    #[n(2)]
    Answer,
}

/// What a part says of itself, under its maker's signature.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Label {
    #[n(0)]
    pub transfer: TransferId,
    #[n(1)]
    pub to: NodeId,
    #[n(2)]
    pub job: JobId,
    #[n(3)]
    pub holds: Holds,
    /// Parts of one making belong together; a transfer that is made into parts anew has another.
    #[n(4)]
    pub edition: ByteArray<8>,
    /// From 1.
    #[n(5)]
    pub number: u32,
    /// How many there are; only the last part knows.
    #[n(6)]
    pub of: Option<u32>,
    /// The encapsulated secret of its blocks: whoever signs it here has made them.
    #[n(7)]
    pub secret: ByteArray<SECRET_BYTES>,
    /// Length of the blocks as they stand in the file.
    #[n(8)]
    pub sealed_bytes: u64,
}

impl Label {
    /// From the bytes that its maker has signed.
    pub fn parse(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode_strict(bytes, LABEL_BYTES_MAX)
    }
}

/// The last bytes of a file that is a part: they say how long the sealed label before them is, and whose key opens it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    label_bytes: usize,
    hint: [u8; HINT_BYTES],
}

impl Trailer {
    /// How long it is.
    pub const BYTES: usize = 4 + HINT_BYTES + MAGIC.len();

    /// None where they are not of a part, or of none yet.
    pub fn parse(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (hint, magic) = rest.split_first_chunk::<HINT_BYTES>()?;
        let label_bytes = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        (magic == MAGIC).then_some(Self { label_bytes, hint: *hint })
    }

    /// Whether the label may be sealed to this key.
    pub fn is_for(&self, key: &FerryPublicKey) -> bool {
        self.hint == hint(key)
    }

    /// Where the sealed label begins in a file of so many bytes, and how long it is; or what is wrong with it.
    pub fn label(&self, file_bytes: u64) -> Result<(u64, usize), &'static str> {
        if !(SECRET_BYTES + SEAL_BYTES..=LABEL_BYTES_MAX).contains(&self.label_bytes) {
            return Err("its label has an impossible length");
        }
        let start = file_bytes.checked_sub((Self::BYTES + self.label_bytes) as u64);
        start.map(|start| (start, self.label_bytes)).ok_or("it is shorter than its label")
    }
}

/// Tells those for whom a part is not, at a glance.
pub(super) fn hint(key: &FerryPublicKey) -> [u8; HINT_BYTES] {
    let mut hint = [0; HINT_BYTES];
    hint.copy_from_slice(&codec::sha256(key)[..HINT_BYTES]);
    hint
}

pub(super) const LABEL_BYTES_MAX: usize = 8 << 10;
const HINT_BYTES: usize = 8;
