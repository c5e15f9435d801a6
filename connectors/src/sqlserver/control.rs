//! The two tables beside a target: `posthouse_applied` says which splits are staged and whether a transfer is
//! published, `posthouse_quarantine` keeps rows that the target refused. What they say of a split or of a transfer is
//! committed together with the rows that it is about. A split is known by the hash of its name: an index of the
//! engine's takes no longer one, and takes two that differ in blanks at their end for the same.

use super::catalog;
use super::client::{Client, SqlError, bytes, id, number, param, text};
use super::kind::BINARY;
use super::name::TableName;
use super::place::{Fail, Place};
use super::staging::{Staging, Taken};
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

/// A column that an earlier version did not make.
pub(super) const FIRST_NUMBER: &str = "first_number";

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
             [{FIRST_NUMBER}] bigint NULL, [last_number] bigint NULL, [quarantined] bigint NOT NULL, \
             [node_epoch] bigint NOT NULL, [job] nvarchar(256) COLLATE {BINARY} NOT NULL, \
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

/// Gives the first the columns that an earlier version made it without: where a split's rows lie.
pub(super) fn add_numbers(place: &Place) -> String {
    let [applied, _] = names(place);
    format!("ALTER TABLE {applied} ADD [{FIRST_NUMBER}] bigint NULL, [last_number] bigint NULL")
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
    write(client, place, &Noted::default())
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

/// What a split's staging gave, if the same bytes of it were staged before.
pub(super) fn landed(
    client: &mut Client,
    place: &Place,
    split: &str,
    root: [u8; 32],
) -> Result<Option<SplitLanded>, SqlError> {
    let [applied, _] = names(place);
    let sql =
        format!("SELECT a.landed FROM {applied} AS a WHERE a.transfer = @P1 AND a.split_id = @P2 AND a.root = @P3");
    let rows = client.query(&sql, &[param(place.transfer()), split_id(split), hash(root)])?;
    let Some(row) = rows.first() else { return Ok(None) };
    let landed = count(row, 0)?;
    Ok(Some(SplitLanded { landed, bad: refused(client, place, split)? }))
}

/// Takes over what another transfer has staged and noted. False where it was for another target.
pub(super) fn take_over(client: &mut Client, place: &Place, failed: &Place) -> Result<bool, SqlError> {
    let [applied, quarantine] = names(place);
    // The job may land elsewhere by now, and staging is made for its target.
    let others = format!("SELECT COUNT_BIG(*) FROM {applied} AS a WHERE a.transfer = @P1 AND a.target <> @P2");
    if client.count(&others, &[param(failed.transfer()), param(&place.target.to_string())])? > 0 {
        return Ok(false);
    }
    let sql = format!("UPDATE {applied} SET transfer = @P2, node_epoch = @P3 WHERE transfer = @P1");
    client.execute(&sql, &[param(failed.transfer()), param(place.transfer()), size(place.landing.node_epoch)])?;
    let sql = format!("UPDATE {quarantine} SET transfer = @P2 WHERE transfer = @P1");
    client.execute(&sql, &[param(failed.transfer()), param(place.transfer())])?;
    Ok(true)
}

/// Forgets a staged split with its rows: the one of these bytes, or whichever bears the name.
pub(super) fn give_up(
    client: &mut Client,
    place: &Place,
    staging: &Staging,
    split: &str,
    root: Option<[u8; 32]>,
) -> Result<(), SqlError> {
    let [applied, quarantine] = names(place);
    let sql = format!(
        "SELECT a.root, a.first_number, a.last_number FROM {applied} AS a \
         WHERE a.transfer = @P1 AND a.split_id = @P2 AND a.root IS NOT NULL"
    );
    let of_it = || [param(place.transfer()), split_id(split)];
    let rows = client.query(&sql, &of_it())?;
    let Some(row) = rows.first() else { return Ok(()) };
    if root.is_some_and(|root| bytes(row, 0) != Some(root.as_slice())) {
        return Ok(());
    }
    if let (Some(first), Some(last)) = (number(row, 1), number(row, 2)) {
        staging.delete(client, first, last)?;
    }
    for table in [applied, quarantine] {
        client.execute(&format!("DELETE FROM {table} WHERE transfer = @P1 AND split_id = @P2"), &of_it())?;
    }
    Ok(())
}

/// Rows of all staged splits of the transfer.
pub(super) fn staged(client: &mut Client, place: &Place) -> Result<u64, SqlError> {
    let [applied, _] = names(place);
    let sql = format!("SELECT SUM(a.landed) FROM {applied} AS a WHERE a.transfer = @P1 AND a.root IS NOT NULL");
    client.count(&sql, &[param(place.transfer())])
}

/// Rows that were refused before they were staged.
pub(super) fn refused_before(client: &mut Client, place: &Place) -> Result<u64, SqlError> {
    let [applied, _] = names(place);
    let sql = format!("SELECT SUM(a.quarantined) FROM {applied} AS a WHERE a.transfer = @P1 AND a.root IS NOT NULL");
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
    taken: &Taken,
) -> Result<(), SqlError> {
    keep(client, place, split, &taken.refused)?;
    let quarantined = taken.refused.len() as u64;
    let noted = Noted {
        split,
        root: Some(root),
        landed: taken.landed,
        numbers: Some(taken.numbers),
        quarantined,
        published: None,
    };
    write(client, place, &noted)
}

/// Says that the transfer is published, and nothing else of it.
pub(super) fn leave(client: &mut Client, place: &Place, result: &Published, bad: &[Refused]) -> Result<(), SqlError> {
    keep(client, place, "", bad)?;
    forget(client, place, 0)?;
    let text = serde_json::to_string(result).unwrap_or_default();
    let (landed, quarantined) = (result.rows, result.quarantined);
    write(client, place, &Noted { landed, quarantined, published: Some(&text), ..Noted::default() })
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

/// A row of `posthouse_applied`: of a split, or of the transfer itself.
#[derive(Default)]
struct Noted<'a> {
    split: &'a str,
    root: Option<[u8; 32]>,
    landed: u64,
    /// Of the first and the last of a split's rows in the staging table.
    numbers: Option<(i64, i64)>,
    quarantined: u64,
    published: Option<&'a str>,
}

fn write(client: &mut Client, place: &Place, noted: &Noted<'_>) -> Result<(), SqlError> {
    let [applied, _] = names(place);
    let sql = format!(
        "INSERT INTO {applied} (transfer, split_id, split, root, landed, first_number, last_number, quarantined, \
         node_epoch, job, target, published) VALUES (@P1, @P2, @P3, @P4, @P5, @P6, @P7, @P8, @P9, @P10, @P11, @P12)"
    );
    let target = place.target.to_string();
    let params = [
        param(place.transfer()),
        split_id(noted.split),
        param(noted.split),
        noted.root.map_or(ColumnData::Binary(None), hash),
        size(noted.landed),
        ColumnData::I64(noted.numbers.map(|(first, _)| first)),
        ColumnData::I64(noted.numbers.map(|(_, last)| last)),
        size(noted.quarantined),
        size(place.landing.node_epoch),
        param(place.landing.job.as_str()),
        param(&target),
        ColumnData::String(noted.published.map(Into::into)),
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

fn hash(root: [u8; 32]) -> ColumnData<'static> {
    ColumnData::Binary(Some(root.to_vec().into()))
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
