//! How much may be sent a second, by the time of the day.

use super::BANDWIDTH_MIN;
use crate::schedule::Window;
use posthouse_platform::settings::{FromValue, Say, Size, say, wrong_type};
use posthouse_protocol::time::Timestamp;
use std::str::FromStr;
use toml::de::DeValue;

/// Rates, each with the hours in which it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bandwidth {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    per_second: Size,
    /// None: always.
    window: Option<Window>,
}

impl Bandwidth {
    /// Bytes a second at this time: those of the first rule that holds. None: as fast as the line goes.
    pub fn at(&self, now: Timestamp) -> Option<u64> {
        let holds = |rule: &&Rule| rule.window.as_ref().is_none_or(|window| window.opens(now).is_none());
        self.rules.iter().find(holds).map(|rule| rule.per_second.0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BandwidthError {
    #[error("`{0}` is not a size such as \"50 MiB\", per second, perhaps with its hours: \"2 MiB 08:00-18:00\"")]
    Form(String),
    #[error("per second; at least {BANDWIDTH_MIN}")]
    TooLittle,
    #[error("{0}")]
    Hours(crate::schedule::WindowError),
}

impl FromStr for Rule {
    type Err = BandwidthError;
    fn from_str(text: &str) -> Result<Self, BandwidthError> {
        let text = text.trim();
        let hours = text.find(':').and_then(|colon| text.get(..colon)?.rfind(' '));
        let (size, hours) = hours.map_or((text, None), |at| (text.get(..at).unwrap_or_default(), text.get(at..)));
        let per_second: Size = size.trim().parse().map_err(|_| BandwidthError::Form(text.to_owned()))?;
        if per_second < BANDWIDTH_MIN {
            return Err(BandwidthError::TooLittle);
        }
        let window = hours.map(|hours| hours.trim().parse().map_err(BandwidthError::Hours)).transpose()?;
        Ok(Self { per_second, window })
    }
}

impl FromStr for Bandwidth {
    type Err = BandwidthError;
    /// One rule.
    fn from_str(text: &str) -> Result<Self, BandwidthError> {
        Ok(Self { rules: vec![text.parse()?] })
    }
}

/// A rule, or a list of them.
impl FromValue for Bandwidth {
    fn from_value(value: &DeValue<'_>) -> Result<Self, Say> {
        let rule = |value: &DeValue<'_>| {
            let text =
                value.as_str().ok_or_else(|| wrong_type("a size such as \"50 MiB\"", "大小，如 \"50 MiB\"", value))?;
            text.parse::<Rule>().map_err(|error| {
                let zh = match &error {
                    BandwidthError::TooLittle => format!("为每秒流量；至少 {BANDWIDTH_MIN}"),
                    _ => format!("`{text}` 有误；写法如 \"50 MiB\"（每秒），可附时段：\"2 MiB 08:00-18:00\""),
                };
                say(error.to_string(), zh)
            })
        };
        let rules = match value.as_array() {
            Some(rules) => rules.iter().map(|value| rule(value.get_ref())).collect::<Result<_, _>>()?,
            None => vec![rule(value)?],
        };
        Ok(Self { rules })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_whose_hours_hold_counts() {
        let rules = ["2 MiB 08:00-18:00", "4 MiB 18:00-08:00 Asia/Urumqi", "50 MiB"];
        let bandwidth = Bandwidth { rules: rules.iter().map(|rule| rule.parse().unwrap()).collect() };
        let at = |time: &str| bandwidth.at(Timestamp::parse(time).unwrap());
        assert_eq!(at("2026-11-27T00:00:00Z"), Some(2 << 20), "08:00 in Beijing");
        // 18:00 in Beijing is 16:00 in Urumqi, where the evening begins two hours later.
        assert_eq!(at("2026-11-27T10:00:00Z"), Some(50 << 20));
        assert_eq!(at("2026-11-27T12:00:00Z"), Some(4 << 20));
        let night: Bandwidth = "1 MiB 22:00-06:00".parse().unwrap();
        assert_eq!(night.at(Timestamp::parse("2026-11-27T04:00:00Z").unwrap()), None, "it is noon");
    }

    #[test]
    fn what_is_no_rate_is_refused_with_its_reason() {
        let of = |text: &str| text.parse::<Bandwidth>().unwrap_err();
        assert!(matches!(of("fast"), BandwidthError::Form(_)));
        assert!(matches!(of("08:00-18:00"), BandwidthError::Form(_)));
        assert_eq!(of("1 KiB"), BandwidthError::TooLittle);
        assert!(matches!(of("1 MiB 8:00"), BandwidthError::Hours(_)));
        assert!(matches!(of("1 MiB 08:00-18:00 Mars/Base"), BandwidthError::Hours(_)));
    }
}
