//! Order in the house: links lead somewhere, both languages are complete, one word for one thing, and
//! habits that no compiler keeps.

use crate::support::{posthouse, text};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

#[test]
fn every_link_in_the_documents_leads_somewhere() {
    let mut dead = Vec::new();
    for file in documents() {
        let content = read(&file);
        for target in links(&content) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let folder = file.parent().expect("a folder");
            let found = if path.is_empty() { file.clone() } else { folder.join(path) };
            let there = found.exists() && (anchor.is_empty() || anchors(&read(&found)).contains(anchor));
            if !there {
                dead.push(format!("{}: {target}", file.strip_prefix(root()).expect("inside").display()));
            }
        }
    }
    assert!(dead.is_empty(), "{dead:#?}");
}

#[test]
fn every_document_for_people_exists_in_both_languages_with_the_same_parts() {
    let mut wrong = Vec::new();
    for file in documents() {
        let name = file.strip_prefix(root()).expect("inside").to_string_lossy().into_owned();
        if name.ends_with(".zh-CN.md") || ONE_LANGUAGE.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        let english = read(&file);
        let twin = file.with_extension("zh-CN.md");
        if !twin.exists() {
            // A table may carry both languages side by side.
            if share_of_chinese(&english) < 0.15 {
                wrong.push(format!("{name} has no Chinese twin"));
            }
            continue;
        }
        let chinese = read(&twin);
        if share_of_chinese(&chinese) < 0.15 {
            wrong.push(format!("the twin of {name} is not in Chinese"));
        }
        if !TOLD_SHORTER.contains(&name.as_str()) && outline(&english) != outline(&chinese) {
            wrong.push(format!("{name}: {:?} against {:?}", outline(&english), outline(&chinese)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_readmes_tell_the_same_commands() {
    let commands = |name: &str| -> Vec<String> {
        let content = read(&root().join(name));
        content
            .split("```")
            .skip(1)
            .step_by(2)
            .flat_map(str::lines)
            .filter(|line| !line.starts_with('#'))
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(commands("README.md"), commands("README.zh-CN.md"));
    assert!(commands("README.md").len() > 40);
}

#[test]
fn the_command_line_uses_the_words_of_the_glossary() {
    let folder = tempfile::tempdir().expect("a folder");
    posthouse(&["generate", "man", "--out", text(folder.path()), "--lang", "en"]).ok();
    let mut wrong = Vec::new();
    let mut pages = 0;
    for page in std::fs::read_dir(folder.path()).expect("pages") {
        let page = page.expect("a page").path();
        pages += 1;
        for word in read(&page).split(|c: char| !c.is_alphanumeric()) {
            if LEFT_TO_OTHERS.contains(&word.to_lowercase().as_str()) {
                wrong.push(format!("{}: {word}", page.display()));
            }
        }
    }
    assert!(pages > 3 && wrong.is_empty(), "{pages} {wrong:#?}");
}

#[test]
fn the_glossary_has_every_verdict_and_state() {
    use posthouse_protocol::reconciliation::Verdict;
    let glossary = read(&root().join("docs/GLOSSARY.md"));
    for verdict in Verdict::ALL {
        let line = format!("| `{}` | {} |", verdict.as_str(), verdict.zh());
        assert!(glossary.contains(&line), "{line}");
    }
    for state in
        ["planned", "offered", "moving", "staged", "committed", "settled", "paused", "refused", "failed", "cancelled"]
    {
        let state: posthouse_protocol::job::State = state.parse().expect("a state");
        assert!(glossary.contains(&format!("`{state}` {}", state.zh())), "{state}");
    }
}

#[test]
fn every_file_that_the_architecture_names_is_there() {
    for name in ["docs/ARCHITECTURE.md", "docs/ARCHITECTURE.zh-CN.md"] {
        let content = read(&root().join(name));
        let named: Vec<&str> =
            content.split('`').skip(1).step_by(2).filter(|word| word.contains('/') && word.ends_with(".rs")).collect();
        assert!(named.len() > 15, "{name}: {named:?}");
        for file in named {
            assert!(root().join(file).exists(), "{name} names {file}");
        }
    }
}

#[test]
fn every_source_file_says_what_it_is_for_and_keeps_the_habits() {
    let mut wrong = Vec::new();
    let mut files = 0;
    for folder in ["protocol", "platform", "connectors", "node", "coordinator", "src", "tests", "bench"] {
        for file in below(&root().join(folder), "rs") {
            files += 1;
            let name = file.strip_prefix(root()).expect("inside").to_string_lossy().into_owned();
            let content = read(&file);
            if !content.starts_with("//!") {
                wrong.push(format!("{name} does not say what it is for"));
            }
            if name == "tests/it/tidy.rs" {
                continue;
            }
            for unfinished in ["todo!(", "unimplemented!(", "dbg!(", "FIXME"] {
                if content.contains(unfinished) {
                    wrong.push(format!("{name} has {unfinished}"));
                }
            }
            for (_, after) in
                content.match_indices("tokio::select! {").map(|(at, found)| (at, &content[at + found.len()..]))
            {
                if !after.trim_start().starts_with("biased;") {
                    wrong.push(format!("{name} has a select that is not biased"));
                }
            }
        }
    }
    assert!(files > 100 && wrong.is_empty(), "{files} {wrong:#?}");
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Markdown file of the house.
fn documents() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(root())
        .expect("the root")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    for folder in ["docs", "packaging", "bench", "tests", "config"] {
        files.extend(below(&root().join(folder), "md"));
    }
    files.sort();
    assert!(files.len() > 20, "{files:?}");
    files
}

fn below(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(folder) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.filter_map(Result::ok) {
            let path = entry.path();
            if path.is_dir() {
                if path.file_name().is_none_or(|name| name != "target") {
                    open.push(path);
                }
            } else if path.extension().is_some_and(|have| have == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Targets of `[text](target)`, outside code.
fn links(content: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (part, prose) in content.split("```").enumerate() {
        if part % 2 == 1 {
            continue;
        }
        let without_code: String = prose.split('`').step_by(2).collect::<Vec<_>>().join("x");
        for piece in without_code.split("](").skip(1) {
            if let Some((target, _)) = piece.split_once(')') {
                found.push(target.to_owned());
            }
        }
    }
    found
}

/// The anchors that a reader makes of headings.
fn anchors(content: &str) -> BTreeSet<String> {
    content
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .map(|line| {
            let heading = line.trim_start_matches('#').trim().to_lowercase();
            heading
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect()
        })
        .collect()
}

/// Depths of the headings in order, and how many blocks of code there are.
fn outline(content: &str) -> (Vec<usize>, usize) {
    let mut depths = Vec::new();
    let mut fences = 0;
    for line in content.lines() {
        if line.trim_start().starts_with("```") {
            fences += 1;
        } else if fences % 2 == 0 && line.starts_with('#') {
            depths.push(line.bytes().take_while(|b| *b == b'#').count());
        }
    }
    (depths, fences / 2)
}

/// Of the letters outside code.
fn share_of_chinese(content: &str) -> f64 {
    let prose: String = content.split("```").step_by(2).collect();
    let letters = prose.chars().filter(|c| c.is_alphabetic()).count().max(1);
    let chinese = prose.chars().filter(|c| matches!(u32::from(*c), 0x4e00..=0x9fff)).count();
    chinese as f64 / letters as f64
}

/// For those who build it: written once, in English.
const ONE_LANGUAGE: &[&str] = &["docs/decisions/", "docs/dependencies", "bench/", "tests/", "CHANGELOG"];
/// Their definitions stand once, in the English document; the Chinese one explains them.
const TOLD_SHORTER: &[&str] = &["docs/PROTOCOL.md"];
/// Words that other systems use for what has another name here.
const LEFT_TO_OTHERS: &[&str] = &["task", "tasks", "sync", "syncs", "message", "messages"];
