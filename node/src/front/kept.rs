//! Rows of one front-end table whose flags are set under a receipt, until they have been kept long enough and are purged:
//! a file for each table. A row stands in it once, with what it was when its flag was set last: one whose flag somebody set
//! back, and that was receipted again, is kept from then on. Each call is a transaction of its own, and on the disk when it
//! returns.

use super::rows::{open_with, parsed, problem, text};
use posthouse_connectors::front::FrontRow;
use posthouse_protocol::problem::Problem;
use posthouse_protocol::time::Timestamp;
use rusqlite::{Connection, OpenFlags, params};
use std::path::{Path, PathBuf};

pub(super) struct Kept {
    path: PathBuf,
    connection: Connection,
}

impl Kept {
    /// The table's file, a new one where there is none.
    pub(super) fn create(path: &Path) -> Result<Self, Problem> {
        let connection = open_with(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
        connection.execute_batch(TABLE).map_err(|e| problem(path, &e))?;
        Ok(Self { path: path.to_owned(), connection })
    }

    /// None where nothing is kept.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, Problem> {
        // One that cannot be looked at is not gone: its rows would never be purged.
        match path.try_exists().map_err(|e| crate::seal::storage(path, &e))? {
            true => Self::create(path).map(Some),
            false => Ok(None),
        }
    }

    /// Their flags were set at that time, and they were left so.
    pub(super) fn keep(&mut self, rows: &[FrontRow], at: Timestamp) -> Result<(), Problem> {
        let texts = rows.iter().map(|row| text(&row.row)).collect::<Result<Vec<_>, _>>()?;
        let Self { connection, path } = self;
        let mut write = || -> rusqlite::Result<()> {
            let tx = connection.transaction()?;
            {
                let mut insert = tx.prepare_cached(
                    "INSERT INTO kept (row, version, at) VALUES (?1, ?2, ?3) ON CONFLICT (row) DO UPDATE
                     SET version = excluded.version, at = excluded.at WHERE excluded.at >= kept.at",
                )?;
                for (row, text) in rows.iter().zip(&texts) {
                    insert.execute(params![text, row.version, at.0])?;
                }
            }
            tx.commit()
        };
        write().map_err(|e| problem(path, &e))
    }

    /// Those whose flags were set at this time or before, the oldest first.
    pub(super) fn due(&self, until: Timestamp, most: usize) -> Result<Vec<FrontRow>, Problem> {
        let read = || -> rusqlite::Result<Vec<(String, String)>> {
            let sql = "SELECT row, version FROM kept WHERE at <= ?1 ORDER BY at LIMIT ?2";
            let mut select = self.connection.prepare_cached(sql)?;
            let most = i64::try_from(most).unwrap_or(i64::MAX);
            select.query_map(params![until.0, most], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        };
        let found = read().map_err(|e| problem(&self.path, &e))?;
        let row = |(row, version): (String, String)| -> Result<FrontRow, Problem> {
            Ok(FrontRow { row: parsed(&row)?, version })
        };
        found.into_iter().map(row).collect()
    }

    /// They are purged, or were changed since and are nobody's to purge.
    pub(super) fn forget(&mut self, rows: &[FrontRow]) -> Result<(), Problem> {
        let texts = rows.iter().map(|row| text(&row.row)).collect::<Result<Vec<_>, _>>()?;
        let Self { connection, path } = self;
        let mut write = || -> rusqlite::Result<()> {
            let tx = connection.transaction()?;
            {
                let mut delete = tx.prepare_cached("DELETE FROM kept WHERE row = ?1")?;
                for text in &texts {
                    delete.execute([text])?;
                }
            }
            tx.commit()
        };
        write().map_err(|e| problem(path, &e))
    }

    pub(super) fn is_empty(&self) -> Result<bool, Problem> {
        let sql = "SELECT NOT EXISTS (SELECT 1 FROM kept)";
        self.connection.query_row(sql, [], |row| row.get(0)).map_err(|e| problem(&self.path, &e))
    }
}

const TABLE: &str = "
CREATE TABLE IF NOT EXISTS kept (row TEXT PRIMARY KEY, version TEXT NOT NULL, at INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS kept_by_time ON kept (at);
";

#[cfg(test)]
mod tests {
    use super::*;
    use posthouse_connectors::front::Part;

    #[test]
    fn a_row_is_kept_from_when_its_flag_was_set_last() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("permits.kept");
        assert!(Kept::open(&path).unwrap().is_none());
        let row = |number: i64, version: &str| FrontRow {
            row: vec![Part::Integer(number), Part::Text("字".to_owned())],
            version: version.to_owned(),
        };
        let mut kept = Kept::create(&path).unwrap();
        kept.keep(&[row(1, "a"), row(2, "b"), row(3, "c")], Timestamp(100)).unwrap();
        // Somebody has set the flags of two of them back, and one of these is another row now.
        kept.keep(&[row(1, "a"), row(2, "later")], Timestamp(500)).unwrap();
        // What is told late does not count.
        kept.keep(&[row(2, "b")], Timestamp(300)).unwrap();
        drop(kept);
        let mut kept = Kept::open(&path).unwrap().unwrap();
        assert!(kept.due(Timestamp(99), 10).unwrap().is_empty());
        assert_eq!(kept.due(Timestamp(499), 10).unwrap(), [row(3, "c")]);
        kept.forget(&[row(3, "c")]).unwrap();
        assert_eq!(kept.due(Timestamp(500), 1).unwrap().len(), 1);
        let mut due = kept.due(Timestamp(500), 10).unwrap();
        due.sort_by(|one, other| one.row.cmp(&other.row));
        assert_eq!(due, [row(1, "a"), row(2, "later")]);
        assert!(!kept.is_empty().unwrap());
        kept.forget(&due).unwrap();
        assert!(kept.is_empty().unwrap());
    }
}
