//! `posthouse bundle`: what is carried on a disk instead of going over a line.

use crate::job::{read, words};
use crate::node::ask;
use crate::render::{Screen, count, size};
use crate::transfer::state_text;
use crate::{Done, Outcome};
use posthouse_node::admin::{Exported, NotTaken, Request, Summary};
use posthouse_platform::settings::Size;
use posthouse_protocol::id::JobId;
use posthouse_protocol::job::State;
use posthouse_protocol::problem::{Code, Exit, Problem};
use serde_json::Value;
use std::path::{Path, PathBuf};

#[derive(clap::Subcommand)]
pub(crate) enum Verb {
    /// Run a job that pushes, into sealed parts in a folder
    Export {
        /// The node's configuration file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The job, which pushes
        #[arg(value_name = "JOB")]
        job: JobId,
        /// The folder for the parts, which exists
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// How long a part is
        #[arg(long, value_name = "SIZE", default_value = "512 MiB")]
        part_size: Size,
    },
    /// Take up what was carried here in a folder: what others gave, and their statements of what this node gave
    Import {
        /// The node's configuration file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The folder with the parts
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// Where statements go that are to be carried back (by default the same folder)
        #[arg(long, value_name = "DIR")]
        returns: Option<PathBuf>,
    },
}

pub(crate) async fn run(verb: Verb, screen: &Screen) -> Outcome {
    match verb {
        Verb::Export { config, job, out, part_size } => export(&config, job, &out, part_size, screen).await,
        Verb::Import { config, folder, returns } => import(&config, &folder, returns.as_deref(), screen).await,
    }
}

async fn export(config: &Path, job: JobId, out: &Path, part_size: Size, screen: &Screen) -> Outcome {
    let request = Request::BundleExport { job, out: folder(out)?, part_size: part_size.0 };
    let done: Value = ask(config, &request, screen).await?.done().await?;
    let exported: Exported = read(done)?;
    if screen.json {
        screen.object(&exported);
        return Ok(Done::Yes);
    }
    screen.line(format!(
        "{}: {} {}, {}",
        exported.transfer,
        count(u64::from(exported.parts)),
        screen.say("parts", "个分件"),
        size(exported.bytes),
    ));
    screen.note(format!(
        "{} {}: posthouse bundle import",
        screen.say("carry the folder to", "请将该目录搬运至"),
        exported.peer
    ));
    Ok(Done::Yes)
}

async fn import(config: &Path, from: &Path, returns: Option<&Path>, screen: &Screen) -> Outcome {
    let request = Request::BundleImport { folder: folder(from)?, returns: folder(returns.unwrap_or(from))? };
    let (mut settled, mut wrong) = (true, None);
    let take = |item: Value| {
        if screen.json {
            screen.object(&item);
        }
        if let Ok(not_taken) = serde_json::from_value::<NotTaken>(item.clone()) {
            screen.note(not_taken.problem.to_string());
            wrong.get_or_insert(not_taken.problem);
            return;
        }
        let Ok(summary) = serde_json::from_value::<Summary>(item) else { return };
        settled &= summary.state == State::Settled;
        if screen.json {
            return;
        }
        screen.line(format!("{} {}: {}", summary.transfer, state_text(summary.state, screen), words(&summary, screen)));
        if let Some(problem) = &summary.problem {
            screen.problem(problem);
        }
    };
    let done: Value = ask(config, &request, screen).await?.finish(take).await?;
    if screen.json {
        screen.object(&done);
    }
    if let Some(problem) = wrong {
        return if screen.json { Ok(Done::Exit(problem.code.text().exit)) } else { Err(problem) };
    }
    if !screen.json && done.get("transfers").and_then(Value::as_u64) == Some(0) {
        screen.note(screen.say(
            "nothing there is complete: carry the parts that are missing, then import once more",
            "没有完整的内容：请补齐缺少的分件后再次导入",
        ));
    }
    Ok(if settled { Done::Yes } else { Done::Exit(Exit::Failed) })
}

/// As the node sees it, which runs somewhere else.
fn folder(path: &Path) -> Result<PathBuf, Problem> {
    let what = |e: std::io::Error| Problem::new(Code::UsageInvalid).with("what", format!("{}: {e}", path.display()));
    path.canonicalize().map_err(what)
}
