//! `posthouse node`: a commented configuration, joining a coordinator, and running.

use crate::render::Screen;
use crate::service::{self, Asked, Signals};
use crate::{Done, Outcome};
use posthouse_node::admin::{Request, Status};
use posthouse_node::config::Config;
use posthouse_node::daemon::Node;
use posthouse_node::join;
use posthouse_platform::World;
use posthouse_platform::admin_socket::{self, Answers};
use posthouse_platform::settings;
use posthouse_protocol::problem::{Code, Problem};
use std::io::Write;
use std::path::{Path, PathBuf};

#[derive(clap::Subcommand)]
pub(crate) enum Verb {
    /// Print or write a commented node.toml
    Init {
        /// Write it to this file, which must not exist yet
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Join a coordinator with a token from the managing authority
    Join {
        /// The node's configuration file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The token, as `posthouse coordinator token` printed it
        #[arg(long, value_name = "TOKEN")]
        token: String,
    },
    /// Run the node until it is stopped
    Run {
        /// The node's configuration file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Change a running node until its next start
    Set {
        /// The node's configuration file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// What and to what: bandwidth=2MiB, bandwidth="2 MiB 08:00-18:00", bandwidth=none, bandwidth=config
        #[arg(value_name = "KEY=VALUE")]
        setting: String,
    },
    /// Show how a running node is
    Status {
        /// The node's configuration file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
}

pub(crate) async fn run(verb: Verb, screen: &Screen) -> Outcome {
    match verb {
        Verb::Init { out } => init(out.as_deref(), screen),
        Verb::Join { config, token } => join_with(&config, &token, screen).await,
        Verb::Run { config } => serve(&config, screen).await,
        Verb::Set { config, setting } => set(&config, &setting, screen).await,
        Verb::Status { config } => status(&config, screen).await,
    }
}

/// Reads a node's configuration; its mistakes are told in the reader's language.
pub(crate) fn load(file: &Path, screen: &Screen) -> Result<Config, Problem> {
    Config::read(file, &settings::load(file)?).map_err(|mistakes| mistakes.problem(screen.lang))
}

/// Asks the running node of a configuration.
pub(crate) async fn ask(file: &Path, request: &Request, screen: &Screen) -> Result<Answers, Problem> {
    admin_socket::call(&load(file, screen)?.admin_socket(), "node", request).await
}

fn init(out: Option<&Path>, screen: &Screen) -> Outcome {
    let Some(path) = out else {
        screen.line(TEMPLATE.trim_end());
        return Ok(Done::Yes);
    };
    let failed = |e: std::io::Error| Problem::new(Code::StorageFailed).with("path", path.display()).cause(e);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    // Never over an existing file: it may be somebody's work.
    let mut file = std::fs::File::options().write(true).create_new(true).open(path).map_err(failed)?;
    file.write_all(TEMPLATE.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    if screen.json {
        screen.object(&serde_json::json!({ "file": path }));
    } else {
        screen.note(format!("{}: {}", screen.say("wrote", "已写出"), path.display()));
    }
    Ok(Done::Yes)
}

async fn join_with(file: &Path, token: &str, screen: &Screen) -> Outcome {
    let config = load(file, screen)?;
    let joined = join::join(&World::real(), &config, token).await?;
    if screen.json {
        screen.object(&joined);
        return Ok(Done::Yes);
    }
    screen.line(format!(
        "{} {} {} {}",
        joined.node,
        screen.say("has joined", "已加入"),
        joined.coordinator,
        screen.say("; start it with `posthouse node run`", "；用 `posthouse node run` 启动"),
    ));
    let rows = [
        (screen.say("certificate until", "证书有效期至"), joined.certificate_expires_at.to_string()),
        (screen.say("CA (SHA-256)", "CA（SHA-256）"), joined.authority),
        (screen.say("policy key", "策略密钥"), joined.policy_key),
    ];
    for (name, value) in rows {
        screen.note(format!("  {name}  {value}"));
    }
    Ok(Done::Yes)
}

async fn serve(file: &Path, screen: &Screen) -> Outcome {
    let config = load(file, screen)?;
    service::log();
    let mut signals = Signals::listen()?;
    let node = Node::start(World::real(), config).await?;
    service::ready();
    if screen.json {
        let address = node.local_address().map(|address| address.to_string());
        screen.object(&serde_json::json!({
            "ready": true, "node": node.context().name, "epoch": node.context().epoch, "address": address,
        }));
    }
    let watchdog = tokio::spawn(service::watchdog());
    loop {
        let asked = tokio::select! {
            biased;
            asked = signals.next() => asked,
            () = node.draining() => Asked::Stop,
        };
        match asked {
            Asked::Stop => break,
            Asked::Reload => match load(file, screen).and_then(|config| node.reload(config)) {
                Ok(()) => {}
                Err(problem) => {
                    tracing::error!(code = %problem.code, "The new configuration was not taken, the old one stays in force");
                    screen.problem(&problem);
                }
            },
        }
    }
    service::stopping();
    node.stop().await;
    watchdog.abort();
    Ok(Done::Yes)
}

async fn set(file: &Path, setting: &str, screen: &Screen) -> Outcome {
    let usage = |what: String| Problem::new(Code::UsageInvalid).with("what", what);
    let bandwidth = match setting.split_once('=') {
        Some(("bandwidth", value)) if !value.trim().is_empty() => value.to_owned(),
        Some(("bandwidth", _)) => return Err(usage("bandwidth=… has no value".to_owned())),
        _ => {
            let what = screen.say("only `bandwidth=…` can be set", "只能设置 `bandwidth=…`");
            return Err(usage(format!("{setting}: {what}")));
        }
    };
    let done: serde_json::Value = ask(file, &Request::SetBandwidth { bandwidth }, screen).await?.done().await?;
    if screen.json {
        screen.object(&done);
        return Ok(Done::Yes);
    }
    let rate = done["bytes_per_second"].as_u64();
    let shown = rate
        .map_or_else(|| screen.say("no limit", "不限").to_owned(), |rate| format!("{}/s", crate::render::size(rate)));
    screen.line(format!("{}: {shown}", screen.say("bandwidth now, until the next start", "当前带宽，至下次启动为止")));
    Ok(Done::Yes)
}

async fn status(file: &Path, screen: &Screen) -> Outcome {
    let status: Status = ask(file, &Request::Status, screen).await?.done().await?;
    if screen.json {
        screen.object(&status);
        return Ok(Done::Yes);
    }
    let yes = |value: bool| screen.say(if value { "yes" } else { "no" }, if value { "是" } else { "否" }).to_owned();
    let optional = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let rows = [
        (screen.say("node", "节点"), status.node.to_string()),
        (screen.say("version", "版本"), status.version),
        (screen.say("coordinator", "协调中心"), status.coordinator.to_string()),
        (screen.say("connected", "已连接"), yes(status.coordinator_connected)),
        (screen.say("last heard", "最近应答"), optional(status.coordinator_heard_at.map(|at| at.to_string()))),
        (screen.say("policy stale", "策略过期"), yes(status.policy_stale)),
        (screen.say("barred", "被禁止"), optional(status.barred)),
        (screen.say("certificate until", "证书有效期至"), status.certificate_expires_at.to_string()),
        (screen.say("open transfers", "未完批次"), status.transfers_open.to_string()),
        (screen.say("statements waiting", "待上报陈述"), status.outbox.to_string()),
        (screen.say("disk free", "磁盘剩余"), crate::render::size(status.disk_free_bytes)),
        (screen.say("last error", "最近错误"), optional(status.last_error)),
    ];
    for (name, value) in rows {
        screen.line(format!("{name}: {value}"));
    }
    Ok(Done::Yes)
}

/// The same file that the repository ships and tests.
const TEMPLATE: &str = include_str!("../config/node.toml");
