//! What each way of writing does with what stands there: append, upsert, mirror, replace.

use super::*;

#[test]
fn append_adds_new_names_and_replaces_nothing() {
    let at = Scene::new();
    at.write("same", "same");
    at.write("old", "content that is new");
    at.write("sub/new", "new");
    fs::write(at.target("old"), "old content").unwrap();
    let left_out = at.exchange(Write::Append);
    assert_eq!((names(&left_out), codes(&left_out)), (vec!["old".to_owned()], vec![Code::NameTaken]));
    assert_eq!(fs::read(at.target("old")).unwrap(), b"old content");
    assert_eq!(fs::read(at.target("sub/new")).unwrap(), b"new");
    // What was landed before is there already and stands in nobody's way.
    assert_eq!(names(&at.exchange(Write::Append)), ["old"]);
}

#[test]
fn append_does_not_replace_a_file_that_appears_while_content_moves() {
    let at = Scene::new();
    let to = at.destination(Write::Append);
    let entry = file("late", "ours");
    assert_eq!(to.present(&entry).unwrap(), Present::Absent);
    land(&to, &entry, b"ours", false);
    fs::write(at.target("late"), "theirs").unwrap();
    assert_eq!(to.publish(&entry).unwrap_err().code, Code::NameTaken);
    assert_eq!(fs::read(at.target("late")).unwrap(), b"theirs");
}

#[test]
fn upsert_shows_the_old_file_until_the_new_one_is_complete() {
    let at = Scene::new();
    fs::write(at.target("file"), "old").unwrap();
    let to = at.destination(Write::Upsert);
    let entry = file("file", "new content");
    assert!(matches!(to.present(&entry).unwrap(), Present::Differs(_)));
    land(&to, &entry, b"new content", false);
    assert_eq!(fs::read(at.target("file")).unwrap(), b"old");
    let stat = to.publish(&entry).unwrap();
    to.finish().unwrap();
    assert_eq!(fs::read(at.target("file")).unwrap(), b"new content");
    assert_eq!(to.present(&entry).unwrap(), Present::Same(stat));
    // Asked again by a process that does not know it is done.
    assert_eq!(at.destination(Write::Upsert).publish(&entry).unwrap(), stat);
}

#[test]
fn a_folder_and_a_file_that_change_places_are_landed_or_left_out() {
    let at = Scene::new();
    at.write("was-file/inner", "x");
    at.write("was-empty-folder", "x");
    at.write("was-full-folder", "x");
    fs::write(at.target("was-file"), "old").unwrap();
    fs::create_dir(at.target("was-empty-folder")).unwrap();
    fs::create_dir(at.target("was-full-folder")).unwrap();
    fs::write(at.target("was-full-folder/local"), "theirs").unwrap();
    assert_eq!(names(&at.exchange(Write::Upsert)), ["was-full-folder"]);
    assert_eq!(fs::read(at.target("was-file/inner")).unwrap(), b"x");
    assert_eq!(fs::read(at.target("was-empty-folder")).unwrap(), b"x");
    assert_eq!(fs::read(at.target("was-full-folder/local")).unwrap(), b"theirs");
}

#[test]
fn mirror_deletes_what_it_landed_and_nothing_else() {
    let at = Scene::new();
    for number in 0..30 {
        at.write(&format!("f{number}"), "x");
    }
    at.write("gone/inner", "x");
    at.exchange(Write::Mirror);
    let landed = at.landed();
    fs::write(at.target("local"), "theirs").unwrap();
    // Landed by the job, then rewritten by hand: no longer what was landed.
    fs::write(at.target("f1"), "by hand").unwrap();
    fs::remove_file(at.source("f1")).unwrap();
    fs::remove_file(at.source("f2")).unwrap();
    fs::remove_dir_all(at.source("gone")).unwrap();
    let to = at.destination(Write::Mirror);
    let in_scope = entries(&at.list(&FolderOptions::default())).into_iter().map(|entry| entry.name).collect();
    let plan = mirror_plan(&to, &landed, &in_scope, &[]).unwrap();
    assert_eq!(plan.iter().map(|p| text(&p.name)).collect::<Vec<_>>(), ["gone/inner", "f2", "gone"]);
    assert_eq!(to.mirror_delete(&plan).unwrap(), 3);
    to.finish().unwrap();
    assert!(!at.target("f2").exists() && !at.target("gone").exists());
    assert!(at.target("local").exists() && at.target("f1").exists() && at.target("f3").exists());
    assert_eq!(to.mirror_delete(&plan).unwrap(), 0);
}

#[test]
fn folders_keep_the_times_of_the_source_after_a_mirror_deleted_in_them() {
    let at = Scene::new();
    for number in 0..20 {
        at.write(&format!("sub/f{number}"), "x");
    }
    set_mtime(&at.source("sub"), 1_000_000_000);
    at.exchange(Write::Mirror);
    let landed = at.landed();
    fs::remove_file(at.source("sub/f7")).unwrap();
    set_mtime(&at.source("sub"), 2_000_000_000);
    let to = at.destination(Write::Mirror);
    for entry in entries(&at.list(&FolderOptions::default())) {
        if entry.kind == EntryKind::File {
            to.adopt(&entry, true).unwrap()
        } else {
            to.publish(&entry).unwrap()
        };
    }
    to.finish().unwrap();
    let plan = mirror_plan(&to, &landed, &those(&landed, |name| name != b"sub/f7"), &[]).unwrap();
    assert_eq!(to.mirror_delete(&plan).unwrap(), 1);
    to.finish().unwrap();
    assert_eq!(tree(&at.source(".")), tree(&at.target(".")));
}

#[test]
fn mirror_refuses_to_delete_over_a_tenth() {
    let at = Scene::new();
    for number in 0..20 {
        at.write(&format!("f{number:02}"), "x");
    }
    at.exchange(Write::Mirror);
    let landed: Vec<_> = at.landed().into_iter().filter(|l| l.name != b".").collect();
    let to = at.destination(Write::Mirror);
    let plan = |from: &[u8]| mirror_plan(&to, &landed, &those(&landed, |name| name > from), &[]);
    for (from, count) in [(&b"f02"[..], 3), (&b"g"[..], 20)] {
        let refused = Problem::new(Code::MirrorUnsafe).with("count", count).with("total", 20);
        assert_eq!(plan(from).unwrap_err().facts, refused.facts);
    }
    assert_eq!(plan(b"f01").unwrap().len(), 2);
}

#[test]
fn mirror_keeps_what_the_source_could_not_read_this_time() {
    let at = Scene::new();
    for number in 0..30 {
        at.write(&format!("f{number}"), "x");
    }
    at.write("sub/inner", "x");
    at.exchange(Write::Mirror);
    let landed = at.landed();
    let to = at.destination(Write::Mirror);
    let unreadable = left_out(b"sub", &Problem::new(Code::FileUnreadable).cause("input/output error"));
    let without_sub = those(&landed, |name| !name.starts_with(b"sub"));
    assert_eq!(mirror_plan(&to, &landed, &without_sub, &[unreadable]).unwrap(), []);
    assert_eq!(mirror_plan(&to, &landed, &without_sub, &[]).unwrap().len(), 2);
}

#[test]
fn replace_changes_the_whole_folder_and_keeps_unchanged_files_in_place() {
    let at = Scene::new();
    at.write("kept", "kept");
    at.write("sub/changed", "first");
    at.exchange(Write::Replace);
    assert_eq!(tree(&at.source(".")), tree(&at.target(".")));
    let kept = fs::metadata(at.target("kept")).unwrap().ino();
    fs::write(at.target("local"), "goes").unwrap();
    fs::set_permissions(at.target("."), fs::Permissions::from_mode(0o750)).unwrap();
    at.write("sub/changed", "second one");
    at.write("new", "new");
    assert_eq!(at.exchange_with(&FolderOptions::default(), Write::Replace, &at.transfer(2)), Vec::new());
    assert_eq!(fs::read(at.target("sub/changed")).unwrap(), b"second one");
    assert!(!at.target("local").exists());
    assert_eq!(fs::metadata(at.target("kept")).unwrap().ino(), kept);
    // The folder's own rights are the operator's.
    assert_eq!(fs::metadata(at.target(".")).unwrap().mode() & 0o7777, 0o750);
    assert_eq!(at.leftovers(), Vec::<String>::new());
}

#[test]
fn a_replacing_transfer_that_stops_half_way_leaves_the_old_folder_and_goes_on() {
    let at = Scene::new();
    at.write("file", "first");
    at.exchange(Write::Replace);
    at.write("file", "second");
    let entry = at.entry("file");
    let to = at.destination(Write::Replace);
    land(&to, &entry, b"second", false);
    to.publish(&entry).unwrap();
    drop(to);
    assert_eq!(fs::read(at.target("file")).unwrap(), b"first");
    let to = at.destination(Write::Replace);
    assert!(matches!(to.present(&entry).unwrap(), Present::Same(_)));
    to.adopt(&entry, true).unwrap();
    to.finish().unwrap();
    assert_eq!(fs::read(at.target("file")).unwrap(), b"second");
    // A repeat by a process that died before it could write down that it was done.
    let to = at.destination(Write::Replace);
    to.adopt(&entry, true).unwrap();
    to.finish().unwrap();
    assert_eq!(fs::read(at.target("file")).unwrap(), b"second");
    assert_eq!(at.leftovers(), Vec::<String>::new());
}

#[test]
fn a_replacing_transfer_killed_right_after_the_exchange_does_not_take_the_old_folder_for_the_new() {
    let at = Scene::new();
    at.write("file", "first");
    at.exchange(Write::Replace);
    at.write("file", "second");
    let entry = at.entry("file");
    let disk = Arc::new(FaultyDisk::new());
    let to = FolderDestination::open(&at.target("."), Write::Replace, &at.transfer(0), disk.clone()).unwrap();
    land(&to, &entry, b"second", false);
    to.publish(&entry).unwrap();
    // The note and the exchange are done by hand as `finish` does them, and no more.
    let short = super::names::short(&at.transfer(0));
    let (sibling, note) = (super::names::sibling_leaf(&short), super::names::swap_leaf(&short));
    let parent = fs::File::open(&at.folder).unwrap();
    let new = fs::metadata(at.folder.join(&sibling)).unwrap();
    fs::write(at.folder.join(&note), format!("{}:{}\n", new.dev(), new.ino())).unwrap();
    let exchange = rustix::fs::RenameFlags::EXCHANGE;
    rustix::fs::renameat_with(&parent, sibling.as_str(), &parent, "target", exchange).unwrap();
    drop(to);
    let to = at.destination(Write::Replace);
    assert!(matches!(to.present(&entry).unwrap(), Present::Same(_)));
    to.adopt(&entry, true).unwrap();
    to.finish().unwrap();
    assert_eq!(fs::read(at.target("file")).unwrap(), b"second");
    assert_eq!(at.leftovers(), Vec::<String>::new());
}

#[test]
fn replace_is_refused_by_name_where_it_cannot_be_done_at_one_instant() {
    let transfer = TransferId::from_random([1; 16]);
    for path in ["/", "/proc"] {
        let refused = FolderDestination::open(Path::new(path), Write::Replace, &transfer, Arc::new(RealDisk));
        assert_eq!(refused.map(|_| ()).unwrap_err().code, Code::ReplaceUnsupported, "{path}");
    }
}
