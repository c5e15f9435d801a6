//! How a file is written in parts, synced with its group, and taken up again.

use super::*;

#[test]
fn data_and_holes_cover_every_byte_in_order() {
    let mut bytes = vec![0u8; 300_000];
    bytes[100_000] = 1;
    bytes[100_001] = 1;
    bytes[299_999] = 1;
    let mut at = 0;
    let mut seen = Vec::new();
    while at < bytes.len() {
        let zeros = zeros_at_start(&bytes[at..]);
        let (hole, len) =
            if zeros >= HOLE_BYTES_MIN { (true, zeros) } else { (false, data_at_start(&bytes[at..], zeros)) };
        assert!(len > 0);
        assert!(!hole || bytes[at..at + len].iter().all(|b| *b == 0));
        seen.push(hole);
        at += len;
    }
    assert_eq!(at, bytes.len());
    assert_eq!(seen, [true, false, true, false]);
}

#[test]
fn a_large_file_has_every_byte_and_hole_whatever_lies_where_in_memory() {
    let scene = Scene::new();
    // Two blocks of zeros, too few for a hole, and a hole.
    let mut content: Vec<u8> = (0..BYTES).map(|index| (index % 251) as u8 + 1).collect();
    content[5 << 20..(5 << 20) + 8192].fill(0);
    content[7 << 20..9 << 20].fill(0);
    let mut room = vec![0; (1 << 20) + 2 * BLOCK_BYTES];
    for (fresh, mark) in [(true, 0), (false, 1)] {
        content[100] = mark;
        let part = scene.part(fresh);
        // From the last to the first, each at another place of memory.
        for (number, chunk) in content.chunks(1 << 20).enumerate().rev() {
            let start = room.as_ptr().align_offset(BLOCK_BYTES) + if number % 3 == 0 { 16 } else { 0 };
            room[start..start + chunk.len()].copy_from_slice(chunk);
            part.write_at((number as u64) << 20, &room[start..start + chunk.len()]).unwrap();
        }
        scene.written.sync().unwrap();
        if let Some(direct) = &part.direct {
            // A file system that cannot do it has said so.
            let block = vec![7; 3 * BLOCK_BYTES];
            let start = block.as_ptr().align_offset(BLOCK_BYTES);
            let (lies_well, lies_ill) = (&block[start..], &block[start + 1..]);
            let done = if direct.is_refused.load(Ordering::Relaxed) { 0 } else { 2 * BLOCK_BYTES };
            assert_eq!(direct.write(0, &lies_well[..2 * BLOCK_BYTES]).unwrap(), done);
            assert_eq!(direct.write(0, &lies_ill[..BLOCK_BYTES]).unwrap(), 0);
            assert_eq!(direct.write(1, &lies_well[..BLOCK_BYTES]).unwrap(), 0);
            part.write_at(0, &content[..2 * BLOCK_BYTES]).unwrap();
        }
        assert!(std::fs::read(scene.path()).unwrap() == content);
        let held = scene.held();
        assert!(held < BYTES as u64 - (1 << 20), "{held} bytes are held, though two mebibytes are a hole");
    }
}

#[test]
fn what_is_written_into_the_kernels_memory_is_written_by_one_at_a_time() {
    let scene = Scene::new();
    let content: Vec<u8> = (0..8 << 20).map(|index| (index % 249) as u8 + 1).collect();
    let file = File::options().read(true).write(true).create(true).truncate(false).open(scene.path()).unwrap();
    let part = Part::new(file, scene.path(), true, scene.written.clone());
    let wrote = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let turn = part.turn.lock().unwrap();
        let writers: Vec<_> = content
            .chunks(1 << 20)
            .enumerate()
            .map(|(number, chunk)| {
                let (part, wrote) = (&part, &wrote);
                scope.spawn(move || {
                    part.write_at((number as u64) << 20, chunk).unwrap();
                    wrote.store(true, Ordering::SeqCst);
                })
            })
            .collect();
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(!wrote.load(Ordering::SeqCst), "somebody else has the turn");
        drop(turn);
        writers.into_iter().for_each(|writer| writer.join().unwrap());
    });
    assert!(std::fs::read(scene.path()).unwrap() == content);
}

#[test]
fn a_file_in_memory_is_not_written_past_the_kernels() {
    // Where the machine has none, there is nothing to show.
    let Ok(folder) = tempfile::tempdir_in("/dev/shm") else { return };
    let path = folder.path().join("part");
    let file = File::create(&path).unwrap();
    if rustix::fs::fstatfs(&file).unwrap().f_type as u32 == TMPFS {
        assert!(Direct::open(&file, BYTES as u64, true).is_none());
    }
}

#[test]
fn a_hole_of_an_earlier_process_stays_one() {
    let scene = Scene::new();
    let room = vec![7; (1 << 20) + BLOCK_BYTES];
    let start = room.as_ptr().align_offset(BLOCK_BYTES);
    let block = &room[start..start + (1 << 20)];
    for fresh in [true, false] {
        let (offset, content) = if fresh { (8 << 20, &vec![0; 1 << 20][..]) } else { (0, block) };
        scene.part(fresh).write_at(offset, content).unwrap();
    }
    scene.written.sync().unwrap();
    assert!(scene.held() < 3 << 20, "{} bytes are held for one mebibyte", scene.held());
}

#[test]
fn the_last_of_a_disk_is_not_taken_ahead_and_a_hole_ends_it() {
    for (free, hole, is_taken) in
        [(FREE_BYTES_MIN, false, true), (FREE_BYTES_MIN - 1, false, false), (u64::MAX, true, false)]
    {
        let scene = Scene::new();
        let part = scene.part(true);
        let Some(direct) = Direct::of(&part.file, BYTES as u64, true) else {
            panic!("this test needs a folder on a disk that is written to directly")
        };
        if hole {
            assert!(!direct.has_room(0));
        }
        direct.take_room(0, 1 << 20, &|| free);
        assert_eq!(scene.held() >= AHEAD_BYTES, is_taken, "{free} bytes are free, a hole was met: {hole}");
    }
}

#[test]
fn a_file_written_at_once_is_as_one_that_was_sealed_later_and_is_synced_once() {
    let entry = Entry {
        index: 0,
        name: b"part".to_vec(),
        kind: posthouse_protocol::manifest::EntryKind::File,
        size: 5,
        mode: 0o640,
        mtime_ns: 1_234_567_890_123_456_789,
        root: None,
        revision: 0,
        same_as: None,
        attributes: None,
    };
    // What an earlier process left is longer.
    for (at_once, before) in [(true, None), (false, None), (true, Some("of before")), (false, Some("of before"))] {
        let scene = Scene::new();
        if let Some(before) = before {
            std::fs::write(scene.path(), before).unwrap();
        }
        let part = scene.unsized_part(before.is_none());
        if at_once {
            part.write_whole(&entry, b"12345").unwrap();
        } else {
            part.write_at(0, b"12345").unwrap();
            part.seal(&entry).unwrap();
        }
        let stat = rustix::fs::stat(scene.path()).unwrap();
        assert_eq!(std::fs::read(scene.path()).unwrap(), b"12345", "{at_once} {before:?}");
        assert_eq!(stat.st_mode & 0o7777, 0o640);
        assert_eq!((stat.st_mtime, stat.st_mtime_nsec as i64), (1_234_567_890, 123_456_789));
        assert_eq!(scene.written.locked().len(), 1, "{at_once} {before:?}");
        scene.written.sync().unwrap();
        assert!(scene.written.locked().is_empty());
    }
}

/// Says how often it was asked for what, and does nothing.
#[derive(Default)]
struct Counting {
    files: std::sync::atomic::AtomicUsize,
    file_systems: std::sync::atomic::AtomicUsize,
    /// Whether it syncs files one by one only.
    is_old: bool,
    /// Whether it says before that it can sync all at once.
    says_so: bool,
}

impl Counting {
    fn asked(&self) -> (usize, usize) {
        (self.file_systems.load(Ordering::Relaxed), self.files.load(Ordering::Relaxed))
    }
}

impl Disk for Counting {
    fn free_bytes(&self, _: &Path) -> std::io::Result<u64> {
        Ok(u64::MAX)
    }
    fn before_write(&self, _: &Path, _: u64) -> std::io::Result<()> {
        Ok(())
    }
    fn sync_file(&self, _: std::os::fd::BorrowedFd<'_>, _: &Path) -> std::io::Result<()> {
        self.files.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
    fn sync_file_whole(&self, file: std::os::fd::BorrowedFd<'_>, path: &Path) -> std::io::Result<()> {
        self.sync_file(file, path)
    }
    fn sync_folder(&self, _: &Path) -> std::io::Result<()> {
        Ok(())
    }
    fn sync_file_system(&self, _: std::os::fd::BorrowedFd<'_>, _: &Path) -> std::io::Result<()> {
        if self.is_old {
            return Err(std::io::ErrorKind::Unsupported.into());
        }
        self.file_systems.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
    fn syncs_file_system(&self, _: std::os::fd::BorrowedFd<'_>) -> bool {
        self.says_so
    }
}

#[test]
fn small_files_are_synced_with_their_group_and_hold_few_handles_where_all_are_synced_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let file = Arc::new(File::create(&path).unwrap());
    let on = |disk: &Arc<Counting>| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let handle = rustix::fs::open(folder.path(), flags, Mode::empty()).unwrap();
        Written::new(disk.clone(), handle, folder.path().to_owned())
    };
    let note = |written: &Written, times: usize| {
        (0..times).for_each(|_| written.note_new(file.clone(), path.clone(), false).unwrap());
    };
    let disk = Arc::new(Counting::default());
    let written = on(&disk);
    note(&written, FILES_MAX - 1);
    assert_eq!((disk.asked(), Arc::strong_count(&file)), ((0, 0), FILES_MAX));
    note(&written, 1);
    assert_eq!((disk.asked(), Arc::strong_count(&file)), ((1, 0), 1), "there are as many as may be held");
    note(&written, 2 * FILES_MAX);
    assert_eq!((disk.asked(), Arc::strong_count(&file)), ((1, 0), 1 + MANY), "more are not held now");
    written.sync().unwrap();
    written.sync().unwrap();
    assert_eq!((disk.asked(), Arc::strong_count(&file)), ((2, 0), 1));
    note(&written, MANY - 1);
    written.sync().unwrap();
    assert_eq!(disk.asked(), (2, MANY - 1), "for a few the rest of the disk is left alone");
    // Files that are looked for again, each its own, hold theirs all the same.
    let others: Vec<_> = (0..FILES_MAX + 1).map(|_| Arc::new(File::open(&path).unwrap())).collect();
    others.iter().for_each(|other| written.note(other, &path, true).unwrap());
    let held = others.iter().filter(|&other| Arc::strong_count(other) > 1).count();
    assert_eq!((disk.asked(), held), ((3, MANY - 1), 1), "no more are held than may be");
    written.sync().unwrap();
    assert_eq!(disk.asked(), (3, MANY));
    // What is on another file system is synced by itself, and its handle is kept until then.
    if let Some(other) = on_another(&folder) {
        let before = disk.asked();
        note(&written, 2 * MANY);
        written.note_new(other.clone(), path.clone(), false).unwrap();
        assert_eq!(Arc::strong_count(&other), 2);
        written.sync().unwrap();
        assert_eq!((disk.asked(), Arc::strong_count(&other)), ((before.0 + 1, before.1 + 1), 1));
    }
    // Where the disk says so before, nobody who writes waits for the first sync; also not one of few files that hold
    // theirs, however many wait that do not.
    let disk = Arc::new(Counting { says_so: true, ..Counting::default() });
    let written = on(&disk);
    note(&written, 2 * FILES_MAX);
    written.note(&others[0], &path, true).unwrap();
    assert_eq!((disk.asked(), Arc::strong_count(&file), Arc::strong_count(&others[0])), ((0, 0), 1 + MANY, 2));
    written.sync().unwrap();
    assert_eq!((disk.asked(), Arc::strong_count(&file), Arc::strong_count(&others[0])), ((1, 0), 1, 1));
    // Where nothing is known yet, a few are synced each; and on a kernel that cannot do it, all.
    for (is_old, times, files) in [(false, MANY - 1, MANY - 1), (true, FILES_MAX + 1, FILES_MAX + 1)] {
        let disk = Arc::new(Counting { is_old, ..Counting::default() });
        let written = on(&disk);
        note(&written, times);
        written.sync().unwrap();
        assert_eq!((disk.asked(), Arc::strong_count(&file)), ((0, files), 1));
    }
}

/// A file on another file system than a folder, where the machine has one in memory.
fn on_another(folder: &tempfile::TempDir) -> Option<Arc<File>> {
    let file = tempfile::tempfile_in("/dev/shm").ok()?;
    let own = device_of(&File::open(folder.path()).unwrap());
    (device_of(&file) != own).then(|| Arc::new(file))
}

const BYTES: usize = (64 << 20) + 5001;

/// A part in a folder of its own, as one process after another has it open.
struct Scene {
    folder: tempfile::TempDir,
    written: Arc<Written>,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let handle = rustix::fs::open(folder.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let disk = Arc::new(posthouse_platform::disk::RealDisk);
        let written = Arc::new(Written::new(disk, handle, folder.path().to_owned()));
        Self { folder, written }
    }
    fn path(&self) -> PathBuf {
        self.folder.path().join("part")
    }
    fn part(&self, fresh: bool) -> Part {
        self.unsized_part(fresh).sized(BYTES as u64).unwrap()
    }
    fn unsized_part(&self, fresh: bool) -> Part {
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(false).open(self.path()).unwrap();
        Part::new(file, self.path(), fresh, self.written.clone())
    }
    /// Bytes that the disk has given for it.
    fn held(&self) -> u64 {
        std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(self.path()).unwrap()) * 512
    }
}

#[test]
fn times_before_1970_keep_their_nanoseconds() {
    let times = modified(-1);
    assert_eq!((times.last_modification.tv_sec, times.last_modification.tv_nsec), (-1, 999_999_999));
}
