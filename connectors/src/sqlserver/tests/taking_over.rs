//! What a transfer that failed has staged goes on in the one that follows it.

use super::*;
use crate::Landing;
use arrow::record_batch::RecordBatch;
use posthouse_protocol::problem::Code;

fn rows(contract: &Contract, from: i64, to: i64, name: &str) -> RecordBatch {
    people(contract, &(from..=to).map(|id| (id, name, id)).collect::<Vec<_>>())
}

fn stage(destination: &mut dyn Destination, split: &str, root: u8, rows: RecordBatch) -> crate::SplitLanded {
    destination.stage(split, [root; 32], &mut [Ok(rows)].into_iter()).unwrap()
}

fn applied(destination: &mut dyn Destination) -> Vec<(String, u8)> {
    let applied = destination.applied().unwrap().into_iter();
    let mut applied: Vec<(String, u8)> = applied.map(|applied| (applied.split, applied.root[0])).collect();
    applied.sort();
    applied
}

fn leftovers(bench: &TdsBench) -> u64 {
    bench.count("SELECT COUNT_BIG(*) FROM sys.objects AS o WHERE o.name LIKE N'posthouse_staging%'")
}

fn named(splits: &[(&str, u8)]) -> Vec<(String, u8)> {
    splits.iter().map(|(split, root)| ((*split).to_owned(), *root)).collect()
}

#[test]
fn splits_are_taken_over_with_their_rows_and_those_that_are_none_of_it_are_not_published() {
    let contract = small();
    for write in [Write::Append, Write::Upsert, Write::Mirror, Write::Replace] {
        let bench = TdsBench::new();
        let of = |number| landing(number, write, &contract);
        let mut first = bench.destination(&of(1)).unwrap();
        first.prepare().unwrap();
        assert!(first.hands_over().unwrap());
        for (split, root, from) in [("a", 1, 1), ("b", 2, 11), ("c", 3, 21), ("d", 4, 31)] {
            assert_eq!(stage(first.as_mut(), split, root, rows(&contract, from, from + 9, "x")).landed, 10);
        }
        // It fails; the next one finds `b` changed and `d` gone.
        let mut second = bench.destination(&of(2)).unwrap();
        for time in 0..2 {
            let took = second.take_over(&of(1).transfer).unwrap();
            second.prepare().unwrap();
            assert_eq!(took, time == 0);
        }
        let all = named(&[("a", 1), ("b", 2), ("c", 3), ("d", 4)]);
        assert_eq!((applied(second.as_mut()), applied(first.as_mut())), (all, vec![]));
        let late = first.stage("e", [5; 32], &mut [Ok(rows(&contract, 41, 50, "x"))].into_iter()).unwrap_err();
        assert_eq!(late.code, Code::DestinationFailed, "the one that failed stages no more: {late}");
        assert_eq!(stage(second.as_mut(), "b", 7, rows(&contract, 11, 19, "y")).landed, 9);
        assert_eq!(stage(second.as_mut(), "a", 1, rows(&contract, 1, 1, "not read")).landed, 10);
        let others = [("b", 2), ("d", 4), ("never there", 9)].map(|(split, root)| (split.to_owned(), [root; 32]));
        second.give_up(&others).unwrap();
        // It fails too: what is given up stays so.
        let mut third = bench.destination(&of(3)).unwrap();
        assert!(third.take_over(&of(2).transfer).unwrap());
        third.prepare().unwrap();
        assert_eq!(applied(third.as_mut()), named(&[("a", 1), ("b", 7), ("c", 3)]));
        assert_eq!(third.publish().unwrap().rows, 29, "{write}");
        let count =
            |name: &str| bench.count(&format!("SELECT COUNT_BIG(*) FROM {TARGET} AS t WHERE t.[name] = N'{name}'"));
        assert_eq!((bench.target_rows(), count("x"), count("y")), (29, 20, 9), "{write}");
        assert_eq!(leftovers(&bench), 0);
    }
}

#[test]
fn refused_rows_come_along_with_their_split_and_go_with_it() {
    let bench = TdsBench::new();
    let contract = small();
    assert!(bench.make_strict("人口 base", &contract, "name"));
    let of = |number| landing(number, Write::Append, &contract);
    let mut first = bench.destination(&of(1)).unwrap();
    first.prepare().unwrap();
    let some = |from: i64| people(&contract, &[(from, "x", 1), (from + 1, "", 1), (from + 2, "x", 1)]);
    assert_eq!(stage(first.as_mut(), "a", 1, some(1)).bad.len(), 1);
    assert_eq!(stage(first.as_mut(), "b", 2, some(11)).bad.len(), 1);
    let mut second = bench.destination(&of(2)).unwrap();
    assert!(second.take_over(&of(1).transfer).unwrap());
    second.prepare().unwrap();
    let again = stage(second.as_mut(), "a", 1, some(99));
    assert_eq!((again.landed, again.bad[0].key.as_str()), (2, "2"));
    second.give_up(&[("b".to_owned(), [2; 32])]).unwrap();
    assert_eq!(second.publish().unwrap().rows, 2);
    assert_eq!(bench.text(&format!("SELECT t.[id] FROM {TARGET} AS t ORDER BY t.[id]")), "1\n3");
    assert_eq!(bench.count("SELECT COUNT_BIG(*) FROM [dbo].[posthouse_quarantine] AS q"), 1);
}

#[test]
fn keys_that_a_mirror_kept_are_no_rows_of_what_follows() {
    for write in [Write::Upsert, Write::Mirror] {
        let bench = TdsBench::new();
        let contract = small();
        assert!(bench.make_strict("人口 base", &contract, "name"));
        let mut first = bench.destination(&landing(1, Write::Mirror, &contract)).unwrap();
        first.prepare().unwrap();
        let some = || people(&contract, &[(1, "x", 1), (2, "", 1), (3, "x", 1)]);
        assert_eq!(stage(first.as_mut(), "a", 1, some()).bad.len(), 1);
        let mut second = bench.destination(&landing(2, write, &contract)).unwrap();
        // A mirror does not know whether the keys of refused rows were kept for it.
        let took = second.take_over(&landing(1, Write::Mirror, &contract).transfer).unwrap();
        assert_eq!(took, write == Write::Upsert);
        second.prepare().unwrap();
        assert_eq!(stage(second.as_mut(), "a", 1, some()).landed, 2);
        assert_eq!((second.publish().unwrap().rows, bench.target_rows(), leftovers(&bench)), (2, 2, 0), "{write}");
    }
}

#[test]
fn rows_for_another_target_or_of_another_shape_are_dropped() {
    let bench = TdsBench::new();
    let contract = small();
    let fail = |number: u8| {
        let mut first = bench.destination(&landing(number, Write::Append, &contract)).unwrap();
        first.prepare().unwrap();
        stage(first.as_mut(), "a", 1, rows(&contract, 1, 10, "x"));
    };
    fail(1);
    let elsewhere = Landing { table: "elsewhere".to_owned(), ..landing(2, Write::Append, &contract) };
    bench.run(
        "CREATE TABLE [dbo].[elsewhere] ([id] bigint NOT NULL PRIMARY KEY, [name] nvarchar(max) COLLATE \
               Latin1_General_100_BIN2 NULL, [seen] datetime2(6) NULL)",
    );
    let mut second = bench.destination(&elsewhere).unwrap();
    assert!(!second.take_over(&landing(1, Write::Append, &contract).transfer).unwrap());
    assert_eq!(leftovers(&bench), 0);
    second.prepare().unwrap();
    assert_eq!(applied(second.as_mut()), []);
    // The target is another one by now.
    fail(3);
    bench.run(&format!(
        "DROP TABLE {TARGET}; CREATE TABLE {TARGET} ([id] int NOT NULL PRIMARY KEY, [name] nvarchar(9) NULL, [seen] datetime NULL)"
    ));
    let mut fourth = bench.destination(&landing(4, Write::Append, &contract)).unwrap();
    assert!(!fourth.take_over(&landing(3, Write::Append, &contract).transfer).unwrap());
    fourth.prepare().unwrap();
    stage(fourth.as_mut(), "a", 1, rows(&contract, 1, 5, "y"));
    assert_eq!((fourth.publish().unwrap().rows, bench.target_rows()), (5, 5));
    // Of one that was published, and of one that never was, there is nothing.
    let mut fifth = bench.destination(&landing(5, Write::Append, &contract)).unwrap();
    for nothing in [4, 9] {
        assert!(!fifth.take_over(&landing(nothing, Write::Append, &contract).transfer).unwrap());
    }
    assert_eq!(bench.target_rows(), 5);
}

#[test]
fn a_table_of_an_earlier_version_gets_the_columns_that_it_lacks() {
    let bench = TdsBench::new();
    let contract = small();
    land(&bench, &landing(1, Write::Upsert, &contract), people(&contract, &[(1, "王", 1)]));
    for column in ["first_number", "last_number"] {
        bench.run(&format!("ALTER TABLE [dbo].[posthouse_applied] DROP COLUMN [{column}]"));
    }
    let published = land(&bench, &landing(2, Write::Upsert, &contract), people(&contract, &[(2, "李", 2)]));
    assert_eq!((published.inserted, bench.target_rows()), (1, 2));
}
