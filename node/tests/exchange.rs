//! Whole transfers between two nodes in one process, over real lines, disks and signatures.

mod support;

use posthouse_protocol::job::State;
use posthouse_protocol::problem::Code;
use posthouse_protocol::statement::{Body, Outcome};
use std::os::unix::fs::PermissionsExt;
use support::*;

fn offer_folder(scene: &Scene) -> String {
    format!("[[resource]]\nid = \"scans\"\nfolder = \"{}\"\nlinks = \"keep\"\n", scene.path("source").display())
}

fn take_folder(scene: &Scene, more: &str) -> String {
    format!(
        "[[job]]\nname = \"scans\"\nresource = \"{PROVIDER}/scans\"\ninto = {{ folder = \"{}\" }}\nschedule = \"manual\"\n{more}",
        scene.path("target").display()
    )
}

fn fill(scene: &Scene) {
    let source = scene.path("source");
    for folder in ["a", "a/b", "空目录"] {
        std::fs::create_dir(source.join(folder)).unwrap();
    }
    std::fs::write(source.join("empty"), b"").unwrap();
    std::fs::write(source.join("a/small.txt"), "人口".repeat(100)).unwrap();
    std::fs::write(source.join("a/b/large"), noise(1, 9_500_000)).unwrap();
    std::fs::write(source.join("text.csv"), "姓名,编号\n".repeat(300_000)).unwrap();
    std::os::unix::fs::symlink("../../etc/passwd", source.join("a/link")).unwrap();
    std::fs::set_permissions(source.join("a/small.txt"), std::fs::Permissions::from_mode(0o600)).unwrap();
    for number in 0..300 {
        std::fs::write(source.join(format!("a/b/{number}.bin")), noise(number, 3_000)).unwrap();
    }
}

async fn a_folder_arrives_with_one_receipt(transport: &'static str) {
    let scene = Scene::new(transport, &["scans"]);
    fill(&scene);
    let provider = scene.provider(&offer_folder(&scene)).await;
    let consumer = scene.consumer(&take_folder(&scene, "")).await;
    let row = run(&consumer, "scans").await;
    assert_eq!(row.state, State::Settled, "{row:?}");
    assert_eq!(tree(&scene.path("target")), tree(&scene.path("source")));
    assert_eq!(row.counts.files, 304);
    assert_eq!(row.counts.links, 1);
    assert!(row.receipt.is_some());
    let (ours, theirs) = (evidence(&consumer, &row.id).await, evidence(&provider, &row.id).await);
    assert_eq!((ours.len(), theirs.len()), (2, 2), "both hold both statements");
    let landing = ours.iter().find_map(|s| s.landing()).unwrap();
    let manifest = ours.iter().find_map(|s| s.manifest()).unwrap();
    assert_eq!(landing.outcome, Outcome::Landed);
    assert_eq!(landing.content_root, manifest.content_root);
    assert!(ours.iter().all(|s| theirs.iter().any(|t| t.bytes() == s.bytes())));

    // Nothing has changed: nothing is sent, and there is a receipt all the same.
    let again = run(&consumer, "scans").await;
    assert_eq!(again.state, State::Settled, "{again:?}");
    assert_eq!((again.bytes_sent, again.chunks, again.files_sent), (0, 0, 0));
    assert_eq!(again.counts.files, 304);

    // A repeated id gives the stored outcome.
    let repeated = finish(&consumer, row.id.clone()).await.unwrap();
    assert_eq!(repeated, row);
    assert_eq!(evidence(&consumer, &row.id).await, ours);
    provider.stop().await;
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_arrives_with_one_receipt_over_quic() {
    a_folder_arrives_with_one_receipt("quic").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_arrives_with_one_receipt_over_tcp() {
    a_folder_arrives_with_one_receipt("tcp").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the minimal authority here names no peers without a grant; tests/it has this scene with the coordinator"]
async fn without_a_grant_both_sides_state_a_refusal() {
    let scene = Scene::new("quic", &["other"]);
    let provider = scene.provider(&offer_folder(&scene)).await;
    let consumer = scene.consumer(&take_folder(&scene, "")).await;
    let row = run(&consumer, "scans").await;
    assert_eq!(row.state, State::Refused, "{row:?}");
    assert_eq!(row.problem.as_ref().unwrap().code, Code::NoGrant);
    for node in [&provider, &consumer] {
        let held = evidence(node, &row.id).await;
        assert_eq!(held.len(), 2, "{held:?}");
        assert!(held.iter().all(|s| matches!(s.body(), Body::Refusal(_, ending) if ending.code == 3001)));
    }
}
