//! Suite `wan`: a file over a long line between two network namespaces, by Posthouse and by TCP's own senders.
//! Posthouse's time runs from the command to the receipt. TCP's is a flow for as long as the line needs for the file,
//! with its start too, which lands on no disk; its time and CPU are put as if it had carried the file.

mod line;
mod relay;

use crate::files::{Data, same};
use crate::measure::{Run, measured, peak_rss};
use crate::report::{Case, Failure, OnLine, Suite, machine, median};
use crate::site::{Places, Site};
use crate::{chosen, turns};
use anyhow::{Context, bail, ensure};
use line::Line;
use relay::Relay;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

struct Plan {
    name: &'static str,
    /// Share of the packets that the line loses.
    loss: f64,
    data: Data,
    /// Of a TCP flow.
    seconds: u64,
    /// A flow of TCP CUBIC runs beside, for less time than the file needs alone; only Posthouse is measured,
    /// and what the flow keeps.
    beside: bool,
}

const PLANS: &[Plan] = &[
    Plan { name: "500m-100ms-0", loss: 0.0, data: Data::Random(1_250_000_000), seconds: 20, beside: false },
    Plan { name: "500m-100ms-0.1", loss: 0.001, data: Data::Random(1_250_000_000), seconds: 20, beside: false },
    Plan { name: "500m-100ms-1", loss: 0.01, data: Data::Random(1_250_000_000), seconds: 20, beside: false },
    Plan { name: "csv-4g-500m", loss: 0.0, data: Data::Csv(4 << 30), seconds: 20, beside: false },
    Plan { name: "cubic-beside-60s", loss: 0.0, data: Data::Random(3_700_000_000), seconds: 60, beside: true },
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    Posthouse,
    PosthouseQuic,
    PosthouseTcp,
    TcpBbr,
    TcpCubic,
}

const SUBJECTS: &[Subject] =
    &[Subject::Posthouse, Subject::PosthouseQuic, Subject::PosthouseTcp, Subject::TcpBbr, Subject::TcpCubic];

impl Subject {
    fn name(self) -> &'static str {
        match self {
            Self::Posthouse => "posthouse",
            Self::PosthouseQuic => "posthouse-quic",
            Self::PosthouseTcp => "posthouse-tcp",
            Self::TcpBbr => "tcp-bbr",
            Self::TcpCubic => "tcp-cubic",
        }
    }
    /// Whether it is this project's.
    fn is_own(self) -> bool {
        matches!(self, Self::Posthouse | Self::PosthouseQuic | Self::PosthouseTcp)
    }
    fn note(self) -> &'static str {
        match self {
            Self::Posthouse => "from the command to the receipt, verified and synced; defaults",
            Self::PosthouseQuic => "as posthouse, which chooses; here with `transport = \"quic\"`",
            Self::PosthouseTcp => "as posthouse, which chooses; here with `transport = \"tcp\"`",
            Self::TcpBbr | Self::TcpCubic => {
                "iperf3, one flow, buffers raised to 64 MB, time and CPU for as many bytes; from memory to nowhere"
            }
        }
    }
    fn version(self, program: Option<&Path>) -> anyhow::Result<String> {
        let mut command = match self {
            Self::Posthouse | Self::PosthouseQuic | Self::PosthouseTcp => {
                Command::new(program.context("posthouse was not built")?)
            }
            Self::TcpBbr | Self::TcpCubic => Command::new("iperf3"),
        };
        let output = command.arg("--version").stdin(Stdio::null()).output().context("iperf3 is not installed")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text.lines().next().unwrap_or_default().trim().to_owned())
    }
}

/// What one subject did in one case.
#[derive(Default)]
struct Results {
    runs: Vec<Run>,
    shares: Vec<f64>,
    flowing: Vec<f64>,
    dropped: Vec<f64>,
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
    let data = tempfile::Builder::new().prefix("posthouse-bench-data-").tempdir()?;
    let bytes = plan.data.make(data.path())?;
    let mut results: Vec<Results> = subjects.iter().map(|_| Results::default()).collect();
    let mut turns: Vec<usize> = (0..subjects.len()).collect();
    turns.retain(|turn| !plan.beside || subjects[*turn].0.is_own());
    // What the flow beside each of them kept.
    let mut kept: Vec<Vec<f64>> = subjects.iter().map(|_| Vec::new()).collect();
    let mut offloads = true;
    for round in 1..=runs {
        for turn in &turns {
            let (name, subject) = (subjects[*turn].0.name(), subjects[*turn].0);
            let line = Line { bits_per_second: RATE, delay: DELAY, queue: QUEUE, loss: plan.loss };
            let relay = Relay::start(line, round.into())?;
            offloads &= relay.offloads;
            let carried = match subject {
                Subject::Posthouse => posthouse(plan, program, data.path(), &relay, "auto", &mut kept[*turn]),
                Subject::PosthouseQuic => posthouse(plan, program, data.path(), &relay, "quic", &mut kept[*turn]),
                Subject::PosthouseTcp => posthouse(plan, program, data.path(), &relay, "tcp", &mut kept[*turn]),
                Subject::TcpBbr => tcp(bytes, plan.seconds, "bbr", &relay),
                Subject::TcpCubic => tcp(bytes, plan.seconds, "cubic", &relay),
            };
            let carried = carried.and_then(|run| {
                let refused: u64 = relay.seen().iter().map(|way| way.refused).sum();
                ensure!(refused == 0, "packets vanished at the line's own devices, {refused} times");
                Ok(run)
            });
            match carried {
                Ok(run) => {
                    let seen = relay.seen()[0];
                    let share = bytes as f64 * 8.0 / run.seconds / RATE;
                    // iperf3 tells only of the time in which it flows.
                    let flowing = match subject.is_own() {
                        true => bytes as f64 * 8.0 / seen.flowed.as_secs_f64() / RATE,
                        false => share,
                    };
                    let dropped = seen.queue_dropped as f64 / seen.packets.max(1) as f64;
                    eprintln!(
                        "{}: {name}, run {round}: {:.2} s, {:.1} % of the line, {:.1} % while it flows, {:.2} % dropped at the queue, {:.2} % handed over late",
                        plan.name,
                        run.seconds,
                        share * 100.0,
                        flowing * 100.0,
                        dropped * 100.0,
                        seen.late as f64 * 100.0 / seen.packets.max(1) as f64,
                    );
                    let result = &mut results[*turn];
                    result.runs.push(run);
                    result.shares.push(share);
                    result.flowing.push(flowing);
                    result.dropped.push(dropped);
                }
                Err(error) => {
                    eprintln!("{}: {name}, run {round}: {error:#}", plan.name);
                    let reason = format!("run {round}: {error:#}");
                    suite.failed.push(Failure { case: plan.name.to_owned(), subject: name.to_owned(), reason });
                }
            }
        }
        if !turns.is_empty() {
            turns.rotate_left(1);
        }
    }
    let alone = if offloads {
        ""
    } else {
        "; here the kernel does not let the line's devices split and gather packets, of UDP at least"
    };
    for (((subject, version), result), kept) in subjects.iter().zip(results).zip(kept) {
        if result.runs.is_empty() {
            continue;
        }
        let beside = match kept.is_empty() {
            true => String::new(),
            false => format!(
                "; CPU with iperf3's; a TCP CUBIC flow beside kept {:.0} % of the line",
                median(kept.iter().copied()) * 100.0
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
            note: format!("{version}; {}{beside}{alone}", subject.note()),
        });
    }
    Ok(())
}

fn posthouse(
    plan: &Plan,
    program: Option<&Path>,
    data: &Path,
    relay: &Relay,
    transport: &str,
    kept: &mut Vec<f64>,
) -> anyhow::Result<Run> {
    let (left, right) = (relay.left.place(), relay.right.place());
    let places = Places { centre: right, provider: left, consumer: right, transport };
    let provider = format!("[[resource]]\nid = \"data\"\nfolder = \"{}\"\n", data.display());
    let consumer = "[[job]]\nname = \"data\"\nresource = \"provider.bench.example/data\"\ninto = { folder = \"{dir}/inbox\" }\nmode = \"full\"\nwrite = \"upsert\"\nschedule = \"manual\"\n";
    let site = Site::start_at(&places, program.context("posthouse was not built")?, &provider, consumer, &["data"])?;
    let pids = site.pids();
    let mut end = serde_json::Value::Null;
    let mut run = std::thread::scope(|scope| {
        let beside = plan.beside.then(|| scope.spawn(|| flow("cubic", plan.seconds, relay)));
        let run = measured(None, &pids, || {
            end = site.take("data")?;
            Ok(())
        });
        if let Some(beside) = beside {
            let bits = beside.join().map_err(|_| anyhow::anyhow!("the flow beside failed"))??;
            kept.push(bits / RATE);
        }
        run
    })?;
    if let [_, provider, consumer] = pids[..] {
        (run.provider_peak_rss_bytes, run.consumer_peak_rss_bytes) = (peak_rss(provider), peak_rss(consumer));
    }
    ensure!(end["state"] == "settled", "{end}");
    run.sent_bytes = end["bytes_sent"].as_u64();
    same(data, Path::new(&site.path("inbox")))?;
    Ok(run)
}

fn tcp(bytes: u64, seconds: u64, control: &str, relay: &Relay) -> anyhow::Result<Run> {
    let mut bits = 0.0;
    let mut run = measured(None, &[], || {
        bits = flow(control, seconds, relay)?;
        Ok(())
    })?;
    // As long as it would have taken for the file, so that rows compare.
    let scale = bytes as f64 * 8.0 / bits.max(1.0) / seconds as f64;
    run.seconds = seconds as f64 * scale;
    run.cpu_seconds *= scale;
    run.client_cpu_seconds *= scale;
    run.other_cpu_seconds *= scale;
    Ok(run)
}

/// Bits a second that arrived of one flow of iperf3.
fn flow(control: &str, seconds: u64, relay: &Relay) -> anyhow::Result<f64> {
    let (left, right) = (relay.left.place(), relay.right.place());
    for place in [left, right] {
        for (name, sizes) in [("tcp_wmem", "4096 16384 67108864"), ("tcp_rmem", "4096 131072 67108864")] {
            let write = format!("echo {sizes} > /proc/sys/net/ipv4/{name}");
            ensure!(place.command("sh").args(["-c", &write]).status()?.success(), "{name} cannot be raised");
        }
    }
    let server = right.command("iperf3").args(["-s", "-1"]).stdout(Stdio::null()).spawn()?;
    let server = Ended(server);
    std::thread::sleep(Duration::from_millis(500));
    let output = left
        .command("iperf3")
        .args(["-c", right.address, "-t", &seconds.to_string(), "-C", control, "-J"])
        .stdin(Stdio::null())
        .output()?;
    drop(server);
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).context("iperf3 tells no JSON")?;
    match result["end"]["sum_received"]["bits_per_second"].as_f64() {
        Some(bits) => Ok(bits),
        None => bail!("iperf3: {}", result["error"]),
    }
}

/// A process that does not outlive this.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const RATE: f64 = 500e6;
const DELAY: Duration = Duration::from_millis(50);
const QUEUE: Duration = Duration::from_millis(50);
