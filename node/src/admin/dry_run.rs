//! What a run of a job would do: who lets it, how its provider is reached, what it would offer, and what would be
//! created or changed here. Nothing is stored and nothing moves.

use super::jobs::{find, kind, resource};
use crate::config::{Job, Kind};
use crate::context::Context;
use crate::relay;
use crate::transfer::planning::{ask_plan, landing_plan};
use posthouse_connectors::types::type_name;
use posthouse_platform::admin_socket::Items;
use posthouse_protocol::frame::{PlanAnswer, Relay};
use posthouse_protocol::id::{JobId, ResourceRef};
use posthouse_protocol::job::Mode;
use posthouse_protocol::problem::Problem;
use serde_json::{Value, json as value};
use std::sync::Arc;

pub(super) async fn dry_run(context: &Arc<Context>, name: &JobId, items: &mut Items) -> Result<Value, Problem> {
    let job = find(context, name)?;
    let into = job.into.as_ref().map(Context::target_text).unwrap_or_default();
    items.send(&format!("{} {} {into}", kind(&job), resource(&job))).await?;
    let (consumer, wanted) = match &job.kind {
        Kind::Take { resource } => (context.name.clone(), resource.clone()),
        Kind::Push { resource, to } => {
            (to.clone(), ResourceRef { node: context.name.clone(), resource: resource.clone() })
        }
        Kind::Accept { from, .. } => {
            items.send(&format!("started by {from}; grants are checked when it pushes")).await?;
            return Ok(value!({ "job": name, "possible": true }));
        }
    };
    let permit = context.authority.permit(&consumer, &wanted, None)?;
    items.send(&format!("granted by {} until {}", permit.grant(), permit.until())).await?;
    let peer = job.peer().clone();
    relay::goes_as_configured(context, &job, &consumer, &wanted)?;
    let asked = Relay { consumer, resource: wanted.clone(), job: job.name.clone(), transfer: None };
    let connection = relay::reach(context, &asked).await?;
    let how = connection
        .relayed()
        .map_or_else(|| format!("at {}", connection.remote_address()), |relayed| format!("through {relayed}"));
    items.send(&format!("{peer} is reached {how} over {:?}", connection.transport())).await?;
    let free = context.disk_free().await;
    items.send(&format!("{free} bytes are free in the data folder")).await?;
    if let Kind::Take { .. } = job.kind
        && job.mode != Mode::Observe
    {
        let answer = ask_plan(context, &job, &wanted).await?;
        for line in offered(&job, &answer) {
            items.send(&line).await?;
        }
        for line in landing_plan(context, &job, &wanted, &answer).await? {
            items.send(&line).await?;
        }
    }
    Ok(value!({ "job": name, "possible": true }))
}

/// What the provider would offer, in lines.
fn offered(job: &Job, answer: &PlanAnswer) -> Vec<String> {
    let number =
        |estimate: Option<u64>| estimate.map_or_else(|| "an unknown number of".to_owned(), |n| format!("about {n}"));
    let Some(contract) = &answer.contract else {
        return vec![format!("{} files, {} bytes", answer.entries, answer.bytes.unwrap_or_default())];
    };
    let mut lines = vec![format!(
        "{} rows, {} bytes at the source, in {} splits",
        number(answer.rows),
        number(answer.bytes),
        answer.entries
    )];
    if job.mode == Mode::Incremental {
        let to = answer.watermark_to.as_ref().map_or_else(|| "nothing yet".to_owned(), ToString::to_string);
        lines.push(format!("by the watermark {} up to {to}", answer.watermark_column.as_deref().unwrap_or("-")));
    }
    lines.push(match (&answer.native, &answer.apart) {
        (Some(native), _) => format!("rows pass through as {}, untouched", native.format),
        (None, Some(why)) => format!("rows are taken apart: {why}"),
        (None, None) => "rows travel as Arrow".to_owned(),
    });
    for (index, item) in contract.items.iter().enumerate() {
        let there = answer.native.as_ref().and_then(|native| native.columns.get(index));
        let there = there.map(|there| format!(", {there} at the source")).unwrap_or_default();
        let null = if item.nullable { "" } else { ", never NULL" };
        let key = if contract.key.contains(&item.name) { ", key" } else { "" };
        lines.push(format!("column {}: {}{there}{null}{key}", item.name, type_name(item.r#type)));
    }
    lines
}
