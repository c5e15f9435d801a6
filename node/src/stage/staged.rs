//! [`Staged`]: the whole transfer, durable and equal to what the provider signed.

use crate::store::exchange::{self, StagedSplit};
use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};
use posthouse_protocol::codec;
use posthouse_protocol::consumer::Consumer;
use posthouse_protocol::digest::RowDigest;
use posthouse_protocol::govern::Quality;
use posthouse_protocol::id::TransferId;
use posthouse_protocol::limits;
use posthouse_protocol::manifest::{Counts, LeftOut, Manifest};
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::statement::Statement;
use rusqlite::Connection;

/// Everything that the provider handed over is durable here and agrees with what it signed.
#[derive(Debug, Clone)]
pub struct Staged {
    facts: Facts,
    manifest: Manifest,
}

/// Its durable form.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct Facts {
    /// The provider's statement, as it came.
    #[n(0)]
    statement: ByteVec,
    #[n(1)]
    content_root: ByteArray<32>,
    #[n(2)]
    counts: Counts,
    #[n(3)]
    digest_commitment: Option<ByteArray<32>>,
    #[n(4)]
    left_out: Vec<LeftOut>,
    #[n(5)]
    left_out_sha256: Option<ByteArray<32>>,
    #[n(6)]
    manifest: ByteVec,
    /// What the job's rules found in the rows that came.
    #[n(7)]
    quality: Option<Quality>,
}

/// What the provider's handover said, once its statement is verified.
pub struct HandedOver<'a> {
    pub statement: &'a Statement,
    pub digest: Option<RowDigest>,
    pub salt: [u8; 32],
}

impl Staged {
    /// `machine` has every entry whole, and `stage` made all of it durable. Fails where this node's own
    /// sums are not what the provider signed.
    pub fn of(machine: &mut Consumer, handed: &HandedOver<'_>, splits: Option<SplitTotals>) -> Result<Self, Problem> {
        let peer = handed.statement.issuer();
        let mismatch = |cause: &str| Problem::new(Code::Mismatch).with("peer", peer).cause(cause);
        let Some(manifest) = handed.statement.manifest() else {
            return Err(mismatch("its statement hands nothing over"));
        };
        machine.check(manifest)?;
        let Some(totals) = machine.totals().cloned() else { return Err(mismatch("not everything has come")) };
        let mut counts = totals.counts;
        let (mut digest_commitment, mut quality) = (None, None);
        if let Some(splits) = splits {
            if handed.digest != Some(splits.digest) {
                return Err(mismatch("the digest of the rows is not that of the rows that came"));
            }
            let commitment = ByteArray::from(splits.digest.commitment(&handed.salt));
            if manifest.digest_commitment.as_ref() != Some(&commitment) {
                return Err(mismatch("its statement commits to another digest than it opened"));
            }
            digest_commitment = Some(commitment);
            counts.rows_landed = splits.landed;
            counts.rows_quarantined = splits.quarantined;
            quality = splits.quality.map(|quality| quality.listed());
        } else if manifest.digest_commitment.is_some() || handed.digest.is_some() {
            return Err(mismatch("it states a digest of rows, but handed over files"));
        }
        let left_out = machine.left_out();
        counts.refused = left_out.len() as u64;
        let facts = Facts {
            statement: handed.statement.bytes().to_vec().into(),
            content_root: totals.content_root.into(),
            counts,
            digest_commitment,
            left_out: left_out.listed(),
            left_out_sha256: left_out.sha256().map(ByteArray::from),
            manifest: codec::encode(manifest).into(),
            quality,
        };
        Ok(Self { facts, manifest: manifest.clone() })
    }

    /// From here on the commit needs the line no more.
    pub fn record(&self, at: &Connection, transfer: &TransferId) -> Result<(), Problem> {
        exchange::set_landing_staged(at, transfer, &self.facts)
    }

    /// What an earlier run of this node recorded.
    pub fn load(at: &Connection, transfer: &TransferId) -> Result<Option<Self>, Problem> {
        let Some(facts) = exchange::landing_staged::<Facts>(at, transfer)? else { return Ok(None) };
        let manifest = codec::decode(&facts.manifest, limits::STATEMENT_BYTES_MAX)
            .map_err(|e| Problem::new(Code::StoreDamaged).cause(e))?;
        Ok(Some(Self { facts, manifest }))
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }
    /// The provider's statement as it came.
    pub fn statement(&self) -> &[u8] {
        &self.facts.statement
    }
    pub fn counts(&self) -> &Counts {
        &self.facts.counts
    }
    pub fn content_root(&self) -> ByteArray<32> {
        self.facts.content_root
    }
    pub fn digest_commitment(&self) -> Option<ByteArray<32>> {
        self.facts.digest_commitment
    }
    pub fn quality(&self) -> Option<&Quality> {
        self.facts.quality.as_ref()
    }
    pub fn left_out(&self) -> (&[LeftOut], Option<ByteArray<32>>) {
        (&self.facts.left_out, self.facts.left_out_sha256)
    }
}

/// The sums over all staged splits of a transfer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SplitTotals {
    pub digest: RowDigest,
    pub landed: u64,
    pub quarantined: u64,
    /// What the job's rules found. None: it has none.
    pub quality: Option<Quality>,
}

impl SplitTotals {
    pub fn add(&mut self, split: &StagedSplit) {
        self.digest.merge(&split.digest);
        self.landed += split.landed;
        self.quarantined += split.quarantined;
        if let Some(quality) = &split.quality {
            self.quality.get_or_insert_default().merge(quality);
        }
    }
}
