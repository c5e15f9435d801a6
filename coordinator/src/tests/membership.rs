//! Tokens, joins, renewals, returns, revocation and fencing.

use super::scene::{CONSUMER, DAY_MS, Node, PROVIDER, Scene};
use crate::admin::Request;
use posthouse_protocol::centre::{CentreAnswer, CentreRequest, Join, Renew, Return};
use posthouse_protocol::codec;
use posthouse_protocol::cose::Signer;
use posthouse_protocol::problem::{Code, Problem};
use std::time::Duration;

#[tokio::test]
async fn a_token_lets_one_node_in_and_a_second_use_raises_an_alarm() {
    let scene = Scene::start().await;
    let token = scene.token(CONSUMER, 60_000).await;
    let first = Node::new(&scene, CONSUMER);
    first.join(&scene, &token).await.unwrap();
    let thief = Node::new(&scene, CONSUMER);
    assert_eq!(thief.join(&scene, &token).await.unwrap_err().code, Code::TokenUsed);
    assert_eq!(scene.alarms().await, [("token_reused".to_owned(), CONSUMER.to_owned())]);
}

#[tokio::test]
async fn the_same_request_is_answered_again_when_its_answer_was_lost() {
    let scene = Scene::start().await;
    let token = scene.token(CONSUMER, 60_000).await;
    let mut node = Node::new(&scene, CONSUMER);
    let request = CentreRequest::Join(node.join_request(&token));
    scene.ask_joining(request.clone()).await.unwrap();
    let Ok(CentreAnswer::Joined(joined)) = scene.ask_joining(request).await else { panic!("not joined") };
    node.adopt(&joined);
    node.connect(&scene).await.unwrap();
    node.beat().await.unwrap();
    assert!(scene.alarms().await.is_empty());
}

#[tokio::test]
async fn each_wrong_join_is_refused_with_its_true_reason_and_the_listener_goes_on() {
    let scene = Scene::start().await;
    let token = scene.token(CONSUMER, 60_000).await;
    let node = Node::new(&scene, CONSUMER);
    let good = node.join_request(&token);
    let other = Node::new(&scene, PROVIDER);
    let cases: [(Code, Join); 4] = [
        (Code::TokenInvalid, Join { secret: vec![7; 32].into(), ..good.clone() }),
        (Code::TokenInvalid, other.join_request(&token)),
        (Code::CertificateInvalid, Join { csr: other.key.request(&other.name).unwrap().into(), ..good.clone() }),
        (Code::ClockWrong, Join { now: good.now.plus_ms(DAY_MS), ..good.clone() }),
    ];
    for (code, join) in cases {
        assert_eq!(scene.ask_joining(CentreRequest::Join(join)).await.unwrap_err().code, code);
    }
    let late = scene.token(PROVIDER, 1_000).await;
    scene.clock.go(2_000);
    assert_eq!(other.join(&scene, &late).await.unwrap_err().code, Code::TokenExpired);
    // None of this used the good token up.
    scene.ask_joining(CentreRequest::Join(node.join_request(&token))).await.unwrap();
    let again = scene.ask(Request::Token { node: CONSUMER.parse().unwrap(), ttl_ms: 1_000 }).await;
    assert_eq!(again.unwrap_err().code, Code::AlreadyJoined);
}

#[tokio::test]
async fn before_joining_nothing_else_is_answered() {
    let scene = Scene::start().await;
    for request in [CentreRequest::Policy, CentreRequest::Submit(Vec::new())] {
        assert_eq!(scene.ask_joining(request).await.unwrap_err().code, Code::CertificateInvalid);
    }
}

#[tokio::test]
async fn a_certificate_is_renewed_over_the_live_connection() {
    let scene = Scene::start().await;
    let mut node = scene.joined(CONSUMER).await;
    scene.clock.go(3 * DAY_MS);
    let csr = node.key.request(&node.name).unwrap().into();
    let Ok(CentreAnswer::Renewed(renewed)) = node.ask(CentreRequest::Renew(Renew { csr })).await else {
        panic!("not renewed")
    };
    node.identity = Some(identity(&node, &renewed.chain));
    assert!(node.identity.as_ref().unwrap().not_after() > scene.world.clock.now().plus_ms(6 * DAY_MS));
    node.beat().await.unwrap();
    node.connect(&scene).await.unwrap();
    node.beat().await.unwrap();
}

#[tokio::test]
async fn a_node_that_was_off_comes_back_by_its_key_for_ninety_days() {
    let scene = Scene::start().await;
    let mut node = scene.joined(CONSUMER).await;
    scene.clock.go(30 * DAY_MS);
    let scene = scene.crash_and_start().await;
    assert!(node.connect(&scene).await.is_err(), "its certificate has expired");

    let stranger = Node::new(&scene, CONSUMER);
    let refused = come_back(&scene, &node, &stranger).await.unwrap_err();
    assert_eq!(refused.code, Code::CertificateInvalid);
    let chain = come_back(&scene, &node, &node).await.unwrap();
    node.identity = Some(identity(&node, &chain));
    node.connect(&scene).await.unwrap();
    node.beat().await.unwrap();

    scene.clock.go(98 * DAY_MS);
    assert_eq!(come_back(&scene, &node, &node).await.unwrap_err().code, Code::CertificateExpired);
}

#[tokio::test]
async fn a_revoked_node_is_cut_off_and_can_neither_connect_nor_come_back() {
    let scene = Scene::start().await;
    let mut node = scene.joined(CONSUMER).await;
    node.beat().await.unwrap();
    scene.ask(Request::NodeRevoke { node: node.name.clone() }).await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), node.connection().closed()).await.unwrap();
    let reconnected = node.connect(&scene).await.is_ok();
    assert!(!reconnected || node.beat().await.is_err());
    assert_eq!(come_back(&scene, &node, &node).await.unwrap_err().code, Code::NodeRevoked);

    // Another machine may take the name; what the first one holds stays worthless.
    let epoch = node.epoch;
    let token = scene.token(CONSUMER, 60_000).await;
    let mut second = Node::new(&scene, CONSUMER);
    let joined = second.join(&scene, &token).await.unwrap();
    assert_eq!(joined.epoch, epoch);
    second.adopt(&joined);
    second.connect(&scene).await.unwrap();
    second.beat().await.unwrap();
    let reconnected = node.connect(&scene).await.is_ok();
    assert!(!reconnected || node.beat().await.is_err());
}

#[tokio::test]
async fn a_restored_copy_with_a_lower_epoch_is_fenced() {
    let scene = Scene::start().await;
    let mut node = scene.joined(CONSUMER).await;
    node.epoch = 5;
    node.beat().await.unwrap();
    node.epoch = 4;
    assert_eq!(node.beat().await.unwrap_err().code, Code::Fenced);
    assert_eq!(node.ask(CentreRequest::Policy).await.unwrap_err().code, Code::Fenced);
    assert!(scene.alarms().await.contains(&("fenced".to_owned(), CONSUMER.to_owned())));
    node.epoch = 6;
    node.beat().await.unwrap();
    let scene = scene.crash_and_start().await;
    node.connect(&scene).await.unwrap();
    node.epoch = 5;
    assert_eq!(node.beat().await.unwrap_err().code, Code::Fenced, "epochs outlive the coordinator");
}

fn identity(node: &Node, chain: &[minicbor::bytes::ByteVec]) -> std::sync::Arc<posthouse_platform::identity::Identity> {
    let chain: Vec<Vec<u8>> = chain.iter().map(|der| der.to_vec()).collect();
    let authority = chain.last().unwrap().clone();
    std::sync::Arc::new(posthouse_platform::identity::Identity::new(chain, node.key.clone(), authority).unwrap())
}

/// Returns as `node`, proving with the key of `prover`.
async fn come_back(scene: &Scene, node: &Node, prover: &Node) -> Result<Vec<minicbor::bytes::ByteVec>, Problem> {
    let mut talk = scene.talk_joining().await?;
    let csr = node.key.request(&node.name).unwrap();
    let now = scene.world.clock.now();
    let mut back = Return { node: node.name.clone(), csr: csr.clone().into(), proof: None, now };
    let CentreAnswer::Challenge(challenge) = talk.ask(CentreRequest::Return(back.clone())).await? else {
        panic!("no challenge")
    };
    let message = [b"posthouse return".as_slice(), challenge.as_slice(), &codec::sha256(&csr)].concat();
    back.proof = Some(prover.signer.sign(&message).unwrap().into());
    match talk.ask(CentreRequest::Return(back)).await? {
        CentreAnswer::Renewed(renewed) => Ok(renewed.chain),
        other => panic!("not renewed: {other:?}"),
    }
}
