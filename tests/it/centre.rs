//! The centre away, certificates running out, grants withdrawn: exchange goes on exactly as far as it may.

use crate::exchange::{assert_settled, folder, make_table, make_tree, table, table_print};
use crate::support::{CENTRE, CONSUMER, PROVIDER, Site, compare_folders, posthouse, run, wait_for};
use serde_json::Value;
use std::process::Command;
use std::time::{Duration, Instant};

#[test]
fn with_the_coordinator_away_transfers_go_on_and_every_statement_arrives_once() {
    let source = tempfile::tempdir().expect("a folder");
    make_tree(source.path());
    let data = tempfile::tempdir().expect("a folder");
    let database = data.path().join("source.db");
    make_table(&database, 50_000);
    let mut scene = folder("keep", source.path(), false);
    let other = table(&database, false);
    scene.provider += &other.provider;
    scene.consumer = other.consumer + &scene.consumer;
    scene.grants.extend(other.grants);
    let mut site = Site::start(&scene);
    site.coordinator.stop();
    for job in ["tree", "person"] {
        let end = site.take(job);
        assert_settled(&end);
        assert_eq!(end["verdict"], "pending", "{end}");
    }
    assert_eq!(compare_folders(source.path(), &site.dir().join("inbox")), "");
    assert_eq!(table_print(&database), table_print(&site.dir().join("target.db")));
    site.coordinator.restart();
    wait_for("both are matched", Duration::from_secs(60), || counts(&site)["matched"] == 2);
    let receipts = posthouse(&["receipt", "list", "--config", &site.config(CONSUMER), "--json"]).ok();
    let proven =
        receipts.stdout.lines().filter(|line| line.contains("\"matched\"") || line.contains("\"proven\":true")).count();
    assert_eq!(proven, 2, "{receipts:#?}");
}

#[test]
fn a_transfer_longer_than_a_certificate_runs_across_its_renewal() {
    let source = tempfile::tempdir().expect("a folder");
    for number in 0..24u8 {
        let mut content = vec![0; 64 << 20];
        blake3::Hasher::new().update(&[number]).finalize_xof().fill(&mut content);
        std::fs::write(source.path().join(format!("{number}.bin")), content).expect("a file");
    }
    let mut scene = folder("keep", source.path(), false);
    scene.coordinator = "certificate_life = \"60s\"\nheartbeat = \"2s\"".to_owned();
    let mut site = Site::start(&scene);
    let first = [PROVIDER, CONSUMER].map(|node| certificate_ends(&site, node));
    let config = site.config(CONSUMER);
    let since = Instant::now();
    posthouse(&["job", "run", "--config", &config, "tree"]).ok();
    // The provider is held again and again, so that one transfer outlives the third of a certificate's life.
    while since.elapsed() < Duration::from_secs(40) {
        std::thread::sleep(Duration::from_millis(120));
        site.provider.pause();
        std::thread::sleep(Duration::from_secs(6));
        site.provider.resume();
        if newest(&config)["state"] == "settled" {
            break;
        }
    }
    assert!(since.elapsed() > Duration::from_secs(20), "it was too quick to say anything");
    wait_for("it settles", Duration::from_secs(90), || newest(&config)["state"] == "settled");
    let list = posthouse(&["transfer", "list", "--config", &config, "--json"]).ok();
    assert!(!list.stdout.contains("\"failed\""), "{list:#?}");
    wait_for("both have renewed", Duration::from_secs(30), || {
        first.iter().zip([PROVIDER, CONSUMER]).all(|(first, node)| *first != certificate_ends(&site, node))
    });
    assert_eq!(compare_folders(source.path(), &site.dir().join("inbox")), "");
}

#[test]
fn a_node_that_was_off_for_thirty_days_exchanges_unaided() {
    let source = tempfile::tempdir().expect("a folder");
    make_tree(source.path());
    let mut site = Site::start(&folder("keep", source.path(), false));
    assert_settled(&site.take("tree"));
    site.consumer.stop();
    site.provider.stop();
    site.coordinator.stop();
    // Thirty days pass for everybody; the certificates, made for seven, are over.
    let later = later_by("+30d");
    site.coordinator.start_under(&later);
    site.provider.start_under(&later);
    site.consumer.start_under(&later);
    site.coordinator.restart();
    site.provider.restart();
    site.consumer.restart();
    site.wait_until_up(PROVIDER);
    site.wait_until_up(CONSUMER);
    std::fs::write(source.path().join("new.txt"), "after the holiday").expect("a file");
    let end = site.take("tree");
    assert_settled(&end);
    assert_eq!(end["files_sent"], 1, "{end}");
    assert_eq!(compare_folders(source.path(), &site.dir().join("inbox")), "");
    // What was started is the program itself: it drains, and nothing of it stays behind.
    let stopped = [site.consumer.stop(), site.provider.stop(), site.coordinator.stop()];
    assert!(stopped.iter().all(|(code, _)| *code == 0), "{stopped:?}");
}

/// What a program is started under whose clock is so much ahead, but for the monotonic one. `faketime` itself would
/// stand between the program and us: a signal ends it, and the program goes on.
fn later_by(offset: &str) -> Vec<String> {
    let shown = run(Command::new("faketime").args(["--exclude-monotonic", "-f", offset, "env"])).ok();
    let kept = ["LD_PRELOAD=", "FAKETIME=", "FAKETIME_DONT_FAKE_MONOTONIC="];
    let set = shown.stdout.lines().filter(|line| kept.iter().any(|name| line.starts_with(name)));
    std::iter::once("env").chain(set).map(str::to_owned).collect()
}

#[test]
fn a_grant_withdrawn_mid_transfer_stops_it_within_five_seconds() {
    let source = tempfile::tempdir().expect("a folder");
    for number in 0..24u8 {
        let mut content = vec![0; 64 << 20];
        blake3::Hasher::new().update(&[number]).finalize_xof().fill(&mut content);
        std::fs::write(source.path().join(format!("{number}.bin")), content).expect("a file");
    }
    let mut scene = folder("keep", source.path(), false);
    scene.grants = vec![];
    let site = Site::start(&scene);
    let grant = site.grant("tree");
    let config = site.config(CONSUMER);
    wait_for("the job starts", Duration::from_secs(20), || {
        posthouse(&["job", "run", "--config", &config, "tree"]).code == 0
    });
    wait_for("bytes arrive", Duration::from_secs(30), || {
        newest(&config)["bytes_sent"].as_u64().unwrap_or(0) > 0 || newest(&config)["state"] == "moving"
    });
    let since = Instant::now();
    posthouse(&["grant", "revoke", "--config", &site.centre_config(), &grant]).ok();
    wait_for("it is refused", Duration::from_secs(5), || newest(&config)["state"] == "refused");
    assert!(since.elapsed() < Duration::from_secs(5));
    let provider = site.config(PROVIDER);
    wait_for("the provider says so too", Duration::from_secs(5), || newest(&provider)["state"] == "refused");
    let ran = site.job(CONSUMER, "tree");
    assert_eq!(ran.code, 4, "{ran:#?}");
}

#[test]
fn a_used_token_a_foreign_token_and_a_wrong_authority_are_refused_with_the_true_reason() {
    let source = tempfile::tempdir().expect("a folder");
    let site = Site::start(&folder("keep", source.path(), false));
    let centre = site.centre_config();
    let joining = |name: &str, token: &str| {
        let folder = tempfile::tempdir().expect("a folder");
        let written = std::fs::read_to_string(site.config(CONSUMER)).expect("a configuration");
        let (head, _) = written.split_once("[[job]]").expect("it has a job");
        let own = head
            .replace(CONSUMER, name)
            .lines()
            .map(|line| {
                if line.starts_with("data_dir") {
                    format!("data_dir = \"{}\"", folder.path().join("data").display())
                } else {
                    line.to_owned()
                }
            })
            .collect::<Vec<_>>()
            .join("\n");
        let path = folder.path().join("node.toml");
        std::fs::write(&path, own).expect("written");
        let ran = posthouse(&["node", "join", "--config", path.to_str().expect("plain"), "--token", token]);
        (ran, folder)
    };
    let token = |name: &str| {
        posthouse(&["coordinator", "token", "--config", &centre, "--node", name]).ok().stdout.trim().to_owned()
    };
    let fresh = token("audit.test.example");
    let (ran, _kept) = joining("audit.test.example", &fresh);
    assert_eq!(ran.code, 0, "{ran:#?}");
    let (ran, _kept) = joining("audit.test.example", &fresh);
    assert_eq!(ran.code, 4, "{ran:#?}");
    assert!(ran.stderr.contains("PH3011"), "{ran:#?}");
    let (ran, _kept) = joining("other.test.example", &token("someone.test.example"));
    assert_ne!(ran.code, 0, "{ran:#?}");
    assert!(ran.stderr.contains("PH3010"), "{ran:#?}");
    let expired =
        posthouse(&["coordinator", "token", "--config", &centre, "--node", "late.test.example", "--ttl", "1s"]).ok();
    std::thread::sleep(Duration::from_millis(1500));
    let (ran, _kept) = joining("late.test.example", expired.stdout.trim());
    assert!(ran.stderr.contains("PH3012"), "{ran:#?}");
    // A token of another coordinator: what answers at the address is not what the token pins.
    let elsewhere = Site::start(&folder("keep", source.path(), false));
    let foreign =
        posthouse(&["coordinator", "token", "--config", &elsewhere.centre_config(), "--node", "lost.test.example"])
            .ok();
    let (ran, _kept) = joining("lost.test.example", foreign.stdout.trim());
    assert_eq!(ran.code, 4, "{ran:#?}");
    assert!(ran.stderr.contains("PH3013") || ran.stderr.contains("PH3007"), "{ran:#?}");
    // The listener goes on.
    assert_settled(&site.take("tree"));
    assert_eq!(CENTRE, "centre.test.example");
}

fn counts(site: &Site) -> Value {
    posthouse(&["reconcile", "--config", &site.centre_config(), "--json"]).json()["counts"].clone()
}

pub(crate) fn newest(config: &str) -> Value {
    let ran = posthouse(&["transfer", "list", "--config", config, "--json"]);
    ran.stdout
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .flat_map(|value| value["transfers"].as_array().cloned().unwrap_or_else(|| vec![value.clone()]))
        // The last line may say that there are more.
        .filter(|value| value["transfer"].is_string())
        .max_by_key(|transfer| transfer["started"].to_string())
        .unwrap_or_default()
}

fn certificate_ends(site: &Site, node: &str) -> String {
    let ran = posthouse(&["coordinator", "node", "list", "--config", &site.centre_config(), "--json"]).ok();
    ran.stdout
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .flat_map(|value| value["nodes"].as_array().cloned().unwrap_or_else(|| vec![value.clone()]))
        .find(|item| item["name"] == node)
        .map(|item| item["certificate_expires_at"].to_string())
        .unwrap_or_default()
}
