//! A coordinator and two nodes, set up through the command line as an operator would: on loopback, or each where
//! [`Places`] says.

use anyhow::{Context, bail};
use std::ffi::OsStr;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Where a process runs and listens.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    pub address: &'a str,
    /// A network namespace; none is the one of this program.
    pub namespace: Option<&'a str>,
}

#[derive(Clone, Copy)]
pub struct Places<'a> {
    pub centre: Place<'a>,
    pub provider: Place<'a>,
    pub consumer: Place<'a>,
    /// The nodes' `transport`.
    pub transport: &'a str,
}

impl Places<'_> {
    pub fn loopback(transport: &str) -> Places<'_> {
        Places { centre: LOOPBACK, provider: LOOPBACK, consumer: LOOPBACK, transport }
    }
}

pub const LOOPBACK: Place = Place { address: "127.0.0.1", namespace: None };

impl Place<'_> {
    /// A command that runs there.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let Some(namespace) = self.namespace else { return Command::new(program) };
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).arg(program);
        command
    }
}

pub struct Site {
    program: PathBuf,
    folder: tempfile::TempDir,
    daemons: Vec<Daemon>,
}

/// A process that can be started again as it was.
struct Daemon {
    command: Command,
    child: Child,
}

impl Site {
    /// `provider` and `consumer` are the configuration after `[node]` and `[coordinator]`; `{dir}` is the site's folder.
    pub fn start(program: &Path, provider: &str, consumer: &str, grants: &[&str]) -> anyhow::Result<Self> {
        Self::start_at(&Places::loopback("auto"), program, provider, consumer, grants)
    }

    /// The same, each where it shall be.
    pub fn start_at(
        places: &Places,
        program: &Path,
        provider: &str,
        consumer: &str,
        grants: &[&str],
    ) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("posthouse-bench-").tempdir()?;
        let mut site = Self { program: program.to_owned(), folder, daemons: Vec::new() };
        let [centre, http, left, right] = ports()?;
        let data = site.path("centre");
        site.ask(&[
            "coordinator",
            "init",
            "--data-dir",
            &data,
            "--name",
            "centre.bench.example",
            "--listen",
            &format!("{}:{centre}", places.centre.address),
            "--http",
            &format!("127.0.0.1:{http}"),
        ])?;
        let centre_config = site.path("centre/coordinator.toml");
        site.spawn(&places.centre, &["coordinator", "run", "--config", &centre_config])?;
        site.until(&["coordinator", "node", "list", "--config", &centre_config])?;
        for (name, place, port, rest) in
            [("provider", places.provider, left, provider), ("consumer", places.consumer, right, consumer)]
        {
            let node = format!("{name}.bench.example");
            let config = site.path(&format!("{name}.toml"));
            let rest = rest.replace("{dir}", &site.path(""));
            std::fs::write(
                &config,
                format!(
                    "[node]\nname = \"{node}\"\ndata_dir = \"{}\"\nlisten = \"{own}:{port}\"\nadvertise = \"{own}:{port}\"\ntransport = \"{}\"\n\n[coordinator]\naddress = \"{}:{centre}\"\n\n{rest}\n",
                    site.path(name),
                    places.transport,
                    places.centre.address,
                    own = place.address,
                ),
            )?;
            let token = site.ask(&["coordinator", "token", "--config", &centre_config, "--node", &node])?;
            site.ask_at(&place, &["node", "join", "--config", &config, "--token", token.trim()])?;
            site.spawn(&place, &["node", "run", "--config", &config])?;
            site.until(&["job", "list", "--config", &config])?;
        }
        for resource in grants {
            site.ask(&[
                "grant",
                "add",
                "--config",
                &centre_config,
                "--consumer",
                "consumer.bench.example",
                "--resource",
                &format!("provider.bench.example/{resource}"),
                "--until",
                "2099-12-31",
            ])?;
        }
        Ok(site)
    }

    /// Runs a job of the consumer to its end; gives its closing object.
    pub fn take(&self, job: &str) -> anyhow::Result<serde_json::Value> {
        let text = self.ask(&["job", "run", "--config", &self.path("consumer.toml"), job, "--wait", "--json"])?;
        let last = text.lines().last().context("the job says how it ended")?;
        Ok(serde_json::from_str(last)?)
    }

    /// What the provider says of the newest transfer.
    pub fn given(&self) -> anyhow::Result<serde_json::Value> {
        let text =
            self.ask(&["transfer", "list", "--config", &self.path("provider.toml"), "--limit", "1", "--json"])?;
        Ok(serde_json::from_str(text.lines().next().context("the provider knows of no transfer")?)?)
    }

    /// The coordinator, the provider and the consumer, in this order.
    pub fn pids(&self) -> Vec<u32> {
        self.daemons.iter().map(|daemon| daemon.child.id()).collect()
    }

    /// Begins a run of a job of the consumer, whose closing object comes out of the process.
    pub fn begin(&self, job: &str) -> anyhow::Result<Child> {
        let mut command = Command::new(&self.program);
        command.args(["job", "run", "--config", &self.path("consumer.toml"), job, "--wait", "--json"]);
        Ok(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?)
    }

    /// Sets something of a running node, as an operator does.
    pub fn set(&self, node: &str, setting: &str) -> anyhow::Result<()> {
        self.ask(&["node", "set", "--config", &self.path(&format!("{node}.toml")), setting]).map(|_| ())
    }

    /// Kills one of [`Self::pids`] as a power cut does, and starts it again after `pause`.
    pub fn kill_and_start(&mut self, daemon: usize, pause: Duration) -> anyhow::Result<()> {
        let Daemon { command, child } = self.daemons.get_mut(daemon).context("there is no such daemon")?;
        child.kill()?;
        child.wait()?;
        std::thread::sleep(pause);
        *child = command.spawn()?;
        Ok(())
    }

    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn ask(&self, args: &[&str]) -> anyhow::Result<String> {
        self.ask_at(&LOOPBACK, args)
    }

    fn ask_at(&self, place: &Place, args: &[&str]) -> anyhow::Result<String> {
        let output = place.command(&self.program).args(args).stdin(Stdio::null()).output()?;
        if !output.status.success() {
            bail!("posthouse {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    fn until(&self, args: &[&str]) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            match self.ask(args) {
                Ok(_) => return Ok(()),
                Err(error) if start.elapsed() > Duration::from_secs(20) => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    fn spawn(&mut self, place: &Place, args: &[&str]) -> anyhow::Result<()> {
        let log = std::fs::File::create(self.path(&format!("{}.log", self.daemons.len())))?;
        let mut command = place.command(&self.program);
        command.args(args).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn()?;
        self.daemons.push(Daemon { command, child });
        Ok(())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for Daemon { child, .. } in &mut self.daemons {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Ports free for UDP and TCP alike at this moment.
pub fn ports<const N: usize>() -> anyhow::Result<[u16; N]> {
    let mut kept = Vec::new();
    let mut found = [0; N];
    for slot in &mut found {
        loop {
            let tcp = TcpListener::bind("127.0.0.1:0")?;
            let port = tcp.local_addr()?.port();
            if let Ok(udp) = UdpSocket::bind(("127.0.0.1", port)) {
                kept.push((tcp, udp));
                *slot = port;
                break;
            }
        }
    }
    Ok(found)
}
