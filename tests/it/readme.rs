//! README's production path, run as it stands: only the ports are exchanged for free ones.

use crate::support::{free_ports, program, run};
use std::process::Command;

#[test]
fn the_readmes_production_path_works_as_it_stands() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("README.md");
    let script = readme.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a script");
    let folder = tempfile::Builder::new().prefix("posthouse-readme-").tempdir().expect("a folder");
    let ports: [u16; 4] = free_ports();
    let mut script = script.to_owned();
    for (written, free) in ["7840", "7880", "7843", "7844"].iter().zip(ports) {
        assert!(script.contains(written), "{written}");
        script = script.replace(written, &free.to_string());
    }
    // Every command has to succeed, and whatever runs ends with the script.
    let script = format!("set -eu\ntrap 'kill $(jobs -p); wait' EXIT\n{script}\n");
    let bin = std::path::Path::new(program()).parent().expect("a folder");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let ran = run(Command::new("timeout")
        .args(["-k", "5", "90", "bash", "-c", &script])
        .current_dir(folder.path())
        .env("PATH", path));
    let log = |name: &str| std::fs::read_to_string(folder.path().join("try").join(name)).unwrap_or_default();
    assert_eq!(ran.code, 0, "{ran:#?}\n{}\n{}\n{}", log("centre.log"), log("police.log"), log("housing.log"));
    let landed = std::fs::read_to_string(folder.path().join("try/inbox/page-1.txt")).expect("the page landed");
    assert_eq!(landed, "a scanned page\n");
}
