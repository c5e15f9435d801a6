//! SIGKILL at random moments of a folder and a table: equal afterwards, nothing doubled, one receipt each,
//! finished chunks not sent again, nor read again. 5 kills of each role ordinarily, 20 in the long run.

use crate::centre::newest;
use crate::exchange::{assert_settled, folder, make_table, table, table_print};
use crate::support::{CONSUMER, PROVIDER, Role, Scene, Site, compare_folders, long, posthouse, wait_for};
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};

fn kills() -> u64 {
    if long() { 20 } else { 5 }
}

#[test]
fn a_folder_survives_kills_of_the_provider() {
    folder_under_kills(Role::Provider);
}
#[test]
fn a_folder_survives_kills_of_the_consumer() {
    folder_under_kills(Role::Consumer);
}
#[test]
fn a_folder_survives_kills_of_the_coordinator() {
    folder_under_kills(Role::Coordinator);
}
#[test]
fn a_table_survives_kills_of_the_provider() {
    table_under_kills(Role::Provider);
}
#[test]
fn a_table_survives_kills_of_the_consumer() {
    table_under_kills(Role::Consumer);
}
#[test]
fn a_table_survives_kills_of_the_coordinator() {
    table_under_kills(Role::Coordinator);
}

#[test]
fn what_a_killed_consumer_has_is_not_read_again_at_its_provider() {
    let source = tempfile::tempdir().expect("a folder");
    let mut content = vec![0; 192 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut content);
    std::fs::write(source.path().join("large"), content).expect("a file");
    let scene = Scene { provider_node: "bandwidth = \"32 MiB\"".to_owned(), ..folder("keep", source.path(), false) };
    let mut site = Site::start(&scene);
    let config = site.config(PROVIDER);
    // What is read of a file that was written just now is not remembered.
    std::thread::sleep(Duration::from_millis(2_500));
    let before = bytes_read(&mut site, Role::Provider);
    let runs = started(&site, "tree");
    let most = || newest(&config)["bytes_sent"].as_u64().unwrap_or(0) > 128 << 20;
    wait_for("most of it is sent", Duration::from_secs(60), most);
    site.daemon(Role::Consumer).kill();
    let state = newest(&config)["state"].clone();
    assert!(state != "settled" && state != "committed", "it was over before: {state}");
    site.daemon(Role::Consumer).restart();
    assert_settled(&settled_since(&site, "tree", runs, "one kill"));
    assert_eq!(compare_folders(source.path(), &site.dir().join("inbox")), "");
    // All of it once, and what was in flight or not recorded; to seal it whole would take another 128 MiB at least.
    let read = bytes_read(&mut site, Role::Provider) - before;
    assert!((192 << 20..=256 << 20).contains(&read), "{read} bytes were read");
}

/// By a node's process, as the kernel counts it; what comes over the line is not in it.
fn bytes_read(site: &mut Site, role: Role) -> u64 {
    let pid = site.daemon(role).pid();
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).expect("it runs");
    let read = io.lines().find_map(|line| line.strip_prefix("rchar: ")).expect("the kernel tells");
    read.trim().parse().expect("a number")
}

fn folder_under_kills(role: Role) {
    let source = tempfile::tempdir().expect("a folder");
    let size = if long() { 96 } else { 32 };
    for number in 0..8 {
        let mut content = vec![0; size << 20];
        blake3::Hasher::new().update(&[number]).finalize_xof().fill(&mut content);
        std::fs::write(source.path().join(format!("{number}.bin")), content).expect("a file");
    }
    let mut site = Site::start(&folder("keep", source.path(), false));
    for round in 0..kills() {
        // Each round exchanges everything anew.
        let _ = std::fs::remove_dir_all(site.dir().join("inbox"));
        let end = one_killed_run(&mut site, role, "tree", round);
        assert_settled(&end);
        let resent = end["resent_chunks"].as_u64().expect("a count");
        assert!(resent <= 48, "round {round}: {resent} chunks were sent again: {end}");
        assert_eq!(compare_folders(source.path(), &site.dir().join("inbox")), "", "round {round}");
    }
    assert_balanced(&site, kills());
}

fn table_under_kills(role: Role) {
    let data = tempfile::tempdir().expect("a folder");
    let source = data.path().join("source.db");
    make_table(&source, if long() { 2_000_000 } else { 300_000 });
    let mut scene = table(&source, false);
    scene.consumer = scene.consumer.replace("incremental", "full").replace("upsert", "replace");
    let mut site = Site::start(&scene);
    let target = site.dir().join("target.db");
    let expected = table_print(&source);
    for round in 0..kills() {
        one_killed_run(&mut site, role, "person", round);
        assert_eq!(table_print(&target), expected, "round {round}");
        // The next round lands everything anew: one cell differs until it has.
        rusqlite::Connection::open(&target)
            .and_then(|db| db.execute("UPDATE person SET note = 'before' WHERE id = 1", []))
            .expect("the target changes");
    }
    assert_balanced(&site, kills());
}

/// Starts the job, kills one role at a moment that differs from round to round, starts it again and waits until
/// the newest transfer of the job has settled. Gives the closing object of that transfer.
fn one_killed_run(site: &mut Site, role: Role, job: &str, round: u64) -> Value {
    one_struck_run(site, role, job, round, |site| {
        site.daemon(role).kill();
        std::thread::sleep(Duration::from_millis(200));
        site.daemon(role).restart();
    })
}

/// The same, whatever it is that strikes.
pub(crate) fn one_struck_run(
    site: &mut Site,
    role: Role,
    job: &str,
    round: u64,
    strike: impl FnOnce(&mut Site),
) -> Value {
    let before = started(site, job);
    let noise = blake3::hash(format!("{role:?} {job} {round}").as_bytes());
    let delay = 30 + u64::from(noise.as_bytes()[0]) * 6;
    std::thread::sleep(Duration::from_millis(delay));
    strike(site);
    settled_since(site, job, before, &format!("{role:?} round {round}"))
}

/// Starts the job; gives how many transfers it had before.
pub(crate) fn started(site: &Site, job: &str) -> usize {
    let config = site.config(CONSUMER);
    let before = transfers(&config, job).len();
    posthouse(&["job", "run", "--config", &config, job]).ok();
    before
}

/// Waits until one that came after so many transfers of the job has settled; gives its closing object.
pub(crate) fn settled_since(site: &Site, job: &str, before: usize, what: &str) -> Value {
    let config = site.config(CONSUMER);
    let since = Instant::now();
    loop {
        std::thread::sleep(Duration::from_millis(150));
        let list = transfers(&config, job);
        let new = &list[before.min(list.len())..];
        if let Some(settled) = new.iter().find(|transfer| transfer["state"] == "settled") {
            return settled.clone();
        }
        assert!(
            since.elapsed() < patience(),
            "{what}: not settled: {list:#?}\n{}\n{}",
            site.consumer.log_tail(),
            site.provider.log_tail()
        );
    }
}

/// For how long something that is to come is waited for.
pub(crate) fn patience() -> Duration {
    Duration::from_secs(if long() { 1_800 } else { 180 })
}

/// Transfers of a job, oldest first.
pub(crate) fn transfers(config: &str, job: &str) -> Vec<Value> {
    let ran = posthouse(&["transfer", "list", "--config", config, "--json"]);
    let mut list: Vec<Value> = ran
        .stdout
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .flat_map(|value| value["transfers"].as_array().cloned().unwrap_or_else(|| vec![value.clone()]))
        .filter(|transfer| transfer["job"] == job)
        .collect();
    list.sort_by_key(|transfer| transfer["started"].to_string());
    list
}

/// Everything has been reported, nothing differs, and every transfer that ended has one receipt or its endings.
pub(crate) fn assert_balanced(site: &Site, matched: u64) {
    let centre = site.centre_config();
    wait_for("the balance is even", Duration::from_secs(90), || {
        let ran = posthouse(&["reconcile", "--config", &centre, "--json"]);
        let counts = &ran.json()["counts"];
        ran.code == 0 && counts["pending"] == 0 && counts["matched"].as_u64().unwrap_or(0) >= matched
    });
    for node in [PROVIDER, CONSUMER] {
        let ran = posthouse(&["transfer", "list", "--config", &site.config(node), "--json"]).ok();
        for line in ran.stdout.lines() {
            let transfer: Value = serde_json::from_str(line).expect("an object a line");
            if let Some(state) = transfer["state"].as_str() {
                assert!(["settled", "failed"].contains(&state), "{node}: {transfer}");
            }
        }
    }
    assert!(Path::new(&centre).exists());
}
