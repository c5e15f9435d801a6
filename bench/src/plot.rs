//! A suite as one picture: for each case, a bar to the median time of each subject with a dot for every run,
//! and beside it the CPU of client and server; where a table was measured at three sizes or more, lines of what a
//! million rows take by how many there are. Plain SVG, readable without this program.

use crate::report::{Case, Suite};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

pub fn svg(suite: &Suite) -> String {
    let mut body = String::new();
    let mut top = MARGIN;
    let mut names: Vec<&str> = Vec::new();
    for case in &suite.cases {
        if !names.contains(&case.case.as_str()) {
            names.push(&case.case);
        }
    }
    for name in names {
        let cases: Vec<&Case> = suite.cases.iter().filter(|case| case.case == name).collect();
        top = group(&mut body, suite, name, &cases, top);
    }
    for (family, cases) in families(suite) {
        top = by_size(&mut body, suite, &family, &cases, top);
    }
    let machine = &suite.machine;
    let foot = format!(
        "{} cores, {}. Bars: medians; dots: single runs, hollow where something else used the machine.",
        machine.cores, machine.cpu
    );
    text(&mut body, MARGIN, top + 12.0, "start", "#666", &foot);
    let height = top + 12.0 + MARGIN;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n{body}</svg>\n"
    )
}

/// Draws one case; gives where the next one begins.
fn group(body: &mut String, suite: &Suite, name: &str, cases: &[&Case], top: f64) -> f64 {
    let most = |of: &dyn Fn(&Case) -> f64| cases.iter().map(|case| of(case)).fold(1e-9, f64::max);
    let longest = most(&|case| case.runs.iter().map(|run| run.seconds).fold(0.0, f64::max));
    let busiest = most(&|case| case.median(|run| run.client_cpu_seconds) + case.median(|run| run.server_cpu_seconds));
    let (time_left, cpu_left) = (MARGIN + LABEL, MARGIN + LABEL + TIME + GAP);
    text(body, MARGIN, top + 14.0, "start", "#000", name);
    text(body, time_left, top + 34.0, "start", "#666", "seconds");
    text(body, cpu_left, top + 34.0, "start", "#666", "CPU seconds: client, server");
    let mut y = top + HEAD;
    for case in cases {
        let middle = y + ROW / 2.0;
        text(body, time_left - 8.0, middle + 4.0, "end", "#000", &case.subject);
        let seconds = case.median(|run| run.seconds);
        let colour = if case.subject.starts_with("posthouse") { OURS } else { THEIRS };
        bar(body, time_left, y, seconds / longest * TIME, colour);
        for run in &case.runs {
            let x = time_left + run.seconds / longest * TIME;
            let fill = if suite.disturbed(run) { "#fff" } else { "#000" };
            let _ =
                writeln!(body, "<circle cx=\"{x:.1}\" cy=\"{middle:.1}\" r=\"2.5\" fill=\"{fill}\" stroke=\"#000\"/>");
        }
        let end = time_left + case.runs.iter().map(|run| run.seconds).fold(0.0, f64::max) / longest * TIME;
        text(body, end + 8.0, middle + 4.0, "start", "#000", &format!("{seconds:.2}"));
        let (client, server) = (case.median(|run| run.client_cpu_seconds), case.median(|run| run.server_cpu_seconds));
        let (client_width, server_width) = (client / busiest * CPU, server / busiest * CPU);
        bar(body, cpu_left, y, client_width, colour);
        bar(body, cpu_left + client_width, y, server_width, SERVER);
        let end = cpu_left + client_width + server_width;
        text(body, end + 8.0, middle + 4.0, "start", "#000", &format!("{client:.1} + {server:.1}"));
        y += ROW;
    }
    y + MARGIN
}

/// Cases that differ in their number of rows alone, of which there are three or more.
fn families(suite: &Suite) -> BTreeMap<String, Vec<&Case>> {
    let mut families: BTreeMap<String, Vec<&Case>> = BTreeMap::new();
    for case in suite.cases.iter().filter(|case| case.rows.is_some()) {
        let family = case.case.rsplit_once('-').map_or(case.case.as_str(), |(family, _)| family);
        families.entry(family.to_owned()).or_default().push(case);
    }
    let sizes = |cases: &[&Case]| cases.iter().filter_map(|case| case.rows).collect::<BTreeSet<u64>>().len();
    families.retain(|_, cases| sizes(cases) >= 3);
    families
}

/// Draws seconds for a million rows by how many rows there are, each tenfold as wide; gives where the next one begins.
fn by_size(body: &mut String, suite: &Suite, family: &str, cases: &[&Case], top: f64) -> f64 {
    let per_million = |case: &Case, seconds: f64| seconds * 1e6 / case.rows.unwrap_or(1).max(1) as f64;
    let all_runs = cases.iter().flat_map(|case| case.runs.iter().map(|run| per_million(case, run.seconds)));
    let most = all_runs.fold(1e-9, f64::max);
    let sizes: BTreeSet<u64> = cases.iter().filter_map(|case| case.rows).collect();
    let log = |rows: u64| (rows.max(1) as f64).log10();
    let (first, last) = (sizes.first().map_or(0.0, |rows| log(*rows)), sizes.last().map_or(1.0, |rows| log(*rows)));
    let (left, floor) = (MARGIN + LABEL, top + HEAD + LINES);
    let x = |rows: u64| left + (log(rows) - first) / (last - first).max(1e-9) * SIZES;
    let y = |seconds: f64| floor - seconds / most * LINES;
    text(body, MARGIN, top + 14.0, "start", "#000", &format!("{family}: seconds for a million rows"));
    for rows in &sizes {
        text(body, x(*rows), floor + 16.0, "middle", "#666", &rows.to_string());
    }
    for mark in [0.0, most / 2.0, most] {
        text(body, left - 8.0, y(mark) + 4.0, "end", "#666", &format!("{mark:.2}"));
        let (y, right) = (y(mark), left + SIZES);
        let _ = writeln!(body, "<path d=\"M{left:.1} {y:.1}H{right:.1}\" stroke=\"#eee\"/>");
    }
    let subjects: BTreeSet<&str> = cases.iter().map(|case| case.subject.as_str()).collect();
    for subject in subjects {
        let mut own: Vec<&Case> = cases.iter().copied().filter(|case| case.subject == subject).collect();
        own.sort_by_key(|case| case.rows);
        let colour = if subject.starts_with("posthouse") { OURS } else { THEIRS };
        let mut line = String::new();
        for case in &own {
            let (x, middle) = (x(case.rows.unwrap_or(1)), y(per_million(case, case.median(|run| run.seconds))));
            let _ = write!(line, "{}{x:.1} {middle:.1}", if line.is_empty() { 'M' } else { 'L' });
            for run in &case.runs {
                let y = y(per_million(case, run.seconds));
                let fill = if suite.disturbed(run) { "#fff" } else { colour };
                let _ =
                    writeln!(body, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\" fill=\"{fill}\" stroke=\"#000\"/>");
            }
        }
        let _ = writeln!(body, "<path d=\"{line}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>");
        if let Some(end) = own.last() {
            let height = y(per_million(end, end.median(|run| run.seconds)));
            text(body, left + SIZES + 8.0, height + 4.0, "start", "#000", subject);
        }
    }
    floor + HEAD + MARGIN
}

fn bar(body: &mut String, left: f64, row: f64, width: f64, colour: &str) {
    let (top, height) = (row + 3.0, ROW - 6.0);
    let _ = writeln!(
        body,
        "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height}\" fill=\"{colour}\"/>"
    );
}

fn text(body: &mut String, x: f64, y: f64, anchor: &str, colour: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(body, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{words}</text>");
}

const WIDTH: f64 = 960.0;
const MARGIN: f64 = 20.0;
const LABEL: f64 = 100.0;
const TIME: f64 = 380.0;
const GAP: f64 = 80.0;
const CPU: f64 = 240.0;
const HEAD: f64 = 40.0;
const ROW: f64 = 24.0;
const SIZES: f64 = 620.0;
const LINES: f64 = 200.0;
const OURS: &str = "#2a6f97";
const THEIRS: &str = "#adb5bd";
const SERVER: &str = "#e9c46a";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::suite;

    #[test]
    fn every_run_has_a_dot_and_names_are_escaped() {
        let picture = svg(&suite());
        assert_eq!(picture.matches("<circle").count(), 6);
        assert_eq!(picture.matches("r=\"2.5\" fill=\"#fff\"").count(), 1, "the disturbed run");
        assert!(picture.contains("peer &lt;x&gt;") && !picture.contains("<x>"));
        // The longest run reaches the end of its scale, the median of the others in proportion.
        assert!(picture.contains("cx=\"500.0\"") && picture.contains("width=\"199.5\""), "{picture}");
        assert!(!picture.contains("for a million rows"), "there is one size");
    }

    #[test]
    fn three_sizes_of_a_table_are_drawn_as_what_a_million_rows_take() {
        let mut suite = suite();
        let sized = |case: &Case, size: &str, rows: u64, seconds: f64| Case {
            case: format!("pg-pg-register-{size}"),
            subject: case.subject.clone(),
            bytes: 1,
            rows: Some(rows),
            runs: vec![crate::measure::Run { seconds, ..case.runs[0].clone() }],
            line: None,
            note: String::new(),
        };
        let first = &suite.cases[0];
        let (small, large) = (sized(first, "500k", 500_000, 1.0), sized(first, "50m", 50_000_000, 100.0));
        suite.cases.extend([small, large]);
        let picture = svg(&suite);
        assert!(picture.contains("pg-pg-register: seconds for a million rows"), "{picture}");
        // Three points at the same height: every million takes two seconds, whatever the number.
        let line = picture.lines().find(|line| line.contains("fill=\"none\"")).expect("a line");
        let heights: Vec<&str> = line
            .split(['M', 'L', '"'])
            .filter_map(|point| point.split_once(' '))
            .map(|(_, y)| y)
            .filter(|y| y.parse::<f64>().is_ok())
            .collect();
        assert_eq!(heights.len(), 3, "{line}");
        assert!(heights.iter().all(|height| *height == heights[0]), "{line}");
        assert_eq!(picture.matches(">500000<").count() + picture.matches(">50000000<").count(), 2);
    }
}
