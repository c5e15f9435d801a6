//! Counts of a day or a month as this node saw them, in the same shape as the coordinator's.

use super::evidence::{day_text, own_zone, span};
use crate::context::Context;
use crate::store::{Side, Transfer, transfers};
use posthouse_protocol::job::State;
use posthouse_protocol::problem::Problem;
use posthouse_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// `2026-11-22` or `2026-11`
    pub period: String,
    pub total: Figures,
    /// By the other side's department, where the policy names it.
    pub departments: Vec<Named>,
    pub resources: Vec<Named>,
    /// A node knows its own division only.
    pub divisions: Vec<Named>,
    pub as_of: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Named {
    pub name: String,
    /// What that name is in these transfers: `provider` or `consumer`; none for resources.
    pub role: Option<String>,
    #[serde(flatten)]
    pub figures: Figures,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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

pub(super) async fn of(context: &Arc<Context>, period: Option<&str>) -> Result<Statistics, Problem> {
    let (zone, now) = (own_zone(), context.world.clock.now());
    let period = period.map_or_else(|| day_text(now, &zone), str::to_owned);
    let (from, to) = span(&period, &zone)?;
    let filter = transfers::Filter { from: Some(from), to: Some(to), ..Default::default() };
    let rows = context.store.read(move |db| transfers::list(db, &filter)).await?;
    let peers = context.authority.policy().map(|policy| policy.peers).unwrap_or_default();
    let department = |row: &Transfer| {
        let peer = peers.iter().find(|peer| peer.node == row.peer);
        peer.and_then(|peer| peer.department.clone()).unwrap_or_else(|| row.peer.to_string())
    };
    let mut total = Figures::default();
    let (mut departments, mut resources) = (BTreeMap::new(), BTreeMap::new());
    for row in &rows {
        let role = if row.side == Side::Consumer { "provider" } else { "consumer" };
        total.add(row);
        departments.entry((department(row), Some(role))).or_insert_with(Figures::default).add(row);
        resources.entry((row.resource.to_string(), None)).or_insert_with(Figures::default).add(row);
    }
    let total = total.closed();
    let division = context.config().node.division.clone();
    Ok(Statistics {
        period,
        divisions: division.map(|name| Named { name, role: None, figures: total.clone() }).into_iter().collect(),
        departments: named(departments),
        resources: named(resources),
        total,
        as_of: now,
    })
}

fn named(list: BTreeMap<(String, Option<&str>), Figures>) -> Vec<Named> {
    list.into_iter()
        .map(|((name, role), figures)| Named { name, role: role.map(str::to_owned), figures: figures.closed() })
        .collect()
}

impl Figures {
    fn add(&mut self, row: &Transfer) {
        let counts = &row.counts;
        self.transfers += 1;
        match row.state {
            State::Settled => {
                self.settled += 1;
                self.rows += if row.side == Side::Consumer { counts.rows_landed } else { counts.rows_sent };
                self.files += counts.files;
                self.bytes += counts.bytes;
                self.quarantined += row.quarantined();
                let begun = row.started.unwrap_or(row.created);
                self.timely += u64::from(row.ended.is_some_and(|ended| ended.since_ms(begun) <= DAY_MS));
            }
            State::Refused => self.refused += 1,
            State::Failed | State::Cancelled => self.failed += 1,
            _ => self.under_way += 1,
        }
    }

    fn closed(mut self) -> Self {
        let share = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
        self.success = share(self.settled, self.settled + self.refused + self.failed);
        self.quality = share(self.rows, self.rows + self.quarantined);
        self.timeliness = share(self.timely, self.settled);
        self
    }
}

const DAY_MS: i64 = 86_400_000;
