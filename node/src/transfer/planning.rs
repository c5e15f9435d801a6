//! What a transfer would be, told before anything is stored or moves: the provider's answer to the question, and the
//! consumer's own part from it.

use super::consumer::{OfferedRows, open_destination};
use super::{ask, blocking};
use crate::config::{Job, Origin, Target};
use crate::context::Context;
use crate::extract::Extraction;
use crate::front;
use crate::govern::Orders;
use crate::settle::{self, Subject};
use crate::store::{Side, Transfer, exchange};
use posthouse_connectors::folder::{FolderSource, Found};
use posthouse_connectors::front::unfit;
use posthouse_protocol::format::Format;
use posthouse_protocol::frame::{Frame, PlanAnswer, PlanRequest};
use posthouse_protocol::id::{NodeId, ResourceRef, TransferId};
use posthouse_protocol::job::Mode;
use posthouse_protocol::manifest::EntryKind;
use posthouse_protocol::operation;
use posthouse_protocol::problem::{Code, Problem};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Answers another node's question for what it would be offered.
pub(super) async fn answer_plan(ctx: &Arc<Context>, peer: &NodeId, request: PlanRequest) -> PlanAnswer {
    planned(ctx, peer, request)
        .await
        .unwrap_or_else(|problem| PlanAnswer { refused: Some(settle::refused(&problem, None)), ..nothing() })
}

fn nothing() -> PlanAnswer {
    PlanAnswer {
        contract: None,
        native: None,
        entries: 0,
        rows: None,
        bytes: None,
        watermark_to: None,
        watermark_column: None,
        apart: None,
        refused: None,
    }
}

async fn planned(ctx: &Arc<Context>, peer: &NodeId, request: PlanRequest) -> Result<PlanAnswer, Problem> {
    let resource = ResourceRef { node: ctx.name.clone(), resource: request.resource.clone() };
    let permit = ctx.permit(peer, &resource).await?;
    let not_offered = || Problem::new(Code::NotOffered).with("provider", &ctx.name).with("resource", &request.resource);
    let offered = ctx.config().resources.get(&request.resource).ok_or_else(not_offered)?.clone();
    let context = ctx.clone();
    match offered.origin.clone() {
        Origin::Folder { .. } if permit.is_about_rows() => {
            Err(Problem::new(Code::FilterUnsupported).with("resource", resource))
        }
        Origin::Folder { path, options } => {
            blocking(&ctx.world, move || {
                let folder =
                    FolderSource::open(&path, &options).map_err(|problem| problem.with("resource", resource))?;
                let (mut entries, mut bytes) = (0, 0);
                folder.list(&|| context.world.clock.now(), &mut |found| {
                    if let Found::Entry { entry, .. } = found
                        && entry.kind == EntryKind::File
                    {
                        (entries, bytes) = (entries + 1, bytes + entry.size);
                    }
                    Ok(())
                })?;
                Ok(PlanAnswer { entries, bytes: Some(bytes), ..nothing() })
            })
            .await
        }
        Origin::Table { connection, spec } => {
            if offered.exchange.is_some() && request.mode != Mode::Incremental {
                let cause = format!("its rows are changes, and the job has mode = \"{}\"", request.mode);
                return Err(unfit(&spec.resource, cause));
            }
            let is_incremental = request.mode == Mode::Incremental && offered.exchange.is_none();
            let read = posthouse_connectors::Read {
                columns: permit.columns().map(<[String]>::to_vec),
                filter: permit.filter().cloned(),
                from: request.watermark.filter(|_| is_incremental),
                formats: Format::known(request.formats.as_deref().unwrap_or_default()),
                ..Default::default()
            };
            let watermark_column = offered.watermark_offered(&spec).filter(|_| is_incremental);
            blocking(&ctx.world, move || {
                let now = context.world.clock.now();
                let orders = Orders::of(&offered.govern, permit.masks())?;
                let orders = orders.wishing(request.rules.as_deref(), &spec.resource)?;
                let connection = context.connect(&connection)?;
                let extraction = match &offered.exchange {
                    None => Extraction::begin(connection, &spec, &read, &orders, now)?,
                    Some(exchange) => {
                        // What is noted of the rows is nobody's when the question is answered.
                        let noted = Noted(context.front_rows().join(format!("plan-{}.front", hex_of(&context))));
                        let front = (exchange, noted.0.as_path(), context.config().node.spool_max.0);
                        Extraction::begin_front(connection, front, &spec, &read, &orders, now)?
                    }
                };
                let plan = extraction.plan();
                let landed = operation::landed(&plan.contract, operation::COLUMN);
                Ok(PlanAnswer {
                    contract: Some(landed.unwrap_or_else(|| plan.contract.clone())),
                    native: plan.native.clone(),
                    entries: plan.splits.len() as u64,
                    rows: plan.rows_estimate,
                    bytes: plan.bytes_estimate,
                    watermark_to: plan.watermark.clone(),
                    watermark_column,
                    apart: plan.apart.clone(),
                    refused: None,
                })
            })
            .await
        }
    }
}

/// A file that goes with the question; it is open for as long as that is answered.
struct Noted(PathBuf);

impl Drop for Noted {
    fn drop(&mut self) {
        if let Err(problem) = front::remove(&self.0) {
            tracing::debug!(%problem, "What was noted for a plan remains until the next start");
        }
    }
}

fn hex_of(ctx: &Context) -> String {
    hex::encode(ctx.world.random.bytes::<8>())
}

/// Asks the provider of a job that takes.
pub(crate) async fn ask_plan(ctx: &Arc<Context>, job: &Job, resource: &ResourceRef) -> Result<PlanAnswer, Problem> {
    let (name, mode) = (job.name.clone(), job.mode);
    let watermark = match mode {
        Mode::Incremental => ctx.store.read(move |db| exchange::reached(db, &name)).await?,
        _ => None,
    };
    let formats = ctx.formats(job);
    let request = PlanRequest {
        job: job.name.clone(),
        resource: resource.resource.clone(),
        mode,
        watermark,
        formats: (!formats.is_empty()).then(|| formats.iter().map(|format| format.name().to_owned()).collect()),
        rules: job.asked_rules(),
    };
    let answer = match ask(ctx, resource, job, &Frame::Plan(request), ANSWERED_WITHIN).await? {
        Frame::PlanAnswer(answer) => answer,
        _ => {
            let cause = "it answered a plan by something else";
            return Err(Problem::new(Code::FrameInvalid).with("peer", &resource.node).cause(cause));
        }
    };
    if let Some(refused) = &answer.refused {
        let subject = Subject {
            transfer: TransferId::from_random(ctx.world.random.bytes()),
            job: job.name.clone(),
            resource: resource.clone(),
            consumer: ctx.name.clone(),
        };
        return Err(settle::problem_of(refused, &subject));
    }
    if let Some(contract) = &answer.contract {
        posthouse_protocol::batch::check_contract(contract)?;
    }
    Ok(answer)
}

/// What landing it would create or change, in lines. Nothing is changed.
pub(crate) async fn landing_plan(
    ctx: &Arc<Context>,
    job: &Job,
    resource: &ResourceRef,
    answer: &PlanAnswer,
) -> Result<Vec<String>, Problem> {
    let (Some(target @ (Target::Table { .. } | Target::Parquet { .. })), Some(contract)) =
        (&job.into, &answer.contract)
    else {
        return Ok(Vec::new());
    };
    let rows = OfferedRows::new(contract.clone(), answer.native.clone(), answer.watermark_column.clone());
    let id = TransferId::from_random(ctx.world.random.bytes());
    let (peer, now) = (resource.node.clone(), ctx.world.clock.now());
    let row = Transfer::planned(id, Side::Consumer, job.name.clone(), peer, resource.clone(), job.mode, job.write, now);
    let (context, target) = (ctx.clone(), target.clone());
    blocking(&ctx.world, move || open_destination(&context, &row, &target, &rows)?.dry_run()).await
}

const ANSWERED_WITHIN: Duration = Duration::from_secs(120);
