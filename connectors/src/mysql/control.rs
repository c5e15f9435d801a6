//! The two tables beside a target: `posthouse_applied` says which splits are staged and whether a transfer is
//! published, `posthouse_quarantine` keeps rows that the target refused. What they say of a split or of a transfer is
//! committed together with the rows that it is about. Splits are known by the hash of their name, which an index holds.

use super::client::{Client, Server, number, optional, text};
use super::ddl;
use super::fail::{self, Fail};
use super::place::{Place, TableName, quote};
use crate::{Applied, BadRow, Published, SplitLanded};
use mysql_async::{ServerError, Value};
use posthouse_protocol::problem::{Code, Problem};

/// A refused row, with what the server says of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Refused {
    pub(super) key: String,
    pub(super) reason: String,
    pub(super) original: String,
    /// The server's number for what is wrong.
    pub(super) code: Option<u16>,
}

impl Refused {
    /// One that a statement was refused for.
    pub(super) fn by(error: &ServerError, key: String, original: String) -> Self {
        let reason = match error.code {
            fail::DUPLICATE => format!("its key came in this transfer already, or is taken: {}", fail::text(error)),
            _ => fail::text(error),
        };
        Self { key, reason, original, code: Some(error.code) }
    }
    pub(super) fn row(&self) -> BadRow {
        BadRow { key: self.key.clone(), reason: self.reason.clone(), original: self.original.clone() }
    }
}

pub(super) fn names(place: &Place) -> [TableName; 2] {
    [place.own("applied"), place.own("quarantine")]
}

/// The statements that make both.
pub(super) fn create(place: &Place, server: &Server) -> Vec<String> {
    let [applied, quarantine] = names(place);
    let options = ddl::options(server);
    vec![
        format!(
            "CREATE TABLE {applied} (
  transfer varchar(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  place binary(32) NOT NULL,
  split longtext NOT NULL,
  root binary(32) NULL,
  landed bigint unsigned NOT NULL,
  quarantined bigint unsigned NOT NULL,
  node_epoch bigint unsigned NOT NULL,
  job varchar(255) NOT NULL,
  target varchar(255) NOT NULL,
  published longtext NULL,
  at datetime(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
  PRIMARY KEY (transfer, place),
  KEY posthouse_target (target)
){options}"
        ),
        format!(
            "CREATE TABLE {quarantine} (
  transfer varchar(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
  place binary(32) NOT NULL,
  number bigint unsigned NOT NULL,
  split longtext NOT NULL,
  job varchar(255) NOT NULL,
  target varchar(255) NOT NULL,
  row_key longtext NOT NULL,
  reason longtext NOT NULL,
  code int NULL,
  original longtext NOT NULL,
  at datetime(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
  PRIMARY KEY (transfer, place, number)
){options}"
        ),
    ]
}

pub(super) fn is_there(client: &mut Client, name: &TableName) -> Result<bool, Fail> {
    let sql = "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ?";
    client.count(sql, vec![name.schema.as_str().into(), name.table.as_str().into()]).map(|found| found > 0)
}

/// Whether both stand there.
pub(super) fn exist(client: &mut Client, place: &Place) -> Result<bool, Fail> {
    let [applied, quarantine] = names(place);
    Ok(is_there(client, &applied)? && is_there(client, &quarantine)?)
}

/// Makes what is missing of them.
pub(super) fn prepare(client: &mut Client, place: &Place) -> Result<(), Fail> {
    let known = "SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = ?";
    if client.count(known, vec![place.control.as_str().into()])? == 0 {
        client.run(&format!("CREATE DATABASE {}", quote(&place.control)))?;
    }
    let server = client.server;
    for (name, create) in names(place).iter().zip(create(place, &server)) {
        if !is_there(client, name)? {
            client.run(&create.replacen("CREATE TABLE ", "CREATE TABLE IF NOT EXISTS ", 1))?;
        }
    }
    Ok(())
}

fn transfer(place: &Place) -> Value {
    place.transfer().into()
}

fn hash(split: &str) -> Value {
    Value::Bytes(blake3::hash(split.as_bytes()).as_bytes().to_vec())
}

fn root(value: &Value) -> Result<[u8; 32], Fail> {
    let odd = || Problem::new(Code::DestinationFailed).cause("posthouse_applied holds a root of another length");
    match value {
        Value::Bytes(bytes) => Ok(bytes.as_slice().try_into().map_err(|_| odd())?),
        _ => Err(odd().into()),
    }
}

/// Splits of this transfer that are staged.
pub(super) fn applied(client: &mut Client, place: &Place) -> Result<Vec<Applied>, Fail> {
    let [applied, _] = names(place);
    let sql = format!(
        "SELECT split, root, landed, quarantined FROM {applied} WHERE transfer = ? AND root IS NOT NULL ORDER BY place"
    );
    let mut found = Vec::new();
    for row in client.rows(&sql, vec![transfer(place)])? {
        let [split, hash, landed, quarantined] = row.as_slice() else { continue };
        let (landed, quarantined) = (number(landed), number(quarantined));
        found.push(Applied { split: text(split), root: root(hash)?, landed, quarantined });
    }
    Ok(found)
}

/// Whether any split of this transfer is staged.
pub(super) fn has_begun(client: &mut Client, place: &Place) -> Result<bool, Fail> {
    let [applied, _] = names(place);
    let sql = format!("SELECT COUNT(*) FROM {applied} WHERE transfer = ? AND root IS NOT NULL");
    client.count(&sql, vec![transfer(place)]).map(|splits| splits > 0)
}

/// Rows that were refused when splits of this transfer were staged.
pub(super) fn refused_before(client: &mut Client, place: &Place) -> Result<u64, Fail> {
    let [applied, _] = names(place);
    let sql = format!("SELECT SUM(quarantined) FROM {applied} WHERE transfer = ? AND root IS NOT NULL");
    client.count(&sql, vec![transfer(place)])
}

/// Transfers into the same table that were published, the latest ones first.
pub(super) fn published_lately(client: &mut Client, place: &Place) -> Result<Vec<String>, Fail> {
    let [applied, _] = names(place);
    let sql = format!(
        "SELECT transfer FROM {applied} WHERE target = ? AND published IS NOT NULL ORDER BY at DESC LIMIT {LATELY}"
    );
    let rows = client.rows(&sql, vec![target(place)])?;
    Ok(rows.iter().filter_map(|row| row.first().map(text)).collect())
}

/// What publishing this transfer did, where it was done.
pub(super) fn published(client: &mut Client, place: &Place) -> Result<Option<Published>, Fail> {
    let [applied, _] = names(place);
    let sql = format!("SELECT published FROM {applied} WHERE transfer = ? AND published IS NOT NULL");
    let rows = client.rows(&sql, vec![transfer(place)])?;
    let Some(outcome) = rows.first().and_then(|row| row.first()).map(text) else { return Ok(None) };
    let outcome = serde_json::from_str(&outcome).map_err(|e| {
        Problem::new(Code::DestinationFailed)
            .with("target", &place.landing.table)
            .cause(format!("posthouse_applied holds no outcome: {e}"))
    })?;
    Ok(Some(outcome))
}

/// Refuses to write for a copy of this node that was started before another one.
pub(super) fn check_epoch(client: &mut Client, place: &Place) -> Result<(), Fail> {
    let [applied, _] = names(place);
    let sql = format!("SELECT MAX(node_epoch) FROM {applied} WHERE transfer = ?");
    let epoch = client.count(&sql, vec![transfer(place)])?;
    if epoch > place.landing.node_epoch {
        let cause =
            format!("the transfer was continued under epoch {epoch}, this is epoch {}", place.landing.node_epoch);
        return Err(Problem::new(Code::Fenced).cause(cause).into());
    }
    Ok(())
}

/// Another job that lands in the same table.
pub(super) fn other_job(client: &mut Client, place: &Place) -> Result<Option<String>, Fail> {
    let [applied, _] = names(place);
    let sql = format!("SELECT MIN(job) FROM {applied} WHERE target = ? AND job <> ?");
    let rows = client.rows(&sql, vec![target(place), place.landing.job.as_str().into()])?;
    Ok(rows.first().and_then(|row| row.first()).and_then(optional))
}

fn target(place: &Place) -> Value {
    place.target.to_string().into()
}

/// Says that a split is staged, and keeps what was refused of it.
pub(super) fn note(
    client: &mut Client,
    place: &Place,
    split: &str,
    root: [u8; 32],
    landed: u64,
    refused: &[Refused],
) -> Result<(), Fail> {
    keep(client, place, split, refused)?;
    write(client, place, split, Some(root), landed, refused.len() as u64, None)
}

/// Says that the transfer is published, and nothing else of it.
pub(super) fn leave(client: &mut Client, place: &Place, result: &Published, refused: &[Refused]) -> Result<(), Fail> {
    let [applied, _] = names(place);
    keep(client, place, "", refused)?;
    client.exec(&format!("DELETE FROM {applied} WHERE transfer = ?"), vec![transfer(place)])?;
    let outcome = outcome(result);
    write(client, place, "", None, result.rows, result.quarantined, Some(&outcome))
}

/// An outcome as it is kept.
pub(super) fn outcome(result: &Published) -> String {
    serde_json::to_string(result).unwrap_or_default()
}

/// Forgets a transfer that is given up, its refused rows too. Within the caller's transaction: a row that is kept
/// twice would be refused.
pub(super) fn discard(client: &mut Client, place: &Place) -> Result<(), Fail> {
    for name in names(place) {
        client.exec(&format!("DELETE FROM {name} WHERE transfer = ?"), vec![transfer(place)])?;
    }
    Ok(())
}

fn write(
    client: &mut Client,
    place: &Place,
    split: &str,
    root: Option<[u8; 32]>,
    landed: u64,
    quarantined: u64,
    published: Option<&str>,
) -> Result<(), Fail> {
    let [applied, _] = names(place);
    let sql = format!(
        "INSERT INTO {applied} (transfer, place, split, root, landed, quarantined, node_epoch, job, target, published)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    );
    let values = vec![
        transfer(place),
        hash(split),
        split.into(),
        root.map_or(Value::NULL, |root| Value::Bytes(root.to_vec())),
        landed.into(),
        quarantined.into(),
        place.landing.node_epoch.into(),
        place.landing.job.as_str().into(),
        target(place),
        published.map_or(Value::NULL, Value::from),
    ];
    client.exec(&sql, values).map(|_| ())
}

/// Rows of all staged splits of the transfer.
pub(super) fn staged(client: &mut Client, place: &Place) -> Result<u64, Fail> {
    let [applied, _] = names(place);
    let sql = format!("SELECT SUM(landed) FROM {applied} WHERE transfer = ? AND root IS NOT NULL");
    client.count(&sql, vec![transfer(place)])
}

/// What a split's staging gave, if it was staged before.
pub(super) fn landed(client: &mut Client, place: &Place, split: &str) -> Result<Option<SplitLanded>, Fail> {
    let [applied, _] = names(place);
    let sql = format!("SELECT landed FROM {applied} WHERE transfer = ? AND place = ? AND root IS NOT NULL");
    let rows = client.rows(&sql, vec![transfer(place), hash(split)])?;
    let Some(landed) = rows.first().and_then(|row| row.first()).map(number) else { return Ok(None) };
    Ok(Some(SplitLanded { landed, bad: refused(client, place, split)? }))
}

/// What was refused of a split; of none, what publishing refused.
pub(super) fn refused(client: &mut Client, place: &Place, split: &str) -> Result<Vec<BadRow>, Fail> {
    let [_, quarantine] = names(place);
    let sql =
        format!("SELECT row_key, reason, original FROM {quarantine} WHERE transfer = ? AND place = ? ORDER BY number");
    let rows = client.rows(&sql, vec![transfer(place), hash(split)])?;
    let row = |row: Vec<Value>| match row.as_slice() {
        [key, reason, original] => Some(BadRow { key: text(key), reason: text(reason), original: text(original) }),
        _ => None,
    };
    Ok(rows.into_iter().filter_map(row).collect())
}

fn keep(client: &mut Client, place: &Place, split: &str, refused: &[Refused]) -> Result<(), Fail> {
    let [_, quarantine] = names(place);
    let sql = format!(
        "INSERT INTO {quarantine} (transfer, place, number, split, job, target, row_key, reason, code, original)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    );
    let original_max = client.server.packet_max / 2;
    for (number, row) in refused.iter().enumerate() {
        // The node's own quarantine has it whole.
        let original = match row.original.len() <= original_max {
            true => row.original.clone(),
            false => format!("{{\"bytes\":{},\"too long for this table\":true}}", row.original.len()),
        };
        let values = vec![
            transfer(place),
            hash(split),
            (number as u64).into(),
            split.into(),
            place.landing.job.as_str().into(),
            target(place),
            row.key.as_str().into(),
            row.reason.as_str().into(),
            row.code.map_or(Value::NULL, Value::from),
            original.into(),
        ];
        client.exec(&sql, values)?;
    }
    Ok(())
}

/// Transfers whose leftovers are looked for.
const LATELY: u32 = 100;
