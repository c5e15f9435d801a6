//! Frames as bytes on a channel: a u32 big-endian length, then the CBOR of one frame.
//! A length is checked before anything is kept for it; what was fed and not yet taken is bounded.
//! Both sides send `Hello` first on control and ask channels without waiting for the other's;
//! on a data channel only its opener does.

use super::{Frame, Hello, Purpose};
use crate::codec::{self, CodecError};
use crate::id::NodeId;
use crate::limits;
use crate::problem::{Code, Problem};

/// Versions of the protocol that this program speaks.
pub const VERSION_MIN: u16 = 1;
pub const VERSION_MAX: u16 = 1;
/// What both sides may do beyond the version's minimum.
pub const FEATURES: &[&str] = &["zstd", KEPT, DELTA, LZ4, OPERATIONS, GOVERNED];
/// Frames that came later than version 1: said only to who knows them.
pub const KEPT: &str = "kept";
/// `Pieces`, and chunks in the form that it leads to.
pub const DELTA: &str = "delta";
/// Chunks as LZ4 blocks.
pub const LZ4: &str = "lz4";
/// Rows of which the last column says what they do: whoever does not know it would land that column.
pub const OPERATIONS: &str = "operations";
/// Rows that are masked, checked or ruled, and statements that say so.
pub const GOVERNED: &str = "governed";

#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {bytes} bytes is over the limit of {max}")]
    TooLong { bytes: usize, max: usize },
    #[error("a frame was not accepted: {0}")]
    Codec(#[from] CodecError),
    #[error("more than {0} bytes wait to be read as frames")]
    Unread(usize),
}

impl FrameError {
    /// As a person meets it.
    pub fn problem(&self, peer: &NodeId) -> Problem {
        Problem::new(Code::FrameInvalid).with("peer", peer).cause(self)
    }
}

impl Frame {
    /// As `docs/PROTOCOL.md` calls it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::Request(_) => "request",
            Self::Offer(_) => "offer",
            Self::Accept(_) => "accept",
            Self::Entries(_) => "entries",
            Self::EntriesEnd(_) => "entries-end",
            Self::Want(_) => "want",
            Self::Pieces(_) => "pieces",
            Self::Credit(_) => "credit",
            Self::Sealed(_) => "sealed",
            Self::Again(_) => "again",
            Self::LeftOut(_) => "left-out",
            Self::Handover(_) => "handover",
            Self::Landed(_) => "landed",
            Self::Settled(_) => "settled",
            Self::Refused(_) => "refused",
            Self::Failed(_) => "failed",
            Self::Noted(_) => "noted",
            Self::Invite(_) => "invite",
            Self::Invited(_) => "invited",
            Self::Ping(_) => "ping",
            Self::Pong(_) => "pong",
            Self::Digest(_) => "digest",
            Self::DigestAnswer(_) => "digest-answer",
            Self::Keys(_) => "keys",
            Self::KeysAnswer(_) => "keys-answer",
            Self::Centre(_) => "centre",
            Self::CentreAnswer(_) => "centre-answer",
            Self::Plan(_) => "plan",
            Self::PlanAnswer(_) => "plan-answer",
            Self::Kept(_) => "kept",
        }
    }
    /// With its length in front, as it goes onto a channel.
    pub fn encode(&self) -> Vec<u8> {
        let body = codec::encode(self);
        let mut out = Vec::with_capacity(LENGTH_BYTES + body.len());
        // Lists are cut long before a length leaves u32.
        out.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(&body);
        out
    }
    /// Reads the bytes that followed a length.
    pub fn decode(body: &[u8]) -> Result<Self, FrameError> {
        Self::decode_within(body, limits::FRAME_BYTES_MAX)
    }
    /// As `decode`; answers of the centre may be as long as a policy.
    pub fn decode_within(body: &[u8], max: usize) -> Result<Self, FrameError> {
        Ok(codec::decode(body, max)?)
    }
}

/// The length that a frame declares, if it may be that long.
pub fn length(prefix: [u8; LENGTH_BYTES], max: usize) -> Result<usize, FrameError> {
    let bytes = u32::from_be_bytes(prefix) as usize;
    if bytes > max { Err(FrameError::TooLong { bytes, max }) } else { Ok(bytes) }
}

/// Bytes in, frames out. After an error nothing more comes: the channel is to be closed.
pub struct FrameDecoder {
    waiting: Vec<u8>,
    taken: usize,
    max: usize,
}

impl FrameDecoder {
    pub fn new() -> Self {
        Self::within(limits::FRAME_BYTES_MAX)
    }
    /// For frames that may be longer: answers of the centre carry policies.
    pub fn within(max: usize) -> Self {
        Self { waiting: Vec::new(), taken: 0, max }
    }

    /// Takes over what was read from the channel. Drain [`Self::take`] after each call.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), FrameError> {
        self.waiting.drain(..self.taken);
        self.taken = 0;
        let most = self.max + LENGTH_BYTES + FEED_BYTES_MAX;
        if self.waiting.len() + bytes.len() > most {
            return Err(FrameError::Unread(most));
        }
        self.waiting.extend_from_slice(bytes);
        Ok(())
    }

    /// The next whole frame, if there is one.
    pub fn take(&mut self) -> Result<Option<Frame>, FrameError> {
        let waiting = &self.waiting[self.taken..];
        let Some((prefix, rest)) = waiting.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let bytes = length(*prefix, self.max)?;
        let Some(body) = rest.get(..bytes) else { return Ok(None) };
        let frame = Frame::decode_within(body, self.max)?;
        self.taken += LENGTH_BYTES + bytes;
        Ok(Some(frame))
    }

    /// Whether the channel may end here.
    pub fn is_empty(&self) -> bool {
        self.waiting.len() == self.taken
    }
}
impl Default for FrameDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Hello {
    /// What this program says of itself.
    pub fn new(purpose: Purpose, epoch: u64) -> Self {
        Self {
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            features: FEATURES.iter().map(|feature| (*feature).to_owned()).collect(),
            software: concat!("posthouse/", env!("CARGO_PKG_VERSION")).to_owned(),
            purpose,
            epoch,
        }
    }
    pub fn knows(&self, feature: &str) -> bool {
        self.features.iter().any(|known| known == feature)
    }
    /// The version to speak with the sender of this: the highest that both know.
    pub fn negotiate(&self, peer: &NodeId) -> Result<u16, Problem> {
        let version = self.version_max.min(VERSION_MAX);
        if version >= self.version_min.max(VERSION_MIN) {
            return Ok(version);
        }
        Err(Problem::new(Code::VersionUnsupported)
            .with("peer", peer)
            .with("theirs", format!("{}–{}", self.version_min, self.version_max))
            .with("ours", format!("{VERSION_MIN}–{VERSION_MAX}")))
    }
}

pub const LENGTH_BYTES: usize = 4;
/// Read at most this much from a channel at a time.
pub const FEED_BYTES_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::samples::samples;

    #[test]
    fn every_frame_comes_back_from_the_line_byte_by_byte() {
        let mut decoder = FrameDecoder::new();
        for frame in samples() {
            let bytes = frame.encode();
            let (last, before) = bytes.split_last().unwrap();
            for byte in before {
                decoder.feed(&[*byte]).unwrap();
                assert!(decoder.take().unwrap().is_none());
            }
            decoder.feed(&[*last]).unwrap();
            assert_eq!(decoder.take().unwrap().unwrap(), frame);
            assert!(decoder.is_empty());
        }
    }
}
