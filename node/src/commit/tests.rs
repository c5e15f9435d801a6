//! A folder of several pages is given its names, and what stands is remembered.

use super::*;
use posthouse_platform::disk::RealDisk;
use std::path::PathBuf;

/// Files that are staged in a folder of their own, each with its number as its content.
struct Scene {
    _folder: tempfile::TempDir,
    to: PathBuf,
    world: World,
    store: Store,
    stage: Arc<Stage>,
    transfer: TransferId,
    job: JobId,
}

impl Scene {
    async fn with(files: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (to, world) = (folder.path().join("to"), World::real());
        let store = Store::open(&world, &folder.path().join("data")).await.unwrap();
        let (transfer, job) = (TransferId::from_random([1; 16]), JobId::parse("scans").unwrap());
        let disk = Arc::new(RealDisk);
        let destination = FolderDestination::open(&to, Write::Upsert, &transfer, disk).unwrap();
        let entries: Vec<Entry> = (0..files).map(entry).collect();
        for entry in &entries {
            let content = entry.index.to_string();
            destination.part(&entry.name, false).unwrap().write_whole(entry, content.as_bytes()).unwrap();
        }
        destination.sync().unwrap();
        store
            .write_now(|tx| {
                let put = |entry: &Entry| exchange::put_landing_whole(tx, &transfer, entry, Whole::Part, 1);
                entries.iter().try_for_each(put)
            })
            .unwrap();
        let stage = Arc::new(Stage::new(transfer.clone(), job.clone(), Place::Folder(destination)));
        Self { _folder: folder, to, world, store, stage, transfer, job }
    }

    async fn publish(&self) -> Result<u64, Problem> {
        self.publish_by(Write::Upsert).await
    }

    async fn publish_by(&self, write: Write) -> Result<u64, Problem> {
        self.commit(write, Proof::Written).publish_folder(&self.stage).await
    }

    fn commit(&self, write: Write, proof: Proof) -> Commit<'_> {
        Commit {
            world: &self.world,
            store: &self.store,
            transfer: &self.transfer,
            job: &self.job,
            write,
            proof,
            quarantine_max: None,
            left_out: &[],
        }
    }

    fn path(&self, index: u64) -> PathBuf {
        self.to.join(String::from_utf8(entry(index).name).unwrap())
    }

    fn remembered(&self) -> Vec<LandedFile> {
        let all = self.store.read_now(|db| exchange::landed_page(db, &self.job, &self.transfer, b"", u32::MAX));
        all.unwrap().into_iter().map(|(file, _)| file).collect()
    }

    /// The source has this no more, or has it again.
    fn list(&self, index: u64, is_listed: bool) {
        let entry = entry(index);
        self.store
            .write_now(|tx| match is_listed {
                true => exchange::put_landing_whole(tx, &self.transfer, &entry, Whole::Part, 1),
                false => exchange::forget_landing_entry(tx, &self.transfer, &entry.name),
            })
            .unwrap();
    }

    fn stands(&self, index: u64) -> bool {
        self.to.join(String::from_utf8(entry(index).name).unwrap()).exists()
    }
}

fn entry(index: u64) -> Entry {
    let content = index.to_string();
    Entry {
        index,
        name: format!("d{:03}/f{index:05}", index / 100).into_bytes(),
        kind: EntryKind::File,
        size: content.len() as u64,
        mode: 0o644,
        mtime_ns: 1_000_000_000,
        root: Some((*blake3::hash(content.as_bytes()).as_bytes()).into()),
        revision: 0,
        same_as: None,
        attributes: None,
    }
}

#[tokio::test]
async fn every_file_of_every_page_has_its_name_and_is_remembered_as_it_stands() {
    let files = 2 * u64::from(PAGE) + 7;
    let scene = Scene::with(files).await;
    assert_eq!(scene.publish().await.unwrap(), 0);
    let remembered = scene.remembered();
    assert_eq!(remembered.len() as u64, files);
    for (index, file) in (0..).zip(&remembered) {
        assert_eq!(file.name, entry(index).name);
        let path = scene.to.join(String::from_utf8(file.name.clone()).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), index.to_string());
        let stat = std::fs::metadata(&path).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::ino(&stat), file.stat.inode);
    }
    // Cut short after that, it runs again over all of them and ends at the same.
    assert_eq!(scene.publish().await.unwrap(), 0);
    assert_eq!(scene.remembered(), remembered);
}

#[tokio::test]
async fn what_stands_is_remembered_where_the_rest_cannot_be_given_its_name() {
    let page = u64::from(PAGE);
    let scene = Scene::with(3 * page).await;
    // Of one file of the second page the content is gone.
    let lost = entry(page + 900);
    let Place::Folder(folder) = scene.stage.place() else { panic!("it is a folder") };
    folder.discard_parts(&mut std::iter::once(lost.name.as_slice())).unwrap();
    assert_eq!(scene.publish().await.unwrap_err().code, Code::StorageFailed);
    let stands = |index: &u64| scene.to.join(String::from_utf8(entry(*index).name).unwrap()).exists();
    let standing: Vec<Vec<u8>> = (0..3 * page).filter(stands).map(|index| entry(index).name).collect();
    let remembered: Vec<Vec<u8>> = scene.remembered().into_iter().map(|file| file.name).collect();
    assert_eq!(remembered, standing);
    assert!(standing.len() as u64 > page && standing.len() as u64 <= 2 * page, "{}", standing.len());
}

/// Another file under its name, of this content and the same time.
fn exchange_for(path: &std::path::Path, content: &str) {
    let (stood, other) = (std::fs::metadata(path).unwrap(), path.with_extension("other"));
    std::fs::write(&other, content).unwrap();
    std::fs::File::options().write(true).open(&other).unwrap().set_modified(stood.modified().unwrap()).unwrap();
    std::fs::rename(&other, path).unwrap();
}

#[tokio::test]
async fn whatever_is_taken_or_exchanged_after_it_landed_is_named_and_all_of_it_is_forgotten() {
    let page = u64::from(PAGE);
    for proof in [Proof::Written, Proof::Reread] {
        let scene = Scene::with(page + 7).await;
        scene.publish().await.unwrap();
        scene.commit(Write::Upsert, proof).look(&scene.stage).await.unwrap();
        // What says nothing of a content: another time, a second name, other rights, a copy in its place.
        let touched = std::fs::File::options().write(true).open(scene.path(5)).unwrap();
        touched.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        std::fs::hard_link(scene.path(6), scene.to.join("second")).unwrap();
        let rights = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o664);
        std::fs::set_permissions(scene.path(7), rights).unwrap();
        exchange_for(&scene.path(8), "8");
        scene.commit(Write::Upsert, proof).look(&scene.stage).await.unwrap();

        std::fs::remove_file(scene.path(3)).unwrap();
        exchange_for(&scene.path(500), "005");
        std::fs::write(scene.path(page + 2), "longer than it was").unwrap();
        let problem = scene.commit(Write::Upsert, proof).look(&scene.stage).await.unwrap_err();
        assert_eq!(problem.code, Code::NotAsLanded);
        assert!(problem.facts.contains(&("name".to_owned(), "d000/f00003".to_owned())), "{problem:?}");
        assert!(problem.cause.contains("2 more like it"), "{problem}");
        let remembered: Vec<Vec<u8>> = scene.remembered().into_iter().map(|file| file.name).collect();
        let taken = [3, 500, page + 2];
        let stand: Vec<Vec<u8>> = (0..page + 7).filter(|i| !taken.contains(i)).map(|i| entry(i).name).collect();
        assert_eq!(remembered, stand);
    }
}

#[tokio::test]
async fn a_folder_that_was_moved_out_of_its_place_is_not_stated() {
    let scene = Scene::with(3).await;
    scene.publish().await.unwrap();
    std::fs::rename(&scene.to, scene.to.with_extension("moved")).unwrap();
    assert_eq!(
        scene.commit(Write::Upsert, Proof::Written).look(&scene.stage).await.unwrap_err().code,
        Code::NotAsLanded
    );
    std::fs::create_dir(&scene.to).unwrap();
    assert_eq!(
        scene.commit(Write::Upsert, Proof::Written).look(&scene.stage).await.unwrap_err().code,
        Code::NotAsLanded
    );
}

#[tokio::test]
async fn a_mirror_of_several_pages_deletes_up_to_a_tenth_and_nothing_above() {
    let files = 2 * u64::from(PAGE) + 7;
    let scene = Scene::with(files).await;
    assert_eq!(scene.publish().await.unwrap(), 0);
    assert_eq!(scene.publish_by(Write::Mirror).await.unwrap(), 0, "all of it is in scope");
    // One more than a tenth, from every page, its first and its last among them.
    let most = files / 10;
    let ends = [0, u64::from(PAGE) - 1, u64::from(PAGE), 2 * u64::from(PAGE) - 1, 2 * u64::from(PAGE), files - 1];
    let others = (0..files).step_by(9).filter(|index| !ends.contains(index)).take((most + 1) as usize - ends.len());
    let gone: Vec<u64> = ends.into_iter().chain(others).collect();
    assert_eq!(gone.len() as u64, most + 1);
    gone.iter().for_each(|index| scene.list(*index, false));
    let refused = scene.publish_by(Write::Mirror).await.unwrap_err();
    let expected = Problem::new(Code::MirrorUnsafe).with("count", most + 1).with("total", files);
    assert_eq!((refused.code, refused.facts), (expected.code, expected.facts));
    assert!((0..files).all(|index| scene.stands(index)), "nothing of it was deleted");
    assert_eq!(scene.remembered().len() as u64, files);

    // The last of the first page is there again.
    scene.list(gone[1], true);
    assert_eq!(scene.publish_by(Write::Mirror).await.unwrap(), most);
    for index in 0..files {
        assert_eq!(scene.stands(index), index == gone[1] || !gone.contains(&index), "{index}");
    }
    assert_eq!(scene.remembered().len() as u64, files - most);
    // What is deleted is forgotten, and not counted any more.
    assert_eq!(scene.publish_by(Write::Mirror).await.unwrap(), 0);
}
