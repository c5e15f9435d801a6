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
    pub differing: u64,
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
    if !differing.is_empty() {
        let keys = ask_keys(ctx, &job, &resource, &differing, watermark.clone()).await?;
        let again = Ours::read(ctx, &job, &resource, &theirs, watermark, differing.clone()).await?;
        let (name, provider) = (job.name.clone(), peer.clone());
        let standing = ctx.store.read(move |db| exchange::standing(db, Side::Consumer, &provider, &name)).await?;
        let left_here = left_buckets(standing.as_ref(), &theirs.contract, &ours.buckets);
        for (key, bucket, difference) in compare(&keys, &again.rows) {
            let here = left_here.as_ref().is_some_and(|left| left.contains(&bucket));
            let there = theirs.left.as_ref().is_some_and(|left| left.contains(&bucket));
            let party = match (there, here) {
                (true, false) => Party::Provider,
                (false, true) => Party::Consumer,
                _ => Party::Both,
            };
            by_party.entry(party).or_default().push((key, difference));
        }
    }
    let differing_rows: u64 = by_party.values().map(|rows| rows.len() as u64).sum();
    let compared = ctx.world.clock.now();
    let findings = by_party
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
    let matched = differing.is_empty();
    let reconciled = Reconciled {
        job: job.name.clone(),
        resource: resource.clone(),
        provider: peer,
        consumer: ctx.name.clone(),
        matched,
        provider_rows,
        consumer_rows,
        // Buckets that differ without a row that does would be a fault in the comparison; it is not matched.
        differing: if matched { 0 } else { differing_rows.max(1) },
        compared,
    };
    let statement = state(ctx, reconciled).await?;
    Ok(Deep { findings, provider_rows, consumer_rows, differing: differing_rows, statement })
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
        let mut rows = Bucketing::new(table.digest_key(), contract.clone(), BTreeSet::new());
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
        let keys = rows.rows.into_iter().map(row).collect();
        Ok(KeysAnswer { keys, truncated: rows.truncated, refused: None })
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
        let mut rows = Bucketing::new(key, contract, wanted);
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
    watermark: Option<Watermark>,
) -> Result<BTreeMap<String, (u16, [u8; 32])>, Problem> {
    let peer = &resource.node;
    let buckets: Vec<u16> = buckets.iter().copied().collect();
    let mut keys = BTreeMap::new();
    // Few buckets at a time, so that their keys fit into a frame; a table in which everything differs needs no full list.
    for some in buckets.chunks(BUCKETS_A_QUESTION).take(QUESTIONS_MAX) {
        let request = KeysRequest {
            job: provider_job(job),
            resource: resource.resource.clone(),
            buckets: some.to_vec(),
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
            let mut rows = Bucketing::new(key, contract, wanted);
            destination.read_standing(watermark.as_ref(), &mut rows)?;
            Ok(rows)
        })
        .await
    }
}

/// Adds rows up by bucket, and keeps those of the buckets that are asked for.
struct Bucketing {
    contract: Contract,
    digester: Digester,
    buckets: BucketDigest,
    wanted: BTreeSet<u16>,
    rows: BTreeMap<String, (u16, [u8; 32])>,
    bytes: usize,
    truncated: bool,
}

impl Bucketing {
    fn new(key: [u8; 32], contract: Contract, wanted: BTreeSet<u16>) -> Self {
        let digester = Digester::new(key);
        let (buckets, rows) = (BucketDigest::new(), BTreeMap::new());
        Self { contract, digester, buckets, wanted, rows, bytes: 0, truncated: false }
    }

    fn add(&mut self, rows: RecordBatch) -> Result<(), Problem> {
        let batch = batch::Batch::new(&self.contract, rows)?;
        let Self { digester, buckets, wanted, rows, bytes, truncated, .. } = self;
        digester.each(&batch, |row| {
            buckets.add(row.bucket, &row.hash);
            if wanted.contains(&row.bucket) {
                let name = Digester::name(&batch, &row);
                *bytes += name.len() + KEY_OVERHEAD;
                if *bytes <= KEYS_BYTES_MAX {
                    rows.insert(name, (row.bucket, row.hash));
                } else {
                    *truncated = true;
                }
            }
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

/// Rows that are not the same at both, by key, with their bucket.
fn compare(
    theirs: &BTreeMap<String, (u16, [u8; 32])>,
    ours: &BTreeMap<String, (u16, [u8; 32])>,
) -> Vec<(String, u16, Difference)> {
    let names: BTreeSet<&String> = theirs.keys().chain(ours.keys()).collect();
    let text = |row: Option<&(u16, [u8; 32])>| row.map_or_else(|| "absent".to_owned(), |(_, hash)| hex::encode(hash));
    names
        .into_iter()
        .filter(|name| theirs.get(*name) != ours.get(*name))
        .filter_map(|name| {
            let (there, here) = (theirs.get(name), ours.get(name));
            let bucket = there.or(here)?.0;
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
const KEYS_BYTES_MAX: usize = 900 << 10;
