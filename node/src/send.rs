//! 发送: reads what the consumer asked for, hashes it at its place, packs it, and puts it on the data channels.
//! Files are sealed where they lie: their root follows from the chunks read here, and a file that changed
//! meanwhile is read again under a higher revision, never sent torn. Nothing here is durable; all of it can
//! be repeated at will. What may be sent at all was decided by the [`Permit`] before this room is entered.

mod line;
mod recall;
#[cfg(test)]
mod tests;

use crate::buffers::Buffers;
use crate::context::Context;
use crate::seal::{ChunkValues, SplitBytes, Spool, storage};
use bytes::Bytes;
pub use line::Line;
use minicbor::bytes::ByteArray;
use posthouse_connectors::folder::{FileStat, FolderSource, OpenFile};
use posthouse_platform::endpoint::{Writer, write_bytes};
use posthouse_protocol::chunk::{self, ChunkHeader, Form, Layout, Packing, Subtrees};
use posthouse_protocol::delta::{Cut, PieceIndex};
use posthouse_protocol::id::{JobId, NodeId};
use posthouse_protocol::limits;
use posthouse_protocol::manifest::{Entry, EntryKind};
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::provider::SendChunk;
use recall::Recalled;
pub use recall::{ReadBefore, Recall, is_quiet};
use std::collections::BTreeMap;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

/// Where the content of a transfer comes from. All calls block.
pub struct Supply {
    source: SupplySource,
    before: Option<ReadBefore>,
    open: Mutex<BTreeMap<u64, Arc<Reading>>>,
    buffers: Arc<Buffers>,
}

pub enum SupplySource {
    Folder(Arc<FolderSource>),
    Spool(Spool),
}

/// An entry that is being read. `stat` is how its file looked when it was listed, where that is known.
pub struct Reading {
    entry: Entry,
    stat: Option<FileStat>,
    layout: Layout,
    file: ReadFile,
    /// Values that were found when it was sealed, chunk by chunk.
    sealed: Option<ChunkValues>,
    values: Mutex<Subtrees>,
    /// Values that were found in it before, and may be found by whoever reads it after.
    recalled: Option<Recalled>,
    /// How much further on the consumer has what was last compared. A guess, of no harm where it is wrong.
    shift: AtomicI64,
    buffers: Arc<Buffers>,
}

enum ReadFile {
    Folder(OpenFile),
    Spool(SplitBytes),
}

/// A chunk ready for the line.
#[derive(Debug)]
pub struct Packed {
    pub header: ChunkHeader,
    pub body: Bytes,
}

/// Chunks of one entry that are to be read.
pub struct Wanted {
    pub entry: Entry,
    pub stat: Option<FileStat>,
    /// What the consumer has that may be in it.
    pub known: Option<Arc<KnownPieces>>,
    pub chunks: Vec<SendChunk>,
}

/// Pieces at the consumer; put in order when they are first used, where it blocks nobody.
pub type KnownPieces = LazyLock<Option<PieceIndex>, Box<dyn FnOnce() -> Option<PieceIndex> + Send>>;

/// What the consumer told. Pieces that cannot be are of no use, and of no harm.
pub fn known_pieces(cut: Cut, pieces: Vec<u8>) -> Arc<KnownPieces> {
    Arc::new(LazyLock::new(Box::new(move || PieceIndex::new(cut, &pieces).ok())))
}

/// What reading came to.
#[derive(Debug)]
pub enum Read {
    Packed(Packed),
    /// A file of one chunk was read whole, and was as it was listed: its root, and how it looked.
    Whole {
        entry: u64,
        revision: u32,
        root: [u8; 32],
        stat: FileStat,
    },
    /// The file is no longer what was listed.
    Changed {
        entry: u64,
        revision: u32,
    },
    /// The file cannot be read.
    Failed {
        entry: u64,
        revision: u32,
        problem: Problem,
    },
}

impl Supply {
    pub fn new(source: SupplySource) -> Self {
        Self { source, before: None, open: Mutex::default(), buffers: Arc::default() }
    }

    /// Of a folder: with what was found in its files before, which gains by what is found now.
    #[must_use]
    pub fn recalling(self, before: ReadBefore) -> Self {
        Self { before: Some(before), ..self }
    }

    /// Reads what is wanted, and packs it as is said; stops at the first chunk that cannot be read.
    pub fn read(&self, wanted: &Wanted, packing: Packing) -> Vec<Read> {
        let Wanted { entry, stat, known, chunks } = wanted;
        let (index, revision) = (entry.index, entry.revision);
        let failed = |problem: Problem| match problem.code {
            Code::FileChanged => Read::Changed { entry: index, revision },
            _ => Read::Failed { entry: index, revision, problem },
        };
        let reading = match self.reading(entry, *stat) {
            Ok(reading) => reading,
            Err(problem) => return vec![failed(problem)],
        };
        let mut read = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            // One that came and was of no use comes as a whole.
            let known = known.as_deref().filter(|_| !chunk.again).and_then(|known| known.as_ref());
            match reading.chunk(chunk.chunk, known, packing) {
                Ok(packed) => read.push(Read::Packed(packed)),
                Err(problem) => {
                    read.push(failed(problem));
                    return read;
                }
            }
        }
        if let (ReadFile::Folder(_), Some(before), Some(known)) = (&reading.file, &self.before, &entry.root)
            && reading.locked().root().is_some_and(|root| root != **known)
        {
            // A root that was listed as known is not that of the file: otherwise each transfer to come would fail by it.
            before.forget(&entry.name);
        }
        read.extend(reading.whole());
        read
    }

    /// Hashes what was not sent of an entry, now or before, and gives its root, if the file is still what was listed.
    pub fn seal(&self, entry: &Entry, stat: Option<FileStat>) -> Result<([u8; 32], Option<FileStat>), Problem> {
        let reading = self.open(entry, stat)?;
        let missing = reading.locked().missing();
        for chunk in missing.into_iter().flat_map(|(from, to)| from..to) {
            reading.not_sent(chunk)?;
        }
        reading.unchanged()?;
        let root = reading.locked().root();
        self.close(entry.index);
        let stat = match &reading.file {
            ReadFile::Folder(file) => Some(file.stat()),
            ReadFile::Spool(..) => None,
        };
        root.map(|root| (root, stat))
            .ok_or_else(|| Problem::new(Code::InsideFailed).cause("chunks of a file are missing"))
    }

    /// The entry is read anew, left out, or done with.
    pub fn close(&self, index: u64) {
        // Its file is closed when others may look for theirs again.
        let closed = self.locked().remove(&index);
        drop(closed);
    }

    /// The folder that is read, where it is one.
    pub fn folder(&self) -> Option<&Arc<FolderSource>> {
        match &self.source {
            SupplySource::Folder(folder) => Some(folder),
            SupplySource::Spool(_) => None,
        }
    }

    /// A file of one chunk is read at once and closed with that; nothing of it is kept for later chunks.
    fn reading(&self, entry: &Entry, stat: Option<FileStat>) -> Result<Arc<Reading>, Problem> {
        let is_short = entry.size <= u64::from(limits::CHUNK_BYTES);
        if is_short && self.folder().is_some() { self.begin(entry, stat) } else { self.open(entry, stat) }
    }

    fn open(&self, entry: &Entry, stat: Option<FileStat>) -> Result<Arc<Reading>, Problem> {
        if let Some(reading) = self.locked().get(&entry.index)
            && reading.entry.revision == entry.revision
        {
            return Ok(reading.clone());
        }
        let reading = self.begin(entry, stat)?;
        self.locked().insert(entry.index, reading.clone());
        Ok(reading)
    }

    fn begin(&self, entry: &Entry, stat: Option<FileStat>) -> Result<Arc<Reading>, Problem> {
        let layout = Layout::new(entry.size).map_err(|e| unreadable(entry, e))?;
        let (file, sealed) = match &self.source {
            SupplySource::Folder(folder) => (ReadFile::Folder(folder.open_file(&entry.name)?), None),
            SupplySource::Spool(spool) => {
                let (bytes, values) = spool.read(entry.index)?;
                (ReadFile::Spool(bytes), values)
            }
        };
        let values = Mutex::new(Subtrees::new(layout));
        let mut reading = Reading {
            entry: entry.clone(),
            stat,
            layout,
            file,
            sealed,
            values,
            recalled: None,
            shift: AtomicI64::new(0),
            buffers: self.buffers.clone(),
        };
        reading.as_listed()?;
        if let (ReadFile::Folder(file), Some(before)) = (&reading.file, &self.before) {
            reading.recalled = before.of(entry, &file.stat(), layout);
        }
        Ok(Arc::new(reading))
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Reading>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reading {
    fn chunk(&self, chunk: u32, known: Option<&PieceIndex>, packing: Packing) -> Result<Packed, Problem> {
        let was_quiet = self.is_quiet();
        let (content, value, delta) = match (known, &self.file) {
            (Some(known), ReadFile::Folder(file)) => self.compared(chunk, file, known)?,
            _ => {
                let (content, value) = self.value(chunk)?;
                (content, value, None)
            }
        };
        self.unchanged()?;
        self.remember(chunk, value, was_quiet);
        let bytes = content.len() as u32;
        let (form, body) = match delta {
            Some(delta) => (Form::Delta, delta),
            None => chunk::pack(content, packing),
        };
        let header = ChunkHeader {
            entry: self.entry.index,
            revision: self.entry.revision,
            chunk,
            bytes,
            form,
            wire_bytes: body.len() as u32,
            value: ByteArray::from(value),
        };
        Ok(Packed { header, body })
    }

    /// What there is to be known of a file of one chunk, once that was read.
    fn whole(&self) -> Option<Read> {
        let (ReadFile::Folder(file), 1) = (&self.file, self.layout.chunks()) else { return None };
        let (entry, revision, stat) = (self.entry.index, self.entry.revision, file.stat());
        self.locked().root().map(|root| Read::Whole { entry, revision, root, stat })
    }

    /// Takes the value of a chunk that is not sent from before, or reads it.
    fn not_sent(&self, chunk: u32) -> Result<(), Problem> {
        if let Some(value) = self.recalled.as_ref().and_then(|recalled| recalled.get(chunk)) {
            self.locked().insert(chunk, value);
            return Ok(());
        }
        let was_quiet = self.is_quiet();
        let (_, value) = self.value(chunk)?;
        if self.recalled.is_some() {
            self.unchanged()?;
            self.remember(chunk, value, was_quiet);
        }
        Ok(())
    }

    fn is_quiet(&self) -> bool {
        self.recalled.as_ref().is_some_and(Recalled::is_quiet)
    }

    fn remember(&self, chunk: u32, value: [u8; 32], was_quiet: bool) {
        if let Some(recalled) = &self.recalled {
            recalled.put(chunk, value, was_quiet);
        }
    }

    /// Reads one chunk and hashes it, where its value is not known.
    fn value(&self, chunk: u32) -> Result<(Bytes, [u8; 32]), Problem> {
        let content = self.content(chunk)?;
        let known = self.sealed.as_ref().and_then(|values| values.get(chunk as usize)).copied();
        let value = known.unwrap_or_else(|| self.layout.value(chunk, &content));
        self.locked().insert(chunk, value);
        Ok((content, value))
    }

    /// Reads one chunk with what lies around it, hashes it, and finds what of it the consumer has.
    fn compared(
        &self,
        chunk: u32,
        file: &OpenFile,
        known: &PieceIndex,
    ) -> Result<(Bytes, [u8; 32], Option<Bytes>), Problem> {
        let offset = self.layout.offset(chunk);
        let place = offset..offset + u64::from(self.layout.bytes(chunk));
        let shift = self.shift.load(Ordering::Relaxed);
        if let Some(step) = known.in_step(place.clone(), self.layout.size(), shift) {
            let (around, within) = self.around(file, step.window(), &place)?;
            if let Some(delta) = known.delta_in_step(&step, &around, within.clone()) {
                let content = around.slice(within);
                let value = self.hashed(chunk, &content);
                return Ok((content, value, Some(delta.into())));
            }
        }
        let window = known.cut().window(place.clone(), self.layout.size());
        let (around, within) = self.around(file, window, &place)?;
        let content = around.slice(within.clone());
        let value = self.hashed(chunk, &content);
        let differs = known.delta(&around, within);
        if let Some(begins) = differs.as_ref().and_then(|differs| differs.begins) {
            self.shift.store(begins.saturating_sub_unsigned(offset), Ordering::Relaxed);
        }
        Ok((content, value, differs.map(|differs| differs.delta.into())))
    }

    /// Reads what lies around a place, and says where that place is in it.
    fn around(
        &self,
        file: &OpenFile,
        window: Range<u64>,
        place: &Range<u64>,
    ) -> Result<(Bytes, Range<usize>), Problem> {
        let around =
            self.filled((window.end - window.start) as usize, |around| match file.read_at(window.start, around)? {
                read if read < around.len() => Err(changed(&self.entry)),
                _ => Ok(()),
            })?;
        Ok((around, (place.start - window.start) as usize..(place.end - window.start) as usize))
    }

    fn hashed(&self, chunk: u32, content: &[u8]) -> [u8; 32] {
        let value = self.layout.value(chunk, content);
        self.locked().insert(chunk, value);
        value
    }

    fn content(&self, chunk: u32) -> Result<Bytes, Problem> {
        let (bytes, offset) = (self.layout.bytes(chunk) as usize, self.layout.offset(chunk));
        match &self.file {
            ReadFile::Folder(file) => self.filled(bytes, |content| match file.read_at(offset, content)? {
                read if read < bytes => Err(changed(&self.entry)),
                _ => Ok(()),
            }),
            ReadFile::Spool(SplitBytes::File(file, path)) => {
                self.filled(bytes, |content| file.read_exact_at(content, offset).map_err(|e| storage(path, &e)))
            }
            ReadFile::Spool(SplitBytes::Held(held)) => {
                held.chunk(chunk).filter(|held| held.len() == bytes).ok_or_else(|| {
                    Problem::new(Code::InsideFailed)
                        .cause(format!("a held split has no chunk {chunk} of {bytes} bytes"))
                })
            }
        }
    }

    /// `fill` puts in all of it, or fails.
    fn filled(&self, bytes: usize, fill: impl FnOnce(&mut [u8]) -> Result<(), Problem>) -> Result<Bytes, Problem> {
        let mut content = self.buffers.take_full(bytes);
        fill(&mut content)?;
        Ok(self.buffers.filled(content))
    }

    /// Whether the file is still what was listed.
    fn unchanged(&self) -> Result<(), Problem> {
        self.as_listed()?;
        match &self.file {
            ReadFile::Folder(file) if file.changed()? => Err(changed(&self.entry)),
            _ => Ok(()),
        }
    }

    /// Whether it was, when it was opened.
    fn as_listed(&self) -> Result<(), Problem> {
        let ReadFile::Folder(file) = &self.file else { return Ok(()) };
        let then = file.stat();
        let as_listed = match &self.stat {
            Some(listed) => *listed == then,
            None => then.size == self.entry.size && then.mtime_ns == self.entry.mtime_ns,
        };
        if as_listed { Ok(()) } else { Err(changed(&self.entry)) }
    }

    fn locked(&self) -> MutexGuard<'_, Subtrees> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts packed chunks on one data channel, in the order they come, until there are no more.
/// Several channels share one queue: whichever is free takes the next.
pub async fn run_channel(
    ctx: Arc<Context>,
    mut writer: Writer,
    queue: Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<Vec<Packed>>>>,
    sent: mpsc::UnboundedSender<Result<Sent, Problem>>,
    line: Arc<Line>,
    peer: NodeId,
    job: JobId,
) {
    let mut buffer = Vec::new();
    loop {
        let next = queue.lock().await.recv().await;
        let Some(chunks) = next else { break };
        let mut count = Sent::default();
        let mut packable = 0;
        let began = line.write_began();
        let waits = line.waits();
        ctx.pacing.take(&peer, Some(&job), chunks.iter().map(|one| u64::from(one.header.wire_bytes)).sum()).await;
        let write = async {
            buffer.clear();
            for Packed { header, body } in &chunks {
                buffer.extend_from_slice(&header.encode());
                count.chunks += 1;
                count.bytes += u64::from(header.bytes);
                count.wire_bytes += u64::from(header.wire_bytes);
                packable += u64::from(if is_next_to_nothing(header) { header.wire_bytes } else { header.bytes });
                if body.len() < GATHER_BYTES {
                    buffer.extend_from_slice(body);
                    if buffer.len() < GATHER_BYTES {
                        continue;
                    }
                }
                writer.write_all(&buffer).await?;
                buffer.clear();
                if body.len() >= GATHER_BYTES {
                    write_bytes(&mut writer, body.clone()).await?;
                }
            }
            writer.write_all(&buffer).await?;
            writer.flush().await
        };
        let done = write.await.map_err(|e| Problem::new(Code::PeerUnreachable).with("peer", &peer).cause(e));
        line.write_ended(began, packable, count.wire_bytes);
        drop(waits);
        let over = done.is_err();
        // A transfer that is over does not count any more.
        if sent.send(done.map(|()| count)).is_err() || over {
            return;
        }
    }
    // What was sent arrives; how the channel closes after that is of no matter.
    let _ = writer.shutdown().await;
}

/// A delta, or a hole: what it would take as it is says nothing of whether packing pays.
fn is_next_to_nothing(header: &ChunkHeader) -> bool {
    header.form == Form::Delta || header.wire_bytes < header.bytes / 512
}

/// What one write put on the line.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sent {
    pub chunks: u64,
    pub bytes: u64,
    pub wire_bytes: u64,
}

fn changed(entry: &Entry) -> Problem {
    Problem::new(Code::FileChanged).with("name", String::from_utf8_lossy(&entry.name))
}

fn unreadable(entry: &Entry, cause: impl std::fmt::Display) -> Problem {
    Problem::new(Code::FileUnreadable).with("name", String::from_utf8_lossy(&entry.name)).cause(cause)
}

/// Whether an entry has content that is read by this room.
pub fn has_content(entry: &Entry) -> bool {
    matches!(entry.kind, EntryKind::File | EntryKind::Split(_))
}

const GATHER_BYTES: usize = 64 << 10;
