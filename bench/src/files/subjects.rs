//! Who carries a folder: Posthouse and its peers, each as its own documentation tells to run it, on loopback; some of
//! the peers also from one place to another. What a peer leaves to the kernel is synced within its time. A subject that
//! is not installed is named as missing.

use super::{Trial, capped};
use crate::measure::{Run, measured, peak_rss};
use crate::servers::{SSHD, Server, Ssh, done, until, until_within};
use crate::site::{Place, Places, Site, ports};
use crate::turns::peers;
use anyhow::{Context, ensure};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    Posthouse,
    PosthouseQuic,
    PosthouseTcp,
    Quinn,
    Iperf3,
    RsyncDaemon,
    RsyncSsh,
    Scp,
    RcloneSftp,
    RcloneHttp,
    Sendme,
    Cp,
}

pub const SUBJECTS: &[Subject] = &[
    Subject::Posthouse,
    Subject::PosthouseQuic,
    Subject::PosthouseTcp,
    Subject::Quinn,
    Subject::Iperf3,
    Subject::RsyncDaemon,
    Subject::RsyncSsh,
    Subject::Scp,
    Subject::RcloneSftp,
    Subject::RcloneHttp,
    Subject::Sendme,
    Subject::Cp,
];

/// What lies in `from` is to come to lie in `to`, a new folder or one with an older version in it.
pub struct Way<'a> {
    pub from: &'a Path,
    /// What lies in `to` before, if anything.
    pub before: &'a Path,
    pub to: &'a Path,
    pub bytes: u64,
    /// For what the run leaves behind.
    pub scratch: &'a Path,
    pub trial: Trial,
    /// Where `from` is given, and where `to` is landed: loopback, but for rsync and for rclone to sftp.
    pub giving: Place<'a>,
    pub landing: Place<'a>,
}

impl Subject {
    pub fn name(self) -> &'static str {
        match self {
            Self::Posthouse => "posthouse",
            Self::PosthouseQuic => "posthouse-quic",
            Self::PosthouseTcp => "posthouse-tcp",
            Self::Quinn => "quinn",
            Self::Iperf3 => "iperf3",
            Self::RsyncDaemon => "rsyncd",
            Self::RsyncSsh => "rsync-ssh",
            Self::Scp => "scp",
            Self::RcloneSftp => "rclone-sftp",
            Self::RcloneHttp => "rclone-http",
            Self::Sendme => "sendme",
            Self::Cp => "cp",
        }
    }

    /// What a reader of the figures has to know; the version is put before it.
    pub fn note(self) -> &'static str {
        match self {
            Self::Posthouse => {
                "from the command to the receipt: encrypted, verified at both ends, synced, renamed; the peak is the larger node's"
            }
            Self::PosthouseQuic => "as posthouse, which chooses; here with `transport = \"quic\"`",
            Self::PosthouseTcp => "as posthouse, which chooses; here with `transport = \"tcp\"`",
            Self::Quinn => {
                "one stream with quinn's defaults, as many bytes from memory to nowhere; encrypted, no files"
            }
            Self::Iperf3 => "one TCP flow, as many bytes from memory to nowhere; not encrypted, no files",
            Self::RsyncDaemon => "rsync -a to a daemon over plain TCP, then sync; not encrypted",
            Self::RsyncSsh => "rsync -a over ssh, then sync",
            Self::Scp => "scp -r, then sync; verifies nothing",
            Self::RcloneSftp => "rclone copy to its own sftp server, then sync",
            Self::RcloneHttp => {
                "rclone copy from its own webdav server over plain HTTP, then sync; not encrypted, verifies nothing"
            }
            Self::Sendme => {
                "sendme send until its ticket is there, sendme receive, then sync; no relay; encrypted, verified"
            }
            Self::Cp => "cp -r, then sync; no network, verifies nothing",
        }
    }

    /// Whether it is this project's.
    pub fn is_own(self) -> bool {
        matches!(self, Self::Posthouse | Self::PosthouseQuic | Self::PosthouseTcp)
    }

    /// Whether it lands what it carries.
    pub fn lands(self) -> bool {
        !matches!(self, Self::Quinn | Self::Iperf3)
    }

    /// Its version, or why it cannot run here.
    pub fn version(self, program: Option<&Path>) -> anyhow::Result<String> {
        let mut command = match self {
            Self::Posthouse | Self::PosthouseQuic | Self::PosthouseTcp => {
                Command::new(program.context("posthouse was not built")?)
            }
            Self::Quinn => {
                ensure!(bare()?.is_file(), "{} is not built: cargo build --release -p bench", bare()?.display());
                return quinn_version().context("the lock file names quinn");
            }
            Self::Iperf3 => Command::new("iperf3"),
            Self::RsyncDaemon => Command::new("rsync"),
            Self::RsyncSsh | Self::Scp => {
                ensure!(Path::new(SSHD).is_file(), "{SSHD} is not there");
                if self == Self::RsyncSsh {
                    ensure!(Command::new("rsync").arg("-V").output().is_ok(), "rsync is not installed");
                }
                let mut ssh = Command::new("ssh");
                ssh.arg("-V");
                ssh
            }
            Self::RcloneSftp | Self::RcloneHttp => Command::new("rclone"),
            Self::Sendme => Command::new(sendme()),
            Self::Cp => Command::new("cp"),
        };
        if !matches!(self, Self::RsyncSsh | Self::Scp) {
            command.arg("--version");
        }
        let name = command.get_program().to_string_lossy().into_owned();
        let output = command.stdin(Stdio::null()).output().with_context(|| format!("{name} is not installed"))?;
        let said = [output.stdout, output.stderr].concat();
        Ok(String::from_utf8_lossy(&said).lines().next().unwrap_or_default().trim().to_owned())
    }

    pub fn carry(self, way: &Way, program: Option<&Path>) -> anyhow::Result<Run> {
        let (from, to) = (way.from.display(), way.to.display());
        // All that lies in the folder, not the folder itself.
        let inside = format!("{from}/.");
        let (giving, landing) = (way.giving, way.landing);
        let there = landing.address;
        let [port] = ports()?;
        let own = rustix::process::geteuid().as_raw();
        match self {
            Self::Posthouse => posthouse(way, program, "auto"),
            Self::PosthouseQuic => posthouse(way, program, "quic"),
            Self::PosthouseTcp => posthouse(way, program, "tcp"),
            Self::Quinn => {
                let (address, bytes) = (format!("127.0.0.1:{port}"), way.bytes.to_string());
                let certificate = way.scratch.join("certificate");
                let side = |name: &str| {
                    let mut command = Command::new(bare()?);
                    command.args([name, &address, &bytes]).arg(&certificate);
                    anyhow::Ok(command)
                };
                let server = Server::start(&mut side("serve")?)?;
                until(|| certificate.is_file(), "quinn-stream")?;
                let run = measured(None, &[], || done(side("take")?));
                drop(server);
                run
            }
            Self::Iperf3 => {
                let port = port.to_string();
                let mut serve = Command::new("iperf3");
                let _server = Server::start_at(serve.args(["-s", "-B", "127.0.0.1", "-p", &port]), &port)?;
                let mut take = Command::new("iperf3");
                take.args(["-c", "127.0.0.1", "-p", &port, "-n", &way.bytes.to_string()]);
                measured(None, &[], || done(take))
            }
            Self::RsyncDaemon => {
                let config = way.scratch.join("rsyncd.conf");
                std::fs::write(
                    &config,
                    format!(
                        "use chroot = no\nuid = {own}\ngid = {own}\naddress = {there}\n[to]\npath = {to}\nread only = no\n"
                    ),
                )?;
                let port = port.to_string();
                let mut serve = landing.command("rsync");
                serve.args(["--daemon", "--no-detach", &format!("--port={port}")]);
                serve.arg(format!("--config={}", config.display()));
                let _server = Server::start_at(&mut serve, &port)?;
                let mut take = giving.command("rsync");
                take.args(["-a", &inside, &format!("rsync://{there}:{port}/to/")]);
                synced(way, take)
            }
            Self::RsyncSsh | Self::Scp => {
                let ssh = Ssh::start(way.scratch, &landing, port)?;
                let target = format!("{there}:{to}");
                let take = if self == Self::Scp {
                    let mut scp = giving.command("scp");
                    scp.args(["-q", "-r", "-P", &ssh.port]).args(&ssh.options).args([&inside, &target]);
                    scp
                } else {
                    let shell = format!("ssh -p {} {}", ssh.port, ssh.options.join(" "));
                    let mut rsync = giving.command("rsync");
                    rsync.args(["-a", "-e", &shell, &inside, &target]);
                    rsync
                };
                synced(way, take)
            }
            Self::RcloneSftp => {
                let port = port.to_string();
                let mut serve = rclone(way, landing);
                serve.args(["serve", "sftp", &to.to_string(), "--addr", &format!("{there}:{port}")]);
                let _server = Server::start_at(serve.args(["--user", "bench", "--pass", "bench"]), &port)?;
                let obscured = rclone(way, giving).args(["obscure", "bench"]).output()?;
                let obscured = String::from_utf8(obscured.stdout)?;
                let mut take = rclone(way, giving);
                take.args(["copy", "--sftp-host", there, "--sftp-port", &port, "--sftp-user", "bench"]);
                take.args(["--sftp-pass", obscured.trim(), &from.to_string(), ":sftp:"]);
                synced(way, take)
            }
            Self::RcloneHttp => {
                let port = port.to_string();
                let mut serve = rclone(way, giving);
                serve.args(["serve", "webdav", &from.to_string(), "--addr", &format!("127.0.0.1:{port}")]);
                let _server = Server::start_at(&mut serve, &port)?;
                let mut take = rclone(way, landing);
                take.args(["copy", "--multi-thread-streams", "4"]);
                take.args(["--webdav-url", &format!("http://127.0.0.1:{port}"), ":webdav:", &to.to_string()]);
                synced(way, take)
            }
            Self::Sendme => {
                // A folder is named by its own name, and comes to lie below where it is received.
                let (send, receive) = (way.scratch.join("send"), way.scratch.join("receive"));
                for folder in [&send, &receive] {
                    std::fs::create_dir(folder)?;
                }
                measured(None, &[], || {
                    // It hashes the content before it can tell the ticket.
                    let mut serve = Command::new(sendme());
                    serve.current_dir(&send).args(["send", "--no-progress", "--relay", "disabled"]);
                    serve.args(["--ticket-type", "addresses", "--magic-ipv4-addr", &format!("127.0.0.1:{port}")]);
                    let (_server, ticket) = Server::start_told(serve.arg(way.from), "sendme receive ")?;
                    let mut take = Command::new(sendme());
                    take.current_dir(&receive).args(["receive", "--no-progress", "--relay", "disabled", &ticket]);
                    done(take)?;
                    std::fs::rename(receive.join(way.from.file_name().context("a folder has a name")?), way.to)?;
                    let mut sync = Command::new("sync");
                    sync.arg("-f").arg(way.to);
                    done(sync)
                })
            }
            Self::Cp => {
                let mut take = Command::new("cp");
                take.args(["-r", &inside, &to.to_string()]);
                synced(way, take)
            }
        }
    }
}

fn posthouse(way: &Way, program: Option<&Path>, transport: &str) -> anyhow::Result<Run> {
    let program = program.context("posthouse was not built")?;
    let given = way.scratch.join("given");
    let from = if way.trial == Trial::Again { given.as_path() } else { way.from };
    if way.trial == Trial::Again {
        std::fs::create_dir(&given)?;
        give(way.before, &given)?;
    }
    let provider = format!("[[resource]]\nid = \"data\"\nfolder = \"{}\"\n", from.display());
    let consumer = format!(
        "[[job]]\nname = \"data\"\nresource = \"provider.bench.example/data\"\ninto = {{ folder = \"{}\" }}\nmode = \"full\"\nwrite = \"upsert\"\nschedule = \"manual\"\n",
        way.to.display()
    );
    let mut site = Site::start_at(&Places::loopback(transport), program, &provider, &consumer, &["data"])?;
    if way.trial == Trial::Cut {
        return cut(way, &mut site);
    }
    if way.trial == Trial::Again {
        let end = site.take("data")?;
        ensure!(end["state"] == "settled", "{end}");
        give(way.from, &given)?;
        super::settle(way.from)?;
    }
    let pids = site.pids();
    let (mut end, mut shares) = (serde_json::Value::Null, None);
    let mut run = measured(None, &pids, || {
        if way.trial == Trial::Capped {
            let reached = capped::take(&site, way.bytes)?;
            (end, shares) = (reached.end, Some(reached.shares));
        } else {
            end = site.take("data")?;
        }
        Ok(())
    })?;
    run.cap_shares = shares;
    ensure!(end["state"] == "settled", "{end}");
    run.sent_bytes = end["bytes_sent"].as_u64();
    if let [_, provider, consumer] = pids[..] {
        run.provider_peak_rss_bytes = peak_rss(provider);
        run.consumer_peak_rss_bytes = peak_rss(consumer);
        run.peak_rss_bytes = run.provider_peak_rss_bytes.max(run.consumer_peak_rss_bytes).unwrap_or(run.peak_rss_bytes);
    }
    Ok(run)
}

/// What lies in one folder lies in the other too, under the same names, and nothing else does.
fn give(from: &Path, to: &Path) -> anyhow::Result<()> {
    for old in std::fs::read_dir(to)? {
        std::fs::remove_file(old?.path())?;
    }
    for file in std::fs::read_dir(from)? {
        let file = file?;
        std::fs::hard_link(file.path(), to.join(file.file_name()))?;
    }
    Ok(())
}

/// The provider is killed when half of the file is there. The time is from its start to the receipt; of CPU and memory
/// nothing is told.
fn cut(way: &Way, site: &mut Site) -> anyhow::Result<Run> {
    let command = site.begin("data")?;
    until_within(|| held(way.to) >= way.bytes / 2, "half of the file", Duration::from_secs(120))?;
    site.kill_and_start(PROVIDER, Duration::from_secs(2))?;
    let (start, before) = (Instant::now(), held(way.to));
    until_within(|| held(way.to) > before, "another byte", Duration::from_secs(60))?;
    let first = start.elapsed().as_secs_f64();
    let output = command.wait_with_output()?;
    let seconds = start.elapsed().as_secs_f64();
    let text = String::from_utf8(output.stdout)?;
    let end: serde_json::Value = serde_json::from_str(text.lines().last().context("the job says how it ended")?)?;
    ensure!(end["state"] == "settled", "{end}");
    eprintln!(
        "resume: the first new byte {first:.2} s after the provider's start, {} of {} chunks came twice",
        end["resent_chunks"], end["chunks"]
    );
    Ok(Run { seconds, sent_bytes: end["bytes_sent"].as_u64(), ..Run::default() })
}

/// Bytes that a folder's files take on the disk.
fn held(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some(entry.metadata().ok()?.blocks() * 512)).sum()
}

/// A peer that leaves its files to the kernel: the time ends when they are on the disk. The sync is a process of its
/// own, so that its CPU is counted.
fn synced(way: &Way, take: Command) -> anyhow::Result<Run> {
    measured(None, &[], || {
        done(take)?;
        let mut sync = Command::new("sync");
        sync.arg("-f").arg(way.to);
        done(sync)
    })
}

/// It leaves nothing outside the scratch folder.
fn rclone(way: &Way, place: Place) -> Command {
    let mut command = place.command("rclone");
    command.args(["--config", "/dev/null", "--cache-dir"]).arg(way.scratch.join("cache"));
    command
}

/// What `bench/install-peers` built.
fn sendme() -> PathBuf {
    peers().join("bin/sendme")
}

/// The program beside this one.
fn bare() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    // A test's own program lies one folder deeper.
    let folder = own.parent().context("a program has a folder")?;
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    Ok(folder.join("quinn-stream"))
}

fn quinn_version() -> Option<String> {
    let (_, rest) = include_str!("../../../Cargo.lock").split_once("name = \"quinn\"\nversion = \"")?;
    Some(format!("quinn {}", rest.split_once('"')?.0))
}

/// Among the site's processes.
const PROVIDER: usize = 1;
