//! Accounts that may only read and write rows: what the DBA has made for them, and what is found out where it does not
//! fit.

use super::*;
use crate::contract::fronts::changes;
use posthouse_protocol::operation;

/// A database in which the account may read, and what it lands comes in by the DBA's script. `tables` stand there.
fn bench_for(tables: &[&str]) -> MyBench {
    let mut bench = MyBench::new();
    bench.user = GUEST.to_owned();
    bench.run(&[&format!("GRANT SELECT ON {}.* TO '{GUEST}'@'%'", bench.database)]);
    bench.run(tables);
    bench
}

/// Runs the script for a landing.
fn make(bench: &MyBench, landing: &Landing) {
    let script = Mysql.script("db", &bench.settings(), &[], std::slice::from_ref(landing)).unwrap().unwrap();
    let statements: Vec<&str> = script.split(";\n").filter(|statement| !statement.trim().is_empty()).collect();
    bench.run(&statements);
}

#[test]
fn a_staging_table_that_is_not_as_the_script_makes_it_is_refused_by_name() {
    let contract = small();
    let first = landing(1, Write::Append, &contract);
    let bench = bench_for(&[]);
    make(&bench, &first);
    let staging = "posthouse_staging_suite";
    for (number, (change, part)) in [
        ("DROP KEY posthouse_key", "no unique index on (id, posthouse_transfer)"),
        ("ADD UNIQUE KEY other (seen)", "a unique index on (seen) too"),
        ("MODIFY seen datetime(3)", "`seen` is datetime(3) there and datetime(6) in the table"),
        ("MODIFY name longtext CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci", "utf8mb4_unicode_ci"),
        ("MODIFY seen datetime(6) NOT NULL", "`seen` takes no NULL"),
        ("ADD COLUMN must int NOT NULL", "`must` takes neither"),
        ("DROP COLUMN posthouse_refused", "no column `posthouse_refused`"),
        ("ENGINE=Aria", "no transactions"),
        ("MODIFY name longtext CHECK (json_valid(name))", "a CHECK of its own"),
    ]
    .into_iter()
    .enumerate()
    {
        bench.run(&[&format!("DROP TABLE {staging}")]);
        make(&bench, &first);
        let landing = landing(10 + number as u8, Write::Append, &contract);
        bench.destination(&landing).unwrap().prepare().unwrap();
        bench.run(&[&format!("ALTER TABLE {staging} {change}")]);
        let problem = bench.destination(&landing).unwrap().prepare().unwrap_err();
        assert_eq!(problem.code, Code::DestinationFailed, "{change}: {problem}");
        assert!(problem.cause.contains(part) && problem.cause.contains("doctor"), "{change}: {problem}");
    }
    // It may also become so while rows are on their way.
    bench.run(&[&format!("DROP TABLE {staging}")]);
    make(&bench, &first);
    let mut destination = bench.destination(&first).unwrap();
    destination.prepare().unwrap();
    destination.stage("a", [1; 32], &mut [Ok(people(&contract, &[(1, "王", 1)]))].into_iter()).unwrap();
    bench.run(&[&format!("ALTER TABLE {TARGET} MODIFY seen datetime")]);
    let problem = destination.publish().unwrap_err();
    assert!(problem.cause.contains("`seen` is datetime(6) there and datetime in the table"), "{problem}");
    assert_eq!(standing(&bench, &first).count(), 0);
}

#[test]
fn rows_that_say_what_they_do_land_there_too() {
    let contract = small();
    let of = |number: u8| Landing {
        operation: Some(operation::COLUMN.to_owned()),
        ..landing(number, Write::Upsert, &contract)
    };
    let bench = bench_for(&[]);
    make(&bench, &landing(1, Write::Upsert, &contract));
    let problem = bench.destination(&of(1)).unwrap().prepare().unwrap_err();
    assert!(problem.cause.contains("doctor --sql"), "it has no place for what they do: {problem}");
    bench.run(&["DROP TABLE posthouse_staging_suite"]);
    make(&bench, &of(1));
    let first = land(&bench, &of(1), changes(&of(1), &[(1, "王", "I"), (2, "李", "I")]));
    assert_eq!((first.rows, first.inserted, first.deleted), (2, 2, 0));
    let second = land(&bench, &of(2), changes(&of(2), &[(2, "", "D"), (3, "赵", "U"), (9, "", "D")]));
    assert_eq!((second.rows, second.inserted, second.deleted), (3, 1, 1));
    // One whose rows say nothing shares the table.
    land(&bench, &landing(3, Write::Upsert, &contract), people(&contract, &[(4, "钱", 4)]));
    let expected = people(&contract, &[(1, "王", 1), (3, "赵", 3), (4, "钱", 4)]);
    assert_eq!(standing(&bench, &of(2)).digest(&contract), digest(&contract, &[expected]));
}

#[test]
fn what_the_table_would_change_and_keys_that_come_twice_are_refused_there_too() {
    let contract = small();
    let first = landing(1, Write::Upsert, &contract);
    let bench = bench_for(&[&format!(
        "CREATE TABLE {TARGET} (id bigint PRIMARY KEY, name varchar(3) CHARACTER SET latin1, seen datetime)"
    )]);
    make(&bench, &first);
    let mut builder = BatchBuilder::new(&contract);
    for (id, name, us) in
        [(1, "é", 0), (2, "王", 0), (3, "abcd", 0), (4, "abc  ", 0), (5, "a", 1), (1, "b", 0), (6, "c", 0)]
    {
        builder.push(&[Value::Integer(id), Value::Text(name), Value::Timestamp(us)]).unwrap();
    }
    let mut destination = bench.destination(&first).unwrap();
    destination.prepare().unwrap();
    let staged = destination.stage("a", [1; 32], &mut [Ok(builder.finish().unwrap())].into_iter()).unwrap();
    let mut refused: Vec<&str> = staged.bad.iter().map(|bad| bad.key.as_str()).collect();
    refused.sort_unstable();
    assert_eq!((staged.landed, refused), (2, vec!["1", "2", "3", "4", "5"]), "{:?}", staged.bad);
    assert_eq!((destination.publish().unwrap().inserted, destination.refused().unwrap()), (2, vec![]));
    assert_eq!(
        standing(&bench, &first).digest(&contract),
        digest(&contract, &[people(&contract, &[(1, "é", 0), (6, "c", 0)])])
    );
    assert_eq!(bench.text("SELECT COUNT(*) FROM posthouse_staging_suite"), "0");
}

#[test]
fn rows_without_a_key_that_come_again_are_known_in_any_character_set() {
    let contract = Contract { key: vec![], ..small() };
    let with_mark = |number| {
        let mut landing = landing(number, Write::Append, &contract);
        landing.watermark_column = Some("seen".to_owned());
        landing
    };
    let bench = bench_for(&[&format!(
        "CREATE TABLE {TARGET} (id bigint, name varchar(20) CHARACTER SET gbk, seen datetime(6)) DEFAULT CHARSET=utf8mb4"
    )]);
    make(&bench, &with_mark(1));
    let rows = [(1, "王", 10), (1, "王", 10), (2, "李", 20), (3, "赵", 30)];
    assert_eq!(land(&bench, &with_mark(1), people(&contract, &rows[..3])).inserted, 3);
    assert_eq!(land(&bench, &with_mark(2), people(&contract, &rows)).inserted, 1);
    assert_eq!(standing(&bench, &with_mark(2)).digest(&contract), digest(&contract, &[people(&contract, &rows)]));
    // Nobody else's rows are in the way, and none is left.
    assert_eq!(bench.text("SELECT COUNT(*) FROM posthouse_staging_suite"), "0");
}

#[test]
fn a_key_as_long_as_the_script_makes_it_lands() {
    let mut contract = small();
    contract.items[1].nullable = false;
    contract.key = vec!["name".to_owned()];
    let first = landing(1, Write::Upsert, &contract);
    let bench = bench_for(&[]);
    make(&bench, &first);
    let length: usize = bench
        .text(&format!(
            "SELECT CHARACTER_MAXIMUM_LENGTH FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = '{}' AND TABLE_NAME = '人口 base'
             AND COLUMN_NAME = 'name'",
            bench.database
        ))
        .parse()
        .unwrap();
    assert!(length >= 700, "{length}");
    let (fits, longer) = ("長".repeat(length), "長".repeat(length + 1));
    let mut destination = bench.destination(&first).unwrap();
    destination.prepare().unwrap();
    let rows = people(&contract, &[(1, &fits, 1), (2, &longer, 2)]);
    let staged = destination.stage("a", [1; 32], &mut [Ok(rows)].into_iter()).unwrap();
    assert_eq!((staged.landed, staged.bad.len()), (1, 1));
    assert_eq!(destination.publish().unwrap().rows, 1);
}

#[test]
fn a_transfer_that_began_in_the_table_made_beforehand_ends_there() {
    let contract = small();
    let first = landing(1, Write::Append, &contract);
    let bench = bench_for(&[]);
    make(&bench, &first);
    let mut destination = bench.destination(&first).unwrap();
    destination.prepare().unwrap();
    destination.stage("a", [1; 32], &mut [Ok(people(&contract, &[(1, "王", 1)]))].into_iter()).unwrap();
    drop(destination);
    // The account comes to more rights in the middle.
    bench.run(&[&format!("GRANT ALL ON {}.* TO '{GUEST}'@'%'", bench.database)]);
    let mut destination = bench.destination(&first).unwrap();
    destination.prepare().unwrap();
    assert_eq!(destination.applied().unwrap().len(), 1);
    destination.stage("b", [2; 32], &mut [Ok(people(&contract, &[(2, "李", 2)]))].into_iter()).unwrap();
    assert_eq!(destination.publish().unwrap().rows, 2);
    assert_eq!(standing(&bench, &first).count(), 2);
    // One that is given up leaves nothing behind in it.
    let second = landing(2, Write::Append, &contract);
    bench.run(&[
        &format!("REVOKE ALL ON {}.* FROM '{GUEST}'@'%'", bench.database),
        &format!("GRANT SELECT ON {}.* TO '{GUEST}'@'%'", bench.database),
    ]);
    let mut destination = bench.destination(&second).unwrap();
    destination.prepare().unwrap();
    destination.stage("a", [1; 32], &mut [Ok(people(&contract, &[(3, "赵", 3)]))].into_iter()).unwrap();
    assert_eq!(bench.text("SELECT COUNT(*) FROM posthouse_staging_suite"), "1");
    destination.discard().unwrap();
    assert_eq!(bench.text("SELECT COUNT(*) FROM posthouse_staging_suite"), "0");
}
