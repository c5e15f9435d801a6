//! How a session is left: the transfer has ended at either side, or only this connection has.

use super::{Commit, Done, Ended, Session};
use crate::settle;
use crate::store::Transfer;
use crate::transfer::consumer::load;
use crate::transfer::consumer::settling::{clean_up, discard};
use crate::transfer::{Stop, steady, until};
use posthouse_protocol::consumer::ConsumerEvent;
use posthouse_protocol::frame::Refused;
use posthouse_protocol::job::State;
use posthouse_protocol::problem::{Code, Problem};

impl Session<'_> {
    pub(super) async fn ended_by_peer(&mut self, ending: &Refused) -> Result<Option<Ended>, Problem> {
        let subject = self.run.subject();
        let problem = settle::problem_of(ending, &subject);
        if ending.temporary && ending.statement.is_empty() {
            return Ok(Some(Ended::Lost(problem)));
        }
        let row = self.row();
        let statement = settle::state_ending(&self.ctx, &row, &subject, &problem).await?;
        let noted = statement.map(|statement| statement.bytes().to_vec()).unwrap_or_default();
        self.machine().noted(noted);
        match load(&self.ctx, &row.id).await?.filter(|row| row.state.is_final()) {
            Some(row) => self.end = Some(row),
            // What is committed stands: its statement is given until it is taken.
            None => return Ok(Some(Ended::Lost(problem))),
        }
        Ok(None)
    }

    /// Makes everything that arrived durable, states what has to be stated, and says how the session ended.
    pub(super) async fn leave(&mut self, ended: Result<Ended, Problem>) -> Result<Ended, Problem> {
        if let Some(row) = self.end.take() {
            return Ok(self.left(row).await);
        }
        match self.commit {
            Commit::NotYet => self.make_durable().await,
            Commit::UnderWay => {
                // It goes on by itself; the next attempt finds it done, or does it again.
                while let Some(done) = self.jobs.recv().await {
                    if let Done::Finished(_) = done {
                        break;
                    }
                }
            }
            Commit::Over => {}
        }
        let stored = if self.commit == Commit::NotYet { None } else { load(&self.ctx, &self.base.id).await? };
        self.run.row = stored.unwrap_or_else(|| self.row());
        // The time until now is in the row.
        self.run.began = self.ctx.world.clock.monotonic();
        if let Some(ending) = self.kept.take()
            && self.run.may_end(None).await?
        {
            self.ended_by_peer(&ending).await?;
            if let Some(row) = self.end.take() {
                self.say_goodbye().await;
                return Ok(self.left(row).await);
            }
        }
        match ended {
            Err(problem) => {
                if !self.run.may_end(Some(&problem)).await? {
                    return Ok(Ended::Lost(problem));
                }
                self.state_and_tell(&problem).await?;
                Err(problem)
            }
            Ok(Ended::Stopped) if *self.run.registered.stop.borrow() == Stop::Cancelled => {
                if !self.run.may_end(None).await? {
                    return Ok(Ended::Stopped);
                }
                self.state_and_tell(&Problem::new(Code::Cancelled)).await?;
                Ok(Ended::Stopped)
            }
            other => other,
        }
    }

    /// This side ends it.
    async fn state_and_tell(&mut self, problem: &Problem) -> Result<(), Problem> {
        let subject = self.run.subject();
        let statement = settle::state_ending(&self.ctx, &self.run.row, &subject, problem).await?;
        let ending = settle::refused(problem, statement.as_ref());
        match settle::ended_state(problem) {
            State::Refused => self.machine().refuse(ending),
            _ => self.machine().fail(ending),
        }
        self.run.told = self.say_goodbye().await;
        Ok(())
    }

    /// The transfer has ended: takes away what it needs no more.
    async fn left(&mut self, row: Transfer) -> Ended {
        self.run.row = row.clone();
        self.run.registered.show(|live| live.row = row.clone());
        if row.state == State::Settled {
            clean_up(&self.ctx, &row);
        } else {
            discard(self.run).await;
        }
        Ended::Final(Box::new(row))
    }

    /// Tells the provider how it ended and takes its answer, for a short while; whether it answered.
    async fn say_goodbye(&mut self) -> bool {
        self.ending = Some(steady(&self.ctx.world).plus_ms(GOODBYE_MS));
        loop {
            self.transmit();
            loop {
                let event = self.machine().poll_event();
                match event {
                    Some(ConsumerEvent::Noted(statement)) => {
                        let subject = self.run.subject();
                        if let Err(problem) = settle::take_ending(&self.ctx, &subject, &statement).await {
                            tracing::warn!(%problem, "The provider's answer was not kept");
                        }
                    }
                    Some(_) => {}
                    None => break,
                }
            }
            if self.machine().is_done() && !self.wire.blocked {
                return true;
            }
            let ending = self.ending;
            let now = tokio::select! {
                biased;
                frame = self.wire.frames.recv() => match frame {
                    Some(Ok(frame)) => Some(frame),
                    _ => return false,
                },
                _ = self.wire.out.reserve(), if self.wire.blocked => None,
                () = until(&self.ctx.world, ending) => return false,
            };
            if let Some(frame) = now
                && self.machine().handle_frame(frame, steady(&self.ctx.world)).is_err()
            {
                return false;
            }
        }
    }
}

const GOODBYE_MS: i64 = 5_000;
