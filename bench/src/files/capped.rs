//! A transfer that is held to a bandwidth, which the operator halves when half of it is there. What is told is how much
//! content was landed a second in each half, beside what was allowed; the provider's own word for it is not asked.

use crate::site::Site;
use anyhow::{Context, ensure};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::time::Instant;

pub struct Reached {
    /// The job's closing object.
    pub end: Value,
    /// What was reached of each bandwidth.
    pub shares: [f64; 2],
}

/// Content that was landed, and when that was seen.
type Sample = (f64, u64);

/// Runs the job; `bytes` is what it lands.
pub fn take(site: &Site, bytes: u64) -> anyhow::Result<Reached> {
    let allow = |rate: u64| site.set("provider", &format!("bandwidth={}MiB", rate >> 20));
    let [first, second] = RATES;
    allow(first)?;
    let start = Instant::now();
    let mut command = site.begin("data")?;
    let told = BufReader::new(command.stdout.take().context("it has a standard output")?);
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let (mut end, mut is_halved) = (Value::Null, false);
    for line in told.lines() {
        let line: Value = serde_json::from_str(&line?)?;
        // Only what is said on the way knows of a total.
        let Some(landed) = line["bytes"].as_u64().filter(|_| line["bytes_total"].is_u64()) else {
            end = line;
            continue;
        };
        let sample = (start.elapsed().as_secs_f64(), landed);
        if is_halved {
            after.push(sample);
        } else if landed < bytes / 2 {
            before.push(sample);
        } else {
            allow(second)?;
            is_halved = true;
        }
    }
    ensure!(command.wait()?.success(), "the job ended with an error");
    after.retain(|(_, landed)| *landed < bytes);
    Ok(Reached { end, shares: [share(&before, first)?, share(&after, second)?] })
}

/// What was reached of a rate, from a second after the first content on: before, what may pass at once, or was on its
/// way at another rate, comes on top.
fn share(samples: &[Sample], rate: u64) -> anyhow::Result<f64> {
    let (begin, _) = *samples.iter().find(|(_, landed)| *landed > 0).context("nothing was landed")?;
    let (from, first) = *samples.iter().find(|(at, _)| *at >= begin + SETTLE).context("it was too short")?;
    let (until, last) = *samples.last().context("nothing was landed")?;
    ensure!(until - from >= SETTLE, "{:.2} s are too short to say what the rate was", until - from);
    Ok((last - first) as f64 / (until - from) / rate as f64)
}

/// Bytes a second, of whole mebibytes.
const RATES: [u64; 2] = [64 << 20, 32 << 20];
/// Seconds.
const SETTLE: f64 = 1.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_what_was_landed_after_the_first_second() {
        // 10 bytes come at once, then 100 a second.
        let samples: Vec<Sample> = (0..20u32).map(|at| (f64::from(at) / 4.0, 10 + u64::from(at) * 25)).collect();
        let reached = share(&samples, 200).expect("a share");
        assert!((reached - 0.5).abs() < 1e-9, "{reached}");
        share(&samples[..6], 200).expect_err("it was not measured for long");
        share(&[(0.0, 0), (9.0, 0)], 200).expect_err("nothing was landed");
    }
}
