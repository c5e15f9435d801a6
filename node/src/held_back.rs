//! Rows of a split that do not move, until they are recorded in the quarantine: a rule that no row passes holds back all of
//! a table. So many are kept in memory as fit; the others lie in a file of the split's folder that has no name, and goes
//! with the process. None is durable before the store has it.

use crate::seal::storage;
use posthouse_connectors::BadRow;
use posthouse_platform::disk::Disk;
use posthouse_protocol::problem::{Code, Problem};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::PathBuf;
use std::sync::Arc;

/// In the order in which they were held back. All calls block.
pub struct HeldBack {
    /// Those behind the ones in the file.
    rows: Vec<BadRow>,
    bytes: usize,
    most: usize,
    filed: Option<BufWriter<File>>,
    in_file: u64,
    path: PathBuf,
    disk: Arc<dyn Disk>,
}

impl HeldBack {
    /// `path` is a name that nobody else uses; a file is there for a moment only, and only if there are many rows.
    pub fn new(path: PathBuf, disk: Arc<dyn Disk>) -> Self {
        Self { rows: Vec::new(), bytes: 0, most: MEMORY_BYTES, filed: None, in_file: 0, path, disk }
    }

    pub fn count(&self) -> u64 {
        self.in_file + self.rows.len() as u64
    }

    pub fn push(&mut self, row: BadRow) -> Result<(), Problem> {
        self.bytes += size_of::<BadRow>() + row.key.len() + row.reason.len() + row.original.len();
        self.rows.push(row);
        if self.bytes > self.most { self.file().map_err(|e| storage(&self.path, &e)) } else { Ok(()) }
    }

    /// What is in memory goes into the file.
    fn file(&mut self) -> io::Result<()> {
        self.disk.before_write(&self.path, self.bytes as u64)?;
        let filed = match &mut self.filed {
            Some(filed) => filed,
            None => {
                let file = File::options().read(true).write(true).create(true).truncate(true).open(&self.path)?;
                std::fs::remove_file(&self.path)?;
                self.filed.insert(BufWriter::new(file))
            }
        };
        for row in &self.rows {
            for text in [&row.key, &row.reason, &row.original] {
                filed.write_all(&(text.len() as u64).to_le_bytes())?;
                filed.write_all(text.as_bytes())?;
            }
        }
        self.in_file += self.rows.len() as u64;
        self.rows.clear();
        self.bytes = 0;
        Ok(())
    }

    /// Gives each of them once.
    pub fn each(self, see: &mut dyn FnMut(&BadRow) -> Result<(), Problem>) -> Result<(), Problem> {
        let Self { rows, filed, in_file, path, .. } = self;
        if let Some(filed) = filed {
            let failed = |error: io::Error| storage(&path, &error);
            let mut file = filed.into_inner().map_err(|error| failed(error.into_error()))?;
            file.rewind().map_err(failed)?;
            let mut reader = BufReader::new(file);
            for _ in 0..in_file {
                let [key, reason, original] = [text(&mut reader), text(&mut reader), text(&mut reader)];
                see(&BadRow {
                    key: key.map_err(failed)?,
                    reason: reason.map_err(failed)?,
                    original: original.map_err(failed)?,
                })?;
            }
            if reader.read(&mut [0]).map_err(failed)? > 0 {
                return Err(Problem::new(Code::InsideFailed).cause("rows that were held back are not all recorded"));
            }
        }
        rows.iter().try_for_each(see)
    }
}

/// As this process has written it.
fn text(reader: &mut dyn Read) -> io::Result<String> {
    let mut length = [0; 8];
    reader.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    let mut text = String::new();
    if reader.take(length).read_to_string(&mut text)? as u64 == length {
        return Ok(text);
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

/// What the rows of one split take in memory. A node reads or stages a few splits at a time.
const MEMORY_BYTES: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use posthouse_platform::disk::RealDisk;

    fn row(number: usize) -> BadRow {
        BadRow { key: number.to_string(), reason: "字".repeat(number % 7), original: "x".repeat(number % 300) }
    }

    #[test]
    fn many_rows_are_given_in_their_order_and_few_of_them_are_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        let mut held = HeldBack { most: 10_000, ..HeldBack::new(folder.path().join("rows"), Arc::new(RealDisk)) };
        for number in 0..5_000 {
            held.push(row(number)).unwrap();
            assert!(held.bytes <= 10_000 && held.rows.len() < 200, "row {number}");
        }
        assert_eq!(held.count(), 5_000);
        assert!(held.in_file > 4_000 && !held.rows.is_empty());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the file has no name");
        let mut number = 0;
        held.each(&mut |found| {
            assert_eq!(*found, row(number));
            number += 1;
            Ok(())
        })
        .unwrap();
        assert_eq!(number, 5_000);
    }

    #[test]
    fn few_rows_need_no_file() {
        let mut held = HeldBack::new(PathBuf::from("/nonexistent/rows"), Arc::new(RealDisk));
        held.push(row(1)).unwrap();
        assert_eq!(held.count(), 1);
        let mut found = Vec::new();
        held.each(&mut |row| {
            found.push(row.clone());
            Ok(())
        })
        .unwrap();
        assert_eq!(found, [row(1)]);
    }
}
