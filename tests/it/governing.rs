//! Rows that are masked, checked and renamed on their way, by real processes: what the consumer has, what both parties
//! sign, what a deep reconciliation finds, and what a grant hides beyond that.

mod changing;
mod keeping;

use crate::exchange::{assert_settled, transfer_shown};
use crate::receipts::{exported, verify, wait_for_proof};
use crate::support::{CONSUMER, PROVIDER, Ran, Scene, Site, posthouse, text, wait_for};
use rusqlite::Connection;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

/// Rows of the table, and those of them whose identity number has a wrong check digit, or that have no name.
const ROWS: u64 = 2_000;
const WRONG: u64 = 7;
const NAMELESS: u64 = 11;

#[test]
fn rows_arrive_masked_checked_and_renamed_and_both_parties_say_so() {
    let data = tempfile::tempdir().expect("a temporary folder");
    let source = data.path().join("source.db");
    make_persons(&source);
    let site = Site::start(&scene(&source, data.path()));
    let end = site.take("persons");
    assert_settled(&end);
    assert_eq!(end["quarantined"], WRONG, "{end}");

    // What landed, by SQLite itself.
    let target = site.dir().join("target.db");
    let kept = ROWS - WRONG;
    assert_eq!(number(&target, "SELECT count(*) FROM persons"), kept);
    assert_eq!(number(&target, "SELECT count(DISTINCT id_number) FROM persons WHERE length(id_number) = 64"), kept);
    assert_eq!(
        number(&target, "SELECT count(*) FROM persons WHERE phone LIKE '138****%' AND length(phone) = 11"),
        kept
    );
    assert_eq!(number(&target, "SELECT count(*) FROM persons WHERE address IS NULL AND remark = '不提供'"), kept);
    assert_eq!(number(&target, "SELECT count(*) FROM persons WHERE name IS NULL"), NAMELESS);
    assert_eq!(
        number(&target, "SELECT count(*) FROM pragma_table_info('persons')"),
        6,
        "what is not offered is not there"
    );
    // Nothing of what is hidden came to the consumer, in its table, its logs or its own files.
    assert_hidden(site.dir(), &[&phone(20), &id_number(20), "不公开的地址"], "source.db");

    // Both parties' words.
    for node in [PROVIDER, CONSUMER] {
        let shown = transfer_shown(&site, node, &end);
        assert_said(&shown);
        assert_eq!(shown["provider_quality"]["rows"], ROWS, "{shown}");
        assert_eq!(shown["provider_quality"]["qualified"], ROWS - WRONG - NAMELESS, "{shown}");
        assert_eq!(shown["provider_quality"]["rate"], "99.10%", "{shown}");
        assert_eq!(shown["consumer_quality"]["rows"], kept, "{shown}");
        assert_eq!(shown["consumer_quality"]["failed"][0]["column"], "name", "{shown}");
        assert_eq!(shown["consumer_quality"]["failed"][0]["rows"], NAMELESS, "{shown}");
    }
    // The rows that stay behind are kept at the provider as they were, and at the consumer not at all.
    let left = quarantine(&site, PROVIDER, &end);
    assert!(left.contains("check digit") && left.contains(&wrong_number(0)), "{left}");
    assert!(!quarantine(&site, CONSUMER, &end).contains(&wrong_number(0)));
    let transfer = end["transfer"].as_str().expect("an id");
    wait_for_proof(&site, transfer);
    let (export, trust) = exported(&site, transfer);
    let verified = verify(&export, &trust).ok().json();
    assert_said(&verified);
    assert_eq!(verified["provider_quality"]["qualified"], ROWS - WRONG - NAMELESS, "{verified}");
    deep_reconciliation_sees_what_the_consumer_may_see(&site, &source);
}

fn deep_reconciliation_sees_what_the_consumer_may_see(site: &Site, source: &Path) {
    assert_eq!(deep(site).code, 0);
    let change =
        |sql: &str| Connection::open(source).expect("the source opens").execute_batch(sql).expect("it changes");
    // What is hidden may change without anybody seeing it; what is shown may not.
    change(&format!("UPDATE rk_jbxx SET sjh = '13899990020' WHERE sfzh = '{}'", id_number(20)));
    assert_eq!(deep(site).code, 0, "the shown digits are the same");
    change(&format!("UPDATE rk_jbxx SET sjh = '13900000020' WHERE sfzh = '{}'", id_number(20)));
    let differs = deep(site);
    assert_eq!(differs.code, 3, "{differs:#?}");
    // It is named by what both have, which is the hash.
    assert!(!differs.stdout.contains(&id_number(20)), "{differs:#?}");
    let end = site.take("persons");
    assert_settled(&end);
    assert_eq!(deep(site).code, 0);
}

#[test]
fn a_grant_masks_what_the_resource_shows() {
    let data = tempfile::tempdir().expect("a temporary folder");
    let source = data.path().join("source.db");
    make_persons(&source);
    let site = Site::start(&Scene { grants: vec![], ..scene(&source, data.path()) });
    let grant = |masks: &[&str]| {
        let (config, resource) = (site.centre_config(), format!("{PROVIDER}/persons"));
        let mut words = vec!["grant", "add", "--config", &config, "--consumer", CONSUMER, "--resource", &resource];
        words.extend(["--until", "2099-12-31", "--json"]);
        masks.iter().for_each(|mask| words.extend(["--mask", *mask]));
        posthouse(&words)
    };
    for wrong in ["name", "name=md5", "name=keep:1"] {
        assert_eq!(grant(&[wrong]).code, 2, "{wrong}");
    }
    let given = grant(&["name=keep:1:0", "phone=sm3"]).ok().json();
    assert_eq!(given["masks"], serde_json::json!(["name=keep:1:0", "phone=sm3"]), "{given}");
    let end = once_granted(&site);
    assert_settled(&end);
    let target = site.dir().join("target.db");
    let kept = ROWS - WRONG;
    assert_eq!(
        number(&target, "SELECT count(*) FROM persons WHERE name LIKE '张*%' AND name NOT LIKE '%1%'"),
        kept - NAMELESS
    );
    assert_eq!(number(&target, "SELECT count(*) FROM persons WHERE length(phone) = 64"), kept);
    let shown = transfer_shown(&site, CONSUMER, &end);
    let said = shown["governed"].to_string();
    for expected in ["keep 1+0", "keep 3+4", "sm3"] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert_eq!(deep(&site).code, 0);
    // A grant that masks what is not offered moves nothing.
    let id = given["id"].as_str().expect("an id");
    posthouse(&["grant", "revoke", "--config", &site.centre_config(), id]).ok();
    grant(&["xm=null"]).ok();
    wait_for("the new grant counts", Duration::from_secs(60), || {
        site.job(CONSUMER, "persons").stderr.contains("`xm` is not offered")
    });
}

/// Runs the job until its grant has come to both nodes.
fn once_granted(site: &Site) -> Value {
    let mut end = Value::Null;
    wait_for("the grant is known", Duration::from_secs(60), || {
        let ran = site.job(CONSUMER, "persons");
        let done = ran.code == 0;
        if done {
            end = ran.json();
        }
        done
    });
    end
}

fn scene(source: &Path, data: &Path) -> Scene {
    let key = data.join("mask.key");
    std::fs::write(&key, "0123456789abcdef0123456789abcdef\n").expect("a key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("it is kept secret");
    let provider = format!(
        r#"[connection.db]
kind = "sqlite"
path = "{}"

[[resource]]
id = "persons"
connection = "db"
table = "rk_jbxx"
key = ["sfzh"]
columns = ["sfzh", "xm", "csrq", "sjh", "zz", "bz"]
mask_key_file = "{}"
[resource.rename]
sfzh = "id_number"
xm = "name"
csrq = "born"
sjh = "phone"
zz = "address"
bz = "remark"
[resource.mask]
sfzh = {{ hash = "hmac-sm3" }}
sjh = {{ keep_first = 3, keep_last = 4 }}
zz = {{ null = true }}
bz = {{ constant = "不提供" }}
[resource.check]
sfzh = {{ required = true, id_card = true }}
xm = {{ required = true, severity = "count" }}
"#,
        text(source),
        text(&key)
    );
    let consumer = persons_job(
        "full",
        "replace",
        r#"[job.check]
name = { required = true, severity = "count" }
id_number = { required = true, length = [64, 64] }
"#,
    );
    Scene { provider, consumer, grants: vec!["persons"], ..Scene::default() }
}

fn make_persons(path: &Path) {
    let mut database = Connection::open(path).expect("a database");
    database
        .execute_batch(
            "CREATE TABLE rk_jbxx (sfzh TEXT PRIMARY KEY NOT NULL, xm TEXT, csrq DATE, sjh TEXT, zz TEXT, bz TEXT, mm TEXT)",
        )
        .expect("a table");
    let transaction = database.transaction().expect("a transaction");
    {
        let mut insert = transaction
            .prepare("INSERT INTO rk_jbxx VALUES (?1, ?2, '1949-12-31', ?3, '不公开的地址', ?4, '密')")
            .expect("an insert");
        for row in 0..ROWS {
            let sfzh = if row < WRONG { wrong_number(row) } else { id_number(row) };
            let xm = (row >= WRONG + NAMELESS).then(|| format!("张{row}"));
            let xm = if row < WRONG { Some("李".to_owned()) } else { xm };
            insert.execute(rusqlite::params![sfzh, xm, phone(row), format!("备注 {row}")]).expect("a row");
        }
    }
    transaction.commit().expect("committed");
}

fn phone(row: u64) -> String {
    format!("138{:04}{row:04}", row * 3 % 10_000)
}

/// An identity number of 1949-12-31, with its check digit (GB 11643).
fn id_number(row: u64) -> String {
    let body = format!("11{:02}0519491231{:03}", 1 + row / 1_000, row % 1_000);
    let sum = body.bytes().fold(0, |sum, digit| (sum + u32::from(digit - b'0')) * 2 % 11);
    let check = (12 - sum) % 11;
    if check == 10 { format!("{body}X") } else { format!("{body}{check}") }
}

fn wrong_number(row: u64) -> String {
    let mut number = id_number(row);
    let last = number.pop();
    number.push(if last == Some('0') { '1' } else { '0' });
    number
}

fn number(database: &Path, sql: &str) -> u64 {
    let database = Connection::open(database).expect("the database opens");
    let found: i64 = database.query_row(sql, [], |row| row.get(0)).unwrap_or_else(|error| panic!("{sql}: {error}"));
    found.unsigned_abs()
}

fn assert_said(shown: &Value) {
    let said: Vec<(&str, &str)> = shown["governed"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|done| (done["column"].as_str().unwrap_or("*"), done["what"].as_str().unwrap_or_default()))
        .collect();
    assert!(said[0].0 == "id_number" && said[0].1.starts_with("hmac-sm3 key "), "{said:?}");
    for expected in [
        ("phone", "keep 3+4"),
        ("address", "null"),
        ("remark", "constant"),
        ("id_number", "check required, id_card (quarantine)"),
        ("name", "check required (count)"),
    ] {
        assert!(said.contains(&expected), "{expected:?}: {said:?}");
    }
}

/// None of these texts stands in a file of the site, but in those of the provider.
fn assert_hidden(folder: &Path, hidden: &[&str], but: &str) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name == but || name.starts_with(PROVIDER) {
            continue;
        }
        if path.is_dir() {
            assert_hidden(&path, hidden, but);
            continue;
        }
        let Ok(content) = std::fs::read(&path) else { continue };
        for text in hidden {
            let found = content.windows(text.len()).any(|part| part == text.as_bytes());
            assert!(!found, "{text} stands in {}", path.display());
        }
    }
}

fn quarantine(site: &Site, node: &str, end: &Value) -> String {
    let transfer = end["transfer"].as_str().expect("an id");
    posthouse(&["quarantine", "show", "--config", &site.config(node), transfer, "--json"]).stdout
}

fn deep(site: &Site) -> Ran {
    posthouse(&["reconcile", "--config", &site.config(CONSUMER), "--deep", "persons", "--json"])
}

/// A consumer's configuration with one job, which lands `persons` in a file of SQLite; `rest` follows it.
fn persons_job(mode: &str, write: &str, rest: &str) -> String {
    format!(
        r#"[connection.db]
kind = "sqlite"
path = "{{dir}}/target.db"

[[job]]
name = "persons"
resource = "{PROVIDER}/persons"
into = {{ connection = "db", table = "persons" }}
mode = "{mode}"
write = "{write}"
schedule = "manual"
{rest}"#
    )
}
