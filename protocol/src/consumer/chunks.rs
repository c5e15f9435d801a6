//! Chunks as they arrive: what is expected of them before their body is read, what they complete, what is asked again.

use super::open::OpenState;
use super::{Consumer, Counters, Stage};
use crate::chunk::{ChunkHeader, ChunkMeta, Form, Layout, credit};
use crate::frame::Want;
use crate::limits;
use crate::problem::Problem;

/// What to do with the body behind a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Read it, unpack and verify it by this layout, then `handle_chunk` or `handle_bad_chunk`.
    Take(Layout),
    /// Read and drop it: it is known already, or of a state of the file that is over. Its credit returns by itself.
    Skip,
}

/// What to do with a verified chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Write it at its place; return its credit by `durable` when it may be forgotten.
    Write,
    /// Another channel brought it meanwhile, or the file's state is over. Its credit returns by itself.
    Skip,
}

impl Consumer {
    /// Looks at a header before its body is read: nothing is allocated for what nobody asked.
    pub fn expect(&mut self, header: &ChunkHeader) -> Result<Expected, Problem> {
        if self.stage >= Stage::Ending {
            return Ok(Expected::Skip);
        }
        let cost = credit(header.bytes);
        if self.stage < Stage::Moving || header.entry >= self.listed {
            return Err(self.invalid("a chunk of an entry that was not listed"));
        }
        let Some(left) = self.credit_open.checked_sub(cost) else {
            return Err(self.invalid("more chunks than there was credit for"));
        };
        self.credit_open = left;
        self.counters.wire_bytes += u64::from(header.wire_bytes);
        let expected = self.look_up(header)?;
        if expected == Expected::Skip {
            self.credit_back += cost;
            self.counters.resent_chunks += 1;
        }
        Ok(expected)
    }

    /// Takes a chunk that was verified elsewhere.
    pub fn handle_chunk(&mut self, chunk: ChunkMeta) -> Result<Verdict, Problem> {
        let open = self.open.get_mut(&chunk.entry()).filter(|open| {
            open.state == OpenState::Moving
                && open.answered
                && open.entry.revision == chunk.revision()
                && open.known.layout() == chunk.layout()
        });
        let new = open.is_some_and(|open| open.whole.is_none() && open.known.insert(chunk.chunk(), chunk.value()));
        if !new {
            self.credit_back += chunk.credit();
            self.counters.resent_chunks += 1;
            return Ok(Verdict::Skip);
        }
        self.counters.chunks += 1;
        self.counters.bytes += u64::from(chunk.bytes());
        self.settle_entry(chunk.entry())?;
        Ok(Verdict::Write)
    }

    /// The body did not unpack, or is not what its header says: it is asked again, a bounded number of times. A delta
    /// may be bad because of what is here: it comes as a whole then.
    pub fn handle_bad_chunk(&mut self, header: &ChunkHeader) -> Result<(), Problem> {
        self.credit_back += credit(header.bytes);
        if header.form == Form::Delta {
            self.counters.bad_deltas += 1;
        } else {
            self.counters.bad_chunks += 1;
        }
        let Counters { bad_chunks, bad_deltas, .. } = self.counters;
        if bad_chunks > u64::from(limits::BAD_CHUNKS_MAX) || bad_deltas > u64::from(limits::BAD_DELTAS_MAX) {
            return Err(self.mismatch("too many chunks were not what their headers say"));
        }
        let Some(open) = self.open.get_mut(&header.entry) else { return Ok(()) };
        let wanted = open.state == OpenState::Moving
            && open.entry.revision == header.revision
            && !open.known.contains(header.chunk);
        if !wanted {
            return Ok(());
        }
        self.out.want(Want {
            entry: header.entry,
            revision: header.revision,
            chunks: vec![(header.chunk, header.chunk + 1)],
        });
        Ok(())
    }

    fn look_up(&self, header: &ChunkHeader) -> Result<Expected, Problem> {
        let Some(open) = self.open.get(&header.entry) else { return Ok(Expected::Skip) };
        if open.state != OpenState::Moving || header.revision < open.entry.revision {
            return Ok(Expected::Skip);
        }
        if header.revision > open.entry.revision || !open.answered {
            return Err(self.invalid(format_args!("a chunk of entry {} that was not asked", header.entry)));
        }
        let layout = open.known.layout();
        if layout.bytes(header.chunk) != header.bytes {
            return Err(
                self.invalid(format_args!("chunk {} of entry {} has no such length", header.chunk, header.entry))
            );
        }
        if open.whole.is_some() || open.known.contains(header.chunk) {
            return Ok(Expected::Skip);
        }
        Ok(Expected::Take(layout))
    }
}
