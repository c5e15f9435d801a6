//! What is here of an entry that the provider lists: from an earlier run of the transfer, of one that it
//! succeeds, or landed before.

use super::{Place, Stage, TableStage};
use crate::store::exchange::{self, LandingEntry, Whole};
use posthouse_connectors::folder::{FileStat, FolderDestination, Near, Present};
use posthouse_protocol::consumer::Have;
use posthouse_protocol::id::TransferId;
use posthouse_protocol::manifest::{Entry, EntryKind, LeftOut};
use posthouse_protocol::problem::{Code, Problem};
use rusqlite::Connection;

/// What this node has of an entry that the provider lists.
#[derive(Debug)]
pub enum Answer {
    Have(Have, Whole),
    LeaveOut(LeftOut),
    /// What stands there may be it: its content has to be this, where that is known.
    /// [`Stage::compared`] says whether it is.
    Compare(Option<[u8; 32]>),
    /// A file of a transfer that failed was taken over; its content has to be this. [`Stage::compared`] says whether it is.
    Adopted([u8; 32]),
}

impl Stage {
    /// What is here of `entry`: from an earlier run of this transfer, of one that it succeeds, or landed before.
    /// `resumes`: an earlier session may have recorded something of this transfer. Otherwise it is not looked for.
    /// `near` is that of a group of entries.
    pub fn lookup(
        &self,
        at: &Connection,
        entry: &Entry,
        predecessors: &[TransferId],
        resumes: bool,
        near: &mut Near,
    ) -> Result<Answer, Problem> {
        match &self.place {
            Place::Folder(folder) => {
                let present = folder.present_near(entry, near)?;
                self.lookup_file(at, folder, entry, present, resumes)
            }
            Place::Table(table) => self.lookup_split(at, table, entry, predecessors),
        }
    }

    /// Why an entry that is read anew cannot be landed here as it is now; None where it can.
    pub fn blocked(&self, entry: &Entry) -> Result<Option<LeftOut>, Problem> {
        match &self.place {
            Place::Folder(folder) => match folder.present(entry)? {
                Present::Blocked(left_out) => Ok(Some(left_out)),
                Present::Absent | Present::Same(_) | Present::Differs(_) => Ok(None),
            },
            Place::Table(_) => Ok(None),
        }
    }

    fn lookup_file(
        &self,
        at: &Connection,
        folder: &FolderDestination,
        entry: &Entry,
        present: Present,
        resumes: bool,
    ) -> Result<Answer, Problem> {
        if let Present::Blocked(left_out) = present {
            return Ok(Answer::LeaveOut(left_out));
        }
        if entry.kind != EntryKind::File {
            return Ok(Answer::Have(Have::Nothing, Whole::Part));
        }
        if let Present::Same(stat) = present {
            let before = exchange::landed(at, &self.job, &entry.name)?;
            let known = before.as_ref().and_then(|before| before.root);
            if let (Some(before), Some(root)) = (&before, known)
                && before.stat == stat
                && entry.root.is_none_or(|stated| *stated == root)
            {
                return Ok(Answer::Have(Have::Whole(root), Whole::Present));
            }
            // Another name of it came or went, and nothing else: its content is looked at before all of it comes again.
            let was = before.as_ref().map(|before| FileStat { ctime_ns: stat.ctime_ns, ..before.stat });
            let is_likely = was == Some(stat) && known.is_some_and(|root| entry.root.is_none_or(|own| *own == root));
            if !folder.replaces() || is_likely {
                return Ok(Answer::Compare(entry.root.map(Into::into).or(known)));
            }
        }
        if !resumes {
            return Ok(Answer::Have(Have::Nothing, Whole::Part));
        }
        self.resumed(at, entry, |found| Ok(!folder.part(&found.entry.name, true)?.fresh()))
    }

    fn lookup_split(
        &self,
        at: &Connection,
        table: &TableStage,
        entry: &Entry,
        predecessors: &[TransferId],
    ) -> Result<Answer, Problem> {
        let (EntryKind::Split(_), Some(root)) = (&entry.kind, entry.root) else {
            return Err(Problem::new(Code::FrameInvalid).cause("a table's transfer lists something that is no split"));
        };
        if let Answer::Have(have @ (Have::Whole(_) | Have::Chunks(_)), whole) =
            // Rows that are staged need their file no more.
            self.resumed(at, entry, |found| Ok(found.staged.is_some() || table.path(&entry.name).exists()))?
        {
            return Ok(Answer::Have(have, whole));
        }
        for predecessor in predecessors {
            if let Some(found) = exchange::adoptable_split(at, predecessor, &entry.name, &root)?
                && found.entry.size == entry.size
            {
                if found.staged.is_some_and(|staged| table.inherit(entry, &root, staged)) {
                    return Ok(Answer::Have(Have::Whole(*root), Whole::Part));
                }
                if table.adopt(predecessor, entry)? {
                    return Ok(Answer::Adopted(*root));
                }
            }
        }
        Ok(Answer::Have(Have::Nothing, Whole::Part))
    }

    /// What an earlier run of this transfer made durable, if the provider still means the same content.
    fn resumed(
        &self,
        at: &Connection,
        entry: &Entry,
        part_exists: impl Fn(&LandingEntry) -> Result<bool, Problem>,
    ) -> Result<Answer, Problem> {
        let nothing = Answer::Have(Have::Nothing, Whole::Part);
        let Some((found, chunks)) = exchange::landing_entry(at, &self.transfer, &entry.name)? else {
            return Ok(nothing);
        };
        let same = found.entry.size == entry.size
            && found.entry.mtime_ns == entry.mtime_ns
            && (entry.root.is_none() || found.entry.root.is_none() || entry.root == found.entry.root);
        if !same || matches!(found.whole, Whole::Present | Whole::Linked) || !part_exists(&found)? {
            return Ok(nothing);
        }
        Ok(match (found.whole, found.entry.root) {
            (Whole::No, _) if chunks.is_empty() => nothing,
            (Whole::No, _) => Answer::Have(Have::Chunks(chunks), Whole::Part),
            (_, Some(root)) => Answer::Have(Have::Whole(*root), Whole::Part),
            (_, None) => nothing,
        })
    }

    /// Settles an answer for which the file that stands there has to be read.
    pub fn compared(&self, entry: &Entry, answer: Answer) -> Answer {
        if let (Place::Table(table), Answer::Adopted(root)) = (&self.place, &answer) {
            // One that was staged at once was never synced: after a power cut it may be anything.
            let is_whole = table.is_whole(entry, root).unwrap_or(false);
            let have = if is_whole { Have::Whole(*root) } else { Have::Nothing };
            return Answer::Have(have, Whole::Part);
        }
        let (Place::Folder(folder), Answer::Compare(known)) = (&self.place, &answer) else { return answer };
        let reason = match folder.hash(&entry.name, false) {
            Ok(root) if known.is_none_or(|known| known == root) => {
                return Answer::Have(Have::Whole(root), Whole::Present);
            }
            _ if folder.replaces() => return Answer::Have(Have::Nothing, Whole::Part),
            Ok(_) => "it exists already with other contents, and `append` replaces nothing".to_owned(),
            Err(problem) => format!("it exists already, and cannot be read: {}", problem.cause),
        };
        Answer::LeaveOut(LeftOut { name: entry.name.clone(), code: Code::NameTaken.number(), reason })
    }
}
