//! SIGKILL of the nodes, of the coordinator and of both servers at random moments of a load: equal afterwards,
//! nothing doubled, staged splits stay staged, and readers of the target see whole tables only. 10 kills
//! ordinarily, 50 in the long run.

#![expect(clippy::print_stdout, reason = "a scene of many kills tells what became of each")]

use super::{Job, Pair, look};
use crate::support::postgres::Postgres;
use crate::support::{CONSUMER, long, posthouse, wait_for};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Provider,
    Consumer,
    Coordinator,
    Source,
    Destination,
}
use Victim::{Consumer, Coordinator, Destination, Provider, Source};

#[test]
fn a_table_that_is_replaced_survives_kills_and_its_readers_see_whole_ones_only() {
    let mut scene = Kills::start("replace");
    let destination = &scene.pair.destination;
    destination.psql("CREATE VIEW whole AS SELECT * FROM parcels");
    let identity = "SELECT 'parcels'::regclass::oid";
    let before = destination.value(identity);
    let reader = Reader::start(destination, "SELECT count(*) FROM whole");
    scene.rounds(&[Provider, Consumer, Coordinator, Source, Destination], 20, |source, _, round| {
        source.psql(&format!("UPDATE parcels SET owner = 'round {round}' WHERE id % 1000 = {round}"));
    });
    assert_eq!(reader.stop(), BTreeSet::from([rows().to_string()]));
    assert_eq!(scene.pair.destination.value(identity), before, "it is the same table");
    scene.assert_balanced();
}

#[test]
fn a_table_that_is_appended_to_survives_kills() {
    let mut scene = Kills::start("append");
    scene.rounds(&[Destination, Consumer], 15, |_, destination, round| {
        destination.psql(&format!("DELETE FROM parcels WHERE id % 2 = {}", round % 2));
    });
    scene.assert_balanced();
}

#[test]
fn a_table_that_is_upserted_survives_kills() {
    let mut scene = Kills::start("upsert");
    scene.rounds(&[Destination, Provider, Source], 15, |_, destination, round| {
        destination.psql(&format!(
            "UPDATE parcels SET owner = 'edited' WHERE id % 3 = 0; DELETE FROM parcels WHERE id % 100 = {round}"
        ));
    });
    scene.assert_balanced();
}

struct Kills {
    pair: Pair,
    write: &'static str,
    /// How long a load takes that nobody disturbs.
    undisturbed: Duration,
    kills: u64,
}

impl Kills {
    /// Lands the table a first time.
    fn start(write: &'static str) -> Self {
        let source = Postgres::start(&[("fsync", "on")]);
        // What it is told to do is in its log.
        let destination = Postgres::start(&[("fsync", "on"), ("log_statement", "mod")]);
        source.psql(&format!(
            "CREATE TABLE parcels (id bigint PRIMARY KEY, owner text NOT NULL, area numeric(12,2), drawing text)
               WITH (fillfactor = {});
             INSERT INTO parcels SELECT i, '户主 ' || i, i / 7.0, repeat(md5(i::text), 32) FROM generate_series(1, {}) i;
             CHECKPOINT",
            if long() { 100 } else { 10 },
            rows()
        ));
        let pair = Pair::start(source, destination, &[Job::new(JOB, "key = [\"id\"]", "full", write)], None);
        let since = Instant::now();
        assert_eq!(pair.site.take(JOB)["state"], "settled");
        let undisturbed = since.elapsed();
        pair.assert_equal(JOB);
        Self { pair, write, undisturbed, kills: 0 }
    }

    /// One kill of each victim, or so many altogether in the long run. Before each the tables are made to differ.
    fn rounds(&mut self, victims: &[Victim], many: u64, differ: impl Fn(&Postgres, &Postgres, u64)) {
        let count = if long() { many } else { victims.len() as u64 };
        for (round, victim) in (0..count).zip(victims.iter().cycle()) {
            differ(&self.pair.source, &self.pair.destination, round);
            let settled = self.one_killed_run(*victim, round);
            self.pair.assert_equal(JOB);
            let resent = settled["resent_chunks"].as_u64().expect("a count");
            assert!(resent <= 48, "{victim:?} round {round}: {resent} chunks were sent again: {settled}");
            self.kills += 1;
        }
        self.assert_staged_once();
    }

    /// Starts the job, kills at a moment that differs from round to round, starts what was killed again, and waits
    /// until a transfer has settled. Where it failed, it is asked for again, as an operator would.
    fn one_killed_run(&mut self, victim: Victim, round: u64) -> Value {
        let config = self.pair.site.config(CONSUMER);
        let before: BTreeSet<String> = self.pair.transfers(JOB).unwrap_or_default().iter().map(id).collect();
        posthouse(&["job", "run", "--config", &config, JOB]).ok();
        let noise = blake3::hash(format!("{victim:?} {} {round}", self.write).as_bytes());
        let share = f64::from(noise.as_bytes()[0]) / 256.0;
        let delay = self.undisturbed.mul_f64(share);
        std::thread::sleep(delay);
        let newest = self.pair.transfers(JOB).and_then(|list| list.into_iter().next()).unwrap_or_default();
        self.kill(victim);
        let (since, mut asked) = (Instant::now(), Instant::now());
        loop {
            let list = self.pair.transfers(JOB);
            let new = list.iter().flatten().filter(|transfer| !before.contains(&id(transfer)));
            let new: Vec<&Value> = new.collect();
            if let Some(settled) = new.iter().find(|transfer| transfer["state"] == "settled") {
                println!(
                    "{victim:?} {} round {round}: killed after {delay:?} while {}, {} transfers",
                    self.write,
                    newest["state"],
                    new.len()
                );
                return (*settled).clone();
            }
            // A failed transfer may have its successor already.
            let all_failed = list.is_some() && new.iter().all(|transfer| transfer["state"] == "failed");
            if all_failed && asked.elapsed() > Duration::from_secs(2) {
                posthouse(&["job", "run", "--config", &config, JOB]);
                asked = Instant::now();
            }
            assert!(
                since.elapsed() < Duration::from_secs(120),
                "{victim:?} round {round}: not settled: {new:#?}\n{}\n{}",
                self.pair.site.consumer.log_tail(),
                self.pair.site.provider.log_tail()
            );
            std::thread::sleep(Duration::from_millis(150));
        }
    }

    fn kill(&mut self, victim: Victim) {
        let site = &mut self.pair.site;
        let server = match victim {
            Source => &mut self.pair.source,
            Destination => &mut self.pair.destination,
            node => {
                let daemon = match node {
                    Provider => &mut site.provider,
                    Consumer => &mut site.consumer,
                    _ => &mut site.coordinator,
                };
                daemon.kill();
                std::thread::sleep(Duration::from_millis(200));
                return daemon.restart();
            }
        };
        server.kill();
        std::thread::sleep(Duration::from_millis(200));
        server.restart();
    }

    /// Of a transfer, and of those that it followed after they had failed, no more splits were copied into staging than
    /// there are, but those that a kill cut short: one that is staged is taken over.
    fn assert_staged_once(&self) {
        let log = self.pair.destination.log();
        let mut copies: BTreeMap<&str, usize> = BTreeMap::new();
        // What was cut short is named again with its error.
        for line in log.lines().filter(|line| line.contains("LOG:  statement: COPY")) {
            let table = line.split('"').find(|word| word.starts_with("posthouse_staging_"));
            *copies.entry(table.expect("COPY goes into staging")).or_default() += 1;
        }
        assert!(!copies.is_empty(), "the log says what is copied");
        let transfers = self.pair.transfers(JOB).expect("a list");
        let follows: BTreeMap<String, Option<&str>> =
            transfers.iter().map(|transfer| (id(transfer), transfer["succeeds"].as_str())).collect();
        for settled in transfers.iter().filter(|transfer| transfer["state"] == "settled") {
            let chain = std::iter::successors(settled["transfer"].as_str(), |id| follows.get(*id).copied().flatten());
            let (length, copies) = chain.fold((0, 0), |(length, sum), transfer| {
                let table = format!("posthouse_staging_{}", &blake3::hash(transfer.as_bytes()).to_hex()[..16]);
                (length + 1, sum + copies.get(table.as_str()).copied().unwrap_or(0))
            });
            println!("{}: {copies} copies in {length} transfers", id(settled));
            assert!(
                copies >= SPLITS && copies <= SPLITS + length * AT_ONCE,
                "{settled}: {copies} copies of {SPLITS} splits"
            );
        }
    }

    fn assert_balanced(&self) {
        let (settled, failed) = self.pair.assert_ended_once(JOB);
        println!("{} kills of {}: {settled} receipts, {failed} failures", self.kills, self.write);
        assert!(settled as u64 > self.kills, "one each, and the first");
        let centre = self.pair.site.centre_config();
        wait_for("the balance is even", Duration::from_secs(60), || {
            let ran = posthouse(&["reconcile", "--config", &centre, "--json"]);
            let counts = &ran.json()["counts"];
            ran.code == 0 && counts["pending"] == 0 && counts["matched"] == settled
        });
        let left = "SELECT count(*) FROM pg_class WHERE relname LIKE 'posthouse_staging%'";
        assert_eq!(self.pair.destination.value(left), "0", "no staging table is left");
    }
}

/// Seven of them in a block in the long run, one of them otherwise: ten splits.
fn rows() -> u64 {
    if long() { 70_000 } else { 10_000 }
}

fn id(transfer: &Value) -> String {
    transfer["transfer"].as_str().expect("an id").to_owned()
}

/// Looks again and again, beside everything else.
struct Reader {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<BTreeSet<String>>,
}

impl Reader {
    fn start(server: &Postgres, sql: &'static str) -> Self {
        let (stop, socket): (_, PathBuf) = (Arc::new(AtomicBool::new(false)), server.socket().to_owned());
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut seen = BTreeSet::new();
            while !stopped.load(Ordering::Relaxed) {
                let output = look(&socket, sql);
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                if output.status.success() {
                    seen.insert(String::from_utf8_lossy(&output.stdout).trim().to_owned());
                } else if said.contains("ERROR:") {
                    // A server that is away says FATAL, or nothing.
                    seen.insert(said);
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            seen
        });
        Self { stop, thread }
    }
    /// Everything that was seen.
    fn stop(self) -> BTreeSet<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("it looks until it is told to stop")
    }
}

const JOB: &str = "parcels";
const SPLITS: usize = 10;
/// Splits that are staged at one time.
const AT_ONCE: usize = 2;
