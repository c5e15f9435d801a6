//! 深度对账: both nodes digest their standing table of one job, compare 4,096 buckets, name the keys that differ,
//! and say whose copy has left what was receipted: each side keeps its digest of the last receipt, and the side
//! whose bucket is another now is the one that changed. The verdict is stated and signed by who compared.
//! An `observe` job is this and nothing more. What two statements say of each other is in `protocol::reconciliation`.

mod answer;
mod ask;
mod buckets;
mod standing;

use crate::config::{Job, Kind};
use crate::context::Context;
use crate::store::statements::{self, ChainKey, Hand};
use crate::store::{Side, exchange};
pub(crate) use answer::{answer_digest, answer_keys};
use ask::{Theirs, ask_digest, ask_keys};
use buckets::{compare, left_buckets, whole_buckets};
use posthouse_protocol::id::{JobId, ResourceRef};
use posthouse_protocol::job::Mode;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::reconciliation::{Difference, Finding, Party, Verdict};
use posthouse_protocol::statement::{Body, Reconciled};
use standing::Ours;
pub(crate) use standing::{consumer_standing, provider_standing};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

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
    let config = ctx.config();
    let job = config
        .jobs
        .get(job)
        .cloned()
        .ok_or_else(|| Problem::new(Code::UnknownName).with("kind", "job").with("name", job))?;
    let resource = resource_of(ctx, &job).await?;
    let peer = resource.node.clone();
    let name = job.name.clone();
    let reached = ctx.store.read(move |db| exchange::reached(db, &name)).await?;
    let watermark = reached.filter(|_| job.mode == Mode::Incremental || matches!(job.kind, Kind::Accept { .. }));
    let theirs = ask_digest(ctx, &job, &resource, watermark.clone()).await?;
    let ours = Ours::read(ctx, &job, &resource, &theirs, watermark.clone(), BTreeSet::new()).await?;
    let differing: BTreeSet<u16> = ours.buckets.differing(&theirs.buckets).into_iter().collect();
    let (provider_rows, consumer_rows) = (theirs.buckets.total().count, ours.buckets.total().count);
    let mut by_party: BTreeMap<Party, Vec<(String, Difference)>> = BTreeMap::new();
    let mut unseen = differing.clone();
    if !differing.is_empty() {
        let keys = ask_keys(ctx, &job, &resource, &differing, &theirs.buckets, watermark.clone()).await?;
        // A list counts for a bucket only where it adds up to that bucket's digest: nothing of it was cut off, and
        // nothing has changed since the digests were compared.
        let there = whole_buckets(&keys, &differing, &theirs.buckets);
        let again = Ours::read(ctx, &job, &resource, &theirs, watermark, there.clone()).await?;
        let again = again.kept.into_rows();
        let seen = whole_buckets(&again, &there, &ours.buckets);
        let (name, provider) = (job.name.clone(), peer.clone());
        let standing = ctx.store.read(move |db| exchange::standing(db, Side::Consumer, &provider, &name)).await?;
        let left_here = left_buckets(standing.as_ref(), &theirs.contract, &ours.buckets);
        for (key, bucket, difference) in compare(&keys, &again, &seen) {
            let here = left_here.as_ref().is_some_and(|left| left.contains(&bucket));
            let there = theirs.left.as_ref().is_some_and(|left| left.contains(&bucket));
            let party = match (there, here) {
                (true, false) => Party::Provider,
                (false, true) => Party::Consumer,
                _ => Party::Both,
            };
            unseen.remove(&bucket);
            by_party.entry(party).or_default().push((key, difference));
        }
    }
    let seen_rows: u64 = by_party.values().map(|rows| rows.len() as u64).sum();
    let (differing_rows, exact) = (seen_rows + unseen.len() as u64, unseen.is_empty());
    let compared = ctx.world.clock.now();
    let mut findings: Vec<Finding> = by_party
        .into_iter()
        .map(|(party, rows)| {
            let (keys, differences): (Vec<_>, Vec<_>) = rows.into_iter().take(LISTED_MAX).unzip();
            Finding {
                verdict: Verdict::Mismatched,
                transfer: None,
                job: job.name.clone(),
                resource: resource.clone(),
                provider: peer.clone(),
                consumer: ctx.name.clone(),
                party,
                differences,
                keys,
                since: compared,
            }
        })
        .collect();
    if !exact {
        findings.push(Finding {
            verdict: Verdict::Mismatched,
            transfer: None,
            job: job.name.clone(),
            resource: resource.clone(),
            provider: peer.clone(),
            consumer: ctx.name.clone(),
            party: Party::Both,
            differences: vec![Difference {
                what: "rows".to_owned(),
                provider: provider_rows.to_string(),
                consumer: format!("{consumer_rows}, at least {differing_rows} differ"),
            }],
            keys: Vec::new(),
            since: compared,
        });
    }
    let matched = differing.is_empty();
    let reconciled = Reconciled {
        job: job.name.clone(),
        resource: resource.clone(),
        provider: peer,
        consumer: ctx.name.clone(),
        matched,
        provider_rows,
        consumer_rows,
        differing: differing_rows,
        compared,
    };
    let statement = state(ctx, reconciled).await?;
    Ok(Deep { findings, provider_rows, consumer_rows, differing: differing_rows, exact, statement })
}

async fn resource_of(ctx: &Arc<Context>, job: &Job) -> Result<ResourceRef, Problem> {
    match &job.kind {
        Kind::Take { resource } => Ok(resource.clone()),
        Kind::Accept { from, .. } => {
            // A pushed job's resource is the pusher's choice: what it last pushed.
            let name = job.name.clone();
            let rows = ctx
                .store
                .read(move |db| {
                    let filter = crate::store::transfers::Filter {
                        job: Some(name),
                        side: Some(Side::Consumer),
                        limit: Some(1),
                        ..Default::default()
                    };
                    crate::store::transfers::list(db, &filter)
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

async fn state(ctx: &Arc<Context>, reconciled: Reconciled) -> Result<[u8; 32], Problem> {
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
const DIGEST_WITHIN: Duration = Duration::from_secs(600);
const BUCKETS_A_QUESTION: usize = 64;
const QUESTIONS_MAX: usize = 16;
/// Keys named in one finding.
const LISTED_MAX: usize = 100;
const KEY_OVERHEAD: usize = 48;
/// What a row of a list takes, before its key is known.
const KEY_GUESS: usize = KEY_OVERHEAD + 16;
const KEYS_BYTES_MAX: usize = 900 << 10;
