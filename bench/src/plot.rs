//! A suite as one picture: for each case, a bar to the median time of each subject with a dot for every run,
//! and beside it the CPU of client and server; below them, what was measured at several sizes as lines by size. Plain
//! SVG, readable without this program.

mod sizes;

use crate::report::{Case, Suite};
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
    top = sizes::draw(&mut body, suite, top);
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
}
