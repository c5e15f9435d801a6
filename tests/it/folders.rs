//! What a folder's files may be called, what they land on and what they take the place of: names of every kind, file
//! systems that see names otherwise, and older versions.

use crate::exchange::{assert_settled, folder, transfer_shown};
use crate::support::lossy::{LossyDisk, is_possible};
use crate::support::{CONSUMER, Site, compare_folders, text};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[test]
fn names_that_the_file_system_takes_for_one_are_landed_once_and_refused_by_name() {
    if !is_possible() {
        return;
    }
    let mount = tempfile::tempdir().expect("a folder");
    let _disk = LossyDisk::mount_folding(mount.path());
    let source = tempfile::tempdir().expect("a folder");
    // Of one length and time: nothing but their bytes tells one from the other.
    for (name, content) in [("README", "upper"), ("readme", "lower"), ("Sub/one", "first"), ("sub/two", "other")] {
        put(&source.path().join(name), content);
    }
    for number in 0..30 {
        put(&source.path().join(format!("more/{number}")), "same");
    }
    let inbox = mount.path().join("inbox");
    let mut scene = folder("keep", source.path(), false);
    scene.consumer = scene.consumer.replace("{dir}/inbox", text(&inbox)).replace("upsert", "mirror");
    let site = Site::start(&scene);
    let end = site.take("tree");
    assert_settled(&end);
    let refused = transfer_shown(&site, CONSUMER, &end)["left_out"].as_array().cloned().expect("a list");
    let names: Vec<_> = refused.iter().map(|item| item["name"].as_str().expect("a name")).collect();
    assert_eq!(names, ["readme", "sub", "sub/two"]);
    assert!(refused.iter().all(|item| item["code"] == "PH2013"), "{refused:?}");
    assert_eq!(std::fs::read(inbox.join("README")).expect("it is there"), b"upper");
    assert_eq!(std::fs::read(inbox.join("Sub/one")).expect("it is there"), b"first");
    // The other one has its turn; that the first is gone does not take away what is one with it.
    std::fs::remove_file(source.path().join("README")).expect("it was there");
    let end = site.take("tree");
    assert_settled(&end);
    assert_eq!(std::fs::read(inbox.join("readme")).expect("it is there"), b"lower", "{end}");
}

#[test]
fn older_versions_are_kept_for_their_time() {
    let source = tempfile::tempdir().expect("a folder");
    for number in 0..30 {
        put(&source.path().join(format!("sub/{number}")), &format!("file {number}"));
    }
    let mut scene = folder("keep", source.path(), false);
    scene.consumer = scene
        .consumer
        .replace("{dir}/inbox\"", "{dir}/inbox\", versions = \"{dir}/older\", versions_keep = \"5s\"")
        .replace("upsert", "mirror");
    let site = Site::start(&scene);
    assert_settled(&site.take("tree"));
    let older = site.dir().join("older/tree");
    assert_eq!(children(&older), Vec::<PathBuf>::new());
    std::fs::write(source.path().join("sub/3"), "another file 3").expect("a file");
    std::fs::remove_file(source.path().join("sub/4")).expect("it was there");
    assert_settled(&site.take("tree"));
    let kept = children(&older);
    assert_eq!(kept.len(), 1, "{kept:?}");
    let read = |name: &str| std::fs::read_to_string(kept[0].join("sub").join(name)).expect("it is kept");
    assert_eq!((read("3").as_str(), read("4").as_str()), ("file 3", "file 4"));
    assert_eq!(children(&kept[0].join("sub")).len(), 2);
    // Nothing is taken the place of, and nothing kept.
    std::thread::sleep(Duration::from_secs(6));
    assert_settled(&site.take("tree"));
    assert_eq!(children(&older), Vec::<PathBuf>::new());
}

#[test]
fn four_hundred_names_that_tempt_somebody_arrive_byte_for_byte() {
    let source = tempfile::tempdir().expect("a folder");
    let evil = evil_names();
    for (at, evil) in evil.iter().enumerate() {
        let content = at.to_string();
        let name = OsStr::from_bytes(evil);
        let within = |folder: &str| source.path().join(folder);
        for folder in ["file", "link", "before", "after"] {
            std::fs::create_dir_all(within(folder)).expect("a folder");
        }
        std::fs::write(within("file").join(name), &content).expect("a file");
        std::os::unix::fs::symlink(name, within("link").join(at.to_string())).expect("a link");
        let deep = within("folder").join(name).join(name);
        std::fs::create_dir_all(&deep).expect("a folder");
        std::fs::write(deep.join(name), &content).expect("a file");
        // Beside other letters, where that is no longer than a name may be.
        if evil.len() < 255 {
            let name = |before: &[u8], after: &[u8]| OsString::from_vec([before, evil, after].concat());
            std::fs::write(within("before").join(name(b"x", b"")), &content).expect("a file");
            std::fs::write(within("after").join(name(b"", b"x")), &content).expect("a file");
        }
    }
    let target = tempfile::tempdir().expect("a folder");
    std::fs::write(target.path().join("outside"), "as it was").expect("a file");
    let mut scene = folder("keep", source.path(), false);
    scene.consumer = scene.consumer.replace("{dir}/inbox", text(&target.path().join("inbox")));
    let site = Site::start(&scene);
    let end = site.take("tree");
    assert_settled(&end);
    assert!(end["refused"].as_u64().unwrap_or(0) == 0, "{end}");
    let (given, landed) = (everything(source.path()), everything(&target.path().join("inbox")));
    assert!(given.len() > 400 && given == landed, "{} against {}", given.len(), landed.len());
    assert_eq!(children(target.path()).len(), 2);
    assert_eq!(std::fs::read(target.path().join("outside")).expect("it is there"), b"as it was");
}

#[test]
fn hard_links_arrive_as_hard_links_and_their_content_comes_once() {
    let source = tempfile::tempdir().expect("a folder");
    let of = |name: &str| source.path().join(name);
    let content = |seed: u8| {
        let mut content = vec![0; 5 << 20];
        blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut content);
        content
    };
    std::fs::create_dir(of("sub")).expect("a folder");
    std::fs::write(of("a"), content(1)).expect("a file");
    for name in ["b", "sub/c"] {
        std::fs::hard_link(of("a"), of(name)).expect("a link");
    }
    std::fs::write(of("alone"), "alone").expect("a file");
    let site = Site::start(&folder("keep", source.path(), false));
    let inbox = site.dir().join("inbox");
    let inode = |name: &str| std::fs::metadata(inbox.join(name)).expect("it is there").ino();
    let end = site.take("tree");
    assert_settled(&end);
    assert_eq!((compare_folders(source.path(), &inbox).as_str(), &end["files_sent"]), ("", &2.into()));
    assert!(end["bytes_sent"].as_u64().is_some_and(|bytes| bytes < 6 << 20), "{end}");
    assert!(inode("a") == inode("b") && inode("b") == inode("sub/c") && inode("a") != inode("alone"));
    // Nothing has changed: what the names did to the files' own times of change costs nothing.
    let end = site.take("tree");
    assert_settled(&end);
    assert_eq!((&end["files_sent"], &end["bytes_sent"]), (&0.into(), &0.into()), "{end}");
    // One name is another file now.
    std::fs::write(of("new"), content(2)).expect("a file");
    std::fs::rename(of("new"), of("a")).expect("it takes its place");
    let end = site.take("tree");
    assert_settled(&end);
    assert_eq!((compare_folders(source.path(), &inbox).as_str(), &end["files_sent"]), ("", &1.into()), "{end}");
    assert!(inode("a") != inode("b") && inode("b") == inode("sub/c"));
    // And so is the last: that it went is a change of the others, which do not come again.
    std::fs::write(of("new"), content(3)).expect("a file");
    std::fs::rename(of("new"), of("sub/c")).expect("it takes its place");
    for files_sent in [1, 0] {
        let end = site.take("tree");
        assert_settled(&end);
        let sent = &end["files_sent"];
        assert_eq!((compare_folders(source.path(), &inbox).as_str(), sent), ("", &files_sent.into()), "{end}");
    }
    assert!(inode("a") != inode("b") && inode("b") != inode("sub/c"));
}

#[test]
fn attributes_arrive_where_the_resource_says_so_and_so_does_a_change_of_one_alone() {
    let source = tempfile::tempdir().expect("a folder");
    let of = |name: &str| source.path().join(name);
    for (name, content) in [("a", "content"), ("sub/b", "more"), ("plain", "has none")] {
        put(&of(name), content);
    }
    set_attribute(&of("a"), "user.level", b"2");
    set_attribute(&of("a"), "user.origin", "人口".as_bytes());
    set_attribute(&of("sub"), "user.owner", &[0, 255]);
    let mut scene = folder("keep", source.path(), false);
    scene.provider = scene.provider.replace("links = \"keep\"\n", "links = \"keep\"\nxattrs = true\n");
    let site = Site::start(&scene);
    let inbox = site.dir().join("inbox");
    let take = |files_sent: u64| {
        let end = site.take("tree");
        assert_settled(&end);
        assert!(end["refused"].as_u64().unwrap_or(0) == 0 && end["files_sent"] == files_sent, "{end}");
        assert_eq!(compare_folders(source.path(), &inbox), "");
        for name in [".", "a", "sub", "sub/b", "plain"] {
            assert_eq!(attributes(&inbox.join(name)), attributes(&of(name)), "{name}");
        }
        std::fs::metadata(inbox.join("a")).expect("it is there").ino()
    };
    let inode = take(3);
    assert_eq!(attributes(&inbox.join("a")).len(), 2);
    assert_eq!(take(0), inode, "nothing has changed");
    set_attribute(&of("a"), "user.level", b"3");
    rustix::fs::removexattr(of("a"), "user.origin").expect("it was there");
    rustix::fs::removexattr(of("sub"), "user.owner").expect("it was there");
    set_attribute(&of("plain"), "user.new", b"");
    assert_eq!(take(0), inode, "no content comes for it");
    assert_eq!(attributes(&inbox.join("a")), BTreeMap::from([("user.level".to_owned(), b"3".to_vec())]));
}

#[test]
fn attributes_stay_where_they_are_unless_the_resource_says_otherwise() {
    let source = tempfile::tempdir().expect("a folder");
    let file = source.path().join("a");
    put(&file, "content");
    set_attribute(&file, "user.level", b"2");
    let site = Site::start(&folder("keep", source.path(), false));
    let landed = site.dir().join("inbox/a");
    assert_settled(&site.take("tree"));
    assert_eq!(attributes(&landed), BTreeMap::new());
    set_attribute(&landed, "user.mine", b"1");
    set_attribute(&file, "user.level", b"3");
    let end = site.take("tree");
    assert_settled(&end);
    assert_eq!(end["files_sent"], 0, "{end}");
    assert_eq!(attributes(&landed), BTreeMap::from([("user.mine".to_owned(), b"1".to_vec())]));
}

pub(crate) fn set_attribute(path: &Path, name: &str, value: &[u8]) {
    let done = rustix::fs::setxattr(path, name, value, rustix::fs::XattrFlags::empty());
    let why = "this test wants temporary folders (TMPDIR) on a file system with attributes of `user.`";
    assert!(done.is_ok(), "{}: {done:?}; {why}", path.display());
}

/// Those of users.
pub(crate) fn attributes(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let read = |read: rustix::io::Result<usize>, mut buffer: Vec<u8>| {
        buffer.truncate(read.expect("they can be read"));
        buffer
    };
    let mut list = vec![0; 64 << 10];
    let listed = rustix::fs::llistxattr(path, &mut list[..]);
    let names = String::from_utf8(read(listed, list)).expect("plain names");
    let value = |name: &str| {
        let mut value = vec![0; 64 << 10];
        let found = rustix::fs::lgetxattr(path, name, &mut value[..]);
        (name.to_owned(), read(found, value))
    };
    names.split('\0').filter(|name| name.starts_with("user.")).map(value).collect()
}

/// Names of options, of expansions, of other systems' devices and paths, of other encodings and none, of what looks
/// like another name or like none, and of what programs keep for themselves.
fn evil_names() -> Vec<Vec<u8>> {
    let text = [
        "-rf",
        "--",
        "-",
        " ",
        "  x",
        "x ",
        "x.",
        "...",
        "..x",
        "~",
        "~root",
        "*",
        "?",
        "[a]",
        "{a,b}",
        "$HOME",
        "$(touch outside)",
        "`touch outside`",
        ";x",
        "|x",
        "&x",
        ">outside",
        "<x",
        "!x",
        "#x",
        "%s%n",
        "%2e%2e%2f",
        "\\",
        "..\\x",
        "C:\\x",
        "C:x",
        "CON",
        "nul.txt",
        "a:b",
        "'",
        "\"",
        "'\"'",
        "\n",
        "a\nb",
        "\r",
        "\t",
        "\u{1}",
        "\u{1b}[31m",
        "\u{7f}",
        "é",
        "e\u{301}",
        "\u{202e}txt.exe",
        "\u{feff}x",
        "\u{200b}",
        "\u{fffd}",
        "😀",
        "人口",
        "𠮷",
        "ａ",
        "İ",
        "ß",
        "null",
        "0",
        "=",
        "@x",
        "x~",
        ".~1~",
        ".git",
        ".htaccess",
        ".posthouse-",
        ".posthouse-notes.part",
        "x.part",
        "files.b3",
        "receipt.cose",
        "<script>",
    ];
    let bytes: [&[u8]; 6] =
        [b"\xff", b"\xfe\xff", b"\xc3\x28", b"\xc8\xcb\xbf\xda", b"\x81\x30\x81\x30", b"\xed\xa0\x80"];
    let long = [vec![b'a'; 255], "人".repeat(85).into_bytes()];
    let text = text.iter().map(|name| name.as_bytes().to_vec());
    text.chain(bytes.iter().map(|name| name.to_vec())).chain(long).collect()
}

/// The content of every file and the text of every link beneath a folder, and its folders.
fn everything(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(path) = open.pop() {
        let kind = path.symlink_metadata().expect("it is there").file_type();
        let content = if kind.is_dir() {
            open.extend(children(&path));
            b"a folder".to_vec()
        } else if kind.is_symlink() {
            std::fs::read_link(&path).expect("a link").into_os_string().into_vec()
        } else {
            std::fs::read(&path).expect("a file")
        };
        all.insert(path.strip_prefix(folder).expect("it is inside").to_owned(), content);
    }
    all
}

/// A file of one time.
fn put(path: &Path, content: &str) {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    let written = std::fs::write(path, content)
        .and_then(|()| std::fs::File::options().append(true).open(path)?.set_modified(std::time::UNIX_EPOCH));
    written.expect("a file");
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let mut children: Vec<_> =
        std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    children.sort();
    children
}
