//! Names, links and files that somebody has laid to reach outside: nothing outside the folder changes.

use super::*;

#[test]
fn names_that_reach_outside_are_refused_and_nothing_is_written() {
    let at = Scene::new();
    let to = at.destination(Write::Upsert);
    let before = tree(&at.folder);
    for name in ["../out", "a/../../out", "/tmp/posthouse-out", "", "a\0b", "a//b", "./a", "..", "a/"] {
        let entry = file(name, "x");
        let Present::Blocked(LeftOut { code, .. }) = to.present(&entry).unwrap() else { panic!("{name:?}") };
        assert_eq!(code, Code::NameRefused.number(), "{name:?}");
        assert_eq!(to.part(entry.name.as_slice(), false).map(|_| ()).unwrap_err().code, Code::NameRefused);
        assert_eq!(to.publish(&entry).unwrap_err().code, Code::NameRefused);
        assert_eq!(to.adopt(&entry, true).unwrap_err().code, Code::NameRefused);
        assert_eq!(to.hash(&entry.name, false).unwrap_err().code, Code::NameRefused);
        for kind in [EntryKind::Directory, EntryKind::Link(b"x".to_vec())] {
            assert!(to.publish(&Entry { kind, ..file(name, "") }).is_err());
        }
    }
    for kind in [EntryKind::Link(Vec::new()), EntryKind::Link(b"a\0b".to_vec()), EntryKind::Split(Default::default())] {
        assert!(matches!(to.present(&Entry { kind, ..file("x", "") }), Ok(Present::Blocked(_))));
    }
    assert!(matches!(to.present(&file(".", "x")), Ok(Present::Blocked(_))));
    assert_eq!(tree(&at.folder), before);
}

#[test]
fn a_link_in_the_way_is_never_followed() {
    let at = Scene::new();
    fs::create_dir(at.folder.join("outside")).unwrap();
    fs::write(at.folder.join("outside/file"), "theirs").unwrap();
    at.write("sub/file", "ours");
    symlink("../outside", at.target("sub")).unwrap();
    let left_out = at.exchange(Write::Append);
    assert_eq!(codes(&left_out), [Code::NameTaken, Code::NameTaken]);
    assert_eq!(at.exchange(Write::Upsert), Vec::new());
    assert_eq!(fs::read(at.folder.join("outside/file")).unwrap(), b"theirs");
    assert!(at.target("sub").symlink_metadata().unwrap().is_dir());
    assert_eq!(fs::read(at.target("sub/file")).unwrap(), b"ours");
}

#[test]
fn a_hostile_list_cannot_write_through_a_link_that_it_lands_itself() {
    let at = Scene::new();
    fs::create_dir(at.folder.join("outside")).unwrap();
    let to = at.destination(Write::Upsert);
    let link = Entry { kind: EntryKind::Link(b"../outside".to_vec()), size: 10, ..file("l", "") };
    to.publish(&link).unwrap();
    let part = to.part(b"l/file", false);
    assert!(part.is_err() || !at.folder.join("outside/file").exists());
    drop(part);
    // Links come back after the folder was made, too.
    fs::remove_dir_all(at.target("l")).unwrap();
    symlink("../outside", at.target("l")).unwrap();
    assert!(to.publish(&file("l/file", "x")).is_err());
    assert_eq!(fs::read_dir(at.folder.join("outside")).unwrap().count(), 0);
}

#[test]
fn a_link_exchanged_for_a_folder_while_files_land_changes_nothing_outside() {
    let at = Scene::new();
    fs::create_dir(at.folder.join("outside")).unwrap();
    let to = Arc::new(at.destination(Write::Upsert));
    let (sub, aside) = (at.target("sub"), at.folder.join("aside"));
    fs::create_dir(&sub).unwrap();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let racer = {
        let (stop, sub) = (Arc::clone(&stop), sub.clone());
        let outside = at.folder.join("outside");
        std::thread::spawn(move || {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                if fs::rename(&sub, &aside).is_ok() {
                    let _ = symlink(&outside, &sub);
                    std::thread::yield_now();
                    let _ = fs::remove_file(&sub);
                    let _ = fs::rename(&aside, &sub);
                }
            }
        })
    };
    for round in 0..300 {
        let entry = file(&format!("sub/f{round}"), "x");
        // Each step may fail under the race; none may reach outside.
        if let Ok(part) = to.part(&entry.name, false) {
            let _ = part.write_at(0, b"x");
            let _ = part.seal(&entry);
        }
        let _ = to.publish(&entry);
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    racer.join().unwrap();
    assert_eq!(fs::read_dir(at.folder.join("outside")).unwrap().count(), 0);
}

#[test]
fn links_that_leave_are_refused_by_name_unless_they_are_kept() {
    let at = Scene::new();
    at.write("sub/file", "x");
    symlink("/etc/passwd", at.source("absolute")).unwrap();
    symlink("../../up", at.source("sub/climbing")).unwrap();
    symlink("../sub/file", at.source("sub/inside")).unwrap();
    let left_out = at.exchange(Write::Upsert);
    assert_eq!(codes(&left_out), [Code::LinkRefused, Code::LinkRefused]);
    assert_eq!(names(&left_out), ["absolute", "sub/climbing"]);
    assert!(at.target("sub/inside").is_symlink() && !at.target("absolute").is_symlink());
    let keep = FolderOptions { links: Links::Keep, ..FolderOptions::default() };
    assert_eq!(at.exchange_with(&keep, Write::Upsert, &at.transfer(1)), Vec::new());
    assert_eq!(tree(&at.source(".")), tree(&at.target(".")));
    assert_eq!(fs::read_link(at.target("absolute")).unwrap(), Path::new("/etc/passwd"));
}

#[test]
fn a_file_smuggled_in_under_a_temporary_name_is_not_written_to() {
    let at = Scene::new();
    fs::write(at.folder.join("victim"), "victim").unwrap();
    let to = at.destination(Write::Upsert);
    drop(to.part(b"file", false).unwrap());
    let name = at.leftovers().remove(0);
    for smuggle in
        [(|from: &Path, to: &Path| fs::hard_link(from, to)) as fn(&Path, &Path) -> std::io::Result<()>, |from, to| {
            symlink(from, to)
        }]
    {
        fs::remove_file(at.target(&name)).unwrap();
        smuggle(&at.folder.join("victim"), &at.target(&name)).unwrap();
        assert!(to.publish(&file("file", "x")).is_err());
        let part = to.part(b"file", true).unwrap();
        assert!(part.fresh());
        part.write_at(0, b"overwritten").unwrap();
        assert_eq!(fs::read(at.folder.join("victim")).unwrap(), b"victim");
    }
}

#[test]
fn a_landed_program_does_not_run_as_somebody_else() {
    let at = Scene::new();
    at.write("program", "x");
    fs::create_dir(at.source("shared")).unwrap();
    fs::set_permissions(at.source("program"), fs::Permissions::from_mode(0o6755)).unwrap();
    fs::set_permissions(at.source("shared"), fs::Permissions::from_mode(0o3775)).unwrap();
    assert_eq!(at.entry("program").mode, 0o755);
    let to = at.destination(Write::Upsert);
    let entry = Entry { mode: 0o6755, ..at.entry("program") };
    land(&to, &entry, b"x", false);
    to.publish(&entry).unwrap();
    to.adopt(&entry, true).unwrap();
    assert_eq!(fs::metadata(at.target("program")).unwrap().mode() & 0o7777, 0o755);
    at.exchange(Write::Upsert);
    assert_eq!(fs::metadata(at.target("shared")).unwrap().mode() & 0o7777, 0o3775);
}
