//! `posthouse doctor`: what is wrong on this machine, and what to do about it. Looks only, changes nothing;
//! works while the node runs and while it does not. With `--job` it says what holds that job up.

mod connections;
mod job;

use crate::check::{Checked, coordinator, read};
use crate::render::{Screen, size};
use crate::{Done, Outcome};
use posthouse_node::config::Config;
use posthouse_node::script::Script;
use posthouse_platform::World;
use posthouse_protocol::id::{JobId, NodeId};
use posthouse_protocol::problem::{Code, Exit, Problem};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub(crate) struct Command {
    /// The node's configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Print what the DBA of this connection's database runs, so that its account needs no right to create anything
    #[arg(long, value_name = "CONNECTION")]
    sql: Option<String>,
    /// Say what holds this job up: its source, the line or its destination. At a provider, the consumer's name of it
    #[arg(long, value_name = "JOB", conflicts_with = "sql")]
    job: Option<JobId>,
    /// With --job at a provider: the consumer that is meant, where several have a job of this name
    #[arg(long, value_name = "NODE", requires = "job")]
    consumer: Option<NodeId>,
    /// With --job, also measure its destination: rows of the target are staged once more, and discarded
    #[arg(long, requires = "job")]
    write: bool,
}

pub(crate) async fn run(command: Command, screen: &Screen) -> Outcome {
    let config = match read(&command.config, screen)? {
        Checked::Node(config) => config,
        Checked::Coordinator => {
            let what = screen
                .say("doctor examines a node; this is a coordinator's file", "doctor 只检查节点；该文件属于协调中心");
            return Err(Problem::new(Code::UsageInvalid).with("what", what));
        }
    };
    if let Some(connection) = command.sql {
        return print_script(&config, &connection, screen);
    }
    if let Some(job) = command.job {
        return job::run(&config, &job, command.consumer.as_ref(), command.write, screen).await;
    }
    let mut found = vec![
        ("configuration", "配置", Ok(command.config.display().to_string())),
        ("kernel", "内核", Ok(kernel())),
        ("data folder", "数据目录", data_folder(&config)),
        ("free space", "剩余空间", free_space(&config)),
        ("local store", "本地存储", store(&config)),
        ("port", "端口", port(&config)),
    ];
    let examined = connections::examine(&config).await?;
    // Folders are examined with their rights.
    let mut reached = examined.unreached;
    reached.extend(coordinator(&config).await);
    if reached.is_empty() {
        found.push(("connections", "连接", Ok(String::new())));
    }
    found.extend(reached.into_iter().map(|problem| ("connections", "连接", Err(problem))));
    let mut sick = false;
    for (en, zh, state) in found {
        let name = screen.say(en, zh);
        match state {
            Ok(detail) if screen.json => screen.object(&serde_json::json!({"item": en, "ok": true, "detail": detail})),
            Ok(detail) => screen.line(format!("{}  {name}  {detail}", screen.say("ok   ", "正常")).trim_end()),
            Err(problem) => {
                sick = true;
                if screen.json {
                    screen.object(&serde_json::json!({"item": en, "ok": false, "code": problem.code.to_string(), "detail": problem.cause}));
                } else {
                    screen.line(format!("{}  {name}", screen.say("wrong", "异常")));
                }
                screen.problem(&problem);
            }
        }
    }
    for place in &examined.places {
        sick |= connections::print(place, screen);
    }
    Ok(if sick { Done::Exit(Exit::Failed) } else { Done::Yes })
}

fn print_script(config: &Config, connection: &str, screen: &Screen) -> Outcome {
    let Script { sql, unknown } = posthouse_node::script::script(config, connection)?;
    if screen.json {
        screen.object(&serde_json::json!({"sql": sql, "unknown": unknown}));
    } else {
        screen.line(sql.trim_end());
    }
    for job in &unknown {
        let (en, zh) = (
            format!("job {job} is not in it: which columns come is known once it has run, even in vain"),
            format!("任务 {job} 未包含在内：至少运行一次（失败亦可）之后才知道会有哪些列"),
        );
        screen.note(screen.say(&en, &zh));
    }
    Ok(if unknown.is_empty() { Done::Yes } else { Done::Exit(Exit::Failed) })
}

/// The folder exists, is ours alone to read, and what is secret in it is 0600.
fn data_folder(config: &Config) -> Result<String, Problem> {
    let folder = &config.node.data_dir;
    let failed =
        |path: &Path, cause: String| Problem::new(Code::StorageFailed).with("path", path.display()).cause(cause);
    let entries = std::fs::read_dir(folder).map_err(|error| failed(folder, error.to_string()))?;
    for entry in entries {
        let path = entry.map_err(|error| failed(folder, error.to_string()))?.path();
        let meta = std::fs::symlink_metadata(&path).map_err(|error| failed(&path, error.to_string()))?;
        let secret = path.extension().is_some_and(|extension| extension == "key");
        if secret && meta.mode() & 0o077 != 0 {
            return Err(Problem::new(Code::SecretExposed)
                .with("file", path.display())
                .cause(format!("its mode is {:04o}", meta.mode() & 0o7777)));
        }
    }
    Ok(folder.display().to_string())
}

fn free_space(config: &Config) -> Result<String, Problem> {
    let folder = &config.node.data_dir;
    let free = World::real()
        .disk
        .free_bytes(folder)
        .map_err(|error| Problem::new(Code::StorageFailed).with("path", folder.display()).cause(error))?;
    if free < FREE_BYTES_MIN {
        return Err(Problem::new(Code::DiskFull)
            .with("path", folder.display())
            .cause(format!("{} are free", size(free))));
    }
    Ok(size(free))
}

/// SQLite's own examination of the store, without writing.
fn store(config: &Config) -> Result<String, Problem> {
    let path = config.node.data_dir.join(posthouse_node::store::STORE_FILE);
    if !path.exists() {
        return Ok("-".to_owned());
    }
    let damaged = |cause: String| Problem::new(Code::StoreDamaged).with("path", path.display()).cause(cause);
    let database = rusqlite::Connection::open_with_flags(&path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)
        .map_err(|error| damaged(error.to_string()))?;
    let verdict: String = database
        .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        .map_err(|error| damaged(error.to_string()))?;
    if verdict == "ok" { Ok(path.display().to_string()) } else { Err(damaged(verdict)) }
}

/// Free to listen on, or held by the running node itself.
fn port(config: &Config) -> Result<String, Problem> {
    let Some(address) = &config.node.listen else {
        return Ok("-".to_owned());
    };
    if std::os::unix::net::UnixStream::connect(config.admin_socket()).is_ok() {
        return Ok(address.clone());
    }
    let failed = |error: std::io::Error| Problem::new(Code::ListenFailed).with("address", address).cause(error);
    std::net::TcpListener::bind(address.as_str()).map_err(failed)?;
    std::net::UdpSocket::bind(address.as_str()).map_err(failed)?;
    Ok(address.clone())
}

fn kernel() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().to_owned()
}

/// Less than this cannot hold one transfer's staging and its progress.
const FREE_BYTES_MIN: u64 = 256 << 20;
