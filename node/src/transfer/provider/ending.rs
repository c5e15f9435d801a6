//! How a transfer ends at its provider without a receipt, and what the two sides tell each other of it.

use super::Session;
use crate::settle::{self, Subject};
use crate::store::Transfer;
use crate::transfer::spooling::Spooling;
use crate::transfer::steady;
use posthouse_protocol::frame::Refused;
use posthouse_protocol::job::State;
use posthouse_protocol::problem::{Code, Problem};
use posthouse_protocol::statement::Statement;

impl Session {
    /// The transfer cannot go on: states it, and tells the consumer.
    pub(super) async fn fail(&mut self, problem: Problem) -> Result<(), Problem> {
        let temporary = matches!(problem.code, Code::PeerUnreachable | Code::FrameInvalid);
        if temporary || self.ending.is_some() || self.machine.is_done() {
            return Err(problem);
        }
        if self.given.as_ref().is_some_and(|given| given.registered.is_superseded()) {
            // The newer session decides what becomes of it.
            return Err(problem);
        }
        let Some(row) = self.row_to_end().await? else { return Err(problem) };
        let subject = self.subject_of(&row);
        let statement = self.end(&row, &subject, &problem).await?;
        self.say_ended(&problem, statement.as_ref());
        Ok(())
    }

    /// The consumer has ended it. What was handed over stands until it has stated so.
    pub(super) async fn ended_by_peer(&mut self, ending: Refused) -> Result<(), Problem> {
        let Some(row) = self.row_to_end().await? else {
            self.machine.noted(Vec::new());
            return Ok(());
        };
        if let Some(given) = &mut self.given {
            given.moving = false;
        }
        let subject = self.subject_of(&row);
        settle::take_ending(&self.ctx, &subject, &ending.statement).await?;
        let problem = settle::problem_of(&ending, &subject);
        self.wished = None;
        let statement = self.end(&row, &subject, &problem).await?;
        self.machine.noted(statement.map(|statement| statement.bytes().to_vec()).unwrap_or_default());
        Ok(())
    }

    /// The consumer's own word of an ending, in answer to this side's.
    pub(super) async fn noted(&mut self, statement: &[u8]) -> Result<(), Problem> {
        let Some(subject) = self.subject() else { return Ok(()) };
        if !self.stored(&subject.transfer).await?.0.is_some_and(|row| self.is_callers(&row, &subject)) {
            return Ok(());
        }
        settle::take_ending(&self.ctx, &subject, statement).await?;
        if let Some((row, problem)) = self.wished.take() {
            self.end(&row, &subject, &problem).await?;
        }
        Ok(())
    }

    /// States that it ended, and clears what it needed. Where it was handed over it stays as it is until the
    /// consumer says that it has not landed: that is its to say, and it is asked.
    pub(super) async fn end(
        &mut self,
        row: &Transfer,
        subject: &Subject,
        problem: &Problem,
    ) -> Result<Option<Statement>, Problem> {
        let statement = settle::state_ending(&self.ctx, row, subject, problem).await?;
        let (stored, offered) = self.stored(&row.id).await?;
        let ended = stored.is_some_and(|stored| stored.state.is_final());
        if ended {
            tracing::warn!(transfer = %row.id, %problem, "A transfer ends without a receipt");
            if offered.is_some_and(|offered| offered.offer.contract.is_some()) {
                Spooling::remove(&self.ctx, &row.id).await?;
                self.ctx.front.ring();
            }
        } else {
            tracing::info!(transfer = %row.id, %problem, "A transfer that was handed over is the consumer's to end");
            self.wished = Some((row.clone(), problem.clone()));
        }
        Ok(statement)
    }

    /// Tells the consumer, and waits a little for its own statement.
    pub(super) fn say_ended(&mut self, problem: &Problem, statement: Option<&Statement>) {
        if let Some(given) = &mut self.given {
            given.moving = false;
        }
        let ending = settle::refused(problem, statement);
        match settle::ended_state(problem) {
            State::Refused => self.machine.refuse(ending),
            _ => self.machine.fail(ending),
        }
        self.end_soon();
    }

    pub(super) fn end_soon(&mut self) {
        self.ending = Some(steady(&self.ctx.world).plus_ms(ENDING_MS));
    }

    /// The row of the transfer that was asked for; None where it is another party's or nothing was asked.
    async fn row_to_end(&self) -> Result<Option<Transfer>, Problem> {
        if let Some(given) = &self.given {
            return Ok(Some(given.row.clone()));
        }
        let (Some(request), Some(subject)) = (self.machine.request().cloned(), self.subject()) else {
            return Ok(None);
        };
        Ok(match self.stored(&request.transfer).await?.0 {
            Some(row) => self.is_callers(&row, &subject).then_some(row),
            None => Some(self.new_row(&request, &subject)),
        })
    }

    fn subject_of(&self, row: &Transfer) -> Subject {
        Subject {
            transfer: row.id.clone(),
            job: row.job.clone(),
            resource: row.resource.clone(),
            consumer: row.peer.clone(),
        }
    }
}

const ENDING_MS: i64 = 10_000;
