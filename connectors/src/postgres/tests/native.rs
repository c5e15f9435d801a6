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
