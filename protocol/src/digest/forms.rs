//! Rows in canonical form on their way to their hashes: collected until they fill the lanes well, then hashed together.

use super::lanes::{BLOCK, Input};
use super::{RowHash, bucket_of, lanes};

/// Canonical forms of rows and of their keys, one behind the other, each from the beginning of a block on.
pub(crate) struct Forms {
    key: [u8; 32],
    bytes: Vec<u8>,
    /// Where what is written now begins.
    start: usize,
    numbers: Vec<usize>,
    rows: Vec<Input>,
    /// Of no length where there is no key.
    keys: Vec<Input>,
    hashes: Vec<[u8; 32]>,
    key_hashes: Vec<[u8; 32]>,
}

impl Forms {
    pub(crate) fn new(key: [u8; 32]) -> Self {
        Self {
            key,
            bytes: Vec::new(),
            start: 0,
            numbers: Vec::new(),
            rows: Vec::new(),
            keys: Vec::new(),
            hashes: Vec::new(),
            key_hashes: Vec::new(),
        }
    }
    /// Where the form of the next row, or of its key, is to be written, behind what is there.
    pub(crate) fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
    /// Takes away what was written of a row that does not come to its end.
    pub(crate) fn drop_begun(&mut self) {
        self.bytes.truncate(self.start);
    }
    /// What was written is a row; the form of its key follows, if it has one.
    pub(crate) fn end_row(&mut self) {
        let row = self.end();
        self.rows.push(row);
    }
    /// What was written since then is its key.
    pub(crate) fn keep(&mut self, row: usize) {
        let key = self.end();
        self.keys.push(key);
        self.numbers.push(row);
    }
    /// Fills up the last block.
    fn end(&mut self) -> Input {
        let written = Input { first_block: self.start / BLOCK, length: self.bytes.len() - self.start };
        self.start = self.bytes.len().next_multiple_of(BLOCK);
        self.bytes.extend_from_slice(&[0; BLOCK]);
        self.bytes.truncate(self.start);
        written
    }
    /// Whether it pays to hash them now.
    pub(crate) fn are_enough(&self) -> bool {
        self.numbers.len() >= ROWS || self.bytes.len() >= BYTES
    }
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(2 * BYTES);
        self.start = 0;
        self.numbers.clear();
        self.rows.clear();
        self.keys.clear();
    }
    /// Gives the hash of each row, in their order, and forgets them.
    pub(crate) fn hash(&mut self, mut into: impl FnMut(RowHash)) {
        self.hash_all();
        let Self { numbers, hashes, key_hashes, .. } = self;
        for (row, (hash, key_hash)) in numbers.iter().zip(hashes.iter().zip(&*key_hashes)) {
            into(RowHash { row: *row, bucket: bucket_of(key_hash), hash: *hash });
        }
        self.clear();
    }
    /// Apart from what takes the hashes, so that it is compiled here, whoever calls.
    fn hash_all(&mut self) {
        let Self { key, bytes, rows, keys, hashes, key_hashes, .. } = self;
        let blocks = bytes.as_chunks().0;
        lanes::keyed_hashes(key, blocks, rows, hashes);
        if keys.iter().any(|key| key.length > 0) {
            lanes::keyed_hashes(key, blocks, keys, key_hashes);
        } else {
            key_hashes.clone_from(hashes);
        }
    }
}

/// Enough that few lanes are idle at the end, few enough that all lies in the first caches.
const ROWS: usize = 64;
const BYTES: usize = 64 << 10;
