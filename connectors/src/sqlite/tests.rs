//! The suite on SQLite, and what SQLite alone can do wrong: declared types that values do not keep to, views,
//! queries, tables without rowids, constraints that refuse rows, locks, late rows.

mod charsets;
mod examining;

use super::*;
use crate::Read;
use crate::contract::{Bench, Rows, item, land, landing, people, read_all, small, spec, standing};
use posthouse_protocol::filter::Filter;
use posthouse_protocol::job::Write;
use posthouse_protocol::schema::{Contract, ContractType};
use posthouse_protocol::watermark::Watermark;

struct SqliteBench {
    folder: tempfile::TempDir,
}

impl SqliteBench {
    fn path(&self) -> PathBuf {
        self.folder.path().join("db.sqlite")
    }
    fn connection(&self) -> SqliteConnection {
        SqliteConnection { name: "db".to_owned(), path: self.path(), charset: Charset::Utf8 }
    }
    fn run(&self, sql: &str) {
        rusqlite::Connection::open(self.path()).unwrap().execute_batch(sql).unwrap();
    }
    fn text(&self, sql: &str) -> String {
        rusqlite::Connection::open(self.path()).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
    }
    fn read(&self, spec: &TableSpec, read: &Read) -> (crate::Plan, Rows) {
        read_all(self.connection().source(spec).unwrap().as_mut(), read)
    }
}

impl Bench for SqliteBench {
    const KEYED: bool = true;
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }
    fn destination(&self, landing: &Landing) -> Result<Box<dyn Destination>, Problem> {
        self.connection().destination(landing)
    }
    fn source(&self, spec: &TableSpec) -> Option<Box<dyn Source>> {
        Some(self.connection().source(spec).unwrap())
    }
    fn make_strict(&self, table: &str, contract: &Contract, column: &str) -> bool {
        let mut contract = contract.clone();
        contract.items.iter_mut().filter(|item| item.name == column).for_each(|item| item.nullable = false);
        self.run(&columns::create_table(table, &contract));
        true
    }
    const HAS_FRONT_TABLES: bool = true;
    fn front(&self, spec: &FrontSpec) -> Option<Box<dyn FrontTable>> {
        Some(self.connection().front(spec).unwrap())
    }
    fn lose(&self) {
        for end in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{end}", self.path().display()));
        }
        std::fs::create_dir(self.path()).unwrap();
    }
}

crate::contract::suite!(SqliteBench);

#[test]
fn values_that_are_not_what_their_column_declares_are_bad_rows_with_their_original_bytes() {
    let bench = SqliteBench::new();
    bench.run(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, amount DECIMAL(10,2), flag BOOLEAN, born DATE, seen DATETIME, name TEXT, extra JSON, code CHAR(2));
         INSERT INTO t VALUES
           (1, 12.34, 1, '2024-02-29', '2024-02-29T08:00:00+08:00', '王', '{\"a\":1}', 'ab'),
           (2, '1.234', 0, NULL, NULL, NULL, NULL, NULL),
           (3, 'many', 0, NULL, NULL, NULL, NULL, NULL),
           (4, 1, 2, NULL, NULL, NULL, NULL, NULL),
           (5, 1, 1, '2024-02-30', NULL, NULL, NULL, NULL),
           (6, 1, 1, 20240201, NULL, NULL, NULL, NULL),
           (7, 1, 1, NULL, '2024-02-01', NULL, NULL, NULL),
           (8, 1, 1, NULL, NULL, CAST(x'b3c2fd' AS TEXT), NULL, NULL),
           (9, 1, 1, NULL, NULL, NULL, '{\"a\":1,\"a\":2}', NULL),
           (10, 1, 1, NULL, NULL, x'00', NULL, NULL),
           (11, 0.1, 0, '1969-12-31', '1969-12-31 23:59:59.5', '', 12.5, 'x');",
    );
    let (plan, rows) = bench.read(&spec("t"), &Read::default());
    let columns = "id integer not null, amount decimal(10,2), flag boolean, born date, seen timestamp, name text, extra json, code char; key (id)";
    assert_eq!(crate::types::schema_text(&plan.contract), columns);
    let good = [
        r#"{"id":1,"amount":12.34,"flag":true,"born":"2024-02-29","seen":"2024-02-29T00:00:00Z","name":"王","extra":"{\"a\":1}","code":"ab"}"#,
        r#"{"id":11,"amount":0.10,"flag":false,"born":"1969-12-31","seen":"1969-12-31T23:59:59.5Z","name":"","extra":"12.5","code":"x"}"#,
    ];
    assert_eq!(rows.json(&plan.contract), good);
    let bad: Vec<_> = rows.bad.iter().map(|bad| (bad.key.as_str(), bad.reason.split(':').next().unwrap())).collect();
    let expected = [
        ("2", "`amount`"),
        ("3", "`amount`"),
        ("4", "`flag`"),
        ("5", "`born`"),
        ("6", "`born`"),
        ("7", "`seen`"),
        ("8", "`name`"),
        ("9", "`extra`"),
        ("10", "`name`"),
    ];
    assert_eq!(bad, expected);
    assert!(rows.bad[6].original.contains(r#""name":{"hex":"b3c2fd"}"#), "{}", rows.bad[6].original);
    assert!(rows.bad[1].original.contains(r#""amount":"many""#), "{}", rows.bad[1].original);
}

#[test]
fn every_split_sees_the_snapshot_that_begin_took() {
    let bench = SqliteBench::new();
    bench.run("PRAGMA journal_mode = WAL; CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT)");
    bench.run("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 150000) INSERT INTO t SELECT i, 'before' FROM n");
    let mut connection = bench.connection();
    let mut source = connection.source(&spec("t")).unwrap();
    let plan = source.begin(&Read::default()).unwrap();
    assert_eq!(plan.splits, ["rowid.1-65535", "rowid.65536-131071", "rowid.131072-150000"]);
    bench.run("UPDATE t SET name = 'after'; DELETE FROM t WHERE id > 140000");
    let mut rows = Rows::default();
    let counts: Vec<u64> = plan.splits.iter().map(|split| source.read(split, &mut rows).unwrap().sent).collect();
    assert_eq!(counts, [65_535, 65_536, 18_929]);
    let mut again = Rows::default();
    source.read(&plan.splits[1], &mut again).unwrap();
    assert!(again.json(&plan.contract).iter().all(|row| row.contains("before")));
    assert!(source.read("rowid.1-2", &mut again).is_err());
}

#[test]
fn views_queries_and_tables_without_rowids_are_read_in_key_order() {
    let bench = SqliteBench::new();
    bench.run(
        "CREATE TABLE w (division TEXT, number INTEGER, amount DECIMAL(8,2), PRIMARY KEY (division, number)) WITHOUT ROWID;
         INSERT INTO w VALUES ('b', 2, 1.5), ('a', 9, 2.25), ('a', 1, NULL), ('b', 1, 4);
         CREATE VIEW v AS SELECT number, upper(division) AS division, amount FROM w WHERE number < 9;",
    );
    let (plan, rows) = bench.read(&spec("w"), &Read::default());
    assert_eq!(plan.contract.key, ["division", "number"]);
    assert_eq!(plan.splits, ["row.1-4"]);
    assert_eq!(rows.json(&plan.contract)[0], r#"{"division":"a","number":1,"amount":null}"#);
    let keyed = TableSpec { key: vec!["division".to_owned(), "number".to_owned()], ..spec("v") };
    let (plan, rows) = bench.read(&keyed, &Read::default());
    let columns = "number integer not null, division text not null, amount decimal(8,2); key (division, number)";
    assert_eq!((crate::types::schema_text(&plan.contract).as_str(), rows.count()), (columns, 3));
    let query = "SELECT division, count(*) AS n, CAST(sum(amount) AS REAL) AS total FROM w GROUP BY division";
    let query = TableSpec { table: None, query: Some(query.to_owned()), ..keyed };
    let query = TableSpec { key: vec!["division".to_owned()], ..query };
    let (plan, rows) = bench.read(&query, &Read::default());
    assert_eq!(
        crate::types::schema_text(&plan.contract),
        "division text not null, n integer, total float; key (division)"
    );
    assert_eq!(
        rows.json(&plan.contract),
        [r#"{"division":"a","n":2,"total":2.25}"#, r#"{"division":"b","n":2,"total":5.5}"#]
    );
    let twice = TableSpec { key: vec!["number".to_owned()], ..spec("v") };
    let problem = bench.connection().source(&twice).unwrap().begin(&Read::default()).unwrap_err();
    assert!(problem.cause.contains("not unique"), "{problem}");
    let mut written = TableSpec { query: Some("DELETE FROM w RETURNING *".to_owned()), ..query.clone() };
    assert!(bench.connection().source(&written).unwrap().begin(&Read::default()).is_err());
    written.query = Some("SELECT 1 AS a; DROP TABLE w".to_owned());
    assert!(bench.connection().source(&written).unwrap().begin(&Read::default()).is_err());
    assert_eq!(bench.text("SELECT count(*) || '' FROM w"), "4");
}

#[test]
fn columns_and_filter_of_a_grant_are_part_of_the_read() {
    let bench = SqliteBench::new();
    bench.run(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, division TEXT, name TEXT, amount DECIMAL(8,2));
         INSERT INTO t VALUES (1, '610100', 'a', 1), (2, '610200', 'b', 2), (3, NULL, 'c', 3), (4, '610100', 'd', 4), (5, x'ff', 'e', 5);",
    );
    let read = Read {
        columns: Some(vec!["name".to_owned(), "id".to_owned()]),
        filter: Some(Filter::parse("division = '610100' AND amount < 4.00").unwrap()),
        ..Read::default()
    };
    let (plan, rows) = bench.read(&spec("t"), &read);
    assert_eq!(crate::types::schema_text(&plan.contract), "name text, id integer not null; key (id)");
    assert_eq!(rows.json(&plan.contract), [r#"{"name":"a","id":1}"#]);
    assert_eq!(rows.bad.len(), 1, "a row that cannot be judged goes to quarantine, not to the consumer");
    let hidden = Read { columns: Some(vec!["name".to_owned()]), ..Read::default() };
    assert!(bench.read(&spec("t"), &hidden).0.contract.key.is_empty());
    for filter in ["missing = 1", "name = 1"] {
        let read = Read { filter: Some(Filter::parse(filter).unwrap()), ..Read::default() };
        let problem = bench.connection().source(&spec("t")).unwrap().begin(&read).unwrap_err();
        assert!(matches!(problem.code, Code::FilterUnsupported | Code::SourceFailed), "{problem}");
    }
}

#[test]
fn the_file_leaves_out_what_is_surely_none_of_the_grants_and_nothing_that_is_odd() {
    let bench = SqliteBench::new();
    bench.run(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, age INTEGER, name TEXT COLLATE NOCASE);
         INSERT INTO t VALUES (1, 20, 'a'), (2, 20, 'A'), (3, 17, 'a'), (4, NULL, 'a'), (5, 'old', 'a'), (6, 20, x'61');",
    );
    let read = |filter: &str| {
        let read = Read { filter: Some(Filter::parse(filter).unwrap()), ..Read::default() };
        let mut source = bench.connection().source(&spec("t")).unwrap();
        let plan = source.begin(&read).unwrap();
        let mut rows = Rows::default();
        let counts = source.read(&plan.splits[0], &mut rows).unwrap();
        let bad: Vec<String> = rows.bad.iter().map(|bad| bad.key.clone()).collect();
        (rows.json(&plan.contract), [counts.read, counts.sent, counts.filtered, counts.quarantined], bad.join(" "))
    };
    // Texts are compared by their bytes, whatever the column says; what is stored as something else is told.
    let (rows, counts, bad) = read("age >= 18 AND name = 'a'");
    assert_eq!(rows, [r#"{"id":1,"age":20,"name":"a"}"#]);
    assert_eq!((counts, bad.as_str()), ([3, 1, 0, 2], "5 6"));
    // An order of texts is the filter's own.
    assert_eq!(read("name > 'A'").1, [6, 3, 1, 2]);
    assert_eq!(read("NOT age IS NULL AND id IN (3, 4)").1, [1, 1, 0, 0]);
    // An order that only the program which made the file knows.
    bench.run(
        "PRAGMA writable_schema = ON;
         UPDATE sqlite_master SET sql = replace(sql, 'NOCASE', 'LOCALIZED') WHERE name = 't'",
    );
    assert_eq!(read("age >= 18 AND name = 'a'").1, [3, 1, 0, 2]);
}

#[test]
fn a_date_of_zeros_is_no_mark_and_stays_one() {
    let bench = SqliteBench::new();
    bench.run(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, seen TIMESTAMP, other TIMESTAMP);
         INSERT INTO t VALUES (1, '0000-00-00 00:00:00', '2026-01-01 00:00:00'), (2, '2026-01-01 00:00:00', '0000-00-00');",
    );
    let marked = TableSpec { watermark: Some("seen".to_owned()), ..spec("t") };
    let (plan, rows) = bench.read(&marked, &Read { zero_dates_null: true, ..Read::default() });
    assert_eq!(rows.json(&plan.contract), [r#"{"id":2,"seen":"2026-01-01T00:00:00Z","other":null}"#]);
    assert_eq!(rows.bad.iter().map(|bad| bad.key.as_str()).collect::<Vec<_>>(), ["1"]);
}

#[test]
fn an_incremental_read_takes_late_rows_whatever_form_their_time_has() {
    let bench = SqliteBench::new();
    bench.run(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, seen TIMESTAMP);
         CREATE INDEX t_seen ON t (seen);
         INSERT INTO t VALUES (1, '2026-01-01 00:00:00'), (2, '2026-01-01T10:00:00+08:00'), (3, '2026-01-01 03:00:00');",
    );
    let marked = TableSpec { watermark: Some("seen".to_owned()), late_ms: 60_000, ..spec("t") };
    let (plan, rows) = bench.read(&marked, &Read::default());
    let three = Watermark::Timestamp(crate::types::parse_timestamp("2026-01-01 03:00:00").unwrap());
    assert_eq!((plan.watermark.clone(), rows.count()), (Some(three.clone()), 3));
    bench.run(
        "INSERT INTO t VALUES (4, '2026-01-01 02:59:30'), (5, '2026-01-01T11:30:00+08:00'), (6, '2025-12-31 23:59:59'),
                              (7, '2026-01-01 02:00:00'), (8, NULL), (9, 'soon')",
    );
    let next = Read { from: plan.watermark, ..Read::default() };
    let (plan, rows) = bench.read(&marked, &next);
    let ids: Vec<String> = rows.json(&plan.contract).iter().map(|row| row[6..7].to_owned()).collect();
    assert_eq!(ids, ["3", "4", "5", "8"], "what is late, new or without a mark");
    assert_eq!(rows.bad.iter().map(|bad| bad.key.as_str()).collect::<Vec<_>>(), ["9"]);
    assert_eq!(plan.watermark.as_ref().map(ToString::to_string).as_deref(), Some("2026-01-01T03:30:00Z"));
    let to = Read { to: Some(three), ..Read::default() };
    assert_eq!(bench.read(&marked, &to).1.count(), 7);
    let strict = TableSpec { late_ms: 0, ..marked };
    let (again, rows) = bench.read(&strict, &Read { from: plan.watermark.clone(), ..Read::default() });
    assert_eq!(
        (rows.json(&again.contract).len(), again.watermark),
        (2, plan.watermark),
        "the row without a mark, and the last mark again"
    );
}

#[test]
fn rows_that_a_constraint_refuses_go_to_quarantine_with_the_reason() {
    let bench = SqliteBench::new();
    bench.run(
        "CREATE TABLE \"人口 base\" (id INTEGER PRIMARY KEY, name TEXT UNIQUE, seen TIMESTAMP CHECK (seen < '2000-'))",
    );
    let contract = small();
    let late = 1_000_000_000;
    for (number, write) in [Write::Upsert, Write::Append, Write::Replace].into_iter().enumerate() {
        let landing = landing(number as u8, write, &contract);
        let rows = people(&contract, &[(1, "王", 1), (2, "李", late), (3, "王", 3), (4, "赵", 4)]);
        let published = land(&bench, &landing, rows);
        assert_eq!((published.rows, published.quarantined), (2, 2), "{write}");
        let reasons = format!(
            "SELECT group_concat(reason, ' | ') FROM posthouse_quarantine WHERE transfer = '{}'",
            landing.transfer
        );
        let reasons = bench.text(&reasons);
        assert!(
            reasons.contains("CHECK constraint failed") && reasons.contains("UNIQUE constraint failed"),
            "{reasons}"
        );
        assert_eq!(bench.text("SELECT group_concat(id) FROM \"人口 base\""), "1,4");
    }
    assert_eq!(bench.text("SELECT count(*) || '' FROM posthouse_applied"), "3");
    assert_eq!(bench.text("SELECT count(*) || '' FROM sqlite_schema WHERE name LIKE 'posthouse_staging%'"), "0");
}

#[test]
fn appending_another_value_under_a_key_that_is_there_is_refused_by_row() {
    let bench = SqliteBench::new();
    let contract = small();
    land(&bench, &landing(1, Write::Append, &contract), people(&contract, &[(1, "王", 1)]));
    let published =
        land(&bench, &landing(2, Write::Append, &contract), people(&contract, &[(1, "李", 1), (2, "赵", 2)]));
    assert_eq!((published.rows, published.inserted, published.quarantined), (1, 1, 1));
    assert_eq!(
        bench.text("SELECT key || original FROM posthouse_quarantine"),
        r#"1{"id":1,"name":"李","seen":"1970-01-01 00:00:01"}"#
    );
    assert_eq!(bench.text("SELECT group_concat(name) FROM \"人口 base\""), "王,赵");
}

#[test]
fn replacing_keeps_indexes_triggers_and_views_of_the_table() {
    let bench = SqliteBench::new();
    let contract = small();
    land(&bench, &landing(1, Write::Replace, &contract), people(&contract, &[(1, "王", 1)]));
    bench.run(
        "CREATE INDEX by_name ON \"人口 base\" (name); CREATE VIEW names AS SELECT name FROM \"人口 base\";
         CREATE TABLE log (id INTEGER); CREATE TRIGGER t AFTER INSERT ON \"人口 base\" BEGIN INSERT INTO log VALUES (new.id); END;",
    );
    land(&bench, &landing(2, Write::Replace, &contract), people(&contract, &[(2, "李", 2), (3, "赵", 3)]));
    assert_eq!(bench.text("SELECT group_concat(name) FROM names"), "李,赵");
    assert_eq!(bench.text("SELECT group_concat(id) FROM log"), "2,3");
    assert_eq!(bench.text("SELECT count(*) || '' FROM sqlite_schema WHERE name = 'by_name'"), "1");
}

#[test]
fn replacing_takes_no_row_of_a_table_that_refers_to_the_target() {
    let bench = SqliteBench::new();
    let contract = small();
    land(&bench, &landing(1, Write::Replace, &contract), people(&contract, &[(1, "王", 1), (2, "李", 2)]));
    bench.run(
        "CREATE TABLE permits (id INTEGER PRIMARY KEY, holder INTEGER NOT NULL REFERENCES \"人口 base\" (id) ON DELETE CASCADE);
         INSERT INTO permits VALUES (10, 1), (20, 2)",
    );
    land(
        &bench,
        &landing(2, Write::Replace, &contract),
        people(&contract, &[(1, "赵", 3), (2, "李", 2), (3, "周", 3)]),
    );
    assert_eq!(bench.text("SELECT group_concat(id) FROM permits"), "10,20");
    assert_eq!(bench.text("SELECT group_concat(name) FROM \"人口 base\""), "赵,李,周");
    // Without the row that a permit refers to, all stays as it was.
    let third = landing(3, Write::Replace, &contract);
    let mut destination = bench.destination(&third).unwrap();
    destination.prepare().unwrap();
    destination.stage("a", [1; 32], &mut [Ok(people(&contract, &[(1, "赵", 3)]))].into_iter()).unwrap();
    let refused = destination.publish().unwrap_err();
    assert!(refused.code == Code::DestinationFailed && refused.cause.contains("foreign keys"), "{refused}");
    drop(destination);
    assert_eq!(bench.text("SELECT group_concat(id) FROM permits"), "10,20");
    assert_eq!(bench.text("SELECT group_concat(name) FROM \"人口 base\""), "赵,李,周");
}

#[test]
fn a_decimal_that_a_column_of_numbers_cannot_keep_is_refused_not_rounded() {
    let bench = SqliteBench::new();
    bench.run("CREATE TABLE \"人口 base\" (id INTEGER PRIMARY KEY, amount NUMERIC(38,4))");
    let amount = ContractType::Decimal { precision: 38, scale: 4 };
    let mut contract =
        Contract { items: vec![item("id", ContractType::Integer), item("amount", amount)], key: vec!["id".to_owned()] };
    contract.items[0].nullable = false;
    let mut builder = posthouse_protocol::batch::BatchBuilder::new(&contract);
    use posthouse_protocol::batch::Value;
    for (id, unscaled) in
        [(1, 125_000), (2, 1_234_567_890_123_456_789), (3, 10i128.pow(22)), (4, 9_007_199_254_740_993 * 10_000)]
    {
        builder.push(&[Value::Integer(id), Value::Decimal(unscaled, 4)]).unwrap();
    }
    let landing = landing(1, Write::Append, &contract);
    let mut destination = bench.destination(&landing).unwrap();
    destination.prepare().unwrap();
    let staged = destination.stage("a", [1; 32], &mut [Ok(builder.finish().unwrap())].into_iter()).unwrap();
    assert_eq!((staged.landed, staged.bad[0].key.as_str(), staged.bad.len()), (3, "2", 1));
    destination.publish().unwrap();
    drop(destination);
    let rows = standing(&bench, &landing).json(&contract);
    assert_eq!(rows[1], r#"{"id":3,"amount":1000000000000000000.0000}"#);
    assert_eq!(rows[2], r#"{"id":4,"amount":9007199254740993.0000}"#);
}

#[test]
fn a_target_without_the_keys_uniqueness_cannot_be_upserted() {
    let bench = SqliteBench::new();
    bench.run("CREATE TABLE \"人口 base\" (id INTEGER, name TEXT, seen TIMESTAMP)");
    let problem = bench.destination(&landing(1, Write::Upsert, &small())).unwrap().prepare().unwrap_err();
    assert_eq!(problem.code, Code::KeyMissing);
    bench.run("CREATE UNIQUE INDEX one ON \"人口 base\" (id)");
    let contract = small();
    assert_eq!(land(&bench, &landing(2, Write::Upsert, &contract), people(&contract, &[(1, "王", 1)])).inserted, 1);
}

#[test]
fn commits_are_durable_and_a_file_of_ours_lets_readers_pass() {
    let bench = SqliteBench::new();
    let contract = small();
    land(&bench, &landing(1, Write::Append, &contract), people(&contract, &[(1, "王", 1)]));
    assert_eq!(bench.text("PRAGMA journal_mode"), "wal");
    bench.run("PRAGMA journal_mode = DELETE");
    land(&bench, &landing(2, Write::Append, &contract), people(&contract, &[(2, "李", 1)]));
    assert_eq!(bench.text("PRAGMA journal_mode"), "delete", "the owner's choice is left alone");
    let mut other = bench.connection();
    assert!(other.probe().is_ok());
    assert!(SqliteConnection { path: bench.path().join("no"), ..bench.connection() }.probe().is_err());
}

#[test]
fn what_travels_as_a_split_is_cell_by_cell_what_another_program_reads() {
    use posthouse_protocol::batch::{Batch, BatchReader, BatchWriter};
    for seed in 100..130 {
        let random = &mut crate::contract::random::Random(seed);
        let contract = crate::contract::random::contract(random);
        let (from, to) = (SqliteBench::new(), SqliteBench::new());
        let first = landing(1, Write::Replace, &contract);
        land(&from, &first, crate::contract::random::rows(&contract, 200, random));
        let (plan, rows) = from.read(&spec(&first.table), &Read::default());
        assert_eq!(rows.bad, []);
        let mut writer = BatchWriter::new(Vec::new(), &plan.contract).unwrap();
        for record in &rows.batches {
            writer.write(&Batch::new(&plan.contract, record.clone()).unwrap()).unwrap();
        }
        let bytes = writer.finish().unwrap();
        let reader = BatchReader::new(bytes.as_slice(), bytes.len() as u64, &plan.contract).unwrap();
        let second = Landing { contract: plan.contract.clone(), ..landing(2, Write::Append, &contract) };
        let mut destination = to.destination(&second).unwrap();
        destination.prepare().unwrap();
        let mut batches = reader.map(|batch| Ok(batch.unwrap().record().clone()));
        destination.stage("a", *blake3::hash(&bytes).as_bytes(), &mut batches).unwrap();
        drop(destination);
        to.destination(&second).unwrap().publish().unwrap();
        // SQLite itself compares: every cell with its storage class.
        let both = rusqlite::Connection::open(from.path()).unwrap();
        both.execute("ATTACH ?1 AS other", [to.path().display().to_string()]).unwrap();
        let cells: Vec<String> = contract.items.iter().map(|item| format!("quote({})", quote(&item.name))).collect();
        let cells = cells.join(" || ',' || ");
        for (a, b) in [("main", "other"), ("other", "main")] {
            let differing = format!(
                "SELECT count(*) FROM (SELECT {cells}, count(*) FROM {a}.\"人口 base\" GROUP BY 1
                 EXCEPT SELECT {cells}, count(*) FROM {b}.\"人口 base\" GROUP BY 1)"
            );
            assert_eq!(both.query_row(&differing, [], |row| row.get::<_, i64>(0)).unwrap(), 0, "seed {seed}");
        }
        assert_eq!(
            both.query_row("SELECT count(*) FROM other.\"人口 base\"", [], |row| row.get::<_, i64>(0)).unwrap(),
            200
        );
    }
}

#[test]
fn keys_of_refused_rows_are_found_and_not_gone_through() {
    let bench = SqliteBench::new();
    let landing = landing(1, Write::Mirror, &small());
    bench.destination(&landing).unwrap().prepare().unwrap();
    let refused = bench.text("SELECT name FROM sqlite_schema WHERE name LIKE 'posthouse_refused%' AND type = 'table'");
    let db = rusqlite::Connection::open(bench.path()).unwrap();
    let plan = format!(
        "EXPLAIN QUERY PLAN SELECT 1 FROM \"人口 base\" t WHERE NOT EXISTS (SELECT 1 FROM \"{refused}\" s WHERE s.id = t.id)"
    );
    let mut plan = db.prepare(&plan).unwrap();
    let steps: Vec<String> = plan.query_map([], |row| row.get(3)).unwrap().collect::<Result<_, _>>().unwrap();
    assert!(steps.iter().any(|step| step.starts_with("SEARCH s ")), "{steps:?}");
}
