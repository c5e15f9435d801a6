//! Due times, computed: from the last one and the schedule to the next. No waiting here.

use crate::config::Schedule;
use jiff::tz::TimeZone;
use posthouse_protocol::time::Timestamp;

/// A cron line (minute hour day month weekday) in a time zone.
#[derive(Debug, Clone)]
pub struct Cron {
    text: String,
    cron: croner::Cron,
    zone: TimeZone,
}

impl Cron {
    pub fn parse(text: &str, zone: TimeZone) -> Result<Self, String> {
        if text.split_whitespace().count() != 5 {
            return Err("it has five fields".to_owned());
        }
        let cron = croner::parser::CronParser::new().parse(text).map_err(|e| e.to_string())?;
        Ok(Self { text: text.to_owned(), cron, zone })
    }

    /// The first due time after `after`; none where the line never comes true again.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let start = after.to_jiff().to_zoned(self.zone.clone());
        let next = self.cron.find_next_occurrence(&start, false).ok()?;
        Some(Timestamp(next.timestamp().as_millisecond()))
    }
}

impl std::fmt::Display for Cron {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.text)?;
        self.zone.iana_name().map_or(Ok(()), |zone| write!(f, " ({zone})"))
    }
}

/// A time zone by its IANA name. China's is known even to machines without a time zone database.
pub fn zone(name: &str) -> Option<TimeZone> {
    TimeZone::get(name).ok().or_else(|| match name {
        "Asia/Shanghai" | "PRC" => Some(TimeZone::fixed(jiff::tz::Offset::constant(8))),
        _ => None,
    })
}

/// What to do now about a job that was last due at `last`: the due time to act on, if one has come,
/// and when to look again.
pub fn due(schedule: &Schedule, last: Option<Timestamp>, started: Timestamp, now: Timestamp, missed_once: bool) -> Due {
    // A schedule begins when the node first sees it; time before the node's start counts only where runs are made up.
    let mut from = match last {
        Some(last) if missed_once => last.min(now),
        Some(last) => last.max(started).min(now),
        None => started.min(now),
    };
    let next = |after: Timestamp| match schedule {
        Schedule::Manual => None,
        Schedule::Every(interval) => Some(after.plus_ms(interval.as_ms())),
        Schedule::Watch => Some(after.plus_ms(RESCAN_MS)),
        Schedule::Cron(cron) => cron.next(after),
    };
    let mut due = None;
    // However many were missed, one run makes up for all: jump to the latest due time that has come.
    if let Schedule::Every(interval) = schedule {
        let periods = now.since_ms(from) / interval.as_ms().max(1);
        if periods > 0 {
            from = from.plus_ms(periods * interval.as_ms());
            due = Some(from);
        }
        return Due { run: due, next: next(from) };
    }
    if let Some(first) = next(from).filter(|at| *at <= now) {
        // Far behind, stepping through every minute would take long: the last day is enough to find the latest.
        let mut latest = first;
        from = first.max(now.plus_ms(-DAY_MS));
        while let Some(at) = next(from).filter(|at| *at <= now) {
            (latest, from) = (at, at);
        }
        due = Some(latest);
        from = latest;
    }
    Due { run: due, next: next(from.max(due.unwrap_or(from))) }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    pub run: Option<Timestamp>,
    pub next: Option<Timestamp>,
}

/// A watched folder is looked through this often, whatever is told of it.
const RESCAN_MS: i64 = 600_000;
const DAY_MS: i64 = 86_400_000;

#[cfg(test)]
mod tests {
    use super::*;
    use posthouse_platform::settings::Interval;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }
    fn cron(text: &str) -> Schedule {
        Schedule::Cron(Cron::parse(text, zone("Asia/Shanghai").unwrap()).unwrap())
    }

    #[test]
    fn cron_runs_in_its_time_zone() {
        let due = due(&cron("0 2 * * *"), None, at("2026-11-22T00:00:00Z"), at("2026-11-22T00:00:00Z"), true);
        assert_eq!(due, Due { run: None, next: Some(at("2026-11-22T18:00:00Z")) });
    }

    #[test]
    fn runs_missed_over_a_holiday_are_made_up_once() {
        let (last, now) = (at("2026-09-30T18:00:00Z"), at("2026-10-09T01:00:00Z"));
        let daily = due(&cron("0 2 * * *"), Some(last), now, now, true);
        assert_eq!(daily, Due { run: Some(at("2026-10-08T18:00:00Z")), next: Some(at("2026-10-09T18:00:00Z")) });
        let often = due(&cron("*/5 * * * *"), Some(last), now, now, true);
        assert_eq!(often.run, Some(at("2026-10-09T01:00:00Z")));
        let every = due(&Schedule::Every(Interval::seconds(30)), Some(last), now, now, true);
        assert_eq!((every.run, every.next), (Some(now), Some(now.plus_ms(30_000))));
    }

    #[test]
    fn runs_missed_are_left_out_where_the_job_says_so() {
        let (last, now) = (at("2026-09-30T18:00:00Z"), at("2026-10-09T01:00:00Z"));
        assert_eq!(due(&cron("0 2 * * *"), Some(last), now, now, false).run, None);
    }

    #[test]
    fn a_rare_line_missed_long_ago_is_still_made_up() {
        let (last, now) = (at("2026-01-02T00:00:00Z"), at("2026-11-22T00:00:00Z"));
        assert_eq!(due(&cron("0 0 1 3 *"), Some(last), now, now, true).run, Some(at("2026-02-28T16:00:00Z")));
    }

    #[test]
    fn a_clock_that_went_back_does_not_stop_the_schedule() {
        let now = at("2026-11-22T00:00:00Z");
        let due = due(&Schedule::Every(Interval::seconds(30)), Some(now.plus_ms(86_400_000)), now, now, true);
        assert_eq!(due.next, Some(now.plus_ms(30_000)));
    }

    #[test]
    fn lines_that_are_no_cron_are_refused() {
        for bad in ["", "* * * *", "* * * * * *", "61 * * * *", "hourly"] {
            assert!(Cron::parse(bad, TimeZone::UTC).is_err(), "{bad:?}");
        }
    }
}
