//! Reads what was asked for, a few pieces at a time, and takes up what came of it: chunks for the line, the root
//! of a file that was read to its end, or how a file looks that has changed meanwhile.

use super::{Outgoing, Sending};
use crate::context::Context;
use crate::send::{Packed, Read, Wanted, is_quiet};
use crate::spent::What;
use posthouse_connectors::folder::FileStat;
use posthouse_protocol::chunk::{Form, Packing};
use posthouse_protocol::manifest::Entry;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::provider::{Provider, SendChunk};
use tokio::sync::mpsc;

/// The blocking reads of a session.
pub(super) struct Reads {
    /// How many read chunks; hashing a file to its end and looking at it again are not counted.
    under_way: usize,
    done: mpsc::UnboundedReceiver<ReadDone>,
    done_in: mpsc::UnboundedSender<ReadDone>,
}

pub(in crate::transfer::provider) enum ReadDone {
    /// What came of the chunks that were to be read.
    Chunks {
        asked: Vec<SendChunk>,
        read: Vec<Read>,
        packing: Packing,
    },
    Sealed {
        index: u64,
        revision: u32,
        root: Result<([u8; 32], Option<FileStat>), Problem>,
    },
    /// How a file that changed looks now.
    Looked {
        index: u64,
        now: Result<(Entry, FileStat), Problem>,
    },
}

/// What ends the session, around what ends the transfer.
type Taken = Result<Result<(), Problem>, Problem>;

impl Outgoing {
    /// Hands out as many chunks to read as there is room for on the line.
    pub(in crate::transfer::provider) fn read_more(&mut self, machine: &mut Provider) -> Result<(), Problem> {
        if self.lanes.open == 0 {
            return Ok(());
        }
        while self.reads.under_way < READS_MAX && self.unsent_bytes < UNSENT_BYTES_MAX {
            let mut batch: Vec<Wanted> = Vec::new();
            let mut bytes = 0;
            let mut count = 0;
            while bytes < READ_BYTES && count < READ_CHUNKS {
                let Some(send) = machine.poll_send() else { break };
                let Some(sending) = self.open.get(&send.entry) else {
                    // It was sent long ago; a new session lists it anew.
                    return Err(self.lost("a chunk was asked again too late"));
                };
                if sending.entry.revision != send.revision || sending.looking {
                    machine.unsent(&send);
                    continue;
                }
                bytes += u64::from(send.layout.bytes(send.chunk));
                count += 1;
                match batch.last_mut() {
                    Some(wanted) if wanted.entry.index == send.entry => wanted.chunks.push(send),
                    _ => batch.push(Wanted {
                        entry: sending.entry.clone(),
                        stat: sending.stat,
                        known: sending.known.clone(),
                        chunks: vec![send],
                    }),
                }
            }
            if batch.is_empty() {
                return Ok(());
            }
            self.reads.under_way += 1;
            self.unsent_bytes += bytes;
            let (supply, packing) = (self.supply.clone(), self.lanes.line.packing(bytes));
            // Of a table, what is read here was taken from its source before.
            let meters = supply.folder().is_some().then(|| self.meters.clone());
            self.reads.spawn(&self.ctx, move || {
                let _waits = meters.as_ref().map(|meters| meters.wait(What::Source));
                let read = batch.iter().flat_map(|wanted| supply.read(wanted, packing)).collect();
                let asked = batch.into_iter().flat_map(|wanted| wanted.chunks).collect();
                ReadDone::Chunks { asked, read, packing }
            });
        }
        Ok(())
    }

    /// Takes up what came of a read.
    pub(in crate::transfer::provider) fn read_done(&mut self, machine: &mut Provider, read: ReadDone) -> Taken {
        match read {
            ReadDone::Chunks { asked, read, packing } => self.chunks_read(machine, &asked, read, packing),
            ReadDone::Sealed { index, revision, root } => self.sealed(machine, index, revision, root),
            ReadDone::Looked { index, now } => self.looked(machine, index, now),
        }
    }

    fn chunks_read(&mut self, machine: &mut Provider, asked: &[SendChunk], read: Vec<Read>, packing: Packing) -> Taken {
        self.reads.under_way -= 1;
        let mut packed = Vec::with_capacity(read.len());
        for one in read {
            match one {
                Read::Packed(one) => packed.push(one),
                Read::Whole { entry, revision, root, stat } => {
                    if let Some(sending) = self.open.get_mut(&entry).filter(|s| s.entry.revision == revision) {
                        sending.root = Some((root, stat));
                    }
                }
                Read::Changed { entry, revision } => self.look_again(entry, revision),
                Read::Failed { problem, .. } if self.supply.folder().is_none() => return Ok(Err(problem)),
                Read::Failed { entry, revision, problem } => self.leave_out(machine, entry, revision, &problem)?,
            }
        }
        let mut known = Vec::new();
        for Packed { header, .. } in &packed {
            if packing != Packing::Not && header.form != Form::Delta && header.bytes >= TRIAL_BYTES_MIN {
                self.lanes.line.tried(header.is_raw());
            }
            if let Some(sending) = self.open.get_mut(&header.entry)
                && sending.entry.revision == header.revision
            {
                sending.left = sending.left.map(|left| left.saturating_sub(1));
                known.extend(self.seal_if_read(header.entry));
            }
        }
        for send in asked {
            let came = |one: &Packed| {
                (one.header.entry, one.header.revision, one.header.chunk) == (send.entry, send.revision, send.chunk)
            };
            if !packed.iter().any(came) {
                self.no_longer_unsent(u64::from(send.layout.bytes(send.chunk)));
                machine.unsent(send);
            }
        }
        if !packed.is_empty() {
            // The lanes share the queue; when they are gone the session ends by their word.
            let _ = self.lanes.queue.send(packed);
        }
        // Small files are sealed as they were read, many at once: their roots leave in one frame.
        for one in known {
            let taken = self.read_done(machine, one)?;
            if taken.is_err() {
                return Ok(taken);
            }
        }
        Ok(Ok(()))
    }

    fn sealed(
        &mut self,
        machine: &mut Provider,
        index: u64,
        revision: u32,
        root: Result<([u8; 32], Option<FileStat>), Problem>,
    ) -> Taken {
        let Some(sending) = self.open.get_mut(&index).filter(|s| s.entry.revision == revision) else {
            return Ok(Ok(()));
        };
        match root {
            Ok((root, stat)) => {
                sending.entry.root = Some(root.into());
                sending.stat = stat;
                let entry = sending.entry.clone();
                self.share(&entry, stat);
                if let Some(stat) = stat.filter(|stat| is_quiet(stat, self.ctx.world.clock.now())) {
                    self.hashes.push((entry.name.clone(), stat, root));
                    self.hashed_bytes = self.hashed_bytes.saturating_add(stat.size);
                }
                self.finals.put(entry.clone());
                self.done_with(index);
                Ok(machine.sealed(entry))
            }
            Err(problem) if problem.code == Code::FileChanged => {
                self.look_again(index, revision);
                Ok(Ok(()))
            }
            Err(problem) if self.supply.folder().is_some() => {
                self.leave_out(machine, index, revision, &problem).map(Ok)
            }
            Err(problem) => Ok(Err(problem)),
        }
    }

    fn looked(&mut self, machine: &mut Provider, index: u64, now: Result<(Entry, FileStat), Problem>) -> Taken {
        let Some(sending) = self.open.get(&index) else { return Ok(Ok(())) };
        let revision = sending.entry.revision;
        if sending.entry.root.is_some() || index < machine.finished() {
            // It was listed as known and is another now: a new session lists it as it is.
            return Err(self.lost("a file changed after it was listed"));
        }
        match now {
            Ok(_) if revision + 1 >= REVISIONS_MAX => {
                let name = String::from_utf8_lossy(&sending.entry.name).into_owned();
                let problem = Problem::new(Code::FileChanged).with("name", name);
                self.leave_out(machine, index, revision, &problem).map(Ok)
            }
            Ok((entry, stat)) => {
                self.supply.close(index);
                self.open.insert(index, Sending::new(entry.clone(), Some(stat)));
                Ok(machine.again(entry))
            }
            Err(problem) => self.leave_out(machine, index, revision, &problem).map(Ok),
        }
    }

    /// Everything wanted of it was read: what is left is hashed too, and its root follows. Gives it where it is known.
    #[must_use]
    pub(super) fn seal_if_read(&mut self, index: u64) -> Option<ReadDone> {
        let sending = self.open.get_mut(&index)?;
        if sending.left != Some(0) || sending.sealing || sending.looking {
            return None;
        }
        if sending.entry.root.is_some() {
            self.done_with(index);
            return None;
        }
        sending.sealing = true;
        let shared = sending.entry.same_as.and_then(|first| self.shared.get(&first));
        if let Some((stat, root)) = shared.filter(|(stat, _)| sending.stat == Some(*stat)) {
            // The same file under another name: it need not be read once more.
            let root = Ok((*root, Some(*stat)));
            return Some(ReadDone::Sealed { index, revision: sending.entry.revision, root });
        }
        if let Some((root, stat)) = sending.root {
            let root = Ok((root, Some(stat)));
            return Some(ReadDone::Sealed { index, revision: sending.entry.revision, root });
        }
        let (entry, stat, supply) = (sending.entry.clone(), sending.stat, self.supply.clone());
        self.reads.spawn(&self.ctx, move || {
            let root = supply.seal(&entry, stat);
            ReadDone::Sealed { index: entry.index, revision: entry.revision, root }
        });
        None
    }

    /// A file changed while it was read: how does it look now?
    fn look_again(&mut self, index: u64, revision: u32) {
        let Some(sending) = self.open.get_mut(&index).filter(|s| s.entry.revision == revision) else { return };
        // One look is enough, however many of its chunks were torn.
        if std::mem::replace(&mut sending.looking, true) {
            return;
        }
        let (entry, supply) = (sending.entry.clone(), self.supply.clone());
        self.reads.spawn(&self.ctx, move || {
            let now = match supply.folder() {
                Some(folder) => folder.open_file(&entry.name).and_then(|file| {
                    let stat = file.stat();
                    let attributes = entry.attributes.as_ref().map(|_| file.attributes()).transpose()?;
                    let entry = Entry {
                        size: stat.size,
                        mode: stat.mode & 0o1777,
                        mtime_ns: stat.mtime_ns,
                        root: None,
                        revision: entry.revision + 1,
                        attributes,
                        ..entry.clone()
                    };
                    Ok((entry, stat))
                }),
                None => Err(Problem::new(Code::InsideFailed).cause("a split changed in the spool")),
            };
            ReadDone::Looked { index: entry.index, now }
        });
    }
}

impl Reads {
    pub(super) fn new() -> Self {
        let (done_in, done) = mpsc::unbounded_channel();
        Self { under_way: 0, done, done_in }
    }

    /// The next that is done. It waits for ever where nothing is read.
    pub(super) async fn next(&mut self) -> ReadDone {
        match self.done.recv().await {
            Some(done) => done,
            None => std::future::pending().await,
        }
    }

    /// What is known without reading.
    pub(super) fn came(&self, done: ReadDone) {
        // The session holds the other end.
        let _ = self.done_in.send(done);
    }

    fn spawn(&self, ctx: &Context, work: impl FnOnce() -> ReadDone + Send + 'static) {
        let (world, done) = (ctx.world.clone(), self.done_in.clone());
        tokio::spawn(async move {
            // A session that is over does not wait for it.
            let work = move || drop(done.send(work()));
            // A panic leaves the session waiting for its answer until the peer's patience ends; it is logged.
            if let Err(panicked) = world.blocking.run(work).await {
                tracing::error!(%panicked, "Reading failed");
            }
        });
    }
}

/// Blocking reads at once, and what one of them takes.
const READS_MAX: usize = 4;
const READ_BYTES: u64 = 1 << 20;
const READ_CHUNKS: usize = 64;
/// Content that was read and is not on the line yet.
const UNSENT_BYTES_MAX: u64 = 8 << 20;
/// A file is read this often before it is left out.
const REVISIONS_MAX: u32 = 3;
/// Shorter content says nothing of what else there is.
const TRIAL_BYTES_MIN: u32 = 64 << 10;
