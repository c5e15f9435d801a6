//! A long line between two network namespaces: a TUN device in each, and threads that carry packets across with a
//! rate, a queue that drops its tail, a delay and losses by chance. For kernels without netem; needs root and `ip`.
//!
//! One thread a way takes packets from a device and decides their fate and moment, another hands them over then.
//! The devices do what cards do, so that the subjects pay for packets as they would with a card: they take large
//! packets of TCP and UDP and split them (TSO, USO), and gather those of a flow that come together (GRO). On the line
//! and in its counts each packet is one that the MTU allows. Where the kernel has none of this, each is taken and
//! handed over alone. A flow's data keep their order; flows of one group may pass each other, and within it so may what
//! has no data or is sent again. Not played: other reordering, jitter, ECN marks.

use super::line::{Fate, Flight, Group, Line, TOGETHER_BYTES, TOGETHER_PACKETS, Underway, Way};
use super::trouble::{Gate, Passage};
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
use tun_rs::{DeviceBuilder, GROTable, SyncDevice, VIRTIO_NET_HDR_LEN};

/// One end of the line: where a process runs, and its address there.
#[derive(Debug, Clone)]
pub struct End {
    pub namespace: String,
    pub address: &'static str,
}

pub struct Relay {
    pub left: End,
    pub right: End,
    /// Whether the kernel lets the devices split and gather packets, of UDP too.
    pub offloads: bool,
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
    refused: AtomicU64,
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
    /// Times that packets vanished since they could not be split or a device did not take them; such a run fails.
    pub refused: u64,
    /// From the first flight of data to the latest packet of it.
    pub flowed: Duration,
}

impl Relay {
    /// `seed` decides which packets are lost, `passage` what comes to the line's queue; data go from left to right.
    pub fn start(line: Line, seed: u64, passage: &Arc<Passage>) -> anyhow::Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "the suite wan needs root: it makes network namespaces and TUN devices"
        );
        let end =
            |side: &str, address| End { namespace: format!("posthouse-bench-{}-{side}", std::process::id()), address };
        let mut relay = Self {
            left: end("left", "10.77.0.1"),
            right: end("right", "10.77.0.2"),
            offloads: false,
            counts: [Arc::default(), Arc::default()],
            threads: Vec::new(),
        };
        let (left, right) = (relay.left.device()?, relay.right.device()?);
        relay.offloads = left.udp_gso() && right.udp_gso();
        for (from, to, way) in [(&left, &right, 0), (&right, &left, 1)] {
            let (queue, queued) = channel();
            let counts = relay.counts[way].clone();
            let (device, seed) = (from.clone(), seed.wrapping_mul(2).wrapping_add(way as u64));
            let gate = Gate::new(passage.clone(), way == 0, line.bits_per_second);
            relay.threads.push(std::thread::spawn(move || take(&device, line, gate, seed, &counts, &queue)));
            let (device, counts) = (to.clone(), relay.counts[way].clone());
            relay.threads.push(std::thread::spawn(move || hand_over(&device, &counts, &queued)));
        }
        Ok(relay)
    }

    /// From left to right, and back.
    pub fn seen(&self) -> [Seen; 2] {
        [0, 1].map(|way: usize| {
            let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
            let Counts { came, queue_dropped, late, refused, first, latest, .. } = &*self.counts[way];
            let flowed = Duration::from_micros(get(latest).saturating_sub(get(first)));
            Seen {
                packets: get(came),
                queue_dropped: get(queue_dropped),
                late: get(late),
                refused: get(refused),
                flowed,
            }
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

    /// By a thread that goes into the namespace; what it makes there stays of it.
    fn inside<T: Send + 'static>(
        &self,
        make: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let path = format!("/run/netns/{}", self.namespace);
        let made = std::thread::spawn(move || -> anyhow::Result<T> {
            let namespace = std::fs::File::open(&path).with_context(|| format!("{path} cannot be opened"))?;
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            make()
        });
        match made.join() {
            Ok(made) => made,
            Err(_) => bail!("a thread in {} failed", self.namespace),
        }
    }

    /// Makes the namespace, and the device in it.
    fn device(&self) -> anyhow::Result<Arc<SyncDevice>> {
        ip(&["netns", "add", &self.namespace])?;
        let device = self.inside(|| {
            let device = |offload| DeviceBuilder::new().name(DEVICE).mtu(MTU).offload(offload).build_sync();
            Ok(device(true).or_else(|_| device(false))?)
        })?;
        let namespace = self.namespace.as_str();
        ip(&["-n", namespace, "link", "set", "lo", "up"])?;
        // A long queue of the device: what is dropped is dropped by the line.
        ip(&["-n", namespace, "link", "set", DEVICE, "mtu", &MTU.to_string(), "txqueuelen", "20000", "up"])?;
        ip(&["-n", namespace, "addr", "replace", &format!("{}/24", self.address), "dev", DEVICE])?;
        Ok(Arc::new(device))
    }
}

/// Takes packets until the device is gone.
fn take(device: &SyncDevice, line: Line, mut gate: Gate, seed: u64, counts: &Counts, queue: &Sender<Flight>) {
    first_in_line();
    let start = Instant::now();
    let mut way = Way::new(line, seed, start);
    // No IPv4 packet is longer, nor does the kernel make longer ones unless it is told to.
    let mut large = vec![0_u8; VIRTIO_NET_HDR_LEN + usize::from(u16::MAX)];
    let mut packets = vec![vec![0_u8; usize::from(MTU)]; SPLIT];
    let mut sizes = vec![0_usize; SPLIT];
    loop {
        let came = match device.recv_multiple(&mut large, &mut packets, &mut sizes, 0) {
            Ok(came) => came,
            // What the system refuses is a device that is gone; without its word it is one packet that cannot be split.
            Err(error) if error.raw_os_error().is_some() => return,
            Err(_) => {
                counts.refused.fetch_add(1, Ordering::Relaxed);
                continue;
            }
        };
        let now = Instant::now();
        let mut flight = Flight::default();
        for (packet, bytes) in packets.iter().zip(&sizes).take(came) {
            if !gate.admits(&packet[..*bytes], now) {
                continue;
            }
            counts.came.fetch_add(1, Ordering::Relaxed);
            if *bytes >= LONG {
                let at = now.duration_since(start).as_micros() as u64;
                if counts.long.fetch_add(1, Ordering::Relaxed) == OPENING {
                    counts.first.store(at, Ordering::Relaxed);
                }
                counts.latest.store(at, Ordering::Relaxed);
            }
            match way.fate(now, *bytes) {
                Fate::Arrives(due) => flight.add(due, &packet[..*bytes]),
                Fate::Dropped => {
                    counts.queue_dropped.fetch_add(1, Ordering::Relaxed);
                }
                Fate::Lost => {}
            }
        }
        if !flight.is_empty() && queue.send(flight).is_err() {
            return;
        }
    }
}

/// Hands over what was taken, when it is due.
fn hand_over(device: &SyncDevice, counts: &Counts, queued: &Receiver<Flight>) {
    first_in_line();
    let mut underway = Underway::default();
    let mut table = GROTable::default();
    // A packet is gathered into the buffer of the first of its flow if that has room, with the header twice.
    let room = 2 * VIRTIO_NET_HDR_LEN + TOGETHER_BYTES;
    let mut buffers: Vec<Vec<u8>> = (0..TOGETHER_PACKETS).map(|_| Vec::with_capacity(room)).collect();
    while let Some(group) = next_group(&mut underway, queued) {
        wait_until(group.last);
        let now = Instant::now();
        let buffers = &mut buffers[..group.packets];
        for buffer in buffers.iter_mut() {
            buffer.clear();
            buffer.resize(VIRTIO_NET_HDR_LEN, 0);
            if underway.next_into(buffer).is_some_and(|due| now.saturating_duration_since(due) > LATE) {
                counts.late.fetch_add(1, Ordering::Relaxed);
            }
        }
        // A device that is going takes nothing more, but then no one counts; the end of the queue ends this.
        if device.send_multiple(&mut table, buffers, VIRTIO_NET_HDR_LEN).is_err() {
            counts.refused.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Waits for packets, and while what is there could grow, until its first is due. None when no more can come.
fn next_group(underway: &mut Underway, queued: &Receiver<Flight>) -> Option<Group> {
    if underway.is_empty() {
        underway.extend([queued.recv().ok()?]);
    }
    underway.extend(queued.try_iter());
    let group = underway.together()?;
    if !group.open {
        return Some(group);
    }
    wait_until(group.first);
    underway.extend(queued.try_iter());
    underway.together()
}

fn wait_until(moment: Instant) {
    let left = moment.saturating_duration_since(Instant::now());
    if !left.is_zero() {
        std::thread::sleep(left);
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

const DEVICE: &str = "line0";
const MTU: u16 = 1_500;
/// As many as the kernel puts into one large packet of UDP; of TCP's at this MTU it is 46.
const SPLIT: usize = 128;
/// Longer than what only acknowledges.
const LONG: usize = 1_000;
/// A handshake pads a few packets; the first flight of data has more.
const OPENING: u64 = 16;
const LATE: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream, UdpSocket};

    #[test]
    fn what_is_split_and_gathered_on_the_way_arrives_as_it_was_sent() {
        if !rustix::process::geteuid().is_root() {
            println!("not root: no network namespaces, nothing tried");
            return;
        }
        let line = Line {
            bits_per_second: 500e6,
            delay: Duration::from_millis(5),
            queue: Duration::from_millis(200),
            loss: 0.0,
        };
        let relay = Relay::start(line, 1, &Passage::new(None)).expect("root can make a line");
        let (left, right) = (relay.left.address, relay.right.address);

        let content: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
        let listener = relay.right.inside(move || Ok(TcpListener::bind((right, 0))?)).expect("a listener");
        let to = listener.local_addr().expect("an address");
        let mut stream = relay.left.inside(move || Ok(TcpStream::connect(to)?)).expect("a connection");
        let sent = content.clone();
        let sender = std::thread::spawn(move || stream.write_all(&sent));
        let mut received = Vec::new();
        listener.accept().expect("a connection").0.read_to_end(&mut received).expect("content");
        sender.join().expect("a sender").expect("all is sent");
        assert!(received == content, "{} bytes of {}", received.len(), content.len());

        // Two flows at once, of datagrams that can be gathered and some that cannot.
        let socket = |end: &End, address: &'static str| {
            let socket = end.inside(move || Ok(UdpSocket::bind((address, 0))?)).expect("a socket");
            socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
            socket
        };
        let flows = [(); 2].map(|()| (socket(&relay.left, left), socket(&relay.right, right)));
        let datagram = |flow: usize, number: usize| {
            let bytes = [1400, 1400, 1400, 300, 1400, 1, 1472, 0][number % 8];
            vec![(flow * 100 + number) as u8; bytes]
        };
        for number in 0..40 {
            for (flow, (from, to)) in flows.iter().enumerate() {
                let to = to.local_addr().expect("an address");
                from.send_to(&datagram(flow, number), to).expect("a datagram goes");
            }
        }
        for (flow, (_, to)) in flows.iter().enumerate() {
            let mut buffer = vec![0; 65_536];
            let came: Vec<Vec<u8>> = (0..40)
                .map(|_| {
                    let bytes = to.recv(&mut buffer).expect("a datagram comes");
                    buffer[..bytes].to_vec()
                })
                .collect();
            // An empty one belongs to no group, and may be handed over on either side of one.
            let filled = |datagrams: Vec<Vec<u8>>| -> Vec<Vec<u8>> {
                datagrams.into_iter().filter(|datagram| !datagram.is_empty()).collect()
            };
            assert!(filled(came) == filled((0..40).map(|number| datagram(flow, number)).collect()), "flow {flow}");
        }

        let [there, back] = relay.seen();
        // On the line each is as long as the MTU lets it be.
        assert!(there.packets as usize > content.len() / usize::from(MTU), "{there:?}");
        assert_eq!((there.refused, back.refused, there.queue_dropped), (0, 0, 0));
    }
}
