//! What landing takes the place of, where older versions are kept.

use super::*;

impl Scene {
    fn older(&self, name: &str) -> PathBuf {
        self.folder.join("older").join(name)
    }
    /// The destination of a transfer that began so many seconds after 2001-09-09 01:46:40 UTC.
    fn keeping(&self, write: Write, seconds: u8) -> FolderDestination {
        let begun = Timestamp(1_000_000_000_000 + i64::from(seconds) * 1000);
        let versions = Versions { folder: self.folder.join("older"), begun, keep_ms: Some(5000) };
        let transfer = self.transfer(seconds);
        let to = FolderDestination::open(&self.target("."), write, &transfer, Arc::new(RealDisk)).unwrap();
        to.keeping(&versions).unwrap()
    }
    /// The folder in which that transfer has kept something.
    fn kept(&self, seconds: u8) -> PathBuf {
        let name = format!("20010909T01464{seconds}Z-{}", super::super::names::short(&self.transfer(seconds)));
        self.older(&name)
    }
    fn exchange_keeping(&self, write: Write, seconds: u8) {
        assert_eq!(self.exchange_into(&FolderOptions::default(), &self.keeping(write, seconds)), Vec::new());
        assert_eq!(tree(&self.source(".")), tree(&self.target(".")));
        assert_eq!(self.leftovers(), Vec::<String>::new());
    }
}

#[test]
fn what_is_written_over_is_kept_under_its_name() {
    let at = Scene::new();
    at.write("a/人口.txt", "first");
    at.write("a/same", "same");
    symlink("a/same", at.source("link")).unwrap();
    at.exchange_keeping(Write::Upsert, 0);
    assert!(!at.kept(0).exists(), "nothing was there before");
    let old = tree(&at.target("."));
    at.write("a/人口.txt", "second, and longer");
    fs::remove_file(at.source("link")).unwrap();
    symlink("elsewhere", at.source("link")).unwrap();
    at.exchange_keeping(Write::Upsert, 1);
    let kept = tree(&at.kept(1));
    let name = "a/人口.txt".as_bytes().escape_ascii().to_string();
    assert_eq!(kept.keys().collect::<Vec<_>>(), ["", "a", name.as_str(), "link"]);
    for name in [name, "link".to_owned()] {
        assert_eq!(kept[&name], old[&name], "{name}");
    }
    // Asked again by a process that does not know that it is done.
    at.exchange_keeping(Write::Upsert, 1);
    assert_eq!(tree(&at.kept(1)), kept);
}

#[test]
fn a_file_that_gives_way_to_a_folder_is_kept() {
    let at = Scene::new();
    at.write("name", "a file");
    at.exchange_keeping(Write::Upsert, 0);
    fs::remove_file(at.source("name")).unwrap();
    at.write("name/inner", "x");
    at.exchange_keeping(Write::Upsert, 1);
    assert_eq!(fs::read(at.kept(1).join("name")).unwrap(), b"a file");
}

#[test]
fn what_a_mirror_deletes_is_kept() {
    let at = Scene::new();
    for number in 0..30 {
        at.write(&format!("f{number}"), &format!("file {number}"));
    }
    at.exchange_keeping(Write::Mirror, 0);
    let landed = at.landed();
    fs::remove_file(at.source("f7")).unwrap();
    let to = at.keeping(Write::Mirror, 1);
    let plan = mirror_plan(&to, &landed, &those(&landed, |name| name != b"f7"), &[]).unwrap();
    assert_eq!(to.mirror_delete(&plan).unwrap(), 1);
    to.finish().unwrap();
    assert!(!at.target("f7").exists());
    assert_eq!(fs::read(at.kept(1).join("f7")).unwrap(), b"file 7");
}

#[test]
fn the_folder_that_a_replace_takes_the_place_of_is_kept_as_a_whole() {
    let at = Scene::new();
    at.write("a/same", "same");
    at.write("gone", "gone");
    at.exchange_keeping(Write::Replace, 0);
    let old = tree(&at.target("."));
    fs::write(at.target("local"), "somebody's").unwrap();
    fs::remove_file(at.source("gone")).unwrap();
    at.write("new", "new");
    at.exchange_keeping(Write::Replace, 1);
    let kept = tree(&at.kept(1));
    assert_eq!(kept["gone"], old["gone"]);
    assert_eq!(kept["a/same"], old["a/same"]);
    assert_eq!(fs::read(at.kept(1).join("local")).unwrap(), b"somebody's");
    // A repeat by a process that does not know that it is done keeps the folder that it finds beside the first.
    at.exchange_keeping(Write::Replace, 1);
    assert_eq!(tree(&at.kept(1)), kept);
    assert_eq!(
        fs::read(at.older(&format!("{}.~1~/new", at.kept(1).file_name().unwrap().to_str().unwrap()))).unwrap(),
        b"new"
    );
}

/// A transfer that ended between the exchange and its clean-up.
fn exchanged(at: &Scene) {
    at.write("file", "old");
    at.exchange_keeping(Write::Replace, 0);
    at.write("file", "new");
    let entry = at.entry("file");
    let to = at.keeping(Write::Replace, 1);
    land(&to, &entry, b"new", false);
    to.publish(&entry).unwrap();
    // The note and the exchange are done by hand as `finish` does them, and no more.
    let short = super::super::names::short(&at.transfer(1));
    let (sibling, note) = (super::super::names::sibling_leaf(&short), super::super::names::swap_leaf(&short));
    let parent = fs::File::open(&at.folder).unwrap();
    let new = fs::metadata(at.folder.join(&sibling)).unwrap();
    fs::write(at.folder.join(&note), format!("{}:{}\n", new.dev(), new.ino())).unwrap();
    let exchange = rustix::fs::RenameFlags::EXCHANGE;
    rustix::fs::renameat_with(&parent, sibling.as_str(), &parent, "target", exchange).unwrap();
}

#[test]
fn the_old_folder_is_kept_by_whoever_goes_on_after_the_exchange() {
    let at = Scene::new();
    exchanged(&at);
    let to = at.keeping(Write::Replace, 1);
    assert!(to.has_exchanged());
    to.adopt(&at.entry("file"), true).unwrap();
    to.finish().unwrap();
    assert_eq!(fs::read(at.target("file")).unwrap(), b"new");
    assert_eq!(fs::read(at.kept(1).join("file")).unwrap(), b"old");
    assert_eq!(at.leftovers(), Vec::<String>::new());
}

#[test]
fn the_old_folder_is_kept_where_a_transfer_is_given_up_after_the_exchange() {
    let at = Scene::new();
    exchanged(&at);
    at.keeping(Write::Replace, 1).discard(&mut std::iter::empty()).unwrap();
    assert_eq!(fs::read(at.target("file")).unwrap(), b"new");
    assert_eq!(fs::read(at.kept(1).join("file")).unwrap(), b"old");
    assert_eq!(at.leftovers(), Vec::<String>::new());
    // One that was given up before has nothing to keep.
    let to = at.keeping(Write::Replace, 2);
    land(&to, &at.entry("file"), b"new", false);
    assert!(!to.has_exchanged());
    to.discard(&mut std::iter::empty()).unwrap();
    assert!(!at.kept(2).exists());
    assert_eq!(at.leftovers(), Vec::<String>::new());
}

#[test]
fn older_versions_go_when_their_time_is_over() {
    let at = Scene::new();
    for (seconds, content) in ["1", "22", "333"].into_iter().enumerate() {
        at.write("file", content);
        at.exchange_keeping(Write::Upsert, seconds as u8);
    }
    assert!(at.kept(1).exists() && at.kept(2).exists());
    let now = Timestamp(fs::metadata(at.kept(2)).unwrap().ctime() * 1000);
    assert_eq!(at.keeping(Write::Upsert, 3).drop_old_versions(now).unwrap(), 0);
    // A transfer's own are never too old for it.
    assert_eq!(at.keeping(Write::Upsert, 2).drop_old_versions(now.plus_ms(60_000)).unwrap(), 1);
    assert!(!at.kept(1).exists() && at.kept(2).exists());
    assert_eq!(at.destination(Write::Upsert).drop_old_versions(now.plus_ms(60_000)).unwrap(), 0);
}
