//! Verdicts: each combination of what the parties said, and when, has exactly one.

use crate::sample::{NOW, World};
use posthouse_protocol::manifest::{Counts, Manifest};
use posthouse_protocol::reconciliation::{
    Arrived, Difference, Evidence, Judgement, Party, Tally, Verdict, differences, judge,
};
use posthouse_protocol::statement::Statement;
use posthouse_protocol::time::Timestamp;

const DAY: i64 = 86_400_000;

fn judged(statements: &[&Statement], proven: bool, now: Timestamp, granted: bool) -> Judgement {
    let arrived: Vec<Arrived<'_>> = statements.iter().map(|statement| Arrived { statement, at: NOW }).collect();
    judge(Evidence { statements: &arrived, proven }, now, DAY, &|_: &Manifest| granted)
}

fn verdict(statements: &[&Statement], now: Timestamp) -> (Option<Verdict>, Option<Party>) {
    let judgement = judged(statements, true, now, true);
    (judgement.verdict(), judgement.finding().map(|finding| finding.party))
}

fn tables(world: &World) -> Manifest {
    Manifest {
        counts: Counts {
            rows_read: 100,
            rows_sent: 90,
            rows_filtered: 8,
            rows_quarantined: 2,
            bytes: 5,
            ..Counts::default()
        },
        files_b3_sha256: None,
        digest_commitment: Some([4; 32].into()),
        ..world.manifest(b"")
    }
}

#[test]
fn two_agreeing_statements_match_in_any_order_and_number() {
    let world = World::new();
    let given = world.hand_over(world.manifest(b""));
    let taken = world.land(world.landing(&given));
    for evidence in [&[&given, &taken][..], &[&taken, &given], &[&taken, &given, &taken, &given]] {
        assert_eq!(judged(evidence, true, NOW, true), Judgement::Verdict(Verdict::Matched, None));
    }
    let pending = judged(&[&given, &taken], false, NOW, true);
    assert_eq!(pending.verdict(), Some(Verdict::Pending), "the centre has not spoken yet");
}

#[test]
fn an_unanswered_handover_is_pending_then_overdue() {
    let world = World::new();
    let given = world.hand_over(world.manifest(b""));
    let (soon, late) = (NOW.plus_ms(DAY), NOW.plus_ms(DAY + 1));
    assert_eq!(verdict(&[&given], soon), (Some(Verdict::Pending), Some(Party::Consumer)));
    assert_eq!(verdict(&[&given], late), (Some(Verdict::Overdue), Some(Party::Consumer)));
}

#[test]
fn a_landing_whose_handover_never_comes_is_one_sided() {
    let world = World::new();
    let given = world.hand_over(world.manifest(b""));
    let taken = world.land(world.landing(&given));
    let (soon, late) = (NOW.plus_ms(DAY), NOW.plus_ms(DAY + 1));
    assert_eq!(verdict(&[&taken], soon), (Some(Verdict::Pending), Some(Party::Provider)));
    assert_eq!(verdict(&[&taken], late), (Some(Verdict::OneSided), Some(Party::Provider)));
    let denied = world.end(true);
    assert_eq!(verdict(&[&taken, &denied], NOW), (Some(Verdict::OneSided), Some(Party::Provider)));
}

#[test]
fn a_transfer_that_both_say_was_refused_is_no_difference() {
    let world = World::new();
    let (one, other) = (world.end(true), world.end(false));
    assert_eq!(judged(&[&one, &other], true, NOW.plus_ms(9 * DAY), true), Judgement::Ended);
    let given = world.hand_over(world.manifest(b""));
    assert_eq!(judged(&[&given, &other, &one], true, NOW.plus_ms(9 * DAY), true), Judgement::Ended);
    assert_eq!(verdict(&[&one], NOW), (Some(Verdict::Pending), Some(Party::Consumer)));
    assert_eq!(verdict(&[&one], NOW.plus_ms(2 * DAY)), (Some(Verdict::OneSided), Some(Party::Consumer)));
    assert_eq!(verdict(&[&given, &other], NOW.plus_ms(2 * DAY)), (Some(Verdict::OneSided), Some(Party::Provider)));
    assert_eq!(judged(&[], true, NOW, true), Judgement::Nothing);
}

#[test]
fn a_handover_without_a_grant_is_ungranted_whatever_else_it_is() {
    let world = World::new();
    let given = world.hand_over(world.manifest(b""));
    let taken = world.land(world.landing(&given));
    for evidence in [&[&given][..], &[&given, &taken]] {
        assert_eq!(judged(evidence, true, NOW, false).verdict(), Some(Verdict::Ungranted));
    }
}

#[test]
fn every_number_that_differs_is_named() {
    let world = World::new();
    let given = world.hand_over(world.manifest(b""));
    let manifest = given.manifest().unwrap();
    let names = |change: &dyn Fn(&mut posthouse_protocol::statement::Landing)| {
        let mut landing = world.landing(&given);
        change(&mut landing);
        let taken = world.land(landing.clone());
        let found = differences(&given, manifest, &landing);
        let whole = judged(&[&given, &taken], true, NOW, true);
        assert_eq!(whole.verdict(), Some(Verdict::Mismatched));
        assert_eq!(whole.finding().unwrap().differences, found);
        found.into_iter().map(|difference| difference.what).collect::<Vec<_>>()
    };
    assert_eq!(names(&|landing| landing.counts.files = 1), ["files"]);
    assert_eq!(names(&|landing| landing.counts.bytes += 1), ["bytes"]);
    assert_eq!(names(&|landing| landing.counts.links += 1), ["links"]);
    assert_eq!(names(&|landing| landing.counts.directories = 0), ["directories"]);
    assert_eq!(names(&|landing| landing.counts.refused = 1), ["refused"]);
    assert_eq!(names(&|landing| landing.counts.rows_landed = 1), ["rows"]);
    assert_eq!(names(&|landing| landing.content_root = [0; 32].into()), ["content root"]);
    assert_eq!(names(&|landing| landing.manifest_sha256 = [0; 32].into()), ["manifest"]);
    assert_eq!(names(&|landing| landing.provider_statement_sha256 = [0; 32].into()), ["provider statement"]);
    assert_eq!(names(&|landing| landing.left_out_sha256 = Some([1; 32].into())), ["left out"]);
}

#[test]
fn quarantined_rows_are_accounted_for_and_missing_ones_are_not() {
    let world = World::new();
    let given = world.hand_over(tables(&world));
    let manifest = given.manifest().unwrap();
    let mut landing = world.landing(&given);
    landing.counts = Counts { rows_landed: 87, rows_quarantined: 3, bytes: 5, ..Counts::default() };
    landing.digest_commitment = Some([9; 32].into());
    assert_eq!(differences(&given, manifest, &landing), []);
    landing.counts.rows_quarantined = 2;
    let found = differences(&given, manifest, &landing);
    let rows = Difference { what: "rows".to_owned(), provider: "90".to_owned(), consumer: "89".to_owned() };
    assert_eq!(found, [rows]);
    landing.counts = Counts { rows_landed: 90, bytes: 5, ..Counts::default() };
    let found: Vec<_> = differences(&given, manifest, &landing).into_iter().map(|d| d.what).collect();
    assert_eq!(found, ["row digest"], "all rows landed, so the digests must agree");
}

#[test]
fn a_provider_whose_own_sum_is_wrong_is_the_one_to_ask() {
    let world = World::new();
    let mut manifest = tables(&world);
    manifest.counts.rows_read = 101;
    let given = world.hand_over(manifest);
    let taken = world.land(world.landing(&given));
    let mut landing = world.landing(&given);
    landing.counts = Counts { rows_landed: 90, bytes: 5, ..Counts::default() };
    let taken_well = world.land(landing);
    assert_eq!(verdict(&[&given, &taken_well], NOW), (Some(Verdict::Mismatched), Some(Party::Provider)));
    assert_eq!(verdict(&[&given, &taken], NOW), (Some(Verdict::Mismatched), Some(Party::Both)));
}

#[test]
fn a_day_without_differences_has_none() {
    let mut tally = Tally::default();
    for verdict in [Verdict::Matched, Verdict::Pending, Verdict::Matched] {
        tally.add(verdict);
    }
    assert!(!tally.has_differences());
    assert_eq!((tally.matched, tally.pending), (2, 1));
    for verdict in [Verdict::Mismatched, Verdict::OneSided, Verdict::Overdue, Verdict::Ungranted] {
        let mut one = tally;
        one.add(verdict);
        assert!(one.has_differences() && verdict.is_difference(), "{verdict}");
    }
}

#[test]
fn verdicts_are_the_same_words_everywhere() {
    for verdict in Verdict::ALL {
        assert_eq!(serde_json::to_string(&verdict).unwrap(), format!("\"{verdict}\""));
        assert_eq!(verdict.to_string().parse(), Ok(verdict));
    }
}
