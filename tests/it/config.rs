//! Configuration mistakes: all at once, each at its place with the nearest key; nothing is started.

use crate::support::{posthouse, text};

#[test]
fn every_mistake_is_shown_at_its_place_and_nothing_starts() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("node.toml");
    std::fs::write(
        &path,
        "[node]\nname = \"housing.test.example\"\ndata_dirr = \"/tmp/x\"\nlisten = 7843\n\n[coordinator]\naddress = \"127.0.0.1:1\"\n\n\
         [[resource]]\nid = \"a\"\nfolder = \"/srv/a\"\nlinks = \"outside\"\n\n[[resource]]\nid = \"a\"\nfolder = \"/srv/b\"\n\n\
         [[job]]\nname = \"j\"\nresource = \"x.example/y\"\ninto = { foldr = \"/srv\" }\nschedule = \"61 * * * *\"\n",
    )
    .expect("written");
    for words in [vec!["check", text(&path)], vec!["node", "run", "--config", text(&path)]] {
        let ran = posthouse(&words);
        assert_eq!(ran.code, 2, "{ran:#?}");
        assert!(ran.stderr.contains("PH1001"), "{ran:#?}");
        for expected in [
            "node.toml:3:1",
            "data_dirr",
            "data_dir",
            "node.toml:4:",
            "links",
            "outside",
            "duplicate",
            "foldr",
            "folder",
            "schedule",
            "^",
        ] {
            assert!(ran.stderr.contains(expected), "{expected} is missing: {}", ran.stderr);
        }
    }
}

#[test]
fn a_missing_file_is_named() {
    let ran = posthouse(&["node", "run", "--config", "/nowhere/node.toml"]);
    assert_eq!(ran.code, 2, "{ran:#?}");
    assert!(ran.stderr.contains("PH1002") && ran.stderr.contains("/nowhere/node.toml"), "{ran:#?}");
}

#[test]
fn the_shipped_examples_are_valid() {
    for name in ["config/node.toml", "config/coordinator.toml"] {
        let path = format!("{}/{name}", env!("CARGO_MANIFEST_DIR"));
        posthouse(&["check", &path]).ok();
    }
}

#[test]
fn a_command_to_a_node_that_is_down_exits_with_5() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("node.toml");
    std::fs::write(
        &path,
        format!(
            "[node]\nname = \"housing.test.example\"\ndata_dir = \"{}\"\n\n[coordinator]\naddress = \"127.0.0.1:1\"\n",
            text(folder.path())
        ),
    )
    .expect("written");
    let ran = posthouse(&["job", "list", "--config", text(&path)]);
    assert_eq!(ran.code, 5, "{ran:#?}");
    assert!(ran.stderr.contains("PH1005"), "{ran:#?}");
}
