//! Rows that a table refuses, accounts that may do little, sessions that are killed, and others who change the table.

use super::*;

#[test]
fn what_constraints_and_triggers_refuse_is_found_and_the_rest_passes() {
    for write in [Write::Append, Write::Upsert, Write::Mirror, Write::Replace] {
        let bench = MyBench::new();
        let contract = small();
        bench.run(&[
            &format!(
                "CREATE TABLE {TARGET} (id bigint PRIMARY KEY, name varchar(50) NOT NULL UNIQUE, seen datetime(6),
                 CONSTRAINT even CHECK (id <> 13))"
            ),
            &format!(
                "CREATE TRIGGER tr BEFORE INSERT ON {TARGET} FOR EACH ROW
                 IF NEW.name = 'n77' THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not this one'; END IF"
            ),
        ]);
        let names: Vec<String> =
            (0..200).map(|id| if id == 150 { "n149".to_owned() } else { format!("n{id}") }).collect();
        let mut all: Vec<(i64, &str, i64)> = (0..200).map(|id| (id, names[id as usize].as_str(), id)).collect();
        all[42].1 = "";
        let published = land(&bench, &landing(1, write, &contract), people(&contract, &all));
        assert_eq!((published.rows, published.inserted, published.quarantined), (196, 196, 4), "{write}");
        let reasons = bench.reasons();
        for part in ["13 4025", "42 1048", "77 1644 not this one", "150 1062"] {
            assert!(reasons.contains(part), "{write}: {part} is not in {reasons}");
        }
        assert_eq!(standing(&bench, &landing(1, write, &contract)).count(), 196);
        assert_eq!(bench.leftovers(), "");
    }
}

#[test]
fn rows_that_refer_to_each_other_come_in_whatever_their_order() {
    let bench = MyBench::new();
    let mut contract = small();
    contract.items[1] = item("parent", ContractType::Integer);
    bench.run(&[&format!(
        "CREATE TABLE {TARGET} (id bigint PRIMARY KEY, parent bigint, seen datetime(6), FOREIGN KEY (parent) REFERENCES {TARGET} (id))"
    )]);
    let mut builder = BatchBuilder::new(&contract);
    for (id, parent) in [(1, Some(3)), (2, Some(1)), (3, None), (4, Some(99))] {
        builder.push(&[Value::Integer(id), parent.map_or(Value::Null, Value::Integer), Value::Null]).unwrap();
    }
    let published = land(&bench, &landing(1, Write::Append, &contract), builder.finish().unwrap());
    assert_eq!((published.rows, published.quarantined), (3, 1), "{}", bench.reasons());
    assert!(bench.reasons().starts_with("4 1452"), "{}", bench.reasons());
}

#[test]
fn an_account_without_the_right_to_create_lands_by_the_script() {
    let contract = small();
    let mut bench = MyBench::new();
    bench.user = GUEST.to_owned();
    let first = landing(1, Write::Replace, &contract);
    bench.run(&[&format!("GRANT SELECT ON {}.* TO '{GUEST}'@'%'", bench.database)]);
    let problem = bench.destination(&first).unwrap().prepare().unwrap_err();
    assert!(problem.cause.contains("doctor"), "{problem}");
    let script = Mysql.script("db", &bench.settings(), &[spec("t")], &[first.clone(), first.clone()]).unwrap().unwrap();
    assert!(script.contains("GRANT SELECT, SHOW VIEW ON") && script.lines().all(|line| !line.is_empty()), "{script}");
    bench.run(&["CREATE TABLE t (id int)"]);
    let statements: Vec<&str> = script.split(";\n").filter(|statement| !statement.trim().is_empty()).collect();
    bench.run(&statements);
    // Whose time the third row has afterwards: appending changes nothing.
    let writes = [(Write::Replace, 0), (Write::Append, 0), (Write::Upsert, 2), (Write::Mirror, 3), (Write::Replace, 4)];
    for (number, (write, seen)) in writes.into_iter().enumerate() {
        let landing = landing(number as u8 + 1, write, &contract);
        let rows = people(&contract, &[(1, "王", 1), (2, "李", 2), (3, "", number as i64)]);
        let mut destination = bench.destination(&landing).unwrap();
        destination.prepare().unwrap();
        destination.stage("a", [1; 32], &mut [Ok(rows)].into_iter()).unwrap();
        let published = destination.publish().unwrap();
        let refused = u64::from(write == Write::Append);
        assert_eq!((published.rows, published.quarantined), (3 - refused, refused), "{write}");
        let expected = people(&contract, &[(1, "王", 1), (2, "李", 2), (3, "", seen)]);
        assert_eq!(standing(&bench, &landing).digest(&contract), digest(&contract, &[expected]), "{write}");
    }
    assert_eq!(bench.text("SELECT COUNT(*) FROM posthouse_staging_suite"), "0");
}

#[test]
fn a_session_that_is_killed_in_the_middle_leaves_nothing_and_the_transfer_goes_on() {
    let bench = MyBench::new();
    let contract = small();
    let landing = landing(1, Write::Append, &contract);
    let mut destination = bench.inner(&landing);
    destination.prepare().unwrap();
    let rows: Vec<(i64, &str, i64)> = (0..5_000).map(|id| (id, "王", id)).collect();
    destination.stage("a", [1; 32], &mut [Ok(people(&contract, &rows[..10]))].into_iter()).unwrap();
    let session = destination.session();
    let mut owner = bench.client();
    // The rows of a second split come, and then the session is gone.
    let mut given = 0;
    let mut batches = std::iter::from_fn(|| {
        given += 1;
        if given == 3 {
            owner.run(&format!("KILL {session}")).unwrap();
        }
        let first = 10 + given * 100;
        (given < 5).then(|| Ok(people(&contract, &rows[first..first + 100])))
    });
    let lost = destination.stage("b", [2; 32], &mut batches).unwrap_err();
    assert_eq!(lost.code, Code::ConnectionFailed, "{lost}");
    let applied = destination.applied().unwrap();
    assert_eq!(applied.iter().map(|applied| applied.split.as_str()).collect::<Vec<_>>(), ["a"]);
    destination.stage("b", [2; 32], &mut [Ok(people(&contract, &rows[10..]))].into_iter()).unwrap();
    assert_eq!(destination.publish().unwrap().rows, 5_000);
    assert_eq!(standing(&bench, &landing).count(), 5_000);
}

#[test]
fn a_source_whose_session_is_killed_says_so() {
    let bench = MyBench::new();
    bench.run(&[
        "CREATE TABLE t (id int PRIMARY KEY, name varchar(200))",
        "INSERT INTO t SELECT seq, REPEAT('x', 200) FROM seq_1_to_60000",
    ]);
    struct Killer<'a>(&'a MyBench, u32);
    impl crate::Sink for Killer<'_> {
        fn batch(&mut self, _: arrow::record_batch::RecordBatch) -> Result<(), Problem> {
            if self.1 > 0 {
                self.0.run(&[&format!("KILL {}", self.1)]);
                self.1 = 0;
            }
            Ok(())
        }
        fn bad_row(&mut self, _: BadRow) -> Result<(), Problem> {
            Ok(())
        }
    }
    let mut source = bench.connection().source(&spec("t")).unwrap();
    let plan = source.begin(&Read::default()).unwrap();
    let sessions = format!(
        "SELECT ID FROM information_schema.PROCESSLIST WHERE DB = '{}' AND COMMAND = 'Sleep' ORDER BY ID DESC LIMIT 1",
        bench.database
    );
    // It has answered, and may not sleep yet.
    let session = (0..100).find_map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        bench.text(&sessions).parse::<u32>().ok()
    });
    let session = session.unwrap();
    let lost = source.read(&plan.splits[0], &mut Killer(&bench, session)).unwrap_err();
    assert_eq!(lost.code, Code::ConnectionFailed, "{lost}");
    let lost = source.read(&plan.splits[0], &mut Rows::default()).unwrap_err();
    assert_eq!(lost.code, Code::ConnectionFailed, "what is lost stays lost: {lost}");
}

#[test]
fn counts_are_exact_while_others_change_the_table() {
    let bench = MyBench::new();
    let contract = small();
    let all: Vec<(i64, &str, i64)> = (0..1_000).map(|id| (id, "王", id)).collect();
    land(&bench, &landing(1, Write::Upsert, &contract), people(&contract, &all));
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = bench.client();
            for number in (1_000_000..1_100_000).take_while(|_| !is_over.load(Ordering::Relaxed)) {
                let insert = format!("INSERT INTO {TARGET} VALUES ({number}, 'other', NULL)");
                // Two that come to the same rows are one too many: the server takes one of them back.
                let _ = client.run(&insert);
            }
        });
        for number in 2..8u8 {
            let changed: Vec<(i64, &str, i64)> = all
                .iter()
                .map(|(id, name, seen)| (*id, if id % 10 == 0 { "李" } else { *name }, seen + i64::from(number)))
                .collect();
            let published = land(&bench, &landing(number, Write::Upsert, &contract), people(&contract, &changed));
            assert_eq!((published.rows, published.inserted, published.updated), (1_000, 0, 1_000));
        }
        is_over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn tables_without_transactions_and_views_are_no_targets() {
    let bench = MyBench::new();
    let contract = small();
    let columns = "(id bigint PRIMARY KEY, name longtext, seen datetime(6))";
    bench.run(&[
        &format!("CREATE TABLE {TARGET} {columns} ENGINE=Aria"),
        "CREATE TABLE other (id bigint PRIMARY KEY, name longtext, seen datetime(6))",
        "CREATE VIEW v AS SELECT * FROM other",
    ]);
    let of = |table: &str, number| Landing { table: table.to_owned(), ..landing(number, Write::Append, &contract) };
    let problem = bench.destination(&of("人口 base", 1)).unwrap().prepare().unwrap_err();
    assert!(problem.cause.contains("Aria"), "{problem}");
    let problem = bench.destination(&of("v", 2)).unwrap().prepare().unwrap_err();
    assert!(problem.cause.contains("view"), "{problem}");
}
