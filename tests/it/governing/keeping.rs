//! A mirror and rows that rules hold back: what the consumer had of them stays, and nothing is deleted until none is held
//! back any more.

use super::*;

#[test]
fn a_mirror_keeps_what_it_had_of_rows_that_are_held_back_and_deletes_nothing_meanwhile() {
    let data = tempfile::tempdir().expect("a temporary folder");
    let source = data.path().join("source.db");
    let change =
        |sql: &str| Connection::open(&source).expect("the source opens").execute_batch(sql).expect("it changes");
    change(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, grade INTEGER);
         INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40)
           SELECT i, 'old', 1 FROM n;",
    );
    let provider = format!(
        r#"[connection.db]
kind = "sqlite"
path = "{}"

[[resource]]
id = "persons"
connection = "db"
table = "t"
key = ["id"]
columns = ["id", "name", "grade"]
[resource.check]
name = {{ required = true }}
"#,
        text(&source)
    );
    let consumer = persons_job("full", "mirror", "[job.check]\ngrade = { max = 9 }\n");
    let site = Site::start(&Scene { provider, consumer, grants: vec!["persons"], ..Scene::default() });
    assert_settled(&site.take("persons"));
    let target = site.dir().join("target.db");
    let standing = || number(&target, "SELECT count(*) FROM persons");
    let older = || number(&target, "SELECT count(*) FROM persons WHERE name = 'old'");
    assert_eq!((standing(), older()), (40, 40));

    // One is gone. Another is held back by the resource's rule, and then by the job's.
    change("DELETE FROM t WHERE id = 1; UPDATE t SET name = 'new'");
    for (held_back, mended) in [("name = NULL", "name = 'new'"), ("grade = 10", "grade = 1")] {
        change(&format!("UPDATE t SET {held_back} WHERE id = 2"));
        let end = site.take("persons");
        assert_settled(&end);
        assert_eq!(end["quarantined"], 1, "{end}");
        assert_eq!((standing(), older()), (40, 2), "{held_back}");
        change(&format!("UPDATE t SET {mended} WHERE id = 2"));
    }
    assert_settled(&site.take("persons"));
    assert_eq!((standing(), older()), (39, 0), "what is gone goes with the first run in which none stays behind");
}
