//! Every character of GB 18030, and every code of GBK, between databases that keep texts in different ways: whatever has
//! a place at the other end comes back as it was, byte by byte; everything else is quarantined with its bytes.

use super::{Engine, Place, assert_same_rows, connection, job, mariadb, postgres_url, resource};
use crate::exchange::assert_settled;
use crate::support::mariadb::MariaDb;
use crate::support::postgres::Postgres;
use crate::support::{PROVIDER, Scene, Site, posthouse};
use posthouse_connectors::charset::Charset;
use serde_json::Value;

#[test]
fn every_character_of_gb18030_goes_through_a_table_in_utf8mb4_and_comes_back() {
    let (postgres, mariadb_server) = (Postgres::start(&[]), MariaDb::start(&[]));
    // The server knows no encoding of theirs, and converts nothing.
    for database in ["there", "back"] {
        postgres.psql(&format!("CREATE DATABASE {database} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0"));
    }
    let gb18030 = Charset::parse("gb18030").expect("a charset");
    let blocks = blocks();
    assert_eq!(blocks.iter().map(|(_, text)| text.chars().count()).sum::<usize>(), 0x11_0000 - 0x800 - 1);
    let coded = |text: &str| hex::encode(gb18030.encode(text).expect("every character has its code"));
    let value = |(id, text): &(u32, String)| format!("({id}, convert_from('\\x{}'::bytea, 'SQL_ASCII'))", coded(text));
    let values: Vec<String> = blocks.iter().map(value).collect();
    let mut script = "\\connect there\nCREATE TABLE corpus (id int PRIMARY KEY, txt text);\n".to_owned();
    for values in values.chunks(200) {
        script += &format!("INSERT INTO corpus VALUES {};\n", values.join(","));
    }
    postgres.psql(&script);

    let in_gb18030 =
        |name: &str| connection(name, "postgres", "url", &postgres_url(&postgres, name)).trim_end().to_owned() + CODED;
    let both = mariadb("my", &mariadb_server);
    let scene = Scene {
        provider: in_gb18030("there")
            + &both
            + &resource("there", "there", "public.corpus", &["id"])
            + &resource("back", "my", "corpus", &["id"]),
        consumer: in_gb18030("back")
            + &both
            + &job("there", "my", "corpus", "replace")
            + &job("back", "back", "public.corpus", "replace"),
        grants: vec!["there", "back"],
        ..Scene::default()
    };
    let site = Site::start(&scene);
    for job in ["there", "back"] {
        let end = site.take(job);
        assert_settled(&end);
        assert_eq!(end["quarantined"], 0, "{end}");
        assert_eq!(end["rows"], blocks.len() as u64, "{end}");
    }
    let in_utf8 = mariadb_server.sql("SELECT CONCAT_WS('|', id, LOWER(HEX(txt))) FROM corpus");
    let expected = |hex: &dyn Fn(&str) -> String| sorted(blocks.iter().map(|(id, text)| format!("{id}|{}", hex(text))));
    assert_same_rows("in MariaDB", &lines(in_utf8), &expected(&|text| hex::encode(text)));
    let back = "SELECT id || '|' || encode(convert_to(txt, 'SQL_ASCII'), 'hex') FROM corpus";
    let back = postgres.psql(&format!("\\connect back\n{back}"));
    assert_same_rows("in PostgreSQL", &lines(back), &expected(&coded));
}

#[test]
fn every_code_of_a_column_in_gbk_comes_back_or_is_quarantined_with_its_bytes() {
    let (gbk, utf8) = (Place::new(Engine::MariaDb), Place::new(Engine::Postgres));
    let codes: Vec<Vec<u8>> = one_byte(0x01..=0x7f).chain(two_bytes(0x40..=0xfe)).collect();
    gbk.run(&table_of("there", "gbk", &codes));
    gbk.run("CREATE TABLE back (id bigint PRIMARY KEY, txt varchar(4) CHARACTER SET gbk)");
    let scene = Scene {
        provider: gbk.connection("gbk")
            + &utf8.connection("utf8")
            + &resource("there", "gbk", &gbk.table("there"), &["id"])
            + &resource("back", "utf8", &utf8.table("there"), &["id"]),
        consumer: gbk.connection("gbk")
            + &utf8.connection("utf8")
            + &job("there", "utf8", &utf8.table("there"), "replace")
            + &job("back", "gbk", &gbk.table("back"), "replace"),
        grants: vec!["there", "back"],
        ..Scene::default()
    };
    let site = Site::start(&scene);
    let (Place::MariaDb(mariadb), Place::Postgres(postgres)) = (&gbk, &utf8) else { panic!("they are what they are") };
    // The server itself tells which codes are characters to it, and no two of one.
    let moves = "HEX(CONVERT(CONVERT(txt USING utf8mb4) USING gbk)) = HEX(txt)";
    let ask = |what: &str, condition: &str| {
        lines(mariadb.sql(&format!("SELECT CONCAT_WS('|', id, LOWER(HEX({what}))) FROM there WHERE {condition}")))
    };
    let end = site.take("there");
    assert_settled(&end);
    let there = lines(postgres.psql("SELECT id || '|' || encode(convert_to(txt, 'UTF8'), 'hex') FROM there"));
    assert_same_rows("in PostgreSQL", &there, &ask("CONVERT(txt USING utf8mb4)", moves));
    assert!(there.len() > 21_000, "{}", there.len());
    assert_same_rows("quarantined", &bytes_left(&site, &end), &ask("txt", &format!("NOT ({moves})")));

    let end = site.take("back");
    assert_settled(&end);
    assert_eq!(end["quarantined"], 0, "{end}");
    let back = lines(mariadb.sql("SELECT CONCAT_WS('|', id, LOWER(HEX(txt))) FROM back"));
    assert_same_rows("back in MariaDB", &back, &ask("txt", moves));
}

#[test]
fn bytes_of_gbk_in_a_column_of_latin1_are_read_as_what_they_are_or_quarantined() {
    let (latin1, utf8) = (MariaDb::start(&[]), Place::new(Engine::Postgres));
    let codes: Vec<Vec<u8>> = one_byte(0x01..=0xff).chain(two_bytes(0x40..=0xff)).collect();
    latin1.sql(&format!("SET sql_mode = '';\n{}", table_of("old", "latin1", &codes)));
    let scene = Scene {
        provider: mariadb("db", &latin1).trim_end().to_owned()
            + "\ncharset = \"gbk\"\n\n"
            + &resource("old", "db", "old", &["id"]),
        consumer: utf8.connection("db") + &job("old", "db", &utf8.table("old"), "replace"),
        grants: vec!["old"],
        ..Scene::default()
    };
    let site = Site::start(&scene);
    let end = site.take("old");
    assert_settled(&end);
    let gbk = Charset::parse("gbk").expect("a charset");
    let text_of = |code: &Vec<u8>| gbk.decode(code).ok().map(|text| hex::encode(text.as_bytes()));
    let line = |code: &Vec<u8>| text_of(code).map(|text| format!("{}|{text}", number(code)));
    let Place::Postgres(postgres) = &utf8 else { panic!("it is PostgreSQL") };
    let landed = lines(postgres.psql("SELECT id || '|' || encode(convert_to(txt, 'UTF8'), 'hex') FROM old"));
    assert_same_rows("in PostgreSQL", &landed, &sorted(codes.iter().filter_map(line)));
    let bad = codes.iter().filter(|code| text_of(code).is_none());
    let bad = sorted(bad.map(|code| format!("{}|{}", number(code), hex::encode(code))));
    assert!(bad.len() > 250, "{}", bad.len());
    assert_same_rows("quarantined", &bytes_left(&site, &end), &bad);
}

/// All characters but U+0000, which PostgreSQL has not, 256 to a row.
fn blocks() -> Vec<(u32, String)> {
    let block = |id: u32| {
        let characters = (id << 8..(id + 1) << 8).filter(|number| *number > 0).filter_map(char::from_u32);
        (id, characters.collect::<String>())
    };
    (0..0x1100).map(block).filter(|(_, text)| !text.is_empty()).collect()
}

fn one_byte(bytes: std::ops::RangeInclusive<u8>) -> impl Iterator<Item = Vec<u8>> {
    bytes.map(|byte| vec![byte])
}

/// Codes of two bytes with these as the second.
fn two_bytes(second: std::ops::RangeInclusive<u8>) -> impl Iterator<Item = Vec<u8>> {
    let of = move |first: u8| second.clone().map(move |second| vec![first, second]);
    // 0x7F is no second byte to the server.
    (0x81..=0xfe).flat_map(of).filter(|code| code[1] != 0x7f)
}

/// A table with a row for each code, which is numbered by it.
fn table_of(name: &str, charset: &str, codes: &[Vec<u8>]) -> String {
    let mut script = format!("CREATE TABLE {name} (id int PRIMARY KEY, txt varchar(4) CHARACTER SET {charset});\n");
    for codes in codes.chunks(1_000) {
        let values = codes.iter().map(|code| format!("({}, X'{}')", number(code), hex::encode(code)));
        script += &format!("INSERT INTO {name} VALUES {};\n", values.collect::<Vec<_>>().join(","));
    }
    script
}

fn number(code: &[u8]) -> u32 {
    code.iter().fold(0, |number, byte| number * 256 + u32::from(*byte))
}

/// Of each row in quarantine at the provider its key, and the bytes of its text.
fn bytes_left(site: &Site, end: &Value) -> Vec<String> {
    let transfer = end["transfer"].as_str().expect("an id");
    let ran = posthouse(&["quarantine", "show", "--config", &site.config(PROVIDER), transfer, "--json"]).ok();
    sorted(ran.stdout.lines().map(|line| {
        let row: Value = serde_json::from_str(line).expect("an object a line");
        let original = row["original"].as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
        let bytes = original.as_ref().and_then(|original| original["txt"]["hex"].as_str());
        format!("{}|{}", row["key"].as_str().unwrap_or_default(), bytes.unwrap_or_else(|| panic!("{row}")))
    }))
}

fn lines(printed: Vec<u8>) -> Vec<String> {
    let printed = String::from_utf8(printed).expect("what is printed is UTF-8");
    sorted(printed.lines().map(str::to_owned))
}

fn sorted(lines: impl Iterator<Item = String>) -> Vec<String> {
    let mut lines: Vec<String> = lines.collect();
    lines.sort_unstable();
    lines
}

const CODED: &str = "\ncharset = \"gb18030\"\n\n";
