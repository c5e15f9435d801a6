//! 摆渡分件: one file of what is carried, sealed to the node that it is for and signed by the node that made it.
//!
//! A part is blocks (u32 big-endian length, then that many sealed bytes), the label (sealed as well), the label's length
//! as u32, a hint whose key opens it, and [`MAGIC`]. The label comes last, so that a file that is still being copied is no part yet. Blocks hold a
//! stream: of contents what a data channel carries, of a list or an answer what a control channel carries.
//! Every length is bounded before it is read; what was cut, turned or mixed does not open.

use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};
use posthouse_platform::disk::{Disk, is_full};
use posthouse_platform::identity::ferry_key::{
    FerryKey, FerryPublicKey, HpkeOpener, HpkeSealer, SEAL_BYTES, SECRET_BYTES, sealer,
};
use posthouse_protocol::codec;
use posthouse_protocol::cose::{self, Claims, Keys, Signer};
use posthouse_protocol::id::{JobId, NodeId, TransferId};
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::time::Timestamp;
use rustix::fs::OFlags;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a part holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub(super) enum Holds {
    /// Chunks.
    #[n(0)]
    Contents,
    /// The request, the offer, the handover, every entry and what was left out.
    #[n(1)]
    List,
    /// The consumer's statement, on its way back.
    #[n(2)]
    Answer,
}

/// What a part says of itself, under its maker's signature.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Label {
    #[n(0)]
    pub transfer: TransferId,
    #[n(1)]
    pub to: NodeId,
    #[n(2)]
    pub job: JobId,
    #[n(3)]
    pub holds: Holds,
    /// Parts of one making belong together; a transfer that is made into parts anew has another.
    #[n(4)]
    pub edition: ByteArray<8>,
    /// From 1.
    #[n(5)]
    pub number: u32,
    /// How many there are; only the last part knows.
    #[n(6)]
    pub of: Option<u32>,
    /// The encapsulated secret of its blocks: whoever signs it here has made them.
    #[n(7)]
    pub secret: ByteArray<SECRET_BYTES>,
    /// Length of the blocks as they stand in the file.
    #[n(8)]
    pub sealed_bytes: u64,
}

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
pub(super) struct Maker {
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
pub(super) struct Parts {
    maker: Maker,
    holds: Holds,
    number: u32,
    open: Option<OpenPart>,
    last: Option<MadePart>,
    made: Vec<PathBuf>,
    bytes: u64,
}

impl Parts {
    pub(super) fn new(maker: Maker, holds: Holds) -> Self {
        Self { maker, holds, number: 0, open: None, last: None, made: Vec::new(), bytes: 0 }
    }

    /// Appends bytes that must stand in one part; the next may follow in another.
    pub(super) fn put(&mut self, pieces: &[&[u8]]) -> Result<(), Problem> {
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
    pub(super) fn turn_to(&mut self, holds: Holds) -> Result<(), Problem> {
        self.close()?;
        self.holds = holds;
        Ok(())
    }

    /// Makes the last part, durably; it has its name once [`put_out`](Self::put_out) gives it.
    pub(super) fn finish(&mut self) -> Result<(), Problem> {
        if self.open.is_none() {
            // The last one was full just now: an empty one says that nothing follows.
            self.put(&[])?;
        }
        let Some(part) = self.open.take() else { return Ok(()) };
        self.last = Some(part.finish(&self.maker, self.holds, self.number, Some(self.number))?);
        Ok(())
    }

    /// With the last part they are complete.
    pub(super) fn put_out(&mut self) -> Result<(), Problem> {
        match self.last.take() {
            Some(part) => self.keep(part),
            None => Ok(()),
        }
    }

    /// How many there are, and how long they are together.
    pub(super) fn made(&self) -> (u32, u64) {
        (self.made.len() as u32, self.bytes)
    }

    /// How long what is made is, the last part included.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes + self.last.as_ref().map_or(0, |last| last.bytes)
    }

    /// Takes back what stands there of them.
    pub(super) fn discard(&mut self) {
        (self.open, self.last) = (None, None);
        for path in self.made.drain(..) {
            // It may have been carried away.
            let _ = std::fs::remove_file(path);
        }
    }

    fn close(&mut self) -> Result<(), Problem> {
        let Some(part) = self.open.take() else { return Ok(()) };
        let made = part.finish(&self.maker, self.holds, self.number, None)?;
        self.keep(made)
    }

    fn keep(&mut self, part: MadePart) -> Result<(), Problem> {
        let bytes = part.bytes;
        self.made.push(part.put_out(&*self.maker.disk)?);
        self.bytes += bytes;
        Ok(())
    }
}

/// Removes what stands in a folder of the parts of a transfer, also what was being made. Blocks.
pub(super) fn take_back(folder: &Path, transfer: &TransferId) {
    for (path, _) in standing(folder, transfer) {
        // What was carried away meanwhile is never complete.
        let _ = std::fs::remove_file(path);
    }
}

/// Gives the last part of a transfer its name, where it was made and the node stopped right before that. Blocks.
pub(super) fn put_out(folder: &Path, transfer: &TransferId, disk: &dyn Disk) -> Result<(), Problem> {
    for (path, name) in standing(folder, transfer) {
        let Some(name) = name.strip_prefix('.').and_then(|name| name.strip_suffix(MAKING)) else { continue };
        let named = std::fs::rename(&path, folder.join(name)).and_then(|()| disk.sync_folder(folder));
        named.map_err(|e| storage(&path, &e))?;
    }
    Ok(())
}

fn standing(folder: &Path, transfer: &TransferId) -> Vec<(PathBuf, String)> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let named = |entry: std::fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        name.trim_start_matches('.').starts_with(&named_for(transfer)).then(|| (entry.path(), name))
    };
    entries.flatten().filter_map(named).collect()
}

/// What names of a transfer's parts begin with. They do not tell its id to whoever sees them pass.
fn named_for(transfer: &TransferId) -> String {
    let sha256 = codec::sha256(transfer.as_str().as_bytes());
    format!("{}-", hex::encode(&sha256[..8]))
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
        let name = format!("{}{}-{number:05}{suffix}", named_for(&maker.transfer), hex::encode(maker.edition));
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
    fn put_out(self, disk: &dyn Disk) -> Result<PathBuf, Problem> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let named = std::fs::rename(&self.temporary.0, &self.path).and_then(|()| disk.sync_folder(folder));
        named.map_err(|e| storage(&self.path, &e))?;
        Ok(self.path)
    }
}

/// Gone with whoever made it, unless it was renamed.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A part that was looked at: who made it, and what it says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub path: PathBuf,
    pub from: NodeId,
    pub label: Label,
    /// When its making began, by its maker's clock.
    pub made: Timestamp,
}

/// Who looks at parts.
#[derive(Clone, Copy)]
pub(super) struct Eyes<'a> {
    pub me: &'a NodeId,
    pub key: &'a FerryKey,
    pub keys: &'a dyn Keys,
}

/// Looks at the label of a file. None where it is none yet, for another node, or no part at all.
pub(super) fn look(path: &Path, eyes: Eyes<'_>) -> Result<Option<Found>, Problem> {
    let mut file = open(path)?;
    let bytes = file.metadata().map_err(|e| storage(path, &e))?.len();
    let Some(end) = bytes.checked_sub(TRAILER_BYTES as u64) else { return Ok(None) };
    let mut trailer = [0; TRAILER_BYTES];
    let read = file.seek(SeekFrom::Start(end)).and_then(|_| file.read_exact(&mut trailer));
    read.map_err(|e| storage(path, &e))?;
    let (length, rest) = trailer.split_at(4);
    let (hinted, magic) = rest.split_at(HINT_BYTES);
    if magic != MAGIC || hinted != hint(eyes.key.public()) {
        return Ok(None);
    }
    let length = u32::from_be_bytes(length.try_into().unwrap_or_default()) as usize;
    if !(SECRET_BYTES + SEAL_BYTES..=LABEL_BYTES_MAX).contains(&length) {
        return Err(invalid(path, "its label has an impossible length"));
    }
    let Some(start) = end.checked_sub(length as u64) else { return Err(invalid(path, "it is shorter than its label")) };
    let mut sealed = vec![0; length];
    let read = file.seek(SeekFrom::Start(start)).and_then(|_| file.read_exact(&mut sealed));
    read.map_err(|e| storage(path, &e))?;
    let (secret, sealed) = sealed.split_at(SECRET_BYTES);
    let opened = eyes.key.opener(secret, LABEL).ok().and_then(|mut opener| opener.open(&[], sealed).ok());
    let signed = opened.ok_or_else(|| invalid(path, "its label does not open"))?;
    let opened = cose::open(&signed, LABEL_BYTES_MAX, LABEL_TYPE, eyes.keys).map_err(|e| invalid(path, e))?;
    let label: Label = codec::decode(&opened.payload, LABEL_BYTES_MAX).map_err(|e| invalid(path, e))?;
    if opened.claims.subject != label.transfer.as_str() || label.sealed_bytes != start || label.number == 0 {
        return Err(invalid(path, "its label is not of this file"));
    }
    if label.to != *eyes.me {
        return Err(invalid(path, format!("{} made it for {}", opened.claims.issuer, label.to)));
    }
    let Claims { issuer, issued, .. } = opened.claims;
    Ok(Some(Found { path: path.to_owned(), from: issuer, label, made: issued }))
}

/// A plain file. Others may write to its folder: no link is followed, and nothing else is waited for.
fn open(path: &Path) -> Result<File, Problem> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path);
    let file = file.map_err(|e| storage(path, &e))?;
    match file.metadata() {
        Ok(meta) if meta.is_file() => Ok(file),
        Ok(_) => Err(invalid(path, "it is no file")),
        Err(e) => Err(storage(path, &e)),
    }
}

/// Tells those for whom a part is not, at a glance.
fn hint(key: &FerryPublicKey) -> [u8; HINT_BYTES] {
    let mut hint = [0; HINT_BYTES];
    hint.copy_from_slice(&codec::sha256(key)[..HINT_BYTES]);
    hint
}

/// Puts aside those parts that are not what was sealed, so that other copies may come in their place; how many. Blocks.
pub(super) fn put_damaged_aside(parts: &[Found], key: &FerryKey) -> Result<usize, Problem> {
    let mut aside = 0;
    for part in parts {
        // Which one it is shows when each is read to its end.
        let whole = Stream::open(part, key)
            .and_then(|mut stream| io::copy(&mut stream, &mut io::sink()).map_err(|e| unreadable(&part.path, &e)));
        match whole {
            Err(problem) if problem.code == Code::PartInvalid => {
                tracing::warn!(%problem, "A part is put aside; carry it again");
                let mut to = part.path.clone().into_os_string();
                to.push(ASIDE);
                std::fs::rename(&part.path, to).map_err(|e| storage(&part.path, &e))?;
                aside += 1;
            }
            _ => {}
        }
    }
    Ok(aside)
}

/// The stream of a part, block by block. An error of kind `InvalidData` is the file's fault.
pub(super) struct Stream {
    file: BufReader<File>,
    opener: Box<dyn HpkeOpener>,
    left: u64,
    plain: Vec<u8>,
    at: usize,
}

impl Stream {
    pub(super) fn open(found: &Found, key: &FerryKey) -> Result<Self, Problem> {
        let file = open(&found.path)?;
        let opener = key.opener(&*found.label.secret, BLOCKS).map_err(|e| invalid(&found.path, e.said()))?;
        let left = found.label.sealed_bytes;
        Ok(Self { file: BufReader::with_capacity(BLOCK_BYTES, file), opener, left, plain: Vec::new(), at: 0 })
    }

    fn next_block(&mut self) -> io::Result<()> {
        let damaged = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let mut length = [0; 4];
        self.file.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        let after = self.left.checked_sub(4 + length as u64);
        let (Some(after), SEAL_BYTES..=SEALED_BYTES_MAX) = (after, length) else {
            return Err(damaged("a block has an impossible length"));
        };
        let mut sealed = vec![0; length];
        self.file.read_exact(&mut sealed)?;
        let which = if after == 0 { LAST } else { MORE };
        self.plain = self.opener.open(which, &sealed).map_err(|_| damaged("a block is not what was sealed"))?;
        (self.left, self.at) = (after, 0);
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at == self.plain.len() && self.left > 0 {
            self.next_block()?;
        }
        let rest = self.plain.get(self.at..).unwrap_or_default();
        let read = rest.len().min(out.len());
        out[..read].copy_from_slice(&rest[..read]);
        self.at += read;
        Ok(read)
    }
}

pub(super) fn invalid(path: &Path, cause: impl std::fmt::Display) -> Problem {
    Problem::new(Code::PartInvalid).with("path", path.display()).cause(cause)
}

/// What reading a part's stream failed with.
pub(super) fn unreadable(path: &Path, error: &io::Error) -> Problem {
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => invalid(path, error),
        _ => storage(path, error),
    }
}

fn storage(path: &Path, error: &io::Error) -> Problem {
    let code = if is_full(error) { Code::DiskFull } else { Code::StorageFailed };
    Problem::new(code).with("path", path.display()).cause(error)
}

fn inside(cause: impl std::fmt::Display) -> Problem {
    Problem::new(Code::InsideFailed).cause(cause)
}

/// The last bytes of every part.
pub(super) const MAGIC: &[u8; 8] = b"PHFERRY1";
const TRAILER_BYTES: usize = 4 + HINT_BYTES + MAGIC.len();
const HINT_BYTES: usize = 8;
/// Behind the name of a part that is being made, and of one that is damaged.
const MAKING: &str = ".making";
pub(crate) const ASIDE: &str = ".damaged";
const LABEL_TYPE: &str = "application/vnd.posthouse.part+cbor";
const LABEL_BYTES_MAX: usize = 8 << 10;
/// Plain bytes of a block.
const BLOCK_BYTES: usize = 256 << 10;
const SEALED_BYTES_MAX: usize = BLOCK_BYTES + SEAL_BYTES;
/// What was sealed, and which block it is: none can be dropped at the end, or stand for another.
const BLOCKS: &[u8] = b"posthouse part blocks";
const LABEL: &[u8] = b"posthouse part label";
const MORE: &[u8] = &[0];
const LAST: &[u8] = &[1];

#[cfg(test)]
mod tests {
    use super::*;
    use posthouse_platform::disk::RealDisk;
    use posthouse_protocol::cose::Ed25519Signer;

    struct Scene {
        folder: tempfile::TempDir,
        key: FerryKey,
        signer: Arc<Ed25519Signer>,
    }

    fn me() -> NodeId {
        "housing.test.example".parse().unwrap()
    }

    impl Scene {
        fn new() -> Self {
            let signer = Arc::new(Ed25519Signer::from_seed(&[1; 32]).unwrap());
            Self { folder: tempfile::tempdir().unwrap(), key: FerryKey::from_seed(&[2; 32]).unwrap(), signer }
        }
        fn parts(&self, part_bytes: u64) -> Parts {
            let maker = Maker {
                name: "police.test.example".parse().unwrap(),
                signer: self.signer.clone(),
                disk: Arc::new(RealDisk),
                now: Timestamp(1_000),
                to: me(),
                to_key: *self.key.public(),
                transfer: TransferId::from_random([3; 16]),
                job: "scans".parse().unwrap(),
                edition: [4; 8],
                outlet: Outlet { folder: self.folder.path().to_owned(), part_bytes, suffix: ".part".to_owned() },
            };
            Parts::new(maker, Holds::Contents)
        }
        fn look(&self, path: &Path) -> Result<Option<Found>, Problem> {
            look(path, Eyes { me: &me(), key: &self.key, keys: &self.signer.public_key() })
        }
        fn files(&self) -> Vec<PathBuf> {
            let mut all: Vec<_> =
                std::fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
            all.sort();
            all
        }
        fn read(&self, path: &Path) -> Result<Vec<u8>, Problem> {
            let found = self.look(path)?.ok_or_else(|| invalid(path, "no part"))?;
            let mut all = Vec::new();
            Stream::open(&found, &self.key)?.read_to_end(&mut all).map_err(|e| unreadable(path, &e))?;
            Ok(all)
        }
    }

    #[test]
    fn what_was_put_comes_back_from_parts_of_the_length_that_was_asked() {
        let scene = Scene::new();
        let mut parts = scene.parts(600 << 10);
        let pieces: Vec<Vec<u8>> = (0..20u8).map(|n| vec![n; 100_000 + usize::from(n)]).collect();
        for piece in &pieces {
            parts.put(&[&piece[..10], &piece[10..]]).unwrap();
        }
        parts.finish().unwrap();
        parts.put_out().unwrap();
        let files = scene.files();
        assert!(files.len() > 2 && parts.made().0 as usize == files.len(), "{files:?}");
        let back: Vec<u8> = files.iter().flat_map(|path| scene.read(path).unwrap()).collect();
        assert_eq!(back, pieces.concat());
        for (at, path) in files.iter().enumerate() {
            let found = scene.look(path).unwrap().unwrap();
            assert_eq!(found.from.as_str(), "police.test.example");
            assert_eq!(found.label.number as usize, at + 1);
            assert_eq!(found.label.of, (at + 1 == files.len()).then_some(files.len() as u32));
        }
    }

    #[test]
    fn nothing_of_a_part_can_be_changed_cut_or_read_by_others() {
        let scene = Scene::new();
        let mut parts = scene.parts(1 << 30);
        let secret = vec![0xa5; 300 << 10];
        parts.put(&[&secret]).unwrap();
        parts.finish().unwrap();
        let transfer = TransferId::from_random([3; 16]);
        // The node stops here, and gives it its name at its next start.
        std::mem::forget(parts);
        put_out(scene.folder.path(), &transfer, &RealDisk).unwrap();
        let path = scene.files().pop().unwrap();
        assert!(scene.look(&path).unwrap().is_some());
        let good = std::fs::read(&path).unwrap();
        assert!(!good.windows(32).any(|window| window == &secret[..32]), "the content stands there in the clear");
        for at in (0..good.len()).step_by(1_777).chain(good.len() - 400..good.len()) {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&path, &bad).unwrap();
            match scene.read(&path) {
                Ok(content) => panic!("byte {at} of {} says nothing: {}", good.len(), content == secret),
                Err(problem) => assert_eq!(problem.code, Code::PartInvalid, "{problem}"),
            }
        }
        for length in [0, 1, 11, 12, 20, 100, good.len() / 2, good.len() - 1] {
            std::fs::write(&path, &good[..length]).unwrap();
            assert!(scene.look(&path).unwrap().is_none(), "cut to {length}");
        }
        // A block less, with the label as it was.
        let first = 4 + u32::from_be_bytes(good[..4].try_into().unwrap()) as usize;
        std::fs::write(&path, &good[first..]).unwrap();
        assert_eq!(scene.read(&path).unwrap_err().code, Code::PartInvalid);
        std::fs::write(&path, &good).unwrap();
        let other = FerryKey::from_seed(&[9; 32]).unwrap();
        let (me, key) = (me(), scene.signer.public_key());
        assert_eq!(look(&path, Eyes { me: &me, key: &other, keys: &key }), Ok(None), "it is for somebody else");
        let stranger = Ed25519Signer::from_seed(&[8; 32]).unwrap().public_key();
        assert!(look(&path, Eyes { me: &me, key: &scene.key, keys: &stranger }).is_err());
        let another = "bureau.test.example".parse().unwrap();
        assert!(look(&path, Eyes { me: &another, key: &scene.key, keys: &key }).is_err());
        let link = scene.folder.path().join("link.part");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(scene.look(&link).is_err());
        assert_eq!(scene.read(&path).unwrap(), secret);
    }

    #[test]
    fn parts_that_are_not_finished_leave_nothing_behind() {
        let scene = Scene::new();
        let mut parts = scene.parts(200 << 10);
        parts.put(&[&vec![1; 300 << 10]]).unwrap();
        parts.put(&[&[2; 10]]).unwrap();
        assert_eq!(scene.files().len(), 2, "one, and one that is being made");
        parts.discard();
        assert_eq!(scene.files(), Vec::<PathBuf>::new());
    }
}
