//! Is it the line or the database? A source, a line and a destination that are slow, each told by one command at either
//! side; and what an account lacks, told by the same program.

use super::{Job, Pair};
use crate::support::postgres::Postgres;
use crate::support::{CONSUMER, PROVIDER, posthouse};
use serde_json::Value;

/// What `doctor --job` says at a node.
fn asked(pair: &Pair, node: &str, more: &[&str]) -> Value {
    let config = pair.site.config(node);
    let mut words = vec!["doctor", "--config", &config, "--job", "permits", "--json"];
    words.extend(more);
    posthouse(&words).ok().json()
}

fn take(pair: &Pair) {
    let end = pair.site.take("permits");
    assert_eq!(end["state"], "settled", "{end}");
}

#[test]
fn a_slow_source_is_told_at_both_sides() {
    let (source, destination) = (Postgres::start(&[]), Postgres::start(&[]));
    source.psql(
        "CREATE FUNCTION slowly(bigint) RETURNS bigint LANGUAGE sql VOLATILE AS 'SELECT $1 FROM pg_sleep(0.02)';
         CREATE VIEW permits AS SELECT slowly(i) AS id, '持证 ' || i AS holder FROM generate_series(1, 200) i",
    );
    let pair = Pair::start(source, destination, &[Job::new("permits", "", "full", "append")], None);
    take(&pair);
    let told = asked(&pair, CONSUMER, &[]);
    assert_eq!(told["verdict"], "source", "{told}");
    assert!(told["line"]["answer_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{told}");
    let told = asked(&pair, PROVIDER, &[]);
    assert_eq!((&told["verdict"], &told["side"]), (&"source".into(), &"provider".into()), "{told}");
    assert_eq!(told["source"]["rows"].as_u64().map(|rows| rows > 0), Some(true), "{told}");
    let sentence = posthouse(&["doctor", "--config", &pair.site.config(CONSUMER), "--job", "permits", "--lang", "zh"]);
    assert!(sentence.ok().stdout.starts_with("受限于数据源："));
}

#[test]
fn a_slow_line_is_told_at_both_sides() {
    let (source, destination) = (Postgres::start(&[]), Postgres::start(&[]));
    // Bytes that no packing makes shorter.
    source.psql(
        "CREATE TABLE permits (id bigint PRIMARY KEY, plan bytea NOT NULL);
         INSERT INTO permits SELECT i, (SELECT string_agg(decode(md5(i || ' ' || j), 'hex'), ''::bytea) FROM generate_series(1, 64) j)
           FROM generate_series(1, 6000) i",
    );
    let jobs = [Job::new("permits", "key = [\"id\"]", "full", "replace")];
    let pair = Pair::start_with(source, destination, &jobs, "bandwidth = \"1 MiB\"");
    take(&pair);
    for node in [CONSUMER, PROVIDER] {
        let told = asked(&pair, node, &[]);
        assert_eq!(told["verdict"], "line", "{node}: {told}");
        assert!(told["line_bytes_per_second"].as_f64().is_some_and(|speed| speed > 0.0), "{node}: {told}");
    }
}

#[test]
fn a_slow_destination_is_told_and_measuring_it_leaves_nothing() {
    let (source, destination) = (Postgres::start(&[]), Postgres::start(&[]));
    source.psql(
        "CREATE TABLE permits (id bigint PRIMARY KEY, holder text NOT NULL);
         INSERT INTO permits SELECT i, '持证 ' || i FROM generate_series(1, 1000) i",
    );
    destination.psql(
        "CREATE TABLE permits (id bigint PRIMARY KEY, holder text NOT NULL);
         CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(4); RETURN NULL; END';
         CREATE TRIGGER slowly BEFORE INSERT ON permits FOR EACH STATEMENT EXECUTE FUNCTION slowly()",
    );
    let pair = Pair::start(source, destination, &[Job::new("permits", "key = [\"id\"]", "full", "append")], None);
    take(&pair);
    let told = asked(&pair, CONSUMER, &[]);
    assert_eq!(told["verdict"], "destination", "{told}");
    assert_eq!(told["destination"], Value::Null, "it is measured where that is asked for");
    let told = asked(&pair, PROVIDER, &[]);
    assert_eq!(told["verdict"], "consumer", "{told}");

    let applied = pair.destination.value("SELECT count(*) FROM posthouse_applied");
    let told = asked(&pair, CONSUMER, &["--write"]);
    assert_eq!(told["destination"]["rows"], 1000, "{told}");
    assert_eq!(pair.destination.value("SELECT count(*) FROM posthouse_applied"), applied);
    assert_eq!(pair.destination.value("SELECT count(*) FROM permits"), "1000");
    let staging = "SELECT count(*) FROM pg_class WHERE relname LIKE 'posthouse\\_staging\\_%' AND relkind = 'r'";
    assert_eq!(pair.destination.value(staging), "0");
    let config = pair.site.config(PROVIDER);
    let refused = posthouse(&["doctor", "--config", &config, "--job", "permits", "--write"]);
    assert_eq!(refused.code, 2, "a provider has no destination: {refused:#?}");
    let unknown = posthouse(&["doctor", "--config", &config, "--job", "nothing"]);
    assert!(unknown.code == 2 && unknown.stderr.contains("PH1004"), "{unknown:#?}");
}

#[test]
fn what_a_provider_may_not_read_is_told_with_what_gives_it() {
    let (source, destination) = (Postgres::start(&[]), Postgres::start(&[]));
    source.psql("CREATE TABLE permits (id bigint PRIMARY KEY); CREATE ROLE exchange LOGIN");
    let pair = Pair::start(source, destination, &[Job::new("permits", "", "full", "append")], None);
    let config = pair.site.config(PROVIDER);
    let text = std::fs::read_to_string(&config).expect("it is there");
    let less = pair.site.dir().join("less.toml");
    std::fs::write(&less, text.replace("postgres://postgres@", "postgres://exchange@")).expect("it is written");
    let less = less.to_str().expect("a plain name");
    let wrong = || {
        let ran = posthouse(&["doctor", "--config", less, "--json"]);
        let lines = ran.stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let wrong: Vec<Value> = lines.filter(|line| line["item"] == "finding" && line["ok"] == false).collect();
        (ran.code, wrong)
    };
    let (code, found) = wrong();
    assert_eq!(code, 1);
    let [finding] = found.as_slice() else { panic!("{found:#?}") };
    assert_eq!((&finding["connection"], &finding["topic"]), (&"db".into(), &"rights".into()), "{finding}");
    pair.source.psql(finding["fix"].as_str().expect("a statement"));
    assert_eq!(wrong(), (0, Vec::new()));
}
