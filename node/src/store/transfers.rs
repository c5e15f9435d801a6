//! One row per transfer that this node has to do with, on either side.
//! A final state is never left again: an update of a final row changes nothing but its receipt.

use super::{failed, signed};
use posthouse_platform::endpoint::Transport;
use posthouse_protocol::id::{JobId, NodeId, ReceiptId, ResourceRef, TransferId};
use posthouse_protocol::job::{Mode, State, Write};
use posthouse_protocol::manifest::Counts;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::time::Timestamp;
use posthouse_protocol::watermark::Watermark;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

/// Which end of a transfer this node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    Provider,
    Consumer,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    pub id: TransferId,
    pub side: Side,
    /// The consumer's name of the job.
    pub job: JobId,
    pub peer: NodeId,
    pub resource: ResourceRef,
    pub mode: Mode,
    pub write: Write,
    pub state: State,
    pub pushed: bool,
    pub succeeds: Option<TransferId>,
    pub peer_epoch: u64,
    pub watermark_from: Option<Watermark>,
    pub watermark_to: Option<Watermark>,
    /// This side's own.
    pub counts: Counts,
    pub files_sent: u64,
    pub bytes_sent: u64,
    pub chunks: u64,
    pub resent_chunks: u64,
    pub transport: Option<Transport>,
    /// Why it is paused, refused or failed.
    pub problem: Option<Problem>,
    pub created: Timestamp,
    pub started: Option<Timestamp>,
    pub ended: Option<Timestamp>,
    /// Time under way, summed over all attempts.
    pub active_ms: u64,
    pub receipt: Option<ReceiptId>,
}

impl Transfer {
    /// Rows that could not move, on either side: the provider's are those it read and neither sent nor filtered.
    pub fn quarantined(&self) -> u64 {
        let Counts { rows_read, rows_sent, rows_filtered, rows_quarantined, .. } = self.counts;
        let provider = rows_read.saturating_sub(rows_sent).saturating_sub(rows_filtered);
        match self.side {
            Side::Provider => provider.max(rows_quarantined),
            Side::Consumer => provider.saturating_add(rows_quarantined),
        }
    }

    /// A transfer that has not begun.
    #[expect(clippy::too_many_arguments, reason = "each is a fact that a transfer cannot be without")]
    pub fn planned(
        id: TransferId,
        side: Side,
        job: JobId,
        peer: NodeId,
        resource: ResourceRef,
        mode: Mode,
        write: Write,
        created: Timestamp,
    ) -> Self {
        Self {
            id,
            side,
            job,
            peer,
            resource,
            mode,
            write,
            state: State::Planned,
            pushed: false,
            succeeds: None,
            peer_epoch: 0,
            watermark_from: None,
            watermark_to: None,
            counts: Counts::default(),
            files_sent: 0,
            bytes_sent: 0,
            chunks: 0,
            resent_chunks: 0,
            transport: None,
            problem: None,
            created,
            started: None,
            ended: None,
            active_ms: 0,
            receipt: None,
        }
    }

    pub fn consumer<'a>(&'a self, this: &'a NodeId) -> &'a NodeId {
        match self.side {
            Side::Consumer => this,
            Side::Provider => &self.peer,
        }
    }
}

/// Records a new transfer; an id that exists already is refused.
pub fn plan(tx: &Transaction<'_>, transfer: &Transfer) -> Result<(), Problem> {
    write(
        tx,
        transfer,
        "INSERT INTO transfers VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26)",
    )?;
    Ok(())
}

/// Records what has changed. False where the row is final already; then it is left as it is.
pub fn update(tx: &Transaction<'_>, transfer: &Transfer) -> Result<bool, Problem> {
    let changed = write(
        tx,
        transfer,
        "UPDATE transfers SET side = ?2, job = ?3, peer = ?4, provider = ?5, resource = ?6, mode = ?7, write = ?8, state = ?9,
         pushed = ?10, succeeds = ?11, peer_epoch = ?12, watermark_from = ?13, watermark_to = ?14, counts = ?15, files_sent = ?16,
         bytes_sent = ?17, chunks = ?18, resent_chunks = ?19, transport = ?20, problem = ?21, created = ?22, started = ?23,
         ended = ?24, active_ms = ?25, receipt = ?26
         WHERE id = ?1 AND state NOT IN ('settled', 'refused', 'failed', 'cancelled')",
    )?;
    Ok(changed > 0)
}

/// Both statements are here, whatever this side had stated before.
pub fn set_receipt(tx: &Transaction<'_>, id: &TransferId, receipt: &ReceiptId) -> Result<(), Problem> {
    tx.execute("UPDATE transfers SET receipt = ?2 WHERE id = ?1", params![id.as_str(), receipt.as_str()])
        .map_err(failed)?;
    Ok(())
}

pub fn get(db: &Connection, id: &TransferId) -> Result<Option<Transfer>, Problem> {
    db.query_row("SELECT * FROM transfers WHERE id = ?1", [id.as_str()], |row| Ok(read(row)))
        .optional()
        .map_err(failed)?
        .transpose()
}

/// Newest first.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub job: Option<JobId>,
    pub side: Option<Side>,
    /// Only those that have not ended.
    pub open: bool,
    /// Created in this half-open range.
    pub from: Option<Timestamp>,
    pub to: Option<Timestamp>,
    pub limit: Option<u32>,
}

pub fn list(db: &Connection, filter: &Filter) -> Result<Vec<Transfer>, Problem> {
    let mut statement = db
        .prepare_cached(
            "SELECT * FROM transfers WHERE (?1 IS NULL OR job = ?1) AND (?2 IS NULL OR side = ?2)
             AND (NOT ?3 OR state NOT IN ('settled', 'refused', 'failed', 'cancelled'))
             AND created >= ?4 AND created < ?5 ORDER BY created DESC, id DESC LIMIT ?6",
        )
        .map_err(failed)?;
    let values = params![
        filter.job.as_ref().map(JobId::as_str),
        filter.side.map(side_text),
        filter.open,
        filter.from.map_or(i64::MIN, |t| t.0),
        filter.to.map_or(i64::MAX, |t| t.0),
        filter.limit.map_or(-1, i64::from),
    ];
    let rows = statement.query_map(values, |row| Ok(read(row))).map_err(failed)?;
    rows.map(|row| row.map_err(failed)?).collect()
}

/// The transfer of this job that has not ended, if any; the newest where there were several.
pub fn open_of_job(db: &Connection, side: Side, job: &JobId) -> Result<Option<Transfer>, Problem> {
    let filter = Filter { job: Some(job.clone()), side: Some(side), open: true, limit: Some(1), ..Filter::default() };
    Ok(list(db, &filter)?.pop())
}

/// Those that ended after `since`, newest first.
pub fn ended_since(db: &Connection, since: Timestamp, limit: u32) -> Result<Vec<Transfer>, Problem> {
    let mut statement =
        db.prepare_cached("SELECT * FROM transfers WHERE ended > ?1 ORDER BY ended DESC LIMIT ?2").map_err(failed)?;
    let rows = statement.query_map(params![since.0, limit], |row| Ok(read(row))).map_err(failed)?;
    rows.map(|row| row.map_err(failed)?).collect()
}

fn write(tx: &Transaction<'_>, t: &Transfer, statement: &str) -> Result<usize, Problem> {
    let json = |watermark: &Option<Watermark>| watermark.as_ref().map(text).transpose();
    tx.prepare_cached(statement)
        .map_err(failed)?
        .execute(params![
            t.id.as_str(),
            side_text(t.side),
            t.job.as_str(),
            t.peer.as_str(),
            t.resource.node.as_str(),
            t.resource.resource.as_str(),
            t.mode.to_string(),
            t.write.to_string(),
            t.state.to_string(),
            t.pushed,
            t.succeeds.as_ref().map(TransferId::as_str),
            signed(t.peer_epoch),
            json(&t.watermark_from)?,
            json(&t.watermark_to)?,
            text(&t.counts)?,
            signed(t.files_sent),
            signed(t.bytes_sent),
            signed(t.chunks),
            signed(t.resent_chunks),
            t.transport.map(Transport::as_str),
            t.problem.as_ref().map(text).transpose()?,
            t.created.0,
            t.started.map(|at| at.0),
            t.ended.map(|at| at.0),
            signed(t.active_ms),
            t.receipt.as_ref().map(ReceiptId::as_str),
        ])
        .map_err(failed)
}

fn read(row: &Row<'_>) -> Result<Transfer, Problem> {
    let provider: String = row.get("provider").map_err(failed)?;
    let resource: String = row.get("resource").map_err(failed)?;
    Ok(Transfer {
        id: parsed(row, "id")?,
        side: match column::<String>(row, "side")?.as_str() {
            "provider" => Side::Provider,
            "consumer" => Side::Consumer,
            other => return Err(strange("side", &other)),
        },
        job: parsed(row, "job")?,
        peer: parsed(row, "peer")?,
        resource: ResourceRef {
            node: provider.parse().map_err(|e| strange("provider", &e))?,
            resource: resource.parse().map_err(|e| strange("resource", &e))?,
        },
        mode: word(row, "mode")?,
        write: word(row, "write")?,
        state: word(row, "state")?,
        pushed: column(row, "pushed")?,
        succeeds: optional(row, "succeeds")?,
        peer_epoch: count(row, "peer_epoch")?,
        watermark_from: json(row, "watermark_from")?,
        watermark_to: json(row, "watermark_to")?,
        counts: json(row, "counts")?.unwrap_or_default(),
        files_sent: count(row, "files_sent")?,
        bytes_sent: count(row, "bytes_sent")?,
        chunks: count(row, "chunks")?,
        resent_chunks: count(row, "resent_chunks")?,
        transport: column::<Option<String>>(row, "transport")?.map(|text| {
            [Transport::Tcp, Transport::Ferry].into_iter().find(|one| one.as_str() == text).unwrap_or(Transport::Quic)
        }),
        problem: json(row, "problem")?,
        created: Timestamp(column(row, "created")?),
        started: column::<Option<i64>>(row, "started")?.map(Timestamp),
        ended: column::<Option<i64>>(row, "ended")?.map(Timestamp),
        active_ms: count(row, "active_ms")?,
        receipt: optional(row, "receipt")?,
    })
}

fn column<T: rusqlite::types::FromSql>(row: &Row<'_>, name: &str) -> Result<T, Problem> {
    row.get(name).map_err(failed)
}
fn count(row: &Row<'_>, name: &str) -> Result<u64, Problem> {
    let value: i64 = column(row, name)?;
    u64::try_from(value).map_err(|e| strange(name, &e))
}
fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(row: &Row<'_>, name: &str) -> Result<T, Problem> {
    column::<String>(row, name)?.parse().map_err(|e: T::Err| strange(name, &e))
}
fn optional<T: std::str::FromStr<Err: std::fmt::Display>>(row: &Row<'_>, name: &str) -> Result<Option<T>, Problem> {
    column::<Option<String>>(row, name)?.map(|text| text.parse().map_err(|e: T::Err| strange(name, &e))).transpose()
}
fn word<T: std::str::FromStr<Err = ()>>(row: &Row<'_>, name: &str) -> Result<T, Problem> {
    let text: String = column(row, name)?;
    text.parse().map_err(|()| strange(name, &text))
}
fn json<T: serde::de::DeserializeOwned>(row: &Row<'_>, name: &str) -> Result<Option<T>, Problem> {
    let text: Option<String> = column(row, name)?;
    text.map(|text| serde_json::from_str(&text).map_err(|e| strange(name, &e))).transpose()
}
fn text(value: &impl serde::Serialize) -> Result<String, Problem> {
    serde_json::to_string(value).map_err(|e| Problem::new(Code::InsideFailed).cause(e))
}
fn strange(column: &str, what: &dyn std::fmt::Display) -> Problem {
    Problem::new(Code::StoreDamaged).with("path", super::STORE_FILE).cause(format!("column {column}: {what}"))
}
pub(super) fn side_text(side: Side) -> &'static str {
    match side {
        Side::Provider => "provider",
        Side::Consumer => "consumer",
    }
}
