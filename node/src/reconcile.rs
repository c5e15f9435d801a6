//! 深度对账: both nodes digest their standing table of one job, compare 4,096 buckets, name the keys that differ,
//! and say whose copy has left what was receipted: each side keeps its digest of the last receipt, and the side
//! whose bucket is another now is the one that changed. The verdict is stated and signed by who compared.
//! An `observe` job is this and nothing more. What two statements say of each other is in `protocol::reconciliation`.

use crate::config::{Job, Kind, Origin};
use crate::context::Context;
use crate::extract::{Batch, Extraction, SplitSink};
use crate::settle;
use crate::stage::{Place, Stage};
use crate::store::exchange::{self, Standing};
use crate::store::statements::{self, ChainKey, Hand};
use crate::store::{Side, Transfer};
use crate::transfer::{ask, blocking, open_destination};
use arrow::record_batch::RecordBatch;
use minicbor::bytes::ByteVec;
use posthouse_connectors::{BadRow, Read, Sink};
use posthouse_protocol::batch;
use posthouse_protocol::digest::{BucketDigest, Digester, digest_key};
use posthouse_protocol::frame::{DigestAnswer, DigestRequest, Frame, KeysAnswer, KeysRequest, RowKey};
use posthouse_protocol::id::{JobId, NodeId, ResourceId, ResourceRef, TransferId};
use posthouse_protocol::job::Mode;
use posthouse_protocol::limits::BUCKETS;
use posthouse_protocol::policy::Permit;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::reconciliation::{Difference, Finding, Party, Verdict};
use posthouse_protocol::schema::Contract;
use posthouse_protocol::statement::{Body, Reconciled};
use posthouse_protocol::watermark::Watermark;
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

/// The digest of the target right after a publish, to tell later whose copy left its receipt.
pub(crate) async fn consumer_standing(
    ctx: &Arc<Context>,
    row: &Transfer,
    stage: &Arc<Stage>,
) -> Result<Option<Standing>, Problem> {
    let (stage, transfer) = (stage.clone(), row.id.clone());
    let watermark = row.watermark_to.clone().filter(|_| row.mode == Mode::Incremental);
    blocking(&ctx.world, move || {
        let Place::Table(table) = stage.place() else { return Ok(None) };
        let contract = table.contract().clone();
        let mut rows = Bucketing::new(table.digest_key(), contract.clone(), BTreeSet::new(), 0);
        match table.destination().read_standing(watermark.as_ref(), &mut rows) {
            Ok(_) => {
                Ok(Some(Standing { contract_sha256: contract.sha256(), buckets: rows.buckets.to_bytes(), transfer }))
            }
            Err(problem) => {
                // The receipt does not depend on it: a later reconciliation only cannot say whose copy changed.
                tracing::warn!(%transfer, %problem, "The standing digest could not be kept");
                Ok(None)
            }
        }
    })
    .await
}

/// The digest of a source as its consumer may see it now.
pub(crate) async fn provider_standing(
    ctx: &Arc<Context>,
    permit: &Permit,
    watermark: Option<Watermark>,
) -> Result<(Contract, BucketDigest), Problem> {
    let rows = read_source(ctx, permit, watermark, BTreeSet::new()).await?;
    Ok((rows.contract, rows.buckets))
}

/// Answers another node's question for this node's digest of a resource.
pub(crate) async fn answer_digest(ctx: &Arc<Context>, peer: &NodeId, request: DigestRequest) -> DigestAnswer {
    let answer = async {
        let permit = permit(ctx, peer, &request.resource)?;
        let (contract, buckets) = provider_standing(ctx, &permit, request.watermark.clone()).await?;
        let (consumer, job) = (peer.clone(), request.job.clone());
        let standing = ctx.store.read(move |db| exchange::standing(db, Side::Provider, &consumer, &job)).await?;
        let left = left_buckets(standing.as_ref(), &contract, &buckets);
        let key = digest_key(permit.resource(), &contract, DIGEST_EPOCH);
        Ok(DigestAnswer {
            key: key.into(),
            rows: buckets.total().count,
            buckets: buckets.to_bytes().into(),
            contract: Some(contract),
            refused: None,
            left: left.map(|left| bitmap(&left)),
            watermark_column: request.watermark.as_ref().and_then(|_| watermark_column(ctx, &request.resource)),
        })
    };
    answer.await.unwrap_or_else(|problem: Problem| DigestAnswer {
        key: [0; 32].into(),
        contract: None,
        buckets: ByteVec::from(Vec::new()),
        rows: 0,
        refused: Some(settle::refused(&problem, None)),
        left: None,
        watermark_column: None,
    })
}

fn watermark_column(ctx: &Context, resource: &ResourceId) -> Option<String> {
    match &ctx.config().resources.get(resource)?.origin {
        Origin::Table { spec, .. } => spec.watermark.clone(),
        Origin::Folder { .. } => None,
    }
}

/// Answers another node's question for the keys in some buckets.
pub(crate) async fn answer_keys(ctx: &Arc<Context>, peer: &NodeId, request: KeysRequest) -> KeysAnswer {
    let answer = async {
        let permit = permit(ctx, peer, &request.resource)?;
        let wanted: BTreeSet<u16> = request.buckets.iter().copied().filter(|b| usize::from(*b) < BUCKETS).collect();
        let rows = read_source(ctx, &permit, request.watermark.clone(), wanted).await?;
        let row = |(key, (bucket, hash)): (String, (u16, [u8; 32]))| RowKey { key, bucket, hash: hash.into() };
        let truncated = rows.kept.truncated;
        let keys = rows.kept.into_rows().into_iter().map(row).collect();
        Ok(KeysAnswer { keys, truncated, refused: None })
    };
    answer.await.unwrap_or_else(|problem: Problem| KeysAnswer {
        keys: Vec::new(),
        truncated: false,
        refused: Some(settle::refused(&problem, None)),
    })
}

fn permit(ctx: &Context, peer: &NodeId, resource: &ResourceId) -> Result<Permit, Problem> {
    let resource = ResourceRef { node: ctx.name.clone(), resource: resource.clone() };
    ctx.authority.permit(peer, &resource, None)
}

/// Reads a source through its grant, within one snapshot.
async fn read_source(
    ctx: &Arc<Context>,
    permit: &Permit,
    watermark: Option<Watermark>,
    wanted: BTreeSet<u16>,
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
        let read = Read {
            columns: permit.columns().map(<[String]>::to_vec),
            filter: permit.filter().cloned(),
            from: None,
            to: watermark,
        };
        let mut extraction = Extraction::begin(context.connect(connection)?, spec, &read, context.world.clock.now())?;
        let contract = extraction.contract().clone();
        let key = digest_key(permit.resource(), &contract, DIGEST_EPOCH);
        let mut rows = Bucketing::new(key, contract, wanted, KEYS_BYTES_MAX);
        while let Some(read) = extraction.read_next(&mut rows) {
            read?;
        }
        Ok(rows)
    })
    .await
}

/// The provider's answer, checked.
struct Theirs {
    contract: Contract,
    buckets: BucketDigest,
    /// Buckets that are no longer what its last receipt says; None where it has none.
    left: Option<BTreeSet<u16>>,
    /// The column that the watermark bounds on its side.
    watermark_column: Option<String>,
}

async fn ask_digest(
    ctx: &Arc<Context>,
    job: &Job,
    resource: &ResourceRef,
    watermark: Option<Watermark>,
) -> Result<Theirs, Problem> {
    let peer = &resource.node;
    let request = DigestRequest { job: provider_job(job), resource: resource.resource.clone(), watermark };
    let invalid = |cause: &str| Problem::new(Code::FrameInvalid).with("peer", peer).cause(cause);
    let answer = match ask(ctx, peer, &Frame::Digest(request), DIGEST_WITHIN).await? {
        Frame::DigestAnswer(answer) => answer,
        _ => return Err(invalid("it answered a digest by something else")),
    };
    if let Some(refused) = &answer.refused {
        return Err(refusal(ctx, resource, refused));
    }
    let contract = answer.contract.ok_or_else(|| invalid("its digest has no contract"))?;
    batch::check_contract(&contract)?;
    // Both derive the key: a digest under another one could not be compared.
    if *answer.key != digest_key(resource, &contract, DIGEST_EPOCH) {
        return Err(invalid("its digest has another key than its contract"));
    }
    let buckets =
        BucketDigest::from_bytes(&answer.buckets).ok_or_else(|| invalid("its digest has not the size of one"))?;
    let left = answer.left.map(|bits| from_bitmap(&bits));
    Ok(Theirs { contract, buckets, left, watermark_column: answer.watermark_column })
}

async fn ask_keys(
    ctx: &Arc<Context>,
    job: &Job,
    resource: &ResourceRef,
    buckets: &BTreeSet<u16>,
    digest: &BucketDigest,
    watermark: Option<Watermark>,
) -> Result<BTreeMap<String, (u16, [u8; 32])>, Problem> {
    let peer = &resource.node;
    let mut keys = BTreeMap::new();
    // Few buckets at a time, so that their keys fit into a frame; a table in which everything differs needs no full list.
    for some in questions(buckets, digest) {
        let request = KeysRequest {
            job: provider_job(job),
            resource: resource.resource.clone(),
            buckets: some,
            watermark: watermark.clone(),
        };
        match ask(ctx, peer, &Frame::Keys(request), DIGEST_WITHIN).await? {
            Frame::KeysAnswer(KeysAnswer { refused: Some(refused), .. }) => {
                return Err(refusal(ctx, resource, &refused));
            }
            Frame::KeysAnswer(answer) => {
                keys.extend(answer.keys.into_iter().map(|key| (key.key, (key.bucket, key.hash.into()))));
            }
            _ => {
                return Err(Problem::new(Code::FrameInvalid)
                    .with("peer", peer)
                    .cause("it answered keys by something else"));
            }
        }
    }
    Ok(keys)
}

/// Which buckets are asked for together: about as many as fit into an answer, and no more questions than a few.
fn questions(buckets: &BTreeSet<u16>, digest: &BucketDigest) -> Vec<Vec<u16>> {
    let mut questions: Vec<Vec<u16>> = Vec::new();
    let mut bytes = 0;
    for bucket in buckets {
        let more = usize::try_from(digest.get(*bucket).count).unwrap_or(usize::MAX).saturating_mul(KEY_GUESS);
        match questions.last_mut() {
            Some(last) if last.len() < BUCKETS_A_QUESTION && more <= KEYS_BYTES_MAX - bytes => {
                bytes += more;
                last.push(*bucket);
            }
            _ => {
                if questions.len() == QUESTIONS_MAX {
                    break;
                }
                bytes = more.min(KEYS_BYTES_MAX);
                questions.push(vec![*bucket]);
            }
        }
    }
    questions
}

/// The buckets of `wanted` whose listed rows add up to their digest.
fn whole_buckets(
    rows: &BTreeMap<String, (u16, [u8; 32])>,
    wanted: &BTreeSet<u16>,
    digest: &BucketDigest,
) -> BTreeSet<u16> {
    let mut listed = BucketDigest::new();
    rows.values().for_each(|(bucket, hash)| listed.add(*bucket, hash));
    wanted.iter().copied().filter(|bucket| listed.get(*bucket) == digest.get(*bucket)).collect()
}

fn refusal(ctx: &Context, resource: &ResourceRef, refused: &posthouse_protocol::frame::Refused) -> Problem {
    let code = Code::from_number(refused.code).unwrap_or(Code::InsideFailed);
    Problem::new(code)
        .with("consumer", &ctx.name)
        .with("provider", &resource.node)
        .with("peer", &resource.node)
        .with("resource", resource)
        .cause(&refused.cause)
}

/// This node's own table of a job.
struct Ours;

impl Ours {
    async fn read(
        ctx: &Arc<Context>,
        job: &Job,
        resource: &ResourceRef,
        theirs: &Theirs,
        watermark: Option<Watermark>,
        wanted: BTreeSet<u16>,
    ) -> Result<Bucketing, Problem> {
        let (context, job, resource) = (ctx.clone(), job.clone(), resource.clone());
        let (contract, mark) = (theirs.contract.clone(), theirs.watermark_column.clone());
        let id = TransferId::from_random(ctx.world.random.bytes::<16>());
        blocking(&ctx.world, move || {
            let target = job.into.as_ref().filter(|_| job.lands_rows()).ok_or_else(|| {
                Problem::new(Code::UsageInvalid).with("what", "only tables are reconciled row by row")
            })?;
            let now = context.world.clock.now();
            let peer = resource.node.clone();
            let name = job.name.clone();
            let row = Transfer::planned(id, Side::Consumer, name, peer, resource.clone(), job.mode, job.write, now);
            let mut destination = open_destination(&context, &row, target, &contract, mark)?;
            let key = digest_key(&resource, &contract, DIGEST_EPOCH);
            let mut rows = Bucketing::new(key, contract, wanted, QUESTIONS_MAX * KEYS_BYTES_MAX);
            destination.read_standing(watermark.as_ref(), &mut rows)?;
            Ok(rows)
        })
        .await
    }
}

/// Adds rows up by bucket, and keeps those of the buckets that are asked for, whole buckets as far as they fit.
struct Bucketing {
    contract: Contract,
    digester: Digester,
    buckets: BucketDigest,
    kept: Kept,
}

/// Rows of some buckets, as many as `most` bytes hold. What is too much goes by whole buckets, the last ones first:
/// part of a bucket says nothing about what it lacks.
struct Kept {
    wanted: BTreeSet<u16>,
    rows: BTreeMap<u16, BTreeMap<String, [u8; 32]>>,
    bytes: usize,
    most: usize,
    truncated: bool,
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

    fn into_rows(self) -> BTreeMap<String, (u16, [u8; 32])> {
        let named = |(bucket, rows): (u16, BTreeMap<String, [u8; 32]>)| {
            rows.into_iter().map(move |(name, hash)| (name, (bucket, hash)))
        };
        self.rows.into_iter().flat_map(named).collect()
    }
}

impl Bucketing {
    fn new(key: [u8; 32], contract: Contract, wanted: BTreeSet<u16>, most: usize) -> Self {
        let kept = Kept { wanted, rows: BTreeMap::new(), bytes: 0, most, truncated: false };
        Self { contract, digester: Digester::new(key), buckets: BucketDigest::new(), kept }
    }

    fn add(&mut self, rows: RecordBatch) -> Result<(), Problem> {
        let batch = batch::Batch::new(&self.contract, rows)?;
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
    fn bad_row(&mut self, row: BadRow) -> Result<(), Problem> {
        Sink::bad_row(self, row)
    }
}

/// Rows that are not the same at both, by key, with their bucket, in the buckets whose rows were all seen.
fn compare(
    theirs: &BTreeMap<String, (u16, [u8; 32])>,
    ours: &BTreeMap<String, (u16, [u8; 32])>,
    seen: &BTreeSet<u16>,
) -> Vec<(String, u16, Difference)> {
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
fn left_buckets(standing: Option<&Standing>, contract: &Contract, now: &BucketDigest) -> Option<BTreeSet<u16>> {
    let standing = standing.filter(|standing| standing.contract_sha256 == contract.sha256())?;
    let then = BucketDigest::from_bytes(&standing.buckets)?;
    Some(now.differing(&then).into_iter().collect())
}

fn bitmap(buckets: &BTreeSet<u16>) -> ByteVec {
    let mut bits = vec![0u8; BUCKETS / 8];
    for bucket in buckets {
        if let Some(byte) = bits.get_mut(usize::from(*bucket) / 8) {
            *byte |= 1 << (bucket % 8);
        }
    }
    bits.into()
}

fn from_bitmap(bits: &[u8]) -> BTreeSet<u16> {
    let set = |bucket: &u16| bits.get(usize::from(*bucket) / 8).is_some_and(|byte| byte & 1 << (bucket % 8) != 0);
    (0..BUCKETS as u16).filter(set).collect()
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

/// The name under which the provider knows transfers of this job: the consumer's.
fn provider_job(job: &Job) -> JobId {
    job.name.clone()
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

#[cfg(test)]
mod tests {
    use super::*;

    type Rows = BTreeMap<String, (u16, [u8; 32])>;

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
    fn questions_ask_for_about_as_much_as_an_answer_holds() {
        let mut digest = BucketDigest::new();
        let hash = [1; 32];
        (0..40_000u32).for_each(|row| digest.add((row % 10) as u16, &hash));
        let asked = questions(&(0..12).collect(), &digest);
        assert_eq!(asked, [vec![0, 1, 2], vec![3, 4, 5], vec![6, 7, 8], vec![9, 10, 11]]);
        assert_eq!(questions(&(0..BUCKETS as u16).collect(), &BucketDigest::new()).len(), QUESTIONS_MAX);
    }
}
