//! The same tables from PostgreSQL through nodes into Parquet files, and from those files into PostgreSQL again: what came
//! back is compared with what went by `psql` alone.

use super::super::rows::{Rows, contract_of, land, landing};
use super::super::{Engine, Place, job_into, look, resource};
use super::drawing::Case;
use super::{AT_A_TIME, CASES_OF_A_SITE, Given, Seen, equal, run_all, seeds};
use crate::support::{Ran, Scene, Site};
use posthouse_connectors::parquet;
use std::path::Path;

#[test]
fn tables_of_postgresql_come_back_equal_from_parquet_files_or_are_refused_by_name() {
    let seeds = seeds();
    let (mut wrong, mut seen) = (Vec::new(), Seen::default());
    for seeds in seeds.chunks(CASES_OF_A_SITE) {
        let mut cases: Vec<Case> =
            seeds.iter().map(|seed| Case::draw(Engine::Postgres, Engine::Postgres, *seed)).collect();
        for case in &mut cases {
            // Files are appended or replaced, and know no decimal with zeros that are not written.
            case.write = if case.write == "upsert" { "replace" } else { case.write };
            let is_coarse = |declared: &str| declared.starts_with("numeric(") && declared.contains(",-");
            let coarse = case
                .columns
                .iter()
                .filter(|column| is_coarse(&column.kind.declared) && is_decimal(&column.kind.declared));
            case.refused.extend(coarse.map(|column| column.name.clone()));
        }
        wrong.extend(play(&cases, &mut seen));
    }
    println!("through Parquet, SEED={}-{}: {seen:?}", seeds[0], seeds[seeds.len() - 1]);
    assert!(wrong.is_empty(), "of {} tables drawn:\n{}", seeds.len(), wrong.join("\n\n"));
    seen.assert_worth_it(seeds.len());
}

/// Whether a `numeric(p,s)` has at most 38 digits.
fn is_decimal(declared: &str) -> bool {
    let precision = declared.split(['(', ',']).nth(1).and_then(|digits| digits.parse::<u32>().ok());
    precision.is_some_and(|precision| precision <= 38)
}

fn play(cases: &[Case], seen: &mut Seen) -> Vec<String> {
    let (source, target) = (Place::new(Engine::Postgres), Place::new(Engine::Postgres));
    let given: Vec<Given<'_>> = cases.iter().map(|case| Given::fill(case, &source)).collect();
    let mut scene = Scene { provider: source.connection("db"), ..Scene::default() };
    for case in cases {
        scene.provider += &resource(&case.id, "db", &source.table(&case.table), &case.key_names());
        let into = format!("{{ folder = \"{{dir}}/lake/{}\", format = \"parquet\" }}", case.id);
        scene.consumer += &job_into(&case.id, &into, case.write);
    }
    let site = Site::start(&scene);
    for case in cases {
        site.grant(&case.id);
    }
    let all: Vec<&Given<'_>> = given.iter().collect();
    let mut wrong = Vec::new();
    for (given, ran) in given.iter().zip(run_all(&site, &all, AT_A_TIME)) {
        let folder = site.dir().join("lake").join(&given.case.id);
        if let Err(what) = judge(given, &ran, &source, &target, &folder, seen) {
            wrong.push(format!("SEED={}: {what}\n{}", given.case.seed, given.case.ddl(&source)));
        }
    }
    if !wrong.is_empty() {
        wrong.push(format!("{}\n{}", site.provider.log_tail(), site.consumer.log_tail()));
    }
    wrong
}

fn judge(
    given: &Given<'_>,
    ran: &Ran,
    source: &Place,
    target: &Place,
    folder: &Path,
    seen: &mut Seen,
) -> Result<(), String> {
    let case = given.case;
    if ran.code != 0 || !case.refused.is_empty() {
        let nothing = || None;
        return super::judge(given, ran, source, nothing, seen);
    }
    let end = ran.json();
    let all = look::rows(source, &case.table, &case.at_source()).expect("the source has its table");
    let contract = contract_of(source, &case.table, &case.key_names());
    let mut rows = Rows::default();
    let files = parquet::destination(folder, &landing(&case.id, String::new(), &contract));
    let read = files.and_then(|mut files| files.read_standing(None, &mut rows));
    read.map_err(|problem| format!("the files cannot be read: {problem}"))?;
    let bad = land(target, &landing(&case.id, target.table(&case.table), &contract), rows.batches);
    let Some(landed) = look::rows(target, &case.table, &case.at_target()) else {
        return Err(format!("nothing came back: {end}"));
    };
    let quarantined = end["quarantined"].as_u64().unwrap_or(u64::MAX).saturating_add(bad);
    equal(&given.must, &all, &landed, quarantined).map_err(|what| format!("{what}: {end}"))?;
    seen.landed += 1;
    seen.rows += landed.len();
    seen.quarantined += all.len() - landed.len();
    Ok(())
}
