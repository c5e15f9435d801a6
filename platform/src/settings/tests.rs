//! What a person reads when a configuration is wrong.

use super::*;

fn mistakes(text: &str) -> Vec<(usize, usize, String, Option<String>)> {
    let result = read(Path::new("node.toml"), text, |root| {
        let node = root.require_table("node")?;
        let name: Option<String> = node.require("name");
        let memory: Size = node.or("memory", Size::mib(96));
        let transport = node.choice("transport", &[("auto", 0), ("quic", 1), ("tcp", 2)]);
        node.not_yet("bandwidth");
        for job in root.tables("job") {
            job.require::<String>("name");
            if let Some(into) = job.table("into") {
                into.get::<String>("folder");
            }
        }
        Some((name?, memory, transport))
    });
    match result {
        Ok(_) => Vec::new(),
        Err(mistakes) => mistakes.list.into_iter().map(|m| (m.line, m.column, m.say.en, m.nearest)).collect(),
    }
}

#[test]
fn an_unknown_config_key_names_the_nearest_one_at_every_depth() {
    let found = mistakes(
        "[node]\nname = \"a\"\ntransprot = \"tcp\"\n[[job]]\nname = \"j\"\ninto = { flder = \"/x\" }\n[extra]\n",
    );
    assert_eq!(
        found,
        [
            (3, 1, "unknown key `transprot` in `node`".into(), Some("transport".into())),
            (6, 10, "unknown key `flder` in `job.into`".into(), Some("folder".into())),
            (7, 2, "unknown key `extra`".into(), None),
        ]
    );
}

#[test]
fn all_mistakes_are_told_at_once() {
    let found = mistakes("[node]\nmemory = \"many\"\ntransport = \"tpc\"\nbandwidth = 1\n");
    let texts: Vec<_> = found.iter().map(|f| (f.0, f.2.as_str())).collect();
    assert_eq!(
        texts,
        [
            (1, "`node.name` is missing"),
            (2, "`many` is not a size such as \"4 MiB\""),
            (3, "`transport` is one of auto, quic, tcp"),
            (4, "`node.bandwidth` is not available in this version; remove it, it would have no effect"),
        ]
    );
    assert_eq!(found[2].3.as_deref(), Some("tcp"));
}

#[test]
fn text_that_is_not_toml_is_shown_with_its_places() {
    let found = mistakes("[node\nname = \n");
    assert!(!found.is_empty() && found.iter().all(|f| f.2.starts_with("not TOML")), "{found:?}");
}

#[test]
fn the_caret_stands_under_the_mistake_even_after_chinese_text() {
    let text = "[node]\nname = \"a\"\nmemory = \"很多\" # 内存\n";
    let wrong = read(Path::new("node.toml"), text, |root| {
        let node = root.table("node")?;
        node.get::<String>("name");
        node.get::<Size>("memory")
    })
    .unwrap_err();
    assert_eq!(
        wrong.render(Lang::Zh),
        "node.toml:3:10: `很多` 不是大小；写法如 \"4 MiB\"\n 3 | memory = \"很多\" # 内存\n   |          ^^^^^^"
    );
}

#[test]
fn keys_of_somebody_else_are_handed_over_and_answered_by_key() {
    let wrong = read(Path::new("n.toml"), "[connection.a]\nkind = \"sqlite\"\npth = \"x\"\n", |root| {
        for (_, table) in root.named_tables("connection") {
            table.get::<String>("kind");
            assert_eq!(table.rest().into_keys().collect::<Vec<_>>(), ["pth"]);
            table.mistake_at_key("pth", say("no such key", "没有此键"), Some("path".into()));
        }
        Some(())
    })
    .unwrap_err();
    assert_eq!((wrong.list[0].line, wrong.list[0].column), (3, 1));
}
