//! Counts, bytes, success, quality and timeliness of a day or a month, by department, resource and division.

use super::{Day, TransferRow};
use crate::Centre;
use crate::store::records::Page;
use posthouse_protocol::id::NodeId;
use posthouse_protocol::job::State;
use posthouse_protocol::problem::Problem;
use posthouse_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Statistics {
    /// `2026-11-22` or `2026-11`
    pub period: String,
    pub total: Figures,
    /// By the department of the provider and of the consumer.
    pub departments: Vec<Named>,
    pub resources: Vec<Named>,
    pub divisions: Vec<Named>,
    #[schema(value_type = String, format = DateTime)]
    pub as_of: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Named {
    pub name: String,
    /// `provider`, `consumer`, or none for resources.
    pub role: Option<String>,
    #[serde(flatten)]
    pub figures: Figures,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Figures {
    pub transfers: u64,
    pub settled: u64,
    pub refused: u64,
    pub failed: u64,
    pub under_way: u64,
    pub rows: u64,
    pub files: u64,
    pub bytes: u64,
    pub quarantined: u64,
    /// Settled of those that ended; none while none has.
    pub success: Option<f64>,
    /// Rows landed of rows landed or quarantined.
    pub quality: Option<f64>,
    /// Settled ones whose receipt was complete within a day of their start.
    pub timeliness: Option<f64>,
    #[serde(skip)]
    timely: u64,
}

impl Centre {
    /// A day or a month; None = today.
    pub(crate) async fn statistics(&self, period: Option<&str>) -> Result<Statistics, Problem> {
        let now = self.world.clock.now();
        let day = match period {
            Some(period) => Day::parse_period(period, &self.zone)?,
            None => Day::today(now, &self.zone)?,
        };
        let mut places = BTreeMap::new();
        for node in self.store.nodes().await? {
            let profile = node.report.map_or(node.profile, |report| report.profile);
            places.insert(node.name, (profile.department, profile.division));
        }
        let mut sums = Sums { places, ..Sums::default() };
        let mut after = None;
        loop {
            let rows = self.store.transfers(day.window, Page { after: after.clone(), limit: PAGE }).await?;
            rows.iter().for_each(|row| sums.add(row));
            match rows.last() {
                Some(last) if rows.len() as u64 == PAGE => after = Some((last.at, last.transfer.clone())),
                _ => break,
            }
        }
        Ok(Statistics {
            period: day.name,
            total: sums.total.rated(),
            departments: named(sums.departments),
            resources: named(sums.resources),
            divisions: named(sums.divisions),
            as_of: now,
        })
    }
}

#[derive(Default)]
struct Sums {
    places: BTreeMap<NodeId, (Option<String>, Option<String>)>,
    total: Figures,
    departments: BTreeMap<(String, Option<&'static str>), Figures>,
    resources: BTreeMap<(String, Option<&'static str>), Figures>,
    divisions: BTreeMap<(String, Option<&'static str>), Figures>,
}

impl Sums {
    fn add(&mut self, row: &TransferRow) {
        self.total.add(row);
        self.resources.entry((row.resource.to_string(), None)).or_default().add(row);
        for (node, stated, role) in [
            (&row.provider, &row.provider_department, "provider"),
            (&row.consumer, &row.consumer_department, "consumer"),
        ] {
            let (department, division) = self.places.get(node).cloned().unwrap_or_default();
            // What the statement says was true then; the registry says what is true now.
            if let Some(department) = stated.clone().or(department) {
                self.departments.entry((department, Some(role))).or_default().add(row);
            }
            if let Some(division) = division {
                self.divisions.entry((division, Some(role))).or_default().add(row);
            }
        }
    }
}

impl Figures {
    fn add(&mut self, row: &TransferRow) {
        self.transfers += 1;
        match row.state {
            State::Settled => self.settled += 1,
            State::Refused => self.refused += 1,
            State::Failed | State::Cancelled => self.failed += 1,
            _ => self.under_way += 1,
        }
        if matches!(row.state, State::Settled | State::Committed) {
            self.rows = self.rows.saturating_add(row.rows);
            self.files = self.files.saturating_add(row.files);
            self.bytes = self.bytes.saturating_add(row.bytes);
            self.quarantined = self.quarantined.saturating_add(row.quarantined);
        }
        let took = row.started_at.zip(row.receipt_at).map(|(started, receipt)| receipt.since_ms(started));
        if row.state == State::Settled && took.is_some_and(|ms| ms <= TIMELY_MS) {
            self.timely += 1;
        }
    }

    fn rated(mut self) -> Self {
        self.success = share(self.settled, self.settled + self.refused + self.failed);
        self.quality = share(self.rows, self.rows.saturating_add(self.quarantined));
        self.timeliness = share(self.timely, self.settled);
        self
    }
}

fn named(sums: BTreeMap<(String, Option<&'static str>), Figures>) -> Vec<Named> {
    sums.into_iter()
        .map(|((name, role), figures)| Named { name, role: role.map(str::to_owned), figures: figures.rated() })
        .collect()
}

/// To four digits; none of nothing is no share.
fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| (part as f64 / whole as f64 * 10_000.0).round() / 10_000.0)
}

const TIMELY_MS: i64 = 86_400_000;
const PAGE: u64 = 1_000;
