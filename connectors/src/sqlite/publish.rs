//! From staging to target, within the one transaction that also leaves the transfer's id. Rows go over set by
//! set; where a constraint of the target refuses a set, it is halved until the refused rows stand alone, and
//! those go to `posthouse_quarantine` with the database's own reason. A row that is there already changes nothing.

use super::staging::{self, Staging};
use super::{Faults, quote, quoted};
use crate::publishing::{BAD_ROWS_MAX, RefusedMax, check_mirror};
use crate::{BadRow, Landing, Published, Publishing};
use posthouse_protocol::job::Write;
use posthouse_protocol::operation::Operation;
use posthouse_protocol::problem::{Code, Problem};
use rusqlite::Transaction;

pub(super) fn publish(
    tx: &Transaction<'_>,
    landing: &Landing,
    staging: &Staging,
    how: &Publishing,
    faults: &Faults,
) -> Result<Published, Problem> {
    let sql = |e: rusqlite::Error| faults.write(&landing.table, &e);
    let run = Run { tx, landing, staging, target: quote(&landing.table) };
    let before = run.count(&run.target).map_err(sql)?;
    let staged = run.count(&staging.name).map_err(sql)?;
    let mut result = Published::default();
    let mut changed = 0;
    let mut bad = Vec::new();
    match landing.write {
        Write::Append if !landing.contract.key.is_empty() => {
            bad = run.take_contradictions().map_err(sql)?;
            let keep = format!("ON CONFLICT ({}) DO NOTHING", run.key());
            changed += run.insert(&keep, &mut bad).map_err(sql)?;
        }
        Write::Append if landing.watermark_column.is_some() => {
            run.drop_overlap().map_err(sql)?;
            changed += run.insert("", &mut bad).map_err(sql)?;
        }
        Write::Append => changed += run.insert("", &mut bad).map_err(sql)?,
        Write::Upsert => {
            result.deleted = run.take_deletes().map_err(sql)?;
            changed += run.insert(&run.update(), &mut bad).map_err(sql)?;
        }
        Write::Replace => {
            let broken = run.broken_references().map_err(sql)?;
            result.deleted = tx.execute(&format!("DELETE FROM {}", run.target), []).map_err(sql)? as u64;
            changed += run.insert("", &mut bad).map_err(sql)?;
            if run.broken_references().map_err(sql)? > broken {
                let cause = "rows that foreign keys refer to would be gone; use upsert or mirror, or land what refers to them too";
                return Err(Problem::new(Code::DestinationFailed).with("target", &landing.table).cause(cause));
            }
        }
        Write::Mirror => {
            match how.held_back {
                0 => result.deleted = run.delete_absent(before)?.map_err(sql)?,
                _ => result.kept = run.count_absent().map_err(sql)?,
            }
            changed += run.insert(&run.update(), &mut bad).map_err(sql)?;
        }
    }
    RefusedMax::new(how.refused_max).check(&landing.table, bad.len(), bad.first())?;
    let after = run.count(&run.target).map_err(sql)?;
    staging::keep_bad_rows(tx, landing, "", &bad).map_err(sql)?;
    result.quarantined = bad.len() as u64;
    result.rows = staged - result.quarantined.min(staged);
    result.inserted = (after + result.deleted).saturating_sub(before);
    result.updated = changed.saturating_sub(result.inserted);
    run.leave(&result).map_err(sql)?;
    Ok(result)
}

struct Run<'a> {
    tx: &'a Transaction<'a>,
    landing: &'a Landing,
    staging: &'a Staging,
    target: String,
}

impl Run<'_> {
    fn count(&self, table: &str) -> rusqlite::Result<u64> {
        super::count(self.tx, &format!("SELECT count(*) FROM {table}"))
    }
    fn key(&self) -> String {
        quoted(self.landing.contract.key.iter().map(String::as_str))
    }
    fn beside_key(&self) -> Vec<String> {
        let contract = &self.landing.contract;
        contract.items.iter().filter(|item| !contract.key.contains(&item.name)).map(|item| quote(&item.name)).collect()
    }
    /// Rows that break a foreign key to or of the target. References are not enforced while all rows give way to
    /// new ones, for deleting would take the rows of other tables along.
    fn broken_references(&self) -> rusqlite::Result<u64> {
        let referring = "SELECT DISTINCT m.name FROM sqlite_schema m JOIN pragma_foreign_key_list(m.name) f
                         WHERE m.type = 'table' AND (f.\"table\" = ?1 COLLATE NOCASE OR m.name = ?1 COLLATE NOCASE)";
        let mut statement = self.tx.prepare(referring)?;
        let tables = statement.query_map([&self.landing.table], |row| row.get::<_, String>(0))?;
        let check = "SELECT count(*) FROM pragma_foreign_key_check(?1)";
        let mut broken = 0;
        for table in tables {
            broken += self.tx.query_row(check, [table?], |row| row.get::<_, i64>(0))?.unsigned_abs();
        }
        Ok(broken)
    }

    /// Rows of `s` and `t` with the same key.
    fn same_key(&self) -> String {
        let key = self.landing.contract.key.iter().map(|name| quote(name));
        key.map(|name| format!("s.{name} = t.{name}")).collect::<Vec<_>>().join(" AND ")
    }

    /// What happens to a row whose key is there: it changes where anything differs.
    fn update(&self) -> String {
        let names = self.beside_key();
        if names.is_empty() {
            return format!("ON CONFLICT ({}) DO NOTHING", self.key());
        }
        let set = names.iter().map(|name| format!("{name} = excluded.{name}")).collect::<Vec<_>>().join(", ");
        let (here, there) = (vector(&self.target, &names), vector("excluded", &names));
        format!("ON CONFLICT ({}) DO UPDATE SET {set} WHERE {here} IS NOT {there}", self.key())
    }

    /// Inserts all staged rows and says how many rows of the target came or changed.
    fn insert(&self, conflict: &str, bad: &mut Vec<BadRow>) -> rusqlite::Result<u64> {
        let (columns, number, from) = (&self.staging.columns, &self.staging.number, &self.staging.name);
        let sql = format!(
            // Not by what a column's own conflict clause says: a row it would drop without a word is a bad row.
            "INSERT OR ABORT INTO {} ({columns}) SELECT {columns} FROM {from} WHERE {number} BETWEEN ?1 AND ?2 ORDER BY {number} {conflict}",
            self.target
        );
        let mut insert = self.tx.prepare(&sql)?;
        let bounds = format!("SELECT (SELECT min({number}) FROM {from}), (SELECT max({number}) FROM {from})");
        let (Some(first), Some(last)) =
            self.tx.query_row(&bounds, [], |row| Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<i64>>(1)?)))?
        else {
            return Ok(0);
        };
        let mut changed = 0;
        let mut left = vec![(first, last)];
        while let Some((first, last)) = left.pop() {
            if bad.len() > BAD_ROWS_MAX {
                break;
            }
            match insert.execute((first, last)) {
                Ok(rows) => changed += rows as u64,
                Err(e) if staging::is_refusal(&e) && first == last => bad.push(self.bad_row(first, &e.to_string())?),
                Err(e) if staging::is_refusal(&e) => {
                    let middle = (i128::from(first) + i128::from(last)).div_euclid(2) as i64;
                    left.push((middle + 1, last));
                    left.push((first, middle));
                }
                Err(e) => return Err(e),
            }
        }
        Ok(changed)
    }

    /// Deletes what staged rows say is gone, and takes them out of the staging table: what is left there is upserted. How
    /// many rows of the target went; a key that was not there is none.
    fn take_deletes(&self) -> rusqlite::Result<u64> {
        let Some(operation) = &self.staging.operation else { return Ok(0) };
        let from = &self.staging.name;
        let doomed = format!("s.{operation} = '{}' AND {}", Operation::Delete.letter(), self.same_key());
        let delete = format!("DELETE FROM {} AS t WHERE EXISTS (SELECT 1 FROM {from} s WHERE {doomed})", self.target);
        let deleted = self.tx.execute(&delete, [])?;
        let taken = format!("DELETE FROM {from} WHERE {operation} = '{}'", Operation::Delete.letter());
        self.tx.execute(&taken, [])?;
        Ok(deleted as u64)
    }

    /// Appending never changes a row: where the key is there with other contents, the staged row goes to quarantine.
    fn take_contradictions(&self) -> rusqlite::Result<Vec<BadRow>> {
        let names = self.beside_key();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let differ = format!("{} IS NOT {}", vector("s", &names), vector("t", &names));
        let (from, number) = (&self.staging.name, &self.staging.number);
        let sql = format!(
            "SELECT s.{number} FROM {from} s JOIN {} t ON {} WHERE {differ} ORDER BY 1",
            self.target,
            self.same_key()
        );
        let mut statement = self.tx.prepare(&sql)?;
        let numbers: Vec<i64> = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        let mut bad = Vec::new();
        for number in numbers {
            if bad.len() > BAD_ROWS_MAX {
                break;
            }
            bad.push(self.bad_row(number, "its key is there with other contents, and append changes nothing")?);
        }
        Ok(bad)
    }

    /// Rows without a key that were landed before and are read again: as many as stand there, equal in all columns,
    /// are not added. Only rows within the staged marks can be among them.
    fn drop_overlap(&self) -> rusqlite::Result<()> {
        let (from, number, columns) = (&self.staging.name, &self.staging.number, &self.staging.columns);
        let mark = quote(self.landing.watermark_column.as_deref().unwrap_or_default());
        let order = format!("row_number() OVER (PARTITION BY {columns}) AS posthouse_copy");
        let within = format!(
            "{mark} IS NULL OR ({mark} >= (SELECT min({mark}) FROM {from}) AND {mark} <= (SELECT max({mark}) FROM {from}))"
        );
        let mut names: Vec<String> = self.landing.contract.items.iter().map(|item| quote(&item.name)).collect();
        names.push("posthouse_copy".to_owned());
        let join = format!("{} IS {}", vector("s", &names), vector("t", &names));
        // The copies that both sides have, numbered among equal rows, are the overlap.
        let delete = format!(
            "DELETE FROM {from} WHERE {number} IN (
               SELECT s.{number} FROM (SELECT {number}, {columns}, {order} FROM {from}) s
               JOIN (SELECT {columns}, {order} FROM {} WHERE {within}) t ON {join})",
            self.target
        );
        self.tx.execute(&delete, [])?;
        Ok(())
    }

    /// What holds for rows `t` of which neither a row came, nor one that was refused.
    fn absent(&self) -> String {
        let tables = std::iter::once(&self.staging.name).chain(&self.staging.refused);
        let absent = tables.map(|table| format!("NOT EXISTS (SELECT 1 FROM {table} s WHERE {})", self.same_key()));
        absent.collect::<Vec<_>>().join(" AND ")
    }

    fn count_absent(&self) -> rusqlite::Result<u64> {
        super::count(self.tx, &format!("SELECT count(*) FROM {} t WHERE {}", self.target, self.absent()))
    }

    /// Deletes rows whose key was not handed over, unless that would be more than a tenth.
    fn delete_absent(&self, total: u64) -> Result<rusqlite::Result<u64>, Problem> {
        let count = match self.count_absent() {
            Ok(count) => count,
            Err(e) => return Ok(Err(e)),
        };
        check_mirror(count, total)?;
        let delete = format!("DELETE FROM {} AS t WHERE {}", self.target, self.absent());
        Ok(self.tx.execute(&delete, []).map(|rows| rows as u64))
    }

    /// Takes one staged row out, for quarantine.
    fn bad_row(&self, number: i64, reason: &str) -> rusqlite::Result<BadRow> {
        let items = &self.landing.contract.items;
        let names: Vec<String> = items.iter().map(|item| item.name.clone()).collect();
        let (from, column, columns) = (&self.staging.name, &self.staging.number, &self.staging.columns);
        let select = format!("SELECT {columns} FROM {from} WHERE {column} = ?1");
        let row = self.tx.query_row(&select, [number], |row| {
            let part = |position: usize| match row.get_ref(position) {
                Ok(rusqlite::types::ValueRef::Text(text)) => match self.staging.charset.decode(text) {
                    Ok(text) => text.into_owned(),
                    Err(_) => hex::encode(text),
                },
                Ok(rusqlite::types::ValueRef::Integer(value)) => value.to_string(),
                Ok(other) => format!("{other:?}"),
                Err(_) => String::new(),
            };
            let key: Vec<String> = self.landing.contract.key_positions().into_iter().map(part).collect();
            let key = if key.is_empty() { format!("row {number}") } else { key.join(",") };
            let original = super::values::original(&names, row, self.staging.charset);
            Ok(BadRow { key, reason: reason.to_owned(), original })
        })?;
        self.tx.execute(&format!("DELETE FROM {from} WHERE {column} = ?1"), [number])?;
        Ok(row)
    }

    /// The transfer's own row, and nothing else of it.
    fn leave(&self, result: &Published) -> rusqlite::Result<()> {
        let landing = self.landing;
        let text = serde_json::to_string(result).unwrap_or_default();
        let note =
            "INSERT INTO posthouse_applied (transfer, split, landed, quarantined, node_epoch, job, target, published)
                    VALUES (?1, '', ?2, ?3, ?4, ?5, ?6, ?7)";
        self.tx.execute("DELETE FROM posthouse_applied WHERE transfer = ?1", [landing.transfer.as_str()])?;
        let counts = (result.rows as i64, result.quarantined as i64, landing.node_epoch as i64);
        self.tx.execute(
            note,
            (landing.transfer.as_str(), counts.0, counts.1, counts.2, landing.job.as_str(), &landing.table, text),
        )?;
        self.tx.execute_batch(&self.staging.drop())
    }
}

/// Columns of one table as one value: however many they are, the expression is not deep.
fn vector(table: &str, names: &[String]) -> String {
    format!("({})", names.iter().map(|name| format!("{table}.{name}")).collect::<Vec<_>>().join(", "))
}
