//! What every database says in the same way of how staged rows come to be those of a table: what became of a set of them,
//! how many may be refused, how many a mirror deletes by itself, and what a dry run tells of it.
//! Deliberately absent: the statements, which stand with each connector.

use crate::{BadRow, Landing, too_many_refused};
use posthouse_protocol::job::Write;
use posthouse_protocol::problem::{Code, Problem};

/// What a set of staged rows became.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) inserted: u64,
    pub(crate) updated: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.inserted += other.inserted;
        self.updated += other.updated;
    }
}

/// How many rows may be refused where a transfer is published.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RefusedMax(Option<u64>);

impl RefusedMax {
    /// `said`: by the job, which may say more than can be held.
    pub(crate) fn new(said: Option<u64>) -> Self {
        Self(said.filter(|max| *max < BAD_ROWS_MAX as u64))
    }
    /// `first` of so many rows that were refused.
    pub(crate) fn check(self, table: &str, rows: usize, first: Option<&BadRow>) -> Result<(), Problem> {
        match rows as u64 <= self.0.unwrap_or(BAD_ROWS_MAX as u64) {
            true => Ok(()),
            false => Err(too_many_refused(table, rows, first, self.0)),
        }
    }
}

/// Refuses to mirror where that would delete more than a tenth of a table.
pub(crate) fn check_mirror(gone: u64, total: u64) -> Result<(), Problem> {
    match gone.saturating_mul(MIRROR_SHARE) > total {
        true => Err(Problem::new(Code::MirrorUnsafe).with("count", gone).with("total", total)),
        false => Ok(()),
    }
}

/// Whether rows are told apart by their contents only.
pub(crate) fn is_by_content(landing: &Landing) -> bool {
    landing.write == Write::Append && landing.contract.key.is_empty() && landing.watermark_column.is_some()
}

/// Of such rows those of another job could not be told apart.
pub(crate) fn check_alone(landing: &Landing, other_job: Option<String>) -> Result<(), Problem> {
    let Some(job) = other_job else { return Ok(()) };
    let cause = format!("the job `{job}` lands there too, and without a key equal rows of both are one");
    Err(Problem::new(Code::KeyMissing).with("table", &landing.table).with("write", landing.write).cause(cause))
}

/// What a dry run says of publishing; none of replacing, which each database does in its own way.
pub(crate) fn told(landing: &Landing) -> Option<String> {
    let key = landing.contract.key.join(", ");
    Some(match (landing.write, landing.contract.key.is_empty()) {
        (Write::Append, false) => format!("append: rows whose key ({key}) is there already change nothing"),
        (Write::Append, true) if landing.watermark_column.is_some() => {
            "append: a row that is there already, equal in all columns, is not added again".to_owned()
        }
        (Write::Append, true) => "append: every row is added".to_owned(),
        (Write::Upsert, _) => format!("upsert: rows are added or changed by their key ({key}), none is deleted"),
        (Write::Mirror, _) => format!(
            "mirror: rows are added, changed or deleted by their key ({key}); over 10 % is never deleted by itself, and \
             nothing where rows are held back"
        ),
        (Write::Replace, _) => return None,
    })
}

/// One in this many may go.
const MIRROR_SHARE: u64 = 10;
/// Refused rows are held in memory until they are kept.
pub(crate) const BAD_ROWS_MAX: usize = 100_000;
