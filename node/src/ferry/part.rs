//! 摆渡分件: one file of what is carried, sealed to the node that it is for and signed by the node that made it.
//!
//! A part is blocks (u32 big-endian length, then that many sealed bytes), the label (sealed as well), the label's length
//! as u32, a hint whose key opens it, and [`MAGIC`]. The label comes last, so that a file that is still being copied is
//! no part yet. Blocks hold a stream: of contents what a data channel carries, of a list or an answer what a control
//! channel carries. Every length is bounded before it is read; what was cut, turned or mixed does not open.

mod label;
mod making;
mod reading;

pub use label::{Holds, Label, Trailer};
pub use making::Outlet;
pub(super) use making::{Maker, Parts, put_out, take_back};
pub(super) use reading::{Eyes, Found, Stream, look, put_damaged_aside};

use posthouse_platform::disk::is_full;
use posthouse_platform::identity::ferry_key::SEAL_BYTES;
use posthouse_protocol::problem::{Code, Problem};
use std::io;
use std::path::Path;

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
const MAGIC: &[u8; 8] = b"PHFERRY1";
/// Behind the name of a part that is being made, and of one that is damaged.
const MAKING: &str = ".making";
pub(crate) const ASIDE: &str = ".damaged";
const LABEL_TYPE: &str = "application/vnd.posthouse.part+cbor";
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
