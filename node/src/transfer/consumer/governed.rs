//! What an offer says of its rows, against what was asked for and what stands: rules that are missing, and masks that are
//! others than those under which the job has landed what it has.

use super::run::Run;
use crate::config::Job;
use crate::context::Context;
use crate::store::exchange;
use posthouse_platform::endpoint::Transport;
use posthouse_protocol::frame::Offer;
use posthouse_protocol::govern::{Governed, said_otherwise};
use posthouse_protocol::job::Mode;
use posthouse_protocol::problem::{Code, Problem};

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
