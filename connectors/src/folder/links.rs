//! Whether a link stays in its folder: judged from its text and from what really stands on the way, so
//! that a chain of links cannot climb where each alone looks harmless. Nothing is followed.

use super::beneath::{At, Root};
use super::names::{SELF, split};
use super::stat::file_type;
use posthouse_protocol::limits::LINK_BYTES_MAX;
use rustix::fs::FileType;

/// Why the link `name` with this text is not handed over under `links = "inside"`.
pub(crate) fn leaves(root: &Root, name: &[u8], text: &[u8]) -> Option<&'static str> {
    if text.is_empty() || text.len() > LINK_BYTES_MAX || text.contains(&0) {
        return Some("its text is no path");
    }
    if text.first() == Some(&b'/') {
        return Some("its text is absolute");
    }
    let (folder, _) = split(name);
    // The folder of the link is real: the walk came through it. So `..` is exact from there.
    let mut at: Vec<&[u8]> = if folder == SELF { Vec::new() } else { folder.split(|b| *b == b'/').collect() };
    // From here on a step down may pass a link, after which `..` would mean another place.
    let mut real = true;
    for step in text.split(|b| *b == b'/') {
        match step {
            b"" | b"." => {}
            b".." if !real && !is_folder(root, &at) => {
                return Some("it climbs back through something that is no folder");
            }
            b".." => {
                if at.pop().is_none() {
                    return Some("it climbs out of the folder");
                }
            }
            step => {
                at.push(step);
                real = false;
            }
        }
    }
    None
}

/// Whether each component is a real folder: `Root::at` looks beneath real folders only.
fn is_folder(root: &Root, parts: &[&[u8]]) -> bool {
    if parts.is_empty() {
        return true;
    }
    matches!(root.at(&parts.join(&b'/')), Ok(At::Here(stat)) if file_type(&stat) == FileType::Directory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_link_that_climbs_directly_or_through_another_link_leaves() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("sub/deep")).unwrap();
        symlink("..", folder.path().join("sub/up")).unwrap();
        let root = Root::open(folder.path()).unwrap();
        for (name, text) in [
            ("l", "/etc/passwd"),
            ("l", ".."),
            ("l", "../x"),
            ("sub/l", "../../x"),
            ("sub/l", "deep/../../../x"),
            // `sub/up` is a link to the top: its `..` is outside, though the text alone stays inside.
            ("l", "sub/up/../x"),
            ("l", "missing/../../x"),
        ] {
            assert!(leaves(&root, name.as_bytes(), text.as_bytes()).is_some(), "{name} -> {text}");
        }
    }

    #[test]
    fn a_link_that_stays_inside_is_handed_over_even_when_it_dangles() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("sub/deep")).unwrap();
        let root = Root::open(folder.path()).unwrap();
        for (name, text) in [
            ("l", "sub"),
            ("l", "missing"),
            ("l", "."),
            ("sub/l", ".."),
            ("sub/deep/l", "../../x"),
            ("l", "sub/deep/../x"),
            ("sub/l", ".//deep/./x"),
            ("l", "..."),
        ] {
            assert_eq!(leaves(&root, name.as_bytes(), text.as_bytes()), None, "{name} -> {text}");
        }
    }
}
