//! Which names may be landed: relative, no `..`, no NUL, bounded, and none of our own temporary names.
//! A name is the raw bytes of a path in the provider's file system, `/` between components; any script
//! and any encoding is welcome. The folder itself is the name `.`.

use posthouse_protocol::id::TransferId;
use posthouse_protocol::limits::{COMPONENT_BYTES_MAX, PATH_BYTES_MAX};

/// The folder itself, as an entry.
pub(crate) const SELF: &[u8] = b".";

/// Why a name is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameFault {
    #[error("it is empty")]
    Empty,
    #[error("it is absolute")]
    Absolute,
    #[error("it is longer than {PATH_BYTES_MAX} bytes")]
    PathTooLong,
    #[error("one part is longer than {COMPONENT_BYTES_MAX} bytes")]
    PartTooLong,
    #[error("it has an empty part")]
    EmptyPart,
    #[error("it has a part `.` or `..`")]
    DotPart,
    #[error("it holds a NUL")]
    Nul,
    #[error("it is a name that Posthouse uses for its own temporary files")]
    Reserved,
}

/// Accepts exactly what can be landed; `.` stands for the folder itself and is accepted.
pub fn check_name(name: &[u8]) -> Result<(), NameFault> {
    if name == SELF {
        return Ok(());
    }
    match name.first() {
        None => return Err(NameFault::Empty),
        Some(b'/') => return Err(NameFault::Absolute),
        Some(_) => {}
    }
    if name.len() > PATH_BYTES_MAX {
        return Err(NameFault::PathTooLong);
    }
    if name.contains(&0) {
        return Err(NameFault::Nul);
    }
    for part in name.split(|b| *b == b'/') {
        match part {
            b"" => return Err(NameFault::EmptyPart),
            b"." | b".." => return Err(NameFault::DotPart),
            _ if part.len() > COMPONENT_BYTES_MAX => return Err(NameFault::PartTooLong),
            _ if is_ours(part) => return Err(NameFault::Reserved),
            _ => {}
        }
    }
    Ok(())
}

/// Splits off the last component: (parent or `.`, leaf).
pub(crate) fn split(name: &[u8]) -> (&[u8], &[u8]) {
    match name.iter().rposition(|b| *b == b'/') {
        Some(at) => (&name[..at], &name[at + 1..]),
        None => (SELF, name),
    }
}

pub(crate) fn join(folder: &[u8], leaf: &[u8]) -> Vec<u8> {
    if folder == SELF {
        return leaf.to_vec();
    }
    let mut name = Vec::with_capacity(folder.len() + 1 + leaf.len());
    name.extend_from_slice(folder);
    name.push(b'/');
    name.extend_from_slice(leaf);
    name
}

pub(crate) fn depth(name: &[u8]) -> usize {
    if name == SELF { 0 } else { 1 + name.iter().filter(|b| **b == b'/').count() }
}

/// What tells one transfer's temporary names from another's: the first part of its random id.
pub(crate) fn short(transfer: &TransferId) -> String {
    transfer.as_str().trim_start_matches("tr-").chars().take(SHORT_CHARS).collect()
}

/// The temporary file of `name`, beside it. The same name in the same transfer gives the same file,
/// so that a restart finds it without having written down where it is.
pub(crate) fn part_leaf(short: &str, name: &[u8]) -> Vec<u8> {
    let hash = blake3::hash(name);
    let number = &hash.to_hex()[..NUMBER_CHARS];
    format!("{PREFIX}{short}-{number}{PART}").into_bytes()
}

/// The hidden sibling in which a replacing transfer builds its folder, and the note that it is swapped.
pub(crate) fn sibling_leaf(short: &str) -> String {
    format!("{PREFIX}{short}{NEW}")
}
pub(crate) fn swap_leaf(short: &str) -> String {
    format!("{PREFIX}{short}{SWAP}")
}

/// Whose temporary name this is, if it is one: the transfer's short.
pub(crate) fn owner(leaf: &[u8]) -> Option<&str> {
    let rest = std::str::from_utf8(leaf).ok()?.strip_prefix(PREFIX)?;
    let short = if let Some(rest) = rest.strip_suffix(PART) {
        let (short, number) = rest.split_once('-')?;
        (number.len() == NUMBER_CHARS && number.bytes().all(|b| b.is_ascii_hexdigit())).then_some(short)?
    } else {
        rest.strip_suffix(NEW).or_else(|| rest.strip_suffix(SWAP))?
    };
    is_short(short).then_some(short)
}

/// Whether it may be what [`short`] gives.
pub(crate) fn is_short(text: &str) -> bool {
    text.len() == SHORT_CHARS && text.bytes().all(|b| b.is_ascii_alphanumeric())
}

pub(crate) fn is_ours(leaf: &[u8]) -> bool {
    owner(leaf).is_some()
}

const PREFIX: &str = ".posthouse-";
const PART: &str = ".part";
const NEW: &str = ".new";
const SWAP: &str = ".swap";
const SHORT_CHARS: usize = 16;
const NUMBER_CHARS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_could_reach_outside_is_refused() {
        for (name, fault) in [
            (&b""[..], NameFault::Empty),
            (b"/etc/passwd", NameFault::Absolute),
            (b"..", NameFault::DotPart),
            (b"a/../../b", NameFault::DotPart),
            (b"a/./b", NameFault::DotPart),
            (b"./a", NameFault::DotPart),
            (b"a//b", NameFault::EmptyPart),
            (b"a/", NameFault::EmptyPart),
            (b"a\0b", NameFault::Nul),
        ] {
            assert_eq!(check_name(name), Err(fault), "{}", name.escape_ascii());
        }
        assert_eq!(check_name(&[b'a'; 256]), Err(NameFault::PartTooLong));
        assert_eq!(check_name(&b"abc/".repeat(1025)), Err(NameFault::PathTooLong));
    }

    #[test]
    fn names_in_any_script_and_encoding_are_accepted() {
        for name in ["人口/身份证 扫描件.pdf", "a\nb", "-rf", "...", "..a", "a..", "*?[]", "\\", "😀"] {
            assert_eq!(check_name(name.as_bytes()), Ok(()), "{name}");
        }
        // 人口 in GBK, which is not UTF-8
        assert_eq!(check_name(b"\xc8\xcb\xbf\xda/\xff.txt"), Ok(()));
        assert_eq!(check_name(SELF), Ok(()));
        assert_eq!(check_name(&[b'a'; 255]), Ok(()));
    }

    #[test]
    fn our_own_temporary_names_are_known_and_not_landed() {
        let transfer = TransferId::from_random([7; 16]);
        let short = short(&transfer);
        let part = part_leaf(&short, b"a/b");
        assert_eq!(owner(&part), Some(short.as_str()));
        assert_eq!(part, part_leaf(&short, b"a/b"));
        assert_ne!(part, part_leaf(&short, b"a/c"));
        assert_eq!(check_name(&join(b"x", &part)), Err(NameFault::Reserved));
        assert_eq!(owner(sibling_leaf(&short).as_bytes()), Some(short.as_str()));
        assert_eq!(owner(swap_leaf(&short).as_bytes()), Some(short.as_str()));
        for other in [".posthouse-x.part", ".posthouse-", ".posthouse-notes.txt", "posthouse.part"] {
            assert_eq!(check_name(other.as_bytes()), Ok(()), "{other}");
        }
    }

    #[test]
    fn splitting_and_joining_undo_each_other() {
        for name in [&b"a"[..], b"a/b", b"a/b/c"] {
            let (folder, leaf) = split(name);
            assert_eq!(join(folder, leaf), name);
        }
        assert_eq!((depth(SELF), depth(b"a"), depth(b"a/b")), (0, 1, 2));
    }
}
