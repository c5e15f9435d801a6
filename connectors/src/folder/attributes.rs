//! Extended attributes of files and folders, as far as they travel: those of `user.`, and no others. They are read and set
//! by a handle, so that no link is followed and no name is looked up twice; one that gives no right to the content is
//! enough. A file system that has none of them says so, and then there are none to be told or taken away.

use super::fault::{named, reading, writing};
use posthouse_platform::disk::Disk;
use posthouse_protocol::limits::{ATTRIBUTE_NAME_BYTES_MAX, ATTRIBUTES_BYTES_MAX};
use posthouse_protocol::manifest::Attribute;
use posthouse_protocol::manifest::attribute::NAMESPACE;
use posthouse_protocol::problem::{Code, Problem};
use rustix::buffer::spare_capacity;
use rustix::fd::AsFd;
use rustix::fs::XattrFlags;
use rustix::io::Errno;
use std::fmt::Display;
use std::os::fd::AsRawFd;
use std::path::Path;

/// Why attributes cannot be told.
#[derive(Debug)]
pub(crate) enum Fault {
    /// What they belonged to was removed meanwhile.
    Gone,
    /// Something of another kind has taken its place meanwhile.
    Exchanged,
    TooMany,
    System(Errno),
}

impl Fault {
    /// Of what could not be opened to be asked.
    pub(crate) fn of_opening(errno: Errno) -> Self {
        match errno {
            Errno::NOENT => Self::Gone,
            Errno::NXIO | Errno::LOOP | Errno::NOTDIR => Self::Exchanged,
            errno => Self::System(errno),
        }
    }

    pub(crate) fn problem(self, name: &[u8]) -> Problem {
        match self {
            Self::Gone => named(Code::FileChanged, name, "it was removed while its attributes were read"),
            Self::Exchanged => named(Code::FileChanged, name, "it was exchanged while its attributes were read"),
            Self::TooMany => refused(name, format_args!("they have over {ATTRIBUTES_BYTES_MAX} bytes")),
            Self::System(errno) => reading(name, errno),
        }
    }
}

/// All that travel, in the order of their names; at most so many bytes of names and values.
pub(crate) fn read(handle: impl AsFd, bytes_max: usize) -> Result<Vec<Attribute>, Fault> {
    let path = own_name(&handle);
    let names = names(&path).map_err(|e| if e == Errno::TOOBIG { Fault::TooMany } else { Fault::System(e) })?;
    let mut found = Vec::with_capacity(names.len());
    let mut room = bytes_max;
    for name in names {
        if name.len() > ATTRIBUTE_NAME_BYTES_MAX {
            return Err(Fault::TooMany);
        }
        let value = match value(&path, &name, VALUE_BYTES) {
            Ok(value) => value,
            // It was taken away meanwhile.
            Err(Errno::NODATA) => continue,
            Err(Errno::RANGE | Errno::TOOBIG) => return Err(Fault::TooMany),
            Err(e) => return Err(Fault::System(e)),
        };
        room = room.checked_sub(name.len() + value.len()).ok_or(Fault::TooMany)?;
        found.push(Attribute { name, value });
    }
    Ok(found)
}

/// Whether it has exactly these.
pub(crate) fn are(handle: impl AsFd, wanted: &[Attribute]) -> Result<bool, Errno> {
    Changes::between(&own_name(&handle), wanted).map(|changes| changes.is_none())
}

/// Gives it exactly these, and leaves alone what it has of them; says whether there was anything to do.
pub(crate) fn make(handle: impl AsFd, wanted: &[Attribute]) -> Result<bool, Errno> {
    let path = own_name(&handle);
    let Changes { remove, set } = Changes::between(&path, wanted)?;
    // What goes first makes room.
    for name in &remove {
        match rustix::fs::removexattr(path.as_str(), name.as_slice()) {
            Ok(()) | Err(Errno::NODATA) => {}
            Err(e) => return Err(of_handle(e)),
        }
    }
    for Attribute { name, value } in &set {
        rustix::fs::setxattr(path.as_str(), name.as_slice(), value, XattrFlags::empty()).map_err(of_handle)?;
    }
    let has_new = !remove.is_empty() || !set.is_empty();
    // Some file systems drop what they do not keep and say nothing.
    if has_new && !Changes::between(&path, wanted)?.is_none() { Err(Errno::OPNOTSUPP) } else { Ok(has_new) }
}

/// Whether the file system of this handle has attributes of `user.` at all. Nothing is written to find out.
pub(crate) fn are_possible(handle: impl AsFd) -> bool {
    !matches!(rustix::fs::fgetxattr_query(handle, "user.posthouse"), Err(Errno::OPNOTSUPP | Errno::NOSYS))
}

/// They could not be set: because a file may not have them there, or because nothing can be written.
pub(crate) fn setting(name: &[u8], path: &Path, errno: Errno, disk: &dyn Disk) -> Problem {
    if is_too_much(errno, path, disk) { refused(name, no_room(errno)) } else { writing(path, errno) }
}

/// Whether the error says that this is more than the file system keeps beside one file, or that it keeps nothing.
pub(crate) fn is_too_much(errno: Errno, path: &Path, disk: &dyn Disk) -> bool {
    match errno {
        Errno::TOOBIG | Errno::RANGE | Errno::OPNOTSUPP => true,
        // ext4 and Btrfs say of a file that has too many what they say of a disk that is full.
        Errno::NOSPC => disk.free_bytes(path).is_ok_and(|free| free >= FREE_BYTES),
        _ => false,
    }
}

pub(crate) fn no_room(errno: Errno) -> String {
    format!("the file system here does not take them for one file: {errno}")
}

pub(crate) fn refused(name: &[u8], cause: impl Display) -> Problem {
    named(Code::AttributesRefused, name, cause)
}

/// The kernel's own name for what a handle is open to. A handle without reading rights answers no questions itself.
pub(crate) fn own_name(handle: &impl AsFd) -> String {
    format!("/proc/self/fd/{}", handle.as_fd().as_raw_fd())
}

/// What has to be done for it to have exactly the attributes that are wanted.
struct Changes<'a> {
    remove: Vec<Vec<u8>>,
    set: Vec<&'a Attribute>,
}

impl<'a> Changes<'a> {
    fn is_none(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty()
    }

    /// `wanted` is in the order of the names.
    fn between(path: &str, wanted: &'a [Attribute]) -> Result<Self, Errno> {
        let standing = names(path)?;
        let mut set = Vec::new();
        for attribute in wanted {
            if standing.binary_search(&attribute.name).is_err() || !has(path, attribute)? {
                set.push(attribute);
            }
        }
        let is_wanted = |name: &Vec<u8>| wanted.binary_search_by(|attribute| attribute.name.cmp(name)).is_ok();
        let remove = standing.into_iter().filter(|name| !is_wanted(name)).collect();
        Ok(Self { remove, set })
    }
}

fn has(path: &str, wanted: &Attribute) -> Result<bool, Errno> {
    match value(path, &wanted.name, wanted.value.len() + 1) {
        Ok(value) => Ok(value == wanted.value),
        Err(Errno::NODATA | Errno::RANGE | Errno::TOOBIG) => Ok(false),
        Err(e) => Err(e),
    }
}

fn names(path: &str) -> Result<Vec<Vec<u8>>, Errno> {
    let mut list: Vec<u8> = Vec::with_capacity(LIST_BYTES);
    match rustix::fs::listxattr(path, spare_capacity(&mut list)) {
        Ok(_) => {}
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(e) => return Err(of_handle(e)),
    }
    let of_users = |name: &&[u8]| name.len() > NAMESPACE.len() && name.starts_with(NAMESPACE);
    let mut names: Vec<Vec<u8>> = list.split(|byte| *byte == 0).filter(of_users).map(<[u8]>::to_vec).collect();
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// At most so long; `RANGE` where it is longer.
fn value(path: &str, name: &[u8], bytes_max: usize) -> Result<Vec<u8>, Errno> {
    let mut value: Vec<u8> = Vec::with_capacity(bytes_max);
    rustix::fs::getxattr(path, name, spare_capacity(&mut value)).map_err(of_handle)?;
    value.shrink_to_fit();
    Ok(value)
}

/// That something is not there must not be read out of an answer about a handle, which holds what it is open to: it is
/// the kernel's names for handles that are missing.
fn of_handle(errno: Errno) -> Errno {
    if errno == Errno::NOENT { Errno::NOSYS } else { errno }
}

/// The longest list of names and the longest value that Linux gives.
const LIST_BYTES: usize = 64 << 10;
const VALUE_BYTES: usize = 64 << 10;
/// A disk with so much room is not full.
const FREE_BYTES: u64 = 1 << 20;
