//! Chunks between their arrival and their place in a file.

use super::{Done, Session};
use crate::transfer::steady;
use posthouse_protocol::chunk::ChunkMeta;
use posthouse_protocol::problem::{Code, Problem};

impl Session<'_> {
    pub(super) fn write_some(&mut self) {
        let Some(stage) = self.stage.clone() else { return };
        while self.write_jobs < WRITE_JOBS && !self.writes.is_empty() {
            let mut batch = Vec::new();
            let mut bytes = 0;
            while bytes < WRITE_BYTES && batch.len() < WRITE_CHUNKS {
                let Some(chunk) = self.writes.pop_front() else { break };
                let Some(entry) = self.open.get(&chunk.meta().entry()).cloned() else {
                    // Its entry was left out meanwhile.
                    self.give_back(&chunk.meta());
                    continue;
                };
                bytes += u64::from(chunk.meta().bytes());
                batch.push((entry, chunk));
            }
            if batch.is_empty() {
                return;
            }
            self.write_jobs += 1;
            let (stage, done) = (stage.clone(), self.jobs_in.clone());
            let arrived = self.arrived.clone();
            let blocking = self.ctx.world.blocking.clone();
            tokio::spawn(async move {
                let metas: Vec<ChunkMeta> = batch.iter().map(|(_, chunk)| chunk.meta()).collect();
                let written = blocking.run(move || {
                    let again = arrived.map_or(0, |arrived| arrived.note(&batch));
                    let result = batch.iter().try_for_each(|(entry, chunk)| stage.write(entry, chunk));
                    (again, result)
                });
                let (again, result) = match written.await {
                    Ok(written) => written,
                    Err(panicked) => (0, Err(Problem::new(Code::InsideFailed).cause(panicked))),
                };
                let _ = done.send(Done::Wrote { metas, again, result });
            });
        }
    }

    pub(super) fn wrote(&mut self, done: Done) -> Result<(), Problem> {
        let Done::Wrote { metas, again, result } = done else { return Ok(()) };
        self.write_jobs -= 1;
        self.resent_bytes += again;
        for meta in metas {
            let index = meta.entry();
            let left = self.writing.get_mut(&index).map(|left| {
                *left -= 1;
                *left
            });
            if left == Some(0) {
                self.writing.remove(&index);
            }
            if result.is_err() {
                continue;
            }
            if let Some(entry) = self.open.get(&index).filter(|entry| entry.revision == meta.revision()) {
                self.progress.add(entry, &meta);
                self.since.get_or_insert(steady(&self.ctx.world));
                self.run.registered.show(|live| live.bytes += u64::from(meta.bytes()));
            } else {
                self.machine().durable(meta.credit());
            }
            if !self.writing.contains_key(&index)
                && let Some(entry) = self.completed.remove(&index)
            {
                self.complete(entry);
            }
        }
        result
    }

    /// A chunk that is not written after all: its credit is free again.
    pub(super) fn give_back(&mut self, meta: &ChunkMeta) {
        if let Some(left) = self.writing.get_mut(&meta.entry()) {
            *left -= 1;
            if *left == 0 {
                self.writing.remove(&meta.entry());
            }
        }
        self.machine().durable(meta.credit());
    }

    pub(super) async fn wait_for_writes(&mut self, index: u64) -> Result<(), Problem> {
        let mut later = Vec::new();
        let mut result = Ok(());
        while self.write_jobs > 0 {
            match self.jobs.recv().await {
                Some(done @ Done::Wrote { .. }) => {
                    let wrote = self.wrote(done);
                    result = result.and(wrote);
                }
                Some(other) => later.push(other),
                None => break,
            }
        }
        self.writing.remove(&index);
        for done in later {
            // They are taken up in their turn.
            let _ = self.jobs_in.send(done);
        }
        result
    }
}

const WRITE_JOBS: usize = 3;
const WRITE_BYTES: u64 = 2 << 20;
const WRITE_CHUNKS: usize = 64;
