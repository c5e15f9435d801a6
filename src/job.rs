//! `posthouse job`: the standing arrangements of a node: list, run, pause, resume, remove.

use crate::node::ask;
use crate::render::{Screen, count, size};
use crate::transfer::{Bar, finish};
use crate::{Done, Outcome};
use posthouse_node::admin::{JobRow, Request, Started, Summary};
use posthouse_platform::admin_socket::Answer;
use posthouse_protocol::id::JobId;
use posthouse_protocol::problem::{Code, Problem};
use serde_json::Value;
use std::path::PathBuf;

#[derive(clap::Args)]
pub(crate) struct One {
    /// The node's configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The job's name
    job: JobId,
}

#[derive(clap::Subcommand)]
pub(crate) enum Verb {
    /// List the jobs of a running node
    List {
        /// The node's configuration file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Run a job now, or attach to its run under way
    Run {
        #[command(flatten)]
        one: One,
        /// Wait for the end and show progress
        #[arg(long)]
        wait: bool,
        /// Tell what a run would do, and move nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Hold a job: nothing new starts, what runs stops at a durable point
    Pause(One),
    /// Let a held or removed job run again
    Resume(One),
    /// Take a job out of service, whatever its configuration says
    Remove(One),
}

pub(crate) async fn run(verb: Verb, screen: &Screen) -> Outcome {
    match verb {
        Verb::List { config } => list(&config, screen).await,
        Verb::Run { one, wait, dry_run } => run_job(one, wait, dry_run, screen).await,
        Verb::Pause(One { config, job }) => act(&config, Request::JobPause { job }, screen).await,
        Verb::Resume(One { config, job }) => act(&config, Request::JobResume { job }, screen).await,
        Verb::Remove(One { config, job }) => act(&config, Request::JobRemove { job }, screen).await,
    }
}

async fn list(config: &std::path::Path, screen: &Screen) -> Outcome {
    let mut rows: Vec<JobRow> = Vec::new();
    let take = |item: Value| {
        if screen.json {
            screen.object(&item);
        } else if let Ok(row) = serde_json::from_value(item) {
            rows.push(row);
        }
    };
    ask(config, &Request::JobList, screen).await?.finish::<Value>(take).await?;
    if screen.json {
        return Ok(Done::Yes);
    }
    let headings = [
        screen.say("JOB", "任务"),
        screen.say("KIND", "方式"),
        screen.say("RESOURCE", "资源"),
        screen.say("MODE", "模式"),
        screen.say("SCHEDULE", "计划"),
        screen.say("STATE", "状态"),
        screen.say("NEXT", "下次"),
        screen.say("LAST", "最近"),
    ];
    let table: Vec<Vec<String>> = rows
        .into_iter()
        .map(|row| {
            let state = match (row.removed, row.paused, row.running) {
                (true, ..) => screen.say("removed", "已移除"),
                (_, true, _) => screen.say("paused", "已暂停"),
                (.., true) => screen.say("running", "运行中"),
                _ => screen.say("idle", "空闲"),
            };
            let last = row.last_state.map(|state| crate::transfer::state_text(state, screen));
            vec![
                row.name.to_string(),
                row.kind,
                row.resource,
                row.mode.to_string(),
                row.schedule,
                state.to_owned(),
                row.next_at.map(|at| at.to_string()).unwrap_or_else(|| "-".to_owned()),
                last.unwrap_or_else(|| "-".to_owned()),
            ]
        })
        .collect();
    screen.table(&headings, &table);
    Ok(Done::Yes)
}

async fn run_job(one: One, wait: bool, dry_run: bool, screen: &Screen) -> Outcome {
    let request = Request::JobRun { job: one.job.clone(), wait, dry_run };
    let mut answers = ask(&one.config, &request, screen).await?;
    let mut bar = Bar::new(screen);
    loop {
        match answers.next().await? {
            Answer::Item(item) if dry_run => match item {
                Value::String(line) if !screen.json => screen.line(line),
                item => screen.object(&item),
            },
            Answer::Item(item) => bar.show(item, screen),
            Answer::Done(done) if dry_run => {
                if screen.json {
                    screen.object(&done);
                }
                return Ok(Done::Yes);
            }
            Answer::Done(done) if wait => {
                bar.clear();
                // An observe job moves nothing: it ends with what the comparison found.
                if done.get("findings").is_some() {
                    return crate::reconcile::conclude(done, true, screen);
                }
                return finish(read::<Summary>(done)?, screen);
            }
            Answer::Done(done) => {
                let started: Started = read(done)?;
                if screen.json {
                    screen.object(&started);
                } else {
                    let id = started.transfer.map(|id| id.to_string()).unwrap_or_else(|| started.job.to_string());
                    screen.line(id);
                    if started.attached {
                        screen.note(screen.say("it is under way already", "该任务已在运行"));
                    }
                }
                return Ok(Done::Yes);
            }
        }
    }
}

async fn act(config: &std::path::Path, request: Request, screen: &Screen) -> Outcome {
    let done: Value = ask(config, &request, screen).await?.done().await?;
    if screen.json {
        screen.object(&done);
    }
    Ok(Done::Yes)
}

pub(crate) fn read<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, Problem> {
    serde_json::from_value(value)
        .map_err(|e| Problem::new(Code::NotRunning).with("role", "node").with("socket", "admin.sock").cause(e))
}

/// What a summary says in one line of words.
pub(crate) fn words(summary: &Summary, screen: &Screen) -> String {
    let mut parts = Vec::new();
    if summary.rows > 0 {
        parts.push(format!("{} {}", count(summary.rows), screen.say("rows", "行")));
    }
    if summary.files > 0 {
        parts.push(format!("{} {}", count(summary.files), screen.say("files", "个文件")));
    }
    parts.push(size(summary.bytes));
    parts.push(format!("{:.1} s", summary.seconds));
    parts.join(", ")
}
