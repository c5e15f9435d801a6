//! Suite `wan`: a file over a long line between two network namespaces, by Posthouse, by TCP's own senders and, where
//! nothing is lost, by tools that copy files. Posthouse's time runs from the command to the receipt, a tool's until
//! what it landed is synced. TCP's is a flow for as long as the line needs for the file, with its start too, which lands
//! on no disk; its time and CPU are put as if it had carried the file.

mod line;
mod relay;
mod subjects;
mod trouble;

use crate::files::Data;
use crate::measure::Run;
use crate::report::{Case, Failure, OnLine, Suite, machine, median};
use crate::{chosen, turns};
use anyhow::ensure;
use line::Line;
use relay::Relay;
use std::path::{Path, PathBuf};
use std::time::Duration;
use subjects::{SUBJECTS, Subject, Trip};
use trouble::{Kind, Passage, Trouble};

struct Plan {
    name: &'static str,
    /// Share of the packets that the line loses.
    loss: f64,
    data: Data,
    /// Of a TCP flow.
    seconds: u64,
    /// A flow of TCP CUBIC runs beside, for less time than the file needs alone; what it keeps is measured too.
    beside: bool,
    /// What befalls the line when half of the file has come to it.
    trouble: Option<Kind>,
    who: Who,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Everyone,
    /// This project's, with each transport.
    Own,
    /// Posthouse as it is by itself.
    Posthouse,
}

/// What most cases carry, and how.
const USUAL: Plan = Plan {
    name: "500m-100ms-0",
    loss: 0.0,
    data: Data::Random(1_250_000_000),
    seconds: 20,
    beside: false,
    trouble: None,
    who: Who::Everyone,
};

const PLANS: &[Plan] = &[
    USUAL,
    Plan { name: "500m-100ms-0.1", loss: 0.001, ..USUAL },
    Plan { name: "500m-100ms-1", loss: 0.01, ..USUAL },
    Plan { name: "csv-4g-500m", data: Data::Csv(4 << 30), ..USUAL },
    Plan { name: "random-4g-500m", data: Data::Random(4 << 30), who: Who::Posthouse, ..USUAL },
    Plan {
        name: "cubic-beside-60s",
        data: Data::Random(3_700_000_000),
        seconds: 60,
        beside: true,
        who: Who::Own,
        ..USUAL
    },
    Plan { name: "udp-dropped", trouble: Some(Kind::UdpDropped), who: Who::Posthouse, ..USUAL },
    Plan { name: "udp-throttled", trouble: Some(Kind::UdpThrottled), who: Who::Posthouse, ..USUAL },
    Plan { name: "cut-50pct", trouble: Some(Kind::Cut), who: Who::Own, ..USUAL },
];

impl Plan {
    fn takes(&self, subject: Subject) -> bool {
        match (self.who, subject) {
            (Who::Posthouse, subject) => subject == Subject::Posthouse,
            (Who::Own, subject) => subject.is_own(),
            // The system's TCP may take hours for the file over a line that loses packets.
            (Who::Everyone, Subject::Peer(_)) => self.loss == 0.0,
            (Who::Everyone, _) => true,
        }
    }
}

/// What one subject did in one case.
#[derive(Default)]
struct Results {
    runs: Vec<Run>,
    shares: Vec<f64>,
    flowing: Vec<f64>,
    dropped: Vec<f64>,
    /// What the flow beside kept, as shares of the line.
    kept: Vec<f64>,
}

/// `build` gives the program; it is asked only where Posthouse is among the subjects.
pub fn run(
    build: impl FnOnce() -> anyhow::Result<PathBuf>,
    cases: &[String],
    subjects: &[String],
    runs: u32,
) -> anyhow::Result<Suite> {
    let plans = chosen(PLANS, cases, "wan", "case", |plan| plan.name.to_owned())?;
    let subjects = chosen(SUBJECTS, subjects, "wan", "subject", |subject| subject.name().to_owned())?;
    let takes_part = |subject: &&Subject| plans.iter().any(|plan| plan.takes(**subject));
    let subjects: Vec<&Subject> = subjects.into_iter().filter(takes_part).collect();
    ensure!(!subjects.is_empty(), "none of these subjects takes part in these cases");
    let program = if subjects.iter().any(|subject| subject.is_own()) { Some(build()?) } else { None };
    let setting = format!(
        "a line of {:.0} Mbit/s, {} ms there and back, a queue of {} ms that drops its tail; at 1,500 bytes a packet some 96 % of it can be user bytes; its devices split and gather packets as cards do, where no note says otherwise",
        RATE / 1e6,
        2 * DELAY.as_millis(),
        QUEUE.as_millis()
    );
    let mut suite = Suite { setting: Some(setting), bases: &["tcp-bbr"], ..Suite::new("wan", machine()) };
    let version = |subject: Subject| subject.version(program.as_deref());
    let present = turns::present(subjects, &mut suite, Subject::name, version);
    for plan in plans {
        let present: Vec<_> = present.iter().filter(|(subject, _)| plan.takes(*subject)).cloned().collect();
        case(plan, program.as_deref(), &present, runs, &mut suite)?;
    }
    Ok(suite)
}

fn case(
    plan: &Plan,
    program: Option<&Path>,
    subjects: &[(Subject, String)],
    runs: u32,
    suite: &mut Suite,
) -> anyhow::Result<()> {
    if subjects.is_empty() {
        eprintln!("{}: nobody is there who takes part", plan.name);
        return Ok(());
    }
    let data = tempfile::Builder::new().prefix("posthouse-bench-data-").tempdir()?;
    let bytes = plan.data.make(data.path())?;
    let trouble = plan.trouble.map(|kind| Trouble { kind, after: bytes / 2 });
    let mut results: Vec<Results> = subjects.iter().map(|_| Results::default()).collect();
    let mut turns: Vec<usize> = (0..subjects.len()).collect();
    let mut offloads = true;
    for round in 1..=runs {
        for turn in &turns {
            let (name, subject) = (subjects[*turn].0.name(), subjects[*turn].0);
            let line = Line { bits_per_second: RATE, delay: DELAY, queue: QUEUE, loss: plan.loss };
            let passage = Passage::new(trouble);
            let relay = Relay::start(line, round.into(), &passage)?;
            offloads &= relay.offloads;
            let trip = Trip {
                program,
                data: data.path(),
                bytes,
                relay: &relay,
                passage: &passage,
                seconds: plan.seconds,
                beside: plan.beside,
            };
            let carried = subject.carry(&trip).and_then(|carried| {
                let refused: u64 = relay.seen().iter().map(|way| way.refused).sum();
                ensure!(refused == 0, "packets vanished at the line's own devices, {refused} times");
                Ok(carried)
            });
            match carried {
                Ok(carried) => {
                    let (run, seen) = (carried.run, relay.seen()[0]);
                    let share = bytes as f64 * 8.0 / run.seconds / RATE;
                    // iperf3 tells only of the time in which it flows.
                    let flowing = match subject.lands() {
                        true => bytes as f64 * 8.0 / seen.flowed.as_secs_f64() / RATE,
                        false => share,
                    };
                    let dropped = seen.queue_dropped as f64 / seen.packets.max(1) as f64;
                    eprintln!(
                        "{}: {name}, run {round}: {:.2} s, {:.1} % of the line, {:.1} % while it flows, {:.2} % dropped at the queue, {:.2} % handed over late{}",
                        plan.name,
                        run.seconds,
                        share * 100.0,
                        flowing * 100.0,
                        dropped * 100.0,
                        seen.late as f64 * 100.0 / seen.packets.max(1) as f64,
                        run.recovery
                            .map(|recovery| format!(", content flowed again after {:.2} s", recovery.seconds))
                            .unwrap_or_default(),
                    );
                    let result = &mut results[*turn];
                    result.runs.push(run);
                    result.shares.push(share);
                    result.flowing.push(flowing);
                    result.dropped.push(dropped);
                    result.kept.extend(carried.beside.map(|bits| bits / RATE));
                }
                Err(error) => {
                    eprintln!("{}: {name}, run {round}: {error:#}", plan.name);
                    let reason = format!("run {round}: {error:#}");
                    suite.failed.push(Failure { case: plan.name.to_owned(), subject: name.to_owned(), reason });
                }
            }
        }
        turns.rotate_left(1);
    }
    let alone = if offloads {
        ""
    } else {
        "; here the kernel does not let the line's devices split and gather packets, of UDP at least"
    };
    let befell = plan.trouble.map(|kind| format!("; {}", kind.words())).unwrap_or_default();
    for ((subject, version), result) in subjects.iter().zip(results) {
        if result.runs.is_empty() {
            continue;
        }
        let beside = match result.kept.is_empty() {
            true => String::new(),
            false => format!(
                "; CPU with iperf3's; a TCP CUBIC flow beside kept {:.0} % of the line",
                median(result.kept.into_iter()) * 100.0
            ),
        };
        suite.cases.push(Case {
            case: plan.name.to_owned(),
            subject: subject.name().to_owned(),
            bytes,
            rows: None,
            line: Some(OnLine {
                link_share: median(result.shares.into_iter()),
                flowing_share: median(result.flowing.into_iter()),
                queue_drop_share: median(result.dropped.into_iter()),
            }),
            runs: result.runs,
            note: format!("{version}; {}{befell}{beside}{alone}", subject.note()),
        });
    }
    Ok(())
}

const RATE: f64 = 500e6;
const DELAY: Duration = Duration::from_millis(50);
const QUEUE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files;

    #[test]
    fn who_takes_part_is_who_the_case_is_about() {
        let of = |name: &str| {
            let plan = PLANS.iter().find(|plan| plan.name == name).expect("a case");
            SUBJECTS.iter().filter(|subject| plan.takes(**subject)).map(|subject| subject.name()).collect::<Vec<_>>()
        };
        let own = ["posthouse", "posthouse-quic", "posthouse-tcp"];
        assert_eq!(of("cubic-beside-60s"), own);
        assert_eq!(of("cut-50pct"), own);
        for alone in ["random-4g-500m", "udp-dropped", "udp-throttled"] {
            assert_eq!(of(alone), ["posthouse"], "{alone}");
        }
        assert_eq!(of("500m-100ms-0").len(), SUBJECTS.len());
        assert!(of("500m-100ms-0.1").contains(&"tcp-bbr") && !of("500m-100ms-0.1").contains(&"rsyncd"));
        let names: std::collections::BTreeSet<_> = SUBJECTS.iter().map(|subject| subject.name()).collect();
        assert_eq!(names.len(), SUBJECTS.len(), "each has a name of its own");
        assert!(Subject::Peer(files::Subject::RsyncSsh).lands() && !Subject::TcpBbr.lands());
    }
}
