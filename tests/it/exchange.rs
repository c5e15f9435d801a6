//! Folders and tables between two processes: over QUIC, over TLS/TCP, with UDP dropped; taken and pushed.

use crate::centre::newest;
use crate::support::{CONSUMER, PROVIDER, Scene, Site, compare_folders, long, posthouse, run, text, wait_for};
use rusqlite::Connection;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Rows of the table scene: 2 million in the long run.
fn rows() -> u64 {
    if long() { 2_000_000 } else { 150_000 }
}

/// The folder scenes: the machine's own trees in the long run, a tree of every kind of thing otherwise.
fn tree(name: &str) -> (PathBuf, Option<tempfile::TempDir>) {
    if long() {
        return (PathBuf::from(name), None);
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    make_tree(folder.path());
    (folder.path().to_path_buf(), Some(folder))
}

#[test]
fn a_folder_is_taken_over_quic_with_links_kept() {
    folder_scene("/usr/share", "keep", &Way::taken("quic"));
}

#[test]
fn a_folder_is_pushed_over_tcp_with_links_kept() {
    folder_scene("/usr/share", "keep", &Way::pushed("tcp"));
}

#[test]
fn a_folder_is_taken_over_tcp_with_inner_links_only() {
    folder_scene("/usr/share/doc", "inside", &Way::taken("tcp"));
}

#[test]
fn a_folder_is_pushed_over_quic_with_inner_links_only() {
    folder_scene("/usr/share/doc", "inside", &Way::pushed("quic"));
}

#[test]
fn a_table_is_taken_over_quic_in_full_and_then_incrementally() {
    table_scene(&Way::taken("quic"));
}

#[test]
fn a_table_is_pushed_over_tcp_in_full_and_then_incrementally() {
    table_scene(&Way::pushed("tcp"));
}

#[test]
fn folders_and_a_table_pass_where_udp_is_dropped() {
    let Some(namespace) = Namespace::without_udp() else {
        assert!(!rustix::process::geteuid().is_root(), "root can make a network namespace");
        println!("not root: no network namespace, nothing tried");
        return;
    };
    let way = |push| Way { configured: "auto", prefix: namespace.prefix(), ..Way::new("tcp", push) };
    folder_scene("/usr/share", "keep", &way(false));
    folder_scene("/usr/share/doc", "inside", &way(true));
    table_scene(&way(false));
}

#[test]
fn without_a_grant_the_provider_refuses_and_both_sides_say_so() {
    let (source, _kept) = tree("/usr/share/doc");
    let site = Site::start(&Scene { grants: vec![], ..folder("keep", &source, false) });
    let ran = site.job(CONSUMER, "tree");
    assert_eq!(ran.code, 4, "{ran:#?}");
    let end = ran.json();
    assert_eq!(end["state"], "refused", "{ran:#?}");
    assert!(ran.stderr.contains("PH3001"), "{ran:#?}");
    let transfer = end["transfer"].as_str().expect("an id");
    for node in [PROVIDER, CONSUMER] {
        let shown = posthouse(&["transfer", "show", "--config", &site.config(node), transfer, "--json"]).ok();
        assert!(shown.stdout.contains("refus"), "{node}: {shown:#?}");
    }
    assert!(!site.dir().join("inbox").join("etc").exists());
}

#[test]
fn a_node_that_nobody_can_dial_exchanges_by_dialling_out() {
    let (source, _kept) = tree("/usr/share/doc");
    let scene = Scene { provider_node: "listen = \"none\"".to_owned(), ..folder("keep", &source, false) };
    let site = Site::start(&scene);
    assert_settled(&site.take("tree"));
    assert_eq!(compare_folders(&source, &site.dir().join("inbox")), "");
}

#[test]
fn a_nodes_bandwidth_is_changed_while_it_sends() {
    let source = tempfile::tempdir().expect("a folder");
    let mut content = vec![0; 24 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut content);
    std::fs::write(source.path().join("large"), content).expect("a file");
    // So it would take a minute and a half.
    let scene = Scene { provider_node: "bandwidth = \"256 KiB\"".to_owned(), ..folder("keep", source.path(), false) };
    let site = Site::start(&scene);
    let (config, provider) = (site.config(CONSUMER), site.config(PROVIDER));
    posthouse(&["job", "run", "--config", &config, "tree"]).ok();
    wait_for("bytes arrive", Duration::from_secs(30), || newest(&config)["bytes_sent"].as_u64().unwrap_or(0) > 0);
    let set = |setting: &str| posthouse(&["node", "set", "--config", &provider, setting, "--json"]);
    for wrong in ["bandwidth=fast", "bandwidth=1KiB", "bandwidth=", "memory=1GiB"] {
        assert_eq!(set(wrong).code, 2, "{wrong}");
    }
    assert_eq!(set("bandwidth=none").ok().json()["bytes_per_second"], Value::Null);
    wait_for("it settles", Duration::from_secs(30), || newest(&config)["state"] == "settled");
    assert_eq!(compare_folders(source.path(), &site.dir().join("inbox")), "");
    assert_eq!(set("bandwidth=config").ok().json()["bytes_per_second"], 256 << 10);
}

#[test]
fn what_a_provider_waited_for_before_it_was_started_again_counts_at_its_consumer() {
    let source = tempfile::tempdir().expect("a folder");
    let mut content = vec![0; 8 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut content);
    std::fs::write(source.path().join("large"), content).expect("a file");
    let scene = Scene { provider_node: "bandwidth = \"1 MiB\"".to_owned(), ..folder("keep", source.path(), false) };
    let mut site = Site::start(&scene);
    let (config, provider) = (site.config(CONSUMER), site.config(PROVIDER));
    posthouse(&["job", "run", "--config", &config, "tree"]).ok();
    let most = || newest(&config)["bytes_sent"].as_u64().unwrap_or(0) > 5 << 20;
    wait_for("most of it arrives", Duration::from_secs(60), most);
    site.provider.stop();
    let waited = |config: &str| {
        let told = posthouse(&["doctor", "--config", config, "--job", "tree", "--json"]).ok().json();
        told["transfer"]["spent"]["line_ms"].as_u64().unwrap_or_else(|| panic!("it waited for the line: {told}"))
    };
    let before = waited(&provider);
    assert!(before > 0, "what the process that ended has counted");
    site.provider.restart();
    wait_for("it settles", Duration::from_secs(90), || newest(&config)["state"] == "settled");
    // Most was sent, and waited for, by then: the rest alone would be less.
    let after = waited(&config);
    assert!(after > before, "{after} is the last process's alone, {before} was that of the first");
}

#[test]
fn a_list_of_transfers_says_where_it_was_cut() {
    let source = tempfile::tempdir().expect("a folder");
    let site = Site::start(&folder("keep", source.path(), false));
    let config = site.config(CONSUMER);
    let ids: Vec<Value> = (0..3)
        .map(|number| {
            std::fs::write(source.path().join("file"), format!("{number}")).expect("a file");
            site.job(CONSUMER, "tree").ok().json()["transfer"].clone()
        })
        .collect();
    let list = |more: &[&str]| posthouse(&[&["transfer", "list", "--config", &config][..], more].concat()).ok();
    let lines = |more: &[&str]| -> Vec<Value> {
        let listed = list(&[&["--json"][..], more].concat());
        listed.stdout.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect()
    };
    let of = |lines: &[Value]| lines.iter().map(|line| line["transfer"].clone()).collect::<Vec<_>>();
    let newest: Vec<Value> = ids.iter().rev().cloned().collect();
    for all in [&[][..], &["--limit", "3"], &["--limit", "4", "--job", "tree"]] {
        assert_eq!(of(&lines(all)), newest, "{all:?}");
    }
    let cut = lines(&["--limit", "2"]);
    assert_eq!(of(&cut[..2]), newest[..2]);
    assert_eq!(cut[2..], [serde_json::json!({ "truncated": true, "limit": 2 })]);
    // People read it below the table.
    let shown = list(&["--limit", "2"]);
    assert!(shown.stdout.lines().count() == 3 && shown.stderr.contains("--limit"), "{shown:#?}");
    let all = list(&[]);
    assert!(all.stdout.lines().count() == 4 && !all.stderr.contains("--limit"), "{all:#?}");
}

/// How a scene's transfer is to travel.
struct Way {
    /// As the nodes' configuration says it.
    configured: &'static str,
    /// As the statement must say it.
    transport: &'static str,
    push: bool,
    prefix: Vec<String>,
}

impl Way {
    fn new(transport: &'static str, push: bool) -> Self {
        Self { configured: transport, transport, push, prefix: Vec::new() }
    }
    fn taken(transport: &'static str) -> Self {
        Self::new(transport, false)
    }
    fn pushed(transport: &'static str) -> Self {
        Self::new(transport, true)
    }
    fn site(&self, scene: Scene) -> Site {
        Site::start(&Scene { transport: self.configured, prefix: self.prefix.clone(), ..scene })
    }
}

fn folder_scene(name: &str, links: &str, way: &Way) {
    let (source, _kept) = tree(name);
    let push = way.push;
    let site = way.site(folder(links, &source, push));
    let end = if push { site.job(PROVIDER, "tree").ok().json() } else { site.take("tree") };
    assert_settled(&end);
    assert_eq!(end["transport"], way.transport, "{end}");
    let inbox = site.dir().join("inbox");
    let refused = end["refused"].as_u64().unwrap_or(0);
    if refused == 0 {
        assert_eq!(compare_folders(&source, &inbox), "");
    } else {
        assert_eq!(links, "inside", "{end}");
        // What leaves the folder was left out by name; everything else is there and equal.
        let expected = tempfile::tempdir().expect("a temporary folder");
        run(Command::new("cp").args(["-a", &format!("{}/.", text(&source)), text(expected.path())])).ok();
        let shown = transfer_shown(&site, CONSUMER, &end);
        let list = shown["left_out"].as_array().cloned().unwrap_or_default();
        assert_eq!(list.len() as u64, refused, "{shown}");
        for item in list {
            std::fs::remove_file(expected.path().join(item["name"].as_str().expect("a name"))).expect("it is there");
        }
        let difference = run(Command::new("diff").args(["-r", "--no-dereference"]).arg(expected.path()).arg(&inbox));
        assert_eq!(difference.stdout, "");
    }
    // A second run finds nothing to send.
    let again = if push { site.job(PROVIDER, "tree").ok().json() } else { site.take("tree") };
    assert_settled(&again);
    assert_eq!(again["files_sent"], 0, "{again}");
}

fn table_scene(way: &Way) {
    let data = tempfile::tempdir().expect("a temporary folder");
    let source = data.path().join("source.db");
    make_table(&source, rows());
    let push = way.push;
    let site = way.site(table(&source, push));
    let go = || if push { site.job(PROVIDER, "person").ok().json() } else { site.take("person") };
    let first = go();
    assert_settled(&first);
    assert_eq!(first["rows"], rows(), "{first}");
    assert_eq!(first["transport"], way.transport, "{first}");
    let target = site.dir().join("target.db");
    assert_eq!(table_print(&source), table_print(&target));

    // Rows change, rows come, and some come with an older watermark than what was read, within `late`.
    let database = Connection::open(&source).expect("the source opens");
    database
        .execute_batch(&format!(
            "UPDATE person SET note = 'changed', updated_at = '2026-01-02 00:00:00' WHERE id % 1000 = 7;
             INSERT INTO person VALUES ({0} + 1, '迟到', '2026-01-01 11:59:30', 1.5, 'late');
             INSERT INTO person VALUES ({0} + 2, '新增', '2026-01-02 00:00:01', NULL, NULL);",
            rows()
        ))
        .expect("the source changes");
    drop(database);
    let second = go();
    assert_settled(&second);
    assert!(second["rows"].as_u64().expect("rows") < rows() / 10, "{second}");
    assert_eq!(table_print(&source), table_print(&target));
}

/// What `transfer show` tells of the transfer that a run's closing object names.
pub(crate) fn transfer_shown(site: &Site, node: &str, end: &Value) -> Value {
    let id = end["transfer"].as_str().expect("an id");
    let shown = posthouse(&["transfer", "show", "--config", &site.config(node), id, "--json"]).ok();
    serde_json::from_str(shown.stdout.trim()).expect("one object")
}

pub(crate) fn assert_settled(end: &Value) {
    assert_eq!(end["state"], "settled", "{end}");
    assert!(end["receipt"].is_string(), "{end}");
}

/// The scene of one folder, taken or pushed.
pub(crate) fn folder(links: &str, source: &Path, push: bool) -> Scene {
    let resource = format!("[[resource]]\nid = \"tree\"\nfolder = \"{}\"\nlinks = \"{links}\"\n", text(source));
    let (give, take) = jobs("tree", "into = { folder = \"{dir}/inbox\" }\nwrite = \"upsert\"", "full", push);
    Scene { provider: resource + &give, consumer: take, grants: vec!["tree"], ..Scene::default() }
}

/// The scene of one table, taken or pushed incrementally.
pub(crate) fn table(source: &Path, push: bool) -> Scene {
    let resource = format!(
        "[connection.db]\nkind = \"sqlite\"\npath = \"{}\"\n\n[[resource]]\nid = \"person\"\nconnection = \"db\"\n\
         table = \"person\"\nkey = [\"id\"]\nwatermark = \"updated_at\"\nlate = \"1m\"\n",
        text(source)
    );
    let (give, take) =
        jobs("person", "into = { connection = \"db\", table = \"person\" }\nwrite = \"upsert\"", "incremental", push);
    let take = format!("[connection.db]\nkind = \"sqlite\"\npath = \"{{dir}}/target.db\"\n\n{take}");
    Scene { provider: resource + &give, consumer: take, grants: vec!["person"], ..Scene::default() }
}

fn jobs(resource: &str, into: &str, mode: &str, push: bool) -> (String, String) {
    if push {
        (
            format!(
                "\n[[job]]\nname = \"{resource}\"\npush = \"{resource}\"\nto = \"{CONSUMER}\"\nmode = \"{mode}\"\nschedule = \"manual\"\n"
            ),
            format!("[[job]]\nname = \"{resource}\"\naccept = \"{PROVIDER}/{resource}\"\n{into}\n"),
        )
    } else {
        (
            String::new(),
            format!(
                "[[job]]\nname = \"{resource}\"\nresource = \"{PROVIDER}/{resource}\"\n{into}\nmode = \"{mode}\"\nschedule = \"manual\"\n"
            ),
        )
    }
}

/// A table of people whose watermarks all lie before 2026-01-01 12:00:00.
pub(crate) fn make_table(path: &Path, rows: u64) {
    let mut database = Connection::open(path).expect("a database");
    database
        .execute_batch(
            "PRAGMA journal_mode = WAL;
             CREATE TABLE person (id INTEGER PRIMARY KEY, name TEXT NOT NULL, updated_at TIMESTAMP NOT NULL, balance DECIMAL(12,2), note TEXT);",
        )
        .expect("a table");
    let transaction = database.transaction().expect("a transaction");
    {
        let mut insert = transaction.prepare("INSERT INTO person VALUES (?1, ?2, ?3, ?4, ?5)").expect("an insert");
        for id in 0..rows {
            let second = id * 43_200 / rows.max(1);
            insert
                .execute(rusqlite::params![
                    id as i64,
                    format!("张𠮷{id}"),
                    format!("2026-01-01 {:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60),
                    (id % 3 != 0).then(|| (id % 100_000) as f64 / 4.0),
                    format!("备注 {}", id.wrapping_mul(2_654_435_761)),
                ])
                .expect("a row");
        }
    }
    transaction.commit().expect("committed");
}

/// Everything of the table, reduced by SQLite itself: independent of the exchange's own digests.
pub(crate) fn table_print(path: &Path) -> String {
    let database = Connection::open(path).expect("a database");
    let mut hasher = blake3::Hasher::new();
    let mut statement = database
        .prepare("SELECT id, name, updated_at, balance, note FROM person ORDER BY id")
        .expect("the table is there");
    let mut rows = statement.query([]).expect("rows");
    let mut count = 0u64;
    while let Some(row) = rows.next().expect("a row") {
        count += 1;
        for column in 0..5 {
            let text = match row.get_ref(column).expect("a value") {
                rusqlite::types::ValueRef::Null => "∅".to_owned(),
                rusqlite::types::ValueRef::Integer(n) => format!("{:.4}", n as f64),
                rusqlite::types::ValueRef::Real(n) => format!("{n:.4}"),
                rusqlite::types::ValueRef::Text(t) | rusqlite::types::ValueRef::Blob(t) => {
                    let text = String::from_utf8_lossy(t).into_owned();
                    if column == 3 { format!("{:.4}", text.parse::<f64>().expect("a number")) } else { text }
                }
            };
            hasher.update(text.as_bytes());
            hasher.update(b"\x1f");
        }
    }
    format!("{count} {}", hasher.finalize())
}

/// Files of many sizes, empty folders, links of every kind, odd names, a sparse file.
pub(crate) fn make_tree(root: &Path) {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{PermissionsExt, symlink};
    let write = |name: &str, size: usize| {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        let mut content = vec![0; size];
        blake3::Hasher::new().update(name.as_bytes()).finalize_xof().fill(&mut content);
        std::fs::write(path, content).expect("a file");
    };
    for number in 0..1500 {
        write(&format!("small/{:02}/file-{number}", number % 37), number * 13);
    }
    for (name, size) in [
        ("big/一百.bin", 30 << 20),
        ("big/exact.bin", 1 << 20),
        ("big/more.bin", (1 << 20) + 1),
        ("etc/空", 0),
        ("带 空格/人口\n统计.csv", 777),
    ] {
        write(name, size);
    }
    std::fs::create_dir_all(root.join("empty/inside/empty")).expect("folders");
    std::fs::write(root.join(std::ffi::OsStr::from_bytes(b"gbk-\xc8\xcb\xbf\xda.txt")), "人口").expect("a file");
    symlink("small/00/file-0", root.join("inner-link")).expect("a link");
    symlink("../big/exact.bin", root.join("etc/climbing-inside")).expect("a link");
    symlink("/etc/passwd", root.join("etc/outside")).expect("a link");
    symlink("nowhere", root.join("dangling")).expect("a link");
    std::fs::set_permissions(root.join("etc/空"), std::fs::Permissions::from_mode(0o400)).expect("a mode");
    std::fs::set_permissions(root.join("empty/inside"), std::fs::Permissions::from_mode(0o711)).expect("a mode");
    let sparse = std::fs::File::create(root.join("big/sparse.bin")).expect("a file");
    sparse.set_len(9 << 20).expect("a length");
}

/// A network namespace in which every UDP packet is dropped.
struct Namespace {
    name: String,
}

impl Namespace {
    fn without_udp() -> Option<Self> {
        let name = format!("posthouse-{}", std::process::id());
        let ip = |args: &[&str]| run(Command::new("ip").args(args)).code == 0;
        if !rustix::process::geteuid().is_root() || !ip(&["netns", "add", &name]) {
            return None;
        }
        let namespace = Self { name };
        let inside = |words: &[&str]| run(Command::new("ip").args(["netns", "exec", &namespace.name]).args(words)).ok();
        inside(&["ip", "link", "set", "lo", "up"]);
        inside(&[
            "nft",
            "add table inet silence; add chain inet silence in { type filter hook input priority 0; }; add rule inet silence in meta l4proto udp drop",
        ]);
        Some(namespace)
    }
    fn prefix(&self) -> Vec<String> {
        ["ip", "netns", "exec", &self.name].map(str::to_owned).to_vec()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = run(Command::new("ip").args(["netns", "del", &self.name]));
    }
}
