//! Where parts are being made, from before the first of them until the last has its name: what is cut short is found
//! again in a folder that no configuration names. They are few, and kept as one value.

use super::meta;
use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};
use posthouse_protocol::codec;
use posthouse_protocol::id::TransferId;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::time::Timestamp;
use rusqlite::{Connection, Transaction};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// One making of the parts of a transfer.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Making {
    #[n(0)]
    pub transfer: TransferId,
    #[n(1)]
    folder: ByteVec,
    /// Its parts have this in their names, and no others have.
    #[n(2)]
    edition: ByteArray<8>,
    /// Of the process that makes them; 0 once that has given it up and could not take all of it back.
    #[n(3)]
    pub epoch: u64,
    #[n(4)]
    pub began: Timestamp,
}

impl Making {
    pub fn new(transfer: TransferId, folder: &Path, edition: [u8; 8], epoch: u64, began: Timestamp) -> Self {
        let folder = folder.as_os_str().as_bytes().to_vec().into();
        Self { transfer, folder, edition: edition.into(), epoch, began }
    }
    pub fn folder(&self) -> PathBuf {
        PathBuf::from(OsString::from_vec(self.folder.to_vec()))
    }
    pub fn edition(&self) -> [u8; 8] {
        *self.edition
    }
}

/// Writes down a making, before it makes anything.
pub fn begin(tx: &Transaction<'_>, making: Making) -> Result<(), Problem> {
    let mut makings = list(tx)?;
    makings.push(making);
    // The oldest are of disks that never came back.
    let over = makings.len().saturating_sub(MAKINGS_MAX);
    makings.drain(..over);
    keep(tx, &makings)
}

/// The oldest first.
pub fn list(at: &Connection) -> Result<Vec<Making>, Problem> {
    let Some(bytes) = meta::get(at, KEY)? else { return Ok(Vec::new()) };
    codec::decode(&bytes, bytes.len())
        .map_err(|e| Problem::new(Code::StoreDamaged).with("path", super::STORE_FILE).cause(e))
}

/// Nothing is left of it that would have to be taken back.
pub fn forget(tx: &Transaction<'_>, transfer: &TransferId) -> Result<(), Problem> {
    let mut makings = list(tx)?;
    makings.retain(|making| making.transfer != *transfer);
    keep(tx, &makings)
}

/// It is given up, and some of it may be left.
pub fn leave(tx: &Transaction<'_>, transfer: &TransferId) -> Result<(), Problem> {
    let mut makings = list(tx)?;
    for making in makings.iter_mut().filter(|making| making.transfer == *transfer) {
        making.epoch = 0;
    }
    keep(tx, &makings)
}

fn keep(tx: &Transaction<'_>, makings: &[Making]) -> Result<(), Problem> {
    meta::set(tx, KEY, &codec::encode(&makings))
}

const KEY: &str = "makings";
const MAKINGS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use posthouse_platform::World;

    #[tokio::test]
    async fn a_making_is_known_until_nothing_is_left_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&World::real(), folder.path()).await.unwrap();
        let id = |n: usize| TransferId::from_random([(n % 251) as u8; 16]);
        let making = |n: usize| Making::new(id(n), Path::new("/mnt/光盘"), [n as u8; 8], 3, Timestamp(n as i64));
        let known = || store.read_now(list).unwrap();
        assert_eq!(known(), vec![]);
        for n in 0..2 {
            store.write_now(|tx| begin(tx, making(n))).unwrap();
        }
        assert_eq!(known(), vec![making(0), making(1)]);
        assert_eq!((known()[0].folder(), known()[1].edition()), (PathBuf::from("/mnt/光盘"), [1; 8]));
        store.write_now(|tx| leave(tx, &id(0))).unwrap();
        assert_eq!(known(), vec![Making { epoch: 0, ..making(0) }, making(1)]);
        store.write_now(|tx| forget(tx, &id(0))).unwrap();
        assert_eq!(known(), vec![making(1)]);
        for n in 2..MAKINGS_MAX + 2 {
            store.write_now(|tx| begin(tx, making(n))).unwrap();
        }
        assert_eq!((known().len(), known()[0].began), (MAKINGS_MAX, Timestamp(2)));
    }
}
