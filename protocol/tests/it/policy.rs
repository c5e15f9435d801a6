//! Deny by default: each way in which a grant does not cover a transfer is refused, with its own code.

use crate::sample::{NOW, World, flips};
use minicbor::bytes::ByteVec;
use posthouse_protocol::codec;
use posthouse_protocol::cose::Signer;
use posthouse_protocol::filter::Filter;
use posthouse_protocol::govern::{ColumnMask, Mask};
use posthouse_protocol::id::{GrantId, NodeId, ResourceRef};
use posthouse_protocol::policy::{ActivePolicy, Freshness, Grant, Policy, PolicyError, Refreshed, Staleness};
use posthouse_protocol::problem::Code;
use posthouse_protocol::time::Timestamp;
use proptest::prelude::*;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

fn grant(world: &World) -> Grant {
    Grant {
        id: GrantId::from_random([8; 16]),
        consumer: world.consumer.clone(),
        resource: world.resource(),
        from: NOW.plus_ms(-1000),
        until: NOW.plus_ms(1000),
        columns: Some(vec!["id".to_owned(), "name".to_owned()]),
        filter: Some(Filter::parse("district = '610102'").unwrap()),
        zone: None,
        via: None,
        masks: None,
    }
}

fn policy(world: &World, grants: Vec<ByteVec>) -> Policy {
    Policy {
        ledger: format!("{}/log1", world.coordinator),
        epoch: 1,
        sequence: 5,
        issued: NOW,
        node: world.provider.clone(),
        grants,
        peers: Vec::new(),
        denied: Vec::new(),
        staleness_seconds: 72 * 3600,
        heartbeat_seconds: 30,
        nodes: world.nodes_cose.clone().into(),
        ended: None,
    }
}

fn sign(world: &World, policy: &Policy) -> Vec<u8> {
    policy.sign(&world.coordinator, &world.policy).unwrap()
}

fn active(world: &World, policy: &Policy) -> ActivePolicy {
    let mut active = ActivePolicy::new(world.provider.clone(), world.policy.public_key());
    assert!(active.accept(&sign(world, policy), Duration::ZERO).unwrap());
    active
}

fn ask(active: &ActivePolicy, world: &World) -> Result<GrantId, Code> {
    ask_as(active, &world.consumer, &world.resource(), None, NOW)
}

fn ask_as(
    active: &ActivePolicy,
    consumer: &NodeId,
    resource: &ResourceRef,
    zone: Option<&str>,
    now: Timestamp,
) -> Result<GrantId, Code> {
    active
        .permit(consumer, resource, zone, now, Duration::ZERO)
        .map(|permit| permit.grant().clone())
        .map_err(|problem| problem.code)
}

fn freshness(world: &World, sequence: u64, time: Timestamp) -> Vec<u8> {
    let freshness = Freshness { node: world.provider.clone(), epoch: 1, sequence, time };
    freshness.sign(&world.coordinator, &world.policy).unwrap()
}

#[test]
fn a_permit_carries_what_the_grant_restricts() {
    let world = World::new();
    let grant = grant(&world);
    let active = active(&world, &policy(&world, vec![grant.encode()]));
    let permit = active.permit(&world.consumer, &world.resource(), None, NOW, Duration::ZERO).unwrap();
    assert_eq!(permit.columns(), Some(&["id".to_owned(), "name".to_owned()][..]));
    assert_eq!(permit.filter(), grant.filter.as_ref());
    assert_eq!(permit.filter_sha256(), Some(codec::sha256(&codec::encode(grant.filter.as_ref().unwrap()))));
    assert_eq!((permit.policy_epoch(), permit.policy_sequence()), (1, 5));
}

#[test]
fn a_grant_with_masks_is_one_that_older_versions_deny() {
    let world = World::new();
    let masks = ["phone=keep:3:4", "id=hmac-sm3", "name=null", "note=constant:不提供"];
    let masks: Vec<ColumnMask> = masks.iter().map(|text| text.parse().unwrap()).collect();
    let masked = Grant { masks: Some(masks.clone()), ..grant(&world) };
    let active = active(&world, &policy(&world, vec![masked.encode()]));
    let permit = active.permit(&world.consumer, &world.resource(), None, NOW, Duration::ZERO).unwrap();
    assert_eq!(permit.masks(), masks);
    // To them it has a key that they do not know, as here one that this version does not know.
    let mut later = masked.encode().to_vec();
    later[0] += 1;
    later.extend_from_slice(&[24, 99, 1]);
    assert!(Grant::decode(&later).is_none());
    let long = ColumnMask { column: "note".to_owned(), mask: Mask::Constant("x".repeat(1_000)) };
    let too_long = Grant { masks: Some(vec![long]), ..grant(&world) };
    assert!(Grant::decode(&too_long.encode()).is_none());
}

#[test]
fn everything_that_is_not_granted_is_denied() {
    let world = World::new();
    let one = grant(&world);
    let policy = policy(&world, vec![one.encode()]);
    let active = active(&world, &policy);
    let other: NodeId = "court.xian.example".parse().unwrap();
    let elsewhere: ResourceRef = "court.xian.example/scans".parse().unwrap();
    let unlisted: ResourceRef = format!("{}/permits", world.provider).parse().unwrap();
    let mine = world.resource();
    assert_eq!(ask_as(&active, &world.consumer, &mine, None, NOW), Ok(one.id));
    assert_eq!(ask_as(&active, &other, &mine, None, NOW), Err(Code::NoGrant));
    assert_eq!(ask_as(&active, &world.consumer, &unlisted, None, NOW), Err(Code::NoGrant));
    assert_eq!(ask_as(&active, &world.consumer, &elsewhere, None, NOW), Err(Code::NoGrant));
    assert_eq!(ask_as(&active, &world.provider, &mine, None, NOW), Err(Code::NoGrant));
    assert_eq!(ask_as(&active, &world.consumer, &mine, None, NOW.plus_ms(1000)), Err(Code::GrantExpired));
    assert_eq!(ask_as(&active, &world.consumer, &mine, None, NOW.plus_ms(-1001)), Err(Code::NoGrant));
    let nothing = ActivePolicy::new(world.provider.clone(), world.policy.public_key());
    assert_eq!(ask(&nothing, &world), Err(Code::PolicyStale));
}

#[test]
fn a_line_is_passed_on_only_along_the_way_that_a_grant_prescribes() {
    let world = World::new();
    let name = |text: &str| text.parse::<NodeId>().unwrap();
    let (first, second, stranger) = (name("gate.xian.example"), name("inner.xian.example"), name("court.xian.example"));
    let routed = Grant { via: Some(vec![first.clone(), second.clone()]), ..grant(&world) };
    let direct = Grant {
        id: GrantId::from_random([9; 16]),
        resource: "police.xian.example/open".parse().unwrap(),
        ..grant(&world)
    };
    let at = |node: &NodeId, grants: &[&Grant]| {
        let mut active = ActivePolicy::new(node.clone(), world.policy.public_key());
        let policy =
            Policy { node: node.clone(), ..policy(&world, grants.iter().map(|grant| grant.encode()).collect()) };
        active.accept(&sign(&world, &policy), Duration::ZERO).unwrap();
        active
    };
    let pass = |node: &NodeId, from: &NodeId| {
        let passing = at(node, &[&direct, &routed]).pass(&world.consumer, &world.resource(), from, Duration::ZERO);
        passing.map(|passing| (passing.next().cloned(), passing.from_consumer())).map_err(|problem| problem.code)
    };
    let (consumer, provider) = (&world.consumer, &world.provider);
    assert_eq!(pass(&first, consumer), Ok((Some(second.clone()), true)));
    assert_eq!(pass(&second, &first), Ok((Some(provider.clone()), true)));
    assert_eq!(pass(provider, &second), Ok((None, true)));
    // An invitation goes the other way.
    assert_eq!(pass(&second, provider), Ok((Some(first.clone()), false)));
    assert_eq!(pass(consumer, &first), Ok((None, false)));
    for (node, from) in [
        (&first, &second),
        (&second, consumer),
        (provider, &first),
        (provider, consumer),
        (&first, &stranger),
        (&stranger, consumer),
    ] {
        let expected =
            if (node, from) == (&first, &second) { Ok((Some(consumer.clone()), false)) } else { Err(Code::NoGrant) };
        assert_eq!(pass(node, from), expected, "{from} to {node}");
    }
    // Where the two reach each other, nobody brings a line.
    let open = at(provider, &[&direct]).pass(consumer, &direct.resource, consumer, Duration::ZERO);
    assert_eq!(open.unwrap_err().code, Code::NoGrant);

    let mut active = at(&first, &[&routed]);
    let passing = active.pass(consumer, &world.resource(), consumer, Duration::ZERO).unwrap();
    assert_eq!(passing.route(), [first.clone(), second.clone()]);
    let mut with = |grants: &[&Grant], ended: &[&Grant], denied: Vec<NodeId>, sequence| {
        let encoded = |grants: &[&Grant]| grants.iter().map(|grant| grant.encode()).collect::<Vec<ByteVec>>();
        let ended = Some(encoded(ended)).filter(|ended| !ended.is_empty());
        let policy = Policy { node: first.clone(), sequence, denied, ended, ..policy(&world, encoded(grants)) };
        active.accept(&sign(&world, &policy), Duration::ZERO).unwrap();
        let route = active.route(consumer, &world.resource(), NOW).to_vec();
        (active.still_passes(&passing, Duration::ZERO).map_err(|problem| problem.code), route)
    };
    let both = vec![first.clone(), second.clone()];
    assert_eq!(with(&[&routed], &[], vec![], 6), (Ok(()), both.clone()));
    assert_eq!(with(&[&routed], &[], vec![provider.clone()], 7).0, Err(Code::NodeRevoked));
    let shorter = Grant { via: Some(vec![first.clone()]), ..routed.clone() };
    assert_eq!(with(&[&shorter], &[], vec![], 8), (Err(Code::GrantWithdrawn), vec![first.clone()]));
    // Withdrawn: what was begun is ended on the same way, and another grant's way is taken once there is one.
    assert_eq!(with(&[], &[&routed], vec![], 9), (Ok(()), both));
    let again = Grant { id: GrantId::from_random([7; 16]), via: None, ..routed.clone() };
    assert_eq!(with(&[&again], &[&routed], vec![], 10), (Ok(()), vec![]));
    assert_eq!(with(&[], &[], vec![], 11), (Err(Code::GrantWithdrawn), vec![]));
}

#[test]
fn a_grant_for_a_zone_holds_in_that_zone_only() {
    let world = World::new();
    let zoned = Grant { zone: Some("政务外网".to_owned()), ..grant(&world) };
    let active = active(&world, &policy(&world, vec![zoned.encode()]));
    let ask = |zone| ask_as(&active, &world.consumer, &world.resource(), zone, NOW);
    assert_eq!(ask(Some("政务外网")), Ok(zoned.id));
    assert_eq!(ask(Some("互联网")), Err(Code::NoGrant));
    assert_eq!(ask(None), Err(Code::NoGrant));
}

#[test]
fn a_revoked_node_is_denied_on_either_side() {
    let world = World::new();
    for denied in [world.consumer.clone(), world.provider.clone()] {
        let mut policy = policy(&world, vec![grant(&world).encode()]);
        policy.denied = vec![denied];
        assert_eq!(ask(&active(&world, &policy), &world), Err(Code::NodeRevoked));
    }
}

#[test]
fn an_unknown_restriction_denies_its_grant_and_no_other() {
    let world = World::new();
    let known = grant(&world);
    // The same grant as a later version may write it: one more key.
    let mut bytes = codec::encode(&known);
    assert_eq!(bytes[0] & 0xe0, 0xa0, "a map");
    bytes[0] += 1;
    bytes.extend([0x18, 99, 0xf5]);
    let unknown = ByteVec::from(bytes);
    let only_unknown = active(&world, &policy(&world, vec![unknown.clone()]));
    assert_eq!(ask(&only_unknown, &world), Err(Code::PolicyTooNew));
    assert_eq!(only_unknown.unusable_grants(), 1);
    let other: NodeId = "court.xian.example".parse().unwrap();
    assert_eq!(ask_as(&only_unknown, &other, &world.resource(), None, NOW), Err(Code::NoGrant));
    let both = active(&world, &policy(&world, vec![unknown, known.encode()]));
    assert_eq!(ask(&both, &world), Ok(known.id));
}

#[test]
fn a_grant_that_cannot_be_read_at_all_denies() {
    let world = World::new();
    for garbage in [&b""[..], &[0xa0], &[0xff], &[0x9f; 64], &[0xa1, 0x00]] {
        let active = active(&world, &policy(&world, vec![garbage.to_vec().into()]));
        assert_eq!(ask(&active, &world), Err(Code::PolicyTooNew), "{garbage:?}");
    }
}

#[test]
fn a_policy_for_another_node_or_by_another_key_is_refused() {
    let world = World::new();
    let mut active = ActivePolicy::new(world.provider.clone(), world.policy.public_key());
    let other = Policy { node: world.consumer.clone(), ..policy(&world, Vec::new()) };
    let other = sign(&world, &other);
    assert!(matches!(active.accept(&other, Duration::ZERO), Err(PolicyError::OtherNode(_))));
    let forged = policy(&world, Vec::new()).sign(&world.coordinator, &world.provider_key).unwrap();
    assert!(matches!(active.accept(&forged, Duration::ZERO), Err(PolicyError::Envelope(_))));
    assert_eq!(active.version(), None);
}

#[test]
fn every_flipped_bit_of_a_policy_is_refused() {
    let world = World::new();
    let bytes = sign(&world, &policy(&world, vec![grant(&world).encode()]));
    for flipped in flips(&bytes) {
        let mut active = ActivePolicy::new(world.provider.clone(), world.policy.public_key());
        assert!(active.accept(&flipped, Duration::ZERO).is_err());
    }
}

#[test]
fn a_lower_epoch_or_sequence_is_never_accepted() {
    let world = World::new();
    let at = |epoch, sequence| Policy { epoch, sequence, ..policy(&world, vec![grant(&world).encode()]) };
    let mut active = active(&world, &at(2, 5));
    for (epoch, sequence) in [(2, 4), (1, 9), (0, 0)] {
        let older = sign(&world, &at(epoch, sequence));
        assert!(matches!(active.accept(&older, Duration::ZERO), Err(PolicyError::Older { .. })));
        assert_eq!(active.version(), Some((2, 5)));
    }
    assert_eq!(active.accept(&sign(&world, &at(2, 5)), Duration::ZERO), Ok(false));
    assert_eq!(active.accept(&sign(&world, &at(3, 0)), Duration::ZERO), Ok(true));
    assert_eq!(active.version(), Some((3, 0)));
}

#[test]
fn a_policy_nobody_confirms_becomes_stale_and_fails_closed() {
    let world = World::new();
    let mut active = active(&world, &policy(&world, vec![grant(&world).encode()]));
    let permit = |active: &ActivePolicy, at| {
        active.permit(&world.consumer, &world.resource(), None, NOW, at).map(|_| ()).map_err(|problem| problem.code)
    };
    assert_eq!(active.staleness(36 * HOUR), Staleness::Fresh);
    assert_eq!(active.staleness(37 * HOUR), Staleness::Alarming);
    assert_eq!(permit(&active, 72 * HOUR), Ok(()));
    assert_eq!(permit(&active, 73 * HOUR), Err(Code::PolicyStale));
    let word = freshness(&world, 5, NOW.plus_ms(1000));
    assert_eq!(active.refresh(&word, 73 * HOUR), Ok(Refreshed::Current));
    assert_eq!(permit(&active, 100 * HOUR), Ok(()));
    // An old word played again, and a word that there is a newer policy, make nothing fresh.
    assert!(active.refresh(&freshness(&world, 5, NOW), 140 * HOUR).is_err());
    assert!(active.refresh(&freshness(&world, 4, NOW.plus_ms(9000)), 140 * HOUR).is_err());
    assert_eq!(active.refresh(&freshness(&world, 6, NOW.plus_ms(9000)), 140 * HOUR), Ok(Refreshed::Outdated));
    assert_eq!(permit(&active, 146 * HOUR), Err(Code::PolicyStale));
}

#[test]
fn a_restart_does_not_make_an_old_policy_fresh() {
    let world = World::new();
    let bytes = sign(&world, &policy(&world, vec![grant(&world).encode()]));
    let restored = |now: Timestamp, age: Duration, word: Option<&[u8]>| {
        let mut active = ActivePolicy::new(world.provider.clone(), world.policy.public_key());
        active.restore(&bytes, word, now, age, Duration::ZERO).unwrap();
        active.staleness(Duration::ZERO)
    };
    let four_days = NOW.plus_ms(4 * 86_400_000);
    assert_eq!(restored(NOW, Duration::ZERO, None), Staleness::Fresh);
    assert_eq!(restored(four_days, Duration::ZERO, None), Staleness::Stale);
    let word = freshness(&world, 5, four_days.plus_ms(-1000));
    assert_eq!(restored(four_days, Duration::ZERO, Some(&word)), Staleness::Fresh);
    // A wall clock that was set back does not help, as the age was stored too.
    assert_eq!(restored(NOW.plus_ms(-1_000_000), 80 * HOUR, None), Staleness::Stale);
}

#[test]
fn a_withdrawn_or_changed_grant_ends_the_permit() {
    let world = World::new();
    let one = grant(&world);
    let mut active = active(&world, &policy(&world, vec![one.encode()]));
    let permit = active.permit(&world.consumer, &world.resource(), None, NOW, Duration::ZERO).unwrap();
    let mut sequence = 5;
    let mut after = |grants: Vec<ByteVec>, denied: Vec<NodeId>| {
        sequence += 1;
        let next = Policy { sequence, denied, ..policy(&world, grants) };
        active.accept(&sign(&world, &next), Duration::ZERO).unwrap();
        active.still_permits(&permit, NOW, Duration::ZERO).map_err(|problem| problem.code)
    };
    assert_eq!(after(vec![one.encode()], Vec::new()), Ok(()));
    let longer = Grant { until: NOW.plus_ms(99_000), ..one.clone() };
    assert_eq!(after(vec![longer.encode()], Vec::new()), Ok(()));
    let shorter = Grant { until: NOW, ..one.clone() };
    assert_eq!(after(vec![shorter.encode()], Vec::new()), Err(Code::GrantExpired));
    let narrower = Grant { columns: Some(vec!["id".to_owned()]), ..one.clone() };
    assert_eq!(after(vec![narrower.encode()], Vec::new()), Err(Code::GrantWithdrawn));
    let another = Grant { id: GrantId::from_random([1; 16]), ..one.clone() };
    assert_eq!(after(vec![another.encode()], Vec::new()), Err(Code::GrantWithdrawn));
    assert_eq!(after(vec![one.encode()], vec![world.consumer.clone()]), Err(Code::NodeRevoked));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// The matrix: a permit exists exactly where some grant covers who, what, when and where.
    #[test]
    fn a_permit_exists_exactly_where_a_grant_covers(
        grants in prop::collection::vec((0..3u8, 0..3u8, -3..3i64, 0..4i64, 0..3u8), 0..6),
        (consumer, resource, now, zone) in (0..3u8, 0..3u8, -4..4i64, 0..3u8),
    ) {
        let world = World::new();
        let node = |n: u8| NodeId::parse(&format!("n{n}.example")).unwrap();
        let named = |n: u8| format!("{}/r{n}", world.provider).parse::<ResourceRef>().unwrap();
        let zoned = |n: u8| (n > 0).then(|| format!("z{n}"));
        let all: Vec<Grant> = grants.iter().enumerate().map(|(i, (c, r, from, length, z))| Grant {
            id: GrantId::from_random([i as u8; 16]),
            consumer: node(*c),
            resource: named(*r),
            from: NOW.plus_ms(*from),
            until: NOW.plus_ms(from + length),
            columns: None,
            filter: None,
            zone: zoned(*z),
            via: None,
            masks: None,
        }).collect();
        let active = active(&world, &policy(&world, all.iter().map(Grant::encode).collect()));
        let (zone, at) = (zoned(zone), NOW.plus_ms(now));
        let expected = all.iter().find(|grant| {
            grant.consumer == node(consumer)
                && grant.resource == named(resource)
                && grant.from <= at
                && at < grant.until
                && (grant.zone.is_none() || grant.zone == zone)
        });
        let found = ask_as(&active, &node(consumer), &named(resource), zone.as_deref(), at);
        prop_assert_eq!(found.ok(), expected.map(|grant| grant.id.clone()));
    }
}
