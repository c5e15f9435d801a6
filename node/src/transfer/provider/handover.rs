//! The end of a giving: all that was sent is signed and handed over, and the consumer's statement settles it.

use super::{Session, lost};
use crate::context::Context;
use crate::reconcile;
use crate::seal::{ManifestFacts, SealedManifest};
use crate::settle;
use crate::store::exchange::{self, Standing};
use crate::store::{Side, Transfer, front, spent, statements, transfers};
use crate::transfer::blocking;
use crate::transfer::spooling::Spooling;
use posthouse_protocol::frame::Handover;
use posthouse_protocol::job::{Mode, State};
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::statement::Statement;
use std::time::Duration;

impl Session {
    /// Writes down what is final of the list, a thousand entries or more at a time: a session does not hold all of them
    /// until its end.
    pub(super) async fn write_finals(&mut self) -> Result<(), Problem> {
        let Some(given) = &mut self.given else { return Ok(()) };
        let finals = given.outgoing.take_finals(self.machine.finished(), FINALS_WRITTEN);
        if finals.is_empty() {
            return Ok(());
        }
        // A list that was signed before is kept already.
        let Some(mut attachments) = given.attachments.take() else { return Ok(()) };
        let writing = blocking(&self.ctx.world, move || {
            attachments.add(&finals)?;
            Ok(attachments)
        });
        given.attachments = Some(writing.await?);
        Ok(())
    }

    /// All is listed, answered, sealed and read: signs the manifest, or gives the signed one again.
    pub(super) async fn hand_over(&mut self) -> Result<(), Problem> {
        let Some(given) = &mut self.given else { return Ok(()) };
        let splits = given.spooling.as_ref().map(|spooling| spooling.splits(0));
        let department = self.ctx.department();
        let facts = ManifestFacts {
            request: &given.offered.request,
            offer: &given.offered.offer,
            provider: &self.ctx.name,
            provider_department: department.as_deref(),
            consumer: &self.caller.peer,
            filter_sha256: given.permit.filter_sha256(),
            splits: splits.as_deref(),
            started: given.offered.started,
            sealed: self.ctx.world.clock.now(),
        };
        let sealed = SealedManifest::of(&self.machine, &facts)?;
        if let Some(handover) = given.offered.handover.clone() {
            let statement = settle::open_own(&self.ctx, &handover.statement)?;
            let signed = statement.manifest().map(|manifest| (manifest.entries_sha256, manifest.content_root));
            let now = sealed.manifest();
            if signed != Some((now.entries_sha256, now.content_root)) {
                // Part of what was signed is no longer there to be sent again.
                return Err(Problem::new(Code::FileChanged).with("name", &given.subject.resource));
            }
            return self.machine.handover(handover);
        }
        if given.registered.is_superseded() {
            return Err(lost(&self.caller.peer, "a newer session took its place"));
        }
        // The whole store of hashes first: they cost the most.
        given.outgoing.keep_hashes(1).await?;
        let (folder, left_out) = (given.spooling.is_none(), self.machine.left_out_list().clone());
        // What of the list was not written yet: now all of it is final.
        let listed = given.outgoing.take_finals(self.machine.finished(), 1);
        let attachments = given.attachments.take();
        let write = blocking(&self.ctx.world, move || {
            let Some(mut attachments) = attachments else { return Ok(()) };
            attachments.add(&listed)?;
            attachments.finish(&left_out, folder)
        });
        // Both wait for the disk, and neither for the other.
        let (kept, written) = tokio::join!(biased; given.outgoing.hashes_kept(), write);
        kept.and(written)?;
        self.ctx.authority.still_permits(&given.permit)?;
        let statement = settle::state_handover(&self.ctx, &sealed).await?;
        let digest = sealed.digest().map(|digest| (digest.sum.into(), digest.count));
        // The consumer holds it against bytes of the whole, whatever process of this node has sent them.
        let (id, epoch) = (given.subject.transfer.clone(), self.ctx.epoch);
        let before = self.ctx.store.read(move |db| spent::get(db, &id, Side::Provider, Some(epoch))).await?;
        let spent = Some(self.ctx.meters(&given.subject.transfer).spent().and(before).frame());
        let handover = Handover { statement: statement.bytes().to_vec().into(), digest, spent };
        given.offered.handover = Some(handover.clone());
        given.row.counts = sealed.manifest().counts;
        given.row.files_sent = given.outgoing.files_sent();
        self.machine.handover(handover)
    }

    /// The consumer's statement is kept for ever, and the transfer is settled here.
    pub(super) async fn landed(&mut self, bytes: Vec<u8>) -> Result<(), Problem> {
        let ctx = self.ctx.clone();
        let Some(subject) = self.subject() else { return Ok(()) };
        let id = subject.transfer.clone();
        let (row, offered) =
            ctx.store.read(move |db| Ok((transfers::get(db, &id)?, exchange::offered(db, &id)?))).await?;
        let is_table = offered.as_ref().is_some_and(|offered| offered.offer.contract.is_some());
        let handover = offered.as_ref().and_then(|offered| offered.handover.clone());
        let (Some(mut row), Some(handover)) = (row, handover) else {
            return Err(self.invalid("a landing of something that was not handed over"));
        };
        let handed = settle::open_own(&ctx, &handover.statement)?;
        // What another session has given is known by what it signed.
        row.counts = handed.manifest().map_or(row.counts, |manifest| manifest.counts);
        let landed = settle::open(&ctx, &self.caller.peer, &bytes)?;
        settle::check_landing(&landed, &subject, &handed)?;
        if let Some(given) = &self.given {
            row = Transfer { state: row.state, receipt: row.receipt, ..given.row.clone() };
            row.active_ms += active_ms(&ctx, given.began);
        }
        let sha256 = *landed.sha256();
        let standing = self.standing(&handed).await?;
        let now = ctx.world.clock.now();
        let (epoch, spent) = (ctx.epoch, ctx.meters(&row.id).spent());
        ctx.store
            .write(move |tx| {
                spent::put(tx, &row.id, epoch, &spent)?;
                statements::take(tx, &landed, now)?;
                let receipt = statements::settle(tx, &row.id, &handed, &landed, now)?;
                // With the receipt, and whatever this side had stated before: the rows are processed.
                front::receipted(tx, &row.id, now)?;
                match transfers::get(tx, &row.id)?.map(|stored| stored.state) {
                    None | Some(State::Settled) => return Ok(()),
                    // Both statements are the truth about it, also where this side had given it up before.
                    Some(state) if state.is_final() => return transfers::set_receipt(tx, &row.id, &receipt),
                    Some(_) => {}
                }
                row.receipt = Some(receipt);
                row.state = State::Settled;
                row.ended = Some(now);
                row.problem = None;
                match &standing {
                    Some(standing) => {
                        let (peer, job, resource) = (&row.peer, &row.job, &row.resource.resource);
                        exchange::put_standing(tx, Side::Provider, peer, job, resource, standing)?;
                    }
                    None => exchange::forget_standing(tx, Side::Provider, &row.peer, &row.job)?,
                }
                transfers::update(tx, &row).map(|_| ())
            })
            .await?;
        ctx.outbox.notify_one();
        ctx.front.ring();
        self.machine.settled(sha256)?;
        if let Some(given) = &mut self.given {
            given.row.state = State::Settled;
            given.registered.show(|live| live.row.state = State::Settled);
        }
        if is_table {
            Spooling::remove(&self.ctx, &subject.transfer).await?;
        }
        Ok(())
    }

    /// The table's digest as it was handed over, to tell later whose copy left the receipt. What an incremental
    /// run handed over is only a part: there the source is read again, beside whatever comes next, if that is worth it.
    async fn standing(&self, handed: &Statement) -> Result<Option<Standing>, Problem> {
        let (Some(given), Some(manifest)) = (&self.given, handed.manifest()) else { return Ok(None) };
        let Some(contract) = &given.offered.offer.contract else { return Ok(None) };
        if given.offered.offer.operation.is_some() {
            // What a front-end table holds is changes, and not what stands.
            return Ok(None);
        }
        let (transfer, contract_sha256) = (manifest.transfer.clone(), contract.sha256());
        if manifest.mode == Mode::Full {
            let id = transfer.clone();
            let buckets = self.ctx.store.read(move |db| exchange::spool_buckets(db, &id)).await?;
            return Ok(buckets.map(|buckets| Standing { contract_sha256, buckets, transfer }));
        }
        let (ctx, permit, row) = (self.ctx.clone(), given.permit.clone(), given.row.clone());
        let rules = given.offered.request.rules.clone();
        let (watermark, rows_sent) = (manifest.watermark_to.clone(), manifest.counts.rows_sent);
        tokio::spawn(async move {
            let kept = async {
                let read = reconcile::provider_standing_after(&ctx, &permit, watermark, rules, rows_sent).await?;
                let Some((contract, buckets)) = read else { return Ok(()) };
                let standing = Standing { contract_sha256: contract.sha256(), buckets: buckets.to_bytes(), transfer };
                ctx.store
                    .write(move |tx| {
                        let (peer, job, resource) = (&row.peer, &row.job, &row.resource.resource);
                        exchange::put_standing(tx, Side::Provider, peer, job, resource, &standing)
                    })
                    .await
            };
            if let Err(problem) = kept.await {
                // The receipt does not depend on it: a later reconciliation only cannot say whose copy changed.
                tracing::warn!(%problem, "The standing digest could not be kept");
            }
        });
        Ok(None)
    }
}

fn active_ms(ctx: &Context, began: Duration) -> u64 {
    u64::try_from(ctx.world.clock.monotonic().saturating_sub(began).as_millis()).unwrap_or(u64::MAX)
}

/// Entries of the list that are worth a write.
const FINALS_WRITTEN: u64 = 1024;
