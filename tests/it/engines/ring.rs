//! Tables of every supported type from PostgreSQL through MariaDB back into PostgreSQL, and from MariaDB through
//! PostgreSQL back into MariaDB, while nodes are killed at random moments. What is in the middle and what comes back is
//! read by `psql` and by MariaDB's own client, and is what was there at first. 20,000 rows ordinarily, 200,000 in the
//! long run.

use super::look::{self, Means, Shown};
use super::{Engine, Place, assert_same_rows, job, moment, resource, settled_over_a_kill};
use crate::crash::assert_balanced;
use crate::support::{Role, Scene, Site, long};

#[test]
fn a_table_of_postgresql_comes_back_from_mariadb_as_it_was() {
    ring(Engine::Postgres, Engine::MariaDb, POSTGRES, |columns, rows| {
        let value = |(index, Typed(_, declared, .., value)): (usize, &Typed)| match index {
            0 => (*value).to_owned(),
            // Every column but the key has its NULLs.
            _ => format!("CASE WHEN g % 17 = {} THEN NULL ELSE ({value})::{declared} END", index % 17),
        };
        let values: Vec<String> = columns.iter().enumerate().map(value).collect();
        format!("INSERT INTO given SELECT {} FROM generate_series(1::bigint, {rows}) g;", values.join(", "))
    });
}

#[test]
fn a_table_of_mariadb_comes_back_from_postgresql_as_it_was() {
    ring(Engine::MariaDb, Engine::Postgres, MARIADB, |columns, rows| {
        let value = |(index, Typed(.., value)): (usize, &Typed)| match index {
            0 => (*value).to_owned(),
            _ => format!("IF(g % 17 = {}, NULL, {value})", index % 17),
        };
        let values: Vec<String> = columns.iter().enumerate().map(value).collect();
        let numbers = format!("(SELECT CAST(seq AS SIGNED) AS g FROM seq_1_to_{rows}) AS numbers");
        format!("INSERT INTO given SELECT {} FROM {numbers};", values.join(", "))
    });
}

/// A column: its name, its type, what it means, what shows it where that is not usual, and row `g` of it.
struct Typed(&'static str, &'static str, Means, Option<&'static str>, &'static str);

fn ring(first: Engine, middle: Engine, columns: &[Typed], fill: impl Fn(&[Typed], u64) -> String) {
    let (first, middle) = (Place::new(first), Place::new(middle));
    let declared = columns.iter().map(|Typed(name, declared, ..)| format!("{} {declared}", first.quote(name)));
    first.run(&format!("CREATE TABLE given ({}, PRIMARY KEY (id));\n", declared.collect::<Vec<_>>().join(", ")));
    first.run(&fill(columns, rows()));
    let both = first.connection("first") + &middle.connection("middle");
    let scene = Scene {
        provider: both.clone()
            + &resource("there", "first", &first.table("given"), &["id"])
            + &resource("back", "middle", &middle.table("between"), &["id"]),
        consumer: both
            + &job("there", "middle", &middle.table("between"), "replace")
            + &job("back", "first", &first.table("returned"), "replace"),
        grants: vec!["there", "back"],
        ..Scene::default()
    };
    let mut site = Site::start(&scene);
    let own: Vec<Shown> =
        columns.iter().map(|Typed(name, _, means, by, _)| Shown { by: *by, ..Shown::new(name, *means) }).collect();
    let usual: Vec<Shown> = columns.iter().map(|Typed(name, _, means, ..)| Shown::new(name, *means)).collect();
    let given = look::rows(&first, "given", &own).expect("it is there");
    assert_eq!(given.len() as u64, rows());
    let rounds = if long() { 6 } else { 2 };
    for (round, [there, back]) in (0..rounds).zip(VICTIMS.into_iter().cycle()) {
        hop(&mut site, there, "there", round);
        let between = look::rows(&middle, "between", &usual).expect("it landed");
        assert_same_rows("in the middle", &given, &between);
        hop(&mut site, back, "back", round);
        let returned = look::rows(&first, "returned", &usual).expect("it came back");
        assert_same_rows("back again", &given, &returned);
    }
    assert_balanced(&site, rounds * 2);
}

/// One transfer over a kill.
fn hop(site: &mut Site, role: Role, job: &str, round: u64) {
    let end = settled_over_a_kill(site, role, job, moment(&format!("ring {role:?} {job}"), round));
    assert_eq!(end["quarantined"], 0, "{end}");
    assert_eq!(end["rows"], rows(), "{end}");
}

fn rows() -> u64 {
    if long() { 200_000 } else { 20_000 }
}

/// Whom a kill strikes on the way there, and back.
const VICTIMS: [[Role; 2]; 2] = [[Role::Consumer, Role::Provider], [Role::Provider, Role::Consumer]];

const POSTGRES: &[Typed] = &[
    Typed("id", "bigint", Means::Exact, None, "g"),
    Typed("b", "boolean", Means::Boolean, None, "g % 2 = 0"),
    Typed("i2", "smallint", Means::Exact, None, "g % 65536 - 32768"),
    Typed("i4", "integer", Means::Exact, None, "g * 7919 % 4294967296 - 2147483648"),
    Typed("i8", "bigint", Means::Exact, None, "g * 46116860184273 - 4611686018427387904"),
    Typed("o", "oid", Means::Exact, None, "g * 21474 % 4294967296"),
    Typed("f4", "real", Means::Float, None, "g / 7.0"),
    Typed("f8", "double precision", Means::Float, None, "g::float8 / 3"),
    Typed("n", "numeric", Means::Exact, None, "g || '.' || g || '0'"),
    Typed("long", "numeric", Means::Exact, None, "repeat('9', 50 + (g % 50)::int)"),
    Typed("d", "numeric(12,4)", Means::Exact, None, "g / 7.0"),
    Typed("w", "numeric(38,10)", Means::Exact, None, "-g * 1234567890123456789.0123456789"),
    Typed("coarse", "numeric(10,-2)", Means::Exact, None, "g * 100"),
    Typed("m", "money", Means::Text, None, "g / 100.0"),
    Typed("t", "text", Means::Text, None, "'户主 ' || g || E'\\n\\t\\\\ ''' || repeat('长', (g % 50)::int)"),
    Typed("v", "varchar(40)", Means::Text, None, "'  ' || g || '  '"),
    Typed("c", "char(12)", Means::Char, None, "'c' || g"),
    Typed("y", "bytea", Means::Bytes, None, "decode(md5(g::text), 'hex')"),
    Typed("da", "date", Means::Date, None, "date '1900-01-01' + (g % 100000)::int"),
    Typed("ti", "time", Means::Text, None, "time '00:00:00' + g * interval '1.000001 s'"),
    Typed("tz", "timetz", Means::Text, None, "timetz '00:00:00+08' + g * interval '1 s'"),
    Typed("ts", "timestamp", Means::Time, None, "timestamp '1900-01-01' + g * interval '1 h 0.000001 s'"),
    Typed("tstz", "timestamptz", Means::Time, ZONED, "timestamptz '2000-01-01+08' - g * interval '1 h 0.001 s'"),
    Typed("iv", "interval", Means::Text, None, "g * interval '1 day 1 min'"),
    Typed("u", "uuid", Means::Text, None, "md5(g::text)"),
    Typed("j", "json", Means::Json, None, "json_build_object('n', g, 't', '字' || g)::text"),
    Typed("jb", "jsonb", Means::Json, None, "jsonb_build_object('b', ARRAY[g, g + 1], 'a', NULL, 'x', g / 8.0)"),
    Typed("ip", "inet", Means::Text, None, "inet '10.0.0.0' + g"),
    Typed("mac", "macaddr", Means::Text, None, "'08:00:2b:01:02:03'"),
    Typed("bits", "bit(16)", Means::Text, None, "(g % 65536)::int::bit(16)"),
    Typed("a", "integer[]", Means::Text, None, "ARRAY[g, NULL, -g]"),
    Typed("r", "int4range", Means::Text, None, "int4range(g::int, g::int + 5)"),
];
const ZONED: Option<&str> = Some("(({}) AT TIME ZONE 'UTC')::text");
const BITS: Option<&str> = Some("CAST({} + 0 AS CHAR)");

const MARIADB: &[Typed] = &[
    Typed("id", "bigint", Means::Exact, None, "g"),
    Typed("b", "bit(1)", Means::Boolean, None, "g % 2"),
    Typed("ti", "tinyint", Means::Exact, None, "g % 256 - 128"),
    Typed("su", "smallint unsigned", Means::Exact, None, "g % 65536"),
    Typed("mi", "mediumint", Means::Exact, None, "g * 40 - 8388608"),
    Typed("iu", "int unsigned", Means::Exact, None, "4294967295 - g"),
    Typed("bi", "bigint", Means::Exact, None, "g * 46116860184273 - 4611686018427387904"),
    Typed("bu", "bigint unsigned", Means::Exact, None, "18446744073709551615 - g"),
    Typed("b12", "bit(12)", Means::Exact, BITS, "g % 4096"),
    Typed("b64", "bit(64)", Means::Exact, BITS, "18446744073709551615 - g"),
    Typed("ye", "year", Means::Exact, None, "1901 + g % 200"),
    Typed("d", "decimal(12,4)", Means::Exact, None, "CAST(g / 7 AS decimal(12,4))"),
    Typed("w", "decimal(38,10)", Means::Exact, None, "-g * 123456789012345678.0123456789"),
    Typed("n", "decimal(65,30)", Means::Exact, None, "g * 12345678901234567890.012345678901234567890123456789"),
    Typed("f", "float", Means::Float, None, "g / 7"),
    Typed("db", "double", Means::Float, None, "g / 3e0"),
    Typed("c", "char(12)", Means::Char, None, "CONCAT('c', g)"),
    Typed("v", "varchar(40)", Means::Text, None, "CONCAT('  ', g, '  ')"),
    Typed("g", "varchar(40) CHARACTER SET gbk", Means::Text, None, "CONCAT('户主 ', g)"),
    Typed("l", "varchar(40) CHARACTER SET latin1", Means::Text, None, "CONCAT('é ', g)"),
    Typed("t", "text", Means::Text, None, "CONCAT('😀', g, '\\n\\t\\\\ ''', REPEAT('长', g % 50))"),
    Typed("lt", "longtext", Means::Text, None, "REPEAT(MD5(g), g % 20)"),
    Typed("e", "enum('甲','乙','丙')", Means::Text, None, "1 + g % 3"),
    Typed("s", "set('a','b','c')", Means::Text, None, "g % 8"),
    Typed("u", "uuid", Means::Text, None, "CONCAT('6ccd780c-baba-1026-9564-', LPAD(HEX(g), 12, '0'))"),
    Typed("ip", "inet6", Means::Text, None, "CONCAT('2001:db8::', HEX(g % 65536))"),
    Typed("tm", "time(2)", Means::Text, None, "SEC_TO_TIME(g * 14 + 0.25)"),
    Typed("da", "date", Means::Date, None, "DATE '1900-01-01' + INTERVAL g % 100000 DAY"),
    Typed(
        "dt",
        "datetime(6)",
        Means::Time,
        None,
        "TIMESTAMP '1900-01-01 00:00:00' + INTERVAL g * 3600000001 MICROSECOND",
    ),
    Typed("ts", "timestamp(3) NULL", Means::Time, None, "TIMESTAMP '1990-01-01 00:00:00' + INTERVAL g * 3600.5 SECOND"),
    Typed("b4", "binary(4)", Means::Bytes, None, "UNHEX(LPAD(HEX(g % 65536), 4, '0'))"),
    Typed("vb", "varbinary(20)", Means::Bytes, None, "UNHEX(MD5(g))"),
    Typed("bl", "longblob", Means::Bytes, None, "REPEAT(UNHEX(MD5(g)), g % 20)"),
    Typed("j", "json", Means::Json, None, "JSON_OBJECT('n', g, 't', CONCAT('字', g), 'x', NULL)"),
];
