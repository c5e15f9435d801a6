//! Looks whether a file can be read and landed in: whose it is, how its journal is kept, what its texts are. There are
//! no accounts, so that rights are those on the file and, where rows land, on its folder.

use super::columns::{self, Affinity};
use super::{Faults, open, quote};
use crate::charset::Charset;
use crate::examine::{Finding, Grade, ROWS_LOOKED_AT, Reading, Topic, VALUES_MAX};
use posthouse_protocol::problem::Problem;
use rusqlite::{Connection, OpenFlags};
use rustix::fs::{Access, access};

/// `lands`: rows land there, in whichever table.
pub(super) fn examine(
    faults: &Faults,
    charset: Charset,
    reads: &[Reading],
    lands: bool,
) -> Result<Vec<Finding>, Problem> {
    let mut found = Vec::new();
    let file = faults.path.display().to_string();
    if lands {
        // The journal stands beside the file.
        let folder = faults.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        for place in [Some(faults.path.as_path()).filter(|path| path.exists()), folder].into_iter().flatten() {
            let may_write = access(place, Access::WRITE_OK).is_ok();
            let fix = format!("chmod u+w {}", place.display());
            found.push(Finding::right(place.display(), "write", may_write, fix));
        }
        if !faults.path.exists() && reads.is_empty() {
            found.push(Finding::to_be_made(file));
            return Ok(found);
        }
    }
    let connection = open(faults, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let failed = |error| faults.read(error);
    let text = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, String>(0)).map_err(failed);
    let journal = text("PRAGMA journal_mode")?;
    let (en, zh) = match journal.as_str() {
        "wal" => ("readers and the writer do not wait for each other", "读写互不等待"),
        _ => ("a reader and the writer wait for each other", "读取与写入互相等待"),
    };
    let (en, zh) = (format!("{journal}: {en}"), format!("{journal}：{zh}"));
    let grade = if journal == "wal" { Grade::Well } else { Grade::Note };
    let finding = Finding::new(Topic::Settings, grade, "journal_mode", en, zh);
    found.push(if grade == Grade::Note { finding.fix("PRAGMA journal_mode = WAL;") } else { finding });
    let encoding = text("PRAGMA encoding")?;
    found.push(Finding::new(Topic::Charset, Grade::Well, "encoding", encoding.clone(), encoding));
    for table in reads.iter().filter_map(|read| read.spec.table.as_deref()) {
        match columns::of_table(&connection, table).map_err(failed)? {
            None => found.push(Finding::absent(table)),
            Some(columns) => {
                found.push(Finding::right(table, "read", true, String::new()));
                let texts = columns.iter().filter(|column| columns::affinity(&column.declared) == Affinity::Text);
                for column in texts {
                    let values = values(&connection, table, &column.name).map_err(failed)?;
                    found.extend(Finding::texts(&format!("{table}.{}", column.name), &values, charset));
                }
            }
        }
    }
    Ok(found)
}

/// A few of a column's texts beyond ASCII as their bytes, of its first rows.
fn values(connection: &Connection, table: &str, column: &str) -> rusqlite::Result<Vec<Vec<u8>>> {
    let (table, column) = (quote(table), quote(column));
    let sql = format!(
        "SELECT CAST(s.v AS BLOB) FROM (SELECT {column} AS v FROM {table} LIMIT {ROWS_LOOKED_AT}) s
         WHERE typeof(s.v) = 'text'"
    );
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query([])?;
    let mut values: Vec<Vec<u8>> = Vec::new();
    while let Some(row) = rows.next()? {
        let value: Vec<u8> = row.get(0)?;
        if !value.is_ascii() {
            values.push(value);
        }
        if values.len() >= VALUES_MAX as usize {
            break;
        }
    }
    Ok(values)
}
