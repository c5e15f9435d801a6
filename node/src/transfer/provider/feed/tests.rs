//! A listing and a stored list come whole and in order, and no faster than they are taken.

use super::*;
use crate::transfer::attachments::Attachments;
use posthouse_connectors::folder::FolderOptions;
use posthouse_platform::blocking::Inline;
use posthouse_platform::disk::RealDisk;
use posthouse_protocol::manifest::LeftOuts;
use std::path::Path;
use std::time::Duration;

/// Files of many batches.
const FILES: usize = 8 * BATCH;

fn filled(folder: &Path) -> Arc<FolderSource> {
    for number in 0..FILES {
        std::fs::write(folder.join(format!("f{number:05}")), b"x").unwrap();
    }
    Arc::new(FolderSource::open(folder, &FolderOptions::default()).unwrap())
}

async fn names(mut found: mpsc::Receiver<Result<Vec<Found>, Problem>>) -> Vec<String> {
    let mut names = Vec::new();
    while let Some(batch) = found.recv().await {
        for one in batch.unwrap() {
            let Found::Entry { entry, .. } = one else { panic!("{one:?}") };
            assert_eq!(entry.index, names.len() as u64);
            names.push(String::from_utf8(entry.name).unwrap());
        }
    }
    names
}

fn expected() -> Vec<String> {
    std::iter::once(".".to_owned()).chain((0..FILES).map(|number| format!("f{number:05}"))).collect()
}

#[tokio::test]
async fn a_listing_does_not_run_ahead_of_whoever_takes_it_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let source = filled(folder.path());
    let found = listing(&World::real(), source.clone());
    while found.len() < BATCHES_AHEAD {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // One that does not wait has listed all of it long before that.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(found.len(), BATCHES_AHEAD);
    assert!(!found.is_closed());
    assert_eq!(names(found).await, expected());

    // Nobody takes it any more: then nothing reads the folder any more either.
    drop(listing(&World::real(), source.clone()));
    while Arc::strong_count(&source) > 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn where_work_cannot_wait_all_of_it_is_listed_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let world = World { blocking: Arc::new(Inline), ..World::real() };
    assert_eq!(names(listing(&world, filled(folder.path()))).await, expected());
}

#[tokio::test]
async fn a_signed_list_comes_in_its_order_with_what_was_left_out_behind_it() {
    let (folder, transfer) = (tempfile::tempdir().unwrap(), TransferId::from_random([7; 16]));
    let world = World::real();
    let entry = |index: u64| Entry {
        index,
        name: format!("f{index:05}").into_bytes(),
        kind: EntryKind::File,
        size: 1,
        mode: 0o644,
        mtime_ns: 5,
        root: Some([index as u8; 32].into()),
        revision: 0,
        same_as: None,
        attributes: None,
    };
    let entries: Vec<Entry> = (0..FILES as u64).map(entry).collect();
    let mut omitted = LeftOuts::default();
    for number in 0..300 {
        let name = format!("z{number}").into_bytes();
        assert!(omitted.push(LeftOut { name, code: 2010, reason: "it changes".to_owned() }));
    }
    let mut attachments = Attachments::begin(folder.path(), &transfer, 1, Arc::new(RealDisk)).unwrap();
    attachments.add(&entries).unwrap();
    attachments.finish(&omitted, true).unwrap();

    let mut feed = Feed::signed(&world, folder.path().to_owned(), transfer.clone()).await.unwrap();
    let (mut listed, mut left_out) = (Vec::new(), Vec::new());
    while !feed.ended() {
        let fed = feed.next().await.unwrap();
        assert!(fed.len() <= BATCH);
        for one in fed {
            match one {
                Fed::Entry(entry, None) => listed.push(entry),
                Fed::LeftOut(what) => left_out.push(what),
                Fed::Entry(_, Some(_)) | Fed::End => {}
            }
        }
    }
    assert_eq!(listed, entries);
    assert_eq!(left_out, omitted.iter().collect::<Vec<_>>());

    std::fs::remove_dir_all(folder.path().join(transfer.as_str())).unwrap();
    assert!(Feed::signed(&world, folder.path().to_owned(), transfer).await.is_err(), "it is no empty list");
}
