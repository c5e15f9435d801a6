//! What was read of a front-end table, in a file: each unread row by what tells it apart, with what it was, and whether it
//! left. A table of any size is remembered so in bounded memory, across restarts, until its flags are written back; what is
//! to be purged later is [`super::kept`] then. Each call is a transaction of its own, and on the disk when it returns.

use posthouse_connectors::front::{FrontRow, Part};
use posthouse_protocol::operation::Operation;
use posthouse_protocol::problem::{Code, Problem};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params};
use std::path::{Path, PathBuf};

pub(crate) struct FrontRows {
    path: PathBuf,
    connection: Connection,
}

/// A row as it is noted.
pub(crate) struct Noted {
    pub row: FrontRow,
    /// None: a part of its key is NULL.
    pub key: Option<Vec<u8>>,
    /// Of two rows of one key the one that has more of this is the later.
    pub order: Vec<u8>,
    /// None: its word is none of the three.
    pub operation: Option<Operation>,
}

/// What becomes of an unread row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is the last of its key, and leaves under this number.
    Leaves(i64, Operation),
    /// A later row of its key says more.
    Overtaken,
    /// Nothing says which of its key's rows is the last.
    Tied,
    /// It is the last, and its word is none of the three.
    Unknown,
    Keyless,
    /// A row of its key cannot be read: nobody knows which of them is the last.
    Behind,
}

impl FrontRows {
    /// A new file; what stood there is none of this run's.
    pub(crate) fn create(path: &Path) -> Result<Self, Problem> {
        remove(path)?;
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|e| crate::seal::storage(folder, &e))?;
        }
        let connection = open_with(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
        connection.execute_batch(TABLE).map_err(|e| problem(path, &e))?;
        Ok(Self { path: path.to_owned(), connection })
    }

    /// What an earlier run of this node wrote. None where it is gone.
    pub(crate) fn open(path: &Path) -> Result<Option<Self>, Problem> {
        // One that cannot be looked at is not gone: its flags would never be set.
        if !path.try_exists().map_err(|e| crate::seal::storage(path, &e))? {
            return Ok(None);
        }
        let connection = open_with(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        Ok(Some(Self { path: path.to_owned(), connection }))
    }

    /// Forgets what was noted.
    pub(crate) fn clear(&mut self) -> Result<(), Problem> {
        let all = "DELETE FROM front; DELETE FROM unreadable";
        self.connection.execute_batch(all).map_err(|e| self.failed(&e))
    }

    pub(crate) fn note(&mut self, noted: &[Noted]) -> Result<(), Problem> {
        let texts = noted.iter().map(|noted| text(&noted.row.row)).collect::<Result<Vec<_>, _>>()?;
        let Self { connection, path } = self;
        let mut write = || -> rusqlite::Result<()> {
            let tx = connection.transaction()?;
            {
                let sql = "INSERT INTO front (row, version, key, sort, operation) VALUES (?1, ?2, ?3, ?4, ?5)";
                let mut insert = tx.prepare_cached(sql)?;
                for (noted, text) in noted.iter().zip(&texts) {
                    let Noted { row, key, order, operation } = noted;
                    insert.execute(params![text, row.version, key, order, number(*operation)])?;
                }
            }
            tx.commit()
        };
        write().map_err(|e| problem(path, &e))
    }

    /// What it takes on the disk.
    pub(crate) fn bytes(&self) -> Result<u64, Problem> {
        bytes_of(&self.path)
    }

    /// There are rows of these keys that could not be read.
    pub(crate) fn hold(&mut self, keys: &[Vec<u8>]) -> Result<(), Problem> {
        let Self { connection, path } = self;
        let mut write = || -> rusqlite::Result<()> {
            let tx = connection.transaction()?;
            {
                let mut insert = tx.prepare_cached("INSERT OR IGNORE INTO unreadable (key) VALUES (?1)")?;
                for key in keys {
                    insert.execute([key])?;
                }
            }
            tx.commit()
        };
        write().map_err(|e| problem(path, &e))
    }

    /// All is noted: says of each row what becomes of it.
    pub(crate) fn decide(&mut self) -> Result<(), Problem> {
        self.connection.execute_batch(DECIDE).map_err(|e| self.failed(&e))
    }

    /// How many rows leave.
    pub(crate) fn leaving(&self) -> Result<u64, Problem> {
        let sql = "SELECT count(*) FROM front WHERE state = 1";
        let count: i64 = self.connection.query_row(sql, [], |row| row.get(0)).map_err(|e| self.failed(&e))?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// None of a row that was not noted.
    pub(crate) fn fate(&self, row: &[Part]) -> Result<Option<Fate>, Problem> {
        let text = text(row)?;
        let find = || -> rusqlite::Result<Option<(i64, i64, i64)>> {
            let mut find =
                self.connection.prepare_cached("SELECT number, state, operation FROM front WHERE row = ?1")?;
            find.query_row([text], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()
        };
        let Some((number, state, operation)) = find().map_err(|e| self.failed(&e))? else { return Ok(None) };
        Ok(Some(match (state, operation) {
            (1, 1) => Fate::Leaves(number, Operation::Insert),
            (1, 2) => Fate::Leaves(number, Operation::Update),
            (1, _) => Fate::Leaves(number, Operation::Delete),
            (2, _) => Fate::Overtaken,
            (4, _) => Fate::Unknown,
            (5, _) => Fate::Keyless,
            (6, _) => Fate::Behind,
            _ => Fate::Tied,
        }))
    }

    /// These are in what is handed over.
    pub(crate) fn left(&mut self, numbers: &[i64]) -> Result<(), Problem> {
        let Self { connection, path } = self;
        let mut write = || -> rusqlite::Result<()> {
            let tx = connection.transaction()?;
            {
                let mut update = tx.prepare_cached("UPDATE front SET gone = 1 WHERE number = ?1")?;
                for number in numbers {
                    update.execute([number])?;
                }
            }
            tx.commit()
        };
        write().map_err(|e| problem(path, &e))
    }

    /// Rows that were handed over, and those that they have overtaken, above a number in its order.
    pub(crate) fn page(&self, above: i64, most: usize) -> Result<Vec<(i64, FrontRow)>, Problem> {
        let read = || -> rusqlite::Result<Vec<(i64, String, String)>> {
            let mut select = self.connection.prepare_cached(
                "SELECT number, row, version FROM front f WHERE number > ?1 AND state IN (1, 2)
                 AND (SELECT o.gone FROM front o WHERE o.key = f.key ORDER BY o.sort DESC LIMIT 1) = 1
                 ORDER BY number LIMIT ?2",
            )?;
            let most = i64::try_from(most).unwrap_or(i64::MAX);
            select.query_map([above, most], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect()
        };
        let found = read().map_err(|e| self.failed(&e))?;
        let row = |(number, row, version): (i64, String, String)| -> Result<(i64, FrontRow), Problem> {
            Ok((number, FrontRow { row: parsed(&row)?, version }))
        };
        found.into_iter().map(row).collect()
    }

    /// What rows are since their flag was set.
    pub(crate) fn set_versions(&mut self, versions: &[(i64, &str)]) -> Result<(), Problem> {
        let Self { connection, path } = self;
        let mut write = || -> rusqlite::Result<()> {
            let tx = connection.transaction()?;
            {
                let mut update = tx.prepare_cached("UPDATE front SET version = ?2 WHERE number = ?1")?;
                for (number, version) in versions {
                    update.execute(params![number, version])?;
                }
            }
            tx.commit()
        };
        write().map_err(|e| problem(path, &e))
    }

    fn failed(&self, error: &rusqlite::Error) -> Problem {
        problem(&self.path, error)
    }
}

/// What the file takes on the disk; nothing where there is none.
pub(crate) fn bytes_of(path: &Path) -> Result<u64, Problem> {
    match std::fs::metadata(path) {
        Ok(found) => Ok(found.len()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(e) => Err(crate::seal::storage(path, &e)),
    }
}

/// Takes the file away, and what SQLite keeps beside one that it was in the middle of.
pub(crate) fn remove(path: &Path) -> Result<(), Problem> {
    let mut journal = path.as_os_str().to_owned();
    journal.push("-journal");
    for path in [path, Path::new(&journal)] {
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(crate::seal::storage(path, &e)),
            _ => {}
        }
    }
    Ok(())
}

fn number(operation: Option<Operation>) -> i64 {
    match operation {
        None => 0,
        Some(Operation::Insert) => 1,
        Some(Operation::Update) => 2,
        Some(Operation::Delete) => 3,
    }
}

pub(super) fn open_with(path: &Path, flags: OpenFlags) -> Result<Connection, Problem> {
    let opened = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX);
    let connection = opened.map_err(|e| problem(path, &e))?;
    let set = connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA cache_size = -4096");
    set.map_err(|e| problem(path, &e))?;
    Ok(connection)
}

/// What tells a row apart, as it is kept.
pub(super) fn text(row: &[Part]) -> Result<String, Problem> {
    serde_json::to_string(row).map_err(|e| Problem::new(Code::InsideFailed).cause(e))
}

pub(super) fn parsed(text: &str) -> Result<Vec<Part>, Problem> {
    serde_json::from_str(text).map_err(|e| Problem::new(Code::StoreDamaged).cause(e))
}

pub(super) fn problem(path: &Path, error: &rusqlite::Error) -> Problem {
    let code = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Code::DiskFull,
        _ => Code::StorageFailed,
    };
    Problem::new(code).with("path", path.display()).cause(error)
}

/// `state`: 1 leaves, 2 overtaken, 3 tied, 4 unknown, 5 keyless, 6 behind one that cannot be read; `gone`: it is in what is
/// handed over. `unreadable`: the keys of those that cannot be read.
const TABLE: &str = "
CREATE TABLE front (
  number INTEGER PRIMARY KEY,
  row TEXT NOT NULL UNIQUE,
  version TEXT NOT NULL,
  key BLOB,
  sort BLOB NOT NULL,
  operation INTEGER NOT NULL,
  state INTEGER NOT NULL DEFAULT 0,
  gone INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX front_by_key ON front (key, sort);
CREATE TABLE unreadable (key BLOB PRIMARY KEY) STRICT, WITHOUT ROWID;
";

/// Only the last of a key can leave, and the index gives it at once: what is asked of each row must not go through all
/// rows of its key, or many changes of one thing would take hours.
const DECIDE: &str = "
BEGIN;
UPDATE front SET state = 5 WHERE key IS NULL;
UPDATE front SET state = CASE operation WHEN 0 THEN 4 ELSE 1 END WHERE key IS NOT NULL AND NOT EXISTS
  (SELECT 1 FROM front o WHERE o.key = front.key AND o.sort >= front.sort AND o.number <> front.number);
UPDATE front SET state = 3 WHERE state = 0 AND
  (SELECT o.state FROM front o WHERE o.key = front.key ORDER BY o.sort DESC LIMIT 1) NOT IN (1, 4);
UPDATE front SET state = 2 WHERE state = 0;
UPDATE front SET state = 6 WHERE state IN (1, 2) AND key IN (SELECT key FROM unreadable);
COMMIT;
";

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(row: i64, key: Option<&str>, order: u8, operation: Option<Operation>) -> Noted {
        Noted {
            row: FrontRow { row: vec![Part::Integer(row)], version: format!("v{row}") },
            key: key.map(|key| key.as_bytes().to_vec()),
            order: vec![order],
            operation,
        }
    }

    #[test]
    fn the_last_of_a_key_leaves_and_takes_those_before_it_along() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.front");
        let (insert, delete) = (Some(Operation::Insert), Some(Operation::Delete));
        let mut rows = FrontRows::create(&path).unwrap();
        rows.note(&[
            noted(1, Some("a"), 1, insert),
            noted(2, Some("a"), 3, delete),
            noted(3, Some("a"), 2, insert),
            noted(4, Some("tied"), 7, insert),
            noted(5, Some("tied"), 7, delete),
            noted(6, Some("tied"), 1, insert),
        ])
        .unwrap();
        rows.note(&[
            noted(7, Some("odd"), 1, insert),
            noted(8, Some("odd"), 2, None),
            noted(9, None, 1, insert),
            noted(10, Some("b"), 1, insert),
            noted(11, Some("stuck"), 1, insert),
            noted(12, Some("stuck"), 2, delete),
        ])
        .unwrap();
        rows.hold(&[b"stuck".to_vec(), b"nobody's".to_vec(), b"stuck".to_vec()]).unwrap();
        rows.decide().unwrap();
        assert_eq!(rows.leaving().unwrap(), 2);
        drop(rows);
        let mut rows = FrontRows::open(&path).unwrap().unwrap();
        let fate = |rows: &FrontRows, row: i64| rows.fate(&[Part::Integer(row)]).unwrap();
        let Some(Fate::Leaves(number, Operation::Delete)) = fate(&rows, 2) else { panic!("{:?}", fate(&rows, 2)) };
        for (row, expected) in [
            (1, Fate::Overtaken),
            (3, Fate::Overtaken),
            (4, Fate::Tied),
            (5, Fate::Tied),
            (6, Fate::Tied),
            (7, Fate::Overtaken),
            (8, Fate::Unknown),
            (9, Fate::Keyless),
            (11, Fate::Behind),
            (12, Fate::Behind),
        ] {
            assert_eq!(fate(&rows, row), Some(expected), "{row}");
        }
        assert_eq!(fate(&rows, 13), None);
        assert!(rows.page(0, 10).unwrap().is_empty(), "nothing has left yet");
        rows.left(&[number]).unwrap();
        let page = |rows: &FrontRows, above: i64, most: usize| -> Vec<String> {
            rows.page(above, most)
                .unwrap()
                .into_iter()
                .map(|(number, row)| format!("{number} {}", row.version))
                .collect()
        };
        // What waits behind a row that did not leave is not marked either.
        assert_eq!(page(&rows, 0, 10), ["1 v1", "2 v2", "3 v3"]);
        assert_eq!(page(&rows, 1, 1), ["2 v2"]);
        rows.set_versions(&[(2, "later")]).unwrap();
        assert_eq!(page(&rows, 1, 1), ["2 later"]);
        drop(rows);
        remove(&path).unwrap();
        assert!(FrontRows::open(&path).unwrap().is_none());
    }
}
