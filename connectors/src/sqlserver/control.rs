//! The two tables beside a target: `posthouse_applied` says which splits are staged and whether a transfer is
//! published, `posthouse_quarantine` keeps rows that the target refused. What they say of a split or of a transfer is
//! committed together with the rows that it is about. A split is known by the hash of its name: an index of the
//! engine's takes no longer one, and takes two that differ in blanks at their end for the same.

use super::catalog;
use super::client::{Client, SqlError, bytes, id, number, param, text};
use super::kind::BINARY;
use super::name::TableName;
use super::place::{Fail, Place};
use crate::{Applied, BadRow, Published, SplitLanded};
use posthouse_protocol::problem::{Code, Problem};
use tiberius::ColumnData;

/// A refused row, with the server's number for it where the server refused it.
#[derive(Debug, Clone)]
pub(super) struct Refused {
    pub(super) row: BadRow,
    pub(super) error: Option<u32>,
}

impl Refused {
    /// One that was refused before it was sent.
    pub(super) fn here(row: BadRow) -> Self {
        Self { row, error: None }
    }
}

pub(super) fn names(place: &Place) -> [TableName; 2] {
    [place.own("applied"), place.own("quarantine")]
}

/// The statements that make both.
pub(super) fn create(place: &Place) -> [String; 2] {
    let [applied, quarantine] = names(place);
    let at = "[at] datetime2(3) NOT NULL DEFAULT SYSUTCDATETIME()";
    [
        format!(
            "CREATE TABLE {applied} ([transfer] nvarchar(64) COLLATE {BINARY} NOT NULL, [split_id] varbinary(32) NOT NULL, \
             [split] nvarchar(max) COLLATE {BINARY} NOT NULL, [root] varbinary(32) NULL, [landed] bigint NOT NULL, \
             [quarantined] bigint NOT NULL, [node_epoch] bigint NOT NULL, [job] nvarchar(256) COLLATE {BINARY} NOT NULL, \
             [target] nvarchar(600) COLLATE {BINARY} NOT NULL, [published] nvarchar(max) COLLATE {BINARY} NULL, {at}, \
             PRIMARY KEY ([transfer], [split_id]))"
        ),
        format!(
            "CREATE TABLE {quarantine} ([transfer] nvarchar(64) COLLATE {BINARY} NOT NULL, [split_id] varbinary(32) NOT NULL, \
             [number] bigint NOT NULL, [job] nvarchar(256) COLLATE {BINARY} NOT NULL, \
             [target] nvarchar(600) COLLATE {BINARY} NOT NULL, [key] nvarchar(max) COLLATE {BINARY} NOT NULL, \
             [reason] nvarchar(max) COLLATE {BINARY} NOT NULL, [error] int NULL, \
             [original] nvarchar(max) COLLATE {BINARY} NOT NULL, {at}, PRIMARY KEY ([transfer], [split_id], [number]))"
        ),
    ]
}

/// Whether both stand there.
pub(super) fn exist(client: &mut Client, place: &Place) -> Result<bool, SqlError> {
    for name in names(place) {
        if !catalog::is_there(client, &name)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Refuses to write for a copy of this node that was started before another one. The transfer's rows are held until the
/// commit, so that nobody else of this transfer is in the middle of anything; those of others are not, nor is what lies
/// between them.
pub(super) fn check_epoch(client: &mut Client, place: &Place) -> Result<(), Fail> {
    let [applied, _] = names(place);
    let sql = format!("SELECT MAX(a.node_epoch) FROM {applied} AS a WITH (UPDLOCK) WHERE a.transfer = @P1");
    let epoch = client.count(&sql, &[param(place.transfer())])?;
    if epoch > place.landing.node_epoch {
        let cause =
            format!("the transfer was continued under epoch {epoch}, this is epoch {}", place.landing.node_epoch);
        return Err(Problem::new(Code::Fenced).cause(cause).into());
    }
    Ok(())
}

/// Leaves a row of the transfer that can be held, before it has any other.
pub(super) fn begin(client: &mut Client, place: &Place) -> Result<(), SqlError> {
    let [applied, _] = names(place);
    let sql = format!("SELECT COUNT_BIG(*) FROM {applied} AS a WHERE a.transfer = @P1");
    if client.count(&sql, &[param(place.transfer())])? > 0 {
        return Ok(());
    }
    write(client, place, "", ColumnData::Binary(None), 0, 0, None)
}

/// Splits of this transfer that are staged.
pub(super) fn applied(client: &mut Client, place: &Place) -> Result<Vec<Applied>, SqlError> {
    let [applied, _] = names(place);
    let sql = format!(
        "SELECT a.split, a.root, a.landed, a.quarantined FROM {applied} AS a \
         WHERE a.transfer = @P1 AND a.root IS NOT NULL ORDER BY a.split_id"
    );
    let rows = client.query(&sql, &[param(place.transfer())])?;
    let row = |row: &tiberius::Row| {
        let root =
            bytes(row, 1).and_then(|root| root.try_into().ok()).ok_or_else(|| odd("a root of another length"))?;
        let split = text(row, 0).ok_or_else(|| odd("a split without a name"))?.to_owned();
        Ok(Applied { split, root, landed: count(row, 2)?, quarantined: count(row, 3)? })
    };
    rows.iter().map(row).collect()
}

/// What a split's staging gave, if it was staged before.
pub(super) fn landed(client: &mut Client, place: &Place, split: &str) -> Result<Option<SplitLanded>, SqlError> {
    let [applied, _] = names(place);
    let sql = format!(
        "SELECT a.landed FROM {applied} AS a WHERE a.transfer = @P1 AND a.split_id = @P2 AND a.root IS NOT NULL"
    );
    let rows = client.query(&sql, &[param(place.transfer()), split_id(split)])?;
    let Some(row) = rows.first() else { return Ok(None) };
    let landed = count(row, 0)?;
    Ok(Some(SplitLanded { landed, bad: refused(client, place, split)? }))
}

/// Rows of all staged splits of the transfer.
pub(super) fn staged(client: &mut Client, place: &Place) -> Result<u64, SqlError> {
    let [applied, _] = names(place);
    let sql = format!("SELECT SUM(a.landed) FROM {applied} AS a WHERE a.transfer = @P1 AND a.root IS NOT NULL");
    client.count(&sql, &[param(place.transfer())])
}

/// What publishing this transfer did, where it was done.
pub(super) fn published(client: &mut Client, place: &Place) -> Result<Option<Published>, SqlError> {
    let [applied, _] = names(place);
    let sql = format!("SELECT a.published FROM {applied} AS a WHERE a.transfer = @P1 AND a.published IS NOT NULL");
    let rows = client.query(&sql, &[param(place.transfer())])?;
    let Some(found) = rows.first().and_then(|row| text(row, 0)) else { return Ok(None) };
    serde_json::from_str(found).map(Some).map_err(|e| odd(&format!("no outcome: {e}")))
}

/// Another job that lands in the same table.
pub(super) fn other_job(client: &mut Client, place: &Place) -> Result<Option<String>, SqlError> {
    let [applied, _] = names(place);
    let sql = format!("SELECT MIN(a.job) FROM {applied} AS a WHERE a.target = @P1 AND a.job <> @P2");
    let target = place.target.to_string();
    let rows = client.query(&sql, &[param(&target), param(place.landing.job.as_str())])?;
    Ok(rows.first().and_then(|row| text(row, 0)).map(str::to_owned))
}

/// Says that a split is staged, and keeps what was refused of it.
pub(super) fn note(
    client: &mut Client,
    place: &Place,
    split: &str,
    root: [u8; 32],
    landed: u64,
    bad: &[Refused],
) -> Result<(), SqlError> {
    keep(client, place, split, bad)?;
    let root = ColumnData::Binary(Some(root.to_vec().into()));
    write(client, place, split, root, landed, bad.len() as u64, None)
}

/// Says that the transfer is published, and nothing else of it.
pub(super) fn leave(client: &mut Client, place: &Place, result: &Published, bad: &[Refused]) -> Result<(), SqlError> {
    keep(client, place, "", bad)?;
    forget(client, place, 0)?;
    let text = serde_json::to_string(result).unwrap_or_default();
    write(client, place, "", ColumnData::Binary(None), result.rows, result.quarantined, Some(&text))
}

/// Forgets a transfer that is given up, its refused rows too.
pub(super) fn discard(client: &mut Client, place: &Place) -> Result<(), SqlError> {
    forget(client, place, 0)?;
    forget(client, place, 1)
}

fn forget(client: &mut Client, place: &Place, table: usize) -> Result<(), SqlError> {
    let Some(name) = names(place).into_iter().nth(table) else { return Ok(()) };
    client.execute(&format!("DELETE FROM {name} WHERE transfer = @P1"), &[param(place.transfer())])
}

fn write(
    client: &mut Client,
    place: &Place,
    split: &str,
    root: ColumnData<'static>,
    landed: u64,
    quarantined: u64,
    published: Option<&str>,
) -> Result<(), SqlError> {
    let [applied, _] = names(place);
    let sql = format!(
        "INSERT INTO {applied} (transfer, split_id, split, root, landed, quarantined, node_epoch, job, target, published) \
         VALUES (@P1, @P2, @P3, @P4, @P5, @P6, @P7, @P8, @P9, @P10)"
    );
    let target = place.target.to_string();
    let params = [
        param(place.transfer()),
        split_id(split),
        param(split),
        root,
        size(landed),
        size(quarantined),
        size(place.landing.node_epoch),
        param(place.landing.job.as_str()),
        param(&target),
        ColumnData::String(published.map(Into::into)),
    ];
    client.execute(&sql, &params)
}

fn keep(client: &mut Client, place: &Place, split: &str, bad: &[Refused]) -> Result<(), SqlError> {
    let [_, quarantine] = names(place);
    let sql = format!(
        "INSERT INTO {quarantine} (transfer, split_id, number, job, target, [key], reason, error, original) \
         VALUES (@P1, @P2, @P3, @P4, @P5, @P6, @P7, @P8, @P9)"
    );
    let target = place.target.to_string();
    for (at, Refused { row, error }) in bad.iter().enumerate() {
        let params = [
            param(place.transfer()),
            split_id(split),
            size(at as u64),
            param(place.landing.job.as_str()),
            param(&target),
            param(&row.key),
            param(&row.reason),
            ColumnData::I32(error.and_then(|error| i32::try_from(error).ok())),
            param(&row.original),
        ];
        client.execute(&sql, &params)?;
    }
    Ok(())
}

/// What was refused of a split, or by publishing.
pub(super) fn refused(client: &mut Client, place: &Place, split: &str) -> Result<Vec<BadRow>, SqlError> {
    let [_, quarantine] = names(place);
    let sql = format!(
        "SELECT q.[key], q.reason, q.original FROM {quarantine} AS q \
         WHERE q.transfer = @P1 AND q.split_id = @P2 ORDER BY q.number"
    );
    let rows = client.query(&sql, &[param(place.transfer()), split_id(split)])?;
    let part = |row: &tiberius::Row, at: usize| text(row, at).unwrap_or_default().to_owned();
    let row = |row: &tiberius::Row| BadRow { key: part(row, 0), reason: part(row, 1), original: part(row, 2) };
    Ok(rows.iter().map(row).collect())
}

fn split_id(split: &str) -> ColumnData<'static> {
    ColumnData::Binary(Some(blake3::hash(split.as_bytes()).as_bytes().to_vec().into()))
}

fn size(number: u64) -> ColumnData<'static> {
    id(i64::try_from(number).unwrap_or(i64::MAX))
}

fn count(row: &tiberius::Row, at: usize) -> Result<u64, SqlError> {
    number(row, at).and_then(|count| u64::try_from(count).ok()).ok_or_else(|| odd("a count that is none"))
}

fn odd(what: &str) -> SqlError {
    SqlError::Odd(format!("posthouse_applied holds {what}"))
}
