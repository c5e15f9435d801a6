//! The balance of a day: every transfer of it with its verdict, and what does not balance.
//! Deep reconciliations of the day count by their last result for each job.

use super::{TransferRow, reopen};
use crate::admin::DayBalance;
use crate::store::Store;
use crate::store::records::{Page, Window};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use posthouse_protocol::id::TransferId;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::reconciliation::{Difference, Finding, Party, Tally, Verdict};
use posthouse_protocol::statement::Body;
use posthouse_protocol::time::Timestamp;
use std::collections::BTreeMap;

/// A day in a time zone.
#[derive(Debug, Clone)]
pub(crate) struct Day {
    pub(crate) name: String,
    pub(crate) window: Window,
}

impl Day {
    pub(crate) fn today(now: Timestamp, zone: &TimeZone) -> Result<Self, Problem> {
        Self::of(now.to_jiff().to_zoned(zone.clone()).date(), zone)
    }

    /// `2026-11-22`
    pub(crate) fn parse(text: &str, zone: &TimeZone) -> Result<Self, Problem> {
        let date = text.parse::<Date>().map_err(|_| not_a_day(text))?;
        Self::of(date, zone)
    }

    fn of(date: Date, zone: &TimeZone) -> Result<Self, Problem> {
        let until = date.tomorrow().map_err(|_| not_a_day(&date.to_string()))?;
        Ok(Self { name: date.to_string(), window: Window { from: start(date, zone)?, until: start(until, zone)? } })
    }

    /// A day or a month (`2026-11`).
    pub(crate) fn parse_period(text: &str, zone: &TimeZone) -> Result<Self, Problem> {
        if text.len() != 7 {
            return Self::parse(text, zone);
        }
        let first = format!("{text}-01").parse::<Date>().map_err(|_| not_a_day(text))?;
        let next = first.last_of_month().tomorrow().map_err(|_| not_a_day(text))?;
        Ok(Self { name: text.to_owned(), window: Window { from: start(first, zone)?, until: start(next, zone)? } })
    }
}

fn start(date: Date, zone: &TimeZone) -> Result<Timestamp, Problem> {
    let zoned = date.to_zoned(zone.clone()).map_err(|_| not_a_day(&date.to_string()))?;
    Ok(Timestamp(zoned.timestamp().as_millisecond()))
}

fn not_a_day(text: &str) -> Problem {
    Problem::new(Code::UsageInvalid).with("what", format!("`{text}` is not a day such as 2026-11-22"))
}

/// Everything that belongs to a day, balanced as of `now`.
pub(crate) async fn balance(
    store: &dyn Store,
    day: &Day,
    now: Timestamp,
    overdue_after_ms: i64,
) -> Result<DayBalance, Problem> {
    let mut counts = Tally::default();
    for (verdict, count) in store.tally(day.window).await? {
        *slot(&mut counts, verdict) += count;
    }
    let mut findings = Vec::new();
    for verdict in Verdict::ALL.into_iter().filter(|verdict| verdict.is_difference()) {
        let mut after = None;
        loop {
            let rows = store.transfers_of(verdict, day.window, Page { after, limit: PAGE }).await?;
            after = next(&rows);
            findings.extend(rows.into_iter().flat_map(|row| row.findings));
            if after.is_none() {
                break;
            }
        }
    }
    let mut after = None;
    loop {
        let rows = store.open_transfers(day.window, Page { after, limit: PAGE }).await?;
        for row in &rows {
            let (verdict, wrong) = row.verdict_now(store, now, overdue_after_ms).await?;
            verdict.into_iter().for_each(|verdict| counts.add(verdict));
            findings.extend(wrong);
        }
        after = next(&rows);
        if after.is_none() {
            break;
        }
    }
    let mut after = None;
    loop {
        let rows = store.strayed(day.window, Page { after, limit: PAGE }).await?;
        after = next(&rows);
        for finding in rows.into_iter().flat_map(|row| row.strays) {
            counts.add(finding.verdict);
            findings.push(finding);
        }
        if after.is_none() {
            break;
        }
    }
    for finding in deep(store, day).await? {
        counts.add(finding.verdict);
        findings.push(finding);
    }
    Ok(DayBalance { day: day.name.clone(), counts, findings, as_of: now })
}

fn slot(counts: &mut Tally, verdict: Verdict) -> &mut u64 {
    match verdict {
        Verdict::Matched => &mut counts.matched,
        Verdict::Mismatched => &mut counts.mismatched,
        Verdict::OneSided => &mut counts.one_sided,
        Verdict::Pending => &mut counts.pending,
        Verdict::Overdue => &mut counts.overdue,
        Verdict::Ungranted => &mut counts.ungranted,
    }
}

/// Where the next page begins, if there may be one.
fn next(rows: &[TransferRow]) -> Option<(Timestamp, TransferId)> {
    let full = rows.len() as u64 == PAGE;
    rows.last().filter(|_| full).map(|last| (last.at, last.transfer.clone()))
}

/// The day's deep reconciliations that found a difference and were not put right by a later one.
async fn deep(store: &dyn Store, day: &Day) -> Result<Vec<Finding>, Problem> {
    let mut last = BTreeMap::new();
    let mut below = None;
    'pages: loop {
        let leaves = store.leaves_of_kind("reconciliation", below, PAGE).await?;
        let full = leaves.len() as u64 == PAGE;
        for leaf in leaves {
            below = Some(leaf.index);
            if leaf.taken_at < day.window.from {
                break 'pages;
            }
            if leaf.taken_at >= day.window.until {
                continue;
            }
            let statement = reopen(store, &leaf).await?;
            let Body::Reconciliation(_, result) = statement.body() else { continue };
            last.entry((result.consumer.clone(), result.job.clone())).or_insert_with(|| result.clone());
        }
        if !full {
            break;
        }
    }
    Ok(last
        .into_values()
        .filter(|result| !result.matched)
        .map(|result| Finding {
            verdict: Verdict::Mismatched,
            transfer: None,
            job: result.job,
            resource: result.resource,
            provider: result.provider,
            consumer: result.consumer,
            party: Party::Both,
            differences: vec![Difference {
                what: "rows".to_owned(),
                provider: result.provider_rows.to_string(),
                consumer: format!("{}, {} differ", result.consumer_rows, result.differing),
            }],
            keys: Vec::new(),
            since: result.compared,
        })
        .collect())
}

const PAGE: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_begins_and_ends_where_its_zone_says() {
        let zone = TimeZone::fixed(jiff::tz::offset(8));
        let day = Day::parse("2026-11-22", &zone).unwrap();
        assert_eq!(day.window.from, Timestamp::parse("2026-11-21T16:00:00Z").unwrap());
        assert_eq!(day.window.until, Timestamp::parse("2026-11-22T16:00:00Z").unwrap());
        let today = Day::today(Timestamp::parse("2026-11-21T15:59:59Z").unwrap(), &zone).unwrap();
        assert_eq!(today.name, "2026-11-21");
    }

    #[test]
    fn a_month_covers_its_last_day_and_nothing_else() {
        let month = Day::parse_period("2026-02", &TimeZone::UTC).unwrap();
        assert_eq!(month.window.from, Timestamp::parse("2026-02-01T00:00:00Z").unwrap());
        assert_eq!(month.window.until, Timestamp::parse("2026-03-01T00:00:00Z").unwrap());
        for bad in ["2026-13", "today", "2026-02-30", ""] {
            assert!(Day::parse_period(bad, &TimeZone::UTC).is_err(), "{bad}");
        }
    }
}
