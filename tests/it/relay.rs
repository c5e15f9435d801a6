//! Two nodes that nobody can dial and that do not know each other's address: what they exchange goes through relays,
//! over TCP, as the grant prescribes.

use crate::api::{get, token_named};
use crate::centre::newest;
use crate::exchange::{assert_settled, folder, make_table, make_tree, table, table_print};
use crate::support::{CONSUMER, PROVIDER, Scene, Site, compare_folders, posthouse, run, text, wait_for};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const RELAY: &str = "gateway.test.example";
const SECOND: &str = "inner-gateway.test.example";

#[test]
fn a_folder_is_taken_and_a_table_pushed_through_a_relay_that_the_receipt_names() {
    let data = tempfile::tempdir().expect("a folder");
    let (tree, source) = (data.path().join("tree"), data.path().join("source.db"));
    make_tree(&tree);
    make_table(&source, 20_000);
    let (files, rows) = (folder("keep", &tree, false), table(&source, true));
    let mut site = Site::start(&Scene {
        provider: format!("{}\n{}", files.provider, rows.provider),
        consumer: format!("{}\n{}", files.consumer, rows.consumer),
        grants: vec!["tree", "person"],
        ..apart(vec![RELAY])
    });
    let taken = site.take("tree");
    assert_settled(&taken);
    assert_eq!(taken["transport"], "tcp", "{taken}");
    assert_eq!(compare_folders(&tree, &site.dir().join("inbox")), "");
    let pushed = site.job(PROVIDER, "person").ok().json();
    assert_settled(&pushed);
    assert_eq!(pushed["rows"], 20_000, "{pushed}");
    assert_eq!(table_print(&source), table_print(&site.dir().join("target.db")));

    for end in [&taken, &pushed] {
        let id = end["transfer"].as_str().expect("an id");
        let shown = proven(&site, id);
        assert_eq!(shown["route"], json!([RELAY]), "{shown}");
        verified_elsewhere(&site, id);
        // The relay's own word is in the ledger, beside what the two say.
        let moved = end["bytes_sent"].as_u64().expect("bytes");
        let row = passed(&site, id);
        assert_eq!((&row["route"], &row["verdict"]), (&json!([RELAY]), &json!("matched")), "{row}");
        let passage = &row["passages"][0];
        assert_eq!(passage["relay"], RELAY, "{row}");
        assert!(passage["to_consumer"].as_u64().expect("bytes") > moved, "encrypted, and with what was said: {row}");
        assert!(passage["to_provider"].as_u64().expect("bytes") > 0, "{row}");
    }

    // What a dry run says, and a job that expects another way.
    let dry = posthouse(&["job", "run", "--config", &site.config(CONSUMER), "tree", "--dry-run"]).ok();
    assert!(dry.stderr.contains(RELAY) || dry.stdout.contains(RELAY), "{dry:#?}");
    site.consumer.stop();
    let config = std::fs::read_to_string(site.config(CONSUMER)).expect("node.toml");
    let config = config.replacen("[[job]]", "[[job]]\nvia = []", 1);
    std::fs::write(site.config(CONSUMER), config).expect("node.toml");
    site.consumer.restart();
    wait_for("it answers again", Duration::from_secs(30), || {
        posthouse(&["job", "list", "--config", &site.config(CONSUMER)]).code == 0
    });
    let ran = site.job(CONSUMER, "tree");
    assert_eq!(ran.code, 4, "{ran:#?}");
    assert!(ran.stderr.contains("PH3001") && ran.stderr.contains(RELAY), "{ran:#?}");
}

#[test]
fn a_transfer_goes_on_when_a_relay_of_two_is_killed_and_is_refused_through_them_when_its_grant_is_withdrawn() {
    let source = tempfile::tempdir().expect("a folder");
    for number in 0..4u8 {
        let mut content = vec![0; 16 << 20];
        blake3::Hasher::new().update(&[number]).finalize_xof().fill(&mut content);
        std::fs::write(source.path().join(format!("{number}.bin")), content).expect("a file");
    }
    let scene = folder("keep", source.path(), false);
    let mut site = Site::start(&Scene {
        provider: scene.provider,
        consumer: scene.consumer,
        grants: vec!["tree"],
        provider_node: "bandwidth = \"6 MiB\"".to_owned(),
        // The first relay cannot dial it.
        last_relay_node: "listen = \"none\"".to_owned(),
        ..apart(vec![RELAY, SECOND])
    });
    let config = site.config(CONSUMER);
    let starts = |site: &Site| posthouse(&["job", "run", "--config", &site.config(CONSUMER), "tree"]).ok();
    let sent = |config: &str| newest(config)["bytes_sent"].as_u64().unwrap_or(0);
    starts(&site);
    wait_for("a part of it has come", Duration::from_secs(60), || sent(&config) > 8 << 20);
    site.relays[1].kill();
    site.relays[1].restart();
    wait_for("it settles", Duration::from_secs(120), || newest(&config)["state"] == "settled");
    assert_eq!(compare_folders(source.path(), &site.dir().join("inbox")), "");
    let id = newest(&config)["transfer"].as_str().expect("an id").to_owned();
    assert_eq!(proven(&site, &id)["route"], json!([RELAY, SECOND]));
    // The one that was not killed has passed on all of it.
    let row = passed(&site, &id);
    let first = row["passages"].as_array().expect("passages").iter().filter(|passage| passage["relay"] == RELAY);
    let bytes: u64 = first.map(|passage| passage["to_consumer"].as_u64().expect("bytes")).sum();
    assert!(bytes > 64 << 20, "{row}");

    for number in 0..4u8 {
        let mut content = vec![number; 16 << 20];
        blake3::Hasher::new().update(&[number, 1]).finalize_xof().fill(&mut content);
        std::fs::write(source.path().join(format!("{number}.bin")), content).expect("a file");
    }
    starts(&site);
    wait_for("it moves again", Duration::from_secs(60), || {
        let newest = newest(&config);
        newest["state"] == "moving" && newest["bytes_sent"].as_u64().unwrap_or(0) > 1 << 20
    });
    let grants = posthouse(&["grant", "list", "--config", &site.centre_config(), "--json"]).ok().json();
    assert_eq!(grants["via"], json!([RELAY, SECOND]), "{grants}");
    let grant = grants["id"].as_str().expect("an id");
    posthouse(&["grant", "revoke", "--config", &site.centre_config(), grant]).ok();
    // Both sides come to know and state it, through the relays of a grant that is no more.
    for node in [CONSUMER, PROVIDER] {
        wait_for("it is refused", Duration::from_secs(5), || newest(&site.config(node))["state"] == "refused");
    }
    let ran = site.job(CONSUMER, "tree");
    assert_eq!(ran.code, 4, "{ran:#?}");
    assert!(ran.stderr.contains("PH3001"), "{ran:#?}");
}

/// Two nodes that only dial out.
fn apart(via: Vec<&'static str>) -> Scene {
    let none = || "listen = \"none\"".to_owned();
    Scene { transport: "tcp", provider_node: none(), consumer_node: none(), via, ..Scene::default() }
}

/// The receipt, once the centre's proof has come.
fn proven(site: &Site, transfer: &str) -> Value {
    let show = || posthouse(&["receipt", "show", "--config", &site.config(CONSUMER), transfer, "--json"]);
    wait_for("the centre's proof", Duration::from_secs(60), || show().stdout.contains("\"proven\":true"));
    show().ok().json()
}

fn verified_elsewhere(site: &Site, transfer: &str) {
    let out = site.dir().join(format!("export-{transfer}"));
    let trust = site.dir().join(format!("trust-{transfer}"));
    posthouse(&["receipt", "export", "--config", &site.config(CONSUMER), transfer, "--out", text(&out)]).ok();
    run(Command::new("cp").args(["-r", text(&out.join("trust")), text(&trust)])).ok();
    let verify = |path: &Path| posthouse(&["receipt", "verify", text(path), "--trust", text(&trust), "--json"]);
    let verified = verify(&out).ok().json();
    assert_eq!((&verified["standing"], &verified["route"]), (&json!("proven"), &json!([RELAY])), "{verified}");
}

/// The transfer as the centre shows it, once a relay has spoken of it.
fn passed(site: &Site, transfer: &str) -> Value {
    let viewer = token_named(site, transfer, "viewer");
    let path = format!("/api/v1/transfers/{transfer}");
    let row = || get(site, &path, Some(&viewer)).1;
    wait_for("the relay has stated what it passed on", Duration::from_secs(60), || {
        row()["passages"].as_array().is_some_and(|passages| !passages.is_empty())
    });
    row()
}
