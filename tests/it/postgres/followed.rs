//! A load that loses its snapshot halfway, and a table that changes before the next load: what is staged and still
//! the same is taken over, and nothing of what changed.

use super::{Job, Pair};
use crate::support::postgres::Postgres;
use crate::support::{CONSUMER, posthouse, wait_for};
use std::time::Duration;

#[test]
fn what_a_lost_load_has_staged_is_taken_over_where_it_is_still_the_same() {
    let source = Postgres::start(&[]);
    // What it is told to do is in its log.
    let destination = Postgres::start(&[("log_statement", "mod")]);
    source.psql(
        "CREATE TABLE parcels (id bigint PRIMARY KEY, owner text NOT NULL, drawing text);
         INSERT INTO parcels SELECT i, '户主 ' || i, repeat(md5(i::text), 32) FROM generate_series(1, 60000) i; CHECKPOINT",
    );
    let splits: usize =
        source.value("SELECT (pg_relation_size('parcels') / 8192 + 1023) / 1024").parse().expect("a number");
    assert!(splits > 6, "it falls into {splits} splits");
    // The source is read as fast as the line takes it, so that the snapshot is still held when the provider is killed.
    let slow = "memory = \"48 MiB\"\nbandwidth = \"12 MiB\"";
    let mut pair = Pair::start_with(source, destination, &[Job::new(JOB, "key = [\"id\"]", "full", "replace")], slow);
    posthouse(&["job", "run", "--config", &pair.site.config(CONSUMER), JOB]).ok();
    let applied = "SELECT count(*) FROM posthouse_applied";
    let exists = "SELECT count(*) FROM pg_class WHERE relname = 'posthouse_applied'";
    let staged = |pair: &Pair| match pair.destination.value(exists).as_str() {
        "1" => pair.destination.value(applied).parse::<usize>().expect("a number"),
        _ => 0,
    };
    wait_for("some splits are staged", Duration::from_secs(60), || staged(&pair) >= 3);
    pair.site.provider.kill();
    // The first split loses a row and the last one has it; a row in the middle goes.
    pair.source.psql("UPDATE parcels SET owner = 'moved' WHERE id = 10; DELETE FROM parcels WHERE id = 9000");
    pair.site.provider.restart();
    wait_for("the next load has settled", Duration::from_secs(90), || {
        pair.transfers(JOB).is_some_and(|list| list.first().is_some_and(|newest| newest["state"] == "settled"))
    });
    let transfers = pair.transfers(JOB).expect("a list");
    let states: Vec<&str> = transfers.iter().filter_map(|transfer| transfer["state"].as_str()).collect();
    assert_eq!(states, ["settled", "failed"], "{transfers:#?}");
    assert_eq!(transfers[0]["succeeds"], transfers[1]["transfer"]);
    pair.assert_equal(JOB);
    pair.assert_ended_once(JOB);
    let log = pair.destination.log();
    let copied = |transfer: &serde_json::Value| {
        let id = transfer["transfer"].as_str().expect("an id");
        let table = format!("\"posthouse_staging_{}\"", &blake3::hash(id.as_bytes()).to_hex()[..16]);
        log.lines().filter(|line| line.contains("LOG:  statement: COPY") && line.contains(&table)).count()
    };
    let (before, after) = (copied(&transfers[1]), copied(&transfers[0]));
    assert!(before >= 3 && after < splits, "{splits} splits: copied {before}, then {after}");
    // Three changed, two may have been cut short.
    assert!(before + after <= splits + 5, "{splits} splits: copied {before}, then {after}");
    let left = "SELECT count(*) FROM pg_class WHERE relname LIKE 'posthouse_staging%'";
    assert_eq!(pair.destination.value(left), "0", "no staging table is left");
}

const JOB: &str = "parcels";
