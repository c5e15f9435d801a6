//! Who takes part in a suite, and in which order: subjects take turns, every other round goes backwards, and each two
//! rounds begin with another one, so that none always follows the same neighbour: what one leaves behind is not always
//! the same one's to bear.

use crate::measure::Run;
use crate::report::{Case, Failure, Suite};
use std::path::{Path, PathBuf};

/// Where `bench/install-peers` puts what comes from PyPI and from the Rust registry.
pub fn peers() -> PathBuf {
    match std::env::var_os("POSTHOUSE_PEERS") {
        Some(folder) => folder.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench-peers"),
    }
}

/// Those that can run here, with their versions; of the others the suite is told why not.
pub fn present<S: Copy, E: std::fmt::Display>(
    subjects: Vec<&S>,
    suite: &mut Suite,
    name: impl Fn(S) -> &'static str,
    version: impl Fn(S) -> Result<String, E>,
) -> Vec<(S, String)> {
    let mut present = Vec::new();
    for subject in subjects {
        match version(*subject) {
            Ok(version) => present.push((*subject, version)),
            Err(reason) => suite.lacks(name(*subject), format!("{reason:#}")),
        }
    }
    present
}

/// Carries each of the cases, one for each subject, so many times. A subject that fails is not given further turns, and
/// is in the suite as failed.
pub fn take(suite: &mut Suite, mut cases: Vec<Case>, rounds: u32, mut carry: impl FnMut(usize) -> anyhow::Result<Run>) {
    let mut turns: Vec<usize> = (0..cases.len()).collect();
    for round in 1..=rounds {
        let mut failed = Vec::new();
        for turn in &turns {
            let Case { case, subject, bytes, runs, .. } = &mut cases[*turn];
            match carry(*turn) {
                Ok(run) => {
                    eprintln!(
                        "{case}: {subject}, run {round}: {:.2} s, {:.2} CPU s/GB, {:.2} s CPU elsewhere{}{}",
                        run.seconds,
                        run.cpu_seconds * 1e9 / *bytes as f64,
                        run.other_cpu_seconds,
                        run.sent_bytes.map(|sent| format!(", {:.2} MB sent", sent as f64 / 1e6)).unwrap_or_default(),
                        run.cap_shares
                            .map(|[first, second]| {
                                format!(", {:.1} and {:.1} % of the bandwidth", first * 100.0, second * 100.0)
                            })
                            .unwrap_or_default()
                    );
                    runs.push(run);
                }
                Err(error) => {
                    eprintln!("{case}: {subject}, run {round}: {error:#}");
                    let reason = format!("run {round}: {error:#}");
                    suite.failed.push(Failure { case: case.clone(), subject: subject.clone(), reason });
                    failed.push(*turn);
                }
            }
        }
        turns.retain(|turn| !failed.contains(turn));
        if !turns.is_empty() {
            turns.reverse();
            let back = usize::from(round % 2 == 0);
            turns.rotate_right(back);
        }
    }
    suite.cases.extend(cases.into_iter().filter(|case| !case.runs.is_empty()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::machine;

    #[test]
    fn another_begins_each_round_after_another_and_one_that_fails_has_no_further_turn() {
        let mut suite = Suite::new("turns", machine());
        let case = |subject: &str| Case {
            case: "case".to_owned(),
            subject: subject.to_owned(),
            bytes: 1,
            rows: None,
            runs: Vec::new(),
            line: None,
            note: String::new(),
        };
        let mut order = Vec::new();
        take(&mut suite, ["a", "b", "c", "d"].map(case).into(), 3, |turn| {
            order.push(turn);
            anyhow::ensure!(turn != 3 && (turn != 1 || order.len() < 5), "it fails");
            crate::measure::measured(None, &[], || Ok(()))
        });
        assert_eq!(order, [0, 1, 2, 3, 2, 1, 0, 2, 0]);
        let runs: Vec<_> = suite.cases.iter().map(|case| (case.subject.as_str(), case.runs.len())).collect();
        assert_eq!(runs, [("a", 3), ("b", 1), ("c", 3)]);
        let failed: Vec<_> = suite.failed.iter().map(|failure| failure.subject.as_str()).collect();
        assert_eq!(failed, ["d", "b"]);
    }
}
