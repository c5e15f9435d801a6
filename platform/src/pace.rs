//! Holds what a node sends to its configured bandwidth, all transfers together.
//! Whoever wants to send takes its bytes first and is kept waiting in the order of asking; a short
//! burst passes at once, so that an idle line costs the first chunk nothing.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

pub struct Pace {
    bytes_per_second: Mutex<Option<u64>>,
    /// When all that was taken so far has passed at the given rate.
    passed: Mutex<Option<Instant>>,
}

impl Pace {
    /// None: as fast as the line goes.
    pub fn new(bytes_per_second: Option<u64>) -> Self {
        let pace = Self { bytes_per_second: Mutex::default(), passed: Mutex::default() };
        pace.set(bytes_per_second);
        pace
    }

    /// From now on at this rate.
    pub fn set(&self, bytes_per_second: Option<u64>) {
        *self.bytes_per_second.lock().unwrap_or_else(PoisonError::into_inner) =
            bytes_per_second.map(|rate| rate.max(1));
    }

    /// Returns when these bytes may be sent.
    pub async fn take(&self, bytes: u64) {
        let Some(rate) = *self.bytes_per_second.lock().unwrap_or_else(PoisonError::into_inner) else { return };
        let cost = Duration::from_secs_f64(bytes as f64 / rate as f64);
        let start = {
            let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let start = passed.unwrap_or(now).max(now.checked_sub(BURST).unwrap_or(now));
            *passed = Some(start + cost);
            start
        };
        tokio::time::sleep_until(start).await;
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
}
