//! The two tables beside a target: `posthouse_applied` says which splits are staged and whether a transfer is
//! published, `posthouse_quarantine` keeps rows that the target refused. What they say of a split or of a
//! transfer is committed together with the rows that it is about.

use super::catalog::{TableName, literal};
use super::place::Fail;
use super::place::Place;
use super::wire::{Client, WireError};
use crate::charset::Charset;
use crate::{Applied, BadRow, Published, SplitLanded};
use posthouse_protocol::problem::{Code, Problem};

/// A refused row, with what the server says of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Refused {
    pub(super) key: String,
    pub(super) reason: String,
    pub(super) original: String,
    pub(super) sqlstate: Option<String>,
    pub(super) constraint: Option<String>,
    pub(super) column: Option<String>,
}

impl Refused {
    /// One that a statement was refused for.
    pub(super) fn by(error: &WireError, key: String, original: String) -> Self {
        let WireError::Server(said) = error else {
            return Self { key, original, reason: error.to_string(), ..Self::default() };
        };
        let detail = said.detail.as_deref().map(|detail| format!("; {detail}")).unwrap_or_default();
        Self {
            key,
            original,
            reason: format!("{}{detail}", said.message),
            sqlstate: Some(said.sqlstate.clone()),
            constraint: said.constraint.clone(),
            column: said.column.clone(),
        }
    }
    pub(super) fn row(&self) -> BadRow {
        BadRow { key: self.key.clone(), reason: self.reason.clone(), original: self.original.clone() }
    }
}

pub(super) fn names(place: &Place) -> [TableName; 2] {
    [place.own("applied"), place.own("quarantine")]
}

/// The statements that make both, and their index.
pub(super) fn create(place: &Place) -> Vec<String> {
    let [applied, quarantine] = names(place);
    vec![
        format!(
            "CREATE TABLE {applied} (
  transfer text NOT NULL,
  split text NOT NULL,
  root bytea,
  landed bigint NOT NULL,
  quarantined bigint NOT NULL,
  xid bigint,
  node_epoch bigint NOT NULL,
  job text NOT NULL,
  target text NOT NULL,
  published text,
  at timestamp with time zone NOT NULL DEFAULT pg_catalog.now(),
  PRIMARY KEY (transfer, split)
)"
        ),
        format!(
            "CREATE TABLE {quarantine} (
  transfer text NOT NULL,
  job text NOT NULL,
  target text NOT NULL,
  split text NOT NULL,
  number bigint NOT NULL,
  key text NOT NULL,
  reason text NOT NULL,
  sqlstate text,
  constraint_name text,
  column_name text,
  original text NOT NULL,
  at timestamp with time zone NOT NULL DEFAULT pg_catalog.now(),
  PRIMARY KEY (transfer, split, number)
)"
        ),
    ]
}

/// Whether the table of what is applied has the column that tells splits' rows apart.
pub(super) fn has_xid(client: &mut Client, place: &Place) -> Result<bool, WireError> {
    let sql = "SELECT count(*) FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = $1 AND c.relname = $2 AND a.attname = 'xid' AND NOT a.attisdropped";
    let [applied, _] = names(place);
    count(client, sql, &[Some(&applied.schema), Some(&applied.table)]).map(|found| found > 0)
}

pub(super) fn lacks_xid(place: &Place) -> Problem {
    let [applied, _] = names(place);
    let cause = format!(
        "{applied} lacks the column `xid`, and this account may not add it; have the DBA run the script that `posthouse \
         doctor --config FILE --sql CONNECTION` prints"
    );
    Problem::new(Code::DestinationFailed).with("target", place.target.to_string()).cause(cause)
}

/// Gives it that column.
pub(super) fn add_xid(place: &Place) -> String {
    let [applied, _] = names(place);
    format!("ALTER TABLE {applied} ADD COLUMN xid bigint")
}

/// Whether both stand there.
pub(super) fn exist(client: &mut Client, place: &Place) -> Result<bool, WireError> {
    for name in names(place) {
        if !is_there(client, &name)? {
            return Ok(false);
        }
    }
    Ok(true)
}

pub(super) fn is_there(client: &mut Client, name: &TableName) -> Result<bool, WireError> {
    let sql = "SELECT count(*) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = $1 AND c.relname = $2";
    count(client, sql, &[Some(&name.schema), Some(&name.table)]).map(|found| found > 0)
}

/// The number that a statement of one row and column gives; NULL is none.
pub(super) fn count(client: &mut Client, sql: &str, params: &[Option<&str>]) -> Result<u64, WireError> {
    match client.query(sql, params)?.first() {
        Some(row) if row.optional(0).is_some() => row.number(0),
        _ => Ok(0),
    }
}

/// Splits of this transfer that are staged.
pub(super) fn applied(client: &mut Client, place: &Place) -> Result<Vec<Applied>, WireError> {
    let [applied, _] = names(place);
    let sql = format!(
        "SELECT split, pg_catalog.encode(root, 'hex'), landed, quarantined FROM {applied}
         WHERE transfer = $1 AND root IS NOT NULL ORDER BY split"
    );
    let rows = client.query(&sql, &[Some(place.transfer())])?;
    let row = |row: &super::wire::Row| {
        let mut root = [0; 32];
        hex::decode_to_slice(row.text(1)?, &mut root).map_err(|_| odd_root())?;
        Ok(Applied { split: row.text(0)?.to_owned(), root, landed: row.number(2)?, quarantined: row.number(3)? })
    };
    rows.iter().map(row).collect()
}

fn odd_root() -> WireError {
    WireError::Protocol("posthouse_applied holds a root of another length".to_owned())
}

/// What publishing this transfer did, where it was done.
pub(super) fn published(client: &mut Client, place: &Place) -> Result<Option<Published>, WireError> {
    let [applied, _] = names(place);
    let sql = format!("SELECT published FROM {applied} WHERE transfer = $1 AND published IS NOT NULL");
    let rows = client.query(&sql, &[Some(place.transfer())])?;
    let Some(row) = rows.first() else { return Ok(None) };
    let parsed = serde_json::from_str(row.text(0)?);
    parsed.map(Some).map_err(|e| WireError::Protocol(format!("posthouse_applied holds no outcome: {e}")))
}

/// Refuses to write for a copy of this node that was started before another one.
pub(super) fn check_epoch(client: &mut Client, place: &Place) -> Result<(), Fail> {
    let [applied, _] = names(place);
    let sql = format!("SELECT max(node_epoch) FROM {applied} WHERE transfer = $1");
    let epoch = count(client, &sql, &[Some(place.transfer())])?;
    if epoch > place.landing.node_epoch {
        let cause =
            format!("the transfer was continued under epoch {epoch}, this is epoch {}", place.landing.node_epoch);
        return Err(Problem::new(Code::Fenced).cause(cause).into());
    }
    Ok(())
}

/// Another job that lands in the same table.
pub(super) fn other_job(client: &mut Client, place: &Place) -> Result<Option<String>, WireError> {
    let [applied, _] = names(place);
    let sql = format!("SELECT min(job) FROM {applied} WHERE target = $1 AND job <> $2");
    let target = place.target.to_string();
    let rows = client.query(&sql, &[Some(target.as_str()), Some(place.landing.job.as_str())])?;
    Ok(rows.first().and_then(|row| row.optional(0)).map(str::to_owned))
}

/// Says that a split is staged, and keeps what was refused of it. `is_one_transaction`: its rows were written under the
/// transaction itself and not under savepoints, so that its number tells them from others.
pub(super) fn note(
    client: &mut Client,
    place: &Place,
    split: &str,
    root: [u8; 32],
    landed: u64,
    bad: &[Refused],
    is_one_transaction: bool,
) -> Result<(), WireError> {
    keep(client, place, split, bad)?;
    let quarantined = bad.len() as u64;
    let outcome = Outcome { split, root: Some(root), landed, quarantined, is_one_transaction, published: None };
    outcome.write(client, place)
}

/// Says that the transfer is published, and nothing else of it.
pub(super) fn leave(client: &mut Client, place: &Place, result: &Published, bad: &[Refused]) -> Result<(), WireError> {
    keep(client, place, "", bad)?;
    forget(client, place, 0)?;
    let text = serde_json::to_string(result).unwrap_or_default();
    let (landed, quarantined) = (result.rows, result.quarantined);
    let outcome =
        Outcome { split: "", root: None, landed, quarantined, is_one_transaction: false, published: Some(&text) };
    outcome.write(client, place)
}

/// Forgets a transfer that is given up, its refused rows too.
pub(super) fn discard(client: &mut Client, place: &Place) -> Result<(), WireError> {
    forget(client, place, 0)?;
    forget(client, place, 1)
}

fn forget(client: &mut Client, place: &Place, table: usize) -> Result<(), WireError> {
    let Some(name) = names(place).into_iter().nth(table) else { return Ok(()) };
    client.execute(&format!("DELETE FROM {name} WHERE transfer = $1"), &[Some(place.transfer())]).map(|_| ())
}

struct Outcome<'a> {
    split: &'a str,
    root: Option<[u8; 32]>,
    landed: u64,
    quarantined: u64,
    is_one_transaction: bool,
    published: Option<&'a str>,
}

impl Outcome<'_> {
    fn write(&self, client: &mut Client, place: &Place) -> Result<(), WireError> {
        let [applied, _] = names(place);
        let xid = if self.is_one_transaction { XID } else { "NULL" };
        let sql = format!(
            "INSERT INTO {applied} (transfer, split, root, landed, quarantined, node_epoch, job, target, published, xid)
             VALUES ($1, $2, pg_catalog.decode($3, 'hex'), $4::bigint, $5::bigint, $6::bigint, $7, $8, $9, {xid})"
        );
        let root = self.root.map(hex::encode);
        let numbers = [self.landed, self.quarantined, place.landing.node_epoch].map(|number| number.to_string());
        let [landed, quarantined, epoch] = &numbers;
        let (job, target) = (place.landing.job.as_str(), place.target.to_string());
        let params = [
            Some(place.transfer()),
            Some(self.split),
            root.as_deref(),
            Some(landed),
            Some(quarantined),
            Some(epoch),
            Some(job),
            Some(&target),
            self.published,
        ];
        client.execute(&sql, &params).map(|_| ())
    }
}

/// Rows of all staged splits of the transfer.
pub(super) fn staged(client: &mut Client, place: &Place) -> Result<u64, WireError> {
    let [applied, _] = names(place);
    let sql = format!("SELECT sum(landed) FROM {applied} WHERE transfer = $1 AND root IS NOT NULL");
    count(client, &sql, &[Some(place.transfer())])
}

/// Rows that were refused before they were staged.
pub(super) fn refused_before(client: &mut Client, place: &Place) -> Result<u64, WireError> {
    let [applied, _] = names(place);
    let sql = format!("SELECT sum(quarantined) FROM {applied} WHERE transfer = $1 AND root IS NOT NULL");
    count(client, &sql, &[Some(place.transfer())])
}

/// What a split's staging gave, if it was staged before. One of the same name that was taken over with other content
/// makes way.
pub(super) fn landed(
    client: &mut Client,
    place: &Place,
    split: &str,
    root: [u8; 32],
) -> Result<Option<SplitLanded>, WireError> {
    let [applied, _] = names(place);
    let sql = format!(
        "SELECT landed, pg_catalog.encode(root, 'hex') FROM {applied}
         WHERE transfer = $1 AND split = $2 AND root IS NOT NULL"
    );
    let rows = client.query(&sql, &[Some(place.transfer()), Some(split)])?;
    let Some(row) = rows.first() else { return Ok(None) };
    if row.text(1)? != hex::encode(root) {
        let mut found = [0; 32];
        hex::decode_to_slice(row.text(1)?, &mut found).map_err(|_| odd_root())?;
        give_up(client, place, split, found)?;
        return Ok(None);
    }
    let landed = row.number(0)?;
    Ok(Some(SplitLanded { landed, bad: refused(client, place, split)? }))
}

/// Takes over what another transfer has staged. False where its rows could not be told apart later on, or were for
/// another target.
pub(super) fn take_over(client: &mut Client, place: &Place, failed: &str) -> Result<bool, WireError> {
    let [applied, quarantine] = names(place);
    if !has_xid(client, place)? {
        return Ok(false);
    }
    // The job may land elsewhere by now, and staging is made for its target.
    let others = format!("SELECT count(*) FROM {applied} WHERE transfer = $1 AND (xid IS NULL OR target <> $2)");
    if count(client, &others, &[Some(failed), Some(&place.target.to_string())])? > 0 {
        return Ok(false);
    }
    let epoch = place.landing.node_epoch.to_string();
    let sql = format!("UPDATE {applied} SET transfer = $2, node_epoch = $3::bigint WHERE transfer = $1");
    client.execute(&sql, &[Some(failed), Some(place.transfer()), Some(&epoch)])?;
    let sql = format!("UPDATE {quarantine} SET transfer = $2 WHERE transfer = $1");
    client.execute(&sql, &[Some(failed), Some(place.transfer())])?;
    Ok(true)
}

/// A split that was taken over is none of this transfer's. Its rows stay until publishing, which drops all such rows
/// in one pass.
pub(super) fn give_up(client: &mut Client, place: &Place, split: &str, root: [u8; 32]) -> Result<(), WireError> {
    let [applied, quarantine] = names(place);
    let sql = format!(
        "UPDATE {applied} SET split = 'given up ' || xid, root = NULL
         WHERE transfer = $1 AND split = $2 AND root = pg_catalog.decode($3, 'hex') AND xid IS NOT NULL"
    );
    let root = hex::encode(root);
    if client.execute(&sql, &[Some(place.transfer()), Some(split), Some(&root)])? == 0 {
        return Ok(());
    }
    let sql = format!("DELETE FROM {quarantine} WHERE transfer = $1 AND split = $2");
    client.execute(&sql, &[Some(place.transfer()), Some(split)]).map(|_| ())
}

/// Drops the rows of splits that were given up.
pub(super) fn drop_given_up(client: &mut Client, place: &Place, staging: &TableName) -> Result<(), Fail> {
    let [applied, _] = names(place);
    let given_up = "transfer = $1 AND root IS NULL AND published IS NULL";
    let transfer = [Some(place.transfer())];
    let sql = format!("SELECT xid, landed FROM {applied} WHERE {given_up}");
    let rows = client.query(&sql, &transfer)?;
    if rows.is_empty() {
        return Ok(());
    }
    let mut xids = Vec::new();
    let mut landed: u64 = 0;
    for row in &rows {
        xids.push(row.text(0)?.to_owned());
        landed += row.number::<u64>(1)?;
    }
    let xids = format!("{{{}}}", xids.join(","));
    let sql = format!("DELETE FROM {staging} s WHERE s.xmin::text::bigint = ANY ($1::bigint[])");
    let dropped = client.execute(&sql, &[Some(&xids)])?;
    if dropped != landed {
        let cause = format!("{landed} rows of splits that were taken over were to be dropped, and {dropped} are there");
        return Err(Problem::new(Code::DestinationFailed).with("target", staging.to_string()).cause(cause).into());
    }
    client.execute(&format!("DELETE FROM {applied} WHERE {given_up}"), &transfer)?;
    Ok(())
}

/// What was refused of a split, or by publishing.
pub(super) fn refused(client: &mut Client, place: &Place, split: &str) -> Result<Vec<BadRow>, WireError> {
    let [_, quarantine] = names(place);
    let sql =
        format!("SELECT key, reason, original FROM {quarantine} WHERE transfer = $1 AND split = $2 ORDER BY number");
    let rows = client.query(&sql, &[Some(place.transfer()), Some(split)])?;
    let bad_row = |row: &super::wire::Row| {
        let text = |column| row.text(column).map(str::to_owned);
        Ok(BadRow { key: text(0)?, reason: text(1)?, original: text(2)? })
    };
    rows.iter().map(bad_row).collect()
}

fn keep(client: &mut Client, place: &Place, split: &str, bad: &[Refused]) -> Result<(), WireError> {
    if bad.is_empty() {
        return Ok(());
    }
    let [_, quarantine] = names(place);
    let (job, target) = (place.landing.job.as_str(), place.target.to_string());
    let charset = client.charset();
    let said = |text: &str| client.sayable(&text.replace('\0', "\u{2400}")).into_owned();
    let mut lines = Vec::with_capacity(bad.len());
    for (number, row) in bad.iter().enumerate() {
        let mut line = Vec::new();
        for text in [place.transfer(), job, &target, split] {
            copy_text(text, charset, &mut line);
            line.push(b'\t');
        }
        line.extend_from_slice(number.to_string().as_bytes());
        for text in [&row.key, &row.reason, &row.original] {
            line.push(b'\t');
            copy_text(&said(text), charset, &mut line);
        }
        for text in [&row.sqlstate, &row.constraint, &row.column] {
            line.push(b'\t');
            match text {
                Some(text) => copy_text(&said(text), charset, &mut line),
                None => line.extend_from_slice(b"\\N"),
            }
        }
        line.push(b'\n');
        lines.push(line);
    }
    let mut copy = client.copy_in(&format!(
        "COPY {quarantine} (transfer, job, target, split, number, key, reason, original, sqlstate, constraint_name,
         column_name) FROM STDIN"
    ))?;
    lines.iter().try_for_each(|line| copy.write(line))?;
    copy.finish().map(|_| ())
}

/// A text in a line of COPY's text form; a zero byte, which no text here may hold, as a picture of it. It is one that the
/// database takes: what is said of a row must not be lost for the reason it is said for. A server that does not convert
/// reads the line byte by byte, and so it is written.
fn copy_text(text: &str, charset: Charset, out: &mut Vec<u8>) {
    for byte in charset.encode(text).unwrap_or_default().iter() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            byte => out.push(*byte),
        }
    }
}

/// Takes a lock that ends with the transaction.
pub(super) fn lock(client: &mut Client, of: &str) -> Result<(), WireError> {
    client.batch(&format!("SELECT pg_catalog.pg_advisory_xact_lock({})", Place::lock(of)))
}

/// The same lock for those who may hold it together: only who takes it alone waits for them, and they for him.
pub(super) fn lock_together(client: &mut Client, of: &str) -> Result<(), WireError> {
    client.batch(&format!("SELECT pg_catalog.pg_advisory_xact_lock_shared({})", Place::lock(of)))
}

/// Names the transfer to the default of a staging table that was made beforehand.
pub(super) fn name_transfer(client: &mut Client, place: &Place) -> Result<(), WireError> {
    client.batch(&format!("SET LOCAL posthouse.transfer = {}", literal(place.transfer())))
}

/// The transaction's number as rows carry it in `xmin`.
const XID: &str = "pg_catalog.txid_current() % 4294967296";
