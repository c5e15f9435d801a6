//! Suite `tables`: a table from one PostgreSQL database to another, by Posthouse and by its peers.
//! Each run starts from an empty target and ends with a comparison of all rows by SQL, outside its time.
//! Subjects take turns, and another one begins each round, so that none always follows the same neighbour.

mod lineitem;
mod register;
mod server;
mod subjects;
mod table;
mod tuples;

use crate::report::{Case, Suite, machine};
use crate::{chosen, turns};
use anyhow::ensure;
use server::{SETTINGS, SOURCE, Server, TARGET};
use std::path::{Path, PathBuf};
use subjects::{SUBJECTS, Subject};
use table::{TABLES, Table};

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
    let program = if subjects.contains(&&Subject::Posthouse) { Some(build()?) } else { None };
    let server = Server::start(options.data)?;
    let mut suite = Suite {
        base: Some("copy-binary"),
        setting: Some(format!("PostgreSQL {}, {}", server.version, SETTINGS.join(", "))),
        ..Suite::new("tables", machine())
    };
    server.renew(SOURCE)?;
    let version = |subject: Subject| subject.version(&server, program.as_deref());
    let present = turns::present(subjects, &mut suite, Subject::name, version);
    for table in tables {
        let own = [table.rows];
        for rows in if options.rows.is_empty() { &own[..] } else { options.rows } {
            case(&server, program.as_deref(), table, *rows, &present, options, &mut suite)?;
        }
    }
    Ok(suite)
}

fn case(
    server: &Server,
    program: Option<&Path>,
    table: &Table,
    rows: u64,
    subjects: &[(Subject, String)],
    options: &Options,
    suite: &mut Suite,
) -> anyhow::Result<()> {
    let case = table.case_of(rows);
    eprintln!("{case}: filling the source");
    let bytes = server.fill(table, rows)?;
    let expected = server.ask(SOURCE, &table.content("public"))?;
    let row = |(subject, version): &(Subject, String)| Case {
        case: case.clone(),
        subject: subject.name().to_owned(),
        bytes,
        rows: Some(rows),
        runs: Vec::new(),
        line: None,
        note: format!("{version}; {}", subject.note()),
    };
    // One run that nobody is charged for: it leaves the server what a server in service has, its log's files among it.
    if !subjects.is_empty() {
        server.renew(TARGET)?;
        Subject::CopyBinary.carry(server, table, None)?;
    }
    turns::take(suite, subjects.iter().map(row).collect(), options.runs, |turn| {
        let subject = subjects[turn].0;
        server.renew(TARGET)?;
        let run = subject.carry(server, table, program)?;
        let landed = server.ask(TARGET, &table.content(subject.lands_in()))?;
        ensure!(landed == expected, "the target has {landed}, the source {expected} (rows, sums of digests)");
        Ok(run)
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_carries_all_and_every_way_to_carry_less_is_found() {
        let server = Server::start(None).expect("a server");
        for table in TABLES {
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
