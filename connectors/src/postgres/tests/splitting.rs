//! How a table falls into splits, and in what order they are asked for.

use super::*;
use crate::contract::read_all;
use std::collections::BTreeSet;
use std::time::Duration;

/// Every split by itself, as its rows' JSON.
struct Split {
    name: String,
    rows: Vec<String>,
}

/// A source on a server that says it has this version.
fn source(bench: &PgBench, table: &str, version: Option<u32>) -> source::PgSource {
    let mut client = bench.client();
    if let Some(version) = version {
        client.pretend_version(version);
    }
    source::PgSource::new(Faults { name: "db".to_owned() }, client, &spec(table), Duration::from_secs(600))
}

fn source_of(bench: &PgBench, table: &str) -> Box<dyn Source> {
    bench.connection().source(&spec(table)).unwrap()
}

fn splits(bench: &PgBench, table: &str, version: Option<u32>) -> Vec<Split> {
    let mut source = source(bench, table, version);
    let plan = source.begin(&Read::default()).unwrap();
    let read = |name: &String| {
        let mut rows = Rows::default();
        source.read(name, &mut rows).unwrap();
        Split { name: name.clone(), rows: rows.json(&plan.contract) }
    };
    plan.splits.iter().map(read).collect()
}

fn all(splits: &[Split]) -> Vec<String> {
    let mut rows: Vec<String> = splits.iter().flat_map(|split| split.rows.iter().cloned()).collect();
    rows.sort();
    rows
}

#[test]
fn where_blocks_cannot_be_asked_for_a_table_falls_apart_between_values_of_its_key() {
    let bench = PgBench::new();
    bench.run(
        "CREATE TABLE n (id bigint PRIMARY KEY, t text);
         INSERT INTO n SELECT g::bigint * g * sign(g)::int, 'name ' || g FROM generate_series(-1000, 400000) g;
         CREATE TABLE d (at timestamp NOT NULL UNIQUE, n int);
         INSERT INTO d SELECT '2026-01-01'::timestamp + g * interval '1.000001 s', g FROM generate_series(1, 300000) g;
         CREATE TABLE s (id text COLLATE \"C\" UNIQUE NOT NULL); INSERT INTO s SELECT g::text FROM generate_series(1, 300000) g;
         CREATE TABLE apart (id int PRIMARY KEY); INSERT INTO apart SELECT g::bigint * 7919 % 300007 FROM generate_series(1, 300006) g;
         CREATE TABLE two (a int, b int, PRIMARY KEY (a, b)); INSERT INTO two SELECT g, g FROM generate_series(1, 300000) g;
         CREATE TABLE few (id int PRIMARY KEY); INSERT INTO few SELECT generate_series(1, 1000);
         CREATE TABLE new (id int PRIMARY KEY); INSERT INTO new SELECT generate_series(1, 300000);
         ANALYZE n; ANALYZE d; ANALYZE s; ANALYZE apart; ANALYZE two; ANALYZE few",
    );
    for table in ["n", "d"] {
        let by_key = splits(&bench, table, Some(130_000));
        assert!((5..=9).contains(&by_key.len()), "{table}: {}", by_key.len());
        let names: BTreeSet<&String> = by_key.iter().map(|split| &split.name).collect();
        assert!(names.len() == by_key.len() && names.iter().all(|name| name.starts_with("keys ")), "{table}");
        let most = by_key.iter().map(|split| split.rows.len()).max().unwrap();
        assert!(most < 80_000, "{table}: {most} rows in one");
        let by_blocks = splits(&bench, table, None);
        assert!(by_blocks.len() > 1 && all(&by_key) == all(&by_blocks), "{table}: every row once");
    }
    // Texts, rows all over the table, two columns, few rows, no figures.
    for table in ["s", "apart", "two", "few", "new"] {
        assert_eq!(splits(&bench, table, Some(130_000)).len(), 1, "{table}");
    }
}

#[test]
fn a_row_without_the_key_that_inherits_from_a_table_is_read() {
    let bench = PgBench::new();
    bench.run(
        "CREATE TABLE p (id int PRIMARY KEY); INSERT INTO p SELECT generate_series(1, 300000); ANALYZE p;
         CREATE TABLE c (id int NOT NULL); ALTER TABLE c INHERIT p",
    );
    // Some servers keep the parent's NOT NULL in what inherits from it, others do not.
    let null = bench.client().batch("ALTER TABLE c ALTER id DROP NOT NULL; INSERT INTO c VALUES (NULL), (7)");
    let mut source = source(&bench, "p", Some(130_000));
    let expected: usize = bench.text("SELECT count(*) FROM p").parse().unwrap();
    let plan = source.begin(&Read::default()).unwrap();
    assert!(plan.splits.len() > 4, "{null:?}");
    let (mut read, mut bad) = (0, 0);
    for split in &plan.splits {
        let mut rows = Rows::default();
        read += source.read(split, &mut rows).unwrap().read as usize;
        bad += rows.bad.len();
    }
    assert_eq!(read, expected);
    assert_eq!(bad, usize::from(null.is_ok()), "a NULL in the key is a bad row");
}

#[test]
fn a_table_is_held_from_before_its_snapshot_so_that_none_takes_its_place() {
    let bench = PgBench::new();
    bench.run(
        "CREATE TABLE n (id int PRIMARY KEY); INSERT INTO n VALUES (1); ANALYZE n; CREATE VIEW v AS SELECT * FROM n;
         CREATE MATERIALIZED VIEW m AS SELECT 1 AS id; CREATE TABLE secret (id int, word text); INSERT INTO secret VALUES (1, 'x');
         GRANT SELECT (id) ON secret TO trust",
    );
    let in_the_way = || bench.client().batch("SET lock_timeout = '200ms'; ALTER TABLE n RENAME TO o").unwrap_err();
    for relation in ["n", "v"] {
        let mut source = source(&bench, relation, None);
        source.begin(&Read::default()).unwrap();
        assert_eq!(in_the_way().sqlstate(), Some("55P03"), "{relation}");
    }
    let mut source = source(&bench, "m", None);
    assert_eq!(source.begin(&Read::default()).unwrap().splits.len(), 1, "what cannot be held is read all the same");
    for gone in ["no_such", "no_such.n"] {
        let mut source = source_of(&bench, gone);
        let problem = source.begin(&Read::default()).unwrap_err();
        assert!(problem.cause.contains("there is no table"), "{problem:?}");
    }
    // An account that sees one column.
    let some = PgBench { user: "trust".to_owned(), ..bench };
    let mut source = some.connection().source(&spec("secret")).unwrap();
    let plan = source.begin(&Read { columns: Some(vec!["id".to_owned()]), ..Read::default() }).unwrap();
    let mut rows = Rows::default();
    source.read(&plan.splits[0], &mut rows).unwrap();
    assert_eq!(rows.count(), 1);
}

#[test]
fn splits_can_be_read_in_any_order_and_again() {
    let bench = PgBench::new();
    bench.run("CREATE TABLE n (id int, t text); INSERT INTO n SELECT g, repeat('x', 200) FROM generate_series(1, 150000) g; ANALYZE n");
    let mut source = source(&bench, "n", None);
    let plan = source.begin(&Read::default()).unwrap();
    assert!(plan.splits.len() >= 4, "{}", plan.splits.len());
    let mut read = |at: usize| {
        let mut rows = Rows::default();
        source.read(&plan.splits[at], &mut rows).unwrap();
        rows.json(&plan.contract)
    };
    let first: Vec<_> = (0..plan.splits.len()).map(&mut read).collect();
    assert_eq!(first.iter().map(Vec::len).sum::<usize>(), 150_000);
    for at in [1, 1, 3, 0, 2, 3] {
        assert!(read(at) == first[at], "{at}");
    }
    assert_eq!(source.read("blocks 5-7", &mut Rows::default()).unwrap_err().code, Code::SourceFailed);
}

#[test]
fn a_statement_that_may_not_take_long_is_not_asked_for_before_it_is_read() {
    let bench = PgBench::new();
    bench.run("CREATE TABLE n (id int, t text); INSERT INTO n SELECT g, repeat('x', 200) FROM generate_series(1, 150000) g; ANALYZE n");
    for (limit, state) in [("0", "active"), ("1h", "idle in transaction")] {
        let mut client = bench.client();
        client.batch(&format!("SET statement_timeout = '{limit}'")).unwrap();
        let pid = client.backend_pid();
        let mut source =
            source::PgSource::new(Faults { name: "db".to_owned() }, client, &spec("n"), Duration::from_secs(600));
        let plan = source.begin(&Read::default()).unwrap();
        let mut rows = Rows::default();
        source.read(&plan.splits[0], &mut rows).unwrap();
        // The line is slow: the next 8 MiB are more than a socket takes.
        let now = || bench.text(&format!("SELECT state FROM pg_stat_activity WHERE pid = {pid}"));
        let reached = (0..400).any(|_| {
            std::thread::sleep(Duration::from_millis(50));
            now() == state
        });
        assert!(reached, "{limit}: {}", now());
        for split in &plan.splits[1..] {
            source.read(split, &mut rows).unwrap();
        }
        assert_eq!(rows.count(), 150_000);
    }
}

#[test]
fn an_account_that_may_read_single_columns_reads_a_long_table_and_what_is_new_in_it() {
    let mut bench = PgBench::new();
    bench.run(
        "CREATE TABLE long (id int PRIMARY KEY, seen timestamptz NOT NULL, rest text);
         INSERT INTO long SELECT g, timestamptz '2026-01-01' + g * interval '1 s', repeat('x', 1000)
           FROM generate_series(1, 10000) g;
         GRANT SELECT (id, seen) ON long TO \"trust\"",
    );
    let columns = Some(vec!["id".to_owned(), "seen".to_owned()]);
    let spec = TableSpec { watermark: Some("seen".to_owned()), ..spec("long") };
    let found = |bench: &PgBench, read: &Read| {
        let mut source = bench.connection().source(&spec).unwrap();
        let (plan, rows) = read_all(&mut *source, read);
        (plan, rows.count())
    };
    let whole = Read { columns: columns.clone(), ..Read::default() };
    let (first, rows) = found(&bench, &whole);
    assert!(first.splits.len() > 1 && rows == 10_000, "{} splits of the owner's", first.splits.len());
    bench.user = "trust".to_owned();
    let (plan, rows) = found(&bench, &whole);
    assert_eq!((plan.splits.len(), rows), (1, 10_000), "it may not ask where a row lies");
    bench.run("INSERT INTO long VALUES (10001, '2026-02-01')");
    let next = Read { columns, from: plan.watermark, since: plan.position, ..Read::default() };
    assert_eq!(found(&bench, &next).1, 10_001, "it may not ask which rows came late: all may have");
    bench.run("GRANT SELECT (xmin) ON long TO \"trust\"");
    assert!(found(&bench, &next).1 > 0);
}
