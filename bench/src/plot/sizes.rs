//! What a unit of content costs by how much of it there is, where that was measured at three sizes or more: seconds for
//! a million rows of a table; seconds, and CPU seconds, for a gigabyte of files whose case is named by its size. Each
//! tenfold size is as wide as the one before it.

use super::{HEAD, LABEL, MARGIN, OURS, THEIRS, text};
use crate::measure::Run;
use crate::report::{Case, Suite};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Draws all of it; gives where the next thing begins.
pub fn draw(body: &mut String, suite: &Suite, mut top: f64) -> f64 {
    for ((family, scale), cases) in families(suite) {
        for (what, cost) in scale.costs() {
            let title = format!("{family}: {what} for {}", scale.unit());
            top = by_size(body, suite, &title, scale, *cost, &cases, top);
        }
    }
    top
}

/// What the size of a case is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Scale {
    Rows,
    Bytes,
}

/// What is told of a run.
type Cost = fn(&Run) -> f64;

impl Scale {
    /// Of a case, with the name of those that differ from it in size alone.
    fn of(case: &Case) -> Option<(String, Self)> {
        let named = case.case.rsplit_once('-');
        if case.rows.is_some() {
            return Some((named.map_or(case.case.as_str(), |(family, _)| family).to_owned(), Self::Rows));
        }
        let (family, size) = named?;
        let number = size.strip_suffix(['m', 'g'])?;
        let is_size = !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit());
        is_size.then(|| (family.to_owned(), Self::Bytes))
    }

    fn size(self, case: &Case) -> u64 {
        match self {
            Self::Rows => case.rows.unwrap_or(1),
            Self::Bytes => case.bytes,
        }
        .max(1)
    }

    fn label(self, size: u64) -> String {
        match self {
            Self::Bytes if size >= 1 << 30 => format!("{:.0} GiB", size as f64 / f64::from(1 << 30)),
            Self::Bytes => format!("{:.0} MiB", size as f64 / f64::from(1 << 20)),
            Self::Rows => size.to_string(),
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Self::Rows => "a million rows",
            Self::Bytes => "a gigabyte",
        }
    }

    fn per_unit(self, case: &Case, cost: f64) -> f64 {
        let unit = match self {
            Self::Rows => 1e6,
            Self::Bytes => 1e9,
        };
        cost * unit / self.size(case) as f64
    }

    fn costs(self) -> &'static [(&'static str, Cost)] {
        static COSTS: [(&str, Cost); 2] = [("seconds", |run| run.seconds), ("CPU seconds", |run| run.cpu_seconds)];
        match self {
            Self::Rows => &COSTS[..1],
            Self::Bytes => &COSTS,
        }
    }
}

/// Cases that differ in size alone, of which there are three or more.
fn families(suite: &Suite) -> BTreeMap<(String, Scale), Vec<&Case>> {
    let mut families: BTreeMap<(String, Scale), Vec<&Case>> = BTreeMap::new();
    for case in &suite.cases {
        if let Some(family) = Scale::of(case) {
            families.entry(family).or_default().push(case);
        }
    }
    families
        .retain(|(_, scale), cases| cases.iter().map(|case| scale.size(case)).collect::<BTreeSet<u64>>().len() >= 3);
    families
}

/// Draws the cost of a unit of all subjects; gives where the next thing begins.
fn by_size(body: &mut String, suite: &Suite, title: &str, scale: Scale, cost: Cost, cases: &[&Case], top: f64) -> f64 {
    let all_runs = cases.iter().flat_map(|case| case.runs.iter().map(|run| scale.per_unit(case, cost(run))));
    let most = all_runs.fold(1e-9, f64::max);
    let sizes: BTreeSet<u64> = cases.iter().map(|case| scale.size(case)).collect();
    let log = |size: u64| (size as f64).log10();
    let (first, last) = (sizes.first().map_or(0.0, |size| log(*size)), sizes.last().map_or(1.0, |size| log(*size)));
    let (left, floor) = (MARGIN + LABEL, top + HEAD + LINES);
    let x = |size: u64| left + (log(size) - first) / (last - first).max(1e-9) * SIZES;
    let y = |cost: f64| floor - cost / most * LINES;
    text(body, MARGIN, top + 14.0, "start", "#000", title);
    for size in &sizes {
        text(body, x(*size), floor + 16.0, "middle", "#666", &scale.label(*size));
    }
    for mark in [0.0, most / 2.0, most] {
        text(body, left - 8.0, y(mark) + 4.0, "end", "#666", &format!("{mark:.2}"));
        let (y, right) = (y(mark), left + SIZES);
        let _ = writeln!(body, "<path d=\"M{left:.1} {y:.1}H{right:.1}\" stroke=\"#eee\"/>");
    }
    let subjects: BTreeSet<&str> = cases.iter().map(|case| case.subject.as_str()).collect();
    let mut names = Vec::new();
    for subject in subjects {
        let mut own: Vec<&Case> = cases.iter().copied().filter(|case| case.subject == subject).collect();
        own.sort_by_key(|case| scale.size(case));
        let colour = if subject.starts_with("posthouse") { OURS } else { THEIRS };
        let mut line = String::new();
        for case in &own {
            let (x, middle) = (x(scale.size(case)), y(scale.per_unit(case, case.median(cost))));
            let _ = write!(line, "{}{x:.1} {middle:.1}", if line.is_empty() { 'M' } else { 'L' });
            for run in &case.runs {
                let y = y(scale.per_unit(case, cost(run)));
                let fill = if suite.disturbed(run) { "#fff" } else { colour };
                let _ =
                    writeln!(body, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\" fill=\"{fill}\" stroke=\"#000\"/>");
            }
        }
        let _ = writeln!(body, "<path d=\"{line}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>");
        if let Some(end) = own.last() {
            names.push((y(scale.per_unit(end, end.median(cost))) + 4.0, subject));
        }
    }
    // Each beside the end of its line, but none over another.
    names.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    let mut free = f64::NEG_INFINITY;
    for (height, subject) in names {
        let height = height.max(free);
        text(body, left + SIZES + 8.0, height, "start", "#000", subject);
        free = height + APART;
    }
    floor + HEAD + MARGIN
}

const SIZES: f64 = 620.0;
const LINES: f64 = 200.0;
/// Between the lines of names.
const APART: f64 = 13.0;

#[cfg(test)]
mod tests {
    use super::super::svg;
    use super::*;
    use crate::report::tests::suite;

    fn sized(case: &Case, name: &str, rows: Option<u64>, bytes: u64, seconds: f64) -> Case {
        Case {
            case: name.to_owned(),
            subject: case.subject.clone(),
            bytes,
            rows,
            runs: vec![Run { seconds, cpu_seconds: 2.0 * seconds, ..case.runs[0].clone() }],
            line: None,
            note: String::new(),
        }
    }

    /// Of the points of each line.
    fn heights(picture: &str) -> Vec<Vec<String>> {
        let lines = picture.lines().filter(|line| line.contains("fill=\"none\""));
        let numbers = |line: &str| -> Vec<String> {
            let points = line.split(['M', 'L', '"']).filter_map(|point| point.split_once(' '));
            points.map(|(_, y)| y.to_owned()).filter(|y| y.parse::<f64>().is_ok()).collect()
        };
        lines.map(numbers).collect()
    }

    #[test]
    fn three_sizes_of_a_table_are_drawn_as_what_a_million_rows_take() {
        let mut suite = suite();
        assert!(!svg(&suite).contains("for a million rows"), "there is one size");
        let first = &suite.cases[0];
        let small = sized(first, "pg-pg-register-500k", Some(500_000), 1, 1.0);
        let large = sized(first, "pg-pg-register-50m", Some(50_000_000), 1, 100.0);
        suite.cases.extend([small, large]);
        let picture = svg(&suite);
        assert!(picture.contains("pg-pg-register: seconds for a million rows"), "{picture}");
        assert!(!picture.contains("CPU seconds for") && !picture.contains("gigabyte"), "{picture}");
        // Three points at the same height: every million takes two seconds, whatever the number.
        let line = &heights(&picture)[0];
        assert!(line.len() == 3 && line.iter().all(|height| *height == line[0]), "{line:?}");
        assert_eq!(picture.matches(">500000<").count() + picture.matches(">50000000<").count(), 2);
    }

    #[test]
    fn files_named_by_their_size_are_drawn_as_what_a_gigabyte_takes_of_time_and_of_the_processor() {
        let mut suite = suite();
        let first = suite.cases.remove(0);
        let of = |name: &str, mib: u64| sized(&first, name, None, mib << 20, mib as f64 / 100.0);
        suite.cases =
            vec![of("random-64m", 64), of("random-8g", 8 << 10), of("cap-64m", 1 << 10), of("small-20k", 400)];
        assert!(!svg(&suite).contains("gigabyte"), "two sizes are no line");
        // The largest costs twice as much of everything.
        suite.cases.push(sized(&first, "random-1g", None, 1 << 30, 20.48));
        let picture = svg(&suite);
        for title in ["random: seconds for a gigabyte", "random: CPU seconds for a gigabyte"] {
            assert!(picture.contains(title), "{picture}");
        }
        assert!(!picture.contains("cap: ") && !picture.contains("small: "), "{picture}");
        assert!([">64 MiB<", ">1 GiB<", ">8 GiB<"].iter().all(|label| picture.contains(label)), "{picture}");
        let lines = heights(&picture);
        assert_eq!(lines.len(), 2);
        for line in lines {
            assert!(line.len() == 3 && line[0] == line[2] && line[0] != line[1], "{line:?}");
        }
    }

    #[test]
    fn names_of_lines_that_end_together_stand_apart() {
        let mut suite = suite();
        let (ours, theirs) = (suite.cases.remove(0), suite.cases.remove(0));
        for (name, size) in [("random-64m", 64_u64), ("random-1g", 1 << 10), ("random-4g", 4 << 10)] {
            for case in [&ours, &theirs] {
                suite.cases.push(sized(case, name, None, size << 20, 1.0));
            }
        }
        let mut own = String::new();
        draw(&mut own, &suite, 0.0);
        let height = |name: &str| -> f64 {
            let line = own.lines().find(|line| line.contains(name)).expect("a name");
            let (_, rest) = line.split_once(" y=\"").expect("a height");
            rest.split_once('"').expect("its end").0.parse().expect("a number")
        };
        assert!((height("peer &lt;x&gt;") - height("copy-binary")).abs() >= APART - 0.1, "{own}");
    }
}
