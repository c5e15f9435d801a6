//! What tells one state of a file from another.

use posthouse_protocol::manifest::EntryKind;
use rustix::fs::{FileType, Stat};

/// As long as this stays equal the file has not been written to, replaced or had its rights changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FileStat {
    pub size: u64,
    /// Permission bits (07777).
    pub mode: u32,
    pub mtime_ns: i64,
    pub ctime_ns: i64,
    pub inode: u64,
    pub device: u64,
}

impl FileStat {
    pub(crate) fn of(stat: &Stat) -> Self {
        Self {
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mode: stat.st_mode & 0o7777,
            mtime_ns: nanoseconds(stat.st_mtime, stat.st_mtime_nsec as i64),
            ctime_ns: nanoseconds(stat.st_ctime, stat.st_ctime_nsec as i64),
            inode: stat.st_ino,
            device: stat.st_dev,
        }
    }
}

/// The permission bits that travel. A department's node must not plant a program that runs as another
/// user, so files lose setuid and setgid; on folders setgid and sticky only say who owns what is in them.
pub(crate) fn travelling_mode(kind: &EntryKind, mode: u32) -> u32 {
    match kind {
        EntryKind::Directory => mode & 0o3777,
        EntryKind::Link(_) => 0o777,
        EntryKind::File | EntryKind::Split(_) => mode & 0o1777,
    }
}

pub(crate) fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn nanoseconds(seconds: i64, rest: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(rest)
}
