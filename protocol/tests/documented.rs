//! `docs/PROTOCOL.md` against the code: every map's keys with their names, every alternative's number, every limit.
//! The rules are read from the sources, so that a field added there and not here is found.

#![expect(clippy::panic, reason = "a test's helpers end it where they fail")]

use std::collections::BTreeMap;
use std::path::Path;

#[test]
fn every_key_of_every_map_stands_in_the_document() {
    let document = document();
    let mut maps = 0;
    for file in SOURCES {
        for (name, keys) in structs(&source(file)) {
            let rule = rule_name(file, &name);
            let block = block(&document, &rule);
            for (number, field) in &keys {
                let found = block.lines().any(|line| {
                    let line = line.trim().trim_start_matches("? ");
                    line.split_once(" =>").is_some_and(|(key, _)| key == number)
                        && line.rsplit_once("; ").is_some_and(|(_, comment)| comment == field)
                });
                assert!(found, "{rule}: key {number} ({field}) of {file} is not in docs/PROTOCOL.md");
            }
            let documented = block.lines().filter(|line| line.contains(" =>")).count();
            assert_eq!(documented, keys.len(), "{rule} has other keys in docs/PROTOCOL.md than in {file}");
            maps += 1;
        }
    }
    assert!(maps >= 40, "only {maps} maps were found in the sources");
}

#[test]
fn every_frame_stands_in_the_document_with_its_number() {
    let frames = block(&document(), "frame");
    let source = source("frame.rs");
    let body = source.split_once("pub enum Frame {").unwrap().1.split_once("\n}\n").unwrap().0.to_owned();
    let mut number = None;
    let mut seen = 0;
    for line in body.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("#[n(") {
            number = rest.split_once(')').map(|(number, _)| number.to_owned());
        } else if line.starts_with("//") {
            continue;
        } else if let (Some(number), false) = (&number, line.is_empty()) {
            // What has no fields has no parentheses.
            let name = kebab(line.split('(').next().unwrap_or_default().trim_end_matches(','));
            let found = frames.lines().any(|line| {
                line.trim().starts_with(&format!("/ [{number}, "))
                    && line.rsplit_once("; ").is_some_and(|(_, comment)| comment == name)
            });
            assert!(found, "frame {number} ({name}) is not in docs/PROTOCOL.md");
            seen += 1;
        }
    }
    assert_eq!(seen, frames.lines().filter(|line| line.trim().starts_with("/ [")).count());
}

#[test]
fn every_limit_of_the_document_exists_and_both_languages_name_the_same() {
    let limits = source("limits.rs");
    let names = |text: &str| -> Vec<String> {
        let rows = text.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").nth(1).map(str::to_owned));
        rows.filter_map(|name| Some(name.strip_prefix('`')?.strip_suffix('`')?.to_owned())).collect()
    };
    let english = names(&document());
    assert!(english.len() > 10);
    for name in &english {
        assert!(limits.contains(&format!("pub const {name}: ")), "{name}");
    }
    assert_eq!(english, names(&read("../docs/PROTOCOL.zh-CN.md")));
}

/// Struct name → (key, field) of every map in a source file.
fn structs(source: &str) -> BTreeMap<String, Vec<(String, String)>> {
    let mut found: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    let (mut map, mut open, mut number) = (false, None, None);
    for line in source.lines() {
        let trimmed = line.trim();
        if trimmed == "#[cbor(map)]" {
            map = true;
        } else if let Some(rest) = line.strip_prefix("pub struct ") {
            open = (map && rest.ends_with('{')).then(|| rest.trim_end_matches([' ', '{']).to_owned());
            map = false;
        } else if line == "}" {
            open = None;
        } else if let Some(at) =
            trimmed.find("n(").filter(|_| trimmed.starts_with("#[n(") || trimmed.starts_with("#[cbor(n("))
        {
            number = trimmed[at + 2..].split_once(')').map(|(number, _)| number.to_owned());
        } else if let (Some(name), Some(key), Some(rest)) = (&open, &number, trimmed.strip_prefix("pub ")) {
            let field = rest.split(':').next().unwrap_or_default().trim_start_matches("r#").to_owned();
            found.entry(name.clone()).or_default().push((key.clone(), field));
            number = None;
        }
    }
    found
}

fn block(document: &str, rule: &str) -> String {
    let start =
        document.find(&format!("\n{rule} =")).unwrap_or_else(|| panic!("docs/PROTOCOL.md has no rule `{rule}`"));
    let mut lines = document[start + 1..].lines();
    let mut out = lines.next().unwrap_or_default().to_owned();
    for line in lines.take_while(|line| line.starts_with(' ')) {
        out.push('\n');
        out.push_str(line);
    }
    out
}

fn rule_name(file: &str, name: &str) -> String {
    match (file, name) {
        ("centre.rs", "Proof") => "centre-proof".to_owned(),
        _ => kebab(name),
    }
}

fn kebab(name: &str) -> String {
    let mut out = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !out.is_empty() {
            out.push('-');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}

fn document() -> String {
    read("../docs/PROTOCOL.md")
}
fn source(file: &str) -> String {
    read(&format!("src/{file}"))
}
fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

const SOURCES: &[&str] = &[
    "frame.rs",
    "format.rs",
    "govern.rs",
    "govern/mask.rs",
    "govern/quality.rs",
    "manifest.rs",
    "schema.rs",
    "catalog.rs",
    "centre.rs",
    "statement.rs",
    "policy.rs",
];
