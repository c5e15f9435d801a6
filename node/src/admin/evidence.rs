//! Questions about evidence: receipts and their export, this node's own balance of a day, deep reconciliation.
//! A node judges by the statements it holds of both parties; the coordinator's balance knows everybody's.

use super::{Balance, FilePart, ReceiptShown, RowsStated};
use crate::config::TIMEZONE_DEFAULT;
use crate::context::Context;
use crate::reconcile::Deep;
use crate::schedule::zone;
use crate::store::{Side, Transfer, statements, transfers};
use base64::Engine;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use posthouse_platform::admin_socket::Items;
use posthouse_protocol::codec::sha256;
use posthouse_protocol::id::{JobId, NodeId, TransferId};
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::receipt::{FILES_B3, TrustStore};
use posthouse_protocol::reconciliation::{Arrived, Evidence, Tally, Verdict, judge};
use posthouse_protocol::statement::Statement;
use posthouse_protocol::time::Timestamp;
use serde_json::Value;
use std::io::Read;
use std::sync::Arc;

pub(super) async fn list(context: &Arc<Context>, items: &mut Items) -> Result<Value, Problem> {
    let this = context.name.clone();
    let shown: Vec<ReceiptShown> = context
        .store
        .read(move |db| {
            let rows = statements::receipts(db, LISTED_MAX)?;
            let with =
                |row: statements::ReceiptRow| Ok(transfers::get(db, &row.transfer)?.map(|transfer| (row, transfer)));
            let found: Result<Vec<_>, Problem> = rows.into_iter().map(with).collect();
            Ok(found?.into_iter().flatten().map(|(row, transfer)| shown(row, &transfer, &this)).collect())
        })
        .await?;
    for receipt in shown {
        items.send(&receipt).await?;
    }
    Ok(serde_json::json!({}))
}

pub(super) async fn show(context: &Arc<Context>, id: &str) -> Result<ReceiptShown, Problem> {
    let transfer = find(context, id).await?;
    let this = context.name.clone();
    let (receipt, kept) = context
        .store
        .read(move |db| {
            let row = statements::receipt_of(db, &transfer)?.ok_or_else(|| none(&transfer))?;
            let kept = transfers::get(db, &transfer)?.ok_or_else(|| none(&transfer))?;
            Ok((shown(row, &kept, &this), statements::of_transfer(db, &transfer)?))
        })
        .await?;
    let open = |bytes: &[u8]| Statement::open(bytes, context.authority.as_ref()).ok();
    let kept: Vec<Statement> = kept.iter().filter_map(|kept| open(&kept.bytes)).collect();
    let manifest = kept.iter().find_map(Statement::manifest);
    let route = manifest.map(|manifest| manifest.route.clone()).unwrap_or_default();
    Ok(ReceiptShown { route, rows_stated: RowsStated::of(&kept), ..receipt })
}

/// Everything that `receipt verify` and other people's tools need, in pieces.
pub(super) async fn export(context: &Arc<Context>, id: &str, items: &mut Items) -> Result<Value, Problem> {
    let transfer = find(context, id).await?;
    let policy =
        context.authority.policy().ok_or_else(|| Problem::new(Code::PolicyStale).with("node", &context.name))?;
    let policy_key = context.centre.pinned().policy_key;
    let trust = TrustStore::open(&policy.nodes, &policy_key)
        .map_err(|e| Problem::new(Code::EvidenceInvalid).with("file", "nodes.cose").cause(e))?;
    let wanted = transfer.clone();
    let receipt =
        context.store.read(move |db| statements::receipt(db, &wanted)).await?.ok_or_else(|| none(&transfer))?;
    for (name, bytes) in receipt.export(&trust, None)? {
        send(items, &name, &bytes).await?;
    }
    // The list of a large folder is long: it goes from the disk in pieces, checked against the manifest.
    let bound = Statement::open(&receipt.provider, &trust)
        .ok()
        .and_then(|statement| statement.manifest().and_then(|manifest| manifest.files_b3_sha256));
    if let Some(bound) = bound {
        let path = context.attachments().join(transfer.as_str()).join(FILES_B3);
        let failed =
            |e: &dyn std::fmt::Display| Problem::new(Code::StorageFailed).with("path", path.display()).cause(e);
        let mut file = std::fs::File::open(&path).map_err(|e| failed(&e))?;
        let mut whole = Vec::new();
        let read = context.world.blocking.run(move || file.read_to_end(&mut whole).map(|_| whole)).await;
        let list = read.map_err(|e| failed(&e))?.map_err(|e| failed(&e))?;
        if sha256(&list) != *bound {
            let cause = "its SHA-256 is not the one in the manifest";
            return Err(Problem::new(Code::EvidenceInvalid).with("file", path.display()).cause(cause));
        }
        send(items, FILES_B3, &list).await?;
    }
    Ok(serde_json::json!({ "receipt": receipt.id(), "transfer": transfer }))
}

async fn send(items: &mut Items, name: &str, bytes: &[u8]) -> Result<(), Problem> {
    let encode = |piece: &[u8]| base64::engine::general_purpose::STANDARD.encode(piece);
    if bytes.is_empty() {
        items.send(&FilePart { name: name.to_owned(), base64: String::new() }).await?;
    }
    for piece in bytes.chunks(PIECE_BYTES) {
        items.send(&FilePart { name: name.to_owned(), base64: encode(piece) }).await?;
    }
    Ok(())
}

/// A deep reconciliation as a balance of one job: what matched or differed now.
pub(super) async fn deep(context: &Arc<Context>, job: &JobId) -> Result<Balance, Problem> {
    let found = crate::reconcile::deep(context, job).await?;
    context.outbox.notify_one();
    Ok(observed(context, found))
}

pub(super) fn observed(context: &Context, found: Deep) -> Balance {
    let mut counts = Tally::default();
    counts.add(if found.differing == 0 && found.findings.is_empty() { Verdict::Matched } else { Verdict::Mismatched });
    let now = context.world.clock.now();
    Balance { day: day_text(now, &own_zone()), counts, findings: found.findings, as_of: now }
}

/// The balance of a day by this node's own evidence.
pub(super) async fn balance(context: &Arc<Context>, day: Option<&str>) -> Result<Balance, Problem> {
    let (zone, now) = (own_zone(), context.world.clock.now());
    let day = day.map_or_else(|| day_text(now, &zone), str::to_owned);
    let (from, to) = span(&day, &zone)?;
    let (authority, policy_key) = (context.authority.clone(), context.centre.pinned().policy_key);
    let trust = authority.policy().and_then(|policy| TrustStore::open(&policy.nodes, &policy_key).ok());
    let (counts, findings) = context
        .store
        .read(move |db| {
            let rows =
                transfers::list(db, &transfers::Filter { from: Some(from), to: Some(to), ..Default::default() })?;
            let (mut counts, mut findings) = (Tally::default(), Vec::new());
            for row in rows {
                let kept = statements::of_transfer(db, &row.id)?;
                let open = |bytes: &[u8]| match &trust {
                    Some(trust) => Statement::open(bytes, trust).or_else(|_| Statement::open(bytes, &*authority)),
                    None => Statement::open(bytes, &*authority),
                };
                let opened: Vec<(Statement, Timestamp, bool)> =
                    kept.iter().filter_map(|kept| open(&kept.bytes).ok().map(|s| (s, kept.at, kept.proven))).collect();
                let arrived: Vec<Arrived<'_>> =
                    opened.iter().map(|(statement, at, _)| Arrived { statement, at: *at }).collect();
                let proven = opened.iter().any(|(statement, _, proven)| *proven && statement.landing().is_some());
                // This node's policy was asked when the transfer began; a grant that has ended since was one then.
                let judgement = judge(Evidence { statements: &arrived, proven }, now, OVERDUE_AFTER_MS, &|_| true);
                if let Some(verdict) = judgement.verdict() {
                    counts.add(verdict);
                }
                if let Some(finding) = judgement.finding().filter(|finding| finding.verdict.is_difference()) {
                    findings.push(finding.clone());
                }
            }
            Ok((counts, findings))
        })
        .await?;
    Ok(Balance { day, counts, findings, as_of: now })
}

async fn find(context: &Arc<Context>, id: &str) -> Result<TransferId, Problem> {
    let wanted = id.to_owned();
    let found = context.store.read(move |db| statements::transfer_of(db, &wanted)).await?;
    found.ok_or_else(|| Problem::new(Code::UnknownName).with("kind", "receipt").with("name", id))
}

fn none(transfer: &TransferId) -> Problem {
    Problem::new(Code::NoReceipt).with("transfer", transfer)
}

fn shown(row: statements::ReceiptRow, transfer: &Transfer, this: &NodeId) -> ReceiptShown {
    let counts = &transfer.counts;
    ReceiptShown {
        receipt: row.id,
        transfer: row.transfer,
        at: row.at,
        job: transfer.job.clone(),
        resource: transfer.resource.clone(),
        provider: transfer.resource.node.clone(),
        consumer: transfer.consumer(this).clone(),
        verdict: if row.proven { Verdict::Matched } else { Verdict::Pending },
        proven: row.proven,
        rows: if transfer.side == Side::Consumer { counts.rows_landed } else { counts.rows_sent },
        files: counts.files,
        bytes: counts.bytes,
        refused: counts.refused,
        quarantined: transfer.quarantined(),
        counts: *counts,
        route: Vec::new(),
        rows_stated: RowsStated::default(),
    }
}

/// The zone in which a node counts its days.
pub(super) fn own_zone() -> TimeZone {
    zone(TIMEZONE_DEFAULT).unwrap_or(TimeZone::UTC)
}

pub(super) fn day_text(at: Timestamp, zone: &TimeZone) -> String {
    at.to_jiff().to_zoned(zone.clone()).date().to_string()
}

/// First and last instant of a day (`2026-11-22`) or a month (`2026-11`), half open.
pub(super) fn span(period: &str, zone: &TimeZone) -> Result<(Timestamp, Timestamp), Problem> {
    let wrong = || {
        Problem::new(Code::UsageInvalid)
            .with("what", format!("`{period}` is neither a day such as 2026-11-22 nor a month such as 2026-11"))
    };
    let month = period.len() == 7;
    let text = if month { format!("{period}-01") } else { period.to_owned() };
    let first: Date = text.parse().map_err(|_| wrong())?;
    let after = if month { first.last_of_month().tomorrow() } else { first.tomorrow() }.map_err(|_| wrong())?;
    let start = |date: Date| {
        date.to_zoned(zone.clone()).map(|at| Timestamp(at.timestamp().as_millisecond())).map_err(|_| wrong())
    };
    Ok((start(first)?, start(after)?))
}

const LISTED_MAX: u32 = 100_000;
const PIECE_BYTES: usize = 512 << 10;
/// As the coordinator's default.
const OVERDUE_AFTER_MS: i64 = 24 * 3_600_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_and_a_month_begin_at_midnight_of_the_zone() {
        let zone = own_zone();
        let at = |text: &str| Timestamp::parse(text).unwrap();
        assert_eq!(span("2026-11-22", &zone).unwrap(), (at("2026-11-21T16:00:00Z"), at("2026-11-22T16:00:00Z")));
        assert_eq!(span("2026-12", &zone).unwrap(), (at("2026-11-30T16:00:00Z"), at("2026-12-31T16:00:00Z")));
        for bad in ["", "2026", "2026-13", "2026-02-30", "yesterday"] {
            assert_eq!(span(bad, &zone).unwrap_err().code, Code::UsageInvalid, "{bad}");
        }
        assert_eq!(day_text(at("2026-11-22T17:00:00Z"), &zone), "2026-11-23");
    }
}
