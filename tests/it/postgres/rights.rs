//! An account that may read and write rows and nothing else, in tables that the DBA made by the script of
//! `doctor --sql`: every way of writing, and each again after a kill.

use super::{Job, Pair, url};
use crate::support::postgres::Postgres;
use crate::support::{CONSUMER, posthouse, wait_for};
use serde_json::Value;
use std::time::Duration;

#[test]
fn an_account_with_rows_only_lands_in_tables_of_the_script() {
    let (source, destination) = (Postgres::start(&[]), Postgres::start(&[("log_statement", "ddl")]));
    source.psql(
        "CREATE TABLE permits (id bigint PRIMARY KEY, holder text NOT NULL, area numeric(10,2), issued timestamp, plan text)
           WITH (fillfactor = 10);
         COMMENT ON COLUMN permits.holder IS '持证人';
         INSERT INTO permits SELECT i, '持证 ' || i, i / 3.0, timestamp '2026-01-01' + i * interval '1 s',
           repeat(md5(i::text), 14) FROM generate_series(1, 5000) i",
    );
    destination.psql("CREATE ROLE exchange LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC");
    let jobs = WRITES.map(|write| Job { name: write, ..Job::new("permits", "key = [\"id\"]", "full", write) });
    let at = url(&destination, "exchange");
    let mut pair = Pair::start(source, destination, &jobs, Some(&at));
    let config = pair.site.config(CONSUMER);
    let script = || posthouse(&["doctor", "--config", &config, "--sql", "db"]);

    // Without the tables each job says what is missing; what it was offered is known then.
    for write in WRITES {
        let ran = pair.site.job(CONSUMER, write);
        assert_eq!((ran.code, &ran.json()["state"]), (1, &"failed".into()), "{ran:#?}");
        assert!(ran.stderr.contains("doctor --config"), "{ran:#?}");
    }
    let script = script().ok().stdout;
    pair.destination.psql(&script);
    let before = made(&pair.destination);

    for (number, write) in WRITES.into_iter().enumerate() {
        land(&pair, write, number);
        let end = pair.site.take(write);
        assert_eq!((&end["state"], &end["rows"]), (&"settled".into(), &5_000.into()), "{end}");
        pair.assert_equal("permits");

        land(&pair, write, number + 10);
        killed(&mut pair, write);
        pair.assert_equal("permits");
    }
    assert_eq!(made(&pair.destination), before, "nothing was made and nothing is left");
    for write in WRITES {
        let left = format!("SELECT count(*) FROM posthouse_staging_{write}");
        assert_eq!(pair.destination.value(&left), "0", "{write}");
        let (settled, failed) = pair.assert_ended_once(write);
        assert!((settled, failed) >= (2, 1), "{write}: {settled} settled, {failed} failed");
    }
}

/// Makes the target differ as far as this way of writing has it equal again.
fn land(pair: &Pair, write: &str, round: usize) {
    let differ = match write {
        "replace" => {
            "UPDATE permits SET holder = 'other' WHERE id % 7 = 3; INSERT INTO permits VALUES (900000, 'gone')"
        }
        "append" => "DELETE FROM permits WHERE id % 5 = 1",
        "upsert" => "DELETE FROM permits WHERE id % 5 = 1; UPDATE permits SET area = 0 WHERE id % 9 = 2",
        _ => "INSERT INTO permits VALUES (900000, 'gone'); UPDATE permits SET plan = NULL WHERE id % 9 = 2",
    };
    pair.destination.psql(differ);
    let touch = "UPDATE permits SET issued = issued + interval '1 day' WHERE id % 100 = ";
    if write != "append" {
        pair.source.psql(&format!("{touch}{round}"));
    }
}

/// Runs the job, and kills the node that lands it in its midst.
fn killed(pair: &mut Pair, write: &str) {
    let config = pair.site.config(CONSUMER);
    let of_job = |pair: &Pair| pair.transfers(write).and_then(|list| list.into_iter().next()).unwrap_or_default();
    let before = of_job(pair);
    posthouse(&["job", "run", "--config", &config, write]).ok();
    // As soon as a split is staged.
    let staged = format!("SELECT count(*) FROM posthouse_applied WHERE job = '{write}' AND published IS NULL");
    wait_for("a split is staged", Duration::from_secs(60), || {
        pair.destination.value(&staged) != "0" || of_job(pair)["state"] == "settled"
    });
    pair.site.consumer.kill();
    pair.site.consumer.restart();
    let mut end = Value::Null;
    wait_for("it settles", Duration::from_secs(60), || {
        end = of_job(pair);
        end["transfer"] != before["transfer"] && end["state"] == "settled"
    });
    assert!(end["resent_chunks"].as_u64().is_some_and(|resent| resent <= 48), "{end}");
}

/// Every table there is, by its identity.
fn made(server: &Postgres) -> String {
    server.value(
        "SELECT string_agg(oid || ' ' || relname, E'\\n' ORDER BY relname) FROM pg_class
         WHERE relkind IN ('r', 'i', 'v', 'S') AND relnamespace = 'public'::regnamespace",
    )
}

const WRITES: [&str; 4] = ["replace", "append", "upsert", "mirror"];
