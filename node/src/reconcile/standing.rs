//! The standing tables of both ends, read and digested as they are now.

use super::ask::{KEYS_BYTES_MAX, QUESTIONS_MAX, Theirs};
use super::buckets::Bucketing;
use super::{Comparison, DIGEST_EPOCH};
use crate::config::Origin;
use crate::context::Context;
use crate::extract::Extraction;
use crate::govern::Orders;
use crate::stage::{Place, Stage};
use crate::store::exchange::Standing;
use crate::store::{Side, Transfer};
use crate::transfer::{OfferedRows, blocking, open_destination};
use posthouse_connectors::Read;
use posthouse_protocol::digest::{BucketDigest, digest_key};
use posthouse_protocol::govern::Governed;
use posthouse_protocol::id::TransferId;
use posthouse_protocol::job::{Mode, Write};
use posthouse_protocol::manifest::Counts;
use posthouse_protocol::policy::Permit;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::schema::Contract;
use posthouse_protocol::watermark::Watermark;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The digest of the target right after a publish, to tell later whose copy left its receipt.
/// A table that was replaced whole is what was staged; any other is read, unless it is large beside what was landed.
pub(crate) async fn consumer_standing(
    ctx: &Arc<Context>,
    row: &Transfer,
    stage: &Arc<Stage>,
    landed: &Counts,
) -> Result<Option<Standing>, Problem> {
    let (stage, transfer) = (stage.clone(), row.id.clone());
    let (landed, replaced) = (*landed, (row.write == Write::Replace).then_some(landed.rows_landed));
    let watermark = row.watermark_to.clone().filter(|_| row.mode == Mode::Incremental);
    blocking(&ctx.world, move || {
        let Place::Table(table) = stage.place() else { return Ok(None) };
        if table.has_operations() {
            // Its provider has no standing table to compare it with.
            return Ok(None);
        }
        let contract = table.contract().clone();
        if let Some(buckets) = replaced.and_then(|rows| table.staged(rows)) {
            let (contract_sha256, buckets) = (contract.sha256(), buckets.to_bytes());
            return Ok(Some(Standing { contract_sha256, buckets, transfer }));
        }
        let rows = Bucketing::new(table.digest_key(), contract.clone(), BTreeSet::new(), 0);
        let mut rows = rows.at_most(worth_reading(landed.rows_landed));
        match table.destination().read_standing(watermark.as_ref(), &mut rows) {
            Ok(_) => {
                Ok(Some(Standing { contract_sha256: contract.sha256(), buckets: rows.buckets.to_bytes(), transfer }))
            }
            Err(_) if rows.is_too_much() => Ok(None),
            Err(problem) => {
                // The receipt does not depend on it: a later reconciliation only cannot say whose copy changed.
                tracing::warn!(%transfer, %problem, "The standing digest could not be kept");
                Ok(None)
            }
        }
    })
    .await
}

/// The digest of a source as its consumer may see it now, and what is done to its rows.
pub(crate) async fn provider_standing(
    ctx: &Arc<Context>,
    permit: &Permit,
    watermark: Option<Watermark>,
    rules: Option<Vec<Governed>>,
) -> Result<(Contract, BucketDigest, Vec<Governed>), Problem> {
    let rows = read_source(ctx, permit, watermark, rules, BTreeSet::new(), u64::MAX).await?;
    Ok((rows.contract, rows.buckets, rows.governed))
}

/// The same after an incremental run, unless the source is large beside what was handed over.
pub(crate) async fn provider_standing_after(
    ctx: &Arc<Context>,
    permit: &Permit,
    watermark: Option<Watermark>,
    rules: Option<Vec<Governed>>,
    rows_sent: u64,
) -> Result<Option<(Contract, BucketDigest)>, Problem> {
    let rows = read_source(ctx, permit, watermark, rules, BTreeSet::new(), worth_reading(rows_sent)).await?;
    Ok(Some(rows).filter(|rows| !rows.is_too_much()).map(|rows| (rows.contract, rows.buckets)))
}

/// So many rows are read beside so many that moved: a table that takes a few rows every minute is not read
/// from end to end every minute.
fn worth_reading(moved: u64) -> u64 {
    moved.saturating_mul(STANDING_SHARE).max(STANDING_ROWS)
}

/// Reads a source through its grant, within one snapshot, by the rules that the taker's job asks for.
pub(super) async fn read_source(
    ctx: &Arc<Context>,
    permit: &Permit,
    watermark: Option<Watermark>,
    rules: Option<Vec<Governed>>,
    wanted: BTreeSet<u16>,
    at_most: u64,
) -> Result<Bucketing, Problem> {
    let (context, permit) = (ctx.clone(), permit.clone());
    blocking(&ctx.world, move || {
        let config = context.config();
        let not_offered = || {
            Problem::new(Code::NotOffered).with("provider", &context.name).with("resource", &permit.resource().resource)
        };
        let resource = config.resources.get(&permit.resource().resource).ok_or_else(not_offered)?;
        let Origin::Table { connection, spec } = &resource.origin else {
            return Err(Problem::new(Code::UsageInvalid).with("what", "only tables are reconciled row by row"));
        };
        if resource.exchange.is_some() {
            let what = "a front-end table holds changes, which are not reconciled row by row with what they led to";
            return Err(Problem::new(Code::UsageInvalid).with("what", what));
        }
        let read = Read {
            columns: permit.columns().map(<[String]>::to_vec),
            filter: permit.filter().cloned(),
            to: watermark,
            ..Read::default()
        };
        let orders = Orders::of(&resource.govern, permit.masks())?.wishing(rules.as_deref(), &spec.resource)?;
        let (connection, now) = (context.connect(connection)?, context.world.clock.now());
        let mut extraction = Extraction::begin(connection, spec, &read, &orders, now)?;
        let contract = extraction.contract().clone();
        let key = digest_key(permit.resource(), &contract, DIGEST_EPOCH);
        let mut rows = Bucketing::new(key, contract, wanted, KEYS_BYTES_MAX).at_most(at_most);
        rows.governed = extraction.governed().unwrap_or_default();
        while let Some(read) = extraction.read_next(&mut rows) {
            match read {
                Err(_) if rows.is_too_much() => break,
                read => read?,
            };
        }
        Ok(rows)
    })
    .await
}

impl Comparison {
    /// Reads this node's own table.
    pub(super) async fn read(&self, theirs: &Theirs, wanted: BTreeSet<u16>) -> Result<Bucketing, Problem> {
        let (ctx, job, resource) = (self.ctx.clone(), self.job.clone(), self.resource.clone());
        let (contract, mark) = (theirs.contract.clone(), theirs.watermark_column.clone());
        let (watermark, id) = (self.watermark.clone(), TransferId::from_random(ctx.world.random.bytes::<16>()));
        blocking(&self.ctx.world, move || {
            let target = job.into.as_ref().filter(|_| job.lands_rows()).ok_or_else(|| {
                Problem::new(Code::UsageInvalid).with("what", "only tables are reconciled row by row")
            })?;
            let now = ctx.world.clock.now();
            let (name, peer) = (job.name.clone(), resource.node.clone());
            let row = Transfer::planned(id, Side::Consumer, name, peer, resource.clone(), job.mode, job.write, now);
            let rows = OfferedRows::new(contract.clone(), None, mark);
            let mut destination = open_destination(&ctx, &row, target, &rows)?;
            let key = digest_key(&resource, &contract, DIGEST_EPOCH);
            let mut rows = Bucketing::new(key, contract, wanted, QUESTIONS_MAX * KEYS_BYTES_MAX);
            destination.read_standing(watermark.as_ref(), &mut rows)?;
            Ok(rows)
        })
        .await
    }
}

/// Rows of a standing table that are read for each that moved, and how many in any case.
const STANDING_SHARE: u64 = 10;
const STANDING_ROWS: u64 = 500_000;
