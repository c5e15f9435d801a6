//! Is it the line or the database? A judgement over where the time of a transfer went, or, where there is none that
//! tells, over how fast each place is by itself. Figures in, a verdict out; the words for people are the program's.

use crate::spent::Spent;
use crate::store::Side;
use serde::Serialize;

/// What holds a job up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Held {
    Source,
    Line,
    Destination,
    /// Seen from a consumer that has not heard of the provider's part: it is not the destination.
    SourceOrLine,
    /// Seen from a provider: it is neither the source nor the line.
    Consumer,
    /// None of them takes most of the time.
    Nothing,
    /// There are no figures that tell.
    Unknown,
}

/// What a verdict rests on.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    pub side: Side,
    /// Milliseconds that the transfer was under way; 0 where there is none.
    pub total_ms: u64,
    pub spent: Option<Spent>,
    /// Bytes a second, as measured now.
    pub source: Option<f64>,
    pub destination: Option<f64>,
    /// Bytes a second that the line is known to have taken.
    pub line: Option<f64>,
}

impl Figures {
    pub fn judge(&self) -> Held {
        match self.spent {
            Some(spent) if self.total_ms >= TELLING_MS => self.by_waiting(spent),
            _ => self.by_speed(),
        }
    }

    /// Whoever is waited for most of the time holds the rest up.
    fn by_waiting(&self, spent: Spent) -> Held {
        let known =
            [(Held::Source, spent.source_ms), (Held::Line, spent.line_ms), (Held::Destination, spent.destination_ms)];
        let longest = known.into_iter().filter_map(|(held, ms)| Some((held, ms?))).max_by_key(|(_, ms)| *ms);
        let Some((held, ms)) = longest else { return Held::Unknown };
        let share = |ms: u64| ms.saturating_mul(100) / self.total_ms.max(ms);
        if share(ms) >= HELD_PERCENT {
            return held;
        }
        // The time that nothing here accounts for is the other side's.
        let rest = share(self.total_ms.saturating_sub(ms));
        match self.side {
            Side::Consumer if spent.line_ms.is_none() && rest >= REST_PERCENT => Held::SourceOrLine,
            Side::Provider if spent.destination_ms.is_none() && rest >= REST_PERCENT => Held::Consumer,
            _ => Held::Nothing,
        }
    }

    /// The slowest of what was measured, if it is by far.
    fn by_speed(&self) -> Held {
        let known = [(Held::Source, self.source), (Held::Line, self.line), (Held::Destination, self.destination)];
        let mut known: Vec<(Held, f64)> = known.into_iter().filter_map(|(held, speed)| Some((held, speed?))).collect();
        known.sort_by(|(_, one), (_, other)| one.total_cmp(other));
        match known.as_slice() {
            [] | [_] => Held::Unknown,
            [(held, slowest), (_, next), ..] if *slowest * SLOWER <= *next => *held,
            _ => Held::Nothing,
        }
    }
}

/// A transfer that is over sooner says more of its beginning and its end than of what it moved.
pub const TELLING_MS: u64 = 1_000;
const HELD_PERCENT: u64 = 40;
const REST_PERCENT: u64 = 60;
const SLOWER: f64 = 1.5;

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(side: Side, total_ms: u64, source: Option<u64>, line: Option<u64>, destination: Option<u64>) -> Held {
        let spent = Some(Spent { source_ms: source, line_ms: line, destination_ms: destination });
        Figures { side, total_ms, spent, source: None, destination: None, line: None }.judge()
    }

    #[test]
    fn what_is_waited_for_most_is_what_holds_it_up() {
        use Side::{Consumer, Provider};
        let cases = [
            (Consumer, Some(900), Some(10), Some(200), Held::Source),
            (Consumer, Some(300), Some(800), Some(100), Held::Line),
            (Consumer, Some(100), Some(100), Some(700), Held::Destination),
            (Consumer, Some(300), Some(300), Some(300), Held::Nothing),
            (Consumer, None, None, Some(100), Held::SourceOrLine),
            (Provider, Some(100), Some(100), None, Held::Consumer),
            (Provider, Some(100), Some(900), None, Held::Line),
            (Provider, None, None, None, Held::Unknown),
        ];
        for (side, source, line, destination, held) in cases {
            let judged =
                judged(side, 10_000, source.map(|ms| ms * 10), line.map(|ms| ms * 10), destination.map(|ms| ms * 10));
            assert_eq!(judged, held, "{side:?} {source:?} {line:?} {destination:?}");
        }
        // The snapshot was taken before the session's time began.
        assert_eq!(judged(Provider, 2_000, Some(9_000), Some(10), None), Held::Source);
    }

    #[test]
    fn without_a_transfer_that_tells_the_slowest_place_is_named_if_it_is_by_far() {
        let by = |source, line, destination| {
            Figures { side: Side::Consumer, total_ms: 999, spent: Some(Spent::default()), source, destination, line }
                .judge()
        };
        assert_eq!(by(Some(1e6), Some(9e6), None), Held::Source);
        assert_eq!(by(None, Some(1e6), Some(2e6)), Held::Line);
        assert_eq!(by(None, Some(1.9e6), Some(2e6)), Held::Nothing);
        assert_eq!(by(Some(1e6), None, None), Held::Unknown);
        assert_eq!(by(None, None, None), Held::Unknown);
    }
}
