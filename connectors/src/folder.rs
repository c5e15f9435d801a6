//! A folder as a place to read from and to land in: files, directories, links, empty ones too.
//! Everything happens beneath a held directory handle; no link is ever followed and no name that a
//! peer sends can reach outside. What cannot be handed over or landed is left out by name and reason,
//! never skipped; a read error is never taken for absence.
//! Deliberately elsewhere: what was landed before and with which root (the node's store), hashing of
//! chunks (protocol), when to commit (the node's rooms).

mod attributes;
mod beneath;
mod destination;
mod fault;
mod hash;
mod links;
mod mirror;
mod names;
mod part;
mod patterns;
mod replace;
mod source;
mod stat;
#[cfg(test)]
mod tests;
mod versions;
mod walk;

pub use destination::{FolderDestination, Near, Present, Seen};
pub use fault::left_out;
pub use mirror::{Kind, LandedBefore, Mirroring};
pub use names::{NameFault, check_name};
pub use part::Part;
pub use source::{FolderSource, Found, OpenFile};
pub use stat::FileStat;
pub use versions::Versions;

use crate::SettingError;

/// What a resource says of its folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FolderOptions {
    /// Globs over the relative path, `/` matched only by `**`; none = everything.
    pub include: Vec<String>,
    pub exclude: Vec<String>,
    pub links: Links,
    /// A file changed within this time is left for the next run.
    pub quiet_ms: i64,
    /// Extended attributes of `user.` are told, of files and folders.
    pub xattrs: bool,
}

/// `links = "inside"` refuses links that leave the folder, by name; `"keep"` hands every link over as its text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Links {
    #[default]
    Inside,
    Keep,
}

impl FolderOptions {
    /// All mistakes at once.
    pub fn check(&self) -> Vec<SettingError> {
        let mut wrong = Vec::new();
        for (key, globs) in [("include", &self.include), ("exclude", &self.exclude)] {
            for glob in globs {
                if let Err(e) = patterns::glob(glob) {
                    wrong.push(SettingError { key: key.to_owned(), what: format!("`{glob}`: {e}"), nearest: None });
                }
            }
        }
        wrong
    }
}
