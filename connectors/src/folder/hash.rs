//! Hashes what stands at a name, from memory or, to prove that it is on the disk, past it.

use super::beneath::Root;
use super::source::read_full;
use rustix::fs::{Advice, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// BLAKE3 of a regular file beneath `root`.
pub(super) fn hash_file(root: &Root, name: &[u8], reread: bool) -> std::io::Result<[u8; 32]> {
    let mut room = vec![0; HASH_BYTES + ALIGN_BYTES];
    // Reading past memory wants a place aligned to the disk's blocks.
    let start = room.as_ptr().align_offset(ALIGN_BYTES).min(ALIGN_BYTES);
    let buffer = room.get_mut(start..start + HASH_BYTES).unwrap_or_default();
    let mut direct = if reread { root.file(name, OFlags::RDONLY | OFlags::DIRECT).ok().map(File::from) } else { None };
    let buffered = File::from(root.file(name, OFlags::RDONLY)?);
    if reread {
        rustix::fs::fdatasync(&buffered)?;
        rustix::fs::fadvise(&buffered, 0, None, Advice::DontNeed)?;
    }
    let mut hasher = blake3::Hasher::new();
    let mut offset = 0u64;
    loop {
        let read = match &direct {
            // One read each: after a short one the place is no longer aligned, and it is the end or nearly.
            Some(file) => match file.read_at(buffer, offset) {
                Ok(read) if read == buffer.len() => read,
                Ok(read) => {
                    direct = None;
                    read
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                // The file system takes the flag and not the reads: dropping what memory holds has to do.
                Err(e) if e.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                    direct = None;
                    continue;
                }
                Err(e) => return Err(e),
            },
            None => {
                let read = read_full(&buffered, offset, buffer)?;
                if read == 0 {
                    return Ok(*hasher.finalize().as_bytes());
                }
                read
            }
        };
        hasher.update(buffer.get(..read).unwrap_or_default());
        offset += read as u64;
    }
}

const HASH_BYTES: usize = 1 << 20;
const ALIGN_BYTES: usize = 4096;
