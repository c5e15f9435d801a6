//! The entries of a session on their way out: listed, read, sealed, on the line, and kept a while for chunks that
//! came broken. Which entries there are says the feed, and what is asked of them the machine; both are told from
//! here what cannot be sent after all.

mod finals;
mod reads;

pub(super) use reads::ReadDone;

use super::lost;
use crate::context::Context;
use crate::send::{self, KnownPieces, Line, Packed, Sent, Supply};
use crate::settle::Subject;
use crate::spent::Meters;
use crate::store::exchange;
use finals::Finals;
use posthouse_connectors::folder::{FileStat, left_out};
use posthouse_platform::endpoint::Writer;
use posthouse_protocol::delta::Cut;
use posthouse_protocol::frame::Pieces;
use posthouse_protocol::id::{JobId, NodeId, ResourceId};
use posthouse_protocol::limits;
use posthouse_protocol::manifest::{Entry, LeftOut};
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::provider::Provider;
use reads::Reads;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;

pub(super) struct Outgoing {
    ctx: Arc<Context>,
    consumer: NodeId,
    resource: ResourceId,
    job: JobId,
    supply: Arc<Supply>,
    /// Files whose root is not known when they are listed, until they are sealed; and a few that were.
    open: BTreeMap<u64, Sending>,
    finals: Finals,
    /// Entries that are sealed and sent, kept a while: a chunk that came broken is asked again.
    recent: VecDeque<u64>,
    /// Files that have further names, as they were when their root was known.
    shared: BTreeMap<u64, (FileStat, [u8; 32])>,
    /// Roots of files that were hashed here and are not stored yet.
    hashes: Vec<(Vec<u8>, FileStat, [u8; 32])>,
    /// How much these files have together.
    hashed_bytes: u64,
    /// A group of them is being stored.
    keeping: Option<JoinHandle<Result<(), Problem>>>,
    files_sent: u64,
    reads: Reads,
    /// Content that is being read, or was and is not on the line yet.
    unsent_bytes: u64,
    meters: Arc<Meters>,
    lanes: Lanes,
}

/// The data channels of the session, and what they share.
struct Lanes {
    open: u8,
    queue: mpsc::UnboundedSender<Vec<Packed>>,
    queued: Arc<Mutex<mpsc::UnboundedReceiver<Vec<Packed>>>>,
    sent: mpsc::UnboundedReceiver<Result<Sent, Problem>>,
    sent_in: mpsc::UnboundedSender<Result<Sent, Problem>>,
    line: Arc<Line>,
}

struct Sending {
    entry: Entry,
    stat: Option<FileStat>,
    /// Chunks of the first answer that were not read yet; None before it came.
    left: Option<u32>,
    sealing: bool,
    /// Its root, and how it looked, where a read has shown that on its way.
    root: Option<([u8; 32], FileStat)>,
    /// It changed, and is being looked at again.
    looking: bool,
    /// Content at the consumer that may be in it, as long as that is being told.
    told: Option<(Cut, Vec<u8>)>,
    known: Option<Arc<KnownPieces>>,
}

/// What came of work elsewhere.
#[expect(clippy::large_enum_variant, reason = "it is taken apart as soon as it comes")]
pub(super) enum Came {
    Sent(Result<Sent, Problem>),
    Read(ReadDone),
}

impl Outgoing {
    pub(super) fn new(ctx: &Arc<Context>, subject: &Subject, supply: Supply, takes_lz4: bool) -> Self {
        let (queue, queued) = mpsc::unbounded_channel();
        let (sent_in, sent) = mpsc::unbounded_channel();
        let meters = ctx.meters(&subject.transfer);
        let line = Arc::new(Line::new(ctx.world.clock.clone(), takes_lz4, meters.clone()));
        Self {
            ctx: ctx.clone(),
            consumer: subject.consumer.clone(),
            resource: subject.resource.resource.clone(),
            job: subject.job.clone(),
            supply: Arc::new(supply),
            open: BTreeMap::new(),
            finals: Finals::default(),
            recent: VecDeque::new(),
            shared: BTreeMap::new(),
            hashes: Vec::new(),
            hashed_bytes: 0,
            keeping: None,
            files_sent: 0,
            reads: Reads::new(),
            unsent_bytes: 0,
            meters,
            lanes: Lanes { open: 0, queue, queued: Arc::new(Mutex::new(queued)), sent, sent_in, line },
        }
    }

    /// Waits for what the data channels and the reads come to. Nothing is lost when the wait is given up.
    pub(super) async fn next(&mut self) -> Came {
        tokio::select! {
            biased;
            Some(sent) = self.lanes.sent.recv() => Came::Sent(sent),
            read = self.reads.next() => Came::Read(read),
        }
    }

    /// The feed lists it.
    pub(super) fn listed(&mut self, entry: &Entry, stat: Option<FileStat>) {
        let has_content = send::has_content(entry);
        self.share(entry, stat);
        if has_content {
            self.open.insert(entry.index, Sending::new(entry.clone(), stat));
        }
        if entry.root.is_some() || !has_content {
            self.finals.put(entry.clone());
        }
    }

    /// The root of a file that has further names is that of those, as long as it is as it was.
    fn share(&mut self, entry: &Entry, stat: Option<FileStat>) {
        let is_first = entry.same_as == Some(entry.index) && self.shared.len() < limits::SAME_FILES_MAX;
        if let (true, Some(stat), Some(root)) = (is_first, stat, entry.root) {
            self.shared.insert(entry.index, (stat, *root));
        }
    }

    /// The consumer asks for so many chunks of it at first.
    pub(super) fn wanted(&mut self, index: u64, revision: u32, chunks: u32) {
        if let Some(sending) = self.open.get_mut(&index)
            && sending.entry.revision == revision
        {
            sending.left = Some(chunks);
            sending.known = sending.told.take().map(|(cut, pieces)| send::known_pieces(cut, pieces));
            self.files_sent += u64::from(chunks > 0);
            if let Some(done) = self.seal_if_read(index) {
                self.reads.came(done);
            }
        }
    }

    /// The consumer has content that may be in an entry; or what it said before is not so any more.
    pub(super) fn told_pieces(&mut self, told: Pieces) {
        let sending = self.open.get_mut(&told.entry).filter(|sending| sending.entry.revision == told.revision);
        let (Some(sending), Ok(cut)) = (sending, Cut::new(told.mean)) else { return };
        if told.pieces.is_empty() {
            (sending.told, sending.known) = (None, None);
        } else {
            sending.told.get_or_insert_with(|| (cut, Vec::new())).1.extend_from_slice(&told.pieces);
        }
    }

    /// Takes a data channel that the consumer opened, up to as many as were offered.
    pub(super) fn open_lane(&mut self, writer: Writer, most: u8) {
        if self.lanes.open >= most {
            return;
        }
        self.lanes.open += 1;
        let (queued, sent, line) = (self.lanes.queued.clone(), self.lanes.sent_in.clone(), self.lanes.line.clone());
        let (consumer, job) = (self.consumer.clone(), self.job.clone());
        tokio::spawn(send::run_channel(self.ctx.clone(), writer, queued, sent, line, consumer, job));
    }

    /// So much content is on the line, or is not read after all.
    pub(super) fn no_longer_unsent(&mut self, bytes: u64) {
        self.unsent_bytes = self.unsent_bytes.saturating_sub(bytes);
    }

    /// The entry is left out, by either side.
    pub(super) fn drop_entry(&mut self, index: u64) {
        self.supply.close(index);
        self.open.remove(&index);
        self.finals.leave_out(index);
    }

    /// Entries below this one, all of them final at the machine, for the list: where they may be so many.
    pub(super) fn take_finals(&mut self, below: u64, least: u64) -> Vec<Entry> {
        self.finals.take(below, least)
    }
    pub(super) fn files_sent(&self) -> u64 {
        self.files_sent
    }

    /// Has the roots of files that were hashed here stored, in groups: where there are at least so many, or so much was
    /// read for them that it should not be read again. Reading goes on meanwhile; one group at a time.
    pub(super) async fn keep_hashes(&mut self, least: usize) -> Result<(), Problem> {
        if self.hashes.len() < least && self.hashed_bytes < HASHED_BYTES {
            return Ok(());
        }
        self.hashes_kept().await?;
        self.hashed_bytes = 0;
        let (hashes, resource) = (std::mem::take(&mut self.hashes), self.resource.clone());
        let store = self.ctx.store.clone();
        self.keeping = Some(tokio::spawn(async move {
            let keep = move |tx: &rusqlite::Transaction<'_>| {
                hashes.iter().try_for_each(|(name, stat, root)| exchange::put_hashed(tx, &resource, name, stat, root))
            };
            store.write(keep).await
        }));
        Ok(())
    }

    /// Waits until the last group is stored.
    pub(super) async fn hashes_kept(&mut self) -> Result<(), Problem> {
        match self.keeping.take() {
            Some(keeping) => keeping.await.map_err(|e| Problem::new(Code::InsideFailed).cause(e))?,
            None => Ok(()),
        }
    }

    /// It cannot be handed over. An entry that is done with at the machine ends the session instead.
    fn leave_out(
        &mut self,
        machine: &mut Provider,
        index: u64,
        revision: u32,
        problem: &Problem,
    ) -> Result<(), Problem> {
        let Some(sending) = self.open.get(&index).filter(|s| s.entry.revision == revision) else { return Ok(()) };
        let what: LeftOut = left_out(&sending.entry.name, problem);
        self.drop_entry(index);
        machine.left_out(Some(index), what)
    }

    /// Everything of it was read.
    fn done_with(&mut self, index: u64) {
        self.supply.close(index);
        if let Some(sending) = self.open.get_mut(&index) {
            sending.known = None;
        }
        self.recent.push_back(index);
        if self.recent.len() > RECENT_MAX
            && let Some(old) = self.recent.pop_front()
        {
            self.open.remove(&old);
        }
    }

    fn lost(&self, cause: &str) -> Problem {
        lost(&self.consumer, cause)
    }
}

impl Sending {
    fn new(entry: Entry, stat: Option<FileStat>) -> Self {
        Self { entry, stat, left: None, sealing: false, root: None, looking: false, told: None, known: None }
    }
}

const RECENT_MAX: usize = 1024;
/// Content whose roots are not stored, before they are.
const HASHED_BYTES: u64 = 256 << 20;
