//! What a disk promises: room, and that synced bytes stay. Files themselves are opened with `std::fs`
//! and `rustix`; whoever makes something durable does it through [`Disk`], so that a test can fill
//! the disk or fail a sync at the moment it chooses.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

pub trait Disk: Send + Sync {
    /// Bytes that this process may still write beneath `path`, which exists.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
    /// Asked right before `bytes` are written to `path`: a full disk answers here, so that the
    /// simulated one can be full without being filled.
    fn before_write(&self, path: &Path, bytes: u64) -> io::Result<()>;
    /// Makes a file's bytes and length durable (fdatasync). `path` says whose they are.
    /// After an error the file's content is unknown: it is written anew, the sync is never repeated.
    fn sync_file(&self, file: BorrowedFd<'_>, path: &Path) -> io::Result<()>;
    /// As `sync_file`, with what is known of the file beside its bytes: attributes, rights and times (fsync).
    fn sync_file_whole(&self, file: BorrowedFd<'_>, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;
    /// Makes everything on the file system of this folder durable in one go, for many small files and
    /// folders. `Unsupported` where the kernel would not tell that it failed (before 5.8), or where the file system
    /// may not hear of it: then each is synced on its own. The handle has been held since before the writes, so that no error escapes it.
    fn sync_file_system(&self, folder: BorrowedFd<'_>, path: &Path) -> io::Result<()>;
    /// Whether [`Disk::sync_file_system`] is there for this folder: what is asked before it is needed. False also where
    /// that is not known.
    fn syncs_file_system(&self, folder: BorrowedFd<'_>) -> bool;
}

pub struct RealDisk;

impl Disk for RealDisk {
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
    fn before_write(&self, _: &Path, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn sync_file(&self, file: BorrowedFd<'_>, _: &Path) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(file)?)
    }
    fn sync_file_whole(&self, file: BorrowedFd<'_>, _: &Path) -> io::Result<()> {
        Ok(rustix::fs::fsync(file)?)
    }
    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        use rustix::fs::{Mode, OFlags};
        let folder = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(rustix::fs::fsync(folder)?)
    }
    fn sync_file_system(&self, folder: BorrowedFd<'_>, _: &Path) -> io::Result<()> {
        if !is_synced_as_a_whole(folder)? {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(rustix::fs::syncfs(folder)?)
    }
    fn syncs_file_system(&self, folder: BorrowedFd<'_>) -> bool {
        is_synced_as_a_whole(folder).unwrap_or(false)
    }
}

/// File systems that make everything durable when asked to (statfs(2): ext2 to 4, xfs, btrfs, f2fs, zfs, overlay,
/// tmpfs). Others may be asked in vain and still answer that it is done, as those behind FUSE do.
const SYNCED_AS_A_WHOLE: [u32; 7] =
    [0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0x2fc1_2fc1, 0x794c_7630, 0x0102_1994];

fn is_synced_as_a_whole(folder: BorrowedFd<'_>) -> io::Result<bool> {
    // The type is a signed or an unsigned number by architecture; its 32 bits say it.
    let kind = rustix::fs::fstatfs(folder)?.f_type as u32;
    Ok(syncfs_tells_errors() && SYNCED_AS_A_WHOLE.contains(&kind))
}

fn syncfs_tells_errors() -> bool {
    static TELLS: OnceLock<bool> = OnceLock::new();
    *TELLS.get_or_init(|| kernel_is_at_least(&rustix::system::uname().release().to_string_lossy(), (5, 8)))
}

fn kernel_is_at_least(release: &str, least: (u32, u32)) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= least
}

/// The real disk, with faults at chosen places: for tests and the simulator.
#[derive(Default)]
pub struct FaultyDisk {
    faults: Mutex<BTreeMap<PathBuf, Fault>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No byte more fits.
    Full,
    /// This many bytes still fit; then as [`Fault::Full`].
    Room(u64),
    /// Writes are accepted, syncs fail.
    SyncFails,
}

impl FaultyDisk {
    pub fn new() -> Self {
        Self::default()
    }
    /// Everything at or beneath `path` has this fault from now on.
    pub fn set(&self, path: impl Into<PathBuf>, fault: Fault) {
        self.locked().insert(path.into(), fault);
    }
    pub fn clear(&self, path: &Path) {
        self.locked().remove(path);
    }
    fn locked(&self) -> std::sync::MutexGuard<'_, BTreeMap<PathBuf, Fault>> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn sync(&self, path: &Path) -> io::Result<()> {
        let faults = self.locked();
        match faults.iter().find(|(at, fault)| path.starts_with(at) && **fault == Fault::SyncFails) {
            Some(_) => Err(rustix::io::Errno::IO.into()),
            None => Ok(()),
        }
    }
}

impl Disk for FaultyDisk {
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let faults = self.locked();
        let limit = faults.iter().filter(|(at, _)| path.starts_with(at)).filter_map(|(_, fault)| match fault {
            Fault::Full => Some(0),
            Fault::Room(bytes) => Some(*bytes),
            Fault::SyncFails => None,
        });
        match limit.min() {
            Some(bytes) => Ok(bytes),
            None => RealDisk.free_bytes(path),
        }
    }
    fn before_write(&self, path: &Path, bytes: u64) -> io::Result<()> {
        let mut faults = self.locked();
        for (_, fault) in faults.iter_mut().filter(|(at, _)| path.starts_with(at)) {
            match fault {
                Fault::Full => return Err(rustix::io::Errno::NOSPC.into()),
                Fault::Room(room) if *room < bytes => return Err(rustix::io::Errno::NOSPC.into()),
                Fault::Room(room) => *room -= bytes,
                Fault::SyncFails => {}
            }
        }
        Ok(())
    }
    fn sync_file(&self, file: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
        self.sync(path)?;
        RealDisk.sync_file(file, path)
    }
    fn sync_file_whole(&self, file: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
        self.sync(path)?;
        RealDisk.sync_file_whole(file, path)
    }
    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.sync(path)?;
        RealDisk.sync_folder(path)
    }
    fn sync_file_system(&self, folder: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
        self.sync(path)?;
        RealDisk.sync_file_system(folder, path)
    }
    fn syncs_file_system(&self, folder: BorrowedFd<'_>) -> bool {
        RealDisk.syncs_file_system(folder)
    }
}

/// Whether an error means that there is no room (full, or over quota), which passes by itself.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn the_real_disk_has_room_and_syncs() {
        let folder = tempfile::tempdir().unwrap();
        assert!(RealDisk.free_bytes(folder.path()).unwrap() > 0);
        let path = folder.path().join("a");
        let file = std::fs::File::create(&path).unwrap();
        RealDisk.sync_file(file.as_fd(), &path).unwrap();
        RealDisk.sync_folder(folder.path()).unwrap();
        assert!(RealDisk.sync_folder(&path).is_err());
    }

    #[test]
    fn kernels_are_told_apart_by_their_release() {
        assert!(kernel_is_at_least("5.8.0-amd64", (5, 8)) && kernel_is_at_least("6.1", (5, 8)));
        for old in ["5.7.19", "3.10.0-1160.el7.x86_64", "4.19.90-2112.ky10", ""] {
            assert!(!kernel_is_at_least(old, (5, 8)), "{old}");
        }
    }

    #[test]
    fn a_full_disk_is_full_only_beneath_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::new();
        disk.set(folder.path().join("in"), Fault::Room(10));
        let inside = folder.path().join("in/file");
        disk.before_write(&inside, 10).unwrap();
        assert!(is_full(&disk.before_write(&inside, 1).unwrap_err()));
        disk.before_write(&folder.path().join("out"), 1 << 40).unwrap();
        disk.clear(&folder.path().join("in"));
        disk.before_write(&inside, 1).unwrap();
    }

    #[test]
    fn a_failing_sync_fails_only_where_it_was_set() {
        let folder = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::new();
        disk.set(folder.path(), Fault::SyncFails);
        assert!(!is_full(&disk.sync_folder(folder.path()).unwrap_err()));
        disk.clear(folder.path());
        disk.sync_folder(folder.path()).unwrap();
    }
}
