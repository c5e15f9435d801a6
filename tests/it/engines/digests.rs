//! A row's digest is the same whichever engine kept the row, for every contract type and the values at its edges, and is
//! another as soon as any one value is another. Each engine really stores the rows and gives them back.

use super::rows::{Rows, land, landing, read};
use super::{Engine, Place};
use arrow::record_batch::RecordBatch;
use posthouse_connectors::{parquet, types};
use posthouse_protocol::batch::{Batch, BatchBuilder, Value};
use posthouse_protocol::digest::Digester;
use posthouse_protocol::schema::{Contract, ContractType, Item};
use std::collections::BTreeSet;

const ENGINES: [Engine; 4] = [Engine::Postgres, Engine::MariaDb, Engine::Sqlite, Engine::SqlServer];

#[test]
fn rows_of_every_contract_type_have_one_digest_in_every_engine_and_another_for_any_other_value() {
    let contract = every_type();
    let long = "長".repeat(40_000);
    let digits = format!("-{}.{}1", "9".repeat(1_000), "0".repeat(300));
    let columns = edges(&long, &digits);
    // The first row has the first value of each column; each other row differs from it in one value.
    let usual: Vec<Value<'_>> = columns.iter().map(|values| values[0]).collect();
    let mut rows = vec![usual.clone()];
    for (index, values) in columns.iter().enumerate() {
        for value in values.iter().skip(1).copied().chain([Value::Null]) {
            let mut row = usual.clone();
            row[index] = value;
            rows.push(row);
        }
    }
    let batch = batch(&contract, &rows);
    let expected = hashes(&contract, std::slice::from_ref(&batch));
    let distinct: BTreeSet<&[u8; 32]> = expected.iter().collect();
    assert_eq!(distinct.len(), rows.len(), "two rows that differ in a value have one digest");
    each_keeps("edges", &contract, &batch, &|found| assert_eq!(found, expected));
}

#[test]
fn what_means_the_same_has_one_digest_in_every_engine() {
    let contract = every_type();
    let usual: Vec<Value<'_>> = edges("long", "0").iter().map(|values| values[0]).collect();
    let mut rows = Vec::new();
    for (ratio, code, extra) in [
        (0.0, "ab", "{\"a\":[1.5,\"二\"],\"b\":1e2}"),
        (-0.0, "ab  ", " { \"b\": 100.0, \"a\" : [1.50, \"\\u4e8c\"] }"),
    ] {
        let mut row = usual.clone();
        for (name, value) in
            [("ratio", Value::Float(ratio)), ("code", Value::Text(code)), ("extra", Value::Text(extra))]
        {
            row[contract.position(name).expect("a column")] = value;
        }
        rows.push(row);
    }
    let batch = batch(&contract, &rows);
    let expected = hashes(&contract, std::slice::from_ref(&batch));
    assert_eq!(expected[0], expected[1]);
    each_keeps("same", &contract, &batch, &|found| assert_eq!(found, expected));
}

#[test]
fn tables_in_each_engines_own_types_have_one_digest_and_any_change_of_a_value_shows_in_all() {
    let places = ENGINES.map(Place::new);
    for (place, made) in places.iter().zip([POSTGRES, MARIADB, SQLITE, SQLSERVER]) {
        place.run(made);
    }
    let look = || -> Vec<Vec<[u8; 32]>> {
        let of = |place: &Place| {
            let (contract, rows) = read(place, "kept", &["id"]);
            assert_eq!(rows.bad, vec![]);
            hashes(&contract, &rows.batches)
        };
        places.iter().map(of).collect()
    };
    let mut before = look();
    assert!(before.iter().all(|found| *found == before[0] && found.len() == 3), "{before:?}");
    let (contract, rows) = read(&places[0], "kept", &["id"]);
    let lake = in_parquet("kept", &contract, rows.batches);
    assert_eq!(hashes(&contract, &lake.batches), before[0]);
    for item in contract.items.iter().filter(|item| item.name != "id") {
        for place in &places {
            place.run(&format!(
                "UPDATE {} SET {} = NULL WHERE {} = 2",
                place.named("kept"),
                place.quote(&item.name),
                place.quote("id")
            ));
        }
        let after = look();
        assert!(after.iter().all(|found| *found == after[0]), "{}: {after:?}", item.name);
        let changed = after[0].iter().filter(|hash| !before[0].contains(hash)).count();
        assert_eq!((changed, after[0].len()), (1, 3), "{}", item.name);
        before = after;
    }
}

/// Lands a batch in each engine and in files, and gives the digests of what is read from there.
fn each_keeps(name: &str, contract: &Contract, batch: &RecordBatch, check: &dyn Fn(Vec<[u8; 32]>)) {
    for engine in ENGINES {
        let place = Place::new(engine);
        let refused = land(&place, &landing(name, place.table("kept"), contract), vec![batch.clone()]);
        assert_eq!(refused, 0, "{engine:?}");
        let (found, rows) = read(&place, "kept", &[]);
        assert_eq!(types::schema_text(&found), types::schema_text(contract), "{engine:?}");
        assert_eq!(rows.bad, vec![], "{engine:?}");
        check(hashes(&found, &rows.batches));
    }
    let rows = in_parquet(name, contract, vec![batch.clone()]);
    check(hashes(contract, &rows.batches));
}

/// What is read of batches that were landed in files.
fn in_parquet(name: &str, contract: &Contract, batches: Vec<RecordBatch>) -> Rows {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut files = parquet::destination(folder.path(), &landing(name, String::new(), contract)).expect("a folder");
    files.prepare().expect("prepared");
    files.stage("all", [1; 32], &mut batches.into_iter().map(Ok)).expect("staged");
    files.publish().expect("published");
    let mut rows = Rows::default();
    files.read_standing(None, &mut rows).expect("read");
    rows
}

/// The digest of each row, sorted.
fn hashes(contract: &Contract, batches: &[RecordBatch]) -> Vec<[u8; 32]> {
    let (mut digester, mut found) = (Digester::new([7; 32]), Vec::new());
    for record in batches {
        let batch = Batch::new(contract, record.clone()).expect("rows of the contract");
        digester.each(&batch, |row| found.push(row.hash)).expect("each row has a digest");
    }
    found.sort_unstable();
    found
}

fn batch(contract: &Contract, rows: &[Vec<Value<'_>>]) -> RecordBatch {
    let mut builder = BatchBuilder::new(contract);
    for row in rows {
        builder.push(row).expect("a row of the contract");
    }
    builder.finish().expect("a batch")
}

fn every_type() -> Contract {
    use ContractType::*;
    let item =
        |(name, r#type): (&str, ContractType)| Item { name: name.to_owned(), r#type, nullable: true, comment: None };
    let items = [
        ("flag", Boolean),
        ("number", Integer),
        ("amount", Decimal { precision: 15, scale: 4 }),
        ("exact", Decimal { precision: 38, scale: 10 }),
        ("ratio", Float),
        ("姓名", Text),
        ("code", Char),
        ("photo", Bytes),
        ("born", Date),
        ("seen", Timestamp),
        ("extra", Json),
        ("measure", Number),
    ];
    Contract { items: items.into_iter().map(item).collect(), key: Vec::new() }
}

/// Values of each column of [`every_type`] that every engine keeps, each of which is another one.
fn edges<'a>(long: &'a str, digits: &'a str) -> Vec<Vec<Value<'a>>> {
    let nines = |digits: u32| 10i128.pow(digits) - 1;
    let date = |text: &str| Value::Date(types::parse_date(text).expect("a date"));
    let time = |text: &str| Value::Timestamp(types::parse_timestamp(text).expect("a time"));
    let texts = |list: &[&'a str]| -> Vec<Value<'a>> { list.iter().copied().map(Value::Text).collect() };
    vec![
        [true, false].map(Value::Boolean).to_vec(),
        [1, 0, -1, i64::MIN, i64::MAX, i64::MAX - 1].map(Value::Integer).to_vec(),
        [12_500, 0, 1, -1, nines(15), -nines(15)].map(|unscaled| Value::Decimal(unscaled, 4)).to_vec(),
        [12_500, 0, 1, -10i128.pow(30), nines(38), -nines(38)].map(|unscaled| Value::Decimal(unscaled, 10)).to_vec(),
        [0.1, 0.0, 0.1f64.next_up(), f64::MAX, f64::MIN, f64::MIN_POSITIVE, 5e-324].map(Value::Float).to_vec(),
        texts(&[
            "王",
            "",
            " ",
            "a",
            "a ",
            "A",
            "é",
            "e\u{301}",
            "𠮷田 䶮 😀",
            "it's \"quoted\"; --",
            "line\r\nbreak\ttab",
            "NULL",
            "\\N",
            long,
        ]),
        texts(&["610101", "", "ab", " ab", "AB"]),
        [&b"\0\xff\x80\n"[..], &[], &[0], "字".as_bytes()].map(Value::Bytes).to_vec(),
        ["2000-02-29", "0001-01-01", "9999-12-31", "1969-12-31", "1970-01-01"].map(date).to_vec(),
        [
            "2026-11-22 05:09:25.123456",
            "2026-11-22 05:09:25.123457",
            "0001-01-01 00:00:00",
            "9999-12-31 23:59:59.999999",
            "1969-12-31 23:59:59.999999",
            "1970-01-01 00:00:00",
        ]
        .map(time)
        .to_vec(),
        texts(&[
            "{\"a\":1.5}",
            "{\"a\":1.51}",
            "{\"a\":\"1.5\"}",
            "{\"A\":1.5}",
            "{}",
            "[]",
            "[1.5]",
            "null",
            "\"\"",
            "true",
            "12345678901234567890.5",
        ]),
        ["-12.5", "0", "12.5", "1000000", digits, "NaN", "Infinity", "-Infinity"].map(Value::Number).to_vec(),
    ]
}

const POSTGRES: &str = r#"
CREATE TABLE kept (id int PRIMARY KEY, flag boolean, small smallint, amount numeric(10,2), ratio double precision,
  name varchar(40), code char(6), photo bytea, born date, seen timestamptz, extra jsonb, measure numeric);
INSERT INTO kept VALUES
  (1, true, -32768, 1234.50, 0.1, '王 ''一''', 'ab', '\x00ff', '2000-02-29', '2026-11-22 13:09:25.123456+08',
   '{"b": 1.50, "a": [true, null]}', 12.500),
  (2, false, 32767, -0.01, -1e300, 'a ', '', '\x', '1969-12-31', '1969-12-31 23:59:59.5+00', '"字"',
   -99999999999999999999999999999999999.5),
  (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
"#;

const MARIADB: &str = r#"
CREATE TABLE kept (id int PRIMARY KEY, flag bit(1), small smallint, amount decimal(10,2), ratio double,
  name varchar(40) CHARACTER SET gbk, code char(6), photo varbinary(20), born date, seen datetime(6), extra json,
  measure decimal(65,30));
INSERT INTO kept VALUES
  (1, b'1', -32768, 1234.5, 0.1, '王 ''一''', 'ab', X'00FF', '2000-02-29', '2026-11-22 05:09:25.123456',
   '{ "a": [true, null], "b": 1.5 }', 12.5),
  (2, b'0', 32767, -0.01, -1e300, 'a ', '', X'', '1969-12-31', '1969-12-31 23:59:59.5', '"字"',
   -99999999999999999999999999999999999.5),
  (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
"#;

const SQLITE: &str = r#"
CREATE TABLE kept (id INTEGER PRIMARY KEY NOT NULL, flag BOOLEAN, small INTEGER, amount DECIMAL(10,2), ratio DOUBLE,
  name TEXT, code CHAR(6), photo BLOB, born DATE, seen TIMESTAMP, extra JSON_TEXT, measure NUMBER_TEXT);
INSERT INTO kept VALUES
  (1, 1, -32768, 1234.5, 0.1, '王 ''一''', 'ab    ', X'00FF', '2000-02-29', '2026-11-22T13:09:25.123456+08:00',
   '{"b":1.50,"a":[true,null]}', '12.5'),
  (2, 0, 32767, -0.01, -1e300, 'a ', '', X'', '1969-12-31', '1969-12-31 23:59:59.500', '"\u5b57"',
   '-99999999999999999999999999999999999.5'),
  (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
"#;

/// What a text holds beside text is said by a property of its column.
const SQLSERVER: &str = r#"
CREATE TABLE [dbo].[kept] ([id] int NOT NULL PRIMARY KEY, [flag] bit NULL, [small] smallint NULL,
  [amount] decimal(10,2) NULL, [ratio] float(53) NULL, [name] nvarchar(40) NULL, [code] nchar(6) NULL,
  [photo] varbinary(20) NULL, [born] date NULL, [seen] datetime2(7) NULL, [extra] nvarchar(max) NULL,
  [measure] nvarchar(max) NULL);
EXEC sys.sp_addextendedproperty @name = N'posthouse_type', @value = N'json', @level0type = N'SCHEMA',
  @level0name = N'dbo', @level1type = N'TABLE', @level1name = N'kept', @level2type = N'COLUMN', @level2name = N'extra';
EXEC sys.sp_addextendedproperty @name = N'posthouse_type', @value = N'number', @level0type = N'SCHEMA',
  @level0name = N'dbo', @level1type = N'TABLE', @level1name = N'kept', @level2type = N'COLUMN', @level2name = N'measure';
INSERT INTO [dbo].[kept] ([id], [flag], [small], [amount], [ratio], [name], [code], [photo], [born], [seen], [extra],
  [measure]) VALUES
  (1, 1, -32768, 1234.50, 0.1, N'王 ''一''', N'ab', 0x00FF, '2000-02-29', '2026-11-22 05:09:25.1234560',
   N'{"a":[true,null],"b":1.50}', N'12.5'),
  (2, 0, 32767, -0.01, -1E300, N'a ', N'', 0x, '1969-12-31', '1969-12-31 23:59:59.5000000', N'"字"',
   N'-99999999999999999999999999999999999.5'),
  (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
"#;
