//! Parts are written and read again; what was cut, turned or mixed does not open.

use super::*;
use posthouse_platform::disk::RealDisk;
use posthouse_platform::identity::ferry_key::FerryKey;
use posthouse_protocol::cose::{Ed25519Signer, Signer};
use posthouse_protocol::id::{NodeId, TransferId};
use posthouse_protocol::time::Timestamp;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

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
    assert_eq!(put_out(scene.folder.path(), &transfer, Some([9; 8]), &RealDisk), Ok(0), "it is of another making");
    assert_eq!(put_out(scene.folder.path(), &transfer, Some([4; 8]), &RealDisk), Ok(1));
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
fn a_label_is_exactly_what_its_maker_writes() {
    let label = Label {
        transfer: TransferId::from_random([3; 16]),
        to: me(),
        job: "scans".parse().unwrap(),
        holds: Holds::List,
        edition: [4; 8].into(),
        number: 2,
        of: Some(2),
        secret: [5; 32].into(),
        sealed_bytes: 300,
    };
    let bytes = posthouse_protocol::codec::encode(&label);
    assert_eq!(Label::parse(&bytes).unwrap(), label);
    // Of nine keys: with a tenth, which nobody knows, it would be read as if that were not there.
    let mut more = bytes.clone();
    assert_eq!(more[0], 0xa9, "a map of nine");
    more[0] = 0xaa;
    more.extend([0x18, 0x63, 0x00]);
    assert!(Label::parse(&more).is_err());
    // What it is sealed in is bounded by the file, and by how long a label may be.
    let trailer = |length: u32| {
        let bytes = [&length.to_be_bytes()[..], &label::hint(&[6; 32]), MAGIC].concat();
        Trailer::parse(bytes.as_slice().try_into().unwrap()).unwrap()
    };
    assert!(trailer(100).is_for(&[6; 32]) && !trailer(100).is_for(&[7; 32]));
    let end = 100 + Trailer::BYTES as u64;
    assert_eq!(trailer(100).label(end + 5), Ok((5, 100)));
    assert!(
        trailer(100).label(end - 1).is_err()
            && trailer(47).label(end).is_err()
            && trailer(u32::MAX).label(u64::MAX).is_err()
    );
}

#[test]
fn parts_that_are_not_finished_leave_nothing_behind() {
    let scene = Scene::new();
    let mut parts = scene.parts(200 << 10);
    parts.put(&[&vec![1; 300 << 10]]).unwrap();
    parts.put(&[&[2; 10]]).unwrap();
    assert_eq!(scene.files().len(), 2, "one, and one that is being made");
    assert!(parts.discard());
    assert_eq!(scene.files(), Vec::<PathBuf>::new());
}

#[test]
fn a_last_part_that_could_not_be_named_waits_for_its_name() {
    let scene = Scene::new();
    let transfer = TransferId::from_random([3; 16]);
    let mut parts = scene.parts(1 << 30);
    parts.put(&[&[7; 1_000]]).unwrap();
    parts.finish().unwrap();
    let making = scene.files().pop().unwrap();
    let name = making.file_name().unwrap().to_str().unwrap();
    let named = scene.folder.path().join(name.trim_start_matches('.').trim_end_matches(MAKING));
    // Something stands there under its name.
    std::fs::create_dir(&named).unwrap();
    assert_eq!(parts.put_out().unwrap_err().code, Code::StorageFailed);
    parts.leave();
    drop(parts);
    std::fs::remove_dir(&named).unwrap();
    assert_eq!(put_out(scene.folder.path(), &transfer, Some([4; 8]), &RealDisk), Ok(1));
    assert_eq!(scene.read(&named).unwrap(), [7; 1_000]);
    // Whoever does not leave it takes it along.
    let mut parts = scene.parts(1 << 30);
    parts.put(&[&[7; 1_000]]).unwrap();
    parts.finish().unwrap();
    std::fs::remove_file(&named).unwrap();
    std::fs::create_dir(&named).unwrap();
    assert!(parts.put_out().is_err());
    drop(parts);
    assert_eq!(scene.files(), [named]);
}

#[test]
fn what_is_taken_back_is_of_that_making_and_nobody_elses() {
    let scene = Scene::new();
    let (folder, transfer) = (scene.folder.path(), TransferId::from_random([3; 16]));
    let mut parts = scene.parts(200 << 10);
    parts.put(&[&vec![1; 300 << 10]]).unwrap();
    parts.put(&[&[2; 10]]).unwrap();
    // The node is killed.
    std::mem::forget(parts);
    let left = scene.files();
    assert_eq!(left.len(), 2, "{left:?}");
    // What others have there: an answer to this transfer, another one's parts, and files that are called alike.
    let name = left[1].file_name().unwrap().to_str().unwrap().to_owned();
    let (hash, rest) = name.split_once('-').unwrap();
    let edition = rest.split_once('-').unwrap().0;
    let others = [
        format!("{hash}-{}-00001.part", "5".repeat(edition.len())),
        format!("{}-{edition}-00001.part", "0".repeat(hash.len())),
        format!("copy of {name}"),
        format!("..{name}"),
        "report.pdf".to_owned(),
    ];
    for other in &others {
        std::fs::write(folder.join(other), other).unwrap();
    }
    assert_eq!(take_back(folder, &transfer, Some([9; 8])), 0);
    assert_eq!(take_back(folder, &TransferId::from_random([9; 16]), Some([4; 8])), 0);
    assert_eq!(take_back(folder, &transfer, Some([4; 8])), 2);
    let mut expected: Vec<PathBuf> = others.iter().map(|other| folder.join(other)).collect();
    expected.sort();
    assert_eq!(scene.files(), expected);
    assert_eq!(take_back(&folder.join("away"), &transfer, Some([4; 8])), 0, "a disk that is not there");
}
