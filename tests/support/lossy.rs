//! A disk that loses what was not synced: mounted by FUSE in this process, kept in memory, cut off at any moment.
//! What a cut leaves is in [`model`]; here the kernel's questions are answered.

mod model;

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use model::{Content, Kind, Model, Node, Refused, Rename};
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

pub(crate) use model::Random;

pub(crate) struct LossyDisk {
    at: PathBuf,
    model: Arc<Mutex<Model>>,
    mounted: Option<BackgroundSession>,
}

/// Whether this machine lets us mount one; where it does not, that is said and the scene is left out.
pub(crate) fn is_possible() -> bool {
    static POSSIBLE: OnceLock<bool> = OnceLock::new();
    *POSSIBLE.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let model = Arc::new(Mutex::new(Model::new((0, 0))));
        let mounted = fuser::spawn_mount(Mounted(model), folder.path(), &Config::default());
        match mounted.and_then(BackgroundSession::umount_and_join) {
            Ok(()) => true,
            Err(error) => {
                // Written past the test harness, which keeps to itself what a passing test prints.
                let said = "skipped: no disk can be mounted by FUSE here, so that none can lose anything";
                writeln!(std::io::stderr(), "{said}: {error}").expect("it is said");
                false
            }
        }
    })
}

impl LossyDisk {
    /// An empty one, in a folder that is made for it.
    pub(crate) fn mount(at: &Path) -> Self {
        Self::mount_that(at, false)
    }

    /// One that takes names for the same that differ by upper and lower case only.
    pub(crate) fn mount_folding(at: &Path) -> Self {
        Self::mount_that(at, true)
    }

    fn mount_that(at: &Path, folds: bool) -> Self {
        std::fs::create_dir_all(at).expect("the folder is made");
        let owner = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let mut model = Model::new(owner);
        model.folds = folds;
        let mut disk = Self { at: at.to_owned(), model: Arc::new(Mutex::new(model)), mounted: None };
        disk.attach();
        disk
    }

    /// The power goes, and comes again. Whoever used it must be dead already.
    pub(crate) fn cut(&mut self, seed: u64) {
        self.detach();
        locked(&self.model).cut(&mut Random(seed));
        self.attach();
    }

    /// From now on nothing can be synced any more, or can again.
    pub(crate) fn set_sync_fails(&self, fails: bool) {
        locked(&self.model).sync_fails = fails;
    }

    fn attach(&mut self) {
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("posthouse-lossy".to_owned()), MountOption::DefaultPermissions];
        let session = fuser::spawn_mount(Mounted(self.model.clone()), &self.at, &config);
        self.mounted = Some(session.expect("FUSE mounts: /dev/fuse is there, and fusermount3 or root's rights"));
    }
    fn detach(&mut self) {
        let Some(session) = self.mounted.take() else { return };
        // A child that another test has begun to start may hold our open files until it has become its own program.
        let unmount = || {
            UNMOUNT.iter().any(|words| {
                let mut command = silent(words[0]);
                command.args(&words[1..]).arg(&self.at).status().is_ok_and(|status| status.success())
            })
        };
        let mut tries = 0;
        while !unmount() {
            tries += 1;
            assert!(tries < 100, "somebody uses the disk still");
            std::thread::sleep(Duration::from_millis(50));
        }
        session.join().expect("it ends once it is unmounted");
    }
}

impl Drop for LossyDisk {
    fn drop(&mut self) {
        self.mounted.take().map(BackgroundSession::umount_and_join);
    }
}

fn silent(program: &str) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// As root, and as anybody else.
const UNMOUNT: [&[&str]; 2] = [&["umount"], &["fusermount3", "-u"]];

struct Mounted(Arc<Mutex<Model>>);

fn locked(model: &Mutex<Model>) -> MutexGuard<'_, Model> {
    model.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Mounted {
    fn model(&self) -> MutexGuard<'_, Model> {
        locked(&self.0)
    }
    fn enter(&self, made: Result<u64, Refused>, reply: ReplyEntry) {
        let model = self.model();
        match made.and_then(|number| attributes(&model, number)) {
            // The kernel knows an entry by one spelling, and would miss that it went by another.
            Ok(found) => reply.entry(if model.folds { &Duration::ZERO } else { &LASTS }, &found, Generation(0)),
            Err(refused) => reply.error(errno(refused)),
        }
    }
}

fn empty(done: Result<(), Refused>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(refused) => reply.error(errno(refused)),
    }
}

fn errno(refused: Refused) -> Errno {
    match refused {
        Refused::NotThere => Errno::ENOENT,
        Refused::There => Errno::EEXIST,
        Refused::NoFolder => Errno::ENOTDIR,
        Refused::IsFolder => Errno::EISDIR,
        Refused::NotEmpty => Errno::ENOTEMPTY,
        Refused::SyncFailed => Errno::EIO,
    }
}

fn kind(node: &Node) -> FileType {
    match node.kind {
        Kind::Folder(_) => FileType::Directory,
        Kind::File(_) => FileType::RegularFile,
        Kind::Link(_) => FileType::Symlink,
        Kind::Socket => FileType::Socket,
    }
}

fn attributes(model: &Model, number: u64) -> Result<FileAttr, Refused> {
    let node = model.node(number)?;
    let (size, (uid, gid)) = (node.size(), node.owner);
    Ok(FileAttr {
        ino: INodeNo(number),
        size,
        blocks: size.div_ceil(512),
        atime: node.modified,
        mtime: node.modified,
        ctime: node.modified,
        crtime: node.modified,
        kind: kind(node),
        perm: (node.mode & 0o7777) as u16,
        nlink: if matches!(node.kind, Kind::Folder(_)) { 2 } else { node.links },
        uid,
        gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    })
}

fn new(kind: Kind, mode: u32, request: &Request) -> Node {
    Node::new(kind, mode, (request.uid(), request.gid()))
}

fn number(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

impl Filesystem for Mounted {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.model().find(parent.0, name);
        self.enter(found, reply);
    }
    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match attributes(&self.model(), ino.0) {
            Ok(found) => reply.attr(&LASTS, &found),
            Err(refused) => reply.error(errno(refused)),
        }
    }
    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut model = self.model();
        let change = |model: &mut Model| {
            if let Some(size) = size {
                model.content(ino.0)?.set_size(number(size));
            }
            let node = model.node_mut(ino.0)?;
            node.mode = mode.unwrap_or(node.mode);
            node.owner = (uid.unwrap_or(node.owner.0), gid.unwrap_or(node.owner.1));
            match mtime {
                Some(TimeOrNow::SpecificTime(time)) => node.modified = time,
                Some(TimeOrNow::Now) => node.modified = SystemTime::now(),
                None if size.is_some() => node.modified = SystemTime::now(),
                None => {}
            }
            attributes(model, ino.0)
        };
        match change(&mut model) {
            Ok(found) => reply.attr(&LASTS, &found),
            Err(refused) => reply.error(errno(refused)),
        }
    }
    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        match self.model().node(ino.0).map(|node| &node.kind) {
            Ok(Kind::Link(target)) => reply.data(target.as_os_str().as_bytes()),
            Ok(_) => reply.error(Errno::EINVAL),
            Err(refused) => reply.error(errno(refused)),
        }
    }
    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        let kind = match mode & 0o170_000 {
            0o140_000 => Kind::Socket,
            0o100_000 => Kind::File(Content::default()),
            _ => return reply.error(Errno::EPERM),
        };
        let made = self.model().make(parent.0, name, new(kind, mode & !umask, request));
        self.enter(made, reply);
    }
    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let folder = new(Kind::Folder(Default::default()), mode & !umask, request);
        let made = self.model().make(parent.0, name, folder);
        self.enter(made, reply);
    }
    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.model().remove(parent.0, name, false), reply);
    }
    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.model().remove(parent.0, name, true), reply);
    }
    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let made = self.model().make(parent.0, name, new(Kind::Link(target.to_owned()), 0o777, request));
        self.enter(made, reply);
    }
    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let how = match flags {
            flags if flags.contains(RenameFlags::RENAME_EXCHANGE) => Rename::Exchange,
            flags if flags.contains(RenameFlags::RENAME_NOREPLACE) => Rename::NoReplace,
            _ => Rename::Replace,
        };
        empty(self.model().rename((parent.0, name), (newparent.0, newname), how), reply);
    }
    fn link(&self, _: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let linked = self.model().link(ino.0, newparent.0, newname);
        self.enter(linked.map(|()| ino.0), reply);
    }
    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.model().node_mut(ino.0) {
            Ok(node) => {
                node.open += 1;
                reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
            }
            Err(refused) => reply.error(errno(refused)),
        }
    }
    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let mut model = self.model();
        let made = model.make(parent.0, name, new(Kind::File(Content::default()), mode & !umask, request));
        match made.and_then(|number| attributes(&model, number)) {
            Ok(found) => {
                if let Ok(node) = model.node_mut(found.ino.0) {
                    node.open += 1;
                }
                let lasts = if model.folds { &Duration::ZERO } else { &LASTS };
                reply.created(lasts, &found, Generation(0), FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
            }
            Err(refused) => reply.error(errno(refused)),
        }
    }
    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.model().content(ino.0) {
            Ok(content) => {
                let from = number(offset).min(content.now.len());
                let to = from.saturating_add(size as usize).min(content.now.len());
                reply.data(&content.now[from..to]);
            }
            Err(refused) => reply.error(errno(refused)),
        }
    }
    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut model = self.model();
        match model.content(ino.0) {
            Ok(content) => {
                content.write(number(offset), data);
                if let Ok(node) = model.node_mut(ino.0) {
                    node.modified = SystemTime::now();
                }
                reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX));
            }
            Err(refused) => reply.error(errno(refused)),
        }
    }
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }
    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        if let Ok(node) = self.model().node_mut(ino.0) {
            node.open = node.open.saturating_sub(1);
        }
        reply.ok();
    }
    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        empty(self.model().sync(ino.0), reply);
    }
    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let model = self.model();
        let names = match model.names(ino.0) {
            Ok(names) => names,
            Err(refused) => return reply.error(errno(refused)),
        };
        let own = [(OsStr::new("."), ino.0), (OsStr::new(".."), ino.0)];
        let all = own.into_iter().chain(names.iter().map(|(name, number)| (name.as_os_str(), *number)));
        for (at, (name, found)) in all.enumerate().skip(number(offset)) {
            let kind = model.node(found).map_or(FileType::Directory, kind);
            if reply.add(INodeNo(found), at as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }
    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        empty(self.model().sync_folder(), reply);
    }
    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(BLOCKS, BLOCKS, BLOCKS, BLOCKS, BLOCKS, 4096, 255, 4096);
    }
}

/// Nobody changes anything behind the kernel's back while it is mounted.
const LASTS: Duration = Duration::from_secs(3_600);
/// 64 GiB.
const BLOCKS: u64 = 16 << 20;

#[test]
fn a_real_file_system_that_forgets_what_was_not_synced() {
    if !is_possible() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path().join("disk");
    let mut disk = LossyDisk::mount(&at);
    let database = at.join("test.db");
    let rows = |database: &Path| -> i64 {
        let db = rusqlite::Connection::open(database).expect("the database opens");
        db.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).expect("it is whole")
    };
    let db = rusqlite::Connection::open(&database).expect("a database");
    db.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE t (id INTEGER PRIMARY KEY, x BLOB)",
    )
    .expect("a table");
    drop(db);
    std::fs::File::open(&at).and_then(|folder| folder.sync_all()).expect("its name is synced");
    for round in 0..20 {
        let db = rusqlite::Connection::open(&database).expect("the database opens");
        let before = rows(&database);
        let insert = "INSERT INTO t (x) VALUES (randomblob(20000))";
        db.execute_batch(&format!("{insert}; BEGIN; {insert}; {insert}")).expect("rows");
        std::fs::File::create(at.join("lost")).and_then(|mut file| file.write_all(b"soon gone")).expect("a file");
        drop(db);
        disk.cut(round);
        assert_eq!(rows(&database), before + 1, "round {round}");
    }
}
