//! The stage of the demonstration: one folder, free ports, three processes of this program, and
//! the command line through which everything is done.

use posthouse_protocol::problem::{Code, Lang, Problem};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::{TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};

pub(super) const CENTRE: &str = "centre.xian.example";
pub(super) const POLICE: &str = "police.xian.example";
pub(super) const HOUSING: &str = "housing.xian.example";

pub(super) struct Stage {
    folder: PathBuf,
    program: PathBuf,
    lang: Lang,
    pub(super) centre_port: u16,
    pub(super) http_port: u16,
    police_port: u16,
    housing_port: u16,
    running: BTreeMap<&'static str, Child>,
}

/// A finished command.
pub(super) struct Ran {
    pub(super) code: i32,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Ran {
    /// The objects printed, one a line; a list inside one object is taken apart.
    pub(super) fn items(&self, list: &str) -> Vec<Value> {
        let objects = self.stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        objects
            .flat_map(|object| match object.get(list).and_then(Value::as_array) {
                Some(items) => items.clone(),
                None => vec![object],
            })
            .collect()
    }
    /// The last object printed.
    pub(super) fn object(&self) -> Option<Value> {
        self.stdout.lines().rev().find_map(|line| serde_json::from_str(line).ok())
    }
    /// What a step that needed another outcome says of it.
    pub(super) fn unexpected(&self, step: &str) -> Problem {
        let said: Vec<&str> = self.stderr.lines().chain(self.stdout.lines()).filter(|line| !line.is_empty()).collect();
        let tail = said.get(said.len().saturating_sub(12)..).unwrap_or_default().join("\n");
        Problem::new(Code::InsideFailed).with("step", step).with("exit", self.code).cause(tail)
    }
}

impl Stage {
    pub(super) fn new(folder: PathBuf, lang: Lang) -> Result<Self, Problem> {
        let failed = |e: std::io::Error| Problem::new(Code::InsideFailed).cause(e);
        let program = std::env::current_exe().map_err(failed)?;
        let [centre_port, http_port, police_port, housing_port] = free_ports().map_err(failed)?;
        let running = BTreeMap::new();
        Ok(Self { folder, program, lang, centre_port, http_port, police_port, housing_port, running })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
    pub(super) fn text(&self, name: &str) -> String {
        self.path(name).to_string_lossy().into_owned()
    }
    /// The configuration file of a party.
    pub(super) fn config(&self, party: &str) -> String {
        self.text(match party {
            CENTRE => "centre/coordinator.toml",
            POLICE => "police.toml",
            _ => "housing.toml",
        })
    }

    /// Writes the configuration files of both nodes.
    pub(super) fn configure(&self) -> Result<(), Problem> {
        let centre = self.centre_port;
        let node = |name: &str, department: &str, port: u16, own: &str, rest: &str| {
            let data_dir = name.split('.').next().unwrap_or(name);
            format!(
                "[node]\nname = \"{name}\"\ndepartment = \"{department}\"\ndivision = \"610100\"\n\
                 data_dir = \"{data_dir}\"\nlisten = \"127.0.0.1:{port}\"\nadvertise = \"127.0.0.1:{port}\"\n{own}\n\
                 [coordinator]\naddress = \"127.0.0.1:{centre}\"\n\n{rest}"
            )
        };
        let slow_line = format!("bandwidth = \"{BANDWIDTH}\"\n");
        let police = node(POLICE, "西安市公安局（演示）", self.police_port, &slow_line, POLICE_REST);
        let housing = node(HOUSING, "西安市住建局（演示）", self.housing_port, "", HOUSING_REST);
        for (party, text) in [(POLICE, police), (HOUSING, housing)] {
            let path = self.config(party);
            std::fs::write(&path, text).map_err(|e| Problem::new(Code::StorageFailed).with("path", path).cause(e))?;
        }
        Ok(())
    }

    /// Runs a command of this program to its end.
    pub(super) async fn posthouse(&self, args: &[&str]) -> Result<Ran, Problem> {
        let output = self.command(args).stdin(Stdio::null()).output().await;
        let output = output.map_err(|e| Problem::new(Code::InsideFailed).cause(e))?;
        Ok(Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// As [`Stage::posthouse`], on its own while the story goes on. Ends with the demonstration.
    pub(super) fn begin(&self, args: &[&str]) -> tokio::task::JoinHandle<Result<Ran, Problem>> {
        let mut command = self.command(args);
        tokio::spawn(async move {
            let output = command.stdin(Stdio::null()).output().await;
            let output = output.map_err(|e| Problem::new(Code::InsideFailed).cause(e))?;
            Ok(Ran {
                code: output.status.code().unwrap_or(-1),
                stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
                stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            })
        })
    }

    /// Starts a party's process; its words go to a log beside its data.
    pub(super) fn start(&mut self, party: &'static str) -> Result<(), Problem> {
        let role = if party == CENTRE { "coordinator" } else { "node" };
        let path = self.log(party);
        let failed = |e: std::io::Error| Problem::new(Code::StorageFailed).with("path", path.display()).cause(e);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&path).map_err(failed)?;
        let config = self.config(party);
        let mut command = self.command(&[role, "run", "--config", &config]);
        command.stdin(Stdio::null()).stdout(log.try_clone().map_err(failed)?).stderr(log);
        let child = command.spawn().map_err(|e| Problem::new(Code::InsideFailed).cause(e))?;
        self.running.insert(party, child);
        Ok(())
    }

    /// SIGKILL: what a power cut is to a process.
    pub(super) async fn kill(&mut self, party: &'static str) -> Result<(), Problem> {
        match self.running.remove(party) {
            Some(mut child) => child.kill().await.map_err(|e| Problem::new(Code::InsideFailed).cause(e)),
            None => Ok(()),
        }
    }

    /// SIGTERM to all, then, after their drain, SIGKILL to whoever is left.
    pub(super) async fn stop_all(&mut self) {
        let children: Vec<Child> = std::mem::take(&mut self.running).into_values().collect();
        for child in &children {
            let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
            if let Some(id) = id {
                // One that has ended already needs no telling.
                let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
            }
        }
        for mut child in children {
            if tokio::time::timeout(DRAIN, child.wait()).await.is_err() {
                let _ = child.kill().await;
            }
        }
    }

    /// The end of a party's log, for a step that failed.
    pub(super) fn log_tail(&self, party: &'static str) -> String {
        let text = std::fs::read_to_string(self.log(party)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(8)..).unwrap_or_default().join("\n")
    }
    pub(super) fn parties(&self) -> Vec<&'static str> {
        self.running.keys().copied().collect()
    }

    fn log(&self, party: &'static str) -> PathBuf {
        self.path(&format!("{}.log", party.split('.').next().unwrap_or(party)))
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        let lang = match self.lang {
            Lang::En => "en",
            Lang::Zh => "zh",
        };
        command.args(["--lang", lang]).args(args).kill_on_drop(true);
        // Ctrl-C reaches the demonstration alone, which then stops the others in order.
        command.process_group(0);
        command
    }
}

/// Ports free for UDP and TCP alike at this moment.
fn free_ports<const N: usize>() -> std::io::Result<[u16; N]> {
    let mut held = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        *port = loop {
            let tcp = TcpListener::bind("127.0.0.1:0")?;
            let found = tcp.local_addr()?.port();
            let udp = UdpSocket::bind(("127.0.0.1", found));
            // Held until all are found, so that none is found twice.
            held.push((tcp, udp.is_ok()));
            if udp.is_ok() {
                break found;
            }
        };
    }
    Ok(ports)
}

/// Slow enough that a kill and a withdrawal happen while something is on the way.
const BANDWIDTH: &str = "12 MiB";
const DRAIN: Duration = Duration::from_secs(12);

const POLICE_REST: &str = r#"[connection.residents_db]
kind = "sqlite"
path = "police-residents.db"

# What the police offer: a table …
[[resource]]
id = "residents"
connection = "residents_db"
table = "residents"
key = ["resident_id"]
watermark = "updated_at"
late = "1m"

# … a folder of scanned papers …
[[resource]]
id = "scans"
folder = "police-scans"

# … and an archive.
[[resource]]
id = "archive"
folder = "police-archive"
"#;

const HOUSING_REST: &str = r#"[connection.housing_db]
kind = "sqlite"
path = "housing.db"

# What the housing bureau takes, and where it lands.
[[job]]
name = "residents"
resource = "police.xian.example/residents"
into = { connection = "housing_db", table = "residents" }
mode = "incremental"
write = "upsert"
schedule = "manual"

[[job]]
name = "scans"
resource = "police.xian.example/scans"
into = { folder = "housing-scans" }
mode = "full"
write = "upsert"
schedule = "manual"

[[job]]
name = "archive"
resource = "police.xian.example/archive"
into = { folder = "housing-archive" }
mode = "full"
write = "upsert"
schedule = "manual"
"#;
