//! What an offer says of its rows, against what was asked for and what stands: rules that are missing, and masks that are
//! others than those under which the job has landed what it has. And the job's own rules, which stay those that a transfer
//! began with.

use super::run::Run;
use crate::config::Job;
use crate::context::Context;
use crate::reconcile;
use crate::seal::storage;
use crate::store::{Transfer, exchange};
use posthouse_platform::disk::Disk;
use posthouse_platform::endpoint::Transport;
use posthouse_protocol::frame::Offer;
use posthouse_protocol::govern::check::kept;
use posthouse_protocol::govern::{Check, Governed, said_otherwise};
use posthouse_protocol::id::TransferId;
use posthouse_protocol::job::Mode;
use posthouse_protocol::problem::{Code, Problem};
use rusqlite::Connection;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;

/// Whether the rows that are offered can be taken as they are governed.
pub(super) async fn check(run: &Run, job: &Job, offer: &Offer) -> Result<(), Problem> {
    let row = run.row.clone();
    let (known, landed) =
        run.ctx.store.read(move |db| Ok((exchange::landing_offer(db, &row.id)?, stands_governed(db, &row)?))).await?;
    // An offer that was taken up before had the rules of then; those of now count from the next transfer on.
    if known.is_none_or(|known| known.salt != offer.salt) {
        check_rules(run, job, offer)?;
    }
    // A front-end table can never be taken in full, which is the way out.
    let goes_on = run.row.watermark_from.is_some() || offer.operation.is_none();
    let Some(landed) = landed.filter(|_| goes_on) else { return Ok(()) };
    let now = offer.governed.as_deref().unwrap_or_default();
    match said_otherwise(&landed, now, &Governed::is_mask) {
        None => Ok(()),
        Some(words) => Err(Problem::new(Code::MasksChanged)
            .with("resource", &run.row.resource)
            .with("job", &run.row.job)
            .cause(words)),
    }
}

/// What was done to the rows beside which those of an incremental run are landed. None: it has none, or they go.
fn stands_governed(db: &Connection, row: &Transfer) -> Result<Option<Vec<Governed>>, Problem> {
    match (row.mode, &row.watermark_from) {
        (Mode::Incremental, Some(_)) => exchange::reached_governed(db, &row.job),
        // The first one: what a full run has landed stands all the same.
        (Mode::Incremental, None) => reconcile::last_governed(db, &row.job, &row.peer),
        _ => Ok(None),
    }
}

/// The job's rules as they were when the transfer began: some of its splits may be staged by them. Blocks.
pub(super) fn pinned(ctx: &Context, row: &Transfer, job: &Job, offer: &Offer) -> Result<Vec<Check>, Problem> {
    let dir = ctx.staging().join(row.id.as_str());
    if let Some(checks) = kept_in(&dir)? {
        return Ok(checks);
    }
    if ctx.store.read_now(|db| began_without(db, &row.id, offer))? {
        return Ok(Vec::new());
    }
    let checks = job.check.load()?;
    if !checks.is_empty() {
        keep_in(&ctx.staging(), &dir, &*ctx.world.disk, &checks)?;
    }
    Ok(checks)
}

/// Whether a transfer that has no rules in its folder was taken up without any. An offer is kept also where nothing
/// came of it, such as on a full disk: only what is recorded of its splits says that rows were taken without rules.
fn began_without(db: &Connection, transfer: &TransferId, offer: &Offer) -> Result<bool, Problem> {
    let is_known = exchange::landing_offer(db, transfer)?.is_some_and(|known| known.salt == offer.salt);
    Ok(is_known && exchange::has_entries(db, transfer)? && !exchange::has_checked_rows(db, transfer)?)
}

/// The rules that a transfer's folder has. None: it has none.
fn kept_in(dir: &Path) -> Result<Option<Vec<Check>>, Problem> {
    let path = dir.join(CHECKS);
    match std::fs::read(&path) {
        Ok(bytes) => {
            let lost = || Problem::new(Code::StoreDamaged).with("path", path.display()).cause("they are no rules");
            kept::kept(&bytes).ok_or_else(lost).map(Some)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(storage(&path, &error)),
    }
}

/// Makes rules durable in a transfer's folder, all of them or none.
fn keep_in(root: &Path, dir: &Path, disk: &dyn Disk, checks: &[Check]) -> Result<(), Problem> {
    let (path, bytes) = (dir.join(CHECKS), kept::keep(checks));
    let write = || -> io::Result<()> {
        std::fs::create_dir_all(dir)?;
        disk.sync_folder(root)?;
        let new = path.with_extension("new");
        disk.before_write(&new, bytes.len() as u64)?;
        let mut file = File::create(&new)?;
        file.write_all(&bytes)?;
        disk.sync_file(file.as_fd(), &new)?;
        std::fs::rename(&new, &path)?;
        disk.sync_folder(dir)
    };
    write().map_err(|e| storage(&path, &e))
}

/// What was asked for has to be what comes: an older node does not hear of rules, and says so by not naming them.
fn check_rules(run: &Run, job: &Job, offer: &Offer) -> Result<(), Problem> {
    let governed = offer.governed.as_deref().unwrap_or_default();
    let asked = job.asked_rules().unwrap_or_default();
    let Some(missing) = asked.iter().find(|rule| !governed.contains(rule)) else { return Ok(()) };
    let (provider, missing) = (&run.row.peer, &missing.what);
    if run.row.transport != Some(Transport::Ferry) {
        let cause = format!("it does not apply the job's rule `{missing}`");
        return Err(Problem::new(Code::GoverningUnknown).with("node", provider).cause(cause));
    }
    // What was sealed was sealed by the rules of the resource alone.
    let target = job.into.as_ref().map(Context::target_text).unwrap_or_default();
    let cause = format!(
        "what {provider} sends over a ferry has the rules of its resource: the job's rule `{missing}` cannot be asked for"
    );
    Err(Problem::new(Code::DestinationFailed).with("target", target).cause(cause))
}

/// The file in a transfer's folder that has the rules it began with.
const CHECKS: &str = "checks";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use crate::store::exchange::StagedSplit;
    use posthouse_platform::World;
    use posthouse_platform::disk::RealDisk;
    use posthouse_protocol::govern::{Quality, Rule, Severity};
    use posthouse_protocol::id::GrantId;
    use posthouse_protocol::manifest::{Entry, EntryKind, SplitCounts};
    use std::sync::Arc;

    fn offer(transfer: &TransferId) -> Offer {
        Offer {
            transfer: transfer.clone(),
            grant: GrantId::from_random([0; 16]),
            policy_epoch: 1,
            policy_sequence: 1,
            provider_epoch: 1,
            contract: None,
            catalog: None,
            watermark_to: None,
            salt: [1; 32].into(),
            data_channels: 1,
            digest_key: [2; 32].into(),
            watermark_column: None,
            native: None,
            governed: None,
            operation: None,
            database_line: None,
        }
    }

    #[tokio::test]
    async fn an_offer_of_which_nothing_came_yet_was_not_taken_up_without_rules() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&World::real(), folder.path()).await.unwrap();
        let id = TransferId::from_random([1; 16]);
        let offer = offer(&id);
        let began = || store.read_now(|db| began_without(db, &id, &offer)).unwrap();
        assert!(!began());
        // It is kept where the place to land could not be opened, and the transfer goes on later.
        store.write_now(|tx| exchange::set_landing_offer(tx, &id, &offer)).unwrap();
        assert!(!began());
        let entry = Entry {
            index: 0,
            name: b"split".into(),
            kind: EntryKind::Split(SplitCounts::default()),
            size: 10,
            mode: 0,
            mtime_ns: 0,
            root: None,
            revision: 0,
            same_as: None,
            attributes: None,
        };
        let stage = |staged: StagedSplit| {
            store.write_now(|tx| exchange::put_split_staged(tx, &id, &entry, &staged, 1)).unwrap();
        };
        stage(StagedSplit::default());
        assert!(began());
        stage(StagedSplit { quality: Some(Quality::default()), ..StagedSplit::default() });
        assert!(!began());
    }

    #[test]
    fn rules_stay_what_they_were_whatever_becomes_of_a_list_of_codes() {
        let root = tempfile::tempdir().unwrap();
        let (dir, list) = (root.path().join("tr-1"), root.path().join("codes"));
        std::fs::write(&list, "1\n2\n").unwrap();
        let loaded = || {
            let codes = Rule::Codes(Arc::new(crate::govern::read_codes(&list).unwrap()));
            vec![Check { column: "sex".to_owned(), rules: vec![codes], severity: Severity::Quarantine }]
        };
        assert!(kept_in(&dir).unwrap().is_none());
        let began = loaded();
        keep_in(root.path(), &dir, &RealDisk, &began).unwrap();
        std::fs::write(&list, "1\n2\n9\n").unwrap();
        let kept = kept_in(&dir).unwrap().unwrap();
        assert_eq!(format!("{kept:?}"), format!("{began:?}"));
        assert_ne!(format!("{kept:?}"), format!("{:?}", loaded()));
        std::fs::write(dir.join(CHECKS), b"x").unwrap();
        assert_eq!(kept_in(&dir).unwrap_err().code, Code::StoreDamaged);
    }
}
