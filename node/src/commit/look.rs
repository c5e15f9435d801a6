//! What was landed is looked at once more, after it is durable and before anything is stated of it. What is not as it
//! was landed is named and forgotten, each of it, so that no later run takes it for landed; the transfer ends without
//! a receipt. Deliberately absent: a hold on what stands there. What becomes of it after the look nobody here can know.

use super::{Commit, PAGE, folder};
use crate::stage::Stage;
use crate::store::exchange::{self, LandedEntry, LandingEntry, Whole};
use posthouse_connectors::folder::{Near, Seen};
use posthouse_protocol::manifest::EntryKind;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::statement::Proof;
use std::sync::Arc;

impl Commit<'_> {
    /// Reads every landed file back past the page cache.
    pub(super) async fn reread(&self, stage: &Arc<Stage>) -> Result<(), Problem> {
        let mut from = 0;
        loop {
            let page = self.page(from).await?;
            let Some(last) = page.last() else { return Ok(()) };
            from = last.entry.index + 1;
            let stage = stage.clone();
            self.blocking(move || {
                for LandingEntry { entry, .. } in page.iter().filter(|e| e.entry.kind == EntryKind::File) {
                    let root = folder(&stage)?.hash(&entry.name, true)?;
                    if entry.root.is_none_or(|stated| *stated != root) {
                        return Err(Problem::new(Code::StorageFailed)
                            .with("path", String::from_utf8_lossy(&entry.name))
                            .cause("the disk gives back other bytes than were written"));
                    }
                }
                Ok(())
            })
            .await?;
        }
    }

    /// Whether everything of this transfer stands as it was landed.
    pub(super) async fn look(&self, stage: &Arc<Stage>) -> Result<(), Problem> {
        let (mut first, mut missed) = (None, 0);
        let mut page = self.landed_page(0).await?;
        while let Some(last) = page.last() {
            let from = last.position + 1;
            let half = page.split_off(page.len() / 2);
            let (some, more, next) = tokio::join!(
                biased;
                self.look_at(stage, page),
                self.look_at(stage, half),
                self.landed_page(from)
            );
            let mut lost = some?;
            lost.extend(more?);
            for (_, problem) in lost.iter().take(NAMED_MAX.saturating_sub(missed)) {
                tracing::warn!(transfer = %self.transfer, %problem, "What was landed is not receipted");
            }
            missed += lost.len();
            let mut names = Vec::with_capacity(lost.len());
            for (name, problem) in lost {
                names.push(name);
                first.get_or_insert(problem);
            }
            self.forget(names).await?;
            page = next?;
        }
        if let Some(mut problem) = first {
            if missed > 1 {
                problem.cause = format!("{}; {} more like it, see the log", problem.cause, missed - 1);
            }
            return Err(problem);
        }
        let stage = stage.clone();
        self.blocking(move || folder(&stage)?.look_at_itself()).await
    }

    /// What of these is not as it was landed, by name.
    async fn look_at(&self, stage: &Arc<Stage>, some: Vec<LandedEntry>) -> Result<Vec<(Vec<u8>, Problem)>, Problem> {
        if some.is_empty() {
            return Ok(Vec::new());
        }
        let is_reread = self.proof == Proof::Reread;
        let looking = stage.clone();
        let (mut lost, unsure) = self
            .blocking(move || {
                let (folder, mut near) = (folder(&looking)?, Near::default());
                let (mut lost, mut unsure) = (Vec::new(), Vec::new());
                for LandedEntry { whole, file, .. } in some {
                    // One that stood before this transfer costs a look at its folder and no more.
                    let open = is_reread || whole != Whole::Present;
                    match folder.look(&file.name, file.kind, &file.stat, open, &mut near) {
                        Ok(Seen::AsLanded) => {}
                        Ok(Seen::Unsure) => unsure.push(file.name),
                        Err(problem) => lost.push((file.name, problem)),
                    }
                }
                Ok((lost, unsure))
            })
            .await?;
        for name in unsure {
            let (transfer, wanted) = (self.transfer.clone(), name.clone());
            let found = self.store.read(move |at| exchange::landing_entry(at, &transfer, &wanted)).await?;
            let Some((LandingEntry { entry, .. }, _)) = found else { return Err(Problem::new(Code::InsideFailed)) };
            let looking = stage.clone();
            let seen = self.blocking(move || Ok(folder(&looking)?.look_into(&entry))).await?;
            lost.extend(seen.err().map(|problem| (name, problem)));
        }
        Ok(lost)
    }

    async fn landed_page(&self, from: u64) -> Result<Vec<LandedEntry>, Problem> {
        let (job, transfer) = (self.job.clone(), self.transfer.clone());
        self.store.read(move |at| exchange::landed_entries(at, &job, &transfer, from, PAGE)).await
    }

    /// What is not there, or may not be opened, is asked for anew by the next run.
    async fn forget(&self, names: Vec<Vec<u8>>) -> Result<(), Problem> {
        if names.is_empty() {
            return Ok(());
        }
        let job = self.job.clone();
        self.store.write(move |at| names.iter().try_for_each(|name| exchange::forget_landed(at, &job, name))).await
    }
}

/// A log is read by people.
const NAMED_MAX: usize = 100;
