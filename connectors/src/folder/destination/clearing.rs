//! What goes: names that a mirror has no more, older versions, and what transfers have left that came to nothing.

use super::{FolderDestination, remove};
use crate::folder::fault::writing;
use crate::folder::mirror::{self, LandedBefore, Mirroring};
use crate::folder::names::{self, SELF, check_name, part_leaf, split};
use crate::folder::replace::Replacing;
use crate::folder::stat::file_type;
use crate::folder::walk::{Met, Then, walk};
use posthouse_protocol::manifest::LeftOut;
use posthouse_protocol::problem::Problem;
use posthouse_protocol::time::Timestamp;
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

impl FolderDestination {
    /// Begins to find what `mirror` would delete of what this job landed before: so much. Ask only with a complete manifest.
    pub fn mirroring<'a>(&'a self, left_out: &'a [LeftOut], landed: u64) -> Result<Mirroring<'a>, Problem> {
        Ok(Mirroring::new(&self.root, self.folds()?, left_out, landed))
    }

    /// Deletes a plan; to be followed by `finish`.
    pub fn mirror_delete(&self, plan: &[LandedBefore]) -> Result<u64, Problem> {
        let keep = |folder: &OwnedFd, leaf: &[u8], name: &[u8]| self.keep(folder, leaf, name);
        mirror::delete(&self.root, plan, &keep, &mut |folder| {
            self.locked().touched.insert(folder.to_vec());
        })
    }

    /// Removes what other transfers have kept for as long as it was to be; says how many they were.
    pub fn drop_old_versions(&self, now: Timestamp) -> Result<u64, Problem> {
        self.kept.as_ref().map_or(Ok(0), |kept| kept.drop_old(now))
    }

    /// Removes everything of an abandoned transfer.
    pub fn discard(&self, names: &mut dyn Iterator<Item = &[u8]>) -> Result<(), Problem> {
        self.discard_parts(names)?;
        match &self.replacing {
            Some(replacing) => replacing.discard(self.kept.as_ref()),
            None => Ok(()),
        }
    }

    /// `replace`: whether the new folder stands in its place, and the old one may still have to go.
    pub fn has_exchanged(&self) -> bool {
        self.replacing.as_ref().is_some_and(Replacing::is_done)
    }

    /// Removes the temporary files of entries that are not landed after all.
    pub fn discard_parts(&self, names: &mut dyn Iterator<Item = &[u8]>) -> Result<(), Problem> {
        for name in names {
            if check_name(name).is_err() {
                continue;
            }
            let (folder_name, _) = split(name);
            let removed = match self.root.folder(folder_name) {
                Ok(folder) => remove(&folder, &part_leaf(&self.short, name), AtFlags::empty()),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(()),
                Err(e) => Err(e),
            };
            removed.map_err(|e| writing(&self.root.path_of(name), e))?;
        }
        Ok(())
    }

    /// Goes through the whole folder and removes every temporary file of ours whose transfer (the first 16
    /// characters of its id after `tr-`) is not kept.
    pub fn sweep(&self, keep: &dyn Fn(&str) -> bool) -> Result<u64, Problem> {
        let mut removed = 0;
        walk(&self.root, SELF, |name, met| -> Result<Then, Problem> {
            let (folder, leaf) = split(name);
            let Met::Here(stat) = met else { return Ok(Then::Skip) };
            if file_type(&stat) == FileType::Directory {
                return Ok(Then::Enter);
            }
            if names::owner(leaf).is_some_and(|short| !keep(short)) {
                self.root
                    .folder(folder)
                    .and_then(|folder| remove(&folder, leaf, AtFlags::empty()))
                    .map_err(|e| writing(&self.root.path_of(name), e))?;
                removed += 1;
            }
            Ok(Then::Skip)
        })?;
        Ok(removed)
    }
}
