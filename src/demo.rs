//! `posthouse demo`: the whole job on one machine with nothing installed, told step by step.
//! A coordinator and two nodes run as processes of this same program, with their own authority and data
//! under one folder; everything is done through the command line, as an operator would do it.
//! The stage (processes, folders, ports) is in `demo/stage.rs`, the data in `residents.rs` and `scans.rs`.

mod residents;
mod scans;
mod stage;
mod story;

use crate::render::Screen;
use crate::{Done, Outcome};
use posthouse_protocol::problem::{Code, Exit, Problem};
use stage::Stage;
use std::path::{Path, PathBuf};
use story::Story;

#[derive(clap::Args)]
pub(crate) struct Command {
    /// Folder for all that the demonstration makes; without it a new temporary one
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// End after the last step instead of staying up
    #[arg(long)]
    once: bool,
}

pub(crate) async fn run(command: Command, screen: &Screen) -> Outcome {
    let (folder, temporary) = match &command.data_dir {
        Some(folder) => (empty_folder(folder)?, None),
        None => {
            let made = tempfile::Builder::new().prefix("posthouse-demo-").tempdir();
            let made = made.map_err(|e| Problem::new(Code::StorageFailed).with("path", "tmp").cause(e))?;
            (made.path().to_owned(), Some(made))
        }
    };
    let stage = Stage::new(folder, screen.lang)?;
    let mut story = Story::new(screen, stage);
    // Whatever ends the story early, the processes it started end with it.
    let told = tokio::select! {
        biased;
        () = stopped() => Ok(false),
        told = story.tell() => told.map(|()| true),
    };
    if let (Ok(true), false) = (&told, command.once) {
        story.stay_up();
        stopped().await;
    }
    story.stage.stop_all().await;
    if let Some(temporary) = temporary {
        if told.is_err() {
            // What went wrong is to be looked at.
            let kept = temporary.keep();
            screen.note(screen.say("kept for examination:", "已保留备查：").to_owned() + " " + &kept.to_string_lossy());
        } else if let Err(error) = temporary.close() {
            screen.note(error);
        }
    }
    if !told? {
        screen.note(screen.say("stopped before its end", "演示未结束即停止"));
        return Ok(Done::Exit(Exit::Failed));
    }
    if screen.json {
        screen.object(&story.end());
    }
    Ok(if story.as_planted() { Done::Yes } else { Done::Exit(Exit::Difference) })
}

/// The folder, made where missing; one that holds something is not touched.
fn empty_folder(folder: &Path) -> Result<PathBuf, Problem> {
    let failed = |e: std::io::Error| Problem::new(Code::StorageFailed).with("path", folder.display()).cause(e);
    std::fs::create_dir_all(folder).map_err(failed)?;
    if std::fs::read_dir(folder).map_err(failed)?.next().is_some() {
        let what = format!("--data-dir {}", folder.display());
        return Err(Problem::new(Code::UsageInvalid).with("what", what).cause("the folder is not empty"));
    }
    std::path::absolute(folder).map_err(failed)
}

/// Ctrl-C or SIGTERM.
async fn stopped() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        biased;
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
