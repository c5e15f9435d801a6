//! Rows that the destination's table does not take, of every kind: each is put aside with the reason, all others
//! land, the statement's numbers add up, and a job's limit counts them before anything is published.

use super::{Job, Pair};
use crate::support::postgres::Postgres;
use crate::support::{CONSUMER, posthouse};
use serde_json::Value;

#[test]
fn every_kind_of_row_that_a_table_does_not_take_is_put_aside() {
    let source = Postgres::start(&[]);
    source.psql(SOURCE);
    let job = |write: &str, name, quarantine_max: usize| {
        let mut job = Job { name, ..Job::new("persons", "key = [\"id\"]", "full", write) };
        job.taken += &format!("\nquarantine_max = {quarantine_max}");
        job
    };
    let writes = [("append", "append-strict"), ("upsert", "upsert-strict"), ("replace", "replace-strict")];
    let jobs = writes.map(|(write, strict)| [job(write, write, REFUSED.len()), job(write, strict, REFUSED.len() - 1)]);
    let pair = Pair::start(source, Postgres::start(&[]), jobs.as_flattened(), None);
    for (write, strict) in writes {
        pair.destination.psql(DESTINATION);
        refused_rows(&pair, write, strict);
    }
}

fn refused_rows(pair: &Pair, write: &str, strict: &str) {
    let ran = pair.site.job(CONSUMER, strict);
    assert_eq!((ran.code, &ran.json()["state"]), (1, &"failed".into()), "{ran:#?}");
    assert!(ran.stderr.contains("PH4007"), "{ran:#?}");
    assert_eq!(pair.destination.value("SELECT string_agg(id || name, ',') FROM persons"), "50000before", "{write}");
    assert_eq!(pair.assert_ended_once(strict), (0, 1));

    let end = pair.site.take(write);
    let (read, bad) = (GOOD + REFUSED.len() as u64, REFUSED.len());
    assert_eq!((&end["state"], &end["rows"]), (&"settled".into(), &read.into()), "{end}");
    assert_eq!(end["quarantined"], bad, "{end}");
    let good = format!("SELECT md5(string_agg(p::text, '' ORDER BY id)) FROM persons p WHERE id <= {GOOD}");
    assert_eq!(pair.source.value(&good), pair.destination.value(&good), "{write}: every good row has landed");
    let standing = GOOD + u64::from(write != "replace");
    assert_eq!(pair.destination.value("SELECT count(*) FROM persons"), standing.to_string());
    assert_eq!(pair.assert_ended_once(write), (1, 0));
    assert_told(pair, &end);
}

/// What was refused stands in the table beside the target and at the node, and counts in the statement.
fn assert_told(pair: &Pair, end: &Value) {
    let transfer = end["transfer"].as_str().expect("an id");
    let config = pair.site.config(CONSUMER);
    let shown = posthouse(&["transfer", "show", "--config", &config, transfer, "--json"]).ok().json();
    let at_the_node = shown["quarantine"].as_array().expect("a list");
    assert_eq!(at_the_node.len(), REFUSED.len(), "{shown}");
    for (id, reason) in REFUSED {
        let kept = format!(
            "SELECT reason FROM posthouse_quarantine WHERE transfer = '{transfer}' AND key = '{id}'
               AND (original::json ->> 'id') = '{id}'"
        );
        let kept = pair.destination.value(&kept);
        assert!(kept.contains(reason), "{id}: {kept}");
        let key = id.to_string();
        let row = at_the_node.iter().find(|row| row["key"] == key.as_str()).expect("it is kept at the node");
        assert!(row["reason"].as_str().is_some_and(|text| text.contains(reason)), "{row}");
        assert!(row["original"].as_str().is_some_and(|text| text.contains(&id.to_string())), "{row}");
    }
    let receipt = end["receipt"].as_str().expect("a receipt");
    let shown = posthouse(&["receipt", "show", "--config", &config, receipt, "--json"]).ok().json();
    let counts = &shown["counts"];
    let of = |name: &str| counts[name].as_u64().unwrap_or_else(|| panic!("{name} in {counts}"));
    assert_eq!(of("rows_read"), of("rows_landed") + of("rows_quarantined") + of("rows_filtered"), "{counts}");
    assert_eq!((of("rows_landed"), of("rows_quarantined")), (GOOD, REFUSED.len() as u64), "{counts}");
}

const GOOD: u64 = 6_000;

const SOURCE: &str = "
CREATE TABLE persons (id bigint PRIMARY KEY, name text, age bigint, district bigint, card text, note text);
INSERT INTO persons SELECT i, 'n' || i, i % 90, i % 7, 'c' || i, 'note' FROM generate_series(1, 6000) i;
INSERT INTO persons VALUES (30001, 'a name too long', 1, 1, 'x1', 'note'), (30002, 'b', 40000, 1, 'x2', 'note'),
  (30003, 'b', 1, 1, 'c7', 'note'), (30004, 'b', -1, 1, 'x4', 'note'), (30005, 'b', 1, 99, 'x5', 'note'),
  (30006, 'b', 1, 1, 'x6', NULL), (30007, 'b', 1, 1, 'x7', 'raise'), (30008, 'b', 1, 1, 'x8', 'drop')";

const DESTINATION: &str = "
CREATE TABLE IF NOT EXISTS districts (id bigint PRIMARY KEY);
INSERT INTO districts SELECT generate_series(0, 6) ON CONFLICT DO NOTHING;
DROP TABLE IF EXISTS persons;
CREATE TABLE persons (id bigint PRIMARY KEY, name varchar(8), age smallint CONSTRAINT born CHECK (age >= 0),
  district bigint REFERENCES districts, card text UNIQUE, note text NOT NULL);
CREATE OR REPLACE FUNCTION judge() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
  IF new.note = 'raise' THEN RAISE 'not this one, %', new.id; END IF;
  IF new.note = 'drop' THEN RETURN NULL; END IF; RETURN new; END$$;
CREATE TRIGGER judge BEFORE INSERT OR UPDATE ON persons FOR EACH ROW EXECUTE FUNCTION judge();
INSERT INTO persons VALUES (50000, 'before', 1, 1, 'before', 'before')";

/// Keys of the refused rows, and words of the reasons.
const REFUSED: [(u64, &str); 8] = [
    (30_001, "value too long for type character varying(8)"),
    (30_002, "smallint out of range"),
    (30_003, "duplicate key value violates unique constraint \"persons_card_key\""),
    (30_004, "violates check constraint \"born\""),
    (30_005, "violates foreign key constraint \"persons_district_fkey\""),
    (30_006, "null value in column \"note\""),
    (30_007, "not this one, 30007"),
    (30_008, "dropped the row without a word"),
];
