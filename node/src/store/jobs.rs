//! What is remembered of jobs beyond their configuration: paused, removed, and when they were last due.

use super::failed;
use posthouse_protocol::id::JobId;
use posthouse_protocol::problem::Problem;
use posthouse_protocol::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobState {
    pub paused: bool,
    /// Taken out by an operator although it stands in the configuration: it does not run.
    pub removed: bool,
    /// The latest due time that was acted on (run, or left out on purpose).
    pub last_due: Option<Timestamp>,
}

pub fn get(db: &Connection, job: &JobId) -> Result<JobState, Problem> {
    let found = db
        .query_row("SELECT paused, removed, last_due FROM jobs WHERE name = ?1", [job.as_str()], |row| {
            Ok(JobState {
                paused: row.get(0)?,
                removed: row.get(1)?,
                last_due: row.get::<_, Option<i64>>(2)?.map(Timestamp),
            })
        })
        .optional()
        .map_err(failed)?;
    Ok(found.unwrap_or_default())
}

pub fn set(tx: &Transaction<'_>, job: &JobId, state: &JobState) -> Result<(), Problem> {
    tx.execute(
        "INSERT INTO jobs VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET paused = excluded.paused,
         removed = excluded.removed, last_due = excluded.last_due",
        params![job.as_str(), state.paused, state.removed, state.last_due.map(|t| t.0)],
    )
    .map_err(failed)?;
    Ok(())
}
