//! The loop that keeps the coordinator at hand: connect, beat, fetch, renew, serve notices; again with
//! back-off when it is lost.

use super::Centre;
use crate::context::Context;
use crate::join;
use crate::store::meta::{self, StoredPolicy};
use crate::store::statements;
use crate::store::transfers;
use crate::transfer::Live;
use posthouse_platform::endpoint::{Channel, Connection};
use posthouse_platform::frames;
use posthouse_platform::identity::{Identity, TlsKey};
use posthouse_protocol::centre::{CentreAnswer, CentreRequest, Heartbeat, Progress, Renew};
use posthouse_protocol::frame::{Frame, Hello, Purpose};
use posthouse_protocol::id::JobId;
use posthouse_protocol::job::State;
use posthouse_protocol::policy::Refreshed;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::time::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::task::TaskTracker;

/// Fetches the policy because of a doubt: a grant that somebody counts on is not in it. At most once a
/// second, however many ask; without a connection the policy in force has the last word.
pub async fn doubt(context: &Arc<Context>) {
    let centre = &context.centre;
    let connection = centre.connection.borrow().clone();
    let Some(connection) = connection.filter(|connection| !connection.is_closed() && centre.may_doubt()) else {
        return;
    };
    if let Err(problem) = fetch_policy(context, centre, &connection).await {
        tracing::debug!(%problem, "The policy was not fetched anew");
    }
}

/// Runs until the node drains.
pub async fn keep(context: Arc<Context>) {
    let centre = context.centre.clone();
    let mut failures = 0u32;
    loop {
        let outcome = tokio::select! {
            biased;
            () = context.drain.cancelled() => break,
            outcome = once(&context, &centre, &mut failures) => outcome,
        };
        centre.connection.send_replace(None);
        if let Err(problem) = outcome {
            centre.failed(&problem);
            bar(&context, &problem);
            if failures == 0 {
                tracing::warn!(%problem, "The coordinator is not reached; exchange goes on, statements wait");
            } else {
                tracing::debug!(%problem, failures, "The coordinator is still not reached");
            }
        }
        failures = failures.saturating_add(1);
        tokio::select! {
            biased;
            () = context.drain.cancelled() => break,
            () = tokio::time::sleep(back_off(&context, failures)) => {}
        }
    }
    if let Some(connection) = centre.connection.send_replace(None) {
        connection.close(0, "the node stops");
    }
}

/// Rings the authority's bell when the policy turns stale, however quiet the line is.
pub async fn watch_staleness(context: Arc<Context>) {
    loop {
        tokio::select! {
            biased;
            () = context.drain.cancelled() => return,
            () = tokio::time::sleep(STALENESS_LOOK) => {}
        }
        context.authority.look();
    }
}

/// One connection, from dial to loss.
async fn once(context: &Arc<Context>, centre: &Arc<Centre>, failures: &mut u32) -> Result<(), Problem> {
    let config = context.config();
    let identity = centre.identity();
    if identity.expired(context.world.clock.now()) {
        tracing::info!(expired_at = %identity.not_after(), "The certificate has expired; coming back by the registered key");
        let renewed =
            join::come_back(&context.world, &config, &*centre.endpoint, centre.name(), &identity, &*context.signer)
                .await?;
        centre.adopt(renewed).await?;
    }
    let connection = centre.dial(&config).await?;
    tracing::info!(coordinator = %centre.name(), transport = ?connection.transport(), "Connected to the coordinator");
    centre.connection.send_replace(Some(connection.clone()));
    let tasks = TaskTracker::new();
    let notices = serve_notices(context.clone(), connection.clone(), tasks.clone());
    let outcome = tokio::select! {
        biased;
        outcome = beat(context, centre, &connection, failures) => outcome,
        () = notices => Err(lost(centre)),
        () = connection.closed() => Err(lost(centre)),
    };
    connection.close(0, "lost");
    outcome
}

/// Heartbeats, policy and renewal over one connection; ends with what went wrong.
async fn beat(
    context: &Arc<Context>,
    centre: &Arc<Centre>,
    connection: &Arc<dyn Connection>,
    failures: &mut u32,
) -> Result<(), Problem> {
    let mut reported_to = Timestamp(i64::MIN);
    let mut renew_at = renewal(context, centre, Duration::ZERO);
    fetch_policy(context, centre, connection).await?;
    loop {
        reported_to = heartbeat(context, centre, connection, reported_to).await?;
        *failures = 0;
        let next = tokio::time::Instant::now() + context.authority.heartbeat();
        loop {
            tokio::select! {
                biased;
                () = centre.policy_changed.notified() => fetch_policy(context, centre, connection).await?,
                () = tokio::time::sleep_until(renew_at) => {
                    let wait = match renew(context, centre, connection).await {
                        Ok(()) => Duration::ZERO,
                        Err(problem) => {
                            tracing::warn!(%problem, "The certificate was not renewed; it is tried again");
                            centre.failed(&problem);
                            RENEW_AGAIN
                        }
                    };
                    renew_at = renewal(context, centre, wait);
                }
                () = tokio::time::sleep_until(next) => break,
            }
        }
    }
}

/// When to renew next: once a third of the certificate's life has passed, not before `wait`.
fn renewal(context: &Context, centre: &Centre, wait: Duration) -> tokio::time::Instant {
    let identity = centre.identity();
    let life_ms = identity.not_after().since_ms(identity.not_before());
    let due_ms = identity.not_before().plus_ms(life_ms / 3).since_ms(context.world.clock.now());
    let due = Duration::from_millis(u64::try_from(due_ms).unwrap_or(0));
    // A wall clock that jumps is noticed within the hour.
    tokio::time::Instant::now() + due.max(wait).min(RENEW_LOOK)
}

async fn renew(context: &Arc<Context>, centre: &Arc<Centre>, connection: &Arc<dyn Connection>) -> Result<(), Problem> {
    let old = centre.identity();
    if !old.renew_due(context.world.clock.now()) {
        return Ok(());
    }
    let key = TlsKey::made_with(&*context.world.random)?;
    let request = CentreRequest::Renew(Renew { csr: key.request(old.node())?.into() });
    let renewed = match centre.ask_over(&**connection, request).await? {
        CentreAnswer::Renewed(renewed) => renewed,
        other => return Err(join::unexpected(centre.name(), &other)),
    };
    let identity = Identity::new(renewed.chain.into_iter().map(Vec::from).collect(), key, old.authority().to_vec())?;
    if identity.node() != old.node() {
        let cause = format!("it certified {} instead", identity.node());
        return Err(Problem::new(Code::WrongAuthority).with("peer", centre.name()).cause(cause));
    }
    tracing::info!(expires_at = %identity.not_after(), "Renewed the certificate");
    centre.adopt(identity).await
}

async fn fetch_policy(
    context: &Arc<Context>,
    centre: &Arc<Centre>,
    connection: &Arc<dyn Connection>,
) -> Result<(), Problem> {
    let bytes = match centre.ask_over(&**connection, CentreRequest::Policy).await? {
        CentreAnswer::Policy(bytes) => bytes.to_vec(),
        other => return Err(join::unexpected(centre.name(), &other)),
    };
    let refused = |e: &dyn std::fmt::Display| Problem::new(Code::PolicyTooNew).cause(e);
    // In force at once: a withdrawal must not wait for the disk.
    let changed = match context.authority.accept(&bytes) {
        Ok(changed) => changed,
        Err(error) => {
            let problem = refused(&error);
            tracing::error!(%problem, "The coordinator's policy is not accepted; the one before stays in force");
            centre.failed(&problem);
            return Ok(());
        }
    };
    let (epoch, sequence) = context.authority.version();
    let stored = StoredPolicy { bytes, epoch, sequence, freshness: None, fresh_at: context.world.clock.now() };
    context.store.write(move |tx| meta::keep_policy(tx, &stored)).await?;
    if changed {
        tracing::info!(epoch, sequence, unusable_grants = context.authority.unusable_grants(), "Took a policy");
    }
    Ok(())
}

/// Reports, and takes the centre's word of freshness. Gives the time up to which endings were reported.
async fn heartbeat(
    context: &Arc<Context>,
    centre: &Arc<Centre>,
    connection: &Arc<dyn Connection>,
    reported_to: Timestamp,
) -> Result<Timestamp, Problem> {
    let now = context.world.clock.now();
    let report = report(context, centre, reported_to, now).await?;
    let answer = match centre.ask_over(&**connection, CentreRequest::Heartbeat(Box::new(report))).await? {
        CentreAnswer::Heartbeat(answer) => answer,
        other => return Err(join::unexpected(centre.name(), &other)),
    };
    if answer.fenced {
        return Err(Problem::new(Code::Fenced));
    }
    centre.heard();
    context.authority.bar(None);
    if let Err(problem) = join::check_clock(&context.world, answer.now) {
        tracing::error!(%problem, "The clock of this machine is wrong");
        centre.failed(&problem);
    }
    match context.authority.refresh(&answer.freshness) {
        Ok(Refreshed::Current) => {
            let bytes = answer.freshness.to_vec();
            context.store.write(move |tx| meta::keep_freshness(tx, &bytes, now)).await?;
        }
        Ok(Refreshed::Outdated) => fetch_policy(context, centre, connection).await?,
        Err(error) => {
            tracing::warn!(%error, "A word of freshness is not accepted");
            fetch_policy(context, centre, connection).await?;
        }
    }
    Ok(now)
}

async fn report(
    context: &Arc<Context>,
    centre: &Centre,
    reported_to: Timestamp,
    now: Timestamp,
) -> Result<Heartbeat, Problem> {
    let config = context.config();
    let (rows, waiting) = context
        .store
        .read(move |db| {
            let mut rows = transfers::list(
                db,
                &transfers::Filter { open: true, limit: Some(REPORTED_MAX), ..Default::default() },
            )?;
            rows.extend(transfers::ended_since(db, reported_to, REPORTED_MAX)?);
            Ok((rows, statements::waiting(db)?))
        })
        .await?;
    let (policy_epoch, policy_sequence) = context.authority.version();
    let live = context.transfers.list();
    let lag_ms = waiting.1.map_or(0, |since| now.since_ms(since));
    Ok(Heartbeat {
        epoch: context.epoch,
        now,
        profile: join::profile(&config, context.ferry.key()),
        policy_epoch,
        policy_sequence,
        disk_free_bytes: context.disk_free().await,
        outbox: waiting.0,
        lag_seconds: u64::try_from(lag_ms / 1000).unwrap_or(0),
        certificate_expires: centre.identity().not_after(),
        transfers: rows
            .iter()
            .map(|row| progress(context, row, live.iter().find(|live| live.row.id == row.id)))
            .collect(),
        jobs: config.jobs.len() as u64,
        last_error: context.last_error().map(|problem| (problem.code.number(), problem.said())),
    })
}

/// `live` is the session that moves it, where one does.
fn progress(context: &Context, row: &transfers::Transfer, live: Option<&Live>) -> Progress {
    let live = live.filter(|_| !row.state.is_final());
    // What held it up on the way is over.
    let problem = row.problem.as_ref().filter(|_| row.state != State::Settled);
    Progress {
        transfer: row.id.clone(),
        job: row.job.clone(),
        resource: row.resource.clone(),
        consumer: row.consumer(&context.name).clone(),
        mode: row.mode,
        state: row.state,
        rows: row.counts.rows_landed.max(row.counts.rows_sent).max(live.map_or(0, |live| live.rows)),
        files: row.counts.files.max(live.map_or(0, |live| live.files)),
        bytes: row.counts.bytes.max(live.map_or(0, |live| live.bytes)),
        bytes_total: row.counts.bytes.max(live.map_or(0, |live| live.bytes_total)),
        started: row.started.unwrap_or(row.created),
        code: problem.map(|problem| problem.code.number()),
        cause: problem.map(Problem::said),
    }
}

/// Answers the coordinator's questions until the connection closes.
async fn serve_notices(context: Arc<Context>, connection: Arc<dyn Connection>, tasks: TaskTracker) {
    while let Some(channel) = connection.accept().await {
        let context = context.clone();
        tasks.spawn(async move {
            if let Err(problem) = notice(&context, channel).await {
                tracing::debug!(%problem, "A notice from the coordinator was not understood");
            }
        });
    }
}

async fn notice(context: &Arc<Context>, channel: Channel) -> Result<(), Problem> {
    let centre = &context.centre;
    let (mut reader, mut writer) = frames::split(channel, centre.name());
    writer.send(&Frame::Hello(Hello::new(Purpose::Ask, context.epoch))).await?;
    let request = loop {
        match reader.expect().await? {
            Frame::Hello(_) => {}
            Frame::Centre(request) => break request,
            _ => return Err(Problem::new(Code::FrameInvalid).with("peer", centre.name())),
        }
    };
    let answer = match request {
        CentreRequest::PolicyChanged => {
            centre.policy_changed.notify_one();
            CentreAnswer::Done
        }
        CentreRequest::Dial(dial) => {
            let context = context.clone();
            tokio::spawn(async move {
                if let Err(problem) = context.pool.dial_back(&dial.peer, &dial.addresses).await {
                    tracing::info!(peer = %dial.peer, %problem, "Asked to dial a peer, it was not reached");
                }
            });
            CentreAnswer::Done
        }
        CentreRequest::Reconcile(job) => match findings(context, &job).await {
            Ok(findings) => CentreAnswer::Findings(findings),
            Err(problem) => CentreAnswer::Refused(problem.code.number(), problem.said()),
        },
        _ => CentreAnswer::Refused(Code::FrameInvalid.number(), "a node does not answer this".to_owned()),
    };
    writer.send(&Frame::CentreAnswer(answer)).await?;
    writer.finish().await
}

/// A deep reconciliation that the coordinator asked for: its findings as JSON.
async fn findings(context: &Arc<Context>, job: &JobId) -> Result<String, Problem> {
    let deep = crate::reconcile::deep(context, job).await?;
    context.outbox.notify_one();
    serde_json::to_string(&deep.findings).map_err(|e| Problem::new(Code::InsideFailed).cause(e))
}

/// Being fenced or revoked stops all exchange until the centre says otherwise.
fn bar(context: &Context, problem: &Problem) {
    if matches!(problem.code, Code::Fenced | Code::NodeRevoked) && context.authority.barred().is_none() {
        tracing::error!(%problem, "This node is barred: it gives and takes nothing");
        context.authority.bar(Some(problem.code));
    }
}

fn lost(centre: &Centre) -> Problem {
    Problem::new(Code::PeerUnreachable).with("peer", centre.name()).cause("the connection was lost")
}

/// 1 s doubling to 60 s, each between half and the whole of that.
fn back_off(context: &Context, failures: u32) -> Duration {
    let whole_ms = (1000u64 << failures.saturating_sub(1).min(6)).min(60_000);
    let random = u64::from(u16::from_be_bytes(context.world.random.bytes()));
    Duration::from_millis(whole_ms / 2 + whole_ms / 2 * random / u64::from(u16::MAX))
}

const STALENESS_LOOK: Duration = Duration::from_secs(5);
const RENEW_AGAIN: Duration = Duration::from_secs(5);
const RENEW_LOOK: Duration = Duration::from_secs(3600);
/// Transfers in one heartbeat.
const REPORTED_MAX: u32 = 500;
