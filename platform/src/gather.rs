//! Takes up together what comes packet by packet. On a long line packets come one by one and quickly, and being woken
//! for each costs the processor more than the packet does, as does answering each; so after one taking up nothing is
//! looked at for a moment. Cards do the same for the kernel.
//! What comes slowly is not delayed, nor what comes so quickly that the kernel hands over many at once.

use quinn::udp::RecvMeta;
use std::io;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// Of one socket, which one task reads.
#[derive(Debug)]
pub(crate) struct Gather(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Until when nothing is looked at.
    pause: Option<Pin<Box<Sleep>>>,
    /// Since when packets are counted.
    since: Instant,
    packets: u64,
    pauses: bool,
}

impl Gather {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(State { pause: None, since: Instant::now(), packets: 0, pauses: false }))
    }

    /// Takes up what has come by `receive`, which fills a front part of `meta`.
    pub(crate) fn poll(
        &self,
        cx: &mut Context<'_>,
        meta: &mut [RecvMeta],
        receive: impl FnOnce(&mut Context<'_>, &mut [RecvMeta]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pause) = &mut state.pause {
            ready!(pause.as_mut().poll(cx));
            state.pause = None;
        }
        let received = ready!(receive(cx, meta))?;
        let packets = meta.iter().take(received).map(|one| one.len.div_ceil(one.stride.max(1)) as u64).sum();
        // Whatever more has come already is taken up at once.
        let is_all = received < meta.len();
        state.count(packets, is_all);
        Poll::Ready(Ok(received))
    }
}

impl State {
    fn count(&mut self, packets: u64, is_all: bool) {
        let now = Instant::now();
        self.packets += packets;
        let window = now.saturating_duration_since(self.since);
        if window >= WINDOW {
            let per_second = self.packets as f64 / window.as_secs_f64();
            self.pauses = (PACKETS_MIN..PACKETS_MAX).contains(&per_second);
            (self.since, self.packets) = (now, 0);
        }
        if self.pauses && is_all {
            self.pause = Some(Box::pin(sleep_until(now + PAUSE)));
        }
    }
}

const WINDOW: Duration = Duration::from_millis(10);
/// A timer's tick: some forty packets of a line of 500 Mbit/s, and little beside the way there and back.
const PAUSE: Duration = Duration::from_millis(1);
/// Packets a second between which pausing pays: about 120 Mbit/s, and 1.2 Gbit/s.
const PACKETS_MIN: f64 = 10_000.0;
const PACKETS_MAX: f64 = 100_000.0;

#[cfg(test)]
mod tests {
    use super::*;

    /// Takings up in a second in which a packet comes each `every` microseconds; `room` are taken up at once.
    async fn takings(every: u64, room: usize) -> (u64, u64) {
        let gather = Gather::new();
        let mut meta = vec![RecvMeta::default(); room];
        let (start, mut taken, mut takings) = (Instant::now(), 0, 0);
        while start.elapsed() < Duration::from_secs(1) {
            let received = std::future::poll_fn(|cx| {
                gather.poll(cx, &mut meta, |_, meta| {
                    let come = start.elapsed().as_micros() as u64 / every;
                    let received = (come - taken).min(meta.len() as u64);
                    for one in meta.iter_mut().take(received as usize) {
                        (one.len, one.stride) = (1200, 1200);
                    }
                    taken += received;
                    Poll::Ready(Ok(received as usize))
                })
            });
            takings += u64::from(received.await.unwrap() > 0);
            // The clock stands still but for this; what is polled when nothing has come is no taking up.
            tokio::time::advance(Duration::from_micros(20)).await;
        }
        (taken, takings)
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_quickly_is_taken_up_together_and_nothing_else_waits() {
        let (taken, together) = takings(25, 32).await;
        assert!(taken > 39_900 && together < 3_000, "{taken} packets in {together}");
        let (taken, one_by_one) = takings(200, 32).await;
        assert!(taken > 4_900 && one_by_one == taken, "{taken} packets in {one_by_one}");
        // As many as a very fast line brings are there together anyway.
        let (taken, at_once) = takings(5, 32).await;
        assert!(taken > 199_000 && at_once > 40_000, "{taken} packets in {at_once}");
    }
}
