//! Grants reach the nodes they concern, signed, at once; and what may not be granted is not.

use super::scene::{CONSUMER, DAY_MS, Node, PROVIDER, Scene};
use crate::admin::{GrantRow, Request};
use posthouse_protocol::catalog::{CatalogRef, Sharing};
use posthouse_protocol::centre::{CentreAnswer, CentreRequest};
use posthouse_protocol::id::{NodeId, ResourceRef};
use posthouse_protocol::policy::{Freshness, Grant, Policy};
use posthouse_protocol::problem::{Code, Lang};
use posthouse_protocol::time::Timestamp;
use posthouse_protocol::trust::TrustStore;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;

#[tokio::test]
async fn a_grant_given_and_withdrawn_reaches_both_nodes_within_five_seconds() {
    let scene = Scene::start().await;
    let (provider, consumer) = (scene.joined(PROVIDER).await, scene.joined(CONSUMER).await);
    let mut told = [provider.listen(CentreAnswer::Done), consumer.listen(CentreAnswer::Done)];
    provider.beat().await.unwrap();
    consumer.beat().await.unwrap();
    settle(&mut told).await;

    let since = Instant::now();
    let grant = scene.grant(&format!("{PROVIDER}/person")).await;
    for told in &mut told {
        assert_eq!(next(told).await, CentreRequest::PolicyChanged);
    }
    assert!(since.elapsed() < Duration::from_secs(5));
    let policy = policy(&provider).await;
    let granted = Grant::decode(&policy.grants[0]).unwrap();
    assert_eq!((granted.id, granted.consumer.as_str()), (grant.clone(), CONSUMER));
    let peer = &policy.peers[0];
    assert_eq!(peer.node.as_str(), CONSUMER);
    let trust = TrustStore::open(&policy.nodes, &provider.policy_key).unwrap();
    assert_eq!(trust.nodes().nodes.len(), 2);

    settle(&mut told).await;
    let since = Instant::now();
    scene.ask(Request::GrantRevoke { grant: grant.clone() }).await.unwrap();
    for told in &mut told {
        assert_eq!(next(told).await, CentreRequest::PolicyChanged);
    }
    assert!(since.elapsed() < Duration::from_secs(5));
    let after = self::policy(&provider).await;
    assert!(after.grants.is_empty() && after.version() > policy.version());
    // Receipts of the time of the grant still verify.
    let trust = TrustStore::open(&after.nodes, &provider.policy_key).unwrap();
    assert_eq!(trust.nodes().nodes.len(), 2);
    let again = scene.ask(Request::GrantRevoke { grant }).await;
    assert_eq!(again.unwrap_err().code, Code::UnknownName);
}

#[tokio::test]
async fn the_relays_of_a_grant_hold_it_too_and_for_a_while_after_it_was_withdrawn() {
    let scene = Scene::start().await;
    let relays = ["gate.test.example", "inner.test.example"].map(|name| name.parse::<NodeId>().unwrap());
    let (_provider, _consumer) = (scene.joined(PROVIDER).await, scene.joined(CONSUMER).await);
    let request = |via: &[&NodeId]| match scene.grant_request(&format!("{PROVIDER}/person")) {
        Request::GrantAdd { consumer, resource, until, columns, filter, zone, .. } => {
            let via = Some(via.iter().map(|name| (*name).clone()).collect());
            Request::GrantAdd { consumer, resource, until, columns, filter, zone, via, masks: None }
        }
        other => panic!("{other:?}"),
    };
    let unknown = scene.ask(request(&[&relays[0]])).await.unwrap_err();
    assert_eq!(unknown.code, Code::UnknownName);
    let gate = scene.joined(relays[0].as_str()).await;
    let inner = scene.joined(relays[1].as_str()).await;
    let (consumer, provider) = (CONSUMER.parse().unwrap(), PROVIDER.parse().unwrap());
    for wrong in [vec![&consumer], vec![&relays[0], &provider], vec![&relays[0], &relays[0]], vec![&relays[0]; 5]] {
        assert_eq!(scene.ask(request(&wrong)).await.unwrap_err().code, Code::UsageInvalid, "{wrong:?}");
    }
    let mut told = [gate.listen(CentreAnswer::Done), inner.listen(CentreAnswer::Done)];
    gate.beat().await.unwrap();
    inner.beat().await.unwrap();
    settle(&mut told).await;
    let row = scene.ask(request(&[&relays[0], &relays[1]])).await.unwrap();
    let grant = serde_json::from_value::<GrantRow>(row.done).unwrap();
    assert_eq!(grant.via.as_deref(), Some(&relays[..]));
    for (told, node) in told.iter_mut().zip([&gate, &inner]) {
        assert_eq!(next(told).await, CentreRequest::PolicyChanged);
        let policy = policy(node).await;
        assert_eq!(Grant::decode(&policy.grants[0]).unwrap().route(), relays);
        let peers: Vec<&str> = policy.peers.iter().map(|peer| peer.node.as_str()).collect();
        let other = relays.iter().find(|relay| **relay != node.name).unwrap();
        for name in [CONSUMER, PROVIDER, other.as_str()] {
            assert!(peers.contains(&name), "{name} is no peer of {}: {peers:?}", node.name);
        }
        assert!(policy.ended.is_none());
    }
    settle(&mut told).await;
    scene.ask(Request::GrantRevoke { grant: grant.id }).await.unwrap();
    for (told, node) in told.iter_mut().zip([&gate, &inner]) {
        assert_eq!(next(told).await, CentreRequest::PolicyChanged);
        let policy = policy(node).await;
        assert!(policy.grants.is_empty());
        assert_eq!(Grant::decode(&policy.ended.unwrap()[0]).unwrap().route(), relays);
    }
}

#[tokio::test]
async fn a_heartbeat_answers_which_policy_is_the_latest() {
    let scene = Scene::start().await;
    let (provider, _consumer) = (scene.joined(PROVIDER).await, scene.joined(CONSUMER).await);
    scene.grant(&format!("{PROVIDER}/person")).await;
    let Ok(CentreAnswer::Heartbeat(answer)) = provider.beat().await else { panic!("no answer") };
    let freshness = Freshness::open(&answer.freshness, &provider.name, &provider.policy_key).unwrap();
    let policy = policy(&provider).await;
    assert_eq!((freshness.epoch, freshness.sequence), policy.version());
    assert!(!answer.fenced);
}

#[tokio::test]
async fn a_revoked_node_stands_on_the_deny_list_of_all() {
    let scene = Scene::start().await;
    let (provider, consumer) = (scene.joined(PROVIDER).await, scene.joined(CONSUMER).await);
    let bystander = scene.joined("audit.test.example").await;
    let mut told = [bystander.listen(CentreAnswer::Done)];
    scene.grant(&format!("{PROVIDER}/person")).await;
    settle(&mut told).await;
    scene.ask(Request::NodeRevoke { node: consumer.name.clone() }).await.unwrap();
    assert_eq!(next(&mut told[0]).await, CentreRequest::PolicyChanged);
    for node in [&provider, &bystander] {
        assert_eq!(policy(node).await.denied, std::slice::from_ref(&consumer.name));
    }
    let after = policy(&provider).await;
    assert!(after.peers.iter().all(|peer| peer.node != consumer.name));
    // Its receipts still verify; what it signs from now on does not.
    let trust = TrustStore::open(&after.nodes, &provider.policy_key).unwrap();
    let revoked = trust.nodes().nodes.iter().find(|node| node.node == consumer.name).unwrap();
    assert!(revoked.keys.iter().all(|known| known.until.is_some()));
}

#[tokio::test]
async fn a_changed_address_reaches_the_peers_policies() {
    let scene = Scene::start().await;
    let (mut provider, consumer) = (scene.joined(PROVIDER).await, scene.joined(CONSUMER).await);
    scene.grant(&format!("{PROVIDER}/person")).await;
    let before = policy(&consumer).await;
    provider.profile.advertise = vec![(None, "10.9.8.7:7843".to_owned())];
    provider.beat().await.unwrap();
    let after = policy(&consumer).await;
    assert_eq!(after.peers[0].addresses, provider.profile.advertise);
    assert!(after.version() > before.version());
}

#[tokio::test]
async fn what_may_not_be_granted_is_refused() {
    let scene = Scene::start().await;
    let (mut provider, _consumer) = (scene.joined(PROVIDER).await, scene.joined(CONSUMER).await);
    provider.profile.resources = vec![(
        "secret".parse().unwrap(),
        Some(CatalogRef {
            code: "A1".to_owned(),
            title: "内部资料".to_owned(),
            sharing: Sharing::None,
            level: 4,
            update: "daily".to_owned(),
            basis: Some("保密法第九条".to_owned()),
            version: None,
        }),
    )];
    provider.beat().await.unwrap();
    let request = |resource: &str| scene.grant_request(resource);
    let secret = scene.ask(request(&format!("{PROVIDER}/secret"))).await.unwrap_err();
    assert_eq!(secret.code, Code::SharingNone);
    assert!(secret.cause.contains("保密法"));
    assert_eq!(scene.ask(request("nobody.example/x")).await.unwrap_err().code, Code::UnknownName);
    assert_eq!(scene.ask(request(&format!("{CONSUMER}/x"))).await.unwrap_err().code, Code::UsageInvalid);
    let Request::GrantAdd { consumer, resource, until, .. } = request(&format!("{PROVIDER}/person")) else { panic!() };
    for (filter, columns, until) in [
        (Some("district ="), None, until),
        (Some("1; DROP TABLE person"), None, until),
        (None, Some(Vec::new()), until),
        (None, None, scene.world.clock.now().plus_ms(-1)),
    ] {
        let (consumer, resource) = (consumer.clone(), resource.clone());
        let filter = filter.map(str::to_owned);
        let refused = scene.ask(granting(consumer, resource, until, columns, filter, None)).await;
        assert_eq!(refused.unwrap_err().code, Code::UsageInvalid);
    }
    for (columns, masks) in [
        (None, vec!["phone"]),
        (None, vec!["phone=md5"]),
        (None, vec!["phone=null", "phone=sm3"]),
        (Some(vec!["id".to_owned()]), vec!["phone=null"]),
    ] {
        let (consumer, resource) = (consumer.clone(), resource.clone());
        let masks = masks.into_iter().map(str::to_owned).collect();
        let refused = scene.ask(granting(consumer, resource, until, columns, None, Some(masks))).await;
        assert_eq!(refused.unwrap_err().code, Code::UsageInvalid);
    }
}

fn granting(
    consumer: NodeId,
    resource: ResourceRef,
    until: Timestamp,
    columns: Option<Vec<String>>,
    filter: Option<String>,
    masks: Option<Vec<String>>,
) -> Request {
    Request::GrantAdd { consumer, resource, until, columns, filter, zone: None, via: None, masks }
}

#[tokio::test]
async fn a_grant_tells_the_provider_which_columns_it_masks() {
    let scene = Scene::start().await;
    let (provider, _consumer) = (scene.joined(PROVIDER).await, scene.joined(CONSUMER).await);
    let Request::GrantAdd { consumer, resource, until, .. } = scene.grant_request(&format!("{PROVIDER}/person")) else {
        panic!()
    };
    let masks = ["phone=keep:3:4", "id=hmac-sm3"].map(str::to_owned).to_vec();
    let request = granting(consumer, resource, until, None, None, Some(masks));
    let row = scene.ask(request.clone()).await.unwrap().done;
    let shown = serde_json::from_value::<GrantRow>(row).unwrap();
    assert_eq!(shown.masks, Some(["id=hmac-sm3", "phone=keep:3:4"].map(str::to_owned).to_vec()));
    let granted = Grant::decode(&policy(&provider).await.grants[0]).unwrap();
    let told: Vec<String> = granted.masks.iter().flatten().map(ToString::to_string).collect();
    assert_eq!(Some(told), shown.masks);
    // Given again it is the same grant, without masks it is another.
    let again = serde_json::from_value::<GrantRow>(scene.ask(request).await.unwrap().done).unwrap();
    assert_eq!(again.id, shown.id);
    let bare = scene.ask(scene.grant_request(&format!("{PROVIDER}/person"))).await.unwrap_err();
    assert_eq!(bare.code, Code::GrantTaken);
}

#[tokio::test]
async fn a_grant_given_again_moves_its_end_and_another_for_the_same_pair_is_refused() {
    let scene = Scene::start().await;
    let (provider, _consumer) = (scene.joined(PROVIDER).await, scene.joined(CONSUMER).await);
    let resource = format!("{PROVIDER}/person");
    let id = scene.grant(&resource).await;
    let before = policy(&provider).await;
    let until = Grant::decode(&before.grants[0]).unwrap().until;
    let add = async |until, columns: Option<&str>| {
        let Request::GrantAdd { consumer, resource, .. } = scene.grant_request(&resource) else { panic!() };
        let columns = columns.map(|column| vec![column.to_owned()]);
        let request =
            Request::GrantAdd { consumer, resource, until, columns, filter: None, zone: None, via: None, masks: None };
        scene.ask(request).await.map(|answer| serde_json::from_value::<GrantRow>(answer.done).unwrap())
    };
    // Before it ends, so that what runs under it goes on.
    let later = until.plus_ms(DAY_MS);
    let renewed = add(later, None).await.unwrap();
    assert_eq!((&renewed.id, renewed.until, renewed.until_before), (&id, later, Some(until)));
    let after = policy(&provider).await;
    let granted = Grant::decode(&after.grants[0]).unwrap();
    assert_eq!((after.grants.len(), granted.id, granted.until), (1, id.clone(), later));
    assert!(after.version() > before.version());
    // The same once more changes nothing, and nobody is told of it.
    assert_eq!(add(later, None).await.unwrap().until_before, Some(later));
    assert_eq!(policy(&provider).await.version(), after.version());

    let refused = add(later, Some("name")).await.unwrap_err();
    assert_eq!(refused.code, Code::GrantTaken);
    assert!(refused.hint(Lang::En).contains(&format!("grant revoke {id}")), "{}", refused.hint(Lang::En));
    assert_eq!(policy(&provider).await.grants, after.grants);
    scene.ask(Request::GrantRevoke { grant: id.clone() }).await.unwrap();
    let other = add(later, Some("name")).await.unwrap();
    assert_eq!((other.id != id, other.until_before), (true, None));
    // One that has ended is in nobody's way.
    scene.clock.go(3 * DAY_MS);
    assert_eq!(add(later.plus_ms(3 * DAY_MS), None).await.unwrap().until_before, None);
}

#[tokio::test]
async fn the_centre_passes_on_a_wish_to_be_dialled_only_between_nodes_with_a_grant() {
    let scene = Scene::start().await;
    let (provider, mut consumer) = (scene.joined(PROVIDER).await, scene.joined(CONSUMER).await);
    consumer.profile.advertise = vec![(None, "10.1.1.1:7843".to_owned())];
    consumer.beat().await.unwrap();
    let wish = CentreRequest::AskDial(provider.name.clone());
    assert_eq!(consumer.ask(wish.clone()).await.unwrap_err().code, Code::NoGrant);
    scene.grant(&format!("{PROVIDER}/person")).await;
    let mut told = provider.listen(CentreAnswer::Done);
    assert_eq!(consumer.ask(wish).await.unwrap(), CentreAnswer::Done);
    loop {
        if let CentreRequest::Dial(dial) = next(&mut told).await {
            assert_eq!((dial.peer.as_str(), dial.addresses), (CONSUMER, vec!["10.1.1.1:7843".to_owned()]));
            break;
        }
    }
    let absent: NodeId = "absent.test.example".parse().unwrap();
    assert_eq!(consumer.ask(CentreRequest::AskDial(absent)).await.unwrap_err().code, Code::NoGrant);
}

async fn policy(node: &Node) -> Policy {
    let Ok(CentreAnswer::Policy(bytes)) = node.ask(CentreRequest::Policy).await else { panic!("no policy") };
    Policy::open(&bytes, &node.name, &node.policy_key).unwrap()
}

async fn next(told: &mut UnboundedReceiver<CentreRequest>) -> CentreRequest {
    tokio::time::timeout(Duration::from_secs(5), told.recv()).await.expect("within five seconds").unwrap()
}

/// Lets notices that are still on their way arrive, and forgets them.
async fn settle(told: &mut [UnboundedReceiver<CentreRequest>]) {
    tokio::time::sleep(Duration::from_millis(300)).await;
    for told in told {
        while told.try_recv().is_ok() {}
    }
}
