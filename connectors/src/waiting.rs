//! Waits, on the blocking thread that a connector's call runs on, for a driver that speaks async: each connection has a
//! runtime of its own, which runs on that thread and only while the call waits. What a call hands out (rows to a sink)
//! or takes in (batches of a split) is handled between two waits and never within one, since either side may block.
//! Deliberately absent: tasks that go on while nobody waits.

use std::future::Future;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

#[derive(Debug)]
pub(crate) struct Waiter {
    /// There until it is dropped.
    runtime: Option<Runtime>,
}

impl Waiter {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self { runtime: Some(Builder::new_current_thread().enable_all().build()?) })
    }

    /// Runs `work` to its end.
    pub(crate) fn wait<F: Future>(&self, work: F) -> F::Output {
        self.runtime.as_ref().expect("it is there until this is dropped").block_on(work)
    }

    /// The same, for as long as `at_most`; none where it has not come to its end by then.
    pub(crate) fn wait_at_most<F: Future>(&self, at_most: Duration, work: F) -> Option<F::Output> {
        self.wait(async { tokio::time::timeout(at_most, work).await.ok() })
    }

    /// Takes leave: `work` runs for as long as `at_most` on a thread of its own, for the end may come where nothing may
    /// block.
    pub(crate) fn part<F: Future + Send + 'static>(self, at_most: Duration, work: F) {
        let leave = move || drop(self.wait_at_most(at_most, work));
        // Without a thread the other side finds the line closed, and that is all.
        drop(std::thread::Builder::new().name("posthouse-part".to_owned()).spawn(leave));
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        // To wait for the runtime's end would be a panic on a thread that runs tasks.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
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

    #[test]
    fn it_may_end_where_nothing_may_block_and_still_says_goodbye() {
        let (said, heard) = std::sync::mpsc::channel();
        let outer = Builder::new_multi_thread().worker_threads(1).build().unwrap();
        outer.block_on(async {
            drop(Waiter::new().unwrap());
            Waiter::new().unwrap().part(Duration::from_secs(60), async move { said.send("goodbye").unwrap() });
        });
        assert_eq!(heard.recv().unwrap(), "goodbye");
    }
}
