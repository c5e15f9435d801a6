//! Names that no one should choose: they arrive byte for byte, or are left out by name, and nothing else is touched.

use super::*;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_into_what_cannot_be_landed_is_left_out_and_the_rest_lands() {
    let mut scene = Scene::new("quic", &["scans"]);
    scene.provider_more = "bandwidth = \"6 MiB\"";
    std::fs::write(scene.path("source/large"), noise(1, 30 << 20)).unwrap();
    std::fs::write(scene.path("source/other"), "other").unwrap();
    let provider = scene.provider(&offer_folder(&scene)).await;
    let consumer = scene.consumer(&take_folder(&scene, "")).await;
    let id = plan(&consumer, "scans").await;
    let running = tokio::spawn(transfer::run_consumer(consumer.context().clone(), id.clone()));
    until_live(&consumer, &id, "moving", |live| live.row.chunks > 0).await;
    // Somebody puts a folder in its place, and then it changes.
    std::fs::create_dir(scene.path("target/large")).unwrap();
    std::fs::write(scene.path("target/large/theirs"), "theirs").unwrap();
    std::fs::write(scene.path("source/large"), noise(2, (30 << 20) + 1)).unwrap();
    let transfer::Outcome::Final(row) = running.await.unwrap().unwrap() else { panic!("it was stopped") };
    assert_eq!((row.state, row.counts.refused), (State::Settled, 1), "{row:?}");
    let mut names: Vec<_> =
        std::fs::read_dir(scene.path("target")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["large", "other"]);
    assert_eq!(std::fs::read_to_string(scene.path("target/other")).unwrap(), "other");
    assert_eq!(std::fs::read_to_string(scene.path("target/large/theirs")).unwrap(), "theirs");
    provider.stop().await;
}

/// Over 400 of them; each is one component.
fn evil() -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = Vec::new();
    for byte in (1..=255).filter(|byte| *byte != b'/') {
        names.push([b"x", &[byte][..], b"y"].concat());
        if byte != b'.' {
            names.push(vec![byte]);
        }
    }
    let texts = [
        "...",
        "..x",
        "x..",
        ".hidden",
        " name",
        "name ",
        "name.",
        "-rf",
        "--help",
        "-",
        "~root",
        "$(reboot)",
        "`id`",
        "a;b",
        "a|b",
        "a&b",
        "a>b",
        "%s%n%x",
        "{name}",
        "<script>alert(1)",
        "'; DROP TABLE landed; --",
        "\"",
        "CON",
        "NUL",
        "aux.txt",
        "COM1",
        "c:\\windows",
        "a:b",
        "File",
        "file",
        "FILE",
        ".part",
        "a.part",
        ".posthouse",
        ".posthouse-x.part",
        ".git",
        ".ssh",
        "Thumbs.db",
        "é",
        "e\u{301}",
        "\u{202e}fdp.exe",
        "\u{200d}",
        "\u{feff}bom",
        "\u{fffd}",
        "🏛",
        "人口普查（2026）.csv",
        "﹒",
        "ａ",
        "i\u{307}",
        "ß",
        "SS",
        "\u{1}\u{2}",
        "a\r\nb",
        "\u{7f}",
        "\u{85}",
    ];
    names.extend(texts.map(|text| text.as_bytes().to_vec()));
    // GB18030 of 前置机, a surrogate, an overlong slash, a torn character.
    names.extend([&b"\xc7\xb0\xd6\xc3\xbb\xfa"[..], b"\xed\xa0\x80", b"\xc0\xaf", b"\xe4\xba"].map(<[u8]>::to_vec));
    names.extend([vec![b'n'; 255], "县".repeat(85).into_bytes(), vec![0xff; 255]]);
    names
}

/// Content of every file below a folder, by its name's bytes.
fn files(root: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

fn beside(scene: &Scene) -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> =
        std::fs::read_dir(scene.folder.path()).unwrap().map(|one| one.unwrap().file_name().into_vec()).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn evil_names_arrive_byte_for_byte_and_nothing_outside_the_folder_changes() {
    let scene = Scene::new("quic", &["scans"]);
    let source = scene.path("source");
    let names = evil();
    assert!(names.len() > 400);
    for (number, name) in names.iter().enumerate() {
        let name = OsStr::from_bytes(name);
        std::fs::write(source.join(name), format!("file {number}")).unwrap();
        // As a folder too, where a file of that name is in it.
        if number % 5 == 0 {
            let folder = source.join("folders").join(name);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(name), format!("in folder {number}")).unwrap();
        }
    }
    // As deep as a name may be long.
    let deep = source.join("deep").join(["d"; 100].join("/"));
    std::fs::create_dir_all(&deep).unwrap();
    std::fs::write(deep.join("bottom"), b"deep").unwrap();
    std::fs::write(scene.path("outside"), b"stays").unwrap();
    let provider = scene.provider(&offer_folder(&scene)).await;
    let consumer = scene.consumer(&take_folder(&scene, "write = \"mirror\"\n")).await;
    let before = beside(&scene);
    let given = files(&source);
    for round in 0..2 {
        let row = run(&consumer, "scans").await;
        assert_eq!(row.state, State::Settled, "{row:?}");
        let held = evidence(&consumer, &row.id).await;
        let landing = held.iter().find_map(|s| s.landing()).unwrap();
        let mut landed = files(&scene.path("target"));
        assert_eq!(row.counts.refused as usize, landing.left_out.len());
        for refused in &landing.left_out {
            let name = given.get(&refused.name).unwrap_or_else(|| panic!("{refused:?} was not given"));
            assert!(landed.insert(refused.name.clone(), name.clone()).is_none(), "{refused:?} landed all the same");
        }
        assert!(landed == given, "round {round}");
        assert!(landing.left_out.is_empty(), "this file system takes all of them: {:?}", landing.left_out);
        assert_eq!(beside(&scene), before);
        assert_eq!(std::fs::read(scene.path("outside")).unwrap(), b"stays");
    }
    provider.stop().await;
    consumer.stop().await;
}
