//! Takes up an offer: opens where it lands, begins a listing, and has the data channels opened.

use super::arrived::Arrived;
use super::{Ended, Session};
use crate::stage::Stage;
use crate::store::{exchange, transfers};
use crate::transfer::blocking;
use crate::transfer::consumer::destination::open_stage;
use crate::transfer::consumer::governed;
use posthouse_protocol::frame::Offer;
use posthouse_protocol::job::State;
use posthouse_protocol::problem::Problem;
use std::sync::Arc;

/// What there is once an offer was taken up.
pub(super) struct Accepted {
    pub offer: Offer,
    pub stage: Arc<Stage>,
    /// Marks the rows of entries that this session's listing has.
    pub session: i64,
    pub arrived: Arrived,
}

impl Accepted {
    /// Whether a session before this one may have recorded something of what is listed.
    pub(super) fn resumes(&self) -> bool {
        self.session > exchange::FIRST_SESSION
    }
}

impl Session<'_> {
    pub(super) async fn offered(&mut self, offer: Offer) -> Result<Option<Ended>, Problem> {
        governed::check(self.run, self.job, &offer).await?;
        let stage = match open_stage(&self.ctx, &self.run.row, self.job, &offer).await {
            Ok(stage) => stage,
            Err(problem) => {
                // Which columns come is known: the DBA's script is made from it.
                let (id, stored) = (self.run.row.id.clone(), offer);
                self.ctx.store.write(move |tx| exchange::set_landing_offer(tx, &id, &stored)).await?;
                return Err(problem);
            }
        };
        let (id, stored) = (self.run.row.id.clone(), offer.clone());
        self.base.state = State::Moving;
        self.base.problem = None;
        self.base.watermark_to.clone_from(&offer.watermark_to);
        let row = self.row();
        let session = self
            .ctx
            .store
            .write(move |tx| {
                exchange::set_landing_offer(tx, &id, &stored)?;
                transfers::update(tx, &row)?;
                exchange::next_session(tx, &id)
            })
            .await?;
        let (staging, id) = (self.ctx.staging(), self.run.row.id.clone());
        let arrived = blocking(&self.ctx.world, move || Arrived::open(&staging, &id)).await?;
        // This listing counts anew; what is here of it already is added as it is looked up.
        self.run.registered.show(|live| (live.bytes, live.bytes_total, live.files, live.rows) = (0, 0, 0, 0));
        // Others that begin now count it, as it counts them.
        self.show();
        let channels = self.data_channels(offer.data_channels);
        self.accepted = Some(Accepted { offer, stage, session, arrived });
        let credit = self.first_credit();
        self.machine().accept(channels, credit)?;
        self.transmit();
        if let Err(problem) = self.open_data(channels).await {
            return Ok(Some(Ended::Lost(problem)));
        }
        Ok(None)
    }
}
