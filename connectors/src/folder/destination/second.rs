//! An entry that is another one's file under a second name: a hard link is made, or a copy where there can be none.

use super::{FolderDestination, Near, Present, check_entry, remove};
use crate::folder::attributes;
use crate::folder::fault::{named, writing};
use crate::folder::names::{part_leaf, split};
use crate::folder::source::read_full;
use crate::folder::stat::{FileStat, file_type};
use crate::folder::versions::NO_LINKS;
use posthouse_protocol::manifest::Entry;
use posthouse_protocol::problem::{Code, Problem};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FileType, OFlags, Stat};
use rustix::io::Errno;

impl FolderDestination {
    /// Makes an entry visible whose content is that of `first`, which is published already. A repeat changes nothing.
    /// `before`: how the file looked when it was last known to have that content. Says too whether it is one file with
    /// the other now, whose `FileStat` is then this one.
    pub fn publish_second(
        &self,
        entry: &Entry,
        first: &Entry,
        before: Option<FileStat>,
    ) -> Result<(FileStat, bool), Problem> {
        check_entry(entry)?;
        check_entry(first)?;
        let name = entry.name.as_slice();
        let path = self.root.path_of(name);
        let failed = |e: Errno| writing(&path, e);
        let failed_first = |e: Errno| writing(&self.root.path_of(&first.name), e);
        let Present::Same(_) = self.compare(&self.root, first)? else { return Err(changed(first)) };
        let (from, from_leaf) = self.root.parent(&first.name).map_err(failed_first)?;
        let (folder_name, target) = split(name);
        let folder = self.make_folder(folder_name)?;
        let of = |folder: &OwnedFd, leaf: &[u8]| rustix::fs::statat(folder, leaf, AtFlags::SYMLINK_NOFOLLOW);
        let wanted = of(&from, from_leaf).map_err(failed_first)?;
        let is_it = |there: &Stat| (there.st_dev, there.st_ino) == (wanted.st_dev, wanted.st_ino);
        // One file has one time, one set of rights and one of attributes.
        let is_alike = (entry.size, entry.mode, entry.mtime_ns) == (first.size, first.mode, first.mtime_ns);
        if !is_alike || entry.attributes != first.attributes {
            return self.publish_copy(entry, first, before).map(|stat| (stat, false));
        }
        if of(&folder, target).is_ok_and(|there| is_it(&there)) {
            self.locked().touched.insert(folder_name.to_vec());
            if let Some(kept) = &self.kept {
                kept.touch(name);
            }
        } else {
            let leaf = part_leaf(&self.short, name);
            self.written.disk.before_write(&path, 0).map_err(|e| writing(&path, e))?;
            let linked = self.in_folder(folder_name, &folder, &|| {
                remove(&folder, &leaf, AtFlags::empty())?;
                rustix::fs::linkat(&from, from_leaf, &folder, leaf.as_slice(), AtFlags::empty())?;
                of(&folder, &leaf)
            });
            match linked {
                Ok(made) if is_it(&made) && is_as_landed(&made, first) => {}
                // Somebody has put something else in the first one's place meanwhile.
                Ok(_) => {
                    remove(&folder, &leaf, AtFlags::empty()).map_err(failed)?;
                    return Err(changed(first));
                }
                Err(e) if NO_LINKS.contains(&e) => {
                    return self.publish_copy(entry, first, before).map(|stat| (stat, false));
                }
                Err(e) => return Err(failed(e)),
            }
            self.keep(&folder, target, name)?;
            self.in_folder(folder_name, &folder, &|| self.put(&folder, &leaf, target))
                .map_err(|e| self.landing(entry, e))?;
            self.locked().touched.insert(folder_name.to_vec());
        }
        of(&folder, target).map(|stat| (FileStat::of(&stat), true)).map_err(failed)
    }

    /// Publishes an entry with the content of another one, or of its own where its file is to be one with no other.
    pub(super) fn publish_copy(
        &self,
        entry: &Entry,
        first: &Entry,
        before: Option<FileStat>,
    ) -> Result<FileStat, Problem> {
        let is_alone = |stat: &FileStat| before == Some(*stat) || self.has_content(entry);
        if let Present::Same(stat) = self.compare(&self.root, entry)?
            && entry.name != first.name
            && is_alone(&stat)
        {
            // Copied before, in this transfer or in an earlier one.
            self.locked().touched.insert(split(&entry.name).0.to_vec());
            if let Some(kept) = &self.kept {
                kept.touch(&entry.name);
            }
            return self.adopt(entry, before == Some(stat));
        }
        let path = self.root.path_of(&first.name);
        let unreadable = |e: std::io::Error| named(Code::FileUnreadable, &first.name, e);
        let file = self.root.file(&first.name, OFlags::RDONLY).map_err(|e| writing(&path, e))?;
        let file = std::fs::File::from(file);
        let part = self.part(&entry.name, false)?.sized(entry.size)?;
        let (mut hasher, mut buffer, mut at) = (blake3::Hasher::new(), vec![0; COPY_BYTES], 0);
        loop {
            let read = read_full(&file, at, &mut buffer).map_err(unreadable)?;
            let content = buffer.get(..read).unwrap_or_default();
            if content.is_empty() {
                break;
            }
            hasher.update(content);
            part.write_at(at, content)?;
            at += read as u64;
        }
        if at != entry.size || entry.root.is_none_or(|root| *root != *hasher.finalize().as_bytes()) {
            self.discard_parts(&mut std::iter::once(entry.name.as_slice()))?;
            return Err(changed(first));
        }
        let mut sealed = entry.clone();
        if sealed.attributes.is_none() && entry.name == first.name {
            // Nothing is said of them, and it is still the file that stood there.
            let own = attributes::read(&file, usize::MAX).map_err(|fault| fault.problem(&entry.name))?;
            sealed.attributes = Some(own);
        }
        part.seal(&sealed)?;
        self.sync()?;
        self.publish_file(entry, entry.name == first.name, &mut Near::default())
    }

    fn has_content(&self, entry: &Entry) -> bool {
        entry.root.is_some_and(|root| self.hash(&entry.name, false).is_ok_and(|found| found == *root))
    }
}

fn is_as_landed(stat: &Stat, entry: &Entry) -> bool {
    let now = FileStat::of(stat);
    file_type(stat) == FileType::RegularFile && (now.size, now.mtime_ns) == (entry.size, entry.mtime_ns)
}

fn changed(entry: &Entry) -> Problem {
    let problem = Problem::new(Code::FileChanged).with("name", String::from_utf8_lossy(&entry.name));
    problem.cause("it was changed at its destination before it was given its second name")
}

const COPY_BYTES: usize = 1 << 20;
