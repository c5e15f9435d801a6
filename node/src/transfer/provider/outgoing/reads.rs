//! Reads what was asked for, a few pieces at a time, and takes up what came of it: chunks for the line, the root
//! of a file that was read to its end, or how a file looks that has changed meanwhile.

use super::Sending;
use crate::context::Context;
use crate::send::{Packed, Read};
use crate::transfer::provider::answer::Given;
use crate::transfer::provider::{Session, lost};
use posthouse_connectors::folder::FileStat;
use posthouse_protocol::manifest::Entry;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::provider::SendChunk;
use posthouse_protocol::time::Timestamp;
use std::sync::Arc;

pub(in crate::transfer::provider) enum ReadDone {
    /// What came of the chunks that were to be read.
    Chunks {
        asked: Vec<SendChunk>,
        read: Vec<Read>,
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

impl Session {
    /// Hands out as many chunks to read as there is room for on the line.
    pub(in crate::transfer::provider) fn read_more(&mut self) -> Result<(), Problem> {
        let Some(given) = &mut self.given else { return Ok(()) };
        if given.lanes.open == 0 {
            return Ok(());
        }
        while given.reading < READS_MAX && given.unsent_bytes < UNSENT_BYTES_MAX {
            let mut batch: Vec<(Entry, Option<FileStat>, Vec<SendChunk>)> = Vec::new();
            let mut bytes = 0;
            let mut count = 0;
            while bytes < READ_BYTES && count < READ_CHUNKS {
                let Some(send) = self.machine.poll_send() else { break };
                let Some(sending) = given.open.get(&send.entry) else {
                    // It was sent long ago; a new session lists it anew.
                    return Err(lost(&self.caller.peer, "a chunk was asked again too late"));
                };
                if sending.entry.revision != send.revision || sending.looking {
                    self.machine.unsent(&send);
                    continue;
                }
                bytes += u64::from(send.layout.bytes(send.chunk));
                count += 1;
                match batch.last_mut() {
                    Some((entry, _, chunks)) if entry.index == send.entry => chunks.push(send),
                    _ => batch.push((sending.entry.clone(), sending.stat, vec![send])),
                }
            }
            if batch.is_empty() {
                return Ok(());
            }
            given.reading += 1;
            given.unsent_bytes += bytes;
            let (supply, done) = (given.supply.clone(), given.read_done.clone());
            given.spawn(&self.ctx, move || {
                let read = batch.iter().flat_map(|(entry, stat, chunks)| supply.read(entry, *stat, chunks)).collect();
                // A session that is over does not wait for it.
                let asked = batch.into_iter().flat_map(|(_, _, chunks)| chunks).collect();
                let _ = done.send(ReadDone::Chunks { asked, read });
            });
        }
        Ok(())
    }

    pub(in crate::transfer::provider) fn read_done(&mut self, read: ReadDone) -> Result<Result<(), Problem>, Problem> {
        let Some(given) = self.given.as_mut().filter(|given| given.moving) else { return Ok(Ok(())) };
        match read {
            ReadDone::Chunks { asked, read } => {
                given.reading -= 1;
                let mut packed = Vec::with_capacity(read.len());
                for one in read {
                    match one {
                        Read::Packed(one) => packed.push(one),
                        Read::Changed { entry, revision } => given.look_again(&self.ctx, entry, revision),
                        Read::Failed { entry, revision, problem } => {
                            if given.supply.folder().is_none() {
                                return Ok(Err(problem));
                            }
                            given.leave_out(&mut self.machine, entry, revision, &problem)?;
                        }
                    }
                }
                for Packed { header, .. } in &packed {
                    let index = header.entry;
                    if let Some(sending) = given.open.get_mut(&index)
                        && sending.entry.revision == header.revision
                    {
                        sending.left = sending.left.map(|left| left.saturating_sub(1));
                        given.seal_if_read(&self.ctx, index);
                    }
                }
                for send in &asked {
                    let came = |one: &Packed| {
                        (one.header.entry, one.header.revision, one.header.chunk)
                            == (send.entry, send.revision, send.chunk)
                    };
                    if !packed.iter().any(came) {
                        let bytes = u64::from(send.layout.bytes(send.chunk));
                        given.unsent_bytes = given.unsent_bytes.saturating_sub(bytes);
                        self.machine.unsent(send);
                    }
                }
                if !packed.is_empty() {
                    // The lanes share the queue; when they are gone the session ends by their word.
                    let _ = given.queue.send(packed);
                }
                Ok(Ok(()))
            }
            ReadDone::Sealed { index, revision, root } => {
                let Some(sending) = given.open.get(&index).filter(|s| s.entry.revision == revision) else {
                    return Ok(Ok(()));
                };
                match root {
                    Ok((root, stat)) => {
                        let mut entry = sending.entry.clone();
                        entry.root = Some(root.into());
                        let stat_as_read = stat;
                        if let Some(stat) = stat.filter(|stat| is_quiet(stat, self.ctx.world.clock.now())) {
                            given.hashes.push((entry.name.clone(), stat, root));
                        }
                        given.finals.insert(index, entry.clone());
                        if let Some(sending) = given.open.get_mut(&index) {
                            sending.entry.root = entry.root;
                            sending.stat = stat_as_read;
                        }
                        given.done_with(index);
                        Ok(self.machine.sealed(entry))
                    }
                    Err(problem) if problem.code == Code::FileChanged => {
                        given.look_again(&self.ctx, index, revision);
                        Ok(Ok(()))
                    }
                    Err(problem) if given.supply.folder().is_some() => {
                        given.leave_out(&mut self.machine, index, revision, &problem).map(Ok)
                    }
                    Err(problem) => Ok(Err(problem)),
                }
            }
            ReadDone::Looked { index, now } => {
                let Some(sending) = given.open.get(&index) else { return Ok(Ok(())) };
                let revision = sending.entry.revision;
                if sending.entry.root.is_some() || given.finals.contains_key(&index) {
                    // It was listed as known and is another now: a new session lists it as it is.
                    return Err(self.lost("a file changed after it was listed"));
                }
                match now {
                    Ok(_) if revision + 1 >= REVISIONS_MAX => {
                        let name = String::from_utf8_lossy(&sending.entry.name).into_owned();
                        let problem = Problem::new(Code::FileChanged).with("name", name);
                        given.leave_out(&mut self.machine, index, revision, &problem).map(Ok)
                    }
                    Ok((entry, stat)) => {
                        given.supply.close(index);
                        let sending = Sending {
                            entry: entry.clone(),
                            stat: Some(stat),
                            left: None,
                            sealing: false,
                            looking: false,
                        };
                        given.open.insert(index, sending);
                        Ok(self.machine.again(entry))
                    }
                    Err(problem) => given.leave_out(&mut self.machine, index, revision, &problem).map(Ok),
                }
            }
        }
    }
}

impl Given {
    fn spawn(&self, ctx: &Arc<Context>, work: impl FnOnce() + Send + 'static) {
        let world = ctx.world.clone();
        tokio::spawn(async move {
            // A panic leaves the session waiting for its answer until the peer's patience ends; it is logged.
            if let Err(panicked) = world.blocking.run(work).await {
                tracing::error!(%panicked, "Reading failed");
            }
        });
    }

    /// Everything wanted of it was read: what is left is hashed too, and its root follows.
    pub(in crate::transfer::provider) fn seal_if_read(&mut self, ctx: &Arc<Context>, index: u64) {
        let Some(sending) = self.open.get_mut(&index) else { return };
        if sending.left != Some(0) || sending.sealing || sending.looking {
            return;
        }
        if sending.entry.root.is_some() {
            self.done_with(index);
            return;
        }
        sending.sealing = true;
        let (entry, stat) = (sending.entry.clone(), sending.stat);
        let (supply, done) = (self.supply.clone(), self.read_done.clone());
        self.spawn(ctx, move || {
            let root = supply.seal(&entry, stat);
            let _ = done.send(ReadDone::Sealed { index: entry.index, revision: entry.revision, root });
        });
    }

    /// A file changed while it was read: how does it look now?
    fn look_again(&mut self, ctx: &Arc<Context>, index: u64, revision: u32) {
        let Some(sending) = self.open.get_mut(&index).filter(|s| s.entry.revision == revision) else { return };
        // One look is enough, however many of its chunks were torn.
        if std::mem::replace(&mut sending.looking, true) {
            return;
        }
        let (entry, supply, done) = (sending.entry.clone(), self.supply.clone(), self.read_done.clone());
        self.spawn(ctx, move || {
            let now = match supply.folder() {
                Some(folder) => folder.open_file(&entry.name).map(|file| {
                    let stat = file.stat();
                    let entry = Entry {
                        size: stat.size,
                        mode: stat.mode & 0o1777,
                        mtime_ns: stat.mtime_ns,
                        root: None,
                        revision: entry.revision + 1,
                        ..entry.clone()
                    };
                    (entry, stat)
                }),
                None => Err(Problem::new(Code::InsideFailed).cause("a split changed in the spool")),
            };
            let _ = done.send(ReadDone::Looked { index: entry.index, now });
        });
    }
}

/// Whether a file has rested long enough for its times to tell of any later change.
fn is_quiet(stat: &FileStat, now: Timestamp) -> bool {
    now.0.saturating_sub(stat.mtime_ns.max(stat.ctime_ns) / 1_000_000) > QUIET_MS
}

/// Blocking reads at once, and what one of them takes.
const READS_MAX: usize = 4;
const READ_BYTES: u64 = 1 << 20;
const READ_CHUNKS: usize = 64;
/// Content that was read and is not on the line yet.
const UNSENT_BYTES_MAX: u64 = 8 << 20;
/// A file is read this often before it is left out.
const REVISIONS_MAX: u32 = 3;
const QUIET_MS: i64 = 2_000;
