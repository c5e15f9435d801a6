//! Times of the day at which a connection may be used (交换时段): `22:00-06:00`, with a time zone behind it where
//! that is not China's.

use super::zone;
use crate::config::TIMEZONE_DEFAULT;
use jiff::civil::Time;
use jiff::tz::TimeZone;
use posthouse_protocol::time::Timestamp;
use std::str::FromStr;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    from: Time,
    /// Before `from` where it ends on the next day.
    until: Time,
    zone: TimeZone,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    #[error("it is two times of the day such as \"22:00-06:00\", and a time zone where it is not {TIMEZONE_DEFAULT}")]
    Form,
    #[error("it begins when it ends: leave it out if there is no limit")]
    Empty,
    #[error("there is no time zone `{0}`")]
    Zone(String),
}

impl FromStr for Window {
    type Err = WindowError;
    fn from_str(text: &str) -> Result<Self, WindowError> {
        let (times, zone_name) = text.trim().split_once(char::is_whitespace).unwrap_or((text.trim(), TIMEZONE_DEFAULT));
        let (from, until) = times.split_once('-').ok_or(WindowError::Form)?;
        let (from, until) = (time(from)?, time(until)?);
        if from == until {
            return Err(WindowError::Empty);
        }
        let zone = zone(zone_name.trim()).ok_or_else(|| WindowError::Zone(zone_name.trim().to_owned()))?;
        Ok(Self { from, until, zone })
    }
}

impl Window {
    /// When it opens next; none while it is open.
    pub fn opens(&self, now: Timestamp) -> Option<Timestamp> {
        let here = now.to_jiff().to_zoned(self.zone.clone());
        let time = here.time();
        let is_open = match self.from < self.until {
            true => self.from <= time && time < self.until,
            false => self.from <= time || time < self.until,
        };
        if is_open {
            return None;
        }
        let today = here.date();
        let day = if time < self.from { today } else { today.tomorrow().ok()? };
        let opens = day.to_datetime(self.from).to_zoned(self.zone.clone()).ok()?;
        Some(Timestamp(opens.timestamp().as_millisecond()))
    }
}

/// Hours and minutes; 24:00 is the end of the day.
fn time(text: &str) -> Result<Time, WindowError> {
    let text = text.trim();
    if text == "24:00" {
        return Ok(Time::midnight());
    }
    Time::strptime("%H:%M", text).map_err(|_| WindowError::Form)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opens(window: &str, now: &str) -> Option<String> {
        let now = Timestamp::parse(now).unwrap();
        window.parse::<Window>().unwrap().opens(now).map(|at| at.to_string())
    }

    #[test]
    fn it_is_open_from_its_first_minute_to_its_last() {
        assert_eq!(opens("12:00-14:00 UTC", "2026-11-26T12:00:00Z"), None);
        assert_eq!(opens("12:00-14:00 UTC", "2026-11-26T13:59:59Z"), None);
        assert_eq!(opens("12:00-14:00 UTC", "2026-11-26T14:00:00Z").unwrap(), "2026-11-27T12:00:00.000Z");
        assert_eq!(opens("12:00-14:00 UTC", "2026-11-26T08:00:00Z").unwrap(), "2026-11-26T12:00:00.000Z");
    }

    #[test]
    fn it_may_go_over_midnight_and_is_in_chinas_time() {
        assert_eq!(opens("22:00-06:00", "2026-11-26T14:30:00Z"), None);
        assert_eq!(opens("22:00-06:00", "2026-11-26T21:59:00Z"), None);
        assert_eq!(opens("22:00-06:00", "2026-11-26T22:00:00Z").unwrap(), "2026-11-27T14:00:00.000Z");
        assert_eq!(opens("18:00-24:00", "2026-11-26T15:59:00Z"), None);
        assert_eq!(opens("18:00-24:00", "2026-11-26T16:00:00Z").unwrap(), "2026-11-27T10:00:00.000Z");
    }

    #[test]
    fn what_is_no_window_is_refused() {
        for (text, error) in [
            ("", WindowError::Form),
            ("22:00", WindowError::Form),
            ("22:00-25:00", WindowError::Form),
            ("10 pm-6 am", WindowError::Form),
            ("06:00-06:00", WindowError::Empty),
            ("22:00-06:00 Mars/Base", WindowError::Zone("Mars/Base".to_owned())),
        ] {
            assert_eq!(text.parse::<Window>().unwrap_err(), error, "{text:?}");
        }
    }
}
