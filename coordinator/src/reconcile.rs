//! 三方对账: what the statements of a transfer say together, and the balance of a day.
//! A [`TransferRow`] is a projection of statements and reports, made in the transaction that takes them;
//! statements always win over reports. Verdicts that depend on time (pending, overdue, one-sided) are
//! made when somebody asks. What two statements say about each other is `protocol::reconciliation`.

mod balance;
pub(crate) mod statistics;
mod verdict;

pub(crate) use balance::{Day, balance};
pub(crate) use verdict::reopen;

use posthouse_protocol::centre::Progress;
use posthouse_protocol::id::{GrantId, JobId, NodeId, ReceiptId, ResourceRef, TransferId};
use posthouse_protocol::job::{Mode, State};
use posthouse_protocol::manifest::Manifest;
use posthouse_protocol::reconciliation::{Difference, Finding, Party, Verdict};
use posthouse_protocol::statement::{Body, Ending, Landing, Outcome, Statement};
use posthouse_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};

/// One transfer as the centre knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TransferRow {
    #[schema(value_type = String)]
    pub transfer: TransferId,
    #[schema(value_type = String)]
    pub job: JobId,
    #[schema(value_type = String)]
    pub resource: ResourceRef,
    #[schema(value_type = String)]
    pub provider: NodeId,
    #[schema(value_type = String)]
    pub consumer: NodeId,
    pub provider_department: Option<String>,
    pub consumer_department: Option<String>,
    #[schema(value_type = Option<String>)]
    pub mode: Option<Mode>,
    #[schema(value_type = String)]
    pub state: State,
    pub outcome: Option<String>,
    /// When it belongs to: sealed, else committed or ended, else started.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended_at: Option<Timestamp>,
    pub rows: u64,
    pub files: u64,
    pub bytes: u64,
    pub bytes_total: u64,
    pub quarantined: u64,
    pub refused: u64,
    pub transport: Option<String>,
    /// Code and cause of a transfer that did not settle.
    pub code: Option<String>,
    pub cause: Option<String>,
    #[schema(value_type = Option<String>)]
    pub grant: Option<GrantId>,
    #[schema(value_type = Option<String>)]
    pub succeeds: Option<TransferId>,
    #[schema(value_type = Option<String>)]
    pub receipt: Option<ReceiptId>,
    /// When the centre had both statements: only then is it a receipt.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub receipt_at: Option<Timestamp>,
    /// Leaves of the ledger that speak of it.
    pub provider_leaf: Option<u64>,
    pub consumer_leaf: Option<u64>,
    pub ending_leaves: Vec<u64>,
    /// Further statements of a party that said something else before.
    pub contradicting_leaves: Vec<u64>,
    /// The last word the centre has of it; all values were true then.
    #[schema(value_type = String, format = DateTime)]
    pub as_of: Timestamp,
    /// What does not change any more; None while it depends on time.
    #[schema(value_type = Option<String>)]
    pub verdict: Option<Verdict>,
    /// What is wrong, and whose, where the verdict says that something is.
    #[schema(value_type = Vec<Object>)]
    pub findings: Vec<Finding>,
    /// Whoever named other parties for it, each once and with what was named. None of it is in the verdict.
    #[serde(default)]
    #[schema(value_type = Vec<Object>)]
    pub strays: Vec<Finding>,
    /// Both parties say that it ended without a landing: nothing to balance.
    pub ended_by_both: bool,
    /// Why its grant does not cover what was handed over.
    pub ungranted: Option<String>,
    /// Relays that it went through, in order from the consumer to the provider, as the manifest has it.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub route: Vec<NodeId>,
    /// What these relays say.
    #[serde(default)]
    pub passages: Vec<PassageRow>,
    /// Rows that the provider's rules looked at, as it states; none where it has none.
    #[serde(default)]
    pub rows_checked: Option<u64>,
    /// Of them: passed every rule.
    #[serde(default)]
    pub rows_qualified: Option<u64>,
}

/// What a relay has stated to have passed on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PassageRow {
    #[schema(value_type = String)]
    pub relay: NodeId,
    /// Bytes as the parties encrypted them.
    pub to_consumer: u64,
    pub to_provider: u64,
    #[schema(value_type = String, format = DateTime)]
    pub began: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub ended: Timestamp,
    /// Its leaf of the ledger.
    pub leaf: u64,
}

impl TransferRow {
    /// What one node reports of a transfer; statements are not touched.
    pub(crate) fn reported(row: Option<Self>, node: &NodeId, progress: &Progress, at: Timestamp) -> Self {
        let mut row = row.unwrap_or_else(|| Self::begin(Naming::of_progress(progress), progress.started, at));
        let stated = row.provider_leaf.is_some() || row.consumer_leaf.is_some() || !row.ending_leaves.is_empty();
        row.mode = row.mode.or(Some(progress.mode));
        row.started_at = Some(row.started_at.map_or(progress.started, |known| known.min(progress.started)));
        // The consumer knows what has arrived; the provider's view counts until it has spoken.
        let knows_better = *node == row.consumer || row.rows + row.bytes + row.files == 0;
        if !stated && knows_better {
            (row.rows, row.files, row.bytes) = (progress.rows, progress.files, progress.bytes);
            row.bytes_total = progress.bytes_total;
        }
        if !row.state.is_final() && (*node == row.consumer || progress.state.is_final() || row.state == State::Planned)
        {
            row.state = progress.state;
            if progress.state.is_final() {
                row.ended_at = row.ended_at.or(Some(at));
            }
        }
        if progress.code.is_some() && row.ending_leaves.is_empty() {
            row.code = progress.code.map(code_text);
            row.cause = progress.cause.clone();
        }
        row.as_of = row.as_of.max(at);
        row
    }

    /// What a statement that was just appended at `leaf` says of its transfer. None = it speaks of none.
    pub(crate) fn stated(row: Option<Self>, statement: &Statement, leaf: u64, at: Timestamp) -> Option<Self> {
        if matches!(statement.body(), Body::Passage(..)) {
            // It stands beside what the two say, and names no parties.
            return row;
        }
        let issued = statement.issued();
        let naming = Naming::of_body(statement.body())?;
        let mut row = row.unwrap_or_else(|| Self::begin(naming, issued, at));
        row.as_of = row.as_of.max(at);
        if !row.is_between(statement.body()) {
            row.strays.extend(row.strayed(statement, at));
            return Some(row);
        }
        match statement.body() {
            Body::Provider(_, manifest) if row.provider_leaf.is_none() => row.handed_over(manifest, leaf),
            Body::Consumer(_, landing) if row.consumer_leaf.is_none() => row.landed(landing, statement, leaf),
            Body::Provider(..) | Body::Consumer(..) => row.contradicting_leaves.push(leaf),
            Body::Refusal(_, ending) => row.ended(ending, State::Refused, leaf),
            Body::Failure(_, ending) => row.ended(ending, State::Failed, leaf),
            Body::Reconciliation(..) | Body::Act(..) | Body::Passage(..) => return None,
        }
        if row.provider_leaf.is_some() && row.consumer_leaf.is_some() {
            row.state = State::Settled;
            row.receipt_at = row.receipt_at.or(Some(at));
        }
        Some(row)
    }

    /// What the relays of its way have said of it, out of all that the ledger has of it.
    pub(crate) fn show_passages<'s>(&mut self, statements: impl Iterator<Item = (&'s Statement, u64)>) {
        let shown = statements.filter_map(|(statement, leaf)| match statement.body() {
            Body::Passage(_, passage) if self.is_between(statement.body()) && self.route.contains(&passage.relay) => {
                Some(PassageRow {
                    relay: passage.relay.clone(),
                    to_consumer: passage.to_consumer,
                    to_provider: passage.to_provider,
                    began: passage.began,
                    ended: passage.ended,
                    leaf,
                })
            }
            _ => None,
        });
        self.passages = shown.take(PASSAGES_MAX).collect();
    }

    /// Whether a body speaks of a transfer between this one's parties. Whoever spoke of it first named them: an id
    /// is drawn at random, and before that nobody but the two knows it.
    pub(crate) fn is_between(&self, body: &Body) -> bool {
        body.parties() == Some((&self.provider, &self.consumer))
    }

    /// What is wrong with a statement that names other parties; None where the same was told before.
    fn strayed(&self, statement: &Statement, at: Timestamp) -> Option<Finding> {
        let Naming { transfer, job, resource, consumer } = Naming::of_body(statement.body())?;
        let provider = resource.node.clone();
        let party = if *statement.issuer() == provider { Party::Provider } else { Party::Consumer };
        let same = |told: &Finding| (told.party, &told.provider, &told.consumer) == (party, &provider, &consumer);
        if self.strays.len() >= STRAYS_MAX || self.strays.iter().any(same) {
            return None;
        }
        // What it names stands on the side that its issuer claims to be, the transfer's own party on the other.
        let named = [("provider", &provider, &self.provider), ("consumer", &consumer, &self.consumer)];
        let differences = named.into_iter().filter(|(_, theirs, own)| theirs != own).map(|(what, theirs, own)| {
            let (provider, consumer) = if party == Party::Provider { (theirs, own) } else { (own, theirs) };
            Difference { what: what.to_owned(), provider: provider.to_string(), consumer: consumer.to_string() }
        });
        let differences = differences.collect();
        Some(Finding {
            verdict: Verdict::Mismatched,
            transfer: Some(transfer),
            job,
            resource,
            provider,
            consumer,
            party,
            differences,
            keys: Vec::new(),
            since: at,
        })
    }

    fn begin(naming: Naming, started: Timestamp, at: Timestamp) -> Self {
        Self {
            transfer: naming.transfer,
            job: naming.job,
            provider: naming.resource.node.clone(),
            resource: naming.resource,
            consumer: naming.consumer,
            provider_department: None,
            consumer_department: None,
            mode: None,
            state: State::Planned,
            outcome: None,
            at: started,
            started_at: None,
            ended_at: None,
            rows: 0,
            files: 0,
            bytes: 0,
            bytes_total: 0,
            quarantined: 0,
            refused: 0,
            transport: None,
            code: None,
            cause: None,
            grant: None,
            succeeds: None,
            receipt: None,
            receipt_at: None,
            provider_leaf: None,
            consumer_leaf: None,
            ending_leaves: Vec::new(),
            contradicting_leaves: Vec::new(),
            as_of: at,
            verdict: None,
            findings: Vec::new(),
            strays: Vec::new(),
            ended_by_both: false,
            ungranted: None,
            route: Vec::new(),
            passages: Vec::new(),
            rows_checked: None,
            rows_qualified: None,
        }
    }

    fn handed_over(&mut self, manifest: &Manifest, leaf: u64) {
        self.provider_leaf = Some(leaf);
        self.at = manifest.sealed;
        self.mode = Some(manifest.mode);
        self.started_at = Some(manifest.started);
        self.provider_department = manifest.provider_department.clone();
        self.grant = Some(manifest.grant.clone());
        self.succeeds = manifest.succeeds.clone();
        self.route = manifest.route.clone();
        self.rows_checked = manifest.quality.as_ref().map(|quality| quality.rows);
        self.rows_qualified = manifest.quality.as_ref().map(|quality| quality.qualified);
        self.bytes_total = manifest.counts.bytes;
        if self.consumer_leaf.is_none() {
            self.rows = manifest.counts.rows_sent;
            self.files = manifest.counts.files;
            self.bytes = manifest.counts.bytes;
            self.refused = manifest.counts.refused;
        }
        self.quarantined = self.quarantined.saturating_add(manifest.counts.rows_quarantined);
        if self.consumer_leaf.is_none() && !self.state.is_final() {
            self.state = State::Moving;
        }
    }

    fn landed(&mut self, landing: &Landing, statement: &Statement, leaf: u64) {
        self.consumer_leaf = Some(leaf);
        self.consumer_department = landing.consumer_department.clone();
        self.transport = Some(landing.transport.clone());
        self.outcome = Some(match landing.outcome {
            Outcome::Landed => "landed".to_owned(),
            Outcome::Partly => "partly".to_owned(),
        });
        self.rows = landing.counts.rows_landed;
        self.files = landing.counts.files;
        self.bytes = landing.counts.bytes;
        self.refused = self.refused.max(landing.counts.refused);
        self.quarantined = self.quarantined.saturating_add(landing.counts.rows_quarantined);
        self.ended_at = Some(landing.committed);
        self.receipt = Some(ReceiptId::from_statement(statement.sha256()));
        if self.provider_leaf.is_none() {
            self.at = landing.committed;
            self.state = State::Committed;
        }
    }

    fn ended(&mut self, ending: &Ending, state: State, leaf: u64) {
        self.ending_leaves.push(leaf);
        if self.consumer_leaf.is_some() {
            return;
        }
        self.ended_at = Some(ending.ended);
        if self.provider_leaf.is_none() {
            self.at = ending.ended;
        }
        // A withdrawn or missing grant is the provider's word; the consumer's echo does not change it.
        if self.state != State::Refused {
            self.state = state;
            self.code = Some(code_text(ending.code));
            self.cause = Some(ending.cause.clone());
        }
    }
}

fn code_text(code: u16) -> String {
    format!("PH{code:04}")
}

/// What every statement and report of a transfer names.
struct Naming {
    transfer: TransferId,
    job: JobId,
    resource: ResourceRef,
    consumer: NodeId,
}

impl Naming {
    fn of_progress(progress: &Progress) -> Self {
        Self {
            transfer: progress.transfer.clone(),
            job: progress.job.clone(),
            resource: progress.resource.clone(),
            consumer: progress.consumer.clone(),
        }
    }
    fn of_body(body: &Body) -> Option<Self> {
        Some(Self {
            transfer: body.transfer()?.clone(),
            job: body.job()?.clone(),
            resource: body.resource()?.clone(),
            consumer: body.parties()?.1.clone(),
        })
    }
}

/// Passages of one transfer that are told; the ledger has all of them.
const PASSAGES_MAX: usize = 64;
/// Strays of one transfer that are told; the ledger has all of them.
const STRAYS_MAX: usize = 16;
