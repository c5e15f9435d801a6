//! Chunks between their arrival and their place in a file. They are written in small groups, several at once; an
//! entry is complete only when none of its chunks is under way any more.

use super::{Done, Session};
use crate::spent::What;
use crate::transfer::steady;
use posthouse_protocol::chunk::{ChunkMeta, VerifiedChunk};
use posthouse_protocol::manifest::Entry;
use posthouse_protocol::problem::{Code, Problem};
use std::collections::{BTreeMap, VecDeque};

#[derive(Default)]
pub(super) struct Writing {
    waiting: VecDeque<VerifiedChunk>,
    jobs: usize,
    /// Content of what is being written.
    bytes: u64,
    /// How many chunks of an entry wait or are being written.
    under_way: BTreeMap<u64, usize>,
    /// Entries that are complete but for these.
    complete: BTreeMap<u64, Entry>,
    /// Content that came although an earlier process had it; counted in whole chunks, small ones together.
    resent_bytes: u64,
}

/// What came of one group.
pub(super) struct Wrote {
    metas: Vec<ChunkMeta>,
    /// Bytes of it that had come to an earlier process.
    again: u64,
    result: Result<(), Problem>,
}

impl Writing {
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < WAITING_MAX
    }
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
    pub(super) fn is_writing(&self) -> bool {
        self.jobs > 0
    }
    pub(super) fn is_busy(&self) -> bool {
        self.jobs > 0 || !self.waiting.is_empty() || !self.complete.is_empty()
    }
    pub(super) fn resent_bytes(&self) -> u64 {
        self.resent_bytes
    }

    pub(super) fn push(&mut self, chunk: VerifiedChunk) {
        *self.under_way.entry(chunk.meta().entry()).or_default() += 1;
        self.waiting.push_back(chunk);
    }

    /// Gives an entry of which everything has come back, unless some of it is still to be written.
    pub(super) fn complete_later(&mut self, entry: Entry) -> Option<Entry> {
        if !self.under_way.contains_key(&entry.index) {
            return Some(entry);
        }
        self.complete.insert(entry.index, entry);
        None
    }

    /// Forgets what was complete of an entry that begins anew or is left out.
    pub(super) fn forget(&mut self, index: u64) {
        self.complete.remove(&index);
    }

    /// Takes out the waiting chunks of an entry that begins anew.
    fn take_waiting(&mut self, index: u64) -> VecDeque<VerifiedChunk> {
        let (taken, kept) =
            std::mem::take(&mut self.waiting).into_iter().partition(|chunk| chunk.meta().entry() == index);
        self.waiting = kept;
        taken
    }

    /// One chunk of it is under way no more.
    fn one_less(&mut self, index: u64) {
        if let Some(left) = self.under_way.get_mut(&index) {
            *left -= 1;
            if *left == 0 {
                self.under_way.remove(&index);
            }
        }
    }

    /// The entry, if this was the last that it waited for.
    fn completed(&mut self, index: u64) -> Option<Entry> {
        if self.under_way.contains_key(&index) { None } else { self.complete.remove(&index) }
    }
}

impl Session<'_> {
    pub(super) fn write_some(&mut self) {
        let Some(accepted) = &self.accepted else { return };
        let (stage, arrived) = (accepted.stage.clone(), accepted.arrived.clone());
        while self.writing.jobs < JOBS && !self.writing.waiting.is_empty() && self.durable.has_room(self.writing.bytes)
        {
            let mut batch = Vec::new();
            let mut bytes = 0;
            while bytes < JOB_BYTES && batch.len() < JOB_CHUNKS {
                let Some(chunk) = self.writing.waiting.pop_front() else { break };
                let Some(entry) = self.listing.awaited(chunk.meta().entry()).cloned() else {
                    // Its entry was left out meanwhile.
                    self.not_written(&chunk.meta());
                    continue;
                };
                bytes += u64::from(chunk.meta().bytes());
                batch.push((entry, chunk));
            }
            if batch.is_empty() {
                return;
            }
            self.writing.jobs += 1;
            self.writing.bytes += bytes;
            let (stage, arrived, done) = (stage.clone(), arrived.clone(), self.jobs_in.clone());
            let (blocking, meters) = (self.ctx.world.blocking.clone(), self.meters.clone());
            tokio::spawn(async move {
                let metas: Vec<ChunkMeta> = batch.iter().map(|(_, chunk)| chunk.meta()).collect();
                let written = blocking.run(move || {
                    let _waits = meters.wait(What::Destination);
                    let again = arrived.note(&batch);
                    (again, stage.write(&batch))
                });
                let (again, result) = match written.await {
                    Ok(written) => written,
                    Err(panicked) => (0, Err(Problem::new(Code::InsideFailed).cause(panicked))),
                };
                let _ = done.send(Done::Wrote(Wrote { metas, again, result }));
            });
        }
    }

    pub(super) fn wrote(&mut self, wrote: Wrote) -> Result<(), Problem> {
        let Wrote { metas, again, result } = wrote;
        self.writing.jobs -= 1;
        self.writing.bytes -= metas.iter().map(|meta| u64::from(meta.bytes())).sum::<u64>();
        self.writing.resent_bytes += again;
        let now = steady(&self.ctx.world);
        let (mut free, mut bytes) = (0, 0);
        for meta in metas {
            self.writing.one_less(meta.entry());
            if result.is_err() {
                continue;
            }
            match self.listing.awaited(meta.entry()).filter(|entry| entry.revision == meta.revision()) {
                Some(entry) => {
                    free += self.durable.wrote(entry, &meta, now);
                    bytes += u64::from(meta.bytes());
                }
                None => free += meta.credit(),
            }
            if let Some(entry) = self.writing.completed(meta.entry()) {
                self.complete(entry)?;
            }
        }
        if free > 0 {
            self.give_back(free);
        }
        self.run.registered.show(|live| live.bytes += bytes);
        result
    }

    /// Waits for the writes that are under way. None to this entry is any more, and none that waits is awaited.
    pub(super) async fn wait_for_writes(&mut self, index: u64) -> Result<(), Problem> {
        let mut later = Vec::new();
        let mut result = Ok(());
        while self.writing.is_writing() {
            match self.jobs.recv().await {
                Some(Done::Wrote(wrote)) => {
                    let wrote = self.wrote(wrote);
                    result = result.and(wrote);
                }
                Some(other) => later.push(other),
                None => break,
            }
        }
        self.writing.under_way.remove(&index);
        for done in later {
            // They are taken up in their turn.
            let _ = self.jobs_in.send(done);
        }
        result
    }

    /// The chunks of an entry that wait to be written are void.
    pub(super) fn void_waiting(&mut self, index: u64) {
        for chunk in self.writing.take_waiting(index) {
            self.not_written(&chunk.meta());
        }
    }

    /// A chunk that is not written after all: its credit is free again.
    fn not_written(&mut self, meta: &ChunkMeta) {
        self.writing.one_less(meta.entry());
        self.give_back(meta.credit());
    }
}

/// So many that the credit is what holds the provider back: it must not take a busy disk here for a slow line.
const WAITING_MAX: usize = 4096;
/// Groups that are written at once, and what one holds.
const JOBS: usize = 3;
const JOB_BYTES: u64 = 2 << 20;
const JOB_CHUNKS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use posthouse_protocol::manifest::EntryKind;

    fn entry(index: u64) -> Entry {
        let kind = EntryKind::File;
        Entry {
            index,
            name: b"scan.pdf".to_vec(),
            kind,
            size: 3,
            mode: 0o644,
            mtime_ns: 0,
            root: None,
            revision: 0,
            same_as: None,
            attributes: None,
        }
    }

    #[test]
    fn an_entry_is_complete_with_the_last_of_its_chunks() {
        let mut writing = Writing { under_way: BTreeMap::from([(7, 2)]), ..Default::default() };
        assert_eq!(writing.complete_later(entry(8)), Some(entry(8)));
        assert_eq!(writing.complete_later(entry(7)), None);
        assert!(writing.is_busy());
        writing.one_less(7);
        assert_eq!(writing.completed(7), None);
        writing.one_less(7);
        assert_eq!(writing.completed(7), Some(entry(7)));
        assert_eq!(writing.completed(7), None);
        assert!(!writing.is_busy());
    }
}
