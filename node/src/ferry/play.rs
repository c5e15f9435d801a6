//! Gives in the provider's place what stands in parts. The consumer's run takes it as over a line: it looks what it has,
//! wants the rest, makes durable, commits and states; what it was given before it was killed it does not want again.
//! What is said when is the provider's machine's. Its statement goes into a part of its own, and back.

use super::part::{Found, Holds, Parts, Stream, invalid, put_damaged_aside, unreadable};
use super::{Bundle, known_epoch, locked};
use crate::context::Context;
use crate::send::has_content;
use crate::settle;
use crate::transfer::wire::Wire;
use crate::transfer::{blocking, own_hello, steady, until};
use bytes::{Bytes, BytesMut};
use posthouse_platform::endpoint::{Connection, Writer, write_bytes};
use posthouse_platform::frames;
use posthouse_platform::identity::ferry_key::FerryKey;
use posthouse_protocol::chunk::{CHUNK_HEADER_BYTES, ChunkHeader, Form};
use posthouse_protocol::codec;
use posthouse_protocol::frame::line::{DELTA, FEED_BYTES_MAX, FrameDecoder};
use posthouse_protocol::frame::{Frame, Handover, Hello, Offer, Purpose, Refused, Request};
use posthouse_protocol::manifest::{Entry, LeftOut};
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::provider::{Provider, ProviderEvent, Turn};
use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

/// Serves one connection of the consumer's run to its end.
pub(super) async fn play(ctx: Arc<Context>, bundle: Arc<Bundle>, connection: Arc<dyn Connection>) {
    let transfer = bundle.transfer.clone();
    if let Err(problem) = Player::run(&ctx, &bundle, &connection).await {
        tracing::info!(%transfer, %problem, "Parts could not be taken to their end");
        if matches!(problem.code, Code::PartInvalid | Code::Mismatch) {
            ctx.note_error(&problem);
            bundle.put_damaged_aside(&ctx, problem).await;
        }
    }
    connection.close(0, "played");
}

/// What the list begins with.
pub(super) struct Head {
    pub request: Request,
    pub offer: Offer,
    pub handover: Handover,
}

/// Reads what the list of a set of parts begins with. Blocks.
pub(super) fn head(parts: &[Found], key: &FerryKey) -> Result<Head, Problem> {
    let first = parts.iter().find(|part| part.label.holds == Holds::List);
    let first = first.ok_or_else(|| Problem::new(Code::PartInvalid).with("path", "of the list"))?;
    let mut list = List::new(VecDeque::from([first.clone()]));
    let mut next = || list.next(key)?.ok_or_else(|| invalid(&first.path, "its list ends before it begins"));
    match (next()?, next()?, next()?) {
        (Frame::Request(request), Frame::Offer(offer), Frame::Handover(handover)) => {
            Ok(Head { request, offer, handover })
        }
        _ => Err(invalid(&first.path, "its list does not begin as one")),
    }
}

struct Player<'a> {
    ctx: &'a Arc<Context>,
    bundle: &'a Arc<Bundle>,
    /// None where only an answer is to be given.
    head: Option<Head>,
    machine: Provider,
    wire: Wire,
    /// The list from where it was read to, and whether that was its end.
    listed: VecDeque<Listed>,
    list: mpsc::Receiver<Result<Vec<Listed>, Problem>>,
    list_ended: bool,
    /// Numbers and revisions of the entries as they were recorded, by their numbers here.
    recorded: Vec<(u64, u32)>,
    contents: mpsc::Receiver<Result<(ChunkHeader, Bytes), Problem>>,
    contents_ended: bool,
    /// Chunks whose turn has not come: they were recorded as they came, and some overtake others.
    waiting: VecDeque<(ChunkHeader, Bytes)>,
    to_write: mpsc::Sender<(ChunkHeader, Bytes)>,
    /// What was told the consumer of an ending that is not its own.
    ending: Option<Refused>,
}

enum Listed {
    Entry(Entry),
    LeftOut(LeftOut),
}

#[expect(clippy::large_enum_variant, reason = "there is one at a time, and it is taken apart at once")]
enum Woken {
    Frame(Option<Result<Frame, Problem>>),
    List(Option<Result<Vec<Listed>, Problem>>),
    Chunk(Option<Result<(ChunkHeader, Bytes), Problem>>),
    /// There is room for a chunk on the data channel.
    Room,
    Line,
    Time,
}

impl<'a> Player<'a> {
    async fn run(
        ctx: &'a Arc<Context>,
        bundle: &'a Arc<Bundle>,
        connection: &Arc<dyn Connection>,
    ) -> Result<(), Problem> {
        let peer = &bundle.from;
        let lost = |cause: &str| Problem::new(Code::PeerUnreachable).with("peer", peer).cause(cause);
        let control = connection.accept().await.ok_or_else(|| lost("nothing was asked"))?;
        let (mut reader, mut writer) = frames::split(control, &ctx.name);
        match reader.expect().await? {
            Frame::Hello(Hello { purpose: Purpose::Control(transfer), .. }) if transfer == bundle.transfer => {}
            _ => return Err(lost("another transfer was asked for")),
        }
        let head = if bundle.parts.is_empty() {
            None
        } else {
            let (parts, key) = (bundle.parts.clone(), ctx.ferry.key.clone());
            Some(blocking(&ctx.world, move || head(&parts, &key)).await?)
        };
        // What it has already is not looked for: nothing but whole chunks stands in the parts.
        let mut hello = own_hello(ctx, Purpose::Control(bundle.transfer.clone()));
        hello.features.retain(|feature| feature != DELTA);
        // It may have started again since: what it signed then stands.
        let then = head.as_ref().map_or(0, |head| head.offer.provider_epoch);
        hello.epoch = known_epoch(ctx, peer).await?.max(then);
        writer.send(&Frame::Hello(hello)).await?;
        let (wire, pumps) = Wire::start(reader, writer);
        let (to_write, chunks) = mpsc::channel(CHUNKS);
        let writing = tokio::spawn(write_chunks(connection.clone(), chunks));
        let mut player = Self {
            ctx,
            bundle,
            head,
            machine: Provider::new(ctx.name.clone(), steady(&ctx.world)),
            wire,
            listed: VecDeque::new(),
            list: read_list(ctx, bundle),
            list_ended: false,
            recorded: Vec::new(),
            contents: read_contents(ctx, bundle),
            contents_ended: false,
            waiting: VecDeque::new(),
            to_write,
            ending: None,
        };
        let played = player.play().await;
        // What was said last still leaves, and the consumer reads the end.
        let Self { wire, .. } = player;
        drop(wire);
        pumps.close().await;
        writing.abort();
        played
    }

    async fn play(&mut self) -> Result<(), Problem> {
        loop {
            self.work().await?;
            self.wire.transmit(|| self.machine.poll_transmit(steady(&self.ctx.world)));
            if self.machine.is_done() && !self.wire.blocked {
                return Ok(());
            }
            let woken = self.wait().await;
            self.handle(woken)?;
        }
    }

    async fn wait(&mut self) -> Woken {
        let deadline = self.machine.poll_timeout();
        let lists = !self.list_ended && self.listed.is_empty() && self.machine.room() > 0;
        let sends = self.to_write.capacity() == 0 && !self.waiting.is_empty();
        let waiting: usize = self.waiting.iter().map(|(_, body)| body.len() + CHUNK_HEADER_BYTES).sum();
        let reads = !self.contents_ended && waiting < WAITING_BYTES;
        tokio::select! {
            biased;
            frame = self.wire.frames.recv() => Woken::Frame(frame),
            _ = self.to_write.reserve(), if sends => Woken::Room,
            listed = self.list.recv(), if lists => Woken::List(listed),
            chunk = self.contents.recv(), if reads => Woken::Chunk(chunk),
            _ = self.wire.out.reserve(), if self.wire.blocked => Woken::Line,
            () = until(&self.ctx.world, deadline) => Woken::Time,
        }
    }

    fn handle(&mut self, woken: Woken) -> Result<(), Problem> {
        let now = steady(&self.ctx.world);
        match woken {
            Woken::Frame(Some(frame)) => self.machine.handle_frame(frame?, now)?,
            Woken::Frame(None) => return Err(self.lost("its run ended")),
            Woken::List(Some(listed)) => self.listed.extend(listed?),
            Woken::List(None) => {
                self.list_ended = true;
                self.machine.entries_end()?;
            }
            Woken::Chunk(Some(chunk)) => self.waiting.push_back(chunk?),
            Woken::Chunk(None) => self.contents_ended = true,
            Woken::Room | Woken::Line => {}
            Woken::Time => self.machine.handle_timeout(now),
        }
        Ok(())
    }

    /// Does what can be done now.
    async fn work(&mut self) -> Result<(), Problem> {
        loop {
            while let Some(event) = self.machine.poll_event() {
                self.event(event).await?;
            }
            let before = (self.recorded.len(), self.listed.len(), self.waiting.len());
            self.list_some()?;
            self.send_waiting();
            if before == (self.recorded.len(), self.listed.len(), self.waiting.len()) {
                break;
            }
        }
        if self.contents_ended && self.waiting.is_empty() && self.machine.has_wanted() {
            return Err(self.mismatch("not everything that its list has stands in its parts, or it is not what it has"));
        }
        Ok(())
    }

    fn list_some(&mut self) -> Result<(), Problem> {
        while self.machine.room() > 0
            && let Some(next) = self.listed.pop_front()
        {
            match next {
                Listed::Entry(entry) => {
                    if self.recorded.last().is_some_and(|last| last.0 >= entry.index) {
                        return Err(self.mismatch("its list is not in order"));
                    }
                    if entry.root.is_none() && has_content(&entry) {
                        return Err(self.mismatch("its list has an entry that was never sealed"));
                    }
                    let index = self.recorded.len() as u64;
                    self.recorded.push((entry.index, entry.revision));
                    self.machine.entry(Entry { index, revision: 0, same_as: None, ..entry })?;
                }
                Listed::LeftOut(what) => self.machine.left_out(None, what)?,
            }
        }
        Ok(())
    }

    /// Sends what may be sent now, and drops what is of no use any more.
    fn send_waiting(&mut self) {
        let all_listed = self.list_ended && self.listed.is_empty();
        let mut at = 0;
        while let Some((header, body)) = self.waiting.get(at) {
            let known = self.recorded.binary_search_by_key(&header.entry, |recorded| recorded.0);
            let turn = match known {
                // It was left out after all.
                Err(place) if place < self.recorded.len() || all_listed => Turn::Never,
                Err(_) => Turn::NotYet,
                // It was read again.
                Ok(entry) if self.recorded.get(entry).is_some_and(|one| one.1 != header.revision) => Turn::Never,
                Ok(entry) => {
                    let Ok(permit) = self.to_write.try_reserve() else { return };
                    let turn = self.machine.poll_this(entry as u64, 0, header.chunk);
                    if let Turn::Now(_) = turn {
                        permit.send((ChunkHeader { entry: entry as u64, revision: 0, ..*header }, body.clone()));
                    }
                    turn
                }
            };
            match turn {
                Turn::NotYet => at += 1,
                Turn::Now(_) | Turn::Never => drop(self.waiting.remove(at)),
            }
        }
    }

    async fn event(&mut self, event: ProviderEvent) -> Result<(), Problem> {
        match event {
            ProviderEvent::Requested(request) if request.transfer != self.bundle.transfer => {
                Err(self.lost("another transfer was asked for"))
            }
            ProviderEvent::Requested(request) if request.committed => Ok(()),
            ProviderEvent::Requested(_) => {
                let broken = locked(&self.bundle.broken).clone();
                match (broken, &self.head) {
                    // What was carried can never be landed: that is stated, and goes back.
                    (Some(problem), _) => {
                        self.fail(&problem);
                        Ok(())
                    }
                    (None, Some(head)) => self.machine.offer(head.offer.clone()),
                    (None, None) => Err(self.lost("its parts are gone")),
                }
            }
            ProviderEvent::Ready => match &self.head {
                Some(head) => self.machine.handover(head.handover.clone()),
                None => Err(self.lost("its parts are gone")),
            },
            ProviderEvent::LeftOut(_, what) => {
                // The list is signed: whoever signed it is not here to leave something out of it.
                let code = Code::from_number(what.code).unwrap_or(Code::Mismatch);
                let problem = Problem::new(code)
                    .with("name", String::from_utf8_lossy(&what.name))
                    .cause(format!("{}; what is carried is landed as a whole", what.reason));
                self.fail(&problem);
                Ok(())
            }
            ProviderEvent::Landed(statement) => {
                let sha256 = codec::sha256(&statement);
                self.answer(Frame::Landed(statement.into())).await?;
                self.machine.settled(sha256)
            }
            ProviderEvent::Refused(ending) => {
                self.answer(Frame::Refused(ending)).await?;
                self.machine.noted(Vec::new());
                Ok(())
            }
            ProviderEvent::Failed(ending) => {
                self.answer(Frame::Failed(ending)).await?;
                self.machine.noted(Vec::new());
                Ok(())
            }
            ProviderEvent::Noted(statement) => match self.ending.take() {
                Some(ending) => self.answer(Frame::Failed(Refused { statement: statement.into(), ..ending })).await,
                None => Ok(()),
            },
            ProviderEvent::Lost => Err(self.lost("its run is silent")),
            ProviderEvent::Accepted(_)
            | ProviderEvent::Wanted { .. }
            | ProviderEvent::Pieces(_)
            | ProviderEvent::Kept(_) => Ok(()),
        }
    }

    /// Tells the run that it cannot go on; it states so.
    fn fail(&mut self, problem: &Problem) {
        let ending = settle::refused(problem, None);
        self.ending = Some(ending.clone());
        self.machine.fail(ending);
    }

    /// What the consumer stated is on its way back before it hears that it is.
    async fn answer(&self, frame: Frame) -> Result<(), Problem> {
        self.bundle.answer(self.ctx, frame).await
    }

    fn lost(&self, cause: &str) -> Problem {
        Problem::new(Code::PeerUnreachable).with("peer", &self.ctx.name).cause(cause)
    }
    fn mismatch(&self, cause: &str) -> Problem {
        Problem::new(Code::Mismatch).with("peer", &self.bundle.from).cause(cause)
    }
}

/// Writes chunks on the first data channel that the consumer opens; the others are kept open for as long.
async fn write_chunks(connection: Arc<dyn Connection>, mut chunks: mpsc::Receiver<(ChunkHeader, Bytes)>) {
    let mut others = Vec::new();
    let Some(mut first) = data_channel(&connection).await else { return };
    loop {
        let next = tokio::select! {
            biased;
            next = chunks.recv() => next,
            Some(other) = connection.accept() => {
                others.push(other);
                continue;
            }
        };
        let Some((header, body)) = next else { break };
        let write = async {
            first.write_all(&header.encode()).await?;
            write_bytes(&mut first, body).await?;
            first.flush().await
        };
        if write.await.is_err() {
            // The run notices that its line is gone.
            return;
        }
    }
}

async fn data_channel(connection: &Arc<dyn Connection>) -> Option<Writer> {
    let (mut reader, writer) = frames::split(connection.accept().await?, "this node");
    let hello = reader.next().await.ok()??;
    matches!(hello, Frame::Hello(Hello { purpose: Purpose::Data(..), .. })).then(|| writer.into_inner())
}

fn read_list(ctx: &Arc<Context>, bundle: &Bundle) -> mpsc::Receiver<Result<Vec<Listed>, Problem>> {
    let (out, listed) = mpsc::channel(2);
    let (parts, key, world) = (bundle.parts_of(Holds::List), ctx.ferry.key.clone(), ctx.world.clone());
    tokio::spawn(async move {
        let mut list = List::new(parts);
        loop {
            let key = key.clone();
            let next = blocking(&world, move || {
                let frame = list.next(&key)?;
                Ok((list, frame))
            });
            let (rest, frame) = match next.await {
                Ok((rest, Some(frame))) => (rest, frame),
                Ok((_, None)) => return,
                Err(problem) => return drop(out.send(Err(problem)).await),
            };
            list = rest;
            let listed = match frame {
                Frame::Entries(entries) => entries.into_iter().map(Listed::Entry).collect(),
                Frame::LeftOut(left_out) => left_out.into_iter().map(|one| Listed::LeftOut(one.what)).collect(),
                // What it begins with was read before.
                _ => continue,
            };
            if out.send(Ok(listed)).await.is_err() {
                return;
            }
        }
    });
    listed
}

fn read_contents(ctx: &Arc<Context>, bundle: &Bundle) -> mpsc::Receiver<Result<(ChunkHeader, Bytes), Problem>> {
    let (out, chunks) = mpsc::channel(CHUNKS);
    let (parts, key, world) = (bundle.parts_of(Holds::Contents), ctx.ferry.key.clone(), ctx.world.clone());
    tokio::spawn(async move {
        let read = blocking(&world, {
            let out = out.clone();
            move || {
                for part in &parts {
                    let mut stream = Stream::open(part, &key)?;
                    while let Some(chunk) = next_chunk(part, &mut stream)? {
                        // Nobody listens any more when the session has ended.
                        if out.blocking_send(Ok(chunk)).is_err() {
                            return Ok(());
                        }
                    }
                }
                Ok(())
            }
        });
        if let Err(problem) = read.await {
            let _ = out.send(Err(problem)).await;
        }
    });
    chunks
}

fn next_chunk(part: &Found, stream: &mut Stream) -> Result<Option<(ChunkHeader, Bytes)>, Problem> {
    let unreadable = |e: io::Error| unreadable(&part.path, &e);
    let mut header = [0; CHUNK_HEADER_BYTES];
    let mut filled = 0;
    while filled < header.len() {
        match stream.read(&mut header[filled..]).map_err(unreadable)? {
            0 if filled == 0 => return Ok(None),
            0 => return Err(invalid(&part.path, "it ends within a chunk")),
            read => filled += read,
        }
    }
    let header = ChunkHeader::decode(&header).map_err(|e| invalid(&part.path, e))?;
    if header.form == Form::Delta {
        return Err(invalid(&part.path, "a delta says nothing without what it changes"));
    }
    let mut body = BytesMut::zeroed(header.wire_bytes as usize);
    stream.read_exact(&mut body).map_err(unreadable)?;
    Ok(Some((header, body.freeze())))
}

/// The frames of the parts of a list.
struct List {
    parts: VecDeque<Found>,
    open: Option<(Found, Stream)>,
    decoder: FrameDecoder,
}

impl List {
    fn new(parts: VecDeque<Found>) -> Self {
        Self { parts, open: None, decoder: FrameDecoder::new() }
    }

    fn next(&mut self, key: &posthouse_platform::identity::ferry_key::FerryKey) -> Result<Option<Frame>, Problem> {
        let mut buffer = vec![0; FEED_BYTES_MAX];
        loop {
            let Some((part, stream)) = &mut self.open else {
                let Some(part) = self.parts.pop_front() else { return Ok(None) };
                let stream = Stream::open(&part, key)?;
                self.open = Some((part, stream));
                continue;
            };
            if let Some(frame) = self.decoder.take().map_err(|e| invalid(&part.path, e))? {
                return Ok(Some(frame));
            }
            match stream.read(&mut buffer).map_err(|e| unreadable(&part.path, &e))? {
                0 if self.decoder.is_empty() => self.open = None,
                0 => return Err(invalid(&part.path, "it ends within a frame")),
                read => self.decoder.feed(&buffer[..read]).map_err(|e| invalid(&part.path, e))?,
            }
        }
    }
}

impl Bundle {
    fn parts_of(&self, holds: Holds) -> VecDeque<Found> {
        self.parts.iter().filter(|part| part.label.holds == holds).cloned().collect()
    }

    /// What is not what was sealed is put aside, so that another copy of it may come in its place. Where all of it is,
    /// it was made so, and no copy helps.
    async fn put_damaged_aside(&self, ctx: &Arc<Context>, problem: Problem) {
        let (parts, key) = (self.parts.clone(), ctx.ferry.key.clone());
        match blocking(&ctx.world, move || put_damaged_aside(&parts, &key)).await {
            Ok(0) => *locked(&self.broken) = Some(problem),
            // Whoever looks at the folder again finds what is there then.
            Ok(_) => ctx.ferry.forget(&self.transfer),
            Err(problem) => tracing::warn!(%problem, "A damaged part stays where it is"),
        }
    }

    /// Writes what the consumer says into a part for the provider.
    pub(super) async fn answer(&self, ctx: &Arc<Context>, frame: Frame) -> Result<(), Problem> {
        let mut maker = ctx.ferry.maker(ctx, &self.from, &self.transfer, &self.job, self.returns.clone())?;
        let frame = frame.encode();
        // Said once more it is the same part.
        let sha256 = codec::sha256(&frame);
        maker.edition.copy_from_slice(&sha256[..8]);
        blocking(&ctx.world, move || {
            let mut parts = Parts::new(maker, Holds::Answer);
            parts.put(&[&frame])?;
            parts.finish()?;
            parts.put_out()
        })
        .await
    }
}

const CHUNKS: usize = 4;
/// Of chunks whose turn has not come: more than may be read at once where they are recorded.
const WAITING_BYTES: usize = 24 << 20;
