//! Values at the bounds of every contract type, from PostgreSQL to MariaDB and back, and from MariaDB's own types. Both
//! servers say by their own means what stands there (`psql`, `mariadb`), each in a form that the other can have too.

use crate::contract::{landing, read_all, spec};
use crate::mysql::{self, Mysql};
use crate::postgres::{self, Postgres};
use crate::{BadRow, Connection, Connector, Landing, Published, Read, Settings};
use posthouse_protocol::job::Write;
use std::io::Write as _;
use std::process::{Command, Stdio};

/// A database of one name on each server.
struct Pair {
    name: &'static str,
}

impl Pair {
    fn new(name: &'static str) -> Self {
        let pair = Self { name };
        pair.run_postgres("postgres", &format!("CREATE DATABASE {name}"));
        pair.run_maria("mysql", &format!("CREATE DATABASE {name} CHARACTER SET utf8mb4"));
        pair
    }
    fn postgres(&self) -> Box<dyn Connection> {
        let (folder, port) = postgres::test_socket();
        let url = format!("postgres://{PG_OWNER}@/{}?host={}&port={port}", self.name, folder.display());
        Postgres.connect("pg", &Settings::from([("url".to_owned(), url.into())])).unwrap()
    }
    fn maria(&self) -> Box<dyn Connection> {
        let url = mysql::test_url(self.name);
        Mysql.connect("my", &Settings::from([("url".to_owned(), url.into())])).unwrap()
    }
    /// What `psql` writes.
    fn psql(&self, sql: &str) -> Vec<String> {
        self.run_postgres(self.name, sql)
    }
    fn run_postgres(&self, database: &str, sql: &str) -> Vec<String> {
        let (folder, port) = postgres::test_socket();
        let mut psql = Command::new(postgres::binaries().join("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", PG_OWNER, "-d", database]);
        psql.arg("-h").arg(folder).args(["-p", &port.to_string()]);
        run(psql, &format!("SET TimeZone = 'Asia/Shanghai';\n{sql};\n"))
    }
    /// What `mariadb` writes.
    fn maria_says(&self, sql: &str) -> Vec<String> {
        self.run_maria(self.name, sql)
    }
    fn run_maria(&self, database: &str, sql: &str) -> Vec<String> {
        let url = mysql::test_url(database);
        let socket = url.split_once("socket=").unwrap().1;
        let mut mariadb = Command::new("mariadb");
        mariadb.args(["--no-defaults", "--batch", "--raw", "--skip-column-names", "--default-character-set=utf8mb4"]);
        mariadb.args(["--user=root", &format!("--socket={socket}"), database]);
        run(mariadb, &format!("{sql};\n"))
    }
}

fn run(mut command: Command, input: &str) -> Vec<String> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{input}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Reads all of a table and lands it elsewhere; what was published, and the rows that had no place there.
fn carry(from: &mut dyn Connection, table: &str, to: &mut dyn Connection, target: &str) -> (Published, Vec<BadRow>) {
    let mut source = from.source(&spec(table)).unwrap();
    let (plan, rows) = read_all(source.as_mut(), &Read::default());
    drop(source);
    assert_eq!(rows.bad, vec![]);
    let landing = Landing { table: target.to_owned(), ..landing(1, Write::Append, &plan.contract) };
    let mut destination = to.destination(&landing).unwrap();
    destination.prepare().unwrap();
    let staged = destination.stage("only", [1; 32], &mut rows.batches.into_iter().map(Ok)).unwrap();
    (destination.publish().unwrap(), staged.bad)
}

/// A column: its name, its type at the source, values at its bounds, and the forms in which each server shows it: the
/// source, the destination, and a table that is made of the destination at the first server.
type Column = (&'static str, &'static str, &'static [&'static str], [&'static str; 3]);

/// The statements that make a table of these and fill it, and its rows.
fn filled(columns: &[Column]) -> (String, usize) {
    let rows = columns.iter().map(|(.., values, _)| values.len()).max().unwrap();
    let declared: String = columns.iter().map(|(name, declared, ..)| format!(", {name} {declared}")).collect();
    let row = |at: usize| {
        let value = |(.., values, _): &Column| format!(", {}", values.get(at).copied().unwrap_or("NULL"));
        format!("({at}{})", columns.iter().map(value).collect::<String>())
    };
    let all: Vec<String> = (0..rows).map(row).collect();
    (format!("CREATE TABLE src (id bigint PRIMARY KEY{declared}); INSERT INTO src VALUES {}", all.join(", ")), rows)
}

/// Every row of a table on one line, in the forms of one place.
fn shown(table: &str, columns: &[Column], place: usize) -> String {
    let form = |(name, .., forms): &Column| format!(", COALESCE({}, 'NULL')", forms[place].replace("{}", name));
    format!("SELECT CONCAT_WS('|', id{}) FROM {table} ORDER BY id", columns.iter().map(form).collect::<String>())
}

const PG_OWNER: &str = "owner";
const PG_HEX: &str = "encode(convert_to({}::text, 'UTF8'), 'hex')";
const MY_HEX: &str = "LOWER(HEX({}))";
const PG_TIME: &str = "to_char({}, 'YYYY-MM-DD HH24:MI:SS.US')";
const MY_TIME: &str = "DATE_FORMAT({}, '%Y-%m-%d %H:%i:%s.%f')";
const MY_TEXT: &str = "CAST({} AS CHAR)";
const TIMES: &[&str] = &[
    "'0001-01-01 00:00:00'",
    "'9999-12-31 23:59:59.999999'",
    "'1969-12-31 23:59:59.999999'",
    "'2026-11-22 05:09:25.123'",
];

/// PostgreSQL's, with MariaDB's form of what is made of each, and PostgreSQL's of what is made of that.
const OF_POSTGRES: &[Column] = &[
    ("flag", "boolean", &["true", "false"], ["{}::int::text", "CAST({} + 0 AS CHAR)", "{}::int::text"]),
    ("n", "bigint", &["-9223372036854775808", "9223372036854775807", "0"], ["{}::text", MY_TEXT, "{}::text"]),
    (
        "d",
        "numeric(38,10)",
        &[
            "9999999999999999999999999999.9999999999",
            "-9999999999999999999999999999.9999999999",
            "0.0000000001",
            "-12.5",
            "0",
        ],
        ["{}::text", MY_TEXT, "{}::text"],
    ),
    (
        "num",
        "numeric",
        &["-12.50", "1000000", "'NaN'", "'Infinity'", "'-Infinity'", "('-' || repeat('9', 1000) || '.01')::numeric"],
        ["trim_scale({})::text", MY_TEXT, "trim_scale({})::text"],
    ),
    (
        "t",
        "text",
        &[
            "''",
            "' '",
            "'𠮷田 䶮 㛃 𫍯'",
            "'it''s \"quoted\" \\ ; --'",
            "E'line\\r\\nbreak\\ttab\\x01'",
            "'NULL'",
            "repeat('長', 40000)",
        ],
        [PG_HEX, MY_HEX, PG_HEX],
    ),
    ("c", "char(20)", &["''", "'610101'", "'ab  '", "'驿站'"], [PG_HEX, MY_HEX, PG_HEX]),
    ("b", "bytea", &["''", "'\\x00ff800a5c27'"], ["encode({}, 'hex')", MY_HEX, "encode({}, 'hex')"]),
    (
        "day",
        "date",
        &["'0001-01-01'", "'9999-12-31'", "'1969-12-31'", "'2000-02-29'"],
        ["to_char({}, 'YYYY-MM-DD')", "DATE_FORMAT({}, '%Y-%m-%d')", "to_char({}, 'YYYY-MM-DD')"],
    ),
    ("at", "timestamp", TIMES, [PG_TIME, MY_TIME, PG_TIME]),
    (
        "tz",
        "timestamptz",
        &["'2026-11-22 05:09:25.123+08'", "'1970-01-01 00:00:00+00'", "'1969-12-31 23:59:59.999999-12'"],
        ["to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')", MY_TIME, PG_TIME],
    ),
    ("u", "uuid", &["'6ccd780c-baba-1026-9564-5b8c656024db'"], ["{}::text", MY_TEXT, "{}::text"]),
    ("tm", "time", &["'23:59:59.999999'", "'00:00:00'", "'12:05:00.5'"], ["{}::text", MY_TEXT, "{}::text"]),
    ("span", "interval", &["'1 day 02:03:04.000005'", "'-1 mons'"], ["{}::text", MY_TEXT, "{}::text"]),
    ("list", "int4[]", &["'{1,NULL,3}'"], ["{}::text", MY_TEXT, "{}::text"]),
    // These have a form of their own on each server: they are compared by what they mean.
    ("f", "double precision", FLOATS, ["'-'", "'-'", "'-'"]),
    ("j", "jsonb", JSONS, ["'-'", "'-'", "'-'"]),
];
const FLOATS: &[&str] =
    &["1.7976931348623157e308", "-1.7976931348623157e308", "2.2250738585072014e-308", "5e-324", "'-0'", "0.1", "1e23"];
const JSONS: &[&str] =
    &["'{\"a\": [1, \"二\", {\"x\": 1.50}]}'", "'null'", "'\"text\"'", "'12345678901234567890.5'", "'[]'"];

#[test]
fn the_bounds_of_every_type_of_postgresql_stand_in_mariadb_and_come_back() {
    let pair = Pair::new("cross_bounds");
    let (make, rows) = filled(OF_POSTGRES);
    pair.psql(&make);
    let (published, bad) = carry(&mut *pair.postgres(), "src", &mut *pair.maria(), "landed");
    assert_eq!((published.rows, bad), (rows as u64, vec![]));
    let source = pair.psql(&shown("src", OF_POSTGRES, 0));
    assert_eq!(source.len(), rows);
    assert_eq!(pair.maria_says(&shown("landed", OF_POSTGRES, 1)), source);
    let (published, bad) = carry(&mut *pair.maria(), "landed", &mut *pair.postgres(), "back");
    assert_eq!((published.rows, bad), (rows as u64, vec![]));
    assert_eq!(pair.psql(&shown("back", OF_POSTGRES, 2)), source);

    let numbers = |lines: Vec<String>| -> Vec<f64> { lines.iter().map(|line| line.parse().unwrap()).collect() };
    let floats = |table: &str| format!("SELECT f FROM {table} WHERE f IS NOT NULL ORDER BY id");
    let wanted = numbers(pair.psql(&floats("src")));
    assert_eq!(wanted.len(), FLOATS.len());
    assert_eq!(numbers(pair.maria_says(&floats("landed"))), wanted);
    assert_eq!(numbers(pair.psql(&floats("back"))), wanted);

    let meant = |lines: Vec<String>| -> Vec<serde_json::Value> {
        lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let jsons = |table: &str| format!("SELECT j FROM {table} WHERE j IS NOT NULL ORDER BY id");
    let wanted = meant(pair.psql(&jsons("src")));
    assert_eq!(wanted.len(), JSONS.len());
    assert_eq!(meant(pair.maria_says(&jsons("landed"))), wanted);
    assert_eq!(meant(pair.psql(&jsons("back"))), wanted);

    let types = "SELECT string_agg(format_type(atttypid, atttypmod), ', ' ORDER BY attnum) FROM pg_attribute \
                 WHERE attrelid = 'back'::regclass AND attnum > 0";
    assert_eq!(
        pair.psql(types),
        ["bigint, boolean, bigint, numeric(38,10), numeric, text, bpchar, bytea, date, timestamp without time zone, \
          timestamp without time zone, text, text, text, text, double precision, jsonb"]
    );
}

const NO_FORM: &str = "'-'";

/// MariaDB's, with PostgreSQL's form of what is made of each.
const OF_MARIA: &[Column] = &[
    ("big", "bigint unsigned", &["18446744073709551615", "0"], [MY_TEXT, "{}::text", NO_FORM]),
    ("tiny", "tinyint(1)", &["-128", "127", "2"], [MY_TEXT, "{}::text", NO_FORM]),
    ("flag", "bit(1)", &["b'1'", "b'0'"], ["CAST({} + 0 AS CHAR)", "{}::int::text", NO_FORM]),
    ("bits", "bit(64)", &["x'FFFFFFFFFFFFFFFF'", "b'1'"], ["CAST({} + 0 AS CHAR)", "{}::text", NO_FORM]),
    ("y", "year", &["1901", "2155", "0"], [MY_TEXT, "lpad({}::text, 4, '0')", NO_FORM]),
    ("m", "decimal(18,2)", &["9999999999999999.99", "-0.01"], [MY_TEXT, "{}::text", NO_FORM]),
    (
        "wide",
        "decimal(65,30)",
        &["99999999999999999999999999999999999.000000000000000000000000000001", "-1.5"],
        [MY_TEXT, "round({}, 30)::text", NO_FORM],
    ),
    ("v", "varchar(50)", &["'王  '", "''", "'𠮷'"], [MY_HEX, PG_HEX, NO_FORM]),
    ("g", "varchar(20) CHARACTER SET gbk", &["'驿站'"], ["LOWER(HEX(CONVERT({} USING utf8mb4)))", PG_HEX, NO_FORM]),
    ("bin", "binary(4)", &["x'00ff'"], [MY_HEX, "encode({}, 'hex')", NO_FORM]),
    (
        "day",
        "date",
        &["'0001-01-01'", "'9999-12-31'"],
        ["DATE_FORMAT({}, '%Y-%m-%d')", "to_char({}, 'YYYY-MM-DD')", NO_FORM],
    ),
    ("at", "datetime(6)", TIMES, [MY_TIME, PG_TIME, NO_FORM]),
    ("ts", "timestamp(6) NULL", &["'2026-11-28 05:06:07.000001'"], [MY_TIME, PG_TIME, NO_FORM]),
    ("tm", "time(3)", &["'-838:59:59.000'", "'12:05:00.250'"], [MY_TEXT, "{}", NO_FORM]),
    ("kind", "enum('甲','乙')", &["'乙'"], [MY_HEX, PG_HEX, NO_FORM]),
    ("marks", "set('a','b','c')", &["'c,a'", "''"], [MY_HEX, PG_HEX, NO_FORM]),
    ("who", "uuid", &["'6ccd780c-baba-1026-9564-5b8c656024db'"], [MY_TEXT, "{}", NO_FORM]),
];

#[test]
fn the_bounds_of_mariadbs_own_types_stand_in_postgresql() {
    let pair = Pair::new("cross_own");
    let (make, rows) = filled(OF_MARIA);
    pair.maria_says(&format!("SET time_zone = '+00:00'; {make}"));
    let (published, bad) = carry(&mut *pair.maria(), "src", &mut *pair.postgres(), "landed");
    assert_eq!((published.rows, bad), (rows as u64, vec![]));
    let source = pair.maria_says(&format!("SET time_zone = '+00:00'; {}", shown("src", OF_MARIA, 0)));
    assert_eq!(source.len(), rows);
    assert_eq!(pair.psql(&shown("landed", OF_MARIA, 1)), source);
}

#[test]
fn values_that_the_other_has_no_place_for_are_bad_rows_with_what_they_were_and_all_others_land() {
    let pair = Pair::new("cross_edges");
    pair.psql(
        "CREATE TABLE src (id bigint PRIMARY KEY, day date, at timestamp, f double precision, c char(300));
         INSERT INTO src VALUES
           (1, '2026-11-28', '2026-11-28 05:06:07', 1.5, 'x'),
           (2, 'infinity', NULL, NULL, NULL), (3, '0044-03-15 BC', NULL, NULL, NULL), (4, '10000-01-01', NULL, NULL, NULL),
           (5, NULL, '-infinity', NULL, NULL), (6, NULL, '99999-12-31 23:59:59.999999', NULL, NULL),
           (7, NULL, NULL, 'NaN', NULL), (8, NULL, NULL, '-Infinity', NULL),
           (9, NULL, NULL, NULL, repeat('驿', 256)), (10, NULL, NULL, NULL, repeat('驿', 255) || '  ')",
    );
    let (published, bad) = carry(&mut *pair.postgres(), "src", &mut *pair.maria(), "landed");
    let mut keys: Vec<u32> = bad.iter().map(|bad| bad.key.parse().unwrap()).collect();
    keys.sort_unstable();
    assert_eq!((published.rows, keys), (2, vec![2, 3, 4, 5, 6, 7, 8, 9]), "{bad:?}");
    assert_eq!(pair.maria_says("SELECT CONCAT_WS(' ', id, CHAR_LENGTH(c)) FROM landed ORDER BY id"), ["1 1", "10 255"]);
    for (key, original) in [("7", "\"f\":\"NaN\""), ("9", &*"驿".repeat(256))] {
        let found = bad.iter().find(|bad| bad.key == key).unwrap();
        assert!(found.original.contains(original) && !found.reason.is_empty(), "{found:?}");
    }

    pair.maria_says(
        "CREATE TABLE nul (id bigint PRIMARY KEY, v varchar(9), j longtext CHECK (json_valid(j)));
         INSERT INTO nul VALUES (1, 'ab', '{}'), (2, x'610062', '{}'), (3, 'ab', '[\"\\\\u0000\"]')",
    );
    let (published, bad) = carry(&mut *pair.maria(), "nul", &mut *pair.postgres(), "nul");
    let mut told: Vec<(&str, bool)> =
        bad.iter().map(|bad| (bad.key.as_str(), bad.reason.contains("character 0"))).collect();
    told.sort_unstable();
    assert_eq!((published.rows, told), (1, vec![("2", true), ("3", true)]), "{bad:?}");
    assert_eq!(pair.psql("SELECT id FROM nul"), ["1"]);
}

#[test]
fn a_table_of_more_chars_than_a_row_has_room_for_lands_all_the_same() {
    let pair = Pair::new("cross_wide");
    let declared: String = (0..80).map(|at| format!(", c{at} char(9)")).collect();
    let values: String = (0..80).map(|at| format!(", '驿{at}'")).collect();
    pair.psql(&format!("CREATE TABLE src (id bigint PRIMARY KEY{declared}); INSERT INTO src VALUES (1{values})"));
    let (published, bad) = carry(&mut *pair.postgres(), "src", &mut *pair.maria(), "landed");
    assert_eq!((published.rows, bad), (1, vec![]));
    let all: String = (0..80).map(|at| format!(", c{at}")).collect();
    let shown = format!("SELECT CONCAT_WS('|', id{all}) FROM");
    // A char of PostgreSQL shows the blanks that fill it up.
    let source = pair.psql(&format!("{shown} src"))[0].replace(' ', "");
    assert_eq!(pair.maria_says(&format!("{shown} landed")), [source]);
}
