//! Servers of other makers that a run starts and that do not outlive it, on loopback or in a network namespace, and
//! commands that are run to their end.

use crate::site::Place;
use anyhow::{Context, bail, ensure};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Runs a command to its end; an error has its last words.
pub fn done(mut command: Command) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{name} does not start"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    bail!("{name}: {}: {}", output.status, said.lines().last().unwrap_or_default());
}

/// A server that does not outlive the run.
pub struct Server(Child);

impl Server {
    pub fn start(command: &mut Command) -> anyhow::Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(quiet.spawn().with_context(|| format!("{name} does not start"))?))
    }

    /// The same, once it has told what follows `before` in a line.
    pub fn start_told(command: &mut Command, before: &str) -> anyhow::Result<(Self, String)> {
        let name = command.get_program().to_string_lossy().into_owned();
        let telling = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut server = Self(telling.spawn().with_context(|| format!("{name} does not start"))?);
        let told = BufReader::new(server.0.stdout.take().context("it has a standard output")?);
        let told = told.lines().map_while(Result::ok).find_map(|line| {
            let (_, rest) = line.split_once(before)?;
            Some(rest.split_whitespace().next()?.to_owned())
        });
        let told = told.with_context(|| format!("{name} ends before it tells `{before}`"))?;
        Ok((server, told))
    }

    /// The same, once it listens on a port of its own network namespace.
    pub fn start_at(command: &mut Command, port: &str) -> anyhow::Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let server = Self::start(command)?;
        let (pid, port): (u32, u16) = (server.0.id(), port.parse()?);
        until(|| listens(pid, port), &name)?;
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether somebody listens on a port where a process is, by IPv4. Nobody's connection is spent on that.
fn listens(pid: u32, port: u16) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).is_ok_and(|table| is_listening(&table, port))
}

/// Of the kernel's table, the second word of a line is the own address and port, the fourth the state.
fn is_listening(table: &str, port: u16) -> bool {
    let port = format!("{port:04X}");
    table.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let own = words.get(1).and_then(|own| own.split_once(':'));
        own.is_some_and(|(_, own)| own == port) && words.get(3) == Some(&LISTENING)
    })
}

pub fn until(is_there: impl Fn() -> bool, what: &str) -> anyhow::Result<()> {
    until_within(is_there, what, Duration::from_secs(10))
}

pub fn until_within(is_there: impl Fn() -> bool, what: &str, patience: Duration) -> anyhow::Result<()> {
    let start = Instant::now();
    while !is_there() {
        ensure!(start.elapsed() < patience, "{what} does not come up");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A server for secure shells with keys that are thrown away.
pub struct Ssh {
    pub port: String,
    /// What a client needs to get in.
    pub options: Vec<String>,
    _server: Server,
}

impl Ssh {
    pub fn start(scratch: &Path, place: &Place, port: u16) -> anyhow::Result<Self> {
        let keys = ["host", "user"].map(|name| scratch.join(name));
        for key in &keys {
            let mut make = Command::new("ssh-keygen");
            make.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(key);
            done(make)?;
        }
        let config = scratch.join("sshd.conf");
        let [host, user] = keys.map(|key| key.display().to_string());
        let address = place.address;
        std::fs::write(
            &config,
            format!(
                "Port {port}\nListenAddress {address}\nHostKey {host}\nAuthorizedKeysFile {user}.pub\nPasswordAuthentication no\nUsePAM no\nStrictModes no\nPidFile none\nPermitRootLogin prohibit-password\nSubsystem sftp internal-sftp\n"
            ),
        )?;
        if rustix::process::geteuid().is_root() {
            // Where it separates its privileges.
            std::fs::create_dir_all("/run/sshd")?;
        }
        let mut serve = place.command(SSHD);
        serve.args(["-D", "-f"]).arg(&config);
        let port = port.to_string();
        let server = Server::start_at(&mut serve, &port)?;
        let words = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "BatchMode=yes", "LogLevel=ERROR"];
        let mut options: Vec<String> = words.iter().flat_map(|word| ["-o".to_owned(), (*word).to_owned()]).collect();
        options.extend(["-i".to_owned(), user]);
        Ok(Self { port, options, _server: server })
    }
}

pub const SSHD: &str = "/usr/sbin/sshd";
/// TCP_LISTEN, as the kernel writes it.
const LISTENING: &str = "0A";

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_server_is_there_once_it_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        let own = std::process::id();
        assert!(listens(own, port));
        assert!(!listens(u32::MAX, port), "there is no such process");
        // A connection from that port to another's is nobody's listening.
        assert!(!is_listening("   0: 0100007F:B7C5 0100007F:1F90 01 00000000:00000000 00:0", 0xb7c5));
        assert!(is_listening("   0: 0100007F:B7C5 00000000:0000 0A 00000000:00000000 00:0", 0xb7c5));
        assert!(!is_listening("   0: 0100007F:B7C5 00000000:0000 0A 00000000:00000000 00:0", 0x1f90));
    }
}
