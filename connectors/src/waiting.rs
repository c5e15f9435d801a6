//! Waits, on the blocking thread that a connector's call runs on, for a driver that speaks async: each connection has a
//! runtime of its own, which runs on that thread and only while the call waits. What a call hands out (rows to a sink)
//! or takes in (batches of a split) is handled between two waits and never within one, since either side may block.
//! Deliberately absent: threads and tasks of its own.

use std::future::Future;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

#[derive(Debug)]
pub(crate) struct Waiter {
    runtime: Runtime,
}

impl Waiter {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self { runtime: Builder::new_current_thread().enable_all().build()? })
    }

    /// Runs `work` to its end.
    pub(crate) fn wait<F: Future>(&self, work: F) -> F::Output {
        self.runtime.block_on(work)
    }

    /// The same, for as long as `at_most`; none where it has not come to its end by then.
    pub(crate) fn wait_at_most<F: Future>(&self, at_most: Duration, work: F) -> Option<F::Output> {
        self.runtime.block_on(async { tokio::time::timeout(at_most, work).await.ok() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_runs_to_its_end_on_the_calling_thread_and_on_those_of_another_runtime() {
        let waiter = Waiter::new().unwrap();
        assert_eq!(waiter.wait(async { std::thread::current().id() }), std::thread::current().id());
        let outer = Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let within = outer.block_on(async {
            tokio::task::spawn_blocking(|| Waiter::new().unwrap().wait(async { 1 + 1 })).await.unwrap()
        });
        assert_eq!(within, 2);
    }

    #[test]
    fn work_that_does_not_end_is_left() {
        let waiter = Waiter::new().unwrap();
        assert_eq!(waiter.wait_at_most(Duration::from_millis(1), std::future::pending::<()>()), None);
        assert_eq!(waiter.wait_at_most(Duration::from_secs(3600), async { 7 }), Some(7));
    }
}
