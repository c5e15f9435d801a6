//! Parts that are made: each under a name that nobody takes for one until it is whole and durable, the last one until all
//! is recorded.

use super::label::hint;
use super::{BLOCK_BYTES, BLOCKS, Holds, LABEL, LABEL_TYPE, LAST, Label, MAGIC, MAKING, MORE, inside, storage};
use posthouse_platform::disk::Disk;
use posthouse_platform::identity::ferry_key::{FerryPublicKey, HpkeSealer, SECRET_BYTES, sealer};
use posthouse_protocol::codec;
use posthouse_protocol::cose::{self, Claims, Signer};
use posthouse_protocol::id::{JobId, NodeId, TransferId};
use posthouse_protocol::problem::Problem;
use posthouse_protocol::time::Timestamp;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where parts are put.
#[derive(Debug, Clone)]
pub struct Outlet {
    pub folder: PathBuf,
    /// A part is closed once it is as long; it may be longer by one chunk.
    pub part_bytes: u64,
    pub suffix: String,
}

/// Who makes parts, and for whom.
#[derive(Clone)]
pub(in crate::ferry) struct Maker {
    pub name: NodeId,
    pub signer: Arc<dyn Signer>,
    pub disk: Arc<dyn Disk>,
    pub now: Timestamp,
    pub to: NodeId,
    pub to_key: FerryPublicKey,
    pub transfer: TransferId,
    pub job: JobId,
    pub edition: [u8; 8],
    pub outlet: Outlet,
}

/// The parts of one making, written one after the other. All calls block.
pub(in crate::ferry) struct Parts {
    maker: Maker,
    holds: Holds,
    number: u32,
    open: Option<OpenPart>,
    last: Option<MadePart>,
    made: Vec<PathBuf>,
    bytes: u64,
}

impl Parts {
    pub(in crate::ferry) fn new(maker: Maker, holds: Holds) -> Self {
        Self { maker, holds, number: 0, open: None, last: None, made: Vec::new(), bytes: 0 }
    }

    /// Appends bytes that must stand in one part; the next may follow in another.
    pub(in crate::ferry) fn put(&mut self, pieces: &[&[u8]]) -> Result<(), Problem> {
        let part = match &mut self.open {
            Some(part) => part,
            None => {
                self.number += 1;
                self.open.insert(OpenPart::create(&self.maker, self.number)?)
            }
        };
        for piece in pieces {
            part.write(piece)?;
        }
        if part.sealed_bytes >= self.maker.outlet.part_bytes { self.close() } else { Ok(()) }
    }

    /// What follows is of another kind, and in other parts.
    pub(in crate::ferry) fn turn_to(&mut self, holds: Holds) -> Result<(), Problem> {
        self.close()?;
        self.holds = holds;
        Ok(())
    }

    /// Makes the last part, durably; it has its name once [`put_out`](Self::put_out) gives it.
    pub(in crate::ferry) fn finish(&mut self) -> Result<(), Problem> {
        if self.open.is_none() {
            // The last one was full just now: an empty one says that nothing follows.
            self.put(&[])?;
        }
        let Some(part) = self.open.take() else { return Ok(()) };
        self.last = Some(part.finish(&self.maker, self.holds, self.number, Some(self.number))?);
        Ok(())
    }

    /// With the last part they are complete. Where it fails, the part waits for another try, and goes with what is dropped.
    pub(in crate::ferry) fn put_out(&mut self) -> Result<(), Problem> {
        let Some(part) = self.last.take() else { return Ok(()) };
        let kept = self.keep(&part);
        self.last = kept.is_err().then_some(part);
        kept
    }

    /// The last part stays where it is without its name: [`put_out`] finds it there.
    pub(in crate::ferry) fn leave(&mut self) {
        if let Some(part) = self.last.take() {
            std::mem::forget(part);
        }
    }

    /// How many there are, and how long they are together.
    pub(in crate::ferry) fn made(&self) -> (u32, u64) {
        (self.made.len() as u32, self.bytes)
    }

    /// How long what is made is, the last part included.
    pub(in crate::ferry) fn bytes(&self) -> u64 {
        self.bytes + self.last.as_ref().map_or(0, |last| last.bytes)
    }

    /// Takes back what stands there of them; false where some of it may be elsewhere: carried away, or on a disk that is
    /// gone.
    pub(in crate::ferry) fn discard(&mut self) -> bool {
        (self.open, self.last) = (None, None);
        let mut is_clear = self.maker.outlet.folder.exists();
        for path in self.made.drain(..) {
            is_clear &= std::fs::remove_file(path).is_ok();
        }
        is_clear
    }

    fn close(&mut self) -> Result<(), Problem> {
        let Some(part) = self.open.take() else { return Ok(()) };
        let made = part.finish(&self.maker, self.holds, self.number, None)?;
        self.keep(&made)
    }

    fn keep(&mut self, part: &MadePart) -> Result<(), Problem> {
        self.made.push(part.put_out(&*self.maker.disk)?);
        self.bytes += part.bytes;
        Ok(())
    }
}

/// Removes what stands in a folder of the parts of a transfer, or of one making of them, also what was being made; how
/// many. Blocks.
pub(in crate::ferry) fn take_back(folder: &Path, transfer: &TransferId, edition: Option<[u8; 8]>) -> usize {
    // What was carried away meanwhile is never complete.
    let removed = |path: &PathBuf| std::fs::remove_file(path).is_ok();
    standing(folder, transfer, edition).into_iter().filter(|(path, _)| removed(path)).count()
}

/// Gives the last part of a transfer its name, where it was made and the node stopped right before that; how many got one.
/// Blocks.
pub(in crate::ferry) fn put_out(
    folder: &Path,
    transfer: &TransferId,
    edition: Option<[u8; 8]>,
    disk: &dyn Disk,
) -> Result<usize, Problem> {
    let mut count = 0;
    for (path, name) in standing(folder, transfer, edition) {
        let Some(name) = name.strip_prefix('.').and_then(|name| name.strip_suffix(MAKING)) else { continue };
        let named = std::fs::rename(&path, folder.join(name)).and_then(|()| disk.sync_folder(folder));
        named.map_err(|e| storage(&path, &e))?;
        count += 1;
    }
    Ok(count)
}

/// What in a folder has the name of a part of this transfer, and of this making where it is known.
fn standing(folder: &Path, transfer: &TransferId, edition: Option<[u8; 8]>) -> Vec<(PathBuf, String)> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let start = match edition {
        Some(edition) => named_for_making(transfer, edition),
        None => named_for(transfer),
    };
    let named = |entry: std::fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        name.strip_prefix('.').unwrap_or(&name).starts_with(&start).then(|| (entry.path(), name))
    };
    entries.flatten().filter_map(named).collect()
}

/// What names of a transfer's parts begin with. They do not tell its id to whoever sees them pass.
fn named_for(transfer: &TransferId) -> String {
    let sha256 = codec::sha256(transfer.as_str().as_bytes());
    format!("{}-", hex::encode(&sha256[..8]))
}

/// The same of one making: another one of the same transfer, such as the consumer's answer, has other names.
fn named_for_making(transfer: &TransferId, edition: [u8; 8]) -> String {
    format!("{}{}-", named_for(transfer), hex::encode(edition))
}

/// A part that is being written, under a name that nobody takes for one.
struct OpenPart {
    file: BufWriter<File>,
    temporary: Temporary,
    path: PathBuf,
    disk: Arc<dyn Disk>,
    sealer: Box<dyn HpkeSealer>,
    secret: [u8; SECRET_BYTES],
    plain: Vec<u8>,
    sealed_bytes: u64,
}

impl OpenPart {
    fn create(maker: &Maker, number: u32) -> Result<Self, Problem> {
        let Outlet { folder, suffix, .. } = &maker.outlet;
        let name = format!("{}{number:05}{suffix}", named_for_making(&maker.transfer, maker.edition));
        let (path, temporary) = (folder.join(&name), folder.join(format!(".{name}{MAKING}")));
        // Others may write to this folder: nothing that they put there is written through.
        let _ = std::fs::remove_file(&temporary);
        let file = File::options().write(true).create_new(true).open(&temporary);
        let file = file.map_err(|e| storage(&temporary, &e))?;
        let (secret, sealer) = sealer(&maker.to_key, BLOCKS)?;
        let secret = secret.try_into().map_err(|_| inside("an encapsulated secret of another length"))?;
        Ok(Self {
            file: BufWriter::with_capacity(BLOCK_BYTES, file),
            temporary: Temporary(temporary),
            path,
            disk: maker.disk.clone(),
            sealer,
            secret,
            plain: Vec::with_capacity(BLOCK_BYTES),
            sealed_bytes: 0,
        })
    }

    fn write(&mut self, mut bytes: &[u8]) -> Result<(), Problem> {
        while !bytes.is_empty() {
            if self.plain.len() == BLOCK_BYTES {
                self.block(MORE)?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK_BYTES - self.plain.len()));
            self.plain.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    fn block(&mut self, which: &[u8]) -> Result<(), Problem> {
        let sealed = self.sealer.seal(which, &self.plain).map_err(inside)?;
        self.plain.clear();
        let length = (sealed.len() as u32).to_be_bytes();
        self.append(&[&length, &sealed])?;
        self.sealed_bytes += (length.len() + sealed.len()) as u64;
        Ok(())
    }

    fn append(&mut self, pieces: &[&[u8]]) -> Result<(), Problem> {
        for piece in pieces {
            let written =
                self.disk.before_write(&self.temporary.0, piece.len() as u64).and_then(|()| self.file.write_all(piece));
            written.map_err(|e| storage(&self.temporary.0, &e))?;
        }
        Ok(())
    }

    /// Durable, but for its name.
    fn finish(mut self, maker: &Maker, holds: Holds, number: u32, of: Option<u32>) -> Result<MadePart, Problem> {
        self.block(LAST)?;
        let label = Label {
            transfer: maker.transfer.clone(),
            to: maker.to.clone(),
            job: maker.job.clone(),
            holds,
            edition: maker.edition.into(),
            number,
            of,
            secret: self.secret.into(),
            sealed_bytes: self.sealed_bytes,
        };
        let claims = Claims::new(maker.name.clone(), maker.transfer.as_str(), maker.now);
        let signed = cose::seal(LABEL_TYPE, &claims, &codec::encode(&label), &*maker.signer).map_err(inside)?;
        let (secret, mut sealing) = sealer(&maker.to_key, LABEL)?;
        let sealed = sealing.seal(&[], &signed).map_err(inside)?;
        let length = ((secret.len() + sealed.len()) as u32).to_be_bytes();
        self.append(&[&secret, &sealed, &length, &hint(&maker.to_key), MAGIC])?;
        let failed = |e: io::Error| storage(&self.temporary.0, &e);
        self.file.flush().map_err(failed)?;
        let bytes = self.file.get_ref().metadata().map_err(failed)?.len();
        self.disk.sync_file(self.file.get_ref().as_fd(), &self.temporary.0).map_err(failed)?;
        Ok(MadePart { temporary: self.temporary, path: self.path, bytes })
    }
}

/// A part that is whole and durable, but for its name.
struct MadePart {
    temporary: Temporary,
    path: PathBuf,
    bytes: u64,
}

impl MadePart {
    fn put_out(&self, disk: &dyn Disk) -> Result<PathBuf, Problem> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let named = std::fs::rename(&self.temporary.0, &self.path).and_then(|()| disk.sync_folder(folder));
        named.map_err(|e| storage(&self.path, &e))?;
        Ok(self.path.clone())
    }
}

/// Gone with whoever made it, unless it was renamed.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
