//! The staging table of one transfer, and the two tables beside it: `posthouse_applied` says which splits are
//! staged and whether the transfer is published, `posthouse_quarantine` keeps rows the target refused. A split's
//! rows, its bad rows and its applied row are one transaction: a kill in between leaves none of them. Of a mirror the keys
//! of bad rows are in that transaction too, in a table of their own: what stands with such a key is not gone.

use super::columns::{self, Affinity};
use super::{Faults, quote, quoted, values};
use crate::charset::Charset;
use crate::{Applied, BadRow, Landing, Published, SplitLanded};
use posthouse_protocol::batch::Batch;
use posthouse_protocol::job::Write;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::schema::ContractType;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction};

/// Names and shapes of one transfer's staging.
pub(super) struct Staging {
    pub(super) name: String,
    /// The column that numbers its rows: the key itself where that is one integer.
    pub(super) number: String,
    /// All columns of the contract, quoted, in order.
    pub(super) columns: String,
    /// The same, and what each row does where that is said.
    staged: String,
    /// The column that says it, quoted.
    pub(super) operation: Option<String>,
    keyed_by_number: bool,
    /// Where the keys of refused rows are, as a mirror needs them.
    pub(super) refused: Option<String>,
    /// Of the target's texts, and of those that are staged for it.
    pub(super) charset: Charset,
}

impl Staging {
    pub(super) fn new(landing: &Landing, charset: Charset) -> Self {
        let contract = &landing.contract;
        let keyed_by_number = matches!(
            contract.key_positions().as_slice(),
            [only] if contract.items.get(*only).is_some_and(|item| item.r#type == ContractType::Integer)
        );
        let number = match contract.key.as_slice() {
            [only] if keyed_by_number => quote(only),
            _ => NUMBER.to_owned(),
        };
        let beside = |what: &str| quote(&format!("posthouse_{what}_{}", landing.transfer.as_str().replace('-', "_")));
        Self {
            name: beside("staging"),
            refused: (landing.write == Write::Mirror).then(|| beside("refused")),
            number,
            columns: quoted(contract.items.iter().map(|item| item.name.as_str())),
            staged: quoted(landing.staged().items.iter().map(|item| item.name.as_str())),
            operation: landing.operation.as_deref().map(quote),
            keyed_by_number,
            charset,
        }
    }

    /// Columns have no type here: values keep the form they were given, the target's types apply on publishing.
    pub(super) fn create(&self, landing: &Landing) -> String {
        let mut create = self.create_rows(landing);
        if let Some(refused) = &self.refused {
            let key = quoted(landing.contract.key.iter().map(String::as_str));
            // By an index of a column without a type no whole number of the target is found.
            let columns = match self.keyed_by_number {
                true => format!("{key} INTEGER PRIMARY KEY"),
                false => format!("{key}, UNIQUE ({key})"),
            };
            create.push_str(&format!("; CREATE TABLE IF NOT EXISTS {refused} ({columns})"));
        }
        create
    }

    pub(super) fn drop(&self) -> String {
        let tables = std::iter::once(&self.name).chain(&self.refused);
        tables.map(|table| format!("DROP TABLE IF EXISTS {table};")).collect()
    }

    fn create_rows(&self, landing: &Landing) -> String {
        let contract = &landing.contract;
        let unique = match contract.key.as_slice() {
            [] => String::new(),
            key => format!(", UNIQUE ({})", quoted(key.iter().map(String::as_str))),
        };
        if !self.keyed_by_number {
            return format!(
                "CREATE TABLE IF NOT EXISTS {} ({NUMBER} INTEGER PRIMARY KEY, {}{unique})",
                self.name, self.staged
            );
        }
        let column = |item: &posthouse_protocol::schema::Item| {
            let name = quote(&item.name);
            if name == self.number { format!("{name} INTEGER PRIMARY KEY") } else { name }
        };
        let list = landing.staged().items.iter().map(column).collect::<Vec<_>>().join(", ");
        format!("CREATE TABLE IF NOT EXISTS {} ({list})", self.name)
    }

    /// Stages one split; one that is staged already is left as it is and its outcome told again.
    pub(super) fn stage(
        &self,
        tx: &Transaction<'_>,
        landing: &Landing,
        split: &str,
        root: [u8; 32],
        batches: &mut dyn Iterator<Item = Result<arrow::record_batch::RecordBatch, Problem>>,
        faults: &Faults,
    ) -> Result<SplitLanded, Problem> {
        let sql = |e: rusqlite::Error| faults.write(&landing.table, &e);
        if let Some(applied) = applied(tx, landing).map_err(sql)?.into_iter().find(|applied| applied.split == split) {
            let bad = quarantined(tx, landing, split).map_err(sql)?;
            return Ok(SplitLanded { landed: applied.landed, bad });
        }
        let affinities = affinities(tx, landing).map_err(sql)?;
        let contract = landing.staged();
        let places = vec!["?"; contract.items.len()].join(", ");
        let insert = format!("INSERT INTO {} ({}) VALUES ({places})", self.name, self.staged);
        let mut insert = tx.prepare(&insert).map_err(sql)?;
        let mut mark = self.mark(tx, landing).map_err(sql)?;
        let mut result = SplitLanded::default();
        let mut scratch = values::Scratch::default();
        for batch in batches {
            let batch = Batch::new(&contract, batch?)?;
            for row in 0..batch.rows() {
                let refused = |reason: String| BadRow { key: batch.key_text(row), reason, original: batch.json(row) };
                if let Some(reason) =
                    bind(&mut insert, &batch, row, &affinities, self.charset, &mut scratch).map_err(sql)?
                {
                    result.bad.push(refused(reason));
                } else {
                    match insert.raw_execute() {
                        Ok(_) => {
                            result.landed += 1;
                            continue;
                        }
                        Err(e) if is_refusal(&e) => {
                            result.bad.push(refused("its key came in this transfer already".to_owned()));
                        }
                        Err(e) => return Err(sql(e)),
                    }
                }
                if let Some(mark) = &mut mark {
                    keep_key(mark, &batch, row, &affinities, self.charset, &mut scratch).map_err(sql)?;
                }
            }
        }
        keep_bad_rows(tx, landing, split, &result.bad).map_err(sql)?;
        let note = "INSERT INTO posthouse_applied (transfer, split, root, landed, quarantined, node_epoch) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let counts = (result.landed as i64, result.bad.len() as i64, landing.node_epoch as i64);
        tx.execute(note, (landing.transfer.as_str(), split, root, counts.0, counts.1, counts.2)).map_err(sql)?;
        Ok(result)
    }

    /// Inserts the key of a refused row.
    fn mark<'t>(
        &self,
        tx: &'t Transaction<'_>,
        landing: &Landing,
    ) -> rusqlite::Result<Option<rusqlite::Statement<'t>>> {
        let Some(refused) = &self.refused else { return Ok(None) };
        let places = vec!["?"; landing.contract.key.len()].join(", ");
        tx.prepare(&format!("INSERT OR IGNORE INTO {refused} VALUES ({places})")).map(Some)
    }
}

/// Keeps the key of a row that is refused. One without a form in its columns is that of no row of the table.
fn keep_key(
    mark: &mut rusqlite::Statement<'_>,
    batch: &Batch,
    row: usize,
    affinities: &[Affinity],
    charset: Charset,
    scratch: &mut values::Scratch,
) -> rusqlite::Result<()> {
    for (place, index) in batch.key().iter().enumerate() {
        let affinity = affinities.get(*index).copied().unwrap_or(Affinity::Blob);
        let value = batch.value(*index, row);
        match values::write(value, affinity, charset, scratch) {
            Ok(bound) if !value.is_null() => mark.raw_bind_parameter(place + 1, bound)?,
            _ => return Ok(()),
        }
    }
    match mark.raw_execute() {
        // As long as its row was: no key of the table is.
        Err(e) if !is_refusal(&e) => Err(e),
        _ => Ok(()),
    }
}

/// Binds one row; tells why where a value has no form in its column.
fn bind(
    insert: &mut rusqlite::Statement<'_>,
    batch: &Batch,
    row: usize,
    affinities: &[Affinity],
    charset: Charset,
    scratch: &mut values::Scratch,
) -> rusqlite::Result<Option<String>> {
    for (index, column) in batch.columns().iter().enumerate() {
        let value = column.value(row);
        if value.is_null() && batch.key().contains(&index) {
            return Ok(Some("a part of its key is NULL".to_owned()));
        }
        let affinity = affinities.get(index).copied().unwrap_or(Affinity::Blob);
        match values::write(value, affinity, charset, scratch) {
            Ok(bound) => insert.raw_bind_parameter(index + 1, bound)?,
            Err(why) => {
                let schema = batch.record().schema();
                let name = schema.fields().get(index).map_or("", |field| field.name().as_str());
                return Ok(Some(format!("`{name}`: {why}")));
            }
        }
    }
    Ok(None)
}

/// How the target keeps each of the contract's columns.
fn affinities(connection: &Connection, landing: &Landing) -> rusqlite::Result<Vec<Affinity>> {
    let columns = columns::of_table(connection, &landing.table)?.unwrap_or_default();
    let of = |name: &str| columns.iter().find(|column| column.name == name).map(|column| column.declared.as_str());
    Ok(landing.contract.items.iter().map(|item| columns::affinity(of(&item.name).unwrap_or(""))).collect())
}

/// A row refused by a constraint, as told apart from a file that cannot be written.
pub(super) fn is_refusal(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig)
    )
}

/// The tables that stand beside the target, made where they are missing.
pub(super) const CONTROL: &str = "
CREATE TABLE IF NOT EXISTS posthouse_applied (
  transfer TEXT NOT NULL,
  split TEXT NOT NULL,
  root BLOB,
  landed INTEGER NOT NULL,
  quarantined INTEGER NOT NULL,
  node_epoch INTEGER NOT NULL,
  job TEXT,
  target TEXT,
  published TEXT,
  PRIMARY KEY (transfer, split)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS posthouse_quarantine (
  transfer TEXT NOT NULL,
  job TEXT NOT NULL,
  target TEXT NOT NULL,
  split TEXT NOT NULL,
  key TEXT NOT NULL,
  reason TEXT NOT NULL,
  original TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS posthouse_quarantine_transfer ON posthouse_quarantine (transfer, split);
";

pub(super) fn has_control(connection: &Connection) -> rusqlite::Result<bool> {
    connection
        .query_row("SELECT count(*) = 1 FROM sqlite_schema WHERE name = 'posthouse_applied'", [], |row| row.get(0))
}

/// Splits of this transfer that are staged.
pub(super) fn applied(connection: &Connection, landing: &Landing) -> rusqlite::Result<Vec<Applied>> {
    let sql =
        "SELECT split, root, landed, quarantined FROM posthouse_applied WHERE transfer = ?1 AND published IS NULL";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([landing.transfer.as_str()], |row| {
        let count = |index| row.get::<_, i64>(index).map(|count| count as u64);
        Ok(Applied { split: row.get(0)?, root: row.get(1)?, landed: count(2)?, quarantined: count(3)? })
    })?;
    rows.collect()
}

/// What publishing this transfer did, where it was done.
pub(super) fn published(connection: &Connection, landing: &Landing) -> rusqlite::Result<Option<Published>> {
    let sql = "SELECT published FROM posthouse_applied WHERE transfer = ?1 AND published IS NOT NULL";
    let text: Option<String> = connection.query_row(sql, [landing.transfer.as_str()], |row| row.get(0)).optional()?;
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
}

/// Refuses to write for a copy of this node that was started before another one.
pub(super) fn check_epoch(connection: &Connection, landing: &Landing) -> rusqlite::Result<Result<(), Problem>> {
    let sql = "SELECT max(node_epoch) FROM posthouse_applied WHERE transfer = ?1";
    let epoch: Option<i64> = connection.query_row(sql, [landing.transfer.as_str()], |row| row.get(0))?;
    Ok(match epoch {
        Some(epoch) if epoch as u64 > landing.node_epoch => {
            let cause = format!("the transfer was continued under epoch {epoch}, this is epoch {}", landing.node_epoch);
            Err(Problem::new(Code::Fenced).cause(cause))
        }
        _ => Ok(()),
    })
}

pub(super) fn keep_bad_rows(
    tx: &Transaction<'_>,
    landing: &Landing,
    split: &str,
    bad: &[BadRow],
) -> rusqlite::Result<()> {
    let sql = "INSERT INTO posthouse_quarantine (transfer, job, target, split, key, reason, original) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let mut insert = tx.prepare_cached(sql)?;
    for row in bad {
        let (transfer, job) = (landing.transfer.as_str(), landing.job.as_str());
        insert.execute((transfer, job, &landing.table, split, &row.key, &row.reason, &row.original))?;
    }
    Ok(())
}

/// The refused rows of a split; of none, those that were refused on publishing.
pub(super) fn quarantined(connection: &Connection, landing: &Landing, split: &str) -> rusqlite::Result<Vec<BadRow>> {
    let sql =
        "SELECT key, reason, original FROM posthouse_quarantine WHERE transfer = ?1 AND split = ?2 ORDER BY rowid";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map((landing.transfer.as_str(), split), |row| {
        Ok(BadRow { key: row.get(0)?, reason: row.get(1)?, original: row.get(2)? })
    })?;
    rows.collect()
}

/// No column of a contract is expected to have this name; one that has makes `prepare` fail, not the data.
const NUMBER: &str = "posthouse_number";
