//! A receipt of a real exchange, verified by the program and by other people's tools: each finds every
//! flipped bit in what it covers.

#[path = "../../protocol/tests/it/sample.rs"]
#[allow(dead_code, reason = "the protocol's own tests use the rest of it")]
mod sample;

use crate::exchange::folder;
use crate::support::{CONSUMER, Ran, Site, posthouse, run, text, wait_for};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

#[test]
fn a_folders_receipt_verifies_everywhere_and_no_flipped_bit_of_it() {
    let (site, transfer) = exchange();
    let (export, trust) = exported(&site, &transfer);

    let verified = verify(&export, &trust).ok().json();
    assert_eq!((&verified["verified"], &verified["standing"]), (&Value::Bool(true), &Value::from("proven")));
    assert_eq!(verified["transfer"], Value::from(transfer.as_str()));
    assert!(verified["warning"].is_null(), "{verified}");
    let beside = verify(&export, &export.join("trust")).ok().json();
    assert!(beside["warning"].is_string(), "the trust lies beside the receipt: {beside}");

    every_flipped_bit_is_found(&export, &trust);
    other_peoples_tools(&export, &site.dir().join("inbox"));
}

#[test]
fn before_the_proof_has_come_a_receipt_is_pending() {
    let source = notices();
    let mut site = Site::start(&folder("keep", source.path(), false));
    site.coordinator.kill();
    let end = site.take("tree");
    assert_eq!((&end["state"], &end["verdict"]), (&Value::from("settled"), &Value::from("pending")), "{end}");
    let transfer = end["transfer"].as_str().expect("an id").to_owned();
    let (export, trust) = exported(&site, &transfer);
    assert!(!export.join("inclusion.cose").exists());
    let verified = verify(&export, &trust).ok();
    assert_eq!(verified.json()["standing"], "pending", "{verified:#?}");
}

#[test]
fn a_receipt_a_statement_and_a_folder_are_verified_offline() {
    let (folder, export, trust) = made();
    for (path, proven) in
        [(export.clone(), true), (export.join("receipt.cose"), true), (export.join("consumer.cose"), false)]
    {
        let verified = verify(&path, &trust).ok().json();
        assert_eq!(verified["verified"], true, "{verified}");
        assert_eq!(verified["standing"] == "proven", proven, "{verified}");
        let fingerprint = verified["trusted"][0]["sha256"].as_str().unwrap_or_default();
        assert!(fingerprint.starts_with("34750f98bd59fcfc"), "the policy key's: {verified}");
    }
    let words = posthouse(&["receipt", "verify", text(&export), "--trust", text(&trust), "--lang", "en"]).ok();
    assert!(words.stdout.contains("proven") && words.stdout.contains("police.xian.example"), "{words:#?}");
    assert!(words.stderr.contains("34750f98bd59fcfc") && !words.stderr.contains("beside"), "{words:#?}");
    let chinese =
        posthouse(&["receipt", "verify", text(&export), "--trust", text(&export.join("trust")), "--lang", "zh"]).ok();
    assert!(chinese.stdout.contains("已存证") && chinese.stderr.contains("注意"), "{chinese:#?}");
    drop(folder);
}

#[test]
fn what_does_not_verify_is_exit_3_and_what_is_not_there_is_not() {
    let (_folder, export, trust) = made();
    // One bad among good ones: each is reported, and the whole is a difference.
    let other = export.with_file_name("other");
    run(Command::new("cp").args(["-r", text(&export), text(&other)])).ok();
    std::fs::write(other.join("proof.txt"), "nonsense\n").expect("a file");
    let both = posthouse(&["receipt", "verify", text(&export), text(&other), "--trust", text(&trust), "--json"]);
    assert_eq!(both.code, 3, "{both:#?}");
    let lines: Vec<Value> = both.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((&lines[0]["verified"], &lines[1]["verified"]), (&Value::Bool(true), &Value::Bool(false)));
    assert_eq!(lines[1]["problem"]["code"], "PH5001", "{both:#?}");

    for strange in ["note.txt", "trust/stranger.pem"] {
        std::fs::write(export.join(strange), "x").expect("a file");
        assert_eq!(verify(&export, &trust).code, 3, "{strange} does not belong there");
        std::fs::remove_file(export.join(strange)).expect("removed");
    }
    std::fs::write(trust.join("ledger.vkey"), "x").expect("a file");
    assert_eq!(verify(&export, &trust).code, 3, "the trust itself is broken");
    assert_eq!(verify(&export, &export.join("nowhere")).code, 2);
    assert_eq!(verify(&export.join("nothing"), &export.join("trust")).code, 2);
}

/// An export made from fixed keys, with no exchange behind it, and its trust apart from it.
fn made() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (export, trust) = (folder.path().join("export"), folder.path().join("trust"));
    let world = sample::World::new();
    for (name, bytes) in world.receipt(b"list\n").export(&world.trust, Some(b"list\n")).expect("an export") {
        let path = export.join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, bytes).expect("a file");
    }
    run(Command::new("cp").args(["-r", text(&export.join("trust")), text(&trust)])).ok();
    (folder, export, trust)
}

/// One small folder, taken, and its receipt proven.
fn exchange() -> (Site, String) {
    let source = notices();
    let site = Site::start(&folder("keep", source.path(), false));
    let end = site.take("tree");
    assert_eq!(end["state"], "settled", "{end}");
    let transfer = end["transfer"].as_str().expect("an id").to_owned();
    wait_for_proof(&site, &transfer);
    (site, transfer)
}

/// Until the centre has proven what the consumer stated of a transfer.
pub(crate) fn wait_for_proof(site: &Site, transfer: &str) {
    wait_for("the centre's proof", Duration::from_secs(60), || {
        let shown = posthouse(&["receipt", "show", "--config", &site.config(CONSUMER), transfer, "--json"]);
        shown.code == 0 && shown.stdout.contains("\"proven\":true")
    });
}

/// Three files, one of them empty and one with a Chinese name.
fn notices() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::create_dir(folder.path().join("2026")).expect("a folder");
    std::fs::write(folder.path().join("2026/许可证.txt"), "施工许可证\n").expect("a file");
    std::fs::write(folder.path().join("empty"), "").expect("a file");
    std::fs::write(folder.path().join("notice.txt"), "notice\n".repeat(1000)).expect("a file");
    folder
}

/// Exports at the consumer; the trust is moved away from the receipt, as a careful reader has it.
pub(crate) fn exported(site: &Site, transfer: &str) -> (PathBuf, PathBuf) {
    let (export, trust) = (site.dir().join("export"), site.dir().join("trust"));
    posthouse(&["receipt", "export", "--config", &site.config(CONSUMER), transfer, "--out", text(&export)]).ok();
    run(Command::new("cp").args(["-r", text(&export.join("trust")), text(&trust)])).ok();
    (export, trust)
}

pub(crate) fn verify(path: &Path, trust: &Path) -> Ran {
    posthouse(&["receipt", "verify", text(path), "--trust", text(trust), "--json"])
}

/// One bit of each byte in every file through the whole program; every bit is tried in protocol's own tests.
fn every_flipped_bit_is_found(export: &Path, trust: &Path) {
    let changed = tempfile::tempdir().expect("a temporary folder");
    let mut tried = 0;
    for name in ["", "trust"] {
        for entry in std::fs::read_dir(export.join(name)).expect("the export") {
            let from = entry.expect("an entry").path();
            if from.is_dir() {
                continue;
            }
            let bytes = std::fs::read(&from).expect("a file");
            let copy = changed.path().join("copy");
            run(Command::new("cp").args(["-r", text(export), text(&copy)])).ok();
            let at = copy.join(name).join(from.file_name().expect("a name"));
            // About 24 places spread over the file, each with another bit.
            for (n, place) in (0..bytes.len()).step_by(bytes.len() / 24 + 1).enumerate() {
                let mut flipped = bytes.clone();
                flipped[place] ^= 1 << (n % 8);
                std::fs::write(&at, flipped).expect("a flipped file");
                let refused = verify(&copy, trust);
                assert_eq!(refused.code, 3, "bit {} of byte {place} of {}: {refused:#?}", n % 8, from.display());
                assert_eq!(refused.json()["verified"], false);
                tried += 1;
            }
            std::fs::remove_dir_all(&copy).expect("removed");
        }
    }
    assert!(tried > 150, "{tried} flips tried");
}

/// scitt-cose, openssl and b3sum by `tests/verify/verify.py`, each with every bit flipped.
fn other_peoples_tools(export: &Path, landed: &Path) {
    let python = std::env::var("POSTHOUSE_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verify/verify.py");
    let verified =
        run(Command::new(python).arg(script).args([text(export), "--landed", text(landed), "--flip"])).ok().json();
    assert_eq!(verified["files_checked"], 3, "{verified}");
    assert_eq!(verified["ledger"]["origin"], "centre.test.example/log1", "{verified}");
    for name in ["provider.cose", "consumer.cose", "inclusion.cose", "checkpoint.txt", "files.b3"] {
        assert!(verified["flipped"][name].as_u64().is_some_and(|bits| bits > 500), "{name}: {verified}");
    }
}
