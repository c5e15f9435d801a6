//! A table whose program wrote GBK, blanks, zeros for no date and dates as text, by real processes: what the consumer has
//! in its own GBK table, what both parties sign, what stays behind with its bytes, what a deep reconciliation finds.

use crate::exchange::{assert_settled, transfer_shown};
use crate::support::{CONSUMER, PROVIDER, Scene, Site, posthouse, text};
use rusqlite::Connection;
use serde_json::Value;
use std::path::Path;

/// Rows that land. Of these every second has no note, and every hundredth no time.
const ROWS: u64 = 500;

/// 王 with two blanks, and behind these rows one whose name is no text and one whose day is none.
const SOURCE: &str = "CREATE TABLE dj (bh TEXT PRIMARY KEY NOT NULL, xm TEXT, rq TEXT, sj DATETIME, bz TEXT);
    INSERT INTO dj WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
      SELECT 'B' || i, CAST(x'cdf52020' AS TEXT), '20240229',
        CASE WHEN i % 100 = 0 THEN '0000-00-00 00:00:00' ELSE '2024-01-01 08:00:00' END,
        CASE WHEN i % 2 = 0 THEN '' ELSE 'x' END FROM n;
    INSERT INTO dj VALUES ('U1', CAST(x'cdf5ff' AS TEXT), '20240229', NULL, 'x'),
      ('D1', CAST(x'c0ee' AS TEXT), '20240230', NULL, 'x');";

#[test]
fn a_table_in_gbk_lands_as_what_it_means_and_both_parties_say_by_which_rules() {
    let data = tempfile::tempdir().expect("a temporary folder");
    let source = data.path().join("source.db");
    change(&source, SOURCE);
    let site = Site::start(&scene(&source));
    let end = site.take("registry");
    assert_settled(&end);
    assert_eq!(end["quarantined"], 2, "{end}");

    let target = site.dir().join("target.db");
    let names = "SELECT count(*) FROM pragma_table_info('registry') WHERE name IN ('BH', 'XM', 'RQ', 'SJ', 'BZ')";
    assert_eq!(number(&target, names), 5);
    assert_eq!(number(&target, "SELECT count(*) FROM registry WHERE hex(XM) = 'CDF5' AND RQ = '2024-02-29'"), ROWS);
    assert_eq!(number(&target, "SELECT count(*) FROM registry WHERE SJ IS NULL"), ROWS / 100);
    assert_eq!(number(&target, "SELECT count(*) FROM registry WHERE BZ IS NULL"), ROWS / 2);
    assert_eq!(number(&target, "SELECT count(*) FROM registry"), ROWS);

    for node in [PROVIDER, CONSUMER] {
        let shown = transfer_shown(&site, node, &end);
        let governed = shown["governed"].as_array().expect("what was done");
        let said: Vec<(&str, &str)> = governed
            .iter()
            .map(|done| (done["column"].as_str().unwrap_or("*"), done["what"].as_str().unwrap_or_default()))
            .collect();
        let expected =
            [("*", "empty = null"), ("*", "blanks = trim"), ("*", "zero_dates = null"), ("rq", "dates = yyyyMMdd")];
        assert_eq!(said, expected, "{shown}");
    }
    let receipt = end["receipt"].as_str().expect("a receipt");
    let config = site.config(CONSUMER);
    let shown = posthouse(&["receipt", "show", "--config", &config, receipt, "--json"]).ok().json();
    assert_eq!(shown["counts"]["values_changed"], ROWS + ROWS + ROWS / 2 + ROWS / 100, "{shown}");

    let transfer = end["transfer"].as_str().expect("an id");
    let left = posthouse(&["quarantine", "show", "--config", &site.config(PROVIDER), transfer, "--json"]).stdout;
    assert!(left.contains("cdf5ff") && left.contains("GBK"), "{left}");
    assert!(left.contains("20240230") && left.contains("no such day"), "{left}");
    deep_reconciliation_goes_by_the_same_rules(&site, &source);
}

fn deep_reconciliation_goes_by_the_same_rules(site: &Site, source: &Path) {
    assert_eq!(deep(site), 0);
    change(source, "UPDATE dj SET xm = CAST(x'cdf5' AS TEXT), bz = NULL WHERE bh = 'B2'");
    assert_eq!(deep(site), 0, "it means the same");
    change(source, "UPDATE dj SET xm = CAST(x'c0ee' AS TEXT) WHERE bh = 'B2'");
    assert_eq!(deep(site), 3);
    assert_settled(&site.take("registry"));
    assert_eq!(deep(site), 0);
}

fn scene(source: &Path) -> Scene {
    let provider = format!(
        r#"[connection.db]
kind = "sqlite"
path = "{}"
charset = "gbk"

[[resource]]
id = "registry"
connection = "db"
table = "dj"
key = ["bh"]
[resource.rules]
empty = "null"
blanks = "trim"
"#,
        text(source)
    );
    let consumer = format!(
        r#"[connection.db]
kind = "sqlite"
path = "{{dir}}/target.db"
charset = "gbk"

[[job]]
name = "registry"
resource = "{PROVIDER}/registry"
into = {{ connection = "db", table = "registry", names = "upper" }}
mode = "full"
write = "replace"
schedule = "manual"
[job.rules]
zero_dates = "null"
dates = {{ rq = "yyyyMMdd" }}
"#
    );
    Scene { provider, consumer, grants: vec!["registry"], ..Scene::default() }
}

fn change(database: &Path, sql: &str) {
    Connection::open(database).expect("the database opens").execute_batch(sql).expect("it changes");
}

fn number(database: &Path, sql: &str) -> u64 {
    let database = Connection::open(database).expect("the database opens");
    let found: i64 = database.query_row(sql, [], |row| row.get(0)).unwrap_or_else(|error| panic!("{sql}: {error}"));
    found.unsigned_abs()
}

fn deep(site: &Site) -> i32 {
    let ran = posthouse(&["reconcile", "--config", &site.config(CONSUMER), "--deep", "registry", "--json"]);
    let said: Option<Value> = serde_json::from_str(ran.stdout.lines().last().unwrap_or_default()).ok();
    assert!(said.is_some(), "{ran:#?}");
    ran.code
}
