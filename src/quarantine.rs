//! `posthouse quarantine`: rows that were refused (问题数据): which transfers have left some, what they are and why,
//! and another try. With `--json`, `show` writes one object a line: a file of them for whoever mends the source.

use crate::job::read;
use crate::node::ask;
use crate::render::{Screen, count};
use crate::transfer::One;
use crate::{Done, Outcome};
use posthouse_node::admin::{QuarantineRow, Quarantined, Request, Started};
use posthouse_node::store::Side;
use posthouse_protocol::id::{JobId, TransferId};
use serde_json::Value;
use std::path::{Path, PathBuf};

#[derive(clap::Subcommand)]
pub(crate) enum Verb {
    /// List the transfers that left rows in quarantine here, newest first
    List {
        /// The node's configuration file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Only those of this job
        #[arg(long, value_name = "JOB")]
        job: Option<JobId>,
    },
    /// Show the rows of one transfer: key, reason, and what they were
    Show(One),
    /// Run the job again from where the transfer began, so that its refused rows are read again
    Resubmit(One),
}

pub(crate) async fn run(verb: Verb, screen: &Screen) -> Outcome {
    match verb {
        Verb::List { config, job } => list(&config, job, screen).await,
        Verb::Show(One { config, id }) => show(&config, id, screen).await,
        Verb::Resubmit(One { config, id }) => {
            let request = Request::QuarantineResubmit { transfer: id };
            let started: Started = ask(&config, &request, screen).await?.done().await?;
            if screen.json {
                screen.object(&started);
            } else {
                screen.line(started.transfer.map(|id| id.to_string()).unwrap_or_else(|| started.job.to_string()));
            }
            Ok(Done::Yes)
        }
    }
}

async fn list(config: &Path, job: Option<JobId>, screen: &Screen) -> Outcome {
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut answers = Vec::new();
    let request = Request::QuarantineList { job };
    ask(config, &request, screen).await?.finish::<Value>(|item| answers.push(item)).await?;
    for item in answers {
        if screen.json {
            screen.object(&item);
            continue;
        }
        let row: Quarantined = read(item)?;
        let refused_by = match row.side {
            Side::Provider => screen.say("source", "来源"),
            Side::Consumer => screen.say("destination", "目标"),
        };
        rows.push(vec![
            row.transfer.to_string(),
            row.job.to_string(),
            row.resource.to_string(),
            refused_by.to_owned(),
            count(row.rows),
            row.at.to_string(),
        ]);
    }
    if !screen.json {
        let headings = [
            screen.say("TRANSFER", "批次"),
            screen.say("JOB", "任务"),
            screen.say("RESOURCE", "资源"),
            screen.say("REFUSED BY", "拒绝方"),
            screen.say("ROWS", "行"),
            screen.say("AT", "时间"),
        ];
        screen.table(&headings, &rows);
    }
    Ok(Done::Yes)
}

async fn show(config: &Path, id: TransferId, screen: &Screen) -> Outcome {
    let mut answers = Vec::new();
    let take = |item: Value| {
        if screen.json {
            screen.object(&item);
        } else {
            answers.push(item);
        }
    };
    ask(config, &Request::QuarantineShow { transfer: id }, screen).await?.finish::<Value>(take).await?;
    for item in answers {
        let QuarantineRow { key, reason, original, .. } = read(item)?;
        screen.line(format!("{key}: {reason}"));
        screen.line(format!("  {original}"));
    }
    Ok(Done::Yes)
}
