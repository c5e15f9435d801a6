//! The result of a suite, as JSON and as a table. Medians stand in the table; every run stands beside them,
//! and one during which something else used the machine is marked.

use crate::measure::{Recovery, Run};
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Debug, Serialize)]
pub struct Suite {
    pub suite: String,
    pub machine: Machine,
    /// What the subjects share beside the machine: a server and its settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub setting: Option<String>,
    pub cases: Vec<Case>,
    /// Subjects that are not installed.
    pub missing: Vec<String>,
    /// Why, by subject.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub missing_because: BTreeMap<String, String>,
    /// Subjects that ended with an error or landed something else; their earlier runs stay in `cases`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<Failure>,
    /// The subjects that others are set in relation to: in each case the first of these that is there.
    #[serde(skip)]
    pub bases: &'static [&'static str],
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
    /// Of cases over a long line.
    #[serde(flatten)]
    pub line: Option<OnLine>,
    pub note: String,
}

/// Medians.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct OnLine {
    /// User bytes over what the line can carry in the time.
    pub link_share: f64,
    /// The same for the time in which data were on the line, without what begins and ends a transfer.
    pub flowing_share: f64,
    /// Of the packets that came to the line's queue on the way of the data, the share that it dropped.
    pub queue_drop_share: f64,
}

#[derive(Debug, Serialize)]
pub struct Failure {
    pub case: String,
    pub subject: String,
    pub reason: String,
}

impl Suite {
    pub fn new(suite: &str, machine: Machine) -> Self {
        Self {
            suite: suite.to_owned(),
            machine,
            setting: None,
            cases: Vec::new(),
            missing: Vec::new(),
            missing_because: BTreeMap::new(),
            failed: Vec::new(),
            bases: &[],
        }
    }

    pub fn lacks(&mut self, subject: &str, reason: String) {
        self.missing.push(subject.to_owned());
        self.missing_because.insert(subject.to_owned(), reason);
    }

    /// The figures of the same case that `case` is set in relation to.
    fn base_of(&self, case: &Case) -> Option<&Case> {
        let of = |base: &&str| self.cases.iter().find(|other| other.case == case.case && other.subject == *base);
        self.bases.iter().find_map(of)
    }

    /// What the figures call them.
    fn base_names(&self) -> Option<String> {
        let of_a_case = |base: &&&str| {
            let is_base = |case: &Case| self.base_of(case).is_some_and(|found| found.subject == **base);
            self.cases.iter().any(is_base)
        };
        let used: Vec<&str> = self.bases.iter().filter(of_a_case).copied().collect();
        if used.is_empty() { self.bases.first().map(|base| (*base).to_owned()) } else { Some(used.join(" or ")) }
    }

    /// Whether something else used a good part of the machine during a run.
    pub fn disturbed(&self, run: &Run) -> bool {
        run.other_cpu_seconds > DISTURBED * run.seconds * self.machine.cores as f64
    }
}

impl Case {
    pub fn median(&self, of: impl Fn(&Run) -> f64) -> f64 {
        median(self.runs.iter().map(of))
    }
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

pub fn markdown(suite: &Suite) -> String {
    let machine = &suite.machine;
    let mut out = format!(
        "{}: {} cores, {:.0} GiB, Linux {}, {}\n",
        suite.suite,
        machine.cores,
        machine.memory_bytes as f64 / f64::from(1 << 30),
        machine.kernel,
        machine.cpu,
    );
    if let Some(setting) = &suite.setting {
        out.push_str(&format!("{setting}\n"));
    }
    let base = suite.base_names();
    let relations = base.as_ref().map(|base| format!(" speed / {base} | CPU / {base} |")).unwrap_or_default();
    let rules = if base.is_some() { "---|---|" } else { "" };
    let lines = suite.cases.iter().any(|case| case.line.is_some());
    let (relations, rules) = match lines {
        true => (
            format!(" share of the line | while it flows | dropped at its queue |{relations}"),
            format!("---|---|---|{rules}"),
        ),
        false => (relations, rules.to_owned()),
    };
    out.push_str(&format!(
        "\n| case | subject | s, median | s, each run | MB/s | rows/s |{relations} client CPU s | server CPU s | other CPU s | peak MiB | note |\n|---|---|---|---|---|---|{rules}---|---|---|---|---|\n"
    ));
    let mut disturbed = false;
    for case in &suite.cases {
        let seconds = case.median(|run| run.seconds).max(1e-9);
        let each: Vec<String> = case
            .runs
            .iter()
            .map(|run| {
                disturbed |= suite.disturbed(run);
                format!("{:.2}{}", run.seconds, if suite.disturbed(run) { "\\*" } else { "" })
            })
            .collect();
        let rows = case.rows.map(|rows| format!("{:.0}", rows as f64 / seconds)).unwrap_or_default();
        let mut relations = match (&base, suite.base_of(case)) {
            (None, _) => String::new(),
            (Some(_), None) => " – | – |".to_owned(),
            (Some(_), Some(base)) => format!(
                " {:.2} | {:.2} |",
                base.median(|run| run.seconds) / seconds,
                case.median(|run| run.cpu_seconds) / base.median(|run| run.cpu_seconds).max(1e-9)
            ),
        };
        if lines {
            let percent = |line: OnLine| {
                let [link, flowing] = [line.link_share, line.flowing_share].map(|share| share * 100.0);
                format!(" {link:.1} % | {flowing:.1} % | {:.2} % |", line.queue_drop_share * 100.0)
            };
            relations = case.line.map_or(" – | – | – |".to_owned(), percent) + &relations;
        }
        out.push_str(&format!(
            "| {} | {} | {seconds:.2} | {} | {:.0} | {rows} |{relations} {:.2} | {:.2} | {:.2} | {} | {} |\n",
            case.case,
            case.subject,
            each.join(" "),
            case.bytes as f64 / 1e6 / seconds,
            case.median(|run| run.client_cpu_seconds),
            case.median(|run| run.server_cpu_seconds),
            case.median(|run| run.other_cpu_seconds),
            peak(case),
            case.note.replace('|', "\\|"),
        ));
    }
    if disturbed {
        out.push_str(&format!("\n\\* disturbed: something else used over {:.0}% of the machine\n", DISTURBED * 100.0));
    }
    for case in &suite.cases {
        let capped: Vec<[f64; 2]> = case.runs.iter().filter_map(|run| run.cap_shares).collect();
        let each = |of: fn(&[f64; 2]) -> f64| {
            capped.iter().map(|shares| format!("{:.1}", of(shares) * 100.0)).collect::<Vec<_>>().join(" ")
        };
        if !capped.is_empty() {
            let (first, second) = (each(|[first, _]| *first), each(|[_, second]| *second));
            out.push_str(&format!(
                "\n{}, {}: {first} % of the bandwidth in each run, {second} % once it was changed\n",
                case.case, case.subject
            ));
        }
    }
    for case in &suite.cases {
        let recovered: Vec<Recovery> = case.runs.iter().filter_map(|run| run.recovery).collect();
        let each = |of: fn(&Recovery) -> f64| {
            recovered.iter().map(|recovery| format!("{:.2}", of(recovery))).collect::<Vec<_>>().join(" ")
        };
        if !recovered.is_empty() {
            let (after, twice) = (each(|one| one.seconds), each(|one| one.sent_twice_share * 100.0));
            out.push_str(&format!(
                "\n{}, {}: content flowed again after {after} s in each run, {twice} % of the file was sent twice\n",
                case.case, case.subject
            ));
        }
    }
    for name in &suite.missing {
        let reason = suite.missing_because.get(name).map(|reason| format!(" ({reason})")).unwrap_or_default();
        out.push_str(&format!("\nmissing: {name}{reason}\n"));
    }
    for failure in &suite.failed {
        out.push_str(&format!("\nfailed: {} in {}: {}\n", failure.subject, failure.case, failure.reason));
    }
    out
}

/// One figure, or provider's and consumer's.
fn peak(case: &Case) -> String {
    let mib = |of: fn(&Run) -> Option<u64>| {
        let known = case.runs.iter().filter_map(of).map(|bytes| bytes as f64 / f64::from(1 << 20));
        let middle = median(known);
        if middle.is_nan() { None } else { Some(format!("{middle:.0}")) }
    };
    match (mib(|run| run.provider_peak_rss_bytes), mib(|run| run.consumer_peak_rss_bytes)) {
        (Some(provider), Some(consumer)) => format!("{provider} + {consumer}"),
        _ => mib(|run| Some(run.peak_rss_bytes)).unwrap_or_default(),
    }
}

pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

/// Share of the machine's CPU time that others may have before a run counts as disturbed: the kernel's own
/// threads, which write the data out, are among the others.
const DISTURBED: f64 = 0.1;

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A suite of two subjects, the second run of the slower one disturbed.
    pub fn suite() -> Suite {
        let run = |seconds: f64, other: f64| Run {
            seconds,
            cpu_seconds: seconds * 1.5,
            client_cpu_seconds: seconds * 0.5,
            server_cpu_seconds: seconds,
            other_cpu_seconds: other,
            peak_rss_bytes: 8 << 20,
            provider_peak_rss_bytes: None,
            consumer_peak_rss_bytes: None,
            sent_bytes: None,
            cap_shares: None,
            recovery: None,
        };
        let case = |subject: &str, runs: Vec<Run>| Case {
            case: "pg-pg-register-5m".to_owned(),
            subject: subject.to_owned(),
            bytes: 1_000_000_000,
            rows: Some(5_000_000),
            runs,
            line: None,
            note: "a | b".to_owned(),
        };
        let machine = Machine { cores: 2, memory_bytes: 24 << 30, kernel: "6.1".to_owned(), cpu: "a CPU".to_owned() };
        Suite {
            bases: &["copy-binary", "load-data-pipe"],
            cases: vec![
                case("copy-binary", vec![run(10.0, 0.0), run(11.0, 0.0), run(9.0, 0.0)]),
                case("peer <x>", vec![run(20.0, 0.1), run(40.0, 10.0), run(21.0, 0.0)]),
            ],
            ..Suite::new("tables", machine)
        }
    }

    #[test]
    fn what_was_reached_of_a_bandwidth_is_told_of_each_run() {
        let mut suite = suite();
        assert!(!markdown(&suite).contains("of the bandwidth"));
        suite.cases[0].runs[0].cap_shares = Some([0.991, 1.02]);
        suite.cases[0].runs[2].cap_shares = Some([0.98, 1.0]);
        let text = markdown(&suite);
        let told = "copy-binary: 99.1 98.0 % of the bandwidth in each run, 102.0 100.0 % once it was changed";
        assert!(text.contains(told), "{text}");
    }

    #[test]
    fn how_a_transfer_went_on_is_told_of_each_run() {
        let mut suite = suite();
        assert!(!markdown(&suite).contains("flowed again"));
        for (run, seconds) in suite.cases[0].runs.iter_mut().zip([1.254, 0.9]) {
            let (line_udp_bytes, line_tcp_bytes) = (1, 2);
            run.recovery = Some(Recovery { seconds, sent_twice_share: 0.0021, line_udp_bytes, line_tcp_bytes });
        }
        let told = "copy-binary: content flowed again after 1.25 0.90 s in each run, 0.21 0.21 % of the file was sent";
        assert!(markdown(&suite).contains(told), "{}", markdown(&suite));
        let json = serde_json::to_value(&suite).expect("JSON");
        assert_eq!(json["cases"][0]["runs"][1]["recovery"]["seconds"], 0.9);
        assert!(json["cases"][0]["runs"][2].get("recovery").is_none());
    }

    #[test]
    fn a_median_is_that_of_all_runs_and_a_disturbed_run_is_marked() {
        let text = markdown(&suite());
        assert!(text.contains("| peer <x> | 21.00 | 20.00 40.00\\* 21.00 | 48 | 238095 | 0.48 | 2.10 |"), "{text}");
        assert!(text.contains("| copy-binary | 10.00 | 10.00 11.00 9.00 | 100 | 500000 | 1.00 | 1.00 |"), "{text}");
        assert!(text.contains("a \\| b") && text.contains("disturbed"), "{text}");
    }

    #[test]
    fn shares_of_a_line_stand_in_the_table_and_in_json() {
        let mut suite = suite();
        suite.bases = &[];
        suite.cases[0].line = Some(OnLine { link_share: 0.9123, flowing_share: 0.9456, queue_drop_share: 0.00456 });
        let text = markdown(&suite);
        assert!(text.contains("| 100 | 500000 | 91.2 % | 94.6 % | 0.46 % | 5.00 |"), "{text}");
        assert!(text.contains("| 48 | 238095 | – | – | – | 10.50 |"), "{text}");
        let json = serde_json::to_value(&suite).expect("JSON");
        assert_eq!(json["cases"][0]["link_share"], 0.9123);
        assert!(json["cases"][1].get("link_share").is_none());
    }

    #[test]
    fn a_missing_subject_is_named_with_its_reason() {
        let mut suite = suite();
        suite.lacks("sling", "not installed".to_owned());
        assert!(markdown(&suite).contains("missing: sling (not installed)"));
        let json = serde_json::to_value(&suite).expect("JSON");
        assert_eq!(json["missing"], serde_json::json!(["sling"]));
        assert!(json.get("failed").is_none() && json.get("base").is_none());
    }

    #[test]
    fn each_case_has_its_own_base() {
        let mut suite = suite();
        assert!(markdown(&suite).contains(" speed / copy-binary |"));
        suite.cases[1].case = "pg-mariadb-register-2m".to_owned();
        assert!(markdown(&suite).contains("| peer <x> | 21.00 | 20.00 40.00\\* 21.00 | 48 | 238095 | – | – |"));
        suite.cases[1].subject = "load-data-pipe".to_owned();
        let text = markdown(&suite);
        assert!(text.contains(" speed / copy-binary or load-data-pipe |"), "{text}");
        assert!(
            text.contains("| load-data-pipe | 21.00 | 20.00 40.00\\* 21.00 | 48 | 238095 | 1.00 | 1.00 |"),
            "{text}"
        );
    }
}
