//! Files whose program wrote texts in another charset than SQLite's own: read, landed in, and what is no text there.
//! A date of zeros, where it is to be NULL.

use super::*;
use crate::charset::Edition;

fn coded(bench: &SqliteBench, charset: Charset) -> SqliteConnection {
    SqliteConnection { charset, ..bench.connection() }
}

#[test]
fn texts_are_read_in_the_charset_of_the_program_that_wrote_them() {
    let bench = SqliteBench::new();
    bench.run(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, code CHAR(4), amount DECIMAL(8,2), extra JSON, day DATE);
         INSERT INTO t VALUES
           (1, CAST(x'cdf5d55c80' AS TEXT), CAST(x'cdf5' AS TEXT), '12.50', CAST(x'7b2261223a22cdf5227d' AS TEXT), '2024-02-29'),
           (2, 'abc', NULL, NULL, NULL, NULL),
           (3, CAST(x'cdf5ff' AS TEXT), CAST(x'cdf5' AS TEXT), NULL, NULL, NULL),
           (4, '王', NULL, NULL, NULL, NULL);",
    );
    let spec = spec("t");
    let (plan, rows) = read_all(coded(&bench, Charset::Gbk).source(&spec).unwrap().as_mut(), &Read::default());
    assert_eq!(
        rows.json(&plan.contract),
        [
            r#"{"id":1,"name":"王誠€","code":"王","amount":12.50,"extra":"{\"a\":\"王\"}","day":"2024-02-29"}"#,
            r#"{"id":2,"name":"abc","code":null,"amount":null,"extra":null,"day":null}"#,
        ]
    );
    assert_eq!(
        rows.bad[0],
        crate::BadRow {
            key: "3".to_owned(),
            reason: "`name`: it has bytes that are no characters of GBK".to_owned(),
            original: r#"{"id":3,"name":{"hex":"cdf5ff"},"code":"王","amount":null,"extra":null,"day":null}"#
                .to_owned(),
        }
    );
    // UTF-8 in such a file: three bytes are no whole number of characters there.
    assert!(rows.bad[1].original.contains(r#""name":{"hex":"e78e8b"}"#), "{}", rows.bad[1].original);
    // In GB 18030 two bytes stand for the euro sign, and one for none.
    let mut newer = coded(&bench, Charset::Gb18030(Edition::Of2022));
    let (_, rows) = read_all(newer.source(&spec).unwrap().as_mut(), &Read::default());
    assert_eq!(rows.bad.len(), 3);
}

#[test]
fn rows_land_in_the_charset_and_what_has_no_code_there_is_kept_as_it_was() {
    let bench = SqliteBench::new();
    let contract = small();
    let rows = [(1, "王誠", 1), (2, "😀", 2), (3, "€", 3)];
    for (number, write) in [(1, Write::Append), (2, Write::Replace), (3, Write::Upsert), (4, Write::Mirror)] {
        let landing = landing(number, write, &contract);
        let mut destination = coded(&bench, Charset::Gbk).destination(&landing).unwrap();
        destination.prepare().unwrap();
        let staged = destination.stage("only", [1; 32], &mut [Ok(people(&contract, &rows))].into_iter()).unwrap();
        assert_eq!((staged.landed, staged.bad.len()), (2, 1));
        assert_eq!(staged.bad[0].reason, "`name`: it has the character U+1F600, which gbk lacks");
        assert_eq!(staged.bad[0].original, r#"{"id":2,"name":"😀","seen":"1970-01-01T00:00:02Z"}"#);
        assert_eq!(destination.publish().unwrap().rows, 2, "{write}");
        let mut standing = Rows::default();
        assert_eq!(destination.read_standing(None, &mut standing).unwrap(), 2);
        let expected = people(&contract, &[(1, "王誠", 1), (3, "€", 3)]);
        assert_eq!(standing.digest(&contract), crate::contract::digest(&contract, &[expected]), "{write}");
    }
    assert_eq!(bench.text("SELECT group_concat(hex(name)) FROM \"人口 base\""), "CDF5D55C,80");
    // Looked at as UTF-8 these rows cannot be read, and none is changed for it.
    let mut read = Rows::default();
    bench.destination(&landing(5, Write::Append, &contract)).unwrap().read_standing(None, &mut read).unwrap();
    assert_eq!((read.count(), read.bad.len()), (0, 2));
}

#[test]
fn a_date_of_zeros_is_null_where_that_is_asked_for_and_counted() {
    let bench = SqliteBench::new();
    bench.run(
        "CREATE TABLE t (day DATE NOT NULL, at DATETIME, note TEXT NOT NULL, PRIMARY KEY (note, day));
         INSERT INTO t VALUES ('2024-02-29', '0000-00-00 00:00:00', '0000-00-00'), ('2024-03-01', '2024-03-01 00:00:00', 'x'),
           ('0000-00-00', NULL, 'y')",
    );
    let zeros = Read { zero_dates_null: true, ..Read::default() };
    let (plan, rows) = bench.read(&spec("t"), &zeros);
    assert_eq!(
        crate::types::schema_text(&plan.contract),
        "day date not null, at timestamp, note text not null; key (note, day)"
    );
    assert_eq!(rows.json(&plan.contract).len(), 2);
    assert_eq!(rows.bad.len(), 1, "a key is never NULL");
    let mut connection = bench.connection();
    let mut source = connection.source(&spec("t")).unwrap();
    let plan = source.begin(&zeros).unwrap();
    let mut rows = Rows::default();
    let counts = source.read(&plan.splits[0], &mut rows).unwrap();
    assert_eq!(counts.changed, Some(1));
    let without = bench.read(&spec("t"), &Read::default());
    assert_eq!(without.1.bad.len(), 2);
}

#[test]
fn a_charset_that_is_none_is_told_with_the_key() {
    let settings = |charset: serde_json::Value| {
        crate::Settings::from([("path".to_owned(), "x".into()), ("charset".to_owned(), charset)])
    };
    assert!(Sqlite.check(&settings("gbk".into())).is_empty());
    let errors = Sqlite.check(&settings("gb2312".into()));
    assert_eq!((errors.len(), errors[0].key.as_str()), (1, "charset"));
    assert_eq!(Sqlite.check(&settings(5.into())).len(), 1);
}

#[test]
fn a_mirror_keeps_the_row_whose_successor_has_no_code() {
    let bench = SqliteBench::new();
    let contract = small();
    let all: Vec<(i64, &str, i64)> = (0..30).map(|id| (id, "王", id)).collect();
    for (number, rows) in [(1, all.clone()), (2, [&all[1..4], &[(4, "😀", 4)], &all[5..]].concat())] {
        let landing = landing(number, Write::Mirror, &contract);
        let mut destination = coded(&bench, Charset::Gbk).destination(&landing).unwrap();
        destination.prepare().unwrap();
        let staged = destination.stage("only", [1; 32], &mut [Ok(people(&contract, &rows))].into_iter()).unwrap();
        assert_eq!(staged.bad.len(), usize::from(number == 2));
        drop(destination);
        let mut destination = coded(&bench, Charset::Gbk).destination(&landing).unwrap();
        destination.prepare().unwrap();
        let published = destination.publish().unwrap();
        assert_eq!((published.deleted, published.kept), (u64::from(number == 2), 0));
    }
    let kept = "SELECT count(*) || ' ' || max(hex(name)) FILTER (WHERE id = 4) FROM \"人口 base\"";
    assert_eq!(bench.text(kept), "29 CDF5");
    assert_eq!(bench.text("SELECT count(*) || '' FROM sqlite_schema WHERE name LIKE 'posthouse_refused%'"), "0");
}
