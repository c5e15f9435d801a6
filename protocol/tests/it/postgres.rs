//! What a real server says of the same bytes: for every type that can be carried, values with its extremes go
//! through its binary COPY; text made here is the server's own `::text`, rows that are hashed as they lie have the
//! hash of their batches, and tuples written here are read back by the server as the same values.

#[path = "../../../tests/support/postgres.rs"]
mod support;

use posthouse_protocol::batch::Batch;
use posthouse_protocol::digest::Digester;
use posthouse_protocol::pgcopy::decode::Decoded;
use posthouse_protocol::pgcopy::{Decoder, Encoder, HEADER, NativeType, Shape, TRAILER, Walker, encodable, render};
use posthouse_protocol::schema::{Contract, ContractType, Item};
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use support::Postgres;

#[test]
fn a_real_server_and_this_crate_mean_the_same_by_every_value() {
    let server = Postgres::start(&[]);
    let folder = server.socket().join("out");
    std::fs::create_dir(&folder).unwrap();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).unwrap();
    let mut script = format!("{SETTINGS}{PREPARE}");
    for (index, (_, sql, values)) in CASES.iter().enumerate() {
        let path = |kind: &str| folder.join(format!("{index}.{kind}")).display().to_string();
        let _ = write!(
            script,
            "CREATE TABLE t{index} AS SELECT row_number() OVER () AS i, v FROM ({values}) s(t), LATERAL (SELECT t::{sql}) c(v);
             ALTER TABLE t{index} ALTER v TYPE {sql};
             COPY (SELECT v FROM t{index} ORDER BY i) TO '{}' (FORMAT binary);
             COPY (SELECT v::text FROM t{index} ORDER BY i) TO '{}' (FORMAT binary);
             CREATE TABLE u{index} (v {sql});\n",
            path("values"),
            path("text")
        );
    }
    server.psql(&script);
    let mut landing = SETTINGS.to_owned();
    let mut compared = 0;
    for (index, (name, _, _)) in CASES.iter().enumerate() {
        let native: NativeType = name.parse().unwrap();
        let read = |kind: &str| std::fs::read(folder.join(format!("{index}.{kind}"))).unwrap();
        let (stream, text) = (read("values"), read("text"));
        let (values, texts) = (fields(&stream), fields(&text));
        assert!(values.len() == texts.len() && values.len() > 3, "{name} has {} values", values.len());
        for (value, text) in values.iter().zip(&texts) {
            let expected = String::from_utf8(text.unwrap().to_vec()).unwrap();
            let mut out = String::new();
            let rendered = render(&native, value.unwrap(), &mut out);
            assert_eq!(rendered.map(|()| out), Ok(expected), "{name} of {}", hex::encode(value.unwrap()));
            compared += 1;
        }
        if let Some(bytes) = same_digest_both_ways(&native, &stream) {
            let path = folder.join(format!("{index}.back"));
            std::fs::write(&path, bytes).unwrap();
            // A number's zeros behind the point mean nothing and are not carried.
            let shown = match native.contract_type() {
                ContractType::Number => "trim_scale(v)::text",
                _ => "v::text",
            };
            let all =
                |table: char| format!("SELECT {shown}, row_number() OVER (PARTITION BY {shown}) FROM {table}{index}");
            let (sent, landed) = (all('t'), all('u'));
            let _ = write!(
                landing,
                "COPY u{index} FROM '{}' (FORMAT binary);
                 SELECT '{name}', s FROM (({sent} EXCEPT {landed}) UNION ALL ({landed} EXCEPT {sent})) s LIMIT 3;\n",
                path.display()
            );
        }
    }
    assert!(compared > 5_000, "{compared}");
    let differing = server.psql(&landing);
    assert_eq!(String::from_utf8_lossy(&differing), "", "these came back as others");
}

/// Checks the digests; the tuples as they are written again from the batches, where that can be done.
fn same_digest_both_ways(native: &NativeType, stream: &[u8]) -> Option<Vec<u8>> {
    let r#type = native.contract_type();
    let item = Item { name: "v".to_owned(), r#type, nullable: true, comment: None };
    let contract = Contract { items: vec![item], key: vec!["v".to_owned()] };
    let shape = Shape::new(&contract, std::slice::from_ref(native)).unwrap();
    let (mut walked, mut hashed) = (Vec::new(), Vec::new());
    let mut walker = Walker::new(&shape, [7; 32]);
    walker.feed(stream, &mut |row| walked.push((row.hash, row.bucket))).unwrap();
    let rows = walker.finish().unwrap();
    let mut batches = Vec::new();
    let mut take = |decoded: Decoded| {
        match decoded {
            Decoded::Batch(record) => batches.push(Batch::new(&contract, record).unwrap()),
            Decoded::Bad(bad) => assert_eq!(bad.reason, "", "{native}: {}", bad.original),
        }
        Ok(())
    };
    let mut decoder = Decoder::new(&shape);
    decoder.feed(stream, &mut take).unwrap();
    assert_eq!(decoder.finish(&mut take).unwrap(), rows);
    for batch in &batches {
        Digester::new([7; 32]).each(batch, |row| hashed.push((row.hash, row.bucket))).unwrap();
    }
    assert_eq!(walked, hashed, "{native}");
    if !encodable(r#type, native) {
        return None;
    }
    let mut out = HEADER.to_vec();
    let mut encoder = Encoder::new(&contract, std::slice::from_ref(native)).unwrap();
    for batch in &batches {
        encoder.batch(batch, &mut out, &mut |row, fault| assert_eq!(fault.to_string(), "", "{native}: row {row}"));
    }
    out.extend_from_slice(&TRAILER);
    Some(out)
}

/// The only field of each tuple.
fn fields(stream: &[u8]) -> Vec<Option<&[u8]>> {
    let mut rest = stream.strip_prefix(&HEADER).unwrap();
    let mut fields = Vec::new();
    while rest != TRAILER {
        let (head, after) = rest.split_at(6);
        let length = usize::try_from(i32::from_be_bytes(head[2..].try_into().unwrap()));
        fields.push(length.as_ref().ok().map(|length| &after[..*length]));
        rest = &after[length.unwrap_or(0)..];
    }
    fields
}

const SETTINGS: &str =
    "SET DateStyle = ISO; SET IntervalStyle = postgres; SET TimeZone = UTC; SET extra_float_digits = 1;
    SET bytea_output = hex; SET lc_monetary = 'C'; SET xmloption = content; SET client_min_messages = warning;\n";

const PREPARE: &str = "CREATE TYPE mood AS ENUM ('sad', 'so so', 'glücklich', '\"', 'null');
    CREATE TYPE pair AS (a int, b text);
    CREATE TYPE deep AS (p pair, r int4range, l text[], at timestamptz, ok bool, fixed char(3));
    CREATE TYPE textrange AS RANGE (subtype = text, collation = \"C\");
    CREATE TYPE floatrange AS RANGE (subtype = float8);
    CREATE TYPE pairrange AS RANGE (subtype = pair);
    CREATE DOMAIN evens AS int CHECK (value % 2 = 0);
    CREATE FUNCTION r(i int, salt text) RETURNS bigint IMMUTABLE LANGUAGE sql AS
      $$ SELECT ('x' || substr(md5(salt || i), 1, 16))::bit(64)::bigint $$;
    CREATE FUNCTION odd(i int) RETURNS text IMMUTABLE LANGUAGE sql AS
      $$ SELECT string_agg((ARRAY['', 'a', '王', '𠮷', '''', '\"', '\\', E'\\n', E'\\t', ' ', ',', '{', '}', '(', ')', '[', ']', ';', 'NULL', 'é',
         E'\\r', E'\\f', E'\\v', U&'\\00a0', U&'\\3000', ':', '&', '!', '*'])[1 + (abs(r(i, 'o' || n)) % 29)::int], '')
         FROM generate_series(0, i % 9) n $$;\n";

/// Native type, its name in SQL, and a query of texts that are cast to it.
const CASES: &[(&str, &str, &str)] = &[
    ("bool", "bool", "VALUES ('t'), ('f'), ('true'), ('off')"),
    (
        "int2",
        "int2",
        "SELECT r(i, '')::bit(16)::int - 32768 FROM generate_series(1, 50) i UNION ALL VALUES (-32768), (32767), (0), (-1)",
    ),
    (
        "int4",
        "int4",
        "SELECT r(i, '')::bit(32)::int FROM generate_series(1, 50) i UNION ALL VALUES (-2147483648), (2147483647), (0)",
    ),
    (
        "int8",
        "int8",
        "SELECT r(i, '') FROM generate_series(1, 50) i UNION ALL VALUES (-9223372036854775808), (9223372036854775807), (0)",
    ),
    ("oid", "oid", "VALUES ('0'), ('4294967295'), ('2147483648'), ('7')"),
    ("xid8", "xid8", "VALUES ('0'), ('18446744073709551615'), ('9223372036854775808'), ('7')"),
    ("float4", "float4", FLOAT4),
    ("float8", "float8", FLOAT8),
    (
        "float4[]",
        "float4[]",
        "SELECT array_agg(t::float4) FROM (SELECT t, row_number() OVER () / 7 AS g FROM (SELECT unnest(ARRAY['NaN', '-0', '1e-45', '3.4028235e38', '1e6', '999999', '123456.7', '0.0001', '0.00001', '16777216', '8388608', '1.1754944e-38', '33554432', '1e10']) UNION ALL SELECT (random() * 10 ^ (i % 70 - 35))::float4::text FROM generate_series(1, 1000) i UNION ALL SELECT power(2::float8, i)::float4::text FROM generate_series(-149, 127) i UNION ALL SELECT ((1 + i % 9) || 'e' || (i % 15)) FROM generate_series(1, 135) i UNION ALL SELECT (16777216::float8 * (1 + i))::float4::text FROM generate_series(1, 300) i) s(t)) s GROUP BY g",
    ),
    (
        "float8[]",
        "float8[]",
        "SELECT array_agg(t::float8) FROM (SELECT t, row_number() OVER () / 7 AS g FROM (SELECT unnest(ARRAY['NaN', 'Infinity', '-Infinity', '-0', '5e-324', '1.7976931348623157e308', '1e15', '999999999999999', '1e23', '9e22', '9007199254740993', '9007199254740992', '0.0001', '0.00001', '2.2250738585072014e-308', '4.35e-307', '1e22', '4503599627370497.5', '72057594037927944', '1.8446744073709552e19']) UNION ALL SELECT ((random() - 0.5) * 10::float8 ^ (i % 600 - 300))::text FROM generate_series(1, 2000) i UNION ALL SELECT ('1e' || i) FROM generate_series(-323, 308) i UNION ALL SELECT ((1 + i % 9) || 'e' || (i % 30)) FROM generate_series(1, 270) i UNION ALL SELECT power(2::float8, i)::text FROM generate_series(-1022, 1023) i UNION ALL SELECT (9007199254740992::float8 * (1 + i))::text FROM generate_series(1, 500) i) s(t)) s GROUP BY g",
    ),
    ("numeric", "numeric", NUMERIC),
    ("numeric(1000,-5)", "numeric(1000,-5)", "VALUES ('1e900'), ('123456789'), ('-99999'), ('0'), ('-123450000')"),
    (
        "numeric(38,10)",
        "numeric(38,10)",
        "SELECT (r(i, 'a')::numeric * r(i, 'b') / 10::numeric ^ (i % 38)) % 10::numeric ^ 28 FROM generate_series(1, 300) i UNION ALL VALUES (9999999999999999999999999999.9999999999), (-9999999999999999999999999999.9999999999), (0), (0.0000000001)",
    ),
    (
        "numeric(18,2)",
        "numeric(18,2)",
        "SELECT (r(i, 'a') % 1000000000000000) / 100.0 FROM generate_series(1, 200) i UNION ALL VALUES (9999999999999999.99), (-0.01), (0), (100), (10000), (0.1)",
    ),
    (
        "numeric(38,38)",
        "numeric(38,38)",
        "VALUES (0.99999999999999999999999999999999999999), (-0.00000000000000000000000000000000000001), (0), (0.5)",
    ),
    ("numeric(38,-2)", "numeric(38,-2)", "VALUES (9999999999999999999999999999999999999900), (-100), (12345), (0)"),
    (
        "money",
        "money",
        "SELECT (r(i, '') / 10 ^ (i % 19))::numeric(30,0) / 100 FROM generate_series(1, 60) i UNION ALL VALUES (-92233720368547758.08), (92233720368547758.07), (0), (-0.01), (999.99), (1000)",
    ),
    ("text", "text", "SELECT odd(i) FROM generate_series(1, 100) i"),
    ("varchar", "varchar", "SELECT odd(i) FROM generate_series(1, 20) i"),
    ("varchar(9)", "varchar(9)", "SELECT odd(i) FROM generate_series(1, 100) i"),
    ("bpchar(9)", "char(9)", "SELECT odd(i) FROM generate_series(1, 100) i"),
    ("bpchar", "bpchar", "SELECT odd(i) || '  ' FROM generate_series(1, 20) i"),
    ("\"char\"", "\"char\"", "VALUES (''), ('a'), ('Z'), (' '), ('\\')"),
    ("name", "name", "SELECT left(odd(i), 15) FROM generate_series(1, 50) i"),
    ("bytea", "bytea", "SELECT decode(repeat(md5(i::text), i % 5), 'hex') FROM generate_series(1, 50) i"),
    ("date", "date", DATE),
    ("time", "time", TIME),
    (
        "timetz",
        "timetz",
        "SELECT t || z FROM (SELECT * FROM (VALUES ('00:00:00'), ('24:00:00'), ('23:59:59.999999'), ('12:34:56.7')) a(t)) a, (VALUES ('+00'), ('-08'), ('+05:30'), ('-03:30:15'), ('+15:59:59'), ('-15:59:59')) b(z)",
    ),
    ("timestamp", "timestamp", TIMESTAMP),
    ("timestamptz", "timestamptz", TIMESTAMP),
    ("interval", "interval", INTERVAL),
    (
        "uuid",
        "uuid",
        "SELECT md5(i::text)::uuid FROM generate_series(1, 20) i UNION ALL VALUES ('00000000-0000-0000-0000-000000000000'::uuid), ('ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)",
    ),
    ("json", "json", JSON),
    ("jsonb", "jsonb", JSON),
    ("xml", "xml", "VALUES ('<a b=\"1\">王</a>'), ('text only'), ('<x/>'), ('<a><![CDATA[<&>]]></a>')"),
    ("inet", "inet", INET),
    (
        "cidr",
        "cidr",
        "SELECT set_masklen(t::inet, m)::cidr FROM (SELECT unnest(ARRAY['0.0.0.0', '10.0.0.0', '192.168.0.0', '::', '2001:db8::', '::ffff:0:0', 'fe80::']), 0 UNION ALL SELECT unnest(ARRAY['10.1.2.3', '255.255.255.255']), 32 UNION ALL SELECT unnest(ARRAY['::1', '1::', '2001:db8::1:0:0:1', '::ffff:1.2.3.4', '::1.2.3.4', '::2']), 128) s(t, m)",
    ),
    (
        "macaddr",
        "macaddr",
        "VALUES ('08:00:2b:01:02:03'), ('ff:ff:ff:ff:ff:ff'), ('00:00:00:00:00:00'), ('0a-0b-0c-0d-0e-0f')",
    ),
    (
        "macaddr8",
        "macaddr8",
        "VALUES ('08:00:2b:01:02:03:04:05'), ('ff:ff:ff:ff:ff:ff'), ('00:00:00:00:00:00:00:00'), ('0a-0b-0c-0d-0e-0f-10-11')",
    ),
    ("bit(1)", "bit(1)", "VALUES ('0'), ('1'), ('1'), ('0')"),
    ("bit(13)", "bit(13)", "SELECT r(i, '')::bit(13)::text FROM generate_series(1, 20) i"),
    ("varbit", "varbit", "SELECT left(r(i, '')::bit(64)::text, i) FROM generate_series(0, 64) i"),
    ("varbit(40)", "varbit(40)", "SELECT left(r(i, '')::bit(64)::text, i % 41) FROM generate_series(0, 64) i"),
    ("pg_lsn", "pg_lsn", "VALUES ('0/0'), ('FFFFFFFF/FFFFFFFF'), ('16/B374D848'), ('A/1')"),
    (
        "point",
        "point",
        "SELECT point(random() * 10 ^ (i % 40 - 20), -random()) FROM generate_series(1, 50) i UNION ALL SELECT point('NaN', 'Infinity') UNION ALL SELECT point('-0', '1e15')",
    ),
    ("line", "line", "VALUES ('{1,-2.5,3}'), ('{0,1,1e300}'), ('{-1,0,0}'), ('[(0,0),(1,3)]')"),
    ("lseg", "lseg", "VALUES ('[(1,2),(3,4)]'), ('[(0,0),(0,0)]'), ('[(-1.5,1e-7),(1e20,4)]'), ('[(1,1),(2,2)]')"),
    ("box", "box", "VALUES ('(1,2),(3,4)'), ('(3,4),(1,2)'), ('(-1,-1),(1e9,0.1)'), ('(0,0),(0,0)')"),
    ("path", "path", "VALUES ('((1,2),(3,4))'), ('[(1,2),(3,4),(5,6)]'), ('[(0,0)]'), ('((0.1,-1))')"),
    ("polygon", "polygon", "VALUES ('((1,2),(3,4))'), ('((0,0))'), ('((1,2),(3,4),(5,6),(7,8.5))'), ('((1,1),(2,2))')"),
    ("circle", "circle", "VALUES ('<(1,2),3>'), ('<(0,0),0>'), ('<(-1.5,1e-7),1e20>'), ('<(1,1),Infinity>')"),
    (
        "tsvector",
        "tsvector",
        "SELECT to_tsvector('simple', odd(i) || ' fat cat ' || md5(i::text)) FROM generate_series(1, 50) i UNION ALL SELECT $$'it''s':1A,2B,3C,4 'back\\\\slash' 'no place' '王':16383$$::tsvector UNION ALL SELECT ''::tsvector",
    ),
    ("tsquery", "tsquery", TSQUERY),
    ("jsonpath", "jsonpath", "VALUES ('$.a[*] ? (@.b > 1.50)'), ('strict $.\"x y\"'), ('$'), ('$.a.b.type()')"),
    ("enum", "mood", "VALUES ('sad'), ('so so'), ('glücklich'), ('\"'), ('null')"),
    ("int4", "evens", "VALUES (0), (-2), (2147483646), (4)"),
    (
        "int4[]",
        "int4[]",
        "VALUES ('{}'), ('{1}'), ('{1,NULL,3}'), ('{{1,2,3},{4,5,6}}'), ('[0:1]={1,2}'), ('[-5:-4][2:3]={{1,2},{3,4}}'), ('{{{{{{1},{2}}}}}}'), ('{{1},{2},{3}}')",
    ),
    (
        "text[]",
        "text[]",
        "SELECT array_agg(CASE WHEN i % 11 > 0 THEN odd(i) END) FROM generate_series(1, 400) i GROUP BY i / 5 UNION ALL VALUES (ARRAY['null', 'NULL', 'nUll', '', ' ', 'NULLs', '{}', E'\\\\'])",
    ),
    ("bool[]", "bool[]", "VALUES ('{t,f}'), ('{NULL}'), ('{}'), ('{{t},{f}}')"),
    ("bpchar(3)[]", "char(3)[]", "VALUES ('{a,ab,abc}'), ('{NULL}'), ('{}'), ('{\"\"}')"),
    ("inet[]", "inet[]", "VALUES ('{1.2.3.4,::1}'), ('{10.0.0.0/8}'), ('{}'), ('{2001:db8::/32,NULL}')"),
    ("box[]", "box[]", "VALUES ('{(1,2),(3,4);(5,6),(7,8)}'), ('{}'), ('{(0,0),(0,0)}'), ('{NULL;(1,1),(0,0)}')"),
    (
        "bytea[]",
        "bytea[]",
        "VALUES ('{\"\\\\x00ff\"}'), ('{}'), ('{\"\\\\x\",NULL}'), ('{{\"\\\\x01\"},{\"\\\\x02\"}}')",
    ),
    ("numeric[]", "numeric[]", "VALUES ('{1.50,NaN,-0.00,1e30}'), ('{}'), ('{NULL,0.001}'), ('{100,1e-20,Infinity}')"),
    (
        "timestamptz[]",
        "timestamptz[]",
        "VALUES ('{2000-01-01 00:00:00+00,infinity}'), ('{}'), ('{0044-03-15 12:00:00+00 BC}'), ('{NULL}')",
    ),
    ("interval[]", "interval[]", "VALUES ('{1 day,-1 mon +2 days}'), ('{}'), ('{00:00:00}'), ('{NULL}')"),
    ("jsonb[]", "jsonb[]", "VALUES ('{\"{\\\"a\\\": [1, \\\"x\\\"]}\"}'), ('{}'), ('{NULL,1}'), ('{\"\\\"q\\\"\"}')"),
    ("\"char\"[]", "\"char\"[]", "VALUES ('{a,b}'), ('{}'), ('{\" \",\"\\\"\"}'), ('{\",\"}')"),
    (
        "uuid[]",
        "uuid[]",
        "VALUES ('{00000000-0000-0000-0000-000000000000}'), ('{}'), ('{NULL}'), ('{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}')",
    ),
    ("range<int4>", "int4range", "VALUES ('empty'), ('[1,5)'), ('(,)'), ('[3,]'), ('(,7)'), ('[-2147483648,0)')"),
    ("range<int8>", "int8range", "VALUES ('empty'), ('[1,5)'), ('(,)'), ('[3,9223372036854775806]')"),
    ("range<numeric>", "numrange", "VALUES ('empty'), ('[1.50,5)'), ('(1,2]'), ('[-1e30,Infinity]'), ('[0.0,0.0]')"),
    (
        "range<timestamp>",
        "tsrange",
        "VALUES ('empty'), ('[2000-01-01,2000-01-02 12:00:00.5)'), ('(,infinity]'), ('[0044-03-15 BC,)')",
    ),
    (
        "range<timestamptz>",
        "tstzrange",
        "VALUES ('empty'), ('[2000-01-01,2000-01-02 12:00:00.5)'), ('(,infinity]'), ('[-infinity,)')",
    ),
    (
        "range<date>",
        "daterange",
        "VALUES ('empty'), ('[2000-01-01,2000-01-05]'), ('(,infinity]'), ('[0044-03-15 BC,)')",
    ),
    (
        "range<text>",
        "textrange",
        "SELECT textrange(least(odd(i), odd(i + 1)), greatest(odd(i), odd(i + 1)), (ARRAY['[)', '[]', '(]', '()'])[1 + i % 4]) FROM generate_series(1, 200) i WHERE odd(i) COLLATE \"C\" <> odd(i + 1)",
    ),
    ("range<float8>", "floatrange", "VALUES ('empty'), ('[1.5,1e300)'), ('(-Infinity,-0]'), ('[0.1,0.1]')"),
    (
        "range<composite<int4,text>>",
        "pairrange",
        "SELECT pairrange(ROW(i, odd(i))::pair, ROW(i + 1, odd(i * 7))::pair) FROM generate_series(1, 60) i",
    ),
    ("multirange<int4>", "int4multirange", "VALUES ('{}'), ('{[1,5)}'), ('{(,0),[3,4),[9,)}'), ('{(,)}')"),
    (
        "multirange<timestamptz>",
        "tstzmultirange",
        "VALUES ('{}'), ('{[2000-01-01,2001-01-01)}'), ('{(,2000-01-01),(2001-01-01,]}'), ('{(,)}')",
    ),
    ("range<int4>[]", "int4range[]", "VALUES ('{}'), ('{\"[1,5)\",empty}'), ('{NULL}'), ('{\"(,)\"}')"),
    (
        "composite<int4,text>",
        "pair",
        "SELECT ROW(CASE WHEN i % 7 > 0 THEN i END, CASE WHEN i % 5 > 0 THEN odd(i) END)::pair FROM generate_series(1, 200) i",
    ),
    (
        "composite<int4,text>[]",
        "pair[]",
        "SELECT array_agg(ROW(i, odd(i))::pair) FROM generate_series(1, 100) i GROUP BY i % 20",
    ),
    (
        "composite<composite<int4,text>,range<int4>,text[],timestamptz,bool,bpchar(3)>",
        "deep",
        "SELECT ROW(ROW(i, odd(i))::pair, int4range(i, i + 3), ARRAY[odd(i), NULL, odd(i + 3)], to_timestamp(i * 1e7), i % 2 = 0, 'ab')::deep FROM generate_series(1, 100) i",
    ),
    (
        "composite<composite<int4,text>,range<int4>,text[],timestamptz,bool,bpchar(3)>[]",
        "deep[]",
        "SELECT ARRAY[ROW(ROW(i, odd(i))::pair, NULL, ARRAY[odd(i)], NULL, NULL, '')::deep, NULL] FROM generate_series(1, 50) i",
    ),
    ("enum[]", "mood[]", "VALUES ('{sad,\"so so\"}'), ('{}'), ('{NULL,\"null\"}'), ('{\"\\\"\"}')"),
    (
        "tsquery[]",
        "tsquery[]",
        "VALUES (ARRAY['a & b'::tsquery]), ('{}'), ('{NULL}'), (ARRAY['''x y'' | !z:*A'::tsquery])",
    ),
];

const FLOAT4: &str = "SELECT (random() * 10 ^ (i % 70 - 35))::float4 FROM generate_series(1, 100) i UNION ALL VALUES ('NaN'::float4), ('-Infinity'), ('-0'), ('1e-45'), ('3.4028235e38')";
const FLOAT8: &str = "SELECT (random() - 0.5) * 10::float8 ^ (i % 600 - 300) FROM generate_series(1, 300) i UNION ALL VALUES ('NaN'::float8), ('Infinity'), ('-0'), ('5e-324'), ('1.7976931348623157e308'), ('1e23'), ('9007199254740993')";
const NUMERIC: &str = "SELECT r(i, 'a')::numeric * r(i, 'b') / 10::numeric ^ (i % 80) FROM generate_series(1, 300) i
    UNION ALL SELECT trunc(r(i, 'c')::numeric * 10::numeric ^ (i % 60 - 20), i % 30) FROM generate_series(1, 300) i
    UNION ALL VALUES ('NaN'::numeric), ('Infinity'), ('-Infinity'), ('0'), ('0.000'), ('1e131071'), ('-1e-16383'), ('1.50'), ('10000'), ('100000000'), ('0.0001'), ('0.00010000'),
    ('99999999999999999999999999999999999999'), ('999999999999999999999999999999999999990'), ('999999999999999999999999999999999999999'), ('-12345678901234567890.12345678901234567890123456789')";
const DATE: &str = "SELECT '2000-01-01'::date + (r(i, '') % 2000000)::int FROM generate_series(1, 100) i WHERE (r(i, '') % 2000000) > -2451000
    UNION ALL VALUES ('4713-11-24 BC'::date), ('4714-11-24 BC'), ('5874897-12-31'), ('0001-01-01'), ('0001-12-31 BC'), ('0005-02-29 BC'), ('1999-12-31'), ('2000-02-29'), ('infinity'), ('-infinity')";
const TIME: &str = "SELECT '00:00'::time + (abs(r(i, '') % 86400000000) * '1 us'::interval) FROM generate_series(1, 50) i UNION ALL VALUES ('24:00'::time), ('00:00'), ('23:59:59.999999'), ('12:00:00.5')";
const TIMESTAMP: &str = "SELECT '2000-01-01'::timestamp + (r(i, '') % 200000000000000000) * '1 us'::interval FROM generate_series(1, 100) i
    UNION ALL VALUES ('4714-11-24 00:00:00 BC'::timestamp), ('294246-12-31 23:59:59.999999'), ('0001-01-01 00:00:00.000001'), ('0001-12-31 23:59:59 BC'), ('1969-12-31 23:59:59.999999'), ('10000-01-01'), ('infinity'), ('-infinity')";
const INTERVAL: &str = "SELECT make_interval(months => ((r(i, 'a') % 5) * (i % 3) * 7)::int, days => ((r(i, 'b') % 40) * (i % 2))::int) + (r(i, 'c') % 300000000000) * (i % 4) * '1 us'::interval FROM generate_series(1, 300) i
    UNION ALL VALUES ('0'::interval), ('1 year'), ('-1 year'), ('1 mon'), ('-1 mon'), ('1 day'), ('-1 day'), ('1 year -1 mon'), ('-1 day +00:00:01'), ('1 day -00:00:01'), ('178956970 years 7 mons'), ('-178956970 years -8 mons'), ('2147483647 days'), ('2562047788:00:54.775806'), ('-2562047788:00:54.775807'), ('-00:00:00.000001'), ('-1 mon 1 day'), ('1.5 sec')";
const JSON: &str = "VALUES ('{}'), ('[]'), ('null'), ('true'), ('\"a\\u00e9\\n王\"'), ('{\"b\": 1.50, \"a\": [1, {\"x\": null}]}'), ('  [1 , 2e3, -0.0, 1e-7]  '), ('12345678901234567890.1230'), ('{\"\": {\"k\\\"ey\": \"𠮷\"}}')
    UNION ALL SELECT json_build_object('t', odd(i), 'n', r(i, ''), 'f', random())::text FROM generate_series(1, 60) i";
const INET: &str = "SELECT t::inet FROM unnest(ARRAY['1.2.3.4', '1.2.3.4/24', '0.0.0.0/0', '255.255.255.255', '::', '::1', '::2', '::ffff:1.2.3.4', '::ffff:0:1', '::1.2.3.4', '1::', '2001:db8::1/64', '2001:0:0:1::1', '2001:db8:0:0:1:0:0:1', '1:0:0:0:0:0:0:0', '0:0:0:0:0:0:1:0', '0:1::', 'fe80::1:0:0:0/10', '1:2:3:4:5:6:7:8', '0:0:1::', '::1:0:0:0', '::ffff:ffff', 'a:0:b:0:c:0:d:0']) t
    UNION ALL SELECT (SELECT string_agg(to_hex((CASE WHEN r(i, 'z' || n) % 3 = 0 THEN abs(r(i, 'w' || n) % 65536) ELSE 0 END)::int), ':') FROM generate_series(1, 8) n)::inet FROM generate_series(1, 300) i";
const TSQUERY: &str = "VALUES ('a'), ('!a'), ('a & b | c'), ('(a | b) & c'), ('a <-> b <-> c'), ('a <-> (b <-> c)'), ('a <3> b & !c'), ('!(a & b)'), ('!!a'), ('a:*'), ('a:ABCD'), ('a:*BD'), ('''it''''s'''), ('''back\\\\slash'''), (''), ('!(a <-> b) <-> c'), ('a | b | c | d'), ('a & (b | c) & d'), ('(a & b) <-> c'), ('a <0> b')";
