//! The coordinator's API as a script uses it: with curl, over its own bearer tokens.

use crate::exchange::{assert_settled, folder, make_tree};
use crate::support::{CONSUMER, PROVIDER, Site, posthouse, run, wait_for};
use serde_json::Value;
use std::process::Command;
use std::time::Duration;

#[test]
fn a_viewer_sees_who_is_up_what_moved_and_what_is_not_reconciled() {
    let source = tempfile::tempdir().expect("a folder");
    make_tree(source.path());
    let mut scene = folder("keep", source.path(), false);
    scene.coordinator = "heartbeat = \"1s\"".to_owned();
    let mut site = Site::start(&scene);
    assert_settled(&site.take("tree"));
    let viewer = token(&site, "viewer");
    let auditor = token(&site, "auditor");

    // On a busy machine a beat of one second may be late once.
    wait_for("both nodes are up", Duration::from_secs(30), || {
        let (_, nodes) = get(&site, "/api/v1/nodes", Some(&viewer));
        let list = nodes["items"].as_array().expect("nodes").clone();
        [PROVIDER, CONSUMER].iter().all(|name| list.iter().any(|node| node["name"] == *name && node["state"] == "up"))
    });
    let (status, nodes) = get(&site, "/api/v1/nodes", Some(&viewer));
    assert_eq!(status, 200, "{nodes}");
    let list = nodes["nodes"].as_array().or_else(|| nodes["items"].as_array()).expect("nodes").clone();
    for name in [PROVIDER, CONSUMER] {
        let node = list.iter().find(|node| node["name"] == name).expect("it is listed");
        for field in ["last_report_at", "version", "certificate_expires_at", "disk_free_bytes", "lag_seconds"] {
            assert!(!node[field].is_null(), "{field}: {node}");
        }
    }
    assert!(nodes["as_of"].is_string(), "{nodes}");

    wait_for("the transfer is matched", Duration::from_secs(30), || {
        get(&site, "/api/v1/transfers", Some(&viewer)).1.to_string().contains("matched")
    });
    let (status, day) = get(&site, "/api/v1/reconciliations", Some(&viewer));
    assert_eq!(status, 200, "{day}");
    assert_eq!(day["counts"]["matched"], 1, "{day}");
    for path in ["/api/v1/status", "/api/v1/transfers", "/api/v1/receipts", "/metrics"] {
        assert_eq!(get(&site, path, Some(&viewer)).0, 200, "{path}");
        assert_eq!(get(&site, path, None).0, 401, "{path}");
    }
    let (status, problem) = get(&site, "/api/v1/status", None);
    assert_eq!((status, problem["code"].as_str()), (401, Some("PH3015")), "{problem}");
    let (status, problem) = get(&site, "/api/v1/ledger/tile/0/000.p/2", Some(&viewer));
    assert_eq!((status, problem["code"].as_str()), (403, Some("PH3016")), "{problem}");
    assert_eq!(get(&site, "/api/v1/ledger", Some(&auditor)).0, 200);
    for path in ["/healthz", "/readyz", "/"] {
        assert_eq!(get(&site, path, None).0, 200, "{path}");
    }

    site.provider.kill();
    wait_for("the killed node is stale", Duration::from_secs(4), || {
        let (_, nodes) = get(&site, "/api/v1/nodes", Some(&viewer));
        let list = nodes["nodes"].as_array().or_else(|| nodes["items"].as_array()).expect("nodes").clone();
        list.iter().any(|node| node["name"] == PROVIDER && node["state"] == "stale")
    });
}

pub(crate) fn token(site: &Site, role: &str) -> String {
    token_named(site, &format!("test-{role}"), role)
}

pub(crate) fn token_named(site: &Site, name: &str, role: &str) -> String {
    let ran =
        posthouse(&["coordinator", "access", "add", "--config", &site.centre_config(), name, "--role", role]).ok();
    ran.stdout.trim().to_owned()
}

pub(crate) fn get(site: &Site, path: &str, token: Option<&str>) -> (u16, Value) {
    let mut command = Command::new("curl");
    command.args(["-s", "-w", "\n%{http_code}", &format!("http://127.0.0.1:{}{path}", site.http)]);
    if let Some(token) = token {
        command.args(["-H", &format!("Authorization: Bearer {token}")]);
    }
    let ran = run(&mut command).ok();
    let (body, status) = ran.stdout.rsplit_once('\n').expect("a status line");
    (status.parse().expect("a status"), serde_json::from_str(body).unwrap_or(Value::Null))
}
