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
        let commit = Commit {
            world: &self.world,
            store: &self.store,
            transfer: &self.transfer,
            job: &self.job,
            write: Write::Upsert,
            proof: Proof::Written,
            quarantine_max: None,
            left_out: &[],
        };
        commit.publish_folder(&self.stage).await
    }

    fn remembered(&self) -> Vec<LandedFile> {
        self.store.read_now(|db| exchange::all_landed(db, &self.job)).unwrap()
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
