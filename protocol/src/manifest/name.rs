//! Names of entries, checked component by component before anybody makes a path of them.
//! An [`EntryName`] never climbs, is never absolute, and holds nothing that a file system would cut short.

use crate::limits;
use std::fmt;

/// Whether a folder lists `name` after `last`: part by part, each by its bytes, and the folder itself (`.`) first.
pub fn follows(name: &[u8], last: &[u8]) -> bool {
    let between = |byte: &u8| *byte == b'/';
    name != b"." && (last == b"." || last.split(between).lt(name.split(between)))
}

/// Relative path with `/` between components, as the raw bytes of the provider's file system.
/// - 1 to `PATH_BYTES_MAX` bytes, each component 1 to `COMPONENT_BYTES_MAX`
/// - no component is `.` or `..`, none is empty (so no leading, trailing or double `/`)
/// - no NUL anywhere; every other byte is allowed, UTF-8 or not
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryName(Vec<u8>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("the name is empty")]
    Empty,
    #[error("the name is absolute")]
    Absolute,
    #[error("the name has a component `.` or `..`")]
    Climbs,
    #[error("the name has an empty component")]
    EmptyComponent,
    #[error("the name holds a NUL byte")]
    Nul,
    #[error("the name has more than {} bytes", limits::PATH_BYTES_MAX)]
    TooLong,
    #[error("a component of the name has more than {} bytes", limits::COMPONENT_BYTES_MAX)]
    ComponentTooLong,
}

impl EntryName {
    pub fn parse(name: &[u8]) -> Result<Self, NameError> {
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.len() > limits::PATH_BYTES_MAX {
            return Err(NameError::TooLong);
        }
        if name.contains(&0) {
            return Err(NameError::Nul);
        }
        if name.starts_with(b"/") {
            return Err(NameError::Absolute);
        }
        for component in name.split(|byte| *byte == b'/') {
            match component {
                b"" => return Err(NameError::EmptyComponent),
                b"." | b".." => return Err(NameError::Climbs),
                long if long.len() > limits::COMPONENT_BYTES_MAX => return Err(NameError::ComponentTooLong),
                _ => {}
            }
        }
        Ok(Self(name.to_vec()))
    }
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
    /// From the top folder down; the last is the entry's own name.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/')
    }
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}
impl fmt::Debug for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_any_script_are_kept_as_they_are() {
        for good in ["a", "a/b", "人口/2026 年.pdf", ".hidden", "...", "a..b", "\u{202e}x", "-", "a\\b\nc"] {
            assert_eq!(EntryName::parse(good.as_bytes()).unwrap().as_bytes(), good.as_bytes());
        }
        let name = EntryName::parse(b"\xff\xfe/x").unwrap();
        assert_eq!(name.components().collect::<Vec<_>>(), [&b"\xff\xfe"[..], b"x"]);
    }

    #[test]
    fn a_folder_comes_before_what_is_in_it_and_that_before_what_follows_the_folder() {
        let order = [".", "!", "-", "a", "a/b", "a/b/c", "a/b.txt", "a b", "a-b", "a.txt", "人口", "人口/甲"];
        for (at, name) in order.iter().enumerate() {
            for (other, last) in order.iter().enumerate() {
                assert_eq!(follows(name.as_bytes(), last.as_bytes()), at > other, "{name} after {last}");
            }
        }
    }

    #[test]
    fn names_that_climb_or_are_cut_short_are_refused() {
        for (bad, why) in [
            (&b""[..], NameError::Empty),
            (b"/", NameError::Absolute),
            (b"/etc/passwd", NameError::Absolute),
            (b"..", NameError::Climbs),
            (b"a/../b", NameError::Climbs),
            (b"a/.", NameError::Climbs),
            (b"a//b", NameError::EmptyComponent),
            (b"a/", NameError::EmptyComponent),
            (b"a\0b", NameError::Nul),
            (&[b'x'; 256], NameError::ComponentTooLong),
        ] {
            assert_eq!(EntryName::parse(bad), Err(why), "{}", bad.escape_ascii());
        }
        assert!(EntryName::parse(&[b'x'; 255]).is_ok());
        let long = vec![b"x".to_vec(); 2100].join(&b'/');
        assert_eq!(EntryName::parse(&long), Err(NameError::TooLong));
    }
}
