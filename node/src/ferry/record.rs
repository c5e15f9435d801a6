//! Takes in the consumer's place what this node gives, and writes it into parts instead of landing it: the request, the
//! offer, every chunk, the signed manifest and the list. The giving side is the same as over a line: it checks the grant,
//! reads, seals and signs. What is written down was verified as a consumer verifies it.

use super::locked;
use super::part::{Holds, Parts};
use crate::buffers::Buffers;
use crate::context::Context;
use crate::receive;
use crate::transfer::wire::{Pumps, Wire};
use crate::transfer::{self, attachments, blocking, own_hello, steady, until};
use posthouse_platform::endpoint::{Connection, Reader, Transport};
use posthouse_platform::frames::{self, FrameWriter};
use posthouse_platform::local;
use posthouse_protocol::chunk::{self, ChunkHeader, VerifiedChunk};
use posthouse_protocol::consumer::{Consumer, ConsumerEvent, Expected, Have, Verdict};
use posthouse_protocol::frame::{Frame, Handover, Hello, Offer, Omission, Purpose, Request};
use posthouse_protocol::id::NodeId;
use posthouse_protocol::limits;
use posthouse_protocol::manifest::Entry;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::statement::Statement;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;

/// Everything that `request` asks for, as `consumer` would take it, in parts that are finished.
pub(super) async fn record(
    ctx: &Arc<Context>,
    consumer: &NodeId,
    request: Request,
    parts: Arc<Mutex<Parts>>,
) -> Result<(), Problem> {
    let (here, giving) = local::pair(consumer, &ctx.name, Transport::Ferry);
    let serving = tokio::spawn(serve(ctx.clone(), giving));
    let recorded = Recorder::begin(ctx, consumer, here.clone(), request, parts).await;
    let recorded = match recorded {
        Ok((mut recorder, pumps)) => {
            let recorded = recorder.run().await;
            drop(recorder);
            pumps.close().await;
            recorded
        }
        Err(problem) => Err(problem),
    };
    here.close(0, "recorded");
    let _ = serving.await;
    recorded
}

/// The giving side's channels.
async fn serve(ctx: Arc<Context>, giving: Arc<dyn Connection>) {
    let channels = tokio_util::task::TaskTracker::new();
    while let Some(channel) = giving.accept().await {
        channels.spawn(transfer::serve_channel(ctx.clone(), giving.clone(), channel));
    }
    channels.close();
    channels.wait().await;
}

struct Recorder {
    ctx: Arc<Context>,
    consumer: NodeId,
    connection: Arc<dyn Connection>,
    machine: Arc<Mutex<Consumer>>,
    wire: Wire,
    request: Request,
    offer: Option<Offer>,
    /// Numbers and revisions under which the entries that are complete were sent.
    complete: Vec<(u64, u32)>,
    arrived_in: mpsc::Sender<Result<Arrived, Problem>>,
    arrived: mpsc::Receiver<Result<Arrived, Problem>>,
    /// What came of writing, with the credit of what was written; only one is under way.
    written_in: mpsc::Sender<Result<u64, Problem>>,
    written: mpsc::Receiver<Result<u64, Problem>>,
    is_writing: bool,
    parts: Arc<Mutex<Parts>>,
}

/// A chunk as it came, and checked.
struct Arrived {
    header: ChunkHeader,
    body: bytes::Bytes,
    checked: Option<VerifiedChunk>,
}

impl Recorder {
    async fn begin(
        ctx: &Arc<Context>,
        consumer: &NodeId,
        connection: Arc<dyn Connection>,
        request: Request,
        parts: Arc<Mutex<Parts>>,
    ) -> Result<(Self, Pumps), Problem> {
        let (reader, mut writer) = frames::split(connection.open().await?, &ctx.name);
        writer.send(&Frame::Hello(hello(ctx, &request, Purpose::Control(request.transfer.clone())))).await?;
        let machine = Consumer::new(request.clone(), ctx.name.clone(), steady(&ctx.world));
        let (wire, pumps) = Wire::start(reader, writer);
        let (arrived_in, arrived) = mpsc::channel(ARRIVED);
        let (written_in, written) = mpsc::channel(1);
        let recorder = Self {
            ctx: ctx.clone(),
            consumer: consumer.clone(),
            connection,
            machine: Arc::new(Mutex::new(machine)),
            wire,
            request,
            offer: None,
            complete: Vec::new(),
            arrived_in,
            arrived,
            written_in,
            written,
            is_writing: false,
            parts,
        };
        Ok((recorder, pumps))
    }

    async fn run(&mut self) -> Result<(), Problem> {
        loop {
            loop {
                let event = locked(&self.machine).poll_event();
                let Some(event) = event else { break };
                if let Some(handover) = self.event(event).await? {
                    return self.finish(handover).await;
                }
            }
            self.transmit();
            let deadline = locked(&self.machine).poll_timeout();
            tokio::select! {
                biased;
                () = self.ctx.drain.cancelled() => return Err(self.lost("this node stops")),
                Some(written) = self.written.recv() => {
                    self.is_writing = false;
                    locked(&self.machine).durable(written?);
                }
                frame = self.wire.frames.recv() => match frame {
                    Some(Ok(Frame::Hello(_))) => {}
                    Some(frame) => {
                        locked(&self.machine).handle_frame(frame?, steady(&self.ctx.world))?;
                    }
                    None => return Err(self.lost("the giving side ended it")),
                },
                Some(first) = self.arrived.recv(), if !self.is_writing => self.keep(first?)?,
                () = async { drop(self.wire.out.reserve().await) }, if self.wire.blocked => {}
                () = until(&self.ctx.world, deadline) => locked(&self.machine).handle_timeout(steady(&self.ctx.world)),
            }
        }
    }

    fn transmit(&mut self) {
        let (machine, world) = (&self.machine, &self.ctx.world);
        self.wire.transmit(|| locked(machine).poll_transmit(steady(world)));
    }

    /// Gives the handover once everything is here.
    async fn event(&mut self, event: ConsumerEvent) -> Result<Option<Handover>, Problem> {
        match event {
            ConsumerEvent::Offered(offer) => {
                locked(&self.machine).accept(1, limits::CREDIT_BYTES)?;
                self.offer = Some(*offer);
                self.transmit();
                let (reader, mut writer) = frames::split(self.connection.open().await?, &self.ctx.name);
                let purpose = Purpose::Data(self.request.transfer.clone(), 0);
                writer.send(&Frame::Hello(hello(&self.ctx, &self.request, purpose))).await?;
                let (machine, out, ctx) = (self.machine.clone(), self.arrived_in.clone(), self.ctx.clone());
                tokio::spawn(read_chunks(ctx, reader.into_inner(), writer, machine, out));
            }
            // What the consumer has is not known here: all of it is carried.
            ConsumerEvent::Entry(entry) | ConsumerEvent::Again(entry) => {
                locked(&self.machine).have(&entry, Have::Nothing)?;
            }
            ConsumerEvent::Complete(entry) => self.complete.push((entry.index, entry.revision)),
            ConsumerEvent::LeftOut(..) => {}
            ConsumerEvent::HandedOver(handover) => return Ok(Some(handover)),
            ConsumerEvent::Refused(ending) | ConsumerEvent::Failed(ending) => {
                locked(&self.machine).noted(Vec::new());
                self.transmit();
                return Err(ending.problem(&[
                    ("provider", &self.ctx.name),
                    ("consumer", &self.consumer),
                    ("resource", &self.request.resource),
                    ("peer", &self.ctx.name),
                ]));
            }
            ConsumerEvent::Noted(_) | ConsumerEvent::Settled => {}
            ConsumerEvent::Lost => return Err(self.lost("the giving side is silent")),
        }
        Ok(None)
    }

    /// Writes what has come into the parts; its credit goes back when that is done. A slow disk holds up what comes, and
    /// nothing that is said.
    fn keep(&mut self, first: Arrived) -> Result<(), Problem> {
        let mut batch = vec![first];
        while batch.len() < BATCH
            && let Ok(next) = self.arrived.try_recv()
        {
            batch.push(next?);
        }
        let mut credit = 0;
        {
            let mut machine = locked(&self.machine);
            for one in &mut batch {
                match &one.checked {
                    None => machine.handle_bad_chunk(&one.header)?,
                    Some(chunk) => match machine.handle_chunk(chunk.meta())? {
                        Verdict::Write => credit += chunk.meta().credit(),
                        Verdict::Skip => one.checked = None,
                    },
                }
            }
        }
        let (parts, world, written) = (self.parts.clone(), self.ctx.world.clone(), self.written_in.clone());
        self.is_writing = true;
        tokio::spawn(async move {
            let write = blocking(&world, move || {
                let mut parts = locked(&parts);
                batch
                    .iter()
                    .filter(|one| one.checked.is_some())
                    .try_for_each(|one| parts.put(&[&one.header.encode(), &one.body]))
            });
            // A recorder that has given up waits for nothing.
            let _ = written.send(write.await.map(|()| credit)).await;
        });
        Ok(())
    }

    /// The list, once the giving side has signed: then nothing of it changes any more.
    async fn finish(&mut self, handover: Handover) -> Result<(), Problem> {
        if self.is_writing {
            self.written.recv().await.unwrap_or_else(|| Err(self.lost("it was not written")))?;
        }
        let statement = Statement::open(&handover.statement, self.ctx.authority.as_ref())
            .map_err(|e| Problem::new(Code::InsideFailed).cause(e))?;
        let manifest = statement.manifest().ok_or_else(|| self.lost("it hands nothing over"))?;
        locked(&self.machine).check(manifest)?;
        let offer = self.offer.clone().ok_or_else(|| self.lost("it offered nothing"))?;
        let (root, transfer) = (self.ctx.attachments(), self.request.transfer.clone());
        let (parts, request) = (self.parts.clone(), self.request.clone());
        let mut complete = std::mem::take(&mut self.complete);
        complete.sort_unstable();
        blocking(&self.ctx.world, move || {
            let mut parts = locked(&parts);
            parts.turn_to(Holds::List)?;
            let mut put = |frame: Frame| parts.put(&[&frame.encode()]);
            put(Frame::Request(request))?;
            put(Frame::Offer(offer))?;
            put(Frame::Handover(handover))?;
            let (mut batch, mut bytes): (Vec<Entry>, usize) = (Vec::new(), 0);
            // The stored list is of those that are handed over, in order: so are those that are complete.
            let mut complete = complete.into_iter();
            for entry in attachments::entries(&root, &transfer)? {
                let (index, revision) = complete.next().ok_or_else(|| inside("more is listed than is complete"))?;
                let entry = Entry { index, revision, ..entry? };
                let is_full = batch.len() == LISTED || bytes + entry.frame_bytes() > limits::FRAME_FILL_BYTES;
                if is_full && !batch.is_empty() {
                    put(Frame::Entries(std::mem::take(&mut batch)))?;
                    bytes = 0;
                }
                bytes += entry.frame_bytes();
                batch.push(entry);
            }
            put(Frame::Entries(batch))?;
            if complete.next().is_some() {
                return Err(inside("more is complete than is listed"));
            }
            let left_out = attachments::left_out(&root, &transfer)?;
            for batch in left_out.chunks(LISTED) {
                let omissions = batch.iter().map(|what| Omission { entry: None, what: what.clone() });
                put(Frame::LeftOut(omissions.collect()))?;
            }
            parts.finish()
        })
        .await
    }

    fn lost(&self, cause: &str) -> Problem {
        Problem::new(Code::PeerUnreachable).with("peer", &self.ctx.name).cause(cause)
    }
}

/// As the consumer would greet; what it understands beyond the first version shows only when it takes the parts.
fn hello(ctx: &Context, request: &Request, purpose: Purpose) -> Hello {
    Hello { epoch: request.consumer_epoch, ..own_hello(ctx, purpose) }
}

/// Reads the data channel and checks what comes. The writer is kept: without it the channel would end.
async fn read_chunks(
    ctx: Arc<Context>,
    mut reader: Reader,
    writer: FrameWriter,
    machine: Arc<Mutex<Consumer>>,
    out: mpsc::Sender<Result<Arrived, Problem>>,
) {
    let buffers = Arc::new(Buffers::default());
    loop {
        let next = next_chunk(&ctx, &mut reader, &machine, &buffers).await;
        let next = match next {
            Ok(None) => break,
            Ok(Some(None)) => continue,
            Ok(Some(Some(arrived))) => Ok(arrived),
            Err(problem) => Err(problem),
        };
        let is_last = next.is_err();
        if out.send(next).await.is_err() || is_last {
            break;
        }
    }
    drop(writer);
}

/// The next chunk; one that is not wanted any more is read and dropped (inner None). None at the end.
async fn next_chunk(
    ctx: &Context,
    reader: &mut Reader,
    machine: &Mutex<Consumer>,
    buffers: &Arc<Buffers>,
) -> Result<Option<Option<Arrived>>, Problem> {
    let Some(header) = receive::next_header(reader, &ctx.name).await? else { return Ok(None) };
    let expected = locked(machine).expect(&header)?;
    let Expected::Take(layout) = expected else {
        receive::drop_body(reader, &header, &ctx.name).await?;
        return Ok(Some(None));
    };
    let body = receive::read_body(reader, &header, buffers, &ctx.name).await?;
    let (packed, buffers) = (body.clone(), buffers.clone());
    let checked = blocking(&ctx.world, move || {
        // Nothing was said here of older content, so that a delta is no better than a bad chunk.
        let no_delta = |delta: &[u8], content: &mut [u8]| chunk::unpack(&header, delta, content);
        Ok(receive::checked(&header, layout, packed, &buffers, no_delta).ok())
    });
    Ok(Some(Some(Arrived { header, body, checked: checked.await? })))
}

fn inside(cause: &str) -> Problem {
    Problem::new(Code::InsideFailed).cause(cause)
}

const ARRIVED: usize = 8;
const BATCH: usize = 64;
/// Entries of one frame, and what is left out.
const LISTED: usize = 64;
