//! Rows by bucket: their sums, the keys of the buckets that are asked for, and what of two tables differs.

use crate::extract::{Batch, SplitSink};
use crate::store::exchange::Standing;
use arrow::record_batch::RecordBatch;
use minicbor::bytes::ByteVec;
use posthouse_connectors::{BadRow, Sink};
use posthouse_protocol::batch;
use posthouse_protocol::digest::{BucketDigest, Digester};
use posthouse_protocol::govern::Governed;
use posthouse_protocol::limits::BUCKETS;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::reconciliation::Difference;
use posthouse_protocol::schema::Contract;
use std::collections::{BTreeMap, BTreeSet};

/// Rows by key, with their bucket and hash.
pub(super) type Rows = BTreeMap<String, (u16, [u8; 32])>;

/// Adds rows up by bucket, and keeps those of the buckets that are asked for, whole buckets as far as they fit.
pub(super) struct Bucketing {
    pub contract: Contract,
    digester: Digester,
    pub buckets: BucketDigest,
    pub kept: Kept,
    /// What was done to the rows; nothing is known of a standing table's.
    pub governed: Vec<Governed>,
    /// Rows that may still come; one more ends the reading.
    left: u64,
}

/// Rows of some buckets, as many as `most` bytes hold. What is too much goes by whole buckets, the last ones first:
/// part of a bucket says nothing about what it lacks.
pub(super) struct Kept {
    wanted: BTreeSet<u16>,
    rows: BTreeMap<u16, BTreeMap<String, [u8; 32]>>,
    bytes: usize,
    most: usize,
    pub truncated: bool,
}

impl Bucketing {
    pub(super) fn new(key: [u8; 32], contract: Contract, wanted: BTreeSet<u16>, most: usize) -> Self {
        let kept = Kept { wanted, rows: BTreeMap::new(), bytes: 0, most, truncated: false };
        let (digester, buckets, governed) = (Digester::new(key), BucketDigest::new(), Vec::new());
        Self { contract, digester, buckets, kept, governed, left: u64::MAX }
    }
    /// Reads no more rows than these.
    pub(super) fn at_most(self, rows: u64) -> Self {
        Self { left: rows.saturating_add(1), ..self }
    }
    /// Whether there were more rows than it may read.
    pub(super) fn is_too_much(&self) -> bool {
        self.left == 0
    }

    fn add(&mut self, rows: RecordBatch) -> Result<(), Problem> {
        let batch = batch::Batch::new(&self.contract, rows)?;
        self.left = self.left.saturating_sub(batch.rows() as u64);
        if self.is_too_much() {
            return Err(Problem::new(Code::InsideFailed).cause("more rows than are worth reading"));
        }
        let Self { digester, buckets, kept, .. } = self;
        digester.each(&batch, |row| {
            buckets.add(row.bucket, &row.hash);
            kept.add(row.bucket, row.hash, || Digester::name(&batch, &row));
        })?;
        Ok(())
    }
}

impl Sink for Bucketing {
    fn batch(&mut self, batch: RecordBatch) -> Result<(), Problem> {
        self.add(batch)
    }
    fn bad_row(&mut self, _: BadRow) -> Result<(), Problem> {
        // What cannot move was never handed over, so it is no part of what is compared.
        Ok(())
    }
}

impl SplitSink for Bucketing {
    fn batch(&mut self, batch: &Batch) -> Result<(), Problem> {
        self.add(batch.rows().clone())
    }
    fn raw(&mut self, _: &[u8]) -> Result<(), Problem> {
        Err(Problem::new(Code::InsideFailed).cause("rows were read in a form that was not asked for"))
    }
    fn bad_row(&mut self, row: BadRow) -> Result<(), Problem> {
        Sink::bad_row(self, row)
    }
}

impl Kept {
    fn add(&mut self, bucket: u16, hash: [u8; 32], name: impl FnOnce() -> String) {
        if !self.wanted.contains(&bucket) {
            return;
        }
        let name = name();
        let bytes = name.len() + KEY_OVERHEAD;
        if self.rows.entry(bucket).or_default().insert(name, hash).is_none() {
            self.bytes += bytes;
        }
        while self.bytes > self.most
            && let Some((last, rows)) = self.rows.pop_last()
        {
            self.bytes -= rows.keys().map(|name| name.len() + KEY_OVERHEAD).sum::<usize>();
            self.wanted.remove(&last);
            self.truncated = true;
        }
    }

    pub(super) fn into_rows(self) -> Rows {
        let named = |(bucket, rows): (u16, BTreeMap<String, [u8; 32]>)| {
            rows.into_iter().map(move |(name, hash)| (name, (bucket, hash)))
        };
        self.rows.into_iter().flat_map(named).collect()
    }
}

/// The buckets of `wanted` whose listed rows add up to their digest.
pub(super) fn whole_buckets(rows: &Rows, wanted: &BTreeSet<u16>, digest: &BucketDigest) -> BTreeSet<u16> {
    let mut listed = BucketDigest::new();
    rows.values().for_each(|(bucket, hash)| listed.add(*bucket, hash));
    wanted.iter().copied().filter(|bucket| listed.get(*bucket) == digest.get(*bucket)).collect()
}

/// Rows that are not the same at both, by key, with their bucket, in the buckets whose rows were all seen.
pub(super) fn compare(theirs: &Rows, ours: &Rows, seen: &BTreeSet<u16>) -> Vec<(String, u16, Difference)> {
    let names: BTreeSet<&String> = theirs.keys().chain(ours.keys()).collect();
    let text = |row: Option<&(u16, [u8; 32])>| row.map_or_else(|| "absent".to_owned(), |(_, hash)| hex::encode(hash));
    names
        .into_iter()
        .filter(|name| theirs.get(*name) != ours.get(*name))
        .filter_map(|name| {
            let (there, here) = (theirs.get(name), ours.get(name));
            let bucket = there.or(here).map(|row| row.0).filter(|bucket| seen.contains(bucket))?;
            let difference = Difference { what: name.clone(), provider: text(there), consumer: text(here) };
            Some((name.clone(), bucket, difference))
        })
        .collect()
}

/// Buckets that are not what they were at the last receipt; None where there was none under this contract.
pub(super) fn left_buckets(
    standing: Option<&Standing>,
    contract: &Contract,
    now: &BucketDigest,
) -> Option<BTreeSet<u16>> {
    let standing = standing.filter(|standing| standing.contract_sha256 == contract.sha256())?;
    let then = BucketDigest::from_bytes(&standing.buckets)?;
    Some(now.differing(&then).into_iter().collect())
}

pub(super) fn bitmap(buckets: &BTreeSet<u16>) -> ByteVec {
    let mut bits = vec![0u8; BUCKETS / 8];
    for bucket in buckets {
        if let Some(byte) = bits.get_mut(usize::from(*bucket) / 8) {
            *byte |= 1 << (bucket % 8);
        }
    }
    bits.into()
}

pub(super) fn from_bitmap(bits: &[u8]) -> BTreeSet<u16> {
    let set = |bucket: &u16| bits.get(usize::from(*bucket) / 8).is_some_and(|byte| byte & 1 << (bucket % 8) != 0);
    (0..BUCKETS as u16).filter(set).collect()
}

/// What a row takes beside its key.
pub(super) const KEY_OVERHEAD: usize = 48;

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(wanted: impl IntoIterator<Item = u16>, most: usize) -> Kept {
        let wanted = wanted.into_iter().collect();
        Kept { wanted, rows: BTreeMap::new(), bytes: 0, most, truncated: false }
    }

    /// 40 rows in each of 16 buckets, in the order of a table that is sorted by key; `changed` ones have another hash.
    fn table(most: usize, changed: impl Fn(u16) -> bool) -> (Rows, BucketDigest, bool) {
        let (mut kept, mut digest) = (kept(0..16, most), BucketDigest::new());
        for row in 0..640u16 {
            let hash = *blake3::hash(&[row.to_be_bytes(), [0, u8::from(changed(row))]].concat()).as_bytes();
            digest.add(row % 16, &hash);
            kept.add(row % 16, hash, || format!("{row:04}"));
        }
        let truncated = kept.truncated;
        (kept.into_rows(), digest, truncated)
    }

    #[test]
    fn a_list_that_is_cut_off_names_only_what_was_seen_at_both() {
        let row = KEY_OVERHEAD + 4;
        let all: BTreeSet<u16> = (0..16).collect();
        let (theirs, their_digest, cut_there) = table(row * 40 * 10, |row| row >= 600);
        let (ours, our_digest, cut_here) = table(row * 40 * 5 + row, |_| false);
        assert!(cut_there && cut_here);
        let there = whole_buckets(&theirs, &all, &their_digest);
        assert_eq!(there, (0..10).collect());
        let seen = whole_buckets(&ours, &there, &our_digest);
        assert_eq!(seen, (0..5).collect());
        let found = compare(&theirs, &ours, &seen);
        assert!(found.iter().all(|(_, _, d)| d.provider != "absent" && d.consumer != "absent"), "{found:?}");
        let named: Vec<u16> = found.iter().map(|(key, ..)| key.parse().unwrap()).collect();
        let wanted: Vec<u16> = (600..640).filter(|row| row % 16 < 5).collect();
        assert_eq!(named, wanted);
    }
    #[test]
    fn a_table_with_more_rows_than_are_worth_reading_is_given_up() {
        use arrow::array::{ArrayRef, Int64Array};
        use posthouse_protocol::schema::{ContractType, Item};
        let item = Item { name: "id".to_owned(), r#type: ContractType::Integer, nullable: false, comment: None };
        let contract = Contract { items: vec![item], key: vec!["id".to_owned()] };
        let rows = |numbers: Vec<i64>| {
            let ids: ArrayRef = std::sync::Arc::new(Int64Array::from(numbers));
            RecordBatch::try_new(batch::arrow_schema(&contract), vec![ids]).unwrap()
        };
        let mut few = Bucketing::new([1; 32], contract.clone(), BTreeSet::new(), 0).at_most(3);
        Sink::batch(&mut few, rows(vec![1, 2])).unwrap();
        Sink::batch(&mut few, rows(vec![3])).unwrap();
        assert!(!few.is_too_much());
        assert!(Sink::batch(&mut few, rows(vec![4])).is_err() && few.is_too_much());
    }
}
