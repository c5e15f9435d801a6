//! 暂存: lands verified chunks in temporary files and makes progress durable, in groups.
//! Bytes are synced before they are recorded, so what the store knows to be here is here: resume starts
//! from it. A split that is whole is staged in the destination with its applied row.
//! [`Staged`] is the whole transfer, durable and equal to what the provider signed; only this room makes it.

mod lookup;
mod older;
mod progress;
mod split;
mod staged;
mod table;

pub use lookup::Answer;
pub use older::{Cuts, Older, OlderName};
pub use progress::{NewChunks, Progress};
pub use staged::{HandedOver, SplitTotals, Staged};
pub use table::{RowForm, TableStage};

use crate::held_back::HeldBack;
use crate::remembered::Remembered;
use crate::store::exchange::{StagedSplit, Whole};
use older::{Served, Used};
use posthouse_connectors::folder::{FolderDestination, Near, Part};
use posthouse_protocol::chunk::VerifiedChunk;
use posthouse_protocol::id::{JobId, TransferId};
use posthouse_protocol::manifest::{Entry, EntryKind};
use posthouse_protocol::problem::{Code, Problem};
use split::{SplitContent, SplitPart};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where one transfer is being landed. All calls block.
pub struct Stage {
    transfer: TransferId,
    job: JobId,
    place: Place,
    /// Temporary files that chunks are being written to, by the entry's index.
    parts: Mutex<BTreeMap<u64, Arc<OpenPart>>>,
    /// Held while the temporary file of one of its entries is made, so that it is made once. Files are made beside
    /// each other: of small ones it is most of the work.
    making: [Mutex<()>; MAKING],
    /// What stands in the folder and was cut into pieces, by the index of the entry that it may be in.
    older: Mutex<BTreeMap<u64, Arc<Used>>>,
    /// What was copied of such, for entries that are whole and not durable yet.
    served: Mutex<BTreeMap<u64, Served>>,
    /// What pieces they have is remembered here.
    remembered: Option<Arc<Remembered>>,
    /// What a sync failed with. What was written before is of unknown content since then, and the system
    /// tells of it once only: no later sync here means anything.
    unsynced: Mutex<Option<Problem>>,
}

pub enum Place {
    Folder(FolderDestination),
    Table(TableStage),
}

impl Stage {
    pub fn new(transfer: TransferId, job: JobId, place: Place) -> Self {
        let (parts, making) = (Mutex::default(), Default::default());
        let (older, served, unsynced) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { transfer, job, place, parts, making, older, served, remembered: None, unsynced }
    }

    /// The pieces of files are remembered beyond this transfer.
    #[must_use]
    pub fn remembering(self, remembered: Arc<Remembered>) -> Self {
        Self { remembered: Some(remembered), ..self }
    }

    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Makes an empty temporary file for an entry of which nothing is here.
    pub fn begin(&self, entry: &Entry) -> Result<(), Problem> {
        self.open(entry, false).map(|_| ())
    }

    /// Writes chunks at their places, one after the other.
    pub fn write(&self, chunks: &[(Entry, VerifiedChunk)]) -> Result<(), Problem> {
        let mut near = Near::default();
        chunks.iter().try_for_each(|(entry, chunk)| self.write_chunk(entry, chunk, &mut near))
    }

    fn write_chunk(&self, entry: &Entry, chunk: &VerifiedChunk, near: &mut Near) -> Result<(), Problem> {
        let known = self.locked().get(&entry.index).cloned();
        let part = match (known, &self.place) {
            (None, Place::Folder(folder)) if is_all_of(chunk, entry) => {
                return self.write_file(folder, entry, chunk, near);
            }
            (Some(part), _) => part,
            (None, _) => self.open(entry, true)?,
        };
        match (&*part, &self.place) {
            (OpenPart::Folder(part), _) => part.write_at(chunk.offset(), chunk.content()),
            (OpenPart::Split(part), _) => part.write(chunk),
            (OpenPart::Sealed { .. }, Place::Folder(folder)) => self.write_file(folder, entry, chunk, near),
            (OpenPart::Sealed { .. }, Place::Table(_)) => Err(Problem::new(Code::InsideFailed)),
        }
    }

    /// A file that is one chunk has its length, rights and times at once, and no handle that waits for them. Nobody
    /// else writes to it.
    fn write_file(
        &self,
        folder: &FolderDestination,
        entry: &Entry,
        chunk: &VerifiedChunk,
        near: &mut Near,
    ) -> Result<(), Problem> {
        folder.part_near(&entry.name, true, near)?.write_whole(entry, chunk.content())?;
        let sealed = OpenPart::Sealed { mode: entry.mode, mtime_ns: entry.mtime_ns };
        self.locked().insert(entry.index, Arc::new(sealed));
        Ok(())
    }

    /// Puts a whole split into the destination's staging; a repeat changes nothing and gives the same.
    pub fn stage_split(&self, table: &TableStage, entry: &Entry) -> Result<(StagedSplit, HeldBack), Problem> {
        if let Some(staged) = table.inherited(entry) {
            return Ok((staged, table.held_back(&entry.name)));
        }
        let part = self.locked().get(&entry.index).cloned();
        let bytes = match part.as_deref() {
            Some(OpenPart::Split(part)) => part.bytes()?,
            _ => SplitContent::of_file(&table.path(&entry.name))?,
        };
        let staged = table.stage(entry, bytes)?;
        self.drop_part(entry.index);
        Ok(staged)
    }

    /// The split is recorded as staged.
    pub fn split_recorded(&self, table: &TableStage, entry: &Entry) {
        if let Err(problem) = table.drop_file(entry) {
            tracing::debug!(%problem, "The file of a split that is staged remains");
        }
    }

    /// Forgets the temporary file of an entry that is read anew or left out. No write to it may be under way.
    pub fn drop_part(&self, index: u64) {
        self.locked().remove(&index);
    }

    /// Removes the temporary file of an entry that is left out after all.
    pub fn discard_part(&self, name: &[u8]) -> Result<(), Problem> {
        match &self.place {
            Place::Folder(folder) => folder.discard_parts(&mut std::iter::once(name)),
            // The node's own folder for splits goes as a whole.
            Place::Table(_) => Ok(()),
        }
    }

    /// Gives every whole entry its final form and makes everything written so far durable. After an error
    /// it fails until the stage is opened anew.
    pub fn sync(&self, progress: &Progress) -> Result<(), Problem> {
        let mut unsynced = self.unsynced.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(problem) = &*unsynced {
            return Err(problem.clone());
        }
        self.sync_all(progress).inspect_err(|problem| *unsynced = Some(problem.clone()))
    }

    fn sync_all(&self, progress: &Progress) -> Result<(), Problem> {
        for (entry, whole) in &progress.whole {
            self.remember(entry, *whole);
            let part = match &self.place {
                // It may be read from just now.
                Place::Table(_) => self.locked().get(&entry.index).cloned(),
                Place::Folder(_) => self.locked().remove(&entry.index),
            };
            if *whole != Whole::Part || entry.kind != EntryKind::File && !matches!(entry.kind, EntryKind::Split(_)) {
                continue;
            }
            match (&self.place, part) {
                (Place::Folder(folder), part) => {
                    if let Some(OpenPart::Sealed { mode, mtime_ns }) = part.as_deref() {
                        // These may be told anew with the root.
                        if (*mode, *mtime_ns) != (entry.mode, entry.mtime_ns) {
                            folder.amend_part(entry)?;
                        }
                        continue;
                    }
                    let part = match part.map(Arc::try_unwrap) {
                        Some(Ok(OpenPart::Folder(part))) => part,
                        _ => folder.part(&entry.name, true)?,
                    };
                    part.seal(entry)?;
                }
                (Place::Table(table), part) => {
                    match part.as_deref() {
                        Some(OpenPart::Split(split)) => split.sync()?,
                        _ => table.sync_file(entry)?,
                    }
                    self.drop_part(entry.index);
                }
            }
        }
        match &self.place {
            Place::Folder(folder) => folder.sync(),
            Place::Table(table) => {
                for index in progress.chunks.keys() {
                    let part = self.locked().get(index).cloned();
                    if let Some(OpenPart::Split(split)) = part.as_deref() {
                        split.sync()?;
                    }
                }
                table.sync()
            }
        }
    }

    pub fn free_bytes(&self) -> Result<u64, Problem> {
        match &self.place {
            Place::Folder(folder) => folder.free_bytes(),
            Place::Table(table) => table.free_bytes(),
        }
    }

    fn open(&self, entry: &Entry, resume: bool) -> Result<Arc<OpenPart>, Problem> {
        let making = self.making.get((entry.index % MAKING as u64) as usize);
        let _one_at_a_time = making.map(|making| making.lock().unwrap_or_else(PoisonError::into_inner));
        if resume && let Some(part) = self.locked().get(&entry.index).cloned() {
            return Ok(part);
        }
        let part = Arc::new(match &self.place {
            Place::Folder(folder) => OpenPart::Folder(folder.part(&entry.name, resume)?.sized(entry.size)?),
            Place::Table(table) => OpenPart::Split(table.part(entry, resume)?),
        });
        self.locked().insert(entry.index, part.clone());
        Ok(part)
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<OpenPart>>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn locked_older(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Used>>> {
        self.older.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn locked_served(&self) -> MutexGuard<'_, BTreeMap<u64, Served>> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const MAKING: usize = 16;

enum OpenPart {
    Folder(Part),
    Split(SplitPart),
    /// Written and sealed at once, with these rights and times; only its sync is left.
    Sealed {
        mode: u32,
        mtime_ns: i64,
    },
}

/// Whether a chunk is the whole content of a file.
fn is_all_of(chunk: &VerifiedChunk, entry: &Entry) -> bool {
    chunk.offset() == 0 && chunk.content().len() as u64 == entry.size
}

#[cfg(test)]
mod tests;
