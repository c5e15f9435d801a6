//! Is it the line or the database? What a job's latest transfer waited for, how fast its places are by themselves, how
//! long the line takes for a word; and one sentence of all that.

use crate::render::{Screen, size};
use crate::service::{Asked, Signals};
use crate::{Done, Outcome};
use posthouse_node::admin::{LineSeen, Request, Shown};
use posthouse_node::config::Config;
use posthouse_node::doctor::job::{Moved, Subject};
use posthouse_node::doctor::speed::{self, Sample};
use posthouse_node::doctor::verdict::{Figures, Held};
use posthouse_platform::{World, admin_socket};
use posthouse_protocol::id::{JobId, NodeId};
use posthouse_protocol::problem::{Code, Exit, Problem};
use serde::de::DeserializeOwned;

/// All that was found of a job.
struct Seen {
    subject: Subject,
    line: Option<LineSeen>,
    source: Option<Sample>,
    destination: Option<Sample>,
    /// What could not be measured.
    problems: Vec<Problem>,
}

pub(super) async fn run(
    config: &Config,
    job: &JobId,
    consumer: Option<&NodeId>,
    write: bool,
    screen: &Screen,
) -> Outcome {
    let world = World::real();
    let (read, name, consumer) = (config.clone(), job.clone(), consumer.cloned());
    let found = tokio::task::spawn_blocking(move || Subject::find(&read, &name, consumer.as_ref())).await;
    let mut subject = found.map_err(|error| Problem::new(Code::InsideFailed).cause(error))??;
    if write && subject.destination.is_none() {
        let what = format!("`--write`: no table that {job} has landed in is known here");
        return Err(Problem::new(Code::UsageInvalid).with("what", what));
    }
    if !subject.others.is_empty() {
        let others = subject.others.iter().map(NodeId::as_str).collect::<Vec<_>>();
        let (consumer, en, zh) = (&subject.consumer, others.join(", "), others.join("、"));
        let (en, zh) = (
            format!(
                "this is about {consumer}; by a job of the same name take from here: {en} (`--consumer` names one)"
            ),
            format!("以下针对 {consumer}；另有同名任务的使用方：{zh}（用 `--consumer` 指定）"),
        );
        screen.note(screen.say(&en, &zh));
    }
    as_it_runs(config, &mut subject).await;
    let mut seen = Seen { line: None, source: None, destination: None, problems: Vec::new(), subject };
    if let Some(resource) = seen.subject.resource.clone() {
        let request = Request::LineProbe { job: job.clone(), consumer: seen.subject.consumer.clone(), resource };
        match ask(config, &request).await {
            Ok(line) => seen.line = Some(line),
            // Only a running node has a line.
            Err(problem) if problem.code == Code::NotRunning => {
                screen.note(screen.say("the node does not run: the line was not asked", "节点未运行，未检测线路"));
            }
            Err(problem) => seen.problems.push(problem),
        }
    }
    if let Some((connection, spec)) = &seen.subject.source {
        match speed::read(config, &world, connection, spec).await {
            Ok(sample) => seen.source = Some(sample),
            Err(problem) => seen.problems.push(problem),
        }
    }
    if let Some((connection, landing)) = seen.subject.destination.as_ref().filter(|_| write) {
        let mut signals = Signals::listen()?;
        let stopped = async { while signals.next().await != Asked::Stop {} };
        match speed::write(config, &world, connection, landing, stopped).await {
            Ok(sample) => seen.destination = Some(sample),
            Err(problem) => seen.problems.push(problem),
        }
    }
    print(&seen, screen);
    Ok(if seen.problems.is_empty() { Done::Yes } else { Done::Exit(Exit::Failed) })
}

/// What the running node has counted of a transfer that has not ended.
async fn as_it_runs(config: &Config, subject: &mut Subject) {
    let Some(moved) = subject.transfer.as_mut().filter(|moved| !moved.state.is_final()) else { return };
    let request = Request::TransferShow { transfer: moved.transfer.clone() };
    // Without an answer it stands as it was written down.
    let Ok(shown) = ask::<Shown>(config, &request).await else { return };
    *moved = Moved {
        transfer: shown.summary.transfer,
        state: shown.summary.state,
        bytes_sent: shown.summary.bytes_sent,
        total_ms: (shown.summary.seconds * 1000.0) as u64,
        spent: shown.spent,
    };
}

async fn ask<T: DeserializeOwned>(config: &Config, request: &Request) -> Result<T, Problem> {
    admin_socket::call(&config.admin_socket(), "node", request).await?.done().await
}

impl Seen {
    fn figures(&self) -> Figures {
        let moved = self.subject.transfer.as_ref();
        Figures {
            side: self.subject.side,
            total_ms: moved.map_or(0, |moved| moved.total_ms),
            spent: moved.and_then(|moved| moved.spent),
        }
    }

    /// What the line took while it was waited for.
    fn line_speed(&self) -> Option<f64> {
        let moved = self.subject.transfer.as_ref()?;
        let ms = moved.spent?.line_ms.filter(|ms| *ms >= LINE_MS_MIN)?;
        Some(moved.bytes_sent as f64 * 1000.0 / ms as f64)
    }

    /// In English and in Chinese.
    fn sentence(&self, held: Held) -> (String, String) {
        let (peer, consumer) = (&self.subject.peer, &self.subject.consumer);
        match held {
            Held::Source => ("it is the source".to_owned(), "受限于数据源".to_owned()),
            Held::Line => (format!("it is the line to {peer}"), format!("受限于到 {peer} 的线路")),
            Held::Destination => ("it is the destination".to_owned(), "受限于目标".to_owned()),
            Held::SourceOrLine => (
                format!("it is not the destination; run the same at {peer} to tell its source from the line"),
                format!("不在目标；请在 {peer} 运行同一命令，以区分数据源与线路"),
            ),
            Held::Consumer => (
                format!("it is neither the source nor the line; run the same at {consumer}"),
                format!("不在数据源，也不在线路；请在 {consumer} 运行同一命令"),
            ),
            Held::Nothing => ("nothing stands out".to_owned(), "没有明显的瓶颈".to_owned()),
            Held::Unknown => (
                "there are no figures that tell: run the job once with something to move".to_owned(),
                "尚无可判断的数据：请先运行一次有内容可交换的任务".to_owned(),
            ),
        }
    }

    /// What the verdict rests on, each in English and in Chinese.
    fn grounds(&self) -> Vec<(String, String)> {
        let mut grounds = Vec::new();
        if let Some(moved) = &self.subject.transfer {
            let seconds = |ms: u64| format!("{:.1} s", ms as f64 / 1000.0);
            let spent = moved.spent.unwrap_or_default();
            let part = |ms: Option<u64>| ms.map_or_else(|| "?".to_owned(), seconds);
            let [source, line, destination] = [spent.source_ms, spent.line_ms, spent.destination_ms].map(part);
            let (id, total) = (&moved.transfer, seconds(moved.total_ms));
            grounds.push((
                format!("{id} was under way for {total}, of which it waited for the source {source}, for the line {line}, for the destination {destination}"),
                format!("{id} 历时 {total}，其中等待数据源 {source}、线路 {line}、目标 {destination}"),
            ));
        }
        if let Some(speed) = self.line_speed() {
            let speed = size(speed as u64);
            grounds.push((
                format!("the line took {speed}/s while it was waited for"),
                format!("等待期间线路速率 {speed}/s"),
            ));
        }
        if let Some(line) = &self.line {
            let LineSeen { peer, transport, address, answer_ms, .. } = line;
            let transport = transport.as_str();
            grounds.push((
                format!("{peer} answers over {transport} at {address} within {answer_ms:.1} ms"),
                format!("{peer} 经 {transport}（{address}）在 {answer_ms:.1} 毫秒内应答"),
            ));
        }
        for (sample, en, zh) in [
            (&self.source, "the source gives", "数据源读取"),
            (&self.destination, "the destination stages", "目标暂存"),
        ] {
            let Some(sample) = sample else { continue };
            let (rows, bytes) = (sample.rows, size(sample.bytes_per_second() as u64));
            let seconds = sample.ms as f64 / 1000.0;
            grounds.push((
                format!("{en} {bytes}/s ({rows} rows in {seconds:.1} s)"),
                format!("{zh} {bytes}/s（{seconds:.1} 秒 {rows} 行）"),
            ));
        }
        grounds
    }
}

fn print(seen: &Seen, screen: &Screen) {
    let held = seen.figures().judge();
    let (en, zh) = seen.sentence(held);
    let grounds = seen.grounds();
    let whole = |first: &str, rest: Vec<&str>, colon: &str, between: &str, end: &str| match rest.is_empty() {
        true => format!("{first}{end}"),
        false => format!("{first}{colon}{}{end}", rest.join(between)),
    };
    let en = whole(&en, grounds.iter().map(|(en, _)| en.as_str()).collect(), ": ", "; ", "");
    let zh = whole(&zh, grounds.iter().map(|(_, zh)| zh.as_str()).collect(), "：", "；", "。");
    if screen.json {
        let subject = &seen.subject;
        screen.object(&serde_json::json!({
            "job": subject.job,
            "side": subject.side,
            "peer": subject.peer,
            "consumer": subject.consumer,
            "others": subject.others,
            "resource": subject.resource,
            "verdict": held,
            "sentence": { "en": en, "zh": zh },
            "transfer": subject.transfer,
            "line": seen.line,
            "line_bytes_per_second": seen.line_speed(),
            "source": seen.source,
            "destination": seen.destination,
            "problems": seen.problems.iter().map(|problem| serde_json::json!({
                "code": problem.code.to_string(), "cause": problem.cause,
            })).collect::<Vec<_>>(),
        }));
        return;
    }
    screen.line(screen.say(&en, &zh));
    for problem in &seen.problems {
        screen.problem(problem);
    }
}

/// A shorter wait says nothing of a line's speed.
const LINE_MS_MIN: u64 = 1_000;
