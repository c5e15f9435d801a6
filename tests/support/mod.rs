//! Two nodes and a coordinator as real processes of the built program, in a temporary folder.
//! Everything is done through the command line, as an operator would; nothing reaches inside.

pub(crate) mod lossy;
pub(crate) mod mariadb;
pub(crate) mod matter;
pub(crate) mod postgres;

use lossy::LossyDisk;
use serde_json::Value;
use std::io::Read;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub(crate) const CENTRE: &str = "centre.test.example";
pub(crate) const PROVIDER: &str = "police.test.example";
pub(crate) const CONSUMER: &str = "housing.test.example";

/// A finished command.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// The last line of stdout as JSON.
    pub(crate) fn json(&self) -> Value {
        let line = self.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(line).unwrap_or_else(|error| panic!("not JSON ({error}): {self:#?}"))
    }
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self:#?}");
        self
    }
}

/// Runs the program in English and waits for its end.
pub(crate) fn posthouse<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Ran {
    run(Command::new(program()).args(args))
}

pub(crate) fn run(command: &mut Command) -> Ran {
    let output = command
        .env("LANG", "C.UTF-8")
        .env_remove("LC_ALL")
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Whether the larger counts are asked for.
pub(crate) fn long() -> bool {
    std::env::var_os("POSTHOUSE_LONG").is_some()
}

/// The program under test: this build's, or the one that `POSTHOUSE_PROGRAM` names (an installed one, say).
pub(crate) fn program() -> &'static str {
    static PROGRAM: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    PROGRAM.get_or_init(|| {
        std::env::var("POSTHOUSE_PROGRAM").unwrap_or_else(|_| env!("CARGO_BIN_EXE_posthouse").to_owned())
    })
}

/// A running role, killed when dropped.
pub(crate) struct Daemon {
    child: Option<Child>,
    /// Program and arguments.
    command: Vec<String>,
    log: PathBuf,
    prefix: Vec<String>,
}

impl Daemon {
    fn start(arguments: Vec<String>, log: PathBuf, prefix: Vec<String>) -> Self {
        let command = std::iter::once(program().to_owned()).chain(arguments).collect();
        Self::start_command(command, log, prefix)
    }
    pub(crate) fn start_command(command: Vec<String>, log: PathBuf, prefix: Vec<String>) -> Self {
        let mut daemon = Self { child: None, command, log, prefix };
        daemon.restart();
        daemon
    }

    /// Starts it (again).
    pub(crate) fn restart(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log).expect("the log opens");
        let mut words = self.prefix.clone();
        words.extend(self.command.iter().cloned());
        let child = Command::new(&words[0])
            .args(&words[1..])
            .env("LANG", "C.UTF-8")
            .env("POSTHOUSE_LOG", "debug")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log is shared"))
            .stderr(log)
            .spawn()
            .expect("the daemon starts");
        self.child = Some(child);
    }

    /// Words before the command line from the next start on.
    pub(crate) fn start_under(&mut self, prefix: &[String]) {
        self.prefix = prefix.to_vec();
    }

    /// SIGKILL, as a power cut of the process would be.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it can be killed");
            child.wait().expect("it ends");
        }
    }

    /// SIGSTOP: it holds everything and says nothing.
    pub(crate) fn pause(&mut self) {
        rustix::process::kill_process(self.process(), rustix::process::Signal::STOP).expect("it can be held");
    }
    pub(crate) fn resume(&mut self) {
        rustix::process::kill_process(self.process(), rustix::process::Signal::CONT).expect("it can go on");
    }

    /// SIGTERM and wait: gives the exit code and how long the drain took.
    pub(crate) fn stop(&mut self) -> (i32, Duration) {
        let since = Instant::now();
        let pid = self.process();
        let mut child = self.child.take().expect("it runs");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it can be stopped");
        loop {
            if let Some(status) = child.try_wait().expect("it can be waited for") {
                return (status.code().unwrap_or(-1), since.elapsed());
            }
            assert!(since.elapsed() < Duration::from_secs(20), "it does not stop: {}", self.log_tail());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().map(Child::id).expect("it runs")
    }

    fn process(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_raw(i32::try_from(self.pid()).expect("a pid")).expect("a pid")
    }

    pub(crate) fn log_tail(&self) -> String {
        let mut text = String::new();
        if let Ok(mut file) = std::fs::File::open(&self.log) {
            let _ = file.read_to_string(&mut text);
        }
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What differs between scenes.
#[derive(Default, Clone)]
pub(crate) struct Scene {
    /// `auto`, `quic` or `tcp`; empty = auto.
    pub(crate) transport: &'static str,
    /// Lines added to `[coordinator]` in coordinator.toml.
    pub(crate) coordinator: String,
    /// Everything after `[node]` and `[coordinator]` of either node; `{dir}` is the site's folder.
    pub(crate) provider: String,
    pub(crate) consumer: String,
    /// Further lines within `[node]`.
    pub(crate) provider_node: String,
    pub(crate) consumer_node: String,
    /// Resources of the provider that the consumer may take.
    pub(crate) grants: Vec<&'static str>,
    /// Relays that every grant goes through, in order from the consumer; each is a node of its own.
    pub(crate) via: Vec<&'static str>,
    /// Further lines within `[node]` of the last of them.
    pub(crate) last_relay_node: String,
    /// Words before each daemon's command line, such as `ip netns exec NAME`.
    pub(crate) prefix: Vec<String>,
    /// Each role's data folder lies on a disk of its own that a power cut can strike.
    pub(crate) lossy: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Provider,
    Consumer,
    Coordinator,
}

/// A coordinator, a provider and a consumer.
pub(crate) struct Site {
    pub(crate) coordinator: Daemon,
    pub(crate) provider: Daemon,
    pub(crate) consumer: Daemon,
    pub(crate) relays: Vec<Daemon>,
    pub(crate) http: u16,
    // After the daemons, and before the folder that they are mounted in.
    disks: Vec<(Role, LossyDisk)>,
    folder: tempfile::TempDir,
}

impl Site {
    pub(crate) fn start(scene: &Scene) -> Self {
        let folder = tempfile::Builder::new().prefix("posthouse-it-").tempdir().expect("a temporary folder");
        let dir = folder.path().to_path_buf();
        let [centre, police, housing, http] = free_ports();
        let centre_dir = dir.join("centre");
        let places = [(Role::Coordinator, "centre"), (Role::Provider, PROVIDER), (Role::Consumer, CONSUMER)];
        let disks = places.into_iter().filter(|_| scene.lossy);
        let disks: Vec<_> = disks.map(|(role, place)| (role, LossyDisk::mount(&dir.join(place)))).collect();
        posthouse(&[
            "coordinator",
            "init",
            "--data-dir",
            text(&centre_dir),
            "--name",
            CENTRE,
            "--listen",
            &format!("127.0.0.1:{centre}"),
            "--http",
            &format!("127.0.0.1:{http}"),
        ])
        .ok();
        let config = centre_dir.join("coordinator.toml");
        if !scene.coordinator.is_empty() {
            let mut written = std::fs::read_to_string(&config).expect("coordinator.toml is there");
            for line in scene.coordinator.lines() {
                let key = line.split('=').next().unwrap_or_default().trim();
                let kept: Vec<&str> =
                    written.lines().filter(|have| have.split('=').next().unwrap_or_default().trim() != key).collect();
                written = kept.join("\n").replacen("[coordinator]", &format!("[coordinator]\n{line}"), 1);
                written.push('\n');
            }
            let written = std::fs::write(&config, written).and_then(|()| std::fs::File::open(&config)?.sync_all());
            written.expect("coordinator.toml is written");
        }
        let coordinator = Daemon::start(
            words(&["coordinator", "run", "--config", text(&config)]),
            dir.join("coordinator.log"),
            scene.prefix.clone(),
        );
        wait_for("the coordinator answers", Duration::from_secs(20), || {
            posthouse(&["coordinator", "node", "list", "--config", text(&config)]).code == 0
        });
        let node = |name: &str, port: u16, own: &str, rest: &str| {
            let data = dir.join(name);
            let transport = if scene.transport.is_empty() { "auto" } else { scene.transport };
            let listen = if own.contains("listen") {
                String::new()
            } else {
                format!("listen = \"127.0.0.1:{port}\"\nadvertise = \"127.0.0.1:{port}\"\n")
            };
            let toml = format!(
                "[node]\nname = \"{name}\"\ndata_dir = \"{}\"\n{listen}transport = \"{transport}\"\n{own}\n\
                 [coordinator]\naddress = \"127.0.0.1:{centre}\"\n\n{}\n",
                text(&data),
                rest.replace("{dir}", text(&dir)),
            );
            let path = dir.join(format!("{name}.toml"));
            std::fs::write(&path, toml).expect("node.toml is written");
            let token = posthouse(&["coordinator", "token", "--config", text(&config), "--node", name]).ok();
            let mut join = scene.prefix.clone();
            join.extend(words(&[program(), "node", "join", "--config", text(&path), "--token", token.stdout.trim()]));
            run(Command::new(&join[0]).args(&join[1..])).ok();
            Daemon::start(
                words(&["node", "run", "--config", text(&path)]),
                dir.join(format!("{name}.log")),
                scene.prefix.clone(),
            )
        };
        let provider = node(PROVIDER, police, &scene.provider_node, &scene.provider);
        let consumer = node(CONSUMER, housing, &scene.consumer_node, &scene.consumer);
        let last = scene.via.last();
        let own = |relay| if last == Some(relay) { scene.last_relay_node.as_str() } else { "" };
        let relays = scene.via.iter().map(|relay| node(relay, free_ports::<1>()[0], own(relay), "")).collect();
        let site = Self { coordinator, provider, consumer, relays, http, disks, folder };
        for resource in &scene.grants {
            site.grant_via(resource, &scene.via);
        }
        for name in [PROVIDER, CONSUMER].iter().chain(&scene.via) {
            site.wait_until_up(name);
        }
        site
    }

    pub(crate) fn dir(&self) -> &Path {
        self.folder.path()
    }
    pub(crate) fn daemon(&mut self, role: Role) -> &mut Daemon {
        match role {
            Role::Provider => &mut self.provider,
            Role::Consumer => &mut self.consumer,
            Role::Coordinator => &mut self.coordinator,
        }
    }
    /// The power of one machine goes and comes again: what its disk had not synced may be gone.
    pub(crate) fn cut_power(&mut self, role: Role, seed: u64) {
        self.daemon(role).kill();
        self.disk(role).cut(seed);
        self.daemon(role).restart();
    }
    pub(crate) fn disk(&mut self, role: Role) -> &mut LossyDisk {
        let disk = self.disks.iter_mut().find(|(of, _)| *of == role);
        &mut disk.expect("the scene has lossy disks").1
    }
    pub(crate) fn centre_config(&self) -> String {
        text(&self.dir().join("centre/coordinator.toml")).to_owned()
    }
    pub(crate) fn config(&self, node: &str) -> String {
        text(&self.dir().join(format!("{node}.toml"))).to_owned()
    }

    /// Grants a resource of the provider to the consumer; gives the grant's id.
    pub(crate) fn grant(&self, resource: &str) -> String {
        self.grant_via(resource, &[])
    }
    fn grant_via(&self, resource: &str, via: &[&str]) -> String {
        let (config, resource, relays) = (self.centre_config(), format!("{PROVIDER}/{resource}"), via.join(","));
        let mut args = vec!["grant", "add", "--config", &config, "--consumer", CONSUMER, "--resource", &resource];
        args.extend(["--until", "2099-12-31", "--json"]);
        if !via.is_empty() {
            args.extend(["--via", &relays]);
        }
        posthouse(&args).ok().json()["id"].as_str().expect("a grant has an id").to_owned()
    }

    /// Runs a job at the consumer and waits; the closing object of design.md section 6.
    pub(crate) fn take(&self, job: &str) -> Value {
        self.job(CONSUMER, job).ok().json()
    }
    pub(crate) fn job(&self, node: &str, job: &str) -> Ran {
        posthouse(&["job", "run", "--config", &self.config(node), job, "--wait", "--json"])
    }

    pub(crate) fn wait_until_up(&self, node: &str) {
        let what = || {
            let log = std::fs::read_to_string(self.dir().join(format!("{node}.log"))).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            format!("{node} is up; its log ends:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"))
        };
        wait_for_as(what, Duration::from_secs(60), || {
            let ran = posthouse(&["coordinator", "node", "list", "--config", &self.centre_config(), "--json"]);
            ran.stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).any(|item| {
                let nodes = item["nodes"].as_array().cloned().unwrap_or_else(|| vec![item.clone()]);
                nodes.iter().any(|item| item["name"] == node && item["state"] == "up")
            })
        });
    }
}

/// Waits until `holds`, or says what did not come true.
pub(crate) fn wait_for(what: &str, at_most: Duration, holds: impl FnMut() -> bool) {
    wait_for_as(|| what.to_owned(), at_most, holds);
}

/// As [`wait_for`], with words that are found when they are wanted.
fn wait_for_as(what: impl Fn() -> String, at_most: Duration, mut holds: impl FnMut() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < at_most, "not within {at_most:?}: {}", what());
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The same content, names, kinds, modes and times on both sides; differences as text.
pub(crate) fn compare_folders(left: &Path, right: &Path) -> String {
    let diff = run(Command::new("diff").args(["-r", "--no-dereference"]).arg(left).arg(right));
    let list = |folder: &Path| {
        let ran =
            run(Command::new("sh").args(["-c", "find . -printf '%P|%y|%m|%T@|%l\\n' | sort"]).current_dir(folder));
        ran.stdout
    };
    let (a, b) = (list(left), list(right));
    let mut out = diff.stdout + &diff.stderr;
    if a != b {
        let right: std::collections::BTreeSet<&str> = b.lines().collect();
        let left: std::collections::BTreeSet<&str> = a.lines().collect();
        for line in left.symmetric_difference(&right).take(20) {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("test folders have plain names")
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

/// Ports free for UDP and TCP alike, below those that the system gives to whoever connects without naming one: between
/// this moment and the daemon's start no other scene's connection takes them. None is given twice by one process, and
/// each process begins elsewhere.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(997);
    let free = || loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(step < COUNT, "no port is free");
        let port = u16::try_from(FIRST + start.wrapping_add(step) % COUNT).expect("below 30,000");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    };
    std::array::from_fn(|_| free())
}
