//! `posthouse reconcile`: the three-party balance of a day, or a table compared row by row (`--deep`).
//! FILE says who answers: the coordinator for all, a node for its own view. Exit 3 when somebody has to
//! explain something; what is only pending is no difference.

use crate::render::{Screen, count};
use crate::{Done, Outcome};
use posthouse_coordinator::admin::Request as CentreRequest;
use posthouse_coordinator::config::Config as CentreConfig;
use posthouse_node::admin::Request as NodeRequest;
use posthouse_node::config::Config as NodeConfig;
use posthouse_platform::{admin_socket, settings};
use posthouse_protocol::problem::{Code, Exit, Problem};
use posthouse_protocol::reconciliation::{Finding, Tally, Verdict};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub(crate) struct Command {
    /// Configuration file of a coordinator (all nodes) or of a node (its own view)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The day, such as 2026-11-22, by default today
    #[arg(long, value_name = "DATE", conflicts_with = "deep")]
    day: Option<String>,
    /// Compare both standing tables of a job row by row; NODE/JOB at a coordinator
    #[arg(long, value_name = "JOB")]
    deep: Option<String>,
}

/// Answered by a coordinator and by a node alike.
#[derive(Serialize, Deserialize)]
struct Balance {
    day: Option<String>,
    #[serde(default)]
    counts: Tally,
    #[serde(default)]
    findings: Vec<Finding>,
}

pub(crate) async fn run(command: Command, screen: &Screen) -> Outcome {
    let answer = match Party::of(&command.config, screen)? {
        Party::Coordinator(config) => {
            let request = match &command.deep {
                Some(deep) => {
                    let (node, job) =
                        deep.split_once('/').ok_or_else(|| wrong("--deep", deep, "at a coordinator it is NODE/JOB"))?;
                    CentreRequest::ReconcileDeep {
                        node: node.parse().map_err(|e| wrong("--deep", deep, e))?,
                        job: job.parse().map_err(|e| wrong("--deep", deep, e))?,
                    }
                }
                None => CentreRequest::Reconcile { day: command.day },
            };
            ask(&config.admin_socket(), "coordinator", &request).await?
        }
        Party::Node(config) => {
            let deep = match &command.deep {
                Some(deep) => Some(deep.parse().map_err(|e| wrong("--deep", deep, e))?),
                None => None,
            };
            ask(&config.admin_socket(), "node", &NodeRequest::Reconcile { day: command.day, deep }).await?
        }
    };
    conclude(answer, command.deep.is_some(), screen)
}

/// Prints a balance, or what comparing one table found (`deep`); a difference is exit 3.
pub(crate) fn conclude(answer: Value, deep: bool, screen: &Screen) -> Outcome {
    let balance: Balance =
        serde_json::from_value(answer.clone()).map_err(|e| Problem::new(Code::InsideFailed).cause(e))?;
    if screen.json {
        screen.object(&answer);
    } else {
        print(&balance, deep, screen);
    }
    let differs = balance.findings.iter().any(|finding| finding.verdict.is_difference())
        || [balance.counts.mismatched, balance.counts.one_sided, balance.counts.overdue, balance.counts.ungranted]
            .iter()
            .any(|count| *count > 0);
    Ok(if differs { Done::Exit(Exit::Difference) } else { Done::Yes })
}

fn print(balance: &Balance, deep: bool, screen: &Screen) {
    if !deep {
        let counts = &balance.counts;
        let numbers =
            [counts.matched, counts.mismatched, counts.one_sided, counts.pending, counts.overdue, counts.ungranted];
        let words: Vec<String> = Verdict::ALL
            .iter()
            .zip(numbers)
            .map(|(verdict, number)| format!("{} {}", screen.say(verdict.as_str(), verdict.zh()), count(number)))
            .collect();
        let day = balance.day.as_deref().unwrap_or_default();
        screen.line(format!("{day}  {}", words.join(screen.say(", ", "，"))).trim_start());
    } else if balance.findings.is_empty() {
        screen.line(screen.say("both tables hold the same rows", "两侧数据一致"));
    }
    for finding in &balance.findings {
        let subject = finding.transfer.as_ref().map(ToString::to_string).unwrap_or_else(|| finding.job.to_string());
        screen.line(format!(
            "{}  {subject}  {} → {}  {}  {}{}",
            screen.say(finding.verdict.as_str(), finding.verdict.zh()),
            finding.resource,
            finding.consumer,
            screen.say("to ask:", "应询问："),
            screen.say(finding.party.as_str(), finding.party.zh()),
            if finding.keys.is_empty() {
                String::new()
            } else {
                format!("  {} {}", screen.say("keys:", "主键："), finding.keys.join(screen.say(", ", "、")))
            }
        ));
        for difference in &finding.differences {
            screen.line(format!(
                "    {}: {} {}, {} {}",
                difference.what,
                screen.say("provider", "提供方"),
                difference.provider,
                screen.say("consumer", "使用方"),
                difference.consumer
            ));
        }
    }
}

/// Whose configuration a file is, read in full.
pub(crate) enum Party {
    Coordinator(Box<CentreConfig>),
    Node(Box<NodeConfig>),
}

impl Party {
    /// A node's has `[node]`, a coordinator's has not.
    pub(crate) fn of(file: &Path, screen: &Screen) -> Result<Self, Problem> {
        let text = settings::load(file)?;
        if text.lines().any(|line| line.trim_start().starts_with("[node]")) {
            let config = NodeConfig::read(file, &text).map_err(|mistakes| mistakes.problem(screen.lang))?;
            Ok(Self::Node(Box::new(config)))
        } else {
            let config = CentreConfig::parse(file, &text).map_err(|mistakes| mistakes.problem(screen.lang))?;
            Ok(Self::Coordinator(Box::new(config)))
        }
    }
}

/// One question whose answer is one object.
pub(crate) async fn ask(socket: &Path, role: &str, request: &(impl Serialize + Sync)) -> Result<Value, Problem> {
    admin_socket::call(socket, role, request).await?.done().await
}

fn wrong(option: &str, value: &str, why: impl std::fmt::Display) -> Problem {
    Problem::new(Code::UsageInvalid).with("what", format!("{option} {value}")).cause(why)
}
