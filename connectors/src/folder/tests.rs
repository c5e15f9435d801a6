//! Folders exchanged with everything that is hostile, odd or in the way.

mod hostile;
mod keeping;
mod linked;
mod looking;
mod writing;
mod xattrs;

use super::*;
use posthouse_platform::disk::{Disk, Fault, FaultyDisk, RealDisk};
use posthouse_protocol::id::TransferId;
use posthouse_protocol::job::Write;
use posthouse_protocol::manifest::{Entry, EntryKind, LeftOut, follows};
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[test]
fn a_folder_arrives_with_its_names_rights_times_links_and_empty_folders() {
    let at = Scene::new();
    at.write("a/人口.txt", "甲");
    at.write("a/b/c/deep", "deep");
    at.write("empty-file", "");
    fs::create_dir_all(at.source("empty/in/empty")).unwrap();
    symlink("b/c", at.source("a/link")).unwrap();
    symlink("nowhere", at.source("dangling")).unwrap();
    fs::set_permissions(at.source("a/b/c/deep"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::set_permissions(at.source("a/b/c"), fs::Permissions::from_mode(0o555)).unwrap();
    for (name, mtime_ns) in [("a/b/c/deep", 1), ("a/b", -1_500_000_001), ("empty", 1_234_567_890_123_456_789)] {
        set_mtime(&at.source(name), mtime_ns);
    }
    set_mtime(&at.source("."), 86_400_000_000_007);
    assert_eq!(at.exchange(Write::Upsert), Vec::new());
    assert_eq!(tree(&at.source(".")), tree(&at.target(".")));
    assert_eq!(tree(&at.target(".")).len(), 12);
}

#[test]
fn a_sealed_part_gets_the_rights_and_times_that_it_is_to_have_after_all() {
    let at = Scene::new();
    let to = at.destination(Write::Upsert);
    let before = Entry { mode: 0o400, mtime_ns: 5, ..file("a/b", "x") };
    to.part(&before.name, false).unwrap().write_whole(&before, b"x").unwrap();
    let after = Entry { mode: 0o640, mtime_ns: 7_000_000_001, ..before };
    to.amend_part(&after).unwrap();
    to.sync().unwrap();
    to.publish(&after).unwrap();
    let stat = fs::metadata(at.target("a/b")).unwrap();
    assert_eq!((stat.mode() & 0o7777, stat.mtime(), stat.mtime_nsec()), (0o640, 7, 1));
    assert_eq!(fs::read(at.target("a/b")).unwrap(), b"x");
    assert_eq!(to.amend_part(&file("none", "x")).unwrap_err().code, Code::StorageFailed);
    assert_eq!(to.amend_part(&file("../none", "x")).unwrap_err().code, Code::NameRefused);
}

#[test]
fn names_that_are_no_utf8_arrive_byte_for_byte() {
    let at = Scene::new();
    // 人口 in GBK
    let gbk = OsStr::from_bytes(b"\xc8\xcb\xbf\xda");
    fs::create_dir(at.source(".").join(gbk)).unwrap();
    fs::write(at.source(".").join(gbk).join(OsStr::from_bytes(b"\xff\xfe\n\t '\"")), "x").unwrap();
    assert_eq!(at.exchange(Write::Upsert), Vec::new());
    assert_eq!(tree(&at.source(".")), tree(&at.target(".")));
    assert!(at.target(".").join(gbk).is_dir());
}

#[test]
fn pipes_and_sockets_are_left_out_by_name() {
    let at = Scene::new();
    at.write("file", "x");
    let mode = rustix::fs::Mode::RUSR;
    rustix::fs::mkfifoat(rustix::fs::CWD, at.source("pipe"), mode).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(at.source("socket")).unwrap();
    assert_eq!(codes(&at.exchange(Write::Upsert)), [Code::SpecialFile, Code::SpecialFile]);
    assert!(at.target("file").exists() && !at.target("pipe").exists());
    drop(socket);
}

#[test]
fn a_missing_folder_is_a_problem_and_no_empty_folder() {
    let at = Scene::new();
    let missing = FolderSource::open(&at.folder.join("missing"), &FolderOptions::default());
    assert_eq!(missing.map(|_| ()).unwrap_err().code, Code::SourceFailed);
    at.write("file", "x");
    assert!(FolderSource::open(&at.source("file"), &FolderOptions::default()).is_err());
}

#[test]
fn a_read_error_leaves_a_name_out_with_its_reason() {
    // The kernel's own file for the memory of a process: it opens, and reading at 0 is an error.
    let process = FolderSource::open(Path::new("/proc/self"), &FolderOptions::default()).unwrap();
    let memory = process.open_file(b"mem").unwrap();
    assert_eq!(memory.read_at(0, &mut [0; 8]).unwrap_err().code, Code::FileUnreadable);
    let at = Scene::new();
    let from = at.opened(&FolderOptions::default());
    assert_eq!(from.open_file(b"none").map(|_| ()).unwrap_err().code, Code::FileChanged);
    assert_eq!(from.open_file(b"../x").map(|_| ()).unwrap_err().code, Code::NameRefused);
}

#[test]
fn the_list_is_in_the_order_of_bytes_with_folders_before_what_is_in_them() {
    let at = Scene::new();
    for name in ["b", "a/z", "a.txt", "a/b/c", "B", "乙", "a-b"] {
        at.write(name, "");
    }
    let found = at.list(&FolderOptions::default());
    assert_eq!(entry_names(&found), [".", "B", "a", "a/b", "a/b/c", "a/z", "a-b", "a.txt", "b", "乙"]);
    let indexes: Vec<u64> = entries(&found).iter().map(|e| e.index).collect();
    assert_eq!(indexes, (0..10).collect::<Vec<_>>());
}

#[test]
fn include_and_exclude_choose_files_and_bring_only_the_folders_they_need() {
    let at = Scene::new();
    for name in ["a/b/one.pdf", "a/two.txt", "c/three.txt", "tmp/four.pdf", "five.pdf"] {
        at.write(name, "");
    }
    let options = FolderOptions {
        include: vec!["**/*.pdf".to_owned()],
        exclude: vec!["tmp".to_owned()],
        ..FolderOptions::default()
    };
    assert_eq!(entry_names(&at.list(&options)), [".", "a", "a/b", "a/b/one.pdf", "five.pdf"]);
    let wrong = FolderOptions { include: vec!["a[".to_owned()], ..FolderOptions::default() };
    assert_eq!(wrong.check().len(), 1);
    assert!(FolderSource::open(&at.source("."), &wrong).is_err());
}

#[test]
fn a_file_that_is_not_quiet_yet_waits_for_the_next_run() {
    let at = Scene::new();
    at.write("fresh", "x");
    let changed = fs::metadata(at.source("fresh")).unwrap();
    let changed_ms = changed.ctime() * 1000 + changed.ctime_nsec() / 1_000_000;
    let options = FolderOptions { quiet_ms: 10_000, ..FolderOptions::default() };
    let count = |now_ms| entry_names(&listed(&at.opened(&options), now_ms)).len();
    assert_eq!(count(changed_ms + 9_000), 1);
    assert_eq!(count(changed_ms + 11_000), 2);
}

#[test]
fn a_change_while_a_file_is_read_is_noticed() {
    let at = Scene::new();
    at.write("file", "before");
    let from = at.opened(&FolderOptions::default());
    let open = from.open_file(b"file").unwrap();
    assert!(!open.changed().unwrap());
    std::thread::sleep(std::time::Duration::from_millis(20));
    // Same size, and the old mtime put back: only ctime tells.
    fs::write(at.source("file"), "beFore").unwrap();
    set_mtime(&at.source("file"), open.stat().mtime_ns);
    assert!(open.changed().unwrap());
    // A new file under its name does not touch the one that is open.
    let open = from.open_file(b"file").unwrap();
    fs::write(at.source("other"), "another").unwrap();
    fs::remove_file(at.source("file")).unwrap();
    let mut bytes = [0; 16];
    assert_eq!(open.read_at(0, &mut bytes).unwrap(), 6);
    assert_eq!(&bytes[..6], b"beFore");
}

#[test]
fn a_transfer_that_stops_goes_on_in_the_same_temporary_file() {
    let at = Scene::new();
    let to = at.destination(Write::Upsert);
    let part = to.part(b"sub/file", true).unwrap();
    assert!(part.fresh());
    part.write_at(6, b"world").unwrap();
    to.sync().unwrap();
    drop((part, to));
    assert_eq!(at.leftovers().len(), 1);
    let to = at.destination(Write::Upsert);
    let part = to.part(b"sub/file", true).unwrap();
    assert!(!part.fresh());
    let mut bytes = [0; 5];
    assert_eq!(part.read_at(6, &mut bytes).unwrap(), 5);
    assert_eq!(&bytes, b"world");
    part.write_at(0, b"hello ").unwrap();
    let entry = file("sub/file", "hello world");
    part.seal(&entry).unwrap();
    to.publish(&entry).unwrap();
    to.finish().unwrap();
    assert_eq!(fs::read(at.target("sub/file")).unwrap(), b"hello world");
    assert_eq!(at.leftovers(), Vec::<String>::new());
    // Without resume it starts empty whatever lies there.
    to.part(b"sub/file", false).unwrap().write_at(0, b"xxxxxxxxxx").unwrap();
    assert!(to.part(b"sub/file", false).unwrap().fresh());
}

#[test]
fn leftovers_of_other_transfers_are_swept_and_of_running_ones_kept() {
    let at = Scene::new();
    for number in 0..3 {
        let to = FolderDestination::open(&at.target("."), Write::Upsert, &at.transfer(number), Arc::new(RealDisk));
        drop(to.unwrap().part(b"a/b/file", false).unwrap());
    }
    fs::write(at.target(".posthouse-notes"), "theirs").unwrap();
    let running = super::names::short(&at.transfer(1));
    let to = at.destination(Write::Upsert);
    assert_eq!(to.sweep(&|short| short == running).unwrap(), 2);
    assert_eq!(at.leftovers().len(), 1);
    assert!(at.target(".posthouse-notes").exists());
    let one = FolderDestination::open(&at.target("."), Write::Upsert, &at.transfer(1), Arc::new(RealDisk)).unwrap();
    one.discard(&mut [&b"a/b/file"[..], b"never/begun", b"../x"].into_iter()).unwrap();
    assert_eq!(at.leftovers(), Vec::<String>::new());
    // What is being landed is no content for those who read the same folder.
    drop(one.part(b"a/b/file", false).unwrap());
    let from = FolderSource::open(&at.target("."), &FolderOptions::default()).unwrap();
    assert_eq!(entry_names(&listed(&from, 0)), [".", ".posthouse-notes", "a", "a/b"]);
}

#[test]
fn a_sparse_file_keeps_its_content_and_its_holes() {
    let at = Scene::new();
    let mut content = vec![0; 3 << 20];
    content[1 << 20..(1 << 20) + 5].copy_from_slice(b"hello");
    fs::write(at.source("sparse"), &content).unwrap();
    fs::write(at.source("zeros"), vec![0; 200_000]).unwrap();
    at.exchange(Write::Upsert);
    assert_eq!(fs::read(at.target("sparse")).unwrap(), content);
    assert_eq!(fs::read(at.target("zeros")).unwrap(), vec![0; 200_000]);
    assert!(fs::metadata(at.target("sparse")).unwrap().blocks() * 512 < 1 << 20);
    // Zeros written over what an earlier process left there.
    let to = at.destination(Write::Upsert);
    let entry = file_of("dirty", &vec![0; 200_000]);
    to.part(b"dirty", false).unwrap().write_at(0, &vec![1; 200_000]).unwrap();
    land(&to, &entry, &vec![0; 200_000], true);
    to.publish(&entry).unwrap();
    assert_eq!(fs::read(at.target("dirty")).unwrap(), vec![0; 200_000]);
}

#[test]
fn a_chunk_of_zeros_cuts_off_nothing_that_is_written_behind_it_meanwhile() {
    const CHUNK: usize = 256 << 10;
    let at = Scene::new();
    let to = at.destination(Write::Upsert);
    let both = std::sync::Barrier::new(2);
    for round in 0..400 {
        let name = format!("{round}");
        let part = to.part(name.as_bytes(), false).unwrap();
        std::thread::scope(|threads| {
            threads.spawn(|| {
                both.wait();
                part.write_at(0, &[0; CHUNK]).unwrap();
            });
            both.wait();
            part.write_at(CHUNK as u64, &[7; CHUNK]).unwrap();
        });
        let mut content = vec![1; 2 * CHUNK];
        assert_eq!(part.read_at(0, &mut content).unwrap(), 2 * CHUNK, "round {round}");
        assert!(content[..CHUNK].iter().all(|b| *b == 0) && content[CHUNK..].iter().all(|b| *b == 7), "round {round}");
    }
}

#[test]
fn a_folder_is_listed_in_the_order_that_a_consumer_asks_for() {
    let at = Scene::new();
    for name in ["a/x", "a/b/c", "a.txt", "a-b", "!", "a b/z", "人口/甲", "-", "b/..x", "a/b.txt"] {
        at.write(name, "x");
    }
    let all = FolderSource::open(&at.source("."), &FolderOptions::default()).unwrap();
    let some = FolderOptions { include: vec!["**/c".to_owned(), "**/*.txt".to_owned()], ..FolderOptions::default() };
    for (from, count) in [(all, 16), (FolderSource::open(&at.source("."), &some).unwrap(), 6)] {
        let names = entry_names(&listed(&from, 0));
        assert_eq!(names.len(), count, "{names:?}");
        for two in names.windows(2) {
            assert!(follows(two[1].as_bytes(), two[0].as_bytes()), "{two:?}");
            assert!(!follows(two[0].as_bytes(), two[1].as_bytes()) && !follows(two[1].as_bytes(), two[1].as_bytes()));
        }
    }
}

#[test]
fn a_full_disk_is_told_apart_from_a_broken_one() {
    let at = Scene::new();
    let disk = Arc::new(FaultyDisk::new());
    let to = FolderDestination::open(&at.target("."), Write::Upsert, &at.transfer(0), disk.clone()).unwrap();
    let part = to.part(b"file", false).unwrap();
    disk.set(at.target("."), Fault::Full);
    assert_eq!(part.write_at(0, b"x").unwrap_err().code, Code::DiskFull);
    assert_eq!(to.free_bytes().unwrap(), 0);
    disk.set(at.target("."), Fault::SyncFails);
    part.write_at(0, b"x").unwrap();
    assert_eq!(to.sync().unwrap_err().code, Code::StorageFailed);
    disk.clear(&at.target("."));
    assert_eq!(to.sync().unwrap_err().code, Code::StorageFailed, "what it wrote is of unknown content");
    let to = FolderDestination::open(&at.target("."), Write::Upsert, &at.transfer(0), disk.clone()).unwrap();
    let part = to.part(b"file", true).unwrap();
    part.write_at(0, b"x").unwrap();
    part.seal(&file("file", "x")).unwrap();
    to.sync().unwrap();
    to.publish(&file("file", "x")).unwrap();
    disk.set(at.target("."), Fault::SyncFails);
    assert_eq!(to.finish().unwrap_err().code, Code::StorageFailed);
}

#[test]
fn hashing_what_landed_gives_the_same_from_memory_and_from_the_disk() {
    let at = Scene::new();
    let to = at.destination(Write::Upsert);
    for size in [0, 1, 4095, 4096, 4097, 1 << 20, (1 << 20) + 1, (2 << 20) + 4096] {
        let content: Vec<u8> = (0..size).map(|n: usize| (n / 7) as u8).collect();
        fs::write(at.target("file"), &content).unwrap();
        let expected = *blake3::hash(&content).as_bytes();
        assert_eq!(to.hash(b"file", false).unwrap(), expected, "{size}");
        assert_eq!(to.hash(b"file", true).unwrap(), expected, "{size}");
    }
    assert_eq!(to.hash(b"none", true).unwrap_err().code, Code::FileUnreadable);
}

#[test]
fn folders_deeper_than_the_handles_that_are_held_are_gone_through() {
    let at = Scene::new();
    let mut deep = String::new();
    for level in 0..200 {
        deep.push_str(&format!("d{level}/"));
        at.write(&format!("{deep}z"), "x");
    }
    let found = at.list(&FolderOptions::default());
    assert_eq!(entries(&found).len(), 401);
    assert_eq!(at.exchange(Write::Upsert), Vec::new());
    assert_eq!(tree(&at.source(".")), tree(&at.target(".")));
}

#[test]
fn five_thousand_files_arrive() {
    let at = Scene::new();
    for number in 0..5000 {
        at.write(&format!("{:02}/{number}.txt", number % 50), &format!("file {number}"));
    }
    assert_eq!(at.exchange(Write::Upsert), Vec::new());
    assert_eq!(tree(&at.source(".")), tree(&at.target(".")));
    assert_eq!(at.leftovers(), Vec::<String>::new());
}

/// A source and a target folder side by side.
struct Scene {
    folder: PathBuf,
    _held: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let held = tempfile::tempdir().unwrap();
        let folder = held.path().to_owned();
        fs::create_dir(folder.join("source")).unwrap();
        fs::create_dir(folder.join("target")).unwrap();
        Self { folder, _held: held }
    }
    fn source(&self, name: &str) -> PathBuf {
        self.folder.join("source").join(name)
    }
    fn target(&self, name: &str) -> PathBuf {
        self.folder.join("target").join(name)
    }
    fn write(&self, name: &str, content: &str) {
        fs::create_dir_all(self.source(name).parent().unwrap()).unwrap();
        fs::write(self.source(name), content).unwrap();
    }
    fn transfer(&self, number: u8) -> TransferId {
        TransferId::from_random([number; 16])
    }
    fn opened(&self, options: &FolderOptions) -> FolderSource {
        FolderSource::open(&self.source("."), options).unwrap()
    }
    fn list(&self, options: &FolderOptions) -> Vec<Found> {
        listed(&self.opened(options), i64::MAX)
    }
    fn entry(&self, name: &str) -> Entry {
        entries(&self.list(&FolderOptions::default())).into_iter().find(|e| e.name == name.as_bytes()).unwrap()
    }
    fn destination(&self, write: Write) -> FolderDestination {
        FolderDestination::open(&self.target("."), write, &self.transfer(0), Arc::new(RealDisk)).unwrap()
    }
    fn exchange(&self, write: Write) -> Vec<LeftOut> {
        self.exchange_with(&FolderOptions::default(), write, &self.transfer(0))
    }
    /// Lists, lands and publishes everything as the rooms do; gives what both sides left out.
    fn exchange_with(&self, options: &FolderOptions, write: Write, transfer: &TransferId) -> Vec<LeftOut> {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        self.exchange_into(options, &FolderDestination::open(&self.target("."), write, transfer, disk).unwrap())
    }
    fn exchange_into(&self, options: &FolderOptions, to: &FolderDestination) -> Vec<LeftOut> {
        let from = self.opened(options);
        let mut left_out = Vec::new();
        let (mut landed, mut adopted) = (Vec::new(), Vec::new());
        for found in self.list(options) {
            let entry = match found {
                Found::LeftOut(what) => {
                    left_out.push(what);
                    continue;
                }
                Found::Entry { entry, .. } => entry,
            };
            match to.present(&entry).unwrap() {
                Present::Blocked(what) => left_out.push(what),
                Present::Same(_) if entry.kind == EntryKind::File => {
                    let content = fs::read(self.folder.join("source").join(OsStr::from_bytes(&entry.name))).unwrap();
                    let root = *blake3::hash(&content).as_bytes();
                    adopted.push(Entry { root: Some(root.into()), ..entry });
                }
                _ if entry.kind == EntryKind::File => {
                    let open = from.open_file(&entry.name).unwrap();
                    let mut content = vec![0; entry.size as usize];
                    assert_eq!(open.read_at(0, &mut content).unwrap(), content.len());
                    assert!(!open.changed().unwrap());
                    land(to, &entry, &content, false);
                    landed.push(entry);
                }
                _ => landed.push(entry),
            }
        }
        to.sync().unwrap();
        for entry in &landed {
            to.publish(entry).unwrap();
        }
        for entry in &adopted {
            to.adopt(entry, true).unwrap();
        }
        to.finish().unwrap();
        left_out
    }
    /// Everything in the target as a job's record has it.
    fn landed(&self) -> Vec<LandedBefore> {
        let listed = entries(&self.list(&FolderOptions::default()));
        let kind = |entry: &Entry| Kind::of(&entry.kind).unwrap();
        listed
            .iter()
            .map(|e| LandedBefore { name: e.name.clone(), kind: kind(e), size: e.size, mtime_ns: e.mtime_ns })
            .collect()
    }
    fn leftovers(&self) -> Vec<String> {
        tree(&self.folder)
            .into_keys()
            .filter_map(|path| path.strip_prefix("target/").map(str::to_owned).or(Some(path)))
            .filter(|path| super::names::is_ours(path.rsplit('/').next().unwrap_or(path).as_bytes()))
            .collect()
    }
}

fn those(landed: &[LandedBefore], are: impl Fn(&[u8]) -> bool) -> BTreeSet<Vec<u8>> {
    landed.iter().map(|before| before.name.clone()).filter(|name| are(name)).collect()
}

fn mirror_plan(
    to: &FolderDestination,
    landed: &[LandedBefore],
    in_scope: &BTreeSet<Vec<u8>>,
    left_out: &[LeftOut],
) -> Result<Vec<LandedBefore>, Problem> {
    let mut mirroring = to.mirroring(left_out, landed.len() as u64)?;
    in_scope.iter().for_each(|name| mirroring.in_scope(name));
    for before in landed.iter().filter(|before| !in_scope.contains(&before.name)) {
        mirroring.out_of_scope(before.clone())?;
    }
    mirroring.plan()
}

fn land(to: &FolderDestination, entry: &Entry, content: &[u8], resume: bool) {
    let part = to.part(&entry.name, resume).unwrap();
    let half = content.len() / 2;
    // In any order, as chunks come.
    part.write_at(half as u64, &content[half..]).unwrap();
    part.write_at(0, &content[..half]).unwrap();
    part.seal(entry).unwrap();
}

fn file(name: &str, content: &str) -> Entry {
    Entry { name: name.as_bytes().to_vec(), ..file_of("", content.as_bytes()) }
}

fn file_of(name: &str, content: &[u8]) -> Entry {
    Entry {
        index: 0,
        name: name.as_bytes().to_vec(),
        kind: EntryKind::File,
        size: content.len() as u64,
        mode: 0o644,
        mtime_ns: 1_700_000_000_123_456_789,
        root: None,
        revision: 0,
        same_as: None,
        attributes: None,
    }
}

fn listed(from: &FolderSource, now_ms: i64) -> Vec<Found> {
    let mut found = Vec::new();
    let mut keep = |one| {
        found.push(one);
        Ok(())
    };
    from.list(&|| Timestamp(now_ms), &mut keep).unwrap();
    found
}

fn entries(found: &[Found]) -> Vec<Entry> {
    let entry = |f: &Found| if let Found::Entry { entry, .. } = f { Some(entry.clone()) } else { None };
    found.iter().filter_map(entry).collect()
}

fn entry_names(found: &[Found]) -> Vec<String> {
    entries(found).iter().map(|e| text(&e.name)).collect()
}

fn names(left_out: &[LeftOut]) -> Vec<String> {
    left_out.iter().map(|what| text(&what.name)).collect()
}

fn codes(left_out: &[LeftOut]) -> Vec<Code> {
    left_out.iter().filter_map(|what| Code::from_number(what.code)).collect()
}

fn text(name: &[u8]) -> String {
    String::from_utf8(name.to_vec()).unwrap()
}

fn set_mtime(path: &Path, mtime_ns: i64) {
    let times = super::part::modified(mtime_ns);
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Everything beneath a folder and the folder itself: kind and content, mode, mtime.
fn tree(root: &Path) -> BTreeMap<String, (String, u32, i64)> {
    let mut all = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        let meta = path.symlink_metadata().unwrap();
        let content = if meta.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            "folder".to_owned()
        } else if meta.is_symlink() {
            format!("link to {}", fs::read_link(&path).unwrap().display())
        } else if meta.is_file() {
            format!("file {}", blake3::hash(&fs::read(&path).unwrap()))
        } else {
            "special".to_owned()
        };
        let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().escape_ascii().to_string();
        let mtime_ns = meta.mtime() * 1_000_000_000 + meta.mtime_nsec();
        all.insert(name, (content, meta.mode() & 0o7777, mtime_ns));
    }
    all
}
