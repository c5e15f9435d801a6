//! `posthouse statistics`: what a day or a month moved, how much of it settled, how good and how timely it
//! was; by department, resource and division. FILE says whose view: the coordinator's or a node's own.

use crate::reconcile::{Party, ask};
use crate::render::{Screen, count, size};
use crate::{Done, Outcome};
use posthouse_coordinator::admin::{Figures, Request as CentreRequest, Statistics};
use posthouse_node::admin::Request as NodeRequest;
use posthouse_protocol::problem::{Code, Problem};
use std::path::PathBuf;

#[derive(clap::Args)]
pub(crate) struct Command {
    /// Configuration file of a coordinator (all nodes) or of a node (its own view)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// A month, such as 2026-11
    #[arg(long, value_name = "MONTH", conflicts_with = "day")]
    month: Option<String>,
    /// A day, such as 2026-11-22, by default today
    #[arg(long, value_name = "DATE")]
    day: Option<String>,
}

pub(crate) async fn run(command: Command, screen: &Screen) -> Outcome {
    for (option, given, example) in [("--month", &command.month, "2026-11"), ("--day", &command.day, "2026-11-22")] {
        if let Some(given) = given
            && !same_shape(given, example)
        {
            let what = format!("{option} {given}");
            return Err(Problem::new(Code::UsageInvalid)
                .with("what", what)
                .cause(format!("it is written like {example}")));
        }
    }
    let period = command.month.or(command.day);
    let answer = match Party::of(&command.config, screen)? {
        Party::Coordinator(config) => {
            ask(&config.admin_socket(), "coordinator", &CentreRequest::Statistics { period }).await?
        }
        Party::Node(config) => ask(&config.admin_socket(), "node", &NodeRequest::Statistics { period }).await?,
    };
    if screen.json {
        screen.object(&answer);
    } else {
        let read: Statistics = serde_json::from_value(answer).map_err(|e| Problem::new(Code::InsideFailed).cause(e))?;
        print(&read, screen);
    }
    Ok(Done::Yes)
}

fn print(statistics: &Statistics, screen: &Screen) {
    let headings = [
        screen.say("", ""),
        screen.say("TRANSFERS", "批次"),
        screen.say("SETTLED", "已签收"),
        screen.say("REFUSED", "已拒绝"),
        screen.say("FAILED", "失败"),
        screen.say("ROWS", "行"),
        screen.say("FILES", "文件"),
        screen.say("BYTES", "字节"),
        screen.say("QUARANTINED", "问题数据"),
        screen.say("SUCCESS", "成功率"),
        screen.say("QUALITY", "质量"),
        screen.say("TIMELY", "及时率"),
    ];
    let line = |name: String, figures: &Figures| {
        vec![
            name,
            count(figures.transfers),
            count(figures.settled),
            count(figures.refused),
            count(figures.failed),
            count(figures.rows),
            count(figures.files),
            size(figures.bytes),
            count(figures.quarantined),
            share(figures.success),
            share(figures.quality),
            share(figures.timeliness),
        ]
    };
    let mut rows = vec![line(statistics.period.clone(), &statistics.total)];
    for list in [&statistics.departments, &statistics.resources, &statistics.divisions] {
        for named in list {
            let role = match named.role.as_deref() {
                Some("provider") => screen.say(" (provider)", "（提供方）"),
                Some("consumer") => screen.say(" (consumer)", "（使用方）"),
                _ => "",
            };
            rows.push(line(format!("{}{role}", named.name), &named.figures));
        }
    }
    screen.table(&headings, &rows);
}

fn share(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.2} %", share * 100.0))
}

/// Digits where the example has digits, the same character elsewhere.
fn same_shape(text: &str, example: &str) -> bool {
    text.len() == example.len()
        && text.bytes().zip(example.bytes()).all(|(a, b)| if b.is_ascii_digit() { a.is_ascii_digit() } else { a == b })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_and_a_day_are_told_apart_from_anything_else() {
        assert!(same_shape("2026-01", "2026-11") && same_shape("2026-01-31", "2026-11-22"));
        for wrong in ["2026", "2026-1", "2026/01", "2026-01-31", "二〇二六"] {
            assert!(!same_shape(wrong, "2026-11"), "{wrong}");
        }
        assert_eq!((share(Some(0.99991)), share(None)), ("99.99 %".to_owned(), "-".to_owned()));
    }
}
