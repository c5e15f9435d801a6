//! Parts that were brought: their labels, and what stands in their blocks.

use super::label::LABEL_BYTES_MAX;
use super::{
    ASIDE, BLOCK_BYTES, BLOCKS, LABEL, LABEL_TYPE, LAST, Label, MORE, SEALED_BYTES_MAX, Trailer, invalid, storage,
    unreadable,
};
use posthouse_platform::identity::ferry_key::{FerryKey, HpkeOpener, SEAL_BYTES, SECRET_BYTES};
use posthouse_protocol::cose::{self, Claims, Keys};
use posthouse_protocol::id::NodeId;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::time::Timestamp;
use rustix::fs::OFlags;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A part that was looked at: who made it, and what it says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::ferry) struct Found {
    pub path: PathBuf,
    pub from: NodeId,
    pub label: Label,
    /// When its making began, by its maker's clock.
    pub made: Timestamp,
}

/// Who looks at parts.
#[derive(Clone, Copy)]
pub(in crate::ferry) struct Eyes<'a> {
    pub me: &'a NodeId,
    pub key: &'a FerryKey,
    pub keys: &'a dyn Keys,
}

/// Looks at the label of a file. None where it is none yet, for another node, or no part at all.
pub(in crate::ferry) fn look(path: &Path, eyes: Eyes<'_>) -> Result<Option<Found>, Problem> {
    let mut file = open(path)?;
    let bytes = file.metadata().map_err(|e| storage(path, &e))?.len();
    let Some(end) = bytes.checked_sub(Trailer::BYTES as u64) else { return Ok(None) };
    let mut trailer = [0; Trailer::BYTES];
    let read = file.seek(SeekFrom::Start(end)).and_then(|_| file.read_exact(&mut trailer));
    read.map_err(|e| storage(path, &e))?;
    let trailer = Trailer::parse(&trailer).filter(|trailer| trailer.is_for(eyes.key.public()));
    let Some(trailer) = trailer else { return Ok(None) };
    let (start, length) = trailer.label(bytes).map_err(|why| invalid(path, why))?;
    let mut sealed = vec![0; length];
    let read = file.seek(SeekFrom::Start(start)).and_then(|_| file.read_exact(&mut sealed));
    read.map_err(|e| storage(path, &e))?;
    let (secret, sealed) = sealed.split_at(SECRET_BYTES);
    let opened = eyes.key.opener(secret, LABEL).ok().and_then(|mut opener| opener.open(&[], sealed).ok());
    let signed = opened.ok_or_else(|| invalid(path, "its label does not open"))?;
    let opened = cose::open(&signed, LABEL_BYTES_MAX, LABEL_TYPE, eyes.keys).map_err(|e| invalid(path, e))?;
    let label = Label::parse(&opened.payload).map_err(|e| invalid(path, e))?;
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

/// Puts aside those parts that are not what was sealed, so that other copies may come in their place; how many. Blocks.
pub(in crate::ferry) fn put_damaged_aside(parts: &[Found], key: &FerryKey) -> Result<usize, Problem> {
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
pub(in crate::ferry) struct Stream {
    file: BufReader<File>,
    opener: Box<dyn HpkeOpener>,
    left: u64,
    plain: Vec<u8>,
    at: usize,
}

impl Stream {
    pub(in crate::ferry) fn open(found: &Found, key: &FerryKey) -> Result<Self, Problem> {
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
