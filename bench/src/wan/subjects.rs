//! Who carries a file over the line, from its left end to its right one: Posthouse, TCP by itself, and tools that copy
//! files over it, as the suite `files` runs them, but each end in its own network namespace. A subject that is not
//! installed is named as missing.

use super::relay::Relay;
use super::trouble::Passage;
use crate::files::{self, Trial, same};
use crate::measure::{Run, measured, peak_rss};
use crate::site::{Places, Site};
use anyhow::{Context, bail, ensure};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    Posthouse,
    PosthouseQuic,
    PosthouseTcp,
    TcpBbr,
    TcpCubic,
    /// One of those of the suite `files` that can be told where its ends are.
    Peer(files::Subject),
}

pub const SUBJECTS: &[Subject] = &[
    Subject::Posthouse,
    Subject::PosthouseQuic,
    Subject::PosthouseTcp,
    Subject::TcpBbr,
    Subject::TcpCubic,
    Subject::Peer(files::Subject::RsyncDaemon),
    Subject::Peer(files::Subject::RsyncSsh),
    Subject::Peer(files::Subject::RcloneSftp),
];

/// What is to be carried, and over which line.
pub struct Trip<'a> {
    pub program: Option<&'a Path>,
    pub data: &'a Path,
    pub bytes: u64,
    pub relay: &'a Relay,
    pub passage: &'a Passage,
    /// Of a TCP flow.
    pub seconds: u64,
    /// Whether a flow of TCP CUBIC runs beside Posthouse.
    pub beside: bool,
}

pub struct Carried {
    pub run: Run,
    /// Bits a second of the flow beside.
    pub beside: Option<f64>,
}

impl Subject {
    pub fn name(self) -> &'static str {
        match self {
            Self::Posthouse => "posthouse",
            Self::PosthouseQuic => "posthouse-quic",
            Self::PosthouseTcp => "posthouse-tcp",
            Self::TcpBbr => "tcp-bbr",
            Self::TcpCubic => "tcp-cubic",
            Self::Peer(peer) => peer.name(),
        }
    }

    /// Whether it is this project's.
    pub fn is_own(self) -> bool {
        matches!(self, Self::Posthouse | Self::PosthouseQuic | Self::PosthouseTcp)
    }

    /// Whether it lands what it carries.
    pub fn lands(self) -> bool {
        !matches!(self, Self::TcpBbr | Self::TcpCubic)
    }

    /// What a reader of the figures has to know; the version is put before it.
    pub fn note(self) -> String {
        let note = match self {
            Self::Posthouse => "from the command to the receipt, verified and synced; defaults",
            Self::PosthouseQuic => "as posthouse, which chooses; here with `transport = \"quic\"`",
            Self::PosthouseTcp => {
                "as posthouse, which chooses; here with `transport = \"tcp\"`, and BBR, which root may have where others may not"
            }
            Self::TcpBbr | Self::TcpCubic => {
                "iperf3, one flow, buffers raised to 64 MB, time and CPU for as many bytes; from memory to nowhere"
            }
            Self::Peer(peer) => return format!("{}; TCP as the system has it", peer.note()),
        };
        note.to_owned()
    }

    /// Its version, or why it cannot run here.
    pub fn version(self, program: Option<&Path>) -> anyhow::Result<String> {
        let mut command = match self {
            Self::Posthouse | Self::PosthouseQuic | Self::PosthouseTcp => {
                Command::new(program.context("posthouse was not built")?)
            }
            Self::TcpBbr | Self::TcpCubic => Command::new("iperf3"),
            Self::Peer(peer) => return peer.version(program),
        };
        let output = command.arg("--version").stdin(Stdio::null()).output().context("iperf3 is not installed")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text.lines().next().unwrap_or_default().trim().to_owned())
    }

    pub fn carry(self, trip: &Trip) -> anyhow::Result<Carried> {
        let alone = |run| Carried { run, beside: None };
        match self {
            Self::Posthouse => posthouse(trip, "auto"),
            Self::PosthouseQuic => posthouse(trip, "quic"),
            Self::PosthouseTcp => posthouse(trip, "tcp"),
            Self::TcpBbr => tcp(trip, "bbr").map(alone),
            Self::TcpCubic => tcp(trip, "cubic").map(alone),
            Self::Peer(peer) => by_peer(trip, peer).map(alone),
        }
    }
}

fn posthouse(trip: &Trip, transport: &str) -> anyhow::Result<Carried> {
    let (left, right) = (trip.relay.left.place(), trip.relay.right.place());
    let places = Places { centre: right, provider: left, consumer: right, transport };
    let provider = format!("[[resource]]\nid = \"data\"\nfolder = \"{}\"\n", trip.data.display());
    let consumer = "[[job]]\nname = \"data\"\nresource = \"provider.bench.example/data\"\ninto = { folder = \"{dir}/inbox\" }\nmode = \"full\"\nwrite = \"upsert\"\nschedule = \"manual\"\n";
    let program = trip.program.context("posthouse was not built")?;
    let site = Site::start_at(&places, program, &provider, consumer, &["data"])?;
    let pids = site.pids();
    let mut end = serde_json::Value::Null;
    let (mut run, beside) = std::thread::scope(|scope| {
        let flow = trip.beside.then(|| scope.spawn(|| flow("cubic", trip.seconds, trip.relay)));
        let run = measured(None, &pids, || {
            end = site.take("data")?;
            Ok(())
        });
        let beside = match flow {
            Some(flow) => Some(flow.join().map_err(|_| anyhow::anyhow!("the flow beside failed"))??),
            None => None,
        };
        anyhow::Ok((run?, beside))
    })?;
    if let [_, provider, consumer] = pids[..] {
        (run.provider_peak_rss_bytes, run.consumer_peak_rss_bytes) = (peak_rss(provider), peak_rss(consumer));
    }
    ensure!(end["state"] == "settled", "{end}");
    run.sent_bytes = end["bytes_sent"].as_u64();
    if trip.passage.is_troubled() {
        // What was on its way over a line that is no more was given, but was not taken.
        let given = site.given()?["bytes_sent"].as_u64();
        run.recovery = trip.passage.recovery(trip.bytes, run.sent_bytes.max(given))?;
    }
    same(trip.data, Path::new(&site.path("inbox")))?;
    Ok(Carried { run, beside })
}

fn by_peer(trip: &Trip, peer: files::Subject) -> anyhow::Result<Run> {
    let folder = |prefix: &str| tempfile::Builder::new().prefix(prefix).tempdir();
    let (target, scratch) = (folder("posthouse-bench-target-")?, folder("posthouse-bench-scratch-")?);
    let way = files::Way {
        from: trip.data,
        before: trip.data,
        to: target.path(),
        bytes: trip.bytes,
        scratch: scratch.path(),
        trial: Trial::Plain,
        giving: trip.relay.left.place(),
        landing: trip.relay.right.place(),
    };
    let run = peer.carry(&way, None)?;
    same(trip.data, target.path())?;
    Ok(run)
}

fn tcp(trip: &Trip, control: &str) -> anyhow::Result<Run> {
    let seconds = trip.seconds as f64;
    let mut bits = 0.0;
    let mut run = measured(None, &[], || {
        bits = flow(control, trip.seconds, trip.relay)?;
        Ok(())
    })?;
    // As long as it would have taken for the file, so that rows compare.
    let scale = trip.bytes as f64 * 8.0 / bits.max(1.0) / seconds;
    run.seconds = seconds * scale;
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
