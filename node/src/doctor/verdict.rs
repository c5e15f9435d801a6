//! Is it the line or the database? A judgement over where the time of a transfer went. Figures in, a verdict out; the
//! words for people are the program's.
//! Deliberately absent: how fast each place is by itself. One node measures one place only, and has nothing beside it.

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
}

impl Figures {
    pub fn judge(&self) -> Held {
        match self.spent {
            Some(spent) if self.total_ms >= TELLING_MS => self.by_waiting(spent),
            _ => Held::Unknown,
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
        // The time that nothing here accounts for is the other side's. Waits that overlap make it look less, never more.
        let counted = known.into_iter().filter_map(|(_, ms)| ms).fold(0, u64::saturating_add);
        let rest = share(self.total_ms.saturating_sub(counted));
        match self.side {
            Side::Consumer if spent.line_ms.is_none() && rest >= REST_PERCENT => Held::SourceOrLine,
            Side::Provider if spent.destination_ms.is_none() && rest >= REST_PERCENT => Held::Consumer,
            _ => Held::Nothing,
        }
    }
}

/// A transfer that is over sooner says more of its beginning and its end than of what it moved.
pub const TELLING_MS: u64 = 1_000;
const HELD_PERCENT: u64 = 40;
const REST_PERCENT: u64 = 60;

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(side: Side, total_ms: u64, source: Option<u64>, line: Option<u64>, destination: Option<u64>) -> Held {
        let spent = Some(Spent { source_ms: source, line_ms: line, destination_ms: destination });
        Figures { side, total_ms, spent }.judge()
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
            // Together they are most of it: it is not the other side.
            (Provider, Some(350), Some(350), None, Held::Nothing),
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
    fn a_transfer_that_was_over_at_once_tells_nothing() {
        assert_eq!(judged(Side::Consumer, TELLING_MS - 1, Some(900), Some(0), Some(0)), Held::Unknown);
        assert_eq!(Figures { side: Side::Provider, total_ms: 9_000, spent: None }.judge(), Held::Unknown);
    }
}
