//! Rows in canonical form on their way to their hashes: collected until they fill the lanes well, then hashed together.

use super::{RowHash, bucket_of, lanes};

/// Canonical forms of rows and of their keys, one behind the other.
pub(crate) struct Forms {
    key: [u8; 32],
    bytes: Vec<u8>,
    rows: Vec<Row>,
    hashes: Vec<[u8; 32]>,
    key_hashes: Vec<[u8; 32]>,
}

/// Where a row's form begins and ends, and the form of its key ends; that is empty where there is no key.
struct Row {
    row: usize,
    start: usize,
    end: usize,
    key_end: usize,
}

impl Forms {
    pub(crate) fn new(key: [u8; 32]) -> Self {
        Self { key, bytes: Vec::new(), rows: Vec::new(), hashes: Vec::new(), key_hashes: Vec::new() }
    }
    /// Where the next row's form is to be written, behind what is there.
    pub(crate) fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
    /// Where the next row's form begins.
    fn start(&self) -> usize {
        self.rows.last().map_or(0, |row| row.key_end)
    }
    /// Takes away what was written of a row that does not come to its end.
    pub(crate) fn drop_begun(&mut self) {
        self.bytes.truncate(self.start());
    }
    /// What was written is a row, whose form ends there; the form of its key follows, if it has one.
    pub(crate) fn keep(&mut self, row: usize, end: usize) {
        self.rows.push(Row { row, start: self.start(), end, key_end: self.bytes.len() });
    }
    /// Whether it pays to hash them now.
    pub(crate) fn are_enough(&self) -> bool {
        self.rows.len() >= ROWS || self.bytes.len() >= BYTES
    }
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(2 * BYTES);
        self.rows.clear();
    }
    /// Gives the hash of each row, in their order, and forgets them.
    pub(crate) fn hash(&mut self, mut into: impl FnMut(RowHash)) {
        self.hash_all();
        let Self { rows, hashes, key_hashes, .. } = self;
        for (row, (hash, key_hash)) in rows.iter().zip(hashes.iter().zip(&*key_hashes)) {
            into(RowHash { row: row.row, bucket: bucket_of(key_hash), hash: *hash });
        }
        self.clear();
    }
    /// Apart from what takes the hashes, so that it is compiled here, whoever calls.
    fn hash_all(&mut self) {
        let Self { key, bytes, rows, hashes, key_hashes } = self;
        let form = |from: usize, to: usize| bytes.get(from..to).unwrap_or_default();
        lanes::keyed_hashes(key, rows.iter().map(|row| form(row.start, row.end)), hashes);
        if rows.iter().any(|row| row.key_end > row.end) {
            lanes::keyed_hashes(key, rows.iter().map(|row| form(row.end, row.key_end)), key_hashes);
        } else {
            key_hashes.clone_from(hashes);
        }
    }
}

/// Enough that few lanes are idle at the end, few enough that all lies in the first caches.
const ROWS: usize = 64;
const BYTES: usize = 64 << 10;
