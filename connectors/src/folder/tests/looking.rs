//! What stands at a name is not what was landed there, or is still.

use super::*;

/// Lands one file, a link, and a folder with a file in it; gives how each looked then.
fn landed(at: &Scene, to: &FolderDestination) -> Vec<(Entry, FileStat)> {
    let link = Entry { kind: EntryKind::Link(b"a".to_vec()), size: 1, ..file("link", "") };
    let folder = Entry { kind: EntryKind::Directory, size: 0, mode: 0o755, ..file("d", "") };
    let entries = [rooted("a", "content"), folder, rooted("d/inner", "inner"), link];
    for entry in entries.iter().filter(|entry| entry.kind == EntryKind::File) {
        let content = if entry.name == b"a" { "content" } else { "inner" };
        land(to, entry, content.as_bytes(), false);
    }
    to.sync().unwrap();
    let mut landed = Vec::new();
    for entry in entries {
        let stat = to.publish(&entry).unwrap();
        landed.push((entry, stat));
    }
    to.finish().unwrap();
    assert!(at.target("d/inner").exists());
    landed
}

fn rooted(name: &str, content: &str) -> Entry {
    let root = *blake3::hash(content.as_bytes()).as_bytes();
    Entry { root: Some(root.into()), ..file(name, content) }
}

fn look(to: &FolderDestination, (entry, stat): &(Entry, FileStat)) -> Result<Seen, Problem> {
    let kind = Kind::of(&entry.kind).unwrap();
    let stated = to.look(&entry.name, kind, stat, false, &mut Near::default());
    let opened = to.look(&entry.name, kind, stat, true, &mut Near::default());
    assert_eq!(stated.as_ref().map_err(|e| e.code), opened.as_ref().map_err(|e| e.code));
    opened
}

#[test]
fn what_stands_as_it_was_landed_is_seen_so_whoever_puts_a_label_on_it() {
    for write in [Write::Upsert, Write::Replace] {
        let at = Scene::new();
        let to = at.destination(write);
        let landed = landed(&at, &to);
        fs::hard_link(at.target("a"), at.folder.join("second")).unwrap();
        fs::set_permissions(at.target("d/inner"), fs::Permissions::from_mode(0o400)).unwrap();
        fs::write(at.target("d/of-somebody"), "x").unwrap();
        for one in &landed {
            assert_eq!(look(&to, one).unwrap(), Seen::AsLanded, "{one:?}");
        }
        to.look_at_itself().unwrap();
    }
}

#[test]
fn what_is_gone_or_another_thing_is_refused_by_its_name() {
    type Deed = fn(&Path);
    let deeds: [(&str, usize, Deed); 9] = [
        ("removed", 0, |a| fs::remove_file(a).unwrap()),
        ("cut", 0, |a| fs::write(a, "cont").unwrap()),
        ("emptied", 0, |a| fs::write(a, "").unwrap()),
        ("a folder", 0, |a| {
            fs::remove_file(a).unwrap();
            fs::create_dir(a).unwrap();
        }),
        ("a link to the same", 0, |a| {
            fs::rename(a, a.with_extension("moved")).unwrap();
            symlink("a.moved", a).unwrap();
        }),
        ("nobody may read it", 0, |a| fs::set_permissions(a, fs::Permissions::from_mode(0o000)).unwrap()),
        ("the folder is gone", 2, |inner| fs::remove_dir_all(inner.parent().unwrap()).unwrap()),
        ("the folder became a link", 2, |inner| {
            let folder = inner.parent().unwrap();
            fs::rename(folder, folder.with_extension("moved")).unwrap();
            symlink("d.moved", folder).unwrap();
        }),
        ("a pipe", 0, |a| {
            fs::remove_file(a).unwrap();
            let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
            rustix::fs::mkfifoat(rustix::fs::CWD, a, mode).unwrap();
        }),
    ];
    for (what, index, deed) in deeds {
        let at = Scene::new();
        let to = at.destination(Write::Upsert);
        let landed = landed(&at, &to);
        let one = &landed[index];
        deed(&at.target(&text(&one.0.name)));
        let problem = look(&to, one).unwrap_err();
        assert_eq!(problem.code, Code::NotAsLanded, "{what}: {problem}");
        assert!(problem.facts.contains(&("name".to_owned(), text(&one.0.name))), "{what}: {problem:?}");
    }
}

#[test]
fn of_another_file_of_the_same_length_the_content_decides() {
    let at = Scene::new();
    let to = at.destination(Write::Upsert);
    let landed = landed(&at, &to);
    let (file, link) = (&landed[0], &landed[3]);
    set_mtime(&at.target("a"), 1);
    assert_eq!(look(&to, file).unwrap(), Seen::Unsure);
    to.look_into(&file.0).unwrap();
    fs::write(at.target("other"), "CONTENT").unwrap();
    set_mtime(&at.target("other"), file.0.mtime_ns);
    fs::rename(at.target("other"), at.target("a")).unwrap();
    assert_eq!(look(&to, file).unwrap(), Seen::Unsure);
    assert_eq!(to.look_into(&file.0).unwrap_err().code, Code::NotAsLanded);
    fs::remove_file(at.target("a")).unwrap();
    assert_eq!(to.look_into(&file.0).unwrap_err().code, Code::NotAsLanded);

    fs::remove_file(at.target("link")).unwrap();
    symlink("b", at.target("link")).unwrap();
    assert_eq!(look(&to, link).unwrap(), Seen::Unsure);
    assert_eq!(to.look_into(&link.0).unwrap_err().code, Code::NotAsLanded);
    fs::remove_file(at.target("link")).unwrap();
    symlink("a", at.target("link")).unwrap();
    to.look_into(&link.0).unwrap();
}

#[test]
fn a_folder_that_its_own_rights_close_is_no_fault_of_anybody() {
    // Closed altogether, to be listed only, and to be entered only.
    for (folder_mode, mode) in [(0, 0), (0o400, 0o600), (0o100, 0o600)] {
        let at = Scene::new();
        let to = at.destination(Write::Upsert);
        let folder = Entry { kind: EntryKind::Directory, size: 0, mode: folder_mode, ..file("d", "") };
        let inner = Entry { mode, ..rooted("d/inner", "inner") };
        to.publish(&folder).unwrap();
        land(&to, &inner, b"inner", false);
        to.sync().unwrap();
        let stat = to.publish(&inner).unwrap();
        to.finish().unwrap();
        let seen = look(&to, &(inner, stat));
        fs::set_permissions(at.target("d"), fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(seen.unwrap(), Seen::AsLanded, "{folder_mode:o}");
    }
}
