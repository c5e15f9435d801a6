//! 前置表: a table into which an application leaves changes. Reading it, of each key the last unread row, is [`source`];
//! what was read stands in a file, see [`rows`]; flags are written back in [`back`], and rows that were [`kept`] are
//! deleted in [`purge`].
//!
//! What holds: a flag is set only of a row whose receipt is stored, and only where the row still is what was read; rows
//! are purged only by what such a file named. A run reads nothing before the flags of the runs before it are written back,
//! so that no row is taken twice, and none is overtaken by an older one of its key.

mod back;
mod kept;
mod key;
mod purge;
mod rows;
mod source;

pub(crate) use back::{run, sweep};
pub(crate) use rows::{bytes_of, remove};
pub(crate) use source::FrontSource;

use crate::config::Exchange;
use crate::context::Context;
use crate::settle::Subject;
use crate::store::front::{self, FrontState};
use arrow::array::{Array, Int64Array, StringArray};
use arrow::record_batch::RecordBatch;
use posthouse_connectors::BadRow;
use posthouse_connectors::front::unfit;
use posthouse_protocol::batch::BatchError;
use posthouse_protocol::frame::Request;
use posthouse_protocol::id::{ResourceId, TransferId};
use posthouse_protocol::job::{Mode, Write};
use posthouse_protocol::manifest::Operations;
use posthouse_protocol::operation::{self, Operation};
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::schema::Contract;
use rows::FrontRows;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Notify, OwnedMutexGuard};

type SharedRows = Arc<Mutex<FrontRows>>;

/// Whose turn it is at each table, and the bell for those who keep their flags.
#[derive(Default)]
pub struct Front {
    turns: Mutex<BTreeMap<ResourceId, Arc<tokio::sync::Mutex<()>>>>,
    bell: Notify,
}

impl Front {
    /// Nobody else reads the table or writes its flags back until this is dropped.
    async fn turn(&self, resource: &ResourceId) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.entry(resource.clone()).or_default().clone()
        };
        turn.lock_owned().await
    }
    /// There may be something to do.
    pub(crate) fn ring(&self) {
        self.bell.notify_one();
    }
}

/// A run that may read a front-end table. What it has noted goes with it, unless the run is stored.
pub(crate) struct Entered {
    pub path: PathBuf,
    is_stored: bool,
    _turn: OwnedMutexGuard<()>,
}

impl Entered {
    /// The store knows of the run: its file stays.
    pub(crate) fn stored(mut self) {
        self.is_stored = true;
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        if !self.is_stored
            && let Err(problem) = remove(&self.path)
        {
            tracing::debug!(%problem, "What was read of a front-end table remains until the next start");
        }
    }
}

/// Lets a run at a table, once what is left to be done for the runs before it is done; or says why it may not.
pub(crate) async fn enter(
    ctx: &Arc<Context>,
    exchange: &Exchange,
    request: &Request,
    subject: &Subject,
    knows_operations: bool,
) -> Result<Entered, Problem> {
    let refuse = |cause: String| unfit(&exchange.spec.resource, cause);
    if (request.mode, request.write) != (Mode::Incremental, Write::Upsert) {
        let cause = format!(
            "its rows are changes, which are taken by `mode = \"incremental\"` with `write = \"upsert\"`, and the job has {} with {}",
            request.mode, request.write
        );
        return Err(refuse(cause));
    }
    if !knows_operations {
        let cause = format!("{} cannot be told what rows do: its version is older", subject.consumer);
        return Err(refuse(cause));
    }
    let turn = ctx.front.turn(&request.resource).await;
    let (resource, consumer, job) = (subject.resource.clone(), subject.consumer.clone(), subject.job.clone());
    let (others, open, runs) = ctx
        .store
        .read(move |db| {
            Ok((
                front::other_consumers(db, &resource, &consumer)?,
                front::other_open(db, &resource.resource, &consumer, &job)?,
                front::list(db, Some(&resource.resource))?,
            ))
        })
        .await?;
    // One flag cannot say who has read a row.
    if let Some(other) = others.iter().find(|other| ctx.authority.permit(other, &subject.resource, None).is_ok()) {
        return Err(refuse(format!(
            "{other} takes its rows, each of which is given once: only one consumer can have a grant"
        )));
    }
    if let Some((consumer, job)) = open {
        return Err(refuse(format!("the job {job} of {consumer} is taking its rows: run this one when it has ended")));
    }
    for run in runs.into_iter().filter(|run| run.state == FrontState::Receipted) {
        back::write_back(ctx, &run.transfer, &run.resource).await?;
    }
    Ok(Entered { path: path(ctx, &subject.transfer), is_stored: false, _turn: turn })
}

/// Where it stands what a transfer has read.
pub(crate) fn path(ctx: &Context, transfer: &TransferId) -> PathBuf {
    ctx.front_rows().join(format!("{transfer}{SUFFIX}"))
}

/// Stands behind all that is done to rows before they are sealed: notes which of them leave, and takes their numbers off.
pub(crate) struct Tap {
    rows: SharedRows,
    number: usize,
    operation: usize,
}

impl Tap {
    /// The contract becomes that of rows as they leave.
    pub(crate) fn new(rows: SharedRows, contract: &mut Contract) -> Result<Self, Problem> {
        let (number, operation) = (contract.position(source::NUMBER), contract.position(operation::COLUMN));
        let (Some(number), Some(operation)) = (number, operation) else {
            return Err(
                Problem::new(Code::InsideFailed).cause("what rows of a front-end table do was lost on their way")
            );
        };
        if number + 1 != contract.items.len() || operation + 1 != number {
            return Err(Problem::new(Code::InsideFailed).cause("columns of a front-end table are out of order"));
        }
        contract.items.truncate(number);
        Ok(Self { rows, number, operation })
    }

    /// Rows as they leave; what they do is counted.
    pub(crate) fn take(&self, record: &RecordBatch, counts: &mut Operations) -> Result<RecordBatch, Problem> {
        let odd = || Problem::new(Code::InsideFailed).cause("a column of a front-end table is of another type");
        let numbers = record.columns().get(self.number).and_then(|column| column.as_any().downcast_ref::<Int64Array>());
        let letters =
            record.columns().get(self.operation).and_then(|column| column.as_any().downcast_ref::<StringArray>());
        let (numbers, letters) = (numbers.ok_or_else(odd)?, letters.ok_or_else(odd)?);
        for letter in letters.iter().flatten() {
            counts.add(Operation::of_letter(letter).ok_or_else(odd)?);
        }
        source::locked(&self.rows).left(numbers.values())?;
        let kept: Vec<usize> = (0..self.number).collect();
        record.project(&kept).map_err(|error| Problem::from(BatchError::from(error)))
    }
}

/// A row that stays behind, without its number: that is another one in the next run, and the row is the same.
pub(crate) fn held_back(row: BadRow) -> BadRow {
    BadRow { original: unnumbered(row.original), ..row }
}

fn unnumbered(original: String) -> String {
    let behind = format!(",\"{}\":", source::NUMBER);
    let Some((row, number)) = original.rsplit_once(behind.as_str()) else { return original };
    let number = number.strip_suffix('}');
    match number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit())) {
        true => format!("{row}}}"),
        false => original,
    }
}

const SUFFIX: &str = ".front";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_stays_behind_is_the_same_in_each_run() {
        for (original, expected) in [
            (
                "{\"id\":1,\"posthouse_operation\":\"I\",\"posthouse_row\":17}",
                "{\"id\":1,\"posthouse_operation\":\"I\"}",
            ),
            ("{\"name\":\",\\\"posthouse_row\\\":17}\"}", "{\"name\":\",\\\"posthouse_row\\\":17}\"}"),
            ("{\"id\":1}", "{\"id\":1}"),
        ] {
            assert_eq!(unnumbered(original.to_owned()), expected);
        }
    }
}
