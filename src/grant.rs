//! `posthouse grant …`: who may take which resource of whom, which columns and rows of it, and until when.

use crate::coordinator::{ConfigArg, said, time};
use crate::render::Screen;
use crate::{Done, Outcome};
use clap::{Args, Subcommand};
use posthouse_coordinator::admin::{GrantRow, Request};
use posthouse_protocol::govern::ColumnMask;
use posthouse_protocol::id::{GrantId, NodeId, ResourceRef};
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::time::Timestamp;

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Let a node take a resource, or move the end of its grant; prints the grant's id
    Add(AddArgs),
    /// List all grants
    List(ConfigArg),
    /// Withdraw a grant: what runs under it stops within seconds
    Revoke {
        #[command(flatten)]
        config: ConfigArg,
        /// Id of the grant
        id: GrantId,
    },
}

#[derive(Args)]
pub(crate) struct AddArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// Node that may take it
    #[arg(long, value_name = "NODE")]
    consumer: NodeId,
    /// What it may take, as NODE/RESOURCE
    #[arg(long, value_name = "NODE/RESOURCE")]
    resource: ResourceRef,
    /// Last day of the grant in the coordinator's time zone, or an RFC 3339 time
    #[arg(long, value_name = "DATE")]
    until: String,
    /// Columns that may be taken, parted by commas; by default all
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    columns: Option<Vec<String>>,
    /// Rows that may be taken, such as "district = '610102' AND status <> 'draft'"
    #[arg(long = "where", value_name = "FILTER")]
    filter: Option<String>,
    /// Network zone that the consumer must be reached in
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
    /// Relays that it goes through, from the consumer to the provider, parted by commas; by default none
    #[arg(long, value_name = "NODE,NODE", value_delimiter = ',')]
    via: Option<Vec<NodeId>>,
    /// Column that is masked beyond what the resource does itself, as COLUMN=keep:FIRST:LAST, =null, =constant:TEXT,
    /// =hmac-sm3, =blake3 or =sm3; may be given more than once
    #[arg(long = "mask", value_name = "COLUMN=MASK")]
    masks: Vec<ColumnMask>,
}

pub(crate) async fn run(verb: Verb, screen: &Screen) -> Outcome {
    match verb {
        Verb::Add(args) => {
            let running = args.config.load(screen)?;
            let request = Request::GrantAdd {
                until: until(&args.until, &running.config.timezone)?,
                consumer: args.consumer,
                resource: args.resource,
                columns: args.columns.map(|columns| columns.iter().map(|c| c.trim().to_owned()).collect()),
                filter: args.filter,
                zone: args.zone,
                via: args.via,
                masks: Some(args.masks.iter().map(ToString::to_string).collect())
                    .filter(|masks: &Vec<_>| !masks.is_empty()),
            };
            let grant: GrantRow = running.ask(&request).await?;
            if screen.json {
                screen.object(&grant);
            } else {
                screen.line(&grant.id);
            }
            if let Some(before) = grant.until_before {
                let (before, until) = (time(Some(before)), time(Some(grant.until)));
                screen.note(screen.say(
                    &format!("it stood already; it ended at {before} and now ends at {until}"),
                    &format!("该授权已存在；原截止 {before}，现截止 {until}"),
                ));
            }
            Ok(Done::Yes)
        }
        Verb::List(config) => {
            let grants: Vec<GrantRow> = config.load(screen)?.list(&Request::GrantList).await?;
            list(&grants, screen);
            Ok(Done::Yes)
        }
        Verb::Revoke { config, id } => {
            let revoked: GrantId = config.load(screen)?.ask(&Request::GrantRevoke { grant: id }).await?;
            said(screen, &revoked, "withdrawn", "已撤回")
        }
    }
}

fn list(grants: &[GrantRow], screen: &Screen) {
    if screen.json {
        grants.iter().for_each(|grant| screen.object(grant));
        return;
    }
    let rows: Vec<Vec<String>> = grants
        .iter()
        .map(|grant| {
            let withdrawn =
                grant.revoked_at.map(|at| format!("{} {}", screen.say("withdrawn", "已撤回"), time(Some(at))));
            vec![
                grant.id.to_string(),
                grant.consumer.to_string(),
                grant.resource.to_string(),
                withdrawn.unwrap_or_else(|| time(Some(grant.until))),
                grant.columns.as_ref().map_or_else(|| "*".to_owned(), |columns| columns.join(",")),
                grant.filter.clone().unwrap_or_default(),
                via(grant),
                grant.masks.as_ref().map_or_else(String::new, |masks| masks.join(",")),
            ]
        })
        .collect();
    let headings = [
        screen.say("grant", "授权"),
        screen.say("consumer", "使用方"),
        screen.say("resource", "资源"),
        screen.say("until", "有效至"),
        screen.say("columns", "列"),
        screen.say("rows", "行"),
        screen.say("via", "途经"),
        screen.say("masks", "脱敏"),
    ];
    screen.table(&headings, &rows);
}

fn via(grant: &GrantRow) -> String {
    grant.via.iter().flatten().map(NodeId::as_str).collect::<Vec<_>>().join(",")
}

/// The end of a day in the coordinator's time zone, or an instant.
fn until(text: &str, zone: &str) -> Result<Timestamp, Problem> {
    if let Some(at) = Timestamp::parse(text) {
        return Ok(at);
    }
    let wrong = || {
        let what = format!(
            "--until `{text}` is neither a day such as 2026-12-31 nor a time such as 2026-12-31T18:00:00+08:00"
        );
        Problem::new(Code::UsageInvalid).with("what", what)
    };
    // A day is written as a day: what follows it would otherwise be dropped silently.
    if text.len() != "2026-12-31".len() {
        return Err(wrong());
    }
    let day: jiff::civil::Date = text.parse().map_err(|_| wrong())?;
    let next = day.tomorrow().and_then(|next| next.in_tz(zone)).map_err(|_| wrong())?;
    Ok(Timestamp(next.timestamp().as_millisecond() - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_ends_where_the_coordinators_zone_says() {
        assert_eq!(
            until("2026-12-31", "Asia/Shanghai").unwrap(),
            Timestamp::parse("2026-12-31T15:59:59.999Z").unwrap()
        );
        assert_eq!(
            until("2026-12-31T18:00:00+08:00", "UTC").unwrap(),
            Timestamp::parse("2026-12-31T10:00:00Z").unwrap()
        );
        for bad in ["", "tomorrow", "2026-13-01", "2026-12-31 18:00"] {
            assert!(until(bad, "UTC").is_err(), "{bad}");
        }
    }
}
