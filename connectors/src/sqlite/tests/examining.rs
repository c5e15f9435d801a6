//! What an examination says of a file.

use super::*;
use crate::examine::{Finding, Grade, granted};

fn examine(bench: &SqliteBench, charset: Option<&str>, reads: &[TableSpec]) -> Vec<Finding> {
    let mut settings = crate::Settings::from([("path".to_owned(), bench.path().display().to_string().into())]);
    if let Some(charset) = charset {
        settings.insert("charset".to_owned(), charset.into());
    }
    Sqlite.examine("db", &settings, &granted(reads), &[], &|| 0).unwrap()
}

fn wrong(found: &[Finding]) -> Vec<(&str, Option<&str>)> {
    let of = |finding: &&Finding| finding.grade == Grade::Wrong;
    found.iter().filter(of).map(|finding| (finding.object.as_str(), finding.fix.as_deref())).collect()
}

#[test]
fn texts_of_another_charset_and_tables_that_are_not_there_are_told() {
    let bench = SqliteBench::new();
    bench.run(
        "CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT);
         INSERT INTO people VALUES (1, CAST(X'CDF5D0A1C3F7' AS TEXT)), (2, 'Wang')",
    );
    let found = examine(&bench, None, &[spec("people"), spec("nothing")]);
    assert_eq!(wrong(&found), [("people.name", Some("charset = \"gbk\"")), ("nothing", None)], "{found:#?}");
    let found = examine(&bench, Some("gbk"), &[spec("people")]);
    assert_eq!(wrong(&found), [], "{found:#?}");
    let journal = found.iter().find(|finding| finding.object == "journal_mode").unwrap();
    assert_eq!((journal.grade, journal.fix.as_deref()), (Grade::Note, Some("PRAGMA journal_mode = WAL;")));
    bench.text("PRAGMA journal_mode = WAL");
    let found = examine(&bench, Some("gbk"), &[]);
    assert!(found.iter().all(|finding| finding.grade == Grade::Well), "{found:#?}");
}
