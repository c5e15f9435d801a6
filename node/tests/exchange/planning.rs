//! A dry run asks both sides and changes neither.

use super::*;
use posthouse_node::admin::Request;
use posthouse_node::store::transfers::{self, Filter};
use posthouse_platform::admin_socket;
use posthouse_protocol::problem::Problem;

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_tells_what_both_sides_would_do_and_changes_nothing() {
    let scene = Scene::new("quic", &["residents"]);
    table(&scene.path("source/residents.db"), 10);
    let provider = scene.provider(&offer_table(&scene)).await;
    let consumer = scene.consumer(&take_table(&scene, "incremental", "upsert")).await;
    let lines = dry_run(&consumer).await.unwrap();
    for part in
        ["about 10 rows", "by the watermark changed up to 9", "column id: integer, never NULL, key", "CREATE TABLE"]
    {
        assert!(lines.iter().any(|line| line.contains(part)), "{part}: {lines:#?}");
    }
    assert!(!scene.path("target/residents.db").exists());
    for node in [&provider, &consumer] {
        assert_eq!(node.context().store.read(|db| transfers::list(db, &Filter::default())).await.unwrap(), []);
    }
    table(&scene.path("target/residents.db"), 0);
    let target = rusqlite::Connection::open(scene.path("target/residents.db")).unwrap();
    target.execute_batch("ALTER TABLE residents DROP COLUMN name").unwrap();
    assert_eq!(dry_run(&consumer).await.unwrap_err().code, Code::SchemaDrift);
    scene.withdraw(&provider);
    assert_eq!(dry_run(&consumer).await.unwrap_err().code, Code::NoGrant);
}

async fn dry_run(node: &Node) -> Result<Vec<String>, Problem> {
    let request = Request::JobRun { job: "residents".parse().unwrap(), wait: false, dry_run: true };
    let answers = admin_socket::call(&node.context().config().admin_socket(), "node", &request).await?;
    let mut lines = Vec::new();
    answers.finish::<serde_json::Value>(|line| lines.push(line.as_str().unwrap().to_owned())).await?;
    Ok(lines)
}
