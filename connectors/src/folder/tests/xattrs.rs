//! Extended attributes: what travels of them, what stays, and what cannot be carried.

use super::*;
use crate::folder::attributes;
use posthouse_protocol::limits::ATTRIBUTES_BYTES_MAX;
use posthouse_protocol::manifest::Attribute;
use rustix::fs::XattrFlags;
use rustix::io::Errno;
use std::time::Duration;

#[test]
fn attributes_of_files_and_folders_arrive_where_they_are_asked_for() {
    let at = marked();
    assert_eq!(at.exchange_with(&asked(), Write::Upsert, &at.transfer(0)), Vec::new());
    assert_eq!(tree(&at.source(".")), tree(&at.target(".")));
    assert_eq!(attributes_of(&at.source(".")), attributes_of(&at.target(".")));
    assert_eq!(of(&at.target("a")), [("user.empty", ""), ("user.tag", "保密")].map(owned));
    assert_eq!(of(&at.target("sub")), [owned(("user.owner", "\0\n"))]);
    assert_eq!(of(&at.target(".")), [owned(("user.top", "1"))]);
    // A link has none, and of one that is not asked for nothing is said.
    let said = |options: &FolderOptions| -> Vec<(String, Option<usize>)> {
        let listed = entries(&at.list(options));
        listed.iter().map(|entry| (text(&entry.name), entry.attributes.as_ref().map(Vec::len))).collect()
    };
    let counts =
        [(".", Some(1)), ("a", Some(2)), ("l", None), ("plain", Some(0)), ("sub", Some(1)), ("sub/b", Some(0))];
    assert_eq!(said(&asked()), counts.map(|(name, count)| (name.to_owned(), count)));
    assert!(said(&FolderOptions::default()).iter().all(|(_, count)| count.is_none()));
}

#[test]
fn a_second_pass_changes_nothing_and_a_change_of_attributes_alone_arrives() {
    let at = marked();
    let pass = || assert_eq!(at.exchange_with(&asked(), Write::Upsert, &at.transfer(0)), Vec::new());
    pass();
    let changed = |name: &str| {
        let stat = fs::metadata(at.target(name)).unwrap();
        (stat.ctime(), stat.ctime_nsec(), stat.ino())
    };
    let names = ["a", "plain", "sub", "sub/b"];
    let before = names.map(changed);
    std::thread::sleep(Duration::from_millis(50));
    pass();
    assert_eq!(names.map(changed), before, "something was written though nothing had changed");
    set(&at.source("a"), "user.tag", b"another");
    set(&at.source("plain"), "user.new", b"new");
    take_away(&at.source("a"), "user.empty");
    take_away(&at.source("sub"), "user.owner");
    pass();
    assert_eq!(attributes_of(&at.source(".")), attributes_of(&at.target(".")));
    assert_eq!(of(&at.target("a")), [owned(("user.tag", "another"))]);
    assert!(of(&at.target("sub")).is_empty());
    assert_eq!(tree(&at.source(".")), tree(&at.target(".")));
    let inodes = |before: [(i64, i64, u64); 4]| before.map(|(_, _, inode)| inode);
    assert_eq!(inodes(names.map(changed)), inodes(before), "it is still the same file");
}

#[test]
fn what_the_system_keeps_of_a_file_neither_travels_nor_is_touched() {
    let at = Scene::new();
    at.write("a", "content");
    set(&at.source("a"), "user.tag", b"1");
    let (name, value) = of_the_system(&at.source("a"));
    at.exchange_with(&asked(), Write::Upsert, &at.transfer(0));
    let kept = |path: &Path| {
        let mut kept = vec![0; 1024];
        let length = rustix::fs::lgetxattr(path, name, &mut kept[..])?;
        kept.truncate(length);
        Ok::<_, Errno>(kept)
    };
    assert_eq!(kept(&at.target("a")), Err(Errno::NODATA));
    rustix::fs::lsetxattr(at.target("a"), name, &value, XattrFlags::empty()).unwrap();
    set(&at.source("a"), "user.tag", b"2");
    at.exchange_with(&asked(), Write::Upsert, &at.transfer(0));
    assert_eq!(of(&at.target("a")), [owned(("user.tag", "2"))]);
    assert_eq!(kept(&at.target("a")), Ok(value));
}

#[test]
fn what_has_more_than_can_be_carried_is_left_out_by_name() {
    let at = marked();
    let mut from = at.opened(&asked());
    from.attributes_max = Some("user.tag".len() + "保密".len());
    let found = listed(&from, i64::MAX);
    let left_out: Vec<_> =
        found.iter().filter_map(|f| if let Found::LeftOut(what) = f { Some(what.clone()) } else { None }).collect();
    assert_eq!((names(&left_out), codes(&left_out)), (vec!["a".to_owned()], vec![Code::AttributesRefused]));
    assert_eq!(entry_names(&found), [".", "l", "plain", "sub", "sub/b"]);
    assert_eq!(entries(&found).iter().map(|entry| entry.index).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
}

#[test]
fn with_a_folder_all_that_is_in_it_is_left_out_whoever_refuses_it() {
    let at = Scene::new();
    at.write("sub/deep/b", "private");
    at.write("sub/deep/more/b", "private");
    at.write("suburb", "beside it");
    set(&at.source("sub"), "user.owner", b"somebody");
    for include in [vec![], vec!["**/b".to_owned(), "suburb".to_owned()]] {
        let mut from = at.opened(&FolderOptions { include, ..asked() });
        from.attributes_max = Some(3);
        let found = listed(&from, i64::MAX);
        let left_out: Vec<_> =
            found.iter().filter_map(|f| if let Found::LeftOut(what) = f { Some(what.clone()) } else { None }).collect();
        assert_eq!((names(&left_out), codes(&left_out)), (vec!["sub".to_owned()], vec![Code::AttributesRefused]));
        assert_eq!(entry_names(&found), [".", "suburb"]);
    }
    set(&at.source("."), "user.top", b"1234");
    let mut from = at.opened(&asked());
    from.attributes_max = Some(3);
    let refused = from.list(&|| Timestamp(i64::MAX), &mut |_| Ok(())).unwrap_err();
    assert_eq!(refused.code, Code::AttributesRefused, "of the folder itself nothing can be left out");
    // At the destination.
    let value = "x".repeat(60_000);
    let to = at.destination(Write::Upsert);
    let folder =
        Entry { kind: EntryKind::Directory, size: 0, ..with(file("sub", ""), &[("user.large", value.as_str())]) };
    let blocked = |entry: &Entry| matches!(to.present(entry).unwrap(), Present::Blocked(_));
    // Some take as much as that.
    let is_refused = blocked(&folder);
    assert_eq!(blocked(&file("sub/deep/b", "private")), is_refused);
    assert!(!blocked(&file("suburb", "beside it")));
}

#[test]
fn what_the_file_system_does_not_take_is_left_out_before_its_content_comes() {
    let at = Scene::new();
    let value = "x".repeat(60_000);
    let entry = with(file("large", "content"), &[("user.large", value.as_str())]);
    let to = at.destination(Write::Upsert);
    match to.present(&entry).unwrap() {
        Present::Blocked(what) => assert_eq!(codes(&[what]), [Code::AttributesRefused]),
        // Some take as much as that.
        _ => {
            land(&to, &entry, b"content", false);
            to.sync().unwrap();
            to.publish(&entry).unwrap();
            assert_eq!(read(&at.target("large")), entry.attributes.unwrap());
        }
    }
    assert_eq!(at.leftovers(), Vec::<String>::new());
    // A little fits everywhere, and what no entry may have is refused whoever lists it.
    assert_eq!(to.present(&with(file("b", ""), &[("user.b", "1")])).unwrap(), Present::Absent);
    for bad in [&[("trusted.b", "1")][..], &[("user.b", "1"), ("user.a", "1")]] {
        let Present::Blocked(what) = to.present(&with(file("b", ""), bad)).unwrap() else { panic!("{bad:?}") };
        assert_eq!(codes(&[what]), [Code::AttributesRefused]);
        assert_eq!(to.publish(&with(file("b", ""), bad)).unwrap_err().code, Code::AttributesRefused);
    }
}

#[test]
fn where_nothing_is_said_of_attributes_what_stands_there_keeps_its_own() {
    let at = marked();
    at.exchange(Write::Upsert);
    assert!(of(&at.target("a")).is_empty());
    set(&at.target("a"), "user.mine", b"1");
    set(&at.target("sub"), "user.mine", b"2");
    at.exchange(Write::Upsert);
    assert_eq!(of(&at.target("a")), [owned(("user.mine", "1"))]);
    assert_eq!(of(&at.target("sub")), [owned(("user.mine", "2"))]);
    // Also where its rights make it a file of its own.
    fs::hard_link(at.target("a"), at.folder.join("elsewhere")).unwrap();
    fs::set_permissions(at.source("a"), fs::Permissions::from_mode(0o640)).unwrap();
    at.exchange(Write::Upsert);
    assert_eq!(fs::metadata(at.target("a")).unwrap().nlink(), 1);
    assert_eq!(of(&at.target("a")), [owned(("user.mine", "1"))]);
    // Another file in its place is a new one.
    at.write("a", "other content");
    at.exchange(Write::Upsert);
    assert!(of(&at.target("a")).is_empty());
}

#[test]
fn a_second_name_with_other_attributes_is_a_copy_and_with_the_same_a_link() {
    let at = Scene::new();
    let whole = |name: &str, value: &str| {
        let root = *blake3::hash(b"content").as_bytes();
        with(Entry { root: Some(root.into()), ..file(name, "content") }, &[("user.tag", value)])
    };
    let first = whole("first", "1");
    let to = at.destination(Write::Upsert);
    land(&to, &first, b"content", false);
    to.sync().unwrap();
    to.publish(&first).unwrap();
    let (_, is_one) = to.publish_second(&whole("linked", "1"), &first, None).unwrap();
    assert!(is_one);
    let (stat, is_one) = to.publish_second(&whole("copied", "2"), &first, None).unwrap();
    assert!(!is_one);
    assert_eq!(to.publish_second(&whole("copied", "2"), &first, None).unwrap(), (stat, false), "a repeat");
    let tag = |name: &str| of(&at.target(name)).into_iter().map(|(_, value)| value).collect::<String>();
    assert_eq!((tag("first"), tag("linked"), tag("copied")), ("1".to_owned(), "1".to_owned(), "2".to_owned()));
    // What is changed of one name is not changed of the others.
    to.adopt(&whole("linked", "3"), true).unwrap();
    to.finish().unwrap();
    assert_eq!((tag("first"), tag("linked"), tag("copied")), ("1".to_owned(), "3".to_owned(), "2".to_owned()));
    assert_eq!(fs::metadata(at.target("first")).unwrap().nlink(), 1);
    assert_eq!(fs::read(at.target("linked")).unwrap(), b"content");
    assert_eq!(at.leftovers(), Vec::<String>::new());
}

#[test]
fn a_part_of_an_earlier_process_is_landed_with_what_is_said_now() {
    let at = Scene::new();
    let before = with(file("a", "content"), &[("user.before", "1"), ("user.both", "1")]);
    land(&at.destination(Write::Upsert), &before, b"content", false);
    for (attributes, expected) in [(&[("user.both", "2")][..], vec![owned(("user.both", "2"))]), (&[][..], Vec::new())]
    {
        let to = at.destination(Write::Upsert);
        let now = with(file("a", "content"), attributes);
        to.part(b"a", true).unwrap().seal(&now).unwrap();
        to.sync().unwrap();
        let part = fs::read_dir(at.target(".")).unwrap().next().unwrap().unwrap().path();
        assert_eq!(of(&part), expected);
    }
}

#[test]
fn a_folder_that_is_replaced_has_the_attributes_of_the_new_one() {
    let at = marked();
    let replace = |number: u8| {
        let left_out = at.exchange_with(&asked(), Write::Replace, &at.transfer(number));
        assert_eq!(left_out, Vec::new());
        assert_eq!(attributes_of(&at.source(".")), attributes_of(&at.target(".")));
    };
    set(&at.target("."), "user.theirs", b"1");
    replace(0);
    set(&at.source("a"), "user.tag", b"another");
    set(&at.source("."), "user.top", b"2");
    replace(1);
}

/// A few files and folders, some of which have attributes.
fn marked() -> Scene {
    let at = Scene::new();
    at.write("a", "one");
    at.write("sub/b", "two");
    at.write("plain", "three");
    symlink("a", at.source("l")).unwrap();
    set(&at.source("a"), "user.tag", "保密".as_bytes());
    set(&at.source("a"), "user.empty", b"");
    set(&at.source("sub"), "user.owner", b"\0\n");
    set(&at.source("."), "user.top", b"1");
    fs::set_permissions(at.source("a"), fs::Permissions::from_mode(0o444)).unwrap();
    at
}

fn asked() -> FolderOptions {
    FolderOptions { xattrs: true, ..FolderOptions::default() }
}

fn set(path: &Path, name: &str, value: &[u8]) {
    let done = while_writable(path, || rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()));
    let why = "these tests want a temporary folder (TMPDIR) on a file system with attributes of `user.`";
    assert!(done.is_ok(), "{}: {name}: {done:?}; {why}", path.display());
}

fn take_away(path: &Path, name: &str) {
    while_writable(path, || rustix::fs::lremovexattr(path, name)).unwrap();
}

/// Setting an attribute wants the right to write.
fn while_writable<T>(path: &Path, work: impl FnOnce() -> T) -> T {
    let mode = fs::metadata(path).unwrap().mode() & 0o7777;
    fs::set_permissions(path, fs::Permissions::from_mode(mode | 0o200)).unwrap();
    let done = work();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    done
}

/// Gives a file an attribute that is none of a user's: one of the administrator's, or else an access list.
fn of_the_system(path: &Path) -> (&'static str, Vec<u8>) {
    // Version 2; the owner rw, one user by name r, the group r, the mask r, others r: the rights stay 0644.
    let mut list: Vec<u8> = vec![2, 0, 0, 0];
    let (user, nobody) = (rustix::process::geteuid().as_raw(), u32::MAX);
    let all = [(1u16, 6u16, nobody), (2, 4, user), (4, 4, nobody), (16, 4, nobody), (32, 4, nobody)];
    for (tag, rights, id) in all {
        list.extend(tag.to_le_bytes());
        list.extend(rights.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    let some = [("trusted.posthouse", b"1".to_vec()), ("system.posix_acl_access", list)];
    let can_be = |name: &str, value: &[u8]| rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).is_ok();
    let found = some.into_iter().find(|(name, value)| can_be(name, value));
    found.expect("this test wants a temporary folder (TMPDIR) on a file system with access lists, or to be run as root")
}

fn with(entry: Entry, attributes: &[(&str, &str)]) -> Entry {
    let attribute = |(name, value): &(&str, &str)| Attribute { name: (*name).into(), value: (*value).into() };
    Entry { attributes: Some(attributes.iter().map(attribute).collect()), ..entry }
}

fn read(path: &Path) -> Vec<Attribute> {
    attributes::read(fs::File::open(path).unwrap(), ATTRIBUTES_BYTES_MAX).unwrap()
}

/// As text, for values that are some.
fn of(path: &Path) -> Vec<(String, String)> {
    read(path).into_iter().map(|attribute| (text(&attribute.name), text(&attribute.value))).collect()
}

fn owned((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// Of everything beneath a folder and the folder itself.
fn attributes_of(root: &Path) -> BTreeMap<String, Vec<Attribute>> {
    let names = tree(root).into_iter().filter(|(_, (content, ..))| !content.starts_with("link"));
    names.map(|(name, _)| (name.clone(), read(&root.join(name)))).collect()
}
