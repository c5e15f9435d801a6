//! The result of a suite, as JSON and as a table.

use crate::measure::Run;
use serde::Serialize;

#[derive(Debug, Serialize)]
pub struct Suite {
    pub suite: String,
    pub machine: Machine,
    pub cases: Vec<Case>,
    /// Subjects that are not installed.
    pub missing: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct Machine {
    pub cores: usize,
    pub memory_bytes: u64,
    pub kernel: String,
    pub cpu: String,
}

#[derive(Debug, Serialize)]
pub struct Case {
    pub case: String,
    pub subject: String,
    /// User bytes in scope; the same for every subject of a case.
    pub bytes: u64,
    pub rows: Option<u64>,
    pub runs: Vec<Run>,
    pub note: String,
}

pub fn machine() -> Machine {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        text.lines()
            .find(|line| line.starts_with(name))
            .and_then(|line| line.split_once(':'))
            .map(|(_, value)| value.trim().to_owned())
            .unwrap_or_default()
    };
    let kib = field(&read("/proc/meminfo"), "MemTotal");
    Machine {
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        memory_bytes: kib.split_whitespace().next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0) * 1024,
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        cpu: field(&read("/proc/cpuinfo"), "model name"),
    }
}

/// A table with medians; the spread stands in the JSON.
pub fn markdown(suite: &Suite) -> String {
    let mut out = format!(
        "{}: {} cores, {:.0} GiB, Linux {}, {}\n\n| case | subject | seconds | MB/s | CPU s | other CPU s | peak MiB | note |\n|---|---|---|---|---|---|---|---|\n",
        suite.suite,
        suite.machine.cores,
        suite.machine.memory_bytes as f64 / f64::from(1 << 30),
        suite.machine.kernel,
        suite.machine.cpu,
    );
    for case in &suite.cases {
        let seconds = median(case.runs.iter().map(|run| run.seconds));
        out.push_str(&format!(
            "| {} | {} | {:.2} | {:.0} | {:.2} | {:.2} | {:.0} | {} |\n",
            case.case,
            case.subject,
            seconds,
            case.bytes as f64 / 1e6 / seconds.max(1e-9),
            median(case.runs.iter().map(|run| run.cpu_seconds)),
            median(case.runs.iter().map(|run| run.other_cpu_seconds)),
            median(case.runs.iter().map(|run| run.peak_rss_bytes as f64)) / f64::from(1 << 20),
            case.note,
        ));
    }
    for name in &suite.missing {
        out.push_str(&format!("\nmissing: {name}\n"));
    }
    out
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}
