//! Front-end tables in SQLite files. The file is locked while flags are set, so that a row is looked at and marked in one
//! piece. A row's version is the text of all of its values.

use super::columns::{self, Column};
use super::{Faults, open, quote};
use crate::charset::Charset;
use crate::front::{self, FrontPlan, FrontRow, FrontSpec, FrontTable, Part};
use posthouse_protocol::problem::Problem;
use rusqlite::types::Value as Bound;
use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior, params_from_iter};

pub(super) struct SqliteFront {
    faults: Faults,
    spec: FrontSpec,
    charset: Charset,
}

/// The table as it stands.
struct Found {
    columns: Vec<Column>,
    row: Vec<String>,
}

impl SqliteFront {
    pub(super) fn new(faults: Faults, spec: &FrontSpec, charset: Charset) -> Result<Self, Problem> {
        let is_plain = spec.from.is_ascii() && spec.to.is_ascii();
        if !charset.is_utf8() && !is_plain {
            let cause =
                "the values of its flag are compared as they are written, and the file's texts are in another charset";
            return Err(front::unfit(&spec.resource, cause));
        }
        Ok(Self { faults, spec: spec.clone(), charset })
    }

    fn open(&self) -> Result<Connection, Problem> {
        let connection = open(&self.faults, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.execute_batch("PRAGMA synchronous = FULL").map_err(|e| self.sql(&e))?;
        Ok(connection)
    }
    fn sql(&self, error: &rusqlite::Error) -> Problem {
        match super::is_lost(error) {
            true => self.faults.connection(error),
            false => front::unfit(&self.spec.resource, error),
        }
    }
    fn table(&self) -> String {
        quote(&self.spec.table)
    }

    fn find(&self, connection: &Connection) -> Result<Found, Problem> {
        let (spec, sql) = (&self.spec, |e: rusqlite::Error| self.sql(&e));
        let unfit = |cause: String| front::unfit(&spec.resource, cause);
        let is_table = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?1 COLLATE NOCASE";
        if connection.query_row(is_table, [&spec.table], |row| row.get::<_, i64>(0)).map_err(sql)? == 0 {
            return Err(unfit(format!("there is no table `{}`", spec.table)));
        }
        let columns = columns::of_table(connection, &spec.table).map_err(sql)?.unwrap_or_default();
        let mut primary: Vec<&Column> = columns.iter().filter(|column| column.key_place > 0).collect();
        primary.sort_by_key(|column| column.key_place);
        let primary: Vec<String> = primary.into_iter().map(|column| column.name.clone()).collect();
        let unique = unique(connection, &spec.table).map_err(sql)?;
        let takes_null = |name: &str| columns.iter().find(|column| column.name == name).map(|column| !column.not_null);
        let row = front::row_key(spec, &primary, &unique, takes_null)?;
        Ok(Found { columns, row })
    }

    /// What rows `t` are, but for their flag.
    fn version(&self, found: &Found) -> String {
        let beside = found.columns.iter().filter(|column| column.name != self.spec.flag);
        let parts: Vec<String> = beside.map(|column| format!("quote(t.{})", quote(&column.name))).collect();
        let some = |parts: &[String]| format!("concat_ws(',', {})", parts.join(", "));
        let all = parts.chunks(ARGUMENTS).map(some).collect::<Vec<_>>().join(" || ',' || ");
        // As digits it is the same text in every charset.
        format!("CAST(hex({}) AS TEXT)", if all.is_empty() { "''" } else { all.as_str() })
    }

    /// What holds for the one row, with the flag's value last.
    fn one(found: &Found, flag: &str) -> String {
        let parts = found.row.iter().enumerate().map(|(at, name)| format!("t.{} = ?{}", quote(name), at + 1));
        let flag = format!("t.{} = ?{}", quote(flag), found.row.len() + 1);
        parts.chain([flag]).collect::<Vec<_>>().join(" AND ")
    }

    fn bound(&self, row: &FrontRow, flag: &str) -> Result<Vec<Bound>, Problem> {
        let part = |part: &Part| match part {
            Part::Integer(value) => Ok(Bound::Integer(*value)),
            Part::Digits(digits) => Ok(Bound::Text(digits.clone())),
            Part::Text(text) if self.charset.is_utf8() || text.is_ascii() => Ok(Bound::Text(text.clone())),
            Part::Text(_) => {
                let cause = "what tells its rows apart has texts beyond ASCII, in another charset than UTF-8";
                Err(front::unfit(&self.spec.resource, cause))
            }
        };
        let flag = Bound::Text(flag.to_owned());
        row.row.iter().map(part).chain([Ok(flag)]).collect()
    }

    /// Does `change` to each row that bears `flag` and is as it was, in one transaction; to how many.
    fn each(&self, rows: &[FrontRow], flag: &str, change: &dyn Fn(&Found) -> String) -> Result<u64, Problem> {
        let mut connection = self.open()?;
        let sql = |e: rusqlite::Error| self.sql(&e);
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sql)?;
        let found = self.find(&tx)?;
        let (version, one) = (self.version(&found), Self::one(&found, &self.spec.flag));
        let mut changed = 0;
        {
            let select = format!("SELECT {version} FROM {} AS t WHERE {one}", self.table());
            let mut select = tx.prepare(&select).map_err(sql)?;
            let mut change = tx.prepare(&format!("{} WHERE {one}", change(&found))).map_err(sql)?;
            for row in rows {
                if row.row.len() != found.row.len() {
                    // Another key tells them apart since they were read.
                    continue;
                }
                let bound = self.bound(row, flag)?;
                let now: Option<String> =
                    select.query_row(params_from_iter(&bound), |row| row.get(0)).optional().map_err(sql)?;
                if now.is_some_and(|now| front::version_of(&now) == row.version) {
                    changed += change.execute(params_from_iter(&bound)).map_err(sql)? as u64;
                }
            }
        }
        tx.commit().map_err(sql)?;
        Ok(changed)
    }
}

impl FrontTable for SqliteFront {
    fn plan(&mut self) -> Result<FrontPlan, Problem> {
        let connection = self.open()?;
        let found = self.find(&connection)?;
        if connection.is_readonly("main").map_err(|e| self.sql(&e))? {
            return Err(front::unfit(&self.spec.resource, "the file may not be written, and its flags are set there"));
        }
        let columns = found.columns.iter().map(|column| column.name.clone()).collect();
        let words = [self.version(&found), format!("'{}'", self.spec.from)];
        Ok(FrontPlan::unread(&self.spec, &self.table(), quote, words, columns, found.row))
    }

    fn mark(&mut self, rows: &mut [FrontRow]) -> Result<u64, Problem> {
        let set = format!("UPDATE {} AS t SET {} = '{}'", self.table(), quote(&self.spec.flag), self.spec.to);
        self.each(rows, &self.spec.from, &|_| set.clone())
    }

    fn purge(&mut self, rows: &[FrontRow]) -> Result<u64, Problem> {
        let delete = format!("DELETE FROM {} AS t", self.table());
        self.each(rows, &self.spec.to, &|_| delete.clone())
    }
}

/// The columns of each unique index over all rows.
fn unique(connection: &Connection, table: &str) -> rusqlite::Result<Vec<Vec<String>>> {
    let list = "SELECT name FROM pragma_index_list(?1) WHERE \"unique\" = 1 AND partial = 0 ORDER BY seq";
    let mut indexes = connection.prepare(list)?;
    let names: Vec<String> = indexes.query_map([table], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    let mut found = Vec::new();
    for name in names {
        let mut columns = connection.prepare("SELECT name FROM pragma_index_info(?1) ORDER BY seqno")?;
        let columns: Vec<Option<String>> =
            columns.query_map([name], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        // An expression has no name.
        found.extend(columns.into_iter().collect::<Option<Vec<_>>>());
    }
    Ok(found)
}

/// Arguments that a function takes in any build.
const ARGUMENTS: usize = 100;
