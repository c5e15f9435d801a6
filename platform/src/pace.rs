//! Holds what is sent to a rate. Whoever wants to send takes its bytes first and is kept waiting in the order of
//! asking; a short burst passes at once, so that an idle line costs the first chunk nothing. A new rate counts at once,
//! for those who wait as well.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

pub struct Pace {
    state: Mutex<State>,
    /// Rings with each new rate.
    changed: watch::Sender<u64>,
}

struct State {
    /// Bytes a second; None: as fast as the line goes.
    rate: Option<f64>,
    /// Bytes that were asked for since the beginning, and that have passed by `at`; what an idle line makes up for may
    /// be ahead.
    taken: f64,
    passed: f64,
    at: Instant,
}

impl Pace {
    /// In bytes a second. None: as fast as the line goes.
    pub fn new(bytes_per_second: Option<u64>) -> Self {
        let state = State { rate: None, taken: 0.0, passed: 0.0, at: Instant::now() };
        let pace = Self { state: Mutex::new(state), changed: watch::Sender::new(0) };
        pace.set(bytes_per_second);
        pace
    }

    /// From now on at this rate.
    pub fn set(&self, bytes_per_second: Option<u64>) {
        let rate = bytes_per_second.map(|rate| rate.max(1) as f64);
        let mut state = self.locked();
        if state.rate != rate {
            state.advance(Instant::now());
            state.rate = rate;
            drop(state);
            self.changed.send_modify(|count| *count += 1);
        }
    }

    /// Bytes a second.
    pub fn rate(&self) -> Option<u64> {
        self.locked().rate.map(|rate| rate as u64)
    }

    /// Returns when these bytes may be sent.
    pub async fn take(&self, bytes: u64) {
        let mut changed = self.changed.subscribe();
        let turn = {
            let mut state = self.locked();
            state.advance(Instant::now());
            if state.rate.is_none() {
                return;
            }
            let turn = state.taken;
            state.taken += bytes as f64;
            turn
        };
        while let Some(wait) = self.left(turn) {
            tokio::select! {
                biased;
                _ = changed.changed() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// How long whoever has this turn waits at the rate of now.
    fn left(&self, turn: f64) -> Option<Duration> {
        let mut state = self.locked();
        state.advance(Instant::now());
        let rate = state.rate?;
        // A timer knows milliseconds.
        let left = (turn - state.passed) / rate;
        (left > 0.0).then(|| Duration::from_secs_f64(left.max(0.001)))
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn advance(&mut self, now: Instant) {
        self.passed = match self.rate {
            Some(rate) => {
                let more = now.saturating_duration_since(self.at).as_secs_f64() * rate;
                (self.passed + more).min(self.taken + rate * BURST.as_secs_f64())
            }
            None => self.taken,
        };
        self.at = now;
    }
}

/// What an idle line may make up for.
const BURST: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_senders_together_stay_within_the_rate() {
        let pace = std::sync::Arc::new(Pace::new(Some(1 << 20)));
        let since = Instant::now();
        let senders: Vec<_> = (0..4)
            .map(|_| {
                let pace = pace.clone();
                tokio::spawn(async move {
                    for _ in 0..4 {
                        pace.take(1 << 18).await;
                    }
                })
            })
            .collect();
        for sender in senders {
            sender.await.unwrap();
        }
        // 4 MiB at 1 MiB/s; the last piece is on its way when it is let go.
        let took = since.elapsed();
        assert!(took >= Duration::from_millis(3600) && took <= Duration::from_millis(4000), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_rate_counts_at_once() {
        let pace = Pace::new(None);
        pace.take(1 << 20).await;
        pace.set(Some(1 << 20));
        let since = Instant::now();
        pace.take(1 << 20).await;
        pace.take(1).await;
        assert!(since.elapsed() >= Duration::from_millis(800), "{:?}", since.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_nothing_waits() {
        let pace = Pace::new(None);
        let since = Instant::now();
        for _ in 0..1000 {
            pace.take(u64::MAX).await;
        }
        assert_eq!(since.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_goes_on_at_the_new_rate() {
        for (rate, seconds) in [(Some(1 << 20), 11.0), (None, 10.0)] {
            let pace = std::sync::Arc::new(Pace::new(Some(1 << 10)));
            let since = Instant::now();
            // The second one's turn would come after seventeen minutes.
            pace.take(1 << 20).await;
            let waiting = tokio::spawn({
                let pace = pace.clone();
                async move { pace.take(1).await }
            });
            tokio::time::sleep(Duration::from_secs(10)).await;
            pace.set(rate);
            waiting.await.unwrap();
            let took = since.elapsed().as_secs_f64();
            assert!((took - seconds).abs() < 0.1, "{took}");
        }
    }
}
