//! `posthouse generate`: man pages and shell completions, printed from the command tree itself.

use crate::render::Screen;
use crate::{Done, Outcome, help};
use clap::ValueEnum;
use posthouse_protocol::problem::{Code, Problem};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub(crate) struct Command {
    /// What to write: man or completions
    #[arg(hide_possible_values = true)]
    what: What,
    /// Folder to write into; it is made when missing
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    Man,
    Completions,
}

pub(crate) fn run(command: Command, screen: &Screen) -> Outcome {
    let written = match command.what {
        What::Man => man(&command.out, screen),
        What::Completions => completions(&command.out),
    };
    let files =
        written.map_err(|error| Problem::new(Code::StorageFailed).with("path", command.out.display()).cause(error))?;
    for file in files {
        if screen.json {
            screen.object(&serde_json::json!({ "file": file }));
        } else {
            screen.line(file.display());
        }
    }
    Ok(Done::Yes)
}

fn man(out: &Path, screen: &Screen) -> std::io::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(out)?;
    clap_mangen::generate_to(help::localized(screen.lang), out)?;
    let mut files: Vec<PathBuf> = std::fs::read_dir(out)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "1"))
        .collect();
    files.sort();
    Ok(files)
}

fn completions(out: &Path) -> std::io::Result<Vec<PathBuf>> {
    use clap_complete::Shell;
    std::fs::create_dir_all(out)?;
    let mut command = help::localized(posthouse_protocol::problem::Lang::En);
    [Shell::Bash, Shell::Zsh, Shell::Fish]
        .into_iter()
        .map(|shell| clap_complete::generate_to(shell, &mut command, "posthouse", out))
        .collect()
}
