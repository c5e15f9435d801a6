//! Dates of zeros, empty texts and blanks of a MariaDB table, on their way into PostgreSQL: what each rule makes of them,
//! and what stays behind where no rule says what they mean.

use super::{Engine, Place, job, resource};
use crate::exchange::assert_settled;
use crate::support::{PROVIDER, Scene, Site, posthouse};
use serde_json::Value;

/// Zeros in each kind of column, alone and together; dates of which a part is zero; texts that are empty or blank.
const SOURCE: &str = "
CREATE TABLE dj (bh varchar(20) PRIMARY KEY, d date, dt datetime(3), ts timestamp NULL, vc varchar(20), c char(6));
INSERT INTO dj VALUES
  ('A1', '2024-02-29', '2024-01-01 08:00:00.5', '2024-01-01 08:00:00', 'x', 'ab'),
  ('Z1', '0000-00-00', '2024-01-01 08:00:00', NULL, 'x', 'ab'),
  ('Z2', NULL, '0000-00-00 00:00:00', NULL, 'x', 'ab'),
  ('Z3', NULL, NULL, '0000-00-00 00:00:00', 'x', 'ab'),
  ('Z4', '0000-00-00', '0000-00-00 00:00:00', '0000-00-00 00:00:00', '', ''),
  ('P1', '2026-00-07', NULL, NULL, 'x', 'ab'),
  ('P2', NULL, '2026-01-00 00:00:00', NULL, 'x', 'ab'),
  ('E1', NULL, NULL, NULL, '', ''),
  ('E2', NULL, NULL, NULL, '  ', '  '),
  ('E3', NULL, NULL, NULL, 'x  ', 'ab  '),
  ('N1', NULL, NULL, NULL, NULL, NULL);
CREATE TABLE days (d date PRIMARY KEY, v int);
INSERT INTO days VALUES ('0000-00-00', 1), ('2024-02-29', 2);
";

#[test]
fn dates_of_zeros_and_empty_texts_are_kept_apart_or_become_null_as_each_rule_says() {
    let (source, target) = (Place::new(Engine::MariaDb), Place::new(Engine::Postgres));
    source.run(SOURCE);
    let mut scene = Scene { provider: source.connection("db"), consumer: target.connection("db"), ..Scene::default() };
    for (name, table, key, rules, asked) in [
        ("plain", "dj", "bh", "", ""),
        ("ruled", "dj", "bh", "empty = \"null\"\nblanks = \"trim\"\nzero_dates = \"null\"\n", ""),
        ("asked", "dj", "bh", "", "empty = \"null\"\nzero_dates = \"null\"\n"),
        ("days", "days", "d", "zero_dates = \"null\"\n", ""),
    ] {
        scene.grants.push(name);
        scene.provider += &resource(name, "db", &source.table(table), &[key]);
        scene.consumer += &job(name, "db", &target.table(name), "replace");
        for (text, part, lines) in [(&mut scene.provider, "resource", rules), (&mut scene.consumer, "job", asked)] {
            if !lines.is_empty() {
                *text += &format!("[{part}.rules]\n{lines}\n");
            }
        }
    }
    let site = Site::start(&scene);
    let Place::Postgres(postgres) = &target else { panic!("it is PostgreSQL") };

    let end = taken(&site, "plain", 6);
    let kept =
        "A1 2024-02-29 2024-01-01 08:00:00.5 [x] [ab]\nE1 - - [] []\nE2 - - [  ] []\nE3 - - [x  ] [ab]\nN1 - - - -";
    assert_eq!(postgres.value(&shown("plain")), kept);
    let left = quarantined(&site, &end);
    let of = |reason: &str| left.iter().filter(|row| text(row, "reason").contains(reason)).count();
    assert_eq!((of("it is the zero date"), of("a part of its date is zero")), (4, 2), "{left:#?}");
    for (key, original) in [("Z1", "0000-00-00"), ("Z2", "0000-00-00"), ("P1", "2026-00-07"), ("P2", "2026-01-00")] {
        let row = left.iter().find(|row| row["key"] == key).unwrap_or_else(|| panic!("{key}: {left:#?}"));
        assert!(text(row, "original").contains(original), "{row}");
    }

    let end = taken(&site, "ruled", 2);
    let ruled = "A1 2024-02-29 2024-01-01 08:00:00.5 [x] [ab]\nE1 - - - -\nE2 - - - -\nE3 - - [x] [ab]\nN1 - - - -\n\
                 Z1 - 2024-01-01 08:00:00 [x] [ab]\nZ2 - - [x] [ab]\nZ3 - - [x] [ab]\nZ4 - - - -";
    assert_eq!(postgres.value(&shown("ruled")), ruled);
    assert!(quarantined(&site, &end).iter().all(|row| text(row, "key").starts_with('P')));

    taken(&site, "asked", 2);
    // A text of blanks is none that is empty; a `char` of blanks is.
    let asked = ruled.replace("E2 - - - -", "E2 - - [  ] -").replace("[x] [ab]\nN1", "[x  ] [ab]\nN1");
    assert_eq!(postgres.value(&shown("asked")), asked);

    // A key is never made NULL, for two keys must not become one.
    let end = taken(&site, "days", 1);
    assert_eq!(postgres.value("SELECT v FROM days"), "2");
    assert!(text(&quarantined(&site, &end)[0], "reason").contains("zero date"), "{end}");
}

/// Runs a job that leaves so many rows behind.
fn taken(site: &Site, job: &str, left: u64) -> Value {
    let end = site.take(job);
    assert_settled(&end);
    assert_eq!(end["quarantined"], left, "{end}");
    end
}

fn quarantined(site: &Site, end: &Value) -> Vec<Value> {
    let transfer = text(end, "transfer");
    let ran = posthouse(&["quarantine", "show", "--config", &site.config(PROVIDER), transfer, "--json"]).ok();
    ran.stdout.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// Rows on lines, with brackets around texts.
fn shown(table: &str) -> String {
    format!(
        "SET DateStyle = 'ISO, YMD'; SELECT concat_ws(' ', bh, coalesce(d::text, '-'), coalesce(dt::text, '-'),
           coalesce('[' || vc || ']', '-'), coalesce('[' || c::text || ']', '-'))
         FROM {table} ORDER BY bh COLLATE \"C\""
    )
}
