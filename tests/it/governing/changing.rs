//! Masks that change under an incremental job: nothing is landed or compared under two kinds of them.

use super::*;

const KEY: &str = "0123456789abcdef0123456789abcdef\n";

#[test]
fn another_key_of_hashes_is_noticed_before_anything_lands_under_it() {
    let data = tempfile::tempdir().expect("a temporary folder");
    let (source, key) = (data.path().join("source.db"), data.path().join("mask.key"));
    let change =
        |sql: &str| Connection::open(&source).expect("the source opens").execute_batch(sql).expect("it changes");
    change(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, sfzh TEXT, seen TIMESTAMP NOT NULL);
         INSERT INTO t VALUES (1, 'a', '2026-01-01 00:00:00'), (2, 'b', '2026-01-01 00:00:01')",
    );
    std::fs::write(&key, KEY).expect("a key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("it is kept secret");
    let provider = format!(
        r#"[connection.db]
kind = "sqlite"
path = "{}"

[[resource]]
id = "persons"
connection = "db"
table = "t"
key = ["id"]
watermark = "seen"
columns = ["id", "sfzh", "seen"]
mask_key_file = "{}"
[resource.mask]
sfzh = {{ hash = "hmac-sm3" }}
"#,
        text(&source),
        text(&key)
    );
    let consumer = format!(
        r#"[connection.db]
kind = "sqlite"
path = "{{dir}}/target.db"

[[job]]
name = "persons"
resource = "{PROVIDER}/persons"
into = {{ connection = "db", table = "persons" }}
mode = "incremental"
write = "upsert"
schedule = "manual"
"#
    );
    let site = Site::start(&Scene { provider, consumer, grants: vec!["persons"], ..Scene::default() });
    assert_settled(&site.take("persons"));
    let target = site.dir().join("target.db");
    assert_eq!(number(&target, "SELECT count(*) FROM persons"), 2);

    std::fs::write(&key, "fedcba9876543210fedcba9876543210\n").expect("another key");
    change("INSERT INTO t VALUES (3, 'c', '2026-01-01 00:00:02')");
    for refused in [site.job(CONSUMER, "persons"), deep(&site)] {
        assert_ne!(refused.code, 0, "{refused:#?}");
        let said = format!("{}{}", refused.stdout, refused.stderr);
        assert!(said.contains("PH3050"), "{said}");
    }
    assert_eq!(number(&target, "SELECT count(*) FROM persons"), 2, "nothing landed under the other key");

    std::fs::write(&key, KEY).expect("the key of before");
    assert_settled(&site.take("persons"));
    assert_eq!(number(&target, "SELECT count(*) FROM persons"), 3);
    assert_eq!(deep(&site).code, 0);
}
