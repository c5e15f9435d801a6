//! Where a transfer lands: opened from the job's target and the provider's offer.

use super::SUCCESSORS_MAX;
use super::committing::may_pass;
use super::governed;
use super::settling::discard_landing;
use crate::config::{Job, KeptVersions, Target};
use crate::context::Context;
use crate::spent::What;
use crate::stage::{Place, RowForm, Stage, TableStage};
use crate::store::{Transfer, exchange, transfers};
use crate::transfer::blocking;
use posthouse_connectors::folder::{FolderDestination, Versions};
use posthouse_connectors::{Destination, Landing, parquet};
use posthouse_platform::settings::Interval;
use posthouse_protocol::format::Native;
use posthouse_protocol::frame::Offer;
use posthouse_protocol::govern::{Check, Checker, GovernError};
use posthouse_protocol::job::{Mode, Write};
use posthouse_protocol::operation;
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
        let _waits = ctx.meters(&row.id).wait(What::Destination);
        let target = job.into.as_ref().ok_or_else(|| Problem::new(Code::InsideFailed))?;
        let place = match (target, &offer.contract) {
            (Target::Folder { path, versions }, None) => {
                let folder = FolderDestination::open(path, row.write, &row.id, ctx.world.disk.clone())?;
                Place::Folder(match versions {
                    Some(kept) => folder.keeping(&versions_of(&row, kept))?,
                    None => folder,
                })
            }
            (Target::Table { .. } | Target::Parquet { .. }, Some(contract)) => {
                if let Some(column) = &offer.operation
                    && operation::landed(contract, column).is_none()
                {
                    let cause = format!("`{column}` is to say what its rows do, and is no such column of theirs");
                    return Err(Problem::new(Code::Mismatch).with("peer", &row.peer).cause(cause));
                }
                let rows = OfferedRows::of(&offer, contract);
                let mut destination = open_destination(&ctx, &row, target, &rows)?;
                let ready = can_tell_overlap(&row, target, &rows);
                let follows = ready.is_ok() && takes_over(&ctx, &row, &job, &offer, destination.as_mut())?;
                if let Err(problem) = ready.and_then(|()| destination.prepare())
                    && (may_pass(&problem) || destination.published()?.is_none())
                {
                    // What was published stands, whatever became of the table since.
                    return Err(problem);
                }
                let shape = rows.native.as_ref().map(|native| native.shape(contract)).transpose()?;
                // What was offered in an engine's own form was asked for before the job had rules.
                let checks = if shape.is_none() { governed::pinned(&ctx, &row, &job, &offer)? } else { Vec::new() };
                let checker = checker(&checks, target, contract)?;
                let (contract, digest_key) = (contract.clone(), offer.digest_key.into());
                let has_operations = offer.operation.is_some();
                let form = RowForm { contract, shape, digest_key, checker, has_operations };
                Place::Table(TableStage::open(
                    &ctx.staging(),
                    &row.id,
                    ctx.world.disk.clone(),
                    form,
                    destination,
                    follows,
                )?)
            }
            (_, contract) => {
                let (is, lands) = if contract.is_some() { ("a table", "files") } else { ("a folder", "a table") };
                return Err(Problem::new(Code::DestinationFailed)
                    .with("target", Context::target_text(target))
                    .cause(format!("the resource is {is}, and this job lands {lands}")));
            }
        };
        let stage = Stage::new(row.id.clone(), row.job.clone(), place);
        Ok(Arc::new(stage.remembering(ctx.remembered.clone())))
    })
    .await
}

/// Each job has a folder of its own among the older versions: how long they are kept is a matter of the job.
pub(super) fn versions_of(row: &Transfer, kept: &KeptVersions) -> Versions {
    Versions { folder: kept.path.join(row.job.as_str()), begun: row.created, keep_ms: kept.keep.map(Interval::as_ms) }
}

/// Takes over what the transfers before this one have staged: of the latest that has something, where its rows were
/// the same in kind. What another one has is dropped. Whether this one follows any.
fn takes_over(
    ctx: &Context,
    row: &Transfer,
    job: &Job,
    offer: &Offer,
    destination: &mut dyn Destination,
) -> Result<bool, Problem> {
    let Some(target) = &job.into else { return Ok(false) };
    let (mut next, mut took) = (row.succeeds.clone(), false);
    for _ in 0..SUCCESSORS_MAX {
        let Some(id) = next else { break };
        let found = ctx.store.read_now(|db| {
            let checked = exchange::has_checked_rows(db, &id)?;
            Ok((transfers::get(db, &id)?, exchange::landing_offer(db, &id)?, checked))
        })?;
        let (Some(failed), before, checked) = found else { break };
        next = failed.succeeds.clone();
        let Some(before) = before else { continue };
        let alike = (failed.write, failed.mode, &before.contract, &before.native, &before.digest_key)
            == (row.write, row.mode, &offer.contract, &offer.native, &offer.digest_key)
            && before.operation == offer.operation;
        // What is staged is what passed the rules of then.
        if alike && !took && !checked && job.check.is_empty() {
            took = destination.take_over(&failed.id)?;
        } else {
            discard_landing(ctx, &failed, target, false)?;
        }
    }
    Ok(row.succeeds.is_some())
}

/// The job's rules for rows of this contract. A column that does not come cannot be checked.
fn checker(checks: &[Check], target: &Target, contract: &Contract) -> Result<Option<Checker>, Problem> {
    if checks.is_empty() {
        return Ok(None);
    }
    let refused = |error: GovernError| {
        Problem::new(Code::SchemaDrift).with("table", Context::target_text(target)).cause(format!("`check`: {error}"))
    };
    Checker::new(checks, contract, true).map(Some).map_err(refused)
}

/// An incremental run reads rows around the last mark again. Where nothing would tell which ones stand already,
/// they would be doubled.
fn can_tell_overlap(row: &Transfer, target: &Target, rows: &OfferedRows) -> Result<(), Problem> {
    let by_key = !rows.contract.key.is_empty() && !matches!(target, Target::Parquet { .. });
    let by_mark = rows.mark.is_some();
    if row.mode != Mode::Incremental || row.write != Write::Append || by_key || by_mark {
        return Ok(());
    }
    let cause = "an incremental append tells rows that come again by a key or by the watermark column, and this job is given neither";
    Err(Problem::new(Code::KeyMissing)
        .with("table", Context::target_text(target))
        .with("write", row.write)
        .cause(cause))
}

/// What a provider says of the rows that it gives.
#[derive(Debug, Clone)]
pub(crate) struct OfferedRows {
    contract: Contract,
    /// The engine's own form that they come in, where it is not Arrow's.
    native: Option<Native>,
    /// The watermark column of an incremental transfer, where it is among the contract's.
    mark: Option<String>,
    /// Of a front-end table: the column behind the contract's that says what a row does.
    operation: Option<String>,
}

impl OfferedRows {
    pub(super) fn of(offer: &Offer, contract: &Contract) -> Self {
        let landed = offer.operation.as_ref().and_then(|column| operation::landed(contract, column));
        let operation = offer.operation.clone().filter(|_| landed.is_some());
        let contract = landed.unwrap_or_else(|| contract.clone());
        Self { operation, ..Self::new(contract, offer.native.clone(), offer.watermark_column.clone()) }
    }
    pub(crate) fn new(contract: Contract, native: Option<Native>, mark: Option<String>) -> Self {
        let mark = mark.filter(|mark| contract.position(mark).is_some());
        Self { contract, native, mark, operation: None }
    }
}

/// The table that a job lands in, for one transfer. Blocks.
pub(crate) fn open_destination(
    ctx: &Context,
    row: &Transfer,
    target: &Target,
    rows: &OfferedRows,
) -> Result<Box<dyn Destination>, Problem> {
    let landing = |table: String| Landing {
        transfer: row.id.clone(),
        job: row.job.clone(),
        table,
        write: row.write,
        contract: rows.contract.clone(),
        native: rows.native.clone(),
        watermark_column: rows.mark.clone(),
        operation: rows.operation.clone(),
        node_epoch: ctx.epoch,
        work_dir: ctx.staging().join(row.id.as_str()),
    };
    match target {
        Target::Table { connection, table, names } => {
            let mut landing = landing(table.clone());
            landing.contract = names.of(&landing.contract).map_err(|twice| {
                let problem = Problem::new(Code::DestinationFailed).with("target", Context::target_text(target));
                problem.cause(format!("two of its columns would be named `{twice}`: say `names = \"keep\"`"))
            })?;
            landing.watermark_column.iter_mut().for_each(|name| names.change(name));
            ctx.connect(connection)?.destination(&landing)
        }
        Target::Parquet { path } => parquet::destination(path, &landing(row.resource.resource.to_string())),
        Target::Folder { .. } => Err(Problem::new(Code::InsideFailed).cause("a folder is no table")),
    }
}
