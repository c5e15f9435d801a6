//! Transfers as projected from statements and reports, and alarms.

use super::super::records::{Page, StatementKeys, Taken, Window};
use super::{Failure, ledger, membership, policy, signed};
use crate::alarm::Alarm;
use crate::ledger::Leaf;
use crate::policy::coverage;
use crate::reconcile::TransferRow;
use posthouse_protocol::centre::Progress;
use posthouse_protocol::id::{NodeId, ReceiptId, TransferId};
use posthouse_protocol::reconciliation::Verdict;
use posthouse_protocol::statement::{Body, Statement};
use posthouse_protocol::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction};

/// Takes over what a leaf that was just appended says.
pub(super) fn apply(t: &Transaction<'_>, leaf: &Leaf, index: u64, at: Timestamp) -> Result<(), Failure> {
    let Some(transfer) = leaf.transfer() else { return Ok(()) };
    let Some(mut row) = TransferRow::stated(one(t, transfer)?, leaf.statement(), index, at) else { return Ok(()) };
    let body = leaf.statement().body();
    if let Body::Provider(_, manifest) = body
        && row.is_between(body)
    {
        let grant = policy::grant(t, &manifest.grant)?;
        row.ungranted = row.ungranted.or(coverage(grant.as_ref(), manifest).err());
    }
    let (mut statements, mut leaves) = (Vec::new(), Vec::new());
    for leaf in ledger::leaves_of(t, transfer)? {
        statements.push((reopen(t, &leaf.bytes)?, leaf.taken_at));
        leaves.push(leaf.index);
    }
    row.show_passages(statements.iter().map(|(statement, _)| statement).zip(leaves));
    row.settle_verdict(&statements, at);
    put(t, &row)
}

pub(super) fn report(t: &Transaction<'_>, node: &NodeId, progress: &Progress, at: Timestamp) -> Result<(), Failure> {
    // A node reports its own transfers only.
    if *node != progress.consumer && *node != progress.resource.node {
        return Ok(());
    }
    let row = one(t, &progress.transfer)?;
    if row.as_ref().is_some_and(|row| row.consumer != *node && row.provider != *node) {
        return Ok(());
    }
    put(t, &TransferRow::reported(row, node, progress, at))
}

pub(super) fn one(c: &Connection, id: &TransferId) -> Result<Option<TransferRow>, Failure> {
    let mut statement = c.prepare_cached("SELECT data FROM transfers WHERE transfer = ?1")?;
    Ok(collect(statement.query([id.as_str()])?)?.pop())
}

pub(super) fn of_receipt(c: &Connection, id: &ReceiptId) -> Result<Option<TransferRow>, Failure> {
    let mut statement = c.prepare_cached("SELECT data FROM transfers WHERE receipt = ?1")?;
    Ok(collect(statement.query([id.as_str()])?)?.pop())
}

pub(super) fn list(c: &Connection, window: Window, page: &Page) -> Result<Vec<TransferRow>, Failure> {
    let (at, transfer) = after(page);
    let mut statement = c.prepare_cached(
        "SELECT data FROM transfers WHERE at >= ?1 AND at < ?2 AND (at, transfer) < (?3, ?4)
         ORDER BY at DESC, transfer DESC LIMIT ?5",
    )?;
    collect(statement.query((window.from.0, window.until.0, at, transfer, signed(page.limit)))?)
}

pub(super) fn count(c: &Connection, window: Window) -> Result<u64, Failure> {
    let count = c.query_row(
        "SELECT count(*) FROM transfers WHERE at >= ?1 AND at < ?2",
        (window.from.0, window.until.0),
        |r| r.get(0),
    )?;
    super::unsigned(count)
}

pub(super) fn tally(c: &Connection, window: Window) -> Result<Vec<(Verdict, u64)>, Failure> {
    let mut statement = c.prepare_cached(
        "SELECT verdict, count(*) FROM transfers WHERE verdict = ?1 AND at >= ?2 AND at < ?3 GROUP BY verdict",
    )?;
    let mut out = Vec::new();
    for verdict in Verdict::ALL {
        let count = statement
            .query_row((verdict.as_str(), window.from.0, window.until.0), |r| r.get::<_, i64>(1))
            .optional()?;
        out.push((verdict, super::unsigned(count.unwrap_or(0))?));
    }
    Ok(out)
}

pub(super) fn of_verdict(
    c: &Connection,
    verdict: Verdict,
    window: Window,
    page: &Page,
) -> Result<Vec<TransferRow>, Failure> {
    let (at, transfer) = after(page);
    let mut statement = c.prepare_cached(
        "SELECT data FROM transfers WHERE verdict = ?6 AND at >= ?1 AND at < ?2 AND (at, transfer) < (?3, ?4)
         ORDER BY at DESC, transfer DESC LIMIT ?5",
    )?;
    let parameters = (window.from.0, window.until.0, at, transfer, signed(page.limit), verdict.as_str());
    collect(statement.query(parameters)?)
}

pub(super) fn open(c: &Connection, window: Window, page: &Page) -> Result<Vec<TransferRow>, Failure> {
    let (at, transfer) = after(page);
    let mut statement = c.prepare_cached(
        "SELECT data FROM transfers WHERE verdict IS NULL AND at >= ?1 AND at < ?2 AND (at, transfer) < (?3, ?4)
         ORDER BY at DESC, transfer DESC LIMIT ?5",
    )?;
    collect(statement.query((window.from.0, window.until.0, at, transfer, signed(page.limit)))?)
}

pub(super) fn strayed(c: &Connection, window: Window, page: &Page) -> Result<Vec<TransferRow>, Failure> {
    let (at, transfer) = after(page);
    let mut statement = c.prepare_cached(
        "SELECT data FROM transfers WHERE strays > 0 AND at >= ?1 AND at < ?2 AND (at, transfer) < (?3, ?4)
         ORDER BY at DESC, transfer DESC LIMIT ?5",
    )?;
    collect(statement.query((window.from.0, window.until.0, at, transfer, signed(page.limit)))?)
}

pub(super) fn receipts(c: &Connection, window: Window, page: &Page) -> Result<Vec<TransferRow>, Failure> {
    let (at, transfer) = after(page);
    let mut statement = c.prepare_cached(
        "SELECT data FROM transfers WHERE receipt IS NOT NULL AND receipt_at >= ?1 AND receipt_at < ?2
             AND (receipt_at, transfer) < (?3, ?4)
         ORDER BY receipt_at DESC, transfer DESC LIMIT ?5",
    )?;
    collect(statement.query((window.from.0, window.until.0, at, transfer, signed(page.limit)))?)
}

pub(super) fn raise(
    t: &Transaction<'_>,
    kind: &str,
    subject: &str,
    cause: &str,
    at: Timestamp,
    once: bool,
) -> Result<(), Failure> {
    t.execute(
        "INSERT INTO alarms (kind, subject, cause, first_at, last_at, times) VALUES (?1, ?2, ?3, ?4, ?4, 1)
         ON CONFLICT (kind, subject) DO UPDATE SET cause = excluded.cause, last_at = excluded.last_at,
             first_at = CASE WHEN cleared_at IS NULL THEN first_at ELSE excluded.first_at END,
             times = CASE WHEN cleared_at IS NULL THEN times + 1 ELSE 1 END, cleared_at = NULL
         WHERE ?5 = 0 OR cleared_at IS NOT NULL",
        (kind, subject, cause, at.0, i64::from(once)),
    )?;
    Ok(())
}

pub(super) fn clear(t: &Transaction<'_>, kind: &str, subject: &str, at: Timestamp) -> Result<(), Failure> {
    t.execute(
        "UPDATE alarms SET cleared_at = ?3 WHERE kind = ?1 AND subject = ?2 AND cleared_at IS NULL",
        (kind, subject, at.0),
    )?;
    Ok(())
}

pub(super) fn alarms(c: &Connection, open_only: bool) -> Result<Vec<Alarm>, Failure> {
    let mut statement = c.prepare_cached(
        "SELECT kind, subject, cause, first_at, last_at, times, cleared_at FROM alarms
         WHERE ?1 = 0 OR cleared_at IS NULL ORDER BY last_at DESC, kind, subject",
    )?;
    let mut rows = statement.query([i64::from(open_only)])?;
    let mut out = Vec::new();
    while let Some(row) = rows.next()? {
        out.push(Alarm {
            kind: row.get(0)?,
            subject: row.get(1)?,
            cause: row.get(2)?,
            first_at: Timestamp(row.get(3)?),
            last_at: Timestamp(row.get(4)?),
            times: super::unsigned(row.get(5)?)?,
            cleared_at: row.get::<_, Option<i64>>(6)?.map(Timestamp),
        });
    }
    Ok(out)
}

fn put(t: &Transaction<'_>, row: &TransferRow) -> Result<(), Failure> {
    let data = serde_json::to_string(row).map_err(Failure::damaged)?;
    t.prepare_cached(
        "INSERT INTO transfers (transfer, at, provider, consumer, state, verdict, receipt, receipt_at, data, strays)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
         ON CONFLICT (transfer) DO UPDATE SET at = excluded.at, state = excluded.state, verdict = excluded.verdict,
             receipt = excluded.receipt, receipt_at = excluded.receipt_at, data = excluded.data,
             strays = excluded.strays",
    )?
    .execute((
        row.transfer.as_str(),
        row.at.0,
        row.provider.as_str(),
        row.consumer.as_str(),
        row.state.to_string(),
        row.verdict.map(|v| v.as_str()).or(row.ended_by_both.then_some("ended")),
        row.receipt_at.and(row.receipt.as_ref()).map(ReceiptId::as_str),
        row.receipt_at.map(|at| at.0),
        data,
        signed(row.strays.len() as u64),
    ))?;
    Ok(())
}

/// A statement of the ledger, verified again on reading it back.
fn reopen(t: &Transaction<'_>, bytes: &[u8]) -> Result<Statement, Failure> {
    let issuer = Statement::peek_issuer(bytes).map_err(Failure::damaged)?;
    let keys = StatementKeys { keys: membership::statement_keys(t, &issuer)?, node: issuer };
    Statement::open(bytes, &Taken(&keys)).map_err(Failure::damaged)
}

fn after(page: &Page) -> (i64, &str) {
    page.after.as_ref().map_or((i64::MAX, "~"), |(at, transfer)| (at.0, transfer.as_str()))
}

fn collect(mut rows: rusqlite::Rows<'_>) -> Result<Vec<TransferRow>, Failure> {
    let mut out = Vec::new();
    while let Some(row) = rows.next()? {
        let data: String = row.get(0)?;
        out.push(serde_json::from_str(&data).map_err(Failure::damaged)?);
    }
    Ok(out)
}
