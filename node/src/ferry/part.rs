//! 摆渡分件: one file of what is carried, sealed to the node that it is for and signed by the node that made it.
//!
//! A part is blocks (u32 big-endian length, then that many sealed bytes), the label (sealed as well), the label's length
//! as u32, a hint whose key opens it, and [`MAGIC`]. The label comes last, so that a file that is still being copied is no part yet. Blocks hold a
//! stream: of contents what a data channel carries, of a list or an answer what a control channel carries.
//! Every length is bounded before it is read; what was cut, turned or mixed does not open.

mod making;
mod reading;

pub use making::Outlet;
pub(super) use making::{Maker, Parts, put_out, take_back};
pub(super) use reading::{Eyes, Found, Stream, look, put_damaged_aside};

use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};
use posthouse_platform::disk::is_full;
use posthouse_platform::identity::ferry_key::{FerryPublicKey, SEAL_BYTES, SECRET_BYTES};
use posthouse_protocol::codec;
use posthouse_protocol::id::{JobId, NodeId, TransferId};
use posthouse_protocol::problem::{Code, Problem};
use std::io;
use std::path::Path;

/// What a part holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub(super) enum Holds {
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
pub(super) struct Label {
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

/// Tells those for whom a part is not, at a glance.
fn hint(key: &FerryPublicKey) -> [u8; HINT_BYTES] {
    let mut hint = [0; HINT_BYTES];
    hint.copy_from_slice(&codec::sha256(key)[..HINT_BYTES]);
    hint
}

pub(super) fn invalid(path: &Path, cause: impl std::fmt::Display) -> Problem {
    Problem::new(Code::PartInvalid).with("path", path.display()).cause(cause)
}

/// What reading a part's stream failed with.
pub(super) fn unreadable(path: &Path, error: &io::Error) -> Problem {
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => invalid(path, error),
        _ => storage(path, error),
    }
}

fn storage(path: &Path, error: &io::Error) -> Problem {
    let code = if is_full(error) { Code::DiskFull } else { Code::StorageFailed };
    Problem::new(code).with("path", path.display()).cause(error)
}

fn inside(cause: impl std::fmt::Display) -> Problem {
    Problem::new(Code::InsideFailed).cause(cause)
}

/// The last bytes of every part.
pub(super) const MAGIC: &[u8; 8] = b"PHFERRY1";
const TRAILER_BYTES: usize = 4 + HINT_BYTES + MAGIC.len();
const HINT_BYTES: usize = 8;
/// Behind the name of a part that is being made, and of one that is damaged.
const MAKING: &str = ".making";
pub(super) const ASIDE: &str = ".damaged";
const LABEL_TYPE: &str = "application/vnd.posthouse.part+cbor";
const LABEL_BYTES_MAX: usize = 8 << 10;
/// Plain bytes of a block.
const BLOCK_BYTES: usize = 256 << 10;
const SEALED_BYTES_MAX: usize = BLOCK_BYTES + SEAL_BYTES;
/// What was sealed, and which block it is: none can be dropped at the end, or stand for another.
const BLOCKS: &[u8] = b"posthouse part blocks";
const LABEL: &[u8] = b"posthouse part label";
const MORE: &[u8] = &[0];
const LAST: &[u8] = &[1];

#[cfg(test)]
mod tests;
