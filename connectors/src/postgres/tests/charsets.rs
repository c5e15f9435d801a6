//! Databases whose server does not convert: texts of SQL_ASCII and EUC_CN in GBK and GB 18030, names and rows in both
//! directions, what is no text there, and what has no code there.

use super::*;
use crate::contract::read_all;

fn coded(encoding: &str, charset: Option<&'static str>) -> PgBench {
    let options = format!("ENCODING '{encoding}' TEMPLATE template0");
    PgBench::with(TestServer::shared(), &options, charset)
}

fn read(bench: &PgBench, spec: &TableSpec, read: &Read) -> (crate::Plan, Rows) {
    read_all(bench.connection().source(spec).unwrap().as_mut(), read)
}

/// What is stored, byte by byte.
fn stored(bench: &PgBench, column: &str, from: &str) -> String {
    bench.text(&format!("SELECT encode(convert_to({column}, 'SQL_ASCII'), 'hex') FROM {from} ORDER BY 1"))
}

const COPY: [Format; 1] = [Format::PgCopy];

#[test]
fn texts_of_gbk_are_read_with_names_in_gbk_and_what_is_none_is_a_bad_row_with_its_bytes() {
    let bench = coded("SQL_ASCII", Some("gbk"));
    // The second byte of 誠 looks like a backslash, wherever a server of single bytes looks for one.
    bench.run(
        "CREATE TABLE 人口 (\"誠\" int PRIMARY KEY, 姓名 text, 备注 json, 别名 text[], amount numeric(8,2));
         INSERT INTO 人口 VALUES (1, '王誠€', '{\"a\":\"王\"}', ARRAY['张', NULL, '李,四'], 12.5), (2, '', NULL, NULL, NULL),
           (4, 'abc', NULL, NULL, NULL), (6, 'abc', NULL, ARRAY['誠'], NULL);
         INSERT INTO 人口 SELECT 3, convert_from('\\xcdf5ff'::bytea, 'SQL_ASCII'), NULL, NULL, 7;
         INSERT INTO 人口 SELECT 5, convert_from('\\xe4bda0'::bytea, 'SQL_ASCII'), NULL, NULL, NULL",
    );
    assert_eq!(stored(&bench, "姓名", "人口 WHERE \"誠\" = 1"), "cdf5d55c80");
    let (plan, rows) = read(&bench, &spec("人口"), &Read { formats: COPY.to_vec(), ..Read::default() });
    assert_eq!(plan.native, None);
    assert!(plan.apart.unwrap().contains("gbk"));
    let columns = "誠 integer not null, 姓名 text, 备注 json, 别名 text, amount decimal(8,2); key (誠)";
    assert_eq!(crate::types::schema_text(&plan.contract), columns);
    assert_eq!(
        rows.json(&plan.contract),
        [
            r#"{"誠":1,"姓名":"王誠€","备注":"{\"a\":\"王\"}","别名":"{张,NULL,\"李,四\"}","amount":12.50}"#,
            r#"{"誠":2,"姓名":"","备注":null,"别名":null,"amount":null}"#,
            r#"{"誠":4,"姓名":"abc","备注":null,"别名":null,"amount":null}"#,
        ]
    );
    let mut originals: Vec<&str> = rows.bad.iter().map(|bad| bad.original.as_str()).collect();
    originals.sort_unstable();
    assert_eq!(
        originals,
        [
            r#"{"誠":"3","姓名":{"hex":"cdf5ff"},"备注":null,"别名":null,"amount":"7.00"}"#,
            r#"{"誠":"5","姓名":{"hex":"e4bda0"},"备注":null,"别名":null,"amount":null}"#,
            r#"{"誠":"6","姓名":"abc","备注":null,"别名":{"hex":"7b22d55c5c227d"},"amount":null}"#,
        ]
    );
    let reasons: Vec<&str> = rows.bad.iter().map(|bad| bad.reason.as_str()).collect();
    assert!(reasons.iter().any(|reason| reason.contains("`姓名`") && reason.contains("GBK")), "{reasons:?}");
}

#[test]
fn a_filter_and_a_watermark_speak_the_same_texts() {
    let bench = coded("SQL_ASCII", Some("gbk"));
    bench.run(
        "CREATE TABLE t (id int PRIMARY KEY, 区 text, seen text);
         INSERT INTO t VALUES (1, '雁塔', '2026-01-01'), (2, '碑林', '2026-01-02'), (3, '雁塔', '2026-01-03');
         INSERT INTO t SELECT 4, convert_from('\\xff'::bytea, 'SQL_ASCII'), '2026-01-04'",
    );
    let filter = Some(posthouse_protocol::filter::Filter::parse("区 = '雁塔'").unwrap());
    let marked = TableSpec { watermark: Some("seen".to_owned()), ..spec("t") };
    let from = Some(Watermark::Text("2026-01-02".to_owned()));
    let (plan, rows) = read(&bench, &marked, &Read { filter, from, ..Read::default() });
    assert_eq!(rows.json(&plan.contract).last().unwrap(), r#"{"id":3,"区":"雁塔","seen":"2026-01-03"}"#);
    assert_eq!((plan.watermark, rows.bad.len()), (Some(Watermark::Text("2026-01-04".to_owned())), 1));
    // Its order is not the one in which marks are compared.
    bench.run("UPDATE t SET seen = '一月'");
    assert!(bench.connection().source(&marked).unwrap().begin(&Read::default()).is_err());
}

#[test]
fn rows_land_in_gbk_and_what_has_no_code_there_is_refused_by_name() {
    let bench = coded("SQL_ASCII", Some("gbk"));
    let contract = small();
    let rows = [(1, "王誠", 1), (2, "😀", 2), (3, "€", 3), (4, "\\N\t乗", 4)];
    for (number, write) in [(1, Write::Append), (2, Write::Replace), (3, Write::Upsert), (4, Write::Mirror)] {
        let landing = landing(number, write, &contract);
        let mut destination = bench.destination(&landing).unwrap();
        destination.prepare().unwrap();
        let staged = destination.stage("only", [1; 32], &mut [Ok(people(&contract, &rows))].into_iter()).unwrap();
        assert_eq!((staged.landed, staged.bad.len()), (3, 1), "{write}");
        assert_eq!(staged.bad[0].key, "2");
        assert!(staged.bad[0].reason.contains("U+1F600") && staged.bad[0].reason.contains("gbk"));
        assert!(staged.bad[0].original.contains('😀'));
        let published = destination.publish().unwrap();
        assert_eq!((published.rows, published.quarantined), (3, 0), "{write}");
        let standing = standing(&bench, &landing).json(&contract);
        assert_eq!(standing[0], r#"{"id":1,"name":"王誠","seen":"1970-01-01T00:00:01Z"}"#);
        assert_eq!(standing[2], r#"{"id":4,"name":"\\N\t乗","seen":"1970-01-01T00:00:04Z"}"#);
        assert_eq!(standing.len(), 3);
    }
    assert_eq!(stored(&bench, "name", &format!("{TARGET} WHERE id <> 4")), "80\ncdf5d55c");
    // The row is kept all the same, as JSON that means what it was.
    let kept = bench.text("SELECT original FROM posthouse_quarantine LIMIT 1");
    let kept: serde_json::Value = serde_json::from_str(&kept).unwrap();
    assert_eq!(kept["name"], "😀");
}

#[test]
fn a_refusal_of_the_table_tells_the_row_as_it_was() {
    let bench = coded("SQL_ASCII", Some("gbk"));
    bench.run(&format!(
        "CREATE TABLE {TARGET} (id bigint PRIMARY KEY, name varchar(5) CHECK (name <> '誠'), seen timestamp)"
    ));
    let contract = small();
    let rows = [(1, "王二", 1), (2, "王二五", 2), (3, "誠", 3)];
    let landing = landing(1, Write::Append, &contract);
    let mut destination = bench.destination(&landing).unwrap();
    destination.prepare().unwrap();
    let staged = destination.stage("only", [1; 32], &mut [Ok(people(&contract, &rows))].into_iter()).unwrap();
    let published = destination.publish().unwrap();
    // Three characters are six bytes there.
    assert_eq!(staged.bad.len() as u64 + published.quarantined, 2);
    assert_eq!(published.rows, 1);
    let mut refused = [staged.bad, destination.refused().unwrap()].concat();
    refused.sort_by(|a, b| a.key.cmp(&b.key));
    let name = |row: &crate::BadRow| {
        serde_json::from_str::<serde_json::Value>(&row.original).unwrap()["name"].as_str().unwrap().to_owned()
    };
    assert_eq!(refused.iter().map(name).collect::<Vec<_>>(), ["王二五", "誠"]);
}

#[test]
fn rows_in_the_servers_own_form_land_in_another_charset() {
    let source = PgBench::new();
    source.run(
        "CREATE TABLE source AS SELECT i::int8 AS id, ('王' || i)::varchar(9) AS name, jsonb_build_object('t', '王') AS extra,
           ARRAY['a', '张'] AS list, i AS number, CASE WHEN i = 7 THEN '😀' ELSE '乗' END AS note
         FROM generate_series(1, 20) i",
    );
    let columns = [
        ("id", "int8"),
        ("name", "varchar(9)"),
        ("extra", "jsonb"),
        ("list", "text[]"),
        ("number", "int4"),
        ("note", "text"),
    ];
    let bench = coded("SQL_ASCII", Some("gb18030"));
    let gbk = coded("SQL_ASCII", Some("gbk"));
    for (bench, bad, rows) in [(&bench, 0, 20), (&gbk, 1, 19)] {
        let landing = Landing { table: "into".to_owned(), ..native(1, Write::Append, &columns, &["id"]) };
        let mut destination = bench.destination(&landing).unwrap();
        destination.prepare().unwrap();
        assert!(!destination.hands_over().unwrap(), "what is staged is not what came");
        let mut raw = Raw::of(&source, "SELECT * FROM source", 333);
        let staged = destination.stage_raw("only", [1; 32], &mut raw).unwrap();
        assert_eq!(staged.bad.len(), bad);
        assert_eq!(destination.publish().unwrap().rows, rows);
        assert_eq!(stored(bench, "name", "\"into\" WHERE id = 1"), "cdf531");
        let standing = standing(bench, &landing);
        let first = standing.json(&landing.contract)[0].clone();
        assert!(first.contains(r#""name":"王1""#) && first.contains("{a,张}"), "{first}");
        assert_eq!(standing.count() as u64, rows);
    }
    // 😀 as its code of four bytes.
    assert_eq!(stored(&bench, "note", "\"into\" WHERE id = 7"), "9439fc36");
}

#[test]
fn a_charset_that_the_server_converts_from_by_itself_is_refused() {
    let bench = PgBench { charset: Some("gbk"), ..PgBench::new() };
    let problem = bench.connection().probe().unwrap_err();
    assert_eq!(problem.code, Code::ConnectionFailed);
    assert!(problem.to_string().contains("UTF8"), "{problem}");
}

#[test]
fn without_a_charset_texts_of_no_encoding_are_utf8_and_others_are_bad_rows() {
    let bench = coded("SQL_ASCII", None);
    bench.run(
        "CREATE TABLE t (id int PRIMARY KEY, name text); INSERT INTO t VALUES (1, '王😀');
         INSERT INTO t SELECT 2, convert_from('\\xcdf5'::bytea, 'SQL_ASCII')",
    );
    let (plan, rows) = read(&bench, &spec("t"), &Read::default());
    assert_eq!(rows.json(&plan.contract), [r#"{"id":1,"name":"王😀"}"#]);
    assert!(rows.bad[0].original.contains(r#"{"hex":"cdf5"}"#), "{}", rows.bad[0].original);
    let mut source = bench.connection().source(&spec("t")).unwrap();
    let plan = source.begin(&Read { formats: COPY.to_vec(), ..Read::default() }).unwrap();
    assert!(plan.native.is_some(), "both ends take its texts for UTF-8");
}

#[test]
fn codes_that_the_server_has_no_character_for_are_read_by_a_charset() {
    let zone = "aaa1";
    let bench = coded("EUC_CN", Some("gb18030"));
    let put = format!(
        "CREATE TABLE t (id int PRIMARY KEY, name text); INSERT INTO t SELECT 1, convert_from('\\x{zone}cdf5'::bytea, 'EUC_CN')"
    );
    bench.run(&put);
    let (plan, rows) = read(&bench, &spec("t"), &Read::default());
    assert_eq!(rows.json(&plan.contract), ["{\"id\":1,\"name\":\"\u{e000}王\"}"]);
    // What its encoding has no room for is refused by the server, row by row.
    let contract = small();
    let rows = people(&contract, &[(1, "王", 1), (2, "誠", 2)]);
    let mut destination = bench.destination(&landing(1, Write::Append, &contract)).unwrap();
    destination.prepare().unwrap();
    let staged = destination.stage("only", [1; 32], &mut [Ok(rows)].into_iter()).unwrap();
    assert_eq!((staged.landed, staged.bad.len()), (1, 1));
    assert!(staged.bad[0].original.contains("誠"));
    destination.publish().unwrap();
}
