//! A coordinator and two nodes on loopback, set up through the command line as an operator would.

use anyhow::{Context, bail};
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub struct Site {
    program: PathBuf,
    folder: tempfile::TempDir,
    daemons: Vec<Child>,
}

impl Site {
    /// `provider` and `consumer` are the configuration after `[node]` and `[coordinator]`; `{dir}` is the site's folder.
    pub fn start(program: &Path, provider: &str, consumer: &str, grants: &[&str]) -> anyhow::Result<Self> {
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
            &format!("127.0.0.1:{centre}"),
            "--http",
            &format!("127.0.0.1:{http}"),
        ])?;
        let centre_config = site.path("centre/coordinator.toml");
        site.spawn(&["coordinator", "run", "--config", &centre_config])?;
        site.until(&["coordinator", "node", "list", "--config", &centre_config])?;
        for (name, port, rest) in [("provider", left, provider), ("consumer", right, consumer)] {
            let node = format!("{name}.bench.example");
            let config = site.path(&format!("{name}.toml"));
            let rest = rest.replace("{dir}", &site.path(""));
            std::fs::write(
                &config,
                format!(
                    "[node]\nname = \"{node}\"\ndata_dir = \"{}\"\nlisten = \"127.0.0.1:{port}\"\nadvertise = \"127.0.0.1:{port}\"\n\n[coordinator]\naddress = \"127.0.0.1:{centre}\"\n\n{rest}\n",
                    site.path(name),
                ),
            )?;
            let token = site.ask(&["coordinator", "token", "--config", &centre_config, "--node", &node])?;
            site.ask(&["node", "join", "--config", &config, "--token", token.trim()])?;
            site.spawn(&["node", "run", "--config", &config])?;
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

    /// The coordinator, the provider and the consumer, in this order.
    pub fn pids(&self) -> Vec<u32> {
        self.daemons.iter().map(Child::id).collect()
    }

    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn ask(&self, args: &[&str]) -> anyhow::Result<String> {
        let output = Command::new(&self.program).args(args).stdin(Stdio::null()).output()?;
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

    fn spawn(&mut self, args: &[&str]) -> anyhow::Result<()> {
        let log = std::fs::File::create(self.path(&format!("{}.log", self.daemons.len())))?;
        let child =
            Command::new(&self.program).args(args).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        self.daemons.push(child);
        Ok(())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for child in &mut self.daemons {
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
