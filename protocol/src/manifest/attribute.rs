//! Extended attributes of an entry: which may travel, and how much of them there may be.
//! Only those of `user.` do: the other namespaces say who may do what on one machine, or belong to its file system.

use super::{Attribute, Entry, EntryKind};
use crate::limits;

/// What the name of an attribute begins with that may travel.
pub const NAMESPACE: &[u8] = b"user.";

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AttributeError {
    #[error("an attribute whose name is none of `user.`, or holds a NUL, or is too long")]
    Name,
    #[error("attributes that are not in the order of their names")]
    Order,
    #[error("attributes of over {} bytes", limits::ATTRIBUTES_BYTES_MAX)]
    TooMany,
    #[error("attributes of what is neither a file nor a directory")]
    Kind,
}

/// Whether a file system may be asked for an attribute of this name.
pub fn is_attribute_name(name: &[u8]) -> bool {
    name.len() > NAMESPACE.len()
        && name.len() <= limits::ATTRIBUTE_NAME_BYTES_MAX
        && name.starts_with(NAMESPACE)
        && !name.contains(&0)
}

/// Whether an entry may have the attributes that it comes with: `user.` alone, each name once and in order, and no more
/// of them than may be.
pub fn check_attributes(entry: &Entry) -> Result<(), AttributeError> {
    let Some(attributes) = &entry.attributes else { return Ok(()) };
    if !matches!(entry.kind, EntryKind::File | EntryKind::Directory) {
        return Err(AttributeError::Kind);
    }
    let mut last: Option<&[u8]> = None;
    let mut bytes = 0;
    for Attribute { name, value } in attributes {
        if !is_attribute_name(name) {
            return Err(AttributeError::Name);
        }
        if last.is_some_and(|last| last >= name.as_slice()) {
            return Err(AttributeError::Order);
        }
        bytes += name.len() + value.len();
        if bytes > limits::ATTRIBUTES_BYTES_MAX {
            return Err(AttributeError::TooMany);
        }
        last = Some(name.as_slice());
    }
    Ok(())
}

impl Entry {
    /// What its attributes take, in memory or in a frame, generously.
    pub fn attribute_bytes(&self) -> usize {
        let all = self.attributes.iter().flatten();
        all.map(|attribute| attribute.name.len() + attribute.value.len() + limits::ATTRIBUTE_OVERHEAD_BYTES).sum()
    }
    /// What it takes in a frame, generously.
    pub fn frame_bytes(&self) -> usize {
        let link = if let EntryKind::Link(text) = &self.kind { text.len() } else { 0 };
        self.name.len() + link + self.attribute_bytes() + OVERHEAD_BYTES
    }
}

/// Keys and numbers of an entry.
const OVERHEAD_BYTES: usize = 192;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    fn entry(kind: EntryKind, attributes: &[(&[u8], usize)]) -> Entry {
        let attribute = |(name, bytes): &(&[u8], usize)| Attribute { name: name.to_vec(), value: vec![7; *bytes] };
        Entry {
            index: u64::MAX,
            name: b"a".to_vec(),
            kind,
            size: u64::MAX,
            mode: u32::MAX,
            mtime_ns: i64::MIN,
            root: Some([1; 32].into()),
            revision: u32::MAX,
            same_as: Some(u64::MAX),
            attributes: Some(attributes.iter().map(attribute).collect()),
        }
    }

    #[test]
    fn attributes_of_users_in_order_and_within_bounds_are_taken_and_no_others() {
        let most = limits::ATTRIBUTES_BYTES_MAX;
        let long = [&b"user."[..], &[b'x'; 250]].concat();
        let longer = [&b"user."[..], &[b'x'; 251]].concat();
        let file = |attributes: &[(&[u8], usize)]| check_attributes(&entry(EntryKind::File, attributes));
        assert_eq!(file(&[]), Ok(()));
        assert_eq!(file(&[(b"user.a", 0), (b"user.a.b", 3), (b"user.\xff", 1)]), Ok(()));
        assert_eq!(file(&[(long.as_slice(), 1)]), Ok(()));
        assert_eq!(file(&[(b"user.a", most - 6)]), Ok(()));
        assert_eq!(file(&[(b"user.a", most - 5)]), Err(AttributeError::TooMany));
        assert_eq!(file(&[(b"user.a", most - 20), (b"user.b", 9)]), Err(AttributeError::TooMany));
        let others: [&[u8]; 9] = [
            b"user.",
            b"user",
            b"",
            b"security.x",
            b"system.x",
            b"trusted.x",
            b"USER.x",
            b"user.a\0b",
            longer.as_slice(),
        ];
        for bad in others {
            assert_eq!(file(&[(bad, 1)]), Err(AttributeError::Name), "{}", bad.escape_ascii());
        }
        for second in [b"user.a", b"user.b"] {
            assert_eq!(file(&[(b"user.b", 1), (second, 1)]), Err(AttributeError::Order));
        }
        assert_eq!(check_attributes(&entry(EntryKind::Directory, &[(b"user.a", 1)])), Ok(()));
        let link = EntryKind::Link(b"x".to_vec());
        assert_eq!(check_attributes(&entry(link.clone(), &[])), Err(AttributeError::Kind));
        assert_eq!(check_attributes(&Entry { attributes: None, ..entry(link, &[]) }), Ok(()));
    }

    #[test]
    fn an_entry_takes_no_more_in_a_frame_than_it_is_counted_for() {
        let names: Vec<Vec<u8>> = (0..4000).map(|at| format!("user.{at:04}").into_bytes()).collect();
        let many: Vec<(&[u8], usize)> = names.iter().map(|name| (name.as_slice(), 7)).collect();
        let name = &b"user.a"[..];
        for attributes in [Vec::new(), vec![(name, 300)], vec![(name, 65_000)], many] {
            let entry = entry(EntryKind::File, &attributes);
            assert_eq!(check_attributes(&entry), Ok(()));
            assert!(codec::encode(&entry).len() <= entry.frame_bytes());
            assert!(entry.frame_bytes() <= limits::FRAME_BYTES_MAX - limits::FRAME_FILL_BYTES);
        }
    }
}
