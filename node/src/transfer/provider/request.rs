//! What a request meets: another that is being answered, a transfer that has ended, one that is landed already,
//! or an answer. Waits for it and keeps the line alive meanwhile.

use super::Session;
use super::answer::{Answer, Given};
use crate::settle::{self, Subject};
use crate::store::exchange::{self, Offered};
use crate::store::{Side, Transfer, transfers};
use crate::transfer::{Answering, steady, until};
use posthouse_protocol::frame::{Refused, Request};
use posthouse_protocol::id::TransferId;
use posthouse_protocol::job::State;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::provider::ProviderEvent;

impl Session {
    pub(super) async fn requested(&mut self, request: Request) -> Result<(), Problem> {
        let subject = Subject::of(&request, &self.ctx.name, &self.caller.peer);
        if request.transfer != self.caller.transfer {
            return Err(self.invalid("the request is for another transfer than its channel"));
        }
        let Some(alone) = Answering::enter(&self.ctx, &request.transfer) else {
            // The line was cut while this was being answered. What comes of it is there for a later try.
            let busy = Problem::new(Code::Busy)
                .with("peer", &self.ctx.name)
                .cause("an earlier request for this transfer is still being answered");
            self.machine.refuse(settle::refused(&busy, None));
            self.end_soon();
            return Ok(());
        };
        let (row, offered) = self.stored(&request.transfer).await?;
        if let Some(row) = &row
            && !self.is_callers(row, &subject)
        {
            // Whoever it belongs to learns nothing from this, and the stored transfer is not touched.
            self.machine.refuse(settle::refused(&self.not_offered(&subject), None));
            self.end_soon();
            return Ok(());
        }
        if request.committed && offered.as_ref().is_some_and(|offered| offered.handover.is_some()) {
            // What it landed stands, whatever was stated here meanwhile: it gives its statement, and nothing else
            // is exchanged. The grant may have ended without harm.
            return Ok(());
        }
        if let Some(row) = &row
            && row.state.is_final()
            && row.state != State::Settled
        {
            let problem = row.problem.clone().unwrap_or_else(|| Problem::new(Code::Cancelled));
            let statement = settle::state_ending(&self.ctx, row, &subject, &problem).await?;
            self.say_ended(&problem, statement.as_ref());
            return Ok(());
        }
        if request.committed {
            // It has a handover of this node that this copy of its store does not know.
            return Err(self.mismatch("it has committed to a handover that is not stored here"));
        }
        if row.as_ref().is_some_and(|row| row.state == State::Settled) {
            // Its own statement stands here already: it is not asked to make another.
            return Err(self.mismatch("this transfer is settled, and is asked for as if it were not"));
        }
        let mut row = row.unwrap_or_else(|| self.new_row(&request, &subject));
        row.transport = Some(self.caller.transport);
        let follows = request.succeeds.is_some();
        let answer = Answer {
            ctx: self.ctx.clone(),
            caller: self.caller.clone(),
            request,
            subject: subject.clone(),
            row: row.clone(),
            known: offered,
            alone,
        };
        match self.answered(answer).await? {
            None => Ok(()),
            Some(Ok(given)) => {
                let offer = given.offered.offer.clone();
                self.given = Some(*given);
                self.machine.offer(offer)?;
                self.hold_if_paused(&subject.job).await
            }
            Some(Err(problem)) if problem.code == Code::PeerUnreachable => Err(problem),
            Some(Err(problem)) if problem.code == Code::OutsideWindow => {
                // Nothing was read yet: it is asked for again until the window opens.
                self.machine.refuse(settle::refused(&problem, None));
                self.end_soon();
                Ok(())
            }
            Some(Err(problem)) if follows && problem.code == Code::ConnectionFailed => {
                // What it follows was cut short by something that passes, such as a source that is started again.
                self.machine.refuse(Refused { temporary: true, ..settle::refused(&problem, None) });
                self.end_soon();
                Ok(())
            }
            Some(Err(problem)) => {
                // As it stands in the store, where answering came so far.
                let row = self.stored(&row.id).await?.0.unwrap_or(row);
                let statement = self.end(&row, &subject, &problem).await?;
                self.say_ended(&problem, statement.as_ref());
                Ok(())
            }
        }
    }

    /// Waits for the answer and keeps the line alive meanwhile. None: the consumer has ended it.
    async fn answered(&mut self, answer: Answer) -> Result<Option<Result<Box<Given>, Problem>>, Problem> {
        let mut answered = answer.begin();
        loop {
            self.transmit();
            let world = self.ctx.world.clone();
            let deadline = self.machine.poll_timeout();
            tokio::select! {
                biased;
                () = self.ctx.drain.cancelled() => return Err(self.lost("this node stops")),
                given = &mut answered => {
                    return match given {
                        Ok(given) => Ok(Some(given)),
                        Err(_) => Err(Problem::new(Code::InsideFailed).cause("a request was dropped unanswered")),
                    };
                }
                frame = self.wire.frames.recv() => match frame {
                    Some(frame) => self.machine.handle_frame(frame?, steady(&world))?,
                    None => return Err(self.lost("the channel ended")),
                },
                _ = self.wire.out.reserve(), if self.wire.blocked => {}
                () = until(&world, deadline) => self.machine.handle_timeout(steady(&world)),
            }
            match self.machine.poll_event() {
                None => {}
                Some(ProviderEvent::Refused(ending) | ProviderEvent::Failed(ending)) => {
                    self.ended_by_peer(ending).await?;
                    return Ok(None);
                }
                Some(ProviderEvent::Lost) => return Err(self.lost("it has been silent for too long")),
                Some(_) => return Err(self.invalid("it goes on before it was answered")),
            }
        }
    }

    pub(super) fn is_callers(&self, row: &Transfer, subject: &Subject) -> bool {
        row.peer == self.caller.peer
            && row.side == Side::Provider
            && row.resource == subject.resource
            && row.job == subject.job
    }

    pub(super) async fn stored(&self, transfer: &TransferId) -> Result<(Option<Transfer>, Option<Offered>), Problem> {
        let id = transfer.clone();
        self.ctx.store.read(move |db| Ok((transfers::get(db, &id)?, exchange::offered(db, &id)?))).await
    }

    pub(super) fn new_row(&self, request: &Request, subject: &Subject) -> Transfer {
        let now = self.ctx.world.clock.now();
        let peer = self.caller.peer.clone();
        let (job, resource) = (request.job.clone(), subject.resource.clone());
        let id = request.transfer.clone();
        let mut row = Transfer::planned(id, Side::Provider, job, peer, resource, request.mode, request.write, now);
        row.peer_epoch = self.caller.epoch;
        row.succeeds.clone_from(&request.succeeds);
        row.watermark_from.clone_from(&request.watermark);
        row
    }
}
