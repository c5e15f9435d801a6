//! Where a transfer lands: opened from the job's target and the provider's offer.

use super::committing::may_pass;
use crate::config::{Job, Target};
use crate::context::Context;
use crate::stage::{Place, Stage, TableStage};
use crate::store::Transfer;
use crate::transfer::blocking;
use posthouse_connectors::folder::FolderDestination;
use posthouse_connectors::{Destination, Landing, parquet};
use posthouse_protocol::frame::Offer;
use posthouse_protocol::job::{Mode, Write};
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::schema::Contract;
use std::sync::Arc;

/// Opens where a transfer lands: its folder, or its table with the node's own folder for splits.
pub(super) async fn open_stage(
    ctx: &Arc<Context>,
    row: &Transfer,
    job: &Job,
    offer: &Offer,
) -> Result<Arc<Stage>, Problem> {
    let (ctx, row, job, offer) = (ctx.clone(), row.clone(), job.clone(), offer.clone());
    let world = ctx.world.clone();
    blocking(&world, move || {
        let target = job.into.as_ref().ok_or_else(|| Problem::new(Code::InsideFailed))?;
        let place = match (target, &offer.contract) {
            (Target::Folder { path }, None) => {
                Place::Folder(FolderDestination::open(path, row.write, &row.id, ctx.world.disk.clone())?)
            }
            (Target::Table { .. } | Target::Parquet { .. }, Some(contract)) => {
                let mark = offer.watermark_column.clone();
                let mut destination = open_destination(&ctx, &row, target, contract, mark.clone())?;
                let ready = can_tell_overlap(&row, target, contract, mark.as_deref());
                if let Err(problem) = ready.and_then(|()| destination.prepare())
                    && (may_pass(&problem) || destination.published()?.is_none())
                {
                    // What was published stands, whatever became of the table since.
                    return Err(problem);
                }
                let key = offer.digest_key.into();
                let disk = ctx.world.disk.clone();
                Place::Table(TableStage::open(&ctx.staging(), &row.id, disk, contract.clone(), key, destination)?)
            }
            (_, contract) => {
                let (is, lands) = if contract.is_some() { ("a table", "files") } else { ("a folder", "a table") };
                return Err(Problem::new(Code::DestinationFailed)
                    .with("target", Context::target_text(target))
                    .cause(format!("the resource is {is}, and this job lands {lands}")));
            }
        };
        Ok(Arc::new(Stage::new(row.id.clone(), row.job.clone(), place)))
    })
    .await
}

/// An incremental run reads rows around the last mark again. Where nothing would tell which ones stand already,
/// they would be doubled.
fn can_tell_overlap(row: &Transfer, target: &Target, contract: &Contract, mark: Option<&str>) -> Result<(), Problem> {
    let by_key = !contract.key.is_empty() && !matches!(target, Target::Parquet { .. });
    let by_mark = mark.is_some_and(|mark| contract.position(mark).is_some());
    if row.mode != Mode::Incremental || row.write != Write::Append || by_key || by_mark {
        return Ok(());
    }
    let cause = "an incremental append tells rows that come again by a key or by the watermark column, and this job is given neither";
    Err(Problem::new(Code::KeyMissing)
        .with("table", Context::target_text(target))
        .with("write", row.write)
        .cause(cause))
}

/// The table that a job lands in, for one transfer; `mark` is the watermark column of an incremental one. Blocks.
pub(crate) fn open_destination(
    ctx: &Context,
    row: &Transfer,
    target: &Target,
    contract: &Contract,
    mark: Option<String>,
) -> Result<Box<dyn Destination>, Problem> {
    let mark = mark.filter(|mark| contract.position(mark).is_some());
    let landing = |table: String| Landing {
        transfer: row.id.clone(),
        job: row.job.clone(),
        table,
        write: row.write,
        contract: contract.clone(),
        watermark_column: mark.clone(),
        node_epoch: ctx.epoch,
        work_dir: ctx.staging().join(row.id.as_str()),
    };
    match target {
        Target::Table { connection, table } => ctx.connect(connection)?.destination(&landing(table.clone())),
        Target::Parquet { path } => parquet::destination(path, &landing(row.resource.resource.to_string())),
        Target::Folder { .. } => Err(Problem::new(Code::InsideFailed).cause("a folder is no table")),
    }
}
