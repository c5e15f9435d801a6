//! Tables that are wide, tables with values of hundreds of megabytes, tables without a key: equal by the servers' own
//! SQL, and within the memory that a node may take.

use super::{Job, Pair, print};
use crate::support::postgres::Postgres;
use crate::support::{Role, long};

#[test]
fn three_hundred_columns_land_as_they_are() {
    let (source, destination) = (Postgres::start(&[]), Postgres::start(&[]));
    let types =
        ["bigint", "text", "numeric(18,2)", "timestamp", "boolean", "jsonb", "date", "varchar(40)", "bytea", "uuid"];
    let columns: Vec<String> = (0..300).map(|at| format!("\"列 {at}\" {}", types[at % types.len()])).collect();
    let values: Vec<&str> = [
        "i",
        "'名称 ' || i",
        "i / 7.0",
        "timestamp '2026-01-01' + i * interval '1 min'",
        "i % 3 = 0",
        "jsonb_build_object('n', i, '名', 'x')",
        "date '2026-01-01' + i % 1000",
        "CASE WHEN i % 5 > 0 THEN 'v' || i END",
        "decode(md5(i::text), 'hex')",
        "md5(i::text)::uuid",
    ]
    .into_iter()
    .cycle()
    .take(300)
    .collect();
    source.psql(&format!(
        "CREATE TABLE wide ({}, PRIMARY KEY (\"列 0\")); INSERT INTO wide SELECT {} FROM generate_series(1, 8000) i",
        columns.join(", "),
        values.join(", ")
    ));
    let mut pair = Pair::start(source, destination, &[Job::new("wide", "", "full", "replace")], None);
    let end = pair.site.take("wide");
    assert_eq!((&end["state"], &end["rows"]), (&"settled".into(), &8_000.into()), "{end}");
    pair.assert_equal("wide");
    assert_flat(&mut pair);
}

#[test]
fn values_of_hundreds_of_megabytes_pass_through_memory_that_does_not_know_them() {
    let (source, destination) = (Postgres::start(&[]), Postgres::start(&[]));
    // 900 MiB, twelve bytes at a time.
    let times = if long() { 900 * 1024 * 1024 / 12 } else { 5_000_000 };
    source.psql(&format!(
        "CREATE TABLE large (id int PRIMARY KEY, words text, bytes bytea);
         ALTER TABLE large ALTER words SET STORAGE EXTERNAL, ALTER bytes SET STORAGE EXTERNAL;
         INSERT INTO large VALUES (1, repeat('驿站交换', {times}), NULL);
         INSERT INTO large VALUES (2, 'small', convert_to(repeat('驿站交换', {times}), 'UTF8'));
         INSERT INTO large SELECT i, 'row ' || i, '\\x00ff' FROM generate_series(3, 1000) i"
    ));
    let mut pair = Pair::start(source, destination, &[Job::new("large", "", "full", "replace")], None);
    let end = pair.site.take("large");
    assert_eq!((&end["state"], &end["rows"]), (&"settled".into(), &1_000.into()), "{end}");
    let print = "SELECT md5(string_agg(concat_ws(' ', id, octet_length(words), md5(words), octet_length(bytes), md5(bytes)), ',' ORDER BY id)) FROM large";
    assert_eq!(pair.source.value(print), pair.destination.value(print));
    assert_flat(&mut pair);
}

#[test]
fn rows_without_a_key_land_as_often_as_they_are() {
    let (source, destination) = (Postgres::start(&[]), Postgres::start(&[]));
    source.psql(
        "CREATE TABLE log (at timestamp, what text); INSERT INTO log
         SELECT timestamp '2026-01-01' + i % 1000 * interval '1 s', CASE WHEN i % 7 > 0 THEN '事件 ' || i % 100 END
         FROM generate_series(1, 400000) i",
    );
    let jobs = [Job::new("log", "", "full", "replace"), Job { name: "again", ..Job::new("log", "", "full", "append") }];
    let mut pair = Pair::start(source, destination, &jobs, None);
    let end = pair.site.take("log");
    assert_eq!((&end["state"], &end["rows"]), (&"settled".into(), &400_000.into()), "{end}");
    pair.assert_equal("log");
    let end = pair.site.take("again");
    assert_eq!((&end["state"], &end["rows"]), (&"settled".into(), &400_000.into()), "{end}");
    pair.source.psql("INSERT INTO log SELECT * FROM log");
    assert_eq!(print(&pair.source, "log"), print(&pair.destination, "log"), "all rows twice");
    assert_flat(&mut pair);
}

/// Neither node has ever held more than it may.
fn assert_flat(pair: &mut Pair) {
    for role in [Role::Provider, Role::Consumer] {
        let pid = pair.site.daemon(role).pid();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the kernel tells");
        let kib: u64 = peak.trim().trim_end_matches(" kB").trim().parse().expect("a number");
        assert!(kib <= 128 << 10, "{role:?}: {kib} KiB");
    }
}
