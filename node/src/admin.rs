//! What the command line asks a running node over `DATA_DIR/admin.sock`, and the shape of the answers.
//! Whoever may open the socket is the operator. Lists come as items; everything ends with `done` or a problem.

mod answer;
mod bundle;
mod dry_run;
mod evidence;
mod jobs;
mod line;
mod quarantine;
mod statistics;

pub use answer::Desk;
pub use statistics::{Figures, Named, Statistics};

use crate::context::Context;
use crate::spent::Spent;
use crate::store::quarantine::{ON_PUBLISHING, QuarantinedRow};
use crate::store::{Side, Transfer, statements};
use crate::transfer::Live;
use posthouse_platform::endpoint::Transport;
use posthouse_protocol::govern::{Governed, Quality};
use posthouse_protocol::id::{JobId, NodeId, ReceiptId, ResourceRef, TransferId};
use posthouse_protocol::job::{Mode, State, Write};
use posthouse_protocol::problem::Problem;
use posthouse_protocol::reconciliation::{Finding, Tally, Verdict};
use posthouse_protocol::statement::Statement;
use posthouse_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// One question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Done: [`Status`].
    Status,
    /// Items: [`JobRow`].
    JobList,
    /// Starts a run or attaches to the one under way. With `wait`: items [`Progress`], done [`Summary`]
    /// (of an observe job: [`Balance`]);
    /// without: done [`Started`]. `dry_run`: items are lines of text, nothing moves.
    JobRun {
        job: JobId,
        #[serde(default)]
        wait: bool,
        #[serde(default)]
        dry_run: bool,
    },
    JobPause {
        job: JobId,
    },
    JobResume {
        job: JobId,
    },
    JobRemove {
        job: JobId,
    },
    /// Items: [`Summary`], newest first; done: [`Listed`].
    TransferList {
        #[serde(default)]
        job: Option<JobId>,
        #[serde(default)]
        limit: Option<u32>,
    },
    /// Done: [`Shown`].
    TransferShow {
        transfer: TransferId,
    },
    /// Items: [`Progress`]; done: [`Summary`] once it has ended.
    TransferWatch {
        transfer: TransferId,
    },
    TransferCancel {
        transfer: TransferId,
    },
    /// Starts its job again. Done: [`Started`].
    TransferRetry {
        transfer: TransferId,
    },
    /// Items: [`Quarantined`], newest first.
    QuarantineList {
        #[serde(default)]
        job: Option<JobId>,
    },
    /// Items: [`QuarantineRow`].
    QuarantineShow {
        transfer: TransferId,
    },
    /// Runs its job from where the transfer had begun. Done: [`Started`].
    QuarantineResubmit {
        transfer: TransferId,
    },
    /// Items: [`ReceiptShown`], newest first.
    ReceiptList,
    /// By the id of a receipt or of its transfer. Done: [`ReceiptShown`].
    ReceiptShow {
        id: String,
    },
    /// Items: [`FilePart`]; done: `{"receipt":…,"transfer":…}`.
    ReceiptExport {
        id: String,
    },
    /// This node's own view of a day (`2026-11-22`; None = today), or a deep reconciliation of a job.
    /// Done: [`Balance`].
    Reconcile {
        #[serde(default)]
        day: Option<String>,
        #[serde(default)]
        deep: Option<JobId>,
    },
    /// A day (`2026-11-22`) or a month (`2026-11`); None = today. Done: [`Statistics`].
    Statistics {
        #[serde(default)]
        period: Option<String>,
    },
    /// Done: the Prometheus text.
    Metrics,
    /// How the line to a peer is, by which a job's resource comes to its consumer. Done: [`LineSeen`].
    LineProbe {
        job: JobId,
        consumer: NodeId,
        resource: ResourceRef,
    },
    /// What the whole node sends a second: a rate as in the configuration, `none` for no limit, `config` for what the
    /// configuration says. Holds until the next start.
    SetBandwidth {
        bandwidth: String,
    },
    /// Runs a job that pushes into parts in a folder. Done: [`Exported`].
    BundleExport {
        job: JobId,
        out: PathBuf,
        /// Bytes.
        part_size: u64,
    },
    /// Takes up what was carried here in a folder, and puts what is to be carried back into another. Items: [`Summary`]
    /// of each transfer that landed or was answered, [`NotTaken`] of what else is there; done: `{"transfers":…}`.
    BundleImport {
        folder: PathBuf,
        returns: PathBuf,
    },
    /// Asks the node to stop; answered at once.
    Drain,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub node: NodeId,
    pub version: String,
    pub epoch: u64,
    pub coordinator: NodeId,
    pub coordinator_connected: bool,
    pub coordinator_heard_at: Option<Timestamp>,
    pub coordinator_problem: Option<String>,
    /// (epoch, sequence)
    pub policy: (u64, u64),
    pub policy_stale: bool,
    /// PH code, where this node may do nothing.
    pub barred: Option<String>,
    pub certificate_expires_at: Timestamp,
    pub peers_connected: Vec<NodeId>,
    pub transfers_open: u64,
    pub outbox: u64,
    pub outbox_since: Option<Timestamp>,
    pub disk_free_bytes: u64,
    pub last_error: Option<String>,
    pub as_of: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRow {
    pub name: JobId,
    /// `take`, `push` or `accept`
    pub kind: String,
    pub peer: NodeId,
    pub resource: String,
    pub into: Option<String>,
    pub mode: Mode,
    pub write: Write,
    pub schedule: String,
    pub paused: bool,
    pub removed: bool,
    pub running: bool,
    pub next_at: Option<Timestamp>,
    pub last_transfer: Option<TransferId>,
    pub last_state: Option<State>,
    pub last_at: Option<Timestamp>,
}

/// How a list of transfers ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Listed {
    /// There are older ones, which are not in it.
    pub truncated: bool,
    /// How many it may have.
    pub limit: u32,
}

/// A line as it is now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LineSeen {
    pub peer: NodeId,
    pub transport: Transport,
    pub address: String,
    /// From a word of this node's to the peer's answer, the shortest of a few: what the line takes, and a moment of
    /// the peer's own.
    pub answer_ms: f64,
    /// What the transport itself estimates.
    pub rtt_ms: Option<f64>,
}

/// Parts that were made of a transfer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exported {
    pub transfer: TransferId,
    pub job: JobId,
    pub peer: NodeId,
    pub parts: u32,
    pub bytes: u64,
}

/// Something that was carried here, and why it was not taken up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotTaken {
    pub transfer: Option<TransferId>,
    pub problem: Problem,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    pub job: JobId,
    /// None for a push that the taker has not answered yet.
    pub transfer: Option<TransferId>,
    /// It was under way already.
    pub attached: bool,
}

/// Where a transfer stands this moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    pub transfer: TransferId,
    pub job: JobId,
    pub state: State,
    pub rows: u64,
    pub files: u64,
    pub bytes: u64,
    /// In scope as far as it is listed; 0 while unknown.
    pub bytes_total: u64,
    pub bytes_sent: u64,
    pub seconds: f64,
    /// Why it does not go on at the moment: it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

impl Progress {
    fn of(live: &Live, now: Timestamp) -> Self {
        Self {
            transfer: live.row.id.clone(),
            job: live.row.job.clone(),
            state: live.row.state,
            rows: live.rows,
            files: live.files,
            bytes: live.bytes,
            bytes_total: live.bytes_total,
            bytes_sent: live.row.bytes_sent,
            seconds: seconds(&live.row, now),
            problem: live.row.problem.clone().filter(|_| live.row.state != State::Moving),
        }
    }
}

/// The one object that `job run --wait` ends with, and each line of `transfer list`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub transfer: TransferId,
    pub job: JobId,
    pub state: State,
    pub rows: u64,
    pub files: u64,
    pub files_sent: u64,
    pub bytes: u64,
    pub bytes_sent: u64,
    pub chunks: u64,
    pub resent_chunks: u64,
    pub quarantined: u64,
    pub refused: u64,
    pub seconds: f64,
    pub transport: Option<Transport>,
    /// `pending` until the centre has spoken; none where there is nothing to balance.
    pub verdict: Option<Verdict>,
    pub receipt: Option<ReceiptId>,
    pub side: Side,
    pub peer: NodeId,
    pub resource: ResourceRef,
    pub mode: Mode,
    pub write: Write,
    pub started: Timestamp,
    pub ended: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub succeeds: Option<TransferId>,
    /// Why it is paused, refused or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

impl Summary {
    fn of(row: &Transfer, proven: bool, now: Timestamp) -> Self {
        let counts = &row.counts;
        let verdict = match row.state {
            State::Settled => Some(if proven { Verdict::Matched } else { Verdict::Pending }),
            state if state.is_final() => None,
            _ => Some(Verdict::Pending),
        };
        Self {
            transfer: row.id.clone(),
            job: row.job.clone(),
            state: row.state,
            rows: match row.side {
                Side::Consumer => counts.rows_landed.max(counts.rows_sent),
                Side::Provider => counts.rows_sent,
            },
            files: counts.files,
            files_sent: row.files_sent,
            bytes: counts.bytes,
            bytes_sent: row.bytes_sent,
            chunks: row.chunks,
            resent_chunks: row.resent_chunks,
            quarantined: row.quarantined(),
            refused: counts.refused,
            seconds: seconds(row, now),
            transport: row.transport,
            verdict,
            receipt: row.receipt.clone(),
            side: row.side,
            peer: row.peer.clone(),
            resource: row.resource.clone(),
            mode: row.mode,
            write: row.write,
            started: row.started.unwrap_or(row.created),
            ended: row.ended,
            succeeds: row.succeeds.clone(),
            // What held it up on the way is over.
            problem: row.problem.clone().filter(|_| row.state != State::Settled),
        }
    }
    /// What has moved so far of one that is under way.
    fn moving(mut self, live: &Live) -> Self {
        self.rows = self.rows.max(live.rows);
        self.files = self.files.max(live.files);
        self.bytes = self.bytes.max(live.bytes);
        self
    }
}

/// A transfer with everything that is kept of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shown {
    #[serde(flatten)]
    pub summary: Summary,
    pub counts: posthouse_protocol::manifest::Counts,
    pub watermark_from: Option<String>,
    pub watermark_to: Option<String>,
    pub statements: Vec<StatementRow>,
    /// The first of them.
    pub quarantine: Vec<QuarantineRow>,
    /// In scope, but not handed over: by name, with its reason.
    pub left_out: Vec<LeftOutRow>,
    #[serde(flatten)]
    pub rows_stated: RowsStated,
    /// Where its time went, as far as this side knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spent: Option<Spent>,
}

/// What the parties state of the values of a table's rows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowsStated {
    /// What the provider did to columns before it handed them over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub governed: Vec<Governed>,
    /// What the provider's rules found in the rows that it read, and the consumer's in those that came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_quality: Option<QualityStated>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer_quality: Option<QualityStated>,
}

/// 合格率.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QualityStated {
    #[serde(flatten)]
    pub found: Quality,
    /// `99.87%`, rounded down; none where no row was checked.
    pub rate: Option<String>,
}

impl RowsStated {
    /// From whatever is kept of the two statements of a transfer.
    fn of(statements: &[Statement]) -> Self {
        let stated = |quality: &Quality| QualityStated { found: quality.clone(), rate: quality.rate_text() };
        let manifest = statements.iter().find_map(Statement::manifest);
        let landing = statements.iter().find_map(Statement::landing);
        Self {
            governed: manifest.and_then(|manifest| manifest.governed.clone()).unwrap_or_default(),
            provider_quality: manifest.and_then(|manifest| manifest.quality.as_ref()).map(stated),
            consumer_quality: landing.and_then(|landing| landing.quality.as_ref()).map(stated),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOutRow {
    pub name: String,
    pub code: String,
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatementRow {
    pub sha256: String,
    pub kind: String,
    /// Made by this node, or by its peer.
    pub own: bool,
    pub at: Timestamp,
    pub proven: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineRow {
    pub key: String,
    pub reason: String,
    /// As the row was: a JSON object where it could be read.
    pub original: String,
    /// None: it was refused on publishing.
    pub split: Option<String>,
    pub at: Timestamp,
}

impl From<QuarantinedRow> for QuarantineRow {
    fn from(row: QuarantinedRow) -> Self {
        let QuarantinedRow { id: _, split, key, reason, original, at } = row;
        Self { key, reason, original, split: Some(split).filter(|split| split != ON_PUBLISHING), at }
    }
}

/// A transfer that has left rows in quarantine at this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    pub transfer: TransferId,
    pub job: JobId,
    /// `provider` or `consumer`: which of the two this node was.
    pub side: Side,
    pub peer: NodeId,
    pub resource: ResourceRef,
    pub rows: u64,
    pub at: Timestamp,
}

impl Quarantined {
    fn of(row: &Transfer) -> Self {
        Self {
            transfer: row.id.clone(),
            job: row.job.clone(),
            side: row.side,
            peer: row.peer.clone(),
            resource: row.resource.clone(),
            rows: 0,
            at: row.ended.unwrap_or(row.created),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReceiptShown {
    pub receipt: ReceiptId,
    pub transfer: TransferId,
    pub at: Timestamp,
    pub job: JobId,
    pub resource: ResourceRef,
    pub provider: NodeId,
    pub consumer: NodeId,
    pub verdict: Verdict,
    pub proven: bool,
    pub rows: u64,
    pub files: u64,
    pub bytes: u64,
    pub refused: u64,
    pub quarantined: u64,
    /// As this node's statement has them.
    #[serde(default)]
    pub counts: posthouse_protocol::manifest::Counts,
    /// Relays that it went through, in order from the consumer to the provider; where one receipt is shown.
    #[serde(default)]
    pub route: Vec<NodeId>,
    /// Where one receipt is shown.
    #[serde(flatten)]
    pub rows_stated: RowsStated,
}

/// A piece of one file of an export; pieces of one name follow each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePart {
    pub name: String,
    pub base64: String,
}

/// The balance as this node sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Balance {
    pub day: String,
    pub counts: Tally,
    pub findings: Vec<Finding>,
    pub as_of: Timestamp,
}

fn seconds(row: &Transfer, now: Timestamp) -> f64 {
    let ms = match (row.active_ms, row.started, row.ended) {
        (0, Some(started), ended) => ended.unwrap_or(now).since_ms(started).max(0),
        (active, ..) => i64::try_from(active).unwrap_or(i64::MAX),
    };
    ms as f64 / 1000.0
}

/// Whether the centre has proven the receipt of a transfer.
fn proven(db: &rusqlite::Connection, row: &Transfer) -> Result<bool, Problem> {
    match (&row.receipt, statements::bytes(db, &row.id, "consumer")?) {
        (Some(_), Some(bytes)) => Ok(statements::proof(db, &posthouse_protocol::codec::sha256(&bytes))?.is_some()),
        _ => Ok(false),
    }
}

/// The rows as they stand, those under way with their live counters.
async fn summaries(context: &Context, filter: crate::store::transfers::Filter) -> Result<Vec<Summary>, Problem> {
    let (live, now) = (context.transfers.list(), context.world.clock.now());
    context
        .store
        .read(move |db| {
            let rows = crate::store::transfers::list(db, &filter)?;
            rows.iter()
                .map(|row| {
                    let running = live.iter().find(|live| live.row.id == row.id).filter(|_| !row.state.is_final());
                    let summary = Summary::of(running.map_or(row, |live| &live.row), proven(db, row)?, now);
                    Ok(running.into_iter().fold(summary, Summary::moving))
                })
                .collect()
        })
        .await
}
