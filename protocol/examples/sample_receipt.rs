//! Writes a receipt made from fixed keys as an export, with the files it hands over, to try other verifiers on:
//! `cargo run -p posthouse-protocol --example sample_receipt DIR` makes DIR/export and DIR/landed.

#[path = "../tests/it/sample.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod sample;

use posthouse_protocol::manifest::files_b3_line;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: sample_receipt DIR")?);
    let landed = folder.join("landed");
    std::fs::create_dir_all(landed.join("2026"))?;
    let mut list = Vec::new();
    for (name, content) in [("2026/许可证.txt", &b"hello"[..]), ("notice.txt", b"world\n")] {
        std::fs::write(landed.join(name), content)?;
        let line = files_b3_line(name.as_bytes(), blake3::hash(content).as_bytes());
        list.extend(line.ok_or("the name cannot be listed")?);
    }
    let world = sample::World::new();
    for (name, bytes) in world.receipt(&list).export(&world.trust, Some(&list))? {
        let path = folder.join("export").join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(&folder))?;
        std::fs::write(path, bytes)?;
    }
    Ok(())
}
