//! Incremental reading: rows whose transaction wrote early and committed late.

use super::*;
use crate::contract::read_all;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// A database on a server where nothing else is under way: a transaction anywhere in a cluster holds positions back.
fn alone() -> (MutexGuard<'static, ()>, PgBench) {
    static ALONE: Mutex<()> = Mutex::new(());
    static QUIET: OnceLock<TestServer> = OnceLock::new();
    let guard = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let server = QUIET.get_or_init(|| {
        let server = TestServer::start();
        let mut owner = server.owner();
        owner.batch("ALTER SYSTEM SET autovacuum = off").unwrap();
        owner.batch("SELECT pg_reload_conf()").unwrap();
        server
    });
    (guard, PgBench::on(server))
}

/// Of a table `t (id, seen)`.
fn marked() -> TableSpec {
    TableSpec { key: vec!["id".to_owned()], watermark: Some("seen".to_owned()), ..spec("t") }
}

/// What a read found, for the next.
struct Found {
    ids: Vec<i64>,
    splits: Vec<String>,
    watermark: Option<Watermark>,
    position: Option<String>,
}

impl Found {
    /// As the transfer that follows this one asks.
    fn next(&self) -> Read {
        Read { from: self.watermark.clone(), since: self.position.clone(), ..Read::default() }
    }
    fn seen(&self) -> String {
        self.watermark.as_ref().map(ToString::to_string).unwrap_or_default()
    }
}

fn read(bench: &PgBench, spec: &TableSpec, read: &Read) -> Found {
    let mut source = bench.connection().source(spec).unwrap();
    let (plan, rows) = read_all(&mut *source, read);
    let id = |row: &String| row["{\"id\":".len()..row.find(',').unwrap()].parse().unwrap();
    let mut ids: Vec<i64> = rows.json(&plan.contract).iter().map(id).collect();
    ids.sort_unstable();
    Found { ids, splits: plan.splits, watermark: plan.watermark, position: plan.position }
}

const TEN_ROWS: &str =
    "INSERT INTO t SELECT i, timestamptz '2026-01-01' + i * interval '1 min' FROM generate_series(1, 10) i";

#[test]
fn a_transaction_that_commits_after_the_next_run_is_read_by_the_run_after_that() {
    let (_alone, mut bench) = alone();
    bench.run(&format!(
        "CREATE TABLE t (id int PRIMARY KEY, seen timestamptz NOT NULL); {TEN_ROWS}; GRANT SELECT ON t TO \"trust\""
    ));
    // Without any right beyond reading.
    bench.user = "trust".to_owned();
    let mut late = bench.client();
    late.batch(
        "BEGIN;
         INSERT INTO t VALUES (101, '2020-01-01');
         SAVEPOINT a; INSERT INTO t VALUES (102, '2020-01-01');
         SAVEPOINT b; UPDATE t SET seen = '2020-01-02' WHERE id = 3; RELEASE b; RELEASE a;
         SAVEPOINT c; INSERT INTO t VALUES (199, '2020-01-01'); ROLLBACK TO c;
         DO $$ BEGIN
           BEGIN INSERT INTO t VALUES (103, '2020-01-01'); EXCEPTION WHEN others THEN NULL; END;
           BEGIN INSERT INTO t VALUES (198, '2020-01-01'); PERFORM 1 / 0; EXCEPTION WHEN others THEN NULL; END;
         END $$",
    )
    .unwrap();
    // Begun before, and without a number of its own until later.
    let mut silent = bench.client();
    silent.batch("BEGIN").unwrap();
    let first = read(&bench, &marked(), &Read::default());
    assert_eq!(first.ids, (1..=10).collect::<Vec<_>>());
    bench.run("INSERT INTO t VALUES (11, '2026-01-02')");
    silent.batch("INSERT INTO t VALUES (104, '2020-01-01')").unwrap();
    let second = read(&bench, &marked(), &first.next());
    assert_eq!(second.ids, [10, 11], "the last mark again, and the new one");
    late.batch("COMMIT").unwrap();
    bench.run("INSERT INTO t VALUES (12, '2026-01-03')");
    // What is frozen keeps its number, also in a table that is written anew.
    bench.run("VACUUM (FREEZE) t");
    let third = read(&bench, &marked(), &second.next());
    assert_eq!(third.ids, [3, 11, 12, 101, 102, 103]);
    silent.batch("COMMIT").unwrap();
    bench.run("VACUUM (FULL, FREEZE) t");
    let fourth = read(&bench, &marked(), &third.next());
    assert_eq!(
        fourth.ids,
        [12, 104],
        "what was written before the last snapshot's oldest transaction is not read again"
    );
    bench.run("DELETE FROM t WHERE id = 12; INSERT INTO t VALUES (105, '2020-01-01')");
    let fifth = read(&bench, &marked(), &fourth.next());
    assert_eq!((fifth.ids.as_slice(), fifth.seen()), ([105].as_slice(), third.seen()), "the mark never goes back");
    let sixth = read(&bench, &marked(), &fifth.next());
    assert_eq!((sixth.ids.as_slice(), sixth.seen()), ([].as_slice(), third.seen()));
    // Without positions, all of these would have been lost.
    let to = Read { to: fifth.watermark.clone(), ..Read::default() };
    let standing = read(&bench, &marked(), &to);
    assert_eq!((standing.ids.len(), standing.position), (16, None), "reconciliation reads up to a mark as ever");
}

#[test]
fn without_a_position_that_holds_all_rows_are_read() {
    let (_alone, bench) = alone();
    bench.run(&format!(
        "CREATE TABLE t (id int PRIMARY KEY, seen timestamptz); {TEN_ROWS}; INSERT INTO t VALUES (20, NULL)"
    ));
    let first = read(&bench, &marked(), &Read::default());
    assert_eq!((first.ids.len(), first.splits.as_slice()), (11, ["all".to_owned()].as_slice()));
    assert_eq!(read(&bench, &marked(), &first.next()).ids, [10, 20], "a row without a mark comes each time");
    let position = first.position.clone().unwrap();
    let (xmin, rest) = position.split_once(' ').unwrap();
    let (cluster, tables) = rest.split_once(' ').unwrap();
    let xmin: u64 = xmin.parse().unwrap();
    let foreign = format!("7{rest}");
    for (what, since) in [
        ("none is known", None),
        ("of something else", Some("{}".to_owned())),
        ("of another cluster", Some(format!("{xmin} {foreign}"))),
        ("of another table", Some(format!("{xmin} {cluster} 1{tables}"))),
        ("of a time that is yet to come", Some(format!("{} {rest}", xmin + 1_000_000))),
    ] {
        let all = read(&bench, &marked(), &Read { since, ..first.next() });
        assert_eq!((all.ids.len(), all.splits.as_slice()), (11, ["all".to_owned()].as_slice()), "{what}");
        assert_eq!((all.watermark, all.position.is_some()), (first.watermark.clone(), true), "{what}");
    }
    bench.run(&format!("DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, seen timestamptz); {TEN_ROWS}"));
    let all = read(&bench, &marked(), &first.next());
    assert_eq!((all.ids.len(), all.splits.as_slice()), (10, ["all".to_owned()].as_slice()), "the table was made anew");
}

#[test]
fn partitions_are_read_like_one_table_and_one_that_joined_them_is_read_whole() {
    let (_alone, bench) = alone();
    bench.run(&format!(
        "CREATE TABLE t (id int, seen timestamptz) PARTITION BY RANGE (id);
         CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (6);
         CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (6) TO (100) PARTITION BY RANGE (id);
         CREATE TABLE t3 PARTITION OF t2 FOR VALUES FROM (6) TO (100);
         CREATE TABLE apart (id int, seen timestamptz); INSERT INTO apart VALUES (201, '2020-01-01'), (202, '2026-01-01');
         {TEN_ROWS}"
    ));
    let mut late = bench.client();
    late.batch("BEGIN; INSERT INTO t VALUES (0, '2020-01-01'), (50, '2020-01-01')").unwrap();
    let first = read(&bench, &marked(), &Read::default());
    assert_eq!(first.ids.len(), 10);
    late.batch("COMMIT").unwrap();
    let second = read(&bench, &marked(), &first.next());
    assert_eq!(second.ids, [0, 10, 50]);
    bench.run("ALTER TABLE t ATTACH PARTITION apart FOR VALUES FROM (200) TO (300)");
    let third = read(&bench, &marked(), &second.next());
    assert_eq!(third.ids, [10, 201, 202], "its rows were written before the last snapshot");
    assert!(third.splits[0].contains(" with "), "{:?}", third.splits);
    assert_eq!(read(&bench, &marked(), &third.next()).ids, [10]);
}

#[test]
fn what_has_no_transactions_of_its_own_is_read_by_its_marks_alone() {
    let (_alone, bench) = alone();
    bench.run(&format!(
        "CREATE TABLE t (id int, seen timestamptz); {TEN_ROWS};
         CREATE VIEW seen_through AS SELECT * FROM t; CREATE MATERIALIZED VIEW kept AS SELECT * FROM t;
         CREATE EXTENSION file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
         CREATE FOREIGN TABLE far (id int, seen timestamptz) SERVER files OPTIONS (program 'echo 10,2026-01-01 00:10:00+00', format 'csv');
         CREATE TABLE mixed (id int, seen timestamptz) PARTITION BY RANGE (id);
         CREATE FOREIGN TABLE mixed_far PARTITION OF mixed FOR VALUES FROM (0) TO (10) SERVER files OPTIONS (program 'echo 9,2026-01-01 00:10:00+00', format 'csv')"
    ));
    for table in ["seen_through", "kept", "far", "mixed"] {
        let spec = TableSpec { table: Some(table.to_owned()), ..marked() };
        let first = read(&bench, &spec, &Read::default());
        assert_eq!(first.position, None, "{table}");
        assert_eq!(read(&bench, &spec, &first.next()).ids.len(), 1, "{table}");
    }
    let query = TableSpec { table: None, query: Some("SELECT id, seen FROM t".to_owned()), ..marked() };
    let first = read(&bench, &query, &Read::default());
    assert_eq!((first.position.as_ref(), read(&bench, &query, &first.next()).ids.len()), (None, 1));
    let unmarked = TableSpec { watermark: None, ..marked() };
    assert_eq!(read(&bench, &unmarked, &Read::default()).position, None);
}

#[test]
fn a_split_has_the_same_name_only_where_its_rows_are_the_same() {
    let (_alone, bench) = alone();
    bench.run(&format!("CREATE TABLE t (id int PRIMARY KEY, seen timestamptz); {TEN_ROWS}"));
    let first = read(&bench, &marked(), &Read::default());
    bench.run("INSERT INTO t VALUES (11, '2020-01-01')");
    let second = read(&bench, &marked(), &first.next());
    assert_eq!((second.ids.as_slice(), second.splits.len()), ([10, 11].as_slice(), 1));
    assert_eq!(read(&bench, &marked(), &first.next()).splits, second.splits, "the successor of a failed transfer");
    assert_eq!(second.watermark, first.watermark);
    let third = read(&bench, &marked(), &second.next());
    assert_ne!(third.splits, second.splits, "the same marks, and other rows: {:?}", third.ids);
    assert_eq!(third.ids, [10]);
}
