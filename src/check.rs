//! `posthouse check FILE…`: validates configuration without starting anything; every mistake at its
//! place. With `--online` it also opens each connection and folder and reaches for the coordinator's port.

use crate::render::Screen;
use crate::{Done, Outcome};
use posthouse_connectors::registry;
use posthouse_coordinator::config::Config as CoordinatorConfig;
use posthouse_node::config::{Config as NodeConfig, Origin, Target};
use posthouse_platform::settings;
use posthouse_protocol::problem::{Code, Exit, Problem};
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(clap::Args)]
pub(crate) struct Command {
    /// Configuration files of nodes and coordinators
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Also open every connection and folder, and reach for the coordinator
    #[arg(long)]
    online: bool,
}

pub(crate) async fn run(command: Command, screen: &Screen) -> Outcome {
    let mut worst = None;
    for file in &command.files {
        let problems = match read(file, screen) {
            Ok(Checked::Node(config)) if command.online => online(&config).await,
            Ok(_) => Vec::new(),
            Err(problem) => vec![problem],
        };
        if problems.is_empty() {
            if screen.json {
                screen.object(&serde_json::json!({"file": file, "valid": true}));
            } else {
                screen.note(format!("{}: {}", file.display(), screen.say("valid", "有效")));
            }
        }
        for problem in problems {
            screen.problem(&problem);
            let exit = problem.code.text().exit;
            // A mistake in the text outweighs something that cannot be reached just now.
            if worst != Some(Exit::Usage) {
                worst = Some(exit);
            }
        }
    }
    Ok(worst.map_or(Done::Yes, Done::Exit))
}

pub(crate) enum Checked {
    Node(Box<NodeConfig>),
    Coordinator,
}

/// Reads a file as what it is: a node's has `[node]`, a coordinator's has not.
pub(crate) fn read(file: &Path, screen: &Screen) -> Result<Checked, Problem> {
    let text = settings::load(file)?;
    let is_node = text.lines().any(|line| line.trim_start().starts_with("[node]"));
    if is_node {
        let config = NodeConfig::read(file, &text).map_err(|mistakes| mistakes.problem(screen.lang))?;
        Ok(Checked::Node(Box::new(config)))
    } else {
        CoordinatorConfig::parse(file, &text).map_err(|mistakes| mistakes.problem(screen.lang))?;
        Ok(Checked::Coordinator)
    }
}

/// What does not work right now, though the text is valid.
pub(crate) async fn online(config: &NodeConfig) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, connection) in &config.connections {
        let (name, connection) = (name.clone(), connection.clone());
        let probed = tokio::task::spawn_blocking(move || {
            let connector = registry::find(&connection.kind).ok_or_else(|| {
                Problem::new(Code::UnknownName).with("kind", "connector").with("name", &connection.kind)
            })?;
            connector.connect(&name, &connection.settings)?.probe()
        });
        match probed.await {
            Ok(Ok(())) => {}
            Ok(Err(problem)) => problems.push(problem),
            Err(error) => problems.push(Problem::new(Code::InsideFailed).cause(error)),
        }
    }
    problems.extend(folders(config));
    problems.extend(coordinator(config).await);
    problems
}

/// The same of folders.
fn folders(config: &NodeConfig) -> Vec<Problem> {
    let mut problems = Vec::new();
    for resource in config.resources.values() {
        if let Origin::Folder { path, .. } = &resource.origin
            && let Err(error) = std::fs::read_dir(path)
        {
            problems.push(
                Problem::new(Code::SourceFailed)
                    .with("resource", &resource.id)
                    .cause(format!("{}: {error}", path.display())),
            );
        }
    }
    for job in config.jobs.values() {
        if let Some(Target::Folder { path, .. }) = &job.into
            && path.exists()
            && let Err(error) = std::fs::read_dir(path)
        {
            problems.push(Problem::new(Code::StorageFailed).with("path", path.display()).cause(error));
        }
    }
    problems
}

/// Why the coordinator's port cannot be reached, where that is so.
pub(crate) async fn coordinator(config: &NodeConfig) -> Option<Problem> {
    let reached = tokio::time::timeout(REACH, tokio::net::TcpStream::connect(&config.coordinator)).await;
    let cause = match reached {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some("no answer within 5 s".to_owned()),
    };
    cause.map(|cause| Problem::new(Code::PeerUnreachable).with("peer", &config.coordinator).cause(cause))
}

const REACH: Duration = Duration::from_secs(5);
