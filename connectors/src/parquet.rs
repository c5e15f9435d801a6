//! Tables that land as Parquet files: `into = { folder, format = "parquet" }`.
//!
//! `FOLDER/JOB/TRANSFER/part-….parquet` are a published transfer's rows, one file for each split, and
//! `_posthouse.json` beside them says what publishing did. What is staged waits in `FOLDER/.posthouse-TRANSFER`.
//! A transfer is published by one rename: of its folder into the job's (append), or of the job's whole folder
//! against the new one (replace). Everything is synced before its name says that it is there. A row that was
//! appended before and is read again, equal in all columns, is not added again; a changed row is a further one.

mod files;
mod mapping;
mod overlap;
#[cfg(test)]
mod tests;

pub(crate) use self::mapping::mapping;

use crate::types::{self, Window};
use crate::{Applied, BadRow, Destination, Landing, Published, Publishing, Sink, SplitLanded};
use arrow::record_batch::RecordBatch;
use files::{Fault, Part};
use posthouse_protocol::batch::Batch;
use posthouse_protocol::job::Write;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::watermark::Watermark;
use rustix::fs::{CWD, RenameFlags};
use std::path::{Path, PathBuf};

/// Lands in a folder; `landing.table` does not matter, the job's name names the folder within.
pub fn destination(folder: &Path, landing: &Landing) -> Result<Box<dyn Destination>, Problem> {
    posthouse_protocol::batch::check_contract(&landing.contract)?;
    if !matches!(landing.write, Write::Append | Write::Replace) {
        let problem = Problem::new(Code::DestinationFailed).with("target", folder.display());
        return Err(problem.cause(format!("parquet files take append and replace, not {}", landing.write)));
    }
    if let Some(item) = landing.contract.items.iter().find(|item| mapping::made(item.r#type).declared.is_none()) {
        let problem = Problem::new(Code::TypeUnsupported).with("column", &item.name);
        let cause = "Parquet has no decimal whose digits end before the point: convert it in a view or `query`";
        return Err(problem.with("type", types::type_name(item.r#type)).cause(cause));
    }
    let staging = folder.join(format!(".posthouse-{}", landing.transfer));
    let job = folder.join(landing.job.as_str());
    Ok(Box::new(ParquetDestination { folder: folder.to_owned(), job, staging, landing: landing.clone() }))
}

struct ParquetDestination {
    folder: PathBuf,
    /// What is published.
    job: PathBuf,
    /// What is not yet.
    staging: PathBuf,
    landing: Landing,
}

impl ParquetDestination {
    fn rows(&self) -> PathBuf {
        self.staging.join("rows")
    }
    /// The job's folder as it will be: replace builds it here.
    fn coming(&self) -> PathBuf {
        self.staging.join("coming")
    }
    fn applied_note(&self, split: &str) -> PathBuf {
        self.staging.join("applied").join(format!("{}.json", files::short(split)))
    }
    fn landed_in(&self, job: &Path) -> PathBuf {
        job.join(self.landing.transfer.as_str())
    }
    fn problem(&self, fault: Fault) -> Problem {
        fault.problem(&self.folder)
    }
    fn note(&self, job: &Path) -> Result<Option<Published>, Problem> {
        files::read_json(&self.landed_in(job).join(NOTE)).map_err(|e| self.problem(e))
    }
    fn notes(&self) -> Result<Vec<files::Note>, Problem> {
        let fault = |e| self.problem(e);
        let mut notes = Vec::new();
        for path in files::listing(&self.staging.join("applied"), ".json").map_err(fault)? {
            notes.extend(files::read_json::<files::Note>(&path).map_err(fault)?);
        }
        Ok(notes)
    }
    /// Refuses to write for a copy of this node that was started before another one.
    fn check_epoch(&self) -> Result<(), Problem> {
        match self.notes()?.iter().map(|note| note.node_epoch).max() {
            Some(epoch) if epoch > self.landing.node_epoch => {
                let ours = self.landing.node_epoch;
                Err(Problem::new(Code::Fenced)
                    .cause(format!("the transfer was continued under epoch {epoch}, this is {ours}")))
            }
            _ => Ok(()),
        }
    }
    fn staged(&self) -> Result<Vec<Part>, Problem> {
        files::parts(&self.rows()).map_err(|e| self.problem(e))
    }
    /// Published files in the order of their names.
    fn standing(&self) -> Result<Vec<Part>, Problem> {
        let transfers = files::folders(&self.job).map_err(|e| self.problem(e))?;
        let mut parts = Vec::new();
        for transfer in transfers {
            parts.extend(files::parts(&transfer).map_err(|e| self.problem(e))?);
        }
        Ok(parts)
    }
    fn check_standing(&self) -> Result<Vec<Part>, Problem> {
        let standing = self.standing()?;
        if let Some(part) = standing.first()
            && let Some(found) = part.other_than(&self.landing.contract).map_err(|e| self.problem(e))?
        {
            let resource = types::schema_text(&self.landing.contract);
            let table = self.job.display().to_string();
            return Err(types::drift(&table, &resource, &found, "the files that stand there have other columns"));
        }
        Ok(standing)
    }

    /// The folder that is to be published, complete and synced.
    fn complete(&self) -> Result<Published, Problem> {
        let fault = |e| self.problem(e);
        let parts = self.staged()?;
        let mut published = Published::default();
        for part in &parts {
            published.rows += part.rows().map_err(fault)?;
        }
        published.inserted = published.rows;
        let standing = if self.landing.write == Write::Append { self.check_standing()? } else { Vec::new() };
        if let (Some(mark), false) = (&self.landing.watermark_column, standing.is_empty()) {
            let clean = self.staging.join("clean");
            files::remove(&clean).map_err(fault)?;
            let dropped = overlap::without(&self.landing.contract, mark, &parts, &standing, &clean).map_err(fault)?;
            published.inserted -= dropped;
        }
        if self.landing.write == Write::Replace {
            for part in self.standing()? {
                published.deleted += part.rows().unwrap_or(0);
            }
        }
        Ok(published)
    }

    /// It is published: makes that durable, and takes away what is left of the staging.
    fn finish(&self) -> Result<(), Problem> {
        for folder in [&self.job, &self.folder] {
            files::sync_folder(folder).map_err(|e| self.problem(e))?;
        }
        if let Err(fault) = files::remove(&self.staging) {
            tracing::warn!(problem = %self.problem(fault), "What was staged remains beside what was published");
        }
        Ok(())
    }

    fn swap(&self) -> Result<(), Problem> {
        let coming = self.coming();
        let flags = if self.job.exists() { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
        match rustix::fs::renameat_with(CWD, &coming, CWD, &self.job, flags) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                let problem = Problem::new(Code::ReplaceUnsupported).with("path", self.job.display());
                Err(problem.cause("the file system does not exchange folders"))
            }
            Err(e) => Err(self.problem(Fault::Io(self.job.clone(), e.into()))),
        }
    }
}

impl Destination for ParquetDestination {
    fn prepare(&mut self) -> Result<(), Problem> {
        let fault = |e| self.problem(e);
        if self.note(&self.job)?.is_some() {
            return self.finish();
        }
        self.check_epoch()?;
        if self.landing.write == Write::Append {
            self.check_standing()?;
        }
        files::make(&self.folder).map_err(fault)?;
        for folder in ["rows", "applied"] {
            files::make(&self.staging.join(folder)).map_err(fault)?;
        }
        files::sync_folder(&self.folder).map_err(fault)
    }

    fn applied(&mut self) -> Result<Vec<Applied>, Problem> {
        Ok(self.notes()?.into_iter().filter_map(files::Note::applied).collect())
    }

    fn published(&mut self) -> Result<Option<Published>, Problem> {
        self.note(&self.job)
    }

    fn stage(
        &mut self,
        split: &str,
        root: [u8; 32],
        batches: &mut dyn Iterator<Item = Result<RecordBatch, Problem>>,
    ) -> Result<SplitLanded, Problem> {
        let fault = |e| self.problem(e);
        self.check_epoch()?;
        let note = self.applied_note(split);
        if let Some(before) = files::read_json::<files::Note>(&note).map_err(fault)? {
            return Ok(SplitLanded { landed: before.landed, bad: Vec::new() });
        }
        let path = self.rows().join(format!("part-{}.parquet", files::short(split)));
        let mut part = files::PartWriter::create(&path, &self.landing.contract).map_err(fault)?;
        let mut landed = 0;
        for batch in batches {
            let batch = Batch::new(&self.landing.contract, batch?)?;
            landed += batch.rows() as u64;
            part.write(batch.record()).map_err(fault)?;
        }
        part.finish().map_err(fault)?;
        files::write_json(&note, &files::Note::new(split, root, landed, self.landing.node_epoch)).map_err(fault)?;
        Ok(SplitLanded { landed, bad: Vec::new() })
    }

    /// Files refuse no rows.
    fn publish_with(&mut self, _: &Publishing) -> Result<Published, Problem> {
        let fault = |e| self.problem(e);
        if let Some(before) = self.note(&self.job)? {
            self.finish()?;
            return Ok(before);
        }
        let rows = self.rows();
        if self.note(&self.coming())?.is_none() {
            if !rows.is_dir() {
                return Err(fault(Fault::Other(rows, "nothing was staged".to_owned())));
            }
            let published = self.complete()?;
            let clean = self.staging.join("clean");
            let ready = if clean.is_dir() { clean } else { rows };
            files::write_json(&ready.join(NOTE), &published).map_err(fault)?;
            files::make(&self.coming()).map_err(fault)?;
            files::rename(&ready, &self.landed_in(&self.coming())).map_err(fault)?;
        }
        let published = self.note(&self.coming())?.unwrap_or_default();
        match self.landing.write {
            Write::Replace => self.swap()?,
            _ => {
                files::make(&self.job).map_err(fault)?;
                files::rename(&self.landed_in(&self.coming()), &self.landed_in(&self.job)).map_err(fault)?;
            }
        }
        self.finish()?;
        Ok(published)
    }

    fn refused(&mut self) -> Result<Vec<BadRow>, Problem> {
        Ok(Vec::new())
    }

    fn discard(&mut self) -> Result<(), Problem> {
        files::remove(&self.staging).map_err(|e| self.problem(e))
    }

    fn read_standing(&mut self, to: Option<&Watermark>, sink: &mut dyn Sink) -> Result<u64, Problem> {
        let contract = &self.landing.contract;
        let mark = self.landing.watermark_column.as_deref().and_then(|name| contract.position(name));
        let window = Window::up_to(to.filter(|_| mark.is_some()));
        let mut rows = 0;
        for part in self.check_standing()? {
            for batch in part.read(contract).map_err(|e| self.problem(e))? {
                let batch = Batch::new(contract, batch.map_err(|e| self.problem(e))?)?;
                let keep: Vec<bool> = (0..batch.rows())
                    .map(|row| mark.is_none_or(|mark| window.holds(&batch.value(mark, row))))
                    .collect();
                let kept = files::keep(batch.record(), &keep).map_err(|e| self.problem(e))?;
                rows += kept.num_rows() as u64;
                if kept.num_rows() > 0 {
                    sink.batch(kept)?;
                }
            }
        }
        Ok(rows)
    }

    fn dry_run(&mut self) -> Result<Vec<String>, Problem> {
        let standing = self.check_standing()?;
        let into = self.landed_in(&self.job);
        let mut lines = vec![match standing.len() {
            0 => format!("create {}", self.job.display()),
            files => format!("{} stands with {files} files, their columns are the resource's", self.job.display()),
        }];
        lines.push(match self.landing.write {
            Write::Replace => format!("replace: {} is exchanged at one instant for a new one", self.job.display()),
            _ if self.landing.watermark_column.is_some() => {
                format!(
                    "append: {} comes; rows that are there already, equal in all columns, are not added again",
                    into.display()
                )
            }
            _ => format!("append: {} comes with every row", into.display()),
        });
        Ok(lines)
    }
}

/// Readers of folders of Parquet files leave names out that begin like this.
const NOTE: &str = "_posthouse.json";
