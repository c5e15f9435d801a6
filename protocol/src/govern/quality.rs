//! 合格率: how many of the rows that were checked passed every rule, and which rules the others failed.
//! Each party states its own: the provider of what it read, the consumer of what came.

use crate::limits;
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// What the rules of one party found in one split, or in a whole transfer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
pub struct Quality {
    /// Rows that were checked; those that were quarantined for another reason, or filtered, are none.
    #[n(0)]
    pub rows: u64,
    /// Of them: passed every rule.
    #[n(1)]
    pub qualified: u64,
    /// Rules that rows have failed, in the order of the configuration. One row may fail several.
    #[n(2)]
    pub failed: Vec<FailedRule>,
}

/// How many rows failed one rule.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
pub struct FailedRule {
    /// As the column is called where it is handed over.
    #[n(0)]
    pub column: String,
    #[n(1)]
    pub rule: String,
    #[n(2)]
    pub rows: u64,
}

impl Quality {
    /// Adds what was found elsewhere.
    pub fn merge(&mut self, other: &Self) {
        self.rows = self.rows.saturating_add(other.rows);
        self.qualified = self.qualified.saturating_add(other.qualified);
        for failed in &other.failed {
            match self.failed.iter_mut().find(|known| known.column == failed.column && known.rule == failed.rule) {
                Some(known) => known.rows = known.rows.saturating_add(failed.rows),
                None => self.failed.push(failed.clone()),
            }
        }
    }

    /// Whether it can be true of so many rows: none is counted that was not there, and a row that fails a rule is not
    /// qualified. Rules may be left out of the list, see [`Self::listed`].
    pub fn is_of(&self, rows: std::ops::RangeInclusive<u64>) -> bool {
        let unqualified = self.rows.checked_sub(self.qualified);
        let fits = |unqualified: u64| self.failed.iter().all(|failed| failed.rows > 0 && failed.rows <= unqualified);
        rows.contains(&self.rows) && unqualified.is_some_and(fits)
    }

    /// As it stands in a statement: the rules by the number of rows that failed them, as many as there is room for.
    /// The totals are those of all of them.
    #[must_use]
    pub fn listed(&self) -> Self {
        let mut failed = self.failed.clone();
        failed.sort_by(|a, b| b.rows.cmp(&a.rows).then_with(|| (&a.column, &a.rule).cmp(&(&b.column, &b.rule))));
        let mut bytes = 0;
        let fit = failed.iter().take_while(|failed| {
            bytes += failed.column.len() + failed.rule.len() + FAILED_OVERHEAD;
            bytes <= limits::QUALITY_BYTES_MAX
        });
        let fit = fit.count();
        failed.truncate(fit);
        Self { rows: self.rows, qualified: self.qualified, failed }
    }

    /// In hundredths of a percent, rounded down: 9999 is less than all. None where nothing was checked.
    pub fn rate(&self) -> Option<u64> {
        let hundredths = u128::from(self.qualified) * 10_000 / u128::from(self.rows).max(1);
        (self.rows > 0).then(|| u64::try_from(hundredths).unwrap_or(u64::MAX))
    }

    /// `99.87%`.
    pub fn rate_text(&self) -> Option<String> {
        self.rate().map(|rate| format!("{}.{:02}%", rate / 100, rate % 100))
    }
}

/// Heads and the number around two names.
const FAILED_OVERHEAD: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(column: &str, rule: &str, rows: u64) -> FailedRule {
        FailedRule { column: column.to_owned(), rule: rule.to_owned(), rows }
    }

    #[test]
    fn a_rate_is_never_rounded_up_to_all() {
        let rate = |rows, qualified| Quality { rows, qualified, failed: Vec::new() }.rate_text();
        assert_eq!(rate(0, 0), None);
        assert_eq!(rate(3, 3).as_deref(), Some("100.00%"));
        assert_eq!(rate(1_000_000, 999_999).as_deref(), Some("99.99%"));
        assert_eq!(rate(3, 2).as_deref(), Some("66.66%"));
        assert_eq!(rate(5, 0).as_deref(), Some("0.00%"));
    }

    #[test]
    fn what_cannot_be_true_of_the_rows_is_seen() {
        let quality = |rows, qualified, failed| Quality { rows, qualified, failed };
        assert!(quality(10, 8, vec![failed("a", "length", 2), failed("b", "range", 1)]).is_of(9..=10));
        assert!(quality(10, 8, Vec::new()).is_of(0..=10), "what has no room is left out");
        assert!(!quality(10, 11, Vec::new()).is_of(0..=10));
        assert!(!quality(11, 11, Vec::new()).is_of(0..=10), "more than there were");
        assert!(!quality(8, 8, Vec::new()).is_of(9..=10), "fewer than moved");
        assert!(!quality(10, 8, vec![failed("a", "length", 3)]).is_of(0..=10));
        assert!(!quality(10, 10, vec![failed("a", "length", 0)]).is_of(0..=10));
    }

    #[test]
    fn splits_add_up_and_what_is_listed_is_bounded() {
        let mut all = Quality { rows: 10, qualified: 8, failed: vec![failed("a", "length", 2)] };
        all.merge(&Quality {
            rows: 5,
            qualified: 1,
            failed: vec![failed("b", "length", 3), failed("a", "length", 4), failed("a", "range", 1)],
        });
        assert_eq!((all.rows, all.qualified), (15, 9));
        let expected = vec![failed("a", "length", 6), failed("b", "length", 3), failed("a", "range", 1)];
        assert_eq!(all.listed().failed, expected);
        let many = Quality {
            rows: 1_000,
            qualified: 0,
            failed: (0..1_000).map(|at| failed(&format!("column {at}"), "pattern", at)).collect(),
        };
        let listed = many.listed();
        assert_eq!((listed.rows, listed.qualified), (1_000, 0));
        assert_eq!(listed.failed[0].rows, 999);
        assert!(listed.failed.len() < 200 && crate::codec::encode(&listed).len() <= limits::QUALITY_BYTES_MAX + 64);
    }
}
