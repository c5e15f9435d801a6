//! What is read: every type that the server has, values that are none, one state while others write, splits, marks.

use super::*;
use posthouse_protocol::filter::Filter;
use posthouse_protocol::watermark::Watermark;
use std::collections::BTreeSet;

#[test]
fn every_type_is_read_as_what_people_mean_by_it() {
    let bench = MyBench::new();
    bench.run(&[
        "CREATE TABLE t (id int unsigned PRIMARY KEY COMMENT '编号', big bigint unsigned, small tinyint(1), flag bit(1), bits bit(12),
         wide decimal(65,30), money decimal(10,2), f float, d double, y year, tm time(2), dt date, at datetime(3),
         ts timestamp(6) NULL, kind enum('甲','乙'), marks set('a','b','c'), doc json, code char(6), name varchar(40),
         photo blob, key2 binary(2), place point, who uuid, host inet6)",
        "INSERT INTO t VALUES (1, 18446744073709551615, 5, b'1', b'101000000001', 12.5, -0.10, 1.1, 0.1, 2026, '-12:03:04.5',
         '2026-02-28', '2026-11-28 05:06:07.123', '2026-11-28 05:06:07.000001', '乙', 'c,a', '{\"a\": 1}', 'ab  ', '王  ',
         x'00ff', x'01', ST_GeomFromText('POINT(1 2)', 4326), '6ccd780c-baba-1026-9564-5b8c656024db', '::1')",
    ]);
    let (plan, rows, bad) = bench.read(&spec("t"));
    assert_eq!(bad, vec![]);
    let columns = crate::types::schema_text(&plan.contract);
    assert_eq!(
        columns,
        "id integer not null, big decimal(20,0), small integer, flag boolean, bits integer, wide number, money decimal(10,2), \
         f float, d float, y integer, tm text, dt date, at timestamp, ts timestamp, kind text, marks text, doc json, code char, \
         name text, photo bytes, key2 bytes, place bytes, who text, host text; key (id)"
    );
    assert_eq!(plan.contract.items[0].comment.as_deref(), Some("编号"));
    let row = &rows[0];
    for part in [
        "\"big\":18446744073709551615",
        "\"small\":5",
        "\"flag\":true",
        "\"bits\":2561",
        "\"wide\":12.5",
        "\"money\":-0.10",
        "\"f\":1.100000023841858",
        "\"d\":0.1",
        "\"y\":2026",
        "\"tm\":\"-12:03:04.50\"",
        "\"dt\":\"2026-02-28\"",
        "2026-11-28T05:06:07.123Z",
        "2026-11-28T05:06:07.000001Z",
        "\"kind\":\"乙\"",
        "\"marks\":\"a,c\"",
        "\"code\":\"ab\"",
        "\"name\":\"王  \"",
        "{\"hex\":\"00ff\"}",
        "{\"hex\":\"0100\"}",
        "{\"hex\":\"e61000000101000000000000000000f03f0000000000000040\"}",
        "6ccd780c-baba-1026-9564-5b8c656024db",
        "::1",
    ] {
        assert!(row.contains(part), "{part} is not in {row}");
    }
}

#[test]
fn what_is_no_value_is_a_bad_row_with_what_it_was() {
    let bench = MyBench::new();
    bench.run(&[
        "CREATE TABLE t (id int PRIMARY KEY, dt date, at datetime, doc longtext CHECK (json_valid(doc)), name varchar(9) CHARACTER SET gbk)",
        "SET sql_mode = ''",
        "INSERT INTO t VALUES (1, '0000-00-00', NULL, NULL, NULL), (2, '2026-00-07', NULL, NULL, NULL),
         (3, NULL, '0000-00-00 00:00:00', NULL, NULL), (4, NULL, NULL, '{\"a\":1,\"a\":2}', NULL), (5, NULL, NULL, NULL, x'FE50'),
         (6, '2026-01-01', NULL, '{}', '中')",
    ]);
    let (_, rows, mut bad) = bench.read(&spec("t"));
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert!(rows[0].contains("中"));
    bad.sort_by(|a, b| a.key.cmp(&b.key));
    let told: Vec<_> = bad.iter().map(|bad| (bad.key.as_str(), bad.reason.as_str())).collect();
    assert_eq!(
        told,
        [
            ("1", "`dt`: it is the zero date"),
            ("2", "`dt`: a part of its date is zero"),
            ("3", "`at`: it is the zero date"),
            ("4", "`doc`: it is not JSON with one meaning"),
            ("5", "`name`: it has bytes that are no characters of its character set"),
        ]
    );
    let originals: Vec<_> = bad.iter().map(|bad| bad.original.as_str()).collect();
    assert!(originals[0].contains("\"dt\":\"0000-00-00\"") && originals[1].contains("2026-00-07"), "{originals:?}");
    assert!(
        originals[3].contains(r#"{\"a\":1,\"a\":2}"#) && originals[4].contains("{\"hex\":\"fe50\"}"),
        "{originals:?}"
    );
}

#[test]
fn columns_of_latin1_hold_what_the_charset_says_and_dates_of_zeros_may_be_null() {
    let bench = MyBench::new();
    bench.run(&[
        "CREATE TABLE t (id int PRIMARY KEY, name varchar(20) CHARACTER SET latin1, note varchar(20), dt date NOT NULL)",
        "SET sql_mode = ''",
        "INSERT INTO t VALUES (1, x'CDF5D55C', '王', '2026-01-01'), (2, x'CDF5FF', NULL, '2026-01-01'),
         (3, x'616263', NULL, '0000-00-00'), (4, NULL, NULL, '2026-00-01')",
    ]);
    let settings = bench.settings().into_iter().chain([("charset".to_owned(), "gbk".into())]).collect();
    let mut connection = Mysql.connect("db", &settings).unwrap();
    let read = Read { zero_dates_null: true, ..Read::default() };
    let mut source = connection.source(&spec("t")).unwrap();
    let plan = source.begin(&read).unwrap();
    let columns = "id integer not null, name text, note text, dt date; key (id)";
    assert_eq!(crate::types::schema_text(&plan.contract), columns);
    let mut rows = Rows::default();
    let counts = source.read(&plan.splits[0], &mut rows).unwrap();
    assert_eq!(
        rows.json(&plan.contract),
        [r#"{"id":1,"name":"王誠","note":"王","dt":"2026-01-01"}"#, r#"{"id":3,"name":"abc","note":null,"dt":null}"#,]
    );
    assert_eq!((counts.sent, counts.quarantined, counts.changed), (2, 2, Some(1)));
    let told: Vec<_> = rows.bad.iter().map(|bad| (bad.key.as_str(), bad.reason.as_str())).collect();
    assert!(told.contains(&("2", "`name`: it has bytes that are no characters of GBK")), "{told:?}");
    assert!(told.contains(&("4", "`dt`: a part of its date is zero")), "{told:?}");
    let second = rows.bad.iter().find(|bad| bad.key == "2").unwrap();
    assert!(second.original.contains(r#""name":{"hex":"cdf5ff"}"#), "{}", second.original);
}

#[test]
fn all_splits_are_of_one_state_while_others_write() {
    let bench = MyBench::new();
    bench.run(&[
        "CREATE TABLE t (id bigint PRIMARY KEY, name varchar(20))",
        "INSERT INTO t SELECT seq, CONCAT('n', seq) FROM seq_1_to_300000",
        "ANALYZE TABLE t",
    ]);
    let mut source = bench.connection().source(&spec("t")).unwrap();
    let plan = source.begin(&Read::default()).unwrap();
    assert!(plan.splits.len() >= 3, "{:?}", plan.splits);
    bench.run(&[
        "DELETE FROM t WHERE id % 3 = 0",
        "UPDATE t SET name = 'x'",
        "INSERT INTO t VALUES (-5, 'y'), (900000, 'z')",
    ]);
    let (mut all, mut again) = (Rows::default(), Rows::default());
    for split in &plan.splits {
        source.read(split, &mut all).unwrap();
    }
    assert_eq!((all.count(), all.bad.len()), (300_000, 0));
    source.read(&plan.splits[0], &mut again).unwrap();
    let first = all.batches[..again.batches.len()].to_vec();
    assert_eq!(digest(&plan.contract, &again.batches), digest(&plan.contract, &first), "a repeat gives the same rows");
    drop(source);
    let (_, rows, _) = bench.read(&spec("t"));
    assert_eq!(rows.len(), 200_002);
    // What did not change has the names that it had.
    let mut source = bench.connection().source(&spec("t")).unwrap();
    let after = source.begin(&Read::default()).unwrap();
    assert!(after.splits.iter().all(|name| name.starts_with("key ")), "{:?}", after.splits);
}

#[test]
fn a_table_is_not_exchanged_while_it_is_read() {
    let bench = MyBench::new();
    bench.run(&[
        "CREATE TABLE t (id int PRIMARY KEY, name varchar(20))",
        "INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')",
        "CREATE TABLE other LIKE t",
        "INSERT INTO other VALUES (9, 'z')",
    ]);
    let exchange = "RENAME TABLE t TO before_t, other TO t";
    let mut source = bench.connection().source(&spec("t")).unwrap();
    let plan = source.begin(&Read::default()).unwrap();
    let mut impatient = bench.client();
    impatient.run("SET SESSION lock_wait_timeout = 1").unwrap();
    let code = impatient.run(exchange).unwrap_err().code();
    assert_eq!(code, Some(fail::LOCK_WAIT), "a table that was exchanged after the snapshot would show no rows");
    let mut rows = Rows::default();
    source.read(&plan.splits[0], &mut rows).unwrap();
    assert_eq!(rows.count(), 3);
    drop(source);
    // The session takes leave on a thread of its own.
    let exchanged = (0..30).any(|_| impatient.run(exchange).is_ok());
    assert!(exchanged);
    assert_eq!(bench.read(&spec("t")).1, [r#"{"id":9,"name":"z"}"#]);
}

#[test]
fn keys_of_any_kind_are_cut_at_values_that_are_there() {
    let bench = MyBench::new();
    bench.run(&[
        "CREATE TABLE texts (k varchar(20) COLLATE utf8mb4_general_ci, n int, PRIMARY KEY (k, n))",
        "INSERT INTO texts SELECT CONCAT('键', seq DIV 3), seq FROM seq_1_to_150000",
        "CREATE TABLE wide (k bigint unsigned PRIMARY KEY, room char(100) NOT NULL DEFAULT 'x')",
        "INSERT INTO wide (k) SELECT 18446744073709551615 - seq * 7 FROM seq_0_to_599999",
        "ANALYZE TABLE texts",
        "ANALYZE TABLE wide",
    ]);
    for (table, count) in [("texts", 150_000), ("wide", 600_000)] {
        let (plan, rows, bad) = bench.read(&spec(table));
        assert!(plan.splits.len() >= 2, "{:?}", plan.splits);
        let distinct: BTreeSet<&String> = rows.iter().collect();
        assert_eq!((rows.len(), distinct.len(), bad.len()), (count, count, 0), "{table}");
    }
}

#[test]
fn a_view_and_a_query_are_read_with_a_key_that_is_looked_at() {
    let bench = MyBench::new();
    bench.run(&[
        "CREATE TABLE t (id int PRIMARY KEY, name varchar(20) COLLATE utf8mb4_general_ci, n bigint unsigned)",
        "INSERT INTO t VALUES (1, 'a', 18446744073709551615), (2, 'A', 2), (3, NULL, 3)",
        "CREATE VIEW v AS SELECT id, name FROM t",
    ]);
    let mut view = spec("v");
    view.key = vec!["id".to_owned()];
    assert_eq!(bench.read(&view).1.len(), 3);
    let query = |sql: &str, key: &str| {
        let mut spec = spec("");
        (spec.table, spec.query, spec.key) = (None, Some(sql.to_owned()), vec![key.to_owned()]);
        spec
    };
    let (plan, rows, bad) =
        bench.read(&query("SELECT name, COUNT(*) AS n, MAX(n) AS most FROM t GROUP BY id -- all", "name"));
    assert_eq!((rows.len(), bad.len()), (2, 1), "a and A are two keys, and NULL is none: {rows:?}");
    assert!(crate::types::schema_text(&plan.contract).contains("most decimal(20,0)"), "{:?}", plan.contract);
    let mut twice = bench.connection().source(&query("SELECT 1 AS k UNION ALL SELECT 1", "k")).unwrap();
    let problem = twice.begin(&Read::default()).unwrap_err();
    assert!(problem.cause.contains("not unique"), "{problem}");
}

#[test]
fn columns_and_rows_that_are_not_granted_stay() {
    let bench = MyBench::new();
    bench.run(&[
        "CREATE TABLE t (id int PRIMARY KEY, name varchar(20), age int)",
        "INSERT INTO t VALUES (1, 'a', 5), (2, 'A', 6), (3, 'a ', 7), (4, NULL, 8)",
    ]);
    let filter = Filter::parse("name = 'a'").unwrap();
    let read = Read { columns: Some(vec!["age".to_owned()]), filter: Some(filter), ..Read::default() };
    let mut source = bench.connection().source(&spec("t")).unwrap();
    let plan = source.begin(&read).unwrap();
    let mut rows = Rows::default();
    let counts = source.read(&plan.splits[0], &mut rows).unwrap();
    // The server finds all that its collation takes for `a`, and the row without a name is not read.
    assert_eq!((counts.read, counts.sent, counts.filtered), (3, 1, 2), "the filter's texts are equal byte by byte");
    assert_eq!(rows.json(&plan.contract), ["{\"age\":5}"]);
}

#[test]
fn a_filter_may_name_characters_that_a_column_does_not_have() {
    let bench = MyBench::new();
    bench.run(&[
        "CREATE TABLE t (id int PRIMARY KEY, code varchar(20) CHARACTER SET ascii, name varchar(20) CHARACTER SET utf8mb3)",
        "INSERT INTO t VALUES (1, 'a', '张'), (2, 'b', '王')",
    ]);
    let read = |filter: &str| {
        let read = Read { filter: Some(Filter::parse(filter).unwrap()), ..Read::default() };
        let mut source = bench.connection().source(&spec("t")).unwrap();
        let plan = source.begin(&read).unwrap();
        let counts = source.read(&plan.splits[0], &mut Rows::default()).unwrap();
        (counts.read, counts.sent)
    };
    assert_eq!(read("name = '张' AND code = 'a'"), (1, 1), "the server finds it");
    // It would refuse to compare, and the rows are looked at here.
    assert_eq!(read("code IN ('a', '张')"), (2, 1));
    assert_eq!(read("name IN ('张', '\u{20bb7}')"), (2, 1));
}

#[test]
fn an_incremental_run_reads_above_the_mark_and_what_is_late() {
    let bench = MyBench::new();
    bench.run(&[
        "CREATE TABLE t (id int PRIMARY KEY, at timestamp(6) NULL, KEY (at))",
        "INSERT INTO t VALUES (1, '2026-01-01 00:00:00'), (2, '2026-01-02 00:00:00'), (3, '2026-01-03 00:00:00'), (4, NULL), (5, '2036-01-01 00:00:00')",
    ]);
    let time = |text: &str| Watermark::Timestamp(crate::types::parse_timestamp(text).unwrap());
    let ids = |read: &Read, late_ms: i64| {
        let mut spec = spec("t");
        (spec.watermark, spec.late_ms) = (Some("at".to_owned()), late_ms);
        let mut source = bench.connection().source(&spec).unwrap();
        let (plan, rows) = read_all(source.as_mut(), read);
        let ids: Vec<String> = rows.json(&plan.contract).iter().map(|row| row[6..7].to_owned()).collect();
        (ids.join(""), plan.watermark)
    };
    let mark_max = Some(time("2026-06-01 00:00:00"));
    let first = ids(&Read { mark_max: mark_max.clone(), ..Read::default() }, 0);
    assert_eq!(first, ("12345".to_owned(), Some(time("2026-01-03 00:00:00"))));
    let next = Read { from: first.1.clone(), mark_max, ..Read::default() };
    assert_eq!(ids(&next, 0).0, "345", "the mark itself is read again");
    assert_eq!(ids(&next, 86_400_000).0, "2345");
    let upto = Read { to: Some(time("2026-01-02 00:00:00")), ..Read::default() };
    assert_eq!(ids(&upto, 0), ("124".to_owned(), Some(time("2026-01-02 00:00:00"))));
}
