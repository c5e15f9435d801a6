//! What an examination says of an account, of settings and of texts: each thing is provoked, and mended by what it says.

use super::*;
use crate::examine::{Columns, Finding, Grade, ROW_RIGHTS, Reading, granted};

fn examine(settings: &crate::Settings, reads: &[TableSpec], landings: &[Landing]) -> Vec<Finding> {
    let clock = posthouse_platform::World::real().clock;
    Mysql.examine("db", settings, &granted(reads), landings, &|| clock.now().0).unwrap()
}

fn graded(found: &[Finding], grade: Grade) -> Vec<(&str, Option<&str>)> {
    let of = |finding: &&Finding| finding.grade == grade;
    found.iter().filter(of).map(|finding| (finding.object.as_str(), finding.fix.as_deref())).collect()
}

#[test]
fn an_account_that_lacks_one_right_is_told_that_one_and_what_gives_it() {
    let mut bench = MyBench::new();
    let database = bench.database.clone();
    bench.run(&[
        "CREATE TABLE registry (id bigint PRIMARY KEY)",
        "CREATE TABLE way_in (id int)",
        &format!("GRANT SELECT ON {database}.way_in TO '{GUEST}'@'%'"),
    ]);
    bench.user = GUEST.to_owned();
    let (reads, landings) = ([spec("registry")], [landing(1, Write::Upsert, &small())]);
    let before = examine(&bench.settings(), &reads, &landings);
    let wrong = graded(&before, Grade::Wrong);
    let registry = format!("`{database}`.`registry`");
    let grant = format!("GRANT SELECT ON {registry} TO 'guest'@'%';");
    assert_eq!(wrong.first(), Some(&(registry.as_str(), Some(grant.as_str()))), "{before:#?}");
    assert_eq!(wrong.len(), 5, "{before:#?}");

    let script = Mysql.script("db", &bench.settings(), &reads, &landings).unwrap().unwrap();
    let statements: Vec<&str> = script.split(";\n").filter(|statement| !statement.trim().is_empty()).collect();
    bench.run(&statements);
    let after = examine(&bench.settings(), &reads, &landings);
    assert_eq!(graded(&after, Grade::Wrong), [], "{after:#?}");
    for table in ["`人口 base`", "posthouse_applied", "posthouse_staging_suite"] {
        for right in ROW_RIGHTS {
            bench.run(&[&format!("REVOKE {right} ON {table} FROM '{GUEST}'@'%'")]);
            let found = examine(&bench.settings(), &reads, &landings);
            let [(_, Some(fix))] = graded(&found, Grade::Wrong)[..] else { panic!("{table} {right}: {found:#?}") };
            assert!(fix.starts_with(&format!("GRANT {right} ON ")), "{fix}");
            bench.run(&[fix]);
            assert_eq!(graded(&examine(&bench.settings(), &reads, &landings), Grade::Wrong), []);
        }
    }
}

#[test]
fn settings_that_stand_in_the_way_are_named() {
    let more = ["--local-infile=0", "--read-only=1", "--max-allowed-packet=1M", "--max-statement-time=60"];
    let server: &'static TestServer = Box::leak(Box::new(TestServer::start(&more)));
    let mut bench = MyBench::on(server);
    bench.run(&[&format!("GRANT ALL ON {}.* TO '{GUEST}'@'%'", bench.database)]);
    bench.user = GUEST.to_owned();
    let found = examine(&bench.settings(), &[], &[landing(1, Write::Append, &small())]);
    assert_eq!(graded(&found, Grade::Wrong), [("read_only", Some("SET GLOBAL read_only = OFF;"))], "{found:#?}");
    let noted: Vec<&str> = graded(&found, Grade::Note).into_iter().map(|(object, _)| object).collect();
    for object in ["local_infile", "max_allowed_packet", "max_statement_time"] {
        assert!(noted.contains(&object), "{object}: {found:#?}");
    }
    let reading = examine(&bench.settings(), &[spec("nothing")], &[]);
    let wrong: Vec<&str> = graded(&reading, Grade::Wrong).into_iter().map(|(object, _)| object).collect();
    assert_eq!(wrong, [format!("`{}`.`nothing`", bench.database)], "what only reads may be read-only");
}

#[test]
fn a_view_that_cannot_be_read_is_not_called_well() {
    let bench = MyBench::new();
    bench.run(&["CREATE TABLE t (id int PRIMARY KEY)", "CREATE VIEW v AS SELECT id FROM t", "DROP TABLE t"]);
    let found = examine(&bench.settings(), &[spec("v")], &[]);
    let object = format!("`{}`.`v`", bench.database);
    assert_eq!(graded(&found, Grade::Wrong), [(object.as_str(), None)], "{found:#?}");
    assert!(found.iter().any(|finding| finding.en.contains("cannot be read")), "{found:#?}");
}

#[test]
fn chinese_in_a_latin1_column_is_told() {
    let bench = MyBench::new();
    bench.run(&[
        "CREATE TABLE people (id int PRIMARY KEY, name varchar(50) CHARACTER SET latin1)",
        "INSERT INTO people VALUES (1, CONVERT(X'CDF5D0A1C3F7' USING latin1)), (2, 'Wang')",
    ]);
    let mut settings = bench.settings();
    let object = format!("`{}`.`people`.`name`", bench.database);
    let found = examine(&settings, &[spec("people")], &[]);
    assert_eq!(graded(&found, Grade::Wrong), [(object.as_str(), Some("charset = \"gbk\""))], "{found:#?}");
    settings.insert("charset".to_owned(), "gbk".into());
    let found = examine(&settings, &[spec("people")], &[]);
    assert_eq!(graded(&found, Grade::Wrong), [], "{found:#?}");
    assert!(found.iter().any(|finding| finding.object == object), "{found:#?}");
}

#[test]
fn the_right_to_make_tables_counts_where_it_comes_by_a_role_or_a_pattern_of_databases() {
    let server: &'static TestServer = Box::leak(Box::new(TestServer::start(&[])));
    let mut bench = MyBench::on(server);
    bench.user = GUEST.to_owned();
    // Its databases are all named alike.
    let (alike, name) = ("bench%", bench.database.replace('_', "\\_"));
    bench
        .run(&["CREATE TABLE way_in (id int)", &format!("GRANT SELECT ON {}.way_in TO '{GUEST}'@'%'", bench.database)]);
    let landings = [landing(1, Write::Append, &small())];
    let wrong = |bench: &MyBench| graded(&examine(&bench.settings(), &[], &landings), Grade::Wrong).len();
    assert_eq!(wrong(&bench), 4, "target, staging and the two beside them");
    bench.run(&[&format!("GRANT CREATE ON `{alike}`.* TO '{GUEST}'@'%'")]);
    assert_eq!(wrong(&bench), 0, "a pattern that the name fits");
    // The server heeds the one that says more of the name, and so it is told.
    bench.run(&[&format!("GRANT SELECT ON `{name}`.* TO '{GUEST}'@'%'")]);
    assert_eq!(wrong(&bench), 4, "another one that says more, without the right");
    let refused = connect(&server.url(GUEST, &bench.database), &[]).unwrap().run("CREATE TABLE t (id int)");
    assert!(matches!(refused, Err(Fail::Server(error)) if error.code == 1142));
    bench.run(&[
        "CREATE ROLE maker",
        &format!("GRANT CREATE ON `{name}`.* TO maker"),
        &format!("GRANT maker TO '{GUEST}'@'%'"),
    ]);
    assert_eq!(wrong(&bench), 4, "a role that is not on");
    bench.run(&[&format!("SET DEFAULT ROLE maker FOR '{GUEST}'@'%'")]);
    assert_eq!(wrong(&bench), 0, "a role that is on");
}

#[test]
fn an_account_that_may_read_some_columns_is_held_against_those_that_are_offered() {
    let mut bench = MyBench::new();
    bench.run(&[
        "CREATE TABLE people (id int PRIMARY KEY, name text, phone text)",
        &format!("GRANT SELECT (id, name) ON {}.people TO '{GUEST}'@'%'", bench.database),
    ]);
    bench.user = GUEST.to_owned();
    let found = |columns: &[&str]| {
        let columns = Columns::Listed(columns.iter().map(|name| (*name).to_owned()).collect());
        Mysql.examine("db", &bench.settings(), &[Reading { spec: spec("people"), columns }], &[], &|| 0).unwrap()
    };
    let of = |found: &[Finding], grade: Grade| {
        let rights = graded(found, grade).into_iter().filter(|(object, _)| object.ends_with("`people`"));
        rights.map(|(_, fix)| fix.map(str::to_owned)).collect::<Vec<_>>()
    };
    assert_eq!(of(&found(&["id", "name"]), Grade::Wrong), []);
    let lacks = found(&["id", "phone"]);
    let fix = format!("GRANT SELECT (`phone`) ON `{}`.`people` TO '{GUEST}'@'%';", bench.database);
    assert_eq!(of(&lacks, Grade::Wrong), [Some(fix.clone())], "{lacks:#?}");
    let open = examine(&bench.settings(), &[spec("people")], &[]);
    assert_eq!((of(&open, Grade::Wrong), of(&open, Grade::Note).len()), (Vec::new(), 1), "{open:#?}");
    bench.run(&[&fix]);
    assert_eq!(of(&found(&["id", "phone"]), Grade::Wrong), []);
}
