//! Tables of any shape, drawn by a seed, from one engine to another through real nodes. Each one either lands equal, as
//! each database's own SQL shows it, but for rows that nobody can carry, which are quarantined; or it is refused by a
//! code and a column's name, and leaves nothing. 15 each way ordinarily, 300 in the long run. `SEED=7` draws the seventh
//! alone, `SEED=7-9` three.

#![expect(clippy::print_stdout, reason = "what was drawn is told with its seeds")]

mod drawing;
mod kinds;
mod lake;

use super::{Engine, Place, job, lacking, look, resource};
use crate::support::{CONSUMER, Ran, Scene, Site, long};
use drawing::Case;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

#[test]
fn tables_of_postgresql_land_equal_in_mariadb_or_are_refused_by_name() {
    each_way(Engine::Postgres, Engine::MariaDb);
}
#[test]
fn tables_of_mariadb_land_equal_in_postgresql_or_are_refused_by_name() {
    each_way(Engine::MariaDb, Engine::Postgres);
}
#[test]
fn tables_of_postgresql_land_equal_in_sqlite_or_are_refused_by_name() {
    each_way(Engine::Postgres, Engine::Sqlite);
}
#[test]
fn tables_of_sqlite_land_equal_in_postgresql_or_are_refused_by_name() {
    each_way(Engine::Sqlite, Engine::Postgres);
}
#[test]
fn tables_of_mariadb_land_equal_in_sqlite_or_are_refused_by_name() {
    each_way(Engine::MariaDb, Engine::Sqlite);
}
#[test]
fn tables_of_sqlite_land_equal_in_mariadb_or_are_refused_by_name() {
    each_way(Engine::Sqlite, Engine::MariaDb);
}
#[test]
fn tables_of_postgresql_land_equal_in_sql_server_or_are_refused_by_name() {
    each_way(Engine::Postgres, Engine::SqlServer);
}
#[test]
fn tables_of_sql_server_land_equal_in_postgresql_or_are_refused_by_name() {
    each_way(Engine::SqlServer, Engine::Postgres);
}
#[test]
fn tables_of_sql_server_land_equal_in_mariadb_or_are_refused_by_name() {
    each_way(Engine::SqlServer, Engine::MariaDb);
}
#[test]
fn tables_of_mariadb_land_equal_in_sql_server_or_are_refused_by_name() {
    each_way(Engine::MariaDb, Engine::SqlServer);
}

fn each_way(from: Engine, to: Engine) {
    let seeds = seeds();
    let (mut wrong, mut seen) = (Vec::new(), Seen::default());
    for seeds in seeds.chunks(CASES_OF_A_SITE) {
        let cases: Vec<Case> = seeds.iter().map(|seed| Case::draw(from, to, *seed)).collect();
        wrong.extend(play(from, to, &cases, &mut seen));
    }
    println!("{from:?} to {to:?}, SEED={}-{}: {seen:?}", seeds[0], seeds[seeds.len() - 1]);
    assert!(wrong.is_empty(), "of {} tables drawn:\n{}", seeds.len(), wrong.join("\n\n"));
    seen.assert_worth_it(seeds.len());
}

fn seeds() -> Vec<u64> {
    match std::env::var("SEED").ok() {
        Some(seeds) => {
            let (first, last) = seeds.split_once('-').unwrap_or((&seeds, &seeds));
            let number = |text: &str| -> u64 { text.parse().expect("SEED is a number, or two with a dash") };
            (number(first)..=number(last)).collect()
        }
        None => (1..=if long() { 300 } else { 15 }).collect(),
    }
}

/// What became of the tables.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    landed: usize,
    refused: usize,
    rows: usize,
    quarantined: usize,
}

impl Seen {
    /// A scene in which nearly nothing moves shows nothing.
    fn assert_worth_it(&self, drawn: usize) {
        assert!(self.landed * 2 > drawn, "of {drawn} tables: {self:?}");
        assert!(drawn < 15 || self.rows > 100, "{self:?}");
    }
}

/// A table that stands at the source, with the rows of it that have to arrive.
struct Given<'a> {
    case: &'a Case,
    must: Vec<String>,
}

impl<'a> Given<'a> {
    /// What must arrive is looked at before what cannot is put beside it.
    fn fill(case: &'a Case, source: &Place) -> Self {
        source.run(&case.ddl(source));
        source.run(&case.good_rows(source));
        let must = look::rows(source, &case.table, &case.at_source()).expect("the source has its table");
        source.run(&case.bad_rows(source));
        Self { case, must }
    }
}

/// Moves these tables; what went wrong, each with its seed.
fn play(from: Engine, to: Engine, cases: &[Case], seen: &mut Seen) -> Vec<String> {
    let (source, target) = (Place::new(from), Place::new(to));
    let given: Vec<Given<'_>> = cases.iter().map(|case| Given::fill(case, &source)).collect();
    let mut scene = Scene { provider: source.connection("db"), consumer: target.connection("db"), ..Scene::default() };
    for case in cases {
        scene.provider += &resource(&case.id, "db", &source.table(&case.table), &case.key_names());
        scene.consumer += &job(&case.id, "db", &target.table(&case.table), case.write);
    }
    let site = Site::start(&scene);
    for case in cases {
        site.grant(&case.id);
    }
    let mut wrong = Vec::new();
    // A table that stands is landed in otherwise than one that is made.
    let again = |given: &&Given<'_>| given.case.write != "append" && given.case.seed.is_multiple_of(3);
    let at_a_time = if to == Engine::Sqlite { 1 } else { AT_A_TIME };
    let all: Vec<&Given<'_>> = given.iter().collect();
    let again: Vec<&Given<'_>> = given.iter().filter(again).collect();
    for given in [all, again] {
        for (given, ran) in given.iter().zip(run_all(&site, &given, at_a_time)) {
            let landed = || look::rows(&target, &given.case.table, &given.case.at_target());
            if let Err(what) = judge(given, &ran, &source, landed, seen) {
                let Case { seed, write, .. } = given.case;
                wrong.push(format!("SEED={seed} {from:?} to {to:?}, {write}: {what}\n{}", given.case.ddl(&source)));
            }
        }
    }
    for place in [&source, &target] {
        if let Place::SqlServer(server) = place
            && !server.unknown().is_empty()
        {
            wrong.push(format!("the test server did not know {:#?}", server.unknown()));
        }
    }
    if !wrong.is_empty() {
        wrong.push(format!("{}\n{}", site.provider.log_tail(), site.consumer.log_tail()));
    }
    wrong
}

/// Whether a table was refused by name and left nothing, or landed equal; what is wrong where neither is so.
fn judge(
    given: &Given<'_>,
    ran: &Ran,
    source: &Place,
    landed: impl Fn() -> Option<Vec<String>>,
    seen: &mut Seen,
) -> Result<(), String> {
    let Given { case, must } = given;
    if ran.code != 0 {
        let is_named = |name: &String| ran.stderr.contains(&format!("`{name}`"));
        // A refusal of what could have moved is as wrong as a value that changed.
        let is_told = case.refused.iter().any(is_named);
        if !ran.stderr.contains("PH40") || !is_told {
            return Err(format!("neither landed nor was refused by name: {ran:#?}"));
        }
        if let Some(rows) = landed().filter(|rows| !rows.is_empty()) {
            return Err(format!("was refused, and left {} rows", rows.len()));
        }
        seen.refused += 1;
        return Ok(());
    }
    if !case.refused.is_empty() {
        return Err(format!("{:?} was not refused: {ran:#?}", case.refused));
    }
    let end = ran.json();
    if end["state"] != "settled" {
        return Err(format!("did not settle: {end}"));
    }
    let all = look::rows(source, &case.table, &case.at_source()).expect("the source has its table");
    let Some(landed) = landed() else { return Err(format!("nothing landed: {end}")) };
    equal(must, &all, &landed, end["quarantined"].as_u64().unwrap_or(u64::MAX))
        .map_err(|what| format!("{what}: {end}"))?;
    seen.landed += 1;
    seen.rows += landed.len();
    seen.quarantined += all.len() - landed.len();
    Ok(())
}

/// What must be there is, and nothing that was not; the others are quarantined.
fn equal(must: &[String], all: &[String], landed: &[String], quarantined: u64) -> Result<(), String> {
    let lost = lacking(must, landed);
    if let Some(first) = lost.first() {
        return Err(format!("{} of {} rows are not there, such as {first}", lost.len(), must.len()));
    }
    let changed = lacking(landed, all);
    if let Some(first) = changed.first() {
        return Err(format!("{} of {} rows are not the source's, such as {first}", changed.len(), landed.len()));
    }
    match landed.len() as u64 + quarantined == all.len() as u64 {
        true => Ok(()),
        false => Err(format!("of {} rows {} landed and {quarantined} are quarantined", all.len(), landed.len())),
    }
}

/// Runs the job of each, a few at a time.
fn run_all(site: &Site, given: &[&Given<'_>], at_a_time: usize) -> Vec<Ran> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..at_a_time {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(given) = given.get(index) else { return };
                    let ran = site.job(CONSUMER, &given.case.id);
                    done.lock().expect("no thread failed").insert(index, ran);
                }
            });
        }
    });
    done.into_inner().expect("no thread failed").into_values().collect()
}

/// A node with more resources than this is not what is tested here.
const CASES_OF_A_SITE: usize = 50;
const AT_A_TIME: usize = 2;
