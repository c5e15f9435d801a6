//! 入库: moves a staged transfer into its destination, once.
//! Tables: one database transaction publishes the rows and leaves the transfer's id; a repeat finds the id and
//! gives the first result. Files: each is renamed to its name, then the folders are synced; a commit that was
//! cut short runs again over all entries and ends at the same. Only [`Committed`] leads to a statement.

mod look;

use crate::config::RowLimit;
use crate::stage::{Place, Stage, Staged};
use crate::store::exchange::{self, LandedFile, LandingEntry, Whole};
use crate::store::{Side, Store, quarantine};
use posthouse_connectors::folder::{FileStat, FolderDestination, Kind, LandedBefore, Near, Present};
use posthouse_connectors::{Published, Publishing};
use posthouse_platform::World;
use posthouse_protocol::id::{JobId, TransferId};
use posthouse_protocol::job::Write;
use posthouse_protocol::manifest::{Counts, Entry, EntryKind, LeftOut};
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::statement::Proof;
use posthouse_protocol::time::Timestamp;
use std::sync::Arc;

/// What was handed over stands at its destination, durably.
#[derive(Debug, Clone)]
pub struct Committed {
    staged: Staged,
    counts: Counts,
    proof: Proof,
    at: Timestamp,
    /// How the line to the destination's database is secured, where a statement has to say so.
    database_line: Option<&'static str>,
}

impl Committed {
    pub fn staged(&self) -> &Staged {
        &self.staged
    }
    pub fn counts(&self) -> &Counts {
        &self.counts
    }
    pub fn proof(&self) -> Proof {
        self.proof
    }
    pub fn at(&self) -> Timestamp {
        self.at
    }
    pub fn database_line(&self) -> Option<&'static str> {
        self.database_line
    }
}

/// What a commit needs to know besides what is staged.
pub struct Commit<'a> {
    pub world: &'a World,
    pub store: &'a Store,
    pub transfer: &'a TransferId,
    pub job: &'a JobId,
    pub write: Write,
    pub proof: Proof,
    /// More quarantined rows than these, the provider's too, and nothing is published.
    pub quarantine_max: Option<RowLimit>,
    /// The whole list: a mirror deletes nothing that may still be there.
    pub left_out: &'a [LeftOut],
}

impl Staged {
    /// Publishes everything. May be repeated after any interruption.
    pub async fn commit(self, stage: &Arc<Stage>, commit: &Commit<'_>) -> Result<Committed, Problem> {
        let mut counts = *self.counts();
        match stage.place() {
            Place::Folder(_) => counts.rows_deleted = commit.publish_folder(stage).await?,
            Place::Table(_) => {
                let before = counts.rows_read.saturating_sub(counts.rows_sent + counts.rows_filtered);
                let quarantined = before + counts.rows_quarantined;
                let max = commit.quarantine_max.map(|limit| limit.of(counts.rows_read));
                let refused_max = max.map(|max| max.saturating_sub(quarantined));
                let publishing = Publishing { refused_max, held_back: quarantined };
                let published = commit.publish_table(stage, counts.rows_landed, publishing).await?;
                counts.rows_landed = published.rows;
                counts.rows_quarantined += published.quarantined;
                counts.rows_deleted = published.deleted;
            }
        }
        let at = commit.world.clock.now();
        if let Place::Folder(_) = stage.place() {
            commit.drop_old_versions(stage, at).await;
        }
        let database_line = match stage.place() {
            Place::Folder(_) => None,
            Place::Table(table) => table.database_line(),
        };
        Ok(Committed { staged: self, counts, proof: commit.proof, at, database_line })
    }
}

impl Commit<'_> {
    /// Rows that the table refuses are kept here too, as those are that were refused before.
    /// What is `staged` was recorded split by split: a destination that was restored since then has less. In `how` all
    /// rows are held back that were quarantined before; the destination itself knows the keys of those that it refused.
    async fn publish_table(&self, stage: &Arc<Stage>, staged: u64, mut how: Publishing) -> Result<Published, Problem> {
        let stage = stage.clone();
        let (published, refused) = self
            .blocking(move || {
                let Place::Table(table) = stage.place() else { return Err(Problem::new(Code::InsideFailed)) };
                let mut destination = table.destination();
                let published = match destination.published()? {
                    Some(published) => published,
                    None => {
                        let applied = destination.applied()?;
                        let there: u64 = applied.iter().map(|applied| applied.landed).sum();
                        let refused: u64 = applied.iter().map(|applied| applied.quarantined).sum();
                        how.held_back = how.held_back.saturating_sub(refused);
                        if there != staged {
                            return Err(Problem::new(Code::Mismatch).with("peer", "the destination").cause(format!(
                                "{staged} rows were staged there, and it has {there}: it was restored or changed since"
                            )));
                        }
                        destination.publish_with(&how)?
                    }
                };
                let refused = if published.quarantined > 0 { destination.refused()? } else { Vec::new() };
                Ok((published, refused))
            })
            .await?;
        if published.kept > 0 {
            let (transfer, job, kept) = (self.transfer, self.job, published.kept);
            tracing::warn!(%transfer, %job, kept, "The mirror deleted nothing: nobody here knows the keys of rows held back");
        }
        if !refused.is_empty() {
            let (transfer, now) = (self.transfer.clone(), self.world.clock.now());
            let keep = move |at: &rusqlite::Transaction<'_>| {
                quarantine::put(at, &transfer, Side::Consumer, quarantine::ON_PUBLISHING, &refused, now)
            };
            self.store.write(keep).await?;
        }
        Ok(published)
    }

    /// Gives how many entries a mirror removed.
    async fn publish_folder(&self, stage: &Arc<Stage>) -> Result<u64, Problem> {
        let doomed = if self.write == Write::Mirror { self.plan_mirror(stage).await? } else { Vec::new() };
        let doomed = Arc::new(doomed);
        let mut page = self.recorded_page(0).await?;
        let mut landed = Vec::new();
        while let Some((last, _)) = page.last() {
            let from = last.entry.index + 1;
            // While one page gets its names the one before is remembered, and the next is read: what is recorded of an
            // entry does not follow from those of other pages, and what stands is remembered in its order.
            let (published, remembered, next) = tokio::join!(
                biased;
                self.publish_page(stage, page),
                self.remember(landed),
                self.recorded_page(from)
            );
            let (now_landed, done) = published;
            landed = now_landed;
            match remembered.and(done).and(next) {
                Ok(next) => page = next,
                // What stands there is remembered, also where the rest of it could not be given its name.
                Err(problem) => return self.remember(landed).await.and(Err(problem)),
            }
        }
        let stage = stage.clone();
        let finishing = stage.clone();
        let finish = self.blocking(move || folder(&finishing)?.finish());
        let (remembered, finished) = tokio::join!(biased; self.remember(landed), finish);
        remembered.and(finished)?;
        let reread = if self.proof == Proof::Reread { self.reread(&stage).await } else { Ok(()) };
        // What somebody took meanwhile is called that, and no fault of the disk.
        self.look(&stage).await.and(reread)?;
        if doomed.is_empty() {
            return Ok(0);
        }
        let (job, forgotten) = (self.job.clone(), doomed.clone());
        let deleted = self
            .blocking(move || {
                let folder = folder(&stage)?;
                let deleted = folder.mirror_delete(&doomed)?;
                folder.finish().map(|()| deleted)
            })
            .await?;
        let forget = move |at: &rusqlite::Transaction<'_>| {
            forgotten.iter().try_for_each(|file| exchange::forget_landed(at, &job, &file.name))
        };
        self.store.write(forget).await?;
        Ok(deleted)
    }

    /// What of it stands, and how that ended.
    async fn publish_page(
        &self,
        stage: &Arc<Stage>,
        page: Vec<(LandingEntry, Known)>,
    ) -> (Vec<LandedFile>, Result<(), Problem>) {
        let (mut files, others): (Vec<_>, Vec<_>) = page.into_iter().partition(|(found, _)| is_file_of_its_own(found));
        let half = files.split_off(files.len() / 2);
        // Further names of a file come after it.
        let ((mut landed, first), (more, second)) =
            tokio::join!(biased; self.publish_some(stage, files), self.publish_some(stage, half));
        landed.extend(more);
        let done = first.and(second);
        if done.is_err() {
            return (landed, done);
        }
        let (more, done) = self.publish_some(stage, others).await;
        landed.extend(more);
        (landed, done)
    }

    async fn publish_some(
        &self,
        stage: &Arc<Stage>,
        some: Vec<(LandingEntry, Known)>,
    ) -> (Vec<LandedFile>, Result<(), Problem>) {
        if some.is_empty() {
            return (Vec::new(), Ok(()));
        }
        let stage = stage.clone();
        let published = self.blocking(move || {
            let (mut landed, mut near) = (Vec::with_capacity(some.len()), Near::default());
            let done = some.iter().try_for_each(|(found, known)| publish(&stage, found, known, &mut near, &mut landed));
            Ok((landed, done))
        });
        published.await.unwrap_or_else(|problem| (Vec::new(), Err(problem)))
    }

    /// What is landed stands, whatever becomes of this.
    async fn drop_old_versions(&self, stage: &Arc<Stage>, now: Timestamp) {
        let stage = stage.clone();
        match self.blocking(move || folder(&stage)?.drop_old_versions(now)).await {
            Ok(0) => {}
            Ok(transfers) => tracing::info!(job = %self.job, transfers, "Removed older versions whose time is over"),
            Err(problem) => tracing::warn!(job = %self.job, %problem, "Older versions whose time is over remain"),
        }
    }

    /// What this job landed before and the source no longer has. Refused as a whole where that is too much.
    async fn plan_mirror(&self, stage: &Arc<Stage>) -> Result<Vec<LandedBefore>, Problem> {
        let (store, stage, left_out) = (self.store.clone(), stage.clone(), self.left_out.to_vec());
        let (job, transfer) = (self.job.clone(), self.transfer.clone());
        self.blocking(move || {
            let landed = store.read_now(|at| exchange::count_landed(at, &job))?;
            let mut mirroring = folder(&stage)?.mirroring(&left_out, landed)?;
            let mut from = 0;
            while mirroring.asks_for_scope() {
                let page = store.read_now(|at| exchange::landing_entries(at, &transfer, from, PAGE))?;
                let Some(last) = page.last() else { break };
                from = last.entry.index + 1;
                page.iter().for_each(|found| mirroring.in_scope(&found.entry.name));
            }
            // No name is empty: all of them come behind this.
            let mut after: Vec<u8> = Vec::new();
            loop {
                let page = store.read_now(|at| exchange::landed_page(at, &job, &transfer, &after, PAGE))?;
                let Some((last, _)) = page.last() else { return mirroring.plan() };
                after = last.name.clone();
                for (file, _) in page.into_iter().filter(|(_, is_in_scope)| !is_in_scope) {
                    mirroring.out_of_scope(landed_before(file))?;
                }
            }
        })
        .await
    }

    async fn remember(&self, landed: Vec<LandedFile>) -> Result<(), Problem> {
        if landed.is_empty() {
            return Ok(());
        }
        let (job, transfer) = (self.job.clone(), self.transfer.clone());
        self.store
            .write(move |at| landed.iter().try_for_each(|file| exchange::put_landed(at, &job, &transfer, file)))
            .await
    }

    async fn page(&self, from: u64) -> Result<Vec<LandingEntry>, Problem> {
        let transfer = self.transfer.clone();
        self.store.read(move |at| exchange::landing_entries(at, &transfer, from, PAGE)).await
    }

    async fn recorded_page(&self, from: u64) -> Result<Vec<(LandingEntry, Known)>, Problem> {
        let page = self.page(from).await?;
        self.recorded(page).await
    }

    /// With each entry what is recorded of it.
    async fn recorded(&self, page: Vec<LandingEntry>) -> Result<Vec<(LandingEntry, Known)>, Problem> {
        let (job, transfer) = (self.job.clone(), self.transfer.clone());
        let with = move |at: &rusqlite::Connection, found: LandingEntry| {
            let entry = &found.entry;
            let mut known = Known::default();
            if matches!(found.whole, Whole::Present | Whole::Linked) {
                let before = exchange::landed(at, &job, &entry.name)?;
                let same = before.filter(|before| before.root == entry.root.map(Into::into));
                known.before = same.map(|before| before.stat);
            }
            // Those before it are published before it.
            let first = entry.same_as.filter(|first| found.whole == Whole::Linked && *first < entry.index);
            if let Some(first) = first {
                let first = exchange::landing_entry_at(at, &transfer, first)?.map(|first| first.entry);
                known.first = first.filter(|first| first.root == entry.root);
            }
            Ok((found, known))
        };
        self.store.read(move |at| page.into_iter().map(|found| with(at, found)).collect()).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        self.world.blocking.run(work).await.map_err(|e| Problem::new(Code::InsideFailed).cause(e))?
    }
}

fn folder(stage: &Stage) -> Result<&FolderDestination, Problem> {
    match stage.place() {
        Place::Folder(folder) => Ok(folder),
        Place::Table(_) => Err(Problem::new(Code::InsideFailed).cause("a table was to be committed as a folder")),
    }
}

/// What the store knows of an entry.
#[derive(Default)]
struct Known {
    /// One that stood there before: the file as it was when this job last knew its content.
    before: Option<FileStat>,
    /// A second name: the entry that it is another name of.
    first: Option<Entry>,
}

/// Whether it is only to be given its name.
fn is_file_of_its_own(found: &LandingEntry) -> bool {
    matches!(found.whole, Whole::Part | Whole::No) && found.entry.kind == EntryKind::File
}

fn publish(
    stage: &Stage,
    found: &LandingEntry,
    known: &Known,
    near: &mut Near,
    landed: &mut Vec<LandedFile>,
) -> Result<(), Problem> {
    let (folder, entry) = (folder(stage)?, &found.entry);
    let stat = match (found.whole, &known.first) {
        (Whole::Present, _) => adopt(folder, entry, known.before)?,
        (Whole::Part | Whole::No, _) => folder.publish_near(entry, near)?,
        (Whole::Linked, Some(first)) => {
            let (stat, is_one) = folder.publish_second(entry, first, known.before)?;
            if is_one {
                // Another name is a change of the file itself, of which its time of change tells.
                landed.push(landed_file(first, stat)?);
            }
            stat
        }
        (Whole::Linked, None) => {
            let problem = Problem::new(Code::FileChanged).with("name", String::from_utf8_lossy(&entry.name));
            return Err(problem.cause("it is another name of a file that was not landed"));
        }
    };
    landed.push(landed_file(entry, stat)?);
    Ok(())
}

fn landed_file(entry: &Entry, stat: FileStat) -> Result<LandedFile, Problem> {
    Ok(LandedFile {
        name: entry.name.clone(),
        kind: Kind::of(&entry.kind).ok_or_else(|| Problem::new(Code::InsideFailed).cause("a split in a folder"))?,
        root: entry.root.map(Into::into),
        size: entry.size,
        mtime_ns: entry.mtime_ns,
        stat,
    })
}

/// Takes a file that stands there for this entry, if its content still is what was found before.
fn adopt(folder: &FolderDestination, entry: &Entry, recorded: Option<FileStat>) -> Result<FileStat, Problem> {
    let changed = || {
        let problem = Problem::new(Code::FileChanged).with("name", String::from_utf8_lossy(&entry.name));
        problem.cause("it was changed at its destination during the transfer")
    };
    let Present::Same(stat) = folder.present(entry)? else { return Err(changed()) };
    if recorded != Some(stat) {
        let root = folder.hash(&entry.name, false)?;
        if entry.root.is_none_or(|stated| *stated != root) {
            return Err(changed());
        }
    }
    let stat = folder.adopt(entry, recorded == Some(stat))?;
    if (stat.size, stat.mtime_ns) == (entry.size, entry.mtime_ns) { Ok(stat) } else { Err(changed()) }
}

fn landed_before(file: LandedFile) -> LandedBefore {
    LandedBefore { name: file.name, kind: file.kind, size: file.size, mtime_ns: file.mtime_ns }
}

const PAGE: u32 = 1024;

#[cfg(test)]
mod tests;
