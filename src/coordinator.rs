//! `posthouse coordinator …`: make one, run one, and look after members and access.
//! All verbs but `init` and `run` speak to the running coordinator over its Unix socket.

use crate::render::{self, Screen};
use crate::{Done, Outcome, service};
use clap::{Args, Subcommand};
use posthouse_coordinator::admin::{AccessMade, AccessRow, NodeRow, NodeState, Request, Role, TokenMade};
use posthouse_coordinator::config::Config;
use posthouse_coordinator::{Coordinator, Init, init};
use posthouse_platform::World;
use posthouse_platform::admin_socket;
use posthouse_platform::settings::Interval;
use posthouse_protocol::id::NodeId;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::time::Timestamp;
use serde::de::DeserializeOwned;
use std::path::PathBuf;

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Make a coordinator: its folder, configuration, keys and first access token
    Init(InitArgs),
    /// Run a coordinator until it is stopped
    Run(ConfigArg),
    /// Print a join token for one node, good for one use
    Token(TokenArgs),
    /// List nodes, or revoke one
    #[command(subcommand)]
    Node(NodeVerb),
    /// Hand out and take back tokens of the HTTP API
    #[command(subcommand)]
    Access(AccessVerb),
}

#[derive(Args)]
pub(crate) struct InitArgs {
    /// Folder for keys, registry and ledger; it is made when missing
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Name of the coordinator, DNS-style; it cannot change later
    #[arg(long, value_name = "NAME")]
    name: NodeId,
    /// Where nodes reach it (UDP and TCP), by default [::]:7840
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Where people reach its page and API, by default 127.0.0.1:7880; "" turns it off
    #[arg(long, value_name = "ADDRESS")]
    http: Option<String>,
}

/// The configuration that says which coordinator.
#[derive(Args)]
pub(crate) struct ConfigArg {
    /// The coordinator's configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

#[derive(Args)]
pub(crate) struct TokenArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// Name of the node that may join with it
    #[arg(long, value_name = "NODE")]
    node: NodeId,
    /// How long it is good, by default 15m
    #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = interval)]
    ttl: Interval,
}

#[derive(Subcommand)]
pub(crate) enum NodeVerb {
    /// List all nodes with what they last reported
    List(ConfigArg),
    /// Revoke a node: it is shut out everywhere within seconds
    Revoke {
        #[command(flatten)]
        config: ConfigArg,
        /// Name of the node
        name: NodeId,
    },
}

#[derive(Subcommand)]
pub(crate) enum AccessVerb {
    /// Make a bearer token for the HTTP API and print it; it is shown this once
    Add {
        #[command(flatten)]
        config: ConfigArg,
        /// Whose access it is
        name: String,
        /// What it may do: viewer, operator, auditor or admin
        #[arg(long, value_parser = role)]
        role: Role,
    },
    /// List who has access
    List(ConfigArg),
    /// Take an access back
    Revoke {
        #[command(flatten)]
        config: ConfigArg,
        /// Whose access it is
        name: String,
    },
}

pub(crate) async fn run(verb: Verb, screen: &Screen) -> Outcome {
    match verb {
        Verb::Init(args) => make(args, screen).await,
        Verb::Run(config) => serve(&config.load(screen)?).await,
        Verb::Token(args) => {
            let request = Request::Token { node: args.node, ttl_ms: args.ttl.0 };
            let made: TokenMade = args.config.load(screen)?.ask(&request).await?;
            if screen.json {
                screen.object(&made);
            } else {
                screen.line(&made.token);
                let text = screen.say("good for one use by {node} until {time}", "仅供 {node} 使用一次，有效至 {time}");
                screen.note(text.replace("{node}", made.node.as_str()).replace("{time}", &made.expires_at.to_string()));
            }
            Ok(Done::Yes)
        }
        Verb::Node(NodeVerb::List(config)) => list_nodes(&config.load(screen)?, screen).await,
        Verb::Node(NodeVerb::Revoke { config, name }) => {
            let revoked: NodeId = config.load(screen)?.ask(&Request::NodeRevoke { node: name }).await?;
            said(screen, &revoked, "revoked", "已吊销")
        }
        Verb::Access(AccessVerb::Add { config, name, role }) => {
            let made: AccessMade = config.load(screen)?.ask(&Request::AccessAdd { name, role }).await?;
            if screen.json {
                screen.object(&made);
            } else {
                screen.line(&made.token);
            }
            Ok(Done::Yes)
        }
        Verb::Access(AccessVerb::List(config)) => list_access(&config.load(screen)?, screen).await,
        Verb::Access(AccessVerb::Revoke { config, name }) => {
            let revoked: String = config.load(screen)?.ask(&Request::AccessRevoke { name }).await?;
            said(screen, &revoked, "revoked", "已收回")
        }
    }
}

/// A configuration that was read, and the coordinator that runs by it.
pub(crate) struct Running {
    pub(crate) config: Config,
}

impl ConfigArg {
    pub(crate) fn load(&self, screen: &Screen) -> Result<Running, Problem> {
        Config::load(&self.config, screen.lang).map(|config| Running { config })
    }
}

impl Running {
    /// Asks one question whose answer is one value.
    pub(crate) async fn ask<T: DeserializeOwned>(&self, request: &Request) -> Result<T, Problem> {
        admin_socket::call(&self.config.admin_socket(), "coordinator", request).await?.done().await
    }

    /// Asks one question whose answer is a list.
    pub(crate) async fn list<T: DeserializeOwned>(&self, request: &Request) -> Result<Vec<T>, Problem> {
        let answers = admin_socket::call(&self.config.admin_socket(), "coordinator", request).await?;
        let mut items = Vec::new();
        let _: serde_json::Value = answers.finish(|item| items.push(item)).await?;
        let strange = |e: serde_json::Error| Problem::new(Code::InsideFailed).cause(e);
        items.into_iter().map(|item| serde_json::from_value(item).map_err(strange)).collect()
    }
}

/// One line about one name that something was done to.
pub(crate) fn said(screen: &Screen, name: &impl std::fmt::Display, en: &str, zh: &str) -> Outcome {
    if screen.json {
        screen.object(&serde_json::json!({ "name": name.to_string(), "done": en }));
    } else {
        screen.note(format!("{name}: {}", screen.say(en, zh)));
    }
    Ok(Done::Yes)
}

/// A time as lists show it: to the second, in UTC.
pub(crate) fn time(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "–".to_owned(), |at| format!("{:.0}", at.to_jiff()))
}

async fn make(args: InitArgs, screen: &Screen) -> Outcome {
    let data_dir = std::path::absolute(&args.data_dir)
        .map_err(|e| Problem::new(Code::ConfigMissing).with("file", args.data_dir.display()).cause(e))?;
    let what = Init { data_dir, name: args.name, listen: args.listen, http: args.http };
    let made = init(&World::real(), what).await?;
    if screen.json {
        screen.object(&made);
        return Ok(Done::Yes);
    }
    screen.line(made.config.display());
    for (en, zh, value) in [
        ("access token of an admin", "管理员访问令牌", made.admin_token.display().to_string()),
        ("CA, SHA-256", "CA 指纹（SHA-256）", made.ca_sha256),
        ("policy key, SHA-256", "策略密钥指纹（SHA-256）", made.policy_key),
        ("ledger key", "台账公钥", made.ledger_vkey),
    ] {
        screen.note(format!("{}: {value}", screen.say(en, zh)));
    }
    screen.note(format!("posthouse coordinator run --config {}", made.config.display()));
    Ok(Done::Yes)
}

async fn serve(running: &Running) -> Outcome {
    service::log();
    let coordinator = Coordinator::start(World::real(), running.config.clone()).await?;
    service::ready();
    tokio::select! {
        biased;
        stopped = service::until_stopped() => stopped?,
        () = service::watchdog() => {}
    }
    tracing::info!("Stopping");
    coordinator.stop().await;
    Ok(Done::Yes)
}

async fn list_nodes(running: &Running, screen: &Screen) -> Outcome {
    let nodes: Vec<NodeRow> = running.list(&Request::NodeList).await?;
    if screen.json {
        nodes.iter().for_each(|node| screen.object(node));
        return Ok(Done::Yes);
    }
    let state = |state| match state {
        NodeState::Up => screen.say("up", "在线"),
        NodeState::Stale => screen.say("stale", "失联"),
        NodeState::Revoked => screen.say("revoked", "已吊销"),
    };
    let rows: Vec<Vec<String>> = nodes
        .iter()
        .map(|node| {
            vec![
                node.name.to_string(),
                state(node.state).to_owned(),
                node.department.clone().unwrap_or_default(),
                time(node.last_report_at),
                node.version.clone().unwrap_or_default(),
                node.disk_free_bytes.map(render::size).unwrap_or_default(),
                node.lag_seconds.map(|seconds| format!("{seconds} s")).unwrap_or_default(),
                time(node.certificate_expires_at),
            ]
        })
        .collect();
    let headings = [
        screen.say("node", "节点"),
        screen.say("state", "状态"),
        screen.say("department", "部门"),
        screen.say("last report", "最近上报"),
        screen.say("version", "版本"),
        screen.say("disk free", "剩余空间"),
        screen.say("lag", "积压"),
        screen.say("certificate until", "证书有效至"),
    ];
    screen.table(&headings, &rows);
    Ok(Done::Yes)
}

async fn list_access(running: &Running, screen: &Screen) -> Outcome {
    let access: Vec<AccessRow> = running.list(&Request::AccessList).await?;
    if screen.json {
        access.iter().for_each(|row| screen.object(row));
        return Ok(Done::Yes);
    }
    let rows: Vec<Vec<String>> = access
        .iter()
        .map(|row| vec![row.name.clone(), row.role.to_string(), time(Some(row.created_at)), time(row.last_used_at)])
        .collect();
    let headings = [
        screen.say("name", "名称"),
        screen.say("role", "角色"),
        screen.say("made", "创建"),
        screen.say("last used", "最近使用"),
    ];
    screen.table(&headings, &rows);
    Ok(Done::Yes)
}

fn role(text: &str) -> Result<Role, String> {
    text.parse().map_err(|()| "it is viewer, operator, auditor or admin".to_owned())
}

fn interval(text: &str) -> Result<Interval, String> {
    text.parse().map_err(|_| "it is a duration such as 15m or 2h".to_owned())
}
