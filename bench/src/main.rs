//! `bench SUITE`: workloads side by side with peers, in one run, interleaved.
//! Each run's content is checked; the CPU of all processes of both ends is counted, and so is the CPU that
//! anything else used meanwhile, so that a disturbed run is seen. Results: JSON, and a Markdown table.
//!
//! The suite that exists is `smoke`: small cases that show in a minute whether a build still performs.

mod measure;
mod report;
mod site;
mod smoke;

use anyhow::{Context, bail};
use clap::Parser;
use std::path::PathBuf;
use std::process::Command;

/// Measure posthouse beside its peers
#[derive(Parser)]
struct Cli {
    /// Which suite: smoke
    suite: String,
    /// Only this case; may be given several times
    #[arg(long = "case", value_name = "NAME")]
    cases: Vec<String>,
    /// Counted runs of each subject, interleaved
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Also write the result as JSON into this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also write JSON and a Markdown table into this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let program = build()?;
    let suite = match cli.suite.as_str() {
        "smoke" => smoke::run(&program, &cli.cases, cli.runs)?,
        other => bail!("there is no suite `{other}`; there is: smoke"),
    };
    let json = serde_json::to_string_pretty(&suite)?;
    if let Some(file) = &cli.json {
        std::fs::write(file, &json).with_context(|| format!("{} cannot be written", file.display()))?;
    }
    let markdown = report::markdown(&suite);
    if let Some(folder) = &cli.out {
        std::fs::create_dir_all(folder)?;
        std::fs::write(folder.join(format!("{}.json", suite.suite)), &json)?;
        std::fs::write(folder.join(format!("{}.md", suite.suite)), &markdown)?;
    }
    println!("{markdown}");
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
