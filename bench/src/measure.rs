//! What one run cost: wall time, CPU of the subject's processes, of the database server and of everything
//! else meanwhile, and memory. The subject's processes are all descendants of this one, whether they live on
//! or have ended, except the server's. What this program itself uses, for samples of memory and for a
//! long line, counts as nobody's.
//! Source: /proc/PID/stat, /proc/PID/smaps_rollup, /proc/PID/status and /proc/stat.

use anyhow::Context;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Default, Serialize)]
pub struct Run {
    pub seconds: f64,
    /// All processes of both ends: client and server together.
    pub cpu_seconds: f64,
    pub client_cpu_seconds: f64,
    pub server_cpu_seconds: f64,
    /// Everything else on the machine meanwhile, the kernel's own threads included.
    pub other_cpu_seconds: f64,
    /// Of the largest daemon where the subject is daemons; otherwise of the subject's processes together,
    /// memory that they share counted once.
    pub peak_rss_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider_peak_rss_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consumer_peak_rss_bytes: Option<u64>,
    /// Content as it crossed the line, where the subject tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent_bytes: Option<u64>,
    /// What was reached of the bandwidth that was set, before it was changed and after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cap_shares: Option<[f64; 2]>,
    /// Where something befell the line on the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovery: Option<Recovery>,
}

/// How a transfer went on after its line's trouble.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Recovery {
    /// Until content flowed again: from the moment at which UDP stopped passing, or from a cut line's return.
    pub seconds: f64,
    /// What the provider gave, or the consumer took, beyond the file's bytes, as share of these: the larger.
    pub sent_twice_share: f64,
    /// What came to the line on the way of the data, headers, repeated packets and what it dropped included.
    pub line_udp_bytes: u64,
    pub line_tcp_bytes: u64,
}

/// Runs `work`. `server` is the first process of a database server that both ends use; `daemons` are the
/// subject's own processes that were started before and outlive the run.
pub fn measured(
    server: Option<u32>,
    daemons: &[u32],
    work: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Run> {
    measured_between(server.as_slice(), daemons, work)
}

/// The same between several servers, each by its first process.
pub fn measured_between(
    server: &[u32],
    daemons: &[u32],
    work: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Run> {
    for pid in daemons {
        // Resets the peak so that each run has its own; where the kernel refuses, the peak is the process's.
        let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
    }
    quiet_backends(server);
    let before = Ticks::now(server)?;
    let (seconds, sampled) = std::thread::scope(|scope| {
        let (running, ended) = channel::<()>();
        // Daemons keep their own peak; looking at all their pages would slow them down.
        let sampler = daemons.is_empty().then(|| scope.spawn(move || sample(server, &ended)));
        let start = Instant::now();
        let outcome = work();
        let seconds = start.elapsed().as_secs_f64();
        drop(running);
        let sampled = sampler.map_or(0, |sampler| sampler.join().unwrap_or(0));
        outcome.map(|()| (seconds, sampled))
    })?;
    await_backends(server, before.backends);
    let after = Ticks::now(server)?;
    let tick = rustix::param::clock_ticks_per_second() as f64;
    let since = |before: u64, after: u64| after.saturating_sub(before) as f64 / tick;
    let client = since(before.client, after.client);
    let server = since(before.server, after.server);
    let largest = daemons.iter().filter_map(|pid| peak_rss(*pid)).max();
    Ok(Run {
        seconds,
        cpu_seconds: client + server,
        client_cpu_seconds: client,
        server_cpu_seconds: server,
        other_cpu_seconds: (since(before.machine, after.machine) - client - server - since(before.own, after.own))
            .max(0.0),
        peak_rss_bytes: largest.unwrap_or(sampled),
        provider_peak_rss_bytes: None,
        consumer_peak_rss_bytes: None,
        sent_bytes: None,
        cap_shares: None,
        recovery: None,
    })
}

/// The most memory that a process ever had since the last run began.
pub fn peak_rss(pid: u32) -> Option<u64> {
    kib(&format!("/proc/{pid}/status"), "VmHWM:")
}

/// CPU used up to a moment, in clock ticks.
struct Ticks {
    client: u64,
    server: u64,
    machine: u64,
    /// This program's own.
    own: u64,
    backends: usize,
}

impl Ticks {
    fn now(server: &[u32]) -> anyhow::Result<Self> {
        let processes = Processes::now()?;
        let of_server = processes.families(server);
        let own = processes.all.get(&std::process::id()).context("this process is in /proc")?;
        let sum = |pids: &BTreeSet<u32>| -> u64 {
            pids.iter().filter_map(|pid| processes.all.get(pid)).map(|process| process.lived + process.reaped).sum()
        };
        Ok(Self {
            client: own.reaped + sum(&processes.subject(&of_server)),
            server: sum(&of_server),
            machine: machine_ticks()?,
            own: own.lived,
            backends: of_server.len(),
        })
    }
}

struct Process {
    parent: u32,
    /// utime and stime.
    lived: u64,
    /// The same of children that ended and were waited for.
    reaped: u64,
}

struct Processes {
    all: BTreeMap<u32, Process>,
}

impl Processes {
    fn now() -> anyhow::Result<Self> {
        let mut all = BTreeMap::new();
        for entry in std::fs::read_dir("/proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // A process may end between the listing and the reading: its parent has its ticks then.
            let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
            if let Some(process) = parse_stat(&stat) {
                all.insert(pid, process);
            }
        }
        Ok(Self { all })
    }

    /// A process and all that descend from it.
    fn family(&self, root: u32) -> BTreeSet<u32> {
        let mut found = BTreeSet::from([root]);
        let mut open = vec![root];
        while let Some(parent) = open.pop() {
            for (pid, _) in self.all.iter().filter(|(_, process)| process.parent == parent) {
                if found.insert(*pid) {
                    open.push(*pid);
                }
            }
        }
        found
    }

    /// The same of several processes.
    fn families(&self, roots: &[u32]) -> BTreeSet<u32> {
        roots.iter().flat_map(|root| self.family(*root)).collect()
    }

    /// The descendants of this program without the server's.
    fn subject(&self, of_server: &BTreeSet<u32>) -> BTreeSet<u32> {
        let own = std::process::id();
        self.family(own).into_iter().filter(|pid| *pid != own && !of_server.contains(pid)).collect()
    }
}

/// After the command's name, which may hold spaces and brackets: state, parent, …; [11..15] are utime, stime,
/// cutime, cstime.
fn parse_stat(stat: &str) -> Option<Process> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|word| word.parse::<u64>().ok());
    Some(Process {
        parent: fields.get(1)?.parse().ok()?,
        lived: number(11)? + number(12)?,
        reaped: number(13)? + number(14)?,
    })
}

/// All busy time of the machine in clock ticks: user, nice, system, irq, softirq, steal.
fn machine_ticks() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().context("/proc/stat has a first line")?;
    let numbers: Vec<u64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    anyhow::ensure!(numbers.len() >= 8, "/proc/stat is too short");
    Ok(numbers[0] + numbers[1] + numbers[2] + numbers[5] + numbers[6] + numbers[7])
}

/// The most memory that the subject's processes had together, looked at until `ended` closes.
fn sample(server: &[u32], ended: &Receiver<()>) -> u64 {
    let program = |pid: u32| std::fs::read_link(format!("/proc/{pid}/exe")).ok();
    let own = program(std::process::id());
    let mut peak = 0;
    loop {
        if let Ok(processes) = Processes::now() {
            let of_server = processes.families(server);
            // A child that has not yet become its own program still shows the memory of this one.
            let subject = processes.subject(&of_server).into_iter().filter(|pid| program(*pid) != own);
            // Proportional: a page that forks share counts once, not in each of them.
            peak = peak.max(subject.filter_map(|pid| kib(&format!("/proc/{pid}/smaps_rollup"), "Pss:")).sum());
        }
        if ended.recv_timeout(SAMPLE_EVERY) != Err(RecvTimeoutError::Timeout) {
            return peak;
        }
    }
}

/// A backend ends a moment after its client has; its CPU is its parent's to tell only then.
fn await_backends(server: &[u32], before: usize) {
    let start = Instant::now();
    while !server.is_empty()
        && start.elapsed() < SETTLE
        && Processes::now().is_ok_and(|processes| processes.families(server).len() > before)
    {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A backend of whoever came before has ended too: one that still was there would be missed as one of the run's.
fn quiet_backends(server: &[u32]) {
    if server.is_empty() {
        return;
    }
    let count = || Processes::now().map_or(0, |processes| processes.families(server).len());
    let start = Instant::now();
    let (mut least, mut since) = (count(), Instant::now());
    while start.elapsed() < SETTLE && since.elapsed() < SETTLE / 4 {
        std::thread::sleep(Duration::from_millis(20));
        let now = count();
        if now < least {
            (least, since) = (now, Instant::now());
        }
    }
}

fn kib(path: &str, field: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

const SAMPLE_EVERY: Duration = Duration::from_millis(200);
const SETTLE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let process = parse_stat("7 (a) b (c)) S 3 7 7 0 -1 4194304 1 2 3 4 50 6 70 8 20 0 1").expect("a process");
        assert_eq!((process.parent, process.lived, process.reaped), (3, 56, 78));
        assert!(parse_stat("7 (a) S 3 7").is_none());
    }

    #[test]
    fn a_child_counts_as_the_client_and_its_memory_is_seen() {
        let work = "import time; b = bytearray(64 << 20); end = time.time() + 0.7\nwhile time.time() < end: pass";
        let run = measured(None, &[], || {
            anyhow::ensure!(Command::new("python3").args(["-c", work]).status()?.success());
            Ok(())
        })
        .expect("a run");
        assert!(run.client_cpu_seconds > 0.3 && run.client_cpu_seconds < run.seconds + 0.5, "{run:?}");
        assert!(run.peak_rss_bytes > 64 << 20, "{run:?}");
        assert_eq!(run.server_cpu_seconds, 0.0);
    }
}
