//! What is written into parts and held by its operator. Over a line a session that is paused ends, and the consumer asks
//! again later; here nobody would, and what was made would be given up. So the session stays and waits: nothing more is
//! listed or read, the snapshot of a table goes on into its spool, and both sides keep the line between them alive. The
//! grant is looked at as ever, and whoever cancels it ends it.

use super::Session;
use crate::store::jobs;
use posthouse_platform::endpoint::Transport;
use posthouse_protocol::id::JobId;
use posthouse_protocol::job::State;
use posthouse_protocol::problem::Problem;

impl Session {
    /// What is handed over is not held any more: its list is all that is still to be written.
    pub(super) async fn hold(&mut self) -> Result<(), Problem> {
        let Some(given) = self.given.as_ref().filter(|given| given.offered.handover.is_none()) else { return Ok(()) };
        if self.held.is_some() || self.ending.is_some() {
            return Ok(());
        }
        self.held = Some(given.row.state);
        self.row_state(State::Paused).await
    }

    pub(super) async fn go_on(&mut self) -> Result<(), Problem> {
        match self.held.take() {
            // What has ended meanwhile is in the state that it has; only statements are still to be exchanged.
            Some(before) if self.ending.is_none() && !self.machine.is_done() => self.row_state(before).await,
            _ => Ok(()),
        }
    }

    /// The consumer takes what is offered.
    pub(super) async fn moves(&mut self) -> Result<(), Problem> {
        match &mut self.held {
            Some(before) => {
                *before = State::Moving;
                Ok(())
            }
            None => self.row_state(State::Moving).await,
        }
    }

    /// Its job may have been paused while its request was being answered, when nothing ran that could be held.
    pub(super) async fn hold_if_paused(&mut self, job: &JobId) -> Result<(), Problem> {
        if self.caller.transport != Transport::Ferry {
            return Ok(());
        }
        let job = job.clone();
        let state = self.ctx.store.read(move |db| jobs::get(db, &job)).await?;
        if state.paused { self.hold().await } else { Ok(()) }
    }
}
