//! The entries of a session on their way out: listed, read, sealed, and kept a while for chunks that came broken.

mod reads;

use super::Session;
use super::answer::Given;
use super::feed::Fed;
use crate::context::Context;
use crate::send::{self, Packed, Sent};
use crate::store::exchange;
use posthouse_connectors::folder::{FileStat, left_out};
use posthouse_platform::endpoint::Writer;
use posthouse_protocol::manifest::{Entry, LeftOut};
use posthouse_protocol::problem::Problem;
use posthouse_protocol::provider::Provider;
pub(super) use reads::ReadDone;
use std::sync::Arc;
use tokio::sync::mpsc;

/// What every data channel of the session is given.
pub(super) struct Lanes {
    pub queue: Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<Vec<Packed>>>>,
    pub sent: mpsc::UnboundedSender<Result<Sent, Problem>>,
    pub open: u8,
}

pub(super) struct Sending {
    pub entry: Entry,
    pub stat: Option<FileStat>,
    /// Chunks of the first answer that were not read yet; None before it came.
    pub left: Option<u32>,
    pub sealing: bool,
    /// It changed, and is being looked at again.
    pub looking: bool,
}

impl Session {
    pub(super) fn list(&mut self, fed: Vec<Fed>) -> Result<(), Problem> {
        let Some(given) = self.given.as_mut().filter(|given| given.moving) else { return Ok(()) };
        for one in fed {
            match one {
                Fed::Entry(entry, stat) => {
                    if send::has_content(&entry) {
                        let sending =
                            Sending { entry: entry.clone(), stat, left: None, sealing: false, looking: false };
                        given.open.insert(entry.index, sending);
                    }
                    let size = entry.size;
                    if entry.root.is_some() || !send::has_content(&entry) {
                        given.finals.insert(entry.index, entry.clone());
                    }
                    self.machine.entry(entry)?;
                    given.registered.show(|live| {
                        live.bytes_total += size;
                        live.files += 1;
                    });
                }
                Fed::LeftOut(what) => self.machine.left_out(None, what)?,
                Fed::End => self.machine.entries_end()?,
            }
        }
        Ok(())
    }

    pub(super) fn data_channel(&mut self, writer: Writer) {
        let Some(given) = &mut self.given else { return };
        if given.lanes.open >= given.offered.offer.data_channels {
            return;
        }
        given.lanes.open += 1;
        let (queue, sent) = (given.lanes.queue.clone(), given.lanes.sent.clone());
        tokio::spawn(send::run_channel(self.ctx.clone(), writer, queue, sent, self.caller.peer.to_string()));
    }
}

impl Given {
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

    pub(super) fn drop_entry(&mut self, index: u64) {
        self.supply.close(index);
        self.open.remove(&index);
        self.finals.remove(&index);
    }

    /// Everything of it was read.
    fn done_with(&mut self, index: u64) {
        self.supply.close(index);
        self.recent.push_back(index);
        if self.recent.len() > RECENT_MAX
            && let Some(old) = self.recent.pop_front()
        {
            self.open.remove(&old);
        }
    }

    pub(super) async fn keep_hashes(&mut self, ctx: &Arc<Context>) -> Result<(), Problem> {
        let hashes = std::mem::take(&mut self.hashes);
        if hashes.is_empty() {
            return Ok(());
        }
        let resource = self.subject.resource.resource.clone();
        ctx.store
            .write(move |tx| {
                hashes.iter().try_for_each(|(name, stat, root)| exchange::put_hashed(tx, &resource, name, stat, root))
            })
            .await
    }
}

const RECENT_MAX: usize = 1024;
