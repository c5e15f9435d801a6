//! What one run cost: wall time, CPU of the processes concerned, CPU of everything else, peak memory.
//! Source: /proc/PID/stat and /proc/PID/status of the daemons, wait4's children total of this process, /proc/stat.

use anyhow::Context;
use serde::Serialize;
use std::time::Instant;

#[derive(Debug, Clone, Serialize)]
pub struct Run {
    pub seconds: f64,
    pub cpu_seconds: f64,
    pub other_cpu_seconds: f64,
    pub peak_rss_bytes: u64,
}

/// Runs `work`; `daemons` are processes that work for it and outlive it, children it starts itself are counted too.
pub fn measured(daemons: &[u32], work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Run> {
    let tick = rustix::param::clock_ticks_per_second() as f64;
    for pid in daemons {
        // Resets the peak so that each run has its own; where the kernel refuses, the peak is the process's.
        let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
    }
    let all_before = machine_ticks()?;
    let own_before = concerned_ticks(daemons)?;
    let start = Instant::now();
    work()?;
    let seconds = start.elapsed().as_secs_f64();
    let own = (concerned_ticks(daemons)? - own_before) as f64 / tick;
    let all = (machine_ticks()? - all_before) as f64 / tick;
    let mut peak = 0;
    for pid in daemons {
        peak = peak.max(peak_rss(*pid).unwrap_or(0));
    }
    Ok(Run { seconds, cpu_seconds: own, other_cpu_seconds: (all - own).max(0.0), peak_rss_bytes: peak })
}

/// utime + stime of the daemons and of finished children of this process, in clock ticks.
fn concerned_ticks(daemons: &[u32]) -> anyhow::Result<u64> {
    let mut total = 0;
    for pid in daemons {
        let fields = stat_fields(&format!("/proc/{pid}/stat"))?;
        total += fields[11] + fields[12];
    }
    let own = stat_fields("/proc/self/stat")?;
    Ok(total + own[11] + own[12] + own[13] + own[14])
}

/// The numbers after the command's name in a stat file; [11..15] are utime, stime, cutime, cstime.
fn stat_fields(path: &str) -> anyhow::Result<Vec<u64>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{path} cannot be read"))?;
    let (_, rest) = text.rsplit_once(')').context("a stat line has a name")?;
    let fields: Vec<u64> = rest.split_whitespace().map(|word| word.parse().unwrap_or(0)).collect();
    anyhow::ensure!(fields.len() > 15, "{path} is too short");
    Ok(fields)
}

/// All busy time of the machine in clock ticks: user, nice, system, irq, softirq, steal.
fn machine_ticks() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().context("/proc/stat has a first line")?;
    let numbers: Vec<u64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    anyhow::ensure!(numbers.len() >= 8, "/proc/stat is too short");
    Ok(numbers[0] + numbers[1] + numbers[2] + numbers[5] + numbers[6] + numbers[7])
}

fn peak_rss(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}
