//! What an examination says of an account, of settings and of texts: each thing is provoked, and mended by what it says.

use super::*;
use crate::examine::{Columns, Finding, Grade, ROW_RIGHTS, Reading, granted};

fn examine(bench: &PgBench, reads: &[TableSpec], landings: &[Landing]) -> Vec<Finding> {
    let clock = posthouse_platform::World::real().clock;
    Postgres.examine("db", &bench.settings(&bench.user), &granted(reads), landings, &|| clock.now().0).unwrap()
}

fn graded(found: &[Finding], grade: Grade) -> Vec<(&str, Option<&str>)> {
    let of = |finding: &&Finding| finding.grade == grade;
    found.iter().filter(of).map(|finding| (finding.object.as_str(), finding.fix.as_deref())).collect()
}

#[test]
fn an_account_that_lacks_one_right_is_told_that_one_and_what_gives_it() {
    let mut bench = PgBench::new();
    bench.run("CREATE TABLE registry (id bigint PRIMARY KEY); REVOKE CREATE ON SCHEMA public FROM PUBLIC");
    bench.user = "trust".to_owned();
    let (reads, landings) = ([spec("registry")], [landing(1, Write::Upsert, &small())]);
    let before = examine(&bench, &reads, &landings);
    let wrong = graded(&before, Grade::Wrong);
    assert_eq!(wrong.len(), 5, "{before:#?}");
    assert_eq!(wrong[0], (r#""public"."registry""#, Some(r#"GRANT SELECT ON "public"."registry" TO "trust";"#)));
    assert!(wrong[1..].iter().all(|(_, fix)| *fix == Some("posthouse doctor --config FILE --sql db")), "{wrong:?}");

    bench.run(&Postgres.script("db", &bench.settings("trust"), &reads, &landings).unwrap().unwrap());
    let after = examine(&bench, &reads, &landings);
    assert_eq!(graded(&after, Grade::Wrong), [], "{after:#?}");
    for table in [TARGET, r#""public"."posthouse_applied""#, r#""public"."posthouse_staging_suite""#] {
        for right in ROW_RIGHTS {
            bench.run(&format!("REVOKE {right} ON {table} FROM trust"));
            let found = examine(&bench, &reads, &landings);
            let [(_, Some(fix))] = graded(&found, Grade::Wrong)[..] else { panic!("{table} {right}: {found:#?}") };
            assert!(fix.starts_with(&format!("GRANT {right} ON ")), "{fix}");
            bench.run(fix);
            assert_eq!(graded(&examine(&bench, &reads, &landings), Grade::Wrong), []);
        }
    }
    bench.run("ALTER TABLE registry ENABLE ROW LEVEL SECURITY");
    let hidden = examine(&bench, &reads, &landings);
    let fix = r#"ALTER ROLE "trust" BYPASSRLS;"#;
    assert_eq!(graded(&hidden, Grade::Wrong), [(r#""public"."registry""#, Some(fix))]);
}

#[test]
fn settings_that_stand_in_the_way_are_named() {
    let mut bench = PgBench::new();
    bench.run("GRANT CREATE ON SCHEMA public TO trust");
    bench.user = "trust".to_owned();
    let landings = [landing(1, Write::Append, &small())];
    assert_eq!(graded(&examine(&bench, &[], &landings), Grade::Wrong), []);
    for setting in ["default_transaction_read_only = on", "statement_timeout = '7s'"] {
        bench.run(&format!("ALTER ROLE trust IN DATABASE {} SET {setting}", bench.database));
    }
    let found = examine(&bench, &[], &landings);
    let (wrong, noted) = (graded(&found, Grade::Wrong), graded(&found, Grade::Note));
    assert_eq!(wrong.iter().map(|(object, _)| *object).collect::<Vec<_>>(), ["default_transaction_read_only"]);
    assert!(noted.iter().any(|(object, _)| *object == "statement_timeout"), "{found:#?}");
    let reading = examine(&bench, &[spec("pg_catalog.pg_class")], &[]);
    assert_eq!(graded(&reading, Grade::Wrong), [], "reading takes no rows: {reading:#?}");
}

#[test]
fn a_query_needs_a_view_of_its_own() {
    let mut bench = PgBench::new();
    bench.run(&format!("REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC", bench.database));
    bench.user = "trust".to_owned();
    let query = TableSpec { table: None, query: Some("SELECT 1 AS id".to_owned()), ..spec("x") };
    let found = examine(&bench, std::slice::from_ref(&query), &[]);
    let [(_, Some(fix))] = graded(&found, Grade::Wrong)[..] else { panic!("{found:#?}") };
    bench.run(fix);
    assert_eq!(graded(&examine(&bench, std::slice::from_ref(&query), &[]), Grade::Wrong), []);
    assert!(bench.source(&query).unwrap().begin(&Read::default()).is_ok());
}

#[test]
fn texts_that_are_not_what_is_configured_are_told_with_what_they_are() {
    let text = "CREATE TABLE people (id int PRIMARY KEY, name text);
        INSERT INTO people SELECT 1, convert_from('\\xcdf5d0a1c3f7'::bytea, 'SQL_ASCII'); INSERT INTO people VALUES (2, 'Wang')";
    for (charset, wrong) in [(None, true), (Some("gbk"), false)] {
        let bench = PgBench::with(TestServer::shared(), "ENCODING 'SQL_ASCII' TEMPLATE template0", charset);
        bench.run(text);
        let found = examine(&bench, &[spec("people")], &[]);
        let expected: &[(&str, Option<&str>)] =
            if wrong { &[(r#""public"."people"."name""#, Some("charset = \"gbk\""))] } else { &[] };
        assert_eq!(graded(&found, Grade::Wrong), expected, "{found:#?}");
    }
}

#[test]
fn a_place_that_cannot_be_reached_is_a_problem_and_no_finding() {
    let bench = PgBench::new();
    bench.lose();
    let problem = Postgres.examine("db", &bench.settings(OWNER), &[], &[], &|| 0).unwrap_err();
    assert_eq!(problem.code, Code::ConnectionFailed);
}

#[test]
fn an_account_that_may_read_some_columns_is_held_against_those_that_are_offered() {
    let mut bench = PgBench::new();
    bench.run(
        "CREATE TABLE people (id int PRIMARY KEY, name text, phone text); GRANT SELECT (id, name) ON people TO trust",
    );
    bench.user = "trust".to_owned();
    let wrong = |columns: &[&str]| {
        let columns = Columns::Listed(columns.iter().map(|name| (*name).to_owned()).collect());
        let reading = Reading { spec: spec("people"), columns };
        let clock = posthouse_platform::World::real().clock;
        let found = Postgres.examine("db", &bench.settings("trust"), &[reading], &[], &|| clock.now().0).unwrap();
        graded(&found, Grade::Wrong).into_iter().map(|(_, fix)| fix.map(str::to_owned)).collect::<Vec<_>>()
    };
    assert_eq!(wrong(&["id", "name"]), []);
    let fix = r#"GRANT SELECT ("phone") ON "public"."people" TO "trust";"#;
    assert_eq!(wrong(&["id", "phone"]), [Some(fix.to_owned())]);
    let open = examine(&bench, &[spec("people")], &[]);
    assert_eq!(graded(&open, Grade::Wrong), [], "{open:#?}");
    assert!(graded(&open, Grade::Note).iter().any(|(object, _)| *object == r#""public"."people""#), "{open:#?}");
    bench.run(fix);
    assert_eq!(wrong(&["id", "phone"]), []);
    let each = examine(&bench, &[spec("people")], &[]);
    let of_people = |finding: &&Finding| finding.object == r#""public"."people""#;
    assert!(each.iter().filter(of_people).all(|finding| finding.grade == Grade::Well), "each column is all: {each:#?}");
    // And what is said to be enough is.
    let some = Read { columns: Some(vec!["id".to_owned(), "name".to_owned()]), ..Read::default() };
    bench.run("REVOKE SELECT (phone) ON people FROM trust");
    assert!(bench.source(&spec("people")).unwrap().begin(&some).is_ok());
}
