//! 暂存: lands verified chunks in temporary files and makes progress durable, in groups.
//! Bytes are synced before they are recorded, so what the store knows to be here is here: resume starts
//! from it. A split that is whole is staged in the destination with its applied row.
//! [`Staged`] is the whole transfer, durable and equal to what the provider signed; only this room makes it.

use crate::seal::storage;
use crate::store::exchange::{self, ChunkValues, StagedSplit, Whole};
use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};
use posthouse_connectors::folder::{FolderDestination, Part, Present};
use posthouse_connectors::{BadRow, Destination};
use posthouse_platform::disk::Disk;
use posthouse_protocol::batch::BatchReader;
use posthouse_protocol::chunk::{ChunkMeta, VerifiedChunk};
use posthouse_protocol::codec;
use posthouse_protocol::consumer::{Consumer, Have};
use posthouse_protocol::digest::{Digester, RowDigest};
use posthouse_protocol::id::{JobId, TransferId};
use posthouse_protocol::limits;
use posthouse_protocol::manifest::{Counts, Entry, EntryKind, LeftOut, Manifest};
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::schema::Contract;
use posthouse_protocol::statement::Statement;
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where one transfer is being landed. All calls block.
pub struct Stage {
    transfer: TransferId,
    job: JobId,
    place: Place,
    /// Temporary files that chunks are being written to, by the entry's index.
    parts: Mutex<BTreeMap<u64, Arc<OpenPart>>>,
    /// What a sync failed with. What was written before is of unknown content since then, and the system
    /// tells of it once only: no later sync here means anything.
    unsynced: Mutex<Option<Problem>>,
}

pub enum Place {
    Folder(FolderDestination),
    Table(TableStage),
}

/// What this node has of an entry that the provider lists.
#[derive(Debug)]
pub enum Answer {
    Have(Have, Whole),
    LeaveOut(LeftOut),
    /// Nothing may take the place of what stands there: its content has to be this, where that is known.
    /// [`Stage::compared`] says whether it is.
    Compare(Option<[u8; 32]>),
}

/// What is to become durable together.
#[derive(Debug, Default)]
pub struct Progress {
    /// Entries that were written to, with the values of their new chunks.
    pub chunks: BTreeMap<u64, (Entry, ChunkValues)>,
    /// Entries that are now whole.
    pub whole: Vec<(Entry, Whole)>,
    pub bytes: u64,
    /// Credit that returns to the provider once this is durable.
    pub credit: u64,
}

impl Progress {
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.whole.is_empty() && self.credit == 0
    }
    pub fn add(&mut self, entry: &Entry, meta: &ChunkMeta) {
        self.bytes += u64::from(meta.bytes());
        self.credit += meta.credit();
        let (_, values) = self.chunks.entry(entry.index).or_insert_with(|| (entry.clone(), Vec::new()));
        values.push((meta.chunk(), meta.value()));
    }
    /// The entry is read anew: what was written of it counts no more.
    pub fn drop_entry(&mut self, index: u64) {
        self.chunks.remove(&index);
        self.whole.retain(|(entry, _)| entry.index != index);
    }

    /// Writes it into the store, after [`Stage::sync`] said that it is on disk.
    pub fn record(&self, at: &Connection, transfer: &TransferId, session: i64) -> Result<(), Problem> {
        let finished = |index: u64| self.whole.iter().any(|(entry, _)| entry.index == index);
        for (index, (entry, values)) in &self.chunks {
            if finished(*index) {
                continue;
            }
            let id = exchange::put_landing_entry(at, transfer, entry, Whole::No, session)?;
            let mut values = values.clone();
            values.sort_unstable();
            for run in values.chunk_by(|(a, _), (b, _)| a + 1 == *b) {
                let flat: Vec<[u8; 32]> = run.iter().map(|(_, value)| *value).collect();
                if let Some((first, _)) = run.first() {
                    exchange::put_landing_chunks(at, id, *first, &flat)?;
                }
            }
        }
        for (entry, whole) in &self.whole {
            exchange::put_landing_entry(at, transfer, entry, *whole, session)?;
        }
        Ok(())
    }
}

impl Stage {
    pub fn new(transfer: TransferId, job: JobId, place: Place) -> Self {
        Self { transfer, job, place, parts: Mutex::default(), unsynced: Mutex::default() }
    }

    pub fn place(&self) -> &Place {
        &self.place
    }

    /// What is here of `entry`: from an earlier run of this transfer, of one that it succeeds, or landed before.
    pub fn lookup(&self, at: &Connection, entry: &Entry, predecessors: &[TransferId]) -> Result<Answer, Problem> {
        match &self.place {
            Place::Folder(folder) => self.lookup_file(at, folder, entry),
            Place::Table(table) => self.lookup_split(at, table, entry, predecessors),
        }
    }

    fn lookup_file(&self, at: &Connection, folder: &FolderDestination, entry: &Entry) -> Result<Answer, Problem> {
        let present = match folder.present(entry)? {
            Present::Blocked(left_out) => return Ok(Answer::LeaveOut(left_out)),
            present => present,
        };
        if entry.kind != EntryKind::File {
            return Ok(Answer::Have(Have::Nothing, Whole::Part));
        }
        if let Present::Same(stat) = present {
            let before = exchange::landed(at, &self.job, &entry.name)?;
            let known = before.as_ref().and_then(|before| before.root);
            if let (Some(before), Some(root)) = (&before, known)
                && before.stat == stat
                && entry.root.is_none_or(|stated| *stated == root)
            {
                return Ok(Answer::Have(Have::Whole(root), Whole::Present));
            }
            if !folder.replaces() {
                return Ok(Answer::Compare(entry.root.map(Into::into).or(known)));
            }
        }
        self.resumed(at, entry, |entry| Ok(!folder.part(&entry.name, true)?.fresh()))
    }

    /// Settles an answer for which the file that stands there has to be read.
    pub fn compared(&self, entry: &Entry, answer: Answer) -> Answer {
        let (Place::Folder(folder), Answer::Compare(known)) = (&self.place, &answer) else { return answer };
        let reason = match folder.hash(&entry.name, false) {
            Ok(root) if known.is_none_or(|known| known == root) => {
                return Answer::Have(Have::Whole(root), Whole::Present);
            }
            Ok(_) => "it exists already with other contents, and `append` replaces nothing".to_owned(),
            Err(problem) => format!("it exists already, and cannot be read: {}", problem.cause),
        };
        Answer::LeaveOut(LeftOut { name: entry.name.clone(), code: Code::NameTaken.number(), reason })
    }

    fn lookup_split(
        &self,
        at: &Connection,
        table: &TableStage,
        entry: &Entry,
        predecessors: &[TransferId],
    ) -> Result<Answer, Problem> {
        let (EntryKind::Split(_), Some(root)) = (&entry.kind, entry.root) else {
            return Err(Problem::new(Code::FrameInvalid).cause("a table's transfer lists something that is no split"));
        };
        if let Answer::Have(have @ (Have::Whole(_) | Have::Chunks(_)), whole) =
            self.resumed(at, entry, |entry| Ok(table.path(&entry.name).exists()))?
        {
            return Ok(Answer::Have(have, whole));
        }
        for predecessor in predecessors {
            if let Some(found) = exchange::adoptable_split(at, predecessor, &entry.name, &root)?
                && found.size == entry.size
                && table.adopt(predecessor, &entry.name)?
            {
                return Ok(Answer::Have(Have::Whole(*root), Whole::Part));
            }
        }
        Ok(Answer::Have(Have::Nothing, Whole::Part))
    }

    /// What an earlier run of this transfer made durable, if the provider still means the same content.
    fn resumed(
        &self,
        at: &Connection,
        entry: &Entry,
        part_exists: impl Fn(&Entry) -> Result<bool, Problem>,
    ) -> Result<Answer, Problem> {
        let nothing = Answer::Have(Have::Nothing, Whole::Part);
        let Some((found, chunks)) = exchange::landing_entry(at, &self.transfer, &entry.name)? else {
            return Ok(nothing);
        };
        let same = found.entry.size == entry.size
            && found.entry.mtime_ns == entry.mtime_ns
            && (entry.root.is_none() || found.entry.root.is_none() || entry.root == found.entry.root);
        if !same || found.whole == Whole::Present || !part_exists(entry)? {
            return Ok(nothing);
        }
        Ok(match (found.whole, found.entry.root) {
            (Whole::No, _) if chunks.is_empty() => nothing,
            (Whole::No, _) => Answer::Have(Have::Chunks(chunks), Whole::Part),
            (_, Some(root)) => Answer::Have(Have::Whole(*root), Whole::Part),
            (_, None) => nothing,
        })
    }

    /// Makes an empty temporary file for an entry of which nothing is here.
    pub fn begin(&self, entry: &Entry) -> Result<(), Problem> {
        self.open(entry, false).map(|_| ())
    }

    /// Writes a chunk at its place.
    pub fn write(&self, entry: &Entry, chunk: &VerifiedChunk) -> Result<(), Problem> {
        let known = self.locked().get(&entry.index).cloned();
        let part = match known {
            Some(part) => part,
            None => self.open(entry, true)?,
        };
        part.write_at(chunk.offset(), chunk.content())
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
            let part = self.locked().remove(&entry.index);
            if *whole != Whole::Part || entry.kind != EntryKind::File && !matches!(entry.kind, EntryKind::Split(_)) {
                continue;
            }
            match (&self.place, part) {
                (Place::Folder(folder), part) => {
                    let part = match part.map(Arc::try_unwrap) {
                        Some(Ok(OpenPart::Folder(part))) => part,
                        _ => folder.part(&entry.name, true)?,
                    };
                    part.seal(entry)?;
                }
                (Place::Table(table), part) => {
                    let part = match part {
                        Some(part) => part,
                        None => Arc::new(OpenPart::Split(table.part(&entry.name, true)?)),
                    };
                    if let OpenPart::Split(split) = &*part {
                        split.sync(table.disk.as_ref())?;
                    }
                }
            }
        }
        match &self.place {
            Place::Folder(folder) => folder.sync(),
            Place::Table(table) => {
                for index in progress.chunks.keys() {
                    let part = self.locked().get(index).cloned();
                    if let Some(OpenPart::Split(split)) = part.as_deref() {
                        split.sync(table.disk.as_ref())?;
                    }
                }
                table.disk.sync_folder(&table.dir).map_err(|e| storage(&table.dir, &e))
            }
        }
    }

    pub fn free_bytes(&self) -> Result<u64, Problem> {
        match &self.place {
            Place::Folder(folder) => folder.free_bytes(),
            Place::Table(table) => table.disk.free_bytes(&table.dir).map_err(|e| storage(&table.dir, &e)),
        }
    }

    fn open(&self, entry: &Entry, resume: bool) -> Result<Arc<OpenPart>, Problem> {
        let mut parts = self.locked();
        if resume && let Some(part) = parts.get(&entry.index) {
            return Ok(part.clone());
        }
        let part = Arc::new(match &self.place {
            Place::Folder(folder) => OpenPart::Folder(folder.part(&entry.name, resume)?),
            Place::Table(table) => OpenPart::Split(table.part(&entry.name, resume)?),
        });
        parts.insert(entry.index, part.clone());
        Ok(part)
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<OpenPart>>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum OpenPart {
    Folder(Part),
    Split(SplitPart),
}

impl OpenPart {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), Problem> {
        match self {
            Self::Folder(part) => part.write_at(offset, bytes),
            Self::Split(part) => part.write_at(offset, bytes),
        }
    }
}

/// The node's own folder for splits on their way into a table, and the destination they go to.
pub struct TableStage {
    dir: PathBuf,
    root: PathBuf,
    disk: Arc<dyn Disk>,
    contract: Contract,
    digest_key: [u8; 32],
    destination: Mutex<Box<dyn Destination>>,
}

impl TableStage {
    /// `root` is the node's staging folder.
    pub fn open(
        root: &Path,
        transfer: &TransferId,
        disk: Arc<dyn Disk>,
        contract: Contract,
        digest_key: [u8; 32],
        destination: Box<dyn Destination>,
    ) -> Result<Self, Problem> {
        let dir = root.join(transfer.as_str());
        std::fs::create_dir_all(&dir).and_then(|()| disk.sync_folder(root)).map_err(|e| storage(&dir, &e))?;
        let root = root.to_owned();
        Ok(Self { dir, root, disk, contract, digest_key, destination: Mutex::new(destination) })
    }

    pub fn contract(&self) -> &Contract {
        &self.contract
    }
    pub fn digest_key(&self) -> [u8; 32] {
        self.digest_key
    }
    pub fn destination(&self) -> MutexGuard<'_, Box<dyn Destination>> {
        self.destination.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stages a split whose file is whole and durable; a repeat changes nothing and gives the same.
    pub fn stage(&self, entry: &Entry) -> Result<(StagedSplit, Vec<BadRow>), Problem> {
        let (Some(root), Ok(name)) = (entry.root, std::str::from_utf8(&entry.name)) else {
            return Err(Problem::new(Code::FrameInvalid).cause("a split has no root, or a name that is no text"));
        };
        let path = self.path(&entry.name);
        let file = File::open(&path).map_err(|e| storage(&path, &e))?;
        let mut digester = Digester::new(self.digest_key);
        let mut digest = RowDigest::default();
        let reader = BatchReader::new(BufReader::with_capacity(READ_BYTES, file), entry.size, &self.contract)?;
        let mut batches = reader.map(|batch| {
            let batch = batch?;
            digester.rows(&batch, &mut digest)?;
            Ok(batch.record().clone())
        });
        let landed = self.destination().stage(name, *root, &mut batches)?;
        // A split that was staged before is not read by the destination again; its digest still is.
        batches.try_for_each(|batch: Result<_, Problem>| batch.map(|_| ()))?;
        drop(batches);
        let quarantined = landed.bad.len() as u64;
        let EntryKind::Split(counts) = &entry.kind else { return Err(Problem::new(Code::FrameInvalid)) };
        if counts.sent != digest.count || landed.landed + quarantined != digest.count {
            return Err(Problem::new(Code::Mismatch).with("peer", "the provider").cause(format!(
                "split {name}: {} rows stated, {} read, {} staged, {quarantined} refused",
                counts.sent, digest.count, landed.landed
            )));
        }
        Ok((StagedSplit { landed: landed.landed, quarantined, digest }, landed.bad))
    }

    /// Names of splits may hold any character; their files are named by hash.
    pub fn path(&self, name: &[u8]) -> PathBuf {
        self.dir.join(split_file(name))
    }

    fn part(&self, name: &[u8], resume: bool) -> Result<SplitPart, Problem> {
        let path = self.path(name);
        let open = || -> io::Result<File> {
            if !resume {
                match std::fs::remove_file(&path) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                    _ => {}
                }
            }
            File::options().create(true).truncate(false).write(true).open(&path)
        };
        let file = open().map_err(|e| storage(&path, &e))?;
        Ok(SplitPart { file, path, disk: self.disk.clone() })
    }

    /// Takes over a split's file from a transfer that failed. False where it is gone.
    fn adopt(&self, predecessor: &TransferId, name: &[u8]) -> Result<bool, Problem> {
        let (from, to) = (self.root.join(predecessor.as_str()).join(split_file(name)), self.path(name));
        let link = || -> io::Result<bool> {
            match std::fs::remove_file(&to) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            match std::fs::hard_link(&from, &to) {
                Ok(()) => Ok(true),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
                Err(e) => Err(e),
            }
        };
        link().map_err(|e| storage(&to, &e))
    }

    /// Takes the transfer's files away, once it is settled or given up.
    pub fn remove(root: &Path, transfer: &TransferId) -> Result<(), Problem> {
        let dir = root.join(transfer.as_str());
        match std::fs::remove_dir_all(&dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(storage(&dir, &e)),
            _ => Ok(()),
        }
    }
}

struct SplitPart {
    file: File,
    path: PathBuf,
    disk: Arc<dyn Disk>,
}

impl SplitPart {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), Problem> {
        self.disk
            .before_write(&self.path, bytes.len() as u64)
            .and_then(|()| self.file.write_all_at(bytes, offset))
            .map_err(|e| storage(&self.path, &e))
    }
    fn sync(&self, disk: &dyn Disk) -> Result<(), Problem> {
        disk.sync_file(self.file.as_fd(), &self.path).map_err(|e| storage(&self.path, &e))
    }
}

fn split_file(name: &[u8]) -> String {
    let hash = blake3::hash(name).to_hex();
    format!("{}.split", &hash.as_str()[..32])
}

/// Everything that the provider handed over is durable here and agrees with what it signed.
#[derive(Debug, Clone)]
pub struct Staged {
    facts: Facts,
    manifest: Manifest,
}

/// Its durable form.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
struct Facts {
    /// The provider's statement, as it came.
    #[n(0)]
    statement: ByteVec,
    #[n(1)]
    content_root: ByteArray<32>,
    #[n(2)]
    counts: Counts,
    #[n(3)]
    digest_commitment: Option<ByteArray<32>>,
    #[n(4)]
    left_out: Vec<LeftOut>,
    #[n(5)]
    left_out_sha256: Option<ByteArray<32>>,
    #[n(6)]
    manifest: ByteVec,
}

/// What the provider's handover said, once its statement is verified.
pub struct HandedOver<'a> {
    pub statement: &'a Statement,
    pub digest: Option<RowDigest>,
    pub salt: [u8; 32],
}

impl Staged {
    /// `machine` has every entry whole, and `stage` made all of it durable. Fails where this node's own
    /// sums are not what the provider signed.
    pub fn of(machine: &mut Consumer, handed: &HandedOver<'_>, splits: Option<SplitTotals>) -> Result<Self, Problem> {
        let peer = handed.statement.issuer();
        let mismatch = |cause: &str| Problem::new(Code::Mismatch).with("peer", peer).cause(cause);
        let Some(manifest) = handed.statement.manifest() else {
            return Err(mismatch("its statement hands nothing over"));
        };
        machine.check(manifest)?;
        let Some(totals) = machine.totals().cloned() else { return Err(mismatch("not everything has come")) };
        let mut counts = totals.counts;
        let mut digest_commitment = None;
        if let Some(splits) = splits {
            if handed.digest != Some(splits.digest) {
                return Err(mismatch("the digest of the rows is not that of the rows that came"));
            }
            let commitment = ByteArray::from(splits.digest.commitment(&handed.salt));
            if manifest.digest_commitment.as_ref() != Some(&commitment) {
                return Err(mismatch("its statement commits to another digest than it opened"));
            }
            digest_commitment = Some(commitment);
            counts.rows_landed = splits.landed;
            counts.rows_quarantined = splits.quarantined;
        } else if manifest.digest_commitment.is_some() || handed.digest.is_some() {
            return Err(mismatch("it states a digest of rows, but handed over files"));
        }
        let left_out = machine.left_out();
        counts.refused = left_out.len() as u64;
        let facts = Facts {
            statement: handed.statement.bytes().to_vec().into(),
            content_root: totals.content_root.into(),
            counts,
            digest_commitment,
            left_out: left_out.listed(),
            left_out_sha256: left_out.sha256().map(ByteArray::from),
            manifest: codec::encode(manifest).into(),
        };
        Ok(Self { facts, manifest: manifest.clone() })
    }

    /// From here on the commit needs the line no more.
    pub fn record(&self, at: &Connection, transfer: &TransferId) -> Result<(), Problem> {
        exchange::set_landing_staged(at, transfer, &self.facts)
    }

    /// What an earlier run of this node recorded.
    pub fn load(at: &Connection, transfer: &TransferId) -> Result<Option<Self>, Problem> {
        let Some(facts) = exchange::landing_staged::<Facts>(at, transfer)? else { return Ok(None) };
        let manifest = codec::decode(&facts.manifest, limits::STATEMENT_BYTES_MAX)
            .map_err(|e| Problem::new(Code::StoreDamaged).cause(e))?;
        Ok(Some(Self { facts, manifest }))
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }
    /// The provider's statement as it came.
    pub fn statement(&self) -> &[u8] {
        &self.facts.statement
    }
    pub fn counts(&self) -> &Counts {
        &self.facts.counts
    }
    pub fn content_root(&self) -> ByteArray<32> {
        self.facts.content_root
    }
    pub fn digest_commitment(&self) -> Option<ByteArray<32>> {
        self.facts.digest_commitment
    }
    pub fn left_out(&self) -> (&[LeftOut], Option<ByteArray<32>>) {
        (&self.facts.left_out, self.facts.left_out_sha256)
    }
}

/// The sums over all staged splits of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SplitTotals {
    pub digest: RowDigest,
    pub landed: u64,
    pub quarantined: u64,
}

impl SplitTotals {
    pub fn add(&mut self, split: &StagedSplit) {
        self.digest.merge(&split.digest);
        self.landed += split.landed;
        self.quarantined += split.quarantined;
    }
}

const READ_BYTES: usize = 256 << 10;
