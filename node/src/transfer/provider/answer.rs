//! How a request is answered: what the policy says, the snapshot of a table, what is stored of the offer.
//! It may take as long as a database needs. It goes on when its line is cut, and the next session finds what
//! came of it; until then nobody else answers for the same transfer.

use super::Caller;
use super::feed::Feed;
use super::outgoing::Outgoing;
use crate::config::{Origin, Resource};
use crate::context::Context;
use crate::front;
use crate::reconcile;
use crate::relay;
use crate::send::{ReadBefore, Sent, Supply, SupplySource};
use crate::settle::Subject;
use crate::spent::What;
use crate::store::exchange::{self, Offered};
use crate::store::{Transfer, front as stored_front, transfers};
use crate::transfer::attachments::Attachments;
use crate::transfer::spooling::{Begun, Spooling};
use crate::transfer::{Answering, DataDoor, Registered, blocking};
use posthouse_connectors::folder::FolderSource;
use posthouse_platform::endpoint::Writer;
use posthouse_protocol::digest::digest_key;
use posthouse_protocol::format::Format;
use posthouse_protocol::frame::{Offer, Relay, Request};
use posthouse_protocol::job::{Mode, State};
use posthouse_protocol::limits;
use posthouse_protocol::operation;
use posthouse_protocol::policy::Permit;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::watermark::Watermark;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// One request that is being answered.
pub(super) struct Answer {
    pub ctx: Arc<Context>,
    pub caller: Caller,
    pub request: Request,
    pub subject: Subject,
    pub row: Transfer,
    /// What was offered before.
    pub known: Option<Offered>,
    pub alone: Answering,
}

/// What is known once a request was permitted and answered by an offer.
pub(super) struct Given {
    pub row: Transfer,
    pub subject: Subject,
    pub permit: Permit,
    pub offered: Offered,
    pub registered: Registered,
    pub feed: Feed,
    pub outgoing: Outgoing,
    pub spooling: Option<Arc<Spooling>>,
    pub attachments: Option<Attachments>,
    /// Data channels that the consumer has opened.
    pub data: mpsc::Receiver<Writer>,
    pub began: Duration,
    /// The consumer has accepted, and neither side has ended it.
    pub moving: bool,
}

impl Answer {
    /// Begins to answer. Whoever waits for it may leave; a node that stops does not wait for it.
    pub(super) fn begin(self) -> oneshot::Receiver<Result<Box<Given>, Problem>> {
        let (answered_in, answered) = oneshot::channel();
        let ctx = self.ctx.clone();
        let tasks = ctx.runs.tasks.clone();
        tasks.spawn(async move {
            let transfer = self.row.id.clone();
            let lost = super::lost(&self.caller.peer, "this node stops");
            let given = tokio::select! {
                biased;
                () = ctx.drain.cancelled() => Err(lost),
                given = self.given() => given.map(Box::new),
            };
            if let Err(problem) = &given {
                tracing::debug!(%transfer, %problem, "A request was not answered by an offer");
            }
            // The session is over where nobody takes it: the next one finds what is stored.
            let _ = answered_in.send(given);
        });
        answered
    }

    /// Checks the request against the policy and decides what is offered; or why not.
    async fn given(self) -> Result<Given, Problem> {
        let Self { ctx, caller, request, subject, mut row, known, alone } = self;
        let invalid = |cause: &str| Problem::new(Code::FrameInvalid).with("peer", &caller.peer).cause(cause);
        let permit = ctx.permit(&caller.peer, &subject.resource).await?;
        let asked = Relay {
            consumer: caller.peer.clone(),
            resource: subject.resource.clone(),
            job: subject.job.clone(),
            transfer: Some(subject.transfer.clone()),
        };
        relay::comes_as_granted(&ctx, caller.relayed.as_ref(), &asked)?;
        if request.route != permit.route() {
            return Err(super::lost(&caller.peer, "it names another way than its grant"));
        }
        let config = ctx.config();
        let resource =
            config.resources.get(&request.resource).ok_or_else(|| super::not_offered(&ctx, &subject))?.clone();
        if request.mode == Mode::Observe {
            return Err(invalid("an observe job moves nothing"));
        }
        if known.as_ref().is_some_and(|known| !same_request(&known.request, &request)) {
            return Err(invalid("a transfer is asked for again as another"));
        }
        if known.is_none() {
            offer_anew(&ctx, &caller, &request, &subject, &mut row, &permit, &resource).await?;
        }
        let (data_in, data) = mpsc::channel(usize::from(limits::DATA_CHANNELS_MAX));
        let door = DataDoor { writers: data_in, relayed: caller.relayed.clone() };
        let mut registered = Registered::enter(&ctx, row.clone(), Some(door)).await;
        registered.alone().await;
        // Nobody else works on it now: it stands as the session before has left it.
        let id = request.transfer.clone();
        let (stored, offered) =
            ctx.store.read(move |db| Ok((transfers::get(db, &id)?, exchange::offered(db, &id)?))).await?;
        let (Some(stored), Some(offered)) = (stored, offered) else {
            return Err(Problem::new(Code::InsideFailed).cause("what was offered is not stored"));
        };
        if stored.state == State::Settled {
            return Err(super::lost(&caller.peer, "it was settled meanwhile"));
        }
        if stored.state.is_final() {
            return Err(stored.problem.unwrap_or_else(|| Problem::new(Code::Cancelled)));
        }
        row = Transfer { transport: row.transport, peer_epoch: row.peer_epoch, ..stored };
        registered.show(|live| live.row = row.clone());
        if offered.handover.is_none() && *offered.offer.grant.as_str() != *permit.grant().as_str() {
            return Err(Problem::new(Code::GrantWithdrawn).with("resource", &subject.resource));
        }
        let spooling = match resource.origin {
            Origin::Table { .. } => {
                let found = Spooling::find(&ctx, &request.transfer).await?;
                Some(found.ok_or_else(|| Problem::new(Code::SnapshotLost))?)
            }
            Origin::Folder { .. } => None,
        };
        let supply = match (&resource.origin, &spooling) {
            (Origin::Folder { path, options }, _) => {
                let (path, options) = (path.clone(), options.clone());
                let named = subject.resource.clone();
                let source = blocking(&ctx.world, move || {
                    FolderSource::open(&path, &options).map_err(|problem| problem.with("resource", named))
                });
                SupplySource::Folder(Arc::new(source.await?))
            }
            (Origin::Table { .. }, Some(spooling)) => SupplySource::Spool(spooling.spool().clone()),
            (Origin::Table { .. }, None) => {
                return Err(Problem::new(Code::InsideFailed).cause("a table without its spool"));
            }
        };
        let before = ReadBefore {
            recall: ctx.recall.clone(),
            resource: request.resource.clone(),
            store: ctx.store.clone(),
            clock: ctx.world.clock.clone(),
        };
        let supply = Supply::new(supply).recalling(before);
        let feed = match (&spooling, supply.folder(), &offered.handover) {
            (Some(spooling), ..) => Feed::spool(spooling.clone()),
            (None, Some(_), Some(_)) => Feed::signed(&ctx.world, ctx.attachments(), request.transfer.clone()).await?,
            (None, Some(folder), None) => Feed::folder(&ctx, &request.resource, folder.clone()),
            (None, None, _) => return Err(Problem::new(Code::InsideFailed)),
        };
        let (root, id, disk) = (ctx.attachments(), request.transfer.clone(), ctx.world.disk.clone());
        let session = registered.session();
        let attachments = match offered.handover {
            Some(_) => None,
            None => Some(blocking(&ctx.world, move || Attachments::begin(&root, &id, session, disk)).await?),
        };
        let outgoing = Outgoing::new(&ctx, &subject, supply, caller.takes_lz4);
        // From here on another session takes this one's place instead of being turned away.
        drop(alone);
        Ok(Given {
            row,
            subject,
            permit,
            offered,
            registered,
            feed,
            outgoing,
            spooling,
            attachments,
            data,
            began: ctx.world.clock.monotonic(),
            moving: false,
        })
    }
}

impl Given {
    /// So much is on the line.
    pub(super) fn sent(&mut self, sent: Sent) {
        self.outgoing.no_longer_unsent(sent.bytes);
        self.row.bytes_sent += sent.wire_bytes;
        self.row.chunks += sent.chunks;
        let row = self.row.clone();
        self.registered.show(|live| {
            live.bytes += sent.bytes;
            live.row = row;
        });
    }
}

/// A transfer asked for again is the same but for the consumer's epoch and how far it has come.
fn same_request(known: &Request, now: &Request) -> bool {
    let now = Request {
        consumer_epoch: known.consumer_epoch,
        committed: known.committed,
        // Another way is another grant's, and that is looked at.
        route: known.route.clone(),
        // A newer program may take more; what was offered is one of those before.
        formats: known.formats.clone(),
        // A job's rules that change meanwhile count from the next transfer on.
        rules: known.rules.clone(),
        ..now.clone()
    };
    *known == now
}

/// The first request for this transfer: takes the snapshot of a table, stores what is offered.
async fn offer_anew(
    ctx: &Arc<Context>,
    caller: &Caller,
    request: &Request,
    subject: &Subject,
    row: &mut Transfer,
    permit: &Permit,
    resource: &Resource,
) -> Result<(), Problem> {
    // Held until what is read is stored: nobody else reads the table or writes its flags back meanwhile.
    let entered = match &resource.exchange {
        Some(exchange) => Some(front::enter(ctx, exchange, request, subject, caller.knows_operations).await?),
        None => None,
    };
    let begun = match &resource.origin {
        Origin::Table { .. } => {
            let is_marked = request.mode == Mode::Incremental && entered.is_none();
            let from = request.watermark.clone().filter(|_| is_marked);
            let since = match from.clone() {
                Some(from) => landed_position(ctx, subject, from).await?,
                None => None,
            };
            let read = posthouse_connectors::Read {
                columns: permit.columns().map(<[String]>::to_vec),
                filter: permit.filter().cloned(),
                from,
                since,
                formats: Format::known(request.formats.as_deref().unwrap_or_default()),
                ..Default::default()
            };
            let (wishes, path) = (request.rules.as_deref(), entered.as_ref().map(|entered| entered.path.clone()));
            let _waits = ctx.meters(&request.transfer).wait(What::Source);
            Some(Begun::take(ctx, resource, read, permit.masks(), wishes, path).await?)
        }
        Origin::Folder { .. } if permit.is_about_rows() => {
            return Err(Problem::new(Code::FilterUnsupported).with("resource", &subject.resource));
        }
        Origin::Folder { .. } => None,
    };
    let governed = begun.as_ref().and_then(Begun::governed);
    if governed.is_some() && !caller.knows_governed {
        // It would take all of it and refuse the statement at the end.
        let cause = "the rows are masked, checked or ruled, which the consumer's version does not understand";
        return Err(Problem::new(Code::GoverningUnknown).with("node", &caller.peer).cause(cause));
    }
    let contract = begun.as_ref().map(|begun| begun.contract().clone());
    let digest_key = contract
        .as_ref()
        .map(|contract| digest_key(&subject.resource, contract, reconcile::DIGEST_EPOCH))
        .unwrap_or_default();
    let offer = Offer {
        transfer: request.transfer.clone(),
        grant: permit.grant().clone(),
        policy_epoch: permit.policy_epoch(),
        policy_sequence: permit.policy_sequence(),
        provider_epoch: ctx.epoch,
        contract,
        catalog: resource.catalog.clone(),
        watermark_to: begun.as_ref().and_then(|begun| begun.proposed().watermark().cloned()),
        salt: ctx.world.random.bytes::<32>().into(),
        data_channels: limits::DATA_CHANNELS_MAX,
        digest_key: digest_key.into(),
        watermark_column: match &resource.origin {
            Origin::Table { spec, .. } if request.mode == Mode::Incremental && entered.is_none() => {
                resource.watermark_offered(spec)
            }
            _ => None,
        },
        native: begun.as_ref().and_then(|begun| begun.native().cloned()),
        governed,
        operation: entered.as_ref().map(|_| operation::COLUMN.to_owned()),
        database_line: begun.as_ref().and_then(Begun::database_line).map(str::to_owned),
    };
    let now = ctx.world.clock.now();
    row.state = State::Offered;
    row.started = Some(now);
    row.watermark_to.clone_from(&offer.watermark_to);
    let offered = Offered {
        consumer: caller.peer.clone(),
        request: request.clone(),
        offer,
        handover: None,
        started: now,
        sealed: false,
        position: begun.as_ref().and_then(|begun| begun.position().map(str::to_owned)),
    };
    let planned = row.clone();
    ctx.store
        .write(move |tx| {
            if let Some(ended) = transfers::get(tx, &planned.id)? {
                // The consumer has ended it while the snapshot was taken.
                return Err(ended.problem.unwrap_or_else(|| Problem::new(Code::Cancelled)));
            }
            transfers::plan(tx, &planned)?;
            if offered.offer.operation.is_some() {
                stored_front::put(tx, &planned.id, &offered.request.resource, now)?;
            }
            exchange::put_offered(tx, &planned.id, &offered)
        })
        .await?;
    if let Some(entered) = entered {
        entered.stored();
    }
    if let Some(begun) = begun {
        Spooling::start(ctx, &request.transfer, begun, digest_key)?;
    }
    Ok(())
}

/// Where the last snapshot stood that this consumer has landed and reached this mark with.
async fn landed_position(ctx: &Context, subject: &Subject, reached: Watermark) -> Result<Option<String>, Problem> {
    let Subject { consumer, job, resource, .. } = subject.clone();
    ctx.store.read(move |db| exchange::landed_position(db, &consumer, &job, &resource, &reached)).await
}
