//! What others do while rows are on their way: a staging table that goes or changes, a target that is altered, read or
//! referred to out of sight, and what a kill leaves between two steps.

use super::*;
use crate::front::{FrontRow, Part, VERSION};
use crate::mysql::swap::Names;

/// A target with one row, and a transfer of which two rows are staged.
fn begun(bench: &MyBench, number: u8, write: Write) -> (Landing, Box<dyn Destination>) {
    let contract = small();
    land(bench, &landing(1, Write::Append, &contract), people(&contract, &[(7, "before", 1)]));
    staged(bench, number, write)
}

fn staged(bench: &MyBench, number: u8, write: Write) -> (Landing, Box<dyn Destination>) {
    let contract = small();
    let landing = landing(number, write, &contract);
    let mut destination = bench.destination(&landing).unwrap();
    destination.prepare().unwrap();
    let rows = people(&contract, &[(1, "王", 1), (2, "李", 2)]);
    destination.stage("a", [1; 32], &mut [Ok(rows)].into_iter()).unwrap();
    (landing, destination)
}

fn place_of(bench: &MyBench, landing: &Landing) -> place::Place {
    place::Place::new(landing, &bench.database, None).unwrap()
}

/// What tells one table from another of the same name.
fn identity(bench: &MyBench) -> String {
    bench.text(&format!(
        "SELECT TABLE_ID FROM information_schema.INNODB_SYS_TABLES WHERE NAME LIKE '{}/@%'",
        bench.database.replace('_', "\\_")
    ))
}

#[test]
fn a_staging_table_that_is_changed_or_gone_publishes_nothing() {
    for write in [None, Some(Write::Append), Some(Write::Replace)] {
        let bench = MyBench::new();
        let (landing, mut destination) = match write {
            None => staged(&bench, 2, Write::Append),
            Some(write) => begun(&bench, 2, write),
        };
        let (staging, before) = (place_of(&bench, &landing).staging(), standing(&bench, &landing).count());
        bench.run(&[&format!("DELETE FROM {staging} WHERE id = 2")]);
        let problem = destination.publish().unwrap_err();
        assert_eq!(problem.code, Code::Mismatch, "{problem}");
        assert_eq!(standing(&bench, &landing).count(), before, "{write:?}");
        bench.run(&[&format!("DROP TABLE {staging}")]);
        assert!(destination.publish().is_err());
        drop(destination);
        // Made anew, nothing is staged in it, and nothing is said to be.
        let mut destination = bench.destination(&landing).unwrap();
        destination.prepare().unwrap();
        assert_eq!(destination.applied().unwrap(), []);
        let rows = people(&small(), &[(1, "王", 1), (2, "李", 2)]);
        destination.stage("a", [1; 32], &mut [Ok(rows)].into_iter()).unwrap();
        assert_eq!(destination.publish().unwrap().rows, 2, "{write:?}");
        assert_eq!(bench.leftovers(), "");
    }
}

#[test]
fn a_table_that_is_altered_in_the_meantime_stays_as_it_was_made() {
    let bench = MyBench::new();
    let (landing, mut destination) = begun(&bench, 2, Write::Replace);
    bench.run(&[&format!(
        "ALTER TABLE {TARGET} ADD COLUMN note varchar(9) NOT NULL DEFAULT 'new' COMMENT 'ours', ADD KEY by_time (seen)"
    )]);
    let published = destination.publish().unwrap();
    assert_eq!((published.rows, published.deleted), (2, 1));
    assert_eq!(bench.text(&format!("SELECT CONCAT(id, note) FROM {TARGET} ORDER BY id")), "1new\n2new");
    let index =
        format!("SELECT INDEX_NAME FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = '{}'", bench.database);
    assert_eq!(bench.text(&format!("{index} AND INDEX_NAME = 'by_time'")), "by_time");
    assert_eq!((standing(&bench, &landing).count(), bench.leftovers()), (2, String::new()));
    // Rows that were staged for other columns do not come in.
    for (number, write) in [(3, Write::Replace), (4, Write::Append), (5, Write::Upsert)] {
        let (landing, mut destination) = staged(&bench, number, write);
        bench.run(&[&format!("ALTER TABLE {TARGET} MODIFY seen datetime({number})")]);
        let problem = destination.publish().unwrap_err();
        assert!(
            problem.cause.contains("`seen` is datetime") && problem.cause.contains("run the job again"),
            "{problem}"
        );
        destination.discard().unwrap();
        assert_eq!((standing(&bench, &landing).count(), bench.leftovers()), (2, String::new()), "{write}");
    }
    let (_, mut destination) = staged(&bench, 6, Write::Replace);
    let before = identity(&bench);
    assert_eq!(destination.publish().unwrap().rows, 2);
    assert_ne!(identity(&bench), before, "a table that nobody touched gives way again");
}

#[test]
fn a_table_out_of_sight_that_refers_to_one_keeps_its_rows() {
    let mut bench = MyBench::new();
    bench.user = GUEST.to_owned();
    let hidden = format!("{}_hidden", bench.database);
    bench.run(&[&format!("GRANT ALL ON `{}`.* TO '{GUEST}'@'%'", bench.database.replace('_', "\\_"))]);
    let contract = small();
    land(&bench, &landing(1, Write::Append, &contract), people(&contract, &[(7, "kept", 1), (8, "free", 1)]));
    bench.run(&[
        &format!("CREATE DATABASE {hidden}"),
        &format!(
            "CREATE TABLE {hidden}.child (id int PRIMARY KEY, parent bigint,
             FOREIGN KEY (parent) REFERENCES {}.{TARGET} (id) ON DELETE CASCADE)",
            bench.database
        ),
        &format!("INSERT INTO {hidden}.child VALUES (1, 7), (2, 8)"),
    ]);
    let refers_to = || {
        bench.text(&format!(
            "SELECT CONCAT(REFERENCED_TABLE_NAME, ' ', (SELECT COUNT(*) FROM {hidden}.child))
             FROM information_schema.REFERENTIAL_CONSTRAINTS WHERE CONSTRAINT_SCHEMA = '{hidden}'"
        ))
    };
    let before = identity(&bench);
    let replace = |number: u8, rows: &[(i64, &str, i64)]| {
        let mut destination = bench.destination(&landing(number, Write::Replace, &contract)).unwrap();
        destination.prepare().unwrap();
        destination.stage("a", [1; 32], &mut [Ok(people(&contract, rows))].into_iter()).unwrap();
        destination
    };
    let mut destination = replace(2, &[(7, "kept", 1), (9, "new", 1)]);
    // It is not forgotten by the next try.
    for _ in 0..2 {
        let problem = destination.publish().unwrap_err();
        assert!(problem.cause.contains("1 of its rows would be gone"), "{problem}");
        assert_eq!((refers_to(), identity(&bench)), ("人口 base 2".to_owned(), before.clone()));
        assert_eq!(standing(&bench, &landing(2, Write::Replace, &contract)).count(), 2);
    }
    destination.discard().unwrap();
    let published = replace(3, &[(7, "x", 2), (8, "free", 1), (9, "new", 1)]).publish().unwrap();
    assert_eq!((published.rows, published.inserted, published.updated, published.deleted), (3, 1, 1, 0));
    let as_before = || (refers_to(), identity(&bench)) == ("人口 base 2".to_owned(), before.clone());
    assert!(as_before() && bench.leftovers().is_empty());
    // Where a run was cut off behind the RENAME, the next one takes it back.
    let mut destination = replace(4, &[(7, "y", 3), (8, "free", 1), (9, "new", 1)]);
    let place = place_of(&bench, &landing(4, Write::Replace, &contract));
    let (names, target, staging) = (Names::of(&place), &place.target, place.staging());
    let outcome = control::outcome(&Published { rows: 3, inserted: 3, ..Published::default() });
    bench.run(&[
        &format!("CREATE TABLE {} (outcome longtext NOT NULL)", names.done),
        &format!("INSERT INTO {} VALUES ({})", names.done, place::literal(&outcome)),
        &format!("RENAME TABLE {target} TO {}, {staging} TO {target}", names.old),
    ]);
    assert_eq!(destination.published().unwrap(), None);
    assert!(as_before() && bench.leftovers() == staging.table);
    let published = destination.publish().unwrap();
    assert_eq!((published.rows, published.inserted, published.updated, published.deleted), (3, 0, 1, 0));
    assert!(as_before() && bench.leftovers().is_empty());
}

#[test]
fn who_cannot_see_all_deletes_only_what_is_gone() {
    let mut bench = MyBench::new();
    bench.user = GUEST.to_owned();
    let hidden = format!("{}_hidden", bench.database);
    let contract = small();
    bench.run(&[&format!("GRANT ALL ON `{}`.* TO '{GUEST}'@'%'", bench.database.replace('_', "\\_"))]);
    land(&bench, &landing(1, Write::Append, &contract), people(&contract, &[(7, "kept", 1), (8, "gone", 1)]));
    bench.run(&[
        // A table with a trigger gives way to none.
        &format!("CREATE TRIGGER tr BEFORE INSERT ON {TARGET} FOR EACH ROW SET NEW.name = NEW.name"),
        &format!("CREATE DATABASE {hidden}"),
        &format!(
            "CREATE TABLE {hidden}.child (parent bigint PRIMARY KEY, FOREIGN KEY (parent) REFERENCES {}.{TARGET} (id) ON DELETE CASCADE)",
            bench.database
        ),
        &format!("INSERT INTO {hidden}.child VALUES (7)"),
    ]);
    let published =
        land(&bench, &landing(2, Write::Replace, &contract), people(&contract, &[(7, "x", 1), (9, "new", 1)]));
    assert_eq!((published.rows, published.inserted, published.updated, published.deleted), (2, 1, 1, 1));
    assert_eq!(bench.text(&format!("SELECT parent FROM {hidden}.child")), "7");
}

#[test]
fn a_table_that_is_read_is_waited_for() {
    let bench = MyBench::new();
    let (landing, mut destination) = begun(&bench, 2, Write::Replace);
    let before = identity(&bench);
    std::thread::scope(|scope| {
        let mut reader = bench.client();
        let session = reader.id();
        scope.spawn(move || reader.ask(&format!("SELECT SLEEP(2.5), id FROM {TARGET}")).unwrap());
        let reads = format!(
            "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID = {session} AND STATE = 'User sleep'"
        );
        // It ends by itself where the reader was never seen.
        let _ = (0..200).find(|_| bench.text(&reads) == "1");
        assert_eq!(destination.publish().unwrap().rows, 2);
    });
    assert_ne!(identity(&bench), before, "another table took its place");
    assert_eq!((standing(&bench, &landing).count(), bench.leftovers()), (2, String::new()));
    // Who reads for longer than that goes on, and rows give way instead of the table.
    let (landing, mut destination) = staged(&bench, 3, Write::Replace);
    let (before, mut reader) = (identity(&bench), bench.client());
    reader.run("START TRANSACTION").unwrap();
    reader.ask(&format!("SELECT * FROM {TARGET}")).unwrap();
    let published = destination.publish().unwrap();
    assert_eq!((published.rows, published.deleted, identity(&bench)), (2, 2, before));
    assert_eq!(reader.ask(&format!("SELECT * FROM {TARGET}")).unwrap().len(), 2, "it still sees its own state");
    drop(reader);
    assert_eq!((standing(&bench, &landing).count(), bench.leftovers()), (2, String::new()));
}

#[test]
fn what_a_kill_left_behind_a_commit_is_swept() {
    let bench = MyBench::new();
    let (landing, mut destination) = begun(&bench, 2, Write::Append);
    let (place, published) = (place_of(&bench, &landing), destination.publish().unwrap());
    let leave = format!("CREATE TABLE {} (posthouse_number int, id int, name int, seen int)", place.staging());
    bench.run(&[&leave]);
    assert_eq!(bench.destination(&landing).unwrap().published().unwrap(), Some(published.clone()));
    assert_eq!(bench.leftovers(), "");
    bench.run(&[&leave]);
    assert_eq!(bench.destination(&landing).unwrap().publish().unwrap(), published);
    assert_eq!(bench.leftovers(), "");
    // Nobody asks for it any more: another transfer finds it. What is not published stays.
    bench.run(&[&leave]);
    let (other, mut destination) = staged(&bench, 3, Write::Upsert);
    assert_eq!(bench.leftovers(), place_of(&bench, &other).staging().table);
    let (third, _) = staged(&bench, 4, Write::Upsert);
    let mut both = [&other, &third].map(|landing| place_of(&bench, landing).staging().table);
    both.sort();
    assert_eq!(bench.leftovers(), both.join("\n"));
    destination.publish().unwrap();
}

#[test]
fn giving_up_that_was_cut_off_leaves_no_row_behind() {
    let bench = MyBench::new();
    let (landing, destination) = begun(&bench, 2, Write::Append);
    drop(destination);
    // What is noted is gone, and what is staged is there still.
    bench.run(&[&format!("DELETE FROM posthouse_applied WHERE transfer = '{}'", landing.transfer.as_str())]);
    let (_, mut destination) = staged(&bench, 2, Write::Append);
    assert_eq!(destination.publish().unwrap().rows, 2);
    assert_eq!((standing(&bench, &landing).count(), bench.leftovers()), (3, String::new()));
}

#[test]
fn giving_up_waits_for_a_publishing_that_is_under_way() {
    let bench = MyBench::new();
    let (landing, mut destination) = begun(&bench, 2, Write::Append);
    let place = place_of(&bench, &landing);
    let mut orphan = bench.client();
    for of in [place.target.to_string(), place.transfer().to_owned()] {
        assert_eq!(orphan.count("SELECT GET_LOCK(?, 0)", vec![place::Place::lock(&of).into()]).unwrap(), 1);
        let mut given_up = bench.destination(&landing).unwrap();
        std::thread::scope(|scope| {
            let giving_up = scope.spawn(move || given_up.discard());
            std::thread::sleep(std::time::Duration::from_millis(200));
            let is_over = giving_up.is_finished();
            orphan.run("DO RELEASE_ALL_LOCKS()").unwrap();
            giving_up.join().unwrap().unwrap();
            assert!(!is_over, "{of}");
        });
    }
    assert!(destination.publish().is_err(), "nothing is staged any more");
    assert_eq!((standing(&bench, &landing).count(), bench.leftovers()), (1, String::new()));
}

#[test]
fn a_mirror_keeps_the_older_row_of_a_key_whose_row_is_refused() {
    for with_files in [true, false] {
        let bench = MyBench::new();
        let contract = small();
        bench.run(&[&format!("CREATE TABLE {TARGET} (id bigint PRIMARY KEY, name varchar(3), seen datetime(6))")]);
        let mut all: Vec<(i64, &str, i64)> = (0..20).map(|id| (id, "old", id)).collect();
        land(&bench, &landing(1, Write::Mirror, &contract), people(&contract, &all));
        all.retain(|(id, ..)| *id != 6);
        all[5].1 = "longer";
        let landing = landing(2, Write::Mirror, &contract);
        let mut destination = bench.inner(&landing);
        if !with_files {
            destination = destination.without_files();
        }
        destination.prepare().unwrap();
        let rows = people(&contract, &all);
        let staged = destination.stage("a", [1; 32], &mut [Ok(rows)].into_iter()).unwrap();
        assert_eq!((staged.landed, staged.bad.len()), (18, 1));
        let published = destination.publish().unwrap();
        assert_eq!((published.rows, published.updated, published.deleted), (18, 0, 1), "{with_files}");
        let left = bench.text(&format!("SELECT CONCAT(id, name) FROM {TARGET} WHERE id IN (5, 6)"));
        assert_eq!((left.as_str(), standing(&bench, &landing).count()), ("5old", 19));
        assert_eq!(bench.leftovers(), "");
    }
}

#[test]
fn a_row_of_a_front_end_table_whose_number_changes_by_little_keeps_its_flag() {
    let bench = MyBench::new();
    bench.run(&[
        "CREATE TABLE bg (id int PRIMARY KEY, f float, clzt char(1) NOT NULL DEFAULT '0')",
        "INSERT INTO bg (id, f) VALUES (1, 1.2345678), (2, 1.2345678)",
    ]);
    let spec = FrontSpec {
        table: "bg".to_owned(),
        key: vec!["id".to_owned()],
        flag: "clzt".to_owned(),
        from: "0".to_owned(),
        to: "1".to_owned(),
        purges: false,
        resource: "node.example/bg".to_owned(),
    };
    let mut front = bench.front(&spec).unwrap();
    let query = front.plan().unwrap().query;
    let read = |id: i64| {
        let version = bench.text(&format!("SELECT x.{VERSION} FROM ({query}) x WHERE x.id = {id}"));
        FrontRow { row: vec![Part::Integer(id)], version }
    };
    let mut rows = [read(1), read(2)];
    // As texts both are 1.23457.
    bench.run(&["UPDATE bg SET f = 1.2345689 WHERE id = 1"]);
    assert_eq!(front.mark(&mut rows).unwrap(), 1);
    assert_eq!(bench.text("SELECT id FROM bg WHERE clzt = '0'"), "1");
}
