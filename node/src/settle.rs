//! 签收: the two statements of a transfer, and the ones that end it without a receipt.
//! A provider's statement is made only from a [`SealedManifest`], a consumer's only from [`Committed`]; each
//! draws its place in the party's chain in the store transaction that signs, and goes to the outbox in the same.
//! What the other party says is believed only under its registered keys, and only about this transfer.

use crate::commit::Committed;
use crate::context::Context;
use crate::seal::SealedManifest;
use crate::store::statements::{self, ChainKey, Hand};
use crate::store::{Side, Transfer, exchange, transfers};
use posthouse_platform::endpoint::Transport;
use posthouse_protocol::codec;
use posthouse_protocol::frame::{Handover, Refused, Request};
use posthouse_protocol::govern::{Governed, said_otherwise};
use posthouse_protocol::id::{JobId, NodeId, ResourceRef, TransferId};
use posthouse_protocol::job::{Mode, State};
use posthouse_protocol::limits;
use posthouse_protocol::problem::{Code, Exit, Problem};
use posthouse_protocol::statement::{Body, Chain, Ending, Landing, Outcome, Passage, Signer, Statement};
use posthouse_protocol::time::Timestamp;
use rusqlite::Transaction;
use std::sync::Arc;

/// Whose transfer it is and what it is about: the same on both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    pub transfer: TransferId,
    pub job: JobId,
    pub resource: ResourceRef,
    pub consumer: NodeId,
}

impl Subject {
    pub fn of(request: &Request, provider: &NodeId, consumer: &NodeId) -> Self {
        Self {
            transfer: request.transfer.clone(),
            job: request.job.clone(),
            resource: ResourceRef { node: provider.clone(), resource: request.resource.clone() },
            consumer: consumer.clone(),
        }
    }
    pub fn provider(&self) -> &NodeId {
        &self.resource.node
    }
    /// The other party, as `name` sees it.
    pub fn peer_of(&self, name: &NodeId) -> &NodeId {
        if *name == self.consumer { self.provider() } else { &self.consumer }
    }
}

/// Signs the handover and records it, in one transaction. It is signed once, and never of a transfer that ended.
pub async fn state_handover(ctx: &Context, sealed: &SealedManifest) -> Result<Statement, Problem> {
    let (manifest, digest) = (sealed.manifest().clone(), sealed.digest().copied());
    let subject = Subject {
        transfer: manifest.transfer.clone(),
        job: manifest.job.clone(),
        resource: manifest.resource.clone(),
        consumer: manifest.consumer.clone(),
    };
    let own = Own::of(ctx);
    let signed = ctx
        .store
        .write(move |tx| {
            let row = transfers::get(tx, &subject.transfer)?;
            let offered = exchange::offered(tx, &subject.transfer)?;
            if row.is_none_or(|row| row.state.is_final()) || offered.is_none_or(|offered| offered.handover.is_some()) {
                // The next session finds how it stands.
                return Err(Problem::new(Code::PeerUnreachable)
                    .with("peer", &subject.consumer)
                    .cause("the transfer was ended or handed over meanwhile"));
            }
            let statement = own.sign(tx, &subject, |chain| Body::Provider(chain, Box::new(manifest)))?;
            let handover = Handover {
                statement: statement.bytes().to_vec().into(),
                digest: digest.map(|digest| (digest.sum.into(), digest.count)),
                spent: None,
            };
            exchange::set_handover(tx, &subject.transfer, &handover)?;
            Ok(statement)
        })
        .await?;
    ctx.outbox.notify_one();
    Ok(signed)
}

/// Signs what was landed and records how far the job has come, in one transaction.
pub async fn state_landing(
    ctx: &Context,
    row: &Transfer,
    committed: Committed,
    provider: Statement,
    standing: Option<exchange::Standing>,
) -> Result<Statement, Problem> {
    let own = Own::of(ctx);
    let (department, mut row) = (ctx.department(), row.clone());
    let signed = ctx
        .store
        .write(move |tx| {
            let subject = Subject {
                transfer: row.id.clone(),
                job: row.job.clone(),
                resource: row.resource.clone(),
                consumer: own.name.clone(),
            };
            if transfers::get(tx, &row.id)?.is_some_and(|stored| stored.state.is_final()) {
                return Err(Problem::new(Code::InsideFailed).cause("the transfer has ended already"));
            }
            let statement = own.sign(tx, &subject, |chain| {
                Body::Consumer(chain, landing(&row, &committed, &provider, &own.name, department))
            })?;
            statements::take(tx, &provider, own.now)?;
            let manifest = committed.staged().manifest();
            if manifest.mode == Mode::Incremental
                && let Some(watermark) = &manifest.watermark_to
            {
                exchange::set_reached(tx, &row.job, &row.id, watermark)?;
            }
            if manifest.mode == Mode::Full
                && let Some(before) = exchange::reached_governed(tx, &row.job)?
                && said_otherwise(&before, manifest.governed.as_deref().unwrap_or_default(), &Governed::is_mask)
                    .is_some()
            {
                // The table now stands under other masks: an incremental run after this one begins anew.
                exchange::forget_reached(tx, &row.job)?;
            }
            // What an earlier transfer left says nothing of this one.
            match &standing {
                Some(standing) => {
                    let resource = &row.resource.resource;
                    exchange::put_standing(tx, Side::Consumer, &row.peer, &row.job, resource, standing)?;
                }
                None => exchange::forget_standing(tx, Side::Consumer, &row.peer, &row.job)?,
            }
            row.state = State::Committed;
            row.counts = *committed.counts();
            row.watermark_to.clone_from(&manifest.watermark_to);
            row.problem = None;
            transfers::update(tx, &row)?;
            Ok(statement)
        })
        .await?;
    ctx.outbox.notify_one();
    Ok(signed)
}

fn landing(
    row: &Transfer,
    committed: &Committed,
    provider: &Statement,
    consumer: &NodeId,
    department: Option<String>,
) -> Landing {
    let staged = committed.staged();
    let (left_out, left_out_sha256) = staged.left_out();
    let counts = *committed.counts();
    let whole = left_out_sha256.is_none() && counts.rows_quarantined == 0;
    Landing {
        transfer: row.id.clone(),
        job: row.job.clone(),
        resource: row.resource.clone(),
        provider: row.peer.clone(),
        consumer: consumer.clone(),
        manifest_sha256: codec::sha256(&codec::encode(staged.manifest())).into(),
        provider_statement_sha256: (*provider.sha256()).into(),
        outcome: if whole { Outcome::Landed } else { Outcome::Partly },
        counts,
        content_root: staged.content_root(),
        digest_commitment: staged.digest_commitment(),
        left_out: left_out.to_vec(),
        left_out_sha256,
        proof: committed.proof(),
        committed: committed.at(),
        consumer_department: department,
        transport: row.transport.map_or("", Transport::as_str).to_owned(),
        quality: staged.quality().cloned(),
        database_line: committed.database_line().map(str::to_owned),
    }
}

/// Ends a transfer without a receipt: this side's refusal or failure, with the row in its final state.
/// A transfer that has a statement of landing, or is final already, is left as it is: None. So is one that was
/// handed over, until the consumer has stated that it ended: it may have landed.
pub async fn state_ending(
    ctx: &Context,
    row: &Transfer,
    subject: &Subject,
    problem: &Problem,
) -> Result<Option<Statement>, Problem> {
    let own = Own::of(ctx);
    let (mut row, subject, problem) = (row.clone(), subject.clone(), problem.clone());
    let signed = ctx
        .store
        .write(move |tx| {
            let state = ended_state(&problem);
            let kind = if state == State::Refused { "refusal" } else { "failure" };
            let keys = statements::OwnKey::new(&own.name, own.signer.as_ref());
            if own.name == subject.consumer && statements::own(tx, &row.id, "consumer", &keys)?.is_some() {
                return Ok(None);
            }
            if let Some(stored) = transfers::get(tx, &row.id)?
                && (stored.state.is_final() || stored.state == State::Committed)
            {
                return statements::own(tx, &row.id, kind, &keys);
            }
            if row.side == Side::Provider
                && !is_not_out(tx, &row)?
                && exchange::offered(tx, &row.id)?.is_some_and(|offered| offered.handover.is_some())
                && !statements::has_peers_ending(tx, &row.id)?
            {
                return Ok(None);
            }
            let ending = Ending {
                transfer: subject.transfer.clone(),
                job: subject.job.clone(),
                resource: subject.resource.clone(),
                provider: subject.provider().clone(),
                consumer: subject.consumer.clone(),
                code: problem.code.number(),
                cause: cause(&problem),
                ended: own.now,
            };
            let statement = own.sign(tx, &subject, |chain| match state {
                State::Refused => Body::Refusal(chain, ending),
                _ => Body::Failure(chain, ending),
            })?;
            row.state = state;
            row.ended = Some(own.now);
            row.problem = Some(problem);
            if transfers::get(tx, &row.id)?.is_none() {
                transfers::plan(tx, &row)?;
            } else {
                transfers::update(tx, &row)?;
            }
            Ok(Some(statement))
        })
        .await?;
    ctx.outbox.notify_one();
    Ok(signed)
}

/// Whether a transfer was to be carried and not all of it is written: nobody can have landed it.
fn is_not_out(tx: &Transaction<'_>, row: &Transfer) -> Result<bool, Problem> {
    let stored = transfers::get(tx, &row.id)?;
    Ok(stored.is_some_and(|row| row.transport == Some(Transport::Ferry) && row.state != State::Staged))
}

/// Signs what this node has passed on between two others.
pub async fn state_passage(ctx: &Context, passage: Passage) -> Result<Statement, Problem> {
    let own = Own::of(ctx);
    let subject = Subject {
        transfer: passage.transfer.clone(),
        job: passage.job.clone(),
        resource: passage.resource.clone(),
        consumer: passage.consumer.clone(),
    };
    let signed = ctx.store.write(move |tx| own.sign(tx, &subject, |chain| Body::Passage(chain, passage))).await?;
    ctx.outbox.notify_one();
    Ok(signed)
}

/// Refused where somebody was not permitted, cancelled where somebody wished so, else failed.
pub fn ended_state(problem: &Problem) -> State {
    match problem.code {
        Code::Cancelled => State::Cancelled,
        code if code.text().exit == Exit::NotPermitted => State::Refused,
        _ => State::Failed,
    }
}

/// What a frame says of an ending.
pub fn refused(problem: &Problem, statement: Option<&Statement>) -> Refused {
    Refused {
        code: problem.code.number(),
        cause: cause(problem),
        statement: statement.map(|statement| statement.bytes().to_vec()).unwrap_or_default().into(),
        temporary: matches!(problem.code, Code::Busy | Code::OutsideWindow),
        facts: Some(problem.told()).filter(|facts| !facts.is_empty()),
    }
}

/// The other side's ending as a problem of this side.
pub fn problem_of(refused: &Refused, subject: &Subject) -> Problem {
    refused.problem(&[
        ("consumer", &subject.consumer),
        ("provider", subject.provider()),
        ("resource", &subject.resource),
        ("peer", subject.provider()),
    ])
}

/// Keeps the other side's refusal or failure, if it is one about this transfer; anything else is dropped.
pub async fn take_ending(ctx: &Context, subject: &Subject, bytes: &[u8]) -> Result<(), Problem> {
    if bytes.is_empty() {
        return Ok(());
    }
    let peer = subject.peer_of(&ctx.name);
    match open(ctx, peer, bytes) {
        Ok(statement) if statement.ending().is_some() && about(&statement, subject) => {
            let now = ctx.world.clock.now();
            ctx.store.write(move |tx| statements::take(tx, &statement, now)).await
        }
        Ok(_) => {
            tracing::warn!(%peer, transfer = %subject.transfer, "A statement that belongs elsewhere was dropped");
            Ok(())
        }
        Err(problem) => {
            tracing::warn!(%peer, transfer = %subject.transfer, %problem, "A statement was dropped");
            Ok(())
        }
    }
}

/// The peer's statement, verified under its registered keys.
pub fn open(ctx: &Context, peer: &NodeId, bytes: &[u8]) -> Result<Statement, Problem> {
    let invalid = |cause: String| Problem::new(Code::FrameInvalid).with("peer", peer).cause(cause);
    // A peer whose grant is gone, or a policy that is stale, may still prove what was done before.
    let statement = Statement::open(bytes, ctx.authority.as_ref()).map_err(|e| invalid(e.to_string()))?;
    if statement.issuer() == peer { Ok(statement) } else { Err(invalid("it is another party's statement".to_owned())) }
}

/// A statement of this node's own, read back.
pub fn open_own(ctx: &Context, bytes: &[u8]) -> Result<Statement, Problem> {
    let keys = statements::OwnKey::new(&ctx.name, ctx.signer.as_ref());
    Statement::open(bytes, &keys).map_err(|e| Problem::new(Code::StoreDamaged).cause(e))
}

/// Whether a statement speaks of this transfer between these two.
pub fn about(statement: &Statement, subject: &Subject) -> bool {
    let body = statement.body();
    body.transfer() == Some(&subject.transfer)
        && body.job() == Some(&subject.job)
        && body.resource() == Some(&subject.resource)
        && body.parties() == Some((subject.provider(), &subject.consumer))
}

/// The consumer's word about this side's handover.
pub fn check_landing(statement: &Statement, subject: &Subject, handed: &Statement) -> Result<(), Problem> {
    let peer = &subject.consumer;
    let invalid = |cause: &str| Problem::new(Code::Mismatch).with("peer", peer).cause(cause);
    let landing = statement.landing().ok_or_else(|| invalid("its statement is no landing"))?;
    if !about(statement, subject) {
        return Err(invalid("its statement is about another transfer"));
    }
    if *landing.provider_statement_sha256 != *handed.sha256() {
        return Err(invalid("its statement answers another handover"));
    }
    let came = handed.manifest().map_or(0, |manifest| manifest.counts.rows_sent);
    if landing.quality.as_ref().is_some_and(|quality| !quality.is_of(0..=came)) {
        return Err(invalid("the qualified rate that it states cannot be that of the rows that were handed over"));
    }
    Ok(())
}

fn cause(problem: &Problem) -> String {
    let mut cause = problem.said();
    cause.truncate(cause.floor_char_boundary(limits::REASON_BYTES_MAX));
    cause
}

/// This node as a signing party, movable into a store transaction.
struct Own {
    name: NodeId,
    signer: Arc<dyn Signer>,
    epoch: u64,
    now: Timestamp,
}

impl Own {
    fn of(ctx: &Context) -> Self {
        Self { name: ctx.name.clone(), signer: ctx.signer.clone(), epoch: ctx.epoch, now: ctx.world.clock.now() }
    }
    fn sign(
        &self,
        tx: &Transaction<'_>,
        subject: &Subject,
        body: impl FnOnce(Chain) -> Body,
    ) -> Result<Statement, Problem> {
        let hand = Hand { name: &self.name, signer: self.signer.as_ref(), epoch: self.epoch, now: self.now };
        let key = ChainKey { peer: subject.peer_of(&self.name), resource: &subject.resource, job: &subject.job };
        statements::sign(tx, &hand, key, body)
    }
}
