//! Files with several names.

use super::*;

#[test]
fn a_further_name_of_a_file_is_listed_as_such() {
    let at = Scene::new();
    at.write("a", "shared");
    at.write("b", "alone");
    at.write("d/inner", "shared below");
    fs::hard_link(at.source("a"), at.source("c")).unwrap();
    fs::hard_link(at.source("a"), at.source("d/again")).unwrap();
    // Its other name lies elsewhere.
    fs::hard_link(at.source("d/inner"), at.folder.join("elsewhere")).unwrap();
    symlink("a", at.source("l")).unwrap();
    let listed = entries(&at.list(&FolderOptions::default()));
    let told: Vec<_> = listed.iter().map(|entry| (text(&entry.name), entry.index, entry.same_as)).collect();
    let expected = [
        (".", 0, None),
        ("a", 1, Some(1)),
        ("b", 2, None),
        ("c", 3, Some(1)),
        ("d", 4, None),
        ("d/again", 5, Some(1)),
        ("d/inner", 6, Some(6)),
        ("l", 7, None),
    ];
    assert_eq!(told, expected.map(|(name, index, same_as)| (name.to_owned(), index, same_as)));
    // What is not in scope is nobody's first name.
    let options = FolderOptions { exclude: vec!["a".to_owned()], ..FolderOptions::default() };
    let listed = entries(&at.list(&options));
    let same_as = |name: &str| listed.iter().find(|entry| entry.name == name.as_bytes()).unwrap().same_as;
    assert_eq!((same_as("c"), same_as("d/again")), (Some(2), Some(2)));
}

#[test]
fn a_second_name_is_made_once_and_replaces_what_stands_there() {
    let at = Scene::new();
    let (first, second) = (whole("first", b"content"), whole("sub/second", b"content"));
    fs::create_dir(at.target("sub")).unwrap();
    fs::write(at.target("sub/second"), "in the way").unwrap();
    let to = at.destination(Write::Upsert);
    land(&to, &first, b"content", false);
    to.sync().unwrap();
    let before = to.publish(&first).unwrap();
    let (stat, is_one) = to.publish_second(&second, &first, None).unwrap();
    assert!(is_one && stat.inode == before.inode);
    assert_eq!(to.publish_second(&second, &first, None).unwrap(), (stat, true));
    to.finish().unwrap();
    assert_eq!(fs::read(at.target("sub/second")).unwrap(), b"content");
    assert_eq!(fs::metadata(at.target("first")).unwrap().nlink(), 2);
    assert_eq!(at.leftovers(), Vec::<String>::new());
    // One that nothing may take the place of.
    let to = at.destination(Write::Append);
    fs::write(at.target("theirs"), "theirs").unwrap();
    let refused = to.publish_second(&whole("theirs", b"content"), &first, None).unwrap_err();
    assert_eq!(refused.code, Code::NameTaken);
    assert_eq!(fs::read(at.target("theirs")).unwrap(), b"theirs");
}

#[test]
fn a_second_name_with_another_time_is_a_copy() {
    let at = Scene::new();
    let content: Vec<u8> = (0..3_000_000_u32).map(|at| (at / 9) as u8).collect();
    let first = whole("first", &content);
    let second = Entry { mtime_ns: 5_000_000_000, ..whole("second", &content) };
    let to = at.destination(Write::Upsert);
    land(&to, &first, &content, false);
    to.sync().unwrap();
    to.publish(&first).unwrap();
    let (stat, is_one) = to.publish_second(&second, &first, None).unwrap();
    to.finish().unwrap();
    assert!(!is_one && stat.mtime_ns == 5_000_000_000);
    assert!(fs::read(at.target("second")).unwrap() == content);
    assert_eq!(fs::metadata(at.target("first")).unwrap().nlink(), 1);
    // A repeat finds it: by how it looked, or by its content.
    assert_eq!(to.publish_second(&second, &first, Some(stat)).unwrap(), (stat, false));
    assert_eq!(to.publish_second(&second, &first, None).unwrap(), (stat, false));
    // What is copied is verified, though it looks as it did.
    fs::write(at.target("first"), vec![7; content.len()]).unwrap();
    set_mtime(&at.target("first"), first.mtime_ns);
    assert_eq!(to.publish_second(&Entry { mtime_ns: 6, ..second }, &first, None).unwrap_err().code, Code::FileChanged);
    assert!(fs::read(at.target("second")).unwrap() == content);
    assert_eq!(at.leftovers(), Vec::<String>::new());
}

#[test]
fn what_was_put_in_the_place_of_the_first_gets_no_second_name() {
    let at = Scene::new();
    let (to, first, second) = first_landed(&at, Write::Upsert);
    fs::remove_file(at.target("first")).unwrap();
    for put in [|path: &Path| fs::write(path, "theirs").unwrap(), |path: &Path| symlink("elsewhere", path).unwrap()] {
        put(&at.target("first"));
        assert_eq!(to.publish_second(&second, &first, None).unwrap_err().code, Code::FileChanged);
        assert!(!at.target("second").exists());
        fs::remove_file(at.target("first")).unwrap();
    }
    assert_eq!(at.leftovers(), Vec::<String>::new());
}

#[test]
fn other_rights_of_one_name_make_it_a_file_of_its_own() {
    let at = Scene::new();
    let (to, first, second) = first_landed(&at, Write::Upsert);
    to.publish_second(&second, &first, None).unwrap();
    let stat = to.adopt(&Entry { mode: 0o600, ..second.clone() }, true).unwrap();
    to.finish().unwrap();
    assert_eq!((stat.mode, stat.mtime_ns), (0o600, second.mtime_ns));
    let first = fs::metadata(at.target("first")).unwrap();
    assert_eq!((first.mode() & 0o777, first.nlink()), (0o644, 1));
    assert_eq!(fs::read(at.target("second")).unwrap(), b"content");
}

#[test]
fn a_file_of_its_own_takes_the_place_of_its_own_name_where_nothing_else_may_be_replaced() {
    let at = Scene::new();
    let (to, first, second) = first_landed(&at, Write::Append);
    to.publish_second(&second, &first, None).unwrap();
    let stat = to.adopt(&Entry { mode: 0o600, ..second }, true).unwrap();
    to.finish().unwrap();
    assert_eq!(stat.mode, 0o600);
    let first = fs::metadata(at.target("first")).unwrap();
    assert_eq!((first.mode() & 0o777, first.nlink()), (0o644, 1));
    assert_eq!(fs::read(at.target("second")).unwrap(), b"content");
    assert_eq!(at.leftovers(), Vec::<String>::new());
}

#[test]
fn names_of_one_file_that_are_two_at_the_source_are_two_in_a_replaced_folder() {
    let at = Scene::new();
    at.write("a", "content");
    fs::create_dir(at.target(".")).unwrap_or_default();
    fs::write(at.target("a"), "content").unwrap();
    fs::hard_link(at.target("a"), at.target("b")).unwrap();
    at.write("b", "content");
    for (name, mode) in [("a", 0o640), ("b", 0o600)] {
        set_mtime(&at.source(name), 1_000_000_000);
        set_mtime(&at.target(name), 1_000_000_000);
        fs::set_permissions(at.source(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    for _ in 0..2 {
        at.exchange(Write::Replace);
        assert_eq!(tree(&at.source(".")), tree(&at.target(".")));
        assert_eq!(fs::metadata(at.target("a")).unwrap().nlink(), 1);
    }
}

/// Two names of one file, of which the first is published.
fn first_landed(at: &Scene, write: Write) -> (FolderDestination, Entry, Entry) {
    let (first, second) = (whole("first", b"content"), whole("second", b"content"));
    let to = at.destination(write);
    land(&to, &first, b"content", false);
    to.sync().unwrap();
    to.publish(&first).unwrap();
    (to, first, second)
}

fn whole(name: &str, content: &[u8]) -> Entry {
    let root = *blake3::hash(content).as_bytes();
    Entry { root: Some(root.into()), ..file_of(name, content) }
}
