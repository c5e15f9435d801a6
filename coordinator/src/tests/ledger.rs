//! Statements are taken exactly once, proven, and balanced.

use super::scene::{CONSUMER, DAY_MS, Exchange, Node, PROVIDER, Scene, chain, ending, landing, manifest};
use crate::admin::{DayBalance, Deep, GrantRow, Request};
use posthouse_protocol::centre::{CentreAnswer, CentreRequest, Proof};
use posthouse_protocol::govern::{Governed, Quality};
use posthouse_protocol::id::GrantId;
use posthouse_protocol::job::State;
use posthouse_protocol::ledger::{Checkpoint, Inclusion, LedgerKey, leaf_hash, verify_consistency, verify_inclusion};
use posthouse_protocol::limits;
use posthouse_protocol::manifest::Manifest;
use posthouse_protocol::problem::Code;
use posthouse_protocol::reconciliation::{Party, Verdict};
use posthouse_protocol::statement::{Body, Passage, Statement};

struct Pair {
    scene: Scene,
    provider: Node,
    consumer: Node,
    grant: GrantId,
}

async fn pair() -> Pair {
    let scene = Scene::start().await;
    let (provider, consumer) = (scene.joined(PROVIDER).await, scene.joined(CONSUMER).await);
    let grant = scene.grant(&format!("{PROVIDER}/person")).await;
    Pair { scene, provider, consumer, grant }
}

impl Pair {
    fn exchange(&self) -> Exchange {
        Exchange::of(&self.scene, &self.provider, &self.consumer, &self.grant)
    }
    async fn size(&self) -> u64 {
        self.scene.centre().store.ledger_size().await.unwrap()
    }
    async fn day(&self) -> DayBalance {
        self.scene.centre().balance_of(None, false).await.unwrap()
    }
    fn check(&self, statement: &Statement, proof: &Proof) {
        let key = LedgerKey::parse(&self.scene.centre().keys.ledger_vkey).unwrap();
        assert_eq!((proof.refused.as_ref(), *proof.statement), (None, *statement.sha256()));
        let head = Checkpoint::open(&proof.checkpoint, &key).unwrap();
        let subject = statement.body().subject();
        let inclusion = Inclusion::open(&proof.inclusion, statement.bytes(), &subject, &key).unwrap();
        assert_eq!((inclusion.index, inclusion.size, inclusion.root), (proof.index, head.size, head.root));
    }
}

#[tokio::test]
async fn both_statements_make_a_matched_receipt_that_others_can_verify() {
    let pair = pair().await;
    let exchange = pair.exchange();
    let first = pair.provider.submit(&[&exchange.handover]).await;
    pair.check(&exchange.handover, &first[0]);
    assert_eq!(pair.day().await.counts.pending, 1);
    let second = pair.consumer.submit(&[&exchange.landing]).await;
    pair.check(&exchange.landing, &second[0]);
    let day = pair.day().await;
    assert_eq!((day.counts.matched, day.counts.pending, day.findings.len()), (1, 0, 0));
}

#[tokio::test]
async fn a_repeated_statement_gets_the_same_leaf_and_the_same_proof() {
    let pair = pair().await;
    let exchange = pair.exchange();
    let first = pair.provider.submit(&[&exchange.handover, &exchange.handover]).await;
    assert_eq!(first[0], first[1]);
    let size = pair.size().await;
    let more = pair.exchange();
    pair.provider.submit(&[&more.handover]).await;
    let again = pair.provider.submit(&[&exchange.handover]).await;
    assert_eq!(again[0], first[0]);
    assert_eq!(pair.size().await, size + 1);
    let asked = CentreRequest::Proofs(vec![(*exchange.handover.sha256()).into(), [9; 32].into()]);
    let Ok(CentreAnswer::Proofs(proofs)) = pair.provider.ask(asked).await else { panic!("no proofs") };
    assert_eq!(proofs, first[..1], "what has not come is left out");
}

#[tokio::test]
async fn statements_that_come_at_the_same_time_are_each_taken_once() {
    let pair = pair().await;
    let before = pair.size().await;
    let exchanges: Vec<Exchange> = (0..4).map(|_| pair.exchange()).collect();
    let each = exchanges.iter().flat_map(|exchange| [&exchange.handover, &exchange.landing]);
    let asked = (0..3).flat_map(|_| each.clone()).map(async |statement| {
        let node = if *statement.issuer() == pair.provider.name { &pair.provider } else { &pair.consumer };
        node.submit(&[statement]).await
    });
    let answers = join_all(asked.collect()).await;
    assert!(answers.iter().flatten().all(|proof| proof.refused.is_none()));
    assert_eq!(pair.size().await, before + 8);
    assert_eq!(pair.day().await.counts.matched, 4);
}

#[tokio::test]
async fn a_crash_between_append_and_answer_loses_and_doubles_nothing() {
    let pair = pair().await;
    let exchange = pair.exchange();
    // Appended, and the answer never arrives: the process is gone.
    let taken = pair.scene.centre().ledger.submit(&[exchange.handover.bytes().to_vec()]).await.unwrap();
    let size = pair.size().await;
    let Pair { scene, mut provider, consumer, grant } = pair;
    let scene = scene.crash_and_start().await;
    provider.connect(&scene).await.unwrap();
    let pair = Pair { scene, provider, consumer, grant };
    let again = pair.provider.submit(&[&exchange.handover]).await;
    assert_eq!(again[0], taken.proofs[0]);
    assert_eq!(pair.size().await, size);
}

#[tokio::test]
async fn what_is_not_a_registered_partys_word_is_refused_and_the_rest_is_taken() {
    let pair = pair().await;
    let exchange = pair.exchange();
    let stranger = Node::new(&pair.scene, "stranger.test.example");
    let foreign = Exchange::of(&pair.scene, &stranger, &pair.consumer, &pair.grant).handover;
    let thief = Node::new(&pair.scene, PROVIDER);
    let forged = Exchange::of(&pair.scene, &thief, &pair.consumer, &pair.grant).handover;
    let act = pair.provider.sign(Body::Act("grant.add".to_owned(), "me".to_owned(), String::new()));
    let before = pair.size().await;
    let mut flipped = exchange.landing.bytes().to_vec();
    flipped[100] ^= 1;
    let statements = [foreign.bytes(), exchange.handover.bytes(), forged.bytes(), act.bytes(), &flipped, b"garbage"];
    let question = CentreRequest::Submit(statements.iter().map(|bytes| bytes.to_vec().into()).collect());
    let Ok(CentreAnswer::Proofs(proofs)) = pair.provider.ask(question).await else { panic!("no proofs") };
    let refused: Vec<bool> = proofs.iter().map(|proof| proof.refused.is_some()).collect();
    assert_eq!(refused, [true, false, true, true, true, true]);
    assert!(proofs.iter().filter_map(|p| p.refused.as_ref()).all(|(code, _)| *code == Code::StatementRefused.number()));
    assert_eq!(pair.size().await, before + 1);
}

#[tokio::test]
async fn the_day_names_what_differs_what_is_overdue_and_what_no_grant_covers() {
    let pair = pair().await;
    let mismatch = pair.exchange();
    let mut wrong = landing(&mismatch.manifest, &mismatch.handover);
    wrong.counts.rows_landed = 9;
    let wrong = pair.consumer.sign(Body::Consumer(chain(), wrong));
    let silent = pair.exchange();
    let nowhere = GrantId::from_random([1; 16]);
    let ungranted = Exchange::of(&pair.scene, &pair.provider, &pair.consumer, &nowhere);
    pair.provider.submit(&[&mismatch.handover, &silent.handover, &ungranted.handover]).await;
    pair.consumer.submit(&[&wrong, &ungranted.landing]).await;
    // A refused transfer that both sides call refused is nothing to explain.
    let refused = manifest(&pair.scene, &pair.provider, &pair.consumer, &pair.grant);
    let end = |node: &Node| node.sign(Body::Refusal(chain(), ending(&refused, Code::GrantWithdrawn)));
    pair.provider.submit(&[&end(&pair.provider)]).await;
    pair.consumer.submit(&[&end(&pair.consumer)]).await;

    let counts = pair.day().await.counts;
    assert_eq!((counts.mismatched, counts.pending, counts.ungranted, counts.matched), (1, 1, 1, 0));
    let day = pair.scene.world.clock.now();
    pair.scene.clock.go(DAY_MS + 60_000);
    let name = day.to_jiff().to_zoned(pair.scene.centre().zone.clone()).date().to_string();
    let balance = pair.scene.centre().balance_of(Some(&name), true).await.unwrap();
    assert_eq!((balance.counts.overdue, balance.counts.pending), (1, 0));
    let verdicts: Vec<Verdict> = balance.findings.iter().map(|finding| finding.verdict).collect();
    assert_eq!(verdicts.len(), 3, "{verdicts:?}");
    let rows = balance.findings.iter().find(|finding| finding.verdict == Verdict::Mismatched).unwrap();
    assert!(rows.differences.iter().any(|d| (d.provider.as_str(), d.consumer.as_str()) == ("10", "9")), "{rows:?}");
    // Stated once: asking again changes nothing.
    let size = pair.size().await;
    pair.scene.ask(Request::Reconcile { day: Some(name) }).await.unwrap();
    assert_eq!(pair.size().await, size);
    let alarms = pair.scene.alarms().await;
    for kind in ["contradiction", "ungranted"] {
        assert!(alarms.iter().any(|(raised, _)| raised == kind), "{kind}: {alarms:?}");
    }
}

#[tokio::test]
async fn a_statement_that_names_other_parties_is_told_by_name_and_makes_no_verdict() {
    let pair = pair().await;
    let exchange = pair.exchange();
    pair.provider.submit(&[&exchange.handover]).await;
    let thief = pair.scene.joined("transport.test.example").await;
    // It has heard of the id: it says that it hands this over, that it failed, and that it took it.
    let mut claimed = manifest(&pair.scene, &thief, &pair.consumer, &pair.grant);
    claimed.transfer = exchange.manifest.transfer.clone();
    let mut taken = landing(&exchange.manifest, &exchange.handover);
    taken.consumer = thief.name.clone();
    let failed = thief.sign(Body::Failure(chain(), ending(&claimed, Code::Cancelled)));
    let handed = thief.sign(Body::Provider(chain(), Box::new(claimed)));
    let taken = thief.sign(Body::Consumer(chain(), taken));
    let proofs = thief.submit(&[&handed, &failed, &taken]).await;
    assert!(proofs.iter().all(|proof| proof.refused.is_none()), "said is said, and kept");
    let counts = pair.day().await.counts;
    assert_eq!((counts.pending, counts.mismatched, counts.ungranted, counts.one_sided), (1, 2, 0, 0));

    pair.consumer.submit(&[&exchange.landing]).await;
    let day = pair.day().await;
    assert_eq!((day.counts.matched, day.counts.mismatched, day.counts.pending), (1, 2, 0));
    let row = pair.scene.centre().store.transfer(&exchange.manifest.transfer).await.unwrap().unwrap();
    assert_eq!((row.state, row.verdict, row.findings.len()), (State::Settled, Some(Verdict::Matched), 0));
    assert_eq!(row.strays, day.findings);
    let told: Vec<_> = day.findings.iter().map(|f| (f.party, f.provider.as_str(), f.consumer.as_str())).collect();
    assert_eq!(
        told,
        [(Party::Provider, thief.name.as_str(), CONSUMER), (Party::Consumer, PROVIDER, thief.name.as_str())]
    );
    let first = &day.findings[0].differences;
    assert_eq!(
        (first[0].what.as_str(), first[0].provider.as_str(), first[0].consumer.as_str()),
        ("provider", thief.name.as_str(), PROVIDER)
    );
    let subject = exchange.manifest.transfer.to_string();
    assert!(pair.scene.alarms().await.contains(&("contradiction".to_owned(), subject)));
}

#[tokio::test]
async fn what_relays_have_passed_on_is_shown_where_they_stand_on_the_way() {
    let pair = pair().await;
    let (gate, stranger) =
        (pair.scene.joined("gate.test.example").await, pair.scene.joined("transport.test.example").await);
    let mut routed = manifest(&pair.scene, &pair.provider, &pair.consumer, &pair.grant);
    routed.route = vec![gate.name.clone()];
    let now = pair.scene.world.clock.now();
    let passage = |node: &Node| Passage {
        transfer: routed.transfer.clone(),
        job: routed.job.clone(),
        resource: routed.resource.clone(),
        consumer: routed.consumer.clone(),
        relay: node.name.clone(),
        grant: routed.grant.clone(),
        to_consumer: 2_000,
        to_provider: 100,
        began: now,
        ended: now,
    };
    // It may come before any word of the parties, and from whoever likes to be one.
    for node in [&gate, &stranger] {
        let proofs = node.submit(&[&node.sign(Body::Passage(chain(), passage(node)))]).await;
        assert!(proofs[0].refused.is_none());
    }
    let row = || async { pair.scene.centre().store.transfer(&routed.transfer).await.unwrap() };
    assert!(row().await.is_none(), "a relay names no parties");
    pair.provider.submit(&[&pair.provider.sign(Body::Provider(chain(), Box::new(routed.clone())))]).await;
    let row = row().await.unwrap();
    let shown: Vec<_> = row.passages.iter().map(|shown| (shown.relay.as_str(), shown.to_consumer)).collect();
    assert_eq!((shown, row.route), (vec![("gate.test.example", 2_000)], routed.route.clone()));
    assert!(row.ungranted.is_some_and(|cause| cause.contains("way")), "its grant has no relay");
}

#[tokio::test]
async fn what_a_grant_masks_has_to_be_said_to_be_masked() {
    let scene = Scene::start().await;
    let (provider, consumer) = (scene.joined(PROVIDER).await, scene.joined(CONSUMER).await);
    let request = match scene.grant_request(&format!("{PROVIDER}/person")) {
        Request::GrantAdd { consumer, resource, until, columns, filter, zone, via, .. } => {
            let masks = Some(vec!["phone=keep:3:4".to_owned(), "id=hmac-sm3".to_owned()]);
            Request::GrantAdd { consumer, resource, until, columns, filter, zone, via, masks }
        }
        other => panic!("{other:?}"),
    };
    let row = scene.ask(request).await.unwrap().done;
    let grant = serde_json::from_value::<GrantRow>(row).unwrap().id;
    let said = |column: &str, what: &str| Governed { column: Some(column.to_owned()), what: what.to_owned() };
    let hashed = said("id", "hmac-sm3 key 0011223344556677");
    for (governed, why) in [
        (None, Some("id")),
        (Some(vec![hashed.clone()]), Some("phone")),
        (Some(vec![hashed.clone(), said("phone", "keep 3+5")]), Some("phone")),
        (Some(vec![hashed, said("phone", "keep 3+4")]), None),
    ] {
        let quality = Quality { rows: 10, qualified: 9, failed: Vec::new() };
        let handed = Manifest { governed, quality: Some(quality), ..manifest(&scene, &provider, &consumer, &grant) };
        provider.submit(&[&provider.sign(Body::Provider(chain(), Box::new(handed.clone())))]).await;
        let row = scene.centre().store.transfer(&handed.transfer).await.unwrap().unwrap();
        assert_eq!(row.ungranted.is_some(), why.is_some(), "{:?}", row.ungranted);
        assert!(why.is_none_or(|why| row.ungranted.is_some_and(|cause| cause.ends_with(why))));
        assert_eq!((row.rows_checked, row.rows_qualified), (Some(10), Some(9)));
    }
}

#[tokio::test]
async fn a_statement_dated_ahead_waits_until_its_time_has_come() {
    let pair = pair().await;
    let exchange = pair.exchange();
    let ahead = pair.scene.world.clock.now().plus_ms(limits::CLOCK_SKEW_MS + 60_000);
    let body = Body::Provider(chain(), Box::new(exchange.manifest.clone()));
    let early = Statement::sign(body, &pair.provider.name, ahead, &pair.provider.signer).unwrap();
    let submit = CentreRequest::Submit(vec![early.bytes().to_vec().into()]);
    let before = pair.size().await;
    // Not refused, which would be for ever.
    assert_eq!(pair.provider.ask(submit).await.unwrap_err().code, Code::ClockWrong);
    assert_eq!(pair.size().await, before);
    pair.scene.clock.go(90_000);
    let proofs = pair.provider.submit(&[&early]).await;
    pair.check(&early, &proofs[0]);
    assert_eq!(pair.size().await, before + 1);
}

#[tokio::test]
async fn statistics_count_what_settled_by_department_and_resource() {
    let pair = pair().await;
    let exchange = pair.exchange();
    pair.provider.submit(&[&exchange.handover]).await;
    pair.consumer.submit(&[&exchange.landing]).await;
    let day = pair.scene.centre().statistics(None).await.unwrap();
    assert_eq!((day.total.transfers, day.total.settled, day.total.rows, day.total.bytes), (1, 1, 10, 1_000));
    assert_eq!((day.total.success, day.total.quality, day.total.timeliness), (Some(1.0), Some(1.0), Some(1.0)));
    let departments: Vec<&str> = day.departments.iter().map(|named| named.name.as_str()).collect();
    assert_eq!(departments, ["西安市住建局", "西安市公安局"]);
    assert_eq!(day.resources[0].name, format!("{PROVIDER}/person"));
    let month = pair.scene.centre().statistics(day.period.get(..7)).await.unwrap();
    assert_eq!(month.total, day.total);
}

#[tokio::test]
async fn a_deep_reconciliation_is_asked_of_the_jobs_node() {
    let pair = pair().await;
    let mut told = pair.consumer.listen(CentreAnswer::Findings("[]".to_owned()));
    let request = Request::ReconcileDeep { node: pair.consumer.name.clone(), job: "person".parse().unwrap() };
    let answer = pair.scene.ask(request).await.unwrap();
    let deep: Deep = serde_json::from_value(answer.done).unwrap();
    assert!(deep.matched && deep.findings.is_empty());
    while let Ok(notice) = told.try_recv() {
        assert!(matches!(notice, CentreRequest::PolicyChanged | CentreRequest::Reconcile(_)));
    }
}

#[tokio::test]
async fn tiles_and_consistency_proofs_lead_to_the_signed_head() {
    let pair = pair().await;
    let exchanges: Vec<Exchange> = (0..10).map(|_| pair.exchange()).collect();
    let old = pair.size().await;
    let (_, before) = pair.scene.centre().ledger.checkpoint().await.unwrap();
    for exchange in &exchanges {
        pair.provider.submit(&[&exchange.handover]).await;
    }
    let key = LedgerKey::parse(&pair.scene.centre().keys.ledger_vkey).unwrap();
    let (size, after) = pair.scene.centre().ledger.checkpoint().await.unwrap();
    let (before, after) = (Checkpoint::open(&before, &key).unwrap(), Checkpoint::open(&after, &key).unwrap());
    let proof = pair.scene.centre().ledger.consistency(old, size).await.unwrap();
    verify_consistency(size, &after.root, old, &before.root, &proof).unwrap();
    let leaves = pair.scene.centre().store.leaves(0, 1_000).await.unwrap();
    let tile = pair.scene.centre().ledger.tile(0, 0, size).await.unwrap();
    assert_eq!(leaves.len() as u64, size);
    for (leaf, hash) in leaves.iter().zip(&tile) {
        assert_eq!(leaf_hash(&leaf.bytes), *hash);
    }
    let last = pair.scene.centre().ledger.proof(leaves.last().unwrap()).await.unwrap();
    let last = Inclusion::open(&last.inclusion, &leaves.last().unwrap().bytes, &subject(leaves.last().unwrap()), &key);
    let last = last.unwrap();
    verify_inclusion(size, &after.root, last.index, &tile[tile.len() - 1], &last.path).unwrap();
}

fn subject(leaf: &crate::store::StoredLeaf) -> String {
    leaf.transfer.as_ref().unwrap().to_string()
}

/// All of them, driven at once.
async fn join_all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.into_iter().map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        let mut open = false;
        for (future, output) in &mut futures {
            if output.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(ready) => *output = Some(ready),
                    std::task::Poll::Pending => open = true,
                }
            }
        }
        if open { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
    futures.into_iter().filter_map(|(_, output)| output).collect()
}
