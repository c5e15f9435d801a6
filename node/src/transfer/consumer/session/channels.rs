//! How many data channels a session opens, and opening them. Over QUIC they share one window, so that their number says
//! little. Over TCP each is a stream of its own, with no more on its way than the system's buffers hold: a few
//! mebibytes, less than a long line takes in a round trip, and of what was lost by the way much less.
//! Deliberately absent: which chunk goes over which of them. Whichever is free at the provider takes the next.

use super::Session;
use crate::buffers::Buffers;
use crate::receive::Receiving;
use crate::transfer::own_hello;
use posthouse_platform::endpoint::{Connection, Transport};
use posthouse_platform::frames;
use posthouse_protocol::frame::{Frame, Hello, Purpose};
use posthouse_protocol::limits;
use posthouse_protocol::problem::{Code, Problem};
use std::sync::Arc;
use tokio::task::JoinSet;

impl Session<'_> {
    /// So many data channels of those that are offered.
    pub(super) fn data_channels(&self, offered: u8) -> u8 {
        let connection = &self.connection;
        // Relays carry a channel over whatever lies between them.
        let is_tcp = connection.transport() == Transport::Tcp && connection.relayed().is_none();
        let rtt_ms = connection.rtt_ms().filter(|_| is_tcp);
        let row = &self.run.row;
        wanted(rtt_ms, self.ctx.transfers.others_moving(&row.peer, &row.id)).min(offered)
    }

    /// Opens so many, all at once: over TCP each takes two round trips. It goes on with as many as any line has: what is
    /// beyond may come late, or not at all where somebody on the way counts connections.
    pub(super) async fn open_data(&mut self, channels: u8) -> Result<(), Problem> {
        let Some(accepted) = &self.accepted else { return Ok(()) };
        let buffers: Arc<Buffers> = Arc::default();
        for number in 0..channels {
            let purpose = Purpose::Data(self.run.row.id.clone(), number);
            let receiving = Receiving {
                machine: self.machine.clone(),
                blocking: self.ctx.world.blocking.clone(),
                provider: self.run.row.peer.clone(),
                buffers: buffers.clone(),
                stage: accepted.stage.clone(),
                out: self.received_in.clone(),
            };
            self.opening.spawn(open(self.connection.clone(), own_hello(&self.ctx, purpose), receiving));
        }
        enough(&mut self.opening, channels.min(limits::DATA_CHANNELS)).await
    }
}

/// Waits until so many are open, or so many no longer can be. Those that are still opened belong to the session.
async fn enough(opening: &mut JoinSet<Result<(), Problem>>, least: u8) -> Result<(), Problem> {
    let (mut open, mut refused) = (0, None);
    while open < least {
        let Some(opened) = opening.join_next().await else { return refused.map_or(Ok(()), Err) };
        match opened.map_err(|error| Problem::new(Code::InsideFailed).cause(error)).flatten() {
            Ok(()) => open += 1,
            Err(problem) => refused = Some(problem),
        }
    }
    Ok(())
}

/// Opens a data channel and begins to read it.
async fn open(connection: Arc<dyn Connection>, hello: Hello, receiving: Receiving) -> Result<(), Problem> {
    let opened = connection.open().await.inspect_err(|problem| {
        tracing::debug!(peer = %receiving.provider, %problem, "A data channel could not be opened");
    });
    let (reader, mut writer) = frames::split(opened?, &receiving.provider);
    writer.send(&Frame::Hello(hello)).await?;
    tokio::spawn(async move {
        receiving.run(reader.into_inner()).await;
        // Dropping it earlier would reset the channel.
        drop(writer);
    });
    Ok(())
}

/// One more for each [`CHANNEL_MS`] of the round trip over TCP, where that is known; `others` are transfers that move
/// between the same two nodes, and have streams of their own to fill the line with.
fn wanted(tcp_rtt_ms: Option<f64>, others: usize) -> u8 {
    let further = tcp_rtt_ms.map_or(0.0, |rtt_ms| (rtt_ms / CHANNEL_MS).ceil());
    // What is beyond its range becomes the nearest that is within.
    let long = (further as u8).saturating_add(1).min(CHANNELS_LONG);
    let share = u8::try_from(others).map_or(0, |others| long / others.saturating_add(1));
    share.max(limits::DATA_CHANNELS)
}

/// At 500 Mbit/s so much of a round trip is 1.2 MB. A stream holds about 3 MB under the system's own limits, and where
/// packets are lost it keeps what came behind them for two round trips and more.
const CHANNEL_MS: f64 = 20.0;
/// More would take more of the line from others than they win.
const CHANNELS_LONG: u8 = 6;
const _: () = assert!(limits::DATA_CHANNELS < CHANNELS_LONG && CHANNELS_LONG <= limits::DATA_CHANNELS_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_a_line_over_tcp_the_more_channels_it_has() {
        let channels = |rtt_ms: f64| wanted(Some(rtt_ms), 0);
        assert_eq!([0.0, 0.3, 10.0, 20.0].map(channels), [2; 4], "what its buffers fill");
        assert_eq!([20.1, 40.0, 60.0, 75.0, 80.1, 100.2].map(channels), [3, 3, 4, 5, 6, 6]);
        assert_eq!([1e3, 1e9, f64::INFINITY].map(channels), [6; 3]);
        assert_eq!([-1.0, f64::NAN].map(channels), [2; 2]);
    }

    #[tokio::test]
    async fn a_session_goes_on_with_two_and_waits_for_none_beyond() {
        let mut opening = JoinSet::new();
        opening.spawn(std::future::pending());
        opening.spawn(async { Err(Problem::new(Code::PeerUnreachable)) });
        opening.spawn(async { Ok(()) });
        opening.spawn(async { Ok(()) });
        enough(&mut opening, 2).await.unwrap();
        opening.abort_all();
        while opening.join_next().await.is_some() {}

        opening.spawn(async { Ok(()) });
        opening.spawn(async { Err(Problem::new(Code::PeerUnreachable)) });
        assert_eq!(enough(&mut opening, 2).await.unwrap_err().code, Code::PeerUnreachable);
        // Fewer than two are offered by none, but may be.
        opening.spawn(async { Ok(()) });
        enough(&mut opening, 1).await.unwrap();
    }

    #[test]
    fn another_transport_has_two_whatever_its_round_trip() {
        assert_eq!([0, 1, 100].map(|others| wanted(None, others)), [2; 3]);
    }

    #[test]
    fn transfers_that_move_beside_each_other_share_a_line_and_have_two_each_at_least() {
        assert_eq!([0, 1, 2, 3, 300, usize::MAX].map(|others| wanted(Some(100.0), others)), [6, 3, 2, 2, 2, 2]);
        assert_eq!([1, 2].map(|others| wanted(Some(60.0), others)), [2; 2]);
    }
}
