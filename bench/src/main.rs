//! `bench SUITE`: workloads side by side with peers, in one run, interleaved.
//! Each run's content is checked; the CPU of all processes of both ends is counted, and so is the CPU that
//! anything else used meanwhile, so that a disturbed run is seen. Results: JSON, a Markdown table and a plot.
//!
//! `smoke`: small cases that show in a minute whether a build still performs.
//! `files`: folders from node to node, beside the tools that copy files.
//! `tables`: a large table from database to database, beside the tools that do the same.
//! `wan`: a large file over a long line that loses packets, or is in trouble on the way, beside TCP's own senders and
//! tools that copy files.

mod dice;
mod files;
mod measure;
mod plot;
mod report;
mod servers;
mod site;
mod smoke;
mod tables;
mod turns;
mod wan;

use anyhow::{Context, bail, ensure};
use clap::Parser;
use std::path::PathBuf;
use std::process::Command;

/// Measure posthouse beside its peers
#[derive(Parser)]
struct Cli {
    /// Which suite: smoke, files, tables, wan
    suite: String,
    /// Only this case; may be given several times
    #[arg(long = "case", value_name = "NAME")]
    cases: Vec<String>,
    /// Only this subject; may be given several times (files, tables, wan)
    #[arg(long = "subject", value_name = "NAME")]
    subjects: Vec<String>,
    /// Another number of rows than the case's; the case is then named by it. Given several times, each is measured, and
    /// the plot shows the cost of a row by their number (tables)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    rows: Vec<u64>,
    /// Counted runs of each subject, interleaved
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Keep files, or the database server's data, below this folder meanwhile (files, tables)
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Also write the result as JSON into this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also write JSON, a Markdown table and an SVG plot into this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let suite = match cli.suite.as_str() {
        "smoke" => {
            let only_tables = cli.subjects.is_empty() && cli.rows.is_empty() && cli.data.is_none();
            ensure!(only_tables, "--subject and --data belong to other suites, --rows to tables");
            smoke::run(&build()?, &cli.cases, cli.runs)?
        }
        "files" => {
            ensure!(cli.rows.is_empty(), "--rows belongs to the suite tables");
            let data = cli.data.as_deref();
            files::run(build, &files::Options { cases: &cli.cases, subjects: &cli.subjects, runs: cli.runs, data })?
        }
        "tables" => tables::run(
            build,
            &tables::Options {
                cases: &cli.cases,
                subjects: &cli.subjects,
                rows: &cli.rows,
                runs: cli.runs,
                data: cli.data.as_deref(),
            },
        )?,
        "wan" => {
            let only_tables = cli.rows.is_empty() && cli.data.is_none();
            ensure!(only_tables, "--rows belongs to the suite tables, --data to tables and files");
            wan::run(build, &cli.cases, &cli.subjects, cli.runs)?
        }
        other => bail!("there is no suite `{other}`; there is: smoke, files, tables, wan"),
    };
    let json = serde_json::to_string_pretty(&suite)?;
    if let Some(file) = &cli.json {
        std::fs::write(file, &json).with_context(|| format!("{} cannot be written", file.display()))?;
    }
    let markdown = report::markdown(&suite);
    if let Some(folder) = &cli.out {
        std::fs::create_dir_all(folder)?;
        for (ending, content) in [("json", &json), ("md", &markdown), ("svg", &plot::svg(&suite))] {
            std::fs::write(folder.join(format!("{}.{ending}", suite.suite)), content)?;
        }
    }
    println!("{markdown}");
    ensure!(!suite.failed.iter().any(|failure| failure.subject.starts_with("posthouse")), "posthouse failed");
    Ok(())
}

/// Builds `posthouse` in release and gives the one beside this program; `POSTHOUSE_PROGRAM` names another one.
fn build() -> anyhow::Result<PathBuf> {
    if let Some(program) = std::env::var_os("POSTHOUSE_PROGRAM") {
        return Ok(program.into());
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--release", "--locked", "--quiet", "--package", "posthouse"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .status()
        .context("cargo does not start")?;
    if !status.success() {
        bail!("posthouse does not build");
    }
    let here = std::env::current_exe()?;
    let folder = here.parent().context("this program has a folder")?;
    let beside = folder.with_file_name("release").join("posthouse");
    if beside.is_file() { Ok(beside) } else { bail!("{} is not there", beside.display()) }
}

/// Those that were asked for, or all.
fn chosen<'a, T>(
    all: &'a [T],
    wanted: &[String],
    suite: &str,
    what: &str,
    name: impl Fn(&T) -> String,
) -> anyhow::Result<Vec<&'a T>> {
    if let Some(unknown) = wanted.iter().find(|wanted| !all.iter().any(|one| name(one) == **wanted)) {
        let names: Vec<String> = all.iter().map(name).collect();
        bail!("the suite {suite} has no {what} `{unknown}`; it has: {}", names.join(", "));
    }
    Ok(all.iter().filter(|one| wanted.is_empty() || wanted.contains(&name(one))).collect())
}
