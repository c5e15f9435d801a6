//! What a transfer that failed has staged goes on in the one that follows it.

use super::*;

const COLUMNS: [(&str, &str); 2] = [("id", "int8"), ("text", "text")];

fn follows(number: u8, write: Write) -> Landing {
    Landing { table: "t".to_owned(), ..native(number, write, &COLUMNS, &["id"]) }
}

fn rows(from: u64, to: u64, text: &str) -> String {
    format!("SELECT i::int8 AS id, '{text}' || i AS text FROM generate_series({from}, {to}) i")
}

fn stage(bench: &PgBench, destination: &mut dyn Destination, split: &str, root: u8, rows: &str) -> u64 {
    destination.stage_raw(split, [root; 32], &mut Raw::of(bench, rows, 4_099)).unwrap().landed
}

fn applied(destination: &mut dyn Destination) -> Vec<(String, u8)> {
    destination.applied().unwrap().into_iter().map(|applied| (applied.split, applied.root[0])).collect()
}

#[test]
fn splits_are_taken_over_with_their_rows_and_those_that_are_none_of_it_are_not_published() {
    for (write, stands) in
        [(Write::Replace, false), (Write::Replace, true), (Write::Append, true), (Write::Mirror, true)]
    {
        let bench = PgBench::new();
        if stands {
            bench.run("CREATE TABLE t (id int8 PRIMARY KEY, text text); INSERT INTO t VALUES (1, 'old1')");
        }
        let mut first = bench.destination(&follows(1, write)).unwrap();
        first.prepare().unwrap();
        assert!(first.hands_over().unwrap());
        for (split, root, from) in [("a", 1, 1), ("b", 2, 101), ("c", 3, 201), ("d", 4, 301)] {
            assert_eq!(stage(&bench, first.as_mut(), split, root, &rows(from, from + 99, "x")), 100);
        }
        // It fails; the next one finds `b` changed and `d` gone.
        let landing = follows(2, write);
        let mut second = bench.destination(&landing).unwrap();
        for time in 0..2 {
            let took = second.take_over(&follows(1, write).transfer).unwrap();
            second.prepare().unwrap();
            assert_eq!(took, time == 0);
        }
        let all = [("a".to_owned(), 1), ("b".to_owned(), 2), ("c".to_owned(), 3), ("d".to_owned(), 4)];
        assert_eq!((applied(second.as_mut()), applied(first.as_mut())), (all.to_vec(), vec![]));
        let late = first.stage_raw("e", [5; 32], &mut Raw::of(&bench, &rows(401, 500, "x"), 99)).unwrap_err();
        assert_eq!(late.code, Code::DestinationFailed, "the one that failed stages no more: {late}");
        assert_eq!(stage(&bench, second.as_mut(), "b", 7, &rows(101, 199, "y")), 99);
        assert_eq!(stage(&bench, second.as_mut(), "a", 1, &rows(1, 1, "not read")), 100);
        let others = [("b", 2), ("d", 4), ("never there", 9)].map(|(split, root)| (split.to_owned(), [root; 32]));
        second.give_up(&others).unwrap();
        // It fails too: what is given up stays so.
        let mut third = bench.destination(&follows(3, write)).unwrap();
        third.take_over(&landing.transfer).unwrap();
        third.prepare().unwrap();
        let left = [("a".to_owned(), 1), ("b".to_owned(), 7), ("c".to_owned(), 3)];
        assert_eq!(applied(third.as_mut()), left);
        let published = third.publish().unwrap();
        // Where it is only added to, the row that stands with another text is refused.
        assert_eq!(published.rows, if write == Write::Append { 298 } else { 299 }, "{write}");
        let expected =
            format!("{} UNION ALL {} UNION ALL {}", rows(1, 100, "x"), rows(101, 199, "y"), rows(201, 300, "x"));
        let expected = match write {
            Write::Append => format!("SELECT id, CASE WHEN id = 1 THEN 'old1' ELSE text END FROM ({expected}) x"),
            _ => expected,
        };
        let differs = format!("SELECT count(*) FROM (({expected}) EXCEPT ALL SELECT id, text FROM t) x");
        assert_eq!((bench.text(&differs), bench.text("SELECT count(*) FROM t")), ("0".to_owned(), "299".to_owned()));
        assert_eq!(bench.leftovers(), "");
        assert_eq!(bench.text("SELECT count(*) FROM posthouse_applied"), "1");
    }
}

#[test]
fn rows_that_cannot_be_told_apart_are_not_taken_over() {
    let bench = PgBench::new();
    bench
        .run("CREATE TABLE t (id int8 PRIMARY KEY, text text, per int8 GENERATED ALWAYS AS (1000 / (id - 13)) STORED)");
    let mut first = bench.destination(&follows(1, Write::Replace)).unwrap();
    first.prepare().unwrap();
    stage(&bench, first.as_mut(), "a", 1, &rows(1, 10, "x"));
    let refused = first.stage_raw("b", [2; 32], &mut Raw::of(&bench, &rows(11, 15, "x"), 50)).unwrap();
    assert_eq!((refused.landed, refused.bad.len()), (4, 1));
    let mut second = bench.destination(&follows(2, Write::Replace)).unwrap();
    second.take_over(&follows(1, Write::Replace).transfer).unwrap();
    assert_eq!(bench.leftovers(), "", "it begins anew");
    second.prepare().unwrap();
    assert_eq!(applied(second.as_mut()), []);
    assert_eq!(bench.text("SELECT count(*) FROM posthouse_quarantine"), "0");
    stage(&bench, second.as_mut(), "a", 1, &rows(1, 10, "x"));
    assert_eq!(second.publish().unwrap().rows, 10);
}

#[test]
fn rows_for_another_target_are_not_taken_over() {
    let bench = PgBench::new();
    let mut first = bench.destination(&follows(1, Write::Replace)).unwrap();
    first.prepare().unwrap();
    stage(&bench, first.as_mut(), "a", 1, &rows(1, 10, "x"));
    let elsewhere = Landing { table: "elsewhere".to_owned(), ..follows(2, Write::Replace) };
    let mut second = bench.destination(&elsewhere).unwrap();
    assert!(!second.take_over(&follows(1, Write::Replace).transfer).unwrap());
    assert_eq!(bench.leftovers(), "", "they are dropped");
    second.prepare().unwrap();
    assert_eq!(applied(second.as_mut()), []);
}

#[test]
fn rows_under_other_names_than_now_are_not_taken_over_and_can_be_dropped() {
    let bench = PgBench::new();
    let renamed = |number| {
        let mut landing = follows(number, Write::Replace);
        landing.contract.items.iter_mut().for_each(|item| item.name = item.name.to_ascii_uppercase());
        landing.contract.key = vec!["ID".to_owned()];
        landing
    };
    for number in [1, 3] {
        let mut first = bench.destination(&follows(number, Write::Replace)).unwrap();
        first.prepare().unwrap();
        stage(&bench, first.as_mut(), "a", 1, &rows(1, 10, "x"));
    }
    let mut second = bench.destination(&renamed(2)).unwrap();
    assert!(!second.take_over(&follows(1, Write::Replace).transfer).unwrap());
    // The one that failed is given up under the names of now.
    bench.destination(&renamed(3)).unwrap().discard().unwrap();
    assert_eq!(bench.leftovers(), "");
    second.prepare().unwrap();
    assert_eq!(
        (applied(second.as_mut()), bench.text("SELECT count(*) FROM posthouse_applied")),
        (vec![], "0".to_owned())
    );
    let named = "SELECT i::int8 AS \"ID\", 'y' AS \"TEXT\" FROM generate_series(1, 10) i";
    stage(&bench, second.as_mut(), "a", 1, named);
    assert_eq!(second.publish().unwrap().rows, 10);
}

#[test]
fn a_record_that_an_earlier_version_made_is_given_what_it_lacks() {
    let bench = PgBench::new();
    let land = |number| {
        let mut destination = bench.destination(&follows(number, Write::Replace)).unwrap();
        destination.prepare().unwrap();
        stage(&bench, destination.as_mut(), "a", 1, &rows(1, 10, "x"));
        destination.publish().unwrap();
    };
    land(1);
    bench.run("ALTER TABLE posthouse_applied DROP COLUMN xid");
    land(2);
    assert_eq!(bench.text("SELECT count(*) FROM posthouse_applied"), "2");
}

#[test]
fn there_is_nothing_to_take_over_of_what_is_published_or_never_was() {
    let bench = PgBench::new();
    let mut second = bench.destination(&follows(2, Write::Replace)).unwrap();
    second.take_over(&follows(1, Write::Replace).transfer).unwrap();
    second.prepare().unwrap();
    stage(&bench, second.as_mut(), "a", 1, &rows(1, 10, "x"));
    second.publish().unwrap();
    let mut third = bench.destination(&follows(3, Write::Replace)).unwrap();
    third.take_over(&follows(2, Write::Replace).transfer).unwrap();
    third.prepare().unwrap();
    assert_eq!((applied(third.as_mut()), bench.text("SELECT count(*) FROM t")), (vec![], "10".to_owned()));
    // Where rows come as batches nothing is told apart.
    let mut batches = bench.destination(&Landing { native: None, ..follows(4, Write::Append) }).unwrap();
    batches.prepare().unwrap();
    assert!(!batches.hands_over().unwrap());
}
