//! What statements bind by hash and both parties keep: the entry list, `files.b3` and what was left out.
//! Written beside each other in one folder per transfer, synced before the statement that binds them is made.

use crate::seal::storage;
use posthouse_platform::disk::Disk;
use posthouse_protocol::id::TransferId;
use posthouse_protocol::limits;
use posthouse_protocol::manifest::{Entry, EntryKind, EntryList, LeftOut, LeftOuts, files_b3_line};
use posthouse_protocol::problem::{Code, Problem};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The files of one transfer while they are written. All calls block.
pub(crate) struct Attachments {
    dir: PathBuf,
    /// Part of its temporary names: no other session writes these.
    session: u64,
    disk: Arc<dyn Disk>,
    entries: BufWriter<File>,
    files: BufWriter<File>,
    written: u64,
}

impl Attachments {
    /// Begins anew: an earlier session's unfinished files are removed, and can no longer be finished.
    pub(crate) fn begin(
        root: &Path,
        transfer: &TransferId,
        session: u64,
        disk: Arc<dyn Disk>,
    ) -> Result<Self, Problem> {
        let dir = root.join(transfer.as_str());
        let create = |name: &str| File::create(dir.join(part(name, session))).map(BufWriter::new);
        std::fs::create_dir_all(&dir)
            .and_then(|()| remove_parts(&dir))
            .and_then(|()| Ok((create(ENTRIES)?, create(FILES)?)))
            .map(|(entries, files)| Self { dir: dir.clone(), session, disk, entries, files, written: 0 })
            .map_err(|e| storage(&dir, &e))
    }

    /// Final entries, in order.
    pub(crate) fn add(&mut self, entries: &[Entry]) -> Result<(), Problem> {
        let mut write = || -> io::Result<()> {
            for entry in entries {
                self.entries.write_all(&EntryList::encode(self.written, entry))?;
                self.written += 1;
                if entry.kind == EntryKind::File
                    && let Some(line) = entry.root.as_ref().and_then(|root| files_b3_line(&entry.name, root))
                {
                    self.files.write_all(&line)?;
                }
            }
            Ok(())
        };
        write().map_err(|e| storage(&self.dir, &e))
    }

    /// Makes them durable under their names. `folder`: tables have no `files.b3`.
    pub(crate) fn finish(mut self, left_out: &LeftOuts, folder: bool) -> Result<(), Problem> {
        let flushed = self.entries.flush().and_then(|()| self.files.flush());
        let write = || -> io::Result<()> {
            self.keep(&mut self.entries.get_ref().try_clone()?, ENTRIES, true)?;
            let mut omitted = File::create(self.dir.join(part(LEFT_OUT, self.session)))?;
            omitted.write_all(&left_out.encode())?;
            self.keep(&mut omitted, LEFT_OUT, !left_out.is_empty())?;
            self.keep(&mut self.files.get_ref().try_clone()?, FILES, folder)?;
            self.disk.sync_folder(&self.dir)?;
            self.dir.parent().map_or(Ok(()), |parent| self.disk.sync_folder(parent))
        };
        flushed.and_then(|()| write()).map_err(|e| storage(&self.dir, &e))
    }

    fn keep(&self, file: &mut File, name: &str, keep: bool) -> io::Result<()> {
        let from = self.dir.join(part(name, self.session));
        if !keep {
            return std::fs::remove_file(from);
        }
        self.disk.sync_file(file.as_fd(), &from)?;
        std::fs::rename(from, self.dir.join(name))
    }
}

/// The left-out list of a transfer, empty where there was none.
pub(crate) fn left_out(root: &Path, transfer: &TransferId) -> Result<Vec<LeftOut>, Problem> {
    let path = root.join(transfer.as_str()).join(LEFT_OUT);
    match File::open(&path) {
        Ok(file) => Items::new(file, path).collect(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(storage(&path, &e)),
    }
}

/// The entry list of a transfer, one by one.
pub(crate) fn entries(
    root: &Path,
    transfer: &TransferId,
) -> Result<impl Iterator<Item = Result<Entry, Problem>> + Send + use<>, Problem> {
    let path = root.join(transfer.as_str()).join(ENTRIES);
    let file = File::open(&path).map_err(|e| storage(&path, &e))?;
    Ok(Items::new(file, path))
}

/// Concatenated CBOR items of one type.
struct Items<T> {
    file: BufReader<File>,
    path: PathBuf,
    buffer: Vec<u8>,
    at: usize,
    items: std::marker::PhantomData<T>,
}

impl<T> Items<T> {
    fn new(file: File, path: PathBuf) -> Self {
        Self { file: BufReader::new(file), path, buffer: Vec::new(), at: 0, items: std::marker::PhantomData }
    }
}

impl<T: for<'b> minicbor::Decode<'b, ()>> Iterator for Items<T> {
    type Item = Result<T, Problem>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let rest = self.buffer.get(self.at..).unwrap_or_default();
            let mut decoder = minicbor::Decoder::new(rest);
            match decoder.decode::<T>() {
                Ok(item) => {
                    self.at += decoder.position();
                    return Some(Ok(item));
                }
                Err(e) if rest.len() > limits::FRAME_BYTES_MAX || !e.is_end_of_input() => {
                    return Some(Err(Problem::new(Code::StoreDamaged).with("path", self.path.display()).cause(e)));
                }
                Err(_) => {}
            }
            // The item goes on beyond what was read so far.
            self.buffer.drain(..self.at);
            self.at = 0;
            let before = self.buffer.len();
            match (&mut self.file).take(READ_BYTES).read_to_end(&mut self.buffer) {
                Err(e) => return Some(Err(storage(&self.path, &e))),
                Ok(0) if before == 0 => return None,
                Ok(0) => {
                    return Some(Err(Problem::new(Code::StoreDamaged)
                        .with("path", self.path.display())
                        .cause("it ends midway")));
                }
                Ok(_) => {}
            }
        }
    }
}

fn part(name: &str, session: u64) -> String {
    format!("{name}.{session}{PART}")
}

fn remove_parts(dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(PART) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

const PART: &str = ".part";

const ENTRIES: &str = "entries.cbor";
const FILES: &str = "files.b3";
const LEFT_OUT: &str = "left_out.cbor";
const READ_BYTES: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use posthouse_platform::disk::RealDisk;
    use posthouse_protocol::manifest::Attribute;

    #[test]
    fn entries_come_back_as_they_were_added() {
        let folder = tempfile::tempdir().unwrap();
        let transfer = TransferId::from_random([7; 16]);
        let entry = |index: u64| Entry {
            index,
            name: vec![b'a'; 1000],
            kind: EntryKind::File,
            size: index,
            mode: 0o644,
            mtime_ns: -5,
            root: Some([index as u8; 32].into()),
            revision: 0,
            same_as: None,
            attributes: index
                .is_multiple_of(2)
                .then(|| vec![Attribute { name: b"user.a".to_vec(), value: vec![7; 900] }]),
        };
        let all: Vec<Entry> = (0..500).map(entry).collect();
        let mut attachments = Attachments::begin(folder.path(), &transfer, 1, Arc::new(RealDisk)).unwrap();
        attachments.add(&all[..100]).unwrap();
        attachments.add(&all[100..]).unwrap();
        let mut omitted = LeftOuts::default();
        assert!(omitted.push(LeftOut { name: b"x".to_vec(), code: 2010, reason: "it changes".to_owned() }));
        attachments.finish(&omitted, true).unwrap();
        let back: Vec<Entry> = entries(folder.path(), &transfer).unwrap().collect::<Result<_, _>>().unwrap();
        assert_eq!(back, all);
        assert_eq!(left_out(folder.path(), &transfer).unwrap(), omitted.iter().collect::<Vec<_>>());
        let files = std::fs::read_to_string(folder.path().join(transfer.as_str()).join(FILES)).unwrap();
        assert_eq!(files.lines().count(), 500);
    }

    #[test]
    fn a_session_whose_place_was_taken_cannot_finish_and_spoils_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let transfer = TransferId::from_random([7; 16]);
        let older = Attachments::begin(folder.path(), &transfer, 1, Arc::new(RealDisk)).unwrap();
        let newer = Attachments::begin(folder.path(), &transfer, 2, Arc::new(RealDisk)).unwrap();
        assert!(older.finish(&LeftOuts::default(), true).is_err());
        newer.finish(&LeftOuts::default(), true).unwrap();
        assert_eq!(entries(folder.path(), &transfer).unwrap().count(), 0);
        let names = std::fs::read_dir(folder.path().join(transfer.as_str())).unwrap();
        let parts = names.filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().ends_with(PART)).count();
        assert_eq!(parts, 0);
    }
}
