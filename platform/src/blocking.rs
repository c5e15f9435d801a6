//! Work that would stall the reactor: threads in production, inline in simulation.

use std::future::Future;
use std::pin::Pin;

type Work = Box<dyn FnOnce() + Send>;

pub trait Blocking: Send + Sync {
    /// Whether work may wait for what is done elsewhere: not where nothing else is done until it ends.
    fn may_wait(&self) -> bool;
    fn submit(&self, work: Work) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

impl dyn Blocking {
    /// Runs `work` and gives its result. Fails only if `work` panicked.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Panicked> {
        let (send, receive) = tokio::sync::oneshot::channel();
        self.submit(Box::new(move || {
            // A dropped receiver means nobody waits any more.
            let _ = send.send(work());
        }))
        .await;
        receive.await.map_err(|_| Panicked)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("work on a blocking thread panicked")]
pub struct Panicked;

pub struct Threads;

impl Blocking for Threads {
    fn may_wait(&self) -> bool {
        true
    }
    fn submit(&self, work: Work) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let handle = tokio::task::spawn_blocking(work);
        Box::pin(async move {
            let _ = handle.await;
        })
    }
}

/// Runs work where it is asked for; for simulation.
pub struct Inline;

impl Blocking for Inline {
    fn may_wait(&self) -> bool {
        false
    }
    fn submit(&self, work: Work) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        work();
        Box::pin(std::future::ready(()))
    }
}
