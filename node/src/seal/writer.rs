//! One split from its source's rows to its bytes: digested, hashed, counted.

use super::content::{Filling, Lease};
use super::{Sealed, SealedSplit, Spool, Written, storage};
use crate::extract::{Batch, SplitSink};
use crate::held_back::HeldBack;
use posthouse_connectors::BadRow;
use posthouse_protocol::batch::BatchWriter;
use posthouse_protocol::digest::{BucketDigest, Digester, RowDigest, RowHash};
use posthouse_protocol::format::Native;
use posthouse_protocol::govern::Quality;
use posthouse_protocol::manifest::SplitCounts;
use posthouse_protocol::pgcopy::{self, CopyError, Sifted, Sifter, Walker};
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::schema::Contract;
use std::io::Write;
use std::path::PathBuf;

pub(super) struct SplitWriter {
    position: u64,
    path: PathBuf,
    spool: Spool,
    rows: Rows,
    digest: RowDigest,
    buckets: BucketDigest,
    bad: HeldBack,
    quality: Option<Quality>,
}

/// A split's rows on their way, in the form they travel in.
enum Rows {
    Arrow {
        writer: BatchWriter<Filling>,
        contract: Contract,
        digester: Digester,
    },
    Raw {
        filling: Filling,
        walker: Walker,
    },
    /// As they came but for some that cannot be carried, which nobody knew before: see [`SplitWriter::has_bad_rows`].
    Sifted {
        filling: Filling,
        sifter: Sifter,
    },
    /// Such a row came; the others are not looked at before they come again.
    Spoiled,
}

impl SplitWriter {
    pub(super) fn new(
        spool: &Spool,
        position: u64,
        contract: &Contract,
        native: Option<&Native>,
        digest_key: [u8; 32],
        lease: Option<Lease>,
        sifted: bool,
    ) -> Result<Self, Problem> {
        let path = spool.path(position);
        let mut filling = Filling::new(spool, position, lease)?;
        let rows = match native {
            None => Rows::Arrow {
                writer: BatchWriter::new(filling, contract)?,
                contract: contract.clone(),
                digester: Digester::new(digest_key),
            },
            Some(native) if sifted => {
                filling.write_all(&pgcopy::HEADER).map_err(|e| storage(&path, &e))?;
                Rows::Sifted { filling, sifter: Sifter::new(&native.shape(contract)?, digest_key) }
            }
            Some(native) => Rows::Raw { filling, walker: Walker::new(&native.shape(contract)?, digest_key) },
        };
        let (digest, buckets) = (RowDigest::default(), BucketDigest::new());
        let bad = HeldBack::new(path.with_extension("bad"), spool.disk().clone());
        Ok(Self { position, path, spool: spool.clone(), rows, digest, buckets, bad, quality: None })
    }

    /// Whether a raw row came that cannot be carried, so that the split has to be read once more and sifted. Rows are
    /// hashed many at a time and leave as they lie: where one of them lies is known only when it is too late.
    pub(super) fn has_bad_rows(&self) -> bool {
        matches!(self.rows, Rows::Spoiled)
    }

    pub(super) fn finish(self, name: String, mut counts: SplitCounts) -> Result<Written, Problem> {
        let Self { position, path, spool, rows, digest, buckets, bad, quality } = self;
        let filling = match rows {
            Rows::Arrow { writer, .. } => writer.finish()?,
            Rows::Raw { filling, walker } => {
                walker.finish()?;
                filling
            }
            Rows::Sifted { mut filling, sifter } => {
                sifter.finish()?;
                filling.write_all(&pgcopy::TRAILER).map_err(|e| storage(&path, &e))?;
                // To the source they are rows like all others.
                counts.sent -= counts.sent.min(bad.count());
                counts.quarantined += bad.count();
                filling
            }
            Rows::Spoiled => {
                return Err(Problem::new(Code::InsideFailed).cause("a split was to be sealed that is not whole"));
            }
        };
        if digest.count != counts.sent {
            return Err(Problem::new(Code::InsideFailed)
                .cause(format!("split {name}: {} rows digested, {} sent", digest.count, counts.sent)));
        }
        let (hashes, content) = filling.finish()?;
        let (root, size) = (hashes.root, hashes.layout.size());
        let split = SealedSplit { name, position, root, size, counts, digest, quality };
        Ok(Written::new(Sealed { split, bad, buckets }, hashes.values.into(), content, spool))
    }
}

impl SplitSink for SplitWriter {
    fn batch(&mut self, batch: &Batch) -> Result<(), Problem> {
        let Self { rows: Rows::Arrow { writer, contract, digester }, digest, buckets, .. } = self else {
            return Err(Problem::new(Code::InsideFailed).cause("rows came as batches where raw ones were announced"));
        };
        let rows = posthouse_protocol::batch::Batch::new(contract, batch.rows().clone())?;
        digester.each(&rows, |row| {
            digest.add(&row.hash);
            buckets.add(row.bucket, &row.hash);
        })?;
        Ok(writer.write(&rows)?)
    }
    fn raw(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        let Self { path, rows, digest, buckets, bad, .. } = self;
        let mut count = |row: RowHash| {
            digest.add(&row.hash);
            buckets.add(row.bucket, &row.hash);
        };
        match rows {
            Rows::Raw { filling, walker } => match walker.feed(bytes, &mut count) {
                Ok(()) => filling.write_all(bytes).map_err(|e| storage(path, &e)),
                Err(CopyError::Value { .. }) => {
                    *rows = Rows::Spoiled;
                    Ok(())
                }
                Err(error) => Err(error.into()),
            },
            Rows::Sifted { filling, sifter } => sifter.feed(bytes, &mut |sifted| match sifted {
                Sifted::Row(tuple, hash) => {
                    count(hash);
                    filling.write_all(tuple).map_err(|e| storage(path, &e))
                }
                Sifted::Bad(row) => {
                    bad.push(BadRow { key: format!("row {}", row.row), reason: row.reason, original: row.original })
                }
            }),
            Rows::Spoiled => Ok(()),
            Rows::Arrow { .. } => {
                Err(Problem::new(Code::InsideFailed).cause("raw rows came where batches were announced"))
            }
        }
    }
    fn bad_row(&mut self, row: BadRow) -> Result<(), Problem> {
        self.bad.push(row)
    }
    fn quality(&mut self, quality: Option<Quality>) {
        self.quality = quality;
    }
}
