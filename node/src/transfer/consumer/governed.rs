//! What an offer says of its rows, against what was asked for and what stands: rules that are missing, and masks that are
//! others than those under which the job has landed what it has. And the job's own rules, which stay those that a transfer
//! began with.

use super::run::Run;
use crate::config::Job;
use crate::context::Context;
use crate::seal::storage;
use crate::store::{Transfer, exchange};
use posthouse_platform::endpoint::Transport;
use posthouse_protocol::frame::Offer;
use posthouse_protocol::govern::check::kept;
use posthouse_protocol::govern::{Check, Governed, said_otherwise};
use posthouse_protocol::job::Mode;
use posthouse_protocol::problem::{Code, Problem};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

/// Whether the rows that are offered can be taken as they are governed.
pub(super) async fn check(run: &Run, job: &Job, offer: &Offer) -> Result<(), Problem> {
    let (id, name) = (run.row.id.clone(), run.row.job.clone());
    let (known, landed) = run
        .ctx
        .store
        .read(move |db| Ok((exchange::landing_offer(db, &id)?, exchange::reached_governed(db, &name)?)))
        .await?;
    // An offer that was taken up before had the rules of then; those of now count from the next transfer on.
    if known.is_none_or(|known| known.salt != offer.salt) {
        check_rules(run, job, offer)?;
    }
    let goes_on = run.row.mode == Mode::Incremental && run.row.watermark_from.is_some();
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

/// The job's rules as they were when the transfer began: some of its splits may be staged by them. Blocks.
pub(super) fn pinned(ctx: &Context, row: &Transfer, job: &Job, offer: &Offer) -> Result<Vec<Check>, Problem> {
    let dir = ctx.staging().join(row.id.as_str());
    let path = dir.join(CHECKS);
    match std::fs::read(&path) {
        Ok(bytes) => {
            let lost = || Problem::new(Code::StoreDamaged).with("path", path.display()).cause("they are no rules");
            return kept::kept(&bytes).ok_or_else(lost);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(storage(&path, &error)),
    }
    let (known, checked) = ctx
        .store
        .read_now(|db| Ok((exchange::landing_offer(db, &row.id)?, exchange::has_checked_rows(db, &row.id)?)))?;
    if known.is_some_and(|known| known.salt == offer.salt) && !checked {
        // It was taken up without any.
        return Ok(Vec::new());
    }
    let checks = job.check.load()?;
    if checks.is_empty() {
        return Ok(checks);
    }
    let (bytes, disk) = (kept::keep(&checks), &*ctx.world.disk);
    let write = || -> io::Result<()> {
        std::fs::create_dir_all(&dir)?;
        disk.sync_folder(&ctx.staging())?;
        let new = path.with_extension("new");
        disk.before_write(&new, bytes.len() as u64)?;
        let mut file = File::create(&new)?;
        file.write_all(&bytes)?;
        disk.sync_file(file.as_fd(), &new)?;
        std::fs::rename(&new, &path)?;
        disk.sync_folder(&dir)
    };
    write().map_err(|e| storage(&path, &e))?;
    Ok(checks)
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
