//! Rows in the server's own form.

use super::*;

#[test]
fn rows_land_as_the_source_wrote_them_and_read_as_the_same() {
    let bench = PgBench::new();
    bench.run(
        "CREATE TYPE mood AS ENUM ('好', 'sad'); CREATE TYPE pair AS (a int, b text); CREATE DOMAIN code AS varchar(6);
         CREATE TABLE source AS SELECT i::int8 AS id, i::int2 AS small, i AS medium, (i / 7.0)::float4 AS single,
           (i / 7.0)::float8 AS double, i::numeric(10,2) AS amount, (i / 3.0)::numeric AS free, i::money AS money,
           repeat('字', i % 5) AS \"select\", ('x' || i)::varchar(9) AS \"a\"\"b\", i::text::char(4) AS fixed,
           decode(md5(i::text), 'hex') AS bytes, date '2000-01-01' + i AS day, time '10:00' + i * interval '1 ms' AS hour,
           timestamptz '2020-01-01' + i * interval '1 h' AS at, i * interval '1 day 2 h' AS span,
           md5(i::text)::uuid AS uuid, jsonb_build_object('n', i, 't', '字') AS extra, ('[' || i || ', 2.50]')::json AS raw,
           '10.0.0.0/8'::cidr AS net, ARRAY[i, NULL, 3] AS list, ARRAY['a,b', NULL] AS texts,
           int4range(i, i + 5) AS span_of, CASE WHEN i % 2 = 0 THEN 'sad'::mood END AS mood,
           ('a' || i % 10)::code AS code, i::bit(5) AS bits, (i % 3 = 0) AS flag, point(i, 2) AS place, to_tsvector('a b') AS words
         FROM generate_series(1, 3000) i",
    );
    let columns = [
        ("id", "int8"),
        ("small", "int2"),
        ("medium", "int4"),
        ("single", "float4"),
        ("double", "float8"),
        ("amount", "numeric(10,2)"),
        ("free", "numeric"),
        ("money", "money"),
        ("select", "text"),
        ("a\"b", "varchar(9)"),
        ("fixed", "bpchar(4)"),
        ("bytes", "bytea"),
        ("day", "date"),
        ("hour", "time"),
        ("at", "timestamptz"),
        ("span", "interval"),
        ("uuid", "uuid"),
        ("extra", "jsonb"),
        ("raw", "json"),
        ("net", "cidr"),
        ("list", "int4[]"),
        ("texts", "text[]"),
        ("span_of", "range<int4>"),
        ("mood", "enum"),
        ("code", "varchar(6)"),
        ("bits", "bit(5)"),
        ("flag", "bool"),
        ("place", "point"),
        ("words", "tsvector"),
    ];
    let differing = "SELECT count(*) FROM (SELECT s::text FROM source s EXCEPT ALL SELECT t::text FROM \"into\" t) x";
    let twice = [Write::Append, Write::Replace, Write::Replace, Write::Upsert, Write::Append];
    for (number, write) in twice.into_iter().enumerate() {
        let landing = Landing { table: "into".to_owned(), ..native(number as u8, write, &columns, &["id"]) };
        let (bad, published) = land_raw(&bench, &landing, "SELECT * FROM source", 1 + number * 4_099);
        assert_eq!((bad, published.rows, published.quarantined), (0, 3_000, 0), "{write}");
        assert_eq!(published.inserted, if number < 3 { 3_000 } else { 0 }, "{write}");
        assert_eq!(published.updated, 0, "{write}");
        assert_eq!(bench.text(differing), "0", "{write}");
        let mut read = Rows::default();
        let standing = bench.destination(&landing).unwrap().read_standing(None, &mut read).unwrap();
        assert_eq!((standing, read.count(), read.bad.len()), (3_000, 3_000, 0));
        let (plan, source) =
            crate::contract::read_all(bench.source(&spec("source")).unwrap().as_mut(), &Read::default());
        assert_eq!(source.digest(&plan.contract), read.digest(&landing.contract), "{write}");
    }
    let types = "SELECT string_agg(format_type(atttypid, atttypmod), ',' ORDER BY attnum) FROM pg_attribute WHERE attnum > 0 AND attrelid = ";
    let source = bench.text(&format!("{types}'source'::regclass"));
    let source = source.replace("mood", "text").replace(",code,", ",character varying(6),");
    assert_eq!(bench.text(&format!("{types}'\"into\"'::regclass")), source);
}

#[test]
fn types_that_need_a_definition_land_by_their_text() {
    let bench = PgBench::new();
    bench.run(
        "CREATE TYPE mood AS ENUM ('好', 'sad'); CREATE TYPE pair AS (a int, b text);
         CREATE TABLE source AS SELECT i AS id, (i, 'a,' || i)::pair AS two, ARRAY['好', NULL]::mood[] AS moods, i / 2.0 AS half,
           timestamp '2020-01-01' + i * interval '1 s' AS at FROM generate_series(1, 50) i;
         CREATE TABLE typed (id int PRIMARY KEY, two pair, moods mood[], half numeric, at timestamp)",
    );
    let columns = [
        ("id", "int4"),
        ("two", "composite<int4,text>"),
        ("moods", "enum[]"),
        ("half", "numeric"),
        ("at", "timestamp"),
    ];
    for (number, table) in ["made", "typed", "typed"].into_iter().enumerate() {
        let landing = Landing { table: table.to_owned(), ..native(number as u8, Write::Upsert, &columns, &["id"]) };
        let (bad, published) = land_raw(&bench, &landing, "SELECT * FROM source", 33);
        assert_eq!((bad, published.rows, published.inserted), (0, 50, if number == 2 { 0 } else { 50 }));
        assert_eq!(published.updated, 0);
        let text = "SELECT count(*) FROM (SELECT id, two::text, moods::text, half, at FROM source EXCEPT ALL SELECT id, two::text, moods::text, half, at FROM ";
        assert_eq!(bench.text(&format!("{text}{table}) x")), "0", "{table}");
    }
    assert_eq!(bench.text("SELECT string_agg(atttypid::regtype::text, ',' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'made'::regclass AND attnum > 0"), "integer,text,text,numeric,timestamp without time zone");
}

#[test]
fn one_column_without_a_definition_leaves_the_others_their_types() {
    let bench = PgBench::new();
    bench.run(
        "CREATE DOMAIN code AS varchar(6); CREATE DOMAIN codes AS code[]; CREATE TYPE mood AS ENUM ('好', 'sad');
         CREATE TYPE pair AS (a code, b mood);
         CREATE TABLE source AS SELECT i AS id, ARRAY[['a', NULL]]::code[] AS list, ARRAY['b']::code[]::codes AS named,
           ARRAY['{a,b}', NULL]::codes[] AS nested, '10.1.2.3/8'::inet AS net, '1 day 02:00:01.5'::interval(1) AS span,
           timestamptz '2020-01-01 00:00:00.123' AS at, ARRAY['sad']::mood[] AS moods, ('x', 'sad')::pair AS two
         FROM generate_series(1, 20) i;
         ALTER TABLE source ALTER at TYPE timestamptz(3), ADD PRIMARY KEY (id);
         CREATE TABLE typed (LIKE source INCLUDING ALL)",
    );
    let mut source = bench.source(&spec("source")).unwrap();
    let plan = source.begin(&Read { formats: vec![Format::PgCopy], ..Read::default() }).unwrap();
    let native = plan.native.clone().unwrap();
    let mut bytes = Bytes(Vec::new());
    source.read(&plan.splits[0], &mut bytes).unwrap();
    for (number, table) in ["made", "typed", "typed", "made"].into_iter().enumerate() {
        let write = if number < 2 { Write::Replace } else { Write::Upsert };
        let landing = Landing {
            table: table.to_owned(),
            native: Some(native.clone()),
            ..landing(number as u8, write, &plan.contract)
        };
        let mut destination = bench.destination(&landing).unwrap();
        destination.prepare().unwrap();
        let mut rows = Raw { bytes: bytes.0.clone(), piece: 77, at: 0 };
        let staged = destination.stage_raw("only", [1; 32], &mut rows).unwrap();
        assert_eq!((staged.landed, staged.bad), (20, vec![]), "{table}");
        let published = destination.publish().unwrap();
        assert_eq!(
            (published.rows, published.quarantined, published.updated),
            (20, 0, 0),
            "{table} {}",
            bench.reasons()
        );
        let differing =
            format!("SELECT count(*) FROM (SELECT s::text FROM source s EXCEPT ALL SELECT t::text FROM {table} t) x");
        assert_eq!(bench.text(&differing), "0", "{table}");
    }
    let types = "SELECT string_agg(format_type(atttypid, atttypmod), ',' ORDER BY attnum) FROM pg_attribute
                 WHERE attnum > 0 AND attrelid = 'made'::regclass";
    assert_eq!(
        bench.text(types),
        "integer,character varying(6)[],character varying(6)[],text,inet,interval(1),timestamp(3) with time zone,text,text"
    );
}

#[test]
fn fields_that_an_interval_has_not_are_told_and_not_cut() {
    let bench = PgBench::new();
    bench
        .run("CREATE TABLE t (id int PRIMARY KEY, span interval day to hour, list interval(0)[], sums numeric(4,1)[])");
    let columns = [("id", "int4"), ("span", "interval"), ("list", "interval[]"), ("sums", "numeric[]")];
    let query = "SELECT * FROM (VALUES (1, interval '1 day 2 h', ARRAY[interval '1 s'], ARRAY[1.5]),
        (2, '1 day 00:30', NULL, NULL), (3, NULL, ARRAY[interval '0.5 s'], NULL), (4, NULL, NULL, ARRAY[1.25, NULL])) v";
    for (number, write) in [Write::Replace, Write::Append].into_iter().enumerate() {
        let landing = Landing { table: "t".to_owned(), ..native(number as u8, write, &columns, &["id"]) };
        let (bad, published) = land_raw(&bench, &landing, query, 1 << 20);
        assert_eq!((bad, published.rows, published.quarantined), (0, 1, 3), "{write}: {}", bench.reasons());
    }
}

#[test]
fn a_form_that_the_server_does_not_read_back_is_a_refused_row() {
    let bench = PgBench::new();
    let landing = Landing {
        table: "made".to_owned(),
        ..native(1, Write::Append, &[("id", "int4"), ("words", "tsquery")], &["id"])
    };
    let query = "SELECT i, CASE WHEN i = 3 THEN ''::tsquery ELSE 'a & b'::tsquery END FROM generate_series(1, 9) i";
    let (bad, published) = land_raw(&bench, &landing, query, 50);
    assert_eq!((bad, published.rows), (1, 8));
    assert!(bench.reasons().starts_with("3 XX000 malformed tsquery"), "{}", bench.reasons());
}

#[test]
fn types_without_one_form_everywhere_are_refused_by_name() {
    let bench = PgBench::new();
    bench.run(
        "CREATE TYPE span AS RANGE (subtype = int4); CREATE TYPE hours AS RANGE (subtype = time);
         CREATE TYPE pair AS (a regclass); CREATE TABLE fine (h hours, m int4multirange);
         CREATE TABLE own (s span); CREATE TABLE object (o regclass[]); CREATE TABLE within (p pair)",
    );
    let begin = |table: &str| bench.source(&spec(table)).unwrap().begin(&Read::default()).map(|plan| plan.contract);
    assert_eq!(begin("fine").unwrap().items.len(), 2);
    for (table, column) in [("own", "s"), ("object", "o"), ("within", "p")] {
        let problem = begin(table).unwrap_err();
        assert!(
            problem.code == Code::TypeUnsupported && problem.to_string().contains(&format!("`{column}`")),
            "{problem}"
        );
    }
}

#[test]
fn a_row_without_a_key_is_a_bad_row_and_no_second_one_of_its_key() {
    let bench = PgBench::new();
    bench.run("CREATE TABLE t (id int UNIQUE, note text); INSERT INTO t VALUES (NULL, 'a'), (NULL, 'b'), (1, 'c')");
    let mut keyed = spec("t");
    keyed.key = vec!["id".to_owned()];
    let (_, rows) = crate::contract::read_all(bench.source(&keyed).unwrap().as_mut(), &Read::default());
    assert_eq!((rows.count(), rows.bad.len()), (1, 2));
}

#[test]
fn columns_that_an_index_only_carries_along_are_not_of_its_key() {
    let bench = PgBench::new();
    bench.run("CREATE TABLE t (a int NOT NULL, b int, c int, PRIMARY KEY (a) INCLUDE (b)); CREATE UNIQUE INDEX ON t (b, c) INCLUDE (a)");
    let name = catalog::TableName::parse("t").unwrap();
    let found = catalog::Relation::find(&mut bench.client(), &name).unwrap().unwrap();
    assert_eq!(found.primary, ["a"]);
    assert_eq!(found.unique, [vec!["a".to_owned()], vec!["b".to_owned(), "c".to_owned()]]);
}

#[test]
fn an_identity_that_the_table_always_makes_is_given_once_and_never_changed() {
    let bench = PgBench::new();
    bench.run("CREATE TABLE t (id int PRIMARY KEY, number bigint GENERATED ALWAYS AS IDENTITY, note text)");
    let columns = [("id", "int4"), ("number", "int8"), ("note", "text")];
    let land = |number: u8, rows: &str| {
        let landing = Landing { table: "t".to_owned(), ..native(number, Write::Upsert, &columns, &["id"]) };
        land_raw(&bench, &landing, &format!("SELECT * FROM (VALUES {rows}) v"), 99).1
    };
    assert_eq!(land(1, "(1, 70::int8, 'a'), (2, 80, 'b')").inserted, 2);
    let published = land(2, "(1, 70::int8, 'changed'), (2, 81, 'b'), (3, 90, 'c')");
    assert_eq!((published.inserted, published.updated, published.quarantined), (1, 1, 1));
    assert_eq!(
        bench.text("SELECT string_agg(concat(id, number, note), ',' ORDER BY id) FROM t"),
        "170changed,280b,390c"
    );
    assert!(bench.reasons().contains("another \"number\", which the table lets nobody change"), "{}", bench.reasons());
}

/// The bytes that a source hands out.
struct Bytes(Vec<u8>);

impl crate::Sink for Bytes {
    fn batch(&mut self, _: arrow::record_batch::RecordBatch) -> Result<(), Problem> {
        panic!("the rows were to stay raw")
    }
    fn raw(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
    fn bad_row(&mut self, row: crate::BadRow) -> Result<(), Problem> {
        panic!("{row:?}")
    }
}
