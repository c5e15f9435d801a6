//! The row digest: what two parties compare when they say they hold the same rows.
//! Each row is encoded by its contract types (never the engine's), hashed with BLAKE3 under a key, and the
//! hashes are added up as 256-bit numbers, so that order does not matter and rows can be taken away again.
//! It detects faults and false counts; it is no proof against someone who builds colliding sets: the chunk
//! root is the evidence for content. The exact form is in [`encoding`] and in `vectors/row-digest.json`.

pub mod encoding;
pub(crate) mod forms;
pub mod json;
mod lanes;

use crate::batch::{Batch, BatchError};
use crate::id::ResourceRef;
use crate::limits::BUCKETS;
use crate::schema::Contract;
use forms::Forms;

/// The key of a resource's digests: both parties derive the same one, and another for another contract.
pub fn digest_key(resource: &ResourceRef, contract: &Contract, epoch: u64) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(KEY_CONTEXT);
    for name in [resource.node.as_str(), resource.resource.as_str()] {
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name.as_bytes());
    }
    hasher.update(&contract.sha256());
    hasher.update(&epoch.to_le_bytes());
    *hasher.finalize().as_bytes()
}

/// Digests rows of one contract under one key.
pub struct Digester {
    forms: Forms,
    canonicalizer: json::Canonicalizer,
}

/// One row as [`Digester::each`] gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowHash {
    pub row: usize,
    pub bucket: u16,
    pub hash: [u8; 32],
}

impl Digester {
    pub fn new(key: [u8; 32]) -> Self {
        Self { forms: Forms::new(key), canonicalizer: json::Canonicalizer::default() }
    }
    /// Adds the rows of a batch.
    pub fn rows(&mut self, batch: &Batch, into: &mut RowDigest) -> Result<(), BatchError> {
        self.each(batch, |row| into.add(&row.hash))
    }
    /// Adds the rows of a batch to the buckets of their keys.
    pub fn buckets(&mut self, batch: &Batch, into: &mut BucketDigest) -> Result<(), BatchError> {
        self.each(batch, |row| into.add(row.bucket, &row.hash))
    }
    /// Gives each row's hash with the bucket of its key.
    pub fn each(&mut self, batch: &Batch, mut take: impl FnMut(RowHash)) -> Result<(), BatchError> {
        self.forms.clear();
        for row in 0..batch.rows() {
            self.write(batch, row)?;
            if self.forms.are_enough() {
                self.forms.hash(&mut take);
            }
        }
        self.forms.hash(take);
        Ok(())
    }
    /// A row's name in a list of differences: its key, or its hash where there is no key.
    pub fn name(batch: &Batch, row: &RowHash) -> String {
        if batch.key().is_empty() { hex::encode(row.hash) } else { batch.key_text(row.row) }
    }
    fn write(&mut self, batch: &Batch, row: usize) -> Result<(), BatchError> {
        let form = self.forms.bytes();
        form.push(encoding::ROW);
        for index in 0..batch.columns().len() {
            encoding::encode(batch, index, row, &mut self.canonicalizer, form)?;
        }
        self.forms.end_row();
        if !batch.key().is_empty() {
            let form = self.forms.bytes();
            form.push(encoding::KEY);
            for index in batch.key() {
                encoding::encode(batch, *index, row, &mut self.canonicalizer, form)?;
            }
        }
        self.forms.keep(row);
        Ok(())
    }
}

/// The sum of rows' hashes modulo 2^256, and how many they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct RowDigest {
    /// little-endian
    #[serde(with = "hex_sum")]
    pub sum: [u8; 32],
    pub count: u64,
}

impl RowDigest {
    pub fn add(&mut self, hash: &[u8; 32]) {
        let mut sum = self.words();
        add(&mut sum, &words(hash));
        *self = Self::from_words(sum, self.count.wrapping_add(1));
    }
    /// Takes a row away again.
    pub fn sub(&mut self, hash: &[u8; 32]) {
        let mut sum = self.words();
        sub(&mut sum, &words(hash));
        *self = Self::from_words(sum, self.count.wrapping_sub(1));
    }
    pub fn merge(&mut self, other: &Self) {
        let mut sum = self.words();
        add(&mut sum, &other.words());
        *self = Self::from_words(sum, self.count.wrapping_add(other.count));
    }
    /// What leaves the pair: SHA-256(salt ‖ sum ‖ count), the count as 8 bytes little-endian.
    pub fn commitment(&self, salt: &[u8; 32]) -> [u8; 32] {
        let mut bytes = Vec::with_capacity(72);
        bytes.extend_from_slice(salt);
        bytes.extend_from_slice(&self.to_bytes());
        crate::codec::sha256(&bytes)
    }
    /// The sum, then the count as 8 bytes little-endian.
    pub fn to_bytes(&self) -> [u8; DIGEST_BYTES] {
        let mut out = [0; DIGEST_BYTES];
        out[..32].copy_from_slice(&self.sum);
        out[32..].copy_from_slice(&self.count.to_le_bytes());
        out
    }
    fn words(&self) -> [u64; 4] {
        words(&self.sum)
    }
    fn from_words(words: [u64; 4], count: u64) -> Self {
        let mut sum = [0; 32];
        for (bytes, word) in sum.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        Self { sum, count }
    }
}

/// A standing table's digest: `BUCKETS` digests, each of the rows whose key falls there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketDigest {
    buckets: Vec<RowDigest>,
}

impl BucketDigest {
    pub fn new() -> Self {
        Self { buckets: vec![RowDigest::default(); BUCKETS] }
    }
    pub fn add(&mut self, bucket: u16, hash: &[u8; 32]) {
        if let Some(digest) = self.buckets.get_mut(usize::from(bucket) % BUCKETS) {
            digest.add(hash);
        }
    }
    pub fn sub(&mut self, bucket: u16, hash: &[u8; 32]) {
        if let Some(digest) = self.buckets.get_mut(usize::from(bucket) % BUCKETS) {
            digest.sub(hash);
        }
    }
    pub fn merge(&mut self, other: &Self) {
        for (digest, other) in self.buckets.iter_mut().zip(&other.buckets) {
            digest.merge(other);
        }
    }
    pub fn get(&self, bucket: u16) -> RowDigest {
        self.buckets.get(usize::from(bucket)).copied().unwrap_or_default()
    }
    /// All rows together.
    pub fn total(&self) -> RowDigest {
        let mut total = RowDigest::default();
        self.buckets.iter().for_each(|digest| total.merge(digest));
        total
    }
    /// Buckets whose rows are not the same, ascending.
    pub fn differing(&self, other: &Self) -> Vec<u16> {
        let pairs = self.buckets.iter().zip(&other.buckets).enumerate();
        pairs.filter(|(_, (ours, theirs))| ours != theirs).filter_map(|(index, _)| u16::try_from(index).ok()).collect()
    }
    /// As in `DigestAnswer`: per bucket the sum, then the count as 8 bytes little-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.buckets.iter().flat_map(RowDigest::to_bytes).collect()
    }
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != BUCKETS * DIGEST_BYTES {
            return None;
        }
        let bucket = |bytes: &[u8]| {
            let (sum, count) = bytes.split_first_chunk::<32>()?;
            Some(RowDigest { sum: *sum, count: u64::from_le_bytes(count.try_into().ok()?) })
        };
        bytes.chunks_exact(DIGEST_BYTES).map(bucket).collect::<Option<_>>().map(|buckets| Self { buckets })
    }
}

impl Default for BucketDigest {
    fn default() -> Self {
        Self::new()
    }
}

/// The first two bytes of a hash, little-endian, modulo the number of buckets.
pub(crate) fn bucket_of(hash: &[u8; 32]) -> u16 {
    u16::from_le_bytes([hash[0], hash[1]]) % BUCKETS as u16
}

fn words(bytes: &[u8; 32]) -> [u64; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    words
}

fn add(sum: &mut [u64; 4], other: &[u64; 4]) {
    let mut carry = false;
    for (word, other) in sum.iter_mut().zip(other) {
        let (partial, first) = word.overflowing_add(*other);
        let (total, second) = partial.overflowing_add(u64::from(carry));
        (*word, carry) = (total, first | second);
    }
}

fn sub(sum: &mut [u64; 4], other: &[u64; 4]) {
    let mut borrow = false;
    for (word, other) in sum.iter_mut().zip(other) {
        let (partial, first) = word.overflowing_sub(*other);
        let (total, second) = partial.overflowing_sub(u64::from(borrow));
        (*word, borrow) = (total, first | second);
    }
}

mod hex_sum {
    pub(super) fn serialize<S: serde::Serializer>(sum: &[u8; 32], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&hex::encode(sum))
    }
    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(d: D) -> Result<[u8; 32], D::Error> {
        let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(d)?;
        let mut sum = [0; 32];
        match hex::decode_to_slice(text.as_bytes(), &mut sum) {
            Ok(()) => Ok(sum),
            Err(_) => Err(serde::de::Error::custom("it is 64 hexadecimal digits")),
        }
    }
}

const KEY_CONTEXT: &str = "posthouse row digest v1";
const DIGEST_BYTES: usize = 40;

#[cfg(test)]
mod tests;
