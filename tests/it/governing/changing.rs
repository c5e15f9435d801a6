//! Masks that change under an incremental job: nothing is landed or compared under two kinds of them.

use super::*;
use crate::support::Role;

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
    let consumer = persons_job("incremental", "upsert", "");
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

#[test]
fn the_first_incremental_run_after_a_full_one_under_another_key_is_noticed_too() {
    let data = tempfile::tempdir().expect("a temporary folder");
    let (source, key) = (data.path().join("source.db"), data.path().join("mask.key"));
    Connection::open(&source)
        .and_then(|db| {
            db.execute_batch(
                "CREATE TABLE t (id TEXT PRIMARY KEY, seen TIMESTAMP NOT NULL);
                 INSERT INTO t VALUES ('a', '2026-01-01 00:00:00'), ('b', '2026-01-01 00:00:01')",
            )
        })
        .expect("a source");
    std::fs::write(&key, KEY).expect("a key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("it is kept secret");
    let provider = format!(
        "[connection.db]\nkind = \"sqlite\"\npath = \"{}\"\n\n[[resource]]\nid = \"persons\"\nconnection = \"db\"\n\
         table = \"t\"\nkey = [\"id\"]\nwatermark = \"seen\"\ncolumns = [\"id\", \"seen\"]\nmask_key_file = \"{}\"\n\
         [resource.mask]\nid = {{ hash = \"hmac-sm3\" }}\n",
        text(&source),
        text(&key)
    );
    let consumer = format!(
        "[connection.db]\nkind = \"sqlite\"\npath = \"{{dir}}/target.db\"\n\n[[job]]\nname = \"persons\"\n\
         resource = \"{PROVIDER}/persons\"\ninto = {{ connection = \"db\", table = \"persons\" }}\nmode = \"full\"\n\
         write = \"upsert\"\nschedule = \"manual\"\n"
    );
    let mut site = Site::start(&Scene { provider, consumer, grants: vec!["persons"], ..Scene::default() });
    assert_settled(&site.take("persons"));
    let target = site.dir().join("target.db");
    let config = site.config(CONSUMER);
    let written = std::fs::read_to_string(&config).expect("it is there");
    site.daemon(Role::Consumer).kill();
    std::fs::write(&config, written.replace("mode = \"full\"", "mode = \"incremental\"")).expect("it is written");
    std::fs::write(&key, "fedcba9876543210fedcba9876543210\n").expect("another key");
    site.daemon(Role::Consumer).restart();
    // Asked too early, it is not there yet.
    wait_for("the other key is noticed", Duration::from_secs(60), || {
        let ran = site.job(CONSUMER, "persons");
        assert_ne!(ran.code, 0, "{ran:#?}");
        format!("{}{}", ran.stdout, ran.stderr).contains("PH3050")
    });
    assert_eq!(number(&target, "SELECT count(*) FROM persons"), 2, "no row came twice");
}
