//! Embeds the pages of the error codes, so that `posthouse explain` works offline.

use std::fmt::Write;
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = std::env::var("CARGO_MANIFEST_DIR")?;
    let folder = Path::new(&root).join("docs/errors");
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut pages = Vec::new();
    for entry in std::fs::read_dir(&folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let Some(number) = name.strip_prefix("PH").and_then(|rest| rest.strip_suffix(".md"))
            && let Ok(number) = number.parse::<u16>()
        {
            pages.push(number);
        }
    }
    pages.sort_unstable();
    let mut code = String::from("[\n");
    for number in pages {
        let path = folder.join(format!("PH{number:04}"));
        let path = path.display();
        writeln!(
            code,
            "({number}, include_str!({:?}), include_str!({:?})),",
            format!("{path}.md"),
            format!("{path}.zh-CN.md")
        )?;
    }
    code.push(']');
    std::fs::write(Path::new(&std::env::var("OUT_DIR")?).join("error_pages.rs"), code)?;
    Ok(())
}
