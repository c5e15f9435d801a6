//! The HTTP side, asked as a script would ask it.

use super::scene::{CONSUMER, Exchange, PROVIDER, Scene};
use crate::admin::{AccessMade, Request, Role};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn token(scene: &Scene, role: Role) -> String {
    let answer = scene.ask(Request::AccessAdd { name: format!("test {role}"), role }).await.unwrap();
    serde_json::from_value::<AccessMade>(answer.done).unwrap().token
}

async fn raw(scene: &Scene, path: &str, headers: &str) -> (u16, String, Vec<u8>) {
    let mut stream = tokio::net::TcpStream::connect(scene.coordinator.http_address().unwrap()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: centre\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head, bytes[end + 4..].to_vec())
}

async fn get(scene: &Scene, path: &str, token: Option<&str>) -> (u16, Value) {
    let headers = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let (status, _, body) = raw(scene, path, &headers).await;
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

#[tokio::test]
async fn without_a_token_401_with_the_wrong_role_403_each_with_its_code() {
    let scene = Scene::start().await;
    let (viewer, auditor) = (token(&scene, Role::Viewer).await, token(&scene, Role::Auditor).await);
    for path in
        ["/api/v1/status", "/api/v1/nodes", "/api/v1/transfers", "/api/v1/receipts", "/api/v1/ledger", "/metrics"]
    {
        let (status, problem) = get(&scene, path, None).await;
        assert_eq!((status, problem["code"].as_str()), (401, Some("PH3015")), "{path}");
        assert_eq!(get(&scene, path, Some("ph_wrong")).await.0, 401, "{path}");
        assert_eq!(get(&scene, path, Some(&viewer)).await.0, 200, "{path}");
    }
    for path in ["/api/v1/ledger/tile/0/000.p/1", "/api/v1/ledger/entries"] {
        let (status, problem) = get(&scene, path, Some(&viewer)).await;
        assert_eq!((status, problem["code"].as_str()), (403, Some("PH3016")), "{path}");
        assert_eq!(get(&scene, path, Some(&auditor)).await.0, 200, "{path}");
    }
    for path in ["/healthz", "/readyz", "/", "/page.js", "/page.css", "/api/v1/openapi.json"] {
        assert_eq!(get(&scene, path, None).await.0, 200, "{path}");
    }
    scene.ask(Request::AccessRevoke { name: "test viewer".to_owned() }).await.unwrap();
    assert_eq!(get(&scene, "/api/v1/status", Some(&viewer)).await.0, 401);
}

#[tokio::test]
async fn problems_are_rfc_9457_in_the_language_that_is_asked_for() {
    let scene = Scene::start().await;
    let headers = "Accept-Language: zh-CN,zh;q=0.9\r\n";
    let (status, head, body) = raw(&scene, "/api/v1/nodes", headers).await;
    assert_eq!(status, 401);
    assert!(head.contains("content-type: application/problem+json") && head.contains("www-authenticate: bearer"));
    let problem: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(problem["type"], "urn:posthouse:PH3015");
    assert_eq!(problem["title"], "未提供有效的访问令牌");
    let viewer = token(&scene, Role::Viewer).await;
    for (path, expected) in [
        ("/api/v1/transfers?limit=0", 400),
        ("/api/v1/transfers?limit=x", 400),
        ("/api/v1/transfers?cursor=%00", 400),
        ("/api/v1/reconciliations?day=yesterday", 400),
        ("/api/v1/transfers/tr-none", 404),
        ("/api/v1/receipts/rc-none", 404),
        ("/api/v1/nodes/nobody", 404),
        ("/api/v2/nodes", 404),
    ] {
        let (status, problem) = get(&scene, path, Some(&viewer)).await;
        assert_eq!(status, expected, "{path}: {problem}");
        assert!(problem["code"].as_str().is_some_and(|code| code.starts_with("PH")), "{path}: {problem}");
    }
}

#[tokio::test]
async fn wrong_tokens_are_counted_and_then_not_looked_at_for_a_while() {
    let scene = Scene::start().await;
    let viewer = token(&scene, Role::Viewer).await;
    let mut last = 0;
    for _ in 0..25 {
        last = get(&scene, "/api/v1/status", Some("ph_guess")).await.0;
    }
    assert_eq!(last, 429);
    scene.clock.go(61_000);
    assert_eq!(get(&scene, "/api/v1/status", Some(&viewer)).await.0, 200);
}

#[tokio::test]
async fn a_node_that_stops_reporting_is_stale_within_two_heartbeats() {
    let scene = Scene::start().await;
    let viewer = token(&scene, Role::Viewer).await;
    let node = scene.joined(CONSUMER).await;
    node.beat().await.unwrap();
    let state = async || get(&scene, "/api/v1/nodes", Some(&viewer)).await.1["items"][0].clone();
    let up = state().await;
    assert_eq!(up["state"], "up", "{up}");
    for field in ["last_report_at", "version", "certificate_expires_at", "disk_free_bytes", "lag_seconds", "as_of"] {
        assert!(!up[field].is_null(), "{field}: {up}");
    }
    let heartbeat = scene.config.heartbeat.as_ms();
    scene.clock.go(heartbeat);
    assert_eq!(state().await["state"], "up");
    scene.clock.go(heartbeat - 1_000);
    let stale = state().await;
    assert_eq!((stale["state"].as_str(), &stale["last_report_at"]), (Some("stale"), &up["last_report_at"]));
}

#[tokio::test]
async fn lists_page_by_cursor_and_show_each_item_once() {
    let scene = Scene::start().await;
    let (viewer, auditor) = (token(&scene, Role::Viewer).await, token(&scene, Role::Auditor).await);
    let (provider, consumer) = (scene.joined(PROVIDER).await, scene.joined(CONSUMER).await);
    let grant = scene.grant(&format!("{PROVIDER}/person")).await;
    for _ in 0..7 {
        let exchange = Exchange::of(&scene, &provider, &consumer, &grant);
        provider.submit(&[&exchange.handover]).await;
        consumer.submit(&[&exchange.landing]).await;
    }
    for path in ["transfers", "receipts"] {
        let mut seen = Vec::new();
        let mut cursor = String::new();
        loop {
            let (status, page) = get(&scene, &format!("/api/v1/{path}?limit=3{cursor}"), Some(&viewer)).await;
            assert_eq!(status, 200, "{page}");
            seen.extend(page["items"].as_array().unwrap().iter().map(|item| item["transfer"].to_string()));
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(seen.len(), 7, "{path}");
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 7, "{path}");
    }
    let (_, page) = get(&scene, "/api/v1/receipts?limit=1", Some(&viewer)).await;
    let receipt = page["items"][0]["receipt"].as_str().unwrap().to_owned();
    assert_eq!(page["items"][0]["verdict"], "matched");
    let headers = format!("Authorization: Bearer {auditor}\r\n");
    let (status, _, cose) = raw(&scene, &format!("/api/v1/receipts/{receipt}/receipt.cose"), &headers).await;
    assert_eq!(status, 200);
    let whole = posthouse_protocol::receipt::Receipt::decode(&cose).unwrap();
    assert_eq!(whole.id().unwrap().to_string(), receipt);
}

#[tokio::test]
async fn the_page_may_load_its_own_files_only() {
    let scene = Scene::start().await;
    let (status, head, body) = raw(&scene, "/", "").await;
    assert_eq!(status, 200);
    assert!(head.contains("content-security-policy: default-src 'none'") && head.contains("nosniff"), "{head}");
    assert!(String::from_utf8(body).unwrap().contains("驿站"));
}

#[tokio::test]
async fn a_stop_ends_within_ten_seconds_with_connections_open() {
    let scene = Scene::start().await;
    let _node = scene.joined(CONSUMER).await;
    let _idle = tokio::net::TcpStream::connect(scene.coordinator.http_address().unwrap()).await.unwrap();
    let since = tokio::time::Instant::now();
    scene.coordinator.stop().await;
    assert!(since.elapsed() < std::time::Duration::from_secs(10), "{:?}", since.elapsed());
}
