//! A long line between two network namespaces: a TUN device in each, and threads that carry packets across with a
//! rate, a queue that drops its tail, a delay and losses by chance. For kernels without netem; needs root and `ip`.
//!
//! One thread a way takes packets from a device and decides their fate and moment, another hands them over then.
//! Not played: reordering, jitter, ECN marks.

use crate::site::Place;
use anyhow::{Context, bail, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tun_rs::{DeviceBuilder, SyncDevice};

#[derive(Debug, Clone, Copy)]
pub struct Line {
    pub bits_per_second: f64,
    /// One way.
    pub delay: Duration,
    /// As time at the rate.
    pub queue: Duration,
    /// Share of the packets that get through the queue.
    pub loss: f64,
}

/// One end of the line: where a process runs, and its address there.
#[derive(Debug, Clone)]
pub struct End {
    pub namespace: String,
    pub address: &'static str,
}

pub struct Relay {
    pub left: End,
    pub right: End,
    /// From left to right, and back.
    counts: [Arc<Counts>; 2],
    threads: Vec<JoinHandle<()>>,
}

/// Packets of one way.
#[derive(Default)]
struct Counts {
    came: AtomicU64,
    queue_dropped: AtomicU64,
    late: AtomicU64,
    /// Long packets, and when those that open a connection were past and when the latest came, in microseconds since the
    /// line was there.
    long: AtomicU64,
    first: AtomicU64,
    latest: AtomicU64,
}

/// Of one way so far.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    pub packets: u64,
    pub queue_dropped: u64,
    /// Handed over more than a millisecond late, by this relay's own fault.
    pub late: u64,
    /// From the first flight of data to the latest packet of it.
    pub flowed: Duration,
}

impl Relay {
    /// `seed` decides which packets are lost.
    pub fn start(line: Line, seed: u64) -> anyhow::Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "the suite wan needs root: it makes network namespaces and TUN devices"
        );
        let end =
            |side: &str, address| End { namespace: format!("posthouse-bench-{}-{side}", std::process::id()), address };
        let mut relay = Self {
            left: end("left", "10.77.0.1"),
            right: end("right", "10.77.0.2"),
            counts: [Arc::default(), Arc::default()],
            threads: Vec::new(),
        };
        let (left, right) = (relay.left.device()?, relay.right.device()?);
        for (from, to, way) in [(&left, &right, 0), (&right, &left, 1)] {
            let (queue, queued) = channel();
            let counts = relay.counts[way].clone();
            let (device, seed) = (from.clone(), seed.wrapping_mul(2).wrapping_add(way as u64));
            relay.threads.push(std::thread::spawn(move || take(&device, line, Chance::new(seed), &counts, &queue)));
            let (device, counts) = (to.clone(), relay.counts[way].clone());
            relay.threads.push(std::thread::spawn(move || hand_over(&device, &counts, &queued)));
        }
        Ok(relay)
    }

    /// From left to right, and back.
    pub fn seen(&self) -> [Seen; 2] {
        [0, 1].map(|way: usize| {
            let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
            let Counts { came, queue_dropped, late, first, latest, .. } = &*self.counts[way];
            let flowed = Duration::from_micros(get(latest).saturating_sub(get(first)));
            Seen { packets: get(came), queue_dropped: get(queue_dropped), late: get(late), flowed }
        })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // With the devices goes what the threads wait for; one that stays would be waited for in vain.
        let mut gone = true;
        for end in [&self.left, &self.right] {
            gone &= ip(&["-n", &end.namespace, "link", "del", DEVICE]).is_ok();
            let _ = ip(&["netns", "del", &end.namespace]);
        }
        for thread in self.threads.drain(..).filter(|_| gone) {
            let _ = thread.join();
        }
    }
}

impl End {
    pub fn place(&self) -> Place<'_> {
        Place { address: self.address, namespace: Some(&self.namespace) }
    }

    /// Makes the namespace, and the device in it by a thread that goes there.
    fn device(&self) -> anyhow::Result<Arc<SyncDevice>> {
        ip(&["netns", "add", &self.namespace])?;
        let path = format!("/run/netns/{}", self.namespace);
        let made = std::thread::spawn(move || -> anyhow::Result<SyncDevice> {
            let namespace = std::fs::File::open(&path).with_context(|| format!("{path} cannot be opened"))?;
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(DeviceBuilder::new().name(DEVICE).mtu(MTU).build_sync()?)
        });
        let device = match made.join() {
            Ok(device) => device?,
            Err(_) => bail!("no TUN device could be made"),
        };
        let namespace = self.namespace.as_str();
        ip(&["-n", namespace, "link", "set", "lo", "up"])?;
        // A long queue of the device: what is dropped is dropped by the line.
        ip(&["-n", namespace, "link", "set", DEVICE, "mtu", &MTU.to_string(), "txqueuelen", "20000", "up"])?;
        ip(&["-n", namespace, "addr", "replace", &format!("{}/24", self.address), "dev", DEVICE])?;
        Ok(Arc::new(device))
    }
}

/// Takes packets until the device is gone.
fn take(device: &SyncDevice, line: Line, mut chance: Chance, counts: &Counts, queue: &Sender<(Instant, Vec<u8>)>) {
    first_in_line();
    let start = Instant::now();
    let mut free_at = start;
    let mut packet = vec![0; usize::from(MTU) + 64];
    while let Ok(bytes) = device.recv(&mut packet) {
        let now = Instant::now();
        counts.came.fetch_add(1, Ordering::Relaxed);
        if bytes >= LONG {
            let at = now.duration_since(start).as_micros() as u64;
            if counts.long.fetch_add(1, Ordering::Relaxed) == OPENING {
                counts.first.store(at, Ordering::Relaxed);
            }
            counts.latest.store(at, Ordering::Relaxed);
        }
        let begins = free_at.max(now);
        if begins - now > line.queue {
            counts.queue_dropped.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        free_at = begins + Duration::from_secs_f64(bytes as f64 * 8.0 / line.bits_per_second);
        if chance.next() >= line.loss && queue.send((free_at + line.delay, packet[..bytes].to_vec())).is_err() {
            return;
        }
    }
}

fn hand_over(device: &SyncDevice, counts: &Counts, queued: &Receiver<(Instant, Vec<u8>)>) {
    first_in_line();
    while let Ok((due, packet)) = queued.recv() {
        let now = Instant::now();
        if due > now {
            std::thread::sleep(due - now);
        }
        if due.elapsed() > LATE {
            counts.late.fetch_add(1, Ordering::Relaxed);
        }
        // A device that is going takes nothing more; the end of the queue ends this.
        let _ = device.send(&packet);
    }
}

/// Before all others on busy cores; without the right to that the counts of late packets tell.
fn first_in_line() {
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), -20);
}

/// Runs `ip`.
fn ip(args: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip").args(args).stdin(Stdio::null()).output().context("ip (iproute2) does not start")?;
    ensure!(output.status.success(), "ip {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// xorshift64*: the same seed loses the same packets.
struct Chance(u64);

impl Chance {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }
    /// From 0 up to 1.
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

const DEVICE: &str = "line0";
const MTU: u16 = 1_500;
/// Longer than what only acknowledges.
const LONG: usize = 1_000;
/// A handshake pads a few packets; the first flight of data has more.
const OPENING: u64 = 16;
const LATE: Duration = Duration::from_millis(1);
