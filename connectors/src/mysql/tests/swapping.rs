//! One table in another's place: what stands in its way, and where the one statement may have been cut off.

use super::*;
use crate::mysql::swap::Names;

/// A target with one row, and a transfer that is staged to replace it with two.
fn staged(bench: &MyBench, write: Write) -> (Landing, place::Place) {
    let contract = small();
    land(bench, &landing(1, Write::Append, &contract), people(&contract, &[(7, "before", 1)]));
    let landing = landing(2, write, &contract);
    let mut destination = bench.destination(&landing).unwrap();
    destination.prepare().unwrap();
    let rows = people(&contract, &[(1, "王", 1), (2, "李", 2)]);
    destination.stage("a", [1; 32], &mut [Ok(rows)].into_iter()).unwrap();
    let place = place::Place::new(&landing, &bench.database, None).unwrap();
    (landing, place)
}

fn mark(bench: &MyBench, names: &Names) {
    let outcome = control::outcome(&Published { rows: 2, inserted: 2, ..Published::default() });
    bench.run(&[
        &format!("CREATE TABLE {} (outcome longtext NOT NULL)", names.mark),
        &format!("INSERT INTO {} VALUES ({})", names.mark, place::literal(&outcome)),
    ]);
}

#[test]
fn a_rename_that_was_cut_off_anywhere_is_completed_or_undone() {
    for reached in 0..=3 {
        let bench = MyBench::new();
        let (landing, place) = staged(&bench, Write::Replace);
        let names = Names::of(&place);
        mark(&bench, &names);
        let steps = [
            format!("RENAME TABLE {} TO {}", place.target, names.old),
            format!("RENAME TABLE {} TO {}", place.staging(), place.target),
            format!("RENAME TABLE {} TO {}", names.mark, names.done),
        ];
        steps.iter().take(reached).for_each(|step| bench.run(&[step]));
        let mut destination = bench.destination(&landing).unwrap();
        // Before the second step nothing was published, after it all was.
        let told = destination.published().unwrap();
        let is_done = reached >= 2;
        let expected = Published { rows: 2, inserted: 2, deleted: 1, ..Published::default() };
        assert_eq!(told, is_done.then(|| expected.clone()), "{reached}");
        let rows = if is_done { 2 } else { 1 };
        assert_eq!(standing(&bench, &landing).count(), rows, "{reached}");
        destination.prepare().unwrap();
        assert_eq!(destination.publish().unwrap(), expected, "{reached}");
        assert_eq!(destination.publish().unwrap(), expected, "{reached}");
        assert_eq!((standing(&bench, &landing).count(), bench.leftovers()), (2, String::new()), "{reached}");
    }
}

#[test]
fn names_that_are_taken_back_come_back_wherever_that_was_cut_off() {
    for reached in 0..=3 {
        let bench = MyBench::new();
        let (landing, place) = staged(&bench, Write::Replace);
        let names = Names::of(&place);
        mark(&bench, &names);
        bench.run(&[&format!(
            "RENAME TABLE {0} TO {1}, {2} TO {0}, {3} TO {4}",
            place.target,
            names.old,
            place.staging(),
            names.mark,
            names.done
        )]);
        let steps = [
            format!("RENAME TABLE {} TO {}", names.done, names.mark),
            format!("RENAME TABLE {} TO {}", place.target, place.staging()),
            format!("RENAME TABLE {} TO {}", names.old, place.target),
        ];
        steps.iter().take(reached).for_each(|step| bench.run(&[step]));
        let mut destination = bench.destination(&landing).unwrap();
        // With the second step nothing is published any more.
        let expected = Published { rows: 2, inserted: 2, deleted: 1, ..Published::default() };
        let is_done = reached < 2;
        assert_eq!(destination.published().unwrap(), is_done.then(|| expected.clone()), "{reached}");
        assert_eq!(standing(&bench, &landing).count(), if is_done { 2 } else { 1 }, "{reached}");
        assert_eq!(destination.publish().unwrap(), expected, "{reached}");
        assert_eq!((standing(&bench, &landing).count(), bench.leftovers()), (2, String::new()), "{reached}");
    }
}

#[test]
fn a_first_table_that_was_cut_off_is_completed_or_undone() {
    for reached in 0..=2 {
        let (bench, contract) = (MyBench::new(), small());
        let landing = landing(1, Write::Append, &contract);
        let mut destination = bench.destination(&landing).unwrap();
        destination.prepare().unwrap();
        let rows = people(&contract, &[(1, "王", 1), (2, "李", 2)]);
        destination.stage("a", [1; 32], &mut [Ok(rows)].into_iter()).unwrap();
        let place = place::Place::new(&landing, &bench.database, None).unwrap();
        let names = Names::of(&place);
        mark(&bench, &names);
        let steps = [
            format!("RENAME TABLE {} TO {}", place.staging(), place.target),
            format!("RENAME TABLE {} TO {}", names.mark, names.done),
        ];
        steps.iter().take(reached).for_each(|step| bench.run(&[step]));
        let expected = Published { rows: 2, inserted: 2, ..Published::default() };
        assert_eq!(destination.publish().unwrap(), expected, "{reached}");
        assert_eq!((standing(&bench, &landing).count(), bench.leftovers()), (2, String::new()), "{reached}");
    }
}

#[test]
fn what_is_discarded_in_the_middle_leaves_the_table_as_it_was() {
    let bench = MyBench::new();
    let (landing, place) = staged(&bench, Write::Replace);
    let names = Names::of(&place);
    mark(&bench, &names);
    bench.run(&[&format!("RENAME TABLE {} TO {}", place.target, names.old)]);
    bench.destination(&landing).unwrap().discard().unwrap();
    assert_eq!((standing(&bench, &landing).count(), bench.leftovers()), (1, String::new()));
}

#[test]
fn a_table_that_others_depend_on_stays_and_its_rows_give_way() {
    for (depends, made) in [
        (
            "refers to it",
            "CREATE TABLE child (id int PRIMARY KEY, parent bigint, FOREIGN KEY (parent) REFERENCES `人口 base` (id))",
        ),
        (
            "triggers",
            "CREATE TRIGGER tr BEFORE INSERT ON `人口 base` FOR EACH ROW SET NEW.name = CONCAT(NEW.name, '!')",
        ),
    ] {
        let bench = MyBench::new();
        let contract = small();
        land(&bench, &landing(1, Write::Append, &contract), people(&contract, &[(7, "before", 1), (1, "x", 1)]));
        bench.run(&[made]);
        let landing = landing(2, Write::Replace, &contract);
        let lines = bench.destination(&landing).unwrap().dry_run().unwrap();
        assert!(lines.iter().any(|line| line.contains(depends)), "{lines:?}");
        let published = land(&bench, &landing, people(&contract, &[(1, "王", 1), (2, "李", 2)]));
        assert_eq!((published.rows, published.quarantined), (2, 0), "{depends}");
        assert_eq!((standing(&bench, &landing).count(), bench.leftovers()), (2, String::new()));
        let still = bench.text(&format!(
            "SELECT (SELECT COUNT(*) FROM information_schema.TRIGGERS WHERE EVENT_OBJECT_SCHEMA = '{0}') +
                    (SELECT COUNT(*) FROM information_schema.REFERENTIAL_CONSTRAINTS WHERE CONSTRAINT_SCHEMA = '{0}'
                     AND REFERENCED_TABLE_NAME = '人口 base')",
            bench.database
        ));
        assert_eq!(still, "1", "{depends}");
    }
}

#[test]
fn a_key_that_comes_twice_is_found_where_the_table_has_no_index_for_it() {
    let bench = MyBench::new();
    let contract = small();
    bench.run(&[&format!("CREATE TABLE {TARGET} (id bigint, name longtext, seen datetime(6))")]);
    let lines = bench.destination(&landing(1, Write::Replace, &contract)).unwrap().dry_run().unwrap();
    assert!(lines.iter().any(|line| line.contains("nothing in it keeps the key unique")), "{lines:?}");
    let rows = |name: &str| people(&contract, &[(1, name, 1), (2, "李", 2), (1, "again", 9)]);
    let first = people(&contract, &[(1, "王", 1), (2, "李", 2)]);
    for name in ["a", "王"] {
        let landing = landing(name.len() as u8, Write::Replace, &contract);
        let mut destination = bench.destination(&landing).unwrap();
        destination.prepare().unwrap();
        let staged = destination.stage("a", [1; 32], &mut [Ok(rows(name))].into_iter()).unwrap();
        assert_eq!((staged.landed, staged.bad.len()), (2, 1));
        if name == "王" {
            // Without the index it is found when it is published.
            let place = place::Place::new(&landing, &bench.database, None).unwrap();
            let insert = format!("INSERT INTO {} (id, name, seen) VALUES (2, 'later', NULL)", place.staging());
            bench.run(&[
                &format!("ALTER TABLE {} DROP KEY posthouse_key", place.staging()),
                &insert,
                "UPDATE posthouse_applied SET landed = landed + 1 WHERE published IS NULL",
            ]);
        }
        let published = destination.publish().unwrap();
        assert_eq!((published.rows, published.quarantined), (2, u64::from(name == "王")), "{name}");
    }
    assert_eq!(standing(&bench, &landing(9, Write::Replace, &contract)).digest(&contract), digest(&contract, &[first]));
    assert!(bench.reasons().contains("2 - its key came in this transfer already"), "{}", bench.reasons());
}

#[test]
fn rows_that_others_refer_to_are_not_taken_away_from_them() {
    let bench = MyBench::new();
    let contract = small();
    land(&bench, &landing(1, Write::Append, &contract), people(&contract, &[(7, "kept", 1), (8, "free", 1)]));
    bench.run(&[
        "CREATE TABLE child (id int PRIMARY KEY, parent bigint, FOREIGN KEY (parent) REFERENCES `人口 base` (id) ON DELETE CASCADE)",
        "INSERT INTO child VALUES (1, 7)",
    ]);
    let landing = landing(2, Write::Replace, &contract);
    let mut destination = bench.destination(&landing).unwrap();
    destination.prepare().unwrap();
    destination.stage("a", [1; 32], &mut [Ok(people(&contract, &[(9, "new", 1)]))].into_iter()).unwrap();
    let problem = destination.publish().unwrap_err();
    assert!(problem.cause.contains("child"), "{problem}");
    assert_eq!((standing(&bench, &landing).count(), bench.text("SELECT COUNT(*) FROM child")), (2, "1".to_owned()));
    let other = super::landing(3, Write::Replace, &contract);
    let published = land(&bench, &other, people(&contract, &[(7, "kept", 1), (9, "new", 1)]));
    assert_eq!((published.rows, published.inserted, published.deleted), (2, 1, 1));
    assert_eq!(bench.text("SELECT COUNT(*) FROM child"), "1");
}

#[test]
fn a_view_finds_the_new_table_and_readers_never_see_half_of_one() {
    let bench = MyBench::new();
    let contract = small();
    let rows = |name: &str| {
        let all: Vec<(i64, &str, i64)> = (0..2_000).map(|id| (id, name, id)).collect();
        people(&contract, &all)
    };
    land(&bench, &landing(1, Write::Replace, &contract), rows("0"));
    bench.run(&["CREATE VIEW v AS SELECT name FROM `人口 base`"]);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = bench.client();
            // It ends by itself where the other side never comes to its end.
            for _ in (0..100_000).take_while(|_| !is_over.load(Ordering::Relaxed)) {
                let seen = client.ask("SELECT CONCAT(COUNT(*), ' ', COUNT(DISTINCT name)) FROM v").unwrap();
                assert_eq!(client::text(seen[0].as_ref(0).unwrap()), "2000 1");
            }
        });
        for number in 2..12u8 {
            let published = land(&bench, &landing(number, Write::Replace, &contract), rows(&number.to_string()));
            assert_eq!((published.rows, published.deleted), (2_000, 2_000));
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert_eq!(bench.text("SELECT DISTINCT name FROM v"), "11");
}
