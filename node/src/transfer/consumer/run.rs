//! One transfer in this process: attempt after attempt, until it is settled or ended, or this node stops.

use super::session::{self, Ended};
use super::{committing, load, settling};
use crate::config::{Job, Target};
use crate::context::Context;
use crate::ferry;
use crate::relay;
use crate::settle::{self, Subject};
use crate::stage::Cuts;
use crate::stage::Staged;
use crate::store::{Transfer, exchange, statements, transfers};
use crate::transfer::{Registered, Stop, greet, own_hello};
use posthouse_platform::endpoint::Connection;
use posthouse_platform::frames::{self, FrameReader, FrameWriter};
use posthouse_protocol::frame::line::{DELTA, KEPT};
use posthouse_protocol::frame::{Frame, Purpose, Relay, Request};
use posthouse_protocol::id::NodeId;
use posthouse_protocol::job::{Mode, State};
use posthouse_protocol::limits;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::statement::Statement;
use std::sync::Arc;
use std::time::Duration;

/// One transfer in this process.
pub(super) struct Run {
    pub(super) ctx: Arc<Context>,
    pub(super) row: Transfer,
    pub(super) registered: Registered,
    pub(super) began: Duration,
    /// The provider knows how it ended.
    pub(super) told: bool,
    /// How many lines were given up for another.
    pub(super) given_up: u32,
    pub(super) cuts: Arc<Cuts>,
}

/// The two halves of a control channel, greeted, and what carries them.
pub(super) struct Line {
    pub(super) connection: Arc<dyn Connection>,
    pub(super) reader: FrameReader,
    pub(super) writer: FrameWriter,
    /// What was asked over it.
    pub(super) request: Request,
    pub(super) knows: Knows,
}

/// What the provider understands beyond the first version of the protocol.
#[derive(Clone, Copy)]
pub(super) struct Knows {
    /// It wants to hear which splits are kept here.
    pub(super) kept: bool,
    /// It sends of a file what differs from what it hears is here.
    pub(super) delta: bool,
}

impl Run {
    pub(super) async fn new(ctx: &Arc<Context>, row: Transfer) -> Self {
        let registered = Registered::enter(ctx, row.clone(), None).await;
        let began = ctx.world.clock.monotonic();
        Self { ctx: ctx.clone(), row, registered, began, told: false, given_up: 0, cuts: Arc::default() }
    }

    /// To the final state; None when this node stops first.
    pub(super) async fn run(mut self) -> Result<Option<Transfer>, Problem> {
        let mut wait = BACK_OFF_MIN;
        loop {
            let stop = *self.registered.stop.borrow_and_update();
            match stop {
                Stop::Cancelled => {
                    if self.may_end(None).await? {
                        return self.end(Problem::new(Code::Cancelled)).await;
                    }
                    tracing::warn!(transfer = %self.row.id, "It is landed, or may be: it goes on to its receipt");
                }
                Stop::Superseded => return Ok(None),
                Stop::Paused => {
                    self.pause(None).await?;
                    if !self.wait_for_change(None).await {
                        return Ok(None);
                    }
                    continue;
                }
                Stop::No => {}
            }
            if self.ctx.drain.is_cancelled() {
                return Ok(None);
            }
            let before = self.registered.shown().row.bytes_sent;
            let ended = match self.attempt().await {
                Err(problem) if problem.code == Code::OutsideWindow => Ok(Ended::Closed(problem)),
                Err(problem) if !self.may_end(Some(&problem)).await? => Ok(Ended::Lost(problem)),
                ended => ended,
            };
            match ended {
                Ok(Ended::Final(row)) => return Ok(Some(*row)),
                Ok(Ended::Stopped) => {
                    self.keep_row().await?;
                }
                Ok(Ended::NoRoom(problem)) => {
                    self.pause(Some(problem)).await?;
                    if !self.wait_for_change(Some(NO_ROOM_LOOK)).await {
                        return Ok(None);
                    }
                }
                Ok(Ended::Closed(problem)) => {
                    self.pause(Some(problem)).await?;
                    if !self.wait_for_change(Some(WINDOW_LOOK)).await {
                        return Ok(None);
                    }
                }
                Ok(Ended::Replaced) => {
                    self.given_up += 1;
                    self.keep_row().await?;
                }
                Ok(Ended::Lost(problem)) => {
                    tracing::info!(transfer = %self.row.id, %problem, "It could not go on; trying again");
                    // A line that moved something was a good one: the next is tried at once.
                    if self.registered.shown().row.bytes_sent > before {
                        wait = BACK_OFF_MIN;
                    }
                    self.row.problem = Some(problem);
                    self.keep_row().await?;
                    // Whatever is in its way passes no more, after so long.
                    if self.out_of_time() && self.may_end(None).await? {
                        let problem = self.row.problem.clone().unwrap_or_else(|| Problem::new(Code::PeerUnreachable));
                        return self.end(problem).await;
                    }
                    let jitter = u64::from_le_bytes(self.ctx.world.random.bytes::<8>()) % 500;
                    if !self.wait_for_change(Some(wait + Duration::from_millis(jitter))).await {
                        return Ok(None);
                    }
                    wait = (wait * 2).min(BACK_OFF_MAX);
                }
                // It cannot go on: both sides state so, where the other one can be told.
                Err(problem) => return self.end(problem).await,
            }
        }
    }

    /// Until something about the transfer changes or the time is over; false when this node stops.
    async fn wait_for_change(&mut self, time: Option<Duration>) -> bool {
        let sleep = async {
            match time {
                Some(time) => tokio::time::sleep(time).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.ctx.drain.cancelled() => false,
            _ = self.registered.stop.changed() => true,
            () = sleep => true,
        }
    }

    /// One connection's worth of progress.
    async fn attempt(&mut self) -> Result<Ended, Problem> {
        let (id, ctx) = (self.row.id.clone(), self.ctx.clone());
        let name = self.ctx.name.clone();
        let key = statements::OwnKey::new(&name, ctx.signer.as_ref());
        let committed = self.ctx.store.read(move |db| statements::own(db, &id, "consumer", &key)).await?;
        if let Some(statement) = committed {
            self.row.state = State::Committed;
            return self.settle_only(statement).await;
        }
        let job = self.job()?;
        if let Some(Target::Table { connection, .. }) = &job.into {
            self.ctx.in_window(connection)?;
        }
        if let Some(ended) = committing::commit_staged(self, &job).await? {
            return Ok(ended);
        }
        if let Err(problem) = relay::goes_as_configured(&self.ctx, &job, &self.ctx.name, &self.row.resource) {
            return self.lost_or_final(problem);
        }
        let line = match self.connect(false).await {
            Ok(line) => line,
            Err(problem) => return self.lost_or_final(problem),
        };
        session::take(self, &job, line).await
    }

    /// What the configuration says of the job now.
    pub(super) fn job(&self) -> Result<Job, Problem> {
        let config = self.ctx.config();
        config
            .landing_job(&self.row.peer, &self.row.job)
            .cloned()
            .ok_or_else(|| Problem::new(Code::UnknownName).with("kind", "job").with("name", &self.row.job))
    }

    async fn connect(&mut self, committed: bool) -> Result<Line, Problem> {
        let peer = self.row.peer.clone();
        // Where the policy knows no such peer, the missing grant is the true reason: it names who and what.
        if self.ctx.authority.peer(&peer).is_err() {
            self.ctx.permit(&self.ctx.name, &self.row.resource).await?;
        }
        let request = self.request(committed);
        let line = tokio::select! {
            biased;
            () = self.ctx.drain.cancelled() => return Err(lost(&peer, "this node stops")),
            _ = self.registered.stop.changed() => {
                self.registered.stop.mark_changed();
                return Err(lost(&peer, "the transfer was stopped here"));
            }
            line = connect(&self.ctx, &self.row, request) => line?,
        };
        self.row.transport = Some(line.connection.transport());
        if self.row.started.is_none() {
            self.row.started = Some(self.ctx.world.clock.now());
        }
        Ok(line)
    }

    fn request(&self, committed: bool) -> Request {
        let row = &self.row;
        Request {
            transfer: row.id.clone(),
            job: row.job.clone(),
            resource: row.resource.resource.clone(),
            mode: row.mode,
            write: row.write,
            watermark: row.watermark_from.clone().filter(|_| row.mode == Mode::Incremental),
            // The line that it goes over says it.
            route: Vec::new(),
            consumer_epoch: self.ctx.epoch,
            succeeds: row.succeeds.clone(),
            committed,
            formats: self.formats(),
            rules: self.job().ok().and_then(|job| job.asked_rules()),
        }
    }

    /// What the place that the job lands in takes beside Arrow.
    fn formats(&self) -> Option<Vec<String>> {
        let formats = self.ctx.formats(&self.job().ok()?);
        (!formats.is_empty()).then(|| formats.iter().map(|format| format.name().to_owned()).collect())
    }

    pub(super) fn subject(&self) -> Subject {
        Subject {
            transfer: self.row.id.clone(),
            job: self.row.job.clone(),
            resource: self.row.resource.clone(),
            consumer: self.ctx.name.clone(),
        }
    }

    /// Has committed: gives the stored statement until the provider has it.
    async fn settle_only(&mut self, statement: Statement) -> Result<Ended, Problem> {
        let line = match self.connect(true).await {
            Ok(line) => line,
            // What is committed cannot fail any more: it is tried for as long as it takes.
            Err(problem) => return Ok(Ended::Lost(problem)),
        };
        settling::settle(self, line, statement).await
    }

    /// Whether it may end without a receipt. What was stated as landed never does. What is staged may stand
    /// already: it ends only where its destination says that it does not, and not for a problem of this node's
    /// own that passes. Nor does it end where something has come and only the destination is away.
    pub(super) async fn may_end(&self, problem: Option<&Problem>) -> Result<bool, Problem> {
        let (id, name, signer) = (self.row.id.clone(), self.ctx.name.clone(), self.ctx.signer.clone());
        let is_away = problem.is_some_and(|problem| problem.code == Code::ConnectionFailed);
        let (ended, landed, staged, waits, offer) = self
            .ctx
            .store
            .read(move |db| {
                let key = statements::OwnKey::new(&name, signer.as_ref());
                let ended = transfers::get(db, &id)?.is_some_and(|row| row.state.is_final());
                let landed = statements::own(db, &id, "consumer", &key)?.is_some();
                let staged = Staged::load(db, &id)?.is_some();
                let waits = is_away && !exchange::names_in_landing(db, &id)?.is_empty();
                Ok((ended, landed, staged, waits, exchange::landing_offer(db, &id)?))
            })
            .await?;
        if ended || landed || !staged {
            return Ok(ended || !landed && !waits);
        }
        Ok(committing::may_drop_staged(self, offer, problem).await)
    }

    /// States that it ended without a receipt, and drops what is under way here.
    async fn end(&mut self, problem: Problem) -> Result<Option<Transfer>, Problem> {
        let subject = self.subject();
        self.row.active_ms += self.elapsed();
        tracing::warn!(transfer = %self.row.id, %problem, "A transfer ends without a receipt");
        let statement = settle::state_ending(&self.ctx, &self.row, &subject, &problem).await?;
        let ended = load(&self.ctx, &self.row.id).await?.filter(|row| row.state.is_final());
        let ended =
            ended.ok_or_else(|| Problem::new(Code::InsideFailed).cause("a transfer that is landed was to be ended"))?;
        let was_planned = std::mem::replace(&mut self.row, ended).state == State::Planned;
        settling::discard(self).await;
        if !was_planned && !self.told {
            let ending = settle::refused(&problem, statement.as_ref());
            tokio::spawn(settling::tell(self.ctx.clone(), self.row.clone(), self.request(false), ending));
        }
        let row = load(&self.ctx, &self.row.id).await?;
        if let Some(row) = &row {
            self.registered.show(|live| live.row = row.clone());
        }
        Ok(row)
    }

    async fn pause(&mut self, problem: Option<Problem>) -> Result<(), Problem> {
        // What is staged or landed stays so: only the work on it waits.
        if !matches!(self.row.state, State::Staged | State::Committed) {
            self.row.state = State::Paused;
        }
        self.row.problem = problem;
        self.keep_row().await
    }

    /// Writes the row as it is now, and shows it.
    async fn keep_row(&mut self) -> Result<(), Problem> {
        let mut row = self.row.clone();
        row.active_ms += self.elapsed();
        let shown = row.clone();
        self.registered.show(|live| live.row = shown);
        self.ctx.store.write(move |tx| transfers::update(tx, &row).map(|_| ())).await
    }

    pub(super) fn elapsed(&self) -> u64 {
        let elapsed = self.ctx.world.clock.monotonic().saturating_sub(self.began);
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether a connection that failed is worth another try.
    fn lost_or_final(&self, problem: Problem) -> Result<Ended, Problem> {
        // A grant that was just made is still on its way here.
        let young = self.ctx.world.clock.now().since_ms(self.row.created) < POLICY_WITHIN_MS;
        match problem.code {
            Code::NodeRevoked | Code::Fenced | Code::VersionUnsupported => Err(problem),
            Code::NoGrant if !young => Err(problem),
            _ => Ok(Ended::Lost(problem)),
        }
    }

    /// A transfer that nobody ever offered is given up after a while; one that moved, after a week.
    fn out_of_time(&self) -> bool {
        let age = self.ctx.world.clock.now().since_ms(self.row.created);
        age > if self.row.state == State::Planned { OFFER_WITHIN_MS } else { MOVE_WITHIN_MS }
    }
}

/// Opens a control channel for a transfer, on a connection that is there or is made, and asks. The request does not wait
/// for the provider's greeting: on a long line that is a tenth of a second.
pub(super) async fn connect(ctx: &Arc<Context>, row: &Transfer, mut request: Request) -> Result<Line, Problem> {
    let (peer, transfer) = (&row.peer, &row.id);
    let asked = Relay {
        consumer: ctx.name.clone(),
        resource: row.resource.clone(),
        job: row.job.clone(),
        transfer: Some(transfer.clone()),
    };
    let connection = match ferry::line(ctx, row) {
        Some(line) => line?,
        None => relay::reach(ctx, &asked).await?,
    };
    let (mut reader, mut writer) = frames::split(connection.open().await?, peer);
    request.route = connection.relayed().map(|relayed| relayed.route.clone()).unwrap_or_default();
    writer.send(&Frame::Hello(own_hello(ctx, Purpose::Control(transfer.clone())))).await?;
    writer.send(&Frame::Request(request.clone())).await?;
    let patience = Duration::from_millis(limits::HANDSHAKE_MS);
    let hello = match tokio::time::timeout(patience, reader.expect()).await {
        Ok(Ok(Frame::Hello(hello))) => hello,
        Ok(Ok(_)) => return Err(invalid(peer, "it does not greet")),
        Ok(Err(problem)) => return Err(problem),
        Err(_) => return Err(lost(peer, "it does not greet")),
    };
    greet(ctx, peer, &hello).await?;
    Ok(Line {
        connection,
        reader,
        writer,
        request,
        knows: Knows { kept: hello.knows(KEPT), delta: hello.knows(DELTA) },
    })
}

fn lost(peer: &NodeId, cause: &str) -> Problem {
    Problem::new(Code::PeerUnreachable).with("peer", peer).cause(cause)
}
fn invalid(peer: &NodeId, cause: &str) -> Problem {
    Problem::new(Code::FrameInvalid).with("peer", peer).cause(cause)
}

const BACK_OFF_MIN: Duration = Duration::from_secs(1);
const BACK_OFF_MAX: Duration = Duration::from_secs(60);
const NO_ROOM_LOOK: Duration = Duration::from_secs(2);
/// The configuration may change meanwhile.
const WINDOW_LOOK: Duration = Duration::from_secs(5);
const POLICY_WITHIN_MS: i64 = 5_000;
const OFFER_WITHIN_MS: i64 = 86_400_000;
const MOVE_WITHIN_MS: i64 = 7 * 86_400_000;
