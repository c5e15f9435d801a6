//! 深度对账: both nodes digest their standing table of one job, compare 4,096 buckets, name the keys that differ,
//! and say whose copy has left what was receipted: each side keeps its digest of the last receipt, and the side
//! whose bucket is another now is the one that changed. The verdict is stated and signed by who compared.
//! An `observe` job is this and nothing more. What two statements say of each other is in `protocol::reconciliation`.

mod answer;
mod ask;
mod buckets;
mod standing;

pub(crate) use answer::{answer_digest, answer_keys};
pub(crate) use ask::last_governed;
pub(crate) use standing::{consumer_standing, provider_standing_after};

use crate::config::{Job, Kind};
use crate::context::Context;
use crate::store::statements::{self, ChainKey, Hand};
use crate::store::{Side, exchange, transfers};
use ask::Theirs;
use buckets::{compare, left_buckets, whole_buckets};
use posthouse_protocol::digest::BucketDigest;
use posthouse_protocol::id::{JobId, ResourceRef};
use posthouse_protocol::job::Mode;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::reconciliation::{Difference, Finding, Party, Verdict};
use posthouse_protocol::statement::{Body, Reconciled};
use posthouse_protocol::watermark::Watermark;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What a deep reconciliation found.
#[derive(Debug, Clone)]
pub struct Deep {
    pub findings: Vec<Finding>,
    pub provider_rows: u64,
    pub consumer_rows: u64,
    /// Rows that were seen to differ, and one for each differing bucket whose rows were not all seen.
    pub differing: u64,
    /// No more differ than that.
    pub exact: bool,
    /// SHA-256 of the signed verdict.
    pub statement: [u8; 32],
}

/// Compares the standing tables of one of this node's taking jobs with their source.
pub async fn deep(ctx: &Arc<Context>, job: &JobId) -> Result<Deep, Problem> {
    let comparison = Comparison::of(ctx, job).await?;
    let theirs = comparison.ask_digest().await?;
    let ours = comparison.read(&theirs, BTreeSet::new()).await?.buckets;
    let buckets: BTreeSet<u16> = ours.differing(&theirs.buckets).into_iter().collect();
    let differing = comparison.differing(&theirs, &ours, &buckets).await?;
    let (provider_rows, consumer_rows) = (theirs.buckets.total().count, ours.total().count);
    let (rows, exact, compared) = (differing.rows(), differing.unseen.is_empty(), ctx.world.clock.now());
    let Comparison { job, resource, .. } = comparison;
    let finding = |party, keys, differences| Finding {
        verdict: Verdict::Mismatched,
        transfer: None,
        job: job.name.clone(),
        resource: resource.clone(),
        provider: resource.node.clone(),
        consumer: ctx.name.clone(),
        party,
        differences,
        keys,
        since: compared,
    };
    let mut findings: Vec<Finding> = Vec::new();
    for (party, rows) in differing.by_party {
        let (keys, differences) = rows.into_iter().take(LISTED_MAX).unzip();
        findings.push(finding(party, keys, differences));
    }
    if !exact {
        let difference = Difference {
            what: "rows".to_owned(),
            provider: provider_rows.to_string(),
            consumer: format!("{consumer_rows}, at least {rows} differ"),
        };
        findings.push(finding(Party::Both, Vec::new(), vec![difference]));
    }
    let reconciled = Reconciled {
        job: job.name.clone(),
        resource: resource.clone(),
        provider: resource.node.clone(),
        consumer: ctx.name.clone(),
        matched: buckets.is_empty(),
        provider_rows,
        consumer_rows,
        differing: rows,
        compared,
    };
    let statement = state(ctx, reconciled).await?;
    Ok(Deep { findings, provider_rows, consumer_rows, differing: rows, exact, statement })
}

/// What is compared, and up to where.
struct Comparison {
    ctx: Arc<Context>,
    job: Job,
    resource: ResourceRef,
    /// What lies beyond it has not been taken yet.
    watermark: Option<Watermark>,
}

/// What was seen to differ, by whose copy has left the receipt.
#[derive(Default)]
struct Differing {
    by_party: BTreeMap<Party, Vec<(String, Difference)>>,
    /// Buckets that differ and whose rows were not all seen.
    unseen: BTreeSet<u16>,
}

impl Differing {
    /// At least so many differ.
    fn rows(&self) -> u64 {
        (self.by_party.values().map(Vec::len).sum::<usize>() + self.unseen.len()) as u64
    }
}

impl Comparison {
    async fn of(ctx: &Arc<Context>, job: &JobId) -> Result<Self, Problem> {
        let config = ctx.config();
        let job = config
            .jobs
            .get(job)
            .cloned()
            .ok_or_else(|| Problem::new(Code::UnknownName).with("kind", "job").with("name", job))?;
        let resource = resource_of(ctx, &job).await?;
        let name = job.name.clone();
        let reached = ctx.store.read(move |db| exchange::reached(db, &name)).await?;
        let watermark = reached.filter(|_| job.mode == Mode::Incremental || matches!(job.kind, Kind::Accept { .. }));
        Ok(Self { ctx: ctx.clone(), job, resource, watermark })
    }

    /// Lists the rows of the buckets that differ, at both ends, and tells which ones are not the same.
    async fn differing(
        &self,
        theirs: &Theirs,
        ours: &BucketDigest,
        buckets: &BTreeSet<u16>,
    ) -> Result<Differing, Problem> {
        let mut differing = Differing { unseen: buckets.clone(), ..Default::default() };
        if buckets.is_empty() {
            return Ok(differing);
        }
        let keys = self.ask_keys(buckets, &theirs.buckets).await?;
        // A list counts for a bucket only where it adds up to that bucket's digest: nothing of it was cut off, and
        // nothing has changed since the digests were compared.
        let there = whole_buckets(&keys, buckets, &theirs.buckets);
        let again = self.read(theirs, there.clone()).await?.kept.into_rows();
        let seen = whole_buckets(&again, &there, ours);
        let (name, provider) = (self.job.name.clone(), self.resource.node.clone());
        let standing = self.ctx.store.read(move |db| exchange::standing(db, Side::Consumer, &provider, &name)).await?;
        let left_here = left_buckets(standing.as_ref(), &theirs.contract, ours);
        for (key, bucket, difference) in compare(&keys, &again, &seen) {
            let here = left_here.as_ref().is_some_and(|left| left.contains(&bucket));
            let there = theirs.left.as_ref().is_some_and(|left| left.contains(&bucket));
            let party = match (there, here) {
                (true, false) => Party::Provider,
                (false, true) => Party::Consumer,
                _ => Party::Both,
            };
            differing.unseen.remove(&bucket);
            differing.by_party.entry(party).or_default().push((key, difference));
        }
        Ok(differing)
    }
}

async fn resource_of(ctx: &Context, job: &Job) -> Result<ResourceRef, Problem> {
    match &job.kind {
        Kind::Take { resource } => Ok(resource.clone()),
        Kind::Accept { from, .. } => {
            // A pushed job's resource is the pusher's choice: what it last pushed.
            let name = job.name.clone();
            let rows = ctx
                .store
                .read(move |db| {
                    let filter = transfers::Filter {
                        job: Some(name),
                        side: Some(Side::Consumer),
                        limit: Some(1),
                        ..Default::default()
                    };
                    transfers::list(db, &filter)
                })
                .await?;
            rows.into_iter().next().map(|row| row.resource).ok_or_else(|| {
                Problem::new(Code::UnknownName).with("kind", "transfer").with("name", format!("{from} → {}", job.name))
            })
        }
        Kind::Push { .. } => {
            Err(Problem::new(Code::UsageInvalid).with("what", "a pushed job is reconciled at the node that takes it"))
        }
    }
}

async fn state(ctx: &Context, reconciled: Reconciled) -> Result<[u8; 32], Problem> {
    let (name, signer, epoch, now) = (ctx.name.clone(), ctx.signer.clone(), ctx.epoch, ctx.world.clock.now());
    let statement = ctx
        .store
        .write(move |tx| {
            let hand = Hand { name: &name, signer: signer.as_ref(), epoch, now };
            let (peer, resource, job) =
                (reconciled.provider.clone(), reconciled.resource.clone(), reconciled.job.clone());
            let key = ChainKey { peer: &peer, resource: &resource, job: &job };
            statements::sign(tx, &hand, key, |chain| Body::Reconciliation(chain, reconciled))
        })
        .await?;
    ctx.outbox.notify_one();
    Ok(*statement.sha256())
}

pub(crate) const DIGEST_EPOCH: u64 = 1;
/// Keys named in one finding.
const LISTED_MAX: usize = 100;
