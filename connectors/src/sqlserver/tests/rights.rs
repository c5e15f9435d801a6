//! An account that may read and write rows and nothing else, in tables that the DBA made by the script of
//! `doctor --sql`: several transfers share one staging table.

use super::*;
use crate::Landing;
use crate::contract::fronts::changes;
use crate::examine::Grade;
use posthouse_protocol::operation;
use posthouse_protocol::problem::Code;

const PREMADE: &str = "[dbo].[posthouse_staging_suite]";

/// What the DBA runs. Rights are no matter of the test server's: it is told to let nobody make anything.
fn run_script(bench: &TdsBench, landing: &Landing) {
    let script = SqlServer.script("db", &bench.settings(), &[], std::slice::from_ref(landing)).unwrap().unwrap();
    let made: Vec<&str> = script.lines().filter(|line| line.starts_with("IF OBJECT_ID(")).collect();
    assert_eq!(made.len(), 4, "target, staging and the two beside them: {script}");
    made.into_iter().for_each(|line| drop(bench.server().batch(line).unwrap()));
}

fn premade_rows(bench: &TdsBench) -> u64 {
    bench.count(&format!("SELECT COUNT_BIG(*) FROM {PREMADE} AS s"))
}

#[test]
fn an_account_with_rows_only_lands_in_tables_of_the_script() {
    let bench = TdsBench::with(place::rows_only());
    let contract = small();
    let long = "长".repeat(40_000);
    let long = long.as_str();
    let first = landing(1, Write::Append, &contract);
    let problem = bench.destination(&first).unwrap().prepare().unwrap_err();
    assert!(problem.code == Code::DestinationFailed && problem.cause.contains("doctor --config"), "{problem}");
    let doctor = || {
        let found = SqlServer.examine("db", &bench.settings(), &[], std::slice::from_ref(&first), &|| 0).unwrap();
        let wrong = found.into_iter().filter(|finding| finding.grade == Grade::Wrong && finding.object != "clock");
        wrong.map(|finding| finding.object).collect::<Vec<_>>()
    };
    assert_eq!(doctor().len(), 4, "target, staging and the two beside them");
    run_script(&bench, &first);
    assert_eq!(doctor(), Vec::<String>::new(), "what the script gives is enough");
    for (number, write) in [Write::Append, Write::Upsert, Write::Mirror, Write::Replace].into_iter().enumerate() {
        // One of them comes by parameters, and one has a key that is there already.
        let rows = people(&contract, &[(1, "王", 1), (2, long, 2), (2, "twice", 2)]);
        let landing = landing(number as u8, write, &contract);
        let published = land(&bench, &landing, rows);
        assert_eq!((published.rows, published.quarantined), (2, 1), "{write}");
        let expected = people(&contract, &[(1, "王", 1), (2, long, 2)]);
        let back = standing(&bench, &landing);
        assert_eq!(back.digest(&contract), crate::contract::digest(&contract, &[expected]), "{write}");
        assert_eq!(premade_rows(&bench), 0, "{write}: nothing is left");
    }
}

#[test]
fn keys_of_refused_rows_are_kept_there_and_go_with_the_transfer() {
    let bench = TdsBench::with(place::rows_only());
    let contract = small();
    run_script(&bench, &landing(1, Write::Mirror, &contract));
    let all: Vec<(i64, &str, i64)> = (0..30).map(|id| (id, "王", id)).collect();
    land(&bench, &landing(1, Write::Mirror, &contract), people(&contract, &all));
    // The first is gone, and two have no place for their times.
    let second = landing(2, Write::Mirror, &contract);
    let mut destination = bench.destination(&second).unwrap();
    destination.prepare().unwrap();
    for (root, split) in [(1, &all[1..10]), (2, &all[10..])] {
        let mut builder = BatchBuilder::new(&contract);
        for (id, name, seen) in split {
            let seen = if id % 10 == 5 && *id < 20 { i64::MAX } else { seen * 1_000_000 };
            builder.push(&[Value::Integer(*id), Value::Text(name), Value::Timestamp(seen)]).unwrap();
        }
        let rows = [Ok(builder.finish().unwrap())];
        let staged = destination.stage(&root.to_string(), [root; 32], &mut rows.into_iter()).unwrap();
        assert_eq!((staged.landed, staged.bad.len()), (split.len() as u64 - 1, 1));
    }
    assert_eq!(premade_rows(&bench), 29);
    let published = destination.publish().unwrap();
    assert_eq!((published.rows, published.deleted, bench.target_rows(), premade_rows(&bench)), (27, 1, 29, 0));
    assert_eq!(bench.count(&format!("SELECT COUNT_BIG(*) FROM {TARGET} AS t WHERE t.[id] IN (5, 15)")), 2);
}

#[test]
fn rows_that_say_what_they_do_land_there_too() {
    let bench = TdsBench::with(place::rows_only());
    let contract = small();
    let of = |number: u8| Landing {
        operation: Some(operation::COLUMN.to_owned()),
        ..landing(number, Write::Upsert, &contract)
    };
    run_script(&bench, &landing(1, Write::Upsert, &contract));
    let problem = bench.destination(&of(1)).unwrap().prepare().unwrap_err();
    let (_, create) = problem.cause.split_once("make it by: ").unwrap();
    assert!(create.contains("[posthouse_operation]"), "{problem}");
    drop(bench.server().batch(&format!("DROP TABLE {PREMADE}")).unwrap());
    run_script(&bench, &of(1));
    let first = land(&bench, &of(1), changes(&of(1), &[(1, "王", "I"), (2, "李", "I")]));
    assert_eq!((first.rows, first.inserted, first.deleted), (2, 2, 0));
    let second = land(&bench, &of(2), changes(&of(2), &[(2, "", "D"), (3, "赵", "U"), (9, "", "D")]));
    assert_eq!((second.rows, second.inserted, second.deleted), (3, 1, 1));
    // One whose rows say nothing shares the table.
    land(&bench, &landing(3, Write::Upsert, &contract), people(&contract, &[(4, "钱", 4)]));
    let expected = people(&contract, &[(1, "王", 1), (3, "赵", 3), (4, "钱", 4)]);
    let back = standing(&bench, &of(2));
    assert_eq!(back.digest(&contract), crate::contract::digest(&contract, &[expected]));
    assert_eq!(premade_rows(&bench), 0);
}

#[test]
fn transfers_that_share_a_staging_table_take_nothing_of_each_other() {
    let bench = TdsBench::with(place::rows_only());
    let contract = Contract { key: vec![], ..small() };
    let of = |number| landing(number, Write::Append, &contract);
    run_script(&bench, &of(1));
    let open = |number: u8| {
        let mut destination = bench.destination(&of(number)).unwrap();
        destination.prepare().unwrap();
        let rows: Vec<(i64, &str, i64)> = (0..i64::from(number)).map(|id| (id, "王", 1)).collect();
        destination.stage("a", [number; 32], &mut [Ok(people(&contract, &rows))].into_iter()).unwrap();
        destination
    };
    let (mut one, mut two, mut three) = (open(1), open(2), open(3));
    assert!(!two.hands_over().unwrap(), "whose rows they are is a part of their key");
    assert_eq!(premade_rows(&bench), 6);
    three.discard().unwrap();
    assert_eq!(premade_rows(&bench), 3);
    assert_eq!((two.publish().unwrap().rows, bench.target_rows(), premade_rows(&bench)), (2, 2, 1));
    assert_eq!((one.publish().unwrap().rows, bench.target_rows(), premade_rows(&bench)), (1, 3, 0));
}

#[test]
fn a_staging_table_that_is_not_like_the_target_is_refused_with_the_statement_that_makes_it_so() {
    let bench = TdsBench::with(place::rows_only());
    let contract = small();
    let sa = |sql: &str| drop(bench.server().batch(sql).unwrap());
    sa(&format!(
        "CREATE TABLE {TARGET} ([id] int NOT NULL PRIMARY KEY, [name] nvarchar(20) COLLATE Chinese_PRC_CI_AS NULL, \
         [seen] datetime NULL)"
    ));
    let landing = landing(1, Write::Upsert, &contract);
    run_script(&bench, &landing);
    let problem = bench.destination(&landing).unwrap().prepare().unwrap_err();
    let (_, create) = problem.cause.split_once("make it by: ").unwrap();
    sa(&format!("DROP TABLE {PREMADE}"));
    sa(create);
    assert_eq!(land(&bench, &landing, people(&contract, &[(1, "王", 1), (2, "李", 2)])).rows, 2);
    assert_eq!((bench.target_rows(), premade_rows(&bench)), (2, 0));
}
