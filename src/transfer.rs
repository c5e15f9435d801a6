//! `posthouse transfer`: what was and is under way: list, show, watch, cancel, retry.
//! Also the progress line, and the closing words and exit code of a transfer that has ended.

use crate::job::{read, words};
use crate::node::ask;
use crate::render::{Screen, count, size};
use crate::{Done, Outcome};
use indicatif::{ProgressBar, ProgressStyle};
use posthouse_node::admin::{Listed, Progress, QualityStated, Request, RowsStated, Shown, Started, Summary};
use posthouse_platform::admin_socket::Answer;
use posthouse_platform::endpoint::Transport;
use posthouse_protocol::id::{JobId, TransferId};
use posthouse_protocol::job::State;
use posthouse_protocol::problem::{Code, Exit, Lang, Problem};
use serde_json::Value;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub(crate) struct One {
    /// The node's configuration file
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// The transfer's id
    pub(crate) id: TransferId,
}

#[derive(clap::Subcommand)]
pub(crate) enum Verb {
    /// List the transfers of a running node, newest first
    List {
        /// The node's configuration file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Only those of this job
        #[arg(long, value_name = "JOB")]
        job: Option<JobId>,
        /// At most this many
        #[arg(long, value_name = "N")]
        limit: Option<u32>,
    },
    /// Show one transfer with its statements and refused rows
    Show(One),
    /// Follow a transfer to its end
    Watch(One),
    /// End a transfer for good; both sides state it
    Cancel(One),
    /// Run the job of a transfer again, or wake one that waits
    Retry(One),
}

pub(crate) async fn run(verb: Verb, screen: &Screen) -> Outcome {
    match verb {
        Verb::List { config, job, limit } => list(&config, job, limit, screen).await,
        Verb::Show(One { config, id }) => show(&config, id, screen).await,
        Verb::Watch(One { config, id }) => watch(&config, id, screen).await,
        Verb::Cancel(One { config, id }) => {
            let done: Value = ask(&config, &Request::TransferCancel { transfer: id }, screen).await?.done().await?;
            if screen.json {
                screen.object(&done);
            }
            Ok(Done::Yes)
        }
        Verb::Retry(One { config, id }) => {
            let started: Started = ask(&config, &Request::TransferRetry { transfer: id }, screen).await?.done().await?;
            if screen.json {
                screen.object(&started);
            } else {
                screen.line(started.transfer.map(|id| id.to_string()).unwrap_or_else(|| started.job.to_string()));
            }
            Ok(Done::Yes)
        }
    }
}

async fn list(config: &Path, job: Option<JobId>, limit: Option<u32>, screen: &Screen) -> Outcome {
    let mut rows: Vec<Summary> = Vec::new();
    let take = |item: Value| {
        if screen.json {
            screen.object(&item);
        } else if let Ok(row) = serde_json::from_value(item) {
            rows.push(row);
        }
    };
    let listed: Listed = ask(config, &Request::TransferList { job, limit }, screen).await?.finish(take).await?;
    if screen.json {
        if listed.truncated {
            screen.object(&listed);
        }
        return Ok(Done::Yes);
    }
    let headings = [
        screen.say("TRANSFER", "批次"),
        screen.say("JOB", "任务"),
        screen.say("PEER", "对方"),
        screen.say("STATE", "状态"),
        screen.say("ROWS", "行"),
        screen.say("FILES", "文件"),
        screen.say("SIZE", "大小"),
        screen.say("STARTED", "开始"),
    ];
    let table: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            vec![
                row.transfer.to_string(),
                row.job.to_string(),
                row.peer.to_string(),
                state_text(row.state, screen),
                count(row.rows),
                count(row.files),
                size(row.bytes),
                row.started.to_string(),
            ]
        })
        .collect();
    screen.table(&headings, &table);
    if listed.truncated {
        screen.note(format!(
            "{} {}{}",
            screen.say("there are older ones beyond these", "仅列出最新的"),
            count(u64::from(listed.limit)),
            screen.say("; --limit N lists more", " 个批次，更早的可用 --limit N 列出"),
        ));
    }
    Ok(Done::Yes)
}

async fn show(config: &Path, id: TransferId, screen: &Screen) -> Outcome {
    let shown: Shown = ask(config, &Request::TransferShow { transfer: id }, screen).await?.done().await?;
    if screen.json {
        screen.object(&shown);
        return Ok(Done::Yes);
    }
    let summary = &shown.summary;
    let optional = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let rows = [
        (screen.say("transfer", "批次"), summary.transfer.to_string()),
        (screen.say("job", "任务"), summary.job.to_string()),
        (screen.say("resource", "资源"), summary.resource.to_string()),
        (screen.say("peer", "对方"), summary.peer.to_string()),
        (screen.say("mode", "模式"), format!("{} {}", summary.mode, summary.write)),
        (screen.say("state", "状态"), state_text(summary.state, screen)),
        (screen.say("moved", "内容"), words(summary, screen)),
        (
            screen.say("over the line", "经线路"),
            format!("{} ({} chunks, {} resent)", size(summary.bytes_sent), summary.chunks, summary.resent_chunks),
        ),
        (
            screen.say("watermark", "水位"),
            format!("{} → {}", optional(&shown.watermark_from), optional(&shown.watermark_to)),
        ),
        (screen.say("quarantined", "问题数据"), count(summary.quarantined)),
        (screen.say("refused", "未交换"), count(summary.refused)),
        (
            screen.say("receipt", "回执"),
            summary.receipt.as_ref().map(ToString::to_string).unwrap_or_else(|| "-".to_owned()),
        ),
    ];
    for (name, value) in rows {
        screen.line(format!("{name}: {value}"));
    }
    rows_stated(&shown.rows_stated, screen);
    for statement in &shown.statements {
        let whose = if statement.own { screen.say("own", "本方") } else { screen.say("peer's", "对方") };
        // The centre proves a statement to the one that made it.
        let proven = match (statement.proven, statement.own) {
            (true, _) => screen.say("proven", "已存证"),
            (false, true) => screen.say("not proven yet", "待存证"),
            (false, false) => "",
        };
        let line = format!("{} {whose} {} {} {proven}", screen.say("statement", "陈述"), statement.kind, statement.at);
        screen.line(line.trim_end());
    }
    for row in &shown.quarantine {
        screen.line(format!("{} {}: {}", screen.say("quarantined", "问题数据"), row.key, row.reason));
    }
    if let Some(problem) = &summary.problem {
        screen.problem(problem);
    }
    Ok(Done::Yes)
}

/// What was done to the rows' values, and how many of them were qualified.
fn rows_stated(rows: &RowsStated, screen: &Screen) {
    for governed in &rows.governed {
        let column = governed.column.as_deref().unwrap_or("*");
        screen.line(format!("{}: {column} {}", screen.say("governed", "数据治理"), governed.what));
    }
    for (whose, quality) in [
        (screen.say("qualified at the provider", "提供方合格率"), &rows.provider_quality),
        (screen.say("qualified at the consumer", "使用方合格率"), &rows.consumer_quality),
    ] {
        let Some(QualityStated { found, rate }) = quality else { continue };
        let rate = rate.as_deref().unwrap_or("-");
        screen.line(format!("{whose}: {rate} ({} / {})", count(found.qualified), count(found.rows)));
        for failed in &found.failed {
            screen.line(format!("  {} {}: {}", failed.column, failed.rule, count(failed.rows)));
        }
    }
}

async fn watch(config: &Path, id: TransferId, screen: &Screen) -> Outcome {
    let mut answers = ask(config, &Request::TransferWatch { transfer: id }, screen).await?;
    let mut bar = Bar::new(screen);
    loop {
        match answers.next().await? {
            Answer::Item(item) => bar.show(item, screen),
            Answer::Done(done) => {
                bar.clear();
                return finish(read(done)?, screen);
            }
        }
    }
}

/// Prints how a transfer ended; the exit code is that of its problem, where it has one.
pub(crate) fn finish(summary: Summary, screen: &Screen) -> Outcome {
    if screen.json {
        screen.object(&summary);
    } else {
        screen.line(format!("{} {}: {}", summary.transfer, state_text(summary.state, screen), words(&summary, screen)));
        if let Some(receipt) = &summary.receipt {
            screen.line(receipt);
        }
    }
    if summary.state == State::Settled {
        for (number, en, zh) in [
            (summary.refused, "left out, by name and reason in both statements", "项未交换，名称和原因已写入双方陈述"),
            (summary.quarantined, "rows quarantined with their reasons", "行进入问题数据，附原因"),
        ] {
            if number > 0 {
                screen.note(format!("{} {} {}", screen.say("warning:", "注意："), count(number), screen.say(en, zh)));
            }
        }
        return Ok(Done::Yes);
    }
    if summary.state == State::Staged && summary.transport == Some(Transport::Ferry) {
        screen.note(screen.say(
            "its parts are written; it ends with a receipt once the consumer's statement is carried back",
            "分件已写出；待使用方的陈述带回后形成回执",
        ));
        return Ok(Done::Yes);
    }
    match summary.problem {
        // The object on stdout says it for machines; people read why on stderr.
        Some(problem) if screen.json => {
            screen.note(problem.to_string());
            Ok(Done::Exit(problem.code.text().exit))
        }
        Some(problem) => Err(problem),
        None if summary.state == State::Refused => Ok(Done::Exit(Exit::NotPermitted)),
        None if summary.state == State::Cancelled => Err(Problem::new(Code::Cancelled)),
        None => Ok(Done::Exit(Exit::Failed)),
    }
}

pub(crate) fn state_text(state: State, screen: &Screen) -> String {
    match screen.lang {
        Lang::En => state.to_string(),
        Lang::Zh => state.zh().to_owned(),
    }
}

/// The progress line: on a terminal a bar with rate and time left, with `--json` a line per change. What keeps it
/// waiting is said once, on a terminal or not.
pub(crate) struct Bar {
    bar: Option<ProgressBar>,
    last: Option<Progress>,
}

impl Bar {
    pub(crate) fn new(screen: &Screen) -> Self {
        let bar = (!screen.json && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::no_length();
            bar.set_style(style("{spinner} {msg} {binary_bytes} {binary_bytes_per_sec}"));
            bar
        });
        Self { bar, last: None }
    }

    pub(crate) fn show(&mut self, item: Value, screen: &Screen) {
        let Ok(progress) = serde_json::from_value::<Progress>(item.clone()) else { return };
        let same = |last: &Progress| *last == Progress { seconds: last.seconds, ..progress.clone() };
        if self.last.as_ref().is_some_and(same) {
            if let Some(bar) = &self.bar {
                bar.tick();
            }
            return;
        }
        let said = self.last.as_ref().and_then(|last| last.problem.as_ref());
        if let Some(problem) = progress.problem.as_ref().filter(|problem| Some(*problem) != said && !screen.json) {
            let waiting = screen.say("waiting, it is tried again", "等待中，将自动重试");
            let text = format!("{waiting}: {}: {}", problem.code, problem.title(screen.lang));
            match &self.bar {
                Some(bar) => bar.suspend(|| screen.note(&text)),
                None => screen.note(&text),
            }
        }
        self.last = Some(progress.clone());
        if screen.json {
            screen.object(&item);
            return;
        }
        let Some(bar) = &self.bar else { return };
        if progress.bytes_total > 0 && bar.length() != Some(progress.bytes_total) {
            bar.set_length(progress.bytes_total);
            bar.set_style(style("{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}"));
        }
        bar.set_position(progress.bytes);
        bar.set_message(format!("{} {}", progress.job, state_text(progress.state, screen)));
        bar.tick();
    }

    pub(crate) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
