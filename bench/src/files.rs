//! Suite `files`: a folder from one node to the other on loopback, by Posthouse and by its peers. Both ends share the
//! machine. Each run begins with a new folder (empty, or with an older version in it) on a synced disk and a source that lies in the kernel's memory,
//! and ends with a comparison of all content, outside its time. Subjects take turns.

mod capped;
mod data;
mod subjects;

use crate::report::{Case, Suite, machine};
use crate::site::LOOPBACK;
use crate::{chosen, turns};
use anyhow::ensure;
pub use data::Data;
use data::Edits;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use subjects::SUBJECTS;
pub use subjects::{Subject, Way};

struct Plan {
    name: &'static str,
    data: Data,
    trial: Trial,
}

/// What happens on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trial {
    Plain,
    /// The provider is killed when half of it is there, and started again.
    Cut,
    /// The provider is held to a bandwidth, and to half of it from the middle on.
    Capped,
    /// The job has landed a change of the file before, of which it may remember something. Peers find the same older
    /// version, and remember nothing.
    Again,
}

const PLANS: &[Plan] = &[
    Plan { name: "random-4g", data: Data::Random(4 << 30), trial: Trial::Plain },
    Plan { name: "random-64m", data: Data::Random(64 << 20), trial: Trial::Plain },
    Plan { name: "random-256m", data: Data::Random(256 << 20), trial: Trial::Plain },
    Plan { name: "random-1g", data: Data::Random(1 << 30), trial: Trial::Plain },
    Plan { name: "random-8g", data: Data::Random(8 << 30), trial: Trial::Plain },
    Plan { name: "csv-4g", data: Data::Csv(4 << 30), trial: Trial::Plain },
    Plan { name: "small-20k", data: Data::Small(20_000), trial: Trial::Plain },
    Plan { name: "tiny-20k", data: Data::Tiny(20_000), trial: Trial::Plain },
    Plan { name: "tiny-1m", data: Data::Tiny(1_000_000), trial: Trial::Plain },
    Plan { name: "sparse-100g", data: Data::Sparse(100 << 30), trial: Trial::Plain },
    Plan { name: "cap-64m", data: Data::Random(1 << 30), trial: Trial::Capped },
    Plan { name: "resume-50pct", data: Data::Random(4 << 30), trial: Trial::Cut },
    Plan {
        name: "changed-1pct",
        data: Data::Changed(4 << 30, Edits { count: 64, bytes: 655 << 10, moves: true }),
        trial: Trial::Plain,
    },
    Plan {
        name: "changed-again-1pct",
        data: Data::Changed(4 << 30, Edits { count: 64, bytes: 655 << 10, moves: true }),
        trial: Trial::Again,
    },
    Plan {
        name: "changed-4k",
        data: Data::Changed(4 << 30, Edits { count: 10_240, bytes: 4 << 10, moves: false }),
        trial: Trial::Plain,
    },
];

pub struct Options<'a> {
    pub cases: &'a [String],
    pub subjects: &'a [String],
    pub runs: u32,
    /// The folder below which sources and targets lie meanwhile.
    pub data: Option<&'a Path>,
}

/// `build` gives the program; it is asked only where Posthouse is among the subjects.
pub fn run(build: impl FnOnce() -> anyhow::Result<PathBuf>, options: &Options) -> anyhow::Result<Suite> {
    let plans = chosen(PLANS, options.cases, "files", "case", |plan| plan.name.to_owned())?;
    let subjects = chosen(SUBJECTS, options.subjects, "files", "subject", |subject| subject.name().to_owned())?;
    let program = if subjects.iter().any(|subject| subject.is_own()) { Some(build()?) } else { None };
    let mut suite = Suite { bases: &["quinn"], ..Suite::new("files", machine()) };
    let version = |subject: Subject| subject.version(program.as_deref());
    let present = turns::present(subjects, &mut suite, Subject::name, version);
    for plan in plans {
        case(plan, program.as_deref(), &present, options, &mut suite)?;
    }
    Ok(suite)
}

fn case(
    plan: &Plan,
    program: Option<&Path>,
    subjects: &[(Subject, String)],
    options: &Options,
    suite: &mut Suite,
) -> anyhow::Result<()> {
    let folder = |prefix: &str| {
        let mut builder = tempfile::Builder::new();
        builder.prefix(prefix);
        match options.data {
            Some(data) => builder.tempdir_in(data),
            None => builder.tempdir(),
        }
    };
    let source = folder("posthouse-bench-source-")?;
    eprintln!("{}: making the source", plan.name);
    let bytes = plan.data.make(source.path())?;
    let before = folder("posthouse-bench-before-")?;
    if let Some(older) = plan.data.older() {
        older.make(before.path())?;
    }
    let row = |(subject, version): &(Subject, String)| Case {
        case: plan.name.to_owned(),
        subject: subject.name().to_owned(),
        bytes,
        rows: None,
        runs: Vec::new(),
        line: None,
        note: format!("{version}; {}", subject.note()),
    };
    let is_for_all = matches!(plan.trial, Trial::Plain | Trial::Again);
    let subjects: Vec<_> = subjects.iter().filter(|(subject, _)| is_for_all || subject.is_own()).collect();
    turns::take(suite, subjects.iter().map(|subject| row(subject)).collect(), options.runs, |turn| {
        let subject = subjects[turn].0;
        let (target, scratch) = (folder("posthouse-bench-target-")?, folder("posthouse-bench-scratch-")?);
        // Posthouse itself is to land the older version there, as a change of something.
        let is_to_change = plan.trial == Trial::Again && subject.is_own();
        let stands = if is_to_change { source.path() } else { before.path() };
        for older in std::fs::read_dir(stands)? {
            let older = older?;
            std::fs::copy(older.path(), target.path().join(older.file_name()))?;
        }
        settle(source.path())?;
        let way = Way {
            from: source.path(),
            before: before.path(),
            to: target.path(),
            bytes,
            scratch: scratch.path(),
            trial: plan.trial,
            giving: LOOPBACK,
            landing: LOOPBACK,
        };
        let run = subject.carry(&way, program)?;
        if subject.lands() {
            same(source.path(), target.path())?;
        }
        Ok(run)
    });
    Ok(())
}

/// Nothing of earlier runs is left to be written, and the source is in the kernel's memory.
fn settle(source: &Path) -> anyhow::Result<()> {
    rustix::fs::sync();
    let mut open = vec![source.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            } else {
                std::io::copy(&mut std::fs::File::open(entry.path())?, &mut std::io::sink())?;
            }
        }
    }
    Ok(())
}

pub fn same(left: &Path, right: &Path) -> anyhow::Result<()> {
    let mut diff = Command::new("diff");
    let status = diff.args(["-rq", "--no-dereference"]).arg(left).arg(right).stdout(Stdio::null()).status()?;
    ensure!(status.success(), "the content differs");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_that_differs_is_found() {
        let [left, right] = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
        for folder in [&left, &right] {
            Data::Tiny(3).make(folder.path()).expect("data");
        }
        same(left.path(), right.path()).expect("the same");
        let file = right.path().join("d00000/f0000001");
        let mut content = std::fs::read(&file).expect("a file");
        content[1000] ^= 1;
        std::fs::write(&file, content).expect("a changed file");
        same(left.path(), right.path()).expect_err("one bit differs");
        std::fs::remove_file(&file).expect("the file goes");
        same(left.path(), right.path()).expect_err("a file is missing");
    }
}
