//! Suite `tables`: a table from one database to another, of PostgreSQL or of another engine, by Posthouse and by its
//! peers.
//! Each run starts from an empty target and ends with a comparison of all rows by SQL, outside its time.
//! Subjects take turns, and another one begins each round, so that none always follows the same neighbour.

mod across;
mod content;
mod lineitem;
mod lines;
mod maria;
mod register;
mod server;
mod sqlite;
mod subjects;
mod table;
mod tuples;
mod values;

use crate::report::{Case, Suite, machine};
use crate::{chosen, turns};
use across::Way;
use anyhow::ensure;
use maria::Maria;
use server::{SETTINGS, SOURCE, Server};
use std::path::{Path, PathBuf};
use subjects::{SUBJECTS, Subject};
use table::{Route, TABLES, Table};

pub struct Options<'a> {
    pub cases: &'a [String],
    pub subjects: &'a [String],
    /// Instead of the case's own number; each of them.
    pub rows: &'a [u64],
    pub runs: u32,
    /// The folder below which the server's data lies meanwhile.
    pub data: Option<&'a Path>,
}

/// `build` gives the program; it is asked only where Posthouse is among the subjects.
pub fn run(build: impl FnOnce() -> anyhow::Result<PathBuf>, options: &Options) -> anyhow::Result<Suite> {
    let tables = chosen(TABLES, options.cases, "tables", "case", Table::case)?;
    let subjects = chosen(SUBJECTS, options.subjects, "tables", "subject", |subject| subject.name().to_owned())?;
    let takes_part = |subject: &&Subject| tables.iter().any(|table| subject.takes(table.route));
    let subjects: Vec<&Subject> = subjects.into_iter().filter(takes_part).collect();
    ensure!(!subjects.is_empty(), "none of these subjects takes part in these cases");
    let program = if subjects.iter().any(|subject| subject.is_own()) { Some(build()?) } else { None };
    let server = Server::start(options.data)?;
    let mut setting = format!("PostgreSQL {}, {}", server.version, SETTINGS.join(", "));
    let mut suite =
        Suite { bases: &["copy-binary", "load-data-pipe", "csv-pipe", "adbc"], ..Suite::new("tables", machine()) };
    let needs_maria = |table: &Table| matches!(table.route, Route::ToMariadb | Route::FromMariadb);
    let maria = match tables.iter().any(|table| needs_maria(table)).then(|| Maria::start(options.data)) {
        None => None,
        Some(Ok(maria)) => {
            setting.push_str(&format!("; MariaDB {}, {}", maria.version, maria::SETTINGS.join(", ")));
            Some(maria)
        }
        // The other cases go without it.
        Some(Err(error)) => {
            suite.lacks("mariadb", format!("{error:#}"));
            None
        }
    };
    suite.setting = Some(setting);
    server.renew(SOURCE)?;
    let version = |subject: Subject| subject.version(&server, program.as_deref());
    let present = turns::present(subjects, &mut suite, Subject::name, version);
    for table in tables.into_iter().filter(|table| maria.is_some() || !needs_maria(table)) {
        let own = [table.rows];
        let present: Vec<_> = present.iter().filter(|(subject, _)| subject.takes(table.route)).cloned().collect();
        for rows in if options.rows.is_empty() { &own[..] } else { options.rows } {
            case(&server, maria.as_ref(), program.as_deref(), table, *rows, &present, options.runs, &mut suite)?;
        }
    }
    Ok(suite)
}

#[allow(clippy::too_many_arguments, reason = "a case is where all of them meet")]
fn case(
    server: &Server,
    maria: Option<&Maria>,
    program: Option<&Path>,
    table: &Table,
    rows: u64,
    subjects: &[(Subject, String)],
    runs: u32,
    suite: &mut Suite,
) -> anyhow::Result<()> {
    let case = table.case_of(rows);
    if subjects.is_empty() {
        eprintln!("{case}: nobody is there who takes part");
        return Ok(());
    }
    eprintln!("{case}: filling the source");
    let (way, bytes) = Way::new(server, maria, table, rows, program)?;
    let row = |(subject, version): &(Subject, String)| Case {
        case: case.clone(),
        subject: subject.name().to_owned(),
        bytes,
        rows: Some(rows),
        runs: Vec::new(),
        line: None,
        note: format!("{version}; {}", across::note(*subject, table.route).unwrap_or_else(|| subject.note())),
    };
    way.warm_up()?;
    turns::take(suite, subjects.iter().map(row).collect(), runs, |turn| {
        let subject = subjects[turn].0;
        way.renew()?;
        let run = way.carry(subject)?;
        way.check(subject)?;
        Ok(run)
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::server::TARGET;
    use super::*;

    #[test]
    fn a_run_carries_all_and_every_way_to_carry_less_is_found() {
        let server = Server::start(None).expect("a server");
        for table in TABLES.iter().filter(|table| table.route == Route::Postgres) {
            let bytes = server.fill(table, 400).expect("a source");
            let copy = format!("\\copy {} TO STDOUT (FORMAT binary)", table.name);
            let copied = server.psql(SOURCE).args(["-c", &copy]).output().expect("psql").stdout;
            assert_eq!(bytes, copied.len() as u64, "{}", table.name);

            server.renew(TARGET).expect("a target");
            Subject::CopyBinary.carry(&server, table, None).expect("a run");
            let content = table.content("public");
            let expected = server.ask(SOURCE, &content).expect("the source");
            assert_eq!(server.ask(TARGET, &content).expect("the target"), expected);
            let keys = "SELECT count(*) FROM pg_index WHERE indisprimary AND indrelid = 'public.{}'::regclass";
            let keys = keys.replace("{}", table.name);
            for database in [SOURCE, TARGET] {
                let has_key = server.ask(database, &keys).expect("a count") == "1";
                assert_eq!(has_key, !table.key.is_empty(), "{} in {database}", table.case());
            }
            // A key would refuse some of the changes that are to be found.
            if !table.key.is_empty() {
                continue;
            }
            let after = |change: &str| {
                server.ask(TARGET, &format!("BEGIN; {change}; {content}; ROLLBACK")).expect("a changed target")
            };
            let (first, name) = (table.columns[0].0, table.name);
            assert_ne!(after(&format!("DELETE FROM {name} WHERE {first} = 7")), expected);
            assert_ne!(after(&format!("UPDATE {name} SET {first} = 8 WHERE {first} = 7")), expected);
            assert_ne!(after(&format!("INSERT INTO {name} SELECT * FROM {name} WHERE {first} = 7")), expected);
        }
        // The register was carried first: it is carried again, to be changed in its own ways.
        let table = &TABLES[0];
        let expected = {
            server.fill(table, 400).expect("a source");
            server.renew(TARGET).expect("a target");
            Subject::CopyText.carry(&server, table, None).expect("a run");
            server.ask(TARGET, &table.content("public")).expect("the target")
        };
        let after = |change: &str| {
            let content = table.content("public");
            server.ask(TARGET, &format!("BEGIN; {change}; {content}; ROLLBACK")).expect("a changed target")
        };
        for change in [
            "UPDATE person SET balance = balance + 0.01 WHERE person_id = 7",
            "UPDATE person SET remark = '' WHERE person_id = (SELECT min(person_id) FROM person WHERE remark IS NULL)",
            "UPDATE person SET remark = replace(remark, E'\\t', ' ')",
            "UPDATE person SET person_id = 15 - person_id WHERE person_id IN (7, 8)",
            "ALTER TABLE person ALTER full_name TYPE text; UPDATE person SET full_name = full_name || '                                                                '",
        ] {
            assert_ne!(after(change), expected, "{change}");
        }
        // Other types for the same values, as some subjects have them, are no difference.
        let retyped = "ALTER TABLE person ALTER photo_hash TYPE text, ALTER balance TYPE numeric(30,6), ALTER income TYPE text, ALTER ext TYPE json, ALTER gender TYPE bigint";
        assert_eq!(after(retyped), expected);
    }

    #[test]
    fn a_subject_that_fails_tells_its_last_words() {
        let server = Server::start(None).expect("a server");
        server.fill(&TABLES[0], 10).expect("a source");
        server.renew(TARGET).expect("a target");
        server.ask(TARGET, "CREATE TABLE person (other text)").expect("a table in the way");
        let error = Subject::PgDump.carry(&server, &TABLES[0], None).expect_err("the table is there");
        assert!(format!("{error:#}").contains("already exists"), "{error:#}");
    }
}
