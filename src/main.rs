//! `posthouse`: node, coordinator and the operator's tool in one program.
//! Parse, pick the role, run, exit code. Each noun is a file beside this one; every word a person
//! reads is printed by `render` or comes from the problem list of the protocol.

mod bundle;
mod check;
mod coordinator;
mod demo;
mod doctor;
mod explain;
mod generate;
mod grant;
mod help;
mod job;
mod memory;
mod node;
mod quarantine;
mod receipt;
mod reconcile;
mod render;
mod service;
mod statistics;
mod transfer;

use clap::{FromArgMatches, Parser, Subcommand};
use posthouse_protocol::problem::{Code, Exit, Lang, Problem};
use render::Screen;
use std::process::ExitCode;

/// Moves tables and folders between departments, and leaves receipts that three parties can check
#[derive(Parser)]
#[command(name = "posthouse", version, disable_help_subcommand = true, arg_required_else_help = true)]
struct Cli {
    /// Language of everything printed: zh or en (by default the locale's)
    #[arg(long, global = true, value_name = "zh|en", value_parser = render::parse_lang)]
    lang: Option<Lang>,
    /// Print JSON: one object, or a line per object while it runs
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check configuration files: every mistake at its place, nothing is started
    Check(check::Command),
    /// Say what is wrong on this machine, and what to do about it
    Doctor(doctor::Command),
    /// Run the whole exchange on this machine, told step by step
    Demo(demo::Command),
    /// Make, join and run a node
    #[command(subcommand)]
    Node(node::Verb),
    /// The standing arrangements of a node: list, run, pause, resume, remove
    #[command(subcommand)]
    Job(job::Verb),
    /// What was and is under way: list, show, watch, cancel, retry
    #[command(subcommand)]
    Transfer(transfer::Verb),
    /// What is carried on a disk instead of going over a line: export, import
    #[command(subcommand)]
    Bundle(bundle::Verb),
    /// Rows that were refused: list, show, resubmit
    #[command(subcommand)]
    Quarantine(quarantine::Verb),
    /// Balance a day between provider, consumer and coordinator, or compare a table row by row
    Reconcile(reconcile::Command),
    /// Count what a day or a month moved
    Statistics(statistics::Command),
    /// Found and look after a coordinator
    #[command(subcommand)]
    Coordinator(coordinator::Verb),
    /// Give and withdraw grants
    #[command(subcommand)]
    Grant(grant::Verb),
    /// List, show, export and verify receipts
    #[command(subcommand)]
    Receipt(receipt::Verb),
    /// Print the page of an error code, offline
    Explain(explain::Command),
    /// Write man pages or shell completions
    Generate(generate::Command),
}

fn main() -> ExitCode {
    let lang = render::lang_of_process();
    let matches = match help::localized(lang).try_get_matches() {
        Ok(matches) => matches,
        Err(error) => return usage(&error, lang),
    };
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => return usage(&error, lang),
    };
    if matches!(cli.command, Command::Node(node::Verb::Run { .. }) | Command::Coordinator(coordinator::Verb::Run(_))) {
        memory::give_large_blocks_back();
    }
    let screen = Screen::new(cli.lang.unwrap_or(lang), cli.json);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return screen.problem(&Problem::new(Code::InsideFailed).cause(error)),
    };
    let outcome = runtime.block_on(run(cli.command, &screen));
    // Work on blocking threads (a database that does not answer) must not hold up the exit.
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    match outcome {
        Ok(Done::Yes) => ExitCode::SUCCESS,
        Ok(Done::Exit(exit)) => ExitCode::from(exit as u8),
        Err(problem) => screen.problem(&problem),
    }
}

async fn run(command: Command, screen: &Screen) -> Outcome {
    match command {
        Command::Check(command) => check::run(command, screen).await,
        Command::Doctor(command) => doctor::run(command, screen).await,
        Command::Demo(command) => demo::run(command, screen).await,
        Command::Node(verb) => node::run(verb, screen).await,
        Command::Job(verb) => job::run(verb, screen).await,
        Command::Transfer(verb) => transfer::run(verb, screen).await,
        Command::Bundle(verb) => bundle::run(verb, screen).await,
        Command::Quarantine(verb) => quarantine::run(verb, screen).await,
        Command::Reconcile(command) => reconcile::run(command, screen).await,
        Command::Statistics(command) => statistics::run(command, screen).await,
        Command::Coordinator(verb) => coordinator::run(verb, screen).await,
        Command::Grant(verb) => grant::run(verb, screen).await,
        Command::Receipt(verb) => receipt::run(verb, screen).await,
        Command::Explain(command) => explain::run(command, screen),
        Command::Generate(command) => generate::run(command, screen),
    }
}

/// How a command ended when nothing went wrong on the way: done, or with a documented exit code
/// (3 = a difference was found) after its result was printed.
pub(crate) enum Done {
    Yes,
    Exit(Exit),
}

pub(crate) type Outcome = Result<Done, Problem>;

/// Help and version go to stdout with exit 0; a wrong command line is PH1003 with exit 2.
fn usage(error: &clap::Error, lang: Lang) -> ExitCode {
    use clap::error::ErrorKind;
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A closed pipe while printing help is nobody's problem.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            ExitCode::from(Exit::Usage as u8)
        }
        _ => {
            let text = error.to_string();
            let what = text.trim_start_matches("error: ").lines().next().unwrap_or_default();
            let rest: Vec<&str> = text.lines().skip(1).filter(|line| !line.trim().is_empty()).collect();
            let json = std::env::args_os().any(|arg| arg == "--json");
            let problem = Problem::new(Code::UsageInvalid).with("what", what).cause(rest.join("\n"));
            Screen::new(lang, json).problem(&problem)
        }
    }
}
